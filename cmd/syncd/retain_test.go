package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"syncd/internal/clock"
	"syncd/internal/config"
)

// TestRemovedSinkIsRetired: what a sink has still to get which left the configuration
// longer than keep_events ago becomes dead letters, of what it selects alone; they are
// deleted when they are older than keep_dead_letters, and counted (G6). One that comes
// back before loses nothing.
func TestRemovedSinkIsRetired(t *testing.T) {
	t.Parallel()
	r := newReloader(t)
	down := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	t.Cleanup(down.Close)
	r.accounts["shop-b"] = "token_file: b.token, " + onlyQuestions
	crm := fmt.Sprintf("type: webhook, url: %q, unsigned: true, from: beginning, select: {accounts: [shop-a]}", down.URL)
	r.sinks["crm"] = crm
	r.extra = "log: {level: warn}"
	r.run()
	r.has("archive.ndjson", "shop-a/questions", 20)
	r.has("archive.ndjson", "shop-b/questions", 20)
	delete(r.sinks, "crm")
	r.reload()
	if !strings.Contains(r.log.String(), "has still to get events") {
		t.Error("it is not told that a removed sink holds events")
	}
	dead := func() int {
		t.Helper()
		n, err := r.app.db.CountDeadLetters("crm")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	retire := func(before time.Time) {
		t.Helper()
		r.app.reloading.Lock()
		defer r.app.reloading.Unlock()
		if err := r.app.retireLocked(t.Context(), before); err != nil {
			t.Fatal(err)
		}
	}
	r.app.clean(t.Context())
	retire(time.Now().Add(-time.Minute))
	if n := dead(); n != 0 {
		t.Errorf("%d dead letters of a sink that has just left", n)
	}
	r.sinks["crm"] = crm
	r.reload()
	retire(time.Now().Add(time.Minute))
	if n := dead(); n != 0 {
		t.Errorf("%d dead letters of a sink that has come back", n)
	}
	delete(r.sinks, "crm")
	r.reload()
	retire(time.Now().Add(time.Minute))
	if n := dead(); n != 20 {
		t.Errorf("%d dead letters of a sink that wants 20 events", n)
	}
	if removed, err := r.app.db.Removed(); err != nil || len(removed) != 1 || !removed[0].Retired {
		t.Errorf("removed: %+v, %v", removed, err)
	}

	r.app.clean(t.Context())
	if n := dead(); n != 20 {
		t.Errorf("%d dead letters are left of 20 that are young", n)
	}
	r.keep = ", keep_dead_letters: 1ms"
	r.reload()
	r.await("the dead letters that are too old are deleted", func() bool { return dead() == 0 }) // not in ten minutes' time
	r.await("they are counted", func() bool { return strings.Contains(r.log.String(), "dead letters that nobody retried") })
	if err := testutil.GatherAndCompare(r.app.registry, strings.NewReader(`
# HELP syncd_sink_events_total Events by what became of them: acknowledged, failed (an attempt; it waits for the next one), skipped (the sink does not want it), dead_lettered (given up, the operator can retry it), or expired (a dead letter that nobody retried).
# TYPE syncd_sink_events_total counter
syncd_sink_events_total{outcome="acknowledged",sink="archive"} 40
syncd_sink_events_total{outcome="dead_lettered",sink="archive"} 0
syncd_sink_events_total{outcome="dead_lettered",sink="crm"} 20
syncd_sink_events_total{outcome="expired",sink="archive"} 0
syncd_sink_events_total{outcome="expired",sink="crm"} 20
syncd_sink_events_total{outcome="failed",sink="archive"} 0
syncd_sink_events_total{outcome="skipped",sink="archive"} 0
`), "syncd_sink_events_total"); err != nil {
		t.Error(err)
	}
	if _, err := r.app.desk().forgetSink(t.Context(), "crm"); err != nil || r.series("sink", "crm") != 0 {
		t.Errorf("%d series are left of a sink that was forgotten, %v", r.series("sink", "crm"), err)
	}
}

// TestRetainEvery: what is kept for a short time is looked for often.
func TestRetainEvery(t *testing.T) {
	const day = 24 * time.Hour
	for _, row := range []struct{ events, letters, want time.Duration }{
		{7 * day, 90 * day, 10 * time.Minute},
		{time.Hour, 90 * day, 6 * time.Minute},
		{7 * day, time.Minute, 6 * time.Second},
		{time.Millisecond, 90 * day, time.Second},
	} {
		if got := retainEvery(config.State{KeepEvents: row.events, KeepDeadLetters: row.letters}); got != row.want {
			t.Errorf("for %v and %v every %v, want %v", row.events, row.letters, got, row.want)
		}
	}
}

// TestRetainDuringReload: a reload that takes long keeps nothing else from being deleted.
func TestRetainDuringReload(t *testing.T) {
	t.Parallel()
	r := newReloader(t)
	r.run()
	r.app.reloading.Lock()
	defer r.app.reloading.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.app.clean(t.Context())
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Error("it waits for the reload")
	}
}

// TestSinkLeavesInDoubt: since when a sink is removed is noted only by a clock that can
// be believed, and made up for when it can.
func TestSinkLeavesInDoubt(t *testing.T) {
	t.Parallel()
	r := newReloader(t)
	r.sinks["late"] = "type: file, path: late.ndjson"
	r.run()
	r.end()
	delete(r.sinks, "late")
	r.write()
	cfg, err := config.Load(config.Source{Path: r.path, Getenv: func(string) string { return "" }}, catalog())
	if err != nil {
		t.Fatal(err)
	}
	a, err := build(r.app.config(), r.given)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.close() })
	believed := a.clock
	removed := func() int {
		t.Helper()
		sinks, err := a.db.Removed()
		if err != nil {
			t.Fatal(err)
		}
		return len(sinks)
	}
	a.cfg, a.clock = cfg, clock.New(clock.Config{LastCommit: time.Now().Add(time.Hour), Log: r.given.log})
	if err := a.markSinks(cfg); err != nil || removed() != 0 {
		t.Errorf("%d sinks are marked by a clock in doubt: %v", removed(), err)
	}
	a.clean(context.Background())
	if removed() != 0 {
		t.Error("retention has marked a sink by a clock in doubt")
	}
	a.clock = believed
	a.clean(context.Background())
	if removed() != 1 {
		t.Error("the sink is not marked when the clock can be believed")
	}
}
