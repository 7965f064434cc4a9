package wildberries

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
)

const pathQuestions = "/api/v1/questions"

const (
	questionsTake  = 1000   // a page; up to 2 MB
	questionsDepth = 10_000 // the most that one page can be: take + skip may not exceed it (documented)
	// leastCap is the smallest number of items to which a server is thought to cut
	// pages without a word, and wholeForSeconds how long it is believed not to once
	// that has been found out.
	leastCap        = 50
	wholeForSeconds = 600
)

// datedCursor is where a stream of two lists with a date filter continues. Times
// are Unix seconds of the marketplace's clock, as dateFrom and dateTo are.
//
// A run reads the list of the unanswered from the overlap to the present, then
// that of the answered: an item that is answered meanwhile moves ahead of the
// reading, not behind it. An item whose answer is withdrawn meanwhile moves the
// other way. The next run will see it, unless this one reads so much that the
// overlap of the next does not reach back to it: then the first list is read
// again.
//
// Within a list nothing is skipped over, since a list that loses one item while
// it is paged would hide another; it asks again from the time of the last one.
// From one second before it, since neither the ends of the filter nor the
// fractions of a second are documented.
type datedCursor struct {
	V       int       `json:"v"`
	Newest  int64     `json:"newest,omitempty"`   // up to here both lists have been read; never moves back
	Cap     int       `json:"cap,omitempty"`      // the server cuts pages to so many items, whatever is asked for
	Whole   int       `json:"whole,omitempty"`    // a page of so many was not cut,
	WholeAt int64     `json:"whole_at,omitempty"` // as was found out then
	Run     *datedRun `json:"run,omitempty"`      // the run that is going on
}

// datedRun is one run. It is kept with the pages, so that a run that was cut
// short goes on with the list and the floor that it had.
type datedRun struct {
	Asked     int64 `json:"asked"`               // when it began by our clock, Unix milliseconds
	Began     int64 `json:"began"`               // when it began by the marketplace's
	Newest    int64 `json:"newest,omitempty"`    // newest item of this run
	List      int   `json:"list,omitempty"`      // unanswered, answered, unanswered again
	Long      bool  `json:"long,omitempty"`      // a list took more than one request
	Floor     int64 `json:"floor,omitempty"`     // where each list begins; 0: at its oldest item
	From      int64 `json:"from,omitempty"`      // dateFrom of the next request
	To        int64 `json:"to,omitempty"`        // dateTo; 0: open
	Take      int   `json:"take,omitempty"`      // more than a page, for a second that holds more; 0: a page
	Unordered bool  `json:"unordered,omitempty"` // the order asked for is ignored
	Suspect   int   `json:"suspect,omitempty"`   // items of the last page, if that may have been cut
}

// The lists of a run, in the order in which they are read.
const (
	listUnanswered = iota
	listAnswered
	listAgain
)

func (c *datedCursor) begin(now, since time.Time, overlap time.Duration) {
	base := c.Newest
	if !since.IsZero() {
		base = max(base, since.Unix())
	}
	c.Run = &datedRun{Asked: now.UnixMilli()}
	if base > 0 {
		// One second more, should the filter be exclusive.
		c.Run.Floor = max(base-int64(overlap/time.Second)-1, 1)
		c.Run.From = c.Run.Floor
	}
}

func (r *datedRun) read(list int) {
	r.List, r.From, r.To, r.Take, r.Suspect = list, r.Floor, 0, 0, 0
}

// seen is what one page showed.
type seen struct {
	asked, got int
	newest     int64 // 0: no item said when it was
	oldest     int64
	ordered    bool // oldest first, as asked
	now        int64
	depth      int // the API's bound on take + skip
	overlap    int64
}

// after takes in a page. It moves the run on, or ends it.
func (c *datedCursor) after(p seen) (done bool, note string) {
	r := c.Run
	if r.Began == 0 {
		r.Began = p.now
	}
	r.Newest = max(r.Newest, p.newest)
	// A page of nothing but one second does not show what the order is. If no
	// larger one can be had, halving the window is right in every order.
	flat := p.oldest == p.newest
	r.Unordered = r.Unordered || !p.ordered || flat && p.got >= p.depth
	if r.Suspect > 0 { // this page begins where the suspect one ended
		if p.newest > r.From+1 {
			c.Cap = r.Suspect
		} else {
			c.Whole, c.WholeAt = r.Suspect, p.now
		}
		r.Suspect = 0
	}
	// A page with less than was asked for is the last one, unless the server cuts
	// pages. Whether it does shows in what follows such a page.
	full := p.got >= p.asked || c.Cap > 0 && p.got >= c.Cap
	if !full && !flat && !r.Unordered && r.To == 0 && p.newest-1 > r.From &&
		p.got >= leastCap && (p.got > c.Whole || p.now >= c.WholeAt+wholeForSeconds) {
		full, r.Suspect = true, p.got
	}
	end := false
	switch {
	case !full && r.To == 0:
		end = true
	case !full: // the closed window is read; go on behind it
		r.moveOn(p.now)
	case p.newest == 0 || p.newest < r.From-1:
		end, note = true, fmt.Sprintf("a page of %d items holds none of the time asked for (dateFrom=%d): what comes after them cannot be asked for", p.got, r.From)
	case r.Unordered && r.split(p.now):
		// The order was ignored: a full page says nothing about what it left
		// out, so the window is halved until a page is not full.
	case !r.Unordered && !flat && p.newest-1 > r.From:
		r.From, r.Take = p.newest-1, 0
	case p.asked < p.depth: // a second holds more than a page
		r.Take = min(4*p.asked, p.depth)
	default:
		note = fmt.Sprintf("more than %d items were created around %s: the API cannot show the rest of them", p.depth, time.Unix(p.newest, 0).UTC().Format(time.RFC3339))
		if r.To != 0 {
			r.moveOn(p.now)
		} else {
			r.From, r.Take = max(r.From+1, p.newest), 0
		}
	}
	r.Long = r.Long || !end && r.Suspect == 0
	switch {
	case !end:
	case r.List == listUnanswered:
		r.read(listAnswered)
	case r.List == listAnswered && (r.Long || r.Newest-r.Floor > 2*p.overlap+1):
		r.read(listAgain)
	default:
		// What was created after the run began may have been missed by the list
		// that was read first, however long a crash kept the two apart. The same
		// bound keeps an item from the future from hiding the rest.
		c.Newest = max(c.Newest, min(r.Newest, r.Began))
		c.Run, done = nil, true
	}
	return done, note
}

// narrowest is the narrowest window: should both ends be exclusive it still shows
// the second between them.
const narrowest = 2

// split halves the window; false: that would leave nothing in it.
func (r *datedRun) split(now int64) bool {
	from, to := max(r.From, oldest.Unix()), r.To
	if to == 0 {
		to = max(now, from) + 3600
	}
	if to-from <= narrowest {
		return false
	}
	r.To, r.Take = from+max((to-from)/2, narrowest), 0
	return true
}

// moveOn goes to the window behind the one that was read, twice as wide. It
// begins one second before the end of that, should dateTo be exclusive.
func (r *datedRun) moveOn(now int64) {
	width := r.To - max(r.From, oldest.Unix())
	r.From, r.Take = r.To-1, 0
	if r.To = r.From + max(2*width, narrowest); r.To > now {
		r.To = 0
	}
}

func (c *Client) questions(ctx context.Context, q sources.Query) (sources.Page, error) {
	cur := datedCursor{V: 1}
	if err := decodeCursor(q.Stream, q.Cursor, &cur); err != nil {
		return sources.Page{}, err
	}
	if cur.Run == nil {
		cur.begin(q.Now, q.Since, q.Overlap)
	}
	take := cmp.Or(cur.Run.Take, c.take)
	params := url.Values{
		"isAnswered": {strconv.FormatBool(cur.Run.List == listAnswered)},
		"take":       {strconv.Itoa(take)},
		"skip":       {"0"},
		"order":      {"dateAsc"},
	}
	if cur.Run.From > 0 {
		params.Set("dateFrom", strconv.FormatInt(cur.Run.From, 10))
	}
	if cur.Run.To > 0 {
		params.Set("dateTo", strconv.FormatInt(cur.Run.To, 10))
	}
	api := c.groups[GroupFeedbacks]
	resp, err := api.Get(ctx, apiclient.Request{Stream: q.Stream, Path: pathQuestions, Query: params})
	if err != nil {
		return sources.Page{}, err
	}
	answer, err := decodeAnswer(resp.Body)
	if err != nil {
		return sources.Page{}, api.Unreadable(pathQuestions, err)
	}
	data := object(answer["data"])
	if data == nil || string(answer["error"]) == "true" {
		return sources.Page{}, api.Unreadable(pathQuestions, fmt.Errorf("an error inside a 200, or no data: %s", answer.text("errorText")))
	}
	questions, ok := data.list("questions")
	if _, there := data["questions"]; !ok || !there {
		return sources.Page{}, api.Unreadable(pathQuestions, errors.New("the answer has no list of questions"))
	}
	now := clock(q.Now, resp.Date)
	page := sources.Page{Began: time.UnixMilli(cur.Run.Asked), Date: resp.Date}
	p := seen{asked: take, got: len(questions), ordered: true, now: now.Unix(), depth: c.depth, overlap: int64(q.Overlap / time.Second)}
	page.Items, page.Undecodable = decodeAll(questions, now, decodeQuestion)
	for _, item := range page.Items {
		if !item.Created.IsZero() {
			s := item.Created.Unix()
			p.ordered = p.ordered && s >= p.newest
			p.newest = max(p.newest, s)
			if p.oldest == 0 || s < p.oldest {
				p.oldest = s
			}
		}
	}
	sortByTime(page.Items)
	page.Done, page.Note = cur.after(p)
	page.Cursor, err = json.Marshal(cur)
	return page, err
}

// decodeQuestion reads one question. It has no change time of its own but that of
// its answer (`createDate`, where the question has `createdDate`).
func decodeQuestion(raw json.RawMessage, now time.Time) (sources.Item, error) {
	body, f, err := decodeItem(raw)
	if err != nil {
		return sources.Item{}, err
	}
	id := f.text("id")
	if err := goodID("id", id); err != nil {
		return sources.Item{}, err
	}
	return sources.Item{
		Kind: "question", ID: []string{id}, Subject: []string{"question", id}, Body: body,
		Created: plausible(f.instant("createdDate"), now), Changed: plausible(object(f["answer"]).instant("createDate"), now),
	}, nil
}
