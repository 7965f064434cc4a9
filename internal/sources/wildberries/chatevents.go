package wildberries

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
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
	At        int64      `json:"at,omitempty"`        // when the last page was read, by the marketplace's clock
	Back      int64      `json:"back,omitempty"`      // where to count the overlap back from, if before Newest
	Most      int        `json:"most,omitempty"`      // largest page seen: one with fewer was hardly cut off
	Inclusive bool       `json:"inclusive,omitempty"` // an event of the very millisecond asked for has been seen
	Tip       bool       `json:"tip,omitempty"`       // this run, or the next one, begins at the newest event
	Cut       bool       `json:"cut,omitempty"`       // the newest millisecond may have more events than the last run has shown
	Whole     int        `json:"whole,omitempty"`     // so many events are a whole overlap, though no page was larger,
	WholeAt   int64      `json:"whole_at,omitempty"`  // as was found out then
	Floor     int64      `json:"floor,omitempty"`     // nothing is asked for from before it: the operator has stepped over that
	Run       *eventsRun `json:"run,omitempty"`       // the run that is going on
}

// wholeFor is how long Whole is believed, in milliseconds: an event that came
// late into the newest millisecond of a page that is full for once is read then.
const wholeFor = 24 * 60 * 60 * 1000

// behindLeast is how far a page without events has to lead on, in milliseconds, so that
// no `next` makes a loop.
const behindLeast = 1000

// eventsRun is one run: a walk up to the present.
type eventsRun struct {
	Asked int64 `json:"asked"`           // when it began by our clock
	Began int64 `json:"began,omitempty"` // when it began by the marketplace's; 0: no page yet
	Pages int   `json:"pages,omitempty"` // read so far
	News  bool  `json:"news,omitempty"`  // it has shown something newer than all before
	First int   `json:"first,omitempty"` // events on its first page, if that was all of the overlap
	Next  int64 `json:"next"`            // what to ask; 0: no `next`, from the oldest event on
	Seen  int64 `json:"seen"`            // newest event of this run
	From  int64 `json:"from,omitempty"`  // oldest event of its first page that had any
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
		switch {
		case c.Cut:
			c.Run.Next--
		case c.Inclusive:
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
		next := max(base-max(overlap.Milliseconds(), 1), c.Floor, 1) // next=0 is refused
		c.Run.Next, c.Run.Seen = next, next
	}
}

// eventsPage is what one page showed. Times of events that have none, or one
// from the future, are left out.
type eventsPage struct {
	n              int
	oldest, newest int64 // 0: no event said when it was
	behind         int64 // of a page without events: its `next`, if that is further on and still before the overlap
	present        int64
	overlap        int64
	slow           bool // the next request comes later than the overlap is long
}

// full says that a page holds as many events as any before it, so that there are
// probably more.
func (c *eventsCursor) full(p eventsPage) bool { return p.n >= c.Most && p.n > 1 }

// after takes in a page. It moves the run on, or ends it.
func (c *eventsCursor) after(p eventsPage) (done bool, note string) {
	r := c.Run
	known, before := c.Newest, c.At
	full := c.full(p)
	c.Most = min(max(c.Most, p.n), 10_000)
	c.Newest = max(c.Newest, p.newest)
	c.Inclusive = c.Inclusive || r.Next > 0 && p.oldest == r.Next
	c.At = p.present
	r.Pages++
	if r.Began == 0 {
		r.Began = p.present
	}
	if r.From == 0 {
		r.From = p.oldest
	}
	switch {
	case p.behind >= r.Next+behindLeast:
		r.Next, r.Seen = p.behind, max(r.Seen, p.behind)
	case p.newest == 0:
		done = true
		if p.n > 0 && full {
			note = fmt.Sprintf("none of %d chat events holds a time that can be, nor does `next`: what comes after them cannot be asked for", p.n)
		}
	case p.newest > r.Seen:
		c.countBack(r, known, before, p.overlap)
		r.News = r.News || p.newest > known
		if p.newest > known {
			c.Whole = 0
		} else if p.newest == known && r.Pages == 1 {
			r.First = p.n
			full = full && !(p.n == c.Whole && p.present < c.WholeAt+wholeFor)
		}
		asked := r.Next
		r.Seen, r.Next = p.newest, max(asked, p.newest-1)
		// Up to what was known before, and not cut off; or beyond the moment at
		// which the run began, and so, as events come in order, all before it.
		done = p.newest == known && !full && !r.News || p.newest > r.Began
		if p.slow && p.newest >= p.present-p.overlap {
			// By the time of the next request events may have come late, and to read
			// this page again for them would cost an hour: the next one shows them.
			r.Next = max(asked, p.newest-p.overlap)
		}
	case r.Next < r.Seen-1: // the overlap before it, and nothing behind
		r.Next = r.Seen - 1
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
		// It may have ended beyond its beginning with a page that was cut off.
		c.Cut = full && p.newest == c.Newest
		// There is no tip to look at where the present has not been reached.
		c.Tip = !c.Tip && (p.newest == 0 || !full || p.newest >= p.present-p.overlap)
	}
	return done, note
}

// countBack keeps Newest from running away from the overlap. What appears late
// does so within the overlap, so a page shows all there will ever be of what is
// older than that when it is read. Where the page before this one had come nearer
// to its present, and this one asked for what is behind it, something may have
// appeared between: the next run counts from there.
func (c *eventsCursor) countBack(r *eventsRun, known, before, overlap int64) {
	last := r.Seen // newest event of the page before
	switch {
	case r.Pages == 1 && c.Tip:
		last = known
	case r.Pages == 1, last < before-overlap, r.Next <= last-overlap: // it began before the overlap; history; it shows the overlap again
		return
	}
	if c.Back == 0 || last < c.Back {
		c.Back = last
	}
}

var eventsEndpoint = endpoint{
	group: GroupChat, path: pathEvents, list: []string{"result", "events"}, decode: decodeEvent,
	// Nothing new looks like that: null, or no list and a zero. Anything else that
	// has no list is one that was renamed, and would be silence for ever.
	nullable: func(m listing.Fields, null bool) bool {
		if null {
			return m.Whole("result.totalEvents") <= 0
		}
		return string(m["result.totalEvents"]) == "0"
	},
}

// eventsFrom is the cursor of the page that q asks for, with a run going on.
//
// A backfill is a walk like that for news, with a cursor of its own: from
// Query.Since, or the oldest event, up to the moment at which it began. It has no
// overlap, for nothing was read before it.
func eventsFrom(q sources.Query) (eventsCursor, error) {
	cur := eventsCursor{V: 1}
	if err := sources.DecodeCursor(q.Stream, q.Cursor, &cur, cur.sound); err != nil {
		return cur, err
	}
	if cur.Run == nil {
		overlap := q.Overlap
		if q.Walk == sources.Backfill {
			overlap = 0
		}
		cur.begin(q.Now, q.Since, overlap)
	}
	return cur, nil
}

func (c *Client) chatEvents(ctx context.Context, q sources.Query) (sources.Page, error) {
	cur, err := eventsFrom(q)
	if err != nil {
		return sources.Page{}, err
	}
	params := url.Values{}
	if cur.Run.Next > 0 {
		params.Set("next", strconv.FormatInt(cur.Run.Next, 10))
	}
	l, err := c.list(ctx, q, eventsEndpoint, params)
	if err != nil {
		return sources.Page{}, err
	}
	// The cursor never passes the present, or one event from the future would hide
	// all that come after it. The header Date is cut to the second.
	p := eventsPage{n: l.N, present: l.Now.UnixMilli() + 999, overlap: q.Overlap.Milliseconds(),
		slow: c.tokens[GroupChat].Interval(GroupChat) > q.Overlap}
	page := sources.Page{Items: l.Items, Undecodable: l.Odd, Began: time.UnixMilli(cur.Run.Asked), Date: l.Date}
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
	if next := l.Members.Whole("result.next"); p.newest == 0 && l.N > 0 && next > 0 && next <= p.present {
		p.newest = next
	}
	// There may be more behind events that are there and not shown any more, those of a
	// type that was removed. Close to the present nothing would be gained by asking.
	if next := l.Members.Whole("result.next"); l.N == 0 && next > listing.Oldest.UnixMilli() && next < p.present-p.overlap {
		p.behind = next
	}
	sortByTime(page.Items)
	run, full, known := cur.Run, cur.full(p), cur.Newest
	page.Done, page.Note = cur.after(p)
	page.Progress = run.progress()
	if page.Done {
		page.Progress = 1
	}
	// Within the overlap, which was read before, a full page says nothing.
	if full && p.newest > known && p.newest < p.present-p.overlap {
		page.Reached = time.UnixMilli(p.newest).UTC()
	}
	page.Cursor, err = json.Marshal(cur)
	return page, err
}

// progress is how far the run has come from its first event to the moment at
// which it began, behind which it ends; 0 while it has shown none.
func (r *eventsRun) progress() float64 {
	if r.From == 0 || r.From >= r.Began {
		return 0
	}
	return min(max(float64(r.Seen-r.From)/float64(r.Began-r.From), 0), 1)
}

// eventsStep is what Skip steps over: the API finds events by their time alone,
// and a page that it cannot send has to be left behind by that.
const eventsStep = time.Minute

// skipEvents steps over a minute of events. Later runs stay behind it, the overlap
// notwithstanding: it would lead them to the same page.
func skipEvents(q sources.Query) (sources.Cursor, string, error) {
	cur, err := eventsFrom(q)
	if err != nil {
		return nil, "", err
	}
	r := cur.Run
	if r.Next == 0 {
		return nil, "", errors.New("the walk has not begun: it asks for the oldest event, and nobody knows when that was; a `start` that is a time makes it begin there")
	}
	from := time.UnixMilli(r.Next).UTC()
	to := from.Add(eventsStep)
	if to.After(q.Now) {
		return nil, "", fmt.Errorf("the next request asks for events from %s on, which is less than %s ago: there is nothing to step over yet", from.Format(time.RFC3339Nano), eventsStep)
	}
	ms := to.UnixMilli()
	r.Next, r.Seen = ms, max(r.Seen, ms)
	cur.Newest, cur.Floor, cur.Back = max(cur.Newest, ms), max(cur.Floor, ms), 0
	next, err := json.Marshal(cur)
	return next, fmt.Sprintf("chat events after %s and up to %s", from.Format(time.RFC3339Nano), to.Format(time.RFC3339Nano)), err
}

// sortByTime puts items in the order in which they happened. One without a time
// stays behind the one that it came after.
func sortByTime(items []sources.Item) {
	sortBy(items, func(it sources.Item) time.Time { return it.Created })
}

// sortByChange does so where items say only when they changed.
func sortByChange(items []sources.Item) {
	sortBy(items, func(it sources.Item) time.Time { return it.Changed })
}

func sortBy(items []sources.Item, when func(sources.Item) time.Time) {
	type dated struct {
		at   time.Time
		item sources.Item
	}
	all := make([]dated, len(items))
	var last time.Time
	for i, it := range items {
		if at := when(it); !at.IsZero() {
			last = at
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
	body, f, err := listing.Decode(raw)
	if err != nil {
		return sources.Item{}, err
	}
	chat, id := f.Text("chatID"), f.Text("eventID")
	if err := errors.Join(listing.CheckID("chatID", chat), listing.CheckID("eventID", id)); err != nil {
		return sources.Item{}, err
	}
	item := sources.Item{Kind: "chat_event", ID: []string{chat, id}, Subject: []string{"chat", chat}, Immutable: true, Body: body}
	if ms := f.Whole("addTimestamp"); ms != 0 {
		item.Created = listing.Plausible(time.UnixMilli(ms).UTC(), now)
	}
	if item.Created.IsZero() {
		item.Created = listing.Plausible(f.Instant("addTime"), now)
	}
	if string(f["isNewChat"]) == "true" {
		item.Wakes = Chats
	}
	return item, nil
}
