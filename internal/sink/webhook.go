package sink

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
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
	// Timeout of one attempt, from connecting to the end of the answer.
	// Default 15s.
	Timeout time.Duration
	// Concurrency is the number of requests at once. Default 8.
	Concurrency int
	// UserAgent of the requests. Default "syncd".
	UserAgent string
}

// Webhook posts one event a request, signed by Standard Webhooks.
//
// It sends what it is given once and follows no redirect: it talks to the
// transport itself, which has no notion of them. The transport repeats a
// request on its own only where the connection was dead before a byte of it
// was written.
//
// No error holds the query or the user of the URL, its path, a secret or the
// value of a configured header, wherever the text comes from.
type Webhook struct {
	url         *url.URL
	keys        [][]byte
	header      http.Header // what every request carries; its values are shared
	timeout     time.Duration
	concurrency int
	transport   *http.Transport
	redact      redactor
}

var _ Parallel = (*Webhook)(nil)

const (
	contentType = "application/cloudevents+json"

	defaultTimeout     = 15 * time.Second
	defaultConcurrency = 8
	connectTimeout     = 10 * time.Second // of TCP, and again of TLS

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
		url:         u,
		timeout:     cfg.Timeout,
		concurrency: cfg.Concurrency,
		redact:      newRedactor(u, cfg.Secrets, cfg.Headers),
	}
	if w.timeout == 0 {
		w.timeout = defaultTimeout
	}
	if w.concurrency == 0 {
		w.concurrency = defaultConcurrency
	}
	for i, s := range cfg.Secrets {
		key, err := parseSecret(s)
		if err != nil {
			return nil, fmt.Errorf("webhook: secret %d: %w", i+1, err)
		}
		w.keys = append(w.keys, key)
	}
	if w.header, err = baseHeader(cfg, u); err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	w.transport = newTransport(w.concurrency)
	return w, nil
}

// newTransport has no timeout for an answer's headers: the deadline of the
// whole attempt covers them.
func newTransport(concurrency int) *http.Transport {
	dialer := &net.Dialer{Timeout: connectTimeout, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy: func(req *http.Request) (*url.URL, error) {
			proxy, err := http.ProxyFromEnvironment(req)
			if err != nil { // it quotes the proxy's URL, which may hold a password
				err = errors.New("the proxy in the environment is not a valid URL")
			}
			return proxy, err
		},
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

// baseHeader returns the headers that are the same for all requests.
func baseHeader(cfg WebhookConfig, u *url.URL) (http.Header, error) {
	h := make(http.Header, len(cfg.Headers)+3)
	for name, value := range cfg.Headers {
		if !validName(name) {
			return nil, fmt.Errorf("header %q is not a valid name", name)
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		if isReserved(name) {
			return nil, fmt.Errorf("header %s is not for the configuration to set", name)
		}
		if _, twice := h[name]; twice {
			return nil, fmt.Errorf("header %s is given twice", name)
		}
		if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return nil, fmt.Errorf("header %s has a control character in its value", name)
		}
		h[name] = []string{value}
	}
	if u.User != nil && h["Authorization"] == nil {
		h["Authorization"] = []string{basicAuth(u.User)}
	}
	agent := cfg.UserAgent
	if agent == "" {
		agent = "syncd"
	}
	h["User-Agent"] = []string{agent}
	h["Content-Type"] = []string{contentType}
	return h, nil
}

func basicAuth(user *url.Userinfo) string {
	password, _ := user.Password()
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password))
}

// isReserved tells the headers that syncd sets or that belong to the connection.
// name is in canonical form.
func isReserved(name string) bool {
	switch name {
	case "Content-Type", "User-Agent", "Syncd-Replay",
		"Host", "Connection", "Content-Length", "Content-Encoding", "Expect", "Keep-Alive",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Proxy-Authorization", "Proxy-Connection":
		return true
	}
	return strings.HasPrefix(name, "Webhook-")
}

// validName tells a token of RFC 9110.
func validName(name string) bool {
	for i := 0; i < len(name); i++ {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return name != ""
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
	if len(events) != 1 {
		panic(fmt.Sprintf("webhook: Deliver of %d events; it takes one", len(events)))
	}
	if ctx.Err() != nil {
		return &Error{Err: context.Cause(ctx)}
	}
	attempt, cancel := context.WithTimeoutCause(ctx, w.timeout, fmt.Errorf("no answer within %v", w.timeout))
	defer cancel()
	resp, err := w.transport.RoundTrip(w.request(attempt, &events[0]))
	if err != nil {
		return w.noAnswer(ctx, attempt, err)
	}
	// The status has decided; nothing that happens to the rest of the answer
	// changes that.
	patience := time.AfterFunc(answerPatience, cancel)
	defer patience.Stop()
	defer resp.Body.Close()
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

// request renders one event. The body is a copy: the transport may go on
// reading it for a while after RoundTrip has returned, but the event is ours
// only until Deliver returns.
func (w *Webhook) request(ctx context.Context, ev *event.Logged) *http.Request {
	body := bytes.Clone(ev.JSON)
	timestamp := strconv.FormatInt(time.Now().Unix(), 10)
	header := make(http.Header, len(w.header)+3)
	maps.Copy(header, w.header)
	header["Webhook-Id"] = []string{ev.ID}
	header["Webhook-Timestamp"] = []string{timestamp}
	if len(w.keys) > 0 {
		header["Webhook-Signature"] = []string{sign(w.keys, ev.ID, timestamp, body)}
	}
	getBody := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	first, _ := getBody()
	req := &http.Request{
		Method: http.MethodPost,
		URL:    w.url,
		Host:   w.url.Host,
		Header: header,
		Body:   first,
		// The transport asks for the body again when the connection it chose
		// turned out to be closed before anything was written to it.
		GetBody:       getBody,
		ContentLength: int64(len(body)),
	}
	return req.WithContext(ctx)
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
	}
	return &Error{Err: errors.New(w.url.Scheme + "://" + w.url.Host + ": " + w.redact.clean(text))}
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

// secretPrefix, minSecret: Standard Webhooks 1.0, "Signature scheme".
const (
	secretPrefix = "whsec_"
	minSecret    = 24
)

// parseSecret reads a signing secret. Its errors say nothing of what is in it.
func parseSecret(s string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(s, secretPrefix)
	if !ok {
		return nil, errors.New("does not begin with " + secretPrefix)
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	switch {
	case err != nil:
		return nil, errors.New("is not base64 after " + secretPrefix)
	case len(key) < minSecret:
		return nil, fmt.Errorf("has %d bytes; Standard Webhooks asks for at least %d", len(key), minSecret)
	}
	return key, nil
}

// sign returns the value of webhook-signature: one signature a key.
func sign(keys [][]byte, id, timestamp string, body []byte) string {
	signature := make([]byte, 0, len(keys)*(len(" v1,")+44))
	for i, key := range keys {
		mac := hmac.New(sha256.New, key)
		io.WriteString(mac, id+"."+timestamp+".")
		mac.Write(body)
		if i > 0 {
			signature = append(signature, ' ')
		}
		signature = append(signature, "v1,"...)
		signature = base64.StdEncoding.AppendEncode(signature, mac.Sum(nil))
	}
	return string(signature)
}
