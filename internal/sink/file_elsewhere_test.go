package sink_test

import (
	"os"
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

// G4: a file that was renamed while nobody had it open, with lines that were not
// committed, loses those, so that each is in one file. What only looks like it, or is
// not it alone any more, is left as it is.
func TestFileRenamedBetweenTwoLives(t *testing.T) {
	renamed := func(r *rig) string { return r.path + ".1" }
	for name, test := range map[string]struct {
		committed int
		change    func(r *rig)
		want      func(r *rig) string // in the renamed file
	}{
		"some committed": {committed: 3, want: func(r *rig) string { return r.lines(0, 3) }},
		"none committed": {want: func(*rig) string { return "" }},
		"a torn line":    {committed: 3, change: func(r *rig) { cutOff(r, renamed(r), 7) }, want: func(r *rig) string { return r.lines(0, 3) }},
		"a line behind":  {committed: 3, change: func(r *rig) { appendTo(r, renamed(r), "foreign\n") }, want: func(r *rig) string { return r.lines(0, 7) + "foreign\n" }},
		"other lines":    {committed: 3, change: func(r *rig) { spoil(r, renamed(r)) }, want: func(r *rig) string { return strings.Replace(r.lines(0, 7), "/e2", "/E2", 1) }},
		"a copy":         {committed: 3, change: func(r *rig) { copyOver(r, renamed(r)) }, want: func(r *rig) string { return r.lines(0, 7) }},
		"another path": {committed: 3, change: func(r *rig) {
			r.path = filepath.Join(r.t.TempDir(), "events.ndjson")
		}, want: func(r *rig) string { return r.lines(0, 3) }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "", test.committed)
			if test.committed == 0 {
				r.mustResume()
			}
			if err := r.deliver(7 - test.committed); err != nil { // and never commit it
				t.Fatal(err)
			}
			was := renamed(r)
			if err := os.Rename(r.path, was); err != nil {
				t.Fatal(err)
			}
			if test.change != nil {
				test.change(r)
			}
			r.crash()
			r.mustResume()
			r.finish("")
			if got := string(read(t, was)); got != test.want(r) {
				t.Errorf("the renamed file holds\n%s\nwant\n%s", got, test.want(r))
			}
		})
	}
}

func cutOff(r *rig, path string, n int64) {
	if err := os.Truncate(path, fileSize(r.t.(*testing.T), path)-n); err != nil {
		r.t.Fatal(err)
	}
}

func appendTo(r *rig, path, text string) {
	own := *r
	own.path = path
	own.add(text)
}

// spoil changes the committed part of a file in place.
func spoil(r *rig, path string) {
	content := strings.Replace(string(read(r.t, path)), "/e2", "/E2", 1)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// copyOver puts a copy in the place of a file: the same content in another inode.
func copyOver(r *rig, path string) {
	content := read(r.t, path)
	if err := os.WriteFile(path+".copy", content, 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(path+".copy", path); err != nil {
		r.t.Fatal(err)
	}
}

// A path that is no UTF-8 is the same path when it comes back out of a checkpoint.
func TestFilePathNotUTF8(t *testing.T) {
	r := newRig(t, "", 0)
	r.path = filepath.Join(t.TempDir(), "caf\xe9\xff.ndjson")
	r.crash()
	r.mustResume()
	r.mustDeliver(3)
	if err := r.deliver(2); err != nil { // and never commit it
		t.Fatal(err)
	}
	if err := os.Truncate(r.path, int64(len(r.lines(0, 2)))); err != nil {
		t.Fatal(err)
	}
	r.crash()
	if report := r.mustResume(); !strings.Contains(report.Note, "lost") {
		t.Errorf("report: %+v", report)
	}
	r.finish(r.lines(0, 2))
}
