package main

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"syncd/internal/config"
	"syncd/internal/sources"
)

func newCheck(e *env) *cobra.Command {
	var online bool
	cmd := &cobra.Command{
		Use: "check", Short: "Validate the configuration", Args: noArgs,
		Long: `Check reads the configuration, every file it includes and every secret it names,
and lists all that is wrong with it as file:line:column: key: problem. It opens no
state and sends nothing.

With --online it then tries each token with one cheap request per API group, within
the seller's budget: the running daemon's, else that of the state file. A token whose
budget is spent is not tried, and gives exit code 1 as a refused one does.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return e.check(cmd.Context(), online) },
	}
	e.addConfigFlag(cmd)
	e.addServerFlag(cmd)
	cmd.Flags().BoolVar(&online, "online", false, "also try each token")
	return cmd
}

func (e *env) check(ctx context.Context, online bool) error {
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
	if _, err := fmt.Fprintf(e.stdout, "\n%s is valid.\n", cfg.Files[0]); err != nil || !online {
		return err
	}
	fmt.Fprintln(e.stdout)
	return e.checkOnline(ctx, cfg)
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
		if differentSellers(a) {
			out = append(out, fmt.Sprintf("account %s: its tokens belong to different sellers, and it will not be polled: one account is one seller", a.Name))
		}
		for _, t := range tokensOf(a) {
			if w := expiryWarning(t.expires, time.Now()); w != "" {
				out = append(out, fmt.Sprintf("account %s: %s: %s", a.Name, t.source, w))
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
	spec := m.streams[slices.IndexFunc(m.streams, func(known sources.Stream) bool { return known.Name == s.Name })]
	t, err := m.describe(a, spec.Group)
	switch {
	case err != nil:
		return err.Error()
	case !t.Opens:
		return "off: the token does not have the category " + spec.Group
	}
	note := t.Type + " token"
	if t.Interval > time.Minute {
		note += fmt.Sprintf(", one request every %s for all of %s", t.Interval, spec.Group)
	}
	switch left := time.Until(t.Expires); {
	case t.Expires.IsZero():
	case left < 0:
		note += ", EXPIRED on " + t.Expires.Format(time.DateOnly)
	default:
		note += ", expires " + t.Expires.Format(time.DateOnly)
	}
	return note
}

// groupsOf lists the API groups of an account, in order.
func groupsOf(a config.Account) []string { return slices.Sorted(maps.Keys(a.Tokens)) }

// tokensOf lists the tokens of an account, each once.
func tokensOf(a config.Account) []token {
	var out []token
	for _, group := range groupsOf(a) {
		secret := a.Tokens[group]
		if slices.ContainsFunc(out, func(t token) bool { return t.source == secret.Source() }) {
			continue
		}
		if facts, err := marketplaceOf(a).describe(a, group); err == nil {
			out = append(out, token{account: a.Name, seller: facts.Seller, source: secret.Source(), expires: facts.Expires})
		}
	}
	return out
}
