package state_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/state"
)

// migrationTests hold one test for each migration, in order: the test at i opens
// a file of schema i.
var migrationTests = []func(t *testing.T){
	func(t *testing.T) { // 0 to 1: an empty file gets its buckets
		path := filepath.Join(t.TempDir(), "syncd.db")
		b, err := bolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
		f := openAt(t, path)
		checkState(t, f.DB)
		commit(t, f.DB, pageOf(f.DB, question("q", 1, "a")))
	},
}

// Nothing but the file is left of its creation, and it is the owner's alone.
func TestCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "syncd.db")
	db, err := state.Open(state.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
	if fi, err := entries[0].Info(); err != nil || fi.Mode() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

func TestMigrations(t *testing.T) {
	if len(migrationTests) != state.Migrations() {
		t.Fatalf("%d migrations and %d tests of them", state.Migrations(), len(migrationTests))
	}
	for i, test := range migrationTests {
		t.Run(fmt.Sprint(i), test)
	}
}

func TestOpenCreates(t *testing.T) {
	f := open(t)
	fi, err := os.Stat(f.cfg.Path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatal(fi.Mode(), err)
	}
	if f.DB.Size() <= 0 || f.DB.Size() > fi.Size() {
		t.Fatal(f.DB.Size())
	}
	_, err = state.Open(state.Config{Path: filepath.Join(t.TempDir(), "missing", "syncd.db")})
	if err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Fatal(err)
	}
}

func TestOpenUpToDateChangesNoByte(t *testing.T) {
	f := open(t)
	fill(t, f.DB)
	f.DB.Close()
	before := f.bytes()
	f.reopen()
	f.DB.Close()
	if !bytes.Equal(f.bytes(), before) {
		t.Fatal("the file has changed")
	}
}

// G8, contract §10: what is not a state file of ours, or not one that we can
// read, is refused with the reason and left as it is.
func TestOpenRefuses(t *testing.T) {
	edit := func(fn func(tx *bolt.Tx) error) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			b, err := bolt.Open(path, 0o600, nil)
			if err == nil {
				err = errors.Join(b.Update(fn), b.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	put := func(bucket, key, value string) func(tx *bolt.Tx) error {
		return func(tx *bolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte(bucket))
			if err != nil {
				return err
			}
			return b.Put([]byte(key), []byte(value))
		}
	}
	ours := func(then func(t *testing.T, path string)) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			f := openAt(t, path)
			fill(t, f.DB)
			f.DB.Close()
			then(t, path)
		}
	}
	write := func(text string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, test := range []struct {
		name string
		make func(t *testing.T, path string)
		want string
		is   error
	}{
		{"newer", ours(edit(put("meta", "schema", `{"v":1,"version":99}`))), "written by a newer version of syncd (schema 99", state.ErrNewer},
		{"foreign bbolt", edit(put("jobs", "k", "v")), `a bbolt file of something else (its first bucket is "jobs")`, nil},
		{"foreign bbolt with our bucket", edit(put("meta", "k", "v")), "its schema version cannot be read", nil},
		{"text", write(strings.Repeat("not a database\n", 5000)), "damaged or not syncd's; it was left as it is", nil},
		{"short text", write("x"), "damaged or not syncd's", nil},
		{"truncated", ours(func(t *testing.T, path string) {
			if err := os.Truncate(path, 20_000); err != nil {
				t.Fatal(err)
			}
		}), "the file is cut short", nil},
		{"truncated to a page", ours(func(t *testing.T, path string) {
			if err := os.Truncate(path, 4096); err != nil {
				t.Fatal(err)
			}
		}), "the file is cut short", nil},
		{"damaged meta pages", ours(func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteAt(bytes.Repeat([]byte{0xAA}, 8192), 0)
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}), "damaged or not syncd's", nil},
		{"a directory", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "is a directory", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "syncd.db")
			test.make(t, path)
			before, _ := os.ReadFile(path)
			db, err := state.Open(state.Config{Path: path})
			if err == nil {
				db.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) || test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("%v\nwant %s", err, test.want)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Error("the file was changed")
			}
		})
	}
}

func TestOpenLocked(t *testing.T) {
	f := open(t)
	before := f.bytes()
	_, err := state.Open(state.Config{Path: f.cfg.Path, LockTimeout: time.Millisecond})
	if !errors.Is(err, state.ErrLocked) || !strings.Contains(err.Error(), f.cfg.Path) {
		t.Fatal(err)
	}
	if !bytes.Equal(f.bytes(), before) {
		t.Fatal("the file was changed")
	}
}

// Contract §4: the seller is pinned at first use, and the first poll with it.
func TestPinAccount(t *testing.T) {
	f := open(t)
	first, err := f.DB.PinAccount("shop-a", "wildberries", "seller-1", day)
	if err != nil || !first.FirstPoll.Equal(day) {
		t.Fatal(first, err)
	}
	f.reopen()
	n := f.n
	again, err := f.DB.PinAccount("shop-a", "wildberries", "seller-1", day.Add(time.Hour))
	if err != nil || again != first || f.n != n {
		t.Fatal(again, err, f.n)
	}
	_, err = f.DB.PinAccount("shop-a", "wildberries", "seller-2", day)
	var other *state.OtherSellerError
	if !errors.As(err, &other) || !strings.Contains(err.Error(), "seller-1") || !strings.Contains(err.Error(), "seller-2") {
		t.Fatal(err)
	}
	if _, err = f.DB.PinAccount("shop-a", "yandex_market", "seller-1", day); !errors.As(err, &other) {
		t.Fatal(err)
	}
}

// What is old is decided once.
func TestOpenStream(t *testing.T) {
	zero, date := time.Time{}, day.Add(-time.Hour)
	for name, test := range map[string]struct {
		start *time.Time
		want  time.Time
	}{"now": {nil, day}, "beginning": {&zero, zero}, "a date": {&date, date}} {
		t.Run(name, func(t *testing.T) {
			f := open(t)
			for i := range 2 {
				s, err := f.DB.OpenStream(questions, test.start, day)
				if err != nil || !s.Start.Equal(test.want) || !s.Began.Equal(day) || s.Walked || len(s.Walks) != 0 {
					t.Fatalf("%d: %+v %v", i, s, err)
				}
				other := day.Add(time.Hour)
				test.start = &other // is too late
				f.reopen()
			}
		})
	}
}

func TestLedger(t *testing.T) {
	f := open(t)
	l := f.DB.Ledger()
	if v, err := l.Load("k"); v != nil || err != nil {
		t.Fatal(v, err)
	}
	if err := l.Save("k", []byte(`{"v":1}`)); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	if v, err := f.DB.Ledger().Load("k"); string(v) != `{"v":1}` || err != nil {
		t.Fatal(v, err)
	}
}

// Watch wakes after events were committed, and only then.
func TestWatch(t *testing.T) {
	f := open(t)
	wake, stop := f.DB.Watch()
	woken := func() bool {
		select {
		case <-wake:
			return true
		default:
			return false
		}
	}
	silent := question("s", 1, "a")
	silent.Silent = true
	commit(t, f.DB, pageOf(f.DB, silent))
	if woken() {
		t.Error("woken by a page without events")
	}
	commit(t, f.DB, pageOf(f.DB, question("q", 1, "a")))
	commit(t, f.DB, pageOf(f.DB, question("q", 1, "b")))
	if !woken() || woken() {
		t.Error("not woken once")
	}
	stop()
	commit(t, f.DB, pageOf(f.DB, question("q", 1, "c")))
	if woken() {
		t.Error("woken after stop")
	}
}

// fill puts one of everything into the state.
func fill(t *testing.T, db *state.DB) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := db.PinAccount("shop-a", "wildberries", "seller-1", day)
	must(err)
	_, err = db.OpenStream(questions, nil, day)
	must(err)
	for _, s := range []struct{ name, typ string }{{"archive", "file"}, {"crm", "webhook"}} {
		_, err = db.OpenSink(s.name, s.typ, true, day)
		must(err)
	}
	silent := question("q1", -5, "old")
	silent.Silent = true
	q2 := question("q2", 2, "a & b")
	q2.Changed = day.Add(time.Hour)
	p := pageOf(db, silent, q2, question("q3", 3, "c"))
	p.Walked = true
	commit(t, db, p)
	commit(t, db, pageOf(db, question("q3", 3, "d"), question("q3", 3, "e")))
	p = pageOf(db, question("q4", 4, "staged"))
	p.Walk, p.Staged, p.Final, p.Cursor = "full", true, true, []byte(`{"full":1}`)
	commit(t, db, p)
	must(db.Settle("archive", day, state.Settlement{Position: 2, Checkpoint: []byte(`{"length":512}`)}))
	must(db.Settle("crm", day, state.Settlement{Position: 4, Failed: []state.Failed{
		{Seq: 2, Key: "shop-a/question/q3", Attempts: 1, First: day, Next: day.Add(5 * time.Second), Status: 500, Error: "answer 500"},
		{Seq: 3, Key: "shop-a/question/q3", Next: day},
	}}))
	p = pageOf(db)
	p.Walk, p.Began, p.Done, p.Cursor = "full", day, true, []byte(`{"full":0}`)
	commit(t, db, p)
	p = pageOf(db)
	p.Read, p.Keep = 7, true
	p.Odd = []state.Odd{{Raw: json.RawMessage(`{"no":"id"`), Reason: "no id"}}
	commit(t, db, p)
	_, err = db.AskBackfill(questions, day.Add(-time.Hour), day)
	must(err)
	// A schema change whose settlement is not done.
	feedbacks := pageOf(db)
	feedbacks.Stream.Stream, feedbacks.Now = "feedbacks", day
	for _, more := range []string{"", `,"new":1`} {
		feedbacks.Stamp, feedbacks.Items = db.Stamp(), nil
		for i := range 101 {
			feedbacks.Items = append(feedbacks.Items, withBody(question(fmt.Sprintf("f%03d", i), i, ""), fmt.Sprintf(`{"id":%d%s}`, i, more)))
		}
		commit(t, db, feedbacks)
	}
	if _, done, err := db.SettleHeld(feedbacks, 101, 100); done || err != nil {
		t.Fatal(done, err)
	}
	must(db.Ledger().Save("wildberries/seller-1/chat", json.RawMessage(`{"v":1,"tokens":0}`)))
}
