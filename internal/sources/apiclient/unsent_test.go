package apiclient_test

import (
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources/apiclient"
)

// A request that never left used up nothing: a machine whose network comes up late
// loses no hour of a slow budget. One that left is paid for, before and after.
func TestUnsentRequestsCostNoHour(t *testing.T) {
	unsent := apiclient.Answer{Remaining: -1, Unsent: true}
	for _, restart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l := newLedger()
			p := start(t, l, hourly, 1)
			for range 3 {
				acquire(t, p).Answered(unsent)
				if restart {
					p = start(t, l, hourly, 1)
				}
			}
			begin := time.Now()
			acquire(t, p).Answered(answered)
			if d := time.Since(begin); d > time.Millisecond {
				t.Errorf("restart %t: the token comes back after %s", restart, d)
			}
			if restart {
				p = start(t, l, hourly, 1)
			}
			pause := time.Hour + 72*time.Second + 2*time.Second
			if d := next(t, p); !near(d, pause, time.Second) {
				t.Errorf("restart %t: after a request that left the next one may go in %s, want %s", restart, d, pause)
			}
			time.Sleep(pause + time.Second)
			acquire(t, p).Answered(unsent)
			begin = time.Now()
			acquire(t, p).Answered(answered)
			if d := time.Since(begin); d > time.Millisecond {
				t.Errorf("restart %t: the token comes back after %s", restart, d)
			}
		})
	}
}
