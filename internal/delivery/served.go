package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"syncd/internal/sink"
	"syncd/internal/trouble"
)

// worker serves one sink. run goes on until ctx ends; drain tries everything that
// waits once and returns why something is left. One of them is called, once.
type worker interface {
	run(ctx context.Context)
	drain(ctx context.Context) error
}

// served is a sink of the configuration from Update to Update: it opens the sink,
// has a worker serve it, and closes it.
type served struct {
	Sink
	d       *Delivery
	log     *slog.Logger
	metrics *sinkMetrics
	control *control
	report  *report
	after   <-chan struct{} // closed when the worker that it replaces has ended; nil: there is none

	// Of Delivery.mu.
	stop context.CancelFunc // nil: it does not run
	done chan struct{}
	over bool // it has left the configuration: it is not begun any more
}

// control is how others reach a worker. Any goroutine may set a flag and wake it.
type control struct {
	ring   chan struct{} // of size 1: something of what follows, or the queue, has changed
	reopen atomic.Bool   // tend now
	resume atomic.Bool   // the pause that a 410 began is over
}

func (c *control) wake() {
	select {
	case c.ring <- struct{}{}:
	default:
	}
}

func newServed(d *Delivery, s Sink) *served {
	return &served{Sink: s, d: d, log: d.log.With("sink", s.Name), control: &control{ring: make(chan struct{}, 1)}, report: &report{}}
}

func (s *served) cancel() {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	s.over = true
	if s.stop != nil {
		s.stop()
	}
}

// ended is closed when the worker has ended; nil: it never ran.
func (s *served) ended() <-chan struct{} {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	return s.done
}

// wait waits for the end of the worker, but no longer than patience.
func (s *served) wait(patience *time.Timer) {
	done := s.ended()
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-patience.C:
		patience.Reset(0) // for the others too
		s.log.Error("sink does not stop: it hangs in a write")
	}
}

// open opens the sink's place in the state, and the sink.
func (s *served) open() (worker, sink.Sink, error) {
	now := time.Now()
	if s.Parallel {
		if err := s.pull(s.d.db, now); err != nil {
			return nil, nil, err
		}
	}
	known, err := s.d.db.OpenSink(s.Name, s.Type, s.FromBeginning, now)
	if err != nil {
		return nil, nil, err
	}
	opened, err := s.Open()
	if err != nil {
		return nil, nil, err
	}
	b := base{Sink: s.Sink, sink: opened, db: s.d.db, log: s.log, metrics: s.metrics, grace: s.d.grace, trusted: s.d.trusted,
		control: s.control, report: s.report, known: known, drift: s.d.drift, atMost: s.d.window, position: known.Position}
	if !s.Parallel {
		return newOrdered(b), opened, nil
	}
	p, ok := opened.(sink.Parallel)
	if !ok {
		return nil, nil, errors.Join(fmt.Errorf("sink %s of type %s takes one event at a time", s.Name, s.Type), opened.Close())
	}
	return newParallel(b, p), opened, nil
}

// run serves the sink until ctx ends. A sink that cannot be opened stalls, and is
// tried again.
func (s *served) run(ctx context.Context) {
	if s.after != nil {
		<-s.after // also when ctx ends: two must never work on one sink
	}
	var failures trouble.Run
	for ctx.Err() == nil {
		w, opened, err := s.open()
		if err != nil {
			s.report.opening(err)
			n := failures.Add(s.log, slog.LevelError, err.Error(), "sink cannot be opened, trying again", "err", err)
			if !sleep(ctx, trouble.Backoff(n, time.Second, time.Minute)) {
				return
			}
			continue
		}
		s.report.opening(nil)
		failures.Worked(s.log, "sink opened")
		w.run(ctx)
		s.close(opened)
	}
}

func (s *served) drain(ctx context.Context) error {
	w, opened, err := s.open()
	if err != nil {
		s.log.Error("sink cannot be opened", "err", err)
		return err
	}
	defer s.close(opened)
	return w.drain(ctx)
}

func (s *served) close(opened sink.Sink) {
	if err := opened.Close(); err != nil {
		s.log.Warn("sink was not closed in good order", "err", err)
	}
}

// report is what a worker says about its sink. The worker writes, anybody reads.
type report struct {
	inFlight atomic.Int64
	lastAck  atomic.Int64 // Unix nanoseconds; 0: none

	mu sync.Mutex
	s  Status
}

// set changes what the report says.
func (r *report) set(change func(s *Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.s)
}

func (r *report) opening(err error) {
	r.set(func(s *Status) {
		s.Opening = ""
		if err != nil {
			s.Opening = err.Error()
		}
	})
}

// failed notes an attempt that failed.
func (r *report) failed(text string, now time.Time) {
	r.set(func(s *Status) { s.LastError, s.LastErrorAt = text, now })
}

func (r *report) get(name, typ string) Status {
	r.mu.Lock()
	s := r.s
	r.mu.Unlock()
	s.Name, s.Type, s.InFlight, s.Down = name, typ, int(r.inFlight.Load()), !s.DownSince.IsZero()
	if ns := r.lastAck.Load(); ns != 0 {
		s.LastAck = time.Unix(0, ns)
	}
	return s
}
