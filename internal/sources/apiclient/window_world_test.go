package apiclient_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources/apiclient"
)

// quota is the marketplace's side of a window, strict, in one of two shapes: periods
// that follow its clock, and the period before each moment.
type quota struct {
	limit   int
	period  time.Duration
	rolling bool
	align   time.Duration // where periods begin
	skew    time.Duration // its clock is as far ahead
	counts  bool          // refused calls count too

	calls    []call
	own      []time.Time
	ownMost  int // own calls in one period, at most
	refusals int
	wrong    []string
}

type call struct {
	at time.Time
	n  int
}

// begin is when the period began in which at lies.
func (q *quota) begin(at time.Time) time.Time {
	if q.rolling {
		return at.Add(-q.period)
	}
	return at.Add(-q.align).Truncate(q.period).Add(q.align)
}

// used counts the calls of the period in which at lies.
func (q *quota) used(at time.Time) (n int) {
	begin := q.begin(at)
	for i := len(q.calls) - 1; i >= 0 && (q.calls[i].at.After(begin) || !q.rolling && q.calls[i].at.Equal(begin)); i-- {
		n += q.calls[i].n
	}
	return n
}

// arrive is a call of ours. It returns the answer with all headers as they should be.
func (q *quota) arrive(at time.Time) apiclient.Answer {
	q.own = append(q.own, at)
	a := apiclient.Answer{Limit: q.limit, Date: at.Add(q.skew).Truncate(time.Second)}
	used := q.used(at)
	if a.Throttled = used >= q.limit; a.Throttled {
		q.refusals++
	}
	if !a.Throttled || q.counts {
		q.calls = append(q.calls, call{at, 1})
		used++
	}
	a.Remaining = max(q.limit-used, 0)
	until := q.begin(at).Add(q.period)
	if q.rolling { // when something comes back
		for i := len(q.calls) - 1; i >= 0 && q.calls[i].at.After(q.begin(at)); i-- {
			until = q.calls[i].at.Add(q.period)
		}
	}
	a.Until = until.Add(q.skew + time.Second - 1).Truncate(time.Second)
	return a
}

// mine counts our calls in the period that ends with at, wherever periods begin.
func (q *quota) mine(at time.Time) (n int) {
	for i := len(q.own) - 1; i >= 0 && q.own[i].After(at.Add(-q.period)); i-- {
		n++
	}
	q.ownMost = max(q.ownMost, n)
	return n
}

// usable is what may be used of a limit.
func usable(limit int, share float64) int {
	return max(1, min(limit-1, int(float64(limit)*share)))
}

// windowLife is one process of syncd.
type windowLife struct {
	w       *world
	q       *quota
	told    int // the limit as documented
	budgets *apiclient.Budgets
	window  *apiclient.Window
	ctx     context.Context
	kill    context.CancelFunc
}

func (w *world) startWindow(t *testing.T, q *quota, told, accounts int, share func() float64) *windowLife {
	t.Helper()
	ctx, kill := context.WithCancel(context.Background())
	p := &windowLife{w: w, q: q, told: told, budgets: apiclient.NewBudgets(w, slog.New(slog.DiscardHandler)), ctx: ctx, kill: kill}
	for i := range accounts {
		p.configure(t, i, share())
	}
	return p
}

func (p *windowLife) configure(t *testing.T, account int, share float64) {
	t.Helper()
	w, err := p.budgets.Window(key, fmt.Sprint(account), apiclient.WindowLimit{Calls: p.told, Period: p.q.period}, share)
	if err != nil {
		t.Fatal(err)
	}
	if p.window == nil {
		p.window = w
	}
}

// windowRequest is how a request fares.
type windowRequest struct {
	flow                 apiclient.Flow
	lent                 bool
	connect, there, back time.Duration
	givesUp              time.Duration // the connection breaks; negative: not
	patience             time.Duration // above 0: the most that it waits for a token
	spoil                func(*apiclient.Answer) (honest bool)
}

func (p *windowLife) request(r windowRequest) {
	if p.ctx.Err() != nil {
		return
	}
	ctx := p.ctx
	if r.patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.patience)
		defer cancel()
	}
	g, err := (*apiclient.Grant)(nil), error(nil)
	if r.lent {
		g, err = p.budgets.ReserveWindow(ctx, key, apiclient.WindowLimit{Calls: p.told, Period: p.q.period}, 1, "check")
	} else {
		g, err = p.window.Acquire(ctx, r.flow)
	}
	if err != nil {
		time.Sleep(time.Second)
		return
	}
	knew := p.w.knows()
	alive, end := p.ctx, time.After(timeout)
	if r.lent {
		alive = context.Background()
	}
	select { // waits for a connection
	case <-alive.Done():
		return
	case <-end:
		g.Answered(apiclient.Answer{Remaining: -1, Unsent: true})
		return
	case <-time.After(r.connect):
	}
	if alive.Err() != nil {
		return
	}
	l := p.w.post(r.there, knew)
	var broken <-chan time.Time
	if r.givesUp >= 0 {
		broken = time.After(r.givesUp)
	}
	answer, told := apiclient.Answer{Remaining: -1, Lost: true}, 0
	select {
	case <-p.ctx.Done():
		return
	case <-end:
	case <-broken:
	case a := <-l.arrived:
		select {
		case <-p.ctx.Done():
			return
		case <-end:
		case <-time.After(r.back):
			answer, told = a, l.tells
		}
	}
	if p.ctx.Err() != nil {
		return
	}
	if r.spoil != nil && !answer.Lost && !r.spoil(&answer) {
		told = 0
	}
	g.Answered(answer)
	if told > 0 {
		p.w.mu.Lock()
		p.w.heard = max(p.w.heard, told)
		p.w.mu.Unlock()
	}
}

// TestWindowWorlds is G1 for windows. In generated worlds a request takes up to half a
// minute to leave and as long to arrive, and its answer is late or never comes;
// processes are killed at any moment, the last may have been another file's; the
// machine sleeps, its clock is set, its disk is full, shares change, tokens are lent;
// headers lag, are missing or nonsense; the limit changes, and strangers spend. In no
// period, wherever it begins, do more of ours arrive than are usable, but for those
// that were paid for when a lower limit could not be known; and where periods follow
// the clock and headers are honest, none is refused but those that were paid for when
// a stranger's spending could not be known.
func TestWindowWorlds(t *testing.T) {
	seeds := uint64(10)
	if testing.Short() {
		seeds = 3
	}
	for _, limit := range []int{1, 2, 5, 30, 250} {
		for _, rolling := range []bool{false, true} {
			var sent, refused int
			for seed := range seeds {
				t.Run(fmt.Sprintf("%d/rolling %t/%d", limit, rolling, seed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						n, r := liveInWindows(t, limit, rolling, seed)
						sent, refused = sent+n, refused+r
					})
				})
			}
			if least := min(limit, 100) * 4 * int(seeds); sent < least {
				t.Errorf("limit %d, rolling %t: only %d requests were sent, expected %d: the test shows nothing", limit, rolling, sent, least)
			}
			t.Logf("limit %d, rolling %t: %d requests, %d refused for others' spending", limit, rolling, sent, refused)
		}
	}
}

func liveInWindows(t *testing.T, limit int, rolling bool, seed uint64) (sent, refused int) {
	r := rand.New(rand.NewPCG(seed, 17))
	pick := func(d ...time.Duration) time.Duration { return d[r.IntN(len(d))] }
	w := newWorld(apiclient.Limit{Interval: time.Second, Burst: 2})
	q := &quota{limit: limit, period: pick(time.Hour, time.Hour, 10*time.Minute), rolling: rolling, counts: r.IntN(2) == 0,
		skew: upTo(r, 6*time.Hour) - 3*time.Hour}
	q.align = upTo(r, q.period)
	strangers, sick, changes, quirks := seed%4 == 1, seed%4 == 2, seed%4 == 3, r.IntN(2) == 0
	shares := []float64{1, 1, 0.9, 0.5, 0.3, 0.05}
	constant, varies := shares[r.IntN(len(shares))], r.IntN(2) == 0
	share := func() float64 {
		if varies {
			return shares[r.IntN(len(shares))]
		}
		return constant
	}
	most := constant // the largest that there can be
	if varies {
		most = 1
	}
	changed := 0 // the event that was the last change of the limit
	w.serve = func(l *letter) apiclient.Answer {
		a := q.arrive(l.due)
		if n, least := q.mine(l.due), usable(q.limit, most); n > least && l.knew >= changed {
			q.wrong = append(q.wrong, fmt.Sprintf("%d requests in a period at %s, %d may be", n, l.due.Format("02 15:04:05"), least))
		}
		if a.Throttled && l.knew >= w.drained && !rolling && !quirks {
			q.wrong = append(q.wrong, fmt.Sprintf("refused at %s, %d own calls of %d", l.due.Format("02 15:04:05"), q.mine(l.due), q.limit))
		}
		l.tells = w.drained
		return a
	}
	// event is something that the client can only hear of.
	event := func(limit, n int) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.drained++
		if limit != q.limit {
			q.limit, changed = limit, w.drained
		}
		if n > 0 {
			q.calls = append(q.calls, call{time.Now().Add(w.slept), n})
		}
	}
	forgets := func(all bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.heard = min(w.heard, changed); all {
			w.heard = 0
		}
	}
	var post, all sync.WaitGroup
	over, stop := context.WithCancel(context.Background())
	post.Go(func() { w.deliver(over) })
	stalls := r.IntN(2) == 0
	way := pick(0, time.Second, 3*time.Second, maxWay)
	back := pick(0, time.Second, 3*time.Second, 20*time.Second)
	clients, accounts := 1+r.IntN(12), 1+r.IntN(2)
	flows := []apiclient.Flow{news, {Name: "follow", Weight: 1. / 2}, {Name: "sweep", Weight: 1. / 4}, {Name: "backfill", Weight: 1. / 16}}
	var idle atomic.Int64
	var backup map[string][]byte
	for range 25 {
		p := w.startWindow(t, q, limit, accounts, share)
		for range clients {
			r := rand.New(rand.NewPCG(r.Uint64(), 18))
			all.Go(func() {
				for p.ctx.Err() == nil {
					if r.IntN(50) == 0 {
						time.Sleep(upTo(r, q.period))
					}
					time.Sleep(time.Until(time.Unix(0, idle.Load())))
					one := windowRequest{flow: flows[r.IntN(len(flows))], lent: r.IntN(20) == 0, there: upTo(r, way), back: upTo(r, back), givesUp: -1}
					if stalls && way > 0 {
						one.there = way - time.Duration(time.Now().UnixNano()%int64(way))
					}
					if r.IntN(10) == 0 {
						one.connect = upTo(r, timeout+time.Second)
					}
					if r.IntN(10) == 0 {
						one.givesUp = upTo(r, way)
					}
					if r.IntN(5) == 0 {
						one.patience = upTo(r, q.period)
					}
					if quirks {
						one.spoil = func(a *apiclient.Answer) bool { return spoil(r, a) }
					}
					p.request(one)
				}
			})
		}
		for range r.IntN(5) {
			time.Sleep(upTo(r, pick(time.Second, time.Minute, q.period/4, q.period)))
			switch r.IntN(7) {
			case 0:
				if !sick { // what the clocks say cannot be saved then
					w.sleep(upTo(r, pick(time.Second, maxWay, q.period/2, 2*q.period)))
					time.Sleep(upTo(r, time.Second))
					p.budgets.ClockWasSet()
				}
			case 1:
				if !sick {
					w.setClock(upTo(r, 100*time.Hour) - 50*time.Hour)
					time.Sleep(upTo(r, time.Second))
					p.budgets.ClockWasSet()
				}
			case 2:
				p.configure(t, r.IntN(accounts), share())
			case 3:
				value, _, _ := w.disk.Load(key.String())
				backup = map[string][]byte{key.String(): value}
			case 4:
				if strangers {
					event(q.limit, 1+r.IntN(limit+1))
				}
				if changes {
					event(max(1, limit/(1+r.IntN(4))*(1+r.IntN(3))), 0)
				}
			case 5:
				if sick {
					w.disk.failWith(errors.New("no space left on device"))
					time.Sleep(upTo(r, q.period/2))
					w.disk.failWith(nil)
				}
			default:
				pause := upTo(r, q.period)
				idle.Store(time.Now().Add(pause).UnixNano())
				time.Sleep(pause)
			}
		}
		time.Sleep(upTo(r, pick(5*time.Millisecond, time.Second, maxWay, q.period/2, 2*q.period)))
		if r.IntN(4) == 0 {
			p.budgets.ClockWasSet() // as at the end of one that is not killed
		}
		p.kill()
		forgets(false)
		time.Sleep(upTo(r, pick(0, 0, time.Second, maxWay, q.period)))
		if r.IntN(3) == 0 {
			w.sleep(upTo(r, pick(time.Second, maxWay, q.period)))
		}
		if backup != nil && r.IntN(8) == 0 {
			w.disk.mu.Lock()
			w.disk.kept, w.disk.stale = backup, true
			w.disk.mu.Unlock()
			if backup[key.String()] == nil {
				w.disk.kept = make(map[string][]byte)
			}
			backup = nil
			forgets(true)
		}
	}
	time.Sleep(2 * time.Minute)
	all.Wait()
	stop()
	post.Wait()
	for i, s := range q.wrong {
		if i == 3 {
			t.Errorf("… %d in all", len(q.wrong))
			break
		}
		t.Error(s)
	}
	if (strangers || changes) == false && q.refusals > 0 {
		t.Errorf("%d requests were refused where nobody else spends", q.refusals)
	}
	return len(q.own), q.refusals
}

// spoil makes headers what they sometimes are. It reports whether they still tell what
// they should.
func spoil(r *rand.Rand, a *apiclient.Answer) bool {
	switch r.IntN(6) {
	case 0:
		a.Remaining = min(a.Remaining+r.IntN(10), a.Limit)
	case 1:
		*a = apiclient.Answer{Remaining: -1, Throttled: a.Throttled}
	case 2:
		a.Until = a.Date.Add(time.Duration(r.IntN(200)-100) * time.Hour)
	case 3:
		a.Until = time.Time{}
	case 4:
		a.Date = time.Time{}
	default:
		return true
	}
	return false
}
