package apiclient_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/sourcetest"
)

// TestSnapshot: what a status page has to know of each account's budgets.
func TestSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budgets := apiclient.NewBudgets(newLedger(), slog.New(slog.DiscardHandler))
		slowKey, fastKey := apiclient.Key{Marketplace: "m", Seller: "s", Group: "chat", Class: "base"}, apiclient.Key{Marketplace: "m", Seller: "s", Group: "returns", Class: "personal"}
		open := func(key apiclient.Key, account string, limit apiclient.Limit, share float64) *apiclient.Bucket {
			b, err := budgets.Bucket(key, account, limit, share)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		fast := open(fastKey, "b", documented["returns"], 0.5)
		slow := open(slowKey, "b", hourly, 1)
		open(slowKey, "a", hourly, 1)
		look := func(i int, want apiclient.BudgetStatus, next, cooling time.Duration) {
			t.Helper()
			all := budgets.Snapshot()
			if len(all) != 3 {
				t.Fatalf("%d budgets: %+v", len(all), all)
			}
			got := all[i]
			if !near(time.Until(got.Next), next, 10*time.Millisecond) || got.CoolingUntil.IsZero() != (cooling == 0) || cooling > 0 && !near(time.Until(got.CoolingUntil), cooling, 10*time.Millisecond) {
				t.Errorf("budget %d: next in %s, cooling for %s; expected %s and %s", i, time.Until(got.Next), time.Until(got.CoolingUntil), next, cooling)
			}
			if d := got.Tokens - want.Tokens; d > 0.01 || d < -0.01 {
				t.Errorf("budget %d: %v tokens, expected %v", i, got.Tokens, want.Tokens)
			}
			got.Next, got.CoolingUntil, got.Tokens, want.Tokens = time.Time{}, time.Time{}, 0, 0
			if got != want {
				t.Errorf("budget %d: got\n%+v\nexpected\n%+v", i, got, want)
			}
		}
		a := apiclient.BudgetStatus{Account: "a", Budget: "chat", Key: slowKey, Limit: hourly, Pause: 62*time.Minute - 46*time.Second, Usable: 1, Tokens: 1}
		b := a
		b.Account = "b"
		c := apiclient.BudgetStatus{Account: "b", Budget: "returns", Key: fastKey, Limit: documented["returns"], Pause: 6 * time.Second, Usable: 5}
		look(0, a, 0, 0)
		look(1, b, 0, 0)
		look(2, c, 6*time.Second, 0)
		time.Sleep(time.Minute)
		c.Tokens = 5
		look(2, c, 0, 0)

		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range 3 {
			go func() {
				if g, err := slow.Acquire(ctx, news); err == nil {
					defer g.Answered(apiclient.Answer{Remaining: 0})
					<-ctx.Done()
				}
			}()
		}
		synctest.Wait()
		a.Tokens, a.Waiting = 0, 2
		look(0, a, a.Pause, 0)

		g, err := fast.Acquire(ctx, news)
		if err != nil {
			t.Fatal(err)
		}
		g.Answered(apiclient.Answer{Remaining: -1, Throttled: true, RetryAfter: 100 * time.Second})
		c.Tokens = 0
		look(2, c, 105*time.Second, 105*time.Second)
		time.Sleep(105 * time.Second)
		c.Tokens = 1
		look(2, c, 0, 0)
		cancel()
		synctest.Wait()
	})
}

// TestReserve: a command gets a token of a bucket that nobody here uses, or hears at
// once when there will be one; and that is paid for like any other.
func TestReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		budgets := apiclient.NewBudgets(l, slog.New(slog.DiscardHandler))
		if _, err := budgets.Reserve(t.Context(), key, hourly, 2, "check"); err == nil {
			t.Error("a share of 2 is accepted")
		}
		g, err := budgets.Reserve(t.Context(), key, hourly, 1, "check")
		if err != nil {
			t.Fatal(err)
		}
		if l.count() != 1 {
			t.Error("the spend is not saved")
		}
		if n := len(budgets.Snapshot()); n != 0 {
			t.Errorf("%d budgets are shown", n)
		}
		reg := prometheus.NewPedanticRegistry()
		reg.MustRegister(budgets)
		if got, err := reg.Gather(); err != nil || len(got) != 0 {
			t.Errorf("gathered %v, %v", got, err)
		}
		g.Answered(apiclient.Answer{Remaining: 0})
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err = budgets.Reserve(ctx, key, hourly, 1, "check")
		if !isBudgetWait(err) || time.Since(began) != 0 {
			t.Errorf("after %s: %v, expected a budget wait at once", time.Since(began), err)
		}

		// The daemon's account of that seller has the same bucket.
		b, err := budgets.Bucket(key, "a", hourly, 1)
		if err != nil {
			t.Fatal(err)
		}
		if d := next(t, &process{bucket: b, ctx: t.Context()}); !near(d, time.Hour+74*time.Second, time.Second) {
			t.Errorf("the next token is %s away", d)
		}
		// And a process that has it beside others that wait goes on with them.
		g, err = budgets.Reserve(t.Context(), key, hourly, 1, "check")
		if err != nil || !near(time.Since(began), time.Hour+74*time.Second, time.Second) {
			t.Fatalf("after %s: %v", time.Since(began), err)
		}
		g.Answered(apiclient.Answer{Remaining: 0})
	})
}

// TestReserveWaitsForNobody: the token that is there when the process begins is the
// command's, also where other flows are remembered.
func TestReserveWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		p := start(t, l, hourly, 1)
		acquire(t, p).Answered(apiclient.Answer{Remaining: 0})
		p.kill()
		for range 5 {
			time.Sleep(2 * time.Hour)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			g, err := apiclient.NewBudgets(l, slog.New(slog.DiscardHandler)).Reserve(ctx, key, hourly, 1, "check")
			if err != nil {
				t.Fatal(err)
			}
			g.Answered(apiclient.Answer{Remaining: 0})
			cancel()
		}
	})
}

// TestShares of what Reserve and reloads ask for: the accounts' smallest counts, as
// they are configured now.
func TestShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		budgets := apiclient.NewBudgets(newLedger(), slog.New(slog.DiscardHandler))
		pause := func(account string, share float64) time.Duration {
			t.Helper()
			if _, err := budgets.Bucket(key, account, chat, share); err != nil {
				t.Fatal(err)
			}
			return budgets.Snapshot()[0].Pause
		}
		reserve := func(share float64) {
			t.Helper()
			g, err := budgets.Reserve(t.Context(), key, chat, share, "check")
			if err != nil {
				t.Fatal(err)
			}
			g.Answered(apiclient.Answer{Remaining: -1})
		}
		reserve(0.01)
		if d := pause("a", 0.5); d != 2*time.Second {
			t.Errorf("the command's share holds for an account: %s", d)
		}
		reserve(0.1)
		if d := budgets.Snapshot()[0].Pause; d != 2*time.Second {
			t.Errorf("the command's share holds for an account: %s", d)
		}
		if d := pause("b", 0.25); d != 4*time.Second {
			t.Errorf("the smallest share does not hold: %s", d)
		}
		if d := pause("b", 1); d != 2*time.Second {
			t.Errorf("a share that was raised: %s", d)
		}
	})
}

// TestRaisedShareIsNoWayToMore: reloads back and forth earn no token.
func TestRaisedShareIsNoWayToMore(t *testing.T) {
	for name, limit := range documented {
		synctest.Test(t, func(t *testing.T) {
			m := &meter{limit: limit}
			budgets := apiclient.NewBudgets(newLedger(), slog.New(slog.DiscardHandler))
			p := &process{ctx: t.Context()}
			for i := range 100 {
				b, err := budgets.Bucket(key, "a", believed(limit), []float64{1, 0.1, 0.5}[i%3])
				if err != nil {
					t.Fatal(err)
				}
				p.bucket = b
				if err := p.send(m, after(0), 0, true); err != nil {
					t.Fatal(name, err)
				}
				if i%10 == 0 {
					time.Sleep(20 * limit.Interval)
				}
			}
			m.check(t)
		})
	}
}

// TestCoolingDownIsSaidOnce: whose budget somebody else spends, and for how long
// nothing will be asked; once a storm, and once by a process that starts in it.
func TestCoolingDownIsSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sourcetest.SetClock()
		l := newLedger()
		var out strings.Builder
		chatKey := apiclient.Key{Marketplace: "wildberries", Seller: "53ac-sid", Group: "chat", Class: "personal"}
		open := func() *process {
			budgets := apiclient.NewBudgets(l, slog.New(slog.NewTextHandler(&out, nil)))
			p := &process{ctx: t.Context()}
			for _, account := range []string{"shop-a", "shop-b"} {
				var err error
				if p.bucket, err = budgets.Bucket(chatKey, account, chat, 1); err != nil {
					t.Fatal(err)
				}
			}
			return p
		}
		lines := func(want ...string) {
			t.Helper()
			if got := strings.Count(out.String(), "\n"); got != len(want) {
				t.Errorf("%d lines, expected %d:\n%s", got, len(want), out.String())
			}
			for _, w := range want {
				if !strings.Contains(out.String(), w) {
					t.Errorf("no %q in\n%s", w, out.String())
				}
			}
			out.Reset()
		}
		refused := apiclient.Answer{Remaining: -1, Throttled: true, RetryAfter: 56 * time.Minute}
		p := open()
		time.Sleep(time.Minute)
		var storm []*apiclient.Grant
		for range 5 {
			storm = append(storm, acquire(t, p))
		}
		for _, g := range storm {
			g.Answered(refused)
		}
		lines(`level=WARN msg="cooling down: somebody else spends this seller's budget" account=shop-a,shop-b budget=chat seller=53ac-sid for=57m13s until=2026-02-02T20:58:13Z`)
		for range 10 { // gust after gust
			acquire(t, p).Answered(refused)
		}
		acquire(t, p).Answered(lost) // which says nothing
		acquire(t, p).Answered(refused)
		lines()
		p = open()
		lines(`msg="still cooling down: somebody else spends this seller's budget" account=shop-a budget=chat seller=53ac-sid for=1h`)
		acquire(t, p).Answered(answered) // over
		time.Sleep(time.Minute)
		acquire(t, p).Answered(refused)
		lines(`msg="cooling down: somebody else spends`)
	})
}
