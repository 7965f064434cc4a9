package wildberries_test

import (
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/wildberries"
)

// lists is a strict fake of the methods that questions and feedbacks are read by.
type lists struct {
	t      testing.TB
	stream string // default: questions
	items  []*listItem

	// How it reads what is not documented.
	fromExclusive, toExclusive bool
	seconds                    bool   // the filter compares whole seconds
	rounded                    bool   // after rounding, that is
	indexed                    bool   // it goes by when an item appeared, and so does the order of the lists
	dateless                   bool   // answers hold no Date
	order                      string // of the lists: "asc" as asked, "desc" or "none" whatever is asked
	archiveOrder               string // as asked, or "asc" or "none"
	cut                        int    // pages hold no more, whatever is asked for; 0: they hold what is asked for
	ignoreFrom                 bool
	undated                    bool   // the counts mind no dates
	text                       string // of each item
	sorted                     bool   // the items are, the newest first, which makes a large shop quick

	take, skip, depth int  // what a page may be; 0: as documented
	leaf              int  // items of a part of the census; 0: as many as in earnest
	archiveSkip       int  // more is refused; 0: nothing is
	archiveEmpty      bool // and not refused, but empty
	archiveRepeats    bool // and the last page comes again

	poison   map[string]bool           // a page with one of these items fails
	fail     func(*http.Request) int   // a status other than 0 is sent instead
	counted  func(n int) string        // what a count says
	onAnswer func(path string, at int) // called after each page, with the number of the request

	paths map[string]int // requests so far
	n     int
}

type listItem struct {
	id       string
	created  time.Time
	visible  time.Time // zero: always
	gone     time.Time // zero: never
	answered bool
	moves    []time.Time // to the other list
	archived time.Time   // zero: never; the archive shows it from then on
	hidden   time.Time   // zero: never; the lists do not show it from then on
	raw      string
}

func (i *listItem) isAnswered(now time.Time) bool {
	answered := i.answered
	for _, at := range i.moves {
		if !at.After(now) {
			answered = !answered
		}
	}
	return answered
}

func (i *listItem) exists(now time.Time) bool {
	return !i.visible.After(now) && (i.gone.IsZero() || i.gone.After(now))
}

func (i *listItem) listed(now time.Time) bool {
	return i.exists(now) && (i.hidden.IsZero() || i.hidden.After(now))
}

func (i *listItem) inArchive(now time.Time) bool {
	return i.exists(now) && !i.archived.IsZero() && !i.archived.After(now)
}

func (l *lists) json(i *listItem, now time.Time) string {
	if i.raw != "" {
		return i.raw
	}
	created, answer := i.created.UTC().Format(time.RFC3339Nano), "null"
	if l.stream == wildberries.Feedbacks {
		created = i.created.In(time.FixedZone("", 3*3600)).Format(time.RFC3339)
	}
	if i.isAnswered(now) {
		answer = `{"text":"!"}`
	}
	return fmt.Sprintf(`{"id":%q,"text":"%s?","createdDate":%q,"answer":%s}`, i.id, l.text, created, answer)
}

// parameters reads numbers, and fails the test where one is none.
func (l *lists) number(r *http.Request, name string) (int64, bool) {
	q := r.URL.Query()
	n, err := strconv.ParseInt(q.Get(name), 10, 64)
	if q.Has(name) && (err != nil || n < 0) {
		l.t.Errorf("%s=%q", name, q.Get(name))
	}
	return n, q.Has(name)
}

func (l *lists) refuse(w http.ResponseWriter, r *http.Request) {
	l.t.Errorf("the API refuses %s", r.URL)
	w.WriteHeader(http.StatusBadRequest)
}

func (l *lists) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.n++
	if l.dateless {
		w.Header().Del("Date")
	}
	if l.paths == nil {
		l.paths = make(map[string]int)
	}
	name := strings.TrimPrefix(r.URL.Path, "/api/v1/"+l.stream)
	l.paths[name]++
	if l.fail != nil {
		if status := l.fail(r); status != 0 {
			w.WriteHeader(status)
			if status == http.StatusForbidden {
				fmt.Fprint(w, `{"title":"Forbidden","detail":"scope is not allowed for this resource","status":403}`)
			}
			return
		}
	}
	switch {
	case !strings.HasPrefix(r.URL.Path, "/api/v1/"+l.stream):
		l.refuse(w, r)
	case name == "":
		l.serveList(w, r)
	case name == "/count":
		l.serveCount(w, r)
	case name == "/archive" && l.stream == wildberries.Feedbacks:
		l.serveArchive(w, r)
	default:
		l.refuse(w, r)
	}
	if l.onAnswer != nil {
		l.onAnswer(name, l.n)
	}
}

// within are the items of one list, and of one time.
func (l *lists) within(r *http.Request, dated bool) []*listItem {
	from, hasFrom := l.number(r, "dateFrom")
	to, hasTo := l.number(r, "dateTo")
	answered, err := strconv.ParseBool(r.URL.Query().Get("isAnswered"))
	if err != nil {
		l.t.Errorf("isAnswered: %v", err)
	}
	now := time.Now()
	before := func(a, b time.Time) bool {
		if l.rounded {
			a, b = a.Round(time.Second), b.Round(time.Second)
		}
		if l.seconds {
			return a.Unix() < b.Unix()
		}
		return a.Before(b)
	}
	start, end := time.Unix(from, 0), time.Unix(to, 0)
	items := l.items
	if l.sorted && dated && hasFrom && hasTo {
		after := func(at time.Time) int {
			return sort.Search(len(l.items), func(i int) bool { return l.items[i].created.Before(at) })
		}
		items = l.items[after(end.Add(time.Second)):after(start.Add(-time.Second))]
	}
	var found []*listItem
	for _, it := range items {
		switch {
		case !it.listed(now), it.isAnswered(now) != answered:
		case dated && hasFrom && (before(l.when(it), start) || l.fromExclusive && !before(start, l.when(it))):
		case dated && hasTo && (before(end, l.when(it)) || l.toExclusive && !before(l.when(it), end)):
		default:
			found = append(found, it)
		}
	}
	return found
}

// when is the time that the filter and the order go by.
func (l *lists) when(it *listItem) time.Time {
	if l.indexed && !it.visible.IsZero() {
		return it.visible
	}
	return it.created
}

func (l *lists) serveList(w http.ResponseWriter, r *http.Request) {
	take, hasTake := l.number(r, "take")
	skip, hasSkip := l.number(r, "skip")
	if !hasTake || !hasSkip || take < 1 || take > int64(l.take) || skip > int64(l.skip) || take+skip > int64(l.depth) || r.URL.Query().Get("order") != "dateAsc" {
		l.refuse(w, r)
		return
	}
	l.send(w, l.within(r, !l.ignoreFrom), l.when, l.order, int(skip), int(take))
}

func (l *lists) serveArchive(w http.ResponseWriter, r *http.Request) {
	take, hasTake := l.number(r, "take")
	skip, hasSkip := l.number(r, "skip")
	order := map[string]string{"dateAsc": "asc", "dateDesc": "desc"}[r.URL.Query().Get("order")]
	if !hasTake || !hasSkip || take < 1 || take > int64(l.take) || skip > int64(l.skip) || order == "" || r.URL.Query().Has("dateFrom") {
		l.refuse(w, r)
		return
	}
	now := time.Now()
	var page []*listItem
	for _, it := range l.items {
		if it.inArchive(now) {
			page = append(page, it)
		}
	}
	if l.archiveSkip > 0 && int(skip) > l.archiveSkip {
		if !l.archiveEmpty && !l.archiveRepeats {
			w.WriteHeader(http.StatusUnprocessableEntity)
			fmt.Fprint(w, `{"data":null,"error":true,"errorText":"Не удалось получить архивные отзывы по фильтру","additionalErrors":null}`)
			return
		}
		if skip = int64(l.archiveSkip); !l.archiveRepeats {
			page = nil
		}
	}
	if l.archiveOrder != "" {
		order = l.archiveOrder
	}
	l.send(w, page, func(it *listItem) time.Time { return it.created }, order, int(skip), int(take))
}

func (l *lists) send(w http.ResponseWriter, page []*listItem, when func(*listItem) time.Time, order string, skip, take int) {
	slices.SortStableFunc(page, func(a, b *listItem) int {
		switch order {
		case "desc":
			return when(b).Compare(when(a))
		case "none":
			return strings.Compare(a.id[len(a.id)-1:]+a.id, b.id[len(b.id)-1:]+b.id)
		}
		return when(a).Compare(when(b))
	})
	page = page[min(skip, len(page)):]
	page = page[:min(take, len(page))]
	if l.cut > 0 {
		page = page[:min(l.cut, len(page))]
	}
	now := time.Now()
	items := make([]string, len(page))
	for i, it := range page {
		if l.poison[it.id] {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		items[i] = l.json(it, now)
	}
	unanswered, answered := 0, 0
	for _, it := range l.items {
		switch {
		case !it.listed(now):
		case it.isAnswered(now):
			answered++
		default:
			unanswered++
		}
	}
	fmt.Fprintf(w, `{"data":{"countUnanswered":%d,"countArchive":%d,%q:[%s]},"error":false,"errorText":"","additionalErrors":null}`, unanswered, answered, l.stream, strings.Join(items, ","))
}

func (l *lists) serveCount(w http.ResponseWriter, r *http.Request) {
	if !r.URL.Query().Has("dateFrom") || !r.URL.Query().Has("dateTo") {
		l.refuse(w, r)
		return
	}
	n := len(l.within(r, !l.undated))
	said := strconv.Itoa(n)
	if l.counted != nil {
		said = l.counted(n)
	}
	fmt.Fprintf(w, `{"data":%s,"error":false,"errorText":"","additionalErrors":null}`, said)
}

// open returns a client of it.
func (l *lists) open(t testing.TB, acc int) *wildberries.Client {
	return l.openThrough(t, acc, &direct{handler: l})
}

// openThrough returns one that sends its requests through transport.
func (l *lists) openThrough(t testing.TB, acc int, transport http.RoundTripper) *wildberries.Client {
	l.t = t
	if l.order == "" {
		l.order = "asc"
	}
	if l.stream == "" {
		l.stream = wildberries.Questions
	}
	c := open(t, transport, token(acc))
	if l.leaf > 0 {
		c.SetLeaf(l.leaf)
	}
	switch {
	case l.take > 0:
		if l.skip == 0 {
			l.skip = l.depth
		}
		c.SetPages(l.take, l.skip, l.depth)
	case l.stream == wildberries.Questions:
		l.take, l.skip, l.depth = 10_000, 10_000, 10_000
	default:
		l.take, l.skip, l.depth = 5000, 199_990, 204_990
	}
	return c
}

// reader returns a reader of one walk.
func (l *lists) reader(t testing.TB, walk sources.Walk) *reader {
	rd := newReader(t, l.open(t, 3), l.stream, time.Time{}, threeHours)
	rd.query.Walk, rd.query.Window = walk, sixtyDays
	return rd
}

const (
	threeHours = 3 * time.Hour
	sixtyDays  = 60 * 24 * time.Hour
)

var datedStreams = []string{wildberries.Questions, wildberries.Feedbacks}

// ago returns the time d ago, on a second.
func ago(d time.Duration) time.Time { return time.Now().Add(-d).Truncate(time.Second) }
