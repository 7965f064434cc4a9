package state_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"syncd/internal/event"
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
	f := open(t)
	fill(t, f.DB)
	size := f.DB.Size()
	f.DB.Close()
	filled := f.bytes()[:size] // without what the file may grow into
	ours := func(then func(t *testing.T, path string)) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, filled, 0o600); err != nil {
				t.Fatal(err)
			}
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
	// page changes the root page, to which the newer meta leads.
	page := func(change func(page []byte)) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			raw := bytes.Clone(filled)
			number := func(page, at int) uint64 { return binary.NativeEndian.Uint64(raw[page*pageSize+16+at:]) }
			newer := 0
			if number(1, 48) > number(0, 48) {
				newer = 1
			}
			at := number(newer, 16) * pageSize
			change(raw[at : at+pageSize])
			if err := os.WriteFile(path, raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	put32 := func(at int, v uint32) func(page []byte) {
		return func(page []byte) { binary.NativeEndian.PutUint32(page[at:], v) }
	}
	overwrite := func(at int64, with []byte) func(t *testing.T, path string) {
		return ours(func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteAt(with, at)
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		})
	}
	cut := func(to int64) func(t *testing.T, path string) {
		return ours(func(t *testing.T, path string) {
			if err := os.Truncate(path, to); err != nil {
				t.Fatal(err)
			}
		})
	}
	const asItIs = "; it was left as it is: put a backup in its place, or, to begin anew, move it away or set state.path to another file"
	for _, test := range []struct {
		name string
		make func(t *testing.T, path string)
		want string // a pattern of all that follows the path
		is   error
	}{
		{"newer", ours(edit(put("meta", "schema", `{"v":1,"version":99}`))), `: written by a newer version of syncd (schema 99, this one knows *): use that version`, state.ErrNewer},
		{"foreign bbolt", edit(put("jobs", "k", "v")), ` is damaged or not syncd's: a bbolt file of something else (its first bucket is "jobs")` + asItIs, state.ErrDamaged},
		{"foreign bbolt with our bucket", edit(put("meta", "k", "v")), ` is damaged or not syncd's: its schema version cannot be read` + asItIs, state.ErrDamaged},
		{"foreign bbolt that is empty", edit(func(*bolt.Tx) error { return nil }), ` is damaged or not syncd's: its root is empty` + asItIs, state.ErrDamaged},
		{"a bucket is gone", ours(edit(func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("sinks")) })),
			` is damaged or not syncd's: it has no bucket "sinks"` + asItIs, state.ErrDamaged},
		{"records without ids", ours(edit(func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("ids")).Bucket([]byte("shop-a")).DeleteBucket([]byte("questions"))
		})), ` is damaged or not syncd's: shop-a/questions is in "records" and not in "ids"` + asItIs, state.ErrDamaged},
		{"empty", write(""), " is damaged or not syncd's: the file is empty" + asItIs, state.ErrDamaged},
		{"text", write(strings.Repeat("not a database\n", 5000)), " is damaged or not syncd's: its first two pages are not those of a bbolt file" + asItIs, state.ErrDamaged},
		{"short text", write("x"), " is damaged or not syncd's: its first two pages are not those of a bbolt file" + asItIs, state.ErrDamaged},
		{"truncated", cut(20_000), " is damaged or not syncd's: the file is cut short: it has 20000 of at least * bytes" + asItIs, state.ErrDamaged},
		{"truncated to a page", cut(pageSize), " is damaged or not syncd's: the file is cut short: it has 4096 of at least * bytes" + asItIs, state.ErrDamaged},
		{"both metas damaged", overwrite(0, bytes.Repeat([]byte{0xAA}, 2*pageSize)), " is damaged or not syncd's: its first two pages are not those of a bbolt file" + asItIs, state.ErrDamaged},
		{"another page in its place", page(put32(0, 1<<20)), " is damaged or not syncd's: page * says that it is page 1048576" + asItIs, state.ErrDamaged},
		{"a page of zeros", page(func(page []byte) { clear(page) }), " is damaged or not syncd's: page * says that it is page 0" + asItIs, state.ErrDamaged},
		{"a page of another kind", page(func(page []byte) { page[8] = 4 }), " is damaged or not syncd's: page * is neither branch nor leaf: its flags are 0x4" + asItIs, state.ErrDamaged},
		{"pages behind the end", page(put32(12, 1<<20)), " is damaged or not syncd's: page * has 1048576 more, and the pages end at *" + asItIs, state.ErrDamaged},
		{"more elements than fit", page(func(page []byte) { binary.NativeEndian.PutUint16(page[10:], 0xFFFF) }), " is damaged or not syncd's: page * has 65535 elements in 4096 bytes" + asItIs, state.ErrDamaged},
		{"an address outside", page(put32(16+4, 1<<31)), " is damaged or not syncd's: page *: element 0 is at 2147483648, with * and * bytes" + asItIs, state.ErrDamaged},
		{"a key longer than its page", page(put32(16+8, math.MaxUint32)), " is damaged or not syncd's: page *: element 0 is at *, with 4294967295 and * bytes" + asItIs, state.ErrDamaged},
		{"a value longer than its page", page(put32(16+12, math.MaxUint32)), " is damaged or not syncd's: page *: element 0 is at *, with * and 4294967295 bytes" + asItIs, state.ErrDamaged},
		{"no key", page(put32(16+8, 0)), " is damaged or not syncd's: page *: element 0 is at *, with 0 and * bytes" + asItIs, state.ErrDamaged},
		{"unknown flags", page(put32(16, 8)), " is damaged or not syncd's: page *: element 0 has the flags 0x8" + asItIs, state.ErrDamaged},
		{"a bucket without a root", page(put32(16+12, 3)), ` is damaged or not syncd's: page *: bucket "accounts" has 3 bytes` + asItIs, state.ErrDamaged},
		{"keys out of order", page(func(page []byte) { page[bytes.Index(page, []byte("accounts"))] = 'z' }), " is damaged or not syncd's: page *: key 1 is not above the one before" + asItIs, state.ErrDamaged},
		{"a directory", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, ": it is a directory and no file: set state.path to a file", nil},
		{"a pipe", func(t *testing.T, path string) {
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
		}, ": it is a pipe and no file: set state.path to a file", nil},
		{"a device", func(t *testing.T, path string) {
			if err := os.Symlink(os.DevNull, path); err != nil {
				t.Fatal(err)
			}
		}, ": it is a device and no file: set state.path to a file", nil},
		{"a link to nothing", func(t *testing.T, path string) {
			if err := os.Symlink("elsewhere", path); err != nil {
				t.Fatal(err)
			}
		}, ": it is a link to elsewhere, which does not exist: remove the link, or set state.path to where the file is to be", nil},
		{"a file that may not be written", func(t *testing.T, path string) {
			ours(func(*testing.T, string) {})(t, path)
			if err := os.Chmod(path, 0o444); err != nil {
				t.Fatal(err)
			}
			unprivileged(t, filepath.Dir(path))
		}, ": open *: permission denied: syncd must be able to write to it and to its directory", fs.ErrPermission},
		{"a directory that may not be written", func(t *testing.T, path string) {
			unprivileged(t, filepath.Dir(path))
		}, ": open *: permission denied: syncd must be able to write to it and to its directory", fs.ErrPermission},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "syncd.db")
			test.make(t, path)
			content := func() []byte { // a pipe would wait for its other end
				if fi, err := os.Stat(path); err != nil || !fi.Mode().IsRegular() {
					return nil
				}
				raw, _ := os.ReadFile(path)
				return raw
			}
			entries, before := dir(t, path), content()
			db, err := state.Open(state.Config{Path: path})
			if err == nil {
				db.Close()
				t.Fatal("opened")
			}
			if ok, _ := regexp.MatchString("^"+strings.ReplaceAll(regexp.QuoteMeta("state file "+path+test.want), `\*`, `[^;:]+`)+"$", err.Error()); !ok {
				t.Errorf("%v\nwant state file %s%s", err, path, test.want)
			}
			if test.is != nil && !errors.Is(err, test.is) {
				t.Errorf("%v is not %v", err, test.is)
			}
			if !bytes.Equal(before, content()) || !slices.Equal(entries, dir(t, path)) {
				t.Error("the file was changed, or another was left")
			}
		})
	}
}

// dir lists the directory of a file.
func dir(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// unprivileged makes a directory one that may only be read, and the rest of a test
// open files as nobody where it would be root, to whom no mode says anything.
func unprivileged(t *testing.T, dir string) {
	t.Helper()
	for _, d := range []string{dir, filepath.Dir(dir)} { // the upper one is closed to others
		if err := os.Chmod(d, 0o555); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.Chmod(d, 0o700); err != nil {
				t.Error(err)
			}
		})
	}
	if os.Geteuid() != 0 {
		return
	}
	runtime.LockOSThread() // never let go: a thread that is somebody else ends with its goroutine
	if err := syscall.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setfsuid(0); err != nil {
			t.Error(err)
		}
	})
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
	if v, stale, err := l.Load("k"); v != nil || stale || err != nil {
		t.Fatal(v, stale, err)
	}
	if err := l.Save("k", []byte(`{"v":1}`)); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	if v, stale, err := f.DB.Ledger().Load("k"); string(v) != `{"v":1}` || stale || err != nil {
		t.Fatal(v, stale, err)
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
		{Seq: 2, Key: "shop-a/question/q3", Attempts: 1, Refused: 1, First: day, Last: day.Add(time.Second), Next: day.Add(5 * time.Second), Status: 500, Error: "answer 500"},
		{Seq: 3, Key: "shop-a/question/q3", First: day, Next: day},
	}, Dead: []state.Failed{{Seq: 1, Key: "shop-a/question/q2", Attempts: 5, First: day, Last: day, Status: 400, Error: `answer 400: "no"`, Reason: state.ReasonRefused}}}))
	p = pageOf(db)
	p.Walk, p.Began, p.Done, p.Cursor = "full", day, true, []byte(`{"full":0}`)
	commit(t, db, p)
	p = pageOf(db)
	p.Found = []state.Visit{
		{Stream: "answers", ID: "q2", Created: day, Due: day.Add(time.Hour), Urgent: true, Found: json.RawMessage(`{"n":1}`), History: true},
		{Stream: "answers", ID: "q3", Due: day, Found: json.RawMessage(`{"n":2}`)},
	}
	commit(t, db, p)
	p = pageOf(db)
	p.Stream.Stream, p.Walk, p.Keep = "answers", "follow", true
	p.Visited = []state.Visit{{ID: "q3", Version: 2, Due: day.Add(2 * time.Hour), Seen: json.RawMessage(`{"last":7}`)}}
	p.Visiting = &state.Visiting{ID: "q2", Version: 1}
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
	// A sink whose endpoint is gone, with one batch in its queue and one on its way,
	// a dead letter that is retried and a replay; and two that left the configuration.
	ahead, hold := []uint64{6, 7, 9}, day.Add(time.Hour)
	must(db.Settle("crm", day, state.Settlement{Ahead: []uint64{9}, Batches: []state.Batch{{Members: []uint64{6, 7}}, {Members: []uint64{5, 10}}}}))
	must(db.Settle("crm", day, state.Settlement{Ahead: ahead, Hold: &hold, Gone: &state.Gone{At: day, Event: "shop-a/feedbacks/f001", Answer: "gone"}, Failed: []state.Failed{
		{Seq: 6, Key: "shop-a/question/f001", Batch: 6, Attempts: 1, First: day, Last: day, Next: hold, Status: 410, Error: "answer 410"},
		{Seq: 7, Key: "shop-a/question/f002", Attempts: 1, First: day, Last: day, Next: hold, Status: 410, Error: "answer 410"},
	}}))
	ctx, cancel := context.WithCancel(context.Background())
	_, err = db.RetryDeadLetters(ctx, "crm", "", day)
	must(err)
	_, err = db.QueueReplay(ctx, "crm", func(h event.Header) bool { return h.Sequence != 9 }, day, day.Add(48*time.Hour))
	must(err)
	must(db.SaveSelect("crm", json.RawMessage(`{"types":["*"]}`)))
	_, err = db.OpenSink("old", "webhook", true, day)
	must(err)
	must(db.Settle("old", day, state.Settlement{Position: 1, Failed: []state.Failed{{Seq: 1, Key: "shop-a/question/q2", Next: day}}}))
	must(db.MarkSinks([]string{"crm", "old"}, day))
	cancel() // before what was forgotten is deleted
	must(db.ForgetSink(ctx, "old"))
	checkState(t, db)
}
