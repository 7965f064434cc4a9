package wildberries_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"syncd/internal/sources"
	"syncd/internal/sources/wildberries"
)

// fuzzCursor begins a walk of a healthy stream at whatever a disk may hold: the first
// page is an error that says so, or the walk works, to the end of its second run.
func fuzzCursor(t *testing.T, source *wildberries.Client, stream string, walk sources.Walk, raw []byte) {
	q := sources.Query{Stream: stream, Walk: walk, Cursor: raw, Overlap: threeHours, Window: sixtyDays}
	for requests, runs := 0, 0; runs < 2; requests++ {
		if requests > 400 {
			t.Fatalf("no end after %d requests: %s", requests, q.Cursor)
		}
		q.Now = time.Now()
		if requests == 0 && len(raw) > 0 {
			if _, what, err := source.Skip(q); err == nil && what == "" {
				t.Errorf("skip leaves out nothing: %s", raw)
			}
		}
		page, err := source.Fetch(t.Context(), q)
		if err != nil {
			if requests > 0 || !strings.Contains(err.Error(), "cursor of "+stream) {
				t.Fatalf("request %d: %v; %s", requests, err, q.Cursor)
			}
			return
		}
		if !json.Valid(page.Cursor) || len(page.Cursor) > 2*len(raw)+20_000 || page.Progress < 0 || page.Progress > 1 {
			t.Fatalf("progress %f, cursor %s", page.Progress, page.Cursor)
		}
		if q.Cursor = page.Cursor; page.Done {
			runs++
			time.Sleep(time.Minute)
		}
	}
}

var walks = []sources.Walk{sources.News, sources.Full, sources.Backfill}

func FuzzEventsCursor(f *testing.F) {
	for _, s := range []string{`{}`, `null`, `{"v":1,"newest":1770062000000,"at":1770062399999,"most":50,"tip":true,"whole":3,"whole_at":9,"back":1770060000000}`,
		`{"v":1,"newest":-5,"run":{"asked":1770062400000,"next":-7,"seen":9223372036854775807}}`, `{"run":{"asked":0,"began":1,"pages":-1,"news":true,"first":-1,"next":1770062000000,"seen":1770061999999,"from":1770061999999},"most":-1,"inclusive":true,"floor":9223372036854775807}`} {
		f.Add([]byte(s), uint8(0))
	}
	f.Fuzz(func(t *testing.T, raw []byte, walk uint8) {
		synctest.Test(t, bubble(func(t *testing.T) {
			feed := &feed{size: fixed(20), inclusive: walk&2 > 0, emptyNext: "null"}
			for i := range 60 {
				feed.add(feedEvent{id: fmt.Sprint("e", i), ms: time.Now().Add(-time.Duration(i) * 10 * time.Minute).UnixMilli()})
			}
			fuzzCursor(t, feed.open(t, 3), wildberries.ChatEvents, []sources.Walk{sources.News, sources.Backfill}[walk&1], raw)
		}))
	})
}

func FuzzDatedCursor(f *testing.F) {
	for i, s := range []string{`{}`, `{"v":1,"newest":1770062400,"since":5,"whole":20,"whole_at":1770062402,"ordered":true,"wide":1770062400,"holes":[{"answered":true,"from":1770047998,"to":1770053221}]}`,
		`{"run":{"asked":1770062403340,"began":1770062404,"oldest":1770053220,"newest":1770053220,"list":1,"twice":true,"floor":1770047999,"from":1770053219,"skip":40,"last":[1,2],"page":{"n":3,"sum":4},"suspect":7,"tail":2}}`,
		`{"run":{"list":3,"archive":{"floor":1,"first":100,"asc":true,"skip":-3,"edge":5,"near":6}}}`, `{"run":{"list":3}}`, `{"run":{"list":-2,"to":9223372036854775807,"end":-9223372036854775808,"unordered":true}}`,
		`{"newest":9223372036854775807,"history":true,"past":{"skip":199990},"fails":-4,"retry":3,"between":{"from":-3,"skip":199989},"gap":true,"cap":-1,"archive":{"cap":50}}`} {
		f.Add([]byte(s), uint8(i))
	}
	f.Fuzz(func(t *testing.T, raw []byte, walk uint8) {
		synctest.Test(t, bubble(func(t *testing.T) {
			l := shop(datedStreams[walk>>4&1], 60, 5*time.Hour)
			l.take, l.depth = 20, 200
			for _, it := range l.items[40:] {
				it.archived = it.created
			}
			fuzzCursor(t, l.open(t, 3), l.stream, walks[walk&15%3], raw)
		}))
	})
}

func FuzzSweepCursor(f *testing.F) {
	const census = `"census":{"total":{"from":1764878401,"to":1770055201,"n":[30,30]},"old":{"from":1764878401,"to":1769411369,"n":[27,22]},"tail":{"from":1769411370,"to":1770055201,"n":[4,0]},"leaves":[{"from":1764878401,"to":1767011369,"n":[26,1]},{"from":1767011370,"to":1769411369,"n":[1,21]}],"width":2400000}`
	for i, s := range []string{`{}`, `{"v":1,` + census + `}`, `{` + census + `,"odd":14,"skips":64}`, `{` + census + `,"odd":-1,"skips":9223372036854775807,"rest":[1,-1],"head":9223372036854775807}`,
		`{` + census + `,"run":{"asked":1770062403340,"step":4,"fresh":[-1,-1],"now":[30,30],"diff":[1,-1],"list":1,"leaf":[2,1],"dirty":[1],"read":[{"from":1,"to":2}],"second":true}}`,
		`{` + census + `,"run":{"step":4,"list":7,"leaf":[-2,9],"dirty":[-1,5]}}`, `{"run":{"step":0}}`, `{"run":{"step":1}}`, `{"run":{"step":2}}`, `{"run":{"step":3}}`, `{"run":{"step":5,"doubt":[1]}}`, `{"run":{"step":6}}`,
		`{"run":{"step":6,"read":[{"from":-5,"to":-9}],"span":{"skip":-1},"head":{"skip":7,"edge":-1}}}`, `{"run":{"next":{"total":{"n":[-1,3]}},"anew":true}}`, `{` + census + `,"run":{"next":{"leaves":[{"n":[1,1]}]},"doubt":[1,2,1,2,1,2,1]}}`} {
		f.Add([]byte(s), i%2 == 0)
		f.Add([]byte(s), i%2 == 1)
	}
	f.Fuzz(func(t *testing.T, raw []byte, archive bool) {
		synctest.Test(t, bubble(func(t *testing.T) {
			stream := wildberries.Questions
			if archive {
				stream = wildberries.Feedbacks
			}
			l := shop(stream, 60, 20*time.Hour)
			l.take, l.depth, l.leaf = 20, 200, 10
			fuzzCursor(t, l.open(t, 3), stream, sources.Sweep, raw)
		}))
	})
}

func FuzzClaimsCursor(f *testing.F) {
	for _, s := range []string{`{}`, `{"v":1,"archived":{"n":-1,"sum":18446744073709551615},"complete":9223372036854775807}`, `{"run":{"asked":1,"began":-1,"list":2,"number":7,"offset":10,"edge":[1,2,3],"page":{"n":10,"sum":1}}}`, `{"run":{"list":-1}}`, `{"run":{"list":3}}`, `{"run":{"offset":-1,"total":-1}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		synctest.Test(t, bubble(func(t *testing.T) {
			l := &claimLists{limit: 10}
			l.add(25, false)
			l.add(12, true)
			fuzzCursor(t, l.open(t, 3), wildberries.Claims, sources.News, raw)
		}))
	})
}

func FuzzPinsCursor(f *testing.F) {
	for _, s := range []string{`{}`, `{"v":1,"lists":[{"n":26,"sum":1},null]}`, `{"run":{"asked":1,"partial":true,"list":2,"next":"1011","up":-3,"pages":999,"empty":2,"opaque":true}}`, `{"run":{"list":-1}}`, `{"run":{"list":3}}`, `{"run":{"next":"0"}}`, `{"run":{"next":"\u0000 &limit=7"}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		synctest.Test(t, bubble(func(t *testing.T) {
			l := &pinList{limit: 10, pinned: ids(1001, 1026, 1), unpinned: ids(501, 506, 1)}
			l.answer = func(_, next string) string {
				if _, err := strconv.Atoi(next); next != "" && err != nil {
					return `{"data":[]}` // text, as it may have been once
				}
				return ""
			}
			fuzzCursor(t, l.open(t), wildberries.FeedbackPins, sources.News, raw)
		}))
	})
}

func FuzzChatsCursor(f *testing.F) {
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"v":7}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		synctest.Test(t, bubble(func(t *testing.T) {
			api := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"result":[{"chatID":"1:a"}]}`) })
			fuzzCursor(t, open(t, &direct{handler: api}, token(3)), wildberries.Chats, sources.News, raw)
		}))
	})
}

// FuzzCount: whatever a count says, a sweep ends, and says so where it was no number.
func FuzzCount(f *testing.F) {
	for _, s := range []string{`{"data":5,"error":false,"errorText":"","additionalErrors":null}`, `{"data":"5"}`, `{"data":-1}`, `{"data":1e3}`, `{"data":null,"error":true,"errorText":"Плохой формат dateFrom"}`, `[]`, ``, `{"data":9223372036854775807}`, `{"data":{"data":7}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		synctest.Test(t, bubble(func(t *testing.T) {
			l := shop(wildberries.Questions, 40, 20*time.Hour)
			l.take, l.depth, l.leaf = 20, 200, 10
			source := l.openThrough(t, 3, &direct{handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, "/count") {
					_, _ = w.Write(body)
					return
				}
				l.ServeHTTP(w, r)
			})})
			rd := newReader(t, source, l.stream, time.Time{}, threeHours)
			rd.query.Walk, rd.query.Window, rd.limit = sources.Sweep, sixtyDays, 400
			for range 3 {
				rd.run()
				time.Sleep(15 * time.Minute)
			}
			var n struct{ Data *int }
			if json.Unmarshal(body, &n) != nil && len(rd.notes) == 0 {
				t.Errorf("%q was taken for a count", body)
			}
		}))
	})
}

func FuzzClassify(f *testing.F) {
	for i, s := range []string{``, `null`, `{"title":"unauthorized","detail":"token scope not allowed","status":401}`, `{"data":null,"error":true,"errorText":"Ошибка авторизации","additionalErrors":["a","b"]}`, `<html>`, `{"title":{},"detail":[7]}`, `{"error":"x","errorText":-7}`} {
		f.Add(400+i, []byte(s))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		for group := range wildberries.Groups() {
			e := wildberries.Classify(group, status, body)
			if (e == nil) != (status < 400) {
				t.Fatalf("status %d gives %v", status, e)
			}
			if e == nil {
				continue
			}
			if e.Kind == "" || e.Scope == "" || !utf8.ValidString(e.Hint) || e.Err != nil && (e.Err.Error() == "" || !utf8.ValidString(e.Err.Error())) {
				t.Errorf("%d %q gives %+v", status, body, e)
			}
			if e.Kind == sources.Unauthorized != (status == 401) || e.Kind == sources.RateLimited != (status == 429) || e.Scope == sources.ScopeGroup && status > 403 && status != 429 {
				t.Errorf("%d %q is %s about %s", status, body, e.Kind, e.Scope)
			}
		}
	})
}
