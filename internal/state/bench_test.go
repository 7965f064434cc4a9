package state_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"syncd/internal/state"
)

// templates are closed files by their number of records, each made when it is first
// needed: that takes longer than most of what is measured on a copy.
var templates = struct {
	dir  string
	made map[int]bool
}{made: make(map[int]bool)}

func TestMain(m *testing.M) {
	code := m.Run()
	if templates.dir != "" {
		os.RemoveAll(templates.dir)
	}
	os.Exit(code)
}

// template returns the path of a file with n records, newest last. They are silent
// and all but the last thousand are short, which no poll of the last ones notices.
func template(b *testing.B, n int) string {
	b.Helper()
	var err error
	if templates.dir == "" {
		if templates.dir, err = os.MkdirTemp("", "syncd-bench-"); err != nil {
			b.Fatal(err)
		}
	}
	path := filepath.Join(templates.dir, fmt.Sprint(n))
	if templates.made[n] {
		return path
	}
	db, err := state.Open(state.Config{Path: path})
	if err != nil {
		b.Fatal(err)
	}
	const page = 50_000 // ids lie all over the file: large pages write each of its pages less often
	for at := 0; at < n; at += page {
		items := fresh(at, min(page, n-at))
		for i := range items {
			if at+i < n-1000 {
				items[i] = withBody(items[i], fmt.Sprintf(`{"id":%d}`, at+i))
			}
			items[i].Silent = true
		}
		if _, err := db.CommitPage(pageOf(db, items...)); err != nil {
			b.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	templates.made[n] = true
	return path
}

// filled is a file with n records and how many commits it sees from now on.
func filled(b *testing.B, n int) (*state.DB, *int) {
	b.Helper()
	from, err := os.Open(template(b, n))
	if err != nil {
		b.Fatal(err)
	}
	defer from.Close()
	to, err := os.Create(filepath.Join(b.TempDir(), "syncd.db"))
	if err != nil {
		b.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if err := errors.Join(err, to.Sync(), to.Close()); err != nil {
		b.Fatal(err)
	}
	commits := new(int)
	db, err := state.Open(state.Config{Path: to.Name(), Commit: func(commit func() error) error {
		*commits++
		return commit()
	}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	return db, commits
}

// fresh are n items of about 640 bytes, numbered from at.
func fresh(at, n int) []state.Item {
	items := make([]state.Item, n)
	for i := range items {
		items[i] = question(fmt.Sprintf("question-%09d", at+i), 0, fmt.Sprintf("%0600d", at+i))
		items[i].Created = day.Add(time.Duration(at+i) * time.Second)
	}
	return items
}

var recordCounts = []int{1_000, 100_000, 1_000_000}

func BenchmarkCommitPage(b *testing.B) {
	for _, records := range recordCounts {
		db, commits := filled(b, records)
		at := records
		for _, page := range []int{100, 1000} {
			b.Run(fmt.Sprintf("new=%d/records=%d", page, records), func(b *testing.B) {
				*commits = 0
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					b.StopTimer()
					p := pageOf(db, fresh(at, page)...)
					at += page
					b.StartTimer()
					if _, err := db.CommitPage(p); err != nil {
						b.Fatal(err)
					}
				}
				items := float64(b.N * page)
				b.ReportMetric(items/b.Elapsed().Seconds(), "items/s")
				b.ReportMetric(float64(*commits)/items, "commits/item")
			})
		}
	}
}

// A page as large as pages get: 5,000 items of 2 KB. What the commit needs beyond
// the bodies themselves is in its allocations, and in the heap at its largest,
// which holds bbolt's own copy of the pages that it writes, too.
func BenchmarkCommitLargePage(b *testing.B) {
	const items, size = 5000, 2000
	db, _ := filled(b, 10_000)
	at := 10_000
	var before, during runtime.MemStats
	largest := uint64(0)
	b.ReportAllocs()
	for range b.N {
		b.StopTimer()
		p := pageOf(db, fresh(at, items)...)
		for i := range p.Items {
			p.Items[i].Body = json.RawMessage(fmt.Sprintf(`{"id":%d,"text":"%0*d"}`, at+i, size, i))
		}
		at += items
		runtime.GC()
		runtime.ReadMemStats(&before)
		stop, peak := make(chan struct{}), make(chan uint64)
		go func() {
			most := uint64(0)
			for {
				select {
				case <-stop:
					peak <- most
					return
				case <-time.After(time.Millisecond):
					runtime.ReadMemStats(&during)
					most = max(most, during.HeapAlloc)
				}
			}
		}()
		b.StartTimer()
		if _, err := db.CommitPage(p); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		close(stop)
		if most := <-peak; most > before.HeapAlloc {
			largest = max(largest, most-before.HeapAlloc)
		}
	}
	b.ReportMetric(float64(largest)/(items*size), "heap/bodies")
}

// An idle poll reads a page that is known, and must cost the same however many
// records there are.
func BenchmarkIdlePoll(b *testing.B) {
	for _, records := range recordCounts {
		db, commits := filled(b, records)
		b.Run(fmt.Sprintf("records=%d", records), func(b *testing.B) {
			p := pageOf(db, fresh(records-100, 100)...)
			*commits = 0
			b.ReportAllocs()
			for b.Loop() {
				if out, err := db.CommitPage(p); err != nil || out.Wrote {
					b.Fatal(out.Wrote, err)
				}
			}
			b.ReportMetric(float64(*commits)/float64(b.N), "commits/op")
		})
	}
}

// Opening a file reads all of its tree, twice where it has no list of free pages:
// the verifier, and bbolt.
func BenchmarkOpen(b *testing.B) {
	for _, records := range recordCounts {
		path := template(b, records)
		fi, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		raw, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		name := fmt.Sprintf("records=%d/MiB=%d", records, fi.Size()>>20)
		b.Run("verify/"+name, func(b *testing.B) {
			b.SetBytes(fi.Size())
			b.ReportAllocs()
			for b.Loop() {
				if err := state.Verify(raw, fi.Size()); err != nil {
					b.Fatal(err)
				}
			}
		})
		raw.Close()
		b.Run("open/"+name, func(b *testing.B) {
			b.SetBytes(fi.Size())
			b.ReportAllocs()
			for b.Loop() {
				db, err := state.Open(state.Config{Path: path})
				if err != nil {
					b.Fatal(err)
				}
				if err := db.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
