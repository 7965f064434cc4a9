package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// stagedItem is an item that waits until its order is known.
type stagedItem struct {
	V     int    `json:"v"`
	Stamp uint64 `json:"stamp"`
	Item  Item   `json:"item"`
}

// stagedRun is what the page with which the order is known says about its run.
type stagedRun struct {
	V     int    `json:"v"`
	Began int64  `json:"began,omitempty"`
	Asked int64  `json:"asked,omitempty"`
	More  bool   `json:"more,omitempty"` // it goes on
	Read  uint64 `json:"read,omitempty"` // and has read these items with it
}

// stagedKey is where an item is kept aside: in the order in which it is committed.
func stagedKey(it *Item) []byte {
	key := append(append(make([]byte, 0, 64), 'i'), timeKey(it.Created)...)
	return append(binary.BigEndian.AppendUint64(key, it.Rank), it.ID...)
}

// stage keeps a page's items aside, in the order in which they will be committed.
func stage(tx *bolt.Tx, p *Page) error {
	b, err := ensure(tx, bucketStaged, p.Stream.Account, p.Stream.Stream, p.Walk)
	if err != nil {
		return err
	}
	for i := range p.Items {
		s := stagedItem{V: 1, Stamp: p.Stamp, Item: p.Items[i]}
		s.Item.Body = nil
		head, err := marshal(&s)
		if err != nil {
			return err
		}
		if err := b.Put(stagedKey(&s.Item), withBody(head, p.Items[i].Body, 2)); err != nil {
			return err
		}
	}
	if p.Final {
		if err := b.Put(keyFinal, p.Cursor); err != nil {
			return err
		}
		run := stagedRun{V: 1, Began: milli(p.Began), Asked: milli(p.Asked), More: p.More}
		if p.More {
			run.Read = uint64(p.Read)
		}
		if err := putJSON(b, keyRun, run); err != nil {
			return err
		}
	}
	return raiseStamp(tx, p.Stamp)
}

// HasStaged reports whether what a walk has staged waits for CommitStaged, as it
// does after a crash between the two, and whether that ends its run.
func (db *DB) HasStaged(id StreamID, walk string) (waits, ends bool, err error) {
	err = db.bolt.View(func(tx *bolt.Tx) error {
		b := nested(tx, bucketStaged, id.Account, id.Stream, walk)
		if waits = b != nil && b.Get(keyFinal) != nil; !waits {
			return nil
		}
		var run stagedRun
		_, err := getJSON(b, keyRun, &run)
		ends = !run.More
		return err
	})
	return waits, ends, err
}

// CommitStaged brings up to limit items that a walk has staged up to a Final page
// into the records and the log, in order of their time, and with the last of them
// the walk's cursor. It returns done when nothing is left. p gives the stream, walk,
// marketplace, time, rules, what the last page did not say of its run, and whether
// the walk was the first one: both only where that page has ended the run. A crash
// between two calls continues here: what was committed is no longer staged.
func (db *DB) CommitStaged(p Page, limit int) (out Outcome, done bool, err error) {
	err = db.update(func(tx *bolt.Tx) error {
		out, done = Outcome{Wrote: true}, false
		b := nested(tx, bucketStaged, p.Stream.Account, p.Stream.Stream, p.Walk)
		if b == nil || b.Get(keyFinal) == nil {
			return errUpToDate
		}
		var keys [][]byte
		c := b.Cursor()
		for k, v := c.Seek([]byte{'i'}); k != nil && k[0] == 'i' && len(keys) < limit; k, v = c.Next() {
			var s stagedItem
			body, err := cutBody(v, &s, 2)
			if err != nil {
				return err
			}
			s.Item.Body = body
			if s.Item.Fingerprint, err = p.Refingerprint(body); err != nil {
				return err
			}
			one := p
			one.Stamp = s.Stamp
			if err := apply(tx, &one, []Item{s.Item}, &out); err != nil {
				return err
			}
			keys = append(keys, bytes.Clone(k))
		}
		if len(keys) < limit {
			done = true
			return endStaged(tx, &p, b)
		}
		for _, k := range keys {
			if err := b.Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, errUpToDate) {
		return Outcome{}, true, nil
	}
	if err != nil {
		return Outcome{}, false, fmt.Errorf("commit staged items of %s: %w", p.Stream, err)
	}
	if out.Events > 0 {
		db.wake()
	}
	return out, done, nil
}

// endStaged ends what was staged, and with it the run, unless that goes on.
func endStaged(tx *bolt.Tx, p *Page, b *bolt.Bucket) error {
	var run stagedRun
	if _, err := getJSON(b, keyRun, &run); err != nil {
		return err
	}
	last := *p
	if last.Cursor = bytes.Clone(b.Get(keyFinal)); len(last.Cursor) == 0 {
		last.Cursor = nil
	}
	if run.More {
		last.Done, last.Walked, last.Read = false, false, int(run.Read)
	}
	if run.Began != 0 {
		last.Began = time.UnixMilli(run.Began)
	}
	if run.Asked != 0 {
		last.Asked = time.UnixMilli(run.Asked)
	}
	streams, err := ensure(tx, bucketStreams, p.Stream.Account, p.Stream.Stream)
	if err != nil {
		return err
	}
	if err := move(streams, &last); err != nil {
		return err
	}
	if err := settle(streams, last); err != nil {
		return err
	}
	return nested(tx, bucketStaged, p.Stream.Account, p.Stream.Stream).DeleteBucket([]byte(p.Walk))
}
