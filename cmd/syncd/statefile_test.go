package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	bolt "go.etcd.io/bbolt"

	"syncd/internal/state"
)

// stateFiles are what `statefile` makes of a state file that has something in it.
var stateFiles = map[string]func(path string, raw []byte) error{
	"whole":              func(string, []byte) error { return nil },
	"truncated":          func(path string, _ []byte) error { return os.Truncate(path, 5*pageBytes) },
	"truncated-to-metas": func(path string, _ []byte) error { return os.Truncate(path, 2*pageBytes) },
	"foreign": func(path string, _ []byte) error {
		if err := os.Remove(path); err != nil {
			return err
		}
		return inBolt(path, func(tx *bolt.Tx) error {
			_, err := tx.CreateBucket([]byte("jobs"))
			return err
		})
	},
	"newer": func(path string, _ []byte) error {
		return inBolt(path, func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte(`{"v":1,"version":1000}`))
		})
	},
	"zeroed-page": func(path string, raw []byte) error {
		page, err := somePage(path, raw, "leaf")
		if err != nil {
			return err
		}
		clear(page)
		return os.WriteFile(path, raw, 0o600)
	},
	"flipped-branch": func(path string, raw []byte) error {
		page, err := somePage(path, raw, "branch")
		if err != nil {
			return err
		}
		for i := 16; i < 80; i++ { // behind its header: the table of its children
			page[i] ^= 0x55
		}
		return os.WriteFile(path, raw, 0o600)
	},
}

// pageBytes is the size of a page of bbolt.
var pageBytes = int64(os.Getpagesize())

func inBolt(path string, fn func(tx *bolt.Tx) error) error {
	b, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	return errors.Join(b.Update(fn), b.Close())
}

// somePage returns a page of a kind that is in use, a part of raw.
func somePage(path string, raw []byte, kind string) (page []byte, err error) {
	b, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, PreLoadFreelist: true})
	if err != nil {
		return nil, err
	}
	defer b.Close()
	err = b.View(func(tx *bolt.Tx) error {
		for id := int64(0); id*pageBytes < tx.Size(); id++ {
			info, err := tx.Page(int(id))
			if err != nil {
				return err
			}
			if info.Type == kind {
				page = raw[id*pageBytes:][:pageBytes]
				return nil
			}
		}
		return errors.New("the file has no page of the kind " + kind)
	})
	return page, err
}

// makeStateFile is the script command `statefile KIND PATH`.
func makeStateFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 || stateFiles[args[0]] == nil {
		ts.Fatalf("usage: statefile KIND PATH")
	}
	path := ts.MkAbs(args[1])
	db, err := state.Open(state.Config{Path: path})
	ts.Check(err)
	for i := range 200 { // enough for more than one level of pages
		ts.Check(db.Ledger().Save(strings.Repeat("x", i+1), []byte(`{"v":1}`)))
	}
	ts.Check(db.Close())
	raw, err := os.ReadFile(path)
	ts.Check(err)
	ts.Check(stateFiles[args[0]](path, raw))
}

// refuses is the script command `refuses CONFIG PATH TEXT`: run and once, and poll where
// there is a file, say in one line that they cannot work with the state file at PATH, that
// it is TEXT and what to do next, exit with 1, and leave everything as it was.
func refuses(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: refuses CONFIG PATH TEXT")
	}
	path, text := ts.MkAbs(args[1]), args[2]
	look := func() (names []string, raw []byte) {
		entries, err := os.ReadDir(filepath.Dir(path))
		ts.Check(err)
		for _, e := range entries {
			names = append(names, e.Name())
		}
		raw, _ = os.ReadFile(path) // it may be a directory, or not there
		return names, raw
	}
	names, raw := look()
	commands := [][]string{{"run"}, {"once"}}
	if slices.Contains(names, filepath.Base(path)) {
		commands = append(commands, []string{"poll", "shop-a"})
	}
	for _, command := range commands {
		exits(ts, false, append(append([]string{"1", "syncd"}, command...), "--config", args[0]))
		said := ts.ReadFile("stderr")
		if strings.Count(said, "\n") != 1 || !strings.Contains(said, path) || !strings.Contains(said, text) || !nextStep(said) {
			ts.Fatalf("syncd %s: want one line with %s, %q and what to do next", command[0], path, text)
		}
		namesNow, rawNow := look()
		if !slices.Equal(names, namesNow) || !bytes.Equal(raw, rawNow) {
			ts.Fatalf("syncd %s has changed %s, or left something beside it: %v", command[0], path, namesNow)
		}
	}
}

// needsState is the script command `needsState COMMAND...`: by here.yaml, which has a state
// file that does not exist, the command says so in one line, exits with 1, and makes nothing.
func needsState(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: needsState COMMAND...")
	}
	look := func() (names []string) {
		ts.Check(filepath.WalkDir(ts.MkAbs("."), func(path string, _ fs.DirEntry, err error) error {
			names = append(names, path)
			return err
		}))
		return names
	}
	before := look()
	exits(ts, false, append(append([]string{"1", "syncd"}, args...), "--config", "here.yaml"))
	said := ts.ReadFile("stderr")
	for _, want := range []string{"there is no state file at " + ts.MkAbs("syncd.db"), "here.yaml", "`syncd run`"} {
		if strings.Count(said, "\n") != 1 || !strings.Contains(said, want) || ts.ReadFile("stdout") != "" {
			ts.Fatalf("want one line with %q", want)
		}
	}
	if now := look(); !slices.Equal(before, now) {
		ts.Fatalf("there was %q, now there is %q", before, now)
	}
}

// nextStep says whether a message tells what to do.
func nextStep(said string) bool {
	return slices.ContainsFunc([]string{"put a backup in its place", "set state.path", "use that version", "must be able to write"},
		func(s string) bool { return strings.Contains(said, s) })
}
