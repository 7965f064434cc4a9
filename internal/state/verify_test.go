package state_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"syncd/internal/state"
)

// entry is an element of a page by hand: of a branch with child, else of a leaf.
type entry struct {
	key    string
	child  uint64
	bucket bool
	value  []byte
}

func root(id uint64) []byte { return binary.NativeEndian.AppendUint64(make([]byte, 0, 16), id)[:16] }

// pageOfFile is a page of entries. With id 0 it is one inside the value of a bucket.
func pageOfFile(id uint64, entries ...entry) []byte {
	order := binary.NativeEndian
	p := order.AppendUint64(nil, id)
	flags := uint16(2)
	if len(entries) > 0 && entries[0].child != 0 {
		flags = 1
	}
	p = order.AppendUint16(p, flags)
	p = order.AppendUint16(p, uint16(len(entries)))
	p = order.AppendUint32(p, 0)
	var data []byte
	for i, e := range entries {
		pos := uint32(16*(len(entries)-i) + len(data))
		if flags == 1 {
			p = order.AppendUint32(p, pos)
			p = order.AppendUint32(p, uint32(len(e.key)))
			p = order.AppendUint64(p, e.child)
		} else {
			bucket := uint32(0)
			if e.bucket {
				bucket = 1
			}
			p = order.AppendUint32(p, bucket)
			p = order.AppendUint32(p, pos)
			p = order.AppendUint32(p, uint32(len(e.key)))
			p = order.AppendUint32(p, uint32(len(e.value)))
		}
		data = append(append(data, e.key...), e.value...)
	}
	return append(p, data...)
}

// freeList is a page of free pages that says to have count of them.
func freeList(id uint64, count uint16, free ...uint64) []byte {
	p := pageOfFile(id)
	binary.NativeEndian.PutUint16(p[8:], 0x10)
	binary.NativeEndian.PutUint16(p[10:], count)
	for _, f := range free {
		p = binary.NativeEndian.AppendUint64(p, f)
	}
	return p
}

// handmade is a file whose root is page 2, with its list of free pages, or none.
func handmade(freelist uint64, pages ...[]byte) []byte {
	raw := make([]byte, (2+len(pages))*pageSize)
	order := binary.NativeEndian
	for i := range 2 {
		p := raw[i*pageSize:]
		order.PutUint64(p, uint64(i))
		order.PutUint16(p[8:], 4)
		m := p[16:]
		order.PutUint32(m, 0xED0CDAED)
		order.PutUint32(m[4:], 2)
		order.PutUint32(m[8:], pageSize)
		order.PutUint64(m[16:], 2)
		order.PutUint64(m[32:], freelist)
		order.PutUint64(m[40:], uint64(2+len(pages)))
		order.PutUint64(m[48:], uint64(i))
		sum(p)
	}
	for i, p := range pages {
		copy(raw[(2+i)*pageSize:], p)
	}
	return raw
}

// Contract §10: pages that are whole by themselves and make no tree together are
// refused, with the page at which that shows.
func TestVerify(t *testing.T) {
	const none = math.MaxUint64
	bucket := func(key string, id uint64) entry { return entry{key: key, bucket: true, value: root(id)} }
	inline := func(entries ...entry) []byte { return append(root(0), pageOfFile(0, entries...)...) }
	leaf := func(id uint64, keys ...string) []byte {
		var entries []entry
		for _, k := range keys {
			entries = append(entries, entry{key: k, value: []byte("v")})
		}
		return pageOfFile(id, entries...)
	}
	var chain [][]byte // one bucket in the other
	for id := uint64(2); id < 300; id++ {
		chain = append(chain, pageOfFile(id, bucket("b", id+1)))
	}
	chain = append(chain, leaf(300, "k"))
	for _, test := range []struct {
		name string
		raw  []byte
		want string // "": it is whole
	}{
		{"whole", handmade(6,
			pageOfFile(2, entry{key: "a", bucket: true, value: inline(entry{key: "k", value: []byte("v")})}, bucket("b", 3)),
			pageOfFile(3, entry{key: "f", child: 4}, entry{key: "m", child: 5}), leaf(4, "f", "g"), leaf(5, "m"), freeList(6, 1, 7), nil), ""},
		{"an empty root", handmade(none, pageOfFile(2)), ""},
		{"256 buckets deep", handmade(none, append(append([][]byte{}, chain[:255]...), leaf(257, "k"))...), ""},
		{"deeper", handmade(none, chain...), "page 258 is more than 256 pages below the root"},
		{"two ways to a page", handmade(none, pageOfFile(2, bucket("a", 3), bucket("b", 3)), leaf(3, "k")), "page 3 is used twice"},
		{"a circle", handmade(none, pageOfFile(2, bucket("a", 2))), "page 2 is used twice"},
		{"to a meta page", handmade(none, pageOfFile(2, bucket("a", 1))), "page 1 is needed, and the pages end at 3"},
		{"behind the end", handmade(none, pageOfFile(2, bucket("a", 3))), "page 3 is needed, and the pages end at 3"},
		{"a short bucket", handmade(none, pageOfFile(2, entry{key: "a", bucket: true, value: root(3)[:15]}), leaf(3, "k")), `page 2: bucket "a" has 15 bytes`},
		{"a bucket without its page", handmade(none, pageOfFile(2, entry{key: "a", bucket: true, value: root(0)})), `page 2: bucket "a" has 16 bytes`},
		{"a bucket that is a branch inside", handmade(none, pageOfFile(2, entry{key: "a", bucket: true, value: inline(entry{key: "k", child: 3})}), leaf(3, "k")),
			`page 2: bucket "a" is no leaf: its flags are 0x1`},
		{"a bucket inside", handmade(none, pageOfFile(2, entry{key: "a", bucket: true, value: inline(bucket("b", 3))}), leaf(3, "k")), `page 2: bucket "a" has another inside its page`},
		{"order inside", handmade(none, pageOfFile(2, entry{key: "a", bucket: true, value: inline(entry{key: "m"}, entry{key: "k"})})), "page 2: key 1 is not above the one before"},
		{"an empty leaf", handmade(none, pageOfFile(2, entry{key: "f", child: 3}), pageOfFile(3)), "page 3 is empty"},
		{"an empty branch", func() []byte {
			raw := handmade(none, pageOfFile(2))
			raw[2*pageSize+8] = 1
			return raw
		}(), "page 2 is empty"},
		{"a leaf beside a branch", handmade(none, pageOfFile(2, entry{key: "f", child: 3}, entry{key: "m", child: 4}), leaf(3, "f"),
			pageOfFile(4, entry{key: "m", child: 5}), leaf(5, "m")), "page 5 is a leaf where there are branches beside it"},
		{"another first key than above", handmade(none, pageOfFile(2, entry{key: "f", child: 3}), leaf(3, "g")), "page 3: key 0 is not what the page above says"},
		{"a key of the next page", handmade(none, pageOfFile(2, entry{key: "f", child: 3}, entry{key: "m", child: 4}), leaf(3, "f", "n"), leaf(4, "m")), "page 3: key 1 is not what the page above says"},
		{"free and used", handmade(4, pageOfFile(2, bucket("a", 3)), leaf(3, "k"), freeList(4, 1, 3)), "page 3 is used twice"},
		{"free twice", handmade(3, pageOfFile(2), freeList(3, 2, 4, 4), nil), "page 4 is used twice"},
		{"free behind the end", handmade(3, pageOfFile(2), freeList(3, 1, 4)), "page 4 is listed as free, and the pages end at 4"},
		{"a free meta page", handmade(3, pageOfFile(2), freeList(3, 1, 1)), "page 1 is listed as free, and the pages end at 4"},
		{"more free than fit", handmade(3, pageOfFile(2), freeList(3, 600)), "page 3 lists 600 free pages in 4096 bytes"},
		{"many more", handmade(3, pageOfFile(2), freeList(3, 0xFFFF, 1<<63)), "page 3 lists 9223372036854775808 free pages in 4096 bytes"},
		{"a list of another kind", handmade(3, pageOfFile(2), leaf(3, "k")), "page 3 is not the list of free pages: its flags are 0x2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := state.Verify(bytes.NewReader(test.raw), int64(len(test.raw)))
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
			} else if !errors.Is(err, state.ErrDamaged) || !strings.HasSuffix(err.Error(), ": "+test.want) {
				t.Errorf("%v, want %s", err, test.want)
			}
		})
	}
}
