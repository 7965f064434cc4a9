package poller_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/poller"
	"syncd/internal/sources"
)

// TestRandomVisits: whatever fails and whenever the process dies, every answer comes
// once, and those of one thing in the order in which they happened.
func TestRandomVisits(t *testing.T) {
	poller.SetPiece(t, 3)
	for seed := range uint64(*randomLives) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { liveVisits(t, seed) })
		})
	}
}

func liveVisits(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 1))
	dice := rand.New(rand.NewPCG(seed, 2)) // guarded by rig.mu
	requests := rand.New(rand.NewPCG(seed, 3))
	r, f := quickRig(t), newFake(t)
	f.whole, f.size, f.shown = true, 3, make(map[string]bool)
	o := newForum(f)
	o.took = time.Duration(random.IntN(3)) * time.Second
	o.every = 20 * time.Minute
	well, trust, dead := false, false, false // well: guarded by the fake's mutex, the others by rig.mu
	o.follow = func(sources.Query) error {
		kinds := []sources.Kind{sources.Temporary, sources.Unreadable, sources.Rejected, sources.RateLimited, sources.Forbidden, sources.Unauthorized}
		if well || requests.IntN(6) > 0 {
			return nil
		}
		scope := sources.ScopeRequest
		if requests.IntN(8) == 0 {
			scope = sources.ScopeGroup
		}
		return failing(kinds[requests.IntN(len(kinds))], scope, 500)
	}
	died := make(chan struct{}, 1)
	r.fault = func(_ int, commit func() error) error {
		if dead {
			return errBroken
		}
		if trust || dice.IntN(8) > 0 {
			return commit()
		}
		if dead = dice.IntN(3) == 0; dead {
			died <- struct{}{}
		}
		if dice.IntN(2) == 0 {
			if err := commit(); err != nil {
				return err
			}
		}
		return errBroken
	}
	s := forumStream(o, "@every 5m")
	live := func(d time.Duration) {
		for end := time.Now().Add(d); time.Now().Before(end); {
			p := r.new(s)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- p.Run(ctx) }()
			crashed, ended := false, false
			select {
			case <-died:
				crashed = true
			case err := <-done:
				ended = true
				if !strings.Contains(fmt.Sprint(err), errBroken.Error()) {
					t.Error(err)
				}
			case <-time.After(time.Until(end)):
			}
			cancel()
			if !ended {
				<-done
			}
			select { // in the parting commits
			case <-died:
				crashed = true
			default:
			}
			r.mu.Lock()
			dead = false
			r.mu.Unlock()
			if crashed || random.IntN(2) == 0 {
				r.reopen()
			}
			if ended {
				time.Sleep(time.Second)
			}
		}
		r.checkState(f)
	}
	things := 0
	for range 25 {
		switch random.IntN(3) {
		case 0:
			f.add(fmt.Sprint("t", things))
			things++
		default:
			for range random.IntN(12) {
				if things > 0 {
					o.answer(fmt.Sprint("t", random.IntN(things)), 1)
					time.Sleep(time.Millisecond)
				}
			}
		}
		live(time.Duration(random.Int64N(int64(30 * time.Minute))))
	}
	f.set(func() { well = true })
	r.mu.Lock()
	trust = true
	r.mu.Unlock()
	live(3 * time.Hour) // what was refused is tried again hourly
	got := make(map[string][]string)
	for _, id := range r.emitted() {
		if thing, _, ok := strings.Cut(id, "-"); ok {
			got[thing] = append(got[thing], id)
		}
	}
	for thing, answers := range o.answers {
		var want []string
		for i := range answers {
			want = append(want, fmt.Sprintf("%s-%02d", thing, i+1))
		}
		if fmt.Sprint(got[thing]) != fmt.Sprint(want) {
			t.Errorf("of %s emitted %q\nwant %q", thing, got[thing], want)
		}
	}
}
