package yandexmarket

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"unicode/utf8"
)

// serveNewChat opens a chat about an order or a return, or returns the one there is.
func serveNewChat(c *call) answer {
	var in struct {
		OrderID int64            `json:"orderId"`
		Context *wireContextPart `json:"context"`
	}
	if a := c.decode(&in); a != nil {
		return *a
	}
	if in.Context == nil && in.OrderID > 0 && c.b.chats.spec.OrderIDs {
		in.Context = &wireContextPart{ContextOrder, in.OrderID}
	}
	if in.Context == nil {
		return fail(http.StatusBadRequest, "Required parameter 'context' is missing")
	}
	about := chatContext{in.Context.Type, in.Context.ID}
	var o order
	var known bool
	switch about.kind {
	case ContextOrder:
		if o, known = c.b.orders[about.id]; !known {
			return fail(http.StatusNotFound, "Order not found")
		}
	case ContextReturn:
		r, known := c.b.refunds[about.id]
		if !known {
			return fail(http.StatusNotFound, "Return not found")
		}
		if o = r.order; o.store.placement == DBS {
			return fail(http.StatusBadRequest, "Chats about returns are not available for DBS stores")
		}
	default:
		return fail(http.StatusBadRequest, badParameter("context.type", about.kind))
	}
	ch := c.b.chats.byContext[about]
	if ch == nil {
		at := c.now.UnixNano()
		ch = c.b.chats.open(TypeChat, about, o, o.buyer, at)
		c.b.chats.list(ch, at)
	}
	return okAnswer(struct {
		ID int64 `json:"chatId"`
	}{ch.id})
}

// maxMessage is how long a message may be, in characters.
const maxMessage = 4096

func serveSend(c *call) answer {
	ch, refusal := c.chat()
	if refusal != nil {
		return *refusal
	}
	var in struct {
		Message string `json:"message"`
	}
	if a := c.decode(&in); a != nil {
		return *a
	}
	if n := utf8.RuneCountInString(in.Message); n < 1 || n > maxMessage {
		return fail(http.StatusBadRequest, fmt.Sprintf("Parameter message must have from 1 to %d characters", maxMessage))
	}
	return c.sent(ch, wireMessage{Message: in.Message})
}

// maxFile is how large a file may be.
const maxFile = 5 << 20

func serveSendFile(c *call) answer {
	ch, refusal := c.chat()
	if refusal != nil {
		return *refusal
	}
	_, params, _ := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	form := multipart.NewReader(bytes.NewReader(c.body), params["boundary"])
	for {
		part, err := form.NextPart()
		if err != nil {
			return fail(http.StatusBadRequest, "Required request part 'file' is not present")
		}
		if part.FormName() != "file" {
			continue
		}
		content, err := io.ReadAll(part)
		switch {
		case err != nil:
			return fail(http.StatusBadRequest, "Cannot parse request body")
		case len(content) > maxFile:
			return fail(http.StatusBadRequest, "The request is too big")
		}
		return c.sent(ch, wireMessage{Payload: []wirePayload{filePayload(c.b.chats.byHand, part.FileName(), len(content))}})
	}
}

// sent puts the seller's message in a chat. Its id is not told.
func (c *call) sent(ch *chat, w wireMessage) answer {
	w.Sender = SenderPartner
	chats := c.b.chats
	chats.say(chats.byHand, ch, w, c.now.UnixNano(), line{sender: SenderPartner}.next(ch), 0, 0, nil)
	return emptyAnswer()
}
