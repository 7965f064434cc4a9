package apiclient

import (
	"context"
	"time"
)

const (
	// serving is for how long the marketplace may still be busy with a request of which
	// nobody waits for the answer any more: it gives up after 10 s (yandex-market.md §1).
	serving = 12 * time.Second
	// calm is how long a lane that was told that it is too full goes on without being
	// told so again, before it lets one more go.
	calm = 30 * time.Second
)

// never is how long a place is away that only an answer frees.
const never = time.Duration(1<<63 - 1)

// Lane bounds how many requests of one entity are in flight. A place is taken when
// the request has been paid for, so nobody holds one while he waits for his budget.
// Those who wait for one get it by their weights: see queue.
//
// When the process begins, those of an earlier one may still be in flight: until they
// have been served it lets one go at a time. Nothing is saved for that: of processes
// that die within seconds, one after the other, each may add one, and the marketplace
// says so.
//
// All methods are safe for concurrent use.
type Lane struct {
	line
	most  int
	began time.Time // the process, not the lane

	inFlight  int
	notBefore time.Time // after a refusal
	refused   int       // refusals in a row, those of one storm counted as one
	sent      uint64
	stormed   uint64 // the last request sent before the latest refusal
}

// place is one in a lane, which a request holds from before it leaves to the end of
// its answer.
type place struct {
	lane   *Lane
	number uint64
}

// placesLocked is how many requests may be in flight at now, and when it is more.
func (l *Lane) placesLocked(now time.Time) (n int, more time.Time) {
	if old := l.began.Add(serving); now.Before(old) {
		return 1, old
	}
	if l.refused == 0 {
		return l.most, time.Time{}
	}
	n = 1 + int(now.Sub(l.notBefore)/calm)
	if n > 1 {
		l.refused = min(l.refused, 1) // in a row no more; one is remembered until all is as it was
	}
	if n >= l.most {
		l.refused = 0
		return l.most, time.Time{}
	}
	return n, l.notBefore.Add(time.Duration(n) * calm)
}

// turnLocked is how long the next place is away.
func (l *Lane) turnLocked(now time.Time, _ int) time.Duration {
	if now.Before(l.notBefore) {
		return l.notBefore.Sub(now)
	}
	n, more := l.placesLocked(now)
	switch {
	case l.inFlight < n:
		return 0
	case more.IsZero():
		return never
	}
	return more.Sub(now)
}

// take waits for a place. Its errors are ctx's.
func (l *Lane) take(ctx context.Context, f Flow) (*place, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.queue.join(f, true, false, time.Now())
	defer l.leaveLocked(w)
	now, err := l.awaitLocked(ctx, w, l.turnLocked)
	if err != nil {
		return nil, err
	}
	l.queue.serve(w, now)
	l.inFlight++
	l.sent++
	return &place{l, l.sent}, nil
}

// leave gives the place back. Where the answer did not come to its end the request
// may be in flight for a while yet.
func (p *place) leave(ended bool) {
	if !ended {
		time.AfterFunc(serving, func() { p.leave(true) })
		return
	}
	p.lane.mu.Lock()
	defer p.lane.mu.Unlock()
	p.lane.inFlight--
	p.lane.wakeLocked()
}

// refused says that the marketplace found too many in flight: others have requests of
// this entity there too. It returns when the next one goes.
func (p *place) refused() time.Time {
	l := p.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.number > l.stormed {
		now := time.Now()
		l.placesLocked(now)
		l.notBefore = now.Add(min(time.Second<<min(l.refused, 5), 30*time.Second))
		l.refused++
		l.stormed = l.sent
	}
	return l.notBefore
}
