package yandexmarket_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/sourcetest"
	"syncd/internal/sources/yandexmarket"
)

const (
	business = 900001
	apiKey   = "ACMA:TKw4kEh1c0Rr8kB2lYzSJ5q0vXnP7mDfGa9eWuOiNbE:7f3c21d0"
)

// spec is what the OpenAPI document (2026-07-17) says of the methods that may be
// called: nothing else may be asked, and not otherwise. Paths are without the ids of
// business and campaign.
var spec = map[string]struct {
	limit  int // of a page, at most; 0: it has none
	calls  int // an hour
	query  string
	fields string // of the body; -: it takes none
}{
	"POST /v2/businesses/chats":                   {20, 5_000, "", "contexts contextTypes types statuses"},
	"GET /v2/businesses/chat":                     {0, 1_000, "chatId", "-"},
	"POST /v2/businesses/chats/history":           {100, 10_000, "chatId", "messageIdFrom"},
	"POST /v2/businesses/goods-feedback":          {50, 5_000, "", "feedbackIds dateTimeFrom dateTimeTo reactionStatus ratingValues offerIds paid"},
	"POST /v2/businesses/goods-feedback/comments": {50, 5_000, "sourceType", "feedbackId commentIds"},
	"POST /v1/businesses/goods-questions":         {50, 1_000, "", "dateFrom dateTo questionIds categoryIds needAnswer sort"},
	"POST /v1/businesses/goods-questions/answers": {50, 1_000, "", "questionId answerIds"},
	"GET /v2/campaigns/returns":                   {100, 5_000, "orderIds statuses shipmentStatuses type fromDate toDate", "-"},
	"GET /v2/campaigns":                           {100, 1_000, "", "-"},
	"POST /v2/auth/token":                         {0, 100, "", "-"},
}

// call is a request as a handler of fake sees it.
type call struct {
	method   string // as in spec: "POST /v2/businesses/chats"
	campaign string // empty: the path names none
	query    url.Values
	body     map[string]json.RawMessage // nil: none was sent
	token    string                     // of the page
	limit    int                        // of the page; 0: it has none
}

func (c call) String() string {
	s := c.method + " " + c.campaign + " " + c.query.Encode()
	for _, k := range slices.Sorted(maps.Keys(c.body)) {
		s += fmt.Sprintf(" %s=%s", k, c.body[k])
	}
	return s
}

// fake is the marketplace without a network: a handler for each method, and strict
// about all that is documented: paths, headers, parameters, limits of pages, calls an
// hour, requests in flight. Handlers are called one at a time.
type fake struct {
	t testing.TB
	// on are the handlers by their method, as in spec. What one returns is sent as it
	// is; a status of 0 is 200. A method without a handler may not be called.
	on map[string]func(c call) (status int, body string)
	// delay is how long an answer takes.
	delay time.Duration

	mu     sync.Mutex
	asked  []call
	spent  map[string]int // by method, campaign and hour
	flying atomic.Int64
}

func newFake(t testing.TB) *fake {
	return &fake{t: t, on: make(map[string]func(call) (int, string)), spent: make(map[string]int)}
}

// took returns the requests since it was called the last time.
func (f *fake) took() []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.asked
	f.asked = nil
	return asked
}

// RoundTrip implements http.RoundTripper.
func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	if f.flying.Add(1) > 3 {
		f.t.Error("more than 3 requests in flight")
	}
	defer f.flying.Add(-1)
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		_ = r.Body.Close()
	}
	select {
	case <-time.After(f.delay):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	w := httptest.NewRecorder()
	w.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
	f.serve(w, r, body)
	return w.Result(), nil
}

func (f *fake) serve(w *httptest.ResponseRecorder, r *http.Request, body []byte) {
	c := call{query: r.URL.Query(), token: r.URL.Query().Get("pageToken")}
	var words []string
	for i, word := range strings.Split(r.URL.Path, "/") {
		switch {
		case i == 3 && words[2] == "campaigns":
			c.campaign = word
		case i == 3 && words[2] == "businesses":
			if word != strconv.Itoa(business) {
				f.t.Errorf("another business: %s", r.URL)
			}
		default:
			words = append(words, word)
		}
	}
	c.method = r.Method + " " + strings.Join(words, "/")
	s, ok := spec[c.method]
	handler := f.on[c.method]
	if !ok || handler == nil {
		f.t.Errorf("unexpected request %s %s", r.Method, r.URL)
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, failure("NOT_FOUND", "Resource not found"))
		return
	}
	if r.Header.Get("Api-Key") != apiKey || r.Header.Get("Authorization") != "" {
		f.t.Errorf("headers %v, expected the Api-Key alone", r.Header)
	}
	for name, values := range c.query {
		if len(values) != 1 || values[0] == "" || !slices.Contains(append(strings.Fields(s.query), "limit", "pageToken"), name) {
			f.t.Errorf("the API knows no %s=%q: %s", name, values, r.URL)
		}
	}
	if s.limit > 0 {
		n, err := strconv.Atoi(c.query.Get("limit"))
		if err != nil || n < 1 || n > s.limit {
			f.t.Errorf("limit is not within 1 and %d: %s", s.limit, r.URL)
		}
		c.limit = n
	}
	if len(body) > 0 {
		if r.Header.Get("Content-Type") != "application/json" || json.Unmarshal(body, &c.body) != nil || c.body == nil {
			f.t.Errorf("%s: the body is %q, of type %q", r.URL, body, r.Header.Get("Content-Type"))
		}
		for name, v := range c.body {
			if !slices.Contains(strings.Fields(s.fields), name) || bytes.Equal(v, []byte("null")) {
				f.t.Errorf("%s: the API knows no %s in the body %s", r.URL, name, body)
			}
		}
	} else if s.fields != "-" {
		f.t.Errorf("%s: a body is required", r.URL)
	}
	f.asked = append(f.asked, c)
	hour := time.Now().Truncate(time.Hour)
	key := c.method + " " + c.campaign + " " + hour.Format(time.RFC3339)
	f.spent[key]++
	left := s.calls - f.spent[key]
	if left < 0 {
		f.t.Errorf("more than %d calls in the hour of %s: %s", s.calls, hour, c)
	}
	w.Header().Set("X-RateLimit-Resource-Limit", strconv.Itoa(s.calls))
	w.Header().Set("X-RateLimit-Resource-Remaining", strconv.Itoa(max(left, 0)))
	w.Header().Set("X-RateLimit-Resource-Until", hour.Add(time.Hour).Format(http.TimeFormat))
	status, answer := handler(c)
	w.Header().Set("Content-Type", "application/json")
	if status != 0 {
		w.WriteHeader(status)
	}
	_, _ = io.WriteString(w, answer)
}

// page is a page of a list; an empty token means that it is the last one.
func page(name string, entries []string, token string) string {
	paging := ""
	if token != "" {
		paging = fmt.Sprintf(`"nextPageToken":%q`, token)
	}
	return fmt.Sprintf(`{"status":"OK","result":{%q:[%s],"paging":{%s}}}`, name, strings.Join(entries, ","), paging)
}

// failure is an answer that is no 200.
func failure(code, message string) string {
	return fmt.Sprintf(`{"status":"ERROR","errors":[{"code":%q,"message":%q}]}`, code, message)
}

type memory map[string][]byte

func (m memory) Load(key string) ([]byte, bool, error) { return m[key], false, nil }
func (m memory) Save(key string, value []byte) error   { m[key] = value; return nil }

// open returns a source for one account whose requests go through transport. Streams
// are those that are enabled; none: all.
func open(t testing.TB, transport http.RoundTripper, streams ...string) *yandexmarket.Client {
	t.Helper()
	cfg := yandexmarket.Config{
		Account: "market", Business: business, Token: apiKey, Endpoint: "http://api.test", Streams: streams, BudgetShare: 1,
		Budgets: apiclient.NewBudgets(memory{}, slog.New(slog.DiscardHandler)), Metrics: apiclient.NewMetrics(prometheus.NewRegistry()),
		Transport: transport, UserAgent: "syncd/test", Grace: 5 * time.Second,
	}
	if len(streams) == 0 {
		for _, s := range yandexmarket.Streams() {
			cfg.Streams = append(cfg.Streams, s.Name)
		}
	}
	c, err := yandexmarket.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// reader drives one walk of one stream as the poller does, with the visits of all.
type reader struct {
	t      testing.TB
	source sources.Source
	query  sources.Query
	cursor sources.Cursor
	seen   map[string]int // readings, by item id
	items  []sources.Item // in the order in which they came
	notes  []string
	plan   string
	visits visits
	limit  int // pages of one run, at most
}

func newReader(t testing.TB, s sources.Source, stream string, walk sources.Walk) *reader {
	r := &reader{t: t, source: s, seen: make(map[string]int), limit: 2000, visits: make(visits),
		query: sources.Query{Stream: stream, Walk: walk, Overlap: time.Hour, Window: 60 * 24 * time.Hour}}
	r.query.Remembered = r.visits.remembered
	return r
}

// fetch reads the next page.
func (r *reader) fetch() (sources.Page, error) {
	q := r.query
	q.Cursor, q.Now = r.cursor, time.Now()
	if q.Cursor != nil {
		q.Visit = nil // the engine says only once what to visit
	}
	p, err := r.source.Fetch(context.Background(), q)
	if err != nil {
		return p, err
	}
	for _, it := range p.Items {
		r.seen[strings.Join(it.ID, "/")]++
	}
	r.items = append(r.items, p.Items...)
	if p.Note != "" {
		r.notes = append(r.notes, p.Note)
	}
	if p.Plan != "" {
		r.plan = p.Plan
	}
	r.cursor = p.Cursor
	r.visits.found(q.Stream, p.Found)
	return p, nil
}

// run makes one run, and returns its last page and how many pages it took.
func (r *reader) run() (last sources.Page, pages int) {
	r.t.Helper()
	for pages = 1; ; pages++ {
		p, err := r.fetch()
		if err != nil {
			r.t.Fatal(err)
		}
		if p.Done {
			return p, pages
		}
		if pages >= r.limit {
			r.t.Fatalf("a run of more than %d pages; cursor %s", r.limit, r.cursor)
		}
	}
}

// visit makes the visit of a thing of the reader's stream, whose walk is Follow.
func (r *reader) visit(id string) (last sources.Page, pages int) {
	r.t.Helper()
	v := r.visits[r.query.Stream][id]
	if v == nil {
		r.t.Fatalf("nothing was found of %s of %s", id, r.query.Stream)
	}
	start := *v
	r.cursor, r.query.Visit = nil, &start
	last, pages = r.run()
	if last.Visited == nil || last.Visited.ID != id {
		r.t.Fatalf("the visit of %s ended with %+v", id, last.Visited)
	}
	r.visits.visited(r.query.Stream, start.Version, *last.Visited)
	return last, pages
}

// visits are those of an account, by stream and id, as the engine keeps them.
type visits map[string]map[string]*sources.Visit

func (v visits) remembered(stream, id string) (sources.Visit, bool, error) {
	if known := v[stream][id]; known != nil {
		return *known, true, nil
	}
	return sources.Visit{}, false, nil
}

func (v visits) found(stream string, found []sources.Visit) {
	for _, f := range found {
		if f.Stream == "" {
			f.Stream = stream
		}
		if v[f.Stream] == nil {
			v[f.Stream] = make(map[string]*sources.Visit)
		}
		if known := v[f.Stream][f.ID]; known != nil {
			f.Seen, f.Version = known.Seen, known.Version
		}
		f.Version++
		v[f.Stream][f.ID] = &f
	}
}

// visited ends a visit that began with a version of it.
func (v visits) visited(stream string, began uint64, made sources.Visit) {
	known := v[stream][made.ID]
	switch {
	case known == nil:
	case known.Version != began:
		known.Seen = made.Seen // found again meanwhile: it stays due
	case made.Forget:
		delete(v[stream], made.ID)
	default:
		known.Seen, known.Due, known.Urgent, known.History = made.Seen, made.Due, made.Urgent, false
	}
}

// due are the ids that a stream has to visit by now, in the engine's order.
func (v visits) due(stream string, now time.Time) []string {
	var due []*sources.Visit
	for _, known := range v[stream] {
		if !known.Due.IsZero() && !known.Due.After(now) {
			due = append(due, known)
		}
	}
	slices.SortFunc(due, func(a, b *sources.Visit) int {
		if a.Urgent != b.Urgent {
			if a.Urgent {
				return -1
			}
			return 1
		}
		if c := a.Due.Compare(b.Due); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	var ids []string
	for _, known := range due {
		ids = append(ids, known.ID)
	}
	return ids
}

func bubble(f func(t *testing.T)) func(t *testing.T) {
	return func(t *testing.T) {
		t.Helper()
		sourcetest.SetClock()
		f(t)
	}
}
