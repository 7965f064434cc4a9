package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// ErrNewer says that the file was written by a newer syncd.
var ErrNewer = errors.New("written by a newer version of syncd")

var (
	bucketMeta     = []byte("meta")
	bucketAccounts = []byte("accounts")
	bucketStreams  = []byte("streams")
	bucketRecords  = []byte("records")
	bucketIDs      = []byte("ids")
	bucketStaged   = []byte("staged")
	bucketHeld     = []byte("held")
	bucketOdd      = []byte("odd")
	bucketVisits   = []byte("visits")
	bucketEvents   = []byte("events")
	bucketSinks    = []byte("sinks")
	bucketRetries  = []byte("retries")
	bucketDead     = []byte("dead")
	bucketBudgets  = []byte("budgets")
	bucketStale    = []byte("stale") // made where it is needed

	bucketForgotten = []byte("forgotten")

	keySchema   = []byte("schema")
	keyStamp    = []byte("stamp")
	keyCommit   = []byte("committed")
	keyRestored = []byte("restored")
	keyHoles    = []byte("holes")
	keyMeta     = []byte("meta")
	keyBackfill = []byte("backfill")
	keyChanges  = []byte("schema_changes")
	keyVerdict  = []byte("verdict")
	keyFinal    = []byte("final")
	keyRun      = []byte("run")
	keyVisiting = []byte("visiting")

	bucketHeads     = []byte("heads")
	bucketDue       = []byte("due")
	bucketFollowers = []byte("followers")
	bucketWaiting   = []byte("waiting")
	bucketBatches   = []byte("batches")
	keyAhead        = []byte("ahead")

	bucketThings = []byte("things")
	bucketPlan   = []byte("plan")
)

// migrations bring a file from version i to i+1, in order. Never change one that
// was released: add another, with a test in schema_test.go.
var migrations = []func(tx *bolt.Tx) error{
	createBuckets,
}

// rootBuckets are those that the newest schema has for certain.
var rootBuckets = [][]byte{bucketMeta, bucketAccounts, bucketStreams, bucketRecords, bucketIDs, bucketStaged,
	bucketHeld, bucketOdd, bucketVisits, bucketEvents, bucketSinks, bucketRetries, bucketDead, bucketBudgets, bucketForgotten}

func createBuckets(tx *bolt.Tx) error {
	for _, name := range rootBuckets {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return nil
}

type schema struct {
	V       int `json:"v"`
	Version int `json:"version"`
}

// errUpToDate rolls a transaction back that has nothing to do: an empty commit
// would write all the same.
var errUpToDate = errors.New("up to date")

// migrate runs what the file has not seen yet, and the new version with it, in
// one transaction: a crash leaves the old file or the new one.
func (db *DB) migrate() error {
	var s schema
	err := db.bolt.View(func(tx *bolt.Tx) (err error) {
		s, err = readSchema(tx)
		return err
	})
	if err != nil || s.Version == len(migrations) {
		return err
	}
	return db.writer.write(func(tx *bolt.Tx) error {
		for ; s.Version < len(migrations); s.Version++ {
			if err := migrations[s.Version](tx); err != nil {
				return fmt.Errorf("migrate schema %d to %d: %w", s.Version, s.Version+1, err)
			}
		}
		return putJSON(tx.Bucket(bucketMeta), keySchema, s)
	})
}

// readSchema returns the version of a file, and refuses one that is not ours.
func readSchema(tx *bolt.Tx) (schema, error) {
	s := schema{V: 1}
	if meta := tx.Bucket(bucketMeta); meta != nil {
		if err := json.Unmarshal(meta.Get(keySchema), &s); err != nil || s.Version < 1 {
			return s, damaged("its schema version cannot be read")
		}
	} else if k, _ := tx.Cursor().First(); k != nil {
		return s, damaged("a bbolt file of something else (its first bucket is %q)", k)
	} else if tx.ID() > 1 { // a new file has seen no commit
		return s, damaged("its root is empty")
	}
	if s.Version > len(migrations) {
		return s, fmt.Errorf("%w (schema %d, this one knows %d): use that version", ErrNewer, s.Version, len(migrations))
	}
	if s.Version < len(migrations) {
		return s, nil
	}
	for _, name := range rootBuckets {
		if tx.Bucket(name) == nil {
			return s, damaged("it has no bucket %q", name)
		}
	}
	return s, errors.Join(paired(tx, bucketRecords, bucketIDs), paired(tx, bucketIDs, bucketRecords))
}

// paired checks that each stream below one bucket is below another too.
func paired(tx *bolt.Tx, one, other []byte) error {
	b := tx.Bucket(one)
	return b.ForEachBucket(func(account []byte) error {
		return b.Bucket(account).ForEachBucket(func(stream []byte) error {
			if nested(tx, other, string(account), string(stream)) == nil {
				return damaged("%s/%s is in %q and not in %q", account, stream, one, other)
			}
			return nil
		})
	})
}

// marshal is json.Marshal without the escaping of <, > and &, which would change
// the raw items inside.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func putJSON(b *bolt.Bucket, key []byte, v any) error {
	raw, err := marshal(v)
	if err != nil {
		return err
	}
	return b.Put(key, raw)
}

// bodyKey is where the body begins in the values that end in one: everything in
// front of it is ours, and the quotes of texts in there are escaped, so it occurs
// there once.
var bodyKey = []byte(`,"body":`)

// withBody adds a body, byte for byte, as the last key of the object at the end of
// head, which ends in that many braces. encoding/json would spell it anew.
func withBody(head []byte, body json.RawMessage, braces int) []byte {
	end := len(head) - braces
	out := make([]byte, 0, len(head)+len(bodyKey)+len(body))
	out = append(out, head[:end]...)
	out = append(out, bodyKey...)
	out = append(out, body...)
	return append(out, head[end:]...)
}

// cutBody reads into v what withBody has put together, all but the body, which it
// returns: a part of raw, so no longer there than that is.
func cutBody(raw []byte, v any, braces int) (json.RawMessage, error) {
	head, body, ok := bytes.Cut(raw, bodyKey)
	if !ok {
		return nil, json.Unmarshal(raw, v)
	}
	if len(body) <= braces {
		return nil, errors.New("cut short")
	}
	end := len(body) - braces
	whole := make([]byte, 0, len(head)+braces)
	return body[:end:end], json.Unmarshal(append(append(whole, head...), body[end:]...), v)
}

// getJSON reads key into v; false: it is not there.
func getJSON(b *bolt.Bucket, key []byte, v any) (bool, error) {
	if b == nil {
		return false, nil
	}
	raw := b.Get(key)
	if raw == nil {
		return false, nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return false, fmt.Errorf("state value %q cannot be read: %w", key, err)
	}
	return true, nil
}

// nested returns the bucket at path below root, or nil.
func nested(tx *bolt.Tx, root []byte, path ...string) *bolt.Bucket {
	b := tx.Bucket(root)
	for _, name := range path {
		if b == nil {
			return nil
		}
		b = b.Bucket([]byte(name))
	}
	return b
}

// ensure returns the bucket at path below root, making it where it is missing.
func ensure(tx *bolt.Tx, root []byte, path ...string) (*bolt.Bucket, error) {
	b := tx.Bucket(root)
	for _, name := range path {
		var err error
		if b, err = b.CreateBucketIfNotExists([]byte(name)); err != nil {
			return nil, fmt.Errorf("bucket %s of %s: %w", name, root, err)
		}
	}
	return b, nil
}

// errOr is err, or, where that is nil, an error of this text.
func errOr(err error, text string) error {
	if err != nil {
		return err
	}
	return errors.New(text)
}
