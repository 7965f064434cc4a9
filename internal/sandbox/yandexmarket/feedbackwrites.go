package yandexmarket

import (
	"cmp"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Texts of errors (error-codes page, "reviews of goods").
const (
	errDuplicateComment = "Duplicate comment."
	errIllegalURL       = "Illegal url in comment text."
	errCommentAccess    = "No access to comment modifying."
	errNoFeedbacks      = "Feedbacks not found."
	errNoGrade          = "Grade not found."
)

// serveUpdateComment answers POST …/goods-feedback/comments/update: it adds a comment of the shop, or changes one. With both
// an id and a parentId, it changes (OpenAPI document).
func serveUpdateComment(c *call) answer {
	var in struct {
		FeedbackID *int64 `json:"feedbackId"`
		Comment    *struct {
			ID       *int64  `json:"id"`
			ParentID *int64  `json:"parentId"`
			Text     *string `json:"text"`
		} `json:"comment"`
	}
	if refusal := cmp.Or(c.decode(&in), c.sourceType()); refusal != nil {
		return *refusal
	}
	switch {
	case in.FeedbackID == nil:
		return fail(http.StatusBadRequest, "feedbackId must not be null")
	case in.Comment == nil:
		return fail(http.StatusBadRequest, "comment must not be null")
	}
	if text := contentText("comment.text", in.Comment.Text, maxCommentText); text != "" {
		return fail(http.StatusBadRequest, text)
	}
	f, text := c.b.feedback, trimmed(*in.Comment.Text)
	n := f.byID[*in.FeedbackID]
	if n == nil || !n.visible() {
		return fail(http.StatusNotFound, errNoGrade)
	}
	var own, parent *comment
	if id := in.Comment.ID; id != nil {
		if own = f.comments[*id]; own == nil || own.of != n || !own.listed || !own.own() {
			return fail(http.StatusForbidden, errCommentAccess)
		}
	} else if id := in.Comment.ParentID; id != nil {
		if parent = f.comments[*id]; parent == nil || parent.of != n || !parent.listed {
			return fail(http.StatusNotFound, errNoFeedbacks)
		}
	}
	if illegalURL(text) {
		return fail(http.StatusBadRequest, errIllegalURL)
	}
	for _, k := range n.comments {
		if k != own && k.own() && k.text == text {
			return fail(http.StatusBadRequest, errDuplicateComment)
		}
	}
	at := c.now.UnixNano()
	if own != nil {
		f.edit(own, text, at, f.byHand)
	} else {
		own = f.answer(n, parent, text, at, f.byHand)
	}
	return okAnswer(own.wire())
}

// serveDeleteComment answers POST …/goods-feedback/comments/delete.
func serveDeleteComment(c *call) answer {
	var in struct {
		ID *int64 `json:"id"`
	}
	if refusal := cmp.Or(c.decode(&in), c.sourceType()); refusal != nil {
		return *refusal
	}
	if in.ID == nil {
		return fail(http.StatusBadRequest, "id must not be null")
	}
	f := c.b.feedback
	k := f.comments[*in.ID]
	if k == nil || !k.listed || !k.of.visible() || !k.own() {
		return fail(http.StatusForbidden, errCommentAccess)
	}
	f.withdraw(k)
	return emptyAnswer()
}

// serveSkipReaction answers POST …/goods-feedback/skip-reaction. Of unknown ids it does nothing, unless all are unknown.
func serveSkipReaction(c *call) answer {
	var in struct {
		FeedbackIDs []int64 `json:"feedbackIds"`
	}
	if refusal := cmp.Or(c.decode(&in), c.sourceType()); refusal != nil {
		return *refusal
	}
	if in.FeedbackIDs == nil {
		return fail(http.StatusBadRequest, "feedbackIds must not be null")
	}
	if text := listText("feedbackIds", in.FeedbackIDs, maxFeedbackIDs); text != "" {
		return fail(http.StatusBadRequest, text)
	}
	f, known := c.b.feedback, false
	for _, id := range in.FeedbackIDs {
		if n := f.byID[id]; n != nil && n.visible() {
			known = true
			f.alter(n, func() { n.need = false })
		}
	}
	if !known {
		return fail(http.StatusNotFound, errNoFeedbacks)
	}
	return emptyAnswer()
}

// contentText says what is wrong with a text that somebody wants to publish.
func contentText(name string, text *string, longest int) string {
	switch {
	case text == nil || trimmed(*text) == "":
		return name + " must not be empty"
	case utf8.RuneCountInString(*text) > longest:
		return name + " size must be between 1 and " + itoa(int64(longest))
	}
	return ""
}

var links = regexp.MustCompile(`(?i)(?:https?://|\bwww\.)\S+`)

// illegalURL: "it must not have links to other sites than the Market's".
func illegalURL(text string) bool {
	for _, link := range links.FindAllString(text, -1) {
		if !strings.Contains(link, "://") {
			link = "https://" + link
		}
		u, err := url.Parse(link)
		if err != nil || u.Hostname() != "market.yandex.ru" && !strings.HasSuffix(u.Hostname(), ".market.yandex.ru") {
			return true
		}
	}
	return false
}
