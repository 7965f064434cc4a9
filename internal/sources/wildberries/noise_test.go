package wildberries_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
)

// noises are counts that do not agree with each other: each takes the right number, and
// says what the marketplace does.
func noises(r *rand.Rand) map[string]func(n int) string {
	return map[string]func(n int) string{
		"of two servers, one behind": func(n int) string { return fmt.Sprint(max(n-r.IntN(2), 0)) },
		"now and then one off":       func(n int) string { return fmt.Sprint(n + max(r.IntN(10)-8, 0)) },
		"by a few":                   func(n int) string { return fmt.Sprint(n + r.IntN(5)) },
		"anything":                   func(int) string { return fmt.Sprint(r.IntN(1_000_000)) },
	}
}

// TestSweepOfNoise: counts that never agree with themselves cost a bounded number of
// requests in a day of a sweep every 15 minutes, and are said to; what changes is seen
// by the next full reading all the same, and the archive by every sweep.
func TestSweepOfNoise(t *testing.T) {
	// 96 runs. What differs at first is looked for in up to 127 parts, by two counts each,
	// and all of them are counted anew; the same where noise passes for none by chance.
	const most = 1000
	for _, stream := range datedStreams {
		for name := range noises(nil) {
			if stream == "questions" && name != "by a few" {
				continue // they differ by the archive alone
			}
			t.Run(stream+" "+name, func(t *testing.T) {
				synctest.Test(t, bubble(func(t *testing.T) {
					l := shop(stream, 1900, 45*time.Minute)
					l.counted = noises(rand.New(rand.NewPCG(1, 2)))[name]
					rd := l.reader(t, sources.Sweep)
					full := newReader(t, rd.source, stream, time.Time{}, threeHours)
					full.query.Walk, full.query.Window = sources.Full, sixtyDays
					full.run()
					rd.run()
					begin, requests, quiet := time.Now(), l.paths["/count"]+l.paths[""], 0
					moved := l.items[1000]
					for range 96 {
						time.Sleep(15 * time.Minute)
						if len(moved.moves) == 0 && time.Since(begin) > 10*time.Hour {
							moved.moves = []time.Time{time.Now()}
						}
						rd.notes = nil
						got := sweptBy(l, rd)
						if got["/archive"] == 0 && stream == "feedbacks" {
							t.Error("the archive was not read")
						}
						if got["/count"] == 0 {
							if quiet++; len(rd.notes) != 1 || !strings.Contains(rd.notes[0], "do not add up") {
								t.Errorf("a run without counts says %q", rd.notes)
							}
						}
					}
					requests = l.paths["/count"] + l.paths[""] - requests
					t.Logf("%d requests in a day, %d of 96 runs without counts", requests, quiet)
					if requests > most || quiet == 0 {
						t.Errorf("%d requests in a day, %d runs without counts", requests, quiet)
					}
					clear(full.seen)
					if full.run(); full.seen[moved.id] == 0 {
						t.Error("the change was not read by the full reading")
					}
				}))
			})
		}
	}
}

// TestSweepAfterNoise: once the counts are right again, so is the sweep: within a day,
// and from then on at once.
func TestSweepAfterNoise(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		l := shop("questions", 1900, 45*time.Minute)
		rd := l.reader(t, sources.Sweep)
		rd.run()
		l.counted = noises(rand.New(rand.NewPCG(1, 3)))["by a few"]
		for range 300 {
			time.Sleep(15 * time.Minute)
			rd.run()
		}
		l.counted = nil
		for range 96 {
			time.Sleep(15 * time.Minute)
			rd.run()
		}
		for i := range 12 {
			it := l.items[100+i*100]
			it.moves = append(it.moves, time.Now())
			time.Sleep(15 * time.Minute)
			if sweptBy(l, rd); rd.seen[it.id] == 0 {
				t.Errorf("change %d was not read by the next sweep: %.600s", i, rd.cursor)
			}
		}
	}))
}

// TestOneOddCount: a single change in the middle of the counting makes no run go
// without counts.
func TestOneOddCount(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		l := shop("questions", 1900, 45*time.Minute)
		rd := l.reader(t, sources.Sweep)
		rd.run()
		lie := 0
		l.counted = func(n int) string {
			lie--
			if lie == 0 {
				n += 3
			}
			return fmt.Sprint(n)
		}
		for i := range 60 {
			if lie = 0; i%3 == 0 {
				lie = 1 + i/3
			}
			time.Sleep(15 * time.Minute)
			if got := sweptBy(l, rd); got["/count"] == 0 {
				t.Fatalf("run %d does without counts", i)
			}
		}
	}))
}
