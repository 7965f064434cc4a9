package yandexmarket

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"

	"syncd/internal/sandbox/kit"
)

// ChatQuirks are the readings of the methods about chats.
type ChatQuirks struct {
	// Order is that of the list, which is not documented.
	Order ChatOrder
	// HistoryOrder is that of a history, which is not documented.
	HistoryOrder HistoryOrder
	// FromExclusive leaves the message out that messageIdFrom names.
	FromExclusive bool
}

// ChatOrder is an order of the list of chats.
type ChatOrder int

const (
	// ChatsByUpdate has the newest updatedAt first: the list moves while it is paged.
	ChatsByUpdate ChatOrder = iota
	// ChatsByCreation has the oldest first.
	ChatsByCreation
	// ChatsByCreationDesc has the newest first.
	ChatsByCreationDesc
	// ChatsShuffledPerScan is another order in every scan.
	ChatsShuffledPerScan
	// ChatsShuffled is another order in every answer: a scan misses chats and shows others twice.
	ChatsShuffled
)

// HistoryOrder is an order of a history.
type HistoryOrder int

const (
	// HistoryAscending has the oldest message first.
	HistoryAscending HistoryOrder = iota
	// HistoryDescending has the newest first.
	HistoryDescending
	// HistoryShuffled is another order in every scan.
	HistoryShuffled
)

func (q ChatQuirks) validate() error {
	switch {
	case q.Order < ChatsByUpdate || q.Order > ChatsShuffled:
		return fmt.Errorf("unknown order %d of chats", q.Order)
	case q.HistoryOrder < HistoryAscending || q.HistoryOrder > HistoryShuffled:
		return fmt.Errorf("unknown order %d of a history", q.HistoryOrder)
	}
	return nil
}

var (
	readChats  = []Scope{ScopeAll, ScopeAllReadOnly, ScopeCommunication}
	writeChats = []Scope{ScopeAll, ScopeCommunication}
)

var chatRoutes = map[string]route{
	"POST /v2/businesses/{businessId}/chats":           {method: MethodGetChats, limit: perHour{5000, 5000}, scopes: readChats, serve: serveChats},
	"GET /v2/businesses/{businessId}/chat":             {method: MethodGetChat, limit: perHour{1000, 1000}, scopes: readChats, serve: serveChat},
	"POST /v2/businesses/{businessId}/chats/history":   {method: MethodGetChatHistory, limit: perHour{10000, 10000}, scopes: readChats, serve: serveHistory},
	"GET /v2/businesses/{businessId}/chats/message":    {method: MethodGetChatMessage, limit: perHour{1000, 1000}, scopes: readChats, serve: serveMessage},
	"POST /v2/businesses/{businessId}/chats/new":       {method: MethodCreateChat, limit: perHour{1000, 1000}, scopes: writeChats, serve: serveNewChat},
	"POST /v2/businesses/{businessId}/chats/message":   {method: MethodSendMessageToChat, limit: perHour{1000, 1000}, scopes: writeChats, serve: serveSend},
	"POST /v2/businesses/{businessId}/chats/file/send": {method: MethodSendFileToChat, limit: perHour{1000, 1000}, scopes: writeChats, multipart: true, serve: serveSendFile},
}

// wireChat is GetChatInfoDTO.
type wireChat struct {
	ID        int64       `json:"chatId"`
	OrderID   int64       `json:"orderId,omitempty"`
	Context   wireContext `json:"context"`
	Type      string      `json:"type"`
	Status    string      `json:"status"`
	CreatedAt string      `json:"createdAt"`
	UpdatedAt string      `json:"updatedAt"`
}

// wireContext is ChatFullContextDTO.
type wireContext struct {
	Type       string        `json:"type"`
	Customer   *wireCustomer `json:"customer,omitempty"`
	CampaignID int64         `json:"campaignId,omitempty"`
	OrderID    int64         `json:"orderId,omitempty"`
	ReturnID   int64         `json:"returnId,omitempty"`
}

type wireCustomer struct {
	Name     string `json:"name,omitempty"`
	PublicID string `json:"publicId,omitempty"`
}

// wireMessage is ChatMessageDTO.
type wireMessage struct {
	ID        int64         `json:"messageId"`
	CreatedAt string        `json:"createdAt"`
	Sender    string        `json:"sender"`
	Message   string        `json:"message,omitempty"`
	Payload   []wirePayload `json:"payload,omitempty"`
}

type wirePayload struct {
	Name string `json:"name"`
	URL  string `json:"url"`
	Size int    `json:"size"`
}

func newPayload(r *rand.Rand, n int) []wirePayload {
	var out []wirePayload
	for range n {
		out = append(out, filePayload(r, kit.Pick(r, []string{"photo.jpg", "IMG_20260901_100512.heic", "Чек.pdf"}), 20_000+r.IntN(4_000_000)))
	}
	return out
}

// filePayload has the host that clients have seen.
func filePayload(r *rand.Rand, name string, size int) wirePayload {
	return wirePayload{name, "https://files.messenger.yandex.net/file/" + kit.UUID(r), size}
}

func (ch *chat) about() wireContext {
	out := wireContext{Type: ch.context.kind}
	if ch.buyer != (buyer{}) {
		out.Customer = &wireCustomer{ch.buyer.name, ch.buyer.publicID}
	}
	if ch.context.kind != ContextDirect {
		out.CampaignID, out.OrderID = ch.order.store.id, ch.order.id
	}
	if ch.context.kind == ContextReturn {
		out.ReturnID = ch.context.id
	}
	return out
}

// wire is a chat as the list shows it, or as it is.
func (c *chatWorld) wire(ch *chat, as listing) wireChat {
	out := wireChat{
		ID: ch.id, Context: ch.about(), Type: ch.kind, Status: as.status,
		CreatedAt: c.b.when(ch.created), UpdatedAt: c.b.when(as.updated),
	}
	if c.spec.OrderIDs {
		out.OrderID = out.Context.OrderID
	}
	return out
}

// chatFilter is GetChatsRequest. A list that is there has something in it.
type chatFilter struct {
	OrderIDs     *[]int64           `json:"orderIds"`
	Contexts     *[]wireContextPart `json:"contexts"`
	ContextTypes *[]string          `json:"contextTypes"`
	Types        *[]string          `json:"types"`
	Statuses     *[]string          `json:"statuses"`
}

// wireContextPart is ChatContextDTO.
type wireContextPart struct {
	Type string `json:"type"`
	ID   int64  `json:"id"`
}

func (f chatFilter) refuse() *answer {
	for name, list := range map[string]*[]string{"contextTypes": f.ContextTypes, "types": f.Types, "statuses": f.Statuses} {
		if list == nil {
			continue
		}
		allowed := map[string][]string{
			"contextTypes": {ContextOrder, ContextReturn, ContextDirect}, "types": {TypeChat, TypeArbitrage}, "statuses": chatStatuses,
		}[name]
		if len(*list) == 0 || slices.ContainsFunc(*list, func(v string) bool { return !slices.Contains(allowed, v) }) {
			return refuse(http.StatusBadRequest, fmt.Sprintf("Parameter '%s' has invalid value", name))
		}
	}
	if f.Contexts != nil && (len(*f.Contexts) == 0 || slices.ContainsFunc(*f.Contexts, func(p wireContextPart) bool {
		return p.Type != ContextOrder && p.Type != ContextReturn || p.ID < 1
	})) {
		return refuse(http.StatusBadRequest, "Parameter 'contexts' has invalid value")
	}
	if f.Contexts != nil && f.ContextTypes != nil {
		return refuse(http.StatusBadRequest, "Only one of parameters 'contexts', 'contextTypes' is allowed")
	}
	return nil
}

func (f chatFilter) passes(ch *chat, as listing) bool {
	return in(f.ContextTypes, ch.context.kind) && in(f.Types, ch.kind) && in(f.Statuses, as.status) &&
		in(f.Contexts, wireContextPart{ch.context.kind, ch.context.id})
}

// in says whether a filter has a value; one that is not there has all.
func in[T comparable](list *[]T, v T) bool { return list == nil || slices.Contains(*list, v) }

func serveChats(c *call) answer {
	var filter chatFilter
	if a := c.decode(&filter); a != nil {
		return *a
	}
	if a := filter.refuse(); a != nil {
		return *a
	}
	if filter.OrderIDs != nil && !c.b.chats.spec.OrderIDs {
		return fail(http.StatusBadRequest, "Parameter 'orderIds' is not supported")
	}
	var listed []*chat
	for _, ch := range c.b.chats.chats {
		if ch.listed() && filter.passes(ch, ch.shown) && (filter.OrderIDs == nil || in(filter.OrderIDs, ch.order.id)) {
			listed = append(listed, ch)
		}
	}
	again := c.market.draw()
	chats, next, refusal := page(c, listed, pageSizes{byDefault: 10, max: 20}, string(kit.Render(filter)), func(ch *chat, seed uint64) pageKey {
		switch c.quirks.Chats.Order {
		case ChatsByCreation:
			return pageKey{ch.created, ch.id}
		case ChatsByCreationDesc:
			return pageKey{-ch.created, -ch.id}
		case ChatsShuffledPerScan:
			return drawn(ch.id, seed)
		case ChatsShuffled:
			return drawn(ch.id, again)
		}
		return pageKey{-ch.shown.updated, -ch.id}
	})
	if refusal != nil {
		return *refusal
	}
	out := struct {
		Chats  []wireChat `json:"chats"`
		Paging *paging    `json:"paging,omitempty"`
	}{Chats: []wireChat{}, Paging: c.paging(next)}
	for _, ch := range chats {
		out.Chats = append(out.Chats, c.b.chats.wire(ch, ch.shown))
	}
	return okAnswer(out)
}

// chat finds the chat of the parameter chatId.
func (c *call) chat() (*chat, *answer) {
	id, refusal := c.id("chatId")
	if refusal != nil {
		return nil, refusal
	}
	if ch := c.b.chats.byID[id]; ch != nil {
		return ch, nil
	}
	return nil, refuse(http.StatusNotFound, fmt.Sprintf("Can't find chat by id: '%d'", id))
}

// serveChat shows a chat as it is, in the list or not.
func serveChat(c *call) answer {
	ch, refusal := c.chat()
	if refusal != nil {
		return *refusal
	}
	return okAnswer(c.b.chats.wire(ch, listing{status: ch.status, updated: ch.updated}))
}

func serveHistory(c *call) answer {
	ch, refusal := c.chat()
	if refusal != nil {
		return *refusal
	}
	var filter struct {
		From *int64 `json:"messageIdFrom"`
	}
	if a := c.decode(&filter); a != nil {
		return *a
	}
	if filter.From != nil && *filter.From < 1 {
		return fail(http.StatusBadRequest, badParameter("messageIdFrom", fmt.Sprint(*filter.From)))
	}
	shown := ch.history
	if filter.From != nil {
		shown = ch.after(*filter.From, c.quirks.Chats.FromExclusive)
	}
	messages, next, refusal := page(c, slices.Clone(shown), pageSizes{byDefault: 50, max: 100},
		fmt.Sprintf("%d %s", ch.id, kit.Render(filter)), func(m *message, seed uint64) pageKey {
			switch c.quirks.Chats.HistoryOrder {
			case HistoryDescending:
				return pageKey{-m.at, -int64(m.order)}
			case HistoryShuffled:
				return drawn(m.id, seed)
			}
			return pageKey{m.at, int64(m.order)}
		})
	if refusal != nil {
		return *refusal
	}
	head := struct {
		OrderID int64       `json:"orderId,omitempty"`
		Context wireContext `json:"context"`
		Paging  *paging     `json:"paging,omitempty"`
	}{Context: ch.about(), Paging: c.paging(next)}
	if c.b.chats.spec.OrderIDs {
		head.OrderID = head.Context.OrderID
	}
	renders := make([][]byte, len(messages))
	for i, m := range messages {
		renders[i] = m.render
	}
	opening := fmt.Sprintf(`{"status":"OK","result":%s`, kit.Render(head))
	return answer{Status: http.StatusOK, ContentType: kit.TypeJSON,
		Body: kit.List([]byte(opening[:len(opening)-1]+`,"messages":[`), renders, []byte("]}}"))}
}

// after are the messages of a history from one on, or behind it. One that is not there, as it is late or another chat's,
// counts by its number.
func (ch *chat) after(id int64, exclusive bool) []*message {
	i := slices.IndexFunc(ch.history, func(m *message) bool { return m.id == id })
	if i >= 0 {
		if exclusive {
			i++
		}
		return ch.history[i:]
	}
	var out []*message
	for _, m := range ch.history {
		if m.id > id {
			out = append(out, m)
		}
	}
	return out
}

// serveMessage shows a message by its id, also one that the history does not show yet.
func serveMessage(c *call) answer {
	ch, refusal := c.chat()
	if refusal != nil {
		return *refusal
	}
	id, refusal := c.id("messageId")
	if refusal != nil {
		return *refusal
	}
	m := ch.said[id]
	if m == nil {
		return fail(http.StatusNotFound, fmt.Sprintf("Can't find message by id: '%d' for chat '%d'", id, ch.id))
	}
	return answer{Status: http.StatusOK, ContentType: kit.TypeJSON, Body: kit.List([]byte(`{"status":"OK","result":`), [][]byte{m.render}, []byte("}"))}
}
