package trouble_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/trouble"
)

// TestRun: the first failure of each sort, and the end, once all has been quiet
// for a while.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
		var r trouble.Run
		r.Worked(log, "never was any")
		began := time.Now().UTC()
		for i, sort := range []string{"", "", "a", "a", "b", "a"} {
			if n := r.Add(log, slog.LevelWarn, sort, "failed", "what", sort); n != i+1 {
				t.Errorf("failure %d in a row is counted as %d", i+1, n)
			}
			time.Sleep(time.Minute)
		}
		r.Worked(log, "works again")
		r.Worked(log, "works again")
		for range 1000 { // what fails and works by turns is one trouble
			if n := r.Add(log, slog.LevelError, "a", "failed", "what", "a"); n != 1 {
				t.Errorf("after a success a failure is counted as %d", n)
			}
			time.Sleep(time.Second)
			r.Worked(log, "works again")
		}
		time.Sleep(time.Minute)
		r.Worked(log, "works again")
		for i := range 1000 {
			r.Add(log, slog.LevelDebug-100, strings.Repeat("x", i), "failed")
		}
		r.Worked(log, "works again")
		end := func(after, since, last time.Duration) string {
			return fmt.Sprintf("level=INFO msg=\"works again\" after_failures=%d since=%s last_failure=%s\n", after,
				began.Add(since).Format(time.RFC3339), began.Add(last).Format(time.RFC3339))
		}
		want := `level=WARN msg=failed what=""
level=WARN msg=failed what=a
level=WARN msg=failed what=b
` + end(6, 0, 5*time.Minute) + `level=ERROR msg=failed what=a
` + end(1000, 6*time.Minute, 6*time.Minute+999*time.Second) + end(1000, 7*time.Minute+1000*time.Second, 7*time.Minute+1000*time.Second)
		if out.String() != want {
			t.Errorf("logged\n%s\nexpected\n%s", out.String(), want)
		}
	})
}

func TestBackoff(t *testing.T) {
	for n, want := range map[int]time.Duration{-1: time.Second, 0: time.Second, 1: time.Second, 2: 2 * time.Second, 6: 32 * time.Second, 7: time.Minute, 1000: time.Minute, math.MaxInt: time.Minute} {
		if got := trouble.Doubled(n, time.Second, time.Minute); got != want {
			t.Errorf("doubled %d: %s, expected %s", n, got, want)
		}
		for range 100 {
			if got := trouble.Backoff(n, time.Second, time.Minute); got > want || got < want*3/4 {
				t.Errorf("backoff %d: %s, expected %s less up to a quarter", n, got, want)
			}
		}
	}
	if got := trouble.Doubled(80, time.Second, math.MaxInt64); got != math.MaxInt64 {
		t.Errorf("doubled beyond all numbers: %s", got)
	}
	if got := trouble.Backoff(3, time.Minute, time.Second); got > time.Second || got <= 0 {
		t.Errorf("lowest above highest: %s", got)
	}
}
