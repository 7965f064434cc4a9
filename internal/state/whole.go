package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
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
	fi, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if want := usedBytes(f); fi.Size() < want {
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
