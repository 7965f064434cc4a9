package sandbox_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"syncd/internal/sandbox"
)

type questionPage struct {
	Data struct {
		CountUnanswered, CountArchive int
		Questions                     []json.RawMessage
	}
	Error bool
}

type question struct {
	ID, Text, CreatedDate, State string
	Answer                       *struct {
		Text, CreateDate string
		Editable         bool
	}
	ProductDetails struct {
		NmID        int `json:"nmId"`
		ProductName string
	}
	WasViewed, IsWarned bool
}

func decodeQuestion(t *testing.T, raw []byte) question {
	t.Helper()
	var out question
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *shop) questions(query string) questionPage {
	s.t.Helper()
	var p questionPage
	s.get("/api/v1/questions?"+query, &p)
	return p
}

func (p questionPage) ids(t *testing.T) []string {
	out := []string{}
	for _, raw := range p.Data.Questions {
		out = append(out, decodeQuestion(t, raw).ID)
	}
	return out
}

func TestQuestionListsAreTheWorld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Questions: 500})
		want := map[bool][]string{}
		for _, q := range s.world.Questions() {
			want[q.Answered] = append(want[q.Answered], q.ID)
		}
		if len(want[true]) < 300 || len(want[false]) < 30 {
			t.Fatalf("%d answered, %d not", len(want[true]), len(want[false]))
		}
		for answered, ids := range want {
			var got []string
			for skip := 0; ; skip += 70 {
				p := s.questions(fmt.Sprintf("isAnswered=%t&take=70&skip=%d&order=dateAsc", answered, skip))
				if p.Data.CountArchive != len(want[true]) || p.Data.CountUnanswered != len(want[false]) {
					t.Fatalf("counts %d and %d", p.Data.CountUnanswered, p.Data.CountArchive)
				}
				if len(p.Data.Questions) == 0 {
					break
				}
				got = append(got, p.ids(t)...)
			}
			if !slices.Equal(got, ids) {
				t.Errorf("answered=%t: not the world's list", answered)
			}
			desc := s.questions(fmt.Sprintf("isAnswered=%t&take=10000&skip=0", answered)).ids(t)
			slices.Reverse(desc)
			if !slices.Equal(desc, ids) {
				t.Errorf("answered=%t: the default order is not dateDesc", answered)
			}
		}
	})
}

func TestQuestionShape(t *testing.T) {
	s := newShop(t, sandbox.WorldSpec{Questions: 500, Span: 90 * 24 * time.Hour})
	id := regexp.MustCompile(`^[A-Za-z0-9_-]{20}$`)
	states, frozen := make(map[string]int), 0
	for _, raw := range s.world.Questions() {
		q := decodeQuestion(t, raw.JSON)
		created, err := time.Parse(time.RFC3339Nano, q.CreatedDate)
		if err != nil || !created.Equal(raw.Created) || !strings.HasSuffix(q.CreatedDate, "Z") {
			t.Errorf("createdDate %s: %v", q.CreatedDate, err)
		}
		if !id.MatchString(q.ID) || q.Text == "" || q.ProductDetails.NmID == 0 {
			t.Errorf("question %s", raw.JSON)
		}
		states[q.State]++
		if (q.Answer == nil) != (q.State == "suppliersPortalSynch") || raw.Answered != (q.Answer != nil) {
			t.Errorf("state %s: %s", q.State, raw.JSON)
		}
		if q.Answer == nil {
			if !strings.Contains(string(raw.JSON), `"answer":null`) {
				t.Errorf("no answer:null in %s", raw.JSON)
			}
			continue
		}
		if at, err := time.Parse(time.RFC3339Nano, q.Answer.CreateDate); err != nil || !at.After(created) || !q.WasViewed {
			t.Errorf("answer of %s: %v", raw.JSON, err)
		}
		if !q.Answer.Editable {
			frozen++
		}
	}
	if states["none"] == 0 || states["wbRu"] == 0 || states["suppliersPortalSynch"] == 0 || frozen < 50 {
		t.Errorf("states %v, %d answers not editable", states, frozen)
	}
}

func TestQuestionParameters(t *testing.T) {
	list, count := "/api/v1/questions?", "/api/v1/questions/count?"
	tests := map[string]string{
		list + "take=1&skip=0":                                      "Плохой формат isAnswered",
		list + "isAnswered=yes&take=1&skip=0":                       "Плохой формат isAnswered",
		list + "isAnswered=true&skip=0":                             "Something went wrong",
		list + "isAnswered=true&take=1":                             "Something went wrong",
		list + "isAnswered=true&take=0&skip=0":                      "Something went wrong",
		list + "isAnswered=true&take=10001&skip=0":                  "Something went wrong",
		list + "isAnswered=true&take=1&skip=10000":                  "Something went wrong",
		list + "isAnswered=true&take=1&skip=-1":                     "Something went wrong",
		list + "isAnswered=true&take=1&skip=0&order=asc":            "Something went wrong",
		list + "isAnswered=true&take=1&skip=0&nmId=x":               "Something went wrong",
		list + "isAnswered=true&take=1&skip=0&dateFrom=2026-01-01":  "Плохой формат dateFrom",
		list + "isAnswered=true&take=1&skip=0&dateTo=1.5":           "Плохой формат dateTo",
		list + "isAnswered=true&take=1&skip=0&dateTo=":              "Плохой формат dateTo",
		count + "isAnswered=1":                                      "Плохой формат isAnswered",
		count + "dateFrom=x":                                        "Плохой формат dateFrom",
		count + "dateTo=x":                                          "Плохой формат dateTo",
		list + "isAnswered=true&take=9999&skip=1":                   "",
		list + "isAnswered=true&take=1&skip=0&dateFrom=&unknown=1":  "",
		list + "isAnswered=true&take=1&skip=0&dateFrom=99999999999": "",
		list + "isAnswered=true&take=1&skip=0&dateFrom=9&dateTo=5":  "",
		count + "dateFrom=1&dateTo=99999999999999999":               "",
	}
	for target, text := range tests {
		bubble(t, func(t *testing.T) {
			s := newShop(t, sandbox.WorldSpec{Questions: 5})
			if text == "" {
				s.wantStatus(s.do("GET", target, ""), http.StatusOK, `"error":false`)
				return
			}
			s.wantStatus(s.do("GET", target, ""), http.StatusBadRequest, `{"data":null,"error":true,"errorText":"`+text+`","additionalErrors":null,"requestId":"`)
		})
	}
}

func TestDateWindow(t *testing.T) {
	// Created at 10.0 s, 10.5 s and 12.0 s.
	tests := map[string]struct {
		quirks sandbox.Quirks
		query  string
		want   string
	}{
		"inclusive":                   {sandbox.Quirks{}, "dateFrom=10&dateTo=12", "a b c"},
		"to cuts the second":          {sandbox.Quirks{}, "dateTo=10", "a"},
		"to, whole seconds":           {sandbox.Quirks{WholeSeconds: true}, "dateTo=10", "a b"},
		"to exclusive":                {sandbox.Quirks{ToExclusive: true}, "dateTo=12", "a b"},
		"to exclusive, whole seconds": {sandbox.Quirks{ToExclusive: true, WholeSeconds: true}, "dateTo=12", "a b"},
		"from exclusive":              {sandbox.Quirks{FromExclusive: true}, "dateFrom=10", "b c"},
		"from exclusive, whole":       {sandbox.Quirks{FromExclusive: true, WholeSeconds: true}, "dateFrom=10", "c"},
		"both exclusive, empty":       {sandbox.Quirks{FromExclusive: true, ToExclusive: true}, "dateFrom=12&dateTo=12", ""},
		"one second":                  {sandbox.Quirks{}, "dateFrom=12&dateTo=12", "c"},
		"turned round":                {sandbox.Quirks{}, "dateFrom=12&dateTo=10", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newShop(t, sandbox.WorldSpec{}, tt.quirks)
				for id, at := range map[string]int64{"a": 10_000, "b": 10_500, "c": 12_000} {
					if _, err := s.world.AddQuestion(sandbox.QuestionSpec{ID: id, Created: time.UnixMilli(at)}); err != nil {
						t.Fatal(err)
					}
				}
				got := s.questions("isAnswered=false&take=10&skip=0&order=dateAsc&" + tt.query).ids(t)
				if strings.Join(got, " ") != tt.want {
					t.Errorf("got %v, want %q", got, tt.want)
				}
				var count struct{ Data int }
				s.get("/api/v1/questions/count?isAnswered=false&"+tt.query, &count)
				if count.Data != len(got) {
					t.Errorf("count %d, want %d", count.Data, len(got))
				}
			})
		})
	}
}

func TestArticleFilter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Questions: 300, AnswerShare: -1})
		all := s.questions("isAnswered=false&take=1000&skip=0&order=dateAsc")
		article := decodeQuestion(t, all.Data.Questions[7]).ProductDetails.NmID
		var want []string
		for _, raw := range all.Data.Questions {
			if q := decodeQuestion(t, raw); q.ProductDetails.NmID == article {
				want = append(want, q.ID)
			}
		}
		if got := s.questions(fmt.Sprintf("isAnswered=false&take=1000&skip=0&order=dateAsc&nmId=%d", article)).ids(t); !slices.Equal(got, want) {
			t.Errorf("got %d, want %d", len(got), len(want))
		}
		if got := s.questions(fmt.Sprintf("isAnswered=false&take=2&skip=1&order=dateAsc&nmId=%d", article)).ids(t); !slices.Equal(got, want[1:3]) {
			t.Errorf("skipped: got %v, want %v", got, want[1:3])
		}
	})
}

func TestQuestionByID(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Questions: 3})
		q := s.world.Questions()[1]
		var got struct{ Data json.RawMessage }
		s.get("/api/v1/question?id="+q.ID, &got)
		if string(got.Data) != string(q.JSON) {
			t.Errorf("by id %s, in the list %s", got.Data, q.JSON)
		}
		s.wantStatus(s.do("GET", "/api/v1/question?id=nothing", ""), http.StatusUnprocessableEntity, "Невозможно получить вопрос по id")
		s.wantStatus(s.do("GET", "/api/v1/question", ""), http.StatusUnprocessableEntity)
	})
}

func TestPatchQuestion(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		q, err := s.world.AddQuestion(sandbox.QuestionSpec{})
		if err != nil {
			t.Fatal(err)
		}
		patch := func(status int, text, body string) {
			t.Helper()
			time.Sleep(time.Second)
			s.wantStatus(s.do("PATCH", "/api/v1/questions", strings.ReplaceAll(body, "ID", q.ID)), status, text)
		}
		now := func() question { t.Helper(); return decodeQuestion(t, s.world.Questions()[0].JSON) }
		const done = `{"data":null,"error":false,"errorText":"","additionalErrors":null}`

		s.wantStatus(s.do("GET", "/api/v1/new-feedbacks-questions", ""), 200, `"data":{"hasNewQuestions":true,"hasNewFeedbacks":false}`)
		patch(200, done, `{"id":"ID","wasViewed":true}`)
		if got := now(); !got.WasViewed || got.Answer != nil {
			t.Errorf("viewed: %+v", got)
		}
		s.wantStatus(s.do("GET", "/api/v1/new-feedbacks-questions", ""), 200, `"hasNewQuestions":false`)
		s.wantStatus(s.do("GET", "/api/v1/questions/count-unanswered", ""), 200, `{"countUnanswered":1,"countUnansweredToday":1}`)

		patch(200, done, `{"id":"ID","answer":{"text":"да"},"state":"wbRu"}`)
		if got := now(); got.State != "wbRu" || got.Answer.Text != "да" || !got.Answer.Editable {
			t.Errorf("answered: %+v", got)
		}
		if a, b := len(s.questions("isAnswered=false&take=1&skip=0").Data.Questions), len(s.questions("isAnswered=true&take=1&skip=0").Data.Questions); a != 0 || b != 1 {
			t.Errorf("%d in the list of unanswered, %d in the other", a, b)
		}
		s.wantStatus(s.do("GET", "/api/v1/questions/count", ""), 200, `"data":1`)
		s.wantStatus(s.do("GET", "/api/v1/questions/count-unanswered", ""), 200, `{"countUnanswered":0,"countUnansweredToday":0}`)

		answeredAt := now().Answer.CreateDate
		patch(200, done, `{"id":"ID","answer":{"text":"нет"},"state":"none"}`)
		if got := now(); got.State != "none" || got.Answer.Text != "нет" || got.Answer.Editable || got.Answer.CreateDate != answeredAt {
			t.Errorf("edited: %+v", got)
		}
		patch(422, "Не удалось отредактировать вопрос", `{"id":"ID","answer":{"text":"снова"},"state":"wbRu"}`)
		patch(404, "Не найден отзыв", `{"id":"other","wasViewed":true}`)
		for _, bad := range []string{
			``, `{`, `[]`, `{"wasViewed":true}`, `{"id":"ID"}`, `{"id":"ID","answer":{"text":"да"}}`, `{"id":"ID","state":"wbRu"}`,
			`{"id":"ID","answer":{"text":""},"state":"wbRu"}`, `{"id":"ID","answer":{"text":"да"},"state":"new"}`,
			`{"id":"ID","wasViewed":true,"answer":{"text":"да"},"state":"wbRu"}`,
		} {
			patch(400, "Something went wrong", bad)
		}
	})
}

func TestAnswerCannotBeEditedAfter60Days(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		q, _ := s.world.AddQuestion(sandbox.QuestionSpec{})
		if err := s.world.Answer(q.ID, "да"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(60 * 24 * time.Hour)
		s.wantStatus(s.do("PATCH", "/api/v1/questions", `{"id":"`+q.ID+`","answer":{"text":"нет"},"state":"wbRu"}`), 422)
	})
}

func TestAnswerAndUnanswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Questions: 20, AnswerShare: -1})
		id := s.world.Questions()[10].ID
		for range 2 {
			if err := s.world.Answer(id, "да"); err != nil {
				t.Fatal(err)
			}
			if q := s.world.Questions()[10]; !q.Answered || q.ID != id {
				t.Errorf("answered: %s", q.JSON)
			}
			if err := s.world.Unanswer(id); err != nil {
				t.Fatal(err)
			}
			if q := s.world.Questions()[10]; q.Answered || !strings.Contains(string(q.JSON), `"state":"suppliersPortalSynch","answer":null`) {
				t.Errorf("not answered: %s", q.JSON)
			}
		}
		if s.world.Answer("nothing", "") == nil || s.world.Unanswer("nothing") == nil {
			t.Error("no error for an unknown id")
		}
		if _, err := s.world.AddQuestion(sandbox.QuestionSpec{ID: id}); err == nil {
			t.Error("no error for an id that exists")
		}
		raw, err := s.world.AddQuestion(sandbox.QuestionSpec{Raw: json.RawMessage(`"odd"`), NmID: 5})
		if err != nil || string(raw.JSON) != `"odd"` {
			t.Errorf("raw: %s, %v", raw.JSON, err)
		}
	})
}
