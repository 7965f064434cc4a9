package sink_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sink"
)

var syncModes = map[string]sink.SyncMode{"commit": sink.SyncCommit, "interval": sink.SyncInterval, "none": sink.SyncNone}

// Each step on the disk and each commit in turn is the last of the process, or
// fails, or fails although it took effect: each event is in one file in the end,
// and nothing but a failure is said.
func TestFileCrashMatrix(t *testing.T) {
	for name, mode := range syncModes {
		for _, kind := range []string{"killed before", "killed after", "failed", "failed but took effect"} {
			t.Run(name+", "+kind, func(t *testing.T) {
				seen := make(map[string]bool)
				for at, total := 0, 1; at < total; at++ {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t, sink.FileConfig{Sync: mode, Rotate: sink.Rotate{Size: 800, Compress: true}}, 5)
						w.fault = func(n int, step string, op func() error) error {
							if n != at {
								return op()
							}
							seen[step] = true
							if kind == "killed after" || kind == "failed but took effect" {
								if err := op(); err != nil {
									return err
								}
							}
							if strings.HasPrefix(kind, "failed") {
								return fmt.Errorf("%s: %w", step, syscall.ENOSPC)
							}
							w.dead = true
							return errKilled
						}
						for w.position < len(w.log) && !w.isDead() {
							if w.step(2) != nil {
								time.Sleep(time.Second)
							}
							if w.read == w.position {
								continue
							}
							if w.read-w.position > 2 || w.read == len(w.log) { // a second is over
								w.resumed = w.settle() == nil
							}
						}
						for !w.isDead() && !w.tended.Next.IsZero() { // it may come in the background
							time.Sleep(time.Minute)
							w.step(0)
						}
						w.finish()
						w.check()
						for _, note := range w.notes {
							if !strings.Contains(note, errKilled.Error()) && !strings.Contains(note, syscall.ENOSPC.Error()) {
								t.Errorf("%s at %d, %s: it says %q", kind, at, w.steps[at], note)
							}
						}
						total = max(total, len(w.steps))
					})
				}
				for _, step := range []string{"create", "write", "sync", "sync directory", "claim", "rename", "remove", "commit"} {
					if !seen[step] {
						t.Errorf("no %s was tried", step)
					}
				}
			})
		}
	}
}

// Random kills, failures, full disks, rotations of our own and of logrotate, and
// foreign lines: in the end each event is in one file, and so is each foreign line.
func TestFileProperty(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rnd, disk := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2)) // the second for what is done in steps
				modes := []sink.SyncMode{sink.SyncCommit, sink.SyncInterval, sink.SyncNone}
				w := newWorld(t, sink.FileConfig{Sync: modes[rnd.IntN(3)],
					Rotate: sink.Rotate{Size: int64(rnd.IntN(3) * 1500), Every: time.Duration(rnd.IntN(2)) * time.Minute, Compress: rnd.IntN(2) == 0}}, 120)
				full, kills := false, rnd.IntN(2) == 0
				calm := false // nobody is killed now
				w.fault = func(_ int, step string, op func() error) error {
					switch {
					case full && step == "write":
						// What still fits is written.
						before, err := os.Stat(w.cfg.Path)
						if err != nil || op() != nil {
							return syscall.ENOSPC
						}
						if after, err := os.Stat(w.cfg.Path); err == nil && after.Size() > before.Size() {
							if err := os.Truncate(w.cfg.Path, before.Size()+disk.Int64N(after.Size()-before.Size())); err != nil {
								t.Error(err)
							}
						}
						return syscall.ENOSPC
					case full && (step == "create" || step == "claim"):
						return syscall.ENOSPC
					case kills && !calm && disk.IntN(40) == 0:
						if disk.IntN(2) == 0 {
							if err := op(); err != nil {
								return err
							}
						}
						w.dead = true
						return errKilled
					}
					return op()
				}
				touched := false // somebody has written behind what is not committed
				for taken := 0; w.position < len(w.log); {
					if w.isDead() {
						if !touched && rnd.IntN(2) == 0 {
							if err := os.Rename(w.cfg.Path, fmt.Sprint(w.cfg.Path, ".", taken)); err != nil && !errors.Is(err, os.ErrNotExist) {
								t.Fatal(err)
							}
							taken++
						}
						w.restart()
					}
					w.mu.Lock()
					full = rnd.IntN(8) == 0
					w.mu.Unlock()
					err := w.step(1 + rnd.IntN(6))
					touched = touched && err != nil
					if err == nil && rnd.IntN(3) == 0 {
						w.resumed = w.settle() == nil
					}
					time.Sleep(time.Duration(rnd.IntN(20)) * time.Second)
					if rnd.IntN(10) == 0 {
						w.addForeign()
						touched = true
					} else if w.resumed && rnd.IntN(6) == 0 && !w.isDead() {
						// What goes where nobody finds it after a kill is settled first.
						w.mu.Lock()
						full, calm = false, true
						w.mu.Unlock()
						w.takeAway(rnd.IntN(4), taken)
						taken++
						if w.resumed = w.step(1) == nil; w.resumed {
							w.resumed = w.settle() == nil
						}
						w.mu.Lock()
						calm = false
						w.mu.Unlock()
					}
				}
				w.finish()
				w.check()
				for _, name := range w.names() {
					if w.cfg.Rotate.Compress && rotatedName.MatchString("sink/"+name) && !strings.HasSuffix(name, ".zst") {
						t.Errorf("%s is not compressed", name)
					}
				}
			})
		})
	}
}

// takeAway is what logrotate does.
func (w *world) takeAway(how, n int) {
	w.t.Helper()
	dir := filepath.Join(filepath.Dir(filepath.Dir(w.cfg.Path)), "taken")
	to := filepath.Join(dir, fmt.Sprintf("events.ndjson.%d", n))
	var err error
	switch how {
	case 0, 1: // delete is a rename out of sight
		if err = os.Rename(w.cfg.Path, to); err == nil && how == 1 {
			err = os.WriteFile(w.cfg.Path, nil, 0o640)
		}
	case 2:
		var from, copied *os.File
		if from, err = os.Open(w.cfg.Path); err == nil {
			copied, err = os.Create(to)
		}
		if err == nil {
			_, err = io.Copy(copied, from)
			err = errors.Join(err, from.Close(), copied.Close(), os.Truncate(w.cfg.Path, 0))
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
}
