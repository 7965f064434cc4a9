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

	began time.Time

	mu      sync.Mutex
	buckets map[string]*Bucket
	users   []user
}

// user is an account that spends from a bucket. The budget in metrics is the API
// group of its key.
type user struct {
	account string
	key     Key
	bucket  *Bucket
	share   float64
}

// NewBudgets returns an empty set of buckets over ledger.
func NewBudgets(ledger Ledger, log *slog.Logger) *Budgets {
	return &Budgets{ledger: ledger, log: log, buckets: make(map[string]*Bucket), began: time.Now(),
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
	b.mu.Lock()
	defer b.mu.Unlock()
	bucket, err := b.bucketLocked(key, []string{account}, limit, share)
	if err != nil {
		return nil, err
	}
	// An account that is opened again, after a reload, replaces its own entry. What
	// Reserve came with is nobody's share any more.
	b.users = slices.DeleteFunc(b.users, func(u user) bool { return u.account == account && u.key.Group == key.Group })
	b.users = append(b.users, user{account, key, bucket, share})
	var accounts []string
	for _, u := range b.users {
		if u.bucket == bucket {
			share = min(share, u.share)
			accounts = append(accounts, u.account)
		}
	}
	bucket.change(accounts, share)
	return bucket, nil
}

func (b *Budgets) bucketLocked(key Key, accounts []string, limit Limit, share float64) (*Bucket, error) {
	if limit.Interval <= 0 || limit.Burst < 1 || !(share > 0 && share <= 1) {
		return nil, fmt.Errorf("budget %s: limit %+v with share %v is not a budget", key, limit, share)
	}
	if bucket := b.buckets[key.String()]; bucket != nil {
		return bucket, nil
	}
	bucket, err := newBucket(key, accounts, limit, share, b.ledger, b.log)
	if err == nil {
		b.buckets[key.String()] = bucket
	}
	return bucket, err
}

// Reserve spends one token of a seller's bucket on a request that no account of
// this process sends: that of a command beside it. It waits, and fails, as Acquire
// does: where the token comes only after ctx's deadline the error says at once
// when. flow is the name under which the command stands in the queue, as news do.
//
// A bucket that the process has not used yet is made, with share; one that it has
// keeps the share that its accounts ask for. Metrics and Snapshot do not show it
// for that. Exactly one Answered follows the grant.
func (b *Budgets) Reserve(ctx context.Context, key Key, limit Limit, share float64, flow string) (*Grant, error) {
	b.mu.Lock()
	bucket, err := b.bucketLocked(key, nil, limit, share)
	b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return bucket.acquire(ctx, Flow{Name: flow, Weight: 1}, false)
}

// BudgetStatus is what one account's budget is doing.
type BudgetStatus struct {
	Account, Budget string
	Key             Key
	Limit           Limit         // as documented
	Pause           time.Duration // for one token, with the share that may be used and the slack
	Usable          int           // tokens that are ever spent at once
	Tokens          float64       // requests that could be sent at once now
	Next            time.Time     // when the next request may be sent; not in the future: now
	CoolingUntil    time.Time     // the marketplace's "not before", after a 429; zero: none
	Waiting         int           // requests that wait for a token
}

// Snapshot returns the budgets of all accounts, by account and budget. Accounts of
// one seller show the same bucket.
func (b *Budgets) Snapshot() []BudgetStatus {
	users := b.sortedUsers()
	all := make([]BudgetStatus, len(users))
	for i, u := range users {
		all[i] = u.bucket.status()
		all[i].Account, all[i].Budget, all[i].Key = u.account, u.key.Group, u.key
	}
	return all
}

func (b *Budgets) sortedUsers() []user {
	b.mu.Lock()
	users := slices.Clone(b.users)
	b.mu.Unlock()
	slices.SortFunc(users, func(x, y user) int {
		return cmp.Or(cmp.Compare(x.account, y.account), cmp.Compare(x.key.Group, y.key.Group))
	})
	return users
}

// watchEvery is how often Run looks at the clocks, and jump how far they have to
// part to matter.
const (
	watchEvery = time.Second
	jump       = time.Second
)

// Run watches the wall clock until ctx ends. What is saved speaks of it, so when
// it was set since NewBudgets (by NTP after a boot, by hand) every bucket that has
// to outlive the process is saved anew, and once more at the end: a process that
// ends in order leaves nothing on its way that the next would have to wait for.
//
// A process that dies within watchEvery of a step of more than jump has not seen
// it: to the next one the clock jumped while syncd was stopped, which G1 excludes.
// Smaller steps are within the slack.
func (b *Budgets) Run(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	parted := time.Duration(0)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		now := time.Now()
		// Round(0) strips the monotonic reading.
		if d := now.Round(0).Sub(b.began.Round(0)) - now.Sub(b.began); ctx.Err() != nil || (d-parted).Abs() > jump {
			if ctx.Err() == nil {
				b.log.Warn("the machine's clock was set, or the machine slept", "by", (d - parted).Round(time.Millisecond))
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
			b.log.Error("a budget could not be saved: a restart might ask too early", "budget", bucket.key.String(), "err", err)
		}
	}
}

// Describe implements prometheus.Collector.
func (b *Budgets) Describe(ch chan<- *prometheus.Desc) { ch <- b.desc }

// Collect implements prometheus.Collector.
func (b *Budgets) Collect(ch chan<- prometheus.Metric) {
	for _, u := range b.sortedUsers() {
		ch <- prometheus.MustNewConstMetric(b.desc, prometheus.GaugeValue, u.bucket.tokens(), u.account, u.key.Group)
	}
}
