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
	"syncd/internal/sink"
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
func (s *sponge) Redeliver(ctx context.Context, _ sink.Aside, events []event.Logged) error {
	return s.Deliver(ctx, events)
}
func (s *sponge) Deliver(_ context.Context, events []event.Logged) error {
	if s.n.Add(int64(len(events))) == s.want {
		close(s.done)
	}
	return nil
}

// BenchmarkParallel is what delivery costs without the network: 10,000 events of
// 1,000 subjects an iteration.
func BenchmarkParallel(b *testing.B) {
	benchmarkDelivery(b, 10_000, 1, func(*state.DB, uint64, []string) error { return nil })
}

// BenchmarkBatches is the same in batches of 100, whose membership is saved.
func BenchmarkBatches(b *testing.B) {
	benchmarkDelivery(b, 10_000, 100, func(*state.DB, uint64, []string) error { return nil })
}

// BenchmarkRetryQueue empties a retry queue of 5,000 events of 1,000 subjects.
func BenchmarkRetryQueue(b *testing.B) {
	benchmarkDelivery(b, 5000, 1, func(db *state.DB, after uint64, subjects []string) error {
		failed := make([]state.Failed, len(subjects))
		for i, s := range subjects {
			failed[i] = state.Failed{Seq: after + uint64(i) + 1, Key: "shop-a/" + s, Next: time.Now()}
		}
		return db.Settle("crm", time.Now(), state.Settlement{Position: after + uint64(len(subjects)), Failed: failed})
	})
}

// benchmarkDelivery delivers so many events of 1,000 subjects an iteration to a
// sponge. prepare may do something about the events, those after a sequence and of
// these subjects, before the clock runs.
func benchmarkDelivery(b *testing.B, events, batch int, prepare func(db *state.DB, after uint64, subjects []string) error) {
	for _, limit := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("concurrency=%d", limit), func(b *testing.B) {
			var commits atomic.Int64
			db, err := state.Open(state.Config{Path: filepath.Join(b.TempDir(), "syncd.db"), Commit: func(commit func() error) error {
				commits.Add(1)
				return commit()
			}})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			if _, err := db.OpenSink("crm", "webhook", true, time.Now()); err != nil {
				b.Fatal(err)
			}
			subjects := make([]string, events)
			for i := range subjects {
				subjects[i] = fmt.Sprint("s", i%1000)
			}
			var spent int64
			b.ReportAllocs()
			for i := range b.N {
				b.StopTimer()
				if _, err := db.CommitPage(pageOf(db, i*events, 600, subjects...)); err != nil {
					b.Fatal(err)
				}
				if err := prepare(db, uint64(i*events), subjects); err != nil {
					b.Fatal(err)
				}
				s := &sponge{limit: limit, want: int64(events), done: make(chan struct{})}
				d, err := delivery.New(delivery.Config{DB: db, Log: slog.New(slog.DiscardHandler), Metrics: delivery.NewMetrics(prometheus.NewRegistry()),
					Grace: time.Second, Sinks: []delivery.Sink{with(to("crm", s), func(s *delivery.Sink) { s.Type, s.BatchEvents = "webhook", batch })}})
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
