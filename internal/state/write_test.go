package state_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/state"
)

func save(db *state.DB) error { return db.Ledger().Save("k", []byte(`{"v":1}`)) }

// G2: a disk that was full is written to again as soon as there is room, and
// nothing that was acknowledged is missing.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("no small disk here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	f := openAt(t, filepath.Join(dir, "syncd.db"))
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var kept, failed int
	next := func() error {
		it := question(fmt.Sprintf("q%04d", kept), kept, strings.Repeat("x", 20_000))
		_, err := f.DB.CommitPage(pageOf(f.DB, it))
		if err == nil {
			kept++
		}
		return err
	}
	for round := range 3 {
		for full := failed + 5; failed < full; { // it stays full: bbolt finds other pages, which may lie in the room there is
			err := next()
			if err == nil {
				continue
			}
			if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, state.ErrBroken) {
				t.Fatalf("round %d: %v", round, err)
			}
			failed++
			checkState(t, f.DB)
		}
		if err := os.Truncate(ballast, int64(2-round)<<18); err != nil {
			t.Fatal(err)
		}
		if err := next(); err != nil {
			t.Fatalf("round %d, with room again: %v", round, err)
		}
	}
	f.reopen()
	checkState(t, f.DB)
	if got := len(events(t, f.DB)); got != kept || f.n == 0 {
		t.Errorf("%d events of %d that were acknowledged", got, kept)
	}
	t.Logf("%d kept, %d failed", kept, failed)
}

// G8: on a disk that stays full most of the time is not spent on looking for free
// pages.
func TestSlowFailuresArePutOff(t *testing.T) {
	for _, test := range []struct{ took, pause time.Duration }{
		{100 * time.Millisecond, 0},
		{time.Second, 10 * time.Second},
		{7 * time.Second, time.Minute},
	} {
		t.Run(test.took.String(), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "syncd.db")
			synctest.Test(t, func(t *testing.T) {
				db, err := state.Open(state.Config{Path: path})
				if err != nil {
					t.Fatal(err)
				}
				defer db.Close()
				db.FailCommits(errBroken, test.took, false)
				timed := func() time.Duration {
					t.Helper()
					start := time.Now()
					if err := save(db); !errors.Is(err, errBroken) {
						t.Fatal(err)
					}
					return time.Since(start)
				}
				if d := timed(); d != test.took {
					t.Fatal(d)
				}
				if test.pause > 0 {
					time.Sleep(test.pause - time.Nanosecond)
					if d := timed(); d != 0 {
						t.Errorf("tried again too early, for %s", d)
					}
					time.Sleep(time.Nanosecond)
				}
				if d := timed(); d != test.took {
					t.Errorf("not tried again, but for %s", d)
				}
				time.Sleep(test.pause)
				db.FailCommits(nil, 0, false)
				for range 2 {
					if err := save(db); err != nil {
						t.Errorf("with room again: %v", err)
					}
				}
			})
		})
	}
}

// Only bbolt's failures are paused after, not what a transaction finds wrong.
func TestOwnErrorsArePutOffByNothing(t *testing.T) {
	f := open(t)
	f.DB.FailCommits(errBroken, 200*time.Millisecond, false)
	if err := f.DB.Settle("nobody", day, state.Settlement{}); err == nil || errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	f.DB.FailCommits(nil, 0, false)
	if err := save(f.DB); err != nil {
		t.Fatal(err)
	}
}

// G2: a commit that failed although readers see it is perhaps not on disk, so
// nothing may be written over what it has freed. The next process goes on.
func TestHalfCommit(t *testing.T) {
	f := open(t)
	commit(t, f.DB, pageOf(f.DB, question("a", 1, "a")))
	f.DB.FailCommits(syscall.EIO, 0, true)
	_, err := f.DB.CommitPage(pageOf(f.DB, question("b", 2, "b")))
	if !errors.Is(err, state.ErrBroken) || !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "restart syncd") {
		t.Fatal(err)
	}
	select {
	case <-f.DB.Broken():
	default:
		t.Error("nobody is told")
	}
	f.DB.FailCommits(nil, 0, false)
	f.DB.ListFrom(0)
	before := f.bytes()
	if err := save(f.DB); !errors.Is(err, state.ErrBroken) || !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if got := len(ids(t, f.DB)); got != 2 {
		t.Errorf("readers see %d events", got)
	}
	if err := f.DB.Close(); err != nil {
		t.Fatal(err)
	}
	if string(before) != string(f.bytes()) {
		t.Fatal("the file was written to")
	}
	f.reopen()
	checkState(t, f.DB)
	commit(t, f.DB, pageOf(f.DB, question("b", 2, "b"), question("c", 3, "c")))
	if got := ids(t, f.DB); len(got) != 3 {
		t.Error(got)
	}
}

// G2: what an earlier process may have left in the kernel alone is on the disk
// before the first commit writes over the pages that it has freed.
func TestFirstWriteAnchorsTheLast(t *testing.T) {
	f := open(t)
	for i := range 3 {
		if err := f.DB.Ledger().Save(fmt.Sprint(i), []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	f.reopen()
	before := f.bytes()
	long := time.Unix(1_000_000_000, 0)
	for i, want := range []bool{true, false} {
		if err := os.Chtimes(f.cfg.Path, long, long); err != nil {
			t.Fatal(err)
		}
		// Fails on its own, so nothing but the anchor is written.
		if err := f.DB.Settle("nobody", day, state.Settlement{}); err == nil {
			t.Fatal("no error")
		}
		fi, err := os.Stat(f.cfg.Path)
		if err != nil {
			t.Fatal(err)
		}
		if written := !fi.ModTime().Equal(long); written != want {
			t.Errorf("transaction %d has written: %t", i, written)
		}
	}
	if string(before) != string(f.bytes()) {
		t.Error("the anchor has changed the file")
	}
}

// G8: a transaction that finds nothing to do does not walk the file.
func TestNothingToDoIsCheap(t *testing.T) {
	f := open(t)
	p := pageOf(f.DB)
	for i := range 2000 {
		p.Items = append(p.Items, question(fmt.Sprint(i), i, strings.Repeat("x", 2000)))
	}
	if _, err := f.DB.CommitPage(p); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if n, err := f.DB.Retain(context.Background(), day); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	runtime.ReadMemStats(&after)
	// A walk needs more than 100 bytes for each of more than 2,000 pages.
	if got := after.TotalAlloc - before.TotalAlloc; got > 50<<10 {
		t.Errorf("%d bytes allocated", got)
	}
}

// G8: a large file is closed with the list of its free pages, so that the next
// open need not find them; one that was only read is closed as it is.
func TestCloseListsFreePages(t *testing.T) {
	f := open(t)
	listed := func() bool {
		t.Helper()
		b, err := bolt.Open(f.cfg.Path, 0o600, &bolt.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		found := false
		err = b.View(func(tx *bolt.Tx) error {
			for err := range tx.Check() {
				t.Error(err)
			}
			for id := range int(tx.Size() / pageSize) {
				info, err := tx.Page(id)
				if err != nil {
					return err
				}
				found = found || info.Type == "freelist"
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	for i, test := range []struct {
		from        int64
		write, want bool
	}{{1 << 40, true, false}, {0, false, false}, {0, true, true}, {0, false, true}, {0, true, true}, {1 << 40, true, false}} {
		f.DB.ListFrom(test.from)
		if test.write {
			commit(t, f.DB, pageOf(f.DB, question("q", 1, fmt.Sprint(i))))
		}
		before := f.bytes()
		if err := f.DB.Close(); err != nil {
			t.Fatal(err)
		}
		if got := listed(); got != test.want {
			t.Errorf("%d: listed %t", i, got)
		}
		if !test.write && string(before) != string(f.bytes()) {
			t.Errorf("%d: closing has changed the file", i)
		}
		f.reopen()
		checkState(t, f.DB)
	}
}
