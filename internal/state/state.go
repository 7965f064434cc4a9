// Package state is syncd's memory: one bbolt file. It guarantees that the items
// of a page, the events they cause and the cursor after them are saved in one
// transaction or not at all, that event sequences only grow, and that what a
// method has returned is on disk. It does no network I/O and starts no
// goroutines. A *DB is safe for concurrent use.
//
// # The bucket tree
//
// Times in keys are 8 bytes, Unix milliseconds, big-endian; sequences likewise.
// Values are JSON with a version "v" unless said otherwise. A golden test holds
// this picture.
//
//	meta
//	  schema      {"v":1,"version":N}     which migrations this file has seen
//	  stamp       8 bytes                 the highest reading stamp that a record, or a held or staged item carries
//	  committed   8 bytes                 when the file was last written to, Unix milliseconds
//	  restored    8 bytes                 the mark of the backup that this file was, once it has been opened: see Backup
//	  holes       {"v":1,"holes":[{"after","last"}]}   sequences that no event has, as far as anything below is kept
//	accounts
//	  <account>   {"v":1,"marketplace","seller","first_poll"}   the pinned seller
//	streams
//	  <account>
//	    <stream>
//	      meta            {"v":1,"start","began","walked"}       what is old, decided once
//	      cursor:<walk>   bytes, the source's own                where each walk continues
//	      walk:<walk>     {"v":1,"began","done","read"}          its last complete run, and how much the one going on has read
//	      backfill        {"v":1,"since","asked"}                a request that is not done
//	      schema_changes  {"v":1,"n"}                            how many events say that the schema has changed
//	      verdict         {"v":1,"paths"}                        a settlement of held items that is not done: what it adopts
//	      visiting        {"v":1,"id","version"}                 the visit that cursor:follow is in the middle of
//	records
//	  <account>
//	    <stream>
//	      <created><item id>   {"v":1,"n","fp","rules","kind","subject","stamp","at","changed","emitted","missing","removed","body"}
//	ids
//	  <account>
//	    <stream>
//	      <id key>   8 bytes for each record so named: the <created> of its key; see below
//	staged
//	  <account>
//	    <stream>
//	      <walk>
//	        final        the cursor that takes effect with the last staged item; present: the order of all that is here is known
//	        run          {"v":1,"began","asked","more","read"}  the run that ends with it; more: it goes on
//	        i<created><rank><item id>   {"v":1,"stamp","item"}  items whose order is known only then; rank: 8 bytes, big-endian
//	held
//	  <account>
//	    <stream>
//	      <created><item id>   {"v":1,"stamp","fp","rules","paths","item"}   differs from the record of this key only by keys that came or went
//	odd
//	  <account>
//	    <stream>
//	      <8 bytes of SHA-256 of the entry>      {"v":1,"reason","size","first","last","count"}   entries of pages that are no items; the bucket's own sequence counts them
//	      <8 bytes of SHA-256 of the entry>raw   bytes, the beginning of the entry
//	visits
//	  <account>
//	    <stream>
//	      things
//	        <visit id>   {"v":1,"created","due","planned","urgent","history","version","found","seen"}   what is visited one by one; the bucket's own sequence gives the versions
//	      plan
//	        u<due><visit id>   16 bytes: the <created> of the thing, 0: none, and when it was planned   urgent visits that are due some day
//	        v<due><visit id>   16 bytes: likewise   the others
//	events
//	  <sequence>  the event, exactly the line that every sink sends
//	sinks
//	  <sink>      {"v":1,"type","position","since","hold","gone","removed","retired","checkpoint","select"}
//	retries
//	  <sink>
//	    ahead                        sequences beyond the position that are done
//	    heads
//	      <queue key>                a head, in binary: see head    oldest waiting event of a lane's subject
//	    due
//	      <class><next><queue key>   empty   heads by class (1 byte) in order of their next attempt, but for those that go with the first of their batch
//	    followers
//	      <queue key>\x00<seq>       empty, or a uvarint: when it was first tried, in a batch   later events of a waiting subject
//	    waiting
//	      <seq>                      empty   what waits in the lanes Live and Replay; the first one holds the log, and the bucket's own sequence counts what waits in all lanes
//	    batches
//	      <first seq>                sequences   which events go in one request
//	dead
//	  <sink>
//	    <seq>     {"v":1,"reason","died","attempts","first","last","status","error","body"}   events that were given up, each the line of the log; the bucket's own sequence counts them
//	budgets
//	  <bucket>    {"v":1,…}, apiclient's own
//	stale
//	  <bucket>    what budgets held when the file was a backup, until it is saved anew
//	forgotten
//	  <n>
//	    <name>    a bucket of another place, which nobody sees any more: see Sweep
//
// A queue key is a partition key, and before it "!p/" in the lane Replay or "!d/" in
// the lane Retried. Sequences as a value are uvarints, each the difference to the one
// before.
//
// # Keys and locality
//
// A record's key begins with the item's creation time, since items are read in
// about that order and random keys cost several times as much. The item id
// alone still finds a record, through ids, whose small entries are written once
// per item. Their keys begin with the number that the item id ends in, if it does,
// and end in 8 bytes of its SHA-256. An item without a plausible creation time is
// filed under the time of its first sight.
package state

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
)

// ErrLocked says that another process has the state file open.
var ErrLocked = errors.New("the state file is locked")

// Config says where the state is.
type Config struct {
	Path        string
	LockTimeout time.Duration // how long to wait for another process to let go; default 1 s
	Observe     func(d time.Duration)

	// Commit runs every commit of what the file holds, that of Open which makes a
	// backup a file of its own included; nil: nothing stands in between. Tests
	// let commits fail with it, before they took effect and after, and look at the
	// file between two of them.
	Commit func(commit func() error) error
}

// DB is the open state file.
type DB struct {
	bolt    *bolt.DB
	observe func(time.Duration)
	commit  func(commit func() error) error
	writer  writer
	stamp   atomic.Uint64 // last reading stamp given out

	restored   bool // by this Open
	lastCommit time.Time

	mu       sync.Mutex
	watchers map[chan struct{}]struct{}
}

// Open opens the state file, creating it with mode 0600, and brings its schema up
// to date. A file that is locked, damaged, foreign or of a newer syncd is refused
// and left as it is; opening one that is up to date changes no byte of it. A copy
// made by Backup becomes a file of its own: see restore.
func Open(cfg Config) (*DB, error) {
	if cfg.LockTimeout == 0 {
		cfg.LockTimeout = time.Second
	}
	if cfg.Observe == nil {
		cfg.Observe = func(time.Duration) {}
	}
	if cfg.Commit == nil {
		cfg.Commit = func(commit func() error) error { return commit() }
	}
	if err := create(cfg.Path); err != nil {
		return nil, refused(cfg.Path, err)
	}
	var file *os.File
	var mark uint64
	b, err := bolt.Open(cfg.Path, 0o600, &bolt.Options{
		Timeout: cfg.LockTimeout,
		// The free list is rebuilt at open instead of being written with each
		// commit: a commit costs less, and a large file opens a little slower.
		NoFreelistSync: true,
		FreelistType:   bolt.FreelistMapType,
		// Address space, not memory: where the file outgrows its mapping, bbolt waits
		// for every reader, and copies all that the transaction has written.
		InitialMmapSize: 1 << 30,
		OpenFile: func(name string, _ int, _ os.FileMode) (_ *os.File, err error) {
			if file, err = openWhole(name, cfg.LockTimeout); err == nil {
				mark = markOf(file)
			}
			return file, err
		},
	})
	if err != nil {
		return nil, refused(cfg.Path, err)
	}
	db := &DB{
		bolt: b, observe: cfg.Observe, commit: cfg.Commit, watchers: make(map[chan struct{}]struct{}),
		writer: writer{bolt: b, file: file, transact: b.Update, listFrom: listFrom, dead: make(chan struct{})},
	}
	if err := db.migrate(); err != nil {
		b.Close()
		return nil, refused(cfg.Path, err)
	}
	err = b.View(func(tx *bolt.Tx) error {
		db.stamp.Store(number(tx, keyStamp))
		if ms := number(tx, keyCommit); ms != 0 {
			db.lastCommit = time.UnixMilli(int64(ms)).UTC()
		}
		db.restored = mark > restored(tx)
		return nil
	})
	if err == nil && db.restored {
		err = db.restore(mark, time.Now())
	}
	if err != nil {
		b.Close()
		return nil, refused(cfg.Path, err)
	}
	return db, nil
}

// Close waits for running transactions and closes the file.
func (db *DB) Close() error {
	db.writer.listFree(db.Size())
	return db.bolt.Close()
}

// Broken is closed when a write has failed with ErrBroken, whoever made it.
func (db *DB) Broken() <-chan struct{} { return db.writer.dead }

// Size returns the size of the state file in bytes.
func (db *DB) Size() int64 {
	var n int64
	// A View of a closed database has no size.
	_ = db.bolt.View(func(tx *bolt.Tx) error {
		n = tx.Size()
		return nil
	})
	return n
}

// Stamp returns a number larger than all it has returned before, also in earlier
// processes as far as a record, or a held or staged item carries it. Take one
// before sending a request: of two readings of an item, the one with the larger
// stamp is the later. It is not a time, so a clock that is set back does not make
// readings older.
func (db *DB) Stamp() uint64 { return db.stamp.Add(1) }

// update runs fn in a read-write transaction. When it returns nil the changes are
// on disk; after an error, or a crash before that, none of them is.
func (db *DB) update(fn func(tx *bolt.Tx) error) error {
	start := time.Now()
	err := db.commit(func() error {
		return db.writer.write(func(tx *bolt.Tx) error {
			if err := fn(tx); err != nil {
				return err
			}
			// Meta is small and lies in the root page, which every commit writes.
			return putNumber(tx, keyCommit, uint64(time.Now().UnixMilli()))
		})
	})
	if err == nil {
		db.observe(time.Since(start))
	}
	return err
}

// Watch returns a channel that receives after events have been committed; a
// value may stand for many commits. Stop ends it.
func (db *DB) Watch() (events <-chan struct{}, stop func()) {
	ch := make(chan struct{}, 1)
	db.mu.Lock()
	db.watchers[ch] = struct{}{}
	db.mu.Unlock()
	return ch, func() {
		db.mu.Lock()
		delete(db.watchers, ch)
		db.mu.Unlock()
	}
}

func (db *DB) wake() {
	db.mu.Lock()
	defer db.mu.Unlock()
	for ch := range db.watchers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}
