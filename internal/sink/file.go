package sink

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"syncd/internal/event"
)

// FileConfig is the configuration of a File.
type FileConfig struct {
	// Path of the file. A symbolic link is followed, also to a file that does
	// not exist yet.
	Path string
	// Mode of a file that the sink creates, before the umask. Default 0640.
	Mode fs.FileMode
}

// File appends events to a file, one a line (NDJSON), each event once.
//
// Deliver returns after fsync, so what is committed is on the disk. What is on
// the disk and not committed is the business of Resume: a crash anywhere in
// Deliver leaves the committed bytes followed by a beginning of the lines that
// the log writes next, and Resume cuts exactly such bytes. Nothing else is ever
// cut: other people's bytes are left where they are or moved aside.
//
// The file may be taken away while syncd runs. Renamed or removed, and replaced
// by nothing or by an empty file (logrotate with nocreate or create), or
// emptied (copytruncate), it is begun anew; what was committed stays in the
// file that was renamed. copytruncate loses what is written between its copy
// and its truncation; that race is logrotate's own.
//
// A File that has been resumed holds an exclusive flock on its file.
type File struct {
	path string // absolute; symbolic links not yet followed
	mode fs.FileMode

	// Owned by the one call that runs.
	file  *os.File      // locked; its name has no symbolic link at the end; nil before the first Resume
	info  fs.FileInfo   // of file when it was opened, to tell whether path still leads to it
	mark  fileMark      // where the file ends, as of the last Resume or Deliver that succeeded
	ready bool          // the file does end there: false from a failure to the next Resume
	w     *bufio.Writer // onto file, during Deliver
}

var _ Resumer = (*File)(nil)

const (
	fileBuffer = 256 << 10 // one page of the log is one write, as a rule
	maxLinks   = 40        // symbolic links in a row, as many as Linux follows
	maxOpens   = 10        // times that the file may be replaced while it is being opened
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
	return &File{path: path, mode: cfg.Mode, w: bufio.NewWriterSize(nil, fileBuffer)}, nil
}

// Deliver implements Sink. The end of ctx does not interrupt a write or an fsync
// that the disk holds up; nothing could say then what has become of it.
func (f *File) Deliver(ctx context.Context, events []event.Logged) error {
	if !f.ready {
		return fmt.Errorf("append to %s: it has to be resumed first", f.path)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(events) == 0 {
		return nil
	}
	// Whatever goes wrong from here on leaves the end of the file to Resume.
	f.ready = false
	size, err := f.follow()
	if err != nil {
		return fmt.Errorf("append to %s: %w", f.path, err)
	}
	size, err = f.append(ctx, size, events)
	if err != nil {
		return fmt.Errorf("append events: %w", err)
	}
	// A crash from here to the commit of Checkpoint leaves whole lines behind
	// the committed length. The log hands them to Resume as its next lines:
	// they are cut and written once more.
	mark, err := readMark(f.file, size)
	if err != nil {
		return fmt.Errorf("append events: read back: %w", err)
	}
	f.mark, f.ready = mark, true
	return nil
}

// append writes the events to the end of the file, which is size bytes long, and
// returns its length when they are on the disk.
//
// A crash, a full disk or the end of ctx in here leaves a beginning of these
// lines, perhaps torn inside one, or nothing of them.
func (f *File) append(ctx context.Context, size int64, events []event.Logged) (int64, error) {
	f.w.Reset(f.file) // which also forgets an earlier error
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
	if err := f.file.Sync(); err != nil {
		return 0, err
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
	info, err := f.open()
	switch {
	case err != nil:
		return 0, err
	case f.file == before && info.Size() == f.mark.Size:
		return f.mark.Size, nil
	case info.Size() == 0:
		return 0, nil // all that we wrote to the old file is committed
	case f.file == before:
		return 0, f.disturbed(info.Size(), f.mark.Size)
	default:
		return 0, errors.New("another file, which is not empty, has taken its place")
	}
}

// open makes f.file the regular file that path leads to now, created if need
// be, locked, and with its directory entry on the disk. It returns the file's
// present state. When it fails, f.file is as before.
func (f *File) open() (fs.FileInfo, error) {
	for range maxOpens {
		if f.file != nil {
			// Also right after opening: somebody may have replaced the file
			// before we had it locked.
			if info, err := os.Stat(f.path); err == nil && os.SameFile(info, f.info) {
				return info, nil
			}
		}
		file, err := openLocked(f.path, f.mode)
		if err != nil {
			return nil, err
		}
		info, err := file.Stat()
		if err == nil {
			// Each time, not only after creating the file: whoever created it
			// may have died before the entry was safe.
			err = syncDir(filepath.Dir(file.Name()))
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

// Close implements Sink.
func (f *File) Close() error {
	f.ready = false
	f.w.Reset(nil)
	f.release()
	return nil
}

// openLocked opens or creates the regular file that path leads to and takes
// its lock.
func openLocked(path string, mode fs.FileMode) (*os.File, error) {
	target, err := resolve(path)
	if err != nil {
		return nil, err
	}
	// O_NONBLOCK means nothing to a regular file; without it, a FIFO put here
	// since resolve looked would block us for good.
	file, err := os.OpenFile(target, os.O_RDWR|os.O_CREATE|os.O_APPEND|syscall.O_NONBLOCK, mode)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil {
		err = checkRegular(target, info)
	}
	if err == nil {
		err = lock(file)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// lock takes the lock that keeps a second syncd, or a second sink, away from
// the file. The kernel drops it with the process, so it needs no cleaning up.
func lock(file *os.File) error {
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EWOULDBLOCK):
			return fmt.Errorf("%s is locked by another process, or by another sink of this one", file.Name())
		case err != nil:
			return fmt.Errorf("lock %s: %w", file.Name(), err)
		}
		return nil
	}
}

// resolve follows symbolic links at the end of path up to a regular file or to
// a name that is free. filepath.EvalSymlinks would not do: it knows no link to
// a file that is still to be created.
func resolve(path string) (string, error) {
	target := path
	for range maxLinks {
		info, err := os.Lstat(target)
		if errors.Is(err, fs.ErrNotExist) {
			return target, nil
		}
		if err != nil {
			return "", err
		}
		if info.Mode().Type() != fs.ModeSymlink {
			return target, checkRegular(target, info)
		}
		link, err := os.Readlink(target)
		if err != nil {
			return "", err
		}
		if !filepath.IsAbs(link) {
			// Joined but not cleaned: .. behind a linked directory is the
			// kernel's to resolve.
			link = filepath.Dir(target) + string(filepath.Separator) + link
		}
		target = link
	}
	return "", fmt.Errorf("%s: too many symbolic links", path)
}

// checkRegular refuses what cannot be cut back or would block.
func checkRegular(path string, info fs.FileInfo) error {
	what := "a device or a socket"
	switch info.Mode().Type() {
	case 0:
		return nil
	case fs.ModeDir:
		what = "a directory"
	case fs.ModeNamedPipe:
		what = "a FIFO"
	}
	return fmt.Errorf("%s is %s; a file sink needs a regular file", path, what)
}

// syncDir makes the names in a directory safe. File systems that cannot sync a
// directory have nothing to make safe, or no means to.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}
