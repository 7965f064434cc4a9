// Package fingerprint tells whether two readings of an item mean the same.
//
// A fingerprint covers the meaning of a JSON value and not its noise: the order
// of keys, white space, the spelling of numbers and of strings, and the query
// strings of URLs (signatures and expiry times of photo links) make no
// difference. null is not the same as an absent key. Grown tells apart whether a
// difference is one of meaning or only of keys that one of the readings has not.
// It does no I/O.
package fingerprint

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"sync"

	"syncd/internal/event"
	"syncd/internal/rawjson"
)

// Rules is the version of the rules below. Records remember the version they
// were made by, so that a change of the rules emits nothing by itself: a record
// of other rules is compared anew from its body. See RulesOf.
const Rules = 1

// RulesOf names the rules under which the items of a stream are fingerprinted
// that ignores these keys: Rules, and what stands for the list if there is one.
// Neither order nor repetition in the list makes other rules.
func RulesOf(ignore []string) string {
	rules := strconv.Itoa(Rules)
	if len(ignore) == 0 {
		return rules
	}
	h := borrow()
	defer h.giveBack()
	for _, k := range slices.Compact(slices.Sorted(slices.Values(ignore))) {
		h.bytes('k', []byte(k))
	}
	return fmt.Sprintf("%s-%s", rules, h.sum())
}

// Of returns the fingerprint of body. ignore lists top-level keys whose change is
// no news.
func Of(body json.RawMessage, ignore []string) (event.Fingerprint, error) {
	h := borrow()
	defer h.giveBack()
	var ok bool
	if h.text, ok = rawjson.Read(body, h.text.Nodes); !ok {
		var v any
		return event.Fingerprint{}, fmt.Errorf("fingerprint: %w", cmp.Or(json.Unmarshal(body, &v), errors.New("too long")))
	}
	h.ignore = ignore
	h.value(0)
	return h.sum(), nil
}

// hasher hashes a JSON value as a stream in which each value begins with a byte for
// its type, and with a length where it has one, so that no two values give the same.
type hasher struct {
	text    rawjson.Text
	ignore  []string // of the whole value's names
	hash    hash.Hash
	stream  []byte   // what is not in hash yet
	members []member // of the objects on the way down to here, those of each in a row
	number  []byte   // room for one, and for the sum
}

// hashers are used again with the memory that they have: it would be most of the
// garbage of a page.
var hashers = sync.Pool{New: func() any { return &hasher{hash: sha256.New()} }}

func borrow() *hasher { return hashers.Get().(*hasher) }

// mostNodes and mostText bound what a hasher may have room for that is used again: a
// body of a megabyte is rare, and must not cost its memory for ever.
const (
	mostNodes = 4 << 10
	mostText  = 64 << 10 // bytes
)

func (h *hasher) giveBack() {
	if cap(h.text.Nodes) > mostNodes || cap(h.stream) > mostText {
		return
	}
	clear(h.members[:cap(h.members)]) // they refer to the body
	h.hash.Reset()
	*h = hasher{text: rawjson.Text{Nodes: h.text.Nodes[:0]}, hash: h.hash, stream: h.stream[:0], members: h.members[:0], number: h.number[:0]}
	hashers.Put(h)
}

// member is the name, without quotes and escapes, and the node of a value.
type member struct {
	name  []byte
	value int
}

// mostStream is from how many bytes on the stream goes into the hash.
const mostStream = 1 << 10

// value recurses as deep as the values are nested, which is at most 10,000 levels:
// rawjson refuses more.
func (h *hasher) value(i int) {
	switch c := h.text.Kind(i); c {
	case 'n':
		h.stream = append(h.stream, 'n')
	case 't', 'f':
		h.stream = append(h.stream, 'b', c)
	case '"':
		h.bytes('s', withoutQuery(rawjson.Unquote(h.text.Bytes(i))))
	case '[':
		n, end := 0, int(h.text.Nodes[i].After)
		for at := i + 1; at < end; at = int(h.text.Nodes[at].After) {
			n++
		}
		h.length('a', n)
		for at := i + 1; at < end; at = int(h.text.Nodes[at].After) {
			h.value(at)
		}
	case '{':
		h.object(i)
	default:
		h.number = appendNumber(h.number[:0], h.text.Bytes(i))
		h.bytes('0', h.number)
	}
}

// object hashes the members in the order of their names. Of those that have the same
// name the last one counts, as in encoding/json.
func (h *hasher) object(i int) {
	from, end := len(h.members), int(h.text.Nodes[i].After)
	for at := i + 1; at < end; at = int(h.text.Nodes[at+1].After) {
		name := rawjson.Unquote(h.text.Bytes(at))
		if i == 0 && slices.ContainsFunc(h.ignore, func(key string) bool { return key == string(name) }) {
			continue
		}
		h.members = append(h.members, member{name, at + 1})
	}
	own := h.members[from:]
	slices.SortFunc(own, func(a, b member) int { return cmp.Or(bytes.Compare(a.name, b.name), cmp.Compare(b.value, a.value)) })
	own = slices.CompactFunc(own, func(a, b member) bool { return bytes.Equal(a.name, b.name) })
	h.members = h.members[:from+len(own)]
	h.length('o', len(own))
	for k := range own { // what is below may move the slice, and leaves these as they are
		m := h.members[from+k]
		h.bytes('k', m.name)
		h.value(m.value)
	}
	h.members = h.members[:from]
}

func (h *hasher) length(kind byte, n int) {
	if len(h.stream) > mostStream {
		h.hash.Write(h.stream)
		h.stream = h.stream[:0]
	}
	h.stream = binary.BigEndian.AppendUint64(append(h.stream, kind), uint64(n))
}

// sum is the fingerprint of all that was hashed.
func (h *hasher) sum() event.Fingerprint {
	h.hash.Write(h.stream)
	h.number = h.hash.Sum(h.number[:0])
	return event.Fingerprint(h.number[:8])
}

func (h *hasher) bytes(kind byte, b []byte) {
	h.length(kind, len(b))
	h.stream = append(h.stream, b...)
}

// maxExponent is how many digits of an exponent are understood. A number beyond
// is compared as it is spelt: it means nothing, and must cost nothing.
const maxExponent = 100

// appendNumber spells a JSON number in one way: sign, digits without zeros at either
// end, and an exponent. It works on the text, since no digit may be lost to a float.
func appendNumber(dst, s []byte) []byte {
	abs, negative := bytes.CutPrefix(s, []byte("-"))
	mantissa, exponent := abs, []byte(nil)
	if i := bytes.IndexAny(abs, "eE"); i >= 0 {
		mantissa, exponent = abs[:i], abs[i+1:]
	}
	whole, fraction, _ := bytes.Cut(mantissa, []byte("."))
	digits := fraction
	if string(whole) == "0" {
		whole, digits = nil, bytes.TrimLeft(fraction, "0")
	}
	if len(whole)+len(digits) == 0 {
		return append(dst, '0')
	}
	if len(exponent) > maxExponent {
		return append(dst, s...)
	}
	if negative {
		dst = append(dst, '-')
	}
	dst = append(append(dst, whole...), digits...)
	all := len(dst)
	for dst[len(dst)-1] == '0' { // not all of them are
		dst = dst[:len(dst)-1]
	}
	e := int64(all - len(dst) - len(fraction))
	dst = append(dst, 'e')
	if len(exponent) < 18 {
		if len(exponent) > 0 {
			given, _ := strconv.ParseInt(string(exponent), 10, 64) // JSON has only digits here
			e += given
		}
		return strconv.AppendInt(dst, e, 10)
	}
	given, _ := new(big.Int).SetString(strings.TrimPrefix(string(exponent), "+"), 10)
	return given.Add(given, big.NewInt(e)).Append(dst, 10)
}

// withoutQuery cuts the query and fragment off a string that is a URL as a whole,
// with or without a scheme.
func withoutQuery(s []byte) []byte {
	if !bytes.HasPrefix(s, []byte("https://")) && !bytes.HasPrefix(s, []byte("http://")) && !bytes.HasPrefix(s, []byte("//")) || bytes.ContainsAny(s, " \t\r\n") {
		return s
	}
	if i := bytes.IndexAny(s, "?#"); i >= 0 {
		return s[:i]
	}
	return s
}
