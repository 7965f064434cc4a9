package wildberries_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/wildberries"
)

// withArchive is a shop of n feedbacks in the sweep's window, half of them answered, and
// more in the archive alone: m of the last five days.
func withArchive(n, m int) *lists {
	l := shop(wildberries.Feedbacks, n, sixtyDays/time.Duration(n+1))
	for i := range m {
		at := ago(time.Duration(i+1) * 5 * 24 * time.Hour / time.Duration(m+1))
		l.items = append(l.items, &listItem{id: fmt.Sprint("newer", i), created: at, archived: at, hidden: at})
	}
	return l
}

// toTheArchive answers a feedback, which leaves both lists for the archive by that.
func (i *listItem) toTheArchive() {
	now := time.Now()
	i.moves, i.hidden, i.archived = append(i.moves, now), now, now
}

// unansweredNear is an unanswered feedback of about that age.
func (l *lists) unansweredNear(age time.Duration) *listItem {
	for _, it := range l.items {
		if !it.isAnswered(time.Now()) && it.listed(time.Now()) && time.Since(it.created) >= age {
			return it
		}
	}
	panic("there is none")
}

// TestSweepFollowsIntoTheArchive: a feedback that is answered and from then on in the
// archive alone is read by the next sweep, however old it is and whatever is newer there;
// also where that sweep finds the archive failing, and the one after it does not.
func TestSweepFollowsIntoTheArchive(t *testing.T) {
	for _, n := range []int{100, 900} {
		for _, fails := range []bool{false, true} {
			synctest.Test(t, bubble(func(t *testing.T) {
				l := withArchive(n, 300)
				l.indexed = true
				for i, it := range l.items[:n] {
					if i%3 == 0 { // it was late
						it.visible = it.created.Add(threeHours - time.Minute)
					}
				}
				rd := l.reader(t, sources.Sweep)
				rd.run()
				for _, days := range []float64{0.3, 2.5, 6, 10, 33, 57} {
					it := l.unansweredNear(time.Duration(days * 24 * float64(time.Hour)))
					it.toTheArchive()
					time.Sleep(15 * time.Minute)
					if fails {
						l.fail = onArchive(l, 0, http.StatusServiceUnavailable)
						if _, failed := stubborn(t, rd); failed == 0 {
							t.Fatal("the archive did not fail")
						}
						l.fail = nil
						time.Sleep(15 * time.Minute)
					}
					if sweptBy(l, rd); rd.seen[it.id] == 0 {
						t.Errorf("%d items, fails %v: one of %.1f days was not read; cursor %.300s", n, fails, days, rd.cursor)
					}
					time.Sleep(15 * time.Minute)
					if got := sweptBy(l, rd); got["/archive"] != 1 {
						t.Errorf("%d items: the sweep after that one took %v", n, got)
					}
				}
			}))
		}
	}
}

// TestSweepFollowsFromTheEdges: the same where the parts of a census meet, for what is in
// none of them, and for what the counts take for younger than the archive does.
func TestSweepFollowsFromTheEdges(t *testing.T) {
	for _, late := range []time.Duration{0, threeHours} {
		var edges []time.Time
		synctest.Test(t, bubble(func(t *testing.T) {
			rd := withArchive(930, 300).reader(t, sources.Sweep)
			rd.run()
			edges = edgesOf(t, rd.cursor)[:9]
		}))
		synctest.Test(t, bubble(func(t *testing.T) {
			l := withArchive(930, 300)
			l.take, l.depth = 20, 10_000
			l.indexed = true
			var onEdge []*listItem
			for i, at := range edges {
				onEdge = append(onEdge, &listItem{id: fmt.Sprint("edge", i), created: at.Add(-late / 2), visible: at.Add(late / 2)})
			}
			l.items = append(l.items, onEdge...)
			for i, at := range edges { // more than a page of the archive lies between
				for j := range 40 {
					at := at.Add(-time.Duration(j) * 3 * time.Minute)
					l.items = append(l.items, &listItem{id: fmt.Sprint("between", i, "-", j), created: at, archived: at, hidden: at})
				}
			}
			rd := l.reader(t, sources.Sweep)
			rd.run()
			if got := edgesOf(t, rd.cursor)[:9]; !slices.Equal(got, edges) {
				t.Fatalf("the parts meet at %v, expected %v", got, edges)
			}
			for i, it := range onEdge {
				it.toTheArchive()
				time.Sleep(time.Minute)
				if sweptBy(l, rd); rd.seen[it.id] == 0 {
					t.Errorf("late by %s: %d, of %s, was not read; cursor %.200s", late, i, it.created, rd.cursor)
				}
			}
		}))
	}
}

// TestSweepAnewFollowsIntoTheArchive: where the numbers of the last sweep are of no use,
// since the window has become wider, the archive is read back as far as the lists are.
func TestSweepAnewFollowsIntoTheArchive(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		l := withArchive(900, 300)
		rd := l.reader(t, sources.Sweep)
		rd.query.Window = sixtyDays / 2
		rd.run()
		it := l.unansweredNear(20 * 24 * time.Hour)
		it.toTheArchive()
		rd.query.Window = sixtyDays
		time.Sleep(15 * time.Minute)
		if sweptBy(l, rd); rd.seen[it.id] == 0 {
			t.Error("it was not read")
		}
	}))
}

// TestSweepOfTheArchiveIsBounded: what the lists have lost costs one reading of the
// archive, by full pages and no further back than where it was; nothing is lost by an
// answer that only moves from list to list.
func TestSweepOfTheArchiveIsBounded(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		l := withArchive(900, 2000)
		l.take, l.skip, l.depth = 500, 10_000, 10_500
		for _, it := range l.items[:900] { // and all that is old
			if time.Since(it.created) > 30*24*time.Hour {
				it.archived = it.created
			}
		}
		rd := l.reader(t, sources.Sweep)
		rd.run()
		for _, c := range []struct {
			days  int
			lost  func(*listItem)
			pages int
		}{
			{10, func(it *listItem) { it.gone = time.Now() }, 5}, // 2000 entries, with what pages have in common
			{50, func(it *listItem) { it.gone = time.Now() }, 6},
			{10, func(it *listItem) { it.toTheArchive() }, 5},
			{50, func(it *listItem) { it.moves = []time.Time{time.Now()} }, 1},
		} {
			c.lost(l.unansweredNear(time.Duration(c.days) * 24 * time.Hour))
			time.Sleep(15 * time.Minute)
			if got := sweptBy(l, rd); got["/archive"] != c.pages {
				t.Errorf("%d days: %d pages of the archive, expected %d", c.days, got["/archive"], c.pages)
			}
			for range 5 {
				time.Sleep(15 * time.Minute)
				if got := sweptBy(l, rd); got["/archive"] != 1 {
					t.Errorf("%d days: a later sweep took %v", c.days, got)
				}
			}
		}
	}))
}

// TestSweepWhoseCountsAlwaysFail: counts that break down over a window, or over any, do
// not keep what is in the archive alone from being read by every sweep. They are tried
// patiently once, and then by a single request; once they work changes are seen again.
func TestSweepWhoseCountsAlwaysFail(t *testing.T) {
	for _, status := range []int{500, 504} {
		for _, wide := range []bool{false, true} {
			synctest.Test(t, bubble(func(t *testing.T) {
				l := shop(wildberries.Feedbacks, 300, 4*time.Hour)
				rd := l.reader(t, sources.Sweep)
				rd.run()
				l.fail = func(r *http.Request) int {
					from, _ := l.number(r, "dateFrom")
					to, _ := l.number(r, "dateTo")
					if strings.HasSuffix(r.URL.Path, "/count") && (!wide || to-from > 30*24*3600) {
						return status
					}
					return 0
				}
				moved := l.items[150]
				moved.moves = []time.Time{time.Now()}
				for i := range 8 {
					time.Sleep(15 * time.Minute)
					it := &listItem{id: fmt.Sprint("rating", i), created: ago(0), archived: ago(0), hidden: ago(0)}
					l.items = append(l.items, it)
					rd.notes = nil
					leftOut, failed := stubborn(t, rd)
					if rd.seen[it.id] == 0 || len(leftOut) > 0 || failed > 9 {
						t.Fatalf("%d, sweep %d: %d read, left out %q, %d failures", status, i, rd.seen[it.id], leftOut, failed)
					}
					if len(rd.notes) != 1 || !strings.Contains(rd.notes[0], "cannot be counted") {
						t.Errorf("%d, sweep %d: notes %q", status, i, rd.notes)
					}
					if i > 0 && failed > 0 && !wide {
						t.Errorf("%d, sweep %d: %d more failures", status, i, failed)
					}
				}
				l.fail = nil
				time.Sleep(15 * time.Minute)
				if sweptBy(l, rd); rd.seen[moved.id] == 0 {
					t.Errorf("%d: the change was not read once the counts were back", status)
				}
			}))
		}
	}
}

// TestSweepOutlivesAShortOutage: a few failures in a row are no reason to do without
// the counts.
func TestSweepOutlivesAShortOutage(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		l := shop(wildberries.Questions, 300, 4*time.Hour)
		rd := l.reader(t, sources.Sweep)
		rd.run()
		for range 5 {
			moved := l.unansweredNear(20 * 24 * time.Hour)
			moved.moves = []time.Time{time.Now()}
			time.Sleep(15 * time.Minute)
			outage := 4
			l.fail = func(*http.Request) int {
				if outage--; outage >= 0 {
					return http.StatusServiceUnavailable
				}
				return 0
			}
			clear(rd.seen)
			if stubborn(t, rd); rd.seen[moved.id] == 0 || len(rd.notes) > 0 {
				t.Errorf("%s was read %d times, notes %q", moved.id, rd.seen[moved.id], rd.notes)
			}
		}
	}))
}
