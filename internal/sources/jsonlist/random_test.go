package jsonlist_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"syncd/internal/sources/jsonlist"
)

// value writes a random valid JSON value.
func value(r *rand.Rand, b *strings.Builder, depth int) {
	space := func() { b.WriteString([]string{"", "", "", " ", "\n\t", "\r "}[r.IntN(6)]) }
	str := func() {
		b.WriteByte('"')
		for range r.IntN(6) {
			b.WriteString([]string{"a", `\"`, `\\`, `\u0041`, `\ud83d\ude00`, `\ud800`, "é", "]", "}", ",", "[", "{", ":", `\/`, " ", "\xff", "questions", `\n`}[r.IntN(18)])
		}
		b.WriteByte('"')
	}
	kind := r.IntN(8)
	if depth == 0 {
		kind = r.IntN(6)
	}
	switch kind {
	case 0:
		b.WriteString([]string{"null", "true", "false"}[r.IntN(3)])
	case 1, 2:
		b.WriteString([]string{"0", "-0.0", "1e5", "12345678901234567890", "1.50E-7"}[r.IntN(5)])
	case 3, 4, 5:
		str()
	case 6:
		b.WriteByte('[')
		space()
		for i := range r.IntN(4) {
			if i > 0 {
				b.WriteByte(',')
			}
			space()
			value(r, b, depth-1)
			space()
		}
		b.WriteByte(']')
	case 7:
		b.WriteByte('{')
		space()
		for i := range r.IntN(4) {
			if i > 0 {
				b.WriteByte(',')
				space()
			}
			str()
			space()
			b.WriteByte(':')
			space()
			value(r, b, depth-1)
			space()
		}
		b.WriteByte('}')
	}
}

// answer writes a random valid answer that holds a list at path, now and then
// one of another kind.
func answer(r *rand.Rand) string {
	var b strings.Builder
	b.WriteByte('{')
	for i := range r.IntN(6) {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:", []string{"data", "error", "data", "questions", "x.y"}[r.IntN(5)])
		if r.IntN(2) == 0 {
			value(r, &b, 3)
			continue
		}
		b.WriteByte('{')
		for j := range r.IntN(4) {
			if j > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, " %q : ", []string{"questions", "n", "questions", "data"}[r.IntN(4)])
			if other := r.IntN(8); other < 3 {
				b.WriteString([]string{"null", "null", "{}"}[other])
				continue
			}
			b.WriteByte('[')
			for k := range r.IntN(6) {
				if k > 0 {
					b.WriteByte(',')
				}
				value(r, &b, 4)
			}
			b.WriteByte(']')
		}
		b.WriteByte('}')
	}
	b.WriteByte('}')
	return b.String()
}

// expected reads a valid answer by encoding/json, which keeps all of it.
func expected(body []byte, maxElement int) result {
	res := result{members: make(map[string]string)}
	fail := errors.New("another type")
	object := func(raw []byte, each func(name string, raw json.RawMessage)) {
		dec := json.NewDecoder(bytes.NewReader(raw))
		_, _ = dec.Token()
		for dec.More() {
			name, _ := dec.Token()
			var v json.RawMessage
			_ = dec.Decode(&v)
			each(name.(string), v)
		}
	}
	keep := func(name string, v []byte) {
		_, again := res.members[name]
		if len(v) > 64<<10 || depth(v) > 1000 {
			delete(res.members, name)
		} else if again || len(res.members) < 256 {
			res.members[name] = string(v)
		}
	}
	object(body, func(name string, v json.RawMessage) {
		if res.err != nil {
			return
		}
		if name != path[0] || v[0] != '{' {
			if quoted, _ := json.Marshal(name); len(quoted) < 500 { // else it may have been too long as it was sent
				keep(name, v)
			}
			return
		}
		object(v, func(name string, v json.RawMessage) {
			switch {
			case res.err != nil:
			case name != path[1]:
				keep(path[0]+"."+name, v)
			case string(v) == "null":
				res.null = !res.there
			case v[0] != '[':
				res.err = fail
			default:
				res.there, res.null = true, false
				var raws []json.RawMessage
				_ = json.Unmarshal(v, &raws)
				for _, raw := range raws {
					switch {
					case len(raw) > maxElement:
						res.odd = append(res.odd, fmt.Sprintf("longer than %d bytes | %s", maxElement, raw[:min(len(raw), 4096, maxElement)]))
					case depth(raw) > 1000:
						res.odd = append(res.odd, "nested deeper than 1000 levels | "+string(raw))
					default:
						res.elements = append(res.elements, string(raw))
					}
				}
			}
		})
	})
	return res
}

// depth is how deep a valid value is nested.
func depth(raw []byte) (deepest int) {
	dec, n := json.NewDecoder(bytes.NewReader(raw)), 0
	dec.UseNumber()
	for {
		tok, err := dec.Token()
		if err != nil {
			return deepest
		}
		if d, ok := tok.(json.Delim); ok {
			if n--; d == '{' || d == '[' {
				n += 2
			}
			deepest = max(deepest, n)
		}
	}
}

// chunks gives what it holds in pieces of random sizes.
type chunks struct {
	b []byte
	r *rand.Rand
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.r.IntN(9))], c.b)
	c.b = c.b[n:]
	return n, nil
}

// TestLikeEncodingJSON: random valid answers in random chunks give what
// encoding/json gives, byte for byte.
func TestLikeEncodingJSON(t *testing.T) {
	with, odd, failed := 0, 0, 0
	for seed := range uint64(20_000) {
		r := rand.New(rand.NewPCG(seed, 0))
		body := answer(r)
		if !json.Valid([]byte(body)) {
			t.Fatalf("the test writes invalid answers: %q", body)
		}
		limit := []int{10, 40, 1 << 20}[r.IntN(3)]
		want := expected([]byte(body), limit)
		got := read(&chunks{[]byte(body), r}, jsonlist.List{Path: path, MaxElement: limit})
		if want.err != nil && got.err != nil {
			failed++
			continue
		}
		same(t, fmt.Sprintf("seed %d, %q", seed, body), got, want)
		with, odd = with+min(1, len(got.elements)), odd+min(1, len(got.odd))
		if t.Failed() {
			return
		}
	}
	if with < 2000 || odd < 300 || failed < 300 {
		t.Errorf("of 20000 answers %d have elements, %d odd ones, %d another type: the test shows little", with, odd, failed)
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{"", "{}", sample, `{"data":{"questions":[1,{"a":[tru]},"\x"]}}`, `{"data":{"questions":[` + strings.Repeat("[", 3000), `{"data":null}`,
		`{"data":{"questions":{}}}`, "\xef\xbb\xbf{}", `{"data":{"questions":[,]}}x`, `{"d\u0061ta":{"questions":null}}`, `{"data":{"questions":[{"a":[1},2]}]}}`} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, body []byte, limit uint8) {
		l := jsonlist.List{Path: path, MaxElement: 1 + int(limit)}
		got := read(bytes.NewReader(body), l)
		same(t, "byte by byte", read(iotest.OneByteReader(bytes.NewReader(body)), l), got)
		for _, e := range got.elements {
			if !json.Valid([]byte(e)) || !bytes.Contains(body, []byte(e)) || len(e) > l.MaxElement {
				t.Errorf("an element %q", e)
			}
		}
		bare := bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
		valid := json.Valid(bare) && bytes.TrimLeft(bare, " \t\r\n")[0] == '{'
		if !valid {
			if got.err == nil && len(got.odd) == 0 && len(body) < 1000 { // or something may have been left out unchecked
				t.Errorf("no JSON object, and read without a word: %+v", got)
			}
			return
		}
		if want := expected(bare, l.MaxElement); want.err == nil || got.err == nil {
			same(t, "encoding/json", got, want)
		}
	})
}
