package sink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"syncd/internal/event"
)

// WebhookConfig is the configuration of a Webhook.
type WebhookConfig struct {
	// URL that events are posted to, http or https.
	URL string
	// Secrets that sign every request, as Standard Webhooks writes them:
	// whsec_ and base64. Several sign side by side, which is how a secret is
	// exchanged without a gap.
	Secrets []string
	// Unsigned says that requests are to carry no signature. It excludes
	// Secrets.
	Unsigned bool
	// Headers to send along. Those that syncd sets itself are refused.
	Headers map[string]string
	// Batch makes the body an array of events, also where it is one event.
	Batch bool
	// RootCAs are the certificates, in PEM, that a receiver's (and a proxy's) must
	// come from, instead of those that the system trusts. Default: the system's.
	RootCAs []byte
	// Timeout of one attempt, from connecting to the end of the answer.
	// Default 15s.
	Timeout time.Duration
	// Concurrency is the number of requests at once. Default 8.
	Concurrency int
	// UserAgent of the requests. Default "syncd".
	UserAgent string
}

// Webhook posts one event a request, or a batch of them, signed by Standard
// Webhooks. The id of a batch is a hash of the ids in it.
//
// It sends what it is given once and follows no redirect: it talks to the
// transport itself, which has no notion of them. The transport repeats a
// request on its own only where the connection was dead before a byte of it
// was written.
//
// No error holds the query or the user of the URL, its path, a secret or the
// value of a configured header, or who we are to a proxy, wherever the text
// comes from.
type Webhook struct {
	batch       bool
	signers     sync.Pool     // of *signer
	template    *http.Request // what all requests have in common, but for the header
	header      http.Header   // what every request carries; its values are shared
	timeout     time.Duration
	late        error // the cause of an attempt's end when timeout is over
	concurrency int
	transport   *http.Transport
	redact      redactor
}

var _ Parallel = (*Webhook)(nil)

const (
	defaultTimeout     = 15 * time.Second
	defaultConcurrency = 8
	connectTimeout     = 10 * time.Second // of TCP, and again of TLS

	// batchBuffer is a connection's memory where bodies are large: without it, one
	// of 64 KiB is copied once more, and takes two writes.
	batchBuffer = 64 << 10
	// answerBound is read of every answer, so that its connection can be used
	// again; one who says more pays with a new connection.
	answerBound = 64 << 10
	// answerPatience is how long the rest of an answer may take when its status,
	// which alone decides, is known.
	answerPatience = 2 * time.Second
	// maxRetryAfter is how long a receiver can have itself left alone.
	maxRetryAfter = 24 * time.Hour
)

// NewWebhook checks cfg. It connects to nothing.
func NewWebhook(cfg WebhookConfig) (*Webhook, error) {
	// An error of url.Parse quotes what it could not read, credentials included.
	u, err := url.Parse(cfg.URL)
	switch {
	case err != nil:
		return nil, errors.New("webhook: url is not a valid URL")
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return nil, errors.New("webhook: url must begin with http:// or https:// and name a host")
	case u.Fragment != "":
		return nil, errors.New("webhook: url has a fragment (#), which is never sent")
	case cfg.Timeout < 0:
		return nil, fmt.Errorf("webhook: timeout %v is negative", cfg.Timeout)
	case cfg.Concurrency < 0:
		return nil, fmt.Errorf("webhook: concurrency %d is negative", cfg.Concurrency)
	case cfg.Unsigned && len(cfg.Secrets) > 0:
		return nil, errors.New("webhook: unsigned, and yet with a secret")
	case !cfg.Unsigned && len(cfg.Secrets) == 0:
		return nil, errors.New("webhook: no secret; say unsigned if that is meant")
	}
	w := &Webhook{
		batch:       cfg.Batch,
		template:    &http.Request{Method: http.MethodPost, URL: u, Host: u.Host},
		timeout:     cfg.Timeout,
		concurrency: cfg.Concurrency,
	}
	if w.timeout == 0 {
		w.timeout = defaultTimeout
	}
	w.late = fmt.Errorf("no answer within %v", w.timeout)
	if w.concurrency == 0 {
		w.concurrency = defaultConcurrency
	}
	var keys [][]byte
	for i, s := range cfg.Secrets {
		key, err := parseSecret(s)
		if err != nil {
			return nil, fmt.Errorf("webhook: secret %d: %w", i+1, err)
		}
		keys = append(keys, key)
	}
	w.signers.New = func() any { return newSigner(keys) }
	if w.header, err = baseHeader(cfg, u); err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	// Asked once: the environment does not change, and its passwords must be known.
	proxy, err := http.ProxyFromEnvironment(w.template)
	if err != nil { // it quotes the proxy's URL
		return nil, errors.New("webhook: the proxy in the environment (HTTP_PROXY, HTTPS_PROXY) cannot be used")
	}
	w.redact = newRedactor(u, proxy, cfg.Secrets, cfg.Headers)
	w.transport = newTransport(w.concurrency, proxy)
	if w.batch {
		w.transport.WriteBufferSize = batchBuffer
	}
	if cfg.RootCAs != nil {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(cfg.RootCAs) {
			return nil, errors.New("webhook: no certificate in the root CAs")
		}
		w.transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	return w, nil
}

// newTransport has no timeout for an answer's headers: the deadline of the
// whole attempt covers them.
func newTransport(concurrency int, proxy *url.URL) *http.Transport {
	dialer := &net.Dialer{Timeout: connectTimeout, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:                  http.ProxyURL(proxy),
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    connectTimeout,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           concurrency,
		MaxIdleConnsPerHost:    concurrency,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: answerBound,
		// Nothing we read is worth packing, and nothing can then unpack to more.
		DisableCompression: true,
		// An HTTP/2 connection survives the requests that time out on it, so
		// that one which has died silently would fail them all.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
}

// Parallel implements Parallel.
func (w *Webhook) Parallel() int { return w.concurrency }

// Close implements Sink.
func (w *Webhook) Close() error {
	w.transport.CloseIdleConnections()
	return nil
}

// Deliver implements Sink. Its errors are of type *Error, and hold the cause
// of ctx when that is what ended the attempt.
//
// A crash between the receiver's 2xx and the commit of the acknowledgement
// sends the event once more, with the same id.
func (w *Webhook) Deliver(ctx context.Context, events []event.Logged) error {
	return w.post(ctx, 0, events)
}

// Redeliver implements Parallel, as Deliver does.
func (w *Webhook) Redeliver(ctx context.Context, why Aside, events []event.Logged) error {
	return w.post(ctx, why, events)
}

func (w *Webhook) post(ctx context.Context, why Aside, events []event.Logged) error {
	if len(events) == 0 || len(events) > 1 && !w.batch {
		panic(fmt.Sprintf("webhook: a request of %d events", len(events)))
	}
	if ctx.Err() != nil {
		return &Error{Err: context.Cause(ctx)}
	}
	attempt, cancel := context.WithTimeoutCause(ctx, w.timeout, w.late)
	defer cancel()
	resp, err := w.transport.RoundTrip(w.request(attempt, why, events))
	if err != nil {
		return w.noAnswer(ctx, attempt, err)
	}
	// The status has decided; nothing that happens to the rest of the answer
	// changes that.
	defer resp.Body.Close()
	if resp.Body != http.NoBody {
		patience := time.AfterFunc(answerPatience, cancel)
		defer patience.Stop()
	}
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode <= 299:
		io.CopyN(io.Discard, resp.Body, answerBound+1)
		return nil
	case resp.StatusCode == http.StatusSwitchingProtocols:
		// Its body is the bare connection: it has no end, and ignores attempt.
		return w.refused(resp, nil, time.Now())
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, answerBound+1))
	return w.refused(resp, body, time.Now())
}

// noAnswer is the error of an attempt without a status. It keeps the text of
// err alone: what err wraps has not been cleaned.
func (w *Webhook) noAnswer(ctx, attempt context.Context, err error) error {
	if ctx.Err() != nil {
		return &Error{Err: context.Cause(ctx)}
	}
	text := err.Error()
	switch {
	case attempt.Err() != nil:
		text = context.Cause(attempt).Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		text = "connection closed without an answer"
	default:
		if e, ok := errors.AsType[tls.RecordHeaderError](err); ok && string(e.RecordHeader[:]) == "HTTP/" {
			text = "the receiver speaks HTTP on this port, not HTTPS"
		}
	}
	return &Error{Err: errors.New(w.template.URL.Scheme + "://" + w.template.Host + ": " + w.redact.clean(text))}
}

// refused is the error of an attempt that was answered with anything but 2xx.
func (w *Webhook) refused(resp *http.Response, body []byte, now time.Time) *Error {
	e := &Error{Status: resp.StatusCode, Excerpt: w.redact.clean(string(body))}
	switch code := resp.StatusCode; {
	case code == http.StatusGone:
		e.Kind = Gone
	case code == http.StatusTooManyRequests, code == http.StatusServiceUnavailable:
		e.RetryAfter = parseRetryAfter(resp.Header.Get("Retry-After"), now)
	case code == http.StatusRequestTimeout, code == http.StatusConflict, code == http.StatusTooEarly:
		// Temporary, all three, though they are 4xx.
	case code >= 400 && code <= 499:
		e.Kind = Permanent
	case code >= 300 && code <= 399:
		e.Err = fmt.Errorf("answer %d: a redirect, which is not followed; configure the final URL", code)
	}
	return e
}

// parseRetryAfter reads both forms of Retry-After. What is neither, or past,
// is 0.
func parseRetryAfter(s string, now time.Time) time.Duration {
	seconds, err := strconv.ParseUint(s, 10, 64)
	switch {
	case err == nil:
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	case errors.Is(err, strconv.ErrRange):
		return maxRetryAfter
	}
	at, err := http.ParseTime(s)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}
