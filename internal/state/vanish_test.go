package state_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/state"
)

// shown are the hashes of what a run has shown.
func shown(ids ...string) map[uint64]struct{} {
	out := make(map[uint64]struct{})
	for _, id := range ids {
		out[state.IDHash(id)] = struct{}{}
	}
	return out
}

// vanish goes through all records after a run that began at a stamp.
func vanish(t *testing.T, db *state.DB, began uint64, seen map[uint64]struct{}) (actions []state.Action, wrote bool) {
	t.Helper()
	after := ""
	for done := false; !done; {
		var out state.Outcome
		var err error
		if out, after, done, err = db.Vanish(pageOf(db), began, seen, 2, after); err != nil {
			t.Fatal(err)
		}
		checkState(t, db)
		actions, wrote = append(actions, out.Actions...), wrote || out.Wrote
	}
	return actions, wrote
}

// Contract §5: absent from two whole runs in a row is an event; read again later,
// the item is created again, and its versions go on.
func TestVanish(t *testing.T) {
	f := open(t)
	silent := question("q2", 2, "a")
	silent.Silent = true
	commit(t, f.DB, pageOf(f.DB, question("q1", 1, "a"), silent, question("q3", 3, "a")))
	for run, want := range []struct {
		actions []state.Action
		wrote   bool
	}{{nil, true}, {[]state.Action{"removed", "removed"}, true}, {nil, false}} {
		f.reopen()
		if got, wrote := vanish(t, f.DB, f.DB.Stamp(), shown("q3")); !slices.Equal(got, want.actions) || wrote != want.wrote {
			t.Fatalf("run %d: %q, wrote %t", run, got, wrote)
		}
	}
	log := events(t, f.DB)[2:]
	if len(log) != 2 {
		t.Fatalf("%d events", len(log))
	}
	for i, e := range log {
		id := fmt.Sprint("q", i+1)
		body := fmt.Sprintf(`{"id":%q,"text":"a"}`, id)
		if e.ID != eventID(id, 2, body) || e.Type != "wildberries.question.removed" || e.Subject != "question/"+id ||
			!strings.HasSuffix(string(e.JSON), `"data":{"item":`+body+`}}`) || !strings.Contains(string(e.JSON), `"time":"2026-02-03T12:00:00Z"`) {
			t.Errorf("%s", e.JSON)
		}
	}
	again := question("q1", 1, "a")
	again.Silent = true // it would be, if it had never been seen
	if out := commit(t, f.DB, pageOf(f.DB, again)); out.Actions[0] != state.ActionCreated {
		t.Fatalf("%+v", out)
	}
	last := events(t, f.DB)[4]
	if last.ID != eventID("q1", 3, `{"id":"q1","text":"a"}`) || last.Type != "wildberries.question.created" || strings.Contains(string(last.JSON), "previous") {
		t.Fatalf("%s", last.JSON)
	}
}

// Two runs in a row: whatever shows the item between takes the mark away, be it
// the same walk or another.
func TestVanishInARow(t *testing.T) {
	for name, between := range map[string]func(t *testing.T, db *state.DB){
		"a run shows it": func(t *testing.T, db *state.DB) {
			if got, wrote := vanish(t, db, db.Stamp(), shown("q")); len(got) > 0 || !wrote {
				t.Fatal(got, wrote)
			}
		},
		"a page shows it": func(t *testing.T, db *state.DB) {
			if out := commit(t, db, pageOf(db, question("q", 1, "a"))); out.Actions[0] != state.ActionUnchanged || !out.Wrote {
				t.Fatalf("%+v", out)
			}
		},
		"a page shows it with another key": func(t *testing.T, db *state.DB) {
			commit(t, db, pageOf(db, withBody(question("q", 1, "a"), `{"id":"q","text":"a","new":1}`)))
		},
		"a page shows it changed": func(t *testing.T, db *state.DB) { commit(t, db, pageOf(db, question("q", 1, "b"))) },
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			commit(t, f.DB, pageOf(f.DB, question("q", 1, "a")))
			vanish(t, f.DB, f.DB.Stamp(), nil)
			between(t, f.DB)
			for run, want := range []int{0, 1} {
				if got, _ := vanish(t, f.DB, f.DB.Stamp(), nil); len(got) != want {
					t.Fatalf("run %d after it: %q", run, got)
				}
			}
		})
	}
}

// A run gone through twice, as after a crash, is one run.
func TestVanishOfOneRun(t *testing.T) {
	f := open(t)
	commit(t, f.DB, pageOf(f.DB, question("q", 1, "a")))
	began := f.DB.Stamp()
	for i := range 3 {
		if got, wrote := vanish(t, f.DB, began, nil); len(got) > 0 || wrote != (i == 0) {
			t.Fatal(i, got, wrote)
		}
	}
}

// What was read after the run began is not missing from it, and what was read
// before it was removed does not bring it back.
func TestVanishAndLateReadings(t *testing.T) {
	f := open(t)
	commit(t, f.DB, pageOf(f.DB, question("old", 1, "a"), question("held", 2, "a")))
	vanish(t, f.DB, f.DB.Stamp(), nil)
	late, began := pageOf(f.DB, question("old", 1, "a"), question("old", 1, "b")), f.DB.Stamp()
	commit(t, f.DB, pageOf(f.DB, question("new", 3, "a"), withBody(question("held", 2, "a"), `{"id":"held","text":"a","new":1}`)))
	if got, _ := vanish(t, f.DB, began, nil); len(got) != 1 {
		t.Fatal(got)
	}
	if out := commit(t, f.DB, late); out.Events != 0 {
		t.Fatalf("%+v", out)
	}
	if n := len(events(t, f.DB)); n != 4 {
		t.Fatalf("%d events", n)
	}
}

// An item that was held back is removed as it was last seen, one without a body as
// null, and immutable items are never missed.
func TestVanishedBodies(t *testing.T) {
	f := open(t)
	immutable := question("m", 3, "a")
	immutable.Immutable = true
	commit(t, f.DB, pageOf(f.DB, question("held", 1, "a"), question("bare", 2, "a"), immutable))
	commit(t, f.DB, pageOf(f.DB, withBody(question("held", 1, "a"), `{"id":"held","text":"a","new":1}`)))
	f.edit(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("records")).Bucket([]byte("shop-a")).Bucket([]byte("questions"))
		c := b.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if head, _, _ := strings.Cut(string(v), `,"body"`); string(k[8:]) == "bare" {
				return b.Put(slices.Clone(k), []byte(head+"}"))
			}
		}
		return errBroken
	})
	vanish(t, f.DB, f.DB.Stamp(), nil)
	if got, _ := vanish(t, f.DB, f.DB.Stamp(), nil); len(got) != 2 {
		t.Fatal(got)
	}
	log := events(t, f.DB)[3:]
	for i, want := range []struct{ id, body string }{{eventID("held", 2, `{"id":"held","text":"a","new":1}`), `{"id":"held","text":"a","new":1}`},
		{eventID("bare", 2, `{"id":"bare","text":"a"}`), "null"}} {
		if log[i].ID != want.id || !strings.HasSuffix(string(log[i].JSON), `"data":{"item":`+want.body+`}}`) {
			t.Errorf("%s, want %s", log[i].JSON, want.body)
		}
	}
	if out, done, err := f.SettleHeld(pageOf(f.DB), 3, 10); !done || err != nil || out.Wrote {
		t.Errorf("something is held still: %+v %v", out, err)
	}
}

// Whatever commit breaks, and however: each item is removed once.
func TestVanishCrashMatrix(t *testing.T) {
	for name, breaking := range breakings {
		for broken := range 5 {
			t.Run(fmt.Sprintf("%s at commit %d", name, broken), func(t *testing.T) {
				f := open(t)
				p := pageOf(f.DB)
				for i := range 6 {
					p.Items = append(p.Items, question(fmt.Sprint("q", i), i, "a"))
				}
				commit(t, f.DB, p)
				n := 0
				f.fault = func(commit func() error) error {
					if n++; n-1 == broken {
						return breaking(commit)
					}
					return commit()
				}
				for range 2 {
					began := f.DB.Stamp()
					after := ""
					for done := false; !done; {
						_, next, d, err := f.Vanish(pageOf(f.DB), began, shown("q2"), 2, after)
						checkState(t, f.DB)
						if err != nil {
							if !errors.Is(err, errBroken) || d || next != after {
								t.Fatal(next, d, err)
							}
							// The process dies, and what it had in memory with it: here the same
							// run is gone through again from its beginning.
							f.reopen()
							next, d = "", false
						}
						after, done = next, d
					}
				}
				var want []string
				for i := range 6 {
					if i != 2 {
						want = append(want, eventID(fmt.Sprint("q", i), 2, fmt.Sprintf(`{"id":"q%d","text":"a"}`, i)))
					}
				}
				if got := ids(t, f.DB)[6:]; !slices.Equal(got, want) {
					t.Fatalf("%q, want %q", got, want)
				}
			})
		}
	}
}
