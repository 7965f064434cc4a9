package poller

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"syncd/internal/sources"
	"syncd/internal/state"
)

// onceTries is how often Once tries a page that fails for a passing reason.
const onceTries = 5

// Once brings every stream up to what existed when it began, then makes the visits
// that are due by then and the sweeps that are due by their durable schedules, and
// reads the history that was asked for. It returns what was not possible before
// ctx's deadline. A wait for the budget beyond the deadline is given up at once.
func (p *Poller) Once(ctx context.Context) ([]Left, error) {
	if err := p.open(); err != nil {
		return nil, err
	}
	workers := p.polled()
	gates := gatesOf(workers)
	left := each(workers, func(w *worker) []Left { return w.once(ctx, gates[w.ID.Account]) })
	p.part(workers)
	stopped := p.Stopped()
	for _, w := range p.all() {
		if err := stopped[w.ID.Account]; err != nil {
			left = append(left, Left{w.ID, "", err})
		}
	}
	slices.SortStableFunc(left, func(a, b Left) int { return cmp.Compare(a.Stream.String(), b.Stream.String()) })
	return left, nil
}

// each runs fn for all workers side by side.
func each(workers []*worker, fn func(*worker) []Left) []Left {
	var (
		mu   sync.Mutex
		left []Left
		wg   sync.WaitGroup
	)
	for _, w := range workers {
		wg.Go(func() {
			l := fn(w)
			mu.Lock()
			defer mu.Unlock()
			left = append(left, l...)
		})
	}
	wg.Wait()
	slices.SortStableFunc(left, func(a, b Left) int { return cmp.Compare(a.Stream.String(), b.Stream.String()) })
	return left
}

// gatesOf returns for each account what the visits of its streams wait for: the end
// of the news of all of them, which find what is to be visited.
func gatesOf(workers []*worker) map[string]*sync.WaitGroup {
	gates := make(map[string]*sync.WaitGroup)
	for _, w := range workers {
		if gates[w.ID.Account] == nil {
			gates[w.ID.Account] = new(sync.WaitGroup)
		}
		gates[w.ID.Account].Add(1)
	}
	return gates
}

// newsAndVisits reads a stream's news and makes the visits that are due when those
// of the whole account have been read. It returns the error of its own as well.
func (w *worker) newsAndVisits(ctx context.Context, gate *sync.WaitGroup, start time.Time) (left []Left, news error) {
	news = w.drive(ctx, w.news, w.news.walks[0], start)
	gate.Done()
	if news != nil {
		left = append(left, Left{w.ID, sources.News, news})
	}
	if w.follow == nil {
		return left, news
	}
	gate.Wait()
	err := news
	if err == nil || !refused(err) {
		err = w.visitDue(ctx, time.Now())
	}
	if err != nil {
		left = append(left, Left{w.ID, sources.Follow, err})
	}
	return left, news
}

func (w *worker) once(ctx context.Context, gate *sync.WaitGroup) []Left {
	start := time.Now()
	left, news := w.newsAndVisits(ctx, gate, start)
	for _, k := range w.background.walks {
		w.mu.Lock()
		due, ok := w.dueLocked(k, start)
		w.mu.Unlock()
		if !ok || due.After(start) {
			continue
		}
		err := news // a token that was refused is not tried with every walk
		if err == nil || !refused(err) {
			err = w.drive(ctx, w.background, k, start)
		}
		if err != nil {
			left = append(left, Left{w.ID, k.name, err})
		}
	}
	return left
}

func refused(err error) bool {
	switch e := sources.AsError(err); e.Kind {
	case sources.Unauthorized, sources.Payment, sources.Forbidden:
		return e.Scope == sources.ScopeGroup || e.Scope == sources.ScopeStream
	}
	return false
}

// drive reads a walk to its end, trying failures that pass again. A News run that
// an earlier process began is followed by another, since it does not show what
// came before start.
func (w *worker) drive(ctx context.Context, l *lane, k *walk, start time.Time) error {
	defer w.keep(l, k)
	tries, worked := 0, k.worked
	var last error
	for {
		began, err := w.poll(ctx, l, k)
		failed := last
		if tries++; k.worked > worked {
			tries, worked, last = 1, k.worked, nil
		}
		if err == nil {
			if k.more {
				continue
			}
			// Of lists that are read anew with every run the next one shows the rest; of
			// others one could not be read.
			if k.partial && !w.Whole {
				return cmp.Or(failed, errors.New("not all of it could be read"))
			}
			if k.name == sources.News && !began.IsZero() && began.Before(start.Truncate(time.Millisecond)) {
				continue
			}
			return k.again
		}
		if _, fetching := errors.AsType[*sources.Error](err); !fetching && ctx.Err() != nil {
			return cmp.Or(last, err) // what kept failing says more than that time is up
		}
		last = err
		e := sources.AsError(err)
		passes := e.Kind == sources.RateLimited || (e.Kind == sources.Temporary || e.Kind == sources.Unreadable) && tries < onceTries
		if ctx.Err() != nil || !passes || errors.Is(err, sources.ErrNoSuchWalk) || errors.Is(err, state.ErrBroken) {
			return err
		}
		if !sleepUntil(ctx, time.Now().Add(w.failed(k, err))) {
			return err
		}
	}
}
