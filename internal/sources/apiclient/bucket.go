package apiclient

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"syncd/internal/sources"
)

// Limit is a documented token bucket: Burst tokens at most, one more every
// Interval.
type Limit struct {
	Interval time.Duration
	Burst    int
}

// slowInterval is where a bucket counts as slow: starting it empty after every
// restart would cost the account whole polls, and starting it full would break
// the budget, so it is saved before each spend. Faster buckets just start empty.
const slowInterval = 10 * time.Second

// settle is how long the last requests of a killed process may take to arrive.
// The kernel goes on sending what the process had written; two lost packets are
// sent again within that time.
const settle = 2 * time.Second

// courtesyLocked is how long, in a process that has just begun, the first one to come
// to a slow bucket lets those go ahead whose turn it is: a part of its interval,
// and long enough for everybody to have come. Without it, a token that is there
// at the start would go to whoever is quickest, with `once` each time anew.
func (b *Bucket) courtesyLocked() time.Duration {
	return min(b.pause/10, 30*time.Second)
}

// Ledger keeps what must survive the process. Save returns when the value is
// durable. Both may be called concurrently.
type Ledger interface {
	Load(key string) ([]byte, error) // nil: nothing saved
	Save(key string, value []byte) error
}

// Bucket is the client's side of one of the marketplace's token buckets. It is
// always at most as full as the marketplace's own, whatever the network does:
//
//   - it starts empty (a slow one as saved), and where an earlier process may
//     have spent from it it stays shut for settle: what a killed process sent
//     may still be on its way;
//   - with a burst above 1 one token is never spent, for jitter on the way, and
//     while requests are in flight it does not fill up above what would be left
//     if all of them arrived only now: a full bucket of the marketplace starts
//     to refill when a request arrives, not when it left;
//   - with a burst of 1 the pause is the interval + 2 % + 2 s (contract G1), and
//     at least the interval from the answer on;
//   - the marketplace's headers only ever lower it.
//
// Those who wait share it by their weights: see queue.
//
// All methods are safe for concurrent use.
type Bucket struct {
	key    string
	limit  Limit
	ledger Ledger
	log    *slog.Logger

	mu        sync.Mutex
	share     float64
	pause     time.Duration // time for one token, share and slack included
	usable    int           // tokens that may ever be spent at once
	limiter   *rate.Limiter
	kept      bool      // the ledger knows that the bucket was used
	notBefore time.Time // the marketplace's word, the pause after the answer from a bucket of one, or settle
	cooling   bool      // notBefore is the marketplace's word
	throttled int       // 429s in a row, those of one storm counted as one
	stormed   uint64    // the last request sent before the latest of them
	sent      uint64
	inFlight  map[uint64]struct{} // numbers of the requests without an answer yet
	queue     queue               // the first in it alone may spend
	began     time.Time
}

// saved is a bucket in the ledger. Times are wall clock, Unix milliseconds: a
// monotonic reading means nothing to the next process. A fast bucket is saved
// once, so that the next process knows that there was an earlier one, and after
// a 429.
type saved struct {
	V         int   `json:"v"`
	FullAt    int64 `json:"full_at,omitempty"`    // slow buckets: when it will be full again
	NotBefore int64 `json:"not_before,omitempty"` // what a 429 said

	Flows map[string]savedFlow `json:"flows,omitempty"` // slow buckets: whose turn it is
}

func newBucket(key string, limit Limit, share float64, ledger Ledger, log *slog.Logger) (*Bucket, error) {
	b := &Bucket{key: key, limit: limit, ledger: ledger, log: log, inFlight: make(map[uint64]struct{})}
	raw, err := ledger.Load(key)
	if err != nil {
		return nil, fmt.Errorf("load budget %s: %w", key, err)
	}
	var s saved
	if raw != nil {
		if err := json.Unmarshal(raw, &s); err != nil || s.V != 1 {
			return nil, fmt.Errorf("load budget %s: %q is not a saved budget", key, raw)
		}
	}
	// Saved times become distances from now, which has a monotonic reading: a
	// wall clock that jumps from here on changes nothing.
	now := time.Now()
	b.began = now
	b.queue.load(s.Flows, now)
	b.kept = raw != nil
	b.setShareLocked(share)
	switch {
	case !b.kept && b.slowLocked(): // contract §4 grants it one token
		b.levelLocked(now, 1)
	case !b.kept:
		b.levelLocked(now, 0)
	case b.slowLocked() && s.FullAt != 0:
		// Further off than an empty bucket needs: the clock was set back, or the
		// share raised.
		missing := float64(time.UnixMilli(s.FullAt).Sub(now)) / float64(b.pause)
		b.levelLocked(now, max(float64(b.usable)-max(missing, 0), 0))
	default:
		b.notBefore = now.Add(settle)
		b.levelLocked(b.notBefore, 0)
	}
	if d := time.UnixMilli(s.NotBefore).Sub(now); s.NotBefore != 0 && d > 0 {
		if d > 2*maxRetryAfter { // nobody can have said so: the clock was set back since
			d = max(time.Minute, b.pause)
		}
		b.coolLocked(now.Add(max(d, b.waitLocked(now, 0))))
		log.Warn("still cooling down: somebody else spends this seller's budget", "budget", key, "for", time.Until(b.notBefore).Round(time.Second))
	}
	return b, nil
}

// maxPause bounds what a tiny share makes of an interval.
const maxPause = 30 * 24 * time.Hour

func (b *Bucket) slowLocked() bool { return b.pause >= slowInterval }

// setShareLocked sets the part of the limit that may be used. A limiter made
// before must be made anew.
func (b *Bucket) setShareLocked(share float64) {
	b.share = share
	b.pause = time.Duration(min(float64(b.limit.Interval)/share, float64(maxPause)))
	b.usable = max(1, min(b.limit.Burst-1, int(float64(b.limit.Burst)*share)))
	if b.limit.Burst == 1 {
		b.pause = max(b.pause, b.limit.Interval+b.limit.Interval/50+2*time.Second)
	}
}

// changeShare makes the bucket obey a new share. It keeps one token at most: what
// a larger share had saved up is not a smaller one's to spend.
func (b *Bucket) changeShare(share float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if share == b.share {
		return
	}
	at := later(time.Now(), b.notBefore)
	level := b.limiter.TokensAt(at)
	b.setShareLocked(share)
	b.levelLocked(at, min(max(level, 0), 1))
	b.wakeLocked()
}

// levelLocked makes the bucket hold level tokens at t. A t to come is allowed as
// long as nobody touches the limiter before it: notBefore sees to that.
func (b *Bucket) levelLocked(t time.Time, level float64) {
	b.limiter = rate.NewLimiter(rate.Every(b.pause), b.usable)
	b.limiter.AllowN(t.Add(-time.Duration(level*float64(b.pause))), b.usable)
}

// coolLocked closes the bucket until t, when it holds one token.
func (b *Bucket) coolLocked(t time.Time) {
	b.notBefore, b.cooling = t, true
	b.levelLocked(t, 1)
}

// holdLocked keeps the tokens, while requests are in flight, below what would be
// left if all of them arrived only now.
func (b *Bucket) holdLocked(now time.Time) {
	if b.limit.Burst == 1 || now.Before(b.notBefore) {
		return
	}
	if most := float64(max(b.limit.Burst-1-len(b.inFlight), 0)); b.limiter.TokensAt(now) > most {
		b.levelLocked(now, most)
	}
}

// waitLocked is how long the next token is away for who comes after ahead others;
// 0: it is there.
func (b *Bucket) waitLocked(now time.Time, ahead int) time.Duration {
	at := now
	if now.Before(b.notBefore) {
		at = b.notBefore
	} else {
		b.cooling = false
	}
	b.holdLocked(now)
	wait := at.Sub(now)
	const hair = 1e-8 // of a token: what floats lose
	if missing := float64(1+ahead) - b.limiter.TokensAt(at); missing > hair {
		wait += time.Duration(missing*float64(b.pause)) + time.Microsecond // rounded up, or the wait ends a hair too early
	}
	if b.limit.Burst == 1 && len(b.inFlight) > 0 {
		wait = max(wait, b.limit.Interval) // from its answer on, which will wake us
	}
	return wait
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Grant is a token that has been spent on one request. Exactly one Answered
// follows.
type Grant struct {
	bucket *Bucket
	number uint64
	Waited time.Duration
}

// Acquire waits for a token and spends it; for a slow bucket the spend is
// durable before Acquire returns, so a crash from here on costs a token but
// never the budget. If the token comes only after ctx's deadline the error says
// so at once (sources.BudgetWait), and also when it turns out later; otherwise
// the only errors are ctx's and, as sources.Temporary, the ledger's.
func (b *Bucket) Acquire(ctx context.Context, f Flow) (*Grant, error) {
	return b.acquire(ctx, f, true)
}

func (b *Bucket) acquire(ctx context.Context, f Flow, patient bool) (*Grant, error) {
	start := time.Now()
	b.mu.Lock()
	w := b.queue.join(f, patient, start)
	deadline, hurried := ctx.Deadline()
	w.hurried = hurried
	if !w.flow.saved && b.kept && b.slowLocked() {
		// Or a process that always dies before its second token, as `once` does,
		// would give each token to the same flow: nobody would remember the others.
		if err := b.saveAnewLocked(); err != nil {
			b.log.Error("whose turn it is could not be saved", "budget", b.key, "flow", f.Name, "err", err)
		}
	}
	b.wakeLocked() // those behind it have longer to wait
	defer func() {
		b.queue.leave(w)
		b.wakeLocked()
		b.mu.Unlock()
	}()
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		now := time.Now()
		ahead := slices.Index(b.queue.waiters, w)
		d := b.turnLocked(now, ahead)
		if ahead == 0 && d == 0 {
			return b.spendLocked(w, now, start)
		}
		if hurried && now.Add(d).After(deadline) {
			return nil, &sources.Error{Kind: sources.BudgetWait, Scope: sources.ScopeRequest, Endpoint: "budget " + b.key,
				Until: now.Add(d), Err: fmt.Errorf("the next request is allowed at %s", now.Add(d).UTC().Format(time.RFC3339))}
		}
		var timer <-chan time.Time
		if ahead == 0 {
			timer = time.After(d)
		}
		b.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-w.turn:
		case <-timer:
		}
		b.mu.Lock()
	}
}

// turnLocked is how long the next token is away for a waiter, if nobody comes who
// goes before it. It is later than what turns out when those ahead give up.
func (b *Bucket) turnLocked(now time.Time, ahead int) time.Duration {
	d := b.waitLocked(now, ahead)
	if b.slowLocked() && b.queue.awaits() {
		d = max(d, b.began.Add(b.courtesyLocked()).Sub(now))
	}
	return d
}

// spendLocked takes the token that waitLocked found for w. If the ledger cannot
// keep the spend the token stays: no request leaves.
func (b *Bucket) spendLocked(w *waiter, now, start time.Time) (*Grant, error) {
	undo := b.queue.serve(w, now)
	if b.slowLocked() || !b.kept {
		full := now.Add(time.Duration((float64(b.usable) - b.limiter.TokensAt(now) + 1) * float64(b.pause)))
		if err := b.saveLocked(full); err != nil {
			undo()
			return nil, &sources.Error{Kind: sources.Temporary, Scope: sources.ScopeRequest, Endpoint: "budget " + b.key,
				Err: fmt.Errorf("save the budget before a request: %w", err)}
		}
	}
	b.limiter.ReserveN(now, 1)
	b.sent++
	b.inFlight[b.sent] = struct{}{}
	return &Grant{bucket: b, number: b.sent, Waited: now.Sub(start)}, nil
}

// saveLocked makes durable that the bucket will be full at full.
func (b *Bucket) saveLocked(full time.Time) error {
	s := saved{V: 1}
	if b.slowLocked() {
		s.FullAt = full.UnixMilli() + 1
		s.Flows = b.queue.save(time.Now())
	}
	if b.cooling {
		// By today's wall clock, which may have been set since notBefore was.
		s.NotBefore = time.Now().Add(time.Until(b.notBefore)).UnixMilli() + 1
	}
	raw, err := json.Marshal(s)
	if err == nil {
		err = b.ledger.Save(b.key, raw)
	}
	if err == nil {
		b.kept = true
	}
	return err
}

// Answer is what the marketplace said about the budget with one answer.
type Answer struct {
	Remaining  int           // X-Ratelimit-Remaining; negative: not said
	Throttled  bool          // 429 or 420
	RetryAfter time.Duration // with Throttled; 0: not said
}

// Answered ends the request that g paid for. Call it also when there was no
// answer, with Remaining -1.
func (g *Grant) Answered(a Answer) {
	b := g.bucket
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.holdLocked(now) // while this request still counts as in flight
	delete(b.inFlight, g.number)
	if !a.Throttled && g.number > b.stormed {
		b.throttled = 0
	}
	switch {
	case a.Throttled:
		b.throttledLocked(g, now, a.RetryAfter)
	case b.limit.Burst == 1: // Remaining is always 0 here
		// It arrived at the latest now: one whole interval from here is safe,
		// however long the request was on its way.
		if d := b.limit.Interval; d > b.waitLocked(now, 0) {
			b.notBefore = now.Add(d)
			if err := b.saveLocked(b.notBefore); err != nil {
				b.log.Error("a late answer could not be saved: a restart might ask too early", "budget", b.key, "err", err)
			}
		}
	case a.Remaining >= 0 && !now.Before(b.notBefore):
		// The marketplace had Remaining tokens after this request. Others may
		// have reached it since, or may still: all that left later, and earlier
		// ones without an answer. Overlapping answers come in any order, and a
		// late one only makes this lower.
		others := int(b.sent - g.number)
		for n := range b.inFlight {
			if n < g.number {
				others++
			}
		}
		if most := float64(max(a.Remaining-1-others, 0)); b.limiter.TokensAt(now) > most {
			b.levelLocked(now, most)
		}
	}
	b.wakeLocked()
}

// throttledLocked closes the bucket after a 429: somebody else spends this
// seller's budget. The time is kept durably, so that a restart does not knock
// again; if it cannot be saved the running process still keeps to it.
func (b *Bucket) throttledLocked(g *Grant, now time.Time, retry time.Duration) {
	again := g.number <= b.stormed // it was on its way when an earlier 429 came
	if !again {
		b.throttled++
		b.stormed = b.sent
	}
	if retry <= 0 {
		// The documentation's older text: blocked for 60 s.
		retry = max(time.Minute, b.pause)
	}
	// Clients that came back to the second were refused for ever: slack, more of
	// it each time in a row.
	slack := retry/50 + 2*time.Second
	slack = min(slack<<min(b.throttled-1, 8), max(10*time.Minute, slack))
	// What is still on its way may get the tokens that come back. And the header
	// may make us wait longer than we would have, never shorter.
	wait := retry + slack + time.Duration(len(b.inFlight))*b.pause
	until := now.Add(max(wait, b.waitLocked(now, 0)))
	if !until.After(b.notBefore) {
		return
	}
	b.coolLocked(until)
	if !again {
		b.log.Warn("cooling down: somebody else spends this seller's budget",
			"budget", b.key, "for", until.Sub(now).Round(time.Second), "until", until.UTC().Format(time.RFC3339))
	}
	if err := b.saveLocked(until.Add(time.Duration(b.usable-1) * b.pause)); err != nil {
		b.log.Error("the cool-down could not be saved: a restart would ask too early", "budget", b.key, "err", err)
	}
}

// saveAnew saves what the next process must know by the wall clock of now.
func (b *Bucket) saveAnew() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.saveAnewLocked()
}

func (b *Bucket) saveAnewLocked() error {
	now := time.Now()
	if !b.kept || !b.slowLocked() && !now.Before(b.notBefore) {
		return nil
	}
	at := later(now, b.notBefore)
	missing := max(float64(b.usable)-b.limiter.TokensAt(at), 0)
	return b.saveLocked(now.Add(at.Sub(now) + time.Duration(missing*float64(b.pause))))
}

// wakeLocked makes those look again to whom it matters that whose turn it is, or
// when, has changed.
func (b *Bucket) wakeLocked() {
	for i, w := range b.queue.waiters {
		if i > 0 && !w.hurried {
			continue
		}
		select {
		case w.turn <- struct{}{}:
		default:
		}
	}
}

// tokens returns how many requests could be sent at once now.
func (b *Bucket) tokens() float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.tokensLocked(time.Now())
}

func (b *Bucket) tokensLocked(now time.Time) float64 {
	if now.Before(b.notBefore) {
		return 0
	}
	b.holdLocked(now)
	return max(b.limiter.TokensAt(now), 0)
}

// status is what Snapshot tells of a bucket.
func (b *Bucket) status() BudgetStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	s := BudgetStatus{Limit: b.limit, Pause: b.pause, Usable: b.usable, Tokens: b.tokensLocked(now), Waiting: len(b.queue.waiters)}
	s.Next = now.Add(b.waitLocked(now, 0))
	if b.cooling { // waitLocked has looked whether that is over
		s.CoolingUntil = b.notBefore
	}
	return s
}
