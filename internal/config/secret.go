package config

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// Secret is a token or a signing secret. It does not print: every way of formatting it gives [secret].
type Secret struct {
	// A pointer, because fmt prints the fields of a struct that it cannot call methods on, but not what they point at.
	text   *string
	source string
}

const redacted = "[secret]"

// minToken is the shortest text that can be a token.
const minToken = 8

// Reveal gives the secret itself.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Source says where the secret came from, as in "file /run/secrets/wb" or "env WB_TOKEN".
func (s Secret) Source() string { return s.source }

// String gives [secret].
func (Secret) String() string { return redacted }

// GoString gives [secret].
func (Secret) GoString() string { return redacted }

// MarshalText gives [secret], to encoding/json too.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue gives [secret].
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// maxSecret is far beyond the size of a token.
const maxSecret = 64 << 10

// secretReader reads secrets from where the configuration says they are.
type secretReader struct {
	*report
	getenv func(string) string
	dir    string           // of the main file
	stamps map[string]stamp // of the files that were read, by the names that the configuration gives
}

// content is what a file or a variable holds, without the white space around it.
type content struct {
	text   string
	source string
	node   *node
}

// token reads an API token; the Secret is empty where there is none. That it was given neither by file nor by variable, or
// by both, is reported elsewhere.
func (r *secretReader) token(file *opt[secretFile], env *opt[secretEnv], check func(string) error) Secret {
	c := r.line(file, env)
	if c == nil {
		return Secret{}
	}
	if check != nil {
		if err := check(c.text); err != nil {
			text := err.Error()
			if len(c.text) >= minToken { // a letter or two hide nothing, and would be cut out of every word
				text = strings.ReplaceAll(text, c.text, redacted)
			}
			r.problem(c.node, "%s holds no usable token: %s", c.source, text)
			return Secret{}
		}
	}
	return Secret{text: &c.text, source: c.source}
}

// minAPIToken keeps the token of the HTTP API, which others can try, from being guessed.
const minAPIToken = 16

// apiToken reads the bearer token of the HTTP API; the Secret is empty where there is none.
func (r *secretReader) apiToken(file *opt[optionalSecretFile]) Secret {
	c := r.line(&opt[secretFile]{val: secretFile(file.val), node: file.node, ok: file.ok && file.val != ""}, &opt[secretEnv]{})
	if c == nil {
		return Secret{}
	}
	if len(c.text) < minAPIToken {
		r.problem(c.node, "%s holds fewer than %d characters, expected a random token as `openssl rand -hex 32` makes it", c.source, minAPIToken)
		return Secret{}
	}
	return Secret{text: &c.text, source: c.source}
}

// line reads a secret that is one word, as tokens are. It gives nil where there is nothing to use; the reason is reported.
func (r *secretReader) line(file *opt[secretFile], env *opt[secretEnv]) *content {
	c := r.read(file, env)
	switch {
	case c == nil:
	case strings.ContainsAny(c.text, "\r\n"):
		r.problem(c.node, "%s holds several lines, expected one token", c.source)
	case strings.HasPrefix(c.text, "Bearer "):
		r.problem(c.node, "%s begins with \"Bearer \", expected the token alone", c.source)
	case strings.ContainsFunc(c.text, func(c rune) bool { return c <= ' ' || c > '~' }):
		r.problem(c.node, "%s holds a space or a character that no token has, expected visible ASCII", c.source)
	default:
		return c
	}
	return nil
}

// signing reads the signing secrets of a webhook, one a line.
func (r *secretReader) signing(file *opt[secretFile], env *opt[secretEnv]) []Secret {
	c := r.read(file, env)
	if c == nil {
		return nil
	}
	var secrets []Secret
	number := 0
	for line := range strings.Lines(c.text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		number++
		if wrong := wrongSigningSecret(line); wrong != "" {
			r.problem(c.node, "%s: secret %d %s, expected whsec_ and 24 to 64 bytes in base64", c.source, number, wrong)
			continue
		}
		secrets = append(secrets, Secret{text: &line, source: c.source})
	}
	return secrets
}

func wrongSigningSecret(s string) string {
	encoded, ok := strings.CutPrefix(s, "whsec_")
	if !ok {
		return "does not begin with whsec_"
	}
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	switch {
	case err != nil:
		return "is not base64 after whsec_"
	case len(key) < 24 || len(key) > 64:
		return fmt.Sprintf("holds %d bytes", len(key))
	}
	return ""
}

// certificates reads a file of CA certificates; nil where there is none.
func (r *secretReader) certificates(file *opt[caFile]) []byte {
	if !file.ok {
		return nil
	}
	const want = "expected CA certificates in PEM"
	text, _, wrong := r.file(string(file.val))
	if wrong != "" {
		r.problem(file.node, "%s, %s", wrong, want)
		return nil
	}
	if wrong := wrongCertificates([]byte(text)); wrong != "" {
		r.problem(file.node, "file %s %s, %s", quotedName(string(file.val)), wrong, want)
		return nil
	}
	return []byte(text)
}

// wrongCertificates holds that all of a text is used: a file that is cut short, or holds a key by mistake, is not taken.
func wrongCertificates(text []byte) string {
	begun, rest := bytes.Count(text, []byte("-----BEGIN")), text
	for number := 1; ; number++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if begun--; block.Type != "CERTIFICATE" {
			return fmt.Sprintf("holds other things than certificates (block %d)", number)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Sprintf("holds no usable certificate in block %d", number)
		}
	}
	switch {
	case begun > 0:
		return "has a block that is cut short or damaged"
	case len(rest) == len(text):
		return "holds no certificate"
	}
	return ""
}

// read gives nil where there is nothing to use; the reason is reported.
func (r *secretReader) read(file *opt[secretFile], env *opt[secretEnv]) *content {
	var c content
	switch {
	case file.node != nil && env.node != nil:
		return nil // only one of them is right
	case file.ok:
		text, path, wrong := r.file(string(file.val))
		if wrong != "" {
			r.problem(file.node, "%s, expected one that holds the secret", wrong)
			return nil
		}
		r.warnIfOpen(file.node, path)
		c = content{text: text, source: "file " + path, node: file.node}
	case env.ok:
		c = content{text: r.getenv(string(env.val)), source: "env " + string(env.val), node: env.node}
	default:
		return nil
	}
	c.text = strings.TrimSpace(c.text)
	switch {
	case c.text == "" && env.ok:
		r.problem(c.node, "%s is not set or empty, expected a secret", c.source)
	case c.text == "":
		r.problem(c.node, "%s is empty, expected a secret", c.source)
	case len(c.text) > maxSecret:
		r.problem(c.node, "%s is larger than %d KiB, expected a secret", c.source, maxSecret>>10)
	default:
		return &c
	}
	return nil
}

// locate says where a file of this name is to be read, and for an error where it was looked for.
func (r *secretReader) locate(name string) (path, where string) {
	if filepath.IsAbs(name) {
		return name, ""
	}
	beside := filepath.Join(r.dir, name)
	credentials := r.getenv("CREDENTIALS_DIRECTORY")
	if credentials == "" {
		return beside, " beside the configuration"
	}
	where = " in $CREDENTIALS_DIRECTORY or beside the configuration"
	if given := filepath.Join(credentials, name); exists(given) {
		return given, where
	}
	return beside, where
}

// file reads a secret file and gives its path, or says what is wrong.
func (r *secretReader) file(name string) (text, path, wrong string) {
	path, where := r.locate(name)
	if _, again := r.stamps[name]; !again { // for whoever read it first: it may have changed since
		r.stamps[name] = stampOf(path)
	}
	if !exists(path) {
		return "", "", fmt.Sprintf("there is no file %s%s", quotedName(name), where)
	}
	bytes, why := readFile(path, true)
	if why != "" {
		return "", "", fmt.Sprintf("file %s: %s", quotedName(name), why)
	}
	return string(bytes), path, ""
}

// quotedName repeats the name of a secret's file: in full where it is surely a path, else only its beginning.
func quotedName(name string) string {
	if filepath.IsAbs(name) {
		return quotedPath(name)
	}
	return quoted(name)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil || !os.IsNotExist(err)
}

// warnIfOpen warns of a secret that others can read, except where the service manager keeps it: systemd's credentials and
// Docker's /run/secrets have their own protection, and modes that nobody can change.
func (r *secretReader) warnIfOpen(n *node, path string) {
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm()&0o044 == 0 {
		return
	}
	for _, dir := range []string{r.getenv("CREDENTIALS_DIRECTORY"), "/run/secrets"} {
		if dir != "" && (within(dir, path) || within(resolve(dir), resolve(path))) {
			return
		}
	}
	r.warn(n, "others can read %s (mode %04o): chmod 600", path, info.Mode().Perm())
}

func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}
