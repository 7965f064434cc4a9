package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/config"
	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/state"
)

// checkOnline tries each token with the cheapest requests that its API group has, paid from
// the budget of its seller: the running daemon's, or the state file's where none
// runs. Where neither can be had it tries nothing.
func (e *env) checkOnline(ctx context.Context, cfg *config.Config) error {
	ctx, stop := untilSignal(ctx)
	defer stop()
	d, err := e.daemon(cfg)
	if err == nil {
		var status statusAnswer
		err = d.call(ctx, http.MethodGet, "/api/v1/status", nil, &status)
		if err == nil {
			pinned := make(map[string]string)
			for _, a := range status.Accounts {
				pinned[a.Account] = a.Seller
			}
			return e.tryTokens(ctx, cfg, d.reserve, pinned)
		}
	}
	if !errors.Is(err, errNoDaemon) {
		return err
	}
	db, openErr := state.Open(state.Config{Path: cfg.State.Path})
	if openErr != nil {
		return fmt.Errorf("nothing was tried, since nothing knows the budget: %w", lockedBy(openErr, err))
	}
	defer db.Close()
	pinned, err := db.Sellers()
	if err != nil {
		return err
	}
	log, _ := newLogger(e.stderr, e.getenv, cfg.Log)
	budgets := apiclient.NewBudgets(db.Ledger(), log)
	return e.tryTokens(ctx, cfg, func(ctx context.Context, in budgetArgs) (func(leaseAnswer), error) {
		grant, err := reserve(ctx, budgets, in)
		if err != nil {
			return nil, err
		}
		return func(a leaseAnswer) { grant.Answered(a.answer()) }, nil
	}, pinned)
}

// reserver pays for one request from a seller's budget. done says what came of it. A
// budget that is spent is a *sources.Error of kind BudgetWait.
type reserver func(ctx context.Context, in budgetArgs) (done func(leaseAnswer), err error)

// budgetArgs ask the daemon for one request's worth of a seller's budget. With
// Lease they give back what became of it.
type budgetArgs struct {
	Marketplace string      `json:"marketplace,omitempty"`
	Seller      string      `json:"seller,omitempty"`
	Budget      string      `json:"budget,omitempty"`
	TokenType   int         `json:"token_type,omitempty"`
	Share       float64     `json:"share,omitempty"`
	Lease       uint64      `json:"lease,omitempty"`
	Answer      leaseAnswer `json:"answer,omitzero"`
}

// leaseAnswer is what came of a request that was paid for elsewhere. The zero value:
// nothing that matters.
type leaseAnswer struct {
	Left       *int      `json:"left,omitempty"`  // requests; absent: not said
	Limit      int       `json:"limit,omitempty"` // of a window
	Until      time.Time `json:"until,omitzero"`  // likewise
	Date       time.Time `json:"date,omitzero"`
	Throttled  bool      `json:"throttled,omitempty"`
	Parallel   bool      `json:"parallel,omitempty"`
	RetryAfter seconds   `json:"retry_after_seconds,omitempty"`
	Lost       bool      `json:"lost,omitempty"`
	Unsent     bool      `json:"unsent,omitempty"`
}

func leaseAnswerOf(a apiclient.Answer) leaseAnswer {
	out := leaseAnswer{Limit: a.Limit, Until: a.Until, Date: a.Date, Throttled: a.Throttled, Parallel: a.Parallel,
		RetryAfter: seconds(a.RetryAfter), Lost: a.Lost, Unsent: a.Unsent}
	if a.Remaining >= 0 {
		out.Left = &a.Remaining
	}
	return out
}

// longestRetry bounds what a lease can close a budget for.
const longestRetry = 7 * 24 * time.Hour

func (l leaseAnswer) answer() apiclient.Answer {
	a := apiclient.Answer{Remaining: -1, Limit: l.Limit, Until: l.Until, Date: l.Date, Throttled: l.Throttled, Parallel: l.Parallel,
		RetryAfter: min(max(time.Duration(l.RetryAfter), 0), longestRetry), Lost: l.Lost, Unsent: l.Unsent}
	if l.Left != nil {
		a.Remaining = max(*l.Left, 0)
	}
	return a
}

type budgetAnswer struct {
	Lease uint64    `json:"lease,omitempty"`
	Until time.Time `json:"until,omitzero"` // without a lease: not before
}

// budgetPatience is how long a check waits for a token that comes soon.
const budgetPatience = 10 * time.Second

// reserve pays from the budgets of the running daemon.
func (d *daemon) reserve(ctx context.Context, in budgetArgs) (done func(leaseAnswer), err error) {
	var out budgetAnswer
	if err := d.call(ctx, http.MethodPost, "/api/v1/check", in, &out); err != nil {
		return nil, err
	}
	if out.Lease == 0 {
		return nil, &sources.Error{Kind: sources.BudgetWait, Scope: sources.ScopeRequest, Endpoint: "budget", Until: out.Until, Err: errors.New("spent")}
	}
	return func(a leaseAnswer) {
		// Not heard, the daemon counts the request as answered when it must have been.
		_ = d.call(context.WithoutCancel(ctx), http.MethodPost, "/api/v1/check", budgetArgs{Lease: out.Lease, Answer: a}, &out)
	}, nil
}

// forgetful is a ledger for one request that was paid for elsewhere: a bucket that
// was never saved holds its one token at once, or within an interval.
type forgetful struct{}

func (forgetful) Load(string) ([]byte, bool, error) { return nil, false, nil }
func (forgetful) Save(string, []byte) error         { return nil }

// tryTokens prints what is known of each token and what the marketplace says.
func (e *env) tryTokens(ctx context.Context, cfg *config.Config, pay reserver, pinned map[string]string) error {
	t := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ACCOUNT\tAPI GROUP\tSELLER\tTOKEN\tSCOPES\tEXPIRES\tRESULT")
	left := false
	var more []string // that an account has to tell, behind the table
	for _, a := range cfg.Accounts {
		m, mixed := marketplaceOf(a), differentSellers(a)
		for _, group := range groupsOf(a) {
			facts, err := m.describe(a, group)
			if err != nil {
				return fmt.Errorf("account %s: %w", a.Name, err) // was checked with the configuration
			}
			var tried trial
			switch known := pinned[a.Name]; {
			case mixed:
				tried.result = "not tried: the account's tokens belong to different sellers: one account is one seller"
			case known != "" && known != facts.Seller:
				tried.result = fmt.Sprintf("not tried: the account belongs to seller %s since its first use: use a new account name", known)
			case !facts.Opens:
				tried.result, tried.good = "not tried: the token does not have this category", true
			default:
				if tried, err = e.tryToken(ctx, a, group, facts, pay); err != nil {
					return err
				}
			}
			left = left || !tried.good
			expires := "-"
			if !facts.Expires.IsZero() {
				expires = facts.Expires.Format(time.DateOnly)
			}
			scopes := cmp.Or(strings.Join(append(facts.Scopes, tried.said.Scopes...), ", "), "-")
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", a.Name, group, facts.Seller, facts.Type, scopes, expires, tried.result)
			for _, line := range tried.said.Lines {
				more = append(more, a.Name+": "+line)
			}
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(more) > 0 {
		fmt.Fprintf(e.stdout, "\n%s\n", strings.Join(more, "\n"))
	}
	if left {
		return errLeft
	}
	return nil
}

// trial is what came of trying a token.
type trial struct {
	result string
	good   bool
	said   sources.Report
}

// tryToken sends what it takes to try the token of an API group: a request from each
// of the budgets that the marketplace names, if it has one left. Its error is that the
// daemon gives none.
func (e *env) tryToken(ctx context.Context, a config.Account, group string, facts tokenFacts, pay reserver) (trial, error) {
	out := trial{result: "works", good: true}
	for _, budget := range marketplaceOf(a).probes(group) {
		report, err := e.probe(ctx, a, budget, facts, pay)
		if refusal, ok := errors.AsType[*refusedError](err); ok {
			return trial{}, refusal // the daemon's, and the same for all tokens
		}
		out.said.Scopes = append(out.said.Scopes, report.Scopes...)
		out.said.Lines = append(out.said.Lines, report.Lines...)
		if err == nil {
			continue
		}
		failed := sources.AsError(err)
		out.result, out.good = failed.Error(), false
		switch {
		case failed.Kind == sources.BudgetWait:
			out.result = "not tried, next at " + failed.Until.Local().Format("15:04")
		case failed.Hint != "":
			out.result += ": " + failed.Hint
		}
		return out, nil // a token that is refused is not tried again
	}
	return out, nil
}

// probe sends one request.
func (e *env) probe(ctx context.Context, a config.Account, budget string, facts tokenFacts, pay reserver) (sources.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, budgetPatience)
	defer cancel()
	// All that can fail without a request comes before anything is paid for.
	own := apiclient.NewBudgets(forgetful{}, discard)
	paid := a
	paid.BudgetShare = 1 // of a bucket that holds the one token
	var said leaseAnswer
	source, err := marketplaceOf(a).open(deps{
		log: discard, budgets: own, requests: apiclient.NewMetrics(prometheus.NewRegistry()), transport: apiclient.NewTransport(), grace: 30 * time.Second,
		told: func(a apiclient.Answer) { said = leaseAnswerOf(a) },
	}, paid)
	if err != nil {
		return sources.Report{}, err
	}
	done, err := pay(ctx, budgetArgs{Marketplace: a.Marketplace, Seller: facts.Seller, Budget: budget, TokenType: facts.TypeNumber, Share: a.BudgetShare})
	if err != nil {
		return sources.Report{}, err
	}
	report, err := source.(sources.Prober).Probe(ctx, budget)
	done(said)
	return report, err
}

// differentSellers says whether the tokens of an account belong to several sellers.
func differentSellers(a config.Account) bool {
	tokens := tokensOf(a)
	return slices.ContainsFunc(tokens, func(t token) bool { return t.seller != tokens[0].seller })
}
