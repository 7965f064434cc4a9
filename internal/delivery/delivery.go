// Package delivery reads the event log for each sink, at the sink's own position,
// and hands the events over: in the order of the log to sinks that are written
// in order, in the order of each subject to those that take many at once.
//
// It guarantees that no event passes a sink's position before it is with the
// receiver or in the sink's durable retry queue, so every event arrives at least
// once, and that a sink which is slow or dead slows nobody else. It never gives
// an event up. It meets polling only in the state.
package delivery

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
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
	Sink          sink.Sink
	Wants         func(account, eventType string) bool // which events it is sent; nil: all
	FromBeginning bool                                 // a sink never seen before starts at the oldest kept event
	RetryInitial  time.Duration                        // backoff of an event: doubles from here; default 5 s
	RetryMax      time.Duration                        // to here, with full jitter; default 1 h
}

// Config is what a Delivery needs. All fields are required.
type Config struct {
	DB      *state.DB
	Log     *slog.Logger
	Metrics *Metrics
	Grace   time.Duration // how long a delivery in flight may go on after the context ends
	Sinks   []Sink
}

// Delivery serves the sinks of a configuration.
type Delivery struct {
	db      *state.DB
	workers []worker
}

// worker serves one sink. run goes on until ctx ends; drain tries everything that
// waits once and returns why something is left.
type worker interface {
	run(ctx context.Context)
	drain(ctx context.Context) error
	name() string
}

// New returns a delivery. It opens the sinks' positions in the state.
func New(cfg Config) (*Delivery, error) {
	d := &Delivery{db: cfg.DB}
	for _, s := range cfg.Sinks {
		s.RetryInitial = cmp.Or(s.RetryInitial, 5*time.Second)
		s.RetryMax = max(cmp.Or(s.RetryMax, time.Hour), s.RetryInitial)
		known, err := cfg.DB.OpenSink(s.Name, s.Type, s.FromBeginning, time.Now())
		if err != nil {
			return nil, err
		}
		b := base{Sink: s, db: cfg.DB, log: cfg.Log.With("sink", s.Name), metrics: cfg.Metrics, grace: cfg.Grace, position: known.Position, ahead: known.Ahead}
		cfg.Metrics.declare(cfg.DB, s.Name)
		if p, ok := s.Sink.(sink.Parallel); ok {
			now := time.Now()
			if err := cfg.DB.PullRetries(s.Name, now, now.Add(max(b.RetryMax, holdMax))); err != nil {
				return nil, err
			}
			d.workers = append(d.workers, newParallel(b, p))
		} else {
			d.workers = append(d.workers, newOrdered(b))
		}
	}
	return d, nil
}

// Run delivers until ctx ends. What is in flight then may finish within the
// grace period.
func (d *Delivery) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, w := range d.workers {
		wg.Go(func() { w.run(ctx) })
	}
	wg.Wait()
}

// Left is what a sink could not deliver.
type Left struct {
	Sink   string
	Events int
	Err    error
}

// Drain tries everything that waits, once, and returns what is left.
func (d *Delivery) Drain(ctx context.Context) ([]Left, error) {
	errs := make([]error, len(d.workers))
	var wg sync.WaitGroup
	for i, w := range d.workers {
		wg.Go(func() { errs[i] = w.drain(ctx) })
	}
	wg.Wait()
	var left []Left
	for i, w := range d.workers {
		backlog, err := d.db.Backlog(w.name())
		if err != nil {
			return nil, err
		}
		if errs[i] == nil && backlog.Events > 0 {
			errs[i] = errors.New("not delivered")
		}
		if errs[i] != nil {
			left = append(left, Left{w.name(), backlog.Events, errs[i]})
		}
	}
	return left, nil
}

// base is what both sorts of worker have.
type base struct {
	Sink
	db       *state.DB
	log      *slog.Logger
	metrics  *Metrics
	grace    time.Duration
	position uint64   // committed: everything up to here is delivered or queued
	ahead    []uint64 // delivered beyond the position when the last process stopped, ascending
}

func (b *base) name() string { return b.Name }

// wants reports whether the sink is sent an event.
func (b *base) wants(e *event.Logged) bool {
	return b.Wants == nil || b.Wants(e.Account, e.Type)
}

func (b *base) acknowledged(e *event.Logged) {
	b.metrics.events.WithLabelValues(b.Name, "acknowledged").Inc()
	b.metrics.delay.WithLabelValues(b.Name).Observe(max(time.Since(e.Recorded), 0).Seconds())
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
