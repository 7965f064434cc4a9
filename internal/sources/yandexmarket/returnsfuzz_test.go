package yandexmarket_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"syncd/internal/sources"
	"syncd/internal/sources/yandexmarket"
)

// FuzzReturnsCursor begins a walk of healthy stores at whatever a disk may hold: the
// first page is an error that says so, or the walk works, to the end of its second
// run, and then shows what is new.
func FuzzReturnsCursor(f *testing.F) {
	const reading = `"reading":{"scan":{"token":"2","pages":1},"from":20459,"to":20488,"floor":20400,"run":3,"began":1770062400,"sum":5,"times":1}`
	for i, s := range []string{`{}`, `null`, `{"v":1,"stores":[{"id":7,"shown":1,"read":1770062400,"run":1},{"id":8,"found":1770062000,"shown":1,` + reading + `,"failing":true}],"discoveries":1,"discovered":1770062400,"heard":1770062400,"runs":3,"last":7,"run":{"asked":1770062400000,"turn":1770062400000,"spare":9,"requests":2}}`,
		`{"stores":[{"id":8},{"id":7}]}`, `{"stores":[{"id":7},{"id":7}]}`, `{"stores":[{"id":-7}]}`, `{"stores":[{"id":7,"past":{"from":12418,"to":65538,"empty":-1}}]}`, `{"stores":[{"id":7,"past":{"from":65000,"to":65538}}],"run":{"asked":0}}`,
		`{"run":{"asked":1,"discovery":{"scan":{"token":"9","pages":1}}}}`, `{"last":9223372036854775807,"runs":18446744073709551615,"discovered":9007199254740993}`, `{"run":{"asked":-1}}`, `{"stores":[{"id":7,"read":32000000000}],"discovered":1770062400,"heard":32000000000}`} {
		f.Add([]byte(s), uint8(i))
	}
	f.Fuzz(func(t *testing.T, raw []byte, which uint8) {
		synctest.Test(t, bubble(func(t *testing.T) {
			walk := []sources.Walk{sources.News, sources.Full, sources.Backfill}[which%3]
			m := newMarket(t, 7, 8)
			m.size = 2
			for i := range 10 {
				m.add(7+i%2, time.Now().Add(-time.Duration(i)*day), time.Now().Add(-time.Duration(i)*day))
			}
			w := newWalker(t, openStores(t, m), walk)
			w.query.Remembered = nil
			w.cursor = raw
			for requests, runs := 0, 0; runs < 2; requests++ {
				if requests > 5000 {
					t.Fatalf("no end after %d requests: %s", requests, w.cursor)
				}
				p, err := w.fetch()
				if err != nil {
					if requests > 0 || !strings.Contains(err.Error(), "cursor of returns") {
						t.Fatalf("request %d: %v; %s", requests, err, w.cursor)
					}
					return
				}
				if !json.Valid(w.cursor) || len(w.cursor) > 2*len(raw)+20_000 || p.Progress < 0 || p.Progress > 1 {
					t.Fatalf("progress %f, cursor %s", p.Progress, w.cursor)
				}
				if p.Done {
					runs++
					time.Sleep(2 * time.Hour)
				}
			}
		}))
	})
}

func FuzzReturns(f *testing.F) {
	for _, s := range []string{`{"status":"OK","result":{"returns":[` + (&goods{id: 1, created: time.Unix(1770062400, 0), updated: time.Unix(1770062400, 0)}).json() + `],"paging":{"nextPageToken":"x"}}}`,
		`{"status":"OK","result":{}}`, `{"status":"OK"}`, `{"status":"ERROR","errors":null}`, `{"status":"OK","result":{"returns":null,"paging":null}}`, `{"status":"OK","result":{"returns":[{"id":"7"},{"id":null},7]}}`,
		`{"campaigns":[{"id":8,"business":{"id":900001},"apiAvailability":"AVAILABLE"},{"id":"9"},{"id":-1},{}],"paging":{"nextPageToken":"x"}}`, `{"campaigns":null}`, `{"campaigns":[{"id":8,"business":{"id":5}}]}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		synctest.Test(t, bubble(func(t *testing.T) {
			m := newFake(t)
			answer := func(call) (int, string) { return 0, body }
			m.on["GET /v2/campaigns"], m.on["GET /v2/campaigns/returns"], m.on["POST /v2/auth/token"] = answer, answer, answer
			source := openStores(t, m, 7)
			q := sources.Query{Stream: yandexmarket.Returns, Walk: sources.News, Overlap: day, Since: time.Now()}
			for range 60 {
				q.Now = time.Now()
				p, err := source.Fetch(t.Context(), q)
				if err != nil {
					break
				}
				q.Cursor = p.Cursor
				for _, it := range p.Items {
					if len(it.ID) != 2 || it.ID[0] != "7" || it.ID[1] == "" || !json.Valid(it.Body) || !utf8.Valid(it.Body) || !it.Created.IsZero() && it.Created.Year() < 2004 {
						t.Errorf("item %+v", it)
					}
				}
				if p.Failed != nil && !strings.Contains(fmt.Sprint(p.Failed, p.Failed.Hint), "store") {
					t.Errorf("%v does not say what it is about", p.Failed)
				}
			}
			for _, budget := range yandexmarket.Probes() {
				r, err := source.Probe(t.Context(), budget)
				for _, line := range append(r.Lines, r.Scopes...) {
					if err != nil || !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' }) || len(line) > 1000 {
						t.Errorf("line %q, %v", line, err)
					}
				}
			}
		}))
	})
}
