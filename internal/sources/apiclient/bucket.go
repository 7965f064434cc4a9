package apiclient

import (
	"context"
	"log/slog"

	"slices"
	"time"

	"golang.org/x/time/rate"
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

// A request arrives at most maxSend + maxWay after its token was spent, if ever.
const (
	// maxSend is how long after that it may leave: no Client has a longer Timeout,
	// and nobody to whom a token is lent takes longer.
	maxSend = 30 * time.Second
	// maxWay is how long it may be on its way. The kernel goes on sending what a
	// process wrote that was killed or has given up: lost seven times in a row, a
	// packet is sent again 25 s after the first time.
	maxWay = 30 * time.Second
)

// courtesyLocked is how long, in a process that has just begun, the first one to come
// to a slow bucket lets those go ahead whose turn it is: a part of its interval,
// and long enough for everybody to have come. Without it, a token that is there
// at the start would go to whoever is quickest, with `once` each time anew.
func (b *Bucket) courtesyLocked() time.Duration {
	return min(b.pause/10, 30*time.Second)
}

// Bucket is the client's side of one of the marketplace's token buckets. At every
// moment the marketplace's holds one token for each request that is on its way,
// one for each token here, and where the burst is above 1 another one, whatever
// the network does:
//
//   - it starts empty (a slow one as saved), and an earlier process's requests
//     count as on their way for as long as they may be;
//   - with a burst above 1 one token is never spent, for jitter on the way, and
//     while requests are on their way it does not fill up above what would be left
//     if all of them arrived only now: a full bucket of the marketplace starts
//     to refill when a request arrives, not when it left;
//   - with a burst of 1 the pause is the interval + 2 % + 2 s (contract G1), and
//     at least the interval from the answer on, or from when a request that got
//     none has arrived at the latest;
//   - the marketplace's headers only ever lower it.
//
// Those who wait share it by their weights: see queue.
//
// All methods are safe for concurrent use.
type Bucket struct {
	line
	limit  Limit
	ledger Ledger
	log    *slog.Logger

	accounts  []string // whose budget this is, for the log
	share     float64
	pause     time.Duration // time for one token, share and slack included
	usable    int           // tokens that may ever be spent at once
	limiter   *rate.Limiter
	kept      bool      // the ledger has the bucket
	found     bool      // the ledger lacks what was found out when the process began
	told      int       // fast buckets: requests that the ledger knows to be on their way until the process dies; -1: to be saved with the next one
	notBefore time.Time // the marketplace's word, or with a burst of 1 the pause after a late answer
	cooling   bool      // notBefore is the marketplace's word
	throttled int       // 429s in a row, those of one storm counted as one
	stormed   uint64    // the last request sent before the latest of them
	sent      uint64
	inFlight  map[uint64]struct{} // numbers of the requests that have not ended yet
	lost      []time.Time         // burst above 1: by when those will have arrived that ended without an answer, or with an earlier process
	began     time.Time
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

// change makes the bucket that of other accounts, and obey a new share. Then it
// keeps one token at most: what a larger share had saved up is not a smaller one's
// to spend.
func (b *Bucket) change(accounts []string, share float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.accounts = accounts
	if share == b.share {
		return
	}
	now := time.Now()
	b.holdLocked(now)
	at := later(now, b.notBefore)
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

// onTheirWayLocked counts the requests that may not have arrived yet.
func (b *Bucket) onTheirWayLocked() int { return len(b.inFlight) + len(b.lost) }

// holdLocked keeps the tokens, while requests are on their way, below what would
// be left if all of them arrived only now.
func (b *Bucket) holdLocked(now time.Time) {
	if b.limit.Burst == 1 || now.Before(b.notBefore) {
		return
	}
	for len(b.lost) > 0 && !now.Before(b.lost[0]) {
		b.capLocked(b.lost[0]) // up to then it held fewer
		if b.lost = slices.Delete(b.lost, 0, 1); len(b.lost) == 0 {
			b.told = -1 // or the next process would wait for them once more
		}
	}
	b.capLocked(now)
}

func (b *Bucket) capLocked(t time.Time) {
	if most := float64(max(b.limit.Burst-1-b.onTheirWayLocked(), 0)); b.limiter.TokensAt(t) > most {
		b.levelLocked(t, most)
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
	tokens := b.limiter.TokensAt(at)
	// So many have to arrive before there can be a token at all. An answer wakes us;
	// for what is lost only time does.
	if over := min(b.onTheirWayLocked()-(b.limit.Burst-2), len(b.lost)); over > 0 && b.lost[over-1].After(at) {
		at, tokens = b.lost[over-1], 0
	}
	wait := at.Sub(now)
	const hair = 1e-8 // of a token: what floats lose
	if missing := float64(1+ahead) - tokens; missing > hair {
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

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
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
	w := b.queue.join(f, patient, b.slowLocked(), start)
	_, w.hurried = ctx.Deadline()
	if b.found || !w.flow.saved && b.kept && b.slowLocked() {
		// Or processes that always die before their first token would wait for the
		// same requests again and again; and one that always dies before its second, as
		// `once` does, would give each token to the same flow: nobody would remember
		// the others.
		if err := b.saveAnewLocked(); err != nil {
			b.log.Error("a budget could not be saved: a restart might wait once more for what this process waits for", "budget", b.key.String(), "flow", f.Name, "err", err)
		}
	}
	b.wakeLocked() // those behind it have longer to wait
	defer func() {
		b.leaveLocked(w)
		b.mu.Unlock()
	}()
	now, err := b.awaitLocked(ctx, w, b.turnLocked)
	if err != nil {
		return nil, err
	}
	return b.spendLocked(w, now, start)
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
	if b.slowLocked() || b.told <= b.onTheirWayLocked() {
		full := now.Add(time.Duration((float64(b.usable) - b.limiter.TokensAt(now) + 1) * float64(b.pause)))
		if err := b.saveLocked(full, 1); err != nil {
			undo()
			return nil, b.unsavedError(err)
		}
	}
	b.limiter.ReserveN(now, 1)
	b.sent++
	b.inFlight[b.sent] = struct{}{}
	return &Grant{budget: b, number: b.sent, Waited: now.Sub(start)}, nil
}

// answered is Grant.Answered.
func (b *Bucket) answered(g *Grant, a Answer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.holdLocked(now) // while this request still counts as in flight
	delete(b.inFlight, g.number)
	if a.Lost && b.limit.Burst > 1 {
		b.lost = append(b.lost, now.Add(maxWay))
	}
	if !a.Throttled && !a.Lost && !a.Unsent && g.number > b.stormed {
		b.throttled = 0
	}
	switch {
	case a.Throttled:
		b.throttledLocked(g, now, a.RetryAfter)
	case a.Unsent:
		// A machine whose network comes up late must not lose an hour of a slow budget
		// for it. A fast one would hardly notice.
		if !b.slowLocked() || now.Before(b.notBefore) {
			break
		}
		b.levelLocked(now, min(max(b.limiter.TokensAt(now), 0)+1, float64(b.usable)))
		if err := b.saveAnewLocked(); err != nil {
			b.log.Error("a budget could not be saved: a restart might wait longer than it has to", "budget", b.key.String(), "err", err)
		}
	case b.limit.Burst == 1: // Remaining is always 0 here
		// It arrived, or will, at the latest then: one whole interval from there is
		// safe, however long the request was on its way.
		d := b.limit.Interval
		if a.Lost {
			d += maxWay
		}
		b.notBefore = later(b.notBefore, now.Add(d))
		// Not saved, it counts as on its way for as long as it might have been.
		if err := b.saveAnewLocked(); err != nil {
			b.log.Error("a budget could not be saved: a restart might wait longer than it has to", "budget", b.key.String(), "err", err)
		}
	case a.Remaining >= 0 && !now.Before(b.notBefore):
		// The marketplace had Remaining tokens after this request. Others may
		// have reached it since, or may still: all that left later, and earlier
		// ones without an answer. Overlapping answers come in any order, and a
		// late one only makes this lower.
		others := int(b.sent-g.number) + len(b.lost)
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
	if b.limit.Burst > 1 { // one more than is spent then
		slack = max(slack, retry/50+b.limit.Interval)
	}
	slack = min(slack<<min(max(b.throttled-1, 0), 8), max(10*time.Minute, slack))
	// What is still on its way may get the tokens that come back. And the header
	// may make us wait longer than we would have, never shorter.
	wait := retry + slack + time.Duration(b.onTheirWayLocked())*b.pause
	until := now.Add(max(wait, b.waitLocked(now, 0)))
	if !until.After(b.notBefore) {
		return
	}
	b.coolLocked(until)
	if !again && b.throttled == 1 { // the others are the same storm, or the next gust
		b.logCooling(b.log, "cooling down: somebody else spends this seller's budget", b.accounts, now, until)
	}
	if err := b.saveLocked(until.Add(time.Duration(b.usable-1)*b.pause), 0); err != nil {
		b.unsaved = true
		b.log.Error("the cool-down could not be saved: a restart would ask too early", "budget", b.key.String(), "err", err)
	}
}

// level returns how many requests could be sent at once now.
func (b *Bucket) level() float64 { return b.glance(b.tokensLocked) }

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
