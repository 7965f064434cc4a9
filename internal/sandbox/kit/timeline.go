package kit

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// Timeline is a world's time. It moves when somebody looks: [Timeline.Advance] lets happen, in the order of their times,
// all things that were due since the last look. So a world needs neither goroutines nor timers, and what happens does not
// depend on who looks when, as long as each kind of thing draws from generators of its own. The world's mutex guards it.
type Timeline struct {
	// Now is up to where things have happened, in nanoseconds since 1970; it never goes back.
	Now     int64
	agenda  agenda
	rhythms []rhythm
}

// Advance moves time on to a moment. A moment that has passed changes nothing.
func (t *Timeline) Advance(to int64) {
	for {
		next := to + 1
		var happen func()
		if len(t.agenda.due) > 0 && t.agenda.due[0].at < next {
			next, happen = t.agenda.due[0].at, t.agenda.runFirst
		}
		for _, rh := range t.rhythms {
			if rh.on && rh.next < next {
				next, happen = rh.next, rh.do
			}
		}
		if happen == nil {
			t.Now = max(t.Now, to)
			return
		}
		t.Now = max(t.Now, next)
		happen()
	}
}

// After plans something. What is due already happens at once, which the building of history relies on.
func (t *Timeline) After(at int64, do func()) {
	if at <= t.Now {
		do()
		return
	}
	t.agenda.add(at, do)
}

// Rhythm starts a growth, if every is above 0. Of two that are due at one time, the one added first comes first.
func (t *Timeline) Rhythm(g *Growth, every time.Duration, do func()) {
	g.start(t.Now, every)
	t.rhythms = append(t.rhythms, rhythm{g, do})
}

// Rest ends all that happens by itself, what is planned too.
func (t *Timeline) Rest() { t.rhythms, t.agenda.due = nil, nil }

// rhythm is a growth and what it does.
type rhythm struct {
	*Growth
	do func()
}

// Growth is the rhythm of one kind of new things.
type Growth struct {
	on   bool
	mean int64
	next int64
	r    *rand.Rand
}

// NewGrowth makes one that draws its times from r.
func NewGrowth(r *rand.Rand) Growth { return Growth{r: r} }

// start sets the first thing early, so that whoever starts a lively world need not wait.
func (g *Growth) start(now int64, every time.Duration) {
	g.on, g.mean = every > 0, int64(every)
	if g.on {
		g.next = now + 1 + g.r.Int64N(max(1, g.mean/2))
	}
}

// Step gives the time of the thing that is due and sets the next: 0.2 to 1.8 of the mean later.
func (g *Growth) Step() int64 {
	at := g.next
	g.next += 1 + g.mean/5 + g.r.Int64N(max(1, g.mean*8/5))
	return at
}

// agenda is what will happen at known times, earliest first; of two at one time, the one planned first.
type agenda struct {
	due     []planned
	planned int
}

type planned struct {
	at    int64
	order int
	do    func()
}

func (a *agenda) add(at int64, do func()) {
	a.planned++
	heap.Push(a, planned{at: at, order: a.planned, do: do})
}

func (a *agenda) runFirst() { heap.Pop(a).(planned).do() }

// Len, Less, Swap, Push and Pop are container/heap's.
func (a *agenda) Len() int      { return len(a.due) }
func (a *agenda) Swap(i, j int) { a.due[i], a.due[j] = a.due[j], a.due[i] }
func (a *agenda) Less(i, j int) bool {
	if a.due[i].at != a.due[j].at {
		return a.due[i].at < a.due[j].at
	}
	return a.due[i].order < a.due[j].order
}
func (a *agenda) Push(x any) { a.due = append(a.due, x.(planned)) }
func (a *agenda) Pop() any {
	last := a.due[len(a.due)-1]
	a.due[len(a.due)-1] = planned{}
	a.due = a.due[:len(a.due)-1]
	return last
}
