package sandbox

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"syncd/internal/sandbox/kit"
)

// States of a feedback and of its answer (OpenAPI document; rejectedAntispam is only known from clients).
const (
	feedbackNew       = "none"
	feedbackProcessed = "wbRu"

	replyInReview = "reviewRequired"
	replyShown    = "wbRu"
	replyRejected = "rejected"
	replyAntispam = "rejectedAntispam"
)

// archiveAfter: "no answer within 30 days".
const archiveAfter = 30 * 24 * time.Hour

// The two lists of GET /api/v1/feedbacks, by isAnswered.
const (
	listOpen = iota
	listProcessed
)

// feedbackWorld is the feedbacks of one seller. The World's mutex guards it.
//
// There may be hundreds of thousands, so they are kept as little more than what can change; what a buyer wrote is drawn
// anew from the feedback's own seed whenever an answer shows it.
type feedbackWorld struct {
	world  *World
	goods  []*goods
	grow   kit.Growth // new ones
	shift  kit.Growth // changes of those that are there
	r      *rand.Rand // who writes about what
	fate   *rand.Rand // when it appears and is answered
	change *rand.Rand // what shift does
	byHand *rand.Rand // what tests and API calls add

	all  []*feedback // in the order of their making
	gone []*feedback // those that vanished by themselves, and can come back so
	byID map[string]*feedback
	// lists are what is in the index, by creation: not processed and processed ones.
	lists    [2][]*feedback
	unviewed int // of those in the lists
	extended bool
}

type feedback struct {
	id            string
	created       int64 // nanoseconds
	seed          uint64
	goods         *goods
	answer        *reply
	parent, child *feedback
	returned      int64     // when its return was ordered; 0: never
	hand          *handmade // what tests have set; nil: nothing

	rating     uint8
	order      uint8 // place in orderStatuses
	complaint  uint8 // reason of the seller's complaint; 0: none
	problem    uint8 // problem with the product that the seller reported; 0: none
	worded     bool  // has text or photos
	viewed     bool
	returnable bool
	indexed    bool
	deleted    bool
}

// reply is the seller's answer.
type reply struct {
	text     string // "": a phrase drawn from the feedback's seed
	state    string
	at       int64
	editable bool
	edited   bool
}

// handmade is what a test has set on a feedback, beyond what the buyers of the world do.
type handmade struct {
	said  *content // in place of what the seed gives
	raw   []byte   // sent in place of the item until the feedback changes
	edits []edit   // fields set to something else, in the order of setting
}

func compareFeedbacks(a, b *feedback) int {
	return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.id, b.id))
}

func newFeedbackWorld(w *World, seed uint64, products []product) *feedbackWorld {
	f := &feedbackWorld{
		world:  w,
		goods:  newGoods(kit.Stream(seed, "goods "+w.seller.ID), products),
		r:      kit.Stream(seed, "feedbacks "+w.seller.ID),
		fate:   kit.Stream(seed, "fate of feedbacks "+w.seller.ID),
		change: kit.Stream(seed, "changes of feedbacks "+w.seller.ID),
		byHand: kit.Stream(seed, "feedbacks by hand "+w.seller.ID),
		grow:   kit.NewGrowth(kit.Stream(seed, "feedback growth "+w.seller.ID)),
		shift:  kit.NewGrowth(kit.Stream(seed, "feedback changes "+w.seller.ID)),
		byID:   make(map[string]*feedback, w.spec.Feedbacks),
	}
	for _, at := range kit.HistoryTimes(kit.Stream(seed, "feedback history "+w.seller.ID), w.spec.Feedbacks, w.time.Now, w.spec.FeedbackSpan) {
		f.write(at)
	}
	return f
}

func (f *feedbackWorld) growOne() { f.write(f.grow.Step()) }

// recentFeedbacks is how many feedbacks, counted from the newest, buyers still supplement.
const recentFeedbacks = 200

// write lets a buyer write something: sometimes a supplement, which is a new feedback linked with the first one.
func (f *feedbackWorld) write(at int64) {
	n := f.compose(f.r, at)
	supplement, back := kit.Chance(f.r, 0.04), 1+f.r.IntN(recentFeedbacks)
	if supplement && back <= len(f.all) {
		f.link(f.all[len(f.all)-back], n)
	}
	f.add(n)
	f.settle(n)
}

// compose draws a feedback without oddities.
func (f *feedbackWorld) compose(r *rand.Rand, at int64) *feedback {
	return &feedback{
		id: questionID(r), created: at, seed: r.Uint64(), goods: kit.Pick(r, f.goods),
		rating: kit.Pick(r, ratings), order: kit.Pick(r, orderShares), worded: !kit.Chance(r, 0.25),
		viewed: kit.Chance(r, 0.3), returnable: kit.Chance(r, 0.4),
	}
}

// link makes child the supplement of parent, if that is a first feedback without one.
func (f *feedbackWorld) link(parent, child *feedback) bool {
	if parent.deleted || parent.parent != nil || parent.child != nil {
		return false
	}
	child.parent, child.goods = parent, parent.goods
	f.alter(parent, func() { parent.child = child })
	return true
}

func (f *feedbackWorld) add(n *feedback) {
	f.all = append(f.all, n)
	f.byID[n.id] = n
}

// settle decides when a feedback appears and when it will be answered.
func (f *feedbackWorld) settle(n *feedback) {
	spec := f.world.spec
	late := kit.Lateness(f.fate, spec.LateFeedbacks, spec.IndexedLateBy)
	unseen := kit.Chance(f.fate, spec.AnsweredUnseen)
	willAnswer := kit.Chance(f.fate, spec.AnswerShare)
	bothers := kit.Chance(f.fate, 0.25) // to answer those who gave only a rating
	wait := int64(f.fate.ExpFloat64() * float64(spec.AnswerAfter))
	delay := 1 + f.fate.Int64N(int64(time.Minute)) // how long an answer at once takes
	verdict := drawVerdict(f.fate, spec.ModerateAfter)

	shown := n.created + late
	reply := func(at int64) func() {
		return func() {
			if n.answer == nil { // an API call may have been faster
				f.reply(n, "", at, verdict, !f.world.atRest)
			}
		}
	}
	switch {
	case unseen:
		shown = max(shown, n.created+delay)
		f.world.time.After(n.created+delay/2, reply(n.created+delay/2))
	case willAnswer && (n.worded || bothers) && (!f.world.atRest || n.created+wait <= f.world.time.Now):
		f.world.time.After(n.created+wait, reply(n.created+wait))
	}
	f.world.time.After(shown, func() {
		n.indexed = true
		f.show(n)
	})
}

// verdict is what moderation will say about an answer, and after how long.
type verdict struct {
	state string
	after int64
}

func drawVerdict(r *rand.Rand, mean time.Duration) verdict {
	v := verdict{state: replyShown, after: int64(r.ExpFloat64() * float64(max(0, mean)))}
	switch p := r.Float64(); {
	case p < 0.03:
		v.state = replyAntispam
	case p < 0.05:
		v.state = replyRejected
	}
	return v
}

// processed: answered, or nothing but a rating.
func (n *feedback) processed() bool { return n.answer != nil || !n.worded }

func (n *feedback) list() int {
	if n.processed() {
		return listProcessed
	}
	return listOpen
}

// visible says whether the lists show it.
func (n *feedback) visible() bool { return n.indexed && !n.deleted }

// show puts a feedback in the lists, if it is to be seen.
func (f *feedbackWorld) show(n *feedback) {
	f.note(n)
	if !n.visible() {
		return
	}
	l := &f.lists[n.list()]
	i := len(*l)
	if i > 0 && compareFeedbacks(n, (*l)[i-1]) < 0 {
		i, _ = slices.BinarySearchFunc(*l, n, compareFeedbacks)
	}
	*l = slices.Insert(*l, i, n)
	if !n.viewed {
		f.unviewed++
	}
}

func (f *feedbackWorld) note(n *feedback) {
	if !n.visible() {
		f.world.note(KindFeedback, n.id, nil, 0)
		return
	}
	f.world.note(KindFeedback, n.id, func() []byte { return f.render(n, 0) }, 0)
}

// alter applies a change and moves the feedback to the list where it then belongs.
func (f *feedbackWorld) alter(n *feedback, apply func()) {
	if n.visible() {
		l := &f.lists[n.list()]
		i, _ := slices.BinarySearchFunc(*l, n, compareFeedbacks)
		*l = slices.Delete(*l, i, i+1)
		if !n.viewed {
			f.unviewed--
		}
	}
	apply()
	if n.hand != nil {
		n.hand.raw = nil
	}
	f.show(n)
}

// reply gives an answer. Whoever answers has seen the feedback. Then the marketplace looks at the answer, unless moderated
// says that this would be after the end of history and nothing happens any more.
func (f *feedbackWorld) reply(n *feedback, text string, at int64, v verdict, moderated bool) {
	a := &reply{text: text, state: replyInReview, at: at, editable: f.world.time.Now-at < int64(editWindow)}
	f.alter(n, func() { n.viewed, n.answer = true, a })
	f.moderate(n, a, at+v.after, v.state, moderated)
}

func (f *feedbackWorld) moderate(n *feedback, a *reply, at int64, state string, moderated bool) {
	if !moderated && at > f.world.time.Now {
		return
	}
	f.world.time.After(at, func() {
		if n.answer == a { // it may have been taken away
			f.alter(n, func() { a.state = state })
		}
	})
}

// edit changes an answer, which is allowed once; it is looked at again.
func (f *feedbackWorld) edit(n *feedback, text string, now int64, v verdict) bool {
	if n.answer == nil || n.answer.edited || now-n.answer.at >= int64(editWindow) {
		return false
	}
	a := &reply{text: text, state: replyInReview, at: n.answer.at, edited: true}
	f.alter(n, func() { n.answer = a })
	f.moderate(n, a, now+v.after, v.state, true)
	return true
}

// changeOne lets something happen to a feedback that is there. What does not apply to it becomes a look at it by the seller.
func (f *feedbackWorld) changeOne() {
	at := f.shift.Step()
	kind, old, place, v := f.change.IntN(10), kit.Chance(f.change, 0.3), f.change.Float64(), drawVerdict(f.change, f.world.spec.ModerateAfter)
	if len(f.all) == 0 {
		return
	}
	among := f.all
	if !old {
		among = among[max(0, len(among)-recentFeedbacks):]
	}
	n := among[int(place*float64(len(among)))]
	done := false
	switch kind {
	case 0:
		done = n.visible() && f.edit(n, editedReply, at, v)
	case 1:
		done = f.supplement(n, at)
	case 2:
		if done = len(f.gone) > 0; done {
			f.restore(f.gone[int(place*float64(len(f.gone)))])
		}
	case 3:
		if done = n.visible(); done {
			f.remove(n)
			f.gone = append(f.gone, n)
		}
	case 4:
		done = f.orderReturn(n, at)
	default:
		done = true
		f.alter(n, func() { n.touch(kind, place) })
	}
	if !done {
		f.alter(n, func() { n.viewed = true })
	}
}

// touch changes one of the small things about a feedback.
func (n *feedback) touch(kind int, place float64) {
	switch kind {
	case 5:
		n.order = (n.order + 1) % uint8(len(orderStatuses))
	case 6:
		n.complaint = uint8(1 + place*9)
	case 7:
		n.problem = uint8(1 + place*6)
	case 8:
		n.returnable = !n.returnable
	default:
		n.viewed = true
	}
}

// orderReturn asks the buyer of a product to return it, which is possible once.
func (f *feedbackWorld) orderReturn(n *feedback, at int64) bool {
	if !n.returnable || n.returned != 0 {
		return false
	}
	f.alter(n, func() { n.returnable, n.returned = false, at })
	return true
}

// supplement lets the author of a feedback add something.
func (f *feedbackWorld) supplement(parent *feedback, at int64) bool {
	n := f.compose(f.change, at)
	if !f.link(parent, n) {
		return false
	}
	n.worded = true
	f.add(n)
	f.settle(n)
	return true
}

// remove deletes a feedback: no list, no count and no id finds it, and the marketplace takes its pins off.
func (f *feedbackWorld) remove(n *feedback) {
	f.alter(n, func() { n.deleted = true })
	f.world.pins.excluded(n)
}

// restore brings a deleted feedback back as it was.
func (f *feedbackWorld) restore(n *feedback) {
	f.gone = slices.DeleteFunc(f.gone, func(g *feedback) bool { return g == n })
	f.alter(n, func() { n.deleted = false })
}
