package poller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"syncd/internal/sources"
	"syncd/internal/state"
)

// RefusedError is why something that an operator asked for was not done.
type RefusedError struct {
	Unknown bool // there is no such account or stream; else it is not the moment, or cannot be
	Err     error
}

func (e *RefusedError) Error() string { return e.Err.Error() }
func (e *RefusedError) Unwrap() error { return e.Err }

func unknown(format string, args ...any) error {
	return &RefusedError{Unknown: true, Err: fmt.Errorf(format, args...)}
}

func notNow(format string, args ...any) error {
	return &RefusedError{Err: fmt.Errorf(format, args...)}
}

// act keeps Update from replacing streams until acted is called.
func (p *Poller) act() (acted func(), err error) {
	if err := p.open(); err != nil { // not while acting is held: Update waits for it, and open for Update
		return nil, err
	}
	p.acting.RLock()
	return p.acting.RUnlock, nil
}

// pick returns the streams of an account that an operator means: the one that is
// named, or all of them. The caller acts on them.
func (p *Poller) pick(account, stream string) ([]*worker, error) {
	if err := p.Stopped()[account]; err != nil {
		return nil, notNow("account %s is stopped: %w", account, err)
	}
	var picked []*worker
	var accounts, streams []string
	for _, w := range p.all() {
		accounts = append(accounts, w.ID.Account)
		if w.ID.Account != account {
			continue
		}
		streams = append(streams, w.ID.Stream)
		if stream == "" || w.ID.Stream == stream {
			picked = append(picked, w)
		}
	}
	switch {
	case len(picked) > 0:
		return picked, nil
	case len(streams) > 0:
		return nil, unknown("account %s polls no stream %q; it polls: %s", account, stream, names(streams))
	case len(accounts) == 0:
		return nil, unknown("no account %q is polled, and no other", account)
	}
	return nil, unknown("no account %q is polled; there are: %s", account, names(accounts))
}

func ids(workers []*worker) []state.StreamID {
	out := make([]state.StreamID, len(workers))
	for i, w := range workers {
		out[i] = w.ID
	}
	return out
}

// PollNow makes Run poll a stream at once, or with an empty name all streams of
// an account, and returns which. Where a failure or a refused token holds them
// back they are tried once all the same: the operator has perhaps just mended it.
// A request that comes while a run goes on is answered by one more run. With a
// stream the one that drives it is asked.
func (p *Poller) PollNow(account, stream string) ([]state.StreamID, error) {
	acted, err := p.act()
	if err != nil {
		return nil, err
	}
	defer acted()
	workers, err := p.pick(account, stream)
	if err != nil {
		return nil, err
	}
	workers = p.driven(workers)
	for _, w := range workers {
		w.ask()
	}
	return ids(workers), nil
}

// driven adds the streams whose News finds what these visit, if they are polled.
func (p *Poller) driven(workers []*worker) []*worker {
	for _, w := range workers {
		driver := p.worker(state.StreamID{Account: w.ID.Account, Stream: w.Driver})
		if driver != nil && !slices.Contains(workers, driver) {
			workers = append(workers, driver)
		}
	}
	return workers
}

// Backfill asks for the history of a stream, or with an empty name of all streams
// of an account that can be read back, from since on; zero: from the beginning.
// It returns which. The request is durable when Backfill returns, and Run or
// RunOnly carries it out. One that is open already is extended where since is
// earlier, and is then read from its beginning anew: what it has emitted it does
// not emit again. Where only some streams could be asked for, those are returned
// with the error.
func (p *Poller) Backfill(account, stream string, since time.Time) ([]state.StreamID, error) {
	acted, err := p.act()
	if err != nil {
		return nil, err
	}
	defer acted()
	workers, err := p.pick(account, stream)
	if err != nil {
		return nil, err
	}
	var able []*worker
	for _, w := range workers {
		if _, k := w.walk(sources.Backfill); k != nil {
			able = append(able, w)
		}
	}
	if len(able) == 0 {
		if stream == "" {
			stream = "any stream"
		}
		return nil, notNow("the history of %s of account %s cannot be read", stream, account)
	}
	var errs []error
	var done []*worker
	for _, w := range able {
		if err := w.askBackfill(since); err != nil {
			errs = append(errs, err)
			continue
		}
		done = append(done, w)
	}
	return ids(done), errors.Join(errs...)
}

func (w *worker) askBackfill(since time.Time) error {
	l, k := w.walk(sources.Backfill)
	l.committing.Lock()
	defer l.committing.Unlock()
	// What was staged for the request as it was must not end the extended one.
	if err := w.finishStaged(k); err != nil {
		return err
	}
	request, err := w.p.db.AskBackfill(w.ID, since, time.Now())
	if err != nil {
		return err
	}
	w.mu.Lock()
	old := w.request
	w.request = &request
	if old != nil && !old.Since.Equal(request.Since) {
		k.run = nil
	}
	k.retry = time.Time{}
	w.mu.Unlock()
	if old != nil && !old.Since.Equal(request.Since) {
		// The state has let go of the cursor with the same transaction. A page that
		// is on its way belongs to the old request.
		k.standAt(state.WalkState{})
		k.moves++
	}
	l.nudge()
	return nil
}

// Skip steps over the least that can be stepped over of the page that a stream
// fails with now, and says in words what that leaves out. It needs a stream whose
// last try failed in a way that may be the page's fault. The stream then goes on
// at once.
func (p *Poller) Skip(account, stream string) (leftOut string, err error) {
	acted, err := p.act()
	if err != nil {
		return "", err
	}
	defer acted()
	w, err := p.one(account, stream)
	if err != nil {
		return "", err
	}
	var failing bool
	for _, l := range w.lanes() {
		for _, k := range l.walks {
			w.mu.Lock()
			f := k.failure
			ok := f != nil && f.skippable() && k.name != sources.Follow // there is nothing to step over: it is put off
			failing = failing || f != nil
			w.mu.Unlock()
			if ok {
				return w.skip(l, k, true)
			}
		}
	}
	if failing {
		return "", notNow("stream %s does not fail because of one page: nothing was skipped", w.ID)
	}
	return "", notFailing(w.ID)
}

func notFailing(id state.StreamID) error {
	return notNow("stream %s is not failing now: nothing was skipped", id)
}

// SkipNews is Skip for the state file of a daemon that does not run, where nobody
// remembers what fails: it steps over what the stream's News walk would ask for
// next.
func (p *Poller) SkipNews(account, stream string) (leftOut string, err error) {
	acted, err := p.act()
	if err != nil {
		return "", err
	}
	defer acted()
	w, err := p.one(account, stream)
	if err != nil {
		return "", err
	}
	return w.skip(w.news, w.news.walks[0], false)
}

// one returns the stream that is named.
func (p *Poller) one(account, stream string) (*worker, error) {
	if stream == "" {
		return nil, unknown("which stream? one at a time is skipped")
	}
	workers, err := p.pick(account, stream)
	if err != nil {
		return nil, err
	}
	return workers[0], nil
}

func (w *worker) skip(l *lane, k *walk, failing bool) (string, error) {
	s, ok := w.Source.(sources.Skipper)
	if !ok {
		return "", notNow("stream %s: its marketplace gives no way to skip anything", w.ID)
	}
	l.committing.Lock()
	defer l.committing.Unlock()
	w.mu.Lock()
	still := k.failure != nil && k.failure.skippable()
	w.mu.Unlock()
	if failing && !still { // it went on since the look
		return "", notFailing(w.ID)
	}
	next, leftOut, err := s.Skip(w.query(k).query)
	if err != nil {
		return "", notNow("stream %s: %w", w.ID, err)
	}
	// A crash from here on: the walk goes on behind what was skipped.
	if err := w.p.db.SetCursor(w.ID, string(k.name), next); err != nil {
		return "", err
	}
	k.cursor, k.skipped, k.unsaved = next, true, keepEvery
	k.moves++
	w.mu.Lock()
	k.failure, k.retry = nil, time.Time{}
	w.mu.Unlock()
	w.log.Warn("skipped by the operator", "walk", k.name, "left_out", leftOut)
	if l == w.news {
		w.ask()
	}
	l.nudge()
	return leftOut, nil
}

// Left is a walk of a stream that could not be brought to its end.
type Left struct {
	Stream state.StreamID
	Walk   sources.Walk // empty: the stream is not polled at all
	Err    error
}

// RunOnly drives one walk of an account's streams, or of the one that is named,
// to its end, for the commands that work on a state file while no daemon runs:
// News up to what existed at the call and then the visits that are due, or the open
// requests for history. It returns what it could not bring to its end before ctx's deadline.
func (p *Poller) RunOnly(ctx context.Context, walk sources.Walk, account, stream string) ([]Left, error) {
	if err := p.open(); err != nil {
		return nil, err
	}
	workers, err := p.pick(account, stream)
	if err != nil {
		return nil, err
	}
	if walk == sources.News {
		workers = p.driven(workers)
		gates := gatesOf(workers)
		return each(workers, func(w *worker) []Left {
			left, _ := w.newsAndVisits(ctx, gates[w.ID.Account], time.Now())
			return left
		}), nil
	}
	return each(workers, func(w *worker) []Left {
		l, k := w.walk(walk)
		if k == nil && stream == "" {
			return nil // the others have it
		}
		if k == nil {
			return []Left{{w.ID, walk, sources.ErrNoSuchWalk}}
		}
		w.mu.Lock()
		idle := walk == sources.Backfill && w.request == nil
		w.mu.Unlock()
		if idle {
			return nil
		}
		if err := w.drive(ctx, l, k, time.Now()); err != nil {
			return []Left{{w.ID, walk, err}}
		}
		return nil
	}), nil
}
