package yandexmarket

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"syncd/internal/sandbox/kit"
)

// ReturnQuirks are the unclear points of returns.
type ReturnQuirks struct {
	// Order is the order of the list, which is not documented.
	Order ReturnOrder
	// DaysInUTC begins the days of fromDate and toDate at midnight in UTC. Default: in Moscow.
	DaysInUTC bool
	// FromExclusive and ToExclusive leave the day of fromDate and that of toDate out. Default: both are in.
	FromExclusive bool
	ToExclusive   bool
	// OldDates is what becomes of from_date and to_date, which were announced to be switched off on 2026-10-12.
	OldDates OldDates
	// DeprecatedDenied is the share of requests for the deprecated decision method that are answered 403. Default: none.
	DeprecatedDenied float64
}

// ReturnOrder is an order of the list of returns.
type ReturnOrder int

const (
	// ReturnsNewestFirst is by updateDate, the latest first: a return that is updated moves to the first page.
	ReturnsNewestFirst ReturnOrder = iota
	// ReturnsOldestFirst is by updateDate, the latest last.
	ReturnsOldestFirst
	// ReturnsByID is by id: new ones appear anywhere.
	ReturnsByID
	// ReturnsShuffled is another order in every scan; the pages of one scan are those of one order.
	ReturnsShuffled
)

// OldDates is what becomes of a parameter that was switched off.
type OldDates int

const (
	// OldDatesIgnored leaves them out of account, as any unknown parameter.
	OldDatesIgnored OldDates = iota
	// OldDatesRefused answers 400.
	OldDatesRefused
	// OldDatesWork takes them for fromDate and toDate, as before.
	OldDatesWork
)

func (q ReturnQuirks) validate() error {
	switch {
	case q.Order < ReturnsNewestFirst || q.Order > ReturnsShuffled:
		return fmt.Errorf("unknown order %d of returns", q.Order)
	case q.OldDates < OldDatesIgnored || q.OldDates > OldDatesWork:
		return fmt.Errorf("unknown fate %d of from_date and to_date", q.OldDates)
	}
	return shares("returns", map[string]float64{"deprecated denied": q.DeprecatedDenied})
}

// key is the place of a return in the list.
func (o ReturnOrder) key(n *goodsReturn, seed uint64) pageKey {
	switch o {
	case ReturnsOldestFirst:
		return pageKey{n.updated, n.id}
	case ReturnsByID:
		return pageKey{n.id}
	case ReturnsShuffled:
		return drawn(n.id, seed)
	}
	return pageKey{-n.updated, -n.id}
}

// The methods of returns.
const (
	MethodGetReturns                  Method = "getReturns"
	MethodGetReturn                   Method = "getReturn"
	MethodGetReturnApplication        Method = "getReturnApplication"
	MethodGetReturnPhoto              Method = "getReturnPhoto"
	MethodGetReturnAvailableDecisions Method = "getReturnAvailableDecisions"
	MethodSubmitReturnDecision        Method = "submitReturnDecision"
	MethodSetReturnDecision           Method = "setReturnDecision"
)

// readOrders and writeOrders are the scopes of the methods that read and write: returns are not in communication.
var (
	readOrders  = []Scope{ScopeAll, ScopeAllReadOnly, ScopeOrders, ScopeOrdersReadOnly}
	writeOrders = []Scope{ScopeAll, ScopeOrders}
)

const returnPath = "/v2/campaigns/{campaignId}/orders/{orderId}/returns/{returnId}"

var returnRoutes = map[string]route{
	"GET /v2/campaigns/{campaignId}/returns": {
		method: MethodGetReturns, limit: perHour{5000, 5000}, scopes: readOrders, serve: serveReturns,
	},
	"GET " + returnPath: {method: MethodGetReturn, limit: perHour{7000, 7000}, scopes: readOrders, serve: serveReturn},
	"GET " + returnPath + "/application": {
		method: MethodGetReturnApplication, limit: perHour{5000, 5000}, scopes: readOrders, serve: serveApplication,
	},
	"GET " + returnPath + "/decision/{itemId}/image/{imageHash}": {
		method: MethodGetReturnPhoto, limit: perHour{5000, 5000}, scopes: readOrders, serve: servePhoto,
	},
	"POST /v1/businesses/{businessId}/returns/decisions": {
		method: MethodGetReturnAvailableDecisions, limit: perHour{5000, 5000}, scopes: readOrders, serve: serveDecisions,
	},
	"POST " + returnPath + "/decision/submit": {
		method: MethodSubmitReturnDecision, limit: perHour{5000, 5000}, scopes: writeOrders, serve: serveSubmitDecision,
	},
	"POST " + returnPath + "/decision": {
		method: MethodSetReturnDecision, limit: perHour{1000, 1000}, scopes: writeOrders, serve: serveSetDecision,
	},
}

// KindReturn is that of the journal; the ids are <campaignId>/<id>.
const KindReturn kit.Kind = "return"

// returnPages are cut without a word (OpenAPI document: x-transform truncateLimit).
var returnPages = pageSizes{byDefault: 50, max: 100, cut: true}

// maxOrderIDs bounds orderIds.
const maxOrderIDs = 50

// serveReturns answers GET /v2/campaigns/{campaignId}/returns.
func serveReturns(c *call) answer {
	keep, text := c.returnFilter()
	if text != "" {
		return fail(http.StatusBadRequest, text)
	}
	w := c.b.returns
	list := slices.DeleteFunc(slices.Clone(w.stores[c.store.id].listed), func(n *goodsReturn) bool { return !keep(n) })
	asked := c.r.URL.Query()
	for _, name := range []string{"pageToken", "page_token", "limit"} {
		asked.Del(name)
	}
	part, next, refusal := page(c, list, returnPages, asked.Encode(), c.quirks.Returns.Order.key)
	if refusal != nil {
		return *refusal
	}
	return pageAnswer("returns", part, w.render, next, "")
}

// returnFilter reads the parameters; text: why they are refused.
func (c *call) returnFilter() (keep func(*goodsReturn) bool, text string) {
	var orders []int64
	for _, raw := range c.commas("orderIds") {
		id, err := strconv.ParseInt(raw, 10, 64)
		if err != nil {
			return nil, badParameter("orderIds", raw)
		}
		orders = append(orders, id)
	}
	refunds, shipments := c.commas("statuses"), c.commas("shipmentStatuses")
	kind := c.query.Get("type")
	if text := cmp.Or(
		listText("orderIds", orders, maxOrderIDs), eachOf("statuses", refunds, refundStatuses), eachOf("shipmentStatuses", shipments, shipmentStatuses),
	); text != "" {
		return nil, text
	}
	if kind != "" && kind != typeReturn && kind != typeUnredeemed {
		return nil, badParameter("type", kind)
	}
	updated, text := c.updateDates()
	if text != "" {
		return nil, text
	}
	return func(n *goodsReturn) bool {
		return updated(n.updated) && (orders == nil || slices.Contains(orders, n.order.id)) &&
			(refunds == nil || slices.Contains(refunds, n.strangely(n.refund))) &&
			(shipments == nil || slices.Contains(shipments, n.strangely(n.shipment))) && (kind == "" || kind == n.kind)
	}, ""
}

// updateDates reads fromDate and toDate. They mean the update, also of a return that does not show its updateDate.
func (c *call) updateDates() (in func(updated int64) bool, text string) {
	q, names := c.quirks.Returns, [2]string{"fromDate", "toDate"}
	for i, old := range []string{"from_date", "to_date"} {
		switch {
		case !c.query.Has(old):
		case q.OldDates == OldDatesRefused:
			return nil, fmt.Sprintf("Parameter '%s' is not supported", old)
		case q.OldDates == OldDatesWork && !c.query.Has(names[i]):
			names[i] = old
		}
	}
	var ends [2]time.Time
	for i, name := range names {
		if raw := c.query.Get(name); raw != "" {
			if ends[i], text = dateOf(name, raw, dayZone(q.DaysInUTC)); text != "" {
				return nil, text
			}
		}
	}
	from, to := ends[0], ends[1]
	if !from.IsZero() && q.FromExclusive {
		from = from.AddDate(0, 0, 1)
	}
	if !to.IsZero() && !q.ToExclusive {
		to = to.AddDate(0, 0, 1)
	}
	return func(updated int64) bool {
		at := time.Unix(0, updated)
		return (from.IsZero() || !at.Before(from)) && (to.IsZero() || at.Before(to))
	}, ""
}

// commas reads a list: with commas, as the texts have it, or a parameter for each, as the document's schema has it.
func (c *call) commas(name string) []string {
	var out []string
	for _, raw := range c.query[name] {
		for part := range strings.SplitSeq(raw, ",") {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
	}
	return out
}

func eachOf(name string, values, of []string) string {
	for _, v := range values {
		if !slices.Contains(of, v) {
			return badParameter(name, v)
		}
	}
	return listText(name, values, len(of))
}

// oneReturn finds the return of a path.
func (c *call) oneReturn() (*goodsReturn, *answer) {
	orderID, refusal := c.id("orderId")
	if refusal != nil {
		return nil, refusal
	}
	id, refusal := c.id("returnId")
	if refusal != nil {
		return nil, refusal
	}
	n := c.b.returns.byID[id]
	if n == nil || !n.listed || n.order.id != orderID || n.order.store != c.store {
		return nil, refuse(http.StatusNotFound, fmt.Sprintf("Return '%d' for order '%d' is not found", id, orderID))
	}
	return n, nil
}

// serveReturn answers GET …/orders/{orderId}/returns/{returnId}.
func serveReturn(c *call) answer {
	n, refusal := c.oneReturn()
	if refusal != nil {
		return *refusal
	}
	body := kit.List([]byte(`{"status":"OK","result":`), [][]byte{c.b.returns.render(n)}, []byte("}"))
	return answer{Status: http.StatusOK, ContentType: kit.TypeJSON, Body: body}
}
