package poller_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
)

// at returns how many items were read before each request of News.
func (f *fake) at() (out []int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, q := range f.calls {
		var c fakeCursor
		if q.Cursor != nil {
			if err := json.Unmarshal(q.Cursor, &c); err != nil {
				f.t.Error(err)
			}
		}
		if q.Walk == sources.News {
			out = append(out, c.At)
		}
	}
	return out
}

func (r *rig) slowDown(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.slow = d
}

// The marketplace answers while the disk is at work: a long walk takes as long as
// the slower of the two.
func TestPagesAreFetchedAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, manyIDs(20)...)
		s := stream("questions", f, "@every 1h")
		f.took, r.slow = time.Second, time.Second
		if left := r.once(t.Context(), s); len(left) > 0 {
			t.Fatal(left)
		}
		sent := f.requests()
		if took := sent[9].Sub(sent[0]); len(sent) != 10 || took != 9*time.Second {
			t.Errorf("%d requests, the last one after %s, want 10 in 9 s", len(sent), took)
		}
		if n := len(r.emitted()); n != 20 {
			t.Errorf("%d events of 20 items", n)
		}
	})
}

// `start: now` is corrected by the marketplace's clock with the first page, and the
// next one is asked for by that: nothing is spent on a request by another.
func TestNothingIsFetchedAheadOfTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, manyIDs(6)...)
		s := stream("questions", f, "@every 1h")
		s.Start = nil
		f.page = func(q sources.Query, p *sources.Page) { p.Date = time.Now().Add(-time.Hour) }
		f.took, r.slow = time.Second, time.Second
		if left := r.once(t.Context(), s); len(left) > 0 {
			t.Fatal(left)
		}
		if at := f.at(); !slices.Equal(at, []int{0, 2, 4}) {
			t.Errorf("requests behind %v items, want each page once", at)
		}
		for i, q := range f.calls[1:] {
			if want := f.calls[0].Since.Add(-time.Hour); q.Since.Sub(want).Abs() > time.Second {
				t.Errorf("request %d since %s, want %s", i+2, q.Since, want)
			}
		}
	})
}

// A page that was fetched ahead of one whose commit fails is not committed: its
// cursor would leave that one out. Both are fetched again, and in their order.
func TestAPageAheadOfALostOneIsLetGo(t *testing.T) {
	for _, took := range []time.Duration{time.Second, 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			r, f := newRig(t), newFake(t, manyIDs(8)...)
			f.took = took
			lost := false
			r.fault = func(_ int, commit func() error) error {
				if !lost && len(f.at()) == 3 { // the second page, while the third is fetched
					lost = true
					return errBroken
				}
				return commit()
			}
			stop := r.start(stream("questions", f, "@every 1h"))
			r.slowDown(2 * time.Second)
			time.Sleep(10 * time.Minute)
			stop()
			if at := f.at(); !lost || !slices.Equal(at[:6], []int{0, 2, 4, 2, 4, 6}) {
				t.Errorf("requests behind %v items", at)
			}
			if got := r.emitted(); len(got) != 8 || !slices.IsSorted(got) {
				t.Errorf("emitted %q", got)
			}
		})
	}
}

// What is on its way when syncd stops was paid for: it is committed.
func TestAPageAheadIsCommittedAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, manyIDs(20)...)
		f.took = 3 * time.Second
		stop := r.start(stream("questions", f, "@every 1h"))
		r.slowDown(2 * time.Second)
		for len(f.at()) < 5 { // the fifth is on its way, and the fourth is committed
			time.Sleep(time.Second)
		}
		stop()
		sent := len(f.at())
		if got := len(r.emitted()); sent != 5 || got != 2*sent {
			t.Errorf("%d events of %d pages of two", got, sent)
		}
		if left := r.once(context.Background(), stream("questions", f, "@every 1h")); len(left) > 0 {
			t.Fatal(left)
		}
		if at := f.at()[sent:]; at[0] != 2*sent || len(r.emitted()) != 20 {
			t.Errorf("goes on behind %v items, %d events", at, len(r.emitted()))
		}
	})
}
