package main

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"syncd/internal/config"
)

func newCheck(e *env) *cobra.Command {
	var online bool
	cmd := &cobra.Command{
		Use: "check", Short: "Validate the configuration", Args: noArgs,
		Long: `Check reads the configuration, every file it includes and every secret it names,
and lists all that is wrong with it as file:line:column: key: problem. It opens no
state and sends nothing.`,
		RunE: func(*cobra.Command, []string) error {
			if online {
				return usageError{errors.New("--online is not supported yet")}
			}
			return e.check()
		},
	}
	e.addConfigFlag(cmd)
	cmd.Flags().BoolVar(&online, "online", false, "also try each token (not supported yet)")
	return cmd
}

func (e *env) check() error {
	cfg, err := e.loadConfig()
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ACCOUNT\tMARKETPLACE\tSTREAM\tSCHEDULE\tNOTE")
	polled := 0
	for _, a := range cfg.Accounts {
		for _, s := range a.Streams {
			note := streamNote(a, s)
			if !strings.HasPrefix(note, "off") {
				polled++
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", a.Name, a.Marketplace, s.Name, s.Schedule, note)
		}
	}
	if len(cfg.Sinks) > 0 {
		fmt.Fprintln(t, "\nSINK\tTYPE\tTO")
		for _, s := range cfg.Sinks {
			to := "standard output"
			switch {
			case s.File != nil:
				to = s.File.Path
			case s.Webhook != nil:
				to = withoutPath(s.Webhook.URL)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\n", s.Name, s.Type, to)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, w := range surroundings(cfg, polled) {
		fmt.Fprintf(e.stderr, "warning: %s\n", w)
	}
	_, err = fmt.Fprintf(e.stdout, "\n%s is valid.\n", cfg.Files[0])
	return err
}

// surroundings are doubts about what the configuration points at. They may be
// mended by the time syncd runs, so they are no errors of the configuration.
func surroundings(cfg *config.Config, polled int) []string {
	var out []string
	if polled == 0 {
		out = append(out, noStreams)
	}
	paths := map[string]string{"state.path": cfg.State.Path}
	for _, s := range cfg.Sinks {
		if s.File != nil {
			paths["sink "+s.Name] = s.File.Path
		}
	}
	for _, what := range slices.Sorted(maps.Keys(paths)) {
		if fi, err := os.Stat(filepath.Dir(paths[what])); err != nil || !fi.IsDir() {
			out = append(out, fmt.Sprintf("%s: the directory %s does not exist: create it, or set another path", what, filepath.Dir(paths[what])))
		}
	}
	for _, a := range cfg.Accounts {
		m := marketplaceOf(a)
		told := make(map[string]bool)
		for _, group := range slices.Sorted(maps.Keys(a.Tokens)) {
			secret := a.Tokens[group]
			if w := m.expiry(secret.Reveal()); w != "" && !told[secret.Source()] {
				told[secret.Source()] = true
				out = append(out, fmt.Sprintf("account %s: %s: %s", a.Name, secret.Source(), w))
			}
		}
	}
	return out
}

// withoutPath cuts a URL behind its host: what follows may be a password.
func withoutPath(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "a URL"
	}
	return u.Scheme + "://" + u.Host
}

// streamNote says what is known of a stream without a request.
func streamNote(a config.Account, s config.StreamSettings) string {
	if !s.Enabled {
		return "off"
	}
	m := marketplaceOf(a)
	for _, spec := range m.streams {
		if spec.Name == s.Name {
			return m.note(a.Tokens[spec.Group].Reveal(), spec.Group)
		}
	}
	return ""
}
