// Package apiclient sends one request to a marketplace: it spends a token of the
// budget, sends, reads a bounded answer, and tells the kinds of failure apart.
//
// It guarantees that every attempt that leaves the process was paid for with a
// token of its own bucket (contract G1), that no redirect is followed and that
// no error holds the token (G9). It never retries: a retry is a new call, which
// pays again. It does not know the state: what must outlive the process goes
// to the Ledger that it is given.
package apiclient

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math"
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
	Token       string // sent as the Authorization header, as it is
	UserAgent   string
	Bucket      *Bucket
	Metrics     *Metrics
	Transport   http.RoundTripper // NewTransport's, shared by all clients
	Timeout     time.Duration     // for a connection, and from there to the end of the body; default 30 s, which is also the most
	Grace       time.Duration     // how long a request in flight may go on after the context ends; default 5 s
	MaxBody     int64             // bytes of one answer, decompressed; default 64 MiB

	// Classify turns the marketplace's own error answer into a kind. It may
	// return nil: then the status alone decides. It sees no more of the body than
	// maxErrorBody.
	Classify func(status int, body []byte) *sources.Error

	// Heard is told what the marketplace's clock says, with every answer that says
	// it, whatever its status. It must be quick and safe for concurrent use. Nil:
	// nobody wants to know.
	Heard func(date time.Time)
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

// Request is one GET.
type Request struct {
	Stream string
	Walk   sources.Walk
	Path   string
	Query  url.Values
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
var walkWeights = map[sources.Walk]float64{sources.News: 1, sources.Sweep: 1. / 4, sources.Full: 1. / 4, sources.Backfill: 1. / 16}

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

// refuse sends those away that wait.
func (c *Client) refuse(refusal error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cancel := range c.waiting {
		cancel(refusal)
	}
}

// oneAttempt is an empty body that net/http cannot send twice. Its transport
// repeats a GET by itself on a kept connection that turns out to be dead, but
// only when it can send the same body again: this one has no GetBody, so a lost
// attempt comes back as an error and its repetition is paid for.
type oneAttempt struct{}

func (oneAttempt) Read([]byte) (int, error) { return 0, io.EOF }
func (oneAttempt) Close() error             { return nil }

// Get spends a token and sends one request. Its errors are *sources.Error, or
// ctx's while waiting for the budget. When ctx ends with the request in flight,
// the request may still finish within the grace period.
func (c *Client) Get(ctx context.Context, r Request) (Response, error) {
	waiting, done := c.wait(ctx)
	grant, err := c.cfg.Bucket.Acquire(waiting, r.flow())
	done()
	if err != nil {
		return Response{}, err
	}
	c.cfg.Metrics.waited(c.cfg.Marketplace, c.cfg.Budget, grant.Waited)

	ctx, cancelGrace := grace.Context(ctx, c.cfg.Grace)
	defer cancelGrace()
	ctx, limit := newDeadline(ctx, c.cfg.Timeout)
	defer limit.end()

	start := time.Now()
	code := "none"
	defer func() {
		c.cfg.Metrics.requested(c.cfg.Account, r.Stream, code)
		c.cfg.Metrics.timed(c.cfg.Marketplace, r.Path, time.Since(start))
	}()

	u := c.base.JoinPath(r.Path)
	u.RawQuery = r.Query.Encode()
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { limit.leaves() },
	}), http.MethodGet, u.String(), oneAttempt{})
	if err != nil {
		grant.Answered(Answer{Remaining: -1, Unsent: true})
		return Response{}, c.failed(r, &sources.Error{Kind: sources.Rejected, Err: err})
	}
	req.Header.Set("Authorization", c.cfg.Token)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	if r.Sending != nil {
		r.Sending()
	}
	resp, err := c.http.Do(req)
	if err != nil {
		left := limit.left() // without a connection nothing can have
		grant.Answered(Answer{Remaining: -1, Lost: left, Unsent: !left})
		return Response{}, c.failed(r, &sources.Error{Kind: sources.Temporary, Unsent: !left, Err: networkError(ctx, err)})
	}
	defer resp.Body.Close()
	arrived := time.Now()
	code = strconv.Itoa(resp.StatusCode)
	answer := budgetAnswer(resp)
	grant.Answered(answer)
	if answer.Throttled {
		c.cfg.Metrics.wasThrottled(c.cfg.Account, c.cfg.Budget)
	}
	date, dateErr := http.ParseTime(resp.Header.Get("Date"))
	if dateErr == nil && c.cfg.Heard != nil {
		c.cfg.Heard(date)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		failure := c.refused(ctx, resp, answer)
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
		return Response{}, c.failed(r, e)
	}
	return Response{Date: clock()}, nil
}

// maxRetryAfter bounds what a header can make us wait. Hours have been seen;
// more than a week is nonsense.
const maxRetryAfter = 7 * 24 * time.Hour

// budgetAnswer reads the headers of wildberries.md §2 ("Headers"): seconds, not
// epoch values. Retry-After, which is not documented, is obeyed all the same.
func budgetAnswer(resp *http.Response) Answer {
	a := Answer{Remaining: -1}
	if n, err := strconv.ParseFloat(strings.TrimSpace(resp.Header.Get("X-Ratelimit-Remaining")), 64); err == nil && n >= 0 && n < 1e9 {
		a.Remaining = int(n)
	}
	if !throttled(resp.StatusCode) {
		// A gateway that did not hear the marketplace, or not the whole request, may
		// have let it go on all the same.
		switch resp.StatusCode {
		case http.StatusRequestTimeout, http.StatusBadGateway, http.StatusGatewayTimeout:
			a.Lost = a.Remaining < 0
		}
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
