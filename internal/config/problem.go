package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Problem is one thing that is wrong, or for a warning doubtful, at one place of a configuration file.
type Problem struct {
	// File is named as it was found: from the path given to Load.
	File string
	// Line and Column count from 1, columns in characters. Both are 0 where the file as a whole is meant.
	Line, Column int
	// Key is the path of the key, as in accounts[0].budget_share; empty where no key is meant.
	Key string
	// Message says what is wrong and what was expected. It never holds a secret.
	Message string
}

// String gives the problem as file:line:column: key: message.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	if p.Key != "" {
		b.WriteString(": " + p.Key)
	}
	b.WriteString(": " + p.Message)
	return b.String()
}

// Errors is what Load returns for a configuration that it refuses: every problem, sorted by file, line and column.
type Errors struct {
	Problems []Problem
}

// Error gives one problem a line.
func (e *Errors) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// problemSet collects problems. What is inherited from `defaults` is looked at once for every account; being the same
// problem at the same place, it is kept once.
type problemSet map[Problem]struct{}

func (s problemSet) add(p Problem) { s[p] = struct{}{} }

func (s problemSet) sorted() []Problem {
	list := make([]Problem, 0, len(s))
	for p := range s {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Key, b.Key), cmp.Compare(a.Message, b.Message))
	})
	return list
}

// report collects what is found while a configuration is read.
type report struct {
	problems problemSet
	warnings problemSet
	// reported counts the calls of problem: the same problem again grows no set.
	reported int
}

func newReport() *report { return &report{problems: problemSet{}, warnings: problemSet{}} }

func (r *report) problem(n *node, format string, args ...any) {
	r.reported++
	r.problems.add(n.problem(fmt.Sprintf(format, args...)))
}

func (r *report) warn(n *node, format string, args ...any) {
	r.warnings.add(n.problem(fmt.Sprintf(format, args...)))
}

// missing reports a key that should stand under n.
func (r *report) missing(n *node, key, want string) {
	r.problems.add(n.under(key).problem("is missing, expected " + want))
}

// maxShown bounds how much of a value an error repeats.
const maxShown = 40

// quoted repeats a value in an error: escaped, and only its beginning where it is long.
func quoted(s string) string { return strconv.Quote(clip(s)) }

func clip(s string) string {
	runes := 0
	for i := range s {
		if runes++; runes > maxShown {
			return s[:i] + "…"
		}
	}
	return s
}

// oneOf lists alternatives as a sentence does: a, b or c.
func oneOf(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// suggest ends the message about an unknown name: with the known name it resembles, or else with all of them.
func suggest(name string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if d := editDistance(name, k); d < distance && d*2 < len(k) {
			best, distance = k, d
		}
	}
	switch {
	case best != "":
		return fmt.Sprintf(", did you mean %s?", best)
	case len(known) == 0:
		return ", none is expected here"
	}
	return ", expected " + oneOf(known)
}

// editDistance counts the letters to insert, drop, replace or swap with their neighbour to turn a into b. Names that
// differ much in length are far apart, whatever their letters: this also bounds the work that a long key can cause.
func editDistance(a, b string) int {
	if diff := len(a) - len(b); diff > 2 || diff < -2 {
		return 3
	}
	before, prev, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, prev, row = prev, row, before
	}
	return prev[len(b)]
}
