package apiclient

import (
	"context"
	"errors"
	"sync"
	"time"
)

// deadline ends a request that takes too long: to get a connection, which with many
// accounts on one host it may have to wait for, and from there to the end of its
// answer. Only the second says something about the marketplace.
type deadline struct {
	cancel context.CancelCauseFunc
	after  time.Duration

	mu    sync.Mutex
	timer *time.Timer
	at    time.Time
	sent  bool
}

func newDeadline(parent context.Context, after time.Duration) (context.Context, *deadline) {
	ctx, cancel := context.WithCancelCause(parent)
	d := &deadline{cancel: cancel, after: after, at: time.Now().Add(after)}
	d.timer = time.AfterFunc(after, d.ring)
	return ctx, d
}

var errNoConnection = errors.New("no connection to be had")

func (d *deadline) ring() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if left := time.Until(d.at); left > 0 { // it rang while it was moved
		d.timer.Reset(left)
		return
	}
	if d.sent {
		d.cancel(tooSlow(d.after))
	} else {
		d.cancel(errNoConnection)
	}
}

// leaves says that the request has its connection and is written from now on.
func (d *deadline) leaves() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.sent {
		d.sent, d.at = true, time.Now().Add(d.after)
		d.timer.Reset(d.after)
	}
}

// left reports whether the request may have left.
func (d *deadline) left() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sent
}

// without makes wait count for nothing.
func (d *deadline) without(wait func() error) error {
	d.mu.Lock()
	left := time.Until(d.at)
	d.at = d.at.Add(time.Hour) // a ring on its way finds nothing to do
	d.timer.Stop()
	d.mu.Unlock()
	err := wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = time.Now().Add(left)
	d.timer.Reset(max(left, 0))
	return err
}

// end ends the request, whatever it is doing.
func (d *deadline) end() {
	d.timer.Stop()
	d.cancel(nil)
}
