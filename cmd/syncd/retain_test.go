package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
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
		if err := r.app.retireSinks(t.Context(), before); err != nil {
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
	r.app.clean(t.Context())
	if n := dead(); n != 0 {
		t.Errorf("%d dead letters are left that are too old", n)
	}
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
}
