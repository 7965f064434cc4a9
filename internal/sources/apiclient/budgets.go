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

// Budgets holds the buckets, windows and lanes of the process, one for each seller
// and group, so that accounts of one seller spend from the same one. It is a
// Prometheus collector for budget_tokens. Safe for concurrent use.
type Budgets struct {
	ledger Ledger
	log    *slog.Logger
	desc   *prometheus.Desc

	began time.Time

	mu      sync.Mutex
	budgets map[string]budget
	lanes   map[Key]*Lane
	users   []user
}

// budget is a *Bucket or a *Window.
type budget interface {
	change(accounts []string, share float64)
	level() float64
	status() BudgetStatus
	saveAnew() error
	lacks() bool
}

// user is an account that spends from a budget. The budget in metrics is the API
// group of its key.
type user struct {
	account string
	key     Key
	budget  budget
	share   float64
	asked   time.Time // when it asked for the budget
}

// NewBudgets returns an empty set of budgets over ledger.
func NewBudgets(ledger Ledger, log *slog.Logger) *Budgets {
	return &Budgets{ledger: ledger, log: log, budgets: make(map[string]budget), lanes: make(map[Key]*Lane), began: time.Now(),
		desc: prometheus.NewDesc("syncd_budget_tokens", "Requests that could be sent at once now.", []string{"account", "budget"}, nil)}
}

// Key names one budget of the marketplace's. Class is the kind of token, where
// each kind has limits, and so a budget, of its own.
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
	b.useLocked(key, account, bucket, share)
	return bucket, nil
}

// Window is what Bucket is for windows. What the marketplace has said of the limit
// goes before limit.Calls, also if an earlier process heard it.
func (b *Budgets) Window(key Key, account string, limit WindowLimit, share float64) (*Window, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	window, err := b.windowLocked(key, []string{account}, limit, share)
	if err != nil {
		return nil, err
	}
	b.useLocked(key, account, window, share)
	return window, nil
}

// Lane returns the lane of key, making it on first use with n places, at least 1.
func (b *Budgets) Lane(key Key, n int) *Lane {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.lanes[key]
	if l == nil {
		l = &Lane{line: line{key: key}, most: max(n, 1), began: b.began}
		l.queue.load(nil, time.Now())
		b.lanes[key] = l
	}
	return l
}

// useLocked notes who spends from a budget. An account that is opened again, after a
// reload, replaces its own entry. What Reserve came with is nobody's share any more.
func (b *Budgets) useLocked(key Key, account string, of budget, share float64) {
	gone := b.takeLocked(func(u user) bool { return u.account == account && u.key.Group == key.Group })
	b.users = append(b.users, user{account, key, of, share, time.Now()})
	b.changeLocked(of)
	for _, u := range gone { // with the token of another seller, or of another type
		if u.budget != of {
			b.changeLocked(u.budget)
		}
	}
}

// changeLocked tells a budget whose it is, and the smallest of their shares. One that
// is nobody's any more keeps its last.
func (b *Budgets) changeLocked(of budget) {
	share, accounts := 1., []string(nil)
	for _, u := range b.users {
		if u.budget == of {
			share = min(share, u.share)
			accounts = append(accounts, u.account)
		}
	}
	if len(accounts) > 0 {
		of.change(accounts, share)
	}
}

// Forget says that account does not spend any more from those of its budgets that it
// has not asked for since a time: they are shown no more, and its share counts no more.
// What was spent stays spent.
func (b *Budgets) Forget(account string, since time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, u := range b.takeLocked(func(u user) bool { return u.account == account && u.asked.Before(since) }) {
		b.changeLocked(u.budget)
	}
}

// takeLocked takes users out of the list.
func (b *Budgets) takeLocked(whom func(user) bool) (gone []user) {
	b.users = slices.DeleteFunc(b.users, func(u user) bool {
		if whom(u) {
			gone = append(gone, u)
			return true
		}
		return false
	})
	return gone
}

func (b *Budgets) bucketLocked(key Key, accounts []string, limit Limit, share float64) (*Bucket, error) {
	if limit.Interval <= 0 || limit.Burst < 1 || !(share > 0 && share <= 1) {
		return nil, fmt.Errorf("budget %s: limit %+v with share %v is not a budget", key, limit, share)
	}
	return find(b, key, func() (*Bucket, error) { return newBucket(key, accounts, limit, share, b.ledger, b.log) })
}

func (b *Budgets) windowLocked(key Key, accounts []string, limit WindowLimit, share float64) (*Window, error) {
	if !limit.valid() || !(share > 0 && share <= 1) {
		return nil, fmt.Errorf("budget %s: limit %+v with share %v is not a budget", key, limit, share)
	}
	return find(b, key, func() (*Window, error) { return newWindow(key, accounts, limit, share, b.ledger, b.log) })
}

// find returns the budget of key, making it on first use. b.mu is held.
func find[T budget](b *Budgets, key Key, anew func() (T, error)) (T, error) {
	if old := b.budgets[key.String()]; old != nil {
		t, ok := old.(T)
		if !ok {
			return t, fmt.Errorf("budget %s is of another kind", key)
		}
		return t, nil
	}
	t, err := anew()
	if err == nil {
		b.budgets[key.String()] = t
	}
	return t, err
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

// ReserveWindow is what Reserve is for windows.
func (b *Budgets) ReserveWindow(ctx context.Context, key Key, limit WindowLimit, share float64, flow string) (*Grant, error) {
	b.mu.Lock()
	window, err := b.windowLocked(key, nil, limit, share)
	b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return window.Acquire(ctx, Flow{Name: flow, Weight: 1})
}

// BudgetStatus is what one account's budget is doing.
type BudgetStatus struct {
	Account, Budget string
	Key             Key
	Limit           Limit         // of a bucket: as documented
	Window          WindowLimit   // of a window: as last heard, or as documented
	Pause           time.Duration // for one token, with the share that may be used and the slack
	Usable          int           // tokens that are ever spent at once
	Tokens          float64       // requests that could be sent at once now
	Next            time.Time     // when the next request may be sent; not in the future: now
	CoolingUntil    time.Time     // the marketplace's "not before", after a 429; zero: none
	Waiting         int           // requests that wait for a token

	// Of a window. Used are the calls that count now, those in flight included. Where
	// others have spent so much that less is left than our own calls leave, it is
	// CapLeft until CapUntil.
	Used     int
	CapLeft  int
	CapUntil time.Time // zero: others do not matter
}

// Snapshot returns the budgets of all accounts, by account and budget. Accounts of
// one seller show the same one.
func (b *Budgets) Snapshot() []BudgetStatus {
	users := b.sortedUsers()
	all := make([]BudgetStatus, len(users))
	for i, u := range users {
		all[i] = u.budget.status()
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
// it was set since NewBudgets (by NTP after a boot, by hand) every budget that has
// to outlive the process is saved anew, and once more at the end: a process that
// ends in order leaves nothing on its way that the next would have to wait for. What
// the ledger had no room for when the marketplace said it is saved as soon as it has.
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
			continue
		}
		for _, budget := range b.all() {
			if budget.lacks() {
				_ = budget.saveAnew() // that it fails has been told
			}
		}
	}
}

func (b *Budgets) all() map[string]budget {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.budgets)
}

func (b *Budgets) saveAnew() {
	for key, budget := range b.all() {
		if err := budget.saveAnew(); err != nil {
			b.log.Error("a budget could not be saved: a restart might ask too early", "budget", key, "err", err)
		}
	}
}

// Describe implements prometheus.Collector.
func (b *Budgets) Describe(ch chan<- *prometheus.Desc) { ch <- b.desc }

// Collect implements prometheus.Collector.
func (b *Budgets) Collect(ch chan<- prometheus.Metric) {
	for _, u := range b.sortedUsers() {
		ch <- prometheus.MustNewConstMetric(b.desc, prometheus.GaugeValue, u.budget.level(), u.account, u.key.Group)
	}
}
