package wildberries_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/wildberries"
)

// meter counts what goes over the line.
type meter struct {
	http.RoundTripper
	requests, bytes int
}

func (m *meter) RoundTrip(r *http.Request) (*http.Response, error) {
	m.requests++
	resp, err := m.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = &metered{resp.Body, m}
	}
	return resp, err
}

type metered struct {
	io.ReadCloser
	m *meter
}

func (b *metered) Read(p []byte) (n int, err error) {
	n, err = b.ReadCloser.Read(p)
	b.m.bytes += n
	return n, err
}

// cost is what a run took.
type cost struct{ requests, bytes, items int }

func (m *meter) of(rd *reader) cost {
	before := *m
	clear(rd.seen)
	rd.run()
	return cost{m.requests - before.requests, m.bytes - before.bytes, len(rd.seen)}
}

// sweepCosts are those of a shop of n items in 60 days, of which one in 20 is not
// answered, with so many bytes of text each. A sweep begins after each pause. Without
// pauses the census does not move on.
func sweepCosts(t testing.TB, stream string, n, text int, pause func()) (full, idle, moved, ten, one cost) {
	l := &lists{stream: stream, text: strings.Repeat("x", text), sorted: true}
	for i := range n {
		it := &listItem{id: fmt.Sprintf("2ncBtX4B9I0UHoo%06d", i), created: ago(time.Duration(i+1) * (sixtyDays / time.Duration(n+1))), answered: i%20 > 0}
		if stream == wildberries.Feedbacks && time.Since(it.created) > 30*24*time.Hour {
			it.archived = it.created.Add(30 * 24 * time.Hour)
		}
		l.items = append(l.items, it)
	}
	m := &meter{RoundTripper: &direct{handler: l}}
	source := l.openThrough(t, 3, m)
	walk := func(w sources.Walk) *reader {
		rd := newReader(t, source, stream, time.Time{}, threeHours)
		rd.query.Walk, rd.query.Window = w, sixtyDays
		return rd
	}
	full = m.of(walk(sources.Full))
	if full.items != n {
		t.Fatalf("a full reading shows %d of %d", full.items, n)
	}
	sweep := walk(sources.Sweep)
	sweep.run()
	next := func() cost {
		if pause != nil {
			pause()
		}
		return m.of(sweep)
	}
	idle = next()
	for i := 0; pause != nil && i < 6; i++ { // about hourly the edge of the census moves on
		if c := next(); c.bytes > moved.bytes {
			moved = c
		}
	}
	answer := func(of int) cost {
		for i := range of {
			it := l.items[(i*n/of+n/(2*of))/20*20]
			it.moves = append(it.moves, time.Now())
		}
		c := next()
		for i := range of {
			if it := l.items[(i*n/of+n/(2*of))/20*20]; sweep.seen[it.id] == 0 {
				t.Errorf("%s was not read", it.id)
			}
		}
		return c
	}
	ten = answer(10)
	next()
	one = answer(1)
	return full, idle, moved, ten, one
}

// TestSweepCost: of 100,000 items an idle sweep reads at most 2 % of the bytes of a full
// reading, also where the census moves on; one that looks for ten answers to old items
// reads hardly more than the parts that they are in.
func TestSweepCost(t *testing.T) {
	for _, stream := range datedStreams {
		synctest.Test(t, bubble(func(t *testing.T) {
			full, idle, moved, ten, one := sweepCosts(t, stream, 100_000, 0, func() { time.Sleep(15 * time.Minute) })
			t.Logf("%s: full %+v, idle %+v, moved on %+v, ten answers %+v, one %+v", stream, full, idle, moved, ten, one)
			want := map[string]int{wildberries.Questions: 2, wildberries.Feedbacks: 3}[stream]
			if idle.requests != want || idle.bytes*50 > full.bytes || moved.bytes*50 > full.bytes {
				t.Errorf("%s: full %+v, idle %+v, moved on %+v", stream, full, idle, moved)
			}
			if ten.bytes*10 > full.bytes || one.bytes*100 > full.bytes {
				t.Errorf("%s: full %+v, ten answers %+v, one %+v", stream, full, ten, one)
			}
		}))
	}
}

// BenchmarkSweep reports what a sweep costs beside a full reading, of items of the size
// that they have in earnest: of 2,000 of them, and with SYNCD_E2E=full of 100,000, which
// takes minutes. It takes the time that the budget takes, so that ns/op says nothing.
func BenchmarkSweep(b *testing.B) {
	n := 2000
	if os.Getenv("SYNCD_E2E") == "full" {
		n = 100_000
	}
	for stream, text := range map[string]int{wildberries.Questions: 400, wildberries.Feedbacks: 1300} {
		b.Run(fmt.Sprint(stream, "/items=", n), func(b *testing.B) {
			for range b.N {
				full, idle, _, ten, one := sweepCosts(b, stream, n, text, nil)
				for name, c := range map[string]cost{"full": full, "idle": idle, "ten": ten, "one": one} {
					b.ReportMetric(float64(c.requests), name+"-requests")
					b.ReportMetric(float64(c.bytes), name+"-B")
				}
			}
		})
	}
}
