package yandexmarket

import (
	"fmt"
	"hash/fnv"

	"syncd/internal/sandbox/kit"
)

// wireFeedback is an item of POST /v2/businesses/{businessId}/goods-feedback.
type wireFeedback struct {
	FeedbackID   int64               `json:"feedbackId"`
	CreatedAt    string              `json:"createdAt"`
	NeedReaction bool                `json:"needReaction"`
	Identifiers  wireIdentifiers     `json:"identifiers"`
	Author       string              `json:"author,omitempty"`
	Description  *wireDescription    `json:"description,omitempty"`
	Media        *wireMedia          `json:"media,omitempty"`
	Statistics   wireFeedbackNumbers `json:"statistics"`
}

type wireIdentifiers struct {
	OrderID int64  `json:"orderId,omitempty"`
	OfferID string `json:"offerId,omitempty"`
}

type wireDescription struct {
	Advantages    string `json:"advantages,omitempty"`
	Disadvantages string `json:"disadvantages,omitempty"`
	Comment       string `json:"comment,omitempty"`
}

// wireMedia has null for what there is none of, as the document allows.
type wireMedia struct {
	Photos []string `json:"photos"`
	Videos []string `json:"videos"`
}

type wireFeedbackNumbers struct {
	Rating        uint8 `json:"rating"`
	CommentsCount int   `json:"commentsCount"`
	Recommended   *bool `json:"recommended,omitempty"`
	PaidAmount    int64 `json:"paidAmount,omitempty"`
}

// wireComment is an item of POST /v2/businesses/{businessId}/goods-feedback/comments. It has no time.
type wireComment struct {
	ID         int64       `json:"id"`
	Text       string      `json:"text"`
	CanModify  bool        `json:"canModify"`
	ParentID   int64       `json:"parentId,omitempty"`
	Author     *wireAuthor `json:"author,omitempty"`
	Status     string      `json:"status"`
	FeedbackID int64       `json:"feedbackId"`
}

type wireAuthor struct {
	Type string `json:"type"`
	Name string `json:"name,omitempty"`
}

// render gives a review as the list sends it.
func (f *feedbackWorld) render(n *feedback) []byte {
	if n.raw != nil {
		return n.raw
	}
	w := wireFeedback{
		FeedbackID: n.id, CreatedAt: f.business.when(n.created), NeedReaction: n.need, Author: n.author,
		Identifiers: wireIdentifiers{OrderID: n.order, OfferID: n.offer},
		Statistics:  wireFeedbackNumbers{Rating: n.rating, CommentsCount: n.direct(), PaidAmount: n.paid},
	}
	if n.said != (opinion{}) {
		w.Description = &wireDescription{n.said.advantages, n.said.disadvantages, n.said.comment}
	}
	if n.recommended != 0 {
		yes := n.recommended == 2
		w.Statistics.Recommended = &yes
	}
	if n.photos+n.videos > 0 {
		w.Media = &wireMedia{Photos: mediaLinks(n, "photo", n.photos), Videos: mediaLinks(n, "video", n.videos)}
	}
	return kit.Render(w)
}

// direct counts the comments on the review itself.
func (n *feedback) direct() (count int) {
	for _, c := range n.comments {
		if c.parent == nil {
			count++
		}
	}
	return count
}

// mediaLinks invents links; they are the same in each answer.
func mediaLinks(n *feedback, kind string, count uint8) []string {
	var links []string
	for i := range count {
		h := fnv.New64a()
		fmt.Fprintf(h, "%s %d %d", kind, n.id, i)
		links = append(links, fmt.Sprintf("https://avatars.mds.yandex.net/get-market-ugc/%d/2a%016x/orig", 200_000+n.id%900_000, h.Sum64()))
	}
	return links
}

func (c *comment) wire() wireComment {
	w := wireComment{
		ID: c.id, Text: c.text, CanModify: c.own(), Status: c.status, FeedbackID: c.of.id,
	}
	if c.parent != nil {
		w.ParentID = c.parent.id
	}
	if c.author != "" {
		w.Author = &wireAuthor{Type: c.by, Name: c.author}
	}
	return w
}

// own says whether the shop can change a comment.
func (c *comment) own() bool { return c.by == authorBusiness && c.status != statusDeleted }
