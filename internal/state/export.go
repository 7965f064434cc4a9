package state

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/event"
)

// Record is what is kept of an item.
type Record struct {
	Account, Stream, ID string
	Kind, Subject       string
	Version             uint64
	Fingerprint         string          // of a mutable item
	Created             time.Time       // by the marketplace's clock, or when it was first seen
	Changed             time.Time       // the item's own change time; zero: it has none
	Recorded            time.Time       // when this version was
	Emitted             bool            // it was in an event
	Removed             bool            // the marketplace shows it no more
	Item                json.RawMessage // nil: only the fingerprint is kept
}

const (
	exportPiece = 256     // records that one transaction reads
	exportBytes = 1 << 20 // of their items
)

// ExportRecords calls fn for every record of a stream, or of all streams where that
// is "", of an account, or of all accounts, in the order of their keys. It reads in
// pieces: what changes meanwhile is there as it was or as it is. It ends with the
// first error of fn.
func (db *DB) ExportRecords(ctx context.Context, account, stream string, fn func(Record) error) error {
	var streams []StreamID
	err := db.bolt.View(func(tx *bolt.Tx) error {
		root := tx.Bucket(bucketRecords)
		return root.ForEachBucket(func(a []byte) error {
			return root.Bucket(a).ForEachBucket(func(s []byte) error {
				if id := (StreamID{string(a), string(s)}); (account == "" || account == id.Account) && (stream == "" || stream == id.Stream) {
					streams = append(streams, id)
				}
				return nil
			})
		})
	})
	for _, id := range streams {
		for after := []byte(nil); err == nil; {
			var piece []Record
			if piece, after, err = db.readRecords(id, after); len(piece) == 0 {
				break
			}
			for i := 0; i < len(piece) && err == nil; i++ {
				if err = ctx.Err(); err == nil {
					err = fn(piece[i])
				}
			}
		}
	}
	if err != nil {
		return fmt.Errorf("export records: %w", err)
	}
	return nil
}

// readRecords returns a piece of the records of a stream after a key, and the key
// of the last.
func (db *DB) readRecords(id StreamID, after []byte) (out []Record, last []byte, err error) {
	err = db.bolt.View(func(tx *bolt.Tx) error {
		records := nested(tx, bucketRecords, id.Account, id.Stream)
		if records == nil { // forgotten meanwhile
			return nil
		}
		c := records.Cursor()
		k, raw := c.Seek(after)
		if k != nil && bytes.Equal(k, after) {
			k, raw = c.Next()
		}
		size := 0
		for ; k != nil && len(out) < exportPiece && size < exportBytes; k, raw = c.Next() {
			r, err := decodeRecord(raw)
			if err != nil {
				return fmt.Errorf("%s: record %q cannot be read: %w", id, k[8:], err)
			}
			out = append(out, Record{
				Account: id.Account, Stream: id.Stream, ID: string(k[8:]), Kind: r.Kind, Subject: r.Subject, Version: r.N, Fingerprint: r.FP,
				Created: time.UnixMilli(int64(binary.BigEndian.Uint64(k))).UTC(), Changed: fromMilli(r.Changed), Recorded: fromMilli(r.At),
				Emitted: r.Emitted, Removed: r.Removed, Item: bytes.Clone(r.Body),
			})
			size += len(raw)
			last = k
		}
		last = bytes.Clone(last)
		return nil
	})
	return out, last, err
}

// ErrDeletedMeanwhile says that retention has deleted events before they were read.
var ErrDeletedMeanwhile = errors.New("events were deleted by age before they were read")

// ExportEvents calls fn for every event of the log up to the newest of now that
// match (nil: all) takes, in order. It reads in pieces, and ends with the first
// error of fn, or with ErrDeletedMeanwhile where fn took so long that events behind
// the first one are gone.
func (db *DB) ExportEvents(ctx context.Context, match func(event.Header) bool, fn func(event.Logged) error) error {
	newest, err := db.LastSequence()
	last := uint64(0) // read; 0: none
	for e, readErr := range db.Events(0) {
		if err = cmp.Or(err, readErr, ctx.Err()); err != nil || e.Sequence > newest {
			break
		}
		if err = db.follows(last, e.Sequence); err == nil && (match == nil || match(e.Header)) {
			err = fn(e)
		}
		if last = e.Sequence; err != nil {
			break
		}
	}
	if err == nil && last < newest {
		err = db.follows(last, newest+1)
	}
	if err != nil {
		return fmt.Errorf("export events: %w", err)
	}
	return nil
}

// follows returns ErrDeletedMeanwhile unless seq comes after last in the log as it was
// written; last is 0 where none was read.
func (db *DB) follows(last, seq uint64) error {
	if last == 0 || seq == last+1 {
		return nil
	}
	return db.bolt.View(func(tx *bolt.Tx) error {
		h, err := readHoles(tx)
		if err == nil && h.between(last, seq-1) > 0 {
			err = ErrDeletedMeanwhile
		}
		return err
	})
}
