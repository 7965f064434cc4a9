package apiclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"syncd/internal/sources"
)

const maxErrorBody = 64 << 10

// clientClosedRequest is what nginx says to nobody, and a gateway in front of it to
// us: it found the connection closed.
const clientClosedRequest = 499

// errorText is the body of an answer outside 2xx, never nil, or what became of it.
func (c *Client) errorText(ctx context.Context, resp *http.Response) []byte {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil && len(body) == 0 {
		body = []byte(networkError(ctx, err).Error())
	}
	if how := encoding(resp); how != "" {
		body = []byte("its text is encoded as " + how + ", which was not asked for")
	}
	return body
}

// refused is the error for an answer outside 2xx to r. until is when a refused request
// may be sent again; zero: not known.
func (c *Client) refused(r Request, status int, body []byte, until time.Time) *sources.Error {
	var e *sources.Error
	if c.cfg.Classify != nil {
		e = c.cfg.Classify(status, body)
	}
	if e == nil {
		e = &sources.Error{Kind: sources.Temporary}
		switch {
		case throttled(status):
			e.Kind, e.Scope = sources.RateLimited, sources.ScopeGroup
			if r.Window != nil { // which is one method's
				e.Scope = sources.ScopeRequest
			}
		case status == http.StatusUnauthorized:
			e.Kind, e.Scope = sources.Unauthorized, sources.ScopeGroup
		case status == http.StatusPaymentRequired:
			e.Kind, e.Scope = sources.Payment, sources.ScopeStream
		case status == http.StatusForbidden:
			e.Kind, e.Scope = sources.Forbidden, sources.ScopeStream
		case status >= 300 && status < 400:
			e.Kind = sources.Rejected
			e.Hint = "redirects are not followed: set the account's `endpoints` to the address itself"
		case status == http.StatusRequestTimeout || status == http.StatusTooEarly || status == http.StatusLocked || status == clientClosedRequest:
		case status >= 400 && status < 500:
			e.Kind = sources.Rejected
		}
	}
	e.Status = status
	if e.Kind == sources.RateLimited && !until.IsZero() {
		e.Until = until
	}
	if e.Err == nil {
		e.Err = errors.New(gist(status, body))
	}
	return e
}

// failed completes the error of r. Whatever it says, and whoever said it, is made
// fit for a log line.
func (c *Client) failed(r Request, e *sources.Error) error {
	e.Endpoint, e.Request = r.method()+" "+r.endpoint(), r.Path
	if len(r.Query) > 0 {
		e.Request = hide(r.Path+"?"+r.Query.Encode(), c.cfg.Token)
	}
	if e.Scope == "" {
		e.Scope = sources.ScopeRequest
	}
	e.Err = errors.New(c.printable(e.Err.Error()))
	return e
}

// tooSlow is why a request ended that took longer than this.
type tooSlow time.Duration

func (t tooSlow) Error() string { return fmt.Sprintf("no complete answer within %s", time.Duration(t)) }

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
