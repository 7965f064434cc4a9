package wildberries

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

const pathPins = "/api/feedbacks/v1/pins"

const (
	pinsLimit = 500   // a page, the most that is documented, and the default
	pinsPages = 1_000 // of one list; the documented tariffs end far below that
	pinsEmpty = 3     // pages without a pin in a row
)

// pinsCursor is where feedback_pins continues.
//
// Each run reads the pinned ones and then the unpinned ones, for the documents do
// not say what a request without `state` shows: see listFirst for what moves
// between them. A list is paged by `next`, the id of the last operation shown, so
// that nothing that comes or goes meanwhile moves the rest. Should `next` be
// another kind of number (the documents' own example fits no id), a list of
// several pages counts as complete when it is what the run before has read.
//
// A pin that is in neither list was unpinned by the seller: a run that may have
// missed one has to say so.
type pinsCursor struct {
	V     int       `json:"v"`
	Lists [2]*tally `json:"lists"` // of the pinned and of the unpinned as the last run has read them
	Run   *pinsRun  `json:"run,omitempty"`
}

// pinsRun is one run.
type pinsRun struct {
	Asked   int64  `json:"asked"`             // when it began by our clock, Unix milliseconds
	Partial bool   `json:"partial,omitempty"` // it may have missed something
	List    int    `json:"list,omitempty"`
	Next    string `json:"next,omitempty"`   // what to ask; empty: the list's beginning
	Up      int    `json:"up,omitempty"`     // `next` has grown (1) or fallen (-1) so far
	Pages   int    `json:"pages,omitempty"`  // of this list
	Empty   int    `json:"empty,omitempty"`  // pages without a pin, in a row
	Opaque  bool   `json:"opaque,omitempty"` // a `next` was the id of no pin on its page
	Page    tally  `json:"page,omitzero"`    // of the page before
	Read    tally  `json:"read,omitzero"`    // of this list
}

// pinsPage is what one page showed.
type pinsPage struct {
	keys []uint64
	ids  []string // of those that are pins
	odd  bool     // some are not, or an error stands beside them
	next string   // empty: none, so it is the last
	bad  bool     // there is a `next` that cannot be sent back
}

// after takes in a page. It moves the run on, or ends it.
func (c *pinsCursor) after(p pinsPage) (done bool, note string) {
	r := c.Run
	// What is no pin today may be one that was read yesterday.
	r.Partial = r.Partial || p.odd
	r.Pages++
	var page tally
	page.add(p.keys)
	r.Read.add(p.keys)
	if r.Empty++; page.N > 0 {
		r.Empty = 0
	}
	up := direction(r.Next, p.next)
	name := pinsLists[r.List].name
	switch {
	case p.bad:
		note = fmt.Sprintf("%s go on behind a `next` that is neither a number nor text: what comes after it cannot be asked for", name)
	case p.next == "", p.next == r.Next && page.N == 0:
		return c.end(), ""
	case p.next == r.Next, page.N > 0 && page == r.Page, r.Up != 0 && up != 0 && up != r.Up:
		note = fmt.Sprintf("%s are shown in circles (`next` is %.50q after %.50q): what comes after this page cannot be read", name, p.next, r.Next)
	case r.Empty >= pinsEmpty, r.Pages >= pinsPages:
		note = fmt.Sprintf("%s have no end after %d pages and %d pins: the rest is not read", name, r.Pages, r.Read.N)
	default:
		r.Opaque = r.Opaque || page.N > 0 && !slices.Contains(p.ids, p.next)
		if r.Up == 0 && r.Next != "" {
			r.Up = up
		}
		r.Next, r.Page = p.next, page
		return false, ""
	}
	r.Partial = true
	return c.end(), note
}

// direction is 1 where b is the larger of two numbers, -1 where it is the
// smaller, and 0 where they are equal or not both numbers.
func direction(a, b string) int {
	x, errA := strconv.ParseInt(a, 10, 64)
	y, errB := strconv.ParseInt(b, 10, 64)
	switch {
	case errA != nil || errB != nil || x == y:
		return 0
	case x < y:
		return 1
	}
	return -1
}

// end goes on to the next list, or ends the run.
func (c *pinsCursor) end() (done bool) {
	r := c.Run
	last := &c.Lists[r.List%listFirstAgain]
	read := r.Read
	changed := *last == nil || **last != read
	*last = &read
	next := r.List + 1
	if r.List == listSecond && !changed || r.List == listFirstAgain {
		c.Run, done = nil, true
	}
	if r.Opaque && changed { // were `next` an offset, something may have moved past it
		r.Partial = true
	}
	*r = pinsRun{Asked: r.Asked, Partial: r.Partial, List: next}
	return done
}

// pinsLists are the lists of a run. The names are for people.
var pinsLists = [...]struct{ name, state string }{
	listFirst:      {"the pins", "pinned"},
	listSecond:     {"the pins that were unpinned automatically", "unpinned"},
	listFirstAgain: {"the pins", "pinned"},
}

// pinsEndpoint takes less of a budget that is short than questions and reviews,
// which buyers wait for.
var pinsEndpoint = endpoint{group: GroupFeedbacks, path: pathPins, weight: 1.0 / 4, list: []string{"data"}, decode: decodePin, nullable: nullIsEmpty}

func (c *Client) feedbackPins(ctx context.Context, q sources.Query) (sources.Page, error) {
	cur := pinsCursor{V: 1}
	if err := sources.DecodeCursor(q.Stream, q.Cursor, &cur, cur.sound); err != nil {
		return sources.Page{}, err
	}
	if cur.Run == nil {
		cur.Run = &pinsRun{Asked: q.Now.UnixMilli()}
	}
	r := cur.Run
	params := url.Values{"state": {pinsLists[r.List].state}, "limit": {strconv.Itoa(c.pinsLimit)}}
	if r.Next != "" {
		params.Set("next", r.Next)
	}
	l, err := c.list(ctx, q, pinsEndpoint, params)
	if err != nil {
		return sources.Page{}, err
	}
	sortByChange(l.Items)
	page := sources.Page{Items: l.Items, Undecodable: l.Odd, Began: time.UnixMilli(r.Asked), Date: l.Date}
	p := pinsPage{keys: l.Keys, odd: len(l.Odd) > 0 || l.Null || inside(l.Members) != nil}
	for _, item := range l.Items {
		p.ids = append(p.ids, item.ID[0])
	}
	p.next, p.bad = paginator(l.Members, "next")
	page.Done, page.Note = cur.after(p)
	page.Partial = page.Done && r.Partial
	page.Cursor, err = json.Marshal(cur)
	return page, err
}

// paginator is what the next request has to send back: a number above zero, or
// text. Empty: there is no more. bad: it is something else.
func paginator(f listing.Fields, name string) (next string, bad bool) {
	raw := string(f[name])
	if raw == "" || raw == "null" || raw == "false" {
		return "", false
	}
	if n := f.Whole(name); n != 0 {
		return strconv.FormatInt(n, 10), n < 0
	}
	next = f.Text(name)
	switch {
	case raw == `""`, next == "0":
		return "", false
	case next == "", len(next) > listing.MaxID:
		return "", true
	}
	return next, false
}

// decodePin reads one pin. The only time that it tells is that of its last change.
func decodePin(raw json.RawMessage, now time.Time) (sources.Item, error) {
	item, f, err := listing.DecodeNamed(raw, "feedback_pin", "pinId")
	if err != nil {
		return sources.Item{}, err
	}
	item.Changed = listing.Plausible(f.Instant("changeStateAt"), now)
	return item, nil
}
