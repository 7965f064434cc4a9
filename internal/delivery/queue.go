package delivery

import (
	"fmt"
	"time"

	"syncd/internal/state"
)

// queue is what a parallel sink knows of its retry queue: of each class a few
// heads that are due first, however many there are.
type queue struct {
	due     [classes]dueList // but for fresh
	passed  bool             // heads were left out because their subjects were busy
	live    bool             // the queue may hold events
	recount bool             // or it may not, after the last commit
	unfit   map[string]bool  // queue keys of heads that could not go since the last refresh
}

// dueList is the beginning of one class of heads.
type dueList struct {
	heads []state.Failed // in the order of their next attempt
	stale bool           // there may be others: look again when heads is empty
}

func newQueue() queue {
	q := queue{live: true, recount: true}
	q.refresh()
	return q
}

// refresh forgets what was read of the queue, after it has changed.
func (q *queue) refresh() {
	for c := firstTry; c < classes; c++ {
		q.due[c] = dueList{stale: true}
	}
	q.passed, q.unfit = false, nil
}

// nextDue takes a head of a class that is due and whose subject is free; false:
// there is none now, and the first is due at a time (zero: none is).
func (p *parallel) nextDue(c class, now time.Time) (f state.Failed, ok bool, at time.Time, err error) {
	d := &p.due[c]
	for {
		if len(d.heads) == 0 {
			if !d.stale {
				return f, false, time.Time{}, nil
			}
			d.heads, err = p.db.Due(p.Name, state.Class(c-firstTry), p.limit+1, func(f state.Failed) bool {
				_, busy := p.busy[f.Key]
				p.passed = p.passed || busy
				return busy || p.unfit[f.QueueKey()]
			})
			if err != nil {
				return f, false, time.Time{}, err
			}
			if d.stale = len(d.heads) > p.limit; len(d.heads) == 0 {
				return f, false, time.Time{}, nil
			}
		}
		if f = d.heads[0]; f.Next.After(now) {
			return f, false, f.Next, nil
		}
		d.heads = d.heads[1:]
		if _, busy := p.busy[f.Key]; !busy {
			return f, true, time.Time{}, nil
		}
		p.passed = true
	}
}

// load makes a request of a head; nil: it cannot go now.
func (p *parallel) load(f state.Failed, c class, now time.Time) (*job, error) {
	j := p.job(c)
	if err := p.loadEvents(j, f); err != nil || len(j.events) == 0 {
		p.recycle(j)
		return nil, err
	}
	for i := range j.events {
		if _, busy := p.busy[j.events[i].PartitionKey]; busy {
			p.passed = true
			p.recycle(j)
			return nil, nil
		}
	}
	for i := range j.events {
		p.occupy(j.events[i].PartitionKey)
	}
	j.head = f
	p.attempt(j, now)
	return j, nil
}

// attempt counts one more try of a head.
func (p *parallel) attempt(j *job, now time.Time) {
	f := &j.head
	if j.last = f.Last; f.First.IsZero() {
		f.First = p.firstAt(now)
	}
	f.Attempts++
	f.Last, f.Next = now, now.Add(p.backoff(f.Attempts))
}

func (p *parallel) loadEvents(j *job, f state.Failed) (err error) {
	switch {
	case f.Batch == 0:
		e, ok, err := p.db.QueuedEvent(p.Name, f)
		if err != nil {
			return err
		}
		if ok {
			j.events = append(j.events, e)
		} else if f.Lane != state.Retried { // the operator may have dropped the dead letter a moment ago
			return fmt.Errorf("event %d waits in the retry queue of %s and is not in the log", f.Seq, p.Name)
		}
	case p.BatchEvents <= 1: // the configuration has changed: the receiver takes no batch any more
		p.group.unbatch = append(p.group.unbatch, f.Batch)
		p.group.n++
	default:
		j.events, err = p.db.BatchEvents(p.Name, f.Batch)
		if err == nil && len(j.events) == 0 {
			err = fmt.Errorf("batch %d waits in the retry queue of %s and is not saved", f.Batch, p.Name)
		}
	}
	return err
}

// turns says who is next where several classes want the same slot.
type turns struct {
	slow     bool // again and aside, before fresh and firstTry
	firstTry bool // before fresh
	aside    bool // before again
}

func (t *turns) order() [classes]class {
	prompt, slow := [2]class{fresh, firstTry}, [2]class{again, aside}
	if t.firstTry {
		prompt = [2]class{firstTry, fresh}
	}
	if t.aside {
		slow = [2]class{aside, again}
	}
	if t.slow {
		return [classes]class{slow[0], slow[1], prompt[0], prompt[1]}
	}
	return [classes]class{prompt[0], prompt[1], slow[0], slow[1]}
}

func (t *turns) took(c class) {
	switch t.slow = c <= firstTry; c {
	case fresh, firstTry:
		t.firstTry = c == fresh
	case again, aside:
		t.aside = c == again
	}
}

// room reports whether a class may have one more slot. Retries have at most half
// of them and what stands aside a quarter, and together they leave one: subjects
// that hang must never take all from the others. A single slot they share by turns.
func (p *parallel) room(c class) bool {
	if c <= firstTry || p.limit == 1 {
		return true
	}
	if p.held[again]+p.held[aside] >= p.limit-1 {
		return false
	}
	if c == again {
		return p.held[again] < p.limit/2
	}
	return p.held[aside] < max(p.limit/4, 1)
}

// pick chooses the next request; nil: there is none now, but at a time (zero:
// only a result, a commit or a new event changes that).
func (p *parallel) pick(now time.Time) (j *job, at time.Time, err error) {
	for _, c := range p.turn.order() {
		if !p.room(c) || c == firstTry && p.BatchEvents > 1 { // such go in batches, as fresh ones do
			continue
		}
		if c == fresh {
			j = p.nextFresh(now)
		}
		for c != fresh && j == nil {
			f, ok, due, err := p.nextDue(c, now)
			if err != nil {
				return nil, time.Time{}, err
			}
			if !ok {
				at = earlier(at, due)
				break
			}
			if j, err = p.load(f, c, now); err != nil {
				return nil, time.Time{}, err
			}
			if j == nil { // or the search would come upon it again
				if p.unfit == nil {
					p.unfit = make(map[string]bool)
				}
				if p.unfit[f.QueueKey()] = true; len(p.unfit) >= commitQueued {
					break
				}
			}
		}
		if j != nil {
			p.turn.took(c)
			return j, time.Time{}, nil
		}
	}
	return nil, at, nil
}

// nextFresh makes a request of fresh events: of a saved batch, also of the queue,
// or, where the sink does not batch, of the oldest one that is ready.
func (p *parallel) nextFresh(now time.Time) *job {
	if len(p.prepared) > 0 {
		j := p.prepared[0]
		p.prepared = p.prepared[1:]
		if j.class != fresh {
			p.attempt(j, now)
		}
		return j
	}
	if p.BatchEvents > 1 {
		return nil
	}
	n := p.nextReady()
	if n == nil {
		return nil
	}
	j := p.job(fresh)
	j.events = append(j.events, n.event)
	return j
}
