package yandexmarket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

// The sweep asks for what waits for the seller. What waited the last time and does not
// any more was answered, or else dealt with: a question is worth a visit at once, a
// review is read by its id, which shows whether it has a comment.

const (
	// waitingMost bounds those that a sweep knows the next time. What waits beyond them
	// is visited by its age alone, and read by Full.
	waitingMost = 1000
	// askMost is how many may be asked for by their ids (OpenAPI document).
	askMost = 50
)

func idsSound(ids []int64) bool { return len(ids) <= waitingMost && slices.IsSorted(ids) }

// waited takes in what a page of a sweep shows to wait, and behind the last one sees to
// those that have waited up to now.
func (c *datedCursor) waited(q sources.Query, d *dated, page *sources.Page) error {
	r := c.Run
	for _, it := range page.Items {
		id, err := strconv.ParseInt(it.ID[1], 10, 64)
		if err != nil {
			continue
		}
		if i, ok := slices.BinarySearch(r.Left, id); ok {
			r.Left = slices.Delete(r.Left, i, i+1)
		}
		if i, ok := slices.BinarySearch(r.Now, id); !ok && len(r.Now) < waitingMost {
			r.Now = slices.Insert(r.Now, i, id)
		}
	}
	if !r.Over {
		return nil
	}
	c.Waiting, r.Now = r.Now, nil
	switch {
	case len(r.Left) == 0:
	case d.byID != "":
		r.Over, r.Ask, r.careful = false, askMost, careful{}
	case r.Partial:
		c.waitOn(r.Left...) // nobody knows which of them the rest of the list has
	default:
		for _, id := range r.Left {
			v, ok, err := remembered(q, strconv.FormatInt(id, 10))
			if err != nil {
				return err
			}
			if ok && string(v.Found) == string(needsAnswer) {
				v.Found, v.Due, v.Urgent = hasAnswer, q.Now, true
				page.Found = append(page.Found, v)
			}
		}
	}
	return nil
}

// waitOn leaves some that the run has not seen to for the next one.
func (c *datedCursor) waitOn(ids ...int64) {
	for _, id := range ids {
		if i, ok := slices.BinarySearch(c.Waiting, id); !ok && len(c.Waiting) < waitingMost {
			c.Waiting = slices.Insert(c.Waiting, i, id)
		}
	}
}

// readGone fetches the next page of those that do not wait any more. What does not work
// is left to the next sweep: it must not keep this one from its end.
func (c *Client) readGone(ctx context.Context, q sources.Query, d *dated, cur *datedCursor, page *sources.Page) error {
	r := cur.Run
	n := min(r.Ask, len(r.Left))
	l, err := c.page(ctx, q, d.list, 0, d.items, nil, map[string][]int64{d.byID: r.Left[:n]}, r.Token)
	if err != nil {
		e, ok := errors.AsType[*sources.Error](err)
		switch {
		case r.careful.again(err):
		case missing(err) && n > 1:
			r.Ask, r.careful = n/2, careful{} // one of them was deleted
		case missing(err):
			r.gone(n)
		case ok && (e.Kind == sources.Rejected || e.Kind == sources.Unreadable || e.Status >= http.StatusInternalServerError):
			cur.waitOn(r.Left...)
			r.Over = true
			page.Note = fmt.Sprintf("%s cannot show %s by their ids: what was answered shows later", d.list.path, d.name)
		default:
			return err
		}
		return nil
	}
	byCreation(l.Items)
	page.Items, page.Undecodable, page.Date = l.Items, l.Odd, l.Date
	for _, it := range l.Items {
		// The list has not shown it, since it broke off or its pages shifted.
		if id, err := strconv.ParseInt(it.ID[1], 10, 64); err == nil && string(listing.Object(it.Body)["needReaction"]) == "true" {
			cur.waitOn(id)
		}
	}
	var end bool
	switch end, page.Note = r.careful.after(d.list, l); {
	case end && !l.There:
		cur.waitOn(r.Left...)
		r.Over = true
	case end:
		r.gone(n)
	}
	return nil
}

// gone goes on behind the first n of Left.
func (r *datedRun) gone(n int) {
	r.Left, r.careful = r.Left[n:], careful{}
	r.Ask = min(2*r.Ask, askMost)
	r.Over = len(r.Left) == 0
}
