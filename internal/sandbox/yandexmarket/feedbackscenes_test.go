package yandexmarket_test

import (
	"fmt"

	"syncd/internal/sandbox/yandexmarket"
)

// aReview fills in a review, and in it a comment of the shop and one of a buyer.
func aReview(s *shop) map[string]string {
	f := s.addFeedback(yandexmarket.NewFeedback{})
	own := s.addComment(yandexmarket.NewComment{To: f.ID, By: "BUSINESS"})
	nested := s.addComment(yandexmarket.NewComment{To: f.ID, Parent: own.ID})
	return map[string]string{"review": str(f.ID), "own": str(own.ID), "nested": str(nested.ID)}
}

// withoutReviews gives a key that lacks the scope.
var withoutReviews = scopes(yandexmarket.ScopeOrders)

var feedbackScenes = []scene{
	{name: "feedbacks", request: "POST " + feedbackPath + "?limit=50", status: 200},
	{name: "feedbacks: filtered", request: "POST " + feedbackPath, status: 200,
		body: `{"ratingValues":[1,5],"reactionStatus":"NEED_REACTION","offerIds":["a"],"paid":false,"dateTimeTo":"2026-01-01T00:00:00+03:00"}`},
	{name: "feedbacks: by id", request: "POST " + feedbackPath, body: `{"feedbackIds":[{review}]}`, status: 200, fill: aReview},
	{name: "feedbacks: 400", request: "POST " + feedbackPath, body: `{"feedbackIds":[]}`, status: 400},
	{name: "feedbacks: 403", request: "POST " + feedbackPath, status: 403, setUp: withoutReviews},
	{name: "comments", request: "POST " + commentsPath + "?sourceType=SELLER", body: `{"feedbackId":{review}}`, status: 200, fill: aReview},
	{name: "comments: by id", request: "POST " + commentsPath, body: `{"commentIds":[{own},{nested}]}`, status: 200, fill: aReview},
	{name: "comments: 404", request: "POST " + commentsPath, body: `{"feedbackId":1}`, status: 404, setUp: func(s *shop) {
		s.setQuirks(yandexmarket.Quirks{Feedback: yandexmarket.FeedbackQuirks{UnknownIs404: true}})
	}},
	{name: "comment: create", request: "POST " + commentsPath + "/update", status: 200, fill: aReview,
		body: `{"feedbackId":{review},"comment":{"text":"Благодарим!"}}`},
	{name: "comment: nested", request: "POST " + commentsPath + "/update", status: 200, fill: aReview,
		body: `{"feedbackId":{review},"comment":{"text":"Благодарим!","parentId":{nested}}}`},
	{name: "comment: edit", request: "POST " + commentsPath + "/update", status: 200, fill: aReview,
		body: `{"feedbackId":{review},"comment":{"text":"Благодарим!","id":{own}}}`},
	{name: "comment: 400", request: "POST " + commentsPath + "/update", body: `{}`, status: 400},
	{name: "comment: 403", request: "POST " + commentsPath + "/update", status: 403, fill: aReview,
		body: `{"feedbackId":{review},"comment":{"text":"Благодарим!","id":{nested}}}`},
	{name: "comment: 404", request: "POST " + commentsPath + "/update", body: `{"feedbackId":1,"comment":{"text":"a"}}`, status: 404},
	{name: "comment: delete", request: "POST " + commentsPath + "/delete", body: `{"id":{own}}`, status: 200, fill: aReview},
	{name: "comment: delete a buyer's", request: "POST " + commentsPath + "/delete", body: `{"id":{nested}}`, status: 403, fill: aReview},
	{name: "skip", request: "POST " + feedbackPath + "/skip-reaction", body: `{"feedbackIds":[{review}]}`, status: 200, fill: aReview},
	{name: "skip: 404", request: "POST " + feedbackPath + "/skip-reaction", body: `{"feedbackIds":[1]}`, status: 404},
	{name: "skip: a key that only reads", request: "POST " + feedbackPath + "/skip-reaction", body: `{"feedbackIds":[1]}`, status: 403,
		setUp: scopes(yandexmarket.ScopeAllReadOnly)},
}

// aQuestion fills in a question, and in it an answer of the shop with a comment.
func aQuestion(s *shop) map[string]string {
	q := s.addQuestion(yandexmarket.NewQuestion{})
	a := s.addAnswer(yandexmarket.NewComment{To: q.ID, By: "BUSINESS"})
	c, err := s.b.AddAnswerComment(yandexmarket.NewComment{To: a.ID, By: "BUSINESS"})
	s.must(err)
	_, err = s.b.AddAnswerComment(yandexmarket.NewComment{To: a.ID, Parent: c})
	s.must(err)
	return map[string]string{"question": str(q.ID), "answer": str(a.ID), "remark": str(c)}
}

var questionScenes = []scene{
	{name: "questions", request: "POST " + questionsPath + "?limit=50", status: 200},
	{name: "questions: filtered", request: "POST " + questionsPath, status: 200,
		body: `{"dateFrom":"2026-01-01","dateTo":"2026-02-01","needAnswer":true,"sort":"CREATED_AT_ASC","categoryIds":[90001]}`},
	{name: "questions: by id", request: "POST " + questionsPath, body: `{"questionIds":[{question}]}`, status: 200, fill: aQuestion},
	{name: "questions: 400", request: "POST " + questionsPath, body: `{"dateFrom":"2026"}`, status: 400},
	{name: "questions: 403", request: "POST " + questionsPath, status: 403, setUp: withoutReviews},
	{name: "answers", request: "POST " + answersPath, body: `{"questionId":{question}}`, status: 200, fill: aQuestion},
	{name: "answers: by id", request: "POST " + answersPath, body: `{"answerIds":[{answer}]}`, status: 200, fill: aQuestion},
	{name: "answers: 404", request: "POST " + answersPath, body: `{"questionId":1}`, status: 404, setUp: func(s *shop) {
		s.setQuirks(yandexmarket.Quirks{Questions: yandexmarket.QuestionQuirks{UnknownIs404: true}})
	}},
	{name: "answer: create", request: "POST " + updatePath, status: 200, fill: aQuestion,
		body: `{"operationType":"CREATE","parentEntityId":{"id":{question},"type":"QUESTION"},"text":"Да"}`},
	{name: "answer: comment", request: "POST " + updatePath, status: 200, fill: aQuestion,
		body: `{"operationType":"CREATE","parentEntityId":{"id":{answer},"type":"ANSWER"},"text":"Да"}`},
	{name: "answer: update", request: "POST " + updatePath, status: 200, fill: aQuestion,
		body: `{"operationType":"UPDATE","entityId":{"id":{answer},"type":"ANSWER"},"text":"Нет"}`},
	{name: "answer: delete a comment", request: "POST " + updatePath, status: 200, fill: aQuestion,
		body: `{"operationType":"DELETE","entityId":{"id":{remark},"type":"COMMENT"}}`},
	{name: "answer: 400", request: "POST " + updatePath, body: `{"operationType":"CREATE"}`, status: 400},
	{name: "answer: 404", request: "POST " + updatePath, status: 404,
		body: `{"operationType":"DELETE","entityId":{"id":1,"type":"COMMENT"}}`},
}

// aReturn fills in a return of the first store, with an item that has pictures.
func aReturn(s *shop) map[string]string {
	for _, r := range s.b.Returns() {
		item := decodeAll[returnItem](s.t, rawList(r.JSON))[0]
		if item.RefundStatus == "PREMODERATION_DECISION_WAITING" && len(item.Items) == 1 && len(item.Items[0].Decisions[0].Images) > 0 {
			d := item.Items[0].Decisions[0]
			return map[string]string{"order": str(r.OrderID), "return": str(r.ID), "item": str(d.ReturnItemID), "hash": d.Images[0]}
		}
	}
	s.t.Fatal("no return waits for a decision and has pictures")
	return nil
}

const oneReturn = "/v2/campaigns/{campaign}/orders/{order}/returns/{return}"

func decide(more string) string {
	return fmt.Sprintf(`{"returnItemDecisions":[{"returnItemId":{item},%s}]}`, more)
}

// asDBS makes the shop one that delivers itself.
func asDBS(s *shop) {
	*s = *newShop(s.t, yandexmarket.BusinessSpec{Stores: []yandexmarket.StoreSpec{{Placement: yandexmarket.DBS}}})
}

// aDBSReturn fills in a return of a shop that delivers itself.
func aDBSReturn(s *shop) map[string]string {
	r := s.addReturn(yandexmarket.NewReturn{})
	for decodeAll[returnItem](s.t, rawList(s.b.Returns()[0].JSON))[0].RefundStatus != "WAITING_FOR_DECISION" {
		s.must(s.b.StepReturn(r.ID))
	}
	d := decodeAll[returnItem](s.t, rawList(r.JSON))[0].Items[0].Decisions[0]
	return map[string]string{"order": str(r.OrderID), "return": str(r.ID), "item": str(d.ReturnItemID)}
}

var returnScenes = []scene{
	{name: "returns", request: "GET /v2/campaigns/{campaign}/returns?limit=100", status: 200},
	{name: "returns: shuffled", request: "GET /v2/campaigns/{campaign}/returns", status: 200, setUp: func(s *shop) {
		s.setQuirks(yandexmarket.Quirks{Returns: yandexmarket.ReturnQuirks{Order: yandexmarket.ReturnsShuffled}})
	}},
	{name: "returns: filtered", status: 200, fill: aReturn,
		request: "GET /v2/campaigns/{campaign}/returns?type=RETURN&fromDate=2026-01-01&toDate=2026-02-01&orderIds={order}"},
	{name: "returns: 400", request: "GET /v2/campaigns/{campaign}/returns?fromDate=01-01-2026", status: 400},
	{name: "returns: 403", request: "GET /v2/campaigns/{campaign}/returns", status: 403, setUp: scopes(yandexmarket.ScopeCommunication)},
	{name: "returns: unknown values", request: "GET /v2/campaigns/{campaign}/returns", status: 200, setUp: func(s *shop) {
		*s = *newShop(s.t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Returns: yandexmarket.ReturnSpec{History: 50, Strange: 1}}})
	}},
	{name: "return", request: "GET " + oneReturn, status: 200, fill: aReturn},
	{name: "return: 404", request: "GET /v2/campaigns/{campaign}/orders/1/returns/1", status: 404},
	{name: "application", request: "GET " + oneReturn + "/application", status: 200, fill: aReturn},
	{name: "application: 404", request: "GET /v2/campaigns/{campaign}/orders/1/returns/1/application", status: 404},
	{name: "photo", request: "GET " + oneReturn + "/decision/{item}/image/{hash}", status: 200, fill: aReturn},
	{name: "photo: 404", request: "GET " + oneReturn + "/decision/{item}/image/x", status: 404, fill: aReturn},
	{name: "decisions", request: "POST /v1/businesses/{business}/returns/decisions", status: 200, fill: aReturn,
		body: `{"campaignId":{campaign},"returnId":{return}}`},
	{name: "decisions: DBS", request: "POST /v1/businesses/{business}/returns/decisions", status: 200, setUp: asDBS, fill: aDBSReturn,
		body: `{"campaignId":{campaign},"returnId":{return}}`},
	{name: "decisions: 403", request: "POST /v1/businesses/{business}/returns/decisions", status: 403, body: `{"campaignId":1,"returnId":1}`},
	{name: "decisions: 404", request: "POST /v1/businesses/{business}/returns/decisions", status: 404, body: `{"campaignId":{campaign},"returnId":1}`},
	{name: "submit", request: "POST " + oneReturn + "/decision/submit", status: 200, fill: aReturn, body: decide(`"decisionType":"REFUND_MONEY"`)},
	{name: "submit: 400", request: "POST " + oneReturn + "/decision/submit", status: 400, fill: aReturn, body: decide(`"decisionType":"REPAIR"`)},
	{name: "submit: 404", request: "POST /v2/campaigns/{campaign}/orders/1/returns/1/decision/submit", status: 404},
	{name: "decision", request: "POST " + oneReturn + "/decision", status: 200, setUp: asDBS, fill: aDBSReturn,
		body: `{"returnItemId":{item},"decisionType":"REPAIR","comment":"За неделю"}`},
	{name: "decision: no more", request: "POST " + oneReturn + "/decision", status: 403, fill: aReturn, setUp: func(s *shop) {
		s.setQuirks(yandexmarket.Quirks{Returns: yandexmarket.ReturnQuirks{DeprecatedDenied: 1}})
	}, body: `{}`},
}

var communicationDeviations = []deviation{
	{"returns: unknown values", "value is not one of the allowed values", "the reading in which the API knows more than the document"},
}
