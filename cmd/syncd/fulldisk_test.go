//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/sandbox"
	"syncd/internal/state"
)

const noSpace = "no space left on device"

// smallDisk is a file system of some size that nobody else writes to.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("syncd-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", size)); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		// Before the directory is removed: Cleanup runs last in, first out.
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// fill leaves only so many bytes of a disk free, until the returned function is
// called.
func fill(t *testing.T, disk string, free int64) (empty func()) {
	t.Helper()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(disk, &fs); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(disk, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n := int64(fs.Bavail)*int64(fs.Bsize) - free; n > 0 {
		if _, err := io.CopyN(f, zeros{}, n); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// edit changes the configuration.
func (s *shop) edit(t *testing.T, old, new string) {
	t.Helper()
	raw, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(raw), old) {
		t.Fatalf("the configuration has no %q:\n%s", old, raw)
	}
	write(t, s.config, strings.Replace(string(raw), old, new, 1))
}

// withHistory is a shop whose history comes as events, in about ten seconds.
func withHistory(t *testing.T, token sandbox.TokenSpec) *shop {
	t.Helper()
	return newShop(t, sandbox.WorldSpec{Events: 300, Questions: 300, Feedbacks: 400, Claims: 40}, token, `defaults: {wildberries: {start: beginning}}`)
}

// stuck returns the walks that have failed so often in a row since the disk is full.
func (s *shop) stuck(t *testing.T, times int) map[string]failingStream {
	t.Helper()
	out := make(map[string]failingStream)
	st, _ := s.status(t)
	for _, stream := range st.Streams {
		for _, w := range stream.Walks {
			if f := w.Failure; f != nil && f.Times >= times && strings.Contains(f.Text, noSpace) {
				out[stream.Stream+" "+string(w.Walk)] = *f
			}
		}
	}
	return out
}

// answers checks that a daemon that can save nothing can be asked all the same.
func (s *shop) answers(t *testing.T) {
	t.Helper()
	s.expect(t, 0, noSpace, "status")
	s.expect(t, 0, "", "healthcheck")
	resp, err := http.Get("http://" + s.address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	metrics, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !bytes.Contains(metrics, []byte("syncd_poll_errors_total{")) {
		t.Errorf("/metrics: %s, %v, %d bytes", resp.Status, err, len(metrics))
	}
}

// told checks that a full disk was reported, each stream's and sink's trouble once.
func (p *process) told(t *testing.T) {
	t.Helper()
	lines := make(map[string]int)
	for line := range strings.Lines(p.logged()) {
		if strings.Contains(line, noSpace) {
			i, j := strings.Index(line, "msg="), strings.Index(line, "err=")
			lines[line[max(i, 0):max(i, j)]]++
		}
	}
	if len(lines) == 0 {
		t.Error("a full disk is not reported")
	}
	for line, n := range lines {
		if n > 1 {
			t.Errorf("%d times: %s", n, line)
		}
	}
}

// TestFullDisk (G2): the disk of the state file runs full in the middle of a first
// walk. The daemon says so, goes on trying with longer and longer pauses, can be
// killed and started again on the full disk, and goes on by itself when there is
// room; nothing is lost or doubled.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 32<<20)
	s := withHistory(t, sandbox.TokenSpec{})
	s.edit(t, "path: syncd.db", "path: "+filepath.Join(disk, "syncd.db"))
	empty := fill(t, disk, 400<<10)
	p := start(t, s.config, "run")
	s.until(t, func() bool { return len(s.stuck(t, 3)) >= 3 })
	s.answers(t)
	for walk, f := range s.stuck(t, 3) {
		// The pauses are 1, 2, 4 s and so on, less up to a quarter: the n-th failure
		// comes after 0.75 s times 2^(n-1)-1 at the earliest.
		if most := 1 + math.Log2(time.Since(f.Since).Seconds()/0.75+1); float64(f.Times) > most {
			t.Errorf("%s: %d tries in %s", walk, f.Times, time.Since(f.Since))
		}
	}
	p.told(t)
	if !p.kill() {
		t.Error("the daemon has ended by itself")
	}

	p = start(t, s.config, "run")
	s.until(t, func() bool { return len(s.stuck(t, 2)) >= 3 })
	s.answers(t)
	p.told(t)
	if n := s.delivered(); n >= s.items() {
		t.Errorf("%d of %d items were delivered: the disk was not full", n, s.items())
	}
	empty()
	s.until(t, func() bool { return s.delivered() >= s.items() })
	p.stop()
	s.eachOnce(t)
}

// TestFullDiskOfAFileSink: the file's disk is full and the state's is not. The sink
// stalls and says so once, also in a new process, and polling goes on.
func TestFullDiskOfAFileSink(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 32<<20)
	s := withHistory(t, sandbox.TokenSpec{})
	target := filepath.Join(disk, "events.ndjson")
	if err := os.Symlink(target, filepath.Join(s.dir, "events.ndjson")); err != nil {
		t.Fatal(err)
	}
	empty := fill(t, disk, 100<<10)
	for range 2 {
		p := start(t, s.config, "run")
		stalled := func() (times int, lines int) {
			lines = strings.Count(p.logged(), "sink stalled")
			return s.failedDeliveries(t), lines
		}
		s.until(t, func() bool { n, _ := stalled(); return n >= 3 })
		if _, lines := stalled(); lines != 1 {
			t.Errorf("%d lines about a stalled sink, want one:\n%s", lines, p.logged())
		}
		p.told(t)
		if n := strings.Count(p.logged(), "brought back in line"); n > 1 {
			t.Errorf("%d lines about the same half-written lines:\n%s", n, p.logged())
		}
		if !p.kill() {
			t.Error("the daemon has ended by itself")
		}
	}
	p := start(t, s.config, "run")
	s.until(t, func() bool {
		st, ok := s.status(t)
		return ok && !slices.ContainsFunc(st.Streams, func(s streamStatus) bool { return s.FirstWalk != "complete" })
	})
	if st, _ := s.status(t); st.Sinks[0].Backlog == 0 || s.delivered() >= s.items() {
		t.Errorf("the disk was not full: %+v", st.Sinks)
	}
	empty()
	s.until(t, func() bool { return s.delivered() >= s.items() })
	p.stop()
	s.eachOnce(t)
}

// failedDeliveries is what the daemon counts.
func (s *shop) failedDeliveries(t *testing.T) (n int) {
	t.Helper()
	resp, err := http.Get("http://" + s.address + "/metrics")
	if err != nil {
		return 0 // it does not listen yet
	}
	defer resp.Body.Close()
	metrics, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(metrics)) {
		if rest, ok := strings.CutPrefix(line, `syncd_sink_events_total{outcome="failed",sink="archive"} `); ok {
			fmt.Sscan(rest, &n)
		}
	}
	return n
}

// TestFullDiskSpendsNothing (G1): where the spend of a slow bucket cannot be saved,
// no request leaves.
func TestFullDiskSpendsNothing(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 32<<20)
	s := withHistory(t, sandbox.TokenSpec{Acc: sandbox.AccBase})
	path := filepath.Join(disk, "syncd.db")
	s.edit(t, "path: syncd.db", "path: "+path)
	s.known(t, path)
	giveBackFreePages(t, path)
	empty := fill(t, disk, 0)
	p := start(t, s.config, "run")
	s.until(t, func() bool { return len(s.stuck(t, 3)) >= 3 })
	s.answers(t)
	p.told(t)
	if n := s.requests(); n != 0 {
		t.Errorf("%d requests were sent that no restart would know of", n)
	}
	empty()
	s.until(t, func() bool { return s.requests() > 0 })
	p.stop()
	s.noViolations(t)
}

func (s *shop) requests() (n int64) {
	for _, count := range s.sb.Stats().Requests {
		n += count
	}
	return n
}

// known makes a state file that knows the shop's account, streams and sink, as after
// a first start, and has spent nothing.
func (s *shop) known(t *testing.T, path string) {
	t.Helper()
	db, err := state.Open(state.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	now := time.Now()
	if _, err := db.PinAccount("shop-a", "wildberries", s.sb.Worlds()[0].ID(), now); err != nil {
		t.Fatal(err)
	}
	for _, stream := range []string{"chat_events", "chats", "questions", "feedbacks", "claims"} {
		if _, err := db.OpenStream(state.StreamID{Account: "shop-a", Stream: stream}, new(time.Time), now); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.OpenSink("archive", "file", true, now); err != nil {
		t.Fatal(err)
	}
}

// giveBackFreePages gives the space of a state file's free pages back to the disk: a
// full one then has no room for any commit.
func giveBackFreePages(t *testing.T, path string) {
	t.Helper()
	b, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, PreLoadFreelist: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const punchHole, keepSize = 2, 1 // of linux/falloc.h
	size := int64(b.Info().PageSize)
	err = b.View(func(tx *bolt.Tx) error {
		for id := int64(0); id*size < tx.Size(); id++ {
			info, err := tx.Page(int(id))
			if err != nil {
				return err
			}
			if info == nil || info.Type != "free" {
				continue
			}
			if err := syscall.Fallocate(int(f.Fd()), punchHole|keepSize, id*size, size); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestNoRoomForAState: where there is no room for a new state file, one message says
// so and nothing is left behind, and where there is room for the file and not for
// what belongs into it, the next start with room goes on with it.
func TestNoRoomForAState(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 32<<20)
	s := newShop(t, sandbox.WorldSpec{Questions: 5}, sandbox.TokenSpec{}, "")
	path := filepath.Join(disk, "syncd.db")
	s.edit(t, "path: syncd.db", "path: "+path)
	const page = 4096
	for pages := range int64(5) {
		empty := fill(t, disk, pages*page)
		for _, command := range []string{"run", "once"} {
			p := start(t, s.config, command)
			p.exits(1)
			if out := p.logged(); strings.Count(out, "\n") != 1 || !strings.Contains(out, path) || !strings.Contains(out, noSpace) {
				t.Errorf("%s with %d pages free:\n%s", command, pages, out)
			}
			entries, err := os.ReadDir(disk)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if e.Name() != "filler" && (e.Name() != "syncd.db" || pages < 4) { // a new file of bbolt has four pages
					t.Errorf("%s with %d pages free leaves %s", command, pages, e.Name())
				}
			}
		}
		empty()
	}
	if n := s.requests(); n != 0 {
		t.Errorf("%d requests", n)
	}
	p := start(t, s.config, "run")
	s.until(t, func() bool { code, _, _ := s.syncd("healthcheck"); return code == 0 })
	p.stop()
}
