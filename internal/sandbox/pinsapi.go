package sandbox

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"syncd/internal/sandbox/kit"
)

// maxPins is the most items in a page of pins, and in the body of a request about them.
const maxPins = 500

// wirePin is an item of GET /api/feedbacks/v1/pins (schema openapi.PinnedReviewItemResult).
type wirePin struct {
	ChangeStateAt string `json:"changeStateAt"`
	ImtID         int    `json:"imtId"`
	NmID          int    `json:"nmId"`
	PinID         int    `json:"pinId"`
	PinMethod     string `json:"pinMethod"`
	PinOn         string `json:"pinOn"`
	FeedbackID    string `json:"feedbackId"`
	State         string `json:"state"`
	UnpinnedCause string `json:"unpinnedCause,omitempty"`
}

func (n *pin) wire() wirePin {
	return wirePin{
		ChangeStateAt: time.Unix(0, n.changed).UTC().Format(time.RFC3339), ImtID: n.of.goods.imtID, NmID: n.of.goods.nmID,
		PinID: n.id, PinMethod: n.method, PinOn: n.on, FeedbackID: n.of.id, State: n.state(), UnpinnedCause: n.cause,
	}
}

// pinData is what all methods of pins wrap their answers in.
type pinData struct {
	Data any  `json:"data"`
	Next *int `json:"next,omitempty"`
}

// pinProblem is an error of the pins' own service (schema respond.ResultErr).
type pinProblem struct {
	Status    int    `json:"status"`
	Title     string `json:"title"`
	Detail    string `json:"detail"`
	RequestID string `json:"requestId"`
	Origin    string `json:"origin"`
}

const pinOrigin = "pin-open-api"

func (s *Sandbox) pinError(status int, title, detail string) answer {
	return kit.JSON(status, typeJSON, pinProblem{Status: status, Title: title, Detail: detail, RequestID: s.requestHex(), Origin: pinOrigin})
}

func (s *Sandbox) requestHex() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return kit.HexID(s.ids, 16)
}

// pinFilter are the conditions that list and count have in common.
type pinFilter []func(*pin) bool

func (f pinFilter) match(n *pin) bool {
	for _, ok := range f {
		if !ok(n) {
			return false
		}
	}
	return true
}

// pinFilter reads them; a non-empty text refuses the request.
func (c *call) pinFilter() (f pinFilter, refused string) {
	oneOf := func(name string, of func(*pin) string, values ...string) {
		text := c.query.Get(name)
		switch {
		case slices.Contains(values, text):
			f = append(f, func(n *pin) bool { return of(n) == text })
		case text != "" || name == "state" && c.quirks.PinsWithoutState == PinsRefused:
			refused = fmt.Sprintf("%s must be one of the values '%s'", name, strings.Join(values, "', '"))
		}
	}
	number := func(name string, of func(*pin) int) {
		if text := c.query.Get(name); text != "" {
			id, err := strconv.Atoi(text)
			if err != nil {
				refused = name + " must be an integer"
			}
			f = append(f, func(n *pin) bool { return of(n) == id })
		}
	}
	// The ends are taken to be inclusive and to mean changeStateAt as it is shown.
	end := func(name string, outside int) {
		if text := c.query.Get(name); text != "" {
			at, err := time.Parse(time.RFC3339, text)
			if err != nil {
				refused = name + " must be a date in the format RFC3339"
			}
			f = append(f, func(n *pin) bool { return time.Unix(0, n.changed).Truncate(time.Second).Compare(at) != outside })
		}
	}
	oneOf("state", (*pin).state, statePinned, stateUnpinned)
	if c.query.Get("state") == "" && c.quirks.PinsWithoutState == PinsPinned {
		f = append(f, func(n *pin) bool { return n.cause == "" })
	}
	oneOf("pinOn", func(n *pin) string { return n.on }, onGroup, onCard)
	number("imtId", func(n *pin) int { return n.of.goods.imtID })
	number("nmId", func(n *pin) int { return n.of.goods.nmID })
	// The document types it as an integer; ids of feedbacks are none.
	if text := c.query.Get("feedbackId"); text != "" {
		f = append(f, func(n *pin) bool { return n.of.id == text })
	}
	end("dateFrom", -1)
	end("dateTo", 1)
	return f, refused
}

// servePins answers GET /api/feedbacks/v1/pins, by pinId.
func servePins(c *call) answer {
	filter, refused := c.pinFilter()
	limit, after := maxPins, 0
	number := func(name string, into *int) {
		if text := c.query.Get(name); text != "" {
			var err error
			if *into, err = strconv.Atoi(text); err != nil {
				refused = name + " must be an integer"
			}
		}
	}
	number("limit", &limit)
	number("next", &after)
	if limit < 1 || limit > maxPins {
		refused = fmt.Sprintf("limit must be from 1 to %d", maxPins)
	}
	if refused != "" {
		return c.sandbox.pinError(http.StatusBadRequest, "Bad Request", refused)
	}
	out, page := pinData{}, []wirePin{}
	c.world.lock(c.now)
	for _, n := range c.world.pins.pins {
		if n.id <= after || !filter.match(n) {
			continue
		}
		if len(page) == limit { // there is more: without `next` one has everything
			out.Next = &page[limit-1].PinID
			break
		}
		page = append(page, n.wire())
	}
	c.world.mu.Unlock()
	out.Data = page
	return kit.JSON(http.StatusOK, typeJSON, out)
}

// servePinCount answers GET /api/feedbacks/v1/pins/count.
func servePinCount(c *call) answer {
	filter, refused := c.pinFilter()
	if refused != "" {
		return c.sandbox.pinError(http.StatusBadRequest, "Bad Request", refused)
	}
	total := 0
	c.world.lock(c.now)
	for _, n := range c.world.pins.pins {
		if filter.match(n) {
			total++
		}
	}
	c.world.mu.Unlock()
	return kit.JSON(http.StatusOK, typeJSON, pinData{Data: total})
}

// wireLimit is schema openapi.SellerLimit.
type wireLimit struct {
	PerUnitLimit int  `json:"perUnitLimit"`
	Remaining    int  `json:"remaining"`
	TotalLimit   int  `json:"totalLimit"`
	Unlimited    bool `json:"unlimited"`
	Used         int  `json:"used"`
}

// servePinLimits answers GET /api/feedbacks/v1/pins/limits.
func servePinLimits(c *call) answer {
	var data struct {
		Subscription *wireLimit `json:"subscription"`
		Tariff       *wireLimit `json:"tariff"`
	}
	c.world.lock(c.now)
	if p := c.world.pins; !c.world.spec.NoPinPlan {
		data.Subscription, data.Tariff = p.limit(bySubscription), p.limit(byTariff)
	}
	c.world.mu.Unlock()
	return kit.JSON(http.StatusOK, typeJSON, pinData{Data: data})
}

func (p *pinWorld) limit(method string) *wireLimit {
	used := len(p.pinned(func(n *pin) bool { return n.method == method }))
	return &wireLimit{PerUnitLimit: p.perPlace, Remaining: max(0, p.total-used), TotalLimit: p.total, Used: used}
}

// pinOrder is one item of POST /api/feedbacks/v1/pins.
type pinOrder struct {
	PinMethod  string `json:"pinMethod"`
	PinOn      string `json:"pinOn"`
	FeedbackID string `json:"feedbackId"`
}

func (o pinOrder) valid() bool {
	return slices.Contains(pinMethods, o.PinMethod) && slices.Contains(pinPlaces, o.PinOn)
}

// pinOutcome is the answer to it (schema openapi.PinReviewItemResult). Without a pinId it has errors.
type pinOutcome struct {
	FeedbackID string     `json:"feedbackId"`
	PinID      int        `json:"pinId,omitempty"`
	PinMethod  string     `json:"pinMethod"`
	PinOn      string     `json:"pinOn"`
	IsErrors   bool       `json:"isErrors"`
	Errors     []pinFault `json:"errors,omitempty"`
}

// pinFault is schema openapi.ResultErr, whose status is a word.
type pinFault struct {
	Status    string `json:"status"`
	Title     string `json:"title"`
	Detail    string `json:"detail"`
	RequestID string `json:"requestId"`
	Origin    string `json:"origin"`
}

// body reads a request's JSON of a bounded size.
func (c *call) body(into any) bool {
	text, err := io.ReadAll(http.MaxBytesReader(nil, c.r.Body, maxPatchBody))
	return err == nil && json.Unmarshal(text, into) == nil
}

// servePin answers POST /api/feedbacks/v1/pins: a 200 even if nothing could be pinned.
func servePin(c *call) answer {
	if c.world.spec.NoPinPlan {
		return c.sandbox.pinError(http.StatusForbidden, "no active subscription or tariff", "this feature requires active subscription or active tariff")
	}
	var orders []pinOrder
	if !c.body(&orders) || len(orders) > maxPins || slices.ContainsFunc(orders, func(o pinOrder) bool { return !o.valid() }) {
		return c.sandbox.pinError(http.StatusBadRequest, "Bad Request", "invalid request body")
	}
	requestID := c.sandbox.requestHex()
	out := make([]pinOutcome, len(orders))
	c.world.lock(c.now)
	for i, o := range orders {
		out[i] = pinOutcome{FeedbackID: o.FeedbackID, PinMethod: o.PinMethod, PinOn: o.PinOn}
		id, fault := c.world.pins.order(o, c.now.UnixNano())
		if fault != nil {
			fault.RequestID, fault.Origin = requestID, pinOrigin
			out[i].IsErrors, out[i].Errors = true, []pinFault{*fault}
		}
		out[i].PinID = id
	}
	c.world.mu.Unlock()
	return kit.JSON(http.StatusOK, typeJSON, pinData{Data: out})
}

// order pins one feedback, or says why not.
func (p *pinWorld) order(o pinOrder, now int64) (id int, fault *pinFault) {
	of := p.world.feedbacks.byID[o.FeedbackID]
	if of == nil || of.deleted {
		return 0, &pinFault{Status: "itemNotFound", Title: "item not found", Detail: "item not found or does not belong to seller"}
	}
	if p.held(of, o.PinOn) {
		return 0, &pinFault{Status: "alreadyPinned", Title: "already pinned", Detail: "feedback is already pinned"}
	}
	n := &pin{method: o.PinMethod, on: o.PinOn, of: of}
	if len(p.pinned(func(b *pin) bool { return b.place() == n.place() })) >= p.perPlace {
		return 0, &pinFault{Status: "unitLimitReached", Title: "unit limit reached", Detail: "no more feedbacks can be pinned there"}
	}
	if p.limit(o.PinMethod).Remaining == 0 {
		return 0, &pinFault{Status: "globalLimitReached", Title: "global limit reached", Detail: "no more feedbacks can be pinned"}
	}
	return p.pin(of, o.PinMethod, o.PinOn, now).id, nil
}

// serveUnpin answers DELETE /api/feedbacks/v1/pins with those that really were pinned.
func serveUnpin(c *call) answer {
	var ids []int
	if !c.body(&ids) || len(ids) > maxPins {
		return c.sandbox.pinError(http.StatusBadRequest, "Bad Request", "invalid request body")
	}
	unpinned := []int{}
	c.world.lock(c.now)
	for _, id := range ids {
		if n := c.world.pins.byID(id); n != nil && n.cause == "" {
			c.world.pins.remove(n)
			unpinned = append(unpinned, id)
		}
	}
	c.world.mu.Unlock()
	return kit.JSON(http.StatusOK, typeJSON, pinData{Data: unpinned})
}
