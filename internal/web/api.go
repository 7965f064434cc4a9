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

// Action is a command of contract §3 that changes something or shows what is not
// for everybody: POST /api/v1/<name>. in is the request's body, a JSON object; out
// is rendered as JSON, in memory: a long list is asked for in pages. It may be
// called concurrently. An *Error says what status its failure has; any other
// error is a 500.
type Action func(ctx context.Context, in []byte) (out any, err error)

// Download is a command whose answer is a stream of bytes: POST /api/v1/<name>,
// with the same body and under the same checks.
type Download struct {
	// Write may be called concurrently, a few at once. Where it fails after its first
	// byte the connection is cut, so that a piece is not taken for the whole.
	Write func(ctx context.Context, in []byte, w io.Writer) error
	// Patient says that Write holds nothing while it waits for its client, who may then
	// pause for as long as it is connected: that its machine has gone, the kernel finds
	// out. Every other client is left when it takes nothing for half a minute.
	Patient bool
}

// Error is a failure with a status that tells a program what to make of it.
type Error struct {
	Status int
	Err    error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// maxAPIBody is far above any command's arguments.
const maxAPIBody = 64 << 10

// api serves /api/v1 and /-/reload behind the checks of contract §8:
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
		if err := a.checkHost(r, a.APIToken()); err != nil {
			a.failed(w, err)
			return
		}
		a.answer(w, http.StatusOK, a.Status())
	})
	for name, act := range a.Actions {
		mux.HandleFunc("POST /api/v1/"+name, func(w http.ResponseWriter, r *http.Request) { a.change(w, r, act) })
	}
	for name, d := range a.Downloads {
		most := downloadsMost
		if d.Patient {
			most = pausesMost
		}
		places := make(chan struct{}, most) // of its own: who pauses in one keeps nobody from another
		mux.HandleFunc("POST /api/v1/"+name, func(w http.ResponseWriter, r *http.Request) { a.download(w, r, d, places) })
	}
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		err := a.checkHost(r, a.APIToken())
		if err == nil {
			err = refused(http.StatusNotFound, "there is no such command; GET /api/v1/status shows what is going on")
		}
		a.failed(w, err)
	})
	mux.HandleFunc("POST /-/reload", a.reload)
}

// refused is an error with a status.
func refused(status int, format string, args ...any) error {
	return &Error{Status: status, Err: fmt.Errorf(format, args...)}
}

// statusOf is the status of a failure, where it is an *Error.
func statusOf(err error, otherwise int) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return otherwise
}

// check makes the checks of a change.
func (a *api) check(r *http.Request) error {
	token := a.APIToken() // once: it may be replaced at any time
	if err := a.checkHost(r, token); err != nil {
		return err
	}
	switch {
	case a.origin.Check(r) != nil:
		return refused(http.StatusForbidden, "a page of another site may not do this")
	case token != "" && !hasToken(r, token):
		return refused(http.StatusUnauthorized, "this needs the token of server.api_token_file: Authorization: Bearer TOKEN")
	case token == "" && !a.Loopback:
		return refused(http.StatusForbidden, "syncd listens beyond loopback, where this needs a token: set server.api_token_file")
	}
	return nil
}

// checkHost checks the Host header, unless the request has the token.
func (a *api) checkHost(r *http.Request, token string) error {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if net.ParseIP(host) != nil || a.hosts[strings.ToLower(host)] || hasToken(r, token) {
		return nil
	}
	return refused(http.StatusForbidden,
		"this server is not %.100q: ask it by its address, by localhost, or with the token of server.api_token_file", host)
}

// hasToken compares digests, so that the time taken tells nothing.
func hasToken(r *http.Request, token string) bool {
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if token == "" || !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	got, want := sha256.Sum256([]byte(strings.TrimSpace(given))), sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// arguments makes the checks of a change and reads its body.
func (a *api) arguments(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if err := a.check(r); err != nil {
		return nil, err
	}
	in, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAPIBody))
	if err != nil {
		return nil, refused(http.StatusBadRequest, "the body could not be read, or is larger than 64 KiB")
	}
	return in, nil
}

func (a *api) change(w http.ResponseWriter, r *http.Request, act Action) {
	in, err := a.arguments(w, r)
	if err != nil {
		a.failed(w, err)
		return
	}
	out, err := act(r.Context(), in)
	if err != nil {
		a.failed(w, err)
		return
	}
	a.answer(w, http.StatusOK, out)
}

// reload answers in text: who asks is an operator with curl, or a script that
// shows the answer to one.
func (a *api) reload(w http.ResponseWriter, r *http.Request) {
	if err := a.check(r); err != nil {
		challenge(w, err)
		text(w, statusOf(err, http.StatusForbidden), err.Error())
		return
	}
	err := a.Reload(r.Context())
	inTime(w)
	if err != nil {
		text(w, statusOf(err, http.StatusBadRequest), err.Error())
		return
	}
	text(w, http.StatusOK, "reloaded")
}

// takes is how long a client may take for an answer, or for a piece of a download.
// What writes it may hold something up.
const takes = 30 * time.Second

// inTime gives the client that long from now: the command may have used up
// the server's time for writing, and its answer would be cut.
func inTime(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(takes)) // fails where the connection has
}

// pieces writes a download as long as its client takes it.
type pieces struct {
	http.ResponseWriter
	patient bool
	begun   bool
	failed  error // of the connection
}

func (p *pieces) Write(b []byte) (int, error) {
	p.begun = true
	p.inTime()
	n, err := p.ResponseWriter.Write(b)
	if err != nil {
		p.failed = err
	}
	return n, err
}

// left says that err, of a download, is only that its client has gone away. One that is
// there and takes nothing is something else.
func (p *pieces) left(r *http.Request, err error) bool {
	return r.Context().Err() != nil && !errors.Is(p.failed, os.ErrDeadlineExceeded) && (errors.Is(err, p.failed) || errors.Is(err, context.Canceled))
}

// inTime gives the client time for what comes.
func (p *pieces) inTime() {
	if !p.patient {
		inTime(p.ResponseWriter)
		return
	}
	_ = http.NewResponseController(p.ResponseWriter).SetWriteDeadline(time.Time{}) // or the server's would count
}

// downloadsMost is how many there may be at once of each command: one may hold memory,
// and keep the state from using pages again that it has freed. pausesMost is the same
// of those whose clients may pause: they hold a megabyte.
const (
	downloadsMost = 4
	pausesMost    = 32
)

// download answers with d, of which places holds one for each that is under way.
func (a *api) download(w http.ResponseWriter, r *http.Request, d Download, places chan struct{}) {
	in, err := a.arguments(w, r)
	if err != nil {
		a.failed(w, err)
		return
	}
	select {
	case places <- struct{}{}:
		defer func() { <-places }()
	default:
		a.failed(w, refused(http.StatusServiceUnavailable, "%d others are being answered with as much, or pause: try again later", cap(places)))
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	p := &pieces{ResponseWriter: w, patient: d.Patient}
	switch err := d.Write(r.Context(), in, p); {
	case err != nil && !p.begun:
		a.failed(w, err)
	case err != nil:
		level := slog.LevelWarn
		if p.left(r, err) {
			level = slog.LevelDebug // `export | head`, say
		}
		a.Log.Log(context.Background(), level, "a download did not come to its end", "path", r.URL.Path, "err", err)
		panic(http.ErrAbortHandler) // or what was sent would look whole
	default:
		p.inTime() // for what is still in a buffer, perhaps since long ago
	}
}

// challenge says what would help against a 401.
func challenge(w http.ResponseWriter, err error) {
	if statusOf(err, 0) == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="syncd"`)
	}
}

func (a *api) failed(w http.ResponseWriter, err error) {
	challenge(w, err)
	a.answer(w, statusOf(err, http.StatusInternalServerError), map[string]string{"error": err.Error()})
}

func (a *api) answer(w http.ResponseWriter, status int, v any) {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		a.Log.Error("an answer of the API could not be rendered", "err", err)
		status, raw = http.StatusInternalServerError, []byte(`{"error":"the answer could not be rendered"}`)
	}
	inTime(w)
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
		return refused(http.StatusBadRequest, "the arguments cannot be read: %w", err)
	}
	if d.More() {
		return refused(http.StatusBadRequest, "the arguments cannot be read: more than one JSON value")
	}
	return nil
}
