package clock_test

import (
	"bytes"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/clock"
)

var noon = time.Date(2026, 2, 2, 12, 0, 0, 0, time.UTC)

func config(last time.Time) (clock.Config, *bytes.Buffer) {
	var out bytes.Buffer
	return clock.Config{LastCommit: last, Log: slog.New(slog.NewTextHandler(&out, nil))}, &out
}

// §10: the clock is doubted where it starts before the last commit or more than a
// day past it.
func TestStart(t *testing.T) {
	for _, test := range []struct {
		name  string
		last  time.Time
		doubt string
	}{
		{"a new file", time.Time{}, ""},
		{"at the last commit", noon, ""},
		{"a moment before it", noon.Add(time.Millisecond), "1ms before the last commit"},
		{"years before it", noon.AddDate(56, 0, 0), "before the last commit"},
		{"a night past it", noon.Add(-12 * time.Hour), ""},
		{"a day past it", noon.Add(-24 * time.Hour), ""},
		{"more than a day past it", noon.Add(-24*time.Hour - time.Millisecond), "24h0m0s past the last commit"},
		{"an age past it", time.UnixMilli(1), "past the last commit"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg, out := config(test.last)
			w := clock.NewAt(cfg, noon)
			for range 3 {
				got := w.Doubt(noon, 0)
				if (got == "") != (test.doubt == "") || !strings.Contains(got, test.doubt) {
					t.Errorf("doubt %q, want %q", got, test.doubt)
				}
			}
			if said := strings.Count(out.String(), "level=WARN"); said != min(len(test.doubt), 1) {
				t.Errorf("said %d times: %s", said, out)
			}
		})
	}
}

// §10: the clock is doubted where it parts from the monotonic one by more than an
// hour, either way, and stays so until a Date agrees with it.
func TestParting(t *testing.T) {
	for _, test := range []struct {
		name  string
		wall  time.Duration // how far it went
		mono  time.Duration
		doubt string
	}{
		{"nothing has happened", 0, 0, ""},
		{"a month", 720 * time.Hour, 720 * time.Hour, ""},
		{"an hour forward", 2 * time.Hour, time.Hour, ""},
		{"more than an hour forward", 2*time.Hour + time.Millisecond, time.Hour, "1h0m0s forward"},
		{"an hour back", 0, time.Hour, ""},
		{"more than an hour back", -time.Millisecond, time.Hour, "1h0m0s back"},
		{"asleep over night", 9 * time.Hour, time.Minute, "8h59m0s forward by itself: it was set, or the machine was suspended"},
		{"back to 1970", -noon.Sub(time.Unix(0, 0)), time.Hour, "back"},
		{"as far as can be", math.MaxInt64, 0, "forward"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg, out := config(noon)
			w := clock.NewAt(cfg, noon)
			wall, mono := noon.Add(test.wall), test.mono
			for range 3 {
				got := w.Doubt(wall, mono)
				if (got == "") != (test.doubt == "") || !strings.Contains(got, test.doubt) {
					t.Errorf("doubt %q, want %q", got, test.doubt)
				}
			}
			if test.doubt == "" {
				if out.Len() > 0 {
					t.Errorf("said %s", out)
				}
				return
			}
			// That it goes back to where it should be proves nothing.
			if w.Doubt(noon.Add(test.mono), mono) == "" {
				t.Error("trusted again, and nobody has confirmed it")
			}
			w.Heard(wall, mono, wall.Add(-6*time.Minute))
			w.Heard(wall, mono, wall.Add(6*time.Minute))
			if got := w.Doubt(wall, mono); !strings.Contains(got, test.doubt) || wall.Year() >= 2000 && !strings.Contains(got, "Date says") {
				t.Errorf("contradicted: doubt %q, want %q", got, test.doubt)
			}
			if wall.Year() < 2000 {
				return // no Date agrees with that
			}
			w.Heard(wall, mono, wall)
			if got := w.Doubt(wall, mono); got != "" {
				t.Errorf("confirmed: doubt %q", got)
			}
			for said, want := range map[string]int{"level=WARN": 2, "nothing is deleted": 1, "wrong by a marketplace": 1, "level=INFO": 1} {
				if n := strings.Count(out.String(), said); n != want {
					t.Errorf("%q is %d times in\n%s", said, n, out)
				}
			}
			// The next doubt counts from here.
			if got := w.Doubt(wall.Add(-2*time.Hour), mono); !strings.Contains(got, "2h0m0s back") {
				t.Errorf("two hours back later: doubt %q", got)
			}
		})
	}
}

// A Date confirms the clock if it can be that of an answer that comes now.
func TestHeard(t *testing.T) {
	late := noon.Add(48 * time.Hour)
	for _, test := range []struct {
		name    string
		clock   time.Time
		date    time.Time
		trusted bool
	}{
		{"none", late, time.Time{}, false},
		{"this second", late, late.Truncate(time.Second), true},
		{"of a slow answer", late, late.Add(-31 * time.Second), true},
		{"of a marketplace that is ahead", late, late.Add(4 * time.Minute), true},
		{"of a clock ten minutes ahead of ours", late, late.Add(10 * time.Minute), false},
		{"of a clock ten minutes behind ours", late, late.Add(-10 * time.Minute), false},
		{"of another year", late, noon.AddDate(-1, 0, 0), false},
		{"of a box that has no clock either", time.Unix(100, 0), time.Unix(100, 0), false},
		{"as far back as can be", late, time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC), false},
		{"as far ahead as can be", late, time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg, _ := config(noon)
			w := clock.NewAt(cfg, test.clock)
			if w.Doubt(test.clock, 0) == "" {
				t.Fatal("trusted from the start")
			}
			w.Heard(test.clock, 0, test.date)
			if got := w.Doubt(test.clock, 0); (got == "") != test.trusted {
				t.Errorf("doubt %q", got)
			}
		})
	}
}

// A Date that contradicts a clock which has given no reason for doubt gives none:
// a marketplace may be wrong.
func TestHeardWithoutDoubt(t *testing.T) {
	cfg, out := config(noon)
	w := clock.NewAt(cfg, noon)
	w.Heard(noon, 0, noon.AddDate(1, 0, 0))
	if got := w.Doubt(noon, 0); got != "" || out.Len() > 0 {
		t.Errorf("doubt %q, said %s", got, out)
	}
}

// A machine that sleeps half an hour now and then is not out of step as long as
// marketplaces confirm its clock in between, and is when they do not.
func TestManySleeps(t *testing.T) {
	for _, heard := range []bool{true, false} {
		cfg, _ := config(noon)
		w := clock.NewAt(cfg, noon)
		wall, mono := noon, time.Duration(0)
		for range 10 {
			wall, mono = wall.Add(time.Hour), mono+30*time.Minute
			if heard {
				w.Heard(wall, mono, wall)
			}
		}
		if got := w.Doubt(wall, mono); (got == "") != heard {
			t.Errorf("heard %t: doubt %q", heard, got)
		}
	}
}

// An answer shows a parting too, not only who asks.
func TestHeardSeesParting(t *testing.T) {
	cfg, out := config(noon)
	w := clock.NewAt(cfg, noon)
	w.Heard(noon.Add(3*time.Hour), time.Minute, noon.Add(time.Minute))
	if got := w.Doubt(noon.Add(time.Minute), time.Minute); !strings.Contains(got, "2h59m0s forward") || !strings.Contains(got, "Date says 2026-02-02T12:01:00Z") {
		t.Errorf("doubt %q, said %s", got, out)
	}
}

func TestPartingOfReadings(t *testing.T) {
	for _, test := range []struct{ wall, mono, want time.Duration }{
		{time.Hour, time.Hour, 0}, {time.Hour, 0, time.Hour}, {0, time.Hour, -time.Hour}, {-time.Hour, time.Hour, -2 * time.Hour},
	} {
		if got := clock.Parting(noon, time.Minute, noon.Add(test.wall), time.Minute+test.mono); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
	old, far := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
	if a, b := clock.Parting(old, 0, far, time.Hour), clock.Parting(far, 0, old, time.Hour); a != math.MaxInt64 || b != math.MinInt64 {
		t.Error("further than a Duration can say:", a, b)
	}
}

// By the clocks of the machine, which agree, and from many goroutines.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, out := config(time.Now().Add(time.Hour))
		w := clock.New(cfg)
		if w.Trusted() || w.Doubt() == "" {
			t.Error("trusted from the start")
		}
		time.Sleep(25 * time.Hour)
		if w.Trusted() {
			t.Error("trusted, for no reason")
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				w.Heard(time.Time{})
				w.Heard(time.Now().Truncate(time.Second))
				if !w.Trusted() || w.Doubt() != "" {
					t.Error("not trusted:", w.Doubt())
				}
			})
		}
		wg.Wait()
		time.Sleep(1000 * time.Hour)
		if !w.Trusted() || strings.Count(out.String(), "\n") != 2 {
			t.Errorf("%q, said %s", w.Doubt(), out)
		}
	})
}

func BenchmarkHeard(b *testing.B) {
	w := clock.New(clock.Config{Log: slog.New(slog.DiscardHandler)})
	b.RunParallel(func(pb *testing.PB) {
		date := time.Now()
		for pb.Next() {
			w.Heard(date)
		}
	})
}
