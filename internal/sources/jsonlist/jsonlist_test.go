package jsonlist_test

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"syncd/internal/sources/jsonlist"
)

var path = []string{"data", "questions"}

// result is all that one reading gives.
type result struct {
	elements []string
	odd      []string // reason, then what was there
	members  map[string]string
	there    bool
	null     bool
	err      error
}

func read(r io.Reader, l jsonlist.List) result {
	res := result{members: make(map[string]string)}
	l.Each = func(raw []byte) error {
		if cap(raw) != len(raw) {
			return fmt.Errorf("an element of %d bytes holds %d", len(raw), cap(raw))
		}
		res.elements = append(res.elements, string(raw))
		return nil
	}
	l.Odd = func(raw []byte, reason string) { res.odd = append(res.odd, reason+" | "+string(raw)) }
	var a jsonlist.Answer
	a, res.err = jsonlist.Read(r, l)
	for k, v := range a.Members {
		res.members[k] = string(v)
	}
	res.there, res.null = a.There, a.Null
	return res
}

func readAll(body string) result {
	return read(strings.NewReader(body), jsonlist.List{Path: path})
}

// TestAnswers: what counts as what.
func TestAnswers(t *testing.T) {
	type m = map[string]string
	deep := func(n int) string { return strings.Repeat(`[`, n) + strings.Repeat(`]`, n) }
	for _, tt := range []struct {
		name, body string
		want       result
	}{
		{"documented", `{"data":{"countArchive":508,"questions":[{"id":"a"}, {"id":"b"}]},"error":false,"errorText":"","additionalErrors":null}`,
			result{elements: []string{`{"id":"a"}`, `{"id":"b"}`}, there: true, members: m{"data.countArchive": "508", "error": "false", "errorText": `""`, "additionalErrors": "null"}}},
		{"byte order mark and white space", "\xef\xbb\xbf \r\n\t{ \"data\" : { \"questions\" : [ 1 ,\n2 ] } } \r\n\t",
			result{elements: []string{"1", "2"}, there: true}},
		{"empty array", `{"data":{"questions":[]}}`, result{there: true}},
		{"empty array with a space", `{"data":{"questions":[ ]}}`, result{there: true}},
		{"null", `{"data":{"questions": null }}`, result{null: true}},
		{"absent", `{"data":{"x":[1]}}`, result{members: m{"data.x": "[1]"}}},
		{"no data", `{}`, result{}},
		{"data null", `{"data":null,"error":true}`, result{members: m{"data": "null", "error": "true"}}},
		{"data is something else", `{"data":[{"questions":[1]}]}`, result{members: m{"data": `[{"questions":[1]}]`}}},
		{"objects beside the path stay whole", `{"additionalErrors":{"questions":[1]},"data":{"in":{"questions":[2]},"questions":[3]}}`,
			result{elements: []string{"3"}, there: true, members: m{"additionalErrors": `{"questions":[1]}`, "data.in": `{"questions":[2]}`}}},
		{"the names have a case", `{"Data":{"questions":[1]},"data":{"Questions":[2]}}`, result{members: m{"Data": `{"questions":[1]}`, "data.Questions": "[2]"}}},
		{"escaped names", `{"d\u0061ta":{"\u0071uestions":[1],"\"\\\ud83d\ude00":2}}`, result{elements: []string{"1"}, there: true, members: m{"data.\"\\😀": "2"}}},
		{"a dotted name is not a path", `{"data.questions":[1]}`, result{members: m{"data.questions": "[1]"}}},
		{"kinds of element", `{"data":{"questions":[null,true,-1.5e3,"a,]}\"\\",[[],{}],{"a":"}"}]}}`,
			result{elements: []string{"null", "true", "-1.5e3", `"a,]}\"\\"`, "[[],{}]", `{"a":"}"}`}, there: true}},
		{"white space inside stays", "{\"data\":{\"questions\":[ { \"a\" :\t1 }\n]}}", result{elements: []string{"{ \"a\" :\t1 }"}, there: true}},
		{"invalid UTF-8 is the caller's", "{\"data\":{\"questions\":[\"a\xff\"]},\"b\xff\":\"\xc3\"}", result{elements: []string{"\"a\xff\""}, there: true, members: m{"b\uFFFD": "\"\xc3\""}}},
		{"twice", `{"a":1,"data":{"questions":[1],"n":1},"a":2,"data":{"questions":[2],"n":2}}`,
			result{elements: []string{"1", "2"}, there: true, members: m{"a": "2", "data.n": "2"}}},
		{"array and null", `{"data":{"questions":[1],"questions":null}}`, result{elements: []string{"1"}, there: true}},
		{"null and array", `{"data":{"questions":null,"questions":[]}}`, result{there: true}},
		{"data and null", `{"data":{"questions":[1]},"data":null}`, result{elements: []string{"1"}, there: true, members: m{"data": "null"}}},

		{"damaged elements", `{"data":{"questions":["\x",01,{"a" 1},{"a":1 "b":2},1 2,{"a":tru},[1,],nope,{"id":"good"}]}}`,
			result{elements: []string{`{"id":"good"}`}, there: true, odd: []string{
				`not well-formed: invalid character 'x' in string escape code | "\x"`,
				`not well-formed: invalid character '1' after top-level value | 01`,
				`not well-formed: invalid character '1' after object key | {"a" 1}`,
				`not well-formed: invalid character '"' after object key:value pair | {"a":1 "b":2}`,
				`not well-formed: invalid character '2' after top-level value | 1 2`,
				`not well-formed: invalid character '}' in literal true (expecting 'e') | {"a":tru}`,
				`not well-formed: invalid character ']' looking for beginning of value | [1,]`,
				`not well-formed: invalid character 'o' in literal null (expecting 'u') | nope`,
			}}},
		{"a control character in a string", "{\"data\":{\"questions\":[\"a\nb\",1]}}",
			result{elements: []string{"1"}, there: true, odd: []string{"not well-formed: invalid character '\\n' in string literal | \"a\nb\""}}},
		{"nothing between commas", `{"data":{"questions":[,1, ,2,]}}`,
			result{elements: []string{"1", "2"}, there: true, odd: slices.Repeat([]string{"not well-formed: unexpected end of JSON input | "}, 3)}},
		{"deep", `{"data":{"questions":[` + deep(1000) + "," + deep(1001) + `,1]}}`,
			result{elements: []string{deep(1000), "1"}, there: true, odd: []string{"nested deeper than 1000 levels | " + deep(1001)}}},
		{"a deep member is left out", `{"a":1,"a":` + deep(1001) + `,"b":` + deep(1000) + `}`, result{members: m{"b": deep(1000)}}},
		{"a long member is left out", `{"a":"` + strings.Repeat("x", 64<<10) + `","b":"` + strings.Repeat("x", 64<<10-2) + `"}`,
			result{members: m{"b": `"` + strings.Repeat("x", 64<<10-2) + `"`}}},
		{"the last one counts though it is left out", `{"error":false,"error":"` + strings.Repeat("x", 64<<10) + `"}`, result{}},
		{"a long name is left out", `{"` + strings.Repeat("x", 2000) + `":1,"b":2}`, result{members: m{"b": "2"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want.members == nil {
				tt.want.members = m{}
			}
			for name, r := range map[string]io.Reader{"at once": strings.NewReader(tt.body), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.body)),
				"the end with the data": iotest.DataErrReader(strings.NewReader(tt.body))} {
				same(t, name, read(r, jsonlist.List{Path: path}), tt.want)
			}
		})
	}
}

// same compares two readings; of errors only whether there is one, and its text.
func same(t *testing.T, name string, got, want result) {
	t.Helper()
	if fmt.Sprint(got.err) != fmt.Sprint(want.err) || !slices.Equal(got.elements, want.elements) || !slices.Equal(got.odd, want.odd) ||
		!maps.Equal(got.members, want.members) || got.there != want.there || got.null != want.null {
		t.Errorf("%s: got\n%.2000q\nexpected\n%.2000q", name, fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want))
	}
}

// TestNoAnswers: what is no answer says so, and shows little of what it is.
func TestNoAnswers(t *testing.T) {
	for _, tt := range []struct{ body, want string }{ // want: the whole error
		{"", "the answer is empty"},
		{" \n", "the answer is empty"},
		{"\xef\xbb\xbf", "the answer is empty"},
		{"\xef\xbb", `the answer is no JSON object: it begins with "\xef\xbb"`},
		{"null", `the answer is no JSON object: it begins with "null"`},
		{"[]", `the answer is no JSON object: it begins with "[]"`},
		{"7", `the answer is no JSON object: it begins with "7"`},
		{`"x"`, `the answer is no JSON object: it begins with "\"x\""`},
		{"  <html><body>secret", `the answer is no JSON object: it begins with "<html><bod"`},
		{"\xff\x00\x1f\x8b", `the answer is no JSON object: it begins with "\xff\x00\x1f\x8b"`},
		{`{"data":{"questions":{}}}`, `data.questions is no array: it begins with "{}"`},
		{`{"data":{"questions":"abcdefghijklmnop"}}`, `data.questions is no array: it begins with "\"abcdefghi"`},
		{`{"data":{"questions":nullnull}}`, `data.questions is no array: it begins with "nullnull"`},
		{`{"data":{"questions":}}`, `data.questions is no array: it begins with ""`},
		{`{}x`, `the answer goes on behind its end, at byte 2, with "x"`},
		{`{"data":{"questions":[1]}} {"data":{"questions":[2]}}`, `the answer goes on behind its end, at byte 27, with "{\"data\":{\""`},
		{`{"data":{"questions":[1}}`, `the answer is not well-formed at byte 23: "}}" where one of ",]" should be`},
		{`{"data":{"questions":[{"a":[1},{"b":{2]}]}}`, `the answer is not well-formed at byte 29: "},{\"b\":{2]" where the other closing bracket should be`},
		{`{"data":{"questions":[1]]}`, `the answer is not well-formed at byte 24: "]}" where one of ",}" should be`},
		{`{"data" {}}`, `the answer is not well-formed at byte 8: "{}}" where one of ":" should be`},
		{`{data:1}`, `the answer is not well-formed at byte 1: "data:1}" where the name of a member should be`},
		{`{"a":1,}`, `the answer is not well-formed at byte 7: "}" where the name of a member should be`},
		{`{,"a":1}`, `the answer is not well-formed at byte 1: ",\"a\":1}" where the name of a member should be`},
		{`{"a":1 "b":2}`, `the value of "a", which ends at byte 12: invalid character '"' after top-level value`},
		{`{"error":tru}`, `the value of "error", which ends at byte 12: invalid character ' ' in literal true (expecting 'e')`},
		{`{"error":}`, `the value of "error", which ends at byte 9: unexpected end of JSON input`},
		{`{"\x":1}`, `the name of a member that ends at byte 5: invalid character 'x' in string escape code`},
	} {
		for name, r := range map[string]io.Reader{"at once": strings.NewReader(tt.body), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.body))} {
			if got := read(r, jsonlist.List{Path: path}); got.err == nil || got.err.Error() != tt.want {
				t.Errorf("%.40q, %s: got\n%v\nexpected\n%s", tt.body, name, got.err, tt.want)
			}
		}
	}
}

const sample = "\xef\xbb\xbf" + ` {"error":false,"data":{"n":[1,{"a":"\"]"}],"questions":[{"id":"a","t":"x\\"} , 12, "z\u0041" ],"m":null},"e":{"x":[]}}`

// TestCutShort: at every byte, and also where all elements are there already.
func TestCutShort(t *testing.T) {
	if got := readAll(sample); got.err != nil || len(got.elements) != 3 {
		t.Fatalf("the whole: %+v", got)
	}
	for n := range len(sample) {
		got := readAll(sample[:n])
		if got.err == nil {
			t.Errorf("cut after %d bytes, %q: no error", n, sample[:n])
		}
		if n > 4 && !errors.Is(got.err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d bytes: %v", n, got.err)
		}
		if want := min(len(got.elements), 3); !slices.Equal(got.elements, []string{`{"id":"a","t":"x\\"}`, "12", `"z\u0041"`}[:want]) {
			t.Errorf("cut after %d bytes: elements %q", n, got.elements)
		}
	}
}

// TestReadErrors come out as they are, wherever the stream breaks: also behind the
// end of the object, for nobody knows what would have followed.
func TestReadErrors(t *testing.T) {
	broken := errors.New("connection reset")
	for n := range len(sample) + 1 {
		got := read(io.MultiReader(strings.NewReader(sample[:n]), iotest.ErrReader(broken)), jsonlist.List{Path: path})
		if !errors.Is(got.err, broken) {
			t.Errorf("broken after %d bytes: %v", n, got.err)
		}
	}
	if got := read(idle{}, jsonlist.List{Path: path}); !errors.Is(got.err, io.ErrNoProgress) {
		t.Errorf("a reader that gives nothing: %v", got.err)
	}
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

// TestEachEnds: its error ends the reading, and is the error.
func TestEachEnds(t *testing.T) {
	stop := errors.New("enough")
	n := 0
	_, err := jsonlist.Read(strings.NewReader(`{"claims":[1,2,3]}`), jsonlist.List{Path: []string{"claims"}, Each: func([]byte) error {
		if n++; n == 2 {
			return stop
		}
		return nil
	}})
	if err != stop || n != 2 {
		t.Errorf("%d elements, %v", n, err)
	}
	for _, p := range [][]string{nil, {"a", "b", "c"}} {
		if _, err := jsonlist.Read(strings.NewReader(`{}`), jsonlist.List{Path: p}); err == nil {
			t.Errorf("a path of %d names is accepted", len(p))
		}
	}
}

// TestLongElements cost only themselves, whatever they are.
func TestLongElements(t *testing.T) {
	fits := `"` + strings.Repeat("x", 98) + `"`
	for _, long := range []string{`"` + strings.Repeat("x", 99) + `"`, `{"a":[` + strings.Repeat(`"],}\"",`, 10_000) + `0]}`, strings.Repeat("7", 1<<20),
		strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000), `"` + strings.Repeat(`\\`, 5000) + `"`, `"` + strings.Repeat(` `, 5000) + `"`} {
		body := `{"claims":[` + fits + strings.Repeat(" ", 1000) + "," + long + "," + fits + `],"total":3}`
		got := read(strings.NewReader(body), jsonlist.List{Path: []string{"claims"}, MaxElement: 100})
		want := result{elements: []string{fits, fits}, there: true, members: map[string]string{"total": "3"}, odd: []string{"longer than 100 bytes | " + long[:100]}}
		same(t, long[:10], got, want)
	}
	long := `"` + strings.Repeat("x", 1<<20-1) + `"`
	got := read(strings.NewReader(`{"claims":[`+long+`,`+long[1:]+`]}`), jsonlist.List{Path: []string{"claims"}})
	if got.err == nil { // the second one has a quote too few
		t.Error("a string without an end is accepted")
	}
	if want := "longer than 1048576 bytes | " + long[:4096]; len(got.odd) != 1 || got.odd[0] != want {
		t.Errorf("got %d odd ones, expected the beginning of one", len(got.odd))
	}
}

// TestManyMembers: what is kept is bounded, and what was kept may still change.
func TestManyMembers(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"claims":[1]`)
	for i := range 1000 {
		fmt.Fprintf(&b, `,"m%d":%d`, i, i)
	}
	b.WriteString(`,"m0":"last"}`)
	got := read(strings.NewReader(b.String()), jsonlist.List{Path: []string{"claims"}})
	if got.err != nil || len(got.members) != 256 || got.members["m0"] != `"last"` || got.members["m255"] != "255" {
		t.Errorf("%d members, m0 %s, %v", len(got.members), got.members["m0"], got.err)
	}
}
