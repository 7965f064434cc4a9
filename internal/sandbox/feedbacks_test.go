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

type feedbackPage struct {
	Data struct {
		CountUnanswered, CountArchive *int
		Feedbacks                     []json.RawMessage
	}
}

type feedback struct {
	ID, Text, Pros, Cons, CreatedDate, State, UserName, OrderStatus, MatchingSize string
	ProductValuation                                                              int
	Answer                                                                        *struct {
		Text, State string
		Editable    bool
	}
	ProductDetails struct {
		NmID                        int `json:"nmId"`
		ProductName, Size, NewField string
	}
	Video      *struct{ PreviewImage, Link string }
	WasViewed  bool
	PhotoLinks []struct{ FullSize, MiniSize string }

	IsAbleReturnProductOrders bool
	ReturnProductOrdersDate   *string
	Bables                    []string
	LastOrderCreatedAt        string
	ParentFeedbackID          *string `json:"parentFeedbackId"`
	ChildFeedbackID           *string `json:"childFeedbackId"`
}

func decodeFeedback(t *testing.T, raw []byte) feedback {
	t.Helper()
	var out feedback
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *shop) feedbacks(target string) feedbackPage {
	s.t.Helper()
	var p feedbackPage
	s.get("/api/v1/feedbacks"+target, &p)
	return p
}

func (p feedbackPage) ids(t *testing.T) []string {
	out := []string{}
	for _, raw := range p.Data.Feedbacks {
		out = append(out, decodeFeedback(t, raw).ID)
	}
	return out
}

// feedback is one of the world's, by id.
func (s *shop) feedback(id string) feedback {
	s.t.Helper()
	for _, f := range s.world.Feedbacks() {
		if f.ID == id {
			return decodeFeedback(s.t, f.JSON)
		}
	}
	s.t.Fatalf("no feedback %s in the lists", id)
	return feedback{}
}

func (s *shop) addFeedback(spec sandbox.FeedbackSpec) sandbox.Feedback {
	s.t.Helper()
	f, err := s.world.AddFeedback(spec)
	if err != nil {
		s.t.Fatal(err)
	}
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const month = 30 * 24 * time.Hour

func TestFeedbackListsAreTheWorld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Feedbacks: 600, FeedbackSpan: 20 * 24 * time.Hour})
		want, items := map[bool][]string{}, map[string]string{}
		for _, f := range s.world.Feedbacks() {
			want[f.Answered] = append(want[f.Answered], f.ID)
			items[f.ID] = string(f.JSON)
		}
		if len(want[true]) < 400 || len(want[false]) < 40 {
			t.Fatalf("%d processed, %d not", len(want[true]), len(want[false]))
		}
		for answered, ids := range want {
			var got []string
			for skip := 0; ; skip += 70 {
				p := s.feedbacks(fmt.Sprintf("?isAnswered=%t&take=70&skip=%d&order=dateAsc", answered, skip))
				if *p.Data.CountArchive != len(want[true]) || *p.Data.CountUnanswered != len(want[false]) {
					t.Fatalf("counts %d and %d", *p.Data.CountUnanswered, *p.Data.CountArchive)
				}
				if len(p.Data.Feedbacks) == 0 {
					break
				}
				for _, raw := range p.Data.Feedbacks {
					if f := decodeFeedback(t, raw); items[f.ID] != string(raw) {
						t.Fatalf("in the list %s, in the world %s", raw, items[f.ID])
					}
				}
				got = append(got, p.ids(t)...)
			}
			if !slices.Equal(got, ids) {
				t.Errorf("answered=%t: not the world's list", answered)
			}
			desc := s.feedbacks(fmt.Sprintf("?isAnswered=%t&take=5000&skip=0", answered)).ids(t)
			slices.Reverse(desc)
			if !slices.Equal(desc, ids) {
				t.Errorf("answered=%t: the default order is not dateDesc", answered)
			}
			var count struct{ Data int }
			s.get(fmt.Sprintf("/api/v1/feedbacks/count?isAnswered=%t", answered), &count)
			if count.Data != len(ids) {
				t.Errorf("count %d, want %d", count.Data, len(ids))
			}
		}
	})
}

func TestFeedbackShape(t *testing.T) {
	s := newShop(t, sandbox.WorldSpec{Feedbacks: 3000, FeedbackSpan: 90 * 24 * time.Hour})
	id := regexp.MustCompile(`^[A-Za-z0-9_-]{20}$`)
	seen, size := make(map[string]int), 0
	for _, raw := range s.world.Feedbacks() {
		f := decodeFeedback(t, raw.JSON)
		size += len(raw.JSON)
		created, err := time.Parse(time.RFC3339, f.CreatedDate)
		if err != nil || !created.Equal(raw.Created.Truncate(time.Second)) || !strings.HasSuffix(f.CreatedDate, "+03:00") {
			t.Errorf("createdDate %s: %v", f.CreatedDate, err)
		}
		if !id.MatchString(f.ID) || f.ProductDetails.NmID == 0 || f.ProductValuation < 1 || f.ProductValuation > 5 || f.UserName == "" {
			t.Errorf("feedback %s", raw.JSON)
		}
		ratingOnly := f.Text+f.Pros+f.Cons == "" && f.PhotoLinks == nil && f.Video == nil
		if raw.Answered != (f.Answer != nil || ratingOnly) || (f.State == "wbRu") != raw.Answered {
			t.Errorf("Answered %t: %s", raw.Answered, raw.JSON)
		}
		count := func(name string, is bool) {
			if is {
				seen[name]++
			}
		}
		count("rating only, no answer", ratingOnly && f.Answer == nil)
		count("rating only, answer", ratingOnly && f.Answer != nil)
		count("photos without text", f.Text == "" && f.PhotoLinks != nil)
		count("photos", len(f.PhotoLinks) > 1)
		count("video", f.Video != nil)
		count("tags", f.Bables != nil)
		count("no date of the order", f.LastOrderCreatedAt == "")
		count("size", f.MatchingSize == "ok")
		count("no size", f.MatchingSize == "")
		count("child", f.ParentFeedbackID != nil)
		count("parent", f.ChildFeedbackID != nil)
		count("supplierName null", strings.Contains(string(raw.JSON), `"supplierName":null`))
		count("status "+f.OrderStatus, true)
		if f.Answer != nil {
			count("answer "+f.Answer.State, true)
			count("answer frozen", !f.Answer.Editable)
		}
		for _, p := range f.PhotoLinks {
			if !strings.Contains(p.FullSize, "fs.webp?") || !strings.Contains(p.MiniSize, "ms.webp?") {
				t.Errorf("photo %v", p)
			}
		}
	}
	for _, name := range []string{
		"rating only, no answer", "rating only, answer", "photos without text", "photos", "video", "tags", "no date of the order", "size",
		"no size", "child", "parent", "supplierName null", "answer wbRu", "answer rejected", "answer rejectedAntispam", "answer frozen",
		"status buyout", "status rejected", "status returned", "status notSpecified",
	} {
		if seen[name] < 10 {
			t.Errorf("%s: %d of 3000 (%v)", name, seen[name], seen)
		}
	}
	if mean := size / 3000; mean < 1500 || mean > 2000 {
		t.Errorf("%d bytes each", mean)
	}
}

func TestFeedbackParameters(t *testing.T) {
	list, archive, count := "/api/v1/feedbacks?", "/api/v1/feedbacks/archive?", "/api/v1/feedbacks/count?"
	tests := map[string]string{
		list + "take=1&skip=0":                                      "Плохой формат isAnswered",
		list + "isAnswered=1&take=1&skip=0":                         "Плохой формат isAnswered",
		list + "isAnswered=true&skip=0":                             "Something went wrong",
		list + "isAnswered=true&take=1":                             "Something went wrong",
		list + "isAnswered=true&take=0&skip=0":                      "Something went wrong",
		list + "isAnswered=true&take=5001&skip=0":                   "Something went wrong",
		list + "isAnswered=true&take=1&skip=199991":                 "Something went wrong",
		list + "isAnswered=true&take=1&skip=-1":                     "Something went wrong",
		list + "isAnswered=true&take=1&skip=0&order=desc":           "Something went wrong",
		list + "isAnswered=true&take=1&skip=0&nmId=x":               "Something went wrong",
		list + "isAnswered=true&take=1&skip=0&dateFrom=2026-01-01":  "Плохой формат dateFrom",
		list + "isAnswered=true&take=1&skip=0&dateTo=1.5":           "Плохой формат dateTo",
		archive + "skip=0":                                          "Something went wrong",
		archive + "take=5001&skip=0":                                "Something went wrong",
		archive + "take=1":                                          "Something went wrong",
		archive + "take=1&skip=0&order=x":                           "Something went wrong",
		count + "dateFrom=1":                                        "Плохой формат isAnswered",
		count + "isAnswered=false&dateTo=x":                         "Плохой формат dateTo",
		list + "isAnswered=true&take=5000&skip=199990":              "",
		list + "isAnswered=true&take=1&skip=0&dateFrom=9&dateTo=5":  "",
		list + "isAnswered=true&take=1&skip=0&dateFrom=99999999999": "",
		archive + "take=5000&skip=0&order=dateAsc&nmId=1":           "",
		count + "isAnswered=true&dateFrom=1&dateTo=99999999999":     "",
	}
	for target, text := range tests {
		s := newShop(t, sandbox.WorldSpec{Feedbacks: 5})
		if text == "" {
			s.wantStatus(s.do("GET", target, ""), http.StatusOK, `"error":false`)
			continue
		}
		s.wantStatus(s.do("GET", target, ""), http.StatusBadRequest, `{"data":null,"error":true,"errorText":"`+text+`","additionalErrors":null,"requestId":"`)
	}
}

func TestFeedbackDateWindow(t *testing.T) {
	// Created at 10.0 s, 10.5 s and 12.0 s; createdDate shows the second alone.
	tests := map[string]struct {
		quirks sandbox.Quirks
		query  string
		want   string
	}{
		"inclusive":           {sandbox.Quirks{}, "dateFrom=10&dateTo=12", "a b c"},
		"fractions count":     {sandbox.Quirks{}, "dateTo=10", "a"},
		"fractions ignored":   {sandbox.Quirks{WholeSeconds: true}, "dateTo=10", "a b"},
		"to exclusive":        {sandbox.Quirks{ToExclusive: true}, "dateTo=12", "a b"},
		"from exclusive":      {sandbox.Quirks{FromExclusive: true}, "dateFrom=10", "b c"},
		"exclusive, no fract": {sandbox.Quirks{FromExclusive: true, WholeSeconds: true}, "dateFrom=10", "c"},
		"turned round":        {sandbox.Quirks{}, "dateFrom=12&dateTo=10", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				tt.quirks.OldUnanswered = sandbox.OldUnansweredStay
				s := newShop(t, sandbox.WorldSpec{}, tt.quirks)
				for id, at := range map[string]int64{"a": 10_000, "b": 10_500, "c": 12_000} {
					s.addFeedback(sandbox.FeedbackSpec{ID: id, Created: time.UnixMilli(at)})
				}
				got := s.feedbacks("?isAnswered=false&take=10&skip=0&order=dateAsc&" + tt.query).ids(t)
				if strings.Join(got, " ") != tt.want {
					t.Errorf("got %v, want %q", got, tt.want)
				}
				var count struct{ Data int }
				s.get("/api/v1/feedbacks/count?isAnswered=false&"+tt.query, &count)
				if count.Data != len(got) {
					t.Errorf("count %d, want %d", count.Data, len(got))
				}
			})
		})
	}
}

func TestOldUnansweredFeedbacks(t *testing.T) {
	tests := map[sandbox.OldUnanswered]map[string]string{
		sandbox.OldUnansweredStay:  {"false": "old open", "true": "rating answered", "archive": "rating old answered"},
		sandbox.OldUnansweredMove:  {"false": "open", "true": "rating old answered", "archive": "rating old answered"},
		sandbox.OldUnansweredLeave: {"false": "open", "true": "rating answered", "archive": "rating old answered"},
	}
	for quirk, want := range tests {
		bubble(t, func(t *testing.T) {
			s := newShop(t, sandbox.WorldSpec{}, sandbox.Quirks{OldUnanswered: quirk})
			now := time.Now()
			s.addFeedback(sandbox.FeedbackSpec{ID: "rating", RatingOnly: true, Created: now.Add(-2 * month)})
			s.addFeedback(sandbox.FeedbackSpec{ID: "old", Created: now.Add(-month + time.Hour)})
			s.addFeedback(sandbox.FeedbackSpec{ID: "answered", Created: now.Add(-5 * time.Minute)})
			s.addFeedback(sandbox.FeedbackSpec{ID: "open"})
			must(t, s.world.AnswerFeedback("answered", "спасибо"))
			check := func(want map[string]string) {
				t.Helper()
				for list, ids := range want {
					target := "?isAnswered=" + list + "&take=10&skip=0&order="
					if list == "archive" {
						target = "/archive?take=10&skip=0&order="
					}
					asc, desc := s.feedbacks(target+"dateAsc"), s.feedbacks(target+"dateDesc").ids(t)
					slices.Reverse(desc)
					got := asc.ids(t)
					if strings.Join(got, " ") != ids || !slices.Equal(got, desc) {
						t.Errorf("quirk %d, %s: %v and %v turned round, want %q", quirk, list, got, desc, ids)
					}
					one := s.feedbacks(strings.Replace(target, "take=10&skip=0", "take=1&skip=1", 1) + "dateAsc").ids(t)
					if want := got[min(1, len(got)):min(2, len(got))]; !slices.Equal(one, want) {
						t.Errorf("quirk %d, %s: second is %v, want %v", quirk, list, one, want)
					}
					switch {
					case list == "archive":
						if asc.Data.CountArchive != nil || asc.Data.CountUnanswered != nil {
							t.Error("the archive has counts")
						}
					case list == "false" && *asc.Data.CountUnanswered != len(got), list == "true" && *asc.Data.CountArchive != len(got):
						t.Errorf("quirk %d, %s: counts %d and %d", quirk, list, *asc.Data.CountUnanswered, *asc.Data.CountArchive)
					}
				}
			}
			check(map[string]string{"false": "old open", "true": "rating answered", "archive": "rating answered"})
			time.Sleep(time.Hour) // now it has waited for 30 days
			check(want)
		})
	}
}

func TestFeedbackQuirks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Feedbacks: 300, AnswerShare: -1, FeedbackSpan: 24 * time.Hour})
		const open = "?isAnswered=false&take=200&skip=%d&order=dateAsc"
		all := s.feedbacks(fmt.Sprintf(open, 0)).ids(t)
		photo := slices.IndexFunc(s.world.Feedbacks(), func(f sandbox.Feedback) bool { return decodeFeedback(t, f.JSON).PhotoLinks != nil })
		id := s.world.Feedbacks()[photo].ID
		set := func(q sandbox.Quirks) { t.Helper(); must(t, s.SetQuirks(q)) }
		item := func() string {
			t.Helper()
			var one struct{ Data json.RawMessage }
			s.get("/api/v1/feedback?id="+id, &one)
			return string(one.Data)
		}
		if a, b := item(), item(); a != b || a != string(s.world.Feedbacks()[photo].JSON) {
			t.Error("an item that did not change differs")
		}

		set(sandbox.Quirks{PhotoNoise: true})
		if a, b := item(), item(); a == b || a == string(s.world.Feedbacks()[photo].JSON) {
			t.Error("the links do not change")
		} else if query := regexp.MustCompile(`webp\?[^"]*`); query.ReplaceAllString(a, "") != query.ReplaceAllString(b, "") {
			t.Errorf("more than the links changed: %s, %s", a, b)
		}

		set(sandbox.Quirks{FeedbackPageCut: 100})
		if got := s.feedbacks(fmt.Sprintf(open, 50)).ids(t); !slices.Equal(got, all[50:150]) {
			t.Errorf("cut to %d", len(got))
		}
		set(sandbox.Quirks{FeedbackOrderIgnored: true})
		if got := s.feedbacks(fmt.Sprintf(open, 0)).ids(t); slices.Equal(got, all) {
			t.Error("order is heeded")
		}
		for status, text := range map[int]string{400: "Something went wrong", 422: "Не удалось получить архивные отзывы по фильтру"} {
			set(sandbox.Quirks{FeedbackSkipCap: 100, FeedbackSkipStatus: status})
			s.feedbacks(fmt.Sprintf(open, 100))
			s.wantStatus(s.do("GET", "/api/v1/feedbacks"+fmt.Sprintf(open, 101), ""), status, `"error":true`)
			s.wantStatus(s.do("GET", "/api/v1/feedbacks/archive?take=1&skip=101", ""), status, text)
		}
		for _, bad := range []sandbox.Quirks{
			{OldUnanswered: 3}, {FeedbackSkipCap: -1}, {FeedbackPageCut: -1}, {FeedbackSkipStatus: 500}, {PinsWithoutState: 7},
		} {
			if s.SetQuirks(bad) == nil {
				t.Errorf("no error for %+v", bad)
			}
		}
	})
}

func TestFeedbackArticleFilter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Feedbacks: 900, FeedbackSpan: 60 * 24 * time.Hour, AnswerShare: 0.5})
		var all, want []string
		article := decodeFeedback(t, s.world.Feedbacks()[7].JSON).ProductDetails.NmID
		for _, raw := range s.feedbacks("/archive?take=5000&skip=0&order=dateAsc").Data.Feedbacks {
			f := decodeFeedback(t, raw)
			all = append(all, f.ID)
			if f.ProductDetails.NmID == article {
				want = append(want, f.ID)
			}
		}
		if len(want) < 10 {
			t.Fatalf("%d of an article", len(want))
		}
		got := s.feedbacks(fmt.Sprintf("/archive?take=3&skip=2&order=dateAsc&nmId=%d", article)).ids(t)
		if !slices.Equal(got, want[2:5]) {
			t.Errorf("got %v, want %v", got, want[2:5])
		}
		for skip := 0; skip < len(all); skip += 97 { // across the end of what has to be merged
			got := s.feedbacks(fmt.Sprintf("/archive?take=97&skip=%d&order=dateAsc", skip)).ids(t)
			if !slices.Equal(got, all[skip:min(len(all), skip+97)]) {
				t.Fatalf("page at %d differs", skip)
			}
		}
	})
}

func TestFeedbackByID(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Feedbacks: 3, LateFeedbacks: 1, FeedbackEvery: time.Minute, IndexedLateBy: time.Hour})
		f := s.world.Feedbacks()[1]
		var got struct{ Data json.RawMessage }
		s.get("/api/v1/feedback?id="+f.ID, &got)
		if string(got.Data) != string(f.JSON) {
			t.Errorf("by id %s, in the list %s", got.Data, f.JSON)
		}
		for _, query := range []string{"", "?id=", "?id=unknown"} {
			s.wantStatus(s.do("GET", "/api/v1/feedback"+query, ""), 422, "Невозможно получить отзыв по id")
		}
	})
}
