package state_test

import (
	"fmt"
	"testing"
	"time"

	"syncd/internal/state"
)

// Contract §7: which events go in one request is saved before it is sent, and is the
// same after a crash, until they are acknowledged or go event by event.
func TestBatch(t *testing.T) {
	f := open(t)
	logOf(t, f.DB, "a", "b", "a", "c", "b")
	_, _ = f.OpenSink("crm", "webhook", true, day)
	settle := func(s state.Settlement) {
		t.Helper()
		if err := f.Settle("crm", day.Add(time.Hour), s); err != nil {
			t.Fatal(err)
		}
		f.reopen()
		checkState(t, f.DB)
	}
	want := func(batches, again, firstTry string) {
		t.Helper()
		s, err := f.OpenSink("crm", "webhook", true, day)
		if got := fmt.Sprint(s.Batches); got != batches || err != nil {
			t.Errorf("batches %s, want %s (%v)", got, batches, err)
		}
		for class, want := range map[state.Class]string{state.Again: again, state.FirstTry: firstTry} {
			due, err := f.Due("crm", class, 10, func(state.Failed) bool { return false })
			got := ""
			for _, h := range due {
				got += fmt.Sprintf("%d of %d: %d tries, %d refused; ", h.Seq, h.Batch, h.Attempts, h.Refused)
			}
			if got != want || err != nil {
				t.Errorf("due in class %d is %q, want %q (%v)", class, got, want, err)
			}
		}
	}
	batch := []state.Batch{{Members: []uint64{1, 2, 3, 4}}}
	settle(state.Settlement{Batches: batch})
	want("[{[1 2 3 4]}]", "", "")

	var failed []state.Failed
	for seq, key := range []string{"a", "b", "a", "c"} {
		failed = append(failed, state.Failed{Seq: uint64(seq + 1), Key: "shop-a/" + key, Attempts: 1, Refused: 1, First: day, Last: day, Next: day})
	}
	failed[0].Batch = 1
	settle(state.Settlement{Position: 5, Failed: append(failed, state.Failed{Seq: 5, Key: "shop-a/b", Next: day})})
	want("[]", "1 of 1: 1 tries, 1 refused; ", "")
	if members, err := f.BatchEvents("crm", 1); len(members) != 4 || members[2].Sequence != 3 || err != nil {
		t.Fatalf("%+v %v", members, err)
	}

	leader, _, _ := f.Head("crm", state.Live, "shop-a/a")
	leader.Attempts = 2
	settle(state.Settlement{Position: 5, Attempts: []state.Failed{leader}, Unbatch: []uint64{1}})
	want("[]", "1 of 0: 2 tries, 1 refused; 2 of 0: 2 tries, 0 refused; 4 of 0: 2 tries, 0 refused; ", "")
	if members, err := f.BatchEvents("crm", 1); len(members) != 0 || err != nil {
		t.Fatalf("%+v %v", members, err)
	}

	// Those that moved up go together, and leave together.
	settle(state.Settlement{Position: 5, Delivered: []state.Failed{failed[0], failed[1], failed[3]}})
	want("[]", "", "3 of 0: 0 tries, 0 refused; 5 of 0: 0 tries, 0 refused; ")
	if h, _, _ := f.Head("crm", state.Live, "shop-a/a"); !h.First.Equal(day) {
		t.Errorf("what was tried in a batch counts from %s", h.First)
	}
	settle(state.Settlement{Position: 5, Batches: []state.Batch{{Members: []uint64{3, 5}}}})
	want("[]", "", "3 of 3: 0 tries, 0 refused; ")
	settle(state.Settlement{Position: 5, Delivered: []state.Failed{{Seq: 3, Key: "shop-a/a", Batch: 3}}})
	want("[]", "", "")
	if n, err := f.Waiting("crm"); n != 0 || err != nil {
		t.Fatal(n, err)
	}
}

// Events may join the queue and leave it in one settlement, since the first of them
// was on its way; also where that is committed twice.
func TestSettleJoinsAndLeaves(t *testing.T) {
	for _, dead := range []bool{false, true} {
		for _, ahead := range []bool{false, true} {
			f := open(t)
			logOf(t, f.DB, "a", "b", "a", "a")
			_, _ = f.OpenSink("crm", "webhook", true, day)
			first := state.Failed{Seq: 1, Key: "shop-a/a", Attempts: 1, First: day, Last: day, Next: day, Reason: state.ReasonRefused}
			s := state.Settlement{Position: 3, Failed: []state.Failed{first, {Seq: 3, Key: "shop-a/a", Next: day}}}
			if ahead {
				s.Position, s.Ahead = 0, []uint64{1, 3}
			}
			if dead {
				s.Dead = []state.Failed{first}
			} else {
				s.Delivered = []state.Failed{first}
			}
			for range 3 {
				if err := f.Settle("crm", day.Add(time.Hour), s); err != nil {
					t.Fatal(err)
				}
				checkState(t, f.DB)
				h, ok, err := f.Head("crm", state.Live, "shop-a/a")
				n, _ := f.Waiting("crm")
				if !ok || h.Seq != 3 || h.Attempts != 0 || n != 1 || err != nil {
					t.Fatalf("%+v %t, %d wait (%v)", h, ok, n, err)
				}
			}
			letters, err := f.DeadLetters("crm", 0, 10)
			if len(letters) > 1 || dead && (len(letters) != 1 || letters[0].Attempts != 1) || err != nil {
				t.Fatalf("%+v %v", letters, err)
			}
		}
	}
}

// What is due in the queue and was never tried is gathered into batches with what
// follows it: as many as there is room for, in order, a subject in one of them.
func TestDueBatches(t *testing.T) {
	f := open(t)
	logOf(t, f.DB, "a", "b", "a", "c", "b", "a", "d", "e", "a")
	_, _ = f.OpenSink("crm", "webhook", true, day)
	var failed []state.Failed
	for i, s := range []string{"a", "b", "a", "c", "b", "a", "d", "e", "a"} {
		failed = append(failed, state.Failed{Seq: uint64(i + 1), Key: "shop-a/" + s, Next: day.Add(time.Duration(i) * time.Second)})
	}
	failed[1].First, failed[3].Attempts, failed[7].Next = day, 1, day.Add(time.Hour)
	if err := f.Settle("crm", day, state.Settlement{Position: 9, Failed: failed}); err != nil {
		t.Fatal(err)
	}
	gathered := func(limit, events, bytes int, without string) string {
		t.Helper()
		got, next, err := f.DueBatches("crm", day.Add(time.Minute), limit, events, bytes, func(h state.Failed) bool { return h.Key == without })
		if err != nil {
			t.Fatal(err)
		}
		out := ""
		for _, b := range got {
			var seqs []uint64
			for _, e := range b.Events {
				seqs = append(seqs, e.Sequence)
			}
			out += fmt.Sprintf("%d of %d: %d %t; ", b.Head.Seq, b.Head.Batch, seqs, b.Full)
		}
		if !next.IsZero() {
			out += next.Sub(day).String()
		}
		return out
	}
	for _, test := range []struct {
		limit, events, bytes int
		without, want        string
	}{
		{9, 100, 1 << 20, "", "1 of 0: [1 2 3 5 6 7 9] false; 1h0m0s"},
		{9, 2, 1 << 20, "", "1 of 0: [1 3] true; 2 of 0: [2 5] true; 7 of 0: [7] false; 1h0m0s"},
		{2, 3, 1 << 20, "", "1 of 0: [1 3 6] true; 2 of 0: [2 5 7] false; 1h0m0s"},
		{1, 3, 1 << 20, "", "1 of 0: [1 3 6] true; "},
		{9, 3, 1, "shop-a/b", "1 of 0: [1] true; 7 of 0: [7] false; 1h0m0s"},
	} {
		if got := gathered(test.limit, test.events, test.bytes, test.without); got != test.want {
			t.Errorf("%+v: got %s", test, got)
		}
	}

	// Saved, it is what it was, its followers too; taken, it takes them all.
	if err := f.Settle("crm", day, state.Settlement{Position: 9, Batches: []state.Batch{{Members: []uint64{1, 2, 3, 5}}}}); err != nil {
		t.Fatal(err)
	}
	checkState(t, f.DB)
	if got, want := gathered(9, 2, 1, ""), "1 of 1: [1 2 3 5] true; 7 of 0: [7] false; 1h0m0s"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := f.Settle("crm", day, state.Settlement{Position: 9, Delivered: []state.Failed{{Seq: 1, Key: "shop-a/a", Batch: 1}}}); err != nil {
		t.Fatal(err)
	}
	checkState(t, f.DB)
	if got, want := gathered(9, 100, 1<<20, ""), "6 of 0: [6 7 9] false; 1h0m0s"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
