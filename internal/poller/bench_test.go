package poller_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/poller"
	"syncd/internal/sources"
	"syncd/internal/state"
)

// idle is a source that shows one item, always the same.
type idle struct {
	seller string
	polls  *atomic.Int64
	page   sources.Page
}

func (s *idle) Seller() string { return s.seller }

func (s *idle) Fetch(context.Context, sources.Query) (sources.Page, error) {
	s.polls.Add(1)
	return s.page, nil
}

// usage is what the process has used so far.
func usage() (cpu time.Duration, mallocs uint64) {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), m.Mallocs
}

// anonymous is the memory in use by heap and stacks.
func anonymous() float64 {
	runtime.GC()
	runtime.GC() // what the first one let go of
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}

// tempFile is a state file whose fsyncs cost nothing, where there is a place for
// one: for what is measured beside the disk.
func tempFile(b *testing.B) string {
	dir, err := os.MkdirTemp("/dev/shm", "syncd")
	if err != nil {
		return filepath.Join(b.TempDir(), "syncd.db")
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "syncd.db")
}

// What a stream costs that has nothing to tell: memory, and CPU and allocations
// for each poll.
func BenchmarkIdleStreams(b *testing.B) {
	const n = 10_000
	db, err := state.Open(state.Config{Path: tempFile(b)})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	var polls atomic.Int64
	page := sources.Page{Items: []sources.Item{item("known")}, Cursor: []byte(`{"at":1}`), Done: true}
	streams := make([]poller.Stream, n)
	for i := range streams { // the streams of accounts as they are by default
		s := poller.Stream{ID: state.StreamID{Account: fmt.Sprintf("shop-%05d", i/5), Stream: []string{"chat_events", "chats", "questions", "feedbacks", "claims"}[i%5]},
			Marketplace: "wildberries", Group: "feedbacks", Schedule: "@every 5s", Overlap: time.Minute, Start: &time.Time{},
			Source: &idle{seller: fmt.Sprint("seller-", i/5), polls: &polls, page: page}, Walks: []sources.Walk{sources.News, sources.Backfill}}
		if i%5 == 2 || i%5 == 3 {
			s.Walks = []sources.Walk{sources.News, sources.Sweep, sources.Full, sources.Backfill}
			s.Sweep = poller.Sweep{Every: quarter, Full: day, Window: 60 * day}
		}
		streams[i] = s
	}
	b.Run("streams=10000", func(b *testing.B) {
		for b.Loop() {
			ctx, cancel := context.WithCancel(context.Background())
			before := anonymous()
			p, err := poller.New(poller.Config{DB: db, Log: slog.New(slog.DiscardHandler), Metrics: poller.NewMetrics(prometheus.NewRegistry()), Streams: streams})
			if err != nil {
				b.Fatal(err)
			}
			made := anonymous()
			done := make(chan error, 1)
			go func() { done <- p.Run(ctx) }()
			polls.Store(0)
			for polls.Load() < n {
				time.Sleep(10 * time.Millisecond)
			}
			running := anonymous()
			var ms runtime.MemStats
			runtime.ReadMemStats(&ms)
			b.ReportMetric(float64(ms.StackInuse)/n, "stackB/stream")
			cpu, mallocs := usage()
			begin := polls.Load()
			time.Sleep(5 * time.Second)
			now, all := usage()
			ran := float64(polls.Load() - begin)
			b.ReportMetric((made-before)/n, "B/stream-made")
			b.ReportMetric((running-made)/n, "B/stream-running")
			b.ReportMetric(float64(now-cpu)/ran, "cpu-ns/poll")
			b.ReportMetric(float64(all-mallocs)/ran, "allocs/poll")
			b.ReportMetric(float64(runtime.NumGoroutine())/n, "goroutines/stream")
			b.ReportMetric(ran/5, "polls/s")
			cancel()
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		}
	})
}
