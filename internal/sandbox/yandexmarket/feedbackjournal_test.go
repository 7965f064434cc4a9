package yandexmarket_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sandbox/kit"
	"syncd/internal/sandbox/yandexmarket"
)

// livelyWorld is one in which all that can happen to reviews, questions and returns happens often.
var livelyWorld = yandexmarket.WorldSpec{
	Journal: true, Span: 20 * 24 * time.Hour,
	Feedback: yandexmarket.FeedbackSpec{History: 60, Every: time.Hour, ChangeEvery: 20 * time.Minute},
	Questions: yandexmarket.QuestionSpec{
		History: 40, Every: 2 * time.Hour, ChangeEvery: 20 * time.Minute, Late: 0.3, LateBy: 5 * time.Hour,
	},
	Returns: yandexmarket.ReturnSpec{
		History: 20, Every: 3 * time.Hour, ChangeEvery: time.Hour, StillChanges: 0.2, Late: 0.2, LateBy: 5 * time.Hour, Undated: 0.1, Strange: 0.1,
	},
}

type shownKey struct {
	kind kit.Kind
	id   string
}

// shown is what the API shows of reviews, questions and returns, read as a client reads it.
func shown(s *shop) map[shownKey]json.RawMessage {
	s.t.Helper()
	out := make(map[shownKey]json.RawMessage)
	for _, raw := range s.walkItems("POST", feedbackPath+"?limit=50", "", "feedbacks") {
		id := decodeAll[feedbackItem](s.t, rawList(raw))[0].FeedbackID
		out[shownKey{yandexmarket.KindFeedback, str(id)}] = raw
		for _, raw := range s.walkItems("POST", commentsPath, fmt.Sprintf(`{"feedbackId":%d}`, id), "comments") {
			out[shownKey{yandexmarket.KindFeedbackComment, str(decodeAll[commentItem](s.t, rawList(raw))[0].ID)}] = raw
		}
	}
	month := fmt.Sprintf(`{"dateFrom":%q,"dateTo":%q}`, time.Now().Add(-27*24*time.Hour).Format(time.DateOnly), time.Now().Add(24*time.Hour).Format(time.DateOnly))
	for _, raw := range s.walkItems("POST", questionsPath, month, "questions") {
		id := decodeAll[questionItem](s.t, rawList(raw))[0].QuestionIdentifiers.ID
		out[shownKey{yandexmarket.KindQuestion, str(id)}] = raw
		for _, raw := range s.walkItems("POST", answersPath, fmt.Sprintf(`{"questionId":%d}`, id), "answers") {
			out[shownKey{yandexmarket.KindAnswer, str(decodeAll[answerItem](s.t, rawList(raw))[0].ID)}] = raw
		}
	}
	for _, st := range s.b.Stores() {
		for _, raw := range s.walkItems("GET", fmt.Sprintf("/v2/campaigns/%d/returns", st.ID), "", "returns") {
			out[shownKey{yandexmarket.KindReturn, fmt.Sprintf("%d/%d", st.ID, decodeAll[returnItem](s.t, rawList(raw))[0].ID)}] = raw
		}
	}
	return out
}

// TestJournalIsWhatTheAPIShows: at every moment the states that the journal has open are those that the API shows, and
// those of one item follow one another without an overlap. After Rest nothing happens any more.
func TestJournalIsWhatTheAPIShows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, yandexmarket.Config{
			Seed: 3, Businesses: []yandexmarket.BusinessSpec{{Stores: []yandexmarket.StoreSpec{{}, {Placement: yandexmarket.DBS}}, World: livelyWorld}},
			Limits: map[yandexmarket.Method]int{
				yandexmarket.MethodGetGoodsFeedbackComments: 1 << 20, yandexmarket.MethodGetGoodsQuestions: 1 << 20,
				yandexmarket.MethodGetGoodsQuestionAnswers: 1 << 20, yandexmarket.MethodGetGoodsFeedbacks: 1 << 20,
			},
		})
		over := make(map[kit.Kind]int)
		for range 10 {
			time.Sleep(14*time.Hour + 7*time.Minute)
			shows := shown(s)
			clear(over)
			last := make(map[shownKey]kit.Showing)
			for _, state := range s.b.Journal() {
				k := shownKey{state.Kind, state.ID}
				switch state.Kind {
				case yandexmarket.KindFeedback, yandexmarket.KindFeedbackComment, yandexmarket.KindQuestion, yandexmarket.KindAnswer, yandexmarket.KindReturn:
				default:
					continue // another file's
				}
				if before, ok := last[k]; ok && (before.To.IsZero() || state.From.Before(before.To)) {
					t.Errorf("%v: shown until %s, and then from %s", k, before.To, state.From)
				}
				last[k] = state
				if !state.To.IsZero() {
					over[state.Kind]++
					continue
				}
				if !bytes.Equal(shows[k], state.JSON) {
					t.Errorf("%v: the journal has %s, and the API shows %q", k, state.JSON, shows[k])
				}
				delete(shows, k)
			}
			for k := range shows {
				t.Errorf("%v is shown, and the journal does not know", k)
			}
		}
		for _, kind := range []kit.Kind{
			yandexmarket.KindFeedback, yandexmarket.KindFeedbackComment, yandexmarket.KindQuestion, yandexmarket.KindAnswer, yandexmarket.KindReturn,
		} {
			if over[kind] < 20 {
				t.Errorf("%d states of %s are over", over[kind], kind)
			}
		}
		s.b.Rest()
		before := len(s.b.Journal())
		time.Sleep(10 * 24 * time.Hour)
		if n := len(s.b.Journal()); n != before {
			t.Errorf("%d states, %d when the world came to rest", n, before)
		}
	})
}

// TestLookingChangesNothing: what happens in a world does not depend on who looks at it when.
func TestLookingChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := yandexmarket.BusinessSpec{World: livelyWorld}
		watched, alone := newShop(t, spec), newShop(t, spec)
		for range 50 {
			time.Sleep(97 * time.Minute)
			shown(watched)
		}
		a, b := watched.b.Journal(), alone.b.Journal()
		if len(a) < 1000 || len(a) != len(b) {
			t.Fatalf("%d states and %d", len(a), len(b))
		}
		for i := range a {
			if a[i].Kind != b[i].Kind || a[i].ID != b[i].ID || !bytes.Equal(a[i].JSON, b[i].JSON) {
				t.Fatalf("state %d is %s, and %s where nobody looked", i, a[i].JSON, b[i].JSON)
			}
		}
	})
}

// TestAtRestNothingHappens: without rhythms, a history is the same a month after the epoch but for what was late.
func TestAtRestNothingHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := livelyWorld
		world.Feedback = yandexmarket.FeedbackSpec{History: 300}
		world.Questions = yandexmarket.QuestionSpec{History: 100, Late: 0.5, LateBy: 5 * time.Hour}
		world.Returns = yandexmarket.ReturnSpec{History: 100}
		s := newShop(t, yandexmarket.BusinessSpec{World: world})
		time.Sleep(5 * 24 * time.Hour) // who is late has come, but for some in ten thousand
		before := len(s.b.Journal())
		time.Sleep(40 * 24 * time.Hour)
		for _, state := range s.b.Journal()[before:] {
			if state.Kind != yandexmarket.KindFeedback {
				t.Errorf("%s %s changed", state.Kind, state.ID)
			}
		}
		if n := len(s.b.Journal()) - before; n > 5 {
			t.Errorf("%d states of reviews came in the second month", n)
		}
	})
}
