package yandexmarket_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
)

// polled makes runs every five minutes, as the schedule does, and returns how late the
// returns were that came to healthy stores, one in each of them a minute.
func (w *walker) polled(m *market, runs int, healthy ...int) (worst time.Duration) {
	w.t.Helper()
	waiting := make(map[*goods]int)
	came := time.Now()
	come := func() {
		for ; time.Since(came) >= time.Minute; came = came.Add(time.Minute) {
			for _, store := range healthy {
				waiting[m.add(store, came, came)] = store
			}
		}
	}
	for range runs {
		began := time.Now()
		p := sources.Page{}
		w.failed, w.pages = nil, nil
		for !p.Done {
			come()
			var err error
			if p, err = w.fetch(); err != nil {
				w.t.Fatal(err)
			}
			w.take(p)
			for g, store := range waiting {
				if w.has(store, g) {
					worst = max(worst, time.Since(g.created))
					delete(waiting, g)
				}
			}
		}
		for time.Since(began) < 5*time.Minute {
			time.Sleep(time.Minute)
			come()
		}
	}
	return worst
}

// TestStoreThatHangs: for 10 s on every request, or for longer than anybody waits, it
// does not make the returns of nine others late, nor does one that never comes to the
// end of its pages.
func TestStoreThatHangs(t *testing.T) {
	for name, refuse := range map[string]func(call) (int, string){
		"10 s and an error": func(call) (int, string) {
			time.Sleep(10 * time.Second)
			return 500, failure("X", "timeout")
		},
		"no answer": func(call) (int, string) {
			time.Sleep(30 * time.Second)
			return 500, failure("X", "timeout")
		},
		"10 s a page": func(call) (int, string) {
			time.Sleep(10 * time.Second)
			return 0, ""
		},
	} {
		synctest.Test(t, bubble(func(t *testing.T) {
			healthy := []int{1, 2, 3, 4, 6, 7, 8, 9, 10}
			m := newMarket(t, append(healthy, 5)...)
			m.outlets[9].refuse = refuse
			m.size = 10
			for range 1000 {
				m.add(5, time.Now(), time.Now())
			}
			w := newWalker(t, openStores(t, m), sources.News)
			if worst := w.polled(m, 12, healthy...); worst > 10*time.Minute {
				t.Errorf("%s: others were late by %s", name, worst)
			}
		}))
	}
}

// TestStoreFailsByChance: as long as it fails now and then only, its returns are never
// late for that, the run is a whole one, and nothing is said of it; nor do the others
// wait for it. One that is down is said to be, once a run.
func TestStoreFailsByChance(t *testing.T) {
	for _, stores := range [][]int{{1}, {1, 2, 3}} {
		synctest.Test(t, bubble(func(t *testing.T) {
			m := newMarket(t, stores...)
			r := rand.New(rand.NewPCG(1, 1))
			n := 0
			m.outlets[0].refuse = func(call) (int, string) {
				switch n++; {
				case r.IntN(10) > 2:
					return 0, ""
				case n%2 == 0:
					return 200, "<html>"
				}
				return 500, failure("X", "by chance")
			}
			w := newWalker(t, openStores(t, m), sources.News)
			if worst := w.polled(m, 60, stores...); worst > 10*time.Minute {
				t.Errorf("%d stores: late by %s", len(stores), worst)
			}
			m.outlets[0].refuse = func(call) (int, string) { return 200, "<html>" }
			w.failed, n = nil, 0
			for range 3 {
				if p := w.run(); !p.Partial {
					t.Errorf("last page %+v", p)
				}
				if len(stores) > 1 && len(w.failed) != 1 || !strings.Contains(w.failed[0], "store 1: ") {
					t.Errorf("failed %q", w.failed)
				}
				w.failed = nil
				time.Sleep(5 * time.Minute)
			}
			// It works at the last moment.
			m.outlets[0].refuse = func(call) (int, string) {
				if n++; n < 6 {
					return 503, ""
				}
				return 0, ""
			}
			g := m.add(1, time.Now(), time.Now())
			if p := w.run(); p.Partial || len(w.failed) > 0 || !w.has(1, g) {
				t.Errorf("%+v, failed %q", p, w.failed)
			}
		}))
	}
}

// TestManyStoresHang: most of them, and still each is tried.
func TestManyStoresHang(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		var healthy []int
		m := newMarket(t)
		tried := make(map[string]int)
		for i := range 50 {
			m.outlets = append(m.outlets, &outlet{id: i + 1, state: "AVAILABLE"})
			if i%5 == 0 {
				healthy = append(healthy, i+1)
				continue
			}
			m.outlets[i].refuse = func(c call) (int, string) {
				tried[c.campaign]++
				time.Sleep(19 * time.Second)
				return 503, failure("X", "")
			}
		}
		w := newWalker(t, openStores(t, m), sources.News)
		w.polled(m, 2) // one run finds out
		clear(tried)
		if worst := w.polled(m, 20, healthy...); worst > 10*time.Minute {
			t.Errorf("others were late by %s", worst)
		}
		if len(tried) != 40 {
			t.Errorf("%d stores were tried", len(tried))
		}
	}))
}

// TestInterruptedScan: a long list of which some page fails in every run is read to its
// end all the same, run by run, and then from its beginning for what has come.
func TestInterruptedScan(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		m := newMarket(t, 7, 8)
		m.size = 5
		n := 0
		m.outlets[0].refuse = func(call) (int, string) {
			if n++; n%7 == 0 {
				return 500, failure("X", "")
			}
			return 0, ""
		}
		for range 100 { // 20 pages
			m.add(7, time.Now(), time.Now())
		}
		w := newWalker(t, openStores(t, m), sources.News)
		for range 12 {
			w.run()
			time.Sleep(5 * time.Minute)
		}
		if w.err != nil || len(w.seen) != 100 {
			t.Errorf("%d of 100 were read, %v", len(w.seen), w.err)
		}
		// What changes on its first page, and moves nothing, while a reading waits to go on
		// in the middle, all pages of which had been read once.
		m.order = func(a, b *goods) int { return b.updated.Compare(a.updated) }
		g := m.add(7, time.Now(), time.Now())
		m.outlets[0].refuse = nil
		w.run()
		n = 0
		m.outlets[0].refuse = func(call) (int, string) {
			if n++; n >= 30 {
				return 500, failure("X", "")
			}
			return 0, ""
		}
		if p := w.run(); !p.Partial {
			t.Error("no reading waits")
		}
		m.outlets[0].refuse = nil
		g.change()
		if w.run(); !w.has(7, g) {
			t.Error("what came while a list was read is not read in the run that ends it")
		}
	}))
}

// TestStoreWithoutBudget: a store whose hour is spent waits for the next one, and no
// other store with it.
func TestStoreWithoutBudget(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		m := newMarket(t, 7, 8, 9)
		w := newWalker(t, openStores(t, m), sources.News)
		w.run()
		time.Sleep(5 * time.Minute)
		asked := 0
		m.outlets[0].refuse = func(call) (int, string) {
			asked++
			return 420, failure("LIMIT", "Hit rate limit of '5000' requests per '1 hour' for resource 'returns' for campaign 7")
		}
		late := m.add(7, time.Now(), time.Now())
		hour := time.Now().Truncate(time.Hour)
		for time.Now().Truncate(time.Hour).Equal(hour) {
			began := time.Now()
			g := m.add(9, time.Now(), time.Now())
			w.failed = nil
			if p := w.run(); !w.has(9, g) || !p.Partial || len(w.failed) != 1 || !strings.Contains(w.failed[0], "store 7") {
				t.Fatalf("last page %+v, failed %q", p, w.failed)
			}
			if d := time.Since(began); d > time.Minute {
				t.Fatalf("the others waited for %s", d)
			}
			time.Sleep(5 * time.Minute)
		}
		if asked != 1 {
			t.Errorf("store 7 was asked %d times in an hour that was spent", asked)
		}
		m.outlets[0].refuse = nil
		time.Sleep(15 * time.Minute)
		if p := w.run(); p.Partial || !w.has(7, late) {
			t.Errorf("last page %+v, %v", p, w.err)
		}
	}))
}

// TestBackfillOfStores goes back to where it was asked to, through windows; a store
// that is refused is left out and said, one that fails is tried until it works.
func TestBackfillOfStores(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		m := newMarket(t, 7, 8, 9)
		for d := range 300 {
			at := time.Now().Add(-time.Duration(d) * day)
			for store := 7; store <= 9; store++ {
				m.add(store, at, at)
			}
		}
		m.outlets[1].refuse = func(call) (int, string) { return 404, failure("NOT_FOUND", "Campaign not found") }
		fails := 0
		m.outlets[0].refuse = func(call) (int, string) {
			if fails++; fails <= 4 {
				return 500, failure("X", "")
			}
			return 0, ""
		}
		w := newWalker(t, openStores(t, m), sources.Backfill)
		w.query.Since = time.Now().Add(-200 * day)
		errs := 0
		for w.run(); w.err != nil; w.run() {
			if errs++; errs > 10 {
				t.Fatal(w.err)
			}
			if w.err.Kind != sources.Temporary {
				t.Fatal(w.err)
			}
			time.Sleep(time.Minute)
		}
		if errs != 3 || len(w.failed) != 2 {
			t.Errorf("%d errors, failed %q", errs, w.failed)
		}
		for d := range 300 {
			for i, store := range []int{7, 8, 9} {
				n := w.seen[fmt.Sprintf("%d/%d", store, 3*d+i+1)]
				if read := n > 0; read != (store != 8) && (d <= 199 || d > 203) && !(d > 203 && !read) {
					t.Errorf("store %d, %d days ago: read %d times", store, d, n)
				}
			}
		}
	}))
}

// TestFullGivesUp: a store that does not answer holds up the end of a Full run for an
// hour, and no longer.
func TestFullGivesUp(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		m := newMarket(t, 7, 8)
		m.outlets[0].refuse = func(call) (int, string) { return 500, failure("X", "") }
		g := m.add(8, time.Now().Add(-50*day), time.Now().Add(-50*day))
		w := newWalker(t, openStores(t, m), sources.Full)
		w.query.Remembered = nil
		began := time.Now()
		p := w.run()
		if !w.has(8, g) {
			t.Error("store 8 was not read at once")
		}
		for w.err != nil {
			time.Sleep(5 * time.Minute)
			p = w.run()
		}
		if d := time.Since(began); !p.Done || !p.Partial || d < time.Hour || d > 90*time.Minute {
			t.Errorf("after %s: %+v", d, p)
		}
	}))
}

// TestCrashInARun: whatever cursor was saved last, the next process loses nothing.
func TestCrashInARun(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		m := newMarket(t, 7, 8, 9)
		m.size = 2
		w := newWalker(t, openStores(t, m), sources.News)
		w.run()
		for crash := range 14 {
			time.Sleep(5 * time.Minute)
			var added []*goods
			for store := 7; store <= 9; store++ {
				added = append(added, m.add(store, time.Now(), time.Now()))
			}
			saved := w.cursor
			for i := range crash {
				if p, err := w.fetch(); err != nil {
					t.Fatal(err)
				} else if w.take(p); i%3 == 1 {
					saved = w.cursor
				}
			}
			w.cursor, w.source, w.bodies = saved, openStores(t, m), make(map[string]bool)
			w.run() // the rest of that run, and one that began after it
			w.run()
			for i, g := range added {
				if !w.has(7+i, g) {
					t.Errorf("crash behind page %d: the return of store %d was not read", crash, 7+i)
				}
			}
		}
	}))
}

// TestClocksApart: a clock that is wrong by days, in either direction and however that
// changes, loses nothing.
func TestClocksApart(t *testing.T) {
	for _, wrong := range []time.Duration{-400 * day, -10 * day, -3 * day, -time.Hour, time.Hour, 3 * day, 400 * day} {
		synctest.Test(t, bubble(func(t *testing.T) {
			m := newMarket(t, 7)
			w := newWalker(t, openStores(t, m), sources.News)
			shift := time.Duration(0)
			poll := func() {
				for {
					q := w.query
					q.Cursor, q.Now = w.cursor, time.Now().Add(shift)
					p, err := w.source.Fetch(t.Context(), q)
					if err != nil {
						t.Fatal(err)
					}
					w.cursor = p.Cursor
					if w.take(p); p.Done {
						return
					}
				}
			}
			for _, off := range []time.Duration{0, wrong, wrong, 0, 0} {
				shift = off
				for range 3 {
					g := m.add(7, time.Now(), time.Now())
					if poll(); !w.has(7, g) {
						t.Errorf("our clock is off by %s: a return was not read", off)
					}
					time.Sleep(5 * time.Hour)
				}
			}
		}))
	}
}

// TestNoStoreRead: a run in which no store could be read says so on its last page, and
// one in which some could does not.
func TestNoStoreRead(t *testing.T) {
	for failing, want := range map[int]bool{0: false, 1: false, 2: true} {
		synctest.Test(t, bubble(func(t *testing.T) {
			m := newMarket(t, 1, 2)
			for i := range failing {
				m.outlets[i].refuse = func(call) (int, string) { return 500, failure("X", "down") }
			}
			w := newWalker(t, openStores(t, m), sources.News)
			for p := (sources.Page{}); !p.Done; {
				var err error
				if p, err = w.fetch(); err != nil {
					t.Fatal(err)
				}
				if w.take(p); p.Done && (p.Failed != nil) != want {
					t.Errorf("%d of 2 stores fail: the last page says %v", failing, p.Failed)
				}
			}
		}))
	}
}
