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

const (
	replayPiece = 1000   // events that one transaction queues
	replayScan  = 10_000 // events that it looks at
)

// QueueReplay queues the kept events that were recorded in [since, until) and are
// wanted (nil: all) in the lane Replay of a sink, due at once, and returns how many.
// Those that wait in its queue, or that it has not got to, are on their way anyway
// and are left out; those beyond its position that are done are not. It goes in small transactions: after a crash those that were
// queued are sent, and the same call queues the rest, and again what was sent
// meanwhile. It returns ErrUnknown for a sink that never was.
func (db *DB) QueueReplay(ctx context.Context, sink string, want func(event.Header) bool, since, until time.Time) (int, error) {
	total := 0
	after, last := uint64(0), uint64(0)
	var ahead []uint64
	err := db.bolt.View(func(tx *bolt.Tx) error {
		v, err := getSink(tx, sink)
		if err != nil {
			return err
		}
		last = v.Position // what it gets while this goes on is left out too
		if b := nested(tx, bucketRetries, sink); b != nil {
			ahead, err = readSequences(b.Get(keyAhead))
		}
		return err
	})
	done := func(seq uint64) bool {
		_, found := slices.BinarySearch(ahead, seq)
		return found || seq <= last
	}
	end := last
	if n := len(ahead); n > 0 {
		end = max(end, ahead[n-1])
	}
	for err == nil && after < end {
		if err = ctx.Err(); err != nil {
			break
		}
		n, at := 0, after
		err = db.update(func(tx *bolt.Tx) (err error) {
			q, err := openQueue(tx, sink)
			if err != nil {
				return err
			}
			n, at, err = q.replay(want, since, until, after, end, done)
			if err == nil && n == 0 {
				return errUpToDate
			}
			return err
		})
		if errors.Is(err, errUpToDate) {
			err = nil
		}
		if err == nil {
			total, after = total+n, at
		}
	}
	if err != nil {
		return total, fmt.Errorf("queue a replay for sink %s: %w", sink, err)
	}
	return total, nil
}

// replay queues a piece of a replay; it returns how many events, and the last that
// it looked at.
func (q *queue) replay(want func(event.Header) bool, since, until time.Time, after, last uint64, done func(seq uint64) bool) (n int, at uint64, err error) {
	now, seen := time.Now(), 0
	c := q.log.Cursor()
	for k, v := c.Seek(seqKey(after + 1)); k != nil && n < replayPiece && seen < replayScan; k, v = c.Next() {
		seq := binary.BigEndian.Uint64(k)
		if seq > last {
			break
		}
		h, err := event.ParseHeader(v)
		if err != nil {
			return 0, 0, fmt.Errorf("event %d: %w", seq, err)
		}
		after, seen = seq, seen+1
		if h.Recorded.Before(since) || !h.Recorded.Before(until) || !done(seq) || want != nil && !want(h) {
			continue
		}
		there, err := q.has(Live, nil, seq)
		if err == nil && !there {
			there, err = q.has(Retried, []byte(lanePrefixes[Retried]+h.PartitionKey), seq)
		}
		if err != nil {
			return 0, 0, err
		}
		if there {
			continue
		}
		if _, err := q.enqueue(&Failed{Seq: seq, Lane: Replay, Key: h.PartitionKey, Next: now}, 0); err != nil {
			return 0, 0, err
		}
		n++
	}
	if n < replayPiece && seen < replayScan {
		return n, last, nil // that was all
	}
	return n, after, nil
}
