package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"syncd/internal/state"
)

// Contract §7: 410 pauses a sink until the operator resumes it.
func TestResumeThroughTheDaemon(t *testing.T) {
	t.Parallel()
	s := newStocked(t, "")
	s.pause(t)
	s.daemon(t)
	s.expect(t, 0, "paused for", "status")
	s.expect(t, 0, "`syncd sinks resume crm` goes on", "status")
	st, _ := s.status(t)
	if p := st.Sinks[1].Paused; p == nil || !strings.HasPrefix(p.Event, "shop-a/questions/q1") || p.Answer != "410 Gone: moved" {
		t.Errorf("status says %+v", p)
	}
	// What is queued meanwhile says what it waits for.
	s.expect(t, 0, "sink crm: 1 event queued to be sent again; the sink is paused", "replay", "--sink", "crm", "--since", "1h")
	if got := s.receiver.all(); len(got) != 0 {
		t.Errorf("a paused sink was sent %+v", got)
	}
	s.expect(t, 0, "sink crm: going on", "sinks", "resume", "crm")
	s.until(t, func() bool { return len(s.receiver.all()) == 2 })
	s.until(t, func() bool { _, out, _ := s.syncd("status"); return !strings.Contains(out, "paused") })
	s.expect(t, 1, "sink crm is not paused", "sinks", "resume", "crm")
	s.expect(t, 1, "resume is for webhooks only", "sinks", "resume", "archive")
	s.expect(t, 1, `there is no sink "crn"; there are: archive, crm`, "sinks", "resume", "crn")
}

// pause has crm answered 410 to its first event, and q2 with it.
func (s *stocked) pause(t *testing.T) {
	t.Helper()
	logged := s.stock(t, "shop-a", 2)
	s.in(t, func(db *state.DB) error {
		return errors.Join(rewind(t, db), db.Settle("crm", time.Now(), state.Settlement{
			Position: logged[1].Sequence,
			Failed:   []state.Failed{{Seq: logged[0].Sequence, Key: logged[0].PartitionKey, Attempts: 1, First: time.Now(), Last: time.Now(), Next: time.Now(), Status: 410, Error: "410 Gone"}},
			Gone:     &state.Gone{At: time.Now().Add(-time.Hour), Event: logged[0].ID, Answer: "410 Gone: \x1bmoved"},
		}))
	})
}

func TestResumeOnTheClosedFile(t *testing.T) {
	t.Parallel()
	s := newStocked(t, "")
	s.pause(t)
	s.expect(t, 0, "sink crm: resumed; the next daemon goes on", "sinks", "resume", "crm")
	s.expect(t, 1, "sink crm is not paused", "sinks", "resume", "crm")
	s.daemon(t)
	s.until(t, func() bool { return len(s.receiver.all()) == 1 })
}

// A sink's state is in plain words, with the command that helps.
func TestSinkState(t *testing.T) {
	now := time.Date(2026, 2, 2, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for want, s := range map[string]sinkStatus{
		"ok": {},
		"paused for 2h0m, since it answered 410: `syncd sinks resume crm` goes on":        {Paused: &pausedSink{Since: ago(2 * time.Hour)}, DownSince: ago(time.Hour)},
		"down for 1h0m; failing: 503 Service Unavailable":                                 {DownSince: ago(time.Hour), Failure: "503 Service Unavailable", FailedAt: ago(time.Minute), LastAck: ago(time.Hour)},
		"asked to be left alone, again in 10m":                                            {HeldUntil: now.Add(10 * time.Minute), Failure: "429", FailedAt: ago(time.Hour), LastAck: ago(time.Minute)},
		"cannot be opened: permission denied":                                             {Opening: "permission denied"},
		"`syncd deadletter list --sink crm` shows 1 dead letter":                          {DeadLetters: 1},
		"failing: no such host; `syncd deadletter list --sink crm` shows 12 dead letters": {DeadLetters: 12, Failure: "no\nsuch \x1bhost", FailedAt: now},
		"not configured for 3 days: what it has not got will be dead letters, unless it comes back": {
			Removed: ago(72 * time.Hour)},
		"not configured for 8 days: what it had not got are dead letters; `syncd deadletter list --sink crm` shows 2 dead letters": {
			Removed: ago(8 * 24 * time.Hour), Retired: true, DeadLetters: 2},
	} {
		s.Sink = "crm"
		if got := s.state(now); got != want {
			t.Errorf("%+v is %q, want %q", s, got, want)
		}
	}
}
