package yandexmarket

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"syncd/internal/sandbox/kit"
)

// QuestionSpec says which questions about its goods a business is asked, and what becomes of them. Without Every and
// ChangeEvery they are at rest: after the epoch nothing happens to them by itself, except that late ones appear.
type QuestionSpec struct {
	// History is how many questions were asked before the epoch. Default: none.
	History int
	// Span is how far they go back. Default: [WorldSpec.Span].
	Span time.Duration
	// Every is the mean time between new ones after the epoch. Default: none come.
	Every time.Duration
	// ChangeEvery is the mean time between changes of those that are there, old ones too: an answer or a comment comes, is
	// edited, banned, published or deleted, somebody votes, a question is deleted. Nothing but votes of the question itself
	// shows in the list of questions. Default: none.
	ChangeEvery time.Duration
	// Late is the share that appears only up to LateBy after the creation. Default: none.
	Late   float64
	LateBy time.Duration
	// AnswerShare is the share that somebody answers, AnswerAfter the mean time until then. Default: 0.7, 3 h; negative: none.
	AnswerShare float64
	AnswerAfter time.Duration
	// ModerateAfter is the mean time until an answer or comment of the shop has been looked at; until then it is shown as
	// UNMODERATED. Default: 20 min; negative: at once.
	ModerateAfter time.Duration
	// DeletedShown keeps answers and comments that the shop itself has deleted in the lists, as DELETED. Default: they vanish.
	DeletedShown bool
}

const defaultQuestionAnswerShare = 0.7

func (s QuestionSpec) withDefaults(span time.Duration) QuestionSpec {
	s.Span = cmp.Or(s.Span, span)
	s.AnswerShare = cmp.Or(s.AnswerShare, defaultQuestionAnswerShare)
	s.AnswerAfter = cmp.Or(s.AnswerAfter, defaultAnswerAfter)
	s.ModerateAfter = cmp.Or(s.ModerateAfter, defaultModerateAfter)
	return s
}

func (s QuestionSpec) validate() error {
	return errors.Join(
		notNegative("questions", map[string]int64{
			"history": int64(s.History), "span": int64(s.Span), "every": int64(s.Every), "change every": int64(s.ChangeEvery),
			"late by": int64(s.LateBy), "answer after": int64(s.AnswerAfter),
		}),
		shares("questions", map[string]float64{"late": s.Late, "answer share": max(0, s.AnswerShare)}),
	)
}

// questionWorld is the questions about one business's goods, with answers and comments. The Business's mutex guards it.
type questionWorld struct {
	business *Business
	spec     QuestionSpec
	atRest   bool
	grow     kit.Growth
	shift    kit.Growth
	r        *rand.Rand // what is asked
	fate     *rand.Rand // when it appears and is answered
	change   *rand.Rand // what shift does
	byHand   *rand.Rand // what tests and API calls add

	byID    map[int64]*question
	answers map[int64]*reply // also those that are gone
	remarks map[int64]*remark
	listed  []*question // what the list shows, by creation
}

type question struct {
	id      int64
	created int64 // nanoseconds, whole milliseconds
	offer   product
	bare    bool // without categoryId, which is optional
	said    said
	listed  bool
	answers []*reply // those that are shown, by creation
	raw     []byte   // sent in place of the question until it changes
}

// said is a text that somebody has published, and what others think of it.
type said struct {
	by, author, text string // by: type of the author
	likes, dislikes  int64
}

// reply is an answer to a question.
type reply struct {
	id, created int64
	of          *question
	said        said
	status      string
	listed      bool
	remarks     []*remark // those that are shown, by creation
}

// remark is a comment on an answer.
type remark struct {
	id, created int64
	of          *reply
	parent      *remark // nil: it is about the answer itself
	said        said
	status      string
	listed      bool
}

// maxRemarks: comments are embedded in their answer, not paged (OpenAPI document: at most 100).
const maxRemarks = 100

func compareQuestions(a, b *question) int { return compareTimes(a.created, b.created, a.id, b.id) }

func newQuestionWorld(b *Business, seed uint64) *questionWorld {
	spec := b.spec.World.Questions.withDefaults(b.spec.World.Span)
	q := &questionWorld{
		business: b, spec: spec, atRest: spec.Every == 0 && spec.ChangeEvery == 0,
		r:       kit.Stream(seed, b.purpose("questions")),
		fate:    kit.Stream(seed, b.purpose("fate of questions")),
		change:  kit.Stream(seed, b.purpose("changes of questions")),
		byHand:  kit.Stream(seed, b.purpose("questions by hand")),
		grow:    kit.NewGrowth(kit.Stream(seed, b.purpose("question growth"))),
		shift:   kit.NewGrowth(kit.Stream(seed, b.purpose("question changes"))),
		byID:    make(map[int64]*question, spec.History),
		answers: make(map[int64]*reply),
		remarks: make(map[int64]*remark),
	}
	for _, at := range kit.HistoryTimes(kit.Stream(seed, b.purpose("question history")), spec.History, b.time.Now, spec.Span) {
		q.settle(q.compose(q.r, at))
	}
	b.time.Rhythm(&q.grow, spec.Every, q.growOne)
	b.time.Rhythm(&q.shift, spec.ChangeEvery, q.changeOne)
	return q
}

func (q *questionWorld) growOne() { q.settle(q.compose(q.r, q.grow.Step())) }

// compose lets a buyer ask something, which nobody sees yet.
func (q *questionWorld) compose(r *rand.Rand, at int64) *question {
	n := &question{
		id: freshID(r, q.byID), created: wholeMillis(at), offer: kit.Pick(r, q.business.products), bare: kit.Chance(r, 0.1),
		said: said{by: authorUser, author: newBuyer(r).name, text: kit.Pick(r, askings)},
	}
	q.byID[n.id] = n
	return n
}

// settle decides when a question appears and when it is answered.
func (q *questionWorld) settle(n *question) {
	shown := n.created + kit.Lateness(q.fate, q.spec.Late, q.spec.LateBy)
	answers, shop := kit.Chance(q.fate, q.spec.AnswerShare), kit.Chance(q.fate, 0.8)
	answered := n.created + 1 + int64(q.fate.ExpFloat64()*float64(q.spec.AnswerAfter))
	q.business.time.After(shown, func() { q.show(n) })
	if !answers || (q.atRest && answered > q.business.time.Now) {
		return
	}
	q.business.time.After(answered, func() {
		s := said{by: authorUser, author: kit.Pick(q.fate, buyerNames), text: kit.Pick(q.fate, buyerAnswers)}
		if shop {
			s = q.shop(kit.Pick(q.fate, shopAnswers))
		}
		q.answer(n, s, answered, q.fate)
	})
}

// shop is a text of the shop.
func (q *questionWorld) shop(text string) said {
	return said{by: authorBusiness, author: q.business.Name(), text: text}
}

// show puts a question in the list.
func (q *questionWorld) show(n *question) {
	n.listed = true
	i, _ := slices.BinarySearchFunc(q.listed, n, compareQuestions)
	q.listed = slices.Insert(q.listed, i, n)
	q.note(n)
	for _, a := range n.answers {
		q.noteAnswer(a)
	}
}

func (q *questionWorld) note(n *question) {
	if !n.listed {
		q.business.note(KindQuestion, itoa(n.id), nil)
		return
	}
	q.business.note(KindQuestion, itoa(n.id), func() []byte { return q.render(n) })
}

func (q *questionWorld) noteAnswer(a *reply) {
	if !a.listed || !a.of.listed {
		q.business.note(KindAnswer, itoa(a.id), nil)
		return
	}
	q.business.note(KindAnswer, itoa(a.id), func() []byte { return q.renderAnswer(a) })
}

// needsAnswer: the shop has not answered. Whether another buyer's answer is enough is not documented.
func (n *question) needsAnswer() bool {
	return !slices.ContainsFunc(n.answers, func(a *reply) bool { return a.said.by == authorBusiness && a.status != statusDeleted })
}

// answer adds an answer, which the list of questions does not show in any way. That of the shop is shown unmoderated.
func (q *questionWorld) answer(n *question, s said, at int64, r *rand.Rand) *reply {
	a := &reply{id: freshID(r, q.answers), created: wholeMillis(at), of: n, said: s, status: statusPublished, listed: true}
	if s.by == authorBusiness {
		a.status = statusUnmoderated
	}
	q.answers[a.id] = a
	n.answers = append(n.answers, a)
	q.noteAnswer(a)
	q.moderate(a, &a.said, &a.status, at, r)
	return a
}

// remark adds a comment on an answer.
func (q *questionWorld) remark(a *reply, parent *remark, s said, at int64, r *rand.Rand) *remark {
	m := &remark{
		id: freshID(r, q.remarks), created: wholeMillis(at), of: a, parent: parent, said: s, status: statusPublished, listed: true,
	}
	if s.by == authorBusiness {
		m.status = statusUnmoderated
	}
	q.remarks[m.id] = m
	a.remarks = append(a.remarks, m)
	q.noteAnswer(a)
	q.moderate(a, &m.said, &m.status, at, r)
	return m
}

// moderate lets the Market look at a text of the shop, which is in a: at rest only as far as history goes.
func (q *questionWorld) moderate(a *reply, s *said, status *string, at int64, r *rand.Rand) {
	if *status != statusUnmoderated {
		return
	}
	verdict, text := statusPublished, s.text
	if kit.Chance(r, 0.05) {
		verdict = statusBanned
	}
	at += moderation(r, q.spec.ModerateAfter)
	if q.atRest && r == q.fate && at > q.business.time.Now {
		return
	}
	q.business.time.After(at, func() {
		if *status == statusUnmoderated && s.text == text { // an edit is looked at anew
			*status = verdict
			q.noteAnswer(a)
		}
	})
}

// remove deletes a question with all that was said about it.
func (q *questionWorld) remove(n *question) {
	n.listed = false
	if i, ok := slices.BinarySearchFunc(q.listed, n, compareQuestions); ok {
		q.listed = slices.Delete(q.listed, i, i+1)
	}
	q.note(n)
	for _, a := range n.answers {
		q.noteAnswer(a)
	}
}

// edit changes an answer of the shop, or a comment in it, which is looked at again.
func (q *questionWorld) edit(a *reply, s *said, status *string, text string, at int64, r *rand.Rand) {
	s.text, *status = text, statusUnmoderated
	q.noteAnswer(a)
	q.moderate(a, s, status, at, r)
}

// dropAnswer deletes an answer. withdrawn: it was the shop itself.
func (q *questionWorld) dropAnswer(a *reply, withdrawn bool) {
	a.status = statusDeleted
	if !withdrawn || !q.spec.DeletedShown {
		a.listed = false
		a.of.answers = slices.DeleteFunc(a.of.answers, func(o *reply) bool { return o == a })
	}
	q.noteAnswer(a)
}

// dropRemark deletes a comment, and those on it. withdrawn: it was the shop itself.
func (q *questionWorld) dropRemark(m *remark, withdrawn bool) {
	m.status = statusDeleted
	if !withdrawn || !q.spec.DeletedShown {
		m.listed = false
		m.of.remarks = slices.DeleteFunc(m.of.remarks, func(o *remark) bool {
			gone := o == m || o.parent != nil && !o.parent.listed
			o.listed = !gone
			return gone
		})
	}
	q.noteAnswer(m.of)
}

// recentQuestions is how many questions, counted from the newest, most of what happens is about.
const recentQuestions = 100

// changeOne lets something happen to a question that is there. What does not apply to it becomes a vote for it.
func (q *questionWorld) changeOne() {
	at := q.shift.Step()
	r := q.change
	kind, old, place, which := r.IntN(16), kit.Chance(r, 0.4), r.Float64(), r.Float64()
	among := q.listed
	if !old {
		among = among[max(0, len(among)-recentQuestions):]
	}
	if len(among) == 0 {
		return
	}
	n := among[int(place*float64(len(among)))]
	var a *reply
	if len(n.answers) > 0 {
		a = n.answers[int(which*float64(len(n.answers)))]
	}
	switch {
	case kind < 2:
		q.answer(n, q.shop(kit.Pick(r, shopAnswers)), at, r)
	case kind < 4:
		q.answer(n, said{by: authorUser, author: kit.Pick(r, buyerNames), text: kit.Pick(r, buyerAnswers)}, at, r)
	case kind == 4:
		q.answer(n, said{by: authorVendor, author: kit.Pick(r, brandNames), text: kit.Pick(r, shopAnswers)}, at, r)
	case kind == 5 && place < 0.3:
		q.remove(n)
	case kind < 10 || a == nil || a.status == statusDeleted:
		n.said.vote(r)
		n.raw = nil
		q.note(n)
	default:
		q.changeAnswer(a, kind-10, at)
	}
}

func (s *said) vote(r *rand.Rand) {
	if kit.Chance(r, 0.7) {
		s.likes++
		return
	}
	s.dislikes++
}

// changeAnswer is what happens to answers and to the comments on them.
func (q *questionWorld) changeAnswer(a *reply, kind int, at int64) {
	r := q.change
	switch {
	case kind < 2 && len(a.remarks) < maxRemarks:
		var parent *remark
		if len(a.remarks) > 0 && kit.Chance(r, 0.4) {
			parent = kit.Pick(r, a.remarks)
		}
		s := said{by: authorUser, author: kit.Pick(r, buyerNames), text: kit.Pick(r, buyerComments)}
		if kit.Chance(r, 0.3) {
			s = q.shop(kit.Pick(r, shopReplies))
		}
		q.remark(a, parent, s, at, r)
	case kind == 2 && a.said.by == authorBusiness:
		q.edit(a, &a.said, &a.status, kit.Pick(r, shopAnswers)+kit.Pick(r, afterthoughts), at, r)
	case kind == 3 && a.status != statusUnmoderated:
		a.status = map[string]string{statusPublished: statusBanned, statusBanned: statusPublished}[a.status]
		q.noteAnswer(a)
	case kind == 4 && len(a.remarks) > 0:
		m := kit.Pick(r, a.remarks)
		q.dropRemark(m, m.said.by == authorBusiness)
	case kind == 4:
		q.dropAnswer(a, a.said.by == authorBusiness)
	default:
		a.said.vote(r)
		q.noteAnswer(a)
	}
}
