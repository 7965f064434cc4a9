package state

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// stagedItem is an item that waits for the end of its walk.
type stagedItem struct {
	V     int    `json:"v"`
	Stamp uint64 `json:"stamp"`
	Item  Item   `json:"item"`
}

// stagedRun is what the last page of a staged walk says about its run.
type stagedRun struct {
	V     int   `json:"v"`
	Began int64 `json:"began,omitempty"`
	Asked int64 `json:"asked,omitempty"`
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
		key := append([]byte{'i'}, recordKey(s.Item.Created, s.Item.ID)...)
		if err := b.Put(key, withBody(head, p.Items[i].Body, 2)); err != nil {
			return err
		}
	}
	if p.Final {
		if err := b.Put(keyFinal, p.Cursor); err != nil {
			return err
		}
		if err := putJSON(b, keyRun, stagedRun{V: 1, Began: milli(p.Began), Asked: milli(p.Asked)}); err != nil {
			return err
		}
	}
	return raiseStamp(tx, p.Stamp)
}

// HasStaged reports whether a walk is complete and waits for CommitStaged, as it
// does after a crash between the two.
func (db *DB) HasStaged(id StreamID, walk string) (bool, error) {
	final := false
	err := db.bolt.View(func(tx *bolt.Tx) error {
		b := nested(tx, bucketStaged, id.Account, id.Stream, walk)
		final = b != nil && b.Get(keyFinal) != nil
		return nil
	})
	return final, err
}

// CommitStaged brings up to limit items of a complete staged walk into the
// records and the log, in order of their time, and with the last of them the
// walk's cursor. It returns done when nothing is left. p gives the stream, walk,
// marketplace, time, rules, what the last page did not say of its run, and
// whether the walk was the first one. A crash between two calls continues here:
// what was committed is no longer staged.
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

// endStaged makes the end of a staged walk that of its run.
func endStaged(tx *bolt.Tx, p *Page, b *bolt.Bucket) error {
	var run stagedRun
	if _, err := getJSON(b, keyRun, &run); err != nil {
		return err
	}
	last := *p
	last.Cursor = bytes.Clone(b.Get(keyFinal))
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
