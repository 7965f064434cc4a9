package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"syncd/internal/web"
)

// TestAPIChecks holds contract §8: who may change something, and from where.
func TestAPIChecks(t *testing.T) {
	const token = "a-token-of-some-length"
	type request struct {
		method, path, host, auth, origin, site, body string
	}
	post := request{method: "POST", path: "/api/v1/poll", host: "127.0.0.1:9469", body: `{"account":"shop-a"}`}
	with := func(change func(*request)) request {
		r := post
		change(&r)
		return r
	}
	for name, row := range map[string]struct {
		listen, token string
		request       request
		status        int
		contains      string
	}{
		"on loopback":               {"127.0.0.1:9469", "", post, 200, `"shop-a"`},
		"on loopback, IPv6":         {"[::1]:9469", "", with(func(r *request) { r.host = "[::1]:9469" }), 200, ""},
		"by name":                   {"localhost:9469", "", with(func(r *request) { r.host = "LocalHost:9469" }), 200, ""},
		"another host":              {"127.0.0.1:9469", "", with(func(r *request) { r.host = "evil.example" }), 403, "evil.example"},
		"another host, with token":  {"0.0.0.0:9469", token, with(func(r *request) { r.host, r.auth = "syncd:9469", "Bearer "+token }), 200, ""},
		"another host, status":      {"127.0.0.1:9469", "", request{method: "GET", path: "/api/v1/status", host: "evil.example"}, 403, "evil.example"},
		"status":                    {"0.0.0.0:9469", "", request{method: "GET", path: "/api/v1/status", host: "10.0.0.7:9469"}, 200, `"fine"`},
		"status is not posted":      {"127.0.0.1:9469", "", request{method: "POST", path: "/api/v1/status", host: "127.0.0.1"}, 404, ""},
		"a change is not got":       {"127.0.0.1:9469", "", request{method: "GET", path: "/api/v1/poll", host: "127.0.0.1"}, 404, "no such command"},
		"unknown":                   {"127.0.0.1:9469", "", request{method: "POST", path: "/api/v1/nothing", host: "127.0.0.1"}, 404, "no such command"},
		"off loopback, no token":    {"0.0.0.0:9469", "", post, 403, "server.api_token_file"},
		"all interfaces, no token":  {":9469", "", post, 403, "server.api_token_file"},
		"off loopback, right token": {"0.0.0.0:9469", token, with(func(r *request) { r.auth = "bearer " + token }), 200, ""},
		"off loopback, wrong token": {"0.0.0.0:9469", token, with(func(r *request) { r.auth = "Bearer " + token + "x" }), 401, "api_token_file"},
		"token set, none given":     {"127.0.0.1:9469", token, post, 401, "api_token_file"},
		"token as a password":       {"127.0.0.1:9469", token, with(func(r *request) { r.auth = "Basic " + token }), 401, ""},
		"no token set, empty given": {"0.0.0.0:9469", "", with(func(r *request) { r.auth = "Bearer " }), 403, ""},
		"same origin":               {"127.0.0.1:9469", "", with(func(r *request) { r.origin = "http://127.0.0.1:9469" }), 200, ""},
		"another origin":            {"127.0.0.1:9469", "", with(func(r *request) { r.origin = "http://evil.example" }), 403, "another site"},
		"an origin that is hidden":  {"127.0.0.1:9469", "", with(func(r *request) { r.origin = "null" }), 403, "another site"},
		"another port's page":       {"127.0.0.1:9469", "", with(func(r *request) { r.origin = "http://127.0.0.1:80" }), 403, "another site"},
		"a browser says cross-site": {"127.0.0.1:9469", token, with(func(r *request) { r.site, r.auth = "cross-site", "Bearer "+token }), 403, "another site"},
		"too much":                  {"127.0.0.1:9469", "", with(func(r *request) { r.body = strings.Repeat(" ", 65<<10) }), 400, "64 KiB"},
		"unknown argument":          {"127.0.0.1:9469", "", with(func(r *request) { r.body = `{"acount":"shop-a"}` }), 400, "acount"},
		"no JSON":                   {"127.0.0.1:9469", "", with(func(r *request) { r.body = "account=shop-a" }), 400, "arguments"},
		"two values":                {"127.0.0.1:9469", "", with(func(r *request) { r.body = `{}{}` }), 400, "more than one"},
		"it fails":                  {"127.0.0.1:9469", "", with(func(r *request) { r.body = `{"account":"broken"}` }), 500, "broken <disk>"},
		"the caller's mistake":      {"127.0.0.1:9469", "", with(func(r *request) { r.body = `{"account":"nobody"}` }), 404, "no account nobody"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(func() ([]string, error) { return nil, nil })
			cfg.Listen, cfg.APIToken = row.listen, func() string { return row.token }
			cfg.Loopback = !strings.HasPrefix(row.listen, "0.0.0.0:") && !strings.HasPrefix(row.listen, ":")
			called := false
			cfg.Actions = map[string]web.Action{"poll": func(_ context.Context, in []byte) (any, error) {
				called = true
				var args struct {
					Account string `json:"account"`
				}
				if err := web.Arguments(in, &args); err != nil {
					return nil, err
				}
				switch args.Account {
				case "broken":
					return nil, errors.New("broken <disk>")
				case "nobody":
					return nil, &web.Error{Status: http.StatusNotFound, Err: errors.New("no account nobody")}
				}
				return []string{args.Account}, nil
			}}
			r := httptest.NewRequest(row.request.method, row.request.path, strings.NewReader(row.request.body))
			r.Host = row.request.host
			for key, value := range map[string]string{"Authorization": row.request.auth, "Origin": row.request.origin, "Sec-Fetch-Site": row.request.site} {
				if value != "" {
					r.Header.Set(key, value)
				}
			}
			w := httptest.NewRecorder()
			web.Handler(cfg).ServeHTTP(w, r)
			if w.Code != row.status {
				t.Errorf("status %d, want %d: %s", w.Code, row.status, w.Body)
			}
			if refused := w.Code == 401 || w.Code == 403; called && refused {
				t.Error("it was done and then refused")
			}
			var answer any
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
				t.Fatalf("the answer is no JSON: %s", w.Body)
			}
			text, _ := json.Marshal(answer)
			if !strings.Contains(strings.NewReplacer(`\u003c`, "<", `\u003e`, ">").Replace(string(text)), row.contains) {
				t.Errorf("answer %s does not contain %q", text, row.contains)
			}
			if strings.Contains(w.Body.String(), token) {
				t.Error("the answer holds the token")
			}
		})
	}
}
