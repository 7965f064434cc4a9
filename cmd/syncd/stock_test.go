package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"syncd/internal/event"
	"syncd/internal/sandbox"
	"syncd/internal/state"
)

// stocked is a shop whose marketplace has nothing, whose state has events all the same,
// and whose webhook "crm" is a receiver in this process.
type stocked struct {
	*shop
	receiver *inbox
}

// newStocked makes one. extra is what the configuration says besides.
func newStocked(t *testing.T, extra string) *stocked {
	t.Helper()
	r := &inbox{}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	s := &stocked{newShop(t, sandbox.WorldSpec{}, sandbox.TokenSpec{}, extra), r}
	f, err := os.OpenFile(s.config, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = fmt.Fprintf(f, "  - {name: crm, type: webhook, url: %q, unsigned: true, retry: {initial: 100ms, max: 1s}}\n", server.URL)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// inbox is where the webhook goes: it takes everything, and remembers what.
type inbox struct {
	mu  sync.Mutex
	got []received
}

type received struct {
	id, body          string
	replayed, retried bool
}

func (r *inbox) ServeHTTP(_ http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body) // a body that is cut is not what a test expects of it
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, received{id: req.Header.Get("webhook-id"), body: string(body),
		replayed: req.Header.Get("syncd-replay") == "true", retried: req.Header.Get("syncd-retried") == "true"})
}

func (r *inbox) all() []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// port is that of the daemon.
func (s *shop) port() string {
	_, port, _ := strings.Cut(s.address, ":")
	return port
}

// in does something with the closed state file.
func (s *stocked) in(t *testing.T, do func(db *state.DB) error) {
	t.Helper()
	db, err := state.Open(state.Config{Path: filepath.Join(s.dir, "syncd.db")})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(do(db), db.Check(), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// stock logs n questions of an account a minute ago, which crm has. They are named by
// their sequences: q1 and so on.
func (s *stocked) stock(t *testing.T, account string, n int) (logged []event.Logged) {
	t.Helper()
	s.in(t, func(db *state.DB) error {
		now := time.Now()
		before, err := db.LastSequence()
		if err != nil {
			return err
		}
		id := state.StreamID{Account: account, Stream: "questions"}
		if _, err := db.OpenStream(id, nil, now); err != nil {
			return err
		}
		if _, err := db.OpenSink("crm", "webhook", true, now); err != nil {
			return err
		}
		p := state.Page{Stream: id, Marketplace: "wildberries", Walk: "news", Stamp: db.Stamp(), Now: now.Add(-time.Minute), Cursor: []byte(`{}`), Rules: "1"}
		for i := range n {
			q := fmt.Sprintf("q%d", int(before)+i+1)
			p.Items = append(p.Items, state.Item{ID: q, Kind: "question", Subject: "question/" + q, Created: now.Add(time.Duration(i) * time.Millisecond),
				Immutable: true, Body: fmt.Appendf(nil, `{"id":%q,"text":"<b>\u0041&","n":1.50}`, q)})
		}
		if _, err := db.CommitPage(p); err != nil {
			return err
		}
		for e, err := range db.Events(before) {
			if err != nil {
				return err
			}
			logged = append(logged, e)
		}
		return db.Settle("crm", now, state.Settlement{Position: logged[n-1].Sequence})
	})
	return logged
}

// bury makes events dead letters of crm.
func (s *stocked) bury(t *testing.T, events ...event.Logged) {
	t.Helper()
	s.in(t, func(db *state.DB) error {
		var dead []state.Failed
		for _, e := range events {
			dead = append(dead, state.Failed{Seq: e.Sequence, Key: e.PartitionKey, Attempts: 5, Refused: 5, First: time.Now().Add(-time.Hour), Last: time.Now(),
				Status: 400, Error: "400 Bad Request: \x1b[31mno\x07 \u202esuch\u009b customer", Reason: state.ReasonRefused})
		}
		last, err := db.LastSequence()
		return errors.Join(err, rewind(t, db), db.Settle("crm", time.Now(), state.Settlement{Position: last, Dead: dead}))
	})
}

// rewind lets crm begin anew: what it has had is done with.
func rewind(t *testing.T, db *state.DB) error {
	t.Helper()
	err := db.ForgetSink(t.Context(), "crm")
	_, openErr := db.OpenSink("crm", "webhook", true, time.Now())
	return errors.Join(err, openErr)
}

// letters are crm's dead letters in the closed file.
func (s *stocked) letters(t *testing.T) (out []state.DeadLetter) {
	t.Helper()
	s.in(t, func(db *state.DB) (err error) {
		out, err = db.DeadLetters("crm", 0, 1<<20)
		return err
	})
	return out
}

// lines splits NDJSON.
func lines(text string) []string {
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}
