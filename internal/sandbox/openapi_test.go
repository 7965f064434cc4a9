package sandbox_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"syncd/internal/sandbox"
)

// specs finds the marketplace's OpenAPI documents: $SYNCD_SPECS, or ../shared/specs beside the repository.
func specs(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("SYNCD_SPECS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "specs")
	}
	file := filepath.Join(dir, "wildberries", "2026-07-23-ru", name)
	if _, err := os.Stat(file); err != nil {
		t.Skipf("the answers are NOT checked against the marketplace's OpenAPI document: %v (set SYNCD_SPECS)", err)
	}
	return file
}

// document loads one file as a router. Servers go: the sandbox serves all hosts as one.
func document(t *testing.T, name string) routers.Router {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile(specs(t, name))
	if err != nil {
		t.Fatal(err)
	}
	doc.Servers = nil
	if s := doc.Components.Schemas["respond.SuccessResponse"]; s != nil {
		// The pins' answers are declared to be both this, whose data is an object, and something whose data is a list or a
		// number, as in its examples.
		s.Value.Properties["data"].Value.Type = nil
	}
	for _, path := range doc.Paths.Map() {
		path.Servers = nil
		for _, op := range path.Operations() {
			op.Servers = nil
		}
	}
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return router
}

// deviation is an answer that the document does not allow, and why the sandbox sends it all the same. Each must still fail
// validation with the given words; one that passes has to be removed here.
type deviation struct{ name, words, reason string }

var deviations = []deviation{
	{"events: empty page", "newestEventTime", "null times are what clients met on empty pages (wildberries.md §5.5); the schema is a plain string"},
	{"events: empty page, null next", "next", "seen by clients (wildberries.md §5.5); the schema is a plain integer"},
	{"events: 403", "status is not supported", "403 problem+json is on every operation since 2026-09 (wildberries.md §3); this document is of 2026-07"},
	{"questions: 403 of the gateway", "application/problem+json", "the same; this document has only feedbacks-api's own body"},
	{"questions: error in 200", "data", "that `error` in a 200 can be true is the document's, with which data is not: null as in its errors"},
	{"message: read-only token", "status is not supported", "the same"},
	{"feedbacks: capped with 422", "status is not supported", "the document has no cap below 199,990; 422 is how other methods of the host refuse"},
	{"answer: bad edit", "status is not supported", "the document has the 400s at POST only; PATCH reads the same body"},
	{"pins: of a feedback", "feedbackId", "the parameter is an integer in the document; ids of feedbacks are strings everywhere"},
	{"chats: 403", "status is not supported", "the same"},
	{"claims: 403", "status is not supported", "the same"},
	{"claim: read-only token", "status is not supported", "the same"},
	{"claim: too large", "status is not supported", "413 is in the general document for all methods, in no operation"},
	{"download: 403", "status is not supported", "the same"},
	{"message: too large", "status is not supported", "413 is in the general document for all methods, in no operation"},
}

func TestAnswersMatchTheOpenAPIDocument(t *testing.T) {
	communications, general := document(t, "09-communications.yaml"), document(t, "01-general.yaml")
	token := func(spec sandbox.TokenSpec) func(s *shop) {
		return func(s *shop) { spec.Seller = s.world.ID(); s.token = s.MintToken(spec) }
	}
	quirks := func(q sandbox.Quirks, more ...func(s *shop)) func(s *shop) {
		return func(s *shop) {
			_ = s.SetQuirks(q) // they are valid
			for _, do := range more {
				do(s)
			}
		}
	}
	fault := func(kind sandbox.FaultKind) func(s *shop) {
		return func(s *shop) { s.inject(sandbox.Fault{Kind: kind}) }
	}
	world := func(spec sandbox.WorldSpec) func(s *shop) {
		return func(s *shop) { *s = *newShop(s.t, spec) }
	}
	for _, kind := range []string{"application/pdf", "image/jpeg"} { // or it knows no way to read them
		openapi3filter.RegisterBodyDecoder(kind, openapi3filter.FileBodyDecoder)
	}
	chatOnly, feedbacksOnly := token(sandbox.TokenSpec{Scopes: sandbox.ScopeChat}), token(sandbox.TokenSpec{Scopes: sandbox.ScopeFeedbacks})
	readOnly := token(sandbox.TokenSpec{ReadOnly: true})
	scenes := []scene{
		{"events: first page", "GET " + events, "", 200, nil},
		{"events: next page", "GET " + events + "?next=1000", "", 200, nil},
		{"events: empty page", "GET " + events + "?next=99999999999999", "", 200, nil},
		{"events: empty page, no times", "GET " + events + "?next=99999999999999", "", 200, quirks(sandbox.Quirks{EmptyTimesAbsent: true})},
		{"events: empty page, null next", "GET " + events + "?next=99999999999999", "", 200,
			quirks(sandbox.Quirks{EmptyTimesAbsent: true, EmptyNext: sandbox.EmptyNextNull})},
		{"events: bad next", "GET " + events + "?next=0", "", 400, nil},
		{"events: no number", "GET " + events + "?next=x", "", 400, nil},
		{"events: 401", "GET " + events, "", 401, feedbacksOnly},
		{"events: 403", "GET " + events, "", 403, quirks(sandbox.Quirks{Denial: sandbox.Denial403Gateway}, feedbacksOnly)},
		{"events: 429", "GET " + events, "", 429, fault(sandbox.FaultRateLimited)},
		{"chats", "GET " + chats, "", 200, nil},
		{"chats: 401", "GET " + chats, "", 401, func(s *shop) { s.token = "" }},
		{"questions: not answered", "GET /api/v1/questions?isAnswered=false&take=10000&skip=0", "", 200, nil},
		{"questions: answered", "GET /api/v1/questions?isAnswered=true&take=10000&skip=0&order=dateAsc&nmId=1", "", 200, nil},
		{"questions: window", "GET /api/v1/questions?isAnswered=true&take=100&skip=0&dateFrom=1&dateTo=99999999999", "", 200, nil},
		{"questions: bad", "GET /api/v1/questions?isAnswered=x&take=1&skip=0", "", 400, nil},
		{"questions: 401", "GET " + questions, "", 401, chatOnly},
		{"questions: 403", "GET " + questions, "", 403, quirks(sandbox.Quirks{Denial: sandbox.Denial403Envelope}, chatOnly)},
		{"questions: 403 of the gateway", "GET " + questions, "", 403, quirks(sandbox.Quirks{Denial: sandbox.Denial403Gateway}, chatOnly)},
		{"questions: 429", "GET " + questions, "", 429, fault(sandbox.FaultRateLimited)},
		{"questions: error in 200", "GET " + questions, "", 200, fault(sandbox.FaultErrorIn200)},
		{"question", "GET /api/v1/question?id=known", "", 200, nil},
		{"question: unknown", "GET /api/v1/question?id=unknown", "", 422, nil},
		{"count", "GET /api/v1/questions/count?isAnswered=false&dateFrom=1&dateTo=99999999999", "", 200, nil},
		{"count: bad", "GET /api/v1/questions/count?dateFrom=x", "", 400, nil},
		{"count unanswered", "GET /api/v1/questions/count-unanswered", "", 200, nil},
		{"news", "GET /api/v1/new-feedbacks-questions", "", 200, nil},
		{"patch: view", "PATCH /api/v1/questions", `{"id":"known","wasViewed":true}`, 200, nil},
		{"patch: answer", "PATCH /api/v1/questions", `{"id":"known","answer":{"text":"да"},"state":"wbRu"}`, 200, nil},
		{"patch: reject", "PATCH /api/v1/questions", `{"id":"known","answer":{"text":"нет"},"state":"none"}`, 200, nil},
		{"patch: unknown", "PATCH /api/v1/questions", `{"id":"unknown","wasViewed":true}`, 404, nil},
		{"patch: bad", "PATCH /api/v1/questions", `{`, 400, nil},
		{"patch: read-only token", "PATCH /api/v1/questions", `{"id":"known","wasViewed":true}`, 403, quirks(sandbox.Quirks{Denial: sandbox.Denial403Envelope}, readOnly)},
		{"patch: not editable", "PATCH /api/v1/questions", `{"id":"known","answer":{"text":"c"},"state":"wbRu"}`, 422, func(s *shop) {
			for _, text := range []string{"a", "b"} {
				s.do("PATCH", "/api/v1/questions", `{"id":"known","answer":{"text":"`+text+`"},"state":"wbRu"}`)
			}
		}},
		{"message", "POST message", "", 200, nil},
		{"message: bad signature", "POST message", "unknown", 400, nil},
		{"message: read-only token", "POST message", "", 403, readOnly},
		{"message: too large", "POST message", "large", 413, nil},
		{"chats: 402", "GET " + chats, "", 402, fault(sandbox.Fault402)},
		{"chats: 403", "GET " + chats, "", 403, fault(sandbox.Fault403)},
		{"chats: 429", "GET " + chats, "", 429, fault(sandbox.FaultRateLimited)},
		{"download: image", "GET download", "image/jpeg", 200, nil},
		{"download: file", "GET download", "application/pdf", 200, nil},
		{"download: under moderation", "GET download", "image/jpeg", 202, world(sandbox.WorldSpec{Events: 300, ModerateFilesFor: 90 * 24 * time.Hour})},
		{"download: refused", "GET download", "image/jpeg", 451, world(sandbox.WorldSpec{Events: 300, RefusedFiles: 1})},
		{"download: unknown", "GET " + download + "x", "", 400, nil},
		{"download: 401", "GET " + download + "x", "", 401, feedbacksOnly},
		{"download: 402", "GET " + download + "x", "", 402, fault(sandbox.Fault402)},
		{"download: 403", "GET " + download + "x", "", 403, fault(sandbox.Fault403)},
		{"download: 429", "GET " + download + "x", "", 429, fault(sandbox.FaultRateLimited)},
		{"claims: under review", "GET /api/v1/claims?is_archive=false&limit=200", "", 200, nil},
		{"claims: archive", "GET /api/v1/claims?is_archive=true&limit=200", "", 200, nil},
		{"claims: filtered", "GET /api/v1/claims?is_archive=false&id=known&nm_id=7&limit=1&offset=0", "", 200, nil},
		{"claims: none", "GET /api/v1/claims?is_archive=true&offset=9999", "", 200, nil},
		{"claims: bad", "GET /api/v1/claims", "", 400, nil},
		{"claims: 401", "GET " + claims, "", 401, chatOnly},
		{"claims: 402", "GET " + claims, "", 402, fault(sandbox.Fault402)},
		{"claims: 403", "GET " + claims, "", 403, fault(sandbox.Fault403)},
		{"claims: 429", "GET " + claims, "", 429, fault(sandbox.FaultRateLimited)},
		{"claims: error in 200", "GET " + claims, "", 200, fault(sandbox.FaultErrorIn200)},
		{"claim: approve", "PATCH /api/v1/claim", `{"id":"known","action":"approve1"}`, 200, nil},
		{"claim: reject", "PATCH /api/v1/claim", `{"id":"known","action":"rejectcustom","comment":"Фото не того товара"}`, 200, nil},
		{"claim: bad", "PATCH /api/v1/claim", `{"id":"known"}`, 400, nil},
		{"claim: 401", "PATCH /api/v1/claim", `{}`, 401, chatOnly},
		{"claim: 402", "PATCH /api/v1/claim", `{}`, 402, fault(sandbox.Fault402)},
		{"claim: read-only token", "PATCH /api/v1/claim", `{}`, 403, readOnly},
		{"claim: too large", "PATCH /api/v1/claim", strings.Repeat(" ", 2<<20), 413, nil},
		{"claim: 429", "PATCH /api/v1/claim", `{}`, 429, fault(sandbox.FaultRateLimited)},
		{"feedbacks: not processed", "GET /api/v1/feedbacks?isAnswered=false&take=5000&skip=0", "", 200, nil},
		{"feedbacks: processed", "GET /api/v1/feedbacks?isAnswered=true&take=5000&skip=0&order=dateAsc", "", 200, nil},
		{"feedbacks: window", "GET /api/v1/feedbacks?isAnswered=true&take=100&skip=0&dateFrom=1&dateTo=99999999999&nmId=1", "", 200, nil},
		{"feedbacks: bad", "GET /api/v1/feedbacks?isAnswered=x&take=1&skip=0", "", 400, nil},
		{"feedbacks: capped", "GET /api/v1/feedbacks?isAnswered=true&take=1&skip=11", "", 400, quirks(sandbox.Quirks{FeedbackSkipCap: 10})},
		{"feedbacks: capped with 422", "GET /api/v1/feedbacks?isAnswered=true&take=1&skip=11", "", 422,
			quirks(sandbox.Quirks{FeedbackSkipCap: 10, FeedbackSkipStatus: 422})},
		{"feedbacks: 401", "GET /api/v1/feedbacks?isAnswered=true&take=1&skip=0", "", 401, chatOnly},
		{"feedbacks: 403", "GET /api/v1/feedbacks?isAnswered=true&take=1&skip=0", "", 403, quirks(sandbox.Quirks{Denial: sandbox.Denial403Envelope}, chatOnly)},
		{"feedbacks: 429", "GET /api/v1/feedbacks?isAnswered=true&take=1&skip=0", "", 429, fault(sandbox.FaultRateLimited)},
		{"archive", "GET /api/v1/feedbacks/archive?take=5000&skip=0&order=dateAsc", "", 200, nil},
		{"archive: bad", "GET /api/v1/feedbacks/archive?take=x&skip=0", "", 400, nil},
		{"archive: capped with 422", "GET /api/v1/feedbacks/archive?take=1&skip=11", "", 422, quirks(sandbox.Quirks{FeedbackSkipCap: 10, FeedbackSkipStatus: 422})},
		{"feedback", "GET /api/v1/feedback?id=known", "", 200, nil},
		{"feedback: unknown", "GET /api/v1/feedback?id=unknown", "", 422, nil},
		{"feedback count", "GET /api/v1/feedbacks/count?isAnswered=true&dateFrom=1&dateTo=99999999999", "", 200, nil},
		{"feedback count: bad", "GET /api/v1/feedbacks/count?isAnswered=true&dateFrom=x", "", 400, nil},
		{"feedback count unanswered", "GET /api/v1/feedbacks/count-unanswered", "", 200, nil},
		{"answer", "POST /api/v1/feedbacks/answer", `{"id":"known","text":"да"}`, 204, nil},
		{"answer: bad", "POST /api/v1/feedbacks/answer", `{`, 400, nil},
		{"answer: 401", "POST /api/v1/feedbacks/answer", `{}`, 401, chatOnly},
		{"answer: edit", "PATCH /api/v1/feedbacks/answer", `{"id":"known","text":"да"}`, 204, nil},
		{"answer: bad edit", "PATCH /api/v1/feedbacks/answer", `{`, 400, nil},
		{"return", "POST /api/v1/feedbacks/order/return", `{"feedbackId":"known"}`, 200, nil},
		{"return: bad", "POST /api/v1/feedbacks/order/return", `{}`, 400, nil},
		{"return: not possible", "POST /api/v1/feedbacks/order/return", `{"feedbackId":"fixed"}`, 422, nil},
		{"pins", "GET " + pins, "", 200, nil},
		{"pins: page", "GET " + pins + "?state=pinned&pinOn=nm&limit=10&next=741", "", 200, nil},
		{"pins: dates", "GET " + pins + "?state=unpinned&dateFrom=2020-01-01T15:04:05Z&dateTo=2030-01-01T15:04:05Z", "", 200, nil},
		{"pins: of a feedback", "GET " + pins + "?feedbackId=known", "", 200, nil},
		{"pins: bad", "GET " + pins + "?state=x", "", 400, nil},
		{"pins: 429", "GET " + pins, "", 429, fault(sandbox.FaultRateLimited)},
		{"pin", "POST " + pins, `[{"pinMethod":"tariff","pinOn":"imt","feedbackId":"known"},{"pinMethod":"tariff","pinOn":"nm","feedbackId":"unknown"}]`, 200, nil},
		{"pin: bad", "POST " + pins, `{}`, 400, nil},
		{"pin: no plan", "POST " + pins, `[]`, 403, world(sandbox.WorldSpec{NoPinPlan: true})},
		{"unpin", "DELETE " + pins, `[123456,234567]`, 200, nil},
		{"unpin: bad", "DELETE " + pins, `{}`, 400, nil},
		{"pin count", "GET " + pins + "/count?state=pinned", "", 200, nil},
		{"pin count: bad", "GET " + pins + "/count?pinOn=x", "", 400, nil},
		{"pin limits", "GET " + pins + "/limits", "", 200, nil},
		{"pin limits: no plan", "GET " + pins + "/limits", "", 200, world(sandbox.WorldSpec{NoPinPlan: true})},
		{"rating", "GET " + rating, "", 200, token(sandbox.TokenSpec{Acc: sandbox.AccService})},
		{"rating: other token", "GET " + rating, "", 403, nil},
		{"rating: 429", "GET " + rating, "", 429, fault(sandbox.FaultRateLimited)},
		{"ping", "GET /ping", "", 200, nil},
		{"ping: 401", "GET /ping", "", 401, func(s *shop) { s.token = "x" }},
		{"ping: 429", "GET /ping", "", 429, fault(sandbox.FaultRateLimited)},
	}
	for _, d := range deviations {
		if !slices.ContainsFunc(scenes, func(sc scene) bool { return sc.name == d.name }) {
			t.Errorf("deviation %q has no scene", d.name)
		}
	}
	for _, sc := range scenes {
		t.Run(sc.name, func(t *testing.T) {
			s := newShop(t, sandbox.WorldSpec{Events: 300, Questions: 300, Claims: 300, Feedbacks: 300, Pins: 200, Span: 90 * 24 * time.Hour})
			s.addClaim(sandbox.ClaimSpec{ID: "known", NmID: 7})
			s.addFeedback(sandbox.FeedbackSpec{ID: "known", Returnable: true})
			s.addFeedback(sandbox.FeedbackSpec{ID: "fixed"})
			if _, err := s.world.AddQuestion(sandbox.QuestionSpec{ID: "known"}); err != nil {
				t.Fatal(err)
			}
			if sc.setUp != nil {
				sc.setUp(s)
			}
			r := sc.build(s)
			w := s.serve(r)
			if w.Code != sc.status {
				t.Fatalf("status %d, want %d: %s", w.Code, sc.status, w.Body)
			}
			router := communications
			if r.URL.Path == "/ping" || r.URL.Path == rating {
				router = general
			}
			err := check(router, sc.build(s), w.Code, w.Header(), w.Body.Bytes())
			for _, d := range deviations {
				if d.name != sc.name {
					continue
				}
				if err == nil || !strings.Contains(err.Error(), d.words) {
					t.Fatalf("listed as a deviation about %q (%s), but: %v", d.words, d.reason, err)
				}
				return
			}
			if err != nil {
				t.Errorf("%v\n%s", err, w.Body)
			}
		})
	}

	t.Run("every page of a world", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			s := newShop(t, sandbox.WorldSpec{Events: 5000, Questions: 100})
			pages, items := s.walk(200)
			if len(items) != 5000 {
				t.Fatalf("%d events on %d pages", len(items), len(pages))
			}
			for _, p := range pages[:len(pages)-1] {
				target := events + "?next=" + string(p.Result.Next)
				time.Sleep(time.Second)
				w := s.do("GET", target, "")
				if strings.Contains(w.Body.String(), `"totalEvents":0`) {
					continue // a listed deviation
				}
				if err := check(communications, s.request("GET", target, ""), w.Code, w.Header(), w.Body.Bytes()); err != nil {
					t.Fatal(err)
				}
			}
		})
	})
}

// scene is one request and the status it gets.
type scene struct {
	name, request string
	// body is the JSON of a PATCH; of a message it is "", "unknown" (signature) or "large", of a download the file's type.
	body   string
	status int
	setUp  func(s *shop)
}

// build makes the request anew: its body can be read once.
func (sc scene) build(s *shop) *http.Request {
	method, target, _ := strings.Cut(sc.request, " ")
	if target == "download" {
		for id, kind := range s.files() {
			if kind == sc.body {
				return s.request(method, download+id, "")
			}
		}
	}
	if target != "message" {
		return s.request(method, target, sc.body)
	}
	fields, files := map[string]string{"message": "Добрый день"}, map[string][]byte{"a.pdf": []byte("%PDF-1.7")}
	for _, e := range s.world.Events() {
		if sign := decodeEvent(s.t, e.JSON).ReplySign; sign != "" {
			fields["replySign"] = sign
		}
	}
	switch sc.body {
	case "unknown":
		fields["replySign"] = "1:unknown"
	case "large":
		fields["message"] = strings.Repeat("a", 32<<20)
	}
	return s.message(fields, files)
}

// check validates an answer, and a request that was answered 200, against a document.
func check(router routers.Router, r *http.Request, status int, header http.Header, body []byte) error {
	route, params, err := router.FindRoute(r)
	if err != nil {
		return err
	}
	options := &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true}
	options.WithCustomSchemaErrorFunc(func(err *openapi3.SchemaError) string { // without the whole schema
		return strings.Join(err.JSONPointer(), ".") + ": " + err.Reason
	})
	request := &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route, Options: options}
	ctx := context.Background()
	if status == http.StatusOK {
		if err := openapi3filter.ValidateRequest(ctx, request); err != nil {
			return err
		}
	}
	return openapi3filter.ValidateResponse(ctx, &openapi3filter.ResponseValidationInput{
		RequestValidationInput: request, Status: status, Header: header, Body: io.NopCloser(bytes.NewReader(body)), Options: options,
	})
}
