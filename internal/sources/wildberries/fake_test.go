package wildberries_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/sourcetest"
	"syncd/internal/sources/wildberries"
)

const seller = "2f0c0b6a-5a4f-4a1c-9f0e-0c6a1d2b3c4d"

// token returns a token of real form for all communication groups.
func token(acc int) string {
	payload := fmt.Sprintf(`{"acc":%d,"ent":1,"exp":1798761600,"id":"0190b8a1-7c3e-7d0a-8f6b-3a2c1d0e9f8a","iid":51234567,"oid":123456,"s":16126,"sid":%q,"t":false,"uid":51234567}`, acc, seller)
	e := base64.RawURLEncoding.EncodeToString
	return e([]byte(`{"alg":"ES256","kid":"20250520v1","typ":"JWT"}`)) + "." + e([]byte(payload)) + "." + e([]byte("not a signature, but of the length of one: 64 bytes in all, 12345"))
}

type memory map[string][]byte

func (m memory) Load(key string) ([]byte, bool, error) { return m[key], false, nil }
func (m memory) Save(key string, value []byte) error   { m[key] = value; return nil }

// open returns a source for one account whose requests go through transport.
func open(t testing.TB, transport http.RoundTripper, token string) *wildberries.Client {
	t.Helper()
	cfg := wildberries.Config{
		Account: "shop", Tokens: make(map[string]string), Endpoints: make(map[string]string), BudgetShare: 1,
		Budgets: apiclient.NewBudgets(memory{}, slog.New(slog.DiscardHandler)), Metrics: apiclient.NewMetrics(prometheus.NewRegistry()),
		Transport: transport, UserAgent: "syncd/test", Grace: 5 * time.Second,
	}
	for group := range wildberries.Groups() {
		cfg.Tokens[group], cfg.Endpoints[group] = token, "http://"+group+".test"
	}
	c, err := wildberries.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// direct answers requests by a handler, without a network in between.
type direct struct {
	handler http.Handler
	n       int
}

func (d *direct) RoundTrip(r *http.Request) (*http.Response, error) {
	d.n++
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	w.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
	d.handler.ServeHTTP(w, r)
	return w.Result(), nil
}

// reader drives one stream as the poller does.
type reader struct {
	t       testing.TB
	source  sources.Source
	query   sources.Query
	cursor  sources.Cursor
	saved   []sources.Cursor
	seen    map[string]int // readings by item id
	notes   []string
	limit   int            // pages of one run, at most
	between func(page int) // called before each request
	check   func(sources.Page)
}

func newReader(t testing.TB, s sources.Source, stream string, since time.Time, overlap time.Duration) *reader {
	return &reader{t: t, source: s, seen: make(map[string]int), limit: 2000,
		query: sources.Query{Stream: stream, Walk: sources.News, Since: since, Overlap: overlap}}
}

func (r *reader) fetch() sources.Page {
	r.t.Helper()
	q := r.query
	q.Cursor, q.Now = r.cursor, time.Now()
	page, err := r.source.Fetch(context.Background(), q)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, it := range page.Items {
		r.seen[it.ID[len(it.ID)-1]]++
	}
	if page.Note != "" {
		r.notes = append(r.notes, page.Note)
	}
	r.cursor = page.Cursor
	r.saved = append(r.saved, page.Cursor)
	if r.check != nil {
		r.check(page)
	}
	return page
}

// run makes one run, and returns how many requests it took and when it began.
func (r *reader) run() (requests int, began time.Time) {
	r.t.Helper()
	for {
		if r.between != nil {
			r.between(requests)
		}
		page := r.fetch()
		if requests++; requests > r.limit {
			r.t.Fatalf("a run of more than %d requests; cursor %s", r.limit, r.cursor)
		}
		if page.Done {
			return requests, page.Began
		}
	}
}

func bubble(f func(t *testing.T)) func(t *testing.T) {
	return func(t *testing.T) {
		t.Helper()
		sourcetest.SetClock()
		f(t)
	}
}
