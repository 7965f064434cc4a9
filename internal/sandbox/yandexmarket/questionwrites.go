package yandexmarket

import (
	"net/http"
)

// Texts of errors (error-codes page, "questions about goods").
const (
	errNoParentEntity   = "parentEntityId required for CREATE operation"
	errNoEntity         = "entityId required for UPDATE and DELETE operation"
	errQuestionUpdate   = "QUESTION entity type cannot be updated"
	errCommentOnComment = "Cannot create a comment on another comment."
)

// Types of entities (OpenAPI document).
const (
	entityQuestion = "QUESTION"
	entityAnswer   = "ANSWER"
	entityComment  = "COMMENT"
)

type entityID struct {
	ID   int64  `json:"id"`
	Type string `json:"type"`
}

// valid: a required id from 1 on, of a known type.
func (e *entityID) valid() bool {
	return e.ID >= 1 && (e.Type == entityQuestion || e.Type == entityAnswer || e.Type == entityComment)
}

// serveUpdateQuestion answers POST …/goods-questions/update: it writes, changes or deletes an answer or a comment of the
// shop. Refusals beyond the documented four are guessed.
func serveUpdateQuestion(c *call) answer {
	var in struct {
		OperationType  string    `json:"operationType"`
		EntityID       *entityID `json:"entityId"`
		ParentEntityID *entityID `json:"parentEntityId"`
		Text           *string   `json:"text"`
	}
	if refusal := c.decode(&in); refusal != nil {
		return *refusal
	}
	bad := func(text string) answer { return fail(http.StatusBadRequest, text) }
	target, missing := in.EntityID, errNoEntity
	switch in.OperationType {
	case "CREATE":
		target, missing = in.ParentEntityID, errNoParentEntity
	case "UPDATE", "DELETE":
	default:
		return bad(badParameter("operationType", in.OperationType))
	}
	switch {
	case target == nil:
		return bad(missing)
	case !target.valid():
		return bad(badParameter("id", itoa(target.ID)+" "+target.Type))
	case in.OperationType != "CREATE" && target.Type == entityQuestion:
		return bad(errQuestionUpdate)
	case in.OperationType == "CREATE" && target.Type == entityComment:
		return bad(errCommentOnComment)
	}
	text := ""
	if in.OperationType != "DELETE" {
		if wrong := contentText("text", in.Text, maxQuestionText); wrong != "" {
			return bad(wrong)
		}
		text = trimmed(*in.Text)
	}
	if in.OperationType == "CREATE" {
		return c.createText(*target, text)
	}
	return c.changeText(*target, text, in.OperationType == "DELETE")
}

func (c *call) createText(parent entityID, text string) answer {
	q, at := c.b.questions, c.now.UnixNano()
	created := func(id int64, kind string) answer {
		return okAnswer(map[string]entityID{"entity": {ID: id, Type: kind}})
	}
	if parent.Type == entityQuestion {
		n := q.byID[parent.ID]
		if n == nil || !n.listed {
			return fail(http.StatusNotFound, "Question not found")
		}
		return created(q.answer(n, q.shop(text), at, q.byHand).id, entityAnswer)
	}
	a := q.answers[parent.ID]
	switch {
	case a == nil || !a.listed || !a.of.listed:
		return fail(http.StatusNotFound, "Answer not found")
	case len(a.remarks) >= maxRemarks:
		return fail(http.StatusBadRequest, "Too many comments")
	}
	return created(q.remark(a, nil, q.shop(text), at, q.byHand).id, entityComment)
}

// changeText edits or deletes what the shop has written; nobody can change what others have.
func (c *call) changeText(target entityID, text string, remove bool) answer {
	q, at := c.b.questions, c.now.UnixNano()
	if target.Type == entityAnswer {
		a := q.answers[target.ID]
		switch {
		case a == nil || !a.listed || !a.of.listed:
			return fail(http.StatusNotFound, "Answer not found")
		case !a.said.own(a.status):
			return fail(http.StatusForbidden, accessDenied)
		case remove:
			q.dropAnswer(a, true)
		default:
			q.edit(a, &a.said, &a.status, text, at, q.byHand)
		}
		return emptyAnswer()
	}
	m := q.remarks[target.ID]
	switch {
	case m == nil || !m.listed || !m.of.listed || !m.of.of.listed:
		return fail(http.StatusNotFound, "Comment not found")
	case !m.said.own(m.status):
		return fail(http.StatusForbidden, accessDenied)
	case remove:
		q.dropRemark(m, true)
	default:
		q.edit(m.of, &m.said, &m.status, text, at, q.byHand)
	}
	return emptyAnswer()
}
