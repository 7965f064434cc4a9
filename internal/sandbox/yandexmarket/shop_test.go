package yandexmarket_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"syncd/internal/sandbox/yandexmarket"
)

// shop is a marketplace with one business and a key for it.
type shop struct {
	*yandexmarket.Market
	t   *testing.T
	b   *yandexmarket.Business
	key string
	// contentType of requests with a body.
	contentType string
}

func newShop(t *testing.T, spec yandexmarket.BusinessSpec, quirks ...yandexmarket.Quirks) *shop {
	t.Helper()
	cfg := yandexmarket.Config{Seed: 1, Businesses: []yandexmarket.BusinessSpec{spec}}
	for _, q := range quirks {
		cfg.Quirks = q
	}
	return open(t, cfg)
}

func open(t *testing.T, cfg yandexmarket.Config) *shop {
	t.Helper()
	m, err := yandexmarket.New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	return &shop{
		Market: m, t: t, b: m.Businesses()[0], key: m.MintKey(yandexmarket.KeySpec{Scopes: []yandexmarket.Scope{yandexmarket.ScopeAll}}),
		contentType: "application/json",
	}
}

// request makes one. {business} in the target is the shop's.
func (s *shop) request(method, target, body string) *http.Request {
	target = strings.ReplaceAll(target, "{business}", str(s.b.ID()))
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Api-Key", s.key)
	if body != "" {
		r.Header.Set("Content-Type", s.contentType)
	}
	return r
}

func (s *shop) serve(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func (s *shop) do(method, target, body string) *httptest.ResponseRecorder {
	return s.serve(s.request(method, target, body))
}

// post reads the result of a 200 into v.
func (s *shop) post(target, body string, v any) {
	s.t.Helper()
	s.result(s.do(http.MethodPost, target, body), v)
}

func (s *shop) result(w *httptest.ResponseRecorder, v any) {
	s.t.Helper()
	if w.Code != http.StatusOK {
		s.t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	envelope := struct {
		Status string
		Result any
	}{Result: v}
	if err := json.Unmarshal(w.Body.Bytes(), &envelope); err != nil || envelope.Status != "OK" {
		s.t.Fatalf("status %q, %v: %s", envelope.Status, err, w.Body)
	}
}

// wantError checks that an answer is an error in the documented envelope, with this text.
func (s *shop) wantError(w *httptest.ResponseRecorder, status int, text string) {
	s.t.Helper()
	var got struct {
		Status string
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		s.t.Fatalf("status %d, no JSON: %s", w.Code, w.Body)
	}
	if w.Code != status || got.Status != "ERROR" || len(got.Errors) != 1 || got.Errors[0].Code == "" || got.Errors[0].Message != text {
		s.t.Fatalf("want %d %q, got %d %s", status, text, w.Code, w.Body)
	}
}

func (s *shop) setQuirks(q yandexmarket.Quirks) { s.must(s.SetQuirks(q)) }

func (s *shop) inject(faults ...yandexmarket.Fault) { s.must(s.Inject(faults...)) }

func (s *shop) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func str(v any) string { return fmt.Sprint(v) }

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
