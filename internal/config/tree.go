package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

type nodeKind int

const (
	scalarNode nodeKind = iota
	listNode
	mapNode
	// badNode stands for something that was reported when the tree was built, and is not looked at again.
	badNode
)

// node is a value of a configuration file. It knows where it stands, also after it was merged under an account of another
// file. A value of a mapping stands where its key does: that is where an operator looks.
type node struct {
	kind         nodeKind
	file         string
	line, column int
	// parent and label (a key, or an index as in [0]) make the path. The parent is the one in the file, not the one after
	// a merge.
	parent *node
	label  string
	// children are the values of a mapping or the items of a list, in the order of the file.
	children []*node
	// tag (of YAML, short) and text are those of a scalar.
	tag, text string
}

// child gives the value of a key, nil where there is none. A nil node has none.
func (n *node) child(label string) *node {
	if n != nil {
		for _, c := range n.children {
			if c.label == label {
				return c
			}
		}
	}
	return nil
}

// under is the place of a key that n lacks.
func (n *node) under(key string) *node {
	return &node{kind: badNode, file: n.file, line: n.line, column: n.column, parent: n, label: key}
}

func (n *node) path() string {
	if n.parent == nil {
		return n.label
	}
	label := clip(n.label)
	above := n.parent.path()
	if above == "" || label == "" || n.parent.kind == listNode {
		return above + label
	}
	return above + "." + label
}

// place is where the node stands, for another problem to point at.
func (n *node) place() string { return fmt.Sprintf("%s:%d:%d", n.file, n.line, n.column) }

func (n *node) problem(message string) Problem {
	return Problem{File: n.file, Line: n.line, Column: n.column, Key: n.path(), Message: message}
}

// isIn reports whether the node stands within another one of its file. A nil node stands nowhere.
func (n *node) isIn(above *node) bool {
	for ; n != nil; n = n.parent {
		if n == above {
			return true
		}
	}
	return false
}

// isNull reports whether there is a key, but no value.
func (n *node) isNull() bool { return n.kind == scalarNode && n.tag == "!!null" }

// what names the kind of a value in an error.
func (n *node) what() string {
	switch {
	case n.kind == mapNode:
		return "a mapping"
	case n.kind == listNode:
		return "a list"
	}
	switch n.tag {
	case "!!str":
		return "text"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!timestamp":
		return "a date or time"
	}
	return "of the YAML type " + clip(n.tag)
}

// maxDepth is deeper than any configuration goes. It bounds recursion.
const maxDepth = 32

// parse turns the text of a file into a tree. It returns nil where there is none, which it has then reported.
func parse(r *report, file string, text []byte) *node {
	if line, column, ok := invalidUTF8(text); ok {
		r.problems.add(Problem{File: file, Line: line, Column: column, Message: "is not UTF-8 here, expected YAML text in UTF-8"})
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	err := dec.Decode(&doc)
	if err == nil {
		err = dec.Decode(&second)
	}
	switch {
	case errors.Is(err, io.EOF) && doc.Kind == 0:
		return &node{kind: mapNode, file: file, line: 1, column: 1} // nothing but comments
	case errors.Is(err, io.EOF):
	case err != nil:
		r.problems.add(syntaxProblem(file, text, err))
		return nil
	default:
		r.problems.add(Problem{File: file, Line: second.Line, Column: second.Column, Message: "a second document begins here, expected only one"})
		return nil
	}
	b := builder{report: r, file: file}
	root := doc.Content[0]
	n := b.build(root, root, nil, "", 0)
	if n.kind == listNode || (n.kind == scalarNode && !n.isNull()) {
		r.problem(n, "the file is %s, expected a mapping", n.what())
		return nil
	}
	return n
}

// invalidUTF8 finds the first byte that is not UTF-8.
func invalidUTF8(text []byte) (line, column int, found bool) {
	line, column = 1, 1
	for len(text) > 0 {
		c, size := utf8.DecodeRune(text)
		if c == utf8.RuneError && size == 1 {
			return line, column, true
		}
		column++
		if c == '\n' {
			line, column = line+1, 1
		}
		text = text[size:]
	}
	return 0, 0, false
}

type builder struct {
	*report
	file string
}

// build copies y, which stands at the key (or item) at, into a tree of ours. Whatever is reported here leaves a badNode.
func (b *builder) build(y, at *yaml.Node, parent *node, label string, depth int) *node {
	n := &node{file: b.file, line: at.Line, column: at.Column, parent: parent, label: label}
	bad := func(message string) *node {
		n.kind = badNode
		b.problem(n, "%s", message)
		return n
	}
	if depth > maxDepth {
		return bad(fmt.Sprintf("is nested too deeply, expected at most %d levels", maxDepth))
	}
	switch y.Kind {
	case yaml.AliasNode:
		// An alias could repeat a value any number of times, also within itself; `defaults` does what aliases are for.
		return bad(aliasMessage)
	case yaml.ScalarNode:
		n.kind, n.tag, n.text = scalarNode, y.ShortTag(), y.Value
	case yaml.SequenceNode:
		n.kind = listNode
		for i, item := range y.Content {
			n.children = append(n.children, b.build(item, item, n, fmt.Sprintf("[%d]", i), depth+1))
		}
	case yaml.MappingNode:
		n.kind = mapNode
		seen := map[string]int{}
		for i := 0; i+1 < len(y.Content); i += 2 {
			key, value := y.Content[i], y.Content[i+1]
			at := &node{kind: badNode, file: b.file, line: key.Line, column: key.Column, parent: n, label: key.Value}
			first, twice := seen[key.Value]
			switch {
			case key.Kind == yaml.AliasNode:
				at.label = ""
				b.problem(at, "%s", aliasMessage)
			case key.Kind != yaml.ScalarNode:
				b.problem(at, "a key is not text, expected a name")
			case key.ShortTag() == "!!merge":
				b.problem(at, "merge keys are not supported, expected the keys themselves (or use defaults)")
			case twice:
				b.problem(at, "duplicate key, expected it once: it is already on line %d", first)
			default:
				seen[key.Value] = key.Line
				n.children = append(n.children, b.build(value, key, n, key.Value, depth+1))
			}
		}
	}
	if (n.kind == listNode && y.ShortTag() != "!!seq") || (n.kind == mapNode && y.ShortTag() != "!!map") {
		return bad(fmt.Sprintf("has the YAML tag %s, expected none", clip(y.Tag)))
	}
	return n
}

const aliasMessage = "YAML aliases are not supported, expected the value itself (or use defaults)"

var yamlPrefix = regexp.MustCompile(`^yaml: (line \d+: )?`)

// syntaxProblem turns an error of the YAML library into a problem with a place. The library often names the line where the
// enclosing mapping begins, or none, so the place is looked for here: it is the line after the longest run of whole lines
// that is valid by itself.
func syntaxProblem(file string, text []byte, err error) Problem {
	message := yamlPrefix.ReplaceAllString(err.Error(), "")
	if strings.HasPrefix(message, "unknown anchor") {
		message = aliasMessage
	} else {
		message = "is not valid YAML: " + message
	}
	ends := lineEnds(text)
	reader := &slowReader{text: text}
	_ = yamlStream(reader) // fails as it did before; what counts is how far it got
	line := bytes.Count(text[:reader.pos], []byte("\n"))
	if line == len(ends) {
		line--
	}
	// The search is short unless a bracket or a quote stays open for long. Then the place where the parser gave up must do.
	found, budget := line, 4<<20
	for k := line; k >= 0 && budget > 0; k-- {
		end := 0
		if k > 0 {
			end = ends[k-1]
		}
		if yamlStream(bytes.NewReader(text[:end])) == nil {
			found = k
			break
		}
		budget -= end
	}
	start := 0
	if found > 0 {
		start = ends[found-1]
	}
	rest, column := text[start:ends[found]], 1
	for len(rest) > column && (rest[column-1] == ' ' || rest[column-1] == '\t') {
		column++
	}
	return Problem{File: file, Line: found + 1, Column: column, Message: message}
}

// lineEnds gives the offset after each line.
func lineEnds(text []byte) []int {
	var ends []int
	for i, c := range text {
		if c == '\n' {
			ends = append(ends, i+1)
		}
	}
	if len(ends) == 0 || ends[len(ends)-1] < len(text) {
		ends = append(ends, len(text))
	}
	return ends
}

// yamlStream says what is wrong with the syntax of any number of documents.
func yamlStream(r io.Reader) error {
	dec := yaml.NewDecoder(r)
	for {
		var doc yaml.Node
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// slowReader hands out single bytes, so that pos tells how far its reader needed to read.
type slowReader struct {
	text []byte
	pos  int
}

func (r *slowReader) Read(p []byte) (int, error) {
	if r.pos == len(r.text) {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	p[0] = r.text[r.pos]
	r.pos++
	return 1, nil
}
