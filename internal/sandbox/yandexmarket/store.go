package yandexmarket

import (
	"fmt"
	"slices"
)

// Placement is how a store sells.
type Placement string

// The placements of PlacementType.
const (
	FBS  Placement = "FBS"
	FBY  Placement = "FBY"
	DBS  Placement = "DBS"
	LAAS Placement = "LAAS"
)

// Availability says whether the API may be used for a store.
type Availability string

// The values of ApiAvailabilityStatusType.
const (
	Available               Availability = "AVAILABLE"
	DisabledByInactivity    Availability = "DISABLED_BY_INACTIVITY"
	DisabledByNoContract    Availability = "DISABLED_BY_NO_ACTIVE_CONTRACT"
	ManuallyDisabled        Availability = "MANUALLY_DISABLED"
	DisabledByNoPlacement   Availability = "DISABLED_BY_NO_PLACEMENT_TYPE"
	disabledBusinessMessage              = "API for business '%d' disabled because it has only disabled partners"
)

// disabledBecause is the end of the 403 of each. Of the last two only the beginning is documented.
var disabledBecause = map[Availability]string{
	DisabledByInactivity:  "due to inactivity",
	ManuallyDisabled:      "manually disabled",
	DisabledByNoContract:  "because it has no active contract",
	DisabledByNoPlacement: "because it has no placement type",
}

// StoreSpec describes a store, which the API calls a campaign.
type StoreSpec struct {
	// ID is the campaignId. Default: drawn by the seed.
	ID int64
	// Domain is its name. Default: the cabinet's.
	Domain string
	// Placement is how it sells. Default: FBS.
	Placement Placement
	// Availability says whether the API may be used for it. Default: it may.
	Availability Availability
}

func (s StoreSpec) withDefaults(of BusinessSpec, id int64) StoreSpec {
	if s.ID == 0 {
		s.ID = id
	}
	if s.Domain == "" {
		s.Domain = of.Name
	}
	if s.Placement == "" {
		s.Placement = FBS
	}
	if s.Availability == "" {
		s.Availability = Available
	}
	return s
}

func (s StoreSpec) validate() error {
	switch {
	case s.ID < 0:
		return fmt.Errorf("store %d: the id is negative", s.ID)
	case !slices.Contains([]Placement{FBS, FBY, DBS, LAAS}, s.Placement):
		return fmt.Errorf("store %d: unknown placement %q", s.ID, s.Placement)
	case s.Availability != Available && disabledBecause[s.Availability] == "":
		return fmt.Errorf("store %d: unknown availability %q", s.ID, s.Availability)
	}
	return nil
}

// Store is a store as it is now.
type Store struct {
	ID           int64
	Domain       string
	Placement    Placement
	Availability Availability
}

// store is a campaign. The Business' mutex guards what can change of it.
type store struct {
	id           int64
	domain       string
	placement    Placement
	availability Availability
}

func newStore(s StoreSpec) *store {
	return &store{id: s.ID, domain: s.Domain, placement: s.Placement, availability: s.Availability}
}

// Stores returns the stores in the order in which GET v2/campaigns lists them.
func (b *Business) Stores() []Store {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []Store
	for _, st := range b.stores {
		out = append(out, Store{st.id, st.domain, st.placement, st.availability})
	}
	return out
}

// AddStore opens a store.
func (b *Business) AddStore(s StoreSpec) (Store, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	highest := int64(0)
	for _, st := range b.stores {
		highest = max(highest, st.id)
	}
	s = s.withDefaults(b.spec, highest+1)
	if err := s.validate(); err != nil {
		return Store{}, err
	}
	if _, taken := b.market.byCampaign.LoadOrStore(s.ID, b); taken {
		return Store{}, fmt.Errorf("store %d is taken", s.ID)
	}
	st := newStore(s)
	b.stores = append(b.stores, st)
	b.openReturns(st)
	return Store{st.id, st.domain, st.placement, st.availability}, nil
}

// SetAvailability switches the API of a store off or on.
func (b *Business) SetAvailability(campaignID int64, a Availability) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	st := b.storeByID(campaignID)
	switch {
	case st == nil:
		return fmt.Errorf("business %d has no store %d", b.spec.ID, campaignID)
	case a != Available && disabledBecause[a] == "":
		return fmt.Errorf("unknown availability %q", a)
	}
	st.availability = a
	return nil
}

// disabled is the message of the 403 that a request for a store, or for the business (nil), gets; "": none.
func (b *Business) disabled(st *store) string {
	if st != nil {
		if st.availability == Available {
			return ""
		}
		return fmt.Sprintf("API for campaign '%d' disabled %s", st.id, disabledBecause[st.availability])
	}
	if slices.ContainsFunc(b.stores, func(st *store) bool { return st.availability == Available }) {
		return ""
	}
	return fmt.Sprintf(disabledBusinessMessage, b.spec.ID)
}

// selling are the stores that have orders: all but LaaS ones, unless there are no others.
func (b *Business) selling() []*store {
	others := slices.DeleteFunc(slices.Clone(b.stores), func(st *store) bool { return st.placement == LAAS })
	if len(others) == 0 {
		return b.stores
	}
	return others
}
