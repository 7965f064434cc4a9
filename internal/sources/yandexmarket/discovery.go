package yandexmarket

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

const (
	discoverEvery = time.Hour
	// maxStores bounds the stores of one business that are kept: as many as can be read
	// one after the other in ten minutes.
	maxStores = 2_000
)

// store is a store of the business, and how far its returns have been read.
type store struct {
	ID    int64  `json:"id"`
	Off   bool   `json:"off,omitempty"`   // the marketplace says that its API is switched off, or does not show it any more
	State string `json:"state,omitempty"` // of one that is off: its apiAvailability; empty: the marketplace does not show it
	Found int64  `json:"found,omitempty"` // when it was discovered, by the clock that is behind, Unix seconds; 0: with the first
	Shown uint64 `json:"shown,omitempty"` // the last discovery that showed it

	// Read is up to when every update has been read, by the clock that is behind, Unix
	// seconds; 0: there was no complete reading. It stands still while the store cannot
	// be read, however long that is.
	Read    int64    `json:"read,omitempty"`
	Reading *reading `json:"reading,omitempty"` // that goes on, perhaps since an earlier run
	Past    *reading `json:"past,omitempty"`    // of what was there before the first one, which takes as many runs as it takes
	Failing bool     `json:"failing,omitempty"` // it could not be read the last time
	Run     uint64   `json:"run,omitempty"`     // the last run that is through with it

	Again *storeAgain `json:"again,omitempty"` // nil: it does not wait to be tried again in this run
}

// discovery is a reading of the list of stores.
type discovery struct {
	Scan scan `json:"scan"`
}

// shop is an entry of GET v2/campaigns.
type shop struct {
	id, business     int64
	name, owner      string
	placement, state string
}

// unavailable are the values of apiAvailability by which a store's API is switched off,
// in words. Those that are not known yet count as available: a store that is not is
// refused, and costs only itself.
var unavailable = map[string]string{
	"DISABLED_BY_INACTIVITY":         "switched off, since nothing was on offer for 90 days",
	"DISABLED_BY_NO_ACTIVE_CONTRACT": "switched off for want of a contract",
	"MANUALLY_DISABLED":              "switched off by hand",
	"DISABLED_BY_NO_PLACEMENT_TYPE":  "switched off for want of a placement",
}

func (s shop) off() bool { return unavailable[s.state] != "" }

// campaigns asks for a page of the stores that the key sees. patience is as in
// apiclient.Request.
func (c *Client) campaigns(ctx context.Context, q sources.Query, token string, patience time.Duration) (listing.Listing, []shop, error) {
	r, err := c.request(q, getCampaigns, 0)
	if err != nil {
		return listing.Listing{}, nil, err
	}
	r.Patience = patience
	r.Query = url.Values{"limit": {strconv.Itoa(c.sizes.of(getCampaigns))}}
	if token != "" {
		r.Query.Set("pageToken", token)
	}
	var shops []shop
	l, err := listing.Read(ctx, c.api, r, q.Now, listing.Method{
		List: []string{"campaigns"},
		Decode: func(raw json.RawMessage, _ time.Time) (sources.Item, error) {
			f := listing.Object(raw)
			owner := listing.Object(f["business"])
			s := shop{id: f.Whole("id"), business: owner.Whole("id"), name: f.Text("domain"), owner: owner.Text("name"),
				placement: f.Text("placementType"), state: f.Text("apiAvailability")}
			if s.id <= 0 {
				return sources.Item{}, fmt.Errorf("a store whose id is %.40q", f["id"])
			}
			shops = append(shops, s)
			return sources.Item{ID: []string{strconv.FormatInt(s.id, 10)}}, nil
		},
		Check: func(l listing.Listing) error {
			if !l.There {
				return fmt.Errorf("the answer has no list of stores: its status is %.100q: %.200s", l.Members.Text("status"), l.Members["errors"])
			}
			return nil
		},
	})
	return l, shops, err
}

// discover reads a page of the list of stores: the first pages of a run. Without it
// the run goes on with the stores that are known.
func (c *Client) discover(ctx context.Context, q sources.Query, cur *returnsCursor) (sources.Page, error) {
	d := cur.Run.Discovery
	patience := patience
	if len(cur.Stores) == 0 {
		patience = 0 // there is nothing to be done meanwhile
	}
	l, shops, err := c.campaigns(ctx, q, d.Scan.Token, patience)
	page := sources.Page{Began: cur.Run.began(), Date: l.Date}
	at := behind(q.Now, l.Date)
	if err != nil {
		at = behind(q.Now, cur.clock())
		e, whole := failure(ctx, err)
		switch {
		case d.Scan.again(err):
			return cur.page(page)
		case whole:
			return sources.Page{}, err
		}
		c.configured(cur, at)
		if len(cur.Stores) == 0 {
			return sources.Page{}, err
		}
		e.Hint = cmp.Or(e.Hint, "the stores that are known are read all the same")
		cur.Run.Discovery, cur.Run.Partial, page.Failed = nil, true, e
		return cur.page(page)
	}
	cur.hear(l.Date)
	page.Undecodable = l.Odd
	ours, other := c.own(shops)
	if len(ours) == 0 && other != 0 && d.Scan.Pages == 0 {
		return sources.Page{}, c.anotherBusiness(other)
	}
	for _, s := range ours {
		if st := c.find(cur, s.id, at); st != nil {
			if st.Off, st.State, st.Shown = s.off(), "", cur.Discoveries; st.Off {
				st.State = s.state
			}
		} else if c.reads(s.id) {
			page.Note = fmt.Sprintf("the business has more than %d stores: the rest is not read", maxStores)
		}
	}
	done, note := d.Scan.after(getCampaigns, l)
	if note != "" {
		page.Note = note
	}
	if !done {
		return cur.page(page)
	}
	cur.Run.Discovery = nil
	hidden := c.configured(cur, at)
	if note == "" {
		for i := range cur.Stores {
			if st := &cur.Stores[i]; st.Shown != cur.Discoveries {
				st.Off, st.State = !slices.Contains(c.cfg.Campaigns, st.ID), ""
			}
		}
		if len(hidden) > 0 {
			page.Note = fmt.Sprintf("the key does not show these of the configured campaigns, which are tried all the same: %.200s", strings.Join(hidden, ", "))
		}
		// From the next one on what is new is new to the stream too.
		cur.Discovered = q.Now.Unix()
	}
	if page.Note == "" && !slices.ContainsFunc(cur.Stores, c.readable) {
		page.Note = "the business has no store whose API is available: there are no returns to read until it has one"
		if out := c.leftOut(cur); out != "" {
			page.Note += ": " + out
		}
	}
	return cur.page(page)
}

// leftOutNamed is how many stores that are not read are named.
const leftOutNamed = 10

// leftOut names the stores that are not read, since they are off, and says why; empty:
// there are none.
func (c *Client) leftOut(cur *returnsCursor) string {
	var named []string
	others := 0
	for _, st := range cur.Stores {
		switch {
		case !st.Off || !c.reads(st.ID):
		case len(named) >= leftOutNamed:
			others++
		default:
			named = append(named, fmt.Sprintf("%d (%s)", st.ID, cmp.Or(unavailable[st.State], "not shown to the key")))
		}
	}
	if others > 0 {
		named = append(named, several(others, "other"))
	}
	return strings.Join(named, ", ")
}

// own are those of shops that are of the business of the account. other is another
// business, where some are not.
func (c *Client) own(shops []shop) (ours []shop, other int64) {
	for _, s := range shops {
		if s.business != 0 && s.business != c.cfg.Business {
			other = s.business
		} else {
			ours = append(ours, s)
		}
	}
	return ours, other
}

// anotherBusiness is the error of a key that shows stores, and none of the business
// that the account is of: a key is of one business (documentation, Api-Key). It stops
// the account, since all methods name the business.
func (c *Client) anotherBusiness(other int64) error {
	return &sources.Error{Kind: sources.Forbidden, Scope: sources.ScopeGroup, Endpoint: getCampaigns.verb + " " + getCampaigns.path, Request: getCampaigns.path,
		Err:  fmt.Errorf("the key shows the stores of business %d and none of business %d", other, c.cfg.Business),
		Hint: fmt.Sprintf("give the account the key of business %d; business %d needs an account of its own, with business_id: %d", c.cfg.Business, other, other)}
}

// configured adds the stores that the configuration names, and returns those that the
// discovery that goes on, or has ended, has not shown.
func (c *Client) configured(cur *returnsCursor, at time.Time) (hidden []string) {
	for _, id := range c.cfg.Campaigns {
		if st := c.find(cur, id, at); st != nil && st.Shown != cur.Discoveries {
			hidden = append(hidden, strconv.FormatInt(id, 10))
		}
	}
	return hidden
}

// unknown says whether the configuration names a store that no discovery has looked
// for yet.
func (c *Client) unknown(cur *returnsCursor) bool {
	return slices.ContainsFunc(c.cfg.Campaigns, func(id int64) bool {
		_, known := cur.index(id)
		return !known
	})
}

// index is where a store is, or belongs, among those of the cursor.
func (c *returnsCursor) index(id int64) (i int, known bool) {
	return slices.BinarySearchFunc(c.Stores, id, func(st store, id int64) int { return cmp.Compare(st.ID, id) })
}

// find returns a store of the cursor, which is added where it is not known yet; nil if
// it is not one of those to read, or one too many.
//
// One that appears after the first discovery begins then: contract §4.
func (c *Client) find(cur *returnsCursor, id int64, at time.Time) *store {
	i, known := cur.index(id)
	if !known {
		if !c.reads(id) || len(cur.Stores) >= maxStores {
			return nil
		}
		st := store{ID: id}
		if cur.Discovered > 0 {
			st.Found = max(at.Unix(), 1)
		}
		cur.Stores = slices.Insert(cur.Stores, i, st)
	}
	return &cur.Stores[i]
}

// reads says whether the configuration wants a store read.
func (c *Client) reads(id int64) bool {
	return len(c.cfg.Campaigns) == 0 || slices.Contains(c.cfg.Campaigns, id)
}

// readable says whether a store is one to read now. One that has left the
// configuration keeps its place for when it comes back.
func (c *Client) readable(st store) bool { return !st.Off && c.reads(st.ID) }
