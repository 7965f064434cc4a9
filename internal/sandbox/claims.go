package sandbox

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"syncd/internal/sandbox/kit"
)

// Claim is a buyer's claim for a return as the lists show it.
type Claim struct {
	ID string
	// Created is dt, Updated dt_update: whole microseconds.
	Created, Updated time.Time
	// Archived tells in which of the two lists it is.
	Archived bool
	// JSON is the item exactly as GET /api/v1/claims sends it now.
	JSON json.RawMessage
}

// ClaimSpec says what claim [World.AddClaim] makes.
type ClaimSpec struct {
	// ID is its id. Default: a new one.
	ID string
	// Comment is what the buyer complains about. Default: a phrase.
	Comment string
	// NmID is the article. Default: one of the seller's products.
	NmID int
	// Created is dt. Default: now.
	Created time.Time
	// Raw is sent in place of the item, whatever it is, until the claim changes. Default: the item as rendered.
	Raw json.RawMessage
}

// claimAge: "the claims of the last 14 days".
const claimAge = 14 * 24 * time.Hour

// claimHistory is how far back the history's visible claims go: a day less, so that a world at rest keeps them for a day.
const claimHistory = claimAge - 24*time.Hour

// claimWorld is the claims of one seller. The World's mutex guards it.
type claimWorld struct {
	world    *World
	products []product
	grow     kit.Growth
	change   kit.Growth
	r        *rand.Rand // what is claimed
	fate     *rand.Rand // what becomes of it
	byHand   *rand.Rand // what tests add
	shuffle  *rand.Rand // orders of [ClaimsShuffled]

	byID map[string]*claim
	all  []*claim // in the order of their making, also those that are too old to be shown
	old  int      // how many at the beginning are too old for good
}

type claim struct {
	wire             wireClaim
	created, updated int64 // nanoseconds, whole microseconds
	archived         bool
	inStore          bool // sold by the In-Store Pickup model, which has decisions of its own
	render           []byte
}

// wireClaim is an item of GET /api/v1/claims.
type wireClaim struct {
	ID           string   `json:"id"`
	ClaimType    int      `json:"claim_type"`
	Status       int      `json:"status"`
	StatusEx     int      `json:"status_ex"`
	NmID         int      `json:"nm_id"`
	UserComment  string   `json:"user_comment"`
	WBComment    *string  `json:"wb_comment"`
	DT           string   `json:"dt"`
	ImtName      *string  `json:"imt_name"`
	OrderDT      string   `json:"order_dt"`
	DTUpdate     string   `json:"dt_update"`
	Photos       []string `json:"photos"`
	VideoPaths   []string `json:"video_paths"`
	Actions      []string `json:"actions"`
	Price        float64  `json:"price"`
	CurrencyCode string   `json:"currency_code"`
	Srid         string   `json:"srid"`
	OriginIDInfo *string  `json:"origin_id_info"`
	DeliveryDT   string   `json:"delivery_dt"`
}

// Values of status and status_ex (OpenAPI document).
const (
	claimInReview, claimRefused, claimApproved = 0, 1, 2

	goodsInReview, goodsStayRefused, goodsDisposed, goodsStayApproved, goodsResold, goodsReturned = 0, 1, 2, 5, 8, 10
)

// Actions that are told apart here; the others differ in their comment alone.
const (
	actionRejectCustom = "rejectcustom"
	actionApproveStore = "approvecc1"
)

// decision is what an action makes of a claim.
type decision struct {
	status, goods int
	comment       string // what the buyer is told, where the seller does not say it himself
}

var decisions = map[string]decision{
	"approve1":             {claimApproved, goodsResold, commentApproved},
	"approve2":             {claimApproved, goodsReturned, commentApproved},
	"autorefund1":          {claimApproved, goodsStayApproved, commentRefunded},
	"reject1":              {claimRefused, goodsStayRefused, commentNoDefect},
	"reject2":              {claimRefused, goodsStayRefused, commentMorePhotos},
	"reject3":              {claimRefused, goodsStayRefused, commentService},
	actionRejectCustom:     {claimRefused, goodsStayRefused, commentCustom},
	actionApproveStore:     {claimInReview, goodsInReview, commentToStore},
	"confirmreturngoodcc1": {claimApproved, goodsReturned, commentRefunded},
}

// open are the actions of a claim under review.
func (n *claim) open() []string {
	if n.inStore {
		return []string{actionApproveStore, actionRejectCustom}
	}
	return []string{"autorefund1", "approve1", "approve2", "reject1", "reject2", "reject3", actionRejectCustom}
}

// left are the actions left after one. "Rejected claims can be reconsidered"; that nothing is left of an approved one is a
// guess, and the document's example of an approved claim has some.
func (n *claim) left(action string) []string {
	switch {
	case action == actionApproveStore:
		return []string{"confirmreturngoodcc1", actionRejectCustom}
	case decisions[action].status != claimRefused:
		return []string{}
	case n.inStore:
		return []string{actionApproveStore}
	}
	return []string{"autorefund1", "approve1", "approve2"}
}

func newClaimWorld(w *World, seed uint64, products []product) *claimWorld {
	c := &claimWorld{
		world: w, products: products,
		r:       kit.Stream(seed, "claims "+w.seller.ID),
		fate:    kit.Stream(seed, "fate of claims "+w.seller.ID),
		byHand:  kit.Stream(seed, "claims by hand "+w.seller.ID),
		shuffle: kit.Stream(seed, "order of claims "+w.seller.ID),
		grow:    kit.NewGrowth(kit.Stream(seed, "claim growth "+w.seller.ID)),
		change:  kit.NewGrowth(kit.Stream(seed, "claim changes "+w.seller.ID)),
		byID:    make(map[string]*claim),
	}
	past := kit.Stream(seed, "claim history "+w.seller.ID)
	// A quarter as many again are too old to be shown.
	for _, at := range kit.HistoryTimes(past, w.spec.Claims/4, w.time.Now-int64(claimAge), w.spec.Span) {
		c.settle(c.submit(at), at)
	}
	for _, at := range kit.HistoryTimes(past, w.spec.Claims, w.time.Now, min(w.spec.Span, claimHistory)) {
		c.settle(c.submit(at), at)
	}
	return c
}

func (c *claimWorld) growOne() { c.submit(c.grow.Step()) }

// submit lets a buyer claim something.
func (c *claimWorld) submit(at int64) *claim {
	r := c.r
	n := c.compose(r, kit.UUID(r)[:35], at) // the documented id is a UUID without its last digit
	if kit.Chance(r, 0.15) {
		n.wire.ClaimType = 3 // from a chat
	}
	if kit.Chance(r, 0.1) {
		n.inStore = true
		n.wire.Actions = n.open()
	}
	if kit.Chance(r, 0.05) {
		n.wire.Actions = []string{} // "the claim cannot be processed"
	}
	if kit.Chance(r, 0.1) {
		n.wire.ImtName = nil
	}
	if kit.Chance(r, 0.03) {
		info := imeiMismatch
		n.wire.OriginIDInfo = &info
	}
	for i := range r.IntN(6) {
		n.wire.Photos = append(n.wire.Photos, fmt.Sprintf("//photos.wbstatic.net/claim/%s/%d.webp", n.wire.ID, i+1))
	}
	if kit.Chance(r, 0.3) {
		n.wire.VideoPaths = append(n.wire.VideoPaths, "//video.wbstatic.net/claim/"+n.wire.ID+"/1.mp4")
	}
	if kit.Chance(r, 0.2) {
		n.wire.Price += 0.5
	}
	c.add(n)
	return n
}

// compose makes a claim without oddities.
func (c *claimWorld) compose(r *rand.Rand, id string, at int64) *claim {
	p := kit.Pick(r, c.products)
	at -= at % int64(time.Microsecond)
	delivered := at - int64(time.Hour) - r.Int64N(int64(14*24*time.Hour))
	n := &claim{created: at, updated: at, wire: wireClaim{
		ID: id, ClaimType: 1, NmID: p.nmID, UserComment: kit.Pick(r, complaints), ImtName: &p.name,
		OrderDT: wholeSeconds(delivered - r.Int64N(int64(10*24*time.Hour))), DeliveryDT: wholeSeconds(delivered),
		Photos: []string{}, VideoPaths: []string{}, Price: float64(p.price / 100), CurrencyCode: "643", Srid: orderID(r),
	}}
	n.wire.Actions = n.open()
	return n
}

// claimTime is the form of dt and dt_update: without a zone, UTC+3. That zeros at the end are cut is a guess.
const claimTime = "2006-01-02T15:04:05.999999"

func wholeSeconds(ns int64) string { return time.Unix(0, ns).In(moscow).Format("2006-01-02T15:04:05") }

func (c *claimWorld) add(n *claim) {
	c.byID[n.wire.ID] = n
	c.all = append(c.all, n)
	n.draw()
	c.note(n)
}

// leaves is when the lists stop showing a claim, as it is now.
func (c *claimWorld) leaves(n *claim) int64 {
	if c.world.spec.ClaimAgeByUpdate {
		return n.updated + int64(claimAge)
	}
	return n.created + int64(claimAge)
}

func (c *claimWorld) note(n *claim) {
	if !c.shown(n, c.world.time.Now) {
		c.world.note(KindClaim, n.wire.ID, nil, 0)
		return
	}
	c.world.note(KindClaim, n.wire.ID, func() []byte { return n.render }, c.leaves(n))
}

// draw renders the item anew. Pages that are being sent keep the old bytes.
func (n *claim) draw() {
	n.wire.DT = time.Unix(0, n.created).In(moscow).Format(claimTime)
	n.wire.DTUpdate = time.Unix(0, n.updated).In(moscow).Format(claimTime)
	n.render = kit.Render(n.wire)
}

// settle decides what the history did with a claim until the epoch.
func (c *claimWorld) settle(n *claim, at int64) {
	for range 3 {
		at += int64(time.Minute) + int64(c.fate.ExpFloat64()*float64(3*24*time.Hour))
		if at >= c.world.time.Now || !n.changeable() {
			return
		}
		c.move(n, at)
	}
}

// changeOne lets something become of one of the claims that are shown. It looks for one by chance, not through all of
// them: a world that has not been looked at for days makes up for many changes.
func (c *claimWorld) changeOne() {
	at := c.change.Step()
	for !c.world.spec.ClaimAgeByUpdate && c.old < len(c.all) && !c.shown(c.all[c.old], at) {
		c.old++
	}
	young := c.all[c.old:]
	for range min(len(young), 100) {
		if n := kit.Pick(c.fate, young); c.shown(n, at) && n.changeable() {
			c.move(n, at)
			return
		}
	}
}

// changeable says whether something can still become of the claim by itself.
func (n *claim) changeable() bool {
	return !n.archived || n.wire.Status == claimRefused || n.wire.StatusEx == goodsResold
}

// move is the next step in a claim's life. The world's own steps may leave dt_update as it was.
func (c *claimWorld) move(n *claim, at int64) {
	still := kit.Chance(c.fate, c.world.spec.StillClaimChanges)
	switch again := kit.Chance(c.fate, 0.5); {
	case !n.archived && len(n.wire.Actions) == 0:
		n.wire.Actions = n.open() // it can be processed now
	case !n.archived:
		c.decide(n, kit.Pick(c.fate, n.wire.Actions), "")
	case n.wire.Status == claimRefused && again:
		c.reopen(n)
	case n.wire.Status == claimRefused:
		c.decide(n, n.left("reject1")[0], "")
	default:
		n.wire.StatusEx = kit.Pick(c.fate, []int{goodsReturned, goodsDisposed})
	}
	c.touch(n, at, still)
}

// touch finishes a change.
func (c *claimWorld) touch(n *claim, at int64, still bool) {
	if !still {
		n.updated = at - at%int64(time.Microsecond)
	}
	n.draw()
	c.note(n)
}

// decide carries an action out; the caller touches the claim.
func (c *claimWorld) decide(n *claim, action, comment string) {
	d := decisions[action]
	text := cmp.Or(comment, d.comment)
	n.wire.Status, n.wire.StatusEx, n.wire.WBComment = d.status, d.goods, &text
	n.wire.Actions = n.left(action)
	n.archived = d.status != claimInReview
}

// reopen puts a claim under review again; the caller touches it.
func (c *claimWorld) reopen(n *claim) {
	n.archived, n.wire.Status, n.wire.StatusEx = false, claimInReview, goodsInReview
	n.wire.Actions = n.open()
}

// shown says whether a claim is young enough for the lists.
func (c *claimWorld) shown(n *claim, now int64) bool {
	return now < c.leaves(n)
}

// Claims returns everything the two lists show now, by dt.
func (w *World) Claims() []Claim {
	w.lock(time.Now())
	defer w.mu.Unlock()
	out := []Claim{}
	for _, n := range w.claims.all {
		if w.claims.shown(n, w.time.Now) {
			out = append(out, n.view())
		}
	}
	slices.SortStableFunc(out, func(a, b Claim) int { return a.Created.Compare(b.Created) })
	return out
}

func (n *claim) view() Claim {
	return Claim{
		ID: n.wire.ID, Created: time.Unix(0, n.created), Updated: time.Unix(0, n.updated), Archived: n.archived, JSON: n.render,
	}
}

// AddClaim puts a claim under review.
func (w *World) AddClaim(spec ClaimSpec) (Claim, error) {
	now := time.Now()
	w.lock(now)
	defer w.mu.Unlock()
	c := w.claims
	if spec.Created.IsZero() {
		spec.Created = now
	}
	n := c.compose(c.byHand, cmp.Or(spec.ID, kit.UUID(c.byHand)[:35]), spec.Created.UnixNano())
	if c.byID[n.wire.ID] != nil {
		return Claim{}, fmt.Errorf("claim %s exists", n.wire.ID)
	}
	n.wire.UserComment = cmp.Or(spec.Comment, n.wire.UserComment)
	n.wire.NmID = cmp.Or(spec.NmID, n.wire.NmID)
	c.add(n)
	if spec.Raw != nil {
		n.render = slices.Clone(spec.Raw)
		c.note(n)
	}
	return n.view(), nil
}

// DecideClaim carries an action out as the seller would in the portal, whether the claim offers it or not.
func (w *World) DecideClaim(id, action string) error {
	if _, known := decisions[action]; !known {
		return fmt.Errorf("no action %q of claims", action)
	}
	return w.alterClaim(id, func(c *claimWorld, n *claim, now int64) error {
		c.decide(n, action, "")
		c.touch(n, now, false)
		return nil
	})
}

// ReopenClaim takes a decision back, so that the claim is under review again. The API has no method for it.
func (w *World) ReopenClaim(id string) error {
	return w.alterClaim(id, func(c *claimWorld, n *claim, now int64) error {
		c.reopen(n)
		c.touch(n, now, false)
		return nil
	})
}

// TouchClaim sets fields of a claim by their names in the API and changes nothing else: neither its list nor, unless it is
// among them, dt_update. A time.Time is sent in the form of dt.
func (w *World) TouchClaim(id string, fields map[string]any) error {
	set := make(map[string]any, len(fields))
	for name, v := range fields {
		if at, is := v.(time.Time); is {
			v = at.In(moscow).Format(claimTime)
		}
		set[name] = v
	}
	text, err := json.Marshal(set)
	if err != nil {
		return fmt.Errorf("touch claim %s: %w", id, err)
	}
	return w.alterClaim(id, func(c *claimWorld, n *claim, _ int64) error {
		var wire wireClaim // its own copy: what is read half must not stay
		if err := json.Unmarshal(kit.Render(n.wire), &wire); err != nil {
			return fmt.Errorf("touch claim %s: %w", id, err)
		}
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&wire); err != nil {
			return fmt.Errorf("touch claim %s: %w", id, err)
		}
		created, err := time.ParseInLocation(claimTime, wire.DT, moscow)
		if err != nil {
			return fmt.Errorf("touch claim %s: dt: %w", id, err)
		}
		updated, err := time.ParseInLocation(claimTime, wire.DTUpdate, moscow)
		if err != nil {
			return fmt.Errorf("touch claim %s: dt_update: %w", id, err)
		}
		wire.ID = n.wire.ID // the world finds it by that
		n.wire, n.created, n.updated = wire, created.UnixNano(), updated.UnixNano()
		n.draw()
		c.note(n)
		return nil
	})
}

func (w *World) alterClaim(id string, do func(c *claimWorld, n *claim, now int64) error) error {
	now := time.Now()
	w.lock(now)
	defer w.mu.Unlock()
	n := w.claims.byID[id]
	if n == nil {
		return fmt.Errorf("no claim %s", id)
	}
	return do(w.claims, n, now.UnixNano())
}
