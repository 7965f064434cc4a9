package sink

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// steps runs what changes something on the disk, so that a test can let a process
// die at each step, or a step fail. Nil just runs it.
type steps func(step string, op func() error) error

func (s steps) do(step string, op func() error) error {
	if s == nil {
		return op()
	}
	return s(step, op)
}

// remove removes a file; one that is gone already is no error.
func (s steps) remove(name string) error {
	err := s.do("remove", func() error { return os.Remove(name) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// rename gives the file at old the first of the names that is free, and returns
// it.
//
// rename(2) would overwrite what has the name. So the name is claimed first, by
// an empty file that only its creator gets. A crash in between leaves that empty
// file, which the next rename to this name takes.
func (s steps) rename(old string, names []string) (string, error) {
	for _, name := range names {
		err := s.do("claim", func() error { return claim(name) })
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if err := s.do("rename", func() error { return os.Rename(old, name) }); err != nil {
			return "", err
		}
		return name, nil
	}
	return "", fmt.Errorf("%s: %w", names[0], fs.ErrExist)
}

func claim(name string) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		return file.Close()
	}
	if info, e := os.Lstat(name); e == nil && info.Mode().IsRegular() && info.Size() == 0 {
		return nil
	}
	return err
}

// openLocked opens or creates the regular file that path leads to and takes
// its lock.
func (s steps) openLocked(path string, mode fs.FileMode) (*os.File, error) {
	target, err := resolve(path)
	if err != nil {
		return nil, err
	}
	var file *os.File
	err = s.do("create", func() (err error) {
		file, err = openRegular(target, os.O_CREATE|os.O_APPEND, mode)
		return err
	})
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// openRegular opens a regular file for reading and writing and takes its lock.
func openRegular(path string, flags int, mode fs.FileMode) (*os.File, error) {
	// O_NONBLOCK means nothing to a regular file; without it, a FIFO put here
	// since somebody looked would block us for good.
	file, err := os.OpenFile(path, os.O_RDWR|flags|syscall.O_NONBLOCK, mode)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil {
		err = checkRegular(path, info)
	}
	if err == nil {
		err = lock(file, syscall.LOCK_EX)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// lock takes the lock that keeps a second syncd, or a second sink, away from
// the file: LOCK_EX to write it, or LOCK_SH for a file that is open for reading, which
// is all that a network file system gives it. The kernel drops it with the process, so
// it needs no cleaning up.
func lock(file *os.File, how int) error {
	for {
		err := syscall.Flock(int(file.Fd()), how|syscall.LOCK_NB)
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
func (s steps) syncDir(dir string) error {
	return s.do("sync directory", func() error { return syncDir(dir) })
}

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
