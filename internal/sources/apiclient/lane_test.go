package apiclient_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/sourcetest"
)

const tooMany = `{"errors":[{"message":"Hit rate limit of 4 parallel requests for businessId 1"}]}`

// crowd is the marketplace's side of a lane: it takes its time over requests, also of
// those who are gone, and refuses the fifth.
type crowd struct {
	takes func() time.Duration

	mu        sync.Mutex
	busy      int
	most      int
	refused   int
	strangers int
	times     []time.Time
	asked     []string
}

func (c *crowd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.busy++
	c.most = max(c.most, c.busy)
	c.times, c.asked = append(c.times, time.Now()), append(c.asked, r.URL.Path)
	full := c.busy+c.strangers > 4
	if full {
		c.refused++
		c.busy--
	}
	c.mu.Unlock()
	if full {
		w.WriteHeader(420)
		_, _ = io.WriteString(w, tooMany)
		return
	}
	time.Sleep(c.takes())
	c.mu.Lock()
	c.busy--
	c.mu.Unlock()
	_, _ = io.WriteString(w, "{}")
}

// laned is a process with a client, a lane and a window.
type laned struct {
	client *apiclient.Client
	lane   *apiclient.Lane
	window *apiclient.Window
	status func() apiclient.BudgetStatus
}

func startLaned(t *testing.T, n *sourcetest.Network, l *ledger) *laned {
	t.Helper()
	budgets := apiclient.NewBudgets(l, slog.New(slog.DiscardHandler))
	w, err := budgets.Window(key, "a", perHour(100_000), 1)
	if err != nil {
		t.Fatal(err)
	}
	return &laned{lane: budgets.Lane(key, 3), window: w, status: func() apiclient.BudgetStatus { return budgets.Snapshot()[0] },
		client: connect(t, n.Transport(t), func(t *testing.T, cfg *apiclient.Config) {
			cfg.Bucket, cfg.Close, cfg.Grace = nil, true, time.Nanosecond
			cfg.Parallel = func(body []byte) bool { return strings.Contains(string(body), "parallel requests") }
		})}
}

func (p *laned) request(ctx context.Context, walk sources.Walk, path string) error {
	_, err := p.client.Do(ctx, apiclient.Request{Stream: "s", Walk: walk, Path: path, Window: p.window, Lane: p.lane})
	return err
}

// TestLane: three of a process are in flight, and never more than four at the
// marketplace, though it goes on for 10 s with those of processes that were killed and
// of requests that were given up.
func TestLane(t *testing.T) {
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 21))
			n := sourcetest.NewNetwork(t)
			c := &crowd{takes: func() time.Duration { return 10 * time.Second }}
			n.Serve(t, c)
			l := newLedger()
			var all sync.WaitGroup
			for range 12 {
				p := startLaned(t, n, l)
				ctx, kill := context.WithCancel(t.Context())
				for range 6 {
					r := rand.New(rand.NewPCG(r.Uint64(), 22))
					all.Go(func() {
						for ctx.Err() == nil {
							ctx, cancel := ctx, context.CancelFunc(func() {})
							if r.IntN(4) == 0 {
								ctx, cancel = context.WithTimeout(ctx, upTo(r, time.Minute)) // gives up
							}
							_ = p.request(ctx, sources.News, "/")
							cancel()
							time.Sleep(time.Millisecond)
						}
					})
				}
				time.Sleep(12*time.Second + upTo(r, 2*time.Minute))
				kill()
				synctest.Wait()
			}
			all.Wait()
			time.Sleep(time.Minute)
			if c.most > 4 || c.most < 4 && seed == 0 || c.refused > 0 {
				t.Errorf("%d were in flight at once, %d refused", c.most, c.refused)
			}
			if len(c.times) < 80 {
				t.Errorf("only %d requests", len(c.times))
			}
		})
	}
}

// TestLaneBacksOff: when the marketplace says that too many are in flight, nothing goes
// for a second, then one at a time, and one more with each half minute; in a row it
// takes longer. The window is not shut for that.
func TestLaneBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := sourcetest.NewNetwork(t)
		c := &crowd{takes: func() time.Duration { return 500 * time.Millisecond }}
		n.Serve(t, c)
		p := startLaned(t, n, newLedger())
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				for ctx.Err() == nil {
					if err := p.request(ctx, sources.News, "/"); err != nil && ctx.Err() == nil {
						e := failure(t, err)
						if d := time.Until(e.Until); e.Kind != sources.RateLimited || e.Scope != sources.ScopeRequest || d <= 0 || d > 30*time.Second {
							t.Errorf("got %v until %s: %+v", err, d, e)
						}
					}
				}
			})
		}
		rate := func(d time.Duration) (most int) { // in flight meanwhile
			c.mu.Lock()
			c.most = 0
			c.mu.Unlock()
			time.Sleep(d)
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.most
		}
		if n := rate(11 * time.Second); n != 1 {
			t.Errorf("%d in flight at the beginning", n)
		}
		time.Sleep(2 * time.Second)
		if n := rate(time.Minute); n != 3 {
			t.Errorf("%d in flight", n)
		}
		c.mu.Lock()
		c.strangers = 4
		c.mu.Unlock()
		time.Sleep(10 * time.Minute)
		c.mu.Lock()
		c.strangers = 0
		tries, last := c.refused, c.times[len(c.times)-1]
		c.mu.Unlock()
		// 1 s, 2, 4, 8, 16, and then half a minute.
		if tries < 20 || tries > 30 {
			t.Errorf("%d tries in 10 minutes", tries)
		}
		if s := p.status(); !s.CoolingUntil.IsZero() {
			t.Errorf("the window is shut: %+v", s)
		}
		time.Sleep(time.Until(last.Add(31 * time.Second)))
		for i, want := range []int{1, 2, 3} {
			if n := rate(25 * time.Second); n != want {
				t.Errorf("%d in flight in half minute %d after it, expected %d", n, i, want)
			}
			time.Sleep(5 * time.Second)
		}
		// The first refusal after a while is the first again.
		c.mu.Lock()
		c.strangers = 4
		at := len(c.times)
		c.mu.Unlock()
		time.Sleep(10 * time.Second)
		c.mu.Lock()
		for i, again := range c.times[at+1:] {
			d := again.Sub(c.times[at+i])
			if d > 500*time.Millisecond && (d < 900*time.Millisecond || d > 1600*time.Millisecond) {
				t.Errorf("tried again after %s", d)
			}
			if d > 500*time.Millisecond {
				break
			}
		}
		if n := len(c.times) - at; n < 4 || n > 7 { // up to three of one storm, then after 1 s, 2 s, 4 s
			t.Errorf("%d tries in 10 s", n)
		}
		c.mu.Unlock()
		stop()
		all.Wait()
	})
}

// TestLaneQueue: news go before what has been waiting longer, who waits holds his
// token and gives it back when he gives up, and who waits for his token holds no
// place.
func TestLaneQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := sourcetest.NewNetwork(t)
		c := &crowd{takes: func() time.Duration { return time.Second }}
		n.Serve(t, c)
		p := startLaned(t, n, newLedger())
		var all sync.WaitGroup
		send := func(walk sources.Walk, path string) {
			all.Go(func() {
				if err := p.request(t.Context(), walk, path); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		for range 5 {
			send(sources.Backfill, "/backfill")
		}
		send(sources.News, "/news")
		if s := p.status(); s.Used != 6 {
			t.Errorf("%d calls count, 6 are paid for", s.Used)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		cancel(gone)
		if err := p.request(ctx, sources.News, "/gone"); !errors.Is(err, gone) {
			t.Errorf("got %v", err)
		}
		ctx, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer stop()
		if err := p.request(ctx, sources.News, "/gone"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if s := p.status(); s.Used != 6 {
			t.Errorf("%d calls count: who gave up keeps his", s.Used)
		}
		all.Wait()
		if i := slices.Index(c.asked, "/news"); i != 1 || slices.Contains(c.asked, "/gone") {
			t.Errorf("asked for %q", c.asked)
		}

		// All tokens are gone: another window's request goes at once.
		g, err := p.window.Acquire(t.Context(), news)
		if err != nil {
			t.Fatal(err)
		}
		g.Answered(apiclient.Answer{Remaining: 0, Throttled: true})
		time.Sleep(15 * time.Second)
		for range 3 {
			all.Go(func() { _ = p.request(t.Context(), sources.News, "/waits") })
		}
		synctest.Wait()
		p2 := *p
		p2.window = openWindow(t, newLedger(), perHour(10), 1)
		began := time.Now()
		if err := p2.request(t.Context(), sources.News, "/other"); err != nil || time.Since(began) > 1100*time.Millisecond {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		all.Wait()
	})
}

// TestClosedWhileInLine: a request that has been granted its call and waits in the lane
// does not leave when the answer to another one says that nothing is left, be it by a
// 420 or by what remains. It goes when the window opens.
func TestClosedWhileInLine(t *testing.T) {
	for _, refused := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			sourcetest.SetClock()
			n := sourcetest.NewNetwork(t)
			var mu sync.Mutex
			var times []time.Time
			until := time.Now().Truncate(time.Hour).Add(time.Hour)
			n.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				mu.Lock()
				times = append(times, time.Now())
				mu.Unlock()
				time.Sleep(2 * time.Second)
				w.Header().Set("X-RateLimit-Resource-Limit", "100000")
				if time.Now().Before(until) {
					w.Header().Set("X-RateLimit-Resource-Remaining", "0")
					w.Header().Set("X-RateLimit-Resource-Until", until.UTC().Format(http.TimeFormat))
					if refused {
						w.WriteHeader(420)
					}
				}
				_, _ = io.WriteString(w, "{}")
			}))
			p := startLaned(t, n, newLedger())
			var all sync.WaitGroup
			for range 4 { // one of them is in flight, in the first seconds of a process
				all.Go(func() { _ = p.request(t.Context(), sources.News, "/") })
			}
			all.Wait()
			early := 0
			for _, at := range times {
				if at.Before(until) {
					early++
				}
			}
			if early != 1 || len(times) != 4 {
				t.Errorf("refused %t: %d requests before %s, expected the one that was in flight; %d in all, expected 4: %v", refused, early, until, len(times), times)
			}
			if s := p.status(); s.Waiting != 0 || s.Used > 4 {
				t.Errorf("%+v", s)
			}
		})
	}
}
