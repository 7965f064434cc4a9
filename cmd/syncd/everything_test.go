package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"syncd/internal/fingerprint"
	"syncd/internal/sandbox"
)

// everything is a seller with something of each stream, who keeps being written
// to, answering and changing his mind while he is read.
type everything struct {
	spec   sandbox.WorldSpec
	for_   time.Duration // how long the world is watched
	sample time.Duration // how often
	every  time.Duration // sweep.every
	full   time.Duration // sweep.full, and with what reading takes, how late a change may be seen
	late   time.Duration
}

func everythingSized() everything {
	e := everything{
		spec: sandbox.WorldSpec{
			Events: 200, Questions: 400, Feedbacks: 1500, Claims: 40, Pins: 20, Span: 30 * 24 * time.Hour, FeedbackSpan: 3 * 365 * 24 * time.Hour,
			EventEvery: 900 * time.Millisecond, QuestionEvery: 1500 * time.Millisecond, FeedbackEvery: 1200 * time.Millisecond,
			FeedbackChangeEvery: 1500 * time.Millisecond, ClaimEvery: 3 * time.Second, ClaimChangeEvery: 2 * time.Second,
			PinEvery: 3 * time.Second, PinChangeEvery: 4 * time.Second, AnswerAfter: 10 * time.Second, AnsweredUnseen: 0.1,
		},
		for_: 50 * time.Second, sample: time.Second, every: 5 * time.Second, full: 8 * time.Second, late: 8 * time.Second,
	}
	if os.Getenv("SYNCD_E2E") == "full" {
		e.spec.Events, e.spec.Questions, e.spec.Feedbacks, e.spec.Claims, e.spec.Pins = 5000, 12_000, 60_000, 300, 200
		e.for_, e.sample, e.every, e.full, e.late = 8*time.Minute, 15*time.Second, 30*time.Second, 90*time.Second, time.Minute
	}
	return e
}

// shownVersion is one state of an item, and how long the marketplace showed it.
type shownVersion struct {
	fp          string
	first, last time.Time
}

// truth is what the marketplace showed while it was watched.
type truth struct {
	versions map[string][]shownVersion // by the first parts of the event id: shop-a/questions/ID
	gone     map[string]time.Time      // since when an item that was there is no longer shown
}

func fp(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	f, err := fingerprint.Of(raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f.String()
}

// look takes a sample of the world.
func (tr *truth) look(t *testing.T, w *sandbox.World) {
	t.Helper()
	now := time.Now()
	shown := make(map[string]bool)
	see := func(key string, raw json.RawMessage) {
		shown[key] = true
		delete(tr.gone, key)
		f, all := fp(t, raw), tr.versions[key]
		if n := len(all); n > 0 && all[n-1].fp == f {
			all[n-1].last = now
			return
		}
		tr.versions[key] = append(all, shownVersion{f, now, now})
	}
	for _, e := range w.Events() {
		see("shop-a/chat_events/"+e.ChatID+"/"+e.EventID, e.JSON)
	}
	for _, c := range w.Chats() {
		see("shop-a/chats/"+c.ID, c.JSON)
	}
	for _, q := range w.Questions() {
		see("shop-a/questions/"+q.ID, q.JSON)
	}
	for _, f := range w.Feedbacks() {
		see("shop-a/feedbacks/"+f.ID, f.JSON)
	}
	for _, c := range w.Claims() {
		see("shop-a/claims/"+c.ID, c.JSON)
	}
	for _, p := range w.Pins() {
		see("shop-a/feedback_pins/"+strconv.Itoa(p.ID), p.JSON)
	}
	for key := range tr.versions {
		if _, known := tr.gone[key]; !shown[key] && !known {
			tr.gone[key] = now
		}
	}
}

// TestEndToEndEverything runs the daemon over all streams at once.
func TestEndToEndEverything(t *testing.T) {
	t.Parallel()
	size := everythingSized()
	sb, api := startSandbox(t, sandbox.Config{Seed: 11, Sellers: []sandbox.Seller{{World: size.spec}}, Quirks: sandbox.Quirks{PhotoNoise: true}})
	dir := t.TempDir()
	write(t, filepath.Join(dir, "wb.token"), sb.MintToken(sandbox.TokenSpec{Seller: sb.Worlds()[0].ID()}))
	sweep := fmt.Sprintf("sweep: {every: %s, full: %s, window: 1200d}", size.every, size.full)
	write(t, filepath.Join(dir, "syncd.yaml"), fmt.Sprintf(`
state: {path: syncd.db}
server: {listen: ""}
accounts:
  - name: shop-a
    marketplace: wildberries
    token_file: wb.token
    start: beginning
    endpoints: {feedbacks: %[1]q, chat: %[1]q, returns: %[1]q}
    streams:
      chats: {schedule: "@every 4s"}
      questions: {schedule: "@every 5s", %[2]s}
      feedbacks: {schedule: "@every 5s", %[2]s}
      claims: {schedule: "@every 5s"}
      feedback_pins: {enabled: true, schedule: "@every 3s"}
sinks:
  - {name: archive, type: file, path: events.ndjson}
`, api, sweep))
	cmd := exec.Command(os.Args[0], "run", "--config", filepath.Join(dir, "syncd.yaml"))
	cmd.Env = append(os.Environ(), "SYNCD_TEST_AS_SYNCD=1")
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })

	seen := truth{versions: make(map[string][]shownVersion), gone: make(map[string]time.Time)}
	tick := time.NewTicker(size.sample)
	defer tick.Stop()
	for end := time.Now().Add(size.for_); time.Now().Before(end); <-tick.C {
		seen.look(t, sb.Worlds()[0])
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	if s := sb.Stats(); s.Violations != 0 {
		t.Errorf("%d violations of the budget: %+v", s.Violations, s.Recent)
	}
	t.Logf("requests: %v", sb.Stats().Requests)
	if bytes.Contains(log.Bytes(), []byte("level=ERROR")) {
		t.Errorf("the log complains:\n%s", log.String())
	}
	seen.compare(t, filepath.Join(dir, "events.ndjson"), size.full+size.late)
}

// compare holds what was emitted against what was shown for at least as long as
// it may take to be seen.
func (tr *truth) compare(t *testing.T, file string, within time.Duration) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	emitted := make(map[string][]string) // fingerprints of the versions, in order
	removed := make(map[string]bool)
	ids := make(map[string]bool)
	kinds := make(map[string]int)
	for line := range strings.Lines(string(raw)) {
		var e envelope
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("line %q is not an event: %v", line, err)
		}
		kinds[e.Type]++
		if ids[e.ID] {
			t.Errorf("%s is in the file twice", e.ID)
		}
		ids[e.ID] = true
		key, f := e.ID, fp(t, e.Data.Item)
		if !strings.HasSuffix(e.Type, "chat_event.created") {
			i := strings.LastIndex(e.ID, "/")
			key = e.ID[:i]
			removed[key] = strings.HasSuffix(e.Type, ".removed")
			if want := fmt.Sprintf("/%d-%s", len(emitted[key])+1, f); e.ID[i:] != want {
				t.Errorf("%s: expected version %s", e.ID, want)
			}
		}
		all := emitted[key]
		if n := len(all); n > 0 && all[n-1] == f && !removed[key] {
			t.Errorf("%s: nothing has changed", e.ID)
		}
		emitted[key] = append(all, f)
	}
	missed, unseen := make(map[string]int), 0
	for key, all := range tr.versions {
		stream := strings.Split(key, "/")[1]
		at := 0
		for i, v := range all {
			until := v.last
			if i+1 < len(all) {
				until = all[i+1].first
			}
			if until.Sub(v.first) < within {
				continue
			}
			j := slices.Index(emitted[key][at:], v.fp)
			if j < 0 {
				if missed[stream]++; missed[stream] <= 3 {
					t.Errorf("%s: version %d of %d (%s), shown for %s, was not emitted: %v", key, i+1, len(all), v.fp, until.Sub(v.first), emitted[key])
				}
				continue
			}
			at += j
		}
		if since, gone := tr.gone[key]; gone && stream == "feedback_pins" && time.Since(since) > within && len(emitted[key]) > 0 && !removed[key] {
			t.Errorf("%s has been gone since %s and was not removed", key, since)
		}
	}
	for key := range emitted {
		if tr.versions[key] == nil {
			unseen++ // came and went between two samples
		}
	}
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		t.Logf("%-40s %6d", k, kinds[k])
	}
	t.Logf("%d items were shown, %d emitted that no sample caught, missed: %v", len(tr.versions), unseen, missed)
}
