package yandexmarket

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

// window is a part of a list by its dates: from and to, in Unix seconds.
type window [2]int64

// unread is what the first reading of a stream has not read: windows that were answered
// without a list, twice. A marketplace in trouble does that, and so it may always do
// where there is nothing (OpenAPI document: `result` is not required). No later run goes
// back that far, so they are asked for again until there was a list, behind the windows of
// News and less and less often: a seller who has nothing costs a request a day for each.
//
// It goes with the cursor: a crash loses nothing of it.
type unread struct {
	Windows []window `json:"windows,omitempty"` // at most unreadMost
	End     int64    `json:"end,omitempty"`     // where the first reading ended, if it had no floor: see emptyFor
	Due     int64    `json:"due"`
	Pause   int64    `json:"pause"` // between the last reading of them and Due, seconds
}

// unreadMost bounds the windows: there are fewer from listing.Oldest to the next decades.
const unreadMost = 1000

// unreadFirst is the first pause, of which each one is twice the one before, up to a day.
const unreadFirst = time.Minute

func (u *unread) sound(d *dated) bool {
	return u == nil || windowsSound(u.Windows, d) && datable(u.End, u.Due) && u.Pause > 0 && u.Pause <= seconds(day)
}

func windowsSound(all []window, d *dated) bool {
	return len(all) <= unreadMost && !slices.ContainsFunc(all, func(w window) bool {
		return !datable(w[0], w[1]) || w[0] == 0 || w[1] <= w[0] || w[1]-w[0] > seconds(d.span+d.step)
	})
}

func (u *unread) due(now time.Time) bool {
	return u != nil && len(u.Windows) > 0 && now.Unix() >= u.Due
}

// first says that the run is the first of News, as long as it has not come to Past.
func (r *datedRun) first() bool { return r.Wide && r.Twice && !r.Past }

// prove takes note of whether the window which ends with l is read.
func (c *datedCursor) prove(l listing.Listing, d *dated) {
	r := c.Run
	if r.Past && r.Any {
		// It is not empty, so what is older than it need not be either, up to a year.
		for c.Past.End > max(listing.Oldest.Unix(), r.From-seconds(emptyFor)) && len(r.Others) < unreadMost {
			from := max(c.Past.End-seconds(d.span), listing.Oldest.Unix())
			r.Others = append(r.Others, window{from, c.Past.End + seconds(d.step)})
			c.Past.End = from
		}
	}
	if l.There || !r.first() && !r.Past {
		return
	}
	if c.Past == nil {
		c.Past = &unread{Pause: seconds(unreadFirst), Due: r.Asked/1000 + seconds(unreadFirst)}
	}
	w := window{r.From, r.To}
	if r.To == 0 {
		w[1] = max(r.Asked/1000, r.From+1)
	}
	if len(c.Past.Windows) < unreadMost {
		c.Past.Windows = append(c.Past.Windows, w)
	}
}

// readPast makes the run go on with what the first reading has not read. What is still
// not read then comes into c.Past again: see prove.
func (c *datedCursor) readPast(now time.Time) {
	r, u := c.Run, c.Past
	r.Past, r.Late, r.Over, r.Twice, r.Floor = true, false, false, true, 0
	r.Others, u.Windows = u.Windows, nil
	u.Pause = min(2*u.Pause, seconds(day))
	u.Due = now.Unix() + u.Pause
	r.restart()
	r.other()
	r.Again, r.careful = false, careful{Doubt: true} // the next reading asks again
}

// other goes on to the next window of Others, or ends the run.
func (r *datedRun) other() {
	if len(r.Others) == 0 {
		r.Over = true
		return
	}
	r.From, r.To, r.Others = r.Others[0][0], r.Others[0][1], r.Others[1:]
}

// backfillPatience is how long a backfill asks for a list that does not come. After
// that it goes on without it, and says so: there may be none, and its end is waited for.
const backfillPatience = time.Hour

// lacks takes note of whether an answer to a backfill has a list, and fails where the
// same is better asked for again a little later.
func (r *datedRun) lacks(m method, now time.Time, l listing.Listing) error {
	switch {
	case l.There:
		r.Lacks = 0
	case r.Lacks == 0:
		r.Lacks = max(now.Unix(), 1) // saved with this page, behind which careful asks again
	case now.Unix() >= r.Lacks && now.Unix() < r.Lacks+seconds(backfillPatience):
		return &sources.Error{
			Kind: sources.Temporary, Scope: sources.ScopeRequest, Endpoint: m.verb + " " + m.path, Status: http.StatusOK, Err: errors.New("the answer has no list"),
			Hint: fmt.Sprintf("it is asked for again for %s, and then taken for empty", period(backfillPatience)),
		}
	}
	return nil
}
