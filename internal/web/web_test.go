package web_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/web"
)

func config(ready func() ([]string, error)) web.Config {
	reg := prometheus.NewRegistry()
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "syncd_test_total", Help: "For the test."})
	c.Add(3)
	reg.MustRegister(c)
	return web.Config{Listen: "127.0.0.1:0", Version: "<1>", Log: slog.New(slog.DiscardHandler), Gatherer: reg, Ready: ready,
		Status: func() any { return map[string]string{"state": "fine"} }, Reload: func(context.Context) error { return nil },
		APIToken: func() string { return "" }, Loopback: true}
}

func TestHandler(t *testing.T) {
	ready := func() ([]string, error) { return nil, nil }
	noted := func() ([]string, error) { return []string{"account <b> is stopped"}, nil }
	waiting := func() ([]string, error) { return nil, errors.New("the <streams> have not been scheduled yet") }
	for name, row := range map[string]struct {
		ready        func() ([]string, error)
		method, path string
		status       int
		contains     string
	}{
		"healthy":            {ready, "GET", "/-/healthy", 200, "healthy"},
		"healthy, not ready": {waiting, "GET", "/-/healthy", 200, "healthy"},
		"ready":              {ready, "GET", "/-/ready", 200, "ready"},
		"ready, with a note": {noted, "GET", "/-/ready", 200, "ready\naccount <b> is stopped\n"},
		"index, with a note": {noted, "GET", "/", 200, "account &lt;b&gt; is stopped"},
		"not ready":          {waiting, "GET", "/-/ready", 503, "the <streams> have not been scheduled yet"},
		"metrics":            {ready, "GET", "/metrics", 200, "syncd_test_total 3"},
		"index":              {ready, "GET", "/", 200, "syncd &lt;1&gt;"},
		"index, not ready":   {waiting, "GET", "/", 200, "the &lt;streams&gt; have not"},
		"unknown path":       {ready, "GET", "/nowhere", 404, ""},
		"nothing to post to": {ready, "POST", "/-/ready", 405, ""},
		"head for balancers": {ready, "HEAD", "/-/ready", 200, ""},
		"reload is not got":  {ready, "GET", "/-/reload", 405, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			web.Handler(config(row.ready)).ServeHTTP(w, httptest.NewRequest(row.method, row.path, nil))
			if w.Code != row.status {
				t.Errorf("status %d, want %d", w.Code, row.status)
			}
			if !strings.Contains(w.Body.String(), row.contains) {
				t.Errorf("body %q does not contain %q", w.Body.String(), row.contains)
			}
		})
	}
}

func TestServeUntilTheContextEnds(t *testing.T) {
	s, err := web.New(config(func() ([]string, error) { return nil, nil }))
	if err != nil {
		t.Fatal(err)
	}
	taken := config(nil)
	taken.Listen = s.Addr()
	if _, err := web.New(taken); err == nil || !strings.Contains(err.Error(), "server.listen "+s.Addr()) {
		t.Errorf("a taken port gives %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	resp, err := http.Get("http://" + s.Addr() + "/-/ready")
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "ready\n" {
		t.Errorf("ready says %q, %v", body, err)
	}
	resp.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run ends with %v", err)
	}
}
