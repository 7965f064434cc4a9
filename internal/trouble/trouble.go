// Package trouble reports a run of failures the way an operator wants to read it:
// the first of each sort, and how it ended; not the same line a million times.
package trouble

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"
)

const (
	// quiet is how long nothing may fail before the trouble counts as over. What
	// fails and works by turns is one trouble, and not a pair of lines each time.
	quiet = time.Minute
	// solid is how many failures in a row are an outage, whose end is known with
	// the first success.
	solid = 10
	// maxSorts bounds how many sorts of failure one run tells apart.
	maxSorts = 16
)

// Run is a run of failures of one thing. The zero value is no trouble. It belongs
// to one goroutine.
type Run struct {
	since, last time.Time
	total       int             // failures since since
	row         int             // failures since the last success
	told        map[string]bool // sorts that were logged
}

// Row is how many failures there were since the last success.
func (r *Run) Row() int { return r.row }

// Add notes a failure and logs it, unless one of the sort was logged already:
// texts hold request ids and times that are never the same. It returns how many
// failures there were in a row.
func (r *Run) Add(log *slog.Logger, level slog.Level, sort, msg string, args ...any) int {
	now := time.Now()
	if r.total == 0 {
		r.since, r.told = now, make(map[string]bool)
	}
	r.last = now
	r.total++
	r.row++
	if !r.told[sort] && len(r.told) < maxSorts {
		r.told[sort] = true
		log.Log(context.Background(), level, msg, args...)
	}
	return r.row
}

// Worked notes a success. After an outage, or once nothing has failed for a while,
// it ends the run, and msg is logged with when it began and last failed.
func (r *Run) Worked(log *slog.Logger, msg string) {
	outage := r.row >= solid
	r.row = 0
	if r.total > 0 && (outage || time.Since(r.last) >= quiet) {
		log.Info(msg, "after_failures", r.total, "since", r.since.UTC().Format(time.RFC3339), "last_failure", r.last.UTC().Format(time.RFC3339))
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
	for ; n > 1; n-- {
		if lowest > highest/2 {
			return highest
		}
		lowest *= 2
	}
	return min(lowest, highest)
}
