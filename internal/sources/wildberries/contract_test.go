package wildberries_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/sourcetest"
	"syncd/internal/sources/wildberries"
)

func openAny(t testing.TB, tr http.RoundTripper) sources.Source { return open(t, tr, token(3)) }

func TestChatEventsContract(t *testing.T) {
	sourcetest.Run(t, sourcetest.Stream{
		Name: wildberries.ChatEvents, Secret: token(3), Open: openAny, Needed: []string{"chatID", "eventID"},
		List: func(items ...string) string {
			return `{"result":{"totalEvents":1,"events":[` + strings.Join(items, ",") + `]},"errors":null}`
		},
		Item: func(n int) string {
			at := sourcetest.Epoch.Add(-time.Duration(n) * time.Minute)
			return fmt.Sprintf(`{"chatID":"1:11f0-%d","eventID":"fd22e5bf-64fd-43f7-b3a0-ad29uu%06d","eventType":"message","message":{"text":"Hi"},"source":"rusite","addTimestamp":%d,"addTime":%q,"sender":"client"}`,
				n%2, n, at.UnixMilli(), at.Format(time.RFC3339))
		},
	})
}

func TestQuestionsContract(t *testing.T) {
	sourcetest.Run(t, sourcetest.Stream{
		Name: wildberries.Questions, Secret: token(3), Open: openAny, Needed: []string{"id"},
		List: func(items ...string) string {
			return `{"data":{"countUnanswered":1,"questions":[` + strings.Join(items, ",") + `]},"error":false,"errorText":"","additionalErrors":null}`
		},
		Item: func(n int) string {
			at := sourcetest.Epoch.Add(-time.Duration(n) * time.Minute)
			return fmt.Sprintf(`{"id":"2ncBtX4B9I0UHoor%04d","text":"?","createdDate":%q,"state":"wbRu","answer":{"text":"!","editable":true,"createDate":"2025-07-28T08:24:37.187113704Z"},"productDetails":{"nmId":1},"wasViewed":false}`,
				n, at.Format(time.RFC3339Nano))
		},
	})
}
