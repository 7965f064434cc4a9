package sandbox

import (
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strings"
	"unicode/utf8"

	"syncd/internal/sandbox/kit"
)

// Texts of the errors of a return, from the OpenAPI document's examples.
const (
	errReturnBody     = "failed to decode JSON request."
	errReturnID       = "Неправильный id в запросе"
	errReturnFeedback = "Не удалось получить отзыв"
	errReturn         = "Запрос на возврат покупок недоступен"
)

// Bounds of an answer's length, in characters.
const (
	minReply = 2
	maxReply = 5000
)

// fbProblem is an error about the body of an answer (schema standardizedFQError).
type fbProblem struct {
	Title     string `json:"title"`
	RequestID string `json:"requestId"`
	Origin    string `json:"origin"`
	Detail    string `json:"detail"`
}

// readReply reads the body of POST and PATCH feedbacks/answer; a non-empty refused is the detail of the 400. That an
// answer of a wrong length is one too is a guess: only the bounds are documented.
func readReply(r *http.Request) (id, text, refused string) {
	declared := r.Header.Get("Content-Type")
	if declared == "" {
		return "", "", "content-type header not specified"
	}
	kind, _, err := mime.ParseMediaType(declared)
	switch {
	case err != nil || !strings.Contains(kind, "/"):
		return "", "", "content-type is not a valid mime-type: " + declared
	case kind != typeJSON:
		return "", "", "not a json content-type: " + kind
	}
	var body struct {
		ID   string `json:"id"`
		Text string `json:"text"`
	}
	raw, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxPatchBody))
	if err != nil || json.Unmarshal(raw, &body) != nil {
		return "", "", "Неверный синтаксис JSON"
	}
	if n := utf8.RuneCountInString(body.Text); n < minReply || n > maxReply {
		return "", "", "text: the length must be from 2 to 5000"
	}
	return body.ID, body.Text, ""
}

// serveReply answers POST /api/v1/feedbacks/answer.
func serveReply(c *call) answer {
	return c.replyWith(func(f *feedbackWorld, n *feedback, text string, v verdict) {
		if n.answer == nil {
			f.reply(n, text, c.now.UnixNano(), v, true)
		}
	})
}

// serveEditReply answers PATCH /api/v1/feedbacks/answer.
func serveEditReply(c *call) answer {
	return c.replyWith(func(f *feedbackWorld, n *feedback, text string, v verdict) { f.edit(n, text, c.now.UnixNano(), v) })
}

// replyWith answers both. A 204 proves nothing: "the id is not validated", and that what cannot be done is no error
// either (a second answer, a second edit, an edit after 60 days) is the same reading.
func (c *call) replyWith(do func(f *feedbackWorld, n *feedback, text string, v verdict)) answer {
	id, text, refused := readReply(c.r)
	if refused != "" {
		return kit.JSON(http.StatusBadRequest, typeJSON, fbProblem{
			Title: "bad request", RequestID: c.sandbox.requestHex(), Origin: "fbapi", Detail: refused,
		})
	}
	c.world.lock(c.now)
	f := c.world.feedbacks
	if n := f.byID[id]; n != nil && !n.deleted {
		do(f, n, text, drawVerdict(f.byHand, f.world.spec.ModerateAfter))
	}
	c.world.mu.Unlock()
	return answer{Status: http.StatusNoContent}
}

// serveReturn answers POST /api/v1/feedbacks/order/return.
func serveReturn(c *call) answer {
	var body struct {
		FeedbackID *string `json:"feedbackId"`
	}
	if !c.body(&body) {
		return c.bad(errReturnBody)
	}
	if body.FeedbackID == nil || *body.FeedbackID == "" {
		return c.bad(errReturnID)
	}
	c.world.lock(c.now)
	f := c.world.feedbacks
	n := f.byID[*body.FeedbackID]
	known := n != nil && !n.deleted
	ordered := known && f.orderReturn(n, c.now.UnixNano())
	c.world.mu.Unlock()
	switch {
	case !known:
		return c.bad(errReturnFeedback)
	case !ordered:
		return c.sandbox.envelopeError(http.StatusUnprocessableEntity, errReturn)
	}
	return ok(struct{}{})
}
