package yandexmarket

import (
	"fmt"
	"time"
)

// SpendElsewhere is another program of the same seller spending n requests of a method now, or as many as are left.
func (m *Market) SpendElsewhere(method Method, entity Entity, n int) error {
	b, err := m.owner(entity)
	if err != nil {
		return err
	}
	for _, rt := range routes {
		if rt.method == method {
			b.spendElsewhere(payment{
				entity: entity, method: method, limit: m.limitOf(rt, b), documented: rt.limit.none,
				windows: m.currentQuirks().windows(), now: time.Now(),
			}, n)
			return nil
		}
	}
	return fmt.Errorf("unknown method %q", method)
}

// OccupyElsewhere is another program of the same seller having n requests of an entity under way, until it is told another
// number.
func (m *Market) OccupyElsewhere(entity Entity, n int) error {
	b, err := m.owner(entity)
	if err != nil {
		return err
	}
	b.spendMu.Lock()
	defer b.spendMu.Unlock()
	b.lane(entity).others = n
	return nil
}

// owner finds the business that an entity is, or is a store of.
func (m *Market) owner(e Entity) (*Business, error) {
	for _, b := range m.businesses {
		if b.Entity() == e {
			return b, nil
		}
		for _, st := range b.Stores() {
			if CampaignEntity(st.ID) == e {
				return b, nil
			}
		}
	}
	return nil, fmt.Errorf("no entity %q", e)
}
