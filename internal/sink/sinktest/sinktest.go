// Package sinktest is the contract suite of sinks: what delivery relies on and
// every sink must do, whatever it sends to.
//
// A sink's own tests run it and add what is special about their medium. It
// proves nothing about speed, and nothing about crashes in the middle of a call.
package sinktest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"syncd/internal/event"
	"syncd/internal/sink"
)

// A Harness is a sink with the receiver behind it.
type Harness struct {
	// Sink is new: no method of it has been called. The suite closes it.
	Sink sink.Sink
	// Received returns what has arrived at the receiver so far: one element a
	// line or a body, in order of arrival, without newlines.
	Received func(t *testing.T) [][]byte
	// Break makes every Deliver fail, after a part of it may have arrived,
	// until Repair.
	Break, Repair func(t *testing.T)
	// Stall makes the receiver take nothing, so that Deliver blocks, until
	// release is called; reached receives when a Deliver has got that far. Nil
	// where Deliver never waits for anybody.
	Stall func(t *testing.T) (reached <-chan struct{}, release func())
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
	} {
		t.Run(test.name, func(t *testing.T) {
			d := &delivery{Harness: newHarness(t), log: Events(20)}
			d.resume(t)
			test.run(t, d)
			if err := d.Sink.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
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
	if r, ok := d.Sink.(sink.Resumer); ok {
		d.checkpoint = r.Checkpoint()
		if !json.Valid(d.checkpoint) {
			t.Fatalf("checkpoint is no JSON value: %q", d.checkpoint)
		}
	}
}

// send hands over the next n events, one a call where the sink wants that, and
// does not commit them.
func (d *delivery) send(ctx context.Context, n int) error {
	events := d.log[d.position : d.position+n]
	if _, ok := d.Sink.(sink.Parallel); !ok {
		return d.Sink.Deliver(ctx, events)
	}
	for i := range events {
		if err := d.Sink.Deliver(ctx, events[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// mustSend sends and commits.
func (d *delivery) mustSend(t *testing.T, n int) {
	t.Helper()
	if err := d.send(t.Context(), n); err != nil {
		t.Fatalf("Deliver of %d events from %d: %v", n, d.position, err)
	}
	d.position += n
	d.commit(t)
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
	deliver := func() error {
		d.log = clone(intact)
		sent := d.log
		err := d.send(t.Context(), 5)
		for i, e := range sent {
			if !bytes.Equal(e.JSON, intact[i].JSON) || e.Header != intact[i].Header {
				t.Errorf("Deliver has changed event %d", i)
			}
			clear(sent[i].JSON)
			sent[i].Header = event.Header{}
		}
		d.log = intact
		return err
	}
	d.Break(t)
	if deliver() == nil {
		t.Fatal("Deliver to a broken receiver returned nil")
	}
	d.Repair(t)
	d.resume(t)
	if err := deliver(); err != nil {
		t.Fatal(err)
	}
	d.position += 5
	d.commit(t)
	d.mustSend(t, 5)
	d.check(t)
}

func testCancelledBefore(t *testing.T, d *delivery) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.send(ctx, 3); !errors.Is(err, context.Canceled) {
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
	go func() { done <- d.send(ctx, 1) }()
	<-reached
	cancel(cause)
	select {
	case err := <-done:
		if !errors.Is(err, cause) {
			t.Errorf("Deliver that was cancelled: %v", err)
		}
	case <-time.After(10 * time.Second): // for a sink that hangs; no test that passes waits
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
			err := d.send(t.Context(), 6)
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
		if err := d.send(t.Context(), 4); err != nil {
			t.Fatal(err)
		}
		if err := d.Sink.Close(); err != nil { // the kernel does it after a crash
			t.Fatal(err)
		}
		d.Sink = d.Reopen(t)
		if err := d.send(t.Context(), 4); err == nil {
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

func sequence(line []byte) []byte {
	_, rest, _ := bytes.Cut(line, []byte(`"sequence":"`))
	return rest[:min(len(rest), 20)]
}

func clone(events []event.Logged) []event.Logged {
	events = slices.Clone(events)
	for i := range events {
		events[i].JSON = bytes.Clone(events[i].JSON)
	}
	return events
}

// Events returns n events with the sequences 0 to n-1. They are of different
// lengths, and their items hold what is awkward to send: escapes, other
// alphabets, numbers that no float can hold.
func Events(n int) []event.Logged {
	events := make([]event.Logged, n)
	for i := range events {
		item := fmt.Sprintf(`{"id":%d,"price":1.50e+02,"sum":12345678901234567890.10,"text":"Добрый день\n\"<&>\u2028\\ %d 😀","pad":%q}`,
			i, i, strings.Repeat("x", i*i%300))
		events[i] = Event(i, item)
	}
	return events
}

// Event returns an event with the given sequence about the given item.
func Event(sequence int, item string) event.Logged {
	at := time.Date(2026, 2, 2, 20, 46, 20, 0, time.UTC).Add(time.Duration(sequence) * time.Second)
	chat := fmt.Sprintf("1:%d", sequence%3)
	e := event.Event{
		ID:           event.ItemEventID("shop-a", "chat_events", event.Path(chat, fmt.Sprint("e", sequence))),
		Source:       event.Source("wildberries", "shop-a", "chat_events"),
		Type:         "wildberries.chat_event." + event.Created,
		Subject:      "chat/" + event.Path(chat),
		Time:         at,
		Recorded:     at.Add(1234 * time.Millisecond),
		Sequence:     uint64(sequence),
		PartitionKey: event.PartitionKey("shop-a", "chat/"+event.Path(chat)),
		Item:         json.RawMessage(item),
	}
	line := e.AppendJSON(nil)
	h, err := event.ParseHeader(line)
	if err != nil {
		panic(err)
	}
	return event.Logged{Header: h, JSON: line}
}

// Lines yields the lines of events, as delivery hands them to Resume. A line is
// overwritten when the next is asked for, like memory that is used again.
func Lines(events []event.Logged) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		var line []byte
		for i := range events {
			clear(line)
			line = append(line[:0], events[i].JSON...)
			if !yield(line, nil) {
				return
			}
		}
	}
}
