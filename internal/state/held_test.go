package state_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/event"
	"syncd/internal/fingerprint"
	"syncd/internal/state"
)

// list is a page of n items with one body each, %d standing for the number.
func list(db *state.DB, n int, body string) state.Page {
	p := pageOf(db)
	for i := range n {
		p.Items = append(p.Items, withBody(question(fmt.Sprintf("q%04d", i), i, ""), strings.ReplaceAll(body, "%d", fmt.Sprint(i))))
	}
	return p
}

// settleAll settles in pieces until it is done, and returns the actions.
func settleAll(t *testing.T, db *state.DB, read uint64, limit int) (actions []state.Action) {
	t.Helper()
	for done := false; !done; {
		var out state.Outcome
		var err error
		if out, done, err = db.SettleHeld(pageOf(db), read, limit); err != nil {
			t.Fatal(err)
		}
		checkState(t, db)
		if len(out.Actions) > limit {
			t.Fatalf("%d items in a piece of %d", len(out.Actions), limit)
		}
		actions = append(actions, out.Actions...)
	}
	return actions
}

func count(actions []state.Action) map[state.Action]int {
	out := make(map[state.Action]int)
	for _, a := range actions {
		out[a]++
	}
	return out
}

// Contract §6: a key that came is held back wherever it was read, and settled at
// the end of a sweep: alone it is an update with what was there before.
func TestHeldUntilSettled(t *testing.T) {
	f := open(t)
	commit(t, f.DB, list(f.DB, 3, `{"id":%d}`))
	for _, walk := range []string{"news", "sweep", "full"} {
		p := list(f.DB, 1, `{"id":%d,"new":null}`)
		p.Walk = walk
		out := commit(t, f.DB, p)
		want := state.ActionHeld
		if walk != "news" {
			want = state.ActionUnchanged // it is held already
		}
		if out.Actions[0] != want || out.Wrote != (walk == "news") {
			t.Fatalf("%s: %+v", walk, out)
		}
	}
	f.reopen()
	if n := len(events(t, f.DB)); n != 3 {
		t.Fatalf("%d events before the end of the sweep", n)
	}
	if got := settleAll(t, f.DB, 3, 10); !slices.Equal(got, []state.Action{state.ActionUpdated}) {
		t.Fatal(got)
	}
	last := events(t, f.DB)[3]
	if last.Type != "wildberries.question.updated" || !strings.HasSuffix(string(last.JSON), `"data":{"item":{"id":0,"new":null},"previous":{"id":0}}}`) {
		t.Fatalf("%s", last.JSON)
	}
	n := f.n
	if out, done, err := f.SettleHeld(pageOf(f.DB), 3, 10); !done || err != nil || out.Wrote || f.n != n {
		t.Fatal(out, done, err)
	}
	if out := commit(t, f.DB, list(f.DB, 1, `{"id":%d,"new":null}`)); out.Wrote {
		t.Fatalf("%+v", out)
	}
}

// What becomes of a held item by the next reading of it.
func TestHeldAndReadAgain(t *testing.T) {
	type reading struct {
		body string
		late bool // asked for before the item was held
		want state.Action
	}
	const first, grown = `{"id":0,"v":1}`, `{"id":0,"v":1,"new":2}`
	for name, test := range map[string]struct {
		readings []reading
		events   []string // ends of those after the first
	}{
		"as on record":             {[]reading{{first, false, "unchanged"}}, nil},
		"as on record, then grown": {[]reading{{first, false, "unchanged"}, {grown, false, "held"}}, []string{`2},"previous":{"id":0,"v":1}}}`}},
		"as on record, but late":   {[]reading{{first, true, "stale"}}, []string{`2},"previous":{"id":0,"v":1}}}`}},
		"changed, but late":        {[]reading{{`{"id":0,"v":2}`, true, "stale"}}, []string{`2},"previous":{"id":0,"v":1}}}`}},
		"changed with the key":     {[]reading{{`{"id":0,"v":2,"new":2}`, false, "updated"}}, []string{`{"item":{"id":0,"v":2,"new":2},"previous":{"id":0,"v":1}}}`}},
		"the key got a value":      {[]reading{{`{"id":0,"v":1,"new":3}`, false, "held"}}, []string{`{"item":{"id":0,"v":1,"new":3},"previous":{"id":0,"v":1}}}`}},
		"another key": {[]reading{{`{"id":0,"v":1,"newer":3}`, false, "held"}, {grown, true, "stale"}},
			[]string{`{"item":{"id":0,"v":1,"newer":3},"previous":{"id":0,"v":1}}}`}},
		"a late answer from in between": {[]reading{{first, false, "unchanged"}, {grown, true, "stale"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			commit(t, f.DB, list(f.DB, 1, first))
			late := f.DB.Stamp()
			if out := commit(t, f.DB, list(f.DB, 1, grown)); out.Actions[0] != state.ActionHeld {
				t.Fatalf("%+v", out)
			}
			for _, r := range test.readings {
				p := list(f.DB, 1, r.body)
				if r.late {
					p.Stamp = late
				}
				if out := commit(t, f.DB, p); out.Actions[0] != r.want {
					t.Fatalf("%s: %+v, want %s", r.body, out, r.want)
				}
			}
			settleAll(t, f.DB, 1, 10)
			got := events(t, f.DB)[1:]
			if len(got) != len(test.events) {
				t.Fatalf("%d events, want %d", len(got), len(test.events))
			}
			for i, want := range test.events {
				if !strings.HasSuffix(string(got[i].JSON), want) {
					t.Errorf("%s, want %s", got[i].JSON, want)
				}
			}
		})
	}
}

// Where nobody can tell what has changed, it is a change.
func TestNotHeld(t *testing.T) {
	for name, grown := range map[string]func(a, b json.RawMessage) ([]string, bool, error){
		"not asked": nil,
		"fails":     func(a, b json.RawMessage) ([]string, bool, error) { return []string{"x"}, true, errBroken },
		"nothing":   func(a, b json.RawMessage) ([]string, bool, error) { return nil, true, nil },
	} {
		f := open(t)
		commit(t, f.DB, list(f.DB, 1, `{"id":0}`))
		p := list(f.DB, 1, `{"id":0,"new":1}`)
		p.Grown = grown
		if out := commit(t, f.DB, p); out.Actions[0] != state.ActionUpdated {
			t.Errorf("%s: %+v", name, out)
		}
	}
}

// Contract §6: more than 20 % of the sweep's items, at least 100, share the path.
func TestAdoption(t *testing.T) {
	for _, test := range []struct {
		held, read int
		adopted    bool
	}{
		{100, 100, true}, {100, 499, true}, {100, 500, false}, {101, 500, true}, {99, 99, false}, {1, 0, false}, {120, 600, false}, {120, 599, true},
	} {
		t.Run(fmt.Sprintf("%d of %d", test.held, test.read), func(t *testing.T) {
			f := open(t)
			commit(t, f.DB, list(f.DB, test.held, `{"id":%d}`))
			commit(t, f.DB, list(f.DB, test.held, `{"id":%d,"a":{"b":1}}`))
			got := count(settleAll(t, f.DB, uint64(test.read), 60))
			want, total := map[state.Action]int{state.ActionUpdated: test.held}, 2*test.held
			if test.adopted {
				want, total = map[state.Action]int{state.ActionAdopted: test.held}, test.held+1
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("%v, want %v", got, want)
			}
			if n := len(events(t, f.DB)); n != total {
				t.Fatalf("%d events, want %d", n, total)
			}
		})
	}
}

// One event tells of each change of the schema, beside those of items that have
// changed otherwise too; versions go on as if nothing had been.
func TestSchemaChanged(t *testing.T) {
	f := open(t)
	if _, err := f.DB.OpenStream(questions, nil, day); err != nil {
		t.Fatal(err)
	}
	old := list(f.DB, 120, `{"id":%d}`)
	for i := range old.Items {
		old.Items[i].Silent = i < 60
	}
	commit(t, f.DB, old)
	p := list(f.DB, 120, `{"id":%d,"a":[],"b":{}}`)
	p.Items[7] = withBody(p.Items[7], `{"id":7,"a":[],"b":{},"only here":0}`)
	p.Items[8] = withBody(p.Items[8], `{"id":8,"a":[]}`)
	commit(t, f.DB, p)
	got := settleAll(t, f.DB, 120, 1000)
	if c := count(got); c[state.ActionAdopted] != 119 || c[state.ActionUpdated] != 1 || got[7] != state.ActionUpdated {
		t.Fatalf("%v", c)
	}
	log := events(t, f.DB)[60:]
	if len(log) != 3 {
		t.Fatalf("%d events", len(log))
	}
	for i, want := range []struct {
		path  string
		count int
	}{{"a", 120}, {"b", 119}} {
		e := log[i]
		id := event.SchemaChangedID("shop-a", "questions", uint64(i+1), want.path)
		data := fmt.Sprintf(`"data":{"account":"shop-a","stream":"questions","path":%q,"count":%d}}`, want.path, want.count)
		if e.ID != id || e.Type != "syncd.schema_changed" || e.Subject != "schema/questions" || e.PartitionKey != "shop-a/schema/questions" || !strings.HasSuffix(string(e.JSON), data) {
			t.Errorf("%s\nwant %s and %s", e.JSON, id, data)
		}
		var at struct{ Time time.Time }
		if err := json.Unmarshal(e.JSON, &at); err != nil || !at.Time.Equal(e.Recorded) {
			t.Errorf("happened at %s, recorded at %s: %v", at.Time, e.Recorded, err)
		}
	}
	// An adopted item is its first version still, and its change the second.
	f.reopen()
	commit(t, f.DB, list(f.DB, 1, `{"id":%d,"a":[1],"b":{}}`))
	last := events(t, f.DB)[63]
	if want := eventID("q0000", 2, `{"id":0,"a":[1],"b":{}}`); last.ID != want || !strings.Contains(string(last.JSON), `"previous":{"id":0,"a":[],"b":{}}`) {
		t.Errorf("%s, want %s", last.JSON, want)
	}
	// A later change of the schema is another event.
	commit(t, f.DB, list(f.DB, 110, `{"id":%d}`))
	settleAll(t, f.DB, 110, 1000)
	want := []string{event.SchemaChangedID("shop-a", "questions", 3, "a"), event.SchemaChangedID("shop-a", "questions", 4, "b"), eventID("q0007", 3, `{"id":7}`)}
	if got := ids(t, f.DB)[64:]; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// More different paths than are counted: those beyond are updates like any other.
func TestManyPaths(t *testing.T) {
	f := open(t)
	commit(t, f.DB, list(f.DB, 1200, `{"id":%d}`))
	p := list(f.DB, 1200, `{"id":%d,"new %d":0}`)
	for i := 1050; i < 1200; i++ {
		p.Items[i] = withBody(p.Items[i], fmt.Sprintf(`{"id":%d,"late":0}`, i))
	}
	commit(t, f.DB, p)
	if c := count(settleAll(t, f.DB, 300, 500)); c[state.ActionUpdated] != 1200 {
		t.Fatalf("%v", c)
	}
}

// What arrives between two pieces of a settlement is treated by its verdict.
func TestHeldWhileSettling(t *testing.T) {
	f := open(t)
	commit(t, f.DB, list(f.DB, 120, `{"id":%d}`))
	p := list(f.DB, 120, `{"id":%d,"a":1}`)
	early := p
	early.Items = p.Items[:100]
	commit(t, f.DB, early)
	if _, done, err := f.SettleHeld(pageOf(f.DB), 100, 90); done || err != nil {
		t.Fatal(done, err)
	}
	p.Stamp = f.DB.Stamp()
	p.Items[115] = withBody(p.Items[115], `{"id":115,"b":1}`)
	commit(t, f.DB, p)
	if c := count(settleAll(t, f.DB, 1<<40, 20)); c[state.ActionAdopted] != 29 || c[state.ActionUpdated] != 1 {
		t.Fatalf("%v", c)
	}
}

// G3, contract §6: whatever commit of a settlement breaks, and however, the
// verdict is the first one's, each event is there once, and no item is left.
func TestSettleCrashMatrix(t *testing.T) {
	for name, breaking := range breakings {
		for broken := range 5 {
			t.Run(fmt.Sprintf("%s at commit %d", name, broken), func(t *testing.T) {
				f := open(t)
				commit(t, f.DB, list(f.DB, 130, `{"id":%d}`))
				p := list(f.DB, 130, `{"id":%d,"new":1}`)
				for i := 100; i < 130; i++ {
					p.Items[i] = withBody(p.Items[i], fmt.Sprintf(`{"id":%d,"new":1,"rare":%d}`, i, i))
				}
				commit(t, f.DB, p)
				n := 0
				f.fault = func(commit func() error) error {
					if n++; n-1 == broken {
						return breaking(commit)
					}
					return commit()
				}
				read := uint64(130)
				for done := false; !done; {
					var err error
					_, done, err = f.SettleHeld(pageOf(f.DB), read, 40)
					checkState(t, f.DB)
					begun, errBegun := f.HasVerdict(questions)
					if errBegun != nil {
						t.Fatal(errBegun)
					}
					switch {
					case errors.Is(err, errBroken):
						f.reopen()
						done = false
					case err != nil || begun == done:
						t.Fatal(begun, done, err)
					}
					if begun {
						read = 1 << 40 // not looked at again
					}
				}
				want := []string{event.SchemaChangedID("shop-a", "questions", 1, "new")}
				for i := 100; i < 130; i++ {
					want = append(want, eventID(fmt.Sprintf("q%04d", i), 2, fmt.Sprintf(`{"id":%d,"new":1,"rare":%d}`, i, i)))
				}
				if got := ids(t, f.DB)[130:]; !slices.Equal(got, want) {
					t.Fatalf("%q\nwant\n%q", got, want)
				}
				if out := commit(t, f.DB, p); out.Wrote {
					t.Fatalf("%v", count(out.Actions))
				}
			})
		}
	}
}

// A held entry that its record has overtaken, which only a file from elsewhere
// has, is dropped.
func TestOvertakenHeldItem(t *testing.T) {
	f := open(t)
	commit(t, f.DB, list(f.DB, 1, `{"id":0}`))
	commit(t, f.DB, list(f.DB, 1, `{"id":0,"new":1}`))
	var entry, key []byte
	held := func(tx *bolt.Tx) *bolt.Bucket {
		return tx.Bucket([]byte("held")).Bucket([]byte("shop-a")).Bucket([]byte("questions"))
	}
	f.edit(func(tx *bolt.Tx) error {
		k, v := held(tx).Cursor().First()
		key, entry = slices.Clone(k), slices.Clone(v)
		return nil
	})
	commit(t, f.DB, list(f.DB, 1, `{"id":1}`))
	f.edit(func(tx *bolt.Tx) error { return held(tx).Put(key, entry) })
	if f.DB.Check() == nil {
		t.Error("Check does not see the held item that is older than its record")
	}
	if got := settleAll(t, f.DB, 1, 10); !slices.Equal(got, []state.Action{state.ActionStale}) || len(events(t, f.DB)) != 2 {
		t.Fatal(got)
	}
}

// A changed list of ignored keys emits nothing by itself: not about records, nor
// about what is held because of such a key.
func TestIgnoreChanges(t *testing.T) {
	ignoring := func(p state.Page, keys ...string) state.Page {
		p.Rules = fingerprint.RulesOf(keys)
		p.Refingerprint = func(b json.RawMessage) (event.Fingerprint, error) { return fingerprint.Of(b, keys) }
		p.Grown = func(a, b json.RawMessage) ([]string, bool, error) { return fingerprint.Grown(a, b, keys) }
		for i := range p.Items {
			p.Items[i].Fingerprint, _ = fingerprint.Of(p.Items[i].Body, keys)
		}
		return p
	}
	f := open(t)
	commit(t, f.DB, list(f.DB, 120, `{"id":%d,"seen":1}`))
	commit(t, f.DB, list(f.DB, 120, `{"id":%d,"seen":1,"new":1}`))
	if out := commit(t, f.DB, ignoring(list(f.DB, 60, `{"id":%d,"seen":2}`), "seen")); out.Events != 0 {
		t.Fatalf("%v", count(out.Actions))
	}
	out, done, err := f.SettleHeld(ignoring(pageOf(f.DB), "new", "seen"), 120, 500)
	if c := count(out.Actions); err != nil || !done || out.Events != 0 || c[state.ActionUnchanged] != 60 || len(c) != 1 {
		t.Fatal(c, done, err)
	}
	checkState(t, f.DB)
	// And back: what is on record is what was there before the key came.
	if out := commit(t, f.DB, list(f.DB, 120, `{"id":%d,"seen":1}`)); out.Events != 0 {
		t.Fatalf("%v", count(out.Actions))
	}
}

// A record of other rules whose body is gone cannot be compared: it is taken over
// silently, and its next change is seen.
func TestOtherRulesWithoutBody(t *testing.T) {
	f := open(t)
	commit(t, f.DB, list(f.DB, 1, `{"id":0}`))
	f.edit(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("records")).Bucket([]byte("shop-a")).Bucket([]byte("questions"))
		k, v := b.Cursor().First()
		head, _, _ := strings.Cut(string(v), `,"body"`)
		return b.Put(slices.Clone(k), []byte(head+"}"))
	})
	checkState(t, f.DB)
	other := func(body string) state.Page {
		p := list(f.DB, 1, body)
		p.Rules = "2"
		return p
	}
	if out := commit(t, f.DB, other(`{"id":0,"v":2}`)); out.Actions[0] != state.ActionAdopted || out.Events != 0 {
		t.Fatalf("%+v", out)
	}
	if out := commit(t, f.DB, other(`{"id":0,"v":2}`)); out.Wrote {
		t.Fatalf("%+v", out)
	}
	if out := commit(t, f.DB, other(`{"id":0,"v":3}`)); out.Actions[0] != state.ActionUpdated {
		t.Fatalf("%+v", out)
	}
	last := events(t, f.DB)[1]
	if last.ID != eventID("q0000", 2, `{"id":0,"v":3}`) || strings.Contains(string(last.JSON), "previous") {
		t.Fatalf("%s", last.JSON)
	}
}

// The fifth is one of the items that a sweep read, however often each was listed:
// 120 of 400 that were read three times are 30 %.
func TestShareIsOfItems(t *testing.T) {
	for _, counts := range []bool{false, true} {
		f := open(t)
		commit(t, f.DB, list(f.DB, 400, `{"id":%d}`))
		commit(t, f.DB, list(f.DB, 120, `{"id":%d,"new":1}`))
		p := pageOf(f.DB)
		if counts {
			p.ReadSince = time.Date(2004, 1, 1, 0, 0, 0, 0, time.UTC)
		}
		out, done, err := f.SettleHeld(p, 1200, 500)
		if !done || err != nil {
			t.Fatal(done, err)
		}
		want := state.ActionUpdated
		if counts {
			want = state.ActionAdopted
		}
		if c := count(out.Actions); c[want] != 120 {
			t.Errorf("counted %v: %v", counts, c)
		}
	}
}
