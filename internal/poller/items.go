package poller

import (
	"cmp"
	"encoding/json"
	"time"

	"syncd/internal/event"
	"syncd/internal/sources"
	"syncd/internal/state"
)

// beside is what a page holds beside its usable items.
type beside struct {
	bytes int      // of the bodies
	wakes []string // Item.Wakes of each usable item
	odd   []sources.Undecodable
}

// items prepares the items of a page for the state.
func (w *worker) items(p *state.Page, k *walk, f *fetch, known state.Stream) (b beside) {
	a, page := f.asked, f.page
	b.odd = page.Undecodable
	old := history{known: known, first: !known.Walked || page.History, request: a.request}
	if k.name == sources.Follow {
		old.first = page.History // the source knows of what it visits, by Visit.History
	}
	w.finds(p, &b, page.Found, old)
	if a.request != nil {
		old.asked = a.request.Asked
		if skew := a.answered.Sub(page.Date); !page.Date.IsZero() && skew.Abs() >= 5*time.Second && skew.Abs() <= maxSkew {
			old.asked = old.asked.Add(-skew) // by the clock that the items carry
		}
	}
	for i, it := range page.Items {
		if old.leaves(it) {
			continue
		}
		b.bytes += len(it.Body)
		kept := old.item(it)
		if k.run.seen != nil {
			k.run.seen[state.IDHash(kept.ID)] = struct{}{}
		}
		if k.run.shown != nil {
			k.run.shown = append(k.run.shown, state.IDHash(kept.ID))
		}
		if err := f.prints[i].err; err != nil {
			b.odd = append(b.odd, sources.Undecodable{Raw: it.Body, Reason: err.Error()})
			continue
		}
		kept.Fingerprint = f.prints[i].is
		p.Items = append(p.Items, kept)
		b.wakes = append(b.wakes, it.Wakes)
	}
	for _, u := range b.odd {
		p.Odd = append(p.Odd, state.Odd{Raw: u.Raw, Reason: u.Reason})
	}
	return b
}

// history decides what an item is if nobody has seen it before.
type history struct {
	known   state.Stream
	first   bool            // it belongs to the first reading of the stream
	request *state.Backfill // nil: not a backfill
	asked   time.Time       // of the request, by the marketplace's clock
}

// leaves says whether a backfill leaves an item alone: what is older than was
// asked for, and what came after it was asked for, which is not history but the
// news lane's to emit.
func (h history) leaves(it sources.Item) bool {
	return h.request != nil && !it.Created.IsZero() && (it.Created.Before(h.request.Since) || it.Created.After(h.asked))
}

func (h history) item(it sources.Item) state.Item {
	out := state.Item{
		ID: event.Path(it.ID...), Kind: it.Kind, Subject: event.Path(it.Subject...),
		Created: it.Created, Changed: it.Changed, Rank: it.Rank, Immutable: it.Immutable, Body: it.Body,
	}
	switch {
	case h.request != nil:
		out.Backfill = true
	case it.Created.IsZero(): // contract §4, "What is old"
		out.Silent = !h.known.Start.IsZero() && h.first
		out.Backfill = h.first
	default:
		out.Silent = it.Created.Before(h.known.Start)
		out.Backfill = h.first && it.Created.Before(h.known.Began)
	}
	if it.Old && h.request == nil {
		out.Silent = true
	}
	return out
}

// maxVisitID is how long the name of a thing can be, which is part of a key.
const maxVisitID = 1 << 10

// finds prepares the visits that a page has found for the state. What is in a thing
// is history until it was visited where its finder was read for the first time, or
// where it is older than what is news.
func (w *worker) finds(p *state.Page, b *beside, visits []sources.Visit, h history) {
	for _, v := range visits {
		if v.ID == "" || len(v.ID) > maxVisitID || len(v.Found) > 0 && !json.Valid(v.Found) {
			b.odd = append(b.odd, sources.Undecodable{Raw: v.Found, Reason: "a thing to visit that has no usable id"})
			continue
		}
		v.History = h.first || !v.Created.IsZero() && v.Created.Before(h.known.Start)
		p.Found = append(p.Found, state.Visit(v))
	}
}

// tellFollowers wakes the streams for which visits were found.
func (w *worker) tellFollowers(found []state.Visit) {
	told := ""
	for _, v := range found {
		stream := cmp.Or(v.Stream, w.ID.Stream)
		if stream == told {
			continue
		}
		told = stream
		if other := w.p.worker(state.StreamID{Account: w.ID.Account, Stream: stream}); other != nil && other.follow != nil {
			other.follow.nudge()
		}
	}
}
