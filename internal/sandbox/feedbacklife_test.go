package sandbox_test

import (
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"syncd/internal/sandbox"
)

func TestModerationOfAnswers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{FeedbackEvery: 30 * time.Second, AnswerAfter: 2 * time.Minute, ModerateAfter: 3 * time.Minute, AnswerShare: 1})
		states := make(map[string]map[string]bool) // by id
		for range 120 {
			time.Sleep(time.Minute)
			for _, raw := range s.world.Feedbacks() {
				if f := decodeFeedback(t, raw.JSON); f.Answer != nil {
					if states[f.ID] == nil {
						states[f.ID] = make(map[string]bool)
					}
					states[f.ID][f.Answer.State] = true
				}
			}
		}
		shown, refused := 0, 0
		for _, of := range states {
			if of["reviewRequired"] && of["wbRu"] {
				shown++
			}
			if of["reviewRequired"] && (of["rejected"] || of["rejectedAntispam"]) {
				refused++
			}
		}
		if shown < 80 || refused < 2 {
			t.Errorf("of %d answers %d were seen to be let through and %d to be refused", len(states), shown, refused)
		}
	})
}

func TestSupplementChangesItsParent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		parent := s.addFeedback(sandbox.FeedbackSpec{ID: "first", Created: time.Now().Add(-month)})
		time.Sleep(time.Hour)
		s.addFeedback(sandbox.FeedbackSpec{ID: "second", Parent: "first", Text: "Дополняю"})
		first, second := s.feedback("first"), s.feedback("second")
		if first.ChildFeedbackID == nil || *first.ChildFeedbackID != "second" || first.ParentFeedbackID != nil || first.CreatedDate != decodeFeedback(t, parent.JSON).CreatedDate {
			t.Errorf("first %+v", first)
		}
		if second.ParentFeedbackID == nil || *second.ParentFeedbackID != "first" || second.ChildFeedbackID != nil ||
			second.ProductDetails != first.ProductDetails || second.Text != "Дополняю" {
			t.Errorf("second %+v", second)
		}
		for _, of := range []string{"first", "second", "unknown"} {
			if _, err := s.world.AddFeedback(sandbox.FeedbackSpec{Parent: of}); err == nil {
				t.Errorf("%s supplemented again", of)
			}
		}
	})
}

func TestFeedbacksChange(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Feedbacks: 400, FeedbackSpan: 3 * 365 * 24 * time.Hour, FeedbackChangeEvery: 20 * time.Second})
		type item struct{ json, created string }
		before, first := make(map[string]item), true
		ever := make(map[string]bool)
		var added, gone, back, changed, moved int
		for range 60 {
			now := make(map[string]item)
			for _, f := range s.world.Feedbacks() {
				now[f.ID] = item{string(f.JSON), f.Created.String()}
				if _, there := before[f.ID]; !there && !first {
					if added++; ever[f.ID] {
						back++
					}
				}
				if b, there := before[f.ID]; there && b.json != string(f.JSON) {
					if changed++; b.created != f.Created.String() {
						moved++
					}
				}
				ever[f.ID] = true
			}
			for id := range before {
				if _, there := now[id]; !there {
					gone++
				}
			}
			before, first = now, false
			time.Sleep(2 * time.Minute)
		}
		if added-back < 5 || gone < 5 || back < 5 || changed < 100 || moved > 0 {
			t.Errorf("%d supplements, %d gone, %d came back, %d changed, %d of them in their date", added-back, gone, back, changed, moved)
		}
	})
}

var livelyFeedbacks = sandbox.WorldSpec{
	Feedbacks: 300, FeedbackEvery: 10 * time.Second, FeedbackChangeEvery: 15 * time.Second, AnswerAfter: time.Minute,
	Pins: 30, PinEvery: 30 * time.Second, PinChangeEvery: time.Minute, LateFeedbacks: 0.2, IndexedLateBy: time.Hour, AnsweredUnseen: 0.1,
}

func TestGrowthOfFeedbacksDoesNotDependOnWhoLooks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		watched, left := newShop(t, livelyFeedbacks), newShop(t, livelyFeedbacks)
		before := len(watched.world.FeedbackIDs())
		for range 1200 {
			time.Sleep(time.Second)
			watched.world.FeedbackIDs()
		}
		a, b := snapshot(watched.world), snapshot(left.world)
		if !slices.Equal(a, b) {
			t.Fatal("a world that was looked at each second differs from one that was left alone")
		}
		if grown := len(watched.world.FeedbackIDs()) - before; grown < 80 || grown > 130 { // 120, and some are late
			t.Errorf("grew by %d", grown)
		}
		punctual := livelyFeedbacks
		punctual.LateFeedbacks, punctual.FeedbackChangeEvery, punctual.PinEvery = 0, 0, 0
		ids := newShop(t, punctual).world.FeedbackIDs()
		for _, id := range newShop(t, livelyFeedbacks).world.FeedbackIDs() {
			if !slices.Contains(ids, id) {
				t.Fatalf("feedback %s is only in the late world", id)
			}
		}
	})
}

func TestFeedbacksAtRest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Feedbacks: 1000, Pins: 100, AnswerAfter: 24 * time.Hour, ModerateAfter: time.Hour})
		before := snapshot(s.world)
		time.Sleep(90 * 24 * time.Hour)
		if !slices.Equal(before, snapshot(s.world)) {
			t.Error("something happened")
		}
	})
}

func TestLateFeedbacksAppearBehindNewerOnes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{FeedbackEvery: 10 * time.Second, LateFeedbacks: 1, IndexedLateBy: time.Hour, AnswerShare: 1, AnswerAfter: time.Minute})
		newest, overtaken, answered, seen := time.Time{}, 0, 0, make(map[string]bool)
		for range 60 {
			time.Sleep(time.Minute)
			for _, f := range s.world.Feedbacks() {
				if seen[f.ID] {
					continue
				}
				seen[f.ID] = true
				if f.Created.Before(newest) {
					overtaken++
				}
				if strings.Contains(string(f.JSON), `"answer":{`) {
					answered++
				}
				if f.Created.After(newest) {
					newest = f.Created
				}
			}
		}
		if len(seen) < 100 || overtaken < len(seen)/2 || answered < len(seen)/4 {
			t.Errorf("of %d %d appeared behind a newer one, %d with an answer", len(seen), overtaken, answered)
		}
	})
}

func TestLargeFeedbackWorldsAreLean(t *testing.T) {
	const n = 200_000
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	s := newShop(t, sandbox.WorldSpec{Feedbacks: n, FeedbackSpan: 3 * 365 * 24 * time.Hour})
	if each := (heap() - before) / n; each > 400 {
		t.Errorf("%d bytes for a feedback", each)
	}
	if got := len(s.world.FeedbackIDs()); got != n {
		t.Errorf("%d feedbacks", got)
	}
	s.wantStatus(s.do("GET", "/api/v1/feedbacks/archive?take=5&skip=150000", ""), 200)
	runtime.KeepAlive(s)
}
