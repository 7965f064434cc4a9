package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"syncd/internal/sandbox"
	"syncd/internal/sources/apiclient"
	"syncd/internal/state"
)

// shop is one account of a sandbox, and a configuration for it.
type shop struct {
	sb      *sandbox.Sandbox
	config  string
	dir     string
	address string // of the daemon
}

func newShop(t *testing.T, spec sandbox.WorldSpec, token sandbox.TokenSpec, extra string) *shop {
	t.Helper()
	sb, api := startSandbox(t, sandbox.Config{Seed: 3, Sellers: []sandbox.Seller{{World: spec}}})
	s := &shop{sb: sb, dir: t.TempDir(), address: freeAddress(t)}
	token.Seller = sb.Worlds()[0].ID()
	write(t, filepath.Join(s.dir, "wb.token"), sb.MintToken(token))
	s.config = filepath.Join(s.dir, "syncd.yaml")
	write(t, s.config, fmt.Sprintf(`
state: {path: syncd.db}
server: {listen: %[2]q}
%[3]s
accounts:
  - name: shop-a
    marketplace: wildberries
    token_file: wb.token
    endpoints: {feedbacks: %[1]q, chat: %[1]q, returns: %[1]q}
sinks:
  - {name: archive, type: file, path: events.ndjson, from: beginning}
`, api, s.address, extra))
	return s
}

// syncd runs a command in this process.
func (s *shop) syncd(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(context.Background(), append(args, "--config", s.config), func(string) string { return "" }, &out, &errs)
	return code, out.String(), errs.String()
}

// expect runs a command that must end so.
func (s *shop) expect(t *testing.T, code int, contains string, args ...string) string {
	t.Helper()
	got, out, errs := s.syncd(args...)
	if got != code || !strings.Contains(out+errs, contains) {
		t.Errorf("syncd %s exits %d, want %d with %q:\n%s%s", strings.Join(args, " "), got, code, contains, out, errs)
	}
	return out
}

// daemon runs the daemon until the test ends, and waits until it is ready.
func (s *shop) daemon(t *testing.T) (stop func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "run", "--config", s.config)
	cmd.Env = append(os.Environ(), "SYNCD_TEST_AS_SYNCD=1")
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = sync.OnceFunc(func() {
		cmd.Process.Signal(os.Interrupt)
		<-ended
	})
	t.Cleanup(func() {
		cmd.Process.Kill()
		stop() // its log is whole then
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", log.String())
		}
	})
	s.until(t, func() bool { code, _, _ := s.syncd("healthcheck"); return code == 0 })
	return stop
}

// until waits for something of another process.
func (s *shop) until(t *testing.T, done func() bool) {
	t.Helper()
	timeout := time.After(2 * time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatal("it did not happen within 2 minutes")
		}
	}
}

func (s *shop) events(t *testing.T) []string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(s.dir, "events.ndjson"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var ids []string
	for line := range strings.Lines(string(raw)) {
		if !strings.HasSuffix(line, "\n") {
			break // it is being written
		}
		var e envelope
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	return ids
}

// status asks the running daemon; false: it does not answer yet.
func (s *shop) status(t *testing.T) (st statusAnswer, ok bool) {
	t.Helper()
	code, out, _ := s.syncd("status", "--json")
	if code != 0 {
		return st, false
	}
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		t.Fatal(err)
	}
	return st, true
}

func (s *shop) noViolations(t *testing.T) {
	t.Helper()
	if st := s.sb.Stats(); st.Violations != 0 || st.Pings != 0 {
		t.Errorf("%d violations, %d pings: %+v", st.Violations, st.Pings, st.Recent)
	}
}

// TestControlThroughTheDaemon: the commands of contract §3 ask the running daemon.
func TestControlThroughTheDaemon(t *testing.T) {
	t.Parallel()
	s := newShop(t, sandbox.WorldSpec{Events: 60, Questions: 40, Feedbacks: 50, Claims: 20}, sandbox.TokenSpec{}, `defaults: {wildberries: {streams: {questions: {schedule: "@every 1h"}}}}`)
	stop := s.daemon(t)
	world := s.sb.Worlds()[0]
	status := func() (st statusAnswer) {
		code, out, errs := s.syncd("status", "--json")
		if code != 0 {
			t.Fatalf("status exits %d: %s", code, errs)
		}
		if err := json.Unmarshal([]byte(out), &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	walked := func() bool {
		st := status()
		for _, stream := range st.Streams {
			if stream.FirstWalk != "complete" {
				return false
			}
		}
		return len(st.Streams) == 5
	}
	s.until(t, walked)
	if got := s.events(t); len(got) != 0 {
		t.Errorf("start: now, and %d events: %v", len(got), got)
	}
	s.expect(t, 0, "shop-a/questions", "status")

	// A question that the schedule would show in an hour.
	q, err := world.AddQuestion(sandbox.QuestionSpec{})
	if err != nil {
		t.Fatal(err)
	}
	s.expect(t, 0, "shop-a/questions: polling now", "poll", "shop-a", "questions")
	s.until(t, func() bool { return len(s.events(t)) == 1 })
	if got := s.events(t)[0]; !strings.HasPrefix(got, "shop-a/questions/"+q.ID+"/1-") {
		t.Errorf("got %s", got)
	}

	// What start kept silent comes with a backfill, each once, also when asked twice.
	s.expect(t, 0, "shop-a/feedbacks: reading history since", "backfill", "--account", "shop-a", "--since", "100d")
	s.expect(t, 0, "shop-a/questions: reading history since", "backfill", "--account", "shop-a", "--stream", "questions", "--since", "2020-01-01T00:00:00Z")
	total := len(world.Events()) + len(world.Questions()) + len(world.Feedbacks()) + len(world.Claims()) + len(world.Chats())
	s.until(t, func() bool { return len(s.events(t)) >= total })
	s.until(t, func() bool {
		for _, stream := range status().Streams {
			for _, w := range stream.Walks {
				if !w.Since.IsZero() {
					return false
				}
			}
		}
		return true
	})
	ids := make(map[string]bool)
	for _, id := range s.events(t) {
		if ids[id] {
			t.Errorf("%s came twice", id)
		}
		ids[id] = true
	}
	if len(ids) != total {
		t.Errorf("%d events of %d items", len(ids), total)
	}

	out := s.expect(t, 0, "works", "check", "--online")
	for _, group := range []string{"chat", "feedbacks", "returns"} {
		if !regexp.MustCompile(`shop-a +` + group + ` +` + world.ID() + ` +personal +"?Feedbacks.*works`).MatchString(out) {
			t.Errorf("check --online says nothing good of %s:\n%s", group, out)
		}
	}

	// A page that fails for ever.
	s.expect(t, 1, "is not failing now", "state", "skip", "--account", "shop-a", "--stream", "questions")
	if err := s.sb.Inject(sandbox.Fault{Kind: sandbox.Fault500, Path: "/api/v1/seller/events", Rate: 1}); err != nil {
		t.Fatal(err)
	}
	s.until(t, func() bool { _, out, _ := s.syncd("status"); return strings.Contains(out, "failing for") })
	s.expect(t, 0, "left out: chat events", "state", "skip", "--account", "shop-a", "--stream", "chat_events")
	s.sb.ClearFaults()
	s.expect(t, 0, "", "poll", "shop-a", "chat_events")
	s.until(t, func() bool { _, out, _ := s.syncd("status"); return !strings.Contains(out, "failing for") })

	for want, args := range map[string][]string{
		`no account "shop-b" is polled; there are: shop-a`: {"poll", "shop-b"},
		`polls no stream "chat"; it polls: chat_events`:    {"poll", "shop-a", "chat"},
		`polls no stream "nothing"`:                        {"backfill", "--account", "shop-a", "--stream", "nothing", "--since", "1d"},
	} {
		s.expect(t, 1, want, args...)
	}
	// With a daemon that cannot be asked, nothing is done.
	s.expect(t, 1, "locked", "poll", "shop-a", "--server", "http://127.0.0.1:1")
	s.expect(t, 1, "nothing was tried", "check", "--online", "--server", "http://127.0.0.1:1")
	s.expect(t, 1, "locked", "once")
	stop()
	s.expect(t, 1, "no daemon answers", "status")
	s.noViolations(t)
}

// TestControlOfTheClosedFile: where no daemon runs the commands work on the state
// file, and the budget that they spend is the daemon's.
func TestControlOfTheClosedFile(t *testing.T) {
	t.Parallel()
	s := newShop(t, sandbox.WorldSpec{Questions: 40, Feedbacks: 30}, sandbox.TokenSpec{}, "")
	s.expect(t, 0, "works", "check", "--online")
	s.expect(t, 0, "shop-a/questions", "poll", "shop-a", "questions")
	if got := s.events(t); len(got) != 0 {
		t.Errorf("start: now, and %d events", len(got))
	}
	s.expect(t, 0, "", "backfill", "--account", "shop-a", "--stream", "questions", "--since", "2020-01-01T00:00:00Z")
	if got := s.events(t); len(got) != 40 {
		t.Errorf("%d of 40 questions", len(got))
	}
	s.expect(t, 0, "", "backfill", "--account", "shop-a", "--stream", "questions", "--since", "2020-01-01T00:00:00Z")
	if got := s.events(t); len(got) != 40 {
		t.Errorf("%d events after a second backfill of 40 questions", len(got))
	}
	s.expect(t, 0, "left out: one of the unanswered questions", "state", "skip", "--account", "shop-a", "--stream", "questions")
	s.expect(t, 2, "--account and --since", "backfill", "--account", "shop-a")
	s.expect(t, 2, "neither an RFC 3339 time nor a duration", "backfill", "--account", "shop-a", "--since", "yesterday")
	s.noViolations(t)
}

// TestBaseTokenOnline: a check spends the hour's request of a Base token once, and
// says so from then on; the daemon's own start does not spend another.
func TestBaseTokenOnline(t *testing.T) {
	t.Parallel()
	s := newShop(t, sandbox.WorldSpec{Events: 60, Questions: 5}, sandbox.TokenSpec{Acc: sandbox.AccBase}, "")
	s.expect(t, 0, "works", "check", "--online")
	out := s.expect(t, 1, "not tried, next at ", "check", "--online")
	if n := len(regexp.MustCompile(`not tried, next at \d\d:\d\d`).FindAllString(out, -1)); n != 3 || strings.Contains(out, "works") {
		t.Errorf("a spent budget was spent again:\n%s", out)
	}
	s.daemon(t)
	s.expect(t, 1, "not tried, next at", "check", "--online")
	s.expect(t, 0, "in 1h", "status")
	if n := s.sb.Stats().Requests["GET /api/v1/seller/events"]; n != 1 {
		t.Errorf("%d chat requests", n)
	}
	s.noViolations(t)
}

// TestAPITokenIsNeeded: where a token is set, the commands send it.
func TestAPITokenIsNeeded(t *testing.T) {
	t.Parallel()
	s := newShop(t, sandbox.WorldSpec{Questions: 3}, sandbox.TokenSpec{}, "")
	raw, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	without := filepath.Join(s.dir, "without.yaml")
	write(t, without, string(raw))
	write(t, filepath.Join(s.dir, "api.token"), "0123456789abcdef0123")
	write(t, s.config, strings.Replace(string(raw), "server: {", "server: {api_token_file: api.token, ", 1))
	s.daemon(t)
	s.expect(t, 0, "polling now", "poll", "shop-a", "questions")
	var out, errs bytes.Buffer
	if code := run(context.Background(), []string{"poll", "shop-a", "--config", without}, func(string) string { return "" }, &out, &errs); code != 1 || !strings.Contains(errs.String(), "server.api_token_file") {
		t.Errorf("without the token: exit code %d, %s", code, errs.String())
	}
}

// Contract §8: what changes something or shows what is kept is refused off loopback where no
// token is set, and nothing of it is done. With the token it works.
func TestOffLoopbackATokenIsNeeded(t *testing.T) {
	t.Parallel()
	s := newStocked(t, "")
	s.stockRemoved(t)
	logged := s.stock(t, "shop-a", 3)
	s.bury(t, logged...)
	s.in(t, func(db *state.DB) error {
		last := logged[len(logged)-1]
		return db.Settle("crm", time.Now(), state.Settlement{Position: last.Sequence, Gone: &state.Gone{At: time.Now(), Event: last.ID}})
	})
	commands := [][]string{
		{"deadletter", "list", "--sink", "crm"},
		{"deadletter", "retry", "--sink", "crm", "--id", logged[0].ID},
		{"deadletter", "drop", "--sink", "crm", "--all"},
		{"replay", "--sink", "crm", "--since", "1h", "--account", "shop-b"},
		{"export", "--events"},
		{"export", "--records"},
		{"sinks", "resume", "crm"},
		{"state", "forget", "--sink", "old"},
		{"state", "forget", "--account", "shop-b"},
		{"state", "backup", filepath.Join(s.dir, "copy.db")},
		{"poll", "shop-a", "questions"},
	}
	raw, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	open := strings.Replace(string(raw), "127.0.0.1:"+s.port(), "0.0.0.0:"+s.port(), 1)
	write(t, s.config, open)
	stop := s.daemon(t)
	for _, command := range commands {
		if out := s.expect(t, 1, "set server.api_token_file", command...); out != "" {
			t.Errorf("%v is refused and says %s", command, out)
		}
	}
	stop()
	s.in(t, func(db *state.DB) error {
		sinks, err := db.Sinks()
		if letters, _ := db.CountDeadLetters("crm"); letters != 3 || len(sinks) != 3 {
			t.Errorf("a command that is refused was done: %d dead letters, sinks %v", letters, sinks)
		}
		return err
	})

	write(t, filepath.Join(s.dir, "api.token"), "0123456789abcdef0123")
	write(t, s.config, strings.Replace(open, "server: {", "server: {api_token_file: api.token, ", 1))
	s.daemon(t)
	for _, command := range commands {
		s.expect(t, 0, "", command...)
	}
}

// TestCheckHandsOnA429: what the marketplace answers to a check beside the daemon
// holds for the daemon too, in each API group.
func TestCheckHandsOnA429(t *testing.T) {
	t.Parallel()
	s := newShop(t, sandbox.WorldSpec{Questions: 5}, sandbox.TokenSpec{}, `defaults: {wildberries: {streams: {chat_events: {schedule: "@every 1h"}, questions: {schedule: "@every 1h"}, feedbacks: {schedule: "@every 1h"}, claims: {schedule: "@every 1h"}}}}`)
	s.daemon(t)
	s.until(t, func() bool {
		_, out, _ := s.syncd("status")
		return !strings.Contains(out, "reading") && strings.Contains(out, "in 1h")
	})
	for _, path := range []string{"/api/v1/seller/events", "/api/v1/questions/count-unanswered", "/api/v1/claims"} {
		if err := s.sb.Inject(sandbox.Fault{Kind: sandbox.FaultRateLimited, Path: path, Count: 1, Delay: 10 * time.Minute}); err != nil {
			t.Fatal(err)
		}
	}
	s.expect(t, 1, "429", "check", "--online")
	_, out, _ := s.syncd("status")
	if n := strings.Count(out, "cooling down"); n != 3 {
		t.Errorf("%d of 3 budgets cool down:\n%s", n, out)
	}
	s.noViolations(t)
}

// TestCheckOfTwoSellers: tokens of two sellers stop their account before anything
// is spent.
func TestCheckOfTwoSellers(t *testing.T) {
	t.Parallel()
	s := newShop(t, sandbox.WorldSpec{Questions: 5}, sandbox.TokenSpec{Acc: sandbox.AccBase}, "")
	write(t, filepath.Join(s.dir, "other.token"), s.sb.MintToken(sandbox.TokenSpec{Seller: "2f0c0b6a-5a4f-4a1c-9f0e-0c6a1d2b3c4d"}))
	raw, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.config, strings.Replace(string(raw), "    token_file: wb.token\n", "    token_file: wb.token\n    tokens: {chat: {file: other.token}}\n", 1))
	s.expect(t, 1, "belong to different sellers", "check", "--online")
	write(t, s.config, string(raw))
	s.expect(t, 0, "works", "check", "--online")
	s.noViolations(t)
}

// What a marketplace says to a command beside the daemon holds for the daemon: nobody
// else may ever ask from that budget.
func TestLeaseTellsTheLimit(t *testing.T) {
	l := &leases{budgets: apiclient.NewBudgets(forgetful{}, discard), open: make(map[uint64]*apiclient.Grant), sellers: make(map[string]bool)}
	ask := func(in budgetArgs) (out budgetAnswer) {
		t.Helper()
		raw, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := l.act(t.Context(), raw)
		if err != nil {
			t.Fatal(err)
		}
		return answer.(budgetAnswer)
	}
	token := budgetArgs{Marketplace: "yandex_market", Seller: "7", Budget: "token", Share: 1}
	lease := ask(token).Lease
	if lease == 0 {
		t.Fatal("a fresh budget gives nothing")
	}
	none, now := 0, time.Now()
	ask(budgetArgs{Lease: lease, Answer: leaseAnswer{Limit: 10, Left: &none, Date: now, Until: now.Add(30 * time.Minute)}})
	if out := ask(token); out.Lease != 0 || out.Until.Before(now.Add(29*time.Minute)) {
		t.Errorf("after an answer that left nothing for half an hour: %+v", out)
	}
	if s := l.budgets.Snapshot(); len(s) != 0 {
		t.Errorf("a budget that no account has is shown: %+v", s)
	}
}
