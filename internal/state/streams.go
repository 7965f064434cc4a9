package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

// StreamID names one stream of one account.
type StreamID struct{ Account, Stream string }

func (id StreamID) String() string { return id.Account + "/" + id.Stream }

// Account is what is known of an account since its first use.
type Account struct {
	Marketplace string
	Seller      string    // the marketplace's identity of the seller: pinned
	FirstPoll   time.Time // what `start: now` means
}

type account struct {
	V           int    `json:"v"`
	Marketplace string `json:"marketplace"`
	Seller      string `json:"seller"`
	FirstPoll   int64  `json:"first_poll"`
}

// OtherSellerError says that an account's token belongs to another seller than
// the one it was first used with.
type OtherSellerError struct{ Account, Pinned, Now string }

func (e *OtherSellerError) Error() string {
	return fmt.Sprintf("account %s belongs to seller %s since its first use, and its token to seller %s: use a new account name for the other seller", e.Account, e.Pinned, e.Now)
}

// PinAccount remembers the seller behind an account at its first use, and refuses
// another one afterwards with *OtherSellerError. Call it before anything is
// spent.
func (db *DB) PinAccount(name, marketplace, seller string, now time.Time) (Account, error) {
	var a account
	found := false
	read := func(tx *bolt.Tx) (err error) {
		found, err = getJSON(tx.Bucket(bucketAccounts), []byte(name), &a)
		return err
	}
	if err := db.bolt.View(read); err != nil {
		return Account{}, err
	}
	if !found {
		a = account{V: 1, Marketplace: marketplace, Seller: seller, FirstPoll: now.UnixMilli()}
		if err := db.update(func(tx *bolt.Tx) error { return putJSON(tx.Bucket(bucketAccounts), []byte(name), a) }); err != nil {
			return Account{}, fmt.Errorf("pin the seller of account %s: %w", name, err)
		}
	}
	if a.Seller != seller || a.Marketplace != marketplace {
		return Account{}, &OtherSellerError{Account: name, Pinned: a.Marketplace + " " + a.Seller, Now: marketplace + " " + seller}
	}
	return Account{Marketplace: a.Marketplace, Seller: a.Seller, FirstPoll: time.UnixMilli(a.FirstPoll).UTC()}, nil
}

// Sellers returns the pinned seller of each account that was ever used.
func (db *DB) Sellers() (map[string]string, error) {
	out := make(map[string]string)
	err := db.bolt.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketAccounts).ForEach(func(k, raw []byte) error {
			var a account
			if err := json.Unmarshal(raw, &a); err != nil {
				return fmt.Errorf("account %s cannot be read: %w", k, err)
			}
			out[string(k)] = a.Seller
			return nil
		})
	})
	return out, err
}

// Stream is what is known of a stream since its first use.
type Stream struct {
	Start    time.Time            // items older than this are recorded silently; zero: none is old
	Began    time.Time            // the account's first poll
	Walked   bool                 // the first walk is complete
	Walks    map[string]WalkState // of those that have begun
	Backfill *Backfill            // a request that is not done; nil: none
}

type stream struct {
	V      int   `json:"v"`
	Start  int64 `json:"start"` // 0: the beginning
	Began  int64 `json:"began"`
	Walked bool  `json:"walked,omitempty"`
}

// OpenStream returns what is known of a stream. At its first use it decides for
// good what is old: start, or the account's first poll where start is nil.
func (db *DB) OpenStream(id StreamID, start *time.Time, began time.Time) (Stream, error) {
	var s stream
	found := false
	out := Stream{Walks: make(map[string]WalkState)}
	err := db.bolt.View(func(tx *bolt.Tx) error {
		b := nested(tx, bucketStreams, id.Account, id.Stream)
		if b == nil {
			return nil
		}
		var err error
		if found, err = getJSON(b, keyMeta, &s); err != nil {
			return err
		}
		return readWalks(b, &out)
	})
	if err != nil {
		return Stream{}, fmt.Errorf("open stream %s: %w", id, err)
	}
	if !found {
		s = stream{V: 1, Start: began.UnixMilli(), Began: began.UnixMilli()}
		if start != nil {
			s.Start = 0
			if !start.IsZero() {
				s.Start = start.UnixMilli()
			}
		}
		err := db.update(func(tx *bolt.Tx) error {
			b, err := ensure(tx, bucketStreams, id.Account, id.Stream)
			if err != nil {
				return err
			}
			return putJSON(b, keyMeta, s)
		})
		if err != nil {
			return Stream{}, fmt.Errorf("open stream %s: %w", id, err)
		}
	}
	if s.Start != 0 {
		out.Start = time.UnixMilli(s.Start).UTC()
	}
	out.Began, out.Walked = time.UnixMilli(s.Began).UTC(), s.Walked
	return out, nil
}

// settle keeps what a page decides about its stream.
func settle(b *bolt.Bucket, p Page) error {
	var s stream
	if !p.Walked && p.Start.IsZero() {
		return nil
	}
	if found, err := getJSON(b, keyMeta, &s); err != nil || !found {
		return err
	}
	s.Walked = s.Walked || p.Walked
	if !p.Start.IsZero() {
		s.Start, s.Began = p.Start.UnixMilli(), p.Start.UnixMilli()
	}
	return putJSON(b, keyMeta, s)
}

// Ledger keeps the budgets that must survive the process.
type Ledger struct{ db *DB }

// Ledger returns the budgets' part of the state.
func (db *DB) Ledger() *Ledger { return &Ledger{db} }

// Load returns a copy of what was saved under key, or nil. Stale: the file was a
// backup, and the key was not saved since it was opened; others may have spent
// the budget meanwhile, so the bucket counts as empty, also where there is no
// value.
func (l *Ledger) Load(key string) (value []byte, stale bool, err error) {
	err = l.db.bolt.View(func(tx *bolt.Tx) error {
		value = bytes.Clone(tx.Bucket(bucketBudgets).Get([]byte(key)))
		if value == nil && restored(tx) > 0 {
			stale = true
			value = bytes.Clone(tx.Bucket(bucketStale).Get([]byte(key)))
		}
		return nil
	})
	return value, stale, err
}

// Save makes value durable under key.
func (l *Ledger) Save(key string, value []byte) error {
	return l.db.update(func(tx *bolt.Tx) error {
		if stale := tx.Bucket(bucketStale); stale != nil {
			if err := stale.Delete([]byte(key)); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketBudgets).Put([]byte(key), value)
	})
}
