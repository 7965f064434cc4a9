package yandexmarket

import "syncd/internal/sandbox/kit"

// wireQuestion is an item of POST /v1/businesses/{businessId}/goods-questions.
type wireQuestion struct {
	Identifiers wireQuestionIDs `json:"questionIdentifiers"`
	BusinessID  int64           `json:"businessId"`
	Text        string          `json:"text"`
	CreatedAt   string          `json:"createdAt"`
	Votes       wireVotes       `json:"votes"`
	Author      wireAuthor      `json:"author"`
}

type wireQuestionIDs struct {
	ID         int64  `json:"id"`
	CategoryID int64  `json:"categoryId,omitempty"`
	OfferID    string `json:"offerId"`
}

type wireVotes struct {
	Likes    int64 `json:"likes"`
	Dislikes int64 `json:"dislikes"`
}

// wireReply is an item of POST /v1/businesses/{businessId}/goods-questions/answers.
type wireReply struct {
	ID         int64        `json:"id"`
	Text       string       `json:"text"`
	CanModify  bool         `json:"canModify"`
	Author     *wireAuthor  `json:"author,omitempty"`
	Status     string       `json:"status"`
	QuestionID int64        `json:"questionId"`
	CreatedAt  string       `json:"createdAt"`
	Votes      wireVotes    `json:"votes"`
	Comments   []wireRemark `json:"comments"` // or null
}

type wireRemark struct {
	ID        int64       `json:"id"`
	Text      string      `json:"text"`
	CanModify bool        `json:"canModify"`
	ParentID  int64       `json:"parentId,omitempty"`
	Author    *wireAuthor `json:"author,omitempty"`
	Status    string      `json:"status"`
	AnswerID  int64       `json:"answerId"`
	CreatedAt string      `json:"createdAt"`
	Votes     wireVotes   `json:"votes"`
}

// category invents the category of a product.
func (p product) category() int64 { return 90_000 + p.price%5 }

// render gives a question as the list sends it.
func (q *questionWorld) render(n *question) []byte {
	if n.raw != nil {
		return n.raw
	}
	ids := wireQuestionIDs{ID: n.id, CategoryID: n.offer.category(), OfferID: n.offer.sku}
	if n.bare {
		ids.CategoryID = 0
	}
	return kit.Render(wireQuestion{
		Identifiers: ids, BusinessID: q.business.ID(), Text: n.said.text, CreatedAt: q.business.when(n.created), Votes: n.said.votes(), Author: *n.said.wireAuthor(),
	})
}

// renderAnswer gives an answer with its comments as the list sends it.
func (q *questionWorld) renderAnswer(a *reply) []byte {
	out := wireReply{
		ID: a.id, Text: a.said.text, CanModify: a.said.own(a.status), Author: a.said.wireAuthor(), Status: a.status, QuestionID: a.of.id,
		CreatedAt: q.business.when(a.created), Votes: a.said.votes(),
	}
	for _, m := range a.remarks {
		r := wireRemark{
			ID: m.id, Text: m.said.text, CanModify: m.said.own(m.status), Author: m.said.wireAuthor(), Status: m.status, AnswerID: a.id,
			CreatedAt: q.business.when(m.created), Votes: m.said.votes(),
		}
		if m.parent != nil {
			r.ParentID = m.parent.id
		}
		out.Comments = append(out.Comments, r)
	}
	return kit.Render(out)
}

func (s said) votes() wireVotes { return wireVotes{s.likes, s.dislikes} }

func (s said) wireAuthor() *wireAuthor { return &wireAuthor{Type: s.by, Name: s.author} }

// own says whether the shop can change a text.
func (s said) own(status string) bool { return s.by == authorBusiness && status != statusDeleted }
