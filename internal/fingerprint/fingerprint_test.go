package fingerprint_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"syncd/internal/event"
	"syncd/internal/fingerprint"
)

func of(t testing.TB, body string, ignore ...string) event.Fingerprint {
	t.Helper()
	f, err := fingerprint.Of(json.RawMessage(body), ignore)
	if err != nil {
		t.Fatalf("fingerprint of %s: %v", body, err)
	}
	return f
}

func TestNoiseMakesNoChange(t *testing.T) {
	for name, pair := range map[string][2]string{
		"key order":           {`{"a":1,"b":{"c":2,"d":3}}`, `{"b":{"d":3,"c":2},"a":1}`},
		"white space":         {`{"a":[1,2]}`, " {\n\"a\" : [ 1 ,\t2 ] } "},
		"a fraction of zero":  {`1`, `1.0`},
		"exponents":           {`[1000,0.001,12e3]`, `[1e3,1E-3,1.2e+4]`},
		"zero":                {`[0,0,0]`, `[0.0,-0,0e9]`},
		"many digits":         {`12345678901234567890.50`, `1234567890123456789050e-2`},
		"string escapes":      {`"A\/\u0041ü"`, `"A/A\u00fc"`},
		"signed photo link":   {`{"url":"https://cdn.example/p.jpg?sig=1&e=2"}`, `{"url":"https://cdn.example/p.jpg?sig=9"}`},
		"link without scheme": {`"//photos.example/p.jpg?x=1"`, `"//photos.example/p.jpg"`},
		"fragment":            {`"http://example/p#a"`, `"http://example/p"`},
	} {
		t.Run(name, func(t *testing.T) {
			if of(t, pair[0]) != of(t, pair[1]) {
				t.Errorf("%s and %s mean the same", pair[0], pair[1])
			}
		})
	}
}

func TestMeaningMakesAChange(t *testing.T) {
	for name, pair := range map[string][2]string{
		"null is not absent":          {`{"a":null}`, `{}`},
		"null is not empty":           {`{"a":null}`, `{"a":""}`},
		"text is not a number":        {`{"a":"1"}`, `{"a":1}`},
		"text is not a boolean":       {`"true"`, `true`},
		"booleans":                    {`true`, `false`},
		"array order":                 {`[1,2]`, `[2,1]`},
		"array nesting":               {`[[1],2]`, `[[1,2]]`},
		"empty array or object":       {`[]`, `{}`},
		"sign":                        {`1`, `-1`},
		"last of many digits":         {`12345678901234567890`, `12345678901234567891`},
		"small numbers":               {`1e-400`, `0`},
		"huge exponents":              {`1e999999999999999999999`, `1e999999999999999999998`},
		"sign of a huge exponent":     {`1e999999999999999999999`, `-1e999999999999999999999`},
		"which key":                   {`{"a":1,"b":2}`, `{"a":2,"b":1}`},
		"path of a link":              {`"https://cdn.example/a.jpg?x"`, `"https://cdn.example/b.jpg?x"`},
		"a question in a text":        {`"What size? 46"`, `"What size? 48"`},
		"a link inside a text":        {`"see https://a.example/?id=1 please"`, `"see https://a.example/?id=2 please"`},
		"split between key and value": {`{"ab":"c"}`, `{"a":"bc"}`},
		"case":                        {`"a"`, `"A"`},
	} {
		t.Run(name, func(t *testing.T) {
			if of(t, pair[0]) == of(t, pair[1]) {
				t.Errorf("%s and %s are different", pair[0], pair[1])
			}
		})
	}
}

func TestIgnoreIsTopLevelOnly(t *testing.T) {
	if of(t, `{"id":1,"productDetails":{"x":1}}`, "productDetails") != of(t, `{"id":1}`, "productDetails") {
		t.Error("an ignored field made a change")
	}
	if of(t, `{"a":{"productDetails":1}}`, "productDetails") == of(t, `{"a":{"productDetails":2}}`, "productDetails") {
		t.Error("a field of that name further down is not ignored")
	}
}

func TestBadJSONIsAnError(t *testing.T) {
	for _, body := range []string{``, `{`, `{"a":}`, `nul`} {
		if _, err := fingerprint.Of(json.RawMessage(body), nil); err == nil {
			t.Errorf("%q has a fingerprint", body)
		}
	}
}

// FuzzFingerprint respells any JSON value in another way and expects the same
// fingerprint, then changes one thing in it and expects another.
func FuzzFingerprint(f *testing.F) {
	for _, body := range []string{
		`{"id":"G7Y9","text":"ок?","createdDate":"2026-01-01T00:00:00.123456789Z","answer":null,"n":[1,2.50,-3e2]}`,
		`{"url":"https://cdn.example/p.jpg?sig=1","price":157,"big":12345678901234567890,"t":true}`,
		`[]`, `"x"`, `-0.0`, `{"a":{"a":{"a":[null,{}]}}}`,
	} {
		f.Add([]byte(body), uint64(1))
	}
	f.Fuzz(func(t *testing.T, body []byte, seed uint64) {
		d := json.NewDecoder(bytes.NewReader(body))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil || d.More() {
			t.Skip("not one JSON value")
		}
		if regexp.MustCompile(`[eE][-+]?[0-9]{90}`).Match(body) {
			t.Skip("an exponent beyond those that are understood")
		}
		r := rand.New(rand.NewPCG(seed, seed))
		plain, err := json.Marshal(v)
		if err != nil {
			t.Skip("a number that Go does not spell")
		}
		want := of(t, string(plain))
		var b strings.Builder
		respell(&b, r, v)
		if got := of(t, b.String()); got != want {
			t.Errorf("respelt, it means something else:\n%s\n%s", plain, b.String())
		}
		changed, err := json.Marshal(map[string]any{"was": v, "more": 1})
		if err != nil {
			t.Fatal(err)
		}
		same, err := json.Marshal(map[string]any{"was": v})
		if err != nil {
			t.Fatal(err)
		}
		if of(t, string(changed)) == of(t, string(same)) {
			t.Errorf("another key makes no change to %s", same)
		}
	})
}

// respell writes v with keys in another order, white space, and other spellings of
// numbers, strings and links.
func respell(b *strings.Builder, r *rand.Rand, v any) {
	b.WriteString([]string{"", " ", "\n\t"}[r.IntN(3)])
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		b.WriteByte('{')
		for i, k := range keys {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(escaped(k))
			b.WriteByte(':')
			respell(b, r, v[k])
		}
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			respell(b, r, e)
		}
		b.WriteByte(']')
	case string:
		b.WriteString(escaped(v))
	case json.Number:
		b.WriteString(otherNumber(string(v)))
	default:
		raw, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		b.Write(raw)
	}
	b.WriteString([]string{"", " ", "\r\n"}[r.IntN(3)])
}

// escaped spells every UTF-16 unit of s as \uXXXX.
func escaped(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		if c > 0xFFFF {
			c -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xD800+c>>10, 0xDC00+c&0x3FF)
			continue
		}
		fmt.Fprintf(&b, `\u%04X`, c)
	}
	b.WriteByte('"')
	return b.String()
}

// otherNumber adds a zero to the fraction.
func otherNumber(s string) string {
	mantissa, exponent := s, ""
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		mantissa, exponent = s[:i], s[i:]
	}
	if !strings.Contains(mantissa, ".") {
		mantissa += "."
	}
	return mantissa + "0" + exponent
}

func BenchmarkOf(b *testing.B) {
	body := json.RawMessage(`{"id":"2ncBtX4B9I0UHoornoqG","text":"Question text","createdDate":"2022-02-01T11:18:08.769513469Z","state":"suppliersPortalSynch","answer":null,"productDetails":{"imtId":11157265,"nmId":14917842,"productName":"Coffee","supplierArticle":"123401","supplierName":" ГП Реклама и услуги","brandName":"Nescafe"},"wasViewed":false,"isWarned":false}`)
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := fingerprint.Of(body, nil); err != nil {
			b.Fatal(err)
		}
	}
}
