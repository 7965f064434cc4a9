package state_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"syncd/internal/state"
)

func stream(t *testing.T, db *state.DB) state.Stream {
	t.Helper()
	s, err := db.OpenStream(questions, nil, day)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantWalk checks where a walk stands, in this process and in the next.
func wantWalk(t *testing.T, f *file, walk, want string) {
	t.Helper()
	for range 2 {
		w := stream(t, f.DB).Walks[walk]
		text := fmt.Sprintf("%q read %d", w.Cursor, w.Read)
		if !w.Done.IsZero() {
			text += fmt.Sprintf(", done %s after %s", w.Done.Format(time.TimeOnly), w.Done.Sub(w.Began))
		}
		if text != want {
			t.Fatalf("%s stands at %s, want %s", walk, text, want)
		}
		f.reopen()
	}
}

// A run's count is saved with its cursor and only with it, and begins anew after
// the run's end; when the last complete one was is kept.
func TestWalkState(t *testing.T) {
	f := open(t)
	page := func(cursor string, read int, items ...state.Item) state.Page {
		p := pageOf(f.DB, items...)
		p.Walk, p.Cursor, p.Read, p.Now = "full", []byte(cursor), read, day
		return p
	}
	commit(t, f.DB, page("1", 3, question("q", 1, "a")))
	wantWalk(t, f, "full", `"1" read 3`)
	if out := commit(t, f.DB, page("2", 4, question("q", 1, "a"))); out.Wrote {
		t.Fatalf("%+v", out)
	}
	wantWalk(t, f, "full", `"1" read 3`)
	p := page("3", 9)
	p.Keep = true
	commit(t, f.DB, p)
	wantWalk(t, f, "full", `"3" read 12`)
	p = page("4", 5)
	p.Done, p.Began = true, day.Add(-time.Hour)
	if out := commit(t, f.DB, p); !out.Wrote {
		t.Fatal("the end of a run was not saved")
	}
	wantWalk(t, f, "full", `"4" read 0, done 12:00:00 after 1h0m0s`)
	p = page("5", 2)
	p.Keep = true
	commit(t, f.DB, p)
	wantWalk(t, f, "full", `"5" read 2, done 12:00:00 after 1h0m0s`)
	if err := f.DB.SetCursor(questions, "full", []byte("skipped")); err != nil {
		t.Fatal(err)
	}
	wantWalk(t, f, "full", `"skipped" read 2, done 12:00:00 after 1h0m0s`)
	if err := f.DB.SetCursor(questions, "full", nil); err != nil {
		t.Fatal(err)
	}
	if w := stream(t, f.DB).Walks["full"]; w.Cursor != nil {
		t.Fatalf("%q", w.Cursor)
	}
	if w := stream(t, f.DB).Walks; len(w) != 1 {
		t.Fatalf("other walks have moved: %v", w)
	}
	checkState(t, f.DB)
}

// A staged run ends with its last item and not before, as its last page said.
func TestStagedRunEnds(t *testing.T) {
	f := open(t)
	for i := range 2 {
		p := pageOf(f.DB, question(fmt.Sprint("q", i), i, "a"))
		p.Cursor, p.Staged, p.Read = []byte("page"), true, 1
		if i == 1 {
			p.Cursor, p.Final, p.Done, p.Began = []byte("end"), true, true, day.Add(-time.Minute)
		}
		commit(t, f.DB, p)
	}
	wantWalk(t, f, "news", `"page" read 1`)
	for i, want := range []string{`"page" read 1`, `"page" read 1`, `"end" read 0, done 12:00:00 after 1m0s`} {
		p := pageOf(f.DB)
		p.Done, p.Began, p.Now = true, day.Add(-time.Second), day
		if _, done, err := f.DB.CommitStaged(p, 1); err != nil || done != (i == 2) {
			t.Fatal(i, done, err)
		}
		checkState(t, f.DB)
		wantWalk(t, f, "news", want)
	}
}

func ask(t *testing.T, db *state.DB, since, now time.Time) state.Backfill {
	t.Helper()
	b, err := db.AskBackfill(questions, since, now)
	if err != nil {
		t.Fatal(err)
	}
	checkState(t, db)
	return b
}

func backfillPage(db *state.DB, asked state.Backfill, items ...state.Item) state.Page {
	p := pageOf(db, items...)
	for i := range p.Items {
		p.Items[i].Backfill = true
	}
	p.Walk, p.Unemitted, p.Asked, p.Cursor = "backfill", true, asked.Asked, []byte("going on")
	return p
}

// A request is durable until its walk is done; another one meanwhile only makes it
// reach further back.
func TestAskBackfill(t *testing.T) {
	f := open(t)
	if s := stream(t, f.DB); s.Backfill != nil {
		t.Fatal(s.Backfill)
	}
	hour := func(n int) time.Time { return day.Add(time.Duration(n) * time.Hour) }
	first := ask(t, f.DB, hour(-2), day)
	if !first.Since.Equal(hour(-2)) || !first.Asked.Equal(day) {
		t.Fatal(first)
	}
	commit(t, f.DB, backfillPage(f.DB, first, question("q", 1, "a")))
	f.reopen()
	n := f.n
	for _, since := range []time.Time{hour(-2), hour(-1)} {
		if got := ask(t, f.DB, since, hour(1)); got != first || f.n != n {
			t.Fatal(got)
		}
	}
	wantWalk(t, f, "backfill", `"going on" read 0`)

	// Further back: the walk begins anew, and pages of the one before neither move
	// it nor end it, though their items count.
	further := ask(t, f.DB, hour(-3), day)
	if !further.Since.Equal(hour(-3)) || !further.Asked.After(first.Asked) {
		t.Fatal(further)
	}
	late := backfillPage(f.DB, first, question("q2", 2, "a"))
	late.Done = true
	if out := commit(t, f.DB, late); out.Events != 1 {
		t.Fatalf("%+v", out)
	}
	s := stream(t, f.DB)
	if s.Backfill == nil || *s.Backfill != further || s.Walks["backfill"].Cursor != nil {
		t.Fatalf("%+v", s)
	}
	if got := ask(t, f.DB, time.Time{}, day); !got.Since.IsZero() || !got.Asked.After(further.Asked) {
		t.Fatal("not the beginning:", got)
	}
	if got := ask(t, f.DB, time.Unix(-5, 0), day); !got.Since.IsZero() {
		t.Fatal(got)
	}

	last := backfillPage(f.DB, *stream(t, f.DB).Backfill)
	last.Done, last.Began = true, day
	commit(t, f.DB, last)
	f.reopen()
	if s = stream(t, f.DB); s.Backfill != nil || s.Walks["backfill"].Cursor != nil || s.Walks["backfill"].Done.IsZero() {
		t.Fatalf("%+v", s)
	}
	late.Stamp = f.DB.Stamp()
	late.Done, late.Keep = false, true
	commit(t, f.DB, late)
	if s = stream(t, f.DB); s.Walks["backfill"].Cursor != nil {
		t.Fatal("a page of a request that is over has moved the walk")
	}
}

// The end of a staged backfill does not answer a request that was made to reach
// further back after its last page.
func TestAskBackfillWhileStaged(t *testing.T) {
	f := open(t)
	p := backfillPage(f.DB, ask(t, f.DB, day.Add(-time.Hour), day), question("q", 1, "a"))
	p.Staged, p.Final, p.Done = true, true, true
	commit(t, f.DB, p)
	further := ask(t, f.DB, time.Time{}, day)
	f.reopen()
	end := pageOf(f.DB)
	end.Walk, end.Unemitted, end.Done = "backfill", true, true
	if out, done, err := f.DB.CommitStaged(end, 10); err != nil || !done || out.Events != 1 {
		t.Fatal(out, done, err)
	}
	if s := stream(t, f.DB); s.Backfill == nil || *s.Backfill != further || s.Walks["backfill"].Cursor != nil {
		t.Fatalf("%+v", s)
	}
}

// Contract §3: a backfill emits `created` for items that were never in an event,
// and `updated` for changes, and says so.
func TestBackfillActions(t *testing.T) {
	silent := func(it state.Item) state.Item {
		it.Silent = true
		return it
	}
	immutable := func(it state.Item) state.Item {
		it.Immutable = true
		return it
	}
	for name, test := range map[string]struct {
		before []state.Item
		item   state.Item
		want   state.Action
		event  string // its id after the item's; empty: none
	}{
		"unknown":                 {nil, question("q", 1, "a"), "created", `/1-`},
		"unknown, and not wanted": {nil, silent(question("q", 1, "a")), "silent", ``},
		"silent":                  {[]state.Item{silent(question("q", 1, "a"))}, question("q", 1, "a"), "created", `/1-`},
		"silent, not wanted":      {[]state.Item{silent(question("q", 1, "a"))}, silent(question("q", 1, "a")), "unchanged", ``},
		"silent and changed":      {[]state.Item{silent(question("q", 1, "a"))}, question("q", 1, "b"), "created", `/2-`},
		"silent with a new key":   {[]state.Item{silent(question("q", 1, "a"))}, withBody(question("q", 1, ""), `{"id":"q","text":"a","new":0}`), "created", `/2-`},
		"silent and immutable":    {[]state.Item{silent(immutable(question("q", 1, "a")))}, immutable(question("q", 1, "a")), "created", `q`},
		"emitted":                 {[]state.Item{question("q", 1, "a")}, question("q", 1, "a"), "unchanged", ``},
		"emitted and changed":     {[]state.Item{question("q", 1, "a")}, question("q", 1, "b"), "updated", `/2-`},
		"emitted by its change":   {[]state.Item{silent(question("q", 1, "a")), question("q", 1, "b")}, question("q", 1, "b"), "unchanged", ``},
		"emitted, immutable":      {[]state.Item{immutable(question("q", 1, "a"))}, immutable(question("q", 1, "a")), "unchanged", ``},
	} {
		t.Run(name, func(t *testing.T) {
			for _, staged := range []bool{false, true} {
				f := open(t)
				commit(t, f.DB, pageOf(f.DB, test.before...))
				n := len(events(t, f.DB))
				p := backfillPage(f.DB, ask(t, f.DB, time.Time{}, day), test.item, test.item) // a shifted list shows it twice
				p.Staged, p.Final = staged, staged
				out := commit(t, f.DB, p)
				if staged {
					var err error
					p.Items = nil
					if out, _, err = f.DB.CommitStaged(p, 10); err != nil {
						t.Fatal(err)
					}
				}
				if out.Actions[0] != test.want || len(out.Actions) > 1 && test.want != state.ActionSilent && out.Actions[1] != state.ActionUnchanged {
					t.Fatalf("%+v", out)
				}
				log := events(t, f.DB)[n:]
				if len(log) != min(len(test.event), 1) {
					t.Fatalf("%d events", len(log))
				}
				if len(log) == 0 {
					continue
				}
				if e := log[0]; !e.Backfill || !strings.Contains(e.ID, test.event) || !strings.HasSuffix(e.Type, string(test.want)) ||
					!strings.Contains(string(e.JSON), `"data":{"item":`+string(test.item.Body)) {
					t.Errorf("%s", e.JSON)
				}
				if out := commit(t, f.DB, pageOf(f.DB, test.item)); out.Wrote {
					t.Errorf("read again: %+v", out)
				}
			}
		})
	}
}

// An item that the live stream recorded silently while the backfill's answer was
// on its way is emitted all the same, as it is known by then.
func TestBackfillOvertaken(t *testing.T) {
	for _, grown := range []bool{false, true} {
		f := open(t)
		p := backfillPage(f.DB, ask(t, f.DB, time.Time{}, day), question("q", 1, "as it was"))
		silent := question("q", 1, "as it is")
		silent.Silent = true
		commit(t, f.DB, pageOf(f.DB, silent))
		if grown {
			commit(t, f.DB, pageOf(f.DB, withBody(silent, `{"id":"q","text":"as it is","new":1}`)))
		}
		if out := commit(t, f.DB, p); out.Actions[0] != state.ActionCreated {
			t.Fatalf("%+v", out)
		}
		const body = `{"id":"q","text":"as it is"}`
		if e := events(t, f.DB)[0]; e.ID != eventID("q", 1, body) || !strings.HasSuffix(string(e.JSON), `"data":{"item":`+body+`}}`) {
			t.Fatalf("%s", e.JSON)
		}
		want := []state.Action(nil)
		if grown {
			want = []state.Action{state.ActionUpdated}
		}
		if got := settleAll(t, f.DB, 1, 10); !slices.Equal(got, want) {
			t.Fatal(got)
		}
	}
}

// Requests, cursors and ends of runs are there as a whole or not at all.
func TestWalkCrashes(t *testing.T) {
	for name, breaking := range breakings {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			try := func(step func() error) {
				t.Helper()
				f.fault = breaking
				if err := step(); !errors.Is(err, errBroken) {
					t.Fatal(err)
				}
				f.fault = nil
				checkState(t, f.DB)
				f.reopen()
				if err := step(); err != nil {
					t.Fatal(err)
				}
			}
			took := strings.Contains(name, "effect")
			var asked state.Backfill
			try(func() (err error) {
				asked, err = f.DB.AskBackfill(questions, day.Add(-time.Hour), day)
				return err
			})
			if s := stream(t, f.DB); s.Backfill == nil || *s.Backfill != asked {
				t.Fatalf("%+v", s)
			}
			try(func() error { return f.DB.SetCursor(questions, "news", []byte("there")) })
			wantWalk(t, f, "news", `"there" read 0`)
			end := backfillPage(f.DB, asked, question("q", 1, "a"))
			end.Done, end.Began, end.Now = true, day, day
			f.fault = breaking
			if _, err := f.DB.CommitPage(end); !errors.Is(err, errBroken) {
				t.Fatal(err)
			}
			f.fault = nil
			checkState(t, f.DB)
			f.reopen()
			s := stream(t, f.DB)
			if n := len(events(t, f.DB)); (n == 1) != took || (s.Backfill == nil) != took || s.Walks["backfill"].Done.IsZero() == took {
				t.Fatalf("%d events, %+v", n, s)
			}
		})
	}
}

// The body of an event of a backfill is the marketplace's, too, by way of the
// record.
func TestBackfillBodyIsFaithful(t *testing.T) {
	const body = `{"z":1.50e+01,"a":"<b>&amp;</b>","é":"\u00e9\/",",\"body\":":[null]}`
	f := open(t)
	silent := withBody(question("q", 1, ""), body)
	silent.Silent = true
	p := backfillPage(f.DB, ask(t, f.DB, time.Time{}, day), question("q", 1, "late"))
	commit(t, f.DB, pageOf(f.DB, silent))
	commit(t, f.DB, p)
	var v struct {
		Data struct{ Item json.RawMessage }
	}
	if err := json.Unmarshal(events(t, f.DB)[0].JSON, &v); err != nil || string(v.Data.Item) != body {
		t.Fatalf("%s %v", v.Data.Item, err)
	}
}
