package yandexmarket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

const (
	// patience is how long a store waits for its budget before the others, whose
	// budgets are others, go first.
	patience = 5 * time.Second
	// spareTime is what a run may take for what is not urgent: the past, and stores that
	// could not be read the last time, each of which may cost its whole timeout. The
	// others are not to wait for it.
	spareTime = 2 * time.Minute
	// turnTime is what a run gives to one store where there are others: one that is slow,
	// or has a long backlog, goes on with the next run. With it and with spareTime a run
	// begins often enough for the others never to be 10 minutes late.
	turnTime = 3 * time.Minute
	// fullPatience is how long a Full run tries a store that cannot be read, before the
	// next one may begin for the others.
	fullPatience = time.Hour
)

// returnsCursor is where the returns of all stores continue.
//
// A run reads the list of stores, where that is older than an hour, and then one store
// after the other, page by page: a store's days since its last complete reading, and
// some days more, since the zone of the days is not documented and returns show late.
// A return that moves between pages meanwhile has an update date of now, and comes
// with the next run.
//
// A store that cannot be read is tried again at the end of the run, and then left for
// the next one, which goes on where this one stopped. A crash costs the page that was
// not saved.
type returnsCursor struct {
	V           int         `json:"v"`
	Stores      []store     `json:"stores,omitempty"`      // by id
	Discoveries uint64      `json:"discoveries,omitempty"` // that were begun
	Discovered  int64       `json:"discovered,omitempty"`  // when the last whole one ended, by our clock, Unix seconds; 0: none has
	Heard       int64       `json:"heard,omitempty"`       // the marketplace's clock with the last answer, Unix seconds
	Runs        uint64      `json:"runs,omitempty"`        // that were begun
	Last        int64       `json:"last,omitempty"`        // the store that was dealt with last: the one after it is next
	Run         *returnsRun `json:"run,omitempty"`
}

// returnsRun is one run.
type returnsRun struct {
	Asked     int64      `json:"asked"`               // when it began by our clock, Unix milliseconds
	Discovery *discovery `json:"discovery,omitempty"` // nil: it has been made
	Turn      int64      `json:"turn,omitempty"`      // since when it is the turn of the store behind the last one, by our clock, Unix milliseconds
	Spare     int64      `json:"spare,omitempty"`     // since when it has done what is not urgent, likewise; 0: it has not
	Requests  int        `json:"requests,omitempty"`  // for what is urgent
	Partial   bool       `json:"partial,omitempty"`   // part of it could not be read
}

func (r *returnsRun) began() time.Time { return time.UnixMilli(r.Asked) }

// clock is the marketplace's when it last answered; zero: it never did.
func (c *returnsCursor) clock() time.Time {
	if c.Heard == 0 {
		return time.Time{}
	}
	return time.Unix(c.Heard, 0)
}

func (c *returnsCursor) hear(date time.Time) {
	if !date.IsZero() {
		c.Heard = max(date.Unix(), 0)
	}
}

// behind is our clock or the marketplace's, whichever is behind: who goes on from it
// reads too much rather than too little. Ours where they did not say.
func behind(ours, theirs time.Time) time.Time {
	if !theirs.IsZero() && theirs.Before(ours) {
		return theirs
	}
	return ours
}

// page completes a page with the cursor behind it.
func (c *returnsCursor) page(p sources.Page) (sources.Page, error) {
	var err error
	p.Cursor, err = json.Marshal(c)
	return p, err
}

func (c *Client) returns(ctx context.Context, q sources.Query) (sources.Page, error) {
	cur := returnsCursor{V: 1}
	if err := sources.DecodeCursor(q.Stream, q.Cursor, &cur, cur.sound); err != nil {
		return sources.Page{}, err
	}
	if cur.Run == nil {
		cur.Run = &returnsRun{Asked: q.Now.UnixMilli()}
		cur.Runs++
		if ago := q.Now.Unix() - cur.Discovered; ago >= int64(discoverEvery.Seconds()) || ago < 0 || c.unknown(&cur) {
			cur.Run.Discovery = &discovery{}
			cur.Discoveries++
		}
	}
	if cur.Run.Discovery != nil {
		return c.discover(ctx, q, &cur)
	}
	for {
		st, past := c.next(&cur, q)
		if st == nil {
			if st := cur.waiting(); st != nil { // for which time was too short
				return cur.page(cur.giveUp(st, st.Again.failure()))
			}
			return cur.page(c.end(&cur, sources.Page{Began: cur.Run.began()}))
		}
		if err := st.Again.wait(ctx, &q.Now); err != nil {
			return sources.Page{}, err
		}
		// A store that News has still to begin with is not Full's to judge: only News
		// knows what is old in it.
		if q.Walk == sources.Full && q.Remembered != nil {
			_, ok, err := q.Remembered("", strconv.FormatInt(st.ID, 10))
			if err != nil {
				return sources.Page{}, err
			}
			if !ok {
				cur.Run.Partial = true
				cur.through(st)
				continue
			}
		}
		return c.readStore(ctx, q, &cur, st, past)
	}
}

// next is the store to read next, and whether it is its past; nil: the run is over.
// Stores take turns. Those that could not be read the last time come behind the
// others, and behind them the past, of which each run reads a page at least.
func (c *Client) next(cur *returnsCursor, q sources.Query) (st *store, past bool) {
	r := cur.Run
	after, found := cur.index(cur.Last)
	if found {
		after++
	}
	var failing, old *store
	for i := range cur.Stores {
		st := &cur.Stores[(after+i)%len(cur.Stores)]
		switch {
		case !c.readable(*st):
		case st.Run != cur.Runs && !st.Failing:
			return st, false
		case st.Run != cur.Runs && (failing == nil || st.before(failing)):
			failing = st
		case st.Run == cur.Runs && !st.Failing && st.Past != nil && old == nil:
			old = st
		}
	}
	if q.Walk != sources.News {
		return failing, false
	}
	if failing == nil && old == nil {
		return nil, false // or the spare time would begin
	}
	switch spent := since(&r.Spare, q.Now); {
	case failing != nil && spent < spareTime/2:
		return failing, false
	case old != nil && spent < spareTime:
		return old, true
	}
	r.Partial = r.Partial || failing != nil
	return nil, false
}

// since is for how long something goes on by our clock, which may have been set. It
// begins now if it had not begun: began is in Unix milliseconds.
func since(began *int64, now time.Time) time.Duration {
	if ms := now.UnixMilli(); *began == 0 || *began > ms {
		*began = ms
	}
	return now.Sub(time.UnixMilli(*began))
}

// through takes note that the run is through with a store.
func (c *returnsCursor) through(st *store) { st.Run, c.Last, c.Run.Turn = c.Runs, st.ID, 0 }

// readStore reads a page of a store's returns.
func (c *Client) readStore(ctx context.Context, q sources.Query, cur *returnsCursor, st *store, past bool) (sources.Page, error) {
	if !past && st.Reading == nil {
		st.Reading = cur.reading(st, q)
	}
	rd := st.Reading
	if past {
		rd = st.Past
	}
	l, err := c.returnsOf(ctx, q, cur, st, rd)
	page := sources.Page{Began: cur.Run.began(), Date: l.Date, History: past}
	if err != nil {
		if rd.again(err) {
			return cur.page(page)
		}
		return c.failed(ctx, q, cur, st, past, err)
	}
	cur.hear(l.Date)
	st.Failing, st.Again = false, nil
	first := past || st.Read == 0
	for i := range l.Items {
		it := &l.Items[i]
		it.Old = q.Walk == sources.News && st.old(*it, first, q.Since)
	}
	slices.SortStableFunc(l.Items, func(a, b sources.Item) int { return moved(a).Compare(moved(b)) })
	page.Items, page.Undecodable = l.Items, l.Odd
	whole, note := rd.after(l, behind(q.Now, l.Date))
	if note != "" {
		page.Note, cur.Run.Partial = fmt.Sprintf("store %d: %s", st.ID, note), true
	}
	known := st.known()
	switch {
	case past:
		cur.Last = st.ID // the pasts of the others take turns too
		if whole {
			st.Past = nil
		}
	case whole:
		cur.complete(st, q)
	case q.Walk == sources.News && c.others(cur) && since(&cur.Run.Turn, q.Now) > turnTime:
		cur.Run.Partial = true
		cur.through(st)
	}
	if !past {
		cur.Run.Requests++
	}
	page.Progress = c.progress(cur, rd, q.Now)
	if q.Walk == sources.News && !known && st.known() {
		page.Found = []sources.Visit{{ID: strconv.FormatInt(st.ID, 10)}}
	}
	if st, _ := c.next(cur, q); st == nil && cur.waiting() == nil && !c.unfinished(cur) && !(past && cur.Run.Partial) {
		page = c.end(cur, page)
	}
	return cur.page(page)
}

// others says whether there is more than one store to read.
func (c *Client) others(cur *returnsCursor) bool {
	stores, _ := c.count(cur)
	return stores > 1
}

// old says whether an item of the store is no news for a reason that is the store's.
func (st *store) old(it sources.Item, first bool, since time.Time) bool {
	if it.Created.IsZero() { // contract §4: those that the first whole scan shows
		return first && (st.Found > 0 || !since.IsZero())
	}
	return it.Created.Before(time.Unix(st.Found, 0))
}

// known says whether nothing that is old in the store can come as news any more: News
// has read it. Of one that was there from the beginning only its start decides that.
func (st *store) known() bool { return st.Read > 0 && (st.Past == nil || st.Found == 0) }

// moved is when an item was as it is.
func moved(it sources.Item) time.Time {
	if it.Changed.IsZero() {
		return it.Created
	}
	return it.Changed
}

// complete takes note of a complete reading of a store. One that an earlier run began
// says nothing of what has come since then, and is followed by another one.
func (c *returnsCursor) complete(st *store, q sources.Query) {
	rd := st.Reading
	st.Reading = nil
	if rd.Run == c.Runs {
		c.through(st)
	}
	if rd.Broken || q.Walk != sources.News {
		return
	}
	if st.Read == 0 {
		st.Past = c.past(st, q, rd)
	}
	st.Read = max(st.Read, rd.Began)
}

// unfinished says whether some of the past has still to be read.
func (c *Client) unfinished(cur *returnsCursor) bool {
	return slices.ContainsFunc(cur.Stores, func(st store) bool { return c.readable(st) && st.Past != nil })
}

// end ends the run with page. Where the past goes on, or something failed beside it,
// that is a page without a request: what History says is of all of a page.
func (c *Client) end(cur *returnsCursor, page sources.Page) sources.Page {
	r := cur.Run
	unfinished := c.unfinished(cur)
	page.Done, page.Partial = true, r.Partial || unfinished
	if unfinished {
		page.History = !r.Partial
	}
	page.Plan = c.returnsPlan(cur)
	if failing := func(st store) bool { return c.readable(st) && st.Failing }; r.Requests == 0 && slices.ContainsFunc(cur.Stores, failing) {
		page.Failed = &sources.Error{Kind: sources.Temporary, Scope: sources.ScopeRequest, Endpoint: getReturns.verb + " " + getReturns.path,
			Err: errors.New("none of the stores could be read")}
	}
	cur.Run = nil
	return page
}

// returnsPlan says what a run takes, of which budget, and which stores are left out.
func (c *Client) returnsPlan(cur *returnsCursor) string {
	var said []string
	if stores, _ := c.count(cur); stores > 0 && cur.Run.Requests > 0 {
		said = append(said, fmt.Sprintf("%s: %s a run, of %d an hour for each store", several(stores, "store"), several(cur.Run.Requests, "request"), c.leastCalls(cur)))
	}
	if out := c.leftOut(cur); out != "" {
		said = append(said, "not read: "+out)
	}
	return strings.Join(said, "; ")
}

// leastCalls is how many calls an hour each of the stores has at least, as last heard.
func (c *Client) leastCalls(cur *returnsCursor) int {
	least := 0
	for _, st := range cur.Stores {
		if !c.readable(st) {
			continue
		}
		w, err := c.window(getReturns, st.ID)
		if err != nil {
			continue // reading it fails too, and says why
		}
		if calls, _ := w.Usable(); least == 0 || calls < least {
			least = calls
		}
	}
	return least
}

// count counts the stores that are to be read, and those that the run is through with.
func (c *Client) count(cur *returnsCursor) (stores, through int) {
	for i := range cur.Stores {
		if c.readable(cur.Stores[i]) {
			stores++
			if cur.Stores[i].Run == cur.Runs {
				through++
			}
		}
	}
	return stores, through
}

// progress is the part of the run that was read, when rd is what is read now.
func (c *Client) progress(cur *returnsCursor, rd *reading, now time.Time) float64 {
	stores, through := c.count(cur)
	if through == stores {
		return 1
	}
	return (float64(through) + rd.progress(now)) / float64(stores)
}

func several(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// failed leaves a store that cannot be read: News for the end of the run and then for
// the next one, a walk that comes seldom for when it is through with the others.
func (c *Client) failed(ctx context.Context, q sources.Query, cur *returnsCursor, st *store, past bool, err error) (sources.Page, error) {
	e, whole := failure(ctx, err)
	if whole {
		return sources.Page{}, err
	}
	refused := e.Kind == sources.Forbidden || e.Kind == sources.Rejected
	if q.Walk != sources.News && !refused {
		if st.Failing && (q.Walk == sources.Backfill || q.Now.Sub(cur.Run.began()) < fullPatience) {
			return sources.Page{}, err // the others are done, so they do not wait for it
		}
		if !st.Failing {
			st.Failing, cur.Last = true, st.ID
			return cur.page(sources.Page{Began: cur.Run.began(), Failed: ofStore(e, st.ID)})
		}
	}
	switch {
	case past:
		st.Failing, cur.Run.Partial = true, true
		return cur.page(sources.Page{Began: cur.Run.began(), Failed: ofStore(e, st.ID)})
	case q.Walk == sources.News && st.tryAgain(e, q.Now):
		cur.Last, cur.Run.Turn = st.ID, 0
		return cur.page(sources.Page{Began: cur.Run.began()})
	}
	return cur.page(cur.giveUp(st, e))
}

// failure is err as what a part of a run failed for, and whether it is about more
// than that part: about the key, the network, us.
func failure(ctx context.Context, err error) (e *sources.Error, whole bool) {
	e, ok := errors.AsType[*sources.Error](err)
	if !ok || ctx.Err() != nil {
		return nil, true
	}
	whole = e.Kind == sources.Unauthorized || e.Kind == sources.Payment || e.Scope == sources.ScopeGroup || e.Kind == sources.Temporary && e.Unsent ||
		e.Status == http.StatusForbidden && listing.Says(e.Err.Error(), "scope", "market yandex go")
	part := *e
	part.Scope = sources.ScopeRequest
	return &part, whole
}

// ofStore makes an error say which store it is of.
func ofStore(e *sources.Error, campaign int64) *sources.Error {
	e.Err = fmt.Errorf("store %d: %w", campaign, e.Err)
	return e
}

// returnsOf asks for a page of a store's returns.
func (c *Client) returnsOf(ctx context.Context, q sources.Query, cur *returnsCursor, st *store, rd *reading) (listing.Listing, error) {
	r, err := c.request(q, getReturns, st.ID)
	if err != nil {
		return listing.Listing{}, err
	}
	if c.others(cur) && (q.Walk == sources.News || !st.Failing) {
		r.Patience = patience
	}
	r.Query = url.Values{"limit": {strconv.Itoa(c.sizes.of(getReturns))}, "fromDate": {dayText(rd.From)}, "toDate": {dayText(rd.To)}}
	if rd.Scan.Token != "" {
		r.Query.Set("pageToken", rd.Scan.Token)
	}
	campaign := strconv.FormatInt(st.ID, 10)
	return listing.Read(ctx, c.api, r, q.Now, listing.Method{List: []string{"result", "returns"}, Check: envelope,
		Decode: func(raw json.RawMessage, now time.Time) (sources.Item, error) {
			return decodeReturn(raw, campaign, now)
		}})
}

// decodeReturn reads one return. An id is unique in its store.
func decodeReturn(raw json.RawMessage, campaign string, now time.Time) (sources.Item, error) {
	item, f, err := listing.DecodeNamed(raw, "return", "id")
	if err != nil {
		return sources.Item{}, err
	}
	item.ID, item.Subject = []string{campaign, item.ID[0]}, []string{"return", campaign, item.ID[0]}
	item.Created = listing.Plausible(f.Instant("creationDate"), now)
	item.Changed = listing.Plausible(f.Instant("updateDate"), now)
	return item, nil
}
