package state_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"syncd/internal/event"
	"syncd/internal/fingerprint"
	"syncd/internal/state"
)

// itemModel is what the contract says about readings of items, without files,
// transactions or bounds: §4 (what is old), §5 (disappearance), §6 (versions,
// noise, keys that come and go) and G3 (late answers).
type itemModel struct {
	items   map[int]*modelItem
	log     []string
	ignore  []string
	verdict map[string]bool // of the settlement going on; nil: none
	changes int
}

type modelItem struct {
	n                uint64
	body, fp         string
	stamp, missing   uint64
	emitted, removed bool
	immutable        bool
	held             *modelHeld
}

type modelHeld struct {
	stamp           uint64
	body, fp, rules string
}

type modelReading struct {
	id     int
	body   string
	silent bool
}

func modelID(id int) string { return fmt.Sprintf("i%03d", id) }

// modelBody is an item: v is what it says, keys which of "k", "l" it has.
func modelBody(id int, v string, keys string) string {
	body := fmt.Sprintf(`{"id":%d,"v":%q`, id, v)
	for k := range strings.SplitSeq(keys, "") {
		body += fmt.Sprintf(`,%q:null`, k)
	}
	return body + "}"
}

// keysApart are the keys that only one of two bodies has, of those that are not
// ignored; false: they differ in what they say.
func (m *itemModel) keysApart(a, b string) ([]string, bool) {
	var x, y map[string]any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil || x["v"] != y["v"] {
		return nil, false
	}
	var out []string
	for _, k := range []string{"k", "l"} {
		_, inX := x[k]
		_, inY := y[k]
		if inX != inY && !slices.Contains(m.ignore, k) {
			out = append(out, k)
		}
	}
	return out, true
}

func (m *itemModel) same(a, b string) bool {
	apart, ok := m.keysApart(a, b)
	return ok && len(apart) == 0
}

func (m *itemModel) fp(body string) string {
	f, err := fingerprint.Of(json.RawMessage(body), m.ignore)
	if err != nil {
		panic(err)
	}
	return f.String()
}

func (m *itemModel) emit(id int, action, fp, body, previous string) {
	x := m.items[id]
	version := fmt.Sprintf("/%d-%s", x.n, fp)
	if x.immutable {
		version = ""
	}
	x.emitted = true
	m.log = append(m.log, fmt.Sprintf("%s shop-a/questions/%s%s %s %s", action, modelID(id), version, body, previous))
}

// read is one reading of an item; it returns the action.
func (m *itemModel) read(stamp uint64, unemitted bool, r modelReading) state.Action {
	x := m.items[r.id]
	if x == nil {
		m.items[r.id] = &modelItem{n: 1, body: r.body, fp: m.fp(r.body), stamp: stamp, immutable: immutableID(r.id)}
		if r.silent {
			return state.ActionSilent
		}
		m.emit(r.id, "created", m.fp(r.body), r.body, "")
		return state.ActionCreated
	}
	late := stamp < x.stamp || x.held != nil && stamp < x.held.stamp
	if unemitted && !x.emitted && !r.silent {
		if !late {
			if !x.immutable && !m.same(x.body, r.body) {
				x.n++
			}
			m.replace(x, stamp, r.body)
		}
		x.fp = m.fp(x.body)
		m.emit(r.id, "created", x.fp, x.body, "")
		return state.ActionCreated
	}
	if late {
		return state.ActionStale
	}
	if x.removed {
		x.n, x.removed = x.n+1, false
		m.replace(x, stamp, r.body)
		m.emit(r.id, "created", x.fp, r.body, "")
		return state.ActionCreated
	}
	if x.immutable {
		return state.ActionUnchanged
	}
	if stamp > x.missing {
		x.missing = 0
	}
	if m.same(x.body, r.body) {
		if x.held != nil {
			x.held, x.stamp, x.fp = nil, stamp, m.fp(x.body)
		}
		return state.ActionUnchanged
	}
	rules := fingerprint.RulesOf(m.ignore)
	if x.held != nil && x.held.rules == rules && m.same(x.held.body, r.body) {
		return state.ActionUnchanged
	}
	if _, only := m.keysApart(x.body, r.body); only {
		x.held = &modelHeld{stamp: stamp, body: r.body, fp: m.fp(r.body), rules: rules}
		return state.ActionHeld
	}
	previous := x.body
	x.n++
	m.replace(x, stamp, r.body)
	m.emit(r.id, "updated", x.fp, r.body, previous)
	return state.ActionUpdated
}

func (m *itemModel) replace(x *modelItem, stamp uint64, body string) {
	x.body, x.fp, x.stamp, x.held = body, m.fp(body), stamp, nil
	if stamp > x.missing {
		x.missing = 0
	}
}

// held are the items that are held back, in the order of their time.
func (m *itemModel) held() []int {
	var out []int
	for id, x := range m.items {
		if x.held != nil {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// settle is one piece of a settlement.
func (m *itemModel) settle(read uint64, limit int) (actions []state.Action, done bool) {
	held := m.held()
	if m.verdict == nil {
		counts := make(map[string]uint64)
		for _, id := range held {
			paths, _ := m.keysApart(m.items[id].body, m.items[id].held.body)
			for _, p := range paths {
				counts[p]++
			}
		}
		m.verdict = make(map[string]bool)
		for _, p := range []string{"k", "l"} {
			if counts[p] >= 100 && counts[p]*100 > read*20 {
				m.verdict[p] = true
				m.changes++
				m.log = append(m.log, fmt.Sprintf("schema_changed %s", event.SchemaChangedID("shop-a", "questions", uint64(m.changes), p)))
			}
		}
	}
	for _, id := range held[:min(len(held), limit)] {
		x := m.items[id]
		h := x.held
		paths, _ := m.keysApart(x.body, h.body)
		previous := x.body
		switch {
		case len(paths) == 0: // by today's rules
			x.stamp, x.fp, x.held = h.stamp, m.fp(x.body), nil
			actions = append(actions, state.ActionUnchanged)
		case !slices.ContainsFunc(paths, func(p string) bool { return !m.verdict[p] }):
			m.replace(x, h.stamp, h.body)
			actions = append(actions, state.ActionAdopted)
		default:
			x.n++
			m.replace(x, h.stamp, h.body)
			m.emit(id, "updated", x.fp, x.body, previous)
			actions = append(actions, state.ActionUpdated)
		}
	}
	if done = len(held) <= limit; done {
		m.verdict = nil
	}
	return actions, done
}

// vanish is one piece of what a run did not show: the ids from..to.
func (m *itemModel) vanish(began uint64, seen map[int]bool, ids []int) (actions []state.Action) {
	for _, id := range ids {
		x := m.items[id]
		switch {
		case x.immutable || x.removed || x.stamp > began || x.held != nil && x.held.stamp > began:
		case seen[id] && x.missing < began:
			x.missing = 0
		case seen[id] || x.missing >= began:
		case x.missing == 0:
			x.missing = began
		default:
			if x.held != nil {
				x.body, x.fp, x.held = x.held.body, x.held.fp, nil
			}
			x.n, x.stamp, x.missing, x.removed = x.n+1, began, 0, true
			m.emit(id, "removed", x.fp, x.body, "")
			actions = append(actions, state.ActionRemoved)
		}
	}
	return actions
}

const modelItems = 130 // more than the 100 that make a change of the schema

func immutableID(id int) bool { return id%40 == 7 }

// walker drives a file and the model side by side.
type walker struct {
	*file
	r        *rand.Rand
	m        *itemModel
	inFlight []modelPage
	now      time.Time
}

type modelPage struct {
	stamp     uint64
	unemitted bool
	readings  []modelReading
}

func (w *walker) page(stamp uint64, readings ...modelReading) state.Page {
	ignore := w.m.ignore
	p := pageOf(w.DB)
	p.Stamp, p.Now, p.Rules = stamp, w.now, fingerprint.RulesOf(ignore)
	p.Refingerprint = func(b json.RawMessage) (event.Fingerprint, error) { return fingerprint.Of(b, ignore) }
	p.Grown = func(a, b json.RawMessage) ([]string, bool, error) { return fingerprint.Grown(a, b, ignore) }
	for _, r := range readings {
		it := state.Item{ID: modelID(r.id), Kind: "question", Subject: "question/" + modelID(r.id), Body: json.RawMessage(r.body),
			Created: day.Add(time.Duration(r.id) * time.Minute), Silent: r.silent, Immutable: immutableID(r.id)}
		if !it.Immutable {
			it.Fingerprint, _ = fingerprint.Of(it.Body, ignore)
		}
		p.Items = append(p.Items, it)
	}
	return p
}

// step does something until it works. Half of the time the commit breaks first,
// in one of two ways; apply is the model's part, done as often as a commit took
// effect.
func (w *walker) step(do func() ([]state.Action, error), apply func() []state.Action) {
	w.t.Helper()
	effects := 0
	breaking := breakings["failed"]
	if w.r.IntN(2) == 0 {
		breaking = breakings["failed but took effect"]
	}
	for try := 0; ; try++ {
		took := w.n
		w.fault = nil
		if try == 0 && w.r.IntN(4) == 0 {
			w.fault = func(commit func() error) error { return breaking(func() error { return w.counted(commit) }) }
		}
		got, err := do()
		w.fault = nil
		if err != nil && !errors.Is(err, errBroken) {
			w.t.Fatal(err)
		}
		checkState(w.t, w.DB)
		if err == nil || w.n > took {
			want := apply()
			effects++
			if err == nil && !slices.Equal(got, want) {
				w.t.Fatalf("actions %q, want %q", got, want)
			}
		}
		if err == nil {
			return
		}
		if w.r.IntN(2) == 0 {
			w.reopen()
			w.inFlight = nil // they died with their process
		}
	}
}

func (w *walker) deliver(p modelPage) {
	w.t.Helper()
	w.step(func() ([]state.Action, error) {
		page := w.page(p.stamp, p.readings...)
		page.Unemitted = p.unemitted
		page.Keep = w.r.IntN(8) == 0
		out, err := w.CommitPage(page)
		return out.Actions, err
	}, func() []state.Action {
		actions := make([]state.Action, 0)
		for _, r := range p.readings {
			actions = append(actions, w.m.read(p.stamp, p.unemitted, r))
		}
		return actions
	})
}

// randomPage asks for a page now; the answer may come later.
func (w *walker) randomPage() modelPage {
	p := modelPage{stamp: w.DB.Stamp(), unemitted: w.r.IntN(4) == 0}
	keys := []string{"", "k", "l", "kl"}
	if w.r.IntN(4) == 0 { // the marketplace has changed its schema
		v, k := w.variant(), keys[w.r.IntN(4)]
		for id := range modelItems {
			p.readings = append(p.readings, modelReading{id, modelBody(id, v, k), false})
		}
		return p
	}
	for range w.r.IntN(8) {
		id := w.r.IntN(modelItems)
		if w.r.IntN(2) == 0 {
			id %= 6
		}
		p.readings = append(p.readings, modelReading{id, modelBody(id, w.variant(), keys[w.r.IntN(4)]), !p.unemitted && w.r.IntN(3) == 0})
	}
	return p
}

// variant is mostly the same, so that most differences are of keys.
func (w *walker) variant() string { return []string{"a", "a", "a", "a", "b"}[w.r.IntN(5)] }

func (w *walker) settle() {
	read := []uint64{0, modelItems, 500, 651, 5 * modelItems}[w.r.IntN(5)]
	for done := false; !done; {
		limit := []int{1, 50, 129, 500}[w.r.IntN(4)]
		var doneDB bool
		w.step(func() ([]state.Action, error) {
			out, d, err := w.SettleHeld(w.page(0), read, limit)
			doneDB = d
			return out.Actions, err
		}, func() []state.Action {
			var actions []state.Action
			actions, done = w.m.settle(read, limit)
			return actions
		})
		if begun, err := w.HasVerdict(questions); err != nil || begun == done || doneDB != done {
			w.t.Fatalf("verdict %t, done %t, want %t (%v)", begun, doneDB, done, err)
		}
		if !done && w.r.IntN(3) == 0 {
			w.deliver(w.randomPage())
		}
	}
}

func (w *walker) vanish() {
	began := w.DB.Stamp()
	if w.r.IntN(2) == 0 {
		w.deliver(w.randomPage())
	}
	if w.r.IntN(2) == 0 {
		w.inFlight = append(w.inFlight, w.randomPage())
	}
	seen, hashes := make(map[int]bool), make(map[uint64]struct{})
	for id := range modelItems {
		if w.r.IntN(2) == 0 {
			seen[id] = true
			hashes[state.IDHash(modelID(id))] = struct{}{}
		}
	}
	after, last := "", -1
	for done := false; !done; {
		limit := 1 + w.r.IntN(60)
		var piece []int // the ids that the piece goes through
		for id := range modelItems {
			if id > last && w.m.items[id] != nil && len(piece) < limit {
				piece = append(piece, id)
			}
		}
		next := ""
		w.step(func() (_ []state.Action, err error) {
			var out state.Outcome
			out, next, done, err = w.Vanish(w.page(0), began, hashes, limit, after)
			return out.Actions, err
		}, func() []state.Action { return w.m.vanish(began, seen, piece) })
		after = next
		if len(piece) > 0 {
			last = piece[len(piece)-1]
		}
		if w.r.IntN(10) == 0 {
			return // the process died, and the rest is never gone through
		}
	}
}

// logged is the log in the model's words.
func (w *walker) logged() []string {
	var out []string
	for _, e := range events(w.t, w.DB) {
		var v struct {
			ID, Type string
			Data     struct{ Item, Previous json.RawMessage }
		}
		if err := json.Unmarshal(e.JSON, &v); err != nil {
			w.t.Fatal(err)
		}
		if v.Type == event.SchemaChanged {
			out = append(out, "schema_changed "+v.ID)
			continue
		}
		out = append(out, fmt.Sprintf("%s %s %s %s", strings.TrimPrefix(v.Type, "wildberries.question."), v.ID, v.Data.Item, v.Data.Previous))
	}
	return out
}

// TestModel: whatever is read, in whatever order the answers come, whatever
// commit breaks and however, the events are those of the model, and no two have
// one id.
func TestModel(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := &walker{file: open(t), r: rand.New(rand.NewPCG(seed, 9)), m: &itemModel{items: make(map[int]*modelItem)}, now: day}
			for range 80 {
				w.now = w.now.Add(time.Minute)
				switch n := w.r.IntN(20); {
				case n < 9:
					w.deliver(w.randomPage())
				case n < 12:
					w.inFlight = append(w.inFlight, w.randomPage())
				case n < 15 && len(w.inFlight) > 0:
					i := w.r.IntN(len(w.inFlight))
					p := w.inFlight[i]
					w.inFlight = slices.Delete(w.inFlight, i, i+1)
					w.deliver(p)
				case n < 17:
					w.settle()
				case n < 19:
					w.vanish()
				default:
					w.m.ignore = [][]string{nil, {"k"}}[w.r.IntN(2)]
				}
			}
			got := w.logged()
			for i := range max(len(got), len(w.m.log)) {
				if i >= len(got) || i >= len(w.m.log) || got[i] != w.m.log[i] {
					t.Fatalf("event %d is %q, want %q", i+1, got[min(i, len(got)):min(i+1, len(got))], w.m.log[min(i, len(w.m.log)):min(i+1, len(w.m.log))])
				}
			}
			unique := ids(t, w.DB)
			slices.Sort(unique)
			if n := len(slices.Compact(unique)); n != len(got) || n == 0 {
				t.Fatalf("%d events have %d ids", len(got), n)
			}
		})
	}
}
