package yandexmarket

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

// dated is a stream of a list with a filter by dates, whose entries have children
// that are asked for one parent at a time: reviews and their comments, questions and
// their answers.
type dated struct {
	name     string // of its items, for people
	kind     string // of its items
	subject  string // kind of the subject of items and children
	list     method
	items    entries
	children children
	// span is the widest window that is asked for, first that of the one which ends now.
	span, first time.Duration
	// step is by how much a window reaches into the one behind it, and slack how far
	// the first and the last one reach beyond what they have to show.
	step, slack time.Duration
	// filter is the body of a request for a window, of Sweep or of the others; from and
	// to are Unix seconds, 0: none.
	filter func(from, to int64, sweep bool) any
	// shown is how old a parent can be that lists show all the same, if that is more than
	// Query.Window.
	shown time.Duration
	// published: the order is that of publication, which comes any time after creation,
	// and a page token is good for ever. See latecomers.
	published bool
	// shows is what an entry tells of its children; nil: nothing.
	shows func(q sources.Query, body json.RawMessage) json.RawMessage
	// byID is the member of a request that asks for entries by their ids, alone; empty:
	// see waited.
	byID string
	// silent says by what was shown that there are no children, as it seems.
	silent func(found json.RawMessage) bool
}

const day = 24 * time.Hour

// emptyFor is how long nothing must have happened where history is read to its
// beginning (contract §5).
const emptyFor = 365 * day

// datedCursor is where a walk of such a list continues. Times are Unix seconds of
// the marketplace's clock.
//
// A run reads windows of the list, each to its last page, from the newest to the
// oldest, for nothing is known of the order within: what is late in News's overlap, or
// was moved out of sight by a page that shifted, is shown by the next run, for each
// reads its window whole. Where no other run follows, windows of several pages are
// read twice. A crash costs the page that was not saved.
type datedCursor struct {
	V       int         `json:"v"`
	Newest  int64       `json:"newest,omitempty"`  // News: up to here all has been read; 0: no run is complete yet
	Wide    int64       `json:"wide,omitempty"`    // News: when the last run began that read the whole Query.Window
	Late    *latecomers `json:"late,omitempty"`    // News, of reviews
	Past    *unread     `json:"past,omitempty"`    // News: what the first reading has not read
	Waiting []int64     `json:"waiting,omitempty"` // Sweep: those that waited for an answer; sorted, at most waitingMost
	Run     *datedRun   `json:"run,omitempty"`     // the run that is going on
}

// datedRun is one run.
type datedRun struct {
	Asked   int64 `json:"asked"`             // when it began by our clock, Unix milliseconds
	Began   int64 `json:"began,omitempty"`   // by the marketplace's; 0: no page yet
	Newest  int64 `json:"newest,omitempty"`  // creation of the newest item
	Floor   int64 `json:"floor,omitempty"`   // where the last window begins; 0: see emptyFor, or where From is 0 as well, there is one
	From    int64 `json:"from,omitempty"`    // the window
	To      int64 `json:"to,omitempty"`      // 0: open
	Wide    bool  `json:"wide,omitempty"`    // News: the run reads all of Query.Window
	Twice   bool  `json:"twice,omitempty"`   // windows of several pages are read twice,
	Again   bool  `json:"again,omitempty"`   // which is done just now
	Late    bool  `json:"late,omitempty"`    // behind the windows: the latecomers are asked for
	Over    bool  `json:"over,omitempty"`    // there is no other window
	Partial bool  `json:"partial,omitempty"` // something could not be read
	Empty   int64 `json:"empty,omitempty"`   // for how long nothing has happened, up to the window

	Any    bool  `json:"any,omitempty"`    // the window has entries
	Latest int64 `json:"latest,omitempty"` // creation of its newest item
	Trend  int   `json:"trend,omitempty"`  // of its pages
	careful

	Queue []string `json:"queue,omitempty"` // Backfill: the parents whose children are read before the next page
	Child careful  `json:"child,omitzero"`  // of the first of them

	Past   bool     `json:"past,omitempty"`   // behind the windows and the latecomers: those that are unread
	Others []window `json:"others,omitempty"` // of which these come behind the window
	Lacks  int64    `json:"lacks,omitempty"`  // Backfill: since when answers have had no list, in a row

	Left []int64 `json:"left,omitempty"` // Sweep: of Waiting, those that the run has not shown
	Now  []int64 `json:"now,omitempty"`  // and those that it has shown, for the next run
	Ask  int     `json:"ask,omitempty"`  // behind the list: so many of Left are asked for at once
}

func (c *datedCursor) sound(d *dated) bool {
	return datable(c.Newest, c.Wide) && c.Late.sound() && c.Past.sound(d) && idsSound(c.Waiting) && (c.Run == nil || c.Run.sound(c, d))
}

func (r *datedRun) sound(c *datedCursor, d *dated) bool {
	return sources.Times(r.Asked) && datable(r.Began, r.Newest, r.Floor, r.From, r.Empty, r.Latest) && sources.Counts(max(r.Trend, -r.Trend)) &&
		r.Floor <= r.From && (r.To == 0 || r.From < r.To && r.To-r.From <= seconds(d.span+d.step)) && r.careful.sound() && r.Child.sound() &&
		len(r.Queue) <= queueMost && !slices.ContainsFunc(r.Queue, func(id string) bool { return !askable(id) }) &&
		(!r.Late || c.Late != nil) && (!r.Over || len(r.Queue) > 0) && (!r.Past || c.Past != nil && r.To > 0) && windowsSound(r.Others, d) && datable(r.Lacks) &&
		idsSound(r.Left) && idsSound(r.Now) && (r.Ask == 0 || d.byID != "" && r.Ask > 0 && r.Ask <= askMost && len(r.Left) > 0)
}

// datable says whether these can be times of a request, in seconds.
func datable(all ...int64) bool {
	return !slices.ContainsFunc(all, func(t int64) bool { return t < 0 || t > 1<<33 })
}

// careful is a scan that asks once more for a page that came without a list, which an
// empty one may do (OpenAPI document: `result` is not required), and a marketplace in
// trouble does. What it leads to may not be read a second time.
type careful struct {
	scan
	Doubt bool `json:"doubt,omitempty"` // that is what has been done
}

func (s *careful) after(m method, l listing.Listing) (done bool, note string) {
	if s.Doubt = !s.Doubt && (!l.There || l.Null); s.Doubt {
		return false, ""
	}
	return s.scan.after(m, l)
}

// queueMost bounds the parents whose children wait for the end of their list.
const queueMost = 2000

// begin starts a run.
func (c *datedCursor) begin(q sources.Query, d *dated) {
	r := &datedRun{Asked: q.Now.UnixMilli()}
	c.Run = r
	now := max(q.Now.Unix(), listing.Oldest.Add(day).Unix())
	back := func(t int64, by time.Duration) int64 { return max(t-seconds(by), 1) }
	window := back(now, windowOf(q)+d.slack)
	switch q.Walk {
	case sources.Sweep:
		r.Left, c.Waiting = c.Waiting, nil
		if d.published {
			return // the API's own window, which is the widest
		}
		r.Floor = window
	case sources.Full:
		r.Floor = window
	case sources.Backfill:
		r.Twice = true
		if !q.Since.IsZero() {
			r.Floor = back(q.Since.Unix(), d.slack)
		}
	default:
		if c.Late.expired(now) {
			c.Late = nil
		}
		switch first := c.Newest == 0; {
		case !first && (!d.published || c.Late != nil || c.Wide <= now && now < c.Wide+seconds(day)):
			r.Floor = back(c.Newest, q.Overlap+d.slack)
		case first && q.Since.IsZero():
			c.Past = nil
			r.Wide, r.Twice = true, true
		case first:
			// What is older than Since is read for its record: an edit soon after the start
			// is a change then.
			c.Past = nil
			r.Wide, r.Twice = true, true
			r.Floor = min(back(q.Since.Unix(), q.Overlap+d.slack), window)
		default:
			r.Wide, r.Floor = true, min(back(c.Newest, q.Overlap+d.slack), window)
		}
	}
	r.Floor = min(r.Floor, now-1)
	r.From = max(r.Floor, now-seconds(d.first), listing.Oldest.Unix())
	if !d.published {
		r.To = now + seconds(d.slack)
	}
}

// longest is how long the time may be that is asked for up to now: the API refuses more
// than six months, and clocks differ.
const longest = 175 * day

// stale says whether a run that an earlier process began long ago cannot go on, since
// the time from the begin of its open window to now has become too long to ask for.
func (r *datedRun) stale(now time.Time) bool {
	return r.To == 0 && r.From > 0 && len(r.Queue) == 0 && !r.Late && now.Unix() > r.From+seconds(longest)
}

// next goes on to the window before, or ends the run.
func (r *datedRun) next(d *dated) (note string) {
	if r.Empty += seconds(d.span); r.Any {
		r.Empty = 0
	}
	switch {
	case r.Past:
		r.other()
	case r.From <= max(r.Floor, listing.Oldest.Unix()), r.Floor == 0 && r.Empty >= seconds(emptyFor):
		r.Over = true
	case r.To > 0 && r.Latest > r.To+seconds(2*day) && r.Latest == r.Newest:
		r.Over = true
		note = fmt.Sprintf("%s does not obey the dates asked for: all that it shows is read as one", d.list.path)
	default:
		r.To = r.From + seconds(d.step)
		r.From = max(r.Floor, r.From-seconds(d.span), listing.Oldest.Unix())
	}
	r.Again, r.careful = false, careful{Doubt: r.Past}
	r.restart()
	return note
}

// restart forgets what was made of the window's pages.
func (r *datedRun) restart() { r.Any, r.Latest, r.Trend = false, 0, 0 }

// after takes in a page of a window. It moves the run on, or ends it. last says that
// the page is not read a second time.
func (c *datedCursor) after(d *dated, l listing.Listing) (last bool, note string) {
	r := c.Run
	r.look(l)
	latest := newest(l)
	r.Any = r.Any || l.N > 0
	r.Latest = max(r.Latest, latest)
	asked := r.Token
	end, note := r.careful.after(d.list, l)
	r.Partial = r.Partial || note != ""
	last = !r.Twice || r.Again || end && r.Pages == 1
	switch {
	case !end:
		return last, note
	case !last:
		r.restart()
		r.Again, r.careful = true, careful{}
		return last, note
	}
	if r.Wide && r.To == 0 && d.published {
		c.Wide = r.Began
		if c.Late = nil; note == "" {
			c.Late = lateFrom(r.From, r.Trend, asked, latest)
		}
	}
	c.prove(l, d)
	if said := r.next(d); said != "" {
		note = said
	}
	if c.Past != nil && r.first() && r.Over && r.Floor == 0 {
		c.Past.End = r.From
	}
	return last, note
}

// look takes note of what a page shows of times, in the order of its entries.
func (r *datedRun) look(l listing.Listing) {
	if r.Began == 0 {
		r.Began = max(behind(time.UnixMilli(r.Asked), l.Date).Unix(), 1) // the other one may be ahead, and would make a gap
	}
	r.Newest = max(r.Newest, newest(l))
	if r.Pages == 0 {
		r.Trend = 0
	}
	r.Trend += trend(l.Items)
}

// end ends the run.
func (c *datedCursor) end(q sources.Query) {
	r := c.Run
	if q.Walk == sources.News {
		// What was created after the run began may have been missed. The same bound keeps
		// an item from the future from hiding the rest; the other one keeps a run from
		// becoming long where nothing has happened for years.
		c.Newest = max(c.Newest, min(r.Newest, r.Began), r.Began-seconds(windowOf(q)), 1)
		if c.Past != nil && len(c.Past.Windows) == 0 {
			c.Past = nil
		}
	}
	c.Run = nil
}

// readDated fetches the next page of News, Sweep, Full or Backfill.
func (c *Client) readDated(ctx context.Context, q sources.Query, d *dated) (sources.Page, error) {
	cur := datedCursor{V: 1}
	if err := sources.DecodeCursor(q.Stream, q.Cursor, &cur, func() bool { return cur.sound(d) }); err != nil {
		return sources.Page{}, err
	}
	first := q.Walk == sources.News && cur.Newest == 0
	if cur.Run == nil || cur.Run.stale(q.Now) {
		cur.begin(q, d)
	}
	r := cur.Run
	page := sources.Page{Began: time.UnixMilli(r.Asked), History: r.Past}
	first = first || r.Past
	listed := r.Ask == 0
	var err error
	switch {
	// The list first, as long as it is to go on: its page token may not live for long.
	case len(r.Queue) > 0 && (r.Token == "" || len(r.Queue) > queueMost-getFeedbacks.most):
		err = c.queued(ctx, q, d, r, &page)
	case !listed:
		err = c.readGone(ctx, q, d, &cur, &page)
	case r.Late:
		err = c.readLate(ctx, q, d, &cur, &page)
	default:
		err = c.readWindow(ctx, q, d, &cur, &page)
	}
	if err != nil {
		return sources.Page{}, err
	}
	if q.Walk != sources.Backfill {
		if err := d.find(q, &page, first); err != nil {
			return sources.Page{}, err
		}
	}
	if q.Walk == sources.Sweep && listed {
		if err := cur.waited(q, d, &page); err != nil {
			return sources.Page{}, err
		}
	}
	if r.Over && len(r.Queue) == 0 {
		switch {
		case q.Walk == sources.News && cur.Late != nil && !r.Wide && !r.Late && !r.Past:
			r.Over, r.Late, r.careful = false, true, careful{scan: scan{Token: cur.Late.Token}}
		case q.Walk == sources.News && !r.Past && cur.Past.due(q.Now):
			cur.readPast(q.Now)
		default:
			page.Done, page.Partial, page.Progress = true, r.Partial, 1
		}
	}
	if page.Done {
		cur.end(q)
	} else {
		page.Progress = r.progress()
	}
	page.Cursor, err = json.Marshal(cur)
	return page, err
}

// readWindow fetches the next page of the window.
func (c *Client) readWindow(ctx context.Context, q sources.Query, d *dated, cur *datedCursor, page *sources.Page) error {
	r := cur.Run
	l, err := c.page(ctx, q, d.list, 0, d.items, nil, d.filter(r.From, r.To, q.Walk == sources.Sweep), r.Token)
	if err != nil {
		if r.careful.again(err) {
			return nil
		}
		return err
	}
	if q.Walk == sources.Backfill {
		if err := r.lacks(d.list, q.Now, l); err != nil {
			return err
		}
	}
	var last bool
	last, page.Note = cur.after(d, l)
	byCreation(l.Items)
	page.Items, page.Undecodable, page.Date = l.Items, l.Odd, l.Date
	if q.Walk == sources.Backfill && last {
		for _, it := range l.Items {
			// Children have no time of their own, so it is their parent's that counts.
			if id := it.ID[len(it.ID)-1]; askable(id) && len(r.Queue) < queueMost && (it.Created.IsZero() || !it.Created.Before(q.Since)) {
				r.Queue = append(r.Queue, id)
			}
		}
	}
	return nil
}

// progress is the part of the run that has been read, of one that is not over.
func (r *datedRun) progress() float64 {
	top := r.Asked / 1000
	if r.Floor == 0 || r.Floor >= top || r.To == 0 {
		return 0
	}
	return min(max(float64(top-r.To)/float64(top-r.Floor), 0.001), 0.999)
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// windowOf is the time in which changes are looked for.
func windowOf(q sources.Query) time.Duration { return cmp.Or(q.Window, 60*day) }

// newest is the creation of the newest item; 0: none has a time.
func newest(l listing.Listing) (t int64) {
	for _, it := range l.Items {
		if !it.Created.IsZero() {
			t = max(t, it.Created.Unix())
		}
	}
	return t
}

// byCreation puts items in the order in which they happened.
func byCreation(items []sources.Item) {
	slices.SortStableFunc(items, func(a, b sources.Item) int { return a.Created.Compare(b.Created) })
}

// askable says whether an id can name a parent in a request, where it is a number.
func askable(id string) bool {
	n, err := strconv.ParseInt(id, 10, 64)
	return err == nil && strconv.FormatInt(n, 10) == id
}
