package apiclient_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/sourcetest"
)

// wire is a server on a real socket that counts what arrives. Each connection is
// served by serve until it says false.
type wire struct {
	addr string
	mu   sync.Mutex
	seen map[string]int // by number of the call
}

func listen(t *testing.T, serve func(conn *net.TCPConn, in *bufio.Reader, read func() bool) bool) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{addr: l.Addr().String(), seen: make(map[string]int)}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = conn.Close() }()
				in := bufio.NewReader(conn)
				read := func() bool {
					req, err := http.ReadRequest(in)
					if err != nil {
						return false
					}
					if req.Header.Get("Expect") != "" || len(req.TransferEncoding) > 0 || req.Header.Get("Content-Length") != "" {
						t.Errorf("not a plain GET: %v", req.Header)
					}
					w.mu.Lock()
					defer w.mu.Unlock()
					w.seen[req.URL.Query().Get("n")]++
					return true
				}
				for serve(conn.(*net.TCPConn), in, read) {
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return w
}

func reset(conn *net.TCPConn) bool {
	_ = conn.SetLinger(0)
	return false
}

func say(conn *net.TCPConn, s string) bool {
	_, err := io.WriteString(conn, s)
	return err == nil
}

const good = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

// traps are the ways in which a connection can end so that a client might send a
// request again without being asked.
var traps = map[string]struct {
	serve func(conn *net.TCPConn, in *bufio.Reader, read func() bool) bool
	exact bool // each call arrives
}{
	"answers": {func(c *net.TCPConn, _ *bufio.Reader, read func() bool) bool { return read() && say(c, good) }, true},
	"reset before the request is read": {func(c *net.TCPConn, in *bufio.Reader, _ func() bool) bool {
		_, _ = in.ReadByte()
		return reset(c)
	}, false},
	"reset before the answer": {func(c *net.TCPConn, _ *bufio.Reader, read func() bool) bool { return read() && reset(c) }, true},
	"closed before the answer": {func(_ *net.TCPConn, _ *bufio.Reader, read func() bool) bool {
		read()
		return false
	}, true},
	"reset in the answer": {func(c *net.TCPConn, _ *bufio.Reader, read func() bool) bool {
		return read() && say(c, "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{") && reset(c)
	}, true},
	"reset in the header": {func(c *net.TCPConn, _ *bufio.Reader, read func() bool) bool {
		return read() && say(c, "HTTP/1.1 200 OK\r\nContent-Le") && reset(c)
	}, true},
	"reset after the answer": {func(c *net.TCPConn, _ *bufio.Reader, read func() bool) bool {
		return read() && say(c, good) && reset(c)
	}, false},
	"kept connections are dead": {func(c *net.TCPConn, _ *bufio.Reader, read func() bool) bool {
		return read() && say(c, good) && read() && reset(c)
	}, false},
	"closes idle connections": {func(c *net.TCPConn, _ *bufio.Reader, read func() bool) bool {
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
		return read() && say(c, good)
	}, false},
	"408 to idle connections": {func(c *net.TCPConn, in *bufio.Reader, read func() bool) bool {
		if !read() || !say(c, good) {
			return false
		}
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
		if _, err := in.Peek(1); err != nil {
			say(c, "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			return false
		}
		_ = c.SetReadDeadline(time.Time{})
		return true
	}, false},
	"408": {func(c *net.TCPConn, _ *bufio.Reader, read func() bool) bool {
		return read() && say(c, "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n") && false
	}, true},
	"1xx": {func(c *net.TCPConn, _ *bufio.Reader, read func() bool) bool {
		return read() && say(c, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"+good)
	}, true},
	"1xx and a reset": {func(c *net.TCPConn, _ *bufio.Reader, read func() bool) bool {
		return read() && say(c, "HTTP/1.1 103 Early Hints\r\n\r\n") && reset(c)
	}, true},
	"101": {func(c *net.TCPConn, _ *bufio.Reader, read func() bool) bool {
		return read() && say(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n") && false
	}, true},
	"redirects": {func(c *net.TCPConn, _ *bufio.Reader, read func() bool) bool {
		return read() && say(c, "HTTP/1.1 307 Temporary Redirect\r\nLocation: /v1/things?n=again\r\nContent-Length: 0\r\n\r\n")
	}, true},
	"a redirect to nowhere": {func(c *net.TCPConn, _ *bufio.Reader, read func() bool) bool {
		return read() && say(c, "HTTP/1.1 302 Found\r\nLocation: http://%zz\r\nContent-Length: 0\r\n\r\n")
	}, true},
	"no HTTP": {func(c *net.TCPConn, _ *bufio.Reader, read func() bool) bool {
		return read() && say(c, "SSH-2.0-OpenSSH_9.2\r\n\r\n") && false
	}, true},
}

// TestOneGrantOneRequest: whatever happens to a connection, exactly one request
// leaves for each token, also where the token is spent for nothing. On real sockets.
func TestOneGrantOneRequest(t *testing.T) {
	const calls = 60
	for name, tt := range traps {
		t.Run(name, func(t *testing.T) {
			w := listen(t, tt.serve)
			transport := apiclient.NewTransport()
			transport.Proxy = nil
			t.Cleanup(transport.CloseIdleConnections)
			c := connect(t, transport, func(t *testing.T, cfg *apiclient.Config) {
				cfg.BaseURL = "http://" + w.addr
				cfg.Bucket = start(t, newLedger(), apiclient.Limit{Interval: 100 * time.Microsecond, Burst: 1000}, 1).bucket
			})
			ok := 0
			for i := range calls {
				_, err := c.Do(t.Context(), apiclient.Request{Stream: "s", Walk: sources.News, Path: "/v1/things", Query: url.Values{"n": {strconv.Itoa(i)}}})
				if err == nil {
					ok++
				}
				if i%3 == 0 {
					time.Sleep(time.Duration(i) * 50 * time.Microsecond) // connections are idle for different times
				}
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			for n, times := range w.seen {
				if times != 1 {
					t.Errorf("call %q was sent %d times", n, times)
				}
			}
			if tt.exact && len(w.seen) != calls || len(w.seen) < ok {
				t.Errorf("%d requests arrived for %d calls, %d of which were answered", len(w.seen), calls, ok)
			}
		})
	}
	// What all this is for: the same client without its precaution repeats.
	w := listen(t, traps["kept connections are dead"].serve)
	transport := apiclient.NewTransport()
	transport.Proxy = nil
	t.Cleanup(transport.CloseIdleConnections)
	again := 0
	for i := range calls {
		if resp, err := (&http.Client{Transport: transport}).Get("http://" + w.addr + "/?n=" + strconv.Itoa(i)); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, times := range w.seen {
		again += times - 1
	}
	if again == 0 {
		t.Error("net/http alone repeats nothing: this test cannot fail")
	}
}

// TestLostOrNeverSent: a request without an answer counts as on its way, unless it
// never left; and so does one that a gateway gave up.
func TestLostOrNeverSent(t *testing.T) {
	for name, tt := range map[string]struct {
		serve func(conn *net.TCPConn, in *bufio.Reader, read func() bool) bool
		lost  bool
	}{
		"answers":                 {traps["answers"].serve, false},
		"reset before the answer": {traps["reset before the answer"].serve, true},
		"408":                     {traps["408"].serve, true},
		"reset in the answer":     {traps["reset in the answer"].serve, false},
		"502": {func(c *net.TCPConn, _ *bufio.Reader, read func() bool) bool {
			return read() && say(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		}, true},
		"504 of the marketplace itself": {func(c *net.TCPConn, _ *bufio.Reader, read func() bool) bool {
			return read() && say(c, "HTTP/1.1 504 Gateway Timeout\r\nX-Ratelimit-Remaining: 500\r\nContent-Length: 0\r\n\r\n")
		}, false},
		"500": {func(c *net.TCPConn, _ *bufio.Reader, read func() bool) bool {
			return read() && say(c, "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
		}, false},
		"nobody listens": {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			addr := "127.0.0.1:1" // no port that anybody listens on
			if tt.serve != nil {
				addr = listen(t, tt.serve).addr
			}
			transport := apiclient.NewTransport()
			transport.Proxy = nil
			t.Cleanup(transport.CloseIdleConnections)
			l := newLedger()
			p := start(t, l, apiclient.Limit{Interval: 100 * time.Microsecond, Burst: 3}, 1)
			c := connect(t, transport, func(_ *testing.T, cfg *apiclient.Config) { cfg.BaseURL, cfg.Bucket = "http://"+addr, p.bucket })
			for range 2 {
				_, _ = get(t.Context(), c)
			}
			// Two that are on their way leave no token of three.
			if d := next2(t, p); (d > 20*time.Second) != tt.lost {
				t.Errorf("the next token is %s away, lost: %v", d, tt.lost)
			}
		})
	}
}

// next2 is next where there may be a token already.
func next2(t *testing.T, p *process) time.Duration {
	t.Helper()
	time.Sleep(time.Millisecond)
	ctx, cancel := context.WithTimeout(p.ctx, 100*time.Millisecond)
	defer cancel()
	g, err := p.bucket.Acquire(ctx, news)
	if err == nil {
		g.Answered(answered)
		return 0
	}
	if !isBudgetWait(err) {
		t.Fatal(err)
	}
	return time.Until(sources.AsError(err).Until)
}

// TestFewConnections: many accounts share the connections to one host. A request
// that waits for one leaves late, and its bucket knows.
func TestFewConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := sourcetest.NewNetwork(t)
		limit := documented["feedbacks"]
		var mu sync.Mutex
		meters := make(map[string]*meter)
		n.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			m := meters[r.URL.Query().Get("seller")]
			mu.Unlock()
			remaining, retry := m.arrive()
			w.Header().Set("X-Ratelimit-Remaining", strconv.Itoa(remaining))
			time.Sleep(time.Duration(time.Now().UnixNano() / 1e6 % 7 * int64(time.Second)))
			if retry > 0 {
				w.WriteHeader(http.StatusTooManyRequests)
			}
		}))
		transport := n.Transport(t)
		transport.MaxConnsPerHost = 3
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range 30 {
			seller := fmt.Sprint(i)
			m := &meter{limit: limit}
			meters[seller] = m
			c := connect(t, transport, func(t *testing.T, cfg *apiclient.Config) {
				cfg.Bucket, cfg.Timeout = start(t, newLedger(), believed(limit), 1).bucket, 0
			})
			for range 3 {
				all.Go(func() {
					for ctx.Err() == nil {
						_, _ = c.Do(ctx, apiclient.Request{Stream: "s", Walk: sources.News, Path: "/", Query: url.Values{"seller": {seller}}})
					}
				})
			}
		}
		time.Sleep(5 * time.Minute)
		stop()
		all.Wait()
		sent := 0
		for _, m := range meters {
			m.check(t)
			sent += m.count()
		}
		if sent < 100 {
			t.Errorf("only %d requests arrived", sent)
		}
	})
}

// TestHeard: the marketplace's clock is told with every answer that says it.
func TestHeard(t *testing.T) {
	for _, status := range []int{200, 204, 301, 400, 401, 429, 500} {
		for date, want := range map[string]int{"Mon, 02 Feb 2026 20:46:31 GMT": 1, "": 0, "yesterday": 0, "2026-02-02T20:46:31Z": 0} {
			var heard []time.Time
			served(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Date"] = []string{date}
				w.WriteHeader(status)
			}, func(_ *testing.T, cfg *apiclient.Config) {
				cfg.Heard = func(at time.Time) { heard = append(heard, at) }
			}, func(t *testing.T, c *apiclient.Client) { _, _ = get(t.Context(), c) })
			if len(heard) != want || want == 1 && !heard[0].Equal(time.Date(2026, 2, 2, 20, 46, 31, 0, time.UTC)) {
				t.Errorf("status %d, Date %q: heard %v", status, date, heard)
			}
		}
	}
}
