package wildberries_test

import (
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
)

// TestOneListFails: while one list fails, whichever it is and however, the news of the
// other are read within a few tries, and nothing of either is lost once both work.
func TestOneListFails(t *testing.T) {
	for _, stream := range datedStreams {
		for _, answered := range []bool{false, true} {
			for _, status := range []int{400, 422, 500} {
				for _, take := range []int{0, 10} {
					t.Run(fmt.Sprint(stream, answered, status, take), func(t *testing.T) {
						synctest.Test(t, bubble(func(t *testing.T) {
							l := shop(stream, 60, 3*time.Hour)
							if take > 0 {
								l.take, l.depth = take, 100
							}
							rd := l.reader(t, sources.News)
							rd.run()
							l.fail = func(r *http.Request) int {
								if r.URL.Query().Get("isAnswered") == strconv.FormatBool(answered) {
									return status
								}
								return 0
							}
							for i := range 40 {
								for list, in := range []bool{false, true} {
									l.items = append(l.items, &listItem{id: fmt.Sprint("new", i, "-", list), created: ago(0), answered: in})
								}
								other := l.items[len(l.items)-1]
								if answered {
									other = l.items[len(l.items)-2]
								}
								time.Sleep(2 * time.Second)
								for tries := 0; rd.seen[other.id] == 0; tries++ {
									if tries > 12 {
										t.Fatalf("run %d: %s was not read", i, other.id)
									}
									q := rd.query
									q.Cursor, q.Now = rd.cursor, time.Now()
									page, err := rd.source.Fetch(t.Context(), q)
									if err != nil {
										time.Sleep(time.Second)
										continue
									}
									for _, it := range page.Items {
										rd.seen[it.ID[0]]++
									}
									rd.cursor = page.Cursor
								}
								time.Sleep(15 * time.Second)
							}
							l.fail = nil
							for range 3 {
								rd.run()
								time.Sleep(15 * time.Second)
							}
							if ids := missing(rd, l.items); len(ids) > 0 {
								t.Errorf("not read %v", ids)
							}
						}))
					})
				}
			}
		}
	}
}
