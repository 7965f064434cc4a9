package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
)

// errTruncated says that a bbolt file is shorter than its last commit left it.
var errTruncated = errors.New("the file is cut short")

// openWhole opens the file for bbolt and refuses one that has lost its end: bbolt
// maps the file by the size that its meta page tells, and reading behind the end
// of it kills the process.
func openWhole(name string, flag int, mode os.FileMode) (*os.File, error) {
	f, err := os.OpenFile(name, flag, mode)
	if err != nil {
		return nil, err
	}
	// In this order: a file that another process has open only grows.
	want := usedBytes(f)
	fi, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if fi.Size() < want {
		return nil, errors.Join(fmt.Errorf("%w: it has %d of at least %d bytes", errTruncated, fi.Size(), want), f.Close())
	}
	return f, nil
}

// usedBytes is how much of the file its newest valid meta page speaks of; 0: it
// has none, and bbolt will say so itself.
//
// A meta page is a header of 16 bytes, then magic, version, page size and flags
// of 4 bytes each, root (page and sequence), free list, page count, transaction
// and checksum of 8 bytes each, in the byte order of the machine.
func usedBytes(f *os.File) int64 {
	const header, length = 16, 64
	var newest, used uint64
	pageSize := int64(os.Getpagesize())
	for _, at := range []int64{0, pageSize} {
		var b [header + length]byte
		if _, err := f.ReadAt(b[:], at); err != nil {
			continue
		}
		m := b[header:]
		order := binary.NativeEndian
		sum := fnv.New64a()
		sum.Write(m[:length-8])
		if order.Uint32(m) != 0xED0CDAED || order.Uint64(m[length-8:]) != sum.Sum64() {
			continue
		}
		if tx := order.Uint64(m[48:]); tx >= newest {
			newest, used = tx, order.Uint64(m[40:])*uint64(order.Uint32(m[8:]))
		}
	}
	return int64(used)
}

// create makes an empty state file where there is none. It is made whole under
// another name first: a full disk or a crash on the way leaves no file that a
// later start would have to take for a damaged one.
func create(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil // there, or bbolt will say what is wrong with it
	}
	dir := filepath.Dir(path)
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
