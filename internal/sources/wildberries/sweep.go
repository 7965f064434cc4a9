package wildberries

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"syncd/internal/sources"
)

// sweepCursor is where the sweep continues. It looks for items that were answered,
// or are no longer, by their numbers: a census of the sweep's window, up to an edge
// that the news still reach back to. While the numbers stay as they were nothing has
// moved between the lists, and a run is over after two requests. Where they differ
// the parts that differ are read.
//
// The numbers of a window are always asked for before its lists are read, so that a
// change in between shows in the next run.
//
// The archive has no counts. Its newest entries are read in every run, since some
// may be in it from the beginning. Where the lists have lost items a run reads back to
// these: they are gone, or were answered and are in the archive alone. It is read last,
// so that what leaves the lists before they were counted is in it. A run that has
// neither counts nor an archive sends nothing.
type sweepCursor struct {
	V       int       `json:"v"`
	habits            // of the lists
	Archive habits    `json:"archive,omitzero"`
	Holes   []hole    `json:"holes,omitempty"`
	Head    int64     `json:"head,omitempty"` // what was in the archive then has been read; 0: nothing has
	Deep    int64     `json:"deep,omitempty"` // back to here, less an overlap, the next reading of the archive goes at least; 0: no matter
	Census  census    `json:"census,omitzero"`
	Rest    numbers   `json:"rest,omitzero"`   // what the last run left of the difference of Old
	Odd     int       `json:"odd,omitempty"`   // twice the runs whose numbers were noise, less those whose added up
	Skips   int       `json:"skips,omitempty"` // so many runs do without counts
	Run     *sweepRun `json:"run,omitempty"`
}

// sweepRun is one run. It counts first, then reads what the counts tell it to, and
// then the archive's head.
type sweepRun struct {
	Asked  int64       `json:"asked"` // when it began by our clock, Unix milliseconds
	Step   int         `json:"step,omitempty"`
	Quiet  bool        `json:"quiet,omitempty"`  // it does without counts
	Next   *census     `json:"next,omitempty"`   // what takes the place of the census
	Anew   bool        `json:"anew,omitempty"`   // it has nothing in common with it
	Fresh  numbers     `json:"fresh,omitzero"`   // of what is being counted again
	Doubt  []int       `json:"doubt,omitempty"`  // what Total was said to be, again and again
	Now    numbers     `json:"now,omitzero"`     // of Total
	Diff   numbers     `json:"diff,omitzero"`    // of Old, as far as no leaf has explained it
	List   int         `json:"list,omitempty"`   // whose difference is being looked for in the leaves
	Leaf   numbers     `json:"leaf,omitzero"`    // and where, for each list, from the newest to the oldest
	Dirty  []int       `json:"dirty,omitempty"`  // leaves that differ
	Read   []window    `json:"read,omitempty"`   // what is left to be read, the unanswered of each window first
	Second bool        `json:"second,omitempty"` // the answered of the first window are being read
	Span   *span       `json:"span,omitempty"`   // nil: that has not begun
	Head   *archiveRun `json:"head,omitempty"`   // nil: there is no archive, or it has been read
}

// The steps of a run. In each but stepRead a request counts the items of a window.
const (
	stepBase  = iota // what is new in the next census
	stepTotal        // whether Total is as it was
	stepTail         // and where it differs: in Tail,
	stepOld          // in Old,
	stepScan         // in which of its leaves,
	stepProof        // and whether that is all
	stepRead         // no counts any more: lists, then the archive
)

func (c *sweepCursor) begin(q sources.Query, d *dated, earliest, latest time.Time) {
	r := &sweepRun{Asked: q.Now.UnixMilli(), Fresh: nothing}
	c.Run = r
	c.Holes = slices.DeleteFunc(c.Holes, func(h hole) bool { return h.To < earliest.Add(-q.Window).Unix() })
	first, edge := earliest.Add(-q.Window).Unix(), latest.Add(-q.Overlap).Unix()
	end := edge + int64(min(q.Overlap, censusLead)/time.Second)
	switch t := c.Census.Total; {
	case t == nil, first < t.From-int64(24*time.Hour/time.Second): // the window has become wider
		r.count(window{first, end})
	case edge < t.To:
		r.Step = stepTotal
	default:
		next, ok := c.Census.moved(first, end, d)
		if r.Next = &next; !ok {
			r.count(window{first, end})
		}
	}
	if d.archive != nil {
		floor := first
		if c.Head > 0 {
			floor = min(c.Head, earliest.Unix()) - int64(q.Overlap/time.Second) - 1
		}
		r.Head = newArchiveRun(max(floor, 1), latest)
		if c.Head > 0 {
			r.Head.First = archiveGlance
		}
		if c.Deep > 0 { // the archive could not be read
			c.Deep = max(c.Deep, first, 1)
		}
	}
	if c.Skips > 0 {
		c.Skips = min(c.Skips, skipsMost) - 1
		r.Quiet = true
		c.giveUp()
	}
}

// skipsMost runs, and no more, do without counts in a row: by default that is 16 of the
// 24 hours between two full readings. oddMost is the Odd of that.
const (
	skipsMost = 64
	oddMost   = 14
	doubts    = 8 // numbers that are compared
)

// doubt has the same number asked for again and again, since some did not add up, or did
// not lately. What changes while it is counted is a reason for that. A number that goes
// up and down within seconds is noise: it may be that of several servers, say.
func (c *sweepCursor) doubt() { c.Run.Doubt = []int{c.Census.Total.N[answered]} }

// doubted takes in one of these. By noise a census and a reading of everything in each
// run would cost more than full readings do, and tell less. So where it goes on a run
// looks no further, and the next 2 do without counts, then 4, and so on. What adds up by
// chance takes back half a step.
func (c *sweepCursor) doubted(n int) {
	r := c.Run
	if r.Doubt = append(r.Doubt, n); len(r.Doubt) < doubts {
		return
	}
	up, down := false, false
	for i, n := range r.Doubt[1:] {
		up, down = up || n > r.Doubt[i], down || n < r.Doubt[i]
	}
	if r.Doubt = nil; !up || !down {
		return
	}
	if c.Odd = min(c.Odd+2, oddMost); c.Odd > 2 {
		c.Skips = 1 << (c.Odd/2 - 1)
	}
	if r.Step == stepTail {
		c.giveUp()
	}
}

func (c *sweepCursor) addsUp() { c.Odd = max(c.Odd-1, 0) }

// count begins a census from nothing.
func (r *sweepRun) count(w window) {
	r.Step, r.Anew, r.Next = stepBase, true, &census{Total: &counted{w, nothing}}
}

// read has a window read, as one with those that it touches.
func (r *sweepRun) read(w window) {
	var rest []window
	for _, x := range r.Read {
		if w.From <= x.To+1 && x.From <= w.To+1 {
			w = window{min(w.From, x.From), max(w.To, x.To)}
		} else {
			rest = append(rest, x)
		}
	}
	r.Read = append(rest, w)
}

// deepen has the archive read back to a time.
func (c *sweepCursor) deepen(from int64) {
	if c.Run.Head != nil && (c.Deep == 0 || from < c.Deep) {
		c.Deep = max(from, 1)
	}
}

// lost takes in by how much the numbers of a window have changed. If there are fewer
// items, the archive is read back to it. That costs one reading, also where they were
// deleted, since from then on the numbers are compared with the lower ones.
func (c *sweepCursor) lost(w window, change numbers) {
	if change[unanswered]+change[answered] < 0 {
		c.deepen(w.From)
	}
}

// asks says what the next request counts; false: it does not count.
func (c *sweepCursor) asks() (w window, list int, ok bool) {
	r := c.Run
	if len(r.Doubt) > 0 {
		return c.Census.Total.window, answered, true
	}
	switch r.Step {
	case stepBase:
		u := r.Next.uncounted()
		return u.window, u.N.missing(), true
	case stepTotal:
		w = c.Census.Total.window
	case stepTail:
		w = c.Census.Tail.window
	case stepOld, stepProof:
		w = c.Census.Old.window
	case stepScan:
		w = c.Census.Leaves[r.Leaf[r.List]].window
		if r.Fresh[r.List] < 0 {
			return w, r.List, true
		}
	default:
		return window{}, 0, false
	}
	return w, r.Fresh.missing(), true
}

// told takes in a count.
func (c *sweepCursor) told(d *dated, list, n int) {
	r := c.Run
	if len(r.Doubt) > 0 {
		c.doubted(n)
		return
	}
	if r.Step == stepBase {
		r.Next.uncounted().N[list] = n
		c.base(d)
		return
	}
	r.Fresh[list] = n
	if r.Step == stepScan {
		c.scan(list)
		return
	}
	if !r.Fresh.known() {
		return
	}
	fresh := r.Fresh
	r.Fresh = nothing
	switch r.Step {
	case stepTotal:
		r.Now = fresh
		switch {
		case fresh == c.Census.Total.N:
			c.addsUp()
			c.found()
		case len(c.Census.Leaves) == 0:
			c.lost(c.Census.Total.window, fresh.minus(c.Census.Total.N))
			r.read(c.Census.Total.window)
			c.found()
		default:
			if r.Step = stepTail; c.Odd > 0 {
				c.doubt()
			}
		}
	case stepTail:
		if fresh != c.Census.Tail.N {
			c.lost(c.Census.Tail.window, fresh.minus(c.Census.Tail.N))
			c.Census.Tail.N = fresh
			r.read(c.Census.Tail.window)
		}
		r.Step = stepOld
	case stepOld:
		if r.Diff = fresh.minus(c.Census.Old.N); r.Diff != (numbers{}) {
			n := len(c.Census.Leaves)
			r.Leaf = numbers{n, n}
			c.nextLeaf()
			return
		}
		c.Rest = numbers{}
		if len(r.Read) > 0 {
			c.addsUp()
			c.found()
			return
		}
		c.lost(c.Census.Total.window, r.Now.minus(c.Census.Total.N))
		r.read(c.Census.Total.window) // which differs, and no part of it does
		c.found()
		c.doubt()
	case stepProof:
		// What a leaf explained may have happened after Old was counted: then as much
		// is still to be found.
		if r.Diff = fresh.minus(c.Census.Old.N); r.Diff != (numbers{}) {
			c.nextLeaf()
			return
		}
		c.Rest = numbers{}
		c.addsUp()
		c.found()
	}
}

// base goes on with the new census.
func (c *sweepCursor) base(d *dated) {
	r := c.Run
	if r.Anew && r.Next.Width == 0 && r.Next.Total.N.known() {
		r.Next.layOut(d.parts(r.Next.Total.N))
	}
	switch {
	case r.Next.uncounted() != nil:
	case r.Anew:
		if !r.Next.filtered() {
			r.Next.Leaves, r.Next.Old, r.Next.Tail = nil, nil, nil
		}
		c.Rest = numbers{}
		c.deepen(r.Next.Total.From)
		r.read(r.Next.Total.window)
		c.adopt()
	default:
		r.Step = stepTotal
	}
}

// scan takes in a count of the leaf that is being looked at. The other list is
// counted where this one differs: the leaf will be read, and both begin anew.
func (c *sweepCursor) scan(list int) {
	r := c.Run
	i := r.Leaf[r.List]
	leaf := &c.Census.Leaves[i]
	if list == r.List && r.Fresh[list] == leaf.N[list] {
		r.Fresh = nothing
		c.nextLeaf()
		return
	}
	if !r.Fresh.known() {
		return
	}
	d := r.Fresh.minus(leaf.N)
	c.lost(leaf.window, d)
	for l := range d {
		c.Census.Old.N[l] += d[l]
	}
	r.Diff, leaf.N, r.Fresh = r.Diff.minus(d), r.Fresh, nothing
	r.Dirty = append(r.Dirty, i)
	r.read(leaf.window)
	c.nextLeaf()
}

// nextLeaf goes on to the next older leaf, first for the unanswered and then for the
// answered, until the difference is explained.
func (c *sweepCursor) nextLeaf() {
	r := c.Run
	r.Step = stepScan
	for r.List = range r.Diff {
		for r.Diff[r.List] != 0 && r.Leaf[r.List] > 0 {
			if r.Leaf[r.List]--; !slices.Contains(r.Dirty, r.Leaf[r.List]) {
				return
			}
		}
	}
	if r.Diff == (numbers{}) {
		r.Step = stepProof
		return
	}
	// What is left has changed in a leaf after that was counted, and will be found by
	// the next run. Or it is in no leaf: then all is read, after a new census, since
	// numbers that do not add up would explain a later change away.
	if len(r.Dirty) == 0 || c.Rest != (numbers{}) || r.Next != nil {
		w := c.Census.Total.window
		if r.Next != nil {
			w = r.Next.Total.window
		}
		r.count(w)
		c.doubt()
		return
	}
	c.Rest = r.Diff
	c.found()
}

// found ends the comparison: what differs is known, and will be read.
func (c *sweepCursor) found() {
	r := c.Run
	c.Census.Total.N = r.Now
	if r.Next == nil {
		r.Step = stepRead
		return
	}
	// The part by which the edge moves on has not been counted before.
	r.read(window{c.Census.Total.To, r.Next.Total.To})
	c.adopt()
}

// adopt puts the next census in the place of this one.
func (c *sweepCursor) adopt() {
	r := c.Run
	next := r.Next
	if !r.Anew {
		// The leaves as the comparison has left them.
		known := slices.Clone(c.Census.Leaves)
		if c.Census.Tail != nil {
			known = append(known, *c.Census.Tail)
		}
		for i := range next.Leaves {
			if j := slices.IndexFunc(known, func(k counted) bool { return k.window == next.Leaves[i].window }); j >= 0 {
				next.Leaves[i].N = known[j].N
			}
		}
		if next.Old != nil && next.Old.window == c.Census.Old.window {
			next.Old = c.Census.Old
		}
	}
	c.Census, r.Next, r.Anew, r.Step = *next, nil, false, stepRead
}

// giveUp goes on without the counts. What was found so far is read, and what was not
// will differ again.
func (c *sweepCursor) giveUp() {
	r := c.Run
	r.Next, r.Anew, r.Fresh, r.Doubt, r.Step = nil, false, nothing, nil, stepRead
}

// begun is the reading of the first window that is to be read.
func (c *sweepCursor) begun() (answered bool, s *span) {
	r := c.Run
	if r.Span == nil {
		w := r.Read[0]
		s := newSpan(max(w.From-1, 1), w.To+1, holesOf(c.Holes, r.Second))
		r.Span = &s
	}
	return r.Second, r.Span
}

// after takes in a page of a list.
func (c *sweepCursor) after(d *dated, p seen) (note string) {
	r := c.Run
	healed := r.Span.heal(c.Holes, r.Second, p, d)
	end, note := r.Span.after(&c.habits, p, d, holesOf(c.Holes, r.Second))
	if note == "" {
		note = healed
	}
	if end {
		if r.Span = nil; r.Second {
			r.Read = r.Read[1:]
		}
		r.Second = !r.Second
	}
	return note
}

// sweepFrom is the cursor of the page that q asks for, with a run going on.
func (c *Client) sweepFrom(q sources.Query, d *dated) (sweepCursor, error) {
	cur := sweepCursor{V: 1}
	if err := sources.DecodeCursor(q.Stream, q.Cursor, &cur, func() bool { return cur.sound(d) }); err != nil {
		return cur, err
	}
	if cur.Run == nil {
		earliest, latest := c.present(q.Now)
		cur.begin(q, d, earliest, latest)
	}
	return cur, nil
}

// sweep fetches the next page of Sweep.
func (c *Client) sweep(ctx context.Context, q sources.Query, d *dated) (sources.Page, error) {
	cur, err := c.sweepFrom(q, d)
	if err != nil {
		return sources.Page{}, err
	}
	r := cur.Run
	page := sources.Page{Began: time.UnixMilli(r.Asked)}
	if w, list, ok := cur.asks(); ok {
		var n int
		n, page.Date, err = c.count(ctx, q, d, list == answered, w)
		c.sizes.asked(countKey(q), 1, err)
		_, row := c.sizes.failing(countKey(q))
		switch {
		case err == nil:
			cur.told(d, list, n)
		case countless(err), row >= countTries:
			cur.giveUp()
			page.Note = fmt.Sprintf("%s cannot be counted, so that answers to old ones are seen by the full reading alone: %s", d.name, err)
		default:
			return sources.Page{}, err
		}
	} else if len(r.Read) > 0 {
		answered, s := cur.begun()
		l, p, err := c.listPage(ctx, q, d, answered, s)
		if err != nil {
			return sources.Page{}, err
		}
		page.Items, page.Undecodable, page.Date, page.Note = l.Items, l.Odd, l.Date, cur.after(d, p)
	} else if r.Head != nil {
		if page, err = c.sweepArchive(ctx, q, d, &cur, page); err != nil {
			return sources.Page{}, err
		}
	}
	if r.Quiet && page.Note == "" {
		page.Note = fmt.Sprintf("the numbers of %s do not add up, however often they are asked for: some sweeps do without them, so that answers to old ones are seen by the full reading alone", d.name)
	}
	if _, _, counting := cur.asks(); !counting && len(r.Read) == 0 && r.Head == nil {
		cur.Run, page.Done = nil, true
	}
	page.Cursor, err = json.Marshal(cur)
	return page, err
}
