package grace_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/grace"
)

type key struct{}

func TestContextOutlivesItsParentByTheGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, stop := context.WithTimeout(context.WithValue(t.Context(), key{}, 7), time.Hour)
		defer stop()
		late, cancel := grace.Context(parent, 5*time.Second)
		defer cancel()
		if _, ok := late.Deadline(); ok || late.Value(key{}) != 7 {
			t.Error("it has the parent's deadline, or not its values")
		}
		time.Sleep(2 * time.Hour) // past the parent's end by more than the grace
		synctest.Wait()
		if late.Err() == nil {
			t.Fatal("it goes on for ever")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		parent, stop := context.WithCancel(t.Context())
		late, cancel := grace.Context(parent, 5*time.Second)
		defer cancel()
		start := time.Now()
		stop()
		<-late.Done()
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("it ended %s after its parent", took)
		}
		if cause := context.Cause(late); cause == nil || cause == context.Canceled {
			t.Errorf("its cause does not say why: %v", cause)
		}
	})
}

func TestCancelLeavesNothingBehind(t *testing.T) {
	// A bubble ends only when all its goroutines have: a leaked one is an error.
	synctest.Test(t, func(t *testing.T) {
		parent, stop := context.WithCancel(t.Context())
		for _, first := range []func(){stop, func() {}} {
			late, cancel := grace.Context(parent, time.Hour)
			first()
			cancel()
			if late.Err() == nil {
				t.Error("it is not over")
			}
		}
		stop()
	})
}
