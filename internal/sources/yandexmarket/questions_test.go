package yandexmarket_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/sourcetest"
	"syncd/internal/sources/yandexmarket"
)

// since is how far the contract suite's first run goes back: to the beginning it takes
// more requests than the suite allows.
func since(q *sources.Query) { q.Since = sourcetest.Epoch.Add(-hours24) }

func TestGoodsFeedbacksContract(t *testing.T) {
	sourcetest.Run(t, sourcetest.Stream{
		Name: yandexmarket.GoodsFeedbacks, Secret: apiKey, Header: "Api-Key", Open: openAny, Needed: []string{"feedbackId"}, Query: since,
		List: func(items ...string) string { return page("feedbacks", items, "") },
		Item: func(n int) string {
			at := sourcetest.Epoch.Add(-time.Duration(n) * time.Minute)
			return fmt.Sprintf(`{"feedbackId":%d,"createdAt":%q,"needReaction":true,"identifiers":{"orderId":1,"offerId":"a"},"author":"И.","description":{"advantages":"+"},"media":{"photos":null},"statistics":{"rating":5,"commentsCount":1}}`,
				501+n, at.In(time.FixedZone("", 3*60*60)).Format(time.RFC3339))
		},
	})
}

func TestGoodsQuestionsContract(t *testing.T) {
	sourcetest.Run(t, sourcetest.Stream{
		Name: yandexmarket.GoodsQuestions, Secret: apiKey, Header: "Api-Key", Open: openAny, Needed: []string{"questionIdentifiers"}, Query: since,
		List: func(items ...string) string { return page("questions", items, "") },
		Item: func(n int) string {
			at := sourcetest.Epoch.Add(-time.Duration(n) * time.Minute)
			return fmt.Sprintf(`{"questionIdentifiers":{"id":%d,"offerId":"a"},"businessId":900001,"text":"?","createdAt":%q,"votes":{"likes":0,"dislikes":0},"author":{"type":"USER","name":"И."}}`, 501+n, at.Format(time.RFC3339))
		},
	})
}

func TestGoodsAnswersContract(t *testing.T) {
	sourcetest.Run(t, sourcetest.Stream{
		Name: yandexmarket.GoodsQuestions, Secret: apiKey, Header: "Api-Key", Open: openAny, Needed: []string{"id"},
		Query: func(q *sources.Query) {
			q.Walk, q.Every, q.Full = sources.Follow, time.Minute, time.Hour
			q.Visit = &sources.Visit{ID: "17", Created: q.Now, Due: q.Now, Found: []byte(`{}`)}
		},
		List: func(items ...string) string { return page("answers", items, "") },
		Item: func(n int) string {
			at := sourcetest.Epoch.Add(-time.Duration(n) * time.Minute)
			return fmt.Sprintf(`{"id":%d,"text":"!","canModify":false,"author":{"type":"BUSINESS"},"status":"PUBLISHED","questionId":17,"createdAt":%q,"votes":{"likes":1,"dislikes":0},"comments":[{"id":1,"text":"."}]}`, 900-n, at.Format(time.RFC3339))
		},
	})
}

// fuzzWalk begins a walk at whatever a disk may hold: the first page is an error that
// says so, or the walk works, to the end of its second run.
func fuzzWalk(t *testing.T, b *board, walk sources.Walk, raw []byte) {
	r := b.reader(open(t, b), walk, nil)
	r.cursor = raw
	if walk == sources.Follow {
		r.query.Visit = &sources.Visit{ID: "1000", Created: time.Now()}
	}
	for pages, runs := 0, 0; runs < 2; pages++ {
		p, err := r.fetch()
		if err != nil {
			if pages > 0 {
				t.Fatalf("page %d: %v; %s", pages, err, r.cursor)
			}
			return
		}
		if pages > 1500 || len(p.Cursor) > 2*len(raw)+60_000 || p.Progress < 0 || p.Progress > 1 || p.Cursor != nil && !json.Valid(p.Cursor) {
			t.Fatalf("page %d, progress %f, cursor %s", pages, p.Progress, p.Cursor)
		}
		if p.Done {
			runs++
			time.Sleep(time.Minute)
		}
	}
}

func FuzzDatedCursor(f *testing.F) {
	for i, s := range []string{`{}`, `null`, `[`, `{"v":1,"newest":1770062400,"wide":1770062400,"late":{"from":1765000000,"token":"k=00000","newest":1770000000}}`,
		`{"newest":8589934592,"late":{"from":0,"only":true}}`, `{"newest":1770062400,"late":{"from":1770062300},"run":{"asked":1,"late":true,"over":false,"token":"x"}}`,
		`{"run":{"asked":1770062400000,"from":1765000000,"to":1765000001,"floor":1764000000,"twice":true,"again":true,"queue":["1000","7"],"child":{"token":"x"}}}`,
		`{"run":{"queue":["007"]}}`, `{"run":{"over":true}}`, `{"run":{"over":true,"queue":["1001"]}}`, `{"run":{"from":5,"to":4}}`, `{"run":{"late":true}}`, `{"run":{"from":-1,"floor":-1}}`,
		`{"waiting":[1001,1000]}`, `{"waiting":[1000,1001,9],"run":{"left":[1000],"now":[3,2]}}`, `{"waiting":[1000,5000]}`, `{"scan":{"token":"x","pages":-1}}`,
		`{"newest":1770062400,"past":{"windows":[[1760000000,1762000000],[1750000000,1750000001]],"end":1300000000,"due":1,"pause":60}}`, `{"past":{"windows":[[0,1]],"due":-1}}`,
		`{"newest":1770062400,"past":{"due":1,"pause":86400},"run":{"past":true,"from":1760000000,"to":1762000000,"others":[[1750000000,1752000000]]}}`, `{"run":{"past":true}}`,
		`{"run":{"left":[1000,1001,1002],"ask":2}}`, `{"run":{"ask":51}}`, `{"run":{"from":1765000000,"floor":1765000000,"lacks":1770062400}}`,
		`{"run":{"from":1,"floor":1,"empty":8589934592}}`, `{"run":{"from":8589934591,"to":8589934592}}`} {
		f.Add([]byte(s), uint8(i))
		f.Add([]byte(s), uint8(i+13))
	}
	f.Fuzz(func(t *testing.T, raw []byte, how uint8) {
		synctest.Test(t, bubble(func(t *testing.T) {
			b := newBoard(t, []string{yandexmarket.GoodsFeedbacks, yandexmarket.GoodsQuestions}[how&1])
			b.size, b.lenient = 20, true
			b.add(60, 60*hours24, 30*time.Hour)
			b.entries[0].children = []child{{id: 1}, {id: 2}}
			for _, e := range b.entries[:30] {
				e.need = true
			}
			fuzzWalk(t, b, []sources.Walk{sources.News, sources.Sweep, sources.Full, sources.Backfill, sources.Follow}[how>>1%5], raw)
		}))
	})
}

// FuzzEntries: whatever entries look like, a page costs no more than those that name
// nothing, and the walks go on.
func FuzzEntries(f *testing.F) {
	for i, s := range []string{`{"feedbackId":1,"createdAt":"2026-02-01T00:00:00Z","statistics":{"commentsCount":"1"},"needReaction":1}`, `{"feedbackId":"007","statistics":[]}`, `{"feedbackId":1e3}`,
		`{"questionIdentifiers":{"id":"x"}}`, `{"questionIdentifiers":7}`, `{"questionIdentifiers":{"id":-5},"createdAt":"9999-01-01T00:00:00Z"}`, `{"id":1,"parentId":1}`, `{"id":1},{"id":2,"parentId":1},{"id":1,"parentId":2}`,
		`{"id":99999999999999999999,"createdAt":5}`, `null`, `{"feedbackId":9223372036854775807,"statistics":{"commentsCount":-1.5e300}}`} {
		f.Add([]byte(s), uint8(i))
		f.Add([]byte(s), uint8(i+5))
	}
	f.Fuzz(func(t *testing.T, entries []byte, how uint8) {
		synctest.Test(t, bubble(func(t *testing.T) {
			b := newBoard(t, []string{yandexmarket.GoodsFeedbacks, yandexmarket.GoodsQuestions}[how&1])
			walk := []sources.Walk{sources.News, sources.Sweep, sources.Full, sources.Backfill, sources.Follow}[how>>1%5]
			answer := func(member string) func(call) (int, string) {
				return func(call) (int, string) { return http.StatusOK, page(member, []string{string(entries)}, "") }
			}
			for m, member := range map[string]string{methodFeedbacks: "feedbacks", methodComments: "comments", methodQuestions: "questions", methodAnswers: "answers"} {
				b.on[m] = answer(member)
			}
			r := b.reader(open(t, b), walk, nil)
			r.query.Visit = &sources.Visit{ID: "1000", Created: time.Now()}
			for pages := 0; ; pages++ {
				p, err := r.fetch()
				if err != nil {
					if e := sources.AsError(err); e.Kind != sources.Unreadable {
						t.Fatalf("%v: %s", err, entries)
					}
					return
				}
				for _, it := range p.Items {
					if len(it.ID) != 2 || it.ID[1] == "" || len(it.Subject) != 2 || it.Subject[1] == "" || !json.Valid(it.Body) {
						t.Fatalf("item %+v", it)
					}
				}
				for _, v := range p.Found {
					if v.ID == "" || !json.Valid(v.Found) || v.Created.IsZero() {
						t.Fatalf("found %+v", v)
					}
				}
				if p.Done {
					return
				}
				if pages > 3000 {
					t.Fatalf("no end: %s", r.cursor)
				}
			}
		}))
	})
}
