package fingerprint_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"syncd/internal/event"
	"syncd/internal/fingerprint"
)

func of(t testing.TB, body string, ignore ...string) event.Fingerprint {
	t.Helper()
	f, err := fingerprint.Of(json.RawMessage(body), ignore)
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return f
}

// TestNoise: rows of bodies that mean the same.
func TestNoise(t *testing.T) {
	for _, row := range [][]string{
		{`{"a":1,"b":[true,null]}`, `{"b":[true,null],"a":1}`, " {\n\t\"a\" : 1 ,\r\n \"b\" : [ true , null ] } ", `{"\u0061":1,"b":[true,null]}`},
		{`1`, `1.0`, `1e0`, `10e-1`, `0.1e1`, `1E+0`, `100e-2`, `0.0001e4`, `1.000000000000000000000000`, `1e-0`, `1e00000000000000000000000000000`},
		{`0`, `-0`, `0.0`, `0e5`, `-0.000e-7`, `0e99999999999999999999`},
		{`12345678901234567890`, `1234567890123456789e1`, `1.2345678901234567890e19`},
		{`-1.5`, `-15e-1`, `-0.15e1`},
		{`"A/é😀"`, `"\u0041\/\u00e9\ud83d\ude00"`, `"\u0041/\u00E9\uD83D\uDE00"`},
		{`"https://x.test/a.jpg"`, `"https://x.test/a.jpg?sig=1&exp=2"`, `"https://x.test/a.jpg#f"`, `"https:\/\/x.test\/a.jpg?"`},
		{`"//photos.test/a.jpg"`, `"//photos.test/a.jpg?x=1"`},
	} {
		for _, outer := range []string{`%s`, `{"x":%s}`, `[[%s]]`} {
			want := of(t, fmt.Sprintf(outer, row[0]))
			for _, body := range row[1:] {
				if of(t, fmt.Sprintf(outer, body)) != want {
					t.Errorf("noise: %s differs from %s", body, row[0])
				}
			}
		}
	}
}

// TestMeaning: rows of bodies of which no two mean the same.
func TestMeaning(t *testing.T) {
	for _, row := range [][]string{
		{`{}`, `[]`, `null`, `""`, `0`, `false`, `true`, `"null"`, `"0"`, `"false"`, `{"":null}`, `[null]`, `[[]]`, `[{}]`},
		{`{"a":null}`, `{}`, `{"a":0}`, `{"a":""}`, `{"a":[]}`, `{"b":null}`, `{"a":null,"b":null}`},
		{`1`, `"1"`, `-1`, `10`, `0.1`, `11`, `1e1000`, `1e-1000`, `1e99999999999999999999`, `2e99999999999999999999`, `[1]`},
		{`12345678901234567890`, `12345678901234567891`, `1.2345678901234567890`},
		{`[1,2]`, `[2,1]`, `[12]`, `[1,[2]]`, `[[1],2]`, `[[1,2]]`, `[1,2,null]`},
		{`{"a":"b","c":"d"}`, `{"a":"bc","":"d"}`, `{"a":{"b":0}}`, `{"ab":0}`, `{"a":["b"]}`, `{"a":"d","c":"b"}`},
		{`"a"`, `"A"`, `"a "`, `"\u00e9"`, `"e\u0301"`, `"a\u0000"`},
		{`"https://x.test/a?b"`, `"http://x.test/a?b"`, `"see https://x.test/a?b"`, `"see https://x.test/a?c"`, `"https://x.test/a b?c"`, `"https://x.test/a b?d"`, `"https://x.test/A"`, `"is it?"`, `"is it"`, `"https:/x?"`},
	} {
		for i, a := range row {
			for _, b := range row[:i] {
				if of(t, a) == of(t, b) {
					t.Errorf("meaning: %s is taken for %s", a, b)
				}
			}
		}
	}
}

func TestIgnore(t *testing.T) {
	a, b := `{"id":1,"n":{"seen":1},"seen":1,"more":[]}`, `{"id":1,"n":{"seen":1},"seen":2}`
	if of(t, a, "seen", "more") != of(t, b, "seen", "more") {
		t.Error("ignored keys make a difference")
	}
	if of(t, a, "seen", "more") != of(t, `{"n":{"seen":1},"id":1}`, "seen", "more") {
		t.Error("an ignored key makes a difference by being there")
	}
	if of(t, a, "seen") == of(t, b, "seen") || of(t, a) == of(t, b) {
		t.Error("more than what is listed is ignored")
	}
	if of(t, `{"n":{"seen":1}}`, "seen") == of(t, `{"n":{"seen":2}}`, "seen") || of(t, `[{"seen":1}]`, "seen") == of(t, `[{"seen":2}]`, "seen") {
		t.Error("a key below the top level is ignored")
	}
}

func TestNotJSON(t *testing.T) {
	for _, s := range []string{"", "{", "nul", "\x00", strings.Repeat("[", 20_000)} {
		if _, err := fingerprint.Of(json.RawMessage(s), nil); err == nil {
			t.Errorf("%.20q has a fingerprint", s)
		}
	}
}

// TestGolden: records remember fingerprints, so they must not change unless Rules
// does.
func TestGolden(t *testing.T) {
	if fingerprint.Rules != 1 {
		t.Fatal("new rules need new values here")
	}
	for body, want := range map[string]string{
		`{"id":"a","n":-1.50,"t":[true,null,"https://x.test/a?b"]}`: "d1f51312b18c4c00",
		`{}`: "cf12b9aa38445e4b",
	} {
		if got := of(t, body).String(); got != want {
			t.Errorf("%s has fingerprint %s, expected %s", body, got, want)
		}
	}
}

// render writes v in a random spelling.
func render(r *rand.Rand, b *strings.Builder, v any) {
	space := func() { b.WriteString([]string{"", "", " ", "\n\t", "\r"}[r.IntN(5)]) }
	text := func(s string) {
		b.WriteByte('"')
		for _, c := range s {
			if c < ' ' || c == '"' || c == '\\' || c < 0x10000 && r.IntN(3) == 0 {
				fmt.Fprintf(b, `\u%04x`, c)
			} else {
				b.WriteRune(c)
			}
		}
		b.WriteByte('"')
	}
	space()
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		b.WriteByte('{')
		for i, k := range keys {
			if i > 0 {
				b.WriteByte(',')
			}
			space()
			text(k)
			space()
			b.WriteByte(':')
			render(r, b, v[k])
		}
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			render(r, b, e)
		}
		space()
		b.WriteByte(']')
	case string:
		text(v)
	case int:
		switch n := r.IntN(3); n {
		case 0:
			fmt.Fprint(b, v)
		case 1:
			fmt.Fprintf(b, "%d.0", v)
		default:
			fmt.Fprintf(b, "%d00e-2", v)
		}
	case bool:
		fmt.Fprint(b, v)
	default:
		b.WriteString("null")
	}
	space()
}

func random(r *rand.Rand, depth int) any {
	n := r.IntN(7)
	if depth == 0 {
		n = r.IntN(5)
	}
	switch n {
	case 0:
		return r.IntN(2001) - 1000
	case 1:
		return r.IntN(2) == 0
	case 2:
		return nil
	case 3, 4:
		return []string{"", "a", "Привет", "😀\"\\\n", "https://x.test/p", "null", "1"}[r.IntN(7)]
	case 5:
		var a []any
		for range r.IntN(4) {
			a = append(a, random(r, depth-1))
		}
		return a
	}
	m := make(map[string]any)
	for range r.IntN(5) {
		m[[]string{"a", "b", "é", "", "a b", "id"}[r.IntN(6)]] = random(r, depth-1)
	}
	return m
}

// TestSpellings: one value in two random spellings has one fingerprint; a value
// that is another one has another.
func TestSpellings(t *testing.T) {
	values := make(map[event.Fingerprint]string)
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 6))
		v := random(r, 4)
		var a, b strings.Builder
		render(r, &a, v)
		render(r, &b, v)
		f := of(t, a.String())
		if of(t, b.String()) != f {
			t.Fatalf("seed %d: %s and %s", seed, a.String(), b.String())
		}
		plain, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		canonical := strings.ReplaceAll(string(plain), "null", "[]") // a nil slice is null to Marshal
		if other, ok := values[f]; ok && other != canonical && strings.ReplaceAll(other, "[]", "null") != strings.ReplaceAll(canonical, "[]", "null") {
			t.Fatalf("seed %d: %s and %s have one fingerprint", seed, canonical, other)
		}
		values[f] = canonical
	}
}

func FuzzOf(f *testing.F) {
	for _, s := range []string{`{"a":[1.0,1e400,-0,"\ud800","https://x?y#z"],"a":2}`, `"//?"`, `1e-9223372036854775808`, `{"\u0000":{}}`, `[1E+00012]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := fingerprint.Of(json.RawMessage(s), nil)
		if err != nil || !json.Valid([]byte(s)) {
			return
		}
		var v any
		d := json.NewDecoder(strings.NewReader(s))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			return
		}
		again, err := json.MarshalIndent(v, " ", "\t") // sorted keys, HTML escaped, other white space
		if err != nil {
			return
		}
		if b := of(t, string(again)); a != b {
			t.Errorf("%q and %q differ", s, again)
		}
		if b := of(t, `[`+s+`]`); a == b {
			t.Errorf("%q in a list is taken for itself", s)
		}
	})
}
