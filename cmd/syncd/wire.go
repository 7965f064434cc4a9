package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"syncd/internal/clock"
	"syncd/internal/config"
	"syncd/internal/delivery"
	"syncd/internal/event"
	"syncd/internal/poller"
	"syncd/internal/sink"
	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/wildberries"
	"syncd/internal/sources/yandexmarket"
	"syncd/internal/state"
	"syncd/internal/web"
)

// marketplace is one row of the table of marketplaces: to add one, write its
// package and add a row.
type marketplace struct {
	name       string
	keys       []string          // of an account, that other marketplaces do not have
	groups     map[string]string // API groups and their addresses
	streams    []sources.Stream
	checkToken func(token string) error
	describe   func(a config.Account, group string) (tokenFacts, error)
	// probes are the budgets from which `check --online` pays the requests by which it
	// tries the token of an API group, one each. reserve takes one request's worth of one.
	probes  func(group string) []string
	reserve func(ctx context.Context, budgets *apiclient.Budgets, in budgetArgs) (*apiclient.Grant, error)
	open    func(d deps, a config.Account) (sources.Source, error)
}

// tokenFacts are what a token says about itself and an API group.
type tokenFacts struct {
	Seller     string
	Type       string
	TypeNumber int
	Scopes     []string      // the categories it opens, by name
	Opens      bool          // the group is one of them
	Expires    time.Time     // zero: it does not say
	Interval   time.Duration // between requests of the group once the burst is spent
}

var marketplaces = []marketplace{
	{
		name: wildberries.Marketplace, groups: wildberries.Groups(), streams: wildberries.Streams(),
		checkToken: func(token string) error {
			_, err := wildberries.ParseToken(token)
			return err
		},
		describe: func(a config.Account, group string) (tokenFacts, error) {
			t, err := wildberries.ParseToken(a.Tokens[group].Reveal())
			if err != nil {
				return tokenFacts{}, err
			}
			return tokenFacts{Seller: t.Seller, Type: t.Type.String(), TypeNumber: int(t.Type), Scopes: t.Categories(), Opens: t.Opens(group),
				Expires: t.Expires, Interval: t.Interval(group)}, nil
		},
		probes: func(group string) []string { return []string{group} },
		reserve: func(ctx context.Context, budgets *apiclient.Budgets, in budgetArgs) (*apiclient.Grant, error) {
			if _, known := wildberries.Groups()[in.Budget]; !known {
				return nil, errNoBudget
			}
			limit, class := wildberries.Limit(wildberries.TokenType(in.TokenType), in.Budget)
			key := apiclient.Key{Marketplace: wildberries.Marketplace, Seller: in.Seller, Group: in.Budget, Class: class}
			return budgets.Reserve(ctx, key, limit, in.Share, checkFlow)
		},
		open: openWildberries,
	},
	{
		name: yandexmarket.Marketplace, keys: []string{"business_id", "campaigns"}, groups: yandexmarket.Groups(), streams: yandexmarket.Streams(),
		describe: func(a config.Account, _ string) (tokenFacts, error) {
			return tokenFacts{Seller: strconv.FormatInt(a.BusinessID, 10), Type: "Api-Key", Opens: true}, nil
		},
		probes: func(string) []string { return yandexmarket.Probes() },
		reserve: func(ctx context.Context, budgets *apiclient.Budgets, in budgetArgs) (*apiclient.Grant, error) {
			business, err := strconv.ParseInt(in.Seller, 10, 64)
			if err != nil || !slices.Contains(yandexmarket.Probes(), in.Budget) {
				return nil, errNoBudget
			}
			key, limit := yandexmarket.BudgetKey(business, in.Budget)
			return budgets.ReserveWindow(ctx, key, limit, in.Share, checkFlow)
		},
		open: openYandexMarket,
	},
}

// checkFlow is how requests of `check --online` are called where they wait for a
// budget, and errNoBudget says that there is none of the name that was asked for.
const checkFlow = "check"

var errNoBudget = errors.New("there is no such budget")

// findMarketplace is the row of a marketplace by its name.
func findMarketplace(name string) (marketplace, bool) {
	i := slices.IndexFunc(marketplaces, func(m marketplace) bool { return m.name == name })
	if i < 0 {
		return marketplace{}, false
	}
	return marketplaces[i], true
}

// marketplaceOf is the row of an account's marketplace. The configuration knows no
// others than the table has.
func marketplaceOf(a config.Account) marketplace {
	return marketplaces[slices.IndexFunc(marketplaces, func(m marketplace) bool { return m.name == a.Marketplace })]
}

// sinkTypes is the table of sinks.
var sinkTypes = map[config.SinkType]func(s config.Sink, stdout io.Writer) (sink.Sink, error){
	config.TypeFile: func(s config.Sink, _ io.Writer) (sink.Sink, error) {
		return sink.NewFile(sink.FileConfig{Path: s.File.Path})
	},
	config.TypeWebhook: func(s config.Sink, _ io.Writer) (sink.Sink, error) {
		secrets := make([]string, len(s.Webhook.Secrets))
		for i, secret := range s.Webhook.Secrets {
			secrets[i] = secret.Reveal()
		}
		return sink.NewWebhook(sink.WebhookConfig{
			URL: s.Webhook.URL, Secrets: secrets, Unsigned: len(secrets) == 0, Headers: s.Webhook.Headers,
			Timeout: s.Webhook.Timeout, Concurrency: s.Webhook.Concurrency, UserAgent: userAgent(),
		})
	},
	config.TypeStdout: func(_ config.Sink, stdout io.Writer) (sink.Sink, error) { return sink.NewStdout(stdout), nil },
}

// catalog tells the configuration what exists.
func catalog() config.Catalog {
	c := config.Catalog{CheckSchedule: func(expr string) error {
		_, err := poller.ParseSchedule(expr)
		return err
	}, EventTypes: []string{event.SchemaChanged}}
	for _, m := range marketplaces {
		cm := config.Marketplace{Name: m.name, Keys: m.keys, CheckToken: m.checkToken}
		for name, url := range m.groups {
			cm.Groups = append(cm.Groups, config.Group{Name: name, DefaultURL: url})
		}
		slices.SortFunc(cm.Groups, func(a, b config.Group) int { return strings.Compare(a.Name, b.Name) })
		for _, s := range m.streams {
			cs := config.Stream{Name: s.Name, Schedule: s.Schedule, Overlap: s.Overlap, Off: s.Off, Sweeps: slices.Contains(s.Actions, event.Updated)}
			for _, kind := range s.Kinds {
				for _, action := range s.Actions {
					cs.EventTypes = append(cs.EventTypes, m.name+"."+kind+"."+action)
				}
			}
			cm.Streams = append(cm.Streams, cs)
		}
		c.Marketplaces = append(c.Marketplaces, cm)
	}
	return c
}

// deps is what sources share.
type deps struct {
	log       *slog.Logger
	budgets   *apiclient.Budgets
	requests  *apiclient.Metrics
	transport http.RoundTripper
	expiry    *prometheus.GaugeVec
	grace     time.Duration
	heard     func(date time.Time)     // nil: nobody watches the clock
	told      func(a apiclient.Answer) // nil: who sends requests pays for them too
}

func openWildberries(d deps, a config.Account) (sources.Source, error) {
	tokens := make(map[string]string)
	for group, secret := range a.Tokens {
		tokens[group] = secret.Reveal()
	}
	c, err := wildberries.New(wildberries.Config{
		Account: a.Name, Tokens: tokens, Endpoints: a.Endpoints, BudgetShare: a.BudgetShare,
		Budgets: d.budgets, Metrics: d.requests, Transport: d.transport, UserAgent: userAgent(), Grace: d.grace, Heard: d.heard, Told: d.told,
	})
	if err != nil {
		return nil, err
	}
	for group := range a.Tokens {
		if t := c.Token(group); d.expiry != nil && !t.Expires.IsZero() {
			d.expiry.WithLabelValues(a.Name, group).Set(float64(t.Expires.Unix()))
		}
	}
	return c, nil
}

func openYandexMarket(d deps, a config.Account) (sources.Source, error) {
	var streams []string
	for _, s := range a.Streams {
		if s.Enabled {
			streams = append(streams, s.Name)
		}
	}
	return yandexmarket.New(yandexmarket.Config{
		Account: a.Name, Business: a.BusinessID, Campaigns: a.Campaigns, Token: a.Tokens[yandexmarket.GroupAPI].Reveal(),
		Endpoint: a.Endpoints[yandexmarket.GroupAPI], Streams: streams, BudgetShare: a.BudgetShare,
		Budgets: d.budgets, Metrics: d.requests, Transport: d.transport, UserAgent: userAgent(), Grace: d.grace, Heard: d.heard, Told: d.told,
	})
}

// opener is a source that knows, without a request, which API groups its tokens
// do not open.
type opener interface {
	Opens(group string) bool
}

// app is syncd put together.
type app struct {
	cfg      *config.Config
	log      *slog.Logger
	registry *prometheus.Registry
	db       *state.DB
	clock    *clock.Watch
	budgets  *apiclient.Budgets
	poller   *poller.Poller
	delivery *delivery.Delivery
	streams  int     // that are polled
	stopped  []error // accounts that cannot be polled, and why
	sinks    []sink.Sink
	started  time.Time
}

// build puts syncd together: it opens the state and sends nothing. extra are
// sinks beside the configured ones; shown says that somebody shows how far it is. Close the app when done.
func build(cfg *config.Config, log *slog.Logger, stdout io.Writer, shown bool, extra ...delivery.Sink) (_ *app, err error) {
	a := &app{cfg: cfg, log: log, registry: prometheus.NewRegistry(), started: time.Now()}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	commit := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "syncd_state_commit_seconds",
		Help: "Duration of a transaction of the state file, fsync included.", Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .5, 1, 5}})
	a.registry.MustRegister(commit)
	a.db, err = state.Open(state.Config{Path: cfg.State.Path, Observe: func(d time.Duration) { commit.Observe(d.Seconds()) }})
	if err != nil {
		return nil, err
	}
	if a.db.Restored() {
		log.Warn("the state file is a backup, opened for the first time: budgets start empty, sequences go on behind all that the original can have used, "+
			"files are only appended to, and what was emitted since the backup is emitted again", "state", cfg.State.Path)
	}
	a.clock = clock.New(clock.Config{LastCommit: a.db.LastCommit(), Log: log})
	expiry := a.serviceMetrics()
	// Requests and deliveries in flight at a shutdown get most of the time that
	// there is; the rest is for their commits.
	grace := cfg.ShutdownTimeout * 8 / 10
	d := deps{
		log: log, budgets: apiclient.NewBudgets(a.db.Ledger(), log), requests: apiclient.NewMetrics(a.registry),
		transport: apiclient.NewTransport(), expiry: expiry, grace: grace, heard: a.clock.Heard,
	}
	a.budgets = d.budgets
	a.registry.MustRegister(a.budgets)

	streams, stopped := openStreams(cfg, d)
	a.stopped = stopped
	if a.streams = len(streams); a.streams == 0 {
		log.Warn(noStreams)
	}
	a.poller, err = poller.New(poller.Config{DB: a.db, Log: log, Metrics: poller.NewMetrics(a.registry), Streams: streams, Shown: shown, Trusted: a.clock.Trusted})
	if err != nil {
		return nil, err
	}
	if err := a.warnOfLeftSinks(); err != nil {
		return nil, err
	}
	sinks, err := a.openSinks(stdout)
	if err != nil {
		return nil, err
	}
	a.delivery, err = delivery.New(delivery.Config{DB: a.db, Log: log, Metrics: delivery.NewMetrics(a.registry), Grace: grace, Sinks: append(sinks, extra...)})
	if err != nil {
		return nil, err
	}
	return a, nil
}

// openStreams opens the sources of all accounts and lists the streams that they
// can poll. What a token does not open is left out with a word, and so is an
// account that cannot be opened: the others go on.
func openStreams(cfg *config.Config, d deps) (out []poller.Stream, stopped []error) {
	for _, account := range cfg.Accounts {
		m := marketplaceOf(account)
		source, err := m.open(d, account)
		if err != nil {
			d.log.Error("account stopped", "account", account.Name, "err", err)
			stopped = append(stopped, err)
			continue
		}
		start := startOf(account.Start)
		for _, s := range account.Streams {
			if !s.Enabled {
				continue
			}
			spec := m.streams[slices.IndexFunc(m.streams, func(known sources.Stream) bool { return known.Name == s.Name })]
			if o, ok := source.(opener); ok && !o.Opens(spec.Group) {
				d.log.Warn("stream is off: the token does not have its category",
					"account", account.Name, "stream", s.Name, "category", spec.Group, "token", account.Tokens[spec.Group].Source())
				continue
			}
			out = append(out, poller.Stream{
				ID: state.StreamID{Account: account.Name, Stream: s.Name}, Marketplace: m.name, Group: spec.Group, Source: source,
				Schedule: s.Schedule, Overlap: s.Overlap, Start: start, Walks: spec.Walks, Whole: spec.Whole, Vanish: spec.Vanish,
				Lookup: spec.Lookup, Driver: spec.Driver,
				Sweep: poller.Sweep(s.Sweep), Ignore: s.Ignore,
			})
		}
	}
	return out, stopped
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

// warnOfLeftSinks tells of sinks that are no longer configured and hold events all
// the same: without dead letters there is nowhere else for them to go, and the
// state file grows.
func (a *app) warnOfLeftSinks() error {
	names, err := a.db.Sinks()
	if err != nil {
		return err
	}
	for _, name := range names {
		if slices.ContainsFunc(a.cfg.Sinks, func(s config.Sink) bool { return s.Name == name }) {
			continue
		}
		backlog, err := a.db.Backlog(name)
		if err != nil {
			return err
		}
		a.log.Warn("a sink that is no longer configured keeps its events from being deleted: configure it again until it has them",
			"sink", name, "waiting", backlog.Events)
	}
	return nil
}

func (a *app) openSinks(stdout io.Writer) ([]delivery.Sink, error) {
	var out []delivery.Sink
	for _, s := range a.cfg.Sinks {
		opened, err := sinkTypes[s.Type](s, stdout)
		if err != nil {
			return nil, fmt.Errorf("sink %s: %w", s.Name, err)
		}
		a.sinks = append(a.sinks, opened)
		d := delivery.Sink{Name: s.Name, Type: string(s.Type), Sink: opened, Wants: s.Select.Match, FromBeginning: s.From == config.FromBeginning}
		if s.Webhook != nil {
			d.RetryInitial, d.RetryMax = s.Webhook.Retry.Initial, s.Webhook.Retry.Max
		}
		out = append(out, d)
	}
	return out, nil
}

// serviceMetrics registers what belongs to no package, and returns the gauge of
// the tokens' expiry.
func (a *app) serviceMetrics() *prometheus.GaugeVec {
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "syncd_build_info", Help: "1; the labels say what is running."}, []string{"version", "goversion"})
	v := version()
	build.WithLabelValues(v.version, v.goVersion).Set(1)
	size := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "syncd_state_size_bytes", Help: "Size of the state file."},
		func() float64 { return float64(a.db.Size()) })
	reload := prometheus.NewGauge(prometheus.GaugeOpts{Name: "syncd_config_last_reload_successful", Help: "1 if the configuration that was last read is in force, 0 if it was refused."})
	reload.Set(1)
	expiry := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "syncd_token_expiry_timestamp_seconds", Help: "When the token of an API group expires."}, []string{"account", "group"})
	a.registry.MustRegister(build, size, reload, expiry, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return expiry
}

// close closes the sinks and the state. Nothing may be running.
func (a *app) close() error {
	var errs []error
	for _, s := range a.sinks {
		errs = append(errs, s.Close())
	}
	if a.db != nil {
		errs = append(errs, a.db.Close())
	}
	return errors.Join(errs...)
}

// errSlowShutdown says that something did not stop in time.
var errSlowShutdown = errors.New("not everything stopped within shutdown_timeout; what was not committed is done again at the next start")

// serve runs the poller, the sinks, retention and the server until ctx ends or
// one of them fails, and then waits for them as long as shutdown_timeout allows.
func (a *app) serve(ctx context.Context, server *web.Server) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.poller.Run(ctx) })
	g.Go(func() error { // an idle poller writes nothing: a sink may be the first to find out
		select {
		case <-a.db.Broken():
			return state.ErrBroken
		case <-ctx.Done():
			return nil
		}
	})
	g.Go(func() error {
		a.budgets.Run(ctx)
		return nil
	})
	g.Go(func() error {
		a.delivery.Run(ctx)
		return nil
	})
	g.Go(func() error {
		a.retain(ctx)
		return nil
	})
	g.Go(func() error {
		var tokens []token
		for _, account := range a.cfg.Accounts {
			tokens = append(tokens, tokensOf(account)...)
		}
		watchExpiry(ctx, a.log, tokens)
		return nil
	})
	if server != nil {
		g.Go(func() error { return server.Run(ctx) })
	}
	done := make(chan error, 1)
	go func() { done <- g.Wait() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	timer := time.NewTimer(a.cfg.ShutdownTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return errSlowShutdown
	}
}

// retain deletes old events now and then, as long as the clock that says how old
// they are can be believed.
func (a *app) retain(ctx context.Context) {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		if !a.clock.Trusted() {
			// The clock has told, and a marketplace's answer will end it.
		} else if n, err := a.db.Retain(ctx, time.Now().Add(-a.cfg.State.KeepEvents)); err != nil {
			a.log.Error("old events could not be deleted, trying again", "err", err)
		} else if n > 0 {
			a.log.Info("deleted old events", "events", n, "older_than", a.cfg.State.KeepEvents)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ready says why syncd is not ready, and what else an operator should know. An
// account that is stopped does not make it unready: the others go on, and a
// restart would not mend it.
func (a *app) ready() (notes []string, err error) {
	if !a.poller.Scheduled() {
		return nil, errors.New("the streams have not been scheduled yet")
	}
	for _, err := range slices.Concat(a.stopped, slices.Collect(maps.Values(a.poller.Stopped()))) {
		notes = append(notes, "stopped: "+err.Error())
	}
	slices.Sort(notes)
	if doubt := a.clock.Doubt(); doubt != "" {
		notes = append(notes, "nothing is deleted by age: "+doubt)
	}
	return notes, nil
}
