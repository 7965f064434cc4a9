package poller_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
)

// paid is a fake whose requests wait for a real bucket, walk by walk as those of a
// marketplace do.
type paid struct {
	*fake
	bucket *apiclient.Bucket
}

// weights are those of package apiclient.
var weights = map[sources.Walk]float64{sources.News: 1, sources.Sweep: 1. / 4, sources.Full: 1. / 4, sources.Backfill: 1. / 16}

func (s paid) Fetch(ctx context.Context, q sources.Query) (sources.Page, error) {
	grant, err := s.bucket.Acquire(ctx, apiclient.Flow{Name: "questions/" + string(q.Walk), Weight: weights[q.Walk]})
	if err != nil {
		return sources.Page{}, err
	}
	defer grant.Answered(apiclient.Answer{Remaining: -1})
	return s.fake.Fetch(ctx, q)
}

// ledger keeps the buckets beside the state, whose commits may be slow here.
type ledger struct{ m sync.Map }

func (l *ledger) Load(key string) (value []byte, stale bool, err error) {
	v, _ := l.m.Load(key)
	value, _ = v.([]byte)
	return value, false, nil
}

func (l *ledger) Save(key string, value []byte) error {
	l.m.Store(key, value)
	return nil
}

func bucket(t *testing.T, limit apiclient.Limit) *apiclient.Bucket {
	t.Helper()
	b, err := apiclient.NewBudgets(&ledger{}, slog.New(slog.DiscardHandler)).
		Bucket(apiclient.Key{Marketplace: "wildberries", Seller: "seller-1", Group: "feedbacks"}, "shop-a", limit, 1)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// watch notes when each event can first be read, and how often it comes.
func (r *rig) watch() (seen func() (at map[string]time.Time, times map[string]int)) {
	ch, stop := r.db.Watch()
	r.t.Cleanup(stop)
	var mu sync.Mutex
	at, times, last := make(map[string]time.Time), make(map[string]int), uint64(0)
	look := func() {
		mu.Lock()
		defer mu.Unlock()
		for e, err := range r.db.Events(last) {
			if err != nil {
				r.t.Error(err)
				return
			}
			last = e.Sequence
			id := strings.Split(e.ID, "/")[2]
			if times[id]++; times[id] == 1 {
				at[id] = time.Now()
			}
		}
	}
	done := make(chan struct{})
	r.t.Cleanup(func() { close(done) })
	go func() {
		for {
			select {
			case <-ch:
				look()
			case <-done:
				return
			}
		}
	}()
	return func() (map[string]time.Time, map[string]int) {
		look()
		return at, times
	}
}

// News never waits for history: whatever else is read or settled, with a fast
// budget and with one that is all used up, and however slow the disk is, a new item
// is emitted within two periods: those of the schedule, or those that the budget
// allows.
func TestNewsNeverWaits(t *testing.T) {
	const schedule = 15 * time.Second
	fast := apiclient.Limit{Interval: 334 * time.Millisecond, Burst: 6}
	base := apiclient.Limit{Interval: 12 * time.Minute, Burst: 1}
	every := base.Interval + base.Interval/50 + 2*time.Second // contract G1
	for _, test := range []struct {
		name   string
		limit  apiclient.Limit
		within time.Duration
		slow   time.Duration // each commit
		items  int
		size   int
		sweep  time.Duration
		full   time.Duration
		ask    bool // for history
		grown  int  // items that get a key
		runs   time.Duration
		want   func(f *fake) bool // that there was something to wait for
	}{
		{"backfill", fast, 2 * schedule, 50 * time.Millisecond, 100_000, 500, quarter, day, true, 0, 90 * time.Second,
			func(f *fake) bool { return f.pages(sources.Backfill) >= 200 }},
		{"backfill, Base", base, 2 * every, 0, 1000, 50, 0, 0, true, 0, 3 * day,
			func(f *fake) bool { return f.pages(sources.Backfill) >= 15 }},
		{"sweeps", fast, 2 * schedule, 50 * time.Millisecond, 2000, 50, time.Minute, time.Minute, false, 0, 10 * time.Minute,
			func(f *fake) bool { return f.pages(sources.Sweep) > 300 && f.pages(sources.Full) > 300 }},
		// The first page of each walk that was idle goes before news that wait: three of
		// them, where all come due in one period.
		{"sweeps, Base", base, 4 * every, 0, 200, 20, quarter, time.Hour, true, 0, 10 * day,
			func(f *fake) bool {
				return f.pages(sources.Sweep) > 50 && f.pages(sources.Full) > 50 && f.pages(sources.Backfill) > 5
			}},
		{"settlement", fast, 2 * schedule, 50 * time.Millisecond, 4000, 200, 0, 10 * time.Minute, false, 3000, 20 * time.Minute,
			func(f *fake) bool { return f.pages(sources.Full) >= 20 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, f := quickRig(t), newFake(t, manyIDs(test.items)...).mutable()
				f.size = min(test.items, 5000)
				for i := range f.items {
					f.items[i].Created = time.Date(1999, 1, 1, 0, 0, i, 0, time.UTC)
				}
				s := swept("questions", f, "@every 15s", test.sweep, test.full)
				s.Start, s.Source = nil, paid{f, bucket(t, test.limit)}
				p, stop := r.run(s)
				time.Sleep(time.Hour) // the first walk
				f.set(func() { f.size = test.size })
				f.change(`,"new":1`, manyIDs(test.grown)...)
				if test.ask {
					if _, err := p.Backfill("shop-a", "questions", time.Time{}); err != nil {
						t.Fatal(err)
					}
				}
				r.mu.Lock()
				r.slow = test.slow
				r.mu.Unlock()
				seen := r.watch()
				came := make(map[string]time.Time)
				for begin := time.Now(); time.Since(begin) < test.runs; {
					id := fmt.Sprintf("new-%04d", len(came))
					f.add(id)
					came[id] = time.Now()
					time.Sleep(test.within * 3 / 20)
				}
				busy := test.want(f)
				time.Sleep(test.within)
				synctest.Wait()
				stop()
				if !busy {
					t.Errorf("there was nothing to wait for: %d pages of sweep, %d of full, %d of history", f.pages(sources.Sweep), f.pages(sources.Full), f.pages(sources.Backfill))
				}
				at, times := seen()
				for id, from := range came {
					if d := at[id].Sub(from); at[id].IsZero() || d > test.within {
						t.Errorf("%s was emitted after %s, within %s it should be", id, d, test.within)
					}
				}
				for id, n := range times {
					if n != 1 {
						t.Errorf("%s was emitted %d times", id, n)
					}
				}
				if test.grown > 0 && r.tally()["schema_changed"] != 1 {
					t.Error("nothing was settled")
				}
			})
		})
	}
}

// TestRestOfARun: a process that goes on with a run of an earlier one reads anew at
// once, and does not wait for its schedule first: what came meanwhile to what that run
// had read by then would wait for as long as processes die young.
func TestRestOfARun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b", "c")
		f.whole = true
		s := stream("questions", f, "@every 1h")
		r.once(t.Context(), s)
		f.page = func(q sources.Query, p *sources.Page) { // the last page of a run
			if q.Walk == sources.News && p.Done {
				p.Began = time.Now().Add(-time.Minute)
			}
		}
		r.reopen()
		time.Sleep(time.Minute)
		before := len(f.requests())
		_, stop := r.run(s)
		time.Sleep(time.Minute)
		if n := len(f.requests()) - before; n != 2*before {
			t.Errorf("%d requests in the first minute, expected those of two runs: %d", n, 2*before)
		}
		time.Sleep(30 * time.Minute)
		if n := len(f.requests()) - before; n != 2*before {
			t.Errorf("%d requests after that, without a schedule", n)
		}
		stop()
	})
}
