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
