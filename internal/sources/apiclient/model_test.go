package apiclient_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
)

// documented are the buckets of wildberries.md §2, as the marketplace keeps them.
// "3 per 1 s, 333 ms" is taken at its strictest: a third of a second.
var documented = map[string]apiclient.Limit{
	"feedbacks":      {Interval: time.Second / 3, Burst: 6},
	"chat":           {Interval: time.Second, Burst: 10},
	"returns":        {Interval: 3 * time.Second, Burst: 10},
	"base feedbacks": {Interval: 12 * time.Minute, Burst: 1},
	"base chat":      {Interval: time.Hour, Burst: 1},
}

// believed is what the client is told of a documented bucket.
func believed(l apiclient.Limit) apiclient.Limit {
	if l.Interval == time.Second/3 {
		l.Interval = 334 * time.Millisecond
	}
	return l
}

// meter is the marketplace's side of a bucket: capacity Burst, one token back
// each Interval. It is the moment at which the bucket is full again, so a full
// bucket starts to refill when a request arrives.
type meter struct {
	limit apiclient.Limit

	mu       sync.Mutex
	fullAt   time.Time
	refused  []string // requests that found no token, with the time and by how much
	arrivals []time.Time
	unspent  int // fewest tokens that were left
}

// arrive takes a token for a request that arrives now, and says how many are
// left. retry is how long until there is one, if there was none.
func (m *meter) arrive() (remaining int, retry time.Duration) { return m.arriveAt(time.Now()) }

func (m *meter) arriveAt(now time.Time) (remaining int, retry time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.arrivals = append(m.arrivals, now)
	if m.fullAt.Before(now) {
		m.fullAt = now
	}
	spare := time.Duration(m.limit.Burst)*m.limit.Interval - m.fullAt.Sub(now)
	if spare < m.limit.Interval {
		m.refused = append(m.refused, fmt.Sprintf("request %d at %s: %s too early", len(m.arrivals), now.Format("15:04:05.000"), m.limit.Interval-spare))
		return 0, m.limit.Interval - spare
	}
	m.fullAt = m.fullAt.Add(m.limit.Interval)
	remaining = int((spare - m.limit.Interval) / m.limit.Interval)
	if m.unspent = min(m.unspent, remaining); len(m.arrivals) == 1 {
		m.unspent = remaining
	}
	return remaining, 0
}

// drain is somebody else who spends n tokens, or all that there are.
func (m *meter) drain(n int) { m.drainAt(time.Now(), n) }

func (m *meter) drainAt(now time.Time, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fullAt.Before(now) {
		m.fullAt = now
	}
	most := now.Add(time.Duration(m.limit.Burst) * m.limit.Interval)
	if m.fullAt = m.fullAt.Add(time.Duration(n) * m.limit.Interval); m.fullAt.After(most) {
		m.fullAt = most
	}
}

func (m *meter) check(t *testing.T) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, r := range m.refused {
		if i == 3 {
			t.Errorf("… %d of %d requests in all", len(m.refused), len(m.arrivals))
			break
		}
		t.Error("budget overspent: ", r)
	}
}

func (m *meter) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.arrivals)
}

// ledger is what survives a process.
type ledger struct {
	mu    sync.Mutex
	kept  map[string][]byte
	saves int
	fail  error
	stale bool // a copy of what somebody may have gone on with
}

func newLedger() *ledger { return &ledger{kept: make(map[string][]byte)} }

func (l *ledger) Load(key string) ([]byte, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kept[key], l.stale, nil
}

func (l *ledger) Save(key string, value []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return l.fail
	}
	l.saves++
	l.kept[key], l.stale = value, false
	return nil
}

func (l *ledger) failWith(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.saves
}

var key = apiclient.Key{Marketplace: "wildberries", Seller: "s", Group: "g", Class: "c"}

var news = apiclient.Flow{Name: "questions/news", Weight: 1}

// process is one life of syncd with one bucket.
type process struct {
	bucket *apiclient.Bucket
	ctx    context.Context
	kill   context.CancelFunc
	wg     *sync.WaitGroup
}

func start(t *testing.T, l *ledger, limit apiclient.Limit, share float64) *process {
	t.Helper()
	b, err := apiclient.NewBudgets(l, slog.New(slog.DiscardHandler)).Bucket(key, "a", limit, share)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	return &process{bucket: b, ctx: ctx, kill: cancel, wg: new(sync.WaitGroup)}
}

// send pays for one request and sends it. A request that left arrives even if
// the process is killed meanwhile; nobody hears its answer then.
func (p *process) send(m *meter, there func() time.Duration, back time.Duration, tell bool) error {
	g, err := p.bucket.Acquire(p.ctx, news)
	if err != nil {
		return err
	}
	time.Sleep(there())
	remaining, retry := m.arrive()
	time.Sleep(back)
	if p.ctx.Err() != nil {
		return p.ctx.Err()
	}
	a := apiclient.Answer{Remaining: remaining}
	if retry > 0 {
		a = apiclient.Answer{Remaining: -1, Throttled: true, RetryAfter: retry.Truncate(time.Second) + time.Second}
	}
	if !tell {
		a.Remaining = -1
	}
	g.Answered(a)
	return nil
}

func isBudgetWait(err error) bool {
	e, ok := errors.AsType[*sources.Error](err)
	return ok && e.Kind == sources.BudgetWait
}

func after(d time.Duration) func() time.Duration { return func() time.Duration { return d } }
