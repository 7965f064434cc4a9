package sandbox_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"syncd/internal/sandbox"
)

func TestFaultAnswers(t *testing.T) {
	tests := map[sandbox.FaultKind]struct {
		target, contentType string
		status              int
		text                string
	}{
		sandbox.Fault500:         {questions, "application/problem+json", 500, "internal service error, retry later"},
		sandbox.Fault502:         {questions, "text/html", 502, "<h1>502 Bad Gateway</h1>"},
		sandbox.Fault503:         {events, "text/html", 503, "<h1>503 Service Unavailable</h1>"},
		sandbox.Fault504:         {events, "text/html", 504, "<h1>504 Gateway Timeout</h1>"},
		sandbox.FaultRateLimited: {events, "application/problem+json", 429, "too many requests"},
		sandbox.Fault401:         {events, "application/problem+json", 401, "unauthorized"},
		sandbox.Fault403:         {events, "application/problem+json", 403, "scope is not allowed for this resource"},
		sandbox.FaultErrorIn200:  {questions, "application/json", 200, `{"data":null,"error":true,"errorText":"Something went wrong"`},
		sandbox.FaultContentType: {events, "text/html", 200, `"totalEvents":20`},
	}
	for kind, tt := range tests {
		t.Run(string(kind), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newShop(t, sandbox.WorldSpec{Events: 20, Questions: 20})
				s.inject(sandbox.Fault{Kind: kind, Count: 2})
				for range 2 {
					time.Sleep(time.Minute)
					w := s.do("GET", tt.target, "")
					s.wantStatus(w, tt.status, tt.text)
					if got := w.Header().Get("Content-Type"); got != tt.contentType {
						t.Errorf("Content-Type %s, want %s", got, tt.contentType)
					}
					if (w.Header().Get("X-Ratelimit-Remaining") == "") != (tt.status == 429) {
						t.Errorf("headers %v", w.Header())
					}
				}
				time.Sleep(time.Minute)
				s.wantStatus(s.do("GET", tt.target, ""), http.StatusOK)
				if st := s.Stats(); st.Violations != 0 || len(s.Faults()) != 0 {
					t.Errorf("%d violations, faults %v", st.Violations, s.Faults())
				}
			})
		})
	}
}

func TestErrorIn200OfChat(t *testing.T) {
	s := newShop(t, sandbox.WorldSpec{})
	s.inject(sandbox.Fault{Kind: sandbox.FaultErrorIn200})
	s.wantStatus(s.do("GET", events, ""), http.StatusOK, `{"result":null,"errors":["internal error"]}`)
}

func TestConnectionFaults(t *testing.T) {
	ctx := context.Background()
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{Events: 50})
		c := s.dial()
		_, whole, err := s.fetch(ctx, c, events)
		if err != nil {
			t.Fatal(err)
		}

		s.inject(sandbox.Fault{Kind: sandbox.FaultResetMidBody, Count: 1})
		_, half, err := s.fetch(ctx, c, events)
		if !errors.Is(err, io.ErrUnexpectedEOF) || len(half) != len(whole)/2 {
			t.Errorf("reset in the body: %d of %d bytes, %v", len(half), len(whole), err)
		}

		s.inject(sandbox.Fault{Kind: sandbox.FaultTruncated, Count: 1})
		_, half, err = s.fetch(ctx, c, events)
		if err != nil || len(half) != len(whole)/2 || json.Valid(half) {
			t.Errorf("truncated: %d of %d bytes, %v", len(half), len(whole), err)
		}

		s.inject(sandbox.Fault{Kind: sandbox.FaultSlowBody, Count: 1, Delay: time.Minute})
		began := time.Now()
		_, slow, err := s.fetch(ctx, c, events)
		if err != nil || len(slow) != len(whole) || time.Since(began) < 55*time.Second {
			t.Errorf("slow: %d bytes after %s, %v", len(slow), time.Since(began), err)
		}

		s.inject(sandbox.Fault{Kind: sandbox.FaultSlowBody, Count: 1, Delay: time.Hour}, sandbox.Fault{Kind: sandbox.FaultHang, Count: 1})
		for _, what := range []string{"slow body", "hang"} {
			short, cancel := context.WithTimeout(ctx, 10*time.Second)
			began = time.Now()
			if _, _, err = s.fetch(short, c, events); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 10*time.Second {
				t.Errorf("%s: %v after %s", what, err, time.Since(began))
			}
			cancel()
		}

		s.inject(sandbox.Fault{Kind: sandbox.FaultGzip, Count: 1})
		res, packed, err := s.fetch(ctx, c, events)
		if err != nil || res.Header.Get("Content-Encoding") != "gzip" {
			t.Fatalf("gzip: %v", err)
		}
		r, err := gzip.NewReader(strings.NewReader(string(packed)))
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := io.ReadAll(r); err != nil || string(plain) != string(whole) {
			t.Errorf("gzip: %d bytes, %v", len(plain), err)
		}
		if s.Stats().Violations != 0 {
			t.Errorf("violations %v", s.Stats().Recent)
		}
	})
}

func TestReset(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		c := s.dial()
		s.inject(sandbox.Fault{Kind: sandbox.FaultReset, Count: 1})
		if _, _, err := s.fetch(context.Background(), c, events); err == nil {
			t.Error("an answer on a fresh connection that was reset")
		}
		// Go's client sends a GET again by itself when a connection that it reuses dies: an attempt of its own, which pays.
		if _, _, err := s.fetch(context.Background(), c, events); err != nil {
			t.Fatal(err)
		}
		before := s.Stats().Buckets[0].Requests
		s.inject(sandbox.Fault{Kind: sandbox.FaultReset, Count: 1})
		if _, _, err := s.fetch(context.Background(), c, events); err != nil {
			t.Fatal(err)
		}
		if paid := s.Stats().Buckets[0].Requests - before; paid != 2 {
			t.Errorf("%d requests paid, want 2", paid)
		}
	})
}

func TestLostAnswerTakesEffect(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		q, err := s.world.AddQuestion(sandbox.QuestionSpec{})
		if err != nil {
			t.Fatal(err)
		}
		body := `{"id":"` + q.ID + `","answer":{"text":"да"},"state":"wbRu"}`
		send := func(kind sandbox.FaultKind) (hungUp any) {
			s.inject(sandbox.Fault{Kind: kind, Count: 1})
			defer func() { hungUp = recover() }() // a recorder cannot be hijacked
			s.do("PATCH", "/api/v1/questions", body)
			return nil
		}
		if got := send(sandbox.FaultReset); got != http.ErrAbortHandler || s.world.Questions()[0].Answered {
			t.Errorf("reset: %v, answered %t", got, s.world.Questions()[0].Answered)
		}
		if got := send(sandbox.FaultLostAnswer); got != http.ErrAbortHandler || !s.world.Questions()[0].Answered {
			t.Errorf("lost answer: %v, answered %t", got, s.world.Questions()[0].Answered)
		}
	})
}

func TestFaultSelection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, sandbox.Config{Seed: 1, Sellers: make([]sandbox.Seller, 2)})
		other := s.MintToken(sandbox.TokenSpec{Seller: s.Worlds()[1].ID()})
		s.inject(
			sandbox.Fault{Kind: sandbox.Fault500, Path: chats},
			sandbox.Fault{Kind: sandbox.Fault502, Seller: s.Worlds()[1].ID()},
			sandbox.Fault{Kind: sandbox.Fault503, Count: 1},
		)
		s.wantStatus(s.do("GET", events, ""), 503)
		s.wantStatus(s.do("GET", events, ""), 200)
		s.wantStatus(s.do("GET", chats, ""), 500)
		s.token = other
		s.wantStatus(s.do("GET", events, ""), 502)
		s.ClearFaults()
		s.wantStatus(s.do("GET", chats, ""), 200)
	})
}

func TestFaultRateIsDeterministic(t *testing.T) {
	bubble(t, func(t *testing.T) {
		run := func() string {
			s := newShop(t, sandbox.WorldSpec{})
			s.inject(sandbox.Fault{Kind: sandbox.Fault500, Rate: 0.3})
			var out strings.Builder
			for range 200 {
				time.Sleep(time.Second)
				out.WriteString(http.StatusText(s.do("GET", events, "").Code)[:1])
			}
			return out.String()
		}
		a, b := run(), run()
		if failed := strings.Count(a, "I"); a != b || failed < 40 || failed > 80 {
			t.Errorf("%d of 200 failed, equal %t", failed, a == b)
		}
	})
}

func TestRefusedRequestsUseNoFaultUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		s.token = s.MintToken(sandbox.TokenSpec{Seller: s.world.ID(), Acc: sandbox.AccBase})
		s.wantStatus(s.do("GET", events, ""), 200)
		s.inject(sandbox.Fault{Kind: sandbox.Fault500, Count: 1})
		s.wantStatus(s.do("GET", events, ""), 429)
		time.Sleep(time.Hour)
		s.wantStatus(s.do("GET", events, ""), 500)
	})
}

func TestBadFaults(t *testing.T) {
	s := newShop(t, sandbox.WorldSpec{})
	for _, f := range []sandbox.Fault{
		{}, {Kind: "x"}, {Kind: sandbox.Fault500, Count: -1}, {Kind: sandbox.Fault500, Rate: 1.1}, {Kind: sandbox.FaultSlowBody, Delay: -1},
		{Kind: sandbox.Fault401, Variant: "html"}, {Kind: sandbox.FaultReset, Variant: "x"},
	} {
		if s.Inject(sandbox.Fault{Kind: sandbox.Fault500}, f) == nil {
			t.Errorf("%+v was taken", f)
		}
	}
	if len(s.Faults()) != 0 {
		t.Error("some of an invalid set were taken")
	}
}
