package yandexmarket

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"syncd/internal/sandbox/kit"
)

// QuestionQuirks are the unclear points of questions and answers.
type QuestionQuirks struct {
	// DaysInUTC begins the days of dateFrom and dateTo at midnight in UTC. Default: in Moscow.
	DaysInUTC bool
	// ToExclusive leaves the day of dateTo out. Default: it is in.
	ToExclusive bool
	// OldestFirst is the order without `sort`. Default: the newest first.
	OldestFirst bool
	// IDsWithinDates applies the default of the last month to questionIds too. Default: they find older questions.
	IDsWithinDates bool
	// UnknownIs404 answers a request for the answers to a question that there is not with 404. Default: with an empty list.
	UnknownIs404 bool
}

// Limits (OpenAPI document).
const (
	maxQuestionIDs  = 50
	questionMonths  = 1
	maxQuestionText = 5000
)

func (QuestionQuirks) validate() error { return nil }

// The methods of questions.
const (
	MethodGetGoodsQuestions             Method = "getGoodsQuestions"
	MethodGetGoodsQuestionAnswers       Method = "getGoodsQuestionAnswers"
	MethodUpdateGoodsQuestionTextEntity Method = "updateGoodsQuestionTextEntity"
)

var questionRoutes = map[string]route{
	"POST /v1/businesses/{businessId}/goods-questions": {
		method: MethodGetGoodsQuestions, limit: perHour{1000, 5000}, scopes: readCommunication, serve: serveQuestions,
	},
	"POST /v1/businesses/{businessId}/goods-questions/answers": {
		method: MethodGetGoodsQuestionAnswers, limit: perHour{1000, 5000}, scopes: readCommunication, serve: serveAnswers,
	},
	"POST /v1/businesses/{businessId}/goods-questions/update": {
		method: MethodUpdateGoodsQuestionTextEntity, limit: perHour{500, 1000}, scopes: writeCommunication, serve: serveUpdateQuestion,
	},
}

// Kinds of the journal. Comments are a part of their answer.
const (
	KindQuestion kit.Kind = "question"
	KindAnswer   kit.Kind = "answer"
)

// serveQuestions answers POST /v1/businesses/{businessId}/goods-questions.
func serveQuestions(c *call) answer {
	var in questionFilter
	if refusal := c.decodeOptional(&in); refusal != nil {
		return *refusal
	}
	quirks := c.quirks.Questions
	if text := in.check(c.now, quirks); text != "" {
		return fail(http.StatusBadRequest, text)
	}
	q := c.b.questions
	newest := !quirks.OldestFirst
	if in.Sort != nil {
		newest = *in.Sort == "CREATED_AT_DESC"
	}
	list := slices.DeleteFunc(slices.Clone(q.listed), func(n *question) bool { return !in.keeps(n) })
	part, next, refusal := page(c, list, feedbackPages, filters(in), func(n *question, _ uint64) pageKey {
		if newest {
			return pageKey{-n.created, -n.id}
		}
		return pageKey{n.created, n.id}
	})
	if refusal != nil {
		return *refusal
	}
	return pageAnswer("questions", part, q.render, next, `,"totalCount":`+itoa(int64(len(list))))
}

// questionFilter is the body of the request for questions.
type questionFilter struct {
	CategoryIDs []int64 `json:"categoryIds"`
	QuestionIDs []int64 `json:"questionIds"`
	DateFrom    *string `json:"dateFrom"`
	DateTo      *string `json:"dateTo"`
	NeedAnswer  *bool   `json:"needAnswer"`
	Sort        *string `json:"sort"`

	anyTime  bool
	from, to int64 // half open, in nanoseconds
}

// check reads the filter; text: why it is refused.
func (in *questionFilter) check(now time.Time, quirks QuestionQuirks) (text string) {
	if text := cmp.Or(
		listText("categoryIds", in.CategoryIDs, len(in.CategoryIDs)), listText("questionIds", in.QuestionIDs, maxQuestionIDs),
		enumText("sort", in.Sort, "CREATED_AT_DESC", "CREATED_AT_ASC"),
	); text != "" {
		return text
	}
	zone := dayZone(quirks.DaysInUTC)
	to := day(now.In(zone))
	if in.DateTo != nil {
		if to, text = dateOf("dateTo", *in.DateTo, zone); text != "" {
			return text
		}
	}
	from := addMonths(to, -questionMonths)
	if in.DateFrom != nil {
		if from, text = dateOf("dateFrom", *in.DateFrom, zone); text != "" {
			return text
		}
	}
	if from.After(to) {
		return "dateFrom must be before dateTo"
	}
	if addMonths(from, questionMonths).Before(to) {
		return "Interval between dateFrom and dateTo must be less than or equal to 1 month"
	}
	if !quirks.ToExclusive {
		to = to.AddDate(0, 0, 1)
	}
	in.anyTime = in.QuestionIDs != nil && in.DateFrom == nil && in.DateTo == nil && !quirks.IDsWithinDates
	in.from, in.to = from.UnixNano(), to.UnixNano()
	return ""
}

func (in *questionFilter) keeps(n *question) bool {
	return (in.anyTime || n.created >= in.from && n.created < in.to) &&
		(in.QuestionIDs == nil || slices.Contains(in.QuestionIDs, n.id)) &&
		(in.CategoryIDs == nil || slices.Contains(in.CategoryIDs, n.offer.category())) &&
		(in.NeedAnswer == nil || !*in.NeedAnswer || n.needsAnswer())
}

// serveAnswers answers POST /v1/businesses/{businessId}/goods-questions/answers. Their order is not documented: here it is
// that of their creation.
func serveAnswers(c *call) answer {
	var in struct {
		QuestionID *int64  `json:"questionId"`
		AnswerIDs  []int64 `json:"answerIds"`
	}
	if refusal := c.decode(&in); refusal != nil {
		return *refusal
	}
	switch text := listText("answerIds", in.AnswerIDs, maxQuestionIDs); {
	case text != "":
		return fail(http.StatusBadRequest, text)
	case in.AnswerIDs == nil && in.QuestionID == nil:
		return fail(http.StatusBadRequest, "questionId or answerIds must be specified")
	}
	q := c.b.questions
	var found []*reply
	if in.QuestionID != nil {
		n := q.byID[*in.QuestionID]
		known := n != nil && n.listed
		if !known && c.quirks.Questions.UnknownIs404 {
			return fail(http.StatusNotFound, "Question not found")
		}
		if known {
			found = slices.Clone(n.answers)
		}
		if in.AnswerIDs != nil {
			found = slices.DeleteFunc(found, func(a *reply) bool { return !slices.Contains(in.AnswerIDs, a.id) })
		}
	} else {
		for _, id := range in.AnswerIDs {
			if a := q.answers[id]; a != nil && a.listed && a.of.listed {
				found = append(found, a)
			}
		}
	}
	part, next, refusal := page(c, found, feedbackPages, filters(in), func(a *reply, _ uint64) pageKey { return pageKey{a.created, a.id} })
	if refusal != nil {
		return *refusal
	}
	return pageAnswer("answers", part, q.renderAnswer, next, "")
}
