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

const pathClaims = "/api/v1/claims"

const (
	claimsLimit    = 200     // a page, the most that is documented
	claimsReadings = 3       // of one list in a run, at most
	claimsMost     = 100_000 // entries of one list; nobody gets that many claims in 14 days
	// claimsShown is how far back the API shows claims, in seconds: 14 days (documented),
	// of which the first may be cut.
	claimsShown = 13 * 24 * 60 * 60
)

// claimsCursor is where claims continue.
//
// Each run reads both lists completely, those under review and then the archived
// ones: see listFirst for what moves between them. A list is paged by offset, in
// no documented order, and moves while it is read. So each page begins with the
// last entries of the one before. If it does not, or if the list has another
// `total` now, entries have moved across the page's edge, and the list is read
// again from its beginning. A list that never rests is read to its end the last
// time all the same: the next run will show what this one has missed.
//
// A crash costs at most the page that was not saved: whatever happened to the
// lists since then, the next page begins with the entries that it should, or the
// list is read again.
type claimsCursor struct {
	V        int        `json:"v"`
	Archived *tally     `json:"archived,omitempty"` // of the archive as a run has read it at rest
	Complete int64      `json:"complete,omitempty"` // when the last complete run began, by the marketplace's clock, Unix seconds; 0: none was
	Run      *claimsRun `json:"run,omitempty"`      // the run that is going on
}

// claimsRun is one run.
type claimsRun struct {
	Asked    int64 `json:"asked"`           // when it began by our clock, Unix milliseconds
	Began    int64 `json:"began,omitempty"` // by the marketplace's, Unix seconds; 0: no page yet
	List     int   `json:"list,omitempty"`
	Number   int   `json:"number,omitempty"` // of this reading of the list, from 0
	Offset   int   `json:"offset,omitempty"`
	Restless bool  `json:"restless,omitempty"` // the list has moved in this reading
	Skipped  bool  `json:"skipped,omitempty"`  // the operator has stepped over a page of this reading
	Total    int   `json:"total,omitempty"`    // of the list, as this reading's page before said; 0: it did not
	// Edge are the last entries of the page before, with which the next one begins.
	Edge []uint64 `json:"edge,omitempty"`
	Page tally    `json:"page,omitzero"` // of the page before
	Read tally    `json:"read,omitzero"` // of what this reading has shown
}

func (r *claimsRun) read(list, number int) {
	*r = claimsRun{Asked: r.Asked, Began: r.Began, List: list, Number: number}
}

// claimsPage is what one page showed.
type claimsPage struct {
	keys  []uint64
	total int // 0: not said
	limit int
}

// after takes in a page. It moves the run on, or ends it.
func (c *claimsCursor) after(p claimsPage) (done bool, note string) {
	r := c.Run
	n, seen := len(p.keys), r.Offset+len(p.keys)
	// `total` is documented as that of the list. Less than has been seen it cannot
	// be, but that of the answer, which such fields often turn out to be.
	if p.total < seen {
		p.total = 0
	}
	atEdge := n >= len(r.Edge) && slices.Equal(p.keys[:len(r.Edge)], r.Edge)
	if !atEdge || r.Total > 0 && p.total > 0 && p.total != r.Total {
		r.Restless = true
		if r.Number < claimsReadings-1 {
			r.read(r.List, r.Number+1)
			return false, ""
		}
	}
	fresh := p.keys
	if atEdge {
		fresh = p.keys[len(r.Edge):]
	}
	var page tally
	page.add(p.keys)
	r.Read.add(fresh)
	r.Total = p.total
	list := claimsLists[r.List].name
	switch {
	case len(fresh) == 0 && p.total > seen:
		// It holds nothing but what the one before did: this is the end, though
		// `total` says that there is more.
		note = fmt.Sprintf("%s are counted as more than the API shows: `total` is %d, and %d came", list, p.total, seen)
	case len(fresh) > 0 && page == r.Page:
		note = fmt.Sprintf("%s repeat the same page whatever `offset` says: what comes after it cannot be read", list)
	case seen >= claimsMost:
		note = fmt.Sprintf("%s go on after %d of them: what comes after these is not read", list, seen)
	case len(fresh) > 0 && (n == p.limit || p.total > seen) && !(p.total == seen && p.total > p.limit):
		// A full page, or a short one where the API says that there is more; but
		// not the last by its `total`, where that cannot be the answer's.
		overlap := min(max(p.limit/20, 1), n-1)
		r.Page, r.Edge = page, p.keys[n-overlap:]
		r.Offset = seen - overlap
		return false, ""
	case r.Restless:
		note = fmt.Sprintf("%s move so much while they are paged that a run may miss some: later runs will show them", list)
	}
	return c.end(), note
}

// end goes on to the next list, or ends the run.
func (c *claimsCursor) end() (done bool) {
	r := c.Run
	switch r.List {
	case listFirst:
		r.read(listSecond, 0)
		return false
	case listSecond:
		before := c.Archived
		c.Archived = nil
		if !r.Restless && !r.Skipped {
			read := r.Read
			c.Archived = &read
		}
		if before == nil || c.Archived == nil || *before != *c.Archived {
			r.read(listFirstAgain, 0)
			return false
		}
	}
	c.Run = nil
	return true
}

// claimsLists are the lists of a run. The names are for people.
var claimsLists = [...]struct {
	name     string
	archived string // is_archive
}{
	listFirst:      {"the claims under review", "false"},
	listSecond:     {"the archived claims", "true"},
	listFirstAgain: {"the claims under review", "false"},
}

var claimsEndpoint = endpoint{group: GroupReturns, path: pathClaims, list: []string{"claims"}, decode: decodeClaim, nullable: nullIsEmpty}

func (c *Client) claims(ctx context.Context, q sources.Query) (sources.Page, error) {
	cur, err := claimsFrom(q)
	if err != nil {
		return sources.Page{}, err
	}
	r := cur.Run
	l, err := c.list(ctx, q, claimsEndpoint, url.Values{
		"is_archive": {claimsLists[r.List].archived},
		"limit":      {strconv.Itoa(c.claimsLimit)},
		"offset":     {strconv.Itoa(r.Offset)},
	})
	if err != nil {
		return sources.Page{}, err
	}
	sortByTime(l.Items)
	page := sources.Page{Items: l.Items, Undecodable: l.Odd, Began: time.UnixMilli(r.Asked), Date: l.Date}
	total := min(max(l.Members.Whole("total"), 0), claimsMost)
	if r.Began == 0 {
		if r.Began = l.Now.Unix(); !l.Date.IsZero() {
			r.Began = l.Date.Unix() // ours may be ahead, and would make a gap
		}
	}
	page.Done, page.Note = cur.after(claimsPage{keys: l.Keys, total: int(total), limit: c.claimsLimit})
	if page.Done {
		if gap := cur.complete(r.Began, q.LastRun.Unix()); gap != "" {
			page.Note = gap
		}
	}
	page.Cursor, err = json.Marshal(cur)
	return page, err
}

// complete takes note of a complete run. It says what claims may have come and gone
// since the one before, as far as that is known: an old cursor is that of a syncd that
// did not run, or of one that was killed after nothing had happened for as long.
func (c *claimsCursor) complete(began, lastRun int64) (gap string) {
	from, to := c.Complete, began-claimsShown
	c.Complete = began
	if from == 0 {
		return ""
	}
	if lastRun <= began { // else our clock was ahead
		from = max(from, lastRun)
	}
	if from >= to {
		return ""
	}
	return fmt.Sprintf("the API shows claims for 14 days, and the last trace of a run is of %s: unless syncd has run since then, claims created between %s and %s may be missing", date(from), date(from), date(to))
}

// claimsFrom is the cursor of the page that q asks for, with a run going on.
func claimsFrom(q sources.Query) (claimsCursor, error) {
	cur := claimsCursor{V: 1}
	if err := sources.DecodeCursor(q.Stream, q.Cursor, &cur, cur.sound); err != nil {
		return cur, err
	}
	if cur.Run == nil {
		cur.Run = &claimsRun{Asked: q.Now.UnixMilli()}
	}
	return cur, nil
}

// skipClaims steps over a page: the rest of the list is asked for behind it.
func (c *Client) skipClaims(q sources.Query) (sources.Cursor, string, error) {
	cur, err := claimsFrom(q)
	if err != nil {
		return nil, "", err
	}
	r := cur.Run
	leftOut := fmt.Sprintf("%s from number %d to number %d, in the order of the marketplace's answer", claimsLists[r.List].name, r.Offset+1, r.Offset+c.claimsLimit)
	// No other reading of this list, which would come upon the same page.
	*r = claimsRun{Asked: r.Asked, Began: r.Began, List: r.List, Number: claimsReadings - 1, Offset: r.Offset + c.claimsLimit, Skipped: true}
	next, err := json.Marshal(cur)
	return next, leftOut, err
}

// moscow is the zone of the naive times of the claims (documented since
// 2026-01-30). It has had no other offset since 2014.
var moscow = time.FixedZone("UTC+3", 3*60*60)

// moscowTime is a time without a zone, or one that says its own; zero if there is
// none.
func moscowTime(f listing.Fields, name string) time.Time {
	if t := f.Instant(name); !t.IsZero() {
		return t
	}
	s := f.Text(name)
	for _, layout := range []string{"2006-01-02T15:04:05", time.DateTime} { // a fraction of the second may follow either
		if t, err := time.ParseInLocation(layout, s, moscow); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}

// decodeClaim reads one claim.
func decodeClaim(raw json.RawMessage, now time.Time) (sources.Item, error) {
	item, f, err := listing.DecodeNamed(raw, "claim", "id")
	if err != nil {
		return sources.Item{}, err
	}
	item.Created = listing.Plausible(moscowTime(f, "dt"), now)
	item.Changed = listing.Plausible(moscowTime(f, "dt_update"), now)
	return item, nil
}
