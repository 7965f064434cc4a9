package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
)

// ErrBroken says that this process can write the state no more. Nothing is lost,
// and the next Open puts it right: stop the process.
var ErrBroken = errors.New("the state file can be written no more by this process: restart syncd")

// writer runs the write transactions.
type writer struct {
	bolt     *bolt.DB
	file     *os.File                            // bbolt's
	transact func(fn func(*bolt.Tx) error) error // bolt.DB.Update; tests let it fail
	listFrom int64                               // bytes
	dead     chan struct{}                       // closed when broken is set

	mu       sync.Mutex // held for the whole transaction, and guards what follows
	anchored bool
	broken   error // ErrBroken and why
	failure  error // of the last commit that failed, to be returned until then
	until    time.Time
}

const (
	// slowFailure is how long a failing commit may take before the next is put off.
	slowFailure = 100 * time.Millisecond
	// failureShare is how many times as long as it took the next one waits,
	// and failureMost how long at most.
	failureShare = 10
	failureMost  = time.Minute
)

// write runs fn in a write transaction.
//
// A transaction whose fn returns an error costs next to nothing. But where bbolt
// fails to commit one it finds the free pages again, for they are not on disk:
// that walks the whole file, seconds for one of 10 GiB. On a disk that stays full
// every commit fails, so one that took long is followed by a pause in which all
// others fail at once with its error: no more than about a tenth of the time goes
// into walking, and room that was made is found within a minute.
//
// A commit that has failed left the file as it was: its pages were written to where
// the last commit has nothing, and overwriting the older meta page is its last
// step. That holds for a full disk at any of its writes and for pages whose fsync
// failed; they are written anew before anything refers to them. The one exception
// is an fsync that fails after the meta page was written. bbolt then reads the
// new meta through its mapping while the disk may still have the old one, or get
// it back when the kernel drops the page, and it gives the pages of the commit
// before to the next one, although readers and perhaps the disk still need them.
// So nothing more is written: see ErrBroken. Readers go on.
func (w *writer) write(fn func(tx *bolt.Tx) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return w.broken
	}
	if time.Now().Before(w.until) {
		return w.failure
	}
	var id int // of the transaction, once it is bbolt's turn
	var began time.Time
	err := w.transact(func(tx *bolt.Tx) error {
		if err := w.anchor(tx); err != nil {
			return fmt.Errorf("make the last commit durable: %w", err)
		}
		if err := fn(tx); err != nil {
			return err
		}
		id, began = tx.ID(), time.Now()
		return nil
	})
	if err == nil || id == 0 {
		return err
	}
	if took := time.Since(began); took > slowFailure {
		w.failure, w.until = err, time.Now().Add(min(failureShare*took, failureMost))
	}
	var now int
	seen := w.bolt.View(func(tx *bolt.Tx) error {
		now = tx.ID()
		return nil
	})
	if seen != nil || now >= id { // a file that bbolt could not map again has no view
		w.broken = fmt.Errorf("%w: %w", ErrBroken, errors.Join(err, seen))
		close(w.dead)
		return w.broken
	}
	return err
}

// listFrom is how large a file must be to be closed with a list of its free pages.
const listFrom = 256 << 20

// listFree writes the list of free pages into a large file that was written to and
// is about to be closed. Where it is missing, as after a crash, bbolt finds these
// pages at the next open by a walk with a map of all pages: 35 MiB of heap and
// half of the time for a file of 2 GiB, measured. A failure costs only that.
func (w *writer) listFree(size int64) {
	w.mu.Lock()
	list := w.anchored && size >= w.listFrom
	if list {
		w.bolt.NoFreelistSync = false
	}
	w.mu.Unlock()
	if list {
		_ = w.write(func(*bolt.Tx) error { return nil })
	}
}

// anchor makes the last commit of an earlier process durable before the first one
// of this process overwrites the pages that it has freed. That process may have
// died between writing the meta page and its fsync, or that fsync may have failed:
// then the kernel shows what the disk has not got, a power cut brings back the
// commit before, and its pages must still be there. An fsync writes only what the
// kernel takes for dirty, so the meta page is written once more, byte for byte;
// the other one stays, should a power cut tear this one.
func (w *writer) anchor(tx *bolt.Tx) error {
	if w.anchored {
		return nil
	}
	size := w.bolt.Info().PageSize
	b := make([]byte, size)
	for at := range 2 {
		if _, err := w.file.ReadAt(b, int64(at*size)); err != nil {
			return err
		}
		m := validMeta(b)
		if m == nil || binary.NativeEndian.Uint64(m[48:])+1 != uint64(tx.ID()) {
			continue
		}
		if _, err := w.file.WriteAt(b, int64(at*size)); err != nil {
			return err
		}
		if err := w.file.Sync(); err != nil {
			return err
		}
		w.anchored = true
		return nil
	}
	return errors.New("its meta page is gone") // written over by somebody else
}
