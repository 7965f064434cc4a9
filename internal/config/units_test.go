package config_test

import (
	"strings"
	"testing"
	"time"

	"syncd/internal/config"
)

func TestParseDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "200ms": 200 * time.Millisecond, "1h30m": 90 * time.Minute, "7d": 168 * time.Hour, "1d12h": 36 * time.Hour,
		"0.5d": 12 * time.Hour, "-1d": -24 * time.Hour, "1h1d": 25 * time.Hour,
	} {
		if got, err := config.ParseDuration(s); err != nil || got != want {
			t.Errorf("%s: got %s, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "d", "1", "1.5", "5 s", "1w", "1md", "1d-1h", "1e3s", "200000d", strings.Repeat("9", 400) + "d"} {
		if got, err := config.ParseDuration(s); err == nil {
			t.Errorf("%s: got %s, want an error", s, got)
		}
	}
}

func TestSizes(t *testing.T) {
	load := func(s string) (*config.Config, error) {
		return loadText(t, `accounts: [{name: a, marketplace: wildberries, token_env: WB_TOKEN}]
sinks: [{name: f, type: file, path: f.ndjson, rotate: {size: `+s+`}}]
`)
	}
	for s, want := range map[string]int64{
		"512B": 512, "64KiB": 64 << 10, "100MiB": 100 << 20, "10GiB": 10 << 30, "1TiB": 1 << 40, "8388607TiB": 8388607 << 40,
	} {
		if c, err := load(s); err != nil || c.Sinks[0].File.Rotate.Size != want {
			t.Errorf("%s: got %+v, %v", s, c, err)
		}
	}
	for s, want := range map[string]string{
		"512": `"512" has no unit`, "64KB": `"64KB" is not a size`, `""`: `"" is not a size`, "0B": `"0B" is out of range`,
		"9999999999TiB": `"9999999999TiB" is out of range`, "8388608TiB": `"8388608TiB" is out of range`, "1.5GiB": `"1.5GiB" is not a size`,
	} {
		if _, err := load(s); err == nil || !strings.Contains(err.Error(), want+", expected a size") {
			t.Errorf("%s: got %v, want %s", s, err, want)
		}
	}
}
