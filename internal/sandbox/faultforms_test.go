package sandbox_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"syncd/internal/sandbox"
)

func TestFaultForms(t *testing.T) {
	const problem, plain, html = "application/problem+json", "application/json", "text/html"
	tests := []struct {
		kind        sandbox.FaultKind
		variant     string
		target      string
		status      int
		contentType string
		text        string
	}{
		{sandbox.Fault401, "", events, 401, problem, "token problem; token is withdrawn"},
		{sandbox.Fault401, "withdrawn", events, 401, problem, "token problem; token is withdrawn"},
		{sandbox.Fault401, "malformed", events, 401, problem, "token is malformed: could not base64 decode signature: illegal base64 data at input byte 84"},
		{sandbox.Fault401, "expired", claims, 401, problem, "token is expired"},
		{sandbox.Fault401, "scope", chats, 401, problem, `"detail":"token scope not allowed"`},
		{sandbox.Fault402, "", claims, 402, problem, `{"title":"payment required","detail":"wb solution for business has insufficient funds on its balance.`},
		{sandbox.Fault403, "", claims, 403, problem, "scope is not allowed for this resource"},
		{sandbox.Fault403, "gateway", questions, 403, problem, "scope is not allowed for this resource"},
		{sandbox.Fault403, "envelope", questions, 403, plain, "Ошибка авторизации"},
		{sandbox.Fault403, "base_token", claims, 403, problem, `"detail":"base token is not allowed","code":"base token is not allowed for this path"`},
		{sandbox.Fault403, "requirements", claims, 403, problem, "token does not satisfy additional requirements"},
		{sandbox.Fault403, "pins", claims, 403, plain, `"title":"no active subscription or tariff"`},
		{sandbox.Fault404, "", questions, 404, plain, "path not found"},
		{sandbox.Fault413, "", questions, 413, problem, `"status":413`},
		{sandbox.Fault422, "", questions, 422, plain, `{"data":null,"error":true,"errorText":"Something went wrong"`},
		{sandbox.Fault422, "", claims, 422, problem, `"status":422`},
		{sandbox.Fault500, "json", claims, 500, plain, `"code":500`},
		{sandbox.Fault500, "html", claims, 500, html, "<h1>500 Internal Server Error</h1>"},
		{sandbox.Fault500, "empty", claims, 500, "", ""},
		{sandbox.Fault502, "problem", claims, 502, problem, "internal service error, retry later"},
		{sandbox.Fault503, "json", claims, 503, plain, `"code":503`},
		{sandbox.Fault503, "empty", claims, 503, "", ""},
		{sandbox.Fault504, "", claims, 504, html, "504 Gateway Timeout"},
		{sandbox.FaultRateLimited, "", claims, 429, problem, "limited by "},
		{sandbox.FaultRateLimited, "gateway", claims, 429, problem, "rate limit exceeded, retry after the period specified in the X-RateLimit-Retry header"},
		{sandbox.FaultRateLimited, "global", claims, 429, problem, "Limited by global limiter, per seller "},
		{sandbox.FaultOther200, "", claims, 200, html, "<h1>Ведутся технические работы</h1>"},
		{sandbox.FaultOther200, "empty", claims, 200, "", ""},
		{sandbox.FaultErrorIn200, "", claims, 200, plain, `{"title":"Internal error",`},
	}
	for _, tt := range tests {
		t.Run(string(tt.kind)+" "+tt.variant, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newShop(t, sandbox.WorldSpec{})
				s.inject(sandbox.Fault{Kind: tt.kind, Variant: tt.variant, Count: 1})
				w := s.do("GET", tt.target, "")
				s.wantStatus(w, tt.status, tt.text)
				if got := w.Header().Get("Content-Type"); got != tt.contentType {
					t.Errorf("Content-Type %q, want %q", got, tt.contentType)
				}
				if tt.variant == "empty" && w.Body.Len() > 0 {
					t.Errorf("a body: %s", w.Body)
				}
				remaining := w.Header().Get("X-Ratelimit-Remaining")
				if has := tt.status != 429 || tt.variant == "gateway"; has != (remaining != "") || tt.variant == "gateway" && tt.status == 429 && remaining != "0" {
					t.Errorf("X-Ratelimit-Remaining: %q", remaining)
				}
				if s.Stats().Violations > 0 {
					t.Error("a violation")
				}
			})
		})
	}
}

func TestProblemsAsJSON(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{}, sandbox.Quirks{ProblemsAsJSON: true})
		s.inject(sandbox.Fault{Kind: sandbox.FaultRateLimited, Count: 1})
		for _, status := range []int{429, 400, 401} {
			w := s.do("GET", "/api/v1/claims", "")
			s.wantStatus(w, status, `"title"`)
			if got := w.Header().Get("Content-Type"); got != "application/json" {
				t.Errorf("%d as %s", status, got)
			}
			if time.Sleep(time.Minute); status == 400 {
				s.token = "x"
			}
		}
	})
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{}, sandbox.Quirks{ProblemsAsJSON: true})
		c := s.dial()
		s.inject(sandbox.Fault{Kind: sandbox.FaultReset, Count: 1})
		if _, _, err := s.fetch(t.Context(), c, events); err == nil {
			t.Error("an answer on a connection that was reset")
		}
	})
}

// Retry of hours, as recorded on other hosts: the bucket really stays empty for so long.
func TestBudgetGoneForHours(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		s.wantStatus(s.do("GET", events, ""), http.StatusOK)
		s.inject(sandbox.Fault{Kind: sandbox.FaultRateLimited, Variant: "global", Count: 1, Delay: 18236 * time.Second})
		w := s.do("GET", events, "")
		s.wantStatus(w, http.StatusTooManyRequests, s.world.ID())
		if retry, reset := w.Header().Get("X-Ratelimit-Retry"), w.Header().Get("X-Ratelimit-Reset"); retry != "18236" || reset != "18245" {
			t.Errorf("retry %s, reset %s", retry, reset)
		}
		time.Sleep(18235 * time.Second)
		s.wantStatus(s.do("GET", events, ""), http.StatusTooManyRequests, "limited by ")
		if got := s.Stats().Recent; len(got) != 1 || got[0].Kind != sandbox.ViolationEarly {
			t.Errorf("violations %+v", got)
		}
		time.Sleep(time.Second)
		s.wantStatus(s.do("GET", events, ""), http.StatusOK)
	})
}

func TestFaultsBelowAPath(t *testing.T) {
	s := newShop(t, sandbox.WorldSpec{})
	s.inject(sandbox.Fault{Kind: sandbox.Fault503, Path: download})
	s.wantStatus(s.do("GET", download+"x", ""), http.StatusServiceUnavailable)
	s.wantStatus(s.do("GET", events, ""), http.StatusOK)
}

func TestSpoiltBodies(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Claims: 10})
		whole := s.do("GET", claims, "").Body.Bytes()
		s.inject(sandbox.Fault{Kind: sandbox.FaultBOM, Count: 1})
		if got := s.do("GET", claims, "").Body.Bytes(); !bytes.Equal(got, append([]byte("\xef\xbb\xbf"), whole...)) || json.Valid(got) {
			t.Errorf("byte order mark: %.40q", got)
		}
		s.inject(sandbox.Fault{Kind: sandbox.FaultOversize, Count: 1})
		w := &tally{ResponseWriter: httptest.NewRecorder()}
		s.Handler().ServeHTTP(w, s.request("GET", claims, ""))
		if w.blanks != 64<<20 || !bytes.Equal(w.rest, whole) {
			t.Errorf("oversize: %d blanks, then %.100s", w.blanks, w.rest)
		}
	})
}

// tally reads a long answer without keeping it.
type tally struct {
	http.ResponseWriter
	blanks int // pieces of nothing but blanks, in bytes
	rest   []byte
}

func (w *tally) Write(p []byte) (int, error) {
	if bytes.Count(p, []byte(" ")) == len(p) {
		w.blanks += len(p)
	} else {
		w.rest = append(w.rest, p...)
	}
	return len(p), nil
}

func TestBadEntries(t *testing.T) {
	type entries = []json.RawMessage
	lists := map[string]struct {
		target, id string
		read       func(body []byte) (entries, error)
	}{
		"events": {events, "eventID", func(body []byte) (entries, error) {
			var p page
			err := json.Unmarshal(body, &p)
			return p.Result.Events, err
		}},
		"chats": {chats, "chatID", func(body []byte) (entries, error) {
			var p struct{ Result entries }
			err := json.Unmarshal(body, &p)
			return p.Result, err
		}},
		"questions": {questions, "id", func(body []byte) (entries, error) {
			var p questionPage
			err := json.Unmarshal(body, &p)
			return p.Data.Questions, err
		}},
		"claims": {claims, "id", func(body []byte) (entries, error) {
			var p claimPage
			err := json.Unmarshal(body, &p)
			return p.Claims, err
		}},
	}
	for name, list := range lists {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newShop(t, sandbox.WorldSpec{Events: 60, Questions: 60, Claims: 60})
				target := list.target
				whole, err := list.read(s.do("GET", target, "").Body.Bytes())
				if err != nil || len(whole) < 3 {
					t.Fatalf("%d entries, %v", len(whole), err)
				}
				middle := len(whole) / 2
				spoil := func(variant string) []byte {
					time.Sleep(time.Minute)
					s.inject(sandbox.Fault{Kind: sandbox.FaultBadEntry, Variant: variant, Count: 1})
					w := s.do("GET", target, "")
					s.wantStatus(w, http.StatusOK)
					return w.Body.Bytes()
				}
				for variant, ok := range map[string]func(raw json.RawMessage) bool{
					"":           func(raw json.RawMessage) bool { return string(raw) == `"odd"` },
					"not_object": func(raw json.RawMessage) bool { return string(raw) == `"odd"` },
					"null":       func(raw json.RawMessage) bool { return string(raw) == `null` },
					"no_id":      func(raw json.RawMessage) bool { return raw[0] == '{' && !bytes.Contains(raw, []byte(`"`+list.id+`":`)) },
					"empty_id":   func(raw json.RawMessage) bool { return bytes.Contains(raw, []byte(`"`+list.id+`":""`)) },
					"huge":       func(raw json.RawMessage) bool { return len(raw) > 5<<20 && bytes.HasSuffix(raw, whole[middle][1:]) },
				} {
					got, err := list.read(spoil(variant))
					if err != nil || len(got) != len(whole) {
						t.Fatalf("%s: %d of %d entries, %v", variant, len(got), len(whole), err)
					}
					for i := range got {
						if i == middle && !ok(got[i]) || i != middle && !bytes.Equal(got[i], whole[i]) {
							t.Errorf("%s: entry %d of %d: %.200s", variant, i, len(got), got[i])
						}
					}
				}
				// encoding/json refuses what is nested more than 10,000 levels deep, and with it the whole page.
				deep := spoil("deep")
				if _, err := list.read(deep); err == nil || !strings.Contains(err.Error(), "max depth") {
					t.Errorf("deep: %v", err)
				}
				flat := bytes.ReplaceAll(deep, []byte(strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000)), []byte("1"))
				if got, err := list.read(flat); err != nil || !bytes.HasSuffix(got[middle], whole[middle][1:]) {
					t.Errorf("deep: not the entry in the middle, %v", err)
				}
			})
		})
	}
	t.Run("nothing to spoil", func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		s.inject(sandbox.Fault{Kind: sandbox.FaultBadEntry})
		s.wantStatus(s.do("GET", claims, ""), http.StatusOK, `{"claims":[],"total":0}`)
		s.wantStatus(s.do("GET", "/api/v1/claims", ""), http.StatusBadRequest, `"title":"Invalid query params"`)
		s.wantStatus(s.do("GET", "/ping", ""), http.StatusOK, `"Status":"OK"`)
	})
}
