package poller_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/poller"
	"syncd/internal/sources"
)

// overtaking is a source of one question. The second News run waits for the budget
// while a request of the full reading, which came later, leaves before it, shows the
// question as it was, and is answered after it.
type overtaking struct {
	mu       sync.Mutex
	news     int           // runs
	waits    bool          // the second one does
	overtook chan struct{} // closed when the full reading has left
}

func (*overtaking) Seller() string { return "seller-1" }

func (o *overtaking) Fetch(_ context.Context, q sources.Query) (sources.Page, error) {
	p := sources.Page{Began: q.Now, Done: true, Cursor: sources.Cursor("1")}
	took, answered := 100*time.Millisecond, false
	o.mu.Lock()
	if q.Walk == sources.Full {
		if !o.waits {
			o.mu.Unlock()
			return p, nil
		}
		o.waits, took = false, 5*time.Second
		q.Sending()
		close(o.overtook)
	} else {
		o.news++
		o.waits, answered = o.news == 2, o.news >= 2
	}
	waits := o.waits
	o.mu.Unlock()
	if waits {
		<-o.overtook
		time.Sleep(2 * time.Second)
	}
	if q.Walk == sources.News {
		q.Sending()
	}
	time.Sleep(took)
	it := item("old")
	it.Immutable, it.Body = false, json.RawMessage(fmt.Sprintf(`{"id":"old","answered":%t}`, answered))
	p.Items = []sources.Item{it}
	return p, nil
}

// G3: of two readings the one whose request was sent later is the later one, not the
// one that began to wait later.
func TestReadingsAreOrderedBySending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := stream("questions", newFake(t), "@every 1m")
		s.Source = &overtaking{overtook: make(chan struct{})}
		s.Walks = []sources.Walk{sources.News, sources.Full}
		s.Sweep.Full, s.Sweep.Window = 20*time.Second, time.Hour
		stop := r.start(s)
		time.Sleep(5 * time.Minute)
		stop()
		r.wantKinds("created old backfill", "updated old")
	})
}

// longHistory is a source the first reading of which takes four runs, each complete but
// for the archive.
type longHistory struct {
	runs  int
	fails int // which of them could not read the archive
}

func (*longHistory) Seller() string { return "seller-1" }

func (h *longHistory) Fetch(_ context.Context, q sources.Query) (sources.Page, error) {
	time.Sleep(time.Second)
	h.runs++
	p := sources.Page{Began: q.Now, Done: true, Cursor: sources.Cursor("1")}
	if h.runs == h.fails {
		p.Partial, p.Note = true, "the archive cannot be read"
		return p, nil
	}
	p.Items = []sources.Item{item(fmt.Sprint("old-", h.runs)), item(fmt.Sprint("new-", h.runs))}
	p.History, p.Partial = h.runs <= 4, h.runs < 4
	return p, nil
}

// What the first reading shows late is history all the same.
func TestHistoryThatTakesSeveralRuns(t *testing.T) {
	want := []string{"old-1 backfill", "new-1", "old-2 backfill", "new-2", "old-3 backfill", "new-3", "old-4 backfill", "new-4", "old-5", "new-5"}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := stream("feedbacks", newFake(t), "@every 10s")
		s.Source = &longHistory{}
		stop := r.start(s)
		time.Sleep(49 * time.Second)
		stop()
		r.wantEmitted(want...)
	})
	// And once reads all of it, but does not wait for what fails.
	for _, fails := range []int{0, 3} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			s := stream("feedbacks", newFake(t), "@every 10s")
			s.Source = &longHistory{fails: fails}
			left := r.once(t.Context(), s)
			if fails == 0 {
				r.wantEmitted(want[:8]...)
			} else {
				r.wantEmitted(want[:4]...)
			}
			if (len(left) > 0) != (fails > 0) {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// crowd are streams of pages that are all large. It counts how many of them are in
// memory: from their turn to the next request of their stream, or its end.
type crowd struct {
	mu        sync.Mutex
	now, most int
}

func (*crowd) Seller() string { return "seller-1" }

func (c *crowd) Fetch(ctx context.Context, q sources.Query) (sources.Page, error) {
	q.Sending()
	if err := q.Large(ctx); err != nil {
		return sources.Page{}, &sources.Error{Kind: sources.Temporary, Scope: sources.ScopeRequest, Endpoint: "GET /", Err: err}
	}
	c.mu.Lock()
	c.now++
	c.most = max(c.most, c.now)
	c.mu.Unlock()
	time.Sleep(100 * time.Millisecond)
	c.mu.Lock()
	c.now--
	c.mu.Unlock()
	if q.Stream == "broken" {
		return sources.Page{}, &sources.Error{Kind: sources.Unreadable, Scope: sources.ScopeRequest, Endpoint: "GET /", Status: 200, Err: errors.New("cut short")}
	}
	return sources.Page{Items: []sources.Item{item(q.Stream)}, Began: q.Now, Done: true, Cursor: sources.Cursor("1")}, nil
}

// G8: memory does not grow with the number of streams: large pages take turns, none is
// forgotten, and a page that fails holds up nobody.
func TestLargePagesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		c := new(crowd)
		s := stream("broken", newFake(t), "@every 10s")
		s.Source = c
		streams, want := []poller.Stream{s}, []string{}
		for i := range 40 {
			s := stream(fmt.Sprint("s-", i), newFake(t), "@every 10s")
			s.Source = c
			streams, want = append(streams, s), append(want, s.ID.Stream)
		}
		stop := r.start(streams...)
		time.Sleep(time.Minute)
		stop()
		got := r.emitted()
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("emitted %q", got)
		}
		if c.most < 2 || c.most > 3 {
			t.Errorf("%d large pages at once, want 3 at most", c.most)
		}
	})
}
