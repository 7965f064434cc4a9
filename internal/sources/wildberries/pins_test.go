package wildberries_test

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/wildberries"
)

// pinList is a strict fake of GET pins.
type pinList struct {
	t        *testing.T
	pinned   []int // ids, in the order of the pages
	unpinned []int
	limit    int                             // that is asked for; 0: 500
	offsets  bool                            // `next` is an offset
	textNext bool                            // `next` is text
	endless  string                          // `next` of the last page, JSON; empty: absent
	answer   func(state, next string) string // instead of all that; empty: not
	after    func()
	asked    []string
}

func (l *pinList) open(t *testing.T) *wildberries.Client {
	l.t = t
	c := open(t, &direct{handler: l}, token(3))
	if l.limit != 0 {
		c.SetLimits(200, l.limit)
	}
	return c
}

func (l *pinList) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit, err := strconv.Atoi(q.Get("limit"))
	state, next := q.Get("state"), q.Get("next")
	if err != nil || limit < 1 || limit > 500 || l.limit != 0 && limit != l.limit || r.URL.Path != "/api/feedbacks/v1/pins" || state != "pinned" && state != "unpinned" || len(q) > 3 || q.Has("next") && (next == "" || next == "0") {
		l.t.Errorf("unexpected request %s", r.URL)
	}
	l.asked = append(l.asked, strings.TrimSpace(state+" "+next))
	if l.after != nil {
		defer l.after()
	}
	if l.answer != nil {
		if body := l.answer(state, next); body != "" {
			fmt.Fprint(w, body)
			return
		}
	}
	ids := l.pinned
	if state == "unpinned" {
		ids = l.unpinned
	}
	from := 0
	if next != "" {
		n, err := strconv.Atoi(next)
		if err != nil {
			l.t.Errorf("next=%s is no number", next)
		}
		switch {
		case l.offsets:
			from = min(n, len(ids))
		case len(ids) > 1 && ids[0] > ids[1]:
			from = len(ids)
			if i := slices.IndexFunc(ids, func(id int) bool { return id < n }); i >= 0 {
				from = i
			}
		default:
			from = len(ids)
			if i := slices.IndexFunc(ids, func(id int) bool { return id > n }); i >= 0 {
				from = i
			}
		}
	}
	page := ids[from:min(from+limit, len(ids))]
	tail := ""
	switch {
	case from+limit < len(ids) && l.offsets:
		tail = fmt.Sprintf(`,"next":%d`, from+limit)
	case from+limit < len(ids) && l.textNext:
		tail = fmt.Sprintf(`,"next":"%d"`, page[limit-1])
	case from+limit < len(ids):
		tail = fmt.Sprintf(`,"next":%d`, page[limit-1])
	case l.endless == "last" && len(page) > 0:
		tail = fmt.Sprintf(`,"next":%d`, page[len(page)-1])
	case l.endless == "last":
		tail = fmt.Sprintf(`,"next":%s`, next)
	case l.endless != "":
		tail = `,"next":` + l.endless
	}
	var items []string
	for _, id := range page {
		items = append(items, fmt.Sprintf(`{"changeStateAt":"2026-01-01T15:04:05Z","pinId":%d,"state":%q}`, id, state))
	}
	fmt.Fprintf(w, `{"data":[%s]%s}`, strings.Join(items, ","), tail)
}

func ids(from, to, step int) (l []int) {
	for i := from; step > 0 && i < to || step < 0 && i > to; i += step {
		l = append(l, i)
	}
	return l
}

// pinRun makes one run, and returns the last page.
func pinRun(rd *reader) (last sources.Page) {
	rd.t.Helper()
	rd.check = func(p sources.Page) {
		if last = p; p.Partial && !p.Done {
			rd.t.Error("a page in the middle of a run says how the run has ended")
		}
	}
	rd.run()
	return last
}

// TestPins: every pin is shown in each run, whatever `next` is, and a run at rest
// costs no more than the pages of the two lists.
func TestPins(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setup func(l *pinList)
		want  string // of a run at rest
	}{
		{"none", func(l *pinList) {}, "pinned,unpinned"},
		{"a page each", func(l *pinList) { l.pinned, l.unpinned = ids(1, 9, 2), ids(2, 10, 2) }, "pinned,unpinned"},
		{"pages", func(l *pinList) { l.pinned, l.unpinned = ids(1, 26, 1), ids(100, 112, 1) }, "pinned,pinned 10,pinned 20,unpinned,unpinned 109"},
		{"full pages", func(l *pinList) { l.pinned = ids(1, 21, 1) }, "pinned,pinned 10,unpinned"},
		{"falling ids", func(l *pinList) { l.pinned = ids(30, 5, -1) }, "pinned,pinned 21,pinned 11,unpinned"},
		{"next is an offset", func(l *pinList) { l.pinned, l.offsets = ids(1001, 1026, 1), true }, "pinned,pinned 10,pinned 20,unpinned"},
		{"next is text", func(l *pinList) { l.pinned, l.textNext = ids(1, 26, 1), true }, "pinned,pinned 10,pinned 20,unpinned"},
		{"next is 0 at the end", func(l *pinList) { l.pinned, l.endless = ids(1, 16, 1), "0" }, "pinned,pinned 10,unpinned"},
		{"next is null at the end", func(l *pinList) { l.pinned, l.endless = ids(1, 16, 1), "null" }, "pinned,pinned 10,unpinned"},
		{"next is empty text at the end", func(l *pinList) { l.pinned, l.endless = ids(1, 16, 1), `""` }, "pinned,pinned 10,unpinned"},
		{"next is the text 0 at the end", func(l *pinList) { l.pinned, l.endless = ids(1, 16, 1), `"0"` }, "pinned,pinned 10,unpinned"},
		{"next is false at the end", func(l *pinList) { l.pinned, l.endless = ids(1, 16, 1), `false` }, "pinned,pinned 10,unpinned"},
		{"next is there until an empty page", func(l *pinList) { l.pinned, l.unpinned, l.endless = ids(1, 16, 1), ids(20, 22, 1), "last" },
			"pinned,pinned 10,pinned 15,unpinned,unpinned 21"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) {
				l := &pinList{limit: 10}
				tt.setup(l)
				if l.endless == "last" && len(l.pinned) == 0 {
					t.Fatal("an empty list has no last id")
				}
				rd := newReader(t, l.open(t), wildberries.FeedbackPins, time.Time{}, 0)
				pinRun(rd)
				for range 2 {
					clear(rd.seen)
					l.asked = nil
					if last := pinRun(rd); last.Partial {
						t.Error("a run at rest has shown everything, and says that it has not")
					}
					if got := strings.Join(l.asked, ","); got != tt.want {
						t.Errorf("asked %s, expected %s", got, tt.want)
					}
					if len(rd.seen) != len(l.pinned)+len(l.unpinned) || len(rd.notes) > 0 {
						t.Errorf("read %d of %d, notes %q", len(rd.seen), len(l.pinned)+len(l.unpinned), rd.notes)
					}
				}
			}))
		})
	}
}

// TestPinsFirstRun is complete too, and costs one reading more.
func TestPinsFirstRun(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		l := &pinList{pinned: ids(1, 5, 1), unpinned: ids(5, 9, 1)}
		rd := newReader(t, l.open(t), wildberries.FeedbackPins, time.Time{}, 0)
		if last := pinRun(rd); last.Partial || len(rd.seen) != 8 || strings.Join(l.asked, ",") != "pinned,unpinned,pinned" {
			t.Errorf("read %d of 8, partial %v; asked %q", len(rd.seen), last.Partial, l.asked)
		}
	}))
}

// TestPinsThatMove between the lists, or go while these are paged: no run that
// calls itself complete leaves out a pin that exists all the time.
func TestPinsThatMove(t *testing.T) {
	for name, tt := range map[string]struct {
		offsets bool
		at      int // after this answer of the run, from 1
		move    func(l *pinList)
		partial bool
	}{
		"unpinned automatically": {false, 1, func(l *pinList) { l.pinned, l.unpinned = l.pinned[1:], append(l.unpinned, l.pinned[0]) }, false},
		"unpinned before its page": {false, 1, func(l *pinList) {
			l.pinned, l.unpinned = l.pinned[:24], append(l.unpinned, l.pinned[24])
		}, false},
		"pinned again":                      {false, 3, func(l *pinList) { l.pinned, l.unpinned = append([]int{l.unpinned[0]}, l.pinned...), l.unpinned[1:] }, false},
		"taken off while paged":             {false, 1, func(l *pinList) { l.pinned = l.pinned[3:] }, false},
		"taken off while paged by offset":   {true, 1, func(l *pinList) { l.pinned = l.pinned[3:] }, true},
		"a new one while paged by its id":   {false, 1, func(l *pinList) { l.pinned = append(l.pinned, 2000) }, false},
		"a new one while paged by offset":   {true, 1, func(l *pinList) { l.pinned = append([]int{2000}, l.pinned...) }, true},
		"all taken off while paged by next": {false, 2, func(l *pinList) { l.pinned = nil }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) {
				l := &pinList{limit: 10, pinned: ids(1001, 1026, 1), unpinned: ids(501, 506, 1), offsets: tt.offsets}
				rd := newReader(t, l.open(t), wildberries.FeedbackPins, time.Time{}, 0)
				pinRun(rd)
				clear(rd.seen)
				l.asked = nil
				before := slices.Concat(l.pinned, l.unpinned)
				l.after = func() {
					if len(l.asked) == tt.at {
						tt.move(l)
					}
				}
				last := pinRun(rd)
				l.after = nil
				now := slices.Concat(l.pinned, l.unpinned)
				for _, id := range before {
					if slices.Contains(now, id) && rd.seen[fmt.Sprint(id)] == 0 && !last.Partial {
						t.Errorf("pin %d exists, and a run that calls itself complete has not shown it; asked %q", id, l.asked)
					}
				}
				if last.Partial != tt.partial {
					t.Errorf("partial is %v", last.Partial)
				}
				for range 2 {
					last = pinRun(rd)
				}
				if last.Partial || len(rd.notes) > 0 {
					t.Errorf("at rest again: partial %v, notes %q", last.Partial, rd.notes)
				}
			}))
		})
	}
}

// TestPinsOddAnswers: a run always ends, and one that may have missed something
// says so, each time: what it did not show must not be taken for gone.
func TestPinsOddAnswers(t *testing.T) {
	item := func(id any) string { return fmt.Sprintf(`{"pinId":%v,"changeStateAt":"2026-01-01T15:04:05Z"}`, id) }
	for name, tt := range map[string]struct {
		answer func(state, next string) string
		note   string
	}{
		"next repeats":         {func(_, _ string) string { return `{"data":[` + item(7) + `],"next":7}` }, "in circles"},
		"the page repeats":     {func(_, next string) string { return `{"data":[` + item(7) + `],"next":` + next + `1}` }, "in circles"},
		"next goes to and fro": {toAndFro(item), "in circles"},
		"text goes on for ever": {func(_, next string) string {
			return fmt.Sprintf(`{"data":[%s],"next":"x%s"}`, item(len(next)+1), next[:min(len(next), 100)])
		}, "in circles"},
		"pages without end": {endlessPins(item), "no end"},
		"empty pages without end": {func(_, next string) string {
			n, _ := strconv.Atoi(next)
			return fmt.Sprintf(`{"data":[],"next":%d}`, n+1)
		}, "no end"},
		"next is an object":       {func(_, _ string) string { return `{"data":[` + item(1) + `],"next":{"a":1}}` }, "neither a number nor text"},
		"next is below zero":      {func(_, _ string) string { return `{"data":[` + item(1) + `],"next":-1}` }, "neither a number nor text"},
		"an entry that is no pin": {func(_, _ string) string { return `{"data":[` + item(1) + `,{"pinId":null}]}` }, ""},
		"errors beside the pins":  {func(_, _ string) string { return `{"data":[` + item(1) + `],"errors":["half of it is down"]}` }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) {
				l := &pinList{answer: tt.answer}
				rd := newReader(t, l.open(t), wildberries.FeedbackPins, time.Time{}, 0)
				rd.limit = 3 * 1000
				for range 3 {
					if last := pinRun(rd); !last.Partial {
						t.Errorf("the run takes itself for complete; asked %q", l.asked[:min(len(l.asked), 20)])
					}
				}
				if name == "empty pages without end" && len(l.asked) > 3*3*5 {
					t.Errorf("%d requests for nothing", len(l.asked))
				}
				if notes := strings.Join(rd.notes, "; "); !strings.Contains(notes, tt.note) || (notes == "") != (tt.note == "") {
					t.Errorf("notes %.300q, expected %q", notes, tt.note)
				}
			}))
		})
	}
}

func toAndFro(item func(any) string) func(_, next string) string {
	n := 0
	return func(_, next string) string {
		n++
		return fmt.Sprintf(`{"data":[%s],"next":%d}`, item(n), 10+n%3)
	}
}

func endlessPins(item func(any) string) func(_, next string) string {
	return func(_, next string) string {
		n, _ := strconv.Atoi(next)
		return fmt.Sprintf(`{"data":[%s],"next":%d}`, item(n+1), n+1)
	}
}

// TestPinsCrash: a page that was lost is asked for again, and the run is as good.
func TestPinsCrash(t *testing.T) {
	for lost := range 6 {
		synctest.Test(t, bubble(func(t *testing.T) {
			l := &pinList{limit: 10, pinned: ids(1001, 1026, 1), unpinned: ids(501, 506, 1)}
			rd := newReader(t, l.open(t), wildberries.FeedbackPins, time.Time{}, 0)
			pinRun(rd)
			clear(rd.seen)
			var last sources.Page
			for i := 0; !last.Done; i++ {
				cursor, seen := rd.cursor, maps.Clone(rd.seen)
				if last = rd.fetch(); i == lost {
					rd.cursor, rd.seen, last.Done = cursor, seen, false
					time.Sleep(time.Hour)
				}
			}
			if last.Partial || len(rd.seen) != 30 {
				t.Errorf("page %d lost: read %d of 30, partial %v", lost, len(rd.seen), last.Partial)
			}
		}))
	}
}

// TestPinsSubscription: a seller without a tariff stops this stream alone.
func TestPinsSubscription(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		api := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"origin":"pin-open-api","requestId":"7b64","status":403,"title":"no active subscription or tariff","detail":"this feature requires active subscription or active tariff"}`)
		})
		_, err := open(t, &direct{handler: api}, token(3)).Fetch(t.Context(), sources.Query{Stream: wildberries.FeedbackPins, Walk: sources.News, Now: time.Now()})
		if e := sources.AsError(err); e.Kind != sources.Forbidden || e.Scope != sources.ScopeStream || e.Hint == "" {
			t.Errorf("got %+v", e)
		}
	}))
}
