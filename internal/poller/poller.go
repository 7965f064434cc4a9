// Package poller decides when to fetch, drives the pages of a run, and commits
// them. Each stream has one goroutine, which owns the stream's sequence of fetch
// and commit; so a stream never overlaps itself and its cursor needs no lock.
//
// One page is one request is one transaction. Nothing is fetched inside a
// transaction, and the cursor of a page is never saved without its items. When
// the process dies between a fetch and its commit, the page is fetched again;
// after the commit, the next one is.
package poller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/robfig/cron/v3"
	"golang.org/x/sync/errgroup"

	"syncd/internal/sources"
	"syncd/internal/state"
)

// Stream is one stream to poll.
type Stream struct {
	ID          state.StreamID
	Marketplace string
	Group       string // the API group that a 401 stops
	Source      sources.Source
	Schedule    string        // see ParseSchedule
	Overlap     time.Duration // how far back a run begins
	Start       *time.Time    // what is old at first use; nil: the account's first poll; zero: nothing
}

// Config is what a Poller needs. All fields are required.
type Config struct {
	DB      *state.DB
	Log     *slog.Logger
	Metrics *Metrics
	Streams []Stream
}

// Poller polls the streams of a configuration.
type Poller struct {
	db      *state.DB
	log     *slog.Logger
	metrics *Metrics
	workers []*worker

	scheduled atomic.Bool

	mu      sync.Mutex
	blocked map[groupID]time.Time // API groups that refused their token: not before
	stopped map[string]error      // accounts that are not polled at all, and why
}

type groupID struct{ account, group string }

// parser reads what contract §4 allows: five fields, six with seconds, or a
// descriptor such as "@every 15s". Always UTC: a schedule must not move with the
// machine's daylight saving time.
var parser = cron.NewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// ParseSchedule reads a schedule of the configuration.
func ParseSchedule(expr string) (cron.Schedule, error) {
	s, err := parser.Parse(expr)
	if err != nil {
		return nil, fmt.Errorf("schedule %q: %w", expr, err)
	}
	if s.Next(time.Now().UTC()).IsZero() {
		return nil, fmt.Errorf("schedule %q never comes", expr)
	}
	return s, nil
}

// New returns a poller. It neither reads the state nor sends anything.
func New(cfg Config) (*Poller, error) {
	p := &Poller{db: cfg.DB, log: cfg.Log, metrics: cfg.Metrics, blocked: make(map[groupID]time.Time), stopped: make(map[string]error)}
	for _, s := range cfg.Streams {
		schedule, err := ParseSchedule(s.Schedule)
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", s.ID, err)
		}
		p.workers = append(p.workers, newWorker(p, s, schedule))
	}
	slices.SortFunc(p.workers, func(a, b *worker) int { return cmp.Compare(a.ID.String(), b.ID.String()) })
	p.warnTwice()
	return p, nil
}

// warnTwice tells the operator of two accounts of one seller that emit the same
// stream: each item comes out twice.
func (p *Poller) warnTwice() {
	type key struct{ marketplace, seller, stream string }
	first := make(map[key]string)
	for _, w := range p.workers {
		k := key{w.Marketplace, w.Source.Seller(), w.ID.Stream}
		if other, ok := first[k]; ok {
			p.log.Warn("two accounts of one seller emit the same stream: every item comes twice",
				"stream", w.ID.Stream, "account", w.ID.Account, "other", other)
			continue
		}
		first[k] = w.ID.Account
	}
}

// open pins the sellers and reads where each stream stands. One token of another
// seller stops its whole account, which is left out and reported.
func (p *Poller) open() (ready []*worker, err error) {
	firstPoll := make(map[string]time.Time)
	stopped := make(map[string]error)
	now := time.Now()
	for _, w := range p.workers {
		name := w.ID.Account
		account, err := p.db.PinAccount(name, w.Marketplace, w.Source.Seller(), now)
		if other, ok := errors.AsType[*state.OtherSellerError](err); ok {
			if stopped[name] == nil {
				p.log.Error("account stopped", "account", name, "err", other)
			}
			stopped[name] = other
			continue
		}
		if err != nil {
			return nil, err
		}
		firstPoll[name] = account.FirstPoll
	}
	for _, w := range p.workers {
		if stopped[w.ID.Account] != nil {
			p.metrics.errors.WithLabelValues(w.ID.Account, w.ID.Stream, reasonOtherSeller).Inc()
			continue
		}
		if err := w.open(firstPoll[w.ID.Account]); err != nil {
			return nil, err
		}
		ready = append(ready, w)
	}
	p.mu.Lock()
	p.stopped = stopped
	p.mu.Unlock()
	return ready, nil
}

// Stopped returns the accounts that are not polled since their token belongs to
// another seller than before, and the reason.
func (p *Poller) Stopped() map[string]error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.stopped)
}

// Run polls every stream by its schedule until ctx ends. What is in flight then
// is finished and committed. The only errors are those of the state.
func (p *Poller) Run(ctx context.Context) error {
	workers, err := p.open()
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	for _, w := range workers {
		wg.Go(func() { w.run(ctx) })
	}
	p.scheduled.Store(true)
	wg.Wait()
	return nil
}

// Scheduled reports whether Run has scheduled every stream.
func (p *Poller) Scheduled() bool { return p.scheduled.Load() }

// Left is a stream that Once could not bring up to date.
type Left struct {
	Stream state.StreamID
	Err    error
}

// onceTries is how often Once tries a page that fails for a passing reason.
const onceTries = 5

// Once brings every stream up to what existed when it began, and returns those
// for which that was not possible before ctx's deadline. A wait for the budget
// beyond the deadline is given up at once.
func (p *Poller) Once(ctx context.Context) ([]Left, error) {
	workers, err := p.open()
	if err != nil {
		return nil, err
	}
	var (
		mu   sync.Mutex
		left []Left
		g    errgroup.Group
	)
	stopped := p.Stopped()
	for _, w := range p.workers {
		if err := stopped[w.ID.Account]; err != nil {
			left = append(left, Left{w.ID, err})
		}
	}
	for _, w := range workers {
		g.Go(func() error {
			if err := w.once(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				left = append(left, Left{w.ID, err})
			}
			return nil
		})
	}
	_ = g.Wait() // the functions return nil: what went wrong is in left
	slices.SortFunc(left, func(a, b Left) int { return cmp.Compare(a.Stream.String(), b.Stream.String()) })
	return left, nil
}

// block keeps an API group of an account quiet until a time.
func (p *Poller) block(account, group string, until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.blocked[groupID{account, group}] = until
}

// blockedFor is how long an API group of an account has still to be quiet.
func (p *Poller) blockedFor(account, group string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Until(p.blocked[groupID{account, group}])
}

// phase spreads the streams over a second: schedules are whole seconds, and a
// thousand accounts must not all ask at the same instant.
func phase(id state.StreamID) time.Duration {
	h := fnv.New32a()
	h.Write([]byte(id.String()))
	return time.Duration(h.Sum32()%1000) * time.Millisecond
}
