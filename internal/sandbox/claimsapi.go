package sandbox

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"syncd/internal/sandbox/kit"
)

// claimProblem is an error of the returns service itself.
type claimProblem struct {
	Title     string `json:"title"`
	Detail    string `json:"detail"`
	RequestID string `json:"requestId"`
}

// Limits of GET /api/v1/claims.
const (
	defaultClaims = 50
	maxClaims     = 200
)

// claimQuery is what GET /api/v1/claims is asked for.
type claimQuery struct {
	archived      bool
	id            string
	nmID          int
	limit, offset int
}

// readClaimQuery reads the parameters. An error's text is the end of the 400's detail, in the words of the server (axum and
// serde, by the documented example); what it says of a limit outside its bounds is a guess.
func (c *call) readClaimQuery() (claimQuery, error) {
	q := claimQuery{id: c.query.Get("id"), limit: defaultClaims}
	if !c.query.Has("is_archive") {
		return q, errors.New("missing field `is_archive`")
	}
	var valid bool
	if q.archived, valid = boolean(c.query.Get("is_archive")); !valid {
		return q, errors.New("is_archive: provided string was not `true` or `false`")
	}
	for name, to := range map[string]*int{"limit": &q.limit, "offset": &q.offset, "nm_id": &q.nmID} {
		if !c.query.Has(name) {
			continue
		}
		n, err := strconv.Atoi(c.query.Get(name))
		if err != nil || n < 0 {
			return q, errors.New(name + ": invalid digit found in string")
		}
		*to = n
	}
	if q.limit < 1 || q.limit > maxClaims {
		return q, errors.New("limit: expected a number from 1 to 200")
	}
	return q, nil
}

// serveClaims answers GET /api/v1/claims.
func serveClaims(c *call) answer {
	q, err := c.readClaimQuery()
	if err != nil {
		return kit.JSON(http.StatusBadRequest, typeProblem, claimProblem{
			Title: "Invalid query params", Detail: "Failed to deserialize query string: " + err.Error(), RequestID: c.sandbox.requestUUID(),
		})
	}
	c.world.lock(c.now)
	items, total := c.world.claims.page(q, c.quirks.ClaimOrder, c.now.UnixNano())
	c.world.mu.Unlock()
	tail := `],"total":` + strconv.Itoa(total) + `}`
	return answer{Status: http.StatusOK, ContentType: typeJSON, Body: kit.List([]byte(`{"claims":[`), items, []byte(tail))}
}

// page returns rendered claims, and how many match without limit and offset.
func (c *claimWorld) page(q claimQuery, order ClaimOrder, now int64) (items [][]byte, total int) {
	var match []*claim
	for _, n := range c.all {
		if n.archived == q.archived && c.shown(n, now) && (q.id == "" || n.wire.ID == q.id) && (q.nmID == 0 || n.wire.NmID == q.nmID) {
			match = append(match, n)
		}
	}
	switch order {
	case ClaimsNewestFirst:
		slices.SortFunc(match, func(a, b *claim) int {
			return cmp.Or(cmp.Compare(b.created, a.created), cmp.Compare(a.wire.ID, b.wire.ID))
		})
	case ClaimsByUpdate:
		slices.SortFunc(match, func(a, b *claim) int {
			return cmp.Or(cmp.Compare(b.updated, a.updated), cmp.Compare(a.wire.ID, b.wire.ID))
		})
	case ClaimsByID:
		slices.SortFunc(match, func(a, b *claim) int { return cmp.Compare(a.wire.ID, b.wire.ID) })
	case ClaimsShuffled:
		c.shuffle.Shuffle(len(match), func(i, j int) { match[i], match[j] = match[j], match[i] })
	}
	from := min(q.offset, len(match))
	for _, n := range match[from : from+min(q.limit, len(match)-from)] {
		items = append(items, n.render)
	}
	return items, len(match)
}

// Limits of a comment, in characters, and of a whole body, which is not documented.
const (
	minComment   = 10
	maxComment   = 1000
	maxClaimBody = 1 << 20
)

// typePatchProblem is what the errors of PATCH /api/v1/claim come as.
const typePatchProblem = "application/json; charset=utf-8"

// servePatchClaim answers PATCH /api/v1/claim: 200 without a body.
func servePatchClaim(c *call) answer {
	bad := func(detail string) answer {
		return kit.JSON(http.StatusBadRequest, typePatchProblem, claimProblem{
			Title: "Validation error", Detail: "Input model is not valid; Details: " + detail, RequestID: c.sandbox.connectionID(),
		})
	}
	text, err := io.ReadAll(http.MaxBytesReader(nil, c.r.Body, maxClaimBody))
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &tooBig):
		return c.sandbox.tooLarge(c.now)
	case err != nil:
		return bad("Unexpected end of request content.")
	}
	var body struct{ ID, Action, Comment string }
	if json.Unmarshal(text, &body) != nil {
		return bad("The input was not valid JSON.")
	}
	length := utf8.RuneCountInString(body.Comment)
	switch {
	case body.ID == "":
		return bad("The Id field is required.")
	case body.Action == "":
		return bad("The Action field is required.")
	case body.Action == actionRejectCustom && body.Comment == "":
		return bad("The Comment field is required.")
	case body.Comment != "" && (length < minComment || length > maxComment):
		return bad("The field Comment must be a string with a minimum length of 10 and a maximum length of 1000.")
	}
	if body.Action != actionRejectCustom && body.Action != actionApproveStore {
		body.Comment = "" // "only when" these two; that it is ignored otherwise is a guess
	}
	c.world.lock(c.now)
	refused := c.world.claims.patch(body.ID, body.Action, body.Comment, c.now.UnixNano())
	c.world.mu.Unlock()
	if refused != "" {
		return bad(refused)
	}
	return answer{Status: http.StatusOK}
}

// patch carries a well-formed answer out, or says why not: the document has no other refusals than 400.
func (c *claimWorld) patch(id, action, comment string, now int64) (refused string) {
	n := c.byID[id]
	switch {
	case n == nil || !c.shown(n, now):
		return "Claim not found."
	case !slices.Contains(n.wire.Actions, action):
		return "The Action must be one of: " + strings.Join(n.wire.Actions, ", ") + "."
	}
	c.decide(n, action, comment)
	c.touch(n, now, false)
	return ""
}
