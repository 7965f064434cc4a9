package sink_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"syncd/internal/sink"
	"syncd/internal/sink/sinktest"
)

func TestFileFirstUse(t *testing.T) {
	for _, test := range []struct{ name, content, kept string }{
		{"no file", "", ""},
		{"somebody's lines", "one\ntwo\n", "one\ntwo\n"},
		{"somebody's line without a newline", "one\ntwo", "one\ntwo\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, test.content, 0)
			for range 2 { // a crash before the first commit, too
				report := r.mustResume()
				if report.CutBytes != 0 || report.OrphanPath != "" || (report.Note == "") != (test.content == "") {
					t.Errorf("report: %+v", report)
				}
				r.checkpoint = nil
				r.crash()
			}
			r.mustResume()
			r.finish(test.kept)
		})
	}
}

// The file ends at any byte of the lines that a crashed Deliver was writing.
func TestFileCrashInDeliver(t *testing.T) {
	tail := newRig(t, "", 0).lines(3, 5)
	for stride, header := range map[int]string{1: "", 29: "somebody's header"} {
		for n := 0; n <= len(tail); n += stride {
			r := newRig(t, header, 3)
			committed := string(read(t, r.path))
			r.add(tail[:n])
			r.crash()
			if report := r.mustResume(); report != (sink.Report{CutBytes: int64(n)}) {
				t.Fatalf("%d bytes written: %+v", n, report)
			}
			if n%50 == 0 { // the rest of the test costs an fsync
				r.finish(committed)
			} else if got := string(read(t, r.path)); got != committed {
				t.Fatalf("%d bytes written: the file is %q", n, got)
			}
			r.file.Close()
		}
	}
}

// What stands behind the committed lines, and what becomes of it.
func TestFileTail(t *testing.T) {
	r := newRig(t, "", 0)
	ours, torn := r.lines(3, 5), r.lines(5, 6)[:200]
	for _, test := range []struct {
		name, tail string
		cut        int
		orphan     string
	}{
		{name: "nothing"},
		{name: "our lines", tail: ours, cut: len(ours)},
		{name: "all lines that there are", tail: r.lines(3, 10), cut: len(r.lines(3, 10))},
		{name: "a line without its newline", tail: strings.TrimSuffix(ours, "\n"), cut: len(ours) - 1},
		{name: "foreign bytes", tail: "foreign\n", orphan: "foreign\n"},
		{name: "an empty line", tail: "\n", orphan: "\n"},
		{name: "zeros", tail: "\x00\x00\x00", orphan: "\x00\x00\x00"},
		{name: "our lines and foreign bytes", tail: ours + "foreign", cut: len(ours), orphan: "foreign"},
		// A part of a line proves nothing when it is not the end of the file.
		{name: "our torn line and foreign bytes", tail: ours + torn + "foreign\n", cut: len(ours), orphan: torn + "foreign\n"},
		{name: "a line as ours but for its end", tail: torn + "\n", orphan: torn + "\n"},
		{name: "a line of ours that is not next", tail: r.lines(4, 5), orphan: r.lines(4, 5)},
		{name: "a line of ours that is committed", tail: r.lines(2, 3), orphan: r.lines(2, 3)},
		{name: "more than the log holds", tail: r.lines(3, 10) + r.lines(0, 1), cut: len(r.lines(3, 10)), orphan: r.lines(0, 1)},
	} {
		for _, header := range []string{"", "header\n"} {
			t.Run(test.name+" after "+header, func(t *testing.T) {
				r := newRig(t, header, 3)
				r.add(test.tail)
				r.crash()
				report := r.mustResume()
				if report.CutBytes != int64(test.cut) || (report.OrphanPath != "") != (test.orphan != "") || report.Note != "" {
					t.Errorf("report: %+v", report)
				}
				if test.orphan == "" {
					r.finish(header + r.lines(0, 3))
					return
				}
				if got := r.orphans()[report.OrphanPath]; got != test.orphan {
					t.Errorf("the orphan holds %q", got)
				}
				r.finish(header+r.lines(0, 3), test.orphan)
			})
		}
	}
}

// Nothing is committed yet, so what is in the file is moved as a whole.
func TestFileTailOfNothing(t *testing.T) {
	r := newRig(t, "", 0)
	r.mustResume()
	r.add("foreign\n" + r.lines(0, 1))
	r.crash()
	r.mustResume()
	r.finish("", "foreign\n"+r.lines(0, 1))
}

// A crash between the parts of moving foreign bytes aside: the next Resume goes
// on with the orphan that is there, whole or in part.
func TestFileCrashInCopyAside(t *testing.T) {
	foreign := strings.Repeat("a line of somebody else's\n", 4)
	for n := range len(foreign) + 1 {
		r := newRig(t, "", 3)
		r.add(r.lines(3, 4) + foreign)
		before, err := os.Stat(r.path)
		if err != nil {
			t.Fatal(err)
		}
		content := string(read(t, r.path))
		name := r.mustResume().OrphanPath
		// As if only the first n bytes of the orphan had reached the disk.
		r.put(content)
		if err := os.Chtimes(r.path, before.ModTime(), before.ModTime()); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(name, int64(n)); err != nil {
			t.Fatal(err)
		}
		r.crash()
		if again := r.mustResume().OrphanPath; again != name {
			t.Fatalf("with %d bytes in the orphan: another one, %s", n, again)
		}
		if n%20 == 0 {
			r.finish(r.lines(0, 3), foreign)
		} else if got := r.orphans(); len(got) != 1 || got[name] != foreign {
			t.Fatalf("with %d bytes in the orphan: %q", n, got)
		}
		r.file.Close()
	}
}

// Two different tails in the same instant, or an orphan that a power cut has
// filled with zeros: the name is taken, and stays as it is.
func TestFileOrphanNameTaken(t *testing.T) {
	r := newRig(t, "", 3)
	r.add("foreign\n")
	info, err := os.Stat(r.path)
	if err != nil {
		t.Fatal(err)
	}
	taken := r.path + ".orphan-" + info.ModTime().UTC().Format("20060102T150405.000000000Z")
	if err := os.WriteFile(taken, []byte("\x00\x00\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.crash()
	if report := r.mustResume(); report.OrphanPath != taken+"-2" {
		t.Errorf("report: %+v", report)
	}
	r.finish(r.lines(0, 3), "\x00\x00\x00", "foreign\n")
}

// The same for a whole file, which is renamed.
func TestFileOrphanNameTakenByFile(t *testing.T) {
	r := newRig(t, "", 3)
	r.put("foreign\n")
	info, err := os.Stat(r.path)
	if err != nil {
		t.Fatal(err)
	}
	taken := r.path + ".orphan-" + info.ModTime().UTC().Format("20060102T150405.000000000Z")
	if err := os.WriteFile(taken, []byte("foreign\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if report := r.mustResume(); report.OrphanPath != taken+"-2" {
		t.Errorf("report: %+v", report)
	}
	r.finish("", "foreign\n", "foreign\n")
}

// Somebody has cut the file inside what is committed, at any byte.
func TestFileCutShort(t *testing.T) {
	committed := newRig(t, "", 0).lines(0, 3)
	for n := range len(committed) {
		if n%7 != 0 && n < len(committed)-3 {
			continue
		}
		r := newRig(t, "", 3)
		if err := os.Truncate(r.path, int64(n)); err != nil {
			t.Fatal(err)
		}
		if n%2 == 0 { // with and without a crash
			r.crash()
		}
		report := r.mustResume()
		if report.Note == "" {
			t.Errorf("cut at %d: report: %+v", n, report)
		}
		kept := committed[:n]
		if !strings.HasSuffix(kept, "\n") {
			kept += "\n"
		}
		switch {
		case strings.HasPrefix(r.lines(3, 4), committed[:n]): // it begins the next line as well
			r.finish("")
		case n < 256: // not even one id is left: it cannot be told from other files
			r.finish("", committed[:n])
		default:
			r.finish(kept)
		}
		r.file.Close()
	}
}

// Deliver meets a file that was changed behind its back: it writes nothing, and
// Resume sorts it out.
func TestFileChangedWhileRunning(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(r *rig)
		kept   func(r *rig) string
		orphan string
	}{
		{
			name:   "somebody appends",
			change: func(r *rig) { r.add("foreign\n") },
			kept:   func(r *rig) string { return r.lines(0, 3) },
			orphan: "foreign\n",
		}, {
			name:   "somebody cuts a line",
			change: func(r *rig) { os.Truncate(r.path, int64(len(r.lines(0, 2)))) },
			kept:   func(r *rig) string { return r.lines(0, 2) },
		}, {
			name:   "another file, longer",
			change: func(r *rig) { os.Remove(r.path); r.put(strings.Repeat("foreign\n", 500)) },
			orphan: strings.Repeat("foreign\n", 500),
		}, {
			name:   "another file, shorter",
			change: func(r *rig) { os.Remove(r.path); r.put("foreign\n") },
			orphan: "foreign\n",
		}, {
			name:   "other content in the same file",
			change: func(r *rig) { r.put(strings.Repeat("f", len(r.lines(0, 3)))) },
			orphan: strings.Repeat("f", len(newRig(t, "", 0).lines(0, 3))),
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, "", 3)
			test.change(r)
			if test.name != "other content in the same file" { // same length: only Resume looks
				before := read(t, r.path)
				if err := r.deliver(1); err == nil {
					t.Fatal("Deliver returned nil")
				} else if e := sink.AsError(err); e.Kind != sink.Temporary {
					t.Errorf("kind %d: %v", e.Kind, err)
				}
				if !bytes.Equal(before, read(t, r.path)) {
					t.Error("Deliver has written to a file that it does not know")
				}
			}
			r.mustResume()
			kept, orphans := "", []string(nil)
			if test.kept != nil {
				kept = test.kept(r)
			}
			if test.orphan != "" {
				orphans = append(orphans, test.orphan)
			}
			r.finish(kept, orphans...)
		})
	}
}

// Foreign lines reach a new file before it is committed.
func TestFileRotatedThenForeign(t *testing.T) {
	r := newRig(t, "", 4)
	if err := os.Rename(r.path, r.path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := r.deliver(2); err != nil {
		t.Fatal(err)
	}
	r.add("foreign\n")
	r.crash()
	report := r.mustResume()
	if report.CutBytes != int64(len(r.lines(4, 6))) || report.Note == "" {
		t.Errorf("report: %+v", report)
	}
	r.finish("", "foreign\n")
}

// A disk that is full while foreign bytes are moved aside loses none of them.
func TestFileFullDiskInCopyAside(t *testing.T) {
	if alone(t) {
		return
	}
	r := newRig(t, "", 2)
	foreign := strings.Repeat("foreign\n", 1000)
	r.add(foreign)
	lift := limitFileSize(t, 3000)
	_, err := r.file.Resume(t.Context(), r.checkpoint, sinktest.Lines(r.log[r.position:]))
	lift()
	if !errors.Is(err, syscall.EFBIG) {
		t.Fatalf("Resume on a full disk: %v", err)
	}
	if got := string(read(t, r.path)); got != r.lines(0, 2)+foreign {
		t.Fatal("Resume has cut bytes before they were safe")
	}
	r.mustResume()
	r.finish(r.lines(0, 2), foreign)
}

// A file that was restored or moved to another disk is known by its content.
func TestFileCopied(t *testing.T) {
	r := newRig(t, "header\n", 3)
	content := string(read(t, r.path))
	r.add(r.lines(3, 4)[:50])
	all := string(read(t, r.path))
	r.crash()
	if err := os.Rename(r.path, r.path+".old"); err != nil { // so that the inode is not used again
		t.Fatal(err)
	}
	r.put(all)
	if report := r.mustResume(); report != (sink.Report{CutBytes: 50}) {
		t.Errorf("report: %+v", report)
	}
	r.finish(content)
}

func TestFileCheckpoint(t *testing.T) {
	r := newRig(t, "", 0)
	if b := r.file.Checkpoint(); b != nil {
		t.Errorf("before Resume: %s", b)
	}
	r.mustResume()
	r.mustDeliver(2)
	for _, bad := range []string{"", "null", "{}", `{"v":2,"size":1}`, `{"v":1,"size":-1}`, `[]`, `{`} {
		if _, err := r.file.Resume(t.Context(), []byte(bad), sinktest.Lines(nil)); err == nil {
			t.Errorf("Resume from %q returned nil", bad)
		}
		if err := r.deliver(1); err == nil {
			t.Fatal("Deliver after a failed Resume returned nil")
		}
	}
	if got := string(read(t, r.path)); got != r.lines(0, 2) {
		t.Errorf("the file is %q", got)
	}
	r.mustResume()
	r.finish(r.lines(0, 2))
}

func TestFileResumeErrors(t *testing.T) {
	r := newRig(t, "", 2)
	r.add(r.lines(2, 4))
	content := read(t, r.path)
	broken := errors.New("the log cannot be read")
	_, err := r.file.Resume(t.Context(), r.checkpoint, func(yield func([]byte, error) bool) {
		_ = yield(r.log[2].JSON, nil) && yield(nil, broken)
	})
	if !errors.Is(err, broken) {
		t.Errorf("Resume with a log that fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = r.file.Resume(ctx, r.checkpoint, func(yield func([]byte, error) bool) {
		cancel()
		yield(r.log[2].JSON, nil)
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Resume that is cancelled: %v", err)
	}
	if !bytes.Equal(read(t, r.path), content) {
		t.Error("a Resume that failed has changed the file")
	}
	r.mustResume()
	r.finish(r.lines(0, 2))
}

// Somebody changes the file between the look at it and the cut.
func TestFileChangedInResume(t *testing.T) {
	for _, foreign := range []string{"", "foreign\n"} {
		for _, change := range []func(r *rig){
			func(r *rig) { os.Truncate(r.path, 0) },
			func(r *rig) { r.add("more\n") },
		} {
			r := newRig(t, "", 2)
			r.add(r.lines(2, 4) + foreign)
			_, err := r.file.Resume(t.Context(), r.checkpoint, func(yield func([]byte, error) bool) {
				if yield(r.log[2].JSON, nil) { // by now the tail is in a buffer
					change(r)
					yield(r.log[3].JSON, nil)
				}
			})
			size := fileSize(t, r.path)
			switch {
			case size == 0: // never longer than somebody left it
				if err == nil {
					t.Error("Resume of a file that was emptied meanwhile returned nil")
				}
			case foreign == "": // more is not moved aside yet
				if err == nil || !bytes.HasSuffix(read(t, r.path), []byte("more\n")) {
					t.Errorf("a byte has been cut that came late, or %v", err)
				}
			case err != nil:
				t.Error(err)
			}
			want := r.lines(0, 2)
			if size == 0 {
				want = ""
			}
			r.mustResume()
			if got := string(read(t, r.path)); got != want {
				t.Errorf("the file is %q", got)
			}
			r.mustDeliver(2)
			var orphaned string
			for _, content := range r.orphans() {
				orphaned += content
			}
			if late := foreign + "more\n"; size != 0 && orphaned != late {
				t.Errorf("orphans hold %q, want %q", orphaned, late)
			}
		}
	}
}

// Resume reads a long tail and long lines piece by piece.
func TestFileResumeMemory(t *testing.T) {
	const size = 8 << 20
	r := newRig(t, "", 2)
	long := append(bytes.Repeat([]byte("x"), size), '\n')
	r.log[2].JSON = long[:size]
	r.add(string(long) + string(long))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	report, err := r.file.Resume(t.Context(), r.checkpoint, func(yield func([]byte, error) bool) { yield(long[:size], nil) })
	runtime.ReadMemStats(&after)
	if err != nil || report.CutBytes != size+1 || report.OrphanPath == "" {
		t.Fatalf("%+v, %v", report, err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 512<<10 {
		t.Errorf("Resume allocated %d bytes", used)
	}
}

// FuzzFileResume puts any bytes behind any number of our own: each event is in
// the file once in the end, and every foreign byte is in an orphan.
func FuzzFileResume(f *testing.F) {
	all := newRig(f, "", 0).lines(3, 10)
	f.Add(uint16(0), []byte("foreign"))
	f.Add(uint16(700), []byte("\n"))
	f.Add(uint16(len(all)), []byte(`{"specversion":"1.0","id":"`))
	f.Add(uint16(450), []byte{})
	f.Add(uint16(0), []byte(all[:600]))
	f.Fuzz(func(t *testing.T, ours uint16, random []byte) {
		r := newRig(t, "", 3)
		committed := r.lines(0, 3)
		tail := all[:min(int(ours), len(all))] + string(random)
		r.add(tail)
		r.crash()
		report := r.mustResume()
		cut, orphan := tail[:report.CutBytes], tail[report.CutBytes:]
		if !strings.HasPrefix(all, cut) {
			t.Errorf("cut bytes that are not ours: %q", cut)
		}
		if orphan == "" {
			r.finish(committed)
			return
		}
		if cut != "" && !strings.HasSuffix(cut, "\n") {
			t.Errorf("cut a part of a line that is not the last: %q", cut)
		}
		r.finish(committed, orphan)
	})
}
