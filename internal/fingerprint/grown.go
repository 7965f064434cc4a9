package fingerprint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	// maxPaths is at how many paths two values may differ and still be called
	// grown. A marketplace that adds fields adds a few.
	maxPaths = 32
	// maxPath is how long such a path may be, in bytes.
	maxPath = 256
)

// Grown compares two readings of an item under the rules of Of. only says that
// they differ by nothing but object keys that one of them has and the other has
// not, and paths are where: sorted, each once, none where the two mean the same.
// An absent key that becomes null is such a key; null that becomes a value is
// not, nor is an array of another length or an element at another place.
//
// A path is the keys down to the value, as in `productDetails.newField` or
// `photoLinks[].x`: indexes are left out, and a key that would be ambiguous is
// quoted as in Go. Values that differ at more than 32 paths, or at one longer
// than 256 bytes, count as changed: only is false, and paths is nil.
func Grown(old, new json.RawMessage, ignore []string) (paths []string, only bool, err error) {
	a, err := decode(old, ignore)
	if err != nil {
		return nil, false, err
	}
	b, err := decode(new, ignore)
	if err != nil {
		return nil, false, err
	}
	var g growth
	if !g.compare(a, b) {
		return nil, false, nil
	}
	slices.Sort(g.paths)
	return g.paths, true, nil
}

// decode reads a body without the ignored keys of its top level. Numbers keep
// their spelling.
func decode(body json.RawMessage, ignore []string) (any, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("fingerprint: %w", err)
	}
	if m, ok := v.(map[string]any); ok {
		for _, key := range ignore {
			delete(m, key)
		}
	}
	return v, nil
}

// growth is a comparison on its way down two values.
type growth struct {
	at    []step // down to here
	paths []string
}

// step is a key of an object, or any element of an array.
type step struct {
	key     string
	element bool
}

// compare reports whether a and b differ by nothing but keys that only one of
// them has, and keeps their paths. It recurses as deep as the values, which is
// at most 10,000 levels: encoding/json refuses more.
func (g *growth) compare(a, b any) bool {
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !g.below(step{element: true}, func() bool { return g.compare(a[i], b[i]) }) {
				return false
			}
		}
		return true
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok {
			return false
		}
		for k, v := range a {
			w, both := b[k]
			if both && !g.below(step{key: k}, func() bool { return g.compare(v, w) }) || !both && !g.below(step{key: k}, g.add) {
				return false
			}
		}
		for k := range b {
			if _, both := a[k]; !both && !g.below(step{key: k}, g.add) {
				return false
			}
		}
		return true
	case json.Number:
		b, ok := b.(json.Number)
		return ok && bytes.Equal(appendNumber(nil, []byte(a)), appendNumber(nil, []byte(b)))
	case string:
		b, ok := b.(string)
		return ok && bytes.Equal(withoutQuery([]byte(a)), withoutQuery([]byte(b)))
	default: // true, false or null
		return a == b
	}
}

// below does fn one step further down.
func (g *growth) below(s step, fn func() bool) bool {
	g.at = append(g.at, s)
	ok := fn()
	g.at = g.at[:len(g.at)-1]
	return ok
}

// add keeps the path down to here, unless it is too long or one too many.
func (g *growth) add() bool {
	var path []byte
	for i, s := range g.at {
		switch {
		case s.element:
			path = append(path, "[]"...)
		case i > 0:
			path = append(path, '.')
			fallthrough
		default:
			if len(s.key) > maxPath {
				return false
			}
			path = appendKey(path, s.key)
		}
		if len(path) > maxPath {
			return false
		}
	}
	if !slices.Contains(g.paths, string(path)) {
		g.paths = append(g.paths, string(path))
	}
	return len(g.paths) <= maxPaths
}

// appendKey quotes a key that is empty, or holds what a path is made of or what
// cannot be read in a log.
func appendKey(path []byte, key string) []byte {
	special := func(r rune) bool { return !strconv.IsPrint(r) || strings.ContainsRune(`.[]"\`, r) }
	if key == "" || strings.ContainsFunc(key, special) {
		return strconv.AppendQuote(path, key)
	}
	return append(path, key...)
}
