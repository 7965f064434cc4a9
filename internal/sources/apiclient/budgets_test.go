package apiclient_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources/apiclient"
)

// upTo returns a random duration of at most d.
func upTo(r *rand.Rand, d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(r.Int64N(int64(d) + 1))
}

// TestBudgetIsNeverOverspent is G1: random worlds of several clients on one
// bucket, with latencies beyond the interval, idle times, restarts with requests
// in flight, and crash loops.
func TestBudgetIsNeverOverspent(t *testing.T) {
	for name, limit := range documented {
		for _, share := range []float64{0.1, 0.3, 0.9, 1} {
			for seed := range uint64(30) {
				t.Run(fmt.Sprintf("%s/share %v/seed %d", name, share, seed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { overspend(t, limit, share, seed) })
				})
			}
		}
	}
}

func overspend(t *testing.T, limit apiclient.Limit, share float64, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	m := &meter{limit: limit}
	l := newLedger()
	crashes := seed%3 != 0
	there := min([]time.Duration{0, limit.Interval / 5, limit.Interval, 3 * limit.Interval, 10 * time.Second}[r.IntN(5)], maxWay)
	// A network that stalls lets everything that was sent arrive at one instant.
	stalls := r.IntN(2) == 0 && there > 0
	back := upTo(r, min(3*limit.Interval, 5*time.Second))
	clients := 1 + r.IntN(8)
	tell := r.IntN(2) == 0
	end := time.Now().Add(400 * limit.Interval)
	if limit.Burst == 1 {
		end = time.Now().Add(40 * limit.Interval)
	}
	var all sync.WaitGroup // what was sent arrives, whoever sent it
	for time.Now().Before(end) {
		p := start(t, l, believed(limit), share)
		for range clients {
			r := rand.New(rand.NewPCG(r.Uint64(), 2))
			all.Go(func() {
				room := make(chan struct{}, 3) // requests of one client at a time
				for p.ctx.Err() == nil {
					room <- struct{}{}
					if r.IntN(10) == 0 {
						time.Sleep(upTo(r, time.Duration(limit.Burst+2)*limit.Interval)) // lets the bucket fill up
					}
					d, b := upTo(r, there), upTo(r, back)
					way := func() time.Duration { return d }
					if stalls {
						way = func() time.Duration { return there - time.Duration(time.Now().UnixNano()%int64(there)) }
					}
					all.Go(func() {
						_ = p.send(m, way, b, tell)
						<-room
					})
					time.Sleep(upTo(r, limit.Interval))
				}
			})
		}
		life := time.Until(end)
		if crashes {
			life = []time.Duration{upTo(r, 2*limit.Interval), upTo(r, 5*time.Second), upTo(r, 40*limit.Interval)}[r.IntN(3)] + time.Millisecond
		}
		time.Sleep(life)
		p.kill()
	}
	all.Wait()
	m.check(t)
	if m.count() == 0 && !crashes {
		t.Error("no request was sent at all: the test shows nothing")
	}
}

// TestBudgetIsUsed is the other half: after the first minute at least 98 % of
// what share allows is used where the burst is above 1.
func TestBudgetIsUsed(t *testing.T) {
	for name, limit := range documented {
		if limit.Burst == 1 {
			continue
		}
		for _, share := range []float64{0.05, 0.25, 0.9, 1} {
			for _, clients := range []int{1, 2, 5} {
				t.Run(fmt.Sprintf("%s/share %v/%d clients", name, share, clients), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						m := &meter{limit: limit}
						p := start(t, newLedger(), believed(limit), share)
						for i := range clients {
							r := rand.New(rand.NewPCG(uint64(i), 3))
							p.wg.Go(func() {
								for {
									d := upTo(r, limit.Interval*9/10)
									if p.send(m, after(d/2), d/2, true) != nil {
										return
									}
								}
							})
						}
						time.Sleep(time.Minute)
						before := m.count()
						span := 300 * limit.Interval
						time.Sleep(span)
						got := float64(m.count() - before)
						p.kill()
						p.wg.Wait()
						m.check(t)
						if most := 300 * share; got < 0.98*most-1 {
							t.Errorf("%v requests in %s, expected at least 98 %% of %.1f (%.1f %%)", got, span, most, got/most*100)
						}
					})
				})
			}
		}
	}
}

// TestPauseOfABurstOfOne: the interval + 2 % + 2 s, or what the share allows,
// and at most 1 s more.
func TestPauseOfABurstOfOne(t *testing.T) {
	for name, limit := range documented {
		if limit.Burst > 1 {
			continue
		}
		for _, share := range []float64{0.1, 0.5, 0.9, 0.99, 1} {
			t.Run(fmt.Sprintf("%s/share %v", name, share), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := &meter{limit: limit}
					p := start(t, newLedger(), limit, share)
					for range 8 {
						if err := p.send(m, after(100*time.Millisecond), 100*time.Millisecond, true); err != nil {
							t.Fatal(err)
						}
					}
					m.check(t)
					want := max(time.Duration(float64(limit.Interval)/share), limit.Interval+limit.Interval/50+2*time.Second)
					if first := m.arrivals[0].Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)); first > time.Second {
						t.Errorf("a bucket that was never saved has one token, but the first request was sent after %s", first)
					}
					for i := 1; i < len(m.arrivals); i++ {
						if d := m.arrivals[i].Sub(m.arrivals[i-1]); d < want || d > want+time.Second {
							t.Errorf("pause %d is %s, expected %s to 1 s more", i, d, want)
						}
					}
				})
			})
		}
	}
}
