package wildberries

import (
	"context"
	"errors"
	"fmt"
	"time"

	"syncd/internal/sources"
)

const (
	// archiveSeconds is how long a run of the news goes on with the archive's history
	// before the lists have their turn again. By a small budget that is one page.
	archiveSeconds = 60
	// The archive's history is asked for again after a failure when so many seconds
	// have passed, twice as many each time, up to the most.
	archiveRetry     = 60
	archiveRetryMost = 1800
	// backfillTries is how often in a row the archive may fail before a backfill ends
	// without it: the page is down to one entry by then.
	backfillTries = 10
	// A single entry that fails is stepped over, as are so many behind it, before the
	// archive counts as lost: the marketplace may be unable to send that one. A run of
	// the news, which does not come back to it, tries it so often before.
	archiveSteps = 4
	newsTries    = 10
	// archiveRow is how often in a row the archive may fail before the next runs take
	// it for broken at once: as many as it takes from the largest page to the last
	// step.
	archiveRow = backfillTries + archiveSteps
)

// lastPage fetches the next page of what a run of News, Full or Backfill reads last:
// the archive. Where that cannot be had the run ends without it. It fills in page.
func (c *Client) lastPage(ctx context.Context, q sources.Query, d *dated, cur *datedCursor, page sources.Page) (sources.Page, error) {
	r := cur.Run
	l, end, note, err := c.archivePage(ctx, q, d, r.Last, &cur.Archive)
	if err != nil {
		status := archiveFailure(ctx, err)
		if status == "" || q.Walk != sources.News && !c.archiveLost(q, err) {
			return sources.Page{}, err
		}
		if q.Walk == sources.News {
			cur.Fails++
		}
		if stepped := (q.Walk != sources.News || cur.Fails > newsTries) && c.stepOver(q, d, r.Last, err); stepped && q.Walk != sources.News {
			page.Partial, page.Progress = true, r.progress(r.Began)
			return page, nil
		}
		if page.Note = lostNote(d, status); q.Walk == sources.News {
			_, latest := c.present(q.Now)
			cur.Retry = latest.Unix() + min(archiveRetry<<min(cur.Fails-1, 10), int64(archiveRetryMost))
			cur.Past = r.Last
		}
		page.Partial, page.Done = true, cur.next(q)
		return page, nil
	}
	cur.Fails, cur.Retry = 0, 0
	page.History = q.Walk == sources.News
	page.Items, page.Undecodable, page.Date, page.Note = l.Items, l.Odd, l.Date, note
	if note != "" {
		if cur.Gap {
			page.Note = ""
		}
		cur.Gap = true
	} else if end {
		cur.Gap = false
	}
	page.Progress = r.progress(r.Began)
	switch {
	case end:
		page.Done = cur.next(q)
		cur.History = true
	case q.Walk == sources.News && l.Now.Unix() >= r.LastAt+archiveSeconds:
		// A crash from here on: the next run goes on behind this page.
		cur.Past = r.Last
		page.Partial, page.Done = true, cur.next(q)
	}
	return page, nil
}

// sweepArchive fetches the next page of the archive's head. Where that cannot be had
// the run ends without it, and the next one goes as far back. It fills in page.
func (c *Client) sweepArchive(ctx context.Context, q sources.Query, d *dated, cur *sweepCursor, page sources.Page) (sources.Page, error) {
	r := cur.Run
	if cur.Deep > 0 {
		r.Head.Floor, r.Head.First = min(r.Head.Floor, max(cur.Deep-int64(q.Overlap/time.Second)-1, 1)), 0
	}
	l, end, note, err := c.archivePage(ctx, q, d, r.Head, &cur.Archive)
	if err != nil {
		status := archiveFailure(ctx, err)
		if status == "" || !c.archiveLost(q, err) {
			return sources.Page{}, err
		}
		if page.Partial = true; c.stepOver(q, d, r.Head, err) {
			return page, nil
		}
		r.Head, page.Note = nil, lostNote(d, status)
		return page, nil
	}
	page.Items, page.Undecodable, page.Date, page.Note = l.Items, l.Odd, l.Date, note
	// In an order of its own the archive's head says nothing: see Full.
	if end || r.Head.Mixed {
		began, _ := c.present(page.Began)
		r.Head, cur.Head, cur.Deep = nil, began.Unix(), 0
	}
	return page, nil
}

// archiveFailure says how a request to the archive failed, as a status for people.
// Empty: in a way that is not about the archive, but about the token, the budget or
// ourselves.
func archiveFailure(ctx context.Context, err error) (status string) {
	e, ok := errors.AsType[*sources.Error](err)
	if !ok || ctx.Err() != nil {
		return ""
	}
	switch e.Kind {
	case sources.Unauthorized, sources.Payment, sources.RateLimited, sources.BudgetWait:
		return ""
	}
	switch {
	case e.Status == 0:
		return "no answer"
	case e.Kind == sources.Unreadable:
		return "an answer that cannot be read"
	}
	return fmt.Sprintf("answer %d", e.Status)
}

// ofThisMethod takes a 403 for one of the method alone, whatever it says: the lists
// would meet it as well if it were about more.
func ofThisMethod(err error) error {
	e, ok := errors.AsType[*sources.Error](err)
	if !ok || e.Kind != sources.Forbidden {
		return err
	}
	refused := *e
	refused.Kind, refused.Scope = sources.Rejected, sources.ScopeRequest
	return &refused
}

// archiveLost says whether a run that is not of the news does without the rest of the
// archive, now that it has failed with err: where a smaller page cannot help, or does
// not. A backfill, which comes but once, is more patient.
func (c *Client) archiveLost(q sources.Query, err error) bool {
	failed, row := c.sizes.failing(archiveKey(q))
	if q.Walk == sources.Backfill {
		return row >= backfillTries
	}
	return failed == 1 || sources.AsError(err).Kind == sources.Rejected
}

// stepOver goes behind the entry that has failed, if that was the only one that was
// asked for and the marketplace broke down over it.
func (c *Client) stepOver(q sources.Query, d *dated, a *archiveRun, err error) bool {
	failed, row := c.sizes.failing(archiveKey(q))
	outage := row > archiveRow && q.Walk != sources.News
	if failed != 1 || outage || a.Stepped >= archiveSteps || sources.AsError(err).Kind == sources.Rejected {
		return false
	}
	steps := a.Stepped + 1
	if _, err := a.skip(d, 1); err != nil {
		return false
	}
	a.Stepped = steps
	return true
}

// steppedNote is told with the page behind what was stepped over.
func steppedNote(d *dated) string {
	return fmt.Sprintf("an entry of the archive of %s cannot be had: it was stepped over", d.name)
}

func lostNote(d *dated, status string) string {
	return fmt.Sprintf("the archive of %s cannot be read (%s): the lists are read without it, and it is tried again later", d.name, status)
}
