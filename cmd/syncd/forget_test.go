package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"syncd/internal/state"
)

// stockRemoved leaves an account and a sink in the state that are not configured.
func (s *stocked) stockRemoved(t *testing.T) {
	t.Helper()
	s.stock(t, "shop-b", 3)
	s.in(t, func(db *state.DB) error {
		if _, err := db.OpenSink("old", "webhook", true, time.Now()); err != nil {
			return err
		}
		first, _, err := db.Event(1)
		if err != nil {
			return err
		}
		return db.Settle("old", time.Now(), state.Settlement{Position: 1, Dead: []state.Failed{{Seq: 1, Key: first.PartitionKey, Reason: state.ReasonRefused}}})
	})
}

// metrics are those of the daemon.
func (s *shop) metrics(t *testing.T) string {
	t.Helper()
	resp, err := http.Get("http://" + s.address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// Contract §4: removing only stops, `state forget` deletes.
func TestForget(t *testing.T) {
	t.Parallel()
	for name, daemon := range map[string]bool{"through the daemon": true, "of the closed file": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStocked(t, "")
			s.stockRemoved(t)
			stop := func() {}
			if daemon {
				stop = s.daemon(t)
				s.expect(t, 0, "not configured for", "status")
				if !strings.Contains(s.metrics(t), `syncd_sink_dead_letters{sink="old"} 1`) {
					t.Error("the dead letters of a removed sink are in no metric")
				}
			}
			s.expect(t, 1, "account shop-a is still configured: remove it from the configuration and reload first", "state", "forget", "--account", "shop-a")
			s.expect(t, 1, "sink crm is still configured: remove it from the configuration and reload first", "state", "forget", "--sink", "crm")
			s.expect(t, 1, `there is no sink "odl"; there are: archive, crm, old`, "state", "forget", "--sink", "odl")
			s.expect(t, 1, `nothing is known of an account "shop-c"`, "state", "forget", "--account", "shop-c")
			s.expect(t, 0, "sink old: forgotten, with 2 waiting events and 1 dead letter\n", "state", "forget", "--sink", "old")
			s.expect(t, 0, "account shop-b: forgotten, with 3 records of 1 stream\n", "state", "forget", "--account", "shop-b")
			s.expect(t, 1, "there is no sink", "state", "forget", "--sink", "old")
			s.expect(t, 1, "nothing is known of an account", "state", "forget", "--account", "shop-b")
			if daemon && strings.Contains(s.metrics(t), `sink="old"`) {
				t.Error("a sink that was forgotten is in the metrics")
			}
			stop()
			s.in(t, func(db *state.DB) error {
				var left []string
				err := db.ExportRecords(t.Context(), "shop-b", "", func(r state.Record) error {
					left = append(left, r.ID)
					return nil
				})
				if len(left) > 0 {
					t.Errorf("records %v are left", left)
				}
				if n, err := db.CountDeadLetters("old"); n != 0 || err != nil {
					t.Errorf("%d dead letters are left, %v", n, err)
				}
				return err
			})
			if got := s.receiver.all(); len(got) != 0 {
				t.Errorf("the receiver got %+v", got)
			}
		})
	}
}
