package yandexmarket

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"syncd/internal/sandbox/kit"
)

// ChatSpec says what is said in a business' chats and how the marketplace shows it.
type ChatSpec struct {
	// History is how many chats the history has, each with some messages.
	History int
	// LongChat is how many messages the newest chat of the history has. Default: as any other.
	LongChat int

	// MessageEvery is the mean time between new messages after the epoch; about one in seven opens a chat. StatusEvery is
	// that between changes of some chat's status without a message. VanishEvery is that between chats vanishing from the
	// list. Default: none.
	MessageEvery time.Duration
	StatusEvery  time.Duration
	VanishEvery  time.Duration
	// VanishFor is the mean time after which half of the chats that vanish come back. Default: none does.
	VanishFor time.Duration

	// Bursts is the share of messages that another one follows within the same second. Default: 0.1; negative: none.
	Bursts float64
	// LateMessages is the share of messages that the history shows only up to LateBy after the list has shown the change;
	// LateListings that of changes which the list shows only up to LateBy after the history. Default: none.
	LateMessages float64
	LateListings float64
	LateBy       time.Duration

	// DrawnMessageIDs makes ids of messages numbers without any order. Default: later messages have larger ids.
	DrawnMessageIDs bool
	// OrderIDs adds the deprecated field orderId, as before 2026-10-19.
	OrderIDs bool
}

const defaultBursts = 0.1

func (s ChatSpec) validate() error {
	var problems []error
	for name, n := range map[string]int64{
		"history": int64(s.History), "long chat": int64(s.LongChat), "message every": int64(s.MessageEvery), "status every": int64(s.StatusEvery),
		"vanish every": int64(s.VanishEvery), "vanish for": int64(s.VanishFor), "late by": int64(s.LateBy),
	} {
		if n < 0 {
			problems = append(problems, fmt.Errorf("%s is negative", name))
		}
	}
	for name, share := range map[string]float64{"late messages": s.LateMessages, "late listings": s.LateListings, "bursts": max(0, s.Bursts)} {
		if !(share >= 0 && share <= 1) {
			problems = append(problems, fmt.Errorf("%s: %v is no share from 0 to 1", name, share))
		}
	}
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(problems...)
}

// The values of ChatType, ChatContextType, ChatStatusType and ChatMessageSenderType.
const (
	TypeChat      = "CHAT"
	TypeArbitrage = "ARBITRAGE"

	ContextOrder  = "ORDER"
	ContextReturn = "RETURN"
	ContextDirect = "DIRECT"

	StatusNew               = "NEW"
	StatusWaitingForBuyer   = "WAITING_FOR_CUSTOMER"
	StatusWaitingForPartner = "WAITING_FOR_PARTNER"
	StatusWaitingForArbiter = "WAITING_FOR_ARBITER"
	StatusWaitingForMarket  = "WAITING_FOR_MARKET"
	StatusFinished          = "FINISHED"

	SenderPartner  = "PARTNER"
	SenderCustomer = "CUSTOMER"
	SenderMarket   = "MARKET"
	SenderSupport  = "SUPPORT"
)

var chatStatuses = []string{
	StatusNew, StatusWaitingForBuyer, StatusWaitingForPartner, StatusWaitingForArbiter, StatusWaitingForMarket, StatusFinished,
}

// The kinds of what [Business.Journal] has of chats. The id of a message is its chat's, a slash, and its own.
const (
	KindChat    kit.Kind = "chat"
	KindMessage kit.Kind = "message"
)

// chatWorld is the chats of one business, whose mutex guards it.
type chatWorld struct {
	b    *Business
	spec ChatSpec

	grow, shift, hide kit.Growth
	r                 *rand.Rand // what is written
	late              *rand.Rand // when it appears
	states            *rand.Rand // changes of status
	hidden            *rand.Rand // what vanishes, and for how long
	byHand            *rand.Rand // what tests and API calls add

	chats     []*chat // in the order of their making
	byID      map[int64]*chat
	byContext map[chatContext]*chat // of type CHAT
	lastID    int64                 // of a chat
	lastSaid  int64                 // id of a message
}

// chatContext is what a chat is about.
type chatContext struct {
	kind string
	id   int64 // of an order or a return
}

type chat struct {
	id               int64
	kind, status     string
	context          chatContext
	order            order // of an order's and a return's
	buyer            buyer
	created, updated int64
	changes          int // how often something became of it
	script           []line

	shown   listing    // what the list shows of it
	gone    bool       // it has vanished from the list
	history []*message // what its history shows, by time
	said    map[int64]*message
}

// listing is what the list shows of a chat.
type listing struct {
	change  int // up to which it has caught up; 0: the chat is not there yet
	status  string
	updated int64
}

type message struct {
	id     int64
	at     int64
	order  int // in its chat: breaks ties
	render []byte
}

func compareMessages(a, b *message) int {
	return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.order, b.order))
}

// recentChats is how many chats, counted from the newest, people still write in.
const recentChats = 40

func newChatWorld(b *Business, seed uint64) *chatWorld {
	draw := func(of string) *rand.Rand { return kit.Stream(seed, b.purpose("chats: "+of)) }
	c := &chatWorld{
		b: b, spec: b.spec.World.Chats,
		grow: kit.NewGrowth(draw("growth")), shift: kit.NewGrowth(draw("shifts")), hide: kit.NewGrowth(draw("hides")),
		r: draw("words"), late: draw("late"), states: draw("states"), hidden: draw("hidden"), byHand: draw("by hand"),
		byID: make(map[int64]*chat), byContext: make(map[chatContext]*chat), lastID: 11_870_000, lastSaid: 700_000,
	}
	if c.spec.Bursts == 0 {
		c.spec.Bursts = defaultBursts
	}
	for i, at := range kit.HistoryTimes(draw("history"), c.spec.History, b.time.Now, b.spec.World.Span) {
		in := c.begin(at)
		n := 1 + c.r.IntN(8)
		if i == c.spec.History-1 && c.spec.LongChat > 0 {
			n = c.spec.LongChat
		}
		for left := n; left > 0; left-- {
			c.speak(c.r, in, at)
			at += 1 + c.r.Int64N(max(1, (b.time.Now-at)/int64(left)))
		}
	}
	b.time.Rhythm(&c.grow, c.spec.MessageEvery, c.growOne)
	b.time.Rhythm(&c.shift, c.spec.StatusEvery, c.shiftOne)
	b.time.Rhythm(&c.hide, c.spec.VanishEvery, c.hideOne)
	return c
}

// growOne lets somebody say the next thing.
func (c *chatWorld) growOne() {
	at := c.grow.Step()
	recent := c.recent()
	if len(recent) == 0 || kit.Chance(c.r, 0.15) {
		c.speak(c.r, c.begin(at), at)
		return
	}
	in := kit.Pick(c.r, recent)
	c.speak(c.r, in, at)
	if kit.Chance(c.r, c.spec.Bursts) {
		if left := int64(time.Second) - at%int64(time.Second); left > 1 {
			again := at + 1 + c.r.Int64N(left-1)
			c.b.time.After(again, func() { c.speak(c.r, in, again) })
		}
	}
}

// recent are the chats that people write in.
func (c *chatWorld) recent() []*chat {
	var out []*chat
	for _, ch := range slices.Backward(c.chats) {
		if !ch.gone {
			if out = append(out, ch); len(out) == recentChats {
				break
			}
		}
	}
	return out
}

// shiftOne changes the status of some chat, and nothing else.
func (c *chatWorld) shiftOne() {
	at := c.shift.Step()
	if recent := c.recent(); len(recent) > 0 {
		c.setStatus(kit.Pick(c.states, recent), kit.Pick(c.states, chatStatuses[1:]), c.lateness(c.late, c.spec.LateListings), at)
	}
}

// hideOne lets some chat vanish from the list, not only of those that people write in.
func (c *chatWorld) hideOne() {
	at := c.hide.Step()
	back, forGood := at+1+c.hidden.Int64N(max(1, 2*int64(c.spec.VanishFor))), kit.Chance(c.hidden, 0.5)
	var listed []*chat
	for _, ch := range c.chats {
		if ch.listed() {
			listed = append(listed, ch)
		}
	}
	if len(listed) == 0 {
		return
	}
	ch := kit.Pick(c.hidden, listed)
	c.setGone(ch, true)
	if c.spec.VanishFor > 0 && !forGood {
		c.b.time.After(back, func() { c.setGone(ch, false) })
	}
}

func (ch *chat) listed() bool { return ch.shown.change > 0 && !ch.gone }

func (c *chatWorld) setGone(ch *chat, gone bool) {
	ch.gone = gone
	c.noteChat(ch)
}

// begin opens a chat: of a buyer about a new order, a return or nothing, or a dispute about what another chat is about.
func (c *chatWorld) begin(at int64) *chat {
	p, about := c.r.Float64(), chatContext{kind: ContextDirect}
	o := c.b.newOrder(c.r)
	script := kit.Pick(c.r, conversations)
	switch {
	case p < 0.04:
		for _, other := range slices.Backward(c.chats) {
			if other.kind == TypeChat && other.context.kind != ContextDirect {
				ch := c.open(TypeArbitrage, other.context, other.order, other.buyer, at)
				ch.script = dispute
				return ch
			}
		}
	case p < 0.2:
	case p < 0.4 && o.store.placement != DBS:
		about = chatContext{ContextReturn, o.id + 1}
		c.b.addOrder(o)
		c.b.addRefund(refund{id: about.id, order: o})
	default:
		about = chatContext{ContextOrder, o.id}
		c.b.addOrder(o)
	}
	ch := c.open(TypeChat, about, o, o.buyer, at)
	ch.script = script
	return ch
}

// newOrder draws an order in one of the stores. It is not known yet.
func (b *Business) newOrder(r *rand.Rand) order {
	st := kit.Pick(r, b.selling())
	return order{id: 350_000_000 + 2*r.Int64N(20_000_000_000), store: st, buyer: newBuyer(r)}
}

// open makes a chat in which nothing is said.
func (c *chatWorld) open(kind string, about chatContext, o order, by buyer, at int64) *chat {
	c.lastID += 1 + at/1000%7
	ch := &chat{
		id: c.lastID, kind: kind, status: StatusNew, context: about, order: o, buyer: by, created: at, updated: at,
		said: make(map[int64]*message),
	}
	c.chats = append(c.chats, ch)
	c.byID[ch.id] = ch
	if kind == TypeChat && about.kind != ContextDirect {
		c.byContext[about] = ch
	}
	return ch
}

// speak lets somebody say the next thing of the chat's conversation.
func (c *chatWorld) speak(r *rand.Rand, in *chat, at int64) {
	said := line{kit.Pick(r, []string{SenderCustomer, SenderCustomer, SenderPartner}), kit.Pick(r, smallTalk)}
	if len(in.script) > 0 {
		said, in.script = in.script[0], in.script[1:]
	} else if kit.Chance(r, 0.1) {
		said = kit.Pick(r, notices)
	}
	said.text = strings.ReplaceAll(said.text, "{product}", kit.Pick(r, c.b.products).name)
	w := wireMessage{Sender: said.sender}
	switch p := r.Float64(); {
	case p < 0.05: // a sticker has neither
	case p < 0.12:
		w.Payload = newPayload(r, 1+r.IntN(2))
	case p < 0.15:
		w.Message, w.Payload = said.text, newPayload(r, 1)
	default:
		w.Message = said.text
	}
	c.say(r, in, w, at, said.next(in), c.lateness(c.late, c.spec.LateMessages), c.lateness(c.late, c.spec.LateListings), nil)
}

func (c *chatWorld) lateness(r *rand.Rand, share float64) int64 {
	return kit.Lateness(r, share, c.spec.LateBy)
}

// next is the status of a chat after a line.
func (l line) next(in *chat) string {
	switch {
	case in.kind == TypeArbitrage && l.sender == SenderSupport:
		return StatusWaitingForPartner
	case in.kind == TypeArbitrage:
		return StatusWaitingForArbiter
	case l.sender == SenderPartner:
		return StatusWaitingForBuyer
	case l.sender == SenderCustomer:
		return StatusWaitingForPartner
	}
	return in.status // the marketplace's own messages wait for nobody
}

// say puts a message in a chat. The history and the list show it so much later; raw, if it is not nil, in its place.
func (c *chatWorld) say(r *rand.Rand, in *chat, w wireMessage, at int64, status string, lateMessage, lateListing int64, raw []byte) *message {
	c.lastSaid += 1 + r.Int64N(9)
	id := c.lastSaid
	if drawnID := 1 + r.Int64N(1<<50); c.spec.DrawnMessageIDs {
		id = drawnID
	}
	w.ID, w.CreatedAt = id, c.b.when(at)
	m := &message{id: id, at: at, order: len(in.said), render: kit.Render(w)}
	if raw != nil {
		m.render = slices.Clone(raw)
	}
	in.said[id] = m
	in.updated, in.status = max(in.updated, at), status
	c.b.time.After(at+lateMessage, func() {
		i, _ := slices.BinarySearchFunc(in.history, m, compareMessages)
		in.history = slices.Insert(in.history, i, m)
		c.b.note(KindMessage, fmt.Sprintf("%d/%d", in.id, m.id), func() []byte { return m.render })
	})
	c.list(in, at+lateListing)
	return m
}

func (c *chatWorld) setStatus(ch *chat, status string, late, at int64) {
	ch.status = status
	c.list(ch, at+late)
}

// list lets the list show, at a time, the chat as it is now.
func (c *chatWorld) list(ch *chat, at int64) {
	ch.changes++
	now := listing{ch.changes, ch.status, ch.updated}
	c.b.time.After(at, func() {
		if ch.shown.change < now.change { // what is late may have been overtaken
			ch.shown = now
			c.noteChat(ch)
		}
	})
}

func (c *chatWorld) noteChat(ch *chat) {
	var render func() []byte
	if ch.listed() {
		render = func() []byte { return kit.Render(c.wire(ch, ch.shown)) }
	}
	c.b.note(KindChat, fmt.Sprint(ch.id), render)
}
