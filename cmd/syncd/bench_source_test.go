package main

import (
	"context"
	"encoding/json"
	"net/url"
	"strconv"
	"time"

	"syncd/internal/config"
	"syncd/internal/event"
	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/listing"
)

// benchMarketplace is a marketplace whose limits are not the speed: a list by a
// cursor, and a bucket that is never empty. All else is what every marketplace uses.
func benchMarketplace() marketplace {
	return marketplace{
		name: "bench", groups: map[string]string{"api": "http://127.0.0.1"},
		streams: []sources.Stream{{Name: "items", Group: "api", Kinds: []string{"item"}, Actions: []string{event.Created, event.Updated}, Schedule: "@every 1s"}},
		describe: func(config.Account, string) (tokenFacts, error) {
			return tokenFacts{Seller: "bench", Type: "bench", Opens: true}, nil
		},
		probes: func(string) []string { return nil },
		open:   openBench,
	}
}

type benchSource struct{ client *apiclient.Client }

func openBench(d deps, a config.Account) (sources.Source, error) {
	key := apiclient.Key{Marketplace: "bench", Seller: "bench", Group: "api"}
	bucket, err := d.budgets.Bucket(key, a.Name, apiclient.Limit{Interval: time.Nanosecond, Burst: 1 << 30}, 1)
	if err != nil {
		return nil, err
	}
	client, err := apiclient.New(apiclient.Config{
		Account: a.Name, Marketplace: "bench", Budget: "api", BaseURL: a.Endpoints["api"], Token: a.Tokens["api"].Reveal(), UserAgent: userAgent(),
		Bucket: bucket, Metrics: d.requests, Transport: d.transport, Grace: d.grace, Heard: d.heard, Told: d.told,
	})
	if err != nil {
		return nil, err
	}
	return &benchSource{client}, nil
}

func (s *benchSource) Seller() string { return "bench" }

func (s *benchSource) Fetch(ctx context.Context, q sources.Query) (sources.Page, error) {
	var cursor struct {
		After int64 `json:"after"`
	}
	if q.Cursor != nil {
		if err := json.Unmarshal(q.Cursor, &cursor); err != nil {
			return sources.Page{}, err
		}
	}
	l, err := listing.Read(ctx, s.client, apiclient.Request{
		Stream: q.Stream, Walk: q.Walk, Path: "/items", Query: url.Values{"after": {strconv.FormatInt(cursor.After, 10)}}, Sending: q.Sending, Large: q.Large,
	}, q.Now, listing.Method{List: []string{"items"}, Decode: decodeBenchItem})
	if err != nil {
		return sources.Page{}, err
	}
	cursor.After = l.Members.Whole("next")
	next, err := json.Marshal(cursor)
	return sources.Page{Items: l.Items, Undecodable: l.Odd, Cursor: next, Done: l.N < benchPage, Date: l.Date}, err
}

func decodeBenchItem(raw json.RawMessage, now time.Time) (sources.Item, error) {
	item, f, err := listing.DecodeNamed(raw, "item", "id")
	item.Created = listing.Plausible(f.Instant("createdDate"), now)
	return item, err
}
