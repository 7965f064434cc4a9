package poller

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
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

// share is a part of d, less than all of it, that belongs to a name: evenly spread
// over names and the same in every process. Whole milliseconds, as times are kept.
func share(name string, d time.Duration) time.Duration {
	sum := sha256.Sum256([]byte(name))
	part := float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53)
	return time.Duration(part * float64(d)).Truncate(time.Millisecond)
}

const (
	// apart is what each stream adds to the time over which all of them are spread:
	// 100 streams begin within a second, and 30,000 within five minutes, unless
	// their period is shorter.
	apart = 10 * time.Millisecond
	// latest bounds how far a moment that the operator has named, such as nine
	// o'clock, is put off.
	latest = time.Minute
)

// spread is the time over which n streams spread what comes every period: that of
// few streams begins within least, and nobody waits for longer than a period.
func spread(n int, least, period time.Duration) time.Duration {
	return max(least, min(time.Duration(n)*apart, period))
}

// phase is how far a stream's polls are put off, so that thousands of streams do
// not all ask at the same instant: neither at the start nor at each tick.
func phase(id state.StreamID, n int, schedule cron.Schedule) time.Duration {
	var period time.Duration
	if every, ok := schedule.(cron.ConstantDelaySchedule); ok {
		period = every.Delay
	} else {
		first := schedule.Next(time.Unix(0, 0).UTC()) // the same in every process
		period = min(latest, schedule.Next(first).Sub(first))
	}
	return share(id.String(), spread(n, time.Second, period))
}

// tick is the stream's first tick behind t, which is within a period of t. Those of
// "@every D" are whole D apart from begin, whenever there was a poll between them,
// so that streams that once were late together part again.
func (w *worker) tick(begin, t time.Time) time.Time {
	t = t.Round(0) // by the wall clock, which schedules speak of: it may be set
	if every, ok := w.schedule.(cron.ConstantDelaySchedule); ok {
		since := t.Sub(begin.Round(0)) % every.Delay
		if since < 0 {
			since += every.Delay
		}
		return t.Add(every.Delay - since)
	}
	return w.schedule.Next(t.Add(-w.phase).UTC()).Add(w.phase)
}

// jitter spreads a walk of many streams, which were all first polled in the same
// minute, over a tenth of its period.
func jitter(id state.StreamID, walk sources.Walk, period time.Duration) time.Duration {
	return share(id.String()+"/"+string(walk), period/10)
}
