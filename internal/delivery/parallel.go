package delivery

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"syncd/internal/event"
	"syncd/internal/grace"
	"syncd/internal/sink"
	"syncd/internal/state"
	"syncd/internal/trouble"
)

const (
	// windowEvents and windowBytes bound how far a parallel sink reads ahead of
	// the oldest event that is still on its way, and so its memory.
	windowEvents = 1024
	windowBytes  = 8 << 20
	// downSubjects is how many different subjects have to fail in a row, with no
	// acknowledgement between them, before the endpoint counts as down, and
	// downRounds how often everything that may be in flight: neither a poison event
	// nor a receiver that fails now and then is an outage.
	downSubjects = 3
	downRounds   = 2
	// commitEvery, commitEvents and commitQueued bound how long outcomes wait to share a commit
	// while other deliveries are in flight. What waits is repeated after a crash.
	commitEvery  = 20 * time.Millisecond
	commitEvents = 256
	commitQueued = 64 // heads of the queue: each that waits is stepped over in the search for the next due
	// probeMax is how long a dead endpoint is left alone between two probes.
	probeMax = time.Minute
	// holdMax is how long a receiver may ask to be left alone.
	holdMax = 24 * time.Hour
)

// parallel serves a sink that takes many events at once. One goroutine, the one
// in run or drain, owns all fields; deliveries run in goroutines of their own and
// report to results.
//
// Events are taken from the log into a window. An event that fails, and with it
// the later ones of its subject, moves from there to the durable retry queue
// when the position passes it; so a subject that fails holds back only itself.
//
// A crash repeats what was delivered and not yet counted: the window's
// acknowledgements are committed in groups, since losing a group only repeats
// ids that the receiver knows.
type parallel struct {
	base
	limit   int // deliveries in flight
	results chan result

	read    uint64            // the last event taken into the window
	window  []*entry          // in the order of the log
	bytes   int               // of the window
	ready   []*entry          // fresh events whose subject is free, oldest first
	chains  map[string]*chain // subjects with something in flight or about to be
	leaving map[string]int    // events by subject that join the queue when the position passes them
	flying  int
	landing bool // no more is sent

	// Outcomes that wait for their commit. Their subjects stay busy until then.
	front    int            // entries at the front of the window that are done
	acked    []state.Failed // heads of the queue that were delivered
	tried    []state.Failed // heads that were tried in vain
	settleBy time.Time      // when to commit what waits; zero: nothing does
	unsure   bool           // the last commit reported a failure: it is repeated before anything is sent

	trouble trouble.Run
	failing map[string]bool // subjects that failed since the last acknowledgement; at most downSubjects
	vain    int             // failures since then
	probeAt time.Time       // while the endpoint is down: when to try one event
	probes  int
	probed  string    // the subject of the last probe
	hold    time.Time // the receiver asked to be left alone until then
}

// entry is an event of the window.
type entry struct {
	event  event.Logged
	done   bool          // delivered, not wanted, or queued
	queued *state.Failed // joins the retry queue when the position passes it
}

// chain is a subject that is busy.
type chain struct {
	waiting []*entry
}

// result is a delivery that came back.
type result struct {
	job
	err error
}

// job is a delivery: of a fresh event, or of the head of a subject in the queue.
type job struct {
	event event.Logged
	entry *entry       // fresh
	retry state.Failed // otherwise
	sent  time.Time
	probe bool // sent to see whether an endpoint that is down is up again
}

func newParallel(b base, s sink.Parallel) *parallel {
	return &parallel{base: b, limit: max(s.Parallel(), 1), read: b.position, results: make(chan result),
		chains: make(map[string]*chain), leaving: make(map[string]int), failing: make(map[string]bool)}
}

func (p *parallel) down() bool {
	return len(p.failing) >= downSubjects && p.vain >= downRounds*p.limit
}

// run delivers until ctx ends, then waits for what is in flight and counts it.
func (p *parallel) run(ctx context.Context) {
	wake, stop := p.db.Watch()
	defer stop()
	var wg sync.WaitGroup
	defer func() { p.land(&wg) }()
	for ctx.Err() == nil {
		next, err := p.step(ctx, &wg)
		if err != nil {
			if !sleep(ctx, p.stateFailed(err)) {
				return
			}
			continue
		}
		var timer <-chan time.Time
		if !next.IsZero() {
			timer = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-timer:
		case r := <-p.results:
			p.take(r)
		}
	}
}

// land waits for what is in flight and commits what came of it.
func (p *parallel) land(wg *sync.WaitGroup) {
	p.landing = true
	go func() {
		wg.Wait()
		close(p.results)
	}()
	for r := range p.results {
		p.take(r)
	}
	if err := p.commit(); err != nil {
		p.stateFailed(err) // the next start repeats these deliveries
	}
}

// step moves as much as can be moved without waiting, and returns when there is
// something to do at a time of its own; zero: only a result or a new event
// changes anything.
func (p *parallel) step(ctx context.Context, wg *sync.WaitGroup) (time.Time, error) {
	for {
		p.takeAll()
		if p.unsure {
			if err := p.commit(); err != nil {
				return time.Time{}, err
			}
		}
		if err := p.fill(); err != nil {
			return time.Time{}, err
		}
		next, err := p.launch(ctx, wg)
		if err != nil {
			return time.Time{}, err
		}
		n, now := p.pending(), time.Now()
		switch {
		case n == 0:
			p.settleBy = time.Time{}
			return next, nil
		case p.settleBy.IsZero():
			p.settleBy = now.Add(commitEvery)
		}
		if p.flying > 0 && n < commitEvents && len(p.acked)+len(p.tried) < commitQueued && now.Before(p.settleBy) {
			if next.IsZero() || p.settleBy.Before(next) {
				next = p.settleBy
			}
			return next, nil
		}
		// What is committed makes room in the window and frees subjects: go round.
		if err := p.commit(); err != nil {
			return time.Time{}, err
		}
	}
}

// takeAll takes the results that are there already.
func (p *parallel) takeAll() {
	for {
		select {
		case r := <-p.results:
			p.take(r)
		default:
			return
		}
	}
}

// pending is how many outcomes wait for a commit.
func (p *parallel) pending() int {
	for p.front < len(p.window) && p.window[p.front].done {
		p.front++
	}
	return p.front + len(p.acked) + len(p.tried)
}

// fill takes events from the log into the window.
func (p *parallel) fill() error {
	for len(p.window) < windowEvents && p.bytes < windowBytes {
		events, err := p.db.ReadEvents(p.read, windowEvents-len(p.window), windowBytes-p.bytes)
		if err != nil || len(events) == 0 {
			return err
		}
		for _, e := range events {
			n := &entry{event: e}
			if err := p.admit(n); err != nil {
				return err
			}
			p.read = e.Sequence
			p.window = append(p.window, n)
			p.bytes += len(e.JSON)
		}
	}
	return nil
}

// admit decides what to do with a fresh event.
func (p *parallel) admit(n *entry) error {
	key := n.event.PartitionKey
	for len(p.ahead) > 0 && p.ahead[0] < n.event.Sequence {
		p.ahead = p.ahead[1:]
	}
	if len(p.ahead) > 0 && p.ahead[0] == n.event.Sequence {
		n.done = true
		return nil
	}
	if !p.wants(&n.event) {
		n.done = true
		p.metrics.events.WithLabelValues(p.Name, "skipped").Inc()
		return nil
	}
	if c := p.chains[key]; c != nil {
		c.waiting = append(c.waiting, n)
		return nil
	}
	waits, err := p.db.Waits(p.Name, key)
	if err != nil {
		return err
	}
	if waits || p.leaving[key] > 0 {
		p.queue(n, state.Failed{Next: time.Now()})
		return nil
	}
	p.chains[key] = &chain{}
	p.ready = append(p.ready, n)
	return nil
}

// queue marks an event for the retry queue.
func (p *parallel) queue(n *entry, f state.Failed) {
	f.Seq, f.Key = n.event.Sequence, n.event.PartitionKey
	n.done, n.queued = true, &f
	p.leaving[f.Key]++
}

// commit settles what waits in one transaction: the position moves over
// everything at the front of the window that is done, events that failed join
// the queue, and heads that were delivered leave it.
//
// A crash before it repeats these deliveries. When it reports a failure it may
// have taken effect all the same, so it is repeated before anything is sent that
// could rest on either.
func (p *parallel) commit() error {
	p.pending()
	done := p.window[:p.front]
	s := state.Settlement{Position: p.position, Delivered: p.acked, Attempts: p.tried, Ahead: p.acknowledgedAhead()}
	if len(done)+len(p.acked)+len(p.tried)+len(s.Ahead) == 0 && !p.unsure {
		return nil
	}
	for _, n := range done {
		if n.queued != nil {
			s.Failed = append(s.Failed, *n.queued)
		}
		s.Position = n.event.Sequence
	}
	p.unsure = true
	if err := p.db.Settle(p.Name, time.Now(), s); err != nil {
		return err
	}
	p.unsure, p.settleBy, p.position = false, time.Time{}, s.Position
	for _, n := range done {
		p.bytes -= len(n.event.JSON)
	}
	clear(done)
	p.window, p.front = p.window[len(done):], 0
	for _, f := range s.Failed {
		if p.leaving[f.Key]--; p.leaving[f.Key] == 0 {
			delete(p.leaving, f.Key)
		}
	}
	p.acked, p.tried = nil, nil
	for _, f := range append(s.Delivered, s.Attempts...) {
		// The later events of the subject are behind it in the queue, or go there.
		c := p.chains[f.Key]
		delete(p.chains, f.Key)
		p.release(c)
	}
	return nil
}

// acknowledgedAhead lists what was delivered beyond the position when nothing more
// is sent, so that a stop in good order repeats nothing. A crash does.
func (p *parallel) acknowledgedAhead() []uint64 {
	if !p.landing {
		return nil
	}
	var ahead []uint64
	for _, n := range p.window[p.front:] {
		if n.done && n.queued == nil {
			ahead = append(ahead, n.event.Sequence)
		}
	}
	return ahead
}

// launch starts deliveries, as many as are allowed.
func (p *parallel) launch(ctx context.Context, wg *sync.WaitGroup) (time.Time, error) {
	now := time.Now()
	limit := p.limit
	if p.down() {
		limit = 1
		if now.Before(p.probeAt) {
			return later(p.probeAt, p.hold), nil
		}
	}
	if now.Before(p.hold) {
		return p.hold, nil
	}
	if p.flying >= limit {
		return time.Time{}, nil // the next result changes something
	}
	if p.down() && len(p.ready) > 0 { // untried subjects first
		p.launchFresh(ctx, wg, limit, now)
		return time.Time{}, nil
	}
	due, err := p.db.Due(p.Name, limit-p.flying+1, func(key string) bool { return p.chains[key] != nil })
	if err != nil {
		return time.Time{}, err
	}
	if p.down() && len(due) > 0 {
		// A probe takes another subject than the last one, which may be what the
		// receiver chokes on. And it does not wait for its event's own time: a few
		// subjects at their longest wait would leave an endpoint that is up again
		// alone for most of an hour.
		if len(due) > 1 && due[0].Key == p.probed {
			due = due[1:]
		}
		due[0].Next = now
	}
	n := 0
	for n < len(due) && n < limit-p.flying && !due[n].Next.After(now) {
		n++
	}
	if err := p.retry(ctx, wg, due[:n], now); err != nil {
		return time.Time{}, err
	}
	p.launchFresh(ctx, wg, limit, now)
	if p.flying < limit && n < len(due) {
		return due[n].Next, nil
	}
	return time.Time{}, nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// launchFresh sends fresh events until limit are in flight.
func (p *parallel) launchFresh(ctx context.Context, wg *sync.WaitGroup, limit int, now time.Time) {
	for ; p.flying < limit && len(p.ready) > 0; p.ready = p.ready[1:] {
		n := p.ready[0]
		p.ready[0] = nil
		p.fly(ctx, wg, job{event: n.event, entry: n, sent: now})
	}
}

// retry sends the heads of waiting subjects. Of those that were tried before, the
// attempt and its next time are durable before they are sent: a crash on the way
// costs the wait, not a hot loop. A first attempt is repeated, as one from the
// log is.
func (p *parallel) retry(ctx context.Context, wg *sync.WaitGroup, heads []state.Failed, now time.Time) error {
	if len(heads) == 0 {
		return nil
	}
	jobs := make([]job, 0, len(heads))
	var again []state.Failed
	for _, f := range heads {
		e, ok, err := p.db.Event(f.Seq)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("event %d waits in the retry queue of %s and is not in the log", f.Seq, p.Name)
		}
		if f.First.IsZero() {
			f.First = now
		}
		f.Attempts++
		f.Next = now.Add(p.backoff(f.Attempts))
		jobs = append(jobs, job{event: e, retry: f, sent: now})
		if f.Attempts > 1 {
			again = append(again, f)
		}
	}
	if len(again) > 0 {
		if err := p.db.RecordAttempt(p.Name, again...); err != nil {
			return err
		}
	}
	for _, j := range jobs {
		p.chains[j.retry.Key] = &chain{}
		p.fly(ctx, wg, j)
	}
	return nil
}

// backoff is exponential with full jitter: anything up to the doubled time.
func (p *parallel) backoff(attempts int) time.Duration {
	return rand.N(trouble.Doubled(attempts, p.RetryInitial, p.RetryMax)) + time.Millisecond
}

func (p *parallel) fly(ctx context.Context, wg *sync.WaitGroup, j job) {
	p.flying++
	if j.probe = p.down(); j.probe {
		p.probed = j.event.PartitionKey
	}
	wg.Go(func() {
		late, cancel := grace.Context(ctx, p.grace)
		defer cancel()
		p.results <- result{j, p.Sink.Sink.Deliver(late, []event.Logged{j.event})}
	})
}

// take notes what came of a delivery.
func (p *parallel) take(r result) {
	p.flying--
	key := r.event.PartitionKey
	if r.err == nil {
		p.acknowledged(&r.event)
		p.trouble.Worked(p.log, "sink works again")
		clear(p.failing)
		p.vain, p.probes = 0, 0
		if r.entry == nil {
			p.acked = append(p.acked, r.retry)
			return
		}
		c := p.chains[key]
		delete(p.chains, key)
		r.entry.done = true
		if len(c.waiting) > 0 {
			p.chains[key] = &chain{waiting: c.waiting[1:]}
			// In the order of the log, or the position would wait until all other
			// subjects have had their turn.
			i, _ := slices.BinarySearchFunc(p.ready, c.waiting[0], func(a, b *entry) int { return cmp.Compare(a.event.Sequence, b.event.Sequence) })
			p.ready = slices.Insert(p.ready, i, c.waiting[0])
		}
		return
	}
	now := time.Now()
	e := p.failed(r, key, now)
	f := state.Failed{Seq: r.event.Sequence, Key: key, Attempts: 1, First: r.sent, Status: e.Status, Error: e.Error()}
	if r.entry == nil {
		f.Attempts, f.First = r.retry.Attempts, r.retry.First
	}
	// Not before the receiver wants to be asked again, also after a restart.
	f.Next = later(now.Add(p.backoff(f.Attempts)), p.hold)
	if r.entry == nil {
		p.tried = append(p.tried, f)
		return
	}
	c := p.chains[key]
	delete(p.chains, key)
	p.queue(r.entry, f)
	p.release(c)
}

// release sends the events of a subject that came while it was busy to the queue,
// behind the one that is there.
func (p *parallel) release(c *chain) {
	for _, n := range c.waiting {
		p.queue(n, state.Failed{Next: time.Now()})
	}
}

// failed notes what a failure says about the endpoint.
func (p *parallel) failed(r result, key string, now time.Time) *sink.Error {
	e := sink.AsError(r.err)
	p.metrics.events.WithLabelValues(p.Name, "failed").Inc()
	if p.landing {
		return e // we gave up waiting: that says nothing about the receiver
	}
	p.trouble.Add(p.log, slog.LevelWarn, fmt.Sprint(e.Kind, e.Status), "delivery failed, trying again",
		"event", r.event.ID, "err", e)
	if e.RetryAfter > 0 {
		p.hold = later(p.hold, now.Add(min(e.RetryAfter, holdMax)))
	}
	wasDown := p.down()
	p.vain++
	if len(p.failing) < downSubjects {
		p.failing[key] = true
	}
	if p.down() && (!wasDown || r.probe) { // what was in flight when it went down says nothing new
		p.probes++
		p.probeAt = now.Add(trouble.Backoff(p.probes, min(p.RetryInitial, probeMax), probeMax))
		if !wasDown {
			p.probed = key
			p.trouble.Add(p.log, slog.LevelError, "down", "the endpoint is down: trying one event at a time until it answers", "err", e)
		}
	}
	return e
}

func (p *parallel) stateFailed(err error) time.Duration {
	n := p.trouble.Add(p.log, slog.LevelError, err.Error(), "sink stalled, trying again", "err", err)
	return trouble.Backoff(n, time.Second, time.Minute)
}
