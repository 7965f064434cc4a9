package wildberries_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/sourcetest"
	"syncd/internal/sources/wildberries"
)

// TestChats: one request shows the whole list, those that moved last at the end.
func TestChats(t *testing.T) {
	at := func(minutes int) int64 { return time.Now().Add(time.Duration(minutes) * time.Minute).UnixMilli() }
	for _, walk := range []sources.Walk{sources.News, sources.Backfill} {
		synctest.Test(t, bubble(func(t *testing.T) {
			body := fmt.Sprintf(`{"result":[{"chatID":"1:a","replySign":"1:a::x","lastMessage":{"text":"!","addTimestamp":%d}},{"chatID":"1:b","lastMessage":{"addTimestamp":%d}},{"chatID":"1:c","lastMessage":null},{"chatID":"1:d"},{"chatID":7,"lastMessage":{"addTimestamp":"%d"}},{"chatID":"1:f","lastMessage":{"addTimestamp":9223372036854775807}},{"replySign":"1::x"}],"errors":null}`,
				at(-5), at(-60), at(-30))
			api := &direct{handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.RequestURI() != "/api/v1/seller/chats" {
					t.Errorf("unexpected request %s", r.URL)
				}
				fmt.Fprint(w, body)
			})}
			rd := newReader(t, open(t, api, token(3)), wildberries.Chats, time.Now(), 0)
			rd.query.Walk = walk
			for range 3 {
				asked := time.Now()
				page := rd.fetch()
				var ids []string
				for _, it := range page.Items {
					ids = append(ids, it.ID[0])
					if it.Kind != "chat" || it.Subject[0] != "chat" || it.Subject[1] != it.ID[0] || !it.Created.IsZero() || it.Immutable {
						t.Errorf("item %+v", it)
					}
				}
				// One without a time of its own stays behind the one that it came after.
				if got := strings.Join(ids, " "); got != "1:b 1:c 1:d 7 1:f 1:a" {
					t.Errorf("chats %s", got)
				}
				if !page.Done || page.Partial || len(page.Undecodable) != 1 || page.Note != "" || !page.Began.Equal(asked) {
					t.Errorf("page %+v", page)
				}
				if want := sourcetest.Epoch.Add(-5 * time.Minute); !page.Items[5].Changed.Equal(want) {
					t.Errorf("changed at %s, expected %s", page.Items[5].Changed, want)
				}
			}
			if api.n != 3 {
				t.Errorf("%d requests for three runs", api.n)
			}
		}))
	}
}

// TestChatsEmpty: no chats, or an answer without any for once, is no error and no
// item.
func TestChatsEmpty(t *testing.T) {
	for body, fine := range map[string]bool{
		`{"result":[],"errors":null}`: true, `{"result":null,"errors":null}`: true, `{"result":null,"errors":[]}`: true,
		`{"errors":null}`: false, `{"result":{}}`: false, `{"result":null,"errors":["down"]}`: false, `{"result":[],"errors":["down"]}`: false, `{"result":null,"error":"down"}`: false,
	} {
		synctest.Test(t, bubble(func(t *testing.T) {
			api := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) })
			page, err := open(t, &direct{handler: api}, token(3)).Fetch(t.Context(), sources.Query{Stream: wildberries.Chats, Walk: sources.News, Now: time.Now()})
			if (err == nil) != fine || fine && (!page.Done || len(page.Items) > 0) || !fine && sources.AsError(err).Kind != sources.Unreadable {
				t.Errorf("%s: %+v, %v", body, page, err)
			}
		}))
	}
}

// TestNewChatWakesTheList: the first message of a chat is a reason to read the list
// of chats, and nothing else is.
func TestNewChatWakesTheList(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		f := &feed{size: fixed(50)}
		for i, extra := range []string{`,"isNewChat":true`, ``, `,"isNewChat":false`, `,"isNewChat":null`, `,"isNewChat":"true"`, `,"isnewchat":true`} {
			ms := time.Now().Add(-time.Hour).UnixMilli() + int64(i)
			f.add(feedEvent{ms: ms, raw: fmt.Sprintf(`{"chatID":"1:c","eventID":"e%d","addTimestamp":%d%s}`, i, ms, extra)})
		}
		var wakes []string
		for _, it := range newReader(t, f.open(t, 3), wildberries.ChatEvents, time.Time{}, time.Minute).fetch().Items {
			wakes = append(wakes, it.Wakes)
		}
		if !slices.Equal(wakes, []string{wildberries.Chats, "", "", "", "", ""}) {
			t.Errorf("wakes %q", wakes)
		}
	}))
}
