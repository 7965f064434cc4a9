package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// variants are the forms of the fault kinds that have several; the first is the default.
var variants = map[FaultKind][]string{
	Fault401:         {"withdrawn", "malformed", "expired", "scope"},
	Fault403:         {"denial", "gateway", "envelope", "base_token", "requirements", "pins"},
	FaultRateLimited: {"limiter", "gateway", "global", "bare"},
	Fault500:         {"problem", "json", "html", "empty"},
	Fault502:         {"html", "problem", "json", "empty"},
	Fault503:         {"html", "problem", "json", "empty"},
	Fault504:         {"html", "problem", "json", "empty"},
	FaultOther200:    {"html", "empty"},
	FaultBadEntry:    {"not_object", "null", "no_id", "empty_id", "deep", "huge"},
}

// form is the variant, or the default one.
func (f Fault) form() string {
	if forms := variants[f.Kind]; f.Variant == "" && len(forms) > 0 {
		return forms[0]
	}
	return f.Variant
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
		switch f.form() {
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
		return s.forbidden(g, f.form(), form, now)
	case Fault404:
		return s.pathNotFound(now)
	case Fault413:
		return s.tooLarge(now)
	case Fault422:
		if g == GroupFeedbacks {
			return s.envelopeError(http.StatusUnprocessableEntity, errText)
		}
		return jsonAnswer(http.StatusUnprocessableEntity, typeProblem, s.gateway(http.StatusUnprocessableEntity,
			"unprocessable entity", "request cannot be processed", "ag-marketplace", now))
	}
	return s.broken(statusOf[f.Kind], f.form(), now)
}

// forbidden are the 403s that were documented or recorded.
func (s *Sandbox) forbidden(g Group, variant string, form Denial, now time.Time) answer {
	gateway := func(detail, code, origin string) answer {
		p := s.gateway(http.StatusForbidden, "forbidden", detail, origin, now)
		p.Code = code
		return jsonAnswer(http.StatusForbidden, typeProblem, p)
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
		return jsonAnswer(status, typeProblem, s.gateway(status, strings.ToLower(http.StatusText(status)),
			"internal service error, retry later", "ag-marketplace", now))
	case "json":
		return jsonAnswer(status, typeJSON, map[string]any{"code": status, "message": "internal service error, retry later"})
	case "empty":
		return answer{status: status}
	}
	if status == http.StatusOK {
		return answer{status: status, contentType: typeHTML, body: [][]byte{[]byte("<!DOCTYPE html><html><head>" +
			"<title>Wildberries</title></head><body><h1>Ведутся технические работы</h1></body></html>\n")}}
	}
	return gatewayPage(status)
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

// Sizes of what is too big.
const (
	oversize    = 64 << 20 // bytes of an answer
	deepNesting = 20_000
	hugeEntry   = 5 << 20 // bytes
)

// padded is an answer made huge by white space, of which JSON allows any amount. It comes first, so that no reader can be
// done before it.
func padded(body []byte) [][]byte {
	chunk := bytes.Repeat([]byte(" "), 1<<20)
	out := slices.Repeat([][]byte{chunk}, oversize/len(chunk))
	return append(out, body)
}

// spoilEntry spoils the entry in the middle of the answer's list. An answer without entries stays as it is.
func spoilEntry(body []byte, variant string) []byte {
	spans := entries(body)
	if len(spans) == 0 {
		return body
	}
	at := spans[len(spans)/2]
	return slices.Concat(body[:at.from], badEntry(body[at.from:at.to], variant), body[at.to:])
}

// span is where something is in an answer.
type span struct{ from, to int }

// listNames are the fields that hold the lists of all answers.
var listNames = []json.Token{"events", "result", "questions", "feedbacks", "claims", "data"}

// entries finds the elements of an answer's list.
func entries(body []byte) []span {
	dec := json.NewDecoder(bytes.NewReader(body))
	for field := json.Token(nil); ; {
		token, err := dec.Token()
		if err != nil {
			return nil // no list, or an item put there by a test that is no JSON
		}
		if token == json.Delim('[') && slices.Contains(listNames, field) {
			break
		}
		field = token
	}
	var out []span
	for dec.More() {
		var element json.RawMessage
		if dec.Decode(&element) != nil {
			return nil
		}
		end := int(dec.InputOffset())
		out = append(out, span{end - len(element), end})
	}
	return out
}

// idNames are the names of the entries' ids. An event has a chatID too, which is not its own.
var idNames = []string{"eventID", "chatID", "pinId", "id"}

func badEntry(entry []byte, variant string) []byte {
	switch variant {
	case "not_object":
		return []byte(`"odd"`)
	case "null":
		return []byte(`null`)
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(entry, &fields) != nil {
		return entry
	}
	id := idNames[max(0, slices.IndexFunc(idNames, func(name string) bool { return fields[name] != nil }))]
	switch variant {
	case "no_id":
		delete(fields, id)
	case "empty_id":
		fields[id] = json.RawMessage(`""`)
	case "deep": // encoding/json itself would refuse it
		deep := strings.Repeat("[", deepNesting) + strings.Repeat("]", deepNesting)
		return fmt.Appendf(nil, `{"extra":%s,%s`, deep, entry[1:])
	case "huge":
		return fmt.Appendf(nil, `{"extra":"%s",%s`, strings.Repeat("x", hugeEntry), entry[1:])
	}
	return render(fields)
}
