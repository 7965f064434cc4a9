package config_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"syncd/internal/config"
)

var update = flag.Bool("update", false, "rewrite the golden texts of testdata/bad and the schema")

const signingSecret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"

// environment is what every test finds set. Nothing secret in it may show up in an error.
var environment = map[string]string{
	"WB_TOKEN":    "wb-hunter2",
	"HOOK_SECRET": signingSecret,
	"EMPTY":       " ",
	"TWO_LINES":   "hunter2\nhunter2",
	"FOREIGN":     "foreign-hunter2",
}

func getenv(key string) string { return environment[key] }

// TestBad holds one file for each rule, with the exact text of what is wrong with it. A file that is wrong by its shape has to
// be refused by the schema too; the others say "schema: passes".
func TestBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	editor := editorSchema(t)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			dir, want := unpack(t, archive)
			_, err = config.Load(config.Source{Path: filepath.Join(dir, "syncd.yaml"), Getenv: getenv}, catalog())
			if err == nil {
				t.Fatal("loaded, expected errors")
			}
			got := strings.ReplaceAll(err.Error(), dir+"/", "") + "\n"
			if strings.Contains(got, "hunter2") {
				t.Errorf("an error repeats a secret:\n%s", got)
			}
			if *update {
				want.Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want.Data) {
				t.Errorf("got:\n%swant:\n%s", got, want.Data)
			}
			text, err := os.ReadFile(filepath.Join(dir, "syncd.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			passes := strings.Contains(string(archive.Comment), "schema: passes")
			if err := validate(t, editor, text); !passes && err == nil {
				t.Error("the schema accepts it")
			} else if passes && err != nil {
				t.Errorf("the schema refuses it too (drop the line that says it passes): %v", err)
			}
		})
	}
}

// unpack writes the files of an archive into a directory, and gives the one that holds the expected errors.
func unpack(t *testing.T, archive *txtar.Archive) (dir string, want *txtar.File) {
	t.Helper()
	dir = t.TempDir()
	for i, f := range archive.Files {
		if f.Name == "want" {
			want = &archive.Files[i]
			continue
		}
		write(t, filepath.Join(dir, f.Name), string(f.Data))
	}
	if want == nil {
		t.Fatal("the archive has no file want")
	}
	return dir, want
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
