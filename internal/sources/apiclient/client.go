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
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

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
	Timeout     time.Duration     // of one request, from sending to the end of the body; default 30 s
	Grace       time.Duration     // how long a request in flight may go on after the context ends; default 5 s
	MaxBody     int64             // bytes of one answer, decompressed; default 32 MiB

	// Classify turns the marketplace's own error answer into a kind. It may
	// return nil: then the status alone decides. It sees no more of the body than
	// maxErrorBody.
	Classify func(status int, body []byte) *sources.Error
}

const maxErrorBody = 64 << 10

// Client reads one API group of one account. It is safe for concurrent use.
type Client struct {
	cfg  Config
	base *url.URL
	http *http.Client
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
		cfg.Timeout = 30 * time.Second
	}
	if cfg.Grace == 0 {
		cfg.Grace = 5 * time.Second
	}
	if cfg.MaxBody == 0 {
		cfg.MaxBody = 32 << 20
	}
	return &Client{cfg: cfg, base: base, http: &http.Client{
		Transport:     cfg.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Request is one GET.
type Request struct {
	Stream   string // for metrics
	Path     string
	Query    url.Values
	Priority Priority
}

// Response is a 2xx answer.
type Response struct {
	Body []byte
	Date time.Time // the marketplace's clock when the answer was read, to the second; zero if it did not say
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
	endpoint := "GET " + r.Path
	grant, err := c.cfg.Bucket.Acquire(ctx, r.Priority)
	if err != nil {
		return Response{}, err
	}
	c.cfg.Metrics.waited(c.cfg.Marketplace, c.cfg.Budget, grant.Waited)

	ctx, cancelGrace := grace.Context(ctx, c.cfg.Grace)
	defer cancelGrace()
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.Timeout, fmt.Errorf("no complete answer within %s", c.cfg.Timeout))
	defer cancel()

	start := time.Now()
	answer := Answer{Remaining: -1}
	code := "none"
	defer func() {
		grant.Answered(answer)
		c.cfg.Metrics.requested(c.cfg.Account, r.Stream, code)
		c.cfg.Metrics.timed(c.cfg.Marketplace, r.Path, time.Since(start))
		if answer.Throttled {
			c.cfg.Metrics.wasThrottled(c.cfg.Account, c.cfg.Budget)
		}
	}()

	u := c.base.JoinPath(r.Path)
	u.RawQuery = r.Query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), oneAttempt{})
	if err != nil {
		return Response{}, c.fail(endpoint, 0, sources.Rejected, sources.ScopeRequest, err)
	}
	req.Header.Set("Authorization", c.cfg.Token)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	resp, err := c.http.Do(req)
	if err != nil {
		return Response{}, c.fail(endpoint, 0, sources.Temporary, sources.ScopeRequest, networkError(ctx, err))
	}
	defer resp.Body.Close()
	arrived := time.Now()
	code = strconv.Itoa(resp.StatusCode)
	answer = budgetAnswer(resp)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return Response{}, c.refused(ctx, endpoint, resp, answer)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, c.cfg.MaxBody+1))
	if err != nil {
		return Response{}, c.fail(endpoint, resp.StatusCode, sources.Temporary, sources.ScopeRequest, fmt.Errorf("read the answer: %w", networkError(ctx, err)))
	}
	if int64(len(body)) > c.cfg.MaxBody {
		return Response{}, c.fail(endpoint, resp.StatusCode, sources.Temporary, sources.ScopeRequest, fmt.Errorf("the answer is longer than %d bytes", c.cfg.MaxBody))
	}
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		date = time.Time{}
	} else {
		date = date.Add(time.Since(arrived)) // a slow body makes no clock wrong
	}
	return Response{Body: body, Date: date}, nil
}

// refused is the error for an answer outside 2xx.
func (c *Client) refused(ctx context.Context, endpoint string, resp *http.Response, a Answer) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil && len(body) == 0 {
		body = []byte(networkError(ctx, err).Error())
	}
	status := resp.StatusCode
	var e *sources.Error
	if c.cfg.Classify != nil {
		e = c.cfg.Classify(status, body)
	}
	if e == nil {
		e = &sources.Error{Kind: sources.Temporary, Scope: sources.ScopeRequest}
		switch {
		case throttled(status):
			e.Kind, e.Scope = sources.RateLimited, sources.ScopeGroup
		case status == http.StatusUnauthorized:
			e.Kind, e.Scope = sources.Unauthorized, sources.ScopeGroup
		case status == http.StatusForbidden || status == http.StatusPaymentRequired:
			e.Kind, e.Scope = sources.Forbidden, sources.ScopeStream
		case status >= 300 && status < 400:
			e.Kind = sources.Rejected
			e.Hint = "redirects are not followed: set the account's `endpoints` to the address itself"
		case status >= 400 && status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooEarly:
			e.Kind = sources.Rejected
		}
	}
	e.Endpoint, e.Status = endpoint, status
	if e.Kind == sources.RateLimited && a.RetryAfter > 0 {
		e.Until = time.Now().Add(a.RetryAfter)
	}
	if e.Err == nil {
		e.Err = errors.New(c.printable(gist(status, body)))
	} else {
		e.Err = errors.New(c.printable(e.Err.Error()))
	}
	return e
}

var titleTag = regexp.MustCompile(`(?is)<title[^>]*>(.*?)</title>`)

// gist is what a person wants to read of an error answer that is not the
// marketplace's own: of a gateway's page the title.
func gist(status int, body []byte) string {
	trimmed := bytes.TrimSpace(body)
	switch {
	case status >= 300 && status < 400:
		return "a redirect to another address"
	case len(trimmed) == 0:
		return "no text"
	case trimmed[0] != '<':
		return string(trimmed)
	}
	if m := titleTag.FindSubmatch(trimmed); m != nil {
		return "an HTML page: " + string(m[1])
	}
	return "an HTML page"
}

// Unreadable is the error for a 2xx answer to a GET of path that is not what it
// should be: a gateway's page, a body cut short, an error in the envelope. It is
// tried again later.
func (c *Client) Unreadable(path string, err error) error {
	return c.fail("GET "+path, http.StatusOK, sources.Temporary, sources.ScopeRequest, err)
}

func (c *Client) fail(endpoint string, status int, k sources.Kind, s sources.Scope, err error) error {
	return &sources.Error{Kind: k, Scope: s, Endpoint: endpoint, Status: status, Err: errors.New(c.printable(err.Error()))}
}

// printable makes text that a stranger sent fit for a log line: short, without
// control characters, and without the token, should it come back as an echo.
func (c *Client) printable(s string) string {
	const most, looked = 300, 4 << 10
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case r == utf8.RuneError || !unicode.IsPrint(r):
			return '.'
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	s = hide(s[:min(len(s), looked)], c.cfg.Token)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	if s == "" {
		return "no text"
	}
	return s
}

// hide replaces the token in s, and every piece of it that is long enough to
// matter: an echo may be cut off, or broken into lines.
func hide(s, token string) string {
	const piece = 12
	if len(token) <= piece {
		if token == "" {
			return s
		}
		return strings.ReplaceAll(s, token, "[token]")
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		end := i + piece
		if end > len(s) || !strings.Contains(token, s[i:end]) {
			b.WriteByte(s[i])
			i++
			continue
		}
		for end < len(s) && strings.Contains(token, s[i:end+1]) {
			end++
		}
		b.WriteString("[token]")
		i = end
	}
	return b.String()
}

// networkError names what went wrong without the URL that net/http puts before
// it, and with the reason why our own context ended.
func networkError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return err
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
