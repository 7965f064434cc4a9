package yandexmarket

import (
	"encoding/json"
	"fmt"

	"syncd/internal/sandbox/kit"
)

// wireReturn is an item of GET /v2/campaigns/{campaignId}/returns. What is not required may be missing.
type wireReturn struct {
	ID             int64            `json:"id"`
	OrderID        int64            `json:"orderId"`
	CreationDate   string           `json:"creationDate,omitempty"`
	UpdateDate     string           `json:"updateDate,omitempty"`
	RefundStatus   string           `json:"refundStatus,omitempty"`
	PickupPoint    *wirePickupPoint `json:"logisticPickupPoint,omitempty"`
	PickupTillDate string           `json:"pickupTillDate,omitempty"`
	RecipientType  string           `json:"shipmentRecipientType,omitempty"`
	ShipmentStatus string           `json:"shipmentStatus,omitempty"`
	RefundAmount   int64            `json:"refundAmount,omitempty"` // kopecks
	Amount         *wireMoney       `json:"amount,omitempty"`
	Items          []wireReturnItem `json:"items"`
	ReturnType     string           `json:"returnType"`
	FastReturn     *bool            `json:"fastReturn,omitempty"`
}

type wirePickupPoint struct {
	ID                int64       `json:"id"`
	Name              string      `json:"name"`
	Address           wireAddress `json:"address"`
	Instruction       string      `json:"instruction,omitempty"`
	Type              string      `json:"type"`
	LogisticPartnerID int64       `json:"logisticPartnerId"`
}

type wireAddress struct {
	Country  string `json:"country"`
	City     string `json:"city"`
	Street   string `json:"street"`
	House    string `json:"house"`
	Postcode string `json:"postcode"`
}

// wireMoney is an amount: a JSON number, with kopecks where there are any.
type wireMoney struct {
	Value      json.Number `json:"value"`
	CurrencyID string      `json:"currencyId"`
}

func money(kopecks int64) *wireMoney {
	value := itoa(kopecks / 100)
	if k := kopecks % 100; k != 0 {
		value += fmt.Sprintf(".%02d", k)
	}
	return &wireMoney{Value: json.Number(value), CurrencyID: "RUR"}
}

type wireReturnItem struct {
	MarketSku int64          `json:"marketSku,omitempty"`
	ShopSku   string         `json:"shopSku"`
	Count     int64          `json:"count"`
	Decisions []wireDecision `json:"decisions"` // or null
	Instances []wireInstance `json:"instances"` // or null
	Tracks    []wireTrack    `json:"tracks"`    // or null
}

type wireDecision struct {
	ReturnItemID  int64      `json:"returnItemId"`
	Count         int64      `json:"count"`
	Comment       string     `json:"comment,omitempty"`
	ReasonType    string     `json:"reasonType"`
	SubreasonType string     `json:"subreasonType,omitempty"`
	DecisionType  string     `json:"decisionType,omitempty"`
	RefundAmount  int64      `json:"refundAmount,omitempty"` // kopecks
	Amount        *wireMoney `json:"amount,omitempty"`
	Images        []string   `json:"images"` // or null
}

type wireInstance struct {
	StockType string `json:"stockType"`
	Status    string `json:"status"`
}

type wireTrack struct {
	TrackCode string `json:"trackCode"`
}

// instanceStatuses are the statuses of single goods that are spelt otherwise than those of their return.
var instanceStatuses = map[string]string{
	"FULFILMENT_RECEIVED": "RECEIVED_ON_FULFILLMENT", "READY_FOR_EXPROPRIATION": "EXPROPRIATED",
	"RECEIVED_FOR_EXPROPRIATION": "EXPROPRIATED", "EXPIRED": "CANCELLED",
}

// render gives a return as the list and the method for one return send it.
func (w *returnWorld) render(n *goodsReturn) []byte {
	if n.raw != nil {
		return n.raw
	}
	out := wireReturn{
		ID: n.id, OrderID: n.order.id, ReturnType: n.kind, RefundStatus: n.strangely(n.refund), ShipmentStatus: n.strangely(n.shipment),
	}
	if !n.undated {
		out.CreationDate, out.UpdateDate = w.business.when(n.created), w.business.when(n.updated)
	}
	if n.shipment != "" {
		out.RecipientType = n.strangely(n.recipient)
		out.PickupPoint = &wirePickupPoint{
			ID: 10_000_000 + n.order.store.id%1_000_000, Name: "Пункт вывоза «Стрелецкий»", Type: "PICKUP_POINT", LogisticPartnerID: 75_735,
			Address:     wireAddress{Country: "Россия", City: "Москва", Street: "Стрелецкая улица", House: "9к2", Postcode: "123518"},
			Instruction: "Вход со двора, звонок «Возвраты & выдача»",
		}
	}
	if n.shipment == shipmentReady {
		out.PickupTillDate = w.business.when(n.pickupTill)
	}
	for _, i := range n.items {
		out.Items = append(out.Items, n.renderItem(i))
	}
	if n.kind == typeReturn {
		total := n.total()
		out.RefundAmount, out.Amount, out.FastReturn = total, money(total), &n.fast
	}
	return kit.Render(out)
}

func (n *goodsReturn) renderItem(i returnItem) wireReturnItem {
	item := wireReturnItem{ShopSku: i.product.sku, Count: i.count}
	if i.id%10 != 0 { // optional
		item.MarketSku = 100_000_000 + i.id
	}
	if n.kind == typeReturn {
		d := wireDecision{
			ReturnItemID: i.id, Count: i.count, Comment: i.comment, ReasonType: n.strangely(i.reason), SubreasonType: n.strangely(i.detail),
			DecisionType: i.decision, Images: i.images,
		}
		if i.decision != "" && i.decision != decisionDecline {
			d.RefundAmount, d.Amount = i.count*i.kopecks, money(i.count*i.kopecks)
		}
		item.Decisions = []wireDecision{d}
	}
	if n.shipment != "" {
		status, stock := n.shipment, "FIT"
		if other, ok := instanceStatuses[status]; ok {
			status = other
		}
		if i.reason == "BAD_QUALITY" || i.reason == "DAMAGE_DELIVERY" {
			stock = "DEFECT"
		}
		for range i.count {
			item.Instances = append(item.Instances, wireInstance{StockType: stock, Status: n.strangely(status)})
		}
	}
	if i.track != "" {
		item.Tracks = []wireTrack{{i.track}}
	}
	return item
}

// strangely spells a value as a newer version of the API might, for a return that is strange.
func (n *goodsReturn) strangely(value string) string {
	if !n.strange || value == "" {
		return value
	}
	return value + "_V2"
}
