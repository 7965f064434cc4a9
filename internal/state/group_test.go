package state_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/event"
	"syncd/internal/state"
)

// shared is a file that many write at once: its commits are not counted.
func shared(t *testing.T) *file {
	f := open(t)
	f.fault = func(commit func() error) error { return commit() }
	return f
}

// together begins writes in their order, the first of which keeps the others
// waiting, and returns their errors.
func together(writes ...func() error) []error {
	errs := make([]error, len(writes))
	var wg sync.WaitGroup
	for i, write := range writes {
		wg.Go(func() { errs[i] = write() })
		synctest.Wait()
	}
	wg.Wait()
	return errs
}

func saving(db *state.DB, i int) func() error {
	return func() error { return db.Ledger().Save(fmt.Sprint("k", i), fmt.Append(nil, i)) }
}

func saved(t *testing.T, db *state.DB, i int) bool {
	t.Helper()
	v, _, err := db.Ledger().Load(fmt.Sprint("k", i))
	if err != nil || v != nil && string(v) != fmt.Sprint(i) {
		t.Fatalf("k%d is %q: %v", i, v, err)
	}
	return v != nil
}

// Writes that come while another is committed share a transaction, up to a bound, and
// nobody waits for more than the one going on and those before him.
func TestWritesShareATransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := shared(t)
		n := f.DB.SlowTransactions(time.Second)
		var writes []func() error
		for i := range 2*state.GroupMost + 2 {
			writes = append(writes, saving(f.DB, i))
		}
		begun := time.Now()
		for i, err := range together(writes...) {
			if err != nil || !saved(t, f.DB, i) {
				t.Errorf("write %d: %v", i, err)
			}
		}
		if took := time.Since(begun); n.Load() != 4 || took != 4*time.Second {
			t.Errorf("%d transactions in %s for %d writes, want the first, two full groups and the last", n.Load(), took, len(writes))
		}
		checkState(t, f.DB)
	})
}

// A write that fails by itself fails alone: what shared its transaction is saved, in
// its order, and as if it had never been there.
func TestOneOfAGroupFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := shared(t)
		f.DB.SlowTransactions(time.Second)
		var out state.Outcome
		errs := together(saving(f.DB, 0), saving(f.DB, 1),
			func() error { return f.DB.Settle("nobody", time.Now(), state.Settlement{Position: 1}) },
			func() (err error) {
				out, err = f.DB.CommitPage(pageOf(f.DB, question("q1", 1, "?"), question("q2", 2, "?")))
				return err
			},
			saving(f.DB, 4))
		if !errors.Is(errs[2], state.ErrUnknown) {
			t.Errorf("the one that fails: %v", errs[2])
		}
		for _, i := range []int{0, 1, 4} {
			if errs[i] != nil || !saved(t, f.DB, i) {
				t.Errorf("write %d: %v", i, errs[i])
			}
		}
		if got := events(t, f.DB); errs[3] != nil || len(out.Actions) != 2 || out.Events != 2 || len(got) != 2 {
			t.Errorf("the page: %+v, %d events in the log: %v", out, len(got), errs[3])
		}
		checkState(t, f.DB)
	})
}

// A commit that fails is told to all who share it, and none of theirs is there.
func TestAGroupFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := shared(t)
		full := errors.New("full")
		f.DB.FailCommits(full, 50*time.Millisecond, false)
		f.DB.SlowTransactions(time.Second)
		for i, err := range together(saving(f.DB, 0), saving(f.DB, 1), saving(f.DB, 2)) {
			if !errors.Is(err, full) || saved(t, f.DB, i) {
				t.Errorf("write %d: %v", i, err)
			}
		}
		f.DB.FailCommits(nil, 0, false)
		if err := saving(f.DB, 1)(); err != nil || !saved(t, f.DB, 1) {
			t.Errorf("with room again: %v", err)
		}
	})
}

// What has nothing to do shares a transaction like any other, and does not undo it.
func TestNothingToDoInAGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := shared(t)
		if _, err := f.DB.CommitPage(pageOf(f.DB, question("q1", 1, "?"))); err != nil {
			t.Fatal(err)
		}
		n := f.DB.SlowTransactions(time.Second)
		retain := func() error {
			_, err := f.DB.Retain(t.Context(), day.AddDate(-1, 0, 0))
			return err
		}
		for i, err := range together(saving(f.DB, 0), saving(f.DB, 1), retain, saving(f.DB, 3), retain) {
			if err != nil || i%2 == 1 && !saved(t, f.DB, i) {
				t.Errorf("write %d: %v", i, err)
			}
		}
		if n.Load() != 2 {
			t.Errorf("%d transactions", n.Load())
		}
		for _, err := range together(saving(f.DB, 0), retain, retain) {
			if err != nil {
				t.Error(err)
			}
		}
	})
}

// A write that panics does so where it was begun, as before a server that catches it,
// and nowhere else; nobody is left waiting.
func TestAWriterPanics(t *testing.T) {
	for at := range 3 {
		synctest.Test(t, func(t *testing.T) {
			f := shared(t)
			if _, err := f.DB.CommitPage(pageOf(f.DB, question("q1", 1, "?"))); err != nil {
				t.Fatal(err)
			}
			f.DB.SlowTransactions(time.Second)
			bad := pageOf(f.DB, question("q1", 1, "!"))
			bad.Keep, bad.Rules = true, "others"
			bad.Refingerprint = func(json.RawMessage) (event.Fingerprint, error) { panic("a bug") }
			writes := []func() error{saving(f.DB, 0), saving(f.DB, 1), saving(f.DB, 2)}
			writes[at] = func() (err error) {
				defer func() { err = fmt.Errorf("panic: %v", recover()) }()
				_, err = f.DB.CommitPage(bad)
				return err
			}
			for i, err := range together(writes...) {
				switch {
				case i == at:
					if err == nil || err.Error() != "panic: a bug" {
						t.Errorf("the one that panics, %d of 3: %v", at, err)
					}
				case err != nil || !saved(t, f.DB, i):
					t.Errorf("write %d beside a panic in %d: %v", i, at, err)
				}
			}
		})
	}
}
