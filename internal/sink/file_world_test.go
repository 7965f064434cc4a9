package sink_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"syncd/internal/event"
	"syncd/internal/sink"
	"syncd/internal/sink/sinktest"
)

var errKilled = errors.New("the process is dead")

// world is a file sink with all that is around it: the log, what is committed of
// it, and a disk whose every step can fail or be the last of the process. It does
// what delivery does. It runs in a bubble, for the clock.
type world struct {
	t    *testing.T
	cfg  sink.FileConfig
	file *sink.File
	log  []event.Logged

	checkpoint []byte
	position   int // committed
	read       int // delivered
	resumed    bool
	room       int64
	tended     sink.Tended
	notes      []string // of Tend and Resume, with the errors
	foreign    int      // lines that somebody else has written

	mu    sync.Mutex
	dead  bool
	steps []string                                        // done so far
	fault func(n int, step string, op func() error) error // nil: none
}

func newWorld(t *testing.T, cfg sink.FileConfig, events int) *world {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"sink", "taken"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Path = filepath.Join(dir, "sink", "events.ndjson")
	w := &world{t: t, cfg: cfg}
	for i := range events {
		w.log = append(w.log, sinktest.Event(i+1, fmt.Sprintf(`{"n":%d}`, i+1)))
	}
	w.start()
	t.Cleanup(func() { w.file.Close() })
	return w
}

// start begins a process.
func (w *world) start() {
	w.t.Helper()
	w.mu.Lock()
	w.dead = false
	w.mu.Unlock()
	f, err := sink.NewFile(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	f.SetSteps(w.do)
	w.file, w.resumed, w.tended = f, false, sink.Tended{}
}

// restart is what comes after a kill.
func (w *world) restart() {
	w.t.Helper()
	w.mu.Lock()
	w.dead = true
	w.mu.Unlock()
	if err := w.file.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.start()
}

func (w *world) isDead() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dead
}

// do is a step of the sink, or a commit. Nothing is really synced: the power stays
// on.
func (w *world) do(step string, op func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return errKilled
	}
	if strings.HasPrefix(step, "sync") {
		op = func() error { return nil }
	}
	n := len(w.steps)
	w.steps = append(w.steps, step)
	if w.fault != nil {
		return w.fault(n, step, op)
	}
	return op()
}

// setFault puts a fault in place, also while the sink works in the background.
func (w *world) setFault(fault func(n int, step string, op func() error) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = fault
}

func (w *world) commit(position int) error {
	return w.do("commit", func() error {
		w.position, w.checkpoint = position, w.file.Checkpoint()
		return nil
	})
}

// settle commits what was delivered.
func (w *world) settle() error {
	if w.read == w.position {
		return nil
	}
	if err := w.file.Sync(w.t.Context()); err != nil {
		return err
	}
	return w.commit(w.read)
}

func (w *world) resume() error {
	w.read = w.position
	report, err := w.file.Resume(w.t.Context(), w.checkpoint, sinktest.Lines(w.log[w.position:]))
	if report.Note != "" {
		w.notes = append(w.notes, report.Note)
	}
	if err != nil {
		return err
	}
	if !bytes.Equal(w.checkpoint, w.file.Checkpoint()) {
		err = w.commit(w.position)
	}
	w.resumed = err == nil
	return err
}

func (w *world) tend() error {
	var err error
	w.tended, err = w.file.Tend(w.t.Context())
	w.notes = append(w.notes, w.tended.Notes...)
	if err != nil {
		return err
	}
	if w.room = w.tended.Room; w.room == 0 {
		w.room = 1 << 60
	}
	if !bytes.Equal(w.checkpoint, w.file.Checkpoint()) {
		return w.commit(w.position)
	}
	return nil
}

// step delivers up to n events and, unless the sink is lazy, commits them.
func (w *world) step(n int) (err error) {
	defer func() {
		if err != nil {
			w.resumed = false
			w.notes = append(w.notes, err.Error())
		}
	}()
	if !w.resumed {
		if err := w.resume(); err != nil {
			return err
		}
	}
	if w.read == w.position {
		if err := w.tend(); err != nil {
			return err
		}
	}
	end, room := w.read, w.room
	for ; end < min(w.read+n, len(w.log)); end++ {
		size := int64(len(w.log[end].JSON) + 1)
		if size > room && (end > w.read || w.read > w.position) {
			break
		}
		room -= size
	}
	if end == w.read {
		return w.settle()
	}
	err = w.file.Deliver(w.t.Context(), w.log[w.read:end])
	if errors.Is(err, sink.ErrTendFirst) && w.read > w.position {
		return w.settle()
	}
	if err != nil {
		return err
	}
	w.read, w.room = end, room
	if w.file.SyncEvery() == 0 {
		return w.settle()
	}
	return nil
}

// finish delivers the rest in a process that nothing happens to, and waits for the
// work in the background.
func (w *world) finish() {
	w.t.Helper()
	w.setFault(nil)
	if w.isDead() {
		w.restart()
	}
	for range 10_000 {
		err := w.step(2)
		if err == nil && w.read == len(w.log) {
			err = w.settle()
		}
		if err == nil && w.position == len(w.log) && w.tended.Next.IsZero() {
			return
		}
		if err != nil || w.position == len(w.log) {
			time.Sleep(time.Minute)
		}
	}
	w.t.Fatalf("it does not come to an end; it said %q", w.notes)
}

// contents returns what each file holds in the end, by name, compressed ones
// unpacked.
func (w *world) contents() map[string]string {
	w.t.Helper()
	found := make(map[string]string)
	for _, sub := range []string{"sink", "taken"} {
		dir := filepath.Join(filepath.Dir(filepath.Dir(w.cfg.Path)), sub)
		entries, err := os.ReadDir(dir)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range entries {
			name := filepath.Join(dir, e.Name())
			b := read(w.t, name)
			if strings.HasSuffix(name, ".zst") {
				b = unpack(w.t, b)
			}
			found[sub+"/"+e.Name()] = string(b)
		}
	}
	return found
}

func unpack(t *testing.T, packed []byte) []byte {
	t.Helper()
	z, err := zstd.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var rotatedName = regexp.MustCompile(`^sink/events-(\d{20})\.ndjson(\.zst)?$`)

// check fails unless each event is in one file, once, all in order, every file
// that was rotated is named by its first event, and somebody else's lines are all
// there.
func (w *world) check() {
	w.t.Helper()
	found := w.contents()
	where := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(found)) {
		last, lines := 0, strings.Split(strings.TrimSuffix(found[name], "\n"), "\n")
		for i, line := range lines {
			h, err := event.ParseHeader([]byte(line))
			if err != nil || strings.Contains(name, "orphan") {
				continue // what is somebody else's, perhaps with a torn line before it
			}
			seq := int(h.Sequence)
			if seq < 1 || seq > len(w.log) || line != string(w.log[seq-1].JSON) {
				w.t.Fatalf("%s: no event of ours: %s", name, line)
			}
			if where[line] != "" {
				w.t.Errorf("event %d is in %s and in %s", seq, where[line], name)
			}
			where[line] = name
			if seq <= last {
				w.t.Errorf("%s: event %d after %d", name, seq, last)
			}
			last = seq
			if m := rotatedName.FindStringSubmatch(name); m != nil && i == 0 && m[1] != fmt.Sprintf("%020d", seq) {
				w.t.Errorf("%s begins with event %d", name, seq)
			}
		}
	}
	for i, e := range w.log {
		if where[string(e.JSON)] == "" {
			w.t.Errorf("event %d is nowhere", i+1)
		}
	}
	all := strings.Join(slices.Collect(maps.Values(found)), "")
	for i := range w.foreign {
		if !strings.Contains(all, fmt.Sprintf("foreign %d\n", i)) {
			w.t.Errorf("line %d of somebody else is nowhere", i)
		}
	}
	if w.t.Failed() {
		w.t.Fatalf("files: %q\nsaid: %q", slices.Sorted(maps.Keys(found)), w.notes)
	}
}

// names are the files in the sink's directory.
func (w *world) names() []string {
	var names []string
	for name := range w.contents() {
		if rest, ok := strings.CutPrefix(name, "sink/"); ok {
			names = append(names, rest)
		}
	}
	slices.Sort(names)
	return names
}

// addForeign appends a line of somebody else.
func (w *world) addForeign() {
	w.t.Helper()
	f, err := os.OpenFile(w.cfg.Path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err == nil {
		_, err = fmt.Fprintf(f, "foreign %d\n", w.foreign)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.foreign++
}
