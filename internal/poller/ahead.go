package poller

import (
	"bytes"
	"context"
	"time"

	"syncd/internal/event"
	"syncd/internal/fingerprint"
	"syncd/internal/sources"
)

// fetch is one request of a walk, and what came of it.
type fetch struct {
	asked  asked
	page   sources.Page
	prints []printed // of its items
	err    error
	large  permit

	cancel context.CancelFunc // of one ahead, as done
	done   chan struct{}      // closed when it is over
}

// printed is the fingerprint of an item; that of an immutable one is zero.
type printed struct {
	is  event.Fingerprint
	err error
}

// fetch makes a request. What takes the longest of all that the items of a page need
// is done here, where a page ahead costs no time.
func (w *worker) fetch(ctx context.Context, f *fetch) {
	// G3's "whose request was sent before": requests leave in another order than they
	// began to wait for the budget.
	f.asked.stamp = w.p.db.Stamp()
	f.asked.query.Sending = func() { f.asked.stamp = w.p.db.Stamp() }
	f.asked.query.Large = func(ctx context.Context) error { return f.large.take(ctx, w.p.large) }
	f.page, f.err = w.Source.Fetch(ctx, f.asked.query)
	f.asked.answered = time.Now()
	if f.err == nil {
		w.p.accepted(w.ID.Account, w.Group) // now: it may be committed after another request was refused
	}
	f.prints = make([]printed, len(f.page.Items))
	for i := range f.page.Items {
		if it, p := &f.page.Items[i], &f.prints[i]; !it.Immutable {
			p.is, p.err = fingerprint.Of(it.Body, w.Ignore)
		}
	}
}

// fetchAhead begins to fetch the page after one that is about to be committed, so
// that the marketplace and the disk are at work at the same time. It is committed
// after that one, or never: a crash between the two repeats the request.
//
// Not behind what is large, of which one at a time is enough, nor where the commit
// decides what is asked for next or what is made of it, nor after a failure: on a disk
// that is full each try would cost two requests.
func (w *worker) fetchAhead(ctx context.Context, k *walk, f *fetch) {
	page := &f.page
	switch k.name {
	case sources.News, sources.Full, sources.Backfill:
	default:
		return
	}
	q := &f.asked.query
	corrects := k.name == sources.News && q.Cursor == nil && w.Start == nil // see startByTheirClock
	if page.Done || page.Staged || len(page.Found) > 0 || corrects || f.large.taken || k.trouble.Row() > 0 || k.moves != f.asked.moves || ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	next := &fetch{asked: f.asked, cancel: cancel, done: make(chan struct{})}
	next.asked.query.Cursor, next.asked.query.Now = page.Cursor, time.Now()
	k.ahead = next
	go func() {
		defer close(next.done)
		w.fetch(ctx, next)
	}()
}

// takeAhead returns the page that was fetched ahead, when it is there, if it is the
// one that is asked for now; else nil.
func (w *worker) takeAhead(k *walk, a *asked) *fetch {
	f := k.ahead
	if f == nil {
		return nil
	}
	if f.asked.moves != a.moves || !bytes.Equal(f.asked.query.Cursor, a.query.Cursor) {
		w.dropAhead(k)
		return nil
	}
	k.ahead = nil
	<-f.done
	f.cancel()
	return f
}

// dropAhead lets go of a page that was fetched ahead and that nobody wants.
func (w *worker) dropAhead(k *walk) {
	f := k.ahead
	if f == nil {
		return
	}
	k.ahead = nil
	f.cancel()
	<-f.done
	f.large.giveBack(w.p.large)
}
