package state_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"syncd/internal/state"
)

// filled is a file with n records, newest last, and how many commits it has seen.
func filled(b *testing.B, n int) (*state.DB, *int) {
	b.Helper()
	commits := new(int)
	db, err := state.Open(state.Config{Path: filepath.Join(b.TempDir(), "syncd.db"), Commit: func(commit func() error) error {
		*commits++
		return commit()
	}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	for at := 0; at < n; at += 5000 {
		if _, err := db.CommitPage(pageOf(db, fresh(at, min(5000, n-at))...)); err != nil {
			b.Fatal(err)
		}
	}
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

func BenchmarkCommitPage(b *testing.B) {
	for _, records := range []int{1_000, 100_000} {
		for _, page := range []int{100, 1000} {
			b.Run(fmt.Sprintf("new=%d/records=%d", page, records), func(b *testing.B) {
				db, commits := filled(b, records)
				at := records
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
				b.ReportMetric(float64(*commits)/items, "fsyncs/item")
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
	for _, records := range []int{1_000, 100_000} {
		b.Run(fmt.Sprintf("records=%d", records), func(b *testing.B) {
			db, commits := filled(b, records)
			p := pageOf(db, fresh(records-100, 100)...)
			*commits = 0
			b.ReportAllocs()
			for b.Loop() {
				if out, err := db.CommitPage(p); err != nil || out.Wrote {
					b.Fatal(out.Wrote, err)
				}
			}
			b.ReportMetric(float64(*commits), "fsyncs")
		})
	}
}
