package wildberries_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/wildberries"
)

// TestNewRefuses what cannot be one account, without the token in the error.
func TestNewRefuses(t *testing.T) {
	other := strings.Replace(jwt(`{"sid":"another-seller","acc":3}`), "c2ln", "c2lh", 1)
	for name, change := range map[string]func(*wildberries.Config){
		"two sellers": func(c *wildberries.Config) { c.Tokens[wildberries.GroupChat] = other },
		"no token":    func(c *wildberries.Config) { delete(c.Tokens, wildberries.GroupReturns) },
		"no endpoint": func(c *wildberries.Config) { delete(c.Endpoints, wildberries.GroupChat) },
		"no share":    func(c *wildberries.Config) { c.BudgetShare = 0 },
	} {
		cfg := wildberries.Config{
			Account: "shop", Tokens: map[string]string{}, Endpoints: wildberries.Groups(), BudgetShare: 1,
			Budgets: apiclient.NewBudgets(memory{}, slog.New(slog.DiscardHandler)), Metrics: apiclient.NewMetrics(prometheus.NewRegistry()),
		}
		for group := range wildberries.Groups() {
			cfg.Tokens[group] = token(3)
		}
		change(&cfg)
		_, err := wildberries.New(cfg)
		if err == nil || !strings.Contains(err.Error(), "shop") || strings.Contains(err.Error(), "eyJ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBudgetsOfTokens: the token's type decides the pace of each group, and all
// tokens of one type and seller share it.
func TestBudgetsOfTokens(t *testing.T) {
	for _, tt := range []struct {
		acc             int
		chat, questions time.Duration // between two requests, once the burst is gone
	}{
		{3, time.Second, 334 * time.Millisecond}, {4, time.Second, 334 * time.Millisecond},
		{1, 3674 * time.Second, 736400 * time.Millisecond}, {2, 3674 * time.Second, 736400 * time.Millisecond}, {9, 3674 * time.Second, 736400 * time.Millisecond},
	} {
		synctest.Test(t, bubble(func(t *testing.T) {
			for name, pace := range map[string]time.Duration{wildberries.ChatEvents: tt.chat, wildberries.Questions: tt.questions} {
				var c *wildberries.Client
				if name == wildberries.ChatEvents {
					c = (&feed{size: fixed(50)}).open(t, tt.acc)
				} else {
					c = (&lists{}).open(t, tt.acc)
				}
				rd := newReader(t, c, name, time.Now(), time.Minute)
				rd.fetch()
				began := time.Now()
				rd.fetch()
				if d := time.Since(began); d < pace || d > pace+time.Second {
					t.Errorf("acc %d, %s: %s between two requests, expected %s", tt.acc, name, d, pace)
				}
			}
		}))
	}
}

// TestStreams: the table agrees with contract §5.
func TestStreams(t *testing.T) {
	var names []string
	for _, s := range wildberries.Streams() {
		names = append(names, s.Name)
		if wildberries.Groups()[s.Group] == "" || len(s.Kinds) == 0 || len(s.Actions) == 0 || s.Schedule == "" {
			t.Errorf("incomplete: %+v", s)
		}
	}
	if want := []string{"chat_events", "chats", "questions", "feedbacks", "claims", "feedback_pins"}; !slices.Equal(names, want) {
		t.Errorf("streams %v, expected %v", names, want)
	}
}

// TestSellersShareABudget: the second account of a seller waits for the first.
func TestSellersShareABudget(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		f := &feed{t: t, size: fixed(50)}
		budgets := apiclient.NewBudgets(memory{}, slog.New(slog.DiscardHandler))
		metrics := apiclient.NewMetrics(prometheus.NewRegistry())
		began := time.Now()
		for i, account := range []string{"a", "b"} {
			cfg := wildberries.Config{Account: account, Tokens: map[string]string{}, Endpoints: wildberries.Groups(), BudgetShare: 1, Budgets: budgets, Metrics: metrics, Transport: &direct{handler: f}}
			for group := range wildberries.Groups() {
				cfg.Tokens[group] = token(1)
			}
			c, err := wildberries.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if c.Seller() != seller || c.Token(wildberries.GroupChat).Type != wildberries.Base {
				t.Errorf("seller %s, token %+v", c.Seller(), c.Token(wildberries.GroupChat))
			}
			newReader(t, c, wildberries.ChatEvents, time.Time{}, time.Minute).fetch()
			if d := time.Since(began); d < time.Duration(i)*time.Hour {
				t.Errorf("account %d asked after %s", i, d)
			}
		}
	}))
}

// fuzzPage feeds body to a stream and holds what comes out to the contract.
func fuzzPage(t *testing.T, stream string, body []byte) {
	synctest.Test(t, bubble(func(t *testing.T) {
		c := open(t, &direct{handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })}, token(3))
		var cursor sources.Cursor
		for range 3 {
			page, err := c.Fetch(context.Background(), sources.Query{Stream: stream, Walk: sources.News, Cursor: cursor, Overlap: time.Hour, Now: time.Now()})
			if err != nil {
				if e := sources.AsError(err); e.Kind != sources.Unreadable || len(e.Error()) > 600 || !utf8.ValidString(e.Error()) {
					t.Errorf("error %q of kind %s", e, e.Kind)
				}
				return
			}
			for _, it := range page.Items {
				if !json.Valid(it.Body) || !utf8.Valid(it.Body) || len(it.Body) == 0 || it.Body[0] != '{' || slices.Contains(it.ID, "") || it.Created.After(time.Now().Add(2*time.Hour)) {
					t.Errorf("item %+v", it)
				}
			}
			var state struct{ Newest int64 }
			if err := json.Unmarshal(page.Cursor, &state); err != nil || state.Newest > time.Now().UnixMilli()+1000 || state.Newest < 0 {
				t.Errorf("cursor %s, %v", page.Cursor, err)
			}
			cursor = page.Cursor
		}
	}))
}

func FuzzChatEvents(f *testing.F) {
	for _, s := range []string{"", "null", `{"result":{"next":1698045576000,"totalEvents":4,"events":[{"chatID":"1:a","eventID":"b","addTimestamp":1698045576000,"addTime":"2023-10-23T07:19:36Z"}]},"errors":null}`,
		`{"result":{"next":"9999999999999999","events":[null,{},{"chatID":1,"eventID":-1.5e3,"addTimestamp":"1698045576000"},{"chatID":"c","eventID":"e","addTimestamp":9223372036854775807,"addTime":7}]}}`, `{"result":{},"errors":["x"]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) { fuzzPage(t, wildberries.ChatEvents, body) })
}

func FuzzQuestions(f *testing.F) {
	for _, s := range []string{"", "null", `{"data":{"countUnanswered":24,"questions":[{"id":"2ncBtX4B9I0UHoornoqG","createdDate":"2022-02-01T11:18:08.769513469Z","answer":null}]},"error":false}`,
		`{"data":{"questions":[{"id":7,"answer":[]},{"id":"a","answer":{"createDate":5},"createdDate":"2024-09-26T10:20:48+03:00"}]},"error":"x"}`, `{"data":{},"error":true,"errorText":"\n"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) { fuzzPage(t, wildberries.Questions, body) })
}

func FuzzFeedbacks(f *testing.F) {
	for _, s := range []string{"", "null", `{"data":{"countUnanswered":24,"countArchive":-1,"feedbacks":[{"id":"YX52RZEBhH9mrcYdEJuD","createdDate":"2024-09-26T10:20:48+03:00","answer":null}]},"error":false}`,
		`{"data":{"feedbacks":[{"id":7},{"id":"a","createdDate":"2024-09-26"},null]},"error":false}`, `{"data":{"feedbacks":null},"error":true,"errorText":"\n"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) { fuzzPage(t, wildberries.Feedbacks, body) })
}

func FuzzChats(f *testing.F) {
	for _, s := range []string{"", `{"result":null}`, `{"result":[{"chatID":"1:a","lastMessage":{"addTimestamp":1698045576000}},{"chatID":7,"lastMessage":[]},null],"errors":null}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) { fuzzPage(t, wildberries.Chats, body) })
}

func FuzzClaims(f *testing.F) {
	for _, s := range []string{"", `{"claims":null}`, `{"claims":[{"id":"fe3e9337","dt":"2025-03-26T17:06:12.245611","dt_update":"2025-05-10T18:01:06+05:00"},{"id":-1.5e3,"dt":7},[]],"total":31}`, `{"claims":[],"total":"9223372036854775808"}`, `{"claims":[{"id":"a"}],"total":-1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) { fuzzPage(t, wildberries.Claims, body) })
}

func FuzzFeedbackPins(f *testing.F) {
	for _, s := range []string{"", `{"data":null}`, `{"data":[{"pinId":1857762,"changeStateAt":"2020-01-01T15:04:05Z"},{"pinId":null}],"next":200}`, `{"data":[],"next":{}}`, `{"data":[],"next":"-9223372036854775808"}`, `{"data":[{"pinId":"x"}],"next":"x"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) { fuzzPage(t, wildberries.FeedbackPins, body) })
}
