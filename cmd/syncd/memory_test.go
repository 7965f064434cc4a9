package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"syncd/internal/sandbox"
)

// TestBackfillInBoundedMemory reads a long history and watches the process's
// anonymous memory, which must not grow with it (contract G8). The full size is
// 200,000 feedbacks: SYNCD_E2E=full.
func TestBackfillInBoundedMemory(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("there is no /proc to read the memory from")
	}
	n := 12_000
	if os.Getenv("SYNCD_E2E") == "full" {
		n = 200_000
	}
	const most = 150 << 20
	sb, api := startSandbox(t, sandbox.Config{Seed: 5, Sellers: []sandbox.Seller{{World: sandbox.WorldSpec{Feedbacks: n, FeedbackSpan: 3 * 365 * 24 * time.Hour}}}})
	dir := t.TempDir()
	// The program as it is shipped: the race detector's memory is not ours.
	binary := filepath.Join(dir, "syncd")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	write(t, filepath.Join(dir, "wb.token"), sb.MintToken(sandbox.TokenSpec{Seller: sb.Worlds()[0].ID()}))
	config := filepath.Join(dir, "syncd.yaml")
	write(t, config, fmt.Sprintf(`
state: {path: syncd.db}
server: {listen: ""}
accounts:
  - name: shop-a
    marketplace: wildberries
    token_file: wb.token
    endpoints: {feedbacks: %[1]q, chat: %[1]q, returns: %[1]q}
    streams: {chat_events: {enabled: false}, chats: {enabled: false}, questions: {enabled: false}, claims: {enabled: false}}
sinks:
  - {name: archive, type: file, path: events.ndjson}
`, api))
	peak := func(args ...string) (rss int) {
		t.Helper()
		cmd := exec.Command(binary, append(args, "--config", config)...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case err := <-done:
				if err != nil {
					t.Fatalf("%v: %v\n%s", args, err, out.String())
				}
				t.Logf("%v: at most %d MiB\n%s", args, rss>>20, out.String())
				return rss
			case <-tick.C:
				rss = max(rss, rssAnon(cmd.Process.Pid))
			}
		}
	}
	peak("once") // start: now keeps everything silent
	got := peak("backfill", "--account", "shop-a", "--stream", "feedbacks", "--since", "1500d")
	if got == 0 || got > most {
		t.Errorf("the backfill took %d MiB of anonymous memory, at most %d are allowed", got>>20, most>>20)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "events.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	if lines := bytes.Count(raw, []byte("\n")); lines != n {
		t.Errorf("%d events of %d feedbacks", lines, n)
	}
	if s := sb.Stats(); s.Violations != 0 {
		t.Errorf("%d violations", s.Violations)
	}
	t.Logf("requests: %v", sb.Stats().Requests)
}

// rssAnon is a process's anonymous resident memory in bytes; 0: it has ended.
func rssAnon(pid int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, ok := strings.Cut(string(status), "RssAnon:")
	if !ok {
		return 0
	}
	line, _, _ := strings.Cut(rest, "\n")
	kb, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(line), "kB")))
	if err != nil {
		return 0
	}
	return kb << 10
}
