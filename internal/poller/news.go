package poller

import (
	"context"
	"time"

	"syncd/internal/sources"
)

// runNews polls until ctx ends, and then calls ended: when the schedule says so,
// after a failure when it is worth trying again, and when it is woken. A run that
// takes longer than the schedule's period makes the next one wait, and is followed
// by it at once.
func (w *worker) runNews(ctx context.Context, ended func()) {
	k := w.news.walks[0]
	begin := time.Now().Add(w.phase)
	next, held := begin, false
	w.setNext(next)
	w.news.run(ctx, next, func(due bool) time.Time {
		// The run that follows answers all who asked before.
		asked := w.news.asked.Swap(false)
		if w.isOff(k) {
			return time.Now().Add(farOff)
		}
		// The operator wakes it whatever it waits for, another stream only where no
		// failure holds it back.
		if !due && !asked && held {
			return next
		}
		next, held = w.newsTurn(ctx, k, begin, asked)
		w.setNext(next)
		return next
	}, func() {
		w.keep(w.news, k)
		ended()
	})
}

// newsTurn polls, and returns when the next turn is, and whether a failure holds
// the stream back until then.
func (w *worker) newsTurn(ctx context.Context, k *walk, begin time.Time, asked bool) (next time.Time, held bool) {
	if d := w.blockedFor(); d > 0 && !asked {
		return time.Now().Add(d + w.phase), true
	}
	w.setNext(time.Time{})
	start := time.Now()
	w.mu.Lock()
	first := k.began.IsZero() // no run is complete in this process
	w.mu.Unlock()
	switch began, err := w.poll(ctx, w.news, k); {
	// The rest of a run that an earlier process began shows nothing new of what it had
	// read by then, and processes that die young would read no more than such rests.
	case err == nil && first && !began.IsZero() && began.Before(w.opened.Truncate(time.Millisecond)):
		return time.Now(), false
	case err == nil:
		return w.tick(begin, start), false
	case ctx.Err() != nil:
		return time.Time{}, false
	default:
		return time.Now().Add(w.failed(k, err)), true
	}
}

// poll makes one run of a walk, or goes on with the one that an earlier process
// began: pages until the source says that it has seen everything. It returns when
// that run began.
func (w *worker) poll(ctx context.Context, l *lane, k *walk) (began time.Time, err error) {
	defer w.dropAhead(k)
	for {
		if ctx.Err() != nil && k.ahead == nil { // a request that was sent is worth its commit
			return began, context.Cause(ctx)
		}
		page, err := w.step(ctx, l, k, true)
		if err != nil {
			return began, err
		}
		if k.name == sources.News {
			w.watch(page)
		}
		if page.Done {
			k.partial, k.more = page.Partial && !k.lost, page.Partial && page.History
			return page.Began, nil
		}
	}
}
