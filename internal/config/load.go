package config

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"time"
)

// loader turns files into a Config. Each of its stages reports what it finds and goes on, so that one run finds everything.
type loader struct {
	*report
	catalog   *Catalog
	path, dir string
	secrets   secretReader
	config    *Config

	// defaults are the nodes of `defaults` by marketplace.
	defaults map[string]*node
	// accounts and sinks tell where each name stands.
	accounts, sinks map[string]*node
	// incomplete says that the name of an account is not known, since it or its file could not be read. Then nobody can say
	// that a pattern matches no account, or that there is none.
	incomplete bool
	// written are the files that syncd will write.
	written []writtenFile
	// reads put the content of secret files into the configuration, each where all that it reads is right.
	reads []func(*secretReader, *Config)
}

// fill has read called now, and by every Refresh.
func (l *loader) fill(read func(*secretReader, *Config)) {
	l.reads = append(l.reads, read)
	read(&l.secrets, l.config)
}

type writtenFile struct {
	resolved string
	what     string
}

// derived reports whether a file has a name that a sink which writes f gives to rotated files, name-<20 digits>.ndjson and whatever
// follows, or to what it moves aside, name.orphan-<time>. It does not matter if the sink rotates now: it may tomorrow, or did
// yesterday. The state file has no such others, and nothing is lost by keeping its names as clear.
func (f writtenFile) derived(path string) bool {
	name, ok := strings.CutPrefix(path, strings.TrimSuffix(f.resolved, ".ndjson")+"-")
	return ok && sequenceRE.MatchString(name) || strings.HasPrefix(path, f.resolved+".orphan-")
}

// clash says why two files cannot be, "" if they can.
func (f writtenFile) clash(other writtenFile) string {
	switch {
	case f.resolved == other.resolved:
		return "is the file of " + other.what + " too"
	case other.derived(f.resolved):
		return "is a name for files that " + other.what + " rotates or moves aside"
	case f.derived(other.resolved):
		return "would take the file of " + other.what + " for a rotated one"
	}
	return ""
}

// sequenceRE is the sequence of an event at the beginning of a text.
var sequenceRE = regexp.MustCompile(`^[0-9]{20}`)

func (l *loader) load() {
	text, why := readFile(l.path, false)
	if why != "" {
		l.problems.add(Problem{File: l.path, Message: why + ", expected a configuration file"})
		return
	}
	root := parse(l.report, l.path, text)
	if root == nil {
		return
	}
	l.config.Files = []string{l.path}
	var main document
	l.decoder().object(root, reflect.ValueOf(&main).Elem())
	documents := append([]document{main}, l.included(&main.Include)...)

	l.settings(&main)
	l.inherit(&main)
	accounts := 0
	for _, doc := range documents {
		for _, account := range doc.Accounts.items {
			l.account(account.node)
		}
		accounts += len(doc.Accounts.items)
		if n := doc.Accounts.node; n != nil && n.kind != listNode && !n.isNull() {
			l.incomplete = true
		}
	}
	if accounts == 0 && !l.incomplete {
		n := main.Accounts.node
		if n == nil {
			n = root.under("accounts")
		}
		l.problem(n, "no account is configured, expected at least one, here or in an included file")
	}
	sinks := 0
	for _, doc := range documents {
		for _, sink := range doc.Sinks.items {
			l.sink(sink.node)
		}
		sinks += len(doc.Sinks.items)
	}
	if sinks == 0 {
		l.warn(root.under("sinks"), "no sink is configured: events are kept for %s and go nowhere", formatDuration(l.config.State.KeepEvents))
	}
}

func (l *loader) decoder() *decoder { return &decoder{report: l.report, catalog: l.catalog} }

// settings takes over what only the main file has.
func (l *loader) settings(doc *document) {
	c := l.config
	c.ShutdownTimeout = time.Duration(doc.ShutdownTimeout.val)
	c.State.KeepEvents = time.Duration(doc.State.KeepEvents.val)
	c.State.KeepDeadLetters = time.Duration(doc.State.KeepDeadLetters.val)
	c.Server.Listen = string(doc.Server.Listen.val)
	l.fill(func(r *secretReader, c *Config) {
		before := r.reported
		if token := r.apiToken(&doc.Server.APITokenFile); r.reported == before {
			c.Server.APIToken = token
		}
	})
	if !c.Server.Loopback() && c.Server.APIToken.Reveal() == "" {
		l.warn(doc.Server.Listen.node, "other machines can reach %s and server.api_token_file is not set: requests that change something "+
			"will be refused", quoted(c.Server.Listen))
	}
	c.Log = Log{Level: slog.Level(doc.Log.Level.val), Format: doc.Log.Format.val}
	c.State.Path = l.writes(&doc.State.Path, "state.path")
}

// inherit decodes `defaults` by themselves: they may be wrong where no account shows it.
func (l *loader) inherit(doc *document) {
	l.defaults = map[string]*node{}
	for _, e := range doc.Defaults.entries {
		if e.val.node == nil {
			continue
		}
		d := l.decoder()
		d.inherited, d.market = true, l.catalog.marketplace(e.node.label)
		var account accountEntry
		d.object(e.val.node, reflect.ValueOf(&account).Elem())
		l.streams(&account, nil)
		l.defaults[e.node.label] = e.val.node
	}
}

// unique remembers a name, and reports it if it is taken.
func (l *loader) unique(names map[string]*node, n *opt[name]) {
	if !n.ok {
		return
	}
	if first := names[string(n.val)]; first != nil {
		l.problem(n.node, "%s is taken by %s at %s, expected a unique name", quoted(string(n.val)), first.parent.path(), first.place())
		return
	}
	names[string(n.val)] = n.node
}

// writes makes the path of a file that syncd writes absolute, and reports it if another setting names the same file, or one that
// a file sink would write beside its own.
func (l *loader) writes(p *opt[filePath], what string) string {
	if !p.ok {
		return ""
	}
	path := string(p.val)
	if !filepath.IsAbs(path) {
		path = filepath.Join(l.dir, path)
	}
	file := writtenFile{resolved: resolve(path), what: what}
	for _, other := range l.written {
		// The state file comes first, so that a default path is never the one to report here.
		if wrong := file.clash(other); wrong != "" {
			l.problem(p.node, "%s %s, expected another file", quoted(string(p.val)), wrong)
			break
		}
	}
	l.written = append(l.written, file)
	if info, err := os.Stat(path); err == nil && info.IsDir() && p.node != nil {
		l.problem(p.node, "%s is a directory, expected the path of a file", quoted(string(p.val)))
	}
	return path
}

// resolve follows the symbolic links of as much of an absolute path as exists, also those to what does not exist yet: it would
// be made there.
func resolve(path string) string {
	for range maxLinks {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			return real
		}
		// Not filepath.Split or Dir: in a link's target `..` is the parent of where a link before it leads.
		i := strings.LastIndexByte(path, filepath.Separator)
		if i > 0 {
			path = filepath.Join(resolve(path[:i]), path[i+1:])
		}
		target, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Dir(path) + string(filepath.Separator) + target
		}
		path = target
	}
	return filepath.Clean(path)
}

// maxLinks is how many links one path may lead through, as for the system. Links in a circle end here.
const maxLinks = 40
