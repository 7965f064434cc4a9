package poller

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"syncd/internal/sources"
	"syncd/internal/state"
)

// pickVisit chooses what to visit next. The caller holds lane.committing.
func (w *worker) pickVisit(k *walk) error {
	f := w.follow
	if f.doubt || k.cursor != nil || k.visit.ID != "" {
		return nil // the last one is not over
	}
	if _, err := w.planned(); err != nil {
		return err
	}
	for {
		now := time.Now()
		if f.full(now) {
			if err := w.save(k); err != nil {
				return err
			}
		}
		by := now
		if !f.by.IsZero() {
			by = f.by
		}
		v, at, err := w.p.db.NextVisit(w.ID, by, func(id string, version uint64) bool {
			if done, ok := f.pending[id]; ok && done.Version == version {
				return true
			}
			p := f.putOff[id]
			return p != nil && (p.until.After(now) || !f.by.IsZero() && p.givenUp())
		})
		switch {
		case err != nil:
			return err
		case v == nil:
			f.at = f.look(at, now)
			w.mu.Lock()
			f.count.due, f.off = len(f.putOff), len(f.putOff)
			w.mu.Unlock()
			return errNoVisit
		}
		if _, ok := f.pending[v.ID]; !ok {
			k.visit = sources.Visit(*v)
			return nil
		}
		// It was found again since: the state needs what the last visit has seen.
		if err := w.save(k); err != nil {
			return err
		}
	}
}

// full says whether pending visits have to be saved.
func (f *follower) full(now time.Time) bool {
	if len(f.pending) == 0 {
		return false
	}
	for _, v := range f.pending {
		if !v.Due.IsZero() && !v.Due.After(now) {
			return true
		}
	}
	return len(f.pending) >= pendingMost || now.Sub(f.since) >= pendingFor
}

// look returns when to look again where nothing is due, and next will be.
func (f *follower) look(next, now time.Time) time.Time {
	earlier := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	earlier(now.Add(farOff))
	for id, p := range f.putOff {
		if !p.until.After(now) && f.by.IsZero() {
			delete(f.putOff, id) // it is no longer due
			continue
		}
		earlier(p.until)
	}
	if len(f.pending) > 0 {
		earlier(f.since.Add(pendingFor))
	}
	for _, v := range f.pending {
		if !v.Due.IsZero() {
			earlier(v.Due)
		}
	}
	return next
}

// visitsOf puts what a page says of visits into the state's. The caller holds
// lane.committing.
func (w *worker) visitsOf(p *state.Page, k *walk, page *sources.Page) error {
	f := w.follow
	if !page.Done {
		p.Visiting = &state.Visiting{ID: k.visit.ID, Version: k.visit.Version}
	} else {
		page.Cursor, p.Cursor = nil, nil
		done, err := k.visited(page.Visited, p.Now)
		if err != nil {
			return err
		}
		p.Visited = append(p.Visited, done)
	}
	p.Visited = append(p.Visited, slices.Collect(maps.Values(f.pending))...)
	p.Keep = p.Keep || f.doubt || page.Done && k.saved || f.full(p.Now)
	return nil
}

// visited is the visit that a run was, for the state.
func (k *walk) visited(v *sources.Visit, now time.Time) (state.Visit, error) {
	if v == nil || len(v.Seen) > 0 && !json.Valid(v.Seen) {
		return state.Visit{}, &sources.Error{Kind: sources.Rejected, Scope: sources.ScopeRequest, Endpoint: string(k.name),
			Err: errors.New("the visit ended without saying where it stands: that is a bug of syncd, please report it")}
	}
	out := state.Visit{ID: k.visit.ID, Version: k.visit.Version, Seen: v.Seen, Due: v.Due, Urgent: v.Urgent, Forget: v.Forget}
	if soonest := now.Add(visitsApart); !out.Due.IsZero() && out.Due.Before(soonest) {
		out.Due = soonest
	}
	return out, nil
}

// visitSaved notes what became of a page of a visit in the state. The caller holds
// lane.committing.
func (w *worker) visitSaved(k *walk, p *state.Page, out state.Outcome, done bool) {
	f := w.follow
	f.doubt = false
	switch {
	case out.Wrote:
		clear(f.pending)
	case done:
		if len(f.pending) == 0 {
			f.since = p.Now
		}
		f.pending[k.visit.ID] = p.Visited[0]
	}
	f.tries = 0
	if len(f.row) >= outage {
		clear(f.putOff) // it was not theirs
	}
	f.row = f.row[:0]
	if !done {
		return
	}
	delete(f.putOff, k.visit.ID)
	k.visit = sources.Visit{}
	w.setOff()
	if len(f.putOff) == 0 {
		f.trouble.Worked(k.log, "all visits work again")
	}
}

// planned counts the planned visits, now and then.
func (w *worker) planned() ([]sources.VisitCount, error) {
	w.mu.Lock()
	c := w.follow.count
	w.mu.Unlock()
	good := min(countedLeast+time.Duration(c.planned)*countedEach, countedMost)
	if !c.at.IsZero() && time.Since(c.at) < good {
		return c.ages, nil
	}
	c = visitCount{at: time.Now()}
	counts, due, err := w.p.db.CountVisits(w.ID, c.at)
	if err != nil {
		return nil, err
	}
	c.due = due
	for _, n := range counts {
		c.ages = append(c.ages, sources.VisitCount(n))
		c.planned += n.N
	}
	w.mu.Lock()
	w.follow.count = c
	w.mu.Unlock()
	return c.ages, nil
}
