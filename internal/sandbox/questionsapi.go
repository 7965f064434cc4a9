package sandbox

import (
	"encoding/json"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"syncd/internal/sandbox/kit"
)

// Texts of feedbacks-api's errors, from the OpenAPI document's examples.
const (
	errText       = "Something went wrong"
	errIsAnswered = "Плохой формат isAnswered"
	errDateFrom   = "Плохой формат dateFrom"
	errDateTo     = "Плохой формат dateTo"
	errNoQuestion = "Невозможно получить вопрос по id"
	errNotFound   = "Не найден отзыв" // the document's words for questions too
	errNoEdit     = "Не удалось отредактировать вопрос"
)

// maxTake bounds take, skip and their sum.
const maxTake = 10_000

func ok(data any) answer {
	return kit.JSON(http.StatusOK, typeJSON, envelope{Data: data})
}

func (c *call) bad(text string) answer { return c.sandbox.envelopeError(http.StatusBadRequest, text) }

// window is dateFrom/dateTo as the half-open range of creation times [from, to) in nanoseconds.
type window struct{ from, to int64 }

// window reads dateFrom and dateTo; a non-empty errText refuses them. An empty dateFrom is allowed by the document
// (allowEmptyValue), an empty dateTo is not.
func (c *call) window() (w window, errText string) {
	w = window{from: math.MinInt64, to: math.MaxInt64}
	if text := c.query.Get("dateFrom"); text != "" {
		s, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return w, errDateFrom
		}
		w.from = nanoseconds(s)
		switch {
		case c.quirks.FromExclusive && c.quirks.WholeSeconds:
			w.from = nanoseconds(s + 1)
		case c.quirks.FromExclusive:
			w.from++
		}
	}
	if c.query.Has("dateTo") {
		s, err := strconv.ParseInt(c.query.Get("dateTo"), 10, 64)
		if err != nil {
			return w, errDateTo
		}
		w.to = nanoseconds(s)
		switch {
		case c.quirks.ToExclusive:
		case c.quirks.WholeSeconds:
			w.to = nanoseconds(s + 1)
		default:
			w.to++
		}
	}
	return w, ""
}

// nanoseconds converts Unix seconds, and keeps absurd ones at the ends of what fits, with room for one step beyond.
func nanoseconds(s int64) int64 {
	const most = math.MaxInt64/int64(time.Second) - 1
	return max(-most, min(most, s)) * int64(time.Second)
}

// boolean reads a bool as JSON writes it.
func boolean(text string) (value, ok bool) { return text == "true", text == "true" || text == "false" }

// serveQuestions answers GET /api/v1/questions.
func serveQuestions(c *call) answer {
	answered, valid := boolean(c.query.Get("isAnswered"))
	if !valid {
		return c.bad(errIsAnswered)
	}
	take, err := strconv.Atoi(c.query.Get("take"))
	if err != nil || take < 1 || take > maxTake {
		return c.bad(errText)
	}
	skip, err := strconv.Atoi(c.query.Get("skip"))
	if err != nil || skip < 0 || skip > maxTake || take+skip > maxTake {
		return c.bad(errText)
	}
	if cut := c.quirks.QuestionPageCut; cut > 0 {
		take = min(take, cut)
	}
	order := c.query.Get("order")
	if order != "" && order != "dateAsc" && order != "dateDesc" {
		return c.bad(errText)
	}
	nmID := 0
	if text := c.query.Get("nmId"); text != "" {
		if nmID, err = strconv.Atoi(text); err != nil {
			return c.bad(errText)
		}
	}
	span, refused := c.window()
	if refused != "" {
		return c.bad(refused)
	}

	c.world.lock(c.now)
	q := c.world.questions
	items := q.page(answered, span, nmID, order == "dateAsc", skip, take)
	// The counts are the account's, not the window's [INF].
	unanswered, archive := len(q.lists[0]), len(q.lists[1])
	c.world.mu.Unlock()

	head := `{"data":{"countUnanswered":` + strconv.Itoa(unanswered) + `,"countArchive":` + strconv.Itoa(archive) + `,"questions":[`
	tail := `]},"error":false,"errorText":"","additionalErrors":null}`
	return answer{Status: http.StatusOK, ContentType: typeJSON, Body: kit.List([]byte(head), items, []byte(tail))}
}

// page returns rendered questions: those of one list, a window and an article, ordered, without the first skip of them.
func (q *questionWorld) page(answered bool, w window, nmID int, ascending bool, skip, take int) [][]byte {
	l := q.span(listOf(answered), w.from, w.to)
	items := make([][]byte, 0, min(take, max(0, len(l)-skip)))
	for i := range l {
		n := l[i]
		if !ascending {
			n = l[len(l)-1-i]
		}
		if nmID != 0 && n.product.nmID != nmID {
			continue
		}
		if skip > 0 {
			skip--
			continue
		}
		if len(items) == take {
			break
		}
		items = append(items, n.render)
	}
	return items
}

func listOf(answered bool) int {
	if answered {
		return 1
	}
	return 0
}

// serveQuestion answers GET /api/v1/question. It finds questions that the lists do not show yet: a guess. An unknown id is
// 422, not 404.
func serveQuestion(c *call) answer {
	c.world.lock(c.now)
	var item []byte
	if n := c.world.questions.byID[c.query.Get("id")]; n != nil {
		item = n.render
	}
	c.world.mu.Unlock()
	if item == nil {
		return c.sandbox.envelopeError(http.StatusUnprocessableEntity, errNoQuestion)
	}
	return ok(json.RawMessage(item))
}

// serveQuestionCount answers GET /api/v1/questions/count. isAnswered defaults to true here.
func serveQuestionCount(c *call) answer {
	answered := true
	if text := c.query.Get("isAnswered"); text != "" {
		var valid bool
		if answered, valid = boolean(text); !valid {
			return c.bad(errIsAnswered)
		}
	}
	span, refused := c.window()
	if refused != "" {
		return c.bad(refused)
	}
	c.world.lock(c.now)
	n := len(c.world.questions.span(listOf(answered), span.from, span.to))
	c.world.mu.Unlock()
	return ok(n)
}

// serveUnansweredCount answers GET /api/v1/questions/count-unanswered. That "today" is Moscow's day is a guess.
func serveUnansweredCount(c *call) answer {
	var data struct {
		All   int `json:"countUnanswered"`
		Today int `json:"countUnansweredToday"`
	}
	c.world.lock(c.now)
	data.All = len(c.world.questions.lists[0])
	data.Today = len(c.world.questions.span(0, midnight(c.now), math.MaxInt64))
	c.world.mu.Unlock()
	return ok(data)
}

// serveNews answers GET /api/v1/new-feedbacks-questions: whether something has not been viewed.
func serveNews(c *call) answer {
	var data struct {
		Questions bool `json:"hasNewQuestions"`
		Feedbacks bool `json:"hasNewFeedbacks"`
	}
	c.world.lock(c.now)
	data.Questions = c.world.questions.unviewed > 0
	data.Feedbacks = c.world.feedbacks.unviewed > 0
	c.world.mu.Unlock()
	return ok(data)
}

// maxPatchBody is far above any answer's length, which is not documented for questions.
const maxPatchBody = 1 << 20

// patchBody is the body of PATCH /api/v1/questions: {id, wasViewed} or {id, answer, state}.
type patchBody struct {
	ID        string `json:"id"`
	WasViewed *bool  `json:"wasViewed"`
	Answer    *struct {
		Text string `json:"text"`
	} `json:"answer"`
	State string `json:"state"`
}

// valid says whether it is one of the two and not both.
func (b patchBody) valid() bool {
	if b.ID == "" {
		return false
	}
	if b.WasViewed != nil {
		return b.Answer == nil && b.State == ""
	}
	return b.Answer != nil && b.Answer.Text != "" && slices.Contains([]string{stateAnswered, stateRejected}, b.State)
}

// servePatchQuestion answers PATCH /api/v1/questions. An answer or a rejection moves the question to the list of answered
// ones; that a rejected one goes there too is a guess.
func servePatchQuestion(c *call) answer {
	text, err := io.ReadAll(http.MaxBytesReader(nil, c.r.Body, maxPatchBody))
	if err != nil {
		return c.bad(errText)
	}
	var body patchBody
	if json.Unmarshal(text, &body) != nil || !body.valid() {
		return c.bad(errText)
	}
	c.world.lock(c.now)
	status, refused := c.world.questions.patch(body, c.now.UnixNano())
	c.world.mu.Unlock()
	if refused != "" {
		return c.sandbox.envelopeError(status, refused)
	}
	return ok(nil)
}

// patch applies a valid body, or says why not.
func (q *questionWorld) patch(body patchBody, now int64) (status int, refused string) {
	n := q.byID[body.ID]
	switch {
	case n == nil:
		return http.StatusNotFound, errNotFound
	case body.WasViewed != nil:
		q.setViewed(n, *body.WasViewed)
	case n.answer == nil:
		q.answer(n, body.Answer.Text, body.State, now)
	case !q.edit(n, body.Answer.Text, body.State, now):
		return http.StatusUnprocessableEntity, errNoEdit
	}
	return http.StatusOK, ""
}
