package apiclient_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/sourcetest"
)

// FuzzWindowHeaders: whatever the headers say, no more calls go in an hour than the
// highest limit that one of them names, and the window is never shut for so long that
// nobody can have meant it.
func FuzzWindowHeaders(f *testing.F) {
	const date = "Mon, 02 Feb 2026 20:46:31 GMT"
	for _, seed := range []struct {
		status                               int
		limit, remaining, until, after, date string
	}{
		{200, "60", "30", "Mon, 02 Feb 2026 21:00:00 GMT", "", date}, {200, "1", "0", "Mon, 02 Feb 2026 20:00:00 GMT", "", date}, {420, "60", "0", "Mon, 02 Feb 2026 21:00:00 GMT", "", date},
		{200, "-5", "1e300", "Mon, 02 Feb 2126 20:00:00 GMT", "", date}, {420, "1e9", "NaN", "Thu, 10 Jul 2018 00:42:42 GMT", "1e300", ""}, {200, "99999999999999999999", "-1", "x", "", "x"},
		{429, "", "", "", "30", date}, {200, "600", "600", "Mon, 02 Feb 2026 20:47:00 GMT", "", date}, {504, "60", "", "", "", date}, {200, "1000000", "0", "", "", "Fri, 01 Jan 0001 00:00:00 GMT"},
	} {
		f.Add(seed.status, seed.limit, seed.remaining, seed.until, seed.after, seed.date)
	}
	f.Fuzz(func(t *testing.T, status int, limit, remaining, until, after, date string) {
		synctest.Test(t, func(t *testing.T) {
			sourcetest.SetClock()
			l := newLedger()
			w := openWindow(t, l, perHour(60), 1)
			c, err := apiclient.New(apiclient.Config{BaseURL: "http://api.test", Metrics: apiclient.NewMetrics(prometheus.NewRegistry()),
				Transport: roundTrip(func(*http.Request) *http.Response {
					h := make(http.Header)
					h.Set("X-Ratelimit-Resource-Limit", limit)
					h.Set("X-Ratelimit-Resource-Remaining", remaining)
					h.Set("X-Ratelimit-Resource-Until", until)
					h.Set("Retry-After", after)
					h.Set("Date", date)
					return &http.Response{StatusCode: status, Header: h, Body: http.NoBody}
				})})
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Do(t.Context(), apiclient.Request{Path: "/", Window: w})
			most := 59
			if n, err := strconv.Atoi(strings.TrimSpace(limit)); err == nil && n <= 1_000_000 {
				most = max(most, n-1)
			}
			n, next := callsNow(t, w, apiclient.Answer{Remaining: -1})
			if n+1 > max(3, most/5)+1 {
				t.Errorf("%d calls at once of %d", n+1, most)
			}
			longest := 2*time.Hour + 3*time.Minute + 2*maxWay
			if status == 429 || status == 420 {
				longest = 8 * 24 * time.Hour
			}
			if next > longest {
				t.Errorf("the next call is %s away", next)
			}
			if _, err := apiclient.NewBudgets(l, discard).Window(key, "a", perHour(60), 1); err != nil {
				t.Error(err)
			}
		})
	})
}

// FuzzSavedWindow: what is in the file is refused, or makes a window that lets no more
// go than it may, is not shut for longer than anybody can have said, and saves what the
// next process can read.
func FuzzSavedWindow(f *testing.F) {
	for _, seed := range []string{
		`{"v":1,"kind":"window","at":1770064800000,"calls":100,"spent":[[-3500000,-3499000,50],[-10,60000,20]],"leased":5,"tokens":7,"caps":[{"until":1770066000,"ends":1200000,"left":10}],"closed":60000,"refused":2}`,
		`{"v":1,"kind":"window"}`, `{"v":1,"kind":"window","at":-9223372036854775808,"spent":[[-9223372036854775808,9223372036854775807,1000000]],"leased":2000000}`, `{"v":1,"kind":"window","at":9223372036854775807,"tokens":1e308,"caps":[{"ends":9223372036854775807,"left":-9223372036854775808}],"closed":9223372036854775807,"refused":-9}`,
		`{"v":1,"kind":"window","at":1770064800000,"spent":[[-5,-5,1000000],[-4,-4,1000000]],"leased":1000000,"tokens":-1e308}`, `{"v":1}`, `null`,
	} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, raw string, stale bool) {
		synctest.Test(t, func(t *testing.T) {
			sourcetest.SetClock()
			l := newLedger()
			l.kept[key.String()], l.stale = []byte(raw), stale
			budgets := apiclient.NewBudgets(l, discard)
			w, err := budgets.Window(key, "a", perHour(60), 1)
			if err != nil {
				if !strings.Contains(err.Error(), "not a saved window") {
					t.Errorf("refused with %v", err)
				}
				return
			}
			n, next := callsNow(t, w, apiclient.Answer{Remaining: -1})
			if most := budgets.Snapshot()[0].Usable; n > max(3, most/5) || stale && n > 0 {
				t.Errorf("%d calls at once of %d, stale %t", n, most, stale)
			}
			if next > 15*24*time.Hour {
				t.Errorf("the next call is %s away", next)
			}
			time.Sleep(next)
			call1(t, w, apiclient.Answer{Remaining: -1})
			l.stale = false
			if _, err := apiclient.NewBudgets(l, discard).Window(key, "a", perHour(60), 1); err != nil {
				t.Error(err)
			}
		})
	})
}
