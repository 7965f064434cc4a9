package yandexmarket_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sandbox/yandexmarket"
)

// The limits of a synctest bubble begin at a full hour: its time starts at midnight, 2000-01-01 UTC.

const campaigns = "/v2/campaigns"

// spend sends n requests for the list of stores and wants them answered.
func (s *shop) spend(n int) {
	s.t.Helper()
	for i := range n {
		if w := s.do("GET", campaigns, ""); w.Code != http.StatusOK {
			s.t.Fatalf("request %d of %d: status %d: %s", i+1, n, w.Code, w.Body)
		}
	}
}

// overspend sends one that finds no budget.
func (s *shop) overspend() *httptest.ResponseRecorder {
	s.t.Helper()
	w := s.do("GET", campaigns, "")
	if w.Code != 420 {
		s.t.Fatalf("status %d, want 420: %s", w.Code, w.Body)
	}
	return w
}

func (s *shop) wantLimits(w *httptest.ResponseRecorder, limit, remaining int, until time.Time) {
	s.t.Helper()
	h := w.Header()
	got := fmt.Sprint(h.Get("X-RateLimit-Resource-Limit"), " ", h.Get("X-RateLimit-Resource-Remaining"), " ", h.Get("X-RateLimit-Resource-Until"))
	if want := fmt.Sprint(limit, " ", remaining, " ", until.UTC().Format(http.TimeFormat)); got != want {
		s.t.Errorf("headers say %q, want %q", got, want)
	}
}

func limited(t *testing.T, n int, q yandexmarket.Quirks) *shop {
	return open(t, yandexmarket.Config{
		Seed: 1, Businesses: []yandexmarket.BusinessSpec{{}}, Quirks: q, Limits: map[yandexmarket.Method]int{yandexmarket.MethodGetCampaigns: n},
	})
}

// wantViolations compares the number of requests that should not have been sent.
func (s *shop) wantViolations(n int64) {
	s.t.Helper()
	if got := s.Stats(); got.Violations != n {
		s.t.Errorf("%d violations, want %d: %+v", got.Violations, n, got.Recent)
	}
}

func TestWindowIsTheFullHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := limited(t, 3, yandexmarket.Quirks{})
		start := time.Now()
		time.Sleep(50 * time.Minute)
		s.wantLimits(s.do("GET", campaigns, ""), 3, 2, start.Add(time.Hour))
		time.Sleep(time.Second)                                                           // before that it could not know that the limit is not the documented one
		s.wantLimits(s.do("GET", campaigns+"?limit=999", ""), 3, 1, start.Add(time.Hour)) // errors pay, and have the headers
		s.wantLimits(s.do("GET", campaigns, ""), 3, 0, start.Add(time.Hour))
		s.wantViolations(0)

		w := s.overspend()
		s.wantLimits(w, 3, 0, start.Add(time.Hour))
		s.wantError(w, 420, "Hit rate limit of '3' requests per 'HOUR' for resource 'getCampaigns' for "+string(s.b.Entity()))
		s.wantViolations(1)

		time.Sleep(10*time.Minute - time.Second - 1)
		s.overspend()
		time.Sleep(1 + 7*time.Millisecond)
		s.spend(1)
		st := s.Stats().Budgets[0]
		if st.ClosestCall == nil || *st.ClosestCall != 7*time.Millisecond || st.Requests != 6 || st.Refused != 2 || st.Violations != 2 {
			t.Errorf("stats %+v, closest call %v", st, st.ClosestCall)
		}
	})
}

func TestOtherWindows(t *testing.T) {
	tests := map[string]struct {
		quirks yandexmarket.Quirks
		free   time.Duration // when, after the first of two requests 10 minutes apart, there is budget again
	}{
		"shorter":              {yandexmarket.Quirks{WindowPeriod: 15 * time.Minute}, 15 * time.Minute},
		"not at the full hour": {yandexmarket.Quirks{WindowOffset: 17 * time.Minute}, 17 * time.Minute},
		"rolling":              {yandexmarket.Quirks{WindowRolling: true}, time.Hour},
		"rolling, refused pay": {yandexmarket.Quirks{WindowRolling: true, RefusedPay: true}, time.Hour + 11*time.Minute - 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := limited(t, 2, tt.quirks)
				start := time.Now()
				s.spend(1)
				time.Sleep(10 * time.Minute)
				s.spend(1)
				time.Sleep(time.Minute - 1)
				s.overspend()
				if tt.quirks.RefusedPay { // the refused one pays for the first of the two
					time.Sleep(time.Until(start.Add(time.Hour)))
					s.overspend()
					return
				}
				time.Sleep(time.Until(start.Add(tt.free - 1)))
				w := s.overspend()
				s.wantLimits(w, 2, 0, start.Add(tt.free))
				time.Sleep(time.Nanosecond)
				s.spend(1)
			})
		})
	}
}

func TestRollingClosestCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := limited(t, 2, yandexmarket.Quirks{WindowRolling: true})
		s.spend(1)
		time.Sleep(30 * time.Minute)
		s.spend(1)
		time.Sleep(30*time.Minute + 3*time.Second)
		s.spend(1)
		if c := s.Stats().Budgets[0].ClosestCall; c == nil || *c != 3*time.Second {
			t.Errorf("closest call %v, want 3s", c)
		}
	})
}

// TestEachMethodAndEntityHasItsOwnBudget: "for the entity", which is the store of the path, the business of the path, or the
// one of the key.
func TestEachMethodAndEntityHasItsOwnBudget(t *testing.T) {
	s := open(t, yandexmarket.Config{
		Seed: 1, Businesses: []yandexmarket.BusinessSpec{{Stores: []yandexmarket.StoreSpec{{}, {}}}, {}},
		Limits: map[yandexmarket.Method]int{yandexmarket.MethodGetCampaign: 1, yandexmarket.MethodGetCampaigns: 1},
	})
	stores := s.b.Stores()
	for _, st := range stores {
		w := s.do("GET", campaigns+"/"+str(st.ID), "")
		if w.Code != http.StatusOK {
			t.Errorf("store %d: %s", st.ID, w.Body)
		}
	}
	w := s.do("GET", campaigns+"/"+str(stores[1].ID), "")
	s.wantError(w, 420, "Hit rate limit of '1' requests per 'HOUR' for resource 'getCampaign' for campaignId "+str(stores[1].ID))
	s.spend(1)
	s.key = s.MintKey(yandexmarket.KeySpec{}) // another key of the same cabinet
	s.overspend()
	s.key = s.MintKey(yandexmarket.KeySpec{Business: s.Businesses()[1].ID()})
	s.spend(1)
}

func TestSubscriptionRaisesLimits(t *testing.T) {
	for medium, want := range map[bool]string{false: "1000", true: "5000"} {
		s := newShop(t, yandexmarket.BusinessSpec{Medium: medium})
		w := s.do("POST", "/v1/businesses/{business}/goods-questions", "{}")
		if got := w.Header().Get("X-RateLimit-Resource-Limit"); got != want {
			t.Errorf("subscription %v: limit %s, want %s", medium, got, want)
		}
	}
}

// TestStrangersAreNobodysFault: what others spend is gone, and only who comes back before the announced time is at fault.
func TestStrangersAreNobodysFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := limited(t, 5, yandexmarket.Quirks{})
		s.spend(1)
		s.must(s.SpendElsewhere(yandexmarket.MethodGetCampaigns, s.b.Entity(), 3))
		w := s.do("GET", campaigns, "")
		s.wantLimits(w, 5, 0, time.Now().Add(time.Hour))
		s.overspend()
		s.wantViolations(0)
		time.Sleep(time.Second)
		s.overspend()
		s.wantViolations(1)
		if kind := s.Stats().Recent[0].Kind; kind != yandexmarket.ViolationEarly {
			t.Errorf("kind %s", kind)
		}
		if err := s.SpendElsewhere("x", s.b.Entity(), 1); err == nil {
			t.Error("an unknown method can be spent")
		}
		if err := s.SpendElsewhere(yandexmarket.MethodGetCampaigns, "businessId 1", 1); err == nil {
			t.Error("an unknown entity can spend")
		}
	})
}

// TestLoweredLimit: the client learns of it from the next answer, and is at fault from then on.
func TestLoweredLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := limited(t, 10, yandexmarket.Quirks{})
		s.spend(5)
		time.Sleep(time.Second)
		s.must(s.SetLimit(yandexmarket.MethodGetCampaigns, 4))
		s.wantLimits(s.overspend(), 4, 0, time.Now().Truncate(time.Hour).Add(time.Hour))
		s.wantViolations(0)
		time.Sleep(time.Second)
		s.overspend()
		s.wantViolations(1)
		time.Sleep(time.Hour)
		s.spend(4)
		s.must(s.SetLimit(yandexmarket.MethodGetCampaigns, 0)) // the documented one
		s.wantLimits(s.do("GET", campaigns, ""), 1000, 995, time.Now().Truncate(time.Hour).Add(time.Hour))
		if s.SetLimit("x", 1) == nil || s.SetLimit(yandexmarket.MethodGetCampaigns, -1) == nil {
			t.Error("an unknown method, or a negative limit, is accepted")
		}
	})
}

func TestHeadersAsQuirksHaveThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := limited(t, 5, yandexmarket.Quirks{RemainingLag: 2, ClockSkew: 90 * time.Second})
		start := time.Now()
		w := s.do("GET", campaigns, "")
		s.wantLimits(w, 5, 5, start.Add(time.Hour+90*time.Second))
		if got, want := w.Header().Get("Date"), start.Add(90*time.Second).UTC().Format(http.TimeFormat); got != want {
			t.Errorf("date %s, want %s", got, want)
		}
		s.spend(2)
		s.wantLimits(s.do("GET", campaigns, ""), 5, 3, start.Add(time.Hour+90*time.Second))
		s.setQuirks(yandexmarket.Quirks{NoLimitHeaders: true})
		if h := s.do("GET", campaigns, "").Header(); h.Get("X-RateLimit-Resource-Limit") != "" || h.Get("X-RateLimit-Resource-Until") != "" {
			t.Errorf("headers %v", h)
		}
	})
}

// TestParallelRequests: at most four of an entity at once, whatever their methods and keys are.
func TestParallelRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShop(t, yandexmarket.BusinessSpec{Stores: []yandexmarket.StoreSpec{{}, {}}}, yandexmarket.Quirks{Latency: time.Second, Transit: time.Second})
		store := s.b.Stores()[0]
		storePath := campaigns + "/" + str(store.ID)
		var wg sync.WaitGroup
		send := func(target string, want int) {
			wg.Go(func() {
				began := time.Now()
				w := s.do("GET", target, "")
				if w.Code != want {
					t.Errorf("%s: status %d, want %d: %s", target, w.Code, want, w.Body)
				}
				if took := time.Since(began); want == 200 && took != 2*time.Second || want == 420 && took != 0 {
					t.Errorf("%s: took %s", target, took)
				}
			})
			synctest.Wait()
		}
		for range 4 {
			send(storePath, 200)
			send(campaigns, 200) // the business' slots are others
		}
		w := s.do("GET", storePath, "")
		s.wantError(w, 420, "Hit rate limit of 4 parallel requests for campaignId "+str(store.ID))
		s.wantLimits(w, 5000, 4996, time.Now().Add(time.Hour)) // it has not paid
		send(campaigns, 420)
		wg.Wait()
		send(storePath, 200)
		wg.Wait()
		for _, p := range s.Stats().Parallel {
			if p.Most != 4 || p.Refused != 1 || p.Violations != 1 {
				t.Errorf("%+v", p)
			}
		}
		s.wantViolations(2)

		s.must(s.OccupyElsewhere(s.b.Entity(), 3))
		send(campaigns, 200)
		send(campaigns, 420) // others' fault
		wg.Wait()
		s.wantViolations(2)
	})
}

// impatient sends the next request as soon as it has seen the whole answer, before the handler returns.
type impatient struct {
	*httptest.ResponseRecorder
	left int
	next func()
}

func (w *impatient) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left == 0 {
		w.next()
	}
	return w.ResponseRecorder.Write(p)
}

func (w *impatient) WriteHeader(status int) {
	w.left, _ = strconv.Atoi(w.Header().Get("Content-Length"))
	w.ResponseRecorder.WriteHeader(status)
}

func TestSlotIsFreeBeforeTheAnswerIsComplete(t *testing.T) {
	s := open(t, yandexmarket.Config{Seed: 1, Businesses: []yandexmarket.BusinessSpec{{}}, Parallel: 1})
	sent := 0
	s.Handler().ServeHTTP(&impatient{ResponseRecorder: httptest.NewRecorder(), next: func() {
		sent++
		s.spend(1)
	}}, s.request("GET", campaigns, ""))
	if sent != 1 {
		t.Errorf("%d requests", sent)
	}
	s.wantViolations(0)
}

// TestNoKeepAlive: through a real server, each answer closes its connection, and a client that sends one request after the other never has
// two.
func TestNoKeepAlive(t *testing.T) {
	s := open(t, yandexmarket.Config{Seed: 1, Businesses: []yandexmarket.BusinessSpec{{}}, Parallel: 1})
	server := httptest.NewServer(s.Handler())
	defer server.Close()
	for range 50 {
		r, err := http.NewRequest("GET", server.URL+campaigns, nil)
		s.must(err)
		r.Header.Set("Api-Key", s.key)
		resp, err := server.Client().Do(r)
		s.must(err)
		if body := bodyOf(t, resp); resp.StatusCode != http.StatusOK || !resp.Close {
			t.Fatalf("status %d, closes %v: %s", resp.StatusCode, resp.Close, body) // "Keep-Alive is not supported"
		}
	}
}
