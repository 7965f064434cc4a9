// Package delivery reads the event log for each sink, at the sink's own position,
// and hands the events over: in the order of the log to sinks that are written
// in order, in the order of each subject to those that take many at once.
//
// It guarantees that no event passes a sink's position before it is with the
// receiver, in the sink's durable retry queue, or among its dead letters, so every
// event arrives at least once or waits for the operator, and that a sink which is
// slow or dead slows nobody else. It meets polling only in the state.
package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"syncd/internal/event"
	"syncd/internal/sink"
	"syncd/internal/state"
)

// Sink is one configured sink.
type Sink struct {
	Name          string
	Type          string
	Key           string                               // opaque; differs when the sink's configuration does
	Open          func() (sink.Sink, error)            // called when its worker begins, and again after a failure; delivery closes what it returns
	Parallel      bool                                 // Open returns a sink.Parallel: it has a retry queue. Otherwise it is written in the order of the log
	Wants         func(account, eventType string) bool // which events it is sent; nil: all
	FromBeginning bool                                 // a sink never seen before starts at the oldest kept event

	// What follows is for parallel sinks alone.
	RetryInitial time.Duration // backoff of an event: doubles from here; default 5 s
	RetryMax     time.Duration // to here, with full jitter; default 1 h
	GiveUpAfter  time.Duration // since its first attempt, an event that fails becomes a dead letter; 0: never
	MaxRefusals  int           // permanent answers that make an event a dead letter; 0: any number does not
	Rate         float64       // requests a second; 0: any number
	BatchEvents  int           // most events of a request; up to 1: each goes alone
	BatchWait    time.Duration // how long a batch that is not full waits for more, since its oldest event was recorded
}

// Config is what a Delivery needs. Fields are required unless they say otherwise.
type Config struct {
	DB      *state.DB
	Log     *slog.Logger
	Metrics *Metrics
	Grace   time.Duration // how long a delivery in flight may go on after the context ends
	Trusted func() bool   // is the wall clock to be believed? Giving up waits for it; nil: always
	Sinks   []Sink
}

// Delivery serves the sinks of a configuration. Its methods may be called
// concurrently, but for Run and Drain, of which one is called once.
type Delivery struct {
	db      *state.DB
	log     *slog.Logger
	metrics *Metrics
	grace   time.Duration
	trusted func() bool
	drift   func(since, now time.Time) time.Duration // of the wall clock
	window  int                                      // most events of a parallel sink in memory; 0: as many as are good for it

	updating sync.Mutex // one Update at a time

	mu     sync.Mutex
	served []*served
	ctx    context.Context // Run's; nil: it does not run
	ended  bool            // Run waits for the workers, and begins none
	wg     sync.WaitGroup  // of the workers of Run
}

// New returns a delivery. It opens the sinks' positions in the state, and no sink.
func New(cfg Config) (*Delivery, error) {
	d := &Delivery{db: cfg.DB, log: cfg.Log, metrics: cfg.Metrics, grace: cfg.Grace, trusted: cfg.Trusted, drift: drift}
	if d.trusted == nil {
		d.trusted = func() bool { return true }
	}
	cfg.Metrics.use(cfg.DB)
	return d, d.Update(cfg.Sinks)
}

// Admit gives sinks their places in the state: one that is new begins at what is the
// newest event now. Where one of them was of another type before, that is an error,
// and none gets a place.
func (d *Delivery) Admit(sinks []Sink) error {
	known, err := d.db.Sinks()
	if err != nil {
		return err
	}
	removed, err := d.db.Removed()
	if err != nil {
		return err
	}
	for _, looking := range []bool{true, false} {
		for _, s := range sinks {
			if looking {
				gone := slices.IndexFunc(removed, func(r state.RemovedSink) bool { return r.Name == s.Name })
				if !slices.Contains(known, s.Name) || gone >= 0 && removed[gone].Type == s.Type {
					continue // to open it would change something, and it cannot be of another type
				}
			}
			if _, err := d.db.OpenSink(s.Name, s.Type, s.FromBeginning, time.Now()); err != nil {
				return err
			}
		}
	}
	return nil
}

// stopSlack is how long Update waits for a worker beyond its grace period.
const stopSlack = 5 * time.Second

// Update makes these the sinks that are served. One whose name and key stay goes on
// undisturbed. The others are stopped, which takes up to the grace period, and
// closed, with what came of their deliveries committed, and begun anew where they
// are still configured. One that does not stop, since its disk hangs, is begun anew when it
// has, and holds up no other. After an error nothing has changed.
//
// A crash during it is a crash of each worker.
func (d *Delivery) Update(sinks []Sink) error {
	d.updating.Lock()
	defer d.updating.Unlock()
	if err := d.Admit(sinks); err != nil {
		return err
	}
	d.mu.Lock()
	old := make(map[string]*served, len(d.served))
	for _, s := range d.served {
		old[s.Name] = s
	}
	d.mu.Unlock()

	next := make([]*served, 0, len(sinks))
	var begin []*served
	for _, s := range sinks {
		if was := old[s.Name]; was != nil && was.Key == s.Key {
			next = append(next, was)
			delete(old, s.Name)
			continue
		}
		s.RetryInitial = cmp.Or(s.RetryInitial, 5*time.Second)
		s.RetryMax = max(cmp.Or(s.RetryMax, time.Hour), s.RetryInitial)
		n := newServed(d, s)
		next, begin = append(next, n), append(begin, n)
	}
	for _, s := range old {
		s.cancel()
	}
	patience := time.NewTimer(d.grace + stopSlack)
	defer patience.Stop()
	for _, s := range old {
		s.wait(patience)
	}
	for _, s := range begin {
		if was := old[s.Name]; was != nil {
			s.after = was.ended()
		}
		delete(old, s.Name)
	}
	for name := range old {
		d.metrics.Forget(name)
	}
	for _, s := range begin {
		s.metrics = d.metrics.declare(s.Name)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.served = next
	if d.ctx != nil && !d.ended {
		for _, s := range begin {
			d.beginLocked(s)
		}
	}
	return nil
}

func (d *Delivery) beginLocked(s *served) {
	if s.over { // Run has begun in the middle of the Update that takes it away
		return
	}
	ctx, cancel := context.WithCancel(d.ctx)
	done := make(chan struct{})
	s.stop, s.done = cancel, done
	d.wg.Go(func() {
		defer close(done)
		defer cancel()
		s.run(ctx)
	})
}

// Run delivers until ctx ends. What is in flight then may finish within the
// grace period. When it returns, all sinks are closed.
func (d *Delivery) Run(ctx context.Context) {
	d.mu.Lock()
	d.ctx = ctx
	for _, s := range d.served {
		d.beginLocked(s)
	}
	d.mu.Unlock()
	<-ctx.Done()
	d.mu.Lock()
	d.ended = true
	d.mu.Unlock()
	d.wg.Wait()
}

// Left is what a sink could not deliver.
type Left struct {
	Sink   string
	Events int
	Err    error
}

// Drain tries everything that waits, once, and returns what is left. It closes
// the sinks.
func (d *Delivery) Drain(ctx context.Context) ([]Left, error) {
	all := d.list()
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, s := range all {
		wg.Go(func() { errs[i] = s.drain(ctx) })
	}
	wg.Wait()
	var left []Left
	for i, s := range all {
		backlog, err := d.db.Backlog(s.Name)
		if err != nil {
			return nil, err
		}
		if errs[i] == nil && backlog.Events > 0 {
			errs[i] = errors.New("not delivered")
		}
		if errs[i] != nil {
			left = append(left, Left{s.Name, backlog.Events, errs[i]})
		}
	}
	return left, nil
}

func (d *Delivery) list() []*served {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.served
}

func (d *Delivery) find(name string) *served {
	for _, s := range d.list() {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// Reopen makes every sink that has something to do between deliveries do it now.
func (d *Delivery) Reopen() {
	for _, s := range d.list() {
		s.control.reopen.Store(true)
		s.control.wake()
	}
}

// Resume makes a sink go on that was paused by a 410, and forgets the pause in the
// state. One that is not paused is probed at once, where its endpoint is down.
func (d *Delivery) Resume(name string) error {
	s := d.find(name)
	if s == nil {
		return fmt.Errorf("no sink %q is configured", name)
	}
	if _, err := d.db.ResumeSink(name); err != nil {
		return err
	}
	s.control.resume.Store(true)
	s.control.wake()
	return nil
}

// Wake makes a sink look at its queue again, after a command has changed it.
func (d *Delivery) Wake(name string) {
	if s := d.find(name); s != nil {
		s.control.wake()
	}
}

// Status is what a sink is doing.
type Status struct {
	Name, Type  string
	Opening     string      // why the sink or its place in the state cannot be opened; empty: it is open, or not begun
	Down        bool        // the endpoint is: one request at a time until it acknowledges
	DownSince   time.Time   // zero: it is not down
	Hold        time.Time   // the receiver asked to be left alone until then; zero or past: it did not
	Gone        *state.Gone // it answered 410 and is paused until Resume; nil: it did not
	LastError   string      // of the last attempt that failed
	LastErrorAt time.Time
	LastAck     time.Time // by this process, as LastError
	InFlight    int       // requests
}

// Status returns what each sink is doing, in the order of the configuration.
func (d *Delivery) Status() []Status {
	var out []Status
	for _, s := range d.list() {
		out = append(out, s.report.get(s.Name, s.Type))
	}
	return out
}

// base is what both sorts of worker have.
type base struct {
	Sink
	sink    sink.Sink // opened
	db      *state.DB
	log     *slog.Logger
	metrics *sinkMetrics
	grace   time.Duration
	trusted func() bool
	control *control
	report  *report
	known   state.Sink // where the sink stood when the worker began
	drift   func(since, now time.Time) time.Duration
	atMost  int // Delivery.window

	position uint64 // committed: everything up to here is delivered, queued or given up
}

// wants reports whether the sink is sent an event.
func (b *base) wants(e *event.Logged) bool {
	return b.Wants == nil || b.Wants(e.Account, e.Type)
}

func (b *base) acknowledgedAt(e *event.Logged, now time.Time) {
	b.metrics.acknowledged.Inc()
	b.metrics.delay.Observe(max(now.Sub(e.Recorded), 0).Seconds())
	b.report.lastAck.Store(now.UnixNano())
}

// pull makes those heads due whose next time nobody can have asked for: a clock that
// was wrong did.
func (s *Sink) pull(db *state.DB, now time.Time) error {
	return db.PullRetries(s.Name, now, now.Add(s.RetryMax+time.Second))
}

// clockEvery is how soon a wall clock is noticed that was set, and clockStep by how
// much it must be.
const (
	clockEvery = time.Minute
	clockStep  = 10 * time.Second
)

// wallClock notices that the wall clock was set.
type wallClock struct {
	drift func(since, now time.Time) time.Duration // by which wall and monotonic clock have moved apart
	since time.Time
	apart time.Duration // since then
}

// drift is how much further the wall clock has come than the monotonic one. It is 0
// where one of the times has no monotonic reading.
func drift(since, now time.Time) time.Duration {
	return now.Round(0).Sub(since.Round(0)) - now.Sub(since)
}

func (c *wallClock) moved(now time.Time) bool {
	if c.since.IsZero() {
		c.since = now
	}
	apart := c.drift(c.since, now)
	if d := apart - c.apart; -clockStep < d && d < clockStep {
		return false
	}
	c.apart = apart
	return true
}

// sleep waits for d; false: ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
