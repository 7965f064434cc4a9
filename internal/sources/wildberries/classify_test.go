package wildberries_test

import (
	"strings"
	"testing"

	"syncd/internal/sources"
	"syncd/internal/sources/wildberries"
)

// TestClassify holds every error body of wildberries.md §3.
func TestClassify(t *testing.T) {
	for _, tt := range []struct {
		status int
		body   string
		kind   sources.Kind // empty: left to the status
		scope  sources.Scope
		text   string
	}{
		{401, `{"title":"unauthorized","detail":"token problem; token is malformed: could not base64 decode","code":"461a","requestId":"r","origin":"s2s-api-auth-catalog","status":401,"statusText":"Unauthorized","timestamp":"2024-09-30T06:52:38Z"}`, sources.Unauthorized, sources.ScopeGroup, "token is malformed"},
		{401, `{"title":"unauthorized","detail":"token scope not allowed","code":"461a0b83d6bd a53a3d31f8b003bce 8d7a4aaab17a","origin":"s2s-api-auth-chatx","status":401}`, sources.Unauthorized, sources.ScopeGroup, "token scope not allowed"},
		{402, `{"title":"payment required","detail":"wb solution for business has insufficient funds"}`, sources.Forbidden, sources.ScopeGroup, "insufficient funds"},
		{403, `{"status":403,"statusText":"Forbidden","title":"Forbidden","detail":"scope is not allowed for this resource","requestId":"r","origin":"ag-marketplace"}`, sources.Forbidden, sources.ScopeGroup, "scope is not allowed"},
		{403, `{"title":"forbidden","detail":"base token is not allowed","origin":"s2s-finance"}`, sources.Forbidden, sources.ScopeGroup, "base token"},
		{403, `{"detail":"token does not satisfy additional requirements"}`, sources.Forbidden, sources.ScopeGroup, "additional requirements"},
		{403, `{"data":null,"error":true,"errorText":"Ошибка авторизации","additionalErrors":null,"requestId":"r"}`, sources.Forbidden, sources.ScopeGroup, "Ошибка авторизации"},
		{403, `{"status":403,"title":"Forbidden","detail":"no active subscription or tariff","requestId":"r","origin":"pin-open-api"}`, sources.Forbidden, sources.ScopeStream, "no active subscription"},
		{429, `{"title":"too many requests","detail":"limited by c122a060-a7fb-4bb4-abb0-32fd4e18d489","code":"07e4668e","status":429}`, sources.RateLimited, sources.ScopeGroup, "limited by"},
		{429, `{"detail":"Limited by global limiter, per seller 2f0c; See https://dev.wildberries.ru/openapi/api-information","origin":"s2s-api","code":"461a0b83d6bd 2950e93b5fda"}`, sources.RateLimited, sources.ScopeGroup, "global limiter"},
		{400, `{"data":null,"error":true,"errorText":"Something went wrong","additionalErrors":null,"requestId":"r"}`, sources.Rejected, sources.ScopeRequest, "Something went wrong"},
		{400, `{"data":null,"error":true,"errorText":"Плохой формат dateFrom","additionalErrors":null}`, sources.Rejected, sources.ScopeRequest, "Плохой формат"},
		{400, `{"status":400,"title":"Bad Request","origin":"proxy-chats","detail":"Invalid value for \"next\"","requestId":"r","error":"x"}`, sources.Rejected, sources.ScopeRequest, `Invalid value for "next"`},
		{400, `{"title":"Invalid query params","detail":"Failed to deserialize query string: missing field is_archive","requestId":"r"}`, sources.Rejected, sources.ScopeRequest, "is_archive"},
		{404, `{"title":"path not found","detail":"Please consult the https://dev.wildberries.ru/openapi/api-information","status":404}`, sources.Rejected, sources.ScopeRequest, "path not found"},
		{404, `{"data":null,"error":true,"errorText":"Не найден отзыв"}`, sources.Rejected, sources.ScopeRequest, "Не найден"},
		{422, `{"data":null,"error":true,"errorText":"Невозможно получить вопрос по id"}`, sources.Rejected, sources.ScopeRequest, "по id"},
		{413, `{"title":"request body too long"}`, sources.Rejected, sources.ScopeRequest, "too long"},
		{408, `{"title":"timeout"}`, sources.Temporary, sources.ScopeRequest, "timeout"},
		{425, `{"title":"too early"}`, sources.Temporary, sources.ScopeRequest, "early"},
		{500, `{"title":"internal service error, retry later"}`, sources.Temporary, sources.ScopeRequest, "retry later"},
		{503, `{"title":"unavailable","detail":7}`, sources.Temporary, sources.ScopeRequest, "unavailable"},
		{302, `{"title":"moved"}`, "", "", ""},
		{401, `<html>401</html>`, "", "", ""}, {403, ``, "", "", ""}, {429, `null`, "", "", ""}, {500, `[]`, "", "", ""}, {400, `{"title":{},"detail":null}`, "", "", ""},
	} {
		e := wildberries.Classify(tt.status, []byte(tt.body))
		switch {
		case e == nil && tt.kind != "":
			t.Errorf("%d %s: not understood", tt.status, tt.body)
		case e != nil && (e.Kind != tt.kind || e.Scope != tt.scope || !strings.Contains(e.Err.Error(), tt.text)):
			t.Errorf("%d %s: got %s %s %q, expected %s %s %q", tt.status, tt.body, e.Kind, e.Scope, e.Err, tt.kind, tt.scope, tt.text)
		case e != nil && e.Hint == "" && (e.Kind == sources.Unauthorized || e.Kind == sources.Forbidden):
			t.Errorf("%d %s: nothing for the operator to do", tt.status, tt.body)
		}
	}
}
