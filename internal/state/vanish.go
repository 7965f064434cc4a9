package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// IDHash is what Vanish knows an item by: 8 bytes of the SHA-256 of its id.
func IDHash(id string) uint64 {
	sum := sha256.Sum256([]byte(id))
	return binary.BigEndian.Uint64(sum[:])
}

// Vanish takes note of what a complete run did not show, for streams whose
// disappearances are news. began is the stamp that was taken when the run began,
// seen what it showed. A record that is not among it is marked; one that still
// has the mark of an earlier run becomes `removed`, with the last body as its
// item (null where that is gone). Whatever showed an item since then has taken
// the mark away. Left alone are records of a later reading, those of immutable
// items, and those that are removed already; read again, an item is `created`.
//
// Each call looks at up to limit records behind the position after, and returns
// the next one; done says that there are no more. It writes only where there is
// something to note, in one transaction.
//
// A crash between two calls leaves the rest for the next run: a mark names its
// run, so one run that is gone through twice does not count as two.
func (db *DB) Vanish(p Page, began uint64, seen map[uint64]struct{}, limit int, after string) (out Outcome, next string, done bool, err error) {
	var keys [][]byte
	done = true
	err = db.bolt.View(func(tx *bolt.Tx) error {
		s := openRecords(tx, p.Stream)
		if s.records == nil {
			return nil
		}
		c := s.records.Cursor()
		k, _ := c.Seek([]byte(after))
		if k != nil && string(k) == after {
			k, _ = c.Next()
		}
		for n := 0; k != nil; k, _ = c.Next() {
			if n++; n > limit {
				done = false
				return nil
			}
			next = string(k)
			ch, err := s.vanished(&p, k, began, seen)
			if err != nil {
				return err
			}
			if ch.writes() {
				keys = append(keys, bytes.Clone(k))
			}
		}
		return nil
	})
	if err == nil && len(keys) > 0 {
		err = db.update(func(tx *bolt.Tx) error {
			out = Outcome{Wrote: true}
			s := openRecords(tx, p.Stream)
			for _, k := range keys {
				if err := s.vanish(tx, &p, k, began, seen, &out); err != nil {
					return err
				}
			}
			return raiseStamp(tx, began)
		})
	}
	if err != nil {
		return Outcome{}, after, false, fmt.Errorf("note what %s no longer shows: %w", p.Stream, err)
	}
	if out.Events > 0 {
		db.wake()
	}
	if done {
		next = ""
	}
	return out, next, done, nil
}

func (s *streamRecords) vanish(tx *bolt.Tx, p *Page, key []byte, began uint64, seen map[uint64]struct{}, out *Outcome) error {
	c, err := s.vanished(p, key, began, seen)
	if err != nil || !c.writes() {
		return err
	}
	if c.action == ActionRemoved {
		out.Actions = append(out.Actions, c.action)
	}
	return s.carryOut(tx, p, key, nil, c, out)
}

// vanished says what a run comes to for one record.
func (s *streamRecords) vanished(p *Page, key []byte, began uint64, seen map[uint64]struct{}) (change, error) {
	r, err := s.get(key)
	if err != nil || r == nil || r.FP == "" || r.Removed || r.Stamp > began {
		return change{}, err
	}
	h, err := s.heldAt(key)
	if err != nil || h != nil && h.Stamp > began {
		return change{}, err
	}
	id := string(key[8:])
	_, shown := seen[IDHash(id)]
	next := *r
	switch {
	case shown && r.Missing != 0 && r.Missing < began:
		next.Missing = 0
		return change{record: &next}, nil
	case shown || r.Missing >= began:
		return change{}, nil
	case r.Missing == 0:
		next.Missing = began
		return change{record: &next}, nil
	}
	it := &Item{ID: id, Kind: r.Kind, Subject: r.Subject, Body: r.Body}
	if h != nil { // the last that was seen of it
		next.FP, next.Rules, next.Body, it.Body = h.FP, h.Rules, h.Item.Body, h.Item.Body
	}
	if it.Body == nil {
		it.Body = json.RawMessage("null")
	}
	if it.Fingerprint, err = parseFingerprint(next.FP); err != nil {
		return change{}, err
	}
	next.N, next.At, next.Stamp, next.Missing = r.N+1, p.Now.UnixMilli(), began, 0
	next.Emitted, next.Removed = true, true
	return change{action: ActionRemoved, item: it, record: &next, drop: h != nil}, nil
}
