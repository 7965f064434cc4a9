package apiclient_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestCrashWithABurstInFlight: a process with a full bucket sends all it may
// into a network that stalls, is killed, and starts again at once, over and
// over. What was on its way arrives together with what the next ones send.
func TestCrashWithABurstInFlight(t *testing.T) {
	for name, limit := range documented {
		for _, share := range []float64{0.1, 0.3, 0.9, 1} {
			for i, life := range []time.Duration{time.Millisecond, limit.Interval / 2, limit.Interval * 3 / 2, 1900 * time.Millisecond, 2500 * time.Millisecond, 5 * limit.Interval} {
				t.Run(name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						m := &meter{limit: limit}
						l := newLedger()
						var all sync.WaitGroup
						period := []time.Duration{2 * time.Second, 30 * time.Second}[i%2]
						stall := func() time.Duration { return period - time.Duration(time.Now().UnixNano()%int64(period)) }
						live := func(p *process, life time.Duration) {
							for range 12 {
								all.Go(func() {
									for p.send(m, stall, 0, true) == nil {
									}
								})
							}
							time.Sleep(life)
							p.kill()
							synctest.Wait() // the dead spend nothing beside the living: the state file is locked
						}
						p := start(t, l, believed(limit), share)
						time.Sleep(20 * limit.Interval) // full
						time.Sleep(stall() + time.Millisecond)
						live(p, 10*time.Millisecond)
						for range 30 {
							live(start(t, l, believed(limit), share), life)
						}
						live(start(t, l, believed(limit), share), 30*limit.Interval)
						all.Wait()
						m.check(t)
					})
				})
			}
		}
	}
}

// TestStalledNetwork: a full bucket refills only when a request arrives. What was
// sent into a network that stalls, for longer than the bucket takes to fill up,
// must still find a token each when all of it arrives at once.
func TestStalledNetwork(t *testing.T) {
	for name, limit := range documented {
		if limit.Burst == 1 {
			continue
		}
		for _, share := range []float64{0.3, 0.9, 1} {
			for _, period := range []time.Duration{limit.Interval, 3 * limit.Interval, 25 * time.Second} {
				t.Run(name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						m := &meter{limit: limit}
						p := start(t, newLedger(), believed(limit), share)
						time.Sleep(20 * limit.Interval) // full
						stall := func() time.Duration { return period - time.Duration(time.Now().UnixNano()%int64(period)) }
						time.Sleep(stall() + time.Millisecond)
						for range 40 {
							p.wg.Go(func() {
								for p.send(m, stall, 0, true) == nil {
								}
							})
						}
						time.Sleep(20 * period)
						p.kill()
						p.wg.Wait()
						m.check(t)
						if m.unspent < 1 {
							t.Error("the token that is kept for jitter was spent")
						}
						if m.count() < 5 {
							t.Errorf("only %d requests", m.count())
						}
					})
				})
			}
		}
	}
}
