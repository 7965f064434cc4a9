package yandexmarket_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/sourcetest"
	"syncd/internal/sources/yandexmarket"
)

func openAny(t testing.TB, tr http.RoundTripper) sources.Source { return open(t, tr) }

// msk is how the marketplace writes times.
func msk(t time.Time) string { return t.In(time.FixedZone("", 3*60*60)).Format(time.RFC3339) }

func TestChatsContract(t *testing.T) {
	sourcetest.Run(t, sourcetest.Stream{
		Name: yandexmarket.Chats, Secret: apiKey, Header: "Api-Key", Open: openAny, Needed: []string{"chatId"},
		List: func(items ...string) string { return page("chats", items, "") },
		Item: func(n int) string {
			at := sourcetest.Epoch.Add(-time.Duration(n) * time.Minute)
			return fmt.Sprintf(`{"chatId":%d,"context":{"type":"ORDER","customer":{"name":"Иван П.","publicId":"abc123"},"campaignId":21000001,"orderId":350000001},"type":"CHAT","status":"WAITING_FOR_PARTNER","createdAt":%q,"updatedAt":%q}`,
				11870001+n, msk(at), msk(at.Add(30*time.Second)))
		},
	})
}

func TestChatMessagesContract(t *testing.T) {
	sourcetest.Run(t, sourcetest.Stream{
		Name: yandexmarket.ChatMessages, Secret: apiKey, Header: "Api-Key", Open: openAny, Needed: []string{"messageId"},
		Query: func(q *sources.Query) {
			q.Walk = sources.Follow
			q.Visit = &sources.Visit{ID: "11870001", Due: q.Now, Found: []byte(`{"u":"2026-02-02T19:00:00Z","s":"NEW"}`)}
		},
		List: func(items ...string) string { return page("messages", items, "") },
		Item: func(n int) string {
			at := sourcetest.Epoch.Add(-time.Duration(n) * time.Minute)
			return fmt.Sprintf(`{"messageId":%d,"createdAt":%q,"sender":"CUSTOMER","message":"Когда доставка?","payload":null}`, 700100-n, msk(at))
		},
	})
}
