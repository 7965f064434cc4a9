package config

import (
	"net/textproto"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

// sink takes over one sink. A nil node was reported already.
func (l *loader) sink(n *node) {
	if n == nil {
		return
	}
	d := l.decoder()
	if t := n.child("type"); t != nil {
		var known SinkType
		if known.parse(t.text) == "" {
			d.variant = string(known)
		}
	}
	var e sinkEntry
	d.object(n, reflect.ValueOf(&e).Elem())
	l.unique(l.sinks, &e.Name)
	s := Sink{
		Name: string(e.Name.val),
		Type: e.Type.val,
		From: e.From.val,
		Select: Select{
			Accounts: l.globs(&e.Select.Accounts, l.accountMatches),
			Types:    l.globs(&e.Select.Types, l.typeMatches),
		},
	}
	switch s.Type {
	case TypeFile:
		s.File = &FileSink{Path: l.writes(&e.Path, n.path()+" at "+n.place())}
	case TypeWebhook:
		s.Webhook = &WebhookSink{
			URL:         string(e.URL.val),
			Secrets:     l.secrets.signing(&e.SecretFile, &e.SecretEnv),
			Headers:     l.headers(&e.Headers),
			Timeout:     time.Duration(e.Timeout.val),
			Concurrency: int(e.Concurrency.val),
			Retry:       l.retry(&e.Retry),
		}
	}
	l.config.Sinks = append(l.config.Sinks, s)
}

// globs takes over patterns, each of which has to match something; faulty says what is wrong otherwise.
func (l *loader) globs(list *list[opt[Glob]], faulty func(Glob) string) []Glob {
	if list.node != nil && (list.node.kind == listNode || list.node.isNull()) && len(list.items) == 0 {
		l.problem(list.node, "is an empty list, expected a pattern (or the key left out, for everything)")
	}
	var globs []Glob
	for _, item := range list.items {
		if !item.ok {
			continue
		}
		if wrong := faulty(item.val); wrong != "" {
			l.problem(item.node, "%s %s", quoted(item.val.String()), wrong)
		}
		globs = append(globs, item.val)
	}
	return globs
}

func (l *loader) accountMatches(g Glob) string {
	if l.incomplete {
		return ""
	}
	for name := range l.accounts {
		if g.Match(name) {
			return ""
		}
	}
	return "matches no account, expected the name of one or a pattern such as shop-*"
}

func (l *loader) typeMatches(g Glob) string {
	types := slices.Clone(l.catalog.EventTypes)
	for _, m := range l.catalog.Marketplaces {
		for _, s := range m.Streams {
			types = append(types, s.EventTypes...)
		}
	}
	if slices.ContainsFunc(types, g.Match) {
		return ""
	}
	return "matches no event type, expected one or a pattern such as wildberries.question.*"
}

func (l *loader) headers(t *table[opt[headerValue]]) map[string]string {
	headers, first := map[string]string{}, map[string]*node{}
	for _, e := range t.entries {
		name := textproto.CanonicalMIMEHeaderKey(e.node.label)
		if first[name] != nil {
			l.problem(e.node, "is the same header as %s on line %d, expected it once", first[name].label, first[name].line)
			continue
		}
		headers[name], first[name] = string(e.val.val), e.node
	}
	return headers
}

// ownHeaders are set by syncd or by the HTTP client, besides all that begin as ownPrefixes do.
var (
	ownHeaders = []string{
		"connection", "content-encoding", "content-length", "content-type", "expect", "host", "keep-alive", "proxy-authorization",
		"proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "user-agent",
	}
	ownPrefixes = []string{"webhook-", "syncd-"}
)

// headerNamePattern is a token of RFC 9110.
const headerNamePattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"

var headerNameRE = regexp.MustCompile(headerNamePattern)

// headerName checks the key of an entry of `headers`.
func (d *decoder) headerName(n *node) bool {
	lower := strings.ToLower(n.label)
	own := slices.Contains(ownHeaders, lower) ||
		slices.ContainsFunc(ownPrefixes, func(p string) bool { return strings.HasPrefix(lower, p) })
	switch {
	case !headerNameRE.MatchString(n.label):
		d.problem(n, "is not the name of a header, expected one such as X-Tenant")
	case own:
		d.problem(n, "is set by syncd itself, expected another header")
	default:
		return true
	}
	return false
}

func (l *loader) retry(e *retryEntry) Retry {
	r := Retry{Initial: time.Duration(e.Initial.val), Max: time.Duration(e.Max.val)}
	if e.Initial.ok && e.Max.ok && r.Max < r.Initial {
		n := e.Max.node
		if n == nil {
			n = e.Initial.node
		}
		l.problem(n, "retry.max (%s) is less than retry.initial (%s), expected at least as much", formatDuration(r.Max), formatDuration(r.Initial))
	}
	return r
}
