package sink_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"syscall"
	"testing"

	"syncd/internal/sink"
	"syncd/internal/sink/sinktest"
)

// stream is a writer that can break and stall.
type stream struct {
	mu      sync.Mutex // held while stalled
	reached chan struct{}
	taken   bytes.Buffer
	accept  int   // bytes until err; negative: no limit
	err     error // nil: a short write without a reason
	writes  int
}

func (s *stream) Write(p []byte) (int, error) {
	select {
	case s.reached <- struct{}{}:
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	if s.accept < 0 || len(p) <= s.accept {
		return s.taken.Write(p)
	}
	n, _ := s.taken.Write(p[:s.accept])
	s.accept = 0
	return n, s.err
}

func (s *stream) allow(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accept = n
}

func (s *stream) lines(t *testing.T) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return splitLines(t, s.taken.Bytes())
}

// splitLines fails the test when the last line has no newline.
func splitLines(t *testing.T, b []byte) [][]byte {
	t.Helper()
	if len(b) == 0 {
		return nil
	}
	body, ok := bytes.CutSuffix(b, []byte("\n"))
	if !ok {
		t.Fatalf("torn at the end: %q", b[max(0, len(b)-80):])
	}
	return bytes.Split(bytes.Clone(body), []byte("\n"))
}

func TestStdoutContract(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) *sinktest.Harness {
		s := &stream{accept: -1, err: syscall.EPIPE, reached: make(chan struct{}, 1)}
		return &sinktest.Harness{
			Sink:     sink.NewStdout(s),
			Received: s.lines,
			Break:    func(*testing.T) { s.allow(100) },
			Repair:   func(*testing.T) { s.allow(-1) },
			Stall: func(*testing.T) (<-chan struct{}, func()) {
				s.mu.Lock()
				return s.reached, s.mu.Unlock
			},
		}
	})
}

// Wherever a write breaks off, and wherever the one that mends it breaks off,
// the stream holds whole lines in the end, and each event at least once.
func TestStdoutTornLine(t *testing.T) {
	events := sinktest.Events(2)
	var want []byte
	for _, e := range events {
		want = append(append(want, e.JSON...), '\n')
	}
	for _, reason := range []error{nil, syscall.EPIPE} {
		for first := range len(want) {
			for _, second := range []int{0, 1, 50, len(want) - 1} {
				s := &stream{accept: first, err: reason}
				out := sink.NewStdout(s)
				for range 2 {
					if err := out.Deliver(t.Context(), events); err == nil {
						t.Fatalf("breaks at %d, %d: Deliver returned nil", first, second)
					} else if reason == nil && !errors.Is(err, io.ErrShortWrite) || reason != nil && !errors.Is(err, reason) {
						t.Fatalf("breaks at %d, %d: %v", first, second, err)
					}
					s.allow(second)
				}
				s.allow(-1)
				if err := out.Deliver(t.Context(), events); err != nil {
					t.Fatal(err)
				}
				if !bytes.HasSuffix(s.taken.Bytes(), want) {
					t.Fatalf("breaks at %d, %d: the end is not the events", first, second)
				}
				for _, line := range s.lines(t) {
					if !bytes.Equal(line, events[0].JSON) && !bytes.Equal(line, events[1].JSON) {
						t.Fatalf("breaks at %d, %d: a line is %s", first, second, line)
					}
				}
			}
		}
	}
}

func TestStdoutOneWriteADeliver(t *testing.T) {
	s := &stream{accept: -1}
	out := sink.NewStdout(s)
	for range 3 {
		if err := out.Deliver(t.Context(), sinktest.Events(10)); err != nil {
			t.Fatal(err)
		}
	}
	if s.writes != 3 {
		t.Errorf("%d writes for 3 Delivers", s.writes)
	}
}

// A stalled reader must not hold up later Delivers whose context ends either.
func TestStdoutStalledTwice(t *testing.T) {
	s := &stream{accept: -1, reached: make(chan struct{}, 1)}
	out := sink.NewStdout(s)
	events := sinktest.Events(1)
	s.mu.Lock()
	for i := range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- out.Deliver(ctx, events) }()
		if i == 0 {
			<-s.reached
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Deliver that was cancelled: %v", err)
		}
	}
	s.mu.Unlock()
	if err := out.Deliver(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	for _, line := range s.lines(t) {
		if !bytes.Equal(line, events[0].JSON) {
			t.Errorf("a line is %s", line)
		}
	}
}

// Sinks that share a stream take turns, also while it stalls and breaks: no line is
// torn by another.
func TestStdoutShared(t *testing.T) {
	s := &stream{accept: -1, err: syscall.EPIPE}
	out := sink.NewStdout(s)
	events := sinktest.Events(3)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 50 {
				s.allow(7 * i)
				ctx, cancel := context.WithCancel(t.Context())
				if i%5 == 0 {
					cancel()
				}
				_ = out.Deliver(ctx, events) // it fails where it was broken off
				cancel()
			}
		})
	}
	wg.Wait()
	s.allow(-1)
	if err := out.Deliver(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	whole := make(map[string]bool)
	for _, e := range events {
		whole[string(e.JSON)] = true
	}
	for _, line := range s.lines(t) {
		if !whole[string(line)] {
			t.Fatalf("a line is %s", line)
		}
	}
}
