package sandbox

import (
	"fmt"
	"net/http"
)

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

	// OldUnanswered is where feedbacks are that have had no answer for 30 days, beside the archive.
	OldUnanswered OldUnanswered

	// FeedbackSkipCap refuses a larger skip in the lists of feedbacks, as clients report for 10,000 and 20,000. Default:
	// 199,990, the documented one.
	FeedbackSkipCap int
	// FeedbackSkipStatus is the status of that refusal: 400 or 422. Default: 400.
	FeedbackSkipStatus int

	// FeedbackOrderIgnored sorts the lists of feedbacks by dateDesc whatever `order` says.
	FeedbackOrderIgnored bool

	// FeedbackPageCut is how many feedbacks a page has at most, whatever `take` says. Default: as many as asked for.
	FeedbackPageCut int

	// QuestionPageCut is FeedbackPageCut for questions.
	QuestionPageCut int

	// PhotoNoise gives the links of photos and videos another query string in each answer.
	PhotoNoise bool

	// PinsWithoutState is what the methods of pins return to a request without `state`.
	PinsWithoutState PinsWithoutState

	// ChatsUnordered shuffles seller/chats in every answer. Default: the newest message first, as recorded.
	ChatsUnordered bool

	// ClaimOrder is the order of GET /claims, which is not documented.
	ClaimOrder ClaimOrder

	// RetryRoundsDown rounds X-Ratelimit-Retry and -Reset down to seconds: who comes back exactly then may be early.
	// Default: rounded up.
	RetryRoundsDown bool

	// ProblemsAsJSON sends all problem+json as application/json, as the gateway did before 2026-01-27.
	ProblemsAsJSON bool

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

// ClaimOrder is an order of the list of claims.
type ClaimOrder int

const (
	// ClaimsNewestFirst is by dt, the newest first.
	ClaimsNewestFirst ClaimOrder = iota
	// ClaimsByUpdate is by dt_update, the newest first.
	ClaimsByUpdate
	// ClaimsByID is by id: new claims appear anywhere.
	ClaimsByID
	// ClaimsShuffled is another order in every answer.
	ClaimsShuffled
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

// OldUnanswered is a reading of "archived if there was no answer within 30 days". The archive has them in each.
type OldUnanswered int

const (
	// OldUnansweredStay leaves them in isAnswered=false.
	OldUnansweredStay OldUnanswered = iota
	// OldUnansweredMove puts them in isAnswered=true.
	OldUnansweredMove
	// OldUnansweredLeave takes them out of both lists.
	OldUnansweredLeave
)

// PinsWithoutState is what the pins' optional `state` defaults to.
type PinsWithoutState int

const (
	// PinsAll returns pinned and unpinned ones.
	PinsAll PinsWithoutState = iota
	// PinsPinned returns the pinned ones.
	PinsPinned
	// PinsRefused is a 400, as to an unknown state.
	PinsRefused
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
	case q.OldUnanswered < OldUnansweredStay || q.OldUnanswered > OldUnansweredLeave:
		return fmt.Errorf("unknown place %d of old feedbacks without an answer", q.OldUnanswered)
	case q.FeedbackSkipCap < 0 || q.FeedbackPageCut < 0 || q.QuestionPageCut < 0:
		return fmt.Errorf("feedback skip cap %d, page cuts %d and %d: expected 1 or more, or 0 for the documented", q.FeedbackSkipCap, q.FeedbackPageCut, q.QuestionPageCut)
	case q.FeedbackSkipStatus != 0 && q.FeedbackSkipStatus != http.StatusBadRequest && q.FeedbackSkipStatus != http.StatusUnprocessableEntity:
		return fmt.Errorf("feedback skip status %d: expected 400 or 422", q.FeedbackSkipStatus)
	case q.PinsWithoutState < PinsAll || q.PinsWithoutState > PinsRefused:
		return fmt.Errorf("unknown answer %d to pins without a state", q.PinsWithoutState)
	case q.ClaimOrder < ClaimsNewestFirst || q.ClaimOrder > ClaimsShuffled:
		return fmt.Errorf("unknown order %d of claims", q.ClaimOrder)
	case q.Denial < Denial401 || q.Denial > Denial403Envelope:
		return fmt.Errorf("unknown denial %d", q.Denial)
	}
	return nil
}
