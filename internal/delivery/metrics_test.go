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
)

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 2)
		v.answer = func(_ context.Context, e *event.Logged) error {
			if e.PartitionKey == "shop-a/b" {
				return errors.New("500")
			}
			return nil
		}
		r.log("a", "b", "x", "b")
		pending := float64(time.Now().UnixMilli()) / 1000
		d := r.new(delivery.Sink{Name: "crm", Sink: v, Wants: func(_, typ string) bool { return !strings.Contains(typ, "unwanted") }})
		if _, err := d.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf(`
# HELP syncd_sink_backlog_events Events that the sink has still to get, retry queue included.
# TYPE syncd_sink_backlog_events gauge
syncd_sink_backlog_events{sink="crm"} 2
# HELP syncd_sink_events_total Events by what became of an attempt: acknowledged, failed (it waits for the next one), or skipped (the sink does not want it).
# TYPE syncd_sink_events_total counter
syncd_sink_events_total{outcome="acknowledged",sink="crm"} 1
syncd_sink_events_total{outcome="failed",sink="crm"} 1
syncd_sink_events_total{outcome="skipped",sink="crm"} 1
# HELP syncd_sink_oldest_pending_timestamp_seconds When the oldest event that the sink has still to get was recorded; 0: none waits.
# TYPE syncd_sink_oldest_pending_timestamp_seconds gauge
syncd_sink_oldest_pending_timestamp_seconds{sink="crm"} %v
`, pending)
		if err := testutil.GatherAndCompare(r.reg, strings.NewReader(want), "syncd_sink_backlog_events", "syncd_sink_events_total", "syncd_sink_oldest_pending_timestamp_seconds"); err != nil {
			t.Error(err)
		}
		if problems, err := testutil.GatherAndLint(r.reg); err != nil || len(problems) > 0 {
			t.Error(problems, err)
		}
	})
}
