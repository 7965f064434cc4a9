package apiclient_test

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/sourcetest"
)

// roundTrip answers without a network.
type roundTrip func(*http.Request) *http.Response

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }

// FuzzBudgetHeaders: whatever the headers say, a request is never allowed earlier
// than without them, and never so late that nobody can have meant it.
func FuzzBudgetHeaders(f *testing.F) {
	for _, seed := range []struct {
		status                        int
		remaining, retry, after, date string
	}{
		{200, "5", "", "", "Mon, 02 Feb 2026 20:46:31 GMT"}, {200, "-1", "", "", ""}, {429, "0", "2", "", ""}, {429, "", "1e300", "Inf", "x"},
		{420, "", "", "Mon, 02 Feb 2026 20:46:31 GMT", "Mon, 02 Feb 1926 20:46:31 GMT"}, {429, "1e9", "-5", "NaN", ""}, {429, "", "1e9", "1e9", ""}, {504, "0x1p-2", "", "", ""}, {429, "9", "0.0000000001", "0", ""},
	} {
		f.Add(seed.status, seed.remaining, seed.retry, seed.after, seed.date)
	}
	f.Fuzz(func(t *testing.T, status int, remaining, retry, after, date string) {
		synctest.Test(t, func(t *testing.T) {
			sourcetest.SetClock()
			for _, limit := range []apiclient.Limit{chat, hourly} {
				p := start(t, newLedger(), limit, 1)
				c, err := apiclient.New(apiclient.Config{BaseURL: "http://api.test", Bucket: p.bucket, Metrics: apiclient.NewMetrics(prometheus.NewRegistry()),
					Transport: roundTrip(func(*http.Request) *http.Response {
						h := make(http.Header)
						h.Set("X-Ratelimit-Remaining", remaining)
						h.Set("X-Ratelimit-Retry", retry)
						h.Set("Retry-After", after)
						h.Set("Date", date)
						return &http.Response{StatusCode: status, Header: h, Body: http.NoBody}
					}), Heard: func(at time.Time) {
						if at.IsZero() {
							t.Error("heard nothing")
						}
					}})
				if err != nil {
					t.Fatal(err)
				}
				_, _ = c.Do(p.ctx, apiclient.Request{Path: "/"}) // spends the one token that there is
				d := next(t, p)
				least, most := limit.Interval, limit.Interval*21/20+maxWay+2*time.Second
				if status == 429 || status == 420 {
					most = max(7*24*time.Hour, limit.Interval) * 21 / 20
				}
				if d < least || d > most {
					t.Errorf("%+v: the next request is %s away, expected %s to %s", limit, d, least, most)
				}
			}
		})
	})
}

// FuzzSavedBudget: what is in the file is refused, or makes a bucket that holds no
// more than it may, is not shut for longer than anybody can have said, and saves
// what the next process can read.
func FuzzSavedBudget(f *testing.F) {
	for _, seed := range []string{
		`{"v":1}`, `{"v":1,"pause_ns":3674000000000,"full_at":1770066000000,"on_way":1,"landing":1770066000000,"flows":{"questions/news":{"debt":1000000,"seen":1770062400}}}`,
		`{"v":1,"pause_ns":1000000000,"on_way":9}`, `{"v":1,"pause_ns":1000000000,"on_way":-9,"landing":-1}`, `{"v":1,"not_before":1770066000000}`,
		`{"v":1,"full_at":9223372036854775807,"on_way":9223372036854775807,"landing":9223372036854775807,"not_before":9223372036854775807,"pause_ns":9223372036854775807}`,
		`{"v":1,"full_at":-9223372036854775808,"on_way":-9223372036854775808,"landing":-9223372036854775808,"not_before":-9223372036854775808}`, `{"v":2}`, `null`, `{"v":1,"flows":{"":{}}}`,
	} {
		for i := range 4 {
			f.Add(seed, i%2 == 0, i < 2)
		}
	}
	f.Fuzz(func(t *testing.T, raw string, slow, stale bool) {
		synctest.Test(t, func(t *testing.T) {
			sourcetest.SetClock()
			limit := chat
			if slow {
				limit = hourly
			}
			l := newLedger()
			l.kept[key.String()], l.stale = []byte(raw), stale
			b, err := apiclient.NewBudgets(l, slog.New(slog.DiscardHandler)).Bucket(key, "a", limit, 1)
			if err != nil {
				if !strings.Contains(err.Error(), "not a saved budget") {
					t.Errorf("refused with %v", err)
				}
				return
			}
			p := &process{bucket: b, ctx: t.Context(), kill: func() {}}
			began := time.Now()
			n := 0
			for range limit.Burst + 1 { // all at once
				g := acquire(t, p)
				if time.Since(began) > 0 && n == 0 {
					if d := time.Since(began); d > 16*24*time.Hour {
						t.Errorf("shut for %s", d)
					}
					began = time.Now()
				}
				if time.Since(began) == 0 {
					n++
				}
				g.Answered(answered)
			}
			if most := max(1, limit.Burst-1); n > most || stale && slow && n > 1 {
				t.Errorf("%d requests at once, %d may be", n, most)
			}
			start(t, l, limit, 1)
		})
	})
}
