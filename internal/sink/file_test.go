package sink_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"syncd/internal/event"
	"syncd/internal/sink"
	"syncd/internal/sink/sinktest"
)

func newFile(t testing.TB, path string) *sink.File {
	t.Helper()
	f, err := sink.NewFile(sink.FileConfig{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// alone runs the calling test again in a process of its own, and reports whether
// it has, so that the caller returns. limitFileSize needs it: its limit would
// also hit the files that package testing writes.
func alone(t *testing.T) bool {
	t.Helper()
	const mark = "SYNCD_TEST_ALONE"
	if os.Getenv(mark) == t.Name() {
		return false
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), mark+"="+t.Name())
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("%v\n%s", err, out)
	}
	return true
}

// limitFileSize lets no file of this process grow beyond n bytes until the
// returned function is called: to the process it is a full disk, which takes
// the bytes that still fit. The test must be alone.
func limitFileSize(t *testing.T, n int64) (lift func()) {
	t.Helper()
	signal.Ignore(syscall.SIGXFSZ)
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: uint64(n), Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
			t.Error(err)
		}
	}
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func TestFileContract(t *testing.T) {
	if alone(t) {
		return
	}
	sinktest.Run(t, func(t *testing.T) *sinktest.Harness {
		path := filepath.Join(t.TempDir(), "events.ndjson")
		var lift func()
		return &sinktest.Harness{
			Sink:     newFile(t, path),
			Received: func(t *testing.T) [][]byte { return splitLines(t, read(t, path)) },
			Break:    func(t *testing.T) { lift = limitFileSize(t, fileSize(t, path)+200) },
			Repair:   func(t *testing.T) { lift() },
			Reopen:   func(t *testing.T) sink.Sink { return newFile(t, path) },
		}
	})
}

// A rig is a file sink in a directory of its own, with a log before it and a
// record of what is committed, as delivery and the state keep it.
type rig struct {
	t          testing.TB
	path       string
	log        []event.Logged
	file       *sink.File
	checkpoint []byte
	position   int
}

// newRig returns a rig whose file already has the given content and, where
// committed is positive, that many committed lines behind it.
func newRig(t testing.TB, content string, committed int) *rig {
	t.Helper()
	r := &rig{t: t, path: filepath.Join(t.TempDir(), "events.ndjson"), log: sinktest.Events(10)}
	if content != "" {
		r.put(content)
	}
	r.file = newFile(t, r.path)
	if committed > 0 {
		r.mustResume()
		r.mustDeliver(committed)
	}
	return r
}

// crash throws the sink away. What it wrote and did not commit stays.
func (r *rig) crash() {
	r.t.Helper()
	if err := r.file.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.file = newFile(r.t, r.path)
}

func (r *rig) mustResume() sink.Report {
	r.t.Helper()
	report, err := r.file.Resume(r.t.Context(), r.checkpoint, sinktest.Lines(r.log[r.position:]))
	if err != nil {
		r.t.Fatal(err)
	}
	r.checkpoint = r.file.Checkpoint()
	return report
}

func (r *rig) deliver(n int) error {
	return r.file.Deliver(r.t.Context(), r.log[r.position:r.position+n])
}

func (r *rig) mustDeliver(n int) {
	r.t.Helper()
	if err := r.deliver(n); err != nil {
		r.t.Fatal(err)
	}
	r.position += n
	r.checkpoint = r.file.Checkpoint()
}

// lines returns the lines from i to before j as they stand in the file.
func (r *rig) lines(i, j int) string {
	var b strings.Builder
	for _, e := range r.log[i:j] {
		b.Write(e.JSON)
		b.WriteByte('\n')
	}
	return b.String()
}

func (r *rig) put(content string) {
	r.t.Helper()
	if err := os.WriteFile(r.path, []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) add(content string) {
	r.t.Helper()
	f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(content); err != nil {
		r.t.Fatal(err)
	}
}

// orphans returns the contents of all orphans by name.
func (r *rig) orphans() map[string]string {
	r.t.Helper()
	names, err := filepath.Glob(r.path + ".orphan-*")
	if err != nil {
		r.t.Fatal(err)
	}
	found := make(map[string]string)
	for _, name := range names {
		found[name] = string(read(r.t, name))
	}
	return found
}

// finish delivers the rest of the log and checks the file and its orphans.
func (r *rig) finish(want string, orphans ...string) {
	r.t.Helper()
	want += r.lines(r.position, len(r.log))
	r.mustDeliver(len(r.log) - r.position)
	if got := string(read(r.t, r.path)); got != want {
		r.t.Errorf("the file is\n%s\nand should be\n%s", got, want)
	}
	found := r.orphans()
	if len(found) != len(orphans) {
		r.t.Errorf("%d orphans instead of %d: %q", len(found), len(orphans), found)
	}
	for _, want := range orphans {
		ok := false
		for _, got := range found {
			ok = ok || got == want
		}
		if !ok {
			r.t.Errorf("no orphan holds %q; there are %q", want, found)
		}
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// watched is a context that calls a function when it is looked at, which the
// sink does before each line.
type watched struct {
	context.Context
	look func(n int) error // n counts from 0
	n    int
}

func (c *watched) Err() error {
	c.n++
	return c.look(c.n - 1)
}

// Somebody appends between the look at the file and the write.
func TestFileAppendedInDeliver(t *testing.T) {
	r := newRig(t, "", 2)
	ctx := &watched{Context: t.Context(), look: func(i int) error {
		if i == 2 {
			r.add("foreign\n")
		}
		return nil
	}}
	if err := r.file.Deliver(ctx, r.log[2:5]); err == nil {
		t.Fatal("Deliver returned nil")
	}
	r.mustResume()
	r.finish(r.lines(0, 2), "foreign\n"+r.lines(2, 5))
}

// The context ends between two lines of one Deliver.
func TestFileCancelledInDeliver(t *testing.T) {
	for n := range 5 {
		r := newRig(t, "", 2)
		long := strings.Repeat("x", 300<<10) // more than is buffered
		for i := range r.log[2:] {
			r.log[2+i] = sinktest.Event(2+i, `"`+long+`"`)
		}
		ctx := &watched{Context: t.Context(), look: func(i int) error {
			if i >= n {
				return context.Canceled
			}
			return nil
		}}
		if err := r.file.Deliver(ctx, r.log[2:6]); !errors.Is(err, context.Canceled) {
			t.Fatalf("ended after %d looks: %v", n, err)
		}
		if size := fileSize(t, r.path); n > 2 && size < int64(len(long)) {
			t.Errorf("ended after %d looks: only %d bytes have been written", n, size)
		}
		r.mustResume()
		r.finish(r.lines(0, 2))
	}
}

// The ways in which logrotate takes a file away, without a crash, with one
// after the first Deliver into the new file, and with one after its commit.
func TestFileRotatedByOthers(t *testing.T) {
	rename := func(t *testing.T, r *rig) {
		if err := os.Rename(r.path, r.path+".1"); err != nil {
			t.Fatal(err)
		}
	}
	for _, rotation := range []struct {
		name   string
		rotate func(t *testing.T, r *rig)
		old    bool // a copy of the old content stays in .1
	}{
		{"nocreate", rename, true},
		{"create", func(t *testing.T, r *rig) { rename(t, r); r.put("") }, true},
		{"copytruncate", func(t *testing.T, r *rig) {
			if err := os.WriteFile(r.path+".1", read(t, r.path), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(r.path, 0); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"remove", func(t *testing.T, r *rig) {
			if err := os.Remove(r.path); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		for committed := 1; committed <= 4; committed++ { // old file shorter and longer than the new one
			for _, crash := range []string{"never", "before Deliver", "in Deliver", "before commit", "after commit"} {
				t.Run(fmt.Sprintf("%s of %d lines, crash %s", rotation.name, committed, crash), func(t *testing.T) {
					r := newRig(t, "", committed)
					old := read(t, r.path)
					rotation.rotate(t, r)
					switch crash {
					case "before Deliver":
						r.crash()
						if r.mustResume().Note == "" {
							t.Error("a file that is gone gets no note")
						}
					case "in Deliver", "before commit":
						if err := r.deliver(3); err != nil {
							t.Fatal(err)
						}
						if crash == "in Deliver" {
							if err := os.Truncate(r.path, fileSize(t, r.path)-100); err != nil {
								t.Fatal(err)
							}
						}
						size := fileSize(t, r.path)
						r.crash()
						if report := r.mustResume(); report.CutBytes != size || report.OrphanPath != "" || report.Note == "" {
							t.Errorf("report: %+v", report)
						}
					case "after commit":
						r.mustDeliver(3)
						r.crash()
						if report := r.mustResume(); report != (sink.Report{}) {
							t.Errorf("report: %+v", report)
						}
					}
					r.finish(r.lines(committed, r.position))
					if rotation.old && !bytes.Equal(read(t, r.path+".1"), old) {
						t.Error("the old file has changed")
					}
				})
			}
		}
	}
}

// The disk is full in the middle of a Deliver, and the operator makes room by
// rotating: the half that was written is not left in the rotated file.
func TestFileRotatedWhenFull(t *testing.T) {
	if alone(t) {
		return
	}
	for _, foreign := range []string{"", "foreign\n"} {
		r := newRig(t, "", 2)
		lift := limitFileSize(t, fileSize(t, r.path)+700)
		err := r.deliver(5)
		lift()
		if err == nil {
			t.Fatal("Deliver to a full disk returned nil")
		}
		r.add(foreign)
		want := r.lines(0, 2)
		if foreign != "" {
			want = string(read(t, r.path)) // theirs now
		}
		if err := os.Rename(r.path, r.path+".1"); err != nil {
			t.Fatal(err)
		}
		r.mustResume()
		r.finish("")
		if got := string(read(t, r.path+".1")); got != want {
			t.Errorf("the rotated file is %q", got)
		}
	}
}

func TestFileFullDisk(t *testing.T) {
	if alone(t) {
		return
	}
	r := newRig(t, "", 2)
	for room := range int64(3) {
		lift := limitFileSize(t, fileSize(t, r.path)+room*500)
		err := r.deliver(5)
		_, resumeErr := r.file.Resume(t.Context(), r.checkpoint, sinktest.Lines(r.log[r.position:]))
		lift()
		if e := sink.AsError(err); err == nil || e.Kind != sink.Temporary || !errors.Is(err, syscall.EFBIG) {
			t.Fatalf("with room for %d bytes: %v", room*500, err)
		}
		if resumeErr != nil {
			t.Fatalf("Resume on a full disk: %v", resumeErr)
		}
		if got := string(read(t, r.path)); got != r.lines(0, 2) {
			t.Fatalf("after Resume: %q", got)
		}
	}
	r.finish(r.lines(0, 2))
}

func TestFileLocked(t *testing.T) {
	r := newRig(t, "", 1)
	check := func() {
		t.Helper()
		other := newFile(t, r.path)
		_, err := other.Resume(t.Context(), nil, sinktest.Lines(nil))
		if err == nil || !strings.Contains(err.Error(), "locked by another process") {
			t.Errorf("Resume of a second sink: %v", err)
		}
		if err := other.Deliver(t.Context(), r.log[:1]); err == nil {
			t.Error("Deliver of a second sink returned nil")
		}
	}
	check()
	if err := os.Rename(r.path, r.path+".1"); err != nil {
		t.Fatal(err)
	}
	r.mustDeliver(1)
	check()
	r.mustResume()
	check()
	if err := r.file.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := newFile(t, r.path).Resume(t.Context(), nil, sinktest.Lines(nil)); err != nil {
		t.Errorf("Resume after Close: %v", err)
	}
}

func TestFileKinds(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.Mkdir(at("dir"), 0o700),
		syscall.Mkfifo(at("fifo"), 0o600),
		os.Symlink("loop", at("loop")),
		os.Symlink("dir", at("to-dir")),
		os.Symlink("/dev/full", at("to-device")),
		os.WriteFile(at("plain"), nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ path, want string }{
		{"", "no path"},
		{at("dir"), "is a directory"},
		{at("to-dir"), "is a directory"},
		{at("fifo"), "is a FIFO"},
		{at("to-device"), "is a device"},
		{at("loop"), "too many symbolic links"},
		{at("plain") + "/events", "not a directory"},
	} {
		if _, err := sink.NewFile(sink.FileConfig{Path: test.path}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("NewFile of %s: %v", test.path, err)
		}
	}
	if _, err := sink.NewFile(sink.FileConfig{Path: at("x"), Mode: fs.ModeSetuid | 0o600}); err == nil {
		t.Error("NewFile with the mode of a set-uid file returned nil")
	}

	// What is put there later is refused by Resume and by Deliver.
	f := newFile(t, at("later"))
	if err := os.Symlink("fifo", at("later")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Resume(t.Context(), nil, sinktest.Lines(nil)); err == nil || !strings.Contains(err.Error(), "is a FIFO") {
		t.Errorf("Resume of a FIFO: %v", err)
	}
	r := newRig(t, "", 1)
	if err := os.Remove(r.path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(r.path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := r.deliver(1); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("Deliver to a directory: %v", err)
	}

	missing := newFile(t, at("missing/events"))
	if _, err := missing.Resume(t.Context(), nil, sinktest.Lines(nil)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Resume in a directory that does not exist: %v", err)
	}
	if err := os.Mkdir(at("missing"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := missing.Resume(t.Context(), nil, sinktest.Lines(nil)); err != nil {
		t.Errorf("Resume when the directory is there: %v", err)
	}
}

// A link stays a link, whether its file exists, is rotated, or is replaced.
func TestFileSymlink(t *testing.T) {
	r := newRig(t, "", 0)
	dir := filepath.Dir(r.path)
	if err := os.Mkdir(filepath.Join(dir, "disk"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("middle", r.path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("disk/real", filepath.Join(dir, "middle")); err != nil {
		t.Fatal(err)
	}
	real := filepath.Join(dir, "disk", "real")
	r.mustResume() // creates it through both links
	r.mustDeliver(2)
	if err := os.Rename(real, real+".1"); err != nil {
		t.Fatal(err)
	}
	r.mustDeliver(2)
	r.crash()
	if err := os.WriteFile(real, []byte("foreign\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	report := r.mustResume()
	if filepath.Dir(report.OrphanPath) != filepath.Dir(real) {
		t.Errorf("report: %+v", report)
	}
	if info, err := os.Lstat(r.path); err != nil || info.Mode().Type() != fs.ModeSymlink {
		t.Errorf("the link is %v, %v", info.Mode(), err)
	}
	r.finish("")
}

func TestFileMode(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	path := filepath.Join(t.TempDir(), "events.ndjson")
	for _, mode := range []fs.FileMode{0, 0o600} {
		f, err := sink.NewFile(sink.FileConfig{Path: path, Mode: mode})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Resume(t.Context(), nil, sinktest.Lines(nil)); err != nil {
			t.Fatal(err)
		}
		f.Close()
		info, err := os.Stat(path)
		if want := map[fs.FileMode]fs.FileMode{0: 0o640, 0o600: 0o600}[mode]; err != nil || info.Mode() != want {
			t.Errorf("mode %v, %v; want %v", info.Mode(), err, want)
		}
		os.Remove(path)
	}
}

func BenchmarkFileDeliver(b *testing.B) {
	events := make([]event.Logged, 100)
	bytes := 0
	for i := range events {
		events[i] = sinktest.Event(i, `{"text":"`+strings.Repeat("x", 230)+`"}`)
		bytes += len(events[i].JSON) + 1
	}
	f := newFile(b, filepath.Join(b.TempDir(), "events.ndjson"))
	if _, err := f.Resume(b.Context(), nil, sinktest.Lines(nil)); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(bytes))
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Deliver(b.Context(), events); err != nil {
			b.Fatal(err)
		}
		f.Checkpoint()
	}
	b.ReportMetric(float64(len(events)*b.N)/b.Elapsed().Seconds(), "events/s")
}
