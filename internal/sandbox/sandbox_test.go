package sandbox_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sandbox"
)

// shop is a sandbox with one seller and a token for it.
type shop struct {
	*sandbox.Sandbox
	t     *testing.T
	world *sandbox.World
	token string
}

func newShop(t *testing.T, spec sandbox.WorldSpec, quirks ...sandbox.Quirks) *shop {
	t.Helper()
	cfg := sandbox.Config{Seed: 1, Sellers: []sandbox.Seller{{World: spec}}}
	for _, q := range quirks {
		cfg.Quirks = q
	}
	return open(t, cfg)
}

func open(t *testing.T, cfg sandbox.Config) *shop {
	t.Helper()
	sb, err := sandbox.New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	w := sb.Worlds()[0]
	return &shop{Sandbox: sb, t: t, world: w, token: sb.MintToken(sandbox.TokenSpec{Seller: w.ID()})}
}

func (s *shop) request(method, target, body string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Authorization", s.token)
	if method != http.MethodGet {
		r.Header.Set("Content-Type", "application/json")
	}
	return r
}

func (s *shop) serve(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func (s *shop) do(method, target, body string) *httptest.ResponseRecorder {
	return s.serve(s.request(method, target, body))
}

// get reads a 200 into v, after a pause in which every bucket fills up. Only for use in a bubble.
func (s *shop) get(target string, v any) {
	s.t.Helper()
	time.Sleep(time.Minute)
	s.read(s.do(http.MethodGet, target, ""), v)
}

func (s *shop) read(w *httptest.ResponseRecorder, v any) {
	s.t.Helper()
	if w.Code != http.StatusOK {
		s.t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), v); err != nil {
		s.t.Fatalf("decode: %v\n%s", err, w.Body)
	}
}

func (s *shop) wantStatus(w *httptest.ResponseRecorder, status int, parts ...string) {
	s.t.Helper()
	if w.Code != status {
		s.t.Fatalf("status %d, want %d: %s", w.Code, status, w.Body)
	}
	for _, part := range parts {
		if !strings.Contains(w.Body.String(), part) {
			s.t.Fatalf("body lacks %q: %s", part, w.Body)
		}
	}
}

func (s *shop) inject(faults ...sandbox.Fault) {
	s.t.Helper()
	if err := s.Inject(faults...); err != nil {
		s.t.Fatalf("Inject: %v", err)
	}
}

// bubble runs f where time passes only when everybody waits.
func bubble(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }

// dial starts a real HTTP server over in-memory pipes, which work in a bubble, and returns a client of it.
func (s *shop) dial() *http.Client {
	l := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
	srv := &http.Server{Handler: s.Handler()}
	go srv.Serve(l) //nolint:errcheck // it ends with ErrServerClosed
	transport := &http.Transport{DialContext: l.dial, DisableCompression: true}
	s.t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = srv.Close()
	})
	return &http.Client{Transport: transport}
}

// fetch sends one request through a client and reads all of the answer.
func (s *shop) fetch(ctx context.Context, c *http.Client, target string) (*http.Response, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://sandbox"+target, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", s.token)
	res, err := c.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res, body, err
}

type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { close(l.done); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func TestNewRefusesBadConfig(t *testing.T) {
	tests := map[string]struct {
		cfg  sandbox.Config
		want string
	}{
		"same seller twice": {sandbox.Config{Sellers: []sandbox.Seller{{ID: "a"}, {ID: "a"}}}, "id a is taken"},
		"negative history":  {sandbox.Config{Sellers: []sandbox.Seller{{World: sandbox.WorldSpec{Events: -1}}}}, "events: -1 is negative"},
		"share above 1":     {sandbox.Config{Sellers: []sandbox.Seller{{World: sandbox.WorldSpec{LateEvents: 1.5}}}}, "late events: 1.5"},
		"pins of nothing":   {sandbox.Config{Sellers: []sandbox.Seller{{World: sandbox.WorldSpec{Pins: 2, Feedbacks: 1}}}}, "pins: 2 of 1 feedbacks"},
		"page size":         {sandbox.Config{Quirks: sandbox.Quirks{PageSize: -1}}, "page size -1"},
		"claims":            {sandbox.Config{Sellers: []sandbox.Seller{{World: sandbox.WorldSpec{Claims: -1}}}}, "claims: -1 is negative"},
		"claim changes":     {sandbox.Config{Sellers: []sandbox.Seller{{World: sandbox.WorldSpec{StillClaimChanges: 2}}}}, "still claim changes: 2"},
		"unlisted chats":    {sandbox.Config{Sellers: []sandbox.Seller{{World: sandbox.WorldSpec{UnlistedChats: 2}}}}, "unlisted chats: 2 is above 1"},
		"order of claims":   {sandbox.Config{Quirks: sandbox.Quirks{ClaimOrder: 9}}, "unknown order 9"},
		"form of next":      {sandbox.Config{Quirks: sandbox.Quirks{EmptyNext: 9}}, "unknown form 9"},
		"denial":            {sandbox.Config{Quirks: sandbox.Quirks{Denial: 7}}, "unknown denial 7"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := sandbox.New(tt.cfg)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New: %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestUnknownPathIsTheDocumented404(t *testing.T) {
	s := newShop(t, sandbox.WorldSpec{})
	for _, r := range []*http.Request{s.request("GET", "/api/v2/questions", ""), s.request("DELETE", "/api/v1/questions", ""), s.request("GET", "/", "")} {
		w := s.serve(r)
		s.wantStatus(w, http.StatusNotFound, `"title":"path not found"`, "https://dev.wildberries.ru/openapi/api-information")
	}
	if got := s.Stats().NotFound; got != 3 {
		t.Errorf("NotFound = %d, want 3", got)
	}
}

func TestControl(t *testing.T) {
	s := newShop(t, sandbox.WorldSpec{})
	s.wantStatus(s.do("POST", "/_sandbox/faults", `{"kind":"status_503","variant":"json","path":"/ping","count":1,"delay":"2s"}`), http.StatusOK,
		`[{"kind":"status_503","variant":"json","path":"/ping","count":1,"delay":"2s"}]`)
	s.wantStatus(s.do("GET", "/ping", ""), http.StatusServiceUnavailable)
	s.wantStatus(s.do("GET", "/_sandbox/faults", ""), http.StatusOK, `[]`)
	s.wantStatus(s.do("GET", "/ping", ""), http.StatusOK, `"Status":"OK"`)
	s.wantStatus(s.do("GET", "/_sandbox/stats", ""), http.StatusOK, `"pings":1`, `"violations":0`, `"GET /ping":2`)

	s.wantStatus(s.do("POST", "/_sandbox/faults", `{"kind":"nonsense"}`), http.StatusBadRequest, "unknown fault kind")
	s.wantStatus(s.do("POST", "/_sandbox/faults", `{"knd":"reset"}`), http.StatusBadRequest, "unknown field")
	s.wantStatus(s.do("POST", "/_sandbox/faults", `{"kind":"reset","delay":"soon"}`), http.StatusBadRequest, "delay")
	s.wantStatus(s.do("POST", "/_sandbox/faults", `{"kind":"status_500"}`), http.StatusOK)
	s.wantStatus(s.do("DELETE", "/_sandbox/faults", ""), http.StatusOK, `[]`)
	s.wantStatus(s.do("GET", "/_sandbox/nothing", ""), http.StatusNotFound)
}
