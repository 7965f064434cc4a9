// Package config reads the configuration of syncd: one YAML file, the files it includes, and the secrets they name.
//
// Load returns a configuration that is whole and right, or every problem that it found, each with file, line, column, key
// and what was expected. Defaults are filled in, `defaults` are merged, secrets are read and checked, and names are unique, so
// that nobody after config has to ask whether a setting is there or makes sense. No value that may be secret is part of
// an error, and a Secret does not print.
//
// Refresh reads the secret files of a loaded configuration again, and Key tells whether two configurations of an account or a sink
// differ, so that a running daemon changes only what has changed.
//
// The file's shape and its manual are in document.go; Schema makes the JSON Schema for editors from the same types.
//
// Config does not know which marketplaces exist (the Catalog tells it), does not look into tokens, opens no socket and
// writes no file.
package config

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Config is a configuration that is ready to use.
type Config struct {
	// Files are the files that were read: the main one, then the included ones in order.
	Files []string
	// ShutdownTimeout is above 0.
	ShutdownTimeout time.Duration
	State           State
	Server          Server
	Log             Log
	// Accounts are at least one, in the order of Files.
	Accounts []Account
	// Sinks may be none.
	Sinks []Sink
	// Warnings are doubts that do not keep syncd from running, sorted as errors are.
	Warnings []Problem

	secrets *secretFiles // nil where Load did not make it
}

// State says what is kept, and where.
type State struct {
	// Path is absolute.
	Path string
	// KeepEvents and KeepDeadLetters are above 0.
	KeepEvents, KeepDeadLetters time.Duration
}

// Server is the HTTP server.
type Server struct {
	// Listen is host:port, or empty for no server.
	Listen string
	// APIToken is the bearer token for requests that change something; empty if there is none, else at least 16 visible
	// ASCII characters.
	APIToken Secret
}

// Loopback reports whether the server, if there is one, is out of reach for other machines.
func (s Server) Loopback() bool {
	if s.Listen == "" {
		return true
	}
	host, _, _ := net.SplitHostPort(s.Listen) // Load has checked it; no host means all addresses
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// Log says what is logged, and how.
type Log struct {
	Level  slog.Level
	Format LogFormat
}

// Account is one seller to poll.
type Account struct {
	Name        string
	Marketplace string
	// BusinessID is above 0 where the marketplace has the key, else 0. Campaigns may be empty.
	BusinessID int64
	Campaigns  []int64
	// Tokens has a token for each API group of the marketplace.
	Tokens map[string]Secret
	Start  Start
	// BudgetShare is above 0 and at most 1.
	BudgetShare float64
	// Endpoints has the base URL of each API group of the marketplace, without a slash at its end.
	Endpoints map[string]string
	// Streams are all streams of the marketplace, in the order of the catalogue.
	Streams []StreamSettings
}

// StreamSettings are the settings of one stream of one account.
type StreamSettings struct {
	Name    string
	Enabled bool
	// Schedule has passed Catalog.CheckSchedule, unless it is the default.
	Schedule string
	// Overlap is 0 or more, and 0 where the stream has none.
	Overlap time.Duration
	// Sweep and Ignore are empty where the items of the stream never change.
	Sweep Sweep
	// Ignore are the top-level fields of an item whose change is no news: sorted, each once.
	Ignore []string
}

// Sweep says how changes of old items are looked for: 0 < Every <= Full, and Window is above 0.
type Sweep struct {
	// Every is how often the cheap means look, Full how often the whole Window is read.
	Every, Full time.Duration
	// Window is how far back from now items are looked at.
	Window time.Duration
}

// Sink is one receiver of events.
type Sink struct {
	Name   string
	Type   SinkType
	Select Select
	From   From
	// File is set for TypeFile alone, Webhook for TypeWebhook alone.
	File    *FileSink
	Webhook *WebhookSink
}

// Select says which events a sink gets: those that match a pattern of each list, where an empty list matches everything.
type Select struct {
	Accounts []Glob `json:"accounts,omitempty"`
	Types    []Glob `json:"types,omitempty"`
}

// Match reports whether an event of the account and type is selected.
func (s Select) Match(account, eventType string) bool {
	return matchAny(s.Accounts, account) && matchAny(s.Types, eventType)
}

func matchAny(globs []Glob, s string) bool {
	for _, g := range globs {
		if g.Match(s) {
			return true
		}
	}
	return len(globs) == 0
}

// FileSink is a file of events.
type FileSink struct {
	// Path is absolute; no two sinks share one, nor one with the state file, and none is a name that another sink's rotated or
	// orphaned files may get.
	Path   string
	Rotate Rotate
	Sync   SyncMode
}

// Rotate says when a file is given another name and a new one begun. The zero value is never.
type Rotate struct {
	// Size is in bytes and Every counts from the first line of the file. 0 is no such limit; with rotation one of them is set.
	Size  int64
	Every time.Duration
	// Keep is how many rotated files stay; 0 is all of them.
	Keep     int
	Compress bool
}

// WebhookSink is an endpoint that takes events by POST.
type WebhookSink struct {
	URL string
	// Secrets are the signing secrets, each with its prefix whsec_; all of them sign. None means unsigned.
	Secrets []Secret
	// Headers have canonical names, none of which syncd sets itself.
	Headers map[string]string
	// CAs are certificates in PEM, the only ones that the endpoint's may come from; empty means the system's.
	CAs []byte
	// Timeout is above 0.
	Timeout time.Duration
	// Concurrency is 1 to 256.
	Concurrency int
	// Rate is the most requests a second; 0 is no limit.
	Rate  float64
	Batch Batch
	Retry Retry
}

// Batch says how many events go in one request.
type Batch struct {
	// MaxEvents is 1 to 1000; 1 means no batches.
	MaxEvents int
	// MaxWait is how long a batch waits for more events: 0 or more, and 0 where MaxEvents is 1.
	MaxWait time.Duration
}

// Retry says when to try an event again, and when to give it up.
type Retry struct {
	// Initial and Max bound the waits between the attempts at one event: 0 < Initial <= Max.
	Initial, Max time.Duration
	// GiveUpAfter counts from an event's first attempt, and is not less than Initial.
	GiveUpAfter time.Duration
	// MaxAttempts4xx is how many permanent refusals an event takes: 1 or more.
	MaxAttempts4xx int
}

// Source says where a configuration comes from.
type Source struct {
	// Path is the main file. What is relative in the configuration is relative to its directory.
	Path string
	// Getenv looks up $CREDENTIALS_DIRECTORY and the variables that hold secrets. Default: os.Getenv.
	Getenv func(string) string
}

// Load reads the configuration and every secret it names. The error is an *Errors with all problems, a missing file
// included.
func Load(src Source, cat Catalog) (*Config, error) {
	if src.Getenv == nil {
		src.Getenv = os.Getenv
	}
	dir, err := filepath.Abs(filepath.Dir(src.Path))
	if err != nil {
		dir = filepath.Dir(src.Path) // the working directory is gone: what is relative will not be found, and will be reported
	}
	r := newReport()
	l := &loader{
		report:   r,
		catalog:  &cat,
		path:     src.Path,
		dir:      dir,
		secrets:  secretReader{report: r, getenv: src.Getenv, dir: dir, stamps: map[string]stamp{}},
		accounts: map[string]*node{},
		sinks:    map[string]*node{},
		config:   &Config{},
	}
	l.load()
	if len(r.problems) > 0 {
		return nil, &Errors{Problems: r.problems.sorted()}
	}
	l.config.Warnings = r.warnings.sorted()
	l.config.secrets = &secretFiles{getenv: src.Getenv, dir: dir, reads: l.reads, stamps: l.secrets.stamps}
	return l.config, nil
}
