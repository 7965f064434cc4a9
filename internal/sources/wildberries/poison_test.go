package wildberries_test

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/wildberries"
)

// stubborn reads until a run is done, as an operator would: what fails is tried
// again, and stepped over after it has failed ten times in a row. It returns what was
// left out, and how many requests failed.
func stubborn(t *testing.T, rd *reader) (leftOut []string, failed int) {
	t.Helper()
	row := 0
	for range 5000 {
		q := rd.query
		q.Cursor, q.Now = rd.cursor, time.Now()
		page, err := rd.source.Fetch(t.Context(), q)
		if err != nil {
			if _, ok := errors.AsType[*sources.Error](err); !ok {
				t.Fatal(err)
			}
			failed++
			if row++; row == 10 {
				next, what, err := rd.source.(sources.Skipper).Skip(q)
				if err != nil || what == "" {
					t.Fatalf("skip: %q, %v", what, err)
				}
				rd.cursor, row = next, 0
				leftOut = append(leftOut, what)
			}
			continue
		}
		row = 0
		for _, it := range page.Items {
			rd.seen[it.ID[0]]++
		}
		if page.Note != "" {
			rd.notes = append(rd.notes, page.Note)
		}
		if rd.cursor = page.Cursor; page.Done {
			return leftOut, failed
		}
	}
	t.Fatalf("no end of it; left out %q, cursor %s", leftOut, rd.cursor)
	return nil, 0
}

// TestPoison: an entry that the marketplace cannot send ends up alone, is stepped over,
// and hides no other, in any walk and in later runs.
func TestPoison(t *testing.T) {
	for _, stream := range datedStreams {
		for _, walk := range []sources.Walk{sources.News, sources.Sweep, sources.Full, sources.Backfill} {
			for _, poison := range [][]int{{0}, {1}, {250}, {498}, {499}, {100, 101, 102, 104}, {2, 400}} {
				t.Run(fmt.Sprint(stream, walk, poison), func(t *testing.T) {
					synctest.Test(t, bubble(func(t *testing.T) {
						l := shop(stream, 500, 2*time.Hour)
						for _, it := range l.items {
							it.created = it.created.Add(-threeHours) // the sweep leaves younger ones to the news
						}
						l.poison = make(map[string]bool)
						for _, i := range poison {
							l.poison[l.items[i].id] = true
							l.items[i].answered = false // not both lists
						}
						rd := l.reader(t, walk)
						leftOut, _ := stubborn(t, rd)
						for _, it := range l.items {
							if (rd.seen[it.id] > 0) == l.poison[it.id] {
								t.Errorf("%s was read %d times", it.id, rd.seen[it.id])
							}
						}
						for _, what := range leftOut {
							if !strings.Contains(what, "unanswered "+stream) || !strings.HasPrefix(what, "one of the ") {
								t.Errorf("left out %q", what)
							}
						}
						// What comes later is read in spite of it, and news need nobody's help.
						l.items = append(l.items, &listItem{id: "later", created: ago(0)}, &listItem{id: "later too", created: ago(0), answered: true})
						time.Sleep(time.Minute)
						if walk == sources.Sweep {
							return
						}
						again, failed := stubborn(t, rd)
						if rd.seen["later"] == 0 || rd.seen["later too"] == 0 {
							t.Errorf("what came later was not read; left out %q", again)
						}
						if len(again) > 0 || failed > 0 {
							t.Errorf("another run left out %q, %d requests failed", again, failed)
						}
					}))
				})
			}
		}
	}
}

// TestPoisonInTheArchive: an entry of it that the marketplace cannot send hides no other.
func TestPoisonInTheArchive(t *testing.T) {
	for _, poison := range []int{0, 77, 299} {
		synctest.Test(t, bubble(func(t *testing.T) {
			l := &lists{stream: wildberries.Feedbacks, items: archived(300, time.Hour)}
			l.poison = map[string]bool{fmt.Sprint("archived", poison): true}
			for _, walk := range []sources.Walk{sources.Full, sources.Backfill} {
				rd := l.reader(t, walk)
				leftOut, _ := stubborn(t, rd)
				if ids := missing(rd, l.items); len(ids) != 1 || len(leftOut) > 0 || len(rd.notes) != 1 || !strings.Contains(rd.notes[0], "stepped over") {
					t.Errorf("%s: not read %v, left out %q, notes %q", walk, ids, leftOut, rd.notes)
				}
			}
			// The news try it for hours before.
			rd := l.reader(t, sources.News)
			begin := time.Now()
			for len(missing(rd, l.items)) > 1 && time.Since(begin) < 24*time.Hour {
				rd.run()
				time.Sleep(15 * time.Second)
			}
			if ids, took := missing(rd, l.items), time.Since(begin); len(ids) != 1 || poison < 299 && took < time.Hour {
				t.Errorf("news: not read %v after %s", ids, took)
			}
		}))
	}
}

// TestOutage: what fails because everything does is tried with less, and soon with
// more again: an outage makes the news after it hardly more expensive.
func TestOutage(t *testing.T) {
	for _, stream := range datedStreams {
		synctest.Test(t, bubble(func(t *testing.T) {
			l := shop(stream, 60, 3*time.Minute)
			rd := l.reader(t, sources.News)
			rd.run()
			l.fail = func(*http.Request) int { return http.StatusServiceUnavailable }
			for range 20 {
				q := rd.query
				q.Cursor, q.Now = rd.cursor, time.Now()
				if _, err := rd.source.Fetch(t.Context(), q); err == nil {
					t.Error("no error")
				}
			}
			l.fail = nil
			if n, _ := rd.run(); n > 6 {
				t.Errorf("%s: %d requests after an outage", stream, n)
			}
			if n, _ := rd.run(); n != 2 {
				t.Errorf("%s: %d requests in the run after that", stream, n)
			}
		}))
	}
}

// TestTooMuch: an answer that breaks off where it is long, or takes the marketplace too
// long, is asked for in smaller pieces.
func TestTooMuch(t *testing.T) {
	for name, broken := range map[string]func(http.ResponseWriter){
		"cut off": func(w http.ResponseWriter) { fmt.Fprint(w, `{"data":{"questions":[{"id":"q1"`) },
		"refused": func(w http.ResponseWriter) { w.WriteHeader(http.StatusGatewayTimeout) },
	} {
		synctest.Test(t, bubble(func(t *testing.T) {
			l := shop(wildberries.Questions, 200, time.Hour)
			l.open(t, 3) // for its bounds
			long := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if take, _ := strconv.Atoi(r.URL.Query().Get("take")); take > 30 {
					broken(w)
					return
				}
				l.ServeHTTP(w, r)
			})
			rd := newReader(t, open(t, &direct{handler: long}, token(3)), wildberries.Questions, time.Time{}, threeHours)
			leftOut, failed := stubborn(t, rd)
			if len(rd.seen) != 200 || len(leftOut) > 0 || failed == 0 {
				t.Errorf("%s: read %d of 200, left out %q, %d failures", name, len(rd.seen), leftOut, failed)
			}
		}))
	}
}

// TestSkipAtOnce: a page that has not failed in this process is stepped over as a whole,
// as far as that goes.
func TestSkipAtOnce(t *testing.T) {
	for _, stream := range datedStreams {
		for _, walk := range []sources.Walk{sources.News, sources.Full, sources.Backfill} {
			synctest.Test(t, bubble(func(t *testing.T) {
				rd := shop(stream, 10, time.Hour).reader(t, walk)
				rd.query.Now = time.Now()
				next, what, err := rd.source.(sources.Skipper).Skip(rd.query)
				if err != nil || !strings.Contains(what, "unanswered "+stream) {
					t.Fatalf("%q, %v", what, err)
				}
				rd.cursor = next
				rd.run()
				// What it left out is no more than a page of one list.
				for i := range 10 {
					if id := fmt.Sprint("q", i); i%2 == 0 && rd.seen[id] == 0 {
						t.Errorf("%s of %s: %s was not read", walk, stream, id)
					}
				}
			}))
		}
	}
}

// TestSkipCounts: where the counts fail for ever the sweep goes on without them.
func TestSkipCounts(t *testing.T) {
	for _, stream := range datedStreams {
		synctest.Test(t, bubble(func(t *testing.T) {
			l := shop(stream, 200, time.Hour)
			rd := l.reader(t, sources.Sweep)
			rd.run()
			l.fail = func(r *http.Request) int {
				if strings.HasSuffix(r.URL.Path, "/count") {
					return http.StatusInternalServerError
				}
				return 0
			}
			time.Sleep(15 * time.Minute)
			l.items[50].moves = []time.Time{time.Now()}
			q := rd.query
			q.Cursor, q.Now = rd.cursor, time.Now()
			if _, err := rd.source.Fetch(t.Context(), q); err == nil {
				t.Fatal("no error")
			}
			next, what, err := rd.source.(sources.Skipper).Skip(q)
			if err != nil || !strings.Contains(what, "counts") {
				t.Fatalf("%q, %v", what, err)
			}
			rd.cursor = next
			l.fail = nil
			clear(rd.seen)
			rd.run()
			rd.run()
			if rd.seen[l.items[50].id] == 0 {
				t.Error("the change was not read once the counts were back")
			}
		}))
	}
}

// TestSkipTriesTheEntryFirst: Skip steps over an entry once that has failed alone, and
// not while a larger page is all that has.
func TestSkipTriesTheEntryFirst(t *testing.T) {
	for _, take := range []int{2, 5, 20, 100} {
		synctest.Test(t, bubble(func(t *testing.T) {
			l := &lists{take: take, depth: 10 * take, poison: map[string]bool{"q1": true}}
			for i := range 3 {
				l.items = append(l.items, &listItem{id: fmt.Sprint("q", i), created: ago(time.Hour - time.Duration(i)*time.Minute)})
			}
			rd := l.reader(t, sources.News)
			for range 30 {
				q := rd.query
				q.Cursor, q.Now = rd.cursor, time.Now()
				page, err := rd.source.Fetch(t.Context(), q)
				if err == nil {
					for _, it := range page.Items {
						rd.seen[it.ID[0]]++
					}
					if rd.cursor = page.Cursor; page.Done {
						break
					}
				} else if next, _, err := rd.source.(sources.Skipper).Skip(q); err == nil { // whenever that is possible
					rd.cursor = next
				}
			}
			if rd.seen["q0"] == 0 || rd.seen["q2"] == 0 || rd.seen["q1"] > 0 {
				t.Errorf("pages of %d: read %v", take, rd.seen)
			}
		}))
	}
}
