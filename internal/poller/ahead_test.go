package poller_test

import (
	"context"
	"encoding/json"
	"slices"
	"sync/atomic"
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

// Where nothing can be committed, each try costs one request and not two.
func TestNothingIsFetchedAheadOnAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, manyIDs(20)...)
		f.took = time.Second
		var full atomic.Bool
		r.fault = func(_ int, commit func() error) error {
			if full.Load() {
				return errBroken
			}
			return commit()
		}
		stop := r.start(stream("questions", f, "@every 1h"))
		full.Store(true)
		time.Sleep(6 * time.Hour)
		full.Store(false)
		behind := make(map[int]int)
		for _, at := range f.at() {
			behind[at]++
		}
		if behind[0] < 20 || behind[2] > 1 || len(behind) > 2 {
			t.Errorf("requests by what was read before: %v", behind)
		}
		time.Sleep(2 * time.Hour)
		stop()
		if n := len(r.emitted()); n != 20 {
			t.Errorf("%d events of 20 items when there was room again", n)
		}
	})
}

// G8: a large page that is let go of gives its turn back, and none is fetched ahead
// of a page that is large itself.
func TestALargePageAheadGivesItsTurnBack(t *testing.T) {
	for _, all := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r, f := newRig(t), newFake(t, manyIDs(40)...)
			f.page = func(q sources.Query, p *sources.Page) {
				var c fakeCursor
				_ = json.Unmarshal(q.Cursor, &c) // the first page has none
				if c.At%4 == 0 && !all {
					return
				}
				f.mu.Unlock()
				defer f.mu.Lock()
				ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
				defer cancel()
				if err := q.Large(ctx); err != nil {
					t.Errorf("no turn: %v", err)
				}
			}
			lost := 0
			r.fault = func(n int, commit func() error) error {
				if n >= 2 && n%2 == 0 && lost < 8 {
					lost++
					return errBroken
				}
				return commit()
			}
			f.took = time.Second
			stop := r.start(stream("questions", f, "@every 1h"))
			r.slowDown(2 * time.Second)
			time.Sleep(12 * time.Hour)
			stop()
			if n := len(r.emitted()); n != 40 || lost != 8 {
				t.Errorf("%d events of 40 items, %d commits lost", n, lost)
			}
			again := make(map[int]bool)
			for i, at := range f.at() {
				if all && i > 0 && !again[at] && f.requests()[i].Sub(f.requests()[i-1]) < 3*time.Second {
					t.Errorf("the page behind %d items was fetched while the one before it, a large one, was committed", at)
				}
				again[at] = true
			}
		})
	}
}

// A token is taken back while a page is committed: the next one, which was fetched
// before that, does not say that the token is good.
func TestAPageAheadDoesNotUnblock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, a, b := newRig(t), newFake(t, manyIDs(8)...), newFake(t, "b1")
		a.took, b.took = time.Second, 0
		gone := time.Now().Add(time.Hour)
		refuse := func(sources.Query) error {
			if time.Now().After(gone) {
				return failing(sources.Unauthorized, sources.ScopeGroup, 401)
			}
			return nil
		}
		a.failAt, b.failAt = refuse, refuse
		often := stream("b", b, "@every 20s")
		stop := r.start(often)
		time.Sleep(50 * time.Minute)
		stop()
		before := len(b.requests())
		gone = time.Now().Add(10 * time.Second)
		stop = r.start(stream("a", a, "@every 1h"), often)
		r.slowDown(time.Minute)
		time.Sleep(20 * time.Minute)
		stop()
		refused := 0
		for _, at := range b.requests()[before:] {
			if at.After(gone) {
				refused++
			}
		}
		if refused > 1 {
			t.Errorf("the other stream was refused %d times within 20 minutes", refused)
		}
	})
}
