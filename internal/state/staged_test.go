package state_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"syncd/internal/state"
)

// A part of a staged walk is committed in order, by time, rank and id, in pieces that
// survive a crash, and its cursor takes effect with the last one; the run goes on.
func TestStagedPart(t *testing.T) {
	for name, fault := range breakings {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			ranked := func(id string, minute int, rank uint64) state.Item {
				it := question(id, minute, "a")
				it.Rank = rank
				return it
			}
			page := func(n int, final, more bool, items ...state.Item) {
				p := pageOf(f.DB, items...)
				p.Staged, p.Final, p.More, p.Read, p.Cursor = true, final, more, len(items), fmt.Appendf(nil, "page %d", n)
				commit(t, f.DB, p)
			}
			pieces := func() {
				t.Helper()
				before := cursor(t, f.DB)
				for done, broken := false, false; !done; {
					p := pageOf(f.DB)
					p.Done, p.Walked, p.Began = true, true, day
					if !broken {
						f.fault = fault
					}
					var err error
					_, done, err = f.DB.CommitStaged(p, 2)
					f.fault = nil
					if broken = !broken; broken {
						if !errors.Is(err, errBroken) {
							t.Fatal(err)
						}
						f.reopen()
						checkState(t, f.DB)
						waits, _, err := f.DB.HasStaged(questions, "news")
						if now := cursor(t, f.DB); err != nil || waits == (now != before) {
							t.Fatalf("waits: %t, cursor %q, before %q: %v", waits, now, before, err)
						}
						continue
					}
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			if _, err := f.DB.OpenStream(questions, &time.Time{}, day); err != nil {
				t.Fatal(err)
			}
			page(1, false, true, ranked("d", 2, 0), ranked("b", 1, 9))
			page(2, true, true, ranked("c", 1, 10), ranked("e", 3, 0), ranked("a", 1, 9))
			if waits, ends, err := f.DB.HasStaged(questions, "news"); !waits || ends || err != nil || cursor(t, f.DB) != "page 1" {
				t.Error(waits, ends, err, cursor(t, f.DB))
			}
			pieces()
			s, err := f.DB.OpenStream(questions, nil, day)
			if w := s.Walks["news"]; err != nil || string(w.Cursor) != "page 2" || w.Read != 5 || !w.Done.IsZero() || s.Walked {
				t.Errorf("after a part: %+v, walked: %t, %v", w, s.Walked, err)
			}
			page(3, true, false, ranked("f", 0, 0))
			if waits, ends, err := f.DB.HasStaged(questions, "news"); !waits || !ends || err != nil {
				t.Error(waits, ends, err)
			}
			pieces()
			s, err = f.DB.OpenStream(questions, nil, day)
			if w := s.Walks["news"]; err != nil || string(w.Cursor) != "page 3" || w.Read != 0 || !w.Began.Equal(day) || !s.Walked {
				t.Errorf("at the end: %+v, walked: %t, %v", w, s.Walked, err)
			}
			var order string
			for _, e := range events(t, f.DB) {
				order += e.Subject[len("question/"):]
			}
			if order != "abcdef" {
				t.Errorf("in the order %s", order)
			}
		})
	}
}
