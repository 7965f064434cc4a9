package yandexmarket

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"syncd/internal/sandbox/kit"
)

// BusinessSpec describes a cabinet.
type BusinessSpec struct {
	// ID is the businessId. Default: drawn by the seed.
	ID int64
	// Name is the cabinet's. Default: drawn by the seed.
	Name string
	// Medium has the paid subscription, which raises some limits.
	Medium bool
	// Stores are its campaigns. Default: one FBS store.
	Stores []StoreSpec
	// World says what its buyers do.
	World WorldSpec
}

// WorldSpec says what the buyers of a business do and how the marketplace shows it. Where none of its parts grows, the
// world is at rest: after the epoch nothing happens in it by itself, except that late items of its history appear.
type WorldSpec struct {
	// Span is how far the history goes back from the epoch. Default: 30 days.
	Span time.Duration
	// Times is how the API writes moments.
	Times TimeForm
	// Journal keeps every state of every item for [Business.Journal]. It grows with all that happens. Default: nothing is
	// kept.
	Journal bool

	Chats     ChatSpec
	Feedback  FeedbackSpec
	Questions QuestionSpec
	Returns   ReturnSpec
}

const defaultSpan = 30 * 24 * time.Hour

func (s BusinessSpec) withDefaults(seed uint64, place int) BusinessSpec {
	r := kit.Stream(seed, fmt.Sprintf("business %d", place))
	id, name := 900_000+r.Int64N(9_000_000), kit.Pick(r, businessNames)
	if s.ID == 0 {
		s.ID = id
	}
	if s.Name == "" {
		s.Name = name
	}
	if len(s.Stores) == 0 {
		s.Stores = []StoreSpec{{}}
	}
	s.Stores = slices.Clone(s.Stores)
	for i := range s.Stores {
		s.Stores[i] = s.Stores[i].withDefaults(s, 21_000_000+r.Int64N(70_000_000))
	}
	if s.World.Span == 0 {
		s.World.Span = defaultSpan
	}
	return s
}

func (s BusinessSpec) validate() error {
	problems := []error{s.World.Chats.validate(), s.World.Feedback.validate(), s.World.Questions.validate(), s.World.Returns.validate()}
	if s.ID < 0 {
		problems = append(problems, fmt.Errorf("id %d is negative", s.ID))
	}
	if s.World.Span < 0 {
		problems = append(problems, fmt.Errorf("span: %s is negative", s.World.Span))
	}
	if s.World.Times < TimesMoscow || s.World.Times > TimesMixed {
		problems = append(problems, fmt.Errorf("unknown form %d of times", s.World.Times))
	}
	for _, st := range s.Stores {
		problems = append(problems, st.validate())
	}
	return errors.Join(problems...)
}

// Business is one cabinet and all that happens in it. It moves when it is looked at ([kit.Timeline]).
type Business struct {
	market *Market
	spec   BusinessSpec

	mu       sync.Mutex // guards the rest
	time     kit.Timeline
	journal  *kit.Journal // nil: none is kept
	stores   []*store
	orders   map[int64]order
	refunds  map[int64]refund
	products []product

	chats     *chatWorld
	feedback  *feedbackWorld
	questions *questionWorld
	returns   *returnWorld

	spending
}

// order is what the API knows of an order in this part of it: who bought in which store.
type order struct {
	id    int64
	store *store
	buyer buyer
}

// refund is a return, by the order that it belongs to.
type refund struct {
	id    int64
	order order
}

func newBusiness(m *Market, spec BusinessSpec, epoch time.Time) *Business {
	b := &Business{
		market: m, spec: spec, orders: make(map[int64]order), refunds: make(map[int64]refund),
		time: kit.Timeline{Now: epoch.UnixNano()}, spending: newSpending(),
	}
	if spec.World.Journal {
		b.journal = kit.NewJournal()
	}
	for _, st := range spec.Stores {
		b.stores = append(b.stores, newStore(st))
	}
	b.products = newProducts(kit.Stream(m.seed, b.purpose("products")))
	// Returns come first: chats are about them too.
	b.returns = newReturnWorld(b, m.seed)
	b.chats = newChatWorld(b, m.seed)
	b.feedback = newFeedbackWorld(b, m.seed)
	b.questions = newQuestionWorld(b, m.seed)
	return b
}

// purpose names a generator of this business.
func (b *Business) purpose(of string) string {
	return fmt.Sprintf("yandex market %s %d", of, b.spec.ID)
}

// ID is the businessId.
func (b *Business) ID() int64 { return b.spec.ID }

// Name is the cabinet's name.
func (b *Business) Name() string { return b.spec.Name }

// Entity is what its requests by businessId are counted for.
func (b *Business) Entity() Entity { return BusinessEntity(b.spec.ID) }

// lock takes the mutex and lets happen what is due. The caller unlocks.
func (b *Business) lock(now time.Time) {
	b.mu.Lock()
	b.time.Advance(now.UnixNano())
}

// note is [kit.Journal.Note] now, for things without an age.
func (b *Business) note(kind kit.Kind, id string, render func() []byte) {
	b.journal.Note(b.time.Now, kind, id, render, 0)
}

// Journal returns every state of every item that the API has shown since the epoch, those of one item in the order of
// their times. It needs [WorldSpec.Journal].
func (b *Business) Journal() []kit.Showing {
	b.lock(time.Now())
	defer b.mu.Unlock()
	return b.journal.Shown(b.time.Now)
}

// Rest ends all that the world does by itself: nothing more is written, changed, hidden or comes late.
func (b *Business) Rest() {
	b.lock(time.Now())
	defer b.mu.Unlock()
	b.time.Rest()
}

// addOrder makes an order known, if it is not, and returns it.
func (b *Business) addOrder(o order) order {
	if known, ok := b.orders[o.id]; ok {
		return known
	}
	b.orders[o.id] = o
	return o
}

// addRefund makes a return known.
func (b *Business) addRefund(r refund) { b.refunds[r.id] = r }

// storeByID returns nil for a campaign that is not the business'.
func (b *Business) storeByID(id int64) *store {
	if i := slices.IndexFunc(b.stores, func(st *store) bool { return st.id == id }); i >= 0 {
		return b.stores[i]
	}
	return nil
}
