package poller_test

import (
	"context"
	"errors"
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

const (
	quarter = 15 * time.Minute
	day     = 24 * time.Hour
)

var questions = state.StreamID{Account: "shop-a", Stream: "questions"}

func manyIDs(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("q%06d", i)
	}
	return out
}

// Contract G7: each kind of sweep comes in its period, counted from the first
// walk, and sees a change that News does not.
func TestSweepsSeeChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b", "c", "d", "e").mutable()
		stop := r.start(swept("questions", f, "@every 5m", quarter, day))
		time.Sleep(time.Minute)
		if n := f.pages(sources.Sweep) + f.pages(sources.Full); n != 0 {
			t.Errorf("%d pages of sweeps right after the first walk", n)
		}
		f.change(`,"answer":"yes"`, "b") // a key that comes: held back
		time.Sleep(2 * quarter)
		f.change(``, "b")
		time.Sleep(2 * quarter)
		f.set(func() { f.items[2].Body = []byte(`{"id":"other"}`) }) // a value that changes
		time.Sleep(2 * quarter)
		r.wantKinds("created a", "created b", "created c", "created d", "created e", "updated c")
		time.Sleep(3 * day)
		stop()
		if n := len(f.runs(sources.Sweep)); n < 285 || n > 302 {
			t.Errorf("%d sweeps in three days, want about 292", n)
		}
		if n := len(f.runs(sources.Full)); n != 3 {
			t.Errorf("%d full readings in three days", n)
		}
		for i, at := range f.runs(sources.Sweep)[1:] {
			if d := at.Sub(f.runs(sources.Sweep)[i]); d < quarter || d > quarter+5*time.Second {
				t.Errorf("%s between two sweeps", d)
			}
		}
	})
}

// A sweep is due by what the state remembers, whoever reads it: a restart brings
// none forward and delays none.
func TestSweepsAreDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b", "c", "d", "e").mutable()
		s := swept("questions", f, "@every 15s", quarter, day)
		for range 200 { // ten minutes up, two down: 40 hours
			stop := r.start(s)
			time.Sleep(10 * time.Minute)
			stop()
			r.reopen()
			time.Sleep(2 * time.Minute)
		}
		runs := f.runs(sources.Sweep)
		if n := len(runs); n < 130 || n > 160 { // a sweep that comes due while syncd is down comes after it
			t.Errorf("%d sweeps in 40 hours", n)
		}
		for i, at := range runs[1:] {
			if d := at.Sub(runs[i]); d < quarter || d > quarter+4*time.Minute {
				t.Errorf("%s between two sweeps", d)
			}
		}
		if n := len(f.runs(sources.Full)); n != 1 {
			t.Errorf("%d full readings in 40 hours", n)
		}
		time.Sleep(3 * day)
		stop := r.start(s)
		defer stop()
		time.Sleep(2 * time.Minute)
		if got := len(f.runs(sources.Sweep)) - len(runs); got != 1 {
			t.Errorf("%d sweeps after three days of absence", got)
		}
		if n := len(f.runs(sources.Full)); n != 2 {
			t.Errorf("%d full readings after three days of absence", n)
		}
	})
}

// Where two restarts leave time for a page only, sweeps that are always due must not
// keep the full reading from its pages for ever, nor the other way round.
func TestShortLivesStarveNoSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, manyIDs(8)...).mutable()
		s := swept("questions", f, "@every 1h", quarter, day)
		stop := r.start(s)
		time.Sleep(day)
		stop()
		f.set(func() { f.took = 20 * time.Minute })
		sweeps, fulls := len(f.runs(sources.Sweep)), len(f.runs(sources.Full))
		for range 600 {
			r.reopen()
			time.Sleep(2 * time.Minute)
			stop := r.start(s)
			time.Sleep(22 * time.Minute)
			stop()
		}
		if n := len(f.runs(sources.Full)) - fulls; n < 5 {
			t.Errorf("%d full readings in ten days", n)
		}
		if n := len(f.runs(sources.Sweep)) - sweeps; n < 30 {
			t.Errorf("%d sweeps in ten days", n)
		}
	})
}

// No sweep before the first walk has shown everything, however long that takes.
func TestNoSweepBeforeFirstWalk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, manyIDs(100)...)
		f.took = time.Hour
		stop := r.start(swept("questions", f, "@every 15s", quarter, day))
		time.Sleep(49 * time.Hour)
		if n := f.pages(sources.Sweep) + f.pages(sources.Full); n != 0 {
			t.Errorf("%d pages of sweeps during the first walk", n)
		}
		time.Sleep(day)
		stop()
		if f.pages(sources.Sweep) == 0 {
			t.Error("no sweep after the first walk")
		}
	})
}

// Many streams that were first polled together do not sweep together, and each
// keeps to its moment.
func TestSweepsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.large = true
		at := make(map[time.Duration]int)
		var fakes []*fake
		p := func() (stop func()) {
			streams := slices.Collect(func(yield func(poller.Stream) bool) {
				for i := range 60 {
					f := newFake(t, "a")
					f.seller = fmt.Sprint("seller-", i)
					fakes = append(fakes, f)
					s := swept("questions", f, "@every 1m", quarter, day)
					s.ID.Account = fmt.Sprint("shop-", i)
					if !yield(s) {
						return
					}
				}
			})
			return r.start(streams...)
		}
		begin := time.Now()
		stop := p()
		time.Sleep(time.Hour)
		stop()
		for i, f := range fakes {
			runs := f.runs(sources.Sweep)
			if len(runs) == 0 {
				t.Fatalf("stream %d was not swept", i)
			}
			d := runs[0].Sub(begin)
			if d > quarter+5*time.Second || d < quarter*8/10 {
				t.Errorf("the first sweep came after %s", d)
			}
			at[d.Truncate(time.Second)]++
		}
		if len(at) < 30 {
			t.Errorf("the first sweeps of 60 streams came in %d different seconds", len(at))
		}
	})
}

// A budget that is too small for all of it stretches every walk and starves none:
// a sweep takes longer than its period here, and so does a full reading.
func TestSweepsAreStretchedFairly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, manyIDs(40)...)
		begin := time.Now()
		f.wait = func(q sources.Query) time.Duration {
			if q.Walk != sources.News {
				return time.Minute
			}
			return 0
		}
		s := swept("questions", f, "@every 5m", quarter, 2*time.Hour) // 20 minutes of pages each
		p, stop := r.run(s)
		time.Sleep(time.Minute)
		if _, err := p.Backfill("shop-a", "questions", time.Time{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(day)
		stop()
		if n := len(f.runs(sources.News)); n < 280 {
			t.Errorf("%d News runs in a day", n)
		}
		sweeps, fulls := len(f.runs(sources.Sweep)), len(f.runs(sources.Full))
		if sweeps < 30 || fulls < 8 {
			t.Errorf("%d sweeps and %d full readings in a day", sweeps, fulls)
		}
		last := time.Time{}
		for _, q := range f.calls {
			if q.Walk == sources.Backfill {
				last = q.Now
			}
		}
		if n := f.pages(sources.Backfill); n != 20 || last.Sub(begin) > 6*time.Hour {
			t.Errorf("%d pages of history, the last after %s", n, last.Sub(begin))
		}
	})
}

// A page that always fails stops its own walk and no other.
func TestFailingSweepStopsNothingElse(t *testing.T) {
	for _, kind := range []sources.Kind{sources.Rejected, sources.Temporary} {
		synctest.Test(t, func(t *testing.T) {
			r, f := newRig(t), newFake(t, "a", "b", "c")
			f.failAt = func(q sources.Query) error {
				if q.Walk == sources.Sweep {
					return failing(kind, sources.ScopeStream, 500)
				}
				return nil
			}
			p, stop := r.run(swept("questions", f, "@every 15s", quarter, day))
			time.Sleep(time.Hour)
			if _, err := p.Backfill("shop-a", "", time.Time{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * day)
			stop()
			if n := len(f.runs(sources.News)); n < 49*200 {
				t.Errorf("%d News runs", n)
			}
			if n := len(f.runs(sources.Full)); n != 2 {
				t.Errorf("%d full readings in two days", n)
			}
			if n := f.pages(sources.Backfill); n != 2 {
				t.Errorf("%d pages of history", n)
			}
			if n := f.pages(sources.Sweep); n < 40 || n > 700 {
				t.Errorf("%d tries of the sweep in two days", n)
			}
		})
	}
}

// A walk that the source does not have is a bug that is said once, and no loop.
func TestNoSuchWalk(t *testing.T) {
	for _, walk := range []sources.Walk{sources.News, sources.Sweep, sources.Backfill} {
		synctest.Test(t, func(t *testing.T) {
			r, f := newRig(t), newFake(t, "a", "b", "c")
			f.failAt = func(q sources.Query) error {
				if q.Walk == walk {
					return fmt.Errorf("%s: %w", q.Walk, sources.ErrNoSuchWalk)
				}
				return nil
			}
			s := swept("questions", f, "@every 15s", quarter, day)
			p, stop := r.run(s)
			if _, err := p.Backfill("shop-a", "", time.Time{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * day)
			stop()
			if n := f.pages(walk); n != 1 {
				t.Errorf("%d requests of walk %s", n, walk)
			}
			r.wantLogged("please report it", 1)
			if walk != sources.News && f.pages(sources.News) < 1000 {
				t.Error("News was stopped too")
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if left := r.once(ctx, s); walk != sources.Sweep && (len(left) == 0 || !errors.Is(left[0].Err, sources.ErrNoSuchWalk)) {
				t.Errorf("once left %+v", left)
			}
		})
	}
}

// A run that ends without one of its lists is no success of `once`.
func TestOnceListsWhatCouldNotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b")
		s := swept("questions", f, "@every 15s", quarter, day)
		f.page = func(_ sources.Query, p *sources.Page) { p.Partial = p.Done }
		left := r.once(t.Context(), s)
		if len(left) != 1 || left[0].Walk != sources.News || !strings.Contains(left[0].Err.Error(), "not all of it could be read") {
			t.Errorf("left: %v", left)
		}
		f.page = nil
		if left := r.once(t.Context(), s); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
}

// Run from cron, once sees changes too: it makes the sweeps that are due, and
// lists what it had no time for.
func TestOnceSweeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b", "c", "d", "e").mutable()
		s := swept("questions", f, "@every 15s", quarter, day)
		once := func(timeout time.Duration) []string {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			var out []string
			for _, l := range r.once(ctx, s) {
				out = append(out, string(l.Walk))
			}
			r.reopen()
			return out
		}
		for range 5 * 24 * 2 { // every half hour
			if left := once(10 * time.Minute); len(left) > 0 {
				t.Fatal(left)
			}
			time.Sleep(30 * time.Minute)
		}
		if n := len(f.runs(sources.Sweep)); n != 239 {
			t.Errorf("%d sweeps in 240 calls", n)
		}
		if n := len(f.runs(sources.Full)); n < 4 || n > 5 {
			t.Errorf("%d full readings in five days", n)
		}
		time.Sleep(2 * day)
		f.took = 25 * time.Second // of seven requests
		begin := len(f.requests())
		if left := once(time.Minute); !slices.Equal(left, []string{"sweep", "full"}) {
			t.Errorf("left %q", left)
		}
		for range 3 {
			once(time.Minute)
		}
		if left := once(time.Minute); len(left) > 0 {
			t.Errorf("left %q after five minutes", left)
		}
		if n := len(f.requests()) - begin; n > 16 {
			t.Errorf("%d requests: what was cut short did not go on", n)
		}
	})
}

// The clock was ahead when a sweep was made: what is kept lies in the future, and
// keeps no sweep from coming.
func TestSweepFromTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b", "c")
		s := swept("questions", f, "@every 15s", quarter, day)
		r.once(t.Context(), s)
		later := time.Now().Add(1000 * day)
		for _, walk := range []string{"sweep", "full"} {
			if _, err := r.db.CommitPage(state.Page{Stream: questions, Walk: walk, Now: later, Began: later, Done: true}); err != nil {
				t.Fatal(err)
			}
		}
		stop := r.start(s)
		time.Sleep(2 * time.Hour)
		stop()
		if n := len(f.runs(sources.Sweep)); n < 7 || n > 9 {
			t.Errorf("%d sweeps in two hours", n)
		}
		if n := len(f.runs(sources.Full)); n != 1 {
			t.Errorf("%d full readings in two hours", n)
		}
	})
}
