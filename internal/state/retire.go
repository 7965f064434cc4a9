package state

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/event"
)

// retirePiece is how many events one transaction of RetireSink makes dead letters.
const retirePiece = 1000

// RetireSink makes dead letters of all that a sink which was removed has still to
// get: its queue, and the events behind its position that it wants (nil: all). Then
// it holds the log no more, until OpenSink takes it back. It returns how many there
// were; of a sink that is not removed, or retired already, none.
//
// It goes in small transactions, each of which takes events out of the queue or
// moves the position and puts their dead letters in: a crash in between leaves a
// sink of which the rest is retired by the next call, or delivered when it comes
// back. The last one says that it is retired.
func (db *DB) RetireSink(ctx context.Context, name string, want func(account, typ string) bool, now time.Time) (int, error) {
	total := 0
	for done := false; !done && ctx.Err() == nil; {
		n := 0
		err := db.update(func(tx *bolt.Tx) error {
			done = false
			v, err := getSink(tx, name)
			if err != nil {
				return err
			}
			if v.Removed == 0 || v.Retired {
				done = true
				return errUpToDate
			}
			q, err := openQueue(tx, name)
			if err != nil {
				return err
			}
			letters, err := q.openDead()
			if err != nil {
				return err
			}
			if n, err = q.retireQueue(letters, now); err != nil || n > 0 {
				return err
			}
			if n, v.Position, err = q.retireLog(letters, want, v.Position, now); err != nil {
				return err
			}
			v.Retired = v.Position == q.log.Sequence()
			done = v.Retired
			_, err = putSink(tx, name, &v)
			return err
		})
		if errors.Is(err, errUpToDate) {
			return total, nil
		}
		if err != nil {
			return total, fmt.Errorf("retire sink %s: %w", name, err)
		}
		total += n
	}
	return total, nil
}

// retireQueue makes dead letters of a piece of the queue, and returns of how many.
func (q *queue) retireQueue(letters deadLetters, now time.Time) (int, error) {
	before := q.waiting.Sequence()
	for size := 0; size < deadBytes && before-q.waiting.Sequence() < retirePiece; {
		k, raw := q.heads.Cursor().First()
		if k == nil {
			break
		}
		h, err := decodeHead(raw)
		if err != nil {
			return 0, fmt.Errorf("head of %s: %w", k, err)
		}
		if !h.leads() { // the first of its batch has its attempts
			leader, err := q.liveKey(h.batch)
			if err != nil {
				return 0, err
			}
			if first, found, err := q.head(leader); err != nil {
				return 0, err
			} else if found && first.seq == h.batch {
				k, h = leader, first
			}
		}
		f := h.failed(k)
		f.Reason = ReasonSinkRemoved
		if _, err := q.bury(letters, &f, now); err != nil {
			return 0, err
		}
		size += len(letters.b.Get(seqKey(f.Seq)))
	}
	return int(before - q.waiting.Sequence()), nil
}

// retireLog makes dead letters of a piece of the log behind the position, and
// returns of how many, and the new position.
func (q *queue) retireLog(letters deadLetters, want func(account, typ string) bool, position uint64, now time.Time) (n int, at uint64, err error) {
	ahead, err := readSequences(nested(q.tx, bucketRetries, q.sink).Get(keyAhead))
	if err != nil {
		return 0, 0, err
	}
	size, seen := 0, 0
	c := q.log.Cursor()
	k, line := c.Seek(seqKey(position + 1))
	for ; k != nil && seen < retirePiece && size < deadBytes; k, line = c.Next() {
		seq := binary.BigEndian.Uint64(k)
		h, err := event.ParseHeader(line)
		if err != nil {
			return 0, 0, fmt.Errorf("event %d: %w", seq, err)
		}
		position, seen = seq, seen+1
		if slices.Contains(ahead, seq) || want != nil && !want(h.Account, h.Type) {
			continue
		}
		if err := letters.put(&Failed{Seq: seq, Reason: ReasonSinkRemoved}, q.log, now); err != nil {
			return 0, 0, err
		}
		n, size = n+1, size+len(line)
	}
	if k == nil {
		position = q.log.Sequence() // there may be a hole behind the last event
	}
	if _, err := setAhead(q.tx, q.sink, ahead, position); err != nil {
		return 0, 0, err
	}
	return n, position, q.dropBatches(position)
}
