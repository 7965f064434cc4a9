package wildberries

import (
	"encoding/json"
	"errors"
	"fmt"

	"syncd/internal/sources"
)

// skipDated steps over the entry that the next page would begin with, once it is the
// only one that was asked for and has failed all the same. Of a list the time between the entries around it is
// not asked for again, or the next run would end there as well.
func (c *Client) skipDated(q sources.Query) (sources.Cursor, string, error) {
	d := c.dated[q.Stream]
	n, err := c.sizes.narrow(sizeKey(q))
	if err != nil {
		return nil, "", err
	}
	if q.Walk == sources.Sweep {
		return c.skipSweep(q, d, n)
	}
	cur, err := c.datedFrom(q, d)
	if err != nil {
		return nil, "", err
	}
	var leftOut string
	if r := cur.Run; r.Pass == passArchive {
		leftOut, err = r.Last.skip(d, n)
	} else {
		leftOut, err = r.span.skip(&cur.Holes, r.answered(), d, n)
	}
	return saved(cur, leftOut, err)
}

func (c *Client) skipSweep(q sources.Query, d *dated, n int) (sources.Cursor, string, error) {
	cur, err := c.sweepFrom(q, d)
	if err != nil {
		return nil, "", err
	}
	r := cur.Run
	var leftOut string
	if _, _, counting := cur.asks(); counting {
		leftOut = "what the counts of this sweep would have shown; the full reading sees it"
		cur.giveUp()
		if len(r.Read) == 0 && r.Head == nil {
			cur.Run = nil
		}
	} else if len(r.Read) > 0 {
		answered, s := cur.begun()
		leftOut, err = s.skip(&cur.Holes, answered, d, n)
	} else if r.Head != nil {
		leftOut, err = r.Head.skip(d, n)
	} else {
		err = errors.New("this sweep does without counts, and sends nothing: there is nothing to step over")
	}
	return saved(cur, leftOut, err)
}

func saved(cur any, leftOut string, err error) (sources.Cursor, string, error) {
	if err != nil {
		return nil, "", err
	}
	next, err := json.Marshal(cur)
	return next, leftOut, err
}

func (s *span) skip(holes *[]hole, answered bool, d *dated, n int) (leftOut string, err error) {
	if n = min(n, d.deeper(s.Skip)); n < 1 {
		return "", fmt.Errorf("the API cannot show what lies more than %d %s behind %s", s.Skip, d.name, date(s.From))
	}
	// The last item before the place is not older than that.
	from := max(s.From-1, 0)
	s.Skip, s.Last, s.Back, s.Suspect = s.Skip+n, nil, 0, 0
	open := false
	for _, h := range *holes {
		open = open || h.To == 0
	}
	if !open && !s.Unordered {
		if len(*holes) == holesMost {
			*holes = (*holes)[1:]
		}
		*holes = append(*holes, hole{Answered: answered, From: from})
	}
	return fmt.Sprintf("one of the %s created from %s on: number %d of these", d.list(answered), date(s.From), s.Skip), nil
}

func (a *archiveRun) skip(d *dated, n int) (leftOut string, err error) {
	if n = min(n, d.deeper(a.Skip)); n < 1 {
		return "", fmt.Errorf("the API cannot show what lies more than %d entries deep in the archive of %s", a.Skip, d.name)
	}
	end := "newest"
	if a.Asc {
		end = "oldest"
	}
	a.Skip, a.Last, a.Back, a.Suspect = a.Skip+n, nil, 0, 0
	return fmt.Sprintf("one entry of the archive of %s: the %s but %d", d.name, end, a.Skip-n), nil
}
