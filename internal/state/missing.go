package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// Known is an item that is on record, and its last version; nil where the body is
// gone.
type Known struct {
	ID   string
	Body json.RawMessage
}

// Missing returns the items on record that a complete run did not show: began is
// the stamp that was taken when it began, and shown are the hashes (IDHash) of the
// ids that it showed, in ascending order. Left alone are records of a later
// reading, those of immutable items, and those that are removed.
//
// Each call looks at up to limit records behind the position after, in the order of
// their times, and returns the next one; it is empty when there are no more. It
// only reads.
func (db *DB) Missing(id StreamID, began uint64, shown []uint64, limit int, after string) (out []Known, next string, err error) {
	err = db.bolt.View(func(tx *bolt.Tx) error {
		s := openRecords(tx, id)
		if s.records == nil {
			return nil
		}
		c := s.records.Cursor()
		k, raw := c.Seek([]byte(after))
		if k != nil && string(k) == after {
			k, raw = c.Next()
		}
		for n := 0; k != nil; k, raw = c.Next() {
			if n++; n > limit {
				return nil
			}
			next = string(k)
			name := next[8:]
			if _, ok := slices.BinarySearch(shown, IDHash(name)); ok {
				continue
			}
			r, err := decodeRecord(raw)
			if err != nil {
				return fmt.Errorf("record %q cannot be read: %w", name, err)
			}
			h, err := s.heldAt(k)
			if err != nil {
				return err
			}
			if r.FP == "" || r.Removed || r.Stamp > began || h != nil && h.Stamp > began {
				continue
			}
			known := Known{ID: name, Body: bytes.Clone(r.Body)}
			if h != nil { // the last that was seen of it
				known.Body = bytes.Clone(h.Item.Body)
			}
			out = append(out, known)
		}
		next = ""
		return nil
	})
	if err != nil {
		return nil, after, fmt.Errorf("look for what %s no longer shows: %w", id, err)
	}
	return out, next, nil
}
