package yandexmarket

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

// statusEnhanceYourCalm is what the marketplace says instead of 429.
const statusEnhanceYourCalm = 420

// parallel says whether a 420 is about the requests in flight, not about the calls of
// the hour. Nothing but its text tells (documentation, error codes): "Hit rate limit
// of 4 parallel requests for campaignId 12345".
func parallel(body []byte) bool {
	return listing.Says(errorText(body), "parallel request")
}

// classify reads an error answer: {"status":"ERROR","errors":[{"code","message"}]}.
// What a text does not tell the status does. Texts are those of the documentation's
// page on error codes (2026-09-24).
//
// A 403 is about very different things, and stops no more than what it is about.
func classify(status int, body []byte) *sources.Error {
	if status < 400 {
		return nil
	}
	text := errorText(body)
	e := &sources.Error{Kind: sources.Rejected, Scope: sources.ScopeRequest}
	if text != "" {
		e.Err = errors.New(text)
	}
	const key = "the Api-Key is made in the marketplace's cabinet, and goes where the account's token_file or token_env says"
	switch {
	case status == http.StatusUnauthorized:
		e.Kind, e.Scope = sources.Unauthorized, sources.ScopeGroup
		e.Hint = "see in the cabinet that the key exists, and copy it whole, without a prefix; " + key
	case status == http.StatusPaymentRequired: // not documented
		e.Kind, e.Scope = sources.Payment, sources.ScopeGroup
		e.Hint = "see in the marketplace's cabinet what has to be paid"
	case status == http.StatusForbidden && listing.Says(text, "deprecated"):
		// By chance, and more often the older the method is: it says nothing about the key.
		e.Kind = sources.Temporary
		e.Hint = "the marketplace is about to remove this method: a newer syncd is needed"
	case status == http.StatusForbidden && listing.Says(text, "scope"):
		e.Kind, e.Scope = sources.Forbidden, sources.ScopeStream
		e.Hint = "the key lacks the access that this stream needs: communication for chats, reviews and questions, inventory-and-order-processing:read-only for returns, or all-methods:read-only for everything; " + key
	case status == http.StatusForbidden && listing.Says(text, "disabled") && listing.Says(text, "business"):
		e.Kind, e.Scope = sources.Forbidden, sources.ScopeGroup
		e.Hint = "all stores of the business are disabled: enable one in the cabinet"
	case status == http.StatusForbidden && listing.Says(text, "not supported for market yandex go"):
		e.Kind, e.Scope = sources.Forbidden, sources.ScopeStream
		e.Hint = "sellers of Market Yandex Go do not have this: switch the stream off"
	case status == http.StatusForbidden:
		// Of one chat or one store, for all that is known: the rest goes on.
		e.Kind = sources.Forbidden
		e.Hint = "see that business_id and campaigns are those of the key"
	case status == statusEnhanceYourCalm, status == http.StatusTooManyRequests:
		e.Kind = sources.RateLimited
		e.Hint = "somebody else spends this seller's budget: lower budget_share here or the pace there"
	case status == http.StatusLocked:
		e.Kind = sources.Temporary
		e.Hint = "the marketplace moves this business to another account just now: it works again afterwards by itself"
	case status == 499, status == http.StatusRequestTimeout, status == http.StatusTooEarly, status >= 500:
		e.Kind = sources.Temporary
	case badPageToken(text):
		e.Kind = sources.Temporary // of one scan, which begins anew
	case status == http.StatusNotFound && listing.Says(text, "resource not found"):
		e.Hint = "see that the account's `endpoints` are right; if they are, the API has changed: report it, with the request"
	default:
		e.Hint = "the marketplace takes this request for wrong: a mistake in syncd or a change of the API; report it, with the request"
	}
	return e
}

func badPageToken(text string) bool { return listing.Says(text, "page token") }

// errorText is what an error says to people: the messages, or the codes of those that
// have none. Empty: nothing.
func errorText(body []byte) string {
	var all []json.RawMessage
	_ = json.Unmarshal(listing.Object(body)["errors"], &all) // null at times
	var said []string
	for _, raw := range all {
		f := listing.Object(raw)
		s := strings.TrimSpace(f.Text("message"))
		if s == "" {
			s = strings.TrimSpace(f.Text("code"))
		}
		if s != "" && !slices.Contains(said, s) && len(said) < 8 {
			said = append(said, s)
		}
	}
	return strings.Join(said, ": ")
}
