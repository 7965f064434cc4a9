package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Migrations is how many migrations there are: each needs a test.
func Migrations() int { return len(migrations) }

// NoSync makes commits return before they are on the disk.
func (db *DB) NoSync() { db.bolt.NoSync = true }

// Walk reads every key and value of the file.
func (db *DB) Walk() error {
	var walk func(b *bolt.Bucket) error
	walk = func(b *bolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error {
			if in := b.Bucket(k); in != nil {
				return walk(in)
			}
			bytes.Count(v, k) // reads both
			return nil
		})
	}
	return db.bolt.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bolt.Bucket) error { return walk(b) })
	})
}

// Verify looks whether bbolt could open and walk a file.
func Verify(f io.ReaderAt, size int64) error { return verify(f, size) }

// FailCommits lets every commit fail with err after a time, before it takes effect
// or after; with nil they succeed again.
func (db *DB) FailCommits(err error, took time.Duration, effect bool) {
	w := &db.writer
	if err == nil {
		w.transact = db.bolt.Update
		return
	}
	w.transact = func(fn func(*bolt.Tx) error) error {
		own := db.bolt.Update(func(tx *bolt.Tx) error {
			if own := fn(tx); own != nil || effect {
				return own
			}
			return err
		})
		if own != nil && own != err {
			return own
		}
		time.Sleep(took)
		return err
	}
}

// ListFrom sets how large a file must be to be closed with its free pages listed.
func (db *DB) ListFrom(size int64) { db.writer.listFrom = size }

// NoAnchor lets the first commit do without the fsync in front of it.
func (db *DB) NoAnchor() { db.writer.anchored.Store(true) }

// Kept says what is kept of a sink: the events that hold the log for it, where it
// stands, and whether it holds the log by that; no error for one that is not known.
func (db *DB) Kept(sink string) (waiting []uint64, position uint64, holds bool, err error) {
	err = db.bolt.View(func(tx *bolt.Tx) error {
		v, err := getSink(tx, sink)
		if errors.Is(err, ErrUnknown) {
			return nil
		}
		position, holds = v.Position, !v.Retired
		if q, ok := readQueue(tx, sink); ok && err == nil {
			err = q.waiting.ForEach(func(k, _ []byte) error {
				waiting = append(waiting, binary.BigEndian.Uint64(k))
				return nil
			})
		}
		return err
	})
	return waiting, position, holds, err
}

// Forgotten reports whether something is there that Sweep has to delete.
func (db *DB) Forgotten() (is bool, err error) {
	err = db.bolt.View(func(tx *bolt.Tx) error {
		k, _ := tx.Bucket(bucketForgotten).Cursor().First()
		is = k != nil
		return nil
	})
	return is, err
}

// SlowTransactions lets each transaction take a time before it is committed, and
// counts them.
func (db *DB) SlowTransactions(took time.Duration) (n *atomic.Int64) {
	w, next := &db.writer, db.writer.transact
	n = new(atomic.Int64)
	w.transact = func(fn func(*bolt.Tx) error) error {
		n.Add(1)
		time.Sleep(took)
		return next(fn)
	}
	return n
}

// RunTwice runs what each transaction is to do once in vain before, as it happens to
// the writes of a group of which one fails.
func (db *DB) RunTwice() {
	w, next := &db.writer, db.writer.transact
	inVain := errors.New("in vain")
	w.transact = func(fn func(*bolt.Tx) error) error {
		if !w.anchored.Load() { // as a group that fails does not undo that either
			return next(fn)
		}
		_ = db.bolt.Update(func(tx *bolt.Tx) error { return errors.Join(inVain, fn(tx)) })
		return next(fn)
	}
}

// GroupMost is how many writes share a transaction.
const GroupMost = groupMost

// PagesOf returns how many pages fn's commits write.
func (db *DB) PagesOf(fn func()) int64 {
	before := db.bolt.Stats().TxStats
	fn()
	after := db.bolt.Stats().TxStats
	return after.GetWrite() - before.GetWrite()
}

// Filled returns how much of the leaf pages of root buckets is used, in percent.
func (db *DB) Filled(roots ...string) map[string]int {
	out := make(map[string]int)
	_ = db.bolt.View(func(tx *bolt.Tx) error {
		for _, name := range roots {
			s := tx.Bucket([]byte(name)).Stats()
			out[name] = 100 * s.LeafInuse / max(s.LeafAlloc, 1)
		}
		return nil
	})
	return out
}
