package poller

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"syncd/internal/sources"
	"syncd/internal/state"
	"syncd/internal/trouble"
)

// delay is what is known of a visit that was put off.
type delay struct {
	until time.Time
	times int
	kind  sources.Kind
}

// ofOneVisit says whether a failure concerns no more than one visit.
func ofOneVisit(e *sources.Error) bool {
	switch e.Kind {
	case sources.Temporary, sources.Unreadable, sources.Rejected, sources.Forbidden:
		return e.Scope == sources.ScopeRequest
	}
	return false
}

// failedVisit takes note of a failure, and returns how long the lane has to rest; 0:
// not at all, since only one visit failed: it is put off, and the next one goes on.
func (w *worker) failedVisit(k *walk, err error) (rest time.Duration) {
	f := w.follow
	e := sources.AsError(err)
	_, fetching := errors.AsType[*sources.Error](err)
	f.committing.Lock()
	defer f.committing.Unlock()
	begun := k.cursor != nil || f.doubt
	id := k.visit.ID
	if !begun && fetching {
		k.visit = sources.Visit{} // what is due may be another one by then
		w.mu.Lock()
		k.run = nil
		w.mu.Unlock()
	}
	if !fetching || !ofOneVisit(e) || id == "" {
		return w.failed(k, err)
	}
	passes := e.Kind == sources.Temporary || e.Kind == sources.Unreadable
	if f.tries++; begun && passes && f.tries < visitTries {
		return w.failed(k, err)
	}
	if begun {
		if err := w.abandon(k); err != nil {
			return w.failed(k, err)
		}
	}
	f.tries = 0
	d := f.putOff(id, e)
	w.countDelays()
	// What failed before, and would fail now, says nothing of the others.
	if d.times == 1 && !slices.Contains(f.row, id) && len(f.row) < outage {
		f.row = append(f.row, id)
	}
	if len(f.row) >= outage {
		return w.failed(k, err)
	}
	w.p.metrics.errors.WithLabelValues(w.ID.Account, w.ID.Stream, string(e.Kind)).Inc()
	f.trouble.Add(k.log, slog.LevelWarn, fmt.Sprint(e.Kind, e.Endpoint, e.Status), "a visit failed, and is put off; the others go on",
		"visit", id, "err", e, "kind", e.Kind, "request", e.Request, "retry_in", time.Until(d.until).Round(time.Second))
	return 0
}

// countDelays keeps for Status how many visits are put off.
func (w *worker) countDelays() {
	w.mu.Lock()
	w.follow.delayed = len(w.follow.delays)
	w.mu.Unlock()
}

// putOff puts a visit off after a failure.
func (f *follower) putOff(id string, e *sources.Error) *delay {
	d := f.delays[id]
	if d == nil {
		if len(f.delays) >= delaysMost {
			first := slices.MinFunc(slices.Collect(maps.Keys(f.delays)), func(a, b string) int { return f.delays[a].until.Compare(f.delays[b].until) })
			delete(f.delays, first)
		}
		d = new(delay)
		f.delays[id] = d
	}
	d.times++
	d.kind = e.Kind
	wait := trouble.Backoff(d.times, time.Second, 5*time.Minute)
	if d.refused() {
		wait = trouble.Backoff(d.times, time.Minute, time.Hour)
	}
	d.until = time.Now().Add(wait)
	return d
}

// outageEnds lets those be tried again at once that failed once: it was not theirs.
// One that fails again fails by itself.
func (f *follower) outageEnds(now time.Time) {
	for _, d := range f.delays {
		if d.times == 1 {
			d.until = now
		}
	}
}

// abandon makes the visit going on begin anew when it is its turn again. The caller
// holds lane.committing. A crash before it leaves the visit where it was.
func (w *worker) abandon(k *walk) error {
	f := w.follow
	done, err := w.p.db.AbandonVisit(w.ID)
	if f.drop = err != nil; f.drop {
		return err
	}
	f.doubt = false
	if !done {
		k.unstaged = true // its last page had taken effect
		return nil
	}
	k.standAt(state.WalkState{})
	w.mu.Lock()
	k.run = nil
	w.mu.Unlock()
	return nil
}

// refused says whether trying again soon makes no sense.
func (d *delay) refused() bool { return d.kind == sources.Rejected || d.kind == sources.Forbidden }

// givenUp says whether Once tries the visit no more.
func (d *delay) givenUp() bool { return d.times >= onceTries || d.refused() }

// again is how long to wait for the first visit that is worth another try; false:
// none is.
func (f *follower) again() (wait time.Duration, ok bool) {
	for _, d := range f.delays {
		if d.givenUp() {
			continue
		}
		if left := time.Until(d.until); !ok || left < wait {
			wait, ok = left, true
		}
	}
	return wait, ok
}
