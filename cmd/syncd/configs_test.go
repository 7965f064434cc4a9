package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"syncd/internal/config"
)

var update = flag.Bool("update", false, "write generated files anew")

// TestSchemaFile holds configs/syncd.schema.json against the code.
func TestSchemaFile(t *testing.T) {
	const path = "../../configs/syncd.schema.json"
	want, err := config.Schema(catalog())
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale: make generate", path)
	}
}

// TestUnitStartsSyncd holds the systemd unit against the command line.
func TestUnitStartsSyncd(t *testing.T) {
	raw, err := os.ReadFile("../../configs/systemd/syncd.service")
	if err != nil {
		t.Fatal(err)
	}
	var start string
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "ExecStart="); ok {
			start = strings.TrimSpace(rest)
		}
	}
	args := strings.Fields(start)
	if len(args) == 0 || filepath.Base(args[0]) != "syncd" {
		t.Fatalf("ExecStart=%s does not start syncd", start)
	}
	cmd, rest, err := newRoot(&env{}).Find(args[1:])
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.ParseFlags(rest); err != nil || cmd.Name() != "run" {
		t.Errorf("ExecStart=%s: command %q, flags: %v", start, cmd.Name(), err)
	}
}
