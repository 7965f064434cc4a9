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

// probeStream is what metrics call the requests of Probe.
const probeStream = "check"

// Probe tries the token of an API group with the cheapest request that the group
// has, and pays for it like for any other. Its errors are those of Fetch: while
// the budget has no token before ctx's deadline, sources.BudgetWait.
func (c *Client) Probe(ctx context.Context, group string) (sources.Report, error) {
	r := apiclient.Request{Stream: probeStream, Walk: sources.News}
	switch group {
	case GroupFeedbacks:
		r.Path = "/api/v1/questions/count-unanswered"
	case GroupChat: // from now on, which nothing has happened in
		r.Path, r.Query = pathEvents, url.Values{"next": {strconv.FormatInt(time.Now().UnixMilli(), 10)}}
	case GroupReturns:
		r.Path, r.Query = pathClaims, url.Values{"is_archive": {"false"}, "limit": {"1"}}
	default:
		return sources.Report{}, fmt.Errorf("wildberries has no API group %q", group)
	}
	r.Read = func(body io.Reader, _ time.Time) error {
		// Any of the documented answers is a small object without an error inside.
		// What it lists does not matter here.
		var f listing.Fields
		if err := json.NewDecoder(io.LimitReader(body, 1<<20)).Decode(&f); err != nil {
			return fmt.Errorf("the answer is not the documented JSON: %w", err)
		}
		if f == nil {
			return errors.New("the answer is null")
		}
		return inside(f)
	}
	_, err := c.groups[group].Do(ctx, r)
	return sources.Report{}, err
}
