package sources

import (
	"errors"
	"fmt"
	"time"
)

// ErrNoSuchWalk says that a stream does not have the walk asked for.
var ErrNoSuchWalk = errors.New("the stream has no such walk")

// Kind is what the engine should make of a failed request. The names are the
// `reason` label of poll_errors_total.
type Kind string

// The kinds of failure.
const (
	Temporary    Kind = "temporary"    // try again later: network, a connection that broke off, 5xx
	Unreadable   Kind = "unreadable"   // a 2xx that is not what it should be: a gateway's page, damaged, an error inside; try again later
	RateLimited  Kind = "rate_limited" // 429: the budget is spent; the bucket already knows until when
	Unauthorized Kind = "unauthorized" // 401: stops the API group of the account
	Payment      Kind = "payment"      // 402: somebody has to pay; stops what Scope says
	Forbidden    Kind = "forbidden"    // 403: stops what Scope says
	Rejected     Kind = "rejected"     // other 4xx: our parameters are wrong, which is a bug of ours
	BudgetWait   Kind = "budget_wait"  // the next token comes after the deadline of the context
)

// Scope is what a failure is about.
type Scope string

// The scopes.
const (
	ScopeRequest Scope = "request"
	ScopeStream  Scope = "stream"
	ScopeGroup   Scope = "group"
)

// Error is a failed request.
type Error struct {
	Kind     Kind
	Scope    Scope
	Endpoint string    // for people: "GET /api/v1/questions"
	Request  string    // the path with its parameters, for people who want to try it; empty if none was made
	Status   int       // HTTP status; 0 when there was no answer
	Until    time.Time // RateLimited, BudgetWait: when the next request is allowed; zero if unknown
	Unsent   bool      // the request never left: nothing is known of what it asked for
	TooMuch  bool      // the answer was longer than allowed, or still arriving when its time was over: asking for less may help
	Hint     string    // what the operator can do; empty if nothing
	Err      error
}

func (e *Error) Error() string {
	s := e.Endpoint + ": "
	if e.Status != 0 {
		s += fmt.Sprintf("answer %d: ", e.Status)
	}
	return s + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// AsError returns err as an *Error, as a temporary one if it is none.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Kind: Temporary, Scope: ScopeRequest, Endpoint: "request", Err: err}
}
