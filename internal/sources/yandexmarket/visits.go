package yandexmarket

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"syncd/internal/sources"
)

// Comments and answers show in no list. Each review and each question is visited: as
// soon as it is found, again when its list shows that something about its children
// has moved, and else the less often the older it is. See interval, and stretch for how
// the plan fits the budget.
//
// One that is older than Query.Window is not visited any more, unless it moves. It is
// remembered as long as a list can show it, or else it would look new there.

// agePart is by what an age is divided to get the time between two visits: news of a
// day are a quarter of an hour late, those of a month seven hours and a half.
const agePart = 96

// interval is the time between two visits of a thing of an age.
func interval(q sources.Query, age time.Duration) time.Duration {
	return max(min(age/agePart, q.Full), q.Every)
}

// keepFor is up to what age things are remembered.
func (d *dated) keepFor(q sources.Query) time.Duration { return max(windowOf(q), d.shown) }

// find says which of the page's items are worth a visit. first: the page belongs to
// the first reading of the stream.
func (d *dated) find(q sources.Query, page *sources.Page, first bool) error {
	for _, it := range page.Items {
		id := it.ID[len(it.ID)-1]
		if it.Kind != d.kind || !askable(id) {
			continue
		}
		v := sources.Visit{ID: id, Created: it.Created, Due: q.Now, Urgent: !first, Found: d.shows(q, it.Body)}
		known, ok, err := remembered(q, id)
		switch {
		case err != nil:
			return err
		case !ok:
			if v.Created.IsZero() {
				v.Created = q.Now
			}
			age := q.Now.Sub(v.Created)
			if !first && age > d.keepFor(q) {
				continue // it would be forgotten, and found again
			}
			v.Urgent = v.Urgent && age < windowOf(q) // a list may show for the first time what is long there
			if v.Found == nil {
				v.Found = nothingKnown
			}
		case v.Found == nil, bytes.Equal(v.Found, known.Found):
			continue
		default:
			v.Created = known.Created
			if bytes.Equal(known.Found, nothingKnown) {
				v.Due, v.Urgent = known.Due, known.Urgent
			}
		}
		page.Found = append(page.Found, v)
	}
	return nil
}

// nothingKnown is what is found of a thing of whose children its list tells nothing.
var nothingKnown = json.RawMessage(`{}`)

func remembered(q sources.Query, id string) (v sources.Visit, ok bool, err error) {
	if q.Remembered == nil {
		return v, false, nil
	}
	return q.Remembered(q.Stream, id)
}

// visitCursor is a visit that takes several pages.
type visitCursor struct {
	V     int       `json:"v"`
	Visit *visiting `json:"visit,omitempty"`
	Scan  careful   `json:"scan"`
}

// visiting is what a visit has to know to its end: only the first page of it is told.
type visiting struct {
	ID      string          `json:"id"`
	Created int64           `json:"created,omitempty"` // Unix milliseconds; 0: none
	Found   json.RawMessage `json:"found,omitempty"`
	History bool            `json:"history,omitempty"`
}

func (c *visitCursor) sound() bool {
	return (c.Visit == nil || askable(c.Visit.ID) && sources.Times(c.Visit.Created)) && c.Scan.sound()
}

func newVisiting(v *sources.Visit) *visiting {
	out := &visiting{ID: v.ID, Found: v.Found, History: v.History}
	if !v.Created.IsZero() {
		out.Created = v.Created.UnixMilli()
	}
	return out
}

func (v *visiting) visit() (out sources.Visit) {
	out = sources.Visit{ID: v.ID, Found: v.Found, History: v.History}
	if v.Created != 0 {
		out.Created = time.UnixMilli(v.Created)
	}
	return out
}

// follow makes a visit, or goes on with it. A crash in it costs the pages that were
// not saved.
func (c *Client) follow(ctx context.Context, q sources.Query, d *dated) (sources.Page, error) {
	cur := visitCursor{V: 1}
	if err := sources.DecodeCursor(q.Stream, q.Cursor, &cur, cur.sound); err != nil {
		return sources.Page{}, err
	}
	if cur.Visit == nil {
		if q.Visit == nil || !askable(q.Visit.ID) {
			return sources.Page{}, fmt.Errorf("follow of %s: nothing to visit", q.Stream)
		}
		cur.Visit = newVisiting(q.Visit)
		cur.Scan.Doubt = q.Visit.Seen != nil // the next visit is soon, and counts no more than this one
	}
	v := cur.Visit.visit()
	age := q.Now.Sub(v.Created)
	if q.Cursor == nil && age > d.keepFor(q) && q.Visit.Seen != nil {
		v.Forget = true
		return sources.Page{Done: true, Visited: &v}, nil
	}
	page := sources.Page{History: v.History}
	done, err := c.readChildren(ctx, q, d, v.ID, &cur.Scan, &page)
	if err != nil {
		return sources.Page{}, err
	}
	if page.Cursor, err = json.Marshal(cur); err != nil || !done {
		return page, err
	}
	plan, err := c.plan(q, d)
	if err != nil {
		return sources.Page{}, err
	}
	page.Done, page.Plan, page.Visited = true, plan.words, &v
	v.Seen, v.Urgent = json.RawMessage(`{}`), false
	switch {
	case age > d.keepFor(q): // of the first reading: once
		v.Forget = true
	case age >= windowOf(q):
		v.Due = v.Created.Add(d.keepFor(q) + time.Second)
	case d.silent(v.Found):
		v.Due = q.Now.Add(stretched(q.Full, plan.stretch))
	default:
		v.Due = q.Now.Add(stretched(interval(q, age), plan.stretch))
	}
	return page, nil
}

// plan is how often the things of a stream can be visited.
type plan struct {
	stretch float64 // of all intervals; 1: there is room
	words   string  // for people
}

// usedForVisits is the part of the budget that regular visits may take: the rest is for
// what is urgent, and for backfills.
const usedForVisits = 0.8

// plan makes the visits that are planned fit the budget: what they would take at their
// intervals, and by how much these have to be longer.
func (c *Client) plan(q sources.Query, d *dated) (plan, error) {
	p := plan{stretch: 1}
	if q.Planned == nil {
		return p, nil
	}
	counts, err := q.Planned()
	if err != nil {
		return p, err
	}
	window := windowOf(q)
	var n, demand float64
	var young time.Duration // above what age the class begins
	for _, count := range counts {
		old := min(count.Age, window)
		if old <= young {
			break // those wait to be forgotten
		}
		in := float64(count.N)
		if d.keepFor(q) > window { // and so does a part of these
			in *= float64(old-young) / float64(count.Age-young)
		}
		// Things of all ages between two, visited each 1/96 of its age, are visited as often
		// as if all were of the logarithmic mean.
		middle := old
		if young > 0 {
			middle = time.Duration(float64(old-young) / math.Log(float64(old)/float64(young)))
		}
		if every := interval(q, middle); every > 0 {
			n, demand = n+in, demand+in*float64(time.Hour)/float64(every)
		}
		young = count.Age
	}
	w, err := c.window(d.children.method, 0)
	if err != nil {
		return p, err
	}
	calls, _ := w.Usable()
	if allowed := usedForVisits * float64(calls); demand > allowed {
		p.stretch, demand = demand/allowed, allowed
	}
	if n < 0.5 {
		return p, nil
	}
	from, to := stretched(interval(q, 0), p.stretch), stretched(interval(q, window), p.stretch)
	p.words = fmt.Sprintf("%s of %.0f %s: %.0f of %d requests an hour, each every %s to %s",
		d.children.name, n, d.name, demand, calls, period(from), period(to))
	return p, nil
}

// stretchedMost is the longest time between two visits.
const stretchedMost = 30 * day

func stretched(d time.Duration, by float64) time.Duration {
	return time.Duration(min(float64(d)*by, float64(stretchedMost)))
}

// period is a duration for people: "15m", "2h30m".
func period(d time.Duration) string {
	if d >= time.Minute {
		d = d.Round(time.Minute)
	}
	s := strings.TrimSuffix(d.String(), "m0s")
	if s != d.String() {
		s += "m"
	}
	if hours := strings.TrimSuffix(s, "h0m"); hours != s {
		s = hours + "h"
	}
	return s
}
