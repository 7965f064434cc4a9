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

type putOff struct {
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
	p := f.put(id, e)
	w.setOff()
	if !slices.Contains(f.row, id) && len(f.row) < outage {
		f.row = append(f.row, id)
	}
	if len(f.row) >= outage {
		return w.failed(k, err)
	}
	w.p.metrics.errors.WithLabelValues(w.ID.Account, w.ID.Stream, string(e.Kind)).Inc()
	f.trouble.Add(k.log, slog.LevelWarn, fmt.Sprint(e.Kind, e.Endpoint, e.Status), "a visit failed, and is put off; the others go on",
		"visit", id, "err", e, "kind", e.Kind, "request", e.Request, "retry_in", time.Until(p.until).Round(time.Second))
	return 0
}

// setOff keeps for Status how many visits are put off.
func (w *worker) setOff() {
	w.mu.Lock()
	w.follow.off = len(w.follow.putOff)
	w.mu.Unlock()
}

// put puts a visit off after a failure.
func (f *follower) put(id string, e *sources.Error) *putOff {
	p := f.putOff[id]
	if p == nil {
		if len(f.putOff) >= putOffMost {
			first := slices.MinFunc(slices.Collect(maps.Keys(f.putOff)), func(a, b string) int { return f.putOff[a].until.Compare(f.putOff[b].until) })
			delete(f.putOff, first)
		}
		p = new(putOff)
		f.putOff[id] = p
	}
	p.times++
	p.kind = e.Kind
	wait := trouble.Backoff(p.times, time.Second, 5*time.Minute)
	if e.Kind == sources.Rejected || e.Kind == sources.Forbidden {
		wait = trouble.Backoff(p.times, time.Minute, time.Hour)
	}
	p.until = time.Now().Add(wait)
	return p
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

// givenUp says whether Once tries the visit no more.
func (p *putOff) givenUp() bool {
	return p.times >= onceTries || p.kind == sources.Rejected || p.kind == sources.Forbidden
}

// again is how long to wait for the first visit that is worth another try; false:
// none is.
func (f *follower) again() (wait time.Duration, ok bool) {
	for _, p := range f.putOff {
		if p.givenUp() {
			continue
		}
		if left := time.Until(p.until); !ok || left < wait {
			wait, ok = left, true
		}
	}
	return wait, ok
}
