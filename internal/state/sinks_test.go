package state_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"syncd/internal/state"
)

// Contract §4: a sink that leaves the configuration keeps its state and holds the log;
// its time counts from when it was first missed, and it goes on where it was.
func TestRemovedSink(t *testing.T) {
	f := open(t)
	logOf(t, f.DB, "a", "b", "c")
	for _, name := range []string{"crm", "other"} {
		_, err := f.OpenSink(name, "webhook", true, day)
		if err := errors.Join(err, f.Settle(name, day, state.Settlement{Position: 1})); err != nil {
			t.Fatal(err)
		}
	}
	selected := json.RawMessage(`{ "types": ["*.created"] }`)
	for want := range 2 { // the second time changes nothing
		n := f.n
		err := errors.Join(f.SaveSelect("crm", selected), f.MarkSinks([]string{"other", "new"}, day.Add(time.Duration(want)*time.Hour)))
		if err != nil || f.n-n != 2-2*want {
			t.Fatalf("%d commits, %v", f.n-n, err)
		}
	}
	removed, err := f.Removed()
	if err != nil || len(removed) != 1 || removed[0].Name != "crm" || removed[0].Type != "webhook" || !removed[0].Since.Equal(day) ||
		string(removed[0].Select) != `{"types":["*.created"]}` || removed[0].Retired {
		t.Fatalf("%+v %v", removed, err)
	}
	if n, err := f.Retain(context.Background(), day.Add(48*time.Hour)); n != 1 || err != nil {
		t.Fatalf("the log lost %d events, %v", n, err)
	}
	if _, err := f.OpenSink("crm", "file", true, day); err == nil {
		t.Fatal("it came back as another type")
	}
	if s, err := f.OpenSink("crm", "webhook", true, day); err != nil || s.Position != 1 {
		t.Fatalf("it came back at %+v, %v", s, err)
	}
	if removed, err := f.Removed(); err != nil || len(removed) != 0 {
		t.Fatalf("%+v %v", removed, err)
	}
	if n, err := f.RetireSink(context.Background(), "crm", nil, day); n != 0 || err != nil {
		t.Fatalf("a sink that is there was retired: %d %v", n, err)
	}
	checkState(t, f.DB)
}

// The rest of a retired sink is dead letters: what it wanted and never got, once,
// and it holds the log no more.
func TestRetireSink(t *testing.T) {
	f := open(t)
	logOf(t, f.DB, "a", "b", "c", "a", "b", "c", "d")
	_, _ = f.OpenSink("crm", "webhook", true, day)
	err := errors.Join(
		f.Settle("crm", day, state.Settlement{Position: 2, Ahead: []uint64{4, 5}, Failed: []state.Failed{
			{Seq: 1, Key: "shop-a/a", Attempts: 3, First: day, Last: day, Next: day, Status: 500, Error: "answer 500"}, {Seq: 4, Key: "shop-a/a", Next: day}},
			Batches: []state.Batch{{Members: []uint64{3, 6}}}}),
		f.MarkSinks(nil, day))
	if err != nil {
		t.Fatal(err)
	}
	stopped, cancel := context.WithCancel(context.Background())
	cancel()
	if n, err := f.RetireSink(stopped, "crm", nil, day); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	n, err := f.RetireSink(context.Background(), "crm", func(_, typ string) bool { return typ == "wildberries.question.created" }, day.Add(time.Hour))
	if n != 5 || err != nil { // 1 and 4 of the queue; 3, 6 and 7
		t.Fatal(n, err)
	}
	checkState(t, f.DB)
	letters, err := f.DeadLetters("crm", 0, 100)
	var got []uint64
	for _, l := range letters {
		got = append(got, l.Event.Sequence)
		tried := l.Event.Sequence == 1
		if l.Reason != state.ReasonSinkRemoved || !l.Died.Equal(day.Add(time.Hour)) || tried != (l.Attempts == 3) || tried != (l.Status == 500) || tried == l.First.IsZero() {
			t.Errorf("%+v", l)
		}
	}
	if !slices.Equal(got, []uint64{1, 3, 4, 6, 7}) || err != nil {
		t.Fatalf("dead letters %d, %v", got, err)
	}
	if b, err := f.Backlog("crm"); b != (state.Backlog{}) || err != nil {
		t.Fatalf("%+v %v", b, err)
	}
	logOf(t, f.DB, "a", "b")
	if n, err := f.Retain(context.Background(), day.Add(48*time.Hour)); n != 9 || err != nil {
		t.Fatalf("it holds the log: %d events deleted, %v", n, err)
	}
	logOf(t, f.DB, "a", "b")
	if s, err := f.OpenSink("crm", "webhook", true, day); err != nil || s.Position != 9 || len(s.Ahead)+len(s.Batches) != 0 {
		t.Fatalf("it came back at %+v, %v", s, err)
	}
	checkState(t, f.DB)
}

// Where events are done beyond the position they are no backlog, and the oldest is
// what is left.
func TestBacklogWithoutAhead(t *testing.T) {
	f := open(t)
	for i, s := range []string{"a", "b", "c", "d"} {
		p := pageOf(f.DB, question(s, i, "a"))
		p.Now = day.Add(time.Duration(i) * time.Hour)
		commit(t, f.DB, p)
	}
	_, _ = f.OpenSink("crm", "webhook", true, day)
	for _, test := range []struct {
		s      state.Settlement
		events int
		oldest int // hour
	}{
		{state.Settlement{Ahead: []uint64{1}}, 3, 1},
		{state.Settlement{Ahead: []uint64{1, 2, 4}, Failed: []state.Failed{{Seq: 2, Key: "shop-a/question/b", Next: day}}}, 2, 1},
		{state.Settlement{Position: 2, Ahead: []uint64{4}}, 2, 1},
		{state.Settlement{Position: 4, Delivered: []state.Failed{{Seq: 2, Key: "shop-a/question/b"}}}, 0, -1},
	} {
		if err := f.Settle("crm", day, test.s); err != nil {
			t.Fatal(err)
		}
		checkState(t, f.DB)
		want := state.Backlog{Events: test.events}
		if test.oldest >= 0 {
			want.Oldest = day.Add(time.Duration(test.oldest) * time.Hour)
		}
		if b, err := f.Backlog("crm"); err != nil || b != want {
			t.Errorf("after %+v: %+v, want %+v (%v)", test.s, b, want, err)
		}
	}
}

func TestResumeSink(t *testing.T) {
	f := open(t)
	_, _ = f.OpenSink("crm", "webhook", true, day)
	hold, gone := day.Add(time.Hour), state.Gone{At: day, Event: "shop-a/questions/q1", Answer: "moved <away>"}
	if err := f.Settle("crm", day, state.Settlement{Hold: &hold, Gone: &gone}); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	s, err := f.OpenSink("crm", "webhook", true, day)
	if err != nil || !s.Hold.Equal(hold) || s.Gone == nil || *s.Gone != gone {
		t.Fatalf("%+v %v", s, err)
	}
	for _, want := range []bool{true, false} {
		if was, err := f.ResumeSink("crm"); was != want || err != nil {
			t.Fatal(was, err)
		}
	}
	if s, err := f.OpenSink("crm", "webhook", true, day); err != nil || s.Gone != nil || !s.Hold.IsZero() {
		t.Fatalf("%+v %v", s, err)
	}
	later := time.Now().Add(time.Hour)
	if err := f.Settle("crm", day, state.Settlement{Hold: &later}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} { // a receiver that asked to be left alone
		if was, err := f.ResumeSink("crm"); was != want || err != nil {
			t.Fatal(was, err)
		}
	}
	if err := f.Settle("crm", day, state.Settlement{Hold: new(time.Time)}); err != nil {
		t.Fatal(err)
	}
	if s, _ := f.OpenSink("crm", "webhook", true, day); !s.Hold.IsZero() {
		t.Errorf("held until %s", s.Hold)
	}
}

// Every command says so where there is no such thing.
func TestUnknownNames(t *testing.T) {
	f := open(t)
	ctx := context.Background()
	for name, do := range map[string]func() error{
		"resume":  func() error { _, err := f.ResumeSink("no"); return err },
		"select":  func() error { return f.SaveSelect("no", nil) },
		"retry":   func() error { _, err := f.RetryDeadLetters(ctx, "no", "", day); return err },
		"drop":    func() error { _, err := f.DropDeadLetters(ctx, "no", "an/id"); return err },
		"replay":  func() error { _, err := f.QueueReplay(ctx, "no", nil, day, day); return err },
		"retire":  func() error { _, err := f.RetireSink(ctx, "no", nil, day); return err },
		"sink":    func() error { return f.ForgetSink(ctx, "no") },
		"account": func() error { return f.ForgetAccount(ctx, "no") },
	} {
		if err := do(); !errors.Is(err, state.ErrUnknown) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if f.n != 0 {
		t.Errorf("%d commits", f.n)
	}
}
