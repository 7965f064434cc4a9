package yandexmarket_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/yandexmarket"
)

// talk adds messages, the newest of them so long ago, a minute apart.
func (c *fakeChat) talk(n int, newest time.Duration) {
	for i := range n {
		c.say(-newest - time.Duration(n-1-i)*time.Minute)
	}
}

// inOrder says whether items come in the order of their times.
func inOrder(items []sources.Item) bool {
	return slices.IsSortedFunc(items, func(a, b sources.Item) int { return a.Created.Compare(b.Created) })
}

// TestVisitShort: a chat that fits a page is one request, in whatever order its
// messages come, and is not kept aside.
func TestVisitShort(t *testing.T) {
	for _, order := range []string{"oldest first", "newest first", "mixed"} {
		t.Run(order, func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) {
				w := newChatWorld(t)
				w.newest = order == "newest first"
				if order == "mixed" {
					w.mix = rand.New(rand.NewPCG(1, 2))
				}
				c := w.add()
				c.talk(60, time.Hour)
				c.messages[30].at = c.messages[29].at // of one second: by their ids
				chats, rd := w.reader()
				for visit := range 3 {
					chats.run()
					rd.visits[rd.query.Stream][c.name()].History = visit == 0 // the engine's word
					rd.items = nil
					w.took()
					last, _ := rd.visit(c.name())
					if got := w.asks(); got != "history 1001" || last.Staged || len(rd.items) != len(c.messages) || last.History != (visit == 0) {
						t.Fatalf("asked %q, read %d messages: %+v", got, len(rd.items), last)
					}
					for i, it := range rd.items {
						if m := c.messages[i]; it.ID[1] != fmt.Sprint(m.id) || it.ID[0] != c.name() || it.Rank != uint64(m.id) || !it.Immutable {
							t.Fatalf("message %d is %+v, expected %d", i, it, m.id)
						}
					}
					if v := last.Visited; v.Urgent || v.Seen == nil {
						t.Errorf("the next visit is %+v", v)
					}
					time.Sleep(time.Hour)
					c.say(-10 * time.Minute)
				}
			}))
		})
	}
}

// TestVisitLong: what is new in a long chat costs one request where messageIdFrom means
// what can be expected, and is read in every other case too; in order in any case.
func TestVisitLong(t *testing.T) {
	for name, want := range map[string]string{
		"inclusive": "history 1001 from 1001229", "exclusive": "history 1001 from 1001229",
		"by time": "history 1001 from 1001229", "after": "history 1001 from 1001229",
		"ignored": "history 1001 from 1001229, +, +", "before": "history 1001 from 1001229, +, +, history 1001, +, +", "nothing": "history 1001 from 1001229, history 1001, +, +",
		"refused": "history 1001 from 1001229, history 1001, +, +", "ids fall": "history 1001, +, +", "ids by chance": "history 1001, +, +",
		"ids turn": "history 1001 from 1001229, history 1001, +, +", "two kinds of ids": "history 1001, +, +", "ids fall by page": "history 1001, +, +", "last one": "history 1001 from 1001229, history 1001, +, +",
	} {
		for _, newest := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", newest first ", newest), func(t *testing.T) {
				synctest.Test(t, bubble(func(t *testing.T) {
					w := newChatWorld(t)
					w.newest, w.mix = newest, rand.New(rand.NewPCG(3, 4))
					if meaning, ok := meanings[name]; ok {
						w.from = meaning
					}
					w.fault = func(c call) (int, string) {
						if name == "refused" && c.body["messageIdFrom"] != nil {
							return 400, failure("BAD_REQUEST", "no such message")
						}
						return 0, ""
					}
					c := w.add()
					c.talk(250, time.Hour)
					id := func() int64 {
						switch name {
						case "ids fall":
							return 1002000 - int64(len(c.messages))
						case "ids turn":
							if n := int64(len(c.messages)); n > 250 {
								return 1001000 - n
							}
						case "two kinds of ids":
							if n := int64(len(c.messages)); n%90 == 80 {
								return n
							}
						case "ids fall by page":
							n := int64(len(c.messages) - 1)
							return 1009000 - n/100*1000 + n%100
						case "ids by chance":
							return int64(w.mix.IntN(1 << 30))
						}
						return c.messages[len(c.messages)-1].id
					}
					for i, all := 0, c.messages; i < len(all); i++ {
						c.messages = all[:i+1]
						all[i].id = id()
					}
					chats, rd := w.reader()
					var p sources.Page
					visit := func() (asked string) {
						chats.run()
						w.took()
						rd.items, rd.cursor = nil, nil
						v := *rd.visits[rd.query.Stream][c.name()]
						rd.query.Visit = &v
						for pages, done := 1, false; !done; pages++ {
							var err error
							if p, err = rd.fetch(); err != nil {
								t.Fatal(err)
							}
							if done = p.Done; p.Staged != (pages > 1 || !done) || !inOrder(p.Items) {
								t.Errorf("page %d is kept aside: %t", pages, p.Staged)
							}
						}
						rd.visits.visited(rd.query.Stream, v.Version, *p.Visited)
						return w.asks()
					}
					if got := visit(); got != "history 1001, +, +" || len(rd.items) != 250 {
						t.Fatalf("asked %q, read %d messages", got, len(rd.items))
					}
					for range 3 {
						time.Sleep(time.Hour)
						m := c.say(-20 * time.Minute)
						m.id = id()
						if got := visit(); !strings.HasPrefix(got, want[:min(len(want), 12)]) || len(c.messages) == 251 && got != want {
							t.Errorf("asked %q, expected %q", got, want)
						}
						if rd.seen[fmt.Sprint(c.name(), "/", m.id)] == 0 {
							t.Errorf("message %d is not read", m.id)
						}
					}
				}))
			})
		}
	}
}

// TestVisitLate: in a long chat, too, what turns up minutes late is read with what
// comes next.
func TestVisitLate(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		w := newChatWorld(t)
		c := w.add()
		c.talk(100, time.Hour)
		for i := range 40 {
			c.say(time.Duration(i-80) * 2 * time.Second)
		}
		late := c.messages[110]
		late.visible = time.Now().Add(8 * time.Minute)
		chats, rd := w.reader()
		for range 30 {
			chats.run()
			for _, id := range rd.visits.due(yandexmarket.ChatMessages, time.Now()) {
				rd.visit(id)
			}
			time.Sleep(20 * time.Second)
		}
		c.say(0)
		chats.run()
		w.took()
		rd.visit(c.name())
		if asked := w.asks(); len(rd.seen) != 141 || rd.seen[fmt.Sprint(c.name(), "/", late.id)] == 0 {
			t.Errorf("asked %q, read %d of 141", asked, len(rd.seen))
		}
	}))
}

// TestVisitAgain: the list tells times to the second, and may be ahead of the chat: a
// chat is visited again until neither can hide a message.
func TestVisitAgain(t *testing.T) {
	for _, tt := range []struct {
		name  string
		delay time.Duration // of the last message, in the chat
		age   time.Duration // at the first visit
		want  string        // the pauses from visit to visit
	}{
		{"just now", 0, 0, "6s 54s"},
		{"a moment ago", 0, 3 * time.Second, "3s 54s"},
		{"half a minute ago", 0, 30 * time.Second, "30s"},
		{"long ago", 0, 2 * time.Minute, ""},
		{"not visible for a moment", 2 * time.Second, 0, "6s 54s"},
		{"not visible for a minute", time.Minute, 0, "6s 24s 1m30s"},
		{"not visible for four minutes", 4 * time.Minute, 0, "6s 24s 1m30s 3m0s"},
		{"never visible", time.Hour, 0, "6s 24s 1m30s 3m0s"},
		{"never visible, and old", time.Hour, 10 * time.Minute, ""},
		{"never visible, and older than a minute", time.Hour, 90 * time.Second, "30s 3m0s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) {
				w := newChatWorld(t)
				c := w.add(time.Hour, tt.age)
				c.messages[1].visible = c.messages[1].at.Add(tt.delay)
				chats, rd := w.reader()
				chats.run()
				same := c.say(0) // in the same second, when the list has been read
				same.at, same.visible = c.messages[1].at, c.messages[1].visible
				var pauses []string
				for v := rd.visits[rd.query.Stream][c.name()]; ; {
					rd.visit(c.name())
					if !v.Urgent {
						break
					}
					if len(pauses) > 10 {
						t.Fatalf("the next visit is %+v", v)
					}
					wait := time.Until(v.Due)
					pauses = append(pauses, wait.String())
					time.Sleep(wait)
				}
				if got := strings.Join(pauses, " "); got != tt.want {
					t.Errorf("visits again after %q, expected %q", got, tt.want)
				}
				if tt.delay < time.Hour && len(rd.seen) != 3 {
					t.Errorf("read %v", rd.seen)
				}
			}))
		})
	}
}

// TestVisitSlow: a visit whose later pages wait for the budget has read its first one
// before that, and is made again for what came since.
func TestVisitSlow(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		w := newChatWorld(t)
		w.history, w.newest = 2, true
		c := w.add(2*time.Hour, time.Hour, 0)
		chats, rd := w.reader()
		chats.run()
		v := rd.visits[rd.query.Stream][c.name()]
		first := *v
		rd.query.Visit = &first
		if p, err := rd.fetch(); err != nil || p.Done {
			t.Fatalf("the first page: %+v, %v", p, err)
		}
		same := c.say(0)
		same.at, same.visible = c.messages[2].at, c.messages[2].at
		time.Sleep(10 * time.Minute)
		w.fault = func(call) (int, string) { // the token names a message, not how many came before
			w.fault = nil
			return 200, page("messages", []string{c.messages[0].json()}, "")
		}
		last, _ := rd.run()
		if last.Visited.Due.IsZero() || time.Until(last.Visited.Due) > time.Minute || !last.Visited.Urgent {
			t.Fatalf("the next visit is %+v", last.Visited)
		}
		rd.visits.visited(rd.query.Stream, first.Version, *last.Visited)
		rd.visit(c.name())
		if v.Urgent || len(rd.seen) != 4 {
			t.Errorf("read %v, and the next visit is %+v", rd.seen, v)
		}
	}))
}

// TestVisitLost: a page token that does not live loses nothing, and what was read
// before counts for nothing; a chat that is not there is no failure.
func TestVisitLost(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		w := newChatWorld(t)
		c := w.add()
		c.talk(250, time.Hour)
		chats, rd := w.reader()
		chats.run()
		w.took()
		lost := 0
		w.fault = func(c call) (int, string) {
			if c.token != "" && lost < 2 {
				lost++
				return 400, failure("BAD_REQUEST", "Bad page token")
			}
			return 0, ""
		}
		last, _ := rd.visit(c.name())
		if got := w.asks(); got != "history 1001, +, history 1001, +, history 1001, +, +" || len(rd.seen) != 250 || !last.Staged || last.Note != "" || string(last.Visited.Seen) != `{"n":250,"from":1001229,"last":1001249}` {
			t.Errorf("asked %q, read %d: %+v", got, len(rd.seen), last)
		}
		// The token of a page behind another one.
		lost = 0
		c.say(0)
		time.Sleep(time.Hour)
		rd.visits[rd.query.Stream][c.name()].Seen = nil
		w.life = 2 // reading, and what comes between
		w.fault = func(c call) (int, string) { return 0, "" }
		rd.visit(c.name())
		if len(rd.seen) != 251 {
			t.Errorf("read %d", len(rd.seen))
		}
		// It never lives: the visit ends and says so.
		w.fault = func(c call) (int, string) {
			if c.token != "" {
				return 400, failure("BAD_REQUEST", "Bad page token")
			}
			return 0, ""
		}
		w.took()
		rd.visits[rd.query.Stream][c.name()].Seen = nil
		if last, _ := rd.visit(c.name()); !strings.Contains(last.Note, "was refused 3 times") {
			t.Errorf("asked %q: %+v", w.asks(), last)
		}
		c.gone = time.Now()
		if last, _ := rd.visit(c.name()); len(last.Items) > 0 || last.Visited.Urgent || last.Visited.Forget {
			t.Errorf("of a chat that is gone: %+v", last.Visited)
		}
		// Any other failure is one.
		for status, body := range map[int]string{404: failure("NOT_FOUND", "Resource not found"), 500: "", 400: failure("BAD_REQUEST", "Bad page token")} {
			w.fault = func(call) (int, string) { return status, body }
			rd.cursor, rd.query.Visit.Seen = nil, nil
			if p, err := rd.fetch(); err == nil {
				t.Errorf("%d: %+v", status, p)
			}
		}
	}))
}

// TestVisitCut: an answer without messages is not taken for a chat without any, but not
// waited for without end either; nor does a backfill pass over it at once.
func TestVisitCut(t *testing.T) {
	for _, tt := range []struct {
		cut  int    // answers that are
		want string // the pauses from visit to visit
		read bool
	}{{0, "", true}, {1, "10s", true}, {2, "10s 1m0s", true}, {4, "10s 1m0s 10m0s 1h0m0s", true}, {9, "10s 1m0s 10m0s 1h0m0s 4h0m0s 12h0m0s 24h0m0s", false}} {
		synctest.Test(t, bubble(func(t *testing.T) {
			w := newChatWorld(t)
			c := w.add()
			c.talk(150, time.Hour)
			cut := 0
			w.fault = func(call) (int, string) {
				if cut++; cut <= tt.cut {
					return 200, `{"status":"OK","result":{}}`
				}
				return 0, ""
			}
			rd := newReader(t, open(t, w), yandexmarket.ChatMessages, sources.Follow)
			rd.visits.found(rd.query.Stream, []sources.Visit{{ID: c.name(), Found: []byte(`{"u":"2026-02-02T19:00:00Z"}`)}})
			var pauses []string
			for v := rd.visits[rd.query.Stream][c.name()]; ; {
				rd.visit(c.name())
				if !v.Urgent {
					break
				}
				pauses = append(pauses, time.Until(v.Due).String())
				time.Sleep(time.Until(v.Due))
			}
			if got := strings.Join(pauses, " "); got != tt.want || (len(rd.seen) == 150) != tt.read {
				t.Errorf("%d answers cut: visits again after %q, reads %d", tt.cut, got, len(rd.seen))
			}
			rd = newReader(t, open(t, w), yandexmarket.ChatMessages, sources.Backfill)
			rd.cursor, cut = []byte(`{"run":{"listed":true,"queue":["1001"]}}`), 0
			if last, _ := rd.run(); last.Partial != (tt.cut > 2) || (len(rd.seen) == 150) == last.Partial {
				t.Errorf("%d answers cut: a backfill reads %d: %+v", tt.cut, len(rd.seen), last)
			}
		}))
	}
}

// TestMessagesOdd: what a message may lack costs nothing but what it is for.
func TestMessagesOdd(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		w := newChatWorld(t)
		c := w.add(0)
		entries := []string{
			`{"messageId":1,"createdAt":"2026-02-02T19:00:01+03:00","sender":"CUSTOMER"}`, // a sticker
			`{"messageId":2,"createdAt":"2026-02-02T19:00:00.5+03:00","sender":"ROBOT","payload":null,"message":null}`,
			`{"messageId":"a","createdAt":"2026-02-02T19:00:00","sender":7}`,
			`{"messageId":99999999999999999999999,"createdAt":"2031-02-02T19:00:00Z"}`,
			`{"messageId":-4}`, `{"messageId":null,"sender":"MARKET"}`,
			`{"messageId":"x","createdAt":"2026-02-02T20:00:00Z"}`,
		}
		w.on["POST /v2/businesses/chats/history"] = func(call) (int, string) { return 200, page("messages", entries, "") }
		chats, rd := w.reader()
		chats.run()
		time.Sleep(30 * time.Second)
		last, _ := rd.visit(c.name())
		if v := last.Visited; time.Until(v.Due) != time.Minute-30*time.Second {
			t.Errorf("visited again at %s, as if the last message had not come", v.Due)
		}
		if got := ids(rd); got != "a 99999999999999999999999 -4 2 1 x" || len(last.Undecodable) != 1 || string(last.Visited.Seen) != "{}" {
			t.Errorf("read %q, %d odd: %s", got, len(last.Undecodable), last.Visited.Seen)
		}
		for i, it := range rd.items {
			if it.Created.IsZero() != (i < 3) || it.Rank != []uint64{0, 0, 0, 2, 1, 0}[i] {
				t.Errorf("message %s: %+v", it.ID, it)
			}
		}
	}))
}

// TestMessagesNews: where chats is enabled its list is the one that is read; a first
// request only hears the marketplace's clock. Where it is not the list is read, and no
// chat is an item.
func TestMessagesNews(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		w := newChatWorld(t)
		for range 30 {
			w.add(0)
		}
		rd := newReader(t, open(t, w), yandexmarket.ChatMessages, sources.News)
		for i := range 3 {
			last, pages := rd.run()
			if asked := w.took(); len(asked) != max(0, 1-i) || len(asked) > 0 && asked[0].limit != 1 || last.Date.IsZero() != (i > 0) || pages != 1 || len(last.Found)+len(last.Items) > 0 {
				t.Errorf("run %d asked %v: %+v", i, asked, last)
			}
		}
		rd.source = open(t, w, yandexmarket.ChatMessages)
		for i := range 2 {
			last, pages := rd.run()
			if got := w.asks(); got != "list, +" || pages != 2 || len(rd.items) > 0 || len(planned(rd)) != 30 {
				t.Errorf("run %d asked %q: %+v", i, got, last)
			}
		}
		// Switched on in the middle of a scan.
		if _, err := rd.fetch(); err != nil {
			t.Fatal(err)
		}
		w.took()
		rd.source = open(t, w)
		if rd.run(); len(w.took()) > 0 || string(rd.cursor) != `{"v":1,"heard":true}` {
			t.Errorf("cursor %s", rd.cursor)
		}
	}))
}

// TestMessagesBackfill: the messages of all chats with any since, in order.
func TestMessagesBackfill(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		w := newChatWorld(t)
		w.size = 3
		for _, n := range []int{5, 0, 250, 1, 100, 101, 7, 3} {
			w.add().talk(n, time.Hour)
		}
		w.chats[3].messages[0].at = time.Now().Add(-50 * 24 * time.Hour)
		w.fault = func(c call) (int, string) {
			if c.query.Get("chatId") == "1007" {
				return 400, failure("BAD_REQUEST", "nonsense")
			}
			return 0, ""
		}
		w.mix = rand.New(rand.NewPCG(5, 6))
		rd := newReader(t, open(t, w), yandexmarket.ChatMessages, sources.Backfill)
		rd.query.Since = time.Now().Add(-24 * time.Hour)
		w.newest = true
		w.delay = time.Second
		var kept []sources.Item // aside
		var p sources.Page
		for !p.Done {
			var err error
			if p, err = rd.fetch(); err != nil {
				t.Fatal(err)
			}
			if p.Staged {
				kept = append(kept, p.Items...)
			} else if len(kept) > 0 || !inOrder(p.Items) {
				t.Errorf("%d messages are kept aside beside %d that are not", len(kept), len(p.Items))
			}
			if p.Ordered {
				for _, it := range kept {
					if it.ID[0] != kept[0].ID[0] {
						t.Errorf("messages of %s and %s are put in order together", it.ID[0], kept[0].ID[0])
					}
				}
				kept = nil
			}
			if p.Failed != nil && !strings.Contains(p.Failed.Error(), "nonsense") {
				t.Error(p.Failed)
			}
		}
		asked := strings.Split(w.asks(), ", ")
		slices.Sort(asked)
		const want = "+ + + + + history 1001 history 1003 history 1005 history 1006 history 1007 history 1008 list"
		if got := strings.Join(asked, " "); got != want || len(kept) > 0 || !p.Partial || len(rd.seen) != 5+250+100+101+3 {
			t.Errorf("asked %q, expected %q; read %d, %d are still aside: %+v", got, want, len(rd.seen), len(kept), p)
		}
	}))
}

// TestMessagesSkip: a chat that cannot be read does not hold the others up for ever.
func TestMessagesSkip(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		w := newChatWorld(t)
		for range 3 {
			w.add().talk(150, time.Hour)
		}
		w.fault = func(c call) (int, string) {
			if c.query.Get("chatId") == "1002" && c.token != "" {
				return 500, ""
			}
			return 0, ""
		}
		source := open(t, w)
		rd := newReader(t, source, yandexmarket.ChatMessages, sources.Backfill)
		var p sources.Page
		skipped := 0
		for !p.Done {
			var err error
			if p, err = rd.fetch(); err == nil {
				continue
			}
			q := rd.query
			q.Cursor = rd.cursor
			next, what, err := source.Skip(q)
			if err != nil || what != `the older messages of chat "1002"` {
				t.Fatalf("%q, %v", what, err)
			}
			rd.cursor = next
			skipped++
		}
		if skipped != 1 || len(rd.seen) != 400 || !p.Partial {
			t.Errorf("skipped %d, read %d: %+v", skipped, len(rd.seen), p)
		}
		for _, q := range []sources.Query{{Stream: yandexmarket.Chats, Walk: sources.News}, {Stream: yandexmarket.ChatMessages, Walk: sources.Backfill}, {Stream: yandexmarket.ChatMessages, Walk: sources.Backfill, Cursor: []byte("{")}} {
			if _, _, err := source.Skip(q); err == nil {
				t.Errorf("%+v: stepped over something", q)
			}
		}
	}))
}
