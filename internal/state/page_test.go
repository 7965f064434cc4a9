package state_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/event"
	"syncd/internal/fingerprint"
	"syncd/internal/state"
)

func eventID(item string, n int, body string) string {
	return fmt.Sprintf("shop-a/questions/%s/%d-%s", item, n, print1(body))
}

// G4 and G6 of what a page does: each action, and the event that it causes.
func TestCommitPageActions(t *testing.T) {
	f := open(t)
	old := question("old", -60, "a")
	old.Silent = true
	out := commit(t, f.DB, pageOf(f.DB, old, question("q", 1, "a")))
	if want := []state.Action{state.ActionSilent, state.ActionCreated}; !reflect.DeepEqual(out.Actions, want) || out.Events != 1 || !out.Wrote {
		t.Fatalf("%+v", out)
	}
	old.Silent = true // still: but it is known now, so its change is news
	changed := question("old", -60, "b")
	changed.Silent = true
	out = commit(t, f.DB, pageOf(f.DB, changed, question("q", 1, "a"), question("q", 1, "b"), question("q", 1, "a")))
	if want := []state.Action{state.ActionUpdated, state.ActionUnchanged, state.ActionUpdated, state.ActionUpdated}; !reflect.DeepEqual(out.Actions, want) {
		t.Fatalf("%+v", out)
	}
	// The state that came back is version 3, not 1.
	want := []string{
		eventID("q", 1, `{"id":"q","text":"a"}`), eventID("old", 2, `{"id":"old","text":"b"}`),
		eventID("q", 2, `{"id":"q","text":"b"}`), eventID("q", 3, `{"id":"q","text":"a"}`),
	}
	if got := ids(t, f.DB); !slices.Equal(got, want) {
		t.Fatalf("ids\n%q, want\n%q", got, want)
	}
	var e struct {
		Type string
		Time time.Time
		Data struct{ Item, Previous json.RawMessage }
	}
	last := events(t, f.DB)[3]
	if err := json.Unmarshal(last.JSON, &e); err != nil {
		t.Fatal(err)
	}
	if e.Type != "wildberries.question.updated" || string(e.Data.Previous) != `{"id":"q","text":"b"}` || string(e.Data.Item) != `{"id":"q","text":"a"}` {
		t.Fatalf("%s", last.JSON)
	}
	if !e.Time.Equal(last.Recorded) {
		t.Errorf("an item without a change time changed at %s, want when it was recorded", e.Time)
	}
}

// An item's own change time is the event's time where it moved.
func TestEventTime(t *testing.T) {
	f := open(t)
	answered := day.Add(time.Hour)
	for i, step := range []struct {
		text    string
		changed time.Time
		want    time.Time
	}{
		{"a", time.Time{}, day.Add(time.Minute)},
		{"b", answered, answered},
		{"c", answered, day.Add(24 * time.Hour)},
		{"d", answered.Add(time.Second), answered.Add(time.Second)},
	} {
		q := question("q", 1, step.text)
		q.Changed = step.changed
		commit(t, f.DB, pageOf(f.DB, q))
		var e struct{ Time time.Time }
		if err := json.Unmarshal(events(t, f.DB)[i].JSON, &e); err != nil || !e.Time.Equal(step.want) {
			t.Errorf("version %d happened at %s, want %s (%v)", i+1, e.Time, step.want, err)
		}
	}
}

func TestImmutable(t *testing.T) {
	f := open(t)
	it := question("chat/event", 1, "a")
	it.Immutable, it.Fingerprint = true, event.Fingerprint{}
	commit(t, f.DB, pageOf(f.DB, it))
	it.Body = json.RawMessage(`{"other":1}`)
	if out := commit(t, f.DB, pageOf(f.DB, it)); out.Wrote || out.Actions[0] != state.ActionUnchanged {
		t.Fatalf("%+v", out)
	}
	if got := ids(t, f.DB); !slices.Equal(got, []string{"shop-a/questions/chat/event"}) {
		t.Fatal(got)
	}
}

// G3: a reading whose request was sent before the one that gave the record its
// version changes nothing, in whatever order they come back.
func TestStaleReading(t *testing.T) {
	f := open(t)
	early := pageOf(f.DB, question("q", 1, "as it was"))
	commit(t, f.DB, pageOf(f.DB, question("q", 1, "as it is")))
	early.Keep = true
	if out := commit(t, f.DB, early); out.Events != 0 || out.Actions[0] != state.ActionStale {
		t.Fatalf("%+v", out)
	}
}

// Stamps go on above everything that a record or a staged item carries, in the
// next process too, or its readings would all be stale.
func TestStampsAcrossReopen(t *testing.T) {
	f := open(t)
	for range 50 {
		f.DB.Stamp()
	}
	p := pageOf(f.DB, question("q", 1, "a"))
	p.Staged = true
	commit(t, f.DB, p)
	f.reopen()
	if s := f.DB.Stamp(); s <= p.Stamp {
		t.Fatalf("stamp %d after a staged item with %d", s, p.Stamp)
	}
	last := pageOf(f.DB)
	last.Staged, last.Final = true, true
	commit(t, f.DB, last)
	if _, _, err := f.DB.CommitStaged(pageOf(f.DB), 10); err != nil {
		t.Fatal(err)
	}
	p = pageOf(f.DB, question("q", 1, "b"))
	p.Now = p.Now.Add(-48 * time.Hour) // the clock was set back: no reading gets older by that
	if out := commit(t, f.DB, p); out.Actions[0] != state.ActionUpdated {
		t.Fatalf("%+v", out)
	}
}

// An item is found by its id alone when its time was missing, or another one.
func TestFoundByID(t *testing.T) {
	f := open(t)
	none, moved, later := question("q", 1, "a"), question("q", 2, "a"), question("q", 3, "b")
	none.Created = time.Time{}
	commit(t, f.DB, pageOf(f.DB, none))
	for _, it := range []state.Item{none, moved, question("q", 1, "a")} {
		if out := commit(t, f.DB, pageOf(f.DB, it)); out.Wrote {
			t.Fatalf("%s: %+v", it.Created, out)
		}
	}
	commit(t, f.DB, pageOf(f.DB, later))
	if got, want := ids(t, f.DB)[1], eventID("q", 2, `{"id":"q","text":"b"}`); got != want {
		t.Fatalf("%s, want %s", got, want)
	}
}

// Ids that end in a number are found alike, and ones with the same number told apart.
func TestFoundByNumber(t *testing.T) {
	f := open(t)
	ids := []string{"7", "07", "a/7", "b/7", "a/18446744073709551615", "a/99999999999999999999", "a/", "8"}
	for i, id := range ids {
		if out := commit(t, f.DB, pageOf(f.DB, question(id, i, "a"))); out.Actions[0] != state.ActionCreated {
			t.Fatalf("%s: %+v", id, out)
		}
	}
	for i, id := range ids {
		if out := commit(t, f.DB, pageOf(f.DB, question(id, 100+i, "a"))); out.Wrote {
			t.Errorf("%s is not found under another time: %+v", id, out)
		}
	}
	checkState(t, f.DB)
}

// New items whose ids ascend, as most numbers of marketplaces do, cost few pages: a
// commit writes each page that it has changed.
func TestAscendingIDsAreNeighbours(t *testing.T) {
	grown := func(id func(i int) string) int64 {
		f := open(t)
		n := 0
		page := func(size int) {
			var items []state.Item
			for range size {
				it := question(id(n), 0, "a")
				it.Created = day.Add(time.Duration(n) * time.Second)
				items, n = append(items, it), n+1
			}
			commit(t, f.DB, pageOf(f.DB, items...))
		}
		for range 7 {
			page(1000)
		}
		return f.DB.PagesOf(func() { page(100) })
	}
	numbers := grown(func(i int) string { return fmt.Sprint("review/", 1_000_000+i) })
	words := grown(func(i int) string { return fmt.Sprint("review/x", 1_000_000+i) })
	t.Logf("a page of 100 new items: %d pages with ids that ascend, %d with others", numbers, words)
	if numbers*2 > words {
		t.Errorf("a page of 100 new items writes %d pages with ids that ascend, and %d with others", numbers, words)
	}
}

// A history that is read backwards, a few items at a time, fills its pages by half as
// any other: the file is no larger for it.
func TestDescendingPagesAreFilled(t *testing.T) {
	f := open(t)
	for i := 800; i > 0; i -= 5 {
		var items []state.Item
		for k := range 5 {
			it := question(fmt.Sprint("review/", 1_000_000+i-k), 0, "a")
			it.Created, it.Silent = day.Add(time.Duration(i-k)*time.Second), true
			items = append(items, it)
		}
		commit(t, f.DB, pageOf(f.DB, items...))
	}
	for name, used := range f.DB.Filled("ids", "records") {
		if used < 45 {
			t.Errorf("%s: %d %% of its pages are used", name, used)
		}
	}
}

// Two ids with one hash share an entry of ids; each finds its own record.
func TestHashCollision(t *testing.T) {
	f := open(t)
	commit(t, f.DB, pageOf(f.DB, question("q", 1, "a")))
	f.DB.Close()
	b, err := bolt.Open(f.cfg.Path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = b.Update(func(tx *bolt.Tx) error {
		entry := tx.Bucket([]byte("ids")).Bucket([]byte("shop-a")).Bucket([]byte("questions"))
		own := bytes.Clone(entry.Get(idHash("q")))
		// As if another id had been filed first, at noon.
		return entry.Put(idHash("q"), append(binary.BigEndian.AppendUint64(nil, uint64(day.UnixMilli())), own...))
	})
	if err = errors.Join(err, b.Close()); err != nil {
		t.Fatal(err)
	}
	f.DB, err = state.Open(f.cfg)
	if err != nil {
		t.Fatal(err)
	}
	q := question("q", 5, "a")
	if out, err := f.DB.CommitPage(pageOf(f.DB, q)); err != nil || out.Wrote {
		t.Fatalf("%+v %v", out, err)
	}
	if f.DB.Check() == nil {
		t.Error("Check does not see the entry that leads nowhere")
	}
}

// A poll that finds nothing new writes nothing, unless it must save the cursor.
func TestNothingNewWritesNothing(t *testing.T) {
	f := open(t)
	commit(t, f.DB, pageOf(f.DB, question("q", 1, "a")))
	before, n := f.bytes(), f.n
	p := pageOf(f.DB, question("q", 1, "a"))
	p.Cursor = []byte("further")
	if out := commit(t, f.DB, p); out.Wrote || len(out.Actions) != 1 {
		t.Fatalf("%+v", out)
	}
	if out := commit(t, f.DB, pageOf(f.DB)); out.Wrote {
		t.Fatalf("%+v", out)
	}
	if f.n != n || !bytes.Equal(f.bytes(), before) {
		t.Fatal("the file was written")
	}
	p.Keep = true
	if out := commit(t, f.DB, p); !out.Wrote || cursor(t, f.DB) != "further" {
		t.Fatalf("%+v, cursor %s", out, cursor(t, f.DB))
	}
}

// Records made under other rules are compared under today's, so a new version of
// syncd emits nothing by itself, and a change is still seen.
func TestOtherRules(t *testing.T) {
	f := open(t)
	commit(t, f.DB, pageOf(f.DB, question("q", 1, "a")))
	newRules := func(text string) state.Page {
		q := question("q", 1, text)
		of := func(b json.RawMessage) (event.Fingerprint, error) {
			return fingerprint.Of(json.RawMessage(`["rules 2",`+string(b)+`]`), nil)
		}
		q.Fingerprint, _ = of(q.Body)
		p := pageOf(f.DB, q)
		p.Rules, p.Refingerprint = "2", of
		return p
	}
	if out := commit(t, f.DB, newRules("a")); out.Events != 0 || out.Actions[0] != state.ActionUnchanged {
		t.Fatalf("%+v", out)
	}
	if out := commit(t, f.DB, newRules("b")); out.Actions[0] != state.ActionUpdated {
		t.Fatalf("%+v", out)
	}
}

// data.item leaves as the marketplace sent it: unknown fields, order, number
// spelling and escapes, also by way of the stage and as previous.
func TestBodiesAreFaithful(t *testing.T) {
	bodies := []string{
		`{"z":1.50e+01,"a":"<b>&amp;</b>","é":"\u00e9\/\u2028","unknown":[null,{}],"big":123456789012345678901234567890}`,
		`{"z":"` + "\u2028" + ` raw","dup":1,"dup":2,"neg":-0.0}`,
		`[]`, `"text"`,
	}
	for _, staged := range []bool{false, true} {
		f := open(t)
		for i, body := range bodies {
			it := question("q", 1, "")
			it.Body, it.Fingerprint = json.RawMessage(body), print1(body)
			p := pageOf(f.DB, it)
			p.Staged, p.Final = staged, staged
			commit(t, f.DB, p)
			if staged {
				if _, done, err := f.DB.CommitStaged(pageOf(f.DB), 10); err != nil || !done {
					t.Fatal(done, err)
				}
			}
			e := events(t, f.DB)[i]
			tail := `"data":{"item":` + body
			if i > 0 {
				tail += `,"previous":` + bodies[i-1]
			}
			if !bytes.HasSuffix(e.JSON, []byte(tail+"}}")) {
				t.Errorf("staged %t: %s\ndoes not end in %s", staged, e.JSON, tail)
			}
		}
	}
}

// G3: whatever commit fails, and however, the page is there as a whole or not at
// all, and once it is read again everything was emitted once.
func TestPageCrashMatrix(t *testing.T) {
	for name, breaking := range breakings {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			commit(t, f.DB, pageOf(f.DB, question("a", 1, "a")))
			second := pageOf(f.DB, question("a", 1, "changed"), question("b", 2, "b"))
			second.Cursor = []byte("second")
			f.fault = breaking
			if _, err := f.DB.CommitPage(second); !errors.Is(err, errBroken) {
				t.Fatal(err)
			}
			f.fault = nil
			checkState(t, f.DB)
			if n := len(events(t, f.DB)); (n == 3) != (cursor(t, f.DB) == "second") || n == 2 {
				t.Fatalf("%d events with cursor %q", n, cursor(t, f.DB))
			}
			f.reopen()
			again := second
			again.Stamp, again.Keep = f.DB.Stamp(), true
			commit(t, f.DB, again)
			want := []string{eventID("a", 1, `{"id":"a","text":"a"}`), eventID("a", 2, `{"id":"a","text":"changed"}`), eventID("b", 1, `{"id":"b","text":"b"}`)}
			if got := ids(t, f.DB); !slices.Equal(got, want) || cursor(t, f.DB) != "second" {
				t.Fatalf("%q, cursor %s", got, cursor(t, f.DB))
			}
		})
	}
}

// G3: a staged walk is committed in the order of time, in bounded pieces; a crash
// between any two of them, in either way, continues there.
func TestStagedWalk(t *testing.T) {
	for name, breaking := range breakings {
		for broken := range 8 {
			t.Run(fmt.Sprintf("%s at commit %d", name, broken), func(t *testing.T) {
				f := open(t)
				if _, err := f.DB.OpenStream(questions, nil, day); err != nil {
					t.Fatal(err)
				}
				n := 0
				f.fault = func(commit func() error) error {
					if n++; n-1 == broken {
						return breaking(commit)
					}
					return commit()
				}
				again := func(step func() error) {
					t.Helper()
					for try := 0; ; try++ {
						err := step()
						checkState(t, f.DB)
						f.reopen()
						if err == nil {
							return
						}
						if !errors.Is(err, errBroken) || try > 0 {
							t.Fatal(err)
						}
					}
				}
				for i := range 3 { // newest first, as a moving list is read
					again(func() error {
						p := pageOf(f.DB, question(fmt.Sprint("q", 9-2*i), 9-2*i, "a"), question(fmt.Sprint("q", 8-2*i), 8-2*i, "a"))
						p.Staged, p.Final, p.Cursor = true, i == 2, fmt.Appendf(nil, "page %d", i)
						_, err := f.DB.CommitPage(p)
						return err
					})
				}
				if len(events(t, f.DB)) != 0 || cursor(t, f.DB) != "page 1" {
					t.Fatalf("before the end: %q, cursor %q", ids(t, f.DB), cursor(t, f.DB))
				}
				for done := false; !done; {
					again(func() error {
						staged, _, err := f.DB.HasStaged(questions, "news")
						if err != nil || !staged {
							done = true
							return err
						}
						p := pageOf(f.DB)
						p.Walked = true
						_, done, err = f.DB.CommitStaged(p, 2)
						return err
					})
					if len(events(t, f.DB)) < 6 && cursor(t, f.DB) != "page 1" {
						t.Fatal("the cursor is ahead of the items")
					}
				}
				var want []string
				for i := 4; i <= 9; i++ {
					want = append(want, eventID(fmt.Sprint("q", i), 1, fmt.Sprintf(`{"id":"q%d","text":"a"}`, i)))
				}
				if got := ids(t, f.DB); !slices.Equal(got, want) {
					t.Fatalf("%q", got)
				}
				s, err := f.DB.OpenStream(questions, nil, day)
				if err != nil || string(s.Walks["news"].Cursor) != "page 2" || !s.Walked {
					t.Fatalf("%+v %v", s, err)
				}
			})
		}
	}
}
