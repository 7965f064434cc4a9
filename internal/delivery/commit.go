package delivery

import (
	"cmp"
	"slices"
	"time"

	"syncd/internal/state"
)

// group is the outcomes that are committed together.
type group struct {
	n       int            // how many there are; 0: nothing needs a commit
	failed  []state.Failed // fresh events that join the queue
	acked   []state.Failed // heads that were delivered
	tried   []state.Failed // heads that were tried in vain
	dead    []state.Failed // given up
	formed  []*job         // batches that are sent when they are saved
	unbatch []uint64
	hold    *time.Time
	gone    *state.Gone
	freed   []string // keys that are busy until then

	front    int // entries at the front of the window that are done; set when the commit begins
	position uint64
}

// add appends what happened after a group.
func (g *group) add(later *group) {
	g.n += later.n
	g.failed = append(g.failed, later.failed...)
	g.acked = append(g.acked, later.acked...)
	g.tried = append(g.tried, later.tried...)
	g.dead = append(g.dead, later.dead...)
	g.formed = append(g.formed, later.formed...)
	g.unbatch = append(g.unbatch, later.unbatch...)
	g.freed = append(g.freed, later.freed...)
	if later.hold != nil {
		g.hold = later.hold
	}
	if later.gone != nil {
		g.gone = later.gone
	}
}

// settleSoon begins the commit of what waits for one, unless it is better to let
// more come together, and returns the earlier of next and the time to do so.
//
// With nothing else in flight nothing is gained by waiting, unless commits follow one
// another: what nobody waits for then goes with the next one.
func (p *parallel) settleSoon(next time.Time) time.Time {
	g := &p.group
	if p.settling != nil || g.n == 0 {
		return next
	}
	now := time.Now()
	if p.settleBy.IsZero() {
		p.settleBy = now.Add(commitEvery)
	}
	if p.flying == 0 && p.presses(now) || g.n >= p.mostEvents/4 || len(g.acked)+len(g.tried) >= commitQueued || !now.Before(p.settleBy) ||
		len(g.formed) > 0 && len(p.prepared) <= p.limit/2 {
		p.settle()
		return next
	}
	return earlier(next, p.settleBy)
}

// presses reports whether something waits for the group, or a commit of its own costs
// nobody anything: the one before was long ago. For what was delivered out of the log
// nobody waits.
func (p *parallel) presses(now time.Time) bool {
	g := &p.group
	return now.Sub(p.settledAt) >= commitEvery || len(g.failed)+len(g.acked)+len(g.tried)+len(g.dead) > 0
}

// settle begins the commit of the group, in one transaction: the position moves
// over everything at the front of the window that is done, events that failed join
// the queue, heads that were delivered leave it. The worker goes on beside it with
// whatever rests on none of that: the subjects concerned are busy until it is done.
//
// A crash before it takes effect repeats these deliveries.
func (p *parallel) settle() {
	g := p.group
	p.group, p.settleBy, p.settledAt = group{}, time.Time{}, time.Now()
	g.position = p.position
	for g.front = 0; g.front < len(p.entries) && p.entries[g.front].done; g.front++ {
		g.position = p.entries[g.front].event.Sequence
	}
	s := state.Settlement{Position: g.position, Failed: g.failed, Delivered: g.acked, Attempts: g.tried, Dead: g.dead,
		Unbatch: g.unbatch, Hold: g.hold, Gone: g.gone}
	// What is gone from the log before the window, or hidden in it, is done.
	for _, n := range p.entries[g.front:] {
		if n.done {
			s.Ahead = append(s.Ahead, n.event.Sequence)
		}
	}
	s.Ahead = append(s.Ahead, p.ahead[p.aheadIn():]...)
	slices.SortFunc(s.Failed, func(a, b state.Failed) int { return cmp.Compare(a.Seq, b.Seq) })
	for _, j := range g.formed {
		s.Batches = append(s.Batches, state.Batch{Members: sequences(j.events)})
	}
	p.settling = &g
	go func() { p.settled <- p.db.Settle(p.Name, time.Now(), s) }()
}

// aheadIn is how many of the events in ahead are in the window already.
func (p *parallel) aheadIn() int {
	i, found := slices.BinarySearch(p.ahead, p.read)
	if found {
		i++
	}
	return i
}

// finish takes what came of a commit. One that reported a failure may have taken
// effect all the same, so it is repeated, together with what has happened since,
// before anything is sent that could rest on either.
func (p *parallel) finish(err error) error {
	g := p.settling
	p.settling = nil
	if p.unsure = err != nil; err != nil {
		g.add(&p.group)
		p.group = *g
		return err
	}
	p.stalls.Worked(p.log, "sink goes on")
	p.position = g.position
	for _, n := range p.entries[:g.front] {
		p.bytes -= len(n.event.JSON)
	}
	clear(p.entries[:g.front])
	p.entries = p.entries[g.front:]
	p.freed = append(p.freed, g.freed...)
	p.prepared = append(p.prepared, g.formed...)
	p.live = p.live || len(g.failed) > 0
	p.recount = p.recount || p.live && len(g.acked)+len(g.dead) > 0
	if len(g.failed)+len(g.acked)+len(g.tried)+len(g.dead)+len(g.unbatch) > 0 {
		p.refresh()
	}
	return nil
}

// commit commits what waits for it, and is done when it returns.
func (p *parallel) commit() error {
	p.settle()
	return p.finish(<-p.settled)
}
