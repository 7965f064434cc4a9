package yandexmarket

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
)

// method is one method of the API.
type method struct {
	name    string // of its budget
	verb    string
	path    string
	calls   int      // an hour, without a paid subscription: OpenAPI document, x-resource-limit-config, 2026-07-17
	most    int      // entries of a page; 0: it has no pages
	streams []string // that call it
}

// The methods. Their limits have moved before: what counts is what the answers say.
var (
	getChats       = method{"chats", "POST", "/v2/businesses/{businessId}/chats", 5_000, 20, []string{Chats, ChatMessages}}
	getChat        = method{"chat", "GET", "/v2/businesses/{businessId}/chat", 1_000, 0, []string{Chats}}
	getChatHistory = method{"chat_history", "POST", "/v2/businesses/{businessId}/chats/history", 10_000, 100, []string{ChatMessages}}
	getFeedbacks   = method{"goods_feedbacks", "POST", "/v2/businesses/{businessId}/goods-feedback", 5_000, 50, []string{GoodsFeedbacks}}
	getComments    = method{"goods_feedback_comments", "POST", "/v2/businesses/{businessId}/goods-feedback/comments", 5_000, 50, []string{GoodsFeedbacks}}
	getQuestions   = method{"goods_questions", "POST", "/v1/businesses/{businessId}/goods-questions", 1_000, 50, []string{GoodsQuestions}}
	getAnswers     = method{"goods_answers", "POST", "/v1/businesses/{businessId}/goods-questions/answers", 1_000, 50, []string{GoodsQuestions}}
	getReturns     = method{"returns", "GET", "/v2/campaigns/{campaignId}/returns", 5_000, 100, []string{Returns}}
	getCampaigns   = method{"campaigns", "GET", "/v2/campaigns", 1_000, 100, []string{Returns}}
	getToken       = method{"token", "POST", "/v2/auth/token", 100, 0, nil}

	methods = []method{getChats, getChat, getChatHistory, getFeedbacks, getComments, getQuestions, getAnswers, getReturns, getCampaigns, getToken}
)

func (m method) perCampaign() bool { return strings.Contains(m.path, "{campaignId}") }

// budget is the name of the method's budget, of one campaign where it has one each.
func (m method) budget(campaign int64) string {
	if m.perCampaign() {
		return m.name + ":" + strconv.FormatInt(campaign, 10)
	}
	return m.name
}

// window is the method's budget.
func (c *Client) window(m method, campaign int64) (*apiclient.Window, error) {
	name := m.budget(campaign)
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.windows[name]; w != nil {
		return w, nil
	}
	w, err := c.cfg.Budgets.Window(c.key(name), c.cfg.Account, apiclient.WindowLimit{Calls: m.calls, Period: time.Hour}, c.cfg.BudgetShare)
	if err != nil {
		return nil, fmt.Errorf("account %s: %w", c.cfg.Account, err)
	}
	c.windows[name] = w
	return w, nil
}

// request is a call of a method; campaign counts only where it is one of a campaign.
func (c *Client) request(q sources.Query, m method, campaign int64) (apiclient.Request, error) {
	w, err := c.window(m, campaign)
	if err != nil {
		return apiclient.Request{}, err
	}
	lane := c.lane
	if m.perCampaign() {
		lane = c.cfg.Budgets.Lane(c.key(m.budget(campaign)), inFlight)
	}
	path := strings.NewReplacer("{businessId}", c.Seller(), "{campaignId}", strconv.FormatInt(campaign, 10)).Replace(m.path)
	return apiclient.Request{
		Stream: q.Stream, Walk: q.Walk, Method: m.verb, Path: path, Endpoint: m.path, Window: w, Lane: lane, Sending: q.Sending, Large: q.Large,
	}, nil
}
