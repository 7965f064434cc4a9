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

// lists is a strict fake of GET questions.
type lists struct {
	cut              int // pages hold no more, whatever is asked for; 0: they hold what is asked for
	t                *testing.T
	items            []listItem
	exclusive        bool   // dateFrom and dateTo are
	seconds          bool   // the filter compares whole seconds
	order            string // "asc", "desc", or "none"
	take, depth      int    // what a page must and may be
	ignoreFrom       bool
	requests, larger int
}

type listItem struct {
	id       string
	created  time.Time
	visible  time.Time
	answered bool
	moves    time.Time // to the other list; zero: never
	raw      string
}

func (i listItem) isAnswered(now time.Time) bool {
	return i.answered != (!i.moves.IsZero() && !i.moves.After(now))
}

func (l *lists) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.requests++
	q := r.URL.Query()
	number := func(name string) (int64, bool) {
		n, err := strconv.ParseInt(q.Get(name), 10, 64)
		if q.Has(name) && (err != nil || n < 0) {
			l.t.Errorf("%s=%q", name, q.Get(name))
		}
		return n, q.Has(name)
	}
	take, hasTake := number("take")
	skip, hasSkip := number("skip")
	from, _ := number("dateFrom")
	to, hasTo := number("dateTo")
	answered, err := strconv.ParseBool(q.Get("isAnswered"))
	if err != nil || !hasTake || !hasSkip || take < 1 || take+skip > int64(l.depth) || q.Get("order") != "dateAsc" || r.URL.Path != "/api/v1/questions" {
		l.t.Errorf("the API refuses %s", r.URL)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if take > int64(l.take) {
		l.larger++
	}
	now := time.Now()
	before := func(a, b time.Time) bool {
		if l.seconds {
			return a.Unix() < b.Unix()
		}
		return a.Before(b)
	}
	var page []listItem
	for _, it := range l.items {
		start, end := time.Unix(from, 0), time.Unix(to, 0)
		switch {
		case it.visible.After(now), it.isAnswered(now) != answered:
			continue
		case from > 0 && !l.ignoreFrom && (before(it.created, start) || l.exclusive && !before(start, it.created)):
			continue
		case hasTo && (before(end, it.created) || l.exclusive && !before(it.created, end)):
			continue
		}
		page = append(page, it)
	}
	slices.SortStableFunc(page, func(a, b listItem) int {
		switch l.order {
		case "desc":
			return b.created.Compare(a.created)
		case "none":
			return strings.Compare(a.id[len(a.id)-1:]+a.id, b.id[len(b.id)-1:]+b.id)
		}
		return a.created.Compare(b.created)
	})
	page = page[min(int(skip), len(page)):]
	page = page[:min(int(take), len(page))]
	if l.cut > 0 {
		page = page[:min(l.cut, len(page))]
	}
	var b strings.Builder
	for i, it := range page {
		if i > 0 {
			b.WriteByte(',')
		}
		if it.raw != "" {
			b.WriteString(it.raw)
			continue
		}
		fmt.Fprintf(&b, `{"id":%q,"text":"?","createdDate":%q,"answer":null}`, it.id, it.created.UTC().Format(time.RFC3339Nano))
	}
	fmt.Fprintf(w, `{"data":{"countUnanswered":1,"countArchive":1,"questions":[%s]},"error":false,"errorText":"","additionalErrors":null}`, b.String())
}

func (l *lists) open(t *testing.T, acc int) *wildberries.Client {
	l.t = t
	if l.order == "" {
		l.order = "asc"
	}
	c := open(t, &direct{handler: l}, token(acc))
	if l.take == 0 {
		l.take, l.depth = 1000, 10_000
	}
	c.SetPages(l.take, l.depth)
	return c
}

const threeHours = 3 * time.Hour

// TestQuestionsProperty: random worlds, whose items move between the lists,
// appear late and share seconds, while they are read and while syncd crashes.
// Every item that stays visible for two runs is read.
func TestQuestionsProperty(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) { questionsWorld(t, seed) }))
		})
	}
}

func questionsWorld(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 5))
	l := &lists{exclusive: r.IntN(2) == 0, seconds: r.IntN(2) == 0, take: 2 + r.IntN(12), order: "asc"}
	l.depth = l.take * (4 + r.IntN(12))
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
			it := listItem{id: fmt.Sprint("q", len(l.items)), created: at.Truncate(time.Second).Add(time.Duration(r.IntN(3)) * 333_333_333), visible: visible, answered: r.IntN(2) == 0}
			if r.IntN(2) == 0 { // moves, most likely while being read
				it.moves = begin.Add(time.Duration(r.Int64N(int64(span))))
				if r.IntN(2) == 0 {
					it.moves = begin.Add(time.Duration(r.Int64N(int64(20 * time.Second))))
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
	rd := newReader(t, l.open(t, acc), wildberries.Questions, time.Time{}, threeHours)
	shown := make(map[string]int)
	var newest int64
	for time.Since(begin) < span || slices.ContainsFunc(l.items, func(it listItem) bool { return shown[it.id] < 2 }) {
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
			if i > 20_000 {
				t.Fatalf("endless run: %s", page.Cursor)
			}
			if crashes && i == stop {
				break
			}
		}
		if page.Done {
			for _, it := range l.items {
				if rd.seen[it.id] > 0 {
					shown[it.id] = 2
				} else if !it.visible.After(page.Began) {
					if shown[it.id]++; shown[it.id] == 2 {
						t.Fatalf("item %+v was not read in two runs (now %s; exclusive %v, seconds %v, take %d of %d, order %s); cursor %s", it, time.Now(), l.exclusive, l.seconds, l.take, l.depth, l.order, rd.cursor)
					}
				}
			}
		}
		time.Sleep(gap)
	}
}

// TestIdleQuestionsAreTwoRequests, one for each list.
func TestIdleQuestionsAreTwoRequests(t *testing.T) {
	for _, n := range []int{0, 1, 500} {
		for _, since := range []time.Time{{}, time.Now()} {
			synctest.Test(t, bubble(func(t *testing.T) {
				l := &lists{}
				for i := range n {
					l.items = append(l.items, listItem{id: fmt.Sprint("q", i), created: time.Now().Add(-time.Duration(i) * 10 * time.Second), answered: i%2 == 0})
				}
				if !since.IsZero() {
					since = time.Now()
				}
				rd := newReader(t, l.open(t, 3), wildberries.Questions, since, threeHours)
				rd.run()
				for i := range 6 {
					if got, _ := rd.run(); got != 2 {
						t.Errorf("%d items, run %d took %d requests", n, i, got)
					}
					time.Sleep(15 * time.Second)
				}
			}))
		}
	}
}

// TestCutPages: a server that cuts pages to fewer items than were asked for, without
// a word, hides nothing, and a full page costs no more than that for long.
func TestCutPages(t *testing.T) {
	for _, cut := range []int{50, 100, 333} {
		for _, n := range []int{40, 99, 100, 101, 600, 2000} {
			t.Run(fmt.Sprintf("cut to %d of %d", cut, n), func(t *testing.T) {
				synctest.Test(t, bubble(func(t *testing.T) {
					l := &lists{cut: cut}
					for i := range n {
						l.items = append(l.items, listItem{id: fmt.Sprint("q", i), created: time.Now().Add(-time.Duration(i) * 7 * time.Minute), answered: i%3 == 0})
					}
					rd := newReader(t, l.open(t, 3), wildberries.Questions, time.Time{}, threeHours)
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

// TestDenseSeconds: more items of one second than a page holds are read; of more
// than the API shows those that it shows, with a note, and all others.
func TestDenseSeconds(t *testing.T) {
	for _, exclusive := range []bool{false, true} {
		for _, order := range []string{"asc", "desc", "none"} {
			for _, n := range []int{30, 90, 110, 250} {
				t.Run(fmt.Sprintf("exclusive %v, order %s, %d in a second", exclusive, order, n), func(t *testing.T) {
					synctest.Test(t, bubble(func(t *testing.T) {
						l := &lists{exclusive: exclusive, seconds: true, take: 10, depth: 100, order: order}
						at := time.Now().Add(-1000 * time.Hour).Truncate(time.Second)
						for i := range 40 {
							l.items = append(l.items, listItem{id: fmt.Sprint("before", i), created: at.Add(-time.Duration(i+1) * time.Minute)},
								listItem{id: fmt.Sprint("after", i), created: at.Add(time.Duration(i+1) * time.Minute)})
						}
						for i := range n {
							l.items = append(l.items, listItem{id: fmt.Sprint("same", i), created: at.Add(time.Duration(i+1) * time.Microsecond)})
						}
						l.items = append(l.items, listItem{id: "next", created: at.Add(1500 * time.Millisecond)})
						rd := newReader(t, l.open(t, 3), wildberries.Questions, time.Time{}, threeHours)
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
						if n < 100 && (same != n || len(rd.notes) > 0) || n > 100 && (same < 99 || len(rd.notes) == 0) {
							t.Errorf("read %d of %d in one second; notes %q", same, n, rd.notes)
						}
					}))
				})
			}
		}
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
					l.items = append(l.items, listItem{id: fmt.Sprint("q", i), created: time.Now().Add(-time.Duration(i) * time.Hour), answered: i%2 == 0})
				}
				tt.setup(l)
				rd := newReader(t, l.open(t, 3), wildberries.Questions, time.Time{}, threeHours)
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

// TestQuestionsStart: an item not older than `start` is read.
func TestQuestionsStart(t *testing.T) {
	for _, exclusive := range []bool{false, true} {
		for _, overlap := range []time.Duration{0, time.Millisecond, threeHours} {
			synctest.Test(t, bubble(func(t *testing.T) {
				start := time.Now().Add(-time.Minute)
				l := &lists{exclusive: exclusive, seconds: true, items: []listItem{{id: "first", created: start}, {id: "old", created: start.Add(-4 * time.Hour)}, {id: "a", created: start.Add(time.Second), answered: true}}}
				rd := newReader(t, l.open(t, 3), wildberries.Questions, start, overlap)
				rd.run()
				l.items = append(l.items, listItem{id: "twin", created: start.Add(time.Second)})
				rd.run()
				if rd.seen["first"] == 0 || rd.seen["a"] == 0 || rd.seen["twin"] == 0 || rd.seen["old"] > 0 {
					t.Errorf("exclusive %v, overlap %s: read %v", exclusive, overlap, rd.seen)
				}
			}))
		}
	}
}

// TestCrashBetweenTheLists: a run that goes on a week later must not take for
// read what appeared in the first list meanwhile. Nor must an item from the future
// move the cursor.
func TestCrashBetweenTheLists(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		day := func(n int) time.Time { return time.Now().Add(time.Duration(n) * 24 * time.Hour) }
		l := &lists{items: []listItem{{id: "old", created: day(-1)}}}
		rd := newReader(t, l.open(t, 3), wildberries.Questions, time.Time{}, threeHours)
		rd.fetch()
		l.items = append(l.items, listItem{id: "unanswered", created: day(2)}, listItem{id: "answered", created: day(6), answered: true},
			listItem{id: "future", created: day(7).Add(50 * time.Minute), answered: true})
		time.Sleep(7 * 24 * time.Hour)
		rd.run()
		rd.run()
		l.items = append(l.items, listItem{id: "late", created: time.Now().Add(-2*time.Hour - 30*time.Minute)})
		time.Sleep(time.Minute)
		rd.run()
		for _, id := range []string{"old", "unanswered", "answered", "future", "late"} {
			if rd.seen[id] == 0 {
				t.Errorf("%s was not read", id)
			}
		}
	}))
}
