package wildberries_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/wildberries"
)

// feed is a strict fake of GET seller/events.
type feed struct {
	t         *testing.T
	events    []feedEvent // by ms, then as added
	inclusive bool
	size      func() int // of the next page
	emptyNext string     // JSON; "echo", or "" for absent
	timeless  bool       // events hold no time
	repeat    bool       // the same page whatever next says
	dateless  bool       // answers hold no Date
	requests  int
}

type feedEvent struct {
	id      string
	ms      int64
	visible time.Time
	raw     string // instead of the usual form
	removed bool   // it takes its place on a page, and is not shown
}

func (f *feed) add(e ...feedEvent) {
	f.events = append(f.events, e...)
	sort.SliceStable(f.events, func(i, j int) bool { return f.events[i].ms < f.events[j].ms })
}

func (f *feed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.requests++
	query := r.URL.Query()
	next := int64(-1)
	if r.URL.Path != "/api/v1/seller/events" || len(query) > 1 || strings.HasPrefix(r.Header.Get("Authorization"), "Bearer") {
		f.t.Errorf("unexpected request %s %v", r.URL, r.Header)
	}
	if s := query.Get("next"); s != "" {
		var err error
		if next, err = strconv.ParseInt(s, 10, 64); err != nil || next <= 0 {
			f.t.Errorf("next=%s is refused by the API", s)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
	}
	if f.dateless {
		w.Header().Del("Date")
	}
	var page []string
	last, size, now, placed := next, f.size(), time.Now(), 0
	for _, e := range f.events {
		if e.visible.After(now) || !f.repeat && (e.ms < next || e.ms == next && !f.inclusive) {
			continue
		}
		if placed++; placed > size {
			break
		}
		last = e.ms
		switch {
		case e.removed:
		case e.raw != "":
			page = append(page, e.raw)
		case f.timeless:
			page = append(page, fmt.Sprintf(`{"chatID":"1:c","eventID":%q}`, e.id))
		default:
			page = append(page, fmt.Sprintf(`{"chatID":"1:c","eventID":%q,"eventType":"message","addTimestamp":%d,"addTime":%q}`, e.id, e.ms, time.UnixMilli(e.ms).UTC().Format(time.RFC3339)))
		}
	}
	head := fmt.Sprintf(`"next":%d,`, last)
	if placed == 0 && f.emptyNext != "echo" {
		if head = ""; f.emptyNext != "" {
			head = `"next":` + f.emptyNext + ","
		}
	}
	fmt.Fprintf(w, `{"result":{%s"newestEventTime":null,"totalEvents":%d,"events":[%s]},"errors":null}`, head, len(page), strings.Join(page, ","))
}

func fixed(n int) func() int { return func() int { return n } }

func (f *feed) open(t *testing.T, acc int) *wildberries.Client {
	f.t = t
	return open(t, &direct{handler: f}, token(acc))
}

// TestEventsProperty: random worlds that grow while they are read, with crashes
// back to any earlier cursor. Every event that stays visible for two runs is
// read, Newest never moves back, no run is endless.
func TestEventsProperty(t *testing.T) {
	for seed := range uint64(50) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) { eventsWorld(t, seed) }))
		})
	}
}

func eventsWorld(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 4))
	f := &feed{inclusive: r.IntN(2) == 0, emptyNext: []string{"echo", "null", "", "0", "5"}[r.IntN(5)]}
	low := 2 + r.IntN(59)
	f.size = fixed(low)
	if r.IntN(3) == 0 {
		f.size = func() int { return low + r.IntN(61-low) } // varying
	}
	acc, gap, overlap := 3, 5*time.Second, time.Minute
	if r.IntN(4) == 0 {
		acc, gap = 1, time.Minute // Base: a request an hour
	}
	f.dateless = r.IntN(8) == 0
	crashes := r.IntN(2) == 0
	begin := time.Now()
	group := func(at time.Time, visible time.Time) {
		for i := range 1 + r.IntN(min(low, 4)) { // never more of one millisecond than a page holds
			f.add(feedEvent{id: fmt.Sprintf("e%d-%d", len(f.events), i), ms: at.UnixMilli(), visible: visible})
		}
	}
	for range r.IntN(120) {
		at := begin.Add(-time.Duration(r.Int64N(int64(200 * 24 * time.Hour)))).Truncate(time.Millisecond)
		if r.IntN(3) == 0 {
			at = begin.Add(-time.Duration(r.Int64N(int64(90 * time.Second)))).Truncate(time.Millisecond)
		}
		group(at, at)
	}
	span := 10 * time.Minute
	if acc == 1 {
		span = 40 * time.Hour
	}
	for range 20 + r.IntN(100) {
		at := begin.Add(time.Duration(r.Int64N(int64(span)))).Truncate(time.Millisecond)
		late := time.Duration(0)
		if r.IntN(3) == 0 {
			late = time.Duration(r.Int64N(int64(overlap - time.Second)))
		}
		group(at, at.Add(late))
	}
	rd := newReader(t, f.open(t, acc), wildberries.ChatEvents, time.Time{}, overlap)
	shown := make(map[string]int) // complete runs that began after the event was visible
	var newest int64
	for time.Since(begin) < span+3*gap || slices.ContainsFunc(f.events, func(e feedEvent) bool { return shown[e.id] < 2 }) {
		if crashes && len(rd.saved) > 0 && r.IntN(6) == 0 {
			rd.cursor = rd.saved[r.IntN(len(rd.saved))]
			newest = 0
			clear(shown)
			if crashes = r.IntN(20) > 0; r.IntN(4) == 0 {
				time.Sleep(7 * 24 * time.Hour)
			}
		}
		stop := r.IntN(30) // perhaps in the middle of the run
		var done bool
		var began time.Time
		for i := 0; !done; i++ {
			page := rd.fetch()
			var c struct{ Newest int64 }
			if err := json.Unmarshal(page.Cursor, &c); err != nil || c.Newest < newest {
				t.Fatalf("Newest went from %d back to %d (%v)", newest, c.Newest, err)
			}
			newest = c.Newest
			done, began = page.Done, page.Began
			if i > 5000 {
				t.Fatalf("endless run: %s", page.Cursor)
			}
			if crashes && i == stop {
				break
			}
		}
		if done {
			for _, e := range f.events {
				if e.visible.After(began) || rd.seen[e.id] > 0 {
					if rd.seen[e.id] > 0 {
						shown[e.id] = 2
					}
					continue
				}
				if shown[e.id]++; shown[e.id] == 2 {
					t.Fatalf("event %s of %s, visible since %s, was not read in two runs (now %s; inclusive %v, page %d, acc %d); cursor %s", e.id, time.UnixMilli(e.ms).UTC().Format(time.StampMilli),
						e.visible.Format(time.StampMilli), time.Now().Format(time.StampMilli), f.inclusive, low, acc, rd.cursor)
				}
			}
		}
		time.Sleep(gap)
	}
	for _, note := range rd.notes { // a young feed may hold no more than one millisecond
		if !strings.Contains(note, "if there are more of them") {
			t.Errorf("a note about a healthy feed: %q", note)
		}
	}
}

// TestIdlePollIsOneRequest, whatever the API does with `next`.
func TestIdlePollIsOneRequest(t *testing.T) {
	for _, inclusive := range []bool{false, true} {
		for _, emptyNext := range []string{"echo", "null", "", "0", "1"} {
			for _, since := range []string{"beginning", "now"} {
				for _, n := range []int{0, 1, 2, 3, 30} {
					t.Run(fmt.Sprintf("inclusive %v, next %q, start %s, %d events", inclusive, emptyNext, since, n), func(t *testing.T) {
						synctest.Test(t, bubble(func(t *testing.T) {
							f := &feed{inclusive: inclusive, emptyNext: emptyNext, size: fixed(50)}
							for i := range 60 + n { // a page was full once
								at := time.Now().Add(-time.Duration(100*24-i) * time.Hour)
								if i >= 60 {
									at = time.Now().Add(-time.Duration(100-i) * time.Second)
								}
								f.add(feedEvent{id: fmt.Sprint("e", i), ms: at.UnixMilli()})
							}
							start := time.Time{}
							if since == "now" {
								start = time.Now()
							}
							rd := newReader(t, f.open(t, 3), wildberries.ChatEvents, start, time.Minute)
							for range 3 {
								rd.run()
								time.Sleep(5 * time.Second)
							}
							for i := range 6 {
								if got, _ := rd.run(); got != 1 {
									t.Errorf("idle run %d took %d requests: %s", i, got, rd.cursor)
								}
								time.Sleep(5 * time.Second)
							}
						}))
					})
				}
			}
		}
	}
}

// TestEventsStart: an event not older than `start` is read, wherever the walk begins.
func TestEventsStart(t *testing.T) {
	for _, inclusive := range []bool{false, true} {
		for _, overlap := range []time.Duration{0, time.Millisecond, time.Minute} {
			synctest.Test(t, bubble(func(t *testing.T) {
				f := &feed{inclusive: inclusive, size: fixed(50), emptyNext: "null"}
				start := time.Now()
				for i := range 200 {
					f.add(feedEvent{id: fmt.Sprint("old", i), ms: start.Add(-time.Duration(i+1) * time.Hour).UnixMilli()})
				}
				f.add(feedEvent{id: "first", ms: start.UnixMilli()}, feedEvent{id: "twin", ms: start.UnixMilli(), visible: start.Add(time.Second)})
				rd := newReader(t, f.open(t, 3), wildberries.ChatEvents, start, overlap)
				rd.run()
				time.Sleep(5 * time.Second)
				rd.run()
				rd.run()
				if rd.seen["first"] == 0 || rd.seen["twin"] == 0 || len(rd.seen) > 3 {
					t.Errorf("inclusive %v, overlap %s: read %v", inclusive, overlap, rd.seen)
				}
			}))
		}
	}
}

// TestMoreOfAMillisecondThanAPage: what can be read is, the rest is reported,
// and the stream goes on.
func TestMoreOfAMillisecondThanAPage(t *testing.T) {
	for _, inclusive := range []bool{false, true} {
		for _, before := range []int{0, 3, 10} {
			synctest.Test(t, bubble(func(t *testing.T) {
				f := &feed{inclusive: inclusive, size: fixed(10), emptyNext: "echo"}
				at := time.Now().Add(-time.Hour).UnixMilli()
				for i := range before {
					f.add(feedEvent{id: fmt.Sprint("before", i), ms: at - 5})
				}
				for i := range 25 {
					f.add(feedEvent{id: fmt.Sprint("same", i), ms: at})
				}
				f.add(feedEvent{id: "next", ms: at + 1}, feedEvent{id: "last", ms: at + 10_000})
				rd := newReader(t, f.open(t, 3), wildberries.ChatEvents, time.Time{}, time.Minute)
				rd.run()
				rd.run()
				if want := before + 10 + 2; len(rd.seen) != want {
					t.Errorf("inclusive %v, %d before: read %d events, %d can be read", inclusive, before, len(rd.seen), want)
				}
				if !slices.ContainsFunc(rd.notes, func(s string) bool { return strings.Contains(s, "share the millisecond") }) {
					t.Errorf("the loss is not reported: %q", rd.notes)
				}
			}))
		}
	}
}

// TestOddFeeds: no hot loop, no jump to the future, whatever comes.
func TestOddFeeds(t *testing.T) {
	hour := func(h int) int64 { return time.Now().Add(time.Duration(h) * time.Hour).UnixMilli() }
	for _, tt := range []struct {
		name  string
		setup func(f *feed)
		must  []string
	}{
		{"a page that repeats for ever", func(f *feed) {
			f.repeat = true
			for i := range 80 {
				f.add(feedEvent{id: fmt.Sprint("e", i), ms: hour(-100 + i)})
			}
		}, []string{"e0", "e49"}},
		{"a short page that repeats for ever", func(f *feed) {
			f.repeat = true
			f.add(feedEvent{id: "e", ms: hour(-1)})
		}, []string{"e"}},
		{"without times", func(f *feed) {
			f.timeless = true
			for i := range 120 {
				f.add(feedEvent{id: fmt.Sprint("e", i), ms: hour(-200 + i)})
			}
		}, []string{"e0", "e60", "e119"}},
		{"some without times", func(f *feed) {
			for i := range 120 {
				e := feedEvent{id: fmt.Sprint("e", i), ms: hour(-200 + i)}
				if i%3 == 0 {
					e.raw = fmt.Sprintf(`{"chatID":"1:c","eventID":"e%d","addTimestamp":null,"addTime":{}}`, i)
				}
				f.add(e)
			}
		}, []string{"e0", "e60", "e118"}},
		{"an event from next year", func(f *feed) {
			f.add(feedEvent{id: "now", ms: hour(0)}, feedEvent{id: "future", ms: hour(9000)})
		}, []string{"now", "future", "later"}},
		{"an event from next year alone", func(f *feed) { f.add(feedEvent{id: "future", ms: hour(9000)}) }, []string{"future", "later"}},
		{"an event half an hour ahead", func(f *feed) {
			f.add(feedEvent{id: "now", ms: hour(0)}, feedEvent{id: "future", ms: hour(0) + 1_800_000})
		}, []string{"now", "future", "later"}},
		{"entries that are no events", func(f *feed) {
			for i, raw := range []string{`null`, `7`, `"x"`, `[]`, `{}`, `{"chatID":"c"}`, `{"eventID":"e"}`, `{"chatID":null,"eventID":[]}`, `{"chatID":"","eventID":""}`} {
				f.add(feedEvent{id: fmt.Sprint("odd", i), ms: hour(-i), raw: raw})
			}
			f.add(feedEvent{id: "good", ms: hour(-3)})
		}, []string{"good", "later"}},
		{"a page of entries that are no events", func(f *feed) {
			for i := range 60 {
				f.add(feedEvent{id: fmt.Sprint("odd", i), ms: hour(-100 + i), raw: `{"chatID":"c"}`})
			}
			f.add(feedEvent{id: "good", ms: hour(-3)})
		}, []string{"good", "later"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) {
				f := &feed{size: fixed(50), emptyNext: "0"}
				tt.setup(f)
				rd := newReader(t, f.open(t, 3), wildberries.ChatEvents, time.Time{}, time.Minute)
				rd.check = func(p sources.Page) {
					var c struct{ Newest int64 }
					if json.Unmarshal(p.Cursor, &c) != nil || c.Newest > time.Now().UnixMilli()+1000 {
						t.Fatalf("the cursor passed the present: %s", p.Cursor)
					}
				}
				for range 6 {
					if n, _ := rd.run(); n > 12 {
						t.Errorf("a run of %d requests", n)
					}
					time.Sleep(5 * time.Second)
				}
				f.add(feedEvent{id: "later", ms: time.Now().UnixMilli()})
				time.Sleep(5 * time.Second)
				rd.run()
				rd.run()
				for _, id := range tt.must {
					if rd.seen[id] == 0 {
						t.Errorf("%s was not read; cursor %s", id, rd.cursor)
					}
				}
			}))
		})
	}
}

// TestBusyFeedEndsItsRuns: with something new at every request a run still ends,
// or nothing late would ever be read.
func TestBusyFeedEndsItsRuns(t *testing.T) {
	for _, inclusive := range []bool{false, true} {
		synctest.Test(t, bubble(func(t *testing.T) {
			f := &feed{size: fixed(50), inclusive: inclusive, emptyNext: "echo"}
			rd := newReader(t, f.open(t, 3), wildberries.ChatEvents, time.Time{}, time.Minute)
			n := 0
			rd.between = func(int) {
				for range 3 {
					n++
					f.add(feedEvent{id: fmt.Sprint("e", n), ms: time.Now().Add(time.Duration(n%3) * time.Millisecond).UnixMilli()})
				}
				time.Sleep(100 * time.Millisecond)
			}
			for range 20 {
				if got, _ := rd.run(); got > 5 {
					t.Fatalf("a run of %d requests", got)
				}
			}
		}))
	}
}

// TestEventsProgress: a run through history says how far it has come, and up to
// when everything has been read while it stays behind.
func TestEventsProgress(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		f := &feed{size: fixed(10), emptyNext: "echo"}
		start := time.Now().Add(-100 * time.Hour)
		for i := range 100 {
			f.add(feedEvent{id: fmt.Sprint("e", i), ms: start.Add(time.Duration(i) * time.Hour).UnixMilli()})
		}
		rd := newReader(t, f.open(t, 1), wildberries.ChatEvents, time.Time{}, time.Minute)
		last, behind := 0.0, 0
		rd.check = func(p sources.Page) {
			if p.Progress < last || p.Progress > 1 || p.Done && p.Progress != 1 {
				t.Errorf("progress %v after %v, done %v", p.Progress, last, p.Done)
			}
			last = p.Progress
			switch {
			case p.Done || len(p.Items) < 10:
				if !p.Reached.IsZero() {
					t.Errorf("it takes itself to be behind at the end, at %s", p.Reached)
				}
			case !p.Reached.Equal(p.Items[len(p.Items)-1].Created):
				t.Errorf("reached %s, the newest event is of %s", p.Reached, p.Items[len(p.Items)-1].Created)
			default:
				behind++
			}
		}
		rd.run()
		if behind < 9 || len(rd.seen) != 100 {
			t.Errorf("%d pages said that they are behind; read %d", behind, len(rd.seen))
		}
		rd.check = nil
		for range 4 {
			time.Sleep(time.Hour)
			if page := rd.fetch(); !page.Reached.IsZero() {
				t.Errorf("nothing is new, and it takes itself to be behind: %+v", page)
			}
		}
	}))
}

// TestEventsBackfill reads from the time asked for to when it began, in however
// many pieces, and leaves alone what came since.
func TestEventsBackfill(t *testing.T) {
	for _, since := range []time.Duration{0, 50*time.Hour + 30*time.Minute} {
		for _, inclusive := range []bool{false, true} {
			synctest.Test(t, bubble(func(t *testing.T) {
				f := &feed{size: fixed(10), inclusive: inclusive, emptyNext: "null"}
				for i := range 100 {
					f.add(feedEvent{id: fmt.Sprint("e", i), ms: time.Now().Add(time.Duration(i-100) * time.Hour).UnixMilli()})
				}
				from, want := time.Time{}, 100
				if since > 0 {
					from, want = time.Now().Add(-since), 50
				}
				rd := newReader(t, f.open(t, 3), wildberries.ChatEvents, from, 24*time.Hour) // no overlap here
				rd.query.Walk = sources.Backfill
				n := 0
				rd.between = func(request int) {
					if request == 2 { // a crash, and a week without us
						for i := range 500 {
							f.add(feedEvent{id: fmt.Sprint("new", i), ms: time.Now().Add(time.Duration(i+1) * 20 * time.Minute).UnixMilli()})
						}
						time.Sleep(7 * 24 * time.Hour)
					}
					n++
				}
				began := time.Now()
				if _, b := rd.run(); b.After(began.Add(time.Minute)) {
					t.Errorf("it began at %s, and says %s", began, b)
				}
				old := 0
				for id := range rd.seen {
					if strings.HasPrefix(id, "e") {
						old++
					}
				}
				if old != want || n > 14 {
					t.Errorf("inclusive %v, since %s: read %d of %d in %d requests", inclusive, since, old, want, n)
				}
			}))
		}
	}
}

// TestBaseTokenKeepsUp: with one request an hour for 50 events, a feed of fewer is
// followed, and what comes late is seen, without reading the same again and again.
func TestBaseTokenKeepsUp(t *testing.T) {
	for _, perHour := range []int{6, 30, 42} {
		t.Run(fmt.Sprint(perHour, " an hour"), func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) {
				r := rand.New(rand.NewPCG(uint64(perHour), 1))
				f := &feed{size: fixed(50), emptyNext: "echo"}
				begin := time.Now()
				for i := range 120 { // history
					at := begin.Add(-time.Duration(i+1) * time.Hour)
					f.add(feedEvent{id: fmt.Sprint("old", i), ms: at.UnixMilli(), visible: at})
				}
				const days = 6
				visible := make(map[string]time.Time)
				for i := range days * 24 * perHour {
					at := begin.Add(time.Duration((float64(i) + r.Float64()) * float64(time.Hour) / float64(perHour)))
					e := feedEvent{id: fmt.Sprint("e", i), ms: at.UnixMilli(), visible: at}
					if r.IntN(10) == 0 {
						e.visible = at.Add(time.Duration(r.Int64N(int64(59 * time.Second))))
					}
					f.add(e)
					visible[e.id] = e.visible
				}
				rd := newReader(t, f.open(t, 1), wildberries.ChatEvents, begin, time.Minute)
				var worst time.Duration
				for time.Since(begin) < days*24*time.Hour {
					before := maps.Clone(rd.seen)
					rd.fetch()
					for id := range rd.seen {
						if at, ok := visible[id]; ok && before[id] == 0 {
							worst = max(worst, time.Since(at))
						}
					}
				}
				missing := 0
				for id, at := range visible {
					if rd.seen[id] == 0 && time.Since(at) > 6*time.Hour {
						missing++
					}
				}
				t.Logf("%d requests, an event was seen %s late at most", f.requests, worst.Round(time.Minute))
				if missing > 0 || worst > 6*time.Hour {
					t.Errorf("%d events were not seen within 6 h, the worst %s late", missing, worst)
				}
			}))
		})
	}
}
