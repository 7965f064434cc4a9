package sandbox_test

import (
	"encoding/json"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"syncd/internal/sandbox"
)

func TestFeedbackWrites(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{ModerateAfter: -1})
		s.addFeedback(sandbox.FeedbackSpec{ID: "f", Returnable: true})
		s.wantStatus(s.do("GET", "/api/v1/new-feedbacks-questions", ""), 200, `"hasNewFeedbacks":true`)
		s.wantStatus(s.do("GET", "/api/v1/feedbacks/count-unanswered", ""), 200, `{"countUnanswered":1,"countUnansweredToday":1}`)
		send := func(method, body string) {
			t.Helper()
			time.Sleep(time.Second)
			w := s.do(method, "/api/v1/feedbacks/answer", body)
			if w.Code != http.StatusNoContent || w.Body.Len() > 0 || w.Header().Get("Content-Type") != "" {
				t.Fatalf("%d %v %s", w.Code, w.Header(), w.Body)
			}
		}
		want := func(text string, editable bool) {
			t.Helper()
			if a := s.feedback("f").Answer; text == "" && a != nil || text != "" && (a == nil || a.Text != text || a.Editable != editable) {
				t.Fatalf("answer %+v, want %q", a, text)
			}
		}
		send("POST", `{"id":"unknown","text":"да"}`) // the id is not validated
		send("PATCH", `{"id":"f","text":"рано"}`)    // there is nothing to edit
		want("", false)
		send("POST", `{"id":"f","text":"да"}`)
		want("да", true)
		s.wantStatus(s.do("GET", "/api/v1/new-feedbacks-questions", ""), 200, `"hasNewFeedbacks":false`)
		send("POST", `{"id":"f","text":"дважды"}`)
		want("да", true)
		send("PATCH", `{"id":"f","text":"нет"}`)
		want("нет", false)
		send("PATCH", `{"id":"f","text":"снова"}`) // one edit
		want("нет", false)

		s.addFeedback(sandbox.FeedbackSpec{ID: "g"})
		must(t, s.world.AnswerFeedback("g", "да"))
		time.Sleep(60 * 24 * time.Hour)
		send("PATCH", `{"id":"g","text":"поздно"}`)
		if a := s.feedback("g").Answer; a.Text != "да" {
			t.Errorf("edited after 60 days: %+v", a)
		}

		ret := func(status int, text, body string) {
			t.Helper()
			time.Sleep(time.Second)
			s.wantStatus(s.do("POST", "/api/v1/feedbacks/order/return", body), status, text)
		}
		ret(400, "failed to decode JSON request.", `{`)
		ret(400, "Неправильный id в запросе", `{}`)
		ret(400, "Не удалось получить отзыв", `{"feedbackId":"unknown"}`)
		ret(422, "Запрос на возврат покупок недоступен", `{"feedbackId":"g"}`)
		ret(200, `{"data":{},"error":false,"errorText":"","additionalErrors":null}`, `{"feedbackId":"f"}`)
		ordered := time.Now().UTC().Format(time.RFC3339)
		if f := s.feedback("f"); f.IsAbleReturnProductOrders || f.ReturnProductOrdersDate == nil || *f.ReturnProductOrdersDate != ordered {
			t.Errorf("after the return was ordered: %+v", f)
		}
		ret(422, "Запрос на возврат покупок недоступен", `{"feedbackId":"f"}`)
	})
}

func TestRefusedAnswers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		s.addFeedback(sandbox.FeedbackSpec{ID: "f"})
		good := `{"id":"f","text":"да"}`
		for _, tt := range []struct{ kind, body, detail string }{
			{"", good, "content-type header not specified"},
			{"u", good, "content-type is not a valid mime-type: u"},
			{"application/javascript", good, "not a json content-type: application/javascript"},
			{"application/json", `{"id":"f"`, "Неверный синтаксис JSON"},
			{"application/json; charset=utf-8", `{"id":"f","text":"д"}`, "from 2 to 5000"},
			{"application/json", `{"id":"f","text":"` + strings.Repeat("д", 5001) + `"}`, "from 2 to 5000"},
		} {
			for _, method := range []string{"POST", "PATCH"} {
				time.Sleep(time.Second)
				r := s.request(method, "/api/v1/feedbacks/answer", tt.body)
				r.Header.Set("Content-Type", tt.kind)
				s.wantStatus(s.serve(r), 400, `{"title":"bad request","requestId":"`, `"origin":"fbapi","detail":"`, tt.detail)
			}
		}
		if s.feedback("f").Answer != nil {
			t.Error("answered")
		}
	})
}

func TestFeedbacksByHand(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Feedbacks: 20, AnswerShare: -1, FeedbackSpan: time.Hour})
		var id string
		for _, f := range s.world.Feedbacks() {
			if !f.Answered {
				id = f.ID
			}
		}
		list := func(answered string) bool {
			t.Helper()
			return slices.Contains(s.feedbacks("?take=50&skip=0&isAnswered="+answered).ids(t), id)
		}
		before := len(s.world.FeedbackIDs())
		for range 2 {
			must(t, s.world.AnswerFeedback(id, "да"))
			if got := s.feedback(id); got.Answer.State != "reviewRequired" || got.State != "wbRu" || !got.WasViewed || list("false") || !list("true") {
				t.Errorf("answered: %+v", got)
			}
			must(t, s.world.UnanswerFeedback(id))
			if got := s.feedback(id); got.Answer != nil || got.State != "none" || !list("false") || list("true") {
				t.Errorf("not answered: %+v", got)
			}
			must(t, s.world.DeleteFeedback(id))
			if list("false") || len(s.world.FeedbackIDs()) != before-1 || s.world.DeleteFeedback(id) == nil {
				t.Error("not deleted")
			}
			s.wantStatus(s.do("GET", "/api/v1/feedback?id="+id, ""), 422)
			must(t, s.world.RestoreFeedback(id))
			if !list("false") || len(s.world.FeedbackIDs()) != before || s.world.RestoreFeedback(id) == nil {
				t.Error("not restored")
			}
		}
		must(t, s.world.EditFeedback(id, map[string]any{
			"orderStatus": "stolen", "answer": map[string]any{"state": "odd"}, "answer.text": nil, "productDetails.depth.x": 1, "lastOrderShkId": int64(math.MaxInt64),
		}))
		var got struct {
			OrderStatus    string
			Answer         map[string]any
			ProductDetails struct {
				NmID  int `json:"nmId"`
				Depth struct{ X int }
			}
			LastOrderShkID int64 `json:"lastOrderShkId"`
		}
		var one struct{ Data json.RawMessage }
		s.get("/api/v1/feedback?id="+id, &one)
		must(t, json.Unmarshal(one.Data, &got))
		if text, ok := got.Answer["text"]; got.OrderStatus != "stolen" || got.Answer["state"] != "odd" || !ok || text != nil ||
			got.ProductDetails.Depth.X != 1 || got.ProductDetails.NmID == 0 || got.LastOrderShkID != math.MaxInt64 {
			t.Errorf("edited: %s", one.Data)
		}
		if !list("false") {
			t.Error("an edit moved it to the other list")
		}
		for name, err := range map[string]error{
			"answer": s.world.AnswerFeedback("nothing", ""), "edit": s.world.EditFeedback("nothing", nil),
			"delete": s.world.DeleteFeedback("nothing"), "value": s.world.EditFeedback(id, map[string]any{"x": func() {}}),
		} {
			if err == nil {
				t.Errorf("%s: no error", name)
			}
		}
		if _, err := s.world.AddFeedback(sandbox.FeedbackSpec{ID: id}); err == nil {
			t.Error("no error for an id that exists")
		}
		raw := s.addFeedback(sandbox.FeedbackSpec{Raw: json.RawMessage(`"odd"`), NmID: 5, Photos: 2})
		if string(raw.JSON) != `"odd"` {
			t.Errorf("raw: %s", raw.JSON)
		}
		must(t, s.world.AnswerFeedback(raw.ID, "да"))
		if f := s.feedback(raw.ID); f.ProductDetails.NmID != 5 || len(f.PhotoLinks) != 2 || f.Text == "" {
			t.Errorf("after a change: %+v", f)
		}
	})
}

func TestSchemaGrowth(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Feedbacks: 20, Questions: 20, FeedbackEvery: time.Minute, QuestionEvery: time.Minute})
		has := func() (with, without int) {
			for _, item := range snapshot(s.world) {
				if strings.Contains(item, `"newField":"`) {
					with++
				} else {
					without++
				}
			}
			return with, without
		}
		if with, _ := has(); with > 0 {
			t.Errorf("%d have it before", with)
		}
		s.world.ExtendFeedbacks()
		s.world.ExtendQuestions()
		time.Sleep(time.Hour)
		if with, without := has(); with < 140 || without > 0 {
			t.Errorf("%d have it, %d not", with, without)
		}
	})
}

const rating = "/api/common/v1/rating"

func TestRatingIsForServiceTokensOnceAMinute(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		s.wantStatus(s.do("GET", rating, ""), 403, `"detail":"personal token is not allowed","code":"personal token is not allowed for this path"`)
		s.token = s.MintToken(sandbox.TokenSpec{Seller: s.world.ID(), Acc: sandbox.AccService})
		s.wantStatus(s.do("GET", rating, ""), 200, `{"feedbackCount":0,"valuation":0}`)
		s.wantStatus(s.do("GET", rating, ""), 429)
		for _, stars := range []int{5, 5, 4} {
			s.addFeedback(sandbox.FeedbackSpec{Rating: stars})
		}
		time.Sleep(time.Minute)
		s.wantStatus(s.do("GET", rating, ""), 200, `{"feedbackCount":3,"valuation":4.67}`)
		s.wantStatus(s.do("GET", "/api/v1/feedbacks/count-unanswered", ""), 200) // another bucket
	})
}
