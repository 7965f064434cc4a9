package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"

	"syncd/internal/config"
	"syncd/internal/state"
)

// Contract G6: what is a dead letter the operator can list, retry and drop, through the
// running daemon.
func TestDeadLettersThroughTheDaemon(t *testing.T) {
	t.Parallel()
	s := newStocked(t, "")
	logged := s.stock(t, "shop-a", 4)
	s.bury(t, logged[0], logged[2], logged[3])
	s.daemon(t)

	s.expect(t, 0, "`syncd deadletter list --sink crm` shows 3 dead letters", "status")
	st, _ := s.status(t)
	if got := st.Sinks[1]; got.Sink != "crm" || got.DeadLetters != 3 {
		t.Errorf("status says %+v", got)
	}
	out := s.expect(t, 0, "", "deadletter", "list", "--sink", "crm")
	if got := lines(out); len(got) != 4 {
		t.Errorf("a table of %d lines, want a header and 3:\n%s", len(got), out)
	}
	for _, want := range []string{logged[0].ID, logged[2].ID, "wildberries.question.created", " 5 ", " 400 ", "refused", "no such customer"} {
		if !strings.Contains(out, want) {
			t.Errorf("the list does not show %q:\n%s", want, out)
		}
	}
	if strings.ContainsFunc(out, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
		t.Errorf("a stranger's text reaches the terminal: %q", out)
	}
	if out := s.expect(t, 0, logged[2].ID, "deadletter", "list", "--sink", "crm", "--id", logged[2].ID); len(lines(out)) != 2 {
		t.Errorf("the list of one is\n%s", out)
	}
	var listed []struct {
		ID      string          `json:"id"`
		Subject string          `json:"subject"`
		Status  int             `json:"last_status"`
		Event   json.RawMessage `json:"event"`
	}
	if err := json.Unmarshal([]byte(s.expect(t, 0, "", "deadletter", "list", "--sink", "crm", "--json")), &listed); err != nil {
		t.Fatal(err)
	}
	if len(listed) != 3 || listed[1].ID != logged[2].ID || listed[1].Status != 400 || listed[1].Subject != "question/q3" || string(listed[1].Event) != string(logged[2].JSON) {
		t.Errorf("as JSON the list is %+v", listed)
	}

	// The sink is idle: that the letter arrives at all means that it was woken.
	s.expect(t, 0, "sink crm: 1 dead letter queued to be sent once more", "deadletter", "retry", "--sink", "crm", "--id", logged[2].ID)
	s.until(t, func() bool { return len(s.receiver.all()) == 1 })
	if got := s.receiver.all()[0]; got.id != logged[2].ID || !got.retried || got.replayed || got.body != string(logged[2].JSON) {
		t.Errorf("the receiver got %+v", got)
	}
	s.until(t, func() bool { _, out, _ := s.syncd("deadletter", "list", "--sink", "crm"); return len(lines(out)) == 3 })
	s.expect(t, 1, "no dead letter", "deadletter", "retry", "--sink", "crm", "--id", logged[2].ID)
	s.expect(t, 0, "sink crm: 1 dead letter dropped", "deadletter", "drop", "--sink", "crm", "--id", logged[0].ID)
	s.expect(t, 0, "sink crm: 1 dead letter dropped", "deadletter", "drop", "--sink", "crm", "--all")
	s.expect(t, 1, "has no dead letters", "deadletter", "drop", "--sink", "crm", "--all")
	s.expect(t, 1, "has no dead letters", "deadletter", "retry", "--sink", "crm", "--all")
	s.expect(t, 0, "no such dead letters", "deadletter", "list", "--sink", "crm")
	if out := s.expect(t, 0, "", "deadletter", "list", "--sink", "crm", "--json"); out != "[]\n" {
		t.Errorf("an empty list is %q", out)
	}

	s.expect(t, 1, `there is no sink "crn"; there are: archive, crm`, "deadletter", "list", "--sink", "crn")
	s.expect(t, 1, `there is no sink "crn"; there are: archive, crm`, "deadletter", "drop", "--sink", "crn", "--all")
	s.expect(t, 1, "retry is for webhooks only", "deadletter", "retry", "--sink", "archive", "--all")
	s.expect(t, 1, "sink archive is of type file, which gives no event up", "deadletter", "list", "--sink", "archive")
	s.expect(t, 1, "which gives no event up", "deadletter", "list", "--sink", "archive", "--json")
}

// On the closed file a retry is queued for the next daemon.
func TestDeadLettersOfTheClosedFile(t *testing.T) {
	t.Parallel()
	s := newStocked(t, "")
	logged := s.stock(t, "shop-a", 3)
	s.bury(t, logged...)
	s.expect(t, 0, logged[1].ID, "deadletter", "list", "--sink", "crm")
	s.expect(t, 0, "sink crm: 1 dead letter dropped", "deadletter", "drop", "--sink", "crm", "--id", logged[0].ID)
	s.expect(t, 0, "sink crm: 2 dead letters queued; the next daemon sends them", "deadletter", "retry", "--sink", "crm", "--all")
	for _, l := range s.letters(t) {
		if !l.Retrying {
			t.Errorf("%s is not queued", l.Event.ID)
		}
	}
	s.expect(t, 1, "being retried already", "deadletter", "retry", "--sink", "crm", "--all")
	s.expect(t, 0, "being retried", "deadletter", "list", "--sink", "crm")
	s.expect(t, 1, "no dead letter", "deadletter", "drop", "--sink", "crm", "--id", logged[0].ID)
	s.expect(t, 1, `there is no sink "crn"`, "deadletter", "list", "--sink", "crn")

	// A file that was away for too long has some all the same.
	s.expect(t, 1, "which gives no event up", "deadletter", "list", "--sink", "archive")
	s.in(t, func(db *state.DB) error {
		_, err := db.OpenSink("archive", "file", true, time.Now())
		return errors.Join(err, db.MarkSinks([]string{"crm"}, time.Now()))
	})
	s.in(t, func(db *state.DB) error {
		_, err := db.RetireSink(t.Context(), "archive", nil, time.Now())
		return err
	})
	s.expect(t, 0, "sink removed", "deadletter", "list", "--sink", "archive")
	s.daemon(t)
	s.until(t, func() bool { return len(s.receiver.all()) == 2 })
}

// There may be more dead letters than memory has room for: they come in pages, and are
// one table and one array all the same.
func TestManyDeadLetters(t *testing.T) {
	t.Parallel()
	const n = 2*lettersAtOnce + 7
	s := newStocked(t, "")
	logged := s.stock(t, "shop-a", n)
	s.bury(t, logged...)
	s.in(t, func(db *state.DB) error {
		k := &desk{db: db, cfg: &config.Config{}}
		total := 0
		for in := (listArgs{Sink: "crm"}); ; {
			page, err := k.letters(t.Context(), in)
			if err != nil {
				return err
			}
			if total += len(page.Letters); len(page.Letters) > lettersAtOnce {
				return fmt.Errorf("a page of %d", len(page.Letters))
			}
			if in.After = page.Next; page.Next == 0 {
				break
			}
		}
		if total != n {
			return fmt.Errorf("%d of %d", total, n)
		}
		return nil
	})
	check := func() {
		t.Helper()
		out := s.expect(t, 0, "", "deadletter", "list", "--sink", "crm")
		if got := lines(out); len(got) != n+1 || strings.Count(out, "EVENT") != 1 || !strings.HasPrefix(got[n], logged[n-1].ID) {
			t.Errorf("%d lines, %d headers, the last is %s", len(got), strings.Count(out, "EVENT"), got[len(got)-1])
		}
		var listed []deadLetterJSON
		if err := json.Unmarshal([]byte(s.expect(t, 0, "", "deadletter", "list", "--sink", "crm", "--json")), &listed); err != nil || len(listed) != n {
			t.Errorf("an array of %d, %v", len(listed), err)
		}
	}
	check()
	s.daemon(t)
	check()
	s.expect(t, 0, fmt.Sprintf("%d dead letters dropped", n), "deadletter", "drop", "--sink", "crm", "--all")
}

// deadLetterJSON is what a script reads of the list.
type deadLetterJSON struct {
	ID    string          `json:"id"`
	Event json.RawMessage `json:"event"`
}
