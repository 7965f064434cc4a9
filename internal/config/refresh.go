package config

import (
	"os"
	"sync"
	"time"
)

// secretFiles is how the files of secrets that a configuration names are read again.
type secretFiles struct {
	getenv func(string) string
	dir    string
	// reads puts what the files hold into a configuration, key by key, and leaves it alone where one of a key's files is wrong.
	reads []func(*secretReader, *Config)

	mu     sync.Mutex
	stamps map[string]stamp // by the name that the configuration gives; those of the content that it holds
}

// stamp tells without reading whether a file is still the one that was read.
type stamp struct {
	// info is nil where there was no file. It is that of the file behind symbolic links: one that leads elsewhere shows.
	info os.FileInfo
	// settled says that the file was older than its modification time can be wrong by: had it changed since, the time would tell.
	settled bool
}

// coarse is more than the steps in which any file system in use counts modification times.
const coarse = 5 * time.Second

// stampOf has to be taken before the file is read: a change in between then shows the next time.
func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{info: info, settled: time.Since(info.ModTime()) > coarse}
}

// same reports whether nothing has happened to the file since old.
func (s stamp) same(old stamp) bool {
	return old.settled && os.SameFile(s.info, old.info) &&
		s.info.Size() == old.info.Size() && s.info.ModTime().Equal(old.info.ModTime())
}

// Refresh reads the secret files of the configuration again, and not the configuration itself: tokens, signing secrets, CA
// certificates and the API's token, each looked for and checked as by Load. It returns the configuration with what they hold now,
// and what that changes, as in "account shop-a", "sink crm" and "server.api_token_file". Where nothing has changed it returns c
// itself, and has as a rule read no file. The error is an *Errors that names every file that is missing or wrong: an account, a
// sink or a server with such a file keeps what it had, and beside the error the others have what their files hold now. Warnings
// stay those of Load.
//
// It may be called concurrently. A configuration that Load did not make has no files.
func (c *Config) Refresh() (fresh *Config, changed []string, err error) {
	f := c.secrets
	if f == nil {
		return c, nil, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	r := &secretReader{report: newReport(), getenv: f.getenv, dir: f.dir, stamps: map[string]stamp{}}
	if f.still(r) {
		return c, nil, nil
	}
	next := *c
	next.Accounts = append([]Account(nil), c.Accounts...)
	next.Sinks = append([]Sink(nil), c.Sinks...)
	for i, s := range next.Sinks {
		if s.Webhook != nil {
			webhook := *s.Webhook
			next.Sinks[i].Webhook = &webhook
		}
	}
	for _, read := range f.reads {
		read(r, &next)
	}
	if len(r.problems) > 0 {
		err = &Errors{Problems: r.problems.sorted()}
		for name := range r.stamps { // all are read again until all are right
			r.stamps[name] = stamp{}
		}
	}
	for i, a := range next.Accounts {
		if a.Key() != c.Accounts[i].Key() {
			changed = append(changed, "account "+a.Name)
		}
	}
	for i, s := range next.Sinks {
		if s.Key() != c.Sinks[i].Key() {
			changed = append(changed, "sink "+s.Name)
		}
	}
	if next.Server.APIToken.Reveal() != c.Server.APIToken.Reveal() {
		changed = append(changed, "server.api_token_file")
	}
	if changed == nil {
		if err == nil {
			f.stamps = r.stamps // the same content in other files
		}
		return c, nil, err
	}
	next.secrets = &secretFiles{getenv: f.getenv, dir: f.dir, reads: f.reads, stamps: r.stamps}
	return &next, changed, err
}

// still reports whether every file is the one that was read.
func (f *secretFiles) still(r *secretReader) bool {
	for name, old := range f.stamps {
		path, _ := r.locate(name)
		if !stampOf(path).same(old) {
			return false
		}
	}
	return true
}
