package sink_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"
	"time"

	"syncd/internal/sink"
	"syncd/internal/sink/sinktest"
)

func TestWebhookExcerpt(t *testing.T) {
	for body, want := range map[string]string{
		"":                            "",
		" \r\n\t":                     "",
		"  no\r\n\r\n such\thook \n":  "no such hook",
		"\x1b[31mred\x1b[0m":          "[31mred [0m",
		"bad \xff\xfe utf-8":          "bad utf-8",
		"right\u202eto left\u200b":    "right to left",
		"Добрый день":                 "Добрый день",
		strings.Repeat("ы", 300):      strings.Repeat("ы", 200),
		strings.Repeat("y ", 300):     strings.TrimSpace(strings.Repeat("y ", 100)),
		"it is whsec_C2FVsBQIhrscChl": "it is [redacted]",
		`{"secret":"whsec_C2\/F"}`:    `{"secret":"[redacted]"}`,
	} {
		w := serve(t, sink.WebhookConfig{}, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(400)
			io.WriteString(w, body)
		})
		if e := send(t, w); e == nil || e.Excerpt != want {
			t.Errorf("%q: %+v, want %q", body, e, want)
		}
	}
}

// forbidden is what must not be seen in an error of leakyConfig.
var forbidden = []string{
	"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "user-name", "pass", "word", "cXVlcnk", "tok-header", "Basic dXN", "dXNlci1uYW1l", "tok-path",
}

func leakyConfig(scheme, host string) sink.WebhookConfig {
	return sink.WebhookConfig{
		URL:     scheme + "://user-name:pass%20word@" + host + "/hook/tok-path-0123456789?key=cXVlcnk%3D&b=c",
		Secrets: []string{testSecret},
		Headers: map[string]string{"X-Api-Key": "Token tok-header"},
		Timeout: 10 * time.Second,
	}
}

func checkNoLeak(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", what)
		return
	}
	sinktest.AssertNoSecret(t, err, forbidden...)
}

func TestWebhookKeepsSecrets(t *testing.T) {
	// A receiver that sends back all it was sent, and the secret it knows.
	echo := func(r *http.Request) string {
		user, password, _ := r.BasicAuth()
		return fmt.Sprint(path.Base(r.URL.Path), " ", r.RequestURI, r.URL.Query(), user, " ", password, r.Header.Get("Authorization"), r.Header.Get("X-Api-Key"), testSecret)
	}
	handlers := map[string]http.HandlerFunc{
		"body": func(w http.ResponseWriter, r *http.Request) {
			if user, password, _ := r.BasicAuth(); user != "user-name" || password != "pass word" {
				t.Errorf("basic auth: %q, %q", user, password)
			}
			w.WriteHeader(400)
			io.WriteString(w, echo(r))
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/?"+echo(r), http.StatusFound) },
		"malformed answer": func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			io.WriteString(conn, "HTTP/9 "+echo(r)+"\r\n\r\n")
		},
		"malformed header": func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 400 x\r\n"+strings.ReplaceAll(echo(r), ":", "")+"\r\n\r\n")
		},
		"closed": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	}
	for name, h := range handlers {
		server := httptest.NewServer(h)
		host := server.Listener.Addr().String()
		checkNoLeak(t, name, newWebhook(t, leakyConfig("http", host)).Deliver(t.Context(), sinktest.Events(1)))
		checkNoLeak(t, name+" over TLS", newWebhook(t, leakyConfig("https", host)).Deliver(t.Context(), sinktest.Events(1)))
		server.Close()
		checkNoLeak(t, name+" refused", newWebhook(t, leakyConfig("http", host)).Deliver(t.Context(), sinktest.Events(1)))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	checkNoLeak(t, "cancelled", newWebhook(t, leakyConfig("http", "127.0.0.1:1")).Deliver(ctx, sinktest.Events(1)))
}

func TestWebhookConfig(t *testing.T) {
	good := func() sink.WebhookConfig { return leakyConfig("https", "crm.example.com") }
	if _, err := sink.NewWebhook(good()); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*sink.WebhookConfig){
		"not a valid URL":            func(c *sink.WebhookConfig) { c.URL = "https://user-name:pass/word@host" },
		"http:// or https://":        func(c *sink.WebhookConfig) { c.URL = "ftp://user-name:password@host" },
		"name a host":                func(c *sink.WebhookConfig) { c.URL = "https://:8080/tok-path" },
		"fragment":                   func(c *sink.WebhookConfig) { c.URL += "#x" },
		"timeout -1s is negative":    func(c *sink.WebhookConfig) { c.Timeout = -time.Second },
		"concurrency -1 is negative": func(c *sink.WebhookConfig) { c.Concurrency = -1 },
		"unsigned, and yet":          func(c *sink.WebhookConfig) { c.Unsigned = true },
		"no secret":                  func(c *sink.WebhookConfig) { c.Secrets = nil },
		"secret 2: does not begin":   func(c *sink.WebhookConfig) { c.Secrets = append(c.Secrets, testSecret[6:]) },
		"secret 2: is not base64":    func(c *sink.WebhookConfig) { c.Secrets = append(c.Secrets, testSecret+"=") },
		"secret 1: has 6 bytes":      func(c *sink.WebhookConfig) { c.Secrets = []string{"whsec_cXVlcnkx"} },
		"not a valid name":           func(c *sink.WebhookConfig) { c.Headers = map[string]string{"a b": ""} },
		"Webhook-Id is not for":      func(c *sink.WebhookConfig) { c.Headers = map[string]string{"webhook-id": "tok-header"} },
		"Webhook-New is not for":     func(c *sink.WebhookConfig) { c.Headers = map[string]string{"WEBHOOK-new": "tok-header"} },
		"Content-Type is not for":    func(c *sink.WebhookConfig) { c.Headers = map[string]string{"content-type": "tok-header"} },
		"Host is not for":            func(c *sink.WebhookConfig) { c.Headers = map[string]string{"Host": "tok-header"} },
		"Syncd-Replay is not for":    func(c *sink.WebhookConfig) { c.Headers = map[string]string{"syncd-replay": "tok-header"} },
		"Idempotency-Key is not for": func(c *sink.WebhookConfig) { c.Headers = map[string]string{"idempotency-key": "tok-header"} },
		"no certificate in":          func(c *sink.WebhookConfig) { c.RootCAs = []byte(testSecret) },
		"A-B is given twice":         func(c *sink.WebhookConfig) { c.Headers = map[string]string{"a-b": "tok-header", "A-b": "tok-header"} },
		"control character":          func(c *sink.WebhookConfig) { c.Headers = map[string]string{"A": "tok-header\r\nB: c"} },
	} {
		c := good()
		spoil(&c)
		_, err := sink.NewWebhook(c)
		checkNoLeak(t, want, err)
		if err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
}
