package wildberries_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/wildberries"
)

const day = 24 * time.Hour

// TestClaimsBeyondReach: after more than the 14 days that the API shows, the run says
// once from when to when claims may be missing; after less, or by our clock alone, it
// does not. One that a crash has cut is told by the run that comes after it.
func TestClaimsBeyondReach(t *testing.T) {
	for _, pause := range []time.Duration{time.Minute, 12 * day, 15 * day, 40 * day} {
		for _, cut := range []bool{false, true} {
			synctest.Test(t, bubble(func(t *testing.T) {
				l := &claimLists{}
				l.add(3, false)
				l.add(3, true)
				rd := newReader(t, l.open(t, 3), wildberries.Claims, time.Time{}, 0)
				rd.run()
				last := time.Now()
				rd.run()
				if cut {
					last = time.Now()
					rd.fetch()
				}
				time.Sleep(pause)
				back := time.Now()
				var told []string
				for range 5 {
					page, err := rd.source.Fetch(t.Context(), sources.Query{Stream: wildberries.Claims, Walk: sources.News, Cursor: rd.cursor, Now: time.Now().Add(30 * day)})
					if err != nil {
						t.Fatal(err)
					}
					if page.Note != "" && !page.Done {
						t.Errorf("in the middle of the run: %s", page.Note)
					}
					if rd.cursor = page.Cursor; page.Note != "" {
						told = append(told, page.Note)
					}
					time.Sleep(time.Minute)
				}
				if pause < 14*day {
					if len(told) > 0 {
						t.Errorf("%s: %q", pause, told)
					}
					return
				}
				var from, to time.Time
				if m := regexp.MustCompile(`claims created between (\S+) and (\S+) may be missing`).FindStringSubmatch(strings.Join(told, "")); m != nil {
					from, _ = time.Parse(time.RFC3339, m[1])
					to, _ = time.Parse(time.RFC3339, m[2])
				}
				if len(told) != 1 || from.Sub(last).Abs() > time.Minute || to.Sub(back.Add(-13*day)).Abs() > time.Minute {
					t.Errorf("%s, cut %v: %q", pause, cut, told)
				}
			}))
		}
	}
}

// TestClaimsOfAQuietFortnight: where the engine knows of a later run than the cursor, in
// which nothing had changed, nothing is missing; a time that is still to come says nothing.
func TestClaimsOfAQuietFortnight(t *testing.T) {
	for before, want := range map[time.Duration]int{time.Hour: 0, 12 * day: 0, 14 * day: 1, -time.Hour: 1} {
		synctest.Test(t, bubble(func(t *testing.T) {
			l := &claimLists{}
			l.add(3, false)
			rd := newReader(t, l.open(t, 3), wildberries.Claims, time.Time{}, 0)
			rd.run()
			time.Sleep(20 * day)
			rd.query.LastRun = time.Now().Add(-before)
			if rd.run(); len(rd.notes) != want {
				t.Errorf("a run %s ago: notes %q", before, rd.notes)
			}
		}))
	}
}

// TestBackAfterDays: after three days or forty without syncd, in the middle of whatever
// it did, everything that happened meanwhile and is still shown is read, late things
// too, while the world moves on.
func TestBackAfterDays(t *testing.T) {
	for _, pause := range []time.Duration{3 * day, 40 * day} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprint(pause, " chat_events ", seed), func(t *testing.T) {
				synctest.Test(t, bubble(func(t *testing.T) { backToEvents(t, pause, seed) }))
			})
			for _, stream := range datedStreams {
				t.Run(fmt.Sprint(pause, " ", stream, " ", seed), func(t *testing.T) {
					synctest.Test(t, bubble(func(t *testing.T) { backToLists(t, stream, pause, seed) }))
				})
			}
		}
	}
}

func backToEvents(t *testing.T, pause time.Duration, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 31))
	f := &feed{inclusive: seed%2 == 0, emptyNext: []string{"echo", "null", "", "0", "5"}[seed%5], size: fixed(20)}
	begin := time.Now()
	for i := range 400 {
		at := begin.Add(time.Duration(r.Int64N(int64(pause + 20*time.Minute)))).Truncate(time.Millisecond)
		for j := range 1 + r.IntN(4) {
			f.add(feedEvent{id: fmt.Sprintf("e%d-%d", i, j), ms: at.UnixMilli(), visible: at.Add(time.Duration(r.Int64N(int64(59 * time.Second))))})
		}
	}
	rd := newReader(t, f.open(t, 3), wildberries.ChatEvents, begin, time.Minute)
	for range 10 {
		rd.run()
		time.Sleep(30 * time.Second)
	}
	for range seed { // it may end in the middle of a run
		rd.fetch()
	}
	time.Sleep(pause)
	for time.Since(begin) < pause+25*time.Minute {
		rd.run()
		time.Sleep(5 * time.Second)
	}
	for _, e := range f.events {
		if rd.seen[e.id] == 0 {
			t.Errorf("%s of %s, visible since %s, was not read", e.id, time.UnixMilli(e.ms).UTC(), e.visible)
		}
	}
}

func backToLists(t *testing.T, stream string, pause time.Duration, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 32))
	l := &lists{stream: stream, take: 20, depth: 200, fromExclusive: seed%2 == 0, toExclusive: seed%3 == 0, seconds: seed%4 < 2}
	begin := time.Now()
	for i := range 800 {
		at := begin.Add(time.Duration(r.Int64N(int64(pause+20*time.Minute))) - time.Hour).Truncate(time.Second)
		it := &listItem{id: fmt.Sprint("q", i), created: at, visible: at.Add(time.Duration(r.Int64N(int64(threeHours - time.Minute)))), answered: r.IntN(2) == 0}
		if r.IntN(2) == 0 { // answered, or no longer; most likely while it is read
			it.moves = []time.Time{begin.Add(pause + time.Duration(r.Int64N(int64(40*time.Second))))}
		}
		l.items = append(l.items, it)
	}
	slices.SortStableFunc(l.items, func(a, b *listItem) int { return a.created.Compare(b.created) })
	rd := l.reader(t, sources.News)
	rd.query.Since = begin
	for range 10 {
		rd.run()
		time.Sleep(15 * time.Second)
	}
	for range seed {
		rd.fetch()
	}
	time.Sleep(pause - time.Since(begin))
	for time.Since(begin) < pause+4*time.Hour {
		rd.run()
		time.Sleep(2 * time.Minute)
	}
	for _, it := range l.items {
		if rd.seen[it.id] == 0 && !it.created.Before(begin) {
			t.Errorf("%s of %s, visible since %s, was not read", it.id, it.created, it.visible)
		}
	}
}
