package rawjson_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"syncd/internal/rawjson"
)

var seeds = []string{
	`{}`, `[]`, ` [ ] `, `{"a":1}`, `{ "a" : [ 1 , -0.5e+7 , true , null ] , "b" : { } }`, `"\u00e9\ud83d\ude00\ud800"`, "\"\xff\xc3\xa9\"", `"a\"b\\"`,
	`0`, `-0`, `01`, `-`, `1.`, `.5`, `1e`, `1e5`, `1E-05`, `+1`, `tru`, `truex`, `nul`, `"\x"`, `"\u12g4"`, `"\u12`, `"\u123`, `"\u123"`, `"\u1234`, "\"\x1f\"", "\"\x7f\"", `"`, `"\`, ``, ` `, `{`, `[1,]`,
	`{"a":1,}`, `{"a"}`, `{"a":}`, `{,}`, `{1:2}`, `[1 2]`, `{} {}`, "\v1", "1\x00", `[[[[]]]]`, `{"a":{"a":{"a":[{"a":"12345678\"90"}]}}}`, "\"1234567\x00\"", "\"\xe9\x22",
}

// check holds Read and Valid against encoding/json.
func check(t *testing.T, raw []byte) {
	t.Helper()
	want := json.Valid(raw)
	text, ok := rawjson.Read(raw, nil)
	if valid := rawjson.Valid(raw); valid != want || ok != want {
		t.Fatalf("%q: Valid %t, Read %t, encoding/json %t", raw, valid, ok, want)
	}
	if !want {
		return
	}
	var compact strings.Builder
	for i := range text.Nodes {
		if n := text.Nodes[i]; n.End <= n.Start || int(n.After) <= i || int(n.After) > len(text.Nodes) {
			t.Fatalf("%q: node %d is %+v", raw, i, n)
		}
	}
	write(&compact, text, 0)
	var theirs, ours any
	if err := errors.Join(decode(raw, &theirs), decode([]byte(compact.String()), &ours)); err != nil || !reflect.DeepEqual(ours, theirs) {
		t.Fatalf("%q was read as %q: %v", raw, compact.String(), err)
	}
	if spaced := compact.Len() != len(raw); spaced != text.Spaced {
		t.Fatalf("%q: spaced %t", raw, text.Spaced)
	}
	for i := range text.Nodes {
		if text.Kind(i) != '"' {
			continue
		}
		var s string
		if err := json.Unmarshal(text.Bytes(i), &s); err != nil || string(rawjson.Unquote(text.Bytes(i))) != s {
			t.Fatalf("%q: unquoted as %q, want %q, %v", text.Bytes(i), rawjson.Unquote(text.Bytes(i)), s, err)
		}
	}
}

// decode keeps numbers as they are spelt: not all of them are a float64.
func decode(raw []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	return d.Decode(v)
}

// write puts a text together from its nodes.
func write(b *strings.Builder, t rawjson.Text, i int) {
	end := int(t.Nodes[i].After)
	switch t.Kind(i) {
	case '{':
		b.WriteByte('{')
		for at := i + 1; at < end; at = int(t.Nodes[at+1].After) {
			if at > i+1 {
				b.WriteByte(',')
			}
			b.Write(t.Bytes(at))
			b.WriteByte(':')
			write(b, t, at+1)
		}
		b.WriteByte('}')
	case '[':
		b.WriteByte('[')
		for at := i + 1; at < end; at = int(t.Nodes[at].After) {
			if at > i+1 {
				b.WriteByte(',')
			}
			write(b, t, at)
		}
		b.WriteByte(']')
	default:
		b.Write(t.Bytes(i))
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(check)
}

// What a fuzzer would find in minutes: texts that differ by a byte from valid ones.
func TestBrokenTexts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const some = "{}[]\",:\\u0123456789eE+-.tfnrulsa \t\n\r\x00\x1f\x7f\xc3\xa9\xff"
	for range 60_000 {
		raw := []byte(seeds[r.IntN(len(seeds))])
		for range r.IntN(3) {
			at := r.IntN(len(raw) + 1)
			c := some[r.IntN(len(some))]
			switch {
			case at == len(raw) || r.IntN(2) == 0:
				raw = append(raw[:at:at], append([]byte{c}, raw[at:]...)...)
			case r.IntN(2) == 0:
				raw[at] = c
			default:
				raw = append(raw[:at], raw[at+1:]...)
			}
		}
		check(t, raw)
	}
}

// A string ends where it does at whatever place of eight bytes, and whatever stands
// before and behind it.
func TestStringEnds(t *testing.T) {
	for _, c := range []string{`"`, `\"`, `\\`, "\x1f", "\x20", "\x21", "\x23", "\x5b", "\x5d", "\x7f", "\x80", "\xa2", "\xdc", "\xff", "é"} {
		for before := range 17 {
			for behind := range 9 {
				for _, fill := range []string{"a", " ", "!", "\x80", "\xff", "#"} {
					check(t, []byte(`"`+strings.Repeat(fill, before)+c+strings.Repeat(fill, behind)+`"`))
				}
			}
		}
	}
}

func TestDepth(t *testing.T) {
	for _, n := range []int{9_999, 10_000, 10_001, 100_000} {
		for _, one := range [][2]string{{"[", "]"}, {`{"a":`, "}"}} {
			raw := []byte(strings.Repeat(one[0], n) + "1" + strings.Repeat(one[1], n))
			if got, want := rawjson.Valid(raw), json.Valid(raw); got != want {
				t.Errorf("%d deep: %t, encoding/json says %t", n, got, want)
			}
		}
	}
}

func TestReadMakesNoGarbage(t *testing.T) {
	raw := []byte(`{"id":"question","text":"Подойдёт?","n":[1,2,{"a":null}]}`)
	room := make([]rawjson.Node, 0, 32)
	if n := testing.AllocsPerRun(100, func() { rawjson.Read(raw, room) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRead(b *testing.B) {
	raw := fmt.Appendf(nil, `{"id":"question-000000001","text":"%s","createdDate":"2026-02-02T20:46:20.123Z","answer":null,"productDetails":{"imtId":11157265,"nmId":14917842,"productName":"Coffee"},"wasViewed":false}`,
		strings.Repeat("Подойдёт ли к этой модели? ", 8))
	b.Run("rawjson", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(raw)))
		var room [64]rawjson.Node
		for b.Loop() {
			rawjson.Read(raw, room[:0])
		}
	})
	b.Run("encoding-json-valid", func(b *testing.B) {
		b.SetBytes(int64(len(raw)))
		for b.Loop() {
			json.Valid(raw)
		}
	})
}
