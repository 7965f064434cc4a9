package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// Action is a command of contract §3 that changes something: POST /api/v1/<name>.
// in is the request's body, a JSON object; out is rendered as JSON. It may be
// called concurrently. An *Error says what status its failure has; any other
// error is a 500.
type Action func(ctx context.Context, in []byte) (out any, err error)

// Download is a command whose answer is a stream of bytes: POST /api/v1/<name>,
// under the same checks. It may be called concurrently. Where it fails after its
// first byte the connection is cut, so that a piece is not taken for the whole.
type Download func(ctx context.Context, w io.Writer) error

// Error is a failure with a status that tells a program what to make of it.
type Error struct {
	Status int
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// maxAPIBody is far above any command's arguments.
const maxAPIBody = 64 << 10

// api serves /api/v1 behind the checks of contract §8:
//
//   - the Host header must name this server: a page in a browser whose own name
//     was made to resolve to it (DNS rebinding) names another. An address cannot be
//     made to resolve, so any will do;
//   - a change must be a POST that no other site's page made a browser send;
//   - where a token is set, a change needs it; where none is, a change is refused
//     off loopback. "Off loopback" is where the server listens, not where the
//     request seems to come from: behind a proxy all of them seem local.
type api struct {
	Config
	origin *http.CrossOriginProtection
	hosts  map[string]bool
}

func newAPI(cfg Config) *api {
	host, _, _ := net.SplitHostPort(cfg.Listen) // was bound: it has both
	a := &api{Config: cfg, origin: http.NewCrossOriginProtection(), hosts: map[string]bool{"localhost": true}}
	names := []string{host}
	if machine, err := os.Hostname(); err == nil {
		names = append(names, machine)
	}
	for _, name := range names {
		if name != "" {
			a.hosts[strings.ToLower(name)] = true
		}
	}
	return a
}

func (a *api) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/v1/status", func(w http.ResponseWriter, r *http.Request) {
		if !a.hasToken(r) && !a.knowsHost(w, r) {
			return
		}
		a.answer(w, http.StatusOK, a.Status())
	})
	for name, act := range a.Actions {
		mux.HandleFunc("POST /api/v1/"+name, func(w http.ResponseWriter, r *http.Request) { a.change(w, r, act) })
	}
	for name, write := range a.Downloads {
		mux.HandleFunc("POST /api/v1/"+name, func(w http.ResponseWriter, r *http.Request) { a.download(w, r, write) })
	}
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		if a.knowsHost(w, r) {
			a.refuse(w, http.StatusNotFound, "there is no such command; GET /api/v1/status shows what is going on")
		}
	})
}

// mayChange makes the checks, and answers where the request fails one.
func (a *api) mayChange(w http.ResponseWriter, r *http.Request) bool {
	token := a.hasToken(r)
	switch {
	case !token && !a.knowsHost(w, r):
	case a.origin.Check(r) != nil:
		a.refuse(w, http.StatusForbidden, "a page of another site may not do this")
	case a.APIToken != "" && !token:
		w.Header().Set("WWW-Authenticate", `Bearer realm="syncd"`)
		a.refuse(w, http.StatusUnauthorized, "this needs the token of server.api_token_file: Authorization: Bearer TOKEN")
	case a.APIToken == "" && !a.Loopback:
		a.refuse(w, http.StatusForbidden, "syncd listens beyond loopback, where this needs a token: set server.api_token_file")
	default:
		return true
	}
	return false
}

func (a *api) change(w http.ResponseWriter, r *http.Request, act Action) {
	if !a.mayChange(w, r) {
		return
	}
	in, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAPIBody))
	if err != nil {
		a.refuse(w, http.StatusBadRequest, "the body could not be read, or is larger than 64 KiB")
		return
	}
	out, err := act(r.Context(), in)
	if err != nil {
		a.failed(w, err)
		return
	}
	a.answer(w, http.StatusOK, out)
}

func (a *api) failed(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	if e, ok := errors.AsType[*Error](err); ok {
		status = e.Status
	}
	a.refuse(w, status, err.Error())
}

// takes is how long a client may take for a piece of a download. What writes it
// may hold something up.
const takes = 30 * time.Second

// pieces writes a download as long as its client takes it.
type pieces struct {
	http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

func (p *pieces) Write(b []byte) (int, error) {
	p.begun = true
	if err := p.control.SetWriteDeadline(time.Now().Add(takes)); err != nil {
		return 0, err
	}
	return p.ResponseWriter.Write(b)
}

func (a *api) download(w http.ResponseWriter, r *http.Request, write Download) {
	if !a.mayChange(w, r) {
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	p := &pieces{ResponseWriter: w, control: http.NewResponseController(w)}
	switch err := write(r.Context(), p); {
	case err != nil && !p.begun:
		a.failed(w, err)
	case err != nil:
		a.Log.Warn("a download did not come to its end", "path", r.URL.Path, "err", err)
		panic(http.ErrAbortHandler) // or what was sent would look whole
	}
}

// knowsHost checks the Host header, and answers where it is another's.
func (a *api) knowsHost(w http.ResponseWriter, r *http.Request) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if net.ParseIP(host) != nil || a.hosts[strings.ToLower(host)] {
		return true
	}
	a.refuse(w, http.StatusForbidden, fmt.Sprintf("this server is not %.100q: ask it by its address, by localhost, or with the token of server.api_token_file", host))
	return false
}

// hasToken compares digests, so that the time taken tells nothing.
func (a *api) hasToken(r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if a.APIToken == "" || !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	got, want := sha256.Sum256([]byte(strings.TrimSpace(token))), sha256.Sum256([]byte(a.APIToken))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

func (a *api) refuse(w http.ResponseWriter, status int, why string) {
	a.answer(w, status, map[string]string{"error": why})
}

func (a *api) answer(w http.ResponseWriter, status int, v any) {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		a.Log.Error("an answer of the API could not be rendered", "err", err)
		status, raw = http.StatusInternalServerError, []byte(`{"error":"the answer could not be rendered"}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	if _, err := w.Write(append(raw, '\n')); err != nil {
		a.Log.Log(context.Background(), slog.LevelDebug, "an answer of the API was not taken", "err", err)
	}
}

// Arguments reads the body of an Action into v: one JSON object without unknown
// members.
func Arguments(in []byte, v any) error {
	d := json.NewDecoder(strings.NewReader(string(in)))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return &Error{Status: http.StatusBadRequest, Err: fmt.Errorf("the arguments cannot be read: %w", err)}
	}
	if d.More() {
		return &Error{Status: http.StatusBadRequest, Err: errors.New("the arguments cannot be read: more than one JSON value")}
	}
	return nil
}
