package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// openWhole opens the file for bbolt, locks it, and refuses one that bbolt could not
// open or walk, before anything is written to it.
func openWhole(name string, lockTimeout time.Duration) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0) // never made here: see create
	if err != nil {
		return nil, err
	}
	// bbolt locks the same descriptor once more, which costs nothing. Closing it
	// lets go.
	err = lock(f, lockTimeout)
	var fi fs.FileInfo
	if err == nil {
		fi, err = f.Stat()
	}
	if err == nil {
		err = verify(f, fi.Size())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// lockPause is how long to wait between two tries to lock the file.
const lockPause = 20 * time.Millisecond

// lock takes the lock that bbolt will ask for, so that nobody writes to the file
// while it is looked at. It returns bbolt's ErrTimeout where another process keeps
// it for as long as that.
func lock(f *os.File, timeout time.Duration) error {
	for deadline := time.Now().Add(timeout); ; time.Sleep(lockPause) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EINTR):
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return fmt.Errorf("lock it: %w", err)
		case !time.Now().Add(lockPause).Before(deadline):
			return bolterrors.ErrTimeout
		}
	}
}

// refused says what an operator can do about a file that cannot be opened. It was
// left as it is: nothing is written before a file is accepted.
func refused(path string, err error) error {
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("state file %s: %w by another process: stop it, or use the running daemon", path, ErrLocked)
	case errors.Is(err, ErrDamaged):
		return fmt.Errorf("state file %s is %w; it was left as it is: put a backup in its place, or, to begin anew, move it away or set state.path to another file", path, err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return fmt.Errorf("state file %s: %w: syncd must be able to write to it and to its directory", path, err)
	}
	return fmt.Errorf("state file %s: %w", path, err)
}

// create makes an empty state file where there is none. It is made whole under
// another name first: a full disk or a crash on the way leaves no file that a
// later start would have to take for a damaged one.
func create(path string) error {
	switch fi, err := os.Stat(path); {
	case err == nil && !fi.Mode().IsRegular(): // never opened: a pipe would wait for its other end
		return fmt.Errorf("it is a %s and no file: set state.path to a file", kind(fi.Mode()))
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if to, err := os.Readlink(path); err == nil {
		return fmt.Errorf("it is a link to %s, which does not exist: remove the link, or set state.path to where the file is to be", to)
	}
	dir := filepath.Dir(path)
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
		return fmt.Errorf("its directory %s does not exist: create it, or set state.path", dir)
	}
	f, err := os.CreateTemp(dir, filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // it has its own name by then, or never will
	if err := f.Close(); err != nil {
		return err
	}
	b, err := bolt.Open(f.Name(), 0o600, nil)
	if err != nil {
		return err
	}
	if err := b.Close(); err != nil {
		return err
	}
	// A link, unlike a rename, replaces nothing: another process may have been
	// faster, and may be using its file.
	if err := os.Link(f.Name(), path); errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil { // a file system without links
		if err := os.Rename(f.Name(), path); err != nil {
			return err
		}
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// kind names what is no regular file.
func kind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "directory"
	case m&fs.ModeNamedPipe != 0:
		return "pipe"
	case m&fs.ModeSocket != 0:
		return "socket"
	}
	return "device"
}
