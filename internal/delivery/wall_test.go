package delivery_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"syncd/internal/delivery"
	"syncd/internal/event"
	"syncd/internal/state"
)

// setBy is a time of a process whose wall clock was set meanwhile: the monotonic
// reading stays. Nothing in package time makes one, so its first word is changed,
// which holds the seconds in bits 30 to 62 where there is such a reading.
func setBy(t *testing.T, at time.Time, seconds int64) time.Time {
	t.Helper()
	was := at
	*(*uint64)(unsafe.Pointer(&at)) += uint64(seconds) << 30
	if at.Sub(was) != 0 || at.Round(0).Sub(was.Round(0)) != time.Duration(seconds)*time.Second {
		t.Fatal("package time keeps its times otherwise now")
	}
	return at
}

// A wall clock is noticed that was set, once each time and in both directions; time
// that passes is not, nor is a clock that is slewed, or times without a monotonic
// reading.
func TestWallClock(t *testing.T) {
	var w delivery.WallClock
	at := time.Now()
	years := int64(3 * 365 * 24 * 3600)
	for i, step := range []struct {
		set   int64 // seconds, since the beginning
		moved bool
	}{{0, false}, {0, false}, {9, false}, {11, true}, {11, false}, {years, true}, {years, false}, {years + 5, false}, {-years, true}, {-years, false}, {0, true}} {
		at = at.Add(time.Hour)
		if got := w.Moved(setBy(t, at, step.set)); got != step.moved {
			t.Errorf("step %d, set by %d s: moved %t", i, step.set, got)
		}
	}
	var bare delivery.WallClock
	for i := range 5 {
		if bare.Moved(at.Round(0).Add(time.Duration(i*i) * time.Hour)) {
			t.Error("moved, and nobody could tell")
		}
	}
}

// What failed while the clock was years ahead is due years from now when the clock
// has been set right. It goes on soon after.
func TestClockSetRight(t *testing.T) {
	for _, set := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			v := newReceiver(r, 2)
			var well atomic.Bool
			v.answer = func(context.Context, *event.Logged) error {
				if well.Load() {
					return nil
				}
				return errors.New("500")
			}
			r.log("a")
			d := r.new(to("crm", v))
			var apart atomic.Int64
			d.SetDrift(func(_, _ time.Time) time.Duration { return time.Duration(apart.Load()) })
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				d.Run(ctx)
			}()
			settle()
			h, ok, err := r.db.Head("crm", state.Live, "shop-a/a")
			if err != nil || !ok {
				t.Fatal(ok, err)
			}
			h.Next = time.Now().AddDate(3, 0, 0) // as that clock had it
			if err := r.db.RecordAttempt("crm", h); err != nil {
				t.Fatal(err)
			}
			d.Wake("crm")
			well.Store(true)
			time.Sleep(10 * 24 * time.Hour)
			settle()
			if n := v.total(); n != 1 {
				t.Errorf("%d requests: nobody has set the clock", n)
			}
			if set {
				apart.Store(-int64(3 * 365 * 24 * time.Hour))
			}
			time.Sleep(2 * time.Minute)
			settle()
			if n := r.backlog("crm"); (n == 0) != set {
				t.Errorf("set right %t: %d wait", set, n)
			}
			cancel()
			<-done
		})
	}
}
