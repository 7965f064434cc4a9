package wildberries_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/wildberries"
)

// TestProbe: one request a group, of the cheapest kind, and the answer's own error.
func TestProbe(t *testing.T) {
	for group, want := range map[string]struct{ uri, body string }{
		wildberries.GroupFeedbacks: {"/api/v1/questions/count-unanswered", `{"data":{"countUnanswered":24,"countUnansweredToday":0},"error":false,"errorText":"","additionalErrors":null}`},
		wildberries.GroupChat:      {"/api/v1/seller/events?next=1770062400000", `{"result":{"next":1770062400000,"newestEventTime":null,"totalEvents":0,"events":null},"errors":null}`},
		wildberries.GroupReturns:   {"/api/v1/claims?is_archive=false&limit=1", `{"claims":[{"id":"fe3e9337"}],"total":31}`},
	} {
		for _, tt := range []struct {
			status int
			body   string
			kind   sources.Kind // empty: fine
		}{
			{200, want.body, ""},
			{200, "<html>log in to the network</html>", sources.Unreadable},
			{200, "null", sources.Unreadable},
			{200, `{"data":null,"error":true,"errorText":"no"}`, sources.Unreadable},
			{200, `{"result":null,"errors":["no"]}`, sources.Unreadable},
			{401, `{"title":"unauthorized","detail":"token scope not allowed"}`, sources.Unauthorized},
			{403, `{"detail":"scope is not allowed for this resource"}`, sources.Forbidden},
			{500, ``, sources.Temporary},
		} {
			synctest.Test(t, bubble(func(t *testing.T) {
				api := &direct{}
				api.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.RequestURI() != want.uri || r.Host != group+".test" || r.Method != http.MethodGet {
						t.Errorf("asked %s %s%s, expected %s", r.Method, r.Host, r.URL.RequestURI(), want.uri)
					}
					w.WriteHeader(tt.status)
					fmt.Fprint(w, tt.body)
				})
				c := open(t, api, token(1)) // a Base token has one request at once
				time.Sleep(time.Until(time.UnixMilli(1770062400000)))
				_, err := c.Probe(t.Context(), group)
				if (err == nil) != (tt.kind == "") || err != nil && sources.AsError(err).Kind != tt.kind {
					t.Errorf("%s, %d %s: %v", group, tt.status, tt.body, err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if _, err := c.Probe(ctx, group); sources.AsError(err).Kind != sources.BudgetWait || sources.AsError(err).Until.IsZero() {
					t.Errorf("%s: a second one: %v, expected a budget wait", group, err)
				}
				if api.n != 1 {
					t.Errorf("%s: %d requests", group, api.n)
				}
			}))
		}
	}
	if _, err := open(t, &direct{handler: http.NotFoundHandler()}, token(3)).Probe(t.Context(), "prices"); err == nil {
		t.Error("a group that does not exist was tried")
	}
}

// TestLimit: the documented table.
func TestLimit(t *testing.T) {
	fast := map[string]apiclient.Limit{"feedbacks": {Interval: 334 * time.Millisecond, Burst: 6}, "chat": {Interval: time.Second, Burst: 10}, "returns": {Interval: 3 * time.Second, Burst: 10}}
	slow := map[string]apiclient.Limit{"feedbacks": {Interval: 12 * time.Minute, Burst: 1}, "chat": {Interval: time.Hour, Burst: 1}, "returns": {Interval: time.Hour, Burst: 1}}
	for typ := wildberries.TokenType(-1); typ < 7; typ++ {
		want, class := slow, "base"
		if typ == wildberries.Personal || typ == wildberries.Service {
			want, class = fast, "personal"
		}
		for group := range wildberries.Groups() {
			if got, c := wildberries.Limit(typ, group); got != want[group] || c != class {
				t.Errorf("%s, %s: %+v of class %s, expected %+v of %s", typ, group, got, c, want[group], class)
			}
		}
	}
}

// TestMetricsFromTheStart: every family has its streams and endpoints before the
// first request.
func TestMetricsFromTheStart(t *testing.T) {
	reg := prometheus.NewRegistry()
	cfg := wildberries.Config{Account: "shop", Tokens: map[string]string{}, Endpoints: wildberries.Groups(), BudgetShare: 1,
		Budgets: apiclient.NewBudgets(memory{}, slog.New(slog.DiscardHandler)), Metrics: apiclient.NewMetrics(reg)}
	for group := range wildberries.Groups() {
		cfg.Tokens[group] = token(3)
	}
	if _, err := wildberries.New(cfg); err != nil {
		t.Fatal(err)
	}
	for name, least := range map[string]int{"syncd_api_requests_total": len(wildberries.Streams()), "syncd_api_throttled_total": len(wildberries.Groups())} {
		if n, err := testutil.GatherAndCount(reg, name); err != nil || n < least {
			t.Errorf("%s has %d series, %v", name, n, err)
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(families)
	for _, path := range []string{"/api/v1/seller/events", "/api/v1/seller/chats", "/api/v1/questions", "/api/v1/feedbacks", "/api/v1/claims", "/api/feedbacks/v1/pins"} {
		if !strings.Contains(text, fmt.Sprintf("value:%q", path)) {
			t.Errorf("no durations of %s", path)
		}
	}
}
