package poller

import (
	"cmp"
	"context"
	"errors"
	"time"

	"syncd/internal/sources"
	"syncd/internal/state"
	"syncd/internal/trouble"
)

const (
	// pendingMost and pendingFor bound what the process alone knows of visits that
	// showed nothing new: see follower.pending.
	pendingMost = 50
	pendingFor  = 5 * time.Minute
	// visitTries is how often a page in the middle of a visit is tried before the
	// visit is put off, and what was read of it is lost.
	visitTries = 3
	// outage is how many different visits must fail in a row to be an outage.
	outage = 3
	// delaysMost bounds how many visits are known to have failed. Beyond it the one
	// that would be tried again first is tried again at once.
	delaysMost = 1000
	// fairEvery is of how many visits one need not be urgent: see state.NextVisit.
	fairEvery = 8
	// lookAgain is when a lane without anything due looks again unasked: the plan may
	// have been made with a clock that was ahead.
	lookAgain = time.Hour
	// forgetAgain is when a visit is tried again to a thing that a source would forget by
	// a clock that is in doubt.
	forgetAgain = 24 * time.Hour
	// The numbers of planned visits count as good for countedLeast and countedEach
	// for each of them, so that counting costs next to nothing, and countedMost at most.
	countedLeast = 10 * time.Second
	countedEach  = 10 * time.Millisecond
	countedMost  = 10 * time.Minute
	// visitsApart is the least time between two visits of a thing, so that nothing
	// that a source gets wrong makes a loop without a pause.
	visitsApart = time.Second
)

// follower is the third lane of a stream that visits things one by one, and what
// it knows of them. The plan itself is in the state.
type follower struct {
	lane

	// Of the lane's goroutine.
	by      time.Time         // Once: only what is due until then; zero: until now
	at      time.Time         // when to look again, where nothing was due
	picked  int               // visits
	tries   int               // failures of the page that is next
	delays  map[string]*delay // visits that failed and are put off, by id; at most delaysMost
	row     []string          // of those, the first ones that failed for the first time since one worked; at most outage
	trouble trouble.Run       // of single visits

	// pending are visits that were made and showed nothing new, by id: they are not
	// worth a commit each. They are saved with the next page that is written anyway,
	// where there are too many, where one has waited for too long, or where one of them
	// is needed. A process that dies before repeats these visits: that costs requests,
	// and no item, since what they showed is on record. Guarded by lane.committing, as
	// are the four below.
	pending map[string]state.Visit
	since   time.Time // of the oldest one
	planned time.Time // the latest time of one of them by the clock on the wall
	doubt   bool      // a commit failed: something of the visit going on may be saved
	drop    bool      // it is being abandoned, and that may have taken effect: it must not go on

	// Guarded by worker.mu.
	next    time.Time // when the lane looks again; zero: it is at work
	count   visitCount
	delayed int // visits that are put off
}

// visitCount is how many visits are planned, as of a time.
type visitCount struct {
	at           time.Time
	ages         []sources.VisitCount
	planned, due int
}

// errNoVisit says that there is nothing to visit now.
var errNoVisit = errors.New("no visit is due")

// runFollow makes visits until ctx ends, and then calls ended.
func (w *worker) runFollow(ctx context.Context, ended func()) {
	f, k := w.follow, w.follow.walks[0]
	f.run(ctx, time.Now().Add(w.phase), func(bool) time.Time {
		next := w.followTurn(ctx, f.asked.Swap(false))
		w.mu.Lock()
		f.next = next
		w.mu.Unlock()
		return next
	}, func() {
		w.keep(&f.lane, k)
		ended()
	})
}

// followTurn makes visits until none is due, and returns when to look again. asked:
// by the operator, so whatever failed is tried.
func (w *worker) followTurn(ctx context.Context, asked bool) (next time.Time) {
	f, k := w.follow, w.follow.walks[0]
	if asked {
		clear(f.delays)
	}
	w.mu.Lock()
	f.next = time.Time{}
	w.mu.Unlock()
	for ; ctx.Err() == nil; asked = false {
		if w.isOff(k) {
			return time.Now().Add(farOff)
		}
		if d := w.blockedFor(); d > 0 && !asked {
			return time.Now().Add(d + w.phase)
		}
		w.mu.Lock()
		retry := k.retry
		w.mu.Unlock()
		if retry.After(time.Now()) && !asked {
			return retry
		}
		switch _, err := w.step(ctx, &f.lane, k, false); {
		case err == nil:
		case errors.Is(err, errNoVisit):
			return f.at
		case ctx.Err() == nil:
			w.failedVisit(k, err)
		}
	}
	return time.Time{}
}

// visitDue makes the visits that are due at a time, trying failures that pass again.
func (w *worker) visitDue(ctx context.Context, by time.Time) error {
	f, k := w.follow, w.follow.walks[0]
	defer w.keep(&f.lane, k)
	defer func() { f.by = time.Time{} }()
	f.by = by
	clear(f.delays)
	tries, worked := 0, k.worked
	var last error
	for {
		if ctx.Err() != nil {
			return cmp.Or(last, context.Cause(ctx))
		}
		_, err := w.step(ctx, &f.lane, k, false)
		if k.worked > worked {
			tries, worked = 0, k.worked
		}
		var wait time.Duration
		switch {
		case err == nil:
			continue
		case errors.Is(err, errNoVisit):
			var again bool
			if wait, again = f.again(); !again && len(f.delays) == 0 {
				return nil
			} else if !again {
				return last
			}
		default:
			if _, fetching := errors.AsType[*sources.Error](err); !fetching && ctx.Err() != nil {
				return cmp.Or(last, err)
			}
			last = err
			wait = w.failedVisit(k, err)
			e := sources.AsError(err)
			refused := ofOneVisit(e) && (e.Kind == sources.Rejected || e.Kind == sources.Forbidden)
			if wait == 0 || refused && len(f.delays) < delaysMost {
				continue // it waits, or is given up: the next one is another
			}
			tries++
			passes := e.Kind == sources.RateLimited || (e.Kind == sources.Temporary || e.Kind == sources.Unreadable) && tries < onceTries
			if ctx.Err() != nil || !passes || errors.Is(err, sources.ErrNoSuchWalk) || errors.Is(err, state.ErrBroken) {
				return err
			}
		}
		if !sleepUntil(ctx, time.Now().Add(wait)) {
			return cmp.Or(last, context.Cause(ctx))
		}
	}
}
