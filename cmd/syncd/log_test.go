package main

import (
	"bytes"
	"testing"
	"time"

	"syncd/internal/config"
)

// TestLogDurations: a duration reads the same in every format.
func TestLogDurations(t *testing.T) {
	for format, want := range map[config.LogFormat]string{config.LogJSON: `"older_than":"1m5s"`, config.LogText: "older_than=1m5s"} {
		var b bytes.Buffer
		log, _ := newLogger(&b, func(string) string { return "" }, config.Log{Format: format})
		log.Info("deleted", "older_than", 65*time.Second)
		if !bytes.Contains(b.Bytes(), []byte(want)) {
			t.Errorf("%s: %s", format, &b)
		}
	}
}
