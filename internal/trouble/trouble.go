// Package trouble reports a run of failures the way an operator wants to read it:
// the first one, each that differs from the one before, and how it ended; not
// the same line a million times.
package trouble

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"
)

// Run is a run of failures of one thing. The zero value is no trouble. It belongs
// to one goroutine.
type Run struct {
	since time.Time
	n     int
	last  string
}

// Add notes a failure and logs it, unless what says that it is of the same sort
// as the last one: texts hold request ids and times that are never the same. It
// returns how many there were in a row.
func (r *Run) Add(log *slog.Logger, level slog.Level, what, msg string, args ...any) int {
	if r.n == 0 {
		r.since = time.Now()
	}
	r.n++
	if what != r.last {
		r.last = what
		log.Log(context.Background(), level, msg, args...)
	}
	return r.n
}

// Over ends the run. If there was one, msg is logged with its length.
func (r *Run) Over(log *slog.Logger, msg string) {
	if r.n > 0 {
		log.Info(msg, "after_failures", r.n, "for", time.Since(r.since).Round(time.Second))
		*r = Run{}
	}
}

// Backoff doubles from lowest to highest with the n-th failure in a row (from 1),
// less up to a quarter, so that those that failed together do not come back
// together.
func Backoff(n int, lowest, highest time.Duration) time.Duration {
	d := Doubled(n, lowest, highest)
	return d - rand.N(d/4+1)
}

// Doubled is lowest doubled n-1 times, at most highest.
func Doubled(n int, lowest, highest time.Duration) time.Duration {
	for ; n > 1 && lowest < highest; n-- {
		lowest *= 2
	}
	return min(lowest, highest)
}
