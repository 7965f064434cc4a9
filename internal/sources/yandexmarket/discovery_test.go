package yandexmarket_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/yandexmarket"
)

// readStores are the stores of which returns were asked for since it was called last,
// and how often the list of stores was.
func (m *market) readStores() (stores []string, discoveries int) {
	for _, c := range m.took() {
		switch {
		case c.method == "GET /v2/campaigns":
			discoveries++
		case !slices.Contains(stores, c.campaign):
			stores = append(stores, c.campaign)
		}
	}
	slices.Sort(stores)
	return stores, discoveries
}

// TestDiscoveryHourly: as often, and no oftener; several pages of it.
func TestDiscoveryHourly(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		m := newMarket(t)
		for i := range 120 {
			m.outlets = append(m.outlets, &outlet{id: 1000 + i, state: "AVAILABLE"})
		}
		w := newWalker(t, openStores(t, m), sources.News)
		discoveries := 0
		for range 24 {
			w.run()
			stores, n := m.readStores()
			if discoveries += n; len(stores) != 120 {
				t.Fatalf("%d stores were read", len(stores))
			}
			time.Sleep(5 * time.Minute)
		}
		if discoveries != 2*2 {
			t.Errorf("%d pages of the list in two hours, expected 4", discoveries)
		}
	}))
}

// TestDisabledStore: it costs no request, is looked at again, and when it comes back
// after days nothing is lost that happened meanwhile.
func TestDisabledStore(t *testing.T) {
	words := map[string]string{"disabled": "(switched off, since nothing was on offer for 90 days)", "not shown": "(not shown to the key)"}
	for name, set := range map[string]func(o *outlet, off bool){
		"disabled": func(o *outlet, off bool) {
			if o.state = "AVAILABLE"; off {
				o.state = "DISABLED_BY_INACTIVITY"
			}
		},
		"not shown": func(o *outlet, off bool) { o.hidden = off },
	} {
		synctest.Test(t, bubble(func(t *testing.T) {
			m := newMarket(t, 7, 8)
			w := newWalker(t, openStores(t, m), sources.News)
			w.run()
			set(m.outlets[1], true)
			var late []*goods
			for d := range 45 {
				time.Sleep(day)
				late = append(late, m.add(8, time.Now(), time.Now()))
				m.took()
				w.run()
				if stores, n := m.readStores(); d > 0 && (!slices.Equal(stores, []string{"7"}) || n != 1) {
					t.Fatalf("%s: day %d: read %v, discovered %d times", name, d, stores, n)
				}
			}
			set(m.outlets[1], false)
			time.Sleep(time.Hour)
			if !strings.HasPrefix(w.plan, "1 store: 1 request a run, of 4999 an hour for each store; not read: 8 (") || !strings.Contains(w.plan, words[name]) {
				t.Errorf("%s: the plan is %q", name, w.plan)
			}
			if p := w.run(); p.Partial || len(w.failed) > 0 {
				t.Errorf("%s: %+v, failed %v", name, p, w.failed)
			}
			if strings.Contains(w.plan, "not read") {
				t.Errorf("%s: the plan is %q", name, w.plan)
			}
			for _, g := range late {
				if !w.has(8, g) || w.old[fmt.Sprintf("8/%d", g.id)] {
					t.Errorf("%s: what store 8 got on %s is lost, or old", name, g.created)
				}
			}
		}))
	}
}

// TestUnknownAvailability counts as available.
func TestUnknownAvailability(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		m := newMarket(t, 7)
		m.outlets[0].state = "AVAILABLE_MORE_OR_LESS"
		m.outlets[0].refuse = func(call) (int, string) { return 200, page("returns", nil, "") }
		w := newWalker(t, openStores(t, m), sources.News)
		w.run()
		if stores, _ := m.readStores(); len(stores) != 1 {
			t.Errorf("read %v", stores)
		}
	}))
}

// TestStoreDiscoveredLater starts at its discovery: what was there before is recorded
// silently, also where it shows later, and what comes then is news.
func TestStoreDiscoveredLater(t *testing.T) {
	for _, since := range []time.Duration{0, time.Minute} {
		synctest.Test(t, bubble(func(t *testing.T) {
			m := newMarket(t, 7)
			w := newWalker(t, openStores(t, m), sources.News)
			if w.query.Since = time.Now().Add(-since); since == 0 {
				w.query.Since = time.Time{}
			}
			w.run()
			if !w.known["7"] {
				t.Error("store 7 is not known to have been read")
			}
			time.Sleep(3 * day)
			m.outlets = append(m.outlets, &outlet{id: 8, state: "AVAILABLE"})
			old := []*goods{m.add(8, time.Now().Add(-time.Hour), time.Now()), m.add(8, time.Now().Add(-50*day), time.Now().Add(-40*day)), m.add(8, time.Now().Add(-time.Second), time.Now())}
			other := m.add(7, time.Now().Add(-time.Hour), time.Now())
			w.run()
			time.Sleep(5 * time.Minute)
			news := m.add(8, time.Now(), time.Now())
			late := m.add(8, time.Now().Add(-time.Hour), time.Now())
			w.run()
			for _, g := range append(old, late) {
				if is, seen := w.old[fmt.Sprintf("8/%d", g.id)]; !seen || !is {
					t.Errorf("since %s: of %s: seen %v, old %v", since, g.created, seen, is)
				}
			}
			for store, g := range map[int]*goods{7: other, 8: news} {
				if is, seen := w.old[fmt.Sprintf("%d/%d", store, g.id)]; !seen || is {
					t.Errorf("since %s: news of store %d: seen %v, old %v", since, store, seen, is)
				}
			}
			if !w.known["8"] {
				t.Error("store 8 is not known to have been read")
			}
		}))
	}
}

// TestFullLeavesNewStores to News, which alone knows what is old there.
func TestFullLeavesNewStores(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		m := newMarket(t, 7, 8)
		g := m.add(7, time.Now().Add(-50*day), time.Now().Add(-50*day))
		m.add(8, time.Now(), time.Now())
		full := newWalker(t, openStores(t, m), sources.Full)
		full.query.Remembered = func(stream, id string) (sources.Visit, bool, error) {
			return sources.Visit{ID: id}, id == "7", nil
		}
		g.version++ // its update date does not move
		if p := full.run(); !p.Partial || !full.has(7, g) || len(full.seen) != 1 {
			t.Errorf("last page %+v, read %v", p, full.seen)
		}
		full.query.Remembered = func(stream, id string) (sources.Visit, bool, error) { return sources.Visit{}, true, nil }
		time.Sleep(day)
		if p := full.run(); p.Partial || len(full.seen) != 2 {
			t.Errorf("last page %+v, read %v", p, full.seen)
		}
	}))
}

// TestDiscoveryFails: the stores that are known are read all the same, whatever it
// fails with; with none that are known there is nothing to do.
func TestDiscoveryFails(t *testing.T) {
	for _, status := range []int{403, 404, 420, 500, 200} {
		synctest.Test(t, bubble(func(t *testing.T) {
			m := newMarket(t, 7, 8)
			fails := func(call) (int, string) {
				return status, failure("X", "Hit rate limit of '1000' requests per '1 hour'")
			}
			m.campaigns = fails
			w := newWalker(t, openStores(t, m), sources.News)
			if w.run(); w.err == nil {
				t.Errorf("%d: no error, though no store is known", status)
			}
			m.campaigns = nil
			time.Sleep(2 * time.Hour)
			w.run()
			m.campaigns = fails
			time.Sleep(2 * time.Hour)
			g := m.add(8, time.Now(), time.Now())
			if p := w.run(); w.err != nil || !w.has(8, g) || !p.Partial || len(w.failed) != 1 {
				t.Errorf("%d: %v, last page %+v, failed %q", status, w.err, p, w.failed)
			}
		}))
	}
}

// TestFirstDiscoveryBreaksOff: stores that only the next one shows are no later than
// those that it showed.
func TestFirstDiscoveryBreaksOff(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		m := newMarket(t)
		for i := range 150 {
			m.outlets = append(m.outlets, &outlet{id: 1000 + i, state: "AVAILABLE"})
		}
		m.campaigns = func(c call) (int, string) {
			if c.token != "" {
				return 500, failure("X", "")
			}
			return 0, ""
		}
		w := newWalker(t, openStores(t, m), sources.News)
		w.run()
		g := m.add(1140, time.Now(), time.Now())
		m.campaigns = nil
		time.Sleep(5 * time.Minute)
		w.run()
		if is, seen := w.old[fmt.Sprintf("1140/%d", g.id)]; !seen || is {
			t.Errorf("seen %v, old %v", seen, is)
		}
	}))
}

// TestAnotherBusiness: stores of others are left out; a key that shows no other ones is
// that of another seller.
func TestAnotherBusiness(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		m := newMarket(t, 7, 8)
		m.outlets[1].owner = 555
		w := newWalker(t, openStores(t, m), sources.News)
		w.run()
		if stores, _ := m.readStores(); !slices.Equal(stores, []string{"7"}) {
			t.Errorf("read %v", stores)
		}
		m.outlets[0].owner = 555
		for _, campaigns := range [][]int64{nil, {7}} {
			w = newWalker(t, openStores(t, m, campaigns...), sources.News)
			w.run()
			if e := w.err; e == nil || e.Kind != sources.Forbidden || e.Scope != sources.ScopeGroup || !strings.Contains(e.Error()+e.Hint, "555") || !strings.Contains(e.Error()+e.Hint, "900001") {
				t.Errorf("got %+v", e)
			}
			if stores, _ := m.readStores(); len(stores) != 0 {
				t.Errorf("read %v", stores)
			}
		}
	}))
}

// TestConfiguredStores alone are read, also such as the list does not show, which is
// said. Whether they are available is known from the list.
func TestConfiguredStores(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		m := newMarket(t, 7, 8, 9, 10)
		m.outlets[1].state = "MANUALLY_DISABLED"
		m.outlets[2].hidden = true
		g := m.add(9, time.Now(), time.Now())
		w := newWalker(t, openStores(t, m, 7, 8, 9), sources.News)
		w.run()
		if stores, _ := m.readStores(); !slices.Equal(stores, []string{"7", "9"}) || !w.has(9, g) {
			t.Errorf("read %v", stores)
		}
		if len(w.notes) != 1 || !strings.Contains(w.notes[0], "9") || strings.Contains(w.notes[0], "8") {
			t.Errorf("notes %q", w.notes)
		}
		if !strings.HasSuffix(w.plan, "; not read: 8 (switched off by hand)") {
			t.Errorf("the plan is %q", w.plan)
		}
		// One that leaves the configuration goes on where it was when it comes back.
		w.source = openStores(t, m, 7)
		for range 3 {
			time.Sleep(15 * day)
			w.run()
		}
		late := m.add(9, time.Now().Add(-44*day), time.Now().Add(-44*day))
		w.source = openStores(t, m, 7, 9, 10)
		w.run()
		time.Sleep(time.Hour)
		if w.run(); !w.has(9, late) {
			t.Error("a return of store 9 is lost")
		}
	}))
}

// TestConfiguredWithoutDiscovery: they are known from the configuration.
func TestConfiguredWithoutDiscovery(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		m := newMarket(t, 7)
		m.campaigns = func(call) (int, string) { return 403, failure("FORBIDDEN", "Access denied") }
		g := m.add(7, time.Now(), time.Now())
		w := newWalker(t, openStores(t, m, 7), sources.News)
		if p := w.run(); !w.has(7, g) || !p.Partial && !p.History {
			t.Errorf("last page %+v, failed %q", p, w.failed)
		}
	}))
}

// TestNoStores is said, and no error.
func TestNoStores(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		m := newMarket(t)
		w := newWalker(t, openStores(t, m), sources.News)
		if p := w.run(); !p.Done || len(w.notes) != 1 || p.Partial {
			t.Errorf("last page %+v, notes %q", p, w.notes)
		}
	}))
}

// TestAllStoresOff: that there is nothing to read is said, with the stores and why.
func TestAllStoresOff(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		m := newMarket(t)
		for i := range 30 {
			m.outlets = append(m.outlets, &outlet{id: 1 + i, state: "DISABLED_BY_NO_PLACEMENT_TYPE"})
		}
		w := newWalker(t, openStores(t, m), sources.News)
		w.run()
		const want = "1 (switched off for want of a placement), 2 ("
		if len(w.notes) != 1 || !strings.Contains(w.notes[0], want) || !strings.HasPrefix(w.plan, "not read: "+want) || !strings.HasSuffix(w.plan, ", 20 others") {
			t.Errorf("notes %q, plan %q", w.notes, w.plan)
		}
	}))
}

// TestTooManyStores: those beyond the bound are said to be left out.
func TestTooManyStores(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		m := newMarket(t)
		for i := range 2_001 {
			m.outlets = append(m.outlets, &outlet{id: 1 + i, state: "MANUALLY_DISABLED"})
		}
		w := newWalker(t, openStores(t, m), sources.News)
		w.run()
		if len(w.notes) == 0 || !strings.Contains(w.notes[0], "more than 2000 stores") || len(w.cursor) > 1<<18 {
			t.Errorf("notes %q, a cursor of %d bytes", w.notes, len(w.cursor))
		}
	}))
}

var _ sources.Source = (*yandexmarket.Client)(nil)
