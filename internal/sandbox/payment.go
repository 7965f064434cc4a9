package sandbox

import (
	"time"

	"syncd/internal/sandbox/kit"
)

// payment is what a request owes.
type payment struct {
	key   bucketKey
	limit Limit
	name  string // method and path, for the record of violations
	now   time.Time
	// drain makes somebody else empty the bucket just before: the request is refused through no fault of its own.
	drain *Fault
	// roundDown is [Quirks.RetryRoundsDown].
	roundDown bool
}

// limited are the numbers of a 429.
type limited struct {
	retry, reset, burst int
	limiter             string
}

// pay takes a token from the seller's bucket. It returns what is left, or why the request is refused.
func (w *World) pay(p payment) (remaining int, refusal *limited) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.buckets[p.key]
	if b == nil {
		b = newBucket(p.limit)
		w.buckets[p.key] = b
	}
	if p.drain != nil && (p.drain.Delay > 0 || b.real.wait(p.now, b.limit) <= 0) {
		b.drain(p.now, max(p.drain.Delay, b.limit.Interval))
	}
	ok, violation := b.take(p.now)
	if ok {
		return b.real.left(p.now, b.limit), nil
	}
	if violation != "" {
		if len(w.violations) == keptViolations {
			w.violations = w.violations[1:]
		}
		w.violations = append(w.violations, Violation{
			Kind: violation, Seller: w.seller.ID, Group: p.key.group, Time: p.now, Request: p.name,
		})
	}
	retry, reset := b.refuse(p.now, p.roundDown)
	if p.drain != nil && p.drain.Variant == "bare" {
		b.notBefore = time.Time{} // it was not told
	}
	limiter := kit.UUID(kit.Stream(0, w.seller.ID+string(p.key.group)+string(p.key.kind))) // one id per limiter, as in the example
	return 0, &limited{retry: retry, reset: reset, burst: b.limit.Burst, limiter: limiter}
}
