package apiclient_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/sourcetest"
)

func perHour(n int) apiclient.WindowLimit {
	return apiclient.WindowLimit{Calls: n, Period: time.Hour}
}

func call1(t *testing.T, w *apiclient.Window, a apiclient.Answer) {
	t.Helper()
	g, err := w.Acquire(t.Context(), news)
	if err != nil {
		t.Fatal(err)
	}
	g.Answered(a)
}

// callsNow spends all that can be spent at once, and returns how many that were and
// when the next may go.
func callsNow(t *testing.T, w *apiclient.Window, a apiclient.Answer) (n int, next time.Duration) {
	t.Helper()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
		g, err := w.Acquire(ctx, news)
		cancel()
		if err != nil {
			if !isBudgetWait(err) {
				t.Fatal(err)
			}
			return n, time.Until(sources.AsError(err).Until)
		}
		g.Answered(a)
		n++
	}
}

// said is an honest answer, a quarter past an hour of the marketplace's clock.
func said(limit, remaining int) apiclient.Answer {
	date := time.Date(2026, 2, 2, 20, 15, 0, 0, time.UTC)
	return apiclient.Answer{Limit: limit, Remaining: remaining, Date: date, Until: date.Add(45 * time.Minute)}
}

// TestWindowLeases: a window is saved before it is spent, a hundredth at a time; a
// process that ends in order loses nothing, one that is killed loses a lease and what
// was in flight; and nothing leaves that cannot be saved.
func TestWindowLeases(t *testing.T) {
	for _, limit := range []int{50, 1000, 5000} {
		for _, ends := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				l := newLedger()
				budgets := apiclient.NewBudgets(l, slog.New(slog.DiscardHandler))
				w, err := budgets.Window(key, "a", perHour(limit), 1)
				if err != nil {
					t.Fatal(err)
				}
				l.failWith(errors.New("no space left on device"))
				if _, err := w.Acquire(t.Context(), news); sources.AsError(err).Kind != sources.Temporary {
					t.Fatalf("got %v, expected a temporary error", err)
				}
				l.failWith(nil)
				if used := budgets.Snapshot()[0].Used; used != 0 || l.count() != 0 {
					t.Errorf("%d calls count, %d saves", used, l.count())
				}
				calls, before := limit/2, l.count()
				for range calls {
					call1(t, w, said(limit, limit-1))
				}
				// One more for what the first answer says.
				if most := calls/max(1, limit/100) + 2; l.count()-before > most || l.count() == before {
					t.Errorf("limit %d: %d saves for %d calls, expected at most %d", limit, l.count()-before, calls, most)
				}
				if ends {
					budgets.ClockWasSet() // as Run does at the end
				}
				budgets = apiclient.NewBudgets(l, slog.New(slog.DiscardHandler))
				if _, err := budgets.Window(key, "a", perHour(limit), 1); err != nil {
					t.Fatal(err)
				}
				used := budgets.Snapshot()[0].Used
				if most := calls + max(1, limit/100); used < calls || ends && used != calls || used > most {
					t.Errorf("limit %d, in order %t: %d of %d calls count in the next process", limit, ends, used, calls)
				}
			})
		}
	}
}

// TestWindowCrashLoops: processes that die young still use the window, and what is
// saved stays small.
func TestWindowCrashLoops(t *testing.T) {
	for _, limit := range []int{1, 10, 1000} {
		for _, life := range []time.Duration{time.Second, 7 * time.Second, 10 * time.Minute} {
			synctest.Test(t, func(t *testing.T) {
				l := newLedger()
				n, most := 0, 0
				for range 3 * int(time.Hour/life) {
					w := openWindow(t, l, perHour(limit), 1)
					ctx, cancel := context.WithTimeout(t.Context(), life)
					if g, err := w.Acquire(ctx, news); err == nil {
						g.Answered(apiclient.Answer{Remaining: -1})
						n++
					}
					cancel()
					time.Sleep(life)
					most = max(most, len(l.kept[key.String()]))
				}
				// Each may cost a lease, which is a hundredth.
				least := min(3*int(time.Hour/life), 3*limit/max(1, limit/100)) / 3 * 2
				if limit == 1 {
					least = 2 // a lease counts for an hour from when it was found
				}
				if n < least {
					t.Errorf("limit %d, lives of %s: %d calls in 3 hours, expected %d", limit, life, n, least)
				}
				if most > 12<<10 {
					t.Errorf("limit %d, lives of %s: %d bytes are saved", limit, life, most)
				}
			})
		}
	}
}

// TestWindowTakesOver: what a killed process may have sent counts from the latest moment
// at which it can arrive, and from there for an hour, also where the clock was set back
// meanwhile; of a copy, everything does. And restarts earn no burst.
func TestWindowTakesOver(t *testing.T) {
	for _, how := range []string{"killed", "clock set back", "copy", "copy of nothing"} {
		synctest.Test(t, func(t *testing.T) {
			l := newLedger()
			w := openWindow(t, l, perHour(50), 1)
			call1(t, w, said(50, 49))
			if _, err := w.Acquire(t.Context(), news); err != nil { // in flight for ever
				t.Fatal(err)
			}
			saved := string(l.kept[key.String()])
			switch how {
			case "clock set back":
				at := fmt.Sprint(time.Now().UnixMilli())
				if !strings.Contains(saved, at) {
					t.Fatalf("no %s in %s", at, saved)
				}
				l.kept[key.String()] = []byte(strings.Replace(saved, at, fmt.Sprint(time.Now().Add(5*time.Hour).UnixMilli()), 1))
			case "copy":
				l.stale = true
			case "copy of nothing":
				l.stale = true
				delete(l.kept, key.String())
			}
			budgets := apiclient.NewBudgets(l, slog.New(slog.DiscardHandler))
			w, err := budgets.Window(key, "a", perHour(50), 1)
			if err != nil {
				t.Fatal(err)
			}
			used := func() int { return budgets.Snapshot()[0].Used }
			began := time.Now()
			if strings.HasPrefix(how, "copy") {
				call1(t, w, apiclient.Answer{Remaining: -1})
				if d := time.Since(began); d < time.Hour+timeout+maxWay || d > time.Hour+timeout+maxWay+10*time.Second {
					t.Errorf("%s: the first call went after %s", how, d)
				}
				return
			}
			time.Sleep(time.Hour + timeout + maxWay)
			if n := used(); n != 1 {
				t.Errorf("%s: %d calls count", how, n)
			}
			time.Sleep(10 * time.Second)
			if n := used(); n != 0 {
				t.Errorf("%s: %d calls count after more than an hour", how, n)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		total := 0
		for range 20 {
			n, _ := callsNow(t, openWindow(t, l, perHour(50), 1), apiclient.Answer{Remaining: -1})
			total += n
		}
		if total > 9 {
			t.Errorf("%d calls at once by 20 processes, the burst is 9", total)
		}
	})
}

// TestWindowHears what the marketplace says of its limit: it replaces the documented
// one, and lasts; nonsense does not.
func TestWindowHears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		limit := func() int {
			budgets := apiclient.NewBudgets(l, slog.New(slog.DiscardHandler))
			if _, err := budgets.Window(key, "a", perHour(1000), 1); err != nil {
				t.Fatal(err)
			}
			return budgets.Snapshot()[0].Window.Calls
		}
		w := openWindow(t, l, perHour(1000), 1)
		call1(t, w, said(5000, 4999))
		if n := limit(); n != 5000 {
			t.Errorf("after a restart the limit is %d", n)
		}
		for _, bad := range []int{-1, 0, 1_000_001} {
			call1(t, w, said(bad, -1))
		}
		if n := limit(); n != 5000 {
			t.Errorf("nonsense made it %d", n)
		}
		// Of two that overlap the later one's counts, whichever is answered first.
		g1, _ := w.Acquire(t.Context(), news)
		g2, _ := w.Acquire(t.Context(), news)
		g2.Answered(said(500, -1))
		g1.Answered(said(5000, -1))
		if n := limit(); n != 500 {
			t.Errorf("an earlier request's answer made it %d", n)
		}
		call1(t, w, said(800, -1))
		if n := limit(); n != 800 {
			t.Errorf("raised again it is %d", n)
		}
	})
}

// TestWindowRemaining only lowers, the lowest of one period counts, less what may have
// arrived since, and it ends with the period.
func TestWindowRemaining(t *testing.T) {
	silent := apiclient.Answer{Remaining: -1}
	// left is what may still be sent up to the end of the period.
	left := func(t *testing.T, w *apiclient.Window) (n int) {
		end := time.Now().Add(45 * time.Minute)
		defer func() { time.Sleep(time.Until(end.Add(3 * time.Second))) }()
		for {
			ctx, cancel := context.WithDeadline(t.Context(), end)
			g, err := w.Acquire(ctx, news)
			cancel()
			if err != nil {
				return n
			}
			g.Answered(silent)
			n++
		}
	}
	for name, tt := range map[string]struct {
		answers func(t *testing.T, w *apiclient.Window)
		left    int
	}{
		"others spent":     {func(t *testing.T, w *apiclient.Window) { call1(t, w, said(1000, 51)) }, 50},
		"all is gone":      {func(t *testing.T, w *apiclient.Window) { call1(t, w, said(1000, 0)) }, 0},
		"all but reserve":  {func(t *testing.T, w *apiclient.Window) { call1(t, w, said(1000, 1)) }, 0},
		"a higher one":     {func(t *testing.T, w *apiclient.Window) { call1(t, w, said(1000, 51)); call1(t, w, said(1000, 1000)) }, 49},
		"a lower one":      {func(t *testing.T, w *apiclient.Window) { call1(t, w, said(1000, 51)); call1(t, w, said(1000, 21)) }, 20},
		"silence":          {func(t *testing.T, w *apiclient.Window) { call1(t, w, said(1000, 51)); call1(t, w, silent) }, 49},
		"in a refusal too": {func(t *testing.T, w *apiclient.Window) { a := said(1000, 51); call1(t, w, a) }, 50},
		"no Until": {func(t *testing.T, w *apiclient.Window) {
			a := said(1000, 31)
			a.Until = time.Time{}
			call1(t, w, a)
		}, 30},
		"those on their way": {func(t *testing.T, w *apiclient.Window) {
			earlier, _ := w.Acquire(t.Context(), news)
			g, _ := w.Acquire(t.Context(), news)
			one, _ := w.Acquire(t.Context(), news)
			two, _ := w.Acquire(t.Context(), news)
			two.Answered(silent)
			g.Answered(said(1000, 51)) // earlier, one and two may not have been counted
			one.Answered(silent)
			earlier.Answered(said(1000, 600))
		}, 47},
		"one that is lost": {func(t *testing.T, w *apiclient.Window) {
			g, _ := w.Acquire(t.Context(), news)
			g.Answered(apiclient.Answer{Remaining: -1, Lost: true})
			call1(t, w, said(1000, 51))
		}, 49},
		"one that never left": {func(t *testing.T, w *apiclient.Window) {
			g, _ := w.Acquire(t.Context(), news)
			call1(t, w, said(1000, 51))
			g.Answered(apiclient.Answer{Remaining: -1, Unsent: true})
		}, 50},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restart %t", name, restart), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := newLedger()
					budgets := apiclient.NewBudgets(l, slog.New(slog.DiscardHandler))
					w, _ := budgets.Window(key, "a", perHour(1000), 1)
					tt.answers(t, w)
					if restart {
						budgets.ClockWasSet()
						w = openWindow(t, l, perHour(1000), 1)
					}
					if n := left(t, w); n != tt.left {
						t.Errorf("%d were sent up to the end of the period, expected %d", n, tt.left)
					}
					before := time.Now()
					call1(t, w, silent)
					if d := time.Since(before); d > time.Minute {
						t.Errorf("after the end of the period the next one waited %s", d)
					}
				})
			})
		}
	}
}

// TestWindowCoolsDown: what a 420 says holds, with slack, and across restarts.
func TestWindowCoolsDown(t *testing.T) {
	refused := func(change func(*apiclient.Answer)) apiclient.Answer {
		a := said(1000, 0)
		a.Throttled = true
		change(&a)
		return a
	}
	nothing := func(a *apiclient.Answer) { *a = apiclient.Answer{Remaining: -1, Throttled: true, Date: a.Date} }
	slack := func(d time.Duration) time.Duration { return d + d/50 + 2*time.Second }
	for _, tt := range []struct {
		name    string
		answers []apiclient.Answer
		want    time.Duration
	}{
		{"until", []apiclient.Answer{refused(func(*apiclient.Answer) {})}, slack(45 * time.Minute)},
		{"until rather than Retry-After", []apiclient.Answer{refused(func(a *apiclient.Answer) { a.RetryAfter = time.Hour })}, slack(45 * time.Minute)},
		{"Retry-After", []apiclient.Answer{refused(func(a *apiclient.Answer) { nothing(a); a.RetryAfter = 3 * time.Minute })}, slack(3 * time.Minute)},
		{"Retry-After rather than the past", []apiclient.Answer{refused(func(a *apiclient.Answer) {
			nothing(a)
			a.RetryAfter, a.Until = 3*time.Minute, a.Date
		})}, slack(3 * time.Minute)},
		{"nothing", []apiclient.Answer{refused(nothing)}, slack(time.Minute)},
		{"far", []apiclient.Answer{refused(func(a *apiclient.Answer) { a.Until = a.Date.AddDate(1, 0, 0) })}, slack(2 * time.Hour)},
		{"parallel", []apiclient.Answer{refused(func(a *apiclient.Answer) { nothing(a); a.Parallel = true })}, 0},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restart %t", tt.name, restart), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := newLedger()
					w := openWindow(t, l, perHour(1000), 1)
					for _, a := range tt.answers {
						call1(t, w, a)
					}
					if restart {
						w = openWindow(t, l, perHour(1000), 1)
					}
					began := time.Now()
					call1(t, w, apiclient.Answer{Remaining: -1})
					if d := time.Since(began); !near(d, tt.want, 10*time.Millisecond) {
						t.Errorf("the next request went after %s, expected %s", d, tt.want)
					}
					if n, _ := callsNow(t, w, apiclient.Answer{Remaining: -1}); tt.want > 0 && n > 0 {
						t.Errorf("%d more at once after a cool-down", n)
					}
				})
			})
		}
	}
}

// TestWindowHourEnds: an answer that was made just before the hour was over, and carries
// the next second's Date, speaks of the hour that is over: what was left of that does
// not bind the next one.
func TestWindowHourEnds(t *testing.T) {
	for _, late := range []time.Duration{-time.Second, 0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			w, err := apiclient.NewBudgets(newLedger(), slog.New(slog.DiscardHandler)).Window(key, "a", perHour(5000), .9)
			if err != nil {
				t.Fatal(err)
			}
			hour := time.Now().Truncate(time.Hour).Add(time.Hour)
			call1(t, w, apiclient.Answer{Limit: 5000, Remaining: 25, Date: hour.Add(late - 5*time.Second), Until: hour})
			time.Sleep(5 * time.Second)
			call1(t, w, apiclient.Answer{Limit: 5000, Remaining: 20, Date: hour.Add(late), Until: hour})
			time.Sleep(10 * time.Second)
			call1(t, w, apiclient.Answer{Limit: 5000, Remaining: 4999, Date: hour.Add(late + 10*time.Second), Until: hour.Add(time.Hour)})
			n, end := 0, time.Now().Add(40*time.Minute)
			for time.Now().Before(end) {
				k, next := callsNow(t, w, apiclient.Answer{Remaining: -1})
				n += k
				time.Sleep(min(next, time.Until(end)+1))
			}
			if n < 2900 {
				t.Errorf("Date %s from Until: %d calls in 40 minutes of a new hour", late, n)
			}
		})
	}
}

// TestWindowTinyLimit: a limit of one call that was said once does not shut a window for
// days where only a part of it may be used.
func TestWindowTinyLimit(t *testing.T) {
	for _, share := range []float64{1, .5, .01} {
		synctest.Test(t, func(t *testing.T) {
			w, err := apiclient.NewBudgets(newLedger(), slog.New(slog.DiscardHandler)).Window(key, "a", perHour(5000), share)
			if err != nil {
				t.Fatal(err)
			}
			call1(t, w, apiclient.Answer{Limit: 1, Remaining: -1})
			if _, next := callsNow(t, w, apiclient.Answer{Remaining: -1}); next > 5*time.Hour {
				t.Errorf("share %v: the next call is in %s", share, next)
			}
		})
	}
}

// TestWindowStormsDoNotLoop: 420 after 420 without a word when to come back gets fewer
// and fewer requests.
func TestWindowStormsDoNotLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		w, err := apiclient.NewBudgets(newLedger(), slog.New(slog.NewTextHandler(&out, nil))).Window(key, "a", perHour(1000), 1)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for began := time.Now(); time.Since(began) < 6*time.Hour; n++ {
			call1(t, w, apiclient.Answer{Remaining: -1, Throttled: true})
		}
		if n < 8 || n > 20 {
			t.Errorf("%d requests in 6 hours of refusals", n)
		}
		if lines := strings.Count(out.String(), "cooling down"); lines != 1 {
			t.Errorf("it is said %d times", lines)
		}
		call1(t, w, apiclient.Answer{Remaining: -1})
		time.Sleep(time.Hour)
		var storm []*apiclient.Grant
		for range 5 {
			g, _ := w.Acquire(t.Context(), news)
			storm = append(storm, g)
		}
		for _, g := range storm {
			g.Answered(apiclient.Answer{Remaining: -1, Throttled: true})
		}
		if _, d := callsNow(t, w, apiclient.Answer{}); d > 65*time.Second {
			t.Errorf("five refusals of one storm count as five: next in %s", d)
		}
	})
}

// TestWindowIsShared by the weights of those who wait.
func TestWindowIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := openWindow(t, newLedger(), perHour(1000), 1)
		callsNow(t, w, apiclient.Answer{Remaining: -1})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		var mu sync.Mutex
		got := make(map[string]int)
		flows := []apiclient.Flow{{Name: "news", Weight: 1}, {Name: "follow", Weight: 1. / 2}, {Name: "sweep", Weight: 1. / 4}, {Name: "backfill", Weight: 1. / 16}}
		for _, f := range flows {
			all.Go(func() {
				for {
					g, err := w.Acquire(ctx, f)
					if err != nil {
						return
					}
					mu.Lock()
					got[f.Name]++
					got[""]++
					mu.Unlock()
					g.Answered(apiclient.Answer{Remaining: -1})
				}
			})
		}
		time.Sleep(5 * time.Hour)
		cancel()
		all.Wait()
		for _, f := range flows {
			want := float64(got[""]) * f.Weight / (1 + 1./2 + 1./4 + 1./16)
			if n := float64(got[f.Name]); math.Abs(n-want) > 0.03*want+2 {
				t.Errorf("%s got %v of %d, its weight says %.0f", f.Name, n, got[""], want)
			}
		}
	})
}

// TestWindowStatus: what an operator sees of windows, and who forgets one.
func TestWindowStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sourcetest.SetClock()
		budgets := apiclient.NewBudgets(newLedger(), slog.New(slog.DiscardHandler))
		chats := apiclient.Key{Marketplace: "yandex_market", Seller: "1", Group: "chats"}
		open := func(account string, share float64) *apiclient.Window {
			w, err := budgets.Window(chats, account, perHour(1000), share)
			if err != nil {
				t.Fatal(err)
			}
			return w
		}
		w := open("a", 1)
		if open("b", 0.5) != w {
			t.Fatal("accounts of one seller have windows of their own")
		}
		if _, err := budgets.Bucket(chats, "c", chat, 1); err == nil {
			t.Error("a window is a bucket too")
		}
		g, err := budgets.ReserveWindow(t.Context(), chats, perHour(1000), 0.1, "check")
		if err != nil {
			t.Fatal(err)
		}
		call1(t, w, said(800, 700))
		got := budgets.Snapshot()[1]
		if got.Account != "b" || got.Budget != "chats" || got.Window.Calls != 800 || got.Usable != 400 || got.Used != 2 || !got.CapUntil.IsZero() || got.Tokens != 79 {
			t.Errorf("got %+v", got)
		}
		g.Answered(said(800, 11)) // others have spent; one of ours went later
		got = budgets.Snapshot()[0]
		if got.CapLeft != 9 || !near(time.Until(got.CapUntil), 45*time.Minute+2*time.Second, time.Millisecond) || got.Tokens != 3 || got.Used != 2 {
			t.Errorf("got %+v", got)
		}
		budgets.Forget("b", time.Now()) // it has asked since
		if all := budgets.Snapshot(); len(all) != 2 {
			t.Errorf("b is gone: %+v", all)
		}
		budgets.Forget("b", time.Now().Add(1))
		if all := budgets.Snapshot(); len(all) != 1 || all[0].Usable != 799 {
			t.Errorf("without b: %+v", all)
		}
		reg := prometheus.NewPedanticRegistry()
		reg.MustRegister(budgets)
		if all, err := reg.Gather(); err != nil || len(all) != 1 || len(all[0].Metric) != 1 || all[0].Metric[0].Gauge.GetValue() != 3 {
			t.Errorf("gathered %v, %v", all, err)
		}
	})
}

// TestBadWindows: what cannot be a window is refused, also a damaged saved one.
func TestBadWindows(t *testing.T) {
	l := newLedger()
	budgets := apiclient.NewBudgets(l, slog.New(slog.DiscardHandler))
	for _, tt := range []struct {
		limit apiclient.WindowLimit
		share float64
	}{{perHour(10), 0}, {perHour(10), 1.01}, {perHour(10), math.NaN()}, {perHour(0), 1}, {perHour(1_000_001), 1}, {apiclient.WindowLimit{Calls: 10}, 1}} {
		if _, err := budgets.Window(key, "a", tt.limit, tt.share); err == nil {
			t.Errorf("%+v is accepted", tt)
		}
	}
	for _, raw := range []string{"", "null", "{}", `{"v":1}`, `{"v":2,"kind":"window"}`, `{"v":1,"kind":"window","leased":-1}`, `{"v":1,"kind":"window","spent":[[5,4,1]]}`, `{"v":1,"kind":"window","spent":[[1,2,-3]]}`} {
		l.kept[key.String()] = []byte(raw)
		if _, err := budgets.Window(key, "a", perHour(10), 1); err == nil {
			t.Errorf("saved window %q is accepted", raw)
		}
	}
}
