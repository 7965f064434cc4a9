package apiclient_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources/apiclient"
)

// TestTightness: with work to do and answers faster than the interval, at least
// 98 % of the refill that the share allows is used where the burst is above 1, from
// the first minute on, and a minute or two after a stranger has drained the bucket;
// with a burst of 1 at most 1 s is lost beyond the pause of G1, where answers take
// no longer than its slack. No request finds the bucket empty but those that were on
// their way when the stranger came.
func TestTightness(t *testing.T) {
	limits := map[string]apiclient.Limit{"download": {Interval: 6 * time.Minute, Burst: 1}}
	for name, limit := range documented {
		limits[name] = limit
	}
	worst := 1.
	for name, limit := range limits {
		for _, share := range []float64{1, 0.9, 0.5, 0.3, 0.05} {
			for _, clients := range []int{1, 8} {
				for _, latency := range []float64{0, 0.1, 0.5, 0.98} { // intervals, or with a burst of 1 parts of its slack
					for _, random := range []bool{false, true} {
						for _, strangers := range []bool{false, true} {
							if latency == 0 && random {
								continue
							}
							tt := tightness{limit, share, clients, latency, random, strangers}
							t.Run(fmt.Sprintf("%s/%+v", name, tt), func(t *testing.T) {
								synctest.Test(t, func(t *testing.T) { worst = min(worst, tt.run(t)) })
							})
						}
					}
				}
			}
		}
	}
	t.Logf("the least that was used: %.2f %%", 100*worst)
}

type tightness struct {
	limit     apiclient.Limit
	share     float64
	clients   int
	latency   float64
	random    bool
	strangers bool
}

func (tt tightness) run(t *testing.T) float64 {
	m := &meter{limit: tt.limit}
	told := believed(tt.limit)
	pause := time.Duration(float64(told.Interval) / tt.share)
	latency := time.Duration(tt.latency * float64(tt.limit.Interval))
	if tt.limit.Burst == 1 {
		slack := tt.limit.Interval/50 + 2*time.Second
		pause = max(pause, tt.limit.Interval+slack)
		latency = time.Duration(tt.latency * float64(slack))
	}
	p := start(t, newLedger(), told, tt.share)
	for i := range tt.clients {
		r := rand.New(rand.NewPCG(uint64(i), 4))
		p.wg.Go(func() {
			for {
				there, back := latency/3, latency-latency/3
				if tt.random {
					all := upTo(r, latency)
					there = upTo(r, all)
					back = all - there
				}
				if p.send(m, after(there), back, true) != nil {
					return
				}
			}
		})
	}
	// From here on: counts tokens, not to be wrong by one at either end.
	time.Sleep(time.Minute)
	if tt.strangers {
		time.Sleep(20 * pause)
		m.drain(2 * tt.limit.Burst)
		time.Sleep(2*time.Minute + 3*pause)
	}
	m.mu.Lock()
	before, refused := len(m.arrivals), len(m.refused)
	m.mu.Unlock()
	if most := 1 + tt.clients; !tt.strangers && refused > 0 || refused > most {
		t.Errorf("%d requests found the bucket empty: %v", refused, m.refused)
	}
	const tokens = 200
	time.Sleep(tokens * pause)
	m.mu.Lock()
	got, first, last := len(m.arrivals)-before, m.arrivals[before], m.arrivals[len(m.arrivals)-1]
	if len(m.refused) > refused {
		t.Errorf("budget overspent: %v", m.refused[refused:])
	}
	m.mu.Unlock()
	p.kill()
	p.wg.Wait()
	if got < tokens*98/100-1 && tt.limit.Burst > 1 {
		t.Errorf("%d of %d tokens were used", got, tokens)
	}
	if each := last.Sub(first) / time.Duration(got-1); tt.limit.Burst == 1 && each > pause+time.Second {
		t.Errorf("%s from one request to the next, expected at most %s", each, pause+time.Second)
	}
	return float64(got) / tokens
}

// TestLongRun: the same for an hour of a fast bucket and days of a slow one, with a
// marketplace whose clock is slower than ours. Only what it says of the tokens that
// remain keeps the two together.
func TestLongRun(t *testing.T) {
	for name, limit := range documented {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				told := limit
				limit.Interval += limit.Interval / 5000 // 200 ppm
				m := &meter{limit: limit}
				p := start(t, newLedger(), told, 1)
				for i := range 8 {
					r := rand.New(rand.NewPCG(uint64(i), 5))
					p.wg.Go(func() {
						for {
							d := upTo(r, min(limit.Interval, time.Second)/2)
							if p.send(m, after(d), upTo(r, d), true) != nil {
								return
							}
						}
					})
				}
				time.Sleep(time.Minute)
				m.drain(limit.Burst - 2) // they are near each other from the beginning
				time.Sleep(time.Minute + 3*limit.Interval)
				m.mu.Lock()
				before, refused := len(m.arrivals), len(m.refused)
				m.mu.Unlock()
				span := max(time.Hour, 200*limit.Interval)
				time.Sleep(span)
				got := float64(m.count() - before)
				p.kill()
				p.wg.Wait()
				if limit.Burst > 1 && got < 0.98*float64(span/limit.Interval) {
					t.Errorf("%v of %d tokens were used", got, span/limit.Interval)
				}
				m.refused = m.refused[refused:]
				m.check(t)
			})
		})
	}
}
