package poller_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// reads are the places of the engine that only read the state.
var reads = []string{"fetch Stamp", "finishStaged HasStaged", "resume HasVerdict", "commitStaged OpenStream",
	"nextVisit NextVisit", "planned CountVisits", "remembered Visit", "missing Missing"}

// commitKinds returns every place of the engine that writes to the state, as
// "endSettled CommitPage", by its source.
func commitKinds(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	kinds := make(map[string]bool)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				call, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				kind := fn.Name.Name + " " + call.Sel.Name
				if db, ok := call.X.(*ast.SelectorExpr); ok && db.Sel.Name == "db" && !slices.Contains(reads, kind) {
					kinds[kind] = true
				}
				return true
			})
		}
	}
	return slices.Sorted(maps.Keys(kinds))
}

// commitKind is the kind of the commit that is going on, called from within it.
func commitKind() string {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs[:])])
	method := ""
	for {
		frame, more := frames.Next()
		name := frame.Function[strings.LastIndexByte(frame.Function, '.')+1:]
		switch {
		case strings.Contains(frame.Function, "internal/state.(*DB)."):
			method = name
		case strings.Contains(frame.Function, "internal/poller.(*"):
			return name + " " + method
		case !more:
			return "no commit of the engine: " + method
		}
	}
}
