package yandexmarket

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
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
// not show it. Later it counts as one that was there for a moment.
var appearAfter = []time.Duration{6 * time.Second, 30 * time.Second, 2 * time.Minute, 5 * time.Minute}

// In either case it is visited so long after its last message as well, when nothing that
// is urgent waits: of a message that turns up late the list shows nothing where it is
// not the last one. The last of these visits reads all of the chat.
var lateAfter = []time.Duration{5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 8 * time.Hour, 24 * time.Hour}

// usedForLate is the part of the budget that these may take.
const usedForLate = 0.5

// And so long after a visit in which the rest of the chat could not be read, each time
// that this happens in a row.
var cutAfter = []time.Duration{10 * time.Second, time.Minute, 10 * time.Minute, time.Hour, 4 * time.Hour, 12 * time.Hour, 24 * time.Hour}

// chatSeen is up to where a chat was read: Seen of a visit. Where it is empty, all of
// the chat is read.
type chatSeen struct {
	N    int   `json:"n,omitempty"`    // messages that it had when all of a long one was read; 0: not known
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
// that should came with it. Where the order may be another with each request, pages may
// show the same twice and something else not at all: such a reading is repeated, within
// the visit, and then soon after it.
type chatVisit struct {
	ID      string      `json:"id"`
	Shown   chatShown   `json:"shown,omitzero"`
	Seen    chatSeen    `json:"seen,omitzero"`
	History bool        `json:"history,omitempty"`
	Whole   bool        `json:"whole,omitempty"`  // all of it is read, whatever Seen says
	Staged  bool        `json:"staged,omitempty"` // there are several pages
	Scan    scan        `json:"scan"`
	Read    chatReading `json:"read,omitzero"`
	Before  uint64      `json:"before,omitempty"` // Sum of the reading before it, which counts if it is the same
	Times   int         `json:"times,omitempty"`  // readings that were doubtful
}

func (c *chatVisitCursor) sound() bool {
	v := c.Visit
	return v == nil || listing.CheckID("chatId", v.ID) == nil && v.Scan.sound() && v.Seen.sound() && v.Read.sound() && sources.Counts(v.Times)
}

func (s chatSeen) sound() bool {
	return sources.Counts(s.N) && s.From >= 0 && s.Last >= 0 && s.Cut >= 0 && s.Cut <= len(cutAfter)
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
		if v.Read.Began == 0 {
			v.Read.Began = max(cmp.Or(l.Date, l.Now, q.Now).UnixMilli(), 1)
		}
		v.Read.add(l.Items, v.Seen.Last)
		done, page.Note = v.Scan.after(getChatHistory, l)
		switch {
		case !done:
		case v.from() != 0 && !v.tailCame():
			v.readWhole()
			done = false
		case page.Note == "" && (v.Read.Mixed || v.Read.N < v.known()) && (v.Times == 0 || v.Read.Sum != v.Before):
			if v.Times++; v.Times < readings {
				v.Scan, v.Read, v.Before = scan{}, chatReading{}, v.Read.Sum
				done = false
			} else {
				page.Note = mixedNote
			}
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
		apart, err := c.lateApart(q)
		if err != nil {
			return sources.Page{}, err
		}
		page.Visited = v.end(cmp.Or(l.Date, l.Now, q.Now), page.Note != "", apart)
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
func (v *chatVisit) readWhole() {
	v.Whole, v.Scan, v.Read, v.Before, v.Times = true, scan{}, chatReading{}, 0, 0
}

// known is how many messages the reading has to show at least.
func (v *chatVisit) known() int {
	if v.from() != 0 {
		return 0
	}
	return v.Seen.N
}

// tailCame says whether a reading from a message on has shown what it should.
func (v *chatVisit) tailCame() bool { return v.Read.Last && v.upToDate() }

// upToDate says whether the chat has shown the last message that the list speaks of.
func (v *chatVisit) upToDate() bool {
	updated := v.Shown.updated()
	return updated.IsZero() || v.Read.Newest.At/1000 >= updated.Unix()
}

// seen is up to where the chat was read, at a time by the marketplace's clock.
func (v *chatVisit) seen(now time.Time) chatSeen {
	r := &v.Read
	s, from := chatSeen{N: v.Seen.N}, v.from()
	if from == 0 {
		if r.N <= short {
			return chatSeen{}
		}
		s.N = r.N
	}
	if len(r.Tail) == tail && r.Tail[0].At < now.Add(-tailAge).UnixMilli() {
		from = r.Tail[0].ID
	}
	if !r.Odd && from != 0 {
		s.From, s.Last = from, r.Newest.ID
	}
	return s
}

// lateApart is the least time between two of the visits of a chat that are not urgent,
// by which all that are planned fit their part of the budget.
func (c *Client) lateApart(q sources.Query) (time.Duration, error) {
	if q.Planned == nil {
		return 0, nil
	}
	counts, err := q.Planned()
	if err != nil {
		return 0, err
	}
	w, err := c.window(getChatHistory, 0)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, count := range counts {
		n += count.N
	}
	calls, _ := w.Usable()
	return time.Duration(float64(n) / (usedForLate * float64(calls)) * float64(time.Hour)), nil
}

// end says where the visit stands that ended at a time by the marketplace's clock, and
// when the next one is due, if no move of the chat comes before. cut: the rest of the
// chat could not be read. apart is the least time to a visit that is not urgent.
func (v *chatVisit) end(now time.Time, cut bool, apart time.Duration) *sources.Visit {
	seen := v.seen(now)
	if cut {
		seen = chatSeen{N: v.Seen.N}
		if v.Seen.Cut < len(cutAfter) {
			seen.Cut = v.Seen.Cut + 1
		}
	}
	next := &sources.Visit{ID: v.ID}
	if seen.Cut > 0 {
		next.Due, next.Urgent = time.Now().Add(cutAfter[v.Seen.Cut]), true
	} else if v.plan(next, now, apart) {
		seen = chatSeen{N: seen.N}
	}
	next.Seen, _ = json.Marshal(seen)
	return next
}

// plan says when the next visit is due, and whether it is the last one.
func (v *chatVisit) plan(next *sources.Visit, now time.Time, apart time.Duration) (last bool) {
	said, quick := v.Shown.updated(), appearAfter
	if v.upToDate() {
		said, quick = time.UnixMilli(v.Read.Newest.At), settleAfter
	}
	read := now
	if v.Read.Began != 0 {
		read = time.UnixMilli(v.Read.Began) // the pages behind the first one may have waited for the budget
	}
	all := slices.Concat(quick, lateAfter)
	i := slices.IndexFunc(all, func(d time.Duration) bool { return said.Add(d).After(read) })
	if i < 0 {
		return false
	}
	wait := min(max(said.Add(all[i]).Sub(now), 0), all[i]) // their clocks are not that far apart
	if next.Urgent = i < len(quick); !next.Urgent {
		wait = max(wait, apart)
	}
	next.Due = time.Now().Add(wait)
	return i == len(all)-1
}
