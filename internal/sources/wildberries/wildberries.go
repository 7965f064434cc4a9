// Package wildberries reads the customer communication of a Wildberries seller.
//
// Source of every statement here: the marketplace's OpenAPI document
// "communications" (https://dev.wildberries.ru/openapi/user-communication, read
// 2026-11-22), what recorded answers show, and, where both are silent, an
// implementation that is right in every reading.
//
//   - Limits: token buckets per seller and API group, by token type; limits.go
//     has the table. Chat methods are budgeted as if they shared one bucket.
//   - chat_events: GET seller/events, oldest first, about 50 a page, `next` in
//     milliseconds of the events' own time. Whether `next` is exclusive is not
//     documented; chatevents.go is right either way. Events never change.
//   - questions: GET questions, two lists (answered and not), date filter in
//     seconds. Items move between the lists, appear late, and change without a
//     mark of it; disappearance is no event.
//
// Items go out as they came: this package reads only the fields that give an
// item its identity and time, and treats every one of them as optional, null or
// of another type.
package wildberries

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
)

// Marketplace is the name of this marketplace in configuration, ids and types.
const Marketplace = "wildberries"

// The API groups: hosts with a token scope and a budget each.
const (
	GroupFeedbacks = "feedbacks"
	GroupChat      = "chat"
	GroupReturns   = "returns"
)

// Groups returns the API groups and their addresses (OpenAPI document, servers).
func Groups() map[string]string {
	return map[string]string{
		GroupFeedbacks: "https://feedbacks-api.wildberries.ru",
		GroupChat:      "https://buyer-chat-api.wildberries.ru",
		GroupReturns:   "https://returns-api.wildberries.ru",
	}
}

// The streams.
const (
	ChatEvents = "chat_events"
	Questions  = "questions"
)

// Streams lists the streams of contract §5.
func Streams() []sources.Stream {
	createdUpdated := []string{"created", "updated"}
	return []sources.Stream{
		{Name: ChatEvents, Group: GroupChat, Kinds: []string{"chat_event"}, Actions: []string{"created"}, Schedule: "@every 5s", Overlap: time.Minute},
		{Name: "chats", Group: GroupChat, Kinds: []string{"chat"}, Actions: createdUpdated, Schedule: "@every 10m", Later: true},
		// Others have seen questions and reviews appear in the index hours late.
		{Name: Questions, Group: GroupFeedbacks, Kinds: []string{"question"}, Actions: createdUpdated, Schedule: "@every 15s", Overlap: 3 * time.Hour},
		{Name: "feedbacks", Group: GroupFeedbacks, Kinds: []string{"feedback"}, Actions: createdUpdated, Schedule: "@every 15s", Overlap: 3 * time.Hour, Later: true},
		{Name: "claims", Group: GroupReturns, Kinds: []string{"claim"}, Actions: createdUpdated, Schedule: "@every 60s", Later: true},
		{Name: "feedback_pins", Group: GroupFeedbacks, Kinds: []string{"feedback_pin"}, Actions: []string{"created", "updated", "removed"}, Schedule: "@every 10m", Off: true, Later: true},
	}
}

// Config is one account. All fields are required.
type Config struct {
	Account     string
	Tokens      map[string]string // by API group
	Endpoints   map[string]string // by API group
	BudgetShare float64
	Budgets     *apiclient.Budgets
	Metrics     *apiclient.Metrics
	Transport   http.RoundTripper
	UserAgent   string
	Grace       time.Duration
}

// Client reads one account. It is safe for concurrent use.
type Client struct {
	seller  string
	groups  map[string]*apiclient.Client
	tokens  map[string]Token
	account string

	take, depth int // of a page of questions, and the most that one can be
}

var _ sources.Source = (*Client)(nil)

// New returns a source for one account. It sends nothing.
func New(cfg Config) (*Client, error) {
	c := &Client{account: cfg.Account, groups: make(map[string]*apiclient.Client), tokens: make(map[string]Token),
		take: questionsTake, depth: questionsDepth}
	for group := range Groups() {
		raw := cfg.Tokens[group]
		token, err := ParseToken(raw)
		if err != nil {
			return nil, fmt.Errorf("account %s: token of API group %s: %w", cfg.Account, group, err)
		}
		if c.seller == "" {
			c.seller = token.Seller
		} else if c.seller != token.Seller {
			return nil, fmt.Errorf("account %s: its tokens belong to different sellers, %s and %s: one account is one seller", cfg.Account, c.seller, token.Seller)
		}
		c.tokens[group] = token
		if !slices.ContainsFunc(Streams(), func(s sources.Stream) bool { return s.Group == group && !s.Later }) {
			continue // no stream of it can be polled yet
		}
		limit, class := limitFor(group, token.Type)
		bucket, err := cfg.Budgets.Bucket(apiclient.Key{Marketplace: Marketplace, Seller: token.Seller, Group: group, Class: class}, cfg.Account, limit, cfg.BudgetShare)
		if err != nil {
			return nil, fmt.Errorf("account %s: %w", cfg.Account, err)
		}
		c.groups[group], err = apiclient.New(apiclient.Config{
			Account: cfg.Account, Marketplace: Marketplace, Budget: group, BaseURL: cfg.Endpoints[group], Token: raw,
			UserAgent: cfg.UserAgent, Bucket: bucket, Metrics: cfg.Metrics, Transport: cfg.Transport, Grace: cfg.Grace, Classify: classify,
		})
		if err != nil {
			return nil, fmt.Errorf("account %s: %w", cfg.Account, err)
		}
	}
	cfg.Metrics.Declare(Marketplace, cfg.Account, ChatEvents, GroupChat, pathEvents)
	cfg.Metrics.Declare(Marketplace, cfg.Account, Questions, GroupFeedbacks, pathQuestions)
	return c, nil
}

// Seller returns the `sid` of the account's tokens.
func (c *Client) Seller() string { return c.seller }

// Token returns what the token of an API group says.
func (c *Client) Token(group string) Token { return c.tokens[group] }

// Opens reports whether the account's token may be used for an API group.
func (c *Client) Opens(group string) bool { return c.tokens[group].Opens(group) }

// Fetch implements sources.Source.
func (c *Client) Fetch(ctx context.Context, q sources.Query) (sources.Page, error) {
	if q.Walk != sources.News {
		return sources.Page{}, fmt.Errorf("%s of %s: %w", q.Walk, q.Stream, sources.ErrNoSuchWalk)
	}
	switch q.Stream {
	case ChatEvents:
		return c.chatEvents(ctx, q)
	case Questions:
		return c.questions(ctx, q)
	}
	return sources.Page{}, fmt.Errorf("wildberries has no stream %q", q.Stream)
}

// classify reads the error answers of wildberries.md §3. The two gateways, and
// the services behind them, spell them differently; unknown ones are left to the
// status.
func classify(status int, body []byte) *sources.Error {
	if status < 400 {
		return nil
	}
	var b struct {
		Title     string `json:"title"`
		Detail    string `json:"detail"`
		ErrorText string `json:"errorText"`
	}
	// Fields of another type leave the rest readable; a body that is no JSON
	// leaves all of them empty.
	_ = json.Unmarshal(body, &b)
	text := strings.TrimSpace(strings.Join([]string{b.Title, b.Detail, b.ErrorText}, " "))
	if text == "" {
		return nil
	}
	e := &sources.Error{Kind: sources.Temporary, Scope: sources.ScopeRequest, Err: errors.New(text)}
	switch status {
	case http.StatusUnauthorized:
		e.Kind, e.Scope = sources.Unauthorized, sources.ScopeGroup
		e.Hint = "check the token: a 401 means that it is malformed, withdrawn, expired, or made without this category"
	case http.StatusPaymentRequired:
		e.Kind, e.Scope = sources.Forbidden, sources.ScopeGroup
		e.Hint = "the service behind this token has to be paid for"
	case http.StatusForbidden:
		e.Kind, e.Scope = sources.Forbidden, sources.ScopeGroup
		e.Hint = "make a token with the category that this API group needs"
		if strings.Contains(text, "subscription") || strings.Contains(text, "tariff") {
			e.Scope, e.Hint = sources.ScopeStream, "the seller has no tariff for this method"
		}
	case http.StatusTooManyRequests:
		e.Kind, e.Scope = sources.RateLimited, sources.ScopeGroup
	default:
		if status >= 400 && status < 500 && status != http.StatusRequestTimeout && status != http.StatusTooEarly {
			e.Kind = sources.Rejected
		}
	}
	return e
}
