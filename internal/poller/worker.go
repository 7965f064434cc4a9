package poller

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strconv"
	"time"

	"github.com/robfig/cron/v3"

	"syncd/internal/event"
	"syncd/internal/fingerprint"
	"syncd/internal/sources"
	"syncd/internal/state"
	"syncd/internal/trouble"
)

const (
	// keepEvery is after how many pages without a change the cursor is saved all
	// the same, so that a crash in a long walk does not begin it again.
	keepEvery = 20
	// stagedPiece is how many staged items one transaction commits.
	stagedPiece = 500
	// refusedFor is how long a refused token, scope or tariff is left alone.
	refusedFor = time.Hour
	// progressEvery is how often a long walk says that it is alive.
	progressEvery = 15 * time.Second
	// oddMost bounds how many different undecodable entries are reported.
	oddMost = 100
)

// worker owns one stream. Its fields belong to the goroutine that runs it.
type worker struct {
	Stream
	p        *Poller
	log      *slog.Logger
	schedule cron.Schedule

	known   state.Stream   // as opened
	cursor  sources.Cursor // of the news walk; may be ahead of the saved one by pages without a change
	unsaved int            // such pages
	pages   uint64         // committed by this process
	trouble trouble.Run
	noted   string          // the last note, and the undecodable entries, so that each
	odd     map[uint64]bool // is reported once and not with every poll; at most oddMost
}

func newWorker(p *Poller, s Stream, schedule cron.Schedule) *worker {
	p.metrics.declare(s)
	return &worker{Stream: s, p: p, odd: make(map[uint64]bool), schedule: schedule, log: p.log.With("account", s.ID.Account, "stream", s.ID.Stream)}
}

func (w *worker) open(firstPoll time.Time) error {
	known, err := w.p.db.OpenStream(w.ID, w.Start, firstPoll)
	if err != nil {
		return err
	}
	w.known, w.cursor = known, known.Cursors[string(sources.News)]
	return nil
}

// run polls until ctx ends: when the schedule says so, and after a failure when
// it is worth trying again. A run that takes longer than the schedule's period
// makes the next one wait, and is followed by it at once.
func (w *worker) run(ctx context.Context) {
	next := time.Now().Add(phase(w.ID))
	for w.sleepUntil(ctx, next) {
		if d := w.p.blockedFor(w.ID.Account, w.Group); d > 0 {
			next = time.Now().Add(d + phase(w.ID))
			continue
		}
		start := time.Now()
		_, err := w.poll(ctx)
		switch {
		case err == nil:
			next = w.schedule.Next(start.UTC()).Add(phase(w.ID))
		case ctx.Err() != nil:
			return
		default:
			next = time.Now().Add(w.failed(err))
		}
	}
}

// sleepUntil waits for t by the wall clock, which schedules speak of, and by the
// clock that nobody sets, whichever comes first: neither a clock that is set
// back nor a machine that slept delays the poll by what the clocks differ. It
// returns false when ctx has ended.
func (w *worker) sleepUntil(ctx context.Context, t time.Time) bool {
	begin := time.Now()
	wait := t.Round(0).Sub(begin.Round(0))
	for {
		d := min(t.Round(0).Sub(time.Now().Round(0)), wait-time.Since(begin))
		if d <= 0 {
			return ctx.Err() == nil
		}
		timer := time.NewTimer(min(d, time.Minute))
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
	}
}

// once polls until a run that began after the call is complete, trying failures
// that pass again.
func (w *worker) once(ctx context.Context) error {
	start := time.Now()
	tries, pages := 0, w.pages
	var last error
	for {
		began, err := w.poll(ctx)
		if tries++; w.pages > pages {
			tries, pages, last = 1, w.pages, nil
		}
		if err == nil {
			if !began.IsZero() && began.Before(start.Truncate(time.Millisecond)) {
				continue // it ended what an earlier process had begun
			}
			return nil
		}
		if _, fetching := errors.AsType[*sources.Error](err); !fetching && ctx.Err() != nil {
			return cmp.Or(last, err) // what kept failing says more than that time is up
		}
		last = err
		e := sources.AsError(err)
		passes := e.Kind == sources.RateLimited || e.Kind == sources.Temporary && tries < onceTries
		if ctx.Err() != nil || !passes {
			return err
		}
		if !w.sleepUntil(ctx, time.Now().Add(w.failed(err))) {
			return err
		}
	}
}

// failed takes note of a failure and returns how long to leave the stream alone.
// A retry is a request like any other: it waits for the budget.
func (w *worker) failed(err error) time.Duration {
	e := sources.AsError(err)
	w.p.metrics.errors.WithLabelValues(w.ID.Account, w.ID.Stream, string(e.Kind)).Inc()
	_, fetching := errors.AsType[*sources.Error](err)
	n := w.trouble.Row() + 1
	wait := trouble.Backoff(n, time.Second, 5*time.Minute)
	switch e.Kind {
	case sources.RateLimited:
		wait = time.Second // the bucket knows how long
	case sources.Unauthorized, sources.Forbidden:
		if e.Scope == sources.ScopeGroup {
			w.p.block(w.ID.Account, w.Group, time.Now().Add(refusedFor))
		}
		wait = refusedFor
	case sources.Rejected:
		wait = trouble.Backoff(n, time.Minute, time.Hour)
	}
	w.tell(e, fetching, wait)
	return wait
}

// poll makes one run of the news walk, or goes on with the one that an earlier
// process began: pages until the source says that it has seen everything. It
// returns Page.Began of the last one.
func (w *worker) poll(ctx context.Context) (began time.Time, err error) {
	if err := w.finishStaged(); err != nil {
		return began, err
	}
	begin, told := time.Now(), time.Now()
	items, pages := 0, 0
	for {
		if ctx.Err() != nil {
			return began, context.Cause(ctx)
		}
		stamp := w.p.db.Stamp() // before the request: G3's "whose request was sent before"
		page, err := w.Source.Fetch(ctx, sources.Query{
			Stream: w.ID.Stream, Walk: sources.News, Cursor: w.cursor,
			Since: w.known.Start, Overlap: w.Overlap, Now: time.Now(),
		})
		if err != nil {
			return began, err
		}
		if err := w.commit(stamp, page); err != nil {
			return began, err
		}
		w.trouble.Worked(w.log, "polling again")
		w.pages++
		items, pages = items+len(page.Items), pages+1
		if page.Done {
			began = page.Began
			break
		}
		if time.Since(told) > progressEvery {
			told = time.Now()
			w.log.Info("still reading", "items", items, "requests", pages, "for", time.Since(begin).Round(time.Second))
		}
	}
	w.p.metrics.success.WithLabelValues(w.ID.Account, w.ID.Stream).SetToCurrentTime()
	return began, nil
}

// commit brings a page into the state. From here a crash costs nothing: the page
// is saved with its cursor, or read again.
func (w *worker) commit(stamp uint64, page sources.Page) error {
	now := time.Now()
	p := w.statePage(stamp, now)
	p.Cursor = page.Cursor
	p.Staged, p.Final = page.Staged, page.Staged && page.Done
	p.Keep = w.unsaved >= keepEvery
	p.Walked = page.Done && !page.Staged && !w.known.Walked // a staged walk is complete with its last item
	before := w.known
	p.Start = w.startByTheirClock(now, page.Date)
	odd := page.Undecodable
	for _, it := range page.Items {
		kept, err := w.item(it)
		if err != nil {
			odd = append(odd, sources.Undecodable{Raw: it.Body, Reason: err.Error()})
			continue
		}
		p.Items = append(p.Items, kept)
	}
	out, err := w.p.db.CommitPage(p)
	if err != nil {
		w.known = before
		return err
	}
	w.cursor = page.Cursor
	// Only a run that is going on is worth saving where nothing changed: the next
	// run reads the same again, and an idle stream must write nothing.
	if w.unsaved++; out.Wrote || page.Done {
		w.unsaved = 0
	}
	w.known.Walked = w.known.Walked || p.Walked
	w.count(p.Items, out, now)
	w.report(page.Note, odd)
	if p.Final {
		return w.finishStaged()
	}
	return nil
}

// maxSkew is how far our clock can be ahead; a Date further back is nonsense.
const maxSkew = 366 * 24 * time.Hour

// startByTheirClock corrects what `start: now` means, with the first page of a
// stream: items carry the marketplace's times, and where our clock is ahead of
// them, new ones would count as old. Zero: nothing to correct.
func (w *worker) startByTheirClock(now, date time.Time) time.Time {
	first := w.cursor == nil && !w.known.Walked
	// Date is cut to the second, and was set when the answer left.
	skew := now.Sub(date)
	if w.Start != nil || !first || date.IsZero() || skew < 5*time.Second || skew > maxSkew {
		return time.Time{}
	}
	w.log.Warn("the machine's clock is ahead of the marketplace's: set it by NTP", "by", skew.Round(time.Second))
	// The moment of the first poll, which may be long ago, by their clock.
	start := w.known.Start.Add(-skew)
	w.known.Start, w.known.Began = start, start
	return start
}

func (w *worker) statePage(stamp uint64, now time.Time) state.Page {
	return state.Page{
		Stream: w.ID, Marketplace: w.Marketplace, Walk: string(sources.News), Stamp: stamp, Now: now,
		Rules:         strconv.Itoa(fingerprint.Rules),
		Refingerprint: func(body json.RawMessage) (event.Fingerprint, error) { return fingerprint.Of(body, nil) },
	}
}

// item prepares an item for the state, and decides what it is if nobody has seen
// it before: contract §4, "What is old".
func (w *worker) item(it sources.Item) (state.Item, error) {
	out := state.Item{
		ID: event.Path(it.ID...), Kind: it.Kind, Subject: event.Path(it.Subject...),
		Created: it.Created, Changed: it.Changed, Immutable: it.Immutable, Body: it.Body,
	}
	if it.Created.IsZero() {
		out.Silent = !w.known.Start.IsZero() && !w.known.Walked
		out.Backfill = !w.known.Walked
	} else {
		out.Silent = it.Created.Before(w.known.Start)
		out.Backfill = !w.known.Walked && it.Created.Before(w.known.Began)
	}
	if !it.Immutable {
		var err error
		if out.Fingerprint, err = fingerprint.Of(it.Body, nil); err != nil {
			return state.Item{}, err
		}
	}
	return out, nil
}

// finishStaged commits what a complete staged walk has left, also after a crash
// in the middle of it.
func (w *worker) finishStaged() error {
	staged, err := w.p.db.HasStaged(w.ID, string(sources.News))
	if err != nil || !staged {
		return err
	}
	for {
		p := w.statePage(0, time.Now()) // each item has the stamp of its request
		p.Walked = !w.known.Walked
		out, done, err := w.p.db.CommitStaged(p, stagedPiece)
		if err != nil {
			return err
		}
		for _, a := range out.Actions {
			w.p.metrics.items.WithLabelValues(w.ID.Account, w.ID.Stream, string(a)).Inc()
		}
		if done {
			break
		}
	}
	// The walk's cursor took effect with the last piece.
	return w.open(w.known.Began)
}

func (w *worker) count(items []state.Item, out state.Outcome, now time.Time) {
	for i, a := range out.Actions {
		w.p.metrics.items.WithLabelValues(w.ID.Account, w.ID.Stream, string(a)).Inc()
		if a == state.ActionCreated && !items[i].Backfill && !items[i].Created.IsZero() {
			w.p.metrics.lag.WithLabelValues(w.Marketplace, w.ID.Stream).Observe(max(now.Sub(items[i].Created), 0).Seconds())
		}
	}
}

// report tells the operator, once each, what is odd about a page.
func (w *worker) report(note string, odd []sources.Undecodable) {
	if note != "" && note != w.noted {
		w.noted = note
		w.log.Warn("the marketplace behaves oddly", "what", note)
	}
	for _, u := range odd {
		w.p.metrics.items.WithLabelValues(w.ID.Account, w.ID.Stream, "undecodable").Inc()
		h := fnv.New64a()
		h.Write([]byte(u.Reason))
		h.Write(u.Raw)
		sum := h.Sum64()
		if w.odd[sum] || len(w.odd) >= oddMost {
			continue
		}
		w.odd[sum] = true
		raw := string(u.Raw)
		if len(raw) > 200 {
			raw = raw[:200] + "…"
		}
		w.log.Error("an entry of the marketplace's answer cannot be used", "why", u.Reason, "entry", strconv.QuoteToASCII(raw))
		if len(w.odd) == oddMost {
			w.log.Error("too many different entries cannot be used: from here on they are only counted")
		}
	}
}

// tell logs a failure, once for each sort in a row. One that did not come from
// fetching came from the state.
func (w *worker) tell(e *sources.Error, fetching bool, wait time.Duration) {
	retry := wait.Round(time.Second)
	args := []any{"err", e, "kind", e.Kind, "retry_in", retry}
	if e.Hint != "" {
		args = append(args, "hint", e.Hint)
	}
	level, msg := slog.LevelError, "poll failed"
	if !fetching {
		w.trouble.Add(w.log, level, "state", "the state file cannot be used, trying again; nothing is lost", "err", e.Err, "retry_in", retry)
		return
	}
	switch e.Kind {
	case sources.RateLimited:
		// The bucket has told already, with the time it takes.
		level, msg = slog.LevelDebug, "poll refused by the budget"
	case sources.Temporary:
		level, msg = slog.LevelWarn, "poll failed, trying again"
	case sources.Unauthorized, sources.Forbidden:
		msg = "the marketplace refuses this token; trying again hourly"
		args = append(args, "stops", e.Scope)
	}
	w.trouble.Add(w.log, level, fmt.Sprint(e.Kind, e.Scope, e.Endpoint, e.Status), msg, args...)
}
