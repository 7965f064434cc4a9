package sink_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"syncd/internal/sink"
	"syncd/internal/sink/sinktest"
)

// countConns counts the connections that are made to server. Call it before the
// server starts.
func countConns(server *httptest.Server) *atomic.Int32 {
	var n atomic.Int32
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			n.Add(1)
		}
	}
	return &n
}

// Small answers of any status leave the connection to the next request. Several
// requests at once may make a spare one each: who waits for a connection takes
// one that gets free before its own is there.
func TestWebhookReusesConnections(t *testing.T) {
	for _, concurrency := range []int{1, 8} {
		var answers atomic.Int32
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch answers.Add(1) % 4 {
			case 0:
				w.WriteHeader(500)
				io.WriteString(w, strings.Repeat("x", 60<<10))
			case 1:
				io.WriteString(w, "ok")
			case 2:
				w.WriteHeader(204)
			case 3:
				http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
			}
		}))
		conns := countConns(server)
		server.Start()
		defer server.Close()
		w := newWebhook(t, sink.WebhookConfig{URL: server.URL, Concurrency: concurrency})
		var wg sync.WaitGroup
		for range concurrency {
			wg.Go(func() {
				for range 40 {
					w.Deliver(t.Context(), sinktest.Events(1))
				}
			})
		}
		wg.Wait()
		if n, most := int(conns.Load()), 2*concurrency-1; n > most {
			t.Errorf("%d connections for requests of %d at once", n, concurrency)
		}
		if n := int(answers.Load()); n != 40*concurrency {
			t.Errorf("%d answers", n)
		}
	}
}

// A receiver may close its half of a connection after any answer: the next
// request takes another one, and does not fail.
func TestWebhookClosedBetweenRequests(t *testing.T) {
	noticed := make(chan struct{})
	addr := rawServer(t, func(c net.Conn) {
		defer c.Close()
		r := bufio.NewReader(c)
		if err := takeRequest(r); err != nil {
			t.Error(err)
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, r) // until the sink closes its half
		noticed <- struct{}{}
	})
	w := newWebhook(t, sink.WebhookConfig{URL: "http://" + addr})
	for range 10 {
		if e := send(t, w); e != nil {
			t.Error(e)
		}
		<-noticed
	}
}

// startHTTP2 starts a receiver that speaks HTTP/2, and returns a sink that trusts it.
func startHTTP2(t *testing.T, cfg sink.WebhookConfig, h http.HandlerFunc) (*sink.Webhook, *atomic.Int32) {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains about clients that hang up
	conns := countConns(server)
	server.StartTLS()
	t.Cleanup(server.Close)
	cfg.URL, cfg.RootCAs = server.URL, pemOf(server.Certificate())
	return newWebhook(t, cfg), conns
}

func TestWebhookHTTP2(t *testing.T) {
	w, conns := startHTTP2(t, sink.WebhookConfig{Concurrency: 64, Secrets: []string{testSecret}}, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if r.ProtoMajor != 2 || err != nil || !bytes.Equal(body, sinktest.Events(1)[0].JSON) {
			t.Errorf("%s, %v: %s", r.Proto, err, body)
		}
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(503)
		io.WriteString(w, "because")
	})
	var wg sync.WaitGroup
	for i := range 64 {
		check := func() {
			if e := send(t, w); e == nil || e.Status != 503 || e.RetryAfter != 7*time.Second || e.Excerpt != "because" {
				t.Errorf("%+v", e)
			}
		}
		if i == 0 {
			check() // makes the connection
		} else {
			wg.Go(check)
		}
	}
	wg.Wait()
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// What a receiver does to one request of an HTTP/2 connection, it does to no other.
func TestWebhookHostileHTTP2(t *testing.T) {
	for name, hostile := range map[string]http.HandlerFunc{
		"resets":        func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"never answers": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"huge headers": func(w http.ResponseWriter, _ *http.Request) {
			for i := range 100 {
				w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 2<<10))
			}
		},
		"informational": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				w.WriteHeader(http.StatusEarlyHints)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var good atomic.Bool
			w, _ := startHTTP2(t, sink.WebhookConfig{Timeout: 200 * time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
				if !good.Load() {
					hostile(w, r)
				}
			})
			for range 2 {
				good.Store(false)
				if e := send(t, w); e == nil || e.Kind != sink.Temporary || e.Status != 0 {
					t.Errorf("%+v", e)
				}
				good.Store(true)
				if e := send(t, w); e != nil {
					t.Errorf("the next request: %v", e)
				}
			}
		})
	}
	t.Run("huge answer", func(t *testing.T) {
		var written atomic.Int64
		w, _ := startHTTP2(t, sink.WebhookConfig{}, func(w http.ResponseWriter, r *http.Request) {
			for written.Load() < 256<<20 {
				n, err := w.Write(make([]byte, 64<<10))
				if written.Add(int64(n)); err != nil {
					return
				}
			}
		})
		if e := send(t, w); e != nil {
			t.Error(e)
		}
		if n := written.Load(); n > 64<<20 {
			t.Errorf("%d bytes were taken", n)
		}
	})
}
