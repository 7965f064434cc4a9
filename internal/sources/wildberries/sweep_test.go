package wildberries_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/wildberries"
)

// leaf is how many items a part of a census has in these tests, about: with less than
// twice as many it has none.
const leaf = 60

// shop is a shop of n items, one every so often, half of them answered.
func shop(stream string, n int, every time.Duration) *lists {
	l := &lists{stream: stream, leaf: leaf}
	for i := range n {
		l.items = append(l.items, &listItem{id: fmt.Sprint("q", i), created: ago(time.Hour + time.Duration(i)*every), answered: i%2 == 0})
	}
	return l
}

// sweptBy returns how many requests one more run takes.
func sweptBy(l *lists, rd *reader) map[string]int {
	before := make(map[string]int)
	for path, n := range l.paths {
		before[path] = n
	}
	clear(rd.seen)
	rd.run()
	for path, n := range l.paths {
		before[path] = n - before[path]
	}
	return before
}

// TestIdleSweep: while nothing changes a sweep is two counts, and one page of the
// archive where there is one; about hourly a few more for the edge that moves on.
func TestIdleSweep(t *testing.T) {
	for _, stream := range datedStreams {
		for _, n := range []int{0, 100, 600} {
			synctest.Test(t, bubble(func(t *testing.T) {
				l := shop(stream, n, 2*time.Hour)
				rd := l.reader(t, sources.Sweep)
				rd.run()
				more := 0
				for range 24 {
					time.Sleep(15 * time.Minute)
					got := sweptBy(l, rd)
					if got["/count"] != 2 || got[""] != 0 {
						if more++; got["/count"] > 8 || got[""] > 2 {
							t.Errorf("%s, %d items: a sweep that moves on took %v", stream, n, got)
						}
					}
					if archive := got["/archive"]; archive != 0 && stream == wildberries.Questions || archive != 1 && stream == wildberries.Feedbacks {
						t.Errorf("%s: %d pages of the archive", stream, archive)
					}
				}
				if more > 6 {
					t.Errorf("%s, %d items: %d of 24 sweeps in 6 hours moved on", stream, n, more)
				}
			}))
		}
	}
}

// TestSweepSeesAnswers: an item that is answered, or is no longer, is read by the next
// sweep, wherever in the window it is; of a large shop, hardly anything else is.
func TestSweepSeesAnswers(t *testing.T) {
	for _, stream := range datedStreams {
		for _, n := range []int{100, 900} {
			for _, inclusive := range []bool{false, true} {
				synctest.Test(t, bubble(func(t *testing.T) {
					l := shop(stream, n, sixtyDays/time.Duration(n))
					l.fromExclusive, l.toExclusive, l.seconds = !inclusive, !inclusive, !inclusive
					rd := l.reader(t, sources.Sweep)
					rd.run()
					for _, i := range []int{n / 50, n / 3, n / 2, n - n/50 - 1, n/3 + 1} {
						l.items[i].moves = append(l.items[i].moves, time.Now())
						time.Sleep(15 * time.Minute)
						got := sweptBy(l, rd)
						if rd.seen[l.items[i].id] == 0 {
							t.Errorf("%s, %d items: item %d (%s old) was not read", stream, n, i, time.Since(l.items[i].created))
						}
						if n > 2*leaf && (len(rd.seen) > n/4 || got[""] > 8) {
							t.Errorf("%s, %d items: item %d took %v, and %d items were read", stream, n, i, got, len(rd.seen))
						}
					}
				}))
			}
		}
	}
}

// TestSweepAtTheEdges: items on the very seconds where the parts of a census meet are
// seen like all others, whether the ends of a window belong to it or not. Nor do they
// hide the next change elsewhere.
func TestSweepAtTheEdges(t *testing.T) {
	for _, exclusive := range []bool{false, true} {
		for _, seconds := range []bool{false, true} {
			// Where the parts meet shows in a world like this one.
			var edges []time.Time
			synctest.Test(t, bubble(func(t *testing.T) {
				rd := shop(wildberries.Questions, 560, 150*time.Minute).reader(t, sources.Sweep)
				rd.run()
				edges = edgesOf(t, rd.cursor)
			}))
			synctest.Test(t, bubble(func(t *testing.T) {
				l := shop(wildberries.Questions, 560, 150*time.Minute)
				l.fromExclusive, l.toExclusive, l.seconds = exclusive, exclusive, seconds
				var onEdge []*listItem
				for i, at := range edges {
					onEdge = append(onEdge, &listItem{id: fmt.Sprint("edge", i), created: at})
				}
				l.items = append(l.items, onEdge...)
				rd := l.reader(t, sources.Sweep)
				rd.run()
				if got := edgesOf(t, rd.cursor); !slices.Equal(got, edges) {
					t.Fatalf("the parts meet at %v, expected %v", got, edges)
				}
				for i, it := range onEdge {
					it.moves = []time.Time{time.Now()}
					other := l.items[559-2*i] // older than all edges but the last
					time.Sleep(15 * time.Minute)
					if sweptBy(l, rd); rd.seen[it.id] == 0 {
						t.Errorf("exclusive %v, seconds %v: %s of %s was not read", exclusive, seconds, it.id, it.created)
					}
					other.moves = append(other.moves, time.Now())
					time.Sleep(15 * time.Minute)
					if sweptBy(l, rd); rd.seen[other.id] == 0 {
						t.Errorf("exclusive %v, seconds %v: %s, changed after %s, was not read", exclusive, seconds, other.id, it.id)
					}
				}
			}))
		}
	}
}

// edgesOf is where the parts of a census meet, the newest first.
func edgesOf(t *testing.T, cursor sources.Cursor) (edges []time.Time) {
	t.Helper()
	var c struct {
		Census struct {
			Leaves []struct{ From, To int64 }
		}
	}
	if err := json.Unmarshal(cursor, &c); err != nil || len(c.Census.Leaves) < 3 {
		t.Fatalf("%v: %s", err, cursor)
	}
	for i, leaf := range c.Census.Leaves {
		if i > 0 { // not the window's own end
			edges = append(edges, time.Unix(leaf.From, 0))
		}
		edges = append(edges, time.Unix(leaf.To, 0), time.Unix(leaf.To, 5e8))
	}
	slices.Reverse(edges)
	return edges
}

// TestSweepProperty: in random shops, where answers come while the sweep runs and
// runs are cut short, every change is read within the second sweep that begins after
// it, by the sweep or by the news.
func TestSweepProperty(t *testing.T) {
	for _, stream := range datedStreams {
		for seed := range uint64(25) {
			t.Run(fmt.Sprint(stream, " seed ", seed), func(t *testing.T) {
				synctest.Test(t, bubble(func(t *testing.T) { sweepWorld(t, stream, seed) }))
			})
		}
	}
}

func sweepWorld(t *testing.T, stream string, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 11))
	l := shop(stream, 20+r.IntN(80), 10*time.Hour)
	if r.IntN(2) == 0 {
		l = shop(stream, 500, 160*time.Minute)
	}
	l.fromExclusive, l.toExclusive, l.seconds = r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2) == 0
	l.rounded = l.seconds && r.IntN(2) == 0
	for _, it := range l.items {
		it.answered = false
		if stream == wildberries.Questions && r.IntN(3) == 0 {
			it.created = it.created.Add(time.Duration(r.IntN(1e9)))
		}
		if r.IntN(20) == 0 { // on the edge of a day, and so perhaps of a part
			it.created = it.created.Truncate(24 * time.Hour)
		}
	}
	type change struct {
		at     time.Time
		sweeps int
	}
	pending := make(map[*listItem]*change)
	answer := func() {
		it := l.items[r.IntN(len(l.items))]
		if len(it.moves) == 0 && time.Since(it.created) < 55*24*time.Hour {
			it.moves = []time.Time{time.Now()}
			pending[it] = &change{at: time.Now()}
		}
	}
	l.onAnswer = func(_ string, n int) {
		if r.IntN(40) == 0 {
			answer()
		}
	}
	ids := make(map[string]*listItem)
	for _, it := range l.items {
		ids[it.id] = it
	}
	source := l.open(t, 3)
	read := func(walk sources.Walk) *reader {
		rd := newReader(t, source, stream, time.Time{}, threeHours)
		rd.query.Walk, rd.query.Window = walk, sixtyDays
		rd.check = func(p sources.Page) {
			for _, it := range p.Items {
				it, ok := ids[it.ID[0]], false
				if c := pending[it]; c != nil && !c.at.After(time.Now()) {
					ok = it.isAnswered(c.at)
				}
				if ok {
					delete(pending, it)
				}
			}
		}
		return rd
	}
	sweep, news := read(sources.Sweep), read(sources.News)
	l.items[0].created = time.Now().Add(-time.Minute)
	news.run()
	sweep.run()
	for range 40 {
		for range r.IntN(4) {
			answer()
		}
		it := &listItem{id: fmt.Sprint("new", len(l.items)), created: ago(0)}
		l.items, ids[it.id] = append(l.items, it), it
		time.Sleep(time.Duration(1+r.IntN(20)) * time.Minute)
		news.run()
		if r.IntN(3) == 0 { // the run is cut short, and a later process goes on with it
			for range r.IntN(6) {
				sweep.fetch()
			}
			time.Sleep(time.Minute)
		}
		_, began := sweep.run()
		for it, c := range pending {
			if c.at.Before(began) {
				if c.sweeps++; c.sweeps == 2 {
					t.Fatalf("the answer to %s (%s old) of %s was not read by two sweeps; cursor %.600s", it.id, time.Since(it.created), c.at, sweep.cursor)
				}
			}
		}
	}
}

// TestSweepBetweenCountAndReading: a change right after the count that a reading
// follows, or at any other request of a sweep, is read by that sweep or the next.
func TestSweepBetweenCountAndReading(t *testing.T) {
	for _, n := range []int{100, 400} {
		for changeAt := 1; changeAt < 30; changeAt++ {
			for _, old := range []int{n - n/40, n / 40} {
				synctest.Test(t, bubble(func(t *testing.T) {
					l := shop(wildberries.Questions, n, sixtyDays/time.Duration(n))
					rd := l.reader(t, sources.Sweep)
					it := l.items[old]
					answeredBefore := it.isAnswered(time.Now())
					saw := false
					l.onAnswer = func(_ string, request int) {
						if request == changeAt {
							it.moves = []time.Time{time.Now()}
						}
					}
					rd.check = func(p sources.Page) {
						for _, x := range p.Items {
							if x.ID[0] == it.id && strings.Contains(string(x.Body), `"answer":null`) == answeredBefore {
								saw = true
							}
						}
					}
					for sweeps := 0; sweeps < 2; {
						if l.n >= changeAt {
							sweeps++
						}
						rd.run()
						time.Sleep(30 * time.Minute)
					}
					if !saw {
						t.Errorf("%d items: item %d, changed after request %d, was not read as it is now", n, old, changeAt)
					}
				}))
			}
		}
	}
}

// TestSweepWithoutCounts: where the counts fail, or are none, the sweep reads the
// archive's head alone and says so, and sees changes again once they are back.
func TestSweepWithoutCounts(t *testing.T) {
	for _, stream := range datedStreams {
		for _, said := range []string{"403", "404", "400", "422", "null", `"many"`, "-1", "1.5", "{}", "99999999999999999999"} {
			for _, sweeps := range []int{0, 2} {
				synctest.Test(t, bubble(func(t *testing.T) {
					l := shop(stream, 300, 4*time.Hour)
					rd := l.reader(t, sources.Sweep)
					for range sweeps {
						rd.run()
						time.Sleep(15 * time.Minute)
					}
					status, err := strconv.Atoi(said)
					l.counted = func(int) string { return said }
					if err == nil && status >= 400 && status < 500 {
						l.fail = func(r *http.Request) int {
							if strings.HasSuffix(r.URL.Path, "/count") {
								return status
							}
							return 0
						}
					}
					moved := l.items[150]
					moved.moves = []time.Time{time.Now()}
					for range 3 {
						got := sweptBy(l, rd)
						want := map[string]int{wildberries.Questions: 0, wildberries.Feedbacks: 1}[stream]
						if got["/count"] != 1 || got[""] != 0 || sweeps > 0 && got["/archive"] != want {
							t.Errorf("%s, %s: a sweep without counts took %v", stream, said, got)
						}
						time.Sleep(15 * time.Minute)
					}
					if len(rd.notes) != 3 || !strings.Contains(rd.notes[0], "counted") {
						t.Errorf("%s, %s: notes %q", stream, said, rd.notes)
					}
					l.counted, l.fail = nil, nil
					sweptBy(l, rd)
					if rd.seen[moved.id] == 0 {
						t.Errorf("%s, %s: the change was not read once the counts were back", stream, said)
					}
				}))
			}
		}
	}
}

// TestSweepFailsInTheMiddle: counts that fail at any request of a sweep cost that sweep,
// and no change.
func TestSweepFailsInTheMiddle(t *testing.T) {
	for failAt := range 30 {
		synctest.Test(t, bubble(func(t *testing.T) {
			l := shop(wildberries.Questions, 300, 4*time.Hour)
			rd := l.reader(t, sources.Sweep)
			rd.run()
			time.Sleep(2 * time.Hour) // the edge moves on as well
			for _, i := range []int{150, 250, 40} {
				l.items[i].moves = []time.Time{time.Now()}
			}
			begin := l.n
			l.fail = func(r *http.Request) int {
				if strings.HasSuffix(r.URL.Path, "/count") && l.n == begin+1+failAt {
					return 404
				}
				return 0
			}
			clear(rd.seen)
			for range 3 {
				rd.run()
				time.Sleep(15 * time.Minute)
			}
			for _, i := range []int{150, 250, 40} {
				if rd.seen[l.items[i].id] == 0 {
					t.Errorf("failure at count %d: item %d was not read", failAt, i)
				}
			}
		}))
	}
}

// TestSweepOfLyingCounts: counts that mean nothing cost no more than a reading of
// everything, and counts that mind no dates still show that something has changed.
func TestSweepOfLyingCounts(t *testing.T) {
	t.Run("random", func(t *testing.T) {
		synctest.Test(t, bubble(func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 1))
			l := shop(wildberries.Feedbacks, 400, 3*time.Hour)
			l.counted = func(int) string { return fmt.Sprint(r.IntN(1_000_000)) }
			rd := l.reader(t, sources.Sweep)
			rd.limit = 2 * 3 * 130 // two censuses, and what is doubted
			for range 10 {
				rd.run()
				time.Sleep(20 * time.Minute)
			}
			if len(rd.cursor) > 20<<10 {
				t.Errorf("the cursor has grown to %d bytes", len(rd.cursor))
			}
		}))
	})
	t.Run("undated", func(t *testing.T) {
		synctest.Test(t, bubble(func(t *testing.T) {
			l := shop(wildberries.Questions, 600, 2*time.Hour)
			l.undated = true
			rd := l.reader(t, sources.Sweep)
			rd.run()
			for _, i := range []int{100, 300, 580} {
				l.items[i].moves = []time.Time{time.Now()}
				time.Sleep(15 * time.Minute)
				if sweptBy(l, rd); rd.seen[l.items[i].id] == 0 {
					t.Errorf("item %d was not read", i)
				}
			}
		}))
	})
}

// TestSweepAfterALongPause: what changed while nothing ran is read at once, and the
// window keeps its width as time goes by.
func TestSweepAfterALongPause(t *testing.T) {
	for _, n := range []int{100, 400} {
		for _, pause := range []time.Duration{2 * time.Hour, 5 * 24 * time.Hour, 40 * 24 * time.Hour, 200 * 24 * time.Hour} {
			synctest.Test(t, bubble(func(t *testing.T) {
				l := shop(wildberries.Questions, n, sixtyDays/time.Duration(n))
				// As much again comes later.
				for i := range n {
					at := time.Now().Add(time.Duration(i) * sixtyDays / time.Duration(n))
					l.items = append(l.items, &listItem{id: fmt.Sprint("later", i), created: at, visible: at})
				}
				rd := l.reader(t, sources.Sweep)
				rd.run()
				time.Sleep(pause)
				for _, it := range l.items {
					if !it.visible.After(time.Now()) && !it.answered && time.Since(it.created) < sixtyDays && time.Since(it.created) > threeHours {
						it.moves = []time.Time{time.Now()}
					}
				}
				sweptBy(l, rd)
				for _, it := range l.items {
					if len(it.moves) > 0 && rd.seen[it.id] == 0 {
						t.Fatalf("%d items, after %s: %s (%s old) was not read", n, pause, it.id, time.Since(it.created))
					}
				}
			}))
		}
	}
}

// TestSweepOfTheArchive: what is in the archive alone from its beginning is read by
// the next sweep, however long the last one is ago and however late it appears inside
// the overlap.
func TestSweepOfTheArchive(t *testing.T) {
	for _, pause := range []time.Duration{15 * time.Minute, 5 * time.Hour, 30 * 24 * time.Hour} {
		for _, n := range []int{5, 99, 100, 350} {
			synctest.Test(t, bubble(func(t *testing.T) {
				l := shop(wildberries.Feedbacks, 100, time.Hour)
				rd := l.reader(t, sources.Sweep)
				rd.run()
				var added []*listItem
				for i := range n {
					at := time.Now().Add(time.Duration(i) * pause / time.Duration(n)).Truncate(time.Second)
					it := &listItem{id: fmt.Sprint("rating", i), created: at, visible: at, archived: at, hidden: at}
					if i%2 == 0 { // late
						it.created = it.created.Add(-threeHours + time.Minute)
					}
					added = append(added, it)
				}
				l.items = append(l.items, added...)
				time.Sleep(pause)
				sweptBy(l, rd)
				if ids := missing(rd, added); len(ids) > 0 {
					t.Errorf("after %s: not read %v", pause, ids)
				}
			}))
		}
	}
}
