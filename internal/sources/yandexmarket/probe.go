package yandexmarket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/listing"
)

// probeStream is what metrics call the requests of Probe.
const probeStream = "check"

var _ sources.Prober = (*Client)(nil)

// Probes returns the budgets from which Probe pays, in the order in which they are of
// use: "token" for the name of the key and its scopes (100 calls an hour), "campaigns"
// for the business and its stores (1,000).
func Probes() []string { return []string{getToken.name, getCampaigns.name} }

// BudgetKey names a budget of a business for who pays beside its accounts, with what
// is documented of it. The budget is one of Probes.
func BudgetKey(business int64, budget string) (apiclient.Key, apiclient.WindowLimit) {
	m := getCampaigns
	if budget == getToken.name {
		m = getToken
	}
	return apiclient.Key{Marketplace: Marketplace, Seller: strconv.FormatInt(business, 10), Group: m.budget(0)}, apiclient.WindowLimit{Calls: m.calls, Period: time.Hour}
}

// Probe implements sources.Prober; budget is one of Probes. A key of another business
// is sources.Forbidden.
func (c *Client) Probe(ctx context.Context, budget string) (sources.Report, error) {
	switch budget {
	case getToken.name:
		return c.probeToken(ctx)
	case getCampaigns.name:
		return c.probeCampaigns(ctx)
	}
	return sources.Report{}, fmt.Errorf("yandex_market pays no probe from a budget %q", budget)
}

// maxProbe bounds the bytes of an answer about the key.
const maxProbe = 1 << 20

// maxScopes bounds the scopes that are shown: 14 are documented.
const maxScopes = 50

func (c *Client) probeToken(ctx context.Context) (sources.Report, error) {
	q := sources.Query{Stream: probeStream, Walk: sources.News}
	r, err := c.request(q, getToken, 0)
	if err != nil {
		return sources.Report{}, err
	}
	var out sources.Report
	r.Read = func(body io.Reader, _ time.Time) error {
		var f listing.Fields
		if err := json.NewDecoder(io.LimitReader(body, maxProbe)).Decode(&f); err != nil {
			return fmt.Errorf("the answer is not the documented JSON: %w", err)
		}
		key := listing.Object(listing.Object(f["result"])["apiKey"])
		if key == nil {
			return fmt.Errorf("the answer tells nothing of a key: its status is %.100q: %.200s", f.Text("status"), f["errors"])
		}
		if name := words(key.Text("name")); name != "" {
			out.Lines = append(out.Lines, "the key's name is "+name)
		}
		var scopes []string
		if json.Unmarshal(key["authScopes"], &scopes) != nil || len(scopes) == 0 {
			return errors.New("the answer does not say what the key opens")
		}
		for _, s := range scopes[:min(len(scopes), maxScopes)] {
			out.Scopes = append(out.Scopes, scopeName(s))
		}
		for _, s := range Streams() {
			if c.polls(s.Name) && !opens(scopes, s.Name) {
				out.Lines = append(out.Lines, fmt.Sprintf("%s: not opened by the key: it needs %s", s.Name, needs(s.Name)))
			}
		}
		return nil
	}
	if _, err := c.api.Do(ctx, r); err != nil {
		return sources.Report{}, err
	}
	return out, nil
}

// scopeName is a scope as the documentation spells it: ALL_METHODS_READ_ONLY is
// all-methods:read-only.
func scopeName(s string) string {
	s, readOnly := strings.CutSuffix(words(s), "_READ_ONLY")
	if s = strings.ReplaceAll(strings.ToLower(s), "_", "-"); readOnly {
		s += ":read-only"
	}
	return s
}

const (
	scopeCommunication = "COMMUNICATION"
	scopeOrders        = "INVENTORY_AND_ORDER_PROCESSING"
	scopeAll           = "ALL_METHODS"
)

// scopeOf is the scope that opens a stream, beside the one that opens everything
// (OpenAPI document, security of the methods). Either may be read-only, where there is
// such a one: there is none of communication.
func scopeOf(stream string) string {
	if stream == Returns {
		return scopeOrders
	}
	return scopeCommunication
}

// opens says whether scopes open a stream.
func opens(scopes []string, stream string) bool {
	return slices.ContainsFunc(scopes, func(s string) bool {
		s = strings.TrimSuffix(s, "_READ_ONLY")
		return s == scopeAll || s == scopeOf(stream)
	})
}

// needs says what a stream needs, the least first.
func needs(stream string) string {
	least := scopeOf(stream)
	if stream == Returns {
		least += "_READ_ONLY"
	}
	return scopeName(least) + " or " + scopeName(scopeAll+"_READ_ONLY")
}

func (c *Client) probeCampaigns(ctx context.Context) (sources.Report, error) {
	l, shops, err := c.campaigns(ctx, sources.Query{Stream: probeStream, Walk: sources.News, Now: time.Now()}, "", 0)
	if err != nil {
		return sources.Report{}, err
	}
	var out sources.Report
	ours, other := c.own(shops)
	if len(ours) == 0 && other != 0 {
		return sources.Report{}, c.anotherBusiness(other)
	}
	for i, s := range ours {
		if i == 0 {
			out.Lines = append(out.Lines, strings.TrimSpace(fmt.Sprintf("business %d %s", c.cfg.Business, words(s.owner))))
		}
		line := fmt.Sprintf("store %d", s.id)
		if name := words(s.name); name != "" {
			line += " " + name
		}
		if p := words(s.placement); p != "" {
			line += ", " + p
		}
		switch {
		case s.state == "AVAILABLE" || s.state == "":
		case s.off():
			line += ": its API is " + unavailable[s.state]
		default:
			line += ": " + words(s.state)
		}
		if !c.reads(s.id) {
			line += " (not configured)"
		}
		out.Lines = append(out.Lines, line)
	}
	next, err := nextToken(l)
	more := err != nil || next != ""
	for _, id := range c.cfg.Campaigns {
		if !more && !slices.ContainsFunc(ours, func(s shop) bool { return s.id == id }) {
			out.Lines = append(out.Lines, fmt.Sprintf("store %d is configured, and not shown by the key", id))
		}
	}
	switch {
	case more:
		out.Lines = append(out.Lines, fmt.Sprintf("and more: these are the first %d", len(shops)))
	case len(ours) == 0:
		out.Lines = append(out.Lines, "the key shows no stores")
	}
	return out, nil
}

// words makes what a stranger sent fit for a line on a terminal.
func words(s string) string {
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || !strconv.IsPrint(r) }), " ")
	if short := []rune(s); len(short) > 80 {
		s = string(short[:80]) + "…"
	}
	return s
}
