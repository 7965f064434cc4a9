package yandexmarket_test

import (
	"bytes"
	"context"
	"errors"
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

	"syncd/internal/sandbox/yandexmarket"
)

// document loads the marketplace's OpenAPI document: from $SYNCD_SPECS, or ../shared/specs beside the repository.
func document(t *testing.T) (*openapi3.T, routers.Router) {
	t.Helper()
	dir := os.Getenv("SYNCD_SPECS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "shared", "specs")
	}
	file := filepath.Join(dir, "yandex-market", "openapi.communication-returns.yaml")
	if _, err := os.Stat(file); err != nil {
		t.Skipf("the answers are NOT checked against the marketplace's OpenAPI document: %v (set SYNCD_SPECS)", err)
	}
	doc, err := openapi3.NewLoader().LoadFromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	doc.Servers = nil
	doc.Components.Schemas["ShopSku"].Value.Pattern = `^[^\x00-\x08\x0A-\x1f\x7f]*[^\x00-\x08\x0A-\x1f\x7f\s][^\x00-\x08\x0A-\x1f\x7f]*$` // as it was; Go knows no (?=
	router, err := gorillamux.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	return doc, router
}

// deviation is an answer that the document does not allow, and why the sandbox sends it all the same. Each must still fail
// validation with the given words; one that passes has to be removed here.
type deviation struct{ name, words, reason string }

// scene is one request and the status it gets. In the target and the body {business} and
// {campaign} are replaced, and what fill replaces.
type scene struct {
	name, request, body string
	status              int
	setUp               func(s *shop)
	// fill gives values for more of these, from what is in the world.
	fill func(s *shop) map[string]string
}

// sceneTables and deviationTables are joined from all files that serve methods.
var (
	sceneTables     = [][]scene{coreScenes, chatScenes, feedbackScenes, questionScenes, returnScenes}
	deviationTables = [][]deviation{coreDeviations, chatDeviations, communicationDeviations}
)

// TestAnswersMatchTheOpenAPIDocument sends the requests of all tables and validates what comes back.
func TestAnswersMatchTheOpenAPIDocument(t *testing.T) {
	doc, router := document(t)
	for _, kind := range []string{"application/pdf", "image/jpeg", "image/png"} { // or it knows no way to read them
		openapi3filter.RegisterBodyDecoder(kind, openapi3filter.FileBodyDecoder)
	}
	scenes, deviations := slices.Concat(sceneTables...), slices.Concat(deviationTables...)
	for _, d := range deviations {
		if !slices.ContainsFunc(scenes, func(sc scene) bool { return sc.name == d.name }) {
			t.Errorf("deviation %q has no scene", d.name)
		}
	}
	answered := make(map[string]bool)
	for _, sc := range scenes {
		t.Run(sc.name, func(t *testing.T) {
			s := newShop(t, yandexmarket.BusinessSpec{World: fullWorld})
			if sc.setUp != nil {
				sc.setUp(s)
			}
			build := sc.builder(s)
			w := s.serve(build())
			if w.Code != sc.status {
				t.Fatalf("status %d, want %d: %s", w.Code, sc.status, w.Body)
			}
			route, params, err := router.FindRoute(build())
			if err != nil {
				t.Fatal(err)
			}
			if sc.status == http.StatusOK {
				answered[route.Method+" "+route.Path] = true
			}
			err = check(route, params, build(), w.Code, w.Header(), w.Body.Bytes())
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
				t.Errorf("%v\n%.1000s", err, w.Body)
			}
		})
	}
	for path, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			if name := method + " " + path; !answered[name] && !yandexmarket.Unserved(name) {
				t.Errorf("%s is served, and no scene has it answered 200", name)
			}
		}
	}
}

// builder makes the request anew each time: its body can be read once. What it is made of is looked up once.
func (sc scene) builder(s *shop) func() *http.Request {
	values := map[string]string{"business": str(s.b.ID()), "campaign": str(s.b.Stores()[0].ID)}
	if sc.fill != nil {
		for name, value := range sc.fill(s) {
			values[name] = value
		}
	}
	replace := func(text string) string {
		for name, value := range values {
			text = strings.ReplaceAll(text, "{"+name+"}", value)
		}
		return text
	}
	method, target, _ := strings.Cut(replace(sc.request), " ")
	return func() *http.Request { return s.request(method, target, replace(sc.body)) }
}

// check validates an answer, and a request that was answered 200, against the document.
func check(route *routers.Route, params map[string]string, r *http.Request, status int, header http.Header, body []byte) error {
	options := &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true}
	options.WithCustomSchemaErrorFunc(func(err *openapi3.SchemaError) string { // without the whole schema
		for inner := err; errors.As(inner.Origin, &inner); {
			err = inner // what does not match in one of allOf
		}
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

// fullWorld has some of everything.
var fullWorld = yandexmarket.WorldSpec{
	Span:     20 * 24 * time.Hour,
	Feedback: yandexmarket.FeedbackSpec{History: 100}, Questions: yandexmarket.QuestionSpec{History: 60}, Returns: yandexmarket.ReturnSpec{History: 80},
	Chats: yandexmarket.ChatSpec{History: 60},
}
