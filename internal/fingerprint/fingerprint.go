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
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"syncd/internal/event"
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
	h := sha256.New()
	for _, k := range slices.Compact(slices.Sorted(slices.Values(ignore))) {
		writeText(h, 'k', k)
	}
	return fmt.Sprintf("%s-%x", rules, h.Sum(nil)[:8])
}

// Of returns the fingerprint of body. ignore lists top-level keys whose change is
// no news.
func Of(body json.RawMessage, ignore []string) (event.Fingerprint, error) {
	v, err := decode(body, ignore)
	if err != nil {
		return event.Fingerprint{}, err
	}
	h := sha256.New()
	write(h, v)
	var f event.Fingerprint
	copy(f[:], h.Sum(nil))
	return f, nil
}

// decode reads a body without the ignored keys of its top level. Numbers keep
// their spelling.
func decode(body json.RawMessage, ignore []string) (any, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("fingerprint: %w", err)
	}
	if m, ok := v.(map[string]any); ok {
		for _, key := range ignore {
			delete(m, key)
		}
	}
	return v, nil
}

// write hashes v. Each value begins with a byte for its type, and with a length
// where it has one, so that no two values give the same stream.
func write(h hash.Hash, v any) {
	switch v := v.(type) {
	case nil:
		h.Write([]byte{'n'})
	case bool:
		h.Write([]byte{'b', strconv.FormatBool(v)[0]})
	case json.Number:
		writeText(h, '0', number(string(v)))
	case string:
		writeText(h, 's', withoutQuery(v))
	case []any:
		writeLength(h, 'a', len(v))
		for _, e := range v {
			write(h, e)
		}
	case map[string]any:
		writeLength(h, 'o', len(v))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			writeText(h, 'k', k)
			write(h, v[k])
		}
	}
}

func writeLength(h hash.Hash, kind byte, n int) {
	var b [9]byte
	b[0] = kind
	binary.BigEndian.PutUint64(b[1:], uint64(n))
	h.Write(b[:])
}

func writeText(h hash.Hash, kind byte, s string) {
	writeLength(h, kind, len(s))
	h.Write([]byte(s))
}

// maxExponent is how many digits of an exponent are understood. A number beyond
// is compared as it is spelt: it means nothing, and must cost nothing.
const maxExponent = 100

// number spells a JSON number in one way: sign, digits without zeros at either
// end, and an exponent. It works on the text, since no digit may be lost to a
// float.
func number(s string) string {
	abs, negative := strings.CutPrefix(s, "-")
	mantissa, exponent, _ := strings.Cut(strings.ToLower(abs), "e")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	if digits == "" {
		return "0"
	}
	if len(exponent) > maxExponent {
		return s
	}
	trimmed := strings.TrimRight(digits, "0")
	e := big.NewInt(int64(len(digits) - len(trimmed) - len(fraction)))
	if exponent != "" {
		given, _ := new(big.Int).SetString(strings.TrimPrefix(exponent, "+"), 10) // JSON has only digits here
		e.Add(e, given)
	}
	out := trimmed + "e" + e.String()
	if negative {
		return "-" + out
	}
	return out
}

// withoutQuery cuts the query and fragment off a string that is a URL as a whole,
// with or without a scheme.
func withoutQuery(s string) string {
	if !strings.HasPrefix(s, "https://") && !strings.HasPrefix(s, "http://") && !strings.HasPrefix(s, "//") || strings.ContainsAny(s, " \t\r\n") {
		return s
	}
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		return s[:i]
	}
	return s
}
