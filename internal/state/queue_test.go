package state_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"syncd/internal/state"
)

// logOf appends one event for each subject named, in order.
func logOf(t testing.TB, db *state.DB, subjects ...string) {
	t.Helper()
	last, err := db.LastSequence()
	if err != nil {
		t.Fatal(err)
	}
	var items []state.Item
	for i, s := range subjects {
		q := question(fmt.Sprintf("%s-%d", s, int(last)+i+1), 1, "a")
		q.Subject = s
		items = append(items, q)
	}
	if _, err := db.CommitPage(pageOf(db, items...)); err != nil {
		t.Fatal(err)
	}
}

func TestOpenSink(t *testing.T) {
	f := open(t)
	logOf(t, f.DB, "a", "b")
	for _, test := range []struct {
		name      string
		beginning bool
		want      uint64
	}{{"now", false, 2}, {"beginning", true, 0}} {
		s, err := f.DB.OpenSink(test.name, "file", test.beginning, day)
		if err != nil || s.Position != test.want || s.Checkpoint != nil {
			t.Fatalf("%s: %+v %v", test.name, s, err)
		}
		s, err = f.DB.OpenSink(test.name, "file", !test.beginning, day) // it is known now
		if err != nil || s.Position != test.want {
			t.Fatalf("%s: %+v %v", test.name, s, err)
		}
	}
	if _, err := f.DB.OpenSink("now", "webhook", false, day); err == nil {
		t.Fatal("the type changed and nobody minded")
	}
	if err := f.DB.Settle("nobody", day, state.Settlement{Position: 1}); err == nil {
		t.Fatal("a sink that is not there was moved")
	}
}

func TestSettleNeverMovesBack(t *testing.T) {
	f := open(t)
	logOf(t, f.DB, "a", "b")
	_, _ = f.DB.OpenSink("s", "file", true, day)
	for _, position := range []uint64{2, 1} {
		if err := f.DB.Settle("s", day, state.Settlement{Position: position, Checkpoint: []byte(fmt.Sprint(position))}); err != nil {
			t.Fatal(err)
		}
	}
	s, err := f.DB.OpenSink("s", "file", true, day)
	if err != nil || s.Position != 2 || string(s.Checkpoint) != "1" {
		t.Fatalf("%+v %v", s, err)
	}
}

func TestReadEventsBounds(t *testing.T) {
	f := open(t)
	logOf(t, f.DB, "a", "b", "c", "d")
	for _, test := range []struct {
		after       uint64
		count, size int
		want        int
	}{{0, 10, 1 << 20, 4}, {1, 2, 1 << 20, 2}, {0, 10, 1, 1}, {4, 10, 10, 0}} {
		got, err := f.DB.ReadEvents(test.after, test.count, test.size)
		if err != nil || len(got) != test.want {
			t.Errorf("%+v: %d events, %v", test, len(got), err)
		}
	}
	one, _ := f.DB.ReadEvents(0, 1, 1)
	if got, _ := f.DB.ReadEvents(0, 10, len(one[0].JSON)); len(got) != 1 {
		t.Errorf("a budget of one event gave %d", len(got))
	}
	if got, _ := f.DB.ReadEvents(0, 10, len(one[0].JSON)+1); len(got) != 2 {
		t.Errorf("a budget of an event and a byte gave %d", len(got))
	}
	if _, ok, err := f.DB.Event(5); ok || err != nil {
		t.Error("event 5 is there", err)
	}
}

// Retain deletes what is old, in order, and never what a position or a retry
// queue needs; sequences go on after everything is gone.
func TestRetain(t *testing.T) {
	f := open(t)
	for range 25 {
		logOf(t, f.DB, slices.Repeat([]string{"a", "b"}, 50)...)
	}
	_, _ = f.DB.OpenSink("crm", "webhook", true, day)
	recorded := day.Add(24 * time.Hour)
	retain := func(before time.Time, want int, oldest uint64) {
		t.Helper()
		n, err := f.DB.Retain(context.Background(), before)
		checkState(t, f.DB)
		first, _ := f.DB.ReadEvents(0, 1, 1)
		if err != nil || n != want || (oldest == 0) != (len(first) == 0) || oldest != 0 && first[0].Sequence != oldest {
			t.Fatalf("%d deleted, first %v, %v", n, first, err)
		}
	}
	retain(recorded.Add(time.Hour), 0, 1) // the sink needs all
	if err := f.DB.Settle("crm", day, state.Settlement{Position: 2500, Failed: []state.Failed{{Seq: 2001, Key: "shop-a/a", Next: day}, {Seq: 2005, Key: "shop-a/a", Next: day}}}); err != nil {
		t.Fatal(err)
	}
	n := f.n
	retain(recorded, 0, 1) // not older than that
	if f.n != n {
		t.Error("nothing to do, and a commit")
	}
	retain(recorded.Add(time.Hour), 2000, 2001)
	head, _, _ := f.DB.Head("crm", state.Live, "shop-a/a")
	if err := f.DB.Settle("crm", day, state.Settlement{Delivered: []state.Failed{head}}); err != nil {
		t.Fatal(err)
	}
	retain(recorded.Add(time.Hour), 4, 2005)
	head, _, _ = f.DB.Head("crm", state.Live, "shop-a/a")
	if err := f.DB.Settle("crm", day, state.Settlement{Delivered: []state.Failed{head}}); err != nil {
		t.Fatal(err)
	}
	retain(recorded.Add(time.Hour), 496, 0)
	f.reopen()
	logOf(t, f.DB, "a")
	if got := events(t, f.DB); len(got) != 1 || got[0].Sequence != 2501 {
		t.Fatal(got)
	}
	if s, err := f.DB.OpenSink("new", "file", true, day); err != nil || s.Position != 2500 {
		t.Fatalf("a sink from the beginning starts at %d, %v", s.Position, err)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	if n, err := f.DB.Retain(cancelled, recorded.Add(time.Hour)); n != 0 || err != nil {
		t.Fatal(n, err)
	}
}

func TestBacklog(t *testing.T) {
	f := open(t)
	_, _ = f.DB.OpenSink("crm", "webhook", true, day)
	want := func(n int, oldest bool) {
		t.Helper()
		b, err := f.DB.Backlog("crm")
		if err != nil || b.Events != n || b.Oldest.IsZero() == oldest {
			t.Fatalf("%+v %v", b, err)
		}
	}
	want(0, false)
	logOf(t, f.DB, "a", "b", "a")
	want(3, true)
	if err := f.DB.Settle("crm", day, state.Settlement{Position: 3, Failed: []state.Failed{{Seq: 1, Key: "shop-a/a", Next: day}, {Seq: 3, Key: "shop-a/a", Next: day}}}); err != nil {
		t.Fatal(err)
	}
	want(2, true)
	if b, err := f.DB.Backlog("nobody"); err != nil || b.Events != 0 {
		t.Fatal(b, err)
	}
}

// A next time that only a wrong clock can have set is pulled to now; others stay.
func TestPullRetries(t *testing.T) {
	f := open(t)
	logOf(t, f.DB, "a", "b", "c")
	_, _ = f.DB.OpenSink("crm", "webhook", true, day)
	if err := f.DB.PullRetries("crm", day, day); err != nil {
		t.Fatal("a queue that was never used:", err)
	}
	failed := []state.Failed{
		{Seq: 1, Key: "shop-a/a", Next: day.AddDate(5, 0, 0), Attempts: 3},
		{Seq: 2, Key: "shop-a/b", Next: day.Add(time.Hour)},
		{Seq: 3, Key: "shop-a/c", Next: day.AddDate(1, 0, 0)},
	}
	if err := f.DB.Settle("crm", day, state.Settlement{Position: 3, Failed: failed}); err != nil {
		t.Fatal(err)
	}
	if err := f.DB.PullRetries("crm", day, day.Add(24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	checkState(t, f.DB)
	for key, want := range map[string]time.Time{"shop-a/a": day, "shop-a/b": day.Add(time.Hour), "shop-a/c": day} {
		if h, ok, err := f.DB.Head("crm", state.Live, key); err != nil || !ok || !h.Next.Equal(want) {
			t.Errorf("%s is due at %s, want %s (%v)", key, h.Next, want, err)
		}
	}
	n := f.n
	if err := f.DB.PullRetries("crm", day, day.Add(24*time.Hour)); err != nil || f.n != n {
		t.Errorf("nothing to do, and %d commits, %v", f.n-n, err)
	}
}

// An attempt that comes back for an event which is no head any more must not
// raise it from the dead.
func TestAttemptAfterAcknowledge(t *testing.T) {
	f := open(t)
	logOf(t, f.DB, "a", "a")
	_, _ = f.DB.OpenSink("crm", "webhook", true, day)
	if err := f.DB.Settle("crm", day, state.Settlement{Position: 2, Failed: []state.Failed{{Seq: 1, Key: "shop-a/a", Next: day}, {Seq: 2, Key: "shop-a/a", Next: day}}}); err != nil {
		t.Fatal(err)
	}
	first, _, _ := f.DB.Head("crm", state.Live, "shop-a/a")
	for range 2 {
		if err := f.DB.Settle("crm", day, state.Settlement{Delivered: []state.Failed{first}}); err != nil {
			t.Fatal(err)
		}
		first.Attempts = 7
		if err := f.DB.RecordAttempt("crm", first); err != nil {
			t.Fatal(err)
		}
		checkState(t, f.DB)
	}
	if h, ok, err := f.DB.Head("crm", state.Live, "shop-a/a"); err != nil || !ok || h.Seq != 2 || h.Attempts != 0 {
		t.Fatalf("%+v %t %v", h, ok, err)
	}
}
