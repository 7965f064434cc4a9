package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"syncd/internal/poller"
	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/state"
	"syncd/internal/web"
)

// actions are the commands that the running daemon takes: POST /api/v1/<name>.
func (a *app) actions() map[string]web.Action {
	streams := func(do func(in streamArgs) ([]state.StreamID, string, error)) web.Action {
		return func(_ context.Context, raw []byte) (any, error) {
			var in streamArgs
			if err := web.Arguments(raw, &in); err != nil {
				return nil, err
			}
			ids, left, err := do(in)
			if err != nil {
				return nil, refusal(err)
			}
			out := streamAnswer{LeftOut: left}
			for _, id := range ids {
				out.Streams = append(out.Streams, id.String())
			}
			return out, nil
		}
	}
	leases := &leases{budgets: a.budgets, open: make(map[uint64]*apiclient.Grant), sellers: make(map[string]bool)}
	forget := atDesk(a, (*desk).forget)
	return map[string]web.Action{
		"poll": streams(func(in streamArgs) ([]state.StreamID, string, error) {
			ids, err := a.poller.PollNow(in.Account, in.Stream)
			return ids, "", err
		}),
		"backfill": streams(func(in streamArgs) ([]state.StreamID, string, error) {
			if in.Since.After(time.Now()) {
				return nil, "", &web.Error{Status: http.StatusBadRequest, Err: errors.New("since is in the future")}
			}
			ids, err := a.poller.Backfill(in.Account, in.Stream, in.Since)
			return ids, "", err
		}),
		"state/skip": streams(func(in streamArgs) ([]state.StreamID, string, error) {
			left, err := a.poller.Skip(in.Account, in.Stream)
			return []state.StreamID{{Account: in.Account, Stream: in.Stream}}, left, err
		}),
		"check":            leases.act,
		"deadletter/list":  atDesk(a, (*desk).letters),
		"deadletter/retry": atDesk(a, (*desk).retry),
		"deadletter/drop":  atDesk(a, (*desk).drop),
		"replay":           atDesk(a, (*desk).replay),
		"sinks/resume":     atDesk(a, (*desk).resume),
		"state/forget": func(ctx context.Context, raw []byte) (any, error) {
			a.reloading.Lock() // or what is deleted could be configured and opened meanwhile
			defer a.reloading.Unlock()
			return forget(ctx, raw)
		},
	}
}

// downloads are those whose answer is too long for memory.
func (a *app) downloads() map[string]web.Download {
	return map[string]web.Download{
		"state/backup": {Write: func(_ context.Context, _ []byte, w io.Writer) error {
			// While it lasts the state cannot use free pages again: a megabyte a second is
			// the least that a client has to take.
			allowed := time.Minute + time.Duration(a.db.Size()>>20)*time.Second
			_, err := a.db.Backup(&inTime{w, time.Now().Add(allowed)})
			return err
		}},
		"export": {Patient: true, Write: func(ctx context.Context, raw []byte, w io.Writer) error {
			var in exportArgs
			if err := web.Arguments(raw, &in); err != nil {
				return err
			}
			return a.desk().export(ctx, in, w)
		}},
	}
}

// inTime is a writer that fails after a time.
type inTime struct {
	io.Writer
	until time.Time
}

func (w *inTime) Write(b []byte) (int, error) {
	if time.Now().After(w.until) {
		return 0, errors.New("it was taken too slowly")
	}
	return w.Writer.Write(b)
}

// refusal gives the poller's errors their status.
func refusal(err error) error {
	e, ok := errors.AsType[*poller.RefusedError](err)
	switch {
	case !ok:
		return err
	case e.Unknown:
		return &web.Error{Status: http.StatusNotFound, Err: err}
	}
	return &web.Error{Status: http.StatusConflict, Err: err}
}

// leases hand out tokens of the budgets to `check --online`, which sends its
// requests itself.
type leases struct {
	budgets *apiclient.Budgets

	mu   sync.Mutex
	last uint64
	open map[uint64]*apiclient.Grant

	sellers map[string]bool // that were asked for
}

// leaseEnds is when a request counts as answered whose sender is not heard of
// again: it had 30 s for it, and as long again to arrive.
const leaseEnds = time.Minute

// leasePatience is how long the daemon waits for a token that comes soon.
const leasePatience = 5 * time.Second

func (l *leases) act(ctx context.Context, raw []byte) (any, error) {
	var in budgetArgs
	if err := web.Arguments(raw, &in); err != nil {
		return nil, err
	}
	if in.Lease != 0 {
		l.end(in.Lease, in.Answer)
		return budgetAnswer{}, nil
	}
	if !l.knows(in) {
		return nil, &web.Error{Status: http.StatusTooManyRequests, Err: errors.New("too many sellers that are not configured here have been asked for")}
	}
	ctx, cancel := context.WithTimeout(ctx, leasePatience)
	defer cancel()
	grant, err := reserve(ctx, l.budgets, in)
	if err != nil {
		if e := sources.AsError(err); e.Kind == sources.BudgetWait {
			return budgetAnswer{Until: e.Until}, nil
		}
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	id := l.last
	l.open[id] = grant
	time.AfterFunc(leaseEnds, func() { l.end(id, leaseAnswer{}) })
	return budgetAnswer{Lease: id}, nil
}

// end counts the request of a lease as answered, once. What the marketplace said holds
// for the daemon as well.
func (l *leases) end(id uint64, a leaseAnswer) {
	l.mu.Lock()
	grant := l.open[id]
	delete(l.open, id)
	l.mu.Unlock()
	if grant == nil {
		return
	}
	grant.Answered(a.answer())
}

// strangersMost bounds how many sellers that no account has can be asked for: each
// is a bucket in memory and in the state file.
const strangersMost = 1000

// knows counts the sellers that were asked for.
func (l *leases) knows(in budgetArgs) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := in.Marketplace + "/" + in.Seller
	if len(l.sellers) >= strangersMost && !l.sellers[key] {
		return false
	}
	l.sellers[key] = true
	return true
}

// reserve takes a token of a seller's budget for one request beside the daemon.
func reserve(ctx context.Context, budgets *apiclient.Budgets, in budgetArgs) (*apiclient.Grant, error) {
	m, ok := findMarketplace(in.Marketplace)
	wrong := &web.Error{Status: http.StatusBadRequest, Err: errors.New("marketplace, seller, budget, token_type and share are needed")}
	if !ok || !plainName(in.Seller) || !(in.Share > 0 && in.Share <= 1) {
		return nil, wrong
	}
	grant, err := m.reserve(ctx, budgets, in)
	if errors.Is(err, errNoBudget) {
		return nil, wrong
	}
	return grant, err
}

// plainName says whether a seller's name can be part of a budget's.
func plainName(s string) bool {
	return s != "" && len(s) <= 100 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' })
}
