package sandbox

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"syncd/internal/sandbox/kit"
)

const (
	typeJSON    = "application/json"
	typeProblem = "application/problem+json"
	typeHTML    = "text/html"
)

// problem is the gateway's error body (OpenAPI document, responses 401 and 429).
type problem struct {
	Title      string `json:"title"`
	Detail     string `json:"detail"`
	Code       string `json:"code,omitempty"`
	RequestID  string `json:"requestId,omitempty"`
	Origin     string `json:"origin,omitempty"`
	Status     int    `json:"status"`
	StatusText string `json:"statusText"`
	Timestamp  string `json:"timestamp"`
}

// plainProblems sends problems as application/json ([Quirks.ProblemsAsJSON]).
type plainProblems struct{ http.ResponseWriter }

func (w plainProblems) WriteHeader(status int) {
	if h := w.Header(); h.Get("Content-Type") == typeProblem {
		h.Set("Content-Type", typeJSON)
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets [http.ResponseController] reach the connection.
func (w plainProblems) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (s *Sandbox) gateway(status int, title, detail, origin string, now time.Time) problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	return problem{
		Title: title, Detail: detail, Origin: origin, Status: status, StatusText: http.StatusText(status),
		Timestamp: now.UTC().Format(time.RFC3339),
		RequestID: kit.HexID(s.ids, 16),
		// In the form of recorded codes: "461a0b83d6bd a53a3d31f8b003bce 8d7a4aaab17a".
		Code: "461a0b83d6bd " + kit.HexID(s.ids, 6) + " " + kit.HexID(s.ids, 6),
	}
}

func (s *Sandbox) unauthorized(detail string, now time.Time) answer {
	return kit.JSON(http.StatusUnauthorized, typeProblem,
		s.gateway(http.StatusUnauthorized, "unauthorized", detail, "s2s-api-auth-catalog", now))
}

// denied answers a token whose scope does not cover the method. Both statuses are documented, for different gateways.
func (s *Sandbox) denied(g Group, form Denial, now time.Time) answer {
	if form != Denial401 {
		return s.readOnly(g, form, now)
	}
	origin := "s2s-api-auth-catalog"
	if g == GroupChat {
		origin = "s2s-api-auth-chatx" // as recorded
	}
	return kit.JSON(http.StatusUnauthorized, typeProblem,
		s.gateway(http.StatusUnauthorized, "unauthorized", "token scope not allowed", origin, now))
}

// readOnly answers a write with a read-only token: always 403, in the form of [Quirks.Denial] where the host has several.
func (s *Sandbox) readOnly(g Group, form Denial, now time.Time) answer {
	if form == Denial403Envelope && g == GroupFeedbacks {
		return s.envelopeError(http.StatusForbidden, "Ошибка авторизации")
	}
	p := s.gateway(http.StatusForbidden, "Forbidden", "scope is not allowed for this resource", "ag-marketplace", now)
	p.RequestID, p.Code = s.requestUUID(), "" // the documented example has a UUID and no code
	return kit.JSON(http.StatusForbidden, typeProblem, p)
}

// tooManyRequests: fault is what drained the bucket, if one did.
func (s *Sandbox) tooManyRequests(now time.Time, l limited, seller string, fault *Fault) answer {
	variant := ""
	if fault != nil {
		variant = fault.Variant
	}
	detail, origin := limiterText(variant, seller, l)
	a := kit.JSON(http.StatusTooManyRequests, typeProblem,
		s.gateway(http.StatusTooManyRequests, "too many requests", detail, origin, now))
	a.Header = map[string]string{
		"X-Ratelimit-Retry": strconv.Itoa(l.retry),
		"X-Ratelimit-Limit": strconv.Itoa(l.burst),
		"X-Ratelimit-Reset": strconv.Itoa(l.reset),
	}
	if variant == "gateway" {
		a.Header["X-Ratelimit-Remaining"] = "0" // documents have it on all other statuses only
	}
	if variant == "bare" {
		a.Header = nil
	}
	return a
}

// pathNotFound is the documented 404 for a bad URL, which names neither request nor origin.
func (s *Sandbox) pathNotFound(now time.Time) answer {
	return kit.JSON(http.StatusNotFound, typeJSON, problem{
		Title: "path not found", Detail: "Please consult the https://dev.wildberries.ru/openapi/api-information",
		Status: http.StatusNotFound, StatusText: http.StatusText(http.StatusNotFound),
		Timestamp: now.UTC().Format(time.RFC3339),
	})
}

// envelope is what feedbacks-api wraps everything in. Only its errors carry a request id.
type envelope struct {
	Data             any      `json:"data"`
	Error            bool     `json:"error"`
	ErrorText        string   `json:"errorText"`
	AdditionalErrors []string `json:"additionalErrors"`
	RequestID        string   `json:"requestId,omitempty"`
}

// envelopeError is an error of feedbacks-api itself, one of the OpenAPI document's examples.
func (s *Sandbox) envelopeError(status int, text string) answer {
	return kit.JSON(status, typeJSON, envelope{Error: true, ErrorText: text, RequestID: s.requestUUID()})
}

// chatProblem is an error of the chat service (examples at seller/events and seller/message).
type chatProblem struct {
	Status    int    `json:"status"`
	Title     string `json:"title"`
	Origin    string `json:"origin"`
	Detail    string `json:"detail"`
	RequestID string `json:"requestId"`
	Error     string `json:"error,omitempty"`
}

// chatError: seller/events sends it as application/json, seller/message as application/problem+json.
func (s *Sandbox) chatError(status int, contentType, text string) answer {
	return kit.JSON(status, contentType, s.chatProblem(status, text))
}

func (s *Sandbox) chatProblem(status int, text string) chatProblem {
	s.mu.Lock()
	defer s.mu.Unlock()
	return chatProblem{
		Status: status, Title: http.StatusText(status), Origin: "proxy-chats", Detail: text, RequestID: kit.HexID(s.ids, 16), Error: text,
	}
}

// paymentRequired is the 402 for services of the catalog, word by word.
func paymentRequired() answer {
	return kit.JSON(http.StatusPaymentRequired, typeProblem, struct {
		Title  string `json:"title"`
		Detail string `json:"detail"`
	}{"payment required", "wb solution for business has insufficient funds on its balance. please top up the balance in the " +
		"company's personal account https://dev.wildberries.ru/company"})
}

// tooLarge is the 413 that the general document has for all methods; its body is a guess.
func (s *Sandbox) tooLarge(now time.Time) answer {
	return kit.JSON(http.StatusRequestEntityTooLarge, typeProblem, s.gateway(http.StatusRequestEntityTooLarge,
		"request entity too large", "request body is too large", "ag-marketplace", now))
}

// connectionID looks like the request ids of the returns service: "0HN3PI6JUGFSL:00000004".
func (s *Sandbox) connectionID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "0HN" + strings.ToUpper(kit.HexID(s.ids, 5)) + ":" + fmt.Sprintf("%08X", 1+s.ids.IntN(16))
}

func (s *Sandbox) requestUUID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return kit.UUID(s.ids)
}
