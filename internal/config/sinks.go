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
		s.File = &FileSink{
			Path:   l.writes(&e.Path, n.path()+" at "+n.place()),
			Rotate: l.rotate(&e.Rotate, n.child("rotate")),
			Sync:   e.Sync.val,
		}
	case TypeWebhook:
		s.Webhook = &WebhookSink{
			URL:         string(e.URL.val),
			Headers:     l.headers(&e.Headers),
			Timeout:     time.Duration(e.Timeout.val),
			Concurrency: int(e.Concurrency.val),
			Rate:        float64(e.Rate.val),
			Batch:       l.batch(&e.Batch),
			Retry:       l.retry(&e.Retry),
		}
		if e.CAFile.ok && e.URL.ok && !strings.HasPrefix(strings.ToLower(s.Webhook.URL), "https:") {
			l.problem(e.CAFile.node, "is of no use for a url without TLS, expected an https URL (or the key left out)")
		}
	}
	i := len(l.config.Sinks)
	l.config.Sinks = append(l.config.Sinks, s)
	if s.Webhook != nil {
		l.fill(func(r *secretReader, c *Config) {
			before := r.reported
			secrets, authorities := r.signing(&e.SecretFile, &e.SecretEnv), r.certificates(&e.CAFile)
			if r.reported == before {
				c.Sinks[i].Webhook.Secrets, c.Sinks[i].Webhook.CAs = secrets, authorities
			}
		})
	}
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

// headerNamePattern is a token of RFC 9110.
const headerNamePattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"

var headerNameRE = regexp.MustCompile(headerNamePattern)

// headerName checks the key of an entry of `headers`.
func (d *decoder) headerName(n *node) bool {
	own := func(g string) bool { return Glob{g}.Match(strings.ToLower(n.label)) }
	switch {
	case !headerNameRE.MatchString(n.label):
		d.problem(n, "is not the name of a header, expected one such as X-Tenant")
	case slices.ContainsFunc(d.catalog.OwnHeaders, own):
		d.problem(n, "is for syncd to set, expected another header")
	default:
		return true
	}
	return false
}

// rotate takes over the rotation of a file; n is its node, nil where it has none.
func (l *loader) rotate(e *rotateEntry, n *node) Rotate {
	if n != nil && (n.kind == mapNode || n.isNull()) && e.Size.node == nil && e.Every.node == nil {
		l.problem(n, "does not say when to rotate, expected size, every or both")
	}
	return Rotate{
		Size: int64(e.Size.val), Every: time.Duration(e.Every.val), Keep: int(e.Keep.val), Compress: e.Compress.val == compressZstd,
	}
}

func (l *loader) batch(e *batchEntry) Batch {
	b := Batch{MaxEvents: int(e.MaxEvents.val), MaxWait: time.Duration(e.MaxWait.val)}
	if e.MaxEvents.ok && e.MaxWait.ok && b.MaxWait > 0 && b.MaxEvents == 1 {
		l.problem(e.MaxWait.node, "is of no use where max_events is 1, expected max_events above 1 (or the key left out)")
	}
	return b
}

func (l *loader) retry(e *retryEntry) Retry {
	l.notLess("retry.max", &e.Max, &e.Initial)
	l.notLess("retry.give_up_after", &e.GiveUpAfter, &e.Initial)
	return Retry{
		Initial: time.Duration(e.Initial.val), Max: time.Duration(e.Max.val),
		GiveUpAfter: time.Duration(e.GiveUpAfter.val), MaxAttempts4xx: int(e.MaxAttempts4xx.val),
	}
}

// notLess holds that a duration, called what, is not less than retry.initial. It is told at the one of the two that was given.
func (l *loader) notLess(what string, d, initial *opt[positiveDuration]) {
	if !d.ok || !initial.ok || d.val >= initial.val {
		return
	}
	n := d.node
	if n == nil {
		n = initial.node
	}
	l.problem(n, "%s (%s) is less than retry.initial (%s), expected at least as much",
		what, formatDuration(time.Duration(d.val)), formatDuration(time.Duration(initial.val)))
}
