package yandexmarket

import (
	"cmp"
	"fmt"
	"net/http"
	"time"

	"syncd/internal/sandbox/kit"
)

// Fault is an order to spoil requests. Its Seller is the businessId in digits.
type Fault = kit.Fault

// Faults in place of the answer, beside those of package kit: the request has no effect.
const (
	// Fault400 is a 400 that nobody can do anything about. Variants: token (Bad page token), other.
	Fault400 kit.FaultKind = "status_400"
	// Fault401 has the variants invalid, revoked, missing, prefix, length.
	Fault401 kit.FaultKind = "status_401"
	// Fault403 has the variants deprecated (the method is occasionally forbidden; give it a Rate), denied, scopes,
	// inactivity, manually, contract, placement (the API of the store is disabled), all_disabled, yandex_go.
	Fault403 kit.FaultKind = "status_403"
	// Fault404 has the variants resource, campaign.
	Fault404 kit.FaultKind = "status_404"
	Fault405 kit.FaultKind = "status_405"
	Fault415 kit.FaultKind = "status_415"
	// Fault420 is somebody else spending the budget: this request gets a 420 and is no violation; later ones are if they
	// come before the announced time. With a [Fault.Delay] others take all that comes back until it is over. Variants:
	// resource, bare (without headers), parallel (others have all slots, and no budget is spent).
	Fault420 kit.FaultKind = "status_420"
	// Fault429 is Fault420 with the status of other APIs. Variants: resource, bare.
	Fault429 kit.FaultKind = "status_429"
	// Fault423 is a business in migration. Variants: business, campaign.
	Fault423 kit.FaultKind = "status_423"
	// Fault499 says that the client has gone, to one that has not.
	Fault499 kit.FaultKind = "status_499"
	// Fault500, Fault502, Fault503 and Fault504 have the variants json, html, empty; the gateway's the html one first.
	Fault500 kit.FaultKind = "status_500"
	Fault502 kit.FaultKind = "status_502"
	Fault503 kit.FaultKind = "status_503"
	Fault504 kit.FaultKind = "status_504"
	// FaultOther200 is a 200 that does not come from the API. Variants: html, empty.
	FaultOther200 kit.FaultKind = "other_200"
)

// Faults of the answer, beside those of package kit: the request has its effect, the client does not hear of it in order.
const (
	// FaultLate500 is a 500 after the work was done.
	FaultLate500 kit.FaultKind = "late_500"
	// FaultSlow is an answer that takes [Fault.Delay] longer, by default 10 s. Variants: after (the work is done at once),
	// before.
	FaultSlow kit.FaultKind = "slow"
	// FaultNoResult turns a 200 into one without a result, which the schemas do not require. Variants: absent, null, empty.
	FaultNoResult kit.FaultKind = "no_result"
	// FaultErrorIn200 turns a 200 into one whose status is ERROR. Variants: errors, null.
	FaultErrorIn200 kit.FaultKind = "error_in_200"
)

var faultKinds = map[kit.FaultKind][]string{
	Fault400: {"token", "other"},
	Fault401: {"invalid", "revoked", "missing", "prefix", "length"},
	Fault403: {"deprecated", "denied", "scopes", "inactivity", "manually", "contract", "placement", "all_disabled", "yandex_go"},
	Fault404: {"resource", "campaign"},
	Fault405: nil, Fault415: nil,
	Fault420: {"resource", "bare", "parallel"},
	Fault429: {"resource", "bare"},
	Fault423: {"business", "campaign"},
	Fault499: nil,
	Fault500: {"json", "html", "empty"}, Fault502: {"html", "json", "empty"}, Fault503: {"json", "html", "empty"},
	Fault504:      {"html", "json", "empty"},
	FaultOther200: {"html", "empty"},

	FaultLate500: nil, FaultSlow: {"after", "before"},
	FaultNoResult: {"absent", "null", "empty"}, FaultErrorIn200: {"errors", "null"},

	kit.FaultReset: nil, kit.FaultHang: nil, kit.FaultLostAnswer: nil, kit.FaultResetMidBody: nil, kit.FaultTruncated: nil,
	kit.FaultSlowBody: nil, kit.FaultContentType: nil, kit.FaultGzip: nil, kit.FaultBOM: nil, kit.FaultOversize: nil,
	kit.FaultBadEntry: kit.BadEntries,
}

// listNames are the fields that hold the lists of all answers, idNames those of their entries' ids.
var (
	listNames = []string{"campaigns", "chats", "messages", "feedbacks", "comments", "questions", "answers", "returns"}
	idNames   = []string{"chatId", "messageId", "feedbackId", "questionIdentifiers", "id"}
)

// slowAnswer is how long a FaultSlow takes without a Delay: the documented timeout.
const slowAnswer = 10 * time.Second

func slowness(f *Fault) time.Duration { return cmp.Or(f.Delay, slowAnswer) }

func ofBudget(k kit.FaultKind) bool { return k == Fault420 || k == Fault429 }

// Inject adds faults behind those that are there. If one of them is invalid, none is added.
func (m *Market) Inject(faults ...Fault) error { return m.faults.Inject(faults...) }

// Faults returns the faults that can still strike, with what is left of their counts.
func (m *Market) Faults() []Fault { return m.faults.Left() }

// ClearFaults ends all faults.
func (m *Market) ClearFaults() { m.faults.Clear() }

// spoilBefore answers in place of the method, if the fault is of that sort.
func (m *Market) spoilBefore(w http.ResponseWriter, c *call, f *Fault) bool {
	if f.Kind == FaultSlow && f.Variant == "before" {
		wait(c.r, slowness(f))
		return false
	}
	if a, ok := c.faultAnswer(f); ok {
		kit.Send(w, a)
		return true
	}
	return kit.Silence(w, c.r, f)
}

// faultAnswer is the answer of a kind that has a status.
func (c *call) faultAnswer(f *Fault) (answer, bool) {
	switch f.Kind {
	case Fault400:
		if f.Variant == "token" {
			return fail(http.StatusBadRequest, badToken), true
		}
		return fail(http.StatusBadRequest, "Request cannot be processed"), true
	case Fault401:
		return fail(http.StatusUnauthorized, map[string]string{
			"invalid": keyInvalid, "revoked": keyRevoked, "missing": keyMissing, "prefix": keyBadPrefix, "length": keyBadLength,
		}[f.Variant]), true
	case Fault403:
		return fail(http.StatusForbidden, c.forbidden(f.Variant)), true
	case Fault404:
		return fail(http.StatusNotFound, map[string]string{"resource": "Resource not found", "campaign": "Campaign not found"}[f.Variant]), true
	case Fault405:
		return fail(http.StatusMethodNotAllowed, "Method not allowed"), true
	case Fault415:
		return fail(http.StatusUnsupportedMediaType, "Content type 'application/json' not supported"), true
	case Fault423:
		return fail(http.StatusLocked, map[string]string{
			"business": "Business is in migration", "campaign": "Campaign is in business migration",
		}[f.Variant]), true
	case Fault499:
		return fail(499, "Client closed request"), true
	case Fault500:
		return broken(http.StatusInternalServerError, f.Variant, "Internal server error"), true
	case Fault502:
		return broken(http.StatusBadGateway, f.Variant, "Bad gateway"), true
	case Fault503:
		return broken(http.StatusServiceUnavailable, f.Variant, "Service temporarily unavailable. Please, try again later"), true
	case Fault504:
		return broken(http.StatusGatewayTimeout, f.Variant, "Gateway timeout"), true
	case FaultOther200:
		a := answer{Status: http.StatusOK}
		if f.Variant == "html" {
			a.ContentType = kit.TypeHTML
			a.Body = [][]byte{[]byte("<!DOCTYPE html><html><head><title>Яндекс</title></head><body><h1>Подтвердите, что запросы отправляли вы, а не робот</h1></body></html>\n")}
		}
		return a, true
	}
	return answer{}, false
}

// forbidden are the texts of 403.
func (c *call) forbidden(variant string) string {
	off := map[string]Availability{
		"inactivity": DisabledByInactivity, "manually": ManuallyDisabled, "contract": DisabledByNoContract, "placement": DisabledByNoPlacement,
	}
	switch variant {
	case "deprecated":
		return "The method is deprecated and is occasionally forbidden. Please stop using it"
	case "scopes":
		return "Token does not have any of the scopes to access the API method"
	case "yandex_go":
		return "The method is not supported for Market Yandex Go sellers"
	case "all_disabled":
		return fmt.Sprintf(disabledBusinessMessage, c.b.spec.ID)
	case "denied":
		return accessDenied
	}
	campaign := int64(0)
	if c.store != nil {
		campaign = c.store.id
	}
	return fmt.Sprintf("API for campaign '%d' disabled %s", campaign, disabledBecause[off[variant]])
}

// broken is an answer of something that is out of order.
func broken(status int, variant, text string) answer {
	switch variant {
	case "html":
		return kit.GatewayPage(status)
	case "empty":
		return answer{Status: status}
	}
	return fail(status, text)
}

// spoilAnswer sends an answer as the fault wants it.
func (m *Market) spoilAnswer(w http.ResponseWriter, c *call, f *Fault, a answer) {
	switch f.Kind {
	case FaultLate500:
		a = fail(http.StatusInternalServerError, "Internal server error")
	case FaultSlow:
		if f.Variant == "after" {
			wait(c.r, slowness(f))
		}
	case FaultNoResult:
		if a.Status == http.StatusOK {
			a.Body = [][]byte{[]byte(map[string]string{
				"absent": `{"status":"OK"}`, "null": `{"status":"OK","result":null}`, "empty": `{"status":"OK","result":{}}`,
			}[f.Variant])}
		}
	case FaultErrorIn200:
		if a.Status == http.StatusOK {
			a.Body = fail(http.StatusInternalServerError, "Internal server error").Body
			if f.Variant == "null" {
				a.Body = [][]byte{[]byte(`{"status":"ERROR","errors":null}`)}
			}
		}
	}
	kit.Spoil(w, c.r, f, a, listNames, idNames)
}
