package yandexmarket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"syncd/internal/sources"
)

// againAfter is how long after a failure that may pass a store is tried again in the
// same run, each time that this happens in a row: a run comes too seldom for that. It
// is done in the time for what is not urgent, when the others have been read.
var againAfter = []time.Duration{time.Second, 3 * time.Second, 10 * time.Second, 10 * time.Second, 10 * time.Second}

// storeAgain is a store that could not be read and is tried again in the same run.
type storeAgain struct {
	At    int64        `json:"at"`    // not before, by our clock, Unix milliseconds
	Tries int          `json:"tries"` // that failed in a row
	Kind  sources.Kind `json:"kind"`  // of the last failure
	Err   string       `json:"err"`
}

func (a *storeAgain) at() int64 {
	if a == nil {
		return 0
	}
	return a.At
}

func (a *storeAgain) failure() *sources.Error {
	return &sources.Error{Kind: a.Kind, Scope: sources.ScopeRequest, Endpoint: getReturns.verb + " " + getReturns.path, Err: errors.New(a.Err)}
}

// tryAgain makes a store that failed wait for the end of the run; false: it is not worth
// it.
func (st *store) tryAgain(e *sources.Error, now time.Time) bool {
	next := storeAgain{Kind: e.Kind, Err: fmt.Sprintf("%.200s", e.Err)}
	if st.Again != nil {
		next.Tries = st.Again.Tries
	}
	if e.Kind != sources.Temporary && e.Kind != sources.Unreadable || next.Tries >= len(againAfter) {
		return false
	}
	next.At = now.Add(againAfter[next.Tries]).UnixMilli()
	next.Tries++
	st.Failing, st.Again = true, &next
	return true
}

// waiting is a store that waits to be tried again in this run; nil: there is none.
func (c *returnsCursor) waiting() *store {
	if i := slices.IndexFunc(c.Stores, func(st store) bool { return st.Again != nil }); i >= 0 {
		return &c.Stores[i]
	}
	return nil
}

func (a *storeAgain) sound() bool {
	return a == nil || sources.Times(a.At) && sources.Counts(a.Tries)
}

// wait waits until it is time to try again, which moves now on.
func (a *storeAgain) wait(ctx context.Context, now *time.Time) error {
	if a == nil {
		return nil
	}
	d := min(max(time.UnixMilli(a.At).Sub(*now), 0), slices.Max(againAfter))
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		*now = now.Add(d)
		return nil
	}
}

// before says which of two stores that fail is to be tried first, as time is short: one
// that was not in this run, and of these who had no turn for longest.
func (st *store) before(o *store) bool {
	return cmp.Or(cmp.Compare(st.Again.at(), o.Again.at()), cmp.Compare(st.Run, o.Run)) < 0
}

// giveUp leaves a store for the next run.
func (c *returnsCursor) giveUp(st *store, e *sources.Error) sources.Page {
	st.Failing, st.Again, c.Run.Partial = true, nil, true
	c.through(st)
	return sources.Page{Began: c.Run.began(), Failed: ofStore(e, st.ID)}
}
