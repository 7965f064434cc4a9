package apiclient

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Budgets holds the buckets of the process, one for each seller and group, so
// that accounts of one seller spend from the same one. It is a Prometheus
// collector for budget_tokens. Safe for concurrent use.
type Budgets struct {
	ledger Ledger
	log    *slog.Logger
	desc   *prometheus.Desc

	mu      sync.Mutex
	buckets map[string]*Bucket
	users   []user
}

type user struct {
	account, budget string
	bucket          *Bucket
}

// NewBudgets returns an empty set of buckets over ledger.
func NewBudgets(ledger Ledger, log *slog.Logger) *Budgets {
	return &Budgets{ledger: ledger, log: log, buckets: make(map[string]*Bucket),
		desc: prometheus.NewDesc("syncd_budget_tokens", "Requests that could be sent at once now.", []string{"account", "budget"}, nil)}
}

// Key names one bucket of the marketplace's. Class is the kind of token, where
// each kind has limits, and so a bucket, of its own.
type Key struct {
	Marketplace, Seller, Group, Class string
}

func (k Key) String() string {
	return k.Marketplace + "/" + k.Seller + "/" + k.Group + "/" + k.Class
}

// Bucket returns the bucket of key for account, making it on first use. Where
// accounts of one seller ask for different shares the smallest holds.
func (b *Budgets) Bucket(key Key, account string, limit Limit, share float64) (*Bucket, error) {
	if limit.Interval <= 0 || limit.Burst < 1 || !(share > 0 && share <= 1) {
		return nil, fmt.Errorf("budget %s: limit %+v with share %v is not a budget", key, limit, share)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	bucket := b.buckets[key.String()]
	if bucket == nil {
		var err error
		if bucket, err = newBucket(key.String(), limit, share, b.ledger, b.log); err != nil {
			return nil, err
		}
		b.buckets[key.String()] = bucket
	} else {
		bucket.lowerShare(share)
	}
	// An account that is opened again, after a reload, replaces its own entry.
	b.users = slices.DeleteFunc(b.users, func(u user) bool { return u.account == account && u.budget == key.Group })
	b.users = append(b.users, user{account, key.Group, bucket})
	return bucket, nil
}

// watchEvery is how often Run looks at the clocks, and jump how far they have to
// part to matter.
const (
	watchEvery = time.Second
	jump       = time.Second
)

// Run watches the wall clock until ctx ends. What is saved speaks of it, so when
// it is set (by NTP after a boot, by hand) every bucket that has to outlive the
// process is saved anew, and once more at the end.
func (b *Budgets) Run(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	start, parted := time.Now(), time.Duration(0)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		now := time.Now()
		// Round(0) strips the monotonic reading.
		if d := now.Round(0).Sub(start.Round(0)) - now.Sub(start); ctx.Err() != nil || (d-parted).Abs() > jump {
			if ctx.Err() == nil {
				b.log.Warn("the machine's clock was set", "by", (d - parted).Round(time.Millisecond))
			}
			parted = d
			b.saveAnew()
		}
	}
}

func (b *Budgets) saveAnew() {
	b.mu.Lock()
	buckets := slices.Collect(maps.Values(b.buckets))
	b.mu.Unlock()
	for _, bucket := range buckets {
		if err := bucket.saveAnew(); err != nil {
			b.log.Error("a budget could not be saved: a restart might ask too early", "budget", bucket.key, "err", err)
		}
	}
}

// Describe implements prometheus.Collector.
func (b *Budgets) Describe(ch chan<- *prometheus.Desc) { ch <- b.desc }

// Collect implements prometheus.Collector.
func (b *Budgets) Collect(ch chan<- prometheus.Metric) {
	b.mu.Lock()
	users := slices.Clone(b.users)
	b.mu.Unlock()
	slices.SortFunc(users, func(x, y user) int {
		return cmp.Or(cmp.Compare(x.account, y.account), cmp.Compare(x.budget, y.budget))
	})
	for _, u := range users {
		ch <- prometheus.MustNewConstMetric(b.desc, prometheus.GaugeValue, u.bucket.tokens(), u.account, u.budget)
	}
}

// Metrics are the counters of contract §9 that a request moves.
type Metrics struct {
	requests  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	throttled *prometheus.CounterVec
	wait      *prometheus.HistogramVec
}

// NewMetrics registers the families.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "syncd_api_requests_total",
			Help: "Requests sent to the marketplace, by HTTP status; code none: no answer."}, []string{"account", "stream", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "syncd_api_request_duration_seconds",
			Help:    "From sending a request to the end of its answer.",
			Buckets: []float64{.025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}}, []string{"marketplace", "endpoint"}),
		throttled: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "syncd_api_throttled_total",
			Help: "Answers 429 or 420: somebody else spends the seller's budget."}, []string{"account", "budget"}),
		wait: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "syncd_budget_wait_seconds",
			Help:    "How long a request waited for its token.",
			Buckets: []float64{.001, .01, .1, 1, 5, 15, 60, 300, 900, 3600}}, []string{"marketplace", "budget"}),
	}
	reg.MustRegister(m.requests, m.duration, m.throttled, m.wait)
	return m
}

// Declare makes the families of one stream present before its first request.
func (m *Metrics) Declare(marketplace, account, stream, budget string, endpoints ...string) {
	m.requests.WithLabelValues(account, stream, "200")
	m.throttled.WithLabelValues(account, budget)
	m.wait.WithLabelValues(marketplace, budget)
	for _, e := range endpoints {
		m.duration.WithLabelValues(marketplace, e)
	}
}

func (m *Metrics) requested(account, stream, code string) {
	m.requests.WithLabelValues(account, stream, code).Inc()
}

func (m *Metrics) timed(marketplace, endpoint string, d time.Duration) {
	m.duration.WithLabelValues(marketplace, endpoint).Observe(d.Seconds())
}

func (m *Metrics) wasThrottled(account, budget string) {
	m.throttled.WithLabelValues(account, budget).Inc()
}

func (m *Metrics) waited(marketplace, budget string, d time.Duration) {
	m.wait.WithLabelValues(marketplace, budget).Observe(d.Seconds())
}
