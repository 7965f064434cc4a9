package state

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/event"
)

const (
	// adoptShare and adoptLeast: a key that came or went is a change of the
	// marketplace's schema if more than a fifth of what a sweep has read shares it,
	// and at least 100 items (contract §6).
	adoptShare = 5
	adoptLeast = 100
	// maxHeldPaths bounds the different paths that are counted for a verdict. A
	// path that a fifth of all items share is among the first ones.
	maxHeldPaths = 1000
)

// held is a reading that differs from its record by nothing but keys that came or
// went. It has the record's key.
type held struct {
	V     int      `json:"v"`
	Stamp uint64   `json:"stamp"`
	FP    string   `json:"fp"`
	Rules string   `json:"rules"`
	Paths []string `json:"paths"`
	Item  Item     `json:"item"`
}

// verdict is what a settlement has decided: whoever is not done adopts these paths.
type verdict struct {
	V     int      `json:"v"`
	Paths []string `json:"paths,omitempty"`
}

// schemaChanges counts a stream's schema changes.
type schemaChanges struct {
	V int    `json:"v"`
	N uint64 `json:"n"`
}

func (s *streamRecords) heldAt(key []byte) (*held, error) {
	if s.held == nil {
		return nil, nil
	}
	raw := s.held.Get(key)
	if raw == nil {
		return nil, nil
	}
	h, err := decodeHeld(raw)
	if err != nil {
		return nil, fmt.Errorf("held item %q cannot be read: %w", key[8:], err)
	}
	return h, nil
}

// decodeHeld reads a held item. Its body lives as long as raw.
func decodeHeld(raw []byte) (*held, error) {
	var h held
	body, err := cutBody(raw, &h, 2)
	if err != nil {
		return nil, err
	}
	h.Item.Body = body
	return &h, nil
}

func (s *streamRecords) putHeld(tx *bolt.Tx, id StreamID, key []byte, h *held) (err error) {
	if s.held == nil {
		if s.held, err = ensure(tx, bucketHeld, id.Account, id.Stream); err != nil {
			return err
		}
	}
	head := *h
	head.Item.Body = nil
	raw, err := marshal(&head)
	if err != nil {
		return err
	}
	return s.held.Put(key, withBody(raw, h.Item.Body, 2))
}

// HasVerdict reports whether a settlement of held items was begun and must be
// finished, as after a crash: call SettleHeld until it is done.
func (db *DB) HasVerdict(id StreamID) (bool, error) {
	_, begun, err := db.verdict(id)
	return begun, err
}

func (db *DB) verdict(id StreamID) (v verdict, begun bool, err error) {
	err = db.bolt.View(func(tx *bolt.Tx) (err error) {
		begun, err = getJSON(nested(tx, bucketStreams, id.Account, id.Stream), keyVerdict, &v)
		return err
	})
	if err != nil {
		return verdict{}, false, fmt.Errorf("verdict about held items of %s: %w", id, err)
	}
	return v, begun, nil
}

// SettleHeld ends the wait of the items that are held back because they differ
// from their record by nothing but keys that came or went. Call it when a walk
// that reads everything is complete; read is how many items that one has read.
// One that lists an item in several places reads it several times: with
// p.ReadSince set, what was created since then counts once each.
//
// The first call decides which of these keys are a change of the marketplace's
// schema, and makes that durable together with an event about each. This call
// and those after it bring up to limit items into the records, each call in one
// transaction: silently where all their paths are such changes, else with an
// `updated`. done says that none is left; what arrives in between is treated
// alike. p gives the stream, marketplace, time, rules, and Grown. One caller at a
// time for a stream.
//
// A crash before the first commit has decided nothing; after it HasVerdict says to
// go on, and read is not looked at again.
func (db *DB) SettleHeld(p Page, read uint64, limit int) (out Outcome, done bool, err error) {
	v, begun, err := db.verdict(p.Stream)
	var counts map[string]uint64
	if err == nil && !begun {
		var any bool
		if counts, any, err = db.heldPaths(&p); err == nil && !any {
			return Outcome{}, true, nil
		}
		if err == nil {
			read, err = db.distinct(&p, counts, read)
		}
		v = verdict{V: 1, Paths: adopted(counts, read)}
	}
	if err == nil {
		err = db.update(func(tx *bolt.Tx) error {
			out, done = Outcome{Wrote: true}, false
			streams, err := ensure(tx, bucketStreams, p.Stream.Account, p.Stream.Stream)
			if err != nil {
				return err
			}
			if !begun {
				if err := announce(tx, streams, &p, v.Paths, counts, &out); err != nil {
					return err
				}
			}
			if done, err = settlePiece(tx, &p, v.Paths, limit, &out); err != nil {
				return err
			}
			switch {
			case done:
				return streams.Delete(keyVerdict)
			case begun:
				return nil
			}
			return putJSON(streams, keyVerdict, v)
		})
	}
	if err != nil {
		return Outcome{}, false, fmt.Errorf("settle held items of %s: %w", p.Stream, err)
	}
	if out.Events > 0 {
		db.wake()
	}
	return out, done, nil
}

// distinct bounds the number of readings by that of the items there are. It goes
// through the records only where that can make a difference.
func (db *DB) distinct(p *Page, counts map[string]uint64, read uint64) (uint64, error) {
	doubtful := func(n uint64) bool { return n >= adoptLeast && n <= read/adoptShare }
	if p.ReadSince.IsZero() || !slices.ContainsFunc(slices.Collect(maps.Values(counts)), doubtful) {
		return read, nil
	}
	n := uint64(0)
	err := db.bolt.View(func(tx *bolt.Tx) error {
		s := openRecords(tx, p.Stream)
		if s.records == nil {
			return nil
		}
		c := s.records.Cursor()
		for k, _ := c.Seek(timeKey(p.ReadSince)); k != nil && n < read; k, _ = c.Next() {
			n++
		}
		return nil
	})
	return min(n, read), err
}

// heldPaths counts the held items of a stream by path; any: there are some. It
// reads beside the writers, so a long queue stops nobody.
func (db *DB) heldPaths(p *Page) (counts map[string]uint64, any bool, err error) {
	counts = make(map[string]uint64)
	err = db.bolt.View(func(tx *bolt.Tx) error {
		s := openRecords(tx, p.Stream)
		if s.held == nil {
			return nil
		}
		return s.held.ForEach(func(k, raw []byte) error {
			h, err := decodeHeld(raw)
			if err != nil {
				return fmt.Errorf("held item %q: %w", k, err)
			}
			any = true
			paths := h.Paths
			if h.Rules != p.Rules {
				r, err := s.get(k)
				if err != nil || r == nil {
					return err
				}
				paths = h.pathsBy(p, r)
			}
			for _, path := range paths {
				if _, known := counts[path]; known || len(counts) < maxHeldPaths {
					counts[path]++
				}
			}
			return nil
		})
	})
	return counts, any, err
}

// pathsBy are the paths by the rules of the page; none: there is no such
// difference by them.
func (h *held) pathsBy(p *Page, r *record) []string {
	if h.Rules == p.Rules {
		return h.Paths
	}
	return p.grown(r.Body, h.Item.Body)
}

// adopted returns the paths that count as changes of the schema, in order.
func adopted(counts map[string]uint64, read uint64) []string {
	maps.DeleteFunc(counts, func(_ string, n uint64) bool { return n < adoptLeast || n <= read/adoptShare })
	return slices.Sorted(maps.Keys(counts))
}

// announce appends one event for each path that is adopted.
func announce(tx *bolt.Tx, streams *bolt.Bucket, p *Page, paths []string, counts map[string]uint64, out *Outcome) error {
	if len(paths) == 0 {
		return nil
	}
	changes := schemaChanges{V: 1}
	if _, err := getJSON(streams, keyChanges, &changes); err != nil {
		return err
	}
	id := p.Stream
	for _, path := range paths {
		changes.N++
		e := event.Event{
			ID: event.SchemaChangedID(id.Account, id.Stream, changes.N, path), Source: event.Source(p.Marketplace, id.Account, id.Stream),
			Type: event.SchemaChanged, Subject: event.SchemaSubject(id.Stream), Recorded: p.Now,
			PartitionKey: event.PartitionKey(id.Account, event.SchemaSubject(id.Stream)),
			Schema:       &event.SchemaChange{Account: id.Account, Stream: id.Stream, Path: path, Count: counts[path]},
		}
		if err := logEvent(tx, &e); err != nil {
			return err
		}
		out.Events++
	}
	return putJSON(streams, keyChanges, changes)
}

// settlePiece applies a verdict to up to limit held items.
func settlePiece(tx *bolt.Tx, p *Page, paths []string, limit int, out *Outcome) (done bool, err error) {
	s := openRecords(tx, p.Stream)
	if s.held == nil {
		return true, nil
	}
	adopt := make(map[string]bool, len(paths))
	for _, path := range paths {
		adopt[path] = true
	}
	var keys [][]byte
	c := s.held.Cursor()
	k, raw := c.First()
	for ; k != nil && len(keys) < limit; k, raw = c.Next() {
		key := bytes.Clone(k)
		h, err := decodeHeld(raw)
		if err != nil {
			return false, fmt.Errorf("held item %q: %w", key, err)
		}
		r, err := s.get(key)
		if err != nil {
			return false, err
		}
		one := *p
		one.Stamp = h.Stamp
		ch, err := settleItem(&one, h, r, adopt)
		if err != nil {
			return false, err
		}
		out.Actions = append(out.Actions, ch.action)
		if err := s.carryOut(tx, &one, key, r, ch, out); err != nil {
			return false, err
		}
		keys = append(keys, key)
	}
	done = k == nil
	for _, key := range keys { // not while the cursor walks
		if err := s.held.Delete(key); err != nil {
			return false, err
		}
	}
	return done, nil
}

// settleItem says what becomes of a held item. The page's stamp is that of its
// reading.
func settleItem(p *Page, h *held, r *record, adopt map[string]bool) (change, error) {
	if r == nil || r.Removed || r.Stamp > h.Stamp {
		return change{action: ActionStale}, nil // the record has gone on without it
	}
	it := &h.Item
	var err error
	if it.Fingerprint, err = p.Refingerprint(it.Body); err != nil {
		return change{}, err
	}
	fp, known, err := p.fingerprint(r)
	switch {
	case err != nil:
		return change{}, err
	case !known:
		return change{action: ActionAdopted, record: r.confirmed(p, it)}, nil
	case fp == it.Fingerprint.String():
		return change{action: ActionUnchanged, record: r.confirmed(p, it)}, nil // by today's rules
	}
	paths := h.pathsBy(p, r)
	next := p.version(it, r, r.N+1)
	if len(paths) == 0 || slices.ContainsFunc(paths, func(path string) bool { return !adopt[path] }) {
		return change{action: ActionUpdated, item: it, record: next}, nil
	}
	// No new version, and no change that would begin the record's time anew.
	next.N, next.At, next.Emitted = r.N, r.At, r.Emitted
	return change{action: ActionAdopted, record: next}, nil
}
