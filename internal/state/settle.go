package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Settlement is what came of a sink's deliveries.
type Settlement struct {
	Position   uint64          // the sink needs nothing up to here any more, but for what is Failed
	Checkpoint json.RawMessage // the sink's own, to be kept with its position; nil: the old one
	Failed     []Failed        // join the queue, in the order of the log; beyond Position they are in Ahead too. Also such as leave it in the same settlement
	Delivered  []Failed        // heads that leave the queue, with their batch; of the lane Retried the dead letter goes too
	Attempts   []Failed        // heads that were tried in vain
	Dead       []Failed        // given up, with Reason: heads, with their batch, or events that are in no queue, at or before Position or in Ahead
	Ahead      []uint64        // all events beyond Position that are done: delivered, queued, dead, not wanted
	Batches    []Batch         // about to be sent for the first time
	Unbatch    []uint64        // the first events of saved batches that are no more: what is in the queue of them goes on its own, as often tried as the first
	Hold       *time.Time      // the endpoint asks to be left alone until then; zero: no more; nil: nothing new
	Gone       *Gone           // the endpoint is gone; nil: nothing new
}

// Settle commits a group of outcomes at once: no event is ever neither behind the
// position nor in the queue nor a dead letter. Where an event leaves the queue the
// next of its subject is due at once. A crash before it repeats their deliveries,
// whose ids the receiver knows. A position is never moved back. To commit the same
// settlement twice is harmless, as long as none of its events was sent in between.
func (db *DB) Settle(sink string, now time.Time, s Settlement) error {
	err := db.update(func(tx *bolt.Tx) error {
		v, err := getSink(tx, sink)
		if err != nil {
			return err
		}
		before := v.Position
		v.Position = max(v.Position, s.Position)
		if s.Checkpoint != nil {
			v.Checkpoint = s.Checkpoint
		}
		if s.Hold != nil {
			v.Hold = milli(*s.Hold)
		}
		if s.Gone != nil {
			v.Gone = &goneValue{At: milli(s.Gone.At), Event: s.Gone.Event, Answer: s.Gone.Answer}
		}
		if err := s.queue(tx, sink, before, v.Position, now); err != nil {
			return err
		}
		_, err = putSink(tx, sink, &v)
		return err
	})
	if err != nil {
		return fmt.Errorf("settle deliveries of sink %s: %w", sink, err)
	}
	return nil
}

// queue carries out the part of a settlement that is about the retry queue. What
// is acknowledged or dead goes before what is taken apart: a batch that is in both
// is gone.
func (s *Settlement) queue(tx *bolt.Tx, sink string, before, position uint64, now time.Time) error {
	known := nested(tx, bucketRetries, sink) != nil
	if !known && len(s.Failed)+len(s.Dead)+len(s.Ahead)+len(s.Batches) == 0 {
		return nil // a sink that has no queue, as a file
	}
	if known && len(s.Failed)+len(s.Dead)+len(s.Batches)+len(s.Attempts)+len(s.Delivered)+len(s.Unbatch) == 0 {
		_, err := setAhead(tx, sink, s.Ahead, position)
		return err
	}
	q, err := openQueue(tx, sink)
	if err != nil {
		return err
	}
	was, err := setAhead(tx, sink, s.Ahead, position)
	if err != nil {
		return err
	}
	if err := q.join(s.Failed, before, was); err != nil {
		return err
	}
	for _, b := range s.Batches {
		if err := q.saveBatch(b); err != nil {
			return err
		}
	}
	if err := q.record(s.Attempts); err != nil {
		return err
	}
	for i := range s.Delivered {
		if err := q.deliver(&s.Delivered[i], now); err != nil {
			return err
		}
	}
	if err := q.buryAll(s.Dead, before, was, now); err != nil {
		return err
	}
	for _, first := range s.Unbatch {
		if err := q.unbatch(first); err != nil {
			return err
		}
	}
	return nil
}

// setAhead saves which events beyond the position of a sink are done, and returns
// the list as it was, as it is kept. The sink's retry queue is there.
func setAhead(tx *bolt.Tx, sink string, ahead []uint64, position uint64) ([]byte, error) {
	b := nested(tx, bucketRetries, sink)
	ahead = slices.Sorted(slices.Values(ahead))
	ahead = slices.DeleteFunc(slices.Compact(ahead), func(seq uint64) bool { return seq <= position })
	was, is := b.Get(keyAhead), appendSequences(nil, ahead)
	switch {
	case bytes.Equal(was, is):
		return was, nil
	case len(is) == 0:
		return was, b.Delete(keyAhead)
	}
	return was, b.Put(keyAhead, is)
}

// join lets events join the queue. Those of a batch that failed go with the first
// of it. What was done before, and is not there, has joined and left it by this very
// settlement already.
func (q *queue) join(failed []Failed, before uint64, wasAhead []byte) error {
	if len(failed) == 0 {
		return nil
	}
	ahead, err := readSequences(wasAhead)
	if err != nil {
		return err
	}
	batches := make(map[uint64]uint64) // first member by member
	for i := range failed {
		if failed[i].Batch == 0 {
			continue
		}
		members, err := q.members(failed[i].Batch)
		if err != nil {
			return err
		}
		for _, seq := range members {
			batches[seq] = failed[i].Batch
		}
	}
	for i := range failed {
		seq := failed[i].Seq
		_, done := slices.BinarySearch(ahead, seq)
		if (done || seq <= before) && q.waiting.Get(seqKey(seq)) == nil {
			continue
		}
		if _, err := q.enqueue(&failed[i], batches[failed[i].Seq]); err != nil {
			return err
		}
	}
	return nil
}

// deliver takes a head out of the queue, with all that went in its request. What
// is no head any more is passed over.
func (q *queue) deliver(f *Failed, now time.Time) error {
	key := []byte(f.QueueKey())
	h, found, err := q.head(key)
	switch {
	case err != nil || !found || h.seq != f.Seq:
		return err
	case h.batch != 0:
		return q.takeBatch(h.batch, now, func(uint64, []byte) error { return nil })
	}
	if _, err := q.remove(f.Lane, key, f.Seq, now); err != nil || f.Lane != Retried {
		return err
	}
	dead, err := q.openDead()
	if err != nil {
		return err
	}
	return dead.delete(f.Seq)
}
