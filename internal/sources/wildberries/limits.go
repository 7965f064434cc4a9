package wildberries

import (
	"time"

	"syncd/internal/sources/apiclient"
)

// The documented buckets (OpenAPI document "communications", the limit table of
// each method; 2026-07-23): period, limit, interval and burst by token type. A
// bucket holds Burst requests and gets one more each Interval.
var (
	fastLimits = map[string]apiclient.Limit{
		GroupFeedbacks: {Interval: 334 * time.Millisecond, Burst: 6}, // "3 per 1 s, 333 ms": a third of a second, rounded up
		GroupChat:      {Interval: time.Second, Burst: 10},
		GroupReturns:   {Interval: 3 * time.Second, Burst: 10},
	}
	baseLimits = map[string]apiclient.Limit{
		GroupFeedbacks: {Interval: 12 * time.Minute, Burst: 1},
		GroupChat:      {Interval: time.Hour, Burst: 1},
		GroupReturns:   {Interval: time.Hour, Burst: 1},
	}
)

// Interval is how far apart the requests of an API group have to be with this
// token, once its burst is spent.
func (t Token) Interval(group string) time.Duration {
	limit, _ := Limit(t.Type, group)
	return limit.Interval
}

// Limit returns the bucket of an API group for a type of token, and the class of
// tokens that share it: the Class of its apiclient.Key. Test and unknown types
// get Base limits (contract §4). The limit of a group that does not exist is zero.
func Limit(t TokenType, group string) (limit apiclient.Limit, class string) {
	if t == Personal || t == Service {
		return fastLimits[group], "personal"
	}
	return baseLimits[group], "base"
}
