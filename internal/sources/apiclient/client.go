// Package apiclient sends one request to a marketplace: it spends a token of the
// budget, sends, reads a bounded answer, and tells the kinds of failure apart. A
// budget is a Bucket or a Window, by the marketplace's kind of limit; where it also
// limits how many requests are in flight, a Lane has a place for each.
//
// It guarantees that every attempt that leaves the process was paid for with a
// token of its own budget (contract G1), that no redirect is followed and that
// no error holds the token (G9). It never retries: a retry is a new call, which
// pays again. It does not know the state: what must outlive the process goes
// to the Ledger that it is given.
package apiclient

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"syncd/internal/grace"
	"syncd/internal/sources"
)

// Config is what a Client needs. All fields without a stated default are
// required.
type Config struct {
	Account     string
	Marketplace string
	Budget      string // name of the bucket in metrics: the API group
	BaseURL     string // scheme and host, perhaps a path
	Token       string // sent as the TokenHeader, as it is
	TokenHeader string // default: Authorization
	UserAgent   string
	Bucket      *Bucket // nil where every request has a Window
	Close       bool    // a connection of its own for every request
	Metrics     *Metrics
	Transport   http.RoundTripper // NewTransport's, shared by all clients
	Timeout     time.Duration     // for a connection, and from there to the end of the body; default 30 s, which is also the most
	Grace       time.Duration     // how long a request in flight may go on after the context ends; default 5 s
	MaxBody     int64             // bytes of one answer, decompressed; default 64 MiB

	// Classify turns the marketplace's own error answer into a kind. It may
	// return nil: then the status alone decides. It sees no more of the body than
	// maxErrorBody.
	Classify func(status int, body []byte) *sources.Error

	// Parallel tells from the body of a 429 or 420 that too many requests were in
	// flight, which says nothing about the budget. It sees no more of it than
	// maxErrorBody. Nil: none is about that.
	Parallel func(body []byte) bool

	// Heard is told what the marketplace's clock says, with every answer that says
	// it, whatever its status. It must be quick and safe for concurrent use. Nil:
	// nobody wants to know.
	Heard func(date time.Time)

	// Told is told what came of each request for the budget, as the budget itself is:
	// for who has paid for it elsewhere. Nil: nobody has.
	Told func(a Answer)
}

// Client reads one API group of one account. It is safe for concurrent use.
type Client struct {
	cfg  Config
	base *url.URL
	http *http.Client

	mu      sync.Mutex
	tickets uint64
	waiting map[uint64]context.CancelCauseFunc // for a token of the budget
}

// NewTransport returns a transport for every client of the process. Connections
// are reused and bounded per host.
//
// HTTP/2 is off: its client repeats a request by itself when the server goes
// away, an attempt that no bucket sees.
func NewTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ForceAttemptHTTP2 = false
	t.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	t.MaxIdleConns = 256
	t.MaxIdleConnsPerHost = 32
	t.MaxConnsPerHost = 64
	t.IdleConnTimeout = 60 * time.Second
	t.TLSHandshakeTimeout = 10 * time.Second
	t.ResponseHeaderTimeout = 25 * time.Second
	t.MaxResponseHeaderBytes = 64 << 10
	return t
}

// New returns a client.
func New(cfg Config) (*Client, error) {
	base, err := url.Parse(cfg.BaseURL)
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("endpoint %q of %s is not a URL with a host", cfg.BaseURL, cfg.Account)
	}
	// net/http would refuse it with every request, each of them paid for.
	if strings.ContainsFunc(cfg.Token, func(r rune) bool { return r < ' ' || r > '~' }) {
		return nil, fmt.Errorf("the token of %s holds characters that no header can hold", cfg.Account)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = maxSend
	}
	if cfg.Timeout > maxSend { // the buckets count on it
		return nil, fmt.Errorf("the timeout of %s is %s, the most is %s", cfg.Account, cfg.Timeout, maxSend)
	}
	if cfg.TokenHeader == "" {
		cfg.TokenHeader = "Authorization"
	}
	if cfg.Grace == 0 {
		cfg.Grace = 5 * time.Second
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = 64 << 20
	}
	return &Client{cfg: cfg, base: base, waiting: make(map[uint64]context.CancelCauseFunc), http: &http.Client{
		Transport:     cfg.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Request is one request.
type Request struct {
	Stream   string
	Walk     sources.Walk
	Method   string // empty: GET
	Path     string
	Endpoint string // Path as it is documented, for metrics and errors: "/v2/campaigns/{campaignId}/returns"; empty: Path
	Query    url.Values
	Body     []byte // JSON; nil: none

	// Window is what pays for the request; nil: the client's bucket.
	Window *Window
	// Lane is where it then waits for a place; nil: it needs none.
	Lane *Lane
	// Patience, above 0, is how long the request waits for its token: if that comes
	// later, the error says so at once (sources.BudgetWait), as for a deadline of ctx.
	Patience time.Duration

	// Weight is the part of a contended budget that these requests get, relative
	// to others of their walk; 0: 1. See Bucket.
	Weight float64
	// Read takes in the body of a 2xx answer while it arrives. date is the
	// marketplace's clock now, zero if it did not say. Its error, which may hold
	// anything that was sent, makes the answer an unreadable one; an error of body
	// itself counts for what it is. Nil: the body does not matter.
	Read func(body io.Reader, date time.Time) error
	// As sources.Query says; nil: nobody cares.
	Sending func()
	Large   func(ctx context.Context) error
}

// Response is a 2xx answer whose body Request.Read has taken in.
type Response struct {
	Date time.Time // the marketplace's clock when the answer was read, to the second; zero if it did not say
}

// The weights of the walks, where they contend for one budget: fresh news before
// sweeps before history, and none of them for ever without a token.
var walkWeights = map[sources.Walk]float64{sources.News: 1, sources.Follow: 1. / 2, sources.Sweep: 1. / 4, sources.Full: 1. / 4, sources.Backfill: 1. / 16}

// flow is whom the request stands in the queue for.
func (r Request) flow() Flow {
	f := Flow{Name: r.Stream + "/" + string(r.Walk), Weight: 1}
	if w, ok := walkWeights[r.Walk]; ok {
		f.Weight = w
	}
	if r.Weight != 0 {
		f.Weight *= r.Weight
	}
	return f
}

// wait returns a context for who waits for a token of the budget: it ends with the
// refusal of a 401, which stops the API group and so those that wait, before they
// spend anything.
func (c *Client) wait(ctx context.Context) (waiting context.Context, done func()) {
	waiting, cancel := context.WithCancelCause(ctx)
	c.mu.Lock()
	c.tickets++
	ticket := c.tickets
	c.waiting[ticket] = cancel
	c.mu.Unlock()
	return waiting, func() {
		c.mu.Lock()
		delete(c.waiting, ticket)
		c.mu.Unlock()
		cancel(nil)
	}
}

// answered ends a request for its budget.
func (c *Client) answered(grant *Grant, a Answer) {
	grant.Answered(a)
	if c.cfg.Told != nil {
		c.cfg.Told(a)
	}
}

// refuse sends those away that wait.
func (c *Client) refuse(refusal error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cancel := range c.waiting {
		cancel(refusal)
	}
}

// pay spends a token and takes a place. The place, which may be nil, has to be left.
func (c *Client) pay(ctx context.Context, r Request) (*Grant, *place, error) {
	ctx, done := c.wait(ctx)
	defer done()
	for {
		grant, err := c.acquire(ctx, r)
		if err != nil {
			return nil, nil, err
		}
		var place *place
		if r.Lane != nil {
			place, err = r.Lane.take(ctx, r.flow())
		}
		if err == nil && (place == nil || r.Window == nil || r.Window.open()) {
			c.cfg.Metrics.waited(c.cfg.Marketplace, methodOf(c.budget(r)), grant.Waited)
			return grant, place, nil
		}
		// While it waited in the lane an answer may have said that nothing is left of what
		// it had paid from: then it stands in line once more.
		grant.Answered(Answer{Remaining: -1, Unsent: true})
		if err != nil {
			return nil, nil, err
		}
		place.leave(true)
	}
}

func (c *Client) acquire(ctx context.Context, r Request) (*Grant, error) {
	if r.Patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, r.Patience, &sources.Error{Kind: sources.BudgetWait, Scope: sources.ScopeRequest,
			Endpoint: "budget " + c.budget(r), Err: fmt.Errorf("no token within %s", r.Patience)})
		defer cancel()
	}
	if r.Window != nil {
		return r.Window.Acquire(ctx, r.flow())
	}
	return c.cfg.Bucket.Acquire(ctx, r.flow())
}

// budget is the name of what pays for r.
func (c *Client) budget(r Request) string {
	if r.Window != nil {
		return r.Window.key.Group
	}
	return c.cfg.Budget
}

// methodOf is a budget without the entity that it is of: histograms have no label
// for each of a seller's stores.
func methodOf(budget string) string {
	method, _, _ := strings.Cut(budget, ":")
	return method
}

// body is what net/http cannot send twice. Its transport repeats a request by itself
// on a kept connection that turns out to be dead, but only when it can send the same
// body again: there is no GetBody, so a lost attempt comes back as an error and its
// repetition is paid for. A GET has one too, which is empty; a POST is not repeated
// for that either, and would be sent as of unknown length.
func (r Request) body() (b io.Reader, length int64) {
	switch {
	case len(r.Body) > 0:
		return io.NopCloser(bytes.NewReader(r.Body)), int64(len(r.Body))
	case r.method() == http.MethodGet:
		return oneAttempt{}, 0
	}
	return http.NoBody, 0
}

// oneAttempt is an empty body.
type oneAttempt struct{}

func (oneAttempt) Read([]byte) (int, error) { return 0, io.EOF }
func (oneAttempt) Close() error             { return nil }

func (r Request) method() string   { return cmp.Or(r.Method, http.MethodGet) }
func (r Request) endpoint() string { return cmp.Or(r.Endpoint, r.Path) }

// Do spends a token, takes a place in the lane and sends one request. Its errors are
// *sources.Error, or ctx's while waiting for those. When ctx ends with the request in
// flight, the request may still finish within the grace period.
func (c *Client) Do(ctx context.Context, r Request) (Response, error) {
	grant, place, err := c.pay(ctx, r)
	if err != nil {
		return Response{}, err
	}
	ended := true // the marketplace is not busy with it any more
	if place != nil {
		defer func() { place.leave(ended) }()
	}

	ctx, cancelGrace := grace.Context(ctx, c.cfg.Grace)
	defer cancelGrace()
	ctx, limit := newDeadline(ctx, c.cfg.Timeout)
	defer limit.end()

	start := time.Now()
	code := "none"
	defer func() {
		c.cfg.Metrics.requested(c.cfg.Account, r.Stream, code)
		c.cfg.Metrics.timed(c.cfg.Marketplace, r.endpoint(), time.Since(start))
	}()

	u := c.base.JoinPath(r.Path)
	u.RawQuery = r.Query.Encode()
	body, length := r.body()
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { limit.leaves() },
	}), r.method(), u.String(), body)
	if err != nil {
		c.answered(grant, Answer{Remaining: -1, Unsent: true})
		return Response{}, c.failed(r, &sources.Error{Kind: sources.Rejected, Err: err})
	}
	req.ContentLength, req.Close = length, c.cfg.Close
	req.Header.Set(c.cfg.TokenHeader, c.cfg.Token)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	if length > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.Sending != nil {
		r.Sending()
	}
	resp, err := c.http.Do(req)
	if err != nil {
		left := limit.left() // without a connection nothing can have
		ended = !left
		c.answered(grant, Answer{Remaining: -1, Lost: left, Unsent: !left})
		return Response{}, c.failed(r, &sources.Error{Kind: sources.Temporary, Unsent: !left, Err: networkError(ctx, err)})
	}
	defer resp.Body.Close()
	arrived := time.Now()
	code = strconv.Itoa(resp.StatusCode)
	date, dateErr := http.ParseTime(resp.Header.Get("Date"))
	if dateErr == nil && c.cfg.Heard != nil {
		c.cfg.Heard(date)
	}
	var text []byte
	if throttled(resp.StatusCode) && c.cfg.Parallel != nil { // what it is about stands there
		text = c.errorText(ctx, resp)
	}
	until := c.account(r, grant, place, resp, text)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		if text == nil {
			text = c.errorText(ctx, resp)
		}
		ended = !gaveUp(resp.StatusCode)
		failure := c.refused(r, resp.StatusCode, text, until)
		err := c.failed(r, failure)
		if failure.Kind == sources.Unauthorized {
			c.refuse(err)
		}
		return Response{}, err
	}
	clock := func() time.Time { // moved on: a slow body makes no clock wrong
		if dateErr != nil {
			return time.Time{}
		}
		return date.Add(time.Since(arrived))
	}
	take := func(body io.Reader) error {
		if r.Read == nil {
			return nil
		}
		return r.Read(body, clock())
	}
	if e := c.read(ctx, limit, r.Large, resp, take); e != nil {
		ended = e.Kind != sources.Temporary
		return Response{}, c.failed(r, e)
	}
	return Response{Date: clock()}, nil
}

// account tells those who count what an answer says about them. It returns when a
// refused request may be sent again, if that is known.
func (c *Client) account(r Request, grant *Grant, place *place, resp *http.Response, text []byte) (until time.Time) {
	read := bucketAnswer
	if r.Window != nil {
		read = windowAnswer
	}
	a := read(resp)
	a.Parallel = a.Throttled && c.cfg.Parallel != nil && c.cfg.Parallel(text)
	c.answered(grant, a)
	if !a.Throttled {
		return time.Time{}
	}
	c.cfg.Metrics.wasThrottled(c.cfg.Account, c.budget(r))
	switch {
	case a.Parallel && place != nil:
		return place.refused()
	case r.Window != nil:
		return r.Window.next()
	case a.RetryAfter > 0:
		return time.Now().Add(a.RetryAfter)
	}
	return time.Time{}
}
