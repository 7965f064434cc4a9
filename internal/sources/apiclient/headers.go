package apiclient

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxRetryAfter bounds what a header can make us wait. Hours have been seen;
// more than a week is nonsense.
const maxRetryAfter = 7 * 24 * time.Hour

// bucketAnswer reads the headers of wildberries.md §2 ("Headers").
func bucketAnswer(resp *http.Response) Answer { return budgetAnswer(resp, "X-Ratelimit-Remaining") }

// windowAnswer reads the headers of yandex-market.md §2.3.
func windowAnswer(resp *http.Response) Answer {
	a := budgetAnswer(resp, "X-Ratelimit-Resource-Remaining")
	if n, err := strconv.Atoi(strings.TrimSpace(resp.Header.Get("X-Ratelimit-Resource-Limit"))); err == nil && n >= 1 && n <= maxCalls {
		a.Limit = n
	}
	a.Until, _ = http.ParseTime(strings.TrimSpace(resp.Header.Get("X-Ratelimit-Resource-Until")))
	a.Date, _ = http.ParseTime(resp.Header.Get("Date"))
	return a
}

// budgetAnswer reads what is left, and after a 429 or 420 for how long to wait:
// seconds, not epoch values. Retry-After, which is not documented, is obeyed all the
// same.
func budgetAnswer(resp *http.Response, remaining string) Answer {
	a := Answer{Remaining: -1}
	if n, err := strconv.ParseFloat(strings.TrimSpace(resp.Header.Get(remaining)), 64); err == nil && n >= 0 && n < 1e9 {
		a.Remaining = int(n)
	}
	if !throttled(resp.StatusCode) {
		a.Lost = gaveUp(resp.StatusCode) && a.Remaining < 0
		return a
	}
	a.Throttled = true
	for _, name := range []string{"X-Ratelimit-Retry", "Retry-After"} {
		v := strings.TrimSpace(resp.Header.Get(name))
		if s, err := strconv.ParseFloat(v, 64); err == nil && s > 0 && !math.IsInf(s, 0) {
			a.RetryAfter = max(a.RetryAfter, time.Duration(min(s, maxRetryAfter.Seconds())*float64(time.Second)))
		} else if t, err := http.ParseTime(v); err == nil {
			now := time.Now()
			if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
				now = date // both by the marketplace's clock
			}
			a.RetryAfter = max(a.RetryAfter, min(t.Sub(now), maxRetryAfter))
		}
	}
	return a
}

// throttled tells the answers that mean a spent budget: Yandex Market says 420.
func throttled(status int) bool { return status == http.StatusTooManyRequests || status == 420 }

// gaveUp tells the answers of a gateway that did not hear the marketplace, or not the
// whole request: it may have let it go on all the same.
func gaveUp(status int) bool {
	return status == http.StatusRequestTimeout || status == http.StatusBadGateway || status == http.StatusGatewayTimeout
}
