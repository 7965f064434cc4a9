package yandexmarket

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"syncd/internal/sandbox/kit"
)

// Question is a question as the list shows it.
type Question struct {
	ID      int64
	Created time.Time
	// NeedAnswer is what the filter of that name goes by.
	NeedAnswer bool
	// JSON is the item exactly as goods-questions sends it now.
	JSON json.RawMessage
}

// Answer is an answer to a question as the list shows it.
type Answer struct {
	ID, QuestionID int64
	Created        time.Time
	// Comments are the ids of the comments in it.
	Comments []int64
	// JSON is the item exactly as goods-questions/answers sends it now.
	JSON json.RawMessage
}

// NewQuestion says what question [Business.AddQuestion] makes.
type NewQuestion struct {
	// ID is its id. Default: a new one.
	ID int64
	// Created is createdAt. Default: now. The list shows the question at once, so an earlier one makes a late question.
	Created time.Time
	// Text is what is asked. Default: a phrase.
	Text string
	// Raw is sent in place of the item, whatever it is, until the question changes. Default: the item as rendered.
	Raw json.RawMessage
}

// Questions returns everything that the list shows now, whatever the dates, by creation.
func (b *Business) Questions() []Question {
	b.lock(time.Now())
	defer b.mu.Unlock()
	out := make([]Question, len(b.questions.listed))
	for i, n := range b.questions.listed {
		out[i] = b.questions.view(n)
	}
	return out
}

// Answers returns the answers to all questions that the list shows now, by creation of the question and then of the answer.
func (b *Business) Answers() []Answer {
	b.lock(time.Now())
	defer b.mu.Unlock()
	var out []Answer
	for _, n := range b.questions.listed {
		for _, a := range n.answers {
			out = append(out, b.questions.viewAnswer(a))
		}
	}
	return out
}

func (q *questionWorld) view(n *question) Question {
	return Question{ID: n.id, Created: time.Unix(0, n.created), NeedAnswer: n.needsAnswer(), JSON: q.render(n)}
}

func (q *questionWorld) viewAnswer(a *reply) Answer {
	v := Answer{ID: a.id, QuestionID: a.of.id, Created: time.Unix(0, a.created), JSON: q.renderAnswer(a)}
	for _, m := range a.remarks {
		v.Comments = append(v.Comments, m.id)
	}
	return v
}

// AddQuestion puts a question in the list at once.
func (b *Business) AddQuestion(spec NewQuestion) (Question, error) {
	now := time.Now()
	b.lock(now)
	defer b.mu.Unlock()
	q := b.questions
	if spec.Created.IsZero() {
		spec.Created = now
	}
	if q.byID[spec.ID] != nil {
		return Question{}, fmt.Errorf("question %d exists", spec.ID)
	}
	n := q.compose(q.byHand, spec.Created.UnixNano())
	if spec.ID != 0 {
		delete(q.byID, n.id)
		n.id = spec.ID
		q.byID[n.id] = n
	}
	n.said.text = cmp.Or(spec.Text, n.said.text)
	n.raw = slices.Clone(spec.Raw)
	q.show(n)
	return q.view(n), nil
}

// DeleteQuestion deletes a question with its answers.
func (b *Business) DeleteQuestion(id int64) error {
	return b.onQuestion(id, func(q *questionWorld, n *question) { q.remove(n) })
}

// VoteQuestion likes a question.
func (b *Business) VoteQuestion(id int64) error {
	return b.onQuestion(id, func(q *questionWorld, n *question) {
		n.said.likes++
		n.raw = nil
		q.note(n)
	})
}

func (b *Business) onQuestion(id int64, do func(*questionWorld, *question)) error {
	b.lock(time.Now())
	defer b.mu.Unlock()
	n := b.questions.byID[id]
	if n == nil || !n.listed {
		return fmt.Errorf("no question %d", id)
	}
	do(b.questions, n)
	return nil
}

// by is a text as the spec wants it.
func (q *questionWorld) by(spec NewComment, phrases []string) said {
	s := said{by: cmp.Or(spec.By, authorUser), author: newBuyer(q.byHand).name, text: cmp.Or(spec.Text, kit.Pick(q.byHand, phrases))}
	if s.by == authorBusiness {
		s = q.shop(s.text)
	}
	return s
}

// AddAnswer answers a question.
func (b *Business) AddAnswer(spec NewComment) (Answer, error) {
	now := time.Now()
	b.lock(now)
	defer b.mu.Unlock()
	q, n := b.questions, b.questions.byID[spec.To]
	if n == nil || !n.listed {
		return Answer{}, fmt.Errorf("no question %d", spec.To)
	}
	return q.viewAnswer(q.answer(n, q.by(spec, buyerAnswers), now.UnixNano(), q.byHand)), nil
}

// AddAnswerComment comments on an answer, and returns the id of the comment.
func (b *Business) AddAnswerComment(spec NewComment) (int64, error) {
	now := time.Now()
	b.lock(now)
	defer b.mu.Unlock()
	q, a := b.questions, b.questions.answers[spec.To]
	if a == nil || !a.listed || !a.of.listed {
		return 0, fmt.Errorf("no answer %d", spec.To)
	}
	var parent *remark
	if spec.Parent != 0 {
		if parent = q.remarks[spec.Parent]; parent == nil || !parent.listed || parent.of != a {
			return 0, fmt.Errorf("no comment %d on answer %d", spec.Parent, spec.To)
		}
	}
	if len(a.remarks) >= maxRemarks {
		return 0, fmt.Errorf("answer %d has %d comments", spec.To, maxRemarks)
	}
	return q.remark(a, parent, q.by(spec, buyerComments), now.UnixNano(), q.byHand).id, nil
}

// EditAnswer changes the text of an answer, by whomever it is.
func (b *Business) EditAnswer(id int64, text string) error {
	return b.onAnswer(id, func(q *questionWorld, a *reply) {
		a.said.text = text
		q.noteAnswer(a)
	})
}

// SetAnswerStatus changes the status of an answer, as moderation does.
func (b *Business) SetAnswerStatus(id int64, status string) error {
	return b.onAnswer(id, func(q *questionWorld, a *reply) {
		a.status = status
		q.noteAnswer(a)
	})
}

// VoteAnswer likes an answer.
func (b *Business) VoteAnswer(id int64) error {
	return b.onAnswer(id, func(q *questionWorld, a *reply) {
		a.said.likes++
		q.noteAnswer(a)
	})
}

// DeleteAnswer takes an answer with its comments out of the list.
func (b *Business) DeleteAnswer(id int64) error {
	return b.onAnswer(id, func(q *questionWorld, a *reply) { q.dropAnswer(a, false) })
}

func (b *Business) onAnswer(id int64, do func(*questionWorld, *reply)) error {
	b.lock(time.Now())
	defer b.mu.Unlock()
	a := b.questions.answers[id]
	if a == nil || !a.listed || !a.of.listed {
		return fmt.Errorf("no answer %d", id)
	}
	do(b.questions, a)
	return nil
}
