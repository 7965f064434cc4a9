package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/config"
	"syncd/internal/event"
	"syncd/internal/state"
	"syncd/internal/web"
)

// An exported event is the exact line, a record has its item as the marketplace sent it,
// and the running daemon exports what the closed file has.
func TestExport(t *testing.T) {
	t.Parallel()
	s := newStocked(t, "")
	s.expect(t, 1, "there is no state file at "+filepath.Join(s.dir, "syncd.db"), "export", "--events")
	logged := s.stock(t, "shop-a", 600) // more than a piece
	other := s.stock(t, "shop-b", 2)
	text := func(events []event.Logged) string {
		var b strings.Builder
		for _, e := range events {
			b.Write(append(e.JSON, '\n'))
		}
		return b.String()
	}
	check := func() (events, records string) {
		t.Helper()
		events = s.expect(t, 0, "", "export", "--events")
		if want := text(logged) + text(other); events != want {
			t.Errorf("exported %d events, not the %d that there are as they are", len(lines(events)), len(logged)+len(other))
		}
		if got := s.expect(t, 0, "", "export", "--events", "--account", "shop-b", "--stream", "questions"); got != text(other) {
			t.Errorf("exported of one account:\n%s", got)
		}
		records = s.expect(t, 0, "", "export", "--records")
		if n := len(lines(records)); n != 602 {
			t.Errorf("%d records", n)
		}
		of := lines(s.expect(t, 0, "", "export", "--records", "--account", "shop-b"))
		if len(of) != 2 || !strings.HasPrefix(of[0], `{"account":"shop-b","stream":"questions","id":"q601","kind":"question","version":1,`) ||
			!strings.Contains(of[0], `"created":"`) || !strings.HasSuffix(of[0], `,"item":{"id":"q601","text":"<b>\u0041&","n":1.50}}`) {
			t.Errorf("exported records of one account:\n%s", strings.Join(of, "\n"))
		}
		if out := s.expect(t, 0, "", "export", "--records", "--stream", "claims"); out != "" {
			t.Errorf("exported of an empty stream: %s", out)
		}
		s.expect(t, 1, `there is no stream "claim"`, "export", "--records", "--stream", "claim")
		s.expect(t, 1, `there is no account "shop-c"; there are: shop-a`, "export", "--events", "--account", "shop-c")
		return events, records
	}
	events, records := check()
	s.daemon(t)
	if e, r := check(); e != events || r != records {
		t.Error("the daemon exports something else than the closed file had")
	}
	s.until(t, func() bool { return s.delivered() == 602 })
	raw, err := os.ReadFile(filepath.Join(s.dir, "events.ndjson"))
	if err != nil || string(raw) != events {
		t.Errorf("the file sink wrote something else than is exported: %v", err)
	}
}

// breaksOff puts a daemon in place that answers everything with the beginning of a download,
// and then is gone.
func (s *shop) breaksOff(t *testing.T, piece string) {
	t.Helper()
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Read(make([]byte, 4096))
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(piece), piece)
			conn.Close()
		}
	}()
}

// Where the connection breaks, the exit code says that it is not all.
func TestExportCutShort(t *testing.T) {
	t.Parallel()
	s := newStocked(t, "")
	s.breaksOff(t, "{}\n")
	out := s.expect(t, 1, "not everything was exported, only 1 line, 0.0 MB: the answer of http://"+s.address+" ended too early", "export", "--events")
	if out != "{}\n" {
		t.Errorf("written: %q", out)
	}
}

// errClosed is what a reader that has gone away gives.
var errClosed = errors.New("broken pipe")

// brokenPipe takes so many bytes and then no more.
type brokenPipe struct{ left int }

func (p *brokenPipe) Write(b []byte) (int, error) {
	n := min(len(b), p.left)
	if p.left -= n; n < len(b) {
		return n, errClosed
	}
	return n, nil
}

func TestExportNobodyReads(t *testing.T) {
	t.Parallel()
	s := newStocked(t, "")
	s.stock(t, "shop-a", 200)
	var errs bytes.Buffer
	code := run(context.Background(), []string{"export", "--events", "--config", s.config}, func(string) string { return "" }, &brokenPipe{left: 10_000}, &errs)
	if code != 1 || !strings.Contains(errs.String(), "not everything was exported") || !strings.Contains(errs.String(), "broken pipe") {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
}

// pipeDaemon is a daemon at the other end of a pipe in memory, for tests with a time of
// their own.
func pipeDaemon(t *testing.T, serve http.HandlerFunc) *daemon {
	t.Helper()
	conns := make(chan net.Conn)
	closed := make(chan struct{})
	server := &http.Server{Handler: serve}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(&pipeListener{conns, closed})
	}()
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		conns <- theirs
		return ours, nil
	}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		server.Close()
		<-done
	})
	return &daemon{base: "http://pipe", http: &http.Client{Transport: transport}}
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
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// slowReader takes ten minutes for a piece, as somebody does who pages through it.
type slowReader struct{ got int }

func (r *slowReader) Write(b []byte) (int, error) {
	time.Sleep(10 * time.Minute) // of the bubble
	r.got += len(b)
	return len(b), nil
}

// An export takes as long as its reader likes, on either side; a daemon that says nothing
// for a minute is given up.
func TestExportOfASlowReader(t *testing.T) {
	t.Parallel()
	s := newStocked(t, "")
	size := 0
	for _, e := range s.stock(t, "shop-a", 1000) {
		size += len(e.JSON) + 1
	}
	synctest.Test(t, func(t *testing.T) {
		db, err := state.Open(state.Config{Path: filepath.Join(s.dir, "syncd.db")})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		a := &app{db: db, cfg: &config.Config{}}
		api := web.Handler(web.Config{Listen: "127.0.0.1:1", Log: discard, Gatherer: prometheus.NewRegistry(), Downloads: a.downloads(), APIToken: func() string { return "" }, Loopback: true})
		d := pipeDaemon(t, func(w http.ResponseWriter, r *http.Request) {
			r.Host = "localhost"
			api.ServeHTTP(w, r)
		})
		var r slowReader
		if err := d.download(t.Context(), "/api/v1/export", exportArgs{Events: true}, &r); err != nil || r.got != size {
			t.Errorf("%d of %d bytes, %v", r.got, size, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		d := pipeDaemon(t, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "{}\n")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})
		began := time.Now()
		err := d.download(t.Context(), "/api/v1/export", exportArgs{Events: true}, io.Discard)
		if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "nothing came for 1m0s") || took != time.Minute {
			t.Errorf("after %s: %v", took, err)
		}
	})
}
