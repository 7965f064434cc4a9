package yandexmarket_test

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/yandexmarket"
)

const day = 24 * time.Hour

// goods is a return of a store.
type goods struct {
	id               int
	created, updated time.Time
	version          int
}

func (g *goods) json() string {
	return fmt.Sprintf(`{"id":%d,"orderId":350000001,"creationDate":%q,"updateDate":%q,"returnType":"RETURN","refundStatus":"V%d","amount":{"value":1499.10,"currencyId":"RUR"},"items":[{"shopSku":"SKU-1","count":1,"decisions":null}]}`,
		g.id, msk(g.created), msk(g.updated), g.version)
}

// outlet is a store.
type outlet struct {
	id      int
	owner   int    // 0: the business
	state   string // apiAvailability
	hidden  bool
	returns []*goods
	refuse  func(c call) (status int, body string) // a status of 0: it answers
}

// market is a business with its stores, behind a fake.
type market struct {
	*fake
	zone      *time.Location // of the days
	exclusive bool           // the ends of a window are not in it
	size      int            // of a page
	order     func(a, b *goods) int
	outlets   []*outlet
	campaigns func(c call) (status int, body string) // refuses discovery; a status of 0: it answers
	served    func(c call)                           // called after each page of returns
	ids       int
}

func newMarket(t testing.TB, stores ...int) *market {
	m := &market{fake: newFake(t), zone: time.UTC, size: 100, order: func(a, b *goods) int { return cmp.Compare(b.id, a.id) }}
	for _, id := range stores {
		m.outlets = append(m.outlets, &outlet{id: id, state: "AVAILABLE"})
	}
	m.on["GET /v2/campaigns"] = m.list
	m.on["GET /v2/campaigns/returns"] = m.returns
	return m
}

func (m *market) outlet(campaign string) *outlet {
	for _, o := range m.outlets {
		if strconv.Itoa(o.id) == campaign {
			return o
		}
	}
	return &outlet{refuse: func(call) (int, string) { return 404, failure("NOT_FOUND", "Campaign not found") }}
}

// add adds a return of a store.
func (m *market) add(store int, created, updated time.Time) *goods {
	m.ids++
	g := &goods{id: m.ids, created: created, updated: updated}
	o := m.outlet(strconv.Itoa(store))
	o.returns = append(o.returns, g)
	return g
}

// change makes a new version of a return.
func (g *goods) change() {
	g.version++
	g.updated = time.Now()
}

func (m *market) list(c call) (int, string) {
	if m.campaigns != nil {
		if status, body := m.campaigns(c); status != 0 {
			return status, body
		}
	}
	var all []string
	for _, o := range m.outlets {
		if !o.hidden {
			all = append(all, fmt.Sprintf(`{"domain":"Shop %d","id":%d,"business":{"id":%d,"name":"Cabinet"},"placementType":"FBS","apiAvailability":%q}`, o.id, o.id, cmp.Or(o.owner, business), o.state))
		}
	}
	from, _ := strconv.Atoi(c.token)
	entries, next := cut(all, from, c.limit)
	return 0, fmt.Sprintf(`{"campaigns":[%s],"pager":{},"paging":{%s}}`, strings.Join(entries, ","), next)
}

// cut is a page of all from there on, and where the next one begins.
func cut(all []string, from, size int) (entries []string, next string) {
	from = min(from, len(all))
	end := min(from+size, len(all))
	if end < len(all) {
		next = fmt.Sprintf(`"nextPageToken":"%d"`, end)
	}
	return all[from:end], next
}

func (m *market) returns(c call) (int, string) {
	o := m.outlet(c.campaign)
	if o.refuse != nil {
		if status, body := o.refuse(c); status != 0 {
			return status, body
		}
	}
	if o.state != "AVAILABLE" {
		return 403, failure("FORBIDDEN", fmt.Sprintf("API for campaign '%d' disabled due to inactivity", o.id))
	}
	from, to := c.query.Get("fromDate"), c.query.Get("toDate")
	for _, s := range []string{from, to} {
		if _, err := time.Parse(time.DateOnly, s); err != nil {
			m.t.Errorf("%s: not a date: %q", c, s)
		}
	}
	if from >= to {
		m.t.Errorf("%s: nothing is between these days", c)
	}
	shown := slices.Clone(o.returns)
	slices.SortStableFunc(shown, m.order)
	var all []string
	for _, g := range shown {
		d := g.updated.In(m.zone).Format(time.DateOnly)
		if d < from || d > to || m.exclusive && (d == from || d == to) {
			continue
		}
		all = append(all, g.json())
	}
	at, _ := strconv.Atoi(c.token)
	entries, next := cut(all, at, min(m.size, c.limit))
	if m.served != nil {
		m.served(c)
	}
	return 0, fmt.Sprintf(`{"status":"OK","result":{"returns":[%s],"paging":{%s}}}`, strings.Join(entries, ","), next)
}

// config is an account that has returns alone.
func config(tr http.RoundTripper) yandexmarket.Config {
	return yandexmarket.Config{
		Account: "market", Business: business, Token: apiKey, Endpoint: "http://api.test", Streams: []string{yandexmarket.Returns}, BudgetShare: 1,
		Budgets: apiclient.NewBudgets(memory{}, slog.New(slog.DiscardHandler)), Metrics: apiclient.NewMetrics(prometheus.NewRegistry()),
		Transport: tr, UserAgent: "syncd/test", Grace: 5 * time.Second,
	}
}

// openStores returns a source for one account with some configured campaigns.
func openStores(t testing.TB, tr http.RoundTripper, campaigns ...int64) *yandexmarket.Client {
	t.Helper()
	cfg := config(tr)
	cfg.Campaigns = campaigns
	c, err := yandexmarket.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// walker drives a walk of returns as the poller does.
type walker struct {
	*reader
	old    map[string]bool // whether the first reading of an item was of an old one, by id
	bodies map[string]bool // versions that were read: id and status
	failed []string
	err    *sources.Error // that ended the run
	known  map[string]bool
	pages  []sources.Page // of the last run
}

func newWalker(t testing.TB, s sources.Source, walk sources.Walk) *walker {
	w := &walker{reader: newReader(t, s, yandexmarket.Returns, walk), old: make(map[string]bool), bodies: make(map[string]bool), known: make(map[string]bool)}
	w.query.Overlap = day
	w.query.Since = time.Now()
	return w
}

// run makes a run. It ends early with an error, which the poller would repeat.
func (w *walker) run() (last sources.Page) {
	w.t.Helper()
	w.err, w.pages = nil, nil
	for {
		p, err := w.fetch()
		if err != nil {
			var ok bool
			if w.err, ok = errors.AsType[*sources.Error](err); !ok {
				w.t.Fatal(err)
			}
			return p
		}
		if w.take(p); p.Done {
			return p
		}
		if len(w.pages) > w.limit {
			w.t.Fatalf("a run of more than %d pages: %s", w.limit, w.cursor)
		}
	}
}

func (w *walker) take(p sources.Page) {
	w.t.Helper()
	w.pages = append(w.pages, p)
	if p.Failed != nil {
		if len(p.Items) > 0 {
			w.t.Errorf("%d items beside a failure", len(p.Items))
		}
		w.failed = append(w.failed, p.Failed.Error())
	}
	for _, v := range p.Found {
		if !v.Due.IsZero() || v.ID == "" {
			w.t.Errorf("found %+v", v)
		}
		w.known[v.ID] = true
	}
	for _, it := range p.Items {
		id := strings.Join(it.ID, "/")
		if _, seen := w.old[id]; !seen {
			w.old[id] = it.Old || it.Created.Before(w.query.Since)
		}
		w.bodies[versionOf(id, string(it.Body))] = true
	}
}

func versionOf(id, body string) string {
	_, status, _ := strings.Cut(body, `"refundStatus":"`)
	status, _, _ = strings.Cut(status, `"`)
	return id + " " + status
}

// has says whether the version that a return has now was read.
func (w *walker) has(store int, g *goods) bool {
	return w.bodies[fmt.Sprintf("%d/%d V%d", store, g.id, g.version)]
}
