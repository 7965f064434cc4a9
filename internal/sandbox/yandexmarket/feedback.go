package yandexmarket

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"syncd/internal/sandbox/kit"
)

// FeedbackSpec says which reviews of its goods a business has, and what becomes of them. Without Every and ChangeEvery
// the reviews are at rest: after the epoch nothing happens to them by itself, except that what waits for moderation appears.
type FeedbackSpec struct {
	// History is how many reviews were written before the epoch. Default: none.
	History int
	// Span is how far they go back. Default: [WorldSpec.Span].
	Span time.Duration
	// Every is the mean time between new ones after the epoch. Default: none come.
	Every time.Duration
	// ChangeEvery is the mean time between changes of those that are there, old ones too: the author edits, the shop reads
	// or answers, somebody comments, a comment is edited, banned, published or deleted, a review is deleted. Default: none.
	ChangeEvery time.Duration
	// ModerateAfter is the mean time until a review, or the shop's comment, has been looked at; of one in ten it is a day
	// and more. The lists show reviews from then on, and comments of the shop before it too. Default: 20 min; negative: at
	// once.
	ModerateAfter time.Duration
	// AnswerShare is the share of reviews that the shop comments on, AnswerAfter the mean time until then. Default: 0.5,
	// 3 h; negative: none.
	AnswerShare float64
	AnswerAfter time.Duration
	// DeletedShown keeps comments that the shop itself has deleted in the lists, as DELETED: the documents except only those
	// deleted by "users or the Market". Default: they vanish too.
	DeletedShown bool
}

const (
	defaultModerateAfter = 20 * time.Minute
	defaultAnswerShare   = 0.5
	defaultAnswerAfter   = 3 * time.Hour
)

func (s FeedbackSpec) withDefaults(span time.Duration) FeedbackSpec {
	s.Span = cmp.Or(s.Span, span)
	s.ModerateAfter = cmp.Or(s.ModerateAfter, defaultModerateAfter)
	s.AnswerShare = cmp.Or(s.AnswerShare, defaultAnswerShare)
	s.AnswerAfter = cmp.Or(s.AnswerAfter, defaultAnswerAfter)
	return s
}

func (s FeedbackSpec) validate() error {
	return errors.Join(
		notNegative("feedback", map[string]int64{
			"history": int64(s.History), "span": int64(s.Span), "every": int64(s.Every), "change every": int64(s.ChangeEvery), "answer after": int64(s.AnswerAfter),
		}),
		shares("feedback", map[string]float64{"answer share": max(0, s.AnswerShare)}),
	)
}

// Statuses of comments and answers (OpenAPI document).
const (
	statusPublished   = "PUBLISHED"
	statusUnmoderated = "UNMODERATED"
	statusBanned      = "BANNED"
	statusDeleted     = "DELETED"
)

// Types of authors (OpenAPI document). Comments on reviews have no VENDOR.
const (
	authorUser     = "USER"
	authorBusiness = "BUSINESS"
	authorVendor   = "VENDOR"
	authorBrand    = "BRAND"
)

// feedbackWorld is the reviews of one business's goods, and their comments. The Business's mutex guards it.
type feedbackWorld struct {
	business *Business
	spec     FeedbackSpec
	atRest   bool
	grow     kit.Growth // new ones
	shift    kit.Growth // changes of those that are there
	r        *rand.Rand // who writes what
	fate     *rand.Rand // when it appears and is answered
	change   *rand.Rand // what shift does
	byHand   *rand.Rand // what tests and API calls add

	byID      map[int64]*feedback
	comments  map[int64]*comment // also those that are gone
	published []*feedback        // what the list shows, in the order of publication
}

type feedback struct {
	id, order   int64
	created     int64 // nanoseconds, whole milliseconds
	published   int64 // when the list first showed it; 0: not yet
	offer       string
	author      string
	said        opinion
	photos      uint8
	videos      uint8
	rating      uint8
	recommended uint8 // 0: not said; 1: no; 2: yes
	paid        int64 // points for the review; 0: none
	need        bool  // needReaction
	deleted     bool
	comments    []*comment // those that the list shows, in the order of publication
	raw         []byte     // sent in place of the review until it changes
}

// opinion is the text of a review. Without any of the three the review is nothing but a rating.
type opinion struct{ advantages, disadvantages, comment string }

type comment struct {
	id     int64
	place  int64 // in the order of publication
	of     *feedback
	parent *comment // nil: it is about the review itself
	by     string   // type of the author
	author string
	text   string
	status string
	listed bool
}

func compareFeedbacks(a, b *feedback) int { return compareTimes(a.published, b.published, a.id, b.id) }

func newFeedbackWorld(b *Business, seed uint64) *feedbackWorld {
	spec := b.spec.World.Feedback.withDefaults(b.spec.World.Span)
	f := &feedbackWorld{
		business: b, spec: spec, atRest: spec.Every == 0 && spec.ChangeEvery == 0,
		r:        kit.Stream(seed, b.purpose("feedbacks")),
		fate:     kit.Stream(seed, b.purpose("fate of feedbacks")),
		change:   kit.Stream(seed, b.purpose("changes of feedbacks")),
		byHand:   kit.Stream(seed, b.purpose("feedbacks by hand")),
		grow:     kit.NewGrowth(kit.Stream(seed, b.purpose("feedback growth"))),
		shift:    kit.NewGrowth(kit.Stream(seed, b.purpose("feedback changes"))),
		byID:     make(map[int64]*feedback, spec.History),
		comments: make(map[int64]*comment),
	}
	for _, at := range kit.HistoryTimes(kit.Stream(seed, b.purpose("feedback history")), spec.History, b.time.Now, spec.Span) {
		f.settle(f.compose(f.r, at))
	}
	b.time.Rhythm(&f.grow, spec.Every, f.growOne)
	b.time.Rhythm(&f.shift, spec.ChangeEvery, f.changeOne)
	return f
}

func (f *feedbackWorld) growOne() { f.settle(f.compose(f.r, f.grow.Step())) }

// compose lets a buyer write something, which nobody sees yet.
func (f *feedbackWorld) compose(r *rand.Rand, at int64) *feedback {
	n := &feedback{
		id: freshID(r, f.byID), order: freshID(r, f.business.orders), created: wholeMillis(at), offer: kit.Pick(r, f.business.products).sku,
		author: newBuyer(r).name, rating: kit.Pick(r, feedbackRatings), recommended: uint8(r.IntN(3)), need: true,
	}
	n.said = kit.Pick(r, opinions[n.rating-1])
	if kit.Chance(r, 0.2) {
		n.said = opinion{}
	}
	if kit.Chance(r, 0.05) { // the identifiers are optional
		n.order = 0
	}
	if kit.Chance(r, 0.05) {
		n.offer = ""
	}
	if kit.Chance(r, 0.3) {
		n.photos = uint8(1 + r.IntN(4))
	}
	if kit.Chance(r, 0.05) {
		n.videos = 1
	}
	if kit.Chance(r, 0.25) {
		n.paid = int64(50 * (1 + r.IntN(6)))
	}
	f.byID[n.id] = n
	return n
}

// settle decides when a review appears and when the shop answers it.
func (f *feedbackWorld) settle(n *feedback) {
	shown := n.created + moderation(f.fate, f.spec.ModerateAfter)
	answers := kit.Chance(f.fate, f.spec.AnswerShare)
	answered := shown + 1 + int64(f.fate.ExpFloat64()*float64(f.spec.AnswerAfter))
	f.business.time.After(shown, func() { f.publish(n, shown) })
	if answers && (!f.atRest || answered <= f.business.time.Now) {
		f.business.time.After(answered, func() {
			if n.visible() {
				f.answer(n, nil, kit.Pick(f.fate, shopReplies), answered, f.fate)
			}
		})
	}
}

// moderation is how long the Market looks at a text: minutes as a rule, a day and more for one in ten. It always draws
// as often.
func moderation(r *rand.Rand, mean time.Duration) int64 {
	wait, slow, long := r.ExpFloat64(), kit.Chance(r, 0.1), 1+r.ExpFloat64()
	switch {
	case mean < 0:
		return 0
	case slow:
		return int64(long * 72 * float64(mean)) // of 20 min: a day
	}
	return int64(wait * float64(mean))
}

// visible says whether the list shows a review.
func (n *feedback) visible() bool { return n.published != 0 && !n.deleted }

// publish puts a review in the list. Of two that are published in one nanosecond the smaller id comes first.
func (f *feedbackWorld) publish(n *feedback, at int64) {
	n.published = at
	i, _ := slices.BinarySearchFunc(f.published, n, compareFeedbacks)
	f.published = slices.Insert(f.published, i, n)
	f.note(n)
}

// alter applies a change that the author or the shop makes to a review.
func (f *feedbackWorld) alter(n *feedback, apply func()) {
	apply()
	n.raw = nil
	f.note(n)
}

func (f *feedbackWorld) note(n *feedback) {
	if !n.visible() {
		f.business.note(KindFeedback, itoa(n.id), nil)
		return
	}
	f.business.note(KindFeedback, itoa(n.id), func() []byte { return f.render(n) })
}

func (f *feedbackWorld) noteComment(c *comment) {
	if !c.listed || !c.of.visible() {
		f.business.note(KindFeedbackComment, itoa(c.id), nil)
		return
	}
	f.business.note(KindFeedbackComment, itoa(c.id), func() []byte { return kit.Render(c.wire()) })
}

// rewrite lets the author edit a review: the shop has to react anew, and nothing else tells.
func (f *feedbackWorld) rewrite(n *feedback, r *rand.Rand) {
	f.alter(n, func() {
		n.rating = kit.Pick(r, feedbackRatings)
		said := kit.Pick(r, opinions[n.rating-1])
		if said == n.said {
			said.comment += kit.Pick(r, afterthoughts)
		}
		n.said, n.need = said, true
	})
}

// remove deletes a review, and with it all its comments.
func (f *feedbackWorld) remove(n *feedback) {
	n.deleted = true
	if i, ok := slices.BinarySearchFunc(f.published, n, compareFeedbacks); ok {
		f.published = slices.Delete(f.published, i, i+1)
	}
	f.note(n)
	for _, c := range n.comments {
		f.noteComment(c)
	}
}

// answer is a comment of the shop. It is shown at once, unmoderated; to comment is to react.
func (f *feedbackWorld) answer(n *feedback, parent *comment, text string, at int64, r *rand.Rand) *comment {
	c := f.comment(n, parent, authorBusiness, f.business.Name(), text, statusUnmoderated, r)
	if n.need {
		f.alter(n, func() { n.need = false })
	}
	f.moderate(c, at, r)
	return c
}

// moderate lets the Market look at a comment of the shop, at rest only as far as history goes.
func (f *feedbackWorld) moderate(c *comment, at int64, r *rand.Rand) {
	verdict, text := statusPublished, c.text
	if kit.Chance(r, 0.05) {
		verdict = statusBanned
	}
	at += moderation(r, f.spec.ModerateAfter)
	if f.atRest && r == f.fate && at > f.business.time.Now {
		return
	}
	f.business.time.After(at, func() {
		if c.listed && c.status == statusUnmoderated && c.text == text { // an edit is looked at anew
			f.alterComment(c, func() { c.status = verdict })
		}
	})
}

// comment adds a comment to those that the list shows. Nested ones do not count in commentsCount.
func (f *feedbackWorld) comment(n *feedback, parent *comment, by, author, text, status string, r *rand.Rand) *comment {
	c := &comment{
		id: freshID(r, f.comments), place: int64(len(f.comments)), of: n, parent: parent, by: by, author: author, text: text, status: status, listed: true,
	}
	f.comments[c.id] = c
	n.comments = append(n.comments, c)
	f.noteComment(c)
	if parent == nil {
		f.alter(n, func() {})
	}
	return c
}

func (f *feedbackWorld) alterComment(c *comment, apply func()) {
	apply()
	f.noteComment(c)
}

// drop takes a comment and the comments on it out of the list.
func (f *feedbackWorld) drop(c *comment) {
	c.listed, c.status = false, statusDeleted
	c.of.comments = slices.DeleteFunc(c.of.comments, func(o *comment) bool { return o == c })
	f.noteComment(c)
	for _, o := range slices.Clone(c.of.comments) {
		if o.parent == c {
			f.drop(o)
		}
	}
	if c.parent == nil {
		f.alter(c.of, func() {})
	}
}

// recentFeedbacks is how many reviews, counted from the newest, most of what happens is about.
const recentFeedbacks = 200

// changeOne lets something happen to a review that is there. What does not apply to it becomes a look at it by the shop.
func (f *feedbackWorld) changeOne() {
	at := f.shift.Step()
	kind, old, place, which := f.change.IntN(16), kit.Chance(f.change, 0.3), f.change.Float64(), f.change.Float64()
	among := f.published
	if !old {
		among = among[max(0, len(among)-recentFeedbacks):]
	}
	if len(among) == 0 {
		return
	}
	n := among[int(place*float64(len(among)))]
	var c *comment
	if len(n.comments) > 0 {
		c = n.comments[int(which*float64(len(n.comments)))]
	}
	switch r := f.change; {
	case kind < 3:
		f.rewrite(n, r)
	case kind < 5:
		f.comment(n, nil, authorUser, kit.Pick(r, buyerNames), kit.Pick(r, buyerComments), statusPublished, r)
	case kind < 7:
		f.answer(n, nil, kit.Pick(r, shopReplies), at, r)
	case kind == 7 && place < 0.3:
		f.remove(n)
	case kind > 7 && kind < 14 && c != nil:
		f.changeComment(c, kind-8, at)
	case n.need:
		f.alter(n, func() { n.need = false })
	}
}

// changeComment is what happens to comments.
func (f *feedbackWorld) changeComment(c *comment, kind int, at int64) {
	r := f.change
	switch {
	case c.status == statusDeleted:
	case kind < 2: // a nested one, which commentsCount does not count
		f.comment(c.of, c, authorUser, kit.Pick(r, buyerNames), kit.Pick(r, buyerComments), statusPublished, r)
	case kind == 2 && kit.Chance(r, 0.3):
		f.comment(c.of, c, authorBrand, kit.Pick(r, brandNames), kit.Pick(r, shopReplies), statusPublished, r)
	case kind == 2:
		f.answer(c.of, c, kit.Pick(r, shopReplies), at, r)
	case kind == 3 && c.by == authorBusiness:
		f.edit(c, kit.Pick(r, shopReplies)+kit.Pick(r, afterthoughts), at, r)
	case kind == 3:
		f.alterComment(c, func() { c.text = kit.Pick(r, buyerComments) + kit.Pick(r, afterthoughts) })
	case kind == 4 && c.status == statusPublished:
		f.alterComment(c, func() { c.status = statusBanned })
	case kind == 4 && c.status == statusBanned:
		f.alterComment(c, func() { c.status = statusPublished })
	case c.by == authorBusiness:
		f.withdraw(c)
	default:
		f.drop(c)
	}
}

// edit changes the text of a comment of the shop, which is looked at again.
func (f *feedbackWorld) edit(c *comment, text string, at int64, r *rand.Rand) {
	f.alterComment(c, func() { c.text, c.status = text, statusUnmoderated })
	f.moderate(c, at, r)
}

// withdraw deletes a comment of the shop.
func (f *feedbackWorld) withdraw(c *comment) {
	if f.spec.DeletedShown {
		f.alterComment(c, func() { c.status = statusDeleted })
		return
	}
	f.drop(c)
}

// freshID draws an id that nothing in taken has. That ids rise with time is not documented, and here they do not.
func freshID[T any](r *rand.Rand, taken map[int64]T) int64 {
	for {
		id := 100_000_000 + r.Int64N(900_000_000)
		if _, ok := taken[id]; !ok {
			return id
		}
	}
}

// compareTimes orders by time, then by id.
func compareTimes(at, bt, aid, bid int64) int {
	return cmp.Or(cmp.Compare(at, bt), cmp.Compare(aid, bid))
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// notNegative and shares check the fields of a part of the world.
func notNegative(part string, fields map[string]int64) error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if fields[name] < 0 {
			problems = append(problems, fmt.Errorf("%s: %s is negative", part, name))
		}
	}
	return errors.Join(problems...)
}

func shares(part string, fields map[string]float64) error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if s := fields[name]; !(s >= 0 && s <= 1) {
			problems = append(problems, fmt.Errorf("%s: %s: %v is no share from 0 to 1", part, name, s))
		}
	}
	return errors.Join(problems...)
}

func wholeMillis(ns int64) int64 { return ns - ns%int64(time.Millisecond) }
