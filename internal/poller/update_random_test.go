package poller_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/poller"
	"syncd/internal/sources"
)

// What an operator asks for while streams are replaced is done: a backfill is durable
// when it is acknowledged, and a poll comes.
func TestUpdateBesideOperator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "old-1", "old-2", "old-3")
		f.took = time.Second
		s := swept("questions", f, "@every 1h", 0, 0)
		s.Start = nil
		p, stop := r.run(s)
		time.Sleep(time.Minute)
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 377 * time.Millisecond)
				changed := s
				changed.Schedule = fmt.Sprintf("@every %ds", 3600+i)
				update(t, p, changed)
			})
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 291 * time.Millisecond)
				if _, err := p.PollNow("shop-a", "questions"); err != nil {
					t.Error(err)
				}
				if i != 20 {
					return
				}
				if ids, err := p.Backfill("shop-a", "questions", time.Time{}); err != nil || len(ids) != 1 {
					t.Error(ids, err)
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Minute)
		stop()
		r.wantEmitted("old-1 backfill", "old-2 backfill", "old-3 backfill")
		r.wantLogged("history has been read", 1)
	})
}

// Random streams come, change and go under load: each item comes once, and those of a
// stream in their order.
func TestUpdateRandom(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { randomUpdates(t, rand.New(rand.NewPCG(seed, 9))) })
		})
	}
}

func randomUpdates(t *testing.T, rnd *rand.Rand) {
	r := quickRig(t)
	var streams []poller.Stream
	fakes := make(map[string]*fake)
	for _, name := range []string{"a", "b", "c", "d"} {
		f := newFake(t)
		f.took = time.Duration(rnd.Int64N(int64(2 * time.Second)))
		f.fail = func(n int) error {
			if n%7 == 3 {
				return failing(sources.Temporary, sources.ScopeRequest, 503)
			}
			return nil
		}
		fakes[name] = f
		streams = append(streams, swept(name, f, "@every 3s", time.Minute, 3*time.Minute))
	}
	p, stop := r.run(streams...)
	want := make(map[string][]string)
	for i := range 60 {
		for name, f := range fakes {
			for j := range rnd.IntN(4) {
				id := fmt.Sprintf("%s%03d%d", name, i, j)
				f.add(id)
				want[name] = append(want[name], id)
			}
		}
		time.Sleep(time.Duration(rnd.Int64N(int64(10 * time.Second))))
		var next []poller.Stream
		for k := range streams {
			if rnd.IntN(3) == 0 {
				streams[k].Schedule = fmt.Sprintf("@every %ds", 1+rnd.IntN(8))
			}
			if rnd.IntN(4) > 0 {
				next = append(next, streams[k])
			}
		}
		update(t, p, next...)
		if rnd.IntN(10) == 0 {
			_, _ = p.Backfill("shop-a", "", time.Time{}) // the streams may all have left
		}
	}
	update(t, p, streams...)
	time.Sleep(10 * time.Minute)
	stop()
	if err := r.db.Check(); err != nil {
		t.Error(err)
	}
	got := make(map[string][]string)
	for _, id := range r.emitted() {
		got[id[:1]] = append(got[id[:1]], strings.TrimSuffix(id, " backfill"))
	}
	for name := range fakes {
		slices.Sort(want[name])
		if slices.Sort(got[name]); !slices.Equal(got[name], want[name]) {
			t.Errorf("stream %s: emitted %q\nwant %q", name, got[name], want[name])
		}
	}
}
