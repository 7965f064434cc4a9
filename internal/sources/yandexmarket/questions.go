package yandexmarket

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

var questions = &dated{
	name: "questions", kind: "goods_question", subject: "question", list: getQuestions, items: entries{"questions", decodeQuestion},
	children: children{name: "answers", kind: "goods_answer", method: getAnswers, member: "answers", parent: "questionId"},
	// A month at most, of which the shortest has 28 days; and the filter is by days, of a
	// zone that is not documented, perhaps without the last one.
	span: 26 * day, first: 25 * day,
	step: day, slack: 2 * day,
	filter: questionsFilter,
	shows:  showsAnswers,
	silent: func(json.RawMessage) bool { return false },
}

// goodsQuestions reads questions and their answers.
//
// Nothing in their list tells that there is an answer. The sweep asks for those that
// wait for one: which of them do not any more is worth a visit at once.
func (c *Client) goodsQuestions(ctx context.Context, q sources.Query) (sources.Page, error) {
	if q.Walk == sources.Follow {
		return c.follow(ctx, q, questions)
	}
	return c.readDated(ctx, q, questions)
}

func questionsFilter(from, to int64, sweep bool) any {
	day := func(t int64) string { return time.Unix(t, 0).UTC().Format(time.DateOnly) }
	return struct {
		From string `json:"dateFrom"`
		To   string `json:"dateTo"`
		Need bool   `json:"needAnswer,omitempty"`
		Sort string `json:"sort"` // new ones come behind those that were read, if it is obeyed
	}{day(from), day(to), sweep, "CREATED_AT_ASC"}
}

func decodeQuestion(raw json.RawMessage, now time.Time) (sources.Item, error) {
	body, f, err := listing.Decode(raw)
	if err != nil {
		return sources.Item{}, err
	}
	id := listing.Object(f["questionIdentifiers"]).Text("id")
	if err := listing.CheckID("questionIdentifiers.id", id); err != nil {
		return sources.Item{}, err
	}
	return sources.Item{Kind: "goods_question", ID: []string{"goods_question", id}, Subject: []string{"question", id},
		Created: listing.Plausible(f.Instant("createdAt"), now), Body: body}, nil
}

var (
	needsAnswer = json.RawMessage(`{"need":true}`)
	hasAnswer   = json.RawMessage(`{"need":false}`)
)

func showsAnswers(q sources.Query, _ json.RawMessage) json.RawMessage {
	if q.Walk != sources.Sweep {
		return nil
	}
	return needsAnswer
}

// waitingMost bounds the questions that a sweep knows the next time. What waits beyond
// them is visited by its age alone.
const waitingMost = 1000

func idsSound(ids []int64) bool { return len(ids) <= waitingMost && slices.IsSorted(ids) }

// waited takes in which questions a page of a sweep shows to wait for an answer, and
// finds on the last one those that have waited up to now.
func (c *datedCursor) waited(q sources.Query, page *sources.Page) error {
	r := c.Run
	for _, it := range page.Items {
		id, err := strconv.ParseInt(it.ID[1], 10, 64)
		if err != nil {
			continue
		}
		if i, ok := slices.BinarySearch(r.Left, id); ok {
			r.Left = slices.Delete(r.Left, i, i+1)
		}
		if i, ok := slices.BinarySearch(r.Now, id); !ok && len(r.Now) < waitingMost {
			r.Now = slices.Insert(r.Now, i, id)
		}
	}
	if !page.Done {
		return nil
	}
	c.Waiting = r.Now
	if page.Partial {
		return nil // nobody knows which of them the rest of the list has
	}
	for _, id := range r.Left {
		v, ok, err := remembered(q, strconv.FormatInt(id, 10))
		if err != nil {
			return err
		}
		if ok && string(v.Found) == string(needsAnswer) {
			v.Found, v.Due, v.Urgent = hasAnswer, q.Now, true
			page.Found = append(page.Found, v)
		}
	}
	return nil
}
