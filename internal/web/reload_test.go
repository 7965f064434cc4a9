package web_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"syncd/internal/web"
)

// TestReload holds that POST /-/reload answers with every error as text, a line each, and that it is a change like others:
// whoever may make none may not do it.
func TestReload(t *testing.T) {
	const token = "a-token-of-some-length"
	invalid := errors.New("syncd.yaml:1:1: accounts: <b>is missing\nsyncd.yaml:2:1: sinks: is text")
	stopping := &web.Error{Status: http.StatusServiceUnavailable, Err: errors.New("syncd is stopping")}
	for name, row := range map[string]struct {
		token              string
		beyond             bool // loopback
		err                error
		auth, origin, host string
		status             int
		body               string
	}{
		"done":                  {status: 200, body: "reloaded\n"},
		"invalid":               {err: invalid, status: 400, body: invalid.Error() + "\n"},
		"refused":               {err: stopping, status: 503, body: "syncd is stopping\n"},
		"with the token":        {token: token, beyond: true, auth: "Bearer " + token, status: 200, body: "reloaded\n"},
		"by another name":       {host: "evil.example", status: 403, body: "evil.example"},
		"from another site":     {origin: "http://evil.example", status: 403, body: "another site"},
		"without the token":     {token: token, status: 401, body: "server.api_token_file"},
		"with another token":    {token: token, auth: "Bearer " + token[1:], status: 401, body: "server.api_token_file"},
		"beyond loopback":       {beyond: true, status: 403, body: "server.api_token_file"},
		"beyond, no token said": {beyond: true, auth: "Bearer ", status: 403, body: "server.api_token_file"},
	} {
		t.Run(name, func(t *testing.T) {
			called := false
			cfg := config(nil)
			cfg.APIToken, cfg.Loopback = func() string { return row.token }, !row.beyond
			cfg.Reload = func(context.Context) error { called = true; return row.err }
			r := httptest.NewRequest("POST", "/-/reload", nil)
			if r.Host = "127.0.0.1:9469"; row.host != "" {
				r.Host = row.host
			}
			for key, value := range map[string]string{"Authorization": row.auth, "Origin": row.origin} {
				if value != "" {
					r.Header.Set(key, value)
				}
			}
			w := httptest.NewRecorder()
			web.Handler(cfg).ServeHTTP(w, r)
			if w.Code != row.status || !strings.Contains(w.Body.String(), row.body) {
				t.Errorf("got %d %q, want %d %q", w.Code, w.Body, row.status, row.body)
			}
			if got := w.Header(); !strings.HasPrefix(got.Get("Content-Type"), "text/plain") || got.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("a browser may not take it for text: %v", got)
			}
			if got := w.Header().Get("WWW-Authenticate") != ""; got != (row.status == 401) {
				t.Errorf("asks for the token: %v", got)
			}
			if allowed := row.status != 401 && row.status != 403; called != allowed {
				t.Errorf("reloaded: %v", called)
			}
		})
	}
}

// TestTokenReplaced holds that a new token counts at once, and the old one no more.
func TestTokenReplaced(t *testing.T) {
	token := "the-first-token"
	cfg := config(nil)
	cfg.Loopback, cfg.APIToken = false, func() string { return token }
	cfg.Actions = map[string]web.Action{"poll": func(context.Context, []byte) (any, error) { return "done", nil }}
	h := web.Handler(cfg)
	post := func(path, auth string) int {
		r := httptest.NewRequest("POST", path, strings.NewReader("{}"))
		r.Host = "10.0.0.7:9469"
		r.Header.Set("Authorization", "Bearer "+auth)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	for _, path := range []string{"/api/v1/poll", "/-/reload"} {
		token = "the-first-token"
		if got := post(path, "the-first-token"); got != 200 {
			t.Errorf("%s: the first token: %d", path, got)
		}
		token = "the-second-token"
		if got := post(path, "the-first-token"); got != 401 {
			t.Errorf("%s: the first token, replaced: %d", path, got)
		}
		if got := post(path, "the-second-token"); got != 200 {
			t.Errorf("%s: the second token: %d", path, got)
		}
		token = ""
		if got := post(path, ""); got != 403 {
			t.Errorf("%s: no token any more: %d", path, got)
		}
	}
}
