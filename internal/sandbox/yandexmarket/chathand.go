package yandexmarket

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"syncd/internal/sandbox/kit"
)

// Chat is a chat as the list shows it.
type Chat struct {
	ID int64
	// Status and Updated are those that the list shows.
	Status  string
	Updated time.Time
	// JSON is the entry exactly as POST …/chats sends it now.
	JSON json.RawMessage
}

// Message is a message as a history shows it.
type Message struct {
	ChatID, ID int64
	At         time.Time
	// JSON is the entry exactly as POST …/chats/history sends it.
	JSON json.RawMessage
}

// ChatBy says what chat [Business.AddChat] makes.
type ChatBy struct {
	// Type is CHAT or ARBITRAGE. Default: CHAT.
	Type string
	// Context is ORDER, RETURN or DIRECT. Default: ORDER.
	Context string
	// ContextID is the order's or the return's id. Default: a new one.
	ContextID int64
	// CampaignID is the order's store. Default: the first.
	CampaignID int64
	// Status is the chat's. Default: NEW.
	Status string
	// At is createdAt and updatedAt. Default: now.
	At time.Time
}

// MessageBy says what message [Business.AddMessage] makes.
type MessageBy struct {
	// ChatID is the chat that it is in.
	ChatID int64
	// Sender is who says it. Default: CUSTOMER.
	Sender string
	// Text is what is said. Default: nothing, which makes a sticker if there are no files.
	Text string
	// Files is how many files are with it.
	Files int
	// At is createdAt. Default: now. updatedAt of the chat never goes back.
	At time.Time
	// Status is the chat's from now on. Default: as the sender makes it.
	Status string
	// HistoryAfter and ListAfter are how long after At the history shows the message, and the list the change.
	HistoryAfter, ListAfter time.Duration
	// Raw is sent in place of the message, whatever it is. Default: the message as rendered.
	Raw json.RawMessage
}

// AddChat opens a chat, which the list shows at once. There is one chat of type CHAT for an order or a return; of what has
// one already it is an error.
func (b *Business) AddChat(by ChatBy) (Chat, error) {
	now := time.Now()
	b.lock(now)
	defer b.mu.Unlock()
	c := b.chats
	o := b.newOrder(c.byHand)
	if by.CampaignID != 0 {
		if o.store = b.storeByID(by.CampaignID); o.store == nil {
			return Chat{}, fmt.Errorf("business %d has no store %d", b.spec.ID, by.CampaignID)
		}
	} else {
		o.store = b.stores[0]
	}
	about := chatContext{kind: cmp.Or(by.Context, ContextOrder)}
	switch about.kind {
	case ContextOrder:
		about.id = cmp.Or(by.ContextID, o.id)
		o.id = about.id
		o = b.addOrder(o)
	case ContextReturn:
		about.id = cmp.Or(by.ContextID, o.id+1)
		if known, ok := b.refunds[about.id]; ok {
			o = known.order
		} else {
			b.addRefund(refund{about.id, b.addOrder(o)})
		}
	}
	kind := cmp.Or(by.Type, TypeChat)
	if other := c.byContext[about]; other != nil && kind == TypeChat {
		return Chat{}, fmt.Errorf("%s %d has chat %d", about.kind, about.id, other.id)
	}
	at := now
	if !by.At.IsZero() {
		at = by.At
	}
	ch := c.open(kind, about, o, o.buyer, at.UnixNano())
	ch.status = cmp.Or(by.Status, StatusNew)
	c.list(ch, now.UnixNano())
	return c.view(ch), nil
}

// AddMessage says something in a chat.
func (b *Business) AddMessage(by MessageBy) (Message, error) {
	now := time.Now()
	b.lock(now)
	defer b.mu.Unlock()
	c := b.chats
	in := c.byID[by.ChatID]
	if in == nil {
		return Message{}, fmt.Errorf("no chat %d", by.ChatID)
	}
	if by.At.IsZero() {
		by.At = now
	}
	w := wireMessage{Sender: cmp.Or(by.Sender, SenderCustomer), Message: by.Text, Payload: newPayload(c.byHand, by.Files)}
	status := cmp.Or(by.Status, line{sender: w.Sender}.next(in))
	m := c.say(c.byHand, in, w, by.At.UnixNano(), status, int64(by.HistoryAfter), int64(by.ListAfter), by.Raw)
	return Message{in.id, m.id, time.Unix(0, m.at), m.render}, nil
}

// SetChatStatus changes the status of a chat and nothing else of it; the list shows it at once.
func (b *Business) SetChatStatus(chatID int64, status string) error {
	now := time.Now()
	b.lock(now)
	defer b.mu.Unlock()
	ch := b.chats.byID[chatID]
	switch {
	case ch == nil:
		return fmt.Errorf("no chat %d", chatID)
	case !slices.Contains(chatStatuses, status):
		return fmt.Errorf("unknown status %q", status)
	}
	b.chats.setStatus(ch, status, 0, now.UnixNano())
	return nil
}

// HideChat takes a chat out of the list; its history, and GET …/chat, still show it. ShowChat puts it back.
func (b *Business) HideChat(chatID int64) error { return b.setGone(chatID, true) }

// ShowChat puts a chat back in the list.
func (b *Business) ShowChat(chatID int64) error { return b.setGone(chatID, false) }

func (b *Business) setGone(chatID int64, gone bool) error {
	b.lock(time.Now())
	defer b.mu.Unlock()
	ch := b.chats.byID[chatID]
	if ch == nil {
		return fmt.Errorf("no chat %d", chatID)
	}
	b.chats.setGone(ch, gone)
	return nil
}

// Chats returns the chats that the list shows now, in the order of their making.
func (b *Business) Chats() []Chat {
	b.lock(time.Now())
	defer b.mu.Unlock()
	out := []Chat{}
	for _, ch := range b.chats.chats {
		if ch.listed() {
			out = append(out, b.chats.view(ch))
		}
	}
	return out
}

// Messages returns what a chat's history shows now, oldest first; of an unknown chat nothing.
func (b *Business) Messages(chatID int64) []Message {
	b.lock(time.Now())
	defer b.mu.Unlock()
	out := []Message{}
	if ch := b.chats.byID[chatID]; ch != nil {
		for _, m := range ch.history {
			out = append(out, Message{ch.id, m.id, time.Unix(0, m.at), m.render})
		}
	}
	return out
}

func (c *chatWorld) view(ch *chat) Chat {
	return Chat{ch.id, ch.shown.status, time.Unix(0, ch.shown.updated), kit.Render(c.wire(ch, ch.shown))}
}
