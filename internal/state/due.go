package state

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/event"
)

// view calls fn with a sink's retry queue in a read-only transaction, unless
// nothing was ever in it.
func (db *DB) view(sink string, fn func(q *queue) error) error {
	err := db.bolt.View(func(tx *bolt.Tx) error {
		if q, ok := readQueue(tx, sink); ok {
			return fn(q)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("retry queue of sink %s: %w", sink, err)
	}
	return nil
}

// Waits reports whether events of a subject wait in the live lane of a sink's
// retry queue.
func (db *DB) Waits(sink, key string) (bool, error) {
	waits, err := db.WaitsAny(sink, []string{key})
	return waits[0], err
}

// WaitsAny is Waits for many subjects at once, in their order.
func (db *DB) WaitsAny(sink string, keys []string) ([]bool, error) {
	waits := make([]bool, len(keys))
	err := db.bolt.View(func(tx *bolt.Tx) error {
		heads := nested(tx, bucketRetries, sink, string(bucketHeads))
		if heads == nil {
			return nil
		}
		for i, key := range keys {
			waits[i] = heads.Get([]byte(key)) != nil
		}
		return nil
	})
	return waits, err
}

// Waiting returns how many events wait in a sink's retry queue, in all lanes.
func (db *DB) Waiting(sink string) (int, error) {
	n := 0
	err := db.view(sink, func(q *queue) error {
		n = int(q.waiting.Sequence())
		return nil
	})
	return n, err
}

// Due returns up to limit heads of one class in order of their next attempt,
// without those for which skip returns true, and without those that go with the
// first event of their batch.
func (db *DB) Due(sink string, class Class, limit int, skip func(Failed) bool) ([]Failed, error) {
	var out []Failed
	err := db.view(sink, func(q *queue) error {
		c := q.due.Cursor()
		for k, _ := c.Seek([]byte{byte(class)}); k != nil && k[0] == byte(class) && len(out) < limit; k, _ = c.Next() {
			key := dueQueueKey(k)
			h, found, err := q.head(key)
			if err != nil || !found {
				return errOr(err, fmt.Sprintf("%s is due and has no head", key))
			}
			if f := h.failed(key); !skip(f) {
				out = append(out, f)
			}
		}
		return nil
	})
	return out, err
}

// Heads returns up to limit heads of a sink's retry queue in the order of their
// queue keys, after one of them, without those that go with the first event of
// their batch.
func (db *DB) Heads(sink, after string, limit int) ([]Failed, error) {
	var out []Failed
	err := db.view(sink, func(q *queue) error {
		c := q.heads.Cursor()
		for k, v := c.Seek(append([]byte(after), 0)); k != nil && len(out) < limit; k, v = c.Next() {
			h, err := decodeHead(v)
			if err != nil {
				return fmt.Errorf("%s: %w", k, err)
			}
			if h.leads() {
				out = append(out, h.failed(k))
			}
		}
		return nil
	})
	return out, err
}

// HeadOfRecent returns the head behind which, or as which, an event waits in the lanes
// Live and Replay: one of the newest, so many before the last, or the oldest there is;
// of a batch its first. False: none waits there.
func (db *DB) HeadOfRecent(sink string, before int) (f Failed, found bool, err error) {
	err = db.view(sink, func(q *queue) error {
		c := q.waiting.Cursor()
		k, _ := c.Last()
		for ; k != nil && before > 0; before-- {
			older, _ := c.Prev()
			if older == nil {
				break
			}
			k = older
		}
		if k == nil {
			return nil
		}
		key, err := q.liveKey(binary.BigEndian.Uint64(k))
		if err != nil {
			return err
		}
		h, there, err := q.head(key)
		if err == nil && there && !h.leads() {
			if key, err = q.liveKey(h.batch); err == nil {
				h, there, err = q.head(key)
			}
		}
		if err == nil && !there {
			key = append([]byte(lanePrefixes[Replay]), key...)
			h, there, err = q.head(key)
		}
		if err != nil || !there {
			return errOr(err, fmt.Sprintf("event %d waits and has no head", binary.BigEndian.Uint64(k)))
		}
		f, found = h.failed(key), true
		return nil
	})
	return f, found, err
}

// Head returns the head of a lane's subject; false: nothing of it waits.
func (db *DB) Head(sink string, lane Lane, key string) (f Failed, found bool, err error) {
	err = db.view(sink, func(q *queue) error {
		k := []byte(lanePrefixes[lane] + key)
		var h head
		var err error
		if h, found, err = q.head(k); found {
			f = h.failed(k)
		}
		return err
	})
	return f, found, err
}

// QueuedEvent returns the event of a head; false: it is not there.
func (db *DB) QueuedEvent(sink string, f Failed) (event.Logged, bool, error) {
	if f.Lane != Retried {
		return db.Event(f.Seq)
	}
	var out event.Logged
	found := false
	err := db.bolt.View(func(tx *bolt.Tx) error {
		d, ok := readDead(tx, sink)
		if !ok {
			return nil
		}
		v, err := d.get(f.Seq)
		if err != nil || v == nil {
			return err
		}
		found = true
		out, err = v.logged()
		return err
	})
	return out, found, err
}

// pullPiece is how many heads one transaction of PullRetries moves.
const pullPiece = 1000

// PullRetries makes those heads of a sink's retry queue due at now whose next time
// is after latest: nobody can have asked for that, so a clock that was wrong did. It
// goes in small transactions; what a crash left is as far away as it was, and found by
// the next call.
func (db *DB) PullRetries(sink string, now, latest time.Time) error {
	for _, class := range []Class{FirstTry, Again, Aside} {
		for more := true; more; {
			var far [][]byte
			err := db.view(sink, func(q *queue) error {
				c := q.due.Cursor()
				k, _ := c.Seek(binary.BigEndian.AppendUint64([]byte{byte(class)}, headTime(latest)+1))
				for ; k != nil && k[0] == byte(class) && len(far) < pullPiece; k, _ = c.Next() {
					far = append(far, bytes.Clone(dueQueueKey(k)))
				}
				return nil
			})
			if more = len(far) == pullPiece; err == nil && len(far) > 0 {
				err = db.pull(sink, far, now)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (db *DB) pull(sink string, far [][]byte, now time.Time) error {
	return db.update(func(tx *bolt.Tx) error {
		q, err := openQueue(tx, sink)
		if err != nil {
			return err
		}
		for _, key := range far {
			h, found, err := q.head(key)
			if err != nil {
				return err
			}
			if !found { // it left the queue meanwhile
				continue
			}
			pulled := h
			pulled.next = headTime(now)
			if err := q.setHead(key, &h, &pulled); err != nil {
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
