package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/delivery"
	"syncd/internal/event"
	"syncd/internal/sink"
)

// Subjects that hang, however many and however often they are due, never keep
// others waiting: of several slots one is always left to what was not tried.
func TestHangingSubjectsLeaveSlots(t *testing.T) {
	for _, limit := range []int{2, 3, 4, 8} {
		t.Run(fmt.Sprint(limit, " slots"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				v := newReceiver(r, limit)
				var retries, most atomic.Int64 // that hang
				v.answer = func(ctx context.Context, e *event.Logged) error {
					v.mu.Lock()
					replayed := v.acked[e.Sequence] > 0
					v.mu.Unlock()
					switch {
					case replayed:
						return takes(15*time.Second, nil)(ctx, e)
					case strings.HasPrefix(e.PartitionKey, "shop-a/hangs"):
						if len(v.triesOf(e.Sequence)) > 1 {
							most.Store(max(most.Load(), retries.Add(1)))
							defer retries.Add(-1)
						}
						return takes(15*time.Second, errors.New("timeout"))(ctx, e)
					}
					return nil
				}
				for i := range 30 {
					r.log(fmt.Sprint("hangs", i), fmt.Sprint("well", i))
				}
				stop := r.start(retrying(to("crm", v), time.Second, 2*time.Second))
				for range 60 { // all of them fail once, among others that show that it is no outage
					time.Sleep(15 * time.Second)
					r.log("a")
				}
				if n, err := r.db.QueueReplay(t.Context(), "crm", func(h event.Header) bool { return h.PartitionKey == "shop-a/a" }, time.Now().Add(-time.Hour), time.Now()); err != nil || n == 0 {
					t.Fatal(n, err)
				}
				for i := range 200 {
					r.log("b", "b", "b")
					settle()
					last := uint64(len(r.logged))
					if tries := v.triesOf(last); len(tries) != 1 || time.Since(tries[0]) > 0 {
						t.Fatalf("after %d rounds event %d was tried at %v, now %s", i, last, tries, time.Now())
					}
					time.Sleep(1700 * time.Millisecond)
				}
				stop()
				if len(v.besides(sink.Replayed)) == 0 {
					t.Error("what stands aside got no slot")
				}
				if n := most.Load(); n != int64(max(limit/2, 1)) {
					t.Errorf("%d retries at once", n)
				}
			})
		})
	}
}

// With a single slot everybody has a turn.
func TestSingleSlotIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 1)
		v.answer = func(ctx context.Context, e *event.Logged) error {
			if strings.HasPrefix(e.PartitionKey, "shop-a/bad") && len(v.triesOf(e.Sequence)) < 4 {
				return takes(time.Second, errors.New("500"))(ctx, e)
			}
			return takes(time.Second, nil)(ctx, e)
		}
		for i := range 20 {
			r.log(fmt.Sprint("bad", i), fmt.Sprint("good", i))
		}
		stop := r.start(retrying(to("crm", v), time.Second, time.Second))
		time.Sleep(time.Minute)
		if _, err := r.db.QueueReplay(t.Context(), "crm", func(h event.Header) bool { return h.Sequence == 2 }, time.Now().Add(-time.Hour), time.Now()); err != nil {
			t.Fatal(err)
		}
		for i := range 60 { // as much as the slot can take
			r.log(fmt.Sprint("new", i))
			time.Sleep(time.Second)
		}
		settle()
		if late := v.missing(); len(v.besides(sink.Replayed)) != 1 || len(late) > 60 {
			t.Errorf("replayed %d, missing %d", v.besides(sink.Replayed), late)
		}
		old := 0
		for _, seq := range v.missing() {
			if seq <= 40 {
				old++
			}
		}
		if old > 15 {
			t.Errorf("%d of 20 that had failed have had no turn", old)
		}
		time.Sleep(5 * time.Minute)
		stop()
		if m := v.missing(); len(m) > 0 {
			t.Errorf("missing %d", m)
		}
	})
}

// `rate` bounds every request: of fresh events, retries and batches.
func TestRate(t *testing.T) {
	for _, batch := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			v := newReceiver(r, 8)
			v.batch = batch
			v.answer = func(ctx context.Context, e *event.Logged) error {
				if e.Sequence%3 == 0 && len(v.triesOf(e.Sequence)) < 2 {
					return errors.New("500")
				}
				return takes(300*time.Millisecond, nil)(ctx, e)
			}
			for i := range 300 {
				r.log(fmt.Sprint("s", i))
			}
			s := with(retrying(to("crm", v), time.Second, 5*time.Second), func(s *delivery.Sink) { s.Rate, s.BatchEvents = 2.5, batch })
			stop := r.start(s)
			time.Sleep(time.Minute)
			stop()
			if n := v.total(); n < 145 || n > 151 {
				t.Errorf("%d requests in a minute at 2.5 a second", n)
			}
			for i := 1; i < len(v.at); i++ {
				if d := v.at[i].Sub(v.at[i-1]); d < 400*time.Millisecond {
					t.Errorf("request %d came %s after the one before", i, d)
				}
			}
			began := v.total()
			if _, err := r.new(s).Drain(t.Context()); err != nil || v.total() == began {
				t.Errorf("%d requests, %v", v.total()-began, err)
			}
			for i := began + 1; i < len(v.at); i++ {
				if d := v.at[i].Sub(v.at[i-1]); d < 400*time.Millisecond {
					t.Errorf("when drained, request %d came %s after the one before", i, d)
				}
			}
		})
	}
}
