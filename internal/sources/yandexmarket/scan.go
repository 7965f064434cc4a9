package yandexmarket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"sync"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

const (
	maxToken    = 4 << 10 // bytes of a page token
	maxPages    = 100_000 // of one scan
	maxRestarts = 3       // of one scan, in a row
)

// entries says how to read the entries of a list.
type entries struct {
	name   string // of the member of `result` that holds them
	decode func(raw json.RawMessage, now time.Time) (sources.Item, error)
}

// scan is a list that is read page by page: `nextPageToken` of each page asks for the
// next one, and the last page has none. The token is good for the scan alone, in
// some lists for longer. All of it is what a cursor keeps.
type scan struct {
	Token    string `json:"token,omitempty"`    // of the next page; empty: the first
	Pages    int    `json:"pages,omitempty"`    // that were read
	Most     int    `json:"most,omitempty"`     // of the readings before the last restart
	Restarts int    `json:"restarts,omitempty"` // since a reading got further than those before it
	Mark     uint64 `json:"mark,omitempty"`     // what the page showed whose number was the last power of two
}

func (s *scan) sound() bool {
	return s == nil || len(s.Token) <= maxToken && sources.Counts(s.Pages, s.Most, s.Restarts) && max(s.Pages, s.Most) <= maxPages && s.Restarts <= 2*maxRestarts
}

// again begins the scan anew after err, and returns true, where that says that its
// token is bad: nobody says how long one lives. Whoever read the list has to forget
// what he made of the pages so far: all of them come again.
func (s *scan) again(err error) bool {
	if s.Token == "" || !badToken(err) {
		return false
	}
	*s = scan{Most: max(s.Most, s.Pages), Restarts: s.Restarts + 1}
	return true
}

// badToken says whether a request failed since its page token is not good any more.
func badToken(err error) bool {
	e, ok := errors.AsType[*sources.Error](err)
	return ok && e.Status == http.StatusBadRequest && badPageToken(e.Err.Error())
}

// after takes in a page. note is not empty where the rest of the list cannot be read:
// the scan ends there, and is not whole.
func (s *scan) after(m method, l listing.Listing) (done bool, note string) {
	next, err := nextToken(l)
	shown := listing.Key(next) // of a page without entries: no more than where it leads
	if l.N > 0 {
		shown = 0
		for _, k := range l.Keys {
			shown += k
		}
	}
	// A token says nothing of the page that it leads to: one that stays the same may
	// move on, and one that changes lead back. A circle, of whatever length, comes
	// back to what some power of two has shown.
	circle := s.Pages > 0 && shown == s.Mark
	s.Pages++
	if s.Pages&(s.Pages-1) == 0 {
		s.Mark = shown
	}
	s.Token = next
	if s.Pages > s.Most {
		s.Restarts = 0
	}
	switch {
	case !l.There && !l.Null:
		// The OpenAPI document lets it be missing, and so does many a failure.
		return true, fmt.Sprintf("%s answers without a list: what would be in it is not read", m.path)
	case err != nil:
		return true, fmt.Sprintf("%s: %v: the rest of the list is not read", m.path, err)
	case next == "":
		return true, ""
	case circle:
		return true, fmt.Sprintf("%s shows its pages in circles: the rest of the list is not read", m.path)
	case s.Pages >= maxPages:
		return true, fmt.Sprintf("%s has no end after %d pages: the rest of the list is not read", m.path, s.Pages)
	case s.Restarts >= maxRestarts && s.Pages == s.Most, s.Restarts >= 2*maxRestarts:
		return true, fmt.Sprintf("%s: the token of page %d was refused %d times in a row: the rest of the list is not read", m.path, s.Pages+1, s.Restarts)
	}
	return false, ""
}

// nextToken is the token of the page behind l; empty: there is none.
func nextToken(l listing.Listing) (string, error) {
	paging := l.Members["result.paging"]
	if paging == nil {
		paging = l.Members["paging"]
	}
	token := listing.Object(paging).Text("nextPageToken")
	if len(token) > maxToken {
		return "", fmt.Errorf("the page token has %d bytes, more than %d", len(token), maxToken)
	}
	return token, nil
}

// sizes are the pages' sizes that the marketplace has said to be the most, where that
// is not what is documented, by the names of methods.
type sizes struct {
	mu   sync.Mutex
	most map[string]int
}

func (s *sizes) of(m method) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, ok := s.most[m.name]; ok {
		return n
	}
	return m.most
}

// tooLarge is what the marketplace says to a page that is larger than it may be.
var tooLarge = regexp.MustCompile(`(?i)limit must be less than or equal to '?([0-9]{1,9})\b`)

// lower takes note of err where that says that pages of asked entries are too large,
// and returns true where the same request can work now.
func (s *sizes) lower(m method, asked int, err error) bool {
	e, ok := errors.AsType[*sources.Error](err)
	if !ok || e.Status != http.StatusBadRequest {
		return false
	}
	said := tooLarge.FindStringSubmatch(e.Err.Error())
	if said == nil {
		return false
	}
	n, err := strconv.Atoi(said[1])
	if n = max(n, 1); err != nil || n >= asked {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.most == nil {
		s.most = make(map[string]int)
	}
	s.most[m.name] = n
	return true
}

// page asks for a page of a list: the first one, or the one that token names. body is
// the filter, which is the same for all pages of a scan; nil: the method takes none.
// Pages have the size that params say, or the largest that there is.
func (c *Client) page(ctx context.Context, q sources.Query, m method, campaign int64, e entries, params url.Values, body any, token string) (listing.Listing, error) {
	r, err := c.request(q, m, campaign)
	if err != nil {
		return listing.Listing{}, err
	}
	limit := c.sizes.of(m)
	r.Query = url.Values{"limit": {strconv.Itoa(limit)}}
	for k, v := range params {
		r.Query[k] = v
	}
	if token != "" {
		r.Query.Set("pageToken", token)
	}
	if body != nil {
		if r.Body, err = json.Marshal(body); err != nil {
			return listing.Listing{}, err
		}
	}
	l, err := listing.Read(ctx, c.api, r, q.Now, listing.Method{List: []string{"result", e.name}, Decode: e.decode, Check: envelope})
	if err != nil && c.sizes.lower(m, limit, err) {
		sources.AsError(err).Kind = sources.Temporary // smaller pages are asked for from now on
	}
	return l, err
}

// envelope says what is wrong with an answer as a whole. `result` may be missing
// (OpenAPI document: it is not required), which is a list without entries; but then
// the answer has to say that it is OK.
func envelope(l listing.Listing) error {
	status := l.Members.Text("status")
	switch {
	case l.There && !l.Null && (status == "OK" || l.N > 0):
		return nil
	case status != "OK":
		return fmt.Errorf("the answer's status is %.100q instead of OK: %.200s", status, l.Members["errors"])
	}
	return nil
}
