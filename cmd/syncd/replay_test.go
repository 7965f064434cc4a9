package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"syncd/internal/state"
)

// Contract §7: a replay sends kept events once more, through today's select, and says
// that it is one.
func TestReplayThroughTheDaemon(t *testing.T) {
	t.Parallel()
	s := newStocked(t, "")
	logged := s.stock(t, "shop-a", 3)
	other := s.stock(t, "shop-b", 1)
	stop := s.daemon(t)
	s.expect(t, 0, "sink crm: 1 event queued to be sent again", "replay", "--sink", "crm", "--since", "1h", "--account", "shop-b", "--stream", "questions")
	s.until(t, func() bool { return len(s.receiver.all()) == 1 })
	if got := s.receiver.all()[0]; got.id != other[0].ID || got.body != string(other[0].JSON) || !got.replayed || got.retried {
		t.Errorf("the receiver got %+v", got)
	}
	recorded := logged[0].Recorded
	s.expect(t, 1, "nothing to do", "replay", "--sink", "crm", "--since", recorded.Add(-time.Hour).Format(time.RFC3339), "--until", recorded.Add(-time.Minute).Format(time.RFC3339))
	s.expect(t, 1, "nothing to do", "replay", "--sink", "crm", "--since", "1h", "--stream", "claims")
	s.expect(t, 1, `there is no stream "question"`, "replay", "--sink", "crm", "--since", "1h", "--stream", "question")
	s.expect(t, 1, `there is no account "shop-c"; there are: shop-a`, "replay", "--sink", "crm", "--since", "1h", "--account", "shop-c")
	s.expect(t, 1, `there is no sink "crn"; there are: archive, crm`, "replay", "--sink", "crn", "--since", "1h")
	s.expect(t, 1, "replay is for webhooks only", "replay", "--sink", "archive", "--since", "1h")
	if got := s.receiver.all(); len(got) != 1 {
		t.Errorf("the receiver got %d events", len(got))
	}
	s.expect(t, 0, "sink crm: 4 events queued", "replay", "--sink", "crm", "--since", "1h")
	s.until(t, func() bool { return len(s.receiver.all()) == 5 })
	stop()
}

// On the closed file the given configuration says what the sink selects.
func TestReplayOnTheClosedFile(t *testing.T) {
	t.Parallel()
	s := newStocked(t, "")
	s.expect(t, 1, "there is no state file", "replay", "--sink", "crm", "--since", "1h")
	s.stock(t, "shop-a", 3)
	s.stock(t, "shop-b", 2)
	raw, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.config, strings.Replace(string(raw), "unsigned: true", `unsigned: true, select: {accounts: ["*-a"]}`, 1))
	s.expect(t, 0, "sink crm: 3 events queued; the next daemon sends them", "replay", "--sink", "crm", "--since", "1h")
	s.expect(t, 1, "nothing to do", "replay", "--sink", "crm", "--since", "1h") // they are on their way
	s.in(t, func(db *state.DB) error {
		n, err := db.Waiting("crm")
		if n != 3 {
			t.Errorf("%d events wait", n)
		}
		return err
	})
	s.daemon(t)
	s.until(t, func() bool { return len(s.receiver.all()) == 3 })
	for _, got := range s.receiver.all() {
		if !got.replayed || !strings.HasPrefix(got.id, "shop-a/") {
			t.Errorf("the receiver got %+v", got)
		}
	}
}

func TestReplayArguments(t *testing.T) {
	now := time.Date(2026, 2, 2, 12, 0, 0, 0, time.UTC)
	for want, in := range map[string]replayArgs{
		"--sink and --since are needed":   {Since: now},
		"--since is in the future":        {Sink: "crm", Since: now.Add(time.Second)},
		"--until is not after --since":    {Sink: "crm", Since: now, Until: now},
		"--sink and --since are needed\n": {Sink: "crm"},
		"":                                {Sink: "crm", Since: now, Until: now.Add(time.Hour)},
	} {
		got := ""
		if err := in.check(now); err != nil {
			got = err.Error()
		}
		if got != strings.TrimSpace(want) {
			t.Errorf("%+v: %q, want %q", in, got, want)
		}
	}
}
