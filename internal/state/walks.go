package state

import (
	"bytes"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	// WalkBackfill is the walk whose end answers a request of AskBackfill.
	WalkBackfill = "backfill"
	// WalkFollow is the walk whose runs are visits.
	WalkFollow = "follow"
)

const (
	cursorPrefix = "cursor:"
	walkPrefix   = "walk:"
)

// WalkState is where a walk of a stream stands.
type WalkState struct {
	Cursor      []byte    // where it continues; nil: at its beginning
	Read        uint64    // items that the run going on has read, up to Cursor
	Began, Done time.Time // of the last complete run; zero: there was none
	Visiting    Visiting  // walk "follow" with a Cursor: the visit that it is in the middle of
}

type walkValue struct {
	V     int    `json:"v"`
	Began int64  `json:"began,omitempty"`
	Done  int64  `json:"done,omitempty"`
	Read  uint64 `json:"read,omitempty"`
}

// Backfill is a request to read history again.
type Backfill struct {
	Since time.Time // zero: the beginning
	Asked time.Time // names the request: one that was made to reach further back has another
}

type backfill struct {
	V     int   `json:"v"`
	Since int64 `json:"since"` // 0: the beginning
	Asked int64 `json:"asked"`
}

func (b backfill) request() Backfill {
	return Backfill{Since: fromMilli(b.Since), Asked: fromMilli(b.Asked)}
}

// milli is t as values keep it, with 0 for none.
func milli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMilli(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// putCursor sets where a walk continues; nil: at its beginning, and in no visit.
func putCursor(b *bolt.Bucket, walk string, cursor []byte) error {
	if cursor == nil {
		if walk == WalkFollow {
			if err := b.Delete(keyVisiting); err != nil {
				return err
			}
		}
		return b.Delete([]byte(cursorPrefix + walk))
	}
	return b.Put([]byte(cursorPrefix+walk), cursor)
}

// move brings a walk to where a page leaves it: the cursor, the count of its run,
// and the end of it. A backfill that was meanwhile asked to reach further back
// begins again, so a page of the request before moves nothing.
func move(b *bolt.Bucket, p *Page) error {
	over := p.Walk == WalkBackfill && p.Done
	if p.Walk == WalkBackfill && !p.Asked.IsZero() {
		var open backfill
		found, err := getJSON(b, keyBackfill, &open)
		if err != nil {
			return err
		}
		if !found || open.Asked != p.Asked.UnixMilli() {
			return nil
		}
	}
	cursor := p.Cursor
	if over {
		cursor = nil
		if err := b.Delete(keyBackfill); err != nil {
			return err
		}
	}
	if err := putCursor(b, p.Walk, cursor); err != nil || p.Read == 0 && !p.Done {
		return err
	}
	key := []byte(walkPrefix + p.Walk)
	w := walkValue{V: 1}
	if _, err := getJSON(b, key, &w); err != nil {
		return err
	}
	w.Read += uint64(p.Read)
	if p.Done {
		w.Began, w.Done, w.Read = milli(p.Began), milli(p.Now), 0
	}
	return putJSON(b, key, w)
}

// readWalks reads where the walks of a stream stand, and the open backfill.
func readWalks(b *bolt.Bucket, out *Stream) error {
	var open backfill
	if found, err := getJSON(b, keyBackfill, &open); err != nil {
		return err
	} else if found {
		request := open.request()
		out.Backfill = &request
	}
	return b.ForEach(func(k, v []byte) error {
		if walk, ok := bytes.CutPrefix(k, []byte(cursorPrefix)); ok {
			s := out.Walks[string(walk)]
			s.Cursor = bytes.Clone(v)
			out.Walks[string(walk)] = s
		}
		if walk, ok := bytes.CutPrefix(k, []byte(walkPrefix)); ok {
			var w walkValue
			if _, err := getJSON(b, k, &w); err != nil {
				return err
			}
			s := out.Walks[string(walk)]
			s.Read, s.Began, s.Done = w.Read, fromMilli(w.Began), fromMilli(w.Done)
			out.Walks[string(walk)] = s
		}
		if bytes.Equal(k, keyVisiting) {
			var v visiting
			if _, err := getJSON(b, k, &v); err != nil {
				return err
			}
			s := out.Walks[WalkFollow]
			s.Visiting = Visiting{v.ID, v.Version}
			out.Walks[WalkFollow] = s
		}
		return nil
	})
}

// AskBackfill makes a request to read a stream's history again durable, and
// returns the one that is open now. While one is open, another only makes it
// reach further back: then the walk begins anew. A page of walk "backfill" with
// Done ends it, if Page.Asked is not that of an earlier one.
//
// A crash after it costs nothing: OpenStream returns the request.
func (db *DB) AskBackfill(id StreamID, since, now time.Time) (Backfill, error) {
	next := backfill{V: 1, Since: max(milli(since), 0), Asked: now.UnixMilli()}
	var open backfill
	read := func(tx *bolt.Tx) (bool, error) {
		return getJSON(nested(tx, bucketStreams, id.Account, id.Stream), keyBackfill, &open)
	}
	enough := false
	err := db.bolt.View(func(tx *bolt.Tx) error {
		found, err := read(tx)
		enough = found && open.Since <= next.Since
		return err
	})
	if err == nil && !enough {
		err = db.update(func(tx *bolt.Tx) error {
			found, err := read(tx)
			if err != nil {
				return err
			}
			if found {
				next.Since, next.Asked = min(next.Since, open.Since), max(next.Asked, open.Asked+1)
			}
			open = next
			b, err := ensure(tx, bucketStreams, id.Account, id.Stream)
			if err != nil {
				return err
			}
			if err := restart(b, WalkBackfill); err != nil {
				return err
			}
			return putJSON(b, keyBackfill, next)
		})
	}
	if err != nil {
		return Backfill{}, fmt.Errorf("ask for a backfill of %s: %w", id, err)
	}
	return open.request(), nil
}

// restart makes the next run of a walk begin anew.
func restart(b *bolt.Bucket, walk string) error {
	if err := putCursor(b, walk, nil); err != nil {
		return err
	}
	var w walkValue
	if found, err := getJSON(b, []byte(walkPrefix+walk), &w); err != nil || !found {
		return err
	}
	w.Read = 0
	return putJSON(b, []byte(walkPrefix+walk), w)
}

// SetCursor sets where a walk continues; nil: at its beginning. A crash before the
// commit leaves the walk where it was.
func (db *DB) SetCursor(id StreamID, walk string, cursor []byte) error {
	err := db.update(func(tx *bolt.Tx) error {
		b, err := ensure(tx, bucketStreams, id.Account, id.Stream)
		if err != nil {
			return err
		}
		return putCursor(b, walk, cursor)
	})
	if err != nil {
		return fmt.Errorf("set the cursor of %s: %w", id, err)
	}
	return nil
}
