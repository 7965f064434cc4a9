package wildberries

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

// dated is a stream of two lists with a date filter, the unanswered and the
// answered, between which items move: questions and feedbacks.
type dated struct {
	name    string // of its items, for people
	lists   endpoint
	count   string    // path of the method that counts them
	archive *endpoint // a third list, without a date filter; nil: none
	take    int       // entries of a page, at most
	skip    int       // entries that can be skipped, at most
	depth   int       // of both together
	leaf    int       // items of a part of the census, about
	leaves  int       // parts of a new census, at most
}

// reaches says whether a page can begin there.
func (d *dated) reaches(skip int) bool { return d.deeper(skip) >= 0 }

// deeper is by how many entries more a page can begin than there.
func (d *dated) deeper(skip int) int { return min(d.skip, d.depth-1) - skip }

// datedCursor is where a walk of such a stream continues. Times are Unix seconds of
// the marketplace's clock, as dateFrom and dateTo are.
//
// A run reads one list from its beginning to the end, and then the other: an item
// that moves from the first to the second meanwhile moves ahead of the reading, not
// behind it. One that moves the other way is in neither. The next run will see it,
// unless this one reads so much that the next does not reach back to it: then the
// first list is read again. The first list is that of the unanswered, to which
// hardly anything moves back, but for a long run where it is much the longer one.
// After the lists comes the archive, into which items move from either. A run of the
// news goes on with it for a minute at most, and does without it where it fails: the
// lists never wait for it.
type datedCursor struct {
	V       int         `json:"v"`
	Newest  int64       `json:"newest,omitempty"` // News: up to here both lists have been read; never moves back
	Since   int64       `json:"since,omitempty"`  // News, Backfill: Query.Since as it was when the reading began; 0: the oldest item
	habits              // of the lists
	Archive habits      `json:"archive,omitzero"`
	History bool        `json:"history,omitempty"` // News: the archive has been read
	Past    *archiveRun `json:"past,omitempty"`    // News: how far it has been, by runs that are over
	Fails   int         `json:"fails,omitempty"`   // News: how often in a row it could not be,
	Retry   int64       `json:"retry,omitempty"`   // and when it is asked for again
	Between *span       `json:"between,omitempty"` // News: the list that is read while the other one fails
	Gap     bool        `json:"gap,omitempty"`     // it has been said that the archive does not show everything
	Wide    int64       `json:"wide,omitempty"`    // News: when the last run began that was wide; 0: none was
	Holes   []hole      `json:"holes,omitempty"`
	Run     *datedRun   `json:"run,omitempty"` // the run that is going on
}

// datedRun is one run. It is kept with the pages, so that a run that was cut
// short goes on with the list and the floor that it had.
type datedRun struct {
	Asked    int64       `json:"asked"`              // when it began by our clock, Unix milliseconds
	Began    int64       `json:"began,omitempty"`    // when it began by the marketplace's; 0: no page yet
	Oldest   int64       `json:"oldest,omitempty"`   // oldest item of this run
	Newest   int64       `json:"newest,omitempty"`   // newest item of this run
	Pass     int         `json:"list,omitempty"`     // what is being read
	Answered bool        `json:"answered,omitempty"` // the list that is read first, and again at the end, is that of the answered
	Twice    bool        `json:"twice,omitempty"`    // the first list is read again
	Floor    int64       `json:"floor,omitempty"`    // where each list begins; 0: at its oldest item
	Wide     int64       `json:"wide,omitempty"`     // News: by so many seconds that is before where it would be as a rule
	Last     *archiveRun `json:"archive,omitempty"`  // the reading of the archive, which comes last; nil: it is not read
	LastAt   int64       `json:"last_at,omitempty"`  // when it began in this run, by the marketplace's clock
	span
}

// What a run reads, in this order.
const (
	passFirst = iota
	passSecond
	passAgain
	passArchive
)

// begin starts a run.
func (c *datedCursor) begin(q sources.Query, d *dated, earliest, latest time.Time) {
	r := &datedRun{Asked: q.Now.UnixMilli()}
	since := second(q.Since)
	end, kept := int64(0), int64(math.MaxInt64)
	archive := d.archive != nil
	switch q.Walk {
	case sources.Full:
		// One second more at either end, should the filter be exclusive.
		r.Floor, end = max(earliest.Add(-q.Window).Unix()-1, 1), latest.Unix()+1
	case sources.Backfill:
		c.Since, r.Twice, end = since, true, latest.Unix()+1
		if since > 0 {
			r.Floor = max(since-1, 1)
		}
	default:
		if c.Newest == 0 {
			c.Since = since
		}
		if base := max(c.Newest, since); base > 0 {
			r.Floor = max(base-int64(q.Overlap/time.Second)-1, 1)
		}
		if kept = max(c.Newest-wideOverlaps*int64(q.Overlap/time.Second)-1, 1); c.Newest > 0 && c.wideDue(latest) {
			// What is older than Since need not be shown.
			wide := max(kept, min(since-int64(q.Overlap/time.Second)-1, r.Floor))
			r.Floor, r.Wide = wide, r.Floor-wide
		}
	}
	switch {
	case !archive || q.Walk == sources.News && (c.History || latest.Unix() < c.Retry && c.Retry <= latest.Unix()+archiveRetryMost):
	case q.Walk == sources.News && c.Past != nil:
		r.Last, c.Past = c.Past, nil
	case q.Walk == sources.News && c.Since > 0:
		r.Last = newArchiveRun(max(c.Since-int64(q.Overlap/time.Second)-1, 1), latest)
	case q.Walk == sources.News:
		r.Last = newArchiveRun(0, latest)
	default:
		r.Last = newArchiveRun(r.Floor, latest)
	}
	// What a hole keeps out is not asked for below the floor anyway, nor by a wide run.
	var holes []hole
	for _, h := range c.Holes {
		if h.To > min(r.Floor, kept) {
			holes = append(holes, h)
		}
	}
	c.Holes, c.Run = holes, r
	r.span = newSpan(r.Floor, end, c.holes())
}

// Items appear in the index hours late: others lost reviews with an overlap of 1 h, and
// went over to 3 h with two longer readings a day. So now and then a run of the news is
// wide. One of these shows whatever is late by wideOverlaps overlaps less wideEvery, 12 h
// by default, and what is later than that perhaps.
const (
	wideEvery    = int64(12 * time.Hour / time.Second)
	wideOverlaps = 8
)

// wideDue says whether the next run of the news is a wide one. One too many costs bytes
// and hardly a request, so it is in doubt: where the cursor of the last one was not
// saved, or a clock was wrong.
func (c *datedCursor) wideDue(latest time.Time) bool {
	ago := latest.Unix() - c.Wide
	return ago >= wideEvery || ago <= -wideEvery
}

// second is a time as the cursor has it; 0: none.
func second(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(t.Unix(), 1)
}

// answered says which list is being read.
func (r *datedRun) answered() bool { return r.Answered != (r.Pass == passSecond) }

// holes are those of the list that is being read.
func (c *datedCursor) holes() []hole { return holesOf(c.Holes, c.Run.answered()) }

func holesOf(all []hole, answered bool) []hole {
	var holes []hole
	for _, h := range all {
		if h.Answered == answered {
			holes = append(holes, h)
		}
	}
	return holes
}

// heal ends the holes of a list that are open: p is the first page behind them,
// before the reading moves on. It returns what to tell about them.
func (s *span) heal(holes []hole, answered bool, p seen, d *dated) (note string) {
	for i := range holes {
		h := &holes[i]
		if h.To > 0 || h.Answered != answered {
			continue
		}
		switch {
		case p.oldest > 0:
			h.To = p.oldest + 1
		case s.To > 0:
			h.To = s.To - 1 // as the window behind this one begins
		default:
			h.To = p.now + 1
		}
		h.To = max(h.To, h.From+1)
		note = fmt.Sprintf("what was stepped over lies among the %s created between %s and %s: they are not read again", d.list(answered), date(h.From), date(h.To))
	}
	return note
}

// list names a list for people.
func (d *dated) list(answered bool) string {
	if answered {
		return "answered " + d.name
	}
	return "unanswered " + d.name
}

// after takes in a page of one of the lists. It moves the run on, or ends it.
// unanswered and answered are how many of them the seller has, as the page says.
func (c *datedCursor) after(q sources.Query, d *dated, p seen, unanswered, answered int64) (done bool, note string) {
	r := c.Run
	first := r.Began == 0
	if first {
		r.Began = p.now
	}
	r.Newest = max(r.Newest, p.newest)
	if r.Oldest == 0 || p.oldest > 0 && p.oldest < r.Oldest {
		r.Oldest = p.oldest
	}
	healed := r.span.heal(c.Holes, r.answered(), p, d)
	end, note := r.span.after(&c.habits, p, d, c.holes())
	if note == "" {
		note = healed
	}
	// What a wide run reads once more was read before.
	long := !end && r.Suspect == 0 && (r.Wide == 0 || p.oldest >= r.Floor+r.Wide)
	if first && long && unanswered > answered+2*int64(p.asked) {
		// The list that is read twice should be the shorter one. Nothing but the
		// number of requests depends on what the page says.
		r.Answered = true
		end = false
		r.span = newSpan(r.Floor, r.End, c.holes())
	}
	r.Twice = r.Twice || long
	if end {
		if done = c.next(q); r.Pass == passArchive {
			r.LastAt = p.now
		}
	}
	return done, note
}

// next goes on to what the run reads next, or ends it.
func (c *datedCursor) next(q sources.Query) (done bool) {
	r := c.Run
	overlap := int64(q.Overlap / time.Second)
	switch {
	case r.Pass == passFirst:
		r.Pass = passSecond
	case r.Pass == passSecond && (r.Twice || q.Walk == sources.News && r.Newest-r.Floor-r.Wide > 2*overlap+1):
		r.Pass = passAgain
		r.span = newSpan(r.Floor+r.Wide, r.End, c.holes())
		return false
	case r.Pass < passArchive && r.Last != nil:
		r.Pass = passArchive
		return false
	default:
		if q.Walk == sources.News {
			// What was created after the run began may have been missed by the list
			// that was read first, however long a crash kept the two apart. The same
			// bound keeps an item from the future from hiding the rest.
			if c.Newest == 0 || r.Wide > 0 {
				c.Wide = r.Began
			}
			c.Newest = max(c.Newest, min(r.Newest, r.Began))
		}
		c.Run = nil
		return true
	}
	r.span = newSpan(r.Floor, r.End, c.holes())
	return false
}

// progress is the part of the run that has been read, of one that is not over. The
// lists count alike.
func (r *datedRun) progress(now int64) float64 {
	start, end := r.Floor, r.End
	if start == 0 {
		start = r.Oldest
	}
	if end == 0 {
		end = now
	}
	passes, read := 3.0, 0.0
	if r.Last != nil {
		passes++
	}
	at := r.From - start
	if r.Pass == passArchive {
		if at = 0; r.Last.Edge > 0 {
			at = end - r.Last.Edge
		}
	}
	if end > start {
		read = min(max(float64(at)/float64(end-start), 0), 1)
	}
	return min(max((float64(r.Pass)+read)/passes, 0.001), 0.999)
}

// datedFrom is the cursor of the page that q asks for, with a run going on.
func (c *Client) datedFrom(q sources.Query, d *dated) (datedCursor, error) {
	cur := datedCursor{V: 1}
	if err := sources.DecodeCursor(q.Stream, q.Cursor, &cur, func() bool { return cur.sound(d) }); err != nil {
		return cur, err
	}
	if q.Walk != sources.Full && cur.Since > 0 && second(q.Since) < cur.Since {
		// What is asked for goes further back than what has been read.
		cur.Newest, cur.History, cur.Run = 0, false, nil
		cur.Past, cur.Fails, cur.Retry, cur.Between = nil, 0, 0, nil
	}
	if cur.Run == nil {
		earliest, latest := c.present(q.Now)
		cur.begin(q, d, earliest, latest)
	}
	return cur, nil
}

// readDated fetches the next page of News, Full or Backfill.
func (c *Client) readDated(ctx context.Context, q sources.Query, d *dated) (sources.Page, error) {
	cur, err := c.datedFrom(q, d)
	if err != nil {
		return sources.Page{}, err
	}
	r := cur.Run
	page := sources.Page{Began: time.UnixMilli(r.Asked)}
	if c.between(q, &cur) {
		return c.readBetween(ctx, q, d, &cur, page)
	}
	if r.Pass == passArchive {
		if page, err = c.lastPage(ctx, q, d, &cur, page); err != nil {
			return sources.Page{}, err
		}
	} else {
		l, p, err := c.listPage(ctx, q, d, r.answered(), &r.span)
		if err != nil {
			return sources.Page{}, err
		}
		page.Items, page.Undecodable, page.Date = l.Items, l.Odd, l.Date
		page.Done, page.Note = cur.after(q, d, p, l.Members.Whole("data.countUnanswered"), l.Members.Whole("data.countArchive"))
		page.Progress = r.progress(p.now)
		// Up to Newest all has been read before: the overlap is no backlog.
		if q.Walk == sources.News && r.Twice && r.Pass == passSecond && r.From > cur.Newest && !page.Done {
			page.Reached = time.Unix(r.From, 0).UTC()
		}
	}
	if page.Done {
		page.Progress = 1
	}
	page.Cursor, err = json.Marshal(cur)
	return page, err
}

// listPage asks for the next page of one of the two lists.
func (c *Client) listPage(ctx context.Context, q sources.Query, d *dated, answered bool, s *span) (listing.Listing, seen, error) {
	return c.listPageOf(ctx, q, d, answered, s, sizeKey(q))
}

// listPageOf is listPage with a page size of its own.
func (c *Client) listPageOf(ctx context.Context, q sources.Query, d *dated, answered bool, s *span, key string) (listing.Listing, seen, error) {
	take := c.sizes.limit(key, min(d.take, d.depth-s.Skip))
	params := url.Values{
		"isAnswered": {strconv.FormatBool(answered)},
		"take":       {strconv.Itoa(take)},
		"skip":       {strconv.Itoa(s.Skip)},
		"order":      {"dateAsc"},
	}
	if s.From > 0 {
		params.Set("dateFrom", strconv.FormatInt(s.From, 10))
	}
	if s.To > 0 {
		params.Set("dateTo", strconv.FormatInt(s.To, 10))
	}
	l, p, err := c.datedPage(ctx, q, d.lists, params, take)
	c.sizes.asked(key, take, err)
	return l, p, err
}

// datedPage sends a request for take entries, and says what its page showed. The
// items come back in the order in which they happened.
func (c *Client) datedPage(ctx context.Context, q sources.Query, e endpoint, params url.Values, take int) (listing.Listing, seen, error) {
	l, err := c.list(ctx, q, e, params)
	if err != nil {
		return listing.Listing{}, seen{}, err
	}
	c.heard(l.Date)
	p := look(l, take)
	sortByTime(l.Items)
	return l, p, nil
}

// heard takes note of the marketplace's clock.
func (c *Client) heard(date time.Time) {
	if !date.IsZero() {
		c.skew.Store(int64(time.Until(date)))
	}
}

// present is between when and when it is now: by our clock and by the marketplace's,
// as it was heard last. Either may be wrong.
func (c *Client) present(now time.Time) (earliest, latest time.Time) {
	const noise = 5 * time.Second // the header Date is cut to the second, and takes its time
	earliest, latest = now, now
	switch skew := time.Duration(c.skew.Load()); {
	case skew < -noise:
		earliest = now.Add(skew)
	case skew > noise:
		latest = now.Add(skew)
	}
	return earliest, latest
}
