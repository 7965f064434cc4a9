package apiclient_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources/apiclient"
)

var (
	answered = apiclient.Answer{Remaining: -1}
	lost     = apiclient.Answer{Remaining: -1, Lost: true}
)

// late is a marketplace at the end of a long way.
type late struct {
	t *testing.T
	m *meter
	l *ledger
	p *process

	way *sync.WaitGroup
}

func (l *late) start(share float64) { l.p = start(l.t, l.l, believed(l.m.limit), share) }

// send pays for a request that arrives after d.
func (l *late) send(d time.Duration) *apiclient.Grant {
	l.t.Helper()
	g := acquire(l.t, l.p)
	l.way.Go(func() {
		time.Sleep(d)
		l.m.arrive()
	})
	return g
}

// burst sends all that can be sent at once.
func (l *late) burst(d time.Duration) (all []*apiclient.Grant) {
	l.t.Helper()
	for {
		ctx, cancel := context.WithTimeout(l.p.ctx, time.Nanosecond)
		g, err := l.p.bucket.Acquire(ctx, news)
		cancel()
		if err != nil {
			return all
		}
		all = append(all, g)
		l.way.Go(func() {
			time.Sleep(d)
			l.m.arrive()
		})
	}
}

// restart kills the process and starts another one after d.
func (l *late) restart(d time.Duration, share float64) {
	l.p.kill()
	time.Sleep(d)
	l.start(share)
}

// TestLateArrivals are the worst cases of G1: what was paid for arrives as late as
// it can, when the bucket has just enough for it and not one token more.
func TestLateArrivals(t *testing.T) {
	slow, pair := apiclient.Limit{Interval: 12 * time.Second, Burst: 10}, odd["download"]
	returns := documented["returns"]
	for name, tt := range map[string]struct {
		limit apiclient.Limit
		do    func(l *late)
	}{
		// Requests that ended without an answer are still on their way.
		"lost": {chat, func(l *late) {
			l.start(1)
			time.Sleep(time.Minute)
			for _, g := range l.burst(maxWay) {
				g.Answered(lost)
			}
			for range 25 {
				time.Sleep(time.Second)
				for _, g := range l.burst(0) {
					g.Answered(answered)
				}
			}
		}},
		// When they have arrived the bucket is not as full as if they had not been.
		"lost and arrived": {chat, func(l *late) {
			l.start(1)
			time.Sleep(time.Minute)
			for _, g := range l.burst(maxWay) {
				g.Answered(lost)
			}
			time.Sleep(maxWay + time.Millisecond)
			l.burst(0)
		}},
		"lost, a burst of one": {pair, func(l *late) {
			l.start(1)
			l.send(maxWay).Answered(lost)
			l.send(0)
		}},
		"lost, then a larger share at a restart": {pair, func(l *late) {
			l.start(0.5)
			l.send(maxWay).Answered(lost)
			l.restart(time.Second, 1)
			l.send(0)
		}},
		"lost, then a larger share": {pair, func(l *late) {
			l.start(0.5)
			budgets := apiclient.NewBudgets(l.l, slog.New(slog.DiscardHandler))
			l.p.bucket, _ = budgets.Bucket(key, "a", pair, 0.5)
			l.send(maxWay).Answered(lost)
			if _, err := budgets.Bucket(key, "a", pair, 1); err != nil {
				l.t.Fatal(err)
			}
			l.send(0)
		}},
		"killed, a burst of one": {pair, func(l *late) {
			l.start(1)
			l.send(maxWay)
			l.restart(time.Second, 1)
			l.send(0)
		}},
		"killed, a slow bucket": {slow, func(l *late) {
			l.start(1)
			time.Sleep(time.Hour)
			l.burst(maxWay)
			l.restart(100*time.Second, 1)
			l.burst(0)
		}},
		"killed again and again": {documented["feedbacks"], func(l *late) {
			l.start(1)
			time.Sleep(time.Minute)
			l.burst(maxWay)
			for range 60 {
				l.restart(500*time.Millisecond, 1)
				time.Sleep(400 * time.Millisecond)
				l.burst(maxWay - time.Second)
			}
		}},
		"lost, then killed": {chat, func(l *late) {
			budgets := apiclient.NewBudgets(l.l, slog.New(slog.DiscardHandler))
			l.start(1)
			l.p.bucket, _ = budgets.Bucket(key, "a", believed(chat), 1)
			time.Sleep(time.Minute)
			for i := range 6 {
				if i == 5 {
					time.Sleep(20 * time.Second)
				}
				l.send(maxWay).Answered(lost)
			}
			budgets.ClockWasSet()
			time.Sleep(11 * time.Second)
			for range 5 { // the first five have arrived, the sixth not yet
				l.send(maxWay)
			}
			l.restart(20*time.Second, 1)
			time.Sleep(10*time.Second - time.Millisecond)
			l.burst(0)
		}},
		// Who was lent a token lives on, and sends at the last moment.
		"lent, then killed": {pair, func(l *late) {
			l.start(1)
			l.send(timeout + maxWay)
			l.restart(time.Second, 1)
			l.send(0)
		}},
		"lent of a full bucket, then killed": {chat, func(l *late) {
			l.start(1)
			time.Sleep(time.Minute)
			l.burst(timeout + maxWay)
			l.restart(0, 1)
			time.Sleep(timeout + maxWay - time.Millisecond)
			l.burst(0)
		}},
		// What was saved of a small share is old when a larger one has been in force.
		"a share that was raised and lowered": {returns, func(l *late) {
			budgets := apiclient.NewBudgets(l.l, slog.New(slog.DiscardHandler))
			l.start(0.3)
			l.p.bucket, _ = budgets.Bucket(key, "a", believed(returns), 0.3)
			l.send(0).Answered(answered)
			if _, err := budgets.Bucket(key, "a", believed(returns), 1); err != nil {
				l.t.Fatal(err)
			}
			time.Sleep(time.Minute)
			for range 9 {
				l.send(0).Answered(answered)
			}
			l.restart(0, 0.3)
			l.burst(0)
		}},
		"a share that was raised at a restart": {slow, func(l *late) {
			l.start(0.3)
			time.Sleep(10 * time.Minute)
			l.m.drain(7) // which the answer tells
			l.send(0).Answered(apiclient.Answer{Remaining: 2})
			time.Sleep(48 * time.Second)
			l.m.drain(3)
			l.send(0).Answered(apiclient.Answer{Remaining: 2})
			l.restart(time.Millisecond, 1)
			l.burst(0)
		}},
		// After a refusal there is a token for each that was on its way before it.
		"refused": {chat, func(l *late) {
			l.start(1)
			time.Sleep(time.Minute)
			l.m.drain(10)
			all := l.burst(5 * time.Second)
			all[0].Answered(apiclient.Answer{Remaining: -1, Throttled: true, RetryAfter: time.Second})
			time.Sleep(5 * time.Second)
			l.way.Wait()
			for _, g := range all[1:] {
				g.Answered(answered)
			}
			l.m.mu.Lock()
			l.m.refused = nil // these were paid for before anybody knew
			l.m.mu.Unlock()
			for range 20 {
				for _, g := range l.burst(0) {
					g.Answered(answered)
				}
				time.Sleep(200 * time.Millisecond)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &late{t: t, m: &meter{limit: tt.limit}, l: newLedger(), way: new(sync.WaitGroup)}
				tt.do(l)
				l.way.Wait()
				l.m.check(t)
				if l.m.count() < 2 {
					t.Errorf("%d requests: the test shows nothing", l.m.count())
				}
			})
		})
	}
}

// TestARefusalAfterTheStorm: an answer of before a 429, which comes after it is over
// and is another one, holds as well.
func TestARefusalAfterTheStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, newLedger(), chat, 1)
		time.Sleep(time.Minute)
		first, slow := acquire(t, p), acquire(t, p)
		first.Answered(apiclient.Answer{Remaining: -1, Throttled: true, RetryAfter: time.Second})
		time.Sleep(20 * time.Second)
		acquire(t, p).Answered(apiclient.Answer{Remaining: 5}) // it is over
		slow.Answered(apiclient.Answer{Remaining: -1, Throttled: true, RetryAfter: time.Minute})
		if d := next(t, p); d < time.Minute {
			t.Errorf("the next request is %s away", d)
		}
	})
}

// TestCopies: a copy of the state file knows nothing of what somebody did who went
// on with the original. The bucket counts as empty, with all that it can hold on its
// way; also where the copy is from before the first request, and only until
// something was saved in it.
func TestCopies(t *testing.T) {
	limits := maps.Clone(documented)
	limits["slow"] = apiclient.Limit{Interval: 12 * time.Second, Burst: 10}
	for name, limit := range limits {
		for _, before := range []bool{true, false} {
			t.Run(fmt.Sprint(name, before), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := &late{t: t, m: &meter{limit: limit}, l: newLedger(), way: new(sync.WaitGroup)}
					l.start(1)
					if !before {
						l.send(0).Answered(answered)
					}
					value, _, _ := l.l.Load(key.String())
					time.Sleep(24 * time.Hour)
					l.burst(maxWay)
					began := time.Now()
					restore := func() {
						l.l.mu.Lock()
						defer l.l.mu.Unlock()
						l.l.stale = true
						l.l.kept = map[string][]byte{key.String(): value}
					}
					restore()
					l.restart(0, 1)
					least := maxWay
					if limit.Burst == 1 {
						least = limit.Interval + limit.Interval/50 + 2*time.Second
					}
					if d := next(t, l.p); d < least || d > least+timeout+maxWay+limit.Interval/40+2*time.Second {
						t.Errorf("the first request of a copy is %s away, at least %s expected and not much more", d, least)
					}
					for i := range 3 { // and no later for being tried again and again
						time.Sleep(limit.Interval / 4)
						l.restart(0, 1)
						if d, most := next(t, l.p), timeout+maxWay+limit.Interval*41/40+2*time.Second-time.Since(began); d > most {
							t.Errorf("try %d of a copy: another %s, expected %s at most", i, d, most)
						}
					}
					l.send(0).Answered(answered)
					l.way.Wait()
					l.m.check(t)

					// What a 429 said holds in the copy as well.
					time.Sleep(24 * time.Hour)
					l.send(0).Answered(apiclient.Answer{Remaining: -1, Throttled: true, RetryAfter: 10 * time.Hour})
					value, _, _ = l.l.Load(key.String())
					restore()
					l.restart(0, 1)
					if d := next(t, l.p); d < 10*time.Hour || d > 11*time.Hour {
						t.Errorf("a copy that was told to wait 10 h waits %s", d)
					}
				})
			})
		}
	}
}

// TestAKillCostsOnce: what an earlier process may have had on its way holds up the
// next one for a minute, but not the ones after it; and where little was on its way,
// or all was answered when the process ended in order, nothing is held up.
func TestAKillCostsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &late{t: t, m: &meter{limit: chat}, l: newLedger(), way: new(sync.WaitGroup)}
		l.start(1)
		time.Sleep(time.Minute)
		l.burst(0) // nine
		l.restart(0, 1)
		if d := next(t, l.p); !near(d, time.Minute+time.Second, 10*time.Millisecond) {
			t.Errorf("with all on their way the next request is %s away", d)
		}
		time.Sleep(time.Minute)
		for range 3 {
			l.send(0).Answered(answered)
		}
		for range 3 {
			l.restart(0, 1)
			if d := next(t, l.p); !near(d, time.Second, 10*time.Millisecond) {
				t.Errorf("with one on its way the next request is %s away", d)
			}
		}
		time.Sleep(2 * time.Minute)
		for _, g := range l.burst(0) {
			g.Answered(lost)
		}
		time.Sleep(time.Minute)
		l.send(0).Answered(answered)
		l.restart(0, 1)
		if d := next(t, l.p); !near(d, time.Second, 10*time.Millisecond) {
			t.Errorf("long after nine were on their way the next request is %s away", d)
		}
		budgets := apiclient.NewBudgets(l.l, slog.New(slog.DiscardHandler))
		l.p.bucket, _ = budgets.Bucket(key, "a", chat, 1)
		time.Sleep(2 * time.Minute)
		for _, g := range l.burst(0) {
			g.Answered(answered)
		}
		budgets.ClockWasSet() // as Run does at the end
		l.restart(0, 1)
		if d := next(t, l.p); !near(d, time.Second, 10*time.Millisecond) {
			t.Errorf("with nothing on its way the next request is %s away", d)
		}
		l.way.Wait()
		l.m.check(t)
	})
}

// TestCrashLoopsGoOn: a process that is killed every few seconds still sends what
// the budget has, though what it sends takes its time.
func TestCrashLoopsGoOn(t *testing.T) {
	for name, limit := range documented {
		if limit.Burst == 1 {
			continue
		}
		for _, life := range []time.Duration{2 * limit.Interval, 5 * time.Second, 20 * time.Second} {
			t.Run(fmt.Sprint(name, life), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := &late{t: t, m: &meter{limit: limit}, l: newLedger(), way: new(sync.WaitGroup)}
					l.start(1)
					time.Sleep(time.Minute)
					l.burst(maxWay) // the worst that there can be to begin with
					before := l.m.count()
					began := time.Now()
					for time.Since(began) < 20*time.Minute {
						l.restart(0, 1)
						p := l.p
						for range 3 {
							l.way.Go(func() {
								for p.send(l.m, after(100*time.Millisecond), 0, true) == nil {
								}
							})
						}
						time.Sleep(life)
					}
					l.p.kill()
					l.way.Wait()
					l.m.check(t)
					// Of each life one may be on its way for a minute; when all of them are
					// nothing goes.
					if n, least := l.m.count()-before, 10*(limit.Burst-1); n < least {
						t.Errorf("%d requests in 20 minutes, expected at least %d", n, least)
					}
				})
			})
		}
	}
}
