package main

import (
	"context"
	"time"

	"syncd/internal/config"
	"syncd/internal/delivery"
)

// retain deletes what is too old now and then, until ctx ends.
func (a *app) retain(ctx context.Context) {
	for {
		a.clean(ctx)
		cleaned := time.Now()
		timer := time.NewTimer(retainEvery(a.config().State))
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-a.reconfigured:
				timer.Reset(time.Until(cleaned.Add(retainEvery(a.config().State))))
			case <-timer.C:
				waiting = false
			}
		}
	}
}

// retainEvery is how often it is looked for what is too old: what was to be kept for a
// minute is not kept for ten.
func retainEvery(keep config.State) time.Duration {
	return max(time.Second, min(keep.KeepEvents/10, keep.KeepDeadLetters/10, 10*time.Minute))
}

// clean deletes what is too old, as long as the clock that says so can be believed, and
// what the operator wants forgotten. What fails is tried again the next time.
func (a *app) clean(ctx context.Context) {
	failed := func(what string, err error) {
		if err != nil && ctx.Err() == nil {
			a.log.Error(what+", trying again", "err", err)
		}
	}
	failed("what was forgotten could not be deleted", a.db.Sweep(ctx))
	if !a.clock.Trusted() {
		return // the clock has told, and a marketplace's answer will end it
	}
	keep := a.config().State
	now := time.Now()
	failed("removed sinks could not be looked after", a.retireSinks(ctx, now.Add(-keep.KeepEvents)))
	expired, err := a.db.ExpireDeadLetters(ctx, now.Add(-keep.KeepDeadLetters))
	failed("old dead letters could not be deleted", err)
	for sink, n := range expired {
		a.sinks.Expired(sink, n)
		a.log.Warn("dead letters that nobody retried have been deleted", "sink", sink, "events", n, "older_than", keep.KeepDeadLetters)
	}
	n, err := a.db.Retain(ctx, now.Add(-keep.KeepEvents))
	failed("old events could not be deleted", err)
	if n > 0 {
		a.log.Info("deleted old events", "events", n, "older_than", keep.KeepEvents)
	}
}

// retireSinks makes dead letters of all that sinks have still to get which left the
// configuration before a time: they hold the log no more. Those that left while the
// clock could not be believed are noted first.
func (a *app) retireSinks(ctx context.Context, before time.Time) error {
	// One that a reload brings back meanwhile must not lose to this what it is about to
	// send. A reload that takes long must not keep the rest from being deleted.
	if !a.reloading.TryLock() {
		return nil
	}
	defer a.reloading.Unlock()
	return a.retireLocked(ctx, before)
}

func (a *app) retireLocked(ctx context.Context, before time.Time) error {
	if err := a.markSinks(a.config()); err != nil {
		return err
	}
	removed, err := a.db.Removed()
	if err != nil {
		return err
	}
	for _, s := range removed {
		if s.Retired || !s.Since.Before(before) {
			continue
		}
		wants, err := config.ParseSelect(s.Select)
		if err != nil {
			return err
		}
		n, err := a.db.RetireSink(ctx, s.Name, wants.Match, time.Now())
		if n > 0 {
			a.sinks.DeadLettered(s.Name, n)
			a.log.Warn("a sink left the configuration so long ago that what it had still to get is dead letters now",
				"sink", s.Name, "events", n, "hint", "syncd deadletter list --sink "+s.Name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

const errMarks = "what sinks select and which have left could not be noted, trying again"

// markSinks notes in the state what the configured sinks select, for the time when they
// are not configured any more, and which have left.
func (a *app) markSinks(cfg *config.Config) error {
	for _, s := range cfg.Sinks {
		if err := a.db.SaveSelect(s.Name, s.Select.Patterns()); err != nil {
			return err
		}
	}
	return a.markRemoved(cfg)
}

// markRemoved notes in the state since when sinks are not configured any more, and tells
// of those that have left. Where the clock cannot be believed none is noted: see clean.
func (a *app) markRemoved(cfg *config.Config) error {
	known, err := a.db.Removed()
	if err == nil && a.clock.Trusted() {
		err = a.db.MarkSinks(configuredSinks(cfg, a.extra), time.Now())
	}
	if err != nil {
		return err
	}
	left := make(map[string]bool)
	if a.serving != nil { // at the start all of them are told
		for _, s := range known {
			left[s.Name] = true
		}
	}
	removed, err := a.db.Removed()
	if err != nil {
		return err
	}
	for _, s := range removed {
		backlog, err := a.db.Backlog(s.Name)
		if err != nil {
			return err
		}
		if left[s.Name] || s.Retired || backlog.Events == 0 {
			continue
		}
		a.log.Warn("a sink that is not configured any more has still to get events: they are kept for it, and become dead letters then",
			"sink", s.Name, "waiting", backlog.Events, "until", s.Since.Add(cfg.State.KeepEvents).UTC().Format(time.RFC3339),
			"hint", "configure it again, or syncd state forget --sink "+s.Name)
	}
	return nil
}

// configuredSinks are the names of all sinks that are served.
func configuredSinks(cfg *config.Config, extra []delivery.Sink) (names []string) {
	for _, s := range extra {
		names = append(names, s.Name)
	}
	for _, s := range cfg.Sinks {
		names = append(names, s.Name)
	}
	return names
}
