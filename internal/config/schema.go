package config

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Schema makes the JSON Schema (draft 2020-12) of the configuration file, for editors. It comes from the types that the
// decoder follows, their comments and the catalogue. It refuses what is wrong by its shape; what takes a look at other
// keys, files or secrets is left to Load. Keys that are not supported yet are not in it.
func Schema(cat Catalog) ([]byte, error) {
	docs, err := fieldDocs()
	if err != nil {
		return nil, err
	}
	g := &generator{catalog: &cat, docs: docs, defs: schema{}}
	root := g.object(reflect.TypeFor[document](), "")
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["type"] = "object"
	root["title"] = "syncd configuration"
	root["$defs"] = g.defs
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write schema: %w", err)
	}
	return append(text, '\n'), nil
}

//go:generate go test -run TestSchemaFile -update .

// documentSource holds the comments that the schema carries. They are read only when a schema is made.
//
//go:embed document.go
var documentSource string

// fieldDocs gives the comments of the document types, by Type.Field.
func fieldDocs() (map[string]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), "document.go", documentSource, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("read comments of the configuration: %w", err)
	}
	docs := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if s, ok := spec.Type.(*ast.StructType); ok {
			for _, f := range s.Fields.List {
				for _, name := range f.Names {
					docs[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
				}
			}
		}
		return false
	})
	return docs, nil
}

// generator makes schemas of types. Market and inherited say for which marketplace an account is described, and whether
// under `defaults`; stream, for which stream its settings.
type generator struct {
	catalog   *Catalog
	docs      map[string]string
	defs      schema
	market    *Marketplace
	stream    *Stream
	inherited bool
}

// object describes a struct. Of the keys that belong to a variant only those of the variant given are part of it.
func (g *generator) object(t reflect.Type, variant string) schema {
	properties := schema{}
	var required []string
	groups := map[string][]string{}
	for _, f := range fieldsOf(t) {
		if f.notYet || (f.only != "" && f.only != variant) || (f.own && g.inherited) || !f.isFor(g.market) || f.refused(g.stream) != "" {
			continue
		}
		s := g.property(t.Field(f.index).Type, f)
		s["description"] = g.docs[t.Name()+"."+t.Field(f.index).Name]
		if f.hasDefault {
			s["default"] = defaultOf(f.fallback)
		}
		properties[f.key] = s
		if f.required {
			required = append(required, f.key)
		}
		if f.group != "" {
			groups[f.group] = append(groups[f.group], f.key)
		}
	}
	s := schema{"type": []string{"object", "null"}, "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	}
	for _, group := range slices.Sorted(maps.Keys(groups)) {
		g.exclusive(s, t, groups[group])
	}
	return s
}

// exclusive demands exactly one key of a group. An account may inherit it, so for accounts it is at most one.
func (g *generator) exclusive(s schema, t reflect.Type, keys []string) {
	atMostOne, one := schema{}, []schema{}
	for _, k := range keys {
		one = append(one, schema{"required": []string{k}})
	}
	for i, k := range keys {
		others := slices.Delete(slices.Clone(one), i, i+1)
		atMostOne[k] = schema{"not": schema{"anyOf": others}}
	}
	if t == reflect.TypeFor[accountEntry]() || g.inherited {
		s["dependentSchemas"] = atMostOne
	} else {
		s["oneOf"] = one
	}
}

// property describes what a field holds.
func (g *generator) property(t reflect.Type, f field) schema {
	if t == reflect.TypeFor[pathPatterns]() {
		path := text("").about().schema
		return schema{"anyOf": []schema{path, {"type": []string{"array", "null"}, "items": path}}}
	}
	switch t {
	case reflect.TypeFor[pending[accountEntry]]():
		return g.account()
	case reflect.TypeFor[pending[sinkEntry]]():
		return g.sink()
	}
	s, ok := reflect.New(t).Interface().(shaped)
	if !ok {
		return g.object(t, "")
	}
	elem, many := s.elem()
	switch many {
	case '[':
		list := schema{"type": []string{"array", "null"}, "items": g.property(elem, field{})}
		switch elem {
		case reflect.TypeFor[opt[Glob]]():
			list["type"], list["minItems"] = "array", 1
		case reflect.TypeFor[opt[fieldName]]():
			list["maxItems"], list["uniqueItems"] = maxFields, true
		case reflect.TypeFor[opt[marketID]]():
			list["maxItems"], list["uniqueItems"] = maxCampaigns, true
		}
		return list
	case '{':
		return g.table(elem, f.keys)
	}
	return maps.Clone(reflect.New(elem).Interface().(value).about().schema)
}

// table describes a mapping whose keys the catalogue names.
func (g *generator) table(elem reflect.Type, keys string) schema {
	properties := schema{}
	s := schema{"type": []string{"object", "null"}, "properties": properties, "additionalProperties": false}
	switch keys {
	case "marketplaces":
		for _, name := range g.catalog.names() {
			inner := *g
			inner.market, inner.inherited = g.catalog.marketplace(name), true
			properties[name] = inner.object(reflect.TypeFor[accountEntry](), "")
		}
	case "groups":
		for _, group := range g.market.Groups {
			properties[group.Name] = g.property(elem, field{})
			if elem == reflect.TypeFor[opt[endpointURL]]() {
				properties[group.Name].(schema)["default"] = group.DefaultURL
			}
		}
	case "streams":
		for _, stream := range g.market.Streams {
			properties[stream.Name] = g.settings(elem, stream)
		}
	case "headers":
		delete(s, "properties")
		s["additionalProperties"] = g.property(elem, field{})
		s["propertyNames"] = schema{
			"pattern": headerNamePattern,
			"not":     schema{"pattern": anyCase("^(" + strings.ReplaceAll(strings.Join(g.catalog.OwnHeaders, "|"), "*", ".*") + ")$")},
		}
	}
	return s
}

// anyCase lets the letters of a pattern match in both cases. The patterns of JSON Schema know no flag for that.
func anyCase(pattern string) string {
	var b strings.Builder
	for _, c := range pattern {
		if c >= 'a' && c <= 'z' {
			fmt.Fprintf(&b, "[%c%c]", c, unicode.ToUpper(c))
		} else {
			b.WriteRune(c)
		}
	}
	return b.String()
}

// settings describes the settings of a stream.
func (g *generator) settings(elem reflect.Type, stream Stream) schema {
	inner := *g
	inner.stream = &stream
	s := inner.object(elem, "")
	properties := s["properties"].(schema)
	properties["enabled"].(schema)["default"] = !stream.Off
	properties["schedule"].(schema)["default"] = stream.Schedule
	if overlap, ok := properties["overlap"].(schema); ok {
		overlap["default"] = formatDuration(stream.Overlap)
	}
	s["description"] = "Events: " + strings.Join(stream.EventTypes, ", ") + "."
	return s
}

// account describes an account by its marketplace.
func (g *generator) account() schema {
	var variants []variant
	for _, name := range g.catalog.names() {
		inner := *g
		inner.market = g.catalog.marketplace(name)
		variants = append(variants, variant{name: name, def: name + "_account", schema: inner.object(reflect.TypeFor[accountEntry](), "")})
	}
	return g.choose("marketplace", variants)
}

// sink describes a sink by its type.
func (g *generator) sink() schema {
	var variants []variant
	for _, t := range sinkTypes {
		variants = append(variants, variant{name: string(t), def: string(t) + "_sink", schema: g.object(reflect.TypeFor[sinkEntry](), string(t))})
	}
	return g.choose("type", variants)
}

type variant struct {
	name, def string
	schema    schema
}

// choose describes an object whose key decides which of several shapes it has. Unlike oneOf this lets an editor complain
// about the one shape that is meant.
func (g *generator) choose(key string, variants []variant) schema {
	var names []string
	var cases []schema
	for _, v := range variants {
		names = append(names, v.name)
		g.defs[v.def] = v.schema
		cases = append(cases, schema{
			"if":   schema{"properties": schema{key: schema{"const": v.name}}, "required": []string{key}},
			"then": schema{"$ref": "#/$defs/" + v.def},
		})
	}
	return schema{
		"type":       "object",
		"properties": schema{key: schema{"enum": names}},
		"required":   []string{"name", key},
		"allOf":      cases,
	}
}

// defaultOf gives a default as the type that the file has for it.
func defaultOf(s string) any {
	if n, err := strconv.Atoi(s); err == nil {
		return n
	}
	return s
}
