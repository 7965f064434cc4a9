package yandexmarket_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/sourcetest"
	"syncd/internal/sources/yandexmarket"
)

func TestReturnsContract(t *testing.T) {
	var behindDiscovery sources.Cursor
	synctest.Test(t, bubble(func(t *testing.T) {
		w := newWalker(t, openStores(t, newMarket(t, 21000001)), sources.News)
		if _, err := w.fetch(); err != nil {
			t.Fatal(err)
		}
		// Tried for the last time in the run, so that what fails it says.
		behindDiscovery = bytes.Replace(w.cursor, []byte(`"id":21000001`), []byte(`"id":21000001,"again":{"tries":5}`), 1)
	}))
	sourcetest.Run(t, sourcetest.Stream{
		Name: yandexmarket.Returns, Secret: apiKey, Header: "Api-Key", Needed: []string{"id"},
		Open: func(t testing.TB, tr http.RoundTripper) sources.Source { return firm{openStores(t, tr)} },
		Query: func(q *sources.Query) {
			if q.Since = q.Now; q.Cursor == nil {
				q.Cursor = behindDiscovery
			}
		},
		List: func(items ...string) string { return page("returns", items, "") },
		Item: func(n int) string {
			at := sourcetest.Epoch.Add(-time.Duration(n) * time.Minute)
			return strings.Replace((&goods{id: n, created: at, updated: at}).json(), " ", "", -1)
		},
	})
}

// firm makes errors of what a run goes on without.
type firm struct{ sources.Source }

func (f firm) Fetch(ctx context.Context, q sources.Query) (sources.Page, error) {
	p, err := f.Source.Fetch(ctx, q)
	if err == nil && p.Failed != nil {
		return sources.Page{}, p.Failed
	}
	return p, err
}

// TestReturnsItems: identity, times, and a body as it came.
func TestReturnsItems(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		m := newMarket(t, 7)
		g := m.add(7, time.Now().Add(-time.Hour), time.Now().Add(-time.Minute))
		w := newWalker(t, openStores(t, m), sources.News)
		w.run()
		if len(w.items) != 1 {
			t.Fatalf("%d items", len(w.items))
		}
		it := w.items[0]
		if it.Kind != "return" || !slices.Equal(it.ID, []string{"7", "1"}) || !slices.Equal(it.Subject, []string{"return", "7", "1"}) ||
			!it.Created.Equal(g.created) || !it.Changed.Equal(g.updated) || string(it.Body) != g.json() {
			t.Errorf("got %+v\n%s", it, it.Body)
		}
		if !strings.HasPrefix(w.plan, "1 store: 1 request a run, of 4999 an hour for each store") {
			t.Errorf("plan %q", w.plan)
		}
	}))
}

// TestReturnsPlan names the limit that the marketplace says, not the documented one.
func TestReturnsPlan(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		m := newMarket(t, 7, 8)
		tr := roundTrip(func(r *http.Request) (*http.Response, error) {
			resp, err := m.RoundTrip(r)
			if err == nil && strings.Contains(r.URL.Path, "/8/") {
				resp.Header.Set("X-RateLimit-Resource-Limit", "700")
			}
			return resp, err
		})
		w := newWalker(t, openStores(t, tr), sources.News)
		w.run()
		if !strings.HasPrefix(w.plan, "2 stores: 2 requests a run, of 699 an hour for each store") {
			t.Errorf("plan %q", w.plan)
		}
	}))
}

// TestReturnsDays: whatever zone the days are of, and whether the ends of a window
// are in it or not, a run shows all that was updated since the last one began, and
// the overlap before that.
func TestReturnsDays(t *testing.T) {
	for offset := -12; offset <= 14; offset++ {
		for _, exclusive := range []bool{false, true} {
			synctest.Test(t, bubble(func(t *testing.T) {
				time.Sleep(time.Duration(rand.IntN(24)) * time.Hour)
				m := newMarket(t, 7)
				m.zone, m.exclusive = time.FixedZone("", offset*60*60), exclusive
				w := newWalker(t, openStores(t, m), sources.News)
				w.run()
				began := time.Now()
				time.Sleep(5 * time.Hour)
				for at := began.Add(-day); !at.After(time.Now()); at = at.Add(time.Hour) {
					m.add(7, at, at)
				}
				late := m.ids
				w.run()
				if len(w.seen) != late {
					t.Errorf("UTC%+d, exclusive %v: %d of %d were seen", offset, exclusive, len(w.seen), late)
				}
			}))
		}
	}
}

// TestReturnsFirstReading: what was there before is read, as far back as start says
// and at least as far as changes may be expected; from the beginning on, until a year
// is empty.
func TestReturnsFirstReading(t *testing.T) {
	for name, tt := range map[string]struct {
		since time.Duration // before now
		seen  []int         // days before now
		not   []int
	}{
		"now":        {time.Minute, []int{0, 29, 30, 31, 58, 59, 60}, []int{70, 200}},
		"100 days":   {100 * day, []int{0, 29, 30, 31, 58, 59, 60, 88, 99, 100}, []int{110, 200}},
		"everything": {0, []int{0, 29, 30, 31, 58, 59, 60, 88, 100, 200, 560, 900}, []int{1400}},
	} {
		for _, exclusive := range []bool{false, true} {
			synctest.Test(t, bubble(func(t *testing.T) {
				m := newMarket(t, 7)
				m.exclusive = exclusive
				w := newWalker(t, openStores(t, m), sources.News)
				if w.query.Since = time.Now().Add(-tt.since); tt.since == 0 {
					w.query.Since = time.Time{}
				}
				expected := make(map[string]bool)
				for _, d := range tt.seen {
					g := m.add(7, time.Now().Add(-time.Duration(d)*day), time.Now().Add(-time.Duration(d)*day))
					expected[fmt.Sprintf("7/%d", g.id)] = true
				}
				for _, d := range tt.not {
					m.add(7, time.Now().Add(-time.Duration(d)*day), time.Now().Add(-time.Duration(d)*day))
				}
				p := w.run()
				for p.Partial {
					if !p.History || w.err != nil {
						t.Fatalf("%s: it does not go on: %+v, %v", name, p, w.err)
					}
					time.Sleep(5 * time.Minute)
					p = w.run()
				}
				for id := range expected {
					if w.seen[id] == 0 {
						t.Errorf("%s: %s was not seen", name, id)
					}
				}
				if len(w.seen) != len(expected) {
					t.Errorf("%s: %d were seen, expected %d", name, len(w.seen), len(expected))
				}
				if w.run(); len(w.pages) != 1 {
					t.Errorf("%s: %d pages of a store at rest", name, len(w.pages))
				}
			}))
		}
	}
}

// TestReturnsNewsDoNotWaitForHistory: while years are read, by pages of which each
// takes seconds, what is new comes in time.
func TestReturnsNewsDoNotWaitForHistory(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		m := newMarket(t, 7, 8)
		m.size, m.delay = 2, 4*time.Second
		start := time.Now()
		for i := range 1000 {
			m.add(7+i%2, start.Add(-time.Duration(i)*day), start.Add(-time.Duration(i)*day))
		}
		w := newWalker(t, openStores(t, m), sources.News)
		w.query.Since = time.Time{}
		worst, runs := time.Duration(0), 0
		var g *goods
		for p := (sources.Page{Partial: true}); p.Partial; runs++ {
			began := time.Now()
			if p = w.run(); g != nil && !w.has(7, g) {
				t.Fatal("a new return was not seen")
			}
			if g != nil {
				worst = max(worst, time.Since(g.created))
			}
			for _, page := range w.pages {
				for _, it := range page.Items {
					if page.History != it.Created.Before(start.Add(-30*day)) && it.Created.Before(start.Add(-32*day)) {
						t.Errorf("history is %v for an item of %s", page.History, it.Created)
					}
				}
			}
			if runs > 0 {
				g = m.add(7, time.Now(), time.Now())
			}
			time.Sleep(max(0, 5*time.Minute-time.Since(began)))
		}
		if worst > 10*time.Minute || runs < 5 || len(w.seen) < 1000 {
			t.Errorf("%d runs, %d items, late by up to %s", runs, len(w.seen), worst)
		}
	}))
}

// TestReturnsMove: a list that moves while it is read costs nothing but time: any
// version that stayed for two runs was read.
func TestReturnsMove(t *testing.T) {
	for seed := range uint64(6) {
		synctest.Test(t, bubble(func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			m := newMarket(t, 7, 8)
			m.size = 3
			orders := []func(a, b *goods) int{
				func(a, b *goods) int { return a.updated.Compare(b.updated) },
				func(a, b *goods) int { return b.updated.Compare(a.updated) },
				func(a, b *goods) int { return cmp.Compare(a.id*7919%101, b.id*7919%101) },
			}
			m.order = orders[seed%3]
			all := make(map[*goods]int)
			for range 40 {
				store := 7 + r.IntN(2)
				all[m.add(store, time.Now().Add(-time.Hour), time.Now().Add(-time.Duration(r.IntN(100))*time.Hour))] = store
			}
			stood := make(map[*goods]int) // runs that began and ended with the version
			m.served = func(call) {
				for g := range all {
					if r.IntN(10*len(all)) == 0 {
						g.change()
						stood[g] = -1
					}
				}
				if r.IntN(20) == 0 {
					store := 7 + r.IntN(2)
					g := m.add(store, time.Now(), time.Now())
					all[g], stood[g] = store, -1
				}
				time.Sleep(time.Duration(r.IntN(3)) * time.Second)
			}
			w := newWalker(t, openStores(t, m), sources.News)
			for range 12 {
				for g := range all {
					stood[g] = max(stood[g], 0)
				}
				w.run()
				for g, store := range all {
					if stood[g]++; stood[g] >= 2 && !w.has(store, g) {
						t.Fatalf("seed %d: version %d of %d/%d was there for %d runs, and not read", seed, g.version, store, g.id, stood[g])
					}
				}
				time.Sleep(5 * time.Minute)
			}
		}))
	}
}

// TestReturnsMoveEachTime: in each run, just when the first page was shown, a return
// leaves it, and the first one of the second page moves to where nobody looks any
// more.
func TestReturnsMoveEachTime(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		m := newMarket(t, 7)
		m.size = 2
		m.order = func(a, b *goods) int { return a.updated.Compare(b.updated) }
		var all []*goods
		for i := range 5 {
			all = append(all, m.add(7, time.Now(), time.Now().Add(time.Duration(i-10)*time.Minute)))
		}
		moved := false
		m.served = func(c call) {
			if !moved && c.token == "" {
				moved = true
				all[0].change()
			}
		}
		w := newWalker(t, openStores(t, m), sources.News)
		w.run()
		for _, g := range all {
			if !w.has(7, g) {
				t.Errorf("%d was not read", g.id)
			}
		}
	}))
}

// TestReturnsBadPageToken: the scan begins anew, and nothing is lost.
func TestReturnsBadPageToken(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		m := newMarket(t, 7)
		m.size = 2
		for range 9 {
			m.add(7, time.Now(), time.Now())
		}
		n := 0
		m.outlets[0].refuse = func(c call) (int, string) {
			if n++; n == 4 {
				return 400, failure("BAD_REQUEST", "Bad page token")
			}
			return 0, ""
		}
		w := newWalker(t, openStores(t, m), sources.News)
		if w.run(); w.err != nil || len(w.failed) > 0 || len(w.seen) != 9 {
			t.Errorf("%d seen, %v, %v", len(w.seen), w.failed, w.err)
		}
		// Four, five anew, five to see whether they show the same, two for the past.
		if n != 4+5+5+2 {
			t.Errorf("%d requests", n)
		}
	}))
}

// TestReturnsRefused: what is about the key fails the stream; what is about one store
// fails that alone, is said with its id, and costs nothing when it is over.
func TestReturnsRefused(t *testing.T) {
	for _, tt := range []struct {
		status int
		text   string
		whole  sources.Kind
	}{
		{401, "Api-Key token is invalid", sources.Unauthorized},
		{403, "Token does not have any of the scopes to access the API method", sources.Forbidden},
		{403, "API for business '900001' disabled because it has only disabled partners", sources.Forbidden},
		{403, "The method is not supported for Market Yandex Go sellers", sources.Forbidden},
		{403, "API for campaign '8' disabled due to inactivity", ""},
		{403, "Access denied", ""},
		{403, "The method is deprecated and is occasionally forbidden. Please stop using it", ""},
		{404, "Campaign not found", ""},
		{423, "Campaign is in business migration", ""},
		{500, "Internal", ""},
		{503, "Service temporarily unavailable. Please, try again later", ""},
		{200, "", ""},
	} {
		synctest.Test(t, bubble(func(t *testing.T) {
			m := newMarket(t, 7, 8, 9)
			w := newWalker(t, openStores(t, m), sources.News)
			w.run()
			time.Sleep(5 * time.Minute)
			var added []*goods
			for store := 7; store <= 9; store++ {
				added = append(added, m.add(store, time.Now(), time.Now()))
			}
			m.outlets[1].refuse = func(call) (int, string) { return tt.status, failure("X", tt.text) }
			if p := w.run(); tt.whole != "" {
				if w.err == nil || w.err.Kind != tt.whole {
					t.Errorf("%d %s: got %v", tt.status, tt.text, w.err)
				}
			} else if w.err != nil || len(w.failed) != 1 || !strings.Contains(w.failed[0], "store 8: ") || !p.Partial || p.History || !w.has(9, added[2]) {
				t.Errorf("%d %s: got %v, failed %v, last %+v", tt.status, tt.text, w.err, w.failed, p)
			}
			time.Sleep(40 * day)
			m.outlets[1].refuse = nil
			if p := w.run(); w.err != nil || p.Partial {
				t.Errorf("%d %s: it is over, and got %v, %+v", tt.status, tt.text, w.err, p)
			}
			for i, g := range added {
				if !w.has(7+i, g) {
					t.Errorf("%d %s: the return of store %d is lost", tt.status, tt.text, 7+i)
				}
			}
		}))
	}
}

// TestReturnsNoNetwork is about no store.
func TestReturnsNoNetwork(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		n := sourcetest.NewNetwork(t)
		m := newMarket(t, 7, 8)
		var down bool
		tr := roundTrip(func(r *http.Request) (*http.Response, error) {
			if down {
				return n.Transport(t).RoundTrip(r)
			}
			return m.RoundTrip(r)
		})
		w := newWalker(t, openStores(t, tr), sources.News)
		w.run()
		down = true
		_ = n.Close()
		time.Sleep(time.Minute)
		if w.run(); w.err == nil || w.err.Kind != sources.Temporary || !w.err.Unsent {
			t.Errorf("got %+v", w.err)
		}
	}))
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
