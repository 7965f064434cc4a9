package sandbox

import (
	"encoding/json"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"syncd/internal/sandbox/kit"
)

// Texts of feedbacks-api's errors about feedbacks, from the OpenAPI document's examples.
const (
	errNoFeedback = "Невозможно получить отзыв по id"
	errArchive    = "Не удалось получить архивные отзывы по фильтру"
)

// Limits of take and skip in the lists of feedbacks. That of the archive's skip is not documented and taken to be the same.
const (
	maxFeedbackTake = 5_000
	maxFeedbackSkip = 199_990
)

// paging are the parameters that both lists of feedbacks have.
type paging struct {
	take, skip, nmID int
	ascending        bool
}

// paging reads them; a refusal is the answer.
func (c *call) paging(errTooDeep string) (p paging, refusal *answer) {
	refuse := func(status int, text string) (paging, *answer) {
		a := c.sandbox.envelopeError(status, text)
		return p, &a
	}
	var err error
	if p.take, err = strconv.Atoi(c.query.Get("take")); err != nil || p.take < 1 || p.take > maxFeedbackTake {
		return refuse(http.StatusBadRequest, errText)
	}
	if p.skip, err = strconv.Atoi(c.query.Get("skip")); err != nil || p.skip < 0 || p.skip > maxFeedbackSkip {
		return refuse(http.StatusBadRequest, errText)
	}
	if most := c.quirks.FeedbackSkipCap; most > 0 && p.skip > most {
		if c.quirks.FeedbackSkipStatus == http.StatusUnprocessableEntity {
			return refuse(http.StatusUnprocessableEntity, errTooDeep)
		}
		return refuse(http.StatusBadRequest, errText)
	}
	order := c.query.Get("order")
	if order != "" && order != "dateAsc" && order != "dateDesc" {
		return refuse(http.StatusBadRequest, errText)
	}
	p.ascending = order == "dateAsc" && !c.quirks.FeedbackOrderIgnored
	if text := c.query.Get("nmId"); text != "" {
		if p.nmID, err = strconv.Atoi(text); err != nil {
			return refuse(http.StatusBadRequest, errText)
		}
	}
	if cut := c.quirks.FeedbackPageCut; cut > 0 {
		p.take = min(p.take, cut)
	}
	return p, nil
}

// serveFeedbacks answers GET /api/v1/feedbacks.
func serveFeedbacks(c *call) answer {
	processed, valid := boolean(c.query.Get("isAnswered"))
	if !valid {
		return c.bad(errIsAnswered)
	}
	p, refusal := c.paging(errText)
	if refusal != nil {
		return *refusal
	}
	span, refused := c.window()
	if refused != "" {
		return c.bad(refused)
	}
	c.world.lock(c.now)
	f := c.world.feedbacks
	items := f.page(f.listed(processed, c.now, c.quirks.OldUnanswered).within(span), p, c.noise())
	// The counts are the account's, not the window's [INF].
	unanswered, archive := f.listed(false, c.now, c.quirks.OldUnanswered).len(), f.listed(true, c.now, c.quirks.OldUnanswered).len()
	c.world.mu.Unlock()

	head := `{"data":{"countUnanswered":` + strconv.Itoa(unanswered) + `,"countArchive":` + strconv.Itoa(archive) + `,"feedbacks":[`
	return feedbackList(head, items)
}

// serveArchive answers GET /api/v1/feedbacks/archive, which knows no dates and no counts.
func serveArchive(c *call) answer {
	p, refusal := c.paging(errArchive)
	if refusal != nil {
		return *refusal
	}
	c.world.lock(c.now)
	items := c.world.feedbacks.page(c.world.feedbacks.archive(c.now), p, c.noise())
	c.world.mu.Unlock()
	return feedbackList(`{"data":{"feedbacks":[`, items)
}

func feedbackList(head string, items [][]byte) answer {
	tail := `]},"error":false,"errorText":"","additionalErrors":null}`
	return answer{Status: http.StatusOK, ContentType: typeJSON, Body: kit.List([]byte(head), items, []byte(tail))}
}

// noise is what changes the links of an answer, if they are to change.
func (c *call) noise() uint64 {
	if !c.quirks.PhotoNoise {
		return 0
	}
	return uint64(c.now.UnixNano())
}

// selection is feedbacks to be merged by creation: both parts are in that order.
type selection [2][]*feedback

func (s selection) len() int { return len(s[0]) + len(s[1]) }

// within keeps those created in a window.
func (s selection) within(w window) selection {
	for i, l := range s {
		from, to := feedbacksBefore(l, w.from), feedbacksBefore(l, w.to)
		s[i] = l[from:max(from, to)]
	}
	return s
}

// feedbacksBefore counts those created before a moment.
func feedbacksBefore(l []*feedback, at int64) int {
	i, _ := slices.BinarySearchFunc(l, at, func(n *feedback, at int64) int {
		if n.created < at {
			return -1
		}
		return 1
	})
	return i
}

// take removes the next one from the selection.
func (s *selection) take(ascending bool) *feedback {
	a, b := &s[0], &s[1]
	if ascending {
		if len(*a) == 0 || len(*b) > 0 && compareFeedbacks((*b)[0], (*a)[0]) < 0 {
			a = b
		}
		n := (*a)[0]
		*a = (*a)[1:]
		return n
	}
	if len(*a) == 0 || len(*b) > 0 && compareFeedbacks((*b)[len(*b)-1], (*a)[len(*a)-1]) > 0 {
		a = b
	}
	n := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return n
}

// skip drops the next n, quickly where there is nothing to merge.
func (s *selection) skip(n int, ascending bool) {
	for ; n > 0 && len(s[0]) > 0 && len(s[1]) > 0; n-- {
		s.take(ascending)
	}
	for i, l := range s {
		cut := min(n, len(l))
		if ascending {
			s[i] = l[cut:]
		} else {
			s[i] = l[:len(l)-cut]
		}
		n -= cut
	}
}

// old splits the list of unprocessed ones: those that have waited for 30 days for an answer, and the others.
func (f *feedbackWorld) old(now time.Time) (old, fresh []*feedback) {
	l := f.lists[listOpen]
	i := feedbacksBefore(l, now.Add(-archiveAfter).UnixNano())
	return l[:i], l[i:]
}

// listed is one of the two lists, as the quirk sees those that nobody answered for 30 days.
func (f *feedbackWorld) listed(processed bool, now time.Time, q OldUnanswered) selection {
	old, fresh := f.old(now)
	switch {
	case processed && q == OldUnansweredMove:
		return selection{f.lists[listProcessed], old}
	case processed:
		return selection{f.lists[listProcessed], nil}
	case q == OldUnansweredStay:
		return selection{f.lists[listOpen], nil}
	}
	return selection{fresh, nil}
}

func (f *feedbackWorld) archive(now time.Time) selection {
	old, _ := f.old(now)
	return selection{f.lists[listProcessed], old}
}

// page renders one page of a selection.
func (f *feedbackWorld) page(s selection, p paging, noise uint64) [][]byte {
	if p.nmID == 0 {
		s.skip(p.skip, p.ascending)
		p.skip = 0
	}
	items := make([][]byte, 0, min(p.take, s.len()))
	for s.len() > 0 && len(items) < p.take {
		n := s.take(p.ascending)
		if p.nmID != 0 && n.goods.nmID != p.nmID {
			continue
		}
		if p.skip > 0 {
			p.skip--
			continue
		}
		items = append(items, f.render(n, noise))
	}
	return items
}

// serveFeedback answers GET /api/v1/feedback. As with questions it finds what the lists do not show yet, and an unknown id
// is 422.
func serveFeedback(c *call) answer {
	c.world.lock(c.now)
	var item []byte
	if n := c.world.feedbacks.byID[c.query.Get("id")]; n != nil && !n.deleted {
		item = c.world.feedbacks.render(n, c.noise())
	}
	c.world.mu.Unlock()
	if item == nil {
		return c.sandbox.envelopeError(http.StatusUnprocessableEntity, errNoFeedback)
	}
	return ok(json.RawMessage(item))
}

// serveFeedbackCount answers GET /api/v1/feedbacks/count. isAnswered is required: newer documents say so (2026-08-19).
func serveFeedbackCount(c *call) answer {
	processed, valid := boolean(c.query.Get("isAnswered"))
	if !valid {
		return c.bad(errIsAnswered)
	}
	span, refused := c.window()
	if refused != "" {
		return c.bad(refused)
	}
	c.world.lock(c.now)
	n := c.world.feedbacks.listed(processed, c.now, c.quirks.OldUnanswered).within(span).len()
	c.world.mu.Unlock()
	return ok(n)
}

// serveOpenFeedbackCount answers GET /api/v1/feedbacks/count-unanswered. That "today" is Moscow's day is a guess.
func serveOpenFeedbackCount(c *call) answer {
	var data struct {
		All   int `json:"countUnanswered"`
		Today int `json:"countUnansweredToday"`
	}
	c.world.lock(c.now)
	open := c.world.feedbacks.listed(false, c.now, c.quirks.OldUnanswered)
	data.All, data.Today = open.len(), open.within(window{midnight(c.now), math.MaxInt64}).len()
	c.world.mu.Unlock()
	return ok(data)
}

// midnight is when Moscow's day began.
func midnight(now time.Time) int64 {
	year, month, day := now.In(moscow).Date()
	return time.Date(year, month, day, 0, 0, 0, 0, moscow).UnixNano()
}
