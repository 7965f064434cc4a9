package apiclient_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources/apiclient"
)

// openWindow returns the window of one account over l.
func openWindow(t *testing.T, l apiclient.Ledger, limit apiclient.WindowLimit, share float64) *apiclient.Window {
	t.Helper()
	w, err := apiclient.NewBudgets(l, slog.New(slog.DiscardHandler)).Window(key, "a", limit, share)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestWindowIsUsed: with work to do, at least 97 % of what is usable is used in the
// long run, in every shape and under honest headers; and after the burst with which it
// begins the window is never shut for long: a backlog is spread, and news that come
// meanwhile find a token within a few of its intervals.
func TestWindowIsUsed(t *testing.T) {
	worst, longest := 1., 0.
	for _, limit := range []int{1, 2, 10, 100, 1000} {
		for _, share := range []float64{1, 0.9, 0.3} {
			for _, clients := range []int{1, 8} {
				for _, rolling := range []bool{false, true} {
					if limit == 1000 && (share != 1 || clients == 1) {
						continue // seconds each
					}
					t.Run(fmt.Sprintf("%d/share %v/%d clients/rolling %t", limit, share, clients, rolling), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) {
							used, gap := useWindow(t, limit, share, clients, rolling)
							worst, longest = min(worst, used), max(longest, gap)
						})
					})
				}
			}
		}
	}
	t.Logf("the least that was used: %.2f %%; the longest pause: %.1f intervals", 100*worst, longest)
}

func useWindow(t *testing.T, limit int, share float64, clients int, rolling bool) (used, gap float64) {
	r := rand.New(rand.NewPCG(uint64(limit), uint64(clients)))
	q := &quota{limit: limit, period: time.Hour, rolling: rolling, align: upTo(r, time.Hour), counts: true}
	window := openWindow(t, newLedger(), apiclient.WindowLimit{Calls: limit, Period: time.Hour}, share)
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range clients {
		r := rand.New(rand.NewPCG(uint64(i), 4))
		all.Go(func() {
			for {
				g, err := window.Acquire(ctx, news)
				if err != nil {
					return
				}
				time.Sleep(upTo(r, time.Second))
				mu.Lock()
				a := q.arrive(time.Now())
				mu.Unlock()
				time.Sleep(upTo(r, time.Second))
				g.Answered(a)
			}
		})
	}
	part := float64(usable(limit, share)) * min(1, max(float64(limit)*share, 1./16))
	if float64(limit)*share > 1 {
		part = float64(usable(limit, share))
	}
	hours := max(3, 30/part)
	time.Sleep(time.Minute)
	mu.Lock()
	before := len(q.own)
	mu.Unlock()
	if burst := max(3, usable(limit, share)/5); before > burst+2+int(part/30) {
		t.Errorf("%d requests in the first minute, the burst is %d", before, burst)
	}
	time.Sleep(time.Hour) // what the burst took
	mu.Lock()
	before = len(q.own)
	mu.Unlock()
	time.Sleep(time.Duration(hours * float64(time.Hour)))
	cancel()
	all.Wait()
	if q.refusals > 0 {
		t.Errorf("%d requests were refused", q.refusals)
	}
	used = float64(len(q.own)-before+1) / (hours * part)
	if used < 0.97 {
		t.Errorf("%d requests in %.0f hours, %.1f an hour are usable: %.1f %%", len(q.own)-before, hours, part, 100*used)
	}
	interval := time.Duration(float64(time.Hour) / part)
	for i := max(3, usable(limit, share)/5) + 1; i < len(q.own); i++ {
		gap = max(gap, q.own[i].Sub(q.own[i-1]).Seconds()/interval.Seconds())
	}
	// A slot's calls come back together.
	if most := 3 + (time.Minute.Seconds()+2)/interval.Seconds(); gap > most {
		t.Errorf("a pause of %.1f intervals of %s, expected at most %.1f", gap, interval, most)
	}
	return used, gap
}
