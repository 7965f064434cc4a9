package yandexmarket

import (
	"cmp"
	"slices"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

const (
	// windowDays is how many days of returns are asked for at once. No most is
	// documented; other lists of this API have a month.
	windowDays = 30
	// emptyDays are how many days without a return end a past that has no other end.
	emptyDays = 365
	// zoneDays: a moment's day is one less or one more in another zone than in UTC, and
	// an end of a window may be exclusive.
	zoneDays = 2
	// pastWindow is how far back a store is read before its first news, whatever counts as
	// new: a return that changes is news only if it was seen before.
	pastWindow = 60 * 24 * time.Hour
	maxDay     = 1 << 16 // in 2149
	// readings is how often a window of several pages is read at most until two readings
	// in a row show the same.
	readings = 3
)

// oldestDay is before anything that the marketplace can hold.
var oldestDay = dayOf(listing.Oldest)

// dayOf is the day of t in UTC, counted from 1970.
func dayOf(t time.Time) int64 {
	return min(max(t.Unix(), 0)/int64((24*time.Hour).Seconds()), maxDay)
}

func dayText(day int64) string {
	return time.Unix(0, 0).UTC().AddDate(0, 0, int(day)).Format(time.DateOnly)
}

// reading is a store's returns of some days, by the days of their updates: windows,
// from the newest to the oldest. A return that is updated meanwhile leaves for a day
// that the next reading begins before. But where tokens are offsets its leaving moves
// others across the edge of a page: so what takes several pages is read again until
// it shows the same.
type reading struct {
	Scan   scan   `json:"scan"`             // of the window
	From   int64  `json:"from"`             // first day of the window
	To     int64  `json:"to"`               // last day of the window
	Floor  int64  `json:"floor,omitempty"`  // first day of the last window; 0: until a year is empty
	Empty  int64  `json:"empty,omitempty"`  // days in a row without a return
	Shown  bool   `json:"shown,omitempty"`  // the window has shown something
	Sum    uint64 `json:"sum,omitempty"`    // of what this reading of the window has shown
	Before uint64 `json:"before,omitempty"` // of what the one before has
	Times  int    `json:"times,omitempty"`  // that the window was read before
	Broken bool   `json:"broken,omitempty"` // part of it could not be read
	Run    uint64 `json:"run"`              // that began it
	Began  int64  `json:"began,omitempty"`  // when that was, by the clock that is behind, Unix seconds; 0: no page yet
}

// reading returns the reading of a store that a run has to make.
func (c *returnsCursor) reading(st *store, q sources.Query) *reading {
	lo, hi := q.Now, q.Now
	if theirs := c.clock(); !theirs.IsZero() {
		lo, hi = behind(q.Now, theirs), listing.Clock(q.Now, theirs)
	}
	top := dayOf(lo) + zoneDays - windowDays
	rd := &reading{Run: c.Runs}
	switch {
	case q.Walk == sources.Backfill:
		rd.Floor = floor(q.Since)
	case q.Walk == sources.Full:
		rd.Floor = floor(lo.Add(-q.Window))
	case st.Read == 0:
		rd.Floor = max(top, oldestDay)
	default:
		rd.Floor = min(floor(time.Unix(st.Read, 0).Add(-q.Overlap)), max(dayOf(lo)-zoneDays, oldestDay))
	}
	rd.From = max(rd.Floor, top, oldestDay)
	rd.To = max(dayOf(hi)+zoneDays, rd.From+1)
	return rd
}

// floor is the first day to ask for who wants all from t on; 0 where t is zero.
func floor(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(dayOf(t)-zoneDays, oldestDay)
}

// past is what is left to read of a store after its first complete reading; nil:
// nothing.
func (c *returnsCursor) past(st *store, q sources.Query, first *reading) *reading {
	rd := &reading{Run: c.Runs, From: first.From, Floor: floor(behind(q.Now, c.clock()).Add(-pastWindow))}
	if st.Found == 0 { // what was there before one that was discovered is old in any case
		if rd.Floor = min(rd.Floor, floor(q.Since)); q.Since.IsZero() {
			rd.Floor = 0
		}
	}
	if !rd.older() {
		return nil
	}
	return rd
}

// older goes on to the window before; false: that was the last one. Windows share
// two days, since their ends may be exclusive.
func (r *reading) older() bool {
	if r.From <= max(r.Floor, oldestDay) || r.Floor == 0 && r.Empty >= emptyDays {
		return false
	}
	r.To = r.From + 1
	r.From = max(r.To-windowDays, r.Floor, oldestDay)
	r.Scan, r.Shown, r.Sum, r.Before, r.Times = scan{}, false, 0, 0, 0
	return true
}

// again is scan.again.
func (r *reading) again(err error) bool {
	if !r.Scan.again(err) {
		return false
	}
	r.Sum = 0
	return true
}

// after takes in a page, which came at that time. note is not empty where it may not
// show all of the window.
func (r *reading) after(l listing.Listing, at time.Time) (whole bool, note string) {
	if r.Began == 0 {
		r.Began = max(at.Unix(), 1)
	}
	r.Shown = r.Shown || l.N > 0
	done, note := r.Scan.after(getReturns, l)
	for _, it := range l.Items {
		r.Sum += listing.Key(it.ID[0], it.ID[1], it.Changed.String())
	}
	r.Broken = r.Broken || note != ""
	if !done {
		return false, note
	}
	if note == "" && r.Scan.Pages > 1 && r.Sum != r.Before {
		if r.Times++; r.Times < readings {
			r.Scan, r.Sum, r.Before = scan{}, 0, r.Sum
			return false, ""
		}
		note = "returns move so much while they are paged that a run may miss some: later runs will show them"
	}
	if r.Empty += r.To - r.From - 1; r.Shown {
		r.Empty = 0
	}
	return !r.older(), note
}

// progress is the part of it that was read; 0 where nobody knows.
func (r *reading) progress(now time.Time) float64 {
	if r.Floor == 0 {
		return 0
	}
	all := float64(max(dayOf(now), r.To) - r.Floor)
	return min(max(1-float64(r.To-r.Floor)/all, 0), 1)
}

func (r *reading) sound() bool {
	return r == nil || r.Scan.sound() && sources.Times(r.Began) && sources.Counts(r.Times) && r.Empty >= 0 && r.Empty <= maxDay && (r.Floor == 0 || r.Floor >= oldestDay) &&
		r.Floor <= r.From && r.From >= oldestDay && r.From < r.To && r.To <= maxDay+zoneDays
}

func (c *returnsCursor) sound() bool {
	if !sources.Times(c.Discovered, c.Heard) || c.Last < 0 || len(c.Stores) > maxStores || !c.Run.sound() {
		return false
	}
	ordered := slices.IsSortedFunc(c.Stores, func(a, b store) int { return cmp.Or(cmp.Compare(a.ID, b.ID), -1) })
	return ordered && !slices.ContainsFunc(c.Stores, func(st store) bool {
		return st.ID <= 0 || !sources.Times(st.Found, st.Read) || !st.Reading.sound() || !st.Past.sound() || !st.Again.sound()
	})
}

func (r *returnsRun) sound() bool {
	return r == nil || sources.Times(r.Asked, r.Spare, r.Turn) && sources.Counts(r.Requests) && (r.Discovery == nil || r.Discovery.Scan.sound())
}
