package yandexmarket_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/yandexmarket"
)

// TestAnsweredReviews: a review of any age that waited for the seller and does not any more
// is shown by the next sweep, with a visit of its comments at once, in whatever state the
// memory of the sweep is, and though others were deleted.
func TestAnsweredReviews(t *testing.T) {
	for _, strict := range []bool{false, true} {
		for _, size := range []int{7, 50} {
			t.Run(fmt.Sprint(strict, size), func(t *testing.T) {
				synctest.Test(t, bubble(func(t *testing.T) { answeredReviews(t, strict, size) }))
			})
		}
	}
}

func answeredReviews(t *testing.T, strict bool, size int) {
	b := newBoard(t, yandexmarket.GoodsFeedbacks)
	b.strict, b.size = strict, size
	b.add(160, 150*hours24, 20*time.Hour)
	for _, e := range b.entries {
		e.need = true
	}
	source := open(t, b)
	news := b.reader(source, sources.News, nil)
	news.run()
	sweep := b.reader(source, sources.Sweep, news)
	sweep.run()
	answer := func(i int) *entry {
		e := b.entries[i]
		e.need, e.children = false, append(e.children, child{id: int64(90_000 + i)})
		return e
	}
	// next makes a sweep and says which reviews it must show.
	next := func(what string, want ...*entry) {
		t.Helper()
		time.Sleep(15 * time.Minute)
		for _, v := range news.visits[b.stream] {
			v.Due, v.Urgent = time.Now().Add(hours24), false
		}
		clear(sweep.seen)
		sweep.run()
		b.must(what, sweep, want...)
		for _, e := range want {
			if v := news.planned(e); v == nil || !v.Urgent || v.Due.After(time.Now()) {
				t.Errorf("%s: the visit of %d is %+v", what, e.id, v)
			}
		}
	}
	next("an old one", answer(2))
	b.took()
	next("nothing")
	for _, c := range b.took() {
		if c.body["feedbackIds"] != nil {
			t.Errorf("asked without a need: %s", c)
		}
	}
	var many []*entry
	for i := 10; i < 120; i++ {
		many = append(many, answer(i))
	}
	for i := 120; i < 140; i++ {
		b.entries[i].published = time.Now().Add(1e6 * time.Hour) // deleted
	}
	before := sweep.cursor
	next("many", many...)
	sweep.cursor = before // of a process that was killed
	next("an old cursor")
	b.must("an old cursor", sweep, many...)
	sweep.cursor = nil
	next("no cursor")

	// A list that cannot be read, or ids that cannot be asked for, leave it to the next sweep.
	trouble := true
	b.lacking(func(call) bool { return trouble })
	e := answer(141)
	next("no list")
	list := b.on[methodFeedbacks]
	trouble = false
	b.on[methodFeedbacks] = func(c call) (int, string) {
		if c.body["feedbackIds"] != nil {
			return 500, failure("INTERNAL", "")
		}
		return list(c)
	}
	next("no ids")
	b.on[methodFeedbacks] = list
	next("afterwards", e)
	if len(sweep.notes) < 2 {
		t.Errorf("notes %q", sweep.notes)
	}
}
