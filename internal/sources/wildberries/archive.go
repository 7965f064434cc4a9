package wildberries

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

// archiveRun is one reading of the archive, the newest first. It has no date filter,
// so it is paged by skip, while entries come and go. Each page overlaps the one
// before it: its first entry is newer than all that was reached, or one of the last
// ones is on it.
//
// How much can be skipped is documented as 199,990 for the lists, not at all for
// the archive, and others have met less. Where it ends the archive is read from its
// other end, until the two readings meet. Times are Unix seconds.
type archiveRun struct {
	Floor int64 `json:"floor,omitempty"` // what was created before it need not be read; 0: everything is
	First int   `json:"first,omitempty"` // entries of the first page; 0: as many as there can be
	Asc   bool  `json:"asc,omitempty"`   // this is the reading from the oldest on
	offset
	Edge    int64 `json:"edge,omitempty"`    // up to here, at least, the newest have been read; 0: nothing yet
	Near    int64 `json:"near,omitempty"`    // up to here the oldest have
	New     int   `json:"new,omitempty"`     // entries that were read from the newest on,
	Old     int   `json:"old,omitempty"`     // and from the oldest
	Suspect int   `json:"suspect,omitempty"` // see span
	Astray  int   `json:"astray,omitempty"`  // pages that were empty where there had been entries
	Mixed   bool  `json:"mixed,omitempty"`   // the order asked for is ignored
	Stepped int   `json:"stepped,omitempty"` // entries that were stepped over in a row, since none of them can be sent
}

// archiveGlance is how many entries are asked for where that is probably enough.
const archiveGlance = 100

func newArchiveRun(floor int64, now time.Time) *archiveRun {
	a := &archiveRun{Floor: floor}
	if floor > now.Add(-48*time.Hour).Unix() {
		a.First = archiveGlance
	}
	return a
}

// after takes in a page. It moves the reading on, or ends it.
func (a *archiveRun) after(h *habits, p seen, d *dated) (end bool, note string) {
	if !a.Asc && p.rises > 0 || a.Asc && p.falls > 0 {
		a.Mixed = true
	}
	beyond := !a.Mixed && (!a.Asc && p.newest > a.Edge || a.Asc && p.oldest > 0 && p.oldest < a.Near)
	if a.Skip > 0 && !beyond && !a.follows(p) {
		if p.got == 0 {
			if a.Astray++; a.Astray > 1 { // it is not the list that has shrunk
				return a.turn(d)
			}
		}
		a.Suspect = 0
		a.retreat()
		return false, ""
	}
	if a.repeats(p) { // as deep as the API goes, or at all
		return a.turn(d)
	}
	if a.Suspect > 0 {
		h.settle(a.Suspect, p.got > overlap(a.Suspect), p.now)
		a.Suspect = 0
	}
	full := h.full(p)
	if !full && h.suspicious(p, false) {
		full, a.Suspect = true, p.got
	}
	fresh := p.got
	if a.Skip > 0 {
		fresh = max(0, p.got-overlapMost)
	}
	if a.Asc {
		a.Near, a.Old = max(a.Near, p.newest), a.Old+fresh
	} else {
		a.New += fresh
		if a.Edge == 0 || p.oldest > 0 && p.oldest < a.Edge {
			a.Edge = p.oldest
		}
	}
	switch {
	case !full, !a.Mixed && (!a.Asc && p.oldest > 0 && p.oldest < a.Floor || a.Asc && a.Near > a.Edge):
		return true, a.disorder(d)
	case !d.reaches(a.Skip + p.got - overlap(p.got)):
		return a.turn(d)
	}
	a.First = 0
	a.advance(p)
	return false, ""
}

// turn goes on from the other end, or ends the reading if that was it.
func (a *archiveRun) turn(d *dated) (end bool, note string) {
	switch {
	case a.Mixed:
		return true, fmt.Sprintf("the archive of %s shows no more than about %d entries, in an order of its own: the rest of them cannot be read", d.name, a.New+a.Old)
	case a.Asc:
		return true, fmt.Sprintf("the archive of %s shows about %d of its newest entries and %d of its oldest: those created between %s and %s cannot be read", d.name, a.New, a.Old, date(a.Near), date(a.Edge))
	}
	a.Asc, a.First, a.Suspect, a.Astray, a.offset = true, 0, 0, 0, offset{}
	return false, ""
}

// disorder is what to tell about a reading that had no order to hold on to.
func (a *archiveRun) disorder(d *dated) string {
	if !a.Mixed {
		return ""
	}
	return fmt.Sprintf("the archive of %s does not come in the order asked for: all of it is read, and what moves meanwhile may be missed", d.name)
}

// archivePage fetches the next page of the archive. Where the API refuses to go as
// deep the listing is empty, and the reading turns.
func (c *Client) archivePage(ctx context.Context, q sources.Query, d *dated, a *archiveRun, h *habits) (l listing.Listing, end bool, note string, err error) {
	take := min(d.take, d.depth-a.Skip)
	if a.First > 0 {
		take = min(take, a.First)
	}
	take = c.sizes.limit(archiveKey(q), take)
	order := "dateDesc"
	if a.Asc {
		order = "dateAsc"
	}
	l, p, err := c.datedPage(ctx, q, *d.archive, url.Values{"take": {strconv.Itoa(take)}, "skip": {strconv.Itoa(a.Skip)}, "order": {order}}, take)
	err = ofThisMethod(err)
	c.sizes.asked(archiveKey(q), take, err)
	if err != nil {
		e, ok := errors.AsType[*sources.Error](err)
		if ok && a.Skip > 0 && (e.Status == http.StatusBadRequest || e.Status == http.StatusUnprocessableEntity) {
			end, note = a.turn(d)
			return listing.Listing{}, end, note, nil
		}
		return listing.Listing{}, false, "", err
	}
	stepped := a.Stepped > 0
	a.Stepped = 0
	if end, note = a.after(h, p, d); stepped && note == "" {
		note = steppedNote(d)
	}
	return l, end, note, nil
}

// archiveKey is that of the sizes of the archive's pages: a failure there must not
// make those of the lists smaller.
func archiveKey(q sources.Query) string { return sizeKey(q) + "/archive" }
