package yandexmarket_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/yandexmarket"
)

func tokenAnswer(scopes ...string) func(call) (int, string) {
	return func(call) (int, string) {
		return 0, fmt.Sprintf(`{"status":"OK","result":{"apiKey":{"name":"poller","authScopes":[%s]}}}`, strings.Join(scopes, ","))
	}
}

// TestProbeToken: the scopes in the words of the documentation, and the streams that
// they do not open, of those that the account has.
func TestProbeToken(t *testing.T) {
	talk := []string{"chats", "chat_messages", "goods_feedbacks", "goods_questions"}
	for _, tt := range []struct {
		scopes []string
		names  string
		closed []string
	}{
		{[]string{"ALL_METHODS"}, "all-methods", nil},
		{[]string{"ALL_METHODS_READ_ONLY"}, "all-methods:read-only", nil},
		{[]string{"COMMUNICATION"}, "communication", []string{"returns"}},
		{[]string{"INVENTORY_AND_ORDER_PROCESSING"}, "inventory-and-order-processing", talk},
		{[]string{"INVENTORY_AND_ORDER_PROCESSING_READ_ONLY", "COMMUNICATION"}, "inventory-and-order-processing:read-only communication", nil},
		{[]string{"PRICING_READ_ONLY", "SOMETHING_NEW"}, "pricing:read-only something-new", append([]string{"returns"}, talk...)},
	} {
		synctest.Test(t, bubble(func(t *testing.T) {
			f := newFake(t)
			var quoted []string
			for _, s := range tt.scopes {
				quoted = append(quoted, fmt.Sprintf("%q", s))
			}
			f.on["POST /v2/auth/token"] = tokenAnswer(quoted...)
			r, err := open(t, f).Probe(t.Context(), "token")
			if err != nil || strings.Join(r.Scopes, " ") != tt.names || len(f.took()) != 1 {
				t.Fatalf("%v: got %q, %v", tt.scopes, r.Scopes, err)
			}
			if len(r.Lines) != 1+len(tt.closed) || r.Lines[0] != "the key's name is poller" {
				t.Errorf("%v: got %q", tt.scopes, r.Lines)
			}
			for _, stream := range tt.closed {
				if !slices.ContainsFunc(r.Lines, func(s string) bool { return strings.HasPrefix(s, stream+": ") }) {
					t.Errorf("%v: %q do not say that %s is closed", tt.scopes, r.Lines, stream)
				}
			}
			f.on["POST /v2/auth/token"] = tokenAnswer(`"COMMUNICATION"`)
			if r, err := open(t, f, yandexmarket.Chats).Probe(t.Context(), "token"); err != nil || len(r.Lines) != 1 {
				t.Errorf("an account without returns: %q, %v", r.Lines, err)
			}
		}))
	}
}

func TestProbeCampaigns(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		m := newMarket(t, 7, 8, 9, 10)
		m.outlets[1].state, m.outlets[2].state, m.outlets[3].owner = "MANUALLY_DISABLED", "ASLEEP", 555
		r, err := openStores(t, m).Probe(t.Context(), "campaigns")
		want := []string{"business 900001 Cabinet", "store 7 Shop 7, FBS", "store 8 Shop 8, FBS: its API is switched off by hand", "store 9 Shop 9, FBS: ASLEEP"}
		if err != nil || !slices.Equal(r.Lines, want) || len(m.took()) != 1 {
			t.Errorf("got %q, %v", r.Lines, err)
		}
		want = append(want, "store 11 is configured, and not shown by the key")
		for i := range want[2:4] {
			want[2+i] += " (not configured)"
		}
		if r, err = openStores(t, m, 7, 11).Probe(t.Context(), "campaigns"); err != nil || !slices.Equal(r.Lines, want) {
			t.Errorf("got %q, %v", r.Lines, err)
		}
		for i := range 100 {
			m.outlets = append(m.outlets, &outlet{id: 1000 + i, state: "AVAILABLE"})
		}
		if r, err = openStores(t, m).Probe(t.Context(), "campaigns"); err != nil || r.Lines[len(r.Lines)-1] != "and more: these are the first 100" {
			t.Errorf("got %q, %v", r.Lines, err)
		}
		m.outlets = m.outlets[3:4]
		if r, err = openStores(t, m).Probe(t.Context(), "campaigns"); sources.AsError(err).Kind != sources.Forbidden || !strings.Contains(err.Error(), "555") {
			t.Errorf("another business: got %q, %v", r.Lines, err)
		}
		m.outlets = nil
		if r, err = openStores(t, m).Probe(t.Context(), "campaigns"); err != nil || len(r.Lines) != 1 {
			t.Errorf("no stores: got %q, %v", r.Lines, err)
		}
	}))
}

// TestProbePays from the budget that BudgetKey names: what somebody else has spent of
// that is not there any more.
func TestProbePays(t *testing.T) {
	for _, budget := range yandexmarket.Probes() {
		synctest.Test(t, bubble(func(t *testing.T) {
			m := newMarket(t, 7)
			m.on["POST /v2/auth/token"] = tokenAnswer(`"ALL_METHODS"`)
			key, limit := yandexmarket.BudgetKey(business, budget)
			cfg := config(m)
			for range limit.Calls - 1 { // one is never spent
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				grant, err := cfg.Budgets.ReserveWindow(ctx, key, limit, 1, "check")
				cancel()
				if err != nil {
					break
				}
				grant.Answered(apiclient.Answer{Remaining: -1})
			}
			c, err := yandexmarket.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if r, err := c.Probe(ctx, budget); sources.AsError(err).Kind != sources.BudgetWait || len(m.took()) != 0 {
				t.Errorf("%s: got %+v, %v", budget, r, err)
			}
		}))
	}
	synctest.Test(t, bubble(func(t *testing.T) {
		if _, err := open(t, newFake(t)).Probe(t.Context(), "chats"); err == nil {
			t.Error("a budget of no probe")
		}
	}))
}

// TestProbeRefused: the errors of Fetch.
func TestProbeRefused(t *testing.T) {
	for _, budget := range yandexmarket.Probes() {
		synctest.Test(t, bubble(func(t *testing.T) {
			f := newFake(t)
			var status int
			var body string
			f.on["GET /v2/campaigns"] = func(call) (int, string) { return status, body }
			f.on["POST /v2/auth/token"] = f.on["GET /v2/campaigns"]
			for _, tt := range []struct {
				status int
				body   string
				kind   sources.Kind
			}{
				{401, failure("UNAUTHORIZED", "Api-Key token is invalid"), sources.Unauthorized}, {500, "", sources.Temporary}, {200, "", sources.Unreadable}, {200, "{}", sources.Unreadable},
				{200, failure("X", ""), sources.Unreadable}, {200, "null", sources.Unreadable},
			} {
				status, body = tt.status, tt.body
				if r, err := open(t, f).Probe(t.Context(), budget); sources.AsError(err).Kind != tt.kind || r.Lines != nil {
					t.Errorf("%s: %d %s: got %+v, %v", budget, tt.status, tt.body, r, err)
				}
			}
		}))
	}
}
