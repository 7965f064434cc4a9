package poller_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/poller"
	"syncd/internal/sources"
	"syncd/internal/state"
)

// What a list shows to have moved is visited at once, be it found by another stream
// of the account or by its own, and all else when it is due; each answer comes once,
// in the order in which it happened.
func TestFollow(t *testing.T) {
	for _, by := range []string{"", "answers"} {
		t.Run("by="+by, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, f := newRig(t), newFake(t, "a", "b", "c")
				f.whole = true
				o := newForum(f)
				o.by = by
				streams := []poller.Stream{forumStream(o, "@every 1m")}
				if by != "" {
					other := forumStream(o, "@every 1h")
					other.ID.Stream, other.Source, other.Driver = by, &forumVisitor{forum: o}, "questions"
					streams[0].Walks = nil
					streams = append(streams, other)
				}
				stop := r.start(streams...)
				time.Sleep(5 * time.Minute)
				if got := slices.Sorted(slices.Values(o.made())); !slices.Equal(got, []string{"a", "b", "c"}) {
					t.Errorf("visited %q at first", got)
				}
				for n, id := range map[int]string{9: "a", 1: "b"} {
					for range n {
						o.answer(id, 1)
						time.Sleep(time.Millisecond)
					}
				}
				time.Sleep(62 * time.Second)
				want := []string{"a-01", "a-02", "a-03", "a-04", "a-05", "a-06", "a-07", "a-08", "a-09"}
				got := slices.DeleteFunc(r.emitted(), func(id string) bool { return !strings.HasPrefix(id, "a-") })
				if !slices.Equal(got, want) || !slices.Contains(r.emitted(), "b-01") {
					t.Errorf("emitted %q within a minute", r.emitted())
				}
				if n := len(o.made()); n != 5 {
					t.Errorf("%d visits: %q", n, o.made())
				}
				f.set(func() { o.blind = true }) // the list shows nothing from now on
				time.Sleep(2 * time.Minute)
				before := o.visitsOf("c")
				o.answer("c", 1)
				time.Sleep(o.every + pollerSlack)
				if !slices.Contains(r.emitted(), "c-01") || o.visitsOf("c") != before+1 {
					t.Errorf("%d visits of what no list shows; emitted %q", o.visitsOf("c")-before, r.emitted())
				}
				stop()
			})
		})
	}
}

// pollerSlack is by how much a visit may be late: it may have to wait until what this
// process alone knows of it is saved.
const pollerSlack = 15 * time.Second

// forumVisitor is a forum whose own news are empty.
type forumVisitor struct {
	*forum
	down bool // they fail
}

func (o *forumVisitor) Fetch(ctx context.Context, q sources.Query) (sources.Page, error) {
	if q.Walk == sources.Follow {
		return o.forum.Fetch(ctx, q)
	}
	if o.down {
		return sources.Page{}, failing(sources.Temporary, sources.ScopeRequest, 502)
	}
	return sources.Page{Done: true}, nil
}

// Thousands of visits that show nothing new cost few commits, and none is made twice
// or left out for it.
func TestIdleVisitsCostNoCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := quickRig(t), newFake(t, manyIDs(300)...)
		f.whole, f.size = true, 1000
		o := newForum(f)
		o.took = 100 * time.Millisecond
		stop := r.start(forumStream(o, "@every 1h"))
		time.Sleep(time.Minute)
		o.set(func() { o.visits = nil })
		before := r.committed()
		time.Sleep(10 * time.Hour)
		commits := r.committed() - before
		stop()
		if n := len(o.made()); n < 2990 || n > 3010 {
			t.Errorf("%d visits of 300 things in ten hours", n)
		}
		if commits > len(o.made())/50+20 {
			t.Errorf("%d commits for %d visits", commits, len(o.made()))
		}
		if err := r.db.Check(); err != nil {
			t.Error(err)
		}
		r.reopen() // an orderly end has saved them
		counts, due, _, err := r.db.CountVisits(questions, time.Now())
		if err != nil || due > 0 || len(counts) == 0 {
			t.Errorf("%d visits are due after an orderly end: %v", due, err)
		}
	})
}

// A thing that moves right after a visit that showed nothing new is visited at once
// again, and from where that visit stood.
func TestVisitAfterPendingOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a")
		f.whole = true
		o := newForum(f)
		p, stop := r.run(forumStream(o, "@every 1h"))
		time.Sleep(59*time.Minute + 50*time.Second)
		for o.visitsOf("a") < 2 {
			time.Sleep(100 * time.Millisecond)
		}
		before := r.committed()
		o.answer("a", 1)
		if _, err := p.PollNow("shop-a", "questions"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if !slices.Contains(r.emitted(), "a-01") {
			t.Errorf("not visited: %q, %d commits", o.made(), r.committed()-before)
		}
		stop()
	})
}

// A visit that fails holds up no other. It is put off, longer each time, and told
// once; when it works again, that is told too.
func TestFailingVisit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b", "c", "d")
		f.whole = true
		o := newForum(f)
		o.every = time.Minute
		o.broken["b"] = failing(sources.Unreadable, sources.ScopeRequest, 200)
		p, stop := r.run(forumStream(o, "@every 10s"))
		for range 60 {
			o.answer("a", 1)
			time.Sleep(time.Minute)
		}
		if n := o.visitsOf("b"); n < 15 || n > 30 {
			t.Errorf("%d tries of the visit that fails, in an hour", n)
		}
		if n := len(slices.DeleteFunc(r.emitted(), func(id string) bool { return !strings.HasPrefix(id, "a-") })); n != 60 {
			t.Errorf("%d of 60 answers were emitted", n)
		}
		r.wantLogged("a visit failed", 1)
		if _, s := statusOf(p, "questions", sources.Follow); s.PutOff != 1 || s.Failure != nil || s.Planned != 4 || s.Next.IsZero() {
			t.Errorf("%+v", s)
		}
		if _, err := p.Skip("shop-a", "questions"); err == nil {
			t.Error("a visit was skipped")
		}
		o.set(func() { delete(o.broken, "b") })
		time.Sleep(10 * time.Minute)
		r.wantLogged("all visits work again", 1)
		if _, s := statusOf(p, "questions", sources.Follow); s.PutOff != 0 {
			t.Errorf("%+v", s)
		}
		stop()
	})
}

// Three different visits that fail in a row are an outage: the lane waits, instead
// of trying all of them.
func TestVisitOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := quickRig(t), newFake(t, manyIDs(100)...)
		f.whole, f.size = true, 1000
		o := newForum(f)
		down := true
		o.follow = func(sources.Query) error {
			if down {
				return failing(sources.Temporary, sources.ScopeRequest, 502)
			}
			return nil
		}
		p, stop := r.run(forumStream(o, "@every 1h"))
		time.Sleep(30 * time.Minute)
		n := len(o.made())
		if n < 8 || n > 25 {
			t.Errorf("%d requests in half an hour of an outage", n)
		}
		if _, s := statusOf(p, "questions", sources.Follow); s.Failure == nil || s.Failure.Kind != sources.Temporary {
			t.Errorf("%+v", s)
		}
		o.set(func() { down = false })
		time.Sleep(6 * time.Minute)
		for _, id := range manyIDs(100) {
			if !slices.Contains(o.made()[n:], id) {
				t.Errorf("%s was not visited after the outage", id)
			}
		}
		if _, s := statusOf(p, "questions", sources.Follow); s.Failure != nil || s.PutOff != 0 || s.Overdue != 0 {
			t.Errorf("%+v", s)
		}
		stop()
	})
}

// A token that is refused stops the visits like everything else of its group.
func TestRefusedVisits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b", "c", "d", "e")
		f.whole = true
		f.size = 5 // one page: an answer that came after the visit's would be proof of the token
		o := newForum(f)
		refused := func(sources.Query) error { return failing(sources.Unauthorized, sources.ScopeGroup, 401) }
		o.follow = refused
		f.failAt = func(q sources.Query) error {
			if len(o.visits) > 0 {
				return refused(q)
			}
			return nil
		}
		stop := r.start(forumStream(o, "@every 1m"))
		time.Sleep(50 * time.Minute)
		stop()
		if len(o.made()) != 1 {
			t.Errorf("%d visits with a token that is refused", len(o.made()))
		}
	})
}

// A visit that fails in its middle for good is begun anew: what was read of it is
// not emitted out of order, and the others are visited meanwhile.
func TestVisitFailsInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b")
		f.whole = true
		o := newForum(f)
		o.answer("a", 7)
		down := true
		o.follow = func(q sources.Query) error {
			if down && strings.Contains(string(q.Cursor), `"a"`) && strings.Contains(string(q.Cursor), `"From":4`) {
				return failing(sources.Temporary, sources.ScopeRequest, 500)
			}
			return nil
		}
		stop := r.start(forumStream(o, "@every 1m"))
		time.Sleep(10 * time.Minute)
		if o.visitsOf("b") == 0 || o.visitsOf("a") < 2 {
			t.Errorf("visits: %q", o.made())
		}
		o.answer("b", 1)
		time.Sleep(2 * time.Minute)
		o.set(func() { down = false })
		time.Sleep(10 * time.Minute)
		stop()
		got := slices.DeleteFunc(r.emitted(), func(id string) bool { return len(id) == 1 })
		if want := []string{"a-01", "a-02", "a-03", "a-04", "b-01", "a-05", "a-06", "a-07"}; !slices.Equal(got, want) {
			t.Errorf("emitted %q\nwant    %q", got, want)
		}
	})
}

// Whatever a visit says of the next one, it makes no loop without a pause; one that
// says nothing at all is a failed one.
func TestVisitsThatAreDueAtOnce(t *testing.T) {
	for name, change := range map[string]func(v *sources.Visit){
		"due at once":  func(v *sources.Visit) { v.Due = time.Now().Add(-time.Hour) },
		"seen no JSON": func(v *sources.Visit) { v.Seen = []byte(`{`) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, f := newRig(t), newFake(t, "a")
				o := newForum(f)
				o.visited = change
				stop := r.start(forumStream(o, "@every 1m"))
				time.Sleep(time.Minute)
				stop()
				if n := len(o.made()); n == 0 || n > 61 {
					t.Errorf("%d visits in a minute", n)
				}
			})
		})
	}
}

// What is old is silent: what was found by the first reading of its stream, and
// what only the source knows to be old; and what comes later is news.
func TestHistoryOfVisits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "none-1")
		f.whole = true
		o := newForum(f)
		timeless := func(id string) {
			o.answer(id, 1)
			o.set(func() {
				all := o.answers[id]
				all[len(all)-1].Created = time.Time{}
			})
		}
		timeless("none-1")
		s := forumStream(o, "@every 1m")
		start := time.Now().Add(-time.Hour)
		s.Start = &start
		stop := r.start(s)
		time.Sleep(2 * time.Minute)
		timeless("none-1")
		f.add("q")
		timeless("q")
		time.Sleep(2 * time.Minute)
		o.answer("q", 2)
		o.set(func() { o.answers["q"][1].Old = true })
		time.Sleep(2 * time.Minute)
		stop()
		got := r.emitted()
		if want := []string{"q", "none-1-02", "q-01", "q-03"}; !slices.Equal(got, want) {
			t.Errorf("emitted %q\nwant    %q", got, want)
		}
	})
}

// A stream that finds nothing by itself need not have been read for what it visits
// to be news.
func TestVisitsBeforeOwnNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t)
		f.whole = true
		o := newForum(f)
		o.by = "answers"
		finder := stream("questions", f, "@every 1m")
		finder.Source = o
		start := time.Now()
		visitor := forumStream(o, "@every 1h")
		visitor.ID.Stream, visitor.Source, visitor.Start = "answers", &forumVisitor{forum: o, down: true}, &start
		stop := r.start(finder, visitor)
		time.Sleep(2 * time.Minute)
		f.add("q")
		o.answer("q", 1)
		o.set(func() { o.answers["q"][0].Created = time.Time{} })
		time.Sleep(2 * time.Minute)
		stop()
		r.wantEmitted("q", "q-01")
	})
}

// Once makes the visits that are due when all streams of the account have been read,
// and waits for no later one.
func TestOnceVisits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b")
		f.whole = true
		o := newForum(f)
		o.by, o.took = "answers", 10*time.Second
		finder := stream("questions", f, "@every 1m")
		finder.Source = o
		visitor := forumStream(o, "@every 1h")
		visitor.ID.Stream, visitor.Source = "answers", &forumVisitor{forum: o}
		o.answer("a", 5)
		o.answer("b", 1)
		began := time.Now()
		if left := r.once(t.Context(), visitor, finder); len(left) > 0 {
			t.Errorf("%+v", left)
		}
		if n := len(r.emitted()); n != 8 || time.Since(began) > 10*time.Minute {
			t.Errorf("emitted %q after %s", r.emitted(), time.Since(began))
		}
		o.set(func() { o.broken["b"] = failing(sources.Temporary, sources.ScopeRequest, 500) })
		o.answer("a", 1)
		o.answer("b", 1)
		visits := o.visitsOf("b")
		left := r.once(t.Context(), visitor, finder)
		if len(left) != 1 || left[0].Walk != sources.Follow || left[0].Stream.Stream != "answers" || !slices.Contains(r.emitted(), "a-06") {
			t.Errorf("%+v, emitted %q", left, r.emitted())
		}
		if n := o.visitsOf("b") - visits; n != 5 {
			t.Errorf("%d tries", n)
		}
		p := r.new(visitor, finder)
		o.set(func() { clear(o.broken) })
		o.answer("a", 1)
		left, err := p.RunOnly(t.Context(), sources.News, "shop-a", "answers")
		if err != nil || len(left) > 0 || slices.Contains(r.emitted(), "a-07") {
			t.Errorf("%+v, %v: no driver was named, and emitted %q", left, err, r.emitted())
		}
		visitor.Driver = "questions"
		p = r.new(visitor, finder)
		left, err = p.RunOnly(t.Context(), sources.News, "shop-a", "answers")
		if err != nil || len(left) > 0 || !slices.Contains(r.emitted(), "a-07") {
			t.Errorf("%+v, %v: emitted %q", left, err, r.emitted())
		}
	})
}

// Asking for a poll of a stream asks the one that drives it too.
func TestPollNowAsksDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a")
		f.whole = true
		o := newForum(f)
		o.by = "answers"
		finder := stream("questions", f, "@every 1h")
		finder.Source = o
		visitor := forumStream(o, "@every 1h")
		visitor.ID.Stream, visitor.Source, visitor.Driver = "answers", &forumVisitor{forum: o}, "questions"
		p, stop := r.run(visitor, finder)
		time.Sleep(time.Minute)
		o.answer("a", 1)
		asked, err := p.PollNow("shop-a", "answers")
		if err != nil || !slices.Equal(asked, []state.StreamID{{Account: "shop-a", Stream: "answers"}, {Account: "shop-a", Stream: "questions"}}) {
			t.Errorf("%v, %v", asked, err)
		}
		time.Sleep(2 * time.Second)
		if !slices.Contains(r.emitted(), "a-01") {
			t.Errorf("emitted %q", r.emitted())
		}
		stop()
	})
}

// A source can ask how many visits are planned, by age.
func TestPlannedVisits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b", "old-1")
		f.whole, f.size = true, 10
		o := newForum(f)
		stop := r.start(forumStream(o, "@every 1m"))
		time.Sleep(11 * time.Minute)
		f.add("c")
		time.Sleep(11*time.Minute + o.every)
		o.mu.Lock()
		planned := o.planned
		o.mu.Unlock()
		counts, err := planned()
		if err != nil || len(counts) < 2 || counts[0].N+counts[1].N != 3 || counts[len(counts)-1].N != 1 {
			t.Errorf("%v, %v", counts, err)
		}
		stop()
	})
}

// Visits are kept for a stream that is not polled, and made when it is.
func TestVisitsOfDisabledStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a")
		f.whole = true
		o := newForum(f)
		o.by = "answers"
		finder := stream("questions", f, "@every 1m")
		finder.Source = o
		stop := r.start(finder)
		o.answer("a", 3)
		time.Sleep(2 * time.Minute)
		stop()
		r.wantEmitted("a")
		visitor := forumStream(o, "@every 1h")
		visitor.ID.Stream, visitor.Source = "answers", &forumVisitor{forum: o}
		stop = r.start(finder, visitor)
		time.Sleep(2 * time.Minute)
		stop()
		r.wantEmitted("a", "a-01", "a-02", "a-03")
	})
}

// What a commit has found that failed and took effect is visited at once as well:
// the page that is read again shows nothing that has moved.
func TestFoundByCommitThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a")
		f.whole = true
		o := newForum(f)
		stop := r.start(forumStream(o, "@every 1m"))
		time.Sleep(5 * time.Minute)
		r.mu.Lock()
		r.fault = func(_ int, commit func() error) error {
			r.fault = nil
			if err := commit(); err != nil {
				return err
			}
			return errBroken
		}
		r.mu.Unlock()
		o.answer("a", 1)
		time.Sleep(62 * time.Second)
		stop()
		r.wantLogged("the state file cannot be used", 1)
		if !slices.Contains(r.emitted(), "a-01") {
			t.Errorf("emitted %q", r.emitted())
		}
	})
}
