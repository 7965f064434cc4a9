package delivery_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"syncd/internal/event"
	"syncd/internal/sink"
)

// receiver is a strict parallel sink with what is behind it. It fails the test
// when a subject is in two requests at once, when an event overtakes an earlier one
// of its subject that was neither acknowledged nor given up, when an id comes with
// other content or in another batch than before, and when more is in flight or in
// one request than was asked for.
type receiver struct {
	r      *rig
	limit  int
	batch  int                                                    // most events of a request
	wants  func(seq uint64) bool                                  // nil: all; what order is expected of
	answer func(ctx context.Context, e *event.Logged) error       // of each event in turn; nil: acknowledged at once
	whole  func(ctx context.Context, events []event.Logged) error // of the request, before that

	mu       sync.Mutex
	flying   map[string]bool
	requests int // in flight
	most     int // requests in flight at once
	acked    map[uint64]int
	tries    map[uint64][]time.Time
	order    []uint64    // of the tries, by the first event of each request
	at       []time.Time // of the requests
	sizes    []int       // of the requests
	members  map[uint64]string
	alone    map[uint64]bool // has left its batch
	bodies   map[string]string
	aside    map[sink.Aside][]uint64 // acknowledged
}

func newReceiver(r *rig, limit int) *receiver {
	return &receiver{r: r, limit: limit, batch: 1, flying: make(map[string]bool), acked: make(map[uint64]int), tries: make(map[uint64][]time.Time),
		members: make(map[uint64]string), alone: make(map[uint64]bool), bodies: make(map[string]string), aside: make(map[sink.Aside][]uint64)}
}

func (v *receiver) Parallel() int { return v.limit }
func (v *receiver) Close() error  { return nil }

func (v *receiver) Deliver(ctx context.Context, events []event.Logged) error {
	return v.receive(ctx, 0, events)
}

func (v *receiver) Redeliver(ctx context.Context, why sink.Aside, events []event.Logged) error {
	if len(events) != 1 {
		v.r.t.Errorf("%d events at once that stand outside their order", len(events))
	}
	return v.receive(ctx, why, events)
}

func (v *receiver) receive(ctx context.Context, why sink.Aside, events []event.Logged) error {
	if v.r.isKilled() {
		return errKilled
	}
	v.arrive(why, events)
	var err error
	if v.whole != nil {
		err = v.whole(ctx, events)
	}
	for i := range events {
		if err == nil && v.answer != nil {
			err = v.answer(ctx, &events[i])
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.requests--
	for i := range events {
		delete(v.flying, events[i].PartitionKey)
		switch {
		case err != nil:
		case why != 0:
			v.aside[why] = append(v.aside[why], events[i].Sequence)
		default:
			v.acked[events[i].Sequence]++
		}
	}
	if v.r.isKilled() {
		return errKilled
	}
	return err
}

func (v *receiver) arrive(why sink.Aside, events []event.Logged) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(events) > v.batch || len(events) == 0 {
		v.r.t.Errorf("%d events at once", len(events))
	}
	v.requests++
	if v.most = max(v.most, v.requests); v.most > v.limit {
		v.r.t.Errorf("%d in flight, limit %d", v.most, v.limit)
	}
	for i := range events {
		if v.flying[events[i].PartitionKey] {
			v.r.t.Errorf("two requests with %s in flight", events[i].PartitionKey)
		}
	}
	var seqs []uint64
	for i := range events {
		e := &events[i]
		v.flying[e.PartitionKey] = true
		seqs = append(seqs, e.Sequence)
		if v.r.key(e.Sequence) != e.PartitionKey {
			v.r.t.Errorf("event %d is of %s, want %s", e.Sequence, e.PartitionKey, v.r.key(e.Sequence))
		}
		if b, ok := v.bodies[e.ID]; ok && b != string(e.JSON) {
			v.r.t.Errorf("%s was %s and is now %s", e.ID, b, e.JSON)
		}
		v.bodies[e.ID] = string(e.JSON)
		if why == 0 {
			v.tries[e.Sequence] = append(v.tries[e.Sequence], time.Now())
		}
	}
	v.order, v.at, v.sizes = append(v.order, seqs[0]), append(v.at, time.Now()), append(v.sizes, len(seqs))
	if why != 0 {
		return
	}
	if !slices.IsSorted(seqs) {
		v.r.t.Errorf("a batch %d is not in order", seqs)
	}
	v.inOrder(events, seqs)
	v.inBatch(seqs)
}

// inOrder checks that nothing earlier of a subject was passed.
func (v *receiver) inOrder(events []event.Logged, seqs []uint64) {
	for i := range events {
		e := &events[i]
		for seq := uint64(1); seq < e.Sequence; seq++ {
			if v.acked[seq] > 0 || v.r.key(seq) != e.PartitionKey || v.wants != nil && !v.wants(seq) || slices.Contains(seqs[:i], seq) || v.outside(seq) {
				continue
			}
			v.r.t.Errorf("event %d of %s overtakes %d", e.Sequence, e.PartitionKey, seq)
		}
	}
}

// inBatch checks that events go with those they went with before: a batch's id is
// made of those of its events. When it was taken apart, the first of each subject
// goes alone from then on, and what follows that may go in another.
func (v *receiver) inBatch(seqs []uint64) {
	now := fmt.Sprint(seqs)
	for _, seq := range seqs {
		before, ok := v.members[seq]
		switch {
		case !ok:
			v.members[seq] = now
			v.alone[seq] = len(seqs) == 1
		case len(seqs) == 1:
			v.alone[seq] = true
		case v.alone[seq] || before != now && !v.apart(before):
			v.r.t.Errorf("event %d went in %s and now goes in %s", seq, before, now)
		default:
			v.members[seq] = now
		}
	}
}

// apart reports whether a batch was taken apart: one of it has gone alone.
func (v *receiver) apart(batch string) bool {
	for _, field := range strings.Fields(strings.Trim(batch, "[]")) {
		if seq, err := strconv.ParseUint(field, 10, 64); err != nil || v.alone[seq] {
			return true
		}
	}
	return false
}

// outside reports whether an event was given up, and so stands outside its order.
func (v *receiver) outside(seq uint64) bool {
	return slices.Contains(v.aside[sink.RetriedDeadLetter], seq) || v.r.isDead(seq)
}

// missing returns the events that were neither acknowledged nor given up.
func (v *receiver) missing() (out []uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for seq := uint64(1); v.r.key(seq) != ""; seq++ {
		if v.acked[seq] == 0 && (v.wants == nil || v.wants(seq)) && !v.outside(seq) {
			out = append(out, seq)
		}
	}
	return out
}

// died forgets what was in flight when the process died.
func (v *receiver) died() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.flying)
	v.requests = 0
}

func (v *receiver) triesOf(seq uint64) []time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.tries[seq])
}

func (v *receiver) total() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.order)
}

// sent returns how many events each request had.
func (v *receiver) sent() []int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.sizes)
}

// besides returns what was acknowledged outside its order.
func (v *receiver) besides(why sink.Aside) []uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.aside[why])
}

// isDead reports whether an event is a dead letter of the sink crm.
func (r *rig) isDead(seq uint64) bool {
	dead, err := r.db.DeadLetters("crm", seq-1, 1)
	return err == nil && len(dead) > 0 && dead[0].Event.Sequence == seq
}

// dead returns the dead letters of the sink crm.
func (r *rig) dead() (out []uint64) {
	r.t.Helper()
	all, err := r.db.DeadLetters("crm", 0, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, d := range all {
		out = append(out, d.Event.Sequence)
	}
	return out
}

var _ sink.Parallel = (*receiver)(nil)
