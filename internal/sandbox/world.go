package sandbox

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// WorldSpec says what a seller's buyers write and how the marketplace shows it. With neither EventEvery nor QuestionEvery
// the world is at rest: after the epoch nothing happens in it by itself, except that late items of its history appear.
type WorldSpec struct {
	// Events and Questions are the sizes of the history.
	Events    int
	Questions int
	// Span is how far the history goes back from the epoch. Default: 30 days.
	Span time.Duration

	// EventEvery and QuestionEvery are the mean times between new ones after the epoch. Default: none come.
	EventEvery    time.Duration
	QuestionEvery time.Duration

	// AnswerShare is the share of questions that the seller answers (or rejects) some time. Default: 0.85; negative: none.
	AnswerShare float64
	// AnswerAfter is the mean time until then. Default: 6 h.
	AnswerAfter time.Duration
	// AnsweredUnseen is the share of questions that are already answered when they first appear. Default: none.
	AnsweredUnseen float64

	// LateEvents is the share of chat events that appear in the feed up to LateBy after their addTimestamp, behind the
	// cursor of who has read on. Default: none.
	LateEvents float64
	LateBy     time.Duration
	// LateQuestions is the share of questions that the lists and counts show only up to IndexedLateBy after their
	// creation. Default: none.
	LateQuestions float64
	IndexedLateBy time.Duration

	// PageTies makes every boundary between the history's pages of 50 events cut through so many events of one
	// millisecond. Default: 0; 2 or more otherwise.
	PageTies int
}

const (
	defaultSpan        = 30 * 24 * time.Hour
	defaultAnswerShare = 0.85
	defaultAnswerAfter = 6 * time.Hour
)

func (s WorldSpec) withDefaults() WorldSpec {
	if s.Span == 0 {
		s.Span = defaultSpan
	}
	if s.AnswerShare == 0 {
		s.AnswerShare = defaultAnswerShare
	}
	if s.AnswerAfter == 0 {
		s.AnswerAfter = defaultAnswerAfter
	}
	return s
}

func (s WorldSpec) validate() error {
	var problems []error
	for name, n := range map[string]int{"events": s.Events, "questions": s.Questions, "page ties": s.PageTies} {
		if n < 0 {
			problems = append(problems, fmt.Errorf("%s: %d is negative", name, n))
		}
	}
	for name, d := range map[string]time.Duration{
		"span": s.Span, "event every": s.EventEvery, "question every": s.QuestionEvery, "answer after": s.AnswerAfter,
		"late by": s.LateBy, "indexed late by": s.IndexedLateBy,
	} {
		if d < 0 {
			problems = append(problems, fmt.Errorf("%s: %s is negative", name, d))
		}
	}
	for name, share := range map[string]float64{
		"answered unseen": s.AnsweredUnseen, "late events": s.LateEvents, "late questions": s.LateQuestions,
	} {
		if !(share >= 0 && share <= 1) {
			problems = append(problems, fmt.Errorf("%s: %v is no share from 0 to 1", name, share))
		}
	}
	if !(s.AnswerShare <= 1) {
		problems = append(problems, fmt.Errorf("answer share: %v is above 1", s.AnswerShare))
	}
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(problems...)
}

// World is one seller's side of the marketplace. It moves when it is looked at: every access first lets happen, in the
// order of their times, all things that were due since the last one. Each kind of thing draws from its own generators at
// times that are drawn too, so what happens does not depend on who looks when.
type World struct {
	seller Seller
	spec   WorldSpec
	atRest bool

	mu         sync.Mutex // guards the rest
	now        int64      // up to where things have happened, in nanoseconds; never goes back
	agenda     agenda
	chat       *chatWorld
	questions  *questionWorld
	buckets    map[bucketKey]*bucket
	violations []Violation
}

func newWorld(seller Seller, seed uint64, epoch time.Time) *World {
	spec := seller.World.withDefaults()
	w := &World{
		seller:  seller,
		spec:    spec,
		atRest:  spec.EventEvery == 0 && spec.QuestionEvery == 0,
		now:     epoch.UnixNano(),
		buckets: make(map[bucketKey]*bucket),
	}
	products := newProducts(stream(seed, "products "+seller.ID), seller.Name)
	w.chat = newChatWorld(w, seed, products)
	w.questions = newQuestionWorld(w, seed, products)
	w.chat.grow.start(w.now, spec.EventEvery)
	w.questions.grow.start(w.now, spec.QuestionEvery)
	return w
}

// ID is the seller's sid.
func (w *World) ID() string { return w.seller.ID }

// Name is the seller's name, as its products show it.
func (w *World) Name() string { return w.seller.Name }

// lock takes the world's mutex and lets happen what is due. The caller unlocks.
func (w *World) lock(now time.Time) {
	w.mu.Lock()
	w.advance(now.UnixNano())
}

func (w *World) advance(to int64) {
	for {
		next := to + 1
		var happen func()
		if len(w.agenda.due) > 0 && w.agenda.due[0].at < next {
			next, happen = w.agenda.due[0].at, w.agenda.runFirst
		}
		if at := w.chat.grow.next; w.chat.grow.on && at < next {
			next, happen = at, w.chat.growOne
		}
		if at := w.questions.grow.next; w.questions.grow.on && at < next {
			next, happen = at, w.questions.growOne
		}
		if happen == nil {
			w.now = max(w.now, to)
			return
		}
		w.now = max(w.now, next)
		happen()
	}
}

// after plans something. What is due already happens at once, which the building of history relies on.
func (w *World) after(at int64, do func()) {
	if at <= w.now {
		do()
		return
	}
	w.agenda.add(at, do)
}

// growth is the rhythm of one kind of new things.
type growth struct {
	on   bool
	mean int64
	next int64
	r    *rand.Rand
}

// start sets the first thing early, so that whoever starts a lively world need not wait.
func (g *growth) start(now int64, every time.Duration) {
	g.on, g.mean = every > 0, int64(every)
	if g.on {
		g.next = now + 1 + g.r.Int64N(max(1, g.mean/2))
	}
}

// step gives the time of the thing that is due and sets the next: 0.2 to 1.8 of the mean later.
func (g *growth) step() int64 {
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

// historyTimes draws the n moments of a history that ends before the epoch, ascending.
func historyTimes(r *rand.Rand, n int, epoch int64, span time.Duration) []int64 {
	times := make([]int64, n)
	for i := range times {
		times[i] = epoch - 1 - r.Int64N(max(1, int64(span)))
	}
	slices.Sort(times)
	return times
}

// lateness draws by how much a thing appears late. It always draws twice, so that shares do not shift what is drawn next.
func lateness(r *rand.Rand, share float64, by time.Duration) int64 {
	hit, delay := r.Float64() < share, r.Int64N(max(1, int64(by)))
	if !hit || by == 0 {
		return 0
	}
	return 1 + delay
}

// chance is true with probability p.
func chance(r *rand.Rand, p float64) bool { return r.Float64() < p }

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }
