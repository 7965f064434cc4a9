package wildberries

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

// classify reads an error answer of an API group. Gateways, the services behind
// them, and what stands between them and us spell errors in many ways
// (TestClassify has them all); what a text does not tell the status does. The
// error has a text only where the body has one that is meant for people: the
// caller makes do with the rest.
//
// A 401 is about the token, and so stops the group, whatever it says. A 403 stops
// the group where the token is at fault, and else the stream alone.
func classify(group string, status int, body []byte) *sources.Error {
	if status < 400 {
		return nil
	}
	text := errorText(listing.Object(body))
	e := &sources.Error{Kind: sources.Temporary, Scope: sources.ScopeRequest}
	if text != "" {
		e.Err = errors.New(text)
	}
	switch {
	case status == http.StatusUnauthorized:
		e.Kind, e.Scope, e.Hint = sources.Unauthorized, sources.ScopeGroup, tokenHint(group, text)
	case status == http.StatusPaymentRequired:
		e.Kind, e.Scope = sources.Payment, sources.ScopeGroup
		e.Hint = "the balance of the service that this token belongs to is used up: top it up at dev.wildberries.ru, or use a Personal token"
	case status == http.StatusForbidden && listing.Says(text, "subscription", "tariff"):
		e.Kind, e.Scope = sources.Forbidden, sources.ScopeStream
		e.Hint = "the seller has no subscription (Jam) or tariff option for this method: buy one, or switch the stream off"
	case status == http.StatusForbidden && listing.Says(text, "scope", "token", "авторизаци"):
		e.Kind, e.Scope, e.Hint = sources.Forbidden, sources.ScopeGroup, tokenHint(group, text)
	case status == http.StatusForbidden:
		e.Kind, e.Scope = sources.Forbidden, sources.ScopeStream
		e.Hint = "the answer does not say what it forbids: see that the token has the category " + inPortal(group) +
			", and that no proxy or firewall stands between"
	case status == http.StatusTooManyRequests:
		e.Kind, e.Scope = sources.RateLimited, sources.ScopeGroup
		e.Hint = "somebody else spends this seller's budget: give those programs tokens of another seller, or lower budget_share"
		if listing.Says(text, "global limiter") {
			e.Hint = "the marketplace limits this seller as a whole, over all its tokens and API groups: find the program that sends too much"
		}
	case status == http.StatusNotFound && listing.Says(text, "path not found"):
		e.Kind = sources.Rejected
		e.Hint = "see that the account's `endpoints` are right; if they are, the API has changed: report it, with the request"
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly, status >= 500:
	default:
		e.Kind = sources.Rejected
		e.Hint = "the marketplace takes this request for wrong: a mistake in syncd or a change of the API; report it, with the request"
	}
	return e
}

// inPortal is what the seller's portal calls the category of an API group.
func inPortal(group string) string { return strconv.Quote(categories[group].name) }

// tokenHint is what to do about a token that is refused.
func tokenHint(group, text string) string {
	const replace = "; a new one goes where the account's token_file, token_env or tokens says"
	switch {
	case listing.Says(text, "scope"):
		return "this token does not open the category " + inPortal(group) + " (a Test token opens none but in the marketplace's sandbox): make one that does" + replace
	case listing.Says(text, "base token"):
		return "this method refuses Base tokens: make a Personal one" + replace
	case listing.Says(text, "additional requirements"):
		return "the marketplace wants another kind of token here: make a Personal one with the category " + inPortal(group) + replace
	case listing.Says(text, "expired"):
		return "this token is too old (they live for 180 days): make another with the category " + inPortal(group) + replace
	case listing.Says(text, "withdrawn", "revoked", "deleted"):
		return "this token was withdrawn in the seller's portal: make another with the category " + inPortal(group) + replace
	case listing.Says(text, "malformed", "signature", "empty authorization"):
		return "this token is damaged: copy it again, whole and on one line" + replace
	}
	return "see in the seller's portal that the token exists, is not too old (180 days) and has the category " + inPortal(group) + replace
}

// errorText is what an error says to people: problem+json of the gateways
// (`title`, `detail`), the envelope of feedbacks-api (`errorText`,
// `additionalErrors`), and `error` of the chats. Empty: nothing.
func errorText(f listing.Fields) string {
	texts := []string{f.Text("title"), f.Text("detail"), f.Text("errorText"), f.Text("error")}
	var more []string
	_ = json.Unmarshal(f["additionalErrors"], &more) // null as a rule
	var said []string
	for _, s := range append(texts, more...) {
		if s = strings.TrimSpace(s); s != "" && !slices.Contains(said, s) {
			said = append(said, s)
		}
	}
	return strings.Join(said, ": ")
}
