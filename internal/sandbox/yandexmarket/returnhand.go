package yandexmarket

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Return is a return, or an unredeemed order, as the list of its store shows it.
type Return struct {
	ID, OrderID, CampaignID int64
	// Created and Updated are the dates, also of a return that shows none.
	Created, Updated time.Time
	// JSON is the item exactly as returns sends it now.
	JSON json.RawMessage
}

// NewReturn says what return [Business.AddReturn] makes.
type NewReturn struct {
	// CampaignID is the store. Default: the first.
	CampaignID int64
	// ID is its id. Default: a new one.
	ID int64
	// OrderID is its order. Default: a new one.
	OrderID int64
	// Unredeemed makes it an order that nobody has taken. Default: a return.
	Unredeemed bool
	// Fast leaves the goods with the buyer.
	Fast bool
	// Created is creationDate and updateDate. Default: now. The list shows it at once, so an earlier one makes a late return.
	Created time.Time
	// Raw is sent in place of the item, whatever it is, until the return changes. Default: the item as rendered.
	Raw json.RawMessage
}

// ReturnChange is what [Business.ChangeReturn] changes.
type ReturnChange struct {
	// Refund and Shipment are the new statuses, known ones or not. Default: as they were.
	Refund, Shipment string
	// Still leaves updateDate as it was. Default: it is now.
	Still bool
}

// Returns returns what the lists of all stores show now, store by store, by updateDate.
func (b *Business) Returns() []Return {
	b.lock(time.Now())
	defer b.mu.Unlock()
	var out []Return
	for _, st := range b.stores {
		for _, n := range b.returns.stores[st.id].listed {
			out = append(out, b.returns.view(n))
		}
	}
	return out
}

func (w *returnWorld) view(n *goodsReturn) Return {
	return Return{
		ID: n.id, OrderID: n.order.id, CampaignID: n.order.store.id, Created: time.Unix(0, n.created), Updated: time.Unix(0, n.updated),
		JSON: w.render(n),
	}
}

// AddReturn puts a return in the list of a store at once.
func (b *Business) AddReturn(spec NewReturn) (Return, error) {
	now := time.Now()
	b.lock(now)
	defer b.mu.Unlock()
	w, st := b.returns, b.stores[0]
	if spec.CampaignID != 0 {
		if st = b.storeByID(spec.CampaignID); st == nil {
			return Return{}, fmt.Errorf("no store %d", spec.CampaignID)
		}
	}
	if w.byID[spec.ID] != nil {
		return Return{}, fmt.Errorf("return %d exists", spec.ID)
	}
	if spec.Created.IsZero() {
		spec.Created = now
	}
	s := w.stores[st.id]
	n := s.compose(s.byHand, spec.Created.UnixNano())
	if spec.ID != 0 {
		delete(w.byID, n.id)
		n.id = spec.ID
		w.byID[n.id] = n
	}
	n.order = order{id: freshID(s.byHand, b.orders), store: st, buyer: newBuyer(s.byHand)}
	if spec.OrderID != 0 {
		n.order.id = spec.OrderID
	}
	n.kind, n.fast, n.company = typeReturn, spec.Fast, false
	if spec.Unredeemed {
		n.kind = typeUnredeemed
	}
	n.refund = ""
	n.begin()
	n.raw = slices.Clone(spec.Raw)
	s.show(n)
	return w.view(n), nil
}

// ChangeReturn changes statuses of a return.
func (b *Business) ChangeReturn(id int64, change ReturnChange) error {
	return b.onReturn(id, func(s *storeReturns, n *goodsReturn, now int64) {
		s.alter(n, now, change.Still, func() {
			if change.Refund != "" {
				n.refund = change.Refund
			}
			if change.Shipment != "" {
				n.shipment = change.Shipment
			}
		})
	})
}

// StepReturn takes a return a step further on its way, if it is not at its end.
func (b *Business) StepReturn(id int64) error {
	return b.onReturn(id, func(s *storeReturns, n *goodsReturn, now int64) {
		if n.moves() {
			s.alter(n, now, false, func() { n.step(now, s.byHand) })
		}
	})
}

func (b *Business) onReturn(id int64, do func(s *storeReturns, n *goodsReturn, now int64)) error {
	now := time.Now()
	b.lock(now)
	defer b.mu.Unlock()
	n := b.returns.byID[id]
	if n == nil || !n.listed {
		return fmt.Errorf("no return %d", id)
	}
	do(b.returns.stores[n.order.store.id], n, now.UnixNano())
	return nil
}
