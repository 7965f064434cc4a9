package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"syncd/internal/config"
)

// TestSecretsDoNotPrint formats a whole configuration in every way that a careless line of code could.
func TestSecretsDoNotPrint(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "api-token"), "0123456789-hunter2\n")
	write(t, filepath.Join(dir, "syncd.yaml"), `server: {api_token_file: api-token}
accounts: [{name: a, marketplace: wildberries, token_env: WB_TOKEN, tokens: {chat: {env: WB_TOKEN}}}]
sinks: [{name: crm, type: webhook, url: "https://crm.example.com", secret_env: HOOK_SECRET}]
`)
	c := load(t, filepath.Join(dir, "syncd.yaml"), environment)
	if got := c.Server.APIToken; got.Reveal() != "0123456789-hunter2" || got.Source() != "file "+filepath.Join(dir, "api-token") {
		t.Errorf("got %q from %s", got.Reveal(), got.Source())
	}
	token, signing := c.Accounts[0].Tokens["chat"], c.Sinks[0].Webhook.Secrets[0]
	if token.Reveal() != "wb-hunter2" || token.Source() != "env WB_TOKEN" || signing.Reveal() != signingSecret {
		t.Errorf("got %q from %s, %q", token.Reveal(), token.Source(), signing.Reveal())
	}
	// fmt calls no methods on what it finds in unexported fields.
	hidden := struct {
		one  config.Secret
		ptr  *config.Secret
		list []config.Secret
	}{token, &signing, []config.Secret{token, signing}}

	var out bytes.Buffer
	for _, v := range []any{c, *c, c.Server, c.Accounts, c.Accounts[0], *c.Sinks[0].Webhook, token, &signing, hidden, &hidden} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(text)
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).Info("loaded", "v", v, slog.Any("secret", token))
		}
	}
	for _, secret := range []string{"hunter2", signingSecret, fmt.Sprintf("%x", "hunter2"), strings.TrimPrefix(signingSecret, "whsec_")} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%q is printed", secret)
		}
	}
	for _, got := range []string{token.String(), fmt.Sprintf("%#v", token), fmt.Sprint(&token), config.Secret{}.String()} {
		if got != "[secret]" {
			t.Errorf("got %s", got)
		}
	}
	if (config.Secret{}).Reveal() != "" {
		t.Error("an empty secret reveals something")
	}
}

// TestSecretFiles holds where secret files are looked for, and which modes are worth a warning.
func TestSecretFiles(t *testing.T) {
	dir, credentials, elsewhere := t.TempDir(), t.TempDir(), t.TempDir()
	write(t, filepath.Join(dir, "syncd.yaml"), fmt.Sprintf(`accounts:
  - {name: a, marketplace: wildberries, token_file: both}
  - {name: b, marketplace: wildberries, token_file: beside}
  - {name: c, marketplace: wildberries, token_file: %s/absolute}
sinks: [{name: console, type: stdout}]
`, elsewhere))
	for path, mode := range map[string]os.FileMode{
		filepath.Join(credentials, "both"):   0o644,
		filepath.Join(dir, "both"):           0o644,
		filepath.Join(dir, "beside"):         0o640,
		filepath.Join(elsewhere, "absolute"): 0o600,
	} {
		write(t, path, "  from-"+filepath.Base(filepath.Dir(path))+"\n")
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	c := load(t, filepath.Join(dir, "syncd.yaml"), map[string]string{"CREDENTIALS_DIRECTORY": credentials})
	for i, want := range []string{
		filepath.Join(credentials, "both"), filepath.Join(dir, "beside"), filepath.Join(elsewhere, "absolute"),
	} {
		s := c.Accounts[i].Tokens["chat"]
		if s.Source() != "file "+want || s.Reveal() != "from-"+filepath.Base(filepath.Dir(want)) {
			t.Errorf("got %s from %s, want it from %s", s.Reveal(), s.Source(), want)
		}
	}
	want := fmt.Sprintf("%s/syncd.yaml:3:41: accounts[1].token_file: others can read %s/beside (mode 0640): chmod 600", dir, dir)
	if len(c.Warnings) != 1 || c.Warnings[0].String() != want {
		t.Errorf("got %v, want %s", c.Warnings, want)
	}
}

func TestSecretFileTooLarge(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "large"), strings.Repeat("a", 64<<10+1))
	write(t, filepath.Join(dir, "syncd.yaml"), "accounts: [{name: a, marketplace: wildberries, token_file: large}]\n")
	_, err := config.Load(config.Source{Path: filepath.Join(dir, "syncd.yaml"), Getenv: getenv}, catalog())
	if err == nil || !strings.Contains(err.Error(), "is larger than 64 KiB") {
		t.Errorf("got %v", err)
	}
}
