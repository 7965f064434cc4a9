package wildberries

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/listing"
)

// maxCount bounds the answer to a count, in bytes: it is one number in an envelope.
const maxCount = 64 << 10

// count asks how many items of one list were created from one second to another. An
// answer without a number is an unreadable one.
func (c *Client) count(ctx context.Context, q sources.Query, d *dated, answered bool, w window) (n int, date time.Time, err error) {
	resp, err := c.groups[GroupFeedbacks].Do(ctx, apiclient.Request{
		Stream: q.Stream, Walk: q.Walk, Path: d.count, Sending: q.Sending,
		Query: url.Values{
			"dateFrom": {strconv.FormatInt(w.From, 10)}, "dateTo": {strconv.FormatInt(w.To, 10)},
			"isAnswered": {strconv.FormatBool(answered)},
		},
		Read: func(body io.Reader, _ time.Time) error {
			var members listing.Fields
			raw, err := io.ReadAll(io.LimitReader(body, maxCount))
			if err == nil {
				err = json.Unmarshal(raw, &members) // all of it: what goes on behind its end is no answer
			}
			if err != nil {
				return fmt.Errorf("the answer is not the documented JSON: %w", err)
			}
			if err := inside(members); err != nil {
				return err
			}
			if err := json.Unmarshal(members["data"], &n); err != nil || n < 0 || string(members["data"]) == "null" {
				return fmt.Errorf("the answer holds no number, but %.100q", members["data"])
			}
			return nil
		},
	})
	if err != nil {
		return 0, time.Time{}, err
	}
	c.heard(resp.Date)
	return n, resp.Date, nil
}

// countTries is how often in a row a count may fail before a run does without: the lists
// and the archive must not wait for one that breaks down every time. It takes half a
// minute by the poller's pauses. While the counts go on failing the next runs try but
// once.
const countTries = 6

// countKey is that of the failures of the counts.
func countKey(q sources.Query) string { return sizeKey(q) + "/count" }

// countless says whether an error means that the counts cannot be had, and not that
// the marketplace cannot be reached.
func countless(err error) bool {
	e, ok := errors.AsType[*sources.Error](err)
	if !ok {
		return false
	}
	// A 403 as well, whatever it says: the lists would meet it if it were about more.
	return e.Kind == sources.Rejected || e.Kind == sources.Unreadable || e.Kind == sources.Forbidden
}
