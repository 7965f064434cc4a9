package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"syncd/internal/config"
)

const otherSecret = "whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo="

// secretDir is a configuration with every kind of secret file.
type secretDir struct {
	t   *testing.T
	dir string
	env map[string]string
}

func newSecretDir(t *testing.T) *secretDir {
	d := &secretDir{t: t, dir: t.TempDir(), env: map[string]string{"WB_TOKEN": "from-env", "CREDENTIALS_DIRECTORY": t.TempDir()}}
	for name, text := range map[string]string{
		"shared": "shared-1\n", "chat": "chat-1\n", "api": "0123456789abcdef\n", "signing": signingSecret + "\n", "ca.pem": certificate(t),
		"syncd.yaml": `include: more.yaml
server: {api_token_file: api}
defaults: {wildberries: {token_file: shared}}
accounts:
  - {name: first, marketplace: wildberries, tokens: {chat: {file: chat}}}
  - {name: env, marketplace: wildberries, token_env: WB_TOKEN}
sinks:
  - {name: console, type: stdout}
  - {name: crm, type: webhook, url: "https://crm.example.com", secret_file: signing, ca_file: ca.pem}
  - {name: open, type: webhook, url: "https://open.example.com", unsigned: true}
`,
		"more.yaml": "accounts: [{name: second, marketplace: wildberries}]\n",
	} {
		d.put(name, text)
	}
	return d
}

// put writes a file that looks an hour old, as files do that are in use.
func (d *secretDir) put(name, text string) {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	write(d.t, path, text)
	d.age(path, time.Hour)
}

func (d *secretDir) age(path string, age time.Duration) {
	d.t.Helper()
	if err := os.Chtimes(path, time.Time{}, time.Now().Add(-age)); err != nil {
		d.t.Fatal(err)
	}
}

func (d *secretDir) load() *config.Config {
	d.t.Helper()
	return load(d.t, filepath.Join(d.dir, "syncd.yaml"), d.env)
}

// refresh holds what changes, and what that does to the secrets.
func (d *secretDir) refresh(c *config.Config, want ...string) *config.Config {
	d.t.Helper()
	return d.refreshBeside(c, nil, want...)
}

// refuse holds why files cannot be used, and that nothing else has changed.
func (d *secretDir) refuse(c *config.Config, why ...string) {
	d.t.Helper()
	d.refreshBeside(c, why)
}

// refreshBeside holds what changes beside files that cannot be used, and why they cannot.
func (d *secretDir) refreshBeside(c *config.Config, why []string, want ...string) *config.Config {
	d.t.Helper()
	before := secrets(c)
	fresh, changed, err := c.Refresh()
	var problems []config.Problem
	if e, ok := errors.AsType[*config.Errors](err); ok {
		problems = e.Problems
	}
	if (err == nil) != (len(why) == 0) || len(problems) != len(why) || !slices.Equal(changed, want) {
		d.t.Fatalf("changed: %q, %v, want %q beside %q", changed, err, want, why)
	}
	for i, p := range problems {
		if !strings.Contains(p.String(), why[i]) || p.Line == 0 {
			d.t.Errorf("got %s, want %s", p, why[i])
		}
		if strings.Contains(p.String(), "hunter2") {
			d.t.Errorf("an error repeats a secret: %s", p)
		}
	}
	if (fresh == c) != (len(want) == 0) {
		d.t.Errorf("with %d changes the same configuration: %v", len(want), fresh == c)
	}
	if after := secrets(c); !slices.Equal(before, after) {
		d.t.Errorf("the configuration that is in force was changed: %q, was %q", after, before)
	}
	for i, a := range fresh.Accounts {
		if got := a.Key() != c.Accounts[i].Key(); got != slices.Contains(want, "account "+a.Name) {
			d.t.Errorf("account %s: another key: %v", a.Name, got)
		}
	}
	for i, s := range fresh.Sinks {
		if got := s.Key() != c.Sinks[i].Key(); got != slices.Contains(want, "sink "+s.Name) {
			d.t.Errorf("sink %s: another key: %v", s.Name, got)
		}
	}
	return fresh
}

// secrets are all that a configuration holds, in the order of its keys.
func secrets(c *config.Config) []string {
	out := []string{c.Server.APIToken.Reveal()}
	for _, a := range c.Accounts {
		out = append(out, a.Tokens["feedbacks"].Reveal(), a.Tokens["chat"].Reveal())
	}
	for _, s := range c.Sinks {
		if s.Webhook == nil {
			continue
		}
		for _, secret := range s.Webhook.Secrets {
			out = append(out, secret.Reveal())
		}
		if s.Webhook.CAs != nil {
			out = append(out, string(s.Webhook.CAs))
		}
	}
	return out
}

func certificate(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// TestRefresh replaces each secret file in turn.
func TestRefresh(t *testing.T) {
	d := newSecretDir(t)
	c := d.load()
	ca := string(c.Sinks[1].Webhook.CAs)
	want := []string{"0123456789abcdef", "shared-1", "chat-1", "from-env", "from-env", "shared-1", "shared-1", signingSecret, ca}
	if got := secrets(c); !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	c = d.refresh(c)
	check := func(changes ...string) {
		t.Helper()
		c = d.refresh(c, changes...)
		if got := secrets(c); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		d.refresh(c)
	}

	d.put("shared", "shared-2\n")
	want[1], want[5], want[6] = "shared-2", "shared-2", "shared-2"
	check("account first", "account second")
	d.put("chat", "chat-2\n")
	want[2] = "chat-2"
	check("account first")
	d.put("api", "another-token-of-16\n")
	want[0] = "another-token-of-16"
	check("server.api_token_file")
	d.put("signing", signingSecret+"\n"+otherSecret+"\n")
	want = slices.Insert(want, 8, otherSecret)
	check("sink crm")
	d.put("signing", otherSecret+"\n")
	want = slices.Delete(want, 7, 8)
	check("sink crm")
	want[8] = certificate(t)
	d.put("ca.pem", want[8])
	check("sink crm")
	d.put("chat", "chat-3\n")
	d.put("signing", signingSecret)
	want[2], want[7] = "chat-3", signingSecret
	check("account first", "sink crm")

	// What is found in the credentials directory goes before what lies beside the configuration, also when it comes later.
	given := filepath.Join(d.env["CREDENTIALS_DIRECTORY"], "chat")
	write(t, given, "chat-4\n")
	want[2] = "chat-4"
	check("account first")

	// The YAML is not read again, nor missed.
	d.put("syncd.yaml", "not: what it was")
	if err := os.Remove(filepath.Join(d.dir, "more.yaml")); err != nil {
		t.Fatal(err)
	}
	d.refresh(c)
	d.put("shared", "shared-3\n")
	want[1], want[5], want[6] = "shared-3", "shared-3", "shared-3"
	check("account first", "account second")
}

// TestRefreshRefuses holds that a file which is missing, empty or malformed changes nothing for who uses it, for as long as it is so,
// and that it is taken once it is right.
func TestRefreshRefuses(t *testing.T) {
	d := newSecretDir(t)
	c := d.load()
	ca := string(c.Sinks[1].Webhook.CAs)
	for _, row := range []struct{ name, text, why string }{
		{"shared", "", "shared is empty, expected a secret"},
		{"shared", "hunter2\nhunter2\n", "holds several lines"},
		{"shared", "foreign-hunter2\n", "holds no usable token: not a Wildberries token: [secret]"},
		{"api", "hunter2", "holds fewer than 16 characters"},
		{"signing", signingSecret[:20], "secret 1 is not base64 after whsec_"},
		{"signing", signingSecret + "\nwhsec_", "secret 2 holds 0 bytes"},
		{"ca.pem", ca[:len(ca)/2], `file "ca.pem" has a block that is cut short`},
		{"ca.pem", "", `file "ca.pem" holds no certificate`},
	} {
		d.put(row.name, row.text)
		d.refuse(c, row.why)
		d.refuse(c, row.why)
		d.put("shared", "shared-1\n")
		d.put("api", "0123456789abcdef\n")
		d.put("signing", signingSecret)
		d.put("ca.pem", ca)
		d.refresh(c)
	}

	path := filepath.Join(d.dir, "chat")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	d.refuse(c, `accounts[0].tokens.chat.file: there is no file "chat"`)
	d.put("signing", "hunter2")
	d.refuse(c, `there is no file "chat"`, "secret 1 does not begin with whsec_")
	d.put("signing", signingSecret)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	d.refuse(c, `file "chat": is a directory`)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	d.refresh(c)
}

// TestRefreshBeside holds that files which cannot be used keep no others from being taken over: of an account or a sink that uses
// one nothing changes, and all is looked at again until all is right.
func TestRefreshBeside(t *testing.T) {
	d := newSecretDir(t)
	c := d.load()
	ca := string(c.Sinks[1].Webhook.CAs)
	want := []string{"0123456789abcdef", "shared-1", "chat-1", "from-env", "from-env", "shared-1", "shared-1", signingSecret, ca}
	check := func(why []string, changes ...string) {
		t.Helper()
		c = d.refreshBeside(c, why, changes...)
		if got := secrets(c); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		d.refuse(c, why...) // nothing else changes, and it is told again
	}

	// Of an account with two files, and a sink with two.
	d.put("shared", "shared-2\n")
	d.put("chat", "")
	d.put("ca.pem", ca[:len(ca)/2])
	d.put("signing", otherSecret)
	d.put("api", "another-token-of-16\n")
	want[0], want[5], want[6] = "another-token-of-16", "shared-2", "shared-2"
	wrong := []string{`chat is empty`, `file "ca.pem" has a block that is cut short`}
	check(wrong, "account second", "server.api_token_file")

	// What is wrong with a file that accounts inherit is one problem, and concerns each of them.
	d.put("shared", "hunter2\nhunter2\n")
	d.put("chat", "chat-2\n")
	d.put("ca.pem", ca)
	d.put("api", "hunter2")
	want[7] = otherSecret
	wrong = []string{"holds fewer than 16 characters", "holds several lines"}
	check(wrong, "sink crm")

	// A file that was taken over beside a wrong one, and is as it was again.
	d.put("signing", signingSecret)
	want[7] = signingSecret
	check(wrong, "sink crm")
	d.put("shared", "shared-2\n")
	d.put("api", "0123456789abcdef\n")
	want[0], want[1], want[2] = "0123456789abcdef", "shared-2", "chat-2"
	check(nil, "account first", "server.api_token_file")
}

// TestRefreshBySwappedLink replaces secrets as Kubernetes does: all files are links into one directory, which a link names that is
// replaced by a rename.
func TestRefreshBySwappedLink(t *testing.T) {
	d := newSecretDir(t)
	at := time.Now().Add(-time.Hour)
	version := func(name, chat string) {
		for file, text := range map[string]string{"chat": chat, "signing": signingSecret} {
			path := filepath.Join(d.dir, name, file)
			write(t, path, text)
			if err := os.Chtimes(path, at, at); err != nil { // equal in all versions: only the inode tells them apart
				t.Fatal(err)
			}
		}
		if err := os.Symlink(name, filepath.Join(d.dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(d.dir, "..data_tmp"), filepath.Join(d.dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	version("..1", "chat-1")
	for _, file := range []string{"chat", "signing"} {
		if err := os.Remove(filepath.Join(d.dir, file)); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("..data/"+file, filepath.Join(d.dir, file)); err != nil {
			t.Fatal(err)
		}
	}
	c := d.load()
	d.refresh(c)
	version("..2", "chat-1")
	d.refresh(c) // other files, the same content
	version("..3", "chat-2")
	if err := os.RemoveAll(filepath.Join(d.dir, "..1")); err != nil {
		t.Fatal(err)
	}
	c = d.refresh(c, "account first")
	if c.Accounts[0].Tokens["chat"].Reveal() != "chat-2" {
		t.Errorf("got %q", secrets(c))
	}
	d.refresh(c)
	// A link that leads nowhere for a moment is no reason to forget a token.
	if err := os.Remove(filepath.Join(d.dir, "..data")); err != nil {
		t.Fatal(err)
	}
	d.refuse(c, `there is no file "chat"`, `there is no file "signing"`)
}

// TestRefreshReadsLittle holds that a file is read only where its looks have changed, or could not have: a file that was written a
// moment before it was read may have been written again within the same tick of its clock.
func TestRefreshReadsLittle(t *testing.T) {
	d := newSecretDir(t)
	path := filepath.Join(d.dir, "chat")
	at := time.Now().Add(-time.Hour)
	keep := func(text string) {
		write(t, path, text)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	keep("chat-1\n")
	c := d.load()
	keep("chat-2\n")
	d.refresh(c) // it looks as before
	at = at.Add(time.Second)
	keep("chat-1\n")
	d.refresh(c) // read, and found the same
	keep("chat-3\n")
	d.refresh(c) // it looks as when it was read last
	keep("chat-33\n")
	c = d.refresh(c, "account first") // only its size tells
	keep("chat-44\n")
	d.refresh(c) // what was found counts as read

	at = time.Now()
	keep("chat-4\n")
	c = d.refresh(c, "account first")
	keep("chat-5\n")
	d.refresh(c, "account first")
	at = time.Now().Add(time.Hour) // the clock was wrong, or is
	keep("chat-6\n")
	c = d.refresh(c, "account first")
	keep("chat-7\n")
	d.refresh(c, "account first")
}

// TestRefreshAtOnce holds that Refresh may be called concurrently.
func TestRefreshAtOnce(t *testing.T) {
	d := newSecretDir(t)
	c := d.load()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				if _, changed, err := c.Refresh(); err != nil || len(changed) > 1 {
					t.Error(changed, err)
				}
			}
		})
	}
	for i := range 20 {
		// Replaced as it should be: at no moment is there half a file.
		d.put("new", strings.Repeat("chat", 2+i))
		if err := os.Rename(filepath.Join(d.dir, "new"), filepath.Join(d.dir, "chat")); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	d.refresh(c, "account first")
}

// TestReplacedWhileRead replaces a file that several accounts share at each moment between the readings of one Load, and of one
// Refresh, and holds that the next Refresh leaves none of them with the old content.
func TestReplacedWhileRead(t *testing.T) {
	for _, loading := range []bool{true, false} {
		for moment := 1; ; moment++ {
			d := newSecretDir(t)
			reads := 0
			looking := func(key string) string { // it is asked for before each file
				if reads--; reads == 0 {
					d.put("shared", "shared-2\n")
				}
				return d.env[key]
			}
			load := func() *config.Config {
				c, err := config.Load(config.Source{Path: filepath.Join(d.dir, "syncd.yaml"), Getenv: looking}, catalog())
				if err != nil {
					t.Fatal(err)
				}
				return c
			}
			var c *config.Config
			if loading {
				reads = moment
				c = load()
			} else {
				c = load()
				d.put("chat", "chat-2\n") // so that everything is read
				reads = moment
				c, _, _ = c.Refresh()
			}
			if reads > 0 {
				if moment < 5 {
					t.Errorf("only %d moments were tried", moment-1)
				}
				break
			}
			c, _, err := c.Refresh()
			if err != nil || c.Accounts[0].Tokens["feedbacks"].Reveal() != "shared-2" || c.Accounts[2].Tokens["chat"].Reveal() != "shared-2" {
				t.Errorf("loading %v, moment %d: %q, %v", loading, moment, secrets(c), err)
			}
		}
	}
}

func TestRefreshOfNothing(t *testing.T) {
	c := &config.Config{}
	if fresh, changed, err := c.Refresh(); fresh != c || changed != nil || err != nil {
		t.Errorf("got %v, %q, %v", fresh, changed, err)
	}
}
