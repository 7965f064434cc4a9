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

// A dead endpoint is probed with one request at a time, of another subject each
// time, untried ones first; the first acknowledgement ends the outage.
func TestParallelDownEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 8)
		var up atomic.Bool
		v.answer = func(ctx context.Context, e *event.Logged) error {
			if !up.Load() {
				return takes(50*time.Millisecond, &sink.Error{Status: 503})(ctx, e)
			}
			return nil
		}
		var subjects []string
		for i := range 3000 {
			subjects = append(subjects, fmt.Sprint("s", i))
		}
		r.log(subjects...)
		stop := r.start(delivery.Sink{Name: "crm", Sink: v})
		time.Sleep(time.Hour)
		settle()
		if n := v.total(); n < 50 || n > 110 {
			t.Errorf("%d requests in an hour to a dead endpoint", n)
		}
		v.mu.Lock()
		// Before the endpoint counts as down a first retry may be due already.
		again := 0
		for _, seq := range v.order[24:] {
			if len(v.tries[seq]) > 1 {
				again++
			}
		}
		if again > 0 {
			t.Errorf("%d of %d probes took a subject again: untried ones come first", again, len(v.order))
		}
		var first time.Duration // between those that were in flight when it went down and the first probe
		for i := 1; first < time.Second; i++ {
			first = v.tries[v.order[i]][0].Sub(v.tries[v.order[i-1]][0])
		}
		v.mu.Unlock()
		if first > 6*time.Second {
			t.Errorf("the first probe came after %s", first)
		}
		if n := strings.Count(r.out.String(), "the endpoint is down"); n != 1 {
			t.Errorf("down was said %d times", n)
		}
		up.Store(true)
		time.Sleep(time.Minute + time.Second)
		settle()
		if m := v.missing(); len(m) > 100 { // those that were tried wait for their own time
			t.Errorf("%d are missing a minute after the endpoint came back", len(m))
		}
		time.Sleep(time.Hour)
		stop()
		if m := v.missing(); len(m) > 0 {
			t.Errorf("missing %d", m)
		}
	})
}

// Retry-After holds back the whole endpoint, at most a day, also after a restart
// what waits in the queue.
func TestParallelRetryAfter(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{90 * time.Second: 90 * time.Second, 100 * time.Hour: 24 * time.Hour} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprint(asked, restart), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t)
					v := newReceiver(r, 1)
					begin := time.Now()
					v.answer = func(context.Context, *event.Logged) error {
						if time.Since(begin) < want {
							return &sink.Error{Status: 429, RetryAfter: asked}
						}
						return nil
					}
					r.log("a", "a")
					stop := r.start(delivery.Sink{Name: "crm", Sink: v})
					settle()
					if restart {
						stop()
						stop = r.start(delivery.Sink{Name: "crm", Sink: v})
					} else {
						r.log("b", "c")
					}
					time.Sleep(want - time.Second)
					settle()
					if v.total() != 1 {
						t.Errorf("%d requests while it asked to be left alone", v.total())
					}
					time.Sleep(2 * time.Second)
					stop()
					if m := v.missing(); len(m) > 0 {
						t.Errorf("missing %d", m)
					}
				})
			})
		}
	}
}

// Where all subjects have been tried, a dead endpoint is probed with another one
// each time.
func TestParallelProbesInTurn(t *testing.T) {
	for _, most := range []time.Duration{10 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			v := newReceiver(r, 8)
			v.answer = takes(time.Second, errors.New("timeout"))
			r.log("a", "b", "c", "d", "e", "f")
			stop := r.start(delivery.Sink{Name: "crm", Sink: v, RetryInitial: time.Second, RetryMax: most})
			time.Sleep(24 * time.Hour)
			stop()
			same := 0
			for i := 24; i < len(v.order); i++ { // two rounds of eight, and what was in flight then
				if v.order[i] == v.order[i-1] {
					same++
				}
			}
			if n := len(v.order); n < 200 || n > 2000 || same > 0 {
				t.Errorf("%d probes in a day, %d of the subject before", n, same)
			}
		})
	}
}
