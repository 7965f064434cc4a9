package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"syncd/internal/sandbox"
)

// A backup that the daemon wrote while it ran is put in the place of the state: the
// file keeps all its lines, sequences go on behind the original's, ids are the
// same, and no request leaves without a token.
func TestBackupIsRestored(t *testing.T) {
	s := newShop(t, sandbox.WorldSpec{Events: 60, Questions: 30, Span: 24 * time.Hour}, sandbox.TokenSpec{}, "defaults: {wildberries: {start: beginning, streams: {chats: {enabled: false}}}}")
	stop := s.daemon(t)
	s.until(t, func() bool { return len(s.events(t)) == 90 })
	// Lines are in the file a moment before the state knows that they are; a copy made
	// then writes them once more, which is right, and not what is looked at here.
	s.until(t, func() bool {
		st, ok := s.status(t)
		return ok && st.Sinks[0].Backlog == 0
	})
	copied := filepath.Join(s.dir, "copy.db")
	s.expect(t, 0, "copy.db: ", "state", "backup", copied)
	s.expect(t, 1, "exists already", "state", "backup", copied)
	s.sb.Worlds()[0].AddEvent(sandbox.EventSpec{})
	s.until(t, func() bool { return len(s.events(t)) == 91 })
	stop()
	before, err := os.ReadFile(filepath.Join(s.dir, "events.ndjson"))
	if err != nil {
		t.Fatal(err)
	}

	if err := os.Rename(copied, filepath.Join(s.dir, "syncd.db")); err != nil {
		t.Fatal(err)
	}
	s.expect(t, 0, "is a backup", "once")
	after, err := os.ReadFile(filepath.Join(s.dir, "events.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(after, before) {
		t.Error("the file was cut")
	}
	lines := strings.Split(strings.TrimSpace(string(after)), "\n")
	var last, again envelope
	if len(lines) != 92 {
		t.Fatalf("%d lines, want 92: the event since the backup once more", len(lines))
	}
	for i, e := range []*envelope{&last, &again} {
		if err := json.Unmarshal([]byte(lines[90+i]), e); err != nil {
			t.Fatal(err)
		}
	}
	if last.ID != again.ID || again.Sequence <= last.Sequence {
		t.Errorf("%s with sequence %s is followed by %s with %s", last.ID, last.Sequence, again.ID, again.Sequence)
	}
	s.noViolations(t)

	// The closed file can be copied as well, and what does not exist is not made.
	s.expect(t, 0, "second.db: ", "state", "backup", filepath.Join(s.dir, "second.db"))
	if err := os.Remove(filepath.Join(s.dir, "syncd.db")); err != nil {
		t.Fatal(err)
	}
	s.expect(t, 1, "there is no state file", "state", "backup", filepath.Join(s.dir, "third.db"))
	left, err := filepath.Glob(filepath.Join(s.dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range left {
		switch filepath.Base(path) {
		case "wb.token", "syncd.yaml", "events.ndjson", "second.db":
		default:
			t.Errorf("%s was left behind", path)
		}
	}
}

// Where the connection breaks, no piece of a copy is left that looks like one.
func TestBackupCutShort(t *testing.T) {
	s := newShop(t, sandbox.WorldSpec{}, sandbox.TokenSpec{}, "")
	s.breaksOff(t, "abcde")
	s.expect(t, 1, "ended too early", "state", "backup", filepath.Join(s.dir, "copy.db"))
	if left, _ := filepath.Glob(filepath.Join(s.dir, "copy*")); len(left) != 0 {
		t.Errorf("left: %s", left)
	}
}

// TestBackupInterrupted: a signal leaves nothing of a backup behind, however much of it
// was there, and one that the command was started to ignore ends nothing.
func TestBackupInterrupted(t *testing.T) {
	t.Parallel()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP) // or it would be ignored from the start under nohup
	t.Cleanup(func() { signal.Stop(hup) })
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			s := newShop(t, sandbox.WorldSpec{}, sandbox.TokenSpec{}, "")
			s.answersSlowly(t, "abcde", nil)
			p := start(t, s.config, "state", "backup", filepath.Join(s.dir, "copy.db"))
			s.until(t, func() bool { return s.copied(t) == "abcde" })
			if err := p.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			p.exits(1)
			if left, _ := filepath.Glob(filepath.Join(s.dir, "copy*")); len(left) != 0 || !strings.Contains(p.logged(), "no backup was made: "+sig.String()) {
				t.Errorf("left: %s", left)
			}
		})
	}
	t.Run("ignored", func(t *testing.T) {
		t.Parallel()
		s := newShop(t, sandbox.WorldSpec{}, sandbox.TokenSpec{}, "")
		goOn := make(chan struct{})
		s.answersSlowly(t, "abcde", goOn)
		path := filepath.Join(s.dir, "copy.db")
		cmd := exec.Command("sh", "-c", `trap "" HUP; exec "$0" "$@"`, os.Args[0], "state", "backup", path, "--config", s.config)
		cmd.Env = append(os.Environ(), "SYNCD_TEST_AS_SYNCD=1")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		s.until(t, func() bool { return s.copied(t) == "abcde" })
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		close(goOn)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		if raw, err := os.ReadFile(path); err != nil || string(raw) != "abcde" {
			t.Errorf("copied %q, %v", raw, err)
		}
	})
}

// TestBackupOfTheClosedFileInterrupted: what writes the copy is stopped at its next piece.
func TestBackupOfTheClosedFileInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	dir := t.TempDir()
	_, err := writeWhole(ctx, filepath.Join(dir, "copy.db"), func(w io.Writer) error {
		if _, err := io.WriteString(w, "abcde"); err != nil {
			t.Error(err)
		}
		cancel(errors.New("enough"))
		_, err := io.WriteString(w, "fghij")
		if err == nil {
			t.Error("it would go on to the end")
		}
		return err
	})
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 0 || err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("left: %s; %v", left, err)
	}
}

// answersSlowly puts a daemon in place whose downloads have a piece, and no end before goOn
// is closed.
func (s *shop) answersSlowly(t *testing.T, piece string, goOn <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, piece)
		w.(http.Flusher).Flush()
		select {
		case <-goOn:
		case <-r.Context().Done():
		}
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
}

// copied is what there is of a backup that is under way.
func (s *shop) copied(t *testing.T) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(s.dir, "copy.db.partial-*"))
	if err != nil || len(names) != 1 {
		return ""
	}
	raw, err := os.ReadFile(names[0])
	if err != nil {
		t.Error(err)
	}
	return string(raw)
}
