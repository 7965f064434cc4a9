package wildberries_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/wildberries"
)

// TestCutPages: a server that cuts pages to fewer items than were asked for, without
// a word, hides nothing in whatever order, and a full page costs no more than that
// for long.
func TestCutPages(t *testing.T) {
	for _, order := range []string{"asc", "desc", "none"} {
		for _, cut := range []int{50, 100, 333} {
			for _, n := range []int{40, 99, 100, 101, 600, 2000} {
				if order != "asc" && n > 600 {
					continue
				}
				t.Run(fmt.Sprintf("order %s, cut to %d of %d", order, cut, n), func(t *testing.T) {
					synctest.Test(t, bubble(func(t *testing.T) {
						l := &lists{cut: cut, order: order}
						for i := range n {
							l.items = append(l.items, &listItem{id: fmt.Sprint("q", i), created: ago(time.Duration(i) * 7 * time.Minute), answered: i%3 == 0})
						}
						rd := l.reader(t, sources.News)
						rd.run()
						if len(rd.seen) != n {
							t.Errorf("read %d of %d", len(rd.seen), n)
						}
						time.Sleep(15 * time.Second)
						if got, _ := rd.run(); got != 2 {
							t.Errorf("an idle run took %d requests", got)
						}
					}))
				})
			}
		}
	}
}

// TestDenseSeconds: more items of one second than a page holds are read; of more
// than the API shows those that it shows, with a note, and all others.
func TestDenseSeconds(t *testing.T) {
	for _, exclusive := range []bool{false, true} {
		for _, order := range []string{"asc", "desc", "none"} {
			for _, n := range []int{30, 90, 110, 250} {
				t.Run(fmt.Sprintf("exclusive %v, order %s, %d in a second", exclusive, order, n), func(t *testing.T) {
					synctest.Test(t, bubble(func(t *testing.T) {
						l := &lists{fromExclusive: exclusive, toExclusive: exclusive, seconds: true, take: 10, depth: 100, order: order}
						at := ago(1000 * time.Hour)
						for i := range 40 {
							l.items = append(l.items, &listItem{id: fmt.Sprint("before", i), created: at.Add(-time.Duration(i+1) * time.Minute)},
								&listItem{id: fmt.Sprint("after", i), created: at.Add(time.Duration(i+1) * time.Minute)})
						}
						for i := range n {
							l.items = append(l.items, &listItem{id: fmt.Sprint("same", i), created: at.Add(time.Duration(i+1) * time.Microsecond)})
						}
						l.items = append(l.items, &listItem{id: "next", created: at.Add(1500 * time.Millisecond)})
						rd := l.reader(t, sources.News)
						rd.limit = 500
						rd.run()
						same := 0
						for id := range rd.seen {
							if strings.HasPrefix(id, "same") {
								same++
							}
						}
						if others := len(rd.seen) - same; others != 81 {
							t.Errorf("read %d of 81 others", others)
						}
						if n < 100 && (same != n || len(rd.notes) > 0) || n > 100 && (same < 90 || len(rd.notes) == 0) {
							t.Errorf("read %d of %d in one second; notes %q", same, n, rd.notes)
						}
						for _, note := range rd.notes {
							if !strings.Contains(note, at.UTC().Format(time.RFC3339)) {
								t.Errorf("the note does not name the second: %s", note)
							}
						}
					}))
				})
			}
		}
	}
}

// TestCutSeconds: a server that cuts pages without a word, with more items in one
// second than it sends, hides neither the rest of them nor what comes later, in
// either list, be it there from the beginning or come while the news are read.
func TestCutSeconds(t *testing.T) {
	for _, cut := range []int{50, 100, 500} {
		for _, n := range []int{cut - 1, cut, cut + 1, 2*cut - 10, 5*cut + 7} {
			for _, before := range []int{0, 3, 200} {
				for _, live := range []bool{false, true} {
					t.Run(fmt.Sprintf("cut to %d, %d in a second, %d before, live %v", cut, n, before, live), func(t *testing.T) {
						synctest.Test(t, bubble(func(t *testing.T) {
							l := &lists{cut: cut}
							at := ago(2 * time.Hour)
							add := func(id string, at time.Time) {
								for list, answered := range []bool{false, true} {
									l.items = append(l.items, &listItem{id: fmt.Sprint(id, " ", list), created: at, answered: answered})
								}
							}
							for i := range before {
								add(fmt.Sprint("before", i), at.Add(-time.Duration(i+1)*time.Minute))
							}
							rd := l.reader(t, sources.News)
							rd.limit = 100
							if live {
								for range 3 {
									rd.run()
									time.Sleep(15 * time.Second)
								}
								at = ago(0)
							}
							for i := range n {
								add(fmt.Sprint("same", i), at)
							}
							time.Sleep(2 * time.Second)
							rd.run()
							for i := range 3 {
								time.Sleep(15 * time.Second)
								add(fmt.Sprint("later", i), ago(time.Second))
								add(fmt.Sprint("twin", i), at)
								rd.run()
							}
							if ids := missing(rd, l.items); len(ids) > 0 || len(rd.notes) > 0 {
								t.Errorf("%d of %d were not read, %q among them; notes %q", len(ids), len(l.items), ids[:min(len(ids), 9)], rd.notes)
							}
						}))
					})
				}
			}
		}
	}
}

// TestFullPageOfOneSecond: 5,000 feedbacks and more of one second, which are one page
// and more, some of which move to the other list while they are paged.
func TestFullPageOfOneSecond(t *testing.T) {
	for _, n := range []int{4999, 5000, 5001, 12_000} {
		synctest.Test(t, bubble(func(t *testing.T) {
			l := &lists{stream: wildberries.Feedbacks}
			at := ago(1000 * time.Hour)
			for i := range n {
				l.items = append(l.items, &listItem{id: fmt.Sprint("same", i), created: at})
			}
			for i := range 100 {
				l.items = append(l.items, &listItem{id: fmt.Sprint("before", i), created: at.Add(-time.Duration(i+1) * time.Hour)}, &listItem{id: fmt.Sprint("after", i), created: at.Add(time.Duration(i+1) * time.Hour)})
			}
			l.onAnswer = func(_ string, request int) {
				for i := range 20 { // less than what pages have in common
					l.items[(request*40+i)%n].moves = []time.Time{time.Now()}
				}
			}
			rd := l.reader(t, sources.News)
			requests, _ := rd.run()
			if len(rd.seen) != len(l.items) || len(rd.notes) > 0 {
				t.Errorf("%d of one second: read %d of %d; notes %q", n, len(rd.seen), len(l.items), rd.notes)
			}
			if requests > 40 {
				t.Errorf("%d of one second: %d requests", n, requests)
			}
		}))
	}
}

// TestOddLists: no hot loop, whatever comes.
func TestOddLists(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setup func(l *lists)
		noted bool
	}{
		{"dateFrom is ignored", func(l *lists) { l.ignoreFrom = true }, true},
		{"no item has a time", func(l *lists) {
			for i := range l.items {
				l.items[i].raw = fmt.Sprintf(`{"id":"q%d","createdDate":null}`, i)
			}
		}, true},
		{"all from the future", func(l *lists) {
			for i := range l.items {
				l.items[i].raw = fmt.Sprintf(`{"id":"q%d","createdDate":"2200-01-01T00:00:00Z"}`, i)
			}
		}, true},
		{"no item is one", func(l *lists) {
			for i := range l.items {
				l.items[i].raw = []string{`null`, `1`, `"x"`, `[]`, `{}`, `{"id":null}`, `{"id":{}}`}[i%7]
			}
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) {
				l := &lists{take: 10, depth: 100}
				for i := range 30 {
					l.items = append(l.items, &listItem{id: fmt.Sprint("q", i), created: ago(time.Duration(i) * 5 * time.Hour), answered: i%2 == 0})
				}
				tt.setup(l)
				rd := l.reader(t, sources.News)
				for range 3 {
					if n, _ := rd.run(); n > 20 {
						t.Errorf("a run of %d requests", n)
					}
				}
				if tt.noted != (len(rd.notes) > 0) {
					t.Errorf("notes %q", rd.notes)
				}
			}))
		})
	}
}
