package wildberries

import (
	"context"
	"encoding/json"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

const pathChats = "/api/v1/seller/chats"

// chatsEndpoint has its list at the top, and null there where it is empty. Its
// requests share the bucket of the chat events, which are what somebody waits
// for: where both contend for it (a Base token has one request an hour) one in
// twelve is for the list.
var chatsEndpoint = endpoint{group: GroupChat, path: pathChats, weight: 1.0 / 11, list: []string{"result"}, decode: decodeChat, nullable: nullIsEmpty}

// chatsCursor holds nothing: one answer is the whole list, and a whole run.
type chatsCursor struct {
	V int `json:"v"`
}

func (c *Client) chats(ctx context.Context, q sources.Query) (sources.Page, error) {
	cur := chatsCursor{V: 1}
	if err := sources.DecodeCursor(q.Stream, q.Cursor, &cur, func() bool { return true }); err != nil {
		return sources.Page{}, err
	}
	l, err := c.list(ctx, q, chatsEndpoint, nil)
	if err != nil {
		return sources.Page{}, err
	}
	sortByChange(l.Items)
	page := sources.Page{Items: l.Items, Undecodable: l.Odd, Began: q.Now, Date: l.Date, Done: true, Progress: 1}
	page.Cursor, err = json.Marshal(cur)
	return page, err
}

// decodeChat reads one chat. It does not say when it began; what moves it is its
// last message, which some chats do not have.
func decodeChat(raw json.RawMessage, now time.Time) (sources.Item, error) {
	item, f, err := listing.DecodeNamed(raw, "chat", "chatID")
	if err != nil {
		return sources.Item{}, err
	}
	if ms := listing.Object(f["lastMessage"]).Whole("addTimestamp"); ms != 0 {
		item.Changed = listing.Plausible(time.UnixMilli(ms).UTC(), now)
	}
	return item, nil
}
