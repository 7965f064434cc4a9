package yandexmarket_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"syncd/internal/sources/yandexmarket"
)

// chatWorld is the chats of a business. What it shows depends on the time alone.
type chatWorld struct {
	*fake
	chats   []*fakeChat
	size    int                                     // entries of a page of chats, at most
	history int                                     // of messages
	order   func(now time.Time, a, b *fakeChat) int // of the list; nil: by id
	mix     *rand.Rand                              // nil: pages are in order
	scatter func(all []string)                      // of messages, on each request; nil: they keep their order
	newest  bool                                    // messages come from the newest on
	from    func(m *fakeMessage, from int64, anchor *fakeMessage) bool
	life    int // a page token is good for so many requests; 0: for ever
	fault   func(c call) (status int, body string)

	requests int
	tokens   map[string]pageToken
}

type pageToken struct {
	offset, made int
	filter       string
}

type fakeChat struct {
	id       int64
	created  time.Time
	statuses []fakeStatus
	messages []*fakeMessage
	hidden   [2]time.Time // the list does not show it in between
	gone     time.Time    // it does not exist from then on
}

type fakeStatus struct {
	from   time.Time
	status string
}

type fakeMessage struct {
	id      int64
	at      time.Time
	visible time.Time // in the chat; in the list from at on
}

// What messageIdFrom may mean.
var meanings = map[string]func(m *fakeMessage, from int64, anchor *fakeMessage) bool{
	"inclusive": func(m *fakeMessage, from int64, _ *fakeMessage) bool { return m.id >= from },
	"exclusive": func(m *fakeMessage, from int64, _ *fakeMessage) bool { return m.id > from },
	"by time": func(m *fakeMessage, _ int64, anchor *fakeMessage) bool {
		return anchor != nil && !m.at.Before(anchor.at)
	},
	"after":    func(m *fakeMessage, _ int64, anchor *fakeMessage) bool { return anchor != nil && m.at.After(anchor.at) },
	"before":   func(m *fakeMessage, from int64, _ *fakeMessage) bool { return m.id <= from },
	"ignored":  func(*fakeMessage, int64, *fakeMessage) bool { return true },
	"last one": nil, // and no other
	"nothing":  func(*fakeMessage, int64, *fakeMessage) bool { return false },
}

func newChatWorld(t testing.TB) *chatWorld {
	w := &chatWorld{fake: newFake(t), size: 20, history: 100, from: meanings["inclusive"], tokens: make(map[string]pageToken)}
	faulty := func(h func(call) (int, string)) func(call) (int, string) {
		return func(c call) (int, string) {
			w.requests++
			if w.fault != nil {
				if status, body := w.fault(c); status != 0 {
					return status, body
				}
			}
			return h(c)
		}
	}
	w.on["POST /v2/businesses/chats"] = faulty(w.list)
	w.on["GET /v2/businesses/chat"] = faulty(w.one)
	w.on["POST /v2/businesses/chats/history"] = faulty(w.messages)
	return w
}

// add adds a chat with messages of these ages.
func (w *chatWorld) add(ages ...time.Duration) *fakeChat {
	c := &fakeChat{id: int64(1001 + len(w.chats)), created: time.Now().Add(-90 * 24 * time.Hour)}
	w.chats = append(w.chats, c)
	for _, age := range ages {
		c.say(-age)
	}
	return c
}

// say adds a message after a while.
func (c *fakeChat) say(after time.Duration) *fakeMessage {
	at := time.Now().Add(after)
	m := &fakeMessage{id: c.id*1000 + int64(len(c.messages)), at: at, visible: at}
	c.messages = append(c.messages, m)
	return m
}

func (c *fakeChat) setStatus(s string) {
	c.statuses = append(c.statuses, fakeStatus{time.Now(), s})
}

func (c *fakeChat) updated(now time.Time) time.Time {
	last := c.created
	for _, m := range c.messages {
		if m.at.After(last) && !m.at.After(now) {
			last = m.at
		}
	}
	return last
}

func (c *fakeChat) exists(now time.Time) bool {
	return !c.created.After(now) && (c.gone.IsZero() || now.Before(c.gone))
}

func (c *fakeChat) json(now time.Time) string {
	status := "NEW"
	for _, s := range c.statuses {
		if !s.from.After(now) {
			status = s.status
		}
	}
	return fmt.Sprintf(`{"chatId":%d,"context":{"type":"ORDER"},"type":"CHAT","status":%q,"createdAt":%q,"updatedAt":%q}`, c.id, status, msk(c.created), msk(c.updated(now)))
}

func (c *fakeChat) name() string { return strconv.FormatInt(c.id, 10) }

func (m *fakeMessage) json() string {
	return fmt.Sprintf(`{"messageId":%d,"createdAt":%q,"sender":"CUSTOMER","message":"?"}`, m.id, msk(m.at))
}

func (w *chatWorld) chat(id string) *fakeChat {
	for _, c := range w.chats {
		if c.name() == id && c.exists(time.Now()) {
			return c
		}
	}
	return nil
}

func (w *chatWorld) list(c call) (int, string) {
	now := time.Now()
	var shown []*fakeChat
	for _, c := range w.chats {
		if c.exists(now) && (now.Before(c.hidden[0]) || !now.Before(c.hidden[1])) {
			shown = append(shown, c)
		}
	}
	if w.order != nil {
		slices.SortStableFunc(shown, func(a, b *fakeChat) int { return w.order(now, a, b) })
	}
	var all []string
	for _, c := range shown {
		all = append(all, c.json(now))
	}
	return w.answer(c, "chats", all, w.size)
}

// recent is the order of who wrote last; unlike that by id it moves.
func recent(now time.Time, a, b *fakeChat) int {
	return cmp.Or(b.updated(now).Compare(a.updated(now)), cmp.Compare(a.id, b.id))
}

func (w *chatWorld) one(c call) (int, string) {
	chat := w.chat(c.query.Get("chatId"))
	if chat == nil {
		return 404, failure("NOT_FOUND", "Can't find chat by id: '"+c.query.Get("chatId")+"'")
	}
	return 200, fmt.Sprintf(`{"status":"OK","result":%s}`, chat.json(time.Now()))
}

func (w *chatWorld) messages(c call) (int, string) {
	chat := w.chat(c.query.Get("chatId"))
	if chat == nil {
		return 404, failure("NOT_FOUND", "Can't find chat by id: '"+c.query.Get("chatId")+"'")
	}
	var shown []*fakeMessage
	for _, m := range chat.messages {
		if !m.visible.After(time.Now()) {
			shown = append(shown, m)
		}
	}
	slices.SortStableFunc(shown, func(a, b *fakeMessage) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.id, b.id)) })
	if raw := c.body["messageIdFrom"]; raw != nil {
		from, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil {
			w.t.Errorf("messageIdFrom is %s", raw)
		}
		var anchor *fakeMessage
		if i := slices.IndexFunc(shown, func(m *fakeMessage) bool { return m.id == from }); i >= 0 {
			anchor = shown[i]
		}
		if w.from == nil {
			shown = shown[max(0, len(shown)-1):]
		} else {
			shown = slices.DeleteFunc(shown, func(m *fakeMessage) bool { return !w.from(m, from, anchor) })
		}
	}
	var all []string
	for _, m := range shown {
		all = append(all, m.json())
	}
	if w.newest {
		slices.Reverse(all)
	}
	if w.scatter != nil {
		w.scatter(all)
	}
	return w.answer(c, "messages", all, w.history)
}

// answer is a page of all.
func (w *chatWorld) answer(c call, name string, all []string, size int) (int, string) {
	filter := name + c.query.Get("chatId") + string(c.body["messageIdFrom"])
	t := pageToken{filter: filter}
	if c.token != "" {
		var ok bool
		if t, ok = w.tokens[c.token]; !ok || w.life > 0 && w.requests-t.made > w.life {
			return 400, failure("BAD_REQUEST", "Bad page token")
		}
		if t.filter != filter {
			w.t.Errorf("a page token of %s is used for %s", t.filter, filter)
		}
	}
	end := min(t.offset+min(size, c.limit), len(all))
	shown := slices.Clone(all[min(t.offset, end):end])
	if w.mix != nil {
		w.mix.Shuffle(len(shown), func(i, j int) { shown[i], shown[j] = shown[j], shown[i] })
	}
	next := ""
	if end < len(all) {
		next = fmt.Sprintf("eyJ%d", w.requests)
		w.tokens[next] = pageToken{end, w.requests, filter}
	}
	return 200, page(name, shown, next)
}

// ids are what a reader has seen, in order; of messages without their chats.
func ids(rd *reader) string {
	var all []string
	for _, it := range rd.items {
		all = append(all, it.ID[len(it.ID)-1])
	}
	return strings.Join(all, " ")
}

// asks are the requests since the last time, in short: "list", "chat 1001", "history
// 1001", "history 1001 from 5", and "+" for each further page of the one before.
func (w *chatWorld) asks() string {
	var all []string
	for _, c := range w.took() {
		s := map[string]string{"POST /v2/businesses/chats": "list", "GET /v2/businesses/chat": "chat", "POST /v2/businesses/chats/history": "history"}[c.method]
		if id := c.query.Get("chatId"); id != "" {
			s += " " + id
		}
		if from := c.body["messageIdFrom"]; from != nil {
			s += " from " + string(from)
		}
		if c.token != "" {
			s = "+"
		}
		all = append(all, s)
	}
	return strings.Join(all, ", ")
}

func (w *chatWorld) reader(streams ...string) (chats, messages *reader) {
	source := open(w.t, w, streams...)
	chats = newReader(w.t, source, yandexmarket.Chats, "news")
	messages = newReader(w.t, source, yandexmarket.ChatMessages, "follow")
	messages.visits = chats.visits
	messages.query.Remembered = chats.query.Remembered
	return chats, messages
}
