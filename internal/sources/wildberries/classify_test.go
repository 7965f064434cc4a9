package wildberries_test

import (
	"strings"
	"testing"

	"syncd/internal/sources"
	"syncd/internal/sources/wildberries"
)

// TestClassify holds every error body of wildberries.md §3 and of the OpenAPI
// documents (2026-07-02, 2026-08-19) that a GET can get, and what else answers in
// the marketplace's place. hint is what the operator has to be told.
func TestClassify(t *testing.T) {
	const (
		request = sources.ScopeRequest
		stream  = sources.ScopeStream
		group   = sources.ScopeGroup
		report  = "report it, with the request"
	)
	for _, tt := range []struct {
		status int
		body   string
		kind   sources.Kind
		scope  sources.Scope
		text   string // empty: left to the caller
		hint   string // empty: nothing to do
	}{
		{401, `{"title":"unauthorized","detail":"token problem; token is malformed: could not base64 decode signature: illegal base64 data at input byte 84","code":"07e4668e--a53a3d31f8b0-[UK-oWaVDUqNrKG]; 03bce=277; 84bd353bf-75","requestId":"7b80742415072fe8b6b7f7761f1d1211","origin":"s2s-api-auth-catalog","status":401,"statusText":"Unauthorized","timestamp":"2024-09-30T06:52:38Z"}`,
			sources.Unauthorized, group, "unauthorized: token problem; token is malformed", "damaged"},
		{401, `{"title":"unauthorized","detail":"token problem; token is expired","origin":"ag-marketplace","status":401}`, sources.Unauthorized, group, "token is expired", "too old"},
		{401, `{"title":"unauthorized","detail":"token problem; token is withdrawn","origin":"ag-marketplace","status":401}`, sources.Unauthorized, group, "token is withdrawn", "withdrawn in the seller's portal"},
		{401, `{"title":"unauthorized","detail":"empty Authorization header","status":401}`, sources.Unauthorized, group, "empty Authorization", "damaged"},
		{401, `{"title":"unauthorized","detail":"token scope not allowed","code":"461a0b83d6bd a53a3d31f8b003bce 8d7a4aaab17a","origin":"s2s-api-auth-chatx","status":401}`,
			sources.Unauthorized, group, "token scope not allowed", `the category "Buyers chat"`},
		{401, `{"title":"unauthorized","detail":"no active subscription or tariff"}`, sources.Unauthorized, group, "no active subscription", `the category "Buyers chat"`},
		{401, `{"title":"unauthorized","status":"401","detail":null}`, sources.Unauthorized, group, "unauthorized", `the category "Buyers chat"`},
		{402, `{"title":"payment required","detail":"wb solution for business has insufficient funds on its balance. please top up the balance in the company's personal account https://dev.wildberries.ru/company"}`,
			sources.Payment, group, "insufficient funds", "top it up"},
		{403, `{"status":403,"statusText":"Forbidden","title":"Forbidden","detail":"scope is not allowed for this resource","requestId":"0190b8a1","origin":"ag-marketplace","timestamp":"2026-09-03T10:00:00Z"}`,
			sources.Forbidden, group, "scope is not allowed", `the category "Buyers chat"`},
		{403, `{"title":"forbidden","detail":"base token is not allowed","origin":"s2s-finance"}`, sources.Forbidden, group, "base token is not allowed", "make a Personal one"},
		{403, `{"detail":"token does not satisfy additional requirements"}`, sources.Forbidden, group, "additional requirements", "another kind of token"},
		{403, `{"data":null,"error":true,"errorText":"Ошибка авторизации","additionalErrors":null,"requestId":"734c9ea8-39e5-45c9-8cad-f03c13f733e9"}`, sources.Forbidden, group, "Ошибка авторизации", `the category "Buyers chat"`},
		{403, `{"origin":"pin-open-api","requestId":"7b64у8ffc3523450d613723fwу61873e","status":403,"title":"no active subscription or tariff","detail":"this feature requires active subscription or active tariff"}`,
			sources.Forbidden, stream, "no active subscription or tariff", "Jam"},
		{403, `{"title":"access denied"}`, sources.Forbidden, stream, "access denied", "does not say what it forbids"},
		{429, `{"title":"too many requests","detail":"limited by c122a060-a7fb-4bb4-abb0-32fd4e18d489","code":"07e4668e-ac2242c5c8c5-[UK-4dx7JUdskGZ]","requestId":"9d3c","origin":"s2s-api-auth-catalog","status":429,"statusText":"Too Many Requests","timestamp":"2024-09-30T06:52:38Z"}`,
			sources.RateLimited, group, "limited by c122a060", "somebody else"},
		{429, `{"title":"too many requests","detail":"rate limit exceeded, retry after the period specified in the X-RateLimit-Retry header","origin":"ag-finance","status":429}`, sources.RateLimited, group, "rate limit exceeded", "somebody else"},
		{429, `{"detail":"Limited by global limiter, per seller 2f0c0b6a; See https://dev.wildberries.ru/openapi/api-information","origin":"s2s-api","code":"461a0b83d6bd 2950e93b5fda"}`, sources.RateLimited, group, "global limiter", "as a whole"},
		{400, `{"data":null,"error":true,"errorText":"Something went wrong","additionalErrors":null,"requestId":"r"}`, sources.Rejected, request, "Something went wrong", report},
		{400, `{"data":null,"error":true,"errorText":"Плохой формат isAnswered","additionalErrors":["is not a bool",""],"requestId":"r"}`, sources.Rejected, request, "isAnswered: is not a bool", report},
		{400, `{"data":null,"error":true,"errorText":"Плохой формат dateFrom","additionalErrors":null}`, sources.Rejected, request, "Плохой формат dateFrom", report},
		{400, `{"data":null,"error":true,"errorText":"Плохой формат dateTo","additionalErrors":7}`, sources.Rejected, request, "Плохой формат dateTo", report},
		{400, `{"data":null,"error":true,"errorText":"Неправильный id в запросе","additionalErrors":null}`, sources.Rejected, request, "Неправильный id", report},
		{400, `{"errorText":"Failed to receive the feedback"}`, sources.Rejected, request, "Failed to receive", report},
		{400, `{"title":"bad request","requestId":"e6c4","origin":"fbapi","detail":"content-type header not specified"}`, sources.Rejected, request, "content-type", report},
		{400, `{"status":400,"title":"Bad Request","detail":"state must be one of the values 'pinned', 'unpinned'","requestId":"7b64","origin":"pin-open-api"}`, sources.Rejected, request, "state must be", report},
		{400, `{"status":400,"title":"Bad Request","origin":"proxy-chats","detail":"Invalid number","requestId":"62f5","error":"Invalid number"}`, sources.Rejected, request, "Bad Request: Invalid number", report},
		{400, `{"status":400,"title":"Bad Request","origin":"proxy-chats","detail":"Invalid value for \"next\"","requestId":"62f5","error":"Invalid value for \"next\""}`, sources.Rejected, request, `Invalid value for "next"`, report},
		{400, "{\"title\":\"Invalid query params\",\"detail\":\"Failed to deserialize query string: missing field `is_archive`\",\"requestId\":\"r\"}", sources.Rejected, request, "missing field `is_archive`", report},
		{404, `{"title":"path not found","detail":"Please consult the https://dev.wildberries.ru/openapi/api-information","status":404,"statusText":"Not Found"}`, sources.Rejected, request, "path not found", "`endpoints`"},
		{404, `{"data":null,"error":true,"errorText":"Не найден отзыв","additionalErrors":null}`, sources.Rejected, request, "Не найден", report},
		{422, `{"data":null,"error":true,"errorText":"Невозможно получить вопрос по id"}`, sources.Rejected, request, "вопрос по id", report},
		{422, `{"data":null,"error":true,"errorText":"Невозможно получить отзыв по id"}`, sources.Rejected, request, "отзыв по id", report},
		{422, `{"data":null,"error":true,"errorText":"Не удалось получить архивные отзывы по фильтру","requestId":"87a2"}`, sources.Rejected, request, "архивные отзывы", report},
		{413, `{"title":"request body too long"}`, sources.Rejected, request, "too long", report},
		{405, `Method Not Allowed`, sources.Rejected, request, "", report},
		{408, `{"title":"timeout"}`, sources.Temporary, request, "timeout", ""},
		{425, `{"title":"too early"}`, sources.Temporary, request, "early", ""},
		{500, `{"title":"internal service error, retry later"}`, sources.Temporary, request, "retry later", ""},
		{500, `{"data":null,"error":true,"errorText":"token scope tariff"}`, sources.Temporary, request, "tariff", ""},
		{502, `<html><head><title>502 Bad Gateway</title></head></html>`, sources.Temporary, request, "", ""},
		{503, `{"title":"unavailable","detail":7}`, sources.Temporary, request, "unavailable", ""},
		{504, ``, sources.Temporary, request, "", ""},
		{401, `<html>401</html>`, sources.Unauthorized, group, "", `the category "Buyers chat"`},
		{402, `[]`, sources.Payment, group, "", "top it up"},
		{403, ``, sources.Forbidden, stream, "", "no proxy or firewall"},
		{403, `<html><title>403 Forbidden</title></html>`, sources.Forbidden, stream, "", "no proxy or firewall"},
		{429, `null`, sources.RateLimited, group, "", "somebody else"},
		{500, `[]`, sources.Temporary, request, "", ""},
		{400, `{"title":{},"detail":null}`, sources.Rejected, request, "", report},
		{404, `{"title":"cut off in the mid`, sources.Rejected, request, "", report},
	} {
		e := wildberries.Classify(wildberries.GroupChat, tt.status, []byte(tt.body))
		if e == nil {
			t.Errorf("%d %s: not understood", tt.status, tt.body)
			continue
		}
		text := ""
		if e.Err != nil {
			text = e.Err.Error()
		}
		if e.Kind != tt.kind || e.Scope != tt.scope || !strings.Contains(text, tt.text) || (text == "") != (tt.text == "") {
			t.Errorf("%d %s: got %s %s %q, expected %s %s %q", tt.status, tt.body, e.Kind, e.Scope, text, tt.kind, tt.scope, tt.text)
		}
		if !strings.Contains(e.Hint, tt.hint) || (e.Hint == "") != (tt.hint == "") {
			t.Errorf("%d %s: the operator reads %q, expected something with %q", tt.status, tt.body, e.Hint, tt.hint)
		}
	}
	if e := wildberries.Classify(wildberries.GroupChat, 302, []byte(`{"title":"moved"}`)); e != nil {
		t.Errorf("a redirect is no answer of the marketplace: %+v", e)
	}
}
