package apiclient_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources/apiclient"
)

const (
	timeout = 30 * time.Second // of a request, from its token on
	maxWay  = 30 * time.Second // that it is on its way after it left
)

// world is all that lies around the processes of one seller's bucket: the
// marketplace, the way there, and the machine with its clocks and its disk. The
// bubble's time is the processes' monotonic clock.
type world struct {
	limit apiclient.Limit
	m     *meter
	serve func(l *letter) apiclient.Answer // what the marketplace answers; w.mu is held
	disk  *ledger

	mu      sync.Mutex
	slept   time.Duration // the marketplace's clock is as far ahead
	wall    time.Duration // the machine's wall clock is as far ahead
	way     []*letter     // sorted by due
	kick    chan struct{}
	drained int // times that a stranger came
	heard   int // the last of them that the client knows of
}

// letter is a request on its way.
type letter struct {
	due     time.Time // by the marketplace's clock
	knew    int       // what the client knew of strangers, when it was paid for
	tells   int       // what of strangers the answer can tell
	arrived chan apiclient.Answer
}

func newWorld(limit apiclient.Limit) *world {
	w := &world{limit: limit, m: &meter{limit: limit}, disk: newLedger(), kick: make(chan struct{}, 1)}
	w.serve = func(l *letter) apiclient.Answer {
		remaining, retry := w.m.arriveAt(l.due)
		if retry > 0 && l.knew < w.drained { // it is not the client's fault
			w.m.mu.Lock()
			w.m.refused = w.m.refused[:len(w.m.refused)-1]
			w.m.mu.Unlock()
		}
		if retry > 0 {
			return apiclient.Answer{Remaining: -1 - w.drained, Throttled: true, RetryAfter: retry.Truncate(time.Second) + time.Second}
		}
		return apiclient.Answer{Remaining: remaining}
	}
	return w
}

// deliver hands the letters over when they are due, until ctx ends and there are
// none any more.
func (w *world) deliver(ctx context.Context) {
	for {
		w.mu.Lock()
		for now := time.Now().Add(w.slept); len(w.way) > 0 && !w.way[0].due.After(now); w.way = w.way[1:] {
			l := w.way[0]
			l.arrived <- w.serve(l)
		}
		var next <-chan time.Time
		if len(w.way) > 0 {
			next = time.After(w.way[0].due.Sub(time.Now().Add(w.slept)))
		} else if ctx.Err() != nil {
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		done := ctx.Done()
		if next != nil {
			done = nil
		}
		select {
		case <-next:
		case <-w.kick:
		case <-done:
		}
	}
}

func (w *world) again() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

func (w *world) post(takes time.Duration, knew int) *letter {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := &letter{due: time.Now().Add(w.slept + takes), knew: knew, arrived: make(chan apiclient.Answer, 1)}
	w.way = append(w.way, l)
	slices.SortStableFunc(w.way, func(a, b *letter) int { return a.due.Compare(b.due) })
	w.again()
	return l
}

// sleep suspends the machine: the marketplace, the network and the wall clock go
// on.
func (w *world) sleep(d time.Duration) {
	d = d.Truncate(time.Millisecond) // what is saved is as coarse
	w.mu.Lock()
	w.slept += d
	w.wall += d
	w.mu.Unlock()
	w.again()
	synctest.Wait()
}

func (w *world) setClock(by time.Duration) {
	w.mu.Lock()
	w.wall += by.Truncate(time.Millisecond)
	w.mu.Unlock()
}

func (w *world) stranger(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.m.drainAt(time.Now().Add(w.slept), n)
	w.drained++
}

func (w *world) knows() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.heard
}

// Load and Save put the times of the machine's wall clock into what is on the disk,
// and take them from it.
func (w *world) Load(key string) ([]byte, bool, error) {
	value, stale, err := w.disk.Load(key)
	return w.shift(value, -1), stale, err
}

func (w *world) Save(key string, value []byte) error { return w.disk.Save(key, w.shift(value, 1)) }

func (w *world) shift(value []byte, sign float64) []byte {
	if value == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	by := sign * float64(w.wall.Milliseconds())
	var all map[string]any
	if err := json.Unmarshal(value, &all); err != nil {
		panic(err)
	}
	for _, name := range []string{"full_at", "landing", "not_before", "at"} {
		if t, ok := all[name].(float64); ok {
			all[name] = t + by
		}
	}
	shifted, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	return shifted
}

// life is one process of syncd.
type life struct {
	w       *world
	budgets *apiclient.Budgets
	bucket  *apiclient.Bucket
	ctx     context.Context
	kill    context.CancelFunc
}

func (w *world) start(t *testing.T, accounts int, share func() float64) *life {
	t.Helper()
	ctx, kill := context.WithCancel(context.Background())
	p := &life{w: w, budgets: apiclient.NewBudgets(w, slog.New(slog.DiscardHandler)), ctx: ctx, kill: kill}
	for i := range accounts {
		p.configure(t, i, share())
	}
	return p
}

func (p *life) configure(t *testing.T, account int, share float64) {
	t.Helper()
	b, err := p.budgets.Bucket(key, fmt.Sprint(account), believed(p.w.limit), share)
	if err != nil {
		t.Fatal(err)
	}
	if p.bucket == nil {
		p.bucket = b
	}
}

// request is one of p's, or of a command that was lent a token and goes on when p
// dies. It waits for a connection, is on its way there for so long, and its answer
// back; gives up, if not negative, is when the connection breaks.
func (p *life) request(lent bool, connect, there, back, givesUp time.Duration, tell bool) {
	if p.ctx.Err() != nil {
		return // the dead do nothing
	}
	g, err := (*apiclient.Grant)(nil), error(nil)
	if lent {
		g, err = p.budgets.Reserve(p.ctx, key, believed(p.w.limit), 1, "check")
	} else {
		g, err = p.bucket.Acquire(p.ctx, news)
	}
	if err != nil {
		time.Sleep(time.Second)
		return
	}
	knew := p.w.knows()
	alive, end := p.ctx, time.After(timeout)
	if lent {
		alive = context.Background()
	}
	select { // waits for a connection
	case <-alive.Done():
		return
	case <-end:
		g.Answered(apiclient.Answer{Remaining: -1})
		return
	case <-time.After(connect):
	}
	if alive.Err() != nil { // both at once
		return
	}
	l := p.w.post(there, knew)
	var broken <-chan time.Time
	if givesUp >= 0 {
		broken = time.After(givesUp)
	}
	answer := apiclient.Answer{Remaining: -1, Lost: true}
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
		case <-time.After(back):
			answer = a
		}
	}
	if p.ctx.Err() != nil {
		return
	}
	if answer.Throttled {
		p.w.mu.Lock()
		p.w.heard = max(p.w.heard, -1-answer.Remaining)
		p.w.mu.Unlock()
		answer.Remaining = -1
	}
	if !tell {
		answer.Remaining = -1
	}
	g.Answered(answer)
}

// odd are buckets that no marketplace documents: slow ones with a burst.
var odd = map[string]apiclient.Limit{
	"download": {Interval: 6 * time.Minute, Burst: 1}, "slow": {Interval: 12 * time.Second, Burst: 10}, "slow pair": {Interval: 15 * time.Second, Burst: 2},
}

// TestWorlds is G1 in random worlds: each request takes up to half a minute to
// leave and as long to arrive, on its own, and its answer is late as well or never
// comes; processes are killed at any moment, the last may have been another file's;
// the machine sleeps, its clock is set, its disk is full, the shares change, and
// tokens are lent. No request finds the bucket empty, but for those that were paid
// for when a stranger's spending could not be known.
func TestWorlds(t *testing.T) {
	seeds := uint64(30)
	if testing.Short() {
		seeds = 4
	}
	limits := make(map[string]apiclient.Limit)
	for _, all := range []map[string]apiclient.Limit{documented, odd} {
		for name, limit := range all {
			limits[name] = limit
		}
	}
	for name, limit := range limits {
		sent := 0
		for seed := range seeds {
			t.Run(fmt.Sprintf("%s/%d", name, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { sent += live(t, limit, seed) })
			})
		}
		if sent < 15*int(seeds) {
			t.Errorf("%s: only %d requests were sent: the test shows nothing", name, sent)
		}
	}
}

func live(t *testing.T, limit apiclient.Limit, seed uint64) (sent int) {
	r := rand.New(rand.NewPCG(seed, 7))
	w := newWorld(limit)
	var post, all sync.WaitGroup
	over, stop := context.WithCancel(context.Background())
	post.Go(func() { w.deliver(over) })
	pick := func(d ...time.Duration) time.Duration { return d[r.IntN(len(d))] }
	strangers, sick := seed%4 == 1, seed%4 == 2
	stalls := r.IntN(2) == 0 // what is sent into a network that stalls arrives at one moment
	way := pick(0, min(limit.Interval/2, maxWay), 3*time.Second, maxWay, maxWay)
	back := pick(0, min(limit.Interval/2, maxWay), 3*time.Second, 20*time.Second)
	var idle atomic.Int64 // until then nobody wants anything, and the bucket fills up
	clients, accounts, tell := 1+r.IntN(16), 1+r.IntN(2), r.IntN(2) == 0
	shares := []float64{1, 1, 0.9, 0.5, 0.3, 0.05}
	constant := shares[r.IntN(len(shares))]
	varies := r.IntN(2) == 0
	share := func() float64 {
		if varies {
			return shares[r.IntN(len(shares))]
		}
		return constant
	}
	round := min(time.Duration(limit.Burst)*limit.Interval, 30*time.Minute) // a bucket fills up
	var backup map[string][]byte
	for range 25 {
		p := w.start(t, accounts, share)
		for range clients {
			r := rand.New(rand.NewPCG(r.Uint64(), 8))
			all.Go(func() {
				for p.ctx.Err() == nil {
					if r.IntN(20) == 0 {
						time.Sleep(upTo(r, round))
					}
					time.Sleep(time.Until(time.Unix(0, idle.Load())))
					there := upTo(r, way)
					if stalls && way > 0 {
						there = way - time.Duration(time.Now().UnixNano()%int64(way))
					}
					connect, givesUp := time.Duration(0), time.Duration(-1)
					if r.IntN(10) == 0 {
						connect = upTo(r, timeout+time.Second)
					}
					if r.IntN(10) == 0 {
						givesUp = upTo(r, way)
					}
					p.request(r.IntN(20) == 0, connect, there, upTo(r, back), givesUp, tell)
				}
			})
		}
		for range r.IntN(5) {
			time.Sleep(upTo(r, pick(time.Second, 5*limit.Interval, round, 2*round)))
			switch r.IntN(8) {
			case 0:
				if sick { // what the clocks say cannot be saved then
					continue
				}
				w.sleep(upTo(r, pick(time.Second, maxWay, round, 2*time.Hour)))
				time.Sleep(upTo(r, time.Second))
				p.budgets.ClockWasSet()
			case 1:
				if sick {
					continue
				}
				w.setClock(upTo(r, 100*time.Hour) - 50*time.Hour)
				time.Sleep(upTo(r, time.Second))
				p.budgets.ClockWasSet()
			case 2:
				p.configure(t, r.IntN(accounts), share())
			case 3:
				value, _, _ := w.disk.Load(key.String())
				backup = map[string][]byte{key.String(): value}
			case 4:
				if strangers {
					w.stranger(1 + r.IntN(limit.Burst+1))
				}
			case 5:
				if sick {
					w.disk.failWith(errors.New("no space left on device"))
					time.Sleep(upTo(r, round))
					w.disk.failWith(nil)
				}
			default:
				pause := min(upTo(r, 3*round), 30*time.Minute)
				idle.Store(time.Now().Add(pause).UnixNano())
				time.Sleep(pause)
				if stalls && way > 0 && r.IntN(2) == 0 {
					time.Sleep(way - time.Duration(time.Now().UnixNano()%int64(way)) + time.Millisecond)
				}
			}
		}
		time.Sleep(upTo(r, pick(5*time.Millisecond, limit.Interval, 5*time.Second, maxWay, round)))
		if r.IntN(4) == 0 {
			p.budgets.ClockWasSet() // as at the end of one that is not killed
		}
		p.kill()
		time.Sleep(upTo(r, pick(0, 0, time.Second, maxWay, round)))
		if r.IntN(3) == 0 {
			w.sleep(upTo(r, pick(time.Second, maxWay, round)))
		}
		if backup != nil && r.IntN(8) == 0 {
			w.disk.mu.Lock()
			w.disk.kept, w.disk.stale = backup, true
			w.disk.mu.Unlock()
			if backup[key.String()] == nil {
				w.disk.kept = make(map[string][]byte)
			}
			backup = nil
		}
	}
	time.Sleep(2 * time.Minute)
	all.Wait()
	stop()
	post.Wait()
	w.m.check(t)
	return w.m.count()
}
