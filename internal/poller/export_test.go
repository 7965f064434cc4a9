package poller

import (
	"testing"
	"time"

	"syncd/internal/state"
)

// SetPiece makes transactions go through n items until the test ends.
func SetPiece(t *testing.T, n int) {
	was := piece
	piece = n
	t.Cleanup(func() { piece = was })
}

// Phase is how far the polls of one of n streams are put off.
func Phase(id state.StreamID, n int, expr string) time.Duration {
	schedule, err := ParseSchedule(expr)
	if err != nil {
		panic(err)
	}
	return phase(id, n, schedule)
}

// Tick is a stream's first tick behind t, where its first one was at begin.
func Tick(expr string, phase time.Duration, begin, t time.Time) time.Time {
	schedule, err := ParseSchedule(expr)
	if err != nil {
		panic(err)
	}
	return (&worker{schedule: schedule, phase: phase}).tick(begin, t)
}

// Made is what a visit that only the process knows of comes to when it is saved now,
// where it was planned at a time by the clock on the wall.
func Made(v state.Visit, planned, now time.Time) state.Visit {
	f := follower{pending: map[string]state.Visit{v.ID: v}, planned: planned.Round(0)}
	return f.made(now)[0]
}
