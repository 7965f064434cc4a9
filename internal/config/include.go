package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

const (
	// maxFile is far beyond what a configuration holds; it keeps a wrong path from filling the memory.
	maxFile = 1 << 20
	// maxIncludes bounds how many files one configuration includes.
	maxIncludes = 1000
)

// included reads the files that the main file includes, in the order of their names.
func (l *loader) included(include *pathPatterns) []document {
	// A path that several patterns match is one file; the pattern that is told about its faults is the first.
	patterns := map[string]*node{}
	for _, p := range include.items {
		if p.ok {
			for _, path := range l.expand(p.node, string(p.val)) {
				if patterns[path] == nil {
					patterns[path] = p.node
				}
			}
		}
	}
	paths := make([]string, 0, len(patterns))
	for path := range patterns {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	if len(paths) > maxIncludes {
		l.incomplete = true
		l.problem(include.node, "includes %d files, expected at most %d", len(paths), maxIncludes)
		return nil
	}
	var docs []document
	for _, path := range paths {
		text, why := readFile(path, true)
		if why != "" {
			l.incomplete = true
			l.problem(patterns[path], "%s: %s, expected a file of accounts and sinks", quotedPath(path), why)
			continue
		}
		l.config.Files = append(l.config.Files, path)
		root := parse(l.report, path, text)
		if root == nil {
			l.incomplete = true
			continue
		}
		var doc document
		d := l.decoder()
		d.included = true
		d.object(root, reflect.ValueOf(&doc).Elem())
		docs = append(docs, doc)
	}
	return docs
}

// expand lists the files that a pattern stands for. A plain path stands for itself.
func (l *loader) expand(n *node, pattern string) []string {
	above := filepath.Dir(l.path)
	if filepath.IsAbs(pattern) {
		above = ""
	}
	if !strings.ContainsAny(pattern, globMeta) {
		return []string{filepath.Join(above, pattern)}
	}
	if _, err := filepath.Match(pattern, ""); err != nil {
		l.incomplete = true
		l.problem(n, "%s is not a pattern, expected one such as accounts.d/*.yaml", quoted(pattern))
		return nil
	}
	full := filepath.Join(escapeGlob(above), pattern)
	base := filepath.Base(full)
	// filepath.Glob takes a directory that it cannot read for an empty one, so the last step is our own.
	dirs, _ := filepath.Glob(filepath.Dir(full)) // fails only on a malformed pattern
	var paths []string
	for _, dir := range dirs {
		files, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.incomplete = true
			l.problem(n, "%s: %s, expected a directory that can be read", quotedPath(dir), reason(err))
			continue
		}
		for _, f := range files {
			path := filepath.Join(dir, f.Name())
			// As in a shell, a wildcard does not begin a hidden name: editors leave such files about.
			hidden := strings.HasPrefix(f.Name(), ".") && !strings.HasPrefix(base, ".")
			if ok, _ := filepath.Match(base, f.Name()); ok && !hidden && !l.isMain(path) {
				paths = append(paths, path)
			}
		}
	}
	return paths
}

// globMeta are the characters that make a pattern of a path.
const globMeta = `*?[\`

func escapeGlob(path string) string {
	var b strings.Builder
	for _, c := range path {
		if strings.ContainsRune(globMeta, c) {
			b.WriteByte('\\')
		}
		b.WriteRune(c)
	}
	return b.String()
}

// isMain reports whether a pattern has come upon the main file, which does not include itself.
func (l *loader) isMain(path string) bool {
	a, errA := os.Stat(path)
	b, errB := os.Stat(l.path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// readFile reads a file of bounded size, or says why it cannot. What is not a regular file is refused where regular says
// so, before it is opened: opening a pipe could wait for ever.
func readFile(path string, regular bool) (text []byte, why string) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, reason(err)
	case info.IsDir():
		return nil, "is a directory"
	case regular && !info.Mode().IsRegular():
		return nil, "is not a regular file"
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, reason(err)
	}
	defer f.Close()
	text, err = io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, reason(err)
	case len(text) > maxFile:
		return nil, fmt.Sprintf("is larger than %d MiB", maxFile>>20)
	}
	return text, ""
}

// reason is an error of the file system without the path: the path may be a secret in the wrong place.
func reason(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return err.Error()
}

// quotedPath repeats a path that was found, and so holds no secret, in full.
func quotedPath(path string) string { return fmt.Sprintf("%q", path) }
