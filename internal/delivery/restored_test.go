package delivery_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/event"
	"syncd/internal/sink"
)

// inbox is a parallel sink that keeps what it acknowledged.
type inbox struct {
	refuse string // a subject

	mu   sync.Mutex
	seqs []uint64
	ids  map[string]string // and what came with it
}

func (i *inbox) Parallel() int { return 4 }
func (i *inbox) Close() error  { return nil }

func (i *inbox) Redeliver(context.Context, sink.Aside, []event.Logged) error {
	return errors.New("not asked for")
}

func (i *inbox) Deliver(_ context.Context, events []event.Logged) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, e := range events {
		if e.Subject == i.refuse {
			return errors.New("refused")
		}
		i.seqs = append(i.seqs, e.Sequence)
		i.ids[e.ID] = string(e.JSON)
	}
	return nil
}

// serve delivers to a file and to an inbox for two hours.
func (r *rig) serve(path string, into *inbox) {
	r.t.Helper()
	f, err := sink.NewFile(sink.FileConfig{Path: path})
	if err != nil {
		r.t.Fatal(err)
	}
	stop := r.start(to("archive", f), to("crm", into))
	time.Sleep(2 * time.Hour) // longer than the longest wait for a retry
	stop()
	if err := r.db.Check(); err != nil {
		r.t.Fatal(err)
	}
}

// §10: of a backup that is opened while the file of its original has gone on, no
// byte is lost, and both kinds of sink go on from where the backup was: across the
// sequences that nobody has, with what waited in the retry queue, each event once
// by this state, and with the ids that the original gave it.
func TestRestoredBackup(t *testing.T) {
	for _, test := range []struct {
		name   string
		before func(t *testing.T, path string) // what became of the file
		keeps  bool
	}{
		{"as the original left it", func(*testing.T, string) {}, true},
		{"with a torn line", func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err == nil {
				_, err = f.WriteString(`{"specversion":"1.0","id":"shop-a/ques`)
				err = errors.Join(err, f.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
		}, true},
		{"shorter than at the backup", func(t *testing.T, path string) {
			if err := os.Truncate(path, 300); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"gone", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "events.ndjson")
				r := newRig(t)
				// Delivered: 1, 3 and 4 everywhere, 2 to the file alone; 5 and 6 nowhere.
				first := &inbox{refuse: "b", ids: make(map[string]string)}
				r.log("a", "b", "c", "a")
				r.serve(path, first)
				r.log("a", "d")
				var saved bytes.Buffer
				if _, err := r.db.Backup(&saved); err != nil {
					t.Fatal(err)
				}
				r.log("e", "e")
				r.serve(path, first)
				test.before(t, path)
				had, err := os.ReadFile(path)
				if test.keeps != (err == nil) {
					t.Fatal(err)
				}

				c := &rig{t: t, path: filepath.Join(t.TempDir(), "restored.db")}
				if err := os.WriteFile(c.path, saved.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
				c.open()
				t.Cleanup(func() { c.db.Close() })
				if archive, crm := c.backlog("archive"), c.backlog("crm"); archive != 2 || crm != 3 {
					t.Errorf("the restored file waits to deliver %d and %d events, want 2 and 3", archive, crm)
				}
				hole, err := c.db.LastSequence()
				if err != nil {
					t.Fatal(err)
				}
				second := &inbox{ids: make(map[string]string)}
				want := []uint64{2, 5, 6}
				for round := range uint64(3) {
					if _, err := c.db.CommitPage(pageOf(c.db, 100+10*int(round), 0, "a", "f")); err != nil {
						t.Fatal(err)
					}
					want = append(want, hole+2*round+1, hole+2*round+2)
					c.serve(path, second)
					c.db.Close()
					c.open() // which is a restart, and no restore
				}
				if archive, crm := c.backlog("archive"), c.backlog("crm"); archive != 0 || crm != 0 {
					t.Errorf("%d and %d events are left", archive, crm)
				}

				if slices.Sort(second.seqs); !slices.Equal(second.seqs, want) {
					t.Errorf("the webhook got %d, want %d", second.seqs, want)
				}
				lines := string(had)
				if len(lines) > 0 && !strings.HasSuffix(lines, "\n") {
					lines += "\n"
				}
				for _, seq := range want[1:] { // the file had 2
					e, ok, err := c.db.Event(seq)
					if !ok || err != nil {
						t.Fatal(seq, err)
					}
					lines += string(e.JSON) + "\n"
					if json, ok := first.ids[e.ID]; ok && json != string(e.JSON) {
						t.Errorf("%s was %s and is now %s", e.ID, json, e.JSON)
					}
				}
				if got, err := os.ReadFile(path); err != nil || string(got) != lines {
					t.Errorf("the file holds\n%s\nwant\n%s\n%v", got, lines, err)
				}
				if all, err := os.ReadDir(filepath.Dir(path)); err != nil || len(all) != 1 {
					t.Errorf("beside the file there are %v, %v", all, err)
				}
			})
		})
	}
}
