// Package listing reads what marketplaces list: one request to a listing method, its
// entries as items, and the fields of an entry that give it identity and time.
//
// Items go out as they came: of an entry only a few fields are read, and every one
// of them may be missing, null or of another type. What is no item costs only
// itself.
package listing

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"syncd/internal/rawjson"
	"syncd/internal/sources"
)

// Fields are the members of a JSON object by their exact names. encoding/json
// would match struct fields in any case, and an `ID` that appears beside an `id`
// some day must not take over its identity.
//
// The methods read one field and never fail: a field that is missing, null or of
// another type is simply not there. The item goes out as it came either way.
type Fields map[string]json.RawMessage

// Object reads a JSON object; anything else has no fields. They are parts of raw.
func Object(raw json.RawMessage) Fields {
	var room [64]rawjson.Node
	text, ok := rawjson.Read(raw, room[:0])
	if !ok || text.Kind(0) != '{' {
		return nil
	}
	return fields(text)
}

// fields are the members of the object that text is.
func fields(text rawjson.Text) Fields {
	n := 0
	for at := 1; at < len(text.Nodes); at = int(text.Nodes[at+1].After) {
		n++
	}
	f := make(Fields, n)
	for at := 1; at < len(text.Nodes); at = int(text.Nodes[at+1].After) {
		value := text.Bytes(at + 1)
		f[string(rawjson.Unquote(text.Bytes(at)))] = slices.Clip(value) // whoever appends to it must not write into raw
	}
	return f
}

// Text is a string, or a number's spelling: ids have changed type before.
func (f Fields) Text(name string) string {
	raw := f[name]
	if len(raw) == 0 {
		return ""
	}
	if c := raw[0]; c == '-' || c >= '0' && c <= '9' {
		return string(raw)
	}
	if raw[0] != '"' {
		return ""
	}
	return string(rawjson.Unquote(raw))
}

// Whole is an integer, as a number or as text; 0 if there is none.
func (f Fields) Whole(name string) int64 {
	s := f.Text(name)
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n
	}
	if x, err := strconv.ParseFloat(s, 64); err == nil && x > -1e15 && x < 1e15 {
		return int64(x) // 1.698045576e12 is how some encoders spell it
	}
	return 0
}

// Instant is an RFC 3339 time with up to nine fraction digits and any offset; zero
// if there is none.
func (f Fields) Instant(name string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, f.Text(name))
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// Oldest is before anything the marketplace can hold: it opened in 2004.
var Oldest = time.Date(2004, 1, 1, 0, 0, 0, 0, time.UTC)

// Plausible returns t if it can be the time of an item read at now, else zero. An
// item that claims to come from next year must not drag a cursor there.
func Plausible(t, now time.Time) time.Time {
	if t.Before(Oldest) || t.After(now.Add(time.Hour)) {
		return time.Time{}
	}
	return t
}

// Clock is what a reading takes for the present: our clock or the marketplace's,
// whichever is ahead. Either may be wrong; one that is behind must not make
// today's items look as if they came from the future.
func Clock(ours, theirs time.Time) time.Time {
	if theirs.After(ours) {
		return theirs
	}
	return ours
}

// MaxID bounds an id that the marketplace sends: its own are under 80 bytes.
const MaxID = 512

// CheckID says why id cannot name an item; nil if it can.
func CheckID(name, id string) error {
	switch {
	case id == "":
		return fmt.Errorf("%s is missing, empty or neither text nor number", name)
	case len(id) > MaxID:
		return fmt.Errorf("%s has %d bytes, more than %d", name, len(id), MaxID)
	}
	return nil
}

// Decode returns an item's compacted body, which may be raw itself, and its fields,
// which are parts of the body.
//
// Compacted, the white space between tokens is gone and nothing else: key order,
// number spelling and string escapes stay. Bytes that are no UTF-8, which JSON
// forbids, become U+FFFD, or every receiver would choke on them.
func Decode(raw json.RawMessage) (json.RawMessage, Fields, error) {
	var room [64]rawjson.Node
	text, ok := rawjson.Read(raw, room[:0])
	if !ok || text.Spaced || !utf8.Valid(raw) {
		var b bytes.Buffer
		if err := json.Compact(&b, raw); err != nil {
			return nil, nil, err
		}
		if text, ok = rawjson.Read(bytes.ToValidUTF8(b.Bytes(), []byte("\uFFFD")), room[:0]); !ok {
			return nil, nil, errors.New("too long")
		}
	}
	if text.Kind(0) != '{' {
		return nil, nil, errors.New("not a JSON object")
	}
	return text.Raw, fields(text), nil
}

// DecodeNamed reads an item that one field names, and that is about itself. Its
// times are the caller's to add.
func DecodeNamed(raw json.RawMessage, kind, name string) (sources.Item, Fields, error) {
	body, f, err := Decode(raw)
	if err != nil {
		return sources.Item{}, nil, err
	}
	id := f.Text(name)
	if err := CheckID(name, id); err != nil {
		return sources.Item{}, nil, err
	}
	return sources.Item{Kind: kind, ID: []string{id}, Subject: []string{kind, id}, Body: body}, f, nil
}
