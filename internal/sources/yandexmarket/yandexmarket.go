// Package yandexmarket reads the customer communication and the returns of a seller
// of Yandex Market: one business ("cabinet") and its stores ("campaigns").
//
// Source of every statement here: the marketplace's OpenAPI document (Partner API,
// 2026-07-17) and documentation pages, what other clients rely on, and, where these
// are silent, an implementation that is right in every reading.
//
// Each method has a budget of its own of calls an hour, per business or campaign
// (methods.go has the table; the answers correct it), and no more than 4 requests of
// one business or campaign may be in flight, of which syncd uses 3. An answer takes
// the marketplace up to 10 s, and connections are not kept.
//
//   - chats (POST v2/businesses/{}/chats): the whole list, 20 a page, in no documented
//     order and without a filter by time. updatedAt is the time of the last message, to
//     the second; a status moves without it. GET v2/businesses/{}/chat asks for one by
//     its id, which is how chats are followed that the list does not show any more.
//   - chat_messages (POST v2/businesses/{}/chats/history): the messages of one chat, 100
//     a page, in no documented order. They never change. Which chats to read is known
//     from the list.
//   - goods_feedbacks (POST v2/businesses/{}/goods-feedback and …/comments): reviews in
//     the order of their publication, which comes after their creation by up to days. An
//     edited review says so only by needing a reaction again. Comments have no time, and
//     those of comments show nowhere: see visits.go.
//   - goods_questions (POST v1/businesses/{}/goods-questions and …/answers): by dates, a
//     month at most. Nothing in the list tells that there is an answer: see visits.go.
//   - returns (GET v2/campaigns/{}/returns): of each store, by the dates of their updates,
//     in no documented order.
//
// It writes nothing and answers nobody.
package yandexmarket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
)

// Marketplace is the name of this marketplace in configuration, ids and types.
const Marketplace = "yandex_market"

// GroupAPI is the one API group: a host, and a key for all of it.
const GroupAPI = "api"

// Groups returns the API groups and their addresses (OpenAPI document, servers).
func Groups() map[string]string {
	return map[string]string{GroupAPI: "https://api.partner.market.yandex.ru"}
}

// The streams.
const (
	Chats          = "chats"
	ChatMessages   = "chat_messages"
	GoodsFeedbacks = "goods_feedbacks"
	GoodsQuestions = "goods_questions"
	Returns        = "returns"
)

// Streams lists the streams of contract §5.
func Streams() []sources.Stream {
	createdUpdated := []string{"created", "updated"}
	visited := []sources.Walk{sources.News, sources.Sweep, sources.Full, sources.Backfill, sources.Follow}
	return []sources.Stream{
		{Name: Chats, Group: GroupAPI, Kinds: []string{"chat"}, Actions: createdUpdated, Schedule: "@every 60s",
			Walks: []sources.Walk{sources.News, sources.Sweep, sources.Backfill}, Whole: true, Lookup: true},
		{Name: ChatMessages, Group: GroupAPI, Kinds: []string{"chat_message"}, Actions: []string{"created"}, Schedule: "@every 60s",
			Walks: []sources.Walk{sources.News, sources.Backfill, sources.Follow}, Driver: Chats},
		// Moderation holds reviews back for days.
		{Name: GoodsFeedbacks, Group: GroupAPI, Kinds: []string{"goods_feedback", "goods_feedback_comment"}, Actions: createdUpdated, Schedule: "@every 2m",
			Overlap: 72 * time.Hour, Walks: visited},
		{Name: GoodsQuestions, Group: GroupAPI, Kinds: []string{"goods_question", "goods_answer"}, Actions: createdUpdated, Schedule: "@every 5m",
			Overlap: 72 * time.Hour, Walks: visited},
		// The filter is by days, of a zone that is not documented.
		{Name: Returns, Group: GroupAPI, Kinds: []string{"return"}, Actions: createdUpdated, Schedule: "@every 5m",
			Overlap: 24 * time.Hour, Walks: []sources.Walk{sources.News, sources.Full, sources.Backfill}},
	}
}

// Config is one account. All fields but Campaigns, Heard and Told are required.
type Config struct {
	Account     string
	Business    int64
	Campaigns   []int64  // the stores to read; empty: every one that the key sees
	Token       string   // the Api-Key
	Endpoint    string   // of GroupAPI
	Streams     []string // that are enabled: of a pair that shares a list one reads it
	BudgetShare float64
	Budgets     *apiclient.Budgets
	Metrics     *apiclient.Metrics
	Transport   http.RoundTripper
	UserAgent   string
	Grace       time.Duration
	Heard       func(date time.Time)     // see apiclient.Config
	Told        func(a apiclient.Answer) // see apiclient.Config
}

// Client reads one account. It is safe for concurrent use.
type Client struct {
	cfg  Config
	api  *apiclient.Client
	lane *apiclient.Lane // of the business

	sizes sizes

	mu      sync.Mutex
	windows map[string]*apiclient.Window // by the budget's name, those of stores as they come
}

var (
	_ sources.Source  = (*Client)(nil)
	_ sources.Skipper = (*Client)(nil)
)

// timeout is for one request: the marketplace gives up after 10 s by itself, and a
// client that does so before it gets a 499 counted (documentation, method call).
const timeout = 20 * time.Second

// inFlight is how many requests of one business or campaign may be on their way at
// once: of the 4 that are documented one is left to the seller's other programs.
const inFlight = 3

// New returns a source for one account. It sends nothing.
func New(cfg Config) (*Client, error) {
	c := &Client{cfg: cfg, windows: make(map[string]*apiclient.Window)}
	c.lane = cfg.Budgets.Lane(c.key("lane"), inFlight)
	var err error
	c.api, err = apiclient.New(apiclient.Config{
		Account: cfg.Account, Marketplace: Marketplace, Budget: GroupAPI, BaseURL: cfg.Endpoint, Token: cfg.Token, TokenHeader: "Api-Key",
		UserAgent: cfg.UserAgent, Metrics: cfg.Metrics, Transport: cfg.Transport, Timeout: timeout, Grace: cfg.Grace, Heard: cfg.Heard, Told: cfg.Told,
		Close: true, Parallel: parallel, Classify: classify,
	})
	if err != nil {
		return nil, fmt.Errorf("account %s: %w", cfg.Account, err)
	}
	for _, m := range methods {
		if !m.perCampaign() {
			if _, err := c.window(m, 0); err != nil {
				return nil, err
			}
		}
	}
	for _, s := range Streams() {
		var paths []string
		for _, m := range methods {
			if slices.Contains(m.streams, s.Name) {
				paths = append(paths, m.path)
			}
		}
		cfg.Metrics.Declare(Marketplace, cfg.Account, s.Name, s.Group, paths...)
	}
	return c, nil
}

// key names a budget of the business.
func (c *Client) key(group string) apiclient.Key {
	return apiclient.Key{Marketplace: Marketplace, Seller: c.Seller(), Group: group}
}

// Seller returns the id of the business.
func (c *Client) Seller() string { return strconv.FormatInt(c.cfg.Business, 10) }

// polls reports whether a stream of the account is enabled.
func (c *Client) polls(stream string) bool { return slices.Contains(c.cfg.Streams, stream) }

// Fetch implements sources.Source.
func (c *Client) Fetch(ctx context.Context, q sources.Query) (sources.Page, error) {
	if err := q.Check(Marketplace, Streams()); err != nil {
		return sources.Page{}, err
	}
	switch q.Stream {
	case Chats:
		return c.chats(ctx, q)
	case ChatMessages:
		return c.chatMessages(ctx, q)
	case GoodsFeedbacks:
		return c.goodsFeedbacks(ctx, q)
	case GoodsQuestions:
		return c.goodsQuestions(ctx, q)
	}
	return c.returns(ctx, q)
}

var errNoSkip = errors.New("where the next page begins is known only from the page before it: there is nothing to step over")

// Skip implements sources.Skipper.
func (c *Client) Skip(q sources.Query) (next sources.Cursor, leftOut string, err error) {
	if q.Stream == ChatMessages && q.Walk == sources.Backfill {
		return skipMessages(q)
	}
	return nil, "", errNoSkip
}
