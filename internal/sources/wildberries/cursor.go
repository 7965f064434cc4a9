package wildberries

import (
	"slices"

	"syncd/internal/sources"
	"syncd/internal/sources/listing"
)

func (c *eventsCursor) sound() bool {
	r := c.Run
	return sources.Times(c.Newest, c.At, c.Back, c.WholeAt, c.Floor) && sources.Counts(c.Most, c.Whole) &&
		(r == nil || sources.Times(r.Asked, r.Began, r.Next, r.Seen, r.From) && sources.Counts(r.Pages, r.First))
}

func (h *habits) sound() bool { return sources.Counts(h.Cap, h.Whole) && sources.Times(h.WholeAt) }

func holesSound(holes []hole) bool {
	return len(holes) <= holesMost && !slices.ContainsFunc(holes, func(h hole) bool { return !sources.Times(h.From, h.To) })
}

func (o *offset) sound(d *dated) bool {
	return sources.Counts(o.Skip, o.Same, o.Back) && d.reaches(o.Skip) && len(o.Last) <= anchors
}

func (s *span) sound(d *dated) bool {
	return s == nil || sources.Times(s.From, s.To, s.End) && sources.Counts(s.Suspect, s.Tail) && s.offset.sound(d)
}

func (a *archiveRun) sound(d *dated) bool {
	return a == nil || d.archive != nil && sources.Times(a.Floor, a.Edge, a.Near) && a.offset.sound(d) &&
		sources.Counts(a.First, a.New, a.Old, a.Suspect, a.Astray, a.Stepped)
}

func (c *datedCursor) sound(d *dated) bool {
	return sources.Times(c.Newest, c.Since, c.Retry, c.Wide) && sources.Counts(c.Fails) && c.habits.sound() && c.Archive.sound() &&
		holesSound(c.Holes) && c.Past.sound(d) && c.Between.sound(d) && (c.Run == nil || c.Run.sound(d))
}

func (r *datedRun) sound(d *dated) bool {
	return sources.Times(r.Asked, r.Began, r.Oldest, r.Newest, r.Floor, r.Wide, r.LastAt) && r.Pass >= 0 && r.Pass <= passArchive &&
		(r.Pass < passArchive || r.Last != nil) && r.Last.sound(d) && r.span.sound(d)
}

// sound says whether w can be a window; an empty one is behind the end of the last leaf.
func (w window) sound() bool { return sources.Times(w.From, w.To) && w.From <= w.To+1 }

// sound says whether c can be a census, of which the numbers may be unknown: its parts
// follow each other.
func (c *census) sound() bool {
	if c.Total == nil || len(c.Leaves) == 0 {
		return (c.Total == nil || c.Total.sound()) && c.Old == nil && c.Tail == nil && len(c.Leaves) == 0
	}
	if c.Old == nil || c.Tail == nil || c.Width < 1 || !sources.Times(c.Width) {
		return false
	}
	from := c.Total.From
	for _, leaf := range c.Leaves {
		if !leaf.sound() || leaf.From != from {
			return false
		}
		from = leaf.To + 1
	}
	return c.Old.window == window{c.Total.From, from - 1} && c.Tail.window == window{from, c.Total.To} && c.Tail.sound()
}

func (c *sweepCursor) sound(d *dated) bool {
	return c.habits.sound() && c.Archive.sound() && holesSound(c.Holes) && sources.Times(c.Head, c.Deep) && c.Census.sound() &&
		sources.Counts(c.Odd, c.Skips) && (c.Run == nil || c.Run.sound(d, &c.Census))
}

func (r *sweepRun) sound(d *dated, c *census) bool {
	if !sources.Times(r.Asked) || !r.Head.sound(d) || !r.Span.sound(d) || slices.ContainsFunc(r.Read, func(w window) bool { return !w.sound() }) {
		return false
	}
	leaves := len(c.Leaves)
	if next := r.Next; next != nil {
		if next.Total == nil || !next.sound() || !r.Anew && (c.Total == nil || len(next.Leaves) > 0 && leaves == 0) {
			return false
		}
	}
	if len(r.Doubt) > 0 && c.Total == nil {
		return false
	}
	switch r.Step {
	case stepBase:
		return r.Next != nil && r.Next.uncounted() != nil
	case stepTotal:
		return c.Total != nil
	case stepTail, stepOld:
		return leaves > 0
	case stepScan, stepProof:
		if leaves == 0 || !sources.Counts(r.Leaf[:]...) || max(r.Leaf[unanswered], r.Leaf[answered]) > leaves {
			return false
		}
		return r.Step == stepProof || (r.List == unanswered || r.List == answered) && r.Leaf[r.List] < leaves
	}
	return r.Step == stepRead
}

func (c *claimsCursor) sound() bool {
	r := c.Run
	return sources.Times(c.Complete) && (r == nil || sources.Times(r.Asked, r.Began) && sources.Counts(r.Number, r.Offset, r.Total) && r.List >= listFirst && r.List <= listFirstAgain)
}

func (c *pinsCursor) sound() bool {
	r := c.Run
	return r == nil || sources.Times(r.Asked) && sources.Counts(r.Pages, r.Empty) && r.List >= listFirst && r.List <= listFirstAgain &&
		len(r.Next) <= listing.MaxID && r.Next != "0"
}
