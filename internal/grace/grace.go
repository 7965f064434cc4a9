// Package grace lets work that is in flight when a shutdown begins finish, for a
// bounded time: an API request that has been paid for and whose page can still
// be committed, a webhook whose acknowledgement can still be recorded.
package grace

import (
	"context"
	"errors"
	"time"
)

var errOver = errors.New("stopped: the grace period for what was in flight is over")

// Context returns a context with ctx's values that ends d after ctx does, or
// when cancel is called. Its deadline is not ctx's. Callers must call cancel.
func Context(ctx context.Context, d time.Duration) (late context.Context, cancel context.CancelFunc) {
	late, cancelCause := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			cancelCause(errOver)
		case <-late.Done():
		}
	})
	return late, func() {
		stop()
		cancelCause(context.Canceled)
	}
}
