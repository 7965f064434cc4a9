package sink_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"syncd/internal/event"
	"syncd/internal/sink"
	"syncd/internal/sink/sinktest"
)

const testSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func newWebhook(t testing.TB, cfg sink.WebhookConfig) *sink.Webhook {
	t.Helper()
	cfg.Unsigned = len(cfg.Secrets) == 0
	w, err := sink.NewWebhook(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// serve starts a receiver and returns a sink that posts to it.
func serve(t testing.TB, cfg sink.WebhookConfig, h http.HandlerFunc) *sink.Webhook {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	cfg.URL = server.URL + "/hook"
	return newWebhook(t, cfg)
}

// inBubble is serve for a test in a synctest bubble. Without a handler, serveConn
// gets the connections.
func inBubble(t *testing.T, cfg sink.WebhookConfig, h http.HandlerFunc, serveConn func(net.Conn)) *sink.Webhook {
	t.Helper()
	cfg.URL = "http://receiver.example/hook"
	w := newWebhook(t, cfg)
	listener := &pipeListener{make(chan net.Conn), make(chan struct{})}
	server := &http.Server{Handler: h}
	var running sync.WaitGroup
	if h != nil {
		running.Go(func() { server.Serve(listener) })
	}
	t.Cleanup(func() { w.Close(); server.Close(); running.Wait() })
	w.SetDial(func(ctx context.Context, _, _ string) (net.Conn, error) {
		here, there := net.Pipe()
		if h == nil {
			running.Go(func() { serveConn(there) })
			return here, nil
		}
		select {
		case listener.conns <- there:
			return here, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	})
	return w
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// send delivers one event and returns the failure, nil if there is none.
func send(t testing.TB, w *sink.Webhook) *sink.Error {
	t.Helper()
	err := w.Deliver(t.Context(), sinktest.Events(1))
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*sink.Error](err)
	if !ok {
		t.Fatalf("an error of type %T: %v", err, err)
	}
	return e
}

func TestWebhookContract(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) *sinktest.Harness {
		var mu sync.Mutex
		var received [][]byte
		var broken, stalled atomic.Bool
		reached, release := make(chan struct{}, 1), make(chan struct{})
		w := serve(t, sink.WebhookConfig{Secrets: []string{testSecret}}, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			if stalled.Load() {
				reached <- struct{}{}
				<-release
			}
			mu.Lock()
			defer mu.Unlock()
			received = append(received, body)
			if broken.Load() {
				w.WriteHeader(http.StatusInternalServerError)
			}
		})
		return &sinktest.Harness{
			Sink: w,
			Received: func(*testing.T) [][]byte {
				mu.Lock()
				defer mu.Unlock()
				return bytes.Split(bytes.Join(received, []byte("\n")), []byte("\n"))[:len(received)]
			},
			Break:  func(*testing.T) { broken.Store(true) },
			Repair: func(*testing.T) { broken.Store(false) },
			Stall: func(*testing.T) (<-chan struct{}, func()) {
				stalled.Store(true)
				return reached, func() { stalled.Store(false); close(release) }
			},
		}
	})
}

// The vector of the official libraries' own tests.
func TestSignatureVector(t *testing.T) {
	got, err := sink.Sign(testSecret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want || err != nil {
		t.Errorf("signature %s, %v; want %s", got, err, want)
	}
}

func TestWebhookRequest(t *testing.T) {
	secrets := []string{testSecret}
	for i := range 2 {
		secrets = append(secrets, "whsec_"+base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{byte(i)}, 24+40*i)))
	}
	type request struct {
		method, uri string
		header      http.Header
		body        []byte
		length      int64
	}
	requests := make(chan request, 1)
	w := serve(t, sink.WebhookConfig{
		Secrets:   secrets,
		Headers:   map[string]string{"x-tenant": "shop-a", "Authorization": "Bearer abc"},
		UserAgent: "syncd/1.2",
	}, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		requests <- request{r.Method, r.RequestURI, r.Header, body, r.ContentLength}
		w.WriteHeader(http.StatusAccepted)
	})
	for _, e := range sinktest.Events(3) {
		if err := w.Deliver(t.Context(), []event.Logged{e}); err != nil {
			t.Fatal(err)
		}
		r := <-requests
		if r.method != "POST" || r.uri != "/hook" || !bytes.Equal(r.body, e.JSON) || r.length != int64(len(e.JSON)) {
			t.Errorf("%s %s of %d bytes: %s", r.method, r.uri, r.length, r.body)
		}
		for name, want := range map[string]string{
			"Content-Type": "application/cloudevents+json", "User-Agent": "syncd/1.2",
			"X-Tenant": "shop-a", "Authorization": "Bearer abc", "Webhook-Id": e.ID,
		} {
			if got := r.header[name]; len(got) != 1 || got[0] != want {
				t.Errorf("header %s: %q", name, got)
			}
		}
		if n := len(strings.Fields(r.header.Get("Webhook-Signature"))); n != len(secrets) {
			t.Errorf("%d signatures for %d secrets", n, len(secrets))
		}
		for i, s := range secrets {
			verifier, err := standardwebhooks.NewWebhook(s)
			if err != nil {
				t.Fatal(err)
			}
			if err := verifier.Verify(r.body, r.header); err != nil {
				t.Errorf("secret %d: %v", i, err)
			}
		}
		var ce cloudevents.Event
		if err := ce.UnmarshalJSON(r.body); err != nil {
			t.Error(err)
		} else if err := ce.Validate(); err != nil || ce.ID() != r.header.Get("Webhook-Id") {
			t.Errorf("as a CloudEvent: id %s, %v", ce.ID(), err)
		}
	}

	unsigned := serve(t, sink.WebhookConfig{}, func(w http.ResponseWriter, r *http.Request) { requests <- request{header: r.Header} })
	if e := send(t, unsigned); e != nil {
		t.Fatal(e)
	}
	r := <-requests
	if r.header["Webhook-Signature"] != nil || r.header.Get("Webhook-Id") == "" || r.header.Get("User-Agent") != "syncd" {
		t.Errorf("unsigned: %v", r.header)
	}
}

// Each attempt is signed for its own time.
func TestWebhookTimestamp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var stamps []string
		w := inBubble(t, sink.WebhookConfig{Secrets: []string{testSecret}}, func(w http.ResponseWriter, r *http.Request) {
			stamps = append(stamps, r.Header.Get("Webhook-Timestamp"))
		}, nil)
		for range 2 {
			want := strconv.FormatInt(time.Now().Unix(), 10)
			if e := send(t, w); e != nil {
				t.Fatal(e)
			}
			if got := stamps[len(stamps)-1]; got != want {
				t.Errorf("timestamp %s, want %s", got, want)
			}
			time.Sleep(time.Hour)
		}
	})
}

func TestWebhookStatuses(t *testing.T) {
	const no, temporary, permanent, gone = -1, sink.Temporary, sink.Permanent, sink.Gone
	kinds := map[int]sink.Kind{
		200: no, 201: no, 202: no, 204: no, 206: no, 299: no,
		101: temporary, 300: temporary, 304: temporary,
		400: permanent, 401: permanent, 403: permanent, 404: permanent, 405: permanent, 406: permanent, 407: permanent,
		408: temporary, 409: temporary, 410: gone, 411: permanent, 413: permanent, 422: permanent, 425: temporary,
		426: permanent, 429: temporary, 451: permanent, 499: permanent,
		500: temporary, 501: temporary, 502: temporary, 503: temporary, 504: temporary, 599: temporary, 600: temporary, 999: temporary,
	}
	for code, kind := range kinds {
		w := serve(t, sink.WebhookConfig{}, func(w http.ResponseWriter, r *http.Request) {
			if code == 101 { // and then silence
				conn, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { conn.Close() })
				io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
				return
			}
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(code)
			io.WriteString(w, "because\n")
		})
		e := send(t, w)
		if kind == no {
			if e != nil {
				t.Errorf("%d: %v", code, e)
			}
			continue
		}
		if e == nil || e.Kind != kind || e.Status != code {
			t.Errorf("%d: %+v", code, e)
			continue
		}
		wait := time.Duration(0)
		if code == 429 || code == 503 {
			wait = 7 * time.Second
		}
		if e.RetryAfter != wait {
			t.Errorf("%d: retry after %v", code, e.RetryAfter)
		}
		if code != 101 && code != 304 && e.Excerpt != "because" {
			t.Errorf("%d: excerpt %q", code, e.Excerpt)
		}
		if !strings.HasPrefix(e.Error(), fmt.Sprintf("answer %d", code)) {
			t.Errorf("%d: %v", code, e)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		header string
		want   time.Duration
	}{
		{"", 0}, {"0", 0}, {"1", time.Second}, {"0120", 2 * time.Minute},
		{"86400", 24 * time.Hour}, {"86401", 24 * time.Hour},
		{"18446744073709551615", 24 * time.Hour}, {"99999999999999999999999", 24 * time.Hour},
		{"-1", 0}, {"1.5", 0}, {"soon", 0}, {"5s", 0},
		{"Sun, 22 Nov 2026 12:01:30 GMT", 90 * time.Second},
		{"Sunday, 22-Nov-26 12:01:30 GMT", 90 * time.Second},
		{"Sun Nov 22 12:01:30 2026", 90 * time.Second},
		{"Sun, 22 Nov 2026 11:59:59 GMT", 0}, {"Thu, 22 Nov 2029 12:00:00 GMT", 24 * time.Hour},
		{"Fri, 31 Dec 9999 23:59:59 GMT", 24 * time.Hour}, {"Mon, 01 Jan 0001 00:00:00 GMT", 0},
		{"2026-11-22T12:01:30Z", 0},
	} {
		if got := sink.ParseRetryAfter(test.header, now); got != test.want {
			t.Errorf("Retry-After: %s is %v, want %v", test.header, got, test.want)
		}
	}
}

func TestWebhookRedirects(t *testing.T) {
	var followed atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Add(1) }))
	defer elsewhere.Close()
	for _, code := range []int{301, 302, 303, 307, 308} {
		w := serve(t, sink.WebhookConfig{Secrets: []string{testSecret}}, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+"/?token=secret", code)
		})
		e := send(t, w)
		if e == nil || e.Kind != sink.Temporary || e.Status != code || !strings.Contains(e.Error(), "redirect") || strings.Contains(e.Error(), "secret") {
			t.Errorf("%d: %+v", code, e)
		}
	}
	if n := followed.Load(); n != 0 {
		t.Errorf("%d redirects were followed", n)
	}
}

// An answer without an end costs a bounded piece of it, and its connection.
func TestWebhookHugeAnswer(t *testing.T) {
	for _, code := range []int{200, 500} {
		const most = 4 << 20 // what the buffers of the two sockets may take
		var written atomic.Int64
		w := serve(t, sink.WebhookConfig{}, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(code)
			for chunk := bytes.Repeat([]byte("é\x00 "), 10_000); ; {
				n, err := w.Write(chunk)
				if written.Add(int64(n)); err != nil || written.Load() > 100*most {
					return
				}
			}
		})
		switch e := send(t, w); {
		case code == 200 && e != nil:
			t.Errorf("%d: %v", code, e)
		case code == 500 && (e == nil || len([]rune(e.Excerpt)) > 200 || len(e.Excerpt) < 200 || strings.Contains(e.Excerpt, "\x00")):
			t.Errorf("%d: %+v", code, e)
		}
		if n := written.Load(); n > 10*most {
			t.Errorf("%d: %d bytes were taken", code, n)
		}
	}
}

func TestWebhookTimeouts(t *testing.T) {
	read := func(c net.Conn) *http.Request { // the whole request
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err == nil {
			io.Copy(io.Discard, r.Body)
		}
		return r
	}
	hang := func(c net.Conn) { io.Copy(io.Discard, c); c.Close() } // until the sink gives up
	for _, test := range []struct {
		name   string
		serve  func(net.Conn)
		took   time.Duration
		status int // 0: "no answer within 15s"
	}{
		{"takes nothing", func(c net.Conn) { time.Sleep(time.Minute); c.Close() }, 15 * time.Second, 0},
		{"never answers", func(c net.Conn) { read(c); hang(c) }, 15 * time.Second, 0},
		{"half a header", func(c net.Conn) { read(c); io.WriteString(c, "HTTP/1.1 200 OK\r\nConte"); hang(c) }, 15 * time.Second, 0},
		{"slow bytes of a header", func(c net.Conn) {
			read(c)
			for i := 0; ; i++ {
				if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"[i:i+1]); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}, 15 * time.Second, 0},
		{"acknowledges, and no body", func(c net.Conn) { read(c); io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"); hang(c) }, 2 * time.Second, 200},
		{"refuses, and no body", func(c net.Conn) {
			read(c)
			io.WriteString(c, "HTTP/1.1 422 No\r\nContent-Length: 5\r\n\r\nab")
			hang(c)
		}, 2 * time.Second, 422},
		{"acknowledges late", func(c net.Conn) {
			read(c)
			time.Sleep(14 * time.Second)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			hang(c)
		}, 14 * time.Second, 200},
		{"acknowledges, and resets", func(c net.Conn) {
			read(c)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
			c.Close()
		}, 0, 200},
		{"refuses, and resets", func(c net.Conn) {
			read(c)
			io.WriteString(c, "HTTP/1.1 503 No\r\nContent-Length: 5\r\n\r\nab")
			c.Close()
		}, 0, 503},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := inBubble(t, sink.WebhookConfig{}, nil, test.serve)
				start := time.Now()
				e := send(t, w)
				if took := time.Since(start); took != test.took {
					t.Errorf("took %v, want %v", took, test.took)
				}
				switch {
				case test.status == 200:
					if e != nil {
						t.Error(e)
					}
				case e == nil || e.Status != test.status:
					t.Errorf("%+v", e)
				case test.status == 0 && (e.Kind != sink.Temporary || !strings.Contains(e.Error(), "no answer within 15s")):
					t.Errorf("kind %d: %v", e.Kind, e)
				}
			})
		})
	}
}

func TestWebhookNoAnswer(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"at once":      func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"after a line": func(w http.ResponseWriter, r *http.Request) { abort(t, w, "HTTP/1.1 200 OK\r\n") },
	} {
		e := send(t, serve(t, sink.WebhookConfig{}, h))
		if e == nil || e.Kind != sink.Temporary || e.Status != 0 || !strings.Contains(e.Error(), "connection closed without an answer") {
			t.Errorf("closed %s: %v", name, e)
		}
	}
}

func abort(t *testing.T, w http.ResponseWriter, last string) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	io.WriteString(conn, last)
	conn.Close()
}

// Small answers of any status leave the connection to the next request.
func TestWebhookReusesConnections(t *testing.T) {
	var conns, answers atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := answers.Add(1); n%2 == 0 {
			w.WriteHeader(500)
			io.WriteString(w, strings.Repeat("x", 60<<10))
		} else {
			io.WriteString(w, "ok")
		}
	}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	w := newWebhook(t, sink.WebhookConfig{URL: server.URL})
	for range 20 {
		send(t, w)
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections for 20 requests in a row", n)
	}
}

func TestWebhookHTTP2(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("%s", r.Proto)
		}
		io.Copy(io.Discard, r.Body)
	}))
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains about the client's distrust
	server.StartTLS()
	defer server.Close()
	w := newWebhook(t, sink.WebhookConfig{URL: server.URL})
	if e := send(t, w); e == nil || e.Kind != sink.Temporary || !strings.Contains(e.Error(), "certificate") {
		t.Errorf("a certificate of nobody: %v", e)
	}
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	w = newWebhook(t, sink.WebhookConfig{URL: server.URL})
	w.SetRootCAs(pool)
	if e := send(t, w); e != nil {
		t.Error(e)
	}
}

func TestWebhookTakesOneEvent(t *testing.T) {
	w := newWebhook(t, sink.WebhookConfig{URL: "http://127.0.0.1:1"})
	if w.Parallel() != 8 {
		t.Errorf("Parallel() = %d by default", w.Parallel())
	}
	for _, n := range []int{0, 2} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Deliver of %d events is a mistake in the program, and goes unnoticed", n)
				}
			}()
			w.Deliver(t.Context(), sinktest.Events(n))
		}()
	}
}

// The receiver runs in the same process: its allocations count, in both.
func BenchmarkWebhookDeliver(b *testing.B) {
	handler := func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }
	events := []event.Logged{sinktest.Event(1, `{"text":"`+strings.Repeat("x", 230)+`"}`)}
	run := func(b *testing.B, concurrency int, deliver func() error) {
		b.ReportAllocs()
		var left atomic.Int64
		left.Store(int64(b.N))
		var wg sync.WaitGroup
		for range concurrency {
			wg.Go(func() {
				for left.Add(-1) >= 0 {
					if err := deliver(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	}
	for _, concurrency := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("concurrency=%d", concurrency), func(b *testing.B) {
			w := serve(b, sink.WebhookConfig{Secrets: []string{testSecret}, Concurrency: concurrency}, handler)
			run(b, concurrency, func() error { return w.Deliver(b.Context(), events) })
		})
		b.Run(fmt.Sprintf("net-http/concurrency=%d", concurrency), func(b *testing.B) {
			server := httptest.NewServer(http.HandlerFunc(handler))
			defer server.Close()
			transport := &http.Transport{MaxIdleConnsPerHost: concurrency}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport}
			run(b, concurrency, func() error {
				resp, err := client.Post(server.URL, "application/json", bytes.NewReader(events[0].JSON))
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				_, err = io.Copy(io.Discard, resp.Body)
				return err
			})
		})
	}
}
