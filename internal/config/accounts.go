package config

import (
	"reflect"
	"slices"
	"time"
)

// account takes over one account. A nil node was reported already.
func (l *loader) account(n *node) {
	if n == nil {
		l.incomplete = true
		return
	}
	d := l.decoder()
	if m := n.child("marketplace"); m != nil {
		d.market = l.catalog.marketplace(m.text)
	}
	own := n
	if d.market != nil && l.defaults[d.market.Name] != nil {
		n = merge(l.defaults[d.market.Name], n, reflect.TypeFor[accountEntry]())
	}
	var e accountEntry
	d.object(n, reflect.ValueOf(&e).Elem())
	if m := e.Marketplace; m.ok {
		d.supported(m.node, string(m.val))
	} else if m.node == nil {
		d.missing(n, "marketplace", oneOf(l.catalog.names()))
	}
	l.unique(l.accounts, &e.Name)
	l.incomplete = l.incomplete || !e.Name.ok
	l.streams(&e, own)

	a := Account{
		Name:        string(e.Name.val),
		Marketplace: string(e.Marketplace.val),
		Start:       e.Start.val,
		BudgetShare: float64(e.BudgetShare.val),
		Endpoints:   map[string]string{},
	}
	var check func(string) error
	if d.market != nil {
		check = d.market.CheckToken
	}
	tokens := func(r *secretReader) map[string]Secret {
		token, others := r.token(&e.TokenFile, &e.TokenEnv, check), map[string]Secret{}
		for _, t := range e.Tokens.entries {
			others[t.node.label] = r.token(&t.val.File, &t.val.Env, check)
		}
		if d.market == nil {
			return nil
		}
		all := map[string]Secret{}
		for _, g := range d.market.Groups {
			all[g.Name] = token
			if t, ok := others[g.Name]; ok {
				all[g.Name] = t
			}
		}
		return all
	}
	if d.market == nil {
		tokens(&l.secrets) // for what is wrong with them; the marketplace was reported
		return
	}
	for _, g := range d.market.Groups {
		a.Endpoints[g.Name] = g.DefaultURL
		if u := e.Endpoints.get(g.Name); u != nil {
			a.Endpoints[g.Name] = string(u.val)
		}
	}
	a.BusinessID = int64(e.BusinessID.val)
	for _, id := range e.Campaigns.values() {
		a.Campaigns = append(a.Campaigns, int64(id))
	}
	enabled := false
	for _, s := range d.market.Streams {
		settings := d.streamSettings(s, e.Streams.get(s.Name))
		a.Streams = append(a.Streams, settings)
		enabled = enabled || settings.Enabled
	}
	if !enabled {
		l.warn(n, "no stream is enabled: nothing of this account is polled")
	}
	i := len(l.config.Accounts)
	l.config.Accounts = append(l.config.Accounts, a)
	l.fill(func(r *secretReader, c *Config) {
		before := r.reported
		if all := tokens(r); r.reported == before {
			c.Accounts[i].Tokens = all
		}
	})
}

// streams checks what takes a look at the catalogue or at several keys. Own is the account as its file has it, nil for an
// entry of `defaults`.
func (l *loader) streams(e *accountEntry, own *node) {
	for _, s := range e.Streams.entries {
		l.schedule(&s.val.Schedule)
		l.sweep(&s.val.Sweep, own)
	}
}

func (l *loader) schedule(s *opt[text]) {
	if s.node == nil || !s.ok || l.catalog.CheckSchedule == nil {
		return
	}
	if err := l.catalog.CheckSchedule(string(s.val)); err != nil {
		l.problem(s.node, "%s is not a schedule (%s), expected a cron expression or one such as @every 15s",
			quoted(string(s.val)), clip(err.Error()))
	}
}

// sweep checks that a full reading is not more frequent than the cheap one. Of an account the problem stands where its own
// key is, if it has one: what it inherits may be right by itself.
func (l *loader) sweep(e *sweepEntry, own *node) {
	if !e.Every.ok || !e.Full.ok || e.Every.val <= e.Full.val {
		return
	}
	n := e.Full.node
	switch {
	case own == nil && (n == nil || e.Every.node == nil):
		return // `defaults` need not be complete: each account may still say the other half
	case n == nil, e.Every.node.isIn(own) && !n.isIn(own):
		n = e.Every.node
	}
	l.problem(n, "sweep.full (%s) is less than sweep.every (%s), expected at least as much",
		formatDuration(time.Duration(e.Full.val)), formatDuration(time.Duration(e.Every.val)))
}

// streamSettings takes over what an account says about a stream. A nil e is nothing.
func (d *decoder) streamSettings(s Stream, e *streamEntry) StreamSettings {
	if e == nil {
		e = &streamEntry{}
		d.object(nil, reflect.ValueOf(e).Elem()) // the defaults
	}
	settings := StreamSettings{Name: s.Name, Enabled: !s.Off, Schedule: s.Schedule, Overlap: s.Overlap}
	if e.Enabled.ok {
		settings.Enabled = bool(e.Enabled.val)
	}
	if e.Schedule.ok {
		settings.Schedule = string(e.Schedule.val)
	}
	if e.Overlap.ok {
		settings.Overlap = time.Duration(e.Overlap.val)
	}
	if s.Sweeps {
		sweep := &e.Sweep
		settings.Sweep = Sweep{
			Every: time.Duration(sweep.Every.val), Full: time.Duration(sweep.Full.val), Window: time.Duration(sweep.Window.val),
		}
	}
	for _, field := range e.Ignore.values() {
		settings.Ignore = append(settings.Ignore, string(field))
	}
	slices.Sort(settings.Ignore)
	return settings
}
