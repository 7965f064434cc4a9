package yandexmarket_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/yandexmarket"
)

// TestChatsScan: each run reads the whole list, whatever its order, and finds for
// chat_messages what has moved, be that stream on or off.
func TestChatsScan(t *testing.T) {
	for _, streams := range [][]string{nil, {yandexmarket.Chats}} {
		synctest.Test(t, bubble(func(t *testing.T) {
			w := newChatWorld(t)
			for i := range 50 {
				w.add(time.Duration(i) * time.Hour)
			}
			w.order = recent
			rd, _ := w.reader(streams...)
			rd.query.Since = time.Now().Add(-30 * time.Hour)
			last, _ := rd.run()
			if got := w.asks(); got != "list, +, +" || len(rd.seen) != 50 || last.Partial || len(rd.notes) > 0 {
				t.Errorf("asked %q, read %d chats: %+v", got, len(rd.seen), last)
			}
			if !strings.HasPrefix(rd.plan, "a scan of 50 chats is 3 requests: 4999 an hour allow one every 2s") {
				t.Errorf("the plan is %q", rd.plan)
			}
			// What may hold news is due at once, the rest is remembered.
			found := rd.visits[yandexmarket.ChatMessages]
			for i, c := range w.chats {
				v := found[c.name()]
				if v == nil || !v.Created.Equal(c.created.Truncate(time.Second)) || v.Due.IsZero() != (i > 30) || v.Urgent != (i < 1) || v.Seen != nil {
					t.Errorf("chat %d, of %d hours ago: %+v", c.id, i, v)
				}
			}
			for _, v := range found {
				v.Due, v.Urgent = time.Time{}, false // visited
			}
			time.Sleep(time.Minute)
			rd.run()
			if due := planned(rd); len(due) > 0 {
				t.Errorf("nothing has moved, and due is %v", due)
			}
			w.chats[7].say(0)
			w.chats[40].setStatus("FINISHED")
			w.add(0)
			old := w.add(100 * time.Hour)
			rd.run()
			if due := planned(rd); !slices.Equal(due, []string{"1008", "1041", "1051"}) || !found[old.name()].Due.IsZero() {
				t.Errorf("due is %v", due)
			}
		}))
	}
}

// TestChatsListMoves: a list that moves while it is read is read all the same, chats
// that it shows twice in either order of their versions.
func TestChatsListMoves(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		w := newChatWorld(t)
		for i := range 45 {
			w.add(time.Duration(i+1) * time.Hour)
		}
		w.order, w.delay = recent, time.Second
		late := w.chats[44]
		late.say(1500 * time.Millisecond) // goes from the third page to the first
		rd, _ := w.reader()
		last, _ := rd.run()
		if len(rd.seen) != 44 || last.Partial {
			t.Errorf("read %d chats, expected all but the one that moved: %+v", len(rd.seen), last)
		}
		rd.run()
		if v := rd.visits[yandexmarket.ChatMessages][late.name()]; len(rd.seen) != 45 || v == nil || !v.Urgent {
			t.Errorf("the chat that moved: %+v", v)
		}
		for _, twice := range [][]string{{"20:00:01", "20:00:02"}, {"20:00:02", "20:00:01"}} {
			var entries []string
			for _, at := range twice {
				entries = append(entries, fmt.Sprintf(`{"chatId":7,"status":"NEW","updatedAt":"2026-02-02T%sZ"}`, at))
			}
			w.on["POST /v2/businesses/chats"] = func(call) (int, string) { return 200, page("chats", entries, "") }
			rd, _ := w.reader()
			rd.run()
			if v := rd.visits[yandexmarket.ChatMessages]["7"]; string(v.Found) != `{"u":"2026-02-02T20:00:02Z","s":"NEW"}` || !rd.items[1].Changed.After(rd.items[0].Changed) {
				t.Errorf("of two versions %s is found", v.Found)
			}
		}
	}))
}

// TestChatsOdd: what the list may show of a chat moves it when it changes, as far as
// that can be told, and never costs the page.
func TestChatsOdd(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for _, tt := range []struct {
		name, before, after string
		due                 bool // the second time
	}{
		{"same time in another zone", `"updatedAt":"2026-02-02T22:00:00+03:00"`, `"updatedAt":"2026-02-02T19:00:00Z"`, false},
		{"with a fraction", `"updatedAt":"2026-02-02T19:00:00Z"`, `"updatedAt":"2026-02-02T19:00:00.000Z"`, false},
		{"later in the second", `"updatedAt":"2026-02-02T19:00:00Z"`, `"updatedAt":"2026-02-02T19:00:00.5Z"`, true},
		{"back in time", `"updatedAt":"2026-02-02T19:00:00Z"`, `"updatedAt":"2026-02-02T18:00:00Z"`, true},
		{"without a zone", `"updatedAt":"2026-02-02T19:00:00"`, `"updatedAt":"2026-02-02T19:00:01"`, true},
		{"without a zone, the same", `"updatedAt":"2026-02-02T19:00:00"`, `"updatedAt":"2026-02-02T19:00:00"`, false},
		{"from the future", `"updatedAt":"2027-02-02T19:00:00Z"`, `"updatedAt":"2027-02-02T19:00:01Z"`, true},
		{"absent", `"x":1`, `"x":2`, false},
		{"of another type", `"updatedAt":{"a":1}`, `"updatedAt":{"a":2}`, true},
		{"long", `"updatedAt":"` + long + `"`, `"updatedAt":"` + long + `y"`, true},
		{"an unknown status", `"status":"NEW"`, `"status":"SLEEPING"`, true},
		{"a long status", `"status":"` + long + `"`, `"status":"` + long + `y"`, true},
		{"a status that is a list", `"status":["NEW"]`, `"status":["OLD"]`, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) {
				w := newChatWorld(t)
				shown := tt.before
				w.on["POST /v2/businesses/chats"] = func(call) (int, string) {
					return 200, page("chats", []string{`{"chatId":7,` + shown + `}`, `{"context":null}`, `null`}, "")
				}
				rd, _ := w.reader()
				rd.query.Since = time.Now().Add(-48 * time.Hour)
				last, _ := rd.run()
				v := rd.visits[yandexmarket.ChatMessages]["7"]
				if v == nil || v.Due.IsZero() || len(v.Found) > 300 || len(last.Undecodable) != 2 {
					t.Fatalf("found %+v, and %d odd entries", v, len(last.Undecodable))
				}
				v.Due = time.Time{}
				shown = tt.after
				rd.run()
				if v = rd.visits[yandexmarket.ChatMessages]["7"]; v.Due.IsZero() == tt.due {
					t.Errorf("found %s", v.Found)
				}
			}))
		})
	}
}

// TestChatsMissing: chats that the list no longer shows are asked for one by one, as
// long as something can happen in them, and one that does not exist any more is no
// failure.
func TestChatsMissing(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		w := newChatWorld(t)
		for _, age := range []time.Duration{time.Hour, time.Hour, time.Hour, 100 * 24 * time.Hour, time.Hour, time.Hour} {
			w.add(age)
		}
		w.chats[1].setStatus("FINISHED")
		rd, _ := w.reader()
		rd.run()
		rd.query.Walk, rd.cursor, rd.items = sources.Sweep, nil, nil
		w.took()
		if last, pages := rd.run(); pages != 1 || w.asks() != "" || len(last.Items) > 0 {
			t.Errorf("nobody knows what is missing: %+v", last)
		}
		now := time.Now()
		var known []sources.Known
		for _, c := range w.chats {
			known = append(known, sources.Known{ID: c.name(), Body: []byte(c.json(now))})
		}
		known = slices.Insert(known, 2, sources.Known{ID: "1"}, sources.Known{ID: "2", Body: []byte(`{"chatId":[]}`)})
		rd.query.Missing = func(after string, n int) ([]sources.Known, string, error) {
			i := 0
			if after != "" {
				_, _ = fmt.Sscan(after, &i)
			}
			end := min(i+n, len(known))
			if end == len(known) {
				return known[i:end], "", nil
			}
			return known[i:end], fmt.Sprint(end), nil
		}
		w.chats[2].gone = now
		w.chats[4].say(0)
		w.fault = func(c call) (int, string) {
			if c.query.Get("chatId") == "1006" {
				return 400, failure("BAD_REQUEST", "nonsense")
			}
			return 0, ""
		}
		time.Sleep(time.Minute)
		rd.cursor = nil
		failed := 0
		for done := false; !done; {
			p, err := rd.fetch()
			if err != nil {
				t.Fatal(err)
			}
			if p.Failed != nil {
				failed++
			}
			done = p.Done
		}
		if got := w.asks(); got != "chat 1001, chat 1003, chat 1005, chat 1006" || ids(rd) != "1001 1005" || failed != 1 {
			t.Errorf("asked %q, read %q, %d failed", got, ids(rd), failed)
		}
		if due := planned(rd); !slices.Contains(due, "1005") {
			t.Errorf("due is %v", due)
		}
		rd.cursor = nil
		rd.query.Missing = func(string, int) ([]sources.Known, string, error) { return nil, "", errors.New("disk") }
		if _, err := rd.fetch(); err == nil || err.Error() != "disk" {
			t.Errorf("got %v", err)
		}
	}))
}

// planned are the ids of the chats whose messages are to be read.
func planned(rd *reader) (ids []string) {
	for id, v := range rd.visits[yandexmarket.ChatMessages] {
		if !v.Due.IsZero() {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
