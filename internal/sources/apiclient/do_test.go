package apiclient_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/sourcetest"
)

var discard = slog.New(slog.DiscardHandler)

// windowed makes the client one of a marketplace with windows.
func windowed(_ *testing.T, cfg *apiclient.Config) {
	cfg.Marketplace, cfg.Bucket, cfg.TokenHeader, cfg.Close = "yandex_market", nil, "Api-Key", true
	cfg.Parallel = func(body []byte) bool { return strings.Contains(string(body), "parallel requests") }
}

// TestPost: what a POST looks like on the wire, each on a connection of its own, and
// what metrics and errors call it.
func TestPost(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	status := 200
	var remotes []string
	served(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		remotes = append(remotes, r.RemoteAddr)
		want, length, kind := `{"a":1}`, int64(7), "application/json"
		if r.URL.Path != "/v2/businesses/77/chats" {
			want, length, kind = "", 0, ""
		}
		if r.Method != http.MethodPost || string(body) != want || r.ContentLength != length || len(r.TransferEncoding) > 0 || r.Header.Get("Content-Type") != kind ||
			r.Header.Get("Api-Key") != secret || r.Header.Get("Authorization") != "" || !r.Close || r.Header.Get("Idempotency-Key")+r.Header.Get("X-Idempotency-Key") != "" {
			t.Errorf("got %s %s %q %v", r.Method, r.URL, body, r.Header)
		}
		w.WriteHeader(status)
	}, func(t *testing.T, cfg *apiclient.Config) {
		windowed(t, cfg)
		cfg.Metrics = apiclient.NewMetrics(reg)
	}, func(t *testing.T, c *apiclient.Client) {
		w := openWindow(t, newLedger(), perHour(100), 1)
		do := func(path string, body []byte) error {
			_, err := c.Do(t.Context(), apiclient.Request{Stream: "chats", Walk: sources.News, Method: http.MethodPost, Path: path, Endpoint: "/v2/businesses/{businessId}/chats", Body: body, Window: w})
			return err
		}
		for range 2 {
			if err := do("/v2/businesses/77/chats", []byte(`{"a":1}`)); err != nil {
				t.Error(err)
			}
		}
		if err := do("/v2/auth/token", nil); err != nil {
			t.Error(err)
		}
		for code, kind := range map[int]sources.Kind{423: sources.Temporary, 499: sources.Temporary, 404: sources.Rejected, 420: sources.RateLimited} {
			status = code
			e := failure(t, do("/v2/businesses/77/chats", []byte(`{"a":1}`)))
			if e.Kind != kind || e.Scope != sources.ScopeRequest || e.Endpoint != "POST /v2/businesses/{businessId}/chats" || e.Request != "/v2/businesses/77/chats" {
				t.Errorf("%d: got %+v", code, e)
			}
			if d := time.Until(e.Until); kind == sources.RateLimited && (d < time.Minute || d > 65*time.Second) {
				t.Errorf("the window is shut for %s", d)
			}
			time.Sleep(2 * time.Minute)
		}
	})
	if n := testutil.CollectAndCount(reg, "syncd_api_request_duration_seconds"); n != 1 {
		t.Errorf("%d endpoints in metrics", n)
	}
	if len(remotes) != 7 {
		t.Errorf("%d requests", len(remotes))
	}
}

// TestPostIsNotRepeated by net/http, on a kept connection that turns out to be dead.
func TestPostIsNotRepeated(t *testing.T) {
	for _, body := range [][]byte{nil, []byte(`{}`)} {
		synctest.Test(t, func(t *testing.T) {
			var wire atomic.Int64
			n := sourcetest.NewNetwork(t)
			go func() {
				for {
					conn, err := n.Accept()
					if err != nil {
						return
					}
					go func() {
						defer func() { _ = conn.Close() }()
						in := bufio.NewReader(conn)
						for i := range 2 {
							req, err := http.ReadRequest(in)
							if err != nil {
								return
							}
							_, _ = io.Copy(io.Discard, req.Body)
							wire.Add(1)
							if i == 0 {
								fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
							}
						}
					}()
				}
			}()
			c := connect(t, n.Transport(t), func(t *testing.T, cfg *apiclient.Config) { windowed(t, cfg); cfg.Close = false })
			w := openWindow(t, newLedger(), perHour(1000), 1)
			failed := 0
			for range 20 {
				if _, err := c.Do(t.Context(), apiclient.Request{Method: http.MethodPost, Path: "/", Body: body, Window: w}); err != nil {
					failed++
				}
			}
			if wire.Load() != 20 || failed != 10 {
				t.Errorf("%d requests on the wire for 20 calls, %d failed; expected half of them lost", wire.Load(), failed)
			}
		})
	}
}

// TestPatience: who does not want to wait longer than that hears so at once, also
// where his context would; one who has been granted a token is not hurried.
func TestPatience(t *testing.T) {
	served(t, func(w http.ResponseWriter, _ *http.Request) { time.Sleep(5 * time.Second) }, windowed, func(t *testing.T, c *apiclient.Client) {
		w := openWindow(t, newLedger(), perHour(60), 1)
		do := func(patience time.Duration) error {
			_, err := c.Do(t.Context(), apiclient.Request{Path: "/", Window: w, Patience: patience})
			return err
		}
		callsNow(t, w, apiclient.Answer{Remaining: -1}) // the burst
		began := time.Now()
		err := do(10 * time.Second)
		if e := failure(t, err); e.Kind != sources.BudgetWait || time.Since(began) != 0 || !near(time.Until(e.Until), time.Minute, 20*time.Second) {
			t.Errorf("after %s: %v until %s", time.Since(began), err, time.Until(e.Until))
		}
		if err := do(5 * time.Minute); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Do(ctx, apiclient.Request{Path: "/", Window: w, Patience: time.Hour}); !isBudgetWait(err) {
			t.Errorf("got %v", err)
		}
	})
}

// TestTwoRefusals: the two texts of a 420 are told apart.
func TestTwoRefusals(t *testing.T) {
	for _, status := range []int{420, 429} {
		for text, shut := range map[string]bool{
			tooMany: false, "": true, `{"errors":[{"message":"Hit rate limit of '5000' requests per '1 HOUR' for resource '5' for businessId 1"}]}`: true,
		} {
			served(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-RateLimit-Resource-Limit", "300")
				w.Header().Set("X-RateLimit-Resource-Remaining", "200")
				w.Header().Set("X-RateLimit-Resource-Until", time.Now().Add(10*time.Minute).UTC().Format(http.TimeFormat))
				w.WriteHeader(status)
				_, _ = io.WriteString(w, text)
			}, windowed, func(t *testing.T, c *apiclient.Client) {
				w := openWindow(t, newLedger(), perHour(100), 1)
				_, err := c.Do(t.Context(), apiclient.Request{Path: "/", Window: w})
				if e := failure(t, err); e.Kind != sources.RateLimited || e.Scope != sources.ScopeRequest {
					t.Errorf("got %+v", e)
				}
				n, next := callsNow(t, w, apiclient.Answer{Remaining: -1})
				if shut && (n > 0 || !near(next, 10*time.Minute+14*time.Second, time.Second)) || !shut && (n < 15 || n > 50) {
					t.Errorf("%d %q: %d calls at once, the next in %s", status, text, n, next)
				}
			})
		}
	}
}
