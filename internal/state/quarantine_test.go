package state_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"syncd/internal/state"
)

func oddities(t *testing.T, db *state.DB, limit int) []state.Odd {
	t.Helper()
	out, err := db.Oddities(questions, limit)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// What is no usable item is kept as it came, in the transaction of its page; known
// entries alone write nothing.
func TestQuarantine(t *testing.T) {
	f := open(t)
	if got := oddities(t, f.DB, 10); len(got) != 0 {
		t.Fatal(got)
	}
	raws := []string{`{"no":"id"}`, "\xff\x00 no JSON\n", ``}
	page := func(at time.Time, raws ...string) state.Page {
		p := pageOf(f.DB)
		p.Now = at
		for _, raw := range raws {
			p.Odd = append(p.Odd, state.Odd{Raw: json.RawMessage(raw), Reason: "why \xff"})
		}
		return p
	}
	p := page(day, raws[0], raws[1], raws[2], raws[0])
	p.Items = []state.Item{question("q", 1, "a")}
	if out := commit(t, f.DB, p); out.Odd != 3 || out.OddLost != 0 || out.Events != 1 {
		t.Fatalf("%+v", out)
	}
	n := f.n
	if out := commit(t, f.DB, page(day.Add(time.Hour), raws...)); out.Wrote || f.n != n {
		t.Fatalf("%+v", out)
	}
	p = page(day.Add(2*time.Hour), raws[1])
	p.Keep = true
	if out := commit(t, f.DB, p); out.Odd != 0 {
		t.Fatalf("%+v", out)
	}
	f.reopen()
	got := oddities(t, f.DB, 10)
	if len(got) != 3 || string(got[0].Raw) != raws[1] {
		t.Fatalf("%+v", got)
	}
	for _, o := range got {
		last, count := day, uint64(1)
		switch string(o.Raw) {
		case raws[0]:
			count = 2
		case raws[1]:
			last, count = day.Add(2*time.Hour), 2
		}
		if o.Stream != questions || o.Reason != "why �" || o.Size != len(o.Raw) || !o.First.Equal(day) || !o.Last.Equal(last) || o.Count != count || !slices.Contains(raws, string(o.Raw)) {
			t.Errorf("%+v", o)
		}
	}
	if got := oddities(t, f.DB, 1); len(got) != 1 {
		t.Fatalf("%+v", got)
	}
}

// The quarantine has bounds: of an entry the beginning is kept, of entries those
// seen last, and what leaves is counted.
func TestQuarantineBounds(t *testing.T) {
	f := open(t)
	large := bytes.Repeat([]byte("x"), 16<<10+1)
	p := pageOf(f.DB)
	p.Odd = []state.Odd{{Raw: large, Reason: string(large)}, {Raw: append(slices.Clone(large), 'y'), Reason: "another"}}
	if out := commit(t, f.DB, p); out.Odd != 2 {
		t.Fatalf("%+v", out)
	}
	for _, o := range oddities(t, f.DB, 10) {
		if len(o.Raw) != 16<<10 || o.Size < 16<<10+1 || len(o.Reason) > 1<<10 {
			t.Errorf("%d of %d bytes, %d of the reason", len(o.Raw), o.Size, len(o.Reason))
		}
	}
	flood := func(from, n int, at time.Time) state.Outcome {
		p := pageOf(f.DB)
		p.Now = at
		for i := range n {
			p.Odd = append(p.Odd, state.Odd{Raw: json.RawMessage(fmt.Sprint(from + i)), Reason: "a flood"})
		}
		return commit(t, f.DB, p)
	}
	later := pageOf(f.DB).Now
	if out := flood(0, 900, later.Add(time.Second)); out.Odd != 900 || out.OddLost != 0 {
		t.Fatalf("%+v", out)
	}
	if out := flood(900, 200, later.Add(2*time.Second)); out.Odd != 200 || out.OddLost != 102 {
		t.Fatalf("%+v", out)
	}
	all := oddities(t, f.DB, 5000)
	if len(all) != 1000 || slices.ContainsFunc(all, func(o state.Odd) bool { return o.Size > 16<<10 }) {
		t.Fatalf("%d entries", len(all))
	}
	for _, o := range all[:200] {
		if !o.Last.Equal(later.Add(2 * time.Second)) {
			t.Fatalf("%s seen at %s", o.Raw, o.Last)
		}
	}
	// One page with more than the quarantine holds: the end of it is kept, and seen
	// again it is nothing new.
	out := flood(10_000, 1500, later.Add(3*time.Second))
	if out.Odd != 1000 || out.OddLost != 1500 {
		t.Fatalf("%+v", out)
	}
	if out = flood(10_000, 1500, later.Add(4*time.Second)); out.Wrote {
		t.Fatalf("%+v", out)
	}
}

func TestQuarantineCrash(t *testing.T) {
	for name, breaking := range breakings {
		f := open(t)
		p := pageOf(f.DB, question("q", 1, "a"))
		p.Odd = []state.Odd{{Raw: json.RawMessage(`0`), Reason: "no object"}}
		f.fault = breaking
		if _, err := f.DB.CommitPage(p); !errors.Is(err, errBroken) {
			t.Fatal(err)
		}
		f.fault = nil
		checkState(t, f.DB)
		if a, b := len(oddities(t, f.DB, 10)), len(events(t, f.DB)); a != b {
			t.Fatalf("%s: %d entries and %d events", name, a, b)
		}
		commit(t, f.DB, p)
		if a, b := len(oddities(t, f.DB, 10)), len(events(t, f.DB)); a != 1 || b != 1 {
			t.Fatalf("%s: %d entries and %d events", name, a, b)
		}
	}
}
