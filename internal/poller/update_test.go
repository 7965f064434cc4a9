package poller_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"syncd/internal/poller"
	"syncd/internal/sources"
)

func update(t *testing.T, p *poller.Poller, streams ...poller.Stream) {
	t.Helper()
	if err := p.Update(streams); err != nil {
		t.Error(err)
	}
}

// asked returns when and for what a fake was asked, since a time.
func (f *fake) asked(since time.Time) (out []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, q := range f.calls {
		out = append(out, fmt.Sprintf("%s %s %s", f.times[i].Sub(since), q.Walk, q.Cursor))
	}
	return out
}

// An unchanged stream makes the same requests at the same moments, whatever becomes of
// the others: its run goes on, and its sweeps stay due when they were.
func TestUpdateLeavesOthersAlone(t *testing.T) {
	var alone, beside []string
	for _, updates := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r, f := newRig(t), newFake(t, "a", "b", "c", "d", "e", "f", "g").mutable()
			f.took = 3 * time.Second // a run takes long: an update comes in its middle
			f.whole = true
			s := swept("questions", f, "@every 15s", 2*time.Minute, 5*time.Minute)
			other, third := newFake(t, "x"), newFake(t, "y")
			begin := time.Now()
			p, stop := r.run(s, stream("claims", other, "@every 1m"))
			for i := range 20 {
				time.Sleep(31 * time.Second)
				if !updates {
					continue
				}
				o := stream("claims", other, fmt.Sprintf("@every %ds", 10+i))
				switch i % 4 {
				case 0:
					update(t, p, s, o)
				case 1:
					update(t, p, o, s, stream("chats", third, "@every 20s"))
				case 2:
					update(t, p, s)
				case 3:
					same := s
					same.Walks, same.Start = slices.Clone(s.Walks), nil // Start was applied
					update(t, p, same, o)
				}
			}
			stop()
			r.wantLogged("level=ERROR", 0)
			if updates {
				beside = f.asked(begin)
			} else {
				alone = f.asked(begin)
			}
		})
	}
	if len(alone) < 100 || !slices.Equal(alone, beside) {
		t.Errorf("%d requests beside updates, %d without:\n%q\n%q", len(beside), len(alone), beside, alone)
	}
}

// A stream is changed at each moment of its life. Every item comes once and in order,
// no page that was committed is read again, and what is new about the stream counts
// from then on.
func TestUpdateAtEachMoment(t *testing.T) {
	ids := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
	type world struct {
		*rig
		f *fake
		p *poller.Poller
	}
	for name, tt := range map[string]struct {
		slow   time.Duration // a commit
		took   time.Duration // a request
		staged bool
		asks   bool // for history
		before func(w *world)
		at     time.Duration
		pages  int // of News, or of the backfill, up to its end
	}{
		"in a fetch":              {took: 10 * time.Second, at: 25 * time.Second, pages: 5},
		"in a commit":             {slow: 10 * time.Second, at: 37 * time.Second, pages: 5},
		"between the polls":       {at: 42 * time.Second, pages: 5},
		"in a backoff":            {at: 25 * time.Minute, before: func(w *world) { w.f.fail = failFrom(2) }, pages: 5},
		"in a fetch, staged":      {took: 10 * time.Second, staged: true, at: 25 * time.Second, pages: 5},
		"in a commit, staged":     {slow: 10 * time.Second, staged: true, at: 65 * time.Second, pages: 5},
		"in a fetch of history":   {took: 10 * time.Second, asks: true, at: 25 * time.Second, pages: 5},
		"in a commit of history":  {slow: 10 * time.Second, asks: true, at: 57 * time.Second, pages: 5},
		"in a backoff of history": {asks: true, at: 25 * time.Minute, before: func(w *world) { w.f.fail = failFrom(3) }, pages: 5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, f := newRig(t), newFake(t, ids...)
				f.staged = tt.staged
				if tt.staged {
					slices.Reverse(f.items)
				}
				s := swept("questions", f, "@every 1h", 0, 0)
				walk := sources.News
				if tt.asks {
					walk = sources.Backfill
					for i := range f.items {
						f.items[i].Created = time.Now().Add(-day)
					}
					s.Start = nil
				}
				w := &world{rig: r, f: f}
				if !tt.asks {
					f.took = tt.took
				}
				if tt.before != nil && !tt.asks {
					tt.before(w)
				}
				begin := time.Now()
				var stop func()
				w.p, stop = r.run(s)
				if tt.asks {
					time.Sleep(time.Minute)
					f.set(func() {
						f.took = tt.took
						if tt.before != nil {
							tt.before(w)
						}
					})
					if _, err := w.p.Backfill("shop-a", "", time.Time{}); err != nil {
						t.Fatal(err)
					}
					begin = time.Now()
				}
				r.mu.Lock()
				r.slow = tt.slow
				r.mu.Unlock()
				time.Sleep(time.Until(begin.Add(tt.at)))
				f.set(func() { f.fail = nil })
				changed := s
				changed.Schedule = "@every 2h"
				update(t, w.p, changed)
				if took := time.Since(begin.Add(tt.at)); took > tt.took+2*tt.slow+time.Second {
					t.Errorf("the update took %s", took)
				}
				updated := time.Now()
				time.Sleep(2*time.Minute + 6*tt.took + 8*tt.slow)
				// The rest of a run that an earlier one had begun is followed by another.
				most := tt.pages + 1
				if tt.staged {
					most = 2 * tt.pages
				}
				if got := f.pages(walk) - failures(f, walk); got < tt.pages || got > most {
					t.Errorf("%d pages of %s were read: %q", got, walk, f.asked(begin))
				}
				if twice := f.twice(walk); twice > 0 {
					t.Errorf("%d pages were read again: %q", twice, f.asked(begin))
				}
				want := slices.Clone(ids)
				if tt.asks {
					for i := range want {
						want[i] += " backfill"
					}
				}
				r.wantEmitted(want...)

				before := f.pages(sources.News)
				time.Sleep(3 * time.Hour)
				if n := f.pages(sources.News) - before; n < 1 || n > 2 && !tt.staged {
					t.Errorf("%d pages in 3 hours with the new schedule, since %s", n, updated.Sub(begin))
				}
				stop()
				r.wantEmitted(want...)
			})
		})
	}
}

// failFrom makes all requests fail after n more.
func failFrom(n int) func(int) error {
	left := n
	return func(int) error {
		if left--; left >= 0 {
			return nil
		}
		return failing(sources.Temporary, sources.ScopeRequest, 503)
	}
}

// twice counts the pages of a walk whose answer a poller asked for again with the same
// cursor of a run that was going on.
func (f *fake) twice(walk sources.Walk) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	seen := make(map[string]bool)
	for i, q := range f.calls {
		if q.Walk != walk || !strings.Contains(string(q.Cursor), `"Began":9`) || f.failed[i] {
			continue
		}
		if seen[string(q.Cursor)] {
			n++
		}
		seen[string(q.Cursor)] = true
	}
	return n
}

func failures(f *fake, walk sources.Walk) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, q := range f.calls {
		if q.Walk == walk && f.failed[i] {
			n++
		}
	}
	return n
}

// A stream that visits things is changed in the middle of a visit of several pages, and
// between visits that showed nothing new: no answer is lost or comes twice, and what was
// visited is not visited again.
func TestUpdateInVisits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b", "c", "d", "e")
		f.whole = true
		o := newForum(f)
		var want []string
		for i := range 9 {
			o.answer("a", 1)
			want = append(want, fmt.Sprintf("a-%02d backfill", i+1))
			time.Sleep(time.Millisecond)
		}
		o.took = 7 * time.Second
		s := forumStream(o, "@every 1m")
		p, stop := r.run(s)
		for i := range 12 {
			time.Sleep(9 * time.Second)
			s.Sweep.Window += time.Hour
			update(t, p, s)
			if i == 0 && f.pages(sources.Follow) == 0 {
				t.Error("no visit is going on: the test shows nothing")
			}
		}
		time.Sleep(10 * time.Minute)
		stop()
		got := slices.DeleteFunc(r.emitted(), func(id string) bool { return !strings.HasPrefix(id, "a-") })
		if !slices.Equal(got, want) {
			t.Errorf("emitted %q", got)
		}
		made := o.made()
		slices.Sort(made)
		if !slices.Equal(made, []string{"a", "b", "c", "d", "e"}) {
			t.Errorf("visited %q", made)
		}
	})
}

// Contract "Removing only stops": what leaves is asked for nothing more and shows no
// metrics; what comes back goes on where it was, and its start is not applied again.
func TestUpdateRemovesAndBringsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f, g := newRig(t), newFake(t, "a", "b", "c"), newFake(t, "x")
		s, other := stream("questions", f, "@every 10s"), stream("claims", g, "@every 10s")
		p, stop := r.run(s)
		time.Sleep(time.Minute)
		before := len(f.requests())
		update(t, p, other)
		if n := testutil.CollectAndCount(r.reg, "syncd_poll_last_success_timestamp_seconds"); n != 1 {
			t.Errorf("%d streams have metrics", n)
		}
		for _, family := range []string{"syncd_items_total", "syncd_poll_errors_total"} {
			metrics, err := r.reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range metrics {
				if m.GetName() == family && strings.Contains(m.String(), `"questions"`) {
					t.Errorf("%s still has the stream", family)
				}
			}
		}
		f.add("d", "old-1")
		time.Sleep(time.Hour)
		if n := len(f.requests()); n != before {
			t.Errorf("%d requests of a stream that has left", n-before)
		}
		if st := p.Status(); len(st) != 1 || st[0].Stream.Stream != "claims" {
			t.Errorf("status %+v", st)
		}
		if _, err := p.PollNow("shop-a", "questions"); err == nil {
			t.Error("a stream that has left can be polled")
		}
		s.Start = nil // now
		again := newFake(t)
		again.items, again.given = f.items, f.given
		s.Source = again
		update(t, p, other, s)
		time.Sleep(2 * time.Second)
		stop()
		got := slices.DeleteFunc(r.emitted(), func(id string) bool { return id == "x" })
		if want := []string{"a", "b", "c", "d", "old-1"}; !slices.Equal(got, want) {
			t.Errorf("emitted %q, want %q", got, want)
		}
	})
}

// A group that a 401 has stopped goes on at once with another token, and stays quiet
// where something else has changed. Other accounts stay as they are.
func TestUpdateToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f, g := newRig(t), newFake(t, "a", "b", "c"), newFake(t, "x")
		refuse := func(int) error { return failing(sources.Unauthorized, sources.ScopeGroup, 401) }
		f.fail, g.fail = refuse, refuse
		s, other := stream("questions", f, "@every 10s"), stream("questions", g, "@every 10s")
		g.seller = "seller-2"
		other.ID.Account = "shop-b"
		p, stop := r.run(s, other)
		time.Sleep(time.Minute)
		quiet := len(f.requests())
		s.Schedule = "@every 15s"
		update(t, p, s, other)
		time.Sleep(time.Minute)
		if n := len(f.requests()); n != quiet {
			t.Errorf("%d requests with a token that is refused", n-quiet)
		}
		renewed := newFake(t)
		renewed.items = f.items
		s.Source = renewed
		update(t, p, s, other)
		time.Sleep(time.Second)
		r.wantEmitted("a", "b", "c")
		if n := len(g.requests()); n != quiet {
			t.Errorf("%d requests of the other account", n-quiet)
		}
		update(t, p, other)
		if st := p.Status(); len(st) != 1 || st[0].Blocked.IsZero() {
			t.Errorf("the other account is no longer blocked: %+v", st)
		}
		stop()
	})
}

// A token of another seller stops its account alone, and before it is used; the right
// one lets it go on.
func TestUpdateOtherSeller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f, g, wrong := newRig(t), newFake(t, "a", "b"), newFake(t, "x"), newFake(t, "stolen")
		wrong.seller = "seller-2"
		g.seller = "seller-3"
		s, other := stream("questions", f, "@every 10s"), stream("questions", g, "@every 10s")
		other.ID.Account = "shop-b"
		p, stop := r.run(s, other)
		time.Sleep(time.Minute)
		s.Source = wrong
		update(t, p, s, other)
		time.Sleep(time.Hour)
		err := p.Stopped()["shop-a"]
		if err == nil || !strings.Contains(err.Error(), "seller-1") || !strings.Contains(err.Error(), "seller-2") || len(p.Stopped()) != 1 {
			t.Errorf("stopped: %v", p.Stopped())
		}
		if n := len(wrong.requests()); n != 0 {
			t.Errorf("%d requests with the token of another seller", n)
		}
		f.add("c")
		s.Source = f
		update(t, p, s, other)
		time.Sleep(2 * time.Second)
		if len(p.Stopped()) != 0 {
			t.Errorf("stopped: %v", p.Stopped())
		}
		stop()
		got := slices.DeleteFunc(r.emitted(), func(id string) bool { return id == "x" })
		if want := []string{"a", "b", "c"}; !slices.Equal(got, want) {
			t.Errorf("emitted %q", got)
		}
	})
}

// An update that cannot be made changes nothing.
func TestUpdateFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b", "c")
		s := stream("questions", f, "@every 10s")
		begin := time.Now()
		p, stop := r.run(s)
		time.Sleep(time.Minute)
		bad, fresh := stream("claims", newFake(t), "every day"), stream("claims", newFake(t), "@every 10s")
		fresh.ID.Account = "shop-b"
		if err := p.Update([]poller.Stream{bad}); err == nil || !strings.Contains(err.Error(), "every day") {
			t.Errorf("err %v", err)
		}
		r.mu.Lock()
		r.fault = func(int, func() error) error { return errBroken }
		r.mu.Unlock()
		other := s
		other.Schedule = "@every 1h"
		if err := p.Update([]poller.Stream{other, fresh}); !errors.Is(err, errBroken) {
			t.Errorf("with a full disk: %v", err)
		}
		r.mu.Lock()
		r.fault = nil
		r.mu.Unlock()
		if n := testutil.CollectAndCount(r.reg, "syncd_poll_last_success_timestamp_seconds"); n != 1 {
			t.Errorf("%d streams have metrics", n)
		}
		time.Sleep(time.Minute)
		if n := len(f.requests()); n != 13 { // two of the first run, and then one every 10 s
			t.Errorf("%d requests: %q", n, f.asked(begin))
		}
		stop()
		if err := p.Update([]poller.Stream{s}); !errors.Is(err, poller.ErrOver) {
			t.Errorf("after Run: %v", err)
		}
	})
}

// Update before Run: what Run then polls.
func TestUpdateBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f, g := newRig(t), newFake(t, "a"), newFake(t, "x")
		p := r.new(stream("questions", f, "@every 10s"))
		if _, err := p.PollNow("shop-a", "questions"); err != nil { // which opens the streams
			t.Fatal(err)
		}
		update(t, p, stream("claims", g, "@every 10s"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.Run(ctx); err != nil {
			t.Fatal(err)
		}
		r.wantEmitted("x")
		if len(f.requests()) != 0 {
			t.Error("a stream was polled that had left before")
		}
	})
}

// TestUpdateAtShutdown: an update that has begun comes to its end, what it has stopped
// is committed, and Run waits for it; one that comes later is refused.
func TestUpdateAtShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b")
		f.took = 10 * time.Second
		s := stream("questions", f, "@every 1m")
		p, stop := r.run(s)
		time.Sleep(5 * time.Second)
		other := s
		other.Schedule = "@every 2m"
		done := make(chan error, 2)
		go func() { done <- p.Update([]poller.Stream{other}) }()
		synctest.Wait()
		stop()
		if err := <-done; err != nil && !errors.Is(err, poller.ErrOver) {
			t.Error(err)
		}
		r.wantEmitted("a", "b")
		if n := len(f.requests()); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}
