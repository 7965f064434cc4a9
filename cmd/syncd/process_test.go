package main

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// process is syncd in a process of its own, which can be killed.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	log   string // file: it can be read while syncd writes it
	ended chan struct{}
}

// start runs a command of syncd as a process; it is killed at the end of the test at the latest.
func start(t *testing.T, config string, args ...string) *process {
	t.Helper()
	log, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p := &process{t: t, log: log.Name(), ended: make(chan struct{}), cmd: exec.Command(os.Args[0], append(args, "--config", config)...)}
	p.cmd.Env = append(os.Environ(), "SYNCD_TEST_AS_SYNCD=1")
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("syncd %s:\n%s", strings.Join(args, " "), p.logged())
		}
	})
	return p
}

// logged is what the process has written.
func (p *process) logged() string {
	raw, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Error(err)
	}
	return string(raw)
}

// kill ends the process with no chance to clean up. It returns false where it had
// ended before.
func (p *process) kill() bool {
	p.cmd.Process.Kill()
	<-p.ended
	return p.cmd.ProcessState.ExitCode() == -1
}

// exits waits for the end of the process.
func (p *process) exits(code int) {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(2 * time.Minute):
		p.t.Fatal("it does not end within 2 minutes")
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		p.t.Errorf("exit code %d, want %d:\n%s", got, code, p.logged())
	}
}

// stop stops the process as an operator does.
func (p *process) stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		p.t.Fatal(err)
	}
	p.exits(0)
}

// items counts what the marketplace has of the streams that are on by default.
func (s *shop) items() int {
	w := s.sb.Worlds()[0]
	return len(w.Events()) + len(w.Questions()) + len(w.Feedbacks()) + len(w.Claims()) + len(w.Chats())
}

// delivered counts the lines of the file sink, whether whole or not.
func (s *shop) delivered() int {
	raw, _ := os.ReadFile(filepath.Join(s.dir, "events.ndjson"))
	return strings.Count(string(raw), "\n")
}

// eachOnce checks that each item of a world at rest is in the file, and once.
func (s *shop) eachOnce(t *testing.T) {
	t.Helper()
	want := make(map[string]bool)
	w := s.sb.Worlds()[0]
	for _, e := range w.Events() {
		want["chat_events/"+e.ChatID+"/"+e.EventID] = true
	}
	for _, q := range w.Questions() {
		want["questions/"+q.ID] = true
	}
	for _, f := range w.Feedbacks() {
		want["feedbacks/"+f.ID] = true
	}
	for _, c := range w.Claims() {
		want["claims/"+c.ID] = true
	}
	for _, c := range w.Chats() {
		want["chats/"+c.ID] = true
	}
	seen := make(map[string]bool)
	for _, id := range s.events(t) {
		item := strings.TrimPrefix(id, "shop-a/")
		if !strings.HasPrefix(item, "chat_events/") {
			item = item[:strings.LastIndex(item, "/")] // without the version
		}
		if !want[item] || seen[item] {
			t.Errorf("%s: exists %v, is in the file already %v", id, want[item], seen[item])
		}
		seen[item] = true
	}
	if len(seen) != len(want) {
		missing := slices.DeleteFunc(slices.Sorted(maps.Keys(want)), func(item string) bool { return seen[item] })
		t.Errorf("%d of %d items are in the file: %q … are not", len(seen), len(want), missing[:min(len(missing), 10)])
	}
	s.noViolations(t)
}
