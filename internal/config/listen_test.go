package config_test

import (
	"path/filepath"
	"testing"

	"syncd/internal/config"
)

func TestListen(t *testing.T) {
	for text, want := range map[string]string{
		"server: {listen: 127.0.0.1:20601}\nsinks: [{nmae: x}]\n": "127.0.0.1:20601",
		"server: {listen: \":9470\"}\naccounts: 5\n":              ":9470",
		"server: {listen: \"\"}\n":                                "",
		"server: {listen: here}\n":                                "",
		"server: {listen: [1]}\n":                                 "",
		"accounts: []\n":                                          "",
		"server: {listen: 127.0.0.1:20601}\nsinks: [\n":           "",
		"": "",
	} {
		path := filepath.Join(t.TempDir(), "syncd.yaml")
		write(t, path, text)
		if got, ok := config.Listen(path); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v, want %q", text, got, ok, want)
		}
	}
	if got, ok := config.Listen(filepath.Join(t.TempDir(), "none.yaml")); ok {
		t.Errorf("a file that is not there: %q", got)
	}
}
