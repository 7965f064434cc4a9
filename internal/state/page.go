package state

import (
	"encoding/binary"
	"encoding/json"
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
	Rank        uint64            `json:"rank,omitempty"`   // orders staged items of the same Created
	Immutable   bool              `json:"immutable,omitempty"`
	Silent      bool              `json:"silent,omitempty"`   // where it was never in an event it is no news: it is older than `start`
	Backfill    bool              `json:"backfill,omitempty"` // its event says that it is history
	Fingerprint event.Fingerprint `json:"-"`
	Body        json.RawMessage   `json:"body,omitempty"`
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
	Final       bool      // with Staged: the order of what was kept aside is known, CommitStaged may begin
	More        bool      // with Final: the run goes on behind it
	Began       time.Time // when the run began that this page belongs to; kept with Done
	Done        bool      // with this page, or with the last staged item, the run is complete; always written
	Read        int       // items that the page adds to the run's count, saved with the cursor and only with it: see Outcome.Wrote
	Unemitted   bool      // a backfill: an item on record that was never in an event is `created`
	Asked       time.Time // walk "backfill": Backfill.Asked of the request that the page was read for; zero: whichever is open
	Odd         []Odd     // entries that are no usable items: kept raw in the quarantine
	Found       []Visit   // visits that were found; they are written where they have moved
	Visited     []Visit   // of this stream, that were made; written only where the page writes at all: see Outcome.Wrote
	Visiting    *Visiting // walk "follow", with a Cursor: the visit that it is in the middle of

	// Rules names the rules of the fingerprints; Refingerprint applies them to a
	// body that was recorded under others.
	Rules         string
	Refingerprint func(body json.RawMessage) (event.Fingerprint, error)

	// Grown says whether two bodies differ by nothing but keys that appeared or
	// disappeared (only), and at which paths. Nil: every change is `updated`.
	ReadSince time.Time // SettleHeld: what the run read was created since then; zero: anything was
	Grown     func(old, new json.RawMessage) (paths []string, only bool, err error)
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
	ActionHeld      Action = "held"    // differs only by keys that came or went: kept aside until a sweep ends
	ActionAdopted   Action = "adopted" // the record was brought up to date without an event
	ActionRemoved   Action = "removed" // no longer shown by the marketplace
)

// Outcome is what a page did. Actions are those of its items, in order; of
// SettleHeld those of the held items, of Vanish the removals.
type Outcome struct {
	Actions []Action
	Events  int  // appended to the log
	Wrote   bool // there was a transaction; else neither the cursor nor Page.Read nor Page.Visited was saved
	Odd     int  // entries that are new in the quarantine
	OddLost int  // entries that had to leave the quarantine for them
}

// CommitPage saves the items of a page, the events that they cause, the visits that
// it found and the cursor after them in one transaction. When nothing is new or
// changed and the page asks for nothing else to be saved it writes nothing: the old
// cursor, which leads to the same items again, is as good.
//
// A crash before the commit leaves the cursor where it was, and the page is read
// again; a crash after it leaves all of it done. There is nothing in between.
func (db *DB) CommitPage(p Page) (Outcome, error) {
	if !p.Keep && !p.Walked && !p.Staged && !p.Done && p.Start.IsZero() {
		out, err := db.unchanged(&p)
		if err != nil || out.Actions != nil {
			return out, err
		}
	}
	var out Outcome
	err := db.update(func(tx *bolt.Tx) error {
		out = Outcome{Actions: make([]Action, 0, len(p.Items)), Wrote: true}
		if p.Staged {
			if err := stage(tx, &p); err != nil {
				return err
			}
			for range p.Items {
				out.Actions = append(out.Actions, ActionStaged)
			}
		} else if err := apply(tx, &p, p.Items, &out); err != nil {
			return err
		}
		if err := quarantine(tx, &p, &out); err != nil {
			return err
		}
		b, err := ensure(tx, bucketStreams, p.Stream.Account, p.Stream.Stream)
		if err != nil {
			return err
		}
		if err := settle(b, p); err != nil {
			return err
		}
		if err := moveVisits(tx, &p); err != nil {
			return err
		}
		if p.Visiting != nil {
			if err := putJSON(b, keyVisiting, visiting{V: 1, ID: p.Visiting.ID, Version: p.Visiting.Version}); err != nil {
				return err
			}
		}
		if p.Staged && p.Final {
			return nil // the cursor takes effect with the last staged item
		}
		return move(b, &p)
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
func (db *DB) unchanged(p *Page) (Outcome, error) {
	actions := make([]Action, 0, len(p.Items))
	err := db.bolt.View(func(tx *bolt.Tx) error {
		if hasNewOdd(tx, p) {
			actions = nil
			return nil
		}
		if moved, err := findsNew(tx, p); moved || err != nil {
			actions = nil
			return err
		}
		s := openRecords(tx, p.Stream)
		for i := range p.Items {
			_, _, c, err := s.look(p, &p.Items[i])
			if err != nil {
				return err
			}
			if c.writes() {
				actions = nil
				return nil
			}
			actions = append(actions, c.action)
		}
		return nil
	})
	if err != nil {
		return Outcome{}, fmt.Errorf("look up a page of %s: %w", p.Stream, err)
	}
	return Outcome{Actions: actions}, nil
}

// apply brings items into the records and the event log.
func apply(tx *bolt.Tx, p *Page, items []Item, out *Outcome) error {
	s := openRecords(tx, p.Stream)
	if err := s.ensure(tx, p.Stream); err != nil {
		return err
	}
	wrote := false
	for i := range items {
		it := &items[i]
		key, r, c, err := s.look(p, it)
		if err != nil {
			return err
		}
		out.Actions = append(out.Actions, c.action)
		if !c.writes() {
			continue
		}
		if r == nil {
			if key, err = s.file(it, p.Now); err != nil {
				return err
			}
		}
		if err := s.carryOut(tx, p, key, r, c, out); err != nil {
			return err
		}
		wrote = true
	}
	if !wrote {
		return nil
	}
	return raiseStamp(tx, p.Stamp)
}

// carryOut saves what was decided about an item, and its event.
func (s *streamRecords) carryOut(tx *bolt.Tx, p *Page, key []byte, r *record, c change, out *Outcome) error {
	switch c.action {
	case ActionCreated, ActionUpdated, ActionRemoved:
		if err := appendEvent(tx, p, c.item, c.action, c.record.N, r); err != nil {
			return err
		}
		out.Events++
	}
	if c.held != nil {
		if err := s.putHeld(tx, p.Stream, key, c.held); err != nil {
			return err
		}
	}
	if c.drop {
		if err := s.held.Delete(key); err != nil {
			return err
		}
	}
	if c.record == nil {
		return nil
	}
	return s.records.Put(key, c.record.encode())
}

// raiseStamp saves the highest stamp together with what carries it, so that the
// next process begins above it.
func raiseStamp(tx *bolt.Tx, stamp uint64) error {
	meta := tx.Bucket(bucketMeta)
	if v := meta.Get(keyStamp); len(v) != 8 || binary.BigEndian.Uint64(v) < stamp {
		return meta.Put(keyStamp, binary.BigEndian.AppendUint64(nil, stamp))
	}
	return nil
}

// envelope is about what an event needs beside its data.
const envelope = 512

// appendEvent puts the event about version n of an item at the end of the log; r
// is the record of the version before, if there is one.
func appendEvent(tx *bolt.Tx, p *Page, it *Item, action Action, n uint64, r *record) error {
	id := event.ItemEventID(p.Stream.Account, p.Stream.Stream, it.ID)
	if !it.Immutable {
		id = event.VersionEventID(p.Stream.Account, p.Stream.Stream, it.ID, n, it.Fingerprint)
	}
	e := event.Event{
		ID: id, Source: event.Source(p.Marketplace, p.Stream.Account, p.Stream.Stream), Subject: it.Subject, Recorded: p.Now,
		PartitionKey: event.PartitionKey(p.Stream.Account, it.Subject), Backfill: it.Backfill, Item: it.Body,
	}
	prefix := p.Marketplace + "." + it.Kind + "."
	switch action {
	case ActionUpdated:
		e.Type, e.Previous = prefix+event.Updated, r.Body
		// The item's own change time says when this happened only if it moved.
		if !it.Changed.IsZero() && it.Changed.UnixMilli() != r.Changed {
			e.Time = it.Changed
		}
	case ActionRemoved:
		e.Type = prefix + event.Removed
	default:
		e.Type, e.Time = prefix+event.Created, it.Created
	}
	return logEvent(tx, &e)
}

// logEvent gives an event its sequence. One without a time of its own happened
// when it was recorded.
func logEvent(tx *bolt.Tx, e *event.Event) error {
	log := tx.Bucket(bucketEvents)
	log.FillPercent = ascending
	var err error
	if e.Sequence, err = log.NextSequence(); err != nil {
		return err
	}
	if e.Time.IsZero() {
		e.Time = e.Recorded.Truncate(time.Millisecond) // the very recordedtime
	}
	line := make([]byte, 0, envelope+len(e.Item)+len(e.Previous)) // bbolt keeps it until the commit
	return log.Put(seqKey(e.Sequence), e.AppendJSON(line))
}
