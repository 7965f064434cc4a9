package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"syncd/internal/config"
	"syncd/internal/sources/apiclient"
	"syncd/internal/web"
)

// TestReload: accounts, streams and sinks come and go and come back, and each event is
// in each file once. What has not changed keeps its connection to the marketplace.
func TestReload(t *testing.T) {
	t.Parallel()
	r := newReloader(t)
	r.extra = "log: {level: warn}"
	r.run()
	r.has("archive.ndjson", "shop-a/questions", 20)
	if r.series("account", "shop-b") != 0 {
		t.Fatal("there is a shop-b already")
	}
	source := r.open("shop-a").source

	r.accounts["shop-b"] = "token_file: b.token, " + onlyQuestions
	r.accounts["shop-a"] = strings.Replace(r.accounts["shop-a"], "claims: {enabled: false}", `claims: {schedule: "@every 1s"}`, 1)
	r.sinks["late"] = "type: file, path: late.ndjson, from: beginning, select: {types: [wildberries.question.*]}"
	r.extra = "log: {level: info}"
	r.reload()
	r.has("archive.ndjson", "shop-b/questions", 20)
	r.has("archive.ndjson", "shop-a/claims", 6)
	r.has("late.ndjson", "shop-a/questions", 20)
	r.has("late.ndjson", "shop-b/questions", 20)
	if r.open("shop-a").source != source {
		t.Error("the source of shop-a was opened again, though only a stream was added")
	}
	if !strings.Contains(r.log.String(), "level=INFO") {
		t.Error("the level of the log was not changed")
	}

	delete(r.accounts, "shop-b")
	delete(r.sinks, "late")
	r.reload()
	for label, value := range map[string]string{"account": "shop-b", "sink": "late"} {
		if n := r.series(label, value); n != 0 {
			t.Errorf("%d series of %s", n, value)
		}
	}
	if removed, err := r.app.db.Removed(); err != nil || len(removed) != 1 || removed[0].Name != "late" || removed[0].Retired {
		t.Errorf("removed sinks: %+v, %v", removed, err)
	}
	r.ask(0)
	r.ask(1)
	r.has("archive.ndjson", "shop-a/questions", 21)

	r.accounts["shop-b"] = "token_file: b.token, " + strings.Replace(onlyQuestions, "start: beginning", "start: now", 1)
	r.sinks["late"] = "type: file, path: late.ndjson, from: now, select: {types: [wildberries.question.*]}"
	r.reload()
	r.has("archive.ndjson", "shop-b/questions", 21)
	r.has("late.ndjson", "shop-a/questions", 21)
	r.has("late.ndjson", "shop-b/questions", 21)
	if len(r.lines("late.ndjson")) != 42 {
		t.Errorf("late.ndjson has %d events", len(r.lines("late.ndjson")))
	}
	if s := r.sb.Stats(); s.Violations != 0 {
		t.Errorf("%d violations of the budget", s.Violations)
	}
}

// TestReloadInvalid: a file with errors changes nothing and is told in full; what
// cannot change while syncd runs is told, and the rest takes effect.
func TestReloadInvalid(t *testing.T) {
	t.Parallel()
	r := newReloader(t)
	r.run()
	r.has("archive.ndjson", "shop-a/questions", 20)
	cfg := r.app.config()
	write(t, r.path, "accounts:\n  - {name: shop-a, marketplace: amazon}\nsinks: [{name: x, type: pipe}]\n")
	err := r.app.reload(t.Context())
	problems, ok := errors.AsType[*config.Errors](err)
	if !ok || len(problems.Problems) < 2 {
		t.Fatalf("err %v", err)
	}
	for _, p := range problems.Problems {
		if !strings.Contains(r.log.String(), fmt.Sprintf("problem=%q", p.String())) {
			t.Errorf("%q is not in the log", p)
		}
	}
	if got := testutil.ToFloat64(r.app.reloaded); got != 0 || r.app.config() != cfg {
		t.Errorf("config_last_reload_successful is %v", got)
	}
	r.ask(0)
	r.has("archive.ndjson", "shop-a/questions", 21)

	r.extra = "shutdown_timeout: 7s\nlog: {format: json}"
	r.write()
	raw, err := os.ReadFile(r.path)
	if err != nil {
		t.Fatal(err)
	}
	moved := strings.NewReplacer("syncd.db", "other.db", `listen: ""`, `listen: "127.0.0.1:1"`).Replace(string(raw))
	write(t, r.path, strings.Replace(moved, `"@every 1s"`, `"@every 2s"`, 1))
	if err := r.app.reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, setting := range []string{"state.path", "server.listen", "shutdown_timeout", "log.format"} {
		if !strings.Contains(r.log.String(), "setting="+setting) {
			t.Errorf("it is not told that %s takes a restart", setting)
		}
	}
	if got := testutil.ToFloat64(r.app.reloaded); got != 1 {
		t.Errorf("config_last_reload_successful is %v", got)
	}
	now := r.app.config()
	if now.State.Path != cfg.State.Path || now.Server.Listen != "" || r.app.poller.Status()[0].Schedule != "@every 2s" {
		t.Errorf("in force: %+v", now)
	}
	r.end()
	if e, ok := errors.AsType[*web.Error](r.app.reload(t.Context())); !ok || e.Status != http.StatusServiceUnavailable {
		t.Errorf("a reload after the end: %v", e)
	}
}

// TestReloadOneAccountFails: an account that cannot be opened stops itself alone, and
// goes on when it can.
func TestReloadOneAccountFails(t *testing.T) {
	t.Parallel()
	r := newReloader(t)
	r.accounts["shop-b"] = "token_file: b.token, " + onlyQuestions
	r.run()
	r.has("archive.ndjson", "shop-b/questions", 20)
	r.accounts["shop-b"] = "token_file: b.token, tokens: {chat: {file: a.token}}, " + onlyQuestions // of two sellers
	r.reload()
	if notes, err := r.app.ready(); err != nil || len(notes) != 1 || !strings.Contains(notes[0], "shop-b") {
		t.Errorf("notes %q, %v", notes, err)
	}
	if slices.ContainsFunc(r.app.budgets.Snapshot(), func(b apiclient.BudgetStatus) bool { return b.Account == "shop-b" }) {
		t.Error("the account still has budgets")
	}
	r.ask(0)
	r.ask(1)
	r.has("archive.ndjson", "shop-a/questions", 21)
	r.has("archive.ndjson", "shop-b/questions", 20)
	r.accounts["shop-b"] = "token_file: b.token, " + onlyQuestions
	r.reload()
	r.has("archive.ndjson", "shop-b/questions", 21)
	if notes, err := r.app.ready(); err != nil || len(notes) != 0 {
		t.Errorf("notes %q, %v", notes, err)
	}
}

// TestReloadOtherType: a sink of another type than before refuses the whole
// configuration, before any of it takes effect.
func TestReloadOtherType(t *testing.T) {
	t.Parallel()
	r := newReloader(t)
	r.run()
	r.has("archive.ndjson", "shop-a/questions", 20)
	before := r.app.config()
	r.sinks["archive"] = "type: stdout"
	r.accounts["shop-a"] = strings.Replace(r.accounts["shop-a"], "@every 1s", "@every 2s", 1)
	r.accounts["shop-b"] = "token_file: b.token, " + onlyQuestions
	r.extra = "log: {level: error}"
	r.write()
	if err := r.app.reload(t.Context()); err == nil || !strings.Contains(err.Error(), "it was of type file") {
		t.Fatalf("err %v", err)
	}
	if r.app.config() != before || r.open("shop-b").source != nil || r.app.given.level.Level() != before.Log.Level {
		t.Error("a part of the configuration is in force")
	}
	if s := r.app.poller.Status(); len(s) != 1 || s[0].Schedule != "@every 1s" {
		t.Errorf("polled: %+v", s)
	}
	r.ask(0)
	r.has("archive.ndjson", "shop-a/questions", 21)
}

// TestReloadMarksFail: once a configuration is in force it is the present one, also where
// the state cannot be told what it selects.
func TestReloadMarksFail(t *testing.T) {
	t.Parallel()
	r := newReloader(t)
	var full atomic.Bool
	r.given.commit = func(commit func() error) error {
		if full.Load() {
			return syscall.ENOSPC
		}
		return commit()
	}
	r.run()
	r.has("archive.ndjson", "shop-a/questions", 20)
	before := r.app.config()
	r.sinks["archive"] += ", select: {types: [wildberries.question.*]}"
	r.write()
	full.Store(true)
	err := r.app.reload(t.Context())
	full.Store(false)
	if err != nil || r.app.config() == before {
		t.Errorf("err %v, still the old configuration: %v", err, r.app.config() == before)
	}
	r.reload()
	r.ask(0)
	r.has("archive.ndjson", "shop-a/questions", 21)
}

// torn is a stream that breaks in the middle of its first line, once.
type torn struct {
	sharedBuffer
	once sync.Once
}

func (s *torn) Write(p []byte) (n int, err error) {
	most := len(p)
	s.once.Do(func() { most = 20 })
	n, _ = s.sharedBuffer.Write(p[:most])
	if n < len(p) {
		time.Sleep(50 * time.Millisecond)
		return n, syscall.EPIPE
	}
	return n, nil
}

// TestReloadTornLine: a line on standard output that a sink has torn is finished by the
// sink that a reload puts in its place.
func TestReloadTornLine(t *testing.T) {
	t.Parallel()
	r := newReloader(t)
	out := &torn{}
	r.given.stdout = out
	r.sinks["console"] = "type: stdout, from: beginning, select: {types: [wildberries.question.created]}"
	r.run()
	r.await("the line is torn", func() bool { return out.String() != "" })
	r.sinks["console"] = "type: stdout, from: beginning, select: {types: [wildberries.question.*]}"
	r.reload()
	r.await("all events", func() bool { return strings.Count(out.String(), "\n") >= 20 })
	for line := range strings.Lines(out.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("a line is %s", line)
		}
	}
}

// TestSourceKey: what makes an account open its source again, and with it begin all its
// streams anew, and what does not.
func TestSourceKey(t *testing.T) {
	dir := t.TempDir()
	getenv := func(name string) string {
		if name == "OTHER" {
			return "ACMA:another-key-of-yandex-market"
		}
		return "ACMA:a-key-of-yandex-market-00000"
	}
	const plain = "marketplace: yandex_market, business_id: 1, token_env: KEY"
	key := func(rest string) string {
		t.Helper()
		path := filepath.Join(dir, "syncd.yaml")
		write(t, path, "state: {path: syncd.db}\naccounts:\n  - {name: m, "+rest+"}\n")
		cfg, err := config.Load(config.Source{Path: path, Getenv: getenv}, catalog())
		if err != nil {
			t.Fatal(err)
		}
		return sourceKey(cfg.Accounts[0])
	}
	for rest, same := range map[string]bool{
		plain:                        true,
		plain + ", start: beginning": true,
		plain + ", streams: {chats: {schedule: \"@every 2m\", sweep: {every: 1h}}, returns: {overlap: 48h}}": true,
		plain + ", streams: {chats: {enabled: false}}":                                                       false, // chat_messages reads their list then
		plain + ", budget_share: 0.5":                                                                        false,
		plain + ", campaigns: [7]":                                                                           false,
		plain + ", endpoints: {api: \"https://proxy.example\"}":                                              false,
		strings.Replace(plain, "KEY", "OTHER", 1):                                                            false,
		strings.Replace(plain, "business_id: 1", "business_id: 2", 1):                                        false,
	} {
		if got := key(rest) == key(plain); got != same {
			t.Errorf("%s: the source stays: %v, want %v", rest, got, same)
		}
	}
}

// TestReloadsUnderLoad: while both sellers are written to, the configuration changes 50
// times at random. Nothing is lost, and nothing comes twice.
func TestReloadsUnderLoad(t *testing.T) {
	t.Parallel()
	r := newReloader(t)
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	hook := newRotated(t, e2eSecret)
	write(t, filepath.Join(r.dir, "crm.secret"), e2eSecret)
	accounts := map[string]string{"shop-a": r.accounts["shop-a"], "shop-b": "token_file: b.token, " + onlyQuestions}
	sinks := map[string]string{"archive": r.sinks["archive"], "second": "type: file, path: second.ndjson, from: beginning",
		"crm": fmt.Sprintf("type: webhook, url: %q, secret_file: crm.secret, from: beginning", hook.url)}
	r.accounts, r.sinks = map[string]string{}, map[string]string{}
	for name, rest := range accounts {
		r.accounts[name] = rest
	}
	for name, rest := range sinks {
		r.sinks[name] = rest
	}
	r.run()
	asked := [2]int{20, 20}
	for range 50 {
		for seller := range asked {
			if rnd.IntN(2) == 0 {
				r.ask(seller)
				asked[seller]++
			}
		}
		for name, rest := range accounts {
			if delete(r.accounts, name); rnd.IntN(4) > 0 || len(r.accounts) == 0 && name == "shop-b" {
				r.accounts[name] = rest + fmt.Sprintf(", budget_share: 0.%d", 5+rnd.IntN(5))
			}
		}
		if len(r.accounts) == 0 {
			r.accounts["shop-a"] = accounts["shop-a"]
		}
		for name, rest := range sinks {
			if delete(r.sinks, name); rnd.IntN(4) > 0 {
				r.sinks[name] = rest
				if name == "crm" {
					r.sinks[name] += fmt.Sprintf(", concurrency: %d", 1+rnd.IntN(4))
				}
			}
		}
		time.Sleep(time.Duration(rnd.Int64N(int64(60 * time.Millisecond))))
		r.reload()
	}
	r.accounts, r.sinks = accounts, sinks
	r.reload()
	for _, file := range []string{"archive.ndjson", "second.ndjson"} {
		r.has(file, "shop-a/questions", asked[0])
		r.has(file, "shop-b/questions", asked[1])
	}
	r.await("the webhook has all", func() bool { return hook.taken() >= asked[0]+asked[1] })
	r.end()
	for id, n := range hook.times {
		if n != 1 {
			t.Errorf("%s was delivered %d times", id, n)
		}
	}
	if len(hook.times) != asked[0]+asked[1] {
		t.Errorf("the webhook got %d events of %d", len(hook.times), asked[0]+asked[1])
	}
	if s := r.sb.Stats(); s.Violations != 0 {
		t.Errorf("%d violations of the budget: %+v", s.Violations, s.Recent)
	}
}

// TestReloadOfAProcess: SIGHUP and POST /-/reload of the real daemon.
func TestReloadOfAProcess(t *testing.T) {
	t.Parallel()
	r := newReloader(t)
	address := freeAddress(t)
	rewrite := func() {
		r.write()
		raw, err := os.ReadFile(r.path)
		if err != nil {
			t.Fatal(err)
		}
		write(t, r.path, strings.Replace(string(raw), `listen: ""`, "listen: "+address, 1))
	}
	rewrite()
	p := start(t, r.path, "run")
	r.has("archive.ndjson", "shop-a/questions", 20)
	if err := os.Rename(filepath.Join(r.dir, "archive.ndjson"), filepath.Join(r.dir, "archive.old")); err != nil {
		t.Fatal(err)
	}
	r.accounts["shop-b"] = "token_file: b.token, " + onlyQuestions
	rewrite()
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	r.has("archive.ndjson", "shop-b/questions", 20) // in a new file: the old one was renamed
	post := func() (int, string) {
		resp, err := http.Post("http://"+address+"/-/reload", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	r.accounts["shop-b"] += ", budget_share: 7, nonsense: 1"
	rewrite()
	if status, body := post(); status != http.StatusBadRequest || !strings.Contains(body, "budget_share") || !strings.Contains(body, "nonsense") {
		t.Errorf("an invalid configuration is answered %d: %s", status, body)
	}
	delete(r.accounts, "shop-b")
	rewrite()
	if status, body := post(); status != http.StatusOK {
		t.Errorf("reload is answered %d: %s", status, body)
	}
	p.stop()
	if !strings.Contains(p.logged(), "budget_share") {
		t.Error("the log does not say what was wrong")
	}
}
