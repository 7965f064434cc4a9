package delivery_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/delivery"
	"syncd/internal/event"
	"syncd/internal/sink"
	"syncd/internal/state"
)

func refusing(s delivery.Sink, most int) delivery.Sink {
	s.MaxRefusals = most
	return s
}

// A poison event becomes a dead letter after exactly as many tries as configured
// when the endpoint acknowledges others between them; then its subject goes on.
func TestPoisonIsGivenUp(t *testing.T) {
	for most := 1; most <= 5; most++ {
		for _, batch := range []int{1, 10} {
			t.Run(fmt.Sprint(most, " tries, batches of ", batch), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t)
					v := newReceiver(r, 2)
					v.batch = batch
					v.answer = func(_ context.Context, e *event.Logged) error {
						if e.Sequence == 2 {
							return &sink.Error{Kind: sink.Permanent, Status: 400, Excerpt: "no such chat"}
						}
						return nil
					}
					r.log("a") // the endpoint works
					stop := r.start(with(refusing(retrying(to("crm", v), time.Hour, time.Hour), most), func(s *delivery.Sink) { s.BatchEvents = batch }))
					time.Sleep(time.Second)
					r.log("poison", "poison", "b")
					for range 8 * 60 { // far more often than it is retried
						time.Sleep(time.Minute)
						r.log("c")
					}
					settle()
					stop()
					tries := len(v.triesOf(2))
					if batch > 1 {
						tries-- // the one in a batch refuses the batch
					}
					// Jitter may put two tries between the same two acknowledgements: of
					// those the second counts for nothing.
					idle := 0
					for i, at := range v.triesOf(2) {
						if i > 0 && at.Sub(v.triesOf(2)[i-1]) < time.Minute {
							idle++
						}
					}
					if tries < most || tries > most+idle || !slices.Equal(r.dead(), []uint64{2}) || len(v.missing()) > 0 {
						t.Errorf("%d tries (%d of them idle), dead letters %d, missing %d", tries, idle, r.dead(), v.missing())
					}
					dead, err := r.db.DeadLetters("crm", 0, 1)
					if err != nil || len(dead) != 1 || dead[0].Reason != state.ReasonRefused || dead[0].Status != 400 || dead[0].Error != "answer 400: no such chat" || dead[0].Attempts != len(v.triesOf(2)) {
						t.Errorf("%+v %v", dead, err)
					}
					if n := strings.Count(r.out.String(), "event given up"); n != 1 {
						t.Errorf("told %d times", n)
					}
				})
			})
		}
	}
}

// An endpoint that refuses everything is down: nothing dies, however long that
// goes on and whatever had worked before, and all arrives when it is mended.
func TestRefusalOfEverythingKillsNothing(t *testing.T) {
	for _, most := range []int{1, 2, 5} {
		for _, batch := range []int{1, 10} {
			for _, worked := range []bool{false, true} {
				t.Run(fmt.Sprint(most, " tries, batches of ", batch, ", worked before: ", worked), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						r := newRig(t)
						v := newReceiver(r, 4)
						v.batch = batch
						var wrong atomic.Bool
						wrong.Store(!worked)
						v.whole = func(context.Context, []event.Logged) error {
							if wrong.Load() {
								return &sink.Error{Kind: sink.Permanent, Status: 401}
							}
							return nil
						}
						s := with(refusing(retrying(to("crm", v), time.Second, time.Minute), most), func(s *delivery.Sink) { s.BatchEvents = batch })
						stop := r.start(s)
						r.log("a", "b", "c")
						time.Sleep(10 * time.Second)
						before := v.total()
						wrong.Store(true)
						for i := range 100 {
							if r.log("a", fmt.Sprint("d", i)); i == 50 {
								stop()
								stop = r.start(s)
							}
							time.Sleep(10 * time.Minute)
						}
						// At most one event, with one try allowed it, may meet the change.
						if dead := r.dead(); len(dead) > 1 || len(dead) == 1 && (most > 1 || !worked) {
							t.Errorf("dead letters %d", dead)
						}
						if n := v.total() - before; n > 17*60*2 {
							t.Errorf("%d requests in 17 hours", n)
						}
						wrong.Store(false)
						time.Sleep(10 * time.Minute)
						stop()
						if m := v.missing(); len(m) > 0 || r.backlog("crm") > 0 {
							t.Errorf("missing %d", m)
						}
					})
				})
			}
		}
	}
}

// An event is given up when it has failed for so long, counted from its own first
// attempt, also across restarts, and not while the clock is not to be believed.
func TestGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 2)
		v.answer = takes(time.Second, &sink.Error{Status: 500})
		s := with(retrying(to("crm", v), time.Second, time.Minute), func(s *delivery.Sink) { s.GiveUpAfter = 4 * time.Hour })
		r.log("a", "a")
		stop := r.start(s)
		time.Sleep(2 * time.Hour)
		stop()
		r.untrusted.Store(true)
		stop = r.start(s)
		time.Sleep(3 * time.Hour)
		if n := r.dead(); len(n) > 0 {
			t.Errorf("%d were given up by a clock that nobody believes", n)
		}
		r.untrusted.Store(false)
		time.Sleep(2 * time.Minute)
		if n := r.dead(); !slices.Equal(n, []uint64{1}) {
			t.Errorf("dead letters %d: the second event had its first attempt only now", n)
		}
		time.Sleep(3*time.Hour + 55*time.Minute)
		settle()
		if n := r.dead(); !slices.Equal(n, []uint64{1}) {
			t.Errorf("dead letters %d", n)
		}
		time.Sleep(10 * time.Minute)
		stop()
		dead, err := r.db.DeadLetters("crm", 0, 10)
		if err != nil || len(dead) != 2 || dead[0].Reason != state.ReasonGaveUp || r.backlog("crm") != 0 || r.position("crm") != 2 {
			t.Errorf("%+v %v", dead, err)
		}
		if d := dead[0].Last.Sub(dead[0].First); d < 5*time.Hour || d > 5*time.Hour+2*time.Minute {
			t.Errorf("the first was given up after %s", d)
		}
	})
}

// A dead letter that is retried, and kept events that are asked for again, go
// beside the order of their subject, say so, and never in two requests with it.
func TestAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		v := newReceiver(r, 4)
		var mended atomic.Bool
		v.answer = func(ctx context.Context, e *event.Logged) error {
			if e.Sequence == 2 && !mended.Load() {
				return &sink.Error{Kind: sink.Permanent, Status: 400}
			}
			return takes(10*time.Second, nil)(ctx, e)
		}
		d, stop := r.startAs(refusing(retrying(to("crm", v), time.Second, time.Second), 2))
		r.log("a", "b", "b")
		for range 10 {
			time.Sleep(15 * time.Second)
			r.log("a")
		}
		if !slices.Equal(r.dead(), []uint64{2}) {
			t.Fatalf("dead letters %d", r.dead())
		}
		// Still poison: it is given up again, and stays one dead letter.
		retry := func(want int) {
			t.Helper()
			if n, err := r.db.RetryDeadLetters(t.Context(), "crm", "", time.Now()); err != nil || n != want {
				t.Fatal(n, err)
			}
			d.Wake("crm")
			for range 10 {
				r.log("b")
				time.Sleep(15 * time.Second)
				settle()
			}
		}
		retry(1)
		if dead, err := r.db.DeadLetters("crm", 0, 9); err != nil || len(dead) != 1 || dead[0].Retrying || dead[0].Attempts < 4 {
			t.Errorf("%+v %v", dead, err)
		}
		mended.Store(true)
		retry(1)
		if !slices.Equal(v.besides(sink.RetriedDeadLetter), []uint64{2}) || len(r.dead()) > 0 {
			t.Errorf("dead letters %d", r.dead())
		}
		n, err := r.db.QueueReplay(t.Context(), "crm", func(event.Header) bool { return true }, time.Now().Add(-time.Hour), time.Now())
		if err != nil || n != len(r.logged) {
			t.Fatal(n, err)
		}
		d.Wake("crm")
		for range 100 { // live events go on beside it
			r.log("a", "c")
			time.Sleep(20 * time.Second)
			settle()
		}
		stop()
		if got := v.besides(sink.Replayed); len(got) != n {
			t.Errorf("%d of %d were replayed", len(got), n)
		}
		if m := v.missing(); len(m) > 0 || r.backlog("crm") != 0 {
			t.Errorf("missing %d, %d left", m, r.backlog("crm"))
		}
	})
}
