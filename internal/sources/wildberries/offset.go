package wildberries

import "slices"

const (
	// overlapMost is how many entries a page that is asked for by skip has in common
	// with the one before it, at most: a list may lose so many between the two and
	// nothing is passed over.
	overlapMost = 50
	// anchors are how many of them are remembered.
	anchors = 3
)

// offset is a place in a list that is paged by skip while it moves. Each page
// overlaps the one before it, and begins with something of it: if it does not,
// the list has lost entries in front of the place, and reading goes back. Pages of
// fewer than four entries, which only a marketplace in trouble makes us ask for, have
// nothing in common.
type offset struct {
	Skip int      `json:"skip,omitempty"`
	Last []uint64 `json:"last,omitempty"` // keys of the last entries read; nil: nothing to hold on to
	Page tally    `json:"page,omitzero"`  // the page before,
	Same int      `json:"same,omitempty"` // and how many before it were the same
	Back int      `json:"back,omitempty"` // how often in a row reading went back
}

// overlap is what the page behind one of n entries has in common with it.
func overlap(n int) int { return min(overlapMost, n/4) }

// follows says whether nothing lies between the page and the one before it.
func (o offset) follows(p seen) bool {
	return len(o.Last) == 0 || slices.ContainsFunc(o.Last, func(k uint64) bool { return slices.Contains(p.keys, k) })
}

// sameMost is how many pages in a row may be the same while the list moves on: it
// may have lost just as many entries as lie between two pages.
const sameMost = 3

// repeats says whether pages are the same whatever is asked for.
func (o offset) repeats(p seen) bool { return o.Same >= sameMost && o.Page == p.tally() }

func (p seen) tally() (t tally) {
	t.add(p.keys)
	return t
}

// advance goes to the page behind p.
func (o *offset) advance(p seen) {
	n := overlap(p.got)
	before := *o
	*o = offset{Skip: o.Skip + p.got - n, Page: p.tally()}
	if o.Page == before.Page {
		o.Same = before.Same + 1
	}
	if n > 0 {
		o.Last = slices.Clone(p.keys[len(p.keys)-min(n, anchors):])
	}
}

// retreat goes back, further each time, and at last to where nothing can be
// missing: the beginning.
func (o *offset) retreat() {
	o.Back = min(o.Back+1, 12)
	if o.Skip = max(0, o.Skip-overlapMost<<o.Back); o.Skip == 0 {
		o.Last = nil
	}
}
