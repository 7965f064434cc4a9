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
	bucketEvents   = []byte("events")
	bucketSinks    = []byte("sinks")
	bucketRetries  = []byte("retries")
	bucketBudgets  = []byte("budgets")

	keySchema = []byte("schema")
	keyStamp  = []byte("stamp")
	keyMeta   = []byte("meta")
	keyFinal  = []byte("final")

	bucketHeads     = []byte("heads")
	bucketDue       = []byte("due")
	bucketFollowers = []byte("followers")
	bucketWaiting   = []byte("waiting")
)

// migrations bring a file from version i to i+1, in order. Never change one that
// was released: add another, with a test in schema_test.go.
var migrations = []func(tx *bolt.Tx) error{
	createBuckets,
}

func createBuckets(tx *bolt.Tx) error {
	for _, name := range [][]byte{bucketMeta, bucketAccounts, bucketStreams, bucketRecords, bucketIDs, bucketStaged,
		bucketEvents, bucketSinks, bucketRetries, bucketBudgets} {
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

// errUpToDate rolls a migration back that has nothing to do: an empty commit
// would write all the same.
var errUpToDate = errors.New("up to date")

// migrate runs what the file has not seen yet, and the new version with it, in
// one transaction: a crash leaves the old file or the new one.
func (db *DB) migrate() error {
	err := db.bolt.Update(func(tx *bolt.Tx) error {
		s := schema{V: 1}
		if meta := tx.Bucket(bucketMeta); meta != nil {
			if err := json.Unmarshal(meta.Get(keySchema), &s); err != nil {
				return errors.New("its schema version cannot be read: it is not syncd's")
			}
		} else if k, _ := tx.Cursor().First(); k != nil {
			return fmt.Errorf("a bbolt file of something else (its first bucket is %q)", k)
		}
		switch {
		case s.Version > len(migrations):
			return fmt.Errorf("%w (schema %d, this one knows %d): use that version", ErrNewer, s.Version, len(migrations))
		case s.Version == len(migrations):
			return errUpToDate
		}
		for ; s.Version < len(migrations); s.Version++ {
			if err := migrations[s.Version](tx); err != nil {
				return fmt.Errorf("migrate schema %d to %d: %w", s.Version, s.Version+1, err)
			}
		}
		return putJSON(tx.Bucket(bucketMeta), keySchema, s)
	})
	if errors.Is(err, errUpToDate) {
		return nil
	}
	return err
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
