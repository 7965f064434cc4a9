package yandexmarket

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"syncd/internal/sandbox/kit"
)

// Feedback is a review as the list shows it.
type Feedback struct {
	ID                 int64
	Created, Published time.Time
	NeedReaction       bool
	// JSON is the item exactly as goods-feedback sends it now.
	JSON json.RawMessage
}

// FeedbackComment is a comment on a review as the list shows it.
type FeedbackComment struct {
	ID, FeedbackID int64
	// ParentID is the comment that it is about; 0: it is about the review itself, and counts in commentsCount.
	ParentID int64
	// JSON is the item exactly as goods-feedback/comments sends it now.
	JSON json.RawMessage
}

// NewFeedback says what review [Business.AddFeedback] makes.
type NewFeedback struct {
	// ID is its id. Default: a new one.
	ID int64
	// Created is createdAt. Default: now. The list shows the review at once, so an earlier one makes a late review.
	Created time.Time
	// Rating is from 1 to 5. Default: 5.
	Rating int
	// Text is its comment. Default: a phrase.
	Text string
	// OfferID is the product. Default: one of the business'.
	OfferID string
	// Raw is sent in place of the item, whatever it is, until the review changes. Default: the item as rendered.
	Raw json.RawMessage
}

// NewComment says what comment or answer is made, by [Business.AddFeedbackComment], [Business.AddAnswer] and
// [Business.AddAnswerComment].
type NewComment struct {
	// To is the review, the question or the answer that it is about.
	To int64
	// Parent is the comment that it is about. Default: none.
	Parent int64
	// By is the type of its author. Default: USER. Those of BUSINESS are shown as UNMODERATED.
	By string
	// Text is what it says. Default: a phrase.
	Text string
}

// Feedbacks returns everything that the list shows now, whatever the dates, in the order of publication.
func (b *Business) Feedbacks() []Feedback {
	b.lock(time.Now())
	defer b.mu.Unlock()
	out := make([]Feedback, len(b.feedback.published))
	for i, n := range b.feedback.published {
		out[i] = b.feedback.view(n)
	}
	return out
}

// FeedbackComments returns the comments of all reviews that the list shows now, in the order of publication.
func (b *Business) FeedbackComments() []FeedbackComment {
	b.lock(time.Now())
	defer b.mu.Unlock()
	var out []FeedbackComment
	for _, n := range b.feedback.published {
		for _, c := range n.comments {
			out = append(out, c.view())
		}
	}
	slices.SortFunc(out, func(x, y FeedbackComment) int {
		return cmp.Compare(b.feedback.comments[x.ID].place, b.feedback.comments[y.ID].place)
	})
	return out
}

func (f *feedbackWorld) view(n *feedback) Feedback {
	return Feedback{
		ID: n.id, Created: time.Unix(0, n.created), Published: time.Unix(0, n.published), NeedReaction: n.need, JSON: f.render(n),
	}
}

func (c *comment) view() FeedbackComment {
	w := c.wire()
	return FeedbackComment{ID: c.id, FeedbackID: c.of.id, ParentID: w.ParentID, JSON: kit.Render(w)}
}

// AddFeedback puts a review in the list at once.
func (b *Business) AddFeedback(spec NewFeedback) (Feedback, error) {
	now := time.Now()
	b.lock(now)
	defer b.mu.Unlock()
	f := b.feedback
	if spec.Created.IsZero() {
		spec.Created = now
	}
	if f.byID[spec.ID] != nil {
		return Feedback{}, fmt.Errorf("feedback %d exists", spec.ID)
	}
	n := f.compose(f.byHand, spec.Created.UnixNano())
	if spec.ID != 0 {
		delete(f.byID, n.id)
		n.id = spec.ID
		f.byID[n.id] = n
	}
	n.rating = uint8(cmp.Or(spec.Rating, 5))
	n.offer = cmp.Or(spec.OfferID, n.offer)
	if spec.Text != "" {
		n.said = opinion{comment: spec.Text}
	}
	n.raw = slices.Clone(spec.Raw)
	f.publish(n, now.UnixNano())
	return f.view(n), nil
}

// RewriteFeedback lets the author edit a review, so that the shop has to react anew.
func (b *Business) RewriteFeedback(id int64) error {
	return b.onFeedback(id, func(f *feedbackWorld, n *feedback) { f.rewrite(n, f.byHand) })
}

// ReadFeedback lets the shop read a review in the cabinet, which is a reaction.
func (b *Business) ReadFeedback(id int64) error {
	return b.onFeedback(id, func(f *feedbackWorld, n *feedback) { f.alter(n, func() { n.need = false }) })
}

// DeleteFeedback deletes a review with its comments.
func (b *Business) DeleteFeedback(id int64) error {
	return b.onFeedback(id, func(f *feedbackWorld, n *feedback) { f.remove(n) })
}

func (b *Business) onFeedback(id int64, do func(*feedbackWorld, *feedback)) error {
	b.lock(time.Now())
	defer b.mu.Unlock()
	n := b.feedback.byID[id]
	if n == nil || !n.visible() {
		return fmt.Errorf("no feedback %d", id)
	}
	do(b.feedback, n)
	return nil
}

// AddFeedbackComment comments on a review.
func (b *Business) AddFeedbackComment(spec NewComment) (FeedbackComment, error) {
	now := time.Now()
	b.lock(now)
	defer b.mu.Unlock()
	f, n := b.feedback, b.feedback.byID[spec.To]
	if n == nil || !n.visible() {
		return FeedbackComment{}, fmt.Errorf("no feedback %d", spec.To)
	}
	var parent *comment
	if spec.Parent != 0 {
		if parent = f.comments[spec.Parent]; parent == nil || !parent.listed || parent.of != n {
			return FeedbackComment{}, fmt.Errorf("no comment %d on feedback %d", spec.Parent, spec.To)
		}
	}
	text := cmp.Or(spec.Text, kit.Pick(f.byHand, buyerComments))
	if spec.By == authorBusiness {
		return f.answer(n, parent, text, now.UnixNano(), f.byHand).view(), nil
	}
	return f.comment(n, parent, cmp.Or(spec.By, authorUser), newBuyer(f.byHand).name, text, statusPublished, f.byHand).view(), nil
}

// EditFeedbackComment changes the text of a comment, by whomever it is.
func (b *Business) EditFeedbackComment(id int64, text string) error {
	return b.onFeedbackComment(id, func(f *feedbackWorld, c *comment) { f.alterComment(c, func() { c.text = text }) })
}

// SetFeedbackCommentStatus changes the status of a comment, as moderation does.
func (b *Business) SetFeedbackCommentStatus(id int64, status string) error {
	return b.onFeedbackComment(id, func(f *feedbackWorld, c *comment) { f.alterComment(c, func() { c.status = status }) })
}

// DeleteFeedbackComment takes a comment, and the comments on it, out of the list.
func (b *Business) DeleteFeedbackComment(id int64) error {
	return b.onFeedbackComment(id, func(f *feedbackWorld, c *comment) { f.drop(c) })
}

func (b *Business) onFeedbackComment(id int64, do func(*feedbackWorld, *comment)) error {
	b.lock(time.Now())
	defer b.mu.Unlock()
	c := b.feedback.comments[id]
	if c == nil || !c.listed || !c.of.visible() {
		return fmt.Errorf("no comment %d on a feedback", id)
	}
	do(b.feedback, c)
	return nil
}
