package kit

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"
)

// Kind is what a [Showing] is one of.
type Kind string

// Showing is one state of an item, and how long the API showed it.
type Showing struct {
	Kind Kind
	// ID is the item's own; of one that is unique within another only, both with a slash between them.
	ID string
	// JSON is the item exactly as it was sent.
	JSON json.RawMessage
	// From is since when: at the earliest the epoch. To is until when; zero: it still is shown.
	From, To time.Time
}

// Journal keeps every state that a world has shown. The world's mutex guards it; nil keeps nothing.
type Journal struct {
	shown []Showing
	until []int64 // of each, when it leaves by its age; 0: it does not
	open  map[journalKey]int
}

type journalKey struct {
	kind Kind
	id   string
}

// NewJournal makes one that is empty.
func NewJournal() *Journal { return &Journal{open: make(map[journalKey]int)} }

// Note brings the journal up to date after something has, or may have, become of an item: render gives what the API shows
// of it from now on; nil: nothing. until is when it will leave by its age; 0: it will not.
func (j *Journal) Note(now int64, kind Kind, id string, render func() []byte, until int64) {
	if j == nil {
		return
	}
	key := journalKey{kind, id}
	var item []byte
	if render != nil {
		item = render()
	}
	if i, open := j.open[key]; open {
		left := j.until[i] != 0 && j.until[i] <= now
		if !left && item != nil && bytes.Equal(j.shown[i].JSON, item) {
			j.until[i] = until
			return
		}
		if j.shown[i].To = time.Unix(0, now); left {
			j.shown[i].To = time.Unix(0, j.until[i])
		}
		delete(j.open, key)
	}
	if item != nil {
		j.open[key] = len(j.shown)
		j.shown = append(j.shown, Showing{Kind: kind, ID: id, JSON: slices.Clone(item), From: time.Unix(0, now)})
		j.until = append(j.until, until)
	}
}

// Shown returns all states up to now, those of one item in the order of their times.
func (j *Journal) Shown(now int64) []Showing {
	out := slices.Clone(j.shown)
	for _, i := range j.open {
		if until := j.until[i]; until != 0 && until <= now {
			out[i].To = time.Unix(0, until)
		}
	}
	return out
}
