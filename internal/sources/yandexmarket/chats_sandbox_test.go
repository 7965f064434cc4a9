package yandexmarket_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/sandbox/kit"
	sandbox "syncd/internal/sandbox/yandexmarket"
	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/sourcetest"
	"syncd/internal/sources/yandexmarket"
)

// TestChatsInSandbox: the simulated marketplace, which is another reading of the
// documents than this package's, has no message in the end that was not emitted, none
// out of order, and nothing to complain of.
func TestChatsInSandbox(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) { chatsInSandbox(t, seed) }))
		})
	}
}

func chatsInSandbox(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 12))
	chance := func(p float64) bool { return r.Float64() < p }
	quirks := sandbox.Quirks{
		Latency: 100 * time.Millisecond, Transit: time.Duration(r.IntN(300)) * time.Millisecond, TokensCount: chance(0.5), Overlap: chance(0.5),
		NoPagingAtEnd: chance(0.5), EmptyLastPage: chance(0.3),
		Chats: sandbox.ChatQuirks{Order: sandbox.ChatOrder(r.IntN(5)), HistoryOrder: sandbox.HistoryOrder(r.IntN(3)), FromExclusive: chance(0.5)},
	}
	if chance(0.5) {
		quirks.TokenLife = 2 * time.Second
	}
	const lasting, lateBy = time.Hour, 30 * time.Second
	start := time.Now()
	box, err := sandbox.New(sandbox.Config{Seed: seed, Quirks: quirks, Businesses: []sandbox.BusinessSpec{{World: sandbox.WorldSpec{
		Journal: true,
		Chats: sandbox.ChatSpec{
			History: 60, LongChat: 150, MessageEvery: 20 * time.Second, StatusEvery: 2 * time.Minute, VanishEvery: 10 * time.Minute, VanishFor: 20 * time.Minute,
			LateMessages: 0.2, LateListings: 0.2, LateBy: lateBy, DrawnMessageIDs: chance(0.3),
		},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	b := box.Businesses()[0]
	network := sourcetest.NewNetwork(t)
	network.Serve(t, box.Handler())
	cfg := yandexmarket.Config{
		Account: "market", Business: b.ID(), Token: box.MintKey(sandbox.KeySpec{}), Endpoint: "http://api.test", Streams: []string{yandexmarket.Chats, yandexmarket.ChatMessages}, BudgetShare: 1,
		Budgets: apiclient.NewBudgets(memory{}, slog.New(slog.DiscardHandler)), Metrics: apiclient.NewMetrics(prometheus.NewRegistry()),
		Transport: network.Transport(t), UserAgent: "syncd/test", Grace: 5 * time.Second,
	}
	source, err := yandexmarket.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	k := &keeper{t: t, r: r, source: source, start: start, crash: 0.05, cursors: make(map[string]sources.Cursor), visits: make(visits),
		records: make(map[string]json.RawMessage), shown: make(map[string]bool), emitted: make(map[string]time.Time)}
	for _, kind := range []kit.FaultKind{sandbox.Fault400, sandbox.Fault503, sandbox.FaultNoResult, sandbox.FaultErrorIn200, kit.FaultTruncated, kit.FaultReset} {
		if err := box.Inject(sandbox.Fault{Kind: kind, Rate: 0.01}); err != nil {
			t.Fatal(err)
		}
	}
	sweep := false
	for n := 0; time.Since(start) < lasting+20*time.Minute; n++ {
		if time.Since(start) > lasting && k.crash > 0 {
			box.ClearFaults()
			b.Rest()
			k.crash = 0
		}
		if n%6 == 0 {
			k.run(yandexmarket.Chats, sources.News)
		}
		if sweep = sweep || n%60 == 0; sweep {
			sweep = !k.run(yandexmarket.Chats, sources.Sweep)
		}
		k.work()
		time.Sleep(10 * time.Second)
	}
	messages := 0
	for id := range k.records {
		var chat int64
		if _, err := fmt.Sscan(id, &chat); err != nil {
			t.Fatal(err)
		}
		for _, m := range b.Messages(chat) {
			id := fmt.Sprint(chat, "/", m.ID)
			if _, ok := k.emitted[id]; !ok && !m.At.Before(start) && m.At.Before(start.Add(lasting-lateBy)) { // later ones the list may never show
				t.Errorf("%s of %s was never emitted", id, m.At.Sub(start))
			}
			messages++
		}
	}
	if chats := len(b.Chats()); messages < 300 || len(k.records) < chats || len(k.order) < 150 {
		t.Errorf("%d of %d chats, %d messages, %d emitted", len(k.records), chats, messages, len(k.order))
	}
	if stats := box.Stats(); stats.Violations > 0 || stats.NotFound > 0 || stats.NotAllowed > 0 || stats.Unauthorized > 0 ||
		slices.ContainsFunc(stats.Parallel, func(p sandbox.ParallelStats) bool { return p.Most > 3 }) {
		t.Errorf("the marketplace complains: %+v", stats)
	}
}
