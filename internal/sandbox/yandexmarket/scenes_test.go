package yandexmarket_test

import (
	"strings"

	"syncd/internal/sandbox/kit"
	"syncd/internal/sandbox/yandexmarket"
)

// fault spoils the next request.
func fault(kind kit.FaultKind, variant string) func(*shop) {
	return func(s *shop) { s.inject(yandexmarket.Fault{Kind: kind, Variant: variant, Count: 1}) }
}

var coreScenes = []scene{
	{name: "campaigns", request: "GET /v2/campaigns?limit=100", status: 200},
	{name: "campaigns: bad token", request: "GET /v2/campaigns?pageToken=x", status: 400},
	{name: "campaigns: 401", request: "GET /v2/campaigns", status: 401, setUp: func(s *shop) { s.key = "" }},
	{name: "campaigns: 420", request: "GET /v2/campaigns", status: 420, setUp: fault(yandexmarket.Fault420, "")},
	{name: "campaigns: parallel 420", request: "GET /v2/campaigns", status: 420, setUp: fault(yandexmarket.Fault420, "parallel")},
	{name: "campaigns: deprecated", request: "GET /v2/campaigns", status: 403, setUp: fault(yandexmarket.Fault403, "")},
	{name: "campaigns: 500", request: "GET /v2/campaigns", status: 500, setUp: fault(yandexmarket.Fault500, "")},
	{name: "campaigns: 503", request: "GET /v2/campaigns", status: 503, setUp: fault(yandexmarket.Fault503, "")},
	{name: "campaigns: 423", request: "GET /v2/campaigns", status: 423, setUp: fault(yandexmarket.Fault423, "")},
	{name: "campaigns: 429", request: "GET /v2/campaigns", status: 429, setUp: fault(yandexmarket.Fault429, "")},
	{name: "campaign", request: "GET /v2/campaigns/{campaign}", status: 200},
	{name: "campaign: 404", request: "GET /v2/campaigns/1", status: 404},
	{name: "campaign: disabled", request: "GET /v2/campaigns/{campaign}", status: 403, setUp: func(s *shop) {
		s.must(s.b.SetAvailability(s.b.Stores()[0].ID, yandexmarket.ManuallyDisabled))
	}},
	{name: "token", request: "POST /v2/auth/token", status: 200},
	{name: "settings", request: "POST /v2/businesses/{business}/settings", status: 200},
	{name: "settings: another's", request: "POST /v2/businesses/1/settings", status: 403},
}

var coreDeviations = []deviation{
	{"campaigns: 503", "status is not supported", "503 is on the page of errors, in no operation"},
	{"campaigns: 423", "status is not supported", "423 is on the page of errors, in no operation of these"},
	{"campaigns: 429", "status is not supported", "of other APIs of Yandex; nothing says that it cannot come from what is before this one"},
}

// newest fills in the chat of which something was heard last, and one of its messages.
func newest(s *shop) map[string]string {
	chats := s.b.Chats()
	messages := s.b.Messages(chats[len(chats)-1].ID)
	return map[string]string{"chat": str(chats[len(chats)-1].ID), "message": str(messages[0].ID)}
}

// scopes gives the shop a key with these.
func scopes(of ...yandexmarket.Scope) func(*shop) {
	return func(s *shop) { s.key = s.MintKey(yandexmarket.KeySpec{Scopes: of}) }
}

const boundary = "----b"

func multipart(name, content string) string {
	return "--" + boundary + "\r\nContent-Disposition: form-data; name=\"" + name + "\"; filename=\"чек.pdf\"\r\n\r\n" + content + "\r\n--" + boundary + "--\r\n"
}

func asForm(s *shop) { s.contentType = "multipart/form-data; boundary=" + boundary }

var chatScenes = []scene{
	{name: "chats", request: "POST /v2/businesses/{business}/chats?limit=20", body: `{}`, status: 200},
	{name: "chats: orderId", request: "POST /v2/businesses/{business}/chats?limit=20", body: `{}`, status: 200, setUp: func(s *shop) {
		*s = *newShop(s.t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Chats: yandexmarket.ChatSpec{History: 30, OrderIDs: true}}})
	}},
	{name: "chats: filtered", request: "POST /v2/businesses/{business}/chats", status: 200,
		body: `{"contextTypes":["DIRECT"],"types":["CHAT"],"statuses":["WAITING_FOR_PARTNER","NEW"],"contexts":null}`},
	{name: "chats: no body", request: "POST /v2/businesses/{business}/chats", status: 400},
	{name: "chats: limit", request: "POST /v2/businesses/{business}/chats?limit=21", body: `{}`, status: 400},
	{name: "chats: scopes", request: "POST /v2/businesses/{business}/chats", body: `{}`, status: 403, setUp: scopes(yandexmarket.ScopeOrders)},
	{name: "chats: no result", request: "POST /v2/businesses/{business}/chats", body: `{}`, status: 200, setUp: fault(yandexmarket.FaultNoResult, "")},
	{name: "chats: error in 200", request: "POST /v2/businesses/{business}/chats", body: `{}`, status: 200, setUp: fault(yandexmarket.FaultErrorIn200, "")},
	{name: "chats: nanoseconds", request: "POST /v2/businesses/{business}/chats", body: `{}`, status: 200, setUp: func(s *shop) {
		*s = *newShop(s.t, yandexmarket.BusinessSpec{World: yandexmarket.WorldSpec{Times: yandexmarket.TimesMixed, Chats: yandexmarket.ChatSpec{History: 30}}})
	}},
	{name: "chat", request: "GET /v2/businesses/{business}/chat?chatId={chat}", status: 200, fill: newest},
	{name: "chat: 404", request: "GET /v2/businesses/{business}/chat?chatId=1", status: 404},
	{name: "chat: no id", request: "GET /v2/businesses/{business}/chat", status: 400},
	{name: "history", request: "POST /v2/businesses/{business}/chats/history?chatId={chat}&limit=100", body: `{}`, status: 200, fill: newest},
	{name: "history: from", request: "POST /v2/businesses/{business}/chats/history?chatId={chat}", body: `{"messageIdFrom":{message}}`, status: 200, fill: newest},
	{name: "history: limit", request: "POST /v2/businesses/{business}/chats/history?chatId={chat}&limit=101", body: `{}`, status: 400, fill: newest},
	{name: "message", request: "GET /v2/businesses/{business}/chats/message?chatId={chat}&messageId={message}", status: 200, fill: newest},
	{name: "message: 404", request: "GET /v2/businesses/{business}/chats/message?chatId={chat}&messageId=1", status: 404, fill: newest},
	{name: "new chat", request: "POST /v2/businesses/{business}/chats/new", body: `{"context":{"type":"ORDER","id":123}}`, status: 200, setUp: func(s *shop) {
		_, err := s.b.AddChat(yandexmarket.ChatBy{ContextID: 123})
		s.must(err)
	}},
	{name: "new chat: 404", request: "POST /v2/businesses/{business}/chats/new", body: `{"context":{"type":"ORDER","id":1}}`, status: 404},
	{name: "new chat: direct", request: "POST /v2/businesses/{business}/chats/new", body: `{"context":{"type":"DIRECT","id":1}}`, status: 400},
	{name: "new chat: read-only key", request: "POST /v2/businesses/{business}/chats/new", body: `{}`, status: 403, setUp: scopes(yandexmarket.ScopeAllReadOnly)},
	{name: "send", request: "POST /v2/businesses/{business}/chats/message?chatId={chat}", body: `{"message":"Добрый день"}`, status: 200, fill: newest},
	{name: "send: too long", request: "POST /v2/businesses/{business}/chats/message?chatId={chat}", status: 400, fill: newest,
		body: `{"message":"` + strings.Repeat("я", 4097) + `"}`},
	{name: "send file", request: "POST /v2/businesses/{business}/chats/file/send?chatId={chat}", body: multipart("file", "%PDF-1.7"), status: 200, fill: newest, setUp: asForm},
	{name: "send file: none", request: "POST /v2/businesses/{business}/chats/file/send?chatId={chat}", body: multipart("x", "y"), status: 400, fill: newest, setUp: asForm},
}

var chatDeviations = []deviation{}
