package poller

import (
	"context"
	"runtime"
	"time"

	"syncd/internal/sources"
	"syncd/internal/state"
)

// step reads one page of a walk and commits it. It returns the page; one that is
// Done ended a run. The zero page: there was nothing to commit, and more to read.
// With on the caller takes the next page at once, or lets go of it.
func (w *worker) step(ctx context.Context, l *lane, k *walk, on bool) (sources.Page, error) {
	if err := w.resume(); err != nil {
		return sources.Page{}, err
	}
	l.committing.Lock()
	var err error
	if k.name == sources.Follow && w.follow.drop {
		err = w.abandon(k)
	}
	if err == nil {
		err = w.finishStaged(k)
	}
	if err == nil && k.name == sources.Follow {
		err = w.pickVisit(k)
	}
	a := w.query(k)
	l.committing.Unlock()
	if err != nil {
		return sources.Page{}, err
	}
	if k.name == sources.Backfill && a.request == nil {
		return sources.Page{Done: true}, nil // its staged items were all that was left
	}
	f := w.takeAhead(k, &a)
	if f == nil {
		f = &fetch{asked: a}
		w.fetch(ctx, f)
	}
	defer f.large.giveBack(w.p.large)
	l.committing.Lock()
	defer l.committing.Unlock()
	if k.moves != f.asked.moves && (f.err != nil || k.name == sources.Backfill) {
		// Meanwhile the walk was told to go on elsewhere: a failure is not that of
		// the next page, and history may have to begin further back than this page.
		return sources.Page{}, nil
	}
	if f.err != nil {
		return sources.Page{}, f.err
	}
	if on {
		w.fetchAhead(ctx, k, f)
	}
	if err := w.commit(k, f); err != nil {
		return sources.Page{}, err
	}
	w.worked(k)
	return f.page, nil
}

// largePages is how many large answers the process has in memory at once, whatever
// the number of streams: there is one writer of the state for all of them, and two
// more are read while it is at work.
const largePages = 3

// permit is the turn of one large answer, from reading it to its commit. Who has it
// waits for nothing but the state's writer.
type permit struct{ taken bool }

func (p *permit) take(ctx context.Context, turns chan struct{}) error {
	select {
	case turns <- struct{}{}:
		p.taken = true
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *permit) giveBack(turns chan struct{}) {
	if p.taken {
		<-turns
	}
}

// commit brings a page into the state. From here a crash costs nothing: the page
// is saved with its cursor, or read again. The caller holds lane.committing.
func (w *worker) commit(k *walk, f *fetch) error {
	a, page, now := f.asked, f.page, time.Now()
	r := w.onRun(k, a, page)
	known := w.standing()
	last := page.Done && !page.Staged // what was staged is complete with its last item
	p := w.statePage(k.name, a.stamp, now)
	p.Cursor, p.Keep = page.Cursor, k.unsaved >= keepEvery || !page.Done && now.Sub(r.kept) >= keepAfter
	p.Staged, p.Final, p.More = page.Staged, page.Staged && (page.Done || page.Ordered), !page.Done
	p.Began, p.Done = beganAt(r, page), page.Done && k.keepsEnd()
	if k.name == sources.News {
		p.Walked = last && !known.Walked
		p.Done = p.Done || p.Walked // it is written anyway
		p.Start = w.startByTheirClock(k, &known, a.answered, page.Date)
	}
	if a.request != nil {
		p.Unemitted, p.Asked = true, a.request.Asked
	}
	b := w.items(&p, k, f, known)
	if k.name == sources.Follow {
		if err := w.visitsOf(&p, k, &page); err != nil {
			return err
		}
	}
	if p.Walked {
		if err := w.countAsSwept(now); err != nil {
			return err
		}
	}
	if w.counts(k) && !last {
		p.Read = k.pending + len(p.Items)
	}

	// A Full run is complete, and is next due a day later, once what it shows of
	// held items was settled. Its last page is committed without its cursor first:
	// after a crash on the way it is read again.
	settling := last && k.name == w.settles && k.name != sources.News
	if settling {
		p.Cursor, p.Read, p.Keep, p.Done = k.cursor, k.pending, false, false
	}
	out, err := w.p.db.CommitPage(p)
	w.mayHold(out.Actions, err)
	w.tellFollowers(p.Found) // also where it failed: it may have taken effect
	if err != nil {
		k.begun = k.begun || p.Read > 0
		if k.name == sources.Follow {
			w.follow.doubt = true
		}
		return err
	}
	if k.name == sources.Follow {
		w.visitSaved(k, &p, out, page.Done)
	}
	if b.bytes > largePage {
		// The collector lets the heap grow by a part of what was alive last, which was
		// this page several times over: the next one must not come on top of that.
		runtime.GC()
	}
	w.count(r, p.Items, b.wakes, out, now)
	w.report(k, page.Note, b.odd)
	w.reportPart(k, r, page.Failed)
	w.reportPlan(k, page.Plan)
	if out.OddLost > 0 && !k.lostOdd {
		k.lostOdd = true
		k.log.Warn("the state keeps only the newest entries that cannot be used: older ones have left it", "left", out.OddLost)
	}
	if settling {
		if out.Wrote {
			k.unsaved, k.pending = 0, 0
		}
		p.Cursor = page.Cursor
		if err := w.endSettled(p, r.read+uint64(len(p.Items))); err != nil {
			return err
		}
		out.Wrote = true
	}

	k.cursor = page.Cursor
	k.unsaved++
	k.pending = p.Read
	k.begun = k.begun || out.Wrote && p.Read > 0
	if out.Wrote {
		k.unsaved, k.pending, r.kept, r.wrote = 0, 0, now, true
		k.saved = p.Cursor != nil || p.Final && k.saved
	}
	if k.name == sources.News && p.Done && !p.Staged {
		k.kept = p.Began
	}
	// Only a run that is going on is worth saving where nothing changed: the next
	// run reads the same again, and an idle stream must write nothing.
	if page.Done {
		k.unsaved, k.pending = 0, 0
	}
	w.mu.Lock()
	if k.name == sources.News {
		known.Walked = known.Walked || p.Walked
		w.known = known
	}
	if k.name == sources.Backfill && last {
		w.request = nil // the state has taken it with the page
	}
	r.pages++
	r.items += len(page.Items)
	r.read += uint64(len(p.Items))
	r.progress = page.Progress
	r.empty = page.Done && page.Failed != nil
	r.partial = r.partial || page.Partial || page.Failed != nil || len(page.Undecodable) > 0
	w.mu.Unlock()
	if p.Walked {
		w.background.nudge()
	}
	w.alive(k, r)
	switch {
	case p.Final:
		k.unstaged, k.ends = true, page.Done
		return w.finishStaged(k)
	case page.Done:
		return w.complete(k, r, p.Began)
	}
	return nil
}

// keep saves where the walk is when its lane comes to an orderly end, so that a
// run of pages without a change goes on there. It is worth no error: without it
// those pages are read again.
func (w *worker) keep(l *lane, k *walk) {
	l.committing.Lock()
	defer l.committing.Unlock()
	if k.name == sources.Follow {
		if f := w.follow; f.drop || f.doubt || k.unstaged || k.unsaved == 0 && len(f.pending) == 0 {
			return // what is in the state may be ahead
		}
	} else if k.unsaved == 0 {
		return
	}
	_ = w.save(k)
}

// save brings into the state where a walk is, and the visits that only this process
// knows of. The caller holds lane.committing. A crash before it repeats pages that
// changed nothing.
func (w *worker) save(k *walk) error {
	p := w.statePage(k.name, 0, time.Now())
	p.Cursor, p.Read, p.Keep = k.cursor, k.pending, true
	if k.name == sources.Follow {
		p.Visited = w.follow.made(p.Now)
		if k.cursor != nil {
			p.Visiting = &state.Visiting{ID: k.visit.ID, Version: k.visit.Version}
		}
	}
	if _, err := w.p.db.CommitPage(p); err != nil {
		return err
	}
	k.unsaved, k.pending, k.saved = 0, 0, k.cursor != nil
	if k.name == sources.Follow {
		clear(w.follow.pending)
	}
	return nil
}

// onRun returns the run that a page belongs to.
func (w *worker) onRun(k *walk, a asked, page sources.Page) *run {
	w.mu.Lock()
	defer w.mu.Unlock()
	if k.run != nil {
		return k.run
	}
	r := &run{since: a.query.Now, stamp: a.stamp, kept: a.query.Now, read: k.left}
	// The cursor alone does not tell whether an earlier process was in the middle
	// of a run.
	r.whole = a.query.Cursor == nil || k.done.After(w.opened) || page.Began.UnixMilli() == a.query.Now.UnixMilli()
	if w.Vanish && k.name == sources.News {
		r.seen = make(map[uint64]struct{})
	}
	if w.wantsShown(k, time.Now()) {
		r.shown = []uint64{}
	}
	k.run = r
	return r
}

// beganAt is when a page's run began, also where an earlier process did.
func beganAt(r *run, page sources.Page) time.Time {
	if page.Began.IsZero() {
		return r.since
	}
	return page.Began
}

// counts says whether the state has to count what the runs of a walk read: those
// that read everything, and may take several processes.
func (w *worker) counts(k *walk) bool {
	return k.name == w.settles && (k.name != sources.News || w.Whole)
}

// keepsEnd says whether the state has to keep that a run is complete. News is due
// by the clock and not by that: of its runs only those have to be kept of which
// some items were counted there, so that the next one counts anew. See lastrun.go
// for the others. When a visit was made is in the plan.
func (k *walk) keepsEnd() bool { return k.name != sources.News && k.name != sources.Follow || k.begun }

// countAsSwept makes the sweeps due as if they had been made now, just before the
// first walk is complete, which shows everything. Each began a little earlier than
// now, so that those of streams that were first polled together part. A crash
// before the first walk's last page costs nothing: no sweep begins before it, and
// then it counts anew.
func (w *worker) countAsSwept(now time.Time) error {
	for _, k := range w.background.walks {
		if k.every == 0 {
			continue
		}
		p := w.statePage(k.name, 0, now)
		p.Began, p.Done = now.Add(-jitter(w.ID, k.name, k.every)), true
		if _, err := w.p.db.CommitPage(p); err != nil {
			return err
		}
		w.mu.Lock()
		k.began, k.done = p.Began, now
		w.mu.Unlock()
	}
	return nil
}

// maxSkew is how far our clock can be ahead; a Date further back is nonsense.
const maxSkew = 366 * 24 * time.Hour

// startByTheirClock corrects what `start: now` means, with the first page of a
// stream: items carry the marketplace's times, and where our clock is ahead of
// them, be it by a second, new ones would count as old. Some items carry whole
// seconds alone, so the start is one. Zero: nothing to correct.
func (w *worker) startByTheirClock(k *walk, known *state.Stream, now, date time.Time) time.Time {
	first := k.cursor == nil && !known.Walked
	// Date is cut to the second, and was set when the answer left: ours is ahead by no
	// more than this.
	skew := max(now.Sub(date), 0)
	if w.Start != nil || !first || date.IsZero() || skew > maxSkew {
		return time.Time{}
	}
	if skew >= 5*time.Second {
		w.log.Warn("the machine's clock is ahead of the marketplace's: set it by NTP", "by", skew.Round(time.Second))
	}
	// The moment of the first poll, which may be long ago, by their clock.
	start := known.Start.Add(-skew).Truncate(time.Second)
	known.Start, known.Began = start, start
	return start
}

// complete does what follows a complete run. In memory the run is over at once:
// what fails here is done after the next one.
func (w *worker) complete(k *walk, r *run, began time.Time) error {
	proves := r.whole && !r.partial && !k.skipped
	first := k.began.IsZero()
	k.begun, k.left, k.skipped = false, 0, false
	w.ended(k, r, began)
	w.endParts(k, r)
	if k.name == sources.Backfill {
		k.standAt(state.WalkState{}) // the request is gone, and the next one begins anew
		return nil
	}
	if k.name == sources.Sweep {
		w.mu.Lock()
		w.shown = nil
		w.mu.Unlock()
	}
	if k.name != sources.News {
		return nil
	}
	w.setShown(r, proves)
	if !r.empty {
		w.p.metrics.success.WithLabelValues(w.ID.Account, w.ID.Stream).SetToCurrentTime()
	}
	if first || r.wrote {
		if err := w.keepEnd(k, 24*time.Hour); err != nil {
			return err
		}
	}
	if w.settles == sources.News {
		if err := w.settle(r.read, time.Time{}); err != nil {
			return err
		}
	}
	if r.seen != nil && proves {
		return w.vanish(r)
	}
	return nil
}
