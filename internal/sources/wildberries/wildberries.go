// Package wildberries reads the customer communication of a Wildberries seller.
//
// Source of every statement here: the marketplace's OpenAPI document
// "communications" (https://dev.wildberries.ru/openapi/user-communication, read
// 2026-11-22), what recorded answers show, and, where both are silent, an
// implementation that is right in every reading.
//
// Limits are token buckets per seller and API group, by token type; limits.go has
// the table. Chat methods are budgeted as if they shared one bucket, and so are
// those of the returns. Every answer may be an error of a gateway: see classify.
//
//   - chat_events (https://buyer-chat-api.wildberries.ru/api/v1/seller/events):
//     oldest first, about 50 a page, `next` in milliseconds of the events' own
//     time. Whether `next` is exclusive is not documented; chatevents.go is right
//     either way. It ends where nothing newer comes. Events never change and are
//     never taken back.
//   - chats (same host, /api/v1/seller/chats): the whole list in one answer. The
//     last message and the reply sign change. Chats are missing from it, for a
//     time or for good, without a reason that is documented: disappearance is no
//     event.
//   - questions (https://feedbacks-api.wildberries.ru/api/v1/questions) and
//     feedbacks (/api/v1/feedbacks, /api/v1/feedbacks/archive): two lists (answered
//     and not) with a date filter in seconds, and for feedbacks an archive without
//     one. Items move between the lists, appear late, and change without a mark of
//     it; disappearance is no event.
//   - feedback_pins (same host, /api/feedbacks/v1/pins): pinned ones and those that
//     were unpinned automatically, 500 a page; an answer without `next` is the last
//     one. State, cause and time of the last change change. A pin that the seller
//     took off is in neither list, which is how its end shows.
//   - claims (https://returns-api.wildberries.ru/api/v1/claims): those of the last
//     14 days, two lists (under review and archived), offset paging in an order
//     that is not documented; the last page is the one that is not full. Everything
//     about them changes, and they move between the lists either way. They leave
//     when they are 14 days old: disappearance is no event.
//
// Items go out as they came: this package reads only the fields that give an
// item its identity and time, and treats every one of them as optional, null or
// of another type.
//
// It does not answer anybody, and it never asks /ping, which the marketplace
// forbids to programs, nor for the seller's own data, whose limit is one request
// a day.
package wildberries

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
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
	ChatEvents   = "chat_events"
	Chats        = "chats"
	Questions    = "questions"
	Feedbacks    = "feedbacks"
	Claims       = "claims"
	FeedbackPins = "feedback_pins"
)

// Streams lists the streams of contract §5.
func Streams() []sources.Stream {
	var (
		createdUpdated = []string{"created", "updated"}
		dated          = []sources.Walk{sources.News, sources.Sweep, sources.Full, sources.Backfill}
		listed         = []sources.Walk{sources.News, sources.Backfill}
	)
	return []sources.Stream{
		{Name: ChatEvents, Group: GroupChat, Kinds: []string{"chat_event"}, Actions: []string{"created"}, Schedule: "@every 5s", Overlap: time.Minute, Walks: listed},
		{Name: Chats, Group: GroupChat, Kinds: []string{"chat"}, Actions: createdUpdated, Schedule: "@every 10m", Walks: listed, Whole: true},
		// Others have seen questions and reviews appear in the index hours late.
		{Name: Questions, Group: GroupFeedbacks, Kinds: []string{"question"}, Actions: createdUpdated, Schedule: "@every 15s", Overlap: 3 * time.Hour, Walks: dated},
		{Name: Feedbacks, Group: GroupFeedbacks, Kinds: []string{"feedback"}, Actions: createdUpdated, Schedule: "@every 15s", Overlap: 3 * time.Hour, Walks: dated},
		{Name: Claims, Group: GroupReturns, Kinds: []string{"claim"}, Actions: createdUpdated, Schedule: "@every 60s", Walks: listed, Whole: true},
		{Name: FeedbackPins, Group: GroupFeedbacks, Kinds: []string{"feedback_pin"}, Actions: []string{"created", "updated", "removed"}, Schedule: "@every 10m", Off: true, Walks: listed, Whole: true, Vanish: true},
	}
}

// Config is one account. All fields but Heard and Told are required.
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
	Heard       func(date time.Time)     // is told the marketplace's clock with every answer that says it; see apiclient.Config
	Told        func(a apiclient.Answer) // see apiclient.Config
}

// Client reads one account. It is safe for concurrent use.
type Client struct {
	seller  string
	groups  map[string]*apiclient.Client
	tokens  map[string]Token
	account string

	dated                  map[string]*dated // by stream
	sizes                  pageSizes         // of those
	skew                   atomic.Int64      // of the feedbacks host's clock against ours when it was heard last, nanoseconds
	claimsLimit, pinsLimit int               // of a page
}

var (
	_ sources.Source  = (*Client)(nil)
	_ sources.Skipper = (*Client)(nil)
	_ sources.Prober  = (*Client)(nil)
)

// New returns a source for one account. It sends nothing.
func New(cfg Config) (*Client, error) {
	c := &Client{account: cfg.Account, groups: make(map[string]*apiclient.Client), tokens: make(map[string]Token),
		dated:       map[string]*dated{Questions: new(questions), Feedbacks: new(feedbacks)},
		claimsLimit: claimsLimit, pinsLimit: pinsLimit}
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
		limit, class := Limit(token.Type, group)
		bucket, err := cfg.Budgets.Bucket(apiclient.Key{Marketplace: Marketplace, Seller: token.Seller, Group: group, Class: class}, cfg.Account, limit, cfg.BudgetShare)
		if err != nil {
			return nil, fmt.Errorf("account %s: %w", cfg.Account, err)
		}
		c.groups[group], err = apiclient.New(apiclient.Config{
			Account: cfg.Account, Marketplace: Marketplace, Budget: group, BaseURL: cfg.Endpoints[group], Token: raw,
			UserAgent: cfg.UserAgent, Bucket: bucket, Metrics: cfg.Metrics, Transport: cfg.Transport, Grace: cfg.Grace, Heard: cfg.Heard, Told: cfg.Told,
			Classify: func(status int, body []byte) *sources.Error { return classify(group, status, body) },
		})
		if err != nil {
			return nil, fmt.Errorf("account %s: %w", cfg.Account, err)
		}
	}
	if c.tokens[GroupFeedbacks].Interval(GroupFeedbacks) > time.Second {
		for _, d := range c.dated {
			d.leaf, d.leaves = coarseItems, coarseMost
		}
	}
	for _, s := range Streams() {
		cfg.Metrics.Declare(Marketplace, cfg.Account, s.Name, s.Group, paths[s.Name]...)
	}
	return c, nil
}

// paths are the methods that the streams call.
var paths = map[string][]string{
	ChatEvents:   {pathEvents},
	Chats:        {pathChats},
	Questions:    {pathQuestions, pathQuestionsCount},
	Feedbacks:    {pathFeedbacks, pathFeedbacksCount, pathFeedbacksArchive},
	Claims:       {pathClaims},
	FeedbackPins: {pathPins},
}

// Seller returns the `sid` of the account's tokens.
func (c *Client) Seller() string { return c.seller }

// Token returns what the token of an API group says.
func (c *Client) Token(group string) Token { return c.tokens[group] }

// Opens reports whether the account's token may be used for an API group.
func (c *Client) Opens(group string) bool { return c.tokens[group].Opens(group) }

// Fetch implements sources.Source.
func (c *Client) Fetch(ctx context.Context, q sources.Query) (sources.Page, error) {
	if err := q.Check(Marketplace, Streams()); err != nil {
		return sources.Page{}, err
	}
	switch q.Stream {
	case ChatEvents:
		return c.chatEvents(ctx, q)
	case Chats:
		return c.chats(ctx, q)
	case Claims:
		return c.claims(ctx, q)
	case FeedbackPins:
		return c.feedbackPins(ctx, q)
	}
	if q.Walk == sources.Sweep {
		return c.sweep(ctx, q, c.dated[q.Stream])
	}
	return c.readDated(ctx, q, c.dated[q.Stream])
}

// Skip implements sources.Skipper.
func (c *Client) Skip(q sources.Query) (next sources.Cursor, leftOut string, err error) {
	if err := q.Check(Marketplace, Streams()); err != nil {
		return nil, "", err
	}
	switch q.Stream {
	case ChatEvents:
		return skipEvents(q)
	case Chats:
		return nil, "", errors.New("one answer holds the whole list of chats: there is nothing to step over")
	case Claims:
		return c.skipClaims(q)
	case FeedbackPins:
		return nil, "", errors.New("where the next page of pins begins is known only from the page before it: there is nothing to step over")
	}
	return c.skipDated(q)
}
