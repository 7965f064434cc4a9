package sandbox

import (
	"net/http"
	"time"

	"syncd/internal/sandbox/kit"
)

// FaultKind is a way for a request to go wrong. Faulted requests pay budget as all others do.
type FaultKind = kit.FaultKind

// Faults in place of the answer: the request has no effect.
const (
	// Fault500 is an internal error with a problem body. What 5xx look like is not documented: variants are problem, json,
	// html and empty.
	Fault500 FaultKind = "status_500"
	// Fault502, Fault503 and Fault504 are the gateway's HTML pages, with the same variants.
	Fault502 FaultKind = "status_502"
	Fault503 FaultKind = "status_503"
	Fault504 FaultKind = "status_504"
	// FaultRateLimited is somebody else spending the seller's budget: the bucket is drained, this request gets a 429 and
	// is no violation; later ones are if they come before the announced time. With a [Fault.Delay] no token comes back
	// before it is over. Variants of the text: limiter (documented), gateway (with X-Ratelimit-Remaining: 0) and global
	// (both recorded); bare has no headers either.
	FaultRateLimited FaultKind = "status_429"
	// Fault401 is the gateway's documented body. Variants: withdrawn, malformed, expired, scope.
	Fault401 FaultKind = "status_401"
	// Fault402 is what services of the catalog get whose balance is empty.
	Fault402 FaultKind = "status_402"
	// Fault403 follows [Quirks.Denial]. Other variants: gateway, envelope (feedbacks-api's own), base_token, requirements,
	// pins (no subscription).
	Fault403 FaultKind = "status_403"
	// Fault404, Fault413 and Fault422 are answered to requests that nothing is wrong with.
	Fault404 FaultKind = "status_404"
	Fault413 FaultKind = "status_413"
	Fault422 FaultKind = "status_422"
	// FaultOther200 is a 200 that does not come from the API. Variants: html, empty.
	FaultOther200 FaultKind = "other_200"
	// FaultReset closes the connection (by RST where it is TCP) without a byte of answer.
	FaultReset = kit.FaultReset
	// FaultHang says nothing until the client goes away.
	FaultHang = kit.FaultHang
)

// Faults of the answer: the request has its effect, the client does not hear of it in order.
const (
	// FaultLostAnswer is FaultReset after the request took effect.
	FaultLostAnswer = kit.FaultLostAnswer
	// FaultResetMidBody announces the whole body, sends half of it and closes the connection.
	FaultResetMidBody = kit.FaultResetMidBody
	// FaultTruncated sends half of the JSON as if it were all.
	FaultTruncated = kit.FaultTruncated
	// FaultSlowBody sends the body in pieces over [Fault.Delay].
	FaultSlowBody = kit.FaultSlowBody
	// FaultErrorIn200 turns a 200 into one that says error:true (feedbacks-api), has errors (chat) or is a problem (returns).
	FaultErrorIn200 FaultKind = "error_in_200"
	// FaultContentType sends the right body as text/html.
	FaultContentType = kit.FaultContentType
	// FaultGzip compresses the body whether the client asked for it or not.
	FaultGzip = kit.FaultGzip
	// FaultBOM puts a byte order mark before the body.
	FaultBOM = kit.FaultBOM
	// FaultOversize makes the body 64 MiB longer, by white space before it.
	FaultOversize = kit.FaultOversize
	// FaultBadEntry spoils the entry in the middle of a list. Variants: not_object, null, no_id, empty_id, deep (20,000
	// levels in a field more), huge (5 MiB in a field more).
	FaultBadEntry = kit.FaultBadEntry
)

// Fault is an order to spoil requests. Its Seller is a seller's id. Its Delay is how long a FaultSlowBody takes (default:
// 10 s), and how long the budget of a FaultRateLimited is gone (default: until the limit gives the next token).
type Fault = kit.Fault

func ofBudget(k FaultKind) bool { return k == FaultRateLimited }

// Inject adds faults behind those that are there. If one of them is invalid, none is added.
func (s *Sandbox) Inject(faults ...Fault) error { return s.faults.Inject(faults...) }

// ClearFaults ends all faults.
func (s *Sandbox) ClearFaults() { s.faults.Clear() }

// Faults returns the faults that can still strike, with what is left of their counts.
func (s *Sandbox) Faults() []Fault { return s.faults.Left() }

// spoilBefore answers in place of the method, if the fault is of that sort.
func (s *Sandbox) spoilBefore(w http.ResponseWriter, r *http.Request, g Group, f *Fault, form Denial, now time.Time) bool {
	if statusOf[f.Kind] != 0 {
		kit.Send(w, s.faultAnswer(g, f, form, now))
		return true
	}
	return kit.Silence(w, r, f)
}

// spoilAnswer sends an answer as the fault wants it.
func spoilAnswer(w http.ResponseWriter, r *http.Request, g Group, f *Fault, a answer) {
	if f.Kind == FaultErrorIn200 && a.Status == http.StatusOK {
		a.Body = [][]byte{errorIn200(g)}
	}
	kit.Spoil(w, r, f, a, listNames, idNames)
}

func errorIn200(g Group) []byte {
	switch g {
	case GroupChat:
		return []byte(`{"result":null,"errors":["internal error"]}`)
	case GroupReturns:
		return []byte(`{"title":"Internal error","detail":"Something went wrong"}`)
	}
	return kit.Render(envelope{Error: true, ErrorText: "Something went wrong"})
}
