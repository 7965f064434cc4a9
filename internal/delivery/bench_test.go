package delivery_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/delivery"
	"syncd/internal/event"
	"syncd/internal/state"
)

// sponge takes everything at once.
type sponge struct {
	limit int
	n     atomic.Int64
	want  int64
	done  chan struct{}
}

func (s *sponge) Parallel() int { return s.limit }
func (s *sponge) Close() error  { return nil }
func (s *sponge) Deliver(context.Context, []event.Logged) error {
	if s.n.Add(1) == s.want {
		close(s.done)
	}
	return nil
}

// BenchmarkParallel is what delivery costs without the network: 10,000 events of
// 1,000 subjects an iteration.
func BenchmarkParallel(b *testing.B) {
	for _, limit := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("concurrency=%d", limit), func(b *testing.B) {
			const events = 10_000
			var commits atomic.Int64
			db, err := state.Open(state.Config{Path: filepath.Join(b.TempDir(), "syncd.db"), Commit: func(commit func() error) error {
				commits.Add(1)
				return commit()
			}})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			subjects := make([]string, events)
			for i := range subjects {
				subjects[i] = fmt.Sprint("s", i%1000)
			}
			var spent int64
			b.ReportAllocs()
			for i := range b.N {
				b.StopTimer()
				s := &sponge{limit: limit, want: events, done: make(chan struct{})}
				d, err := delivery.New(delivery.Config{DB: db, Log: slog.New(slog.DiscardHandler), Metrics: delivery.NewMetrics(prometheus.NewRegistry()),
					Grace: time.Second, Sinks: []delivery.Sink{{Name: "crm", Type: "webhook", Sink: s, RetryInitial: time.Second, RetryMax: time.Minute}}})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := db.CommitPage(pageOf(db, i*events, subjects...)); err != nil {
					b.Fatal(err)
				}
				ctx, cancel := context.WithCancel(context.Background())
				stopped := make(chan struct{})
				before := commits.Load()
				b.StartTimer()
				go func() {
					defer close(stopped)
					d.Run(ctx)
				}()
				<-s.done
				cancel()
				<-stopped
				spent += commits.Load() - before
			}
			total := float64(b.N * events)
			b.ReportMetric(total/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(spent)/total, "fsyncs/event")
		})
	}
}

// BenchmarkRetryQueue empties a retry queue of 5,000 events of 1,000 subjects.
func BenchmarkRetryQueue(b *testing.B) {
	for _, limit := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("concurrency=%d", limit), func(b *testing.B) {
			const events = 5000
			var commits atomic.Int64
			db, err := state.Open(state.Config{Path: filepath.Join(b.TempDir(), "syncd.db"), Commit: func(commit func() error) error {
				commits.Add(1)
				return commit()
			}})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			subjects := make([]string, events)
			failed := make([]state.Failed, events)
			for i := range subjects {
				subjects[i] = fmt.Sprint("s", i%1000)
				failed[i] = state.Failed{Key: "shop-a/" + subjects[i], Next: time.Now()}
			}
			var spent int64
			for i := range b.N {
				b.StopTimer()
				s := &sponge{limit: limit, want: events, done: make(chan struct{})}
				if _, err := db.OpenSink("crm", "webhook", true, time.Now()); err != nil {
					b.Fatal(err)
				}
				if _, err := db.CommitPage(pageOf(db, i*events, subjects...)); err != nil {
					b.Fatal(err)
				}
				for j := range failed {
					failed[j].Seq = uint64(i*events + j + 1)
				}
				if err := db.Settle("crm", time.Now(), state.Settlement{Position: uint64((i + 1) * events), Failed: failed}); err != nil {
					b.Fatal(err)
				}
				d, err := delivery.New(delivery.Config{DB: db, Log: slog.New(slog.DiscardHandler), Metrics: delivery.NewMetrics(prometheus.NewRegistry()),
					Grace: time.Second, Sinks: []delivery.Sink{{Name: "crm", Type: "webhook", Sink: s}}})
				if err != nil {
					b.Fatal(err)
				}
				ctx, cancel := context.WithCancel(context.Background())
				stopped := make(chan struct{})
				before := commits.Load()
				b.StartTimer()
				go func() {
					defer close(stopped)
					d.Run(ctx)
				}()
				<-s.done
				cancel()
				<-stopped
				spent += commits.Load() - before
			}
			total := float64(b.N * events)
			b.ReportMetric(total/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(spent)/total, "fsyncs/event")
		})
	}
}
