package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/event"
)

// Batch is which events go in one request. It is saved before that is sent, so
// that a repeat is the same request, and named by its first event.
type Batch struct {
	Members []uint64 // sequences, ascending
}

// BatchEvents returns the members of a saved batch, in order. There are none where
// it is not saved.
func (db *DB) BatchEvents(sink string, first uint64) ([]event.Logged, error) {
	var out []event.Logged
	err := db.bolt.View(func(tx *bolt.Tx) error {
		q, ok := readQueue(tx, sink)
		if !ok {
			return nil
		}
		members, err := q.members(first)
		for _, seq := range members {
			raw := q.log.Get(seqKey(seq))
			h, err := event.ParseHeader(raw)
			if err != nil {
				return fmt.Errorf("event %d: %w", seq, err)
			}
			out = append(out, event.Logged{Header: h, JSON: bytes.Clone(raw)})
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read batch %d of sink %s: %w", first, sink, err)
	}
	return out, nil
}

// unqueuedBatches returns the saved batches of a sink that have a member which is
// not in its queue.
func unqueuedBatches(root *bolt.Bucket) ([]Batch, error) {
	var out []Batch
	waiting := root.Bucket(bucketWaiting)
	err := root.Bucket(bucketBatches).ForEach(func(_, raw []byte) error {
		members, err := readSequences(raw)
		for _, seq := range members {
			if waiting.Get(seqKey(seq)) == nil {
				out = append(out, Batch{members})
				break
			}
		}
		return err
	})
	return out, err
}

// members returns those of a saved batch; none: it is not saved.
func (q *queue) members(first uint64) ([]uint64, error) {
	return readSequences(q.batches.Get(seqKey(first)))
}

// saveBatch saves a batch that is about to be sent. Its members are fresh, or
// heads that were never tried: these go with the first of them from now on.
func (q *queue) saveBatch(b Batch) error {
	if len(b.Members) == 0 {
		return errors.New("a batch without members")
	}
	first := b.Members[0]
	if err := q.batches.Put(seqKey(first), appendSequences(nil, b.Members)); err != nil {
		return err
	}
	return q.eachHead(b.Members, func(key []byte, h *head) error {
		linked := *h
		linked.batch = first
		return q.setHead(key, h, &linked)
	})
}

// eachHead calls fn for those of some events that are heads of the lane Live.
func (q *queue) eachHead(members []uint64, fn func(key []byte, h *head) error) error {
	for _, seq := range members {
		if q.waiting.Get(seqKey(seq)) == nil {
			continue
		}
		key, err := q.liveKey(seq)
		if err != nil {
			return err
		}
		h, found, err := q.head(key)
		if err != nil {
			return err
		}
		if found && h.seq == seq {
			if err := fn(key, &h); err != nil {
				return err
			}
		}
	}
	return nil
}

// unbatch forgets that events go together. Those that are in the queue have been
// tried as often as the first of them, and are due with it.
func (q *queue) unbatch(first uint64) error {
	members, err := q.members(first)
	if err != nil {
		return err
	}
	var leader *head // the first member comes first
	err = q.eachHead(members, func(key []byte, h *head) error {
		if h.batch != first {
			return nil
		}
		alone := *h
		if h.seq == first {
			leader = h
		} else if leader != nil {
			alone = *leader
			alone.seq, alone.refused = h.seq, 0
		}
		alone.batch = 0
		return q.setHead(key, h, &alone)
	})
	if err != nil {
		return err
	}
	return q.batches.Delete(seqKey(first))
}

// takeBatch takes all members of a batch out of the queue, calling fn for each
// before.
func (q *queue) takeBatch(first uint64, now time.Time, fn func(seq uint64, key []byte) error) error {
	members, err := q.members(first)
	if err != nil || len(members) == 0 {
		return errOr(err, fmt.Sprintf("batch %d is not saved", first))
	}
	for _, seq := range members {
		if q.waiting.Get(seqKey(seq)) == nil {
			continue
		}
		key, err := q.liveKey(seq)
		if err != nil {
			return err
		}
		if err := fn(seq, key); err != nil {
			return err
		}
		if _, err := q.remove(Live, key, seq, now); err != nil {
			return err
		}
	}
	return q.batches.Delete(seqKey(first))
}

// dropBatches forgets the saved batches that begin at or before a position.
func (q *queue) dropBatches(position uint64) error {
	var passed [][]byte
	c := q.batches.Cursor()
	for k, _ := c.First(); k != nil && binary.BigEndian.Uint64(k) <= position; k, _ = c.Next() {
		passed = append(passed, bytes.Clone(k))
	}
	for _, k := range passed {
		if err := q.batches.Delete(k); err != nil {
			return err
		}
	}
	return nil
}
