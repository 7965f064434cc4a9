package sandbox

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// FaultKind is a way for a request to go wrong. Faulted requests pay budget as all others do.
type FaultKind string

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
	FaultReset FaultKind = "reset"
	// FaultHang says nothing until the client goes away.
	FaultHang FaultKind = "hang"
)

// Faults of the answer: the request has its effect, the client does not hear of it in order.
const (
	// FaultLostAnswer is FaultReset after the request took effect.
	FaultLostAnswer FaultKind = "lost_answer"
	// FaultResetMidBody announces the whole body, sends half of it and closes the connection.
	FaultResetMidBody FaultKind = "reset_mid_body"
	// FaultTruncated sends half of the JSON as if it were all.
	FaultTruncated FaultKind = "truncated"
	// FaultSlowBody sends the body in pieces over [Fault.Delay].
	FaultSlowBody FaultKind = "slow_body"
	// FaultErrorIn200 turns a 200 into one that says error:true (feedbacks-api), has errors (chat) or is a problem (returns).
	FaultErrorIn200 FaultKind = "error_in_200"
	// FaultContentType sends the right body as text/html.
	FaultContentType FaultKind = "content_type"
	// FaultGzip compresses the body whether the client asked for it or not.
	FaultGzip FaultKind = "gzip"
	// FaultBOM puts a byte order mark before the body.
	FaultBOM FaultKind = "bom"
	// FaultOversize makes the body 64 MiB longer, by white space before it.
	FaultOversize FaultKind = "oversize"
	// FaultBadEntry spoils the entry in the middle of a list. Variants: not_object, null, no_id, empty_id, deep (20,000
	// levels in a field more), huge (5 MiB in a field more).
	FaultBadEntry FaultKind = "bad_entry"
)

var faultKinds = map[FaultKind]bool{
	Fault500: true, Fault502: true, Fault503: true, Fault504: true, FaultRateLimited: true, Fault401: true, Fault402: true,
	Fault403: true, Fault404: true, Fault413: true, Fault422: true, FaultOther200: true,
	FaultReset: true, FaultHang: true, FaultLostAnswer: true, FaultResetMidBody: true, FaultTruncated: true,
	FaultSlowBody: true, FaultErrorIn200: true, FaultContentType: true, FaultGzip: true, FaultBOM: true, FaultOversize: true,
	FaultBadEntry: true,
}

// defaultSlowBody is how long a FaultSlowBody takes without a Delay.
const defaultSlowBody = 10 * time.Second

// Fault is an order to spoil requests. The first order that matches a request and is not used up decides;
// those of kind [FaultRateLimited] come before the others.
type Fault struct {
	Kind FaultKind
	// Variant is the form of a kind that has several. Default: the kind's first.
	Variant string
	// Path limits it to requests of exactly this path, or, if it ends in a slash, of paths below it. Default: every path.
	Path string
	// Seller limits it to one seller's requests. Default: everybody's.
	Seller string
	// Count is how many requests it spoils. Default: all until [Sandbox.ClearFaults].
	Count int
	// Rate is the share of matching requests that it spoils, drawn by the seed. Default: all.
	Rate float64
	// Delay is how long a FaultSlowBody takes (default: 10 s), and how long the budget of a FaultRateLimited is gone
	// (default: until the limit gives the next token).
	Delay time.Duration

	spent bool // Count has been used up
}

func (f Fault) validate() error {
	switch {
	case !faultKinds[f.Kind]:
		return fmt.Errorf("unknown fault kind %q: there are %q", f.Kind, slices.Sorted(maps.Keys(faultKinds)))
	case f.Variant != "" && !slices.Contains(variants[f.Kind], f.Variant):
		return fmt.Errorf("fault %s: unknown variant %q: there are %q", f.Kind, f.Variant, variants[f.Kind])
	case f.Count < 0:
		return fmt.Errorf("fault %s: count %d: expected 1 or more, or 0 for no end", f.Kind, f.Count)
	case !(f.Rate >= 0 && f.Rate <= 1):
		return fmt.Errorf("fault %s: rate %v: expected a share from 0 to 1", f.Kind, f.Rate)
	case f.Delay < 0:
		return fmt.Errorf("fault %s: negative delay %s", f.Kind, f.Delay)
	}
	return nil
}

// Inject adds faults behind those that are there. If one of them is invalid, none is added.
func (s *Sandbox) Inject(faults ...Fault) error {
	var problems []error
	for _, f := range faults {
		problems = append(problems, f.validate())
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range faults {
		s.faults = append(s.faults, &f)
	}
	return nil
}

// ClearFaults ends all faults.
func (s *Sandbox) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Faults returns the faults that can still strike, with what is left of their counts.
func (s *Sandbox) Faults() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Fault{}
	for _, f := range s.faults {
		if !f.spent {
			out = append(out, *f)
		}
	}
	return out
}

// takeFault finds the fault for a request and uses it up by one. It is asked twice: before the request pays for those that
// spend the budget, and after it for the others, so that a request refused for lack of budget uses none of them up.
func (s *Sandbox) takeFault(seller, path string, ofBudget bool) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		if f.spent || (f.Kind == FaultRateLimited) != ofBudget || !f.covers(path) || f.Seller != "" && f.Seller != seller {
			continue
		}
		if f.Rate > 0 && s.dice.Float64() >= f.Rate {
			continue
		}
		if f.Count > 0 {
			f.Count--
			f.spent = f.Count == 0
		}
		struck := *f
		return &struck
	}
	return nil
}

func (f *Fault) covers(path string) bool {
	return f.Path == "" || f.Path == path || strings.HasSuffix(f.Path, "/") && strings.HasPrefix(path, f.Path)
}

// spoilBefore answers in place of the method, if the fault is of that sort.
func (s *Sandbox) spoilBefore(w http.ResponseWriter, r *http.Request, g Group, f *Fault, form Denial, now time.Time) bool {
	if statusOf[f.Kind] != 0 {
		send(w, s.faultAnswer(g, f, form, now))
		return true
	}
	switch f.Kind {
	case FaultReset:
		reset(w)
	case FaultHang:
		// net/http notices that the client has gone only after the request's body was read.
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	default:
		return false
	}
	return true
}

// gatewayPage is nginx' own error page.
func gatewayPage(status int) answer {
	title := fmt.Sprintf("%d %s", status, http.StatusText(status))
	page := strings.ReplaceAll("<html>\r\n<head><title>TITLE</title></head>\r\n<body>\r\n<center><h1>TITLE</h1></center>\r\n"+
		"<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n", "TITLE", title)
	return answer{status: status, contentType: typeHTML, body: [][]byte{[]byte(page)}}
}

// spoilAnswer sends an answer as the fault wants it.
func spoilAnswer(w http.ResponseWriter, r *http.Request, g Group, f *Fault, a answer) {
	body := bytes.Join(a.body, nil)
	switch f.Kind {
	case FaultLostAnswer:
		reset(w)
		return
	case FaultResetMidBody:
		writeHead(w, a, len(body))
		_, _ = w.Write(body[:len(body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler) // not reset: an RST could overtake the half that was sent
	case FaultSlowBody:
		writeHead(w, a, len(body))
		trickle(w, r, body, f.Delay)
		return
	case FaultTruncated:
		body = body[:len(body)/2]
	case FaultErrorIn200:
		if a.status == http.StatusOK {
			body = errorIn200(g)
		}
	case FaultBOM:
		body = append([]byte("\ufeff"), body...)
	case FaultOversize:
		a.body = padded(body)
		send(w, a)
		return
	case FaultBadEntry:
		body = spoilEntry(body, f.form())
	case FaultContentType:
		a.contentType = typeHTML
	case FaultGzip:
		body = compress(body)
		w.Header().Set("Content-Encoding", "gzip")
	}
	a.body = [][]byte{body}
	send(w, a)
}

func errorIn200(g Group) []byte {
	switch g {
	case GroupChat:
		return []byte(`{"result":null,"errors":["internal error"]}`)
	case GroupReturns:
		return []byte(`{"title":"Internal error","detail":"Something went wrong"}`)
	}
	return render(envelope{Error: true, ErrorText: "Something went wrong"})
}

func compress(body []byte) []byte {
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	_, _ = zip.Write(body) // a buffer takes everything
	_ = zip.Close()
	return b.Bytes()
}

// trickle sends a body in pieces spread over a time, as long as the client listens.
func trickle(w http.ResponseWriter, r *http.Request, body []byte, over time.Duration) {
	const pieces = 20
	if over == 0 {
		over = defaultSlowBody
	}
	step := time.NewTicker(max(over/pieces, 1))
	defer step.Stop()
	for i := range pieces {
		if _, err := w.Write(body[len(body)*i/pieces : len(body)*(i+1)/pieces]); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-step.C:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
}

// reset closes the connection without an answer.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2, or a recorder in a test: the server's own way of hanging up
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // turns the close into an RST
	}
	_ = conn.Close()
}
