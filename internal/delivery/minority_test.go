package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/delivery"
	"syncd/internal/event"
)

// G5: subjects that fail, each for itself, and more of them all the time, do not look
// like an endpoint that is down for long: what comes for the others arrives soon, also
// where they share batches, and after a restart.
func TestManyBadSubjects(t *testing.T) {
	for _, test := range []struct {
		name     string
		batch    int
		good     int           // subjects with an event a second
		bad      time.Duration // a new bad subject comes
		atOnce   int           // bad ones at the beginning
		restarts bool          // each minute
		slow     int           // good events in a hundred that may take longer than a quarter of a minute
	}{
		{name: "one by one", batch: 1, good: 10, bad: time.Second / 3, slow: 5},
		{name: "one by one, restarts", batch: 1, good: 10, bad: time.Second / 3, restarts: true, slow: 10},
		{name: "many at once", batch: 1, good: 6, atOnce: 60, slow: 15},
		{name: "in batches", batch: 100, good: 30, bad: time.Second, slow: 15},
		{name: "in batches, restarts", batch: 100, good: 30, bad: time.Second, restarts: true, slow: 30},
		{name: "in batches, few bad", batch: 100, good: 30, bad: 5 * time.Second, slow: 15},
		{name: "in batches, a dozen at once", batch: 100, good: 30, atOnce: 12, restarts: true, slow: 15},
	} {
		t.Run(test.name, func(t *testing.T) {
			slow, all := 0, 0
			for range 2 {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t)
					v := newReceiver(r, 8)
					v.batch = test.batch
					v.answer = func(ctx context.Context, e *event.Logged) error {
						if strings.HasPrefix(e.PartitionKey, "shop-a/bad") {
							return takes(5*time.Millisecond, errors.New("500"))(ctx, e)
						}
						return nil
					}
					s := with(retrying(to("crm", v), 5*time.Second, time.Hour), func(s *delivery.Sink) { s.BatchEvents, s.BatchWait = test.batch, time.Second })
					logged := make(map[uint64]time.Time)
					n := uint64(0)
					log := func(subjects ...string) {
						for _, k := range subjects {
							if n++; k[0] == 'g' {
								logged[n] = time.Now()
							}
						}
						r.log(subjects...)
					}
					bad := 0
					for ; bad < test.atOnce; bad++ {
						log(fmt.Sprint("bad", bad))
					}
					begin := time.Now()
					stop := r.start(s)
					const lasts = 2*time.Minute + 30*time.Second
					for i := range int(lasts / time.Second) {
						var now []string
						for k := range test.good {
							now = append(now, fmt.Sprint("good", k))
						}
						for ; test.bad > 0 && time.Duration(bad)*test.bad <= time.Since(begin); bad++ {
							now = append(now, fmt.Sprint("bad", bad))
						}
						log(now...)
						time.Sleep(time.Second)
						if test.restarts && i%60 == 59 {
							stop()
							stop = r.start(s)
						}
					}
					stop()
					end := time.Now()
					longest := time.Duration(0)
					for seq, since := range logged {
						until := end
						if v.acked[seq] > 0 {
							tries := v.tries[seq]
							until = tries[len(tries)-1]
						}
						took := until.Sub(since)
						if longest = max(longest, took); took > 15*time.Second {
							slow++
						}
					}
					all += len(logged)
					t.Logf("beside %d bad subjects the longest took %s; %d requests", bad, longest, v.total())
				})
			}
			if slow*100 > test.slow*all {
				t.Errorf("%d of %d good events took more than 15 s: they wait for the bad ones", slow, all)
			}
		})
	}
}

// G5: a retry that is due goes, also where one slow batch after the other is moved to
// the queue: what was moved keeps the slot that it had.
func TestParkedBatchesLeaveSlotsToRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 8)
		v.batch = 100
		v.wants = func(seq uint64) bool { return seq%10 == 0 }
		failed := uint64(0)
		var mu sync.Mutex
		v.whole = func(ctx context.Context, events []event.Logged) error {
			mu.Lock()
			fails := failed == 0 && events[0].Sequence > 6000
			if fails {
				failed = events[0].Sequence
			}
			mu.Unlock()
			if fails {
				return errors.New("500")
			}
			return takes(12*time.Second, nil)(ctx, nil)
		}
		subjects := make([]string, 40_000)
		for i := range subjects {
			subjects[i] = fmt.Sprint("x", i)
			if (i+1)%10 == 0 {
				subjects[i] = fmt.Sprint("s", i)
			}
		}
		r.log(subjects...)
		stop := r.start(wanting(retrying(batching(to("crm", v), 100, 0), time.Second, 5*time.Second)))
		defer stop()
		time.Sleep(3 * time.Minute)
		mu.Lock()
		tries := v.triesOf(failed)
		mu.Unlock()
		if len(tries) < 2 || tries[1].Sub(tries[0]) > 30*time.Second {
			t.Errorf("a batch that was due again after at most 5 s was tried at %s", tries)
		}
	})
}

// An endpoint that works by turns, and then does not any more, is told as down.
func TestFlappingThenDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 8)
		var up atomic.Bool
		v.answer = func(context.Context, *event.Logged) error {
			if up.Load() {
				return nil
			}
			return errors.New("500")
		}
		stop := r.start(retrying(to("crm", v), time.Second, 2*time.Second))
		defer stop()
		some := func() {
			for i := range 20 {
				r.log(fmt.Sprint("s", i))
			}
		}
		for range 2 {
			up.Store(false)
			some()
			time.Sleep(20 * time.Second)
			up.Store(true)
			time.Sleep(20 * time.Second)
		}
		before := r.out.String()
		if !strings.Contains(before, "works by turns") {
			t.Fatal(before)
		}
		time.Sleep(5 * time.Minute)
		up.Store(false)
		some()
		time.Sleep(time.Hour)
		settle()
		if n := strings.Count(r.out.String()[len(before):], "the endpoint is down"); n != 1 {
			t.Errorf("an hour of an endpoint that is dead: told %d times in\n%s", n, r.out.String()[len(before):])
		}
	})
}
