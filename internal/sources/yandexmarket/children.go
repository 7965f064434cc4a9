package yandexmarket

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

// children are what hangs below the entries of a list, and is asked for one parent at
// a time: comments, answers.
type children struct {
	name   string // for people
	kind   string
	method method
	member string // of `result` that holds them
	parent string // member of a request that names the parent
}

// readChildren fetches the next page of the children of a parent.
func (c *Client) readChildren(ctx context.Context, q sources.Query, d *dated, parent string, s *careful, page *sources.Page) (done bool, err error) {
	e := entries{d.children.member, func(raw json.RawMessage, now time.Time) (sources.Item, error) {
		item, f, err := listing.DecodeNamed(raw, d.children.kind, "id")
		if err != nil {
			return sources.Item{}, err
		}
		item.ID = []string{item.Kind, item.ID[0]}
		item.Subject = []string{d.subject, parent}
		item.Created = listing.Plausible(f.Instant("createdAt"), now) // comments have none
		return item, nil
	}}
	l, err := c.page(ctx, q, d.children.method, 0, e, nil, map[string]json.RawMessage{d.children.parent: json.RawMessage(parent)}, s.Token)
	switch {
	case err != nil && s.again(err):
		return false, nil
	case err != nil && missing(err):
		return true, nil
	case err != nil:
		return false, err
	}
	if newestFirst(l.Items) {
		slices.Reverse(l.Items)
	}
	byCreation(l.Items)
	page.Items, page.Undecodable, page.Date = l.Items, l.Odd, l.Date
	done, page.Note = s.after(d.children.method, l)
	return done, nil
}

// missing says whether a request failed since there is no such parent: it was deleted.
// A path that is wrong gives a 404 as well.
func missing(err error) bool {
	e, ok := errors.AsType[*sources.Error](err)
	return ok && e.Status == http.StatusNotFound && listing.Says(e.Err.Error(), "not found", "не найден") && !listing.Says(e.Err.Error(), "resource not found")
}

// newestFirst says whether children without a time are in the opposite of the order in
// which they were published, which is documented as theirs, but not in which direction:
// a comment comes after the one that it answers. Where none is answered the ids tell.
func newestFirst(items []sources.Item) bool {
	place := make(map[string]int, len(items))
	for i, it := range items {
		place[it.ID[1]] = i
	}
	falls := len(items) > 1
	before := int64(0)
	for i, it := range items {
		f := listing.Object(it.Body)
		if answered, ok := place[f.Text("parentId")]; ok && answered != i {
			return answered > i
		}
		id := f.Whole("id")
		falls = falls && (i == 0 || id < before)
		before = id
	}
	return falls
}

// queued fetches the next page of the children of the first parent of the queue.
func (c *Client) queued(ctx context.Context, q sources.Query, d *dated, r *datedRun, page *sources.Page) error {
	done, err := c.readChildren(ctx, q, d, r.Queue[0], &r.Child, page)
	if e := hopeless(err); e != nil {
		page.Failed, r.Partial, done, err = e, true, true, nil
	}
	if done {
		r.Queue, r.Child = r.Queue[1:], careful{}
	}
	return err
}
