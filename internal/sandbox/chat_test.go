package sandbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"syncd/internal/sandbox"
)

// page is an answer of seller/events.
type page struct {
	Result struct {
		Next            json.RawMessage
		NewestEventTime json.RawMessage
		OldestEventTime json.RawMessage
		TotalEvents     int
		Events          []json.RawMessage
	}
}

type item struct {
	ChatID, EventID, EventType, AddTime, Sender, Source, ClientName, ReplySign string
	AddTimestamp                                                               int64
	IsNewChat                                                                  *bool
	Message                                                                    *struct {
		Text        *string
		Attachments *struct {
			GoodCard *struct{ NmID, Price int }
			Images   []struct{ Date, DownloadID, URL string }
			Files    []struct{ Name, ContentType, DownloadID string }
		}
	}
}

func decodeEvent(t *testing.T, raw []byte) item {
	t.Helper()
	var out item
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// walk reads the feed as the document says: next from the answer, until totalEvents is 0; but at most limit pages.
func (s *shop) walk(limit int) (pages []page, items []json.RawMessage) {
	s.t.Helper()
	target := events
	for range limit {
		var p page
		s.get(target, &p)
		pages = append(pages, p)
		items = append(items, p.Result.Events...)
		if p.Result.TotalEvents == 0 {
			return pages, items
		}
		target = events + "?next=" + string(p.Result.Next)
	}
	return pages, items
}

func eventJSON(all []sandbox.Event) []json.RawMessage {
	var out []json.RawMessage
	for _, e := range all {
		out = append(out, e.JSON)
	}
	return out
}

func equalItems(a, b []json.RawMessage) bool {
	return slices.EqualFunc(a, b, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) })
}

func TestEventsAsDocumented(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Events: 120})
		pages, items := s.walk(10)
		if len(pages) != 4 || len(items) != 120 {
			t.Fatalf("%d pages, %d items, want 4 and 120", len(pages), len(items))
		}
		if !equalItems(items, eventJSON(s.world.Events())) {
			t.Error("the feed is not the world")
		}
		for i, total := range []int{50, 50, 20} {
			p := pages[i].Result
			if p.TotalEvents != total || len(p.Events) != total {
				t.Errorf("page %d: totalEvents %d, %d events, want %d", i, p.TotalEvents, len(p.Events), total)
			}
			first, last := decodeEvent(t, p.Events[0]), decodeEvent(t, p.Events[total-1])
			if string(p.Next) != fmt.Sprint(last.AddTimestamp) || string(p.NewestEventTime) != `"`+last.AddTime+`"` || string(p.OldestEventTime) != `"`+first.AddTime+`"` {
				t.Errorf("page %d: head %s %s %s", i, p.Next, p.NewestEventTime, p.OldestEventTime)
			}
		}
		var before int64
		ids := make(map[string]bool)
		for _, raw := range items {
			e := decodeEvent(t, raw)
			if e.AddTimestamp < before || ids[e.EventID] || e.EventType != "message" || !strings.HasPrefix(e.ChatID, "1:") {
				t.Errorf("event %s", raw)
			}
			if want := time.UnixMilli(e.AddTimestamp).UTC().Truncate(time.Second).Format(time.RFC3339); e.AddTime != want {
				t.Errorf("addTime %s, want %s", e.AddTime, want)
			}
			if e.IsNewChat != nil && !*e.IsNewChat {
				t.Errorf("isNewChat:false: %s", raw)
			}
			before, ids[e.EventID] = e.AddTimestamp, true
		}
	})
}

func TestEventsBadNext(t *testing.T) {
	s := newShop(t, sandbox.WorldSpec{Events: 3})
	for next, text := range map[string]string{
		"0": `"error":"Invalid value for \"next\""`, "-5": `Invalid value`, "abc": `"detail":"Invalid number"`, "1.5": "Invalid number", "99999999999999999999": "Invalid number",
	} {
		w := s.do("GET", events+"?next="+next, "")
		s.wantStatus(w, http.StatusBadRequest, text, `"origin":"proxy-chats"`)
	}
	s.wantStatus(s.do("GET", events+"?next=&limit=7", ""), http.StatusOK, `"totalEvents":3`)
}

func TestEmptyPage(t *testing.T) {
	const at = 1_700_000_000_000
	tests := map[string]struct {
		quirks sandbox.Quirks
		want   string
	}{
		"echo":   {sandbox.Quirks{}, `{"result":{"next":1700000000000,"newestEventTime":null,"oldestEventTime":null,"totalEvents":0,"events":[]},"errors":null}`},
		"null":   {sandbox.Quirks{EmptyNext: sandbox.EmptyNextNull, EmptyTimesAbsent: true}, `{"result":{"next":null,"totalEvents":0,"events":[]},"errors":null}`},
		"absent": {sandbox.Quirks{EmptyNext: sandbox.EmptyNextAbsent, EmptyTimesAbsent: true}, `{"result":{"totalEvents":0,"events":[]},"errors":null}`},
		"zero":   {sandbox.Quirks{EmptyNext: sandbox.EmptyNextZero}, `{"result":{"next":0,"newestEventTime":null,"oldestEventTime":null,"totalEvents":0,"events":[]},"errors":null}`},
		"older":  {sandbox.Quirks{EmptyNext: sandbox.EmptyNextOlder}, `{"result":{"next":1699996400000,"newestEventTime":null,"oldestEventTime":null,"totalEvents":0,"events":[]},"errors":null}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, sandbox.WorldSpec{}, tt.quirks)
			if got := s.do("GET", fmt.Sprintf("%s?next=%d", events, int64(at)), "").Body.String(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestInclusiveNextNeverEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Events: 60}, sandbox.Quirks{InclusiveNext: true, PageSize: 20})
		pages, _ := s.walk(6)
		last := pages[5].Result
		if last.TotalEvents != 1 || string(last.Next) != string(pages[4].Result.Next) {
			t.Errorf("after the end: %d events, next %s", last.TotalEvents, last.Next)
		}
		if first := pages[1].Result.Events[0]; !bytes.Equal(first, pages[0].Result.Events[19]) {
			t.Error("the last event of a page does not come again")
		}
	})
}

func TestStrictNextLosesTies(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Events: 100, PageTies: 6})
		_, items := s.walk(10)
		if len(items) != 97 {
			t.Errorf("a plain walk found %d of 100, want 97: three are behind the page's last millisecond", len(items))
		}
		all := s.world.Events()
		if !all[47].At.Equal(all[52].At) || all[46].At.Equal(all[47].At) || all[52].At.Equal(all[53].At) {
			t.Error("not exactly six events of one millisecond around the boundary")
		}
	})
}

func TestRepeatPage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Events: 200})
		pages, _ := s.walk(2)
		if err := s.SetQuirks(sandbox.Quirks{RepeatPage: true}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			var again page
			s.get(events+"?next="+string(pages[1].Result.Next), &again)
			if string(again.Result.Next) != string(pages[1].Result.Next) || !equalItems(again.Result.Events, pages[1].Result.Events) {
				t.Fatal("another page")
			}
		}
	})
}

func TestLateEvents(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{EventEvery: time.Second, LateEvents: 0.3, LateBy: 30 * time.Second})
		late, cursor := 0, int64(0)
		seen := make(map[string]bool)
		for range 300 {
			time.Sleep(time.Second)
			for _, e := range s.world.Events() {
				if !seen[e.EventID] && e.At.UnixMilli() < cursor {
					late++
				}
				seen[e.EventID], cursor = true, max(cursor, e.At.UnixMilli())
			}
		}
		if late < 50 || late > 130 {
			t.Errorf("%d of %d events came late, want about 90", late, len(seen))
		}
	})
}

func TestAddEvent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Events: 10})
		time.Sleep(time.Hour)
		a := s.world.AddEvent(sandbox.EventSpec{Text: "привет"})
		b := s.world.AddEvent(sandbox.EventSpec{ChatID: a.ChatID, Sender: "seller", At: time.Now().Add(-time.Minute)})
		c := s.world.AddEvent(sandbox.EventSpec{ChatID: "1:x", Raw: json.RawMessage(`{"odd":1}`)})
		all := s.world.Events()
		if got := all[10:]; got[0].EventID != b.EventID || got[1].EventID != a.EventID || got[2].EventID != c.EventID || string(got[2].JSON) != `{"odd":1}` {
			t.Errorf("events %v", got)
		}
		if first := decodeEvent(t, a.JSON); first.IsNewChat == nil || first.ReplySign == "" || *first.Message.Text != "привет" {
			t.Errorf("first event of a chat: %s", a.JSON)
		}
		var p page
		s.get(fmt.Sprintf("%s?next=%d", events, b.At.UnixMilli()), &p)
		if p.Result.TotalEvents != 2 {
			t.Errorf("%d events after the late one", p.Result.TotalEvents)
		}
	})
}

// The deviations of wildberries.md §4 are all there, and rare.
func TestDeviations(t *testing.T) {
	s := newShop(t, sandbox.WorldSpec{Events: 5000})
	count := make(map[string]int)
	note := func(name string, is bool) {
		if is {
			count[name]++
		}
	}
	for _, raw := range s.world.Events() {
		e := decodeEvent(t, raw.JSON)
		note("message missing", e.Message == nil)
		note("source missing", e.Source == "")
		note("clientName missing on a client's event", e.Sender == "client" && e.ClientName == "")
		note("clientName on a seller's event", e.Sender == "seller" && e.ClientName != "")
		note("new chat by the seller", e.IsNewChat != nil && e.Sender == "seller")
		note("new chat without replySign", e.IsNewChat != nil && e.ReplySign == "")
		note("replySign on an old chat", e.IsNewChat == nil && e.ReplySign != "")
		note("seller's own message by API", e.Source == "seller-public-api")
		note("from wb", e.Sender == "wb")
		note("id not hexadecimal", strings.Contains(e.EventID, "u"))
		if e.Message != nil && e.Message.Attachments != nil {
			images := e.Message.Attachments.Images
			note("images without text", len(images) > 0 && e.Message.Text == nil)
			note("image without downloadID", len(images) > 0 && images[0].DownloadID == "" && strings.HasSuffix(images[0].Date, "+03:00"))
			note("file", len(e.Message.Attachments.Files) > 0)
		}
	}
	for name, n := range map[string]int{
		"message missing": 10, "source missing": 100, "clientName missing on a client's event": 20, "new chat by the seller": 20,
		"new chat without replySign": 5, "seller's own message by API": 100, "from wb": 20, "id not hexadecimal": 10,
		"images without text": 50, "image without downloadID": 5, "file": 10,
	} {
		if count[name] < n || count[name] > 1500 {
			t.Errorf("%s: %d times, want at least %d", name, count[name], n)
		}
	}
	if count["clientName on a seller's event"]+count["replySign on an old chat"] > 0 {
		t.Errorf("fields where they never are: %v", count)
	}
}

func TestChats(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Events: 2000})
		var list struct {
			Result []struct {
				ChatID, ReplySign, ClientName string
				GoodCard                      map[string]any
				LastMessage                   *struct {
					Text         string
					AddTimestamp int64
				}
			}
			Errors []string
		}
		s.get(chats+"?limit=3", &list)
		inFeed, listed := make(map[string]int64), make(map[string]bool)
		for _, e := range s.world.Events() {
			inFeed[e.ChatID] = e.At.UnixMilli()
		}
		newest, silent, bare := int64(1<<62), 0, 0
		for _, c := range list.Result {
			listed[c.ChatID] = true
			if c.GoodCard["nmID"] == 0.0 {
				bare++
			}
			if c.LastMessage == nil {
				silent++
				continue
			}
			if c.LastMessage.AddTimestamp != inFeed[c.ChatID] || c.LastMessage.AddTimestamp > newest {
				t.Errorf("chat %s: last message %d, feed says %d", c.ChatID, c.LastMessage.AddTimestamp, inFeed[c.ChatID])
			}
			newest = c.LastMessage.AddTimestamp
		}
		if missing := len(inFeed) - len(listed); missing < 1 || missing > len(inFeed)/10 || silent == 0 || bare == 0 {
			t.Errorf("%d chats in the feed, %d listed, %d silent, %d bare", len(inFeed), len(listed), silent, bare)
		}
		before := len(list.Result)
		e := s.world.AddEvent(sandbox.EventSpec{ChatID: "1:new"})
		s.get(chats, &list)
		if len(list.Result) != before+1 || list.Result[0].ChatID != e.ChatID {
			t.Error("a new chat is not the first of the list")
		}
	})
}

// message builds a request of seller/message.
func (s *shop) message(fields map[string]string, files map[string][]byte) *http.Request {
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for k, v := range fields {
		_ = w.WriteField(k, v)
	}
	for name, data := range files {
		part, _ := w.CreateFormFile("file", name)
		_, _ = part.Write(data)
	}
	_ = w.Close()
	r := s.request("POST", "/api/v1/seller/message", body.String())
	r.Header.Set("Content-Type", w.FormDataContentType())
	return r
}

func TestMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		sign := decodeEvent(t, s.world.AddEvent(sandbox.EventSpec{}).JSON).ReplySign
		time.Sleep(time.Minute)
		pdf, png := []byte("%PDF-1.7 …"), []byte("\x89PNG\r\n\x1a\n…")
		w := s.serve(s.message(map[string]string{"replySign": sign, "message": "Добрый день"}, map[string][]byte{"Чек.pdf": pdf, "a.png": png}))
		all := s.world.Events()
		if len(all) != 2 {
			t.Fatalf("%d events", len(all))
		}
		want := fmt.Sprintf(`{"result":{"addTime":%d,"chatID":"%s"},"errors":[]}`, all[1].At.UnixMilli(), all[0].ChatID)
		s.wantStatus(w, http.StatusOK, want)
		e := decodeEvent(t, all[1].JSON)
		if e.Sender != "seller" || e.Source != "seller-public-api" || *e.Message.Text != "Добрый день" || e.ChatID != all[0].ChatID ||
			e.Message.Attachments.Files[0].Name != "Чек.pdf" || len(e.Message.Attachments.Images) != 1 {
			t.Errorf("event %s", all[1].JSON)
		}
	})
}

func TestRefusedMessages(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		sign := decodeEvent(t, s.world.AddEvent(sandbox.EventSpec{}).JSON).ReplySign
		pdf := append([]byte("%PDF-1.7"), make([]byte, 5<<20)...)
		big := make(map[string][]byte)
		for i := range 7 {
			big[fmt.Sprint(i, ".pdf")] = pdf[:5<<20]
		}
		tests := map[string]struct {
			fields map[string]string
			files  map[string][]byte
			status int
			text   string
		}{
			"no sign":      {map[string]string{"message": "a"}, nil, 400, "Invalid signature"},
			"unknown sign": {map[string]string{"replySign": "1:x", "message": "a"}, nil, 400, "Invalid signature"},
			"long sign":    {map[string]string{"replySign": strings.Repeat("a", 256), "message": "a"}, nil, 400, "Invalid signature"},
			"nothing said": {map[string]string{"replySign": sign}, nil, 400, `Invalid value for \"message\"`},
			"too long":     {map[string]string{"replySign": sign, "message": strings.Repeat("я", 1001)}, nil, 400, `Invalid value for \"message\"`},
			"big file":     {map[string]string{"replySign": sign}, map[string][]byte{"a.pdf": pdf}, 400, "attachment too big. Max size: 5MiB"},
			"big files":    {map[string]string{"replySign": sign}, big, 413, "Request Entity Too Large"},
			"type":         {map[string]string{"replySign": sign}, map[string][]byte{"a.mp4": []byte("text")}, 400, `\"a.mp4\" has unsupported mime type`},
		}
		for name, tt := range tests {
			time.Sleep(time.Minute)
			w := s.serve(s.message(tt.fields, tt.files))
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.text) || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s: %d %s", name, w.Code, w.Body)
			}
		}
		time.Sleep(time.Minute)
		s.wantStatus(s.do("POST", "/api/v1/seller/message", "{}"), http.StatusBadRequest, "multipart/form-data")
		if n := len(s.world.Events()); n != 1 {
			t.Errorf("%d events, want 1", n)
		}
	})
}
