package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// streamRecords are the records of one stream inside a transaction. Both buckets
// are nil where the stream has none yet.
type streamRecords struct {
	records, ids *bolt.Bucket
}

func openRecords(tx *bolt.Tx, id StreamID) streamRecords {
	return streamRecords{
		records: nested(tx, bucketRecords, id.Account, id.Stream),
		ids:     nested(tx, bucketIDs, id.Account, id.Stream),
	}
}

// timeKey is t in a key: times before 1970 sort as 0.
func timeKey(t time.Time) []byte {
	ms := uint64(0)
	if !t.IsZero() && t.UnixMilli() > 0 {
		ms = uint64(t.UnixMilli())
	}
	return binary.BigEndian.AppendUint64(make([]byte, 0, 64), ms)
}

func recordKey(created time.Time, id string) []byte { return append(timeKey(created), id...) }

func idKey(id string) []byte {
	sum := sha256.Sum256([]byte(id))
	return sum[:8]
}

// find returns an item's record and its key, or nil. First where the item's own
// time says, then wherever its id is filed: the time may have been missing, or
// another one, when it was first seen.
func (s streamRecords) find(it *Item) ([]byte, *record, error) {
	if s.records == nil {
		return nil, nil, nil
	}
	if !it.Created.IsZero() {
		key := recordKey(it.Created, it.ID)
		if r, err := s.get(key); r != nil || err != nil {
			return key, r, err
		}
	}
	times := s.ids.Get(idKey(it.ID))
	for ; len(times) >= 8; times = times[8:] {
		key := append(bytes.Clone(times[:8]), it.ID...)
		if r, err := s.get(key); r != nil || err != nil {
			return key, r, err
		}
	}
	return nil, nil, nil
}

func (s streamRecords) get(key []byte) (*record, error) {
	raw := s.records.Get(key)
	if raw == nil {
		return nil, nil
	}
	// Unmarshal copies the body out of the transaction's memory.
	var r record
	if err := json.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("record %q cannot be read: %w", key[8:], err)
	}
	return &r, nil
}

// file enters a new item into ids and returns the key for its record.
func (s streamRecords) file(it *Item, now time.Time) ([]byte, error) {
	at := it.Created
	if at.IsZero() {
		at = now
	}
	key := recordKey(at, it.ID)
	id := idKey(it.ID)
	// Two ids with one hash share the entry; find tells them apart by the key.
	times := append(bytes.Clone(s.ids.Get(id)), key[:8]...)
	return key, s.ids.Put(id, times)
}
