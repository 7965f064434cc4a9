package config

import (
	"reflect"
	"slices"
)

// merge lays over onto base, both of the shape t: mappings merge by key (one without a value is empty), everything else is
// replaced. A key of over also displaces the keys of base that it excludes. Nodes keep their own places, so that an inherited
// error is reported where it was written.
func merge(base, over *node, t reflect.Type) *node {
	if base.kind != mapNode || (over.kind != mapNode && !over.isNull()) {
		return over
	}
	merged := *over
	merged.kind = mapNode
	merged.children = slices.Clone(over.children)
	for _, inherited := range base.children {
		own := slices.IndexFunc(merged.children, func(n *node) bool { return n.label == inherited.label })
		switch {
		case own >= 0:
			merged.children[own] = merge(inherited, merged.children[own], childType(t, inherited.label))
		case !displaced(t, over, inherited.label):
			merged.children = append(merged.children, inherited)
		}
	}
	return &merged
}

// displaced reports whether a key of over excludes the key.
func displaced(t reflect.Type, over *node, key string) bool {
	if t == nil || t.Kind() != reflect.Struct {
		return false
	}
	fields := fieldsOf(t)
	i := slices.IndexFunc(fields, func(f field) bool { return f.key == key })
	return i >= 0 && fields[i].group != "" && slices.ContainsFunc(fields, func(f field) bool {
		return f.group == fields[i].group && over.child(f.key) != nil
	})
}

// childType is the shape of the value of a key; nil where it has none that matters to the merge.
func childType(t reflect.Type, key string) reflect.Type {
	if t == nil {
		return nil
	}
	if s, ok := reflect.New(t).Interface().(shaped); ok {
		elem, _ := s.elem()
		return elem
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for _, f := range fieldsOf(t) {
		if f.key == key {
			return t.Field(f.index).Type
		}
	}
	return nil
}
