package delivery

import (
	"cmp"
	"slices"
	"time"

	"syncd/internal/event"
	"syncd/internal/state"
)

const (
	// windowEvents and windowBytes bound how far a parallel sink reads ahead of the
	// oldest event that is still on its way, and so its memory. Where it sends
	// batches there is room for twice those in flight, up to the larger bounds.
	windowEvents    = 1024
	windowBytes     = 8 << 20
	windowEventsMax = 8192
	windowBytesMax  = 16 << 20
)

// window is the piece of the log that a parallel sink has in memory: the events
// behind its position, in their order.
type window struct {
	mostEvents, mostBytes int

	entries []*entry
	bytes   int
	read    uint64   // the last event that was taken in
	more    bool     // the log may have events behind it
	ahead   []uint64 // events behind it that are done already, ascending

	ready []*entry           // fresh events whose subject is theirs, in the order of the log; sent event by event or gathered into batches
	busy  map[string]subject // partition keys with something ready, on its way, or not committed
	freed []string           // keys whose outcome is committed, and which are not busy for it any more
}

// entry is an event of the window.
type entry struct {
	event event.Logged
	next  *entry // of its subject, while it waits for others
	done  bool   // delivered, queued, given up, or not wanted
	lent  bool   // it is ready for the batch that is being gathered, which has the ones before it
}

// subject is a partition key that is busy.
type subject struct {
	members     int    // its events in one request; 0: one
	first, last *entry // what waits for that
}

func newWindow(b *base, limit int) window {
	w := window{mostEvents: windowEvents, mostBytes: windowBytes, read: b.known.Position, more: true, ahead: b.known.Ahead, busy: make(map[string]subject)}
	if b.BatchEvents > 1 {
		w.mostEvents = min(max(2*limit*b.BatchEvents, windowEvents), windowEventsMax)
		w.mostBytes = windowBytesMax
	}
	w.mostEvents = cmp.Or(b.atMost, w.mostEvents)
	return w
}

// fill takes events from the log into the window.
func (p *parallel) fill() error {
	for p.more {
		room := p.mostEvents - len(p.entries)
		if room <= 0 || p.bytes >= p.mostBytes || room < p.mostEvents/4 && p.stocked() {
			return nil
		}
		events, err := p.db.ReadEvents(p.read, room, p.mostBytes-p.bytes)
		if err != nil {
			return err
		}
		if len(events) == 0 {
			p.more = false
			return nil
		}
		waits, err := p.waitingOf(events)
		if err != nil {
			return err
		}
		block := make([]entry, len(events))
		for i := range events {
			n := &block[i]
			n.event = events[i]
			p.read = n.event.Sequence
			p.entries = append(p.entries, n)
			p.bytes += len(n.event.JSON)
			p.admit(n, waits != nil && waits[i])
		}
	}
	return nil
}

// stocked reports whether there is enough in memory for the next request, and
// nothing more needs to come for it.
func (p *parallel) stocked() bool {
	return len(p.ready) > 0 && (p.BatchEvents <= 1 || p.full())
}

// waitingOf returns which events are of a subject in the queue; nil: none is.
func (p *parallel) waitingOf(events []event.Logged) ([]bool, error) {
	if !p.live {
		return nil, nil
	}
	keys := make([]string, len(events))
	for i := range events {
		keys[i] = events[i].PartitionKey
	}
	return p.db.WaitsAny(p.Name, keys)
}

// admit decides what to do with a fresh event, whose subject is in the queue or is
// not.
func (p *parallel) admit(n *entry, waits bool) {
	seq, key := n.event.Sequence, n.event.PartitionKey
	for len(p.ahead) > 0 && p.ahead[0] < seq {
		p.ahead = p.ahead[1:]
	}
	switch {
	case len(p.ahead) > 0 && p.ahead[0] == seq:
		n.done = true
		p.group.n++ // the position may move over it
		return
	case p.members[seq]: // its batch was saved by an earlier process, and goes as it is
		return
	case !p.wants(&n.event):
		n.done = true
		p.group.n++
		p.metrics.skipped.Inc()
		return
	}
	switch s, busy := p.busy[key]; {
	case busy:
		if s.last == nil {
			s.first = n
		} else {
			s.last.next = n
		}
		s.last = n
		p.busy[key] = s
	case waits:
		p.join(n, state.Failed{Next: time.Now()})
	default:
		p.busy[key] = subject{}
		p.makeReady(n)
	}
}

// parkAfter is how long an event may hold up a window that is full.
const parkAfter = time.Second

// park has the subject of the oldest event go on in the queue, where it holds up a
// full window while a slot is free for others: the window is counted from that
// event, and a receiver may take its time for one subject. It returns when to look
// again; zero: with the next result.
//
// The request on its way becomes one of a head, this attempt counted, and what came
// of it is noted as that of any head. A batch goes as a whole, with all its
// subjects: it was saved before it was sent, and stays as it is, so that a repeat
// has the same id. A crash before the commit repeats the request, as that of any
// fresh event or saved batch; after it, the head waits for its time. What came of
// the request may share that commit, or the repetition of one that is unsure: there
// events join the queue before they leave it, and what has left it is not back.
func (p *parallel) park(now time.Time) time.Time {
	if !p.more || p.saved() > 0 || p.stocked() || p.flying >= p.limit || len(p.entries) == 0 || p.entries[0].done ||
		len(p.entries) < p.mostEvents && p.bytes < p.mostBytes {
		return time.Time{}
	}
	key := p.entries[0].event.PartitionKey
	i := slices.IndexFunc(p.air, func(j *job) bool {
		return slices.ContainsFunc(j.events, func(e event.Logged) bool { return e.PartitionKey == key })
	})
	if i < 0 { // its outcome is being committed
		return time.Time{}
	}
	j := p.air[i]
	if j.class == fresh {
		if at := j.sent.Add(parkAfter); now.Before(at) {
			return at
		}
		j.parked = p.enqueue(j, state.Failed{Attempts: 1, First: p.firstAt(j.sent), Last: j.sent, Next: j.sent.Add(p.backoff(1))}, true)
		j.class = again
	}
	for k := range j.events {
		p.joinAll(j.events[k].PartitionKey)
	}
	return time.Time{}
}

// joinAll has all that waits in memory behind an event of a subject join the queue.
func (p *parallel) joinAll(key string) {
	s := p.busy[key]
	for n := s.first; n != nil; {
		next := n.next
		n.next = nil
		p.join(n, state.Failed{Next: time.Now()})
		n = next
	}
	s.first, s.last = nil, nil
	p.busy[key] = s
}

// join has a fresh event join the queue with the next commit.
func (p *parallel) join(n *entry, f state.Failed) {
	f.Seq, f.Key = n.event.Sequence, n.event.PartitionKey
	n.done = true
	p.group.n++
	p.group.failed = append(p.group.failed, f)
}

// makeReady puts an event among the ready ones, in the order of the log, or the
// position would wait until all other subjects have had their turn.
func (p *parallel) makeReady(n *entry) {
	seq := n.event.Sequence
	if last := len(p.ready) - 1; last < 0 || p.ready[last].event.Sequence < seq {
		p.ready = append(p.ready, n)
		return
	}
	i, _ := slices.BinarySearchFunc(p.ready, seq, func(a *entry, seq uint64) int { return cmp.Compare(a.event.Sequence, seq) })
	p.ready = slices.Insert(p.ready, i, n)
}

// nextReady takes the oldest ready event; nil: there is none.
func (p *parallel) nextReady() *entry {
	if len(p.ready) == 0 {
		return nil
	}
	n := p.ready[0]
	p.ready[0] = nil
	p.ready = p.ready[1:]
	return n
}

// done notes that an event of the log needs nothing more than a commit.
func (p *parallel) done(seq uint64) {
	p.group.n++
	if seq > p.read { // a batch of an earlier process
		i, _ := slices.BinarySearch(p.ahead, seq)
		p.ahead = slices.Insert(p.ahead, i, seq)
		return
	}
	// Sequences are dense but for a few holes.
	i := int(seq - p.entries[0].event.Sequence)
	if i >= len(p.entries) || p.entries[i].event.Sequence != seq {
		i, _ = slices.BinarySearchFunc(p.entries, seq, func(n *entry, seq uint64) int { return cmp.Compare(n.event.Sequence, seq) })
	}
	p.entries[i].done = true
}

// occupy counts one more event of a subject into a request.
func (p *parallel) occupy(key string) {
	s := p.busy[key]
	s.members++
	p.busy[key] = s
}

// back notes that an event of a busy subject is no more on its way, and reports
// whether it was the last of its request.
func (p *parallel) back(key string) bool {
	s := p.busy[key]
	if s.members <= 1 {
		return true
	}
	s.members--
	p.busy[key] = s
	return false
}

// advance lets the next event of a subject be sent, if there is one.
func (p *parallel) advance(key string) {
	s := p.busy[key]
	n := s.first
	if n == nil {
		p.free(key)
		return
	}
	s.members = 0
	if s.first, n.next = n.next, nil; s.first == nil {
		s.last = nil
	}
	p.busy[key] = s
	p.makeReady(n)
}

// free ends a subject's being busy. Nothing of it waits in memory.
func (p *parallel) free(key string) {
	delete(p.busy, key)
	if p.passed {
		p.refresh()
	}
}

// follow lets go on what waited for outcomes that are committed: to the queue,
// behind what is there of the subject, or else as fresh events.
func (p *parallel) follow() error {
	if p.recount {
		n, err := p.db.Waiting(p.Name)
		if err != nil {
			return err
		}
		p.live, p.recount = n > 0, false
	}
	for ; len(p.freed) > 0; p.freed = p.freed[1:] {
		key := p.freed[0]
		s := p.busy[key]
		waits := false
		if s.first != nil && p.live {
			var err error
			if waits, err = p.db.Waits(p.Name, key); err != nil {
				return err
			}
		}
		if !waits {
			p.advance(key)
			continue
		}
		p.joinAll(key)
		p.free(key)
	}
	p.freed = nil
	return nil
}
