package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/web"
)

// pipes is a listener of connections in memory, for which a bubble's clock runs.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// serve runs the real server in a bubble until the test ends, and gives a way to post to it.
func serve(t *testing.T, cfg web.Config) (post func(path, body string) (*http.Response, error)) {
	t.Helper()
	l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	s := web.NewOn(cfg, l)
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- s.Run(ctx) }()
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		server, client := net.Pipe()
		l.conns <- server
		return client, nil
	}}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return func(path, body string) (*http.Response, error) {
		return (&http.Client{Transport: transport}).Post("http://127.0.0.1"+path, "application/json", strings.NewReader(body))
	}
}

// TestSlowAnswers holds that a command may take longer than the server gives others, before its answer and in the middle of it, and
// that it is told to stop only when its client has gone.
func TestSlowAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slowly := func(ctx context.Context) error {
			select {
			case <-time.After(10 * time.Minute):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		cfg := config(nil)
		cfg.Reload = slowly
		cfg.Actions = map[string]web.Action{"act": func(ctx context.Context, _ []byte) (any, error) { return "whole", slowly(ctx) }}
		cfg.Downloads = map[string]web.Download{
			"late": {Write: func(ctx context.Context, _ []byte, w io.Writer) error {
				if err := slowly(ctx); err != nil {
					return err
				}
				_, err := io.WriteString(w, "whole\n")
				return err
			}},
			"end": {Write: func(ctx context.Context, _ []byte, w io.Writer) error {
				if _, err := io.WriteString(w, "whole\n"); err != nil {
					return err
				}
				return slowly(ctx)
			}},
			"fail": {Write: func(ctx context.Context, _ []byte, w io.Writer) error {
				return errors.Join(slowly(ctx), errors.New("whole\nerror"))
			}},
		}
		post := serve(t, cfg)
		for path, want := range map[string]string{
			"/-/reload": "reloaded", "/api/v1/act": "whole", "/api/v1/late": "whole\n", "/api/v1/end": "whole\n", "/api/v1/fail": "error",
		} {
			resp, err := post(path, "{}")
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || !strings.Contains(string(body), want) {
				t.Errorf("%s: %q, %v", path, body, err)
			}
		}
	})
}

// TestDownloadIsLeft holds that a client which takes nothing, or has gone, holds up a download only so long, and one that is
// patient until it has gone. That it has gone by itself is no news to an operator.
func TestDownloadIsLeft(t *testing.T) {
	for name, row := range map[string]struct {
		patient     bool
		read        func(t *testing.T, body io.ReadCloser)
		least, most time.Duration
		warned      bool
	}{
		"takes nothing":            {false, func(_ *testing.T, body io.ReadCloser) { time.Sleep(time.Hour); body.Close() }, 30 * time.Second, 30 * time.Second, true},
		"takes nothing of patient": {true, func(_ *testing.T, body io.ReadCloser) { time.Sleep(time.Hour); body.Close() }, time.Hour, time.Hour, false},
		"has gone":                 {false, func(_ *testing.T, body io.ReadCloser) { body.Close() }, 0, 0, false},
		"has gone from patient":    {true, func(_ *testing.T, body io.ReadCloser) { body.Close() }, 0, 0, false},
		"takes a piece now and then": {false, func(t *testing.T, body io.ReadCloser) {
			for range 20 {
				if _, err := io.ReadFull(body, make([]byte, 10_000)); err != nil {
					t.Error(err)
				}
				time.Sleep(20 * time.Second)
			}
			body.Close()
		}, 380 * time.Second, 400 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				var took time.Duration
				var failed error
				cfg := config(nil)
				log := new(bytes.Buffer)
				cfg.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
				cfg.Downloads = map[string]web.Download{"endless": {Patient: row.patient, Write: func(_ context.Context, _ []byte, w io.Writer) error {
					for failed == nil {
						_, failed = w.Write(make([]byte, 100))
					}
					took = time.Since(begun)
					return failed
				}}}
				resp, err := serve(t, cfg)("/api/v1/endless", "{}")
				if err != nil {
					t.Fatal(err)
				}
				row.read(t, resp.Body)
				synctest.Wait()
				if failed == nil {
					t.Fatal("it goes on")
				}
				if took < row.least || took > row.most {
					t.Errorf("it ended after %s, want %s to %s", took, row.least, row.most)
				}
				if warned := strings.Contains(log.String(), "level=WARN"); warned != row.warned || !strings.Contains(log.String(), "did not come to its end") {
					t.Errorf("an operator is warned: %v, want %v:\n%s", warned, row.warned, log)
				}
			})
		})
	}
}

// TestDownload holds that a download gets its arguments, that it is a change like others, and that a piece of an answer cannot be
// taken for the whole.
func TestDownload(t *testing.T) {
	const token = "a-token-of-some-length"
	cfg := config(nil)
	secret := token
	cfg.APIToken = func() string { return secret }
	calls := 0
	cfg.Downloads = map[string]web.Download{"export": {Write: func(_ context.Context, in []byte, w io.Writer) error {
		calls++
		var args struct {
			Lines  int  `json:"lines"`
			Breaks bool `json:"breaks"`
		}
		if err := web.Arguments(in, &args); err != nil {
			return err
		}
		for i := range args.Lines {
			if _, err := fmt.Fprintf(w, "%05d\n", i); err != nil {
				return err
			}
		}
		if args.Breaks {
			return errors.New("broken <disk>")
		}
		return nil
	}}}
	server := httptest.NewServer(web.Handler(cfg))
	defer server.Close()
	post := func(method, auth, origin, in string) (*http.Response, []byte, error) {
		t.Helper()
		r, err := http.NewRequest(method, server.URL+"/api/v1/export", strings.NewReader(in))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+auth)
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			return &http.Response{}, nil, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return resp, body, err
	}
	const lines = 100_000
	resp, body, err := post("POST", token, "", `{"lines":100000}`)
	if err != nil || resp.StatusCode != 200 || len(body) != 6*lines || string(body[6*lines-6:]) != "99999\n" || calls != 1 {
		t.Errorf("%d, %d bytes, %v", resp.StatusCode, len(body), err)
	}
	if got := resp.Header; got.Get("X-Content-Type-Options") != "nosniff" || got.Get("Cache-Control") != "no-store" {
		t.Errorf("header %v", got)
	}
	if resp, body, err = post("POST", token, "", `{}`); err != nil || resp.StatusCode != 200 || len(body) != 0 {
		t.Errorf("nothing: %d, %q, %v", resp.StatusCode, body, err)
	}
	for _, n := range []string{"1", "100000"} {
		if _, body, err = post("POST", token, "", `{"lines":`+n+`,"breaks":true}`); err == nil {
			t.Errorf("%s lines and a failure look like a whole of %d bytes", n, len(body))
		}
	}
	calls = 0
	for name, row := range map[string]struct {
		method, auth, origin, in string
		status                   int
		contains                 string
	}{
		"before its first byte": {"POST", token, "", `{"breaks":true}`, 500, "broken <disk>"},
		"unknown argument":      {"POST", token, "", `{"line":1}`, 400, "line"},
		"no arguments":          {"POST", token, "", ``, 400, "arguments"},
		"too much":              {"POST", token, "", strings.Repeat(" ", 65<<10), 400, "64 KiB"},
		"got":                   {"GET", token, "", ``, 404, "no such command"},
		"another token":         {"POST", token + "x", "", `{}`, 401, "api_token_file"},
		"another site":          {"POST", token, "http://evil.example", `{}`, 403, "another site"},
	} {
		resp, body, err := post(row.method, row.auth, row.origin, row.in)
		var answer struct{ Error string }
		if err != nil || resp.StatusCode != row.status || json.Unmarshal(body, &answer) != nil || !strings.Contains(answer.Error, row.contains) {
			t.Errorf("%s: %d, %s, %v", name, resp.StatusCode, body, err)
		}
		if got := resp.Header.Get("Content-Type"); got != "application/json" {
			t.Errorf("%s: the error is %s", name, got)
		}
	}
	if calls != 3 {
		t.Errorf("%d downloads were begun, want 3: one was refused too late, or too early", calls)
	}
}

// TestDownloadFails holds that an operator is warned of a download that fails by itself, also where its client has gone meanwhile, and
// not of one that ends because its client has gone.
func TestDownloadFails(t *testing.T) {
	broken := errors.New("broken disk")
	for name, row := range map[string]struct {
		gone   bool // the client
		err    error
		warned bool
	}{
		"broken":              {false, broken, true},
		"broken, client gone": {true, broken, true},
		"given up":            {false, context.Canceled, true},
		"client gone":         {true, context.Canceled, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := config(nil)
				log := new(bytes.Buffer)
				cfg.Log = slog.New(slog.NewTextHandler(log, nil))
				cfg.Downloads = map[string]web.Download{"export": {Write: func(ctx context.Context, _ []byte, w io.Writer) error {
					if _, err := w.Write(make([]byte, 5000)); err != nil {
						return err
					}
					if row.gone {
						<-ctx.Done()
					}
					return fmt.Errorf("read: %w", row.err)
				}}}
				resp, err := serve(t, cfg)("/api/v1/export", "{}")
				if err != nil {
					t.Fatal(err)
				}
				if row.gone {
					_, err = io.ReadFull(resp.Body, make([]byte, 1000))
				} else {
					_, err = io.Copy(io.Discard, resp.Body)
				}
				if (err == nil) != row.gone {
					t.Errorf("the client is told %v", err)
				}
				resp.Body.Close()
				synctest.Wait()
				if strings.Contains(log.String(), "level=WARN") != row.warned || strings.Contains(log.String(), row.err.Error()) != row.warned {
					t.Errorf("an operator is told:\n%s", log)
				}
			})
		})
	}
}

// TestPausedDownload holds that a reader which pauses for days, wherever, gets all of a patient download.
func TestPausedDownload(t *testing.T) {
	whole := strings.Repeat("0123456789", 10_000)
	for pause := 0; pause < len(whole); pause += 1000 { // at the end of it, the rest is in buffers
		synctest.Test(t, func(t *testing.T) {
			cfg := config(nil)
			cfg.Downloads = map[string]web.Download{"export": {Patient: true, Write: func(ctx context.Context, _ []byte, w io.Writer) error {
				for i := 0; i < len(whole); i += 100 {
					if _, err := io.WriteString(w, whole[i:i+100]); err != nil {
						return err
					}
				}
				return ctx.Err()
			}}}
			resp, err := serve(t, cfg)("/api/v1/export", "{}")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			begin := make([]byte, pause)
			_, err = io.ReadFull(resp.Body, begin)
			time.Sleep(72 * time.Hour)
			rest, restErr := io.ReadAll(resp.Body)
			if err != nil || restErr != nil || string(begin)+string(rest) != whole {
				t.Errorf("paused at %d: %v, %v, %d bytes more", pause, err, restErr, len(rest))
			}
		})
	}
}

// TestDownloadsAtOnce holds that only a few downloads of a kind are made at once, and that others get their turn later.
func TestDownloadsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config(nil)
		end := make(chan struct{})
		cfg.Downloads = map[string]web.Download{
			"export": {Write: func(context.Context, []byte, io.Writer) error { <-end; return nil }},
			"backup": {Write: func(context.Context, []byte, io.Writer) error { return nil }},
		}
		post := serve(t, cfg)
		statuses := make(chan int, 10)
		for range 10 {
			go func() {
				resp, err := post("/api/v1/export", "{}")
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
				statuses <- resp.StatusCode
			}()
		}
		synctest.Wait()
		if n := len(statuses); n != 6 {
			t.Errorf("%d are answered at once, want 6", n)
		}
		if resp, err := post("/api/v1/backup", "{}"); err != nil || resp.StatusCode != 200 {
			t.Errorf("of another kind: %v, %v", resp, err)
		}
		close(end)
		got := map[int]int{}
		for range 10 {
			got[<-statuses]++
		}
		if got[503] != 6 || got[200] != 4 {
			t.Errorf("got %v, want six 503 and four 200", got)
		}
		if resp, err := post("/api/v1/export", "{}"); err != nil || resp.StatusCode != 200 {
			t.Errorf("later: %v, %v", resp, err)
		}
	})
}
