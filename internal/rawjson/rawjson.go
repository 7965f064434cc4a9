// Package rawjson tells what a JSON text is made of, without decoding it: where its
// values are, and that all of it is well-formed. It takes and refuses what
// encoding/json does, several times as fast and without memory for the values.
//
// Bytes that are no UTF-8 are let through inside of strings, as encoding/json does.
// It does no I/O and keeps nothing.
package rawjson

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"math/bits"
	"unicode/utf8"
)

// maxDepth is how deep a value may be nested: encoding/json's own limit.
const maxDepth = 10_000

// Node is a value, or the name of a member: raw[Start:End]. The first byte tells
// which sort of value. What an object or array holds comes right behind it, the name
// of each member before its value, up to the node with the index After.
type Node struct{ Start, End, After int32 }

// Text is one JSON text that was read.
type Text struct {
	Raw   []byte
	Nodes []Node // the first is the whole value
	// Spaced says that there is white space between tokens, or around them.
	Spaced bool
}

// Read reads raw, which is one JSON value with nothing but white space around it;
// false: it is not, or is longer than 2 GiB. Nodes are appended to room, so that a
// caller who has some makes no garbage. The text refers to raw.
func Read(raw []byte, room []Node) (Text, bool) {
	if len(raw) > math.MaxInt32 {
		return Text{}, false
	}
	s := scan{b: raw, nodes: room[:0], keep: true}
	ok := s.whole()
	return Text{Raw: raw, Nodes: s.nodes, Spaced: s.spaced}, ok
}

// Valid is encoding/json's.
func Valid(raw []byte) bool {
	s := scan{b: raw}
	return s.whole()
}

// Bytes are those of a node.
func (t Text) Bytes(i int) []byte { return t.Raw[t.Nodes[i].Start:t.Nodes[i].End] }

// Kind is the first byte of a node: { [ " t f n, or that of a number.
func (t Text) Kind(i int) byte { return t.Raw[t.Nodes[i].Start] }

// Unquote returns the text of a string, quotes included in quoted, which must be
// well-formed. As in encoding/json, what is no UTF-8 or half of a pair of surrogates
// becomes U+FFFD. The result may be a part of quoted.
func Unquote(quoted []byte) []byte {
	inside := quoted[1 : len(quoted)-1]
	for i, c := range inside {
		if c != '\\' && c < utf8.RuneSelf {
			continue
		}
		if bytes.IndexByte(inside[i:], '\\') < 0 && utf8.Valid(inside[i:]) {
			break
		}
		var s string
		_ = json.Unmarshal(quoted, &s)
		return []byte(s)
	}
	return inside
}

// scan is a text that is being read. i is the next byte.
type scan struct {
	b      []byte
	i      int
	nodes  []Node
	keep   bool
	spaced bool
}

func (s *scan) whole() bool {
	s.space()
	if !s.value(0) {
		return false
	}
	s.space()
	return s.i == len(s.b)
}

// space skips white space, and returns the byte behind it; 0 at the end, which
// stands nowhere in JSON.
func (s *scan) space() byte {
	for s.i < len(s.b) {
		switch c := s.b[s.i]; c {
		case ' ', '\t', '\r', '\n':
			s.spaced = true
			s.i++
		default:
			return c
		}
	}
	return 0
}

// value reads the value that begins at the next byte.
func (s *scan) value(depth int) bool {
	if s.i == len(s.b) {
		return false
	}
	at, start := len(s.nodes), s.i
	if s.keep {
		s.nodes = append(s.nodes, Node{})
	}
	var ok bool
	switch s.b[s.i] {
	case '{':
		ok = depth < maxDepth && s.holds('}', depth+1)
	case '[':
		ok = depth < maxDepth && s.holds(']', depth+1)
	case '"':
		ok = s.text()
	case 't':
		ok = s.word("true")
	case 'f':
		ok = s.word("false")
	case 'n':
		ok = s.word("null")
	default:
		ok = s.number()
	}
	if s.keep {
		s.nodes[at] = Node{int32(start), int32(s.i), int32(len(s.nodes))}
	}
	return ok
}

// holds reads what an object or an array holds, up to its end. It recurses as deep as
// the text, up to maxDepth.
func (s *scan) holds(end byte, depth int) bool {
	s.i++
	if s.space() == end {
		s.i++
		return true
	}
	for {
		if c := s.space(); end == '}' && (c != '"' || !s.name()) || !s.value(depth) {
			return false
		}
		switch s.space() {
		case ',':
			s.i++
		case end:
			s.i++
			return true
		default:
			return false
		}
	}
}

// name reads the name of a member, whose quote is the next byte, and on to its value.
func (s *scan) name() bool {
	start := s.i
	if !s.text() {
		return false
	}
	if s.keep {
		s.nodes = append(s.nodes, Node{int32(start), int32(s.i), int32(len(s.nodes) + 1)})
	}
	if s.space() != ':' {
		return false
	}
	s.i++
	s.space()
	return true
}

// text reads the string whose opening quote is the next byte.
func (s *scan) text() bool {
	s.i++
	for {
		for s.i+8 <= len(s.b) {
			n := plain(binary.LittleEndian.Uint64(s.b[s.i:]))
			s.i += n
			if n < 8 {
				break
			}
		}
		if s.i == len(s.b) {
			return false
		}
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return true
		case c == '\\':
			if !s.escape() {
				return false
			}
		case c < ' ':
			return false
		default:
			s.i++
		}
	}
}

// plain is how many of the eight bytes of v, the lowest first, come before the first
// that is a quote, a backslash or a control character.
func plain(v uint64) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	quote, slash := v^ones*'"', v^ones*'\\'
	// Of each byte the highest bit, where it was below a bound and is not above 0x7f.
	// A borrow can only spoil bits above the first that is set rightly.
	found := ((v-ones*' ')&^v | (quote-ones)&^quote | (slash-ones)&^slash) & highs
	return bits.TrailingZeros64(found) / 8
}

func (s *scan) escape() bool {
	rest := s.b[s.i+1:]
	if len(rest) == 0 {
		return false
	}
	switch rest[0] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.i += 2
		return true
	case 'u':
		if len(rest) < 5 {
			return false
		}
		for _, c := range rest[1:5] {
			if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
				return false
			}
		}
		s.i += 6
		return true
	}
	return false
}

func (s *scan) word(w string) bool {
	if len(s.b)-s.i < len(w) || string(s.b[s.i:s.i+len(w)]) != w {
		return false
	}
	s.i += len(w)
	return true
}

func (s *scan) number() bool {
	if s.at('-') {
		s.i++
	}
	if s.at('0') {
		s.i++
	} else if !s.digits() {
		return false
	}
	if s.at('.') {
		s.i++
		if !s.digits() {
			return false
		}
	}
	if s.at('e') || s.at('E') {
		s.i++
		if s.at('+') || s.at('-') {
			s.i++
		}
		return s.digits()
	}
	return true
}

func (s *scan) at(c byte) bool { return s.i < len(s.b) && s.b[s.i] == c }

// digits reads at least one.
func (s *scan) digits() bool {
	start := s.i
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i > start
}
