package sandbox

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"syncd/internal/sandbox/kit"
)

// Event is a chat event as the feed shows it.
type Event struct {
	ChatID  string
	EventID string
	// At is addTimestamp: whole milliseconds.
	At time.Time
	// JSON is the item exactly as seller/events sends it.
	JSON json.RawMessage
}

// Chat is a chat as seller/chats shows it.
type Chat struct {
	ID string
	// JSON is the item exactly as seller/chats sends it now.
	JSON json.RawMessage
}

// EventSpec says what event [World.AddEvent] makes.
type EventSpec struct {
	// ChatID puts it in that chat, which is made if there is none. Default: a new chat.
	ChatID string
	// Sender is client, seller or wb. Default: client.
	Sender string
	// Text is the message. Default: a phrase.
	Text string
	// At is addTimestamp. Default: now. An earlier one makes a late event.
	At time.Time
	// Raw is sent in place of the item, whatever it is. Default: the item as rendered.
	Raw json.RawMessage
}

// chatWorld is the chats of one seller. The World's mutex guards it.
type chatWorld struct {
	world    *World
	products []product
	grow     kit.Growth
	resign   kit.Growth
	r        *rand.Rand // what is written
	late     *rand.Rand // when it appears
	signs    *rand.Rand // changes of replySign
	byHand   *rand.Rand // what tests and API calls add
	shuffle  *rand.Rand // orders of [Quirks.ChatsUnordered]

	feed    []*event // what the API shows, by time
	chats   []*chat  // in the order of their making
	byID    map[string]*chat
	bySign  map[string]*chat
	order   []*chat // what seller/chats shows, newest message first
	stale   bool    // order has to be sorted again
	started int     // events made so far

	downloads map[string]download
}

type chat struct {
	id, sign, client string
	device           string // source of the client's messages
	product          product
	rid              string
	// unlisted: seller/chats can miss chats that have events [CODE]. bare: goodCard without values there, silent:
	// without lastMessage, both [LIVE].
	unlisted, bare, silent bool
	script                 []line // what is still to be said
	written                bool   // has an event
	listed                 bool   // seller/chats shows it
	last                   *event // the newest that has appeared
}

type event struct {
	ms     int64
	order  int // breaks ties of one millisecond
	id     string
	chat   *chat
	text   string
	render []byte
}

func compareEvents(a, b *event) int {
	return cmp.Or(cmp.Compare(a.ms, b.ms), cmp.Compare(a.order, b.order))
}

// recentChats is how many chats, counted from the newest, people still write in.
const recentChats = 40

func newChatWorld(w *World, seed uint64, products []product) *chatWorld {
	c := &chatWorld{
		world: w, products: products,
		r:      kit.Stream(seed, "chat "+w.seller.ID),
		late:   kit.Stream(seed, "late events "+w.seller.ID),
		byHand: kit.Stream(seed, "chat by hand "+w.seller.ID),
		grow:   kit.NewGrowth(kit.Stream(seed, "chat growth "+w.seller.ID)),
		signs:  kit.Stream(seed, "signs "+w.seller.ID),
		resign: kit.NewGrowth(kit.Stream(seed, "sign changes "+w.seller.ID)),
		byID:   make(map[string]*chat),
		bySign: make(map[string]*chat),

		shuffle:   kit.Stream(seed, "order of chats "+w.seller.ID),
		downloads: make(map[string]download),
	}
	times := kit.HistoryTimes(kit.Stream(seed, "chat history "+w.seller.ID), w.spec.Events, w.time.Now, w.spec.Span)
	for i := range times {
		times[i] /= int64(time.Millisecond)
	}
	tiePages(times, w.spec.PageTies)
	for _, ms := range times {
		c.write(ms)
	}
	return c
}

// tiePages gives the n events around every page boundary the millisecond of the first of them.
func tiePages(ms []int64, n int) {
	for boundary := defaultPageSize; n > 1 && boundary < len(ms); boundary += defaultPageSize {
		first := max(0, boundary-n/2)
		for i := first + 1; i < min(len(ms), first+n); i++ {
			ms[i] = ms[first]
		}
	}
}

func (c *chatWorld) growOne() { c.write(c.grow.Step() / int64(time.Millisecond)) }

// write lets somebody say the next thing.
func (c *chatWorld) write(ms int64) {
	var in *chat
	if len(c.chats) == 0 || kit.Chance(c.r, 0.17) {
		in = c.open(c.r, "")
		in.unlisted, in.bare, in.silent = kit.Chance(c.r, c.world.spec.UnlistedChats), kit.Chance(c.r, 0.3), kit.Chance(c.r, 0.03)
		if kit.Chance(c.r, 0.05) {
			in.client = ""
		}
		in.script = kit.Pick(c.r, conversations)
		if kit.Chance(c.r, 0.1) {
			// A return chat begins with an automatic greeting that is the seller's by its sender [LIVE].
			in.script = append([]line{{sender: "seller", text: returnGreeting}}, in.script...)
		}
	} else {
		recent := c.chats[max(0, len(c.chats)-recentChats):]
		in = kit.Pick(c.r, recent)
	}
	said := line{sender: kit.Pick(c.r, []string{"client", "client", "seller"}), text: kit.Pick(c.r, smallTalk)}
	if len(in.script) > 0 {
		said, in.script = in.script[0], in.script[1:]
	}
	if in.written && kit.Chance(c.r, 0.02) {
		said = line{sender: "wb", text: wbNotice}
	}
	e := c.compose(c.r, in, said, ms)
	c.world.time.After(ms*int64(time.Millisecond)+kit.Lateness(c.late, c.world.spec.LateEvents, c.world.spec.LateBy), func() { c.appear(e) })
}

// open makes a chat without oddities.
func (c *chatWorld) open(r *rand.Rand, id string) *chat {
	if id == "" {
		id = "1:" + kit.UUID(r)
	}
	n := &chat{id: id, client: kit.Pick(r, buyerNames), product: kit.Pick(r, c.products), rid: orderID(r)}
	n.device = kit.Pick(r, []string{"rusite", "ios", "ios", "android", "android", "global"})
	c.chats = append(c.chats, n)
	c.byID[n.id] = n
	c.sign(r, n)
	return n
}

// sign gives a chat a new replySign. That messages with the old one are refused from then on is a guess. Documented are
// 1:<uuid>:<hex> and 1:<uuid>:<number>:<hex>; recorded was 1:<uuid>::<hex>.
func (c *chatWorld) sign(r *rand.Rand, n *chat) {
	delete(c.bySign, n.sign)
	n.sign = n.id + ":" + kit.Pick(r, []string{"", "", fmt.Sprint(10_000_000 + r.IntN(90_000_000))}) + ":" + kit.HexID(r, 70)
	c.bySign[n.sign] = n
	c.note(n)
}

func (c *chatWorld) note(n *chat) {
	if n.listed && n.last != nil {
		c.world.note(KindChat, n.id, func() []byte { return kit.Render(n.wire()) }, 0)
	}
}

// resignOne gives one of the chats, also of those that nobody writes in any more, a new replySign.
func (c *chatWorld) resignOne() {
	c.resign.Step()
	if len(c.chats) > 0 {
		c.sign(c.signs, kit.Pick(c.signs, c.chats))
	}
}

// orderID has one of the forms of an srid.
func orderID(r *rand.Rand) string {
	switch r.IntN(3) {
	case 0:
		return kit.HexID(r, 16)
	case 1:
		return "DA" + string(rune('a'+r.IntN(26))) + "." + kit.HexID(r, 16) + ".0.0"
	}
	return fmt.Sprintf("%d.%d.0", 5_000_000_000_000_000_000+r.Int64N(1_000_000_000_000_000_000), r.IntN(10))
}

// wireEvent is an event as the API renders it (schema Event); what is omitted when empty is omitted there too.
type wireEvent struct {
	ChatID       string       `json:"chatID"`
	EventID      string       `json:"eventID"`
	EventType    string       `json:"eventType"`
	IsNewChat    bool         `json:"isNewChat,omitempty"`
	Message      *wireMessage `json:"message,omitempty"`
	Source       string       `json:"source,omitempty"`
	AddTimestamp int64        `json:"addTimestamp"`
	AddTime      string       `json:"addTime"`
	ReplySign    string       `json:"replySign,omitempty"`
	Sender       string       `json:"sender"`
	ClientName   string       `json:"clientName,omitempty"`
}

type wireMessage struct {
	Attachments *wireAttachments `json:"attachments,omitempty"`
	Text        string           `json:"text,omitempty"`
}

type wireAttachments struct {
	GoodCard *wireListing `json:"goodCard,omitempty"`
	Files    []wireFile   `json:"files,omitempty"`
	Images   []wireImage  `json:"images,omitempty"`
}

// wireListing is schema Listing. The recorded prices look like kopecks.
type wireListing struct {
	NmID          int    `json:"nmID"`
	Price         int    `json:"price"`
	PriceCurrency string `json:"priceCurrency"`
	Rid           string `json:"rid"`
	Size          string `json:"size"`
}

type wireFile struct {
	ContentType string `json:"contentType"`
	Date        string `json:"date"`
	DownloadID  string `json:"downloadID"`
	Name        string `json:"name"`
	URL         string `json:"url"`
	Size        int    `json:"size"`
}

type wireImage struct {
	Date       string `json:"date"`
	DownloadID string `json:"downloadID,omitempty"`
	URL        string `json:"url"`
}

// compose makes an event, with the deviations from the document that were seen in real answers (wildberries.md §4).
func (c *chatWorld) compose(r *rand.Rand, in *chat, said line, ms int64) *event {
	w := wireEvent{
		EventID: kit.UUID(r), Sender: said.sender, ClientName: in.client,
		Message: &wireMessage{Text: strings.NewReplacer("{product}", in.product.name, "{brand}", in.product.brand,
			"{article}", fmt.Sprint(in.product.nmID)).Replace(said.text)},
	}
	if kit.Chance(r, 0.01) {
		w.EventID = w.EventID[:26] + "uu" + w.EventID[28:] // not hexadecimal, as in the document's example
	}
	switch said.sender {
	case "client":
		w.Source = in.device
		if kit.Chance(r, 0.03) {
			w.ClientName = ""
		}
	case "seller":
		w.Source, w.ClientName = kit.Pick(r, []string{"seller-portal", "seller-portal", "seller-public-api"}), ""
	}
	if kit.Chance(r, 0.05) {
		w.Source = "" // as before spring 2025
	}
	if !in.written {
		w.IsNewChat, w.ReplySign = true, in.sign
		w.Message.Attachments = &wireAttachments{GoodCard: in.card()}
		if kit.Chance(r, 0.04) {
			w.ReplySign = "" // as on old events
		}
	}
	at := time.UnixMilli(ms)
	switch p := r.Float64(); {
	case p < 0.05:
		w.Message.attach(wireAttachments{Images: []wireImage{newImage(r, at)}})
		w.Message.Text = ""
	case p < 0.08:
		w.Message.attach(wireAttachments{Images: []wireImage{newImage(r, at), newImage(r, at)}})
	case p < 0.09:
		w.Message.attach(wireAttachments{Files: []wireFile{newFile(r, at, "Чек.pdf", "application/pdf", 80_000+r.IntN(900_000))}})
	case p < 0.10 && in.written:
		w.Message = nil // the document's fourth example
	}
	return c.add(in, w, ms)
}

// add finishes an event; it is not in the feed yet.
func (c *chatWorld) add(in *chat, w wireEvent, ms int64) *event {
	c.started++
	in.written = true
	w.ChatID, w.EventType, w.AddTimestamp = in.id, "message", ms
	w.AddTime = time.UnixMilli(ms).UTC().Format(time.RFC3339) // cut to seconds, as recorded
	e := &event{ms: ms, order: c.started, id: w.EventID, chat: in, render: kit.Render(w)}
	if w.Message != nil {
		e.text = w.Message.Text
		if w.Message.Attachments != nil {
			c.keep(w.Message.Attachments, ms)
		}
	}
	return e
}

func (m *wireMessage) attach(a wireAttachments) {
	if m.Attachments != nil {
		a.GoodCard = m.Attachments.GoodCard
	}
	m.Attachments = &a
}

func (n *chat) card() *wireListing {
	return &wireListing{NmID: n.product.nmID, Price: n.product.price, PriceCurrency: "RUB", Rid: n.rid, Size: n.product.size}
}

func newImage(r *rand.Rand, at time.Time) wireImage {
	i := wireImage{Date: at.UTC().Format("2006-01-02T15:04:05.000Z07:00"), DownloadID: kit.UUID(r), URL: basketURL(r, "jpg")}
	if kit.Chance(r, 0.1) { // as on old events
		i.Date, i.DownloadID = at.In(moscow).Format("2006-01-02T15:04:05.000Z07:00"), ""
	}
	return i
}

func newFile(r *rand.Rand, at time.Time, name, contentType string, size int) wireFile {
	return wireFile{
		ContentType: contentType, Date: at.UTC().Format("2006-01-02T15:04:05.000Z07:00"), DownloadID: kit.UUID(r), Name: name,
		URL: basketURL(r, "pdf"), Size: size,
	}
}

func basketURL(r *rand.Rand, kind string) string {
	return fmt.Sprintf("https://chat-basket-0%d.wbbasket.ru/vol0/part%d/%s/%s/%s.%s", 1+r.IntN(4), 1000+r.IntN(9000), kit.UUID(r), kind, kit.UUID(r), kind)
}

// appear puts an event in the feed.
func (c *chatWorld) appear(e *event) {
	i := len(c.feed)
	if i > 0 && compareEvents(e, c.feed[i-1]) < 0 {
		i, _ = slices.BinarySearchFunc(c.feed, e, compareEvents)
	}
	c.feed = slices.Insert(c.feed, i, e)
	in := e.chat
	if in.last == nil && !in.unlisted {
		c.world.time.After(e.ms*int64(time.Millisecond)+int64(c.world.spec.ChatsListedAfter), func() {
			c.order = append(c.order, in)
			in.listed, c.stale = true, true
			c.note(in)
		})
	}
	if in.last == nil || compareEvents(in.last, e) < 0 {
		in.last = e
		c.stale = true
	}
	c.note(in)
	c.world.note(KindEvent, in.id+"/"+e.id, func() []byte { return e.render }, 0)
}

// listed returns the chats of seller/chats, newest message first [LIVE].
func (c *chatWorld) listed() []*chat {
	if c.stale {
		slices.SortFunc(c.order, func(a, b *chat) int { return compareEvents(b.last, a.last) })
		c.stale = false
	}
	return c.order
}

// window cuts a page out of the feed: up to n events after a moment in milliseconds (from it on, if inclusive).
func (c *chatWorld) window(after int64, inclusive bool, n int) []*event {
	from := c.firstAfter(after, inclusive)
	return c.feed[from:min(len(c.feed), from+n)]
}

func (c *chatWorld) firstAfter(ms int64, inclusive bool) int {
	i, _ := slices.BinarySearchFunc(c.feed, ms, func(e *event, ms int64) int {
		if e.ms < ms || e.ms == ms && !inclusive {
			return -1
		}
		return 1
	})
	return i
}

// Events returns everything the feed shows now, in its order.
func (w *World) Events() []Event {
	w.lock(time.Now())
	defer w.mu.Unlock()
	out := make([]Event, len(w.chat.feed))
	for i, e := range w.chat.feed {
		out[i] = e.view()
	}
	return out
}

// Chats returns what seller/chats shows now, the chat with the newest message first.
func (w *World) Chats() []Chat {
	w.lock(time.Now())
	defer w.mu.Unlock()
	out := []Chat{}
	for _, n := range w.chat.listed() {
		out = append(out, Chat{ID: n.id, JSON: kit.Render(n.wire())})
	}
	return out
}

// Resign gives a chat a new replySign.
func (w *World) Resign(chatID string) error {
	w.lock(time.Now())
	defer w.mu.Unlock()
	n := w.chat.byID[chatID]
	if n == nil {
		return fmt.Errorf("no chat %s", chatID)
	}
	w.chat.sign(w.chat.byHand, n)
	return nil
}

// AddEvent puts an event in the feed at once.
func (w *World) AddEvent(spec EventSpec) Event {
	now := time.Now()
	w.lock(now)
	defer w.mu.Unlock()
	c := w.chat
	if spec.At.IsZero() {
		spec.At = now
	}
	in := c.byID[spec.ChatID]
	if in == nil {
		in = c.open(c.byHand, spec.ChatID)
	}
	said := line{sender: cmp.Or(spec.Sender, "client"), text: cmp.Or(spec.Text, kit.Pick(c.byHand, smallTalk))}
	wire := wireEvent{EventID: kit.UUID(c.byHand), Sender: said.sender, Message: &wireMessage{Text: said.text}, Source: in.device, ClientName: in.client}
	if said.sender != "client" {
		wire.Source, wire.ClientName = "seller-portal", ""
	}
	if !in.written {
		wire.IsNewChat, wire.ReplySign = true, in.sign
	}
	e := c.add(in, wire, spec.At.UnixMilli())
	if spec.Raw != nil {
		e.render = slices.Clone(spec.Raw)
	}
	c.appear(e)
	return e.view()
}

func (e *event) view() Event {
	return Event{ChatID: e.chat.id, EventID: e.id, At: time.UnixMilli(e.ms), JSON: e.render}
}
