package jsonlist

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

const (
	bufferSize = 32 << 10
	// maxDepth is how deep an element may be nested: far below what encoding/json
	// refuses (10,000 levels), and far above what anybody sends.
	maxDepth = 1000
)

// errEnd says that the answer ended where r did, rightly or not.
var errEnd = errors.New("the end of the answer")

// scanner splits a stream at JSON's brackets and strings, whatever the chunks
// that it comes in.
type scanner struct {
	r        io.Reader
	buf      []byte
	pos, end int   // buf[pos:end] has been read and not yet used
	before   int64 // bytes of the answer before buf
	err      error // of r, to be reported when buf is used up
}

// offset is how many bytes of the answer have been used.
func (s *scanner) offset() int64 { return s.before + int64(s.pos) }

// fill makes sure that there is a byte to use.
func (s *scanner) fill() error {
	if s.pos < s.end {
		return nil
	}
	s.before += int64(s.end)
	s.pos, s.end = 0, 0
	return s.more()
}

// more reads once more behind what is there.
func (s *scanner) more() error {
	for range 100 {
		if s.err != nil {
			break
		}
		var n int
		if n, s.err = s.r.Read(s.buf[s.end:]); n > 0 {
			s.end += n
			return nil
		}
	}
	switch s.err {
	case nil:
		return fmt.Errorf("read the answer: %w", io.ErrNoProgress)
	case io.EOF:
		return errEnd
	}
	return fmt.Errorf("read the answer: %w", s.err)
}

// cutShort turns the end of the stream into the error that it is inside of the
// object.
func (s *scanner) cutShort(err error) error {
	if errors.Is(err, errEnd) {
		return fmt.Errorf("the answer is cut short after %d bytes: %w", s.offset(), io.ErrUnexpectedEOF)
	}
	return err
}

// skipMark skips a byte order mark, which some gateways prepend though JSON knows
// none.
func (s *scanner) skipMark() error {
	mark := []byte("\xef\xbb\xbf")
	for s.end < len(mark) && bytes.HasPrefix(mark, s.buf[:s.end]) {
		if err := s.more(); errors.Is(err, errEnd) {
			return nil
		} else if err != nil {
			return err
		}
	}
	if bytes.HasPrefix(s.buf[:s.end], mark) {
		s.pos = len(mark)
	}
	return nil
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// token returns the next byte that is no white space, without using it.
func (s *scanner) token() (byte, error) {
	for {
		if err := s.fill(); err != nil {
			return 0, err
		}
		for ; s.pos < s.end; s.pos++ {
			if c := s.buf[s.pos]; !isSpace(c) {
				return c, nil
			}
		}
	}
}

// expect uses the next byte that is no white space, which must be one of those.
func (s *scanner) expect(those string) (byte, error) {
	c, err := s.token()
	if err != nil {
		return 0, err
	}
	if strings.IndexByte(those, c) < 0 {
		return 0, s.unexpected(fmt.Sprintf("one of %q", those))
	}
	s.pos++
	return c, nil
}

func (s *scanner) unexpected(wanted string) error {
	return fmt.Errorf("the answer is not well-formed at byte %d: %s where %s should be", s.offset(), s.glimpse(), wanted)
}

// few bytes are enough to tell what something is, and too few to tell a secret.
const few = 10

// glimpse quotes what comes next.
func (s *scanner) glimpse() string {
	s.before += int64(s.pos)
	s.end = copy(s.buf, s.buf[s.pos:s.end])
	s.pos = 0
	for s.end < few && s.more() == nil {
	}
	return fmt.Sprintf("%q", s.buf[:min(few, s.end)])
}

// quoted reads the string whose opening quote is the next byte.
func (s *scanner) quoted(into *piece) error {
	into.add(s.buf[s.pos : s.pos+1])
	s.pos++
	for escaped := false; ; {
		if err := s.fill(); err != nil {
			return err
		}
		n, done := inString(s.buf[s.pos:s.end], &escaped)
		into.add(s.buf[s.pos : s.pos+n])
		s.pos += n
		if done {
			return nil
		}
	}
}

// inString returns how much of b belongs to the string that it begins inside of,
// the closing quote included, and whether that was there. escaped says that a
// backslash came before b, or before what follows.
func inString(b []byte, escaped *bool) (n int, done bool) {
	i := 0
	if *escaped && len(b) > 0 {
		*escaped, i = false, 1
	}
	for i < len(b) {
		switch b[i] {
		case '"':
			return i + 1, true
		case '\\':
			if i++; i == len(b) {
				*escaped = true
				return i, false
			}
		}
		i++
	}
	return i, false
}

// balanced reads a value, well-formed or not: up to the next comma or closing
// bracket that does not belong to it.
func (s *scanner) balanced(into *piece) error {
	var open brackets
	quoted, escaped := false, false
	for {
		if err := s.fill(); err != nil {
			return err
		}
		b := s.buf[s.pos:s.end]
		i, done := 0, false
	chunk:
		for i < len(b) {
			if quoted {
				n, closed := inString(b[i:], &escaped)
				i += n
				quoted = !closed
				continue
			}
			switch c := b[i]; c {
			case '"':
				quoted = true
			case '{', '[':
				open.push(c)
				into.deep = into.deep || open.depth > maxDepth
			case '}', ']':
				if open.depth == 0 {
					done = true
					break chunk
				}
				if !open.pop(c) {
					s.pos += i
					return s.unexpected("the other closing bracket")
				}
			case ',':
				if open.depth == 0 {
					done = true
					break chunk
				}
			}
			i++
		}
		into.add(b[:i])
		s.pos += i
		if done {
			if !into.long {
				into.b = bytes.TrimRight(into.b, " \t\r\n")
			}
			return nil
		}
	}
}

// brackets are those that are open. Which of the two kinds each one is, is known
// of the outer maxDepth alone: what is nested deeper is only counted, so that no
// depth costs memory.
type brackets struct {
	depth int
	curly [maxDepth/64 + 1]uint64
}

func (b *brackets) push(c byte) {
	if i := b.depth; i < maxDepth {
		bit := uint64(1) << (i % 64)
		if b.curly[i/64] &^= bit; c == '{' {
			b.curly[i/64] |= bit
		}
	}
	b.depth++
}

// pop reports whether c closes what was opened last.
func (b *brackets) pop(c byte) bool {
	b.depth--
	i := b.depth
	return i >= maxDepth || b.curly[i/64]>>(i%64)&1 == 1 == (c == '}')
}

// piece is a part of the answer that is being read. Its memory is used again.
type piece struct {
	b    []byte
	most int
	long bool // there was more than most, and b has its beginning
	deep bool // nested deeper than maxDepth
}

func (p *piece) reset(most int) { *p = piece{b: p.b[:0], most: most} }

func (p *piece) add(b []byte) {
	if room := p.most - len(p.b); len(b) > room {
		p.long = p.long || len(bytes.TrimRight(b[room:], " \t\r\n")) > 0
		b = b[:room]
	}
	p.b = append(p.b, b...)
}

// copied returns what was read, in memory of its own and of its own size.
func (p *piece) copied() []byte {
	b := make([]byte, len(p.b))
	copy(b, p.b)
	return b
}
