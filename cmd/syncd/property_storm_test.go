package main

import (
	"fmt"
	"strconv"
	"time"

	"syncd/internal/sandbox"
)

// scene is what may happen to a simulated marketplace, and go wrong there.
type scene interface {
	happen()
	weather()
}

// storm lets things happen until a time: to the world, to the network, to the
// receiver, and to the process, which dies and comes back.
func (s *rig) storm(length time.Duration, of scene) {
	const steps = 150
	end := time.Now().Add(length)
	s.up()
	for time.Now().Before(end) {
		gap := time.Duration(s.r.ExpFloat64() * float64(length) / steps)
		if s.proc == nil {
			s.up()
		}
		select {
		case <-time.After(gap):
		case <-s.proc.down:
			s.fallen()
			continue
		}
		switch n := s.r.IntN(100); {
		case n < 55:
			of.happen()
		case n < 78:
			of.weather()
		case n < 84:
			s.receiver.behave(pick(s.r, []float64{0, 0, 0.3, 1}), pick(s.r, []float64{0, 0.2}))
		case n < 88:
			s.proc.die()
			s.fallen()
		case n < 91:
			s.stop()
			s.pause()
		case n < 94:
			s.proc.full.Store(int64(1 + s.r.IntN(5)))
		case n < 96:
			s.loop()
		default:
			s.ask()
		}
	}
}

// loop is a supervisor that starts the process again and again, and an operator who
// asks each for everything at once.
func (s *rig) loop() {
	for range 2 + s.r.IntN(6) {
		for _, name := range s.names {
			_, _ = s.proc.app.poller.PollNow(name, "") // refused where an account is stopped
		}
		time.Sleep(time.Duration(s.r.Int64N(int64(5 * time.Second))))
		s.proc.die()
		s.proc.end(s.t)
		s.up()
	}
}

// fallen clears away a process that has died, and lets the world go on without.
func (s *rig) fallen() {
	s.proc.end(s.t)
	s.pause()
}

// pause is how long nobody starts the process again. The world goes on.
func (s *rig) pause() {
	switch s.r.IntN(10) {
	case 0:
		time.Sleep(time.Duration(s.r.Int64N(int64(s.pauses))))
	case 1, 2:
		time.Sleep(time.Duration(s.r.Int64N(int64(10 * minute))))
	case 3, 4, 5, 6:
		time.Sleep(time.Duration(s.r.Int64N(int64(20 * time.Second))))
	}
}

// changeUntil lets only the world change.
func (s *rig) changeUntil(end time.Time, mean time.Duration, of scene) {
	for time.Now().Before(end) {
		time.Sleep(time.Duration(s.r.ExpFloat64() * float64(mean)))
		of.happen()
	}
}

func (e *endpoint) behave(flaky, lost float64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.flaky, e.lost = flaky, lost
}

// ask asks for something as an operator does. What is refused is refused.
func (s *rig) ask() {
	name := pick(s.r, s.names)
	if s.r.IntN(2) == 0 {
		_, _ = s.proc.app.poller.PollNow(name, "")
		return
	}
	_, _ = s.proc.app.poller.Backfill(name, "", time.Now().Add(-time.Duration(s.r.IntN(30*24))*hour))
}

// weather is what goes wrong on the network and at the marketplace from now on.
func (s *sim) weather() {
	s.box.ClearFaults()
	path := pick(s.r, []string{"", "", "/api/v1/seller/", "/api/v1/questions", "/api/v1/feedbacks", "/api/v1/feedbacks/", "/api/v1/claims", "/api/feedbacks/"})
	inject := func(f sandbox.Fault) {
		f.Path = path
		if err := s.box.Inject(f); err != nil {
			s.t.Fatal(err)
		}
	}
	some := pick(s.r, []float64{0.1, 0.5})
	strangers := sandbox.Fault{Kind: sandbox.FaultRateLimited, Variant: pick(s.r, []string{"limiter", "gateway", "global", "bare"})}
	switch s.r.IntN(8) {
	case 0, 1:
	case 2: // a network that breaks
		for _, k := range []sandbox.FaultKind{sandbox.FaultReset, sandbox.FaultLostAnswer, sandbox.FaultResetMidBody, sandbox.FaultTruncated, sandbox.FaultHang} {
			inject(sandbox.Fault{Kind: k, Rate: some / 2})
		}
	case 3: // a marketplace that breaks
		for _, k := range []sandbox.FaultKind{sandbox.Fault500, sandbox.Fault502, sandbox.Fault503, sandbox.Fault504, sandbox.FaultOther200, sandbox.FaultErrorIn200, sandbox.FaultContentType, sandbox.FaultGzip, sandbox.FaultBOM} {
			inject(sandbox.Fault{Kind: k, Rate: some / 4})
		}
	case 4: // somebody else spends the budget
		strangers.Rate, strangers.Delay = some/2, time.Duration(s.r.IntN(300))*time.Second
		inject(strangers)
	case 5:
		inject(sandbox.Fault{Kind: sandbox.Fault503, Rate: some})
		strangers.Count = 1 + s.r.IntN(3)
		inject(strangers)
	case 6: // refused for some time
		inject(sandbox.Fault{Kind: pick(s.r, []sandbox.FaultKind{sandbox.Fault401, sandbox.Fault403, sandbox.Fault402}), Count: 1 + s.r.IntN(3)})
	case 7:
		inject(sandbox.Fault{Kind: sandbox.FaultSlowBody, Rate: some, Delay: time.Duration(s.r.IntN(60)) * time.Second})
		inject(sandbox.Fault{Kind: pick(s.r, []sandbox.FaultKind{sandbox.Fault404, sandbox.Fault413, sandbox.Fault422}), Count: 1 + s.r.IntN(2)})
	}
}

// happen is something that somebody does on purpose at the marketplace, beside
// what its world does by itself.
func (s *sim) happen() {
	w := pick(s.r, s.box.Worlds())
	now := time.Now()
	bad := func(err error) {
		if err != nil {
			s.t.Fatal(err)
		}
	}
	switch s.r.IntN(12) {
	case 0: // many at the same millisecond, in one chat and in several
		chat := ""
		if chats := w.Chats(); len(chats) > 0 && s.r.IntN(2) == 0 {
			chat = pick(s.r, chats).ID
		}
		for range 1 + s.r.IntN(8) {
			w.AddEvent(sandbox.EventSpec{ChatID: chat, At: now})
		}
	case 1: // late, within the overlap, when what came after it has been read
		w.AddEvent(sandbox.EventSpec{})
		time.Sleep(time.Duration(s.r.Int64N(int64(50 * time.Second))))
		w.AddEvent(sandbox.EventSpec{At: now.Add(-time.Millisecond)})
	case 2:
		at := now.Add(-time.Duration(s.r.Int64N(int64(s.late))) * time.Duration(s.r.IntN(2)))
		for range 1 + s.r.IntN(8) {
			_, err := w.AddQuestion(sandbox.QuestionSpec{Created: at})
			bad(err)
		}
	case 3:
		at := now.Add(-time.Duration(s.r.Int64N(int64(s.late))) * time.Duration(s.r.IntN(2)))
		for range 1 + s.r.IntN(8) {
			_, err := w.AddFeedback(sandbox.FeedbackSpec{Created: at, RatingOnly: s.r.IntN(4) == 0, Photos: s.r.IntN(2)})
			bad(err)
		}
	case 4, 5:
		if all := w.Questions(); len(all) > 0 {
			q := pick(s.r, all)
			if s.r.IntN(3) == 0 && q.Answered {
				bad(w.Unanswer(q.ID))
			} else {
				bad(w.Answer(q.ID, fmt.Sprintf("ответ %d", s.r.IntN(1000))))
			}
		}
	case 6, 7:
		if all := w.FeedbackIDs(); len(all) > 0 {
			id := pick(s.r, all)
			switch s.r.IntN(4) {
			case 0:
				bad(w.AnswerFeedback(id, fmt.Sprintf("спасибо %d", s.r.IntN(1000))))
			case 1:
				bad(w.UnanswerFeedback(id))
			case 2:
				bad(w.EditFeedback(id, map[string]any{"color": "цвет " + strconv.Itoa(s.r.IntN(1000))}))
			default:
				bad(w.DeleteFeedback(id))
				if s.r.IntN(2) == 0 {
					bad(w.RestoreFeedback(id))
				}
			}
		}
	case 8, 9:
		all := w.Claims()
		if len(all) == 0 || s.r.IntN(3) == 0 {
			_, err := w.AddClaim(sandbox.ClaimSpec{})
			bad(err)
			return
		}
		c := pick(s.r, all)
		switch s.r.IntN(3) {
		case 0:
			bad(w.DecideClaim(c.ID, "reject1"))
		case 1:
			bad(w.ReopenClaim(c.ID))
		default:
			bad(w.TouchClaim(c.ID, map[string]any{"price": s.r.IntN(10_000)}))
		}
	case 10:
		if chats := w.Chats(); len(chats) > 0 {
			bad(w.Resign(pick(s.r, chats).ID))
		}
	default:
		pins := w.Pins()
		if len(pins) == 0 || s.r.IntN(2) == 0 {
			if all := w.FeedbackIDs(); len(all) > 0 {
				_, err := w.AddPin(sandbox.PinSpec{FeedbackID: pick(s.r, all)})
				bad(err)
			}
			return
		}
		if p := pick(s.r, pins); p.Pinned && s.r.IntN(2) == 0 {
			bad(w.Unpin(p.ID))
		} else if p.Pinned {
			bad(w.AutoUnpin(p.ID, sandbox.CauseTotalLimit))
		}
	}
}
