package yandexmarket

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// pageSizes are the limits of a method's pages.
type pageSizes struct {
	byDefault, max int
	// cut reduces a limit that is too large to max instead of refusing it.
	cut bool
}

// pageKey orders the entries of a paged list: smaller ones first.
type pageKey [2]int64

// token is what a page token says. Its form is nobody's business but the API's.
type token struct {
	Scan string  `json:"s"` // method, entity and filters
	Seed uint64  `json:"r"` // of the scan, for orders that are drawn
	Key  pageKey `json:"k"` // of the last entry of the page before
	Skip int     `json:"o"` // how many entries came before
	Made int64   `json:"t"`
	List uint64  `json:"v"` // what the list was like
	N    int     `json:"n"` // of the scan's pages
}

// tokenBook counts how often page tokens were used, with [Quirks.TokenUses]. The Market's mutex guards it.
type tokenBook struct {
	uses map[string]int
	old  []string // their order
}

// keptTokens bounds the book.
const keptTokens = 10_000

// page cuts the page that a request asks for out of a list, and gives the token of the next one; "": it is the last.
// filters tell one scan from another: a token is good with the same ones only. key gives the order of the entries as the
// method has it; seed is the same for all pages of a scan, for orders that are drawn. The list is put in order in place.
func page[T any](c *call, list []T, sizes pageSizes, filters string, key func(entry T, seed uint64) pageKey) (part []T, next string, refusal *answer) {
	limit, refusal := c.limit(sizes)
	if refusal != nil {
		return nil, "", refusal
	}
	scan := fmt.Sprintf("%s %d %v %s", c.rt.method, c.b.spec.ID, c.vars, filters)
	at := token{Scan: digest(scan), Seed: uint64(c.now.UnixNano())}
	given := c.query.Get("pageToken")
	if given == "" {
		given = c.query.Get("page_token")
	}
	if given != "" {
		if at, refusal = c.readToken(given, digest(scan)); refusal != nil {
			return nil, "", refusal
		}
	}
	type keyed struct {
		key   pageKey
		entry T
	}
	ordered := make([]keyed, len(list))
	version := fnv.New64a()
	for i, entry := range list {
		ordered[i] = keyed{key(entry, at.Seed), entry}
	}
	compare := func(a, b pageKey) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) }
	slices.SortStableFunc(ordered, func(a, b keyed) int { return compare(a.key, b.key) })
	if c.quirks.TokensDieWithList {
		for _, k := range ordered {
			_, _ = fmt.Fprint(version, k.key) // a hash does not fail
		}
	}
	if given != "" && c.quirks.TokensDieWithList && at.List != version.Sum64() {
		return nil, "", refuse(http.StatusBadRequest, badToken)
	}
	from := 0
	if given != "" {
		from = min(at.Skip, len(ordered))
		if !c.quirks.TokensCount {
			from, _ = slices.BinarySearchFunc(ordered, at.Key, func(k keyed, last pageKey) int {
				return cmp.Or(compare(k.key, last), -1) // behind the last one
			})
		}
	}
	if c.quirks.Overlap && from > 0 && from < len(ordered) && limit > 1 { // behind the end there is nothing to show again
		from--
	}
	to := min(len(ordered), from+limit)
	part = make([]T, 0, to-from)
	for _, k := range ordered[from:to] {
		part = append(part, k.entry)
	}
	if to < len(ordered) || c.quirks.EmptyLastPage && to > from {
		at.Key, at.Skip, at.Made, at.List = ordered[to-1].key, to, c.now.UnixNano(), version.Sum64()
		at.N++
		next = c.market.sealToken(at)
	}
	return part, next, nil
}

// limit reads the page size. It goes into the query; in a body it is ignored, as all that is unknown.
func (c *call) limit(sizes pageSizes) (int, *answer) {
	raw := c.query.Get("limit")
	if raw == "" {
		return sizes.byDefault, nil
	}
	n, err := strconv.Atoi(raw)
	switch {
	case err != nil:
		return 0, refuse(http.StatusBadRequest, badParameter("limit", raw))
	case n < 1:
		return 0, refuse(http.StatusBadRequest, "Parameter limit must be greater than or equal to '1'")
	case n > sizes.max && sizes.cut:
		return sizes.max, nil
	case n > sizes.max:
		return 0, refuse(http.StatusBadRequest, fmt.Sprintf("Parameter limit must be less than or equal to '%d' (rejected value: '%d')", sizes.max, n))
	}
	return n, nil
}

const badToken = "Bad page token"

// readToken opens a token, and refuses one that is forged, of another scan, or over.
func (c *call) readToken(given, scan string) (token, *answer) {
	bad := refuse(http.StatusBadRequest, badToken)
	sealed, err := base64.URLEncoding.DecodeString(given)
	if err != nil || len(sealed) < 8 {
		return token{}, bad
	}
	var t token
	seal, body := sealed[:8], sealed[8:]
	if string(seal) != string(c.market.seal(body)) || json.Unmarshal(body, &t) != nil || t.Scan != scan {
		return token{}, bad
	}
	if life := c.quirks.TokenLife; life > 0 && c.now.Sub(time.Unix(0, t.Made)) > life {
		return token{}, bad
	}
	if c.quirks.TokenUses > 0 && c.market.useToken(given) > c.quirks.TokenUses {
		return token{}, bad
	}
	return t, nil
}

func (m *Market) sealToken(t token) string {
	body, _ := json.Marshal(t) // numbers and a string
	return base64.URLEncoding.EncodeToString(append(m.seal(body), body...))
}

// seal tells a token of this marketplace from any other. It keeps honest people out.
func (m *Market) seal(body []byte) []byte {
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, m.seed) // a hash does not fail
	_, _ = h.Write(body)
	return h.Sum(nil)
}

// useToken counts a use.
func (m *Market) useToken(given string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tokens.uses[given] == 0 {
		if len(m.tokens.old) == keptTokens {
			delete(m.tokens.uses, m.tokens.old[0])
			m.tokens.old = m.tokens.old[1:]
		}
		m.tokens.old = append(m.tokens.old, given)
	}
	m.tokens.uses[given]++
	return m.tokens.uses[given]
}

func digest(s string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(s))
	return strconv.FormatUint(h.Sum64(), 36)
}

// paging is the field of that name. Without a token it is empty: the page was the last.
type paging struct {
	NextPageToken string `json:"nextPageToken,omitempty"`
}

// paging is the field of that name of an answer.
func (c *call) paging(next string) *paging {
	if next == "" && c.quirks.NoPagingAtEnd {
		return nil
	}
	return &paging{next}
}

// draw draws what is another in every answer.
func (m *Market) draw() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dice.Uint64()
}

// drawn is a key for orders that are drawn: by an id and a seed.
func drawn(id int64, seed uint64) pageKey {
	x := (uint64(id) + seed) * 0x9e3779b97f4a7c15
	x ^= x >> 31
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 29
	return pageKey{int64(x), id}
}
