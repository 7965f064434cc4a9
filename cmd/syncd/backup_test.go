package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
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
