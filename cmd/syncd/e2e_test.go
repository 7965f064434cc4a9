package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"syncd/internal/sandbox"
)

// The end-to-end tests run the real program with real sockets against the
// sandbox, and compare what it emitted with what exists there. The full size, in
// real time, takes some minutes: SYNCD_E2E=full go test -run EndToEnd ./cmd/syncd
const e2eSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

func TestMain(m *testing.M) {
	// The test binary is also the program under test: as `syncd` in the scripts, and
	// as the process that is killed.
	if os.Getenv("SYNCD_TEST_AS_SYNCD") == "1" {
		main()
	}
	testscript.Main(m, map[string]func(){"syncd": main})
}

// world is a sandbox, a receiver, and a configuration that joins them.
type world struct {
	sb       *sandbox.Sandbox
	receiver *receiver
	dir      string
	config   string
}

// startSandbox serves a sandbox until the test ends.
func startSandbox(t *testing.T, cfg sandbox.Config) (sb *sandbox.Sandbox, url string) {
	t.Helper()
	sb, err := sandbox.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	api := httptest.NewServer(sb.Handler())
	t.Cleanup(api.Close)
	return sb, api.URL
}

func newWorld(t *testing.T) *world {
	t.Helper()
	spec := sandbox.WorldSpec{Events: 320, Questions: 300, Span: 30 * 24 * time.Hour, PageTies: 3, AnsweredUnseen: 0.1,
		Feedbacks: 500, FeedbackSpan: 3 * 365 * 24 * time.Hour, Claims: 40, Pins: 10}
	if os.Getenv("SYNCD_E2E") == "full" {
		spec.Events, spec.Questions, spec.Feedbacks, spec.Claims, spec.Pins = 5000, 12_000, 60_000, 300, 200
	}
	sb, api := startSandbox(t, sandbox.Config{Seed: 7, Sellers: []sandbox.Seller{{World: spec}}})
	w := &world{sb: sb, receiver: newReceiver(t), dir: t.TempDir()}
	w.config = filepath.Join(w.dir, "syncd.yaml")
	token := sb.MintToken(sandbox.TokenSpec{Seller: sb.Worlds()[0].ID()})
	write(t, filepath.Join(w.dir, "wb.token"), token)
	write(t, filepath.Join(w.dir, "crm.secret"), e2eSecret)
	write(t, w.config, fmt.Sprintf(`
state: {path: syncd.db}
server: {listen: ""}
accounts:
  - name: shop-a
    marketplace: wildberries
    token_file: wb.token
    start: beginning
    endpoints: {feedbacks: %[1]q, chat: %[1]q, returns: %[1]q}
    streams: {feedback_pins: {enabled: true}}
sinks:
  - {name: archive, type: file, path: events.ndjson}
  - {name: crm, type: webhook, url: %[2]q, secret_file: crm.secret, retry: {initial: 100ms, max: 1s}}
`, api, w.receiver.url))
	return w
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// receiver is a webhook endpoint that checks every signature.
type receiver struct {
	url    string
	verify *standardwebhooks.Webhook
	came   chan struct{} // size 1: there is more than before

	mu     sync.Mutex
	bodies map[string][]byte // by webhook-id
	count  int
	bad    []string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	verify, err := standardwebhooks.NewWebhook(e2eSecret)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{verify: verify, came: make(chan struct{}, 1), bodies: make(map[string][]byte)}
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	r.url = s.URL + "/hooks"
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the sender was killed
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	id := req.Header.Get("webhook-id")
	if err := r.verify.Verify(body, req.Header); err != nil {
		r.bad = append(r.bad, fmt.Sprintf("%s: %v", id, err))
	}
	if ct := req.Header.Get("Content-Type"); ct != "application/cloudevents+json" {
		r.bad = append(r.bad, fmt.Sprintf("%s: content type %q", id, ct))
	}
	if old, ok := r.bodies[id]; ok && !bytes.Equal(old, body) {
		r.bad = append(r.bad, fmt.Sprintf("%s came twice with different content", id))
	}
	r.bodies[id] = body
	r.count++
	select {
	case r.came <- struct{}{}:
	default:
	}
}

// envelope is what the tests read of an event.
type envelope struct {
	ID          string `json:"id"`
	Type        string `json:"type"`
	Sequence    string `json:"sequence"`
	SpecVersion string `json:"specversion"`
	Data        struct {
		Item json.RawMessage `json:"item"`
	} `json:"data"`
}

// check compares the file and what the receiver got with what the sandbox holds.
func (w *world) check(t *testing.T) {
	t.Helper()
	want := make(map[string]json.RawMessage)
	for _, e := range w.sb.Worlds()[0].Events() {
		want["shop-a/chat_events/"+e.ChatID+"/"+e.EventID] = e.JSON
	}
	for _, q := range w.sb.Worlds()[0].Questions() {
		want["shop-a/questions/"+q.ID] = q.JSON
	}
	for _, f := range w.sb.Worlds()[0].Feedbacks() {
		want["shop-a/feedbacks/"+f.ID] = f.JSON
	}
	for _, c := range w.sb.Worlds()[0].Claims() {
		want["shop-a/claims/"+c.ID] = c.JSON
	}
	for _, c := range w.sb.Worlds()[0].Chats() {
		want["shop-a/chats/"+c.ID] = c.JSON
	}
	for _, p := range w.sb.Worlds()[0].Pins() {
		want["shop-a/feedback_pins/"+strconv.Itoa(p.ID)] = p.JSON
	}
	raw, err := os.ReadFile(filepath.Join(w.dir, "events.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	seen, lastSequence := make(map[string]bool), ""
	for line := range strings.Lines(string(raw)) {
		var e envelope
		if err := json.Unmarshal([]byte(line), &e); err != nil || !strings.HasSuffix(line, "\n") {
			t.Fatalf("line %q is not an event: %v", line, err)
		}
		item := e.ID
		if e.Type != "wildberries.chat_event.created" {
			i := strings.LastIndex(e.ID, "/")
			item = e.ID[:i]
			if !strings.HasPrefix(e.ID[i:], "/1-") {
				t.Errorf("%s: the world is at rest, so every item has one version", e.ID)
			}
		}
		body, ok := want[item]
		switch {
		case !ok:
			t.Errorf("%s was emitted and does not exist", e.ID)
		case seen[item]:
			t.Errorf("%s is in the file twice", e.ID)
		case !bytes.Equal(compacted(t, body), e.Data.Item):
			t.Errorf("%s: item changed on the way:\n%s\n%s", e.ID, body, e.Data.Item)
		case e.Sequence <= lastSequence:
			t.Errorf("%s: sequence %s after %s", e.ID, e.Sequence, lastSequence)
		}
		seen[item], lastSequence = true, e.Sequence
		w.receiver.mu.Lock()
		if got := w.receiver.bodies[e.ID]; string(got)+"\n" != line {
			t.Errorf("%s: the receiver got %q, the file %q", e.ID, got, line)
		}
		w.receiver.mu.Unlock()
	}
	if len(seen) != len(want) {
		missing := slices.DeleteFunc(slices.Sorted(maps.Keys(want)), func(item string) bool { return seen[item] })
		t.Errorf("%d of %d items are in the file: %q … are not", len(seen), len(want), missing[:min(len(missing), 10)])
	}
	w.receiver.mu.Lock()
	defer w.receiver.mu.Unlock()
	if len(w.receiver.bodies) != len(want) {
		t.Errorf("the receiver got %d different events of %d", len(w.receiver.bodies), len(want))
	}
	for _, b := range w.receiver.bad {
		t.Error(b)
	}
	if s := w.sb.Stats(); s.Violations != 0 {
		t.Errorf("%d violations of the budget: %+v", s.Violations, s.Recent)
	}
}

func compacted(t *testing.T, raw []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// once runs `syncd once` in this process.
func (w *world) once(t *testing.T) (stdout string) {
	t.Helper()
	var out, log bytes.Buffer
	if code := run(context.Background(), []string{"once", "--config", w.config}, os.Getenv, &out, &log); code != 0 {
		t.Fatalf("once exits %d\n%s%s", code, out.String(), log.String())
	}
	return out.String()
}

func TestEndToEndOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	t.Logf("first run:\n%s", w.once(t))
	w.check(t)
	before := w.receiver.count
	if len(w.receiver.bodies) != before {
		t.Errorf("%d requests for %d events, though nothing failed", before, len(w.receiver.bodies))
	}
	t.Logf("second run:\n%s", w.once(t))
	w.check(t)
	if w.receiver.count != before {
		t.Errorf("the second run delivered %d events again", w.receiver.count-before)
	}
	t.Logf("requests: %v", w.sb.Stats().Requests)
}

// TestEndToEndRun runs the daemon against a world that grows while a receiver is
// down, and stops it by SIGTERM.
func TestEndToEndRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	address := freeAddress(t)
	raw, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, w.config, strings.Replace(string(raw), `listen: ""`, "listen: "+address, 1))
	cmd := exec.Command(os.Args[0], "run", "--config", w.config)
	cmd.Env = append(os.Environ(), "SYNCD_TEST_AS_SYNCD=1")
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	world := w.sb.Worlds()[0]
	total := func() int {
		return len(world.Events()) + len(world.Questions()) + len(world.Feedbacks()) + len(world.Claims()) + len(world.Chats()) + len(world.Pins())
	}
	w.await(t, &log, total())
	health := func() int {
		var out, errs bytes.Buffer
		return run(context.Background(), []string{"healthcheck", "--server", "http://" + address}, func(string) string { return "" }, &out, &errs)
	}
	if code := health(); code != 0 {
		t.Errorf("healthcheck exits %d while the daemon runs", code)
	}
	world.AddEvent(sandbox.EventSpec{Text: "a late question <&>"})
	if _, err := world.AddQuestion(sandbox.QuestionSpec{Text: "Сколько весит?"}); err != nil {
		t.Fatal(err)
	}
	w.await(t, &log, total())
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range contractFamilies {
		if !strings.Contains(string(metrics), "# TYPE syncd_"+family+" ") {
			t.Errorf("/metrics has no syncd_%s", family)
		}
	}
	token, err := os.ReadFile(filepath.Join(w.dir, "wb.token"))
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the daemon does not stop with exit code 0: %v\n%s", err, log.String())
	}
	if code := health(); code != 1 {
		t.Errorf("healthcheck exits %d with no daemon", code)
	}
	w.check(t)
	state, err := os.ReadFile(filepath.Join(w.dir, "syncd.db"))
	if err != nil {
		t.Fatal(err)
	}
	for where, content := range map[string][]byte{"log": log.Bytes(), "metrics": metrics, "state file": state} {
		for _, secret := range [][]byte{bytes.TrimSpace(token), []byte(e2eSecret), []byte(strings.TrimPrefix(e2eSecret, "whsec_"))} {
			if bytes.Contains(content, secret) {
				t.Errorf("a secret is in the %s", where)
			}
		}
	}
}

// contractFamilies are the families of contract §9 that have a meaning yet.
var contractFamilies = []string{
	"build_info", "api_requests_total", "api_request_duration_seconds", "api_throttled_total", "budget_tokens", "budget_wait_seconds",
	"poll_last_success_timestamp_seconds", "poll_errors_total", "items_total", "event_lag_seconds", "sink_events_total",
	"sink_delivery_seconds", "sink_backlog_events", "sink_oldest_pending_timestamp_seconds", "token_expiry_timestamp_seconds",
	"state_size_bytes", "state_commit_seconds", "config_last_reload_successful",
}

// await waits until the receiver has n different events.
func (w *world) await(t *testing.T, log *bytes.Buffer, n int) {
	t.Helper()
	timeout := time.After(10 * time.Minute)
	for {
		w.receiver.mu.Lock()
		got := len(w.receiver.bodies)
		w.receiver.mu.Unlock()
		if got == n {
			return
		}
		select {
		case <-w.receiver.came:
		case <-timeout:
			t.Fatalf("the receiver has %d of %d events\n%s", got, n, log.String())
		}
	}
}
