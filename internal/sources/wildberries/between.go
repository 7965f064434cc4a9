package wildberries

import (
	"context"
	"encoding/json"
	"fmt"

	"syncd/internal/sources"
)

// betweenTries is after how many tries of a list that fails, and is not refused, the
// news look at the other one in between. In the time of those tries a page that fails
// can be stepped over by the operator.
const betweenTries = 3

// between says whether the news look at the other list now, since the one that they
// stand at fails. The first walk does not: it is complete with both lists only.
func (c *Client) between(q sources.Query, cur *datedCursor) bool {
	if q.Walk != sources.News || cur.Newest == 0 || cur.Run.Pass == passArchive {
		return false
	}
	if _, row := c.sizes.failing(sizeKey(q)); row == 0 {
		cur.Between = nil
	}
	return cur.Between != nil || c.sizes.elsewhere(sizeKey(q), betweenTries)
}

// readBetween fetches a page of the list that the run does not stand at, from where a
// run begins. Nothing counts as read by it: the run goes on from where it stands, and
// reads this list in its turn.
func (c *Client) readBetween(ctx context.Context, q sources.Query, d *dated, cur *datedCursor, page sources.Page) (sources.Page, error) {
	fails, reads := cur.Run.answered(), !cur.Run.answered()
	holes := holesOf(cur.Holes, reads)
	s := cur.Between
	if s == nil {
		c.sizes.triedOther(sizeKey(q))
		from := newSpan(max(cur.Newest-int64(q.Overlap.Seconds())-1, 1), 0, holes)
		s = &from
	}
	l, p, err := c.listPageOf(ctx, q, d, reads, s, sizeKey(q)+"/between")
	if err != nil {
		return sources.Page{}, err
	}
	page.Items, page.Undecodable, page.Date = l.Items, l.Odd, l.Date
	end, note := s.after(&cur.habits, p, d, holes)
	if page.Note = note; note == "" {
		page.Note = fmt.Sprintf("the %s cannot be read: the %s are read in between", d.list(fails), d.list(reads))
	}
	if cur.Between = s; end {
		// Done, or the list that fails would be asked again at once.
		cur.Between, page.Done, page.Progress = nil, true, 1
	}
	page.Partial = true
	page.Cursor, err = json.Marshal(cur)
	return page, err
}
