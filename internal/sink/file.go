package sink

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"syncd/internal/event"
)

// FileConfig is the configuration of a File.
type FileConfig struct {
	// Path of the file. A symbolic link is followed, also to a file that does
	// not exist yet.
	Path string
	// Mode of a file that the sink creates, before the umask. Default 0640.
	Mode fs.FileMode
	// Rotate says when the file gets another name and a new one is begun.
	Rotate Rotate
	// Sync says what is on the disk when a position is committed.
	Sync SyncMode
}

// SyncMode says what is on the disk when a position is committed.
type SyncMode int

// The modes. A crash of the process leaves each event in the file once with all
// of them; they differ in what a power cut can do.
const (
	SyncCommit   SyncMode = iota // every Deliver ends with an fsync
	SyncInterval                 // one fsync serves all Delivers of a second; the position waits for it
	SyncNone                     // the position does not wait for the disk: a power cut can lose lines that it counts
)

// ErrTendFirst is the answer of a Lazy sink's Deliver that has taken nothing and
// is in order, and needs what was delivered to be synced and committed, and then
// to be tended, before it takes more.
var ErrTendFirst = errors.New("the file has been taken away: what is in it has to be committed before a new one is begun")

// File appends events to a file, one a line (NDJSON), each event once.
//
// What is committed is on the disk, but for SyncNone. What is on
// the disk and not committed is the business of Resume: a crash anywhere in
// Deliver leaves the committed bytes followed by a beginning of the lines that
// the log writes next, and Resume cuts exactly such bytes. Nothing else is ever
// cut: other people's bytes are left where they are or moved aside.
//
// Tend rotates (see Rotate), always between two commits: a file that gets
// another name holds committed lines only, and the new file gets its first line
// after the commit that knows it as empty. So each event is in exactly one of the
// files, whatever step a crash comes at.
//
// The file may be taken away while syncd runs. Renamed or removed, and replaced
// by nothing or by an empty file (logrotate with nocreate or create), or
// emptied (copytruncate), it is begun anew; what was committed stays in the
// file that was renamed. copytruncate loses what is written between its copy
// and its truncation; that race is logrotate's own.
//
// A File that has been resumed holds an exclusive flock on its file.
type File struct {
	path   string // absolute; symbolic links not yet followed
	mode   fs.FileMode
	rotate Rotate
	sync   SyncMode
	steps  steps

	// Owned by the one call that runs.
	file  *os.File      // locked; its name has no symbolic link at the end; nil before the first Resume
	info  fs.FileInfo   // of file when it was opened, to tell whether path still leads to it
	mark  fileMark      // where the file ends, as of the last Resume or Deliver that succeeded
	ready bool          // the file does end there: false from a failure to the next Resume
	w     *bufio.Writer // onto file, during Deliver
	dirty bool          // SyncInterval: file holds lines that were not synced, and so are not committed
	next  time.Time     // rotation has failed: not before
	told  string        // of the failures of rotation, so that each is told once
	attic attic         // the files that were rotated
}

var (
	_ Tender = (*File)(nil)
	_ Lazy   = (*File)(nil)
)

const (
	fileBuffer = 256 << 10 // one page of the log is one write, as a rule
	syncEvery  = time.Second
	maxLinks   = 40 // symbolic links in a row, as many as Linux follows
	maxOpens   = 10 // times that the file may be replaced while it is being opened
)

// NewFile checks that cfg can be the place of a file sink. It opens nothing and
// creates nothing: that is for Resume, which can be tried again when a disk
// that is missing now has come back.
func NewFile(cfg FileConfig) (*File, error) {
	if cfg.Path == "" {
		return nil, errors.New("file sink: no path")
	}
	if cfg.Mode == 0 {
		cfg.Mode = 0o640
	}
	if cfg.Mode&^fs.ModePerm != 0 {
		return nil, fmt.Errorf("file sink: mode %v is more than permissions", cfg.Mode)
	}
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("file sink: %w", err)
	}
	if _, err := resolve(path); err != nil {
		return nil, fmt.Errorf("file sink: %w", err)
	}
	if r := cfg.Rotate; r.Size < 0 || r.Every < 0 || r.Keep < 0 {
		return nil, fmt.Errorf("file sink: a limit of rotation is negative: %+v", r)
	}
	if cfg.Sync < SyncCommit || cfg.Sync > SyncNone {
		return nil, fmt.Errorf("file sink: sync mode %d", cfg.Sync)
	}
	return &File{path: path, mode: cfg.Mode, rotate: cfg.Rotate, sync: cfg.Sync, w: bufio.NewWriterSize(nil, fileBuffer)}, nil
}

// Deliver implements Sink. The end of ctx does not interrupt a write or an fsync
// that the disk holds up; nothing could say then what has become of it.
func (f *File) Deliver(ctx context.Context, events []event.Logged) error {
	if !f.ready {
		return f.notReady()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(events) == 0 {
		return nil
	}
	// Whatever goes wrong from here on leaves the end of the file to Resume.
	f.ready = false
	before, err := f.follow()
	if err != nil {
		f.ready = errors.Is(err, ErrTendFirst)
		return fmt.Errorf("append to %s: %w", f.path, err)
	}
	size, err := f.append(ctx, before, events)
	if err != nil {
		return fmt.Errorf("append events: %w", err)
	}
	// A crash from here to the commit of Checkpoint leaves whole lines behind
	// the committed length. The log hands them to Resume as its next lines:
	// they are cut and written once more.
	mark, err := f.readMark(size)
	if err != nil {
		return fmt.Errorf("append events: read back: %w", err)
	}
	mark.First, mark.Begun = f.mark.First, f.mark.Begun
	if before == 0 || mark.Begun == 0 {
		mark.First, mark.Begun = events[0].Sequence, time.Now().UnixMilli()
	}
	mark.Last = events[len(events)-1].Sequence
	f.mark, f.ready, f.dirty = mark, true, f.sync == SyncInterval
	return nil
}

func (f *File) notReady() error {
	return fmt.Errorf("%s has to be resumed first", f.path)
}

// Sync implements Lazy.
func (f *File) Sync(context.Context) error {
	if !f.ready {
		return f.notReady()
	}
	if !f.dirty {
		return nil
	}
	// The file may have been renamed, or emptied, since: the lines are where they
	// were written, and what somebody took away had arrived. The next Tend sees it.
	if err := f.steps.do("sync", f.file.Sync); err != nil {
		f.ready = false
		return fmt.Errorf("append events: %w", err)
	}
	f.dirty = false
	return nil
}

// SyncEvery implements Lazy.
func (f *File) SyncEvery() time.Duration {
	if f.sync == SyncInterval {
		return syncEvery
	}
	return 0
}

// append writes the events to the end of the file, which is size bytes long, and
// returns its length when they are there, with SyncCommit on the disk.
//
// A crash, a full disk or the end of ctx in here leaves a beginning of these
// lines, perhaps torn inside one, or nothing of them.
func (f *File) append(ctx context.Context, size int64, events []event.Logged) (int64, error) {
	f.w.Reset((*fileWriter)(f)) // which also forgets an earlier error
	for i := range events {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		// bufio passes a long line on without copying it, and keeps the error
		// of a write for Flush.
		f.w.Write(events[i].JSON)
		f.w.WriteByte('\n')
		size += int64(len(events[i].JSON)) + 1
	}
	if err := f.w.Flush(); err != nil {
		return 0, err
	}
	if f.sync == SyncCommit {
		if err := f.steps.do("sync", f.file.Sync); err != nil {
			return 0, err
		}
	}
	// Opened with O_APPEND, a write overwrites nobody's bytes, but somebody's
	// can have come first. Resume will find them before our lines.
	info, err := f.file.Stat()
	if err != nil {
		return 0, err
	}
	if info.Size() != size {
		return 0, f.disturbed(info.Size(), size)
	}
	return size, nil
}

// fileWriter is a File to its bufio.Writer.
type fileWriter File

func (f *fileWriter) Write(b []byte) (n int, err error) {
	err = f.steps.do("write", func() (err error) {
		n, err = f.file.Write(b)
		return err
	})
	return n, err
}

func (f *File) disturbed(is, want int64) error {
	return fmt.Errorf("%s is %d bytes long instead of %d: somebody else has changed it", f.path, is, want)
}

// follow makes sure that f.file is still the file at path and ends where the
// last call left it, or begins a new one where the old was taken away, and
// returns where it ends. All other changes are errors, so that Resume is
// called: it alone knows what the log writes next, and can tell our bytes from
// others.
//
// A crash between here and the commit of the first lines in the new file leaves
// a checkpoint that describes the old file, and a file with a beginning of the
// log's next lines, or none: Resume cuts that back to nothing.
func (f *File) follow() (int64, error) {
	before := f.file
	info, same := f.look()
	if !same && f.dirty {
		return 0, ErrTendFirst
	}
	if !same {
		var err error
		if info, err = f.open(); err != nil {
			return 0, err
		}
		same = f.file == before
	}
	switch size := info.Size(); {
	case same && size == f.mark.Size:
		return size, nil
	case size == 0 && f.dirty:
		return 0, ErrTendFirst
	case size == 0:
		return 0, nil // all that we wrote to the old file is committed
	case same:
		return 0, f.disturbed(size, f.mark.Size)
	default:
		return 0, errors.New("another file, which is not empty, has taken its place")
	}
}

// look reports whether path still leads to f.file, and what it is now.
func (f *File) look() (fs.FileInfo, bool) {
	if f.file == nil {
		return nil, false
	}
	info, err := os.Stat(f.path)
	return info, err == nil && os.SameFile(info, f.info)
}

// open makes f.file the regular file that path leads to now, created if need
// be, locked, and with its directory entry on the disk. It returns the file's
// present state. When it fails, f.file is as before.
func (f *File) open() (fs.FileInfo, error) {
	for range maxOpens {
		// Also right after opening: somebody may have replaced the file before we
		// had it locked.
		if info, same := f.look(); same {
			return info, nil
		}
		file, err := f.steps.openLocked(f.path, f.mode)
		if err != nil {
			return nil, err
		}
		info, err := file.Stat()
		if err == nil {
			// Each time, not only after creating the file: whoever created it
			// may have died before the entry was safe.
			err = f.steps.syncDir(filepath.Dir(file.Name()))
		}
		if err != nil {
			file.Close()
			return nil, err
		}
		f.release()
		f.file, f.info = file, info
	}
	return nil, fmt.Errorf("%s is replaced faster than it can be opened", f.path)
}

// release gives up the file and its lock. There is nothing in it to lose: what
// counts has been synced.
func (f *File) release() {
	if f.file != nil {
		f.file.Close()
		f.file = nil
	}
}

// Close implements Sink. It breaks off a compression, which is begun anew at the
// next start.
func (f *File) Close() error {
	f.ready, f.dirty = false, false
	f.attic.stop()
	f.w.Reset(nil)
	f.release()
	return nil
}
