package yandexmarket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

// clocksApart is how far the clocks may be apart by which it is decided that a chat
// holds no news.
const clocksApart = 10 * time.Minute

// chatsCursor is where a reading of the list continues, for chats as for chat_messages:
// see chatMessages.
type chatsCursor struct {
	V     int       `json:"v"`
	Pages int       `json:"pages,omitempty"` // of the last whole scan
	Heard bool      `json:"heard,omitempty"` // chat_messages: the marketplace's clock
	Run   *chatsRun `json:"run,omitempty"`
}

// chatsRun is one reading of the whole list. A list that moves meanwhile may show a
// chat twice, or not at all: then the next run shows it, as moved as ever.
type chatsRun struct {
	Asked int64 `json:"asked"` // when it began by our clock, Unix milliseconds
	Scan  scan  `json:"scan"`
	Chats int   `json:"chats,omitempty"` // that it has shown
}

func (c *chatsCursor) sound() bool {
	return sources.Counts(c.Pages) && (c.Run == nil || sources.Times(c.Run.Asked) && sources.Counts(c.Run.Chats) && c.Run.Scan.sound())
}

var chatEntries = entries{name: "chats", decode: decodeChat}

// noFilter is the body of a list that is not filtered.
type noFilter struct{}

// chats reads chats. The list is all there is: it has no order and no filter by time.
func (c *Client) chats(ctx context.Context, q sources.Query) (sources.Page, error) {
	if q.Walk == sources.Sweep {
		return c.missingChats(ctx, q)
	}
	cur := chatsCursor{V: 1}
	if err := sources.DecodeCursor(q.Stream, q.Cursor, &cur, cur.sound); err != nil {
		return sources.Page{}, err
	}
	return c.chatList(ctx, q, cur)
}

// chatList reads a page of the list, and of News what it finds to visit.
func (c *Client) chatList(ctx context.Context, q sources.Query, cur chatsCursor) (sources.Page, error) {
	if cur.Run == nil {
		cur.Run = &chatsRun{Asked: q.Now.UnixMilli()}
	}
	r := cur.Run
	page := sources.Page{Began: time.UnixMilli(r.Asked)}
	l, err := c.page(ctx, q, getChats, 0, chatEntries, nil, noFilter{}, r.Scan.Token)
	switch {
	case err == nil:
		sortChats(l.Items)
		page.Items, page.Undecodable, page.Date = l.Items, l.Odd, l.Date
		if q.Walk == sources.News {
			if page.Found, err = movedChats(q, l); err != nil {
				return sources.Page{}, err
			}
		}
		page.Done, page.Note = r.Scan.after(getChats, l)
		r.Chats += l.N
	case r.Scan.again(err):
		r.Chats = 0
	default:
		return sources.Page{}, err
	}
	page.Partial = page.Note != ""
	page.Progress = float64(r.Scan.Pages) / float64(max(cur.Pages, r.Scan.Pages+1))
	if page.Done {
		page.Progress = 1
		var err error
		if page.Plan, err = c.chatsPlan(r); err != nil {
			return sources.Page{}, err
		}
		cur.Pages, cur.Run = r.Scan.Pages, nil
	}
	page.Cursor, err = json.Marshal(cur)
	return page, err
}

// chatsPlan says how often the list can be read, by what the marketplace says of its limit.
func (c *Client) chatsPlan(r *chatsRun) (string, error) {
	w, err := c.window(getChats, 0)
	if err != nil {
		return "", err
	}
	calls, pause := w.Usable()
	every := time.Duration(r.Scan.Pages) * pause
	return fmt.Sprintf("a scan of %d chats is %d requests: %d an hour allow one every %s", r.Chats, r.Scan.Pages, calls, every.Round(time.Second)), nil
}

// chatShown is what the list shows of a chat, as far as it tells whether there are new
// messages: what a visit keeps as Found. updatedAt is the time of the last message, to
// the second. It should do alone, but that nothing else moves it is not documented,
// and neither that it moves with everything.
type chatShown struct {
	Updated string `json:"u,omitempty"` // in UTC; as it came where it is no time
	Status  string `json:"s,omitempty"`
}

// updated is the time of the last message; zero: nobody knows.
func (s chatShown) updated() time.Time {
	t, _ := time.Parse(time.RFC3339Nano, s.Updated)
	return t
}

// shownOf returns what an entry of the list shows.
func shownOf(chat sources.Item) chatShown {
	f := listing.Object(chat.Body)
	s := chatShown{Updated: brief(string(f["updatedAt"])), Status: brief(f.Text("status"))}
	if !chat.Changed.IsZero() {
		s.Updated = chat.Changed.Format(time.RFC3339Nano)
	}
	return s
}

// brief is s, or where that is long something short that is as different from others.
func brief(s string) string {
	if len(s) > 64 {
		return fmt.Sprintf("%x", listing.Key(s))
	}
	return s
}

// movedChats returns the chats of a page that have moved since they were found the last
// time, for chat_messages to visit. One that nobody knows, and that holds no message
// younger than what counts as news, is only remembered: all that it holds is read when
// it moves.
func movedChats(q sources.Query, l listing.Listing) ([]sources.Visit, error) {
	var visits []sources.Visit
	for _, chat := range l.Items {
		shown, err := json.Marshal(shownOf(chat))
		if err != nil {
			return nil, err
		}
		known, ok := sources.Visit{}, false
		if q.Remembered != nil {
			if known, ok, err = q.Remembered(ChatMessages, chat.ID[0]); err != nil {
				return nil, err
			}
		}
		if ok && bytes.Equal(known.Found, shown) {
			continue
		}
		v := sources.Visit{Stream: ChatMessages, ID: chat.ID[0], Created: chat.Created, Found: shown}
		if ok || chat.Changed.IsZero() || !chat.Changed.Before(q.Since.Add(-clocksApart)) {
			v.Due = q.Now
			// History that nobody has read yet lets those go ahead that move now.
			v.Urgent = ok || chat.Changed.After(l.Now.Add(-time.Hour))
		}
		visits = append(visits, v)
	}
	return visits, nil
}

// missingCursor is where a sweep continues.
type missingCursor struct {
	V     int    `json:"v"`
	After string `json:"after,omitempty"` // see sources.Query.Missing
}

// missingLook is how many chats a sweep looks at before a page ends without a request.
const missingLook = 1000

// missingChats asks for chats that the list does not show any more, one by one, as long
// as something may still happen to them.
func (c *Client) missingChats(ctx context.Context, q sources.Query) (sources.Page, error) {
	cur := missingCursor{V: 1}
	if err := sources.DecodeCursor(q.Stream, q.Cursor, &cur, func() bool { return len(cur.After) <= 4<<10 }); err != nil {
		return sources.Page{}, err
	}
	page := sources.Page{}
	id := ""
	for n := 0; q.Missing != nil && n < missingLook && id == "" && !page.Done; n++ {
		missing, next, err := q.Missing(cur.After, 1)
		if err != nil {
			return sources.Page{}, err
		}
		for _, known := range missing {
			chat, err := decodeChat(known.Body, q.Now)
			if err == nil && shownOf(chat).Status != "FINISHED" && !lastTime(chat).Before(q.Now.Add(-q.Window)) {
				id = chat.ID[0]
			}
		}
		cur.After, page.Done = next, next == ""
	}
	page.Done = page.Done || q.Missing == nil
	if id != "" {
		l, err := c.chat(ctx, q, id)
		if page.Failed = hopeless(err); page.Failed == nil && err != nil {
			return sources.Page{}, err
		}
		page.Items, page.Undecodable, page.Date = l.Items, l.Odd, l.Date
		if page.Found, err = movedChats(q, l); err != nil {
			return sources.Page{}, err
		}
	}
	var err error
	page.Cursor, err = json.Marshal(cur)
	return page, err
}

// chat asks for one chat. One that does not exist any more is an empty list.
func (c *Client) chat(ctx context.Context, q sources.Query, id string) (listing.Listing, error) {
	r, err := c.request(q, getChat, 0)
	if err != nil {
		return listing.Listing{}, err
	}
	r.Query = url.Values{"chatId": {id}}
	// There is no list in this answer: what it holds are members.
	l, err := listing.Read(ctx, c.api, r, q.Now, listing.Method{List: []string{"chats"}, Check: envelope})
	if err != nil {
		if noChat(err) {
			err = nil
		}
		return listing.Listing{}, err
	}
	raw := l.Members["result"]
	if raw == nil || string(raw) == "null" {
		return l, nil
	}
	if item, err := decodeChat(raw, l.Now); err != nil {
		l.Odd = []sources.Undecodable{{Raw: raw, Reason: err.Error()}}
	} else {
		l.Items = []sources.Item{item}
	}
	return l, nil
}

// hopeless returns err as the failure of a part that a run leaves out, where the same
// request can only fail again, and others may work; nil: it is something else.
func hopeless(err error) *sources.Error {
	if e, ok := errors.AsType[*sources.Error](err); ok && (e.Kind == sources.Rejected || e.Kind == sources.Forbidden) && e.Scope == sources.ScopeRequest {
		return e
	}
	return nil
}

// noChat says whether a request failed since there is no such chat: "Can't find chat by
// id: 'chatId'".
func noChat(err error) bool {
	e, ok := errors.AsType[*sources.Error](err)
	return ok && e.Status == http.StatusNotFound && listing.Says(e.Err.Error(), "find chat")
}

// decodeChat reads one chat.
func decodeChat(raw json.RawMessage, now time.Time) (sources.Item, error) {
	item, f, err := listing.DecodeNamed(raw, "chat", "chatId")
	if err != nil {
		return sources.Item{}, err
	}
	item.Created = listing.Plausible(f.Instant("createdAt"), now)
	item.Changed = listing.Plausible(f.Instant("updatedAt"), now)
	return item, nil
}

// sortChats puts chats in the order of what happened to them last.
func sortChats(chats []sources.Item) {
	slices.SortStableFunc(chats, func(a, b sources.Item) int { return lastTime(a).Compare(lastTime(b)) })
}

func lastTime(chat sources.Item) time.Time {
	if chat.Changed.After(chat.Created) {
		return chat.Changed
	}
	return chat.Created
}
