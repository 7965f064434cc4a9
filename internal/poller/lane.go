package poller

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// lane is one of the ways in which a stream is read side by side, and the walks
// that it drives. Run gives it turns. Between two of them it is no more than a
// timer: tens of thousands of lanes sleep almost always, and a goroutine of each
// would hold several KiB of stack.
type lane struct {
	walks []*walk     // who goes first
	asked atomic.Bool // News: by the operator, so whatever holds the stream back is tried

	// committing is held while a page is brought into the state, and by whoever
	// else moves a cursor of the lane: in the state and in memory, both or none.
	committing sync.Mutex

	// turn is called from one goroutine at a time: due, when the time has come that
	// it returned last, or because somebody woke the lane before. end is called
	// after the last turn. Of Run, set before the first turn.
	ctx  context.Context
	turn func(due bool) (next time.Time)
	end  func()

	mu    sync.Mutex
	timer *time.Timer // it sleeps; nil: a turn goes on, or Run has not begun
	until alarm       // of timer
	woken bool        // since the turn began
}

// run gives the lane its turns until ctx ends, the first one at next. The caller
// nudges it then.
func (l *lane) run(ctx context.Context, next time.Time, turn func(due bool) (next time.Time), end func()) {
	l.ctx, l.turn, l.end = ctx, turn, end
	if !l.sleep(next) {
		go l.awake(false)
	}
}

// awake makes turns until the lane sleeps again.
func (l *lane) awake(due bool) {
	for l.ctx.Err() == nil {
		l.mu.Lock()
		l.woken = false // who wakes it from here on may want more than this turn shows
		l.mu.Unlock()
		next := l.turn(due)
		if due = false; l.sleep(next) {
			return
		}
	}
	l.end()
}

// sleep makes the next turn come at t. It returns false where it is due at once:
// ctx has ended, or somebody woke the lane.
func (l *lane) sleep(t time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.woken || l.ctx.Err() != nil {
		return false
	}
	l.until = alarmAt(t)
	l.timer = time.AfterFunc(l.until.left(), l.ring)
	return true
}

// ring is the timer's.
func (l *lane) ring() {
	l.mu.Lock()
	if l.timer == nil { // somebody was faster
		l.mu.Unlock()
		return
	}
	if d := l.until.left(); d > 0 {
		l.timer.Reset(d)
		l.mu.Unlock()
		return
	}
	l.timer = nil
	l.mu.Unlock()
	l.awake(true)
}

// nudge makes the lane look again what there is to do.
func (l *lane) nudge() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer == nil {
		l.woken = true
		return
	}
	l.timer.Stop()
	l.timer = nil
	go l.awake(false)
}

// alarm is a time to come by two clocks, whichever has it first: by the wall clock,
// which schedules speak of, and by the clock that nobody sets. Neither a clock that
// is set back nor a machine that slept delays it by what the clocks differ.
type alarm struct{ at, set time.Time }

func alarmAt(t time.Time) alarm { return alarm{at: t.Round(0), set: time.Now()} }

// left is how long to sleep before the next look at both clocks; not above 0: it
// is time.
func (a alarm) left() time.Duration {
	wait := a.at.Sub(a.set.Round(0))
	return min(a.at.Sub(time.Now().Round(0)), wait-time.Since(a.set), time.Minute)
}

// sleepUntil waits for t. It returns false when ctx has ended before.
func sleepUntil(ctx context.Context, t time.Time) bool {
	for a := alarmAt(t); ; {
		d := a.left()
		if d <= 0 {
			return ctx.Err() == nil
		}
		timer := time.NewTimer(d)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
	}
}
