package state_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/event"
	"syncd/internal/fingerprint"
	"syncd/internal/state"
)

var (
	questions = state.StreamID{Account: "shop-a", Stream: "questions"}
	day       = time.Date(2026, 2, 2, 12, 0, 0, 0, time.UTC)
	errBroken = errors.New("no space left on device")
)

// file is a state file that can be let go and opened again.
type file struct {
	*state.DB
	t     *testing.T
	cfg   state.Config
	fault func(commit func() error) error // of the next commits; nil: none
	n     int                             // commits that took effect
}

func open(t *testing.T) *file {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "syncd.db"))
}

func openAt(t *testing.T, path string) *file {
	t.Helper()
	f := &file{t: t}
	f.cfg = state.Config{Path: path, Commit: func(commit func() error) error {
		if f.fault != nil {
			return f.fault(commit)
		}
		return f.counted(commit)
	}}
	f.reopen()
	t.Cleanup(func() { f.DB.Close() })
	return f
}

func (f *file) counted(commit func() error) error {
	err := commit()
	if err == nil {
		f.n++
	}
	return err
}

func (f *file) reopen() {
	f.t.Helper()
	if f.DB != nil {
		if err := f.DB.Close(); err != nil {
			f.t.Fatal(err)
		}
	}
	db, err := state.Open(f.cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	db.RunTwice() // nothing may depend on being run once
	f.DB = db
}

// edit changes the file behind the state's back.
func (f *file) edit(fn func(tx *bolt.Tx) error) {
	f.t.Helper()
	if err := f.DB.Close(); err != nil {
		f.t.Fatal(err)
	}
	b, err := bolt.Open(f.cfg.Path, 0o600, nil)
	if err == nil {
		err = errors.Join(b.Update(fn), b.Close())
	}
	if err != nil {
		f.t.Fatal(err)
	}
	if f.DB, err = state.Open(f.cfg); err != nil {
		f.t.Fatal(err)
	}
}

// bytes returns the file as it is on disk.
func (f *file) bytes() []byte {
	f.t.Helper()
	b, err := os.ReadFile(f.cfg.Path)
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

// checkState verifies every invariant of the state.
func checkState(t *testing.T, db *state.DB) {
	t.Helper()
	if err := db.Check(); err != nil {
		t.Fatal(err)
	}
}

// breakings are the two ways in which a commit fails.
var breakings = map[string]func(commit func() error) error{
	"failed": func(func() error) error { return errBroken },
	"failed but took effect": func(commit func() error) error {
		if err := commit(); err != nil {
			return err
		}
		return errBroken
	},
}

func print1(body string) event.Fingerprint {
	f, err := fingerprint.Of(json.RawMessage(body), nil)
	if err != nil {
		panic(err)
	}
	return f
}

// question is a mutable item that was created some minutes after noon.
func question(id string, minute int, text string) state.Item {
	body := fmt.Sprintf(`{"id":%q,"text":%q}`, id, text)
	return state.Item{ID: id, Kind: "question", Subject: "question/" + id, Created: day.Add(time.Duration(minute) * time.Minute),
		Fingerprint: print1(body), Body: json.RawMessage(body)}
}

// withBody is an item as another reading showed it.
func withBody(it state.Item, body string) state.Item {
	it.Body, it.Fingerprint = json.RawMessage(body), print1(body)
	return it
}

func pageOf(db *state.DB, items ...state.Item) state.Page {
	return state.Page{
		Stream: questions, Marketplace: "wildberries", Walk: "news", Stamp: db.Stamp(), Now: day.Add(24 * time.Hour), Items: items,
		Cursor: []byte(fmt.Sprintf(`{"after":%d}`, len(items))), Rules: "1",
		Refingerprint: func(b json.RawMessage) (event.Fingerprint, error) { return fingerprint.Of(b, nil) },
		Grown:         func(old, new json.RawMessage) ([]string, bool, error) { return fingerprint.Grown(old, new, nil) },
	}
}

func commit(t *testing.T, db *state.DB, p state.Page) state.Outcome {
	t.Helper()
	out, err := db.CommitPage(p)
	if err != nil {
		t.Fatal(err)
	}
	checkState(t, db)
	return out
}

func events(t *testing.T, db *state.DB) []event.Logged {
	t.Helper()
	var out []event.Logged
	for e, err := range db.Events(0) {
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid(e.JSON) {
			t.Fatalf("no JSON: %s", e.JSON)
		}
		out = append(out, e)
	}
	return out
}

func ids(t *testing.T, db *state.DB) []string {
	t.Helper()
	var out []string
	for _, e := range events(t, db) {
		out = append(out, e.ID)
	}
	return out
}

func cursor(t *testing.T, db *state.DB) string {
	t.Helper()
	s, err := db.OpenStream(questions, nil, day)
	if err != nil {
		t.Fatal(err)
	}
	return string(s.Walks["news"].Cursor)
}

func idHash(id string) []byte {
	sum := sha256.Sum256([]byte(id))
	return sum[:8]
}
