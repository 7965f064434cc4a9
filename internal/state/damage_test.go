package state_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/state"
)

const pageSize = 4096

// wholeFile is a state file of some hundred pages that has all that bbolt can put
// into one: deep trees, nested and inline buckets, values and keys longer than a
// page, a list of free pages (with listed).
func wholeFile(tb testing.TB, listed bool) []byte {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "whole.db")
	db, err := state.Open(state.Config{Path: path})
	if err != nil {
		tb.Fatal(err)
	}
	p := pageOf(db)
	for i := range 70 {
		long := strings.Repeat("x", 1<<(i%14))
		p.Items = append(p.Items, question(fmt.Sprintf("%d-%s", i, long[:min(len(long), 600)]), i, long))
	}
	if _, err := db.CommitPage(p); err != nil {
		tb.Fatal(err)
	}
	if err := db.Close(); err != nil {
		tb.Fatal(err)
	}
	b, err := bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: !listed})
	if err != nil {
		tb.Fatal(err)
	}
	err = b.Update(func(tx *bolt.Tx) error {
		in := tx.Bucket([]byte("retries"))
		for i := range 6 {
			var err error
			if in, err = in.CreateBucketIfNotExists(fmt.Appendf(nil, "%d", i)); err != nil {
				return err
			}
			for k := range 12 {
				if err := in.Put(bytes.Repeat([]byte{byte('a' + k)}, 1<<k), bytes.Repeat([]byte{'v'}, 3*k)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	var size int64
	if err == nil {
		err = b.View(func(tx *bolt.Tx) error {
			size = tx.Size()
			return nil
		})
	}
	if err := errors.Join(err, b.Close()); err != nil {
		tb.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return raw[:size] // without what the file may grow into
}

// patched is a file whose bytes are changed where they differ: to write all of it
// each time would take most of the time.
type patched struct {
	*os.File
	is []byte
}

func newPatched(tb testing.TB) *patched {
	tb.Helper()
	f, err := os.Create(filepath.Join(tb.TempDir(), "syncd.db"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	return &patched{File: f}
}

func (p *patched) set(tb testing.TB, raw []byte) {
	tb.Helper()
	err := p.Truncate(int64(len(raw)))
	for at := 0; at < len(raw) && err == nil; at += pageSize {
		end := min(at+pageSize, len(raw))
		if end > len(p.is) || !bytes.Equal(p.is[at:end], raw[at:end]) {
			_, err = p.WriteAt(raw[at:end], int64(at))
		}
	}
	if err != nil {
		tb.Fatal(err)
	}
	p.is = append(p.is[:0], raw...)
}

// openDamaged opens a file with these bytes: it is refused, and left as it is, or
// everything in it can be read, and what is written to it leaves it whole. What
// must not happen kills the process.
func openDamaged(tb testing.TB, f *patched, raw []byte) error {
	tb.Helper()
	f.set(tb, raw)
	same := func() {
		tb.Helper()
		if after, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(after, raw) {
			tb.Fatalf("the file was changed (%v)", err)
		}
	}
	db, err := state.Open(state.Config{Path: f.Name()})
	if err != nil {
		if !errors.Is(err, state.ErrDamaged) && !errors.Is(err, state.ErrNewer) {
			tb.Fatalf("refused as %v", err)
		}
		same()
		return err
	}
	if !db.Restored() { // the mark of a backup, which is made a file of its own
		same()
	}
	_ = db.Check() // keys and values may be damaged
	if err := db.Walk(); err != nil {
		tb.Fatalf("accepted, and then: %v", err)
	}
	db.NoSync()
	db.NoAnchor()
	p := pageOf(db)
	for i := range 70 {
		p.Items = append(p.Items, question(fmt.Sprint(i), i, "new"))
	}
	_, _ = db.CommitPage(p)
	_, _ = db.Retain(context.Background(), day.Add(1000*24*time.Hour))
	if err := db.Close(); err != nil {
		tb.Fatal(err)
	}
	f.is = nil
	fi, err := f.Stat()
	if err == nil {
		err = state.Verify(f, fi.Size())
	}
	if err != nil {
		tb.Fatalf("accepted, written to, and then: %v", err)
	}
	return nil
}

// sum gives a meta page the checksum that it needs to be looked at.
func sum(page []byte) {
	h := fnv.New64a()
	h.Write(page[16:72])
	binary.NativeEndian.PutUint64(page[72:], h.Sum64())
}

// harm damages a file in one of the ways in which files are damaged.
func harm(r *rand.Rand, raw []byte) []byte {
	pages := len(raw) / pageSize
	page := func() []byte { // rather one that is in use
		for range 20 {
			if p := raw[r.IntN(pages)*pageSize:][:pageSize]; binary.NativeEndian.Uint16(p[8:])&0x17 != 0 {
				return p
			}
		}
		return raw[:pageSize]
	}
	number := func(was uint64) uint64 {
		return [...]uint64{0, 1, 2, was + 1, was - 1, was + 16, uint64(pages), uint64(pages) + 1, 0xFFFF, math.MaxUint32, math.MaxUint64, r.Uint64(), uint64(r.IntN(pages)), 1 << r.IntN(64)}[r.IntN(14)]
	}
	switch r.IntN(9) {
	case 0: // a bit
		raw[r.IntN(len(raw))] ^= 1 << r.IntN(8)
	case 1: // a few bytes
		p := page()
		for range 1 + r.IntN(8) {
			p[r.IntN(len(p))] = byte(r.Uint32())
		}
	case 2: // the beginning of a page, where its table is
		p := page()
		p[r.IntN(128)] = byte(r.Uint32())
	case 3: // a number in there
		p := page()
		at := 4 * r.IntN(48)
		if r.IntN(2) == 0 {
			binary.NativeEndian.PutUint32(p[at:], uint32(number(uint64(binary.NativeEndian.Uint32(p[at:])))))
		} else {
			binary.NativeEndian.PutUint64(p[at:], number(binary.NativeEndian.Uint64(p[at:])))
		}
	case 4: // a number in a meta, which holds together
		p := raw[r.IntN(2)*pageSize:][:pageSize]
		at := 16 + 8 + 4*r.IntN(10)
		binary.NativeEndian.PutUint64(p[at:], number(binary.NativeEndian.Uint64(p[at:])))
		sum(p)
	case 5:
		clear(page())
	case 6: // a page is written to another's place, as what it is there or not
		from, to := page(), page()
		id := bytes.Clone(to[:8])
		copy(to, from)
		if r.IntN(2) == 0 {
			copy(to, id)
		}
	case 7: // two changed places
		a, b := page(), page()
		was := bytes.Clone(a)
		copy(a, b)
		copy(b, was)
	case 8:
		return raw[:r.IntN(len(raw)+1)]
	}
	return raw
}

// Contract §10: whatever has happened to the bytes of a file, it is refused and
// left as it is, or it opens and can be read to its end.
func TestOpenDamaged(t *testing.T) {
	t.Parallel()
	files := 100
	if os.Getenv("SYNCD_E2E") == "full" {
		files = 20_000
	}
	for _, listed := range []bool{false, true} {
		t.Run(fmt.Sprintf("free pages listed=%t", listed), func(t *testing.T) {
			whole := wholeFile(t, listed)
			f := newPatched(t)
			if err := openDamaged(t, f, whole); err != nil {
				t.Fatal(err)
			}
			reasons := make(map[string]int)
			r := rand.New(rand.NewPCG(1, 2))
			raw := make([]byte, len(whole))
			for range files {
				copy(raw, whole)
				if err := openDamaged(t, f, harm(r, raw)); err != nil {
					reasons[reason(err)]++
				}
			}
			t.Log(reasons)
		})
	}
}

func reason(err error) string {
	text, _, _ := strings.Cut(err.Error(), "; it was left")
	_, text, _ = strings.Cut(text, "not syncd's: ")
	var words []string
	for _, w := range strings.Fields(text) {
		if !strings.ContainsAny(w, "0123456789\"") {
			words = append(words, w)
		}
	}
	return strings.Join(words, " ")
}

// fuzzed is a wholeFile that stays the same, for the corpus speaks of places in it.
// Make it and the corpus anew with -update after a migration.
const fuzzed = "testdata/fuzz/whole.db.gz"

func fuzzedFile(f *testing.F) []byte {
	if *update {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, err := w.Write(wholeFile(f, true))
		if err := errors.Join(err, w.Close(), os.WriteFile(fuzzed, b.Bytes(), 0o644)); err != nil {
			f.Fatal(err)
		}
	}
	packed, err := os.Open(fuzzed)
	if err != nil {
		f.Fatal(err)
	}
	defer packed.Close()
	r, err := gzip.NewReader(packed)
	if err != nil {
		f.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		f.Fatal(err)
	}
	return raw
}

// FuzzOpen looks for bytes at a place of a file that are neither refused nor can be
// opened and read.
func FuzzOpen(f *testing.F) {
	whole := fuzzedFile(f)
	file := newPatched(f)
	if err := openDamaged(f, file, whole); err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), []byte(nil), uint32(len(whole)))
	f.Fuzz(func(t *testing.T, at uint32, with []byte, size uint32) {
		raw := bytes.Clone(whole)
		at %= uint32(len(raw))
		copy(raw[at:], with)
		if at < 2*pageSize { // else a wrong checksum is all that is ever found there
			sum(raw[:pageSize])
			sum(raw[pageSize:])
		}
		raw = raw[:min(int(size), len(raw))]
		if state.Verify(bytes.NewReader(raw), int64(len(raw))) == nil {
			_ = openDamaged(t, file, raw)
		}
	})
}
