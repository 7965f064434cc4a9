package poller

import (
	"time"

	"syncd/internal/sources"
	"syncd/internal/state"
)

// finishStaged commits what was staged and is now in order, also after a crash in
// the middle of it. The caller holds lane.committing.
func (w *worker) finishStaged(k *walk) error {
	if !k.unstaged {
		return nil
	}
	staged, ends, err := w.p.db.HasStaged(w.ID, string(k.name))
	if err != nil {
		return err
	}
	if staged {
		k.ends = ends
	}
	// Else the last piece failed, and took effect.
	if k.piecing = staged || k.piecing; k.piecing {
		if err := w.commitStaged(k, !staged); err != nil {
			return err
		}
	}
	k.unstaged, k.piecing = false, false
	return nil
}

// commitStaged commits what is staged, and ends the run that it belongs to unless
// that goes on. created says that a piece before may have been news.
func (w *worker) commitStaged(k *walk, created bool) error {
	first := k.ends && k.name == sources.News && !w.standing().Walked
	r, began := k.run, time.Now()
	if r != nil {
		began = r.since
	}
	if first {
		if err := w.countAsSwept(time.Now()); err != nil {
			return err
		}
	}
	for done := false; !done; {
		p := w.statePage(k.name, 0, time.Now()) // each item has the stamp of its request
		p.Walked, p.Began, p.Done = first, began, k.ends
		p.Unemitted = k.name == sources.Backfill
		var out state.Outcome
		var err error
		out, done, err = w.p.db.CommitStaged(p, piece)
		w.mayHold(out.Actions, err)
		if err != nil {
			return err
		}
		w.tally(out.Actions)
		for _, a := range out.Actions {
			created = created || a == state.ActionCreated
		}
	}
	// The walk's cursor took effect with the last piece, and the end of its run if it
	// has ended.
	known, err := w.p.db.OpenStream(w.ID, w.Start, time.Time{})
	if err != nil {
		return err
	}
	k.standAt(known.Walks[string(k.name)])
	k.kept = known.Walks[string(k.name)].Began
	w.mu.Lock()
	switch k.name {
	case sources.Backfill:
		w.request = known.Backfill
	case sources.News:
		w.standLocked(known)
	}
	w.mu.Unlock()
	w.background.nudge()
	if r == nil {
		return nil // an earlier process read the pages
	}
	if k.ends && k.name == w.settles && k.name != sources.News {
		// A crash before it leaves them to the next Full run.
		if err := w.settle(r.read, began.Add(-w.Sweep.Window)); err != nil {
			return err
		}
	}
	if created {
		for stream := range r.wakes {
			w.p.hint(state.StreamID{Account: w.ID.Account, Stream: stream})
		}
		clear(r.wakes)
	}
	if !k.ends {
		return nil
	}
	return w.complete(k, r, began)
}
