package yandexmarket_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/yandexmarket"
)

// forms runs f with boards of all forms of a stream.
func forms(t *testing.T, f func(t *testing.T, b *board)) {
	t.Helper()
	for _, stream := range []string{yandexmarket.GoodsFeedbacks, yandexmarket.GoodsQuestions} {
		for i := range 24 {
			name := fmt.Sprintf("%s %d", stream, i)
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, bubble(func(t *testing.T) {
					b := newBoard(t, stream)
					b.order, b.byPublished, b.offsets = []string{"asc", "desc", "none"}[i%3], i/3%2 == 0, i/6%2 == 0
					b.zone = []time.Duration{12, -12, 3, 0}[i/3%4] * time.Hour
					b.endless, b.startless, b.childDesc = i/12 == 0, i%2 == 0, i%2 == 1
					b.size = 20
					f(t, b)
				}))
			})
		}
	}
}

// TestAllOfIt: from the beginning, and again as it goes on, nothing is lost: in any
// order, by either reading of the dates, with equal times at the edges of pages, with
// what is published late inside the overlap.
func TestAllOfIt(t *testing.T) {
	forms(t, func(t *testing.T, b *board) {
		b.add(90, 1200*hours24, 24*time.Hour)
		b.add(45, 800*hours24, 0)
		b.add(3, 450*hours24, 0)
		b.add(1, 330*hours24, 0) // where a window may end,
		b.add(1, 150*hours24, 0) // or another
		b.add(120, 60*hours24, 12*time.Hour)
		source := open(t, b)
		r := b.reader(source, sources.News, nil)
		r.run()
		if lost := b.missing(r); len(lost) > 0 {
			t.Fatalf("the first run has lost %d: %v", len(lost), lost)
		}
		for range 5 {
			time.Sleep(5 * time.Hour)
			e := []*entry{b.publish(0), b.publish(time.Hour), b.publish(50 * time.Hour)}
			b.add(30, 0, 0)
			time.Sleep(time.Minute)
			if p, pages := r.run(); pages > 20 || !p.Done || p.Partial {
				t.Errorf("%d pages for the news: %+v", pages, p)
			}
			b.must("news", r, e...)
			if lost := b.missing(r); len(lost) > 0 {
				t.Errorf("lost %d: %v", len(lost), lost)
			}
		}
		full := b.reader(source, sources.Full, r)
		full.run()
		for _, e := range b.entries {
			if time.Since(e.created) < 60*hours24 {
				b.must("full", full, e)
			}
		}
		if len(full.notes)+len(r.notes) > 0 {
			t.Errorf("notes %q %q", full.notes, r.notes)
		}
	})
}

// TestOverlapIsOfTheNewest: however long nothing was new, what comes late counts from the
// newest item that was seen.
func TestOverlapIsOfTheNewest(t *testing.T) {
	forms(t, func(t *testing.T, b *board) {
		b.add(40, 50*hours24, hours24) // the newest is of 11 days ago
		r := b.reader(open(t, b), sources.News, nil)
		r.query.Since = time.Now()
		for range 3 {
			r.run()
			time.Sleep(5 * time.Minute)
		}
		e := b.publish(13 * hours24)
		time.Sleep(time.Minute)
		r.run()
		b.must("news", r, e)
	})
}

// TestFirstReadingHasTheWindow: with `start: now` as well what is younger than the window is on
// record at once, and no more than that is read.
func TestFirstReadingHasTheWindow(t *testing.T) {
	forms(t, func(t *testing.T, b *board) {
		b.add(40, 300*hours24, hours24)
		young := len(b.entries)
		b.add(100, 59*hours24, 14*time.Hour)
		r := b.reader(open(t, b), sources.News, nil)
		r.query.Since = time.Now()
		r.run()
		b.must("the first run", r, b.entries[young:]...)
		if len(r.seen) > 110 {
			t.Errorf("%d were read", len(r.seen))
		}
	})
}

// TestPageShifts: entries that go, or come in the middle, while a list is read for the
// only time take none of the others with them.
func TestPageShifts(t *testing.T) {
	forms(t, func(t *testing.T, b *board) {
		b.add(200, 1500*time.Hour, time.Hour)
		victims := b.add(3, 1600*time.Hour, time.Minute)
		rest := append([]*entry(nil), b.entries[:200]...)
		n := 0
		b.before = func(call) {
			if n++; n == 3 {
				for _, e := range b.entries[200:] {
					e.published = time.Now().Add(1e6 * time.Hour) // deleted
				}
			}
		}
		_ = victims
		for _, walk := range []sources.Walk{sources.News, sources.Backfill} {
			n = 0
			for _, e := range b.entries[200:] {
				e.published = e.created
			}
			r := b.reader(open(t, b), walk, nil)
			r.run()
			b.must(string(walk), r, rest...)
		}
	})
}

// TestTokenDies: a page token that is refused in the middle of a long scan costs the
// window that it was in.
func TestTokenDies(t *testing.T) {
	for _, walk := range []sources.Walk{sources.News, sources.Full, sources.Backfill} {
		forms(t, func(t *testing.T, b *board) {
			b.add(60, 900*hours24, 345*time.Hour)
			b.size = 5
			r := b.reader(open(t, b), walk, nil)
			r.query.Window = 880 * hours24
			_, calm := r.run()
			r = b.reader(open(t, b), walk, nil)
			r.query.Window = 880 * hours24
			for range 3 {
				b.life = 3
				if _, err := r.fetch(); err != nil {
					t.Fatal(err)
				}
			}
			b.life = 1
			b.issued = map[string]int{}
			_, pages := r.run()
			for _, e := range b.entries {
				if time.Since(e.created) < 870*hours24 {
					b.must(string(walk), r, e)
				}
			}
			if pages > calm+80 {
				t.Errorf("%d pages, and %d without", pages, calm)
			}
		})
	}
}

// TestLatecomers: a review that is published long after it was written comes with the
// next run of the news, where the order allows it, even when the dates are those of
// creation and it needs no reaction.
func TestLatecomers(t *testing.T) {
	for _, order := range []string{"asc", "desc"} {
		for _, first := range []int{5, 120} {
			t.Run(fmt.Sprint(order, first), func(t *testing.T) {
				synctest.Test(t, bubble(func(t *testing.T) {
					b := newBoard(t, yandexmarket.GoodsFeedbacks)
					b.order = order
					b.add(first, 50*hours24, time.Duration(50)*hours24/time.Duration(first))
					r := b.reader(open(t, b), sources.News, nil)
					r.query.Since = time.Now()
					r.run()
					for i := range 200 {
						time.Sleep(25 * time.Hour)
						b.publish(0)
						var late []*entry
						for range i % 3 {
							late = append(late, b.publish(40*hours24))
						}
						time.Sleep(time.Minute)
						r.run()
						b.must(fmt.Sprintf("day %d", i), r, late...)
					}
				}))
			})
		}
	}
}

// TestSpoiltToken: a token that is refused some day, fails, or leads elsewhere, does not stop the
// news; a day later there is another.
func TestSpoiltToken(t *testing.T) {
	for _, how := range []string{"refused", "broken", "elsewhere", "nowhere"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) {
				b := newBoard(t, yandexmarket.GoodsFeedbacks)
				b.add(120, 50*hours24, 10*time.Hour)
				r := b.reader(open(t, b), sources.News, nil)
				r.query.Since = time.Now()
				r.run()
				list := b.on[methodFeedbacks]
				old := make(map[string]bool)
				for token := range b.issued {
					old[token] = true
				}
				b.on[methodFeedbacks] = func(c call) (int, string) {
					switch {
					case !old[c.token]:
						return list(c)
					case how == "refused":
						return 400, failure("BAD_REQUEST", "Bad page token")
					case how == "broken":
						return 500, failure("INTERNAL", "")
					case how == "nowhere":
						return 0, page("feedbacks", nil, "")
					}
					c.token = ""
					status, answer := list(c)
					return status, answer
				}
				time.Sleep(23 * time.Hour)
				e := b.publish(0)
				time.Sleep(time.Second)
				r.run()
				b.must("beside it", r, e)
				b.on[methodFeedbacks] = list
				time.Sleep(2 * time.Hour)
				r.run()
				e = b.publish(45 * hours24)
				time.Sleep(time.Second)
				r.run()
				b.must("with the next one", r, e)
			}))
		})
	}
}

// TestSweepShowsEdits: an edited review, and one of any age that is published now, needs
// a reaction.
func TestSweepShowsEdits(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		b := newBoard(t, yandexmarket.GoodsFeedbacks)
		b.add(120, 170*hours24, 30*time.Hour)
		r := b.reader(open(t, b), sources.Sweep, nil)
		r.run()
		if len(r.seen) > 0 {
			t.Errorf("%d are shown that need no reaction", len(r.seen))
		}
		b.entries[3].need, b.entries[3].text = true, 1
		b.entries[110].need = true
		late := b.publish(100 * hours24)
		late.need = true
		time.Sleep(time.Minute)
		_, pages := r.run()
		b.must("sweep", r, b.entries[3], b.entries[110], late)
		if pages != 1 {
			t.Errorf("%d pages", pages)
		}
	}))
}

// TestDeafToDates: where the filter is ignored the end is found, and said.
func TestDeafToDates(t *testing.T) {
	forms(t, func(t *testing.T, b *board) {
		b.deaf = true
		b.add(60, 900*hours24, 15*hours24)
		r := b.reader(open(t, b), sources.News, nil)
		if _, pages := r.run(); pages > 30 {
			t.Errorf("%d pages", pages)
		}
		if len(b.missing(r)) > 0 || len(r.notes) != 1 {
			t.Errorf("missing %v, notes %q", b.missing(r), r.notes)
		}
	})
}

// TestBackfill: history comes with the children of what is asked for, each once, since no
// visit would know that they belong to it.
func TestBackfill(t *testing.T) {
	forms(t, func(t *testing.T, b *board) {
		for i := range 60 {
			e := b.add(1, time.Duration(400-6*i)*hours24, 0)
			for k := range i % 4 {
				e.children = append(e.children, child{id: int64(i*100 + k), at: e.created.Add(time.Duration(k+1) * time.Hour)})
			}
		}
		r := b.reader(open(t, b), sources.Backfill, nil)
		r.query.Since = time.Now().Add(-298*hours24 + 30*time.Minute)
		r.run()
		asked := 0
		for i, e := range b.entries {
			old := i < 18 // than what was asked for
			if !old {
				b.must("backfill", r, e)
				asked++
			}
			for _, k := range e.children {
				kind := "goods_feedback_comment"
				if b.stream == yandexmarket.GoodsQuestions {
					kind = "goods_answer"
				}
				if shown := r.seen[fmt.Sprintf("%s/%d", kind, k.id)] > 0; shown == old {
					t.Errorf("%s %d of %s: shown is %t", kind, k.id, e.created, shown)
				}
			}
		}
		calls := 0
		for _, c := range b.took() {
			if c.method == methodComments || c.method == methodAnswers {
				calls++
			}
		}
		// Those of the day that two windows share come twice.
		if calls < asked || calls > asked+15 {
			t.Errorf("%d requests for the children of %d", calls, asked)
		}
		if len(r.visits[b.stream]) > 0 {
			t.Error("visits are planned")
		}
	})
}

// TestNoResult: an answer without a result, which an empty list may be as well, in the
// place of any page of a reading that is not made again, loses nothing.
func TestNoResult(t *testing.T) {
	for _, walk := range []sources.Walk{sources.News, sources.Backfill} {
		for n := range 6 {
			forms(t, func(t *testing.T, b *board) {
				if n > 2 && b.order != "asc" {
					return
				}
				for i := range 45 {
					e := b.add(1, time.Duration(90-2*i)*hours24, 0)
					e.children = append(e.children, child{id: int64(5000 + i), at: e.created})
				}
				asked := 0
				for m, answer := range b.on {
					b.on[m] = func(c call) (int, string) {
						if asked++; asked == n+1 {
							return 0, []string{`{"status":"OK"}`, `{"status":"OK","result":null}`, `{"status":"OK","result":{}}`}[n%3]
						}
						return answer(c)
					}
				}
				r := b.reader(open(t, b), walk, nil)
				r.query.Since = time.Now().Add(-100 * hours24)
				r.run()
				if lost := b.missing(r); len(lost) > 0 {
					t.Errorf("%s, request %d: lost %v", walk, n+1, lost)
				}
				if children := len(r.seen) - len(b.entries); walk == sources.Backfill && children != len(b.entries) {
					t.Errorf("request %d: %d children", n+1, children)
				}
			})
		}
	}
}

// TestRunOfLongAgo: a run that an earlier process began long ago goes on, though the time
// from its beginning to now is longer than what may be asked for.
func TestRunOfLongAgo(t *testing.T) {
	for _, walk := range []sources.Walk{sources.News, sources.Full, sources.Backfill} {
		forms(t, func(t *testing.T, b *board) {
			b.add(100, 400*hours24, 4*hours24)
			r := b.reader(open(t, b), walk, nil)
			for range 2 {
				if _, err := r.fetch(); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(130 * hours24)
			r.run()
			for _, e := range b.entries {
				if walk != sources.Full || time.Since(e.created) < 55*hours24 {
					b.must(string(walk), r, e)
				}
			}
		})
	}
}
