package sink_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// A sink is given another path: nothing is lost by that, and nothing is said to be. What
// it finds there is its own file only if it has all that is committed.
func TestFileElsewhere(t *testing.T) {
	for name, test := range map[string]struct {
		there  func(r *rig) string
		kept   int // lines
		orphan bool
	}{
		"nothing":         {there: func(*rig) string { return "" }},
		"its file":        {there: func(r *rig) string { return r.lines(0, 3) }, kept: 3},
		"a shorter file":  {there: func(r *rig) string { return r.lines(0, 2) }, orphan: true},
		"a longer file":   {there: func(r *rig) string { return r.lines(0, 2) + r.lines(5, 7) }, orphan: true},
		"somebody's file": {there: func(*rig) string { return "foreign\n" }, orphan: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "", 3)
			was, there := r.path, test.there(r)
			r.path = filepath.Join(t.TempDir(), "elsewhere.ndjson")
			if there != "" {
				r.put(there)
			}
			r.crash()
			report := r.mustResume()
			if note := report.Note; report.CutBytes != 0 || strings.Contains(note, was) != test.orphan || (note != "") != test.orphan || strings.Contains(note, "lost") {
				t.Errorf("report: %+v", report)
			}
			var orphans []string
			if test.orphan {
				orphans = append(orphans, there)
			}
			r.finish(r.lines(0, test.kept), orphans...)
			if got := string(read(t, was)); got != r.lines(0, 3) {
				t.Errorf("the file that it had holds %q", got)
			}
		})
	}
}
