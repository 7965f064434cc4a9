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

	"syncd/internal/sources"
)

// dater makes the marketplace's clock say what it should not.
type dater struct {
	http.RoundTripper
	date func() string // empty: as it is
}

func (d dater) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := d.RoundTripper.RoundTrip(r)
	if date := d.date(); err == nil && date != "" {
		resp.Header.Set("Date", date)
	}
	return resp, err
}

// TestDateFromTheFuture: one answer whose Date is far ahead neither stops a stream nor
// takes its overlap away.
func TestDateFromTheFuture(t *testing.T) {
	for _, ahead := range []string{"a year", "Fri, 31 Dec 9999 23:59:59 GMT"} {
		for _, stream := range []string{"goods_feedbacks", "goods_questions"} {
			synctest.Test(t, bubble(func(t *testing.T) {
				f := newFake(t)
				f.on["POST /v2/businesses/goods-feedback"] = func(call) (int, string) { return 0, page("feedbacks", nil, "") }
				f.on["POST /v1/businesses/goods-questions"] = func(call) (int, string) { return 0, page("questions", nil, "") }
				wrong := false
				s := open(t, dater{f, func() string {
					switch {
					case !wrong:
						return ""
					case ahead == "a year":
						return time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat)
					}
					return ahead
				}})
				r := newReader(t, s, stream, sources.News)
				r.query.Since, r.query.Overlap = time.Now(), 72*time.Hour
				r.run()
				time.Sleep(2 * time.Minute)
				wrong = true
				r.run()
				wrong = false
				time.Sleep(2 * time.Minute)
				f.took()
				r.run()
				for _, c := range f.took() {
					var from string
					for _, name := range []string{"dateFrom", "dateTimeFrom"} {
						if c.body[name] != nil {
							_ = json.Unmarshal(c.body[name], &from)
						}
					}
					if day := time.Now().Add(-48 * time.Hour).Format(time.DateOnly); from == "" || from[:10] > day {
						t.Errorf("%s after a Date %s ahead: asked from %q, expected the overlap of three days", stream, ahead, from)
					}
				}
			}))
		}
	}
}

// TestBackfillPastOneParent: a review whose comments cannot be had does not keep a
// backfill from the others.
func TestBackfillPastOneParent(t *testing.T) {
	for _, status := range []int{400, 403} {
		synctest.Test(t, bubble(func(t *testing.T) {
			f := newFake(t)
			created := time.Now().AddDate(0, 0, -10).Format(time.RFC3339)
			f.on["POST /v2/businesses/goods-feedback"] = func(call) (int, string) {
				return 0, page("feedbacks", []string{fmt.Sprintf(`{"feedbackId":1,"createdAt":%q}`, created), fmt.Sprintf(`{"feedbackId":2,"createdAt":%q}`, created)}, "")
			}
			f.on["POST /v2/businesses/goods-feedback/comments"] = func(c call) (int, string) {
				if string(c.body["feedbackId"]) == "1" {
					return status, failure("BAD", "Grade is hidden.")
				}
				return 0, page("comments", []string{`{"id":77,"feedbackId":2,"text":"x","status":"PUBLISHED"}`}, "")
			}
			r := newReader(t, open(t, f), "goods_feedbacks", sources.Backfill)
			r.query.Since = time.Now().AddDate(0, 0, -30)
			failed := 0
			for n, done := 0, false; !done; n++ {
				p, err := r.fetch()
				if err != nil || n > 50 {
					t.Fatalf("request %d: %v", n, err)
				}
				if done = p.Done; p.Failed != nil {
					failed++
				}
			}
			if _, ok := r.seen["goods_feedback_comment/77"]; !ok || failed == 0 {
				t.Errorf("answer %d: seen %v, and it was told %d times", status, r.seen, failed)
			}
		}))
	}
}

// TestBackfillTokensDie: page tokens that are good for a minute are enough for a
// backfill, however long the children of a page take.
func TestBackfillTokensDie(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		f := newFake(t)
		at := time.Now().Add(-24 * time.Hour)
		pageOf := func(c call) (n int, ok bool) {
			var made int64
			if c.token != "" {
				_, _ = fmt.Sscanf(c.token, "%d-%d", &n, &made)
			}
			return n, c.token == "" || time.Now().Unix()-made <= 60
		}
		f.on["POST /v1/businesses/goods-questions"] = func(c call) (int, string) {
			n, ok := pageOf(c)
			if !ok {
				return 400, failure("BAD_REQUEST", "Bad page token")
			}
			var from, to string
			_, _ = json.Unmarshal(c.body["dateFrom"], &from), json.Unmarshal(c.body["dateTo"], &to)
			if d := at.Format(time.DateOnly); from > d || d > to {
				return 0, page("questions", nil, "")
			}
			var all []string
			for i := range 50 {
				all = append(all, fmt.Sprintf(`{"questionIdentifiers":{"id":%d},"createdAt":%q}`, n*50+i+1, at.Format(time.RFC3339)))
			}
			next := ""
			if n < 2 {
				next = fmt.Sprintf("%d-%d", n+1, time.Now().Unix())
			}
			return 0, page("questions", all, next)
		}
		f.on["POST /v1/businesses/goods-questions/answers"] = func(c call) (int, string) {
			return 0, page("answers", []string{fmt.Sprintf(`{"id":%s,"createdAt":%q}`, c.body["questionId"], at.Format(time.RFC3339))}, "")
		}
		f.on["POST /v2/businesses/chats"] = func(c call) (int, string) {
			n, ok := pageOf(c)
			if !ok {
				return 400, failure("BAD_REQUEST", "Bad page token")
			}
			var all []string
			for i := range 20 {
				all = append(all, fmt.Sprintf(`{"chatId":%d,"createdAt":%[2]q,"updatedAt":%[2]q,"status":"NEW"}`, n*20+i+1, at.Format(time.RFC3339)))
			}
			next := ""
			if n < 4 {
				next = fmt.Sprintf("%d-%d", n+1, time.Now().Unix())
			}
			return 0, page("chats", all, next)
		}
		f.on["POST /v2/businesses/chats/history"] = func(c call) (int, string) {
			return 0, page("messages", []string{fmt.Sprintf(`{"messageId":%s,"createdAt":%q,"sender":"CUSTOMER","message":"x"}`, c.query.Get("chatId"), at.Format(time.RFC3339))}, "")
		}
		s := open(t, f)
		for stream, want := range map[string]int{"goods_questions": 150, "chat_messages": 100} {
			r := newReader(t, s, stream, sources.Backfill)
			r.query.Since = at.AddDate(0, 0, -5)
			var p sources.Page
			for n := 0; !p.Done; n++ {
				var err error
				if p, err = r.fetch(); err != nil || n > 3000 {
					t.Fatalf("%s, request %d: %v", stream, n, err)
				}
				time.Sleep(4 * time.Second)
			}
			children := 0
			for id := range r.seen {
				if stream == "chat_messages" || strings.HasPrefix(id, "goods_answer") {
					children++
				}
			}
			if children != want || p.Partial {
				t.Errorf("%s: %d of %d, partial %t: %v", stream, children, want, p.Partial, slices.Compact(r.notes))
			}
		}
	}))
}
