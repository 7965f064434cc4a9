//go:build linux

package state_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"syncd/internal/sink"
	"syncd/internal/state"
)

// Set in the process whose power is cut: the directory that it works in, and
// whether its commits skip the fsync.
const (
	powerDir    = "SYNCD_TEST_POWER_DIR"
	powerNoSync = "SYNCD_TEST_POWER_NOSYNC"
)

// TestPowerCut (G2, G3): what the state has acknowledged is there after a power
// cut, all of it and whole; and each event that a file sink's position counts is
// in its file.
//
// A power cut takes what the kernel has not yet written to the disk. The disk here
// is an image, mounted; the writer is stopped at a random moment, the image is
// copied as it is, and the next life begins with what mounting the copy brings
// back. Without fsync the same must lose something: then nothing was written back
// by chance, and the first half proves something. 100 cuts: SYNCD_E2E=full.
func TestPowerCut(t *testing.T) {
	if dir := os.Getenv(powerDir); dir != "" {
		writeUntilCut(t, dir, os.Getenv(powerNoSync) != "")
		return
	}
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("mounting an image needs root")
	}
	for _, tool := range []string{"mkfs.ext4", "mount", "umount", "cp"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	cuts := 8
	if os.Getenv("SYNCD_E2E") == "full" {
		cuts = 100
	}
	m := newMachine(t)
	for i := range cuts {
		acked := m.cut(random)
		if lost := m.lost(acked); len(lost) > 0 {
			t.Fatalf("cut %d: acknowledged were %v, and %s", i, acked, strings.Join(lost, "; "))
		}
		t.Logf("cut %d: acknowledged %v", i, acked)
	}

	m = newMachine(t)
	var lost []string
	for range 3 {
		acked := m.cut(random, powerNoSync+"=1")
		lost = append(lost, m.lost(acked)...)
	}
	if !slices.ContainsFunc(lost, func(s string) bool { return strings.Contains(s, "are there") }) {
		t.Errorf("without fsync nothing that was acknowledged is missing: this test proves nothing (%q)", lost)
	}
	t.Logf("without fsync: %s", strings.Join(lost, "; "))
}

// acks is how many of each sort of commit were acknowledged.
type acks struct{ pages, budgets, delivered uint64 }

// machine is a disk in a file, mounted where the writer works.
type machine struct {
	t     *testing.T
	image string
	dir   string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	at := t.TempDir()
	m := &machine{t: t, image: filepath.Join(at, "image"), dir: filepath.Join(at, "mnt")}
	write := func() error {
		f, err := os.Create(m.image)
		if err != nil {
			return err
		}
		return errors.Join(f.Truncate(512<<20), f.Close())
	}
	if err := errors.Join(os.Mkdir(m.dir, 0o700), write()); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0", m.image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	t.Cleanup(func() {
		// Before the directory is removed: Cleanup runs last in, first out. -l also
		// lets go of what is still open; the loop device goes with the mount.
		if out, err := exec.Command("umount", "-l", m.dir).CombinedOutput(); err != nil && !bytes.Contains(out, []byte("not mounted")) {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	if out, err := m.mount(); err != nil {
		t.Skipf("an image cannot be mounted here: %v: %s", err, out)
	}
	return m
}

// mount mounts the image. Its journal is left alone for longer than a test lasts:
// what is on the disk is there because somebody waited for it.
func (m *machine) mount() ([]byte, error) {
	return exec.Command("mount", "-t", "ext4", "-o", "loop,commit=300", m.image, m.dir).CombinedOutput()
}

// cut starts a writer, lets it work, cuts its power, and mounts what the disk
// had at that moment.
func (m *machine) cut(random *rand.Rand, env ...string) acks {
	m.t.Helper()
	// The writer's standard output is a file outside of the image: what it says is
	// there at once, whatever happens to it.
	said, err := os.CreateTemp(m.t.TempDir(), "acks")
	if err != nil {
		m.t.Fatal(err)
	}
	defer said.Close()
	var log bytes.Buffer
	cmd := exec.Command(os.Args[0], "-test.run=^TestPowerCut$")
	cmd.Env = append(append(os.Environ(), powerDir+"="+m.dir), env...)
	cmd.Stdout, cmd.Stderr = said, &log
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	ended := false
	end := func() {
		if !ended {
			ended = true
			cmd.Process.Kill()
			cmd.Wait()
		}
	}
	defer end()
	// Each sort at least once, or there is nothing to lose.
	deadline := time.Now().Add(time.Minute)
	for {
		if a := m.read(said.Name()); a.pages > 0 && a.budgets > 0 && a.delivered > 0 {
			break
		}
		if time.Now().After(deadline) {
			end()
			m.t.Fatalf("the writer acknowledges nothing: %s", log.String())
		}
		time.Sleep(time.Millisecond)
	}
	time.Sleep(time.Duration(random.Int64N(int64(300 * time.Millisecond))))
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		m.t.Fatal(err)
	}
	// All its threads have stopped, those in the kernel too, when this returns.
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		m.t.Fatalf("the writer did not stop: %v, status %#x: %s", err, status, log.String())
	}
	acked := m.read(said.Name())
	copied := m.image + ".copy"
	m.must("cp", "--sparse=always", m.image, copied)
	end()
	m.must("umount", m.dir)
	if err := os.Rename(copied, m.image); err != nil {
		m.t.Fatal(err)
	}
	if out, err := m.mount(); err != nil {
		m.t.Fatalf("mount what the power cut has left: %v: %s", err, out)
	}
	return acked
}

func (m *machine) must(command string, args ...string) {
	m.t.Helper()
	if out, err := exec.Command(command, args...).CombinedOutput(); err != nil {
		m.t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// read reads the last acknowledgement of each sort. The last line may be half
// written.
func (m *machine) read(path string) (a acks) {
	m.t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		m.t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		for sort, n := range map[string]*uint64{"page": &a.pages, "budget": &a.budgets, "delivered": &a.delivered} {
			if number, ok := strings.CutPrefix(line, sort+" "); ok && strings.HasSuffix(line, "\n") {
				fmt.Sscan(number, n)
			}
		}
	}
	return a
}

// lost returns what is not as it should be after a power cut.
func (m *machine) lost(acked acks) (lost []string) {
	m.t.Helper()
	miss := func(format string, args ...any) { lost = append(lost, fmt.Sprintf(format, args...)) }
	db, err := state.Open(state.Config{Path: filepath.Join(m.dir, "syncd.db")})
	if err != nil {
		return []string{err.Error()}
	}
	defer db.Close()
	if err := db.Check(); err != nil {
		miss("%v", err)
	}
	w, err := openWriting(db, m.dir)
	if err != nil {
		return append(lost, err.Error())
	}
	defer w.file.Close()
	if w.page < acked.pages {
		miss("%d of %d pages are there", w.page, acked.pages)
	}
	if w.budget < acked.budgets {
		miss("%d of %d budgets are there", w.budget, acked.budgets)
	}
	if w.delivered < acked.delivered {
		miss("%d of %d deliveries are there", w.delivered, acked.delivered)
	}
	// A page is there whole, or not at all: its events are those of the pages before
	// the cursor.
	logged := events(m.t, db)
	if uint64(len(logged)) != eventsOf(w.page) {
		miss("%d events of %d pages", len(logged), w.page)
	}
	for i, e := range logged {
		if seq := uint64(i + 1); e.Sequence != seq || e.Subject != fmt.Sprintf("question/q%d", subjectOf(seq)) {
			miss("event %d is %d, about %s", seq, e.Sequence, e.Subject)
		}
	}
	// What the position counts is in the file; what is there beyond it was ours.
	var want bytes.Buffer
	for _, e := range logged {
		if e.Sequence <= w.delivered {
			want.Write(append(e.JSON, '\n'))
		}
	}
	if got, err := os.ReadFile(filepath.Join(m.dir, "events.ndjson")); err != nil || !bytes.Equal(got, want.Bytes()) {
		miss("the file holds %d bytes and not the %d that are counted as delivered (%v)", len(got), want.Len(), err)
	}
	if w.report.OrphanPath != "" || w.report.Note != "" {
		miss("the file was not as its checkpoint says: %+v", w.report)
	}
	return lost
}

// eventsOf is how many events n pages cause: each page but the first changes the
// question of the page before, and each brings a new one.
func eventsOf(n uint64) uint64 {
	if n == 0 {
		return 0
	}
	return 2*n - 1
}

// subjectOf is the page that first had the question that an event is about.
func subjectOf(seq uint64) uint64 { return seq/2 + seq%2 }

// writing is where the writer stands.
type writing struct {
	db        *state.DB
	page      uint64 // commits of pages; their number is the cursor
	budget    uint64 // saves of a budget
	delivered uint64 // the file sink's position
	file      *sink.File
	report    sink.Report
	logged    <-chan struct{} // there are more events
}

// openWriting finds out what was committed, and brings the file in line.
func openWriting(db *state.DB, dir string) (*writing, error) {
	w := &writing{db: db}
	s, err := db.OpenStream(questions, nil, day)
	if err != nil {
		return nil, err
	}
	if c := s.Walks["news"].Cursor; c != nil {
		if err := json.Unmarshal(c, &w.page); err != nil {
			return nil, fmt.Errorf("the cursor is %q: %w", c, err)
		}
	}
	saved, _, err := db.Ledger().Load("budget")
	if err != nil {
		return nil, err
	}
	if saved != nil {
		if err := json.Unmarshal(saved, &w.budget); err != nil {
			return nil, fmt.Errorf("the budget is %q: %w", saved, err)
		}
	}
	known, err := db.OpenSink("archive", "file", true, day)
	if err != nil {
		return nil, err
	}
	w.delivered = known.Position
	if w.file, err = sink.NewFile(sink.FileConfig{Path: filepath.Join(dir, "events.ndjson")}); err != nil {
		return nil, err
	}
	w.report, err = w.file.Resume(context.Background(), known.Checkpoint, w.lines())
	if err != nil {
		return nil, errors.Join(err, w.file.Close())
	}
	return w, db.Settle("archive", day, state.Settlement{Position: w.delivered, Checkpoint: w.file.Checkpoint()})
}

// lines are those that the log would hand to the file next.
func (w *writing) lines() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for e, err := range w.db.Events(w.delivered) {
			if !yield(e.JSON, err) || err != nil {
				return
			}
		}
	}
}

// writeUntilCut commits pages, budgets and deliveries side by side, as the program
// does, and says so after each, until its power is cut.
func writeUntilCut(t *testing.T, dir string, noSync bool) {
	db, err := state.Open(state.Config{Path: filepath.Join(dir, "syncd.db")})
	if err != nil {
		t.Fatal(err)
	}
	if noSync {
		db.NoSync()
	}
	w, err := openWriting(db, dir)
	if err != nil {
		t.Fatal(err)
	}
	w.logged, _ = db.Watch()
	failed := make(chan error, 3)
	for _, next := range []func() error{w.nextPage, w.nextBudget, w.deliver} {
		go func() {
			for {
				if err := next(); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	select {
	case err := <-failed:
		t.Fatal(err)
	case <-time.After(2 * time.Minute): // it is longer than whoever starts it waits
		t.Fatal("nobody cuts the power")
	}
}

func (w *writing) nextPage() error {
	n := w.page + 1
	text := strings.Repeat("Сколько весит? ", 40)
	p := pageOf(w.db, question(fmt.Sprintf("q%d", n), int(n), text))
	if n > 1 {
		p.Items = slices.Insert(p.Items, 0, question(fmt.Sprintf("q%d", n-1), int(n-1), text+"And now?"))
	}
	p.Cursor = fmt.Append(nil, n)
	if _, err := w.db.CommitPage(p); err != nil {
		return err
	}
	w.page = n
	_, err := fmt.Printf("page %d\n", n)
	return err
}

func (w *writing) nextBudget() error {
	n := w.budget + 1
	if err := w.db.Ledger().Save("budget", fmt.Append(nil, n)); err != nil {
		return err
	}
	w.budget = n
	_, err := fmt.Printf("budget %d\n", n)
	return err
}

func (w *writing) deliver() error {
	events, err := w.db.ReadEvents(w.delivered, 100, 1<<20)
	if err != nil {
		return err
	}
	if len(events) == 0 {
		<-w.logged
		return nil
	}
	if err := w.file.Deliver(context.Background(), events); err != nil {
		return err
	}
	last := events[len(events)-1].Sequence
	if err := w.db.Settle("archive", day, state.Settlement{Position: last, Checkpoint: w.file.Checkpoint()}); err != nil {
		return err
	}
	w.delivered = last
	_, err = fmt.Printf("delivered %d\n", last)
	return err
}
