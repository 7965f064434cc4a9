package yandexmarket

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"syncd/internal/sandbox/kit"
)

// ReturnSpec says which returns and unredeemed orders the stores of a business have, each of them, and what becomes of
// them. Without Every and ChangeEvery they are at rest: after the epoch nothing happens to them by itself, except that late
// ones appear.
type ReturnSpec struct {
	// History is how many each store had before the epoch, or before it was opened. Default: none.
	History int
	// Span is how far they go back. Default: [WorldSpec.Span].
	Span time.Duration
	// Every is the mean time between new ones of a store after the epoch. Default: none come.
	Every time.Duration
	// ChangeEvery is the mean time between steps that the returns of a store take on their way, from one status to the
	// next. Default: none.
	ChangeEvery time.Duration
	// StillChanges is the share of steps that leave updateDate as it was. Default: none.
	StillChanges float64
	// Late is the share that appears only up to LateBy after the creation. Default: none.
	Late   float64
	LateBy time.Duration
	// Undated is the share without creationDate and updateDate, which are optional. Default: none.
	Undated float64
	// Strange is the share whose statuses, reasons and types are such as no document knows. Default: none.
	Strange float64
}

func (s ReturnSpec) withDefaults(span time.Duration) ReturnSpec {
	s.Span = cmp.Or(s.Span, span)
	return s
}

func (s ReturnSpec) validate() error {
	return errors.Join(
		notNegative("returns", map[string]int64{
			"history": int64(s.History), "span": int64(s.Span), "every": int64(s.Every), "change every": int64(s.ChangeEvery), "late by": int64(s.LateBy),
		}),
		shares("returns", map[string]float64{"late": s.Late, "still changes": s.StillChanges, "undated": s.Undated, "strange": s.Strange}),
	)
}

// Types of returns (OpenAPI document).
const (
	typeReturn     = "RETURN"
	typeUnredeemed = "UNREDEEMED"
)

// returnWorld is the returns of a business, store by store. The Business's mutex guards it.
type returnWorld struct {
	business *Business
	seed     uint64
	spec     ReturnSpec
	byID     map[int64]*goodsReturn
	stores   map[int64]*storeReturns
}

// storeReturns is the returns of one store.
type storeReturns struct {
	world  *returnWorld
	store  *store
	grow   kit.Growth
	shift  kit.Growth
	r      *rand.Rand // what is returned
	fate   *rand.Rand // what becomes of it
	byHand *rand.Rand // what tests add

	recent []*goodsReturn // the latest ones: of their orders more comes back
	listed []*goodsReturn // what the list shows, by updateDate
	moving []*goodsReturn // of what is listed, that of which something can still become
}

// goodsReturn is a return or an unredeemed order.
type goodsReturn struct {
	id               int64
	order            order
	created, updated int64 // nanoseconds, whole seconds
	kind             string
	fast             bool // the goods stay with the buyer
	company          bool // the buyer is a business
	refund           string
	shipment         string
	recipient        string
	pickupTill       int64 // nanoseconds
	items            []returnItem
	undated, strange bool
	listed           bool
	raw              []byte // sent in place of the return until it changes
}

type returnItem struct {
	id             int64
	product        product
	count          int64
	kopecks        int64 // price of one
	reason, detail string
	comment        string
	decision       string // "": none yet
	images         []string
	track          string
}

func compareReturns(a, b *goodsReturn) int { return compareTimes(a.updated, b.updated, a.id, b.id) }

func newReturnWorld(b *Business, seed uint64) *returnWorld {
	w := &returnWorld{
		business: b, seed: seed, spec: b.spec.World.Returns.withDefaults(b.spec.World.Span),
		byID: make(map[int64]*goodsReturn), stores: make(map[int64]*storeReturns),
	}
	for _, st := range b.stores {
		w.open(st)
	}
	return w
}

// open begins the returns of a store: its history is what was before now.
func (w *returnWorld) open(st *store) {
	b, name := w.business, itoa(st.id)
	draw := func(of string) *rand.Rand { return kit.Stream(w.seed, b.purpose(of+" of store "+name)) }
	s := &storeReturns{
		world: w, store: st,
		r:      draw("returns"),
		fate:   draw("fate of returns"),
		byHand: draw("returns by hand"),
		grow:   kit.NewGrowth(draw("return growth")),
		shift:  kit.NewGrowth(draw("return changes")),
	}
	w.stores[st.id] = s
	for _, at := range kit.HistoryTimes(draw("return history"), w.spec.History, b.time.Now, w.spec.Span) {
		n := s.compose(s.r, at)
		s.past(n)
		s.settle(n)
	}
	b.time.Rhythm(&s.grow, w.spec.Every, func() { s.settle(s.compose(s.r, s.grow.Step())) })
	b.time.Rhythm(&s.shift, w.spec.ChangeEvery, s.changeOne)
}

// openReturns begins the returns of a store that was opened just now.
func (b *Business) openReturns(st *store) {
	b.time.Advance(time.Now().UnixNano())
	b.returns.open(st)
}

// recentReturns is of how many orders, counted from the latest return, more may come back.
const recentReturns = 10

// compose begins a return, which nobody sees yet.
func (s *storeReturns) compose(r *rand.Rand, at int64) *goodsReturn {
	b, spec := s.world.business, s.world.spec
	at -= at % int64(time.Second)
	n := &goodsReturn{
		id: freshID(r, s.world.byID), created: at, updated: at, kind: typeReturn,
		order:     order{id: freshID(r, b.orders), store: s.store, buyer: newBuyer(r)},
		recipient: kit.Pick(r, []string{"SHOP", "DELIVERY_SERVICE", "POST"}),
		undated:   kit.Chance(r, spec.Undated), strange: kit.Chance(r, spec.Strange),
	}
	again, back := kit.Chance(r, 0.2), 1+r.IntN(recentReturns)
	unredeemed, fast, company := kit.Chance(r, 0.3), kit.Chance(r, 0.1), kit.Chance(r, 0.1)
	for range 1 + r.IntN(4)/3 {
		n.items = append(n.items, drawItem(r, b.products))
	}
	if again && back <= len(s.recent) { // one return for each item of an order
		n.order = s.recent[len(s.recent)-back].order
	}
	switch {
	case unredeemed:
		n.kind = typeUnredeemed
	case fast:
		n.fast = true
	case company:
		n.company = true
	}
	n.begin()
	s.world.byID[n.id] = n
	if s.recent = append(s.recent, n); len(s.recent) > recentReturns {
		s.recent = slices.Delete(s.recent, 0, 1)
	}
	return n
}

func drawItem(r *rand.Rand, products []product) returnItem {
	p, why := kit.Pick(r, products), kit.Pick(r, returnReasons)
	i := returnItem{
		id: 1_000_000 + r.Int64N(900_000_000), product: p, count: 1 + r.Int64N(2), kopecks: 100*p.price - r.Int64N(2)*r.Int64N(100),
		reason: why.reason, detail: why.detail, comment: kit.Pick(r, returnComments),
	}
	for range r.IntN(4) {
		i.images = append(i.images, kit.HexID(r, 16))
	}
	if kit.Chance(r, 0.3) {
		i.track = "8008" + itoa(1_000_000_000+r.Int64N(8_000_000_000))
	}
	return i
}

// past takes a return of the history some steps on its way.
func (s *storeReturns) past(n *goodsReturn) {
	at := n.created
	for range s.fate.IntN(6) {
		at += int64(time.Minute) + int64(s.fate.ExpFloat64()*float64(24*time.Hour))
		if at >= s.world.business.time.Now || !n.moves() {
			return
		}
		n.step(at, s.fate)
		n.updated = at - at%int64(time.Second)
	}
}

// settle decides when a return appears.
func (s *storeReturns) settle(n *goodsReturn) {
	late := kit.Lateness(s.fate, s.world.spec.Late, s.world.spec.LateBy)
	s.world.business.time.After(n.created+late, func() { s.show(n) })
}

// show puts a return in the list, and makes it and its order known to the rest of the business.
func (s *storeReturns) show(n *goodsReturn) {
	n.listed = true
	n.order = s.world.business.addOrder(n.order)
	s.world.business.addRefund(refund{id: n.id, order: n.order})
	s.insert(n)
	if n.moves() {
		s.moving = append(s.moving, n)
	}
	s.note(n)
}

func (s *storeReturns) insert(n *goodsReturn) {
	i, _ := slices.BinarySearchFunc(s.listed, n, compareReturns)
	s.listed = slices.Insert(s.listed, i, n)
}

// alter applies a change to a return that is shown. still: updateDate remains.
func (s *storeReturns) alter(n *goodsReturn, at int64, still bool, apply func()) {
	i, _ := slices.BinarySearchFunc(s.listed, n, compareReturns)
	s.listed = slices.Delete(s.listed, i, i+1)
	n.raw = nil
	apply()
	if !still {
		n.updated = at - at%int64(time.Second)
	}
	s.insert(n)
	s.note(n)
	switch i, moves := slices.Index(s.moving, n), n.moves(); {
	case i < 0 && moves:
		s.moving = append(s.moving, n)
	case i >= 0 && !moves:
		s.moving = slices.Delete(s.moving, i, i+1)
	}
}

func (s *storeReturns) note(n *goodsReturn) {
	s.world.business.note(KindReturn, itoa(s.store.id)+"/"+itoa(n.id), func() []byte { return s.world.render(n) })
}

// changeOne takes one of the returns that are on their way a step further.
func (s *storeReturns) changeOne() {
	at := s.shift.Step()
	still, place := kit.Chance(s.fate, s.world.spec.StillChanges), s.fate.Float64()
	if len(s.moving) == 0 {
		return
	}
	n := s.moving[int(place*float64(len(s.moving)))]
	s.alter(n, at, still, func() { n.step(at, s.fate) })
}
