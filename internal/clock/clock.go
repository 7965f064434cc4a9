// Package clock says whether the wall clock can be believed where being wrong
// would destroy something: to delete by age, and to give up on what has waited too
// long, is right only by a clock that is.
//
// It doubts the clock where the clock itself gives reason to: at start it is
// before the last commit or more than a day past it, or it parts from the
// monotonic clock by more than an hour, for it was set or the machine slept. A
// marketplace's Date that agrees with it ends the doubt. It corrects nothing,
// keeps nothing on disk and starts no goroutine. A *Watch is safe for concurrent
// use.
package clock

import (
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	// maxStopped is how long syncd may have been stopped before its clock counts
	// as wrong.
	maxStopped = 24 * time.Hour
	// maxParting is how far wall and monotonic clock may part.
	maxParting = time.Hour
	// agreement is how far a Date may be from the clock that it confirms. An honest
	// one is off by the time that its answer was on its way, at most 30 s, the
	// second that it is cut to, and what the marketplace's clock is wrong by. Both
	// clocks right, that is less than a minute; five are the allowance that Kerberos
	// makes for clocks that people look after. What hangs on the clock is counted in
	// days, and no parting that matters is as short.
	agreement = 5 * time.Minute
)

// earliest is before any answer of a marketplace's API. A Date before it comes
// from a box in between whose clock never was set, and may agree with ours.
var earliest = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Config is what a Watch needs.
type Config struct {
	LastCommit time.Time // when the state was last written to before this start; zero: never
	Log        *slog.Logger
}

// Watch watches the clock.
type Watch struct {
	log   *slog.Logger
	began time.Time // where the monotonic readings count from

	mu       sync.Mutex
	believed reading // of when the clock was last found right
	doubt    string  // why the clock is not trusted; empty: it is
	denied   bool    // a Date has contradicted the clock since the doubt began
}

// A reading is both clocks at one moment.
type reading struct {
	wall time.Time     // without a monotonic part
	mono time.Duration // since the Watch began
}

// parting is by how much the wall clock has gone further than the monotonic one
// between two readings; less than zero: it was left behind, or set back.
func parting(from, to reading) time.Duration {
	return to.wall.Sub(from.wall.Add(to.mono - from.mono)) // too far to be a Duration: the longest one
}

// New returns a Watch that begins now.
func New(cfg Config) *Watch {
	now := time.Now()
	w := &Watch{log: cfg.Log, began: now}
	w.start(w.read(now), cfg.LastCommit)
	return w
}

func (w *Watch) read(now time.Time) reading { return reading{now.Round(0), now.Sub(w.began)} }

func (w *Watch) start(now reading, lastCommit time.Time) {
	w.believed = now
	if lastCommit.IsZero() {
		return
	}
	switch since := now.wall.Sub(lastCommit); {
	case since < 0:
		w.doubted(now, fmt.Sprintf("the clock is %s before the last commit of the state", -since.Round(time.Millisecond)))
	case since > maxStopped:
		w.doubted(now, fmt.Sprintf("the clock is %s past the last commit of the state", since.Round(time.Second)))
	}
}

// Trusted reports whether the clock can be believed.
func (w *Watch) Trusted() bool { return w.Doubt() == "" }

// Doubt says, for people, why the clock is not trusted; empty: it is.
func (w *Watch) Doubt() string { return w.doubtAt(w.read(time.Now())) }

func (w *Watch) doubtAt(now reading) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.compare(now)
	return w.doubt
}

// compare looks whether the clocks have parted. A parting that came and went
// between two calls has misled nobody.
func (w *Watch) compare(now reading) {
	if w.doubt != "" {
		return
	}
	switch by := parting(w.believed, now); {
	case by > maxParting:
		w.doubted(now, fmt.Sprintf("the clock went %s forward by itself: it was set, or the machine was suspended", by.Round(time.Second)))
	case by < -maxParting:
		w.doubted(now, fmt.Sprintf("the clock went %s back", -by.Round(time.Second)))
	}
}

func (w *Watch) doubted(now reading, why string) {
	w.doubt, w.denied = why, false
	w.log.Warn("the clock may be wrong: nothing is deleted or given up until a marketplace's Date confirms it", "why", why, "clock", now.wall.UTC())
}

// Heard takes the Date of an answer that has just come from a marketplace. One
// that is zero, or implausible, is passed over.
func (w *Watch) Heard(date time.Time) { w.heardAt(w.read(time.Now()), date) }

func (w *Watch) heardAt(now reading, date time.Time) {
	if date.Before(earliest) { // zero too
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.compare(now)
	off := now.wall.Sub(date)
	switch {
	case off <= agreement && off >= -agreement:
		// Counted from here, the short sleeps of a month are no parting.
		w.believed = now
		if w.doubt != "" {
			w.log.Info("a marketplace's Date confirms the clock", "clock", now.wall.UTC(), "date", date.UTC(), "was", w.doubt)
			w.doubt = ""
		}
	case w.doubt != "" && !w.denied:
		w.denied = true
		w.doubt += fmt.Sprintf("; a marketplace's Date says %s: set the clock", date.UTC().Format(time.RFC3339))
		w.log.Warn("the clock is wrong by a marketplace's Date: set it", "clock", now.wall.UTC(), "date", date.UTC())
	}
}
