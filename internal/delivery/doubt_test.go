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
	"syncd/internal/state"
)

// More batches than slots wait in the queue when batching is switched off: they go
// event by event, and the worker goes on to answer.
func TestManyBatchesSwitchedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 2)
		v.batch = 4
		v.whole = func(context.Context, []event.Logged) error { return errors.New("500") }
		for i := range 40 {
			r.log(fmt.Sprint("s", i))
		}
		stop := r.start(batching(to("crm", v), 4, 0))
		time.Sleep(time.Second)
		stop()
		if heads, _ := r.db.Heads("crm", "", 100); len(heads) <= 2 {
			t.Fatalf("%d heads wait", len(heads))
		}
		v.whole, v.batch = nil, 1
		time.Sleep(time.Hour)
		stop = r.start(to("crm", v))
		time.Sleep(time.Hour)
		stop()
		if m := v.missing(); len(m) > 0 {
			t.Errorf("%d are missing", len(m))
		}
	})
}

// One event on which the receiver chokes holds up the others of its batch for one
// repeat, also where nothing else is there to show that the endpoint works.
func TestBatchWithOneThatFails(t *testing.T) {
	for _, bad := range []int{1, 5} { // batches with such an event
		t.Run(fmt.Sprint(bad), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				v := newReceiver(r, 8)
				v.batch = 10
				v.whole = func(_ context.Context, events []event.Logged) error {
					for i := range events {
						if strings.HasPrefix(events[i].PartitionKey, "shop-a/bad") {
							return &sink.Error{Status: 500}
						}
					}
					return nil
				}
				for b := range bad {
					for i := range 9 {
						r.log(fmt.Sprint("s", b, i))
					}
					r.log(fmt.Sprint("bad", b))
				}
				stop := r.start(batching(to("crm", v), 10, 0))
				time.Sleep(5 * time.Minute)
				stop()
				if n := r.backlog("crm"); n != bad {
					t.Errorf("%d wait, want %d", n, bad)
				}
			})
		})
	}
}

// A burst of subjects that fail looks like an outage. Probes find the others soon,
// although they come behind them in the log.
func TestProbesFindTheHealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 8)
		v.answer = func(_ context.Context, e *event.Logged) error {
			if strings.HasPrefix(e.PartitionKey, "shop-a/bad") {
				return &sink.Error{Status: 500}
			}
			return nil
		}
		for i := range 60 {
			r.log(fmt.Sprint("bad", i))
		}
		for i := range 500 {
			r.log(fmt.Sprint("ok", i))
		}
		stop := r.start(to("crm", v))
		time.Sleep(5 * time.Minute)
		stop()
		if n := r.backlog("crm"); n != 60 {
			t.Errorf("%d wait, want the 60 that fail", n)
		}
	})
}

// A process that begins while its endpoint is down sends it no burst.
func TestDoubtAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 64)
		v.answer = func(context.Context, *event.Logged) error { return &sink.Error{Status: 500} }
		for i := range 2000 {
			r.log(fmt.Sprint("s", i))
		}
		stop := r.start(to("crm", v))
		time.Sleep(time.Minute)
		stop()
		before := v.total()
		for range 20 {
			stop := r.start(to("crm", v))
			time.Sleep(3 * time.Second)
			stop()
		}
		if n := v.total() - before; n > 60 {
			t.Errorf("20 processes of 3 s made %d requests", n)
		}
		v.answer = nil
		stop = r.start(to("crm", v))
		time.Sleep(2 * time.Minute)
		stop()
		if n := r.backlog("crm"); n > 200 { // what was tried waits for its time
			t.Errorf("%d wait", n)
		}
	})
}

// Dead letters that are refused again say nothing about the endpoint.
func TestRetriedPoisonIsNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 8)
		v.answer = func(_ context.Context, e *event.Logged) error {
			if strings.HasPrefix(e.PartitionKey, "shop-a/p") {
				return &sink.Error{Kind: sink.Permanent, Status: 422}
			}
			return nil
		}
		d, stop := r.startAs(with(to("crm", v), func(s *delivery.Sink) { s.MaxRefusals = 1 }))
		for i := range 100 {
			r.log(fmt.Sprint("ok", i), fmt.Sprint("p", i))
			time.Sleep(time.Second)
		}
		if _, err := r.db.RetryDeadLetters(t.Context(), "crm", "", time.Now()); err != nil {
			t.Fatal(err)
		}
		d.Wake("crm")
		for i := range 20 {
			time.Sleep(7 * time.Second)
			r.log(fmt.Sprint("live", i))
			settle()
			if seq, _ := r.db.LastSequence(); len(v.triesOf(seq)) == 0 {
				t.Fatalf("live event %d waits", i)
			}
		}
		stop()
		if strings.Contains(r.out.String(), "endpoint is down") {
			t.Error("the endpoint was taken for down")
		}
	})
}

// An attempt under a clock that cannot be believed does not make its event too old.
func TestFirstAttemptWithoutClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 8)
		v.answer = func(context.Context, *event.Logged) error { return &sink.Error{Status: 500} }
		r.untrusted.Store(true)
		r.log("a")
		stop := r.start(with(to("crm", v), func(s *delivery.Sink) { s.GiveUpAfter = 96 * time.Hour }))
		time.Sleep(200 * time.Hour)
		r.untrusted.Store(false)
		time.Sleep(90 * time.Hour)
		if h, ok, err := r.db.Head("crm", state.Live, "shop-a/a"); err != nil || !ok || h.Attempts < 100 {
			t.Fatalf("it does not wait any more: %+v, %v", h, err)
		}
		time.Sleep(8 * time.Hour)
		if n := len(r.dead()); n != 1 {
			t.Errorf("%d dead letters", n)
		}
		stop()
	})
}

// An operator can lift what a receiver has asked for.
func TestResumeLiftsHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 8)
		var back atomic.Bool
		v.answer = func(context.Context, *event.Logged) error {
			if back.Load() {
				return nil
			}
			return &sink.Error{Status: 503, RetryAfter: 24 * time.Hour}
		}
		r.log("a")
		d, stop := r.startAs(to("crm", v))
		time.Sleep(time.Minute)
		back.Store(true)
		if err := d.Resume("crm"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := r.backlog("crm"); n != 0 {
			t.Errorf("%d wait", n)
		}
		stop()
		if s, err := r.db.OpenSink("crm", "webhook", true, time.Now()); err != nil || !s.Hold.IsZero() {
			t.Errorf("held until %s, %v", s.Hold, err)
		}
	})
}
