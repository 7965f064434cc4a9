package state

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/bits"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Visit is a thing that a stream reads by itself, since no list shows what is in
// it: where it is on record, and when it is due. Walks that read lists find it
// (Page.Found), a walk that visits it says where it stands (Page.Visited).
type Visit struct {
	Stream      string          // of the page's account; empty: the page's own
	ID          string          // in the stream that visits it; not empty
	Created     time.Time       // the thing's own; zero: it has none
	Due         time.Time       // zero: it is only remembered
	Urgent      bool            // goes first among those that are due
	Found, Seen json.RawMessage // what lists showed of it; up to where it was read, nil until then

	History bool   // see found
	Version uint64 // grows each time that it is found
	Forget  bool   // Page.Visited: it goes
}

// Visiting is the visit that a walk is in the middle of.
type Visiting struct {
	ID      string
	Version uint64
}

// VisitCount is how many visits are planned to things above the age of the entry
// before, and up to Age.
type VisitCount struct {
	Age time.Duration
	N   int
}

type visit struct {
	V       int             `json:"v"`
	Created int64           `json:"created,omitempty"`
	Due     int64           `json:"due,omitempty"`     // 0: not planned
	Planned int64           `json:"planned,omitempty"` // when that was decided
	Urgent  bool            `json:"urgent,omitempty"`
	History bool            `json:"history,omitempty"`
	Version uint64          `json:"version"`
	Found   json.RawMessage `json:"found,omitempty"`
	Seen    json.RawMessage `json:"seen,omitempty"`
}

type visiting struct {
	V       int    `json:"v"`
	ID      string `json:"id"`
	Version uint64 `json:"version"`
}

// visits are those of one stream inside a transaction. The buckets are nil where
// the stream has none yet. The sequence of things gives the versions, so that a
// thing that was forgotten and is found again has none of its earlier ones.
type visits struct{ things, plan *bolt.Bucket }

func openVisits(tx *bolt.Tx, id StreamID) visits {
	b := nested(tx, bucketVisits, id.Account, id.Stream)
	if b == nil {
		return visits{}
	}
	return visits{things: b.Bucket(bucketThings), plan: b.Bucket(bucketPlan)}
}

func ensureVisits(tx *bolt.Tx, id StreamID) (v visits, err error) {
	if v.things, err = ensure(tx, bucketVisits, id.Account, id.Stream, string(bucketThings)); err != nil {
		return visits{}, err
	}
	v.plan, err = ensure(tx, bucketVisits, id.Account, id.Stream, string(bucketPlan))
	return v, err
}

// urgent and others begin the keys of the plan.
const (
	urgent = 'u'
	others = 'v'
)

// planKey is where a visit stands in the plan.
func (v *visit) planKey(id string) []byte {
	key := make([]byte, 0, 9+len(id))
	if key = append(key, others); v.Urgent {
		key[0] = urgent
	}
	return append(binary.BigEndian.AppendUint64(key, uint64(v.Due)), id...)
}

// planValue saves those who count the plan from reading what is planned.
func (v *visit) planValue() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(make([]byte, 0, 16), uint64(v.Created)), uint64(v.Planned))
}

// clockBack is by how much the clock must have been set back for what was planned
// before to be in doubt: less is what NTP does, and what a due time can be off by.
const clockBack = time.Minute

// early says whether a visit was planned later than now: with a clock that was ahead,
// so nobody knows when it is due.
func early(planValue []byte, now time.Time) bool {
	return len(planValue) == 16 && int64(binary.BigEndian.Uint64(planValue[8:])) > now.Add(clockBack).UnixMilli()
}

func (v *visit) visit(stream, id string) Visit {
	return Visit{Stream: stream, ID: id, Created: fromMilli(v.Created), Due: fromMilli(v.Due), Urgent: v.Urgent,
		Found: bytes.Clone(v.Found), Seen: bytes.Clone(v.Seen), History: v.History, Version: v.Version}
}

func (b visits) get(id string) (*visit, error) {
	var v visit
	found, err := getJSON(b.things, []byte(id), &v)
	if err != nil || !found {
		return nil, err
	}
	return &v, nil
}

// put saves a visit in place of was, and its place in the plan; nil: there was
// none, or there is none any more.
func (b visits) put(id string, was, v *visit) error {
	if was != nil && was.Due != 0 {
		if err := b.plan.Delete(was.planKey(id)); err != nil {
			return err
		}
	}
	if v == nil {
		return b.things.Delete([]byte(id))
	}
	if v.Due != 0 {
		if err := b.plan.Put(v.planKey(id), v.planValue()); err != nil {
			return err
		}
	}
	return putJSON(b.things, []byte(id), v)
}

// dueMilli is a due time as values keep it: 0 is none.
func dueMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(t.UnixMilli(), 1)
}

// compacted is raw as values spell it, so that equal ones are equal bytes.
func compacted(raw json.RawMessage) (json.RawMessage, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	var b bytes.Buffer
	err := json.Compact(&b, raw)
	return b.Bytes(), err
}

// found is what a visit that was found comes to, given what is saved; nil: nothing
// has moved. What was planned stays planned, and comes no later for being found
// again, nor behind others once it is due: a thing that is found again and again is
// visited all the same.
// Whether what it holds is history is decided when it is found for the first time,
// and holds until it was visited.
func found(was *visit, f *Visit, now time.Time) (*visit, error) {
	shown, err := compacted(f.Found)
	if err != nil {
		return nil, fmt.Errorf("visit %q: %w", f.ID, err)
	}
	next := visit{V: 1, Created: milli(f.Created), Due: dueMilli(f.Due), Urgent: f.Urgent && !f.Due.IsZero(), History: f.History, Found: shown}
	if next.Due != 0 {
		next.Planned = now.UnixMilli()
	}
	if was == nil {
		return &next, nil
	}
	if bytes.Equal(was.Found, shown) && (next.Due == 0 || was.Due != 0) {
		return nil, nil
	}
	next.History, next.Seen = was.History, was.Seen
	if next.Due == 0 {
		next.Urgent = was.Urgent
	} else if was.Due != 0 && was.Due <= now.UnixMilli() {
		next.Urgent = next.Urgent || was.Urgent
	}
	if was.Due != 0 && (next.Due == 0 || was.Due <= next.Due) {
		next.Due, next.Planned = was.Due, was.Planned
	}
	return &next, nil
}

// visited is what a visit that was made comes to; gone: there is nothing to visit
// any more. One that was found again meanwhile stays as that planned it.
func visited(was *visit, v *Visit, now time.Time) (next *visit, gone bool, err error) {
	own := *was
	if own.Seen, err = compacted(v.Seen); err != nil {
		return nil, false, fmt.Errorf("visit %q: %w", v.ID, err)
	}
	own.History = own.History && own.Seen == nil
	if own.Version != v.Version {
		return &own, false, nil
	}
	own.Due, own.Planned, own.Urgent = dueMilli(v.Due), 0, v.Urgent && !v.Due.IsZero()
	if own.Due != 0 {
		own.Planned = now.UnixMilli()
	}
	return &own, v.Forget, nil
}

// moveVisits saves the visits of a page: those that were made, which are older,
// and then those that were found.
func moveVisits(tx *bolt.Tx, p *Page) error {
	if len(p.Visited) > 0 {
		b := openVisits(tx, p.Stream)
		for i := range p.Visited {
			v := &p.Visited[i]
			was, err := b.get(v.ID)
			if err != nil {
				return err
			}
			if was == nil {
				continue // forgotten already
			}
			next, gone, err := visited(was, v, p.Now)
			if err != nil {
				return err
			}
			if gone {
				next = nil
			}
			if err := b.put(v.ID, was, next); err != nil {
				return err
			}
		}
	}
	for i := range p.Found {
		v := &p.Found[i]
		b, err := ensureVisits(tx, p.finds(v))
		if err != nil {
			return err
		}
		was, err := b.get(v.ID)
		if err != nil {
			return err
		}
		next, err := found(was, v, p.Now)
		if err != nil {
			return err
		}
		if next == nil {
			continue
		}
		if next.Version, err = b.things.NextSequence(); err != nil {
			return err
		}
		if err := b.put(v.ID, was, next); err != nil {
			return err
		}
	}
	return nil
}

// finds is the stream that a page finds a visit for.
func (p *Page) finds(v *Visit) StreamID {
	return StreamID{p.Stream.Account, cmp.Or(v.Stream, p.Stream.Stream)}
}

// findsNew reports whether a page has found anything that has moved.
func findsNew(tx *bolt.Tx, p *Page) (bool, error) {
	for i := range p.Found {
		v := &p.Found[i]
		was, err := openVisits(tx, p.finds(v)).get(v.ID)
		if err != nil {
			return false, err
		}
		if next, err := found(was, v, p.Now); next != nil || err != nil {
			return true, err
		}
	}
	return false, nil
}

// Visit returns the visit of a stream that has an id; false: there is none.
func (db *DB) Visit(stream StreamID, id string) (out Visit, ok bool, err error) {
	err = db.bolt.View(func(tx *bolt.Tx) error {
		v, err := openVisits(tx, stream).get(id)
		if v != nil {
			out, ok = v.visit(stream.Stream, id), true
		}
		return err
	})
	if err != nil {
		return Visit{}, false, fmt.Errorf("visits of %s: %w", stream, err)
	}
	return out, ok, nil
}

// NextVisit returns the visit that a stream should make now: of those that are due
// an urgent one first, then the one that is due longest. Who asks with fair now and
// then gets one that is not urgent, if any is due: else urgent ones could keep the
// others waiting for ever. pass leaves one out, given its id and version; each call
// of it costs the reading of a value. Nil: none is due, and at is when the next one
// will be; zero: never, as it looks now.
func (db *DB) NextVisit(stream StreamID, now time.Time, fair bool, pass func(id string, version uint64) bool) (out *Visit, at time.Time, err error) {
	err = db.bolt.View(func(tx *bolt.Tx) error {
		b := openVisits(tx, stream)
		if b.plan == nil {
			return nil
		}
		order := [2]byte{urgent, others}
		if fair {
			order = [2]byte{others, urgent}
		}
		for _, first := range order {
			c := b.plan.Cursor()
			for k, _ := c.Seek([]byte{first}); k != nil && k[0] == first; k, _ = c.Next() {
				due, id := fromMilli(int64(binary.BigEndian.Uint64(k[1:]))), string(k[9:])
				if due.After(now) {
					if at.IsZero() || due.Before(at) {
						at = due
					}
					break
				}
				v, err := b.get(id)
				if err != nil {
					return err
				}
				if v == nil || pass(id, v.Version) {
					continue
				}
				next := v.visit(stream.Stream, id)
				out = &next
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("visits of %s: %w", stream, err)
	}
	return out, at, nil
}

// oldest is the last entry of CountVisits: 239 years, which a Duration can hold.
const oldest = 21

// CountVisits counts the planned visits of a stream by the age of the things, each
// entry twice as old as the one before, from an hour on; those that are due; and
// those that are for BringForward. Things without a time of their own count as new.
// Its cost grows with the plan.
func (db *DB) CountVisits(stream StreamID, now time.Time) (counts []VisitCount, due, ahead int, err error) {
	err = db.bolt.View(func(tx *bolt.Tx) error {
		b := openVisits(tx, stream)
		if b.plan == nil {
			return nil
		}
		return b.plan.ForEach(func(k, v []byte) error {
			if len(k) < 9 || len(v) != 16 {
				return fmt.Errorf("the plan has an entry %.40q of %d bytes, which syncd never writes", k, len(v))
			}
			if int64(binary.BigEndian.Uint64(k[1:])) <= now.UnixMilli() {
				due++
			}
			if early(v, now) {
				ahead++
			}
			step := 0
			if ms := int64(binary.BigEndian.Uint64(v)); ms != 0 {
				if age := now.Sub(time.UnixMilli(ms)); age > time.Hour {
					step = min(bits.Len64(uint64((age-1)/time.Hour)), oldest) // an age of exactly 2 h is up to 2 h
				}
			}
			for len(counts) <= step {
				counts = append(counts, VisitCount{Age: time.Hour << len(counts)})
			}
			counts[step].N++
			return nil
		})
	})
	if err != nil {
		return nil, 0, 0, fmt.Errorf("visits of %s: %w", stream, err)
	}
	return counts, due, ahead, nil
}

// BringForward makes visits due at once that were planned with a clock which was
// ahead by more than a minute: the time that they have may be years away. It goes
// through the plan behind a key and changes up to limit of them in one transaction;
// next is where to go on, empty at the end of the plan. A crash between two calls
// leaves the rest to the next one who counts.
func (db *DB) BringForward(stream StreamID, now time.Time, after string, limit int) (next string, n int, err error) {
	err = db.update(func(tx *bolt.Tx) error {
		b := openVisits(tx, stream)
		next, n = "", 0
		if b.plan == nil {
			return errUpToDate
		}
		var keys []string
		c := b.plan.Cursor()
		for k, v := c.Seek([]byte(after)); k != nil && next == ""; k, v = c.Next() {
			if !early(v, now) {
				continue
			}
			if keys = append(keys, string(k)); len(keys) == limit {
				next = string(k)
			}
		}
		for _, k := range keys {
			was, err := b.get(k[9:])
			if err != nil {
				return err
			}
			if was == nil {
				continue
			}
			v := *was
			v.Due, v.Planned = min(v.Due, now.UnixMilli()), now.UnixMilli()
			if err := b.put(k[9:], was, &v); err != nil {
				return err
			}
			n++
		}
		if n == 0 {
			return errUpToDate
		}
		return nil
	})
	if err != nil && err != errUpToDate {
		return after, 0, fmt.Errorf("visits of %s: %w", stream, err)
	}
	return next, n, nil
}

// AbandonVisit drops where the visit stands that a stream is in the middle of, and
// what is staged of it, in one transaction: it begins anew when it comes to its
// turn. It does not where what is staged waits for CommitStaged already: then the
// visit may have been saved as made. A crash before the commit leaves the visit
// where it was.
func (db *DB) AbandonVisit(stream StreamID) (done bool, err error) {
	err = db.update(func(tx *bolt.Tx) error {
		if b := nested(tx, bucketStaged, stream.Account, stream.Stream); b != nil {
			if own := b.Bucket([]byte(WalkFollow)); own != nil {
				if own.Get(keyFinal) != nil {
					return errUpToDate
				}
				if err := b.DeleteBucket([]byte(WalkFollow)); err != nil {
					return err
				}
			}
		}
		b, err := ensure(tx, bucketStreams, stream.Account, stream.Stream)
		if err != nil {
			return err
		}
		return putCursor(b, WalkFollow, nil)
	})
	switch {
	case err == errUpToDate:
		return false, nil
	case err != nil:
		return false, fmt.Errorf("abandon a visit of %s: %w", stream, err)
	}
	return true, nil
}
