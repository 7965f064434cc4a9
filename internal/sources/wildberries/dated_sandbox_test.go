package wildberries_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sandbox"
	"syncd/internal/sources"
	"syncd/internal/sources/wildberries"
)

// TestDatedInTheSandbox: the walks of questions and feedbacks side by side, on a world
// in which items come, move and change, with every quirk of the lists. Every item is
// known soon, and as it is after a full reading.
func TestDatedInTheSandbox(t *testing.T) {
	for name, quirks := range map[string]sandbox.Quirks{
		"as documented":      {},
		"exclusive filter":   {FromExclusive: true, ToExclusive: true, WholeSeconds: true},
		"old ones move":      {OldUnanswered: sandbox.OldUnansweredMove},
		"old ones leave":     {OldUnanswered: sandbox.OldUnansweredLeave, WholeSeconds: true},
		"order ignored":      {FeedbackOrderIgnored: true},
		"pages cut":          {FeedbackPageCut: 80},
		"skip capped":        {FeedbackSkipCap: 150},
		"skip capped by 422": {FeedbackSkipCap: 120, FeedbackSkipStatus: 422, FeedbackPageCut: 60},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) {
				s := inSandbox(t, sandbox.AccPersonal, quirks, sandbox.WorldSpec{
					Questions: 250, Feedbacks: 250, FeedbackSpan: 90 * 24 * time.Hour, QuestionEvery: 3 * time.Minute, FeedbackEvery: 2 * time.Minute,
					LateQuestions: .2, LateFeedbacks: .2, IndexedLateBy: 2 * time.Hour, FeedbackChangeEvery: time.Minute,
				})
				cursors := make(map[string]sources.Cursor)
				run := func(stream string, walk sources.Walk) {
					s.run++
					key := stream + string(walk)
					for done := false; !done; {
						page, err := s.source.Fetch(t.Context(), sources.Query{Stream: stream, Walk: walk, Cursor: cursors[key], Overlap: threeHours, Window: sixtyDays, Now: time.Now()})
						if err != nil {
							t.Fatalf("%s of %s: %v", walk, stream, err)
						}
						for _, it := range page.Items {
							s.bodies[it.ID[0]], s.shown[it.ID[0]] = it.Body, s.run
						}
						cursors[key], done = page.Cursor, page.Done
					}
				}
				for i := range 10 {
					for _, stream := range datedStreams {
						for range 5 {
							run(stream, sources.News)
							time.Sleep(3 * time.Minute)
						}
						run(stream, sources.Sweep)
						if i == 9 {
							run(stream, sources.Full)
						}
					}
				}
				check := func(stream, id string, created time.Time, body json.RawMessage, known *int) {
					age := time.Since(created)
					if s.shown[id] == 0 && age > 3*time.Hour {
						t.Errorf("%s: %s (%s old) was never read", stream, id, age)
					}
					if bytes.Equal(s.bodies[id], body) {
						*known++
					}
				}
				questions, feedbacks := 0, 0
				for _, q := range s.world.Questions() {
					check(wildberries.Questions, q.ID, q.Created, q.JSON, &questions)
				}
				for _, f := range s.world.Feedbacks() {
					check(wildberries.Feedbacks, f.ID, f.Created, f.JSON, &feedbacks)
				}
				// What has changed since the full readings apart.
				if all := len(s.world.Questions()); questions < all*97/100 {
					t.Errorf("%d of %d questions are known as they are", questions, all)
				}
				if all := len(s.world.Feedbacks()); feedbacks < all*97/100 {
					t.Errorf("%d of %d feedbacks are known as they are", feedbacks, all)
				}
				s.lawful()
			}))
		})
	}
}
