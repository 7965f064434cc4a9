package apiclient_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/sources/apiclient"
)

// A request that never left used up nothing: a machine whose network comes up late
// loses no hour of a slow budget. One that left is paid for, before and after.
func TestUnsentRequestsCostNoHour(t *testing.T) {
	unsent := apiclient.Answer{Remaining: -1, Unsent: true}
	for _, restart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l := newLedger()
			p := start(t, l, hourly, 1)
			for range 3 {
				acquire(t, p).Answered(unsent)
				if restart {
					p = start(t, l, hourly, 1)
				}
			}
			begin := time.Now()
			acquire(t, p).Answered(answered)
			if d := time.Since(begin); d > time.Millisecond {
				t.Errorf("restart %t: the token comes back after %s", restart, d)
			}
			if restart {
				p = start(t, l, hourly, 1)
			}
			pause := time.Hour + 72*time.Second + 2*time.Second
			if d := next(t, p); !near(d, pause, time.Second) {
				t.Errorf("restart %t: after a request that left the next one may go in %s, want %s", restart, d, pause)
			}
			time.Sleep(pause + time.Second)
			acquire(t, p).Answered(unsent)
			begin = time.Now()
			acquire(t, p).Answered(answered)
			if d := time.Since(begin); d > time.Millisecond {
				t.Errorf("restart %t: the token comes back after %s", restart, d)
			}
		})
	}
}

// Who was stopped past his deadline while he waited spends nothing: a command that
// holds a token lent by the daemon has been written off by then.
func TestNothingIsSpentPastTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		p := start(t, l, chat, 1)
		ctx := stopped{t.Context(), time.Now().Add(10 * time.Second)}
		time.Sleep(time.Minute) // meanwhile there are tokens, and ctx has not noticed yet
		if g, err := p.bucket.Acquire(ctx, news); err == nil {
			g.Answered(answered)
			t.Error("a token was spent past the deadline")
		}
	})
}

// stopped is the context of a process that was stopped: its deadline is over, and
// what would end it has not run yet.
type stopped struct {
	context.Context
	deadline time.Time
}

func (s stopped) Deadline() (time.Time, bool) { return s.deadline, true }

// A spend that waits for the disk does not hold up those who scrape the metrics.
func TestMetricsWaitForNoDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &slowLedger{newLedger()}
		reg := prometheus.NewPedanticRegistry()
		budgets := apiclient.NewBudgets(l, slog.New(slog.DiscardHandler))
		reg.MustRegister(budgets)
		b, err := budgets.Bucket(key, "a", hourly, 1)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			g, err := b.Acquire(t.Context(), news)
			if err != nil {
				t.Error(err)
				return
			}
			g.Answered(answered)
		}()
		synctest.Wait() // it is being saved
		begin := time.Now()
		if _, err := reg.Gather(); err != nil || time.Since(begin) > 0 {
			t.Errorf("gathered after %s: %v", time.Since(begin), err)
		}
		time.Sleep(3 * time.Minute)
	})
}

type slowLedger struct{ *ledger }

func (l *slowLedger) Save(key string, value []byte) error {
	time.Sleep(time.Minute)
	return l.ledger.Save(key, value)
}
