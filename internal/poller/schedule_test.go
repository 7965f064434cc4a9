package poller_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/poller"
	"syncd/internal/sources"
	"syncd/internal/state"
)

// Thousands of accounts begin over as long as their schedules allow, each stream
// at the same moment in every process; those of a new user at once.
func TestPhase(t *testing.T) {
	for _, test := range []struct {
		streams int
		expr    string
		over    time.Duration
	}{
		{1, "@every 5s", time.Second}, {6, "@every 1h", time.Second}, {100, "0 9 * * *", time.Second},
		{500, "@every 10m", 5 * time.Second}, {30_000, "@every 5s", 5 * time.Second}, {30_000, "@every 15s", 15 * time.Second},
		{30_000, "@every 10m", 5 * time.Minute}, {30_000, "0 9 * * *", time.Minute}, {30_000, "*/10 * * * * *", 10 * time.Second},
		{1_000_000, "@every 1s", time.Second}, {1_000_000, "@daily", time.Minute}, {1_000_000, "@every 1h", time.Hour},
	} {
		t.Run(fmt.Sprint(test.streams, test.expr), func(t *testing.T) {
			const accounts, parts = 5000, 20
			var in [parts]int
			for i := range accounts {
				id := state.StreamID{Account: fmt.Sprint("shop-", i), Stream: "questions"}
				d := poller.Phase(id, test.streams, test.expr)
				if d < 0 || d >= test.over {
					t.Fatalf("%s is put off by %s, and may be by %s", id, d, test.over)
				}
				if again := poller.Phase(id, test.streams, test.expr); again != d {
					t.Fatalf("%s is put off by %s, and then by %s", id, d, again)
				}
				in[d*parts/test.over]++
			}
			if least, most := slices.Min(in[:]), slices.Max(in[:]); least < accounts/parts*7/10 || most > accounts/parts*13/10 {
				t.Errorf("of %d streams between %d and %d begin in a twentieth of the time", accounts, least, most)
			}
		})
	}
}

// No tick is left out and none comes twice, however far the ticks are put off, and
// whenever the last poll was: each is behind it by a period at most.
func TestTick(t *testing.T) {
	begin := time.Date(2026, 3, 1, 8, 59, 30, 0, time.UTC)
	for _, test := range []struct {
		expr  string
		phase time.Duration
		want  []string
	}{
		{"0 9 * * *", 59 * time.Second, []string{"1 09:00:59", "2 09:00:59"}},
		{"0,1 * * * *", 59 * time.Second, []string{"1 09:00:59", "1 09:01:59", "1 10:00:59"}},
		{"0,1 * * * *", time.Minute, []string{"1 09:01:00", "1 09:02:00", "1 10:01:00"}},
		{"*/10 * * * * *", 9 * time.Second, []string{"1 08:59:39", "1 08:59:49"}},
		{"@every 1h", 20 * time.Minute, []string{"1 09:59:30", "1 10:59:30"}},
	} {
		at, got := begin, []string(nil)
		for range test.want {
			at = poller.Tick(test.expr, test.phase, begin, at)
			got = append(got, at.Format("2 15:04:05"))
			// Late by a slow run or a poll in between: the next one stays.
			if late := poller.Tick(test.expr, test.phase, begin, at.Add(-time.Millisecond)); !late.Equal(at) {
				t.Errorf("%s: %s, and a millisecond earlier %s", test.expr, at, late)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", test.expr, got, test.want)
		}
	}
	for _, set := range []time.Duration{-1000 * day, -time.Second, 0, time.Nanosecond, 1000 * day} { // the clock
		at := begin.Add(set)
		if next := poller.Tick("@every 15s", 0, begin, at); next.Sub(at) <= 0 || next.Sub(at) > 15*time.Second {
			t.Errorf("the tick behind %s is %s", at, next)
		}
	}
}

// Streams begin apart and stay so, also when an outage or an operator has once
// brought them together; and Status says when each is polled next.
func TestStreamsStayApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, period = 150, 10 * time.Second
		r := newRig(t)
		r.large = true
		var streams []poller.Stream
		var fakes []*fake
		for i := range n {
			f := newFake(t)
			f.seller = "seller-1"
			fakes = append(fakes, f)
			streams = append(streams, stream(fmt.Sprintf("questions-%03d", i), f, "@every 10s"))
		}
		began := time.Now()
		p, stop := r.run(streams...)
		defer stop()
		next := func(at time.Duration) { // each of the polls after at is where Status had it
			t.Helper()
			time.Sleep(time.Until(began.Add(at)))
			synctest.Wait()
			due := make([]time.Time, n)
			for i, s := range p.Status() {
				due[i] = s.Walks[0].Next
			}
			time.Sleep(period)
			synctest.Wait()
			var in [3]int // half seconds
			for i, f := range fakes {
				times := f.requests()
				last := times[len(times)-1]
				if !last.Equal(due[i]) {
					t.Fatalf("stream %d was to be polled at %s, and was at %s", i, due[i], last)
				}
				d := last.Sub(began) % period
				if d >= 1500*time.Millisecond {
					t.Fatalf("stream %d is polled %s after the others begin", i, d)
				}
				in[d/(500*time.Millisecond)]++
			}
			if slices.Min(in[:]) < n/4*7/10 {
				t.Errorf("streams that are polled in each half second: %v", in)
			}
		}
		next(3 * time.Second)
		next(time.Minute + 3*time.Second)
		if _, err := p.PollNow("shop-a", ""); err != nil {
			t.Fatal(err)
		}
		next(time.Minute + 43*time.Second)
		for _, f := range fakes {
			f.set(func() { f.fail = func(int) error { return failing(sources.Temporary, sources.ScopeRequest, 502) } })
		}
		time.Sleep(10 * time.Minute)
		for _, f := range fakes {
			f.set(func() { f.fail = nil })
		}
		time.Sleep(10 * time.Minute)
		next(time.Hour + 3*time.Second)
	})
}
