package state_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/event"
	"syncd/internal/state"
)

// wallNow is as precise as what the file keeps.
func wallNow() time.Time { return time.Now().UTC().Round(0) }

// sinkWalker drives a file and the model side by side.
type sinkWalker struct {
	*file
	r *rand.Rand
	m *sinkModel
}

// step does something until it works: commits of it break in one way or the other,
// also between two of its transactions, and the process dies.
func (w *sinkWalker) step(do func() error) {
	w.t.Helper()
	for try := 0; ; try++ {
		w.fault = nil
		if try < 3 && w.r.IntN(4) == 0 {
			at, breaking := w.r.IntN(3), breakings["failed"]
			if w.r.IntN(2) == 0 {
				breaking = breakings["failed but took effect"]
			}
			w.fault = func(commit func() error) error {
				if at--; at >= 0 {
					return w.counted(commit)
				}
				return breaking(func() error { return w.counted(commit) })
			}
		}
		err := do()
		w.fault = nil
		checkState(w.t, w.DB)
		if w.r.IntN(10) == 0 {
			w.reopen()
		}
		if err == nil {
			return
		} else if !errors.Is(err, errBroken) {
			w.t.Fatal(err)
		}
	}
}

// free returns the events that may be sent, in order: not done, on no way, and
// with no earlier one of their subject that is neither.
func (w *sinkWalker) free() (out []uint64, waits map[uint64]bool) {
	busy := make(map[string]bool)
	waits = make(map[uint64]bool)
	for seq := w.m.position + 1; seq <= w.m.last(); seq++ {
		switch key := w.m.key(seq); {
		case w.m.done(seq):
		case busy[key]:
		case w.m.batchOf(seq) != 0:
			busy[key] = true
		default:
			out = append(out, seq)
			waits[seq] = len(w.m.queue[key]) > 0
		}
	}
	return out, waits
}

func (w *sinkWalker) soon() time.Time {
	return wallNow().Add(time.Duration(w.r.IntN(9000)) * time.Millisecond)
}

// tried is a fresh event that failed.
func (w *sinkWalker) tried(seq uint64, next time.Time) state.Failed {
	now := wallNow()
	return state.Failed{Seq: seq, Key: w.m.key(seq), Attempts: 1, Refused: w.r.IntN(2), First: now, Last: now, Next: next, Status: 500, Error: "answer 500"}
}

// settlement is a group of outcomes of all sorts.
func (w *sinkWalker) settlement() state.Settlement {
	var s state.Settlement
	now := wallNow()
	done := maps.Clone(w.m.ahead)
	free, waits := w.free()
	queued := make(map[string]bool)
	var fresh []uint64 // that could go as a batch
	together, left := make(map[string]bool), make(map[string]bool)
	for _, seq := range free {
		key := w.m.key(seq)
		if left[key] {
			continue
		}
		if together[key] { // side by side with those before it, or behind them
			if left[key] = w.r.IntN(2) == 0; !left[key] {
				fresh = append(fresh, seq)
			}
			continue
		}
		if waits[seq] || queued[key] {
			s.Failed = append(s.Failed, state.Failed{Seq: seq, Key: key, Next: now})
			done[seq] = true
			continue
		}
		switch w.r.IntN(6) {
		case 0, 1: // delivered, or not wanted
			done[seq] = true
		case 2:
			f := w.tried(seq, w.soon())
			s.Failed = append(s.Failed, f)
			done[seq], queued[key] = true, true
			switch w.r.IntN(6) { // it joined while it was on its way
			case 0:
				s.Delivered = append(s.Delivered, f)
			case 1:
				f.Reason = state.ReasonGaveUp
				s.Dead = append(s.Dead, f)
			}
		case 3:
			f := w.tried(seq, now)
			f.Reason = state.ReasonRefused
			s.Dead = append(s.Dead, f)
			done[seq] = true
		case 4:
			fresh = append(fresh, seq)
			together[key] = true
		default:
			left[key] = true
		}
	}
	if len(fresh) > 0 {
		s.Batches = append(s.Batches, state.Batch{Members: fresh})
	}
	var first []uint64
	for _, f := range w.m.heads() {
		if f.Batch == 0 && class(f) == state.FirstTry && w.r.IntN(3) == 0 {
			for i, follows := range w.m.queue[f.Key] { // with some of what follows it
				if i == 0 || w.r.IntN(3) > 0 {
					first = append(first, follows.Seq)
					continue
				}
				break
			}
			continue
		}
		switch w.r.IntN(6) {
		case 0, 1:
			s.Delivered = append(s.Delivered, f)
		case 2, 3:
			f.Attempts, f.Last, f.Next, f.Error = f.Attempts+1, now, w.soon(), "again"
			if f.First.IsZero() {
				f.First = now
			}
			s.Attempts = append(s.Attempts, f)
			if f.Batch != 0 && w.r.IntN(2) == 0 {
				s.Unbatch = append(s.Unbatch, f.Batch)
			}
		case 4:
			f.Reason = state.ReasonGaveUp
			s.Dead = append(s.Dead, f)
		}
	}
	if len(first) > 1 {
		slices.Sort(first)
		s.Batches = append(s.Batches, state.Batch{Members: first})
	}
	for _, id := range slices.Sorted(maps.Keys(w.m.batches)) { // those on their way for the first time
		members := w.m.batches[id]
		if w.m.waits(state.Live, id) || w.r.IntN(2) == 0 {
			continue
		}
		next := w.soon()
		outcome := w.r.IntN(4)
		for _, seq := range members {
			f := w.tried(seq, next)
			done[seq] = true
			switch outcome {
			case 0: // temporary: it waits as one
				if seq == id {
					f.Batch = id
				}
				s.Failed = append(s.Failed, f)
			case 1: // refused: event by event
				s.Failed = append(s.Failed, f)
			case 2:
				f.Reason = state.ReasonGaveUp
				s.Dead = append(s.Dead, f)
			}
		}
		if outcome != 0 {
			s.Unbatch = append(s.Unbatch, id)
		}
	}
	slices.SortFunc(s.Failed, func(a, b state.Failed) int { return cmp.Compare(a.Seq, b.Seq) })
	if w.r.IntN(4) > 0 {
		for s.Position = w.m.position; done[s.Position+1]; s.Position++ {
		}
	}
	for seq, ok := range done {
		if ok && seq > max(s.Position, w.m.position) {
			s.Ahead = append(s.Ahead, seq)
		}
	}
	switch w.r.IntN(6) {
	case 0:
		hold := w.soon()
		s.Hold = &hold
	case 1:
		s.Hold = new(time.Time)
	case 2:
		s.Gone = &state.Gone{At: now, Event: "some/event", Answer: "gone"}
	}
	return s
}

func (w *sinkWalker) log() {
	for range w.r.IntN(5) {
		subject := fmt.Sprintf("s%d", w.r.IntN(5))
		logOf(w.t, w.DB, subject)
		w.m.subject = append(w.m.subject, subject)
	}
}

// id is that of an event as logOf makes it.
func (w *sinkWalker) id(seq uint64) string {
	id := fmt.Sprintf("%s-%d", w.m.subject[seq-1], seq)
	return event.VersionEventID("shop-a", "questions", id, 1, question(id, 1, "a").Fingerprint)
}

// letters are the dead letters that a command is about, and its argument.
func (w *sinkWalker) letters() ([]uint64, string) {
	all := slices.Sorted(maps.Keys(w.m.dead))
	if len(all) == 0 || w.r.IntN(2) == 0 {
		return all, ""
	}
	one := all[w.r.IntN(len(all))]
	return []uint64{one}, w.id(one)
}

func (w *sinkWalker) operator() {
	ctx, now := context.Background(), wallNow()
	switch w.r.IntN(7) {
	case 0:
		letters, id := w.letters()
		for _, seq := range letters {
			if !w.m.waits(state.Retried, seq) {
				w.m.join(state.Failed{Seq: seq, Lane: state.Retried, Key: w.m.key(seq), Next: now})
			}
		}
		w.step(func() error {
			_, err := w.RetryDeadLetters(ctx, "crm", id, now)
			return err
		})
	case 1:
		letters, id := w.letters()
		if w.r.IntN(3) > 0 {
			return
		}
		for _, seq := range letters {
			w.m.leave(state.Retried, seq, now)
			delete(w.m.dead, seq)
		}
		w.step(func() error {
			_, err := w.DropDeadLetters(ctx, "crm", id)
			if errors.Is(err, state.ErrNoDeadLetter) { // dropped by the try that failed
				return nil
			}
			return err
		})
	case 2:
		before := now.Add(-time.Duration(w.r.IntN(60)) * time.Second)
		for seq, d := range w.m.dead {
			if d.Died.Before(before) && !w.m.waits(state.Retried, seq) {
				delete(w.m.dead, seq)
			}
		}
		w.step(func() error {
			_, err := w.ExpireDeadLetters(ctx, before)
			return err
		})
	case 3:
		subject := fmt.Sprintf("/s%d-", w.r.IntN(5))
		oldest := w.oldest()
		for seq := max(oldest, 1); oldest != 0 && seq <= w.m.last(); seq++ {
			if w.m.done(seq) && strings.Contains(w.id(seq), subject) && !w.m.waits(state.Live, seq) && !w.m.waits(state.Replay, seq) && !w.m.waits(state.Retried, seq) {
				w.m.join(state.Failed{Seq: seq, Lane: state.Replay, Key: w.m.key(seq), Next: now})
			}
		}
		w.step(func() error {
			_, err := w.QueueReplay(ctx, "crm", func(h event.Header) bool { return strings.Contains(h.ID, subject) }, day, day.Add(48*time.Hour))
			return err
		})
	case 4:
		latest := now.Add(time.Duration(w.r.IntN(9)) * time.Second)
		for _, q := range w.m.queue {
			if q[0].Next.After(latest) {
				if f := q[0]; f.Lane != state.Live || w.m.batchOf(f.Seq) == 0 || w.m.batchOf(f.Seq) == f.Seq {
					q[0].Next = now
				}
			}
		}
		w.step(func() error { return w.PullRetries("crm", now, latest) })
	case 5:
		w.step(func() error {
			_, err := w.Retain(ctx, day.Add(48*time.Hour))
			return err
		})
		if first := w.oldest(); first != 0 && first != w.m.needed() || first == 0 && w.m.needed() <= w.m.last() {
			w.t.Fatalf("the log begins at %d, and %d is needed", first, w.m.needed())
		}
	case 6:
		w.m.gone, w.m.hold = nil, time.Time{}
		w.step(func() error {
			_, err := w.ResumeSink("crm")
			return err
		})
	}
}

// oldest is the first event of the log; 0: it is empty.
func (w *sinkWalker) oldest() uint64 {
	first, err := w.ReadEvents(0, 1, 1)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(first) == 0 {
		return 0
	}
	return first[0].Sequence
}

// absence is a sink that leaves the configuration, for a while or for long, and comes
// back.
func (w *sinkWalker) absence() {
	now := wallNow()
	w.step(func() error { return w.MarkSinks(nil, now) })
	w.m.removed = true
	if w.r.IntN(2) == 0 {
		wants := w.r.IntN(3) > 0
		for len(w.m.queue) > 0 {
			for _, f := range w.m.heads() {
				f.Reason = state.ReasonSinkRemoved
				w.m.settle(state.Settlement{Ahead: slices.Collect(maps.Keys(w.m.ahead)), Dead: []state.Failed{f}}, now)
			}
		}
		for seq := w.m.position + 1; seq <= w.m.last(); seq++ {
			if wants && !w.m.done(seq) {
				w.m.bury(state.Failed{Seq: seq, Reason: state.ReasonSinkRemoved}, now)
			}
		}
		w.m.position, w.m.ahead, w.m.batches, w.m.retired = w.m.last(), make(map[uint64]bool), make(map[uint64][]uint64), true
		w.step(func() error {
			_, err := w.RetireSink(context.Background(), "crm", func(account, typ string) bool {
				return wants && account == "shop-a" && typ == "wildberries.question.created"
			}, now)
			return err
		})
		w.log()
		if w.r.IntN(2) == 0 {
			w.step(func() error {
				_, err := w.Retain(context.Background(), day.Add(48*time.Hour))
				return err
			})
		}
		w.m.position = max(w.m.position, cmp.Or(w.oldest(), w.m.last()+1)-1)
	}
	w.m.removed, w.m.retired = false, false
	w.step(func() error {
		_, err := w.OpenSink("crm", "webhook", true, now)
		return err
	})
}

// compare looks at the sink through all that there is to look through.
func (w *sinkWalker) compare() {
	t, m := w.t, w.m
	t.Helper()
	equal := func(what string, got, want any, err error) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, want) && fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Fatalf("%s: %+v\nwant %+v (%v)", what, got, want, err)
		}
	}
	s, err := w.OpenSink("crm", "webhook", true, day)
	want := state.Sink{Position: m.position, Hold: m.hold, Gone: m.gone}
	for _, seq := range slices.Sorted(maps.Keys(m.ahead)) {
		if m.ahead[seq] {
			want.Ahead = append(want.Ahead, seq)
		}
	}
	for _, first := range slices.Sorted(maps.Keys(m.batches)) {
		members := m.batches[first]
		if slices.ContainsFunc(members, func(seq uint64) bool { return !m.waits(state.Live, seq) }) {
			want.Batches = append(want.Batches, state.Batch{Members: members})
		}
		events, err := w.BatchEvents("crm", first)
		var got []uint64
		for _, e := range events {
			got = append(got, e.Sequence)
		}
		equal("batch", got, members, err)
	}
	equal("sink", s, want, err)
	waiting, retrying := 0, make(map[uint64]bool)
	for _, q := range m.queue {
		waiting += len(q)
		for _, f := range q {
			retrying[f.Seq] = retrying[f.Seq] || f.Lane == state.Retried
		}
	}
	n, err := w.Waiting("crm")
	equal("waiting", n, waiting, err)
	backlog, err := w.Backlog("crm")
	equal("backlog", backlog.Events, waiting+int(m.last()-m.position)-len(want.Ahead), err)
	var heads []state.Failed
	for after := ""; ; after = heads[len(heads)-1].QueueKey() { // page by page
		page, err := w.Heads("crm", after, 2)
		equal("heads", nil, nil, err)
		if heads = append(heads, page...); len(page) == 0 {
			break
		}
	}
	equal("heads", heads, m.heads(), nil)
	for _, f := range heads {
		got, ok, err := w.Head("crm", f.Lane, f.Key)
		equal("head", got, f, err)
		e, found, err := w.QueuedEvent("crm", f)
		equal("event", e.ID, w.id(f.Seq), err)
		waits, err := w.WaitsAny("crm", []string{"shop-a/none", f.Key})
		if equal("waits", waits, []bool{false, len(m.queue[f.Key]) > 0}, err); !ok || !found {
			t.Fatalf("%+v: head %t, event %t", f, ok, found)
		}
	}
	for _, c := range []state.Class{state.FirstTry, state.Again, state.Aside} {
		all := m.due(c)
		got, err := w.Due("crm", c, 100, func(state.Failed) bool { return false })
		equal("due", got, all, err)
		if len(all) > 1 {
			got, err = w.Due("crm", c, 1, func(f state.Failed) bool { return f == all[0] })
			equal("due without the first", got, all[1:2], err)
		}
	}
	var letters []state.DeadLetter
	for after := uint64(0); ; after = letters[len(letters)-1].Event.Sequence {
		page, err := w.DeadLetters("crm", after, 2)
		equal("dead letters", nil, nil, err)
		if letters = append(letters, page...); len(page) == 0 {
			break
		}
	}
	n, err = w.CountDeadLetters("crm")
	equal("dead letters counted", n, len(m.dead), err)
	equal("dead letters", len(letters), len(m.dead), nil)
	for _, l := range letters {
		seq := l.Event.Sequence
		equal("its event", l.Event.ID, w.id(seq), nil)
		want := m.dead[seq]
		want.Retrying, l.Event = retrying[seq], event.Logged{}
		equal("dead letter", l, want, nil)
	}
}

// Whatever is done to a sink, with commits that fail in either way, also between
// the transactions of one command, and files that are opened again, it is what the
// model says.
func TestSinkAgainstModel(t *testing.T) {
	for range 4 {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(seed), func(t *testing.T) { // the seed is the name
			synctest.Test(t, func(t *testing.T) {
				w := &sinkWalker{file: open(t), r: rand.New(rand.NewPCG(seed, 0)),
					m: &sinkModel{ahead: make(map[uint64]bool), queue: make(map[string][]state.Failed), batches: make(map[uint64][]uint64), dead: make(map[uint64]state.DeadLetter)}}
				if _, err := w.OpenSink("crm", "webhook", true, day); err != nil {
					t.Fatal(err)
				}
				for range 120 {
					time.Sleep(time.Duration(w.r.IntN(5000)) * time.Millisecond)
					switch n := w.r.IntN(10); {
					case n < 6:
						w.log()
						s, now := w.settlement(), wallNow()
						w.m.settle(s, now)
						w.step(func() error { return w.Settle("crm", now, s) })
					case n < 9:
						w.operator()
					case w.r.IntN(3) == 0:
						w.absence()
					}
					w.compare()
				}
			})
		})
	}
}
