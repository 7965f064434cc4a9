package grace_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/grace"
)

type key struct{}

func TestContextEndsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithTimeout(context.WithValue(t.Context(), key{}, "kept"), time.Minute)
		defer end()
		late, cancel := grace.Context(ctx, 5*time.Second)
		defer cancel()
		if _, ok := late.Deadline(); ok || late.Value(key{}) != "kept" {
			t.Error("the deadline is kept, or the value is not")
		}
		began := time.Now()
		<-late.Done()
		if d := time.Since(began); d != time.Minute+5*time.Second {
			t.Errorf("ended after %s", d)
		}
		if err := context.Cause(late); !strings.Contains(err.Error(), "grace period") || !errors.Is(late.Err(), context.Canceled) {
			t.Errorf("cause %v, err %v", err, late.Err())
		}
	})
}

// TestCancelLeavesNothing: the bubble fails the test if a goroutine stays.
func TestCancelLeavesNothing(t *testing.T) {
	for _, ended := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			ctx, end := context.WithCancel(t.Context())
			late, cancel := grace.Context(ctx, time.Hour)
			if ended {
				end()
				synctest.Wait()
			}
			if late.Err() != nil {
				t.Error("ended with the context, without grace")
			}
			began := time.Now()
			cancel()
			cancel()
			<-late.Done()
			synctest.Wait()
			if time.Since(began) != 0 {
				t.Error("cancel waits")
			}
			end()
		})
	}
}

func TestContextThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		end()
		late, cancel := grace.Context(ctx, 5*time.Second)
		defer cancel()
		began := time.Now()
		<-late.Done()
		if d := time.Since(began); d != 5*time.Second {
			t.Errorf("ended after %s", d)
		}
	})
}
