package yandexmarket_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"syncd/internal/sources"
	"syncd/internal/sources/yandexmarket"
)

// fuzzCursor begins a walk of a healthy stream at whatever a disk may hold: the first
// page is an error that says so, or the walk works, to the end of its second run.
func fuzzCursor(t *testing.T, w *chatWorld, stream string, walk sources.Walk, raw []byte) {
	source := open(t, w, stream)
	q := sources.Query{Stream: stream, Walk: walk, Cursor: raw, Overlap: time.Hour, Window: 60 * 24 * time.Hour, Now: time.Now()}
	q.Visit = &sources.Visit{ID: w.chats[0].name(), Found: raw, Seen: raw}
	q.Missing = func(after string, _ int) ([]sources.Known, string, error) {
		known := []sources.Known{{ID: "1001", Body: []byte(w.chats[0].json(q.Now))}}
		return known, strings.Repeat("x", len(after)+1)[:min(len(after)+1, 4)%4], nil
	}
	for requests, runs := 0, 0; runs < 2; requests++ {
		if requests > 400 {
			t.Fatalf("no end after %d requests: %s", requests, q.Cursor)
		}
		if requests == 0 && len(raw) > 0 {
			if _, what, err := source.Skip(q); err == nil && what == "" {
				t.Errorf("skip leaves out nothing: %s", raw)
			}
		}
		page, err := source.Fetch(t.Context(), q)
		if err != nil {
			if requests > 0 || !strings.Contains(err.Error(), "cursor of "+stream) {
				t.Fatalf("request %d: %v; %s", requests, err, q.Cursor)
			}
			return
		}
		if !json.Valid(page.Cursor) || len(page.Cursor) > 2*len(raw)+20_000 || page.Progress < 0 || page.Progress > 1 {
			t.Fatalf("progress %f, cursor %s", page.Progress, page.Cursor)
		}
		for _, v := range page.Found {
			if v.ID == "" || !json.Valid(v.Found) {
				t.Fatalf("found %+v", v)
			}
		}
		if v := page.Visited; walk == sources.Follow && page.Done && (v == nil || !json.Valid(v.Seen) || time.Until(v.Due) > 2*time.Hour) {
			t.Fatalf("visited %+v", v)
		}
		if q.Cursor = page.Cursor; page.Done {
			runs++
			time.Sleep(time.Minute)
			q.Now = time.Now()
		}
	}
}

func FuzzChatCursors(f *testing.F) {
	for _, s := range []string{
		`{}`, `null`, `[`, `{"v":1,"pages":3,"heard":true}`, `{"v":1,"run":{"asked":1770062400000,"scan":{"token":"eyJ1","pages":1,"mark":18446744073709551615},"chats":20}}`,
		`{"pages":-1}`, `{"run":{"asked":-1}}`, `{"run":{"scan":{"pages":-1}}}`, `{"run":{"scan":{"token":"x","restarts":1073741824,"most":1073741824}}}`, `{"run":{"scan":{"pages":1073741823}}}`,
		`{"v":1,"visit":{"id":"1001","shown":{"u":"2026-02-02T20:00:00Z","s":"NEW"},"seen":{"from":1001020,"last":1001040},"staged":true,"scan":{"token":"eyJ1","pages":1},"read":{"n":10,"first":{"at":1,"id":1},"newest":{"at":1770062400000,"id":9},"tail":[{"at":1,"id":1},{"at":2,"id":9}]}}}`,
		`{"visit":{"id":""}}`, `{"visit":{"id":"1002","whole":true}}`, `{"visit":{"id":"7"}}`, `{"visit":{"id":"1001","read":{"tail":[{"at":2},{"at":1}]}}}`, `{"visit":{"id":"1001","seen":{"from":-1}}}`,
		`{"from":1001003,"last":1001004}`, `{"u":"9999-12-31T23:59:59Z","from":-5}`, `{"u":"2026-02-02T20:30:00Z","last":9223372036854775807,"from":9223372036854775807}`,
		`{"v":1,"run":{"asked":1,"list":{"token":"x"},"queue":["1001","7",""]}}`, `{"v":1,"run":{"asked":1,"listed":true,"queue":["1001","7"],"chat":{"token":"x","pages":1},"staged":true}}`,
		`{"v":1,"after":"abc"}`,
	} {
		for i := range uint8(6) {
			f.Add([]byte(s), i)
		}
	}
	walks := []struct {
		stream string
		walk   sources.Walk
	}{
		{yandexmarket.Chats, sources.News}, {yandexmarket.Chats, sources.Sweep}, {yandexmarket.Chats, sources.Backfill},
		{yandexmarket.ChatMessages, sources.News}, {yandexmarket.ChatMessages, sources.Follow}, {yandexmarket.ChatMessages, sources.Backfill},
	}
	f.Fuzz(func(t *testing.T, raw []byte, which uint8) {
		synctest.Test(t, bubble(func(t *testing.T) {
			w := newChatWorld(t)
			w.size, w.history = 3, 50
			for i := range 7 {
				w.add().talk(20*i, time.Duration(i)*time.Minute)
			}
			w.chats[0].talk(90, 0)
			to := walks[which%6]
			fuzzCursor(t, w, to.stream, to.walk, raw)
		}))
	})
}

// FuzzChatAnswers: whatever answers, a page is an error or holds to what pages promise.
func FuzzChatAnswers(f *testing.F) {
	for _, s := range []string{
		``, `{}`, `{"status":"OK"}`, `{"status":"OK","result":{"chats":[{"chatId":1,"updatedAt":"2026-02-02T20:00:00Z","createdAt":7},{"chatId":null},{}],"paging":{"nextPageToken":"x"}}}`,
		`{"status":"OK","result":{"messages":[{"messageId":1,"createdAt":"2026-02-02T20:00:00+03:00"},{"messageId":-1},{"messageId":"9"}],"paging":{"nextPageToken":{}}}}`,
		`{"status":"OK","result":{"chatId":1001,"updatedAt":"2026-02-02T20:00:00Z","status":"\ud800"}}`, `{"status":"ERROR","errors":[{"code":"\u0000","message":"Bad page token"}]}`,
		`{"status":"ERROR","errors":[{"message":"Limit must be less than or equal to '0'"}]}`, `{"errors":[{"message":"Can't find chat by id: '1'"}]}`,
	} {
		for i, status := range []int{200, 400, 404, 420, 403} {
			f.Add([]byte(s), status, uint8(i))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, status int, which uint8) {
		if status < 200 || status > 599 {
			return
		}
		synctest.Test(t, bubble(func(t *testing.T) {
			answer := func(call) (int, string) { return status, string(body) }
			fake := newFake(t)
			for _, method := range []string{"POST /v2/businesses/chats", "GET /v2/businesses/chat", "POST /v2/businesses/chats/history"} {
				fake.on[method] = answer
			}
			rd := newReader(t, open(t, fake), yandexmarket.Chats, sources.News)
			switch which % 4 {
			case 1:
				rd.query.Walk = sources.Sweep
				rd.query.Missing = func(string, int) ([]sources.Known, string, error) {
					return []sources.Known{{Body: []byte(`{"chatId":1,"updatedAt":"2026-02-02T19:00:00Z"}`)}}, "", nil
				}
			case 2:
				rd.query.Stream, rd.query.Walk = yandexmarket.ChatMessages, sources.Follow
				rd.query.Visit = &sources.Visit{ID: "1", Seen: []byte(`{"from":1,"last":9}`)}
			case 3:
				rd.query.Stream, rd.query.Walk, rd.cursor = yandexmarket.ChatMessages, sources.Backfill, []byte(`{"run":{"queue":["1","2"]}}`)
			}
			p, err := rd.fetch()
			if err != nil {
				if text := sources.AsError(err).Err.Error(); !utf8.ValidString(text) || len(text) > 1000 {
					t.Errorf("the error is not fit for people: %q", text)
				}
				return
			}
			if !json.Valid(p.Cursor) || p.Done && rd.query.Walk == sources.Follow && p.Visited == nil || !utf8.ValidString(p.Note) || len(p.Note) > 500 {
				t.Errorf("got %+v", p)
			}
			for i, it := range p.Items {
				if len(it.ID) == 0 || it.ID[len(it.ID)-1] == "" || !json.Valid(it.Body) || it.Created.After(time.Now().Add(2*time.Hour)) || i > 0 && it.Kind == "chat_message" && it.Created.Before(p.Items[i-1].Created) {
					t.Errorf("item %+v", it)
				}
			}
		}))
	})
}

func FuzzClassify(f *testing.F) {
	for i, s := range []string{``, `null`, `{"status":"ERROR","errors":[{"code":"FORBIDDEN","message":"Access denied"}]}`, `{"errors":{"a":1}}`, `{"errors":[{"message":"\ud800"},[],7,null]}`, `<html>`} {
		f.Add(400+i, []byte(s))
		f.Add(416+i, []byte(s))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		e := yandexmarket.Classify(status, body)
		if (e == nil) != (status < 400) {
			t.Fatalf("status %d gives %v", status, e)
		}
		if e == nil {
			return
		}
		if e.Kind == "" || e.Scope == "" || !utf8.ValidString(e.Hint) || e.Err != nil && (e.Err.Error() == "" || !utf8.ValidString(e.Err.Error())) {
			t.Errorf("%d %q gives %+v", status, body, e)
		}
		if e.Kind == sources.Unauthorized != (status == http.StatusUnauthorized) || e.Kind == sources.RateLimited != (status == 420 || status == 429) || e.Scope == sources.ScopeGroup && status > 403 {
			t.Errorf("%s: %s about %s", fmt.Sprint(status), e.Kind, e.Scope)
		}
	})
}
