package apiclient

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"syncd/internal/sources"
)

// line is where requests wait, in the order of their queue, for what is scarce: the
// tokens of a budget, a place in a lane. Its mutex guards that too.
type line struct {
	key   Key
	shown atomic.Uint64 // what glance returned last, as bits of a float64

	mu      sync.Mutex
	queue   queue // the first in it alone may be served
	unsaved bool  // of a budget: the ledger failed when the marketplace had said something; Budgets.Run tries it again
}

// lacks says whether the ledger lacks what the marketplace has said.
func (l *line) lacks() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unsaved
}

// awaitLocked waits until w is the first and turn says that there is something for
// it. mu is not held meanwhile; it is when awaitLocked returns, and nothing has
// changed since now. turn says how long what a waiter wants is away, with so many
// ahead of it.
//
// Where w is hurried and it would come after ctx's deadline the error says so at
// once (sources.BudgetWait), and also when it turns out later. Otherwise the only
// errors are ctx's.
func (l *line) awaitLocked(ctx context.Context, w *waiter, turn func(now time.Time, ahead int) time.Duration) (now time.Time, err error) {
	deadline, _ := ctx.Deadline()
	for {
		if ctx.Err() != nil {
			return now, context.Cause(ctx)
		}
		now = time.Now()
		ahead := slices.Index(l.queue.waiters, w)
		d := turn(now, ahead)
		// First, or a process that was stopped would spend long after its deadline: both
		// timers have run out then, and whoever lent the token has written it off.
		if w.hurried && now.Add(d).After(deadline) {
			return now, &sources.Error{Kind: sources.BudgetWait, Scope: sources.ScopeRequest, Endpoint: "budget " + l.key.String(),
				Until: now.Add(d), Err: fmt.Errorf("the next request is allowed at %s", now.Add(d).UTC().Format(time.RFC3339))}
		}
		if ahead == 0 && d == 0 {
			return now, nil
		}
		var timer <-chan time.Time
		if ahead == 0 {
			timer = time.After(d)
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-w.turn:
		case <-timer:
		}
		l.mu.Lock()
	}
}

// leaveLocked takes w out of the queue, served or not.
func (l *line) leaveLocked(w *waiter) {
	l.queue.leave(w)
	l.wakeLocked()
}

// wakeLocked makes those look again to whom it matters that whose turn it is, or
// when, has changed.
func (l *line) wakeLocked() {
	for i, w := range l.queue.waiters {
		if i > 0 && !w.hurried {
			continue
		}
		select {
		case w.turn <- struct{}{}:
		default:
		}
	}
}

// glance returns how many requests could be sent at once now, which tokensLocked
// says.
//
// A spend that is being saved holds the mutex, with many accounts for seconds: what
// there was when somebody looked before is good enough for a metric.
func (l *line) glance(tokensLocked func(now time.Time) float64) float64 {
	if !l.mu.TryLock() {
		return math.Float64frombits(l.shown.Load())
	}
	defer l.mu.Unlock()
	tokens := tokensLocked(time.Now())
	l.shown.Store(math.Float64bits(tokens))
	return tokens
}

// unsavedError is why a request does not leave.
func (l *line) unsavedError(err error) error {
	return &sources.Error{Kind: sources.Temporary, Scope: sources.ScopeRequest, Endpoint: "budget " + l.key.String(),
		Err: fmt.Errorf("save the budget before a request: %w", err)}
}

// logCooling tells the operator what he cannot see elsewhere: whose budget it is, and
// until when nothing will be asked.
func (l *line) logCooling(log *slog.Logger, what string, accounts []string, now, until time.Time) {
	log.Warn(what, "account", strings.Join(accounts, ","), "budget", l.key.Group, "seller", l.key.Seller,
		"for", until.Sub(now).Round(time.Second), "until", until.UTC().Format(time.RFC3339))
}

// Grant is a token that has been spent on one request. Exactly one Answered
// follows.
type Grant struct {
	budget interface{ answered(g *Grant, a Answer) }
	number uint64
	Waited time.Duration
}

// Answer is what the marketplace said about the budget with one answer.
type Answer struct {
	Remaining  int           // requests that are left; negative: not said
	Throttled  bool          // 429 or 420
	RetryAfter time.Duration // with Throttled; 0: not said
	Lost       bool          // there was no answer: the request may still be on its way
	Unsent     bool          // the request never left: the token was not used

	// Of windows alone. The times are by the marketplace's clock.
	Limit    int       // calls of one period; 0: not said
	Until    time.Time // when the period is over; zero: not said
	Date     time.Time // of the answer; zero: not said
	Parallel bool      // with Throttled: too many requests were in flight, which says nothing about the window
}

// Answered ends the request that g paid for, as soon as its answer begins: it has
// arrived then. Call it also when there was no answer, with Remaining -1 and, unless
// the request never left, Lost.
func (g *Grant) Answered(a Answer) { g.budget.answered(g, a) }
