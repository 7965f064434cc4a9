package apiclient_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
)

// order is who got tokens and when, in the order in which they got them: which of
// those that got theirs at one instant was first, it cannot tell.
type order struct {
	mu    sync.Mutex
	names []string
	at    []time.Time
}

func (o *order) add(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.names, o.at = append(o.names, name), append(o.at, time.Now())
}

// instant returns the first and the last that got their tokens when i did.
func (o *order) instant(i int) (int, int) {
	first, last := i, i
	for first > 0 && o.at[first-1].Equal(o.at[i]) {
		first--
	}
	for last+1 < len(o.at) && o.at[last+1].Equal(o.at[i]) {
		last++
	}
	return first, last
}

func (o *order) all() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.names)
}

// wants asks for tokens one after the other until p dies.
func (o *order) wants(p *process, f apiclient.Flow) {
	p.wg.Go(func() {
		for {
			g, err := p.bucket.Acquire(p.ctx, f)
			if err != nil {
				return
			}
			o.add(f.Name)
			g.Answered(apiclient.Answer{Remaining: -1})
		}
	})
}

// TestSharesFollowTheWeights: where all wait all the time, each gets its part of the
// tokens, and none waits longer than its weight says.
func TestSharesFollowTheWeights(t *testing.T) {
	flows := []apiclient.Flow{
		{Name: "questions/news", Weight: 1}, {Name: "feedbacks/news"}, {Name: "questions/sweep", Weight: 1. / 8}, {Name: "feedbacks/sweep", Weight: 1. / 8},
		{Name: "feedbacks/full", Weight: 1. / 8}, {Name: "questions/backfill", Weight: 1. / 16}, {Name: "archive/backfill", Weight: 1. / 16 / 11},
	}
	total := 0.0
	for i := range flows {
		if flows[i].Weight == 0 {
			flows[i].Weight = 1 // what 0 means
		}
		total += flows[i].Weight
	}
	for name, limit := range documented {
		for seed := range uint64(3) {
			t.Run(fmt.Sprint(name, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := start(t, newLedger(), believed(limit), 1)
					var o order
					r := rand.New(rand.NewPCG(seed, 0))
					for _, i := range r.Perm(len(flows)) {
						o.wants(p, flows[i])
						synctest.Wait()
					}
					time.Sleep(2500 * believed(limit).Interval)
					p.kill()
					p.wg.Wait()
					got := o.all()
					for _, f := range flows {
						n, last, gap := 0, -1, 0
						for i, name := range got {
							if name == f.Name {
								n, gap, last = n+1, max(gap, i-last), i
							}
						}
						gap = max(gap, len(got)-last)
						want := float64(len(got)) * f.Weight / total
						if math.Abs(float64(n)-want) > 0.03*want+2 {
							t.Errorf("%s got %d of %d tokens, its weight says %.0f", f.Name, n, len(got), want)
						}
						// Its turn, and one for each of the others.
						if most := total/f.Weight + float64(len(flows)) + 1; float64(gap) > most {
							t.Errorf("%s waited for %d tokens, its weight says %.0f", f.Name, gap, most)
						}
					}
				})
			})
		}
	}
}

// TestOneInTwelve: of a flow of weight 1/11 beside one of weight 1, no twelve
// requests in a row have more than one; and none of thirteen has none. Also where
// the process is started again and again, and the two come in any order.
func TestOneInTwelve(t *testing.T) {
	light := apiclient.Flow{Name: "chats/news", Weight: 1. / 11}
	for _, tt := range []struct {
		name    string
		limit   apiclient.Limit
		share   float64
		crashes bool
	}{
		{"base chat", hourly, 1, false}, {"base chat, crashes", hourly, 1, true}, {"base feedbacks, crashes", documented["base feedbacks"], 0.4, true},
		{"slow with a burst, crashes", documented["returns"], 0.25, true}, {"fast", chat, 1, false},
	} {
		for seed := range uint64(20) {
			t.Run(fmt.Sprint(tt.name, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := rand.New(rand.NewPCG(seed, 0))
					l := newLedger()
					var o order
					for len(o.all()) < 200 {
						p := start(t, l, tt.limit, tt.share)
						pause := time.Duration(float64(tt.limit.Interval) / tt.share)
						flows := []apiclient.Flow{light, {Name: "chat_events/news", Weight: 1}}
						if r.IntN(2) == 0 {
							slices.Reverse(flows)
						}
						for _, f := range flows {
							o.wants(p, f)
							time.Sleep(upTo(r, min(20*time.Second, pause/20)))
						}
						life := 500 * pause
						if tt.crashes { // some before anybody gets a token, some with one that waits when it starts
							life = upTo(r, []time.Duration{pause, 3 * pause, 30 * pause}[r.IntN(3)])
						}
						time.Sleep(life)
						p.kill()
						p.wg.Wait()
						if tt.crashes {
							time.Sleep(upTo(r, 2*pause))
						}
					}
					last := -1
					got := o.all()
					for i, name := range append(got, light.Name) {
						if name != light.Name {
							continue
						}
						near, far := i-last, i-last
						if last >= 0 && i < len(got) {
							lastFirst, lastLast := o.instant(last)
							first, end := o.instant(i)
							near, far = first-lastLast, end-lastFirst
						}
						if far < 12 && last >= 0 && i < len(got) {
							t.Errorf("requests %d and %d of the light flow: %d apart, at least 12 expected", last, i, far)
						}
						if near > 13 && last >= 0 || i > 30 && last < 0 {
							t.Errorf("no request of the light flow from %d to %d", last, i)
						}
						last = i
					}
				})
			})
		}
	}
}

// TestShortLives: over many processes that live for a few tokens each, and of which
// none knows of the others, every flow gets its share of a fast bucket.
func TestShortLives(t *testing.T) {
	flows := []apiclient.Flow{{Name: "chat_events/news", Weight: 1}, {Name: "chats/sweep", Weight: 1. / 4}, {Name: "chats/news", Weight: 1. / 11}}
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 1))
		l := newLedger()
		var o order
		for range 500 {
			p := start(t, l, chat, 1)
			budgets := apiclient.NewBudgets(l, slog.New(slog.DiscardHandler))
			p.bucket, _ = budgets.Bucket(key, "a", chat, 1)
			for _, i := range r.Perm(len(flows)) {
				o.wants(p, flows[i])
			}
			time.Sleep(upTo(r, 10*time.Second))
			budgets.ClockWasSet() // killed with a request on its way, many of them would get nothing
			p.kill()
			p.wg.Wait()
		}
		got := o.all()
		for _, f := range flows {
			n := 0
			for _, name := range got {
				if name == f.Name {
					n++
				}
			}
			// Four and a half standard deviations of a coin that falls so.
			part := f.Weight / (1 + 1./4 + 1./11)
			want := part * float64(len(got))
			if off := math.Abs(float64(n) - want); off > 4.5*math.Sqrt(want*(1-part)) {
				t.Errorf("%s got %d of %d tokens, its weight says %.0f", f.Name, n, len(got), want)
			}
		}
		if len(got) < 1500 {
			t.Errorf("only %d tokens", len(got))
		}
	})
}

// TestOnceAnHour: a command that is run when there is one token, and in which one
// flow is always quicker than the others, gives all of them their turns.
func TestOnceAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		var o order
		for range 60 {
			p := start(t, l, hourly, 1)
			for _, name := range []string{"quick", "second", "last"} {
				o.wants(p, apiclient.Flow{Name: name, Weight: 1})
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(time.Minute)
			p.kill()
			p.wg.Wait()
			time.Sleep(time.Hour + 2*time.Minute)
		}
		got := o.all()
		for i := 3; i < len(got); i++ {
			if got[i] != got[i-3] || got[i] == got[i-1] || got[i] == got[i-2] {
				t.Fatalf("not in turns: %q", got)
			}
		}
		if len(got) != 60 {
			t.Errorf("%d tokens of 60 were used", len(got))
		}
	})
}

// TestNobodyWaitsForWhoIsGone: a flow that an earlier process had, and this one has
// not, holds up the others for moments at the start, and after a day not at all.
func TestNobodyWaitsForWhoIsGone(t *testing.T) {
	gone, stays := apiclient.Flow{Name: "gone"}, apiclient.Flow{Name: "stays"}
	for _, tt := range []struct {
		down, up    time.Duration
		least, most time.Duration
	}{
		{2 * time.Hour, 0, time.Second, time.Minute},
		{2 * time.Hour, time.Minute, 0, 0},
		{25 * time.Hour, 0, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newLedger()
			spend := func(p *process, f apiclient.Flow) time.Duration {
				began := time.Now()
				g, err := p.bucket.Acquire(p.ctx, f)
				if err != nil {
					t.Fatal(err)
				}
				g.Answered(apiclient.Answer{Remaining: 0})
				return time.Since(began)
			}
			p := start(t, l, hourly, 1)
			spend(p, gone)
			spend(p, stays)
			spend(p, stays) // it is the other's turn
			p.kill()
			time.Sleep(tt.down)
			p = start(t, l, hourly, 1)
			time.Sleep(tt.up)
			if d := spend(p, stays); d < tt.least || d > tt.most {
				t.Errorf("%s after the end of the last process, and %s after the beginning of this one: waited %s", tt.down, tt.up, d)
			}
			p.kill()
		})
	}
}

// TestBudgetWaitIsRight: what is said of a wait is when the token comes, if nobody
// else comes meanwhile.
func TestBudgetWaitIsRight(t *testing.T) {
	for _, limit := range []apiclient.Limit{hourly, chat, documented["feedbacks"]} {
		for seed := range uint64(20) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 0))
				p := start(t, newLedger(), believed(limit), 1)
				var o order
				o.wants(p, apiclient.Flow{Name: "sweep", Weight: 1. / 8}) // some history
				time.Sleep(upTo(r, 20*limit.Interval))
				p2 := &process{bucket: p.bucket, ctx: t.Context()}
				p.kill()
				p.wg.Wait()
				acquire(t, p2).Answered(apiclient.Answer{Remaining: -1})
				flows := []apiclient.Flow{news, {Name: "feedbacks/news"}, {Name: "sweep", Weight: 1. / 8}, {Name: "full", Weight: 1. / 8}, {Name: "backfill", Weight: 1. / 16}}
				for range r.IntN(12) {
					f := flows[r.IntN(len(flows))]
					p.wg.Go(func() {
						if g, err := p2.bucket.Acquire(p2.ctx, f); err == nil {
							g.Answered(apiclient.Answer{Remaining: -1})
						}
					})
					synctest.Wait()
				}
				f := flows[r.IntN(len(flows))]
				ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
				defer cancel()
				_, err := p2.bucket.Acquire(ctx, f)
				if !isBudgetWait(err) {
					t.Fatalf("got %v", err)
				}
				said := sources.AsError(err).Until
				g, err := p2.bucket.Acquire(t.Context(), f)
				if err != nil {
					t.Fatal(err)
				}
				g.Answered(apiclient.Answer{Remaining: -1})
				if d := time.Until(said); !near(d, 0, 2*time.Second) && limit == hourly || !near(d, 0, 10*time.Millisecond) && limit != hourly {
					t.Errorf("seed %d: the token came %s before it was said to", seed, d)
				}
				p.wg.Wait()
			})
		}
	}
}

// TestNewsGoFirst: news that come after a pause get the next token, whatever is
// backlogged. A pause is one in which each of the others had a turn; where it was
// shorter, each of them may have one first.
func TestNewsGoFirst(t *testing.T) {
	backfill := []apiclient.Flow{{Name: "backfill", Weight: 1. / 16}}
	many := slices.Clone(backfill)
	for i := range 5 {
		many = append(many, apiclient.Flow{Name: fmt.Sprint("sweep ", i), Weight: 1. / 8})
	}
	for _, tt := range []struct {
		backlog []apiclient.Flow
		pause   int // tokens, at least
		first   int // others that may go first
	}{{backfill, 2, 0}, {backfill, 0, 1}, {many, len(many) + 2, 0}, {many, 0, len(many)}} {
		for _, limit := range []apiclient.Limit{hourly, chat} {
			for seed := range uint64(5) {
				synctest.Test(t, func(t *testing.T) {
					r := rand.New(rand.NewPCG(seed, 0))
					p := start(t, newLedger(), limit, 1)
					var o order
					for _, f := range tt.backlog {
						o.wants(p, f)
					}
					acquire(t, p).Answered(apiclient.Answer{Remaining: -1}) // from here on they are remembered
					for range 200 {
						time.Sleep(time.Duration(tt.pause)*limit.Interval*11/10 + upTo(r, 20*limit.Interval))
						synctest.Wait()
						before := len(o.all())
						acquire(t, p).Answered(apiclient.Answer{Remaining: -1})
						if n := len(o.all()) - before; n > tt.first {
							t.Fatalf("%d others went before the news, %d may", n, tt.first)
						}
					}
					p.kill()
					p.wg.Wait()
				})
			}
		}
	}
}

// TestSweepsOfOneMomentDoNotHoldUpNews: all of them come at once, and before it.
func TestSweepsOfOneMomentDoNotHoldUpNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, newLedger(), hourly, 1)
		acquire(t, p).Answered(apiclient.Answer{Remaining: 0})
		var o order
		for i := range 5 {
			o.wants(p, apiclient.Flow{Name: fmt.Sprint("sweep ", i), Weight: 1. / 8})
		}
		synctest.Wait()
		o.wants(p, apiclient.Flow{Name: "feedbacks/news", Weight: 1})
		o.wants(p, news)
		time.Sleep(5 * time.Hour)
		p.kill()
		p.wg.Wait()
		got := o.all()[:4]
		slices.Sort(got)
		if want := []string{"feedbacks/news", "feedbacks/news", news.Name, news.Name}; !slices.Equal(got, want) {
			t.Errorf("the first were %q", got)
		}
	})
}

// TestArrivalWithinAFlow: who came first goes first, and who leaves holds up nobody.
func TestArrivalWithinAFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, newLedger(), hourly, 1)
		acquire(t, p).Answered(apiclient.Answer{Remaining: 0})
		got := make(chan string, 10)
		wait := func(ctx context.Context, name string, f apiclient.Flow) {
			p.wg.Go(func() {
				g, err := p.bucket.Acquire(ctx, f)
				if err != nil {
					got <- name + ": " + err.Error()
					return
				}
				got <- name
				g.Answered(apiclient.Answer{Remaining: 0})
			})
			synctest.Wait()
		}
		history := apiclient.Flow{Name: "questions/backfill", Weight: 1. / 16}
		gone, cancel := context.WithCancelCause(p.ctx)
		wait(gone, "gone", news)
		wait(p.ctx, "history 1", history)
		wait(p.ctx, "history 2", history)
		wait(p.ctx, "news 1", news)
		wait(p.ctx, "news 2", news)
		time.Sleep(time.Minute)
		cancel(errors.New("gave up")) // the first of all leaves: the others must not sleep on
		began := time.Now()
		for i, want := range []string{"gone: gave up", "news 1", "news 2", "history 1", "history 2"} {
			if name := <-got; name != want {
				t.Errorf("%d: got %q, expected %q", i, name, want)
			}
		}
		if d := time.Since(began); d > 4*3675*time.Second {
			t.Errorf("four requests took %s", d)
		}
		p.wg.Wait()
	})
}

// TestOvertakenPastItsDeadline: who is overtaken so that its token comes too late
// hears it then.
func TestOvertakenPastItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t, newLedger(), hourly, 1)
		acquire(t, p).Answered(apiclient.Answer{Remaining: 0})
		failed := make(chan error, 1)
		p.wg.Go(func() {
			ctx, cancel := context.WithTimeout(p.ctx, 90*time.Minute)
			defer cancel()
			_, err := p.bucket.Acquire(ctx, apiclient.Flow{Name: "sweep", Weight: 1. / 8})
			failed <- err
		})
		synctest.Wait()
		began := time.Now()
		p.wg.Go(func() {
			if g, err := p.bucket.Acquire(p.ctx, news); err == nil {
				g.Answered(apiclient.Answer{Remaining: 0})
			}
		})
		if err := <-failed; !isBudgetWait(err) || time.Since(began) != 0 {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		p.kill()
		p.wg.Wait()
	})
}

// TestFailedSavesCostNoTurn: what the ledger could not keep was not spent.
func TestFailedSavesCostNoTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		p := start(t, l, hourly, 1)
		l.failWith(errors.New("no space left on device"))
		for range 50 {
			if _, err := p.bucket.Acquire(p.ctx, news); err == nil {
				t.Fatal("a request without its spend saved")
			}
		}
		l.failWith(nil)
		var o order
		o.wants(p, apiclient.Flow{Name: "feedbacks/news", Weight: 1})
		synctest.Wait() // takes the token
		o.wants(p, news)
		time.Sleep(5 * time.Hour)
		p.kill()
		p.wg.Wait()
		if got := o.all(); len(got) < 3 || got[1] != news.Name {
			t.Errorf("got %q", got)
		}
	})
}

// TestRememberedFlowsAreBounded, and only slow buckets remember any.
func TestRememberedFlowsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, limit := range []apiclient.Limit{hourly, chat} {
			l := newLedger()
			p := start(t, l, limit, 1)
			for i := range 300 {
				g, err := p.bucket.Acquire(p.ctx, apiclient.Flow{Name: fmt.Sprint("flow ", i), Weight: 1. / 11})
				if err != nil {
					t.Fatal(err)
				}
				g.Answered(apiclient.Answer{Remaining: 0})
				if i%7 == 0 {
					p.kill()
					p = start(t, l, limit, 1)
				}
			}
			raw, _, _ := l.Load(key.String())
			var s struct{ Flows map[string]any }
			if err := json.Unmarshal(raw, &s); err != nil || len(s.Flows) > 64 || len(raw) > 8<<10 {
				t.Errorf("%d flows in %d bytes, %v", len(s.Flows), len(raw), err)
			}
			if slow := limit == hourly; (len(s.Flows) > 0) != slow {
				t.Errorf("%+v: %d flows are remembered", limit, len(s.Flows))
			}
			p.kill()
		}
	})
}

// TestDamagedFlows: what a disk made of the tags starves nobody.
func TestDamagedFlows(t *testing.T) {
	for _, flow := range []string{`{"debt":9223372036854775807,"seen":9223372036854775807}`, `{"debt":-9223372036854775808,"seen":-9223372036854775808}`, `{}`, `null`} {
		synctest.Test(t, func(t *testing.T) {
			l := newLedger()
			var all strings.Builder
			for i := range 500 {
				fmt.Fprintf(&all, `"x%d":%s,`, i, flow)
			}
			if err := l.Save(key.String(), fmt.Appendf(nil, `{"v":1,"full_at":1,"flows":{%s%q:%s}}`, all.String(), news.Name, flow)); err != nil {
				t.Fatal(err)
			}
			p := start(t, l, hourly, 1)
			var o order
			o.wants(p, news)
			o.wants(p, apiclient.Flow{Name: "other", Weight: 1})
			time.Sleep(300 * time.Hour)
			p.kill()
			p.wg.Wait()
			if got := o.all(); !slices.Contains(got, news.Name) || !slices.Contains(got, "other") {
				t.Errorf("of %d tokens somebody got none", len(got))
			}
			raw, _, _ := l.Load(key.String())
			if len(raw) > 8<<10 {
				t.Errorf("%d bytes are saved", len(raw))
			}
		})
	}
}
