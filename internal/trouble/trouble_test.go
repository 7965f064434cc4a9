package trouble_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/trouble"
)

func TestEachSortOfFailureIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, nil))
		var r trouble.Run
		r.Over(log, "works again") // no trouble, no line
		for i, what := range []string{"503", "503", "503", "timeout", "timeout"} {
			if n := r.Add(log, slog.LevelWarn, what, "failed", "what", what); n != i+1 {
				t.Errorf("failure %d counts as %d", i+1, n)
			}
			time.Sleep(time.Minute)
		}
		r.Over(log, "works again")
		r.Over(log, "works again")
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 3 || !strings.Contains(lines[0], "what=503") || !strings.Contains(lines[1], "what=timeout") ||
			!strings.Contains(lines[2], "after_failures=5 for=5m0s") {
			t.Errorf("logged:\n%s", out.String())
		}
		if n := r.Add(log, slog.LevelWarn, "503", "failed"); n != 1 {
			t.Errorf("after the end of the trouble a failure counts as %d", n)
		}
	})
}

func TestBackoffDoublesWithinItsBounds(t *testing.T) {
	for n, want := range map[int]time.Duration{0: time.Second, 1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 9: 4 * time.Minute, 10_000: 4 * time.Minute} {
		if got := trouble.Doubled(n, time.Second, 4*time.Minute); got != want {
			t.Errorf("the %dth wait is %s, want %s", n, got, want)
		}
		for range 100 {
			if got := trouble.Backoff(n, time.Second, 4*time.Minute); got > want || got < want*3/4 {
				t.Errorf("the %dth wait with jitter is %s of %s", n, got, want)
			}
		}
	}
}
