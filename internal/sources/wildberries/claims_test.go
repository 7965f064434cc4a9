package wildberries_test

import (
	"cmp"
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

// claimLists is a strict fake of GET claims.
type claimLists struct {
	t       *testing.T
	claims  []*fakeClaim
	order   func(a, b *fakeClaim) int // nil: as they stand
	shuffle *rand.Rand                // another order in every answer
	limit   int                       // that is asked for; 0: 200
	cap     int                       // the server's own; 0: none
	total   func(listed, shown int) string
	stuck   bool   // offset is ignored
	after   func() // called after each answer
	asked   []string
}

type fakeClaim struct {
	id       string
	archived bool
	created  time.Time
	updated  time.Time
	since    time.Time // when it appeared
	moved    time.Time // for the last time
}

func (l *claimLists) add(n int, archived bool) {
	for range n {
		at := time.Now().Add(-time.Duration(len(l.claims)) * time.Second)
		l.claims = append(l.claims, &fakeClaim{id: fmt.Sprintf("c%04d", len(l.claims)), archived: archived, created: at, updated: at, since: time.Now()})
	}
}

func (l *claimLists) open(t *testing.T, acc int) *wildberries.Client {
	l.t = t
	c := open(t, &direct{handler: l}, token(acc))
	if l.limit != 0 {
		c.SetLimits(l.limit, 500)
	}
	return c
}

func (l *claimLists) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	number := func(name string, low, high int) int {
		n, err := strconv.Atoi(q.Get(name))
		if err != nil || n < low || n > high {
			l.t.Errorf("%s is refused by the API: %s", name, r.URL)
		}
		return n
	}
	limit, offset := number("limit", 1, 200), number("offset", 0, 1<<30)
	archived, err := strconv.ParseBool(q.Get("is_archive"))
	if err != nil || r.URL.Path != "/api/v1/claims" || len(q) != 3 || l.limit != 0 && limit != l.limit {
		l.t.Errorf("unexpected request %s", r.URL)
	}
	l.asked = append(l.asked, fmt.Sprintf("%t %d", archived, offset))
	if l.stuck {
		offset = 0
	}
	if l.cap > 0 {
		limit = min(limit, l.cap)
	}
	var listed []*fakeClaim
	for _, c := range l.claims {
		if c.archived == archived {
			listed = append(listed, c)
		}
	}
	if l.order != nil {
		slices.SortStableFunc(listed, l.order)
	}
	if l.shuffle != nil {
		l.shuffle.Shuffle(len(listed), func(i, j int) { listed[i], listed[j] = listed[j], listed[i] })
	}
	var page []string
	for _, c := range listed[min(offset, len(listed)):min(offset+limit, len(listed))] {
		form := func(t time.Time) string { return t.UTC().Add(3 * time.Hour).Format("2006-01-02T15:04:05.999999") }
		page = append(page, fmt.Sprintf(`{"id":%q,"dt":%q,"dt_update":%q,"actions":[]}`, c.id, form(c.created), form(c.updated)))
	}
	total := fmt.Sprintf(`,"total":%d`, len(listed))
	if l.total != nil {
		total = l.total(len(listed), len(page))
	}
	fmt.Fprintf(w, `{"claims":[%s]%s}`, strings.Join(page, ","), total)
	if l.after != nil {
		l.after()
	}
}

// absent and the others are what `total` may be instead of what the documents say:
// the number of claims without limit and offset.
func absent(_, _ int) string         { return "" }
func ofAnswer(_, shown int) string   { return fmt.Sprintf(`,"total":%d`, shown) }
func bothLists(_, shown int) string  { return `,"total":120` }
func changing(listed, _ int) string  { return fmt.Sprintf(`,"total":%d`, 1000+time.Now().Unix()%100) }
func oddTotal(listed, _ int) string  { return `,"total":{"a":1}` }
func textTotal(listed, _ int) string { return fmt.Sprintf(`,"total":"%d"`, listed) }

// TestClaimsCost: two lists that rest and fit a page cost two requests; the first
// run, which cannot know that they rest, one more.
func TestClaimsCost(t *testing.T) {
	for name, total := range map[string]func(int, int) string{"of the list": nil, "absent": absent, "of the answer": ofAnswer, "odd": oddTotal, "text": textTotal} {
		for _, n := range [][2]int{{0, 0}, {1, 0}, {0, 1}, {31, 150}, {199, 199}} {
			t.Run(fmt.Sprintf("total %s, %d and %d claims", name, n[0], n[1]), func(t *testing.T) {
				synctest.Test(t, bubble(func(t *testing.T) {
					l := &claimLists{total: total}
					l.add(n[0], false)
					l.add(n[1], true)
					rd := newReader(t, l.open(t, 3), wildberries.Claims, time.Time{}, 0)
					for run, want := range []string{"false 0,true 0,false 0", "false 0,true 0", "false 0,true 0"} {
						l.asked = nil
						rd.run()
						if got := strings.Join(l.asked, ","); got != want {
							t.Errorf("run %d asked %s, expected %s", run, got, want)
						}
						time.Sleep(time.Minute)
					}
					if len(rd.seen) != n[0]+n[1] || len(rd.notes) > 0 {
						t.Errorf("read %d of %d, notes %q", len(rd.seen), n[0]+n[1], rd.notes)
					}
				}))
			})
		}
	}
}

// TestClaimsPages: pages overlap, and the last is the one that is not full.
func TestClaimsPages(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setup func(l *claimLists)
		want  string // of a run at rest
		note  string
	}{
		{"three pages", func(l *claimLists) { l.add(450, false) }, "false 0,false 190,false 380,true 0", ""},
		{"a full page", func(l *claimLists) { l.add(200, false) }, "false 0,false 190,true 0", ""},
		{"two full pages", func(l *claimLists) { l.add(390, true) }, "false 0,true 0,true 190", ""},
		{"two full pages, total absent", func(l *claimLists) { l.add(390, true); l.total = absent }, "false 0,true 0,true 190,true 380", ""},
		{"two full pages, total of the answer", func(l *claimLists) { l.add(390, true); l.total = ofAnswer }, "false 0,true 0,true 190,true 380", ""},
		{"three pages, total of the answer", func(l *claimLists) { l.add(450, false); l.total = ofAnswer }, "false 0,false 190,false 380,true 0", ""},
		{"the server cuts pages", func(l *claimLists) { l.add(120, false); l.cap = 50 }, "false 0,false 40,false 80,true 0", ""},
		{"the server cuts pages to one", func(l *claimLists) { l.add(3, false); l.cap = 1 }, "false 0,false 1,false 2,true 0", ""},
		{"total of both lists", func(l *claimLists) { l.add(70, false); l.add(50, true); l.total = bothLists }, "false 0,false 60,true 0,true 40", "`total` is 120, and 70 came"},
		{"offset is ignored", func(l *claimLists) { l.add(30, false); l.stuck, l.cap = true, 20 },
			"false 0,false 10,false 0,false 10,false 0,false 10,true 0", "repeat the same page"},
		{"total never rests", func(l *claimLists) { l.add(30, false); l.total = changing },
			"", "counted as more than the API shows"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) {
				l := &claimLists{}
				tt.setup(l)
				rd := newReader(t, l.open(t, 3), wildberries.Claims, time.Time{}, 0)
				rd.run()
				rd.notes = nil
				l.asked = nil
				n, _ := rd.run()
				if got := strings.Join(l.asked, ","); got != tt.want && tt.want != "" {
					t.Errorf("asked %s, expected %s", got, tt.want)
				}
				if n > 18 {
					t.Errorf("a run of %d requests", n)
				}
				if len(rd.seen) != len(l.claims) && !l.stuck {
					t.Errorf("read %d of %d", len(rd.seen), len(l.claims))
				}
				if notes := strings.Join(rd.notes, "; "); (notes == "") != (tt.note == "") || !strings.Contains(notes, tt.note) {
					t.Errorf("notes %q, expected %q", notes, tt.note)
				}
			}))
		})
	}
}

// TestClaimsMove: what moves between two requests of a run that nothing else
// disturbs is seen in it.
func TestClaimsMove(t *testing.T) {
	byID := func(a, b *fakeClaim) int { return cmp.Compare(a.id, b.id) }
	for _, tt := range []struct {
		name             string
		active, archived int
		before           int // this request of the run, from 0
		move             func(l *claimLists)
		requests         int
	}{
		{"decided before the archive is read", 5, 5, 1, func(l *claimLists) { l.claims[2].archived = true }, 3},
		{"reconsidered before the archive is read", 5, 5, 1, func(l *claimLists) { l.claims[7].archived = false }, 3},
		{"one each way before the archive is read", 5, 5, 1, func(l *claimLists) { l.claims[2].archived, l.claims[7].archived = true, false }, 3},
		{"all reconsidered", 5, 5, 1, func(l *claimLists) {
			for _, c := range l.claims {
				c.archived = false
			}
		}, 4}, // a full page may be cut: one more behind it
		{"all decided while the first list is paged", 25, 5, 1, func(l *claimLists) {
			for _, c := range l.claims {
				c.archived = true
			}
		}, 8}, // two pages, the empty list, four pages of the archive, the empty list
		{"a new one in front while the first list is paged", 25, 5, 1, func(l *claimLists) {
			l.claims = append(l.claims, &fakeClaim{id: "a"})
		}, 6}, // two pages, three again, the archive
		{"the first page decided while the list is paged", 25, 5, 1, func(l *claimLists) {
			for _, c := range l.claims[:10] {
				c.archived = true
			}
		}, 8},
		{"one leaves and one comes while the list is paged", 25, 5, 2, func(l *claimLists) {
			l.claims[0].archived, l.claims[27].archived = true, false
		}, 0},
		{"the archive moves while it is paged", 5, 25, 2, func(l *claimLists) {
			for _, c := range l.claims[6:17] {
				c.archived = false
			}
		}, 0},
		{"one jumps to the front while the list is paged", 25, 5, 1, func(l *claimLists) { l.claims[24].id = "a" }, 6}, // which the list is sorted by
		{"one jumps to the front while another one ends", 25, 5, 1, func(l *claimLists) {
			l.claims[24].id = "a"
			l.claims = slices.Delete(l.claims, 0, 1)
		}, 6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) {
				l := &claimLists{limit: 10, order: byID}
				l.add(tt.active, false)
				l.add(tt.archived, true)
				rd := newReader(t, l.open(t, 3), wildberries.Claims, time.Time{}, 0)
				rd.run()
				clear(rd.seen)
				rd.between = func(request int) {
					if request == tt.before {
						tt.move(l)
					}
				}
				l.asked = nil
				rd.run()
				for _, c := range l.claims {
					if rd.seen[c.id] == 0 && !c.since.IsZero() {
						t.Errorf("%s was visible all the time, and not read; asked %q", c.id, l.asked)
					}
				}
				if len(rd.notes) > 0 {
					t.Errorf("notes %q", rd.notes)
				}
				if tt.requests > 0 && len(l.asked) != tt.requests {
					t.Errorf("asked %q, expected %d requests", l.asked, tt.requests)
				}
				rd.between = nil
				rd.run()
				l.asked = nil
				rd.run()
				if tt.active+tt.archived == 10 && len(l.asked) > 4 {
					t.Errorf("at rest again: asked %q", l.asked)
				}
			}))
		})
	}
}

// TestClaimsProperty: worlds that move while they are read, in every order, with
// crashes that lose a page. What stays visible throughout a run is read in it or
// before, unless the run says that the list did not rest; and in any case within
// two runs.
func TestClaimsProperty(t *testing.T) {
	for seed := range uint64(24) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) { claimsWorld(t, seed) }))
		})
	}
}

func claimsWorld(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 9))
	l := &claimLists{limit: []int{5, 10, 20}[r.IntN(3)]}
	l.order = []func(a, b *fakeClaim) int{
		func(a, b *fakeClaim) int { return b.created.Compare(a.created) },
		func(a, b *fakeClaim) int { return a.created.Compare(b.created) },
		func(a, b *fakeClaim) int { return cmp.Or(b.updated.Compare(a.updated), cmp.Compare(a.id, b.id)) },
		func(a, b *fakeClaim) int { return cmp.Compare(a.id[4:]+a.id, b.id[4:]+b.id) },
	}[r.IntN(4)]
	l.total = []func(int, int) string{nil, nil, absent, ofAnswer}[r.IntN(4)]
	l.add(r.IntN(60), false)
	l.add(r.IntN(60), true)
	pace := 2 + r.IntN(20) // of 20 answers so many are followed by a change
	var began time.Time    // of the run that is going on
	n := 1000
	change := func() {
		i := r.IntN(len(l.claims) + 1)
		if i == len(l.claims) || r.IntN(6) == 0 {
			n++
			l.claims = append(l.claims, &fakeClaim{id: fmt.Sprintf("c%04d", n), created: time.Now(), updated: time.Now(), since: time.Now()})
			return
		}
		c := l.claims[i]
		switch r.IntN(5) {
		case 0: // too old
			l.claims = slices.Delete(l.claims, i, i+1)
		case 1: // updated in its place
			c.updated = time.Now()
		default:
			if c.moved.Before(began) { // to and fro within one run hides from anybody
				c.archived, c.updated, c.moved = !c.archived, time.Now(), time.Now()
			}
		}
	}
	l.after = func() {
		for r.IntN(20) < pace/2 {
			change()
		}
	}
	source := l.open(t, 3)
	seen := make(map[string]int)   // number of the last run that has shown it
	missed := make(map[string]int) // runs in a row
	var cursor sources.Cursor
	for run := 1; run < 30; run++ {
		began = time.Now()
		note := ""
		for request := 0; ; request++ {
			page, err := source.Fetch(t.Context(), sources.Query{Stream: wildberries.Claims, Walk: sources.News, Cursor: cursor, Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			if request > 150 {
				t.Fatalf("an endless run: %s", page.Cursor)
			}
			if r.IntN(8) == 0 { // killed before the page is saved
				if r.IntN(3) == 0 {
					time.Sleep(time.Hour)
					change()
				}
				continue
			}
			cursor = page.Cursor
			for _, it := range page.Items {
				seen[it.ID[0]] = run
			}
			note += page.Note
			if page.Done {
				break
			}
		}
		for _, c := range l.claims {
			switch {
			case !c.since.Before(began) || seen[c.id] == run:
				missed[c.id] = 0
			case missed[c.id] > 0:
				t.Fatalf("run %d and the one before did not show %s: %s", run, c.id, cursor)
			default:
				missed[c.id]++
				if note == "" {
					t.Errorf("run %d did not show %s, which was there all the time, and did not say so: %s", run, c.id, cursor)
				}
			}
		}
		time.Sleep(time.Minute)
	}
}

// TestClaimsShuffled: where every answer has another order no page fits the one
// before. The run ends all the same, says so, and in time everything is seen.
func TestClaimsShuffled(t *testing.T) {
	for _, n := range []int{8, 35} {
		synctest.Test(t, bubble(func(t *testing.T) {
			l := &claimLists{limit: 10, shuffle: rand.New(rand.NewPCG(1, 2))}
			l.add(n, false)
			l.add(n, true)
			rd := newReader(t, l.open(t, 3), wildberries.Claims, time.Time{}, 0)
			for range 20 {
				if requests, _ := rd.run(); requests > 3*3*5 {
					t.Errorf("a run of %d requests", requests)
				}
			}
			if len(rd.seen) != 2*n {
				t.Errorf("read %d of %d in 20 runs", len(rd.seen), 2*n)
			}
			if (n > 10) != (len(rd.notes) > 0) {
				t.Errorf("%d claims: notes %q", n, rd.notes)
			}
		}))
	}
}

// TestClaimsBackfill: the same reading, whatever the other walk has seen.
func TestClaimsBackfill(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		l := &claimLists{limit: 10}
		l.add(25, false)
		l.add(12, true)
		rd := newReader(t, l.open(t, 3), wildberries.Claims, time.Now(), 0)
		rd.query.Walk = sources.Backfill
		rd.run()
		if len(rd.seen) != 37 {
			t.Errorf("read %d of 37", len(rd.seen))
		}
	}))
}

func TestClaimTimes(t *testing.T) {
	for value, want := range map[string]string{
		`"2025-03-26T17:06:12.245611"`:       "2025-03-26T14:06:12.245611Z",
		`"2025-03-26T17:06:12"`:              "2025-03-26T14:06:12Z",
		`"2025-03-26 17:06:12.5"`:            "2025-03-26T14:06:12.5Z",
		`"2025-03-26T17:06:12.245611+03:00"`: "2025-03-26T14:06:12.245611Z",
		`"2025-03-26T17:06:12Z"`:             "2025-03-26T17:06:12Z",
		`"2025-01-01T01:00:00"`:              "2024-12-31T22:00:00Z",
		`"2200-01-01T01:00:00"`:              "", `"0001-01-01T00:00:00"`: "", `"26.03.2025"`: "", `1742997972`: "", `null`: "", `{}`: "",
	} {
		synctest.Test(t, bubble(func(t *testing.T) {
			api := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprintf(w, `{"claims":[{"id":"fe3e9337-e9f9-423c-8930-946a8ebef80","dt":%s,"dt_update":%s}],"total":1}`, value, value)
			})
			page := newReader(t, open(t, &direct{handler: api}, token(3)), wildberries.Claims, time.Time{}, 0).fetch()
			it := page.Items[0]
			for _, at := range []time.Time{it.Created, it.Changed} {
				if got := at.Format(time.RFC3339Nano); at.IsZero() != (want == "") || want != "" && got != want || at.Location() != time.UTC {
					t.Errorf("%s is taken for %s, expected %s", value, got, want)
				}
			}
			if it.Kind != "claim" || !slices.Equal(it.Subject, []string{"claim", "fe3e9337-e9f9-423c-8930-946a8ebef80"}) || it.Immutable {
				t.Errorf("item %+v", it)
			}
		}))
	}
}

// TestClaimsCursorIsSmall: it is saved with every page, and must not grow with the
// list.
func TestClaimsCursorIsSmall(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		l := &claimLists{}
		l.add(3000, false)
		rd := newReader(t, l.open(t, 3), wildberries.Claims, time.Time{}, 0)
		rd.check = func(p sources.Page) {
			if len(p.Cursor) > 600 || !json.Valid(p.Cursor) {
				t.Fatalf("a cursor of %d bytes: %s", len(p.Cursor), p.Cursor)
			}
		}
		rd.run()
	}))
}
