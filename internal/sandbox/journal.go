package sandbox

import (
	"time"

	"syncd/internal/sandbox/kit"
)

// Kind is what a [Showing] is one of.
type Kind = kit.Kind

// The kinds, by what the lists of the API hold. The id of an event is its chat's, a slash, and its own.
const (
	KindEvent    Kind = "event"
	KindChat     Kind = "chat"
	KindQuestion Kind = "question"
	KindFeedback Kind = "feedback"
	KindClaim    Kind = "claim"
	KindPin      Kind = "pin"
)

// Showing is one state of an item, without [Quirks.PhotoNoise], and how long the API showed it.
type Showing = kit.Showing

// note is [kit.Journal.Note] now.
func (w *World) note(kind Kind, id string, render func() []byte, until int64) {
	w.journal.Note(w.time.Now, kind, id, render, until)
}

// Journal returns every state of every item that the API has shown since the epoch, those of one item in the order of
// their times. It needs [WorldSpec.Journal].
func (w *World) Journal() []Showing {
	w.lock(time.Now())
	defer w.mu.Unlock()
	return w.journal.Shown(w.time.Now)
}

// Rest ends all that the world does by itself: nothing more is written, answered, changed or comes late. Only the claims
// still leave by their age.
func (w *World) Rest() {
	w.lock(time.Now())
	defer w.mu.Unlock()
	w.time.Rest()
}
