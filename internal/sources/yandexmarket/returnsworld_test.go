package yandexmarket_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	box "syncd/internal/sandbox/yandexmarket"
	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/sourcetest"
	"syncd/internal/sources/yandexmarket"
)

// returnsWorld is a business of the simulated marketplace, which is another reading of
// the documents than this package's, and who polls its returns, with crashes.
type returnsWorld struct {
	t        *testing.T
	r        *rand.Rand
	market   *box.Market
	business *box.Business
	cfg      yandexmarket.Config
	ledger   memory
	source   *yandexmarket.Client
	crash    float64 // probability that a page is the last of its process
	start    time.Time
	cursor   sources.Cursor
	saved    sources.Cursor
	read     map[string]time.Time // versions, and when they were read for the first time
	runs     []ranFor
	notes    map[string]bool
}

// ranFor is a complete run.
type ranFor struct {
	began, ended time.Time
	whole        bool
}

func newReturnsWorld(t *testing.T, seed uint64, quirks box.Quirks, spec box.ReturnSpec) *returnsWorld {
	t.Helper()
	w := &returnsWorld{t: t, r: rand.New(rand.NewPCG(seed, 2)), ledger: make(memory), start: time.Now(), read: make(map[string]time.Time), notes: make(map[string]bool)}
	var err error
	w.market, err = box.New(box.Config{Seed: seed, Quirks: quirks, Businesses: []box.BusinessSpec{{ID: business, Stores: []box.StoreSpec{{}, {}, {}}, World: box.WorldSpec{Journal: true, Returns: spec}}}})
	if err != nil {
		t.Fatal(err)
	}
	w.business = w.market.Businesses()[0]
	network := sourcetest.NewNetwork(t)
	network.Serve(t, w.market.Handler())
	w.cfg = config(network.Transport(t))
	w.cfg.Token = w.market.MintKey(box.KeySpec{})
	w.restart()
	return w
}

// restart is a new process, which knows what was saved.
func (w *returnsWorld) restart() {
	w.cfg.Budgets = apiclient.NewBudgets(w.ledger, slog.New(slog.DiscardHandler))
	source, err := yandexmarket.New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.source, w.cursor = source, w.saved
}

// run makes a run, through crashes and errors.
func (w *returnsWorld) run() {
	w.t.Helper()
	whole := true
	for {
		p, err := w.source.Fetch(w.t.Context(), sources.Query{Stream: yandexmarket.Returns, Walk: sources.News, Cursor: w.cursor, Since: w.start, Overlap: day, Now: time.Now()})
		if w.r.Float64() < w.crash {
			w.restart()
			time.Sleep(time.Second)
			continue
		}
		if err != nil {
			whole = false
			time.Sleep(10 * time.Second)
			continue
		}
		for _, it := range p.Items {
			version := strings.Join(it.ID, "/") + string(it.Body)
			if w.read[version].IsZero() {
				w.read[version] = time.Now()
			}
		}
		if p.Note != "" {
			w.notes[p.Note] = true
		}
		whole = whole && len(p.Undecodable) == 0
		if w.cursor = p.Cursor; p.Done || w.r.IntN(3) == 0 || len(p.Items) > 0 {
			w.saved = w.cursor
		}
		if p.Done {
			w.runs = append(w.runs, ranFor{p.Began, time.Now(), whole && (!p.Partial || p.History)})
			return
		}
	}
}

// check checks that every version that was shown during two whole runs was read, and
// says how late the latest was that showed for long enough.
func (w *returnsWorld) check() (latest time.Duration, versions int) {
	w.t.Helper()
	stores := make(map[string]string)
	for _, r := range w.business.Returns() {
		stores[strconv.FormatInt(r.ID, 10)] = strconv.FormatInt(r.CampaignID, 10)
	}
	for _, s := range w.business.Journal() {
		id := s.ID
		if !strings.Contains(id, "/") {
			id = stores[id] + "/" + id
		}
		until, at := s.To, w.read[id+string(s.JSON)]
		if until.IsZero() {
			until = time.Now()
		}
		n := 0
		for _, r := range w.runs {
			if r.whole && !r.began.Before(s.From) && !r.ended.After(until) {
				n++
			}
		}
		if versions++; n >= 2 && at.IsZero() {
			w.t.Errorf("%s was shown from %s to %s, in %d whole runs, and not read: %s", id, s.From, until, n, s.JSON)
		}
		if !at.IsZero() && s.From.After(w.start) {
			latest = max(latest, at.Sub(s.From))
		}
	}
	return latest, versions
}

// TestReturnsInTheSandbox: whatever the order and the days of the lists, with tokens
// that die and lists that move, late ones, faults and crashes, every version that stays
// for two runs is read; and where nothing fails never more than ten minutes late.
func TestReturnsInTheSandbox(t *testing.T) {
	for seed := range uint64(4) {
		for _, calm := range []bool{true, false} {
			t.Run(fmt.Sprintf("seed %d, calm %v", seed, calm), func(t *testing.T) {
				synctest.Test(t, bubble(func(t *testing.T) {
					quirks := box.Quirks{Latency: 200 * time.Millisecond, Transit: 100 * time.Millisecond, TokensCount: seed&1 == 0, Overlap: seed&2 == 0,
						Returns: box.ReturnQuirks{Order: box.ReturnOrder(seed % 4), DaysInUTC: seed&1 == 0, FromExclusive: seed&2 == 0, ToExclusive: seed&1 == 0}}
					if !calm {
						quirks.TokenLife, quirks.ClockSkew, quirks.EmptyLastPage = time.Minute, time.Duration(int(seed)-3)*time.Minute, seed&2 != 0
					}
					w := newReturnsWorld(t, seed, quirks, box.ReturnSpec{History: 105, Span: 3 * day, Every: 10 * time.Minute, ChangeEvery: 2 * time.Minute, Late: .2, LateBy: 20 * time.Hour, Undated: .05, Strange: .1})
					if !calm {
						w.crash = .03
						path := "/v2/campaigns/"
						if err := w.market.Inject(box.Fault{Kind: box.Fault500, Path: path, Rate: .01}, box.Fault{Kind: box.Fault403, Variant: "deprecated", Path: path, Rate: .01}, box.Fault{Kind: box.Fault400, Variant: "token", Path: path, Rate: .01},
							box.Fault{Kind: box.FaultSlow, Path: path, Rate: .01}, box.Fault{Kind: box.FaultErrorIn200, Rate: .01}, box.Fault{Kind: box.FaultLate500, Rate: .01}, box.Fault{Kind: "bad_entry", Path: path, Rate: .01}); err != nil {
							t.Fatal(err)
						}
					}
					for began := time.Now(); time.Since(began) < time.Hour; {
						next := time.Now().Add(5 * time.Minute)
						w.run()
						time.Sleep(time.Until(next))
					}
					w.market.ClearFaults()
					w.crash = 0
					w.run()
					w.run()
					latest, versions := w.check()
					if calm && latest > 10*time.Minute || versions < 400 {
						t.Errorf("%d versions, one of them late by %s; notes %v", versions, latest, w.notes)
					}
					whole := 0
					for _, r := range w.runs {
						if r.whole {
							whole++
						}
					}
					if whole < 3 {
						t.Errorf("%d of %d runs were whole, which proves nothing: %v", whole, len(w.runs), w.notes)
					}
					if s := w.market.Stats(); s.Violations > 0 || s.NotFound > 0 || s.NotAllowed > 0 || s.Unauthorized > 0 {
						t.Errorf("the marketplace saw %+v", s)
					}
				}))
			})
		}
	}
}
