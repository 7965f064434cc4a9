package delivery

import (
	"context"
	"fmt"
	"sync"
	"time"

	"syncd/internal/state"
)

// drain tries every waiting subject once, then every event of the log.
func (p *parallel) drain(ctx context.Context) error {
	var wg sync.WaitGroup
	defer func() { p.land(&wg) }()
	if err := p.drainQueue(ctx, &wg); err != nil {
		return err
	}
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := p.fill(); err != nil {
			return err
		}
		now := time.Now()
		held := now.Before(p.hold)
		if !held {
			p.launchFresh(ctx, &wg, p.limit, now)
		}
		if p.flying > 0 {
			p.take(<-p.results)
			if p.pending() < commitEvents {
				continue
			}
		}
		switch {
		case p.pending() > 0:
			if err := p.commit(); err != nil {
				return err
			}
		case p.flying > 0:
		case len(p.ready) > 0 && held:
			return p.heldBack()
		case len(p.ready) == 0 && len(p.window) == 0:
			return p.left()
		}
	}
}

func (p *parallel) heldBack() error {
	return fmt.Errorf("the receiver asks to be left alone until %s", p.hold.UTC().Format(time.RFC3339))
}

// drainQueue tries the head of each waiting subject, and as long as that works
// the ones behind it, in the order of the subjects.
func (p *parallel) drainQueue(ctx context.Context, wg *sync.WaitGroup) error {
	after := ""
	for {
		heads, err := p.db.Heads(p.Name, after, 100)
		if err != nil || len(heads) == 0 {
			return err
		}
		after = heads[len(heads)-1].Key
		for len(heads) > 0 || p.flying > 0 || p.pending() > 0 {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			now := time.Now()
			held := now.Before(p.hold)
			if n := min(len(heads), p.limit-p.flying); n > 0 && !held {
				if err := p.retry(ctx, wg, heads[:n], now); err != nil {
					return err
				}
				heads = heads[n:]
			}
			if p.flying > 0 {
				p.take(<-p.results)
				p.takeAll()
				if p.pending() < commitEvents && p.flying > 0 {
					continue
				}
			}
			if p.pending() > 0 {
				followers, err := p.commitHeads()
				if err != nil {
					return err
				}
				heads = append(heads, followers...)
			} else if held && p.flying == 0 {
				return p.heldBack()
			}
		}
	}
}

// commitHeads commits what drainQueue has delivered, and returns the heads that
// come next.
func (p *parallel) commitHeads() ([]state.Failed, error) {
	delivered := p.acked
	if err := p.commit(); err != nil {
		return nil, err
	}
	var next []state.Failed
	for _, f := range delivered {
		follower, ok, err := p.db.Head(p.Name, f.Key)
		if err != nil {
			return nil, err
		}
		if ok {
			next = append(next, follower)
		}
	}
	return next, nil
}

// left says what is still in the queue; nil: nothing.
func (p *parallel) left() error {
	n, err := p.db.Waiting(p.Name)
	if err != nil || n == 0 {
		return err
	}
	heads, err := p.db.Heads(p.Name, "", 1)
	if err != nil || len(heads) == 0 {
		return err
	}
	return fmt.Errorf("not accepted by the receiver, first event %d: %s", heads[0].Seq, heads[0].Error)
}
