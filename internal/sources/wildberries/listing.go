package wildberries

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/listing"
)

// endpoint is one listing method of the API.
type endpoint struct {
	group  string
	path   string
	weight float64  // of its requests; see apiclient.Request
	list   []string // where the answer has its items
	// decode reads one entry. raw is the entry as it was sent, and decode's to keep.
	decode func(raw json.RawMessage, now time.Time) (sources.Item, error)
	// nullable says whether an answer with null in the place of its list, or with
	// nothing there, is an empty one. Nil: never.
	nullable func(members listing.Fields, null bool) bool
}

// list sends one request. An answer that is not the documented one is an error, and
// so is an error inside a 200: were either taken for an empty list, a stream would
// fall silent for ever.
func (c *Client) list(ctx context.Context, q sources.Query, e endpoint, params url.Values) (listing.Listing, error) {
	return listing.Read(ctx, c.groups[e.group], apiclient.Request{
		Stream: q.Stream, Walk: q.Walk, Path: e.path, Query: params, Weight: e.weight, Sending: q.Sending, Large: q.Large,
	}, q.Now, listing.Method{List: e.list, Decode: e.decode, Check: e.check})
}

// check says what is wrong with an answer as a whole.
func (e endpoint) check(l listing.Listing) error {
	// What stands beside items is about something else, if it is not the flag of
	// feedbacks-api: what came is good.
	if err := inside(l.Members); err != nil && (l.N == 0 || string(l.Members["error"]) == "true") {
		return err
	}
	if (!l.There || l.Null) && (e.nullable == nil || !e.nullable(l.Members, l.Null)) {
		return errors.New("the answer has no list of items where it should be")
	}
	return nil
}

// inside is the error that an answer's envelope holds, if any.
func inside(members listing.Fields) error {
	if listing.IsError(members["error"]) {
		return fmt.Errorf("an error inside a 200: %.200s", errorText(members))
	}
	if errs := members["errors"]; listing.IsError(errs) {
		return fmt.Errorf("errors inside a 200: %.200s", errs)
	}
	return nil
}

// nullIsEmpty takes null in the place of a list for an empty one.
func nullIsEmpty(_ listing.Fields, null bool) bool { return null }
