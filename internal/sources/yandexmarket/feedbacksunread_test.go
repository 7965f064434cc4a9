package yandexmarket_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/yandexmarket"
)

// lacking makes every list lack its result as long as it says so.
func (b *board) lacking(yes func(c call) bool) {
	for m, answer := range b.on {
		b.on[m] = func(c call) (int, string) {
			if yes(c) {
				return 0, []string{`{"status":"OK"}`, `{"status":"OK","result":null}`, `{"status":"OK","result":{}}`}[len(b.asked)%3]
			}
			return answer(c)
		}
	}
}

// TestNoResultAtFirst: where all lists lack their result for the first minutes, and then
// some of them, all of the history is read in the end, and is told to be history.
func TestNoResultAtFirst(t *testing.T) {
	forms(t, func(t *testing.T, b *board) {
		b.add(30, 1500*hours24, 20*time.Hour)
		b.add(30, 1300*hours24, 20*time.Hour)
		b.add(25, 1000*hours24, 10*24*time.Hour)
		b.add(30, 640*hours24, 11*24*time.Hour)
		b.add(40, 200*hours24, 4*24*time.Hour)
		begin, n := time.Now(), 0
		b.lacking(func(call) bool {
			n++
			return time.Since(begin) < time.Minute || time.Since(begin) < time.Hour && n%7 < 2
		})
		r := b.reader(open(t, b), sources.News, nil)
		if p, _ := r.run(); !p.Partial {
			t.Error("the first run was whole?")
		}
		past := 0
		for range 24 * 12 {
			time.Sleep(5 * time.Minute)
			for {
				p, err := r.fetch()
				if err != nil {
					t.Fatal(err)
				}
				for _, it := range p.Items {
					if time.Since(it.Created) > 100*hours24 {
						if past++; !p.History {
							t.Errorf("%v comes as news", it.ID)
						}
					}
				}
				if p.Done {
					break
				}
			}
		}
		if lost := b.missing(r); len(lost) > 0 {
			t.Errorf("lost %d: %v", len(lost), lost)
		}
		if past == 0 {
			t.Error("nothing of the history was read")
		}
		if strings.Contains(string(r.cursor), "past") {
			t.Errorf("not over: %s", r.cursor)
		}
	})
}

// TestNeverAResult: a seller who has nothing, and is always answered without a list, has
// runs that end, and costs little; what he gets some day is read.
func TestNeverAResult(t *testing.T) {
	for _, stream := range []string{yandexmarket.GoodsFeedbacks, yandexmarket.GoodsQuestions} {
		t.Run(stream, func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) {
				b := newBoard(t, stream)
				b.lacking(func(call) bool { return len(b.entries) == 0 })
				r := b.reader(open(t, b), sources.News, nil)
				r.run()
				b.took()
				spent := make([]int, 12) // by days, beside what every run takes
				for d := range spent {
					least := 1000
					for range 24 {
						time.Sleep(time.Hour)
						_, pages := r.run()
						spent[d], least = spent[d]+pages, min(least, pages)
					}
					spent[d] -= 24 * least
				}
				if most := spent[len(spent)-1]; most > 16 || most == 0 || spent[0] > 10*most {
					t.Errorf("requests of each day: %v", spent)
				}
				e := b.publish(0)
				time.Sleep(time.Minute)
				r.run()
				b.must("at last", r, e)
			}))
		})
	}
}

// TestNoResultInBackfill: a backfill asks again for a list that does not come, fails
// meanwhile, and goes on when it does, or when it has waited for an hour, and says so.
func TestNoResultInBackfill(t *testing.T) {
	for _, outage := range []time.Duration{time.Minute, 40 * time.Minute, 1e6 * time.Hour} {
		t.Run(fmt.Sprint(outage), func(t *testing.T) {
			forms(t, func(t *testing.T, b *board) {
				b.add(60, 500*hours24, 8*24*time.Hour)
				begin := time.Now()
				b.lacking(func(call) bool { return time.Since(begin) < outage })
				r := b.reader(open(t, b), sources.Backfill, nil)
				r.query.Since = time.Now().Add(-520 * hours24)
				failures := 0
				var last sources.Page
				for !last.Done {
					p, err := r.fetch()
					if err != nil {
						if failures++; sources.AsError(err).Kind != sources.Temporary || failures > 20 {
							t.Fatalf("failure %d: %v", failures, err)
						}
						time.Sleep(5 * time.Minute)
					}
					last = p
				}
				if failures == 0 {
					t.Error("nothing has failed")
				}
				if outage < time.Hour {
					if lost := b.missing(r); len(lost) > 0 {
						t.Errorf("lost %d: %v", len(lost), lost)
					}
				} else if !last.Partial || len(r.notes) == 0 || time.Since(begin) > 2*time.Hour {
					t.Errorf("after %s: %+v, notes %q", time.Since(begin), last, r.notes)
				}
			})
		})
	}
}
