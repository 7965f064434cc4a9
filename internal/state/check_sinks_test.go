package state_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// Check tells whatever is wrong with a sink. The file is fill's: its sink crm stands
// at 4; 6, 7 and 9 are ahead; 2 and 3 wait, 6 and 7 as a batch, 4 to be replayed; 1 is
// a dead letter that is retried; 5 and 10 are a batch on its way.
func TestCheckTellsSinks(t *testing.T) {
	seq := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	const (
		tried  = "shop-a/question/q3"
		member = "shop-a/question/f002"
		replay = "!p/" + tried
	)
	type sink struct{ root, heads, due, followers, waiting, batches, dead *bolt.Bucket }
	dueOf := func(s sink, key string) []byte {
		c := s.due.Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			if string(k[9:]) == key {
				return bytes.Clone(k)
			}
		}
		return nil
	}
	drop := func(b *bolt.Bucket, key []byte) error {
		if b.Get(key) == nil {
			return errors.New("there is nothing to spoil")
		}
		return b.Delete(key)
	}
	head := func(s sink, key string, at int, to byte) error {
		raw := bytes.Clone(s.heads.Get([]byte(key)))
		raw[at] = to
		return s.heads.Put([]byte(key), raw)
	}
	files := open(t)
	fill(t, files.DB)
	files.Close()
	for name, spoil := range map[string]func(s sink) error{
		"a head is not due":           func(s sink) error { return drop(s.due, dueOf(s, tried)) },
		"a replay is not due":         func(s sink) error { return drop(s.due, dueOf(s, replay)) },
		"due, and no head":            func(s sink) error { return s.due.Put(append(make([]byte, 9), "shop-a/x"...), []byte{}) },
		"due twice":                   func(s sink) error { return s.due.Put(append(make([]byte, 9), tried...), []byte{}) },
		"a member is due":             func(s sink) error { return s.due.Put(append(make([]byte, 9), member...), []byte{}) },
		"another format":              func(s sink) error { return head(s, tried, 0, 2) },
		"cut short":                   func(s sink) error { return s.heads.Put([]byte(tried), []byte{1, 2}) },
		"no head":                     func(s sink) error { return drop(s.heads, []byte(tried)) },
		"behind its follower":         func(s sink) error { return head(s, tried, 1, 4) },
		"another event's":             func(s sink) error { return s.heads.Put([]byte("shop-a/x"), s.heads.Get([]byte(tried))) },
		"tried, and not due as such":  func(s sink) error { return head(s, tried, 3, 0) },
		"a follower twice":            func(s sink) error { return s.followers.Put(append([]byte(tried+"\x00"), seq(2)...), []byte{}) },
		"no follower":                 func(s sink) error { return drop(s.followers, append([]byte(tried+"\x00"), seq(3)...)) },
		"it does not hold the log":    func(s sink) error { return drop(s.waiting, seq(4)) },
		"it holds the log for nobody": func(s sink) error { return s.waiting.Put(seq(8), []byte{}) },
		"counts of the queue":         func(s sink) error { return s.waiting.SetSequence(5) },
		"retried, and no dead letter": func(s sink) error {
			return errors.Join(drop(s.dead, seq(1)), s.dead.SetSequence(0))
		},
		"a batch that is not saved":   func(s sink) error { return drop(s.batches, seq(6)) },
		"a batch without its member":  func(s sink) error { return s.batches.Put(seq(6), []byte{6}) },
		"in two batches":              func(s sink) error { return s.batches.Put(seq(7), []byte{7}) },
		"a member in no batch":        func(s sink) error { return head(s, member, 2, 0) },
		"a batch of what is done":     func(s sink) error { return s.batches.Put(seq(9), []byte{9}) },
		"a batch of nothing":          func(s sink) error { return s.batches.Put(seq(8), []byte{}) },
		"a batch beyond the log":      func(s sink) error { return s.batches.Put(seq(5), []byte{5, 0xff, 0xff, 3}) },
		"ahead is spoilt":             func(s sink) error { return s.root.Put([]byte("ahead"), []byte{0xff}) },
		"ahead, and passed":           func(s sink) error { return s.root.Put([]byte("ahead"), []byte{3, 3, 1, 2}) },
		"queued, and behind":          func(s sink) error { return s.root.Put([]byte("ahead"), []byte{6, 3}) },
		"counts of dead letters":      func(s sink) error { return s.dead.SetSequence(2) },
		"another event's dead letter": func(s sink) error { return s.dead.Put(seq(2), s.dead.Get(seq(1))) },
		"a dead letter without reason": func(s sink) error {
			return s.dead.Put(seq(1), bytes.Replace(s.dead.Get(seq(1)), []byte(`"refused"`), []byte(`""`), 1))
		},
		"a dead letter without an event": func(s sink) error { return s.dead.Put(seq(1), []byte(`{"v":1,"reason":"refused"}`)) },
		"a part is missing":              func(s sink) error { return s.root.DeleteBucket([]byte("batches")) },
		"no sink":                        func(s sink) error { return drop(s.root.Tx().Bucket([]byte("sinks")), []byte("crm")) },
		"retired, and there": func(s sink) error {
			sinks := s.root.Tx().Bucket([]byte("sinks"))
			return sinks.Put([]byte("crm"), []byte(strings.Replace(string(sinks.Get([]byte("crm"))), `"hold"`, `"retired":true,"hold"`, 1)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := openAt(t, plainCopy(t, files.cfg.Path))
			checkState(t, f.DB)
			f.edit(func(tx *bolt.Tx) error {
				s := sink{root: tx.Bucket([]byte("retries")).Bucket([]byte("crm")), dead: tx.Bucket([]byte("dead")).Bucket([]byte("crm"))}
				s.heads, s.due, s.followers = s.root.Bucket([]byte("heads")), s.root.Bucket([]byte("due")), s.root.Bucket([]byte("followers"))
				s.waiting, s.batches = s.root.Bucket([]byte("waiting")), s.root.Bucket([]byte("batches"))
				return spoil(s)
			})
			if err := f.Check(); err == nil {
				t.Error("nothing is found")
			}
		})
	}
}
