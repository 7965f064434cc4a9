package state

import (
	"context"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// accountBuckets have a bucket for each account.
var accountBuckets = [][]byte{bucketStreams, bucketRecords, bucketIDs, bucketStaged, bucketHeld, bucketOdd, bucketVisits}

// sinkBuckets have a bucket for each sink.
var sinkBuckets = [][]byte{bucketRetries, bucketDead}

// ForgetAccount deletes all that is kept of an account, but for its events, which
// are the log's, and the budgets, which are the seller's. No stream of it may be
// open. It returns ErrUnknown where there is nothing.
func (db *DB) ForgetAccount(ctx context.Context, name string) error {
	if err := db.forget(ctx, name, bucketAccounts, accountBuckets); err != nil {
		return fmt.Errorf("forget account %s: %w", name, err)
	}
	return nil
}

// ForgetSink deletes all that is kept of a sink: its position, its queue and its
// dead letters. It may not be open. It returns ErrUnknown where there is nothing.
func (db *DB) ForgetSink(ctx context.Context, name string) error {
	if err := db.forget(ctx, name, bucketSinks, sinkBuckets); err != nil {
		return fmt.Errorf("forget sink %s: %w", name, err)
	}
	return nil
}

// forget takes a value and buckets of a name out of everybody's reach, in one
// transaction that moves the buckets as they are, and then deletes them. A crash
// before it leaves all, one after it leaves what Sweep deletes.
func (db *DB) forget(ctx context.Context, name string, values []byte, roots [][]byte) error {
	err := db.update(func(tx *bolt.Tx) error {
		key := []byte(name)
		found := tx.Bucket(values).Get(key) != nil
		if err := tx.Bucket(values).Delete(key); err != nil {
			return err
		}
		forgotten := tx.Bucket(bucketForgotten)
		for _, root := range roots {
			if nested(tx, root, name) == nil {
				continue
			}
			found = true
			n, err := forgotten.NextSequence()
			if err != nil {
				return err
			}
			to, err := forgotten.CreateBucket(seqKey(n))
			if err != nil {
				return err
			}
			if err := tx.Bucket(root).MoveBucket(key, to); err != nil {
				return err
			}
		}
		if !found {
			return ErrUnknown
		}
		return nil
	})
	if err != nil {
		return err
	}
	return db.Sweep(ctx)
}

// sweepPiece is how many keys one transaction of Sweep deletes.
const sweepPiece = 1000

// Sweep deletes what was forgotten and is still there, in small transactions. It
// stops early, without an error, when ctx ends: the next call goes on.
func (db *DB) Sweep(ctx context.Context) error {
	for ctx.Err() == nil {
		err := db.update(func(tx *bolt.Tx) error {
			n, err := shrink(tx.Bucket(bucketForgotten), sweepPiece)
			if err == nil && n == 0 {
				return errUpToDate
			}
			return err
		})
		if errors.Is(err, errUpToDate) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("delete what was forgotten: %w", err)
		}
	}
	return nil
}

// shrink deletes up to limit keys of a bucket and of those in it, and returns how
// many. A bucket goes when it is empty: bbolt frees all pages of a full one at once,
// however many these are.
func shrink(b *bolt.Bucket, limit int) (int, error) {
	var first [][]byte // a bucket is not changed while it is walked
	c := b.Cursor()
	for k, _ := c.First(); k != nil && len(first) < limit; k, _ = c.Next() {
		first = append(first, append([]byte(nil), k...))
	}
	n := 0
	for _, k := range first {
		in := b.Bucket(k)
		if in == nil {
			if err := b.Delete(k); err != nil {
				return n, err
			}
			n++
			continue
		}
		deleted, err := shrink(in, limit-n)
		n += deleted
		if err != nil {
			return n, err
		}
		if n >= limit {
			return n, nil
		}
		if err := b.DeleteBucket(k); err != nil {
			return n, err
		}
		if n++; n >= limit {
			return n, nil
		}
	}
	return n, nil
}
