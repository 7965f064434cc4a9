package apiclient

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// Flow is whom a token is for. Requests of one flow go in the order of their
// arrival; flows that wait for one budget, or in one lane, share it by their weights.
type Flow struct {
	Name   string  // stream and walk: "questions/news"
	Weight float64 // at least 1/256; 0: 1
}

// unit is what a request of weight 1 costs, in virtual time: whole numbers, or
// rounding would break ties. A weight of 1/11 costs exactly eleven of it.
const unit = 1_000_000

// maxCost bounds what one request costs, and so how long its flow can have to wait
// for its next turn: a weight below 1/256 counts as that.
const maxCost = 256 * unit

func (f Flow) cost() int64 {
	if !(f.Weight > 0) {
		return unit
	}
	return int64(min(max(math.Round(unit/f.Weight), 1), maxCost))
}

const (
	maxFlows = 64             // that are remembered: a marketplace has fewer streams times walks
	memory   = 24 * time.Hour // for how long a flow is remembered that asks for nothing
)

// queue shares a bucket, window or lane among flows: start-time fair queueing. Each waiter has a
// start tag in virtual time, which is that of the request served last: the finish
// tag of its flow's request before it, or the present if that is later. The
// smallest tag goes next. A request finishes 1/weight after its start.
//
// So a flow that was idle goes before those that are backlogged, a flow that
// waits all the time gets its weight's part, and none waits for ever: its tag
// stays while those of the others grow. No credit is saved up by being idle, and
// a flow never owes more than its last request.
//
// A flow of less than weight 1 that nobody remembers begins as if it had just been
// served. Otherwise it would go ahead of the others with every process that is
// started anew. And flows that only waited are remembered like those that were
// served: a flow that is always about to have its turn when the process dies has
// it in the end.
//
// In a bucket that is not saved nobody is remembered by the next process, and of
// many that die young none would come to such a flow. There the first turn of each
// flow is at random, as if the process had come at any moment of its round: all get
// their shares on the average.
//
// A queue is guarded by its line's mutex.
type queue struct {
	virtual int64
	flows   map[string]*flow
	waiters []*waiter // in the order in which they will be served
	tickets uint64
}

type flow struct {
	name   string
	finish int64 // tag of its request served last
	last   int64 // tag of its last request that waits; order's own
	seen   time.Time
	fresh  bool // nobody remembered it, and it was not served yet
	saved  bool // the next process will remember it
}

type waiter struct {
	flow   *flow
	cost   int64
	came   int64 // the present when it came, in virtual time
	start  int64
	ticket uint64

	patient bool
	hurried bool          // has a deadline: wants to know when it is overtaken
	turn    chan struct{} // size 1: look again
}

// join queues a request. A patient one lets those go ahead who may still come: see
// awaits. kept: the next process will know of the flows.
func (q *queue) join(f Flow, patient, kept bool, now time.Time) *waiter {
	w := &waiter{patient: patient, cost: f.cost(), came: q.virtual, ticket: q.tickets, turn: make(chan struct{}, 1)}
	q.tickets++
	if w.flow = q.flows[f.Name]; w.flow == nil {
		q.forget(now, maxFlows-1)
		w.flow = &flow{name: f.Name, finish: q.virtual, fresh: true}
		switch {
		case !kept:
			w.flow.finish += rand.Int64N(w.cost)
		case w.cost > unit:
			w.flow.finish += w.cost
		}
		q.flows[f.Name] = w.flow
	}
	w.flow.seen = now
	q.waiters = append(q.waiters, w)
	q.order()
	return w
}

// leave takes w out, served or not.
func (q *queue) leave(w *waiter) {
	q.waiters = slices.DeleteFunc(q.waiters, func(o *waiter) bool { return o == w })
	q.order()
}

// serve counts the request of w as sent; undo takes that back.
func (q *queue) serve(w *waiter, now time.Time) (undo func()) {
	virtual, before := q.virtual, *w.flow
	q.virtual = max(q.virtual, w.start)
	w.flow.finish, w.flow.seen, w.flow.fresh = w.start+w.cost, now, false
	return func() { q.virtual, *w.flow = virtual, before }
}

// order tags the waiters and puts them in order. Of equal tags the heavier goes
// first: news that has just come before sweeps that have just come too, and a
// flow of weight 1/11 beside one of weight 1 after eleven of that, not ten.
func (q *queue) order() {
	slices.SortFunc(q.waiters, func(a, b *waiter) int { return cmp.Compare(a.ticket, b.ticket) })
	for _, w := range q.waiters {
		w.flow.last = w.flow.finish
	}
	for _, w := range q.waiters {
		w.start = max(w.came, w.flow.last)
		w.flow.last = w.start + w.cost
	}
	slices.SortFunc(q.waiters, func(a, b *waiter) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(a.cost, b.cost), cmp.Compare(a.ticket, b.ticket))
	})
}

// awaits reports whether somebody may still come who goes before the first waiter:
// in a process that has just begun, where they all come one after the other.
func (q *queue) awaits() bool {
	if len(q.waiters) == 0 || !q.waiters[0].patient {
		return false
	}
	first := q.waiters[0]
	if first.flow.fresh && first.cost > unit {
		return true
	}
	for _, f := range q.flows {
		// Of equal tags the other's may be the heavier flow.
		tag := max(f.finish, q.virtual)
		if (tag < first.start || tag == first.start && first.cost > unit) && !q.waiting(f) {
			return true
		}
	}
	return false
}

func (q *queue) waiting(f *flow) bool {
	return slices.ContainsFunc(q.waiters, func(w *waiter) bool { return w.flow == f })
}

// forget drops the flows that have not been seen for long, and of more than most
// those that have asked for nothing longest.
func (q *queue) forget(now time.Time, most int) {
	var idle []*flow
	for _, f := range q.flows {
		if !q.waiting(f) {
			idle = append(idle, f)
		}
	}
	slices.SortFunc(idle, func(a, b *flow) int { return a.seen.Compare(b.seen) })
	for _, f := range idle {
		if len(q.flows) <= most && now.Sub(f.seen) <= memory {
			return
		}
		delete(q.flows, f.name)
	}
}

// savedFlow is a flow in the ledger.
type savedFlow struct {
	Debt int64 `json:"debt,omitempty"` // its finish tag, from the present on
	Seen int64 `json:"seen"`           // Unix seconds
}

// save returns what the next process has to know of the flows: at most maxFlows,
// or those that wait if they are more.
func (q *queue) save(now time.Time) map[string]savedFlow {
	q.forget(now, maxFlows)
	flows := make(map[string]savedFlow, len(q.flows))
	for name, f := range q.flows {
		if q.waiting(f) {
			f.seen = now
		}
		f.saved = true
		flows[name] = savedFlow{Debt: max(f.finish-q.virtual, 0), Seen: f.seen.Unix()}
	}
	return flows
}

// load begins with the flows of an earlier process. They came from a disk: no debt
// is larger than that of one request, and nobody was seen in times to come.
func (q *queue) load(flows map[string]savedFlow, now time.Time) {
	q.flows = make(map[string]*flow, len(flows))
	for name, s := range flows {
		seen := time.Unix(s.Seen, 0)
		if seen.After(now) {
			seen = now
		}
		q.flows[name] = &flow{name: name, finish: min(max(s.Debt, 0), maxCost), seen: seen, saved: true}
	}
	q.forget(now, maxFlows)
}
