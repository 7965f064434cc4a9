package state

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/event"
)

// checkFindings is how many findings Check reports before it stops looking.
const checkFindings = 100

// Check reads everything and reports what contradicts the picture in the package
// comment: bbolt's own structure, records and ids that do not find each other, held
// and staged items that nothing can become of, a log with holes that are not known,
// positions beyond it, retry queues, batches and dead letters that disagree. It
// changes nothing, and its cost grows with the file.
func (db *DB) Check() error {
	var c check
	err := db.bolt.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() { // to its end, or it goes on in the background
			c.add("bbolt: %w", err)
		}
		stamp := number(tx, keyStamp)
		c.eachStream(tx, bucketRecords, func(id StreamID, b *bolt.Bucket) {
			c.records(id, b, nested(tx, bucketIDs, id.Account, id.Stream), stamp)
		})
		c.eachStream(tx, bucketIDs, func(id StreamID, b *bolt.Bucket) {
			c.ids(id, b, nested(tx, bucketRecords, id.Account, id.Stream))
		})
		c.eachStream(tx, bucketHeld, func(id StreamID, b *bolt.Bucket) {
			c.held(id, b, nested(tx, bucketRecords, id.Account, id.Stream), stamp)
		})
		c.eachStream(tx, bucketStaged, func(id StreamID, b *bolt.Bucket) { c.staged(id, b, stamp) })
		c.eachStream(tx, bucketOdd, c.odd)
		c.eachStream(tx, bucketVisits, c.visits)
		c.eachStream(tx, bucketStreams, c.stream)
		known, err := readHoles(tx)
		if err != nil {
			return err
		}
		c.log(tx, known)
		c.sinks(tx, known)
		return nil
	})
	return errors.Join(append(c.found, err)...)
}

type check struct{ found []error }

func (c *check) add(format string, args ...any) {
	if len(c.found) < checkFindings {
		c.found = append(c.found, fmt.Errorf(format, args...))
	}
}

func (c *check) eachStream(tx *bolt.Tx, root []byte, fn func(StreamID, *bolt.Bucket)) {
	b := tx.Bucket(root)
	_ = b.ForEachBucket(func(account []byte) error {
		return b.Bucket(account).ForEachBucket(func(stream []byte) error {
			fn(StreamID{string(account), string(stream)}, b.Bucket(account).Bucket(stream))
			return nil
		})
	})
}

func (c *check) records(id StreamID, records, ids *bolt.Bucket, stamp uint64) {
	if ids == nil {
		c.add("%s: records without ids", id)
		return
	}
	_ = records.ForEach(func(k, v []byte) error {
		r, err := decodeRecord(v)
		if err != nil || !json.Valid(v) {
			c.add("%s: record %q is no JSON: %v", id, k, err)
			return nil
		}
		if len(k) < 9 || r.N < 1 || r.V != 1 {
			c.add("%s: record %q: version %d of format %d", id, k, r.N, r.V)
			return nil
		}
		if last := max(r.Stamp, r.Missing); last > stamp {
			c.add("%s: record %q carries stamp %d, and the next process begins at %d", id, k, last, stamp)
		}
		if r.Missing != 0 && (r.Removed || r.Missing < r.Stamp) || r.Removed && !r.Emitted {
			c.add("%s: record %q: marked at %d, read at %d, removed: %t, emitted: %t", id, k, r.Missing, r.Stamp, r.Removed, r.Emitted)
		}
		for times := ids.Get(idKey(string(k[8:]))); ; times = times[8:] {
			if len(times) < 8 {
				c.add("%s: record %q is not in ids", id, k)
				break
			}
			if bytes.Equal(times[:8], k[:8]) {
				break
			}
		}
		return nil
	})
}

// ids checks that every entry leads to a record of that hash.
func (c *check) ids(id StreamID, ids, records *bolt.Bucket) {
	if records == nil {
		c.add("%s: ids without records", id)
		return
	}
	_ = ids.ForEach(func(hash, times []byte) error {
		if len(hash) != 8 && len(hash) != 16 || len(times) == 0 || len(times)%8 != 0 {
			c.add("%s: ids entry %x of %d bytes", id, hash, len(times))
			return nil
		}
		for ; len(times) > 0; times = times[8:] {
			found := false
			cur := records.Cursor()
			for k, _ := cur.Seek(times[:8]); bytes.HasPrefix(k, times[:8]) && !found; k, _ = cur.Next() {
				found = bytes.Equal(idKey(string(k[8:])), hash)
			}
			if !found {
				c.add("%s: ids entry %x leads to no record", id, hash)
			}
		}
		return nil
	})
}

// held checks that every held item has an older record that differs.
func (c *check) held(id StreamID, b, records *bolt.Bucket, stamp uint64) {
	_ = b.ForEach(func(k, raw []byte) error {
		h, err := decodeHeld(raw)
		if err != nil || h.V != 1 || len(h.Paths) == 0 || !json.Valid(raw) {
			c.add("%s: held item %q cannot be read: %v", id, k, err)
			return nil
		}
		if h.Stamp > stamp {
			c.add("%s: held item %q carries stamp %d, and the next process begins at %d", id, k, h.Stamp, stamp)
		}
		if records == nil || records.Get(k) == nil {
			c.add("%s: held item %q has no record", id, k)
			return nil
		}
		switch r, err := decodeRecord(records.Get(k)); {
		case err != nil: // reported with the records
		case r.Removed || r.Stamp > h.Stamp:
			c.add("%s: held item %q is older than its record", id, k)
		case r.Rules == h.Rules && r.FP == h.FP:
			c.add("%s: held item %q is what is on record", id, k)
		case string(k[8:]) != h.Item.ID:
			c.add("%s: held item %q says that it is %q", id, k, h.Item.ID)
		}
		return nil
	})
}

// staged checks that every staged item can be read and is its key's.
func (c *check) staged(id StreamID, b *bolt.Bucket, stamp uint64) {
	_ = b.ForEachBucket(func(walk []byte) error {
		items := b.Bucket(walk)
		if items.Get(keyFinal) != nil && items.Get(keyRun) == nil {
			c.add("%s: the staged walk %s ends, and no run with it", id, walk)
		}
		return items.ForEach(func(k, v []byte) error {
			if k[0] != 'i' {
				return nil
			}
			var s stagedItem
			_, err := cutBody(v, &s, 2)
			switch {
			case err != nil || s.V != 1 || !json.Valid(v):
				c.add("%s: staged item %q is no JSON: %v", id, k, err)
			case !bytes.Equal(k, stagedKey(&s.Item)):
				c.add("%s: staged item %q says that it is %q", id, k, s.Item.ID)
			case s.Stamp > stamp:
				c.add("%s: staged item %q carries stamp %d, and the next process begins at %d", id, k, s.Stamp, stamp)
			}
			return nil
		})
	})
}

// visits checks that the plan holds exactly what is due some day.
func (c *check) visits(id StreamID, b *bolt.Bucket) {
	v := visits{things: b.Bucket(bucketThings), plan: b.Bucket(bucketPlan)}
	if v.things == nil || v.plan == nil {
		c.add("%s: visits without things or without a plan", id)
		return
	}
	planned := 0
	_ = v.things.ForEach(func(k, raw []byte) error {
		var t visit
		if err := json.Unmarshal(raw, &t); err != nil || t.V != 1 || t.Version < 1 || t.Version > v.things.Sequence() {
			c.add("%s: visit %q cannot be read, or has version %d of %d: %v", id, k, t.Version, v.things.Sequence(), err)
			return nil
		}
		if t.Due == 0 {
			return nil
		}
		planned++
		if at := v.plan.Get(t.planKey(string(k))); !bytes.Equal(at, t.planValue()) {
			c.add("%s: visit %q is planned as %x, and the plan says %x", id, k, t.planValue(), at)
		}
		return nil
	})
	keys := 0
	_ = v.plan.ForEach(func(_, _ []byte) error {
		keys++
		return nil
	})
	if keys != planned {
		c.add("%s: %d visits are planned, and the plan has %d", id, planned, keys)
	}
}

// odd checks that each entry of the quarantine is there with what is said of it,
// that they are counted, and that there are no more than may be.
func (c *check) odd(id StreamID, b *bolt.Bucket) {
	entries, err := readOdd(b)
	if err != nil {
		c.add("%s: the quarantine cannot be read: %w", id, err)
		return
	}
	keys := 0
	_ = b.ForEach(func(_, _ []byte) error {
		keys++
		return nil
	})
	if keys != 2*len(entries) || uint64(len(entries)) != b.Sequence() || len(entries) > maxOdd {
		c.add("%s: the quarantine has %d entries in %d keys, and counts %d", id, len(entries), keys, b.Sequence())
	}
	for _, e := range entries {
		raw := b.Get(rawKey(e.key))
		whole := e.Size <= maxOddRaw
		if len(raw) != min(e.Size, maxOddRaw) || whole && !bytes.Equal(oddKey(raw), e.key) || e.Count < 1 {
			c.add("%s: odd entry %x of %d bytes has %d, seen %d times", id, e.key, e.Size, len(raw), e.Count)
		}
	}
}

// stream checks that what is kept about a stream can be read.
func (c *check) stream(id StreamID, b *bolt.Bucket) {
	out := Stream{Walks: make(map[string]WalkState)}
	if err := readWalks(b, &out); err != nil {
		c.add("%s: %w", id, err)
	}
	for key, v := range map[string]any{string(keyMeta): new(stream), string(keyVerdict): new(verdict), string(keyChanges): new(schemaChanges),
		string(keyVisiting): new(visiting)} {
		if _, err := getJSON(b, []byte(key), v); err != nil {
			c.add("%s: %w", id, err)
		}
	}
}

// log checks that sequences are dense up to the newest but for the known holes,
// and say what their keys say.
func (c *check) log(tx *bolt.Tx, known holes) {
	log := tx.Bucket(bucketEvents)
	var last uint64
	for i, hole := range known {
		if hole.After >= hole.Last || hole.Last > log.Sequence() || i > 0 && known[i-1].Last >= hole.After {
			c.add("hole %d of the log reaches from %d to %d of %d", i, hole.After, hole.Last, log.Sequence())
		}
	}
	_ = log.ForEach(func(k, v []byte) error {
		seq := binary.BigEndian.Uint64(k)
		h, err := event.ParseHeader(v)
		switch {
		case err != nil:
			c.add("event %d: %w", seq, err)
		case h.Sequence != seq:
			c.add("event %d says that it is %d", seq, h.Sequence)
		case !json.Valid(v):
			c.add("event %d is no JSON", seq)
		}
		if known.next(seq-1) != seq {
			c.add("event %d is in a hole", seq)
		}
		if last != 0 && seq != known.next(last) {
			c.add("the log has a hole between %d and %d", last, seq)
		}
		last = seq
		return nil
	})
	if last != 0 && known.next(last) != log.Sequence()+1 {
		c.add("the log ends at %d, and its newest event was %d", last, log.Sequence())
	}
}
