package sandbox

import "time"

// Limit is a token bucket as the documents' tables give it: capacity = burst, one token back per interval.
type Limit struct {
	Burst    int           `json:"burst"`
	Interval time.Duration `json:"interval_ns"`
}

// Group is a set of methods that share a bucket.
type Group string

const (
	// GroupFeedbacks is "all methods in the Feedbacks and Questions category": one bucket by the documents' words.
	GroupFeedbacks Group = "feedbacks"
	// GroupRating is the seller's rating, on the same host with a limit of its own.
	GroupRating Group = "rating"
	// GroupChat is the chat host. With [ChatBucketPerMethod] its buckets are "chat/events", "chat/chats", "chat/message" and
	// [GroupDownload].
	GroupChat Group = "chat"
	// GroupDownload is the download of files from chats, which has a limit of its own for Base tokens.
	GroupDownload Group = GroupChat + "/download"
	// GroupReturns is the returns host. With [ChatBucketPerMethod] its buckets are "returns/claims" and "returns/claim".
	GroupReturns Group = "returns"
	// GroupPing is the connection check, whose limit is apart from all others.
	GroupPing Group = "ping"
)

// limits holds the tables of the OpenAPI document (2026-07-23): for Personal, Service and Base-with-secret tokens, and for
// Base tokens. Test tokens have no row; they get Base's, as does everything unknown.
var limits = map[Group]struct{ full, base Limit }{
	GroupFeedbacks: {full: Limit{6, 333 * time.Millisecond}, base: Limit{1, 12 * time.Minute}},
	GroupRating:    {full: Limit{1, time.Minute}, base: Limit{1, time.Minute}},
	GroupChat:      {full: Limit{10, time.Second}, base: Limit{1, time.Hour}},
	GroupDownload:  {full: Limit{10, time.Second}, base: Limit{1, 6 * time.Minute}},
	GroupReturns:   {full: Limit{10, 3 * time.Second}, base: Limit{1, time.Hour}},
	// "At most 3 requests in 30 seconds", without a row for interval and burst and for every token type.
	GroupPing: {full: Limit{3, 10 * time.Second}, base: Limit{3, 10 * time.Second}},
}

// bucketKey: tokens of one type add no budget to each other ("per seller account"); other types have their own.
type bucketKey struct {
	group Group // with the method where methods have their own
	kind  tokenKind
}

// meter is a token bucket in one number: the moment at which it is full again. A full bucket starts to refill when a
// request arrives, since the moment is then counted from that arrival.
type meter struct{ fullAt time.Time }

// wait says how long until there is a token; 0 or less: since when there has been one.
func (m meter) wait(now time.Time, l Limit) time.Duration {
	if m.fullAt.IsZero() {
		return 0
	}
	return m.fullAt.Sub(now) - time.Duration(l.Burst-1)*l.Interval
}

// left counts the whole tokens there are just after one was spent.
func (m meter) left(now time.Time, l Limit) int {
	return l.Burst - int((m.fullAt.Sub(now)+l.Interval-1)/l.Interval)
}

func (m *meter) spend(now time.Time, l Limit) {
	if m.fullAt.Before(now) {
		m.fullAt = now
	}
	m.fullAt = m.fullAt.Add(l.Interval)
}

// earlyGrace is how long after a 429 further refused requests may still be ones that had left before it arrived.
const earlyGrace = 200 * time.Millisecond

// bucket is the budget of one seller, token type and group. Its World's mutex guards it.
type bucket struct {
	limit Limit
	// real is what the marketplace goes by. own leaves out what others spent ([FaultRateLimited] plays them): it tells
	// a client that overspends from one that finds the budget gone.
	real, own meter
	// refusedAt and notBefore are when the last 429 was sent and until when it told the client to wait.
	refusedAt, notBefore time.Time

	requests, refused, violations int64
	lowest                        int
	closest                       *time.Duration
}

func newBucket(l Limit) *bucket { return &bucket{limit: l, lowest: l.Burst} }

// take spends a token for a request arriving now. Without one the violation says whose fault that is; it is "" when
// others have spent the budget and the client could not know.
func (b *bucket) take(now time.Time) (ok bool, violation ViolationKind) {
	b.requests++
	if b.real.wait(now, b.limit) <= 0 {
		if !b.own.fullAt.IsZero() {
			if margin := -b.own.wait(now, b.limit); b.closest == nil || margin < *b.closest {
				b.closest = &margin
			}
		}
		b.real.spend(now, b.limit)
		b.own.spend(now, b.limit)
		b.lowest = min(b.lowest, b.own.left(now, b.limit))
		return true, ""
	}
	switch {
	case b.own.wait(now, b.limit) > 0:
		violation = ViolationBudget
		b.lowest = 0
	case now.Sub(b.refusedAt) > earlyGrace && now.Before(b.notBefore):
		violation = ViolationEarly
	}
	if violation != "" {
		b.violations++
	}
	return false, violation
}

// drain is somebody else spending everything that is left and, for a time, everything that comes back.
func (b *bucket) drain(now time.Time, next time.Duration) {
	empty := now.Add(next + time.Duration(b.limit.Burst-1)*b.limit.Interval)
	if b.real.fullAt.Before(empty) {
		b.real.fullAt = empty
	}
}

// refuse counts a 429 and gives the numbers of its headers: whole seconds until the next token and until all are back.
func (b *bucket) refuse(now time.Time, roundDown bool) (retry, reset int) {
	b.refused++
	retry = seconds(b.real.wait(now, b.limit), roundDown)
	reset = seconds(b.real.fullAt.Sub(now), roundDown)
	b.refusedAt = now
	b.notBefore = now.Add(time.Duration(retry) * time.Second)
	return retry, reset
}

func seconds(d time.Duration, roundDown bool) int {
	if !roundDown {
		d += time.Second - 1
	}
	return int(d / time.Second)
}
