package sink_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
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
	cfg.URL = cmp.Or(cfg.URL, "http://receiver.example/hook")
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

// verify holds that a request is signed by each of the secrets.
func verify(t *testing.T, secrets []string, header http.Header, body []byte) {
	t.Helper()
	for i, s := range secrets {
		verifier, err := standardwebhooks.NewWebhook(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := verifier.Verify(body, header); err != nil {
			t.Errorf("secret %d: %v", i, err)
		}
	}
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
		verify(t, secrets, r.header, r.body)
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

// The date of a Retry-After counts from the answer, on the two statuses that mean
// the endpoint as a whole.
func TestWebhookRetryAfterDate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var code int
		w := inBubble(t, sink.WebhookConfig{}, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", time.Now().Add(90*time.Second).UTC().Format(http.TimeFormat))
			w.WriteHeader(code)
		}, nil)
		for code = 400; code <= 599; code++ {
			want := time.Duration(0)
			if code == 429 || code == 503 {
				want = 90 * time.Second
			}
			if e := send(t, w); e == nil || e.Status != code || e.RetryAfter != want {
				t.Errorf("%d: %+v", code, e)
			}
		}
	})
}

// No redirect is followed, whatever its code and wherever it leads: the receiver
// gets one request, and what it names gets none.
func TestWebhookRedirects(t *testing.T) {
	var followed, asked atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Add(1) }))
	defer elsewhere.Close()
	var code int
	var location string
	w := serve(t, sink.WebhookConfig{Secrets: []string{testSecret}, Headers: map[string]string{"X-Api-Key": "tok-header"}}, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Location", location)
		w.Header().Set("Refresh", "0; url="+location)
		w.WriteHeader(code)
		if code != http.StatusNotModified { // which has no body
			io.WriteString(w, location)
		}
	})
	for code = 300; code <= 399; code++ {
		for _, location = range []string{elsewhere.URL + "/?token=tok-header", "/hook", "//" + elsewhere.Listener.Addr().String(), "https://%zz", ""} {
			e := send(t, w)
			if e == nil || e.Kind != sink.Temporary || e.Status != code || !strings.Contains(e.Error(), "redirect") {
				t.Fatalf("%d to %q: %+v", code, location, e)
			}
			if n := asked.Swap(0); n != 1 {
				t.Errorf("%d to %q: %d requests", code, location, n)
			}
			sinktest.AssertNoSecret(t, e, "tok-header")
		}
	}
	if n := followed.Load(); n != 0 {
		t.Errorf("%d redirects were followed", n)
	}
}

// A call with no event, or several where there are no batches, is a mistake in
// the program.
func TestWebhookEventsACall(t *testing.T) {
	single := newWebhook(t, sink.WebhookConfig{URL: "http://127.0.0.1:1"})
	if single.Parallel() != 8 {
		t.Errorf("Parallel() = %d by default", single.Parallel())
	}
	batch := newWebhook(t, sink.WebhookConfig{URL: "http://127.0.0.1:1", Batch: true})
	for _, test := range []struct {
		w *sink.Webhook
		n int
	}{{single, 0}, {single, 2}, {batch, 0}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Deliver of %d events goes unnoticed", test.n)
				}
			}()
			test.w.Deliver(t.Context(), sinktest.Events(test.n))
		}()
	}
}

// A batch is an array of the events, byte for byte, signed as a whole, that the
// official libraries take. Its id is the same for the same events alone.
func TestWebhookBatch(t *testing.T) {
	type request struct {
		header http.Header
		body   []byte
		events []cloudevents.Event
	}
	requests := make(chan request, 1)
	secrets := []string{testSecret, "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 64))}
	w := serve(t, sink.WebhookConfig{Secrets: secrets, Batch: true}, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		var events []cloudevents.Event
		if err := json.Unmarshal(body, &events); err != nil {
			t.Error(err)
		}
		requests <- request{r.Header, body, events}
	})
	all := sinktest.Events(200)
	ids := map[string]string{} // of the events of each id
	for _, events := range [][]event.Logged{all[:1], all[1:2], all[:2], all[1:3], {all[1], all[0]}, all, all[:2], all[:199]} {
		if err := w.Deliver(t.Context(), events); err != nil {
			t.Fatal(err)
		}
		r := <-requests
		var want, names [][]byte
		for _, e := range events {
			want, names = append(want, e.JSON), append(names, []byte(e.ID))
		}
		if !bytes.Equal(r.body, fmt.Appendf(nil, "[%s]", bytes.Join(want, []byte(",")))) {
			t.Errorf("%d events arrived as %.300s", len(events), r.body)
		}
		if got := r.header["Content-Type"]; !slices.Equal(got, []string{cloudevents.ApplicationCloudEventsBatchJSON}) {
			t.Errorf("content-type: %q", got)
		}
		verify(t, secrets, r.header, r.body)
		if len(r.events) != len(events) {
			t.Fatalf("%d CloudEvents for %d events", len(r.events), len(events))
		}
		for i, ce := range r.events {
			if err := ce.Validate(); err != nil || ce.ID() != events[i].ID {
				t.Errorf("as a CloudEvent: id %s, %v", ce.ID(), err)
			}
		}
		id, content := r.header.Get("Webhook-Id"), string(bytes.Join(names, []byte("\n")))
		if !regexp.MustCompile(`^batch-[0-9a-f]{64}$`).MatchString(id) {
			t.Errorf("webhook-id: %s", id)
		}
		for otherID, other := range ids {
			if (otherID == id) != (other == content) {
				t.Errorf("id %s for\n%s\nand id %s for\n%s", id, content, otherID, other)
			}
		}
		ids[id] = content
	}
}
