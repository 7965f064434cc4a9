package poller_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/poller"
	"syncd/internal/sources"
	"syncd/internal/state"
)

// Contract §3: a backfill emits `created` for items since T that were never in an
// event, `updated` for changes, and nothing else; asked for again, nothing.
func TestBackfillEmits(t *testing.T) {
	for _, immutable := range []bool{false, true} {
		t.Run(fmt.Sprintf("immutable=%t", immutable), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, f := newRig(t), newFake(t, "older", "silent", "none", "known", "changed")
				if !immutable {
					f.mutable()
				}
				f.change(`,"state":1`, "changed", "silent")
				f.items[0].Created = time.Now().Add(-10 * day)
				f.items[1].Created = time.Now().Add(-2 * day)
				f.items[3].Created = time.Now().Add(time.Second)
				f.items[4].Created = time.Now().Add(time.Second)
				s := swept("questions", f, "@every 15s", 0, 0)
				s.Start = nil
				p, stop := r.run(s)
				time.Sleep(time.Minute)
				r.wantKinds("created known", "created changed")
				if !immutable {
					f.change(`,"state":2`, "changed")
				}
				want := []string{"created known", "created changed", "created silent backfill", "created none backfill"}
				if !immutable {
					want = append(want, "updated changed backfill")
				}
				for range 2 {
					streams, err := p.Backfill("shop-a", "", time.Now().Add(-5*day))
					if err != nil || !slices.Equal(streams, []state.StreamID{questions}) {
						t.Fatal(streams, err)
					}
					time.Sleep(time.Minute)
					r.wantKinds(want...)
				}
				// What was left out was not recorded, and a later request has it.
				if _, err := p.Backfill("shop-a", "questions", time.Time{}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				stop()
				r.wantKinds(append(want, "created older backfill")...)
				r.wantLogged("history has been read", 3)
			})
		})
	}
}

// History that is asked for before the first walk is complete takes nothing from
// it: what is new is news, and what is old was emitted once.
func TestBackfillBesideFirstWalk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Second)
		r, f := newRig(t), newFake(t, "old-1", "old-2", "old-3", "old-4", "none-1", "none-2")
		f.took = time.Minute
		s := swept("questions", f, "@every 15s", 0, 0)
		s.Start = nil
		p, stop := r.run(s)
		if _, err := p.Backfill("shop-a", "questions", time.Time{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		f.add("none-3", "new")
		time.Sleep(10 * time.Minute)
		stop()
		got := r.emitted()
		slices.Sort(got)
		want := []string{"new", "none-1 backfill", "none-2 backfill", "none-3", "old-1 backfill", "old-2 backfill", "old-3 backfill", "old-4 backfill"}
		if !slices.Equal(got, want) {
			t.Errorf("emitted %q", got)
		}
	})
}

// What comes after history was asked for is no history, even where the backfill
// sees it first: it is emitted by News, as news.
func TestBackfillLeavesNewsAlone(t *testing.T) {
	for _, skew := range []time.Duration{0, 2 * time.Hour, -2 * time.Hour} { // of the marketplace's clock
		synctest.Test(t, func(t *testing.T) {
			r, f := newRig(t), newFake(t, "a", "b", "c")
			for i := range f.items {
				f.items[i].Created = time.Now().Add(skew)
			}
			f.page = func(_ sources.Query, p *sources.Page) { p.Date = time.Now().Add(skew).Truncate(time.Second) }
			time.Sleep(time.Hour)
			s := swept("questions", f, "@every 1h", 0, 0)
			begin := time.Now()
			s.Start = &begin
			if skew < 0 { // or all of it is older than start
				later := begin.Add(3 * skew)
				s.Start = &later
			}
			p, stop := r.run(s)
			time.Sleep(time.Second)
			f.set(func() {
				f.wait = func(q sources.Query) time.Duration {
					if q.Walk == sources.Backfill {
						return time.Minute
					}
					return 0
				}
			})
			if _, err := p.Backfill("shop-a", "questions", time.Time{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Second)
			f.add("new")
			f.set(func() { f.items[3].Created = time.Now().Add(skew) })
			time.Sleep(10 * time.Minute)
			if f.pages(sources.Backfill) != 2 {
				t.Errorf("%d pages of history", f.pages(sources.Backfill))
			}
			time.Sleep(2 * time.Hour)
			stop()
			got := r.emitted()
			if n := slices.Index(got, "new"); n != 3 {
				t.Errorf("skew %s: emitted %q", skew, got)
			}
		})
	}
}

// A backfill survives restarts, and goes on where it was.
func TestBackfillIsResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, manyIDs(100)...)
		for i := range f.items {
			f.items[i].Created = time.Date(1999, 1, 1, 0, 0, i, 0, time.UTC)
		}
		s := swept("questions", f, "@every 15s", 0, 0)
		s.Start = nil
		r.once(t.Context(), s)
		if _, err := r.new(s).Backfill("shop-a", "questions", time.Time{}); err != nil {
			t.Fatal(err)
		}
		f.took = time.Minute
		for range 10 {
			r.reopen()
			stop := r.start(s)
			time.Sleep(7*time.Minute + 10*time.Second)
			stop()
		}
		if n := f.pages(sources.Backfill); n != 50 {
			t.Errorf("%d pages of a history of 50", n)
		}
		if got := r.emitted(); len(got) != 100 || len(slices.Compact(slices.Sorted(slices.Values(got)))) != 100 {
			t.Errorf("%d events", len(got))
		}
	})
}

// A request that reaches further back replaces the one that is being read: it
// begins anew, and a page of the old one that is on its way ends nothing.
func TestBackfillIsExtended(t *testing.T) {
	for _, after := range []time.Duration{30 * time.Second, 90 * time.Second, 150 * time.Second} { // in the first page, a later one, the last
		synctest.Test(t, func(t *testing.T) {
			r, f := newRig(t), newFake(t, "old-1", "old-2", "silent-1", "silent-2", "silent-3", "silent-4")
			for i := 2; i < 6; i++ {
				f.items[i].Created = time.Now().Add(-time.Hour)
			}
			time.Sleep(time.Second)
			// The source shows what is as old as was asked for, and nothing older.
			f.page = func(q sources.Query, p *sources.Page) {
				if q.Walk == sources.Backfill && !q.Since.IsZero() {
					p.Items = slices.DeleteFunc(p.Items, func(it sources.Item) bool { return it.Created.Before(q.Since) })
				}
			}
			s := swept("questions", f, "@every 15s", 0, 0)
			s.Start = nil
			p, stop := r.run(s)
			time.Sleep(time.Minute)
			f.set(func() {
				f.wait = func(q sources.Query) time.Duration {
					if q.Walk == sources.Backfill {
						return time.Minute
					}
					return 0
				}
			})
			ask := func(since time.Time) {
				if _, err := p.Backfill("shop-a", "questions", since); err != nil {
					t.Fatal(err)
				}
			}
			ask(time.Now().Add(-2 * time.Hour))
			time.Sleep(after)
			ask(time.Now().Add(-time.Hour)) // reaches less far back: nothing to do
			ask(time.Time{})
			time.Sleep(10 * time.Minute)
			stop()
			got := r.emitted()
			slices.Sort(got)
			want := []string{"old-1 backfill", "old-2 backfill", "silent-1 backfill", "silent-2 backfill", "silent-3 backfill", "silent-4 backfill"}
			if !slices.Equal(got, want) {
				t.Errorf("after %s: emitted %q", after, got)
			}
			if known, err := r.db.OpenStream(questions, nil, time.Now()); err != nil || known.Backfill != nil {
				t.Errorf("%+v %v", known, err)
			}
		})
	}
}

// RunOnly reads what the commands ask for on the state file of a daemon that does
// not run, and nothing else.
func TestRunOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f, other := newRig(t), newFake(t, "old-1", "a"), newFake(t, "b")
		time.Sleep(time.Second)
		s, o := swept("questions", f, "@every 15s", quarter, day), stream("chats", other, "@every 15s")
		start := time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC)
		s.Start = &start
		only := func(walk sources.Walk, stream string) []poller.Left {
			t.Helper()
			left, err := r.new(s, o).RunOnly(t.Context(), walk, "shop-a", stream)
			if err != nil {
				t.Fatal(err)
			}
			return left
		}
		if left := only(sources.News, "questions"); len(left) > 0 || len(other.requests()) > 0 {
			t.Fatal(left, other.requests())
		}
		r.wantKinds("created a backfill")
		time.Sleep(2 * day)
		if left := only(sources.News, ""); len(left) > 0 || len(other.requests()) == 0 || f.pages(sources.Sweep) > 0 {
			t.Fatal(left)
		}
		if left := only(sources.Backfill, "questions"); len(left) > 0 || f.pages(sources.Backfill) > 0 {
			t.Fatal("nobody asked for history", left)
		}
		if _, err := r.new(s, o).Backfill("shop-a", "", time.Time{}); err != nil {
			t.Fatal(err)
		}
		news := f.pages(sources.News)
		if left := only(sources.Backfill, "questions"); len(left) > 0 {
			t.Fatal(left)
		}
		r.wantKinds("created a backfill", "created b backfill", "created old-1 backfill")
		if f.pages(sources.News) != news || f.pages(sources.Sweep) > 0 {
			t.Error("more was read than was asked for")
		}
		f.fail = func(int) error { return failing(sources.BudgetWait, sources.ScopeRequest, 0) }
		if left := only(sources.News, "questions"); len(left) != 1 || left[0].Walk != sources.News {
			t.Errorf("%+v", left)
		}
		if _, err := r.new(s).RunOnly(t.Context(), sources.News, "shop-b", ""); err == nil || !strings.Contains(err.Error(), "there are: shop-a") {
			t.Error(err)
		}
	})
}

// What cannot be read back is said to whom asks.
func TestBackfillOfNothing(t *testing.T) {
	r := newRig(t)
	p := r.new(stream("chats", newFake(t), "@every 15s"), swept("questions", newFake(t), "@every 15s", 0, 0))
	for _, test := range []struct{ account, stream, want string }{
		{"shop-b", "", `no account "shop-b" is polled; there are: shop-a`},
		{"shop-a", "claims", `account shop-a polls no stream "claims"; it polls: chats, questions`},
		{"shop-a", "chats", "the history of chats of account shop-a cannot be read"},
	} {
		if _, err := p.Backfill(test.account, test.stream, time.Time{}); err == nil || err.Error() != test.want {
			t.Errorf("%s/%s: %v", test.account, test.stream, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Run(ctx); err != nil {
		t.Error(err)
	}
}

// A staged history whose last items cannot be committed at first ends with them:
// nothing more is read for a request that is answered.
func TestStagedBackfillEnds(t *testing.T) {
	for _, effect := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r, f := newRig(t), newFake(t, "old-1", "old-2", "old-3")
			f.staged = true
			s := swept("questions", f, "@every 1h", 0, 0)
			s.Start = nil
			time.Sleep(time.Second)
			p, stop := r.run(s)
			time.Sleep(time.Minute)
			broken, first := true, r.committed()
			r.mu.Lock()
			r.fault = func(n int, commit func() error) error {
				if broken && n == first+3 { // asked, and two pages
					broken = false
					if effect {
						if err := commit(); err != nil {
							return err
						}
					}
					return errBroken
				}
				return commit()
			}
			r.mu.Unlock()
			if _, err := p.Backfill("shop-a", "questions", time.Time{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Minute)
			stop()
			if n := f.pages(sources.Backfill); n != 2 {
				t.Errorf("%d pages of a history of two", n)
			}
			got := r.emitted()
			slices.Sort(got)
			if !slices.Equal(got, []string{"old-1 backfill", "old-2 backfill", "old-3 backfill"}) || broken {
				t.Errorf("emitted %q", got)
			}
		})
	}
}
