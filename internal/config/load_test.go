package config_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"syncd/internal/config"
)

func load(t *testing.T, path string, env map[string]string) *config.Config {
	t.Helper()
	c, err := config.Load(config.Source{Path: path, Getenv: func(k string) string { return env[k] }}, catalog())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// loadText loads a main file alone.
func loadText(t *testing.T, text string) (*config.Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "syncd.yaml")
	write(t, path, text)
	return config.Load(config.Source{Path: path, Getenv: getenv}, catalog())
}

func TestLoad(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/good/full.txtar")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range archive.Files {
		write(t, filepath.Join(dir, f.Name), string(f.Data))
	}
	etc := filepath.Join(dir, "etc")
	c := load(t, filepath.Join(etc, "syncd.yaml"), map[string]string{"WB_TOKEN": "own", "CHAT_TOKEN": "chat\n"})

	// Secrets do not show, so they are compared by what they reveal.
	type account struct {
		config.Account
		tokens map[string]string
	}
	var accounts []account
	for _, a := range c.Accounts {
		tokens := map[string]string{}
		for group, s := range a.Tokens {
			tokens[group] = s.Reveal()
		}
		a.Tokens = nil
		accounts = append(accounts, account{a, tokens})
	}
	start := config.Start{Kind: config.StartAt, Time: time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC)}
	inherits := account{
		config.Account{
			Name: "inherits", Marketplace: "wildberries", Start: start, BudgetShare: 0.5,
			Endpoints: map[string]string{
				"feedbacks": "https://feedbacks-api.wildberries.ru",
				"chat":      "http://127.0.0.1:8080/chat",
				"returns":   "https://returns-api.wildberries.ru",
			},
			Streams: []config.StreamSettings{
				{Name: "chat_events", Enabled: true, Schedule: "@every 5s", Overlap: time.Minute},
				{Name: "questions", Enabled: true, Schedule: "*/5 * * * *", Overlap: 24 * time.Hour},
			},
		},
		map[string]string{"feedbacks": "shared", "chat": "shared", "returns": "shared"},
	}
	overrides := account{
		config.Account{
			Name: "overrides", Marketplace: "wildberries", Start: config.Start{Kind: config.StartBeginning}, BudgetShare: 1,
			Endpoints: map[string]string{
				"feedbacks": "https://proxy.example.com",
				"chat":      "http://127.0.0.1:8080/chat",
				"returns":   "https://returns-api.wildberries.ru",
			},
			Streams: []config.StreamSettings{
				{Name: "chat_events", Enabled: true, Schedule: "@every 1m", Overlap: time.Minute},
				{Name: "questions", Enabled: false, Schedule: "*/5 * * * *"},
			},
		},
		map[string]string{"feedbacks": "own", "chat": "chat", "returns": "shared"},
	}
	first, second := inherits, inherits
	first.Name, second.Name, second.Start = "first", "second", config.Start{Kind: config.StartNow}
	for i := range accounts {
		accounts[i].Start.Time = accounts[i].Start.Time.UTC()
	}
	if want := []account{inherits, overrides, first, second}; !reflect.DeepEqual(accounts, want) {
		t.Errorf("accounts:\n%+v\nwant:\n%+v", accounts, want)
	}

	names := func(sinks []config.Sink) (names []string) {
		for _, s := range sinks {
			names = append(names, s.Name)
		}
		return names
	}
	if got, want := names(c.Sinks), []string{"archive", "console", "open", "crm"}; !slices.Equal(got, want) {
		t.Fatalf("sinks %v, want %v", got, want)
	}
	archiveSink := config.Sink{
		Name: "archive", Type: config.TypeFile, From: config.FromBeginning, File: &config.FileSink{Path: filepath.Join(dir, "var/events.ndjson")},
	}
	if !reflect.DeepEqual(c.Sinks[0], archiveSink) {
		t.Errorf("got %+v, want %+v", c.Sinks[0], archiveSink)
	}
	open := config.WebhookSink{
		URL: "http://localhost:9000/hook?key=1", Headers: map[string]string{}, Timeout: 15 * time.Second, Concurrency: 8,
		Retry: config.Retry{Initial: 5 * time.Second, Max: time.Hour},
	}
	if !reflect.DeepEqual(*c.Sinks[2].Webhook, open) || c.Sinks[2].From != config.FromNow {
		t.Errorf("got %+v, want %+v", *c.Sinks[2].Webhook, open)
	}
	crm := *c.Sinks[3].Webhook
	var secrets []string
	for _, s := range crm.Secrets {
		secrets = append(secrets, s.Reveal())
	}
	if want := []string{signingSecret, "whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo="}; !slices.Equal(secrets, want) {
		t.Errorf("secrets %v, want %v", secrets, want)
	}
	crm.Secrets = nil
	wantCRM := config.WebhookSink{
		URL: "https://crm.example.com/hooks", Headers: map[string]string{"X-Tenant": "shop-a", "Authorization": ""},
		Timeout: time.Minute, Concurrency: 256, Retry: config.Retry{Initial: time.Second, Max: time.Second},
	}
	if !reflect.DeepEqual(crm, wantCRM) {
		t.Errorf("got %+v, want %+v", crm, wantCRM)
	}

	c.Accounts, c.Sinks = nil, nil
	want := &config.Config{
		Files: []string{
			filepath.Join(etc, "syncd.yaml"), filepath.Join(etc, "accounts.d/a.yaml"), filepath.Join(etc, "accounts.d/b.yaml"),
			filepath.Join(etc, "sinks.yaml"),
		},
		ShutdownTimeout: 30 * time.Second,
		State:           config.State{Path: filepath.Join(dir, "var/syncd.db"), KeepEvents: 36 * time.Hour},
		Server:          config.Server{Listen: ":0"},
		Log:             config.Log{Level: slog.LevelDebug, Format: config.LogJSON},
		Warnings:        []config.Problem{},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v, want %+v", c, want)
	}
}

func TestDefaults(t *testing.T) {
	c, err := loadText(t, "accounts: [{name: a, marketplace: wildberries, token_env: WB_TOKEN}]\n")
	if err != nil {
		t.Fatal(err)
	}
	if c.ShutdownTimeout != 10*time.Second || c.State.Path != "/var/lib/syncd/syncd.db" || c.State.KeepEvents != 7*24*time.Hour ||
		c.Server.Listen != "127.0.0.1:9469" || c.Log.Level != slog.LevelInfo || c.Log.Format != config.LogAuto {
		t.Errorf("got %+v", c)
	}
	if a := c.Accounts[0]; a.Start.Kind != config.StartNow || a.BudgetShare != 1 {
		t.Errorf("got %+v", a)
	}
	if len(c.Warnings) != 1 || !strings.HasSuffix(c.Warnings[0].String(),
		"syncd.yaml:1:1: sinks: no sink is configured: events are kept for 7d and go nowhere") {
		t.Errorf("warnings: %v", c.Warnings)
	}
	if bad, total := config.BadDefaults(); len(bad) > 0 || total < 15 {
		t.Errorf("of %d defaults these are bad: %v", total, bad)
	}
}

// TestNothingEnabled holds that an account without a stream to poll is allowed, since it may be on purpose, and told.
func TestNothingEnabled(t *testing.T) {
	c, err := loadText(t, `accounts:
  - name: a
    marketplace: wildberries
    token_env: WB_TOKEN
    streams: {chat_events: {enabled: false}, questions: {enabled: FALSE}}
sinks: [{name: console, type: stdout}]
`)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Warnings) != 1 || c.Warnings[0].Key != "accounts[0]" {
		t.Errorf("warnings: %v", c.Warnings)
	}
}

// TestEmptySections holds that a section whose lines are all commented out is as good as none, also over inherited ones.
func TestEmptySections(t *testing.T) {
	text := `state:
include:
defaults:
  wildberries:
    token_env: WB_TOKEN
    tokens: {chat: {env: WB_TOKEN}}
    streams: {questions: {enabled: false}}
accounts:
  - name: a
    marketplace: wildberries
    tokens:
    endpoints:
    streams:
      questions:
sinks:
`
	c, err := loadText(t, text)
	if err != nil {
		t.Fatal(err)
	}
	if a := c.Accounts[0]; a.Streams[1].Enabled || a.Tokens["chat"].Reveal() != "wb-hunter2" {
		t.Errorf("got %+v", a)
	}
	if err := validate(t, editorSchema(t), []byte(text)); err != nil {
		t.Error(err)
	}
}

func TestMissingFile(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		filepath.Join(dir, "syncd.yaml"): "syncd.yaml: no such file or directory, expected a configuration file",
		dir:                              ": is a directory, expected a configuration file",
	} {
		_, err := config.Load(config.Source{Path: path}, catalog())
		if e, ok := errors.AsType[*config.Errors](err); !ok || len(e.Problems) != 1 || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestFileTooLarge(t *testing.T) {
	_, err := loadText(t, strings.Repeat("# a comment\n", 100_000))
	if err == nil || !strings.HasSuffix(err.Error(), "is larger than 1 MiB, expected a configuration file") {
		t.Errorf("got %v", err)
	}
}

func TestNotUTF8(t *testing.T) {
	_, err := loadText(t, "log:\n  format: é\xff\n")
	if err == nil || !strings.HasSuffix(err.Error(), "syncd.yaml:2:12: is not UTF-8 here, expected YAML text in UTF-8") {
		t.Errorf("got %v", err)
	}
}

// TestSinkBehindLink holds that two paths of one file are told apart from two files.
func TestSinkBehindLink(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "data/keep"), "")
	if err := os.Symlink(filepath.Join(dir, "data"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "syncd.yaml")
	write(t, path, `accounts: [{name: a, marketplace: wildberries, token_env: WB_TOKEN}]
sinks:
  - {name: one, type: file, path: data/new/events.ndjson}
  - {name: two, type: file, path: link/new/events.ndjson}
`)
	_, err := config.Load(config.Source{Path: path, Getenv: getenv}, catalog())
	if err == nil || !strings.Contains(err.Error(), "is the file of sinks[0]") {
		t.Errorf("got %v", err)
	}
}

func TestTooManyIncludes(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "syncd.yaml"), "include: more/*\n")
	for i := range 1001 {
		write(t, filepath.Join(dir, "more", strconv.Itoa(i)), "sinks:\n")
	}
	_, err := config.Load(config.Source{Path: filepath.Join(dir, "syncd.yaml")}, catalog())
	if err == nil || !strings.HasSuffix(err.Error(), "syncd.yaml:1:1: include: includes 1001 files, expected at most 1000") {
		t.Errorf("got %v", err)
	}
}

// TestIncludeFromOddDirectory holds that only the pattern is a pattern, not the directory it starts at, that the main file
// does not include itself, and that a pattern may match nothing.
func TestIncludeFromOddDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a[b]*")
	write(t, filepath.Join(dir, "syncd.yaml"), "include: [\"*.yaml\", nothing/*.yaml]\n")
	write(t, filepath.Join(dir, "more.yaml"), "accounts: [{name: a, marketplace: wildberries, token_env: WB_TOKEN}]\n")
	c := load(t, filepath.Join(dir, "syncd.yaml"), environment)
	if len(c.Accounts) != 1 || len(c.Files) != 2 {
		t.Errorf("got %+v", c)
	}
}

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

func TestParseSize(t *testing.T) {
	for s, want := range map[string]int64{"512B": 512, "64KiB": 64 << 10, "100MiB": 100 << 20, "10GiB": 10 << 30, "1TiB": 1 << 40} {
		if got, wrong := config.ParseSize(s); wrong != "" || got != want {
			t.Errorf("%s: got %d, %s", s, got, wrong)
		}
	}
	for s, want := range map[string]string{
		"512": `"512" has no unit`, "64KB": `"64KB" is not a size`, "": `"" is not a size`, "0B": `"0B" is out of range`,
		"9999999999TiB": `"9999999999TiB" is out of range`, "1.5GiB": `"1.5GiB" is not a size`,
	} {
		if _, wrong := config.ParseSize(s); wrong != want {
			t.Errorf("%s: got %s, want %s", s, wrong, want)
		}
	}
}

func TestSelect(t *testing.T) {
	c, err := loadText(t, `accounts: [{name: shop-a, marketplace: wildberries, token_env: WB_TOKEN}]
sinks:
  - {name: all, type: stdout}
  - {name: some, type: stdout, select: {accounts: ["shop-[ab]"], types: ["wildberries.*.created", "*.question.update?"]}}
`)
	if err != nil {
		t.Fatal(err)
	}
	all, some := c.Sinks[0].Select, c.Sinks[1].Select
	for _, row := range []struct {
		account, eventType string
		want               bool
	}{
		{"shop-a", "wildberries.chat_event.created", true},
		{"shop-b", "wildberries.question.updated", true},
		{"shop-c", "wildberries.question.updated", false},
		{"shop-a", "wildberries.feedback.updated", false},
	} {
		if !all.Match(row.account, row.eventType) || some.Match(row.account, row.eventType) != row.want {
			t.Errorf("%v", row)
		}
	}
}

// example prepares the secrets that the example configuration names, and a copy of it with the given text.
func example(t *testing.T, text string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"shop-a-token", "shop-a-chat-token"} {
		write(t, filepath.Join(dir, name), "token\n")
	}
	write(t, filepath.Join(dir, "crm-secret"), signingSecret+"\n")
	path := filepath.Join(dir, "syncd.yaml")
	write(t, path, text)
	return load(t, path, map[string]string{"CREDENTIALS_DIRECTORY": dir})
}

// TestExample holds that the example loads, that the settings it shows as off are valid and, but for those called examples, are
// the defaults, and that it mentions every key.
func TestExample(t *testing.T) {
	raw, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	if !strings.HasPrefix(text, "# yaml-language-server: $schema=syncd.schema.json\n") {
		t.Error("the first line does not name the schema")
	}
	asIs := example(t, text)
	off := regexp.MustCompile(`(?m)^( *)#([^ ]|  )`)
	all := off.ReplaceAllString(text, "$1$2")
	for _, text := range []string{text, all} {
		if err := validate(t, editorSchema(t), []byte(text)); err != nil {
			t.Error(err)
		}
	}
	example(t, all)
	lines := slices.DeleteFunc(strings.Split(text, "\n"), func(s string) bool {
		return strings.Contains(s, "# example") || strings.HasPrefix(s, "#  wildberries:") || strings.HasPrefix(s, "#    ")
	})
	on := example(t, off.ReplaceAllString(strings.Join(lines, "\n"), "$1$2"))
	for _, c := range []*config.Config{asIs, on} {
		if len(c.Warnings) > 0 {
			t.Errorf("warnings: %v", c.Warnings)
		}
		c.Files = nil
		for i := range c.Accounts {
			c.Accounts[i].Tokens = nil
		}
		c.Sinks[1].Webhook.Secrets = nil
	}
	if !reflect.DeepEqual(asIs, on) {
		t.Errorf("what the example shows as defaults are not the defaults:\n%+v\n%+v", asIs, on)
	}

	schema, err := config.Schema(catalog())
	if err != nil {
		t.Fatal(err)
	}
	var root any
	if err := json.Unmarshal(schema, &root); err != nil {
		t.Fatal(err)
	}
	keys := supportedKeys(root)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		later := strings.HasPrefix(keys[key][0], "Not supported yet")
		if !later && !regexp.MustCompile(`\b`+key+"(:|`|  )").MatchString(text) {
			t.Errorf("the example does not mention %s", key)
		}
	}
	for _, key := range []string{"max_size", "sweep", "rotate", "batch", "business_id", "yandex"} {
		if strings.Contains(text, key) {
			t.Errorf("the example advertises %s, which is not supported yet", key)
		}
	}
}
