package state_test

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"syncd/internal/event"
	"syncd/internal/state"
)

// deadOf is a file whose sink has given up events of some subjects.
func deadOf(t *testing.T, subjects ...string) (*file, []event.Logged) {
	t.Helper()
	f := open(t)
	logOf(t, f.DB, subjects...)
	logged := events(t, f.DB)
	_, err := f.OpenSink("crm", "webhook", true, day)
	s := state.Settlement{Position: uint64(len(subjects))}
	for i, e := range logged {
		s.Dead = append(s.Dead, state.Failed{Seq: e.Sequence, Key: e.PartitionKey, Attempts: i + 1, First: day, Last: day.Add(time.Hour), Status: 400,
			Error: "answer 400: \"no\"\n\x00\xff,\"body\":{}", Reason: state.ReasonRefused})
	}
	if err := errors.Join(err, f.Settle("crm", day, s)); err != nil {
		t.Fatal(err)
	}
	checkState(t, f.DB)
	return f, logged
}

func retryOne(t *testing.T, f *file, id string, want int) {
	t.Helper()
	if n, err := f.RetryDeadLetters(context.Background(), "crm", id, day); n != want || err != nil {
		t.Fatalf("%d are retried, want %d (%v)", n, want, err)
	}
	checkState(t, f.DB)
}

// G6: a dead letter needs the log no more: it can be listed, retried and delivered
// when the log is gone, byte for byte, and goes with its acknowledgement.
func TestDeadLetterOutlivesLog(t *testing.T) {
	f, logged := deadOf(t, "a", "b", "a")
	if n, err := f.Retain(context.Background(), day.Add(48*time.Hour)); n != 3 || err != nil {
		t.Fatalf("dead letters hold the log: %d deleted, %v", n, err)
	}
	f.reopen()
	letters, err := f.DeadLetters("crm", 1, 1)
	if err != nil || len(letters) != 1 || string(letters[0].Event.JSON) != string(logged[1].JSON) || letters[0].Event.Header != logged[1].Header ||
		letters[0].Attempts != 2 || letters[0].Error != "answer 400: \"no\"\n\x00\ufffd,\"body\":{}" {
		t.Fatalf("%+v %v", letters, err)
	}
	retryOne(t, f, logged[2].ID, 1)
	retryOne(t, f, logged[2].ID, 0)
	retryOne(t, f, "", 2)
	retryOne(t, f, "", 0)
	if _, err := f.RetryDeadLetters(context.Background(), "crm", "some/id", day); !errors.Is(err, state.ErrNoDeadLetter) {
		t.Fatal(err)
	}
	due, err := f.Due("crm", state.Aside, 10, func(state.Failed) bool { return false })
	if err != nil || len(due) != 2 || due[0].Seq != 3 || due[0].Attempts != 0 || !due[0].First.IsZero() || due[0].Lane != state.Retried {
		t.Fatalf("%+v %v", due, err)
	}
	for range 2 { // the second time the next of the subject is there
		head, _, err := f.Head("crm", state.Retried, "shop-a/a")
		e, ok, err2 := f.QueuedEvent("crm", head)
		if err := errors.Join(err, err2); err != nil || !ok || string(e.JSON) != string(logged[head.Seq-1].JSON) {
			t.Fatalf("%+v %t %v", e, ok, err)
		}
		for range 2 { // a settlement that is repeated
			if err := f.Settle("crm", day, state.Settlement{Delivered: []state.Failed{head}}); err != nil {
				t.Fatal(err)
			}
		}
		checkState(t, f.DB)
	}
	if n, err := f.CountDeadLetters("crm"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := f.Waiting("crm"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
}

// One that fails for good again says what happened since its first attempt. One
// that was dropped meanwhile does not come back.
func TestDeadAgain(t *testing.T) {
	f, logged := deadOf(t, "a", "b")
	retryOne(t, f, "", 2)
	var again []state.Failed
	for _, key := range []string{"shop-a/a", "shop-a/b"} {
		head, _, _ := f.Head("crm", state.Retried, key)
		head.Attempts, head.First, head.Last, head.Status, head.Error, head.Reason = 5, day.Add(2*time.Hour), day.Add(3*time.Hour), 0, "no answer", state.ReasonGaveUp
		again = append(again, head)
	}
	if n, err := f.DropDeadLetters(context.Background(), "crm", logged[1].ID); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	checkState(t, f.DB)
	for range 2 {
		if err := f.Settle("crm", day.Add(4*time.Hour), state.Settlement{Dead: again}); err != nil {
			t.Fatal(err)
		}
		checkState(t, f.DB)
	}
	letters, err := f.DeadLetters("crm", 0, 10)
	want := state.DeadLetter{Event: logged[0], Attempts: 6, First: day, Last: day.Add(3 * time.Hour), Died: day.Add(4 * time.Hour), Error: "no answer", Reason: state.ReasonGaveUp}
	if err != nil || len(letters) != 1 || string(letters[0].Event.JSON) != string(logged[0].JSON) {
		t.Fatalf("%+v %v", letters, err)
	}
	want.Event, letters[0].Event = event.Logged{}, event.Logged{}
	if got := letters[0]; got.Attempts != want.Attempts || !got.First.Equal(want.First) || !got.Last.Equal(want.Last) || !got.Died.Equal(want.Died) ||
		got.Status != 0 || got.Error != want.Error || got.Reason != want.Reason || got.Retrying {
		t.Fatalf("%+v\nwant %+v", got, want)
	}
	if n, err := f.Waiting("crm"); n != 0 || err != nil {
		t.Fatal(n, err)
	}
}

// A settlement that was committed and is repeated does not bring back what an
// operator has dropped in between, and counts nothing twice.
func TestDeadTwice(t *testing.T) {
	f := open(t)
	logOf(t, f.DB, "a", "b", "c")
	_, _ = f.OpenSink("crm", "webhook", true, day)
	s := state.Settlement{Position: 1, Ahead: []uint64{3}, Dead: []state.Failed{{Seq: 1, Key: "shop-a/a", Attempts: 1, Reason: state.ReasonRefused}, {Seq: 3, Key: "shop-a/c", Attempts: 1, Reason: state.ReasonRefused}}}
	for range 2 {
		if err := f.Settle("crm", day, s); err != nil {
			t.Fatal(err)
		}
		checkState(t, f.DB)
	}
	letters, err := f.DeadLetters("crm", 0, 10)
	if err != nil || len(letters) != 2 || letters[0].Attempts != 1 || letters[1].Attempts != 1 {
		t.Fatalf("%+v %v", letters, err)
	}
	n, err := f.DropDeadLetters(context.Background(), "crm", "")
	if err := errors.Join(err, f.Settle("crm", day, s)); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := f.CountDeadLetters("crm"); n != 0 || err != nil {
		t.Fatal(n, err)
	}
}

// Expiry counts what it takes of each sink, and leaves what is younger or retried.
func TestExpireDeadLetters(t *testing.T) {
	f, logged := deadOf(t, "a", "b", "c")
	_, _ = f.OpenSink("other", "webhook", true, day)
	err := f.Settle("other", day.Add(time.Hour), state.Settlement{Position: 3, Dead: []state.Failed{{Seq: 2, Key: "shop-a/b", Reason: state.ReasonGaveUp}}})
	if err != nil {
		t.Fatal(err)
	}
	retryOne(t, f, logged[1].ID, 1)
	for _, test := range []struct {
		before time.Time
		want   map[string]int
	}{
		{day, map[string]int{}},
		{day.Add(time.Millisecond), map[string]int{"crm": 2}},
		{day.Add(2 * time.Hour), map[string]int{"other": 1}},
	} {
		n := f.n
		got, err := f.ExpireDeadLetters(context.Background(), test.before)
		if err != nil || !maps.Equal(got, test.want) || f.n-n != len(test.want) {
			t.Errorf("before %s: %v in %d commits, want %v (%v)", test.before, got, f.n-n, test.want, err)
		}
		checkState(t, f.DB)
	}
}

// A replay is of what was recorded in its time, wanted, kept, and is not on its way
// anyway; it holds the log until it is delivered.
func TestQueueReplay(t *testing.T) {
	f := open(t)
	for i, s := range []string{"a", "b", "a", "c", "b", "a", "d"} {
		p := pageOf(f.DB, question(s, i, "text"+string(rune('0'+i))))
		p.Now = day.Add(time.Duration(i) * time.Hour)
		commit(t, f.DB, p)
	}
	_, err := f.OpenSink("crm", "webhook", true, day)
	err = errors.Join(err, f.Settle("crm", day, state.Settlement{Position: 6, Failed: []state.Failed{{Seq: 4, Key: "shop-a/question/c", Next: day}},
		Dead: []state.Failed{{Seq: 5, Key: "shop-a/question/b", Reason: state.ReasonRefused}}}))
	if err != nil {
		t.Fatal(err)
	}
	retryOne(t, f, "", 1)
	for _, want := range []int{2, 0} { // of 2 to 7: 4 waits, 5 is retried, 6 is not wanted, 7 is behind the position
		n, err := f.QueueReplay(context.Background(), "crm", func(h event.Header) bool { return h.Sequence != 6 }, day.Add(time.Hour), day.Add(10*time.Hour))
		if n != want || err != nil {
			t.Fatalf("%d events, want %d (%v)", n, want, err)
		}
		checkState(t, f.DB)
	}
	if n, err := f.QueueReplay(context.Background(), "crm", nil, day, day.Add(time.Hour)); n != 1 || err != nil {
		t.Fatalf("the time is [since, until): %d events, %v", n, err)
	}
	stopped, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.QueueReplay(stopped, "crm", nil, day, day.Add(time.Hour)); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	head, ok, err := f.Head("crm", state.Replay, "shop-a/question/a")
	if err != nil || !ok || head.Lane != state.Replay || head.Key != "shop-a/question/a" || head.Seq != 3 || head.Attempts != 0 {
		t.Fatalf("%+v %t %v", head, ok, err)
	}
	if waits, err := f.Waits("crm", head.Key); waits || err != nil {
		t.Fatal("a replay holds back live events", err)
	}
	if n, err := f.Retain(context.Background(), day.Add(48*time.Hour)); n != 0 || err != nil {
		t.Fatalf("%d events are gone that are to be replayed, %v", n, err)
	}
}

// A replay is also of what was acknowledged ahead of the position, which one event
// may hold for hours; what waits, or was not sent, is on its way.
func TestQueueReplayAhead(t *testing.T) {
	f := open(t)
	logOf(t, f.DB, "a", "b", "c", "d", "e", "f")
	_, err := f.OpenSink("crm", "webhook", true, day)
	err = errors.Join(err, f.Settle("crm", day, state.Settlement{Position: 1, Ahead: []uint64{3, 4, 6}, Failed: []state.Failed{{Seq: 4, Key: "shop-a/d", Next: day}}}))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{3, 0} { // 1, 3 and 6
		if n, err := f.QueueReplay(context.Background(), "crm", nil, day, day.Add(48*time.Hour)); n != want || err != nil {
			t.Fatalf("%d events, want %d (%v)", n, want, err)
		}
		checkState(t, f.DB)
	}
	for _, key := range []string{"shop-a/a", "shop-a/c", "shop-a/f"} {
		if _, ok, err := f.Head("crm", state.Replay, key); !ok || err != nil {
			t.Errorf("%s is not replayed (%v)", key, err)
		}
	}
}
