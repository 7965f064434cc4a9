package delivery

import (
	"fmt"
	"slices"
	"time"

	"syncd/internal/event"
	"syncd/internal/state"
)

// batchBytes is how large a batch may be; one event that is larger goes alone.
const batchBytes = 1 << 20

// batches are those of fresh events, and of events of the queue that were never
// tried. A batch is saved before it is first sent, a
// single event too: a crash then repeats the same request under the same id, and
// not the same events under others.
type batches struct {
	unsent   []state.Batch   // saved by an earlier process, and not looked at yet
	members  map[uint64]bool // of those that were, until their outcome
	prepared []*job          // saved and not sent, in their order
	thin     bool            // what is due in the queue fills no batch: look again when a slot is free
	walking  bool            // drain tries the queue, and what moves up in it waits until that is over
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

// form gathers batches of what is ready and of what is due in the queue, to be sent
// when they are saved: full ones up to twice what may be in flight, so that one
// commit saves several while others are on their way, and one that is not full
// where a slot is free for it and it has waited. It returns when there is more to
// form; zero: nothing waits for a time.
func (p *parallel) form(now time.Time) (next time.Time, err error) {
	if p.BatchEvents <= 1 {
		return time.Time{}, nil
	}
	for p.saved() < p.limit {
		ready, due := p.formReady(now)
		most := p.limit - p.saved()
		if ready {
			most = (most + 1) / 2
		}
		queued, at, err := p.formQueued(now, most)
		if err != nil || !ready && queued == 0 {
			return earlier(due, at), err
		}
	}
	return time.Time{}, nil
}

// saved is how many batches wait to be sent, saved or about to be.
func (p *parallel) saved() int {
	n := len(p.prepared) + len(p.group.formed)
	if p.settling != nil {
		n += len(p.settling.formed)
	}
	return n
}

// formReady gathers a batch of what is ready, if there is a reason to; otherwise it
// returns when one will have waited long enough; zero: none waits.
func (p *parallel) formReady(now time.Time) (ok bool, next time.Time) {
	if len(p.ready) == 0 {
		return false, time.Time{}
	}
	if !p.full() {
		if p.flying+p.saved() >= p.limit {
			return false, time.Time{}
		}
		since := p.ready[0].event.Recorded
		if due := since.Add(p.BatchWait); now.Before(due) && !since.After(now) && !p.once {
			return false, due
		}
	}
	p.gather(p.BatchEvents)
	return true, time.Time{}
}

// formQueued gathers up to so many batches of what is due in the queue and was never
// tried; after an outage that is nearly all there is. What was saved before goes as
// it is. It returns how many, and when the next head is due; zero: none is.
func (p *parallel) formQueued(now time.Time, most int) (n int, next time.Time, err error) {
	d := &p.due[firstTry]
	if most <= 0 || !d.stale || p.walking || p.thin && p.flying+p.saved() >= p.limit {
		return 0, time.Time{}, nil
	}
	due := now
	if p.once {
		due = now.AddDate(1, 0, 0) // nothing waits for its time
	}
	found, next, err := p.db.DueBatches(p.Name, due, most, p.BatchEvents, batchBytes, p.skips)
	if err != nil {
		return 0, time.Time{}, err
	}
	p.thin = false
	for i := range found {
		b := &found[i]
		switch {
		case !b.Full && p.flying+p.saved() >= p.limit:
			p.thin = true
		case slices.ContainsFunc(b.Events, func(e event.Logged) bool { _, busy := p.busy[e.PartitionKey]; return busy }):
			p.passed = true // it was saved: the others are of free subjects
		default:
			p.enlist(b)
			n++
		}
	}
	d.stale = n > 0 || p.thin || !next.IsZero()
	return n, next, nil
}

// skips reports whether a head must wait, since its subject is busy.
func (p *parallel) skips(f state.Failed) bool {
	_, busy := p.busy[f.Key]
	p.passed = p.passed || busy
	return busy
}

// enlist makes a request of a batch of the queue, to be sent when it is saved.
func (p *parallel) enlist(b *state.QueuedBatch) {
	j := p.job(firstTry)
	j.events = append(j.events, b.Events...)
	for i := range j.events {
		p.occupy(j.events[i].PartitionKey)
	}
	if j.head = b.Head; b.Head.Batch != 0 {
		p.prepared = append(p.prepared, j)
		return
	}
	p.save(j)
}

// save has a batch sent once it is saved.
func (p *parallel) save(j *job) {
	if j.class != fresh {
		j.head.Batch = j.head.Seq
	}
	p.group.formed = append(p.group.formed, j)
	p.group.n++
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
	p.save(j)
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
