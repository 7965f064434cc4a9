package sandbox_test

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"syncd/internal/sandbox"
)

// snapshot is everything a world shows, as text.
func snapshot(w *sandbox.World) []string {
	var out []string
	for _, e := range w.Events() {
		out = append(out, string(e.JSON))
	}
	for _, q := range w.Questions() {
		out = append(out, string(q.JSON))
	}
	for _, n := range w.Claims() {
		out = append(out, string(n.JSON))
	}
	for _, n := range w.Chats() {
		out = append(out, string(n.JSON))
	}
	for _, f := range w.Feedbacks() {
		out = append(out, string(f.JSON))
	}
	for _, p := range w.Pins() {
		out = append(out, string(p.JSON))
	}
	return out
}

var lively = sandbox.WorldSpec{
	Events: 200, Questions: 100, EventEvery: 2 * time.Second, QuestionEvery: 5 * time.Second, AnswerAfter: time.Minute,
	LateEvents: 0.1, LateBy: time.Minute, LateQuestions: 0.2, IndexedLateBy: time.Hour, AnsweredUnseen: 0.1,
	Claims: 50, ClaimEvery: 30 * time.Second, ClaimChangeEvery: 10 * time.Second, StillClaimChanges: 0.3,
	ReplySignEvery: 20 * time.Second, ChatsListedAfter: time.Minute,
}

func TestGrowthDoesNotDependOnWhoLooks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		watched, left := newShop(t, lively), newShop(t, lively)
		size := func(w *sandbox.World) int { return len(w.Events()) + len(w.Questions()) }
		before := size(watched.world)
		for range 1200 {
			time.Sleep(time.Second)
			watched.world.Events()
		}
		a, b := snapshot(watched.world), snapshot(left.world)
		if !slices.Equal(a, b) {
			t.Fatal("a world that was looked at each second differs from one that was left alone")
		}
		// 20 min at 2 s and 5 s a piece are 600 events and 240 questions, of which some 40 are not indexed yet.
		if grown := size(watched.world) - before; grown < 740 || grown > 860 {
			t.Errorf("grew by %d", grown)
		}
	})
}

func TestWorldIsAFunctionOfSeedAndEpoch(t *testing.T) {
	epoch := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	build := func(seed uint64) *sandbox.Sandbox {
		sb, err := sandbox.New(sandbox.Config{Seed: seed, Epoch: epoch, Sellers: []sandbox.Seller{
			{World: sandbox.WorldSpec{Events: 50, Questions: 50}}, {World: sandbox.WorldSpec{Events: 50, Questions: 50}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return sb
	}
	a, again, other := build(1), build(1), build(2)
	if !slices.Equal(snapshot(a.Worlds()[0]), snapshot(again.Worlds()[0])) || a.Worlds()[0].ID() != again.Worlds()[0].ID() {
		t.Error("one seed, two worlds")
	}
	ids := make(map[string]bool)
	for _, w := range []*sandbox.World{a.Worlds()[0], a.Worlds()[1], other.Worlds()[0]} {
		for _, e := range w.Events() {
			ids[e.EventID] = true
		}
		for _, q := range w.Questions() {
			ids[q.ID] = true
		}
	}
	if len(ids) != 300 {
		t.Errorf("%d ids in three worlds of 100 things", len(ids))
	}
}

func TestSwitchesOfLatenessKeepTheContent(t *testing.T) {
	bubble(t, func(t *testing.T) {
		punctual := lively
		punctual.LateEvents, punctual.LateQuestions = 0, 0
		a, b := newShop(t, lively), newShop(t, punctual)
		time.Sleep(time.Hour)
		ids := make(map[string]bool)
		for _, e := range b.world.Events() {
			ids[e.EventID] = true
		}
		for _, e := range a.world.Events() {
			if !ids[e.EventID] {
				t.Fatalf("event %s is only in the late world", e.EventID)
			}
		}
	})
}

func TestWorldAtRest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Events: 100, Questions: 1000, AnswerAfter: 24 * time.Hour})
		before := snapshot(s.world)
		time.Sleep(90 * 24 * time.Hour)
		if !slices.Equal(before, snapshot(s.world)) {
			t.Error("something happened")
		}
	})
}

func TestQuestionsAreAnsweredAsTimePasses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{QuestionEvery: 10 * time.Second, AnswerAfter: 5 * time.Minute, AnswerShare: 0.5})
		moved, open := 0, make(map[string]bool)
		for range 360 {
			time.Sleep(10 * time.Second)
			for _, q := range s.world.Questions() {
				if q.Answered && open[q.ID] {
					moved++
				}
				open[q.ID] = !q.Answered
			}
		}
		if len(open) < 330 || moved < 120 || moved > 200 {
			t.Errorf("%d of %d questions were answered while we looked", moved, len(open))
		}
	})
}

func TestAnsweredBeforeFirstSeen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{QuestionEvery: 10 * time.Second, AnswerShare: -1, AnsweredUnseen: 0.5})
		answered, open := 0, make(map[string]bool)
		for range 3600 {
			time.Sleep(time.Second)
			for _, q := range s.world.Questions() {
				if q.Answered && open[q.ID] {
					t.Fatalf("%s was seen without its answer", q.ID)
				}
				if _, known := open[q.ID]; !known && q.Answered {
					answered++
				}
				open[q.ID] = !q.Answered
			}
		}
		if answered < 120 || answered > 240 {
			t.Errorf("%d of %d appeared with an answer", answered, len(open))
		}
	})
}

func TestLateQuestionsHideFromListsAndCounts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{QuestionEvery: 10 * time.Second, AnswerShare: -1, LateQuestions: 1, IndexedLateBy: time.Hour})
		s.t.Helper()
		time.Sleep(30 * time.Minute)
		s.wantStatus(s.do("GET", "/api/v1/questions/count?isAnswered=false", ""), http.StatusOK,
			fmt.Sprintf(`"data":%d,`, len(s.world.Questions())))
		var newest time.Time
		overtaken, seen := 0, make(map[string]bool)
		for range 3600 {
			time.Sleep(time.Second)
			for _, q := range s.world.Questions() {
				if !seen[q.ID] && q.Created.Before(newest) {
					overtaken++
				}
				seen[q.ID] = true
				if q.Created.After(newest) {
					newest = q.Created
				}
			}
		}
		if overtaken < len(seen)/2 {
			t.Errorf("only %d of %d questions appeared behind a newer one", overtaken, len(seen))
		}
	})
}

func TestDemoIsLively(t *testing.T) {
	for seed := range uint64(20) {
		bubble(t, func(t *testing.T) {
			sb, err := sandbox.New(sandbox.Demo(seed))
			if err != nil {
				t.Fatal(err)
			}
			count := func() (events, questions, answered int) {
				for _, w := range sb.Worlds() {
					events += len(w.Events())
					for _, q := range w.Questions() {
						questions++
						if q.Answered {
							answered++
						}
					}
				}
				return events, questions, answered
			}
			e0, q0, a0 := count()
			time.Sleep(4 * time.Second)
			if e, _, _ := count(); e == e0 {
				t.Error("no event in the first 4 s")
			}
			time.Sleep(596 * time.Second)
			e, q, a := count()
			if e -= e0; e < 125 || e > 175 {
				t.Errorf("%d events in 10 min", e)
			}
			if q -= q0; q < 45 || q > 75 {
				t.Errorf("%d questions in 10 min", q)
			}
			if a -= a0; a < 20 {
				t.Errorf("%d answers in 10 min", a)
			}
		})
	}
}

func TestConcurrentUse(t *testing.T) {
	s := newShop(t, sandbox.WorldSpec{Events: 500, Questions: 300, EventEvery: 5 * time.Millisecond, QuestionEvery: 5 * time.Millisecond, AnswerAfter: 10 * time.Millisecond,
		Claims: 50, ClaimEvery: 10 * time.Millisecond, ClaimChangeEvery: 10 * time.Millisecond, ReplySignEvery: 10 * time.Millisecond,
		Feedbacks: 50, Pins: 20, FeedbackEvery: 10 * time.Millisecond, FeedbackChangeEvery: 10 * time.Millisecond, PinEvery: 50 * time.Millisecond, PinChangeEvery: 50 * time.Millisecond})
	s.inject(sandbox.Fault{Kind: sandbox.Fault500, Rate: 0.1}, sandbox.Fault{Kind: sandbox.FaultBadEntry, Rate: 0.1})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 60 {
				switch (i + n) % 10 {
				case 0:
					s.do("GET", events, "")
				case 1:
					s.do("GET", questions, "")
				case 2:
					s.do("GET", chats, "")
				case 3:
					e := s.world.AddEvent(sandbox.EventSpec{})
					s.world.AddEvent(sandbox.EventSpec{ChatID: e.ChatID})
				case 4:
					if q := s.world.Questions(); len(q) > 0 {
						_ = s.world.Answer(q[0].ID, "да") // it may have been answered meanwhile
					}
				case 5:
					_ = s.SetQuirks(sandbox.Quirks{InclusiveNext: n%2 == 0})
					s.Stats()
					s.Faults()
				case 6:
					s.do("GET", claims, "")
					s.do("GET", download+"x", "")
				case 7:
					if all := s.world.Claims(); len(all) > 0 {
						_ = s.world.DecideClaim(all[0].ID, "reject1") // it exists
						_ = s.world.ReopenClaim(all[0].ID)
					}
					s.world.Chats()
				case 8:
					s.do("GET", "/api/v1/feedbacks?isAnswered=true&take=50&skip=0", "")
					s.do("GET", pins, "")
					s.world.Pins()
				case 9:
					if f, err := s.world.AddFeedback(sandbox.FeedbackSpec{}); err == nil {
						_, _ = s.world.AddPin(sandbox.PinSpec{FeedbackID: f.ID}) // it exists
						_ = s.world.DeleteFeedback(f.ID)
					}
					s.world.Feedbacks()
				}
			}
		})
	}
	wg.Wait()
}

// worlds of the size that the tests of syncd use, and of the size to come.
func BenchmarkEventsPage(b *testing.B) {
	for _, n := range []int{5_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmark(b, n, events+"?next=%d") })
	}
}

func BenchmarkQuestionsPage(b *testing.B) {
	for _, n := range []int{3_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			benchmark(b, n, "/api/v1/questions?isAnswered=true&take=100&skip=100&dateFrom=%d")
		})
	}
}

func BenchmarkFeedbacks(b *testing.B) {
	sb, err := sandbox.New(sandbox.Config{Seed: 1, Sellers: []sandbox.Seller{{World: sandbox.WorldSpec{Feedbacks: 1000}}}})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		sb.Worlds()[0].Feedbacks()
	}
}

func benchmark(b *testing.B, n int, target string) {
	sb, err := sandbox.New(sandbox.Config{Seed: 1, Sellers: []sandbox.Seller{{World: sandbox.WorldSpec{Events: n, Questions: n}}}})
	if err != nil {
		b.Fatal(err)
	}
	w := sb.Worlds()[0]
	s := &shop{Sandbox: sb, world: w, token: sb.MintToken(sandbox.TokenSpec{Seller: w.ID(), Acc: sandbox.AccPersonal})}
	from := time.Now().Add(-20 * 24 * time.Hour)
	at := from.UnixMilli()
	if target[:12] != events[:12] {
		at = from.Unix()
	}
	for b.Loop() {
		s.do("GET", fmt.Sprintf(target, at), "")
	}
}
