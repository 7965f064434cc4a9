package state

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
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

// QueuedBatch is what may go in one request out of a sink's retry queue.
type QueuedBatch struct {
	Head   Failed         // of the first event; with Batch it is saved already. First is no earlier than that of any event
	Events []event.Logged // in order
	Full   bool           // one more would have been too many
}

// DueBatches gathers up to limit batches of heads that are due at now and were
// never tried, without those for which skip returns true, each with as many of the
// events that follow it as there is room for: up to so many events and bytes in a
// batch, or one event. A saved batch comes as it is. It also returns when the first
// head that is not due will be; zero: it has not come to one.
func (db *DB) DueBatches(sink string, now time.Time, limit, events, bytes int, skip func(Failed) bool) (out []QueuedBatch, next time.Time, err error) {
	err = db.view(sink, func(q *queue) error {
		g := gatherer{queue: q, events: events, bytes: bytes}
		c := q.due.Cursor()
		for k, _ := c.Seek([]byte{byte(FirstTry)}); k != nil && k[0] == byte(FirstTry) && len(g.full) < limit; k, _ = c.Next() {
			key := dueQueueKey(k)
			h, found, err := q.head(key)
			if err != nil || !found {
				return errOr(err, fmt.Sprintf("%s is due and has no head", key))
			}
			f := h.failed(key)
			if f.Next.After(now) {
				next = f.Next
				break
			}
			if skip(f) {
				continue
			}
			if err := g.take(key, &h, f); err != nil {
				return err
			}
		}
		if out = g.full; len(g.open.Events) > 0 && len(out) < limit {
			g.sort()
			out = append(out, g.open)
		}
		return nil
	})
	return out, next, err
}

// gatherer makes batches of heads and what follows them.
type gatherer struct {
	*queue
	events, bytes int // bounds of a batch
	full          []QueuedBatch
	open          QueuedBatch
	size          int // of open, in bytes
}

// take adds a head, and what follows it as far as there is room: the rest must not
// go beside it in another batch.
func (g *gatherer) take(key []byte, h *head, f Failed) error {
	if f.Batch != 0 {
		saved := QueuedBatch{Head: f, Full: true}
		members, err := g.members(f.Batch)
		for _, seq := range members {
			if err == nil {
				err = g.read(&saved, seq)
			}
		}
		g.full = append(g.full, saved)
		return err
	}
	if !g.fits(h.seq) {
		g.close()
	}
	if len(g.open.Events) == 0 {
		g.open.Head = f
	} else if g.young(f.First); f.Seq < g.open.Head.Seq {
		f.First, g.open.Head = g.open.Head.First, f
	}
	if err := g.add(h.seq); err != nil {
		return err
	}
	prefix := followerPrefix(key)
	c := g.followers.Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		seq := binary.BigEndian.Uint64(k[len(prefix):])
		if !g.fits(seq) {
			g.close()
			break
		}
		first, _ := binary.Uvarint(v)
		g.young(fromMilli(int64(first)))
		if err := g.add(seq); err != nil {
			return err
		}
	}
	return nil
}

// young has the open batch count from the youngest first attempt in it; zero: there
// is an event that had none.
func (g *gatherer) young(first time.Time) {
	if at := &g.open.Head.First; first.IsZero() || !at.IsZero() && first.After(*at) {
		*at = first
	}
}

func (g *gatherer) fits(seq uint64) bool {
	n := len(g.open.Events)
	return n == 0 || n < g.events && g.size+len(g.log.Get(seqKey(seq))) <= g.bytes
}

func (g *gatherer) add(seq uint64) error {
	g.size += len(g.log.Get(seqKey(seq)))
	return g.read(&g.open, seq)
}

func (g *gatherer) read(b *QueuedBatch, seq uint64) error {
	raw := g.log.Get(seqKey(seq))
	h, err := event.ParseHeader(raw)
	if err != nil {
		return fmt.Errorf("event %d: %w", seq, err)
	}
	b.Events = append(b.Events, event.Logged{Header: h, JSON: bytes.Clone(raw)})
	return nil
}

// close ends the open batch, which has room for no more.
func (g *gatherer) close() {
	g.sort()
	g.open.Full = true
	g.full = append(g.full, g.open)
	g.open, g.size = QueuedBatch{}, 0
}

func (g *gatherer) sort() {
	slices.SortFunc(g.open.Events, func(a, b event.Logged) int { return cmp.Compare(a.Sequence, b.Sequence) })
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
// heads that were never tried, with the next events of their subjects: these go
// with the first of them from now on.
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
