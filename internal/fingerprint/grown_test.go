package fingerprint_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"syncd/internal/fingerprint"
)

func TestGrown(t *testing.T) {
	for _, test := range []struct {
		a, b  string
		paths []string // nil: more than keys
	}{
		{`{"a":1}`, `{"a":1.0,"b":2}`, []string{"b"}},
		{`{"a":1}`, `{"a":1,"b":null}`, []string{"b"}},
		{`{"a":{"x":1}}`, `{"a":{"y":1}}`, []string{"a.x", "a.y"}},
		{`{"p":[{},{},{"x":1}]}`, `{"p":[{"x":1},{"x":2},{"x":1}]}`, []string{"p[].x"}},
		{`[[{}]]`, `[[{"k":{"l":1}}]]`, []string{"[][].k"}},
		{`{"a":{"b":{}}}`, `{"a":{"b":{"c":1}},"d":"https://x?1"}`, []string{"a.b.c", "d"}},
		{`{}`, `{"a.b":1,"":2,"c[]":3,"q\"":4,"\u0000\n\u200b":5,"s p":6,"ю":7,"b\\":8,"<&>":9}`,
			[]string{`""`, `"\x00\n\u200b"`, `"a.b"`, `"b\\"`, `"c[]"`, `"q\""`, `<&>`, "s p", "ю"}},
		{`{"a":null}`, `{"a":0}`, nil},
		{`{"a":null}`, `{"a":{}}`, nil},
		{`{"a":1}`, `{"a":2,"b":1}`, nil},
		{`{"a":[]}`, `{"a":[{"x":1}]}`, nil},
		{`{"a":[{"x":1},{}]}`, `{"a":[{"x":2},{"x":1}]}`, nil},
		{`{"a":{}}`, `{"a":[]}`, nil},
		{`{}`, `[]`, nil},
		{`{}`, `null`, nil},
		{`"1"`, `1`, nil},
	} {
		paths, only, err := fingerprint.Grown(json.RawMessage(test.a), json.RawMessage(test.b), nil)
		if err != nil || only != (test.paths != nil) || !slices.Equal(paths, test.paths) {
			t.Errorf("%s, %s: %q, %t, %v; want %q", test.a, test.b, paths, only, err, test.paths)
		}
	}
}

func TestGrownIgnores(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want string
	}{
		{`{"seen":1,"x":{}}`, `{"x":{}}`, "[] true"},
		{`{"seen":1,"x":{}}`, `{"seen":[],"x":{"seen":0}}`, "[x.seen] true"},
		{`{"seen":1,"x":1}`, `{"x":2}`, "[] false"},
	} {
		paths, only, err := fingerprint.Grown(json.RawMessage(test.a), json.RawMessage(test.b), []string{"seen"})
		if got := fmt.Sprint(paths, only); got != test.want || err != nil {
			t.Errorf("%s, %s: %s, %v; want %s", test.a, test.b, got, err, test.want)
		}
	}
}

// A difference at too many places, or at one that is too long to be told, is a
// change like any other.
func TestGrownBounds(t *testing.T) {
	object := func(n, length int) string {
		keys := make([]string, n)
		for i := range keys {
			keys[i] = `"` + strings.Repeat("k", length-3) + fmt.Sprintf(`%03d":1`, i)
		}
		return "{" + strings.Join(keys, ",") + "}"
	}
	for _, test := range []struct {
		a, b string
		only bool
	}{
		{`{}`, object(32, 3), true},
		{`{}`, object(33, 3), false},
		{`{}`, object(1, 256), true},
		{`{}`, object(1, 257), false},
		{`{}`, object(1, 1<<20), false},
		{strings.Repeat("[", 5000) + "{}" + strings.Repeat("]", 5000), strings.Repeat("[", 5000) + `{"a":1}` + strings.Repeat("]", 5000), false},
		{`[` + strings.Repeat(`{},`, 999) + `{}]`, `[` + strings.Repeat(`{"x":1,"y":2},`, 999) + `{}]`, true},
	} {
		paths, only, err := fingerprint.Grown(json.RawMessage(test.a), json.RawMessage(test.b), nil)
		if err != nil || only != test.only || len(paths) > 32 {
			t.Errorf("%.40s: %.80q, %t, %v; want %t", test.b, paths, only, err, test.only)
		}
	}
}

// Values as deep as encoding/json takes them are compared; deeper ones, and what
// is no JSON, are refused.
func TestHostileDepth(t *testing.T) {
	deep := func(open, inside, shut string, n int) json.RawMessage {
		return json.RawMessage(strings.Repeat(open, n) + inside + strings.Repeat(shut, n))
	}
	for _, kind := range [][2]string{{"[", "]"}, {`{"a":`, "}"}} {
		a, b := deep(kind[0], "1", kind[1], 9_999), deep(kind[0], "2", kind[1], 9_999)
		if of(t, string(a)) == of(t, string(b)) {
			t.Errorf("%s: one fingerprint", kind[0])
		}
		if _, only, err := fingerprint.Grown(a, b, nil); only || err != nil {
			t.Errorf("%s: %t, %v", kind[0], only, err)
		}
		if paths, only, err := fingerprint.Grown(a, a, nil); len(paths) > 0 || !only || err != nil {
			t.Errorf("%s: %q, %t, %v", kind[0], paths, only, err)
		}
		b = deep(kind[0], "1", kind[1], 10_001)
		for _, pair := range [][2]json.RawMessage{{a, b}, {b, a}, {a, json.RawMessage("{")}} {
			if _, _, err := fingerprint.Grown(pair[0], pair[1], nil); err == nil {
				t.Errorf("%s: compared", kind[0])
			}
		}
	}
}
