package wildberries_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/wildberries"
)

// archived is an archive of n feedbacks that no list shows, some of one second.
func archived(n int, every time.Duration) []*listItem {
	var items []*listItem
	for i := range n {
		at := ago(time.Duration(i/3+1) * every)
		items = append(items, &listItem{id: fmt.Sprint("archived", i), created: at, archived: at, hidden: at})
	}
	return items
}

func missing(rd *reader, items []*listItem) (ids []string) {
	for _, it := range items {
		if rd.seen[it.id] == 0 {
			ids = append(ids, it.id)
		}
	}
	return ids
}

// TestArchiveHistory: the first run of the news reads the archive as far back as
// Since, later ones do not; Full reads its window, and Backfill back to Since.
func TestArchiveHistory(t *testing.T) {
	for _, walk := range []sources.Walk{sources.News, sources.Full, sources.Backfill} {
		for _, since := range []time.Duration{0, 40 * time.Hour, 400 * time.Hour} {
			synctest.Test(t, bubble(func(t *testing.T) {
				l := &lists{stream: wildberries.Feedbacks, take: 20, skip: 1000, depth: 1020, items: archived(300, 10*time.Hour)}
				rd := l.reader(t, walk)
				rd.query.Window = since
				if rd.query.Since = ago(since); since == 0 {
					rd.query.Since, rd.query.Window = time.Time{}, 2000*time.Hour
				}
				rd.run()
				for _, it := range l.items {
					if rd.seen[it.id] == 0 && (since == 0 || !it.created.Before(ago(since))) {
						t.Errorf("%s since %s ago: %s was not read", walk, since, it.id)
					}
				}
				pages := 1 + 300/15
				if since > 0 {
					pages = int(since/(10*time.Hour))*3/15 + 1
				}
				if got := l.paths["/archive"]; got > pages+1 {
					t.Errorf("%s since %s ago: %d pages of the archive, expected %d", walk, since, got, pages)
				}
				before := l.paths["/archive"]
				if rd.run(); walk == sources.News && l.paths["/archive"] != before {
					t.Errorf("the second run read the archive")
				}
			}))
		}
	}
}

// TestArchiveMoves: entries come to the archive and leave it, anywhere, between any
// two pages. What is in it all the time is read, also by a run that goes on from
// any page after a crash.
func TestArchiveMoves(t *testing.T) {
	for _, walk := range []sources.Walk{sources.News, sources.Full, sources.Backfill} {
		for _, leave := range []bool{false, true} {
			for moveAt := 1; moveAt < 16; moveAt++ {
				for _, many := range []int{3, 30} {
					synctest.Test(t, bubble(func(t *testing.T) {
						stay := archived(90, 5*time.Hour)
						l := &lists{stream: wildberries.Feedbacks, take: 20, skip: 1000, depth: 1020, items: slices.Clone(stay)}
						var moving []*listItem
						for i := range many {
							at := ago(time.Duration(i*160/many) * time.Hour)
							it := &listItem{id: fmt.Sprint("moving", i), created: at, archived: at, hidden: at}
							if !leave {
								it.archived = time.Now().Add(time.Hour * 1000)
							}
							moving = append(moving, it)
						}
						l.items = append(l.items, moving...)
						l.onAnswer = func(_ string, n int) {
							if n == moveAt {
								for _, it := range moving {
									if it.archived = time.Now(); leave {
										it.gone = time.Now()
									}
								}
							}
						}
						rd := l.reader(t, walk)
						var seen []map[string]int // up to each page
						rd.check = func(sources.Page) { seen = append(seen, maps.Clone(rd.seen)) }
						rd.run()
						if ids := missing(rd, stay); len(ids) > 0 {
							t.Fatalf("%s, %d moved after request %d, left %v: not read %v", walk, many, moveAt, leave, ids)
						}
						for i, cursor := range rd.saved {
							again := l.reader(t, walk)
							again.cursor, again.seen = cursor, seen[i]
							again.run()
							if ids := missing(again, stay); len(ids) > 0 {
								t.Fatalf("%s again from page %d: not read %v", walk, i, ids)
							}
						}
					}))
				}
			}
		}
	}
}

// TestArchiveThatEnds: where the API does not go deeper, whether it refuses, shows
// nothing or the last page again, the archive is read from its other end; what is left
// in between is told, once.
func TestArchiveThatEnds(t *testing.T) {
	for _, end := range []string{"refused", "empty", "repeated"} {
		for _, documented := range []bool{false, true} {
			for _, n := range []int{60, 100, 110, 150, 190, 240, 300} {
				t.Run(fmt.Sprintf("%d entries, %s, documented %v", n, end, documented), func(t *testing.T) {
					synctest.Test(t, bubble(func(t *testing.T) {
						l := &lists{stream: wildberries.Feedbacks, take: 20, skip: 1000, depth: 1020, archiveSkip: 100, archiveEmpty: end == "empty", archiveRepeats: end == "repeated", items: archived(n, time.Hour)}
						if documented {
							l.skip, l.depth, l.archiveSkip = 100, 120, 0
						}
						rd := l.reader(t, sources.Full)
						rd.limit = 60
						for range 3 {
							rd.run()
						}
						ids := missing(rd, l.items)
						switch {
						case n <= 190 && (len(ids) > 0 || len(rd.notes) > 0):
							t.Errorf("not read %v, notes %q", ids, rd.notes)
						case n >= 240 && (len(ids) > n-180 || len(rd.notes) != 1 || !strings.Contains(rd.notes[0], "cannot be read")):
							t.Errorf("not read %d, notes %q", len(ids), rd.notes)
						}
					}))
				})
			}
		}
	}
}

// TestArchiveRefusalIsNoEnd: what says nothing about the archive is an error, and not
// its end.
func TestArchiveRefusalIsNoEnd(t *testing.T) {
	for _, walk := range []sources.Walk{sources.News, sources.Sweep, sources.Full, sources.Backfill} {
		for _, status := range []int{401, 402, 429} {
			synctest.Test(t, bubble(func(t *testing.T) {
				l := &lists{stream: wildberries.Feedbacks, take: 20, skip: 1000, depth: 1020, items: archived(200, time.Hour)}
				l.fail = onArchive(l, 0, status)
				rd := l.reader(t, walk)
				for range 20 {
					q := rd.query
					q.Cursor, q.Now = rd.cursor, time.Now()
					page, err := rd.source.Fetch(t.Context(), q)
					if err != nil {
						return
					}
					if rd.cursor = page.Cursor; page.Done {
						break
					}
				}
				t.Errorf("%s: %d was taken for the end", walk, status)
			}))
		}
	}
}

// onArchive fails the requests to the archive that come after the first ones.
func onArchive(l *lists, after, status int) func(*http.Request) int {
	return func(r *http.Request) int {
		if strings.HasSuffix(r.URL.Path, "/archive") && l.paths["/archive"] > after {
			return status
		}
		return 0
	}
}

// TestListsWithoutTheArchive: an archive that fails, from the beginning or later, holds
// up no list in any walk, and is not asked for with every run of the news. Once it
// works again all of it is read, back to where the first run would have gone.
func TestListsWithoutTheArchive(t *testing.T) {
	for _, walk := range []sources.Walk{sources.News, sources.Sweep, sources.Full, sources.Backfill} {
		for _, status := range []int{400, 403, 404, 422, 500, 503} {
			for _, after := range []int{0, 3} {
				t.Run(fmt.Sprint(walk, status, " after ", after), func(t *testing.T) {
					synctest.Test(t, bubble(func(t *testing.T) {
						if after > 0 && walk == sources.Sweep {
							return // its head is one page
						}
						l := &lists{stream: wildberries.Feedbacks, take: 20, skip: 1000, depth: 1020, items: archived(200, time.Hour)}
						l.items = append(l.items, &listItem{id: "listed", created: ago(4 * time.Hour)})
						l.fail = onArchive(l, after, status)
						rd := l.reader(t, walk)
						rd.query.Since = ago(150 * time.Hour)
						begin := time.Now()
						for i := range 34 {
							it := &listItem{id: fmt.Sprint("new", i), created: ago(0), answered: i%2 == 0}
							l.items = append(l.items, it)
							before := l.n
							if _, failed := stubborn(t, rd); failed > 12 || walk == sources.News && failed > 0 {
								t.Fatalf("run %d: %d failures", i, failed)
							}
							if walk != sources.Sweep && rd.seen[it.id] == 0 || rd.seen["listed"] == 0 {
								t.Fatalf("run %d: the lists were not read", i)
							}
							if took := l.n - before; walk == sources.News && i > 0 && took > 3 {
								t.Fatalf("run %d took %d requests", i, took)
							}
							time.Sleep(15 * time.Second)
						}
						asked := l.paths["/archive"] - after
						if walk == sources.News && (asked > 5 || asked < 3) {
							t.Errorf("the archive was asked for %d times in %s", asked, time.Since(begin))
						}
						if notes := slices.Compact(slices.Clone(rd.notes)); len(notes) != 1 || !strings.Contains(notes[0], "archive of feedbacks cannot be read (answer "+fmt.Sprint(status)) {
							t.Errorf("notes %q", notes)
						}
						if l.fail = nil; walk == sources.Backfill {
							return
						}
						for range 10 {
							stubborn(t, rd)
							time.Sleep(10 * time.Minute)
						}
						for _, it := range l.items {
							if rd.seen[it.id] == 0 && !it.created.Before(rd.query.Since) && walk != sources.Sweep {
								t.Errorf("%s was not read once the archive was back", it.id)
							}
						}
						if walk == sources.Sweep && rd.seen["archived0"] == 0 {
							t.Error("the head was not read once the archive was back")
						}
						before := l.paths["/archive"]
						if rd.run(); walk == sources.News && l.paths["/archive"] != before {
							t.Error("the archive is read again")
						}
					}))
				})
			}
		}
	}
}

// TestListsBetweenPagesOfTheArchive: by a small budget its history takes days; the
// lists have their turn after every page.
func TestListsBetweenPagesOfTheArchive(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		l := &lists{stream: wildberries.Feedbacks, take: 20, skip: 1000, depth: 1020, items: archived(300, time.Hour)}
		rd := newReader(t, l.open(t, 1), l.stream, time.Time{}, threeHours) // 5 requests an hour
		for i := range 40 {
			if got, _ := rd.run(); got > 4 {
				t.Fatalf("run %d took %d requests", i, got)
			}
		}
		if ids := missing(rd, l.items); len(ids) > 0 {
			t.Errorf("not read %v", ids)
		}
		if got, _ := rd.run(); got != 2 {
			t.Errorf("the archive is read again: %d requests", got)
		}
	}))
}

// TestArchiveWithoutOrder: all of it is read, and that its order is not the one asked
// for is told once. The sweep leaves it alone.
func TestArchiveWithoutOrder(t *testing.T) {
	for _, order := range []string{"asc", "none"} {
		synctest.Test(t, bubble(func(t *testing.T) {
			l := &lists{stream: wildberries.Feedbacks, take: 20, skip: 1000, depth: 1020, archiveOrder: order, items: archived(200, 10*time.Hour)}
			rd := l.reader(t, sources.Full)
			rd.query.Window = 100 * time.Hour
			rd.run()
			rd.run()
			if ids := missing(rd, l.items); len(ids) > 0 || len(rd.notes) != 1 || !strings.Contains(rd.notes[0], "order") {
				t.Errorf("order %s: not read %v, notes %q", order, ids, rd.notes)
			}
			sweep := l.reader(t, sources.Sweep)
			sweep.run()
			before := l.paths["/archive"]
			sweep.run()
			if n := l.paths["/archive"] - before; n != 1 {
				t.Errorf("order %s: a sweep read %d pages of the archive", order, n)
			}
		}))
	}
}

// TestCutArchive: pages of the archive that are cut without a word hide nothing.
func TestCutArchive(t *testing.T) {
	for _, cut := range []int{50, 77, 200} {
		for _, n := range []int{49, 50, 51, 150, 400} {
			synctest.Test(t, bubble(func(t *testing.T) {
				l := &lists{stream: wildberries.Feedbacks, cut: cut, items: archived(n, time.Hour)}
				rd := l.reader(t, sources.Full)
				rd.run()
				if ids := missing(rd, l.items); len(ids) > 0 || len(rd.notes) > 0 {
					t.Errorf("cut to %d of %d: not read %v, notes %q", cut, n, ids, rd.notes)
				}
			}))
		}
	}
}
