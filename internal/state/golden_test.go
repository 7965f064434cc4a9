package state_test

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/state"
)

var update = flag.Bool("update", false, "write the golden files anew")

// node is a line of the tree in the package comment.
type node struct {
	name     string // with placeholders in angle brackets
	pattern  *regexp.Regexp
	children []*node
	seen     bool
}

// picture reads the bucket tree out of the package comment.
func picture(t *testing.T) *node {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "state.go", nil, parser.PackageClauseOnly|parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	root := &node{}
	path := []*node{root}
	for line := range strings.Lines(file.Doc.Text()) {
		text, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "\t")
		if !ok {
			continue
		}
		name := strings.TrimLeft(text, " ")
		depth := (len(text) - len(name)) / 2
		name, _, _ = strings.Cut(name, "  ")
		pattern := regexp.MustCompile(`<[^>]*>`).ReplaceAllString(regexp.QuoteMeta(name), `.+`)
		pattern = strings.ReplaceAll(pattern, `\\x00`, `\x00`)
		n := &node{name: name, pattern: regexp.MustCompile(`(?s)^` + pattern + `$`)}
		if depth >= len(path) {
			t.Fatalf("the picture skips a level at %q", name)
		}
		path = append(path[:depth+1], n)
		path[depth].children = append(path[depth].children, n)
	}
	return root
}

// match returns the child that key is drawn as: a plain name before a pattern.
func (n *node) match(key string) *node {
	var found *node
	for _, c := range n.children {
		if c.name == key {
			return c
		}
		if strings.Contains(c.name, "<") && c.pattern.MatchString(key) && (found == nil || len(c.name) > len(found.name)) {
			found = c
		}
	}
	return found
}

// The bucket tree of a filled file is the one in the golden file, and drawn in the
// package comment: nothing is missing there, and nothing is there alone. The file
// is a backup that has been opened and used, or it would not have everything.
func TestGolden(t *testing.T) { synctest.Test(t, golden) } // the file says when it was written

func golden(t *testing.T) {
	f := open(t)
	fill(t, f.DB)
	f = openAt(t, backup(t, f.DB))
	commit(t, f.DB, pageOf(f.DB, question("q5", 5, "a")))
	err := errors.Join(f.DB.Settle("archive", day, state.Settlement{Checkpoint: []byte(`{"length":640}`)}),
		f.DB.Ledger().Save("wildberries/seller-1/returns", []byte(`{"v":1,"tokens":1}`)))
	if err != nil {
		t.Fatal(err)
	}
	f.DB.Close()
	b, err := bolt.Open(f.cfg.Path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	tree := picture(t)
	var out strings.Builder
	err = b.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			dump(t, &out, name, nil, b, tree, "")
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	unseen(t, tree, "")
	const golden = "testdata/golden.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("the file holds\n%s\nwant\n%s", out.String(), want)
	}
}

func unseen(t *testing.T, n *node, path string) {
	for _, c := range n.children {
		if !c.seen {
			t.Errorf("the package comment draws %s/%s, which is in no file", path, c.name)
		}
		unseen(t, c, path+"/"+c.name)
	}
}

func dump(t *testing.T, out *strings.Builder, key, value []byte, b *bolt.Bucket, n *node, path string) {
	path += "/" + string(key)
	drawn := n.match(string(key))
	if drawn == nil {
		t.Errorf("%q is not in the picture of the package comment", path)
		return
	}
	drawn.seen = true
	text := readable(drawn.name, key)
	depth := strings.Repeat("  ", strings.Count(path, "/")-1-strings.Count(string(key), "/"))
	if b == nil {
		fmt.Fprintf(out, "%s%s\t%s\n", depth, text, readableValue(drawn.name, value))
		return
	}
	fmt.Fprintf(out, "%s%s\n", depth, text)
	if drawn.name == "<name>" { // forgotten, and drawn where it was
		return
	}
	keys := 0
	_ = b.ForEach(func(_, _ []byte) error {
		keys++
		return nil
	})
	at := 0
	_ = b.ForEach(func(k, v []byte) error {
		var line strings.Builder // of the many in a bucket the first and the last show what they are like
		dump(t, &line, k, v, b.Bucket(k), drawn, path)
		switch at++; {
		case keys <= 8 || at <= 4 || at == keys:
			out.WriteString(line.String())
		case at == 5:
			fmt.Fprintf(out, "%s  … %d more\n", depth, keys-5)
		}
		return nil
	})
}

func number(b []byte) string { return fmt.Sprint(binary.BigEndian.Uint64(b)) }

func moment(b []byte) string {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(b))).UTC().Format(time.RFC3339Nano)
}

// readable decodes a key as its name in the picture says.
func readable(name string, key []byte) string {
	switch name {
	case "<created><item id>":
		return moment(key) + " " + string(key[8:])
	case "i<created><rank><item id>":
		return "i " + moment(key[1:]) + " " + number(key[9:]) + " " + string(key[17:])
	case "u<due><visit id>", "v<due><visit id>":
		return string(key[:1]) + " " + moment(key[1:]) + " " + string(key[9:])
	case "<id key>", "<8 bytes of SHA-256 of the entry>":
		return fmt.Sprintf("%x", key)
	case "<8 bytes of SHA-256 of the entry>raw":
		return fmt.Sprintf("%x %s", key[:8], key[8:])
	case "<class><next><queue key>":
		return fmt.Sprint(key[0]) + " " + moment(key[1:]) + " " + string(key[9:])
	case "<sequence>", "<seq>", "<first seq>", "<n>":
		return number(key)
	case `<queue key>\x00<seq>`:
		return string(key[:len(key)-9]) + " " + number(key[len(key)-8:])
	}
	return string(key)
}

func readableValue(name string, value []byte) string {
	switch name {
	case "stamp", "restored":
		return number(value)
	case "committed":
		return moment(value)
	case "<id key>":
		return moment(value)
	case "u<due><visit id>", "v<due><visit id>":
		return moment(value) + " " + moment(value[8:])
	case "ahead", "<first seq>", `<queue key>\x00<seq>`:
		return fmt.Sprint(uvarints(&value, 100))
	case "<queue key>":
		format, rest := value[0], value[1:]
		numbers := uvarints(&rest, 8)
		return fmt.Sprintf("%d %d %q", format, numbers, rest)
	}
	return string(value)
}

// uvarints cuts up to n of them off a value.
func uvarints(value *[]byte, n int) (out []uint64) {
	for len(*value) > 0 && len(out) < n {
		u, size := binary.Uvarint(*value)
		out, *value = append(out, u), (*value)[size:]
	}
	return out
}
