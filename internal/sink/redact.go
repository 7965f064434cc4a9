package sink

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxExcerpt = 200 // characters of somebody else's text in an error
	redacted   = "[redacted]"
	// minRedacted is the shortest value that is looked for. Shorter ones hide
	// nothing, and would take a letter out of every word.
	minRedacted = 4
	// minToken is the shortest part of a path that may be a token, wherever it is
	// seen without the rest. Shorter ones are words such as "marketplace".
	minToken = 16
)

// anySecret finds signing secrets that are not ours to know, such as the next
// one which the receiver already has.
var anySecret = regexp.MustCompile(secretPrefix + `[^\s"'<>]*`)

// A redactor makes text that comes from outside fit for a log: an answer can
// repeat the request that it answers, and an error of a library the URL.
type redactor struct {
	values *strings.Replacer
}

// newRedactor collects what must not be seen of a webhook's configuration.
// proxy may be nil.
func newRedactor(u, proxy *url.URL, secrets []string, headers map[string]string) redactor {
	var values []string
	add := func(v string) {
		if len(v) >= minRedacted {
			values = append(values, v)
		}
	}
	for _, s := range secrets {
		add(s)
		add(strings.TrimPrefix(s, secretPrefix))
	}
	for _, v := range headers {
		add(v)
		for part := range strings.FieldsSeq(v) { // "Bearer" and what follows it
			if part != v {
				add(part)
			}
		}
	}
	for _, u := range []*url.URL{u, proxy} {
		if u == nil || u.User == nil {
			continue
		}
		password, _ := u.User.Password()
		add(password)
		add(u.User.String())
		add(u.User.Username())
		add(strings.TrimPrefix(basicAuth(u.User), "Basic "))
	}
	add(u.RawQuery)
	for _, vs := range u.Query() {
		for _, v := range vs {
			add(v)
			add(url.QueryEscape(v))
		}
	}
	if p := u.EscapedPath(); len(p) > 1 {
		add(p) // many receivers keep a token there
		for part := range strings.SplitSeq(p, "/") {
			if len(part) >= minToken {
				add(part)
			}
		}
	}
	// The longest first: one value may begin with another.
	slices.SortFunc(values, func(a, b string) int { return len(b) - len(a) })
	pairs := make([]string, 0, 2*len(values))
	for _, v := range values {
		pairs = append(pairs, v, redacted)
	}
	return redactor{strings.NewReplacer(pairs...)}
}

// clean returns the beginning of s without secrets and in printable characters
// on one line. Secrets go first: they must not be cut in two.
func (r redactor) clean(s string) string {
	s = r.values.Replace(s)
	s = anySecret.ReplaceAllLiteralString(s, redacted)
	var b strings.Builder
	n := 0
	space := false // a gap is due before the next character
	for _, c := range s {
		if c == utf8.RuneError || unicode.IsSpace(c) || !unicode.IsPrint(c) {
			space = n > 0
			continue
		}
		if n += 1; space {
			n++
		}
		if n > maxExcerpt {
			break
		}
		if space {
			b.WriteByte(' ')
			space = false
		}
		b.WriteRune(c)
	}
	return b.String()
}
