package sink

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"syncd/internal/event"
)

// request renders events. All of it is a copy: the transport may go on reading
// it for a while after RoundTrip has returned, but the events are ours only
// until Deliver returns.
func (w *Webhook) request(ctx context.Context, why Aside, events []event.Logged) *http.Request {
	id, body := events[0].ID, events[0].JSON
	if w.batch {
		id, body = batchID(events), batchBody(events)
	} else {
		body = bytes.Clone(body)
	}
	values := []string{id, strconv.FormatInt(time.Now().Unix(), 10), ""}
	header := make(http.Header, len(w.header)+4)
	maps.Copy(header, w.header)
	header["Webhook-Id"] = values[0:1:1]
	header["Webhook-Timestamp"] = values[1:2:2]
	signer := w.signers.Get().(*signer)
	if values[2] = signer.sign(values[0], values[1], body); values[2] != "" {
		header["Webhook-Signature"] = values[2:]
	}
	w.signers.Put(signer)
	switch why {
	case Replayed:
		header["Syncd-Replay"] = []string{"true"}
	case RetriedDeadLetter:
		header["Syncd-Retried"] = []string{"true"}
	}
	req := w.template.WithContext(ctx)
	req.Header = header
	req.ContentLength = int64(len(body))
	// The transport asks for the body again when the connection it chose turned
	// out to be closed before anything was written to it.
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	req.Body, _ = req.GetBody()
	return req
}

// batchID names a batch by what is in it: the same events in the same order are
// the same batch. No id holds a newline.
func batchID(events []event.Logged) string {
	var ids []byte
	for i := range events {
		ids = append(append(ids, events[i].ID...), '\n')
	}
	sum := sha256.Sum256(ids)
	return "batch-" + hex.EncodeToString(sum[:])
}

// batchBody is the JSON array of events, each of them byte for byte as it is.
func batchBody(events []event.Logged) []byte {
	size := len(events) + 1
	for i := range events {
		size += len(events[i].JSON)
	}
	body := make([]byte, 0, size)
	for i := range events {
		body = append(body, "[,"[min(i, 1)])
		body = append(body, events[i].JSON...)
	}
	return append(body, ']')
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
	h["Content-Type"] = []string{"application/cloudevents+json"}
	if cfg.Batch {
		h["Content-Type"] = []string{"application/cloudevents-batch+json"}
	}
	return h, nil
}

func basicAuth(user *url.Userinfo) string {
	password, _ := user.Password()
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password))
}

// ReservedHeaders are those that a webhook sets itself or that belong to the
// connection, in lower case. One with * at its end is all that begin so.
func ReservedHeaders() []string {
	return []string{
		"connection", "content-encoding", "content-length", "content-type", "expect", "host",
		// One key for all requests would make them all repetitions of the first,
		// to a receiver that goes by it; and the transport, if it sees one, sends
		// again on its own what may have arrived.
		"idempotency-key", "x-idempotency-key",
		"keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "user-agent",
		"webhook-*", "syncd-*",
	}
}

func isReserved(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc(ReservedHeaders(), func(r string) bool {
		prefix, all := strings.CutSuffix(r, "*")
		return name == r || all && strings.HasPrefix(name, prefix)
	})
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
