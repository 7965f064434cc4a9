package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	bolt "go.etcd.io/bbolt"
)

// beyond is by how much a copy raises the sequence at least: more events than any
// original logs after its backup was taken.
const beyond = 1_000_000_000_000

// Backup writes a copy of the file, as it is now, to w while everything else goes
// on, and returns how many bytes it wrote. The copy is marked: Open makes it a
// file of its own. After an error what w has got is not a state file.
//
// It is one read transaction, which lasts until w has taken all of it. For so
// long no page that a commit frees is used again: the file grows by about what is
// written meanwhile. A commit that outgrows the mapping of the file, and Close,
// wait for it. So a caller must bound how long w may take.
//
// # The mark
//
// bbolt's meta page has a field for flags that bbolt does not use, covers with
// the checksum of the page, and carries from each commit to the next. The two meta
// pages come first in the stream and are changed on the way, so the mark is in
// every copy, never in the original, and costs neither a second file nor a
// commit. It cannot be taken off in a transaction; instead it is a number, and
// meta/restored says which number has been dealt with: a file is a copy that
// nobody has opened yet exactly if its mark is the larger one, and the commit that
// deals with it makes them equal. Each backup is marked one higher than what its
// own content has dealt with, so copies of copies count on, and it does not
// matter whether the same backup is opened once or in ten places. A file that is
// compacted after that has no mark and is no new copy either.
func (db *DB) Backup(w io.Writer) (n int64, err error) {
	err = db.bolt.View(func(tx *bolt.Tx) error {
		mark := restored(tx) + 1
		n, err = tx.WriteTo(&markingWriter{w: w, mark: uint32(mark)})
		return err
	})
	if err != nil {
		return n, fmt.Errorf("back up the state file: %w", err)
	}
	return n, nil
}

// metaFlags is where the flags are in a meta.
const metaFlags = 12

// markingWriter marks the two meta pages at the beginning of a copy.
type markingWriter struct {
	w      io.Writer
	mark   uint32
	marked int // pages
}

// Write refuses what is not a meta page where one must be: should bbolt ever write
// its copies otherwise, there is no backup rather than one without its mark.
func (m *markingWriter) Write(b []byte) (int, error) {
	if m.marked < 2 {
		page := bytes.Clone(b) // bbolt goes on with its own
		meta := validMeta(page)
		if meta == nil {
			return 0, errors.New("the copy does not begin with two meta pages")
		}
		binary.NativeEndian.PutUint32(meta[metaFlags:], m.mark)
		binary.NativeEndian.PutUint64(meta[metaLength-8:], metaSum(meta))
		b = page
		m.marked++
	}
	return m.w.Write(b)
}

// markOf returns the mark of a file; 0: it is no copy. Every meta page that a file
// ever has carries the same one.
func markOf(f io.ReaderAt) uint64 {
	if m := newestMeta(f); m != nil {
		return uint64(binary.NativeEndian.Uint32(m[metaFlags:]))
	}
	return 0
}

// restored returns the mark that was dealt with last; 0: the file is no copy.
func restored(tx *bolt.Tx) uint64 { return number(tx, keyRestored) }

// number returns 8 bytes of meta; 0: they are not there.
func number(tx *bolt.Tx, key []byte) uint64 {
	if v := tx.Bucket(bucketMeta).Get(key); len(v) == 8 {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

func putNumber(tx *bolt.Tx, key []byte, n uint64) error {
	return tx.Bucket(bucketMeta).Put(key, binary.BigEndian.AppendUint64(nil, n))
}

// restore makes a copy a file of its own: from here on it and its original have
// nothing in common that both could use up.
//
//   - What was saved of budgets is stale. The original went on spending.
//   - The sequence is raised beyond any that the original can have given to an
//     event, and by the time in microseconds, so that two copies of one backup
//     part as well: neither logs a million events a second.
//   - Sinks forget what their medium holds. The original went on writing to it,
//     and its lines are none that this log would write.
//
// A crash before the commit leaves a copy that nobody has opened. Nothing else is
// sent, spent or written before it.
func (db *DB) restore(mark uint64, now time.Time) error {
	return db.update(func(tx *bolt.Tx) error {
		if err := spoilBudgets(tx); err != nil {
			return err
		}
		log := tx.Bucket(bucketEvents)
		last := log.Sequence()
		if err := log.SetSequence(last + beyond + uint64(max(now.UnixMicro(), 0))); err != nil {
			return err
		}
		if err := addHole(tx, last, log.Sequence()); err != nil {
			return err
		}
		if err := forgetMedia(tx); err != nil {
			return err
		}
		return putNumber(tx, keyRestored, mark)
	})
}

// spoilBudgets moves all that was saved of budgets to where it counts as stale.
func spoilBudgets(tx *bolt.Tx) error {
	stale, err := tx.CreateBucketIfNotExists(bucketStale)
	if err != nil {
		return err
	}
	budgets := tx.Bucket(bucketBudgets)
	names, err := keys(budgets)
	for _, name := range names {
		if err := errors.Join(stale.Put(name, bytes.Clone(budgets.Get(name))), budgets.Delete(name)); err != nil {
			return err
		}
	}
	return err
}

// forgetMedia drops the checkpoint of every sink.
func forgetMedia(tx *bolt.Tx) error {
	sinks := tx.Bucket(bucketSinks)
	names, err := keys(sinks)
	for _, name := range names {
		var v sinkValue
		if _, err := getJSON(sinks, name, &v); err != nil {
			return err
		}
		v.Checkpoint = nil
		if err := putJSON(sinks, name, v); err != nil {
			return err
		}
	}
	return err
}

// keys returns those of a small bucket, for one that is about to be changed.
func keys(b *bolt.Bucket) (out [][]byte, err error) {
	err = b.ForEach(func(k, _ []byte) error {
		out = append(out, bytes.Clone(k))
		return nil
	})
	return out, err
}

// Restored reports whether the file was a copy made by Backup, and Open has made
// it a file of its own just now.
func (db *DB) Restored() bool { return db.restored }

// LastCommit returns when the file was last written to before it was opened, by
// the clock of then, in whole milliseconds; zero: it is new, or has not been
// written to since syncd keeps that time.
func (db *DB) LastCommit() time.Time { return db.lastCommit }
