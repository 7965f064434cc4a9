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

func TestFeedbacksContract(t *testing.T) {
	sourcetest.Run(t, sourcetest.Stream{
		Name: wildberries.Feedbacks, Secret: token(3), Open: openAny, Needed: []string{"id"},
		List: func(items ...string) string {
			return `{"data":{"countUnanswered":1,"countArchive":1,"feedbacks":[` + strings.Join(items, ",") + `]},"error":false,"errorText":"","additionalErrors":null}`
		},
		Item: func(n int) string {
			at := sourcetest.Epoch.Add(-time.Duration(n) * time.Minute).In(time.FixedZone("", 3*60*60))
			return fmt.Sprintf(`{"id":"YX52RZEBhH9mrcYd%04d","text":"","pros":"","cons":"","productValuation":5,"createdDate":%q,"answer":{"text":"!","state":"wbRu","editable":false},"state":"wbRu","productDetails":{"imtId":1,"nmId":1,"size":"0"},"video":null,"photoLinks":null,"orderStatus":"buyout","bables":null,"lastOrderCreatedAt":"2024-08-12T10:20:48+03:00","parentFeedbackId":null}`,
				n, at.Format(time.RFC3339))
		},
	})
}

func TestChatsContract(t *testing.T) {
	sourcetest.Run(t, sourcetest.Stream{
		Name: wildberries.Chats, Secret: token(3), Open: openAny, Needed: []string{"chatID"}, Timeless: true,
		List: func(items ...string) string {
			return `{"result":[` + strings.Join(items, ",") + `],"errors":null}`
		},
		Item: func(n int) string {
			return fmt.Sprintf(`{"chatID":"1:11f0-%d","replySign":"1:11f0-%d::5c3a","clientName":"","goodCard":{"nmID":0,"price":0,"priceCurrency":"","rid":"","size":""},"lastMessage":{"text":"Hi","addTimestamp":%d}}`,
				n, n, sourcetest.Epoch.Add(-time.Duration(n)*time.Minute).UnixMilli())
		},
	})
}

func TestClaimsContract(t *testing.T) {
	sourcetest.Run(t, sourcetest.Stream{
		Name: wildberries.Claims, Secret: token(3), Open: openAny, Needed: []string{"id"},
		List: func(items ...string) string {
			return fmt.Sprintf(`{"claims":[%s],"total":%d}`, strings.Join(items, ","), len(items))
		},
		Item: func(n int) string {
			at := sourcetest.Epoch.Add(3*time.Hour - time.Duration(n)*time.Minute) // by the clocks of Moscow
			return fmt.Sprintf(`{"id":"fe3e9337-e9f9-423c-8930-946a8ebe%03d","claim_type":1,"status":2,"status_ex":8,"nm_id":196320101,"dt":%q,"order_dt":"2024-10-27T05:18:56","dt_update":"2025-05-10T18:01:06.999613","photos":["//photos.wbstatic.net/1.webp"],"actions":["approve1"],"price":157,"currency_code":"643","delivery_dt":null}`,
				n, at.Format("2006-01-02T15:04:05.999999"))
		},
	})
}

func TestFeedbackPinsContract(t *testing.T) {
	sourcetest.Run(t, sourcetest.Stream{
		Name: wildberries.FeedbackPins, Secret: token(3), Open: openAny, Needed: []string{"pinId"}, Timeless: true,
		List: func(items ...string) string { return `{"data":[` + strings.Join(items, ",") + `]}` },
		Item: func(n int) string {
			return fmt.Sprintf(`{"changeStateAt":%q,"imtId":256971531,"nmId":177974151,"pinId":%d,"pinMethod":"subscription","pinOn":"imt","feedbackId":"DibuRAImknLyiqgzvGcU","state":"unpinned","unpinnedCause":"sysTariffUnpinned"}`,
				sourcetest.Epoch.Add(-time.Duration(n)*time.Minute).Format(time.RFC3339), 1857762+n)
		},
	})
}
