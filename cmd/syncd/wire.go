package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/config"
	"syncd/internal/delivery"
	"syncd/internal/event"
	"syncd/internal/poller"
	"syncd/internal/sink"
	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/wildberries"
	"syncd/internal/sources/yandexmarket"
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
	// pairs says that what a stream reads depends on which others of the account are
	// enabled: the source has to know.
	pairs bool
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
		open:  openYandexMarket,
		pairs: true,
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
var sinkTypes = map[config.SinkType]func(s config.Sink, stdout *sink.Stdout) (sink.Sink, error){
	config.TypeFile: func(s config.Sink, _ *sink.Stdout) (sink.Sink, error) {
		return sink.NewFile(sink.FileConfig{Path: s.File.Path, Rotate: sink.Rotate(s.File.Rotate), Sync: syncModes[s.File.Sync]})
	},
	config.TypeWebhook: func(s config.Sink, _ *sink.Stdout) (sink.Sink, error) {
		w := s.Webhook
		secrets := make([]string, len(w.Secrets))
		for i, secret := range w.Secrets {
			secrets[i] = secret.Reveal()
		}
		return sink.NewWebhook(sink.WebhookConfig{
			URL: w.URL, Secrets: secrets, Unsigned: len(secrets) == 0, Headers: w.Headers, Batch: w.Batch.MaxEvents > 1, RootCAs: w.CAs,
			Timeout: w.Timeout, Concurrency: w.Concurrency, UserAgent: userAgent(),
		})
	},
	config.TypeStdout: func(_ config.Sink, stdout *sink.Stdout) (sink.Sink, error) { return stdout, nil },
}

var syncModes = map[config.SyncMode]sink.SyncMode{
	config.SyncCommit: sink.SyncCommit, config.SyncInterval: sink.SyncInterval, config.SyncNone: sink.SyncNone,
}

// deliverySinks are the sinks of a configuration as delivery serves them. stdout serves
// all that are of this type.
func deliverySinks(cfg *config.Config, stdout *sink.Stdout) []delivery.Sink {
	var out []delivery.Sink
	for _, s := range cfg.Sinks {
		open := sinkTypes[s.Type]
		d := delivery.Sink{
			Name: s.Name, Type: string(s.Type), Key: s.Key(), Parallel: s.Type == config.TypeWebhook, Wants: s.Select.Match, FromBeginning: s.From == config.FromBeginning,
			Open: func() (sink.Sink, error) { return open(s, stdout) },
		}
		if w := s.Webhook; w != nil {
			d.RetryInitial, d.RetryMax, d.GiveUpAfter, d.MaxRefusals = w.Retry.Initial, w.Retry.Max, w.Retry.GiveUpAfter, w.Retry.MaxAttempts4xx
			d.Rate, d.BatchEvents, d.BatchWait = w.Rate, w.Batch.MaxEvents, w.Batch.MaxWait
		}
		out = append(out, d)
	}
	return out
}

// catalog tells the configuration what exists.
func catalog() config.Catalog {
	c := config.Catalog{CheckSchedule: func(expr string) error {
		_, err := poller.ParseSchedule(expr)
		return err
	}, EventTypes: []string{event.SchemaChanged}, OwnHeaders: sink.ReservedHeaders()}
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
