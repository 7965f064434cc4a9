package yandexmarket

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"syncd/internal/sandbox/kit"
)

// Decisions (OpenAPI document). Which there are for which return is guessed: the Market's premoderation knows refunds, in
// part too, and refusals; who delivers himself decides between all the others.
const decisionPartial = "PARTIAL_MONEY_REFUND"

var (
	decisionsPremoderated = []string{decisionFastRefund, decisionRefund, decisionPartial, decisionDecline}
	decisionsDBS          = []string{
		decisionRefund, "REFUND_MONEY_INCLUDING_SHIPMENT", "REPAIR", "REPLACE", "SEND_TO_EXAMINATION", decisionDecline, "OTHER_DECISION",
	}
	declineReasons = []string{
		"ISSUE_WITH_THE_PRODUCT_WAS_NOT_CONFIRMED", "MECHANICAL_DAMAGE", "WARRANTY_PERIOD_HAS_EXPIRED", "CONFIGURATION_OR_PACKAGING_COMPROMISED",
		"PRODUCT_APPEARANCE_COMPROMISED", "WARRANTY_TERMS_VIOLATED", "DEVICE_ACTIVATED",
	}
)

// maxPartialPercent is the most of an item's price that a partial compensation may be.
const maxPartialPercent = 70

// available are the decisions that the shop can take now.
func (n *goodsReturn) available() []string {
	switch n.refund {
	case refundWaiting:
		return decisionsPremoderated
	case refundWaitingDBS:
		return decisionsDBS
	}
	return nil
}

// total is what the buyer has paid for what is returned, in kopecks.
func (n *goodsReturn) total() (kopecks int64) {
	for _, i := range n.items {
		kopecks += i.count * i.kopecks
	}
	return kopecks
}

// serveDecisions answers POST /v1/businesses/{businessId}/returns/decisions.
func serveDecisions(c *call) answer {
	var in struct {
		CampaignID *int64 `json:"campaignId"`
		ReturnID   *int64 `json:"returnId"`
	}
	if refusal := c.decode(&in); refusal != nil {
		return *refusal
	}
	switch {
	case in.CampaignID == nil:
		return fail(http.StatusBadRequest, "campaignId must not be null")
	case in.ReturnID == nil:
		return fail(http.StatusBadRequest, "returnId must not be null")
	}
	st, n := c.b.storeByID(*in.CampaignID), c.b.returns.byID[*in.ReturnID]
	if st == nil {
		return fail(http.StatusForbidden, fmt.Sprintf("No access to campaigns: '%d'", *in.CampaignID))
	}
	if text := c.b.disabled(st); text != "" {
		return fail(http.StatusForbidden, text)
	}
	if n == nil || !n.listed || n.order.store != st {
		return fail(http.StatusNotFound, fmt.Sprintf("Return '%d' is not found", *in.ReturnID))
	}
	type bounds struct {
		MinAmount  *wireMoney `json:"minAmount"`
		MaxAmount  *wireMoney `json:"maxAmount"`
		MaxPercent int        `json:"maxPercent"`
	}
	type decision struct {
		DecisionType string   `json:"decisionType"`
		Reasons      []string `json:"decisionReasonTypes,omitempty"`
		Bounds       *bounds  `json:"partialCompensationBounds,omitempty"`
	}
	list := []decision{}
	for _, kind := range n.available() {
		d := decision{DecisionType: kind}
		switch kind {
		case decisionDecline:
			d.Reasons = declineReasons
		case decisionPartial:
			d.Bounds = &bounds{money(100), money(n.total() * maxPartialPercent / 100), maxPartialPercent}
		}
		list = append(list, d)
	}
	return okAnswer(map[string][]decision{"availableDecisions": list})
}

// decided is a decision about one item of a return.
type decided struct {
	ReturnItemID       *int64  `json:"returnItemId"`
	DecisionType       string  `json:"decisionType"`
	DecisionReasonType *string `json:"decisionReasonType"`
	Comment            string  `json:"comment"`
	Compensation       *struct {
		Value      json.Number `json:"value"`
		CurrencyID string      `json:"currencyId"`
	} `json:"compensation"`
}

// check says what is wrong with a decision.
func (d decided) check(n *goodsReturn) (text string) {
	switch {
	case d.ReturnItemID == nil:
		return "returnItemId must not be null"
	case n.item(*d.ReturnItemID) == nil:
		return badParameter("returnItemId", itoa(*d.ReturnItemID))
	case !slices.Contains(n.available(), d.DecisionType):
		return fmt.Sprintf("Decision '%s' is not allowed for return '%d' with status '%s'", d.DecisionType, n.id, n.refund)
	case d.Compensation != nil && d.DecisionType != decisionPartial:
		return "compensation is allowed for " + decisionPartial + " only"
	case d.Compensation == nil && d.DecisionType == decisionPartial:
		return "compensation must not be null"
	case d.Compensation != nil:
		value, err := d.Compensation.Value.Float64()
		if i := n.item(*d.ReturnItemID); err != nil || value < 1 || value*100 > float64(i.count*i.kopecks*maxPartialPercent)/100 {
			return badParameter("compensation", d.Compensation.Value.String())
		}
	}
	return enumText("decisionReasonType", d.DecisionReasonType, declineReasons...)
}

func (n *goodsReturn) item(id int64) *returnItem {
	if i := slices.IndexFunc(n.items, func(i returnItem) bool { return i.id == id }); i >= 0 {
		return &n.items[i]
	}
	return nil
}

// serveSubmitDecision answers POST …/decision/submit: with decisions, or for those that were set before.
func serveSubmitDecision(c *call) answer {
	n, refusal := c.oneReturn()
	if refusal != nil {
		return *refusal
	}
	var in struct {
		Decisions []decided `json:"returnItemDecisions"`
	}
	if refusal := c.decodeOptional(&in); refusal != nil {
		return *refusal
	}
	bad := func(text string) answer { return fail(http.StatusBadRequest, text) }
	given := len(bytes.TrimSpace(c.body)) > 0
	switch {
	case given && len(in.Decisions) == 0:
		return bad("returnItemDecisions must not be empty")
	case n.available() == nil:
		return bad(fmt.Sprintf("Return '%d' with status '%s' does not wait for a decision", n.id, n.refund))
	}
	taken := make(map[int64]string)
	for _, d := range in.Decisions {
		if text := d.check(n); text != "" {
			return bad(text)
		}
		taken[*d.ReturnItemID] = d.DecisionType
	}
	for _, i := range n.items {
		if taken[i.id] == "" && i.decision == "" {
			return bad(fmt.Sprintf("No decision for item '%d'", i.id))
		}
	}
	s := c.b.returns.stores[c.store.id]
	s.alter(n, c.now.UnixNano(), false, func() {
		for i := range n.items {
			if kind := taken[n.items[i].id]; kind != "" {
				n.items[i].decision = kind
			}
		}
		n.turn(refundNext(c.store.placement, n.refund)[0], s.byHand)
	})
	return emptyAnswer()
}

// serveSetDecision answers the deprecated POST …/decision, which only DBS has: it notes a decision that is still to be
// submitted.
func serveSetDecision(c *call) answer {
	if share := c.quirks.Returns.DeprecatedDenied; share > 0 && kit.Chance(c.b.returns.stores[c.store.id].byHand, share) {
		return fail(http.StatusForbidden, "The method is deprecated and is occasionally forbidden. Please stop using it")
	}
	n, refusal := c.oneReturn()
	if refusal != nil {
		return *refusal
	}
	var in decided
	if refusal := c.decode(&in); refusal != nil {
		return *refusal
	}
	if text := in.check(n); text != "" || c.store.placement != DBS {
		return fail(http.StatusBadRequest, cmp.Or(text, "The method is for DBS only"))
	}
	s := c.b.returns.stores[c.store.id]
	s.alter(n, c.now.UnixNano(), false, func() { n.item(*in.ReturnItemID).decision = in.DecisionType })
	return emptyAnswer()
}
