package delivery

import (
	"fmt"
	"time"

	"syncd/internal/event"
	"syncd/internal/state"
)

// batchBytes is how large a batch may be; one event that is larger goes alone.
const batchBytes = 1 << 20

// batches are those of fresh events. A batch is saved before it is first sent, a
// single event too: a crash then repeats the same request under the same id, and
// not the same events under others.
type batches struct {
	unsent   []state.Batch   // saved by an earlier process, and not looked at yet
	members  map[uint64]bool // of those that were, until their outcome
	prepared []*job          // saved and not sent, in their order
}

// restore takes up the batches that an earlier process has saved and of which it
// left no outcome. They go first, as they are; or event by event, where the
// configuration has no batches any more.
func (p *parallel) restore() error {
	for ; len(p.unsent) > 0; p.unsent = p.unsent[1:] {
		b := p.unsent[0]
		if p.BatchEvents <= 1 {
			p.group.unbatch = append(p.group.unbatch, b.Members[0])
			p.group.n++
			continue
		}
		j := p.job(fresh)
		var err error
		if j.events, err = p.db.BatchEvents(p.Name, b.Members[0]); err != nil {
			return err
		}
		if len(j.events) == 0 {
			return fmt.Errorf("batch %d of sink %s is not saved", b.Members[0], p.Name)
		}
		j.saved = true
		for i := range j.events {
			p.members[j.events[i].Sequence] = true
			p.occupy(j.events[i].PartitionKey)
		}
		p.prepared = append(p.prepared, j)
	}
	return nil
}

// form gathers batches of what is ready, to be sent when they are saved: full ones
// up to twice what may be in flight, so that one commit saves several while others
// are on their way, and one that is not full where a slot is free for it and it has
// waited. It returns when a batch has waited long enough; zero: none waits.
func (p *parallel) form(now time.Time) (next time.Time) {
	if p.BatchEvents <= 1 {
		return time.Time{}
	}
	for len(p.ready) > 0 {
		saved := len(p.prepared) + len(p.group.formed)
		if p.settling != nil {
			saved += len(p.settling.formed)
		}
		if saved >= p.limit {
			break
		}
		if !p.full() {
			if p.flying+saved >= p.limit {
				break
			}
			since := p.ready[0].event.Recorded
			if due := since.Add(p.BatchWait); now.Before(due) && !since.After(now) && !p.once {
				return due
			}
		}
		p.gather(p.BatchEvents)
	}
	return time.Time{}
}

// full reports whether what is ready fills a batch.
func (p *parallel) full() bool {
	events, bytes := 0, 0
	for _, n := range p.ready {
		for m := n; m != nil; {
			events++
			bytes += len(m.event.JSON)
			if events >= p.BatchEvents || bytes >= batchBytes {
				return true
			}
			if m == n {
				m = p.busy[n.event.PartitionKey].first
			} else {
				m = m.next
			}
		}
	}
	return false
}

// gather makes a batch of what is ready, at most so many events, in the order of
// the log. The later events of a subject may go in the batch that has the ones
// before.
func (p *parallel) gather(most int) {
	j := p.job(fresh)
	j.saved = true
	bytes := 0
	for len(j.events) < most && len(p.ready) > 0 {
		if bytes += len(p.ready[0].event.JSON); bytes > batchBytes && len(j.events) > 0 {
			break
		}
		n := p.nextReady()
		n.lent = false
		key := n.event.PartitionKey
		j.events = append(j.events, n.event)
		s := p.busy[key]
		s.members++
		if next := s.first; next != nil {
			if s.first, next.next = next.next, nil; s.first == nil {
				s.last = nil
			}
			next.lent = true
			p.makeReady(next)
		}
		p.busy[key] = s
	}
	p.unlend()
	p.group.formed = append(p.group.formed, j)
	p.group.n++
}

// unlend has those events wait again that were ready only for the batch.
func (p *parallel) unlend() {
	kept := p.ready[:0]
	for _, n := range p.ready {
		if !n.lent {
			kept = append(kept, n)
			continue
		}
		n.lent = false
		s := p.busy[n.event.PartitionKey]
		if n.next, s.first = s.first, n; s.last == nil {
			s.last = n
		}
		p.busy[n.event.PartitionKey] = s
	}
	clear(p.ready[len(kept):])
	p.ready = kept
}

func sequences(events []event.Logged) []uint64 {
	out := make([]uint64, len(events))
	for i := range events {
		out[i] = events[i].Sequence
	}
	return out
}
