package wildberries

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
)

// maxCount bounds the answer to a count, in bytes: it is one number in an envelope.
const maxCount = 64 << 10

// count asks how many items of one list were created from one second to another. An
// answer without a number is an unreadable one.
func (c *Client) count(ctx context.Context, q sources.Query, d *dated, answered bool, w window) (n int, date time.Time, err error) {
	resp, err := c.groups[GroupFeedbacks].Get(ctx, apiclient.Request{
		Stream: q.Stream, Walk: q.Walk, Path: d.count,
		Query: url.Values{
			"dateFrom": {strconv.FormatInt(w.From, 10)}, "dateTo": {strconv.FormatInt(w.To, 10)},
			"isAnswered": {strconv.FormatBool(answered)},
		},
		Read: func(body io.Reader, _ time.Time) error {
			var members fields
			if err := json.NewDecoder(io.LimitReader(body, maxCount)).Decode(&members); err != nil {
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
