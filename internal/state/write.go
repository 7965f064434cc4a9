package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
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
	anchored atomic.Bool

	mu      sync.Mutex // guards what follows; held over no I/O
	leading bool       // somebody runs transactions
	queue   []*write   // what came meanwhile

	// Of who leads.
	broken  error // ErrBroken and why
	failure error // of the last commit that failed, to be returned until then
	until   time.Time
}

// write is what somebody wants to write.
type write struct {
	fn       func(tx *bolt.Tx) error
	turn     chan bool // true: lead; false: err and panicked say what came of it
	err      error
	panicked any // what fn has panicked with in somebody else's goroutine
}

const (
	// groupMost is how many writes share a transaction: those that wait while the one
	// before it is committed. The more there are the less each pays for its two
	// fsyncs; each may be a page of megabytes that is in memory until the commit.
	groupMost = 16
	// slowFailure is how long a failing commit may take before the next is put off.
	slowFailure = 100 * time.Millisecond
	// failureShare is how many times as long as it took the next one waits,
	// and failureMost how long at most.
	failureShare = 10
	failureMost  = time.Minute
)

// errUnrun is what is left of a write whose leader's goroutine ended in the middle.
var errUnrun = errors.New("the transaction was not run")

// errPanicked is what a write has come to that has panicked.
var errPanicked = errors.New("the transaction panicked")

// write runs fn in a write transaction, alone or with those of others who came while
// the one before was committed: in the order in which they came, each seeing what
// those before it did, and returning when all of it is on disk. Where one of them
// returns an error each is run in a transaction of its own, so fn may be run twice,
// the first time without effect.
//
// A crash before the commit leaves nothing of the group, and after it all: nobody
// has been told of less.
func (w *writer) write(fn func(tx *bolt.Tx) error) error {
	own := &write{fn: fn, turn: make(chan bool, 1), err: errUnrun}
	w.mu.Lock()
	wait := w.leading
	if wait {
		w.queue = append(w.queue, own)
	}
	w.leading = true
	w.mu.Unlock()
	if !wait || <-own.turn {
		w.lead(own)
	}
	if own.panicked != nil { // the bug is that of whoever called this, and of nobody else
		panic(own.panicked)
	}
	return own.err
}

// run runs fn, and keeps a panic for the goroutine that it belongs to.
func (o *write) run(tx *bolt.Tx) (err error) {
	defer func() {
		if o.panicked = recover(); o.panicked != nil {
			err = errPanicked
		}
	}()
	return o.fn(tx)
}

// lead runs a write and those that wait, and has the next one lead.
func (w *writer) lead(own *write) {
	w.mu.Lock()
	group := append([]*write{own}, w.queue[:min(len(w.queue), groupMost-1)]...)
	w.queue = slices.Delete(w.queue, 0, len(group)-1)
	w.mu.Unlock()
	told := 1
	defer func() {
		for _, other := range group[told:] {
			other.turn <- false
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.leading = len(w.queue) > 0; w.leading {
			w.queue[0].turn <- true
			w.queue = slices.Delete(w.queue, 0, 1)
		}
	}()
	if w.commit(group) || len(group) == 1 {
		return
	}
	for i, one := range group {
		if w.commit(group[i : i+1]); i > 0 {
			told = i + 1
			one.turn <- false
		}
	}
}

// commit runs a group in one transaction and says of each what came of it; false: one
// of them did not want to, or could not, so that there was none. One that has
// nothing to do is no reason for that.
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
func (w *writer) commit(group []*write) bool {
	err := w.broken
	if err == nil && time.Now().Before(w.until) {
		err = w.failure
	}
	var id int // of the transaction, once it is bbolt's turn
	var began time.Time
	idle := 0
	if err == nil {
		err = w.transact(func(tx *bolt.Tx) error {
			if err := w.anchor(tx); err != nil {
				return fmt.Errorf("make the last commit durable: %w", err)
			}
			idle = 0
			for _, one := range group {
				if one.err = one.run(tx); errors.Is(one.err, errUpToDate) {
					idle++
				} else if one.err != nil {
					return one.err
				}
			}
			if idle == len(group) {
				return errUpToDate
			}
			id, began = tx.ID(), time.Now()
			return nil
		})
		switch {
		case err == nil || idle == len(group):
			return true
		case id == 0 && len(group) > 1:
			return false
		case id != 0:
			err = w.failed(id, began, err)
		}
	}
	for _, one := range group {
		if id == 0 || !errors.Is(one.err, errUpToDate) {
			one.err = err
		}
	}
	return true
}

// failed notes that a commit has failed, and returns its error.
func (w *writer) failed(id int, began time.Time, err error) error {
	if took := time.Since(began); took > slowFailure {
		w.failure, w.until = err, time.Now().Add(min(failureShare*took, failureMost))
	}
	var now int
	seen := w.bolt.View(func(tx *bolt.Tx) error {
		now = tx.ID()
		return nil
	})
	if seen == nil && now < id {
		return err
	}
	// A file that bbolt could not map again has no view.
	w.broken = fmt.Errorf("%w: %w", ErrBroken, errors.Join(err, seen))
	close(w.dead)
	return w.broken
}

// listFrom is how large a file must be to be closed with a list of its free pages.
const listFrom = 256 << 20

// listFree writes the list of free pages into a large file that was written to and
// is about to be closed. Where it is missing, as after a crash, bbolt finds these
// pages at the next open by a walk with a map of all pages: 35 MiB of heap and
// half of the time for a file of 2 GiB, measured. A failure costs only that.
func (w *writer) listFree(size int64) {
	if w.anchored.Load() && size >= w.listFrom {
		_ = w.write(func(*bolt.Tx) error {
			w.bolt.NoFreelistSync = false
			return nil
		})
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
	if w.anchored.Load() {
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
		w.anchored.Store(true)
		return nil
	}
	return errors.New("its meta page is gone") // written over by somebody else
}
