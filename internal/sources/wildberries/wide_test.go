package wildberries_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
)

// froms takes note of where the requests to the lists begin.
func froms(l *lists) *[]time.Time {
	var asked []time.Time
	l.fail = func(r *http.Request) int {
		if s := r.URL.Query().Get("dateFrom"); s != "" {
			at, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				l.t.Error(err)
			}
			asked = append(asked, time.Unix(at, 0))
		}
		return 0
	}
	return &asked
}

// TestLateByHours: an item that appears in the index hours after its own time is read by
// the news within half a day, also where no cursor is ever saved but those of pages
// with news. No run takes more than two requests for it, or passes for a backlog.
func TestLateByHours(t *testing.T) {
	for _, stream := range datedStreams {
		for _, killed := range []bool{false, true} {
			for _, late := range []time.Duration{4 * time.Hour, 11*time.Hour + 30*time.Minute} {
				synctest.Test(t, bubble(func(t *testing.T) {
					const gap = 5 * time.Minute
					l := &lists{stream: stream}
					begin := time.Now()
					for i := range 60 {
						at := begin.Add(time.Duration(i) * time.Hour)
						it := &listItem{id: fmt.Sprint("q", i), created: at, visible: at, answered: i%4 < 2}
						if i%2 == 1 {
							it.visible = at.Add(late)
						}
						l.items = append(l.items, it)
					}
					rd := l.reader(t, sources.News)
					rd.query.Since = begin
					rd.check = func(p sources.Page) {
						if !p.Reached.IsZero() {
							t.Errorf("%s: the stream passes for one that is behind", time.Since(begin))
						}
					}
					rd.run()
					saved, known := rd.cursor, 0
					asked := froms(l)
					wide := 0
					for time.Since(begin) < 72*time.Hour {
						time.Sleep(gap)
						*asked = nil
						if n, _ := rd.run(); n != 2 {
							t.Fatalf("%s: a run of %d requests", time.Since(begin), n)
						}
						var c struct{ Newest int64 }
						if err := json.Unmarshal(rd.cursor, &c); err != nil {
							t.Fatal(err)
						}
						if time.Unix(c.Newest, 0).Sub((*asked)[0]) > 10*time.Hour {
							wide++
						}
						if len(rd.seen) > known {
							saved, known = rd.cursor, len(rd.seen)
						} else if killed {
							rd.cursor = saved
						}
						for _, it := range l.items {
							if age := time.Since(it.visible); rd.seen[it.id] == 0 && age > 12*time.Hour+gap {
								t.Fatalf("%s was not read for %s", it.id, age)
							}
						}
					}
					if !killed && (wide < 4 || wide > 6) {
						t.Errorf("%d wide runs in three days", wide)
					}
				}))
			}
		}
	}
}

// TestWideByTheCursor: a run is wide where the cursor does not say that one was not long
// ago, whatever clock it was written by.
func TestWideByTheCursor(t *testing.T) {
	for ago, want := range map[time.Duration]bool{
		0: false, 11 * time.Hour: false, -11 * time.Hour: false, 13 * time.Hour: true, -13 * time.Hour: true, 5000 * time.Hour: true, -5000 * time.Hour: true,
	} {
		for _, unknown := range []bool{false, true} {
			synctest.Test(t, bubble(func(t *testing.T) {
				l := shop("questions", 100, time.Hour)
				rd := l.reader(t, sources.News)
				rd.run()
				var c map[string]any
				if err := json.Unmarshal(rd.cursor, &c); err != nil || c["wide"] == nil {
					t.Fatalf("%v: %s", err, rd.cursor)
				}
				if c["wide"] = time.Now().Add(-ago).Unix(); unknown {
					delete(c, "wide")
				}
				rd.cursor, _ = json.Marshal(c)
				asked := froms(l)
				rd.run()
				rd.run()
				for i, at := range *asked {
					if wide := i < 2 && (want || unknown); time.Since(at) > 20*time.Hour != wide || time.Since(at) > 26*time.Hour {
						t.Errorf("%s ago: request %d asks for what is younger than %s", ago, i, time.Since(at))
					}
				}
			}))
		}
	}
}

// TestWideBackToStart: what is older than `start` is not asked for.
func TestWideBackToStart(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		l := shop("questions", 100, time.Hour)
		rd := l.reader(t, sources.News)
		rd.query.Since = time.Now()
		rd.run()
		time.Sleep(13 * time.Hour)
		l.items = append(l.items, &listItem{id: "new", created: ago(0)})
		rd.run()
		rd.run()
		for _, it := range l.items {
			if rd.seen[it.id] > 0 && it.created.Before(rd.query.Since.Add(-threeHours-time.Minute)) {
				t.Errorf("%s, created %s before start, was asked for", it.id, rd.query.Since.Sub(it.created))
			}
		}
	}))
}

// TestWideRunOfManyPages: what a wide run reads once more is no reason to read a list
// twice. After a pause, what is new is.
func TestWideRunOfManyPages(t *testing.T) {
	for _, stream := range datedStreams {
		synctest.Test(t, bubble(func(t *testing.T) {
			l := &lists{stream: stream, take: 20, depth: 200}
			for i := range 300 { // 96 of each list in a day, 12 in three hours
				l.items = append(l.items, &listItem{id: fmt.Sprint("q", i), created: ago(time.Duration(i)*7*time.Minute + 30*time.Second), answered: i%2 == 0})
			}
			rd := l.reader(t, sources.News)
			rd.run()
			rd.check = func(p sources.Page) {
				if !p.Reached.IsZero() {
					t.Errorf("reached %s", p.Reached)
				}
			}
			// As if twelve hours had gone by with nothing new.
			var c map[string]any
			if err := json.Unmarshal(rd.cursor, &c); err != nil {
				t.Fatal(err)
			}
			delete(c, "wide")
			rd.cursor, _ = json.Marshal(c)
			clear(rd.seen)
			asked := froms(l)
			n, _ := rd.run()
			if len(rd.seen) < 200 || n != 2*6 {
				t.Errorf("%s: a wide run of %d requests, %d items; %v", stream, n, len(rd.seen), *asked)
			}
			rd.check = nil
			time.Sleep(40 * time.Hour)
			begin := ago(0)
			for i := range 300 {
				l.items = append(l.items, &listItem{id: fmt.Sprint("new", i), created: begin.Add(-time.Duration(i) * 7 * time.Minute), answered: true})
			}
			l.onAnswer = func(string, int) { // one after the other moves back
				i := 300 + l.n%300
				l.items[i].moves = append(l.items[i].moves, time.Now())
			}
			*asked = nil
			rd.run()
			beginnings := 0
			for _, at := range *asked {
				if at.Equal((*asked)[0]) {
					beginnings++
				}
			}
			if ids := missing(rd, l.items[300:]); len(ids) > 0 || beginnings != 2 {
				t.Errorf("%s: not read %v; asked for %v", stream, ids, *asked)
			}
		}))
	}
}

// TestWideRunAvoidsHoles: what the operator has stepped over is not asked for by a wide
// run, long after the overlap has left it behind.
func TestWideRunAvoidsHoles(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		l := shop("questions", 100, 31*time.Minute)
		l.take, l.depth, l.poison = 20, 200, map[string]bool{"poison": true}
		rd := l.reader(t, sources.News)
		rd.run()
		poison := ago(90 * time.Minute)
		l.items = append(l.items, &listItem{id: "poison", created: poison})
		for stepped := false; !stepped; {
			q := rd.query
			q.Cursor, q.Now = rd.cursor, time.Now()
			if page, err := rd.source.Fetch(t.Context(), q); err == nil {
				rd.cursor = page.Cursor
				continue
			}
			next, _, err := rd.source.(sources.Skipper).Skip(q)
			if stepped = err == nil; stepped { // the page is down to one entry
				rd.cursor = next
			}
		}
		for i := range 60 {
			at := time.Now().Add(time.Duration(i) * 15 * time.Minute)
			l.items = append(l.items, &listItem{id: fmt.Sprint("new", i), created: at, visible: at})
		}
		asked := froms(l)
		over := 0
		for range 60 {
			time.Sleep(15 * time.Minute)
			*asked = nil
			if leftOut, failed := stubborn(t, rd); failed > 0 {
				t.Fatalf("after %s: failed %d times, left out %q", time.Since(poison), failed, leftOut)
			}
			if time.Since(poison) > 10*time.Hour && (*asked)[0].Before(poison) {
				over++
			}
		}
		if over == 0 {
			t.Error("no run went back behind what was stepped over")
		}
	}))
}
