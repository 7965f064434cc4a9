package state

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
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

// Sink is where a sink stands.
type Sink struct {
	Position   uint64          // the last event that it needs no more, or has in its retry queue
	Checkpoint json.RawMessage // the sink's own; nil: none yet
	Ahead      []uint64        // events beyond the position that were delivered
}

type sinkValue struct {
	V          int             `json:"v"`
	Type       string          `json:"type"`
	Position   uint64          `json:"position"`
	Since      int64           `json:"since"`
	Checkpoint json.RawMessage `json:"checkpoint,omitempty"`
	Ahead      []uint64        `json:"ahead,omitempty"`
}

// OpenSink returns where a sink stands. One that was never seen before starts
// after the newest event, or, with fromBeginning, at the oldest that is kept.
func (db *DB) OpenSink(name, typ string, fromBeginning bool, now time.Time) (Sink, error) {
	var v sinkValue
	found := false
	err := db.bolt.View(func(tx *bolt.Tx) (err error) {
		found, err = getJSON(tx.Bucket(bucketSinks), []byte(name), &v)
		return err
	})
	if err == nil && !found {
		err = db.update(func(tx *bolt.Tx) error {
			log := tx.Bucket(bucketEvents)
			v = sinkValue{V: 1, Type: typ, Position: log.Sequence(), Since: now.UnixMilli()}
			if fromBeginning {
				if k, _ := log.Cursor().First(); k != nil {
					v.Position = binary.BigEndian.Uint64(k) - 1
				}
			}
			return putJSON(tx.Bucket(bucketSinks), []byte(name), v)
		})
	}
	if err != nil {
		return Sink{}, fmt.Errorf("open sink %s: %w", name, err)
	}
	if v.Type != typ {
		return Sink{}, fmt.Errorf("sink %s was of type %s when it was first used and is now %s: use a new name for the new one", name, v.Type, typ)
	}
	return Sink{Position: v.Position, Checkpoint: v.Checkpoint, Ahead: v.Ahead}, nil
}

// advance moves a sink's position, and with it what the sink wants to remember,
// the events that failed on the way and those that were delivered beyond it.
func advance(tx *bolt.Tx, name string, s Settlement) error {
	var v sinkValue
	sinks := tx.Bucket(bucketSinks)
	if found, err := getJSON(sinks, []byte(name), &v); err != nil || !found {
		return errOr(err, "it is not in the state")
	}
	v.Position = max(v.Position, s.Position)
	v.Ahead = append(v.Ahead, s.Ahead...)
	slices.Sort(v.Ahead)
	v.Ahead = slices.DeleteFunc(slices.Compact(v.Ahead), func(seq uint64) bool { return seq <= v.Position })
	if s.Checkpoint != nil {
		v.Checkpoint = s.Checkpoint
	}
	if len(s.Failed) > 0 {
		q, err := openQueue(tx, name)
		if err != nil {
			return err
		}
		for _, f := range s.Failed {
			if err := q.enqueue(f); err != nil {
				return err
			}
		}
	}
	return putJSON(sinks, []byte(name), v)
}

func errOr(err error, text string) error {
	if err != nil {
		return err
	}
	return errors.New(text)
}

// Sinks returns the names of all sinks that were ever used, in order.
func (db *DB) Sinks() ([]string, error) {
	var names []string
	err := db.bolt.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketSinks).ForEach(func(k, _ []byte) error {
			names = append(names, string(k))
			return nil
		})
	})
	return names, err
}

// Backlog is what a sink has still to deliver.
type Backlog struct {
	Events int       // in the log behind its position, and in its retry queue
	Oldest time.Time // when the oldest of them was recorded; zero: there is none
}

// Backlog returns what a sink has still to deliver. The log part counts every
// event behind the position, also such as the sink's select will pass over.
func (db *DB) Backlog(name string) (Backlog, error) {
	var out Backlog
	err := db.bolt.View(func(tx *bolt.Tx) error {
		var v sinkValue
		if found, err := getJSON(tx.Bucket(bucketSinks), []byte(name), &v); err != nil || !found {
			return err
		}
		log := tx.Bucket(bucketEvents)
		// Sequences are dense but for known holes, so this counts without reading.
		known, err := readHoles(tx)
		if err != nil {
			return err
		}
		out.Events = int(known.between(v.Position, log.Sequence()))
		oldest, _ := log.Cursor().Seek(seqKey(v.Position + 1))
		if waiting := nested(tx, bucketRetries, name, string(bucketWaiting)); waiting != nil {
			n, k := waitingCount(waiting)
			out.Events += n
			if k != nil {
				oldest = k
			}
		}
		if oldest == nil {
			return nil
		}
		h, err := event.ParseHeader(log.Get(oldest))
		out.Oldest = h.Recorded
		return err
	})
	if err != nil {
		return Backlog{}, fmt.Errorf("backlog of sink %s: %w", name, err)
	}
	return out, nil
}

// retainPiece is how many events one transaction of Retain deletes: few enough
// that a page never waits long for its turn.
const retainPiece = 1000

// Retain deletes the events that were recorded before a time and that no sink
// needs, in small transactions, and returns how many. Sinks that have left the
// configuration hold the log too, until there are dead letters to take what
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

// firstNeeded returns the lowest sequence that a sink may still ask for.
func firstNeeded(tx *bolt.Tx) (uint64, error) {
	needed := tx.Bucket(bucketEvents).Sequence() + 1
	err := tx.Bucket(bucketSinks).ForEach(func(k, raw []byte) error {
		var v sinkValue
		if err := json.Unmarshal(raw, &v); err != nil {
			return fmt.Errorf("sink %s: %w", k, err)
		}
		needed = min(needed, v.Position+1)
		if waiting := nested(tx, bucketRetries, string(k), string(bucketWaiting)); waiting != nil {
			if first, _ := waiting.Cursor().First(); first != nil {
				needed = min(needed, binary.BigEndian.Uint64(first))
			}
		}
		return nil
	})
	return needed, err
}
