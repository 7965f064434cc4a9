package sandbox

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"syncd/internal/sandbox/kit"
)

// Pin is a pinned feedback, or one that the marketplace has unpinned.
type Pin struct {
	// ID is pinId, the id of the pinning: who pins again gets another one.
	ID         int
	FeedbackID string
	// Pinned is its state.
	Pinned bool
	// Changed is changeStateAt, which shows it cut to seconds.
	Changed time.Time
	// JSON is the item exactly as GET /api/feedbacks/v1/pins sends it now.
	JSON json.RawMessage
}

// PinSpec says what [World.AddPin] pins.
type PinSpec struct {
	FeedbackID string
	// Method is subscription or tariff. Default: subscription.
	Method string
	// On is nm or imt: the product's card or the group of cards. Default: nm.
	On string
	// At is the time of pinning. Default: now.
	At time.Time
}

// Why the marketplace unpins (OpenAPI document).
const (
	CauseTariffEnded   = "sysTariffUnpinned"
	CauseTotalLimit    = "sysLimitReached"
	CauseExcluded      = "sysNoratingUnpinned"
	CauseLimitOfAPlace = "sysAdditionalSlot"
)

const (
	bySubscription = "subscription"
	byTariff       = "tariff"
	onCard         = "nm"
	onGroup        = "imt"
	statePinned    = "pinned"
	stateUnpinned  = "unpinned"
)

// pinWorld is the pins of one seller. The World's mutex guards it.
type pinWorld struct {
	world  *World
	grow   kit.Growth // new ones
	shift  kit.Growth // pins that are taken off
	r      *rand.Rand // what is pinned
	change *rand.Rand // what shift does
	ids    *rand.Rand

	// pins are pinned and automatically unpinned ones, by id. What the seller unpins is gone.
	pins   []*pin
	lastID int
	// total and perPlace are the limits of each method. They leave room for twice the history.
	total, perPlace int
}

type pin struct {
	id         int
	method, on string
	of         *feedback
	cause      string // "": it is pinned
	changed    int64
}

// place is where a feedback is pinned: a card or a group of cards.
type place struct {
	on string
	id int
}

func newPinWorld(w *World, seed uint64) *pinWorld {
	p := &pinWorld{
		world:    w,
		grow:     kit.NewGrowth(kit.Stream(seed, "pin growth "+w.seller.ID)),
		shift:    kit.NewGrowth(kit.Stream(seed, "pin changes "+w.seller.ID)),
		r:        kit.Stream(seed, "pins "+w.seller.ID),
		change:   kit.Stream(seed, "changes of pins "+w.seller.ID),
		ids:      kit.Stream(seed, "pin ids "+w.seller.ID),
		total:    max(15, 2*w.spec.Pins),
		perPlace: max(2, 2*w.spec.Pins),
	}
	p.lastID = 1_000_000 + p.ids.IntN(1_000_000)
	type pinning struct {
		of *feedback
		at int64
	}
	var history []pinning
	for _, i := range p.r.Perm(w.spec.Feedbacks)[:w.spec.Pins] {
		n := w.feedbacks.all[i]
		history = append(history, pinning{n, n.created + p.r.Int64N(max(1, w.time.Now-n.created))})
	}
	slices.SortFunc(history, func(a, b pinning) int { return cmp.Or(cmp.Compare(a.at, b.at), compareFeedbacks(a.of, b.of)) })
	for _, h := range history {
		n := p.pin(h.of, kit.Pick(p.r, pinMethods), kit.Pick(p.r, pinPlaces), h.at)
		if kit.Chance(p.r, 0.3) {
			p.unpin(n, kit.Pick(p.r, unpinCauses), h.at+p.r.Int64N(max(1, w.time.Now-h.at)))
		}
	}
	return p
}

var (
	pinMethods  = []string{bySubscription, bySubscription, byTariff}
	pinPlaces   = []string{onCard, onGroup}
	unpinCauses = []string{CauseTariffEnded, CauseTotalLimit, CauseExcluded, CauseLimitOfAPlace}
)

// pin makes a new pin.
func (p *pinWorld) pin(of *feedback, method, on string, at int64) *pin {
	p.lastID += 1 + p.ids.IntN(40)
	n := &pin{id: p.lastID, method: method, on: on, of: of, changed: at}
	p.pins = append(p.pins, n)
	p.note(n)
	return n
}

func (p *pinWorld) note(n *pin) {
	p.world.note(KindPin, strconv.Itoa(n.id), func() []byte { return kit.Render(n.wire()) }, 0)
}

// unpin is the marketplace taking a pin off.
func (p *pinWorld) unpin(n *pin, cause string, at int64) {
	n.cause, n.changed = cause, at
	p.note(n)
}

// remove is the seller taking a pin off, who then is not told of it any more.
func (p *pinWorld) remove(n *pin) {
	i := slices.Index(p.pins, n)
	p.pins = slices.Delete(p.pins, i, i+1)
	p.world.note(KindPin, strconv.Itoa(n.id), nil, 0)
}

// excluded takes the pins of a deleted feedback off.
func (p *pinWorld) excluded(of *feedback) {
	for _, n := range p.pins {
		if n.of == of && n.cause == "" {
			p.unpin(n, CauseExcluded, p.world.time.Now)
		}
	}
}

// growOne pins a recent feedback. If there is no room, the marketplace makes some.
func (p *pinWorld) growOne() {
	at, method, on, back := p.grow.Step(), kit.Pick(p.r, pinMethods), kit.Pick(p.r, pinPlaces), p.r.IntN(recentFeedbacks)
	all := p.world.feedbacks.all
	for i := len(all) - 1 - min(back, len(all)-1); i >= 0 && i < len(all); i++ {
		n := all[i]
		if !n.visible() || p.held(n, on) {
			continue
		}
		if l := p.pinned(func(o *pin) bool { return o.place() == (&pin{on: on, of: n}).place() }); len(l) >= p.perPlace {
			p.unpin(l[0], CauseLimitOfAPlace, at)
		}
		if l := p.pinned(func(o *pin) bool { return o.method == method }); len(l) >= p.total {
			p.unpin(l[0], CauseTotalLimit, at)
		}
		p.pin(n, method, on, at)
		return
	}
}

// changeOne takes a pin off, or pins again what the marketplace has unpinned.
func (p *pinWorld) changeOne() {
	at, which, bySeller, cause := p.shift.Step(), p.change.Float64(), kit.Chance(p.change, 0.5), kit.Pick(p.change, unpinCauses)
	if len(p.pins) == 0 {
		return
	}
	n := p.pins[int(which*float64(len(p.pins)))]
	switch {
	case n.cause == "" && bySeller:
		p.remove(n)
	case n.cause == "":
		p.unpin(n, cause, at)
	case n.of.visible() && !p.held(n.of, n.on):
		p.pin(n.of, n.method, n.on, at)
	}
}

// pinned returns the pinned ones of some kind, by id.
func (p *pinWorld) pinned(which func(*pin) bool) []*pin {
	var out []*pin
	for _, n := range p.pins {
		if n.cause == "" && which(n) {
			out = append(out, n)
		}
	}
	return out
}

// held says whether a feedback is pinned there.
func (p *pinWorld) held(of *feedback, on string) bool {
	return len(p.pinned(func(n *pin) bool { return n.of == of && n.on == on })) > 0
}

func (n *pin) place() place {
	if n.on == onGroup {
		return place{onGroup, n.of.goods.imtID}
	}
	return place{onCard, n.of.goods.nmID}
}

func (n *pin) state() string {
	if n.cause == "" {
		return statePinned
	}
	return stateUnpinned
}

// byID finds a pin, or nil.
func (p *pinWorld) byID(id int) *pin {
	i, found := slices.BinarySearchFunc(p.pins, id, func(n *pin, id int) int { return cmp.Compare(n.id, id) })
	if !found {
		return nil
	}
	return p.pins[i]
}

// Pins returns all that is pinned now or was unpinned by the marketplace, by id.
func (w *World) Pins() []Pin {
	w.lock(time.Now())
	defer w.mu.Unlock()
	out := make([]Pin, len(w.pins.pins))
	for i, n := range w.pins.pins {
		out[i] = n.view()
	}
	return out
}

func (n *pin) view() Pin {
	return Pin{ID: n.id, FeedbackID: n.of.id, Pinned: n.cause == "", Changed: time.Unix(0, n.changed), JSON: kit.Render(n.wire())}
}

// AddPin pins a feedback without regard to limits.
func (w *World) AddPin(spec PinSpec) (Pin, error) {
	now := time.Now()
	w.lock(now)
	defer w.mu.Unlock()
	if spec.At.IsZero() {
		spec.At = now
	}
	of := w.feedbacks.byID[spec.FeedbackID]
	if of == nil {
		return Pin{}, fmt.Errorf("no feedback %s", spec.FeedbackID)
	}
	return w.pins.pin(of, cmp.Or(spec.Method, bySubscription), cmp.Or(spec.On, onCard), spec.At.UnixNano()).view(), nil
}

// Unpin takes a pin off as the seller would in the portal: it vanishes.
func (w *World) Unpin(id int) error {
	return w.onPin(id, func(n *pin) { w.pins.remove(n) })
}

// AutoUnpin takes a pin off as the marketplace does, for one of its causes: it goes to the list of unpinned ones.
func (w *World) AutoUnpin(id int, cause string) error {
	if !slices.Contains(unpinCauses, cause) {
		return fmt.Errorf("cause %q: there are %q", cause, unpinCauses)
	}
	return w.onPin(id, func(n *pin) { w.pins.unpin(n, cause, w.time.Now) })
}

func (w *World) onPin(id int, do func(n *pin)) error {
	w.lock(time.Now())
	defer w.mu.Unlock()
	n := w.pins.byID(id)
	if n == nil || n.cause != "" {
		return fmt.Errorf("pin %d: not pinned", id)
	}
	do(n)
	return nil
}
