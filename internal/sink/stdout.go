package sink

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"syncd/internal/event"
)

// maxKeptBuffer is how large a buffer may be to be kept for the next Deliver,
// so that one huge item does not stay in memory for good.
const maxKeptBuffer = 1 << 20

// Stdout writes events as lines to a stream that somebody else opened.
//
// A stream cannot take back what it has swallowed: when a write breaks off
// inside a line, the next Deliver first writes the rest of that line, and then
// all its own. The reader can so see an event twice, which every reader of this
// sink must expect, but never half a line with another one behind it.
//
// Several sinks may share one: their calls take turns. The sinks of one stream have
// to, for a line that one of them has torn is finished by whoever writes next.
//
// "Safe with the receiver" means written, no more: what a reader has not taken
// out of a pipe when it dies is lost with the pipe.
type Stdout struct {
	w io.Writer

	turn chan struct{} // of size 1: full while a Deliver runs

	// Owned by the one Deliver that runs.
	buf     []byte           // empty; kept for its memory
	rest    []byte           // what the stream still owes of a line it began
	pending chan writeResult // of a write that may outlive its Deliver; nil: none
}

var _ Sink = (*Stdout)(nil)

type writeResult struct {
	buf  []byte // what was to be written
	owed int    // how much of it ends a line that an earlier write began
	n    int    // how much of it was written
	err  error
}

// NewStdout returns a sink that writes to w, with one Write for each Deliver.
// It never closes w.
//
// Where w is the process's own standard output, the program must have taken
// over SIGPIPE (os/signal): left alone, it kills a Go program that writes to a
// closed standard output.
func NewStdout(w io.Writer) *Stdout { return &Stdout{w: w, turn: make(chan struct{}, 1)} }

// Deliver implements Sink. A reader that takes nothing blocks the write but not
// the caller: when ctx ends, Deliver leaves the write behind, and the next
// Deliver begins by waiting for it.
func (s *Stdout) Deliver(ctx context.Context, events []event.Logged) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if s.pending != nil {
		// Its events are handed over again even where they have all arrived,
		// since their Deliver failed. What counts is whether it tore a line.
		if err := s.wait(ctx); err != nil {
			return err
		}
	}
	buf := append(s.buf[:0], s.rest...)
	for i := range events {
		buf = append(buf, events[i].JSON...)
		buf = append(buf, '\n')
	}
	if len(buf) == 0 {
		return nil
	}
	s.buf = nil // it belongs to the writer until the result is here
	s.pending = make(chan writeResult, 1)
	go func(res writeResult, done chan<- writeResult) {
		res.n, res.err = s.w.Write(res.buf)
		done <- res
	}(writeResult{buf: buf, owed: len(s.rest)}, s.pending)
	return s.wait(ctx)
}

// wait takes the result of the pending write.
func (s *Stdout) wait(ctx context.Context) error {
	var res writeResult
	select {
	case res = <-s.pending:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.pending = nil
	if s.rest = res.unfinished(); s.rest == nil && cap(res.buf) <= maxKeptBuffer {
		s.buf = res.buf
	}
	if res.err == nil && res.n < len(res.buf) {
		res.err = io.ErrShortWrite
	}
	if res.err != nil {
		return fmt.Errorf("write events: %w", res.err)
	}
	return nil
}

// unfinished returns what is missing of the line that was being written when
// the write ended, with its newline; nil when it ended between two lines.
func (r *writeResult) unfinished() []byte {
	switch {
	case r.n < r.owed:
		return r.buf[r.n:r.owed]
	case r.n == 0, r.buf[r.n-1] == '\n':
		return nil
	}
	end := r.n + bytes.IndexByte(r.buf[r.n:], '\n') + 1
	return r.buf[r.n:end]
}

// Close implements Sink. It leaves the stream open.
func (s *Stdout) Close() error { return nil }
