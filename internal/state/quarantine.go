package state

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	// maxOdd is how many entries the quarantine of a stream holds: enough to see
	// what is wrong, and 16 MiB at most.
	maxOdd = 1000
	// maxOddRaw is how much of an entry is kept, and maxOddReason of why it is here.
	maxOddRaw    = 16 << 10
	maxOddReason = 1 << 10
)

// Odd is an entry of a page that is no usable item. A page gives Raw and Reason.
type Odd struct {
	Raw    json.RawMessage // perhaps no JSON; the quarantine keeps at most 16 KiB of it
	Reason string

	// Of the quarantine:
	Stream      StreamID
	Size        int       // of the whole entry, in bytes
	First, Last time.Time // when it was seen; Last and Count follow where a page has something else to save
	Count       uint64
}

type odd struct {
	V      int    `json:"v"`
	Reason string `json:"reason"`
	Size   int    `json:"size"`
	First  int64  `json:"first"`
	Last   int64  `json:"last"`
	Count  uint64 `json:"count"`
}

func oddKey(raw []byte) []byte {
	sum := sha256.Sum256(raw)
	return sum[:8]
}

var oddRaw = []byte("raw")

// rawKey is where the entry itself is kept: beside what is said about it, so that
// what is said is cheap to read and to change.
func rawKey(key []byte) []byte { return append(bytes.Clone(key), oddRaw...) }

// newest are the odd entries of a page of which the quarantine takes note.
func newest(p *Page) []Odd { return p.Odd[max(0, len(p.Odd)-maxOdd):] }

// hasNewOdd reports whether a page has an odd entry that is not known.
func hasNewOdd(tx *bolt.Tx, p *Page) bool {
	if len(p.Odd) == 0 {
		return false
	}
	b := nested(tx, bucketOdd, p.Stream.Account, p.Stream.Stream)
	return b == nil || slices.ContainsFunc(newest(p), func(o Odd) bool { return b.Get(oddKey(o.Raw)) == nil })
}

// quarantine keeps the odd entries of a page. The bucket's own sequence counts
// them: bbolt can count keys only by walking them.
func quarantine(tx *bolt.Tx, p *Page, out *Outcome) error {
	if len(p.Odd) == 0 {
		return nil
	}
	b, err := ensure(tx, bucketOdd, p.Stream.Account, p.Stream.Stream)
	if err != nil {
		return err
	}
	out.OddLost = len(p.Odd) - len(newest(p))
	for _, e := range newest(p) {
		key := oddKey(e.Raw)
		o := odd{V: 1, Reason: e.Reason[:min(len(e.Reason), maxOddReason)], Size: len(e.Raw), First: p.Now.UnixMilli()}
		known, err := getJSON(b, key, &o)
		if err != nil {
			return err
		}
		if !known {
			out.Odd++
			if err := b.SetSequence(b.Sequence() + 1); err != nil {
				return err
			}
			if err := b.Put(rawKey(key), e.Raw[:min(len(e.Raw), maxOddRaw)]); err != nil {
				return err
			}
		}
		o.Last, o.Count = p.Now.UnixMilli(), o.Count+1
		if err := putJSON(b, key, o); err != nil {
			return err
		}
	}
	return evict(b, out)
}

// evict makes room: those that were not seen for the longest time go.
func evict(b *bolt.Bucket, out *Outcome) error {
	if b.Sequence() <= maxOdd {
		return nil
	}
	entries, err := readOdd(b)
	if err != nil {
		return err
	}
	for _, e := range entries[min(len(entries), maxOdd):] {
		out.OddLost++
		if err := b.Delete(e.key); err != nil {
			return err
		}
		if err := b.Delete(rawKey(e.key)); err != nil {
			return err
		}
	}
	return b.SetSequence(min(uint64(len(entries)), maxOdd))
}

type oddEntry struct {
	key []byte
	odd
}

// readOdd returns what is said about the entries, last seen first.
func readOdd(b *bolt.Bucket) ([]oddEntry, error) {
	var out []oddEntry
	err := b.ForEach(func(k, v []byte) error {
		if bytes.HasSuffix(k, oddRaw) && len(k) > 8 {
			return nil
		}
		e := oddEntry{key: bytes.Clone(k)}
		out = append(out, e)
		return json.Unmarshal(v, &out[len(out)-1].odd)
	})
	slices.SortFunc(out, func(x, y oddEntry) int { return cmp.Or(cmp.Compare(y.Last, x.Last), bytes.Compare(x.key, y.key)) })
	return out, err
}

// Oddities returns up to limit entries of a stream that are no usable items, last
// seen first.
func (db *DB) Oddities(id StreamID, limit int) ([]Odd, error) {
	var out []Odd
	err := db.bolt.View(func(tx *bolt.Tx) error {
		b := nested(tx, bucketOdd, id.Account, id.Stream)
		if b == nil {
			return nil
		}
		entries, err := readOdd(b)
		if err != nil {
			return err
		}
		for _, e := range entries[:min(len(entries), limit)] {
			out = append(out, Odd{
				Raw: bytes.Clone(b.Get(rawKey(e.key))), Reason: e.Reason, Stream: id, Size: e.Size,
				First: fromMilli(e.First), Last: fromMilli(e.Last), Count: e.Count,
			})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("quarantine of %s: %w", id, err)
	}
	return out, nil
}
