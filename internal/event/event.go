// Package event is the envelope that leaves syncd: a CloudEvents 1.0 event in
// the JSON format, on one line, together with the identifiers in it.
//
// It guarantees that the same version of an item always renders the same id,
// that data.item and data.previous leave byte for byte as they were handed in,
// and that a line written by AppendJSON is read back by ParseHeader without
// decoding the data. It imports nothing of ours and does no I/O.
package event

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Actions: the last part of an event's type.
const (
	Created = "created"
	Updated = "updated"
	Removed = "removed"
)

// SchemaChanged is the type of the one event that is about no item: the
// marketplace has added or dropped a key in the items of a stream.
const SchemaChanged = "syncd.schema_changed"

// Fingerprint is what a version of an item means, without its noise; it is
// written as 16 hexadecimal digits.
type Fingerprint [8]byte

// String returns the 16 hexadecimal digits of f.
func (f Fingerprint) String() string {
	var room [16]byte
	return string(hex.AppendEncode(room[:0], f[:]))
}

// Event is one event before it is rendered. Item and Previous are JSON values
// without insignificant white space, Schema.Path is any text; everything else is
// plain text in the alphabets that the functions of this package produce.
type Event struct {
	ID           string
	Source       string
	Type         string
	Subject      string
	Time         time.Time // when it happened by the marketplace's clock
	Recorded     time.Time // when syncd committed it; rendered in milliseconds
	Sequence     uint64    // position in the event log
	PartitionKey string    // the unit of order: account + subject
	Backfill     bool
	Item         json.RawMessage
	Previous     json.RawMessage // nil unless the type ends in .updated
	Schema       *SchemaChange   // with the type SchemaChanged, in place of Item
}

// SchemaChange is the data of a SchemaChanged event.
type SchemaChange struct {
	Account, Stream string
	Path            string // of the key that came or went
	Count           uint64 // of the items in which it did
}

const (
	recordedLayout    = "2006-01-02T15:04:05.000Z07:00"
	backfillAttribute = `,"backfill":true`
	beforeData        = `,"datacontenttype":"application/json","data":{`
	itemData          = `"item":`
	schemaData        = `"account":"`
)

// AppendJSON appends e as one line of JSON, without the newline. The order of
// the attributes is fixed and data comes last: ParseHeader relies on it.
func (e *Event) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"specversion":"1.0","id":"`...)
	dst = append(dst, e.ID...)
	dst = append(dst, `","source":"`...)
	dst = append(dst, e.Source...)
	dst = append(dst, `","type":"`...)
	dst = append(dst, e.Type...)
	dst = append(dst, `","subject":"`...)
	dst = append(dst, e.Subject...)
	dst = append(dst, `","time":"`...)
	dst = e.Time.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, `","recordedtime":"`...)
	dst = e.Recorded.UTC().AppendFormat(dst, recordedLayout)
	dst = append(dst, `","sequence":"`...)
	dst = appendSequence(dst, e.Sequence)
	dst = append(dst, `","partitionkey":"`...)
	dst = append(dst, e.PartitionKey...)
	dst = append(dst, '"')
	if e.Backfill {
		dst = append(dst, backfillAttribute...)
	}
	dst = append(dst, beforeData...)
	if e.Schema != nil {
		return e.Schema.append(dst)
	}
	dst = append(dst, itemData...)
	dst = append(dst, e.Item...)
	if e.Previous != nil {
		dst = append(dst, `,"previous":`...)
		dst = append(dst, e.Previous...)
	}
	return append(dst, "}}"...)
}

// append renders the data of a schema change, and the end of its event.
func (s *SchemaChange) append(dst []byte) []byte {
	path, err := json.Marshal(s.Path)
	if err != nil {
		panic(err) // a string
	}
	dst = append(dst, schemaData...)
	dst = append(dst, s.Account...)
	dst = append(dst, `","stream":"`...)
	dst = append(dst, s.Stream...)
	dst = append(dst, `","path":`...)
	dst = append(dst, path...)
	dst = append(dst, `,"count":`...)
	dst = strconv.AppendUint(dst, s.Count, 10)
	return append(dst, "}}"...)
}

// appendSequence renders n with 20 digits, as many as the largest uint64 has,
// so that sequences sort as text too.
func appendSequence(dst []byte, n uint64) []byte {
	var room [20]byte
	s := strconv.AppendUint(room[:0], n, 10)
	dst = append(dst, "00000000000000000000"[:20-len(s)]...)
	return append(dst, s...)
}

// Header is what delivery needs to know of an event without decoding its data.
type Header struct {
	ID           string
	Account      string // first part of ID
	Stream       string // second part of ID
	Type         string
	Subject      string
	Recorded     time.Time
	Sequence     uint64
	PartitionKey string
	Backfill     bool
}

// Logged is one event as the log keeps it: its header, and the line that every
// sink sends unchanged.
type Logged struct {
	Header
	JSON []byte
}

var errNotOurs = errors.New("not a line of syncd's event log")

// ParseHeader reads the attributes of a line that AppendJSON wrote. It looks no
// further than the attributes and allocates only the strings it returns. Any
// other line is an error, however valid its JSON.
func ParseHeader(line []byte) (Header, error) {
	var h Header
	rest, ok := bytes.CutPrefix(line, []byte(`{"specversion":"1.0"`))
	if !ok {
		return h, errNotOurs
	}
	a := attributes{rest: rest}
	h.ID = string(a.next("id"))
	a.next("source")
	h.Type = string(a.next("type"))
	subject := a.next("subject")
	a.next("time")
	recorded := a.next("recordedtime")
	sequence := a.next("sequence")
	h.PartitionKey = string(a.next("partitionkey"))
	if a.missing != "" {
		return h, fmt.Errorf("%w: no %s where it belongs", errNotOurs, a.missing)
	}
	rest, h.Backfill = bytes.CutPrefix(a.rest, []byte(backfillAttribute))
	rest, ok = bytes.CutPrefix(rest, []byte(beforeData))
	data := itemData
	if h.Type == SchemaChanged {
		data = schemaData
	}
	if !ok || !bytes.HasPrefix(rest, []byte(data)) {
		return h, fmt.Errorf("%w: no data where it belongs", errNotOurs)
	}
	var err error
	if h.Sequence, err = strconv.ParseUint(string(sequence), 10, 64); err != nil || len(sequence) != 20 {
		return h, fmt.Errorf("%w: sequence %q", errNotOurs, sequence)
	}
	// time.Parse is more lenient than AppendJSON: it takes other zones, and a
	// comma for the point.
	var again [len(recordedLayout)]byte
	h.Recorded, err = time.Parse(recordedLayout, string(recorded))
	if err != nil || !bytes.Equal(h.Recorded.UTC().AppendFormat(again[:0], recordedLayout), recorded) {
		return h, fmt.Errorf("%w: recordedtime %q", errNotOurs, recorded)
	}
	if h.Account, h.Stream, ok = strings.Cut(h.ID, "/"); !ok {
		return h, fmt.Errorf("%w: id %q has no account", errNotOurs, h.ID)
	}
	h.Stream, _, _ = strings.Cut(h.Stream, "/")
	if h.Subject, ok = strings.CutPrefix(h.PartitionKey, h.Account+"/"); !ok || h.Subject != string(subject) {
		h.Subject = string(subject) // no memory of its own else
	}
	return h, nil
}

// attributes are read one by one off the front of rest.
type attributes struct {
	rest    []byte
	missing string // the first attribute that was not there
}

// next cuts `,"name":"value"` off and returns the value. No value that
// AppendJSON writes holds a quote or a backslash.
func (a *attributes) next(name string) []byte {
	b := a.rest
	if a.missing == "" && len(b) > len(name)+5 && string(b[:2]) == `,"` && string(b[2:2+len(name)]) == name && string(b[2+len(name):5+len(name)]) == `":"` {
		b = b[5+len(name):]
		if i := bytes.IndexAny(b, `"\`); i >= 0 && b[i] == '"' {
			a.rest = b[i+1:]
			return b[:i]
		}
	}
	if a.missing == "" {
		a.missing = name
	}
	return nil
}
