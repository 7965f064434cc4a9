package yandexmarket

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

// chatMessages reads chat_messages. Which chats have moved the list of chats tells,
// which chats reads where it is enabled: then News has nothing to ask for. The messages
// themselves are what Follow reads, chat by chat.
func (c *Client) chatMessages(ctx context.Context, q sources.Query) (sources.Page, error) {
	switch q.Walk {
	case sources.Follow:
		return c.visitChat(ctx, q)
	case sources.Backfill:
		return c.pastMessages(ctx, q)
	}
	cur := chatsCursor{V: 1}
	if err := sources.DecodeCursor(q.Stream, q.Cursor, &cur, cur.sound); err != nil {
		return sources.Page{}, err
	}
	if !c.polls(Chats) {
		page, err := c.chatList(ctx, q, cur)
		page.Items = nil // they are what chats emits
		return page, err
	}
	page := sources.Page{Began: q.Now, Done: true, Progress: 1}
	if !cur.Heard {
		// What is old is decided by the marketplace's clock, which no visit may be the
		// first to hear.
		l, err := c.page(ctx, q, getChats, 0, chatEntries, url.Values{"limit": {"1"}}, noFilter{}, "")
		if err != nil {
			return sources.Page{}, err
		}
		page.Date = l.Date
	}
	var err error
	page.Cursor, err = json.Marshal(chatsCursor{V: 1, Heard: true})
	return page, err
}

// history asks for a page of the messages of a chat. from is the id of the message with
// which they begin, or behind which; 0: all. It is not documented in which order they
// come.
func (c *Client) history(ctx context.Context, q sources.Query, chat string, from int64, token string) (listing.Listing, error) {
	e := entries{name: "messages", decode: func(raw json.RawMessage, now time.Time) (sources.Item, error) {
		return decodeMessage(chat, raw, now)
	}}
	body := struct {
		From int64 `json:"messageIdFrom,omitempty"`
	}{from}
	l, err := c.page(ctx, q, getChatHistory, 0, e, url.Values{"chatId": {chat}}, body, token)
	slices.SortStableFunc(l.Items, func(a, b sources.Item) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Rank, b.Rank))
	})
	return l, err
}

// decodeMessage reads one message of a chat. All of it but its id, its time and its
// sender may be missing: a sticker has neither text nor file.
func decodeMessage(chat string, raw json.RawMessage, now time.Time) (sources.Item, error) {
	body, f, err := listing.Decode(raw)
	if err != nil {
		return sources.Item{}, err
	}
	id := f.Text("messageId")
	if err := listing.CheckID("messageId", id); err != nil {
		return sources.Item{}, err
	}
	rank, err := strconv.ParseUint(id, 10, 64) // as it is documented to be a number
	if err != nil {
		rank = 0
	}
	return sources.Item{
		Kind: "chat_message", ID: []string{chat, id}, Subject: []string{"chat", chat},
		Created: listing.Plausible(f.Instant("createdAt"), now), Rank: rank, Immutable: true, Body: body,
	}, nil
}

// maxQueue bounds the chats that wait for the end of their list.
const maxQueue = 2000

// pastTries is how often a backfill reads a chat that has no end, or whose pages overlap.
const pastTries = 3

// pastCursor is where a backfill of messages continues.
type pastCursor struct {
	V   int      `json:"v"`
	Run *pastRun `json:"run,omitempty"`
}

// pastRun reads the list of chats, and then the messages of each of them. Of a list that
// is longer than the queue it reads the rest as the queue has room.
type pastRun struct {
	Asked   int64       `json:"asked"` // when it began by our clock, Unix milliseconds
	List    scan        `json:"list"`
	Listed  bool        `json:"listed,omitempty"`  // the list has no more pages
	Partial bool        `json:"partial,omitempty"` // something was left out
	Queue   []string    `json:"queue,omitempty"`   // the chats to read, the first one perhaps in part
	Chat    scan        `json:"chat"`              // of the messages of that one
	Staged  bool        `json:"staged,omitempty"`  // they have several pages
	Cut     int         `json:"cut,omitempty"`     // readings of them that had no end, or may have missed some
	Read    chatReading `json:"read,omitzero"`     // of them
	Before  uint64      `json:"before,omitempty"`  // Sum of the reading before it
}

func (c *pastCursor) sound() bool {
	r := c.Run
	return r == nil || sources.Times(r.Asked) && sources.Counts(r.Cut) && r.List.sound() && r.Chat.sound() && r.Read.sound() && len(r.Queue) <= maxQueue &&
		!slices.ContainsFunc(r.Queue, func(id string) bool { return listing.CheckID("chatId", id) != nil })
}

// pastMessages is the walk Backfill of chat_messages.
func (c *Client) pastMessages(ctx context.Context, q sources.Query) (sources.Page, error) {
	cur := pastCursor{V: 1}
	if err := sources.DecodeCursor(q.Stream, q.Cursor, &cur, cur.sound); err != nil {
		return sources.Page{}, err
	}
	if cur.Run == nil {
		cur.Run = &pastRun{Asked: q.Now.UnixMilli()}
	}
	r := cur.Run
	page := sources.Page{Began: time.UnixMilli(r.Asked)}
	read := c.pastChat
	if r.lists() {
		read = c.pastList
	}
	if err := read(ctx, q, r, &page); err != nil {
		return sources.Page{}, err
	}
	r.Partial = r.Partial || page.Note != "" || page.Failed != nil
	if r.Listed && len(r.Queue) == 0 {
		page.Done, page.Partial, cur.Run = true, r.Partial, nil
	}
	var err error
	page.Cursor, err = json.Marshal(cur)
	return page, err
}

// lists says whether the list comes next: first, as long as it goes on, since its page
// token may not live for long.
func (r *pastRun) lists() bool {
	return !r.Listed && len(r.Queue) <= maxQueue-getChats.most && r.Chat.Pages == 0
}

// pastList reads a page of the list of chats.
func (c *Client) pastList(ctx context.Context, q sources.Query, r *pastRun, page *sources.Page) error {
	l, err := c.page(ctx, q, getChats, 0, chatEntries, nil, noFilter{}, r.List.Token)
	if err != nil {
		if r.List.again(err) {
			return nil
		}
		return err
	}
	page.Date = l.Date
	r.Listed, page.Note = r.List.after(getChats, l)
	for _, chat := range l.Items {
		if id := chat.ID[0]; (chat.Changed.IsZero() || !chat.Changed.Before(q.Since)) && !slices.Contains(r.Queue, id) {
			r.Queue = append(r.Queue, id)
		}
	}
	if len(r.Queue) > maxQueue {
		page.Note = fmt.Sprintf("%s shows %d chats on a page: all but %d are left out", getChats.path, len(r.Queue), maxQueue)
		r.Queue = r.Queue[:maxQueue]
	}
	return nil
}

// pastChat reads a page of the messages of the first chat that is queued.
func (c *Client) pastChat(ctx context.Context, q sources.Query, r *pastRun, page *sources.Page) error {
	l, err := c.history(ctx, q, r.Queue[0], 0, r.Chat.Token)
	done := false
	switch {
	case err == nil:
		page.Items, page.Undecodable, page.Date = l.Items, l.Odd, l.Date
		r.Read.add(l.Items, 0)
		if done, page.Note = r.Chat.after(getChatHistory, l); done && page.Note == "" && r.Read.Mixed && r.Read.Sum != r.Before {
			page.Note = mixedNote
		}
		if page.Note != "" && r.Cut < pastTries-1 {
			done, page.Note = false, ""
			r.Chat, r.Read, r.Before, r.Cut = scan{}, chatReading{}, r.Read.Sum, r.Cut+1
		}
	case r.Chat.again(err):
		r.Read = chatReading{}
	case noChat(err):
		done = true
	case hopeless(err) != nil:
		page.Failed, done = hopeless(err), true
	default:
		return err
	}
	r.Staged = r.Staged || !done
	page.Staged, page.Ordered = r.Staged, r.Staged && done
	if done {
		r.nextChat()
	}
	return nil
}

// nextChat leaves the first chat that is queued.
func (r *pastRun) nextChat() {
	r.Queue, r.Chat, r.Staged, r.Cut, r.Read, r.Before = r.Queue[1:], scan{}, false, 0, chatReading{}, 0
}

// skipMessages steps over the chat whose messages are next.
func skipMessages(q sources.Query) (sources.Cursor, string, error) {
	cur := pastCursor{V: 1}
	if err := sources.DecodeCursor(q.Stream, q.Cursor, &cur, cur.sound); err != nil {
		return nil, "", err
	}
	if cur.Run == nil || len(cur.Run.Queue) == 0 || cur.Run.lists() {
		return nil, "", errNoSkip
	}
	leftOut := fmt.Sprintf("the older messages of chat %.100q", cur.Run.Queue[0])
	cur.Run.nextChat()
	cur.Run.Partial = true
	next, err := json.Marshal(cur)
	return next, leftOut, err
}
