package yandexmarket_test

import (
	"strings"
	"testing"

	"syncd/internal/sources"
	"syncd/internal/sources/yandexmarket"
)

// TestClassify holds the texts of the documentation's page on error codes (2026-09-24)
// that the methods of this package can get, and what else answers in the marketplace's
// place. hint is what the operator has to be told.
func TestClassify(t *testing.T) {
	const (
		request = sources.ScopeRequest
		stream  = sources.ScopeStream
		group   = sources.ScopeGroup
		report  = "report it, with the request"
	)
	says := func(code, message string) string { return failure(code, message) }
	for _, tt := range []struct {
		status int
		body   string
		kind   sources.Kind
		scope  sources.Scope
		text   string // empty: left to the caller
		hint   string // empty: nothing to do
	}{
		{401, says("UNAUTHORIZED", "Api-Key token is invalid"), sources.Unauthorized, group, "Api-Key token is invalid", "copy it whole"},
		{401, says("UNAUTHORIZED", "Api-Key token is revoked"), sources.Unauthorized, group, "revoked", "see in the cabinet that the key exists"},
		{401, says("UNAUTHORIZED", "Api-Key token prefix invalid"), sources.Unauthorized, group, "prefix invalid", "without a prefix"},
		{401, ``, sources.Unauthorized, group, "", "cabinet"},
		{402, ``, sources.Payment, group, "", "paid"},
		{403, says("FORBIDDEN", "Access denied"), sources.Forbidden, request, "Access denied", "business_id"},
		{403, says("FORBIDDEN", "Token does not have any of the scopes to access the API method"), sources.Forbidden, stream, "any of the scopes", "inventory-and-order-processing:read-only for returns"},
		{403, says("FORBIDDEN", "API for campaign '21000001' disabled due to inactivity"), sources.Forbidden, request, "disabled due to inactivity", "campaigns"},
		{403, says("FORBIDDEN", "API for business '900001' disabled because it has only disabled partners"), sources.Forbidden, group, "only disabled partners", "enable one in the cabinet"},
		{403, says("FORBIDDEN", "The method is not supported for Market Yandex Go sellers"), sources.Forbidden, stream, "Yandex Go", "switch the stream off"},
		{403, says("FORBIDDEN", "The method is deprecated and is occasionally forbidden. Please stop using it"), sources.Temporary, request, "occasionally forbidden", "newer syncd"},
		{403, `<html>`, sources.Forbidden, request, "", "business_id"},
		{420, says("LIMIT_EXCEEDED", "Hit rate limit of '10000' requests per 'hour' for resource 'chats/history' for businessId 900001"), sources.RateLimited, request, "per 'hour'", "somebody else"},
		{420, says("LIMIT_EXCEEDED", "Hit rate limit of 4 parallel requests for businessId 900001"), sources.RateLimited, request, "4 parallel", "somebody else"},
		{429, ``, sources.RateLimited, request, "", "somebody else"},
		{423, says("LOCKED", "Business is in migration"), sources.Temporary, request, "in migration", "by itself"},
		{400, says("BAD_REQUEST", "Bad page token"), sources.Temporary, request, "Bad page token", ""},
		{400, says("BAD_REQUEST", "Parameter limit must be less than or equal to '20'"), sources.Rejected, request, "limit must be", report},
		{400, says("BAD_REQUEST", "Required request body is missing"), sources.Rejected, request, "body is missing", report},
		{400, `{"status":"ERROR","errors":null}`, sources.Rejected, request, "", report},
		{400, `{"status":"ERROR","errors":[{"code":"BAD_REQUEST"},{"code":"X","message":" y "},{"code":"X","message":"y"},7,{"code":{}}]}`, sources.Rejected, request, "BAD_REQUEST: y", report},
		{404, says("NOT_FOUND", "Can't find chat by id: '7'"), sources.Rejected, request, "Can't find chat", report},
		{404, says("NOT_FOUND", "Resource not found"), sources.Rejected, request, "Resource not found", "`endpoints`"},
		{405, ``, sources.Rejected, request, "", report},
		{408, ``, sources.Temporary, request, "", ""},
		{499, ``, sources.Temporary, request, "", ""},
		{500, says("INTERNAL", "deprecated scope disabled"), sources.Temporary, request, "deprecated", ""},
		{502, `<html>`, sources.Temporary, request, "", ""},
		{503, says("UNAVAILABLE", "Service temporarily unavailable. Please, try again later"), sources.Temporary, request, "try again later", ""},
	} {
		e := yandexmarket.Classify(tt.status, []byte(tt.body))
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
	if e := yandexmarket.Classify(302, nil); e != nil {
		t.Errorf("a redirect is no answer of the marketplace: %+v", e)
	}
	for text, want := range map[string]bool{
		"Hit rate limit of 4 parallel requests for campaignId 12345":                            true,
		"Hit rate limit of '4' Parallel Requests for businessId 1":                              true,
		"Hit rate limit of '5000' requests per 'hour' for resource 'parallel' for businessId 1": false,
		"Active reports limit exceeded, limit='4'":                                              false,
		"": false,
	} {
		if yandexmarket.Parallel([]byte(failure("LIMIT_EXCEEDED", text))) != want {
			t.Errorf("%q is about requests in flight: %t", text, !want)
		}
	}
}
