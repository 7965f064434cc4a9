package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"syncd/internal/delivery"
	"syncd/internal/event"
	"syncd/internal/sink"
)

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 2)
		v.answer = func(_ context.Context, e *event.Logged) error {
			if e.PartitionKey != "shop-a/a" {
				time.Sleep(time.Millisecond) // a refusal kills once something was acknowledged
			}
			switch e.PartitionKey {
			case "shop-a/b":
				return errors.New("500")
			case "shop-a/c":
				return &sink.Error{Kind: sink.Permanent, Status: 400}
			}
			return nil
		}
		r.log("a", "b", "x", "b", "c")
		pending := float64(time.Now().UnixMilli()) / 1000
		crm := with(wanting(to("crm", v)), func(s *delivery.Sink) { s.MaxRefusals = 1 })
		d := r.new(crm)
		r.metrics.Expired("crm", 3)
		if _, err := d.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf(`
# HELP syncd_sink_backlog_events Events that the sink has still to get, retry queue included.
# TYPE syncd_sink_backlog_events gauge
syncd_sink_backlog_events{sink="crm"} 2
# HELP syncd_sink_dead_letters Events that were given up and wait for the operator.
# TYPE syncd_sink_dead_letters gauge
syncd_sink_dead_letters{sink="crm"} 1
# HELP syncd_sink_events_total Events by what became of them: acknowledged, failed (an attempt; it waits for the next one), skipped (the sink does not want it), dead_lettered (given up, the operator can retry it), or expired (a dead letter that nobody retried).
# TYPE syncd_sink_events_total counter
syncd_sink_events_total{outcome="acknowledged",sink="crm"} 1
syncd_sink_events_total{outcome="dead_lettered",sink="crm"} 1
syncd_sink_events_total{outcome="expired",sink="crm"} 3
syncd_sink_events_total{outcome="failed",sink="crm"} 1
syncd_sink_events_total{outcome="skipped",sink="crm"} 1
# HELP syncd_sink_oldest_pending_timestamp_seconds When the oldest event that the sink has still to get was recorded; 0: none waits.
# TYPE syncd_sink_oldest_pending_timestamp_seconds gauge
syncd_sink_oldest_pending_timestamp_seconds{sink="crm"} %v
`, pending)
		if err := testutil.GatherAndCompare(r.reg, strings.NewReader(want), "syncd_sink_backlog_events", "syncd_sink_events_total", "syncd_sink_dead_letters", "syncd_sink_oldest_pending_timestamp_seconds"); err != nil {
			t.Error(err)
		}
		if problems, err := testutil.GatherAndLint(r.reg); err != nil || len(problems) > 0 {
			t.Error(problems, err)
		}
		// The series of a sink that leaves go with it, but for its dead letters, and come back with it.
		for i, sinks := range [][]delivery.Sink{nil, {crm}} {
			if err := d.Update(r.defaults(sinks)); err != nil {
				t.Fatal(err)
			}
			if n, err := testutil.GatherAndCount(r.reg); err != nil || n != 1+8*i {
				t.Errorf("%d series of %d sinks: %v", n, i, err)
			}
			if n, err := testutil.GatherAndCount(r.reg, "syncd_sink_dead_letters"); err != nil || n != 1 {
				t.Errorf("%d series of dead letters with %d sinks: %v", n, i, err)
			}
		}
		if err := d.Update(nil); err != nil {
			t.Fatal(err)
		}
		r.metrics.DeadLettered("crm", 1)
		if err := r.db.ForgetSink(t.Context(), "crm"); err != nil {
			t.Fatal(err)
		}
		r.metrics.Forget("crm")
		if n, err := testutil.GatherAndCount(r.reg); err != nil || n != 0 {
			t.Errorf("%d series of a sink that was forgotten: %v", n, err)
		}
	})
}
