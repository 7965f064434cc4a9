package state

import (
	"encoding/binary"

	bolt "go.etcd.io/bbolt"
)

// A hole is a range of sequences that no event has or will have. Sequences are
// dense everywhere else: one follows the other, across deleted events too.
type hole struct {
	After uint64 `json:"after"`
	Last  uint64 `json:"last"`
}

// holes are in ascending order and do not touch.
type holes []hole

type holesValue struct {
	V     int   `json:"v"`
	Holes holes `json:"holes"`
}

func readHoles(tx *bolt.Tx) (holes, error) {
	var v holesValue
	_, err := getJSON(tx.Bucket(bucketMeta), keyHoles, &v)
	return v.Holes, err
}

func (h holes) save(tx *bolt.Tx) error {
	if len(h) == 0 {
		return tx.Bucket(bucketMeta).Delete(keyHoles)
	}
	return putJSON(tx.Bucket(bucketMeta), keyHoles, holesValue{V: 1, Holes: h})
}

// addHole keeps that no event has the sequences after one, up to last, which is
// the newest given out.
func addHole(tx *bolt.Tx, after, last uint64) error {
	h, err := readHoles(tx)
	if err != nil {
		return err
	}
	if n := len(h); n > 0 && h[n-1].Last == after { // nothing was logged between two restores
		h[n-1].Last = last
	} else {
		h = append(h, hole{after, last})
	}
	return h.save(tx)
}

// dropHoles forgets the holes below everything that is kept: below the first event
// of the log and below what sinks need.
func dropHoles(tx *bolt.Tx, needed uint64) error {
	h, err := readHoles(tx)
	if err != nil || len(h) == 0 {
		return err
	}
	if k, _ := tx.Bucket(bucketEvents).Cursor().First(); k != nil {
		needed = min(needed, binary.BigEndian.Uint64(k))
	}
	n := 0
	for n < len(h) && h[n].Last < needed {
		n++
	}
	if n == 0 {
		return nil
	}
	return h[n:].save(tx)
}

// next returns the sequence that follows seq in the log.
func (h holes) next(seq uint64) uint64 {
	for _, hole := range h {
		if hole.After <= seq && seq < hole.Last {
			return hole.Last + 1
		}
	}
	return seq + 1
}

// between returns how many sequences there are after one and up to last.
func (h holes) between(after, last uint64) uint64 {
	if after >= last {
		return 0
	}
	n := last - after
	for _, hole := range h {
		if from, to := max(hole.After, after), min(hole.Last, last); from < to {
			n -= to - from
		}
	}
	return n
}
