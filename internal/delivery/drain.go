package delivery

import (
	"context"
	"fmt"
	"time"

	"syncd/internal/state"
)

// drain tries every waiting subject once, and as long as that works the events
// behind, then every event of the log. Where the sink takes batches, what was never
// tried goes with the log.
func (p *parallel) drain(ctx context.Context) error {
	defer p.begin(ctx)()
	defer p.land()
	p.once = true
	w := walk{p: p}
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p.takeAll()
		if err := p.restore(); err != nil {
			return err
		}
		if err := w.follow(); err != nil {
			return err
		}
		if w.over {
			if err := p.fill(); err != nil {
				return err
			}
		}
		walked := w.over
		p.walking = !walked
		next, err := p.sendOnce(&w)
		if err != nil {
			return err
		}
		switch g := &p.group; {
		case g.n > 0 && (p.flying == 0 || g.n >= p.mostEvents/4 || len(g.formed) > 0):
			if err := p.commit(); err != nil {
				return err
			}
		case p.flying > 0 || !next.IsZero():
			p.await(ctx, next)
		case w.over != walked: // now the log
		default:
			return p.left()
		}
	}
}

// sendOnce starts as many requests as are allowed.
func (p *parallel) sendOnce(w *walk) (next time.Time, err error) {
	now := time.Now()
	if p.blocked(now) != nil {
		return time.Time{}, nil
	}
	if _, err := p.form(now); err != nil {
		return time.Time{}, err
	}
	return p.launch(now, w.pick)
}

// await waits for a result, or until next, if that is a time.
func (p *parallel) await(ctx context.Context, next time.Time) {
	var timer <-chan time.Time
	if !next.IsZero() {
		timer = time.After(time.Until(next))
	}
	select {
	case j := <-p.results:
		p.take(j)
	case <-timer:
	case <-ctx.Done():
	}
}

// blocked says why nothing may be sent; nil: it may.
func (p *parallel) blocked(now time.Time) error {
	switch {
	case p.gone != nil:
		return fmt.Errorf("the receiver answered 410 at %s: paused until `syncd sinks resume %s`", p.gone.At.UTC().Format(time.RFC3339), p.Name)
	case now.Before(p.hold):
		return fmt.Errorf("the receiver asks to be left alone until %s", p.hold.UTC().Format(time.RFC3339))
	}
	return nil
}

// left says what still waits; nil: nothing.
func (p *parallel) left() error {
	b, err := p.db.Backlog(p.Name)
	if err != nil || b.Events == 0 {
		return err
	}
	if err := p.blocked(time.Now()); err != nil {
		return err
	}
	heads, err := p.db.Heads(p.Name, "", 1)
	if err != nil || len(heads) == 0 {
		return err
	}
	return fmt.Errorf("not accepted by the receiver, first event %d: %s", heads[0].Seq, heads[0].Error)
}

// walk goes through the queue once, in the order of its keys.
type walk struct {
	p     *parallel
	after string
	heads []state.Failed // read and not tried
	over  bool           // the last page of the queue was read
}

// pageHeads is how many heads are read at once.
const pageHeads = 100

// follow adds the heads that have moved up behind what was delivered.
func (w *walk) follow() error {
	p := w.p
	for _, key := range p.freed {
		for _, lane := range []state.Lane{state.Live, state.Replay, state.Retried} {
			f, ok, err := p.db.Head(p.Name, lane, key)
			if err != nil {
				return err
			}
			if ok && f.Attempts == 0 && (w.over || f.QueueKey() <= w.after) { // the walk comes to the others
				w.heads = append(w.heads, f)
			}
		}
	}
	return p.follow()
}

// pick chooses the next request; nil: there is none before a result or a commit.
func (w *walk) pick(now time.Time) (*job, time.Time, error) {
	p := w.p
	for {
		for i := 0; i < len(w.heads); {
			h := w.heads[i]
			if _, busy := p.busy[h.Key]; busy {
				i++
				continue
			}
			w.heads = append(w.heads[:i], w.heads[i+1:]...)
			// It may have been delivered meanwhile, in a batch or by a command.
			f, ok, err := p.db.Head(p.Name, h.Lane, h.Key)
			if err != nil {
				return nil, time.Time{}, err
			}
			if !ok || f.Seq != h.Seq || p.BatchEvents > 1 && classOf(&f) == firstTry { // such go in batches when the walk is over
				continue
			}
			if j, err := p.load(f, classOf(&f), now); j != nil || err != nil {
				return j, time.Time{}, err
			}
		}
		if len(w.heads) > 0 || w.over {
			break
		}
		page, err := p.db.Heads(p.Name, w.after, pageHeads)
		if err != nil {
			return nil, time.Time{}, err
		}
		if w.over = len(page) == 0; !w.over {
			w.heads, w.after = page, page[len(page)-1].QueueKey()
		}
	}
	return p.nextFresh(now), time.Time{}, nil
}
