package yandexmarket_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sandbox/kit"
	"syncd/internal/sandbox/yandexmarket"
)

// livelyChats have all that becomes of chats, a lot of it.
var livelyChats = yandexmarket.ChatSpec{
	History: 40, MessageEvery: 10 * time.Minute, StatusEvery: 30 * time.Minute, VanishEvery: time.Hour, VanishFor: 2 * time.Hour,
	LateMessages: 0.3, LateListings: 0.3, LateBy: time.Hour,
}

// saying is a message of a history.
type saying struct {
	MessageID int64
	CreatedAt time.Time
	Sender    string
	Message   *string
	Payload   []struct{ Name, URL string }
}

func (s *shop) history(chat int64, query, body string) (out []saying, next string) {
	s.t.Helper()
	var page struct {
		Context  struct{ Type string }
		Messages []saying
		Paging   struct{ NextPageToken string }
	}
	s.post(fmt.Sprintf("%s/history?chatId=%d%s", chats, chat, query), body, &page)
	if page.Context.Type == "" {
		s.t.Fatal("a history without its context")
	}
	return page.Messages, page.Paging.NextPageToken
}

// wholeHistory reads all pages.
func (s *shop) wholeHistory(chat int64, limit int, body string) (out []saying) {
	s.t.Helper()
	for token := ""; ; {
		page, next := s.history(chat, fmt.Sprintf("&limit=%d&pageToken=%s", limit, token), body)
		if out = append(out, page...); next == "" {
			return out
		}
		token = next
	}
}

func messageIDs(of []saying) (ids []int64) {
	for _, m := range of {
		ids = append(ids, m.MessageID)
	}
	return ids
}

// TestWorldIsAFunctionOfSeedAndEpoch: it becomes the same whether somebody looks all the time or once at the end.
func TestWorldIsAFunctionOfSeedAndEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Journal: true, Chats: livelyChats}}
		watched, alone := newShop(t, spec), newShop(t, spec)
		for range 500 {
			time.Sleep(11 * time.Minute)
			watched.b.Chats()
		}
		a, b := watched.b.Journal(), alone.b.Journal()
		if len(a) < 700 || len(a) != len(b) {
			t.Fatalf("%d and %d states", len(a), len(b))
		}
		for i := range a {
			if a[i].ID != b[i].ID || !a[i].From.Equal(b[i].From) || !a[i].To.Equal(b[i].To) || !bytes.Equal(a[i].JSON, b[i].JSON) {
				t.Fatalf("state %d: %s %s and %s %s", i, a[i].From, a[i].JSON, b[i].From, b[i].JSON)
			}
		}
	})
}

// TestJournalIsWhatTheMethodsShow: at every moment the states that the journal has open are those that the list and the
// histories show.
func TestJournalIsWhatTheMethodsShow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Journal: true, Chats: livelyChats}})
		for round := range 40 {
			time.Sleep(3*time.Hour + 7*time.Minute)
			if round == 35 {
				s.b.Rest()
			}
			open := make(map[string]json.RawMessage)
			last := make(map[string]kit.Showing)
			for _, state := range s.b.Journal() {
				key := string(state.Kind) + " " + state.ID
				if before, ok := last[key]; ok && (before.To.IsZero() || state.From.Before(before.To)) {
					t.Errorf("%s: shown until %s, and then from %s", key, before.To, state.From)
				}
				if last[key] = state; state.To.IsZero() {
					open[key] = state.JSON
				}
			}
			compare := func(key string, shown []byte) {
				if !bytes.Equal(open[key], shown) {
					t.Errorf("%s: the journal has %s, shown is %s", key, open[key], shown)
				}
				delete(open, key)
			}
			for _, ch := range s.listed() {
				var head struct{ ChatID int64 }
				s.must(json.Unmarshal(ch, &head))
				compare(fmt.Sprint("chat ", head.ChatID), ch)
			}
			for _, chat := range chatsOf(t, s.b.Journal()) { // those that are not listed, too
				for _, m := range s.b.Messages(chat) {
					compare(fmt.Sprintf("message %d/%d", chat, m.ID), m.JSON)
				}
			}
			for key := range open {
				t.Errorf("%s is in the journal and not shown", key)
			}
		}
	})
}

// chatsOf are the chats of which the journal knows anything.
func chatsOf(t *testing.T, journal []kit.Showing) (ids []int64) {
	for _, state := range journal {
		chat, _, _ := strings.Cut(state.ID, "/")
		ids = append(ids, int64(number(t, chat)))
	}
	return distinct(ids)
}

// listed reads the entries of the whole list.
func (s *shop) listed() (out []json.RawMessage) {
	s.t.Helper()
	for token := ""; ; {
		var page struct {
			Chats  []json.RawMessage
			Paging struct{ NextPageToken string }
		}
		s.post(chats+"?limit=20&pageToken="+token, "{}", &page)
		if out, token = append(out, page.Chats...), page.Paging.NextPageToken; token == "" {
			return out
		}
	}
}

// TestEverythingOccurs: what the facts say there is has to be met by whoever reads a lively world for some days.
func TestEverythingOccurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Journal: true, Chats: livelyChats}})
		time.Sleep(10 * 24 * time.Hour)
		met := make(map[string]bool)
		type version struct {
			status, updated string
		}
		before := make(map[string]version)
		said := make(map[string]bool)
		for _, state := range s.b.Journal() {
			if state.Kind == yandexmarket.KindMessage {
				var m saying
				s.must(json.Unmarshal(state.JSON, &m))
				met[m.Sender] = true
				if m.Message == nil && m.Payload == nil {
					met["sticker"] = true
				}
				if m.Payload != nil {
					met["file"] = true
				}
				chat, _, _ := strings.Cut(state.ID, "/")
				second := chat + m.CreatedAt.Format(time.RFC3339)
				met["two in a second"] = met["two in a second"] || said[second]
				said[second] = true
				if state.From.Sub(m.CreatedAt) > time.Minute {
					met["late in the history"] = true
				}
				continue
			}
			var c struct {
				Type, Status, UpdatedAt string
				Context                 struct{ Type string }
			}
			s.must(json.Unmarshal(state.JSON, &c))
			met[c.Type], met[c.Context.Type], met[c.Status] = true, true, true
			if was, ok := before[state.ID]; ok && was.status != c.Status && was.updated == c.UpdatedAt {
				met["status without a message"] = true
			}
			if !state.To.IsZero() && state.To.Before(time.Now()) {
				met["vanished or changed"] = true
			}
			before[state.ID] = version{c.Status, c.UpdatedAt}
		}
		for _, want := range []string{
			"CHAT", "ARBITRAGE", "ORDER", "RETURN", "DIRECT", "NEW", "WAITING_FOR_CUSTOMER", "WAITING_FOR_PARTNER", "WAITING_FOR_ARBITER",
			"WAITING_FOR_MARKET", "FINISHED", "CUSTOMER", "PARTNER", "MARKET", "SUPPORT", "sticker", "file", "two in a second",
			"late in the history", "status without a message", "vanished or changed",
		} {
			if want != "NEW" && !met[want] { // NEW is what sellers open
				t.Errorf("no %s", want)
			}
		}
	})
}

func TestHistory(t *testing.T) {
	s := newShop(t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Chats: yandexmarket.ChatSpec{History: 2, LongChat: 250}}})
	chat := s.b.Chats()[1].ID
	all := s.wholeHistory(chat, 100, "{}")
	if page, _ := s.history(chat, "", "{}"); len(all) != 250 || len(page) != 50 {
		t.Fatalf("%d messages, %d on a page by default", len(all), len(page))
	}
	if !slices.IsSortedFunc(all, func(a, b saying) int { return a.CreatedAt.Compare(b.CreatedAt) }) || !slices.IsSorted(messageIDs(all)) {
		t.Error("not in the order of times and ids")
	}
	from := all[100].MessageID
	body := fmt.Sprintf(`{"messageIdFrom":%d}`, from)
	if got := messageIDs(s.wholeHistory(chat, 7, body)); !slices.Equal(got, messageIDs(all[100:])) {
		t.Errorf("from a message on: %d messages", len(got))
	}
	s.setQuirks(yandexmarket.Quirks{Chats: yandexmarket.ChatQuirks{FromExclusive: true, HistoryOrder: yandexmarket.HistoryDescending}})
	got := messageIDs(s.wholeHistory(chat, 7, body))
	slices.Reverse(got)
	if !slices.Equal(got, messageIDs(all[101:])) {
		t.Errorf("behind a message: %d messages", len(got))
	}
	s.setQuirks(yandexmarket.Quirks{Chats: yandexmarket.ChatQuirks{HistoryOrder: yandexmarket.HistoryShuffled}})
	shuffled := messageIDs(s.wholeHistory(chat, 100, "{}"))
	if slices.IsSorted(shuffled) || !slices.Equal(distinct(shuffled), messageIDs(all)) {
		t.Errorf("shuffled: %d messages", len(shuffled))
	}
	_, next := s.history(chat, "&limit=10", "{}")
	s.wantError(s.do("POST", fmt.Sprintf("%s/history?chatId=%d&pageToken=%s", chats, s.b.Chats()[0].ID, next), "{}"), 400, "Bad page token")
	s.wantError(s.do("POST", fmt.Sprintf("%s/history?chatId=%d", chats, chat), ""), 400, "Required request body is missing")
	s.wantError(s.do("POST", chats+"/history?chatId=5", "{}"), 404, "Can't find chat by id: '5'")
	s.wantError(s.do("GET", fmt.Sprintf("%s/message?chatId=%d&messageId=5", chats, chat), ""), 404, fmt.Sprintf("Can't find message by id: '5' for chat '%d'", chat))
}

func TestDrawnMessageIDs(t *testing.T) {
	s := newShop(t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Chats: yandexmarket.ChatSpec{History: 1, LongChat: 50, DrawnMessageIDs: true}}})
	chat := s.b.Chats()[0].ID
	all := s.wholeHistory(chat, 100, "{}")
	if slices.IsSorted(messageIDs(all)) || !slices.IsSortedFunc(all, func(a, b saying) int { return a.CreatedAt.Compare(b.CreatedAt) }) {
		t.Error("ids have an order, or times have none")
	}
	if got := s.wholeHistory(chat, 100, fmt.Sprintf(`{"messageIdFrom":%d}`, all[20].MessageID)); len(got) != 30 {
		t.Errorf("%d messages from the 21st of 50 on", len(got))
	}
}

// entry is the chat's entry in the list, as the list has it; nil: it has none.
func (s *shop) entry(chat int64) *struct {
	Status    string
	UpdatedAt time.Time
	OrderID   int64
} {
	s.t.Helper()
	for _, raw := range s.listed() {
		var c struct {
			ChatID, OrderID int64
			Status          string
			UpdatedAt       time.Time
		}
		s.must(json.Unmarshal(raw, &c))
		if c.ChatID == chat {
			return &struct {
				Status    string
				UpdatedAt time.Time
				OrderID   int64
			}{c.Status, c.UpdatedAt, c.OrderID}
		}
	}
	return nil
}

func (s *shop) addChat(by yandexmarket.ChatBy) int64 {
	s.t.Helper()
	ch, err := s.b.AddChat(by)
	s.must(err)
	return ch.ID
}

func (s *shop) addMessage(by yandexmarket.MessageBy) int64 {
	s.t.Helper()
	m, err := s.b.AddMessage(by)
	s.must(err)
	return m.ID
}

// TestSecondsHideMessages: the second of two messages within a second leaves updatedAt as it was.
func TestSecondsHideMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{})
		chat := s.addChat(yandexmarket.ChatBy{})
		time.Sleep(time.Minute)
		s.addMessage(yandexmarket.MessageBy{ChatID: chat, Text: "раз"})
		first := *s.entry(chat)
		time.Sleep(999 * time.Millisecond)
		s.addMessage(yandexmarket.MessageBy{ChatID: chat, Text: "два"})
		if second := *s.entry(chat); second != first || first.Status != "WAITING_FOR_PARTNER" || len(s.wholeHistory(chat, 10, "{}")) != 2 {
			t.Errorf("the list shows %+v, and then %+v", first, second)
		}
		s.addMessage(yandexmarket.MessageBy{ChatID: chat, At: time.Now().Add(-time.Hour)}) // of before, and appears now
		if late := *s.entry(chat); late != first || len(s.wholeHistory(chat, 10, "{}")) != 3 {
			t.Errorf("the list shows %+v after a message of an hour ago", late)
		}
		time.Sleep(time.Second)
		s.must(s.b.SetChatStatus(chat, "FINISHED"))
		if third := *s.entry(chat); third.Status != "FINISHED" || third.UpdatedAt != first.UpdatedAt {
			t.Errorf("after a change of status alone: %+v", third)
		}
	})
}

// TestLateness: list and history can each be behind the other, and behind what GET …/chat shows.
func TestLateness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{})
		chat := s.addChat(yandexmarket.ChatBy{})
		created := s.entry(chat).UpdatedAt
		time.Sleep(time.Minute)
		id := s.addMessage(yandexmarket.MessageBy{ChatID: chat, HistoryAfter: time.Minute})
		if s.entry(chat).UpdatedAt.Equal(created) || len(s.wholeHistory(chat, 10, "{}")) != 0 {
			t.Error("not the list first")
		}
		var m saying
		s.result(s.do("GET", fmt.Sprintf("%s/message?chatId=%d&messageId=%d", chats, chat, id), ""), &m)
		time.Sleep(time.Minute)
		if got := messageIDs(s.wholeHistory(chat, 10, "{}")); !slices.Equal(got, []int64{id}) || m.MessageID != id {
			t.Errorf("the history shows %v", got)
		}
		was := s.entry(chat).UpdatedAt
		s.addMessage(yandexmarket.MessageBy{ChatID: chat, Sender: "PARTNER", ListAfter: time.Hour})
		if !s.entry(chat).UpdatedAt.Equal(was) || len(s.wholeHistory(chat, 10, "{}")) != 2 {
			t.Error("not the history first")
		}
		var now struct{ Status string }
		s.result(s.do("GET", fmt.Sprintf("/v2/businesses/{business}/chat?chatId=%d", chat), ""), &now)
		if now.Status != "WAITING_FOR_CUSTOMER" || s.entry(chat).Status != "WAITING_FOR_PARTNER" {
			t.Errorf("the chat itself %s, the list %s", now.Status, s.entry(chat).Status)
		}
		// A change that the list shows at once overtakes the late one, which does not come back.
		time.Sleep(30 * time.Minute)
		s.must(s.b.SetChatStatus(chat, "FINISHED"))
		time.Sleep(time.Hour)
		if got := s.entry(chat).Status; got != "FINISHED" {
			t.Errorf("status %s", got)
		}
	})
}

func TestVanishedChat(t *testing.T) {
	s := newShop(t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Chats: yandexmarket.ChatSpec{History: 30}}})
	chat := s.b.Chats()[7].ID
	before := s.wholeHistory(chat, 100, "{}")
	s.must(s.b.HideChat(chat))
	if s.entry(chat) != nil {
		t.Error("still listed")
	}
	var got struct{ ChatID int64 }
	s.result(s.do("GET", fmt.Sprintf("/v2/businesses/{business}/chat?chatId=%d", chat), ""), &got)
	if got.ChatID != chat || len(s.wholeHistory(chat, 100, "{}")) != len(before) {
		t.Error("gone altogether")
	}
	s.must(s.b.ShowChat(chat))
	if s.entry(chat) == nil {
		t.Error("not listed again")
	}
}

// TestListMovesWhileItIsPaged: what is written in while a scan is under way moves to the head, and is missed by the scan when
// it was behind; a counting token shows others twice.
func TestListMovesWhileItIsPaged(t *testing.T) {
	for name, q := range map[string]yandexmarket.Quirks{"token": {}, "counting token": {TokensCount: true}} {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Chats: yandexmarket.ChatSpec{History: 30}}}, q)
			all, _ := s.scan(20)
			var first, second chatPage
			s.post(chats+"?limit=20", "{}", &first)
			s.addMessage(yandexmarket.MessageBy{ChatID: all[25]})
			s.post(chats+"?limit=20&pageToken="+first.next(), "{}", &second)
			ids := slices.Concat(first.ids(), second.ids())
			if slices.Contains(ids, all[25]) {
				t.Error("the chat that moved was shown")
			}
			if twice := len(ids) - len(distinct(ids)); q.TokensCount != (twice == 1) {
				t.Errorf("%d entries twice", twice)
			}
		})
	}
}
