package state

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/event"
)

// Item is one item of a page, ready to be kept. Its id and subject are escaped.
type Item struct {
	ID          string            `json:"id"`
	Kind        string            `json:"kind"`
	Subject     string            `json:"subject"`
	Created     time.Time         `json:"created,omitzero"` // zero: unknown or implausible
	Changed     time.Time         `json:"changed,omitzero"` // the item's own change time; zero: it has none
	Immutable   bool              `json:"immutable,omitempty"`
	Silent      bool              `json:"silent,omitempty"`   // a first version of it is no news: it is older than `start`
	Backfill    bool              `json:"backfill,omitempty"` // its event says that it is history
	Fingerprint event.Fingerprint `json:"-"`
	Body        json.RawMessage   `json:"body"`
}

// Page is what one request brought, and where to go on.
type Page struct {
	Stream      StreamID
	Marketplace string
	Walk        string
	Stamp       uint64    // of the request: see DB.Stamp
	Now         time.Time // recordedtime of the events
	Items       []Item
	Cursor      []byte
	Keep        bool      // save the cursor even where no item is new or changed
	Walked      bool      // with this page, or with the last staged item, the first walk is complete
	Start       time.Time // if set: what is old is decided anew, by the marketplace's clock
	Staged      bool      // keep the items aside until Final
	Final       bool      // with Staged: the walk is complete, CommitStaged may begin

	// Rules names the rules of the fingerprints; Refingerprint applies them to a
	// body that was recorded under others.
	Rules         string
	Refingerprint func(body json.RawMessage) (event.Fingerprint, error)
}

// Action is what became of an item.
type Action string

// The actions. The names are the `action` label of items_total.
const (
	ActionCreated   Action = "created"
	ActionUpdated   Action = "updated"
	ActionSilent    Action = "silent"    // recorded without an event
	ActionUnchanged Action = "unchanged" // known, and the same
	ActionStale     Action = "stale"     // read before the version on record: changes nothing
	ActionStaged    Action = "staged"
)

// Outcome is what a page did. Actions are those of its items, in order.
type Outcome struct {
	Actions []Action
	Events  int  // appended to the log
	Wrote   bool // there was a transaction; else the cursor was not saved
}

type record struct {
	V       int             `json:"v"`
	N       uint64          `json:"n"`
	FP      string          `json:"fp,omitempty"` // immutable items have none
	Rules   string          `json:"rules,omitempty"`
	Stamp   uint64          `json:"stamp"`
	At      int64           `json:"at"`
	Changed int64           `json:"changed,omitempty"`
	Emitted bool            `json:"emitted,omitempty"`
	Body    json.RawMessage `json:"body,omitempty"`
}

// CommitPage saves the items of a page, the events that they cause and the cursor
// after them in one transaction. When nothing is new or changed and Keep is not
// set it writes nothing: the old cursor, which leads to the same items again, is
// as good.
//
// A crash before the commit leaves the cursor where it was, and the page is read
// again; a crash after it leaves all of it done. There is nothing in between.
func (db *DB) CommitPage(p Page) (Outcome, error) {
	if !p.Keep && !p.Walked && !p.Staged && p.Start.IsZero() {
		out, err := db.unchanged(p)
		if err != nil || out.Actions != nil {
			return out, err
		}
	}
	var out Outcome
	err := db.update(func(tx *bolt.Tx) error {
		out = Outcome{Actions: make([]Action, 0, len(p.Items)), Wrote: true}
		if p.Staged {
			if err := stage(tx, p); err != nil {
				return err
			}
			for range p.Items {
				out.Actions = append(out.Actions, ActionStaged)
			}
		} else if err := apply(tx, p, p.Items, &out); err != nil {
			return err
		}
		b, err := ensure(tx, bucketStreams, p.Stream.Account, p.Stream.Stream)
		if err != nil {
			return err
		}
		if err := settle(b, p); err != nil {
			return err
		}
		if p.Staged && p.Final {
			return nil // the cursor takes effect with the last staged item
		}
		return b.Put([]byte(cursorPrefix+p.Walk), p.Cursor)
	})
	if err != nil {
		return Outcome{}, fmt.Errorf("commit a page of %s: %w", p.Stream, err)
	}
	if out.Events > 0 {
		db.wake()
	}
	return out, nil
}

// unchanged looks in a read-only transaction whether the page holds anything to
// write. Outcome.Actions is nil if it does.
func (db *DB) unchanged(p Page) (Outcome, error) {
	actions := make([]Action, 0, len(p.Items))
	err := db.bolt.View(func(tx *bolt.Tx) error {
		s := openRecords(tx, p.Stream)
		for i := range p.Items {
			_, r, err := s.find(&p.Items[i])
			if err != nil {
				return err
			}
			a, err := judge(p, &p.Items[i], r)
			if err != nil {
				return err
			}
			if a != ActionUnchanged && a != ActionStale {
				actions = nil
				return nil
			}
			actions = append(actions, a)
		}
		return nil
	})
	if err != nil {
		return Outcome{}, fmt.Errorf("look up a page of %s: %w", p.Stream, err)
	}
	return Outcome{Actions: actions}, nil
}

// judge says what an item is, given its record; nil: it has none.
func judge(p Page, it *Item, r *record) (Action, error) {
	switch {
	case r == nil && it.Silent:
		return ActionSilent, nil
	case r == nil:
		return ActionCreated, nil
	case it.Immutable:
		return ActionUnchanged, nil
	case p.Stamp < r.Stamp:
		// The request was sent before the one that gave the record its version.
		return ActionStale, nil
	}
	fp := r.FP
	if r.Rules != p.Rules && r.Body != nil {
		// Recorded under other rules, which must emit nothing by themselves:
		// compare under today's.
		f, err := p.Refingerprint(r.Body)
		if err != nil {
			return "", err
		}
		fp = f.String()
	}
	if fp == it.Fingerprint.String() {
		return ActionUnchanged, nil
	}
	return ActionUpdated, nil
}

// apply brings items into the records and the event log.
func apply(tx *bolt.Tx, p Page, items []Item, out *Outcome) error {
	s := openRecords(tx, p.Stream)
	if s.records == nil {
		var err error
		if s.records, err = ensure(tx, bucketRecords, p.Stream.Account, p.Stream.Stream); err != nil {
			return err
		}
		if s.ids, err = ensure(tx, bucketIDs, p.Stream.Account, p.Stream.Stream); err != nil {
			return err
		}
	}
	wrote := false
	for i := range items {
		it := &items[i]
		key, r, err := s.find(it)
		if err != nil {
			return err
		}
		action, err := judge(p, it, r)
		if err != nil {
			return err
		}
		out.Actions = append(out.Actions, action)
		next := record{V: 1, N: 1, Stamp: p.Stamp, At: p.Now.UnixMilli(), Rules: p.Rules, Emitted: action != ActionSilent, Body: it.Body}
		if !it.Immutable {
			next.FP = it.Fingerprint.String()
		}
		if !it.Changed.IsZero() {
			next.Changed = it.Changed.UnixMilli()
		}
		var previous json.RawMessage
		switch action {
		case ActionUnchanged, ActionStale:
			continue
		case ActionUpdated:
			next.N, previous = r.N+1, r.Body
		default:
			if key, err = s.file(it, p.Now); err != nil {
				return err
			}
		}
		if action != ActionSilent {
			if err := appendEvent(tx, p, it, r, next.N, previous); err != nil {
				return err
			}
			out.Events++
		}
		if err := s.records.Put(key, next.append(nil)); err != nil {
			return err
		}
		wrote = true
	}
	if !wrote {
		return nil
	}
	return raiseStamp(tx, p.Stamp)
}

// raiseStamp saves the highest stamp with the records and staged items that carry
// it, so that the next process begins above it.
func raiseStamp(tx *bolt.Tx, stamp uint64) error {
	meta := tx.Bucket(bucketMeta)
	if v := meta.Get(keyStamp); len(v) != 8 || binary.BigEndian.Uint64(v) < stamp {
		return meta.Put(keyStamp, binary.BigEndian.AppendUint64(nil, stamp))
	}
	return nil
}

// append renders r by hand: encoding/json would change the body's spelling.
func (r *record) append(dst []byte) []byte {
	body := r.Body
	head := *r
	head.Body = nil
	raw, err := json.Marshal(head)
	if err != nil {
		panic(err) // numbers, booleans and hexadecimal text
	}
	if body == nil {
		return append(dst, raw...)
	}
	dst = append(dst, raw[:len(raw)-1]...)
	dst = append(dst, `,"body":`...)
	dst = append(dst, body...)
	return append(dst, '}')
}

// appendEvent puts the event about version n of an item at the end of the log.
func appendEvent(tx *bolt.Tx, p Page, it *Item, r *record, n uint64, previous json.RawMessage) error {
	log := tx.Bucket(bucketEvents)
	log.FillPercent = 0.9 // sequences only grow: pages fill from the left
	seq, err := log.NextSequence()
	if err != nil {
		return err
	}
	id := event.ItemEventID(p.Stream.Account, p.Stream.Stream, it.ID)
	if !it.Immutable {
		id = event.VersionEventID(p.Stream.Account, p.Stream.Stream, it.ID, n, it.Fingerprint)
	}
	e := event.Event{
		ID: id, Source: event.Source(p.Marketplace, p.Stream.Account, p.Stream.Stream),
		Type: p.Marketplace + "." + it.Kind + "." + event.Created, Subject: it.Subject,
		Time: it.Created, Recorded: p.Now, Sequence: seq, PartitionKey: event.PartitionKey(p.Stream.Account, it.Subject),
		Backfill: it.Backfill, Item: it.Body,
	}
	if r != nil {
		e.Type, e.Previous, e.Time = p.Marketplace+"."+it.Kind+"."+event.Updated, previous, time.Time{}
		// The item's own change time says when this happened only if it moved.
		if !it.Changed.IsZero() && it.Changed.UnixMilli() != r.Changed {
			e.Time = it.Changed
		}
	}
	if e.Time.IsZero() {
		e.Time = p.Now.Truncate(time.Millisecond) // the very recordedtime
	}
	return log.Put(binary.BigEndian.AppendUint64(nil, seq), e.AppendJSON(nil))
}

// stagedItem is an item that waits for the end of its walk.
type stagedItem struct {
	V     int    `json:"v"`
	Stamp uint64 `json:"stamp"`
	Item  Item   `json:"item"`
}

// stage keeps a page's items aside, in the order in which they will be committed.
func stage(tx *bolt.Tx, p Page) error {
	b, err := ensure(tx, bucketStaged, p.Stream.Account, p.Stream.Stream, p.Walk)
	if err != nil {
		return err
	}
	for i := range p.Items {
		it := &p.Items[i]
		key := append([]byte{'i'}, recordKey(it.Created, it.ID)...)
		if err := putJSON(b, key, stagedItem{V: 1, Stamp: p.Stamp, Item: *it}); err != nil {
			return err
		}
	}
	if p.Final {
		if err := b.Put(keyFinal, p.Cursor); err != nil {
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
// marketplace, time, rules, and whether the walk was the first one. A crash between two calls continues here: what was
// committed is no longer staged.
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
			if err := json.Unmarshal(v, &s); err != nil {
				return err
			}
			fp, err := p.Refingerprint(s.Item.Body)
			if err != nil {
				return err
			}
			s.Item.Fingerprint = fp
			one := p
			one.Stamp = s.Stamp
			if err := apply(tx, one, []Item{s.Item}, &out); err != nil {
				return err
			}
			keys = append(keys, bytes.Clone(k))
		}
		if len(keys) < limit {
			done = true
			streams, err := ensure(tx, bucketStreams, p.Stream.Account, p.Stream.Stream)
			if err != nil {
				return err
			}
			if err := streams.Put([]byte(cursorPrefix+p.Walk), bytes.Clone(b.Get(keyFinal))); err != nil {
				return err
			}
			if err := settle(streams, p); err != nil {
				return err
			}
			return nested(tx, bucketStaged, p.Stream.Account, p.Stream.Stream).DeleteBucket([]byte(p.Walk))
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
