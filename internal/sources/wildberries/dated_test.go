package wildberries_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/wildberries"
)

// TestDatedProperty: random worlds, whose items move between the lists and into the
// archive, appear late and share seconds, while they are read and while syncd
// crashes. Every item that stays visible for two runs of the news is read.
func TestDatedProperty(t *testing.T) {
	for _, stream := range datedStreams {
		for seed := range uint64(10) {
			t.Run(fmt.Sprint(stream, " seed ", seed), func(t *testing.T) {
				synctest.Test(t, bubble(func(t *testing.T) { datedWorld(t, stream, seed) }))
			})
		}
	}
}

func datedWorld(t *testing.T, stream string, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 5))
	l := &lists{stream: stream, fromExclusive: r.IntN(2) == 0, toExclusive: r.IntN(2) == 0, seconds: r.IntN(2) == 0, take: 8 + r.IntN(12)}
	l.depth = l.take * (4 + r.IntN(12))
	l.indexed = r.IntN(3) == 0
	l.rounded, l.dateless = l.seconds && r.IntN(2) == 0, r.IntN(6) == 0
	if r.IntN(4) == 0 {
		l.order, l.take = []string{"desc", "none"}[r.IntN(2)], 12
		l.depth = 120
	}
	acc, gap := 3, time.Minute
	span := 10 * time.Minute
	if r.IntN(4) == 0 {
		acc, gap, span = 1, time.Minute, 12*time.Hour
	}
	begin := time.Now()
	add := func(at, visible time.Time) {
		n := 1
		if r.IntN(16) == 0 && l.order != "none" {
			n = 1 + r.IntN(l.depth/3) // many of one second
		}
		for range n {
			it := &listItem{id: fmt.Sprint("q", len(l.items)), created: at.Truncate(time.Second).Add(time.Duration(r.IntN(3)) * 333_333_333), visible: visible, answered: r.IntN(2) == 0}
			if r.IntN(2) == 0 { // moves, most likely while being read
				move := begin.Add(time.Duration(r.Int64N(int64(span))))
				if r.IntN(2) == 0 {
					move = begin.Add(time.Duration(r.Int64N(int64(20 * time.Second))))
				}
				it.moves = []time.Time{move}
			}
			if r.IntN(3) == 0 && stream == wildberries.Feedbacks { // shown by the archive as well, or from then on alone
				it.archived = begin.Add(time.Duration(r.Int64N(int64(20*time.Second))) - 10*time.Second)
				if at.Before(begin) && r.IntN(2) == 0 {
					it.hidden = it.archived
				}
			}
			l.items = append(l.items, it)
		}
	}
	for range r.IntN(100) {
		at := begin.Add(-time.Duration(r.Int64N(int64(500 * 24 * time.Hour))))
		add(at, at)
	}
	for range 10 + r.IntN(40) {
		at := begin.Add(time.Duration(r.Int64N(int64(span))))
		late := time.Duration(0)
		if r.IntN(3) == 0 {
			late = time.Duration(r.Int64N(int64(threeHours - time.Minute)))
		}
		add(at, at.Add(2*time.Second+late))
	}
	crashes := r.IntN(2) == 0
	rd := newReader(t, l.open(t, acc), stream, time.Time{}, threeHours)
	shown := make(map[string]int)
	var newest int64
	for time.Since(begin) < span || slices.ContainsFunc(l.items, func(it *listItem) bool { return shown[it.id] < 2 }) {
		if crashes && len(rd.saved) > 0 && r.IntN(5) == 0 {
			rd.cursor = rd.saved[r.IntN(len(rd.saved))]
			newest = 0
			clear(shown)
			crashes = r.IntN(10) > 0
			if r.IntN(4) == 0 {
				time.Sleep(7 * 24 * time.Hour)
			}
		}
		stop := r.IntN(30)
		var page sources.Page
		for i := 0; !page.Done; i++ {
			page = rd.fetch()
			var c struct{ Newest int64 }
			if err := json.Unmarshal(page.Cursor, &c); err != nil || c.Newest < newest {
				t.Fatalf("Newest went from %d back to %d (%v)", newest, c.Newest, err)
			}
			newest = c.Newest
			if page.Note != "" {
				t.Fatalf("a note about a healthy list: %s", page.Note)
			}
			if page.Progress <= 0 || page.Progress > 1 || page.Done != (page.Progress == 1) {
				t.Fatalf("progress %f of a page, done %v", page.Progress, page.Done)
			}
			if i > 20_000 {
				t.Fatalf("endless run: %s", page.Cursor)
			}
			if crashes && i == stop {
				break
			}
		}
		// By a small budget the archive's history takes many runs, which say that they are
		// not all of it.
		if page.Done && !page.Partial {
			for _, it := range l.items {
				if rd.seen[it.id] > 0 {
					shown[it.id] = 2
				} else if !it.visible.After(page.Began) {
					if shown[it.id]++; shown[it.id] == 2 {
						t.Fatalf("item %+v was not read in two runs (now %s; %+v); cursor %s", it, time.Now(), l, rd.cursor)
					}
				}
			}
		}
		time.Sleep(gap)
	}
}

// TestIdleNewsAreTwoRequests, one for each list.
func TestIdleNewsAreTwoRequests(t *testing.T) {
	for _, stream := range datedStreams {
		for _, n := range []int{0, 1, 500} {
			for _, recent := range []bool{false, true} {
				synctest.Test(t, bubble(func(t *testing.T) {
					l := &lists{stream: stream}
					for i := range n {
						l.items = append(l.items, &listItem{id: fmt.Sprint("q", i), created: ago(time.Duration(i) * 10 * time.Second), answered: i%2 == 0})
					}
					rd := l.reader(t, sources.News)
					if recent {
						rd.query.Since = time.Now()
					}
					rd.run()
					for i := range 6 {
						if got, _ := rd.run(); got != 2 {
							t.Errorf("%s, %d items, run %d took %d requests", stream, n, i, got)
						}
						time.Sleep(15 * time.Second)
					}
				}))
			}
		}
	}
}

// TestHistoryInFullPages: history costs hardly more requests than it has pages.
func TestHistoryInFullPages(t *testing.T) {
	const take = 500
	for _, tt := range []struct {
		stream               string
		unanswered, answered int // pages
	}{
		// The list that is read twice is the shorter one.
		{wildberries.Questions, 1, 40}, {wildberries.Questions, 40, 1}, {wildberries.Feedbacks, 2, 40},
	} {
		synctest.Test(t, bubble(func(t *testing.T) {
			l := &lists{stream: tt.stream, take: take, skip: 10 * take, depth: 11 * take}
			for list, pages := range []int{tt.unanswered, tt.answered} {
				n := pages*take - take/2
				for i := range n {
					at := ago(time.Hour + time.Duration(i)*(5000*24*time.Hour/time.Duration(n)))
					l.items = append(l.items, &listItem{id: fmt.Sprint(list, "-", i), created: at, answered: list == 1})
				}
			}
			rd := l.reader(t, sources.News)
			progress := 0.0
			rd.check = func(p sources.Page) {
				if p.Progress < progress {
					t.Errorf("progress %f after %f", p.Progress, progress)
				}
				progress = p.Progress
			}
			got, _ := rd.run()
			// The shorter list twice; the archive once; one more for each list that has no
			// full page, to see that it was not cut; the page that showed which is longer.
			want := tt.unanswered + tt.answered + min(tt.unanswered, tt.answered) + 2
			if tt.stream == wildberries.Feedbacks {
				want++
			}
			if len(rd.seen) != len(l.items) || got > want {
				t.Errorf("%+v: read %d of %d by %d requests, expected %d", tt, len(rd.seen), len(l.items), got, want)
			}
		}))
	}
}

// TestMovesWhileReading: an item that moves to the other list while a long history is
// read is read, whenever that happens and whichever way it moves.
func TestMovesWhileReading(t *testing.T) {
	for _, stream := range datedStreams {
		for _, walk := range []sources.Walk{sources.News, sources.Full, sources.Backfill} {
			for _, answered := range []bool{false, true} {
				for moveAt := 1; ; moveAt++ {
					requests := 0
					synctest.Test(t, bubble(func(t *testing.T) {
						l := &lists{stream: stream, take: 10, depth: 100}
						for i := range 60 {
							l.items = append(l.items, &listItem{id: fmt.Sprint("q", i), created: ago(time.Duration(i+1) * 7 * time.Hour), answered: i%2 == 0})
						}
						var moving []*listItem
						for i := range 20 {
							it := &listItem{id: fmt.Sprint("moving", i), created: ago(time.Duration(i+1) * 20 * time.Hour), answered: answered}
							moving = append(moving, it)
						}
						l.items = append(l.items, moving...)
						l.onAnswer = func(_ string, n int) {
							if n == moveAt {
								for _, it := range moving {
									it.moves = []time.Time{time.Now()}
								}
							}
						}
						rd := l.reader(t, walk)
						requests, _ = rd.run()
						for _, it := range l.items {
							if rd.seen[it.id] == 0 {
								t.Fatalf("%s, %s: moved after request %d of %d, answered before: %v: %s was not read", stream, walk, moveAt, requests, answered, it.id)
							}
						}
					}))
					if moveAt >= requests {
						break
					}
				}
			}
		}
	}
}

// TestDatedStart: an item not older than `start` is read.
func TestDatedStart(t *testing.T) {
	for _, exclusive := range []bool{false, true} {
		for _, overlap := range []time.Duration{0, time.Millisecond, threeHours} {
			synctest.Test(t, bubble(func(t *testing.T) {
				start := ago(time.Minute)
				l := &lists{fromExclusive: exclusive, toExclusive: exclusive, seconds: true, items: []*listItem{{id: "first", created: start}, {id: "old", created: start.Add(-4 * time.Hour)}, {id: "a", created: start.Add(time.Second), answered: true}}}
				rd := l.reader(t, sources.News)
				rd.query.Since, rd.query.Overlap = start, overlap
				rd.run()
				l.items = append(l.items, &listItem{id: "twin", created: start.Add(time.Second)})
				rd.run()
				if rd.seen["first"] == 0 || rd.seen["a"] == 0 || rd.seen["twin"] == 0 || rd.seen["old"] > 0 {
					t.Errorf("exclusive %v, overlap %s: read %v", exclusive, overlap, rd.seen)
				}
			}))
		}
	}
}

// TestEarlierSince: where `start` turns out to be earlier than what a walk has begun
// with, that is what the walk goes back to, at whatever page.
func TestEarlierSince(t *testing.T) {
	for _, stream := range datedStreams {
		for _, walk := range []sources.Walk{sources.News, sources.Backfill} {
			for _, earlier := range []time.Duration{0, 500 * time.Hour} {
				for pages := range 8 {
					synctest.Test(t, bubble(func(t *testing.T) {
						l := &lists{stream: stream, take: 10, depth: 100}
						for i := range 60 {
							l.items = append(l.items, &listItem{id: fmt.Sprint("q", i), created: ago(time.Duration(i+1) * 10 * time.Hour), answered: i%2 == 0})
						}
						rd := l.reader(t, walk)
						rd.query.Since = ago(200 * time.Hour)
						for range pages {
							rd.fetch()
						}
						rd.query.Since = time.Time{}
						if earlier > 0 {
							rd.query.Since = ago(earlier)
						}
						rd.run()
						for _, it := range l.items {
							if rd.seen[it.id] == 0 && !it.created.Before(rd.query.Since) {
								t.Errorf("%s, %s, earlier after %d pages: %s was not read", stream, walk, pages, it.id)
							}
						}
					}))
				}
			}
		}
	}
}

// TestClosedWalks: Full reads its window, Backfill what is younger than Since, both
// up to the moment when they began, whatever the ends of the filter mean, from any
// page again, and leave alone what they were not asked for.
func TestClosedWalks(t *testing.T) {
	for _, stream := range datedStreams {
		for _, walk := range []sources.Walk{sources.Full, sources.Backfill} {
			for _, exclusive := range []bool{false, true} {
				for _, seconds := range []bool{false, true} {
					synctest.Test(t, bubble(func(t *testing.T) {
						l := &lists{stream: stream, take: 10, depth: 100, fromExclusive: exclusive, toExclusive: exclusive, seconds: seconds}
						begin := ago(0)
						since := begin.Add(-sixtyDays)
						for i := range 45 {
							l.items = append(l.items, &listItem{id: fmt.Sprint("q", i), created: begin.Add(-time.Duration(i) * 32 * time.Hour), answered: i%2 == 0})
						}
						l.items = append(l.items, &listItem{id: "first", created: since}, &listItem{id: "last", created: begin, answered: true},
							&listItem{id: "old", created: since.Add(-time.Hour)}, &listItem{id: "older", created: since.Add(-time.Hour), answered: true})
						if stream == wildberries.Feedbacks {
							l.items = append(l.items, &listItem{id: "archived", created: since.Add(time.Hour), archived: since.Add(time.Hour), hidden: since.Add(time.Hour)})
						}
						rd := l.reader(t, walk)
						if rd.query.Since = since; walk == sources.Full {
							rd.query.Since = time.Time{}
						}
						_, began := rd.run()
						if !began.Equal(begin) {
							t.Errorf("began at %s, expected %s", began, begin)
						}
						wanted := func(rd *reader, what string) {
							for _, it := range l.items {
								if want := !it.created.Before(since); (rd.seen[it.id] > 0) != want {
									t.Errorf("%s %s, %s: %s was read %d times", stream, walk, what, it.id, rd.seen[it.id])
								}
							}
						}
						wanted(rd, "at once")
						// A crash after any page: it is read again, and later.
						for i := range rd.saved {
							again := l.reader(t, walk)
							again.query.Since = rd.query.Since
							for j := range i {
								again.cursor = rd.saved[j]
							}
							for id, n := range rd.seen {
								again.seen[id] = n
							}
							again.run()
							wanted(again, fmt.Sprint("from page ", i))
						}
					}))
				}
			}
		}
	}
}

// TestCrashBetweenTheLists: a run that goes on a week later must not take for
// read what appeared in the first list meanwhile. Nor must an item from the future
// move the cursor.
func TestCrashBetweenTheLists(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		day := func(n int) time.Time { return time.Now().Add(time.Duration(n) * 24 * time.Hour) }
		l := &lists{items: []*listItem{{id: "old", created: day(-1)}}}
		rd := l.reader(t, sources.News)
		rd.fetch()
		future := func(it *listItem) *listItem { it.visible = it.created; return it }
		l.items = append(l.items, future(&listItem{id: "unanswered", created: day(2)}), future(&listItem{id: "answered", created: day(6), answered: true}),
			&listItem{id: "future", created: day(7).Add(50 * time.Minute), answered: true})
		time.Sleep(7 * 24 * time.Hour)
		rd.run()
		rd.run()
		l.items = append(l.items, &listItem{id: "late", created: time.Now().Add(-2*time.Hour - 30*time.Minute)})
		time.Sleep(time.Minute)
		rd.run()
		for _, id := range []string{"old", "unanswered", "answered", "future", "late"} {
			if rd.seen[id] == 0 {
				t.Errorf("%s was not read", id)
			}
		}
	}))
}

// TestOverlapIsNoBacklog: pages of what has been read before do not say that the
// stream is behind; those of what has not do.
func TestOverlapIsNoBacklog(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		l := &lists{take: 20, depth: 200}
		add := func(n int) {
			for i := range n {
				l.items = append(l.items, &listItem{id: fmt.Sprint("q", len(l.items)), created: ago(time.Duration(n-i) * time.Minute), answered: i%2 == 0})
			}
		}
		add(150)
		rd := l.reader(t, sources.News)
		rd.run()
		reached := 0
		var begin time.Time
		rd.check = func(p sources.Page) {
			if !p.Reached.IsZero() {
				if reached++; !p.Reached.After(begin) {
					t.Errorf("reached %s, which was read before", p.Reached)
				}
			}
		}
		begin = time.Now().Add(-time.Hour)
		for range 3 {
			time.Sleep(15 * time.Second)
			rd.run()
		}
		if reached > 0 {
			t.Errorf("%d pages of the overlap were taken for a backlog", reached)
		}
		begin = time.Now()
		time.Sleep(24 * time.Hour)
		add(1200)
		if rd.run(); reached == 0 {
			t.Error("a backlog was not told")
		}
	}))
}
