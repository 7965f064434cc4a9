package yandexmarket

import (
	"context"
	"encoding/json"
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
