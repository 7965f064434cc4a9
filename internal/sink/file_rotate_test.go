package sink_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sink"
)

// inWorld runs a test in a bubble.
func inWorld(t *testing.T, cfg sink.FileConfig, events int, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(newWorld(t, cfg, events)) })
}

// must delivers and commits up to n events.
func (w *world) must(n int) {
	w.t.Helper()
	if err := errors.Join(w.step(n), w.settle()); err != nil {
		w.t.Fatal(err)
	}
}

// rest waits until the sink has nothing more to do soon.
func (w *world) rest() {
	w.t.Helper()
	for range 10 {
		w.must(0)
		if !w.tended.Busy && !w.tended.Next.Equal(time.Now()) {
			return
		}
		time.Sleep(time.Until(w.tended.Next))
	}
	w.t.Fatal("it does not come to rest")
}

func (w *world) inDir(name string) string { return filepath.Join(filepath.Dir(w.cfg.Path), name) }

func (w *world) wantNames(want ...string) {
	w.t.Helper()
	if got := w.names(); !slices.Equal(got, want) {
		w.t.Errorf("there are %q, want %q", got, want)
	}
}

func rotated(seq int, rest string) string { return fmt.Sprintf("events-%020d%s", seq, rest) }

func TestFileRotatesBySize(t *testing.T) {
	line := int64(len(newWorld(t, sink.FileConfig{}, 1).log[0].JSON) + 1)
	for _, test := range []struct {
		name string
		size int64
		want []string
	}{
		// A file ends with the event that reaches the size.
		{"on a line", 3 * line, []string{rotated(1, ".ndjson"), rotated(4, ".ndjson"), "events.ndjson"}},
		{"inside a line", 3*line - 1, nil},
		{"a line is longer", 1, []string{rotated(1, ".ndjson"), rotated(2, ".ndjson"), rotated(3, ".ndjson"), rotated(4, ".ndjson"),
			rotated(5, ".ndjson"), rotated(6, ".ndjson"), rotated(7, ".ndjson"), rotated(8, ".ndjson"), "events.ndjson"}},
		{"never", 9*line + 1, []string{"events.ndjson"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			inWorld(t, sink.FileConfig{Rotate: sink.Rotate{Size: test.size}}, 9, func(w *world) {
				for w.position < 9 {
					w.must(9)
				}
				if test.name == "inside a line" { // the piece ends before the line that does not fit, which then goes alone
					w.check()
					for name, content := range w.contents() {
						if int64(len(content)) > test.size+line {
							t.Errorf("%s has %d bytes", name, len(content))
						}
					}
					return
				}
				w.wantNames(test.want...)
				w.check()
			})
		})
	}
}

func TestFileRotatesByAge(t *testing.T) {
	inWorld(t, sink.FileConfig{Rotate: sink.Rotate{Every: 24 * time.Hour}}, 5, func(w *world) {
		w.rest()
		time.Sleep(72 * time.Hour) // an empty file has no age
		w.must(1)
		begun := time.Now()
		time.Sleep(10 * time.Hour)
		w.must(1)
		if d := time.Until(w.tended.Next); d <= 0 || d > time.Hour { // the clock may jump
			t.Errorf("it asks to be called in %v", d)
		}
		w.restart() // the age is that of the file, not of the process
		w.must(0)
		for w.tended.Next.Before(begun.Add(24 * time.Hour)) {
			time.Sleep(time.Until(w.tended.Next))
			w.must(0)
			w.wantNames("events.ndjson")
		}
		time.Sleep(time.Until(w.tended.Next))
		w.must(0) // no event has come
		w.wantNames(rotated(1, ".ndjson"), "events.ndjson")
		w.rest()
		if !w.tended.Next.IsZero() {
			t.Error("an empty file has a next rotation")
		}
		time.Sleep(48 * time.Hour)
		w.must(3)
		w.wantNames(rotated(1, ".ndjson"), "events.ndjson")
		w.check()
	})
}

// The clock was wrong by years when the file was begun, or is now.
func TestFileRotationClock(t *testing.T) {
	for _, years := range []int{-20, 20} {
		inWorld(t, sink.FileConfig{Rotate: sink.Rotate{Every: time.Hour}}, 40, func(w *world) {
			w.must(1)
			var mark map[string]any
			if err := json.Unmarshal(w.checkpoint, &mark); err != nil {
				t.Fatal(err)
			}
			mark["begun"] = time.Now().AddDate(years, 0, 0).UnixMilli()
			w.checkpoint, _ = json.Marshal(mark)
			w.restart()
			for range 20 { // 10 minutes
				w.must(1)
				time.Sleep(30 * time.Second)
			}
			early := 0
			if years < 0 {
				early = 1 // by what is known it was due
			}
			if n := len(w.names()) - 1; n != early {
				t.Errorf("%d years: %d rotations in 10 minutes", years, n)
			}
			time.Sleep(time.Hour)
			w.must(1)
			w.must(1)
			if n := len(w.names()) - 1; n != early+1 {
				t.Errorf("%d years: %d rotations in an hour and 10 minutes", years, n)
			}
		})
	}
}

// Of all that looks like a rotated file, only our own old ones are deleted.
func TestFileKeep(t *testing.T) {
	for _, compress := range []bool{false, true} {
		inWorld(t, sink.FileConfig{Rotate: sink.Rotate{Size: 1, Keep: 2, Compress: compress}}, 6, func(w *world) {
			others := []string{
				"events-1.ndjson", "events-.ndjson", rotated(1, ""), rotated(1, ".ndjson.gz"), rotated(1, ".ndjson.bak"), rotated(1, ".json"),
				rotated(1, "-1.ndjson"), rotated(1, "-02.ndjson"), rotated(1, "-10.ndjson"), rotated(1, "-x.ndjson"), rotated(1, ".ndjson.zst.orphan"),
				"events-+0000000000000000001.ndjson", "events-99999999999999999999.ndjson", "x" + rotated(1, ".ndjson"),
				"other-00000000000000000001.ndjson", rotated(1, ".NDJSON"),
				rotated(7, ".ndjson"), rotated(100, ".ndjson.zst"), // of a later state than this one
			}
			for _, name := range others {
				if err := os.WriteFile(w.inDir(name), []byte("foreign\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(os.Mkdir(w.inDir(rotated(0, ".ndjson")), 0o700), os.Symlink("x", w.inDir(rotated(0, ".ndjson.zst")))); err != nil {
				t.Fatal(err)
			}
			for range 6 {
				w.must(1)
				w.rest()
			}
			ext := ".ndjson"
			if compress {
				ext = ".ndjson.zst"
			}
			want := append(others, "events.ndjson", rotated(5, ext), rotated(6, ext), rotated(0, ".ndjson"), rotated(0, ".ndjson.zst"))
			slices.Sort(want)
			entries, err := os.ReadDir(w.inDir(""))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range entries {
				got = append(got, e.Name())
			}
			if !slices.Equal(got, want) {
				t.Errorf("there are\n%q, want\n%q", got, want)
			}
			if len(w.notes) > 0 {
				t.Errorf("it says %q", w.notes)
			}
		})
	}
}

// What has a rotated file's name stays as it is.
func TestFileRotatedNameTaken(t *testing.T) {
	inWorld(t, sink.FileConfig{Rotate: sink.Rotate{Size: 1, Compress: true}}, 3, func(w *world) {
		const theirs = "not even zstd"
		taken := []string{rotated(1, ".ndjson"), rotated(2, ".ndjson.zst"), rotated(2, "-2.ndjson.zst")}
		for _, name := range taken {
			if err := os.WriteFile(w.inDir(name), []byte(theirs), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			w.must(1)
		}
		w.rest()
		// What has the name of a rotated file is compressed as one.
		if got := unpack(t, read(t, w.inDir(rotated(1, ".ndjson.zst")))); string(got) != theirs {
			t.Errorf("their file has become %q", got)
		}
		for _, name := range taken[1:] {
			if got := read(t, w.inDir(name)); string(got) != theirs {
				t.Errorf("%s has become %q", name, got)
			}
			if err := os.Remove(w.inDir(name)); err != nil {
				t.Fatal(err)
			}
		}
		w.wantNames(rotated(1, "-2.ndjson.zst"), rotated(1, ".ndjson.zst"), rotated(2, "-3.ndjson.zst"), rotated(3, ".ndjson.zst"), "events.ndjson")
		w.check()
	})
}

// A rotation that fails is told once, tried again, and stalls nobody.
func TestFileRotationFails(t *testing.T) {
	for _, step := range []string{"claim", "rename"} {
		inWorld(t, sink.FileConfig{Rotate: sink.Rotate{Size: 1}}, 30, func(w *world) {
			w.must(1)
			tries := 0
			w.setFault(func(_ int, s string, op func() error) error {
				if s != step {
					return op()
				}
				tries++
				return syscall.EACCES
			})
			for range 20 { // 10 minutes
				w.must(1)
				time.Sleep(30 * time.Second)
			}
			if w.position != 21 || len(w.names()) > 2 || tries != 10 {
				t.Errorf("%s: at %d, %d tries, files %q", step, w.position, tries, w.names())
			}
			if len(w.notes) != 1 || !strings.Contains(w.notes[0], "permission denied") {
				t.Errorf("it says %q", w.notes)
			}
			w.setFault(nil)
			time.Sleep(time.Minute)
			w.must(1)
			w.wantNames(rotated(1, ".ndjson"), "events.ndjson")
			w.checkFirst(22)
		})
	}
}

// checkFirst is check of the first n events.
func (w *world) checkFirst(n int) {
	w.t.Helper()
	all := w.log
	w.log = w.log[:n]
	w.check()
	w.log = all
}

// logrotate comes to an idle sink, and beside our own rotation.
func TestFileTakenAwayWhenIdle(t *testing.T) {
	for how := range 3 {
		for _, rotate := range []sink.Rotate{{}, {Size: 1 << 20}, {Every: time.Hour}} {
			inWorld(t, sink.FileConfig{Rotate: rotate}, 6, func(w *world) {
				w.must(3)
				w.takeAway(how, 1)
				w.must(0)
				if size := fileSize(t, w.cfg.Path); size != 0 {
					t.Errorf("the new file has %d bytes", size)
				}
				w.restart()
				w.must(3)
				w.check()
				if len(w.notes) > 0 {
					t.Errorf("it says %q", w.notes)
				}
			})
		}
	}
}

// The file is taken away between Tend and Deliver: the new one has its own first
// event and age.
func TestFileTakenAwayBeforeDeliver(t *testing.T) {
	for how := range 3 {
		inWorld(t, sink.FileConfig{Rotate: sink.Rotate{Every: time.Hour}}, 5, func(w *world) {
			w.must(3)
			time.Sleep(50 * time.Minute)
			w.must(0)
			w.takeAway(how, 1)
			if err := w.file.Deliver(t.Context(), w.log[3:5]); err != nil {
				t.Fatal(err)
			}
			w.read = 5
			w.must(0)
			time.Sleep(30 * time.Minute)
			w.must(0)
			w.wantNames("events.ndjson")
			time.Sleep(30 * time.Minute)
			w.must(0)
			w.wantNames(rotated(4, ".ndjson"), "events.ndjson")
			w.check()
		})
	}
}

// A linked path: the files are rotated where they are, and the link stays.
func TestFileRotatesBehindSymlink(t *testing.T) {
	inWorld(t, sink.FileConfig{Rotate: sink.Rotate{Size: 1, Compress: true, Keep: 1}}, 4, func(w *world) {
		if err := os.Symlink("../taken/real.log", w.cfg.Path); err != nil {
			t.Fatal(err)
		}
		w.finish()
		found := w.contents()
		if len(found) != 3 || found["taken/real.log-00000000000000000004.ndjson.zst"] != w.wantLine(4) {
			t.Errorf("there are %q", found)
		}
		if info, err := os.Lstat(w.cfg.Path); err != nil || info.Mode().Type() != os.ModeSymlink {
			t.Errorf("the link is %v, %v", info, err)
		}
	})
}

func (w *world) wantLine(seq int) string { return string(w.log[seq-1].JSON) + "\n" }

// What is synced when: commit syncs each Deliver, interval only Sync, none nothing
// but what rotation renames.
func TestFileSyncModes(t *testing.T) {
	for name, mode := range syncModes {
		inWorld(t, sink.FileConfig{Sync: mode, Rotate: sink.Rotate{Every: time.Hour}}, 6, func(w *world) {
			want := map[string]string{
				"commit":   "write sync commit write sync commit | claim rename create sync directory commit",
				"interval": "write write sync commit | claim rename create sync directory commit",
				"none":     "write commit write commit | sync claim rename create sync directory commit",
			}[name]
			w.must(0)
			w.steps = nil
			if err := errors.Join(w.step(2), w.step(2)); err != nil {
				t.Fatal(err)
			}
			if mode == sink.SyncInterval {
				if w.position != 0 || w.file.SyncEvery() != time.Second {
					t.Errorf("position %d, a sync every %v", w.position, w.file.SyncEvery())
				}
				w.must(0)
			}
			w.steps = append(w.steps, "|")
			time.Sleep(time.Hour)
			w.must(0)
			if got := strings.Join(w.steps, " "); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		})
	}
}

// sync: interval, and somebody takes the file away while it holds what is not
// committed: no line is lost and none doubled.
func TestFileTakenAwayUnsynced(t *testing.T) {
	for how := range 3 {
		for _, sub := range []string{"", "full disk"} {
			inWorld(t, sink.FileConfig{Sync: sink.SyncInterval}, 8, func(w *world) {
				w.must(1)
				if err := w.step(2); err != nil {
					t.Fatal(err)
				}
				w.takeAway(how, 1)
				done := len(w.steps)
				if err := w.file.Deliver(t.Context(), w.log[3:5]); !errors.Is(err, sink.ErrTendFirst) {
					t.Fatalf("Deliver: %v", err)
				}
				if len(w.steps) != done {
					t.Errorf("it has done %q before what it holds was synced", w.steps[done:])
				}
				if sub != "" {
					w.setFault(func(_ int, step string, op func() error) error {
						if step == "create" {
							return syscall.ENOSPC
						}
						return op()
					})
					w.settleAndTend(how != 2) // the position has moved, the new file cannot be had
					w.setFault(nil)
				}
				w.finish()
				w.check()
			})
		}
	}
}

// settleAndTend settles, and tends, which fails if it has to.
func (w *world) settleAndTend(fails bool) {
	w.t.Helper()
	if err := w.settle(); err != nil {
		w.t.Fatal(err)
	}
	if err := w.step(0); (err != nil) != fails {
		w.t.Errorf("Tend: %v", err)
	}
}

// sync: none, and a power cut has taken what the position counts: it is told, and
// goes on.
func TestFilePowerCut(t *testing.T) {
	inWorld(t, sink.FileConfig{Sync: sink.SyncNone}, 6, func(w *world) {
		w.must(4)
		line := len(w.log[0].JSON) + 1
		if err := os.Truncate(w.cfg.Path, int64(2*line+line/2)); err != nil {
			t.Fatal(err)
		}
		w.restart()
		w.must(2)
		if len(w.notes) != 1 || !strings.Contains(w.notes[0], fmt.Sprintf("has lost %d of its %d bytes", 2*line-line/2, 4*line)) {
			t.Errorf("it says %q", w.notes)
		}
		lines := splitLines(t, read(t, w.cfg.Path))
		if len(lines) != 5 || string(lines[4]) != string(w.log[5].JSON) {
			t.Errorf("the file is %q", lines)
		}
	})
}

func TestFileConfigLimits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.ndjson")
	for _, cfg := range []sink.FileConfig{
		{Rotate: sink.Rotate{Size: -1}}, {Rotate: sink.Rotate{Every: -1}}, {Rotate: sink.Rotate{Keep: -1}}, {Sync: -1}, {Sync: 3},
	} {
		cfg.Path = path
		if _, err := sink.NewFile(cfg); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
}
