package fingerprint_test

import (
	"encoding/json"
	"fmt"
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

// Rules name the list of ignored keys as a set, so that every change of it makes
// the records compare anew, and nothing else does.
func TestRulesOf(t *testing.T) {
	if got := fingerprint.RulesOf(nil); got != "1" || fingerprint.RulesOf([]string{}) != got {
		t.Errorf("without a list: %s", got)
	}
	if a, b := fingerprint.RulesOf([]string{"a", "b"}), fingerprint.RulesOf([]string{"b", "a", "b"}); a != b || a != "1-60e929911e1016b4" {
		t.Errorf("%s and %s", a, b)
	}
	seen := make(map[string][]string)
	for _, list := range [][]string{nil, {"a"}, {"b"}, {"a", "b"}, {"ab"}, {""}, {"a,b"}, {"a", ""}} {
		rules := fingerprint.RulesOf(list)
		if other, ok := seen[rules]; ok {
			t.Errorf("%q and %q are both %s", list, other, rules)
		}
		seen[rules] = list
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

// Every part of a long body counts.
func TestLongBodies(t *testing.T) {
	items := make([]string, 150) // a few KB
	for i := range items {
		items[i] = fmt.Sprintf(`{"text":"part %d"}`, i)
	}
	seen := map[event.Fingerprint]int{of(t, "["+strings.Join(items, ",")+"]"): -1}
	for i, item := range items {
		items[i] = `{"text":"another"}`
		f := of(t, "["+strings.Join(items, ",")+"]")
		if other, ok := seen[f]; ok {
			t.Fatalf("one fingerprint for bodies that differ at %d and %d", i, other)
		}
		seen[f] = i
		items[i] = item
	}
}

// questionBody is an item of 640 bytes, as marketplaces send them.
var questionBody = json.RawMessage(`{"id":"2ncBtX4B9I0UHoornoqG","text":"` + strings.Repeat("Подойдёт ли к этой модели? ", 6) + `","createdDate":"2026-02-02T20:46:20Z",` +
	`"state":"suppliersPortalSynch","answer":null,"productDetails":{"imtId":11157265,"nmId":14917842,"productName":"Coffee","supplierArticle":"123401","brandName":"Nescafe"},` +
	`"photo":"https://photos.example.com/11157265/1.webp?signature=0f6b","rating":4.50,"wasViewed":false,"isWarned":false}`)

// A fingerprint is taken of every item of every page, and makes next to no garbage.
// The race detector has a pool forget a quarter of what is given back.
func TestOfMakesNoGarbage(t *testing.T) {
	n := testing.AllocsPerRun(1000, func() {
		if _, err := fingerprint.Of(questionBody, nil); err != nil {
			t.Fatal(err)
		}
	})
	if n > 6 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkOf(b *testing.B) {
	b.SetBytes(int64(len(questionBody)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := fingerprint.Of(questionBody, nil); err != nil {
			b.Fatal(err)
		}
	}
}
