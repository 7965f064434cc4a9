package sink_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sink"
	"syncd/internal/sink/sinktest"
)

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

// rawServer serves every connection of a listener of its own with f, which
// closes it, and returns the address.
func rawServer(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { f(conn) })
		}
	})
	t.Cleanup(func() { listener.Close(); running.Wait() })
	return listener.Addr().String()
}

// takeRequest reads the next whole request from a connection.
func takeRequest(r *bufio.Reader) error {
	req, err := http.ReadRequest(r)
	if err == nil {
		_, err = io.Copy(io.Discard, req.Body)
	}
	return err
}

// reset ends a connection without goodbye.
func reset(c net.Conn) {
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// What a receiver does to the connection is a failure to try again, unless its
// status had come: then that decides.
func TestWebhookBrokenConnections(t *testing.T) {
	const none = 0
	for _, test := range []struct {
		name   string
		status int // that has come; none: a failure without one
		serve  func(net.Conn, *bufio.Reader)
	}{
		{"reset at once", none, func(c net.Conn, _ *bufio.Reader) { reset(c) }},
		{"reset in the request", none, func(c net.Conn, r *bufio.Reader) { io.ReadFull(r, make([]byte, 10)); reset(c) }},
		{"reset after the request", none, func(c net.Conn, r *bufio.Reader) { takeRequest(r); reset(c) }},
		{"reset in the header", none, func(c net.Conn, r *bufio.Reader) {
			takeRequest(r)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-")
			reset(c)
		}},
		{"half closed", none, func(c net.Conn, r *bufio.Reader) {
			takeRequest(r)
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, r) // until the sink has closed its half
			c.Close()
		}},
		{"half closed before the request", none, func(c net.Conn, r *bufio.Reader) {
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, r)
			c.Close()
		}},
		{"no HTTP", none, func(c net.Conn, r *bufio.Reader) {
			r.Peek(1)
			io.WriteString(c, "220 mail.example ESMTP\r\n")
			io.Copy(io.Discard, r)
			c.Close()
		}},
		{"no status", none, func(c net.Conn, r *bufio.Reader) {
			takeRequest(r)
			io.WriteString(c, "HTTP/1.1 \x00\r\n\r\n")
			c.Close()
		}},
		{"negative length", none, func(c net.Conn, r *bufio.Reader) {
			takeRequest(r)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n")
			c.Close()
		}},
		{"two lengths", none, func(c net.Conn, r *bufio.Reader) {
			takeRequest(r)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
			c.Close()
		}},
		{"acknowledged, then half closed in the body", 200, func(c net.Conn, r *bufio.Reader) {
			takeRequest(r)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab")
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, r)
			c.Close()
		}},
		{"acknowledged in bad chunks", 202, func(c net.Conn, r *bufio.Reader) {
			takeRequest(r)
			io.WriteString(c, "HTTP/1.1 202 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n")
			c.Close()
		}},
		{"acknowledged after some 1xx", 200, func(c net.Conn, r *bufio.Reader) {
			takeRequest(r)
			io.WriteString(c, strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 20)+"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
			c.Close()
		}},
		{"refused without reading", 413, func(c net.Conn, r *bufio.Reader) {
			r.Peek(1)
			io.WriteString(c, "HTTP/1.1 413 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			io.Copy(io.Discard, r)
			c.Close()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			addr := rawServer(t, func(c net.Conn) { test.serve(c, bufio.NewReader(c)) })
			w := newWebhook(t, leakyConfig("http", addr))
			for range 3 { // no connection of one attempt spoils the next
				err := w.Deliver(t.Context(), sinktest.Events(1))
				sinktest.AssertNoSecret(t, err, forbidden...)
				switch e := sink.AsError(err); {
				case test.status >= 200 && test.status <= 299:
					if err != nil {
						t.Error(err)
					}
				case err == nil || e.Status != test.status:
					t.Errorf("%+v", e)
				case test.status == none && e.Kind != sink.Temporary:
					t.Errorf("kind %d: %v", e.Kind, e)
				}
			}
		})
	}
}

// A receiver that never stops talking is heard for so long: memory and time are
// bounded by what is read, not by what it says.
func TestWebhookEndlessHeaders(t *testing.T) {
	for name, piece := range map[string]string{
		"status line":   "HTTP/1.1 200 " + strings.Repeat("x", 1<<10),
		"one header":    strings.Repeat("x", 1<<10),
		"many headers":  strings.Repeat("X-Y: z\r\n", 100),
		"informational": strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 10),
	} {
		t.Run(name, func(t *testing.T) {
			const most = 8 << 20 // more than the buffers of the two sockets take
			var written atomic.Int64
			addr := rawServer(t, func(c net.Conn) {
				defer c.Close()
				if err := takeRequest(bufio.NewReader(c)); err != nil {
					t.Error(err)
				}
				if !strings.HasPrefix(piece, "HTTP/") {
					io.WriteString(c, "HTTP/1.1 200 OK\r\nX: ")
				}
				for written.Load() < 4*most {
					n, err := io.WriteString(c, piece)
					if written.Add(int64(n)); err != nil {
						return
					}
				}
			})
			e := send(t, newWebhook(t, sink.WebhookConfig{URL: "http://" + addr}))
			if e == nil || e.Kind != sink.Temporary || e.Status != 0 || strings.Contains(e.Error(), "no answer within") {
				t.Errorf("%+v", e)
			}
			if n := written.Load(); n > most {
				t.Errorf("%d bytes were taken", n)
			}
		})
	}
}

// A connection that is never made ends with the attempt, and so does what was
// making it.
func TestWebhookNeverConnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWebhook(t, sink.WebhookConfig{URL: "http://receiver.example/"})
		w.SetDial(func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		})
		start := time.Now()
		e := send(t, w)
		if took := time.Since(start); took != 15*time.Second || e == nil || !strings.Contains(e.Error(), "no answer within 15s") {
			t.Errorf("after %v: %v", took, e)
		}
	})
}
