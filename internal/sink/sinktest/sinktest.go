// Package sinktest is the contract suite of sinks: what delivery relies on and
// every sink must do, whatever it sends to.
//
// A sink's own tests run it and add what is special about their medium. It
// proves nothing about speed, and nothing about crashes in the middle of a call.
//
// Each test runs in a bubble of testing/synctest, and so does its Harness: a
// sink that hangs, or leaves a goroutine behind after Close, fails there. Its
// receiver must therefore be without sockets, such as an http.Server on net.Pipe.
package sinktest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/event"
	"syncd/internal/sink"
)

// A Harness is a sink with the receiver behind it.
type Harness struct {
	// Sink is new: no method of it has been called. The suite closes it.
	Sink sink.Sink
	// Received returns what has arrived at the receiver so far: one element an
	// event, in order of arrival, without newlines.
	Received func(t *testing.T) [][]byte
	// Break makes every Deliver fail, after a part of it may have arrived,
	// until Repair.
	Break, Repair func(t *testing.T)
	// Stall makes the receiver take nothing, so that Deliver blocks, until
	// release is called; reached receives when a Deliver has got that far. Nil
	// where Deliver never waits for anybody.
	Stall func(t *testing.T) (reached <-chan struct{}, release func())
	// Batch says that the sink takes several events a call although it is
	// Parallel. One that is not Parallel always does.
	Batch bool
	// Asides returns how the receiver was told, for each element of Received, that
	// the event stands outside the order; 0 where it was not. For a Parallel.
	Asides func(t *testing.T) []sink.Aside
	// Secrets are what no error may show. A good receiver sends them all back
	// while it is broken.
	Secrets []string
	// Reopen returns another sink on the same medium, as after a crash; the
	// medium must have been let go. Needed for a Resumer alone.
	Reopen func(t *testing.T) sink.Sink
}

// Run tests the sinks that newHarness makes, a fresh one for each test.
func Run(t *testing.T, newHarness func(t *testing.T) *Harness) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, d *delivery)
	}{
		{"bytes and order", testBytesAndOrder},
		{"nothing kept", testNothingKept},
		{"cancelled before", testCancelledBefore},
		{"cancelled while stalled", testCancelledWhileStalled},
		{"failure and redelivery", testRedelivery},
		{"crash before the commit", testCrashBeforeCommit},
		{"parallel", testParallel},
		{"outside the order", testRedeliver},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &delivery{Harness: newHarness(t), log: Events(20)}
				d.resume(t)
				test.run(t, d)
				if err := d.Sink.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
				assertNothingRuns(t)
			})
		})
	}
}

// delivery does for one sink what package delivery does, in the simplest way.
type delivery struct {
	*Harness
	log        []event.Logged
	position   int    // how much of log is committed
	checkpoint []byte // committed with it
}

func (d *delivery) resume(t *testing.T) {
	t.Helper()
	r, ok := d.Sink.(sink.Resumer)
	if !ok {
		return
	}
	if _, err := r.Resume(t.Context(), d.checkpoint, Lines(d.log[d.position:])); err != nil {
		t.Fatalf("Resume: %v", err)
	}
	d.commit(t)
}

func (d *delivery) commit(t *testing.T) {
	t.Helper()
	r, ok := d.Sink.(sink.Resumer)
	if !ok {
		return
	}
	if l, ok := r.(sink.Lazy); ok && l.SyncEvery() > 0 {
		if err := l.Sync(t.Context()); err != nil {
			t.Fatalf("Sync: %v", err)
		}
	}
	d.checkpoint = r.Checkpoint()
	if !json.Valid(d.checkpoint) {
		t.Fatalf("checkpoint is no JSON value: %q", d.checkpoint)
	}
}

// send hands over the next n events, or as many of them as the sink has room
// for, and does not commit them. One a call where the sink wants that.
func (d *delivery) send(t *testing.T, ctx context.Context, n int) (int, error) {
	t.Helper()
	events := d.log[d.position : d.position+n]
	if tender, ok := d.Sink.(sink.Tender); ok {
		tended, err := tender.Tend(ctx)
		if err != nil {
			return 0, err
		}
		d.checkpoint = tender.Checkpoint()
		events = events[:fit(events, tended.Room)]
	}
	size := len(events)
	if _, ok := d.Sink.(sink.Parallel); ok && !d.Batch {
		size = 1
	}
	for i := 0; ; i += size {
		if err := d.Sink.Deliver(ctx, events[i:i+size]); err != nil {
			AssertNoSecret(t, err, d.Secrets...)
			return 0, err
		}
		if i+size == len(events) {
			return len(events), nil
		}
	}
}

// fit is how many events go into room bytes, at least one.
func fit(events []event.Logged, room int64) int {
	for i := range events {
		if room -= int64(len(events[i].JSON) + 1); room < 0 && i > 0 {
			return i
		}
	}
	return len(events)
}

// mustSend sends and commits.
func (d *delivery) mustSend(t *testing.T, n int) {
	t.Helper()
	for end := d.position + n; ; {
		sent, err := d.send(t, t.Context(), end-d.position)
		if err != nil {
			t.Fatalf("Deliver of %d events from %d: %v", end-d.position, d.position, err)
		}
		d.position += sent
		d.commit(t)
		if d.position == end {
			return
		}
	}
}

// checkExact checks that each committed event has arrived once, and nothing else.
func (d *delivery) checkExact(t *testing.T) {
	t.Helper()
	got := d.Received(t)
	for i := range max(len(got), d.position) {
		switch {
		case i >= len(got):
			t.Fatalf("event %d has not arrived", i)
		case i >= d.position:
			t.Fatalf("too much has arrived: %s", got[i])
		case !bytes.Equal(got[i], d.log[i].JSON):
			t.Fatalf("event %d arrived as\n%s\nand should be\n%s", i, got[i], d.log[i].JSON)
		}
	}
}

// check is checkExact for sinks that promise it, and for the others: every
// committed event has arrived whole, in order of first arrival, perhaps more
// than once.
func (d *delivery) check(t *testing.T) {
	t.Helper()
	if _, ok := d.Sink.(sink.Resumer); ok {
		d.checkExact(t)
		return
	}
	next := 0
	for _, line := range d.Received(t) {
		h, err := event.ParseHeader(line)
		if err != nil {
			t.Fatalf("arrived: %s\n%v", line, err)
		}
		i := int(h.Sequence)
		switch {
		case i > next:
			t.Fatalf("event %d arrived before event %d", i, next)
		case !bytes.Equal(line, d.log[i].JSON):
			t.Fatalf("event %d arrived as\n%s\nand should be\n%s", i, line, d.log[i].JSON)
		case i == next:
			next++
		}
	}
	if next < d.position {
		t.Fatalf("event %d has not arrived", next)
	}
}

func testBytesAndOrder(t *testing.T, d *delivery) {
	d.mustSend(t, 1)
	d.checkExact(t)
	if _, ok := d.Sink.(sink.Parallel); !ok {
		d.mustSend(t, 0)
	}
	d.mustSend(t, 7)
	d.mustSend(t, 12)
	d.checkExact(t)
}

func testNothingKept(t *testing.T, d *delivery) {
	// The log's bytes may be mapped memory that is gone after Deliver.
	intact := d.log
	deliver := func() (int, error) {
		d.log = clone(intact)
		sent := d.log
		n, err := d.send(t, t.Context(), 5)
		for i, e := range sent {
			if !bytes.Equal(e.JSON, intact[i].JSON) || e.Header != intact[i].Header {
				t.Errorf("Deliver has changed event %d", i)
			}
			clear(sent[i].JSON)
			sent[i].Header = event.Header{}
		}
		d.log = intact
		return n, err
	}
	d.Break(t)
	if _, err := deliver(); err == nil {
		t.Fatal("Deliver to a broken receiver returned nil")
	}
	d.Repair(t)
	d.resume(t)
	n, err := deliver()
	if err != nil {
		t.Fatal(err)
	}
	d.position += n
	d.commit(t)
	d.mustSend(t, 5)
	d.check(t)
}

func testCancelledBefore(t *testing.T, d *delivery) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.send(t, ctx, 3); !errors.Is(err, context.Canceled) {
		t.Fatalf("Deliver with a cancelled context: %v", err)
	}
	d.checkExact(t)
	d.resume(t)
	d.mustSend(t, 3)
	d.checkExact(t)
}

func testCancelledWhileStalled(t *testing.T, d *delivery) {
	if d.Stall == nil {
		t.Skip("this sink never waits for its receiver")
	}
	reached, release := d.Stall(t)
	cause := errors.New("the daemon stops")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := d.send(t, ctx, 1)
		done <- err
	}()
	<-reached
	cancel(cause)
	select {
	case err := <-done:
		if !errors.Is(err, cause) {
			t.Errorf("Deliver that was cancelled: %v", err)
		}
	case <-time.After(time.Hour): // the bubble's time, which goes on when everybody waits
		t.Fatal("Deliver goes on after its context has ended")
	}
	release()
	d.resume(t)
	d.mustSend(t, 4)
	d.check(t)
}

func testRedelivery(t *testing.T, d *delivery) {
	d.mustSend(t, 2)
	for range 3 {
		d.Break(t)
		for range 2 {
			_, err := d.send(t, t.Context(), 6)
			if err == nil {
				t.Fatal("Deliver to a broken receiver returned nil")
			}
			if e := sink.AsError(err); e.Kind != sink.Temporary {
				t.Fatalf("a broken receiver is a failure of kind %d: %v", e.Kind, err)
			}
		}
		d.Repair(t)
		d.resume(t)
		d.mustSend(t, 6)
		d.check(t)
	}
}

func testCrashBeforeCommit(t *testing.T, d *delivery) {
	if _, ok := d.Sink.(sink.Resumer); !ok {
		t.Skip("this sink has nothing to resume")
	}
	d.mustSend(t, 3)
	for range 3 {
		if _, err := d.send(t, t.Context(), 4); err != nil {
			t.Fatal(err)
		}
		if err := d.Sink.Close(); err != nil { // the kernel does it after a crash
			t.Fatal(err)
		}
		d.Sink = d.Reopen(t)
		if err := d.Sink.Deliver(t.Context(), d.log[d.position:d.position+1]); err == nil {
			t.Fatal("Deliver before Resume returned nil")
		}
		d.resume(t)
		d.checkExact(t)
	}
	d.mustSend(t, 5)
	d.checkExact(t)
}

func testParallel(t *testing.T, d *delivery) {
	p, ok := d.Sink.(sink.Parallel)
	if !ok {
		t.Skip("this sink is serial")
	}
	if p.Parallel() < 1 {
		t.Fatalf("Parallel() = %d", p.Parallel())
	}
	var wg sync.WaitGroup
	free := make(chan struct{}, p.Parallel())
	for i := range d.log {
		free <- struct{}{}
		wg.Go(func() {
			if err := p.Deliver(t.Context(), d.log[i:i+1]); err != nil {
				t.Error(err)
			}
			<-free
		})
	}
	wg.Wait()
	got := d.Received(t)
	slices.SortFunc(got, func(a, b []byte) int { return bytes.Compare(sequence(a), sequence(b)) })
	d.position = len(d.log)
	if !slices.EqualFunc(got, d.log, func(line []byte, e event.Logged) bool { return bytes.Equal(line, e.JSON) }) {
		t.Errorf("%d lines arrived for %d events, or other ones", len(got), len(d.log))
	}
}

// testRedeliver checks that an event that stands outside the order arrives as it
// is and with the reason, and that others do not.
func testRedeliver(t *testing.T, d *delivery) {
	p, ok := d.Sink.(sink.Parallel)
	if !ok {
		t.Skip("this sink writes in the order of the log")
	}
	var want []sink.Aside
	var wantLines []event.Logged
	for _, why := range []sink.Aside{0, sink.Replayed, 0, sink.RetriedDeadLetter, sink.Replayed, 0} {
		for _, size := range []int{1, 3} {
			if size > 1 && !d.Batch {
				continue
			}
			deliver := func(ctx context.Context) error {
				if why == 0 {
					return p.Deliver(ctx, d.log[:size])
				}
				return p.Redeliver(ctx, why, d.log[:size])
			}
			cancelled, cancel := context.WithCancel(t.Context())
			cancel()
			if err := deliver(cancelled); !errors.Is(err, context.Canceled) {
				t.Errorf("with a cancelled context: %v", err)
			}
			if err := deliver(t.Context()); err != nil {
				t.Fatal(err)
			}
			for i := range size {
				want, wantLines = append(want, why), append(wantLines, d.log[i])
			}
		}
	}
	if got := d.Asides(t); !slices.Equal(got, want) {
		t.Errorf("the receiver was told %v, and should have been told %v", got, want)
	}
	if got := d.Received(t); !slices.EqualFunc(got, wantLines, func(line []byte, e event.Logged) bool { return bytes.Equal(line, e.JSON) }) {
		t.Errorf("%d lines arrived for %d events, or other ones", len(got), len(wantLines))
	}
	d.Break(t)
	err := p.Redeliver(t.Context(), sink.Replayed, d.log[:1])
	if err == nil {
		t.Error("Redeliver to a broken receiver returned nil")
	}
	AssertNoSecret(t, err, d.Secrets...)
}

func sequence(line []byte) []byte {
	_, rest, _ := bytes.Cut(line, []byte(`"sequence":"`))
	return rest[:min(len(rest), 20)]
}
