package sandbox

import (
	"net/http"
	"strings"
	"time"

	"syncd/internal/sandbox/kit"
)

// faultKinds are the kinds that there are, and the forms of those that have several; the first is the default.
var faultKinds = map[FaultKind][]string{
	Fault401:         {"withdrawn", "malformed", "expired", "scope"},
	Fault403:         {"denial", "gateway", "envelope", "base_token", "requirements", "pins"},
	FaultRateLimited: {"limiter", "gateway", "global", "bare"},
	Fault500:         {"problem", "json", "html", "empty"},
	Fault502:         {"html", "problem", "json", "empty"},
	Fault503:         {"html", "problem", "json", "empty"},
	Fault504:         {"html", "problem", "json", "empty"},
	FaultOther200:    {"html", "empty"},
	FaultBadEntry:    kit.BadEntries,
	Fault402:         nil, Fault404: nil, Fault413: nil, Fault422: nil, FaultReset: nil, FaultHang: nil, FaultLostAnswer: nil,
	FaultResetMidBody: nil, FaultTruncated: nil, FaultSlowBody: nil, FaultErrorIn200: nil, FaultContentType: nil, FaultGzip: nil,
	FaultBOM: nil, FaultOversize: nil,
}

// statusOf are the kinds that are an answer with a status.
var statusOf = map[FaultKind]int{
	Fault401: http.StatusUnauthorized, Fault402: http.StatusPaymentRequired, Fault403: http.StatusForbidden,
	Fault404: http.StatusNotFound, Fault413: http.StatusRequestEntityTooLarge, Fault422: http.StatusUnprocessableEntity,
	Fault500: http.StatusInternalServerError, Fault502: http.StatusBadGateway, Fault503: http.StatusServiceUnavailable,
	Fault504: http.StatusGatewayTimeout, FaultOther200: http.StatusOK,
}

// faultAnswer is the answer of a kind that has a status.
func (s *Sandbox) faultAnswer(g Group, f *Fault, form Denial, now time.Time) answer {
	switch f.Kind {
	case Fault401:
		switch f.Variant {
		case "scope":
			return s.denied(g, Denial401, now)
		case "malformed": // the document's example
			return s.unauthorized("token problem; token is malformed: could not base64 decode signature: illegal base64 data at input byte 84", now)
		case "expired":
			return s.unauthorized("token problem; token has invalid claims: token is expired", now)
		}
		return s.unauthorized("token problem; token is withdrawn", now)
	case Fault402:
		return paymentRequired()
	case Fault403:
		return s.forbidden(g, f.Variant, form, now)
	case Fault404:
		return s.pathNotFound(now)
	case Fault413:
		return s.tooLarge(now)
	case Fault422:
		if g == GroupFeedbacks {
			return s.envelopeError(http.StatusUnprocessableEntity, errText)
		}
		return kit.JSON(http.StatusUnprocessableEntity, typeProblem, s.gateway(http.StatusUnprocessableEntity,
			"unprocessable entity", "request cannot be processed", "ag-marketplace", now))
	}
	return s.broken(statusOf[f.Kind], f.Variant, now)
}

// forbidden are the 403s that were documented or recorded.
func (s *Sandbox) forbidden(g Group, variant string, form Denial, now time.Time) answer {
	gateway := func(detail, code, origin string) answer {
		p := s.gateway(http.StatusForbidden, "forbidden", detail, origin, now)
		p.Code = code
		return kit.JSON(http.StatusForbidden, typeProblem, p)
	}
	switch variant {
	case "gateway":
		return s.readOnly(g, Denial403Gateway, now)
	case "envelope":
		return s.envelopeError(http.StatusForbidden, "Ошибка авторизации")
	case "base_token":
		return gateway("base token is not allowed", "base token is not allowed for this path", "s2s-finance")
	case "requirements":
		return gateway("token does not satisfy additional requirements", "", "ag-marketplace")
	case "pins":
		return s.pinError(http.StatusForbidden, "no active subscription or tariff", "this feature requires active subscription or active tariff")
	}
	return s.readOnly(g, form, now)
}

// broken is an answer of something that is out of order: a 5xx, or a 200 that is not the API's.
func (s *Sandbox) broken(status int, variant string, now time.Time) answer {
	switch variant {
	case "problem":
		return kit.JSON(status, typeProblem, s.gateway(status, strings.ToLower(http.StatusText(status)),
			"internal service error, retry later", "ag-marketplace", now))
	case "json":
		return kit.JSON(status, typeJSON, map[string]any{"code": status, "message": "internal service error, retry later"})
	case "empty":
		return answer{Status: status}
	}
	if status == http.StatusOK {
		return answer{Status: status, ContentType: typeHTML, Body: [][]byte{[]byte("<!DOCTYPE html><html><head>" +
			"<title>Wildberries</title></head><body><h1>Ведутся технические работы</h1></body></html>\n")}}
	}
	return kit.GatewayPage(status)
}

// limiterText is what a 429 of a variant says.
func limiterText(variant, seller string, l limited) (detail, origin string) {
	switch variant {
	case "global":
		return "Limited by global limiter, per seller " + seller + "; See https://dev.wildberries.ru/openapi/api-information", "s2s-api"
	case "gateway":
		return "rate limit exceeded, retry after the period specified in the X-RateLimit-Retry header", "ag-finance"
	}
	return "limited by " + l.limiter, "s2s-api-auth-catalog"
}

// listNames are the fields that hold the lists of all answers, idNames those of their entries' ids. An event has a chatID
// too, which is not its own.
var (
	listNames = []string{"events", "result", "questions", "feedbacks", "claims", "data"}
	idNames   = []string{"eventID", "chatID", "pinId", "id"}
)
