package wildberries

import (
	"encoding/json"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

const (
	pathFeedbacks        = "/api/v1/feedbacks"
	pathFeedbacksCount   = "/api/v1/feedbacks/count"
	pathFeedbacksArchive = "/api/v1/feedbacks/archive"
)

// feedbacks: take may not exceed 5,000, nor skip 199,990 (documented).
var feedbacks = dated{
	name:    "feedbacks",
	lists:   feedbacksAt(pathFeedbacks),
	count:   pathFeedbacksCount,
	archive: new(feedbacksAt(pathFeedbacksArchive)),
	take:    5000, skip: 199_990, depth: 199_990 + 5000,
	leaf: fineItems, leaves: fineMost,
}

func feedbacksAt(path string) endpoint {
	return endpoint{group: GroupFeedbacks, path: path, list: []string{"data", "feedbacks"}, decode: decodeFeedback, nullable: nullIsEmpty}
}

// decodeFeedback reads one feedback. Nothing in it says when it changed; what a
// buyer adds to one is another feedback with an id of its own.
func decodeFeedback(raw json.RawMessage, now time.Time) (sources.Item, error) {
	item, f, err := listing.DecodeNamed(raw, "feedback", "id")
	if err != nil {
		return sources.Item{}, err
	}
	item.Created = listing.Plausible(f.Instant("createdDate"), now)
	return item, nil
}
