// Package jsonlist reads the answer of a listing method: a JSON object that holds
// the items in an array and a few facts around it. It reads a stream, so that a
// page of 10 MB costs no more memory than its largest item at a time; what the
// caller keeps is the caller's.
//
// Everything is hostile until checked. An element that is damaged inside, too
// long or nested too deep costs only itself, as long as its end can be told: its
// brackets and strings have to balance. An answer that is no JSON object, is
// damaged around its elements, is cut short, or goes on behind its end is an
// error. Bytes that are no UTF-8 are let through inside of strings; the caller
// has to mend them.
package jsonlist

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"syncd/internal/rawjson"
)

// The bounds of what is kept of an answer.
const (
	defaultMaxElement = 1 << 20
	oddHead           = 4 << 10  // bytes that are kept of an element that is too long
	maxMember         = 64 << 10 // bytes of a member's value
	maxMembers        = 256
	maxName           = 1 << 10 // bytes of a member's name, quotes and escapes included
)

// List says what an answer looks like, and takes its parts.
type List struct {
	// Path is where the array is: {"data", "questions"} or {"claims"}. One or two
	// names, matched exactly, after their escapes were resolved.
	Path []string
	// MaxElement bounds one element, in bytes as sent; default 1 MiB.
	MaxElement int
	// Each gets the elements in their order, as they were sent, without the white
	// space around them. It owns raw. An error of its own ends the reading, and is
	// what Read returns.
	Each func(raw []byte) error
	// Odd gets what cannot be an element in its place: longer than MaxElement
	// (then raw is its first 4 KiB), nested deeper than 1,000 levels, or not
	// well-formed. It owns raw, which is no JSON as a rule.
	Odd func(raw []byte, reason string)
}

// Answer is what stands around the array.
type Answer struct {
	// Members are the other members by their path: "error", "data.countArchive". A
	// value of more than 64 KiB or 1,000 levels, and one whose name has more than
	// 1 KiB, is left out; so is whatever comes after 256 of them. What is left out
	// is checked for its brackets and strings alone.
	Members map[string]json.RawMessage
	// There says that the array was there; Null that null was in its place. Where
	// both are false nothing was.
	There, Null bool
}

// Read reads one answer to its end. Of a member that comes twice the last one
// counts. Of an array that comes twice all elements are read, and an object on
// the way to it that comes twice is read like one: nothing can be lost by that,
// and what is read twice is recognised.
//
// An error of r comes back wrapped. What was handed to Each and Odd before an
// error was not the whole answer.
func Read(r io.Reader, l List) (Answer, error) {
	if len(l.Path) < 1 || len(l.Path) > 2 {
		return Answer{}, fmt.Errorf("a list at a path of %d names cannot be read", len(l.Path))
	}
	if l.MaxElement == 0 {
		l.MaxElement = defaultMaxElement
	}
	d := document{scanner: scanner{r: r, buf: make([]byte, bufferSize)}, List: l, answer: Answer{Members: make(map[string]json.RawMessage)}}
	err := d.read()
	return d.answer, err
}

// document is one answer that is being read.
type document struct {
	scanner
	List
	answer Answer
	name   piece // of the member that is being read
	value  piece // the element or the member's value that is being read
}

func (d *document) read() error {
	if err := d.skipMark(); err != nil {
		return err
	}
	c, err := d.token()
	switch {
	case errors.Is(err, errEnd):
		return errors.New("the answer is empty")
	case err != nil:
		return err
	case c != '{':
		return fmt.Errorf("the answer is no JSON object: it begins with %s", d.glimpse())
	}
	if err := d.object(nil); err != nil {
		return d.cutShort(err)
	}
	switch _, err := d.token(); {
	case errors.Is(err, errEnd):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("the answer goes on behind its end, at byte %d, with %s", d.offset(), d.glimpse())
}

// object reads the object that begins at the next byte: the answer itself, or the
// one on the way to the array. Nothing goes deeper than those two by recursion.
func (d *document) object(prefix []string) error {
	d.pos++ // {
	c, err := d.token()
	if err == nil && c == '}' {
		d.pos++
		return nil
	}
	for {
		if err != nil {
			return err
		}
		if err := d.member(prefix); err != nil {
			return err
		}
		if c, err = d.expect(",}"); err != nil || c == '}' {
			return err
		}
		_, err = d.token()
	}
}

// member reads a name and what it names.
func (d *document) member(prefix []string) error {
	path, err := d.path(prefix)
	if err != nil {
		return err
	}
	if _, err := d.expect(":"); err != nil {
		return err
	}
	c, err := d.token()
	switch {
	case err != nil:
		return err
	case slices.Equal(path, d.Path):
		return d.list(c)
	case c == '{' && slices.Equal(path, d.Path[:1]):
		return d.object(path)
	}
	return d.fact(path)
}

// path reads the name of a member, and returns its path; nil if the name is too
// long to be of use.
func (d *document) path(prefix []string) ([]string, error) {
	if c, err := d.token(); err != nil {
		return nil, err
	} else if c != '"' {
		return nil, d.unexpected("the name of a member")
	}
	d.name.reset(maxName)
	if err := d.quoted(&d.name); err != nil {
		return nil, err
	}
	if d.name.long {
		return nil, nil
	}
	var name string
	if err := json.Unmarshal(d.name.b, &name); err != nil {
		return nil, fmt.Errorf("the name of a member that ends at byte %d: %w", d.offset(), err)
	}
	return append(slices.Clip(prefix), name), nil
}

// fact keeps the value of a member that stands beside the array.
func (d *document) fact(path []string) error {
	d.value.reset(maxMember)
	if err := d.balanced(&d.value); err != nil {
		return err
	}
	if path == nil {
		return nil
	}
	name, v := strings.Join(path, "."), &d.value
	_, again := d.answer.Members[name]
	switch {
	case v.long || v.deep:
		delete(d.answer.Members, name) // an earlier one does not count any more
	case !rawjson.Valid(v.b):
		return fmt.Errorf("the value of %.40q, which ends at byte %d: %w", name, d.offset(), flaw(v.b))
	case again || len(d.answer.Members) < maxMembers:
		d.answer.Members[name] = v.copied()
	}
	return nil
}

// list reads what is in the array's place and begins with c.
func (d *document) list(c byte) error {
	if c != '[' {
		d.value.reset(maxMember)
		if err := d.balanced(&d.value); err != nil {
			return err
		}
		if v := d.value.b; string(v) != "null" {
			return fmt.Errorf("%s is no array: it begins with %q", strings.Join(d.Path, "."), v[:min(few, len(v))])
		}
		d.answer.Null = !d.answer.There
		return nil
	}
	d.answer.There, d.answer.Null = true, false
	d.pos++ // [
	if c, err := d.token(); err != nil {
		return err
	} else if c == ']' {
		d.pos++
		return nil
	}
	for {
		d.value.reset(d.MaxElement)
		if err := d.balanced(&d.value); err != nil {
			return err
		}
		if err := d.element(); err != nil {
			return err
		}
		if c, err := d.expect(",]"); err != nil || c == ']' {
			return err
		}
		if _, err := d.token(); err != nil {
			return err
		}
	}
}

// element hands over the element that was read.
func (d *document) element() error {
	v := &d.value
	switch {
	case v.long:
		v.b = v.b[:min(len(v.b), oddHead)]
		d.Odd(v.copied(), fmt.Sprintf("longer than %d bytes", d.MaxElement))
	case v.deep:
		d.Odd(v.copied(), fmt.Sprintf("nested deeper than %d levels", maxDepth))
	case !rawjson.Valid(v.b):
		d.Odd(v.copied(), "not well-formed: "+flaw(v.b).Error())
	default:
		return d.Each(v.copied())
	}
	return nil
}

// flaw says what is wrong with raw, which is not valid.
func flaw(raw []byte) error {
	var v json.RawMessage
	return json.Unmarshal(raw, &v)
}
