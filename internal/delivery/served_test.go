package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// many is sink.Parallel, whose name is that of its method.
type many = sink.Parallel

// doors counts how often a sink is opened and closed, and refuses to open while it
// is locked. Two workers must never have it at once.
type doors struct {
	many
	t              *testing.T
	locked         atomic.Bool
	opened, closed atomic.Int64
}

func (d *doors) Close() error {
	d.closed.Add(1)
	return nil
}

func (d *doors) sink(name, key string) delivery.Sink {
	s := to(name, d)
	s.Key = key
	s.Open = func() (sink.Sink, error) {
		if d.locked.Load() {
			return nil, errors.New("permission denied")
		}
		if d.opened.Add(1) != d.closed.Load()+1 {
			d.t.Error("opened twice")
		}
		return d, nil
	}
	return s
}

// Update leaves alone what stays as it was, and begins anew what has changed, once
// what was in flight is through: nothing is lost, repeated or sent twice at once.
func TestUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		calm, other := newReceiver(r, 2), newReceiver(r, 2)
		calm.answer, other.answer = takes(3*time.Second, nil), takes(3*time.Second, nil)
		one, two, three := &doors{many: calm, t: t}, &doors{many: other, t: t}, &doors{many: newReceiver(r, 2), t: t}
		d, stop := r.startAs(one.sink("calm", "1"), two.sink("crm", "1"))
		update := func(sinks ...delivery.Sink) {
			t.Helper()
			if err := d.Update(r.defaults(sinks)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 30 {
			r.log("a", "b", fmt.Sprint("c", i))
			time.Sleep(2500 * time.Millisecond)
			switch i % 4 {
			case 0:
				update(one.sink("calm", "1"), two.sink("crm", fmt.Sprint("changed", i)))
			case 1:
				update(one.sink("calm", "1")) // removed
			case 2:
				update(two.sink("crm", "back"), one.sink("calm", "1"), three.sink("new", "1"))
			}
			if names := len(d.Status()); names != []int{2, 1, 3, 3}[i%4] {
				t.Errorf("%d sinks are served in round %d", names, i)
			}
		}
		update(two.sink("crm", "last"), one.sink("calm", "1"))
		time.Sleep(10 * time.Minute)
		stop()
		for name, v := range map[string]*receiver{"calm": calm, "crm": other} {
			if m := v.missing(); len(m) > 0 || v.total() != 90 || r.backlog(name) != 0 {
				t.Errorf("%s: missing %d, %d requests for 90 events", name, m, v.total())
			}
		}
		if one.opened.Load() != 1 || one.closed.Load() != 1 {
			t.Errorf("the sink that stayed was opened %d times", one.opened.Load())
		}
		if two.opened.Load() != 1+8+7+1 || two.closed.Load() != two.opened.Load() {
			t.Errorf("the sink that changed was opened %d times and closed %d times", two.opened.Load(), two.closed.Load())
		}
		if three.opened.Load() != 7 || three.closed.Load() != 7 {
			t.Errorf("the sink that came and went was opened %d times and closed %d times", three.opened.Load(), three.closed.Load())
		}
	})
}

// A sink that is new begins with what comes after the Update, also where it cannot
// be opened until later; an Update that fails changes nothing.
func TestUpdateWithASinkThatCannotBeOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v, other := newReceiver(r, 2), newReceiver(r, 2)
		locked := &doors{many: v, t: t}
		locked.locked.Store(true)
		d, stop := r.startAs(to("erp", other))
		r.log("a", "b")
		v.acked[1], v.acked[2] = 1, 1
		s := with(locked.sink("crm", "1"), func(s *delivery.Sink) { s.Type = "webhook" })
		if err := d.Update(append(r.defaults([]delivery.Sink{to("erp", other)}), s)); err != nil {
			t.Fatal(err)
		}
		r.log("c")
		time.Sleep(10 * time.Minute)
		if st := d.Status(); len(st) != 2 || st[1].Opening != "permission denied" || st[0].Opening != "" || len(other.missing()) > 0 {
			t.Errorf("%+v, missing %d", st, other.missing())
		}
		if n := strings.Count(r.out.String(), "cannot be opened"); n != 1 {
			t.Errorf("told %d times", n)
		}
		locked.locked.Store(false)
		time.Sleep(time.Minute)
		settle()
		if m := v.missing(); len(m) > 0 || v.total() != 1 || d.Status()[1].Opening != "" {
			t.Errorf("missing %d, %d requests, %+v", m, v.total(), d.Status()[1])
		}
		wrong := with(to("crm", v), func(s *delivery.Sink) { s.Type = "file" })
		if err := d.Update([]delivery.Sink{wrong}); err == nil || !strings.Contains(err.Error(), "use a new name") {
			t.Errorf("a sink that was a webhook is a file now: %v", err)
		}
		r.log("d")
		settle()
		stop()
		if len(v.missing()) > 0 || len(other.missing()) > 0 || len(d.Status()) != 2 {
			t.Error("an Update that failed has changed something")
		}
		if left, err := r.new(with(locked.sink("crm", "1"), func(*delivery.Sink) { locked.locked.Store(true) })).Drain(t.Context()); err != nil || len(left) != 1 || left[0].Err.Error() != "permission denied" {
			t.Errorf("%+v %v", left, err)
		}
	})
}

// Update works before Run and after its end, and Run closes what it has opened.
func TestUpdateAroundRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 2)
		o := &doors{many: v, t: t}
		r.log("a")
		d := r.new()
		if err := d.Update(r.defaults([]delivery.Sink{o.sink("crm", "1")})); err != nil {
			t.Fatal(err)
		}
		settle()
		if o.opened.Load() != 0 {
			t.Error("opened before anybody runs it")
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			d.Run(ctx)
		}()
		settle()
		if m := v.missing(); len(m) > 0 {
			t.Errorf("missing %d", m)
		}
		cancel()
		<-done
		if err := d.Update(r.defaults([]delivery.Sink{o.sink("crm", "2")})); err != nil {
			t.Fatal(err)
		}
		settle()
		if o.opened.Load() != 1 || o.closed.Load() != 1 {
			t.Errorf("opened %d, closed %d", o.opened.Load(), o.closed.Load())
		}
	})
}

// A sink that says it takes many events at once, and does not, is not served.
func TestNotParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.log("a")
		s := with(to("crm", &orphans{}), func(s *delivery.Sink) { s.Parallel = true })
		left, err := r.new(s).Drain(t.Context())
		if err != nil || len(left) != 1 || !strings.Contains(left[0].Err.Error(), "one event at a time") {
			t.Errorf("%+v %v", left, err)
		}
	})
}

var _ sink.Parallel = (*doors)(nil)

// Wake reaches a sink whose queue a command has changed, and nobody else.
func TestWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 2)
		d, stop := r.startAs(to("crm", v))
		r.log("a")
		settle()
		n, err := r.db.QueueReplay(t.Context(), "crm", func(event.Header) bool { return true }, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
		if err != nil || n != 1 {
			t.Fatal(n, err)
		}
		d.Wake("crm")
		d.Wake("erp")
		settle()
		if len(v.besides(sink.Replayed)) != 1 {
			t.Error("not replayed at once")
		}
		stop()
	})
}

// A dead letter that is being retried, and stands before another of its subject, is
// dropped: that one goes at once, or with the answer to what was on its way.
func TestWakeAfterADrop(t *testing.T) {
	for _, flying := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			v := newReceiver(r, 2)
			v.answer = func(ctx context.Context, e *event.Logged) error {
				switch {
				case e.Sequence != 1:
					return nil
				case flying:
					return takes(5*time.Second, errors.New("500"))(ctx, e)
				}
				return errors.New("500")
			}
			r.log("a", "a")
			r.position("crm")
			var dead []state.Failed
			for seq := range uint64(2) {
				dead = append(dead, state.Failed{Seq: seq + 1, Key: "shop-a/a", Reason: state.ReasonGaveUp})
			}
			if err := r.db.Settle("crm", time.Now(), state.Settlement{Position: 2, Dead: dead}); err != nil {
				t.Fatal(err)
			}
			letters, err := r.db.DeadLetters("crm", 0, 1)
			if err != nil || len(letters) != 1 {
				t.Fatal(letters, err)
			}
			d, stop := r.startAs(retrying(to("crm", v), 10*time.Hour, 20*time.Hour))
			if n, err := r.db.RetryDeadLetters(t.Context(), "crm", "", time.Now()); err != nil || n != 2 {
				t.Fatal(n, err)
			}
			d.Wake("crm")
			settle()
			if n, err := r.db.DropDeadLetters(t.Context(), "crm", letters[0].Event.ID); err != nil || n != 1 {
				t.Fatal(n, err)
			}
			settle()
			if len(v.besides(sink.RetriedDeadLetter)) != 0 || v.total() != 1 {
				t.Errorf("%d requests", v.total())
			}
			d.Wake("crm")
			settle()
			if flying {
				if v.total() != 1 {
					t.Error("two of one subject are on their way")
				}
				time.Sleep(5 * time.Second)
				settle()
			}
			if !slices.Equal(v.besides(sink.RetriedDeadLetter), []uint64{2}) || v.total() != 2 || len(r.dead()) != 0 {
				t.Errorf("retried %d, %d requests, dead %d", v.besides(sink.RetriedDeadLetter), v.total(), r.dead())
			}
			stop()
			if err := r.db.Check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A sink that is admitted before anything is logged gets what is logged from then on
// and before it is served. Where one is of another type than it was, none gets a
// place, whichever comes first, and one that was removed stays so.
func TestAdmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v, other := newReceiver(r, 2), newReceiver(r, 2)
		fresh := func(s delivery.Sink, typ string) delivery.Sink {
			s.Type = typ
			return s
		}
		r.log("before")
		d, stop := r.startAs(to("erp", other))
		if err := d.Admit([]delivery.Sink{fresh(to("old", v), "webhook"), fresh(to("was", v), "webhook")}); err != nil {
			t.Fatal(err)
		}
		if err := r.db.MarkSinks([]string{"erp"}, time.Now()); err != nil {
			t.Fatal(err)
		}
		for _, wrong := range []string{"erp", "old"} { // served, and removed
			for _, first := range []bool{true, false} {
				sinks := []delivery.Sink{fresh(to("was", v), "webhook"), fresh(to("crm", v), "webhook")}
				if first {
					sinks = append([]delivery.Sink{fresh(to(wrong, v), "file")}, sinks...)
				} else {
					sinks = append(sinks, fresh(to(wrong, v), "file"))
				}
				if err := d.Admit(sinks); err == nil || !strings.Contains(err.Error(), wrong) || !strings.Contains(err.Error(), "use a new name") {
					t.Errorf("%s is of another type: %v", wrong, err)
				}
				names, err := r.db.Sinks()
				if err != nil || slices.Contains(names, "crm") {
					t.Errorf("%q have a place, %v", names, err)
				}
				if removed, err := r.db.Removed(); err != nil || len(removed) != 2 {
					t.Errorf("%+v are removed, %v", removed, err)
				}
			}
		}
		if err := d.Admit([]delivery.Sink{fresh(to("crm", v), "webhook")}); err != nil {
			t.Fatal(err)
		}
		r.log("between", "between")
		settle()
		sinks := append(r.defaults([]delivery.Sink{to("erp", other)}), fresh(to("crm", v), "webhook"))
		if err := d.Update(sinks); err != nil {
			t.Fatal(err)
		}
		r.log("after")
		time.Sleep(time.Minute)
		stop()
		if m := v.missing(); !slices.Equal(m, []uint64{1}) || v.total() != 3 || len(other.missing()) > 0 {
			t.Errorf("missing %d, %d requests, missing elsewhere %d", m, v.total(), other.missing())
		}
	})
}

// A sink whose disk hangs in a write cannot be stopped. It holds up neither the
// others of an Update nor the Update itself for long, and is never served twice.
func TestUpdateBesideASinkThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		release := make(chan struct{})
		hangs := newReceiver(r, 1)
		hangs.answer = takes(0, nil)
		stuck := &stubborn{many: hangs, release: release}
		one, two := &doors{many: stuck, t: t}, &doors{many: newReceiver(r, 2), t: t}
		d, stop := r.startAs(one.sink("archive", "1"), two.sink("crm", "1"))
		r.log("a")
		settle()
		for _, key := range []string{"2", "3"} {
			begun := time.Now()
			if err := d.Update(r.defaults([]delivery.Sink{one.sink("archive", key), two.sink("crm", key)})); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begun); took > time.Minute {
				t.Errorf("Update took %v", took)
			}
			r.log("b")
			settle()
			if n := r.backlog("crm"); n != 0 {
				t.Errorf("%d wait for the sink that works", n)
			}
		}
		close(release)
		time.Sleep(time.Minute)
		if n := r.backlog("archive"); n != 0 {
			t.Errorf("%d wait for the sink that hung", n)
		}
		stop()
		if one.opened.Load() != one.closed.Load() {
			t.Error("a sink was left open")
		}
	})
}

// stubborn does not care about the end of a context.
type stubborn struct {
	many
	release chan struct{}
}

func (s *stubborn) Deliver(ctx context.Context, events []event.Logged) error {
	<-s.release
	return s.many.Deliver(ctx, events)
}
