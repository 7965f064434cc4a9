package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/delivery"
	"syncd/internal/event"
	"syncd/internal/sink"
	"syncd/internal/state"
)

func batching(s delivery.Sink, events int, wait time.Duration) delivery.Sink {
	s.BatchEvents, s.BatchWait = events, wait
	return s
}

// Batches are as full as what is there allows, in the order of the log, several
// events of a subject in one included.
func TestBatchesAreFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 4)
		v.batch = 50
		v.whole = func(ctx context.Context, _ []event.Logged) error { return takes(time.Second, nil)(ctx, nil) }
		var subjects []string
		for i := range 1000 {
			subjects = append(subjects, []string{"a", "b", fmt.Sprint("s", i)}[i%3])
		}
		r.log(subjects...)
		begin := time.Now()
		stop := r.start(batching(to("crm", v), 50, time.Hour))
		time.Sleep(time.Minute)
		stop()
		if m := v.missing(); len(m) > 0 || v.total() > 30 {
			t.Errorf("missing %d, %d requests for 1000 events", m, v.total())
		}
		if slices.Index(v.order, 1) > 3 || v.sent()[0] != 50 {
			t.Errorf("began with batches of %d events at %d", v.sent()[:4], v.order[:4])
		}
		if last := v.at[len(v.at)-1].Sub(begin); last > 30*time.Second {
			t.Errorf("the last batch left after %s", last)
		}
	})
}

// A batch that is not full waits for more, since its oldest event was recorded, and
// no longer than that.
func TestBatchWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 4)
		v.batch = 5
		stop := r.start(batching(to("crm", v), 5, 10*time.Second))
		r.log("a")
		for range 3 {
			time.Sleep(3 * time.Second)
			r.log("a")
		}
		settle()
		if v.total() != 0 {
			t.Errorf("%d requests after 9 s", v.total())
		}
		time.Sleep(time.Second)
		settle()
		if !slices.Equal(v.sent(), []int{4}) {
			t.Errorf("requests of %d events after 10 s", v.sent())
		}
		r.log("a", "b", "a", "b", "a", "b") // a full one does not wait
		settle()
		if !slices.Equal(v.sent(), []int{4, 5}) {
			t.Errorf("requests of %d events", v.sent())
		}
		time.Sleep(10 * time.Second)
		settle()
		stop()
		if !slices.Equal(v.sent(), []int{4, 5, 1}) || len(v.missing()) > 0 {
			t.Errorf("requests of %d events", v.sent())
		}
	})
}

// A batch has at most a mebibyte; an event that is larger goes alone.
func TestBatchBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 1)
		v.batch = 100
		r.large = 300 << 10
		r.log("a", "b", "c", "d", "e", "f", "g")
		r.large = 2 << 20
		r.log("h")
		r.large = 0
		r.log("i", "j")
		stop := r.start(batching(to("crm", v), 100, 0))
		time.Sleep(time.Second)
		stop()
		if !slices.Equal(v.sent(), []int{3, 3, 1, 1, 2}) || len(v.missing()) > 0 {
			t.Errorf("requests of %d events, missing %d", v.sent(), v.missing())
		}
	})
}

// A batch that fails is sent again as it is, also after a restart. One that is
// refused for good, or fails twice while others are acknowledged, goes event by
// event, so that what is wrong with one event is its own trouble.
func TestBatchOfPoison(t *testing.T) {
	for _, how := range []error{&sink.Error{Kind: sink.Permanent, Status: 400}, &sink.Error{Status: 500}} {
		t.Run(how.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				v := newReceiver(r, 2)
				v.batch = 10
				v.answer = func(_ context.Context, e *event.Logged) error {
					if e.Sequence == 4 {
						return how
					}
					return nil
				}
				var subjects []string
				for i := range 40 {
					subjects = append(subjects, fmt.Sprint("s", i%8))
				}
				r.log(subjects...)
				s := batching(retrying(to("crm", v), 10*time.Second, 20*time.Second), 10, 0)
				stop := r.start(s)
				for i := range 300 {
					time.Sleep(time.Second)
					if r.log("other"); i == 1 {
						stop()
						stop = r.start(s)
					}
				}
				settle()
				stop()
				if m := v.missing(); !slices.Equal(m, []uint64{4, 12, 20, 28, 36}) {
					t.Errorf("missing %d: what is behind the poison waits, and nothing else", m)
				}
				tries := v.triesOf(1)
				if len(tries) > 5 {
					t.Errorf("an event beside the poison was sent %d times", len(tries))
				}
				if sink.AsError(how).Kind == sink.Permanent && (len(tries) != 2 || tries[1].Sub(tries[0]) > time.Second) {
					t.Errorf("an event beside what was refused was sent at %v", tries)
				}
			})
		})
	}
}

// Where the configuration stops batching, what was saved as a batch goes event by
// event: batches on their way and such as wait in the queue.
func TestBatchingSwitchedOff(t *testing.T) {
	for _, drained := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			v := newReceiver(r, 2)
			v.batch = 4
			v.whole = func(ctx context.Context, events []event.Logged) error {
				if events[0].Sequence == 1 {
					return errors.New("500")
				}
				return takes(time.Hour, nil)(ctx, nil)
			}
			r.log("a", "a", "b", "c", "d", "a", "b", "e")
			stop := r.start(batching(to("crm", v), 4, 0))
			time.Sleep(time.Second)
			stop() // the second batch is given up waiting for, and stays saved
			s, err := r.db.OpenSink("crm", "webhook", true, time.Now())
			if err != nil || len(s.Batches) != 1 {
				t.Fatalf("%+v %v", s, err)
			}
			v.whole, v.batch = nil, 1
			if drained {
				if left, err := r.new(to("crm", v)).Drain(t.Context()); err != nil || len(left) > 1 {
					t.Fatal(left, err)
				}
			}
			stop = r.start(to("crm", v))
			time.Sleep(time.Hour)
			stop()
			if m := v.missing(); len(m) > 0 || r.backlog("crm") > 0 {
				t.Errorf("missing %d", m)
			}
			if _, err := r.db.BatchEvents("crm", 1); err != nil {
				t.Error(err)
			}
			if s, err := r.db.OpenSink("crm", "webhook", true, time.Now()); err != nil || len(s.Batches) > 0 {
				t.Errorf("%+v %v", s, err)
			}
		})
	}
}

// A batch of an earlier process goes first and as it is, however much smaller the
// window is now, and events of its subjects stay behind it.
func TestSavedBatchBeyondTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var subjects []string
		for i := range 3000 {
			subjects = append(subjects, fmt.Sprint("s", i%1500))
		}
		r.log(subjects...)
		r.position("crm")
		if err := r.db.Settle("crm", time.Now(), state.Settlement{Batches: []state.Batch{{Members: []uint64{5, 2995}}}, Ahead: []uint64{1495, 2}}); err != nil {
			t.Fatal(err)
		}
		v := newReceiver(r, 1)
		v.batch, v.acked[1495], v.acked[2] = 2, 1, 1
		v.whole = func(ctx context.Context, _ []event.Logged) error { return takes(time.Second, nil)(ctx, nil) }
		s := batching(to("crm", v), 2, 0)
		stop := r.start(s)
		time.Sleep(5 * time.Second)
		stop() // what is done beyond the window stays so
		stop = r.start(s)
		time.Sleep(time.Hour)
		stop()
		if m := v.missing(); len(m) > 0 || r.backlog("crm") > 0 || v.members[5] != "[5 2995]" || v.order[0] != 5 {
			t.Errorf("missing %d, %d left, %s", m, r.backlog("crm"), v.members[5])
		}
		if n := len(v.triesOf(2995)) + len(v.triesOf(1495)); n != 1 {
			t.Errorf("%d tries", n)
		}
	})
}

// What waits in the queue behind an event that failed goes in batches too, as full
// as its subjects allow: after an outage, and after a batch was taken apart.
func TestBatchesAfterAnOutage(t *testing.T) {
	for _, drained := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			v := newReceiver(r, 8)
			v.batch = 100
			var up atomic.Bool
			v.whole = func(ctx context.Context, _ []event.Logged) error {
				if !up.Load() {
					return takes(50*time.Millisecond, &sink.Error{Status: 503})(ctx, nil)
				}
				return takes(50*time.Millisecond, nil)(ctx, nil)
			}
			s := batching(to("crm", v), 100, 0)
			stop := r.start(s)
			for i := range 100 {
				var subjects []string
				for j := range 100 {
					subjects = append(subjects, fmt.Sprint("s", (i*7+j)%30))
				}
				r.log(subjects...)
				time.Sleep(36 * time.Second)
			}
			settle()
			down := v.total()
			up.Store(true)
			if drained {
				stop()
				if left, err := r.new(s).Drain(t.Context()); err != nil || len(left) > 0 {
					t.Error(left, err)
				}
			} else {
				time.Sleep(2 * time.Hour)
				stop()
			}
			n, events := v.total()-down, 0
			for _, size := range v.sent()[down:] {
				events += size
			}
			t.Logf("%d requests while it was down, then %d for %d events (%.4f each)", down, n, events, float64(n)/float64(events))
			if m := v.missing(); len(m) > 0 || r.backlog("crm") > 0 || events > 10_100 || n > 250 {
				t.Errorf("missing %d, %d left", len(m), r.backlog("crm"))
			}
			if err := r.db.Check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A batch of the queue is saved before it is sent, and is the same after the
// process has died on the way; a batch of one too.
func TestBatchOfTheQueueIsSaved(t *testing.T) {
	for _, subjects := range [][]string{{"a", "a", "b", "a", "b", "c"}, {"a"}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			v := newReceiver(r, 2)
			v.batch = 10
			v.whole = takesAll(time.Second)
			r.log(subjects...)
			r.position("crm")
			var failed []state.Failed
			for i, s := range subjects {
				f := state.Failed{Seq: uint64(i + 1), Key: "shop-a/" + s, Next: time.Now()}
				failed = append(failed, f)
			}
			if err := r.db.Settle("crm", time.Now(), state.Settlement{Position: uint64(len(subjects)), Failed: failed}); err != nil {
				t.Fatal(err)
			}
			s := batching(to("crm", v), 10, 0)
			stop := r.start(s)
			time.Sleep(500 * time.Millisecond)
			r.mu.Lock()
			r.killLocked()
			r.mu.Unlock()
			time.Sleep(time.Second)
			stop()
			r.restart()
			v.died()
			r.log("a", "d", "e")
			stop = r.start(s)
			time.Sleep(time.Minute)
			stop()
			all := v.members[1]
			if m := v.missing(); len(m) > 0 || len(v.triesOf(1)) != 2 || v.sent()[0] != len(subjects) || all != fmt.Sprint(sequencesTo(len(subjects))) {
				t.Errorf("missing %d, requests of %d events, the first %s", m, v.sent(), all)
			}
			if err := r.db.Check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// takesAll is an answer to a whole request.
func takesAll(d time.Duration) func(context.Context, []event.Logged) error {
	return func(ctx context.Context, _ []event.Logged) error { return takes(d, nil)(ctx, nil) }
}

func sequencesTo(n int) (out []uint64) {
	for i := range n {
		out = append(out, uint64(i+1))
	}
	return out
}
