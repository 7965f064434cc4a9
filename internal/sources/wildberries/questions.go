package wildberries

import (
	"encoding/json"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

const (
	pathQuestions      = "/api/v1/questions"
	pathQuestionsCount = "/api/v1/questions/count"
)

// questions: take + skip may not exceed 10,000 (documented).
var questions = dated{
	name:  "questions",
	lists: endpoint{group: GroupFeedbacks, path: pathQuestions, list: []string{"data", "questions"}, decode: decodeQuestion, nullable: nullIsEmpty},
	count: pathQuestionsCount,
	take:  10_000, skip: 10_000, depth: 10_000,
	leaf: fineItems, leaves: fineMost,
}

// decodeQuestion reads one question. It has no change time of its own but that of
// its answer (`createDate`, where the question has `createdDate`).
func decodeQuestion(raw json.RawMessage, now time.Time) (sources.Item, error) {
	item, f, err := listing.DecodeNamed(raw, "question", "id")
	if err != nil {
		return sources.Item{}, err
	}
	item.Created = listing.Plausible(f.Instant("createdDate"), now)
	item.Changed = listing.Plausible(listing.Object(f["answer"]).Instant("createDate"), now)
	return item, nil
}
