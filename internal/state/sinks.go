package state

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/event"
)

// ErrUnknown says that the state has nothing under a name.
var ErrUnknown = errors.New("the state knows nothing of that name")

// Sink is where a sink stands.
type Sink struct {
	Position   uint64          // the last event that it needs no more, or has in its retry queue
	Checkpoint json.RawMessage // the sink's own; nil: none yet
	Ahead      []uint64        // events beyond the position that are done, ascending
	Batches    []Batch         // saved, with a member that is not in the queue: to be sent first, as they are
	Hold       time.Time       // the endpoint asked to be left alone until then; zero: it did not
	Gone       *Gone           // the endpoint answered 410; nil: it did not, or was resumed
}

// Gone is how an endpoint said that it is gone for good.
type Gone struct {
	At     time.Time
	Event  string // id
	Answer string // a piece of it
}

type sinkValue struct {
	V          int             `json:"v"`
	Type       string          `json:"type"`
	Position   uint64          `json:"position"`
	Since      int64           `json:"since"`
	Hold       int64           `json:"hold,omitempty"`
	Gone       *goneValue      `json:"gone,omitempty"`
	Removed    int64           `json:"removed,omitempty"`
	Retired    bool            `json:"retired,omitempty"` // what it had still to get are dead letters: it holds the log no more
	Checkpoint json.RawMessage `json:"checkpoint,omitempty"`
	Select     json.RawMessage `json:"select,omitempty"`
}

type goneValue struct {
	At     int64  `json:"at"`
	Event  string `json:"event"`
	Answer string `json:"answer"`
}

// getSink reads what is known of a sink, or returns ErrUnknown.
func getSink(tx *bolt.Tx, name string) (v sinkValue, err error) {
	if found, err := getJSON(tx.Bucket(bucketSinks), []byte(name), &v); err != nil || !found {
		return v, errors.Join(err, notFound(found))
	}
	return v, nil
}

func notFound(found bool) error {
	if found {
		return nil
	}
	return ErrUnknown
}

// putSink saves a sink, and reports whether that changed anything.
func putSink(tx *bolt.Tx, name string, v *sinkValue) (bool, error) {
	raw, err := marshal(v)
	sinks := tx.Bucket(bucketSinks)
	if err != nil || bytes.Equal(raw, sinks.Get([]byte(name))) {
		return false, err
	}
	return true, sinks.Put([]byte(name), raw)
}

// changeSink changes what is known of a sink; where fn changes nothing, nothing is
// written.
func (db *DB) changeSink(name string, fn func(v *sinkValue)) error {
	err := db.update(func(tx *bolt.Tx) error {
		v, err := getSink(tx, name)
		if err != nil {
			return err
		}
		fn(&v)
		if changed, err := putSink(tx, name, &v); err != nil || changed {
			return err
		}
		return errUpToDate
	})
	if errors.Is(err, errUpToDate) {
		return nil
	}
	return err
}

// OpenSink returns where a sink stands. One that was never seen before starts
// after the newest event, or, with fromBeginning, at the oldest that is kept. One
// that was removed is so no more; if it was retired, it goes on with the oldest
// event that is kept of those it never asked for.
func (db *DB) OpenSink(name, typ string, fromBeginning bool, now time.Time) (Sink, error) {
	var out Sink
	var v sinkValue
	known := false
	read := func(tx *bolt.Tx) (err error) {
		if v, err = getSink(tx, name); errors.Is(err, ErrUnknown) {
			return nil
		} else if err != nil {
			return err
		}
		if known = true; v.Type != typ {
			return fmt.Errorf("it was of type %s when it was first used and is now %s: use a new name for the new one", v.Type, typ)
		}
		out = Sink{Position: v.Position, Checkpoint: v.Checkpoint, Hold: fromMilli(v.Hold)}
		if v.Gone != nil {
			out.Gone = &Gone{At: fromMilli(v.Gone.At), Event: v.Gone.Event, Answer: v.Gone.Answer}
		}
		b := nested(tx, bucketRetries, name)
		if b == nil {
			return nil
		}
		if out.Ahead, err = readSequences(b.Get(keyAhead)); err == nil {
			out.Batches, err = unqueuedBatches(b)
		}
		return err
	}
	err := db.bolt.View(read)
	if err == nil && (!known || v.Removed != 0 || v.Retired) {
		err = db.update(func(tx *bolt.Tx) error {
			oldest := tx.Bucket(bucketEvents).Sequence()
			if k, _ := tx.Bucket(bucketEvents).Cursor().First(); k != nil {
				oldest = binary.BigEndian.Uint64(k) - 1
			}
			switch {
			case known:
				if v.Removed = 0; v.Retired {
					v.Retired, v.Position = false, max(v.Position, oldest)
				}
			case fromBeginning:
				v = sinkValue{V: 1, Type: typ, Position: oldest, Since: now.UnixMilli()}
			default:
				v = sinkValue{V: 1, Type: typ, Position: tx.Bucket(bucketEvents).Sequence(), Since: now.UnixMilli()}
			}
			_, err := putSink(tx, name, &v)
			return err
		})
		out.Position = v.Position
	}
	if err != nil {
		return Sink{}, fmt.Errorf("open sink %s: %w", name, err)
	}
	return out, nil
}

// ResumeSink lets a sink go on that stopped because its endpoint was gone, or asked
// to be left alone until later than now, and reports whether that was so. It returns
// ErrUnknown for a sink that never was.
func (db *DB) ResumeSink(name string) (waited bool, err error) {
	err = db.changeSink(name, func(v *sinkValue) {
		waited = v.Gone != nil || fromMilli(v.Hold).After(time.Now())
		v.Gone, v.Hold = nil, 0
	})
	if err != nil {
		return false, fmt.Errorf("resume sink %s: %w", name, err)
	}
	return waited, nil
}

// SaveSelect remembers which events a configured sink wants, for the time when it
// is configured no more: an opaque JSON value.
func (db *DB) SaveSelect(name string, raw json.RawMessage) error {
	if err := db.changeSink(name, func(v *sinkValue) { v.Select = raw }); err != nil {
		return fmt.Errorf("save what sink %s selects: %w", name, err)
	}
	return nil
}

// eachSink calls fn for every sink that was ever used, in order.
func eachSink(tx *bolt.Tx, fn func(name string, v *sinkValue) error) error {
	return tx.Bucket(bucketSinks).ForEach(func(k, raw []byte) error {
		var v sinkValue
		if err := json.Unmarshal(raw, &v); err != nil {
			return fmt.Errorf("sink %s: %w", k, err)
		}
		return fn(string(k), &v)
	})
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

// MarkSinks notes since when sinks are missing in the configuration. A sink that
// is missing already keeps its time; OpenSink takes the mark away.
func (db *DB) MarkSinks(configured []string, now time.Time) error {
	err := db.update(func(tx *bolt.Tx) error {
		missing := make(map[string]*sinkValue) // a bucket is not changed while it is walked
		err := eachSink(tx, func(name string, v *sinkValue) error {
			if v.Removed == 0 && !slices.Contains(configured, name) {
				v.Removed = now.UnixMilli()
				missing[name] = v
			}
			return nil
		})
		if err == nil && len(missing) == 0 {
			return errUpToDate
		}
		for name, v := range missing {
			_, putErr := putSink(tx, name, v)
			err = errors.Join(err, putErr)
		}
		return err
	})
	if err != nil && !errors.Is(err, errUpToDate) {
		return fmt.Errorf("mark the sinks that were removed: %w", err)
	}
	return nil
}

// RemovedSink is a sink that is configured no more.
type RemovedSink struct {
	Name, Type string
	Since      time.Time
	Select     json.RawMessage // as SaveSelect had it last; nil: never
	Retired    bool            // RetireSink has done its work
}

// Removed returns the sinks that are configured no more, in order of their names.
func (db *DB) Removed() ([]RemovedSink, error) {
	var out []RemovedSink
	err := db.bolt.View(func(tx *bolt.Tx) error {
		return eachSink(tx, func(name string, v *sinkValue) error {
			if v.Removed != 0 {
				out = append(out, RemovedSink{Name: name, Type: v.Type, Since: fromMilli(v.Removed), Select: v.Select, Retired: v.Retired})
			}
			return nil
		})
	})
	return out, err
}

// Backlog is what a sink has still to deliver.
type Backlog struct {
	Events int       // in the log behind its position, without those delivered ahead of it, and in its retry queue
	Oldest time.Time // when the oldest of them was recorded, but for retried dead letters; zero: there is none
}

// Backlog returns what a sink has still to deliver. The log part counts every
// event behind the position, also such as the sink's select will pass over.
func (db *DB) Backlog(name string) (Backlog, error) {
	var out Backlog
	err := db.bolt.View(func(tx *bolt.Tx) error {
		v, err := getSink(tx, name)
		if errors.Is(err, ErrUnknown) {
			return nil
		} else if err != nil {
			return err
		}
		log := tx.Bucket(bucketEvents)
		if v.Retired {
			v.Position = log.Sequence()
		}
		// Sequences are dense but for known holes, so this counts without reading.
		known, err := readHoles(tx)
		if err != nil {
			return err
		}
		var ahead []uint64
		var first []byte // of the queue
		if b := nested(tx, bucketRetries, name); b != nil {
			if ahead, err = readSequences(b.Get(keyAhead)); err != nil {
				return err
			}
			waiting := b.Bucket(bucketWaiting)
			out.Events = int(waiting.Sequence())
			first, _ = waiting.Cursor().First()
		}
		out.Events += int(known.between(v.Position, log.Sequence())) - len(ahead)
		c := log.Cursor()
		oldest, _ := c.Seek(seqKey(v.Position + 1))
		for ; oldest != nil && len(ahead) > 0 && binary.BigEndian.Uint64(oldest) == ahead[0]; ahead = ahead[1:] {
			oldest, _ = c.Next()
		}
		if first != nil && (oldest == nil || bytes.Compare(first, oldest) < 0) {
			oldest = first
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

// firstNeeded returns the lowest sequence that a sink may still ask for.
func firstNeeded(tx *bolt.Tx) (uint64, error) {
	needed := tx.Bucket(bucketEvents).Sequence() + 1
	err := eachSink(tx, func(name string, v *sinkValue) error {
		if !v.Retired {
			needed = min(needed, v.Position+1)
		}
		if waiting := nested(tx, bucketRetries, name, string(bucketWaiting)); waiting != nil {
			if first, _ := waiting.Cursor().First(); first != nil {
				needed = min(needed, binary.BigEndian.Uint64(first))
			}
		}
		return nil
	})
	return needed, err
}

// appendSequences encodes ascending sequences: uvarints, each the difference to
// the one before.
func appendSequences(dst []byte, sequences []uint64) []byte {
	last := uint64(0)
	for _, seq := range sequences {
		dst = binary.AppendUvarint(dst, seq-last)
		last = seq
	}
	return dst
}

func readSequences(raw []byte) ([]uint64, error) {
	var out []uint64
	last := uint64(0)
	for len(raw) > 0 {
		d, n := binary.Uvarint(raw)
		if n <= 0 || d == 0 {
			return nil, errors.New("a list of sequences cannot be read")
		}
		last += d
		out, raw = append(out, last), raw[n:]
	}
	return out, nil
}
