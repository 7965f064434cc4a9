package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/delivery"
	"syncd/internal/event"
	"syncd/internal/sink"
	"syncd/internal/state"
)

// takes is an answer that comes after a while, if the sender waits for it.
func takes(d time.Duration, err error) func(context.Context, *event.Logged) error {
	return func(ctx context.Context, _ *event.Logged) error {
		select {
		case <-time.After(d):
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func TestParallelDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 4)
		v.answer = takes(100*time.Millisecond, nil)
		for i := range 10 {
			r.log("a", "b", fmt.Sprint("c", i), "a", fmt.Sprint("x", i))
		}
		v.wants = func(seq uint64) bool { return !strings.HasPrefix(r.key(seq), "shop-a/x") }
		stop := r.start(wanting(to("crm", v)))
		time.Sleep(time.Minute)
		stop()
		if m := v.missing(); len(m) > 0 || v.total() != 40 || v.most != 4 || r.backlog("crm") != 0 {
			t.Errorf("missing %d, %d deliveries, %d at once, %d left", m, v.total(), v.most, r.backlog("crm"))
		}
	})
}

// Events that nobody wants must not stop the sink, however many there are.
func TestParallelSkips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.log(slices.Repeat([]string{"x"}, 5000)...)
		stop := r.start(wanting(to("crm", newReceiver(r, 2))))
		settle()
		if r.backlog("crm") != 0 {
			t.Error(r.backlog("crm"))
		}
		stop()
	})
}

// A subject that fails for ever holds back itself, in order, and nobody else.
func TestParallelOnePoisonSubject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 2)
		v.answer = func(_ context.Context, e *event.Logged) error {
			if e.PartitionKey == "shop-a/poison" {
				return &sink.Error{Kind: sink.Permanent, Status: 400}
			}
			return nil
		}
		stop := r.start(to("crm", v))
		for i := range 200 {
			r.log("poison", "a", fmt.Sprint("b", i))
			time.Sleep(time.Second)
			settle()
			if tries := v.triesOf(uint64(3*i + 2)); len(tries) != 1 || time.Since(tries[0]) > time.Second {
				t.Fatalf("event %d was tried at %v", 3*i+2, tries)
			}
		}
		if w, _ := r.db.Waiting("crm"); w != 200 || r.position("crm") != 600 {
			t.Errorf("%d wait, position %d", w, r.position("crm"))
		}
		stop()
		if n := len(v.triesOf(1)); n < 4 || n > 25 {
			t.Errorf("%d tries in 200 s", n)
		}
		if len(v.triesOf(4)) != 0 {
			t.Error("a later event of the subject was tried")
		}
	})
}

// Backoff is counted from the event's own first attempt, has full jitter within
// its bounds, and goes on after a restart; the attempt is durable before it is
// sent.
func TestParallelBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var long time.Duration
		for range 40 { // one alone never counts as an outage
			v := newReceiver(r, 2)
			v.answer = takes(3*time.Second, errors.New("timeout"))
			if len(r.logged) == 0 {
				r.log("a")
			}
			stop := r.start(retrying(to("crm", v), 4*time.Second, 16*time.Second))
			time.Sleep(time.Minute)
			stop()
			tries := v.triesOf(1)
			for i := 1; i < len(tries); i++ {
				gap := tries[i].Sub(tries[i-1]) - 3*time.Second
				long = max(long, gap)
				if gap <= 0 || gap > 16*time.Second+time.Millisecond {
					t.Errorf("%s after a failure", gap)
				}
			}
			if h, ok, err := r.db.Head("crm", state.Live, "shop-a/a"); !ok || err != nil || h.First.After(time.Now().Add(-time.Minute)) {
				t.Fatalf("%+v %v", h, err)
			}
		}
		if long < 8*time.Second {
			t.Errorf("the longest wait was %s of 16 s", long)
		}
		h, _, _ := r.db.Head("crm", state.Live, "shop-a/a")
		if h.Attempts < 40*3 || h.Error != "timeout" {
			t.Errorf("%+v", h)
		}
	})
}

// A crash while a retry is on its way costs the wait until the next, not a hot
// loop.
func TestParallelCrashLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.log("a")
		begin, tries := time.Now(), 0
		for time.Since(begin) < time.Hour {
			v := newReceiver(r, 2)
			v.answer = func(context.Context, *event.Logged) error {
				r.mu.Lock()
				defer r.mu.Unlock()
				if len(r.logged) > 0 && tries > 0 {
					r.killLocked()
				}
				return errors.New("500")
			}
			stop := r.start(retrying(to("crm", v), time.Second, 5*time.Minute))
			for range 100 {
				time.Sleep(100 * time.Millisecond)
				settle()
				if r.isKilled() {
					break
				}
			}
			stop()
			tries += v.total()
			if r.isKilled() {
				r.restart()
			}
		}
		if tries > 80 {
			t.Errorf("%d tries in an hour of crashes", tries)
		}
	})
}

// A dead sink slows nobody else.
func TestDeadSinkSlowsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := newRig(t), &medium{}
		dead, alive := newReceiver(r, 4), newReceiver(r, 4)
		dead.answer = takes(24*time.Hour, errors.New("timeout"))
		stuck := &paper{r: r, medium: &medium{}, fail: func(int, *[]string, []string) error { return errBroken }}
		stop := r.start(to("dead", dead), to("alive", alive),
			to("archive", &paper{r: r, medium: m}), to("stuck", stuck))
		for i := range 100 {
			r.log("a", fmt.Sprint("b", i))
			settle()
			if len(alive.missing()) > 0 {
				t.Fatalf("missing %d", alive.missing())
			}
		}
		time.Sleep(time.Second) // a file is written in pieces
		settle()
		r.wantLines(m, nil)
		stop()
	})
}

// What waits in memory is bounded, and a front that hangs is moved out of the way.
func TestParallelWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 2)
		release := make(chan struct{})
		v.answer = func(_ context.Context, e *event.Logged) error {
			if e.Sequence == 1 {
				<-release
			}
			return nil
		}
		var subjects []string
		for i := range 5000 {
			subjects = append(subjects, fmt.Sprint("s", i%700))
		}
		r.log(subjects...)
		stop := r.start(to("crm", v))
		time.Sleep(500 * time.Millisecond)
		settle()
		if n := v.total(); n > 1024 || n < 1000 {
			t.Errorf("%d were taken from the log behind one that hangs", n)
		}
		time.Sleep(time.Minute)
		settle()
		if n, hung := len(v.missing()), 5000/700+1; n != hung {
			t.Errorf("%d wait, and %d are of the subject that hangs", n, hung)
		}
		close(release)
		time.Sleep(time.Minute)
		stop()
		if m := v.missing(); len(m) > 0 {
			t.Errorf("missing %d", m)
		}
	})
}

// Shutdown lets what is in flight finish within the grace period, and commits
// what was acknowledged.
func TestParallelShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 4)
		v.answer = func(ctx context.Context, e *event.Logged) error {
			if e.PartitionKey == "shop-a/hangs" {
				return takes(time.Hour, nil)(ctx, e)
			}
			return takes(5*time.Second, nil)(ctx, e)
		}
		r.log("a", "b", "a", "hangs")
		begin := time.Now()
		stop := r.start(to("crm", v))
		time.Sleep(time.Second)
		stop()
		if d := time.Since(begin); d != 11*time.Second {
			t.Errorf("stopped after %s", d)
		}
		if !slices.Equal(v.missing(), []uint64{3, 4}) || r.position("crm") != 2 {
			t.Errorf("missing %d, position %d", v.missing(), r.position("crm"))
		}
		v = newReceiver(r, 4)
		v.acked[1], v.acked[2] = 1, 1
		stop = r.start(to("crm", v))
		time.Sleep(time.Minute)
		stop()
		if m := v.missing(); len(m) > 0 || v.total() != 2 {
			t.Errorf("missing %d, %d deliveries", m, v.total())
		}
	})
}

// A subject with many events holds up the position for no longer than its own turns
// take, and a stop in good order repeats nothing that was acknowledged.
func TestParallelStopRepeatsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 8)
		v.answer = takes(time.Second, nil)
		for range 60 {
			r.log("busy")
		}
		for i := range 300 {
			r.log(fmt.Sprint("other", i))
		}
		s := retrying(to("crm", v), time.Second, time.Minute)
		for range 20 {
			stop := r.start(s)
			time.Sleep(7500 * time.Millisecond)
			stop()
			if len(v.missing()) == 0 {
				break
			}
		}
		if m := v.missing(); len(m) > 0 || v.total() != 360 {
			t.Errorf("%d deliveries of 360 events, %d missing", v.total(), len(m))
		}
		if r.backlog("crm") != 0 {
			t.Errorf("%d left", r.backlog("crm"))
		}
	})
}

// Drain tries every waiting subject once, whatever its time, then the log, and
// reports what is left.
func TestParallelDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 4)
		mode := "dead"
		v.answer = func(ctx context.Context, e *event.Logged) error {
			if mode == "dead" || mode == "poison" && e.PartitionKey == "shop-a/s7" {
				return takes(time.Second, &sink.Error{Status: 500})(ctx, e)
			}
			if mode == "hold" {
				return &sink.Error{Status: 429, RetryAfter: time.Hour}
			}
			return nil
		}
		var subjects []string
		for i := range 250 {
			subjects = append(subjects, fmt.Sprint("s", i%120))
		}
		r.log(subjects...)
		drain := func(want int) {
			t.Helper()
			left, err := r.new(to("crm", v)).Drain(t.Context())
			if err != nil || (len(left) == 0) != (want == 0) || want > 0 && (left[0].Events != want || left[0].Err == nil) {
				t.Fatalf("%+v %v, want %d", left, err, want)
			}
			if err := r.db.Check(); err != nil {
				t.Fatal(err)
			}
		}
		drain(250)
		if v.total() != 120 {
			t.Errorf("%d requests for 120 subjects", v.total())
		}
		drain(250) // from the queue, once more
		if v.total() != 240 {
			t.Errorf("%d requests", v.total())
		}
		mode = "hold"
		drain(250)
		if n := v.total(); n > 244 {
			t.Errorf("%d requests after it asked to be left alone", n-240)
		}
		mode = "poison"
		held := v.total()
		if drain(250); v.total() != held {
			t.Errorf("%d requests of the next drain, while it asks to be left alone", v.total()-held)
		}
		time.Sleep(time.Hour)
		r.log("s7", "new", "s7")
		drain(5)
		mode = ""
		drain(0)
		if m := v.missing(); len(m) > 0 {
			t.Errorf("missing %d", m)
		}
	})
}

// Acknowledgements that follow one another share commits, while a lone one is
// committed at once: a crash repeats little.
func TestAcknowledgementsShareCommits(t *testing.T) {
	for _, batch := range []int{1, 10} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			v := newReceiver(r, 8)
			v.batch = batch
			const events = 200
			stop := r.start(with(to("crm", v), func(s *delivery.Sink) { s.BatchEvents = batch }))
			defer stop()
			r.log("first")
			if batch > 1 { // it was just saved
				time.Sleep(20 * time.Millisecond)
			}
			settle()
			if got := r.position("crm"); got != 1 {
				t.Errorf("position %d right after the first event was acknowledged", got)
			}
			time.Sleep(time.Second)
			r.mu.Lock()
			r.commits = 0
			r.mu.Unlock()
			for i := range events {
				r.log(fmt.Sprint("s", i))
				time.Sleep(2 * time.Millisecond)
			}
			time.Sleep(time.Second)
			r.mu.Lock()
			commits := r.commits - events // those of the pages
			r.mu.Unlock()
			if batch > 1 { // each was saved, as the one event that there was
				commits -= events
			}
			if most := events * 2 / 20 * 3 / 2; commits > most {
				t.Errorf("batches of %d: %d commits for %d events that came in %d ms, want up to %d", batch, commits, events, 2*events, most)
			}
			if m := v.missing(); len(m) > 0 || r.backlog("crm") != 0 {
				t.Errorf("missing %d", m)
			}
		})
	}
}
