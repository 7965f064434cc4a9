package yandexmarket

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"time"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

const (
	// short is up to how many messages a chat is read whole each time, which is one
	// request as long as a page holds a hundred.
	short = 80
	// tail is how many of the newest messages of a longer chat are read again, to see
	// that what was asked for is what came. It also bridges what turns up late.
	tail = 21
	// tailAge is how old the first of these has to be at least.
	tailAge = 10 * time.Minute
)

// A chat is visited once more so long after its last message: the list tells times to
// the second, so another message of the same second does not show there.
var settleAfter = []time.Duration{6 * time.Second, time.Minute}

// And so long after the last message that the list speaks of, while the chat itself does
// not show it. Later it counts as one that was there for a moment, until the chat moves.
var appearAfter = []time.Duration{6 * time.Second, 30 * time.Second, 2 * time.Minute, 5 * time.Minute}

// And so long after a visit in which the rest of the chat could not be read, each time
// that this happens in a row. Then the chat rests until it moves.
var cutAfter = []time.Duration{10 * time.Second, time.Minute, 10 * time.Minute, time.Hour}

// chatSeen is up to where a chat was read: Seen of a visit. Where it is empty, all of
// the chat is read.
type chatSeen struct {
	Cut  int   `json:"cut,omitempty"`  // visits in a row that could not read the rest
	From int64 `json:"from,omitempty"` // the message to ask for the next time
	Last int64 `json:"last,omitempty"` // the newest one, which has to come with it
}

// chatVisitCursor is a visit that takes several pages.
type chatVisitCursor struct {
	V     int        `json:"v"`
	Visit *chatVisit `json:"visit,omitempty"`
}

// chatVisit reads the messages of one chat.
//
// In which order they come is not documented, so several pages are put in order after
// the last one. A long chat is read from a message on that is well before its end; the
// documents do not say whether that is by id or by time, or whether ids follow time.
// So this is done only where in this chat they do, and all is read again where not all
// that should came with it.
type chatVisit struct {
	ID      string      `json:"id"`
	Shown   chatShown   `json:"shown,omitzero"`
	Seen    chatSeen    `json:"seen,omitzero"`
	History bool        `json:"history,omitempty"`
	Whole   bool        `json:"whole,omitempty"`  // all of it is read, whatever Seen says
	Staged  bool        `json:"staged,omitempty"` // there are several pages
	Scan    scan        `json:"scan"`
	Read    chatReading `json:"read,omitzero"`
}

// chatReading is what one reading of a chat has shown so far.
type chatReading struct {
	N      int          `json:"n,omitempty"`     // messages
	Odd    bool         `json:"odd,omitempty"`   // ids do not follow time, or some have none, or are no numbers
	First  messageKey   `json:"first,omitzero"`  // of all
	Newest messageKey   `json:"newest,omitzero"` // of all
	Tail   []messageKey `json:"tail,omitempty"`  // the newest, in order; at most tail
	Last   bool         `json:"last,omitempty"`  // chatSeen.Last was among them
}

// messageKey is what puts messages in order.
type messageKey struct {
	At int64 `json:"at"` // Unix milliseconds
	ID int64 `json:"id"`
}

func (m messageKey) compare(o messageKey) int {
	return cmp.Or(cmp.Compare(m.At, o.At), cmp.Compare(m.ID, o.ID))
}

func (c *chatVisitCursor) sound() bool {
	v := c.Visit
	return v == nil || listing.CheckID("chatId", v.ID) == nil && v.Scan.sound() && v.Seen.sound() && v.Read.sound()
}

func (s chatSeen) sound() bool {
	return s.From >= 0 && s.Last >= 0 && s.Cut >= 0 && s.Cut <= len(cutAfter)
}

func (r chatReading) sound() bool {
	return sources.Counts(r.N) && sources.Times(r.First.At, r.Newest.At) && len(r.Tail) <= tail && slices.IsSortedFunc(r.Tail, messageKey.compare)
}

// visitChat is the walk Follow of chat_messages.
func (c *Client) visitChat(ctx context.Context, q sources.Query) (sources.Page, error) {
	cur := chatVisitCursor{V: 1}
	if err := sources.DecodeCursor(q.Stream, q.Cursor, &cur, cur.sound); err != nil {
		return sources.Page{}, err
	}
	if cur.Visit == nil {
		if q.Visit == nil {
			return sources.Page{}, errors.New("visit of chat_messages: no chat is named")
		}
		cur.Visit = newChatVisit(q.Visit)
	}
	v := cur.Visit
	page := sources.Page{History: v.History}
	l, err := c.history(ctx, q, v.ID, v.from(), v.Scan.Token)
	done := false
	switch {
	case err == nil:
		page.Items, page.Undecodable, page.Date = l.Items, l.Odd, l.Date
		v.Read.add(l.Items, v.Seen.Last)
		if done, page.Note = v.Scan.after(getChatHistory, l); done && v.from() != 0 && !v.tailCame() {
			v.readWhole()
			done = false
		}
	case v.Scan.again(err):
		v.Read = chatReading{}
	case noChat(err):
		// It may be too new, or gone for ever; in the list it may stand all the same, so
		// forgotten it would be found with each scan.
		done = true
	case v.from() != 0 && hopeless(err) != nil:
		v.readWhole() // perhaps that message does not exist any more
	default:
		return sources.Page{}, err
	}
	v.Staged = v.Staged || !done
	page.Staged, page.Done = v.Staged, done
	if done {
		page.Visited = v.end(cmp.Or(l.Date, l.Now, q.Now), page.Note != "")
		cur.Visit = nil
	}
	page.Cursor, err = json.Marshal(cur)
	return page, err
}

func newChatVisit(q *sources.Visit) *chatVisit {
	v := &chatVisit{ID: q.ID, History: q.History}
	// Neither can be anything else: the source wrote them. From a disk they may be
	// all the same; then all is read.
	_ = json.Unmarshal(q.Found, &v.Shown)
	if json.Unmarshal(q.Seen, &v.Seen) != nil || !v.Seen.sound() {
		v.Seen = chatSeen{}
	}
	return v
}

// from is the message with which the reading begins; 0: all of them.
func (v *chatVisit) from() int64 {
	if v.Whole {
		return 0
	}
	return v.Seen.From
}

// readWhole begins the reading anew, of all messages.
func (v *chatVisit) readWhole() { v.Whole, v.Scan, v.Read = true, scan{}, chatReading{} }

// tailCame says whether a reading from a message on has shown what it should.
func (v *chatVisit) tailCame() bool { return v.Read.Last && v.upToDate() }

// upToDate says whether the chat has shown the last message that the list speaks of.
func (v *chatVisit) upToDate() bool {
	updated := v.Shown.updated()
	return updated.IsZero() || v.Read.Newest.At/1000 >= updated.Unix()
}

// add takes in the messages of a page, which are in order. last is the newest one of
// the reading before.
func (r *chatReading) add(messages []sources.Item, last int64) {
	var page []messageKey
	for _, it := range messages {
		id, err := strconv.ParseInt(it.ID[1], 10, 64)
		r.Odd = r.Odd || err != nil || id <= 0 || it.Created.IsZero()
		if !it.Created.IsZero() {
			page = append(page, messageKey{it.Created.UnixMilli(), id})
		}
	}
	r.N += len(messages)
	if len(page) == 0 {
		return
	}
	first, newest := page[0], page[len(page)-1]
	behind := first.At >= r.Newest.At && first.ID > r.Newest.ID
	before := newest.At <= r.First.At && newest.ID < r.First.ID
	if !behind && !before || !slices.IsSortedFunc(page, func(a, b messageKey) int { return cmp.Compare(a.ID, b.ID) }) {
		r.Odd = true
	}
	if r.First == (messageKey{}) || first.compare(r.First) < 0 {
		r.First = first
	}
	if newest.compare(r.Newest) > 0 {
		r.Newest = newest
	}
	r.Last = r.Last || slices.ContainsFunc(page, func(m messageKey) bool { return m.ID == last })
	r.Tail = append(r.Tail, page...)
	slices.SortFunc(r.Tail, messageKey.compare)
	r.Tail = slices.Compact(r.Tail)
	r.Tail = slices.Clone(r.Tail[max(0, len(r.Tail)-tail):])
}

// seen is up to where the chat was read, at a time by the marketplace's clock.
func (v *chatVisit) seen(now time.Time) chatSeen {
	r := &v.Read
	if r.Odd || v.from() == 0 && r.N <= short {
		return chatSeen{}
	}
	s := chatSeen{From: v.from(), Last: r.Newest.ID}
	if len(r.Tail) == tail && r.Tail[0].At < now.Add(-tailAge).UnixMilli() {
		s.From = r.Tail[0].ID
	}
	if s.From == 0 {
		return chatSeen{}
	}
	return s
}

// end says where the visit stands that ended at a time by the marketplace's clock, and
// when the next one is due, if no move of the chat comes before. cut: the rest of the
// chat could not be read.
func (v *chatVisit) end(now time.Time, cut bool) *sources.Visit {
	seen := v.seen(now)
	if cut {
		seen = chatSeen{}
		if v.Seen.Cut < len(cutAfter) {
			seen.Cut = v.Seen.Cut + 1
		}
	}
	raw, _ := json.Marshal(seen)
	next := &sources.Visit{ID: v.ID, Seen: raw}
	if seen.Cut > 0 {
		next.Due, next.Urgent = time.Now().Add(cutAfter[v.Seen.Cut]), true
		return next
	}
	last, after := v.Shown.updated(), appearAfter
	if v.upToDate() {
		last, after = time.UnixMilli(v.Read.Newest.At), settleAfter
	}
	for _, d := range after {
		if wait := last.Add(d).Sub(now); wait > 0 {
			next.Due, next.Urgent = time.Now().Add(min(wait, time.Hour)), true // their clocks are not that far apart
			break
		}
	}
	return next
}
