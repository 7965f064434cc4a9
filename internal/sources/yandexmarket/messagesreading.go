package yandexmarket

import (
	"cmp"
	"slices"
	"strconv"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

// chatReading is what one reading of a chat has shown so far.
type chatReading struct {
	Began  int64        `json:"began,omitempty"` // by the marketplace's clock, Unix milliseconds: what it shows is no newer than that; 0: no page yet
	N      int          `json:"n,omitempty"`     // messages
	Mixed  bool         `json:"mixed,omitempty"` // pages overlap in time, so one may have shown what another did, and none some other
	Sum    uint64       `json:"sum,omitempty"`   // of what it has shown
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

func (r chatReading) sound() bool {
	return sources.Counts(r.N) && sources.Times(r.Began, r.First.At, r.Newest.At) && len(r.Tail) <= tail && slices.IsSortedFunc(r.Tail, messageKey.compare)
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
	for _, it := range messages {
		r.Sum += listing.Key(it.ID...)
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
	if r.Newest != (messageKey{}) && first.compare(r.Newest) <= 0 && newest.compare(r.First) >= 0 {
		r.Mixed = true
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

// mixedNote says that the readings of a chat do not agree.
const mixedNote = "the pages of a chat's history come in another order with each request: some of its messages may be missed; it is read again"
