package sandbox

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"syncd/internal/sandbox/kit"
)

// Question is a question as the lists show it.
type Question struct {
	ID      string
	Created time.Time
	// Answered tells in which of the two lists it is.
	Answered bool
	// JSON is the item exactly as GET /api/v1/questions sends it now.
	JSON json.RawMessage
}

// QuestionSpec says what question [World.AddQuestion] makes.
type QuestionSpec struct {
	// ID is its id. Default: a new one.
	ID string
	// Text is what is asked. Default: a phrase.
	Text string
	// NmID is the article. Default: one of the seller's products.
	NmID int
	// Created is createdDate. Default: now. The lists show the question at once, so an earlier one makes a late question.
	Created time.Time
	// Raw is sent in place of the item, whatever it is, until the question changes. Default: the item as rendered.
	Raw json.RawMessage
}

// States of a question (OpenAPI document).
const (
	stateNew      = "suppliersPortalSynch"
	stateAnswered = "wbRu"
	stateRejected = "none"
)

// editWindow: "an answer can be edited once within 60 days".
const editWindow = 60 * 24 * time.Hour

// questionWorld is the questions of one seller. The World's mutex guards it.
type questionWorld struct {
	world    *World
	products []product
	grow     kit.Growth
	r        *rand.Rand // what is asked
	fate     *rand.Rand // when it appears and is answered
	byHand   *rand.Rand // what tests and API calls add

	extended bool
	byID     map[string]*question // also those that the lists do not show yet
	// lists are what GET /questions shows, by creation: not answered and answered.
	lists    [2][]*question
	unviewed int // of those in the lists
}

type question struct {
	id       string
	created  int64 // nanoseconds
	text     string
	reply    string // what the seller will answer, if left to himself
	product  product
	state    string
	answer   *wireAnswer
	answered int64 // when
	edited   bool
	viewed   bool
	warned   bool
	listed   bool
	render   []byte
}

func compareQuestions(a, b *question) int {
	return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.id, b.id))
}

// wireQuestion is an item of GET /api/v1/questions. Its own time is createdDate, its answer's is createDate.
type wireQuestion struct {
	ID             string      `json:"id"`
	Text           string      `json:"text"`
	CreatedDate    string      `json:"createdDate"`
	State          string      `json:"state"`
	Answer         *wireAnswer `json:"answer"`
	ProductDetails wireProduct `json:"productDetails"`
	WasViewed      bool        `json:"wasViewed"`
	IsWarned       bool        `json:"isWarned"`
}

type wireAnswer struct {
	Text       string `json:"text"`
	Editable   bool   `json:"editable"`
	CreateDate string `json:"createDate"`
}

type wireProduct struct {
	ImtID           int    `json:"imtId"`
	NmID            int    `json:"nmId"`
	ProductName     string `json:"productName"`
	SupplierArticle string `json:"supplierArticle"`
	SupplierName    string `json:"supplierName"`
	BrandName       string `json:"brandName"`
	// NewField is what [World.ExtendQuestions] adds.
	NewField string `json:"newField,omitempty"`
}

func newQuestionWorld(w *World, seed uint64, products []product) *questionWorld {
	q := &questionWorld{
		world: w, products: products,
		r:      kit.Stream(seed, "questions "+w.seller.ID),
		fate:   kit.Stream(seed, "fate of questions "+w.seller.ID),
		byHand: kit.Stream(seed, "questions by hand "+w.seller.ID),
		grow:   kit.NewGrowth(kit.Stream(seed, "question growth "+w.seller.ID)),
		byID:   make(map[string]*question),
	}
	times := kit.HistoryTimes(kit.Stream(seed, "question history "+w.seller.ID), w.spec.Questions, w.time.Now, w.spec.Span)
	for _, at := range times {
		q.ask(at)
	}
	return q
}

func (q *questionWorld) growOne() { q.ask(q.grow.Step()) }

// ask lets a buyer ask something, and settles when it appears and when it will be answered.
func (q *questionWorld) ask(at int64) {
	n := q.compose(q.r, at)
	spec := q.world.spec
	late := kit.Lateness(q.fate, spec.LateQuestions, spec.IndexedLateBy)
	unseen := kit.Chance(q.fate, spec.AnsweredUnseen)
	willAnswer := kit.Chance(q.fate, spec.AnswerShare)
	wait := int64(q.fate.ExpFloat64() * float64(spec.AnswerAfter))
	delay := 1 + q.fate.Int64N(int64(time.Minute)) // how long an answer at once takes
	text, state := n.reply, stateAnswered
	if kit.Chance(q.fate, 0.06) {
		text, state = rejection, stateRejected
	}

	shown := at + late
	reply := func(at int64) func() {
		return func() {
			if n.answer == nil { // an API call may have been faster
				q.answer(n, text, state, at)
			}
		}
	}
	switch {
	case unseen:
		shown = max(shown, at+delay)
		q.world.time.After(at+delay/2, reply(at+delay/2))
	case willAnswer && (!q.world.atRest || at+wait <= q.world.time.Now):
		q.world.time.After(at+wait, reply(at+wait))
	}
	q.world.time.After(shown, func() { q.show(n) })
}

func (q *questionWorld) compose(r *rand.Rand, at int64) *question {
	about := kit.Pick(r, askings)
	n := &question{
		id: questionID(r), created: at, text: about.question, reply: about.answer, product: kit.Pick(r, q.products), state: stateNew,
		viewed: kit.Chance(r, 0.3), warned: kit.Chance(r, 0.01),
	}
	q.add(n)
	return n
}

func (q *questionWorld) add(n *question) {
	q.byID[n.id] = n
	q.draw(n)
}

// questionID has 20 characters of [A-Za-z0-9_-], as all ids of questions and feedbacks.
func questionID(r *rand.Rand) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
	id := make([]byte, 20)
	for i := range id {
		id[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(id)
}

// draw renders the item anew. Pages that are being sent keep the old bytes.
func (q *questionWorld) draw(n *question) {
	w := wireQuestion{
		ID: n.id, Text: n.text, CreatedDate: nanoTime(n.created), State: n.state, Answer: n.answer,
		ProductDetails: n.product.wire(), WasViewed: n.viewed, IsWarned: n.warned,
	}
	if q.extended {
		w.ProductDetails.NewField = newFieldValue
	}
	n.render = kit.Render(w)
}

func nanoTime(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }

func (n *question) list() int {
	if n.answer != nil {
		return 1
	}
	return 0
}

// show puts a question in the lists.
func (q *questionWorld) show(n *question) {
	n.listed = true
	q.insert(n)
	if !n.viewed {
		q.unviewed++
	}
	q.note(n)
}

func (q *questionWorld) note(n *question) {
	q.world.note(KindQuestion, n.id, func() []byte { return n.render }, 0)
}

func (q *questionWorld) insert(n *question) {
	l := &q.lists[n.list()]
	i := len(*l)
	if i > 0 && compareQuestions(n, (*l)[i-1]) < 0 {
		i, _ = slices.BinarySearchFunc(*l, n, compareQuestions)
	}
	*l = slices.Insert(*l, i, n)
}

// change applies a change and moves the question to the list where it then belongs.
func (q *questionWorld) change(n *question, apply func()) {
	if n.listed {
		l := &q.lists[n.list()]
		i, _ := slices.BinarySearchFunc(*l, n, compareQuestions)
		*l = slices.Delete(*l, i, i+1)
		if !n.viewed {
			q.unviewed--
		}
	}
	apply()
	q.draw(n)
	if n.listed {
		q.show(n)
	}
}

// answer gives the first answer. Whoever answers has seen the question.
func (q *questionWorld) answer(n *question, text, state string, at int64) {
	q.change(n, func() {
		n.state, n.viewed, n.answered = state, true, at
		// What becomes of `editable` when the 60 days are over is not documented: here it stays as it was at the epoch.
		n.answer = &wireAnswer{Text: text, Editable: q.world.time.Now-at < int64(editWindow), CreateDate: nanoTime(at)}
	})
}

// edit changes an answer, which is allowed once.
func (q *questionWorld) edit(n *question, text, state string, now int64) bool {
	if n.edited || now-n.answered >= int64(editWindow) {
		return false
	}
	q.change(n, func() {
		n.edited, n.state = true, state
		n.answer = &wireAnswer{Text: text, Editable: false, CreateDate: n.answer.CreateDate}
	})
	return true
}

func (q *questionWorld) setViewed(n *question, viewed bool) {
	q.change(n, func() { n.viewed = viewed })
}

// span cuts the questions created in [from, to) out of a list.
func (q *questionWorld) span(list int, from, to int64) []*question {
	l := q.lists[list]
	return l[before(l, from):max(before(l, from), before(l, to))]
}

// before counts the questions created before a moment.
func before(l []*question, at int64) int {
	i, _ := slices.BinarySearchFunc(l, at, func(n *question, at int64) int { return cmp.Or(cmp.Compare(n.created, at), 1) })
	return i
}

// Questions returns everything the two lists show now, by creation.
func (w *World) Questions() []Question {
	w.lock(time.Now())
	defer w.mu.Unlock()
	all := slices.Concat(w.questions.lists[0], w.questions.lists[1])
	slices.SortFunc(all, compareQuestions)
	out := make([]Question, len(all))
	for i, n := range all {
		out[i] = n.view()
	}
	return out
}

func (n *question) view() Question {
	return Question{ID: n.id, Created: time.Unix(0, n.created), Answered: n.answer != nil, JSON: n.render}
}

// AddQuestion puts a question in the list of unanswered ones at once.
func (w *World) AddQuestion(spec QuestionSpec) (Question, error) {
	now := time.Now()
	w.lock(now)
	defer w.mu.Unlock()
	q := w.questions
	if spec.Created.IsZero() {
		spec.Created = now
	}
	n := &question{
		id: cmp.Or(spec.ID, questionID(q.byHand)), created: spec.Created.UnixNano(),
		text: cmp.Or(spec.Text, kit.Pick(q.byHand, askings).question), product: kit.Pick(q.byHand, q.products), state: stateNew,
	}
	if q.byID[n.id] != nil {
		return Question{}, fmt.Errorf("question %s exists", n.id)
	}
	n.product.nmID = cmp.Or(spec.NmID, n.product.nmID)
	q.add(n)
	if spec.Raw != nil {
		n.render = slices.Clone(spec.Raw)
	}
	q.show(n)
	return n.view(), nil
}

// Answer answers a question as the seller would in the portal, or edits its answer without the API's limits.
func (w *World) Answer(id, text string) error {
	return w.alter(id, func(q *questionWorld, n *question, now int64) { q.answer(n, text, stateAnswered, now) })
}

// Unanswer takes a question's answer away, so that it is new again. The API has no method for it.
func (w *World) Unanswer(id string) error {
	return w.alter(id, func(q *questionWorld, n *question, _ int64) {
		q.change(n, func() { n.answer, n.state, n.edited = nil, stateNew, false })
	})
}

// ExtendQuestions is a change of the API: from now on all questions have productDetails.newField.
func (w *World) ExtendQuestions() {
	w.lock(time.Now())
	defer w.mu.Unlock()
	w.questions.extended = true
	for _, n := range w.questions.byID {
		w.questions.draw(n)
		if n.listed {
			w.questions.note(n)
		}
	}
}

func (w *World) alter(id string, do func(q *questionWorld, n *question, now int64)) error {
	now := time.Now()
	w.lock(now)
	defer w.mu.Unlock()
	n := w.questions.byID[id]
	if n == nil {
		return fmt.Errorf("no question %s", id)
	}
	do(w.questions, n, now.UnixNano())
	return nil
}
