package poller

import (
	"context"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/robfig/cron/v3"

	"syncd/internal/sources"
	"syncd/internal/state"
)

// parser reads what contract §4 allows: five fields, six with seconds, or a
// descriptor such as "@every 15s". Always UTC: a schedule must not move with the
// machine's daylight saving time.
var parser = cron.NewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// ParseSchedule reads a schedule of the configuration.
func ParseSchedule(expr string) (cron.Schedule, error) {
	s, err := parser.Parse(expr)
	if err != nil {
		return nil, fmt.Errorf("schedule %q: %w", expr, err)
	}
	if s.Next(time.Now().UTC()).IsZero() {
		return nil, fmt.Errorf("schedule %q never comes", expr)
	}
	return s, nil
}

// share is a number from 0 up to 1 that belongs to a name, evenly spread over
// names and the same in every process.
func share(name string) float64 {
	h := fnv.New32a()
	h.Write([]byte(name))
	return float64(h.Sum32()%1000) / 1000
}

// phase spreads the streams over a second: schedules are whole seconds, and a
// thousand accounts must not all ask at the same instant.
func phase(id state.StreamID) time.Duration {
	return time.Duration(share(id.String()) * float64(time.Second))
}

// jitter spreads a walk of many streams, which were all first polled in the same
// minute, over a tenth of its period.
func jitter(id state.StreamID, walk sources.Walk, period time.Duration) time.Duration {
	return time.Duration(share(id.String()+"/"+string(walk)) * float64(period) / 10)
}

// sleepUntil waits for t by the wall clock, which schedules speak of, and by the
// clock that nobody sets, whichever comes first: neither a clock that is set
// back nor a machine that slept delays the poll by what the clocks differ. It
// returns false when ctx has ended or somebody woke it before.
func sleepUntil(ctx context.Context, t time.Time, wake <-chan struct{}) bool {
	begin := time.Now()
	wait := t.Round(0).Sub(begin.Round(0))
	for {
		d := min(t.Round(0).Sub(time.Now().Round(0)), wait-time.Since(begin))
		if d <= 0 {
			return ctx.Err() == nil
		}
		timer := time.NewTimer(min(d, time.Minute))
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-wake:
			timer.Stop()
			return false
		case <-timer.C:
		}
	}
}
