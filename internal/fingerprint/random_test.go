package fingerprint_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// parse reads any JSON value, keeping the spelling of its numbers; false: it is
// none.
func parse(s string) (any, bool) {
	if !json.Valid([]byte(s)) {
		return nil, false
	}
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var v any
	return v, d.Decode(&v) == nil
}

// random makes a JSON value of at most depth levels.
func random(r *rand.Rand, depth int) any {
	n := r.IntN(7)
	if depth == 0 {
		n = r.IntN(5)
	}
	switch n {
	case 0:
		return json.Number(strconv.Itoa(r.IntN(2001) - 1000))
	case 1:
		return r.IntN(2) == 0
	case 2:
		return nil
	case 3, 4:
		return []string{"", "a", "Привет", "😀\"\\\n", "https://x.test/p", "null", "1"}[r.IntN(7)]
	case 5:
		a := []any{}
		for range r.IntN(4) {
			a = append(a, random(r, depth-1))
		}
		return a
	}
	m := make(map[string]any)
	for range r.IntN(5) {
		m[[]string{"a", "b", "é", "", "a b", "id", "a.b", "x[]"}[r.IntN(8)]] = random(r, depth-1)
	}
	return m
}

// spell writes v in a random spelling: order of keys, white space, escapes,
// numbers, and the query strings of URLs.
func spell(r *rand.Rand, v any) string {
	var b strings.Builder
	spellTo(r, &b, v)
	return b.String()
}

func spellTo(r *rand.Rand, b *strings.Builder, v any) {
	space := func() { b.WriteString([]string{"", "", " ", "\n\t", "\r"}[r.IntN(5)]) }
	space()
	switch v := v.(type) {
	case map[string]any:
		keys := slices.Sorted(maps.Keys(v))
		r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		b.WriteByte('{')
		for i, k := range keys {
			if i > 0 {
				b.WriteByte(',')
			}
			space()
			spellText(r, b, k)
			space()
			b.WriteByte(':')
			spellTo(r, b, v[k])
		}
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			spellTo(r, b, e)
		}
		space()
		b.WriteByte(']')
	case string:
		spellText(r, b, anotherQuery(r, v))
	case json.Number:
		b.WriteString(spellNumber(r, string(v)))
	default:
		fmt.Fprint(b, map[any]string{nil: "null", true: "true", false: "false"}[v])
	}
	space()
}

func spellText(r *rand.Rand, b *strings.Builder, s string) {
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '/' && r.IntN(2) == 0:
			b.WriteString(`\/`)
		case c < ' ' || c == '"' || c == '\\' || c < 0x10000 && r.IntN(3) == 0:
			fmt.Fprintf(b, []string{`\u%04x`, `\u%04X`}[r.IntN(2)], c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
}

// anotherQuery changes what follows the path of a URL.
func anotherQuery(r *rand.Rand, s string) string {
	url := strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "//")
	if !url || strings.ContainsAny(s, " \t\r\n") {
		return s
	}
	path, _, _ := strings.Cut(s, "?")
	path, _, _ = strings.Cut(path, "#")
	return path + []string{"", "?", "#", "?exp=1&sig=a/b", "#?", "?#x"}[r.IntN(6)]
}

// spellNumber writes a number in another way, losing no digit.
func spellNumber(r *rand.Rand, s string) string {
	mantissa, exponent, has := strings.Cut(strings.ToLower(s), "e")
	if strings.Trim(mantissa, "-0.") == "" {
		return []string{"0", "-0", "0.00", "0e7", "-0E-3"}[r.IntN(5)]
	}
	if len(exponent) > 100 {
		return s // such a number is compared as it is spelt
	}
	if !has {
		exponent = []string{"0", "-0", "+00"}[r.IntN(3)]
	}
	switch r.IntN(4) {
	case 0:
		return s
	case 1:
		return mantissa + "e" + exponent
	case 2:
		if strings.Contains(mantissa, ".") {
			return mantissa + "00E" + exponent
		}
		return mantissa + ".0E" + exponent
	}
	if !has && !strings.Contains(mantissa, ".") {
		return mantissa + "00e-2"
	}
	return s
}

// places returns every value of a tree with what sets it, the root among them.
func places(root *any) []place {
	var out []place
	var walk func(v any, set func(any))
	walk = func(v any, set func(any)) {
		out = append(out, place{v, set})
		switch v := v.(type) {
		case map[string]any:
			for _, k := range slices.Sorted(maps.Keys(v)) {
				walk(v[k], func(n any) { v[k] = n })
			}
		case []any:
			for i := range v {
				walk(v[i], func(n any) { v[i] = n })
			}
		}
	}
	walk(*root, func(n any) { *root = n })
	return out
}

type place struct {
	value any
	set   func(any)
}

// grow adds, removes or nulls in a key somewhere; false: there was no object.
func grow(r *rand.Rand, root *any) bool {
	var objects []map[string]any
	for _, p := range places(root) {
		if m, ok := p.value.(map[string]any); ok {
			objects = append(objects, m)
		}
	}
	if len(objects) == 0 {
		return false
	}
	m := objects[r.IntN(len(objects))]
	if keys := slices.Sorted(maps.Keys(m)); len(keys) > 0 && r.IntN(2) == 0 {
		delete(m, keys[r.IntN(len(keys))])
		return true
	}
	key := []string{"new", "new.er", "", "[]", "\"", "\x00\n", "ключ", `\`}[r.IntN(8)]
	if _, there := m[key]; there {
		delete(m, key)
	} else {
		m[key] = random(r, 1)
	}
	return true
}

// change makes one change of meaning somewhere in a tree that is more than keys
// coming or going.
func change(t testing.TB, r *rand.Rand, root *any) {
	all := places(root)
	p := all[r.IntN(len(all))]
	switch v := p.value.(type) {
	case nil:
		p.set([]any{false, json.Number("0"), "", "null", []any{}, map[string]any{}}[r.IntN(6)])
	case bool:
		p.set([]any{!v, fmt.Sprint(v), nil}[r.IntN(3)])
	case json.Number:
		next := "1" + strings.TrimLeft(string(v), "-") // one digit more in front
		if strings.TrimLeft(string(v), "-0.") != strings.TrimLeft(string(v), "-") {
			next = "7" // of those that begin with zeros
			if spells(t, string(v), next) {
				next = "8"
			}
		}
		p.set([]any{json.Number(next), string(v), nil}[r.IntN(3)])
	case string:
		p.set([]any{"x" + v, nil, []any{v}}[r.IntN(3)])
	case []any:
		switch n := r.IntN(5); {
		case n == 0 && len(v) > 0:
			p.set(slices.Delete(slices.Clone(v), 0, 1))
		case n == 1 && len(v) > 1 && scalar(v[0]) && !spells(t, encode(t, v[0]), encode(t, v[len(v)-1])):
			moved := slices.Clone(v)
			moved[0], moved[len(v)-1] = moved[len(v)-1], moved[0]
			p.set(moved)
		case n == 2:
			p.set(nil)
		case n == 3 && len(v) == 0:
			p.set(map[string]any{})
		default:
			p.set(append(slices.Clone(v), nil))
		}
	case map[string]any:
		p.set([]any{nil, []any{v}, "{}"}[r.IntN(3)])
	}
}

func scalar(v any) bool {
	switch v.(type) {
	case []any, map[string]any:
		return false // two of them may differ by no more than keys
	}
	return true
}

// spells reports whether two texts spell one value, which Of must know already.
func spells(t testing.TB, a, b string) bool { return of(t, a) == of(t, b) }

func encode(t testing.TB, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
