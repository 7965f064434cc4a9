// Package poller decides when to fetch, drives the pages of each walk, and
// commits them.
//
// # Lanes
//
// A stream is read in two lanes side by side, and one that visits things in a third.
// The news lane drives the News walk by the stream's schedule. The background lane
// drives Sweep, Full and Backfill, one page of one of them at a time: a sweep that is
// due goes first, then a full reading, then an open request for history. Between two pages it looks again, so a
// sweep interrupts a backfill of days; and who has completed a run lets the others
// read as many pages before its next, so that a budget that is too small for the
// sweeps stretches all of them and starves none. News never waits for any of it:
// which request gets the next token of the budget is decided in package apiclient,
// by walk.
//
// A lane has one goroutine while it works, and only a timer while it sleeps. Each
// walk has its own cursor. It belongs to the goroutine of its lane, which moves it
// under lane.committing; Skip and Backfill move it under the same lock. Who holds it
// waits for no request. What all lanes and the reports need
// (where the stream stands, due times, failures, progress) is guarded by
// worker.mu, which is held over no I/O at all.
//
// The lanes' commits are transactions of the state, in any order. A reading that
// was overtaken by a later one of another lane changes nothing, since each
// carries a stamp that was taken before its request.
//
// # Pages
//
// One page is one request is one transaction. Nothing is fetched inside a
// transaction, and the cursor of a page is never saved without its items. When
// the process dies between a fetch and its commit, the page is fetched again;
// after the commit, the next one is. While a page of a long run of News is committed
// the next one is fetched, and let go of if that commit fails. A page that changes
// nothing writes nothing, except that a walk of many such pages saves its cursor now
// and then.
//
// # Visits
//
// What no list shows is visited: walks that read lists find things that have moved
// (sources.Page.Found), and the third lane drives Follow, whose runs are one visit
// each. The plan is in the state, so a lane without anything due is a timer, set to
// the next due time, and every commit that found something wakes it. Urgent visits
// go first, but for every few of them one of the others has its turn.
//
// What a page has found is saved with its items and its cursor. A crash before that
// reads the page again; after it, the plan has the visit. A visit that shows
// something is saved with it, and one that shows nothing new stays in memory for
// some minutes: a crash repeats it. One of several pages goes on after a crash from
// its saved cursor. One that fails is put off in memory, and the next one goes on;
// of one that fails in its middle the cursor and what is staged are dropped in one
// transaction: a crash before it goes on in the middle, and after it the visit
// begins anew. Several in a row that fail for the first time are an outage, for which
// the lane waits; it tries others then, since a few may fail for ever by themselves.
//
// When a visit is due is a time by the machine's clock. What was planned with one that
// was ahead is due once that is set right; and while it is in doubt, nothing is
// forgotten.
//
// # Staged items
//
// Items whose order is known only later are kept aside durably. With the last page,
// or with one that says that they are in order (sources.Page.Ordered), they are
// committed in pieces, and with the last piece that page's cursor takes effect. A
// crash on the way continues there before it fetches anything.
//
// # Schedules
//
// Many streams are spread over as much time as their periods allow: each is put off
// by a part of it that belongs to its name, the same in every process.
//
// A sweep is due Sweep.Every after the beginning of its last complete run, and a
// full reading Sweep.Full after its own; both are durable, and a run that was cut
// short goes on from its cursor. The first complete News run shows all that there
// is, so it counts as both.
//
// # What follows a complete run
//
// Items that were held back because they differ from their record only by keys
// that came or went are settled after each Full run, and where a stream has none,
// after each News run. A settlement that a crash interrupted is finished before
// anything else is read. Items of a Vanish stream that a News run did not show
// are noted as missing after runs that prove it: begun by this process from the
// first page, not partial, and without an entry that could not be read.
//
// A Sweep of a stream with Lookup is told which items such a run did not show. It
// waits for a run of News that began when it was due, and of which the ids are kept
// in memory until it is complete.
//
// # Changes
//
// Update changes which streams are polled, and how, while Run runs. To a stream that
// changes it is as if the process had stopped in order and begun anew; all others notice
// nothing of it.
package poller

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"syncd/internal/sources"
	"syncd/internal/state"
)

// Stream is one stream to poll.
type Stream struct {
	ID          state.StreamID
	Marketplace string
	Group       string // the API group that a 401 stops
	Source      sources.Source
	Schedule    string        // of News; see ParseSchedule
	Overlap     time.Duration // how far back a News run begins
	Start       *time.Time    // what is old at first use; nil: the account's first poll; zero: nothing
	Ignore      []string      // top-level fields of an item whose change is no news

	// As sources.Stream says. No walks: News alone. Follow needs no News of its own to
	// be complete.
	Walks  []sources.Walk
	Whole  bool
	Lookup bool
	Driver string
	Vanish bool

	Sweep Sweep
}

// Sweep says how changes are looked for where a stream has the walks for it.
type Sweep struct {
	Every  time.Duration // between the beginnings of two Sweep runs; 0: none
	Full   time.Duration // of two Full runs; 0: none
	Window time.Duration // how far back both look
}

// Config is what a Poller needs. DB, Log and Metrics are required.
type Config struct {
	DB      *state.DB
	Log     *slog.Logger
	Metrics *Metrics
	Streams []Stream
	Shown   bool // somebody looks at Status: long walks need no line in the log

	// Trusted reports whether the machine's clock can be believed. While it cannot,
	// nothing that a source visits is forgotten for its age (sources.Visit.Forget). It is
	// called concurrently. Nil: always.
	Trusted func() bool
}

// Poller polls the streams of a configuration. Its methods are safe for
// concurrent use, but only one of Run, Once and RunOnly may run at a time.
type Poller struct {
	db      *state.DB
	log     *slog.Logger
	metrics *Metrics
	shown   bool
	trusted func() bool

	scheduled atomic.Bool
	large     chan struct{} // turns of large answers: see permit
	broken    chan error    // size 1: why Run ends before its context does

	// changing, of size 1, is held by who has put something into it, while streams come
	// and go: while they are opened, at the beginning and the end of Run, and for all of
	// Update.
	changing chan struct{}
	running  context.Context // guarded by changing: Run's; nil: it does not run
	over     bool            // guarded by changing: Run has ended

	// acting is read-locked while something that an operator asks for is done to a
	// stream, and locked while others take the streams' places: what was done to the
	// old one is in the state then, from which the new one begins.
	acting sync.RWMutex

	mu      sync.Mutex
	workers []*worker // by name. No slice that was here is changed afterwards
	byID    map[state.StreamID]*worker
	opened  bool                  // it is known of each where it stands
	blocked map[groupID]time.Time // API groups that refused their token: not before
	stopped map[string]error      // accounts that are not polled at all, and why
}

type groupID struct{ account, group string }

// New returns a poller. It neither reads the state nor sends anything.
func New(cfg Config) (*Poller, error) {
	p := &Poller{db: cfg.DB, log: cfg.Log, metrics: cfg.Metrics, shown: cfg.Shown, broken: make(chan error, 1), changing: make(chan struct{}, 1),
		large: make(chan struct{}, largePages), blocked: make(map[groupID]time.Time), stopped: make(map[string]error)}
	if p.trusted = cfg.Trusted; p.trusted == nil {
		p.trusted = func() bool { return true }
	}
	var workers []*worker
	for _, s := range cfg.Streams {
		w, err := newWorker(p, s, len(cfg.Streams))
		if err != nil {
			return nil, err
		}
		workers = append(workers, w)
	}
	p.put(workers)
	p.declare(workers)
	p.warnTwice(workers)
	return p, nil
}

// put makes these the streams that are polled.
func (p *Poller) put(workers []*worker) {
	slices.SortFunc(workers, func(a, b *worker) int { return cmp.Compare(a.ID.String(), b.ID.String()) })
	byID := make(map[state.StreamID]*worker, len(workers))
	for _, w := range workers {
		byID[w.ID] = w
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.workers, p.byID = workers, byID
}

// all are the streams of the configuration, by name.
func (p *Poller) all() []*worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.workers
}

// polled are those of accounts that are not stopped.
func (p *Poller) polled() []*worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.workers), func(w *worker) bool { return p.stopped[w.ID.Account] != nil })
}

// worker is the one of a stream; nil: it is not polled.
func (p *Poller) worker(id state.StreamID) *worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byID[id]
}

// declare makes the metrics of streams present.
func (p *Poller) declare(workers []*worker) {
	stopped := p.Stopped()
	for _, w := range workers {
		p.metrics.declare(w.Stream)
		if stopped[w.ID.Account] != nil {
			p.metrics.errors.WithLabelValues(w.ID.Account, w.ID.Stream, reasonOtherSeller).Inc()
		}
	}
}

// warnTwice tells the operator of two accounts of one seller that emit the same
// stream: each item comes out twice. It tells of those alone of which one is new.
func (p *Poller) warnTwice(fresh []*worker) {
	type key struct{ marketplace, seller, stream string }
	first, isNew := make(map[key]*worker), make(map[*worker]bool)
	for _, w := range fresh {
		isNew[w] = true
	}
	for _, w := range p.all() {
		k := key{w.Marketplace, w.Source.Seller(), w.ID.Stream}
		other := first[k]
		if other == nil {
			first[k] = w
			continue
		}
		if isNew[w] || isNew[other] {
			p.log.Warn("two accounts of one seller emit the same stream: every item comes twice",
				"stream", w.ID.Stream, "account", w.ID.Account, "other", other.ID.Account)
		}
	}
}

// open pins the sellers and reads where each stream stands, once for a poller. A
// token of another seller stops its whole account, which is left out and
// reported.
func (p *Poller) open() error {
	p.mu.Lock()
	opened := p.opened
	p.mu.Unlock()
	if opened {
		return nil // nobody has to wait for an Update for that
	}
	p.changing <- struct{}{}
	defer func() { <-p.changing }()
	return p.openLocked()
}

func (p *Poller) openLocked() error {
	if p.opened { // written under changing too
		return nil
	}
	workers := p.all()
	firstPoll, stopped, err := p.pin(workers)
	if err != nil {
		return err
	}
	for _, w := range workers {
		if stopped[w.ID.Account] != nil {
			p.metrics.errors.WithLabelValues(w.ID.Account, w.ID.Stream, reasonOtherSeller).Inc()
			continue
		}
		if err := w.open(firstPoll[w.ID.Account]); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped, p.opened = stopped, true
	return nil
}

// pin pins the sellers of the accounts of streams. It returns when each account was
// first polled, and those whose seller is another one than before.
func (p *Poller) pin(workers []*worker) (firstPoll map[string]time.Time, stopped map[string]error, err error) {
	firstPoll, stopped = make(map[string]time.Time), make(map[string]error)
	now := time.Now()
	for _, w := range workers {
		name := w.ID.Account
		account, err := p.db.PinAccount(name, w.Marketplace, w.Source.Seller(), now)
		if other, ok := errors.AsType[*state.OtherSellerError](err); ok {
			if stopped[name] == nil {
				p.log.Error("account stopped", "account", name, "err", other)
			}
			stopped[name] = other
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		firstPoll[name] = account.FirstPoll
	}
	return firstPoll, stopped, nil
}

// Stopped returns the accounts that are not polled since their token belongs to
// another seller than before, and the reason.
func (p *Poller) Stopped() map[string]error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.stopped)
}

// Run polls every stream by its schedules until ctx ends. What is in flight then
// is finished and committed. The only errors are those of the state: one that
// passes is tried again, but where the state can be written no more
// (state.ErrBroken), nothing that is read can be saved, and Run ends.
func (p *Poller) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.changing <- struct{}{}
	err := p.openLocked()
	if err == nil {
		p.running = ctx
		p.begin(p.polled())
	}
	<-p.changing
	if err != nil {
		return err
	}
	p.scheduled.Store(true)
	select {
	case <-ctx.Done():
	case err = <-p.broken:
		cancel()
	}
	p.changing <- struct{}{} // an Update comes to its end: its streams end with ctx
	defer func() { <-p.changing }()
	p.running, p.over = nil, true
	workers := p.polled()
	halt(workers)
	if err == nil {
		p.part(workers)
	}
	return err
}

// begin gives the lanes of streams their turns, until Run ends or the streams are
// halted. The caller holds changing.
func (p *Poller) begin(workers []*worker) {
	for _, w := range workers {
		ctx, cancel := context.WithCancel(p.running)
		w.cancel = cancel
		w.scheduleFrom(time.Now())
		w.tellAway(time.Now())
		w.lanesEnd.Add(len(w.lanes()))
		w.runNews(ctx, w.lanesEnd.Done)
		w.runBackground(ctx, w.lanesEnd.Done)
		if w.follow != nil {
			w.runFollow(ctx, w.lanesEnd.Done)
		}
	}
}

// halt ends the lanes of streams, if they were begun: what is in flight is finished
// and committed, and what only the process knew of it is saved.
func halt(workers []*worker) {
	for _, w := range workers {
		if w.cancel == nil {
			continue
		}
		w.cancel()
		for _, l := range w.lanes() {
			l.nudge()
		}
	}
	for _, w := range workers {
		w.lanesEnd.Wait()
	}
}

// breaks ends Run.
func (p *Poller) breaks(err error) {
	select {
	case p.broken <- err:
	default: // it knows
	}
}

// Scheduled reports whether Run has scheduled every stream.
func (p *Poller) Scheduled() bool { return p.scheduled.Load() }

// block keeps an API group of an account quiet until a time.
func (p *Poller) block(account, group string, until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.blocked[groupID{account, group}] = until
}

// blockedUntil is until when an API group of an account is to be quiet; zero: it
// was not refused.
func (p *Poller) blockedUntil(account, group string) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.blocked[groupID{account, group}]
}

// accepted notes that the marketplace took the token. Where its API group was
// blocked, all streams of the group go on at once.
func (p *Poller) accepted(account, group string) {
	id := groupID{account, group}
	p.mu.Lock()
	_, was := p.blocked[id]
	delete(p.blocked, id)
	p.mu.Unlock()
	if !was {
		return
	}
	for _, w := range p.all() {
		if w.ID.Account == account && w.Group == group {
			w.revive()
		}
	}
}

// hint wakes the news of another stream of an account, if that is polled.
func (p *Poller) hint(id state.StreamID) {
	if w := p.worker(id); w != nil {
		w.news.nudge()
	}
}
