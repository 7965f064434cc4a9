package state_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/state"
)

// Sequences need not be dense: whatever is logged, delivered, deleted and restored
// in whatever order, every sink is handed exactly the events behind its position,
// and is known to wait for as many; and what is said of holes does not grow.
func TestHoles(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { holes(t, seed) }) })
	}
}

func holes(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	f := open(t)
	f.DB.NoSync()
	var logged []uint64 // ever
	oldest := uint64(0) // that is kept; 0: none
	position := make(map[string]uint64)
	recorded := func(i int) time.Time { return day.Add(time.Duration(i) * time.Hour) } // of the i-th event
	last := func() uint64 {
		n, err := f.DB.LastSequence()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	behind := func(position uint64) (out []uint64) {
		for _, seq := range logged {
			if seq > position {
				out = append(out, seq)
			}
		}
		return out
	}
	settle := func(name string, to uint64) {
		if err := f.DB.Settle(name, day, state.Settlement{Position: to}); err != nil {
			t.Fatal(err)
		}
		position[name] = to
	}
	append1 := func() {
		p := pageOf(f.DB, question(fmt.Sprint("q", len(logged)), 1, "a"))
		p.Now = recorded(len(logged))
		commit(t, f.DB, p)
		if logged = append(logged, last()); len(logged) > 1 && last() <= logged[len(logged)-2] {
			t.Fatal("sequences do not grow: ", logged)
		}
		oldest = cmp.Or(oldest, last())
	}
	retain := func(young int) { // the events from the young-th on
		if _, err := f.DB.Retain(context.Background(), recorded(young)); err != nil {
			t.Fatal(err)
		}
		needed := last() + 1
		for _, p := range position {
			needed = min(needed, p+1)
		}
		kept := oldest
		oldest = 0
		for i, seq := range logged {
			if kept != 0 && seq >= kept && (seq >= needed || i >= young) {
				oldest = cmp.Or(oldest, seq)
			}
		}
	}
	for range 60 {
		switch what := rnd.IntN(9); what {
		case 0, 1, 2:
			append1()
		case 3: // each sink goes on by some events
			for name, p := range position {
				if left := behind(p); len(left) > 0 {
					settle(name, left[rnd.IntN(len(left))])
				}
			}
		case 4:
			retain(rnd.IntN(len(logged) + 1))
		case 5, 6:
			if len(position) == 10 {
				continue
			}
			name, want := fmt.Sprint("sink-", len(position)), last()
			if what == 5 && oldest != 0 {
				want = oldest - 1
			}
			s, err := f.DB.OpenSink(name, "file", what == 5, day)
			if err != nil || what == 5 && len(behind(s.Position)) != len(behind(want)) || what == 6 && s.Position != want {
				t.Fatalf("%s begins at %d, want %d, %v", name, s.Position, want, err)
			}
			position[name] = s.Position
		case 7, 8:
			time.Sleep(time.Second)
			f = openAt(t, backup(t, f.DB))
			f.DB.NoSync()
		}
		checkState(t, f.DB)
		got := events(t, f.DB)
		if len(got) == 0 && oldest != 0 || len(got) > 0 && got[0].Sequence != oldest {
			t.Fatalf("%d events are kept, the first should be %d", len(got), oldest)
		}
		for name, p := range position {
			want := behind(p)
			b, err := f.DB.Backlog(name)
			if err != nil || b.Events != len(want) || b.Oldest.IsZero() != (len(want) == 0) {
				t.Fatalf("%s at %d: %+v, want %d, %v", name, p, b, len(want), err)
			}
			next, err := f.DB.ReadEvents(p, 1000, 1<<30)
			if err != nil || len(next) != len(want) {
				t.Fatalf("%s at %d: is handed %d events, want %d, %v", name, p, len(next), len(want), err)
			}
			for i, e := range next {
				if e.Sequence != want[i] {
					t.Fatalf("%s at %d: is handed %d, want %d", name, p, e.Sequence, want[i])
				}
			}
		}
	}
	append1()
	for name := range position {
		settle(name, last())
	}
	retain(len(logged))
	f.edit(func(tx *bolt.Tx) error {
		if v := tx.Bucket([]byte("meta")).Get([]byte("holes")); v != nil {
			t.Errorf("nothing is kept, and there is still %s", v)
		}
		return nil
	})
	checkState(t, f.DB)
}

// Check tells a hole that a restore has made from one where events are missing.
func TestCheckTellsHoles(t *testing.T) {
	for name, spoil := range map[string]func(meta, log *bolt.Bucket) error{
		"an event is gone": func(_, log *bolt.Bucket) error { return log.Delete(binary.BigEndian.AppendUint64(nil, 2)) },
		"the last one is":  func(_, log *bolt.Bucket) error { return log.Delete(binary.BigEndian.AppendUint64(nil, 3)) },
		"the hole is not known": func(meta, _ *bolt.Bucket) error {
			return meta.Delete([]byte("holes"))
		},
		"it is too long": func(meta, log *bolt.Bucket) error {
			return meta.Put([]byte("holes"), fmt.Appendf(nil, `{"v":1,"holes":[{"after":3,"last":%d}]}`, log.Sequence()+1))
		},
		"it is too early": func(meta, log *bolt.Bucket) error {
			return meta.Put([]byte("holes"), fmt.Appendf(nil, `{"v":1,"holes":[{"after":2,"last":%d}]}`, log.Sequence()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			logOf(t, f.DB, "a", "b", "c")
			_, _ = f.DB.OpenSink("archive", "file", true, day)
			f = openAt(t, backup(t, f.DB))
			checkState(t, f.DB)
			f.edit(func(tx *bolt.Tx) error { return spoil(tx.Bucket([]byte("meta")), tx.Bucket([]byte("events"))) })
			if err := f.DB.Check(); err == nil {
				t.Error("nothing is found")
			}
		})
	}
}
