package poller

import (
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
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
		v, at, err := w.nextVisit(now)
		switch {
		case err != nil:
			return err
		case v == nil:
			f.at = f.look(at, now)
			w.mu.Lock()
			f.count.due, f.delayed = len(f.delays), len(f.delays)
			w.mu.Unlock()
			return errNoVisit
		}
		if _, ok := f.pending[v.ID]; !ok {
			k.visit = sources.Visit(*v)
			f.picked++
			return nil
		}
		// It was found again since: the state needs what the last visit has seen.
		if err := w.save(k); err != nil {
			return err
		}
	}
}

// nextVisit is what the plan has for now. The caller holds lane.committing.
func (w *worker) nextVisit(now time.Time) (v *state.Visit, at time.Time, err error) {
	f := w.follow
	by := now
	if !f.by.IsZero() {
		by = f.by
	}
	fair := f.picked%fairEvery == fairEvery-1
	made := func(id string, version uint64) bool {
		done, ok := f.pending[id]
		return ok && done.Version == version
	}
	if len(f.row) >= outage {
		// Whether it is over is best seen by one that is not known to fail; and by any of
		// them, or else those that come first and fail by themselves are all that is tried.
		w.mu.Lock()
		skip := rand.IntN(max(1, f.count.due-len(f.pending)-len(f.delays)))
		w.mu.Unlock()
		v, at, err = w.p.db.NextVisit(w.ID, by, fair, func(id string, version uint64) bool {
			if made(id, version) || f.delays[id] != nil {
				return true
			}
			skip--
			return skip >= 0
		})
		if v != nil || err != nil {
			return v, at, err
		}
	}
	return w.p.db.NextVisit(w.ID, by, fair, func(id string, version uint64) bool {
		d := f.delays[id]
		return made(id, version) || d != nil && (d.until.After(now) || !f.by.IsZero() && d.givenUp())
	})
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
	earlier(now.Add(lookAgain))
	for id, d := range f.delays {
		if !d.until.After(now) && f.by.IsZero() {
			delete(f.delays, id) // it is no longer due
			continue
		}
		earlier(d.until)
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
		done, err := w.visited(k, page.Visited, p.Now)
		if err != nil {
			return err
		}
		p.Visited = append(p.Visited, done)
	}
	p.Visited = append(p.Visited, f.made(p.Now)...)
	p.Keep = p.Keep || f.doubt || page.Done && k.saved || f.full(p.Now)
	return nil
}

// made are the pending visits, for the state. Those that were planned before the
// clock was set back are due at once, as state.BringForward has it for what is saved.
func (f *follower) made(now time.Time) []state.Visit {
	out := slices.Collect(maps.Values(f.pending))
	if f.planned.After(now.Round(0).Add(time.Minute)) {
		for i := range out {
			if !out[i].Due.IsZero() {
				out[i].Due = now
			}
		}
	}
	return out
}

// visited is the visit that a run was, for the state.
func (w *worker) visited(k *walk, v *sources.Visit, now time.Time) (state.Visit, error) {
	if v == nil || len(v.Seen) > 0 && !json.Valid(v.Seen) {
		return state.Visit{}, &sources.Error{Kind: sources.Rejected, Scope: sources.ScopeRequest, Endpoint: string(k.name),
			Err: errors.New("the visit ended without saying where it stands: that is a bug of syncd, please report it")}
	}
	out := state.Visit{ID: k.visit.ID, Version: k.visit.Version, Seen: v.Seen, Due: v.Due, Urgent: v.Urgent, Forget: v.Forget}
	if soonest := now.Add(visitsApart); !out.Due.IsZero() && out.Due.Before(soonest) {
		out.Due = soonest
	}
	if v.Forget && !w.p.trusted() {
		// It was too old by a clock that may be a year ahead: the whole plan would be gone
		// within seconds, and what was seen of it.
		was, _, err := w.remembered("", k.visit.ID)
		if err != nil {
			return state.Visit{}, err
		}
		out.Forget, out.Urgent, out.Seen, out.Due = false, false, was.Seen, now.Add(forgetAgain)
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
		if at := p.Now.Round(0); len(f.pending) == 1 || at.After(f.planned) {
			f.planned = at
		}
	}
	f.tries = 0
	if len(f.row) >= outage {
		f.outageEnds(p.Now)
	}
	f.row = f.row[:0]
	if !done {
		return
	}
	delete(f.delays, k.visit.ID)
	k.visit = sources.Visit{}
	w.countDelays()
	if len(f.delays) == 0 {
		f.trouble.Worked(k.log, "all visits work again")
	}
}

// planned counts the planned visits, now and then, and makes those due at once that
// were planned with a clock that was ahead: no other look at the plan gets to what is
// due in a year.
func (w *worker) planned() ([]sources.VisitCount, error) {
	w.mu.Lock()
	c := w.follow.count
	w.mu.Unlock()
	good := min(countedLeast+time.Duration(c.planned)*countedEach, countedMost)
	if !c.at.IsZero() && time.Since(c.at) < good {
		return c.ages, nil
	}
	c = visitCount{at: time.Now()}
	counts, due, ahead, err := w.p.db.CountVisits(w.ID, c.at)
	if err != nil {
		return nil, err
	}
	if ahead > 0 {
		w.log.Warn("visits were planned with a clock that was ahead: they are made now", "visits", ahead)
		for after, more := "", true; more; more = after != "" {
			if after, _, err = w.p.db.BringForward(w.ID, c.at, after, piece); err != nil {
				return nil, err
			}
		}
	}
	c.due = due + ahead
	for _, n := range counts {
		c.ages = append(c.ages, sources.VisitCount(n))
		c.planned += n.N
	}
	w.mu.Lock()
	w.follow.count = c
	w.mu.Unlock()
	return c.ages, nil
}
