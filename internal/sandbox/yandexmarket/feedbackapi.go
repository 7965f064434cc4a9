package yandexmarket

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"time"

	"syncd/internal/sandbox/kit"
)

// FeedbackQuirks are the unclear points of reviews and of the comments on them.
type FeedbackQuirks struct {
	// NewestFirst is the direction of the "order of publication" of reviews and comments. Default: the oldest first.
	NewestFirst bool
	// ByPublication makes dateTimeFrom and dateTimeTo mean the publication. Default: the creation, which is what the answer
	// shows.
	ByPublication bool
	// UnknownIs404 answers a request for the comments on a review that there is not with 404. Default: with an empty list.
	UnknownIs404 bool
}

func (FeedbackQuirks) validate() error { return nil }

// inOrder turns a place in the order of publication into one in the order of the list.
func (q FeedbackQuirks) inOrder(at pageKey) pageKey {
	if q.NewestFirst {
		return pageKey{-at[0], -at[1]}
	}
	return at
}

// Limits of the lists (OpenAPI document).
const (
	maxFeedbackIDs = 50
	maxRatings     = 5
	maxOffers      = 20
	feedbackMonths = 6
	maxCommentText = 4096
)

// feedbackPages are those of reviews, comments, questions and answers.
var feedbackPages = pageSizes{byDefault: 25, max: 50}

var feedbackRoutes = map[string]route{
	"POST /v2/businesses/{businessId}/goods-feedback": {
		method: MethodGetGoodsFeedbacks, limit: perHour{5000, 10_000}, scopes: readCommunication, serve: serveFeedbacks,
	},
	"POST /v2/businesses/{businessId}/goods-feedback/comments": {
		method: MethodGetGoodsFeedbackComments, limit: perHour{5000, 10_000}, scopes: readCommunication, serve: serveComments,
	},
	"POST /v2/businesses/{businessId}/goods-feedback/comments/update": {
		method: MethodUpdateGoodsFeedbackComment, limit: perHour{1000, 1000}, scopes: writeCommunication, serve: serveUpdateComment,
	},
	"POST /v2/businesses/{businessId}/goods-feedback/comments/delete": {
		method: MethodDeleteGoodsFeedbackComment, limit: perHour{1000, 1000}, scopes: writeCommunication, serve: serveDeleteComment,
	},
	"POST /v2/businesses/{businessId}/goods-feedback/skip-reaction": {
		method: MethodSkipGoodsFeedbacksReaction, limit: perHour{500, 1000}, scopes: writeCommunication, serve: serveSkipReaction,
	},
}

// The methods of reviews.
const (
	MethodGetGoodsFeedbacks          Method = "getGoodsFeedbacks"
	MethodGetGoodsFeedbackComments   Method = "getGoodsFeedbackComments"
	MethodUpdateGoodsFeedbackComment Method = "updateGoodsFeedbackComment"
	MethodDeleteGoodsFeedbackComment Method = "deleteGoodsFeedbackComment"
	MethodSkipGoodsFeedbacksReaction Method = "skipGoodsFeedbacksReaction"
)

// readCommunication and writeCommunication are the scopes of the methods that read and write; communication has no variant
// that only reads.
var (
	readCommunication  = []Scope{ScopeAll, ScopeAllReadOnly, ScopeCommunication}
	writeCommunication = []Scope{ScopeAll, ScopeCommunication}
)

// Kinds of the journal.
const (
	KindFeedback        kit.Kind = "feedback"
	KindFeedbackComment kit.Kind = "feedback_comment"
)

// serveFeedbacks answers POST /v2/businesses/{businessId}/goods-feedback.
func serveFeedbacks(c *call) answer {
	var in feedbackFilter
	if refusal := c.decodeOptional(&in); refusal != nil {
		return *refusal
	}
	if text := in.check(c.now); text != "" {
		return fail(http.StatusBadRequest, text)
	}
	f := c.b.feedback
	list := slices.DeleteFunc(slices.Clone(f.published), in.drops(c.quirks.Feedback.ByPublication))
	part, next, refusal := page(c, list, feedbackPages, filters(in), func(n *feedback, _ uint64) pageKey {
		return c.quirks.Feedback.inOrder(pageKey{n.published, n.id})
	})
	if refusal != nil {
		return *refusal
	}
	return pageAnswer("feedbacks", part, f.render, next, "")
}

// feedbackFilter is the body of the request for reviews.
type feedbackFilter struct {
	FeedbackIDs    []int64  `json:"feedbackIds"`
	DateTimeFrom   *string  `json:"dateTimeFrom"`
	DateTimeTo     *string  `json:"dateTimeTo"`
	ReactionStatus *string  `json:"reactionStatus"`
	RatingValues   []int64  `json:"ratingValues"`
	OfferIDs       []string `json:"offerIds"`
	Paid           *bool    `json:"paid"`

	from, to int64 // both exclusive, in nanoseconds
}

// check reads the filter; text: why it is refused.
func (in *feedbackFilter) check(now time.Time) (text string) {
	if in.FeedbackIDs != nil && (in.DateTimeFrom != nil || in.DateTimeTo != nil || in.ReactionStatus != nil || in.RatingValues != nil || in.OfferIDs != nil || in.Paid != nil) {
		return "feedbackIds can't be used together with other filters"
	}
	if text := cmp.Or(
		listText("feedbackIds", in.FeedbackIDs, maxFeedbackIDs), listText("ratingValues", in.RatingValues, maxRatings), listText("offerIds", in.OfferIDs, maxOffers),
		enumText("reactionStatus", in.ReactionStatus, "ALL", "NEED_REACTION"),
	); text != "" {
		return text
	}
	to := now
	if in.DateTimeTo != nil {
		if to, text = dateTime("dateTimeTo", *in.DateTimeTo); text != "" {
			return text
		}
	}
	from := addMonths(to, -feedbackMonths)
	if in.DateTimeFrom != nil {
		if from, text = dateTime("dateTimeFrom", *in.DateTimeFrom); text != "" {
			return text
		}
	}
	if from.After(to) {
		return "dateTimeFrom must be before dateTimeTo"
	}
	if addMonths(from, feedbackMonths).Before(to) {
		return fmt.Sprintf("Interval between dateTimeFrom and dateTimeTo must be less than or equal to %d months", feedbackMonths)
	}
	in.from, in.to = from.UnixNano(), to.UnixNano()
	return ""
}

// drops says which reviews the filter leaves out.
func (in *feedbackFilter) drops(byPublication bool) func(*feedback) bool {
	if in.FeedbackIDs != nil {
		return func(n *feedback) bool { return !slices.Contains(in.FeedbackIDs, n.id) }
	}
	return func(n *feedback) bool {
		at := n.created
		if byPublication {
			at = n.published
		}
		return !(at > in.from && at < in.to &&
			(in.ReactionStatus == nil || *in.ReactionStatus == "ALL" || n.need) &&
			(in.RatingValues == nil || slices.Contains(in.RatingValues, int64(n.rating))) &&
			(in.OfferIDs == nil || slices.ContainsFunc(in.OfferIDs, func(sku string) bool { return trimmed(sku) == n.offer })) &&
			(in.Paid == nil || *in.Paid == (n.paid > 0)))
	}
}

// serveComments answers POST /v2/businesses/{businessId}/goods-feedback/comments.
func serveComments(c *call) answer {
	var in struct {
		FeedbackID *int64  `json:"feedbackId"`
		CommentIDs []int64 `json:"commentIds"`
	}
	if refusal := cmp.Or(c.decode(&in), c.sourceType()); refusal != nil {
		return *refusal
	}
	switch text := listText("commentIds", in.CommentIDs, maxFeedbackIDs); {
	case text != "":
		return fail(http.StatusBadRequest, text)
	case in.CommentIDs != nil && in.FeedbackID != nil:
		return fail(http.StatusBadRequest, "commentIds can't be used together with other filters")
	case in.CommentIDs == nil && in.FeedbackID == nil:
		return fail(http.StatusBadRequest, "feedbackId or commentIds must be specified")
	}
	f := c.b.feedback
	var found []*comment
	if in.FeedbackID != nil {
		n := f.byID[*in.FeedbackID]
		known := n != nil && n.visible()
		if !known && c.quirks.Feedback.UnknownIs404 {
			return fail(http.StatusNotFound, "Grade not found.")
		}
		if known {
			found = n.comments
		}
	}
	for _, id := range in.CommentIDs {
		if k := f.comments[id]; k != nil && k.listed && k.of.visible() {
			found = append(found, k)
		}
	}
	part, next, refusal := page(c, found, feedbackPages, filters(in), func(k *comment, _ uint64) pageKey {
		return c.quirks.Feedback.inOrder(pageKey{k.place, k.id})
	})
	if refusal != nil {
		return *refusal
	}
	return pageAnswer("comments", part, func(k *comment) []byte { return kit.Render(k.wire()) }, next, "")
}
