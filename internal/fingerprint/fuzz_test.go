package fingerprint_test

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"syncd/internal/event"
	"syncd/internal/fingerprint"
)

var seeds = []string{
	`{"a":[1.0,1e400,-0,"\ud800","https://x?y#z"],"a":2}`, `"//?"`, `1e-9223372036854775808`, `{"\u0000":{}}`, `[1E+00012]`,
	`{"id":"q","photos":[{"u":"//p.test/a?s=1"},{"u":null}],"answer":null,"n":-1.50,"t":[true,[],{}]}`,
	`{"state":"new","productDetails":{"nmId":1,"size":"0"},"a.b":{"":[[{"x":0}]]},"seen":1}`, `0.00e12`, `-7000.0e-3`,
}

// body reads what the fuzzer made up, or makes up a value itself.
func body(r *rand.Rand, s string) (any, bool) {
	if s == "" {
		return random(r, 4), true
	}
	return parse(s)
}

// noise finds values that mean the same and have two fingerprints, or differ by
// Grown.
func noise(t *testing.T, s string, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	v, ok := body(r, s)
	if !ok {
		return
	}
	ignore := []string{"seen", "a"}
	a, b := spell(r, v), ""
	if m, ok := v.(map[string]any); ok {
		for _, k := range ignore {
			m[k] = random(r, 2)
			if r.IntN(3) == 0 {
				delete(m, k)
			}
		}
	}
	b = spell(r, v)
	if of(t, a, ignore...) != of(t, b, ignore...) {
		t.Errorf("noise makes another fingerprint:\n%s\n%s", a, b)
	}
	if paths, only, err := fingerprint.Grown(json.RawMessage(a), json.RawMessage(b), ignore); len(paths) != 0 || !only || err != nil {
		t.Errorf("noise is taken for a difference at %q, %t, %v:\n%s\n%s", paths, only, err, a, b)
	}
}

// meaning finds values that mean something else and have one fingerprint, or are
// the same by Grown, or no more than grown.
func meaning(t *testing.T, s string, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 2))
	v, ok := body(r, s)
	if !ok {
		return
	}
	a := spell(r, v)
	grows := r.IntN(2) == 0
	if !grows || !grow(r, &v) {
		grows = false
		change(t, r, &v)
	}
	b := spell(r, v)
	if of(t, a) == of(t, b) {
		t.Errorf("one fingerprint for\n%s\n%s", a, b)
	}
	if paths, only, err := fingerprint.Grown(json.RawMessage(a), json.RawMessage(b), nil); only && len(paths) == 0 || only && !grows || err != nil {
		t.Errorf("differ at %q, %t, %v:\n%s\n%s", paths, only, err, a, b)
	}
}

// agrees holds Grown against a second opinion: two values have grown if what
// they have in common has one fingerprint, by keys; and what they have in common
// is what is left when the keys at the paths are taken away from both.
func agrees(t *testing.T, s1, s2 string, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 3))
	va, ok := body(r, s1)
	if !ok {
		return
	}
	a := spell(r, va)
	vb, ok := parse(s2)
	if !ok {
		vb = va
		for range r.IntN(6) {
			grow(r, &vb)
		}
		if r.IntN(4) == 0 {
			change(t, r, &vb)
		}
	}
	b := spell(r, vb)
	va, _ = parse(a)
	paths, only, err := fingerprint.Grown(json.RawMessage(a), json.RawMessage(b), nil)
	back, onlyBack, errBack := fingerprint.Grown(json.RawMessage(b), json.RawMessage(a), nil)
	if err != nil || errBack != nil {
		t.Fatal(err, errBack)
	}
	if !slices.Equal(paths, back) || only != onlyBack {
		t.Errorf("%q, %t one way and %q, %t the other:\n%s\n%s", paths, only, back, onlyBack, a, b)
	}
	if same := of(t, a) == of(t, b); same != (only && len(paths) == 0) {
		t.Errorf("%q, %t, and the same by fingerprint: %t:\n%s\n%s", paths, only, same, a, b)
	}
	if !slices.IsSorted(paths) || len(slices.Compact(slices.Clone(paths))) != len(paths) || len(paths) > 32 || !only && paths != nil {
		t.Errorf("%t with the paths %q", only, paths)
	}
	for _, p := range paths {
		steps := split(t, p)
		without(va, steps)
		without(vb, steps)
		if len(p) > 256 || strings.ContainsFunc(p, func(c rune) bool { return !strconv.IsPrint(c) }) {
			t.Errorf("the path %q", p)
		}
	}
	if only && of(t, encode(t, va)) != of(t, encode(t, vb)) {
		t.Errorf("without %q, they still differ:\n%s\n%s", paths, a, b)
	}
	if only {
		return
	}
	va, _ = parse(a)
	vb, _ = parse(b)
	most, longest := 0, 0
	intersect(va, vb, 0, func(length int) { most, longest = most+1, max(longest, length) })
	// A byte takes at most ten when it is quoted.
	if of(t, encode(t, va)) == of(t, encode(t, vb)) && most <= 32 && 10*longest <= 256 {
		t.Errorf("these have only grown:\n%s\n%s", a, b)
	}
}

// split takes a path apart; an element is "[]", a key has a space in front.
func split(t *testing.T, path string) []string {
	t.Helper()
	var out []string
	for rest := path; rest != ""; {
		switch {
		case strings.HasPrefix(rest, "[]"):
			out, rest = append(out, "[]"), rest[2:]
			continue
		case strings.HasPrefix(rest, ".") && rest != path:
			rest = rest[1:]
		}
		if quoted, err := strconv.QuotedPrefix(rest); err == nil {
			key, err := strconv.Unquote(quoted)
			if err != nil {
				t.Fatal(err)
			}
			out, rest = append(out, " "+key), rest[len(quoted):]
			continue
		}
		n := strings.IndexAny(rest+".", ".[")
		if n == 0 {
			t.Fatalf("the path %q cannot be read", path)
		}
		out, rest = append(out, " "+rest[:n]), rest[n:]
	}
	return out
}

// without takes the keys at a path away.
func without(v any, steps []string) {
	switch v := v.(type) {
	case []any:
		if steps[0] == "[]" && len(steps) > 1 {
			for _, e := range v {
				without(e, steps[1:])
			}
		}
	case map[string]any:
		key, ok := strings.CutPrefix(steps[0], " ")
		if !ok {
			return
		}
		if len(steps) == 1 {
			delete(v, key)
		} else if e, ok := v[key]; ok {
			without(e, steps[1:])
		}
	}
}

// intersect takes away the keys that only one of two values has, and tells of
// each how long its path is, unquoted.
func intersect(a, b any, length int, each func(length int)) {
	switch a := a.(type) {
	case []any:
		if b, ok := b.([]any); ok && len(a) == len(b) {
			for i := range a {
				intersect(a[i], b[i], length+2, each)
			}
		}
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok {
			return
		}
		for k := range a {
			if _, both := b[k]; both {
				intersect(a[k], b[k], length+len(k)+3, each)
			} else {
				each(length + len(k) + 3)
				delete(a, k)
			}
		}
		for k := range b {
			if _, both := a[k]; !both {
				each(length + len(k) + 3)
				delete(b, k)
			}
		}
	}
}

func TestRandomNoise(t *testing.T) {
	for seed := range uint64(3000) {
		noise(t, "", seed)
	}
}

// Values that are not the same have fingerprints that are not the same.
func TestRandomValues(t *testing.T) {
	values := make(map[event.Fingerprint]string)
	for seed := range uint64(3000) {
		v := encode(t, random(rand.New(rand.NewPCG(seed, 4)), 4))
		f := of(t, v)
		if other, ok := values[f]; ok && other != v {
			t.Fatalf("%s and %s have one fingerprint", v, other)
		}
		values[f] = v
	}
}

func TestRandomMeaning(t *testing.T) {
	for seed := range uint64(3000) {
		meaning(t, "", seed)
	}
}

func TestRandomGrowth(t *testing.T) {
	for seed := range uint64(3000) {
		agrees(t, "", "", seed)
	}
}

func FuzzOf(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, ok := parse(s)
		if !ok {
			return
		}
		again, err := json.MarshalIndent(v, " ", "\t") // sorted keys, HTML escaped, other white space
		if err != nil {
			return
		}
		if a := of(t, s); a != of(t, string(again)) {
			t.Errorf("%q and %q differ", s, again)
		} else if a == of(t, `[`+s+`]`) {
			t.Errorf("%q in a list is taken for itself", s)
		}
	})
}

func FuzzNoise(f *testing.F) {
	for i, s := range seeds {
		f.Add(s, uint64(i))
	}
	f.Fuzz(noise)
}

func FuzzMeaning(f *testing.F) {
	for i, s := range seeds {
		for j := range uint64(20) {
			f.Add(s, uint64(i)<<8|j)
		}
	}
	f.Fuzz(meaning)
}

func FuzzGrown(f *testing.F) {
	for i, s := range seeds {
		for j := range uint64(20) {
			f.Add(s, "", uint64(i)<<8|j)
		}
		f.Add(s, seeds[(i+1)%len(seeds)], uint64(i))
	}
	f.Fuzz(agrees)
}
