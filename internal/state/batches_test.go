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
