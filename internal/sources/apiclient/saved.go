package apiclient

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// Ledger keeps what must survive the process. Save returns when the value is
// durable. Both may be called concurrently.
type Ledger interface {
	// Load returns what was saved under key, or nil. Stale: the ledger is a copy, the
	// original of which somebody may have gone on with, and nothing has been saved
	// under key since.
	Load(key string) (value []byte, stale bool, err error)
	Save(key string, value []byte) error
}

// saved is a bucket in the ledger. Times are wall clock, Unix milliseconds: a
// monotonic reading means nothing to the next process. A fast bucket is saved only
// when there are more requests on their way than ever before, and after a 429.
type saved struct {
	V         int   `json:"v"`
	Pause     int64 `json:"pause_ns,omitempty"`   // for one token then; 0: saved by a version that did not say
	FullAt    int64 `json:"full_at,omitempty"`    // slow buckets: when it will be full again
	OnWay     int   `json:"on_way,omitempty"`     // requests that may not have arrived, at most
	Landing   int64 `json:"landing,omitempty"`    // by when they have; 0: they may have left until the process died
	NotBefore int64 `json:"not_before,omitempty"` // what a 429 said

	Flows map[string]savedFlow `json:"flows,omitempty"` // slow buckets: whose turn it is
}

func newBucket(key Key, accounts []string, limit Limit, share float64, ledger Ledger, log *slog.Logger) (*Bucket, error) {
	b := &Bucket{line: line{key: key}, accounts: accounts, limit: limit, ledger: ledger, log: log, inFlight: make(map[uint64]struct{}), told: -1}
	raw, stale, err := ledger.Load(key.String())
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
	b.setShareLocked(share)
	b.queue.load(s.Flows, now)
	b.kept = raw != nil || stale
	switch {
	case !b.kept && b.slowLocked(): // contract §4 grants it one token
		b.levelLocked(now, 1)
	case !b.kept:
		b.levelLocked(now, 0)
	default:
		if stale || s.Pause == 0 && limit.Burst > 1 { // all that it can hold may have been sent a moment ago
			s.OnWay, s.Landing = limit.Burst, 0
		}
		b.resumeLocked(s, stale, now)
	}
	if d := time.UnixMilli(s.NotBefore).Sub(now); s.NotBefore != 0 && d > 0 {
		if d > 2*maxRetryAfter { // nobody can have said so: the clock was set back since
			d = max(time.Minute, b.pause)
		}
		b.coolLocked(now.Add(max(d, b.waitLocked(now, 0))))
		b.logCooling(b.log, "still cooling down: somebody else spends this seller's budget", b.accounts, now, b.notBefore)
	}
	return b, nil
}

// resumeLocked goes on with a bucket that an earlier process had.
func (b *Bucket) resumeLocked(s saved, stale bool, now time.Time) {
	// What a dead process sent is on its way for maxWay at most; but to whom it lent a
	// token may not have sent his request yet.
	landsBy := now.Add(maxSend + maxWay)
	landing := landsBy
	b.found = s.OnWay > 0 && s.Landing == 0
	if s.Landing != 0 {
		landing = earlier(landing, now.Add(time.UnixMilli(s.Landing).Sub(now)))
	}
	full := now.Add(time.UnixMilli(s.FullAt).Sub(now))
	if b.limit.Burst == 1 {
		if stale || s.FullAt == 0 {
			full = now.Add(b.pause)
		}
		// Further off the clock was set back, or the share raised; and what was lost may
		// still be on its way.
		full = earlier(full, landsBy.Add(b.pause))
		if s.OnWay > 0 {
			full = later(full, landing.Add(b.limit.Interval))
		}
		b.notBefore = full // also for another share that this process may get
		b.levelLocked(full, 1)
		return
	}
	// More than the bucket holds cannot be on their way.
	b.lost = slices.Repeat([]time.Time{landing}, min(max(s.OnWay, 0), b.limit.Burst-1))
	empty := full.Add(-time.Duration(b.usable) * b.pause)
	if s.FullAt == 0 || time.Duration(s.Pause) != b.pause || empty.After(now) {
		// Or it was one of another share, whose tokens are not this one's to spend; or
		// the clock was set back.
		b.levelLocked(now, 0)
		return
	}
	b.levelLocked(now, float64(now.Sub(empty))/float64(b.pause)) // holdLocked looks at what was lost
}

// saveLocked makes durable that the bucket will be full at full, and that sending
// requests are about to leave.
func (b *Bucket) saveLocked(full time.Time, sending int) error {
	// By today's wall clock, which may have been set since these times were found.
	now := time.Now()
	wall := func(t time.Time) int64 { return now.Add(t.Sub(now)).UnixMilli() + 1 }
	s := saved{V: 1, Pause: int64(b.pause), OnWay: b.onTheirWayLocked() + sending}
	switch {
	case b.slowLocked():
		s.FullAt, s.Flows = wall(full), b.queue.save(now)
		s.Landing = wall(now.Add(maxSend + maxWay))
	case s.OnWay > 0 && len(b.inFlight)+sending == 0:
		s.Landing = wall(b.lost[len(b.lost)-1])
	}
	if b.cooling {
		s.NotBefore = wall(b.notBefore)
	}
	raw, err := json.Marshal(s)
	if err == nil {
		err = b.ledger.Save(b.key.String(), raw)
	}
	if err == nil {
		b.kept, b.found, b.unsaved, b.told = true, false, false, -1
		if s.Landing == 0 && s.OnWay > 0 {
			b.told = s.OnWay
		}
	}
	return err
}

// saveAnew saves what the next process must know, by the wall clock of now.
func (b *Bucket) saveAnew() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.saveAnewLocked()
}

func (b *Bucket) saveAnewLocked() error {
	now := time.Now()
	b.holdLocked(now)
	if !b.unsaved && !b.kept || !b.slowLocked() && !now.Before(b.notBefore) && b.told <= len(b.inFlight) && len(b.lost) == 0 {
		return nil
	}
	at := later(now, b.notBefore)
	missing := max(float64(b.usable)-b.limiter.TokensAt(at), 0)
	return b.saveLocked(at.Add(time.Duration(missing*float64(b.pause))), 0)
}
