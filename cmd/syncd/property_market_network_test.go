package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"syncd/internal/sandbox/kit"
	market "syncd/internal/sandbox/yandexmarket"
	"syncd/internal/sources/yandexmarket"
	"syncd/internal/state"
)

// readMarket reads the items of an answer.
func readMarket(r *http.Request, body []byte) (out []shownItem) {
	var a struct{ Result json.RawMessage }
	if json.Unmarshal(body, &a) != nil {
		return nil
	}
	var of struct{ Chats, Messages, Feedbacks, Comments, Questions, Answers, Returns []json.RawMessage }
	_ = json.Unmarshal(a.Result, &of) // null, or missing, where there is none
	add := func(kind kit.Kind, before string, list []json.RawMessage) {
		for _, raw := range list {
			var f struct {
				ChatID, MessageID, FeedbackID, ID json.Number
				QuestionIdentifiers               struct{ ID json.Number }
			}
			_ = json.Unmarshal(raw, &f)
			id := map[kit.Kind]json.Number{market.KindChat: f.ChatID, market.KindMessage: f.MessageID, market.KindFeedback: f.FeedbackID,
				market.KindQuestion: f.QuestionIdentifiers.ID}[kind]
			if id == "" {
				id = f.ID
			}
			out = append(out, shownItem{kind, before + id.String(), raw})
		}
	}
	if strings.HasSuffix(r.URL.Path, "/chat") {
		of.Chats = []json.RawMessage{a.Result}
	}
	add(market.KindChat, "", of.Chats)
	add(market.KindMessage, r.URL.Query().Get("chatId")+"/", of.Messages)
	add(market.KindFeedback, "", of.Feedbacks)
	add(market.KindFeedbackComment, "", of.Comments)
	add(market.KindQuestion, "", of.Questions)
	add(market.KindAnswer, "", of.Answers)
	if part := strings.Split(r.URL.Path, "/"); len(part) > 3 && part[2] == "campaigns" {
		add(market.KindReturn, part[3]+"/", of.Returns)
	}
	return out
}

// answered notes answers after which a run may be complete and not have shown all: a
// page token that was refused, a result that is missing.
func (s *marketSim) answered(r *http.Request, status int, body []byte) {
	var a struct{ Result map[string]json.RawMessage }
	hollow := status == http.StatusOK && json.Unmarshal(body, &a) == nil && len(a.Result) == 0
	if !hollow && status != http.StatusBadRequest {
		return
	}
	_, account, _ := strings.Cut(r.Header.Get(headerBucket), " ")
	s.answers.Lock()
	defer s.answers.Unlock()
	for stream, part := range map[string]string{yandexmarket.Chats: "/chats", yandexmarket.ChatMessages: "/chats", yandexmarket.GoodsFeedbacks: "/goods-feedback",
		yandexmarket.GoodsQuestions: "/goods-questions", yandexmarket.Returns: "/returns"} {
		if strings.Contains(r.URL.Path, part) {
			id := state.StreamID{Account: account, Stream: stream}
			s.doubts[id] = append(s.doubts[id], time.Now())
		}
	}
}

// spentWindow is a 420 that said until when the budget is spent.
type spentWindow struct {
	path         string
	by           *life
	heard, until time.Time
}

// refusals notes those that a process has heard.
func (s *marketSim) refusals(p *life, req *http.Request, resp *http.Response) {
	until, err := http.ParseTime(resp.Header.Get("X-RateLimit-Resource-Until"))
	if resp.StatusCode != 420 && resp.StatusCode != http.StatusTooManyRequests || err != nil {
		return
	}
	s.answers.Lock()
	defer s.answers.Unlock()
	s.refused = append(s.refused, spentWindow{req.URL.Path, p, time.Now(), until})
}

// knew says whether a violation was one of a process that could have known better. One
// that died in the moment in which it was told to wait could tell nobody.
func (s *marketSim) knew(v market.Violation) bool {
	switch v.Kind {
	case market.ViolationBudget:
		return true
	case market.ViolationParallel: // what several dead ones have on the way together nobody counts: see apiclient.Lane
		return 2 > len(slices.DeleteFunc(slices.Clone(s.deaths), func(at time.Time) bool { return at.After(v.Time) || v.Time.Sub(at) > 20*time.Second }))
	}
	_, entity, _ := strings.Cut(string(v.Entity), " ")
	return slices.ContainsFunc(s.refused, func(r spentWindow) bool {
		return strings.HasSuffix(r.path, "/"+entity+marketPaths[v.Method]) && r.heard.Add(s.wire.most).Before(v.Time) && r.until.After(v.Time) && !r.by.diedWithin(r.heard, time.Second)
	})
}

// marketPaths are the ends of the paths of methods, behind their entity.
var marketPaths = map[market.Method]string{market.MethodGetChats: "/chats", market.MethodGetChat: "/chat", market.MethodGetChatHistory: "/chats/history",
	market.MethodGetGoodsFeedbacks: "/goods-feedback", market.MethodGetGoodsFeedbackComments: "/goods-feedback/comments",
	market.MethodGetGoodsQuestions: "/goods-questions", market.MethodGetGoodsQuestionAnswers: "/goods-questions/answers", market.MethodGetReturns: "/returns"}
