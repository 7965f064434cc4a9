package listing_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"unicode/utf8"

	"syncd/internal/sources/listing"
)

var bodies = []string{
	`{"id":"q1","n":-1.50e3,"t":[true,null,{"a":""}],"answer":null}`, "{ \"id\" : \"q 1\" ,\n\t\"o\" : { \"x\" : [ 1 , 2 ] } }", ` {} `, `{"a":1,"a":2,"b\u0061":"\ud800\u00e9"}`,
	"{\"id\":\"\xff\xfe\",\"k\xff\":1}", `[1]`, `"text"`, `null`, ``, `{`, `{"a":1}x`, `{"a":[}]}`, `{"A":1,"a":{"A":2}}`, `{"":""}`,
}

// asJSON is Decode by encoding/json: the fields are members by their exact names.
func asJSON(raw []byte) (body []byte, fields map[string]json.RawMessage, ok bool) {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return nil, nil, false
	}
	body = bytes.ToValidUTF8(b.Bytes(), []byte("\uFFFD"))
	if body[0] != '{' || json.Unmarshal(body, &fields) != nil {
		return nil, nil, false
	}
	return body, fields, true
}

func checkDecode(t *testing.T, raw []byte) {
	t.Helper()
	sent := bytes.Clone(raw)
	want, wantFields, wantOK := asJSON(raw)
	body, fields, err := listing.Decode(raw)
	if (err == nil) != wantOK || !bytes.Equal(body, want) {
		t.Fatalf("%q: body %q and %v, want %q and %t", raw, body, err, want, wantOK)
	}
	same := func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }
	if !maps.EqualFunc(fields, wantFields, same) {
		t.Fatalf("%q: fields %q, want %q", raw, fields, wantFields)
	}
	if !utf8.Valid(body) {
		t.Fatalf("%q: the body is no UTF-8", body)
	}
	for name, value := range fields { // they are parts of the body, which goes out as it came
		_ = append(value, "overwritten"...)
		var text string
		if json.Unmarshal(value, &text) != nil && (value[0] == '-' || value[0] >= '0' && value[0] <= '9') {
			text = string(value)
		}
		if got := fields.Text(name); got != text {
			t.Fatalf("%q: the text of %s is %q, want %q", raw, name, got, text)
		}
	}
	if !bytes.Equal(body, want) || !bytes.Equal(raw, sent) {
		t.Fatalf("%q became %q by an append to one of its fields", sent, raw)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range bodies {
		f.Add([]byte(s))
	}
	f.Fuzz(checkDecode)
}

func TestObject(t *testing.T) {
	for _, s := range bodies {
		var want map[string]json.RawMessage
		if json.Unmarshal([]byte(s), &want) != nil {
			want = nil
		}
		if got := listing.Object(json.RawMessage(s)); !maps.EqualFunc(got, want, func(a, b json.RawMessage) bool { return bytes.Equal(a, b) }) {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

func TestKeysTellApart(t *testing.T) {
	seen := make(map[uint64][]string)
	for _, parts := range [][]string{{}, {""}, {"", ""}, {"a"}, {"a", ""}, {"", "a"}, {"a", "b"}, {"ab"}, {"1 a"}, {"a1 b"}} {
		k := listing.Key(parts...)
		if other, ok := seen[k]; ok {
			t.Errorf("%q and %q have one key", parts, other)
		}
		seen[k] = parts
	}
	// It is compared with what an earlier process has saved.
	if got := listing.Key("2ncBtX4B9I0UHoornoqG", "1"); got != 0xff5d1d553c08e1c1 {
		t.Errorf("the key has changed to %#x", got)
	}
}

func BenchmarkDecode(b *testing.B) {
	raw := json.RawMessage(`{"id":"2ncBtX4B9I0UHoornoqG","text":"` + strings.Repeat("Подойдёт ли к этой модели? ", 6) + `","createdDate":"2026-02-02T20:46:20Z",` +
		`"state":"suppliersPortalSynch","answer":null,"productDetails":{"imtId":11157265,"nmId":14917842,"productName":"Coffee","supplierArticle":"123401","brandName":"Nescafe"},` +
		`"wasViewed":false,"isWarned":false}`)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := listing.Decode(raw); err != nil {
			b.Fatal(err)
		}
	}
}
