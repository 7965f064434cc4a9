package state_test

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"syncd/internal/state"
)

// sinkModel is what the contract says about a sink that takes events side by side
// (§2 G5 and G6, §7), without files, transactions or pieces: each wanted event is behind
// the position, done, in a lane of the queue, or a dead letter.
type sinkModel struct {
	position uint64
	subject  []string // of each event of the log, from 1
	ahead    map[uint64]bool
	queue    map[string][]state.Failed // by lane and subject, the head first; what follows it knows only its First
	batches  map[uint64][]uint64
	dead     map[uint64]state.DeadLetter // without the event
	hold     time.Time
	gone     *state.Gone
	removed  bool
	retired  bool
}

func (m *sinkModel) key(seq uint64) string { return "shop-a/" + m.subject[seq-1] }

func (m *sinkModel) done(seq uint64) bool { return seq <= m.position || m.ahead[seq] }

func (m *sinkModel) last() uint64 { return uint64(len(m.subject)) }

// batchOf returns the batch that an event is in; 0: none.
func (m *sinkModel) batchOf(seq uint64) uint64 {
	for first, members := range m.batches {
		if slices.Contains(members, seq) {
			return first
		}
	}
	return 0
}

func (m *sinkModel) waits(lane state.Lane, seq uint64) bool {
	return slices.ContainsFunc(m.queue[state.Failed{Lane: lane, Key: m.key(seq)}.QueueKey()], func(f state.Failed) bool { return f.Seq == seq })
}

func (m *sinkModel) join(f state.Failed) {
	k := f.QueueKey()
	q := m.queue[k]
	f.Batch = 0
	switch {
	case len(q) > 0 && q[0].Seq == f.Seq:
		q[0] = f
	case m.waits(f.Lane, f.Seq):
	case len(q) == 0:
		m.queue[k] = []state.Failed{f}
	default:
		m.queue[k] = append(q, state.Failed{Seq: f.Seq, Lane: f.Lane, Key: f.Key, First: f.First})
		slices.SortFunc(m.queue[k][1:], func(a, b state.Failed) int { return cmp.Compare(a.Seq, b.Seq) })
	}
}

// leave takes an event out of the queue; the next of its subject is due at now.
func (m *sinkModel) leave(lane state.Lane, seq uint64, now time.Time) {
	k := state.Failed{Lane: lane, Key: m.key(seq)}.QueueKey()
	q := m.queue[k]
	i := slices.IndexFunc(q, func(f state.Failed) bool { return f.Seq == seq })
	if i < 0 {
		return
	}
	if q = slices.Delete(q, i, i+1); i == 0 && len(q) > 0 {
		q[0].Next = now
	}
	if m.queue[k] = q; len(q) == 0 {
		delete(m.queue, k)
	}
}

func (m *sinkModel) bury(f state.Failed, now time.Time) {
	d := state.DeadLetter{Attempts: f.Attempts, First: f.First, Last: f.Last, Status: f.Status, Error: f.Error, Reason: f.Reason, Died: now}
	if old, ok := m.dead[f.Seq]; ok {
		d.Attempts += old.Attempts
		if !old.First.IsZero() {
			d.First = old.First
		}
		if d.Last.IsZero() {
			d.Last, d.Status, d.Error = old.Last, old.Status, old.Error
		}
	}
	m.dead[f.Seq] = d
}

// together are the events that went in the request of a head.
func (m *sinkModel) together(f state.Failed) []uint64 {
	if first := m.batchOf(f.Seq); first != 0 && f.Lane == state.Live && m.waits(f.Lane, f.Seq) {
		members := m.batches[first]
		delete(m.batches, first)
		return members
	}
	return []uint64{f.Seq}
}

func (m *sinkModel) settle(s state.Settlement, now time.Time) {
	m.position = max(m.position, s.Position)
	m.ahead = make(map[uint64]bool)
	for _, seq := range s.Ahead {
		m.ahead[seq] = seq > m.position
	}
	if s.Hold != nil {
		m.hold = *s.Hold
	}
	if s.Gone != nil {
		m.gone = s.Gone
	}
	was := make(map[uint64]bool) // batches of the queue
	for _, first := range s.Unbatch {
		was[first] = m.waits(state.Live, first)
	}
	for _, f := range s.Failed {
		m.join(f)
	}
	for _, b := range s.Batches {
		m.batches[b.Members[0]] = b.Members
	}
	for _, f := range s.Attempts {
		m.join(f)
	}
	for _, f := range s.Delivered {
		for _, seq := range m.together(f) {
			m.leave(f.Lane, seq, now)
		}
		if f.Lane == state.Retried {
			delete(m.dead, f.Seq)
		}
	}
	for _, f := range s.Dead {
		for _, seq := range m.together(f) {
			f.Seq = seq
			m.bury(f, now)
			m.leave(f.Lane, seq, now)
		}
	}
	for _, first := range s.Unbatch {
		leader := m.queue[m.key(first)]
		for _, seq := range m.batches[first] {
			if q := m.queue[m.key(seq)]; len(q) > 0 && q[0].Seq == seq && seq != first && was[first] {
				q[0] = leader[0]
				q[0].Seq, q[0].Key, q[0].Refused = seq, m.key(seq), 0
			}
		}
		delete(m.batches, first)
	}
}

// heads are those that go on their own, in order of their keys.
func (m *sinkModel) heads() (out []state.Failed) {
	for _, k := range slices.Sorted(maps.Keys(m.queue)) {
		f := m.queue[k][0]
		if f.Lane == state.Live {
			f.Batch = m.batchOf(f.Seq)
		}
		if f.Batch == 0 || f.Batch == f.Seq {
			out = append(out, f)
		}
	}
	return out
}

func class(f state.Failed) state.Class {
	switch {
	case f.Lane != state.Live:
		return state.Aside
	case f.Attempts == 0:
		return state.FirstTry
	}
	return state.Again
}

func (m *sinkModel) due(c state.Class) []state.Failed {
	out := slices.DeleteFunc(m.heads(), func(f state.Failed) bool { return class(f) != c })
	slices.SortStableFunc(out, func(a, b state.Failed) int { return a.Next.Compare(b.Next) })
	return out
}

// needed is the first event that the log must still hold.
func (m *sinkModel) needed() uint64 {
	first := m.last() + 1
	if !m.retired {
		first = m.position + 1
	}
	for _, q := range m.queue {
		for _, f := range q {
			if f.Lane != state.Retried {
				first = min(first, f.Seq)
			}
		}
	}
	return first
}
