package wildberries

import "time"

// window is a time from one second to another.
type window struct {
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

// counted is a window and what the API's counts said of it. A count is compared
// with an earlier one of the very same window and with nothing else: whether the
// ends of a window belong to it is not documented, so the counts of two windows
// say nothing about that of both, nor about what a list shows.
type counted struct {
	window
	N numbers `json:"n"`
}

// numbers are how many items there are: unanswered, answered; unknown ones are -1.
type numbers [2]int

const (
	unanswered = 0
	answered   = 1
)

var nothing = numbers{-1, -1}

func (n numbers) known() bool { return n[unanswered] >= 0 && n[answered] >= 0 }

// missing is the first of them that is not known.
func (n numbers) missing() int {
	if n[unanswered] < 0 {
		return unanswered
	}
	return answered
}

func (n numbers) minus(m numbers) numbers {
	return numbers{n[unanswered] - m[unanswered], n[answered] - m[answered]}
}

// census is what the counts said when the lists were last known as they are: of the
// whole time that is swept, and of its parts, so that a change can be found without
// reading all of it. A small number of items has no parts: reading them takes no
// more than counting them.
//
// Total has two parts: Tail, its end, which grows as time goes by, and Old, the
// rest, which has the leaves as its parts. No second belongs to two leaves in any
// reading of the filter.
type census struct {
	Total  *counted  `json:"total,omitempty"` // nil: there is no census
	Old    *counted  `json:"old,omitempty"`
	Tail   *counted  `json:"tail,omitempty"`
	Leaves []counted `json:"leaves,omitempty"` // oldest first
	Width  int64     `json:"width,omitempty"`  // of a leaf, seconds
}

const (
	// censusLead is how much of the overlap, in which the news are read all the time
	// anyway, is counted in advance: so long is the end of Total good for.
	censusLead = time.Hour
)

// A part has about so many items, and a new census so many parts at most, with two
// counts each. Small parts cost counts, and large ones bytes: of 100,000 items ten
// answers here and there make a sweep read 8 % by 163 requests with the fine ones, and
// 32 % by 78 with the coarse ones (TestSweepCost). Where requests are what is short, they
// are coarse.
const (
	fineItems, fineMost     = 800, 127
	coarseItems, coarseMost = 2000, 31
)

// parts is how many parts a census of n items has; 1: none.
func (d *dated) parts(n numbers) int {
	return min(max((n[unanswered]+n[answered])/d.leaf, 1), d.leaves)
}

// layOut divides Total, whose numbers are known, into n parts of unknown ones.
func (c *census) layOut(n int) {
	w := c.Total.window
	if c.Width = (w.To - w.From) / int64(n); n == 1 || c.Width < 3600 {
		return
	}
	from := w.From
	for range n - 1 {
		c.Leaves = append(c.Leaves, counted{window{from, from + c.Width - 1}, nothing})
		from += c.Width
	}
	c.Old = &counted{window{w.From, from - 1}, nothing}
	c.Tail = &counted{window{from, w.To}, nothing}
}

// uncounted is the next window whose numbers are not known; nil: there is none.
//
// Old comes before its leaves: an item that changes between the two is then missing
// from what a leaf can explain of Old, which costs a look too many, and not the other
// way round, which would hide another change.
func (c *census) uncounted() *counted {
	for _, w := range []*counted{c.Tail, c.Old, c.Total} {
		if w != nil && !w.N.known() {
			return w
		}
	}
	for i := len(c.Leaves) - 1; i >= 0; i-- {
		if !c.Leaves[i].N.known() {
			return &c.Leaves[i]
		}
	}
	return nil
}

// filtered says whether the counts mind the dates: those that do not are the same
// for every window, and say nothing about where a change is.
func (c *census) filtered() bool {
	for _, leaf := range c.Leaves {
		if leaf.N != c.Total.N {
			return true
		}
	}
	return len(c.Leaves) == 0
}

// moved is the census of the time from first to end as far as it differs from c:
// windows that have changed are there without their numbers. ok is false if nothing
// of c can be kept, or if it has no parts and should have.
func (c *census) moved(first, end int64, d *dated) (next census, ok bool) {
	next = census{Width: c.Width}
	if len(c.Leaves) == 0 {
		next.Total = &counted{window{first, end}, nothing}
		return next, d.parts(c.Total.N) <= 2
	}
	leaves := c.Leaves
	for len(leaves) > 0 && leaves[0].To < first {
		leaves = leaves[1:]
	}
	tail := c.Tail.window
	if full := tail.To-tail.From+1 >= c.Width; full {
		leaves = append(leaves[:len(leaves):len(leaves)], *c.Tail)
		tail.From = tail.To + 1
	}
	if len(leaves) == 0 {
		return next, false
	}
	next.Leaves = leaves
	next.Tail = &counted{window{tail.From, end}, nothing}
	next.Total = &counted{window{leaves[0].From, end}, nothing}
	if old := (window{leaves[0].From, tail.From - 1}); old == c.Old.window {
		next.Old = c.Old
	} else {
		next.Old = &counted{old, nothing}
	}
	return next, true
}
