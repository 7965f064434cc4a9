package state

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"slices"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/event"
)

// sinks checks what is kept of sinks, and that nothing is kept of one that is not
// known.
func (c *check) sinks(tx *bolt.Tx, known holes) {
	sinks := tx.Bucket(bucketSinks)
	for _, root := range sinkBuckets {
		_ = tx.Bucket(root).ForEachBucket(func(name []byte) error {
			if sinks.Get(name) == nil {
				c.add("%s of %s, which is no sink", root, name)
			}
			return nil
		})
	}
	_ = sinks.ForEach(func(name, raw []byte) error {
		c.sink(tx, known, string(name), raw)
		return nil
	})
}

func (c *check) sink(tx *bolt.Tx, known holes, name string, raw []byte) {
	var v sinkValue
	if err := json.Unmarshal(raw, &v); err != nil {
		c.add("sink %s: %w", name, err)
		return
	}
	log := tx.Bucket(bucketEvents)
	if v.Position > log.Sequence() {
		c.add("sink %s stands at %d of %d", name, v.Position, log.Sequence())
	}
	if next := known.next(v.Position); !v.Retired && next <= log.Sequence() && log.Get(seqKey(next)) == nil {
		c.add("sink %s needs event %d, which is gone", name, next)
	}
	if v.Retired && v.Removed == 0 {
		c.add("sink %s is retired and was not removed", name)
	}
	q, ok := readQueue(tx, name)
	if !ok {
		if nested(tx, bucketDead, name) != nil {
			c.add("sink %s has dead letters and no retry queue", name)
		}
		return
	}
	if q.heads == nil || q.due == nil || q.followers == nil || q.waiting == nil || q.batches == nil {
		c.add("retry queue of %s: a part is missing", name)
		return
	}
	ahead, err := readSequences(nested(tx, bucketRetries, name).Get(keyAhead))
	if err != nil {
		c.add("sink %s: what is ahead of it: %w", name, err)
	}
	for _, seq := range ahead {
		if seq <= v.Position || log.Get(seqKey(seq)) == nil {
			c.add("sink %s stands at %d, and event %d is ahead of it", name, v.Position, seq)
		}
	}
	done := func(seq uint64) bool { return seq <= v.Position || slices.Contains(ahead, seq) }
	heads := c.queue(q, done)
	c.batches(q, heads, done)
	c.dead(q, done)
}

// queue checks that the parts of a retry queue say the same, and returns its heads.
func (c *check) queue(q *queue, done func(seq uint64) bool) map[string]head {
	letters, _ := readDead(q.tx, q.sink)
	waits := make(map[uint64]bool)
	entries := 0
	wait := func(seq uint64, queueKey []byte) {
		entries++
		lane, key := parseQueueKey(queueKey)
		line := q.log.Get(seqKey(seq))
		if lane == Retried {
			if line = nil; letters.b != nil {
				if v, err := letters.get(seq); err == nil && v != nil {
					line = v.body
				}
			}
		} else {
			if waits[seq] {
				c.add("retry queue of %s: event %d is there twice", q.sink, seq)
			}
			waits[seq] = true
			if q.waiting.Get(seqKey(seq)) == nil {
				c.add("retry queue of %s: event %d does not hold the log", q.sink, seq)
			}
		}
		if h, err := event.ParseHeader(line); err != nil || h.PartitionKey != key || h.Sequence != seq {
			c.add("retry queue of %s: event %d of %s is not there", q.sink, seq, queueKey)
		}
		if !done(seq) {
			c.add("retry queue of %s: event %d is behind the position too", q.sink, seq)
		}
	}
	heads := make(map[string]head)
	leading := 0
	_ = q.heads.ForEach(func(k, raw []byte) error {
		h, err := decodeHead(raw)
		if err != nil {
			c.add("retry queue of %s: head of %s: %w", q.sink, k, err)
			return nil
		}
		heads[string(k)] = h
		wait(h.seq, k)
		if h.leads() {
			leading++
		}
		return nil
	})
	due := 0
	_ = q.due.ForEach(func(k, _ []byte) error {
		due++
		if h, ok := heads[string(dueQueueKey(k))]; !ok || !h.leads() || !bytes.Equal(h.dueKey(dueQueueKey(k)), k) {
			c.add("retry queue of %s: %s is due otherwise than its head says", q.sink, dueQueueKey(k))
		}
		return nil
	})
	if due != leading {
		c.add("retry queue of %s: %d heads go on their own, and %d are due", q.sink, leading, due)
	}
	_ = q.followers.ForEach(func(k, _ []byte) error {
		key, seq := k[:len(k)-9], binary.BigEndian.Uint64(k[len(k)-8:])
		wait(seq, key)
		// Only the lane Live keeps an order.
		if h, ok := heads[string(key)]; !ok || h.seq == seq || laneOf(key) == Live && h.seq > seq {
			c.add("retry queue of %s: event %d of %s follows no earlier head", q.sink, seq, key)
		}
		return nil
	})
	_ = q.waiting.ForEach(func(k, _ []byte) error {
		if !waits[binary.BigEndian.Uint64(k)] {
			c.add("retry queue of %s: event %d holds the log and is no part of the queue", q.sink, binary.BigEndian.Uint64(k))
		}
		return nil
	})
	if uint64(entries) != q.waiting.Sequence() {
		c.add("retry queue of %s: %d events wait, %d are counted", q.sink, entries, q.waiting.Sequence())
	}
	return heads
}

// batches checks that saved batches and their members know each other.
func (c *check) batches(q *queue, heads map[string]head, done func(seq uint64) bool) {
	linked, batchOf := 0, make(map[uint64]uint64)
	_ = q.batches.ForEach(func(k, raw []byte) error {
		first := binary.BigEndian.Uint64(k)
		members, err := readSequences(raw)
		if err != nil || len(members) == 0 || members[0] != first {
			c.add("batch %d of %s cannot be read, or is another: %v", first, q.sink, err)
			return nil
		}
		for _, seq := range members {
			if other, ok := batchOf[seq]; ok {
				c.add("event %d is in the batches %d and %d of %s", seq, other, first, q.sink)
			}
			batchOf[seq] = first
			if q.waiting.Get(seqKey(seq)) == nil && done(seq) {
				c.add("batch %d of %s: event %d is done", first, q.sink, seq)
			}
			if q.log.Get(seqKey(seq)) == nil {
				c.add("batch %d of %s: event %d is not in the log", first, q.sink, seq)
			}
		}
		err = q.eachHead(members, func(key []byte, h *head) error {
			if linked++; h.batch != first {
				c.add("batch %d of %s: the head of %s is in batch %d", first, q.sink, key, h.batch)
			}
			return nil
		})
		if err != nil {
			c.add("batch %d of %s: %w", first, q.sink, err)
		}
		return nil
	})
	for key, h := range heads {
		if h.batch != 0 {
			linked--
			if laneOf([]byte(key)) != Live || batchOf[h.seq] != h.batch {
				c.add("retry queue of %s: the head of %s is in batch %d, which does not know it", q.sink, key, h.batch)
			}
		}
	}
	if linked != 0 {
		c.add("the batches of %s have %d members that do not know them", q.sink, linked)
	}
}

// dead checks that every dead letter holds its event, and that they are counted.
func (c *check) dead(q *queue, done func(seq uint64) bool) {
	d, ok := readDead(q.tx, q.sink)
	if !ok {
		return
	}
	n := 0
	_ = d.b.ForEach(func(k, raw []byte) error {
		n++
		seq := binary.BigEndian.Uint64(k)
		v, err := decodeDead(raw)
		if err != nil || v.V != 1 || v.Reason == "" || !json.Valid(raw) {
			c.add("dead letter %d of %s cannot be read: %v", seq, q.sink, err)
			return nil
		}
		if h, err := event.ParseHeader(v.body); err != nil || h.Sequence != seq {
			c.add("dead letter %d of %s holds event %d: %v", seq, q.sink, h.Sequence, err)
		}
		if !done(seq) {
			c.add("dead letter %d of %s is behind the position too", seq, q.sink)
		}
		return nil
	})
	if uint64(n) != d.b.Sequence() {
		c.add("%d dead letters of %s, %d are counted", n, q.sink, d.b.Sequence())
	}
}
