package apiclient_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"syncd/internal/sources/apiclient"
)

// BenchmarkAcquire is what a request costs beside the network, where there is
// always a token.
func BenchmarkAcquire(b *testing.B) {
	for name, others := range map[string]int{"alone": 0, "8 wait": 8} {
		b.Run(name, func(b *testing.B) {
			bucket, err := apiclient.NewBudgets(newLedger(), slog.New(slog.DiscardHandler)).Bucket(key, "a", apiclient.Limit{Interval: time.Nanosecond, Burst: 1 << 30}, 1)
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			var all sync.WaitGroup
			for range others {
				all.Go(func() {
					for {
						g, err := bucket.Acquire(ctx, apiclient.Flow{Name: "sweep", Weight: 1. / 4})
						if err != nil {
							return
						}
						g.Answered(apiclient.Answer{Remaining: 1 << 29})
					}
				})
			}
			b.ReportAllocs()
			for b.Loop() {
				g, err := bucket.Acquire(ctx, news)
				if err != nil {
					b.Fatal(err)
				}
				g.Answered(apiclient.Answer{Remaining: 1 << 29})
			}
			cancel()
			all.Wait()
		})
	}
}
