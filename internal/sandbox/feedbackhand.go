package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"syncd/internal/sandbox/kit"
)

// Feedback is a feedback as the lists show it.
type Feedback struct {
	ID string
	// Created is exact; createdDate shows it cut to seconds.
	Created time.Time
	// Answered tells in which of the two lists it is: isAnswered=true has those with an answer and those that are nothing
	// but a rating. It says nothing about the 30 days of [Quirks.OldUnanswered].
	Answered bool
	// JSON is the item exactly as GET /api/v1/feedbacks sends it now, without [Quirks.PhotoNoise].
	JSON json.RawMessage
}

// FeedbackSpec says what feedback [World.AddFeedback] makes.
type FeedbackSpec struct {
	// ID is its id. Default: a new one.
	ID string
	// Text is what the buyer wrote. Default: a phrase.
	Text string
	// RatingOnly leaves out text and photos: it is processed from the beginning.
	RatingOnly bool
	// Rating is productValuation. Default: 5.
	Rating int
	// Photos is the number of photos. Default: none.
	Photos int
	// NmID is the article. Default: one of the seller's products.
	NmID int
	// Parent is the id of the feedback that this one supplements. Default: none.
	Parent string
	// Returnable is isAbleReturnProductOrders.
	Returnable bool
	// Created is the moment of its creation. Default: now. The lists show it at once, so an earlier one makes a late
	// feedback.
	Created time.Time
	// Raw is sent in place of the item, whatever it is, until the feedback changes. Default: the item as rendered.
	Raw json.RawMessage
}

// Feedbacks returns everything that the two lists show now, by creation. It renders every item: see [World.FeedbackIDs]
// for large worlds.
func (w *World) Feedbacks() []Feedback {
	w.lock(time.Now())
	defer w.mu.Unlock()
	all := w.feedbacks.visible()
	out := make([]Feedback, len(all))
	for i, n := range all {
		out[i] = w.feedbacks.view(n)
	}
	return out
}

// FeedbackIDs returns the ids of everything that the two lists show now, by creation.
func (w *World) FeedbackIDs() []string {
	w.lock(time.Now())
	defer w.mu.Unlock()
	all := w.feedbacks.visible()
	out := make([]string, len(all))
	for i, n := range all {
		out[i] = n.id
	}
	return out
}

func (f *feedbackWorld) visible() []*feedback {
	all := slices.Concat(f.lists[listOpen], f.lists[listProcessed])
	slices.SortFunc(all, compareFeedbacks)
	return all
}

func (f *feedbackWorld) view(n *feedback) Feedback {
	return Feedback{ID: n.id, Created: time.Unix(0, n.created), Answered: n.processed(), JSON: f.render(n, 0)}
}

// AddFeedback puts a feedback in the lists at once.
func (w *World) AddFeedback(spec FeedbackSpec) (Feedback, error) {
	now := time.Now()
	w.lock(now)
	defer w.mu.Unlock()
	f := w.feedbacks
	if spec.Created.IsZero() {
		spec.Created = now
	}
	n := f.compose(f.byHand, spec.Created.UnixNano())
	if spec.ID != "" {
		n.id = spec.ID
	}
	if f.byID[n.id] != nil {
		return Feedback{}, fmt.Errorf("feedback %s exists", n.id)
	}
	if spec.Parent != "" {
		parent := f.byID[spec.Parent]
		if parent == nil {
			return Feedback{}, fmt.Errorf("no feedback %s", spec.Parent)
		}
		if !f.link(parent, n) {
			return Feedback{}, fmt.Errorf("feedback %s cannot be supplemented", spec.Parent)
		}
	}
	if spec.NmID != 0 {
		g := *n.goods
		g.nmID = spec.NmID
		n.goods = &g
	}
	n.rating = 5
	if spec.Rating != 0 {
		n.rating = uint8(spec.Rating)
	}
	n.worded, n.viewed, n.returnable, n.indexed = !spec.RatingOnly, false, spec.Returnable, true
	n.hand = &handmade{said: f.sayByHand(n, spec), raw: slices.Clone(spec.Raw)}
	f.add(n)
	f.show(n)
	return f.view(n), nil
}

func (f *feedbackWorld) sayByHand(n *feedback, spec FeedbackSpec) *content {
	c := n.said()
	c.photos, c.video = nil, ""
	if spec.RatingOnly {
		return &c
	}
	c.addPhotos(f.byHand, spec.Photos)
	if c.text == "" {
		c.text = kit.Pick(f.byHand, pools[true].sentences)
	}
	if spec.Text != "" {
		c.text = spec.Text
	}
	return &c
}

// AnswerFeedback answers a feedback as the seller would in the portal, or changes its answer without the API's limits. The
// answer is looked at by the marketplace as all are.
func (w *World) AnswerFeedback(id, text string) error {
	return w.onFeedback(id, func(f *feedbackWorld, n *feedback, now int64) error {
		f.reply(n, text, now, drawVerdict(f.byHand, f.world.spec.ModerateAfter), true)
		return nil
	})
}

// UnanswerFeedback takes a feedback's answer away, so that it is new again. The API has no method for it.
func (w *World) UnanswerFeedback(id string) error {
	return w.onFeedback(id, func(f *feedbackWorld, n *feedback, _ int64) error {
		f.alter(n, func() { n.answer = nil })
		return nil
	})
}

// EditFeedback sets fields of the item as it is sent, whatever their names and values: "orderStatus", "answer.state",
// "productDetails.size". They stay so until set anew, and change nothing else: the feedback keeps its list and its filters.
func (w *World) EditFeedback(id string, fields map[string]any) error {
	return w.onFeedback(id, func(f *feedbackWorld, n *feedback, _ int64) error {
		var edits []edit
		for name, value := range fields {
			raw, err := json.Marshal(value)
			if err != nil {
				return fmt.Errorf("field %s: %w", name, err)
			}
			edits = append(edits, edit{path: strings.Split(name, "."), value: raw})
		}
		slices.SortFunc(edits, func(a, b edit) int { return slices.Compare(a.path, b.path) }) // "a" before "a.b"
		f.alter(n, func() {
			if n.hand == nil {
				n.hand = &handmade{}
			}
			n.hand.edits = append(n.hand.edits, edits...)
		})
		return nil
	})
}

// DeleteFeedback makes a feedback vanish from the lists, the counts and by id, until [World.RestoreFeedback].
func (w *World) DeleteFeedback(id string) error {
	return w.onFeedback(id, func(f *feedbackWorld, n *feedback, _ int64) error {
		if n.deleted {
			return errors.New("it is deleted")
		}
		f.remove(n)
		return nil
	})
}

// RestoreFeedback brings a deleted feedback back as it was.
func (w *World) RestoreFeedback(id string) error {
	return w.onFeedback(id, func(f *feedbackWorld, n *feedback, _ int64) error {
		if !n.deleted {
			return errors.New("it is not deleted")
		}
		f.restore(n)
		return nil
	})
}

func (w *World) onFeedback(id string, do func(f *feedbackWorld, n *feedback, now int64) error) error {
	now := time.Now()
	w.lock(now)
	defer w.mu.Unlock()
	n := w.feedbacks.byID[id]
	if n == nil {
		return fmt.Errorf("no feedback %s", id)
	}
	if err := do(w.feedbacks, n, now.UnixNano()); err != nil {
		return fmt.Errorf("feedback %s: %w", id, err)
	}
	return nil
}

// ExtendFeedbacks is a change of the API: from now on all feedbacks have productDetails.newField.
func (w *World) ExtendFeedbacks() {
	w.lock(time.Now())
	defer w.mu.Unlock()
	w.feedbacks.extended = true
	for _, n := range w.feedbacks.all {
		w.feedbacks.note(n)
	}
}
