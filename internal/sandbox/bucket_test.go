package sandbox_test

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"syncd/internal/sandbox"
)

const (
	events    = "/api/v1/seller/events"
	chats     = "/api/v1/seller/chats"
	questions = "/api/v1/questions?isAnswered=false&take=10&skip=0"
)

func TestBucketBoundaries(t *testing.T) {
	tests := map[string]struct {
		acc      int
		target   string
		burst    int
		interval time.Duration
	}{
		"personal feedbacks": {sandbox.AccPersonal, questions, 6, 333 * time.Millisecond},
		"service feedbacks":  {sandbox.AccService, questions, 6, 333 * time.Millisecond},
		"base feedbacks":     {sandbox.AccBase, questions, 1, 12 * time.Minute},
		"test feedbacks":     {sandbox.AccTest, questions, 1, 12 * time.Minute},
		"unknown feedbacks":  {9, questions, 1, 12 * time.Minute},
		"personal chat":      {sandbox.AccPersonal, events, 10, time.Second},
		"base chat":          {sandbox.AccBase, events, 1, time.Hour},
		"personal returns":   {sandbox.AccPersonal, claims, 10, 3 * time.Second},
		"service returns":    {sandbox.AccService, claims, 10, 3 * time.Second},
		"base returns":       {sandbox.AccBase, claims, 1, time.Hour},
		"unknown returns":    {9, claims, 1, time.Hour},
		"ping":               {sandbox.AccPersonal, "/ping", 3, 10 * time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newShop(t, sandbox.WorldSpec{})
				s.token = s.MintToken(sandbox.TokenSpec{Seller: s.world.ID(), Acc: tt.acc})
				time.Sleep(time.Hour) // a full bucket does not fill further, and starts to refill when used
				for left := tt.burst - 1; left >= 0; left-- {
					w := s.do("GET", tt.target, "")
					s.wantStatus(w, http.StatusOK)
					if got := w.Header().Get("X-Ratelimit-Remaining"); got != strconv.Itoa(left) {
						t.Fatalf("X-Ratelimit-Remaining = %s, want %d", got, left)
					}
				}
				time.Sleep(tt.interval - 1)
				w := s.do("GET", tt.target, "")
				s.wantStatus(w, http.StatusTooManyRequests, `"title":"too many requests"`, "limited by ")
				reset := (time.Duration(tt.burst-1)*tt.interval + time.Second) / time.Second // rounded up
				for header, want := range map[string]string{
					"X-Ratelimit-Retry": "1", "X-Ratelimit-Limit": strconv.Itoa(tt.burst), "X-Ratelimit-Reset": strconv.Itoa(int(reset)),
					"X-Ratelimit-Remaining": "", "Content-Type": "application/problem+json",
				} {
					if got := w.Header().Get(header); got != want {
						t.Errorf("%s = %q, want %q", header, got, want)
					}
				}
				time.Sleep(time.Nanosecond)
				s.wantStatus(s.do("GET", tt.target, ""), http.StatusOK)

				b := s.Stats().Buckets[0]
				if b.Requests != int64(tt.burst)+2 || b.Refused != 1 || b.Violations != 1 || b.LowestRemaining != 0 {
					t.Errorf("bucket %+v", b)
				}
				if b.ClosestCall == nil || *b.ClosestCall != 0 {
					t.Errorf("ClosestCall = %v, want 0", b.ClosestCall)
				}
				got := s.Stats().Recent
				if len(got) != 1 || got[0].Kind != sandbox.ViolationBudget || got[0].Seller != s.world.ID() || !got[0].Time.Equal(time.Now().Add(-1)) {
					t.Errorf("violations %+v", got)
				}
			})
		})
	}
}

func TestBucketRefillsWhileInUse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		// Each pause is one interval: the bucket is always just full again, and the ninth token has waited 9 s.
		for range 1000 {
			s.wantStatus(s.do("GET", events, ""), http.StatusOK)
			time.Sleep(time.Second)
		}
		b := s.Stats().Buckets[0]
		if b.Violations != 0 || b.LowestRemaining != 9 || *b.ClosestCall != 9*time.Second {
			t.Errorf("bucket %+v, closest call %v", b, *b.ClosestCall)
		}
	})
}

func TestBucketsAreApart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, sandbox.Config{Seed: 1, Sellers: make([]sandbox.Seller, 2)})
		base := s.MintToken(sandbox.TokenSpec{Seller: s.world.ID(), Acc: sandbox.AccBase})
		base2 := s.MintToken(sandbox.TokenSpec{Seller: s.world.ID(), Acc: sandbox.AccBase, Scopes: sandbox.ScopeChat})
		other := s.MintToken(sandbox.TokenSpec{Seller: s.Worlds()[1].ID(), Acc: sandbox.AccBase})
		personal := s.token
		for _, step := range []struct {
			token, target string
			want          int
		}{
			{base, events, 200}, {base, chats, 429}, {base2, events, 429}, // one host, one seller, one type: one bucket
			{base, questions, 200}, {other, events, 200}, {personal, events, 200},
		} {
			s.token = step.token
			s.wantStatus(s.do("GET", step.target, ""), step.want)
		}
	})
}

func TestChatBucketPerMethod(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := open(t, sandbox.Config{Seed: 1, Sellers: make([]sandbox.Seller, 1), ChatBuckets: sandbox.ChatBucketPerMethod})
		s.token = s.MintToken(sandbox.TokenSpec{Seller: s.world.ID(), Acc: sandbox.AccBase})
		s.wantStatus(s.do("GET", events, ""), http.StatusOK)
		s.wantStatus(s.do("GET", chats, ""), http.StatusOK)
		s.wantStatus(s.do("GET", events, ""), http.StatusTooManyRequests)
		if got := s.Stats().Recent[0].Group; got != "chat/events" {
			t.Errorf("group %s", got)
		}
		s.wantStatus(s.do("GET", claims, ""), http.StatusOK)
		s.wantStatus(s.do("PATCH", "/api/v1/claim", "{}"), http.StatusBadRequest)
		s.wantStatus(s.do("GET", claims, ""), http.StatusTooManyRequests)
	})
}

func TestBadRequestsPayToo(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		s.token = s.MintToken(sandbox.TokenSpec{Seller: s.world.ID(), Acc: sandbox.AccBase})
		w := s.do("GET", events+"?next=0", "")
		s.wantStatus(w, http.StatusBadRequest)
		if w.Header().Get("X-Ratelimit-Remaining") != "0" {
			t.Error("no X-Ratelimit-Remaining on a 400")
		}
		w = s.do("GET", events, "")
		s.wantStatus(w, http.StatusTooManyRequests)
		if w.Header().Get("X-Ratelimit-Retry") != "3600" {
			t.Errorf("retry %s", w.Header().Get("X-Ratelimit-Retry"))
		}
	})
}

func TestRetryRoundsDown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{}, sandbox.Quirks{RetryRoundsDown: true})
		s.token = s.MintToken(sandbox.TokenSpec{Seller: s.world.ID(), Acc: sandbox.AccBase})
		s.do("GET", events, "")
		time.Sleep(1500 * time.Millisecond)
		w := s.do("GET", events, "")
		if retry, reset := w.Header().Get("X-Ratelimit-Retry"), w.Header().Get("X-Ratelimit-Reset"); retry != "3598" || reset != "3598" {
			t.Errorf("retry %s, reset %s, want 3598: the numbers of the recorded answer", retry, reset)
		}
	})
}

func TestSomebodyElseSpends(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		s.inject(sandbox.Fault{Kind: sandbox.FaultRateLimited, Path: events, Count: 1})
		w := s.do("GET", events, "")
		s.wantStatus(w, http.StatusTooManyRequests)
		if w.Header().Get("X-Ratelimit-Retry") != "1" || w.Header().Get("X-Ratelimit-Reset") != "10" {
			t.Errorf("headers %v", w.Header())
		}
		s.do("GET", events, "") // had left before the 429 arrived
		if got := s.Stats(); got.Violations != 0 || got.Buckets[0].Refused != 2 {
			t.Fatalf("innocent client: %+v", got.Buckets[0])
		}
		time.Sleep(500 * time.Millisecond)
		s.wantStatus(s.do("GET", events, ""), http.StatusTooManyRequests) // ignores what the 429 said
		if got := s.Stats().Recent; len(got) != 1 || got[0].Kind != sandbox.ViolationEarly {
			t.Fatalf("violations %+v", got)
		}
		time.Sleep(500 * time.Millisecond)
		s.wantStatus(s.do("GET", events, ""), http.StatusOK)
	})
}

func TestViolationListIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newShop(t, sandbox.WorldSpec{})
		for range 250 {
			s.do("GET", events, "")
		}
		if got := s.Stats(); got.Violations != 240 || len(got.Recent) != 100 {
			t.Errorf("%d violations, %d kept", got.Violations, len(got.Recent))
		}
	})
}
