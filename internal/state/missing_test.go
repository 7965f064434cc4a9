package state_test

import (
	"fmt"
	"slices"
	"testing"

	"syncd/internal/state"
)

// What a run did not show is handed out in the order of time, in pieces, without
// what was read since it began.
func TestMissing(t *testing.T) {
	f := open(t)
	var items []state.Item
	for i := range 6 {
		items = append(items, question(fmt.Sprint("q", i), i, "a"))
	}
	immutable := question("message", 1, "a")
	immutable.Immutable = true
	commit(t, f.DB, pageOf(f.DB, append(items, immutable)...))
	commit(t, f.DB, pageOf(f.DB, withBody(items[4], `{"id":"q4","new":1,"text":"a"}`))) // held back
	began := f.DB.Stamp()
	commit(t, f.DB, pageOf(f.DB, withBody(items[2], `{"id":"q2","text":"of a later reading"}`)))
	shown := []uint64{state.IDHash("q0"), state.IDHash("q5")}
	slices.Sort(shown)
	for limit := 1; limit < 8; limit++ {
		var got []string
		after := ""
		for {
			found, next, err := f.DB.Missing(questions, began, shown, limit, after)
			if err != nil || len(found) > limit {
				t.Fatal(len(found), err)
			}
			for _, it := range found {
				got = append(got, it.ID+" "+string(it.Body))
			}
			if after = next; after == "" {
				break
			}
		}
		want := []string{`q1 {"id":"q1","text":"a"}`, `q3 {"id":"q3","text":"a"}`, `q4 {"id":"q4","new":1,"text":"a"}`}
		if !slices.Equal(got, want) {
			t.Errorf("by %d: %q, want %q", limit, got, want)
		}
	}
	if found, next, err := f.DB.Missing(answers, began, nil, 10, ""); len(found) > 0 || next != "" || err != nil {
		t.Error(found, next, err)
	}
}
