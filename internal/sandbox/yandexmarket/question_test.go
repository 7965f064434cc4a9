package yandexmarket_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sandbox/yandexmarket"
)

const (
	questionsPath = "/v1/businesses/{business}/goods-questions"
	answersPath   = questionsPath + "/answers"
	updatePath    = questionsPath + "/update"
)

// questionItem is what a client reads of a question.
type questionItem struct {
	QuestionIdentifiers struct{ ID, CategoryID int64 }
	BusinessID          int64
	Text                string
	CreatedAt           time.Time
	Votes               struct{ Likes, Dislikes int }
}

// answerItem is what a client reads of an answer.
type answerItem struct {
	ID, QuestionID int64
	Text, Status   string
	CanModify      bool
	CreatedAt      time.Time
	Author         struct{ Type string }
	Votes          struct{ Likes, Dislikes int }
	Comments       []struct {
		ID, AnswerID, ParentID int64
		Text, Status           string
	}
}

func (s *shop) questionIDs(body string) (ids []int64) {
	s.t.Helper()
	for _, q := range decodeAll[questionItem](s.t, s.walkItems("POST", questionsPath+"?limit=50", body, "questions")) {
		ids = append(ids, q.QuestionIdentifiers.ID)
	}
	return ids
}

func (s *shop) answers(id int64) []answerItem {
	s.t.Helper()
	return decodeAll[answerItem](s.t, s.walkItems("POST", answersPath, fmt.Sprintf(`{"questionId":%d}`, id), "answers"))
}

func (s *shop) addQuestion(spec yandexmarket.NewQuestion) yandexmarket.Question {
	s.t.Helper()
	q, err := s.b.AddQuestion(spec)
	s.must(err)
	return q
}

func (s *shop) addAnswer(spec yandexmarket.NewComment) yandexmarket.Answer {
	s.t.Helper()
	a, err := s.b.AddAnswer(spec)
	s.must(err)
	return a
}

// TestQuestionDates: dateFrom and dateTo are days of the creation, in either zone, with the last one in or out.
func TestQuestionDates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{})
		at := func(text string) time.Time {
			when, err := time.Parse(time.RFC3339, text)
			s.must(err)
			return when
		}
		// Bubbles begin at 2000-01-01T00:00:00Z. In Moscow days begin three hours earlier.
		time.Sleep(75 * 24 * time.Hour) // 2000-03-16
		for id, created := range map[int64]string{
			1: "2000-03-01T20:59:59Z", 2: "2000-03-01T21:00:00Z", 3: "2000-03-02T00:00:00Z", 4: "2000-03-02T20:59:59Z", 5: "2000-03-02T21:00:00Z",
			6: "2000-03-02T23:59:59Z", 7: "2000-03-03T00:00:00Z", 8: "2000-01-20T00:00:00Z",
		} {
			s.addQuestion(yandexmarket.NewQuestion{ID: id, Created: at(created)})
		}
		for _, tc := range []struct {
			name, body string
			quirks     yandexmarket.QuestionQuirks
			want       []int64
		}{
			{"one day in Moscow", `{"dateFrom":"2000-03-02","dateTo":"2000-03-02","sort":"CREATED_AT_ASC"}`, yandexmarket.QuestionQuirks{}, []int64{2, 3, 4}},
			{"one day in UTC", `{"dateFrom":"2000-03-02","dateTo":"2000-03-02","sort":"CREATED_AT_ASC"}`,
				yandexmarket.QuestionQuirks{DaysInUTC: true}, []int64{3, 4, 5, 6}},
			{"dateTo is out", `{"dateFrom":"2000-03-01","dateTo":"2000-03-02"}`, yandexmarket.QuestionQuirks{ToExclusive: true, OldestFirst: true}, []int64{1}},
			{"the same day is none when dateTo is out", `{"dateFrom":"2000-03-02","dateTo":"2000-03-02"}`, yandexmarket.QuestionQuirks{ToExclusive: true}, nil},
			{"default: the last month, newest first", ``, yandexmarket.QuestionQuirks{}, []int64{7, 6, 5, 4, 3, 2, 1}},
			{"default order the other way", `{}`, yandexmarket.QuestionQuirks{OldestFirst: true}, []int64{1, 2, 3, 4, 5, 6, 7}},
			{"asked for", `{"sort":"CREATED_AT_DESC"}`, yandexmarket.QuestionQuirks{OldestFirst: true}, []int64{7, 6, 5, 4, 3, 2, 1}},
			{"a month before dateTo", `{"dateTo":"2000-02-20"}`, yandexmarket.QuestionQuirks{}, []int64{8}},
			{"by id, however old", `{"questionIds":[8,1,99]}`, yandexmarket.QuestionQuirks{}, []int64{1, 8}},
			{"by id within the default month", `{"questionIds":[8,1,99]}`, yandexmarket.QuestionQuirks{IDsWithinDates: true}, []int64{1}},
		} {
			s.setQuirks(yandexmarket.Quirks{Questions: tc.quirks})
			if got := s.questionIDs(tc.body); !slices.Equal(got, tc.want) {
				t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
			}
		}
		var result struct{ TotalCount int }
		s.setQuirks(yandexmarket.Quirks{})
		if s.post(questionsPath+"?limit=2", `{}`, &result); result.TotalCount != 7 {
			t.Errorf("totalCount %d, want 7: those that the filter finds, not those of the page", result.TotalCount)
		}
	})
}

// TestQuestionRefusals: what the methods about questions refuse, with the documented texts.
func TestQuestionRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{})
		s.addQuestion(yandexmarket.NewQuestion{ID: 1})
		buyers := s.addAnswer(yandexmarket.NewComment{To: 1})
		remark, err := s.b.AddAnswerComment(yandexmarket.NewComment{To: buyers.ID})
		s.must(err)
		fiftyOne := strings.Trim(strings.Join(strings.Fields(fmt.Sprint(make51())), ","), "[]")
		entity := func(id int64, kind string) string { return fmt.Sprintf(`{"id":%d,"type":%q}`, id, kind) }
		for _, tc := range []struct {
			name, path, body string
			status           int
			text             string // "": none is documented
		}{
			{"exactly a month", questionsPath, `{"dateFrom":"2000-01-31","dateTo":"2000-02-29"}`, 200, ""},
			{"more than a month", questionsPath, `{"dateFrom":"2000-01-31","dateTo":"2000-03-01"}`, 400, ""},
			{"more than a month to today", questionsPath, `{"dateFrom":"1999-11-30"}`, 400, ""},
			{"the end before the beginning", questionsPath, `{"dateFrom":"2000-01-02","dateTo":"2000-01-01"}`, 400, ""},
			{"a moment for a date", questionsPath, `{"dateFrom":"2000-01-01T00:00:00Z"}`, 400, ""},
			{"51 ids", questionsPath, `{"questionIds":[` + fiftyOne + `]}`, 400, ""},
			{"unknown order", questionsPath, `{"sort":"ASC"}`, 400, ""},
			{"limit", questionsPath + "?limit=51", `{}`, 400, ""},
			{"bad token", questionsPath + "?pageToken=x", `{}`, 400, "Bad page token"},
			{"answers without a body", answersPath, ``, 400, "Required request body is missing"},
			{"answers to nothing", answersPath, `{}`, 400, ""},
			{"51 answers", answersPath, `{"answerIds":[` + fiftyOne + `]}`, 400, ""},
			{"no operation", updatePath, `{"text":"a"}`, 400, ""},
			{"create without a parent", updatePath, `{"operationType":"CREATE","entityId":` + entity(1, "QUESTION") + `,"text":"a"}`, 400,
				"parentEntityId required for CREATE operation"},
			{"update without an entity", updatePath, `{"operationType":"UPDATE","text":"a"}`, 400, "entityId required for UPDATE and DELETE operation"},
			{"delete without an entity", updatePath, `{"operationType":"DELETE"}`, 400, "entityId required for UPDATE and DELETE operation"},
			{"update a question", updatePath, `{"operationType":"UPDATE","text":"a","entityId":` + entity(1, "QUESTION") + `}`, 400,
				"QUESTION entity type cannot be updated"},
			{"delete a question", updatePath, `{"operationType":"DELETE","entityId":` + entity(1, "QUESTION") + `}`, 400,
				"QUESTION entity type cannot be updated"},
			{"comment on a comment", updatePath, `{"operationType":"CREATE","text":"a","parentEntityId":` + entity(remark, "COMMENT") + `}`, 400,
				"Cannot create a comment on another comment."},
			{"no text", updatePath, `{"operationType":"CREATE","parentEntityId":` + entity(1, "QUESTION") + `}`, 400, ""},
			{"long text", updatePath, `{"operationType":"CREATE","text":"` + strings.Repeat("я", 5001) + `","parentEntityId":` + entity(1, "QUESTION") + `}`, 400, ""},
			{"unknown question", updatePath, `{"operationType":"CREATE","text":"a","parentEntityId":` + entity(9, "QUESTION") + `}`, 404, ""},
			{"unknown answer", updatePath, `{"operationType":"CREATE","text":"a","parentEntityId":` + entity(9, "ANSWER") + `}`, 404, ""},
			{"answer of a buyer", updatePath, `{"operationType":"UPDATE","text":"a","entityId":` + entity(buyers.ID, "ANSWER") + `}`, 403, ""},
			{"comment of a buyer", updatePath, `{"operationType":"DELETE","entityId":` + entity(remark, "COMMENT") + `}`, 403, ""},
		} {
			w := s.do(http.MethodPost, tc.path, tc.body)
			switch {
			case w.Code != tc.status:
				t.Errorf("%s: status %d, want %d: %s", tc.name, w.Code, tc.status, w.Body)
			case tc.text != "":
				s.wantError(w, tc.status, tc.text)
			}
		}
	})
}

// TestAnswersAreSilent: an answer, a comment, an edit, a status or a vote on an old question changes nothing in the list of
// questions; only the list of answers tells.
func TestAnswersAreSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{})
		q := s.addQuestion(yandexmarket.NewQuestion{Created: time.Now().Add(-20 * 24 * time.Hour)})
		list := func() string { return s.do("POST", questionsPath, "").Body.String() }
		before := list()
		a := s.addAnswer(yandexmarket.NewComment{To: q.ID})
		seen := func() string { return s.do("POST", answersPath, fmt.Sprintf(`{"questionId":%d}`, q.ID)).Body.String() }
		last := seen()
		if !strings.Contains(last, `"comments":null`) {
			t.Errorf("an answer without comments: %s", last)
		}
		for name, change := range map[string]func() error{
			"comment": func() error { _, err := s.b.AddAnswerComment(yandexmarket.NewComment{To: a.ID}); return err },
			"edit":    func() error { return s.b.EditAnswer(a.ID, "Уже не знаю") },
			"status":  func() error { return s.b.SetAnswerStatus(a.ID, "BANNED") },
			"vote":    func() error { return s.b.VoteAnswer(a.ID) },
		} {
			s.must(change())
			now := seen()
			if now == last {
				t.Errorf("%s does not show in the answers", name)
			}
			last = now
		}
		if list() != before {
			t.Error("the list of questions shows something of it")
		}
		s.must(s.b.VoteQuestion(q.ID))
		if list() == before {
			t.Error("a vote for the question does not show")
		}
	})
}

// TestQuestionUpdate: create, update and delete, of answers and comments; needAnswer goes by the shop's answer.
func TestQuestionUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{})
		q := s.addQuestion(yandexmarket.NewQuestion{})
		s.addAnswer(yandexmarket.NewComment{To: q.ID})
		time.Sleep(time.Second) // answers are in the order of their creation
		if got := s.questionIDs(`{"needAnswer":true}`); !slices.Equal(got, []int64{q.ID}) {
			t.Errorf("waiting for an answer: %v", got)
		}
		type created struct{ Entity struct{ ID int64 } }
		create := func(parent int64, kind string) int64 {
			var c created
			s.post(updatePath, fmt.Sprintf(`{"operationType":"CREATE","text":"Да","parentEntityId":{"id":%d,"type":%q}}`, parent, kind), &c)
			return c.Entity.ID
		}
		answer := create(q.ID, "QUESTION")
		comment := create(answer, "ANSWER")
		if got := s.questionIDs(`{"needAnswer":true}`); len(got) != 0 {
			t.Errorf("still waiting for an answer: %v", got)
		}
		change := func(operation, kind string, id int64) {
			t.Helper()
			w := s.do("POST", updatePath, fmt.Sprintf(`{"operationType":%q,"text":"Нет","entityId":{"id":%d,"type":%q}}`, operation, id, kind))
			if w.Code != 200 || w.Body.String() != `{"status":"OK"}` {
				t.Errorf("%s of %s: %d %s", operation, kind, w.Code, w.Body)
			}
		}
		change("UPDATE", "ANSWER", answer)
		change("UPDATE", "COMMENT", comment)
		got := s.answers(q.ID)[1]
		if got.ID != answer || got.Text != "Нет" || got.Status != "UNMODERATED" || len(got.Comments) != 1 || got.Comments[0].Text != "Нет" {
			t.Errorf("after the updates: %+v", got)
		}
		plain := s.addQuestion(yandexmarket.NewQuestion{}).ID
		s.addAnswer(yandexmarket.NewComment{To: plain, By: "BUSINESS"})
		time.Sleep(60 * 24 * time.Hour)
		if got := s.answers(plain)[0]; got.Status == "UNMODERATED" {
			t.Error("after two months nobody has looked at an answer")
		}
		if got := s.answers(q.ID)[1]; got.Status == "UNMODERATED" || got.Comments[0].Status == "UNMODERATED" {
			t.Errorf("after two months nobody has looked: %+v", got)
		}
		change("DELETE", "COMMENT", comment)
		if got := s.answers(q.ID)[1]; len(got.Comments) != 0 {
			t.Errorf("after the deletion: %+v", got)
		}
		change("DELETE", "ANSWER", answer)
		if got := s.answers(q.ID); len(got) != 1 {
			t.Errorf("after the deletion: %+v", got)
		}
		s.must(s.b.DeleteQuestion(q.ID))
		if len(s.questionIDs(fmt.Sprintf(`{"questionIds":[%d]}`, q.ID))) != 0 || len(s.answers(q.ID)) != 0 {
			t.Error("the deleted question is shown, or its answers are")
		}
	})
}

// TestLateQuestions: what is late is shown later than it was created, and no later than the spec says.
func TestLateQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Journal: true, Questions: yandexmarket.QuestionSpec{
			Every: time.Hour, Late: 0.5, LateBy: 6 * time.Hour,
		}}})
		time.Sleep(30 * 24 * time.Hour)
		late, prompt, seen := 0, 0, make(map[string]bool)
		for _, item := range s.b.Journal() {
			if item.Kind != yandexmarket.KindQuestion || seen[item.ID] {
				continue
			}
			seen[item.ID] = true
			created := decodeAll[questionItem](t, []json.RawMessage{item.JSON})[0].CreatedAt
			switch by := item.From.Sub(created); {
			case by > 6*time.Hour+time.Second:
				t.Errorf("shown %s late", by)
			case by > time.Second:
				late++
			default:
				prompt++
			}
		}
		if late < 100 || prompt < 100 {
			t.Errorf("%d late, %d prompt of about 700", late, prompt)
		}
	})
}
