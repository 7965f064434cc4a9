package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"syncd/internal/sandbox"
)

// reloader is a daemon in this process, against two sellers of the sandbox, and what
// its configuration is made of.
type reloader struct {
	t    *testing.T
	sb   *sandbox.Sandbox
	api  string
	dir  string
	path string
	app  *app
	log  *sharedBuffer
	end  func()

	accounts map[string]string // by name: the rest of the account's keys, in YAML
	sinks    map[string]string
	extra    string // other keys
	keep     string // other keys of `state`
	given    given  // what the daemon is given besides
}

type sharedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *sharedBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *sharedBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

const onlyQuestions = `start: beginning, streams: {chat_events: {enabled: false}, chats: {enabled: false}, feedbacks: {enabled: false}, claims: {enabled: false}, questions: {schedule: "@every 1s"}}`

func newReloader(t *testing.T) *reloader {
	t.Helper()
	world := sandbox.WorldSpec{Questions: 20, Claims: 6, Span: 24 * time.Hour}
	sb, api := startSandbox(t, sandbox.Config{Seed: 3, Sellers: []sandbox.Seller{{World: world}, {World: world}}})
	r := &reloader{t: t, sb: sb, api: api, dir: t.TempDir(), log: new(sharedBuffer), accounts: make(map[string]string), sinks: make(map[string]string)}
	r.path = filepath.Join(r.dir, "syncd.yaml")
	r.token("a.token", 0, time.Time{})
	r.token("b.token", 1, time.Time{})
	r.accounts["shop-a"] = "token_file: a.token, " + onlyQuestions
	r.sinks["archive"] = "type: file, path: archive.ndjson, from: beginning"
	return r
}

// token writes a token of a seller; expires zero: it lasts.
func (r *reloader) token(name string, seller int, expires time.Time) {
	r.t.Helper()
	r.put(name, r.sb.MintToken(sandbox.TokenSpec{Seller: r.sb.Worlds()[seller].ID(), Expires: expires}))
}

// put replaces a file at once: nobody finds it half-written.
func (r *reloader) put(name, content string) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	write(r.t, path+".new", content)
	if err := os.Rename(path+".new", path); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reloader) write() {
	r.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "state: {path: syncd.db%s}\nserver: {listen: \"\"}\n%s\naccounts:\n", r.keep, r.extra)
	for name, rest := range r.accounts {
		fmt.Fprintf(&b, "  - {name: %s, marketplace: wildberries, endpoints: {feedbacks: %[2]q, chat: %[2]q, returns: %[2]q}, %[3]s}\n", name, r.api, rest)
	}
	b.WriteString("sinks:\n")
	for name, rest := range r.sinks {
		fmt.Fprintf(&b, "  - {name: %s, %s}\n", name, rest)
	}
	write(r.t, r.path, b.String())
}

// run runs the daemon until the end of the test, or end.
func (r *reloader) run() {
	r.t.Helper()
	r.write()
	e := &env{getenv: func(string) string { return "" }, stdout: io.Discard, stderr: r.log, configPath: r.path}
	cfg, err := e.loadConfig()
	if err != nil {
		r.t.Fatal(err)
	}
	log, level := newLogger(r.log, e.getenv, cfg.Log)
	r.given.log, r.given.level, r.given.load, r.given.look = log, level, e.readConfig, 20*time.Millisecond
	if r.given.stdout == nil {
		r.given.stdout = io.Discard
	}
	if r.app, err = build(cfg, r.given); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error, 1)
	go func() { done <- r.app.serve(ctx, nil, nil) }()
	var once sync.Once
	r.end = func() {
		once.Do(func() {
			cancel()
			if err := errors.Join(<-done, r.app.close()); err != nil {
				r.t.Error(err)
			}
			if r.t.Failed() {
				r.t.Log(r.log.String())
			}
		})
	}
	r.t.Cleanup(r.end)
	r.await("the daemon serves", func() bool {
		r.app.reloading.Lock()
		defer r.app.reloading.Unlock()
		return r.app.serving != nil && r.app.poller.Scheduled()
	})
}

func (r *reloader) reload() {
	r.t.Helper()
	r.write()
	if err := r.app.reload(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reloader) await(what string, is func() bool) {
	r.t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("not within a minute: %s\n%s", what, r.log.String())
		}
	}
}

// lines are the ids in a file sink.
func (r *reloader) lines(name string) (ids []string) {
	r.t.Helper()
	raw, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil && !os.IsNotExist(err) {
		r.t.Error(err)
	}
	for line := range strings.Lines(string(raw)) {
		var e envelope
		if json.Unmarshal([]byte(line), &e) == nil && strings.HasSuffix(line, "\n") {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

// has waits until a file has so many events of a stream, and checks that each is there
// once.
func (r *reloader) has(file, stream string, n int) {
	r.t.Helper()
	var ids []string
	count := func() (n int) {
		ids = r.lines(file)
		for _, id := range ids {
			if strings.HasPrefix(id, stream+"/") {
				n++
			}
		}
		return n
	}
	r.await(fmt.Sprintf("%s has %d events of %s", file, n, stream), func() bool { return count() >= n })
	if got := count(); got != n || len(slices.Compact(slices.Sorted(slices.Values(ids)))) != len(ids) {
		r.t.Errorf("%s has %d events of %s, want %d; all of them: %q", file, got, stream, n, ids)
	}
}

func (r *reloader) ask(seller int) {
	r.t.Helper()
	if _, err := r.sb.Worlds()[seller].AddQuestion(sandbox.QuestionSpec{Text: "Сколько весит?"}); err != nil {
		r.t.Fatal(err)
	}
}

// open returns an account as it is open; no source: it is not.
func (r *reloader) open(name string) account {
	r.app.reloading.Lock()
	defer r.app.reloading.Unlock()
	return r.app.accounts[name]
}

// series counts the series that have a label value.
func (r *reloader) series(label, value string) (n int) {
	r.t.Helper()
	families, err := r.app.registry.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if l.GetName() == label && l.GetValue() == value {
					n++
				}
			}
		}
	}
	return n
}

// rotated is a receiver that takes what is signed with its present secret.
type rotated struct {
	url    string
	mu     sync.Mutex
	verify *standardwebhooks.Webhook
	times  map[string]int // by webhook-id: how often it was taken
}

func newRotated(t *testing.T, secret string) *rotated {
	t.Helper()
	h := &rotated{times: make(map[string]int)}
	h.rotate(t, secret)
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	h.url = s.URL
	return h
}

func (h *rotated) rotate(t *testing.T, secret string) {
	t.Helper()
	verify, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.verify = verify
}

func (h *rotated) taken() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.times)
}

func (h *rotated) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.verify.Verify(body, req.Header) != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	h.times[req.Header.Get("webhook-id")]++
}
