package poller_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/poller"
	"syncd/internal/sources"
	"syncd/internal/state"
)

// Visits that fail for ever by themselves, be there few or many of them, do not take
// the others' turns: theirs are an outage at first, and then no more.
func TestVisitsThatAlwaysFail(t *testing.T) {
	for _, kind := range []sources.Kind{sources.Rejected, sources.Unreadable} {
		for _, n := range []int{3, 10} {
			t.Run(fmt.Sprint(n, kind), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					const hours = 5
					ids := manyIDs(50)
					r, f := quickRig(t), newFake(t, ids...)
					f.whole, f.size = true, 1000
					o := newForum(f)
					for _, id := range ids[:n] {
						o.broken[id] = failing(kind, sources.ScopeRequest, 400)
					}
					p, stop := r.run(forumStream(o, "@every 1h"))
					time.Sleep(hours * time.Hour)
					for _, id := range ids[n:] {
						if o.visitsOf(id) < hours-1 {
							t.Errorf("%s, which works, was visited %d times in %d hours", id, o.visitsOf(id), hours)
						}
					}
					for _, id := range ids[:n] {
						if tries := o.visitsOf(id); tries < hours || tries > 20*hours {
							t.Errorf("%d tries of %s in %d hours", tries, id, hours)
						}
					}
					if _, s := statusOf(p, "questions", sources.Follow); s.Failure != nil || s.PutOff != n {
						t.Errorf("%+v", s)
					}
					stop()
				})
			})
		}
	}
}

// Once gives up a visit that is refused, and makes the others.
func TestOnceGivesUpVisits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ids := manyIDs(10)
		r, f := quickRig(t), newFake(t, ids...)
		f.whole, f.size = true, 1000
		o := newForum(f)
		for i, id := range ids[:5] {
			o.broken[id] = failing([]sources.Kind{sources.Rejected, sources.Forbidden}[i%2], sources.ScopeRequest, 403)
		}
		left := r.once(t.Context(), forumStream(o, "@every 1h"))
		if len(left) != 1 || left[0].Walk != sources.Follow {
			t.Errorf("left: %+v", left)
		}
		for _, id := range ids {
			if n := o.visitsOf(id); n != 1 {
				t.Errorf("%d visits of %s", n, id)
			}
		}
	})
}

// Urgent visits go first, and leave the others some room where there is not enough
// for all.
func TestUrgentVisitsLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ids := manyIDs(20)
		r, f := quickRig(t), newFake(t, ids...)
		f.whole, f.size = true, 1000
		o := newForum(f)
		o.took = 2 * time.Second
		stop := r.start(forumStream(o, "@every 20s"))
		time.Sleep(30 * time.Minute)
		o.set(func() { o.visits = nil })
		for range 2 * 180 { // two hours in which 12 move every 20 s, and each visit takes 2 s
			for _, id := range ids[:12] {
				o.answer(id, 1)
			}
			time.Sleep(20 * time.Second)
		}
		quiet := 0
		for _, id := range ids[12:] {
			n := o.visitsOf(id)
			if quiet += n; n == 0 {
				t.Errorf("%s was not visited in two hours", id)
			}
		}
		if n := len(o.made()); quiet > n/4 {
			t.Errorf("%d of %d visits were not urgent", quiet, n)
		}
		stop()
	})
}

// Visits that show nothing new are saved together also where they are spread evenly.
func TestIdleVisitsSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := quickRig(t), newFake(t, manyIDs(100)...)
		f.whole, f.size = true, 1000
		o := newForum(f)
		o.visited = func(v *sources.Visit) { v.Due = time.Now().Add(time.Hour/2 + rand.N(time.Hour)) }
		stop := r.start(forumStream(o, "@every 1h"))
		time.Sleep(4 * time.Hour)
		o.set(func() { o.visits = nil })
		before := r.committed()
		time.Sleep(5 * time.Hour)
		if n := r.committed() - before; n > 5*12+5 || len(o.made()) < 400 {
			t.Errorf("%d commits for %d visits in five hours", n, len(o.made()))
		}
		stop()
	})
}

// What was planned with a clock that was ahead is visited soon after that was set
// right, and not a year later, also where a process went on all the time.
func TestVisitsPlannedAhead(t *testing.T) {
	poller.SetPiece(t, 3)
	synctest.Test(t, func(t *testing.T) {
		ids := manyIDs(10)
		r, f := quickRig(t), newFake(t, ids...)
		f.whole, f.size = true, 1000
		o := newForum(f)
		o.every = 90 * day
		stop := r.start(forumStream(o, "@every 1m"))
		time.Sleep(10 * time.Minute)
		ahead := time.Now().AddDate(1, 0, 0)
		p := state.Page{Stream: questions, Marketplace: "wildberries", Walk: "follow", Now: ahead, Keep: true}
		for _, id := range ids {
			v, _, err := r.db.Visit(questions, id)
			if err != nil {
				t.Fatal(err)
			}
			v.Due = ahead.Add(time.Hour)
			p.Visited = append(p.Visited, v)
		}
		if _, err := r.db.CommitPage(p); err != nil {
			t.Fatal(err)
		}
		o.set(func() { o.visits = nil })
		time.Sleep(2 * time.Hour)
		if got := slices.Sorted(slices.Values(o.made())); !slices.Equal(got, ids) {
			t.Errorf("visited %q", got)
		}
		r.wantLogged("planned with a clock that was ahead", 1)
		stop()
		if err := r.db.Check(); err != nil {
			t.Error(err)
		}
	})
	now := time.Now()
	v := state.Visit{ID: "a", Due: now.AddDate(1, 0, 0)}
	if got := poller.Made(v, now.AddDate(1, 0, -1), now); !got.Due.Equal(now) {
		t.Errorf("made before the clock was set back, and due at %s", got.Due)
	}
	if got := poller.Made(v, now.Add(time.Second), now); !got.Due.Equal(v.Due) {
		t.Errorf("made with a clock that is right, and due at %s", got.Due)
	}
	v.Due = time.Time{}
	if got := poller.Made(v, now.AddDate(1, 0, 0), now); !got.Due.IsZero() {
		t.Errorf("only remembered, and due at %s", got.Due)
	}
}

// Nothing is forgotten while the clock is in doubt, nor what was seen of it; it is
// looked at again in a day.
func TestNothingIsForgottenInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b")
		f.whole = true
		o := newForum(f)
		o.visited = func(v *sources.Visit) {
			if len(o.visits) > 2 { // too old, by the clock
				*v = sources.Visit{ID: v.ID, Forget: true}
			}
		}
		var trusted atomic.Bool
		r.trusted = trusted.Load
		stop := r.start(forumStream(o, "@every 1h"))
		time.Sleep(3*day + 2*time.Hour)
		if n := len(o.made()); n != 2+2*4 {
			t.Errorf("%d visits in three days", n)
		}
		stop()
		for _, id := range []string{"a", "b"} {
			if v, ok, err := r.db.Visit(questions, id); err != nil || !ok || !json.Valid(v.Seen) || v.Due.Before(time.Now()) {
				t.Errorf("%s is %+v: %v", id, v, err)
			}
		}
		trusted.Store(true)
		stop = r.start(forumStream(o, "@every 100h"))
		time.Sleep(day + time.Hour)
		stop()
		if _, ok, err := r.db.Visit(questions, "a"); ok || err != nil {
			t.Errorf("not forgotten by a clock that is right: %v", err)
		}
	})
}

// What Once could not read of a run for a reason that passes is left; a part that is
// refused is told, and nothing to try again.
func TestOncePartsLeft(t *testing.T) {
	for kind, passes := range map[sources.Kind]bool{sources.Temporary: true, sources.Unreadable: true, sources.RateLimited: true,
		sources.Forbidden: false, sources.Rejected: false} {
		for _, whole := range []bool{false, true} {
			t.Run(fmt.Sprint(kind, whole), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r, f := newRig(t), newFake(t, "a", "b", "c")
					f.whole = whole
					failed := true
					f.page = func(q sources.Query, p *sources.Page) {
						switch {
						case !failed:
						case p.Done:
							p.Partial, p.Failed = true, failing(sources.Forbidden, sources.ScopeRequest, 403).(*sources.Error)
						default:
							p.Failed = failing(kind, sources.ScopeRequest, 502).(*sources.Error)
						}
					}
					s := stream("questions", f, "@every 1h")
					s.Whole = whole
					left := r.once(t.Context(), s)
					if len(left) > 0 != passes || passes && (left[0].Walk != sources.News || sources.AsError(left[0].Err).Kind != kind) {
						t.Errorf("left: %+v", left)
					}
					failed = false
					f.add("d", "e")
					if left := r.once(t.Context(), s); len(left) > 0 {
						t.Errorf("left where all works again: %+v", left)
					}
				})
			})
		}
	}
}
