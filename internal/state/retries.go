package state

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Failed is an event that joins a sink's retry queue. Later events of a subject
// that is in the queue join it too, with Attempts 0, and wait their turn.
type Failed struct {
	Seq      uint64
	Key      string // partition key
	Attempts int
	First    time.Time // the event's first attempt; zero: none yet
	Next     time.Time // when to try again
	Status   int
	Error    string
}

type head struct {
	V        int    `json:"v"`
	Seq      uint64 `json:"seq"`
	Attempts int    `json:"attempts"`
	First    int64  `json:"first,omitempty"`
	Next     int64  `json:"next"`
	Status   int    `json:"status,omitempty"`
	Error    string `json:"error,omitempty"`
}

func (h head) failed(key string) Failed {
	f := Failed{Seq: h.Seq, Key: key, Attempts: h.Attempts, Next: time.UnixMilli(h.Next).UTC(), Status: h.Status, Error: h.Error}
	if h.First != 0 {
		f.First = time.UnixMilli(h.First).UTC()
	}
	return f
}

func newHead(f Failed) head {
	h := head{V: 1, Seq: f.Seq, Attempts: f.Attempts, Next: f.Next.UnixMilli(), Status: f.Status, Error: f.Error}
	if !f.First.IsZero() {
		h.First = f.First.UnixMilli()
	}
	return h
}

// queue is one sink's retry queue inside a transaction.
type queue struct{ heads, due, followers, waiting *bolt.Bucket }

func openQueue(tx *bolt.Tx, sink string) (queue, error) {
	var q queue
	for _, b := range []struct {
		name []byte
		dst  **bolt.Bucket
	}{{bucketHeads, &q.heads}, {bucketDue, &q.due}, {bucketFollowers, &q.followers}, {bucketWaiting, &q.waiting}} {
		var err error
		if *b.dst, err = ensure(tx, bucketRetries, sink, string(b.name)); err != nil {
			return queue{}, err
		}
	}
	return q, nil
}

func dueKey(next int64, key string) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(max(next, 0))), key...)
}

func followerPrefix(key string) []byte { return append([]byte(key), 0) }

// putHead sets the head of a subject, and when it is due.
func (q queue) putHead(key string, h head) error {
	var old head
	found, err := getJSON(q.heads, []byte(key), &old)
	if err != nil {
		return err
	}
	if found {
		if err := q.due.Delete(dueKey(old.Next, key)); err != nil {
			return err
		}
	}
	if err := q.due.Put(dueKey(h.Next, key), nil); err != nil {
		return err
	}
	return putJSON(q.heads, []byte(key), h)
}

func (q queue) enqueue(f Failed) error {
	// The sequence of the bucket counts what waits: bbolt can count keys only by
	// walking them.
	if q.waiting.Get(seqKey(f.Seq)) != nil {
		return nil
	}
	if err := q.waiting.SetSequence(q.waiting.Sequence() + 1); err != nil {
		return err
	}
	if err := q.waiting.Put(seqKey(f.Seq), []byte{}); err != nil {
		return err
	}
	if q.heads.Get([]byte(f.Key)) != nil {
		return q.followers.Put(append(followerPrefix(f.Key), seqKey(f.Seq)...), []byte{})
	}
	return q.putHead(f.Key, newHead(f))
}

// waitingCount returns how many events wait, and the key of the first.
func waitingCount(waiting *bolt.Bucket) (int, []byte) {
	k, _ := waiting.Cursor().First()
	return int(waiting.Sequence()), k
}

// Waits reports whether events of a subject wait in a sink's retry queue.
func (db *DB) Waits(sink, key string) (bool, error) {
	waits := false
	err := db.bolt.View(func(tx *bolt.Tx) error {
		heads := nested(tx, bucketRetries, sink, string(bucketHeads))
		waits = heads != nil && heads.Get([]byte(key)) != nil
		return nil
	})
	return waits, err
}

// Waiting returns how many events wait in a sink's retry queue.
func (db *DB) Waiting(sink string) (int, error) {
	n := 0
	err := db.bolt.View(func(tx *bolt.Tx) error {
		if waiting := nested(tx, bucketRetries, sink, string(bucketWaiting)); waiting != nil {
			n, _ = waitingCount(waiting)
		}
		return nil
	})
	return n, err
}

// Due returns up to limit heads of a sink's retry queue in order of their next
// attempt, without those for which skip returns true.
func (db *DB) Due(sink string, limit int, skip func(key string) bool) ([]Failed, error) {
	var out []Failed
	err := db.bolt.View(func(tx *bolt.Tx) error {
		due := nested(tx, bucketRetries, sink, string(bucketDue))
		if due == nil {
			return nil
		}
		heads := nested(tx, bucketRetries, sink, string(bucketHeads))
		c := due.Cursor()
		for k, _ := c.First(); k != nil && len(out) < limit; k, _ = c.Next() {
			key := string(k[8:])
			if skip(key) {
				continue
			}
			var h head
			if found, err := getJSON(heads, []byte(key), &h); err != nil || !found {
				return errOr(err, fmt.Sprintf("retry queue of %s: %s is due and has no head", sink, key))
			}
			out = append(out, h.failed(key))
		}
		return nil
	})
	return out, err
}

// Heads returns up to limit heads of a sink's retry queue in the order of their
// partition keys, after one of them.
func (db *DB) Heads(sink, after string, limit int) ([]Failed, error) {
	var out []Failed
	err := db.bolt.View(func(tx *bolt.Tx) error {
		heads := nested(tx, bucketRetries, sink, string(bucketHeads))
		if heads == nil {
			return nil
		}
		c := heads.Cursor()
		for k, v := c.Seek(append([]byte(after), 0)); k != nil && len(out) < limit; k, v = c.Next() {
			var h head
			if err := json.Unmarshal(v, &h); err != nil {
				return fmt.Errorf("retry queue of %s: %s: %w", sink, k, err)
			}
			out = append(out, h.failed(string(k)))
		}
		return nil
	})
	return out, err
}

// Head returns the head of a subject in a sink's retry queue; false: it does not
// wait.
func (db *DB) Head(sink, key string) (Failed, bool, error) {
	var h head
	found := false
	err := db.bolt.View(func(tx *bolt.Tx) (err error) {
		found, err = getJSON(nested(tx, bucketRetries, sink, string(bucketHeads)), []byte(key), &h)
		return err
	})
	return h.failed(key), found, err
}

// PullRetries makes those heads of a sink's retry queue due at now whose next time
// is after latest: nobody can have asked for that, so a clock that was wrong did.
func (db *DB) PullRetries(sink string, now, latest time.Time) error {
	var far []string
	err := db.bolt.View(func(tx *bolt.Tx) error {
		due := nested(tx, bucketRetries, sink, string(bucketDue))
		if due == nil {
			return nil
		}
		c := due.Cursor()
		for k, _ := c.Last(); k != nil && binary.BigEndian.Uint64(k) > uint64(latest.UnixMilli()); k, _ = c.Prev() {
			far = append(far, string(k[8:]))
		}
		return nil
	})
	if err != nil || len(far) == 0 {
		return err
	}
	return db.update(func(tx *bolt.Tx) error {
		q, err := openQueue(tx, sink)
		if err != nil {
			return err
		}
		for _, key := range far {
			var h head
			if found, err := getJSON(q.heads, []byte(key), &h); err != nil || !found {
				return errOr(err, fmt.Sprintf("retry queue of %s: %s is due and has no head", sink, key))
			}
			h.Next = now.UnixMilli()
			if err := q.putHead(key, h); err != nil {
				return err
			}
		}
		return nil
	})
}

// RecordAttempt makes the attempts, error and next time of heads durable. Called
// before the requests are sent, it makes a crash during them cost the wait until
// Next instead of a hot loop. An event that is no head any more is passed over.
func (db *DB) RecordAttempt(sink string, attempts ...Failed) error {
	err := db.update(func(tx *bolt.Tx) error {
		q, err := openQueue(tx, sink)
		if err != nil {
			return err
		}
		return q.record(attempts)
	})
	if err != nil {
		return fmt.Errorf("record attempts of sink %s: %w", sink, err)
	}
	return nil
}

// Settlement is what came of a sink's deliveries.
type Settlement struct {
	Position   uint64          // the sink needs nothing up to here any more, but for what is Failed
	Checkpoint json.RawMessage // the sink's own, to be kept with its position; nil: the old one
	Failed     []Failed        // join the queue, in the order of the log
	Delivered  []Failed        // heads that leave the queue; the next event of each subject is due at once
	Attempts   []Failed        // heads that were tried in vain
	Ahead      []uint64        // events beyond Position that were delivered
}

// Settle commits a group of outcomes at once: no event is ever neither behind the
// position nor in the queue. A crash before it repeats their deliveries, whose
// ids the receiver knows. A position is never moved back. To commit the same settlement twice is harmless, as long as none of
// its events was sent in between.
func (db *DB) Settle(sink string, now time.Time, s Settlement) error {
	err := db.update(func(tx *bolt.Tx) error {
		if err := advance(tx, sink, s); err != nil {
			return err
		}
		if len(s.Delivered)+len(s.Attempts) == 0 {
			return nil
		}
		q, err := openQueue(tx, sink)
		if err != nil {
			return err
		}
		for _, f := range s.Delivered {
			if err := q.remove(f, now); err != nil {
				return err
			}
		}
		return q.record(s.Attempts)
	})
	if err != nil {
		return fmt.Errorf("settle deliveries of sink %s: %w", sink, err)
	}
	return nil
}

func (q queue) record(attempts []Failed) error {
	for _, f := range attempts {
		var h head
		if found, err := getJSON(q.heads, []byte(f.Key), &h); err != nil {
			return err
		} else if !found || h.Seq != f.Seq {
			continue
		}
		if err := q.putHead(f.Key, newHead(f)); err != nil {
			return err
		}
	}
	return nil
}

func (q queue) remove(f Failed, now time.Time) error {
	var h head
	found, err := getJSON(q.heads, []byte(f.Key), &h)
	if err != nil || !found || h.Seq != f.Seq {
		return err
	}
	if err := q.due.Delete(dueKey(h.Next, f.Key)); err != nil {
		return err
	}
	if err := q.heads.Delete([]byte(f.Key)); err != nil {
		return err
	}
	if err := q.waiting.Delete(seqKey(h.Seq)); err != nil {
		return err
	}
	if n := q.waiting.Sequence(); n > 0 {
		if err := q.waiting.SetSequence(n - 1); err != nil {
			return err
		}
	}
	prefix := followerPrefix(f.Key)
	k, _ := q.followers.Cursor().Seek(prefix)
	if !bytes.HasPrefix(k, prefix) {
		return nil
	}
	k = bytes.Clone(k)
	if err := q.followers.Delete(k); err != nil {
		return err
	}
	return q.putHead(f.Key, head{V: 1, Seq: binary.BigEndian.Uint64(k[len(prefix):]), Next: now.UnixMilli()})
}
