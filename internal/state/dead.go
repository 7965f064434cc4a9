package state

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/event"
)

// ErrNoDeadLetter says that a sink has no dead letter of an id.
var ErrNoDeadLetter = errors.New("no dead letter of that id")

const (
	deadPiece = 1000    // dead letters that one transaction changes
	deadBytes = 8 << 20 // of events that one call returns, or one transaction copies
)

// DeadLetter is an event that was given up for a sink. It holds a copy of the event
// and needs the log no more.
type DeadLetter struct {
	Event       event.Logged
	Attempts    int       // of all its tries, those of retries included
	First, Last time.Time // attempts; zero: there was none
	Died        time.Time
	Status      int    // of the last answer; 0: there was none
	Error       string // of the last attempt
	Reason      string // ReasonRefused, …
	Retrying    bool   // it waits in the lane Retried
}

type deadValue struct {
	V        int             `json:"v"`
	Reason   string          `json:"reason"`
	Died     int64           `json:"died"`
	Attempts int             `json:"attempts"`
	First    int64           `json:"first,omitempty"`
	Last     int64           `json:"last,omitempty"`
	Status   int             `json:"status,omitempty"`
	Error    string          `json:"error,omitempty"`
	body     json.RawMessage // the event's line
}

func decodeDead(raw []byte) (v deadValue, err error) {
	v.body, err = cutBody(raw, &v, 1)
	return v, err
}

func (v *deadValue) logged() (event.Logged, error) {
	h, err := event.ParseHeader(v.body)
	return event.Logged{Header: h, JSON: bytes.Clone(v.body)}, err
}

// deadLetters are those of one sink inside a transaction.
type deadLetters struct{ b *bolt.Bucket }

// readDead returns a sink's dead letters; false: there never were any.
func readDead(tx *bolt.Tx, sink string) (deadLetters, bool) {
	b := nested(tx, bucketDead, sink)
	return deadLetters{b}, b != nil
}

// openDead returns the dead letters of the queue's sink.
func (q *queue) openDead() (deadLetters, error) {
	b, err := ensure(q.tx, bucketDead, q.sink)
	return deadLetters{b}, err
}

// get returns a dead letter, or nil. Its body lives no longer than the transaction.
func (d deadLetters) get(seq uint64) (*deadValue, error) {
	raw := d.b.Get(seqKey(seq))
	if raw == nil {
		return nil, nil
	}
	v, err := decodeDead(raw)
	if err != nil {
		return nil, fmt.Errorf("dead letter %d cannot be read: %w", seq, err)
	}
	return &v, nil
}

// count adds to the number of dead letters: see queue.count.
func (d deadLetters) count(by int) error {
	return d.b.SetSequence(uint64(max(int(d.b.Sequence())+by, 0)))
}

// put makes an event a dead letter. One that is there already goes on counting, and
// keeps its copy of the event: the log may have dropped it.
func (d deadLetters) put(f *Failed, log *bolt.Bucket, now time.Time) error {
	v := deadValue{V: 1, Reason: f.Reason, Died: milli(now), Attempts: f.Attempts, First: milli(f.First), Last: milli(f.Last),
		Status: f.Status, Error: f.Error}
	old, err := d.get(f.Seq)
	if err != nil {
		return err
	}
	if old != nil {
		v.Attempts += old.Attempts
		v.body = old.body
		if old.First != 0 {
			v.First = old.First
		}
		if v.Last == 0 {
			v.Last, v.Status, v.Error = old.Last, old.Status, old.Error
		}
	} else {
		if v.body = log.Get(seqKey(f.Seq)); v.body == nil {
			return fmt.Errorf("event %d is to be a dead letter and is not in the log", f.Seq)
		}
		if err := d.count(1); err != nil {
			return err
		}
	}
	head, err := marshal(v)
	if err != nil {
		return err
	}
	return d.b.Put(seqKey(f.Seq), withBody(head, v.body, 1))
}

func (d deadLetters) delete(seq uint64) error {
	if d.b.Get(seqKey(seq)) == nil {
		return nil
	}
	if err := d.b.Delete(seqKey(seq)); err != nil {
		return err
	}
	return d.count(-1)
}

// buryAll makes dead letters of events that were given up. Those that are in no
// queue are fresh: beyond the position that was, and not done before. All others
// were buried by this very settlement already, and an operator may have dropped
// them since.
func (q *queue) buryAll(dead []Failed, before uint64, wasAhead []byte, now time.Time) error {
	if len(dead) == 0 {
		return nil
	}
	ahead, err := readSequences(wasAhead)
	if err != nil {
		return err
	}
	letters, err := q.openDead()
	if err != nil {
		return err
	}
	for i := range dead {
		f := &dead[i]
		if buried, err := q.bury(letters, f, now); err != nil {
			return err
		} else if buried || f.Lane != Live || f.Seq <= before || slices.Contains(ahead, f.Seq) {
			continue
		}
		if err := letters.put(f, q.log, now); err != nil {
			return err
		}
	}
	return nil
}

// bury makes a dead letter of a head, and of all that went in its request; false:
// it is no head.
func (q *queue) bury(letters deadLetters, f *Failed, now time.Time) (bool, error) {
	key := []byte(f.QueueKey())
	h, found, err := q.head(key)
	if err != nil || !found || h.seq != f.Seq {
		return false, err
	}
	if h.batch != 0 {
		return true, q.takeBatch(h.batch, now, func(seq uint64, _ []byte) error {
			member := *f
			member.Seq = seq
			return letters.put(&member, q.log, now)
		})
	}
	if err := letters.put(f, q.log, now); err != nil {
		return false, err
	}
	return q.remove(f.Lane, key, f.Seq, now)
}

// retrying reports whether a dead letter waits in the lane Retried, and under which
// queue key it does or would.
func (q *queue) retrying(seq uint64, v *deadValue) (bool, []byte, error) {
	h, err := event.ParseHeader(v.body)
	if err != nil {
		return false, nil, fmt.Errorf("dead letter %d: %w", seq, err)
	}
	key := []byte(lanePrefixes[Retried] + h.PartitionKey)
	there, err := q.has(Retried, key, seq)
	return there, key, err
}

// DeadLetters returns up to limit dead letters of a sink after a sequence, in their
// order, and no more once their events have 8 MiB together.
func (db *DB) DeadLetters(sink string, after uint64, limit int) ([]DeadLetter, error) {
	var out []DeadLetter
	err := db.view(sink, func(q *queue) error {
		d, ok := readDead(q.tx, sink)
		if !ok {
			return nil
		}
		size := 0
		c := d.b.Cursor()
		for k, raw := c.Seek(seqKey(after + 1)); k != nil && len(out) < limit && size < deadBytes; k, raw = c.Next() {
			seq := binary.BigEndian.Uint64(k)
			v, err := decodeDead(raw)
			if err != nil {
				return fmt.Errorf("dead letter %d: %w", seq, err)
			}
			l := DeadLetter{Attempts: v.Attempts, First: fromMilli(v.First), Last: fromMilli(v.Last), Died: fromMilli(v.Died),
				Status: v.Status, Error: v.Error, Reason: v.Reason}
			if l.Event, err = v.logged(); err != nil {
				return fmt.Errorf("dead letter %d: %w", seq, err)
			}
			if l.Retrying, _, err = q.retrying(seq, &v); err != nil {
				return err
			}
			out = append(out, l)
			size += len(raw)
		}
		return nil
	})
	return out, err
}

// CountDeadLetters returns how many dead letters a sink has.
func (db *DB) CountDeadLetters(sink string) (int, error) {
	n := 0
	err := db.bolt.View(func(tx *bolt.Tx) error {
		if d, ok := readDead(tx, sink); ok {
			n = int(d.b.Sequence())
		}
		return nil
	})
	return n, err
}

// RetryDeadLetters queues a dead letter of a sink, or all with the id "", in the
// lane Retried, due at now, and returns how many. Those that are there already are
// not counted. A crash on the way leaves some queued; the same call queues the
// rest. It returns ErrUnknown for a sink that never was, and ErrNoDeadLetter for an
// id that it has no dead letter of.
func (db *DB) RetryDeadLetters(ctx context.Context, sink, id string, now time.Time) (int, error) {
	n, err := db.eachDead(ctx, sink, id, func(q *queue, _ deadLetters, seq uint64, v *deadValue) (bool, error) {
		there, key, err := q.retrying(seq, v)
		if err != nil || there {
			return false, err
		}
		lane, partition := parseQueueKey(key)
		return q.enqueue(&Failed{Seq: seq, Lane: lane, Key: partition, Next: now}, 0)
	})
	if err != nil {
		return n, fmt.Errorf("retry dead letters of sink %s: %w", sink, err)
	}
	return n, nil
}

// DropDeadLetters deletes a dead letter of a sink, or all with the id "", and
// returns how many. One that waits to be retried leaves the queue; what is on its
// way then may still arrive. A crash on the way leaves the rest, and the same call
// deletes it. The errors are those of RetryDeadLetters.
func (db *DB) DropDeadLetters(ctx context.Context, sink, id string) (int, error) {
	now := time.Now() // when the next of the same subject is due
	n, err := db.eachDead(ctx, sink, id, func(q *queue, d deadLetters, seq uint64, v *deadValue) (bool, error) {
		there, key, err := q.retrying(seq, v)
		if err == nil && there {
			_, err = q.remove(Retried, key, seq, now)
		}
		if err != nil {
			return false, err
		}
		return true, d.delete(seq)
	})
	if err != nil {
		return n, fmt.Errorf("drop dead letters of sink %s: %w", sink, err)
	}
	return n, nil
}

// ExpireDeadLetters deletes the dead letters that died before a time and are not
// being retried, and returns how many of each sink. It reads all that there are: about a
// microsecond each. A crash on the way leaves the rest to the next call.
func (db *DB) ExpireDeadLetters(ctx context.Context, before time.Time) (map[string]int, error) {
	expired := make(map[string]int)
	sinks, err := db.Sinks()
	for _, sink := range sinks {
		n, expireErr := db.eachDead(ctx, sink, "", func(q *queue, d deadLetters, seq uint64, v *deadValue) (bool, error) {
			if !fromMilli(v.Died).Before(before) {
				return false, nil
			}
			if there, _, err := q.retrying(seq, v); err != nil || there {
				return false, err
			}
			return true, d.delete(seq)
		})
		if n > 0 {
			expired[sink] = n
		}
		if expireErr != nil && ctx.Err() == nil {
			err = errors.Join(err, fmt.Errorf("expire dead letters of sink %s: %w", sink, expireErr))
		}
	}
	return expired, err
}

// eachDead calls change for the dead letter of an id, or for all with the id "",
// in ascending order, and returns for how many it returned true. It goes in small
// transactions, each of which leaves a state that is whole; v lives no longer than
// that.
func (db *DB) eachDead(ctx context.Context, sink, id string, change func(q *queue, d deadLetters, seq uint64, v *deadValue) (bool, error)) (int, error) {
	from, last := uint64(0), uint64(math.MaxUint64)
	if id != "" {
		seq, err := db.findDead(ctx, sink, id)
		if err != nil {
			return 0, err
		}
		from, last = seq, seq
	}
	total := 0
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return total, err
		}
		n, next := 0, from
		err := db.update(func(tx *bolt.Tx) error {
			n, next, more = 0, from, false
			if _, err := getSink(tx, sink); err != nil {
				return err
			}
			d, ok := readDead(tx, sink)
			if !ok {
				return errUpToDate
			}
			q, err := openQueue(tx, sink)
			if err != nil {
				return err
			}
			var piece []uint64 // a bucket is not changed while it is walked
			c := d.b.Cursor()
			for k, _ := c.Seek(seqKey(from)); k != nil && binary.BigEndian.Uint64(k) <= last && !more; k, _ = c.Next() {
				piece = append(piece, binary.BigEndian.Uint64(k))
				more = len(piece) == deadPiece
			}
			for _, seq := range piece {
				v, err := d.get(seq)
				if err != nil {
					return err
				}
				changed, err := change(q, d, seq, v)
				if err != nil {
					return err
				}
				if changed {
					n++
				}
				next = seq + 1
			}
			if n == 0 {
				return errUpToDate
			}
			return nil
		})
		if err != nil && !errors.Is(err, errUpToDate) {
			return total, err
		}
		total, from = total+n, next
	}
	return total, nil
}

// findDead returns the sequence of the dead letter with an id.
func (db *DB) findDead(ctx context.Context, sink, id string) (uint64, error) {
	for after, more := uint64(0), true; more; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		var found uint64
		err := db.bolt.View(func(tx *bolt.Tx) error {
			if _, err := getSink(tx, sink); err != nil {
				return err
			}
			more = false
			d, ok := readDead(tx, sink)
			if !ok {
				return nil
			}
			c := d.b.Cursor()
			n := 0
			for k, raw := c.Seek(seqKey(after + 1)); k != nil && found == 0 && !more; k, raw = c.Next() {
				after = binary.BigEndian.Uint64(k)
				_, body, _ := bytes.Cut(raw, bodyKey)
				h, err := event.ParseHeader(body)
				if err != nil {
					return fmt.Errorf("dead letter %d: %w", after, err)
				}
				if h.ID == id {
					found = after
				}
				n++
				more = n == deadPiece
			}
			return nil
		})
		if err != nil || found != 0 {
			return found, err
		}
	}
	return 0, fmt.Errorf("%w: %s", ErrNoDeadLetter, id)
}
