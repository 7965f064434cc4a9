package delivery

import "time"

// SetWindow makes the sinks that begin from now on read no more than so many events
// ahead, so that a few fill a window. Call it before Run.
func (d *Delivery) SetWindow(events int) { d.window = events }

// SetDrift puts another notion of how far the wall clock was set in the place of
// the real one. Call it before Run.
func (d *Delivery) SetDrift(drift func(since, now time.Time) time.Duration) { d.drift = drift }

// WallClock is for its own test.
type WallClock struct{ c wallClock }

// Moved reports whether the wall clock was set since the last call.
func (w *WallClock) Moved(now time.Time) bool {
	w.c.drift = drift
	return w.c.moved(now)
}
