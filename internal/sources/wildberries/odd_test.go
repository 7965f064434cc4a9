package wildberries_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/wildberries"
)

// TestDateThatIsOff: the marketplace's Date may be wrong by a day either way. Items
// of today must not be taken for items from the future.
func TestDateThatIsOff(t *testing.T) {
	for _, skew := range []time.Duration{-24 * time.Hour, -2 * time.Hour, -20 * time.Second, 0, 20 * time.Second, 24 * time.Hour} {
		synctest.Test(t, bubble(func(t *testing.T) {
			const n, size = 300, 50
			first := time.Now().Add(-20 * time.Hour)
			at := func(i int) int64 { return first.Add(time.Duration(i) * 4 * time.Minute).UnixMilli() }
			feed := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Date", time.Now().Add(skew).UTC().Format(http.TimeFormat))
				next, err := strconv.ParseInt(r.URL.Query().Get("next"), 10, 64)
				if err != nil && r.URL.Query().Has("next") {
					t.Errorf("next: %v", err)
				}
				var page []string
				for i := range n {
					if at(i) > next && len(page) < size {
						page = append(page, fmt.Sprintf(`{"chatID":"1:a","eventID":"e%d","addTimestamp":%d}`, i, at(i)))
					}
				}
				fmt.Fprintf(w, `{"result":{"next":%d,"totalEvents":%d,"events":[%s]},"errors":null}`, next, len(page), strings.Join(page, ","))
			})
			rd := newReader(t, open(t, &direct{handler: feed}, token(3)), wildberries.ChatEvents, time.Time{}, time.Minute)
			requests, _ := rd.run()
			if len(rd.seen) != n || len(rd.notes) > 0 {
				t.Errorf("Date off by %s: read %d of %d, notes %q", skew, len(rd.seen), n, rd.notes)
			}
			if requests > n/size+3 { // the walk ends with what proves that nothing is newer
				t.Errorf("Date off by %s: %d requests for %d pages", skew, requests, n/size)
			}
		}))
	}
}

// TestInclusiveNextAtAPageBoundary: 20 events of one millisecond and 40 of the next,
// which the end of a page cuts in two.
func TestInclusiveNextAtAPageBoundary(t *testing.T) {
	for _, inclusive := range []bool{false, true} {
		synctest.Test(t, bubble(func(t *testing.T) {
			at := time.Now().Add(-time.Hour).UnixMilli()
			feed := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next, _ := strconv.ParseInt(r.URL.Query().Get("next"), 10, 64)
				var page []string
				for i := range 60 {
					ms := at
					if i >= 20 {
						ms++
					}
					if (ms > next || inclusive && ms == next) && len(page) < 50 {
						page = append(page, fmt.Sprintf(`{"chatID":"1:a","eventID":"e%d","addTimestamp":%d}`, i, ms))
					}
				}
				fmt.Fprintf(w, `{"result":{"next":%d,"totalEvents":%d,"events":[%s]},"errors":null}`, next, len(page), strings.Join(page, ","))
			})
			rd := newReader(t, open(t, &direct{handler: feed}, token(3)), wildberries.ChatEvents, time.Time{}, time.Minute)
			rd.run()
			if len(rd.seen) != 60 {
				t.Errorf("inclusive %v: read %d of 60", inclusive, len(rd.seen))
			}
		}))
	}
}

// TestRemovedEvents: pages from which all events were taken away again are no end of the
// feed, be they the first, in the middle of history, or come up while it is followed.
func TestRemovedEvents(t *testing.T) {
	for _, inclusive := range []bool{false, true} {
		for _, from := range []int{0, 95, 190} {
			for _, acc := range []int{1, 3} {
				synctest.Test(t, bubble(func(t *testing.T) {
					f := &feed{size: fixed(20), inclusive: inclusive, emptyNext: "null"}
					begin := time.Now()
					for i := range 300 {
						at := begin.Add(time.Duration(i-250) * time.Hour)
						f.add(feedEvent{id: fmt.Sprint("e", i), ms: at.UnixMilli(), visible: at, removed: i >= from && i < from+100})
					}
					rd := newReader(t, f.open(t, acc), wildberries.ChatEvents, time.Time{}, time.Minute)
					for time.Since(begin) < 60*time.Hour {
						if n, _ := rd.run(); n > 60 {
							t.Fatalf("a run of %d requests", n)
						}
						time.Sleep(20 * time.Minute)
					}
					for _, e := range f.events {
						if rd.seen[e.id] == 0 && !e.removed {
							t.Errorf("inclusive %v, removed from %d on, acc %d: %s was not read; cursor %s", inclusive, from, acc, e.id, rd.cursor)
						}
					}
				}))
			}
		}
	}
}

// TestARenamedListIsNoSilence: an answer without the list is not "nothing new".
func TestARenamedListIsNoSilence(t *testing.T) {
	for answer, fine := range map[string]bool{
		`{"result":{"totalEvents":12}}`:                                 false,
		`{"result":{"items":[]}}`:                                       false,
		`{"result":{"totalEvents":3,"events":null}}`:                    false,
		`{"result":{"totalEvents":0}}`:                                  true,
		`{"result":{"next":1,"events":null}}`:                           true,
		`{"result":{"next":1,"events":[]}}`:                             true,
		`{"data":{"countUnanswered":24},"error":false}`:                 false,
		`{"data":{"countUnanswered":0,"questions":null},"error":false}`: true,
		`{"data":{"questions":[]},"error":false}`:                       true,
	} {
		stream := wildberries.Questions
		if strings.HasPrefix(answer, `{"result"`) {
			stream = wildberries.ChatEvents
		}
		synctest.Test(t, bubble(func(t *testing.T) {
			api := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, answer) })
			_, err := open(t, &direct{handler: api}, token(3)).Fetch(t.Context(), sources.Query{Stream: stream, Walk: sources.News, Now: time.Now()})
			if (err == nil) != fine {
				t.Errorf("%s: %v", answer, err)
			}
		}))
	}
}

// TestFieldsHaveExactNames: a field whose name differs in case alone is another
// field, and takes over nothing.
func TestFieldsHaveExactNames(t *testing.T) {
	for stream, row := range map[string]struct{ list, item string }{
		wildberries.ChatEvents: {`{"result":{"events":[%s]},"Errors":["x"],"RESULT":null}`, `{"chatID":"1:a","eventID":"id%d","EventId":"legacy","chatid":"legacy","ADDTIMESTAMP":"x"}`},
		wildberries.Questions:  {`{"data":{"questions":[%s],"Questions":null},"error":false,"Error":true,"DATA":null}`, `{"id":"id%d","ID":"legacy","Id":"legacy","createddate":"x"}`},
		wildberries.Feedbacks:  {`{"data":{"feedbacks":[%s],"Feedbacks":null},"error":false,"Error":true,"DATA":null}`, `{"id":"id%d","ID":"legacy","Id":"legacy","createddate":"x"}`},
	} {
		t.Run(stream, func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) {
				items := []string{fmt.Sprintf(row.item, 0), fmt.Sprintf(row.item, 1)}
				api := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, row.list, strings.Join(items, ",")) })
				rd := newReader(t, open(t, &direct{handler: api}, token(3)), stream, time.Time{}, time.Minute)
				page := rd.fetch()
				if len(page.Items) != 2 || rd.seen["id0"] != 1 || rd.seen["id1"] != 1 {
					t.Errorf("read %v", rd.seen)
				}
			}))
		})
	}
}
