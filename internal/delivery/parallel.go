package delivery

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"syncd/internal/event"
	"syncd/internal/grace"
	"syncd/internal/sink"
	"syncd/internal/state"
	"syncd/internal/trouble"
)

// parallel serves a sink that takes many requests at once. One goroutine, the one
// in run or drain, owns all fields; senders deliver, and a commit runs beside it,
// each reporting over a channel.
//
// Events are taken from the log into a window. One that fails joins the durable
// retry queue with the next commit, and the later ones of its subject go there
// behind it; so a subject that fails holds back only itself. A subject that has
// something on its way, or an outcome that is not committed, is busy: what comes
// of it waits in memory, inside the window.
//
// A crash repeats what was delivered and not yet committed. Commits are made in
// groups all the same, since losing a group only repeats requests whose ids the
// receiver knows, and an fsync for each would cost more than the requests.
type parallel struct {
	base
	to    sink.Parallel
	limit int // requests in flight

	jobs    chan *job // to the senders; with results it has room for all that may be in flight
	results chan *job
	senders int
	wg      sync.WaitGroup // of the senders
	late    context.Context
	idle    []*job // to be used again

	flying  int          // requests on their way
	air     []*job       // those, but for such as wait for the record of their attempt
	held    [classes]int // of them, by class
	turn    turns
	paced   time.Time // `rate`: no request before
	landing bool      // no more is sent
	once    bool      // drain: nothing waits for a better time

	clock wallClock
	window
	queue
	group     group      // outcomes that wait for their commit
	settling  *group     // those whose commit is going on; nil: none is
	settled   chan error // what came of it
	settleBy  time.Time  // when to commit the group; zero: it is empty
	settledAt time.Time  // when the last commit began
	unsure    bool       // the last commit reported a failure and may have taken effect: it is repeated before anything is sent
	outage
	batches

	trouble trouble.Run // of the endpoint
	stalls  trouble.Run // of the state
}

// job is a request: of one fresh event or several, or of a head of the queue, with
// its batch.
type job struct {
	class  class
	events []event.Logged
	saved  bool         // fresh events that are a batch which is saved, named by its first
	head   state.Failed // of the queue, this attempt counted
	last   time.Time    // the attempt of the head before this one; zero: there was none
	parked state.Failed // the head that it became on its way: head is the sender's until then; no Seq: it did not
	probe  bool         // sent to see whether an endpoint that is down is up again
	sent   time.Time
	err    error
}

// class is what a slot is used for. Those after fresh are the classes of the queue.
type class int

const (
	fresh class = iota
	firstTry
	again
	aside
	classes
)

const (
	// commitEvery, and the counts below, bound how long outcomes wait to share a
	// commit while other requests are in flight. What waits is repeated after a
	// crash.
	commitEvery  = 20 * time.Millisecond
	commitQueued = 64 // heads of the queue: each that waits is stepped over in the search for the next due
)

func newParallel(b base, to sink.Parallel) *parallel {
	limit := max(to.Parallel(), 1)
	p := &parallel{base: b, to: to, limit: limit, jobs: make(chan *job, limit), results: make(chan *job, limit), settled: make(chan error, 1)}
	p.window = newWindow(&b, limit)
	p.queue = newQueue()
	p.outage = newOutage(&b, time.Now())
	p.clock.drift = b.drift
	p.batches = batches{unsent: b.known.Batches, members: make(map[uint64]bool)}
	if p.gone != nil {
		p.log.Warn("sink is paused: its endpoint answered 410; `syncd sinks resume "+p.Name+"` goes on", "since", p.gone.At, "event", p.gone.Event)
	}
	p.report.set(func(s *Status) { s.Gone, s.Hold, s.DownSince = p.gone, p.hold, time.Time{} })
	return p
}

// begin readies the worker to send. What is in flight when ctx ends may go on for
// the grace period.
func (p *parallel) begin(ctx context.Context) (cancel context.CancelFunc) {
	p.late, cancel = grace.Context(ctx, p.grace)
	return cancel
}

// run delivers until ctx ends, then waits for what is in flight and commits what
// came of it.
func (p *parallel) run(ctx context.Context) {
	wake, stop := p.db.Watch()
	defer stop()
	defer p.begin(ctx)()
	defer p.land()
	if err := p.doubt(time.Now()); err != nil {
		p.stateFailed(err)
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var armed time.Time // to set a timer anew for each result is not for nothing
	for ctx.Err() == nil {
		next, err := p.step()
		if err == nil {
			switch {
			case next == armed:
			case next.IsZero():
				timer.Stop()
			default: // a wall clock that is set meanwhile is noticed
				timer.Reset(min(time.Until(next), clockEvery))
			}
			armed = next
			select {
			case <-ctx.Done():
			case <-wake:
				p.more = true
			case <-p.control.ring:
				p.rung()
			case <-timer.C:
				armed = time.Time{}
			case j := <-p.results:
				p.take(j)
			case err = <-p.settled:
				err = p.finish(err)
			}
		}
		if err != nil && !sleep(ctx, p.stateFailed(err)) {
			return
		}
	}
}

// rung looks at what others have changed.
func (p *parallel) rung() {
	p.refresh()
	if p.control.resume.Swap(false) {
		p.resuming = true
	}
}

// land waits for what is in flight and commits what came of it. Saved batches that
// were not sent are, as they are, after the next start.
func (p *parallel) land() {
	p.landing = true
	close(p.jobs)
	go func() {
		p.wg.Wait()
		close(p.results)
	}()
	for j := range p.results {
		p.take(j)
	}
	var err error
	if p.settling != nil {
		err = p.finish(<-p.settled)
	}
	if err == nil && p.group.n > 0 {
		err = p.commit()
	}
	if err != nil {
		p.stateFailed(err) // the next start repeats these deliveries
	}
}

// step moves as much as can be moved without waiting, and returns when there is
// something to do at a time of its own; zero: only a result, a commit or a new
// event changes anything.
func (p *parallel) step() (next time.Time, err error) {
	p.takeAll()
	if p.unsure {
		if p.settling == nil {
			p.settle()
		}
		return time.Time{}, nil
	}
	if err := p.prepare(); err != nil {
		return time.Time{}, err
	}
	if next, err = p.send(time.Now()); err != nil {
		return time.Time{}, err
	}
	return earlier(p.settleSoon(next), p.calmed(time.Now())), nil
}

// prepare brings what is in memory in line with the log and the queue.
func (p *parallel) prepare() error {
	if p.clock.moved(time.Now()) {
		if err := p.pull(p.db, time.Now()); err != nil {
			return err
		}
		p.refresh()
	}
	if err := p.resume(); err != nil {
		return err
	}
	if err := p.restore(); err != nil {
		return err
	}
	if err := p.follow(); err != nil {
		return err
	}
	return p.fill()
}

// send starts as many requests as are allowed.
func (p *parallel) send(now time.Time) (next time.Time, err error) {
	switch {
	case p.gone != nil:
		return time.Time{}, nil
	case now.Before(p.hold):
		return p.hold, nil
	case p.down && !p.once:
		return p.launch(now, p.probe)
	}
	formed, err := p.form(now)
	if err != nil {
		return time.Time{}, err
	}
	next, err = p.launch(now, p.pick)
	return earlier(earlier(next, formed), p.park(now)), err
}

// launch sends the requests that pick comes up with, until none is to be sent now
// or the slots are full. Of those that were tried before, the attempt and its next
// time are durable before they are sent: a crash on the way costs the wait, not a
// hot loop. A first attempt is repeated, as one from the log is.
func (p *parallel) launch(now time.Time, pick func(now time.Time) (*job, time.Time, error)) (next time.Time, err error) {
	var repeats []*job
	for p.flying < p.limit {
		if now.Before(p.paced) {
			next = p.paced
			break
		}
		var j *job
		if j, next, err = pick(now); err != nil || j == nil {
			break
		}
		p.flying++
		p.held[j.class]++
		if p.Rate > 0 {
			p.paced = now.Add(time.Duration(float64(time.Second) / p.Rate))
		}
		if j.sent = now; j.head.Attempts > 1 {
			repeats = append(repeats, j)
		} else {
			p.fly(j)
		}
	}
	if len(repeats) > 0 && err == nil {
		heads := make([]state.Failed, len(repeats))
		for i, j := range repeats {
			heads[i] = j.head
		}
		err = p.db.RecordAttempt(p.Name, heads...)
	}
	for _, j := range repeats {
		if err == nil {
			p.fly(j)
			continue
		}
		p.flying--
		p.held[j.class]--
		for i := range j.events {
			p.free(j.events[i].PartitionKey)
		}
		p.recycle(j)
	}
	if err != nil {
		p.refresh()
		return time.Time{}, err
	}
	return next, nil
}

// fly hands a request to a sender. There are as many as were ever in flight at
// once: a goroutine for each request would grow its stack anew each time.
func (p *parallel) fly(j *job) {
	if p.senders < p.flying {
		p.senders++
		p.wg.Go(p.deliver)
	}
	p.report.inFlight.Store(int64(p.flying))
	p.air = append(p.air, j)
	p.jobs <- j
}

func (p *parallel) deliver() {
	for j := range p.jobs {
		switch j.head.Lane {
		case state.Replay:
			j.err = p.to.Redeliver(p.late, sink.Replayed, j.events)
		case state.Retried:
			j.err = p.to.Redeliver(p.late, sink.RetriedDeadLetter, j.events)
		default:
			j.err = p.to.Deliver(p.late, j.events)
		}
		p.results <- j
	}
}

// takeAll takes the results that are there already.
func (p *parallel) takeAll() {
	for {
		select {
		case j := <-p.results:
			p.take(j)
		default:
			return
		}
	}
}

// job returns an empty job of a class.
func (p *parallel) job(c class) *job {
	if n := len(p.idle); n > 0 {
		j := p.idle[n-1]
		p.idle = p.idle[:n-1]
		j.class = c
		return j
	}
	return &job{class: c}
}

func (p *parallel) recycle(j *job) {
	clear(j.events)
	*j = job{events: j.events[:0]}
	p.idle = append(p.idle, j)
}

// backoff is exponential with full jitter: anything up to the doubled time.
func (p *parallel) backoff(attempts int) time.Duration {
	return rand.N(trouble.Doubled(attempts, p.RetryInitial, p.RetryMax)) + time.Millisecond
}

func (p *parallel) stateFailed(err error) time.Duration {
	n := p.stalls.Add(p.log, slog.LevelError, err.Error(), "sink stalled, trying again", "err", err)
	return trouble.Backoff(n, time.Second, time.Minute)
}

// earlier is the earlier of two times; zero: never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
