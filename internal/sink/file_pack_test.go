package sink_test

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"syncd/internal/sink"
)

// lockFile locks a file as another process would.
func lockFile(t *testing.T, path string) (unlock func()) {
	t.Helper()
	locked, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(locked.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return func() { locked.Close() }
}

// A compression that fails, or a file that cannot be read, is told once and tried
// again; the others are compressed, and the sink goes on.
func TestFileCompressionFails(t *testing.T) {
	inWorld(t, sink.FileConfig{Rotate: sink.Rotate{Size: 1, Compress: true}}, 5, func(w *world) {
		w.must(1)
		w.must(1)
		unlock := lockFile(t, w.inDir(rotated(1, ".ndjson")))
		w.rest()
		w.wantNames(rotated(1, ".ndjson"), rotated(2, ".ndjson.zst"), "events.ndjson")
		for range 3 {
			time.Sleep(time.Minute)
			w.rest()
		}
		if len(w.notes) != 1 || !strings.Contains(w.notes[0], "locked") {
			t.Errorf("it says %q", w.notes)
		}
		unlock()
		time.Sleep(time.Minute)
		w.rest()
		w.wantNames(rotated(1, ".ndjson.zst"), rotated(2, ".ndjson.zst"), "events.ndjson")

		w.must(1)
		w.setFault(func(_ int, step string, op func() error) error {
			if step == "write" {
				return errors.Join(op(), syscall.ENOSPC)
			}
			return op()
		})
		w.rest()
		w.wantNames(rotated(1, ".ndjson.zst"), rotated(2, ".ndjson.zst"), rotated(3, ".ndjson"), "events.ndjson") // no draft
		if len(w.notes) != 2 || !strings.Contains(w.notes[1], "no space left") {
			t.Errorf("it says %q", w.notes)
		}
		w.setFault(nil)
		for range 2 {
			w.must(1)
		}
		if fileSize(t, w.inDir(rotated(3, ".ndjson"))) == 0 {
			t.Error("the file that could not be compressed is empty")
		}
		time.Sleep(time.Minute)
		w.rest()
		w.wantNames(rotated(1, ".ndjson.zst"), rotated(2, ".ndjson.zst"), rotated(3, ".ndjson.zst"), rotated(4, ".ndjson.zst"),
			rotated(5, ".ndjson.zst"), "events.ndjson")
		w.check()
	})
}

// A compressed file that does not hold what the file holds does not replace it.
func TestFileCompressionChecked(t *testing.T) {
	inWorld(t, sink.FileConfig{Rotate: sink.Rotate{Size: 1, Compress: true}}, 1, func(w *world) {
		w.must(1)
		w.setFault(func(_ int, step string, op func() error) error {
			if draft := w.inDir(rotated(1, ".ndjson.zst.tmp")); step == "sync" {
				os.Truncate(draft, fileSize(t, draft)-1)
			}
			return op()
		})
		w.rest()
		w.wantNames(rotated(1, ".ndjson"), "events.ndjson")
		if len(w.notes) != 1 || !strings.Contains(w.notes[0], ".tmp") {
			t.Errorf("it says %q", w.notes)
		}
		w.finish()
		w.wantNames(rotated(1, ".ndjson.zst"), "events.ndjson")
		w.check()
	})
}

// What a crash has left of a compression is completed, also where nothing is to
// be compressed any more; a compressed file that is not whole replaces nothing.
func TestFileCompressionLeftovers(t *testing.T) {
	for _, compress := range []bool{true, false} {
		inWorld(t, sink.FileConfig{Rotate: sink.Rotate{Size: 1, Compress: true}}, 4, func(w *world) {
			plain := make(map[int][]byte)
			for i := range 4 {
				w.must(1)
				plain[i+1] = read(t, w.cfg.Path)
			}
			w.rest()
			packed := read(t, w.inDir(rotated(2, ".ndjson.zst")))
			for name, content := range map[string][]byte{
				rotated(1, ".ndjson"):         plain[1], // the crash came before this was deleted
				rotated(2, ".ndjson"):         plain[2],
				rotated(2, ".ndjson.zst"):     packed[:len(packed)-1], // of a power cut that a disk has lied about
				rotated(3, ".ndjson.zst.tmp"): packed[:9],
			} {
				if err := os.WriteFile(w.inDir(name), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			w.cfg.Rotate.Compress = compress
			w.restart()
			w.must(0)
			w.rest()
			second := rotated(2, ".ndjson")
			if compress {
				second = rotated(2, "-2.ndjson.zst")
			}
			if err := os.Remove(w.inDir(rotated(2, ".ndjson.zst"))); err != nil {
				t.Fatal(err)
			}
			want := []string{rotated(1, ".ndjson.zst"), second, rotated(3, ".ndjson.zst"), rotated(4, ".ndjson.zst"), "events.ndjson"}
			w.wantNames(want...)
			w.check()
		})
	}
}

// Rotated files that are not to be compressed are left alone: whoever has one open or
// locked is no trouble.
func TestFileNotCompressed(t *testing.T) {
	for _, keep := range []int{0, 5} {
		inWorld(t, sink.FileConfig{Rotate: sink.Rotate{Size: 1, Keep: keep}}, 3, func(w *world) {
			w.must(1)
			w.must(1)
			defer lockFile(t, w.inDir(rotated(1, ".ndjson")))()
			w.must(1)
			w.rest()
			if len(w.notes) != 0 {
				t.Errorf("it says %q", w.notes)
			}
			w.wantNames(rotated(1, ".ndjson"), rotated(2, ".ndjson"), rotated(3, ".ndjson"), "events.ndjson")
			w.check()
		})
	}
}

// Close does not wait for a compression.
func TestFileCloseBreaksOff(t *testing.T) {
	inWorld(t, sink.FileConfig{Rotate: sink.Rotate{Size: 1, Compress: true}}, 2, func(w *world) {
		w.rest() // the pass of the start is over
		w.must(1)
		reached := make(chan struct{})
		w.setFault(func(_ int, step string, op func() error) error {
			if step == "write" && w.position == 2 {
				close(reached)
				time.Sleep(time.Hour) // Close has broken it off by then
			}
			return op()
		})
		w.must(1)
		w.must(0) // rotates the second as well
		w.must(0) // begins the compression
		<-reached
		if err := w.file.Close(); err != nil {
			t.Error(err)
		}
		w.wantNames(rotated(1, ".ndjson"), rotated(2, ".ndjson"), "events.ndjson")
		w.start()
		w.finish()
		w.wantNames(rotated(1, ".ndjson.zst"), rotated(2, ".ndjson.zst"), "events.ndjson")
		w.check()
	})
}
