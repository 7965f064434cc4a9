package delivery_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/delivery"
	"syncd/internal/event"
	"syncd/internal/sink"
	"syncd/internal/state"
)

// crowd is a receiver that fails until it is mended, and then takes everything.
type crowd struct {
	mended atomic.Bool
	failed atomic.Int64
}

func (c *crowd) Parallel() int { return 8 }
func (c *crowd) Close() error  { return nil }

func (c *crowd) Redeliver(ctx context.Context, _ sink.Aside, events []event.Logged) error {
	return c.Deliver(ctx, events)
}

func (c *crowd) Deliver(_ context.Context, events []event.Logged) error {
	if !c.mended.Load() {
		if c.failed.Add(1)%8 == 0 { // as long as now and then one arrives it is no outage
			return nil
		}
		return &sink.Error{Status: 500}
	}
	return nil
}

// heap returns the bytes of live heap.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // pools live through one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// G8: what waits is on the disk. As many subjects as there may be in the retry queue
// cost no more memory than a few thousand, which fill the window.
func TestWaitingSubjectsCostNoMemory(t *testing.T) {
	many := 12_000
	if s := os.Getenv("SYNCD_SUBJECTS"); s != "" {
		many, _ = strconv.Atoi(s)
	}
	few := heapOf(t, 3000)
	all := heapOf(t, many)
	t.Logf("%d waiting subjects: %d KiB of heap; 3000: %d KiB", many, all>>10, few>>10)
	// bbolt remembers every page that was allocated since it was opened: 7 bytes a
	// subject with a million of them.
	if all > few+2<<20+uint64(many)*8 {
		t.Error("memory grows with what waits")
	}
}

// heapOf has so many subjects fail, and then arrive, and returns the most heap that
// was live meanwhile.
func heapOf(t *testing.T, subjects int) uint64 {
	// Between transactions: what one of them needs is bounded by its size.
	var mu sync.Mutex
	commits, most := 0, uint64(0)
	db, err := state.Open(state.Config{Path: filepath.Join(quickDir(t), "syncd.db"), Commit: func(commit func() error) error {
		mu.Lock()
		defer mu.Unlock()
		if commits++; commits%25 == 0 {
			most = max(most, heap())
		}
		return commit()
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.OpenSink("crm", "webhook", true, time.Now()); err != nil {
		t.Fatal(err)
	}
	for at := 0; at < subjects; at += 1000 {
		page := make([]string, 1000)
		for i := range page {
			page[i] = fmt.Sprint("s", at+i)
		}
		if _, err := db.CommitPage(pageOf(db, at, 0, page...)); err != nil {
			t.Fatal(err)
		}
	}
	c := &crowd{}
	s := with(to("crm", c), func(s *delivery.Sink) {
		s.Type, s.RetryInitial, s.RetryMax = "webhook", time.Hour, time.Hour
	})
	serve := func(until func() bool) {
		d, err := delivery.New(delivery.Config{DB: db, Log: slog.New(slog.DiscardHandler), Metrics: delivery.NewMetrics(prometheus.NewRegistry()),
			Grace: time.Second, Sinks: []delivery.Sink{s}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			d.Run(ctx)
		}()
		wake, stop := db.Watch()
		defer stop()
		for deadline := time.Now().Add(10 * time.Minute); !until() && time.Now().Before(deadline); {
			select {
			case <-wake:
			case <-time.After(20 * time.Millisecond):
			}
		}
		cancel()
		<-done
	}
	waiting := func() int {
		n, err := db.Waiting("crm")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	left := func() int {
		b, err := db.Backlog("crm")
		if err != nil {
			t.Fatal(err)
		}
		return b.Events
	}
	serve(func() bool { return left() == waiting() })
	if n := waiting(); n < subjects*8/10 {
		t.Fatalf("%d of %d subjects wait", n, subjects)
	}
	c.mended.Store(true)
	s.RetryMax = time.Millisecond // all are due now: nobody can have asked for so long a wait
	if err := db.PullRetries("crm", time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	serve(func() bool { return left() == 0 })
	if n := left(); n != 0 {
		t.Errorf("%d are left", n)
	}
	return most
}
