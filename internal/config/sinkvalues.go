package config

import (
	"errors"
	"path"
	"strconv"
	"strings"
)

// SinkType is the type of a sink.
type SinkType string

// The types of sinks.
const (
	TypeWebhook SinkType = "webhook"
	TypeFile    SinkType = "file"
	TypeStdout  SinkType = "stdout"
)

var sinkTypes = []SinkType{TypeWebhook, TypeFile, TypeStdout}

func (SinkType) about() about             { return aboutChoice(sinkTypes...) }
func (t *SinkType) parse(s string) string { return parseChoice(t, s, sinkTypes...) }

// From says where a sink begins that syncd sees for the first time.
type From string

// A sink begins with the events that are recorded from now on, or with the oldest that is kept.
const (
	FromNow       From = "now"
	FromBeginning From = "beginning"
)

func (From) about() about             { return aboutChoice(FromNow, FromBeginning) }
func (f *From) parse(s string) string { return parseChoice(f, s, FromNow, FromBeginning) }

// webhookURL is where a webhook goes. A query is part of it.
type webhookURL string

func (webhookURL) about() about {
	return about{
		want:   "an http or https URL without user or fragment",
		schema: schema{"type": "string", "pattern": `^https?://[^/?#@\s]+([/?][^#\s]*)?$`},
	}
}

func (u *webhookURL) parse(s string) string {
	_, wrong := parseURL(s)
	*u = webhookURL(s)
	return wrong
}

// caFile names a file of CA certificates.
type caFile string

func (caFile) about() about {
	return about{want: "the path of a file of CA certificates in PEM", schema: schema{"type": "string", "minLength": 1, "not": schema{"pattern": "-----BEGIN"}}}
}

func (p *caFile) parse(s string) string {
	*p = caFile(s)
	switch {
	case s == "":
		return "is empty"
	case strings.Contains(s, "-----BEGIN"):
		return "is what should be in the file"
	}
	return ""
}

// rate is a number of requests a second. What is slower than its bound is a mistake, and a wait that no clock can hold.
type rate float64

func (rate) about() about {
	return about{
		want:   "a number from 0.001 to 1000000",
		tags:   "!!float !!int",
		schema: schema{"type": "number", "minimum": 0.001, "maximum": 1e6},
	}
}

func (r *rate) parse(s string) string {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= 0.001 && v <= 1e6) {
		return clip(s) + " is out of range"
	}
	*r = rate(v)
	return ""
}

// concurrency is a number of requests.
type concurrency int

func (concurrency) about() about             { return aboutWhole(256) }
func (c *concurrency) parse(s string) string { return parseWhole(c, s, 256) }

// batchSize is a number of events in one request.
type batchSize int

func (batchSize) about() about             { return aboutWhole(1000) }
func (b *batchSize) parse(s string) string { return parseWhole(b, s, 1000) }

// count is how many of something there may be at most.
type count int

func (count) about() about             { return aboutWhole(1e6) }
func (c *count) parse(s string) string { return parseWhole(c, s, 1e6) }

// SyncMode says when a line of a file sink counts as written.
type SyncMode string

// The modes: once each piece is on the disk, once the disk is asked from time to time, once the system has the line.
const (
	SyncCommit   SyncMode = "commit"
	SyncInterval SyncMode = "interval"
	SyncNone     SyncMode = "none"
)

func (SyncMode) about() about { return aboutChoice(SyncCommit, SyncInterval, SyncNone) }
func (m *SyncMode) parse(s string) string {
	return parseChoice(m, s, SyncCommit, SyncInterval, SyncNone)
}

// compression is what is done to rotated files.
type compression string

const (
	compressZstd compression = "zstd"
	compressNone compression = "none"
)

func (compression) about() about             { return aboutChoice(compressZstd, compressNone) }
func (c *compression) parse(s string) string { return parseChoice(c, s, compressZstd, compressNone) }

// headerValue is the value of a request header.
type headerValue string

func (headerValue) about() about {
	return about{
		want:   "text of one line, without control characters or outer spaces",
		schema: schema{"type": "string", "pattern": `^([^\x00-\x20\x7f]([^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)?$`},
	}
}

func (h *headerValue) parse(s string) string {
	*h = headerValue(s)
	if strings.Trim(s, " \t") != s {
		return "begins or ends with a space"
	}
	for _, c := range []byte(s) {
		if (c < ' ' && c != '\t') || c == 0x7f {
			return "holds a control character"
		}
	}
	return ""
}

// Glob is a pattern over names of accounts or types of events, never a malformed one: * stands for any characters, ? for
// one, [a-z] for one of several, \ takes the next character as it is.
type Glob struct {
	pattern string
}

// String gives the pattern.
func (g Glob) String() string { return g.pattern }

// MarshalText gives the pattern.
func (g Glob) MarshalText() ([]byte, error) { return []byte(g.pattern), nil }

// UnmarshalText takes a pattern, and refuses a malformed one.
func (g *Glob) UnmarshalText(text []byte) error {
	if wrong := g.parse(string(text)); wrong != "" {
		return errors.New(wrong)
	}
	return nil
}

// Match reports whether the pattern covers the whole of s.
func (g Glob) Match(s string) bool {
	// Neither names nor event types hold a slash, the only character that path.Match does not let * match.
	ok, _ := path.Match(g.pattern, s)
	return ok
}

func (Glob) about() about {
	return about{want: "a pattern such as shop-* or wildberries.question.*", schema: schema{"type": "string", "minLength": 1}}
}

func (g *Glob) parse(s string) string {
	if _, err := path.Match(s, ""); err != nil || s == "" {
		return quoted(s) + " is not a pattern"
	}
	g.pattern = s
	return ""
}
