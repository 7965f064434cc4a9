package state_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"syncd/internal/event"
	"syncd/internal/state"
)

// What goes in many transactions has more to do than one of them does.
const (
	cutDead   = 1100 // the first events: dead letters
	cutQueued = 1150 // those after them wait in the queue
	cutEvents = 1200 // the last ones are behind the position
)

func cutSubject(seq int) string { return fmt.Sprintf("s%02d", seq%25) }

func cutID(seq int) string {
	id := fmt.Sprintf("%s-%d", cutSubject(seq), seq)
	return event.VersionEventID("shop-a", "questions", id, 1, question(id, 1, "a").Fingerprint)
}

// prepareCut makes the file of these events.
func prepareCut(t *testing.T) *file {
	t.Helper()
	f := open(t)
	f.NoSync()
	var subjects []string
	s := state.Settlement{Position: cutQueued}
	for seq := 1; seq <= cutEvents; seq++ {
		subjects = append(subjects, cutSubject(seq))
		one := state.Failed{Seq: uint64(seq), Key: "shop-a/" + cutSubject(seq), Attempts: 1, First: day, Last: day, Next: day, Error: "no", Reason: state.ReasonRefused}
		if seq <= cutDead {
			s.Dead = append(s.Dead, one)
		} else if seq <= cutQueued {
			s.Failed = append(s.Failed, one)
		}
	}
	logOf(t, f.DB, subjects...)
	_, err := f.OpenSink("crm", "webhook", true, day)
	if err := errors.Join(err, f.Settle("crm", day, s)); err != nil {
		t.Fatal(err)
	}
	return f
}

// whereabouts says of each event where it is for the sink.
func whereabouts(t *testing.T, f *file) []string {
	t.Helper()
	checkState(t, f.DB)
	at := make([]string, cutEvents)
	for after := uint64(0); ; {
		letters, err := f.DeadLetters("crm", after, 500)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range letters {
			after = l.Event.Sequence
			if at[after-1] += " dead"; l.Retrying {
				at[after-1] += " retried"
			}
		}
		if len(letters) == 0 {
			break
		}
	}
	waiting, position, holds, err := f.Kept("crm")
	if err != nil {
		t.Fatal(err)
	}
	for _, seq := range waiting {
		at[seq-1] += " waits"
	}
	for i := position; holds && i < cutEvents; i++ {
		at[i] += " behind"
	}
	return at
}

// runs is a list in short.
func runs(at []string) string {
	var out strings.Builder
	for i, where := range at {
		if i == 0 || where != at[i-1] {
			fmt.Fprintf(&out, "%d%s; ", i+1, where)
		}
	}
	return out.String()
}

// The process may die between any two transactions of a command, and in a commit
// before or after it takes effect. Each event is where it was or where it is to be,
// the state is whole, and the same call brings the rest there.
func TestCuts(t *testing.T) {
	ctx := context.Background()
	recorded := day.Add(24 * time.Hour)
	retry := func(f *file, id string, now time.Time) error {
		_, err := f.RetryDeadLetters(ctx, "crm", id, now)
		return err
	}
	drop := func(f *file) error {
		_, err := f.DropDeadLetters(ctx, "crm", "")
		return err
	}
	replay := func(f *file, after uint64) error {
		_, err := f.QueueReplay(ctx, "crm", func(h event.Header) bool { return h.Sequence > after }, recorded, recorded.Add(time.Millisecond))
		return err
	}
	nothing := func(*file) error { return nil }
	for _, test := range []struct {
		name        string
		prepare, do func(f *file) error
		want        string
	}{
		{"retry", nothing, func(f *file) error { return retry(f, "", day) }, "1 dead retried; 1101 waits; 1151 behind; "},
		{"drop", nothing, drop, "1; 1101 waits; 1151 behind; "},
		{"drop what is retried", func(f *file) error { return retry(f, "", day) }, drop, "1; 1101 waits; 1151 behind; "},
		{"expire", func(f *file) error { return retry(f, cutID(7), day) }, func(f *file) error {
			_, err := f.ExpireDeadLetters(ctx, day.Add(time.Millisecond))
			return err
		}, "1; 7 dead retried; 8; 1101 waits; 1151 behind; "},
		{"replay", nothing, func(f *file) error { return replay(f, 10) }, "1 dead; 11 dead waits; 1101 waits; 1151 behind; "},
		{"retire", func(f *file) error { return errors.Join(replay(f, 10), f.MarkSinks(nil, day)) }, func(f *file) error {
			_, err := f.RetireSink(ctx, "crm", nil, day)
			return err
		}, "1 dead; "},
		{"pull", func(f *file) error { return retry(f, "", day.AddDate(9, 0, 0)) }, func(f *file) error {
			return f.PullRetries("crm", day, day.Add(time.Hour))
		}, "1 dead retried; 1101 waits; 1151 behind; "},
		{"forget", func(f *file) error { return retry(f, "", day) }, func(f *file) error {
			if err := f.ForgetSink(ctx, "crm"); !errors.Is(err, state.ErrUnknown) {
				return err
			}
			return f.Sweep(ctx) // it was forgotten before the cut
		}, "1; "},
	} {
		t.Run(test.name, func(t *testing.T) {
			prepared := prepareCut(t)
			if err := test.prepare(prepared); err != nil {
				t.Fatal(err)
			}
			before := whereabouts(t, prepared)
			prepared.Close()
			done := map[string]bool{}
			for cut := 0; len(done) < len(breakings); cut++ {
				for how, breaking := range breakings {
					if done[how] {
						continue
					}
					f := openAt(t, plainCopy(t, prepared.cfg.Path))
					f.NoSync()
					n := 0
					f.fault = func(commit func() error) error {
						if n++; n <= cut {
							return f.counted(commit)
						}
						return breaking(func() error { return f.counted(commit) })
					}
					err := test.do(f)
					f.fault = nil
					f.reopen()
					f.NoSync()
					at := whereabouts(t, f)
					for i := range at {
						if err != nil && at[i] != before[i] && at[i] != runsAt(test.want, i+1) {
							t.Fatalf("cut at %d, %s: event %d is%s, and was%s", cut, how, i+1, at[i], before[i])
						}
					}
					if done[how] = err == nil; err == nil && f.n < 2 {
						t.Fatalf("only %d transactions, so nothing was cut", f.n)
					}
					if err != nil && !errors.Is(err, errBroken) {
						t.Fatalf("cut at %d, %s: %v", cut, how, err)
					}
					if err != nil {
						if err := test.do(f); err != nil {
							t.Fatalf("cut at %d, %s: and then %v", cut, how, err)
						}
						at = whereabouts(t, f)
					}
					if runs(at) != test.want {
						t.Fatalf("cut at %d, %s: events are %s\nwant %s", cut, how, runs(at), test.want)
					}
					if left, err := f.Forgotten(); left || err != nil {
						t.Fatalf("cut at %d, %s: something is forgotten and still there, %v", cut, how, err)
					}
					took := f.n
					if err := test.do(f); err != nil || f.n != took {
						t.Fatalf("cut at %d, %s: it was done, and did something again: %d commits, %v", cut, how, f.n-took, err)
					}
					f.Close()
				}
			}
		})
	}
}

// runsAt is where an event is by what runs says.
func runsAt(list string, seq int) string {
	where := ""
	for part := range strings.SplitSeq(strings.TrimSuffix(list, "; "), "; ") {
		from, at := 0, ""
		if i := strings.IndexByte(part, ' '); i >= 0 {
			part, at = part[:i], part[i:]
		}
		if _, err := fmt.Sscan(part, &from); err != nil {
			panic(err)
		}
		if from <= seq {
			where = at
		}
	}
	return where
}
