package state

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/event"
)

// record is what is kept of an item.
type record struct {
	V       int             `json:"v"`
	N       uint64          `json:"n"`
	FP      string          `json:"fp,omitempty"` // immutable items have none
	Rules   string          `json:"rules,omitempty"`
	Kind    string          `json:"kind,omitempty"` // with Subject, so that an event needs no reading
	Subject string          `json:"subject,omitempty"`
	Stamp   uint64          `json:"stamp"`
	At      int64           `json:"at"`
	Changed int64           `json:"changed,omitempty"`
	Emitted bool            `json:"emitted,omitempty"`
	Missing uint64          `json:"missing,omitempty"` // the stamp at which a run began that did not show it; no reading since
	Removed bool            `json:"removed,omitempty"`
	Body    json.RawMessage `json:"body,omitempty"`
}

func (r *record) encode() []byte {
	head := *r
	head.Body = nil
	raw, err := marshal(&head)
	if err != nil {
		panic(err) // numbers, booleans and plain text
	}
	if r.Body == nil {
		return raw
	}
	return withBody(raw, r.Body, 1)
}

// decodeRecord reads a record. Its body is a part of raw, so it lives no longer
// than the transaction.
func decodeRecord(raw []byte) (*record, error) {
	var r record
	body, err := cutBody(raw, &r, 1)
	if err != nil {
		return nil, err
	}
	if body != nil {
		r.Body = body
	}
	return &r, nil
}

func parseFingerprint(s string) (event.Fingerprint, error) {
	var f event.Fingerprint
	raw, err := hex.DecodeString(s)
	if err != nil || len(raw) != len(f) {
		return f, fmt.Errorf("%q is no fingerprint", s)
	}
	return event.Fingerprint(raw), nil
}

// streamRecords are the records of one stream inside a transaction, and what is
// kept aside of them. The buckets are nil where the stream has none yet.
type streamRecords struct {
	records, ids, held *bolt.Bucket
	filed              bool // a new item was, and said how full pages become
}

func openRecords(tx *bolt.Tx, id StreamID) *streamRecords {
	return &streamRecords{
		records: nested(tx, bucketRecords, id.Account, id.Stream),
		ids:     nested(tx, bucketIDs, id.Account, id.Stream),
		held:    nested(tx, bucketHeld, id.Account, id.Stream),
	}
}

// ensure makes the buckets of records where they are missing.
func (s *streamRecords) ensure(tx *bolt.Tx, id StreamID) (err error) {
	if s.records != nil {
		return nil
	}
	if s.records, err = ensure(tx, bucketRecords, id.Account, id.Stream); err != nil {
		return err
	}
	s.ids, err = ensure(tx, bucketIDs, id.Account, id.Stream)
	return err
}

// ascending is how full pages become where keys come in ascending order. By half, as
// is bbolt's way with any order, a commit would write twice as many.
const ascending = 0.9

// fill says how full a bucket's pages become: as its next key is behind all others or
// is not. Where a list is read backwards each would be left with a few keys.
func fill(b *bolt.Bucket, key []byte) {
	b.FillPercent = bolt.DefaultFillPercent
	if last, _ := b.Cursor().Last(); bytes.Compare(last, key) < 0 {
		b.FillPercent = ascending
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

// idKey is an item's key in ids: 8 bytes of the hash of its id, and before them the
// number that the id ends in, if it does. Such numbers are given out in ascending
// order, so those of a page are neighbours; hashes alone are anywhere, and each
// would make the commit write a page of its own.
func idKey(id string) []byte {
	key := make([]byte, 0, 16)
	if n, err := lastNumber(id); err == nil {
		key = binary.BigEndian.AppendUint64(key, n)
	}
	return binary.BigEndian.AppendUint64(key, IDHash(id))
}

// errNoNumber is made once: most ids of some marketplaces end in no number.
var errNoNumber = errors.New("no number")

func lastNumber(id string) (uint64, error) {
	last := id[strings.LastIndexByte(id, '/')+1:]
	if strings.Trim(last, "0123456789") != "" {
		return 0, errNoNumber
	}
	return strconv.ParseUint(last, 10, 64)
}

// find returns an item's record and its key, or nil. First where the item's own
// time says, then wherever its id is filed: the time may have been missing, or
// another one, when it was first seen.
func (s *streamRecords) find(it *Item) ([]byte, *record, error) {
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

// get returns the record with a key, or nil.
func (s *streamRecords) get(key []byte) (*record, error) {
	if s.records == nil {
		return nil, nil
	}
	raw := s.records.Get(key)
	if raw == nil {
		return nil, nil
	}
	r, err := decodeRecord(raw)
	if err != nil {
		return nil, fmt.Errorf("record %q cannot be read: %w", key[8:], err)
	}
	return r, nil
}

// file enters a new item into ids and returns the key for its record.
func (s *streamRecords) file(it *Item, now time.Time) ([]byte, error) {
	at := it.Created
	if at.IsZero() {
		at = now
	}
	key := recordKey(at, it.ID)
	id := idKey(it.ID)
	if !s.filed {
		s.filed = true
		fill(s.records, key)
		fill(s.ids, id)
	}
	// Two ids with one hash share the entry; find tells them apart by the key.
	times := append(bytes.Clone(s.ids.Get(id)), key[:8]...)
	return key, s.ids.Put(id, times)
}
