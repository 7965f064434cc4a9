package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"syncd/internal/sandbox"
	yandexsandbox "syncd/internal/sandbox/yandexmarket"
	"syncd/internal/sources/wildberries"
	"syncd/internal/sources/yandexmarket"
)

// simulation is the simulated marketplaces side by side. No path belongs to both.
type simulation struct {
	wildberries  *sandbox.Sandbox
	yandexMarket *yandexsandbox.Market
}

// newSimulation returns those of `syncd demo`, in which a seed decides what happens.
func newSimulation(seed uint64) (s simulation, err error) {
	if s.wildberries, err = sandbox.New(sandbox.Demo(seed)); err != nil {
		return simulation{}, err
	}
	s.yandexMarket, err = yandexsandbox.New(yandexsandbox.Demo(seed))
	return s, err
}

func (s simulation) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for _, prefix := range []string{"/v1/", "/v2/", yandexsandbox.ControlPrefix} {
		if strings.HasPrefix(r.URL.Path, prefix) {
			s.yandexMarket.Handler().ServeHTTP(w, r)
			return
		}
	}
	s.wildberries.Handler().ServeHTTP(w, r)
}

// serveSandbox serves the simulated marketplaces on l until ctx ends.
func serveSandbox(ctx context.Context, l net.Listener, sim simulation) error {
	s := &http.Server{Handler: sim, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("sandbox: %w", err)
	}
	return nil
}

// simulatedConfig is a configuration for the accounts of a simulation at url, named
// shop-a, … and market-a, …; its files are in dir.
type simulatedConfig struct {
	dir, url string
	start    string
	listen   string // server.listen
	log      string // log.level
	acc      int    // type of the Wildberries tokens; 0: personal
	often    bool   // poll more often than the defaults do, for somebody who watches
}

// write writes the configuration and its token files, and returns its path. It
// overwrites nothing: a directory of somebody's is refused before anything is
// written to it.
func (c simulatedConfig) write(sim simulation) (string, error) {
	files := make(map[string]string)
	var b strings.Builder
	fmt.Fprintf(&b, "# Accounts of the simulated marketplaces at %s.\n", c.url)
	fmt.Fprintf(&b, "state: {path: syncd.db}\nserver: {listen: %q}\nlog: {level: %s}\naccounts:\n", c.listen, c.log)
	account := func(name, seller, marketplace, token string) {
		files[name+".token"] = token + "\n"
		fmt.Fprintf(&b, "  - name: %s    # %s\n    marketplace: %s\n    token_file: %s.token\n    start: %s\n", name, seller, marketplace, name, c.start)
	}
	for i, w := range sim.wildberries.Worlds() {
		account(fmt.Sprintf("shop-%c", 'a'+i), w.Name(), wildberries.Marketplace, sim.wildberries.MintToken(sandbox.TokenSpec{Seller: w.ID(), Acc: c.acc}))
		fmt.Fprintf(&b, "    endpoints: {feedbacks: %[1]s, chat: %[1]s, returns: %[1]s}\n", c.url)
	}
	for i, w := range sim.yandexMarket.Businesses() {
		account(fmt.Sprintf("market-%c", 'a'+i), w.Name(), yandexmarket.Marketplace, sim.yandexMarket.MintKey(yandexsandbox.KeySpec{Business: w.ID()}))
		fmt.Fprintf(&b, "    business_id: %d\n    endpoints: {api: %s}\n", w.ID(), c.url)
		if c.often {
			b.WriteString("    streams:\n")
			for _, s := range yandexmarket.Streams() {
				fmt.Fprintf(&b, "      %s: {schedule: \"@every 10s\"}\n", s.Name)
			}
		}
	}
	b.WriteString("sinks:\n  - name: archive\n    type: file\n    path: events.ndjson\n    from: beginning\n")
	b.WriteString("#  - name: crm          # your receiver\n#    type: webhook\n#    url: http://127.0.0.1:8000/hooks\n#    secret_file: crm.secret\n#    from: beginning\n")
	secret := make([]byte, 32)
	rand.Read(secret) // never fails: package crypto/rand
	files["crm.secret"] = "whsec_" + base64.StdEncoding.EncodeToString(secret) + "\n"
	files["syncd.yaml"] = b.String()
	for name := range files {
		if _, err := os.Lstat(filepath.Join(c.dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return "", usageError{fmt.Errorf("--dir %s holds %s already: give an empty directory or a new one", c.dir, name)}
		}
	}
	for name, content := range files {
		if err := writeNew(filepath.Join(c.dir, name), content); err != nil {
			return "", err
		}
	}
	return filepath.Join(c.dir, "syncd.yaml"), nil
}

// writeNew writes a file that must not be there yet.
func writeNew(path, content string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Close())
}

func newSandbox(e *env) *cobra.Command {
	listen, dir, tokens := "127.0.0.1:9470", "", "personal"
	seed := uint64(1)
	cmd := &cobra.Command{
		Use: "sandbox", Short: "Run the simulated marketplaces alone", Args: noArgs,
		Long: `Sandbox serves a simulated Wildberries and a simulated Yandex Market: a seller on each
with some days of history whose buyers keep writing, documented errors and headers, and
strict budgets that count each request that should not have been sent. It is for those
who write receivers, and for trying a configuration without an account.

It writes a configuration for itself, with tokens, into --dir. GET /_sandbox/stats and
/_sandbox/yandex_market/stats show what it has seen; POST /_sandbox/faults and
/_sandbox/yandex_market/faults make it fail on purpose, for example

  curl -d '{"kind":"status_503","count":3}' http://127.0.0.1:9470/_sandbox/faults

It has no password: keep it on loopback.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			acc, ok := tokenTypes[tokens]
			if !ok {
				return usageError{fmt.Errorf("--tokens %q: expected base, test, personal or service", tokens)}
			}
			return e.sandbox(cmd.Context(), listen, dir, seed, acc)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", listen, "`address` to serve on")
	cmd.Flags().StringVar(&tokens, "tokens", tokens, "`type` of the Wildberries tokens: base, test, personal or service")
	cmd.Flags().Uint64Var(&seed, "seed", seed, "`number` that decides what is in the world")
	cmd.Flags().StringVar(&dir, "dir", dir, "`directory` for its configuration, empty or new (default: a new one in the temporary directory)")
	return cmd
}

// tokenTypes are those of Wildberries by name.
var tokenTypes = map[string]int{"base": sandbox.AccBase, "test": sandbox.AccTest, "personal": sandbox.AccPersonal, "service": sandbox.AccService}

func (e *env) sandbox(ctx context.Context, listen, dir string, seed uint64, acc int) error {
	ctx, stop := untilSignal(ctx)
	defer stop()
	sim, err := newSimulation(seed)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("--listen %s: %w", listen, err)
	}
	defer l.Close()
	if dir, err = makeDir(dir, "syncd-sandbox-"); err != nil {
		return err
	}
	url := "http://" + l.Addr().String()
	path, err := simulatedConfig{dir: dir, url: url, start: "beginning", listen: "127.0.0.1:9469", log: "info", acc: acc}.write(sim)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, `Simulated Wildberries and Yandex Market at %s (seed %d)

  configuration   %s
  try it          syncd once --config %s
  or              syncd run --config %s
  your receiver   the commented sink crm there, and its secret in crm.secret
  what it saw     curl %s/_sandbox/stats
                  curl %s%sstats

Ctrl-C ends it.
`, url, seed, path, path, path, url, url, yandexsandbox.ControlPrefix)
	return serveSandbox(ctx, l, sim)
}

// makeDir makes dir, or a new temporary directory where it is empty, and returns
// its absolute path.
func makeDir(dir, prefix string) (string, error) {
	if dir == "" {
		return os.MkdirTemp("", prefix)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}
