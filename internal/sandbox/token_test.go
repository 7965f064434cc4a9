package sandbox_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"syncd/internal/sandbox"
)

func payload(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("token has %d parts", len(parts))
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// The table of api-information, "About the token".
func TestTokenFields(t *testing.T) {
	s := newShop(t, sandbox.WorldSpec{})
	all := sandbox.ScopeFeedbacks | sandbox.ScopeChat | sandbox.ScopeReturns
	tests := map[string]struct {
		acc     int
		forWhom string
		test    bool
		scopes  uint64
	}{
		"base": {1, "", false, all}, "test": {2, "", true, 0}, "personal": {3, "self", false, all}, "service": {4, "asid:", false, all},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := payload(t, s.MintToken(sandbox.TokenSpec{Seller: s.world.ID(), Acc: tt.acc}))
			if p["acc"] != float64(tt.acc) || p["t"] != tt.test || p["s"] != float64(tt.scopes) || p["sid"] != s.world.ID() {
				t.Errorf("payload %v", p)
			}
			forWhom, has := p["for"].(string)
			if has != (tt.forWhom != "") || !strings.HasPrefix(forWhom, tt.forWhom) {
				t.Errorf("for = %q, want %q", forWhom, tt.forWhom)
			}
			for _, field := range []string{"id", "exp", "ent", "iid", "oid", "uid"} {
				if p[field] == nil {
					t.Errorf("no %s in %v", field, p)
				}
			}
		})
	}
}

func TestTokenPayloadCanBeAnything(t *testing.T) {
	tests := map[string]struct {
		payload map[string]any
		target  string
		status  int
		limit   string
	}{
		"no scopes":       {map[string]any{"s": nil}, claims, 401, "personal"},
		"no type":         {map[string]any{"acc": nil, "for": nil}, claims, 200, "base"},
		"unknown type":    {map[string]any{"acc": 77}, claims, 200, "base"},
		"only documented": {map[string]any{"ent": nil, "iid": nil, "oid": nil, "uid": nil}, claims, 200, "personal"},
		"scopes to come":  {map[string]any{"s": 1<<40 | 1<<11}, claims, 200, "personal"},
		"type as text":    {map[string]any{"acc": "3"}, claims, 401, ""},
		"no expiry":       {map[string]any{"exp": nil}, claims, 401, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newShop(t, sandbox.WorldSpec{})
			plain := payload(t, s.token)
			s.token = s.MintToken(sandbox.TokenSpec{Seller: s.world.ID(), Payload: tt.payload})
			for field, was := range plain {
				v, has := payload(t, s.token)[field]
				if set, named := tt.payload[field]; named && has != (set != nil) || !named && v != was {
					t.Errorf("%s = %v, was %v", field, v, was)
				}
			}
			s.wantStatus(s.do("GET", tt.target, ""), tt.status)
			limit := ""
			for _, b := range s.Stats().Buckets {
				limit = b.TokenType
			}
			if limit != tt.limit {
				t.Errorf("paid as %q, want %q", limit, tt.limit)
			}
		})
	}
}

func TestTokensAreDeterministic(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := newShop(t, sandbox.WorldSpec{}), newShop(t, sandbox.WorldSpec{})
		if a.token != b.token {
			t.Error("one seed, two tokens")
		}
		a.token = b.token
		a.wantStatus(a.do("GET", events, ""), http.StatusOK)
	})
}

func TestRefusedTokens(t *testing.T) {
	s := newShop(t, sandbox.WorldSpec{})
	foreign := open(t, sandbox.Config{Seed: 2, Sellers: []sandbox.Seller{{ID: s.world.ID()}}})
	parts := strings.Split(s.token, ".")
	tests := map[string]struct{ token, detail string }{
		"none":           {"", "empty Authorization header"},
		"garbage":        {"abc", "token is malformed: token contains an invalid number of segments"},
		"bad base64":     {parts[0] + "." + parts[1] + ".!!", "token is malformed: could not base64 decode signature: illegal base64 data"},
		"short":          {parts[0] + "." + parts[1] + ".AAAA", "token signature is invalid"},
		"other key":      {foreign.token, "token signature is invalid"},
		"none algorithm": {base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".", "signing method none is invalid"},
		"expired":        {s.MintToken(sandbox.TokenSpec{Seller: s.world.ID(), Expires: time.Now().Add(-time.Second)}), "token is expired"},
		"unknown seller": {s.MintToken(sandbox.TokenSpec{Seller: "11111111-2222-4333-8444-555555555555"}), "token is withdrawn"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := s.request("GET", events, "")
			r.Header.Set("Authorization", tt.token)
			w := s.serve(r)
			s.wantStatus(w, http.StatusUnauthorized, `"title":"unauthorized"`, `"statusText":"Unauthorized"`, tt.detail)
			if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("Content-Type %s", got)
			}
		})
	}
	if got := s.Stats(); got.Unauthorized != int64(len(tests)) || len(got.Buckets) != 0 {
		t.Errorf("unauthorized %d, buckets %v", got.Unauthorized, got.Buckets)
	}
}

func TestTokenExpiresWhileInUse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		s.wantStatus(s.do("GET", events, ""), http.StatusOK)
		time.Sleep(180*24*time.Hour - 1)
		s.wantStatus(s.do("GET", events, ""), http.StatusOK)
		time.Sleep(time.Nanosecond)
		s.wantStatus(s.do("GET", events, ""), http.StatusUnauthorized, "expired")
	})
}

func TestBearerPrefixIsAWarning(t *testing.T) {
	s := newShop(t, sandbox.WorldSpec{})
	s.token = "Bearer " + s.token
	s.wantStatus(s.do("GET", events, ""), http.StatusOK)
	if got := s.Stats().BearerPrefixes; got != 1 {
		t.Errorf("BearerPrefixes = %d", got)
	}
}

func TestScopes(t *testing.T) {
	s := newShop(t, sandbox.WorldSpec{})
	seller := s.world.ID()
	full, chatOnly := s.token, s.MintToken(sandbox.TokenSpec{Seller: seller, Scopes: sandbox.ScopeChat})
	feedbacksOnly := s.MintToken(sandbox.TokenSpec{Seller: seller, Scopes: sandbox.ScopeFeedbacks})
	test := s.MintToken(sandbox.TokenSpec{Seller: seller, Acc: sandbox.AccTest})
	readOnly := s.MintToken(sandbox.TokenSpec{Seller: seller, ReadOnly: true})
	service := s.MintToken(sandbox.TokenSpec{Seller: seller, Acc: sandbox.AccService})
	unknown := s.MintToken(sandbox.TokenSpec{Seller: seller, Acc: 9, Scopes: sandbox.ScopeReturns})
	const patch = "PATCH /api/v1/questions"
	tests := map[string]struct {
		token, request string
		denial         sandbox.Denial
		status         int
		detail         string
	}{
		"full":                       {full, "GET " + questions, 0, 200, ""},
		"chat token on questions":    {chatOnly, "GET " + questions, 0, 401, "token scope not allowed"},
		"questions token on chat":    {feedbacksOnly, "GET " + events, 0, 401, `"origin":"s2s-api-auth-chatx"`},
		"as gateway 403":             {chatOnly, "GET " + questions, sandbox.Denial403Gateway, 403, "scope is not allowed for this resource"},
		"as envelope 403":            {chatOnly, "GET " + questions, sandbox.Denial403Envelope, 403, "Ошибка авторизации"},
		"chat has no envelope":       {feedbacksOnly, "GET " + events, sandbox.Denial403Envelope, 403, "scope is not allowed for this resource"},
		"test token on questions":    {test, "GET " + questions, 0, 200, ""},
		"test token on chat":         {test, "GET " + events, 0, 401, "token scope not allowed"},
		"chat token on returns":      {chatOnly, "GET " + claims, 0, 401, "token scope not allowed"},
		"returns have no envelope":   {chatOnly, "GET " + claims, sandbox.Denial403Envelope, 403, "scope is not allowed for this resource"},
		"test token on returns":      {test, "GET " + claims, 0, 401, "token scope not allowed"},
		"service token on returns":   {service, "GET " + claims, 0, 200, ""},
		"unknown type on returns":    {unknown, "GET " + claims, 0, 200, ""},
		"unknown type on chat":       {unknown, "GET " + chats, 0, 401, "token scope not allowed"},
		"read-only reads claims":     {readOnly, "GET " + claims, 0, 200, ""},
		"read-only decides":          {readOnly, "PATCH /api/v1/claim", 0, 403, "scope is not allowed for this resource"},
		"read-only reads":            {readOnly, "GET " + chats, 0, 200, ""},
		"read-only writes":           {readOnly, patch, 0, 403, "scope is not allowed for this resource"},
		"read-only writes, envelope": {readOnly, patch, sandbox.Denial403Envelope, 403, "Ошибка авторизации"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newShop(t, sandbox.WorldSpec{}, sandbox.Quirks{Denial: tt.denial})
				// The bubble's clock is another one: what counts is that the seed, and so the key, is the same.
				s.token = tt.token
				method, target, _ := strings.Cut(tt.request, " ")
				w := s.do(method, target, "{}")
				s.wantStatus(w, tt.status, tt.detail)
				if w.Header().Get("X-Ratelimit-Remaining") == "" {
					t.Error("a known seller's request did not pay")
				}
			})
		})
	}
}
