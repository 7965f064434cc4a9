package config_test

import (
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
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

// fullExample writes the files of a configuration that has every key.
func fullExample(t *testing.T) (dir string) {
	t.Helper()
	archive, err := txtar.ParseFile("testdata/good/full.txtar")
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for _, f := range archive.Files {
		write(t, filepath.Join(dir, f.Name), string(f.Data))
	}
	return dir
}

func TestLoad(t *testing.T) {
	dir := fullExample(t)
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
	builtIn := config.Sweep{Every: 15 * time.Minute, Full: 24 * time.Hour, Window: 60 * 24 * time.Hour}
	inherited := config.Sweep{Every: 5 * time.Minute, Full: 24 * time.Hour, Window: 30 * 24 * time.Hour}
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
				{Name: "chats", Enabled: true, Schedule: "@every 10m", Sweep: builtIn},
				{
					Name: "questions", Enabled: true, Schedule: "*/5 * * * *", Overlap: 24 * time.Hour,
					Sweep: inherited, Ignore: []string{"productDetails", "wasViewed"},
				},
				{Name: "feedbacks", Enabled: true, Schedule: "@every 15s", Overlap: 3 * time.Hour, Sweep: builtIn},
				{Name: "claims", Enabled: false, Schedule: "@every 60s", Sweep: builtIn},
				{Name: "feedback_pins", Enabled: false, Schedule: "@every 10m", Sweep: builtIn},
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
				{Name: "chats", Enabled: true, Schedule: "@every 10m", Sweep: builtIn},
				{
					Name: "questions", Enabled: false, Schedule: "*/5 * * * *",
					Sweep:  config.Sweep{Every: 10 * time.Minute, Full: 12 * time.Hour, Window: 30 * 24 * time.Hour},
					Ignore: []string{"answer.text"},
				},
				{Name: "feedbacks", Enabled: true, Schedule: "@every 15s", Overlap: 3 * time.Hour, Sweep: builtIn},
				{
					Name: "claims", Enabled: true, Schedule: "@every 60s",
					Sweep: config.Sweep{Every: 15 * time.Minute, Full: 15 * time.Minute, Window: 60 * 24 * time.Hour},
				},
				{Name: "feedback_pins", Enabled: true, Schedule: "@every 10m", Sweep: builtIn},
			},
		},
		map[string]string{"feedbacks": "own", "chat": "chat", "returns": "shared"},
	}
	first, second := inherits, inherits
	first.Name, second.Name, second.Start = "first", "second", config.Start{Kind: config.StartNow}
	second.Streams = slices.Clone(second.Streams)
	second.Streams[2].Ignore = nil
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
	if got, want := names(c.Sinks), []string{"archive", "console", "unsafe", "open", "crm"}; !slices.Equal(got, want) {
		t.Fatalf("sinks %v, want %v", got, want)
	}
	archiveSink := config.Sink{
		Name: "archive", Type: config.TypeFile, From: config.FromBeginning, File: &config.FileSink{
			Path: filepath.Join(dir, "var/events.ndjson"), Sync: config.SyncInterval,
			Rotate: config.Rotate{Size: 100 << 20, Every: 12 * time.Hour, Keep: 14, Compress: true},
		},
	}
	unsafe := config.FileSink{
		Path: filepath.Join(dir, "var/unsafe.ndjson"), Sync: config.SyncNone, Rotate: config.Rotate{Every: 7 * 24 * time.Hour},
	}
	if !reflect.DeepEqual(*c.Sinks[2].File, unsafe) {
		t.Errorf("got %+v, want %+v", *c.Sinks[2].File, unsafe)
	}
	if !reflect.DeepEqual(c.Sinks[0], archiveSink) {
		t.Errorf("got %+v, want %+v", c.Sinks[0], archiveSink)
	}
	open := config.WebhookSink{
		URL: "http://localhost:9000/hook?key=1", Headers: map[string]string{}, Timeout: 15 * time.Second, Concurrency: 8,
		Batch: config.Batch{MaxEvents: 1},
		Retry: config.Retry{Initial: 5 * time.Second, Max: time.Hour, GiveUpAfter: 96 * time.Hour, MaxAttempts4xx: 5},
	}
	if !reflect.DeepEqual(*c.Sinks[3].Webhook, open) || c.Sinks[3].From != config.FromNow {
		t.Errorf("got %+v, want %+v", *c.Sinks[3].Webhook, open)
	}
	crm := *c.Sinks[4].Webhook
	var secrets []string
	for _, s := range crm.Secrets {
		secrets = append(secrets, s.Reveal())
	}
	if want := []string{signingSecret, "whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo="}; !slices.Equal(secrets, want) {
		t.Errorf("secrets %v, want %v", secrets, want)
	}
	if pool := x509.NewCertPool(); !pool.AppendCertsFromPEM(crm.CAs) {
		t.Errorf("CA certificates: %s", crm.CAs)
	}
	crm.Secrets, crm.CAs = nil, nil
	wantCRM := config.WebhookSink{
		URL: "https://crm.example.com/hooks", Headers: map[string]string{"X-Tenant": "shop-a", "Authorization": ""},
		Timeout: time.Minute, Concurrency: 256, Rate: 0.5, Batch: config.Batch{MaxEvents: 1000, MaxWait: 200 * time.Millisecond},
		Retry: config.Retry{Initial: time.Second, Max: time.Second, GiveUpAfter: time.Second, MaxAttempts4xx: 1},
	}
	if !reflect.DeepEqual(crm, wantCRM) {
		t.Errorf("got %+v, want %+v", crm, wantCRM)
	}

	if got := c.Server.APIToken.Reveal(); got != "0123456789abcdef" {
		t.Errorf("API token %q", got)
	}
	c.Accounts, c.Sinks, c.Server.APIToken = nil, nil, config.Secret{}
	want := &config.Config{
		Files: []string{
			filepath.Join(etc, "syncd.yaml"), filepath.Join(etc, "accounts.d/a.yaml"), filepath.Join(etc, "accounts.d/b.yaml"),
			filepath.Join(etc, "sinks.yaml"),
		},
		ShutdownTimeout: 30 * time.Second,
		State:           config.State{Path: filepath.Join(dir, "var/syncd.db"), KeepEvents: 36 * time.Hour, KeepDeadLetters: 30 * 24 * time.Hour},
		Server:          config.Server{Listen: ":0"},
		Log:             config.Log{Level: slog.LevelDebug, Format: config.LogJSON},
		Warnings:        []config.Problem{},
	}
	if c = config.Plain(c); !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v, want %+v", c, want)
	}
}

func TestDefaults(t *testing.T) {
	c, err := loadText(t, "accounts: [{name: a, marketplace: wildberries, token_env: WB_TOKEN}]\n")
	if err != nil {
		t.Fatal(err)
	}
	if c.ShutdownTimeout != 10*time.Second || c.State.Path != "/var/lib/syncd/syncd.db" || c.State.KeepEvents != 7*24*time.Hour ||
		c.State.KeepDeadLetters != 90*24*time.Hour ||
		c.Server.Listen != "127.0.0.1:9469" || c.Server.APIToken.Reveal() != "" || c.Log.Level != slog.LevelInfo || c.Log.Format != config.LogAuto {
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
    streams:
      chat_events: {enabled: false}
      chats: {enabled: false}
      questions: {enabled: FALSE}
      feedbacks: {enabled: False}
      claims: {enabled: false}
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
    streams:
      questions: {enabled: false}
      feedbacks: {sweep: {every: 1m}, ignore: [productDetails]}
accounts:
  - name: a
    marketplace: wildberries
    tokens:
    endpoints:
    streams:
      questions:
      feedbacks:
        sweep:
        ignore:
sinks:
`
	c, err := loadText(t, text)
	if err != nil {
		t.Fatal(err)
	}
	a := c.Accounts[0]
	if a.Streams[2].Enabled || a.Tokens["chat"].Reveal() != "wb-hunter2" {
		t.Errorf("got %+v", a)
	}
	// A mapping without a value is an empty one, and adds nothing to what is inherited; a list without a value replaces it.
	if f := a.Streams[3]; f.Sweep.Every != time.Minute || f.Ignore != nil {
		t.Errorf("got %+v", f)
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

// TestSinkBehindLink holds that two paths of one file are told apart from two files, through links to directories, to files, to what
// does not exist yet, and to links.
func TestSinkBehindLink(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "data/deep/there.ndjson"), "")
	for link, target := range map[string]string{
		"dir":                          filepath.Join(dir, "data"),
		"up":                           "data/deep",
		"there.ndjson":                 "data/deep/there.ndjson",
		"new.ndjson":                   "data/new.ndjson",
		"data/deep/second.ndjson":      "../../new.ndjson",
		"rotated.ndjson":               "data/new-00000000000000000007.ndjson.zst",
		"data/deep/circle.ndjson":      "circle.ndjson",
		"through-the-directory.ndjson": "up/../fresh.ndjson",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "syncd.yaml")
	for _, row := range []struct{ one, two, wrong string }{
		{"data/new/events.ndjson", "dir/new/events.ndjson", "is the file of sinks[0]"},
		{"data/deep/there.ndjson", "there.ndjson", "is the file of sinks[0]"},
		{"data/new.ndjson", "new.ndjson", "is the file of sinks[0]"},
		{"data/deep/second.ndjson", "dir/new.ndjson", "is the file of sinks[0]"},
		{"data/fresh.ndjson", "through-the-directory.ndjson", "is the file of sinks[0]"},
		{"new.ndjson", "rotated.ndjson", "is a name for files that sinks[0]"},
		{"rotated.ndjson", "up/second.ndjson", "would take the file of sinks[0]"},
		{"data/deep/circle.ndjson", "data/circle.ndjson", ""},
		{"data/there.ndjson", "there.ndjson", ""},
		{"fresh.ndjson", "through-the-directory.ndjson", ""},
	} {
		write(t, path, `accounts: [{name: a, marketplace: wildberries, token_env: WB_TOKEN}]
sinks:
  - {name: one, type: file, path: `+row.one+`}
  - {name: two, type: file, path: `+row.two+`}
`)
		_, err := config.Load(config.Source{Path: path, Getenv: getenv}, catalog())
		if (err == nil) != (row.wrong == "") || (err != nil && !strings.Contains(err.Error(), row.wrong)) {
			t.Errorf("%s and %s: got %v, want %q", row.one, row.two, err, row.wrong)
		}
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

// TestSelectOwnEvents holds that events that belong to no marketplace can be selected, and that a sink which selects by account
// alone gets those of its accounts.
func TestSelectOwnEvents(t *testing.T) {
	c, err := loadText(t, `accounts: [{name: shop-a, marketplace: wildberries, token_env: WB_TOKEN}]
sinks:
  - {name: account, type: stdout, select: {accounts: [shop-a]}}
  - {name: exact, type: stdout, select: {types: [syncd.schema_changed]}}
  - {name: pattern, type: stdout, select: {types: ["syncd.*"]}}
  - {name: others, type: stdout, select: {types: ["wildberries.*"]}}
`)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, true, true, false} {
		if s := c.Sinks[i]; s.Select.Match("shop-a", "syncd.schema_changed") != want {
			t.Errorf("sink %s: want %v", s.Name, want)
		}
	}
	if c.Sinks[0].Select.Match("shop-b", "syncd.schema_changed") {
		t.Error("the event of another account is selected")
	}
}

// TestMarketplaceKeys holds that the keys of one marketplace are demanded there and refused elsewhere, with the place.
func TestMarketplaceKeys(t *testing.T) {
	for _, tt := range []struct{ account, wrong string }{
		{`{name: a, marketplace: yandex_market, token_env: WB_TOKEN, business_id: 7, campaigns: [1, 2]}`, ""},
		{`{name: a, marketplace: yandex_market, token_env: WB_TOKEN, business_id: 7}`, ""},
		{`{name: a, marketplace: yandex_market, token_env: WB_TOKEN}`, "business_id: is missing, expected a whole number above 0"},
		{`{name: a, marketplace: yandex_market, token_env: WB_TOKEN, business_id: 0}`, "business_id: 0 is out of range"},
		{`{name: a, marketplace: yandex_market, token_env: WB_TOKEN, business_id: 99999999999999999999}`, "business_id: is a number, expected a whole number above 0"},
		{`{name: a, marketplace: yandex_market, token_env: WB_TOKEN, business_id: "7"}`, "business_id: is text, expected a whole number above 0"},
		{`{name: a, marketplace: yandex_market, token_env: WB_TOKEN, business_id: 7, campaigns: [1, 2, 1]}`, "campaigns[2]: \"1\" is listed already"},
		{`{name: a, marketplace: yandex_market, token_env: WB_TOKEN, business_id: 7, campaigns: 1}`, "campaigns: is a number, expected a list"},
		{`{name: a, marketplace: wildberries, token_env: WB_TOKEN, business_id: 7}`, "business_id: is no key of accounts of wildberries, expected it left out"},
		{`{name: a, marketplace: wildberries, token_env: WB_TOKEN, campaigns: [7]}`, "campaigns: is no key of accounts of wildberries, expected it left out"},
		{`{name: a, marketplace: ozon, token_env: WB_TOKEN, business_id: 7}`, `unknown marketplace "ozon"`},
	} {
		path := filepath.Join(t.TempDir(), "syncd.yaml")
		write(t, path, "accounts:\n  - "+tt.account+"\n")
		c, err := config.Load(config.Source{Path: path, Getenv: getenv}, catalog())
		switch {
		case tt.wrong == "" && (err != nil || c.Accounts[0].BusinessID != 7):
			t.Errorf("%s: %v", tt.account, err)
		case tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)):
			t.Errorf("%s: got %v, expected %s", tt.account, err, tt.wrong)
		}
	}
}

// TestOffLoopback holds that a server which other machines can reach is allowed without a token, since metrics are worth that,
// and that the operator is told what it will refuse.
func TestOffLoopback(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "syncd.yaml")
	write(t, filepath.Join(dir, "api-token"), "0123456789abcdef\n")
	for listen, loopback := range map[string]bool{
		"127.0.0.1:9469": true, "127.8.7.6:9469": true, "[::1]:9469": true, "[::ffff:127.0.0.1]:9469": true, "localhost:9469": true,
		"LocalHost:0": true, "": true,
		":9469": false, "0.0.0.0:9469": false, "[::]:9469": false, "192.168.0.2:9469": false, "128.0.0.1:9469": false,
		"localhost.example.com:9469": false, "syncd:9469": false,
	} {
		for token, file := range map[bool]string{false: `""`, true: "api-token"} {
			write(t, path, `server: {api_token_file: `+file+`, listen: "`+listen+`"}
accounts: [{name: a, marketplace: wildberries, token_env: WB_TOKEN}]
sinks: [{name: console, type: stdout}]
`)
			c := load(t, path, environment)
			if got := c.Server.Loopback(); got != loopback {
				t.Errorf("%s: loopback %v", listen, got)
			}
			if token || loopback {
				if len(c.Warnings) > 0 {
					t.Errorf("%s, token %v: warnings: %v", listen, token, c.Warnings)
				}
				continue
			}
			want := `other machines can reach "` + listen + `" and server.api_token_file is not set: requests that change something will be refused`
			if len(c.Warnings) != 1 || c.Warnings[0].Key != "server.listen" || c.Warnings[0].Message != want {
				t.Errorf("%s: warnings: %v", listen, c.Warnings)
			}
		}
	}
}
