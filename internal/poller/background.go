package poller

import (
	"cmp"
	"context"
	"time"

	"syncd/internal/sources"
)

const (
	// farOff is when a lane without anything due looks again unasked.
	farOff = 24 * time.Hour
	// fromTheFuture is how far ahead of our clock a beginning may be. One further
	// off was kept before the clock was set back, and says nothing.
	fromTheFuture = time.Minute
	// owed is how many pages a new process lets a lower walk read first that an
	// earlier one left waiting.
	owed = 20
)

// runBackground gives the sweeps and the backfill their turns until ctx ends, and
// then calls ended.
func (w *worker) runBackground(ctx context.Context, ended func()) {
	if len(w.background.walks) == 0 {
		ended()
		return
	}
	w.owe(time.Now())
	w.background.run(ctx, time.Now(), func(bool) time.Time { return w.backgroundTurn(ctx) }, func() {
		for _, k := range w.background.walks {
			w.keep(w.background, k)
		}
		ended()
	})
}

// backgroundTurn reads pages until none is due, and returns when the next one is.
func (w *worker) backgroundTurn(ctx context.Context) (next time.Time) {
	for ctx.Err() == nil {
		k, at := w.choose()
		if k == nil {
			return at
		}
		page, err := w.step(ctx, w.background, k, false)
		switch {
		case err == nil:
			w.turn(k, page)
		case ctx.Err() == nil:
			w.failed(k, err)
		}
	}
	return time.Time{}
}

// owe gives a lower walk its turn in a new process: where a higher one was completed
// since the lower one is due, the earlier process died before that had its pages.
// With a budget of few requests between two restarts it would never have any. For
// history, which may take longer than anybody wants to be without sweeps, it is the
// turn of every other process, by chance.
func (w *worker) owe(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, low := range w.background.walks {
		due := low.began.Add(low.every)
		if low.name == sources.Backfill {
			if w.request == nil || now.UnixMilli()%2 == 0 {
				continue
			}
			due = w.request.Asked
		}
		for _, above := range w.background.walks[:i] {
			if due.Before(now) && above.done.After(due) {
				above.rest = owed
			}
		}
	}
}

// choose returns the walk that reads the next page, or nil and when to look
// again.
func (w *worker) choose() (*walk, time.Time) {
	if d := w.blockedFor(); d > 0 {
		return nil, time.Now().Add(d + w.phase)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	at := now.Add(farOff)
	var first, resting *walk
	for _, k := range w.background.walks {
		due, ok := w.dueLocked(k, now)
		if ok && due.Before(k.retry) {
			due = k.retry
		}
		switch {
		case !ok || !due.After(now) && w.waitsLocked(k): // a run of News wakes the lane
		case due.After(now):
			if due.Before(at) {
				at = due
			}
		case k.rest > 0:
			resting = cmp.Or(resting, k)
		default:
			first = cmp.Or(first, k)
		}
	}
	return cmp.Or(first, resting), at
}

// dueLocked says when the walk's next run should begin or go on; a time that has
// passed: now. False: not at all.
func (w *worker) dueLocked(k *walk, now time.Time) (time.Time, bool) {
	switch {
	case k.off:
		return time.Time{}, false
	case k.name == sources.Backfill:
		return time.Time{}, w.request != nil
	case !w.known.Walked:
		return time.Time{}, false
	case k.run != nil:
		return time.Time{}, true
	}
	due := k.began.Add(k.every) // long ago where there was none: the first walk was made before that was kept
	// A run that took longer than its period is not followed at once, so that
	// nothing that a source gets wrong makes a loop without a pause.
	if rested := k.done.Add(k.every / 20); rested.After(due) {
		due = rested
	}
	if future := now.Add(fromTheFuture); k.began.After(future) || k.done.After(future) {
		due = now
	}
	if due.Before(w.from) {
		due = w.from
	}
	return due, true
}

// turn lets the others have as many pages as a run took that is now complete.
func (w *worker) turn(k *walk, page sources.Page) {
	for _, above := range w.background.walks {
		if above == k {
			break
		}
		above.rest = max(0, above.rest-1)
	}
	k.rest = 0
	if page.Done {
		w.mu.Lock()
		k.rest = k.pages
		w.mu.Unlock()
	}
}
