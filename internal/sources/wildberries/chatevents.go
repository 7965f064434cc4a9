package wildberries

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
)

const pathEvents = "/api/v1/seller/events"

// eventsCursor is where chat_events continues. Times are Unix milliseconds of
// the marketplace's clock, as `next` is.
//
// The answers say neither whether `next` is exclusive nor how many events a page
// may hold. After a page with news the next request asks from one millisecond
// before its newest event, so that an exclusive API shows the rest of a
// millisecond that the page cut in two; once that brings nothing newer it asks
// from that event itself. A run with news ends when nothing newer comes, or when
// it has passed the moment at which it began: a busy feed never pauses.
type eventsCursor struct {
	V         int        `json:"v"`
	Newest    int64      `json:"newest,omitempty"`    // newest event committed; never moves back
	Back      int64      `json:"back,omitempty"`      // where to count the overlap back from, if before Newest
	Most      int        `json:"most,omitempty"`      // largest page seen: one with fewer was hardly cut off
	Inclusive bool       `json:"inclusive,omitempty"` // an event of the very millisecond asked for has been seen
	Tip       bool       `json:"tip,omitempty"`       // this run, or the next one, begins at the newest event
	Whole     int        `json:"whole,omitempty"`     // so many events are a whole overlap, though no page was larger,
	WholeAt   int64      `json:"whole_at,omitempty"`  // as was found out then
	Run       *eventsRun `json:"run,omitempty"`       // the run that is going on
}

// wholeFor is how long Whole is believed, in milliseconds: an event that came
// late into the newest millisecond of a page that is full for once is read then.
const wholeFor = 24 * 60 * 60 * 1000

// eventsRun is one run: a walk up to the present.
type eventsRun struct {
	Asked int64 `json:"asked"`           // when it began by our clock
	Began int64 `json:"began,omitempty"` // when it began by the marketplace's; 0: no page yet
	At    int64 `json:"at,omitempty"`    // when its last page was read, by the marketplace's
	News  bool  `json:"news,omitempty"`  // it has shown something newer than all before
	First int   `json:"first,omitempty"` // events on its first page, if that was all of the overlap
	Next  int64 `json:"next"`            // what to ask; 0: no `next`, from the oldest event on
	Seen  int64 `json:"seen"`            // newest event of this run
}

// begin starts a run. Runs take turns. One begins before the overlap and so sees
// what came late. The next asks from the newest event, and an empty page then
// proves that nothing is newer, however many events a page may hold.
func (c *eventsCursor) begin(now, since time.Time, overlap time.Duration) {
	c.Run = &eventsRun{Asked: now.UnixMilli()}
	base, floor := c.Newest, int64(0)
	if !since.IsZero() {
		floor = since.UnixMilli()
	}
	if c.Tip && base >= floor && base > 0 {
		c.Run.Next, c.Run.Seen = base, base
		if c.Inclusive {
			c.Run.Next++
		}
		return
	}
	c.Tip = false
	if c.Back > 0 {
		base = min(base, c.Back)
	}
	c.Back = 0
	if base = max(base, floor); base > 0 {
		next := max(base-max(overlap.Milliseconds(), 1), 1) // next=0 is refused
		c.Run.Next, c.Run.Seen = next, next
	}
}

// eventsPage is what one page showed. Times of events that have none, or one
// from the future, are left out.
type eventsPage struct {
	n              int
	oldest, newest int64 // 0: no event said when it was
	present        int64
	overlap        int64
}

// after takes in a page. It moves the run on, or ends it.
func (c *eventsCursor) after(p eventsPage) (done bool, note string) {
	r := c.Run
	known, before := c.Newest, r.At
	full := p.n >= c.Most && p.n > 1
	c.Most = min(max(c.Most, p.n), 10_000)
	c.Newest = max(c.Newest, p.newest)
	c.Inclusive = c.Inclusive || r.Next > 0 && p.oldest == r.Next
	r.At = p.present
	if r.Began == 0 {
		r.Began = p.present
	}
	switch {
	case p.newest == 0:
		done = true
		if p.n > 0 && full {
			note = fmt.Sprintf("none of %d chat events holds a time that can be, nor does `next`: what comes after them cannot be asked for", p.n)
		}
	case p.newest > r.Seen:
		c.countBack(r, known, before, p)
		r.News = r.News || p.newest > known
		if p.newest > known {
			c.Whole = 0
		} else if p.newest == known && before == 0 {
			r.First = p.n
			full = full && !(p.n == c.Whole && p.present < c.WholeAt+wholeFor)
		}
		r.Seen, r.Next = p.newest, max(r.Next, p.newest-1)
		// Up to what was known before, and not cut off; or beyond the moment at
		// which the run began, and so, as events come in order, all before it.
		done = p.newest == known && !full && !r.News || p.newest > r.Began
	case r.Next < r.Seen:
		// A full page of one millisecond: there may be more of it than a page shows.
		// Nobody can read the rest, but it must not stop the stream.
		if full && p.oldest == p.newest {
			note = fmt.Sprintf("%d chat events share the millisecond %d, as many as a page has ever held: if there are more of them, the API cannot show them", p.n, p.newest)
		}
		if done = !c.Tip && !r.News && !full; done {
			c.Whole, c.WholeAt = r.First, p.present
		}
		r.Next = r.Seen
	case r.Next == r.Seen:
		r.Next++ // it repeated what was asked from, so `next` is inclusive
	default:
		done, note = true, "the API repeats the same page of chat events whatever `next` says"
	}
	if done {
		c.Run = nil
		c.Tip = !c.Tip
	}
	return done, note
}

// countBack keeps Newest from running away from the overlap. What appears late
// is not older than the overlap, counted back from the newest event there was
// when the page above it was read. Where hours lie between two requests (a Base
// token has one an hour) Newest moves further than that with one page, so the
// next run counts from the newest event of the last page that had reached the
// present.
func (c *eventsCursor) countBack(r *eventsRun, known, before int64, p eventsPage) {
	last := r.Seen // newest event of the page before
	switch {
	case before == 0 && c.Tip:
		last = known
	case before == 0 || p.newest < before-p.overlap: // the first page, or history
		return
	}
	if c.Back == 0 || last < c.Back {
		c.Back = last
	}
}

func (c *Client) chatEvents(ctx context.Context, q sources.Query) (sources.Page, error) {
	cur := eventsCursor{V: 1}
	if err := decodeCursor(q.Stream, q.Cursor, &cur); err != nil {
		return sources.Page{}, err
	}
	if cur.Run == nil {
		cur.begin(q.Now, q.Since, q.Overlap)
	}
	params := url.Values{}
	if cur.Run.Next > 0 {
		params.Set("next", strconv.FormatInt(cur.Run.Next, 10))
	}
	api := c.groups[GroupChat]
	resp, err := api.Get(ctx, apiclient.Request{Stream: q.Stream, Path: pathEvents, Query: params})
	if err != nil {
		return sources.Page{}, err
	}
	answer, err := decodeAnswer(resp.Body)
	if err != nil {
		return sources.Page{}, api.Unreadable(pathEvents, err)
	}
	result := object(answer["result"])
	if result == nil {
		return sources.Page{}, api.Unreadable(pathEvents, fmt.Errorf("the answer has no result; errors: %.200s", answer["errors"]))
	}
	events, ok := result.list("events")
	_, there := result["events"]
	if total := result.whole("totalEvents"); !ok || events == nil && (total > 0 || !there && string(result["totalEvents"]) != "0") {
		// Nothing new looks otherwise: were the list renamed, taking this for it
		// would be silence for ever.
		return sources.Page{}, api.Unreadable(pathEvents, errors.New("the answer has no list of events"))
	}
	if len(events) == 0 && isError(answer["errors"]) {
		return sources.Page{}, api.Unreadable(pathEvents, fmt.Errorf("errors inside a 200: %.200s", answer["errors"]))
	}
	now := clock(q.Now, resp.Date)
	// The cursor never passes the present, or one event from the future would hide
	// all that come after it. The header Date is cut to the second.
	p := eventsPage{n: len(events), present: now.UnixMilli() + 999, overlap: q.Overlap.Milliseconds()}
	page := sources.Page{Began: time.UnixMilli(cur.Run.Asked), Date: resp.Date}
	page.Items, page.Undecodable = decodeAll(events, now, decodeEvent)
	for _, item := range page.Items {
		if item.Created.IsZero() {
			continue
		}
		if ms := item.Created.UnixMilli(); ms <= p.present {
			p.newest = max(p.newest, ms)
			if p.oldest == 0 || ms < p.oldest {
				p.oldest = ms
			}
		}
	}
	// Where no event says when it was, `next` is all there is.
	if next := result.whole("next"); p.newest == 0 && len(events) > 0 && next > 0 && next <= p.present {
		p.newest = next
	}
	sortByTime(page.Items)
	page.Done, page.Note = cur.after(p)
	page.Cursor, err = json.Marshal(cur)
	return page, err
}

// isError tells the `errors` of an answer from null and an empty list.
func isError(raw json.RawMessage) bool {
	s := string(bytes.TrimSpace(raw))
	return s != "" && s != "null" && s != "[]" && s != `""` && s != "{}" && s != "false"
}

// sortByTime puts items in the order in which they happened. One without a time
// stays behind the one that it came after.
func sortByTime(items []sources.Item) {
	type dated struct {
		at   time.Time
		item sources.Item
	}
	all := make([]dated, len(items))
	var last time.Time
	for i, it := range items {
		if !it.Created.IsZero() {
			last = it.Created
		}
		all[i] = dated{last, it}
	}
	slices.SortStableFunc(all, func(a, b dated) int { return a.at.Compare(b.at) })
	for i, d := range all {
		items[i] = d.item
	}
}

// decodeEvent reads one event. `addTimestamp` is its time on the server; old
// ones have only `addTime`, cut to the second.
func decodeEvent(raw json.RawMessage, now time.Time) (sources.Item, error) {
	body, f, err := decodeItem(raw)
	if err != nil {
		return sources.Item{}, err
	}
	chat, id := f.text("chatID"), f.text("eventID")
	if err := errors.Join(goodID("chatID", chat), goodID("eventID", id)); err != nil {
		return sources.Item{}, err
	}
	item := sources.Item{Kind: "chat_event", ID: []string{chat, id}, Subject: []string{"chat", chat}, Immutable: true, Body: body}
	if ms := f.whole("addTimestamp"); ms != 0 {
		item.Created = plausible(time.UnixMilli(ms).UTC(), now)
	}
	if item.Created.IsZero() {
		item.Created = plausible(f.instant("addTime"), now)
	}
	return item, nil
}
