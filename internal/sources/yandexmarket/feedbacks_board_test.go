package yandexmarket_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/yandexmarket"
)

const (
	methodFeedbacks = "POST /v2/businesses/goods-feedback"
	methodComments  = "POST /v2/businesses/goods-feedback/comments"
	methodQuestions = "POST /v1/businesses/goods-questions"
	methodAnswers   = "POST /v1/businesses/goods-questions/answers"
	hours24         = 24 * time.Hour
)

// entry is a review or a question.
type entry struct {
	id                 int64
	created, published time.Time
	need               bool // a reaction, an answer
	text               int
	children           []child // in the order of their publication
}

// child is a comment or an answer.
type child struct {
	id, parent int64
	at         time.Time
}

// board is the marketplace's side of one stream, in one of the forms that the
// documentation leaves open.
type board struct {
	*fake
	stream      string
	entries     []*entry
	order       string        // of a list: asc, desc, none
	byPublished bool          // the filter goes by publication
	zone        time.Duration // of the days
	endless     bool          // days are asked for without the last one
	startless   bool          // and without the first one
	offsets     bool          // tokens are numbers of entries, else places in the order
	life        int           // how many pages of any list a token lives; 0: for ever
	size        int           // entries of a page
	deaf        bool          // the dates are ignored
	childDesc   bool          // children come newest first
	before      func(c call)  // called before each answer
	strict      bool          // ids of which one is unknown are refused
	lenient     bool          // a cursor that nobody wrote may ask for strange times

	issued map[string]int // tokens, by how many had been before
}

func newBoard(t testing.TB, stream string) *board {
	b := &board{fake: newFake(t), stream: stream, order: "asc", size: 50, issued: make(map[string]int)}
	list, children := methodFeedbacks, methodComments
	if stream == yandexmarket.GoodsQuestions {
		list, children = methodQuestions, methodAnswers
	}
	b.on[list], b.on[children] = b.list, b.children
	return b
}

// add adds entries that are so old, an hour between one and the next, published at once.
func (b *board) add(n int, oldest time.Duration, apart time.Duration) (first *entry) {
	for i := range n {
		at := time.Now().Add(-oldest + time.Duration(i)*apart).Truncate(time.Second)
		e := &entry{id: int64(1000 + len(b.entries)), created: at, published: at}
		b.entries = append(b.entries, e)
		if first == nil {
			first = e
		}
	}
	return first
}

// publish adds an entry that was created before and is published now.
func (b *board) publish(created time.Duration) *entry {
	e := b.add(1, created, 0)
	e.published = time.Now()
	return e
}

func (b *board) render(e *entry) string {
	if b.stream == yandexmarket.GoodsQuestions {
		return fmt.Sprintf(`{"questionIdentifiers":{"id":%d,"offerId":"a"},"businessId":%d,"text":"%d?","createdAt":%q,"votes":{"likes":0,"dislikes":0},"author":{"type":"USER"}}`,
			e.id, business, e.text, e.created.Format(time.RFC3339))
	}
	direct := 0
	for _, c := range e.children {
		if c.parent == 0 {
			direct++
		}
	}
	return fmt.Sprintf(`{"feedbackId":%d,"createdAt":%q,"needReaction":%t,"identifiers":{"orderId":1},"description":{"comment":"%d!"},"statistics":{"rating":5,"commentsCount":%d}}`,
		e.id, e.created.In(time.FixedZone("", 3*60*60)).Format(time.RFC3339), e.need, e.text, direct)
}

func (b *board) text(c call, name string) (s string) {
	_ = json.Unmarshal(c.body[name], &s)
	return s
}

func (b *board) list(c call) (int, string) {
	if b.before != nil {
		b.before(c)
	}
	if c.body["feedbackIds"] != nil {
		return b.byID(c)
	}
	inside := b.window(c)
	var shown []*entry
	for _, e := range b.entries {
		at := e.created
		if b.byPublished {
			at = e.published
		}
		if !e.published.After(time.Now()) && (b.deaf || inside(at)) && (e.need || b.text(c, "reactionStatus") == "" && string(c.body["needAnswer"]) != "true") {
			shown = append(shown, e)
		}
	}
	place := func(e *entry) int64 {
		switch b.order {
		case "asc":
			return e.published.UnixNano()
		case "desc":
			return -e.published.UnixNano()
		}
		h := fnv.New32()
		fmt.Fprint(h, e.id)
		return int64(h.Sum32())
	}
	slices.SortStableFunc(shown, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a.id, b.id))
	})
	return b.page(c, b.member(), len(shown), func(i int) string { return b.render(shown[i]) }, func(i int) string {
		return fmt.Sprintf("%020d %d", place(shown[i])+1<<62, shown[i].id)
	})
}

// byID answers a request for reviews by their ids, which takes nothing beside them.
func (b *board) byID(c call) (int, string) {
	var ids []int64
	if err := json.Unmarshal(c.body["feedbackIds"], &ids); err != nil || len(ids) < 1 || len(ids) > 50 || len(c.body) > 1 {
		b.t.Errorf("reviews by their ids: %s", c)
	}
	var shown []*entry
	for _, e := range b.entries {
		if slices.Contains(ids, e.id) && !e.published.After(time.Now()) {
			shown = append(shown, e)
		}
	}
	if b.strict && len(shown) < len(ids) {
		return http.StatusNotFound, failure("NOT_FOUND", "Feedbacks not found.")
	}
	return b.page(c, b.member(), len(shown), func(i int) string { return b.render(shown[i]) }, func(i int) string { return fmt.Sprintf("%020d", shown[i].id) })
}

func (b *board) member() string {
	if b.stream == yandexmarket.GoodsQuestions {
		return "questions"
	}
	return "feedbacks"
}

// page answers with a page of n things in their order.
func (b *board) page(c call, member string, n int, render, key func(i int) string) (int, string) {
	from := 0
	if c.token != "" {
		issued, ok := b.issued[c.token]
		if !ok || b.life > 0 && len(b.issued)-issued >= b.life {
			b.life = 0 // one death is enough
			return http.StatusBadRequest, failure("BAD_REQUEST", "Bad page token")
		}
		_, at, _ := strings.Cut(c.token, "=")
		if b.offsets {
			from, _ = strconv.Atoi(at)
		} else {
			for from < n && key(from) <= at {
				from++
			}
		}
	}
	to, token := min(from+b.size, n), ""
	if to < n {
		token = fmt.Sprintf("o=%d", to)
		if !b.offsets {
			token = "k=" + key(to-1)
		}
		b.issued[token] = len(b.issued)
	}
	var entries []string
	for i := from; i < to; i++ {
		entries = append(entries, render(i))
	}
	return 0, page(member, entries, token)
}

// window is the filter by dates of a request, which must be one that is documented.
func (b *board) window(c call) func(at time.Time) bool {
	now := time.Now()
	if b.stream == yandexmarket.GoodsFeedbacks {
		from, to := now.AddDate(0, -6, 0), now
		parse := func(name string, t *time.Time) {
			if s := b.text(c, name); s != "" {
				var err error
				if *t, err = time.Parse(time.RFC3339, s); err != nil {
					b.t.Errorf("%s: %v", name, err)
				}
			}
		}
		parse("dateTimeTo", &to)
		parse("dateTimeFrom", &from)
		if !b.lenient && (from.AddDate(0, 6, 0).Before(to) || !from.Before(to) || to.After(now)) {
			b.t.Errorf("reviews from %s to %s", from, to)
		}
		return func(at time.Time) bool { return at.After(from) && at.Before(to) }
	}
	from, err1 := time.Parse(time.DateOnly, b.text(c, "dateFrom"))
	to, err2 := time.Parse(time.DateOnly, b.text(c, "dateTo"))
	if !b.lenient && (err1 != nil || err2 != nil || from.AddDate(0, 1, -1).Before(to) || !from.Before(to)) {
		b.t.Errorf("questions from %s to %s", from, to)
	}
	if !b.endless {
		to = to.Add(hours24)
	}
	if b.startless {
		from = from.Add(hours24)
	}
	from, to = from.Add(-b.zone), to.Add(-b.zone)
	return func(at time.Time) bool { return !at.Before(from) && at.Before(to) }
}

func (b *board) children(c call) (int, string) {
	name, member := "feedbackId", "comments"
	if b.stream == yandexmarket.GoodsQuestions {
		name, member = "questionId", "answers"
	}
	id, _ := strconv.ParseInt(string(c.body[name]), 10, 64)
	i := slices.IndexFunc(b.entries, func(e *entry) bool { return e.id == id })
	if i < 0 {
		return http.StatusNotFound, failure("NOT_FOUND", "Feedbacks not found.")
	}
	children := slices.Clone(b.entries[i].children)
	if b.childDesc {
		slices.Reverse(children)
	}
	return b.page(c, member, len(children), func(i int) string {
		k := children[i]
		if b.stream == yandexmarket.GoodsQuestions {
			return fmt.Sprintf(`{"id":%d,"text":"!","canModify":false,"status":"PUBLISHED","questionId":%d,"createdAt":%q,"votes":{"likes":0,"dislikes":0},"comments":[{"id":%d7}]}`,
				k.id, id, k.at.Format(time.RFC3339), k.id)
		}
		parent := ""
		if k.parent != 0 {
			parent = fmt.Sprintf(`,"parentId":%d`, k.parent)
		}
		return fmt.Sprintf(`{"id":%d,"text":"!","status":"PUBLISHED","feedbackId":%d%s}`, k.id, id, parent)
	}, func(i int) string { return fmt.Sprintf("%05d", i) })
}

// ids are those of the entries, as items have them.
func (b *board) ids() (ids []string) {
	for _, e := range b.entries {
		ids = append(ids, b.idOf(e))
	}
	return ids
}

func (b *board) idOf(e *entry) string {
	return fmt.Sprintf("goods_%s/%d", strings.TrimSuffix(b.member(), "s"), e.id)
}

// reader returns a reader of a walk of the board's stream, with the visits of r; nil: of
// its own.
func (b *board) reader(source sources.Source, walk sources.Walk, r *reader) *reader {
	next := newReader(b.t, source, b.stream, walk)
	next.query.Overlap, next.query.Every, next.query.Full = 3*hours24, 15*time.Minute, hours24
	if r != nil {
		next.visits = r.visits
		next.query.Remembered = r.visits.remembered
	}
	return next
}

// missing says which entries a reader has not seen.
func (b *board) missing(r *reader) (ids []string) {
	for _, id := range b.ids() {
		if r.seen[id] == 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

// must fails where a reader has not seen an entry.
func (b *board) must(what string, r *reader, entries ...*entry) {
	b.t.Helper()
	for _, e := range entries {
		if r.seen[b.idOf(e)] == 0 {
			b.t.Errorf("%s: %s of %s, published %s, was not shown", what, b.idOf(e), e.created, e.published)
		}
	}
}
