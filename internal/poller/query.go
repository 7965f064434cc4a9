package poller

import (
	"slices"
	"time"

	"syncd/internal/sources"
	"syncd/internal/state"
)

// asked is a request of a walk, and what it depends on.
type asked struct {
	query   sources.Query
	stamp   uint64
	moves   int
	request *state.Backfill

	answered time.Time // when its answer had been read: the commit may be seconds later
}

// query is what the walk would ask for next. The caller holds lane.committing.
func (w *worker) query(k *walk) asked {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := asked{moves: k.moves, query: sources.Query{Stream: w.ID.Stream, Walk: k.name, Cursor: k.cursor, Now: time.Now(), Remembered: w.remembered}}
	if w.follow != nil {
		a.query.Planned = w.planned
	}
	switch k.name {
	case sources.News:
		a.query.Since, a.query.Overlap, a.query.Window = w.known.Start, w.Overlap, w.Sweep.Window
		if a.query.LastRun = k.kept; !k.began.IsZero() {
			a.query.LastRun = k.began
		}
	case sources.Sweep, sources.Full:
		a.query.Overlap, a.query.Window = w.Overlap, w.Sweep.Window
		if k.name == sources.Sweep && w.shown != nil && w.shown.proves {
			a.query.Missing = w.missing(w.shown)
		}
	case sources.Backfill:
		a.request = w.request
		if a.request != nil {
			a.query.Since = a.request.Since
		}
	case sources.Follow:
		a.query.Window, a.query.Every, a.query.Full = w.Sweep.Window, w.Sweep.Every, w.Sweep.Full
		if k.cursor == nil {
			visit := k.visit
			a.query.Visit = &visit
		}
	}
	return a
}

// remembered is Query.Remembered.
func (w *worker) remembered(stream, id string) (sources.Visit, bool, error) {
	if stream == "" {
		stream = w.ID.Stream
	}
	v, ok, err := w.p.db.Visit(state.StreamID{Account: w.ID.Account, Stream: stream}, id)
	return sources.Visit(v), ok, err
}

// shown is what the last complete run of News has shown of a stream with Lookup:
// eight bytes for each item that the API still has, kept from a run that began when
// a Sweep was due until that is complete. A Sweep waits for such a run.
type shown struct {
	stamp  uint64
	ids    []uint64 // hashes, in ascending order
	proves bool     // the run has shown everything
}

// wantsShown says whether a run of News that begins now is one that a Sweep waits
// for. The caller holds worker.mu.
func (w *worker) wantsShown(k *walk, now time.Time) bool {
	if !w.Lookup || k.name != sources.News || w.shown != nil {
		return false
	}
	return slices.ContainsFunc(w.background.walks, func(k *walk) bool {
		if k.name != sources.Sweep || k.run != nil {
			return false
		}
		due, ok := w.dueLocked(k, now)
		return ok && !due.After(now)
	})
}

// waitsLocked says whether a walk that is due waits for a run of News.
func (w *worker) waitsLocked(k *walk) bool {
	return w.Lookup && k.name == sources.Sweep && k.run == nil && w.shown == nil
}

// setShown keeps what a complete run of News has shown, for the Sweep that waits
// for it.
func (w *worker) setShown(r *run, proves bool) {
	if r.shown == nil {
		return
	}
	slices.Sort(r.shown)
	w.mu.Lock()
	w.shown = &shown{stamp: r.stamp, ids: r.shown, proves: proves}
	w.mu.Unlock()
	w.background.nudge()
}

// missing is Query.Missing.
func (w *worker) missing(s *shown) func(after string, n int) ([]sources.Known, string, error) {
	return func(after string, n int) (out []sources.Known, next string, err error) {
		for next = after; len(out) < n; {
			// No more than n are among as many records.
			var found []state.Known
			if found, next, err = w.p.db.Missing(w.ID, s.stamp, s.ids, min(piece, n-len(out)), next); err != nil {
				return nil, after, err
			}
			for _, it := range found {
				out = append(out, sources.Known(it))
			}
			if next == "" {
				break
			}
		}
		return out, next, nil
	}
}
