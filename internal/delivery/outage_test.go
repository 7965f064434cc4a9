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

// A dead endpoint is probed with one request at a time, of another subject each
// time, an untried one first and then by turns; the first acknowledgement ends the
// outage.
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
		stop := r.start(to("crm", v))
		time.Sleep(time.Hour)
		settle()
		if n := v.total(); n < 50 || n > 110 {
			t.Errorf("%d requests in an hour to a dead endpoint", n)
		}
		v.mu.Lock()
		seen, again := make(map[uint64]bool), 0
		for i, seq := range v.order {
			if seen[seq] && i >= 32 { // two rounds of eight, what was in flight then, and first retries
				again++
			}
			seen[seq] = true
		}
		if n := len(v.order) - 32; again > n/2+1 {
			t.Errorf("%d of %d probes took a subject again: every second one is of an untried subject", again, n)
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

// Retry-After holds back the whole endpoint, at most a day, also after a restart.
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
					stop := r.start(to("crm", v))
					settle()
					if restart {
						stop()
						stop = r.start(to("crm", v))
					}
					r.log("b", "c")
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
	for most, probes := range map[time.Duration]int{10 * time.Second: 12_000, time.Hour: 2000} { // in a day; with jitter
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			v := newReceiver(r, 8)
			v.answer = takes(time.Second, errors.New("timeout"))
			r.log("a", "b", "c", "d", "e", "f")
			stop := r.start(retrying(to("crm", v), time.Second, most))
			time.Sleep(24 * time.Hour)
			stop()
			same := 0
			begin := v.tries[v.order[0]][0]
			seen := make(map[uint64]int)
			for i, seq := range v.order {
				at := v.tries[seq][seen[seq]]
				seen[seq]++
				// So few subjects take a minute until the endpoint counts as down.
				if at.Sub(begin) > 2*time.Minute && seq == v.order[i-1] {
					same++
				}
			}
			if n := len(v.order); n < probes/10 || n > probes || same > 0 {
				t.Errorf("%d probes in a day, %d of the subject before", n, same)
			}
		})
	}
}

// A pause that nobody can have asked for is not kept: a clock was wrong.
func TestParallelHoldOfAWrongClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 1)
		r.log("a")
		r.position("crm")
		until := time.Now().Add(25 * time.Hour)
		if err := r.db.Settle("crm", time.Now(), state.Settlement{Hold: &until}); err != nil {
			t.Fatal(err)
		}
		stop := r.start(to("crm", v))
		settle()
		stop()
		if m := v.missing(); len(m) > 0 {
			t.Errorf("missing %d", m)
		}
	})
}

// 410 pauses the sink until it is resumed, also across restarts, and is told once.
func TestParallelGone(t *testing.T) {
	for _, batch := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			v := newReceiver(r, 2)
			v.batch = batch
			var back atomic.Bool
			v.whole = func(ctx context.Context, _ []event.Logged) error {
				if !back.Load() {
					return takes(time.Second, &sink.Error{Kind: sink.Gone, Status: 410, Excerpt: "moved away"})(ctx, nil)
				}
				return nil
			}
			s := with(to("crm", v), func(s *delivery.Sink) { s.BatchEvents = batch })
			r.log("a", "b", "c", "d", "e", "f", "g", "h")
			d, stop := r.startAs(s)
			time.Sleep(time.Hour)
			if n := v.total(); n > 2 {
				t.Errorf("%d requests: what was in flight lands, and that is all", n)
			}
			if st := d.Status()[0]; st.Gone == nil || st.Gone.Answer != "moved away" || st.Down {
				t.Errorf("%+v", st)
			}
			stop()
			if n := strings.Count(r.out.String(), "answered 410"); n != 1 {
				t.Errorf("told %d times", n)
			}
			d, stop = r.startAs(s)
			r.log("i")
			time.Sleep(100 * time.Hour)
			left, err := r.new(s).Drain(t.Context())
			if n := v.total(); n > 2 || err != nil || len(left) != 1 || !strings.Contains(left[0].Err.Error(), "syncd sinks resume crm") {
				t.Errorf("%d requests after a restart, left %+v, %v", n, left, err)
			}
			if err := d.Resume("crm"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			if n := v.total(); n < 3 || n > 4 {
				t.Errorf("%d requests after it was resumed too early", n-2)
			}
			back.Store(true)
			if err := d.Resume("crm"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			if st := d.Status()[0]; st.Gone != nil {
				t.Errorf("%+v", st)
			}
			stop()
			if m := v.missing(); len(m) > 0 {
				t.Errorf("missing %d", m)
			}
			if err := d.Resume("erp"); err == nil {
				t.Error("a sink was resumed that is none")
			}
		})
	}
}

// Where only events fail that had failed before, a fresh one is tried at once: the
// endpoint may be well.
func TestParallelOnlyTheOldFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 2)
		v.answer = func(_ context.Context, e *event.Logged) error {
			if e.Sequence <= 6 {
				return &sink.Error{Status: 500}
			}
			return nil
		}
		r.log("a", "b", "c", "d", "e", "f")
		stop := r.start(retrying(to("crm", v), time.Second, 20*time.Minute))
		for i := range 20 {
			time.Sleep(time.Hour)
			r.log(fmt.Sprint("x", i))
			settle()
			if tries := v.triesOf(uint64(7 + i)); i > 0 && (len(tries) != 1 || time.Since(tries[0]) > 0) {
				t.Errorf("event %d was tried at %v", 7+i, tries)
			}
			time.Sleep(time.Minute)
		}
		stop()
	})
}

// Status says what an operator needs to know of an outage, and that it is over.
func TestParallelStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 2)
		var up atomic.Bool
		v.answer = func(ctx context.Context, _ *event.Logged) error {
			if up.Load() {
				return takes(time.Second, nil)(ctx, nil)
			}
			return takes(time.Second, &sink.Error{Status: 503, RetryAfter: time.Minute})(ctx, nil)
		}
		begin := time.Now()
		d, stop := r.startAs(to("crm", v))
		r.log("a", "b", "c", "d", "e", "f", "g", "h", "i")
		settle()
		if st := d.Status()[0]; st.Name != "crm" || st.Type != "webhook" || st.InFlight != 2 || st.Down || st.LastError != "" {
			t.Errorf("%+v", st)
		}
		time.Sleep(1500 * time.Millisecond)
		if st := d.Status()[0]; !st.Hold.Equal(begin.Add(61*time.Second)) || st.LastError != "answer 503" || !st.LastErrorAt.Equal(begin.Add(time.Second)) || st.InFlight != 0 {
			t.Errorf("%+v", st)
		}
		time.Sleep(time.Hour)
		if st := d.Status()[0]; !st.Down || st.DownSince.Before(begin) || st.DownSince.After(begin.Add(5*time.Minute)) || !st.LastAck.IsZero() {
			t.Errorf("%+v", st)
		}
		up.Store(true)
		time.Sleep(5 * time.Minute)
		if st := d.Status()[0]; st.Down || !st.DownSince.IsZero() || time.Since(st.LastAck) > 5*time.Minute {
			t.Errorf("%+v", st)
		}
		stop()
	})
}

// A receiver that works by turns for an hour costs a few lines: its first failure,
// that it does so, and its recovery with how often it failed, soon after it is calm
// and whether or not anything else comes. An outage after that is a new one.
func TestFlappingEndpoint(t *testing.T) {
	for _, limit := range []int{1, 8} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { flapping(t, limit) })
		})
	}
}

func flapping(t *testing.T, limit int) {
	r := newRig(t)
	v := newReceiver(r, limit)
	var up atomic.Bool
	failed := 0
	v.answer = func(context.Context, *event.Logged) error {
		if up.Load() {
			return nil
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		failed++
		return &sink.Error{Status: 500}
	}
	stop := r.start(retrying(to("crm", v), time.Second, 2*time.Second))
	lines := func(text string) int {
		settle()
		return strings.Count(r.out.String(), text)
	}
	turn := func(d time.Duration) {
		up.Store(false)
		for i := range 20 {
			r.log(fmt.Sprint("s", i))
		}
		time.Sleep(d)
		up.Store(true)
		time.Sleep(d)
	}
	turn(20 * time.Second)
	if down, works := lines("endpoint is down"), lines("sink works again"); down != 1 || works != 1 {
		t.Errorf("the first outage was told %d times, its end %d times\n%s", down, works, r.out.String())
	}
	for range 90 {
		turn(20 * time.Second)
	}
	if n := lines("\n"); n > 7 || lines("sink works again") != 1 {
		t.Errorf("%d lines in an hour:\n%s", n, r.out.String())
	}
	if lines("fails and works by turns") != 1 {
		t.Errorf("nobody was told that it works by turns:\n%s", r.out.String())
	}
	time.Sleep(11 * time.Minute)
	if lines("sink works again") != 2 {
		t.Errorf("the recovery was not told:\n%s", r.out.String())
	}
	told := 0
	for _, line := range strings.Split(r.out.String(), "\n") {
		if _, after, ok := strings.Cut(line, "after_failures="); ok {
			n := 0
			if _, err := fmt.Sscan(after, &n); err != nil {
				t.Error(err)
			}
			told += n
		}
	}
	v.mu.Lock()
	if told != failed {
		t.Errorf("%d failures were told of %d", told, failed)
	}
	v.mu.Unlock()
	time.Sleep(time.Hour)
	turn(20 * time.Second)
	if lines("sink works again") != 3 || lines("by turns") != 1 {
		t.Errorf("a new outage was not told as such:\n%s", r.out.String())
	}
	stop()
}
