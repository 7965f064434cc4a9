package main

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	market "syncd/internal/sandbox/yandexmarket"
)

// TestMarketIdle measures what an account costs that has nothing new: 1,000 chats,
// 10,000 reviews of six months, 1,000 questions of two, three stores with 500 returns
// each, at the default schedules. It holds that nothing is refused, and takes minutes:
//
//	SYNCD_MEASURE=1 go test -v -run TestMarketIdle ./cmd/syncd
func TestMarketIdle(t *testing.T) {
	if os.Getenv("SYNCD_MEASURE") == "" {
		t.Skip("a measurement, not a test: SYNCD_MEASURE=1 makes it")
	}
	dir := propertyDir(t)
	synctest.Test(t, func(t *testing.T) {
		s := &marketSim{rig: newRig(t, 1, dir)}
		var err error
		s.box, err = market.New(market.Config{Seed: 1, Businesses: []market.BusinessSpec{{
			Stores: []market.StoreSpec{{Placement: market.FBS}, {Placement: market.FBY}, {Placement: market.DBS}},
			World: market.WorldSpec{Span: 60 * day, Chats: market.ChatSpec{History: 1000}, Feedback: market.FeedbackSpec{History: 10_000, Span: 180 * day},
				Questions: market.QuestionSpec{History: 1000, Span: 58 * day}, Returns: market.ReturnSpec{History: 500, Span: 58 * day}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		s.connect(s.box.Handler(), 90*time.Millisecond, func(r *http.Request, body []byte) []shownItem { return nil })
		s.deadly, s.before = 0, func() {}
		s.bucketOf, s.owner = func(*http.Request) string { return "" }, func(*http.Request) string { return "market" }
		s.write("market.key", s.box.MintKey(market.KeySpec{}))
		s.load(fmt.Sprintf(`state: {path: syncd.db}
server: {listen: ""}
accounts:
  - {name: market, marketplace: yandex_market, business_id: %d, token_file: market.key, start: now, endpoints: {api: "http://api.test"}}
sinks: [{name: archive, type: file, path: events.ndjson, from: beginning}]
`, s.box.Businesses()[0].ID()))
		s.up()
		time.Sleep(time.Hour)
		first := s.box.Stats().Requests
		time.Sleep(3 * time.Hour) // until the first reading is over
		before := s.box.Stats().Requests
		const hours = 6
		time.Sleep(hours * time.Hour)
		stats := s.box.Stats()
		for _, m := range slices.Sorted(maps.Keys(stats.Requests)) {
			t.Logf("%-28s %7.1f an hour, %6d in the first hour", m, float64(stats.Requests[m]-before[m])/hours, first[m])
		}
		if stats.Violations > 0 {
			t.Errorf("%d violations", stats.Violations)
		}
		s.stop()
	})
}
