package config

import (
	"reflect"
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
	if d.market != nil && d.market.Later {
		d.market = nil
	}
	if d.market != nil && l.defaults[d.market.Name] != nil {
		n = merge(l.defaults[d.market.Name], n, reflect.TypeFor[accountEntry]())
	}
	var e accountEntry
	d.object(n, reflect.ValueOf(&e).Elem())
	if m := e.Marketplace; m.ok {
		d.supported(m.node, string(m.val))
	} else if m.node == nil {
		d.missing(n, "marketplace", oneOf(l.catalog.supported()))
	}
	l.unique(l.accounts, &e.Name)
	l.incomplete = l.incomplete || !e.Name.ok
	l.schedules(&e)

	a := Account{
		Name:        string(e.Name.val),
		Marketplace: string(e.Marketplace.val),
		Tokens:      map[string]Secret{},
		Start:       e.Start.val,
		BudgetShare: float64(e.BudgetShare.val),
		Endpoints:   map[string]string{},
	}
	var check func(string) error
	if d.market != nil {
		check = d.market.CheckToken
	}
	token := l.secrets.token(&e.TokenFile, &e.TokenEnv, check)
	own := map[string]Secret{}
	for _, t := range e.Tokens.entries {
		own[t.node.label] = l.secrets.token(&t.val.File, &t.val.Env, check)
	}
	if d.market == nil {
		return // reported
	}
	for _, g := range d.market.Groups {
		a.Tokens[g.Name], a.Endpoints[g.Name] = token, g.DefaultURL
		if t, ok := own[g.Name]; ok {
			a.Tokens[g.Name] = t
		}
		if u := e.Endpoints.get(g.Name); u != nil {
			a.Endpoints[g.Name] = string(u.val)
		}
	}
	enabled := false
	for _, s := range d.market.Streams {
		if !s.Later {
			settings := streamSettings(s, e.Streams.get(s.Name))
			a.Streams = append(a.Streams, settings)
			enabled = enabled || settings.Enabled
		}
	}
	if !enabled {
		l.warn(n, "no stream is enabled: nothing of this account is polled")
	}
	l.config.Accounts = append(l.config.Accounts, a)
}

// schedules checks what only the catalogue can judge.
func (l *loader) schedules(e *accountEntry) {
	for _, s := range e.Streams.entries {
		schedule := s.val.Schedule
		if schedule.node == nil || !schedule.ok || l.catalog.CheckSchedule == nil {
			continue
		}
		if err := l.catalog.CheckSchedule(string(schedule.val)); err != nil {
			l.problem(schedule.node, "%s is not a schedule (%s), expected a cron expression or one such as @every 15s",
				quoted(string(schedule.val)), clip(err.Error()))
		}
	}
}

func streamSettings(s Stream, e *streamEntry) StreamSettings {
	settings := StreamSettings{Name: s.Name, Enabled: !s.Off, Schedule: s.Schedule, Overlap: s.Overlap}
	if e == nil {
		return settings
	}
	if e.Enabled.ok {
		settings.Enabled = bool(e.Enabled.val)
	}
	if e.Schedule.ok {
		settings.Schedule = string(e.Schedule.val)
	}
	if e.Overlap.ok {
		settings.Overlap = time.Duration(e.Overlap.val)
	}
	return settings
}
