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
	feedbackPath = "/v2/businesses/{business}/goods-feedback"
	commentsPath = feedbackPath + "/comments"
)

// feedbackItem is what a client reads of a review.
type feedbackItem struct {
	FeedbackID   int64
	CreatedAt    time.Time
	NeedReaction bool
	Statistics   struct{ Rating, CommentsCount int }
	Description  struct{ Comment string }
}

// commentItem is what a client reads of a comment.
type commentItem struct {
	ID, FeedbackID, ParentID int64
	Text, Status             string
	CanModify                bool
	Author                   struct{ Type, Name string }
}

// pageItems reads one page of a list, and the token of the next.
func (s *shop) pageItems(method, target, body, field string) (items []json.RawMessage, next string) {
	s.t.Helper()
	var result map[string]json.RawMessage
	s.result(s.do(method, target, body), &result)
	var paging struct{ NextPageToken string }
	s.must(json.Unmarshal(result["paging"], &paging))
	s.must(json.Unmarshal(result[field], &items))
	return items, paging.NextPageToken
}

// walkItems reads all pages of a list.
func (s *shop) walkItems(method, target, body, field string) (all []json.RawMessage) {
	s.t.Helper()
	join := "?"
	if strings.Contains(target, "?") {
		join = "&"
	}
	for token, page := "", 0; ; page++ {
		at := target
		if token != "" {
			at += join + "pageToken=" + token
		}
		items, next := s.pageItems(method, at, body, field)
		all = append(all, items...)
		if token = next; token == "" || page > 1000 {
			return all
		}
	}
}

// decodeAll decodes items.
func decodeAll[T any](t *testing.T, raw []json.RawMessage) []T {
	t.Helper()
	out := make([]T, len(raw))
	for i := range raw {
		if err := json.Unmarshal(raw[i], &out[i]); err != nil {
			t.Fatalf("%v: %s", err, raw[i])
		}
	}
	return out
}

func (s *shop) feedbacks(body string) []feedbackItem {
	s.t.Helper()
	return decodeAll[feedbackItem](s.t, s.walkItems("POST", feedbackPath+"?limit=50", body, "feedbacks"))
}

func (s *shop) comments(id int64) []commentItem {
	s.t.Helper()
	return decodeAll[commentItem](s.t, s.walkItems("POST", commentsPath+"?limit=50", fmt.Sprintf(`{"feedbackId":%d}`, id), "comments"))
}

// addFeedback adds one that is a second old: the end of the list's window is exclusive.
func (s *shop) addFeedback(spec yandexmarket.NewFeedback) yandexmarket.Feedback {
	s.t.Helper()
	if spec.Created.IsZero() {
		spec.Created = time.Now().Add(-time.Second)
	}
	f, err := s.b.AddFeedback(spec)
	s.must(err)
	return f
}

func (s *shop) addComment(spec yandexmarket.NewComment) yandexmarket.FeedbackComment {
	s.t.Helper()
	c, err := s.b.AddFeedbackComment(spec)
	s.must(err)
	return c
}

func stampOf(at time.Time) string { return at.UTC().Format(time.RFC3339Nano) }

// TestFeedbackFilters: what the document says of each filter, alone.
func TestFeedbackFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{
			Feedback: yandexmarket.FeedbackSpec{History: 300, Span: 400 * 24 * time.Hour, ModerateAfter: -1},
		}})
		all, now := s.b.Feedbacks(), time.Now()
		sixMonthsAgo := now.AddDate(0, -6, 0)
		ids := func(keep func(yandexmarket.Feedback, feedbackItem) bool) (out []int64) {
			for _, f := range all {
				item := decodeAll[feedbackItem](t, []json.RawMessage{f.JSON})[0]
				if keep(f, item) {
					out = append(out, f.ID)
				}
			}
			return out
		}
		in := func(f yandexmarket.Feedback, from, to time.Time) bool {
			return f.Created.After(from) && f.Created.Before(to)
		}
		a, b := all[20], all[40]
		var rated struct{ Identifiers struct{ OfferID string } }
		for _, f := range all { // a product of the last months
			if in(f, sixMonthsAgo, now) && rated.Identifiers.OfferID == "" {
				s.must(json.Unmarshal(f.JSON, &rated))
			}
		}
		for _, tc := range []struct {
			name, body string
			keep       func(yandexmarket.Feedback, feedbackItem) bool
		}{
			{"none: the last six months", ``, func(f yandexmarket.Feedback, _ feedbackItem) bool { return in(f, sixMonthsAgo, now) }},
			{"empty", `{}`, func(f yandexmarket.Feedback, _ feedbackItem) bool { return in(f, sixMonthsAgo, now) }},
			{"both ends are exclusive", fmt.Sprintf(`{"dateTimeFrom":%q,"dateTimeTo":%q}`, stampOf(a.Created), stampOf(b.Created)),
				func(f yandexmarket.Feedback, _ feedbackItem) bool { return in(f, a.Created, b.Created) }},
			{"six months to dateTimeTo", fmt.Sprintf(`{"dateTimeTo":%q}`, stampOf(b.Created)),
				func(f yandexmarket.Feedback, _ feedbackItem) bool {
					return in(f, b.Created.AddDate(0, -6, 0), b.Created)
				}},
			{"rating", `{"ratingValues":[1,2]}`, func(f yandexmarket.Feedback, i feedbackItem) bool {
				return in(f, sixMonthsAgo, now) && i.Statistics.Rating <= 2
			}},
			{"reaction", `{"reactionStatus":"NEED_REACTION"}`, func(f yandexmarket.Feedback, i feedbackItem) bool {
				return in(f, sixMonthsAgo, now) && i.NeedReaction
			}},
			{"all reactions", `{"reactionStatus":"ALL"}`, func(f yandexmarket.Feedback, _ feedbackItem) bool { return in(f, sixMonthsAgo, now) }},
			{"paid", `{"paid":true}`, func(f yandexmarket.Feedback, _ feedbackItem) bool {
				return in(f, sixMonthsAgo, now) && strings.Contains(string(f.JSON), `"paidAmount"`)
			}},
			{"offer", fmt.Sprintf(`{"offerIds":[" %s "]}`, rated.Identifiers.OfferID), func(f yandexmarket.Feedback, _ feedbackItem) bool {
				return in(f, sixMonthsAgo, now) && strings.Contains(string(f.JSON), fmt.Sprintf(`"offerId":%q`, rated.Identifiers.OfferID))
			}},
			{"ids, however old", fmt.Sprintf(`{"feedbackIds":[%d,%d,1]}`, all[0].ID, b.ID), func(f yandexmarket.Feedback, _ feedbackItem) bool {
				return f.ID == all[0].ID || f.ID == b.ID
			}},
		} {
			want := ids(tc.keep)
			var got []int64
			for _, f := range s.feedbacks(tc.body) {
				got = append(got, f.FeedbackID)
			}
			if len(want) == 0 || !slices.Equal(got, want) {
				t.Errorf("%s: got %d, want %d: %v and %v", tc.name, len(got), len(want), got, want)
			}
		}
	})
}

// TestFeedbackRefusals: what the methods about reviews refuse, and with which texts where one is documented.
func TestFeedbackRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{})
		f, other := s.addFeedback(yandexmarket.NewFeedback{ID: 1}), s.addFeedback(yandexmarket.NewFeedback{ID: 2})
		of := s.addComment(yandexmarket.NewComment{To: f.ID})
		own := s.addComment(yandexmarket.NewComment{To: f.ID, By: "BUSINESS", Text: "Спасибо"})
		s.addComment(yandexmarket.NewComment{To: f.ID, By: "BUSINESS", Text: "Ждём вас"})
		long, fiftyOne := strings.Repeat("я", 4097), strings.Trim(strings.Join(strings.Fields(fmt.Sprint(make51())), ","), "[]")
		now := time.Now()
		from := func(at time.Time) string {
			return fmt.Sprintf(`{"dateTimeFrom":%q,"dateTimeTo":%q}`, stampOf(at), stampOf(now))
		}
		update := func(id int64, comment string) string {
			return fmt.Sprintf(`{"feedbackId":%d,"comment":{%s}}`, id, comment)
		}
		for _, tc := range []struct {
			name, path, body string
			status           int
			text             string // "": none is documented
		}{
			{"ids beside another filter", feedbackPath, `{"feedbackIds":[1],"paid":true}`, 400, ""},
			{"ids beside a date", feedbackPath, `{"feedbackIds":[1],"dateTimeFrom":"2026-01-01T00:00:00Z"}`, 400, ""},
			{"51 ids", feedbackPath, `{"feedbackIds":[` + fiftyOne + `]}`, 400, ""},
			{"an id twice", feedbackPath, `{"feedbackIds":[1,1]}`, 400, ""},
			{"no ids", feedbackPath, `{"feedbackIds":[]}`, 400, ""},
			{"six months and a bit", feedbackPath, from(now.AddDate(0, -6, 0).Add(-time.Second)), 400, ""},
			{"exactly six months", feedbackPath, from(now.AddDate(0, -6, 0)), 200, ""},
			{"the end before the beginning", feedbackPath, from(now.Add(time.Second)), 400, ""},
			{"a date for a moment", feedbackPath, `{"dateTimeFrom":"2026-01-01"}`, 400, ""},
			{"unknown reaction", feedbackPath, `{"reactionStatus":"SOME"}`, 400, ""},
			{"six ratings", feedbackPath, `{"ratingValues":[1,2,3,4,5,6]}`, 400, ""},
			{"no JSON", feedbackPath, `{`, 400, ""},
			{"limit above 50", feedbackPath + "?limit=51", `{}`, 400, ""},
			{"limit below 1", feedbackPath + "?limit=0", `{}`, 400, ""},
			{"bad token", feedbackPath + "?pageToken=x", `{}`, 400, "Bad page token"},
			{"comments of nothing", commentsPath, `{}`, 400, ""},
			{"comments without a body", commentsPath, ``, 400, "Required request body is missing"},
			{"comments of both", commentsPath, `{"feedbackId":1,"commentIds":[1]}`, 400, ""},
			{"unknown source", commentsPath + "?sourceType=X", `{"feedbackId":1}`, 400, ""},
			{"no text", commentsPath + "/update", update(1, ``), 400, ""},
			{"long text", commentsPath + "/update", update(1, `"text":"`+long+`"`), 400, ""},
			{"no comment", commentsPath + "/update", `{"feedbackId":1}`, 400, ""},
			{"unknown review", commentsPath + "/update", update(77, `"text":"a"`), 404, "Grade not found."},
			{"comment of a buyer", commentsPath + "/update", update(1, fmt.Sprintf(`"text":"a","id":%d`, of.ID)), 403, "No access to comment modifying."},
			{"comment on another review", commentsPath + "/update", update(other.ID, fmt.Sprintf(`"text":"a","id":%d`, own.ID)), 403, "No access to comment modifying."},
			{"answer to a comment on another review", commentsPath + "/update", update(other.ID, fmt.Sprintf(`"text":"a","parentId":%d`, of.ID)), 404, ""},
			{"the same text again", commentsPath + "/update", update(1, `"text":" Спасибо "`), 400, "Duplicate comment."},
			{"edited to the text of another", commentsPath + "/update", update(1, fmt.Sprintf(`"id":%d,"text":"Ждём вас"`, own.ID)), 400, "Duplicate comment."},
			{"another site", commentsPath + "/update", update(1, `"text":"см. https://example.com/a"`), 400, "Illegal url in comment text."},
			{"a site like the Market's", commentsPath + "/update", update(1, `"text":"www.notmarket.yandex.ru.example.com"`), 400, "Illegal url in comment text."},
			{"the Market's own site", commentsPath + "/update", update(1, `"text":"https://market.yandex.ru/product/1"`), 200, ""},
			{"delete a buyer's", commentsPath + "/delete", fmt.Sprintf(`{"id":%d}`, of.ID), 403, "No access to comment modifying."},
			{"delete nothing", commentsPath + "/delete", `{}`, 400, ""},
			{"skip nothing", feedbackPath + "/skip-reaction", `{"feedbackIds":[]}`, 400, ""},
			{"skip 51", feedbackPath + "/skip-reaction", `{"feedbackIds":[` + fiftyOne + `]}`, 400, ""},
			{"skip unknown ones", feedbackPath + "/skip-reaction", `{"feedbackIds":[77]}`, 404, "Feedbacks not found."},
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

func make51() (out []int) {
	for i := range 51 {
		out = append(out, i+1)
	}
	return out
}

// TestFeedbackPages: reviews are in the order of their publication, 25 a page by default, and a token that was got before
// goes on where it went on then.
func TestFeedbackPages(t *testing.T) {
	for _, newest := range []bool{false, true} {
		t.Run(fmt.Sprintf("newest first: %v", newest), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newShop(t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Feedback: yandexmarket.FeedbackSpec{History: 130}}},
					yandexmarket.Quirks{Feedback: yandexmarket.FeedbackQuirks{NewestFirst: newest}})
				var want []int64
				late := 0
				for _, f := range s.b.Feedbacks() {
					want = append(want, f.ID)
					if f.Published.Sub(f.Created) > 24*time.Hour {
						late++
					}
				}
				if late == 0 {
					t.Error("no review was published a day late")
				}
				if newest {
					slices.Reverse(want)
				}
				first, token := s.pageItems("POST", feedbackPath, "", "feedbacks")
				if len(first) != 25 || token == "" {
					t.Fatalf("%d on the first page, token %q", len(first), token)
				}
				var got []int64
				for _, f := range s.feedbacks("") {
					got = append(got, f.FeedbackID)
				}
				if !slices.Equal(got, want) {
					t.Fatalf("order\n%v, want\n%v", got, want)
				}
				before, _ := s.pageItems("POST", feedbackPath+"?pageToken="+token, "", "feedbacks")
				time.Sleep(30 * 24 * time.Hour)
				s.addFeedback(yandexmarket.NewFeedback{})
				after, _ := s.pageItems("POST", feedbackPath+"?page_token="+token, "", "feedbacks")
				a, b := decodeAll[feedbackItem](t, before), decodeAll[feedbackItem](t, after)
				if a[0].FeedbackID != b[0].FeedbackID {
					t.Errorf("the token gave %d first, and now %d", a[0].FeedbackID, b[0].FeedbackID)
				}
			})
		})
	}
}

// TestFeedbackByPublication: with the quirk a late review is in the window of its publication, without it in that of its
// creation.
func TestFeedbackByPublication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{})
		now := time.Now()
		s.addFeedback(yandexmarket.NewFeedback{ID: 7, Created: now.Add(-72 * time.Hour)})
		time.Sleep(time.Minute)
		for _, by := range []bool{false, true} {
			s.setQuirks(yandexmarket.Quirks{Feedback: yandexmarket.FeedbackQuirks{ByPublication: by}})
			recent := s.feedbacks(fmt.Sprintf(`{"dateTimeFrom":%q}`, stampOf(now.Add(-time.Hour))))
			if found := len(recent) == 1; found != by {
				t.Errorf("by publication %v: found in the last hour: %v", by, found)
			}
		}
	})
}

// TestFeedbackReaction: needReaction is false when the shop reads, skips or comments, and comes back with an edit.
func TestFeedbackReaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{})
		id := s.addFeedback(yandexmarket.NewFeedback{Text: "Нормально", Rating: 3}).ID
		body := fmt.Sprintf(`{"feedbackIds":[%d]}`, id)
		var empty json.RawMessage
		for name, react := range map[string]func(){
			"read": func() { s.must(s.b.ReadFeedback(id)) },
			"skip": func() { s.post(feedbackPath+"/skip-reaction", body, &empty) },
			"comment": func() {
				s.post(commentsPath+"/update", fmt.Sprintf(`{"feedbackId":%d,"comment":{"text":"Спасибо"}}`, id), &empty)
			},
		} {
			before := s.feedbacks(body)[0]
			if !before.NeedReaction {
				t.Fatalf("before %s: no reaction is needed", name)
			}
			react()
			if len(s.feedbacks(`{"reactionStatus":"NEED_REACTION"}`)) != 0 {
				t.Errorf("after %s: a reaction is still needed", name)
			}
			s.must(s.b.RewriteFeedback(id))
			after := s.feedbacks(`{"reactionStatus":"NEED_REACTION"}`)
			if len(after) != 1 || after[0].Description.Comment == before.Description.Comment && after[0].Statistics.Rating == before.Statistics.Rating {
				t.Errorf("after the edit: %+v", after)
			}
			if !after[0].CreatedAt.Equal(before.CreatedAt) {
				t.Errorf("the edit moved createdAt from %s to %s", before.CreatedAt, after[0].CreatedAt)
			}
		}
	})
}

// TestFeedbackComments: only direct comments count, the shop's are looked at by the Market, nested ones vanish with what
// they are about, and all with their review.
func TestFeedbackComments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{})
		id := s.addFeedback(yandexmarket.NewFeedback{}).ID
		count := func() int { return s.feedbacks("")[0].Statistics.CommentsCount }
		var own commentItem
		s.post(commentsPath+"/update?sourceType=SELLER", fmt.Sprintf(`{"feedbackId":%d,"comment":{"text":"Спасибо за отзыв"}}`, id), &own)
		if own.Status != "UNMODERATED" || !own.CanModify || own.Author.Type != "BUSINESS" || own.ParentID != 0 {
			t.Errorf("new comment: %+v", own)
		}
		nested := s.addComment(yandexmarket.NewComment{To: id, Parent: own.ID, Text: "Где серийный номер?"})
		var answer commentItem
		s.post(commentsPath+"/update", fmt.Sprintf(`{"feedbackId":%d,"comment":{"text":"На дне","parentId":%d}}`, id, nested.ID), &answer)
		direct := s.addComment(yandexmarket.NewComment{To: id})
		if answer.ParentID != nested.ID || count() != 2 {
			t.Errorf("parent %d, want %d; commentsCount %d, want 2", answer.ParentID, nested.ID, count())
		}
		all := s.comments(id)
		if got := []int64{all[0].ID, all[1].ID, all[2].ID, all[3].ID}; !slices.Equal(got, []int64{own.ID, nested.ID, answer.ID, direct.ID}) {
			t.Errorf("not in the order of publication: %v", got)
		}
		time.Sleep(60 * 24 * time.Hour)
		for _, c := range s.comments(id) {
			if c.Status != "PUBLISHED" && c.Status != "BANNED" {
				t.Errorf("after two months a comment is %s", c.Status)
			}
		}
		s.post(commentsPath+"/update", fmt.Sprintf(`{"feedbackId":%d,"comment":{"text":"Спасибо!","id":%d,"parentId":1}}`, id, own.ID), &own)
		if own.Text != "Спасибо!" || own.Status != "UNMODERATED" {
			t.Errorf("edited: %+v", own)
		}
		byID := decodeAll[commentItem](t, s.walkItems("POST", commentsPath, fmt.Sprintf(`{"commentIds":[%d,%d]}`, direct.ID, own.ID), "comments"))
		if len(byID) != 2 || byID[0].ID != own.ID || byID[0].Text != "Спасибо!" {
			t.Errorf("by ids: %+v", byID)
		}
		var empty json.RawMessage
		s.post(commentsPath+"/delete", fmt.Sprintf(`{"id":%d}`, own.ID), &empty)
		if left := s.comments(id); len(left) != 1 || left[0].ID != direct.ID || count() != 1 {
			t.Errorf("after the deletion: %+v, count %d", left, count())
		}
		s.must(s.b.DeleteFeedback(id))
		if len(s.feedbacks("")) != 0 || len(s.comments(id)) != 0 {
			t.Error("the deleted review is shown, or its comments are")
		}
		s.setQuirks(yandexmarket.Quirks{Feedback: yandexmarket.FeedbackQuirks{UnknownIs404: true}})
		s.wantError(s.do("POST", commentsPath, fmt.Sprintf(`{"feedbackId":%d}`, id)), 404, "Grade not found.")
	})
}

// TestDeletedShown: the reading in which only deletions by users and the Market hide a comment.
func TestDeletedShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{
			Feedback: yandexmarket.FeedbackSpec{DeletedShown: true}, Questions: yandexmarket.QuestionSpec{DeletedShown: true},
		}})
		id := s.addFeedback(yandexmarket.NewFeedback{}).ID
		own := s.addComment(yandexmarket.NewComment{To: id, By: "BUSINESS"})
		var empty json.RawMessage
		s.post(commentsPath+"/delete", fmt.Sprintf(`{"id":%d}`, own.ID), &empty)
		if c := s.comments(id); len(c) != 1 || c[0].Status != "DELETED" || c[0].CanModify {
			t.Errorf("the shop's deleted comment: %+v", c)
		}
		q := s.addQuestion(yandexmarket.NewQuestion{})
		a := s.addAnswer(yandexmarket.NewComment{To: q.ID, By: "BUSINESS"})
		s.post(updatePath, fmt.Sprintf(`{"operationType":"DELETE","entityId":{"id":%d,"type":"ANSWER"}}`, a.ID), &empty)
		if a := s.answers(q.ID); len(a) != 1 || a[0].Status != "DELETED" || a[0].CanModify {
			t.Errorf("the shop's deleted answer: %+v", a)
		}
	})
}
