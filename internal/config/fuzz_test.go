package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"syncd/internal/config"
)

// lineBreak is what YAML takes for the end of a line.
var lineBreak = regexp.MustCompile("[\r\n\u0085\u2028\u2029]")

// FuzzLoad holds that no text makes Load panic, that it returns either a configuration whose streams and sinks keep what their types
// promise or problems, each with a place, and that no problem repeats a secret.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, a := range archive.Files {
			if strings.HasSuffix(a.Name, ".yaml") {
				f.Add(a.Data)
			}
		}
	}
	if text, err := os.ReadFile(exampleFile); err != nil {
		f.Fatal(err)
	} else {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		// Patterns over the real root directory would make the test depend on the machine, and slow.
		if strings.Contains(string(text), "include") {
			t.Skip()
		}
		path := filepath.Join(t.TempDir(), "syncd.yaml")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(config.Source{Path: path, Getenv: getenv}, catalog())
		if err == nil {
			if len(c.Accounts) == 0 {
				t.Error("no account and no error")
			}
			for _, a := range c.Accounts {
				checkStreams(t, a)
			}
			for _, s := range c.Sinks {
				checkSink(t, s)
			}
			if fresh, changed, err := c.Refresh(); fresh != c || changed != nil || err != nil {
				t.Errorf("refreshed: %q, %v", changed, err)
			}
			return
		}
		e, ok := errors.AsType[*config.Errors](err)
		if !ok || c != nil || len(e.Problems) == 0 {
			t.Fatalf("got %v, %v", c, err)
		}
		lines := len(lineBreak.FindAllIndex(text, -1)) + 1
		for _, p := range e.Problems {
			if p.Line < 1 || p.Line > lines || p.Column < 1 || p.Message == "" {
				t.Errorf("a problem without a place: %s", p)
			}
			if strings.Contains(p.Message, "hunter2") && !strings.Contains(string(text), "hunter2") {
				t.Errorf("a problem repeats a secret: %s", p)
			}
		}
	})
}

// checkStreams holds settings against the promises of StreamSettings and of the catalogue.
func checkStreams(t *testing.T, a config.Account) {
	t.Helper()
	markets, streams := catalog().Marketplaces, a.Streams
	known := markets[slices.IndexFunc(markets, func(m config.Marketplace) bool { return m.Name == a.Marketplace })].Streams
	if len(streams) != len(known) {
		t.Fatalf("%d streams, want %d", len(streams), len(known))
	}
	for i, s := range streams {
		if s.Name != known[i].Name || s.Schedule == "" || s.Overlap < 0 || (known[i].Overlap == 0 && s.Overlap != 0) {
			t.Errorf("got %+v", s)
		}
		if !known[i].Sweeps {
			if s.Sweep != (config.Sweep{}) || s.Ignore != nil {
				t.Errorf("a stream without changes has a sweep or fields to ignore: %+v", s)
			}
			continue
		}
		if s.Sweep.Every <= 0 || s.Sweep.Full < s.Sweep.Every || s.Sweep.Window <= 0 {
			t.Errorf("got %+v", s.Sweep)
		}
		if len(s.Ignore) > 100 || !slices.IsSorted(s.Ignore) || len(slices.Compact(slices.Clone(s.Ignore))) != len(s.Ignore) {
			t.Errorf("got %q", s.Ignore)
		}
		for _, field := range s.Ignore {
			if field == "" || len(field) > 200 {
				t.Errorf("got a field %q", field)
			}
		}
	}
}

// checkSink holds a sink against the promises of its types.
func checkSink(t *testing.T, s config.Sink) {
	t.Helper()
	if s.Name == "" || (s.File != nil) != (s.Type == config.TypeFile) || (s.Webhook != nil) != (s.Type == config.TypeWebhook) {
		t.Errorf("got %+v", s)
	}
	if got, err := config.ParseSelect(s.Select.Patterns()); err != nil || string(got.Patterns()) != string(s.Select.Patterns()) {
		t.Errorf("the selection %s comes back as %s, %v", s.Select.Patterns(), got.Patterns(), err)
	}
	if f := s.File; f != nil {
		modes := []config.SyncMode{config.SyncCommit, config.SyncInterval, config.SyncNone}
		rotates := f.Rotate.Size > 0 || f.Rotate.Every > 0
		if !filepath.IsAbs(f.Path) || !slices.Contains(modes, f.Sync) || (!rotates && f.Rotate != config.Rotate{}) ||
			f.Rotate.Size < 0 || f.Rotate.Every < 0 || f.Rotate.Keep < 0 {
			t.Errorf("got %+v", *f)
		}
	}
	if w := s.Webhook; w != nil {
		if w.URL == "" || w.Timeout <= 0 || w.Concurrency < 1 || w.Concurrency > 256 || (w.Rate != 0 && !(w.Rate >= 0.001 && w.Rate <= 1e6)) ||
			w.Batch.MaxEvents < 1 || w.Batch.MaxEvents > 1000 || w.Batch.MaxWait < 0 || (w.Batch.MaxEvents == 1 && w.Batch.MaxWait > 0) ||
			w.Retry.Initial <= 0 || w.Retry.Max < w.Retry.Initial || w.Retry.GiveUpAfter < w.Retry.Initial || w.Retry.MaxAttempts4xx < 1 {
			t.Errorf("got %+v", *w)
		}
	}
}
