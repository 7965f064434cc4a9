package state_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/state"
)

const known, unknown = "wildberries/seller-1/chat", "wildberries/seller-1/returns"

// stand is what a state file stands for, as far as a copy may or may not share it.
type stand struct {
	last       uint64 // sequence
	checkpoint string
	value      string // of the known budget
	stale      [2]bool
}

func standOf(t *testing.T, db *state.DB) stand {
	t.Helper()
	checkState(t, db)
	last, err := db.LastSequence()
	if err != nil {
		t.Fatal(err)
	}
	archive, err := db.OpenSink("archive", "file", true, day)
	if err != nil {
		t.Fatal(err)
	}
	s := stand{last: last, checkpoint: string(archive.Checkpoint)}
	value, stale, err := db.Ledger().Load(known)
	s.value, s.stale[0] = string(value), stale
	if err != nil {
		t.Fatal(err)
	}
	if value, stale, err = db.Ledger().Load(unknown); err != nil || value != nil {
		t.Fatal(value, err)
	}
	s.stale[1] = stale
	return s
}

// use does with a file what a daemon does: it logs, delivers and spends.
func use(t *testing.T, db *state.DB, used map[uint64]string, who string) {
	t.Helper()
	for i := range 3 {
		logOf(t, db, "a", "b")
		last, err := db.LastSequence()
		if err != nil {
			t.Fatal(err)
		}
		for _, seq := range []uint64{last - 1, last} {
			if e, ok, err := db.Event(seq); !ok || err != nil {
				t.Fatalf("%s: event %d: %v, %v", who, seq, e, err)
			}
			if other, ok := used[seq]; ok {
				t.Fatalf("sequence %d is of %s and of %s", seq, other, who)
			}
			used[seq] = who
		}
		err = errors.Join(db.Settle("archive", day, state.Settlement{Position: last - 1, Checkpoint: fmt.Appendf(nil, `"%s %d"`, who, i)}),
			db.Ledger().Save(known, fmt.Appendf(nil, `"%s %d"`, who, i)))
		if err != nil {
			t.Fatal(err)
		}
	}
	checkState(t, db)
}

// §10: whatever becomes of a backup, none of the files gives an event a sequence
// that another one has given to an event, starts with a budget that another one
// may have spent, or takes bytes of a medium for its own that another one may have
// written. What others do to their files changes neither the original nor them.
func TestCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		used := make(map[uint64]string)
		original := open(t)
		if _, err := original.DB.OpenSink("archive", "file", true, day); err != nil {
			t.Fatal(err)
		}
		use(t, original.DB, used, "the original")
		copies := 0
		restore := func(who, path string, want string) *file {
			t.Helper()
			time.Sleep(time.Second) // the same backup is not restored twice at the same moment
			copies++
			f := openAt(t, path)
			s := standOf(t, f.DB)
			if !f.DB.Restored() || s.checkpoint != "" || s.value != want || s.stale != [2]bool{true, true} {
				t.Fatalf("%s: restored: %t, %+v, want %s", who, f.DB.Restored(), s, want)
			}
			f.DB.Close()
			before := f.bytes()
			f.reopen()
			if again := standOf(t, f.DB); f.DB.Restored() || again != s || !bytes.Equal(f.bytes(), before) {
				t.Fatalf("%s: opened once more: %+v, then %+v", who, s, again)
			}
			use(t, f.DB, used, who)
			if s := standOf(t, f.DB); s.stale != [2]bool{false, true} || s.checkpoint != `"`+who+` 2"` || s.value != s.checkpoint {
				t.Fatalf("%s: after use: %+v", who, s)
			}
			return f
		}

		first := backup(t, original.DB)
		before := standOf(t, original.DB)
		copied := plainCopy(t, first)
		second := restore("a backup", plainCopy(t, first), before.value)
		restore("the same backup again", first, before.value)
		restore("a copy of a backup that nobody has opened", copied, before.value)
		third := restore("a backup of a restored file", backup(t, second.DB), `"a backup 2"`)
		restore("a backup of that", backup(t, third.DB), `"a backup of a restored file 2"`)

		// A backup that was opened only to back it up.
		opened := openAt(t, backup(t, original.DB))
		time.Sleep(time.Second)
		restore("a backup of a backup", backup(t, opened.DB), before.value)
		use(t, opened.DB, used, "the file between them")

		// A restored file that was compacted is no copy, and its backups are.
		second.DB.Close()
		compacted := openAt(t, compact(t, second.cfg.Path))
		if s := standOf(t, compacted.DB); compacted.DB.Restored() || s.stale != [2]bool{false, true} || s.checkpoint != `"a backup 2"` {
			t.Fatalf("compacted: %+v", s)
		}
		restore("a backup of a compacted file", backup(t, compacted.DB), `"a backup 2"`)

		if got := standOf(t, original.DB); got != before || got.stale != [2]bool{} {
			t.Errorf("the original stands at %+v, was %+v", got, before)
		}
		use(t, original.DB, used, "the original")
		original.reopen()
		if original.DB.Restored() {
			t.Error("the original takes itself for a copy")
		}
		use(t, original.DB, used, "the original, reopened")
		if want := (copies + 4) * 6; len(used) != want {
			t.Errorf("%d sequences used, want %d", len(used), want)
		}
	})
}

func compact(t *testing.T, path string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "compact.db")
	src, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	dst, err := bolt.Open(to, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(bolt.Compact(dst, src, 0), dst.Close(), src.Close()); err != nil {
		t.Fatal(err)
	}
	return to
}

// spend pays for n requests from a bucket that gets a token an hour, as the
// contract has it for slow buckets: saved before it is spent, with one token where
// it was never saved, and empty where what was saved is stale.
func spend(t *testing.T, db *state.DB, key string, n int, sent map[string][]time.Time) {
	t.Helper()
	value, stale, err := db.Ledger().Load(key)
	if err != nil {
		t.Fatal(err)
	}
	next := time.Now()
	if value != nil {
		next = time.UnixMilli(int64(decoded(t, value)))
	}
	if empty := time.Now().Add(time.Hour); stale && next.Before(empty) {
		next = empty
	}
	for range n {
		time.Sleep(time.Until(next))
		next = time.Now().Add(time.Hour)
		if err := db.Ledger().Save(key, fmt.Append(nil, next.UnixMilli())); err != nil {
			t.Fatal(err)
		}
		sent[key] = append(sent[key], time.Now())
	}
}

// G1, §10: a backup that takes the place of its original sends nothing that the
// original has left no token for, from buckets that the backup knows and from
// those that were new to the original after it; and what it then saves is its own.
func TestRestoredBudgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent := make(map[string][]time.Time)
		f := open(t)
		spend(t, f.DB, known, 2, sent)
		path := backup(t, f.DB)
		for _, key := range []string{known, unknown} {
			spend(t, f.DB, key, 3, sent)
		}
		for range 2 { // the original is gone, and then the copy is restarted
			f = openAt(t, path)
			spend(t, f.DB, unknown, 1, sent)
			spend(t, f.DB, known, 1, sent)
			f.DB.Close()
		}
		for key, n := range map[string]int{known: 7, unknown: 5} {
			if len(sent[key]) != n {
				t.Errorf("%s: %d requests, want %d", key, len(sent[key]), n)
			}
			for i := 1; i < len(sent[key]); i++ {
				if gap := sent[key][i].Sub(sent[key][i-1]); gap < time.Hour {
					t.Errorf("%s: request %d came %v after the one before", key, i, gap)
				}
			}
		}
	})
}

// §10: a plain copy of a file opens as the file itself would.
func TestPlainCopy(t *testing.T) {
	for name, make := range map[string]func(t *testing.T) *file{
		"of the original":      open,
		"of one that restored": func(t *testing.T) *file { return openAt(t, backup(t, open(t).DB)) },
	} {
		t.Run(name, func(t *testing.T) {
			f := make(t)
			if _, err := f.DB.OpenSink("archive", "file", true, day); err != nil {
				t.Fatal(err)
			}
			use(t, f.DB, map[uint64]string{}, "the file")
			want := standOf(t, f.DB)
			f.DB.Close()
			c := openAt(t, plainCopy(t, f.cfg.Path))
			if got := standOf(t, c.DB); got != want || c.DB.Restored() || got.stale[0] {
				t.Errorf("restored: %t, %+v, want %+v", c.DB.Restored(), got, want)
			}
		})
	}
}

// A crash in the transaction that makes a copy a file of its own leaves a copy, or
// a file of its own.
func TestRestoreCrashes(t *testing.T) {
	for name, fault := range breakings {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			if _, err := f.DB.OpenSink("archive", "file", true, day); err != nil {
				t.Fatal(err)
			}
			used := make(map[uint64]string)
			use(t, f.DB, used, "the original")
			path := backup(t, f.DB)
			use(t, f.DB, used, "the original, later")
			for range 3 {
				if db, err := state.Open(state.Config{Path: path, Commit: fault}); err == nil {
					db.Close()
					if name == "failed" {
						t.Fatal("opened, and nothing was committed")
					}
				} else if !errors.Is(err, errBroken) {
					t.Fatal(err)
				}
			}
			c := openAt(t, path)
			if s := standOf(t, c.DB); c.DB.Restored() != (name == "failed") || s.stale != [2]bool{true, true} || s.checkpoint != "" {
				t.Errorf("restored: %t, %+v", c.DB.Restored(), s)
			}
			use(t, c.DB, used, "the copy")
		})
	}
}

// Both meta pages of a copy know that it is one: the disk may lose either.
func TestRestoreWithOneMetaPage(t *testing.T) {
	f := open(t)
	logOf(t, f.DB, "a", "b")
	path := backup(t, f.DB)
	for _, page := range []int64{0, 1} {
		damaged := plainCopy(t, path)
		b, err := os.OpenFile(damaged, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.WriteAt([]byte("lost"), page*int64(os.Getpagesize())+16)
		if err := errors.Join(err, b.Close()); err != nil {
			t.Fatal(err)
		}
		c := openAt(t, damaged)
		if s := standOf(t, c.DB); !c.DB.Restored() || s.stale != [2]bool{true, true} {
			t.Errorf("without page %d: restored: %t, %+v", page, c.DB.Restored(), s)
		}
	}
}

// A clock that is far behind does not let a copy share sequences with its
// original.
func TestRestoreWithAWrongClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // whose time is the year 2000
		f := open(t)
		const last = 1_800_000_000_000_000 // of 2027, in microseconds
		f.edit(func(tx *bolt.Tx) error { return tx.Bucket([]byte("events")).SetSequence(last) })
		c := openAt(t, backup(t, f.DB))
		if got := standOf(t, c.DB).last; got < last+1_000_000_000_000 {
			t.Errorf("the sequence goes on from %d", got)
		}
	})
}
