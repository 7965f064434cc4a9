package apiclient_test

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"syncd/internal/sources/apiclient"
)

// TestOpenedAgain: an account that is opened again while the process runs, as a reload
// does it, neither loses nor gains tokens by that; the shares of those that have left
// a budget count no more.
func TestOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budgets := apiclient.NewBudgets(newLedger(), slog.New(slog.DiscardHandler))
		mine := apiclient.Key{Marketplace: "m", Seller: "mine", Group: "returns"}
		others := mine
		others.Seller = "other"
		open := func(key apiclient.Key, account string, share float64) {
			t.Helper()
			if _, err := budgets.Bucket(key, account, apiclient.Limit{Interval: time.Second, Burst: 10}, share); err != nil {
				t.Fatal(err)
			}
		}
		look := func(when string, account, seller string, usable int, tokens float64) {
			t.Helper()
			for _, s := range budgets.Snapshot() {
				if s.Account == account && s.Key.Seller == seller {
					if s.Usable != usable || !near(time.Duration(s.Tokens*1e9), time.Duration(tokens*1e9), time.Millisecond) {
						t.Errorf("%s: %s has %v tokens of %d, expected %v of %d", when, account, s.Tokens, s.Usable, tokens, usable)
					}
					return
				}
			}
			t.Errorf("%s: %s has no budget of seller %s", when, account, seller)
		}
		open(mine, "a", 0.5)
		open(mine, "b", 1)
		time.Sleep(time.Minute)
		look("full", "a", "mine", 5, 5)
		open(mine, "a", 0.5)
		look("again, as before", "b", "mine", 5, 5)
		open(mine, "b", 0.8)
		look("the other one has another share", "a", "mine", 5, 5)

		open(others, "a", 0.5)
		look("with the token of another seller", "a", "other", 5, 0)
		look("whose share counts there no more", "b", "mine", 8, 1)

		budgets.Forget("b", time.Now())
		look("b has asked since", "b", "mine", 8, 1)
		time.Sleep(time.Second)
		budgets.Forget("b", time.Now())
		if all := budgets.Snapshot(); len(all) != 1 || all[0].Account != "a" {
			t.Errorf("without b: %+v", all)
		}
		open(mine, "b", 1)
		look("what was spent stays spent", "b", "mine", 9, 1)
	})
}

// TestMetricsForget: of an account that has left no family shows anything.
func TestMetricsForget(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	m := apiclient.NewMetrics(reg)
	m.Declare("m", "gone", "questions", "feedbacks", "/q")
	m.Declare("m", "stays", "questions", "feedbacks", "/q")
	m.Forget("gone")
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP syncd_api_requests_total Requests sent to the marketplace, by HTTP status; code none: no answer.
# TYPE syncd_api_requests_total counter
syncd_api_requests_total{account="stays",code="200",stream="questions"} 0
# HELP syncd_api_throttled_total Answers 429 or 420: somebody else spends the seller's budget.
# TYPE syncd_api_throttled_total counter
syncd_api_throttled_total{account="stays",budget="feedbacks"} 0
`), "syncd_api_requests_total", "syncd_api_throttled_total"); err != nil {
		t.Error(err)
	}
}
