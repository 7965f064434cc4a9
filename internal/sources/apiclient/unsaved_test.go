package apiclient_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/sourcetest"
)

// acquirer is a window or a bucket.
type acquirer interface {
	Acquire(ctx context.Context, f apiclient.Flow) (*apiclient.Grant, error)
}

// TestRefusalOnFullDisk: what the marketplace says while nothing can be saved is saved
// when there is room, though nobody asks for the budget meanwhile; so a process that is
// killed then leaves it to the next one.
func TestRefusalOnFullDisk(t *testing.T) {
	for _, tt := range []struct {
		name string
		open func(b *apiclient.Budgets) (acquirer, error)
	}{
		{"window", func(b *apiclient.Budgets) (acquirer, error) {
			return b.Window(key, "a", perHour(60), 1)
		}},
		{"bucket", func(b *apiclient.Budgets) (acquirer, error) {
			return b.Bucket(key, "a", apiclient.Limit{Interval: time.Second, Burst: 10}, 1)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sourcetest.SetClock()
				l := newLedger()
				budgets := apiclient.NewBudgets(l, discard)
				p, err := tt.open(budgets)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() {
					budgets.Run(ctx)
					close(done)
				}()
				g, err := p.Acquire(ctx, news)
				if err != nil {
					t.Fatal(err)
				}
				l.failWith(errors.New("no space left on device"))
				g.Answered(apiclient.Answer{Remaining: -1, Throttled: true, RetryAfter: time.Hour})
				time.Sleep(10 * time.Second)
				l.failWith(nil)
				time.Sleep(2 * time.Second)
				l.failWith(errors.New("the process is dead"))
				saves := l.count()
				cancel()
				<-done
				l.failWith(nil)
				next := apiclient.NewBudgets(l, discard)
				if _, err := tt.open(next); err != nil {
					t.Fatal(err)
				}
				if at := next.Snapshot()[0].Next; time.Until(at) < 59*time.Minute {
					t.Errorf("the next process would ask in %s; %d saves", time.Until(at), saves)
				}
			})
		})
	}
}
