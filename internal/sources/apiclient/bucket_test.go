package apiclient_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
)

var chat, hourly = documented["chat"], documented["base chat"]

func acquire(t *testing.T, p *process) *apiclient.Grant {
	t.Helper()
	g, err := p.bucket.Acquire(p.ctx, news)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// next is how long the next token is away, without spending it.
func next(t *testing.T, p *process) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, time.Nanosecond)
	defer cancel()
	g, err := p.bucket.Acquire(ctx, news)
	if err == nil {
		g.Answered(apiclient.Answer{Remaining: -1})
		t.Fatal("there was a token already")
	}
	e, ok := errors.AsType[*sources.Error](err)
	if !ok || e.Kind != sources.BudgetWait {
		t.Fatalf("got %v, expected a budget wait", err)
	}
	return time.Until(e.Until)
}

func near(got, want, slack time.Duration) bool { return got >= want-slack && got <= want+slack }

// TestNoRequestWithoutItsSpendSaved: a slow bucket is durable before a request
// leaves; when it cannot be saved none leaves, and nothing is lost by that.
func TestNoRequestWithoutItsSpendSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.failWith(errors.New("no space left on device"))
		p := start(t, l, hourly, 1)
		for range 3 {
			_, err := p.bucket.Acquire(p.ctx, news)
			if e, ok := errors.AsType[*sources.Error](err); !ok || e.Kind != sources.Temporary {
				t.Fatalf("got %v, expected a temporary error", err)
			}
		}
		l.failWith(nil)
		began := time.Now()
		acquire(t, p).Answered(apiclient.Answer{Remaining: 0})
		if d := time.Since(began); d != 0 {
			t.Errorf("the failures cost the token: waited %s", d)
		}
		if l.count() != 2 {
			t.Errorf("%d saves, expected one before the request and one with its answer", l.count())
		}
	})
}

// TestFastBucketIsSavedSeldom: an idle poll writes nothing but slow budgets.
func TestFastBucketIsSavedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		for range 3 {
			p := start(t, l, chat, 1)
			before := l.count()
			for range 1000 {
				g, other := acquire(t, p), acquire(t, p)
				g.Answered(apiclient.Answer{Remaining: 5})
				other.Answered(apiclient.Answer{Remaining: 5})
			}
			// What it found, one and two on their way beside what it found, and after that.
			if n := l.count() - before; n > 5 {
				t.Errorf("%d saves for 2000 requests", n)
			}
		}
	})
}

// TestCoolingDown: what a 429 says holds, with slack, across restarts, for every
// bucket; and it never brings a request forward.
func TestCoolingDown(t *testing.T) {
	for _, tt := range []struct {
		name  string
		limit apiclient.Limit
		retry time.Duration
		want  time.Duration
	}{
		{"fast, said", chat, 29 * time.Second, 29*time.Second + 580*time.Millisecond + 2*time.Second},
		{"fast, hours", chat, 18236 * time.Second, 18236*time.Second + 364720*time.Millisecond + 2*time.Second},
		{"fast, not said", chat, 0, time.Minute + 1200*time.Millisecond + 2*time.Second},
		{"fast, a week", chat, 7 * 24 * time.Hour, 7*24*time.Hour + 7*24*time.Hour/50 + 2*time.Second},
		{"slow, said", hourly, 3598 * time.Second, 3674 * time.Second}, // the pause after the spend is longer
		{"slow, shorter than the pause", hourly, time.Second, 3674 * time.Second},
		{"slow, longer than the pause", hourly, 2 * time.Hour, 2*time.Hour + 144*time.Second + 2*time.Second},
		{"slow, not said", hourly, 0, 3674*time.Second + 3674*time.Second/50 + 2*time.Second},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restart %v", tt.name, restart), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := newLedger()
					p := start(t, l, tt.limit, 1)
					time.Sleep(2 * tt.limit.Interval) // some saved up
					acquire(t, p).Answered(apiclient.Answer{Remaining: -1, Throttled: true, RetryAfter: tt.retry})
					if restart {
						p.kill()
						time.Sleep(5 * time.Second)
						p = start(t, l, tt.limit, 1)
						tt.want -= 5 * time.Second
					}
					if d := next(t, p); !near(d, tt.want, 10*time.Millisecond) {
						t.Errorf("next request in %s, expected in %s", d, tt.want)
					}
					time.Sleep(tt.want)
					began := time.Now()
					acquire(t, p).Answered(apiclient.Answer{Remaining: -1})
					if d := time.Since(began); d > 10*time.Millisecond {
						t.Errorf("not open after the time was over: another %s", d)
					}
					if d := next(t, p); d < tt.limit.Interval*9/10 {
						t.Errorf("more than one token after a cool-down: another in %s", d)
					}
				})
			})
		}
	}
}

// TestRestartAfterACoolDown: the bucket that somebody drained is not full when a
// process starts after the cool-down.
func TestRestartAfterACoolDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		limit, share := documented["returns"], 0.3 // slow, with several tokens
		p := start(t, l, limit, share)
		acquire(t, p).Answered(apiclient.Answer{Remaining: -1, Throttled: true, RetryAfter: time.Hour})
		p.kill()
		time.Sleep(time.Hour + time.Hour/50 + 3*time.Second)
		p = start(t, l, limit, share)
		acquire(t, p).Answered(apiclient.Answer{Remaining: -1})
		if d := next(t, p); d < 8*time.Second {
			t.Errorf("a second token after %s: the cool-down left the bucket full", d)
		}
	})
}

// TestStormsDoNotLoop: 429 after 429, told to come back at once, gets fewer and
// fewer requests; several refused at one time are one storm.
func TestStormsDoNotLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, newLedger(), chat, 1)
		n := 0
		for began := time.Now(); time.Since(began) < 3*time.Hour; n++ {
			acquire(t, p).Answered(apiclient.Answer{Remaining: -1, Throttled: true, RetryAfter: time.Second})
		}
		if n < 15 || n > 40 {
			t.Errorf("%d requests in 3 hours of refusals, expected about 25", n)
		}
		acquire(t, p).Answered(apiclient.Answer{Remaining: 5})
		time.Sleep(time.Minute)
		var storm []*apiclient.Grant
		for range 5 {
			storm = append(storm, acquire(t, p))
		}
		for _, g := range storm {
			g.Answered(apiclient.Answer{Remaining: -1, Throttled: true, RetryAfter: time.Second})
		}
		if d := next(t, p); d > 9*time.Second {
			t.Errorf("five refusals of one storm count as five: next in %s", d)
		}
	})
}

// TestRemainingOnlyLowers: the header lowers what the client believes to what is
// surely left, in whatever order the answers come, and never raises it.
func TestRemainingOnlyLowers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &meter{limit: chat}
		p := start(t, newLedger(), chat, 1)
		time.Sleep(time.Minute)
		m.drain(9) // somebody else; one is left
		if err := p.send(m, after(0), 0, true); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			if err := p.send(m, after(0), 0, true); err != nil {
				t.Fatal(err)
			}
		}
		m.check(t)

		// A fraction of a token is no token.
		time.Sleep(time.Minute)
		for range 9 {
			acquire(t, p).Answered(apiclient.Answer{Remaining: -1})
		}
		time.Sleep(3700 * time.Millisecond)
		m.drain(9)
		for range 3 {
			if err := p.send(m, after(0), 0, true); err != nil {
				t.Fatal(err)
			}
		}
		m.check(t)

		// Overlapping: the first answer, which knows least, comes last.
		time.Sleep(time.Minute)
		m.drain(6)
		var sent []*apiclient.Grant
		var left []int
		for range 4 {
			sent = append(sent, acquire(t, p))
			n, _ := m.arrive()
			left = append(left, n)
		}
		for i := len(sent) - 1; i >= 0; i-- {
			sent[i].Answered(apiclient.Answer{Remaining: left[i]})
		}
		for range 5 {
			if err := p.send(m, after(0), 0, true); err != nil {
				t.Fatal(err)
			}
		}
		m.check(t)

		// A header that says more than there can be changes nothing.
		empty := start(t, newLedger(), chat, 1)
		acquire(t, empty).Answered(apiclient.Answer{Remaining: 1e9})
		if d := next(t, empty); d < 990*time.Millisecond {
			t.Errorf("Remaining raised the bucket: next in %s", d)
		}
	})
}

// TestBudgetWaitIsSaidAtOnce: also by those who stand behind others in the queue.
func TestBudgetWaitIsSaidAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, newLedger(), hourly, 1)
		acquire(t, p).Answered(apiclient.Answer{Remaining: 0})
		p.wg.Go(func() { // without a deadline, for hours
			acquire(t, p).Answered(apiclient.Answer{Remaining: 0})
		})
		synctest.Wait()
		began := time.Now()
		ctx, cancel := context.WithTimeout(p.ctx, 100*time.Minute)
		defer cancel()
		_, err := p.bucket.Acquire(ctx, news)
		if !isBudgetWait(err) || time.Since(began) != 0 {
			t.Errorf("after %s: %v, expected a budget wait at once", time.Since(began), err)
		}
		ctx, cancel = context.WithTimeout(p.ctx, 3*time.Hour)
		defer cancel()
		if _, err := p.bucket.Acquire(ctx, news); err != nil {
			t.Errorf("in time: %v", err)
		}
		p.kill()
		p.wg.Wait()
	})
}

// TestSmallestShareHolds for accounts of one seller, and is no way to more.
func TestSmallestShareHolds(t *testing.T) {
	for _, limit := range documented {
		synctest.Test(t, func(t *testing.T) {
			m := &meter{limit: limit}
			l := newLedger()
			budgets := apiclient.NewBudgets(l, slog.New(slog.DiscardHandler))
			ctx, cancel := context.WithCancel(t.Context())
			p := &process{ctx: ctx, kill: cancel}
			for i, share := range []float64{1, 0.5, 0.9, 0.2} {
				b, err := budgets.Bucket(key, fmt.Sprint(i), believed(limit), share)
				if err != nil {
					t.Fatal(err)
				}
				if p.bucket != nil && p.bucket != b {
					t.Fatal("accounts of one seller have buckets of their own")
				}
				p.bucket = b
				for range 5 {
					if err := p.send(m, after(0), 0, true); err != nil {
						t.Fatal(err)
					}
				}
			}
			began, before := time.Now(), m.count()
			for range 10 {
				if err := p.send(m, after(0), 0, true); err != nil {
					t.Fatal(err)
				}
			}
			if got, least := time.Since(began), time.Duration(m.count()-before-1)*limit.Interval*5; got < least {
				t.Errorf("10 requests in %s, a share of 0.2 takes %s", got, least)
			}
			m.check(t)
			cancel()
		})
	}
}

// TestBadBudgets: what cannot be a budget is refused, also a damaged saved one.
func TestBadBudgets(t *testing.T) {
	l := newLedger()
	budgets := apiclient.NewBudgets(l, slog.New(slog.DiscardHandler))
	nan := 0.0
	nan /= nan
	for _, tt := range []struct {
		limit apiclient.Limit
		share float64
	}{{chat, 0}, {chat, -1}, {chat, 1.01}, {chat, nan}, {apiclient.Limit{Interval: time.Second}, 1}, {apiclient.Limit{Burst: 1}, 1}} {
		if _, err := budgets.Bucket(key, "a", tt.limit, tt.share); err == nil {
			t.Errorf("%+v is accepted", tt)
		}
	}
	for _, raw := range []string{"", "null", "{}", `{"v":2}`, `{"v":1,"full_at":"x"}`, "\x00"} {
		if err := l.Save(key.String(), []byte(raw)); err != nil {
			t.Fatal(err)
		}
		if _, err := budgets.Bucket(key, "a", chat, 1); err == nil {
			t.Errorf("saved budget %q is accepted", raw)
		}
	}
}

// TestReloadedAccountIsShownOnce: the collector survives an account that is
// opened again.
func TestReloadedAccountIsShownOnce(t *testing.T) {
	budgets := apiclient.NewBudgets(newLedger(), slog.New(slog.DiscardHandler))
	for range 2 {
		for _, account := range []string{"b", "a"} {
			if _, err := budgets.Bucket(key, account, chat, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(budgets)
	got, err := reg.Gather()
	if err != nil || len(got) != 1 || len(got[0].Metric) != 2 {
		t.Errorf("gathered %v, %v; expected two gauges", got, err)
	}
}

// TestCooldownsOfAWrongClock: a time that nobody can have said was saved by a clock
// that ran ahead. It must not shut the bucket for years.
func TestCooldownsOfAWrongClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, limit := range []apiclient.Limit{chat, hourly} {
			l := newLedger()
			saved := fmt.Sprintf(`{"v":1,"full_at":%[1]d,"not_before":%[1]d}`, time.Now().AddDate(5, 0, 0).UnixMilli())
			if err := l.Save(key.String(), []byte(saved)); err != nil {
				t.Fatal(err)
			}
			p := start(t, l, limit, 1)
			if d := next(t, p); d < limit.Interval || d > limit.Interval*11/10+2*time.Minute {
				t.Errorf("%+v: the next request is %s away", limit, d)
			}
		}
	})
}

// TestBudgetsAreSavedAtTheEnd: the watch over the clock saves what has to outlive
// the process, and a restart after it waits as long as one without.
func TestBudgetsAreSavedAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		budgets := apiclient.NewBudgets(l, slog.New(slog.DiscardHandler))
		b, err := budgets.Bucket(key, "a", hourly, 1)
		if err != nil {
			t.Fatal(err)
		}
		g, err := b.Acquire(t.Context(), news)
		if err != nil {
			t.Fatal(err)
		}
		g.Answered(apiclient.Answer{Remaining: 0})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			budgets.Run(ctx)
			close(done)
		}()
		time.Sleep(10 * time.Minute)
		before := l.count()
		stop()
		<-done
		if n := l.count() - before; n != 1 {
			t.Errorf("%d saves at the end", n)
		}
		p := start(t, l, hourly, 1)
		if d, want := next(t, p), 62*time.Minute-48*time.Second+2*time.Second-10*time.Minute; !near(d, want, 10*time.Second) {
			t.Errorf("after a restart the next request is %s away, want %s", d, want)
		}
	})
}
