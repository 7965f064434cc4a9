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

// TestVisitLateMessage: a message that turns up in the history when newer ones are
// there already is read within a day, though its chat never moves again; also where it
// belongs far before the end of a long chat. A chat at rest costs a few requests.
func TestVisitLateMessage(t *testing.T) {
	for _, older := range []int{3, 150} {
		for _, late := range []time.Duration{2 * time.Minute, 4 * time.Minute, 20 * time.Minute, time.Hour, 7 * time.Hour, 23 * time.Hour} {
			t.Run(fmt.Sprintf("%d messages, %s late", older, late), func(t *testing.T) {
				synctest.Test(t, bubble(func(t *testing.T) {
					w := newChatWorld(t)
					c := w.add()
					c.talk(older, 3*time.Hour)
					hidden := c.say(-2 * time.Hour)
					c.talk(30, 0)
					hidden.visible = time.Now().Add(late)
					chats, rd := w.reader()
					chats.run()
					w.took()
					id := fmt.Sprint(c.name(), "/", hidden.id)
					began, read := time.Now(), time.Time{}
					for time.Since(began) < 30*time.Hour {
						for _, due := range rd.visits.due(yandexmarket.ChatMessages, time.Now()) {
							rd.visit(due)
						}
						if read.IsZero() && rd.seen[id] > 0 {
							read = time.Now()
						}
						time.Sleep(10 * time.Second)
					}
					if read.IsZero() || read.Sub(began) > 25*time.Hour {
						t.Errorf("read after %s", read.Sub(began))
					}
					if v := rd.visits[yandexmarket.ChatMessages][c.name()]; !v.Due.IsZero() {
						t.Errorf("after a day without a move there is another visit: %+v", v)
					}
					if asked := strings.Split(w.asks(), ", "); len(asked) > 12 {
						t.Errorf("%d requests: %q", len(asked), asked)
					}
				}))
			})
		}
	}
}

// TestVisitPauses: the visits of a chat at rest are at growing distances from its last
// message, those after a minute not urgent, and further apart where there are too many
// for the budget.
func TestVisitPauses(t *testing.T) {
	for _, tt := range []struct {
		planned int
		want    string
	}{
		{1, "6s! 54s! 4m0s 25m0s 1h30m0s 6h0m0s 16h0m0s"},
		{1000, "6s! 54s! 12m0s 17m0s 1h30m0s 6h0m0s 16h0m0s"},
		{30_000, "6s! 54s! 6h0m0s 6h0m0s 11h59m0s"},
	} {
		synctest.Test(t, bubble(func(t *testing.T) {
			w := newChatWorld(t)
			c := w.add(0)
			chats, rd := w.reader()
			rd.query.Planned = func() ([]sources.VisitCount, error) {
				return []sources.VisitCount{{Age: time.Hour, N: tt.planned / 2}, {Age: 2 * time.Hour, N: tt.planned - tt.planned/2}}, nil
			}
			chats.run()
			var pauses []string
			for v := rd.visits[rd.query.Stream][c.name()]; ; {
				rd.visit(c.name())
				if v.Due.IsZero() || len(pauses) > 10 {
					break
				}
				wait := time.Until(v.Due)
				time.Sleep(wait)
				if wait > time.Minute {
					wait = wait.Round(time.Minute)
				}
				pauses = append(pauses, wait.String()+map[bool]string{true: "!"}[v.Urgent])
			}
			if got := strings.Join(pauses, " "); got != tt.want {
				t.Errorf("%d are planned: visits after %q, expected %q", tt.planned, got, tt.want)
			}
		}))
	}
}

// TestVisitScattered: where each request has another order pages overlap and miss
// messages: such a chat is read again until it shows the same, or for some times.
func TestVisitScattered(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	turn := false
	for name, tt := range map[string]struct {
		scatter func(all []string)
		n       int
	}{
		"at random": {func(all []string) { r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] }) }, 150},
		"in turn": {func(all []string) {
			if turn = !turn; turn {
				slices.Reverse(all)
			}
		}, 250},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) {
				w := newChatWorld(t)
				w.scatter = tt.scatter
				c := w.add()
				c.talk(tt.n, time.Minute)
				chats, rd := w.reader()
				chats.run()
				w.took()
				v := rd.visits[rd.query.Stream][c.name()]
				for rd.visit(c.name()); v.Urgent; rd.visit(c.name()) {
					time.Sleep(time.Until(v.Due))
				}
				if asked := len(w.took()); len(rd.seen) != tt.n || asked > 8*3*3 { // visits, readings, pages
					t.Errorf("%d of %d are read by %d requests", len(rd.seen), tt.n, asked)
				}
				rd = newReader(t, open(t, w), yandexmarket.ChatMessages, sources.Backfill)
				turn = true
				if last, _ := rd.run(); len(rd.seen) != tt.n && !last.Partial {
					t.Errorf("a backfill reads %d of %d: %+v", len(rd.seen), tt.n, last)
				}
			}))
		})
	}
}

// TestVisitFewer: a reading that shows fewer messages than there were does not count
// before another one agrees.
func TestVisitFewer(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		w := newChatWorld(t)
		w.mix = rand.New(rand.NewPCG(9, 10))
		c := w.add()
		c.talk(150, 2*time.Hour)
		for _, m := range c.messages {
			m.id = int64(w.mix.IntN(1 << 30)) // so that all is read each time
		}
		chats, rd := w.reader()
		chats.run()
		rd.visit(c.name())
		for _, cut := range []string{"a page", "all"} {
			time.Sleep(time.Hour)
			m := c.say(-time.Minute)
			chats.run()
			w.took()
			n := 0
			w.fault = func(c call) (int, string) {
				if n++; n > 1 {
					return 0, ""
				}
				if cut == "all" {
					return 200, page("messages", nil, "")
				}
				return 200, page("messages", []string{m.json()}, "")
			}
			if last, _ := rd.visit(c.name()); w.asks() != "history 1001, history 1001, +" || last.Note != "" || rd.seen[fmt.Sprint(c.name(), "/", m.id)] == 0 {
				t.Errorf("%s: %+v", cut, last)
			}
		}
		// They are really gone.
		c.messages = c.messages[60:]
		c.say(0)
		chats.run()
		for range 2 {
			if last, _ := rd.visit(c.name()); last.Note != "" {
				t.Errorf("%+v", last)
			}
		}
	}))
}
