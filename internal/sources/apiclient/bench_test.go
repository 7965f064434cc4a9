package apiclient_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
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

// BenchmarkWindow is what a request costs beside the network, in a window that has
// been in use for an hour. saves/op are fsyncs.
func BenchmarkWindow(b *testing.B) {
	for _, limit := range []int{100, 5000} {
		b.Run(fmt.Sprint(2*limit), func(b *testing.B) {
			var hour []string
			for i := range 120 {
				from := (i - 120) * 30_000
				hour = append(hour, fmt.Sprintf("[%d,%d,1]", from, from+29_000))
			}
			before := fmt.Sprintf(`{"v":1,"kind":"window","at":%d,"tokens":1e6,"spent":[%s]}`, time.Now().UnixMilli(), strings.Join(hour, ","))
			l := newLedger()
			var w *apiclient.Window
			left, saves := 0, 0
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if left == 0 {
					b.StopTimer()
					saves += l.count()
					l = newLedger()
					l.kept[key.String()] = []byte(before)
					var err error
					if w, err = apiclient.NewBudgets(l, slog.New(slog.DiscardHandler)).Window(key, "a", apiclient.WindowLimit{Calls: limit * 2, Period: time.Hour}, 1); err != nil {
						b.Fatal(err)
					}
					left = limit / 10
					b.StartTimer()
				}
				g, err := w.Acquire(b.Context(), news)
				if err != nil {
					b.Fatal(err)
				}
				g.Answered(apiclient.Answer{Remaining: -1})
				left--
				n++
			}
			b.ReportMetric(float64(saves+l.count())/float64(n), "saves/op")
		})
	}
}
