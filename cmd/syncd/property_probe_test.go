package main

import (
	"slices"
	"strconv"
	"time"

	"syncd/internal/sandbox"
)

// probe is one change in a world at rest, and how soon it has to be told.
type probe struct {
	key, what string
	at        time.Time
	within    time.Duration
}

// probes change something of each sort in each world, where nothing else happens.
func (s *sim) probes() []probe {
	var out []probe
	now := time.Now()
	for _, w := range s.box.Worlds() {
		told := func(stream, id, what string, within func(p streamPlan) time.Duration) {
			for _, a := range s.accounts {
				if p, ok := a.streams[stream]; ok && a.world == w {
					out = append(out, probe{a.name + "/" + stream + "/" + id, what, now, within(p) + s.pace.probe})
				}
			}
		}
		news := func(p streamPlan) time.Duration { return p.schedule }
		// A removal takes two runs that do not show it.
		twice := func(p streamPlan) time.Duration { return 2 * p.schedule }
		counted := func(p streamPlan) time.Duration { return p.every }
		read := func(p streamPlan) time.Duration { return p.full }
		// Of what is too old for the news, and young enough for every window.
		old := func(created time.Time) bool {
			return created.Before(now.Add(-2*s.pace.overlap[len(s.pace.overlap)-1])) && created.After(now.Add(-4*day))
		}
		must := func(err error) {
			if err != nil {
				s.t.Fatal(err)
			}
		}
		if all := slices.DeleteFunc(w.Questions(), func(q sandbox.Question) bool { return !old(q.Created) }); len(all) > 0 {
			switch q := pick(s.r, all); {
			case !q.Answered:
				must(w.Answer(q.ID, "наконец"))
				told("questions", q.ID, "answered", counted)
			case s.r.IntN(2) == 0:
				must(w.Unanswer(q.ID))
				told("questions", q.ID, "no longer answered", counted)
			default: // alone, or the counts would have its neighbours read, and it with them
				must(w.Answer(q.ID, "наконец"))
				told("questions", q.ID, "its answer edited", read)
			}
		}
		if all := slices.DeleteFunc(w.Feedbacks(), func(f sandbox.Feedback) bool { return !old(f.Created) }); len(all) > 1 {
			s.r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			must(w.EditFeedback(all[0].ID, map[string]any{"color": "наконец"}))
			told("feedbacks", all[0].ID, "edited", read)
			if i := slices.IndexFunc(all[1:], func(f sandbox.Feedback) bool { return !f.Answered }); i >= 0 {
				must(w.AnswerFeedback(all[i+1].ID, "наконец"))
				told("feedbacks", all[i+1].ID, "answered", counted)
			}
		}
		leaving := func(c sandbox.Claim) bool {
			return c.Created.Before(now.Add(-14*day + hour + s.pace.probe + 2*s.pace.schedule[len(s.pace.schedule)-1]))
		}
		if all := slices.DeleteFunc(w.Claims(), leaving); len(all) > 0 {
			c := pick(s.r, all)
			must(w.TouchClaim(c.ID, map[string]any{"price": 7654321}))
			told("claims", c.ID, "changed", twice)
		}
		if all := w.Chats(); len(all) > 0 {
			c := pick(s.r, all)
			must(w.Resign(c.ID))
			told("chats", c.ID, "signed anew", news)
		}
		if all := slices.DeleteFunc(w.Pins(), func(p sandbox.Pin) bool { return !p.Pinned }); len(all) > 0 {
			p := pick(s.r, all)
			must(w.Unpin(p.ID))
			told("feedback_pins", strconv.Itoa(p.ID), "unpinned", twice)
		}
		e := w.AddEvent(sandbox.EventSpec{})
		told("chat_events", e.ChatID+"/"+e.EventID, "written", news)
		q, err := w.AddQuestion(sandbox.QuestionSpec{})
		must(err)
		told("questions", q.ID, "asked", news)
	}
	return out
}

// idle: when nothing changes nothing is written, but that a sweep was made. The
// budget of a slow token is saved with each request.
func (s *sim) idle() {
	if s.pace.acc == sandbox.AccBase {
		return
	}
	long := s.pace.full[0] * 3 / 2
	before, most := s.commits.Load(), int64(0)
	for _, a := range s.accounts {
		for _, p := range a.streams {
			if p.every > 0 {
				most += int64(long/p.every) + 1 + 2*(int64(long/p.full)+1)
			}
		}
	}
	time.Sleep(long)
	if n := s.commits.Load() - before; n > most {
		s.t.Errorf("%d commits in %s in which nothing changed: expected at most %d", n, long, most)
	} else {
		s.t.Logf("idle: %d commits, at most %d", n, most)
	}
}
