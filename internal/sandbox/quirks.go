package sandbox

import "fmt"

// Quirks are the points where Wildberries' documents are silent or contradict what was seen. The zero value is the reading
// that the documents make likeliest; a client has to be right under every one. See wildberries.md §4, §5 and §7.
type Quirks struct {
	// PageSize is the number of events in a full page of seller/events. Default: 50, the size that was recorded.
	PageSize int

	// InclusiveNext makes seller/events return events at or after `next` instead of strictly after it, so that the last
	// event of a page comes again and totalEvents never reaches 0.
	InclusiveNext bool

	// EmptyNext is the form of `next` on a page without events.
	EmptyNext EmptyNext

	// EmptyTimesAbsent leaves newestEventTime and oldestEventTime out of an empty page. Default: they are null.
	EmptyTimesAbsent bool

	// RepeatPage makes seller/events answer every `next` with the page that ends there: the reader never gets on.
	RepeatPage bool

	// FromExclusive and ToExclusive make the ends of the dateFrom/dateTo window exclusive. Default: both inclusive.
	FromExclusive bool
	ToExclusive   bool

	// WholeSeconds compares the window with creation times cut to seconds. Default: with the full nanoseconds, so that an
	// item created at 10.5 s is after dateTo=10.
	WholeSeconds bool

	// RetryRoundsDown rounds X-Ratelimit-Retry and -Reset down to seconds: who comes back exactly then may be early.
	// Default: rounded up.
	RetryRoundsDown bool

	// Denial is the answer to a token whose scope does not cover the method.
	Denial Denial
}

// EmptyNext is a form of `next` on an empty page of seller/events.
type EmptyNext int

const (
	// EmptyNextEcho repeats the request's `next`; without one it is 0, the zero value of a Go server.
	EmptyNextEcho EmptyNext = iota
	// EmptyNextNull sends null.
	EmptyNextNull
	// EmptyNextAbsent leaves the field out.
	EmptyNextAbsent
	// EmptyNextZero sends 0, which the method itself refuses as a value for `next`.
	EmptyNextZero
	// EmptyNextOlder sends a time one hour before the request's.
	EmptyNextOlder
)

// Denial is an answer to a token without the scope.
type Denial int

const (
	// Denial401 is the recorded one: problem+json, 401, "token scope not allowed".
	Denial401 Denial = iota
	// Denial403Gateway is the 403 problem+json that every method documents since September 2026.
	Denial403Gateway
	// Denial403Envelope is feedbacks-api's own 403, "Ошибка авторизации". The chat host has none and answers as its
	// gateway does.
	Denial403Envelope
)

const defaultPageSize = 50

func (q Quirks) pageSize() int {
	if q.PageSize == 0 {
		return defaultPageSize
	}
	return q.PageSize
}

func (q Quirks) validate() error {
	switch {
	case q.PageSize < 0:
		return fmt.Errorf("page size %d: expected 1 or more, or 0 for %d", q.PageSize, defaultPageSize)
	case q.EmptyNext < EmptyNextEcho || q.EmptyNext > EmptyNextOlder:
		return fmt.Errorf("unknown form %d of next on an empty page", q.EmptyNext)
	case q.Denial < Denial401 || q.Denial > Denial403Envelope:
		return fmt.Errorf("unknown denial %d", q.Denial)
	}
	return nil
}
