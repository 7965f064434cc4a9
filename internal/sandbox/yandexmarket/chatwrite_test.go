package yandexmarket_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sandbox/yandexmarket"
)

func TestFilters(t *testing.T) {
	s := newShop(t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Chats: yandexmarket.ChatSpec{History: 200, OrderIDs: true}}})
	s.addChat(yandexmarket.ChatBy{ContextID: 77})
	for body, want := range map[string]func(status, kind, context string) bool{
		`{"statuses":["WAITING_FOR_PARTNER","NEW"]}`:               func(s, _, _ string) bool { return s == "WAITING_FOR_PARTNER" || s == "NEW" },
		`{"types":["ARBITRAGE"]}`:                                  func(_, k, _ string) bool { return k == "ARBITRAGE" },
		`{"contextTypes":["DIRECT"],"types":null}`:                 func(_, _, c string) bool { return c == "DIRECT" },
		`{"contexts":[{"type":"ORDER","id":77}],"types":["CHAT"]}`: func(_, k, c string) bool { return k == "CHAT" && c == "ORDER" },
	} {
		var page chatPage
		s.post(chats+"?limit=20", body, &page)
		if len(page.Chats) == 0 {
			t.Errorf("%s: no chats", body)
		}
		for _, c := range page.Chats {
			if !want(c.Status, c.Type, c.Context.Type) {
				t.Errorf("%s: %+v", body, c)
			}
		}
	}
	var page chatPage
	s.post(chats, `{"contexts":[{"type":"RETURN","id":77}]}`, &page)
	if len(page.Chats) != 0 {
		t.Errorf("a return with the number of an order: %+v", page)
	}
	s.post(chats, `{"orderIds":[77]}`, &page)
	if len(page.Chats) != 1 || page.Chats[0].OrderID != 77 {
		t.Errorf("orderIds, before it was switched off: %+v", page)
	}
	for _, bad := range []string{`{"statuses":[]}`, `{"statuses":["X"]}`, `{"types":["X"]}`, `{"contexts":[{"type":"DIRECT","id":1}]}`, `{`} {
		if w := s.do("POST", chats, bad); w.Code != 400 {
			t.Errorf("%s: %d", bad, w.Code)
		}
	}
	after := newShop(t, yandexmarket.BusinessSpec{})
	if w := after.do("POST", chats, `{"orderIds":[77]}`); w.Code != 400 {
		t.Errorf("orderIds, after it was switched off: %d", w.Code)
	}
}

func TestNewChat(t *testing.T) {
	s := newShop(t, yandexmarket.BusinessSpec{
		Stores: []yandexmarket.StoreSpec{{ID: 5}, {ID: 6, Placement: yandexmarket.DBS}},
		World:  yandexmarket.WorldSpec{Chats: yandexmarket.ChatSpec{History: 1}},
	})
	existing := s.addChat(yandexmarket.ChatBy{ContextID: 50})
	create := func(body string) (out struct{ ChatID int64 }) {
		s.t.Helper()
		s.post(chats+"/new", body, &out)
		return out
	}
	if got := create(`{"context":{"type":"ORDER","id":50}}`); got.ChatID != existing { // "a new one, or the one created before"
		t.Errorf("chat %d, there is %d", got.ChatID, existing)
	}
	s.addChat(yandexmarket.ChatBy{Type: "ARBITRAGE", ContextID: 60})
	opened := create(`{"context":{"type":"ORDER","id":60}}`)
	if again := create(`{"context":{"type":"ORDER","id":60}}`); again != opened || s.entry(opened.ChatID).Status != "NEW" {
		t.Errorf("chats %d and %d about one order", opened.ChatID, again.ChatID)
	}
	s.wantError(s.do("POST", chats+"/new", `{"context":{"type":"ORDER","id":1}}`), 404, "Order not found")
	s.addChat(yandexmarket.ChatBy{Context: "RETURN", ContextID: 71, CampaignID: 6})
	if w := s.do("POST", chats+"/new", `{"context":{"type":"RETURN","id":71}}`); w.Code != 400 { // FBY, FBS and Express only
		t.Errorf("a return of a DBS store: %d", w.Code)
	}
	if w := s.do("POST", chats+"/new", `{"orderId":50}`); w.Code != 400 { // off since October 2026
		t.Errorf("orderId: %d", w.Code)
	}
	if _, err := s.b.AddChat(yandexmarket.ChatBy{ContextID: 50}); err == nil {
		t.Error("a second chat about an order")
	}
}

func TestSending(t *testing.T) {
	s := newShop(t, yandexmarket.BusinessSpec{})
	chat := s.addChat(yandexmarket.ChatBy{})
	w := s.do("POST", fmt.Sprintf("%s/message?chatId=%d", chats, chat), `{"message":"Добрый <день> & ночь"}`)
	if w.Code != 200 || w.Body.String() != `{"status":"OK"}` { // no messageId
		t.Errorf("%d %s", w.Code, w.Body)
	}
	asForm(s)
	w = s.do("POST", fmt.Sprintf("%s/file/send?chatId=%d", chats, chat), multipart("file", "%PDF"))
	if w.Code != 200 || w.Body.String() != `{"status":"OK"}` {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := s.do("POST", fmt.Sprintf("%s/file/send?chatId=%d", chats, chat), multipart("file", strings.Repeat("x", 5<<20+1))); w.Code != 400 {
		t.Errorf("a file above 5 MB: %d", w.Code)
	}
	s.contentType = "application/json"
	if w := s.do("POST", fmt.Sprintf("%s/file/send?chatId=%d", chats, chat), `{"file":"x"}`); w.Code != 415 {
		t.Errorf("a file as JSON: %d", w.Code)
	}
	said := s.wholeHistory(chat, 10, "{}")
	if len(said) != 2 || said[0].Sender != "PARTNER" || *said[0].Message != "Добрый <день> & ночь" || said[1].Message != nil || said[1].Payload[0].Name != "чек.pdf" {
		t.Errorf("history %+v", said)
	}
	if got := s.entry(chat).Status; got != "WAITING_FOR_CUSTOMER" {
		t.Errorf("status %s", got)
	}
}

// TestFormsOfTimes: fractions, offsets and none of them, all of the same moment.
func TestFormsOfTimes(t *testing.T) {
	at := time.Date(2026, 9, 1, 7, 5, 12, 213_759_000, time.UTC)
	for form, want := range map[yandexmarket.TimeForm]string{
		yandexmarket.TimesMoscow: "2026-09-01T10:05:12+03:00", yandexmarket.TimesUTC: "2026-09-01T07:05:12Z",
		yandexmarket.TimesMilli: "2026-09-01T10:05:12.213+03:00", yandexmarket.TimesNano: "2026-09-01T07:05:12.213759Z",
	} {
		s := newShop(t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Times: form}})
		ch, err := s.b.AddChat(yandexmarket.ChatBy{At: at})
		s.must(err)
		if !strings.Contains(string(ch.JSON), `"createdAt":"`+want+`"`) {
			t.Errorf("form %d: %s", form, ch.JSON)
		}
	}
	s := newShop(t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Times: yandexmarket.TimesMixed}})
	forms := make(map[int]bool)
	for i := range 5 {
		ch, err := s.b.AddChat(yandexmarket.ChatBy{At: at.Add(time.Duration(i) * time.Second)})
		s.must(err)
		var c struct{ CreatedAt string }
		s.must(json.Unmarshal(ch.JSON, &c))
		if got, err := time.Parse(time.RFC3339, c.CreatedAt); err != nil || got.Truncate(time.Second) != at.Add(time.Duration(i)*time.Second).Truncate(time.Second) && got.Unix() != at.Unix()+int64(i) {
			t.Errorf("%s, %v", c.CreatedAt, err)
		}
		forms[len(c.CreatedAt)] = true
	}
	if len(forms) != 5 {
		t.Errorf("%d forms", len(forms))
	}
}

// TestDemo: what `syncd demo` shows in its first minute.
func TestDemo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, yandexmarket.Demo(1))
		if n := len(s.b.Stores()); n != 3 {
			t.Errorf("%d stores", n)
		}
		count := func() (n int) {
			for _, ch := range s.b.Chats() {
				n += len(s.b.Messages(ch.ID))
			}
			return n
		}
		before := count()
		time.Sleep(time.Minute)
		if said := count() - before; said < 5 || said > 40 {
			t.Errorf("%d messages in a minute", said)
		}
	})
}
