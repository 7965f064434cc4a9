package state_test

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/state"
)

var answers = state.StreamID{Account: "shop-a", Stream: "answers"}

// finds commits a page of the questions that has found these things for the
// answers, at a time.
func finds(t *testing.T, db *state.DB, now time.Time, visits ...state.Visit) state.Outcome {
	t.Helper()
	p := pageOf(db)
	p.Now = now
	for _, v := range visits {
		v.Stream = "answers"
		p.Found = append(p.Found, v)
	}
	return commit(t, db, p)
}

// visits commits a page of the answers' own, that was written anyway.
func visits(t *testing.T, db *state.DB, now time.Time, made ...state.Visit) {
	t.Helper()
	p := pageOf(db)
	p.Stream, p.Walk, p.Now, p.Cursor, p.Keep, p.Visited = answers, "follow", now, nil, true, made
	commit(t, db, p)
}

func visitOf(t *testing.T, db *state.DB, id string) state.Visit {
	t.Helper()
	v, ok, err := db.Visit(answers, id)
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return state.Visit{}
	}
	return v
}

func nextOf(t *testing.T, db *state.DB, now time.Time, pass ...string) (string, time.Time) {
	t.Helper()
	v, at, err := db.NextVisit(answers, now, false, func(id string, _ uint64) bool { return slices.Contains(pass, id) })
	if err != nil {
		t.Fatal(err)
	}
	if v == nil {
		return "", at
	}
	return v.ID, at
}

func raw(n int) json.RawMessage { return json.RawMessage(fmt.Sprintf(`{"n":%d}`, n)) }

// Urgent ones go first, then those that are due longest; what is not due yet says
// when it will be.
func TestNextVisit(t *testing.T) {
	f := open(t)
	if id, at := nextOf(t, f.DB, day); id != "" || !at.IsZero() {
		t.Errorf("of nothing: %q at %s", id, at)
	}
	finds(t, f.DB, day,
		state.Visit{ID: "later", Due: day.Add(time.Hour)}, state.Visit{ID: "old", Due: day.Add(-2 * time.Hour)},
		state.Visit{ID: "new", Due: day}, state.Visit{ID: "urgent", Due: day, Urgent: true},
		state.Visit{ID: "urgent soon", Due: day.Add(time.Minute), Urgent: true}, state.Visit{ID: "remembered"})
	var got []string
	for {
		id, at := nextOf(t, f.DB, day, got...)
		if id == "" {
			if !at.Equal(day.Add(time.Minute)) {
				t.Errorf("the next one at %s", at)
			}
			break
		}
		got = append(got, id)
	}
	if want := []string{"urgent", "old", "new"}; !slices.Equal(got, want) {
		t.Errorf("visits %q, want %q", got, want)
	}
	got = nil
	if id, _ := nextOf(t, f.DB, day.Add(time.Minute)); id != "urgent" {
		t.Errorf("%q goes first", id)
	}
	for _, want := range []string{"old", "new", "urgent", ""} { // who is fair looks at the others first
		v, _, err := f.DB.NextVisit(answers, day, true, func(id string, _ uint64) bool { return slices.Contains(got, id) })
		switch {
		case err != nil:
			t.Fatal(err)
		case v == nil && want != "" || v != nil && v.ID != want:
			t.Errorf("%+v goes first, want %q", v, want)
		}
		got = append(got, want)
	}
}

// A thing that has not moved is not written again, be it found a thousand times; and
// what has moved is planned without losing what was seen of it.
func TestFoundVisits(t *testing.T) {
	f := open(t)
	due := day.Add(-time.Hour)
	finds(t, f.DB, day, state.Visit{ID: "a", Created: day, Due: due, Found: raw(1), History: true}, state.Visit{ID: "b", Found: raw(1)})
	first := visitOf(t, f.DB, "a")
	if !first.History || first.Version == 0 || !first.Due.Equal(due) || !first.Created.Equal(day) || first.Stream != "answers" {
		t.Errorf("first found: %+v", first)
	}
	n := f.n
	for _, v := range []state.Visit{
		{ID: "a", Due: day, Urgent: true, Found: json.RawMessage(`{ "n" : 1 }`)}, {ID: "a", Found: raw(1)}, {ID: "b", Found: raw(1)},
	} {
		if out := finds(t, f.DB, day, v); out.Wrote || f.n != n {
			t.Errorf("%+v was written", v)
		}
	}
	visits(t, f.DB, day, state.Visit{ID: "a", Version: first.Version, Seen: raw(10), Due: day.Add(day.Sub(due))})
	seen := visitOf(t, f.DB, "a")
	if seen.History || string(seen.Seen) != `{"n":10}` || seen.Version != first.Version || !seen.Due.After(day) {
		t.Errorf("visited: %+v", seen)
	}
	finds(t, f.DB, day, state.Visit{ID: "a", Created: day, Found: raw(2)}) // to be remembered only
	if v := visitOf(t, f.DB, "a"); !v.Due.Equal(seen.Due) || string(v.Found) != `{"n":2}` || string(v.Seen) != `{"n":10}` || v.Version <= seen.Version {
		t.Errorf("a planned visit that is found without a time: %+v", v)
	}
	finds(t, f.DB, day, state.Visit{ID: "a", Created: day, Due: day, Urgent: true, Found: raw(3), History: true})
	moved := visitOf(t, f.DB, "a")
	if !moved.Due.Equal(day) || !moved.Urgent || moved.History || string(moved.Seen) != `{"n":10}` {
		t.Errorf("moved: %+v", moved)
	}
	// What waits for its turn keeps its place: or a thing that moves all the time
	// would never be visited.
	finds(t, f.DB, day.Add(time.Hour), state.Visit{ID: "a", Created: day, Due: day.Add(time.Hour), Urgent: true, Found: raw(4)})
	if v := visitOf(t, f.DB, "a"); !v.Due.Equal(day) {
		t.Errorf("found again while it waits: %+v", v)
	}
	// And what is planned comes no later for it, however often that is.
	for i := range 5 {
		finds(t, f.DB, day, state.Visit{ID: "c", Due: day.Add(time.Duration(i+5) * time.Minute), Found: raw(i)})
	}
	if v := visitOf(t, f.DB, "c"); !v.Due.Equal(day.Add(5 * time.Minute)) {
		t.Errorf("found again before it is due: %+v", v)
	}
	finds(t, f.DB, day, state.Visit{ID: "d", Due: day, Urgent: true, Found: raw(1)})
	finds(t, f.DB, day, state.Visit{ID: "d", Due: day, Found: raw(2)})
	if v := visitOf(t, f.DB, "d"); !v.Due.Equal(day) || !v.Urgent {
		t.Errorf("urgent and due, and found again as another: %+v", v)
	}
	finds(t, f.DB, day, state.Visit{ID: "b", Due: day, Found: raw(1)}) // the same, but now to be visited
	if v := visitOf(t, f.DB, "b"); !v.Due.Equal(day) {
		t.Errorf("remembered, and then planned: %+v", v)
	}
}

// A thing that was found again while it was visited stays due; what was seen of it
// holds all the same.
func TestVisitedMeanwhile(t *testing.T) {
	for name, v := range map[string]state.Visit{"planned": {Due: day.Add(24 * time.Hour)}, "remembered": {}, "forgotten": {Forget: true}} {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			finds(t, f.DB, day, state.Visit{ID: "a", Due: day, Found: raw(1), History: true})
			v.ID, v.Seen, v.Version = "a", raw(10), visitOf(t, f.DB, "a").Version
			finds(t, f.DB, day, state.Visit{ID: "a", Due: day, Found: raw(2)})
			visits(t, f.DB, day, v)
			if got := visitOf(t, f.DB, "a"); !got.Due.Equal(day) || string(got.Seen) != `{"n":10}` || got.History {
				t.Errorf("found again: %+v", got)
			}
			v.Version = visitOf(t, f.DB, "a").Version
			visits(t, f.DB, day, v)
			got := visitOf(t, f.DB, "a")
			if !got.Due.Equal(v.Due) || (got.ID == "") != v.Forget {
				t.Errorf("not found again: %+v", got)
			}
			// A visit of its life before does not end the one after.
			finds(t, f.DB, day, state.Visit{ID: "a", Due: day, Found: raw(3)})
			visits(t, f.DB, day, v)
			if got := visitOf(t, f.DB, "a"); !got.Due.Equal(day) {
				t.Errorf("found anew: %+v", got)
			}
		})
	}
}

func TestCountVisits(t *testing.T) {
	f := open(t)
	for i, age := range []time.Duration{0, time.Hour, time.Hour + 1e6, 2 * time.Hour, 2*time.Hour + 1e6, 1000 * time.Hour, 290 * 365 * 24 * time.Hour} {
		finds(t, f.DB, day, state.Visit{ID: fmt.Sprint(i), Created: day.Add(-age), Due: day.Add(time.Duration(i-3) * time.Hour)})
	}
	finds(t, f.DB, day, state.Visit{ID: "timeless", Due: day.Add(time.Hour)}, state.Visit{ID: "not planned", Created: day})
	counts, due, ahead, err := f.DB.CountVisits(answers, day)
	if err != nil || due != 4 || ahead != 0 {
		t.Error(due, ahead, err)
	}
	got := make(map[time.Duration]int)
	for i, c := range counts {
		if c.Age != time.Hour<<i {
			t.Errorf("entry %d is up to %s", i, c.Age)
		}
		if c.N > 0 {
			got[c.Age] = c.N
		}
	}
	if want := map[time.Duration]int{time.Hour: 3, 2 * time.Hour: 2, 4 * time.Hour: 1, 1024 * time.Hour: 1, time.Hour << 21: 1}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// What was planned with a clock that was ahead is due when the clock was set right,
// be it found or visited then, and be it found again meanwhile; and nothing else is.
func TestBringForward(t *testing.T) {
	f := open(t)
	wrong := day.AddDate(1, 0, 0)
	var all []string
	for i := range 7 {
		id := fmt.Sprint("t", i)
		all = append(all, id)
		finds(t, f.DB, day, state.Visit{ID: id, Due: day.Add(-time.Hour), Found: raw(1)})
		visits(t, f.DB, wrong, state.Visit{ID: id, Version: visitOf(t, f.DB, id).Version, Due: wrong.Add(time.Hour), Urgent: i == 3})
	}
	finds(t, f.DB, day, state.Visit{ID: "t5", Found: raw(2)}) // which plans nothing
	finds(t, f.DB, wrong, state.Visit{ID: "found", Due: wrong}, state.Visit{ID: "remembered"})
	finds(t, f.DB, day.Add(time.Minute), state.Visit{ID: "a little", Due: day.Add(time.Hour)})
	finds(t, f.DB, day, state.Visit{ID: "right", Due: day.Add(2 * time.Hour)})
	if _, due, ahead, err := f.DB.CountVisits(answers, day); due != 0 || ahead != 8 || err != nil {
		t.Errorf("%d visits are due, and %d were planned with a clock that was ahead: %v", due, ahead, err)
	}
	steps, moved, after := 0, 0, ""
	for {
		next, n, err := f.DB.BringForward(answers, day, after, 3)
		if err != nil {
			t.Fatal(err)
		}
		checkState(t, f.DB)
		steps, moved = steps+1, moved+n
		if after = next; next == "" {
			break
		}
	}
	if steps != 3 || moved != 8 {
		t.Errorf("%d were brought forward in %d steps", moved, steps)
	}
	var got []string
	for range 8 {
		id, _ := nextOf(t, f.DB, day, got...)
		got = append(got, id)
	}
	id, at := nextOf(t, f.DB, day, got...)
	if got[0] != "t3" || id != "" || !at.Equal(day.Add(time.Hour)) || visitOf(t, f.DB, "remembered").Due != (time.Time{}) {
		t.Errorf("%q are due, and then %q at %s", got, id, at)
	}
	if slices.Sort(got); !slices.Equal(got, append([]string{"found"}, all...)) {
		t.Errorf("%q are due", got)
	}
	n := f.n
	if next, moved, err := f.DB.BringForward(answers, day, "", 3); next != "" || moved != 0 || err != nil || f.n != n {
		t.Errorf("again: %q, %d, %v, %d commits", next, moved, err, f.n-n)
	}
}

// G3: what a page has found is saved with its items and its cursor, or none of it.
func TestFoundWithItsPage(t *testing.T) {
	for name, fault := range breakings {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			p := pageOf(f.DB, question("q1", 1, "a"))
			p.Found = []state.Visit{{Stream: "answers", ID: "q1", Due: day, Found: raw(1)}, {ID: "own", Due: day}}
			f.fault = fault
			if _, err := f.DB.CommitPage(p); !errors.Is(err, errBroken) {
				t.Fatal(err)
			}
			f.fault = nil
			f.reopen()
			checkState(t, f.DB)
			_, own, _ := f.DB.Visit(questions, "own")
			if found := visitOf(t, f.DB, "q1").ID != ""; found != (len(ids(t, f.DB)) == 1) || found != (cursor(t, f.DB) != "") || found != own {
				t.Errorf("found: %t and %t, items: %d, cursor: %q", found, own, len(ids(t, f.DB)), cursor(t, f.DB))
			}
			version := visitOf(t, f.DB, "q1").Version
			commit(t, f.DB, p)
			if v := visitOf(t, f.DB, "q1"); version != 0 && v.Version != version || len(ids(t, f.DB)) != 1 {
				t.Errorf("read again: %+v", v)
			}
		})
	}
}

// Where a visit stands, and what is staged of it, is dropped together, and not what
// is complete.
func TestAbandonVisit(t *testing.T) {
	for name, fault := range breakings {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			page := func(final bool) {
				p := pageOf(f.DB, question("m1", 1, "a"))
				p.Stream, p.Walk, p.Staged, p.Final, p.Cursor = answers, "follow", true, final, []byte(`{"page":2}`)
				p.Visiting = &state.Visiting{ID: "a", Version: 7}
				if final {
					p.Cursor, p.Visiting = nil, nil
				}
				commit(t, f.DB, p)
			}
			stands := func() state.WalkState {
				s, err := f.DB.OpenStream(answers, nil, day)
				if err != nil {
					t.Fatal(err)
				}
				return s.Walks["follow"]
			}
			page(false)
			if s := stands(); string(s.Cursor) != `{"page":2}` || s.Visiting != (state.Visiting{ID: "a", Version: 7}) {
				t.Errorf("in the middle: %+v", s)
			}
			f.fault = fault
			if _, err := f.DB.AbandonVisit(answers); !errors.Is(err, errBroken) {
				t.Fatal(err)
			}
			f.fault = nil
			f.reopen()
			checkState(t, f.DB)
			if done, err := f.DB.AbandonVisit(answers); err != nil || !done {
				t.Fatal(done, err)
			}
			if s := stands(); s.Cursor != nil || s.Visiting != (state.Visiting{}) {
				t.Errorf("abandoned: %+v", s)
			}
			page(false)
			page(true)
			if done, err := f.DB.AbandonVisit(answers); err != nil || done {
				t.Fatal("complete, and abandoned", err)
			}
			end := pageOf(f.DB)
			end.Stream, end.Walk = answers, "follow"
			if out, done, err := f.DB.CommitStaged(end, 10); err != nil || !done || out.Events != 1 {
				t.Error(out, done, err)
			}
			if s := stands(); s.Cursor != nil || s.Visiting != (state.Visiting{}) {
				t.Errorf("at the end: %+v", s)
			}
		})
	}
}

// `state check` finds a plan and values that do not say the same.
func TestCheckTellsVisits(t *testing.T) {
	key := func(first string, due time.Time, id string) []byte {
		return append(binary.BigEndian.AppendUint64([]byte(first), uint64(due.UnixMilli())), id...)
	}
	created := binary.BigEndian.AppendUint64(make([]byte, 8), uint64(day.UnixMilli()))
	for name, spoil := range map[string]func(b, things, plan *bolt.Bucket) error{
		"not planned":   func(_, _, plan *bolt.Bucket) error { return plan.Delete(key("v", day, "a")) },
		"planned twice": func(_, _, plan *bolt.Bucket) error { return plan.Put(key("u", day, "a"), created) },
		"at another time": func(_, _, plan *bolt.Bucket) error {
			return errors.Join(plan.Delete(key("v", day, "a")), plan.Put(key("v", day.Add(1e6), "a"), created))
		},
		"another age": func(_, _, plan *bolt.Bucket) error {
			return plan.Put(key("v", day, "a"), binary.BigEndian.AppendUint64([]byte("12345678"), uint64(day.UnixMilli())))
		},
		"another plan": func(_, _, plan *bolt.Bucket) error { return plan.Put(key("v", day, "a"), make([]byte, 16)) },
		"gone":         func(_, things, _ *bolt.Bucket) error { return things.Delete([]byte("a")) },
		"no value":     func(_, things, _ *bolt.Bucket) error { return things.Put([]byte("a"), []byte(`{"v":1`)) },
		"from the future": func(_, things, _ *bolt.Bucket) error {
			return things.Put([]byte("b"), []byte(`{"v":1,"version":3}`))
		},
		"no plan": func(b, _, _ *bolt.Bucket) error { return b.DeleteBucket([]byte("plan")) },
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			finds(t, f.DB, day, state.Visit{ID: "a", Due: day}, state.Visit{ID: "b"})
			f.edit(func(tx *bolt.Tx) error {
				b := tx.Bucket([]byte("visits")).Bucket([]byte("shop-a")).Bucket([]byte("answers"))
				return spoil(b, b.Bucket([]byte("things")), b.Bucket([]byte("plan")))
			})
			if err := f.DB.Check(); err == nil {
				t.Error("nothing is found")
			}
		})
	}
}

// modelVisit is what sources.Visit says of a thing.
type modelVisit struct {
	due            time.Time
	urgent         bool
	found, seen    string
	history        bool
	given, version int
}

// TestVisitsModel: whatever is found and visited in whatever order, with commits
// that fail, the next visit is the one that the nouns say.
func TestVisitsModel(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			f := open(t)
			f.DB.NoSync()
			model := make(map[string]*modelVisit)
			versions := make(map[string]uint64) // that a visit was given with
			now := day
			for step := range 300 {
				now = now.Add(time.Duration(random.IntN(120)) * time.Second)
				id := fmt.Sprint("t", random.IntN(6))
				m := model[id]
				switch random.IntN(3) {
				case 0:
					v := state.Visit{ID: id, Found: raw(random.IntN(3)), Urgent: random.IntN(3) == 0, History: random.IntN(2) == 0}
					if random.IntN(4) > 0 {
						v.Due = now.Add(time.Duration(random.IntN(600)-300) * time.Second)
					}
					finds(t, f.DB, now, v)
					if m != nil && m.found == string(v.Found) && (v.Due.IsZero() || !m.due.IsZero()) {
						break
					}
					next := &modelVisit{due: v.Due, urgent: v.Urgent && !v.Due.IsZero(), found: string(v.Found), history: v.History}
					if m != nil {
						next.seen, next.history, next.given, next.version = m.seen, m.history, m.given, m.version+1
						if v.Due.IsZero() {
							next.due, next.urgent = m.due, m.urgent
						} else if !m.due.IsZero() {
							next.urgent = next.urgent || m.urgent && !m.due.After(now)
							if m.due.Before(v.Due) {
								next.due = m.due
							}
						}
					}
					model[id] = next
				case 1: // a visit begins
					if m != nil {
						m.given, versions[id] = m.version, visitOf(t, f.DB, id).Version
					}
				default:
					if m == nil || versions[id] == 0 {
						break
					}
					v := state.Visit{ID: id, Version: versions[id], Seen: raw(step), Forget: random.IntN(8) == 0}
					if random.IntN(3) > 0 {
						v.Due = now.Add(time.Duration(random.IntN(600)) * time.Second)
						v.Urgent = random.IntN(4) == 0
					}
					visits(t, f.DB, now, v)
					m.seen, m.history = string(v.Seen), false
					if m.given == m.version {
						m.due, m.urgent = v.Due, v.Urgent
						if v.Forget {
							delete(model, id)
							delete(versions, id)
						}
					}
				}
				for id, m := range model {
					v := visitOf(t, f.DB, id)
					if !v.Due.Equal(m.due) || v.Urgent != m.urgent || string(v.Found) != m.found || string(v.Seen) != m.seen || v.History != m.history {
						t.Fatalf("step %d: %s is %+v, want %+v", step, id, v, m)
					}
				}
				due := slices.DeleteFunc(slices.Collect(maps.Keys(model)), func(id string) bool { return model[id].due.IsZero() || model[id].due.After(now) })
				slices.SortFunc(due, func(a, b string) int {
					x, y := model[a], model[b]
					if x.urgent != y.urgent {
						if x.urgent {
							return -1
						}
						return 1
					}
					return cmp.Or(x.due.Compare(y.due), cmp.Compare(a, b))
				})
				want := ""
				if len(due) > 0 {
					want = due[0]
				}
				if got, _ := nextOf(t, f.DB, now); got != want {
					t.Fatalf("step %d: %q is next, want %q", step, got, want)
				}
			}
		})
	}
}
