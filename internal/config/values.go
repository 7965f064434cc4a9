package config

import (
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// schema is a piece of JSON Schema.
type schema = map[string]any

// value is a single value of the file that reads itself from its text. A type that implements it cannot hold a value
// that the file may not have, except its zero value.
type value interface {
	// about says what is expected.
	about() about
	// parse returns what is wrong with the text, "" if nothing. Only values that are never secret repeat it.
	parse(text string) string
}

// about describes a type of value.
type about struct {
	want   string // goes on after "expected"
	tags   string // the YAML types it may have; default !!str
	schema schema
}

// text is any text but the empty one; what it means is checked where the catalogue is at hand.
type text string

func (text) about() about {
	return about{want: "text", schema: schema{"type": "string", "minLength": 1}}
}

func (t *text) parse(s string) string {
	*t = text(s)
	if s == "" {
		return "is empty"
	}
	return ""
}

// name is the name of an account or a sink.
type name string

const namePattern = `^[a-z0-9][a-z0-9-]*$`

var nameRE = regexp.MustCompile(namePattern)

func (name) about() about {
	return about{want: "a-z, 0-9 and -, not starting with -", schema: schema{"type": "string", "pattern": namePattern}}
}

func (n *name) parse(s string) string {
	*n = name(s)
	if !nameRE.MatchString(s) {
		return quoted(s) + " is not a name"
	}
	return ""
}

// filePath names a file that syncd writes.
type filePath string

func (filePath) about() about {
	return about{want: "the path of a file", schema: schema{"type": "string", "pattern": `[^/]$`}}
}

func (p *filePath) parse(s string) string {
	*p = filePath(s)
	if s == "" || strings.HasSuffix(s, "/") || strings.ContainsRune(s, 0) {
		return quoted(s) + " cannot be a file"
	}
	return ""
}

// secretFile names a file that holds a secret.
type secretFile string

func (secretFile) about() about {
	return about{want: "the path of a file that holds the secret", schema: schema{"type": "string", "minLength": 1}}
}

func (p *secretFile) parse(s string) string {
	*p = secretFile(s)
	switch {
	case s == "":
		return "is empty"
	case looksSecret(s):
		return "looks like the secret itself"
	}
	return ""
}

// optionalSecretFile names a file that holds a secret, or is empty for none.
type optionalSecretFile string

func (optionalSecretFile) about() about {
	return about{want: `the path of a file that holds the secret, or "" for none`, schema: schema{"type": "string"}}
}

func (p *optionalSecretFile) parse(s string) string {
	*p = optionalSecretFile(s)
	if s == "" {
		return ""
	}
	return (*secretFile)(p).parse(s)
}

// secretEnv names an environment variable that holds a secret.
type secretEnv string

const envPattern = `^[A-Za-z_][A-Za-z0-9_]*$`

var envRE = regexp.MustCompile(envPattern)

func (secretEnv) about() about {
	return about{
		want:   "the name of an environment variable that holds the secret",
		schema: schema{"type": "string", "pattern": envPattern},
	}
}

func (e *secretEnv) parse(s string) string {
	*e = secretEnv(s)
	switch {
	case s == "":
		return "is empty"
	case looksSecret(s):
		return "looks like the secret itself"
	case !envRE.MatchString(s):
		return "is not the name of a variable"
	}
	return ""
}

var (
	secretStartRE = regexp.MustCompile(`^(Bearer )?(eyJ|whsec_|ACMA:)`)
	secretRunRE   = regexp.MustCompile(`[A-Za-z0-9+=]{30}`)
)

// looksSecret tells a secret that was written where the name of its file or variable belongs: better to refuse a bare name
// of 30 letters and digits in a row than to print a token. With a slash it is a path, whose parts may be long.
func looksSecret(s string) bool {
	return secretStartRE.MatchString(s) || (!strings.Contains(s, "/") && secretRunRE.MatchString(s))
}

// flag is true or false.
type flag bool

func (flag) about() about {
	return about{want: "true or false", tags: "!!bool", schema: schema{"type": "boolean"}}
}

func (f *flag) parse(s string) string {
	*f = flag(strings.EqualFold(s, "true"))
	return ""
}

// onlyTrue is a statement that cannot be denied, only left out.
type onlyTrue bool

func (onlyTrue) about() about {
	return about{want: "true (or the key left out)", tags: "!!bool", schema: schema{"const": true}}
}

func (f *onlyTrue) parse(s string) string {
	*f = onlyTrue(strings.EqualFold(s, "true"))
	if !*f {
		return "is false"
	}
	return ""
}

// share is a part of a whole.
type share float64

func (share) about() about {
	return about{
		want:   "a number above 0 and at most 1",
		tags:   "!!float !!int",
		schema: schema{"type": "number", "exclusiveMinimum": 0, "maximum": 1},
	}
}

func (f *share) parse(s string) string {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v > 0 && v <= 1) {
		return clip(s) + " is out of range"
	}
	*f = share(v)
	return ""
}

// Start says which existing items of an account count as new when it is first polled.
type Start struct {
	// Kind is never empty after Load.
	Kind StartKind
	// Time is set for StartAt, and zero otherwise.
	Time time.Time
}

// StartKind is the way in which a Start is given.
type StartKind string

// The kinds of Start: no existing item, every item that the API still gives, or those since Start.Time.
const (
	StartNow       StartKind = "now"
	StartBeginning StartKind = "beginning"
	StartAt        StartKind = "time"
)

func (Start) about() about {
	return about{
		want: "now, beginning or an RFC 3339 time such as 2026-01-31T00:00:00Z",
		tags: "!!str !!timestamp",
		schema: schema{"anyOf": []schema{
			{"enum": []string{string(StartNow), string(StartBeginning)}},
			{"type": "string", "pattern": `^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$`},
		}},
	}
}

func (v *Start) parse(s string) string {
	switch StartKind(s) {
	case StartNow, StartBeginning:
		*v = Start{Kind: StartKind(s)}
		return ""
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return quoted(s) + " is not a start"
	}
	*v = Start{Kind: StartAt, Time: t}
	return ""
}

// endpointURL is the base URL of an API group, without a slash at its end.
type endpointURL string

func (endpointURL) about() about {
	return about{
		want:   "an http or https URL without user, query or fragment",
		schema: schema{"type": "string", "pattern": `^https?://[^/?#@\s]+(/[^?#\s]*)?$`},
	}
}

func (u *endpointURL) parse(s string) string {
	parsed, wrong := parseURL(s)
	switch {
	case wrong != "":
	case parsed.RawQuery != "" || parsed.ForceQuery:
		wrong = "has a query"
	default:
		*u = endpointURL(strings.TrimRight(s, "/"))
	}
	return wrong
}

// parseURL says what is wrong with a URL without repeating it: a URL may hold a password or a key.
func parseURL(s string) (u *url.URL, wrong string) {
	u, err := url.Parse(s)
	switch {
	case err != nil || strings.ContainsAny(s, " \t\r\n"):
		return nil, "is not a URL"
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, "does not begin with http:// or https://"
	case u.User != nil:
		return nil, "holds a user or a password"
	case u.Hostname() == "":
		return nil, "has no host"
	case strings.Contains(s, "#"):
		return nil, "has a fragment"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return nil, "has a port that is out of range"
		}
	}
	return u, ""
}

// listenAddress is host:port, or empty for off.
type listenAddress string

func (listenAddress) about() about {
	return about{
		want:   `host:port such as 127.0.0.1:9469, or "" for off`,
		schema: schema{"type": "string", "pattern": `^(|.*:[0-9]{1,5})$`},
	}
}

func (a *listenAddress) parse(s string) string {
	*a = listenAddress(s)
	if s == "" {
		return ""
	}
	_, port, err := net.SplitHostPort(s)
	if n, convErr := strconv.Atoi(port); err != nil || convErr != nil || n < 0 || n > 65535 {
		return quoted(s) + " is not an address"
	}
	return ""
}

// parseWhole sets v to the number s if that is from 1 to most.
func parseWhole[T ~int](v *T, s string, most int) string {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > most {
		return clip(s) + " is out of range"
	}
	*v = T(n)
	return ""
}

func aboutWhole(most int) about {
	return about{
		want:   fmt.Sprintf("a whole number from 1 to %d", most),
		tags:   "!!int",
		schema: schema{"type": "integer", "minimum": 1, "maximum": most},
	}
}

// parseChoice sets v to s if that is one of the choices.
func parseChoice[T ~string](v *T, s string, choices ...T) string {
	for _, c := range choices {
		if s == string(c) {
			*v = c
			return ""
		}
	}
	return "unknown value " + quoted(s)
}

func aboutChoice[T ~string](choices ...T) about {
	names := make([]string, len(choices))
	for i, c := range choices {
		names[i] = string(c)
	}
	return about{want: oneOf(names), schema: schema{"enum": names}}
}

// LogFormat is the form of log lines.
type LogFormat string

// The formats: LogAuto is LogTint on a terminal and LogText elsewhere, LogText is logfmt.
const (
	LogAuto LogFormat = "auto"
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
	LogTint LogFormat = "tint"
)

func (LogFormat) about() about { return aboutChoice(LogAuto, LogText, LogJSON, LogTint) }
func (f *LogFormat) parse(s string) string {
	return parseChoice(f, s, LogAuto, LogText, LogJSON, LogTint)
}

// logLevel is a slog.Level by its name.
type logLevel slog.Level

func (logLevel) about() about { return aboutChoice("debug", "info", "warn", "error") }

func (l *logLevel) parse(s string) string {
	var level string
	if wrong := parseChoice(&level, s, "debug", "info", "warn", "error"); wrong != "" {
		return wrong
	}
	_ = (*slog.Level)(l).UnmarshalText([]byte(level)) // knows these four
	return ""
}
