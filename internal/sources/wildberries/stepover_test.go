package wildberries_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/wildberries"
)

// poisoned is a feed that answers 500 to every request whose page would hold the
// events of one millisecond.
type poisoned struct {
	*feed
	ms int64
}

func (p poisoned) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var next int64
	if _, err := fmt.Sscan(r.URL.Query().Get("next"), &next); err != nil && r.URL.Query().Has("next") {
		p.t.Errorf("next: %v", err)
	}
	left := p.size()
	for _, e := range p.events {
		if e.ms > next && left > 0 {
			left--
			if e.ms == p.ms {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
		}
	}
	p.feed.ServeHTTP(w, r)
}

// TestSkipEvents: an event that the marketplace cannot send holds up all that come
// after it. Skip steps over a minute at a time, says which, and later runs stay
// behind that in spite of their overlap.
func TestSkipEvents(t *testing.T) {
	for _, walk := range []sources.Walk{sources.News, sources.Backfill} {
		synctest.Test(t, bubble(func(t *testing.T) {
			f := &feed{t: t, size: fixed(10), emptyNext: "echo"}
			start := time.Now().Add(-time.Hour)
			for i := range 120 {
				f.add(feedEvent{id: fmt.Sprint("e", i), ms: start.Add(time.Duration(i) * 30 * time.Second).UnixMilli()})
			}
			api := poisoned{feed: f, ms: f.events[60].ms}
			source := open(t, &direct{handler: api}, token(3))
			rd := newReader(t, source, wildberries.ChatEvents, start, time.Minute)
			rd.query.Walk = walk
			query := func() sources.Query {
				q := rd.query
				q.Cursor, q.Now = rd.cursor, time.Now()
				return q
			}
			skips := 0
			for range 200 {
				page, err := source.Fetch(t.Context(), query())
				if err == nil {
					for _, it := range page.Items {
						rd.seen[it.ID[1]]++
					}
					if rd.cursor = page.Cursor; page.Done && skips > 0 {
						break
					}
					continue
				}
				next, leftOut, err := source.Skip(query())
				if err != nil {
					t.Fatal(err)
				}
				var from, to string
				if _, err := fmt.Sscanf(leftOut, "chat events after %s and up to %s", &from, &to); err != nil {
					t.Fatalf("what is left out: %q", leftOut)
				}
				a, errA := time.Parse(time.RFC3339Nano, from)
				b, errB := time.Parse(time.RFC3339Nano, to)
				if errA != nil || errB != nil || b.Sub(a) != time.Minute {
					t.Errorf("what is left out: %q", leftOut)
				}
				rd.cursor = next
				skips++
			}
			if skips == 0 || skips > 10 {
				t.Fatalf("%d minutes were stepped over", skips)
			}
			for i := range 120 {
				// A page of ten spans five minutes: what is in it and before the event is lost.
				if id := fmt.Sprint("e", i); rd.seen[id] == 0 && (i > 61 || i < 50) {
					t.Errorf("%s was not read", id)
				}
			}
			for range 4 { // the way to the present is free
				time.Sleep(5 * time.Second)
				f.add(feedEvent{id: fmt.Sprint("new", len(f.events)), ms: time.Now().UnixMilli()})
				rd.run()
			}
			if rd.seen["new123"] == 0 {
				t.Error("what is new was not read")
			}
		}))
	}
}

// TestSkipEventsStaysBehind: right after it, with nothing read since, the next runs
// begin behind what was stepped over.
func TestSkipEventsStaysBehind(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		f := &feed{size: fixed(10), emptyNext: "echo"}
		f.add(feedEvent{id: "known", ms: time.Now().Add(-10 * time.Minute).UnixMilli()})
		source := f.open(t, 3)
		rd := newReader(t, source, wildberries.ChatEvents, time.Time{}, time.Minute)
		rd.run()
		rd.run()
		f.add(feedEvent{id: "poison", ms: time.Now().Add(-9*time.Minute - 30*time.Second).UnixMilli()})
		for range 2 { // the overlap, and the minute behind it
			next, _, err := source.Skip(sources.Query{Stream: wildberries.ChatEvents, Walk: sources.News, Cursor: rd.cursor, Overlap: time.Minute, Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			rd.cursor = next
		}
		for range 6 {
			rd.run()
			time.Sleep(5 * time.Second)
		}
		if rd.seen["poison"] > 0 {
			t.Error("a run has gone back to what was stepped over")
		}
	}))
}

// TestSkipEventsRefuses in front of the present, and where it does not know where
// it is.
func TestSkipEventsRefuses(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		f := &feed{size: fixed(10), emptyNext: "echo"}
		f.add(feedEvent{id: "e", ms: time.Now().Add(-10 * time.Second).UnixMilli()})
		source := f.open(t, 3)
		q := sources.Query{Stream: wildberries.ChatEvents, Walk: sources.News, Overlap: time.Second, Now: time.Now()}
		if _, _, err := source.Skip(q); err == nil || !strings.Contains(err.Error(), "oldest event") {
			t.Errorf("a walk that has not begun: %v", err)
		}
		q.Since = time.Now()
		if _, _, err := source.Skip(q); err == nil || !strings.Contains(err.Error(), "nothing to step over yet") {
			t.Errorf("in front of the present: %v", err)
		}
		q.Now = q.Now.Add(time.Hour)
		if next, _, err := source.Skip(q); err != nil || next == nil {
			t.Errorf("an hour later: %v", err)
		}
		if f.requests > 0 {
			t.Error("it has sent something")
		}
	}))
}

// TestSkipClaims: the page that cannot be sent is stepped over, and the run ends.
func TestSkipClaims(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		l := &claimLists{t: t, limit: 10}
		l.add(35, false)
		l.add(3, true)
		bad := true
		api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if q := r.URL.Query(); bad && q.Get("is_archive") == "false" && q.Get("offset") == "9" {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			l.ServeHTTP(w, r)
		})
		source := open(t, &direct{handler: api}, token(3))
		source.SetLimits(10, 500)
		q := sources.Query{Stream: wildberries.Claims, Walk: sources.News, Now: time.Now()}
		seen := make(map[string]int)
		var left []string
		for requests := 0; ; requests++ {
			page, err := source.Fetch(t.Context(), q)
			if err != nil {
				var leftOut string
				if q.Cursor, leftOut, err = source.Skip(q); err != nil {
					t.Fatal(err)
				}
				left = append(left, leftOut)
				continue
			}
			for _, it := range page.Items {
				seen[it.ID[0]]++
			}
			if page.Note != "" {
				t.Errorf("note %q", page.Note)
			}
			if q.Cursor = page.Cursor; page.Done {
				break
			}
			if requests > 20 {
				t.Fatal("the run does not end")
			}
		}
		// Once in each reading of the list, for the archive is not known to have rested.
		if len(left) != 2 || left[0] != "the claims under review from number 10 to number 19, in the order of the marketplace's answer" {
			t.Errorf("left out: %q", left)
		}
		if len(seen) != 38-9 {
			t.Errorf("read %d of 29", len(seen))
		}
		bad = false
		rd := newReader(t, source, wildberries.Claims, time.Time{}, 0)
		rd.cursor = q.Cursor
		if rd.run(); len(rd.seen) != 38 {
			t.Errorf("once it can be sent: read %d of 38", len(rd.seen))
		}
	}))
}

// TestSkipClaimsThatMove: behind a page that was stepped over a list is read to its
// end, though it moves, or the run would come upon the same page again. What is
// left out of the archive is not taken for having been read.
func TestSkipClaimsThatMove(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		l := &claimLists{limit: 10}
		l.add(5, false)
		l.add(45, true)
		source := l.open(t, 3)
		rd := newReader(t, source, wildberries.Claims, time.Time{}, 0)
		rd.run()
		for run := range 3 {
			rd.fetch() // those under review
			l.asked = nil
			next, _, err := source.Skip(sources.Query{Stream: wildberries.Claims, Walk: sources.News, Cursor: rd.cursor, Now: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			rd.cursor = next
			rd.fetch()
			if run == 0 {
				l.claims = slices.Delete(l.claims, 20, 21)
			}
			rd.run()
			if got, want := strings.Join(l.asked, ","), "true 10,true 19,true 28,true 37,false 0"; got != want {
				t.Errorf("run %d asked %s, expected %s", run, got, want)
			}
		}
	}))
}

// TestSkipRefuses where there is nothing to step over, and says why.
func TestSkipRefuses(t *testing.T) {
	source := open(t, &direct{handler: http.NotFoundHandler()}, token(3))
	for stream, why := range map[string]string{wildberries.Chats: "one answer holds the whole list", wildberries.FeedbackPins: "known only from the page before"} {
		next, leftOut, err := source.Skip(sources.Query{Stream: stream, Walk: sources.News, Now: time.Now()})
		if err == nil || !strings.Contains(err.Error(), why) || next != nil || leftOut != "" {
			t.Errorf("%s: %s, %q, %v", stream, next, leftOut, err)
		}
	}
	if _, _, err := source.Skip(sources.Query{Stream: wildberries.Chats, Walk: sources.Sweep}); !errors.Is(err, sources.ErrNoSuchWalk) {
		t.Errorf("no such walk: %v", err)
	}
	for _, stream := range []string{wildberries.ChatEvents, wildberries.Claims} {
		if _, _, err := source.Skip(sources.Query{Stream: stream, Walk: sources.News, Cursor: sources.Cursor("{"), Now: time.Now()}); err == nil {
			t.Errorf("%s: a damaged cursor was taken for none", stream)
		}
	}
}
