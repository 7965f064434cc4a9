package apiclient

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"syncd/internal/sources"
)

const (
	maxHead   = 4 << 10   // bytes that are kept of an answer's beginning, to say what it is if it is no answer
	drainMost = 256 << 10 // bytes that are read for nothing, so that the connection can be used again
	drainTime = time.Second
)

var errTooLong = errors.New("too long")

// body bounds what is read of an answer, and remembers what went wrong: what the
// reader above it makes of that is not asked.
type body struct {
	r    io.Reader
	left int64        // bytes that may still come
	err  error        // of r, but for its end; or errTooLong
	head []byte       // the first maxHead bytes
	turn func() error // waits for the turn of a large answer; nil: it has it
	free int64        // bytes that may come before that
}

func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.turn != nil && b.free <= 0 {
		turn := b.turn
		b.turn = nil
		if b.err = turn(); b.err != nil {
			return 0, b.err
		}
	}
	// One byte more than may come tells an answer that is too long from one that
	// just fits.
	n, err := b.r.Read(p[:min(int64(len(p)), b.left+1)])
	if int64(n) > b.left {
		n, err = int(b.left), errTooLong
	}
	b.left -= int64(n)
	b.free -= int64(n)
	b.head = append(b.head, p[:min(n, maxHead-len(b.head))]...)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// read lets take read the body of a 2xx answer, and says what went wrong. limit
// ends ctx, and with it the request; it stands still while a large answer waits for
// its turn.
func (c *Client) read(ctx context.Context, limit *deadline, large func(context.Context) error, resp *http.Response, take func(io.Reader) error) *sources.Error {
	if how := encoding(resp); how != "" {
		return &sources.Error{Kind: sources.Unreadable, Status: resp.StatusCode, Err: fmt.Errorf("the answer is encoded as %s, which was not asked for", how)}
	}
	b := &body{r: resp.Body, left: c.cfg.MaxBody, free: sources.LargeAnswer}
	if large != nil {
		b.turn = func() error { return limit.without(func() error { return large(ctx) }) }
	}
	err := take(b)
	e := &sources.Error{Kind: sources.Unreadable, Status: resp.StatusCode, Err: err}
	switch {
	case b.err == errTooLong:
		e.TooMuch, e.Err = true, fmt.Errorf("the answer is longer than %d bytes", c.cfg.MaxBody)
	case b.err != nil:
		if !corrupt(b.err) {
			e.Kind = sources.Temporary
			_, e.TooMuch = errors.AsType[tooSlow](context.Cause(ctx))
		}
		e.Err = fmt.Errorf("read the answer: %w", networkError(ctx, b.err))
	}
	b.drain(limit.end)
	if e.Err == nil {
		return nil
	}
	if page, ok := page(resp, b.head); ok && b.err == nil {
		e.Err = errors.New(gist(resp.StatusCode, page))
	}
	return e
}

// drain reads what is left of an answer that need not be read, but not for long.
func (b *body) drain(cancel func()) {
	if b.err != nil {
		return
	}
	b.turn = nil // nothing of it is kept
	t := time.AfterFunc(drainTime, cancel)
	defer t.Stop()
	b.left = min(b.left, drainMost)
	if _, err := io.Copy(io.Discard, b); err != nil {
		b.err = nil // nobody wanted it
	}
}

// encoding names an encoding that net/http has not undone: it asks for gzip alone,
// and undoes that itself.
func encoding(resp *http.Response) string {
	how := strings.TrimSpace(strings.Join(resp.Header.Values("Content-Encoding"), ", "))
	if how == "" || strings.EqualFold(how, "identity") {
		return ""
	}
	return fmt.Sprintf("%.40q", how)
}

// corrupt tells a body that arrived as it was sent, and cannot be decompressed,
// from one that did not arrive.
func corrupt(err error) bool {
	_, input := errors.AsType[flate.CorruptInputError](err)
	return input || errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum)
}

// page returns the beginning of a page for people, of a gateway as a rule, that
// came in the place of data.
func page(resp *http.Response, head []byte) ([]byte, bool) {
	head = bytes.TrimSpace(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")))
	if len(head) == 0 || head[0] == '{' {
		return nil, false
	}
	return head, head[0] == '<' || strings.HasPrefix(strings.ToLower(resp.Header.Get("Content-Type")), "text/html")
}
