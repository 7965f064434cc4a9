package state_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/state"
)

// backup takes a backup and returns where it is.
func backup(t *testing.T, db *state.DB) string {
	t.Helper()
	var b bytes.Buffer
	n, err := db.Backup(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("%d of %d bytes, %v", n, b.Len(), err)
	}
	return place(t, b.Bytes())
}

// plainCopy is what cp makes of a file that nobody has open.
func plainCopy(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return place(t, b)
}

func place(t *testing.T, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A backup is the file at one moment, however much is committed while it is
// taken: all of a page or nothing.
func TestBackupWhileWriting(t *testing.T) {
	db, err := state.Open(state.Config{Path: filepath.Join(t.TempDir(), "syncd.db")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() {
		stop()
		wg.Wait()
		db.Close()
	})
	for i := range 4 {
		wg.Go(func() {
			stream := state.StreamID{Account: "shop-a", Stream: fmt.Sprint("s", i)}
			for n := 1; ctx.Err() == nil; n++ {
				p := pageOf(db, question(fmt.Sprint(n, "-a"), n, "a"), question(fmt.Sprint(n, "-b"), n, "b"))
				p.Stream, p.Cursor = stream, fmt.Append(nil, n)
				if _, err := db.CommitPage(p); err != nil {
					t.Error(err)
				}
				if err := db.Ledger().Save(stream.Stream, fmt.Append(nil, n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var last uint64
	for at := range 5 {
		c := openAt(t, backup(t, db))
		checkState(t, c.DB)
		pages := make(map[string]int)
		for _, e := range events(t, c.DB) {
			pages[e.Stream]++
		}
		for i := range 4 {
			id := state.StreamID{Account: "shop-a", Stream: fmt.Sprint("s", i)}
			s, err := c.DB.OpenStream(id, nil, day)
			if err != nil {
				t.Fatal(err)
			}
			n, saved := 0, 0
			if raw := s.Walks["news"].Cursor; raw != nil {
				n = decoded(t, raw)
			}
			if raw, _, err := c.DB.Ledger().Load(id.Stream); err != nil {
				t.Fatal(err)
			} else if raw != nil {
				saved = decoded(t, raw)
			}
			if pages[id.Stream] != 2*n || saved != n && saved != n-1 {
				t.Errorf("backup %d, %s: %d events, cursor %d, budget %d", at, id, pages[id.Stream], n, saved)
			}
		}
		for then := last; last == then; { // the writers go on
			var err error
			if last, err = db.LastSequence(); err != nil {
				t.Error(err)
				break
			}
		}
	}
	stop()
	wg.Wait()
	checkState(t, db)
}

func decoded(t *testing.T, raw []byte) (n int) {
	t.Helper()
	if err := json.Unmarshal(raw, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Who takes a backup slowly keeps no commit waiting, nor another backup, and gets
// the file as it was when the backup began.
func TestBackupIsTakenSlowly(t *testing.T) {
	f := open(t)
	logOf(t, f.DB, "a", "b")
	r, w := io.Pipe() // takes nothing that is not read
	result := make(chan error, 1)
	go func() {
		_, err := f.DB.Backup(w)
		result <- errors.Join(err, w.CloseWithError(err))
	}()
	head := make([]byte, 1)
	if _, err := io.ReadFull(r, head); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		logOf(t, f.DB, "a", "b")
	}
	later := openAt(t, backup(t, f.DB))
	if n := len(events(t, later.DB)); n != 102 {
		t.Errorf("the second backup has %d events", n)
	}
	rest, err := io.ReadAll(r)
	if err := errors.Join(err, <-result); err != nil {
		t.Fatal(err)
	}
	c := openAt(t, place(t, append(head, rest...)))
	checkState(t, c.DB)
	if n := len(events(t, c.DB)); n != 2 || !c.DB.Restored() {
		t.Errorf("the first backup has %d events, restored: %t", n, c.DB.Restored())
	}
}

// A backup that broke off is refused, wherever that was, and never taken for an
// original.
func TestBackupBreaksOff(t *testing.T) {
	f := open(t)
	fill(t, f.DB)
	var whole bytes.Buffer
	if _, err := f.DB.Backup(&whole); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 79, 80, 512, 4095, 4096, 4176, 8191, 8192, 8193, whole.Len() / 2, whole.Len() - 1} {
		var w short
		w.left = n
		if _, err := f.DB.Backup(&w); err == nil {
			t.Fatalf("%d bytes: no error", n)
		}
		path := place(t, w.got.Bytes())
		if db, err := state.Open(state.Config{Path: path}); err == nil {
			db.Close()
			t.Errorf("opened with %d of %d bytes", n, whole.Len())
		}
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, whole.Bytes()[:n]) {
			t.Errorf("with %d of %d bytes: it was changed: %v", n, whole.Len(), err)
		}
	}
	f.DB.Close()
	if _, err := f.DB.Backup(io.Discard); err == nil {
		t.Error("a file that is closed was backed up")
	}
}

// short takes some bytes and no more.
type short struct {
	got  bytes.Buffer
	left int
}

func (s *short) Write(b []byte) (int, error) {
	n, _ := s.got.Write(b[:min(len(b), s.left)])
	if s.left -= n; n < len(b) {
		return n, errBroken
	}
	return n, nil
}

// LastCommit is when the file was last written to before it was opened, and a
// page with nothing new does not count.
func TestLastCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := open(t)
		f.reopen()
		if got := f.DB.LastCommit(); !got.IsZero() {
			t.Error("a new file was written to at", got)
		}
		time.Sleep(time.Hour)
		commit(t, f.DB, pageOf(f.DB, question("q", 1, "a")))
		want := time.Now()
		if got := f.DB.LastCommit(); !got.IsZero() {
			t.Error("since it was opened:", got)
		}
		time.Sleep(time.Hour)
		commit(t, f.DB, pageOf(f.DB, question("q", 1, "a")))
		for range 2 { // and opening it writes nothing
			f.reopen()
			if got := f.DB.LastCommit(); !got.Equal(want) {
				t.Errorf("%v, want %v", got, want)
			}
		}
		time.Sleep(time.Hour)
		if err := f.DB.Ledger().Save("k", []byte("1")); err != nil {
			t.Fatal(err)
		}
		want = time.Now()
		time.Sleep(time.Hour)
		c := openAt(t, backup(t, f.DB))
		if got := c.DB.LastCommit(); !got.Equal(want) {
			t.Errorf("of a copy: %v, want %v", got, want)
		}
		f.edit(func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Delete([]byte("committed")) })
		if got := f.DB.LastCommit(); !got.IsZero() {
			t.Error("of a file of an earlier syncd:", got)
		}
	})
}
