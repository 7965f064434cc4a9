package poller

import (
	"slices"
	"time"

	"syncd/internal/sources"
	"syncd/internal/state"
)

// resume finishes what a crash left undone before anything is read: a settlement
// of held items that was decided but not carried out. Both lanes wait for it.
func (w *worker) resume() error {
	w.resuming.Lock()
	defer w.resuming.Unlock()
	if w.resumed {
		return nil
	}
	verdict, err := w.p.db.HasVerdict(w.ID)
	if err == nil && verdict {
		err = w.settle(0, time.Time{})
	}
	w.resumed = err == nil
	return err
}

// endSettled settles what is held back, and then saves the end of a Full run whose
// items were committed with p.
func (w *worker) endSettled(p state.Page, read uint64) error {
	if err := w.settle(read, p.Began.Add(-w.Sweep.Window)); err != nil {
		return err
	}
	end := w.statePage(sources.Full, p.Stamp, p.Now)
	end.Cursor, end.Began, end.Done = p.Cursor, p.Began, true
	_, err := w.p.db.CommitPage(end)
	return err
}

// mayHold notes what a commit may have held back. One that failed may have taken
// effect.
func (w *worker) mayHold(actions []state.Action, err error) {
	if err != nil || slices.Contains(actions, state.ActionHeld) {
		w.holds.Store(true)
	}
}

// settle decides about the items that are held back, and carries it out in
// pieces. A crash between two is resumed at the next start.
func (w *worker) settle(read uint64, since time.Time) error {
	// Before the look: what the other lane holds back meanwhile counts for the next
	// settlement.
	if !w.holds.Swap(false) {
		return nil
	}
	for done := false; !done; {
		p := w.statePage(w.settles, 0, time.Now())
		p.ReadSince = since
		var out state.Outcome
		var err error
		if out, done, err = w.p.db.SettleHeld(p, read, piece); err != nil {
			w.holds.Store(true)
			return err
		}
		w.tally(out.Actions)
	}
	return nil
}

// vanish notes what a run did not show. After a failure or a crash on the way the
// rest is noted by the next run: an item is gone when two runs did not show it.
func (w *worker) vanish(r *run) error {
	after := ""
	for done := false; !done; {
		var out state.Outcome
		var err error
		if out, after, done, err = w.p.db.Vanish(w.statePage(sources.News, r.stamp, time.Now()), r.stamp, r.seen, piece, after); err != nil {
			return err
		}
		w.tally(out.Actions)
	}
	return nil
}
