package state

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/event"
)

func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// LastSequence returns the highest sequence ever given out, as a rule that of the
// newest event; 0: none.
func (db *DB) LastSequence() (uint64, error) {
	var seq uint64
	err := db.bolt.View(func(tx *bolt.Tx) error {
		seq = tx.Bucket(bucketEvents).Sequence()
		return nil
	})
	return seq, err
}

// ReadEvents returns events of the log after a sequence, oldest first: at most
// count of them, and no more once they have size bytes together, but at least
// one where there is one.
func (db *DB) ReadEvents(after uint64, count, size int) ([]event.Logged, error) {
	var out []event.Logged
	err := db.bolt.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketEvents).Cursor()
		for k, v := c.Seek(seqKey(after + 1)); k != nil && len(out) < count && size > 0; k, v = c.Next() {
			h, err := event.ParseHeader(v)
			if err != nil {
				return fmt.Errorf("event %d: %w", binary.BigEndian.Uint64(k), err)
			}
			out = append(out, event.Logged{Header: h, JSON: bytes.Clone(v)})
			size -= len(v)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the event log: %w", err)
	}
	return out, nil
}

// Event returns one event of the log; false: it is not there.
func (db *DB) Event(seq uint64) (event.Logged, bool, error) {
	events, err := db.ReadEvents(seq-1, 1, 1)
	if err != nil || len(events) == 0 || events[0].Sequence != seq {
		return event.Logged{}, false, err
	}
	return events[0], true, nil
}

// Events yields the log after a sequence, reading it in pieces.
func (db *DB) Events(after uint64) iter.Seq2[event.Logged, error] {
	return func(yield func(event.Logged, error) bool) {
		for {
			events, err := db.ReadEvents(after, 256, 1<<20)
			if err != nil {
				yield(event.Logged{}, err)
				return
			}
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
				after = e.Sequence
			}
			if len(events) == 0 {
				return
			}
		}
	}
}

// retainPiece is how many events one transaction of Retain deletes: few enough
// that a page never waits long for its turn.
const retainPiece = 1000

// Retain deletes the events that were recorded before a time and that no sink
// needs, in small transactions, and returns how many. Sinks that have left the
// configuration hold the log too, until RetireSink makes dead letters of what
// they never got.
func (db *DB) Retain(ctx context.Context, before time.Time) (int, error) {
	total := 0
	for ctx.Err() == nil {
		n := 0
		err := db.update(func(tx *bolt.Tx) error {
			log := tx.Bucket(bucketEvents)
			needed, err := firstNeeded(tx)
			if err != nil {
				return err
			}
			var keys [][]byte
			c := log.Cursor()
			for k, v := c.First(); k != nil && len(keys) < retainPiece; k, v = c.Next() {
				h, err := event.ParseHeader(v)
				if err != nil {
					return err
				}
				if binary.BigEndian.Uint64(k) >= needed || !h.Recorded.Before(before) {
					break
				}
				keys = append(keys, bytes.Clone(k))
			}
			if len(keys) == 0 {
				return errUpToDate
			}
			for _, k := range keys {
				if err := log.Delete(k); err != nil {
					return err
				}
			}
			n = len(keys)
			return dropHoles(tx, needed)
		})
		if errors.Is(err, errUpToDate) {
			return total, nil
		}
		if err != nil {
			return total, fmt.Errorf("delete old events: %w", err)
		}
		total += n
	}
	return total, nil
}
