package state_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"syncd/internal/state"
)

// The file may be elsewhere, behind a link, and of a process that may not write to
// its directory. A torn meta page is no damage.
func TestOpenAccepts(t *testing.T) {
	f := open(t)
	fill(t, f.DB)
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(f.cfg.Path, link); err != nil {
		t.Fatal(err)
	}
	size := f.DB.Size()
	f.DB.Close()
	raw := f.bytes()[:size]
	for i := range 2 {
		torn := bytes.Clone(raw)
		clear(torn[i*pageSize+40 : (i+1)*pageSize])
		if err := os.WriteFile(f.cfg.Path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := state.Open(state.Config{Path: link})
		if err != nil {
			t.Fatalf("without meta page %d: %v", i, err)
		}
		checkState(t, db)
		db.Close()
	}
	if err := os.WriteFile(f.cfg.Path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	f.cfg.Path = link
	f.reopen()
	if _, err := state.Open(state.Config{Path: link, LockTimeout: time.Millisecond}); !errors.Is(err, state.ErrLocked) {
		t.Fatal(err)
	}
}

// A file that another process writes to is not looked at: it may be half a commit.
func TestOpenLocksFirst(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "syncd.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := state.Open(state.Config{Path: f.Name(), LockTimeout: time.Millisecond}); !errors.Is(err, state.ErrLocked) {
		t.Fatal(err)
	}
}

// A file that another process lets go in time is opened.
func TestOpenWaits(t *testing.T) {
	f := open(t)
	held := f.DB
	opened := make(chan error)
	go func() {
		db, err := state.Open(state.Config{Path: f.cfg.Path, LockTimeout: time.Minute})
		if err == nil {
			err = db.Close()
		}
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Fatalf("opened while it is locked: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
}
