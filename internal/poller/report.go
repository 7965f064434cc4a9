package poller

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"syncd/internal/sources"
	"syncd/internal/state"
	"syncd/internal/trouble"
)

const (
	// hintAfter and hintTries say when a page that fails counts as one that fails
	// for ever: so long, and so many tries or an hour.
	hintAfter = 10 * time.Minute
	hintTries = 10
	// behindBy is how far behind the present a stream must be to be reported, and
	// behindEvery how often it is.
	behindBy    = 10 * time.Minute
	behindPages = 3 // or as many times what lies between two pages
	behindEvery = time.Hour
	// samples is how many runs the real period is taken from.
	samples = 5
)

// failure is a row of failures of a walk, since its last page that worked.
type failure struct {
	since    time.Time
	times    int
	err      *sources.Error
	fetching bool // else the state failed
	told     bool // what to do about it
}

// skippable says whether the failure may be that of one page, which Skip can step
// over.
func (f *failure) skippable() bool {
	switch f.err.Kind {
	case sources.Temporary, sources.Unreadable, sources.Rejected:
		// A request without an answer says nothing about the page.
		return f.fetching && f.err.Scope == sources.ScopeRequest && (f.err.Status != 0 || f.err.TooMuch)
	}
	return false
}

// failed takes note of a failure and returns how long to leave the walk alone. A
// retry is a request like any other: it waits for the budget.
func (w *worker) failed(k *walk, err error) time.Duration {
	e := sources.AsError(err)
	_, fetching := errors.AsType[*sources.Error](err)
	if errors.Is(err, state.ErrBroken) {
		w.p.breaks(err)
	}
	if errors.Is(err, sources.ErrNoSuchWalk) {
		return w.turnOff(k, err)
	}
	w.p.metrics.errors.WithLabelValues(w.ID.Account, w.ID.Stream, string(e.Kind)).Inc()
	n := k.trouble.Row() + 1
	wait := trouble.Backoff(n, time.Second, 5*time.Minute) // Temporary, Unreadable
	switch e.Kind {
	case sources.RateLimited:
		wait = time.Second // the bucket knows how long
	case sources.Unauthorized, sources.Payment, sources.Forbidden:
		if e.Scope == sources.ScopeGroup {
			w.p.block(w.ID.Account, w.Group, time.Now().Add(refusedFor))
		}
		wait = refusedFor
	case sources.Rejected:
		wait = trouble.Backoff(n, time.Minute, time.Hour)
	}
	w.tell(k, e, fetching, wait)
	if w.note(k, e, fetching, wait) {
		w.advise(k, e)
	}
	return wait
}

// advise tells the operator what can be done about a page that keeps failing.
func (w *worker) advise(k *walk, e *sources.Error) {
	l, _ := w.walk(k.name)
	l.committing.Lock()
	_, _, err := w.Source.(sources.Skipper).Skip(w.query(k).query) // a trial: it sends and moves nothing
	l.committing.Unlock()
	if err != nil {
		k.log.Error("the same page keeps failing", "request", e.Request, "cannot_be_stepped_over", err)
		return
	}
	k.log.Error("the same page keeps failing: if the marketplace works otherwise, it can be stepped over",
		"request", e.Request, "hint", fmt.Sprintf("syncd state skip --account %s --stream %s", w.ID.Account, w.ID.Stream))
}

// note keeps a failure for Status and Skip. It reports whether the operator is to
// be told now what can be done about the page.
func (w *worker) note(k *walk, e *sources.Error, fetching bool, wait time.Duration) (tell bool) {
	now := time.Now()
	_, skips := w.Source.(sources.Skipper)
	w.mu.Lock()
	defer w.mu.Unlock()
	if k.failure == nil {
		k.failure = &failure{since: now}
	}
	f := k.failure
	f.times++
	f.err, f.fetching = e, fetching
	k.retry = now.Add(wait)
	if k.run != nil && e.Kind != sources.RateLimited {
		k.run.failed = true
	}
	long := now.Sub(f.since) >= hintAfter && (f.times >= hintTries || now.Sub(f.since) >= time.Hour)
	tell = long && skips && k.name != sources.Follow && !f.told && f.skippable() // a visit is put off instead
	f.told = f.told || tell
	return tell
}

// turnOff leaves a walk alone for good that the source does not have.
func (w *worker) turnOff(k *walk, err error) time.Duration {
	e := &sources.Error{Kind: sources.Rejected, Scope: sources.ScopeStream, Endpoint: string(k.name), Err: err}
	w.p.metrics.errors.WithLabelValues(w.ID.Account, w.ID.Stream, string(e.Kind)).Inc()
	w.note(k, e, true, farOff)
	w.mu.Lock()
	was := k.off
	k.off = true
	w.mu.Unlock()
	if !was {
		w.log.Error("the stream is not read this way any more: that is a bug of syncd, please report it", "walk", k.name, "err", err)
	}
	return farOff
}

func (w *worker) isOff(k *walk) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return k.off
}

// worked notes a page that worked.
func (w *worker) worked(k *walk) {
	w.mu.Lock()
	k.failure, k.retry = nil, time.Time{}
	w.mu.Unlock()
	k.worked++
	k.trouble.Worked(k.log, "polling again")
}

// tell logs a failure, once for each sort in a row. One that did not come from
// fetching came from the state.
func (w *worker) tell(k *walk, e *sources.Error, fetching bool, wait time.Duration) {
	retry := wait.Round(time.Second)
	args := []any{"err", e, "kind", e.Kind, "retry_in", retry}
	if e.Request != "" {
		args = append(args, "request", e.Request)
	}
	if e.Hint != "" {
		args = append(args, "hint", e.Hint)
	}
	level, msg := slog.LevelError, "poll failed"
	if !fetching {
		k.trouble.Add(k.log, level, "state", "the state file cannot be used, trying again; nothing is lost", "err", e.Err, "retry_in", retry)
		return
	}
	switch e.Kind {
	case sources.RateLimited:
		// The bucket has told already, with the time it takes.
		level, msg = slog.LevelDebug, "poll refused by the budget"
	case sources.Temporary, sources.Unreadable:
		level, msg = slog.LevelWarn, "poll failed, trying again"
	case sources.Unauthorized, sources.Forbidden:
		msg = "the marketplace refuses this token; trying again hourly"
		args = append(args, "stops", e.Scope)
	case sources.Payment:
		msg = "the marketplace wants to be paid first; trying again hourly"
		args = append(args, "stops", e.Scope)
	}
	k.trouble.Add(k.log, level, fmt.Sprint(e.Kind, e.Scope, e.Endpoint, e.Status), msg, args...)
}

// report tells the operator, once each, what is odd about a page.
func (w *worker) report(k *walk, note string, odd []sources.Undecodable) {
	if note != "" && note != k.noted {
		k.noted = note
		k.log.Warn("the marketplace behaves oddly", "what", note)
	}
	for _, u := range odd {
		w.p.metrics.items.WithLabelValues(w.ID.Account, w.ID.Stream, actionUndecodable).Inc()
		h := fnv.New64a()
		h.Write([]byte(u.Reason))
		h.Write(u.Raw)
		sum := h.Sum64()
		w.mu.Lock()
		known := w.odd[sum] || len(w.odd) >= oddMost
		if !known {
			w.odd[sum] = true
		}
		last := len(w.odd) == oddMost
		w.mu.Unlock()
		if known {
			continue
		}
		raw := string(u.Raw)
		if len(raw) > 200 {
			raw = raw[:200] + "…"
		}
		k.log.Error("an entry of the marketplace's answer cannot be used", "why", u.Reason, "entry", strconv.QuoteToASCII(raw))
		if last {
			w.log.Error("too many different entries cannot be used: from here on they are kept and counted without a line")
		}
	}
}

// alive says now and then that a long walk goes on.
func (w *worker) alive(k *walk, r *run) {
	// Each time twice as late, and not at all of what is read again and again: an
	// hour between two requests is the budget's, and nothing to tell.
	since := time.Since(r.since)
	again := k.name == sources.Sweep || k.name == sources.Follow || k.name == sources.News && w.standing().Walked
	if again || w.p.shown || since <= max(progressEvery, 2*r.told) {
		return
	}
	r.told = since
	args := []any{"items", r.items, "requests", r.pages, "for", time.Since(r.since).Round(time.Second)}
	if r.progress > 0 {
		args = append(args, "progress", fmt.Sprintf("%.0f%%", 100*r.progress))
	}
	k.log.Info("still reading", args...)
}

// count moves the metrics by what became of a page's items, and wakes the streams
// for which a new one is news.
func (w *worker) count(r *run, items []state.Item, wakes []string, out state.Outcome, now time.Time) {
	w.tally(out.Actions)
	for i, a := range out.Actions {
		if items[i].Backfill || items[i].Silent {
			continue
		}
		if a == state.ActionCreated && !items[i].Created.IsZero() {
			w.p.metrics.lag.WithLabelValues(w.Marketplace, w.ID.Stream).Observe(max(now.Sub(items[i].Created), 0).Seconds())
		}
		switch {
		case wakes[i] == "" || wakes[i] == w.ID.Stream:
		case a == state.ActionCreated:
			w.p.hint(state.StreamID{Account: w.ID.Account, Stream: wakes[i]})
		case a == state.ActionStaged:
			if r.wakes == nil {
				r.wakes = make(map[string]bool)
			}
			r.wakes[wakes[i]] = true
		}
	}
}

func (w *worker) tally(actions []state.Action) {
	for _, a := range actions {
		w.p.metrics.items.WithLabelValues(w.ID.Account, w.ID.Stream, string(a)).Inc()
	}
}

// ended notes that a run is complete.
func (w *worker) ended(k *walk, r *run, began time.Time) {
	now := time.Now()
	w.mu.Lock()
	k.pages = r.pages
	if d := began.Sub(k.began); !k.began.IsZero() && d > 0 {
		k.apart = keepLast(k.apart, d)
	}
	last := k.began
	k.run, k.began, k.done = nil, began, now
	var stretched, usual time.Duration
	if k.name == sources.News && !r.failed && !last.IsZero() {
		due := w.schedule.Next(last.UTC())
		stretched, usual = w.pace.add(now.Sub(r.since), w.schedule.Next(due).Sub(due))
	}
	w.mu.Unlock()
	if stretched > 0 {
		w.log.Info("the budget stretches this stream", "schedule", w.Schedule, "scheduled_period", usual.Round(time.Second), "real_period", stretched.Round(time.Second))
	}
	if k.name == sources.Backfill {
		k.log.Info("history has been read", "items", r.items, "requests", r.pages, "for", now.Sub(r.since).Round(time.Second))
	}
}

// pace tells a stream that cannot keep its schedule from one that had a slow run.
type pace struct {
	took, want []time.Duration // of the last runs: how long each was, and was to be at most
	told       time.Duration   // the period that was reported; 0: it keeps its schedule
}

// add takes in a run. stretched, the real period, is above 0 when the operator is
// to be told: runs take more than twice as long as the schedule gives them, which
// is new or has become much better or worse.
func (p *pace) add(took, want time.Duration) (stretched, usual time.Duration) {
	p.took, p.want = keepLast(p.took, took), keepLast(p.want, want)
	if len(p.took) < 3 {
		return 0, 0
	}
	took, want = middle(p.took), middle(p.want)
	switch {
	case took <= want: // and not between once and twice as long: one line for each turn would be many
		p.told = 0
	case took > 2*want && (p.told == 0 || took > 2*p.told || took < p.told/2):
		p.told = took
		return took, want
	}
	return 0, 0
}

func keepLast(list []time.Duration, d time.Duration) []time.Duration {
	if len(list) == samples {
		list = slices.Delete(list, 0, 1)
	}
	return append(list, d)
}

// middle is the median; 0: of nothing.
func middle(list []time.Duration) time.Duration {
	if len(list) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(list))[len(list)/2]
}

// behind is a stream whose runs do not reach the present.
type behind struct {
	since   time.Time     // when this process first saw it; zero: it is not behind
	first   time.Duration // how far it was then
	reached time.Time     // up to here everything has been read
	told    time.Time
	read    time.Time // the last page; the news lane's own
}

// watch looks at a News page for whether the stream stays behind, and tells the
// operator: a backlog is reported, and never skipped (G2).
func (w *worker) watch(page sources.Page) {
	now := time.Now()
	present := now
	if !page.Date.IsZero() {
		present = page.Date // by the clock that the items carry
	}
	lag := present.Sub(page.Reached)
	// Where hours lie between two requests, being hours behind is as good as it gets.
	b := &w.behind
	upToDate := page.Reached.IsZero() || lag <= max(behindBy, behindPages*now.Sub(cmp.Or(b.read, now)))
	b.read = now
	if !page.Done && (page.Reached.IsZero() || !upToDate && !w.standing().Walked) {
		return // it does not say, or reads history
	}
	w.mu.Lock()
	if upToDate {
		was := *b
		*b = behind{read: now}
		w.mu.Unlock()
		if !was.told.IsZero() {
			w.log.Info("the stream has caught up", "was_behind_since", was.since.UTC().Format(time.RFC3339))
		}
		return
	}
	if b.since.IsZero() {
		b.since, b.first = now, lag
	}
	b.reached = page.Reached
	tell := b.told.IsZero() || now.Sub(b.told) >= behindEvery
	if tell {
		b.told = now
	}
	since, grows := b.since, lag > b.first
	w.mu.Unlock()
	if !tell {
		return
	}
	msg := "the stream is behind and catching up; nothing is skipped"
	if grows {
		msg = "items come faster than the request budget can read them; nothing is skipped"
	}
	w.log.Warn(msg, "behind", lag.Round(time.Second), "since", since.UTC().Format(time.RFC3339), "read_up_to", page.Reached.UTC().Format(time.RFC3339))
}
