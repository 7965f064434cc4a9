package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"

	bolt "go.etcd.io/bbolt"
)

// ErrDamaged says that a file is no bbolt file, or one that has lost its end or
// whose pages contradict each other.
var ErrDamaged = errors.New("damaged or not syncd's")

// The layout of a bbolt file, in the byte order of the machine. The file is a row
// of pages. Each begins with its id (8 bytes), flags (2), count of elements (2)
// and the number of pages behind it that belong to it (4). Pages 0 and 1 are
// metas. A branch or leaf page goes on with a table of its elements:
//
//	branch  pos 4, ksize 4, page 8               the key is pos bytes behind the element
//	leaf    flags 4, pos 4, ksize 4, vsize 4     likewise, and the value behind it
//
// The value of a leaf element that is a bucket is the id of its root page (8
// bytes) and its sequence (8). With root 0 a leaf page follows, the whole bucket.
const (
	pageHeader   = 16
	elementSize  = 16
	bucketHeader = 16

	branchFlag, leafFlag, freelistFlag = 0x01, 0x02, 0x10
	bucketFlag                         = 0x01 // of a leaf element

	noFreelist = math.MaxUint64

	// maxPages bounds the memory of a verification to 32 MiB, at a bit a page: a
	// file of a terabyte and more.
	maxPages = 1 << 28
	// maxDepth bounds the pages between the root and a leaf, through nested buckets
	// too. A branch has two children and more, so trees of more than 30 levels do
	// not fit into a file, and ours nest four deep. Both bbolt and the verifier's
	// memory would grow with what damaged pages claim.
	maxDepth = 256
)

// verify reads the tree of a bbolt file and returns the first thing that is wrong
// with it, which wraps ErrDamaged unless the file cannot be read.
//
// bbolt takes the bytes of its pages for lengths and addresses: damaged ones kill
// the process at open, in a goroutine of bbolt's where nobody can recover. What
// passes here, bbolt can open and walk. Keys and values can be damaged all the
// same: bbolt has no checksum over them.
//
// It uses a bit of memory for each page of the file and one page for each level
// of the tree, and reads each page once, but no long values.
func verify(f io.ReaderAt, size int64) error {
	m, err := readMeta(f, size)
	if err != nil {
		return err
	}
	v := &verifier{f: f, meta: m, used: make([]uint64, (m.pages+63)/64)}
	if err := v.tree(); err != nil {
		return err
	}
	return v.freelist()
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrDamaged}, args...)...)
}

// A meta page has, behind its header, magic, version, page size and flags of 4
// bytes each, then root page, root sequence, free list, number of pages,
// transaction and checksum of 8 bytes each.
const metaLength = 64

// metaSum is the checksum that belongs at the end of a meta.
func metaSum(meta []byte) uint64 {
	sum := fnv.New64a()
	sum.Write(meta[:metaLength-8])
	return sum.Sum64()
}

// validMeta returns the meta in a page, which it shares; nil: it is none that bbolt
// takes for valid.
func validMeta(page []byte) []byte {
	if len(page) < pageHeader+metaLength {
		return nil
	}
	m, order := page[pageHeader:pageHeader+metaLength], binary.NativeEndian
	if order.Uint32(m) != 0xED0CDAED || order.Uint32(m[4:]) != 2 || order.Uint64(m[metaLength-8:]) != metaSum(m) {
		return nil
	}
	return m
}

// newestMeta returns the meta that bbolt goes by: the valid one with the higher
// transaction. The other may be torn, by a power cut while it was written. Nil:
// there is none, or the two do not go together.
func newestMeta(f io.ReaderAt) []byte {
	at := func(at int64) []byte {
		var page [pageHeader + metaLength]byte
		if _, err := f.ReadAt(page[:], at); err != nil {
			return nil
		}
		return validMeta(page[:])
	}
	pageSize := func(m []byte) int64 { return int64(binary.NativeEndian.Uint32(m[8:])) }
	txid := func(m []byte) uint64 { return binary.NativeEndian.Uint64(m[48:]) }
	m := at(0)
	for second := int64(1024); m == nil && second <= 1024<<14; second *= 2 { // where bbolt looks for it
		if m = at(second); m != nil && pageSize(m) != second {
			return nil
		}
	}
	if m == nil {
		return nil
	}
	size := pageSize(m)
	if size < 4096 || size > 64<<10 || size&(size-1) != 0 { // no machine has others
		return nil
	}
	if second := at(size); second != nil && txid(second) > txid(m) {
		m = second
	}
	if pageSize(m) != size {
		return nil
	}
	return m
}

// meta is what the verifier needs of one.
type meta struct {
	pageSize              int64
	root, freelist, pages uint64
}

func readMeta(f io.ReaderAt, size int64) (meta, error) {
	if size == 0 {
		return meta{}, damaged("the file is empty")
	}
	raw, order := newestMeta(f), binary.NativeEndian
	if raw == nil {
		return meta{}, damaged("its first two pages are not those of a bbolt file")
	}
	m := meta{pageSize: int64(order.Uint32(raw[8:])), root: order.Uint64(raw[16:]), freelist: order.Uint64(raw[32:]), pages: order.Uint64(raw[40:])}
	if m.pages > maxPages {
		return meta{}, damaged("it has %d pages, and %d at most can be opened", m.pages, maxPages)
	}
	if want := int64(max(m.pages, 2)) * m.pageSize; size < want {
		return meta{}, damaged("the file is cut short: it has %d of at least %d bytes", size, want)
	}
	return m, nil
}

type verifier struct {
	f     io.ReaderAt
	meta  meta
	used  []uint64 // a bit for each page that something has
	stack []level
}

// level is a page on the way down to the one that is being read.
type level struct {
	page
	next     int    // the element to look at
	root     int    // where in the stack the root of its bucket is
	leaves   int    // of a root: how far below it the leaves are; 0: none was seen
	low      []byte // the key that leads here; nil: of a root
	high     []byte // the one after that, which its keys are below; nil: unbounded
	previous []byte
}

// page is a branch or leaf page, or the leaf page inside the value of a bucket.
type page struct {
	v          *verifier
	id         uint64 // of the page that it is, or is in
	at, length int64  // where in the file
	head       []byte // its first bytes
	count      int
	branch     bool
}

// read reads n bytes, which the caller knows to be few, at an offset that lies in
// the page. They stay valid while the page is in use.
func (p *page) read(at, n int64) ([]byte, error) {
	if at+n <= int64(len(p.head)) {
		return p.head[at : at+n : at+n], nil
	}
	b := make([]byte, n)
	return b, p.v.readAt(p.id, b, p.at+at)
}

func (v *verifier) readAt(id uint64, b []byte, at int64) error {
	_, err := v.f.ReadAt(b, at)
	if errors.Is(err, io.EOF) {
		return damaged("page %d: the file ends in it", id)
	} else if err != nil {
		return fmt.Errorf("read page %d: %w", id, err)
	}
	return nil
}

// claim reads the header of a page into b, whose length is a page, and marks it
// and what follows it as used.
func (v *verifier) claim(id uint64, b []byte) (flags uint16, count int, length int64, err error) {
	if id < 2 || id >= v.meta.pages {
		return 0, 0, 0, damaged("page %d is needed, and the pages end at %d", id, v.meta.pages)
	}
	if err := v.readAt(id, b, int64(id)*v.meta.pageSize); err != nil {
		return 0, 0, 0, err
	}
	order := binary.NativeEndian
	if own := order.Uint64(b); own != id {
		return 0, 0, 0, damaged("page %d says that it is page %d", id, own)
	}
	more := uint64(order.Uint32(b[12:]))
	if more >= v.meta.pages-id {
		return 0, 0, 0, damaged("page %d has %d more, and the pages end at %d", id, more, v.meta.pages)
	}
	for i := id; i <= id+more; i++ {
		if err := v.use(i); err != nil {
			return 0, 0, 0, err
		}
	}
	return order.Uint16(b[8:]), int(order.Uint16(b[10:])), int64(more+1) * v.meta.pageSize, nil
}

func (v *verifier) use(id uint64) error {
	if v.used[id/64]&(1<<(id%64)) != 0 {
		return damaged("page %d is used twice", id)
	}
	v.used[id/64] |= 1 << (id % 64)
	return nil
}

// tree goes through all pages that the root leads to. It keeps its way itself:
// nothing in the file can make it recurse.
func (v *verifier) tree() error {
	if err := v.descend(v.meta.root, 0, nil, nil); err != nil {
		return err
	}
	for len(v.stack) > 0 {
		l := &v.stack[len(v.stack)-1]
		if l.next == l.count {
			v.stack = v.stack[:len(v.stack)-1]
			continue
		}
		if err := v.element(l); err != nil {
			return err
		}
	}
	return nil
}

// descend begins with a page of keys in [low, high), in the bucket whose root is at
// that place in the stack, perhaps itself.
func (v *verifier) descend(id uint64, root int, low, high []byte) error {
	n := len(v.stack)
	if n == maxDepth {
		return damaged("page %d is more than %d pages below the root", id, maxDepth)
	}
	if n == cap(v.stack) {
		v.stack = append(v.stack, level{})
	}
	v.stack = v.stack[:n+1]
	head := v.stack[n].head // of the page that was here before
	if head == nil {
		head = make([]byte, v.meta.pageSize)
	}
	flags, count, length, err := v.claim(id, head)
	if err != nil {
		return err
	}
	l := level{
		page: page{v: v, id: id, at: int64(id) * v.meta.pageSize, length: length, head: head, count: count, branch: flags == branchFlag},
		root: root, low: low, high: high,
	}
	if flags != branchFlag && flags != leafFlag {
		return damaged("page %d is neither branch nor leaf: its flags are %#x", id, flags)
	}
	// bbolt reads the first element of a branch without looking whether there is one.
	if count == 0 && (l.branch || n != root) {
		return damaged("page %d is empty", id)
	}
	v.stack[n] = l
	if top := &v.stack[root]; !l.branch && top.leaves == 0 {
		top.leaves = n - root + 1
	} else if !l.branch && top.leaves != n-root+1 {
		return damaged("page %d is a leaf where there are branches beside it", id) // bbolt would merge them
	}
	return l.table()
}

// table checks that the table of elements fits into the page.
func (p *page) table() error {
	if end := pageHeader + int64(p.count)*elementSize; end > p.length {
		return damaged("page %d has %d elements in %d bytes", p.id, p.count, p.length)
	}
	return nil
}

// element looks at the next element of a page, and goes down to where it leads.
func (v *verifier) element(l *level) error {
	e, err := l.element(l.next)
	if err != nil {
		return err
	}
	if err := l.order(l.next, e.key); err != nil {
		return err
	}
	l.previous = e.key
	l.next++
	switch {
	case l.branch:
		high := l.high
		if l.next < l.count {
			after, err := l.element(l.next)
			if err != nil {
				return err
			}
			high = after.key
		}
		return v.descend(e.child, l.root, e.key, high)
	case e.bucket:
		return v.bucket(&l.page, e)
	}
	return nil
}

// order checks that keys ascend within the bounds of the page. The first is the one
// that leads here: bbolt looks it up when it writes the page.
func (l *level) order(i int, key []byte) error {
	if i > 0 && bytes.Compare(l.previous, key) >= 0 {
		return damaged("page %d: key %d is not above the one before", l.id, i)
	}
	if i == 0 && l.low != nil && !bytes.Equal(key, l.low) || l.high != nil && bytes.Compare(key, l.high) >= 0 {
		return damaged("page %d: key %d is not what the page above says", l.id, i)
	}
	return nil
}

type element struct {
	key       []byte
	child     uint64 // of a branch
	bucket    bool
	at, vsize int64 // where in the page its value is
}

// element reads one element and its key.
func (p *page) element(i int) (element, error) {
	at := pageHeader + int64(i)*elementSize
	b, err := p.read(at, elementSize)
	if err != nil {
		return element{}, err
	}
	order := binary.NativeEndian
	var e element
	var pos, ksize int64
	if p.branch {
		pos, ksize, e.child = int64(order.Uint32(b)), int64(order.Uint32(b[4:])), order.Uint64(b[8:])
	} else {
		flags := order.Uint32(b)
		if flags > bucketFlag {
			return element{}, damaged("page %d: element %d has the flags %#x", p.id, i, flags)
		}
		e.bucket = flags == bucketFlag
		pos, ksize, e.vsize = int64(order.Uint32(b[4:])), int64(order.Uint32(b[8:])), int64(order.Uint32(b[12:]))
	}
	e.at = at + pos + ksize
	if at+pos < pageHeader+int64(p.count)*elementSize || e.at+e.vsize > p.length || ksize == 0 || ksize > bolt.MaxKeySize || e.vsize > bolt.MaxValueSize {
		return element{}, damaged("page %d: element %d is at %d, with %d and %d bytes", p.id, i, pos, ksize, e.vsize)
	}
	e.key, err = p.read(at+pos, ksize)
	return e, err
}

// bucket goes down into a bucket, or checks the page inside its value.
func (v *verifier) bucket(p *page, e element) error {
	if e.vsize < bucketHeader {
		return damaged("page %d: bucket %q has %d bytes", p.id, e.key, e.vsize)
	}
	b, err := p.read(e.at, bucketHeader)
	if err != nil {
		return err
	}
	if root := binary.NativeEndian.Uint64(b); root != 0 {
		return v.descend(root, len(v.stack), nil, nil)
	}
	in := level{page: page{v: v, id: p.id, at: p.at + e.at + bucketHeader, length: e.vsize - bucketHeader}}
	if in.length < pageHeader {
		return damaged("page %d: bucket %q has %d bytes", p.id, e.key, e.vsize)
	}
	if end := e.at + e.vsize; end <= int64(len(p.head)) {
		in.head = p.head[e.at+bucketHeader : end]
	}
	if b, err = in.read(0, pageHeader); err != nil {
		return err
	}
	if flags := binary.NativeEndian.Uint16(b[8:]); flags != leafFlag {
		return damaged("page %d: bucket %q is no leaf: its flags are %#x", p.id, e.key, flags)
	}
	in.count = int(binary.NativeEndian.Uint16(b[10:]))
	if err := in.table(); err != nil {
		return err
	}
	for i := range in.count {
		inner, err := in.element(i)
		if err != nil {
			return err
		}
		if inner.bucket {
			return damaged("page %d: bucket %q has another inside its page", p.id, e.key)
		}
		if err := in.order(i, inner.key); err != nil {
			return err
		}
		in.previous = inner.key
	}
	return nil
}

// freelist checks the list of free pages, where the last commit has left one. A
// page that is both free and used would be written over.
func (v *verifier) freelist() error {
	if v.meta.freelist == noFreelist {
		return nil
	}
	b := make([]byte, v.meta.pageSize)
	id := v.meta.freelist
	flags, count, length, err := v.claim(id, b)
	if err != nil {
		return err
	}
	if flags != freelistFlag {
		return damaged("page %d is not the list of free pages: its flags are %#x", id, flags)
	}
	begin, n := int64(pageHeader), uint64(count)
	if count == 0xFFFF { // then the first id is the count
		n, begin = binary.NativeEndian.Uint64(b[begin:]), begin+8
	}
	if n > uint64(length-begin)/8 {
		return damaged("page %d lists %d free pages in %d bytes", id, n, length)
	}
	for list := io.NewSectionReader(v.f, int64(id)*v.meta.pageSize+begin, int64(n)*8); n > 0; {
		piece := b[:8*min(n, uint64(len(b)/8))]
		if _, err := io.ReadFull(list, piece); err != nil {
			return fmt.Errorf("read page %d: %w", id, err)
		}
		for ; len(piece) > 0; piece, n = piece[8:], n-1 {
			free := binary.NativeEndian.Uint64(piece)
			if free < 2 || free >= v.meta.pages {
				return damaged("page %d is listed as free, and the pages end at %d", free, v.meta.pages)
			}
			if err := v.use(free); err != nil {
				return err
			}
		}
	}
	return nil
}
