package poller

import (
	"context"
	"time"

	"syncd/internal/sources"
)

// runNews polls until ctx ends: when the schedule says so, after a failure when
// it is worth trying again, and when it is woken. A run that takes longer than
// the schedule's period makes the next one wait, and is followed by it at once.
func (w *worker) runNews(ctx context.Context) {
	k := w.news.walks[0]
	defer w.keep(w.news, k)
	next, held := time.Now().Add(phase(w.ID)), false
	for {
		w.setNext(next)
		asked := w.wait(ctx, next, held)
		if ctx.Err() != nil {
			return
		}
		if d := w.blockedFor(); d > 0 && !asked {
			next, held = time.Now().Add(d+phase(w.ID)), true
			continue
		}
		w.setNext(time.Time{})
		start := time.Now()
		_, err := w.poll(ctx, w.news, k)
		switch {
		case err == nil:
			next, held = w.schedule.Next(start.UTC()).Add(phase(w.ID)), false
		case ctx.Err() != nil:
			return
		default:
			next, held = time.Now().Add(w.failed(k, err)), true
			if w.isOff(k) {
				<-ctx.Done()
				return
			}
		}
	}
}

// wait sleeps until t, or until the lane is woken: by the operator whatever it
// waits for, by another stream only where no failure holds it back. The run that
// follows answers all who woke it before.
func (w *worker) wait(ctx context.Context, t time.Time, held bool) (asked bool) {
	for {
		due := sleepUntil(ctx, t, w.news.wake)
		select { // before the question: who asks from here on leaves a wake-up behind
		case <-w.news.wake:
		default:
		}
		asked := w.news.asked.Swap(false)
		if ctx.Err() != nil || due || asked || !held {
			return asked
		}
	}
}

// poll makes one run of a walk, or goes on with the one that an earlier process
// began: pages until the source says that it has seen everything. It returns when
// that run began.
func (w *worker) poll(ctx context.Context, l *lane, k *walk) (began time.Time, err error) {
	for {
		if ctx.Err() != nil {
			return began, context.Cause(ctx)
		}
		page, err := w.step(ctx, l, k)
		if err != nil {
			return began, err
		}
		if k.name == sources.News {
			w.watch(page)
		}
		if page.Done {
			k.partial = page.Partial
			return page.Began, nil
		}
	}
}
