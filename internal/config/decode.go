package config

import (
	"reflect"
	"slices"
	"strings"
)

// field is what the tags of a field of a document type say.
type field struct {
	index                           int
	key, only, group, keys, stream  string
	fallback                        string
	hasDefault                      bool
	required, own, mainFile, notYet bool
	// market: only accounts of the marketplaces have the key that say so (Marketplace.Keys).
	market bool
}

func fieldsOf(t reflect.Type) []field {
	fields := make([]field, 0, t.NumField())
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		f := field{
			index: i, key: tag.Get("key"), only: tag.Get("only"), group: tag.Get("oneof"), keys: tag.Get("keys"), stream: tag.Get("stream"),
		}
		f.fallback, f.hasDefault = tag.Lookup("default")
		_, f.required = tag.Lookup("required")
		_, f.own = tag.Lookup("own")
		_, f.mainFile = tag.Lookup("main")
		_, f.notYet = tag.Lookup("later")
		_, f.market = tag.Lookup("market")
		fields = append(fields, f)
	}
	return fields
}

// refused says why the key is not for a stream, "" if it is or no stream is meant.
func (f *field) refused(s *Stream) string {
	if s == nil || f.stream == "" {
		return ""
	}
	return s.refuses(f.stream)
}

// isFor reports whether accounts of a marketplace have the key. Where no marketplace is meant, or none that is known, they
// may.
func (f *field) isFor(m *Marketplace) bool {
	return !f.market || m == nil || slices.Contains(m.Keys, f.key)
}

// decoder fills in the document types from trees and reports what does not fit their shape.
type decoder struct {
	*report
	catalog *Catalog
	// included: the file is not the main one.
	included bool
	// inherited: the node is one of `defaults`, which need not be complete.
	inherited bool
	// market is the marketplace of the account being decoded, nil if that is not a supported one.
	market *Marketplace
	// stream is the stream being decoded, nil if that is not a known one.
	stream *Stream
	// variant is the type of the sink being decoded, empty if that is not known.
	variant string
}

// holder is a field that decodes itself. A nil node means that the key is absent.
type holder interface {
	hold(d *decoder, n *node, f field)
}

// shaped is a holder that the merge and the schema can look into.
type shaped interface {
	// elem is the type of what the holder holds, and many says how: '=' one, '[' a list, '{' a mapping.
	elem() (t reflect.Type, many byte)
}

func (d *decoder) decode(n *node, v reflect.Value, f field) {
	if h, ok := v.Addr().Interface().(holder); ok {
		h.hold(d, n, f)
		return
	}
	d.object(n, v)
}

// is reports whether n is of the kind wanted, and tells the operator if not. A mapping or list without a value is an empty
// one: that is what remains when the last line of a section is commented out.
func (d *decoder) is(n *node, kind nodeKind, want string) bool {
	switch {
	case n.isNull() && kind == scalarNode:
		d.problem(n, "has no value, expected %s", want)
	case n.kind == kind || n.isNull():
		return true
	case n.kind == badNode:
	default:
		d.problem(n, "is %s, expected %s", n.what(), want)
	}
	return false
}

// object decodes a mapping into a struct. A nil or unfit n leaves the defaults.
func (d *decoder) object(n *node, v reflect.Value) {
	if n != nil && !d.is(n, mapNode, "a mapping") {
		n = nil
	}
	fields := fieldsOf(v.Type())
	d.unknownKeys(n, fields)
	for _, f := range fields {
		child, mine, refused := n.child(f.key), f.only == "" || f.only == d.variant, f.refused(d.stream)
		theirs := f.isFor(d.market)
		switch {
		case child == nil:
			d.decode(nil, v.Field(f.index), f)
			if f.required && n != nil && mine && theirs && !d.inherited && !(f.market && d.market == nil) {
				d.missing(n, f.key, wantOf(v.Field(f.index)))
			}
		case f.own && d.inherited:
			d.problem(child, "is not allowed in defaults, expected in each account")
		case f.mainFile && d.included:
			d.problem(child, "is not allowed in an included file, expected accounts and sinks only")
		case !mine && d.variant != "":
			d.problem(child, "belongs to sinks of type %s, expected no such key in one of type %s", f.only, d.variant)
		case !theirs:
			d.problem(child, "is no key of accounts of %s, expected it left out", d.market.Name)
		case refused != "":
			d.problem(child, "%s, expected the key left out", refused)
		case f.notYet:
			d.problem(child, "is not supported yet, expected the key left out")
		default:
			d.decode(child, v.Field(f.index), f)
		}
	}
	if n != nil {
		d.exactlyOne(n, fields)
	}
}

// unknownKeys reports and removes them, so that an unknown key in `defaults` is not looked at again in every account.
func (d *decoder) unknownKeys(n *node, fields []field) {
	if n == nil {
		return
	}
	var known []string
	for _, f := range fields {
		if !f.notYet && !(f.mainFile && d.included) && (f.only == "" || f.only == d.variant) && f.isFor(d.market) && f.refused(d.stream) == "" {
			known = append(known, f.key)
		}
	}
	n.children = slices.DeleteFunc(n.children, func(c *node) bool {
		unknown := !slices.ContainsFunc(fields, func(f field) bool { return f.key == c.label })
		if unknown {
			d.problem(c, "unknown key%s", suggest(c.label, known))
		}
		return unknown
	})
}

// exactlyOne checks the groups of keys that exclude each other, of which one must be there.
func (d *decoder) exactlyOne(n *node, fields []field) {
	groups := map[string][]string{}
	for _, f := range fields {
		if f.group != "" && (f.only == "" || f.only == d.variant) {
			groups[f.group] = append(groups[f.group], f.key)
		}
	}
	for _, keys := range groups {
		var present []string
		for _, c := range n.children {
			if slices.Contains(keys, c.label) {
				if present = append(present, c.label); len(present) > 1 {
					d.problem(c, "excludes %s, expected only one of %s", present[0], strings.Join(keys, ", "))
				}
			}
		}
		if len(present) == 0 && !d.inherited {
			d.missing(n, keys[0], oneOf(keys))
		}
	}
}

// wantOf says what a missing key should have held.
func wantOf(v reflect.Value) string {
	if s, ok := v.Addr().Interface().(shaped); ok {
		if t, _ := s.elem(); reflect.PointerTo(t).Implements(reflect.TypeFor[value]()) {
			return reflect.New(t).Interface().(value).about().want
		}
	}
	return "it"
}

// opt is a single value that may be absent. T's pointer is a value.
type opt[T any] struct {
	val T
	// node is nil where the key is absent, ok true where val can be used: it was given and fits, or it is the default.
	node *node
	ok   bool
}

func (*opt[T]) elem() (reflect.Type, byte) { return reflect.TypeFor[T](), '=' }

func (o *opt[T]) hold(d *decoder, n *node, f field) {
	v := any(&o.val).(value)
	o.node = n
	if n == nil {
		if o.ok = f.hasDefault; f.hasDefault {
			_ = v.parse(f.fallback) // a test holds that every default is a good value
		}
		return
	}
	about := v.about()
	if !d.is(n, scalarNode, about.want) {
		return
	}
	if !strings.Contains(" "+about.tags+" ", " "+n.tag+" ") && !(about.tags == "" && n.tag == "!!str") {
		hint := ""
		if about.tags == "" && v.parse(n.text) == "" {
			hint = " (put it in quotes)"
		}
		d.problem(n, "is %s, expected %s%s", n.what(), about.want, hint)
		return
	}
	if wrong := v.parse(n.text); wrong != "" {
		d.problem(n, "%s, expected %s", wrong, about.want)
		return
	}
	o.ok = true
}

// list is a list whose items are holders or structs.
type list[T any] struct {
	node  *node
	items []T
}

func (*list[T]) elem() (reflect.Type, byte) { return reflect.TypeFor[T](), '[' }

func (l *list[T]) hold(d *decoder, n *node, _ field) {
	l.node = n
	if n == nil || !d.is(n, listNode, "a list") {
		return
	}
	for _, item := range n.children {
		var v T
		d.decode(item, reflect.ValueOf(&v).Elem(), field{})
		l.items = append(l.items, v)
	}
}

// pathPatterns is a list that may be a single value.
type pathPatterns struct {
	list[opt[text]]
}

func (p *pathPatterns) hold(d *decoder, n *node, f field) {
	if n != nil && n.kind == scalarNode && n.tag == "!!str" {
		var v opt[text]
		v.hold(d, n, f)
		p.node, p.items = n, []opt[text]{v}
		return
	}
	if n == nil || !d.is(n, listNode, "a path or a list of paths") {
		return
	}
	p.list.hold(d, n, f)
}

// set is a list that is bounded and without repetition.
type set[T member] struct {
	list[opt[T]]
}

// member is what a set holds: most says how many of them at most, and what they are called.
type member interface {
	comparable
	most() (n int, what string)
}

func (l *set[T]) hold(d *decoder, n *node, f field) {
	l.list.hold(d, n, f)
	var none T
	if most, what := none.most(); len(l.items) > most {
		d.problem(n, "holds %d %s, expected at most %d", len(l.items), what, most)
	}
	first := map[T]*node{}
	for _, item := range l.items {
		switch {
		case !item.ok:
		case first[item.val] != nil:
			d.problem(item.node, "%s is listed already on line %d, expected it once", quoted(item.node.text), first[item.val].line)
		default:
			first[item.val] = item.node
		}
	}
}

// values are those of the members that are right.
func (l *set[T]) values() []T {
	var out []T
	for _, item := range l.items {
		if item.ok {
			out = append(out, item.val)
		}
	}
	return out
}

// table is a mapping whose keys the catalogue or an operator names. Its values are holders or structs.
type table[T any] struct {
	entries []entry[T]
}

type entry[T any] struct {
	node *node
	val  T
}

func (*table[T]) elem() (reflect.Type, byte) { return reflect.TypeFor[T](), '{' }

func (t *table[T]) hold(d *decoder, n *node, f field) {
	if n == nil || !d.is(n, mapNode, "a mapping") {
		return
	}
	for _, child := range n.children {
		if !d.tableKey(child, f.keys) {
			continue
		}
		e := entry[T]{node: child}
		d.decode(child, reflect.ValueOf(&e.val).Elem(), field{})
		t.entries = append(t.entries, e)
	}
}

// get gives the value of a key, nil where there is none.
func (t *table[T]) get(key string) *T {
	for i := range t.entries {
		if t.entries[i].node.label == key {
			return &t.entries[i].val
		}
	}
	return nil
}

// tableKey checks the key of an entry of a table, and reports whether its value is worth decoding.
func (d *decoder) tableKey(n *node, keys string) bool {
	switch keys {
	case "marketplaces":
		return d.supported(n, n.label)
	case "groups":
		if d.market != nil && !slices.Contains(d.market.groupNames(), n.label) {
			d.problem(n, "unknown API group of %s%s", d.market.Name, suggest(n.label, d.market.groupNames()))
			return false
		}
	case "streams":
		if d.market == nil {
			return true
		}
		stream := d.market.stream(n.label)
		if stream == nil {
			d.problem(n, "unknown stream of %s%s", d.market.Name, suggest(n.label, d.market.streamNames()))
			return false
		}
		d.stream = stream
	case "headers":
		return d.headerName(n)
	}
	return true
}

// supported reports whether a marketplace can be used, and tells the operator at n if not.
func (d *decoder) supported(n *node, name string) bool {
	m := d.catalog.marketplace(name)
	if m == nil {
		d.problem(n, "unknown marketplace %s%s", quoted(name), suggest(name, d.catalog.names()))
	}
	return m != nil
}

// pending is a value that waits for the merge: until then it is only its node.
type pending[T any] struct {
	node *node
}

func (*pending[T]) elem() (reflect.Type, byte) { return reflect.TypeFor[T](), '=' }

func (p *pending[T]) hold(d *decoder, n *node, _ field) {
	if n != nil && d.is(n, mapNode, "a mapping") {
		p.node = n
	}
}
