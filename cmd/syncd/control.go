package main

import (
	"context"
	"errors"
	"net/http"
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
	leases := &leases{budgets: a.budgets, open: make(map[uint64]*apiclient.Grant)}
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
		"check": leases.act,
	}
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
		l.end(in.Lease, in.CoolingTill)
		return budgetAnswer{}, nil
	}
	m, ok := findMarketplace(in.Marketplace)
	if _, known := m.groups[in.Group]; !ok || !known || in.Seller == "" || len(in.Seller) > 100 || !(in.Share > 0 && in.Share <= 1) {
		return nil, &web.Error{Status: http.StatusBadRequest, Err: errors.New("marketplace, seller, group, token_type and share are needed")}
	}
	limit, class := m.budget(in.TokenType, in.Group)
	key := apiclient.Key{Marketplace: m.name, Seller: in.Seller, Group: in.Group, Class: class}
	ctx, cancel := context.WithTimeout(ctx, leasePatience)
	defer cancel()
	grant, err := l.budgets.Reserve(ctx, key, limit, in.Share, "check")
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
	time.AfterFunc(leaseEnds, func() { l.end(id, time.Time{}) })
	return budgetAnswer{Lease: id}, nil
}

// end counts the request of a lease as answered, once. A time until which the
// marketplace wants to be left alone is obeyed by the daemon as well.
func (l *leases) end(id uint64, coolingUntil time.Time) {
	l.mu.Lock()
	grant := l.open[id]
	delete(l.open, id)
	l.mu.Unlock()
	if grant == nil {
		return
	}
	answer := apiclient.Answer{Remaining: -1}
	if wait := time.Until(coolingUntil); wait > 0 {
		answer.Throttled, answer.RetryAfter = true, wait
	}
	grant.Answered(answer)
}
