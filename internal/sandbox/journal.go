package sandbox

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"
)

// Kind is what a [Showing] is one of.
type Kind string

// The kinds, by what the lists of the API hold.
const (
	KindEvent    Kind = "event"
	KindChat     Kind = "chat"
	KindQuestion Kind = "question"
	KindFeedback Kind = "feedback"
	KindClaim    Kind = "claim"
	KindPin      Kind = "pin"
)

// Showing is one state of an item, and how long the API showed it.
type Showing struct {
	Kind Kind
	// ID is the item's own; of an event its chat's, a slash, and its own.
	ID string
	// JSON is the item exactly as it was sent, without [Quirks.PhotoNoise].
	JSON json.RawMessage
	// From is since when: at the earliest the epoch. To is until when; zero: it still is shown.
	From, To time.Time
}

// journal keeps every state that a world has shown. The World's mutex guards it.
type journal struct {
	shown []Showing
	until []int64 // of each, when it leaves by its age; 0: it does not
	open  map[journalKey]int
}

type journalKey struct {
	kind Kind
	id   string
}

// note brings the journal up to date after something has, or may have, become of an item: render gives what the API shows
// of it from now on; nil: nothing. until is when it will leave by its age; 0: it will not.
func (w *World) note(kind Kind, id string, render func() []byte, until int64) {
	j := w.journal
	if j == nil {
		return
	}
	key, now := journalKey{kind, id}, time.Unix(0, w.now)
	var item []byte
	if render != nil {
		item = render()
	}
	if i, open := j.open[key]; open {
		left := j.until[i] != 0 && j.until[i] <= w.now
		if !left && item != nil && bytes.Equal(j.shown[i].JSON, item) {
			j.until[i] = until
			return
		}
		if j.shown[i].To = now; left {
			j.shown[i].To = time.Unix(0, j.until[i])
		}
		delete(j.open, key)
	}
	if item != nil {
		j.open[key] = len(j.shown)
		j.shown = append(j.shown, Showing{Kind: kind, ID: id, JSON: slices.Clone(item), From: now})
		j.until = append(j.until, until)
	}
}

// Journal returns every state of every item that the API has shown since the epoch, those of one item in the order of
// their times. It needs [WorldSpec.Journal].
func (w *World) Journal() []Showing {
	w.lock(time.Now())
	defer w.mu.Unlock()
	out := slices.Clone(w.journal.shown)
	for _, i := range w.journal.open {
		if until := w.journal.until[i]; until != 0 && until <= w.now {
			out[i].To = time.Unix(0, until)
		}
	}
	return out
}

// Rest ends all that the world does by itself: nothing more is written, answered, changed or comes late. Only the claims
// still leave by their age.
func (w *World) Rest() {
	w.lock(time.Now())
	defer w.mu.Unlock()
	w.rhythms, w.agenda.due = nil, nil
}
