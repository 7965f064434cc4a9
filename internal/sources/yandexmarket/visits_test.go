package yandexmarket_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/yandexmarket"
)

func (r *reader) planned(e *entry) *sources.Visit { return r.visits[r.query.Stream][fmt.Sprint(e.id)] }

// TestFound: what a list shows for the first time is worth a visit, at once where it
// is news; what it shows again only where that tells of children.
func TestFound(t *testing.T) {
	forms(t, func(t *testing.T, b *board) {
		b.add(30, 59*hours24, 40*time.Hour)
		b.add(5, 230*hours24, 0)
		source := open(t, b)
		r := b.reader(source, sources.News, nil)
		r.query.Since = time.Now().Add(-400 * hours24)
		r.run()
		for _, e := range b.entries {
			v := r.planned(e)
			if v == nil || v.Due.IsZero() || v.Due.After(time.Now()) || v.Urgent || !v.Created.Equal(e.created) {
				t.Fatalf("of the first reading: %+v", v)
			}
		}
		for _, e := range b.entries[:30] { // as if they had been visited
			r.planned(e).Due = time.Now().Add(time.Hour)
		}
		time.Sleep(time.Minute)
		fresh := b.publish(0)
		late := b.publish(50 * time.Hour)
		time.Sleep(time.Minute)
		r.run()
		full := b.reader(source, sources.Full, r)
		full.run()
		for _, e := range b.entries[:30] {
			if v := r.planned(e); v.Version != 1 || v.Urgent {
				t.Errorf("nothing has moved: %+v", v)
			}
		}
		for _, e := range []*entry{fresh, late} {
			if v := r.planned(e); v == nil || !v.Urgent || v.Due.After(time.Now()) || v.Version != 1 {
				t.Errorf("new: %+v", v)
			}
		}
		if b.stream == yandexmarket.GoodsQuestions {
			return
		}
		b.entries[3].children = append(b.entries[3].children, child{id: 5})
		full.run()
		if v := r.planned(b.entries[3]); !v.Urgent || v.Due.After(time.Now()) {
			t.Errorf("with a comment: %+v", v)
		}
		// It is older than the window, and an edit shows that it is there.
		b.entries[1].created = time.Now().Add(-100 * hours24)
		b.entries[1].published, b.entries[1].need = b.entries[1].created, true
		delete(r.visits[b.stream], fmt.Sprint(b.entries[1].id))
		sweep := b.reader(source, sources.Sweep, r)
		sweep.run()
		// Not before news: a list may show for the first time what is long there.
		if v := r.planned(b.entries[1]); v == nil || v.Urgent || v.Due.After(time.Now()) {
			t.Errorf("edited: %+v", v)
		}
	})
}

// TestAnswered: a question that waited for an answer and does not any more is visited
// at once, and so is one that waits again.
func TestAnswered(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		b := newBoard(t, yandexmarket.GoodsQuestions)
		b.add(80, 55*hours24, 12*time.Hour)
		for i, e := range b.entries {
			e.need = i%2 == 0
		}
		source := open(t, b)
		news := b.reader(source, sources.News, nil)
		news.run()
		sweep := b.reader(source, sources.Sweep, news)
		rest := func() {
			t.Helper()
			for _, e := range b.entries {
				*news.planned(e) = sources.Visit{ID: fmt.Sprint(e.id), Created: e.created, Due: time.Now().Add(time.Hour), Found: news.planned(e).Found, Seen: json.RawMessage(`{}`)}
			}
		}
		moved := func(what string, want ...int) {
			t.Helper()
			for i, e := range b.entries {
				v := news.planned(e)
				if is := v.Urgent && !v.Due.After(time.Now()); is != slices.Contains(want, i) {
					t.Errorf("%s: question %d: %+v", what, i, v)
				}
				if !v.Created.Equal(e.created) {
					t.Errorf("%s: question %d was created %s, and not %s", what, i, e.created, v.Created)
				}
			}
			rest()
		}
		rest()
		sweep.run()
		moved("the first sweep") // they are new to it alone
		b.entries[0].need, b.entries[70].need = false, false
		b.entries[1].need = true
		before := sweep.cursor
		sweep.run()
		moved("answered", 0, 70)
		sweep.run()
		moved("quiet")
		b.entries[70].need = true
		sweep.run()
		moved("waits again", 70)
		sweep.cursor = before // that of a process that was killed
		sweep.run()
		moved("an old cursor")
		b.entries[4].need = false
		sweep.cursor = nil
		sweep.run()
		moved("no cursor")

		// What a list that breaks off does not show has not been answered.
		sweep.run()
		list := b.on[methodQuestions]
		b.on[methodQuestions] = func(c call) (int, string) { return 0, page("questions", nil, strings.Repeat("x", 5000)) }
		if p, _ := sweep.run(); !p.Partial {
			t.Error("that was all of it?")
		}
		moved("broken off")
		b.on[methodQuestions] = list
	}))
}

// TestManyWait: however many questions wait, the cursor stays small, and those that are not
// remembered do not look answered.
func TestManyWait(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		b := newBoard(t, yandexmarket.GoodsQuestions)
		b.add(3000, 55*hours24, 20*time.Minute)
		for _, e := range b.entries {
			e.need = true
		}
		source := open(t, b)
		news := b.reader(source, sources.News, nil)
		news.run()
		sweep := b.reader(source, sources.Sweep, news)
		sweep.run()
		clear(news.seen)
		for range 2 {
			for _, v := range news.visits[b.stream] {
				v.Urgent = false
			}
			sweep.run()
			for _, v := range news.visits[b.stream] {
				if v.Urgent {
					t.Fatalf("%+v", v)
				}
			}
		}
		if len(sweep.cursor) > 25_000 {
			t.Errorf("a cursor of %d bytes", len(sweep.cursor))
		}
	}))
}

// TestVisitShowsChildren: in the order in which they happened, whichever way the list
// goes, with who they are about.
func TestVisitShowsChildren(t *testing.T) {
	forms(t, func(t *testing.T, b *board) {
		e := b.add(1, 10*hours24, 0)
		const n = 19
		for i := range n {
			k := child{id: int64(500 + i), at: e.created.Add(time.Duration(i) * time.Minute)}
			if i%5 == 4 {
				k.parent = k.id - 3
			}
			e.children = append(e.children, k)
		}
		source := open(t, b)
		news := b.reader(source, sources.News, nil)
		news.run()
		r := b.reader(source, sources.Follow, news)
		p, _ := r.visit(fmt.Sprint(e.id))
		if len(r.items) != n {
			t.Fatalf("%d children", len(r.items))
		}
		kind, subject := "goods_feedback_comment", "feedback"
		if b.stream == yandexmarket.GoodsQuestions {
			kind, subject = "goods_answer", "question"
		}
		for i, it := range r.items {
			if it.ID[1] != fmt.Sprint(500+i) || it.Kind != kind || it.ID[0] != kind || it.Subject[0] != subject || it.Subject[1] != fmt.Sprint(e.id) {
				t.Errorf("child %d is %+v", i, it)
			}
			if kind == "goods_answer" != it.Created.Equal(e.children[i].at) {
				t.Errorf("child %d: %s", i, it.Created)
			}
		}
		if p.History || p.Staged || string(p.Visited.Seen) == "" || p.Visited.Forget || p.Visited.Urgent {
			t.Errorf("%+v %+v", p, p.Visited)
		}

		// Those of another time, over several pages, of which a token dies.
		b.size, b.childDesc = 4, false
		for range 40 {
			k := child{id: int64(500 + len(e.children)), at: e.created.Add(time.Duration(len(e.children)) * time.Minute)}
			e.children = append(e.children, k)
		}
		b.life = 2
		r.planned(e).History = true
		r = b.reader(source, sources.Follow, news)
		p, _ = r.visit(fmt.Sprint(e.id))
		if !p.History {
			t.Error("a visit of history shows news")
		}
		for _, k := range e.children {
			if r.seen[fmt.Sprintf("%s/%d", kind, k.id)] == 0 {
				t.Errorf("child %d is lost", k.id)
			}
		}

		// Gone, and a path that does not exist any more.
		b.entries = nil
		if p, _ := r.visit(fmt.Sprint(e.id)); p.Visited.Due.IsZero() {
			t.Errorf("deleted: %+v", p)
		}
		for _, m := range []string{methodComments, methodAnswers} {
			if b.on[m] != nil {
				b.on[m] = func(call) (int, string) { return 404, failure("NOT_FOUND", "Resource not found") }
			}
		}
		v := *r.planned(e)
		r.query.Visit = &v
		if _, err := r.fetch(); sources.AsError(err).Kind != sources.Rejected {
			t.Errorf("a path that does not exist: %v", err)
		}
	})
}

// TestNextVisit: the older the less often, what has no comments once a day, what is
// beyond the window once, where the first reading found it, and then not at all; it is
// remembered as long as a list shows it.
func TestNextVisit(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		for _, tt := range []struct {
			stream string
			age    time.Duration
			found  string
			next   time.Duration // 0: forgotten
		}{
			{yandexmarket.GoodsQuestions, 0, `{}`, 15 * time.Minute},
			{yandexmarket.GoodsQuestions, 20 * time.Hour, `{}`, 15 * time.Minute},
			{yandexmarket.GoodsQuestions, 8 * hours24, `{"need":true}`, 2 * time.Hour},
			{yandexmarket.GoodsQuestions, 48 * hours24, `{}`, 12 * time.Hour},
			{yandexmarket.GoodsQuestions, 61 * hours24, `{}`, 0},
			{yandexmarket.GoodsFeedbacks, 8 * hours24, `{"comments":1}`, 2 * time.Hour},
			{yandexmarket.GoodsFeedbacks, 8 * hours24, `{"need":true}`, 2 * time.Hour},
			{yandexmarket.GoodsFeedbacks, 8 * hours24, `{}`, 2 * time.Hour},
			{yandexmarket.GoodsFeedbacks, 0, `{"comments":0}`, hours24},
			{yandexmarket.GoodsFeedbacks, 0, `{"comments":0,"need":true}`, hours24},
			{yandexmarket.GoodsFeedbacks, 61 * hours24, `{"comments":1}`, 123*hours24 + time.Second},
			{yandexmarket.GoodsFeedbacks, 185 * hours24, `{"comments":1}`, 0},
		} {
			b := newBoard(t, tt.stream)
			e := b.add(1, tt.age, 0)
			source := open(t, b)
			r := b.reader(source, sources.Follow, nil)
			r.visits.found(b.stream, []sources.Visit{{ID: fmt.Sprint(e.id), Created: e.created, Due: time.Now(), Found: json.RawMessage(tt.found)}})
			p, _ := r.visit(fmt.Sprint(e.id))
			if p.Visited.Forget != (tt.next == 0) || len(b.took()) != 1 {
				t.Errorf("%+v: %+v", tt, p.Visited)
			}
			if tt.next == 0 { // it was visited before: without a request
				r.visits.found(b.stream, []sources.Visit{{ID: fmt.Sprint(e.id), Created: e.created, Due: time.Now(), Found: json.RawMessage(tt.found), Seen: json.RawMessage(`{}`)}})
				r.planned(e).Seen = json.RawMessage(`{}`)
				if p, _ := r.visit(fmt.Sprint(e.id)); !p.Visited.Forget || len(b.took()) != 0 {
					t.Errorf("%+v, visited before: %+v", tt, p.Visited)
				}
			}
			if tt.next > 0 && !p.Visited.Due.Equal(time.Now().Add(tt.next)) {
				t.Errorf("%+v: next in %s", tt, time.Until(p.Visited.Due))
			}
		}
	}))
}

// ages are things of even ages, as the state counts them.
func ages(n int, within time.Duration) (counts []sources.VisitCount) {
	for i := range n {
		age := time.Duration((float64(i) + 0.5) / float64(n) * float64(within))
		step := 0
		for age > time.Hour<<step {
			step++
		}
		for len(counts) <= step {
			counts = append(counts, sources.VisitCount{Age: time.Hour << len(counts)})
		}
		counts[step].N++
	}
	return counts
}

// TestPlanFits: whatever there is to visit, what is planned takes no more than 80 % of
// the budget, and no less where that would make it later than it has to be.
func TestPlanFits(t *testing.T) {
	for _, tt := range []struct {
		stream string
		n      int
		within time.Duration
		calls  int
		words  string
	}{
		{yandexmarket.GoodsQuestions, 1000, 60 * hours24, 1000, "answers of 1000 questions: 342 of 999 requests an hour, each every 15m to 15h"},
		{yandexmarket.GoodsQuestions, 10_000, 60 * hours24, 1000, "answers of 10000 questions: 799 of 999 requests an hour, each every 1h4m to 64h18m"},
		{yandexmarket.GoodsFeedbacks, 10_000, 182 * hours24, 5000, "comments of 3297 reviews: 1130 of 4999 requests an hour, each every 15m to 15h"},
		{yandexmarket.GoodsFeedbacks, 100_000, 182 * hours24, 5000, "comments of 32967 reviews: 3999 of 4999 requests an hour, each every 42m to 42h22m"},
		{yandexmarket.GoodsQuestions, 0, hours24, 1000, ""},
	} {
		t.Run(fmt.Sprint(tt.stream, tt.n), func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) {
				b := newBoard(t, tt.stream)
				e := b.add(1, 0, 0)
				r := b.reader(open(t, b), sources.Follow, nil)
				r.query.Planned = func() ([]sources.VisitCount, error) { return ages(tt.n, tt.within), nil }
				at := func(age time.Duration) time.Duration {
					r.visits.found(b.stream, []sources.Visit{{ID: fmt.Sprint(e.id), Created: time.Now().Add(-age), Due: time.Now(), Found: json.RawMessage(`{"comments":1}`)}})
					p, _ := r.visit(fmt.Sprint(e.id))
					if p.Plan != tt.words {
						t.Fatalf("%q, expected %q", p.Plan, tt.words)
					}
					delete(r.visits[b.stream], fmt.Sprint(e.id))
					return time.Until(p.Visited.Due)
				}
				at(0)
				if tt.n == 0 {
					return
				}
				// What it comes to, thing by thing.
				const sample = 500
				within := min(tt.within, 60*hours24)
				demand := 0.0
				for i := range sample {
					age := time.Duration((float64(i) + 0.5) / sample * float64(within))
					demand += float64(time.Hour) / float64(at(age)) / sample * float64(tt.n) * float64(within) / float64(tt.within)
				}
				said := 0.0
				_, rest, _ := strings.Cut(tt.words, ": ")
				if _, err := fmt.Sscan(rest, &said); err != nil {
					t.Fatal(err)
				}
				if most := 0.85 * float64(tt.calls); demand > most || math.Abs(demand-said) > 0.1*said {
					t.Errorf("%.0f requests an hour, it says %.0f", demand, said)
				}
				t.Logf("%s: %.0f requests an hour; of an hour %s, a day %s, a week %s, a month %s late", tt.words, demand, at(time.Hour), at(hours24), at(7*hours24), at(30*hours24))
			}))
		})
	}
}

// TestFirstVisitIsRepeated where its answer has no result: who was visited once without comments
// shows those that are there already as new ones.
func TestFirstVisitIsRepeated(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		b := newBoard(t, yandexmarket.GoodsFeedbacks)
		e := b.add(1, 10*hours24, 0)
		e.children = []child{{id: 1}}
		source := open(t, b)
		news := b.reader(source, sources.News, nil)
		news.run()
		comments, asked := b.on[methodComments], 0
		b.on[methodComments] = func(c call) (int, string) {
			if asked++; asked == 1 || asked == 3 {
				return 0, `{"status":"OK","result":{}}`
			}
			return comments(c)
		}
		r := b.reader(source, sources.Follow, news)
		if _, pages := r.visit("1000"); pages != 2 || len(r.items) != 1 {
			t.Errorf("the first visit: %d pages, %d comments", pages, len(r.items))
		}
		if _, pages := r.visit("1000"); pages != 1 {
			t.Errorf("the next one: %d pages", pages)
		}
	}))
}
