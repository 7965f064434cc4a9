package yandexmarket

import (
	"math/rand/v2"
	"slices"
	"time"

	"syncd/internal/sandbox/kit"
)

// Statuses of the refund and of the goods on their way that are told apart here (OpenAPI document).
const (
	refundStarted      = "STARTED_BY_USER"
	refundWaitingDBS   = "WAITING_FOR_DECISION"
	refundDecidedDBS   = "DECISION_MADE"
	refundWaiting      = "PREMODERATION_DECISION_WAITING"
	refundDecided      = "PREMODERATION_DECISION_MADE"
	refundInProgress   = "REFUND_IN_PROGRESS"
	shipmentCreated    = "CREATED"
	shipmentReady      = "READY_FOR_PICKUP"
	pickupFor          = 14 * 24 * time.Hour
	decisionRefund     = "REFUND_MONEY"
	decisionDecline    = "DECLINE_REFUND"
	decisionFastRefund = "FAST_REFUND_MONEY"
)

// ways are the statuses that may follow one, by model of placement: sellers who deliver themselves decide as they did
// before the Market's premoderation. A status without an entry is the last.
var (
	refundWays = map[string][]string{
		refundStarted:                   {refundWaiting, refundWaiting, refundWaiting, "CANCELLED"},
		refundWaiting:                   {refundDecided, refundDecided, "PREMODERATION_DISPUTE"},
		"PREMODERATION_DISPUTE":         {refundDecided, "REJECTED"},
		refundDecided:                   {"PREMODERATION_SELECT_DELIVERY", "PREMODERATION_SELECT_DELIVERY", "REJECTED", "COMPLETE_WITHOUT_REFUND"},
		"PREMODERATION_SELECT_DELIVERY": {refundInProgress, refundInProgress, "CANCELLED"},
		refundInProgress:                {"REFUNDED", "REFUNDED", "REFUNDED", "REFUNDED_WITH_BONUSES", "FAILED"},
		"FAILED":                        {refundInProgress},
	}
	refundWaysDBS = map[string][]string{
		refundStarted:    {refundWaitingDBS, refundWaitingDBS, "CANCELLED"},
		refundWaitingDBS: {refundDecidedDBS},
		refundDecidedDBS: {refundInProgress, "REFUNDED_BY_SHOP", "REJECTED"},
		refundInProgress: {"REFUNDED", "REFUNDED_WITH_BONUSES", "FAILED"},
		"FAILED":         {"REFUNDED_BY_SHOP"},
	}
	shipmentWays = map[string][]string{
		shipmentCreated:            {"RECEIVED", "RECEIVED", "RECEIVED", "EXPIRED"},
		"RECEIVED":                 {"IN_TRANSIT"},
		"IN_TRANSIT":               {shipmentReady, shipmentReady, shipmentReady, "LOST"},
		shipmentReady:              {"PICKED", "PICKED", "PICKED", "NOT_IN_DEMAND"},
		"NOT_IN_DEMAND":            {"PREPARED_FOR_UTILIZATION", "READY_FOR_EXPROPRIATION"},
		"PREPARED_FOR_UTILIZATION": {"UTILIZED"},
		"READY_FOR_EXPROPRIATION":  {"RECEIVED_FOR_EXPROPRIATION"},
	}
	shipmentWaysFBY = map[string][]string{
		shipmentCreated: {"RECEIVED", "RECEIVED", "RECEIVED", "EXPIRED"},
		"RECEIVED":      {"IN_TRANSIT"},
		"IN_TRANSIT":    {"FULFILMENT_RECEIVED", "FULFILMENT_RECEIVED", "LOST"},
	}
	// refused are the ends of a return whose goods never leave the buyer.
	refused = []string{"CANCELLED", "REJECTED", "COMPLETE_WITHOUT_REFUND"}
)

func refundNext(placement Placement, status string) []string {
	if placement == DBS {
		return refundWaysDBS[status]
	}
	return refundWays[status]
}

func shipmentNext(placement Placement, status string) []string {
	if placement == FBY {
		return shipmentWaysFBY[status]
	}
	return shipmentWays[status]
}

// begin sets the statuses of a return that was just made. An unredeemed order has only its way back to the shop.
func (n *goodsReturn) begin() {
	n.shipment = shipmentCreated
	if n.kind == typeUnredeemed {
		return
	}
	n.refund = refundStarted
	if !n.company {
		n.refund = refundWaiting
		if n.order.store.placement == DBS {
			n.refund = refundWaitingDBS
		}
	}
	if n.fast || n.company {
		n.shipment = "" // the goods stay with the buyer; of a company's they are not yet on their way
	}
}

// travels says whether the goods can get on: of a return only when it has been decided.
func (n *goodsReturn) travels() bool {
	if n.fast || len(shipmentNext(n.order.store.placement, n.shipment)) == 0 {
		return false
	}
	return n.kind == typeUnredeemed || n.refund == refundInProgress || len(refundNext(n.order.store.placement, n.refund)) == 0
}

// moves says whether something can still become of a return.
func (n *goodsReturn) moves() bool {
	return len(refundNext(n.order.store.placement, n.refund)) > 0 || n.travels()
}

// step is the next thing on a return's way.
func (n *goodsReturn) step(at int64, r *rand.Rand) {
	refunds, travels := refundNext(n.order.store.placement, n.refund), n.travels()
	if len(refunds) > 0 && (!travels || kit.Chance(r, 0.5)) {
		n.turn(kit.Pick(r, refunds), r)
		return
	}
	n.shipment = kit.Pick(r, shipmentNext(n.order.store.placement, n.shipment))
	if n.shipment == shipmentReady {
		n.pickupTill = at - at%int64(time.Second) + int64(pickupFor)
	}
}

// turn changes the status of the refund, with what it brings about.
func (n *goodsReturn) turn(status string, r *rand.Rand) {
	n.refund = status
	switch {
	case status == refundDecided || status == refundDecidedDBS:
		for i := range n.items {
			if n.items[i].decision == "" {
				n.items[i].decision = kit.Pick(r, []string{decisionRefund, decisionRefund, decisionDecline})
				if n.fast {
					n.items[i].decision = decisionFastRefund
				}
			}
		}
	case slices.Contains(refused, status):
		if n.shipment != "" {
			n.shipment = "CANCELLED"
		}
	}
	if n.company && n.shipment == "" && status == refundInProgress {
		n.shipment = shipmentCreated
	}
}
