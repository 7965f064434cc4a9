package wildberries

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/jsonlist"
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
	nullable func(members fields, null bool) bool
}

// listing is what one request to it showed.
type listing struct {
	members fields // what stands around the list, by path: "data.countArchive"
	items   []sources.Item
	odd     []sources.Undecodable
	n       int       // entries, odd ones included
	keys    []uint64  // of the entries in their order, odd ones included: see key
	now     time.Time // our clock or theirs: see clock
	date    time.Time // theirs; zero if they did not say
	null    bool      // there was null in the place of the list
}

// key tells entries apart by what names them. It is the same in every process,
// and sums of keys tell sets of entries apart.
func key(parts ...string) uint64 {
	h := sha256.New()
	for _, s := range parts {
		fmt.Fprintf(h, "%d %s", len(s), s)
	}
	return binary.BigEndian.Uint64(h.Sum(nil))
}

// list sends one request and takes in its answer entry by entry. An entry that is
// no item does not stop the others; an answer that is not the documented one is
// an error, and so is an error inside a 200: were either taken for an empty list,
// a stream would fall silent for ever.
func (c *Client) list(ctx context.Context, q sources.Query, e endpoint, params url.Values) (listing, error) {
	l := listing{}
	resp, err := c.groups[e.group].Get(ctx, apiclient.Request{
		Stream: q.Stream, Walk: q.Walk, Path: e.path, Query: params, Weight: e.weight, Sending: q.Sending, Large: q.Large,
		Read: func(body io.Reader, date time.Time) error {
			l.now = clock(q.Now, date)
			answer, err := jsonlist.Read(body, jsonlist.List{
				Path: e.list,
				Each: func(raw []byte) error {
					item, err := e.decode(raw, l.now)
					if err != nil {
						l.addOdd(raw, err.Error())
						return nil
					}
					l.n++
					l.keys = append(l.keys, key(item.ID...))
					l.items = append(l.items, item)
					return nil
				},
				Odd: l.addOdd,
			})
			l.members, l.null = answer.Members, answer.Null
			if err != nil {
				return err
			}
			return e.whole(l, answer)
		},
	})
	if err != nil {
		return listing{}, err
	}
	l.date = resp.Date
	return l, nil
}

func (l *listing) addOdd(raw []byte, reason string) {
	l.n++
	l.keys = append(l.keys, key("odd", string(raw)))
	l.odd = append(l.odd, sources.Undecodable{Raw: raw, Reason: reason})
}

// whole says what is wrong with an answer as a whole.
func (e endpoint) whole(l listing, a jsonlist.Answer) error {
	// What stands beside items is about something else, if it is not the flag of
	// feedbacks-api: what came is good.
	if err := inside(l.members); err != nil && (l.n == 0 || string(l.members["error"]) == "true") {
		return err
	}
	if (!a.There || a.Null) && (e.nullable == nil || !e.nullable(l.members, a.Null)) {
		return errors.New("the answer has no list of items where it should be")
	}
	return nil
}

// inside is the error that an answer's envelope holds, if any.
func inside(members fields) error {
	if isError(members["error"]) {
		return fmt.Errorf("an error inside a 200: %.200s", errorText(members))
	}
	if errs := members["errors"]; isError(errs) {
		return fmt.Errorf("errors inside a 200: %.200s", errs)
	}
	return nil
}

// isError tells an error from all that says that there is none.
func isError(raw json.RawMessage) bool {
	switch string(bytes.TrimSpace(raw)) {
	case "", "null", "false", "0", `""`, "[]", "{}":
		return false
	}
	return true
}

// nullIsEmpty takes null in the place of a list for an empty one.
func nullIsEmpty(_ fields, null bool) bool { return null }
