package main

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/config"
	"syncd/internal/poller"
	"syncd/internal/sources"
	"syncd/internal/state"
)

// account is one that has been opened.
type account struct {
	key    string // of all that its source was made of
	source sources.Source
	opened time.Time
}

// sourceKey differs when anything does that an account's source is made of: not when
// the streams that are read from it are read otherwise.
func sourceKey(a config.Account) string {
	a.Start = config.Start{}
	var enabled []config.StreamSettings
	for _, s := range a.Streams {
		if s.Enabled && marketplaceOf(a).pairs {
			enabled = append(enabled, config.StreamSettings{Name: s.Name})
		}
	}
	a.Streams = enabled
	return a.Key()
}

// openAccounts opens the accounts of a configuration, and lists the streams that they
// can poll. One that is open already, and of which nothing has changed that its source
// is made of, keeps it. What a token does not open is left out with a word, and so is
// an account that cannot be opened: the others go on.
func openAccounts(cfg *config.Config, d deps, was map[string]account) (accounts map[string]account, streams []poller.Stream, stopped []error) {
	accounts = make(map[string]account)
	for _, a := range cfg.Accounts {
		m := marketplaceOf(a)
		now := account{key: sourceKey(a), opened: time.Now()}
		if old, ok := was[a.Name]; ok && old.key == now.key {
			now = old
		} else {
			if d.expiry != nil { // another token may say less
				d.expiry.DeletePartialMatch(prometheus.Labels{"account": a.Name})
			}
			var err error
			if now.source, err = m.open(d, a); err != nil {
				d.log.Error("account stopped", "account", a.Name, "err", err)
				stopped = append(stopped, err)
				continue
			}
		}
		accounts[a.Name] = now
		start := startOf(a.Start)
		for _, s := range a.Streams {
			if !s.Enabled {
				continue
			}
			spec := m.streams[slices.IndexFunc(m.streams, func(known sources.Stream) bool { return known.Name == s.Name })]
			if o, ok := now.source.(opener); ok && !o.Opens(spec.Group) {
				d.log.Warn("stream is off: the token does not have its category",
					"account", a.Name, "stream", s.Name, "category", spec.Group, "token", a.Tokens[spec.Group].Source())
				continue
			}
			streams = append(streams, poller.Stream{
				ID: state.StreamID{Account: a.Name, Stream: s.Name}, Marketplace: m.name, Group: spec.Group, Source: now.source,
				Schedule: s.Schedule, Overlap: s.Overlap, Start: start, Walks: spec.Walks, Whole: spec.Whole, Vanish: spec.Vanish,
				Lookup: spec.Lookup, Driver: spec.Driver,
				Sweep: poller.Sweep(s.Sweep), Ignore: s.Ignore,
			})
		}
	}
	if len(streams) == 0 {
		d.log.Warn(noStreams)
	}
	return accounts, streams, stopped
}

const noStreams = "no stream is polled: every one is off, or no token has its category"

// startOf is what poller.Stream.Start says: nil is the account's first poll, zero
// the beginning.
func startOf(s config.Start) *time.Time {
	switch s.Kind {
	case config.StartBeginning, config.StartAt:
		return &s.Time
	}
	return nil
}
