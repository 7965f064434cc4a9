package wildberries

import (
	"fmt"
	"slices"
	"time"

	"syncd/internal/sources/listing"
)

// span is how far one list with a date filter has been read, from its oldest item
// to its newest. Times are Unix seconds of the marketplace's clock, as dateFrom and
// dateTo are.
//
// Nothing is skipped over where it can be helped, since a list that loses one item
// while it is paged would hide another: the next page is asked for from the time of
// the last item. From one second before it, since neither the ends of the filter
// nor the fractions of a second are documented. Where a second holds more than a
// page the rest of it is paged by skip, with an overlap; where the order asked for
// is ignored, the window is halved until a page holds all of it.
type span struct {
	From int64 `json:"from,omitempty"` // dateFrom of the next request; 0: none
	To   int64 `json:"to,omitempty"`   // dateTo; 0: none
	End  int64 `json:"end,omitempty"`  // where the reading ends; 0: at the last item
	offset
	Unordered bool `json:"unordered,omitempty"` // the order asked for is ignored
	Suspect   int  `json:"suspect,omitempty"`   // items of the last page, if that may have been cut,
	Tail      int  `json:"tail,omitempty"`      // and how many of them the next one shows again
}

// hole is a time that is not asked for any more, since an entry in it cannot be
// had: see Client.Skip. A hole has its end once a page behind it has been read.
type hole struct {
	Answered bool  `json:"answered,omitempty"` // of which list
	From     int64 `json:"from,omitempty"`     // 0: from the beginning
	To       int64 `json:"to,omitempty"`       // 0: not known yet
}

// holesMost bounds how many holes are remembered.
const holesMost = 16

// lateMost is how many seconds before the time asked for the items of a page may have
// been created, should the filter go by when they appeared.
const lateMost = 12 * 60 * 60

// narrowest is the narrowest window: should both ends be exclusive it still shows
// the second between them.
const narrowest = 2

func newSpan(from, end int64, holes []hole) span {
	s := span{From: from, To: end, End: end}
	s.leave(holes)
	s.avoid(holes)
	return s
}

// after takes in a page. It moves the reading on, or ends it. holes are those of
// this list.
func (s *span) after(h *habits, p seen, d *dated, holes []hole) (end bool, note string) {
	if p.falls > 0 {
		s.Unordered, h.Ordered = true, false
	} else if p.rises >= inOrder {
		h.Ordered = true
	}
	suspect := s.Suspect
	s.Suspect = 0
	if !s.follows(p) {
		s.retreat()
		return false, ""
	}
	if suspect > 0 { // this page begins where the suspect one ended
		filtered := p.oldest >= s.From-1
		more := p.newest > s.From+1 || filtered && p.got > s.Tail
		if s.Skip > 0 {
			more = p.got > overlap(suspect)
		}
		// As many of the same second again may have been cut as well.
		if more || s.Skip > 0 || p.got < suspect || !filtered {
			h.settle(suspect, more, p.now)
		}
	}
	full := h.full(p)
	if !full && h.suspicious(p, p.newest > 0 && p.newest-p.oldest <= 1) {
		full, s.Suspect, s.Tail = true, p.got, p.tail
	}
	// A page of one second does not show an order, nor does a very small one. Where
	// none was ever proven, paging by skip as far as that goes, and then halving the
	// window, is right in every order.
	ordered := !s.Unordered && h.Ordered
	deeper := d.reaches(s.Skip+p.got-overlap(p.got)) && !s.repeats(p)
	switch {
	case !full && s.To == s.End:
		return true, ""
	case !full: // the closed window is read; go on behind it
		s.moveOn(p.now, holes)
	case p.newest == 0 || p.newest < s.From-lateMost || p.newest < s.From-1 && !deeper:
		return true, fmt.Sprintf("a page of %d %s holds none of the time asked for (dateFrom=%d): what comes after them cannot be asked for", p.got, d.name, s.From)
	case s.Suspect > 0 && !ordered:
		s.advance(p) // what follows the page shows whether it was cut
	case !s.Unordered && !ordered && deeper:
		s.advance(p)
	case !ordered && s.split(p.now):
	case ordered && p.newest-1 > s.From:
		s.From, s.offset = p.newest-1, offset{}
	case deeper:
		s.advance(p)
	default:
		note = fmt.Sprintf("more than %d %s were created around %s: the API cannot show the rest of them", s.Skip+p.got, d.name, date(p.newest))
		if s.To != s.End {
			s.moveOn(p.now, holes)
			break
		}
		s.From, s.offset = max(s.From+1, p.newest), offset{}
		return s.End > 0 && s.From >= s.End, note
	}
	return false, note
}

// split halves the window; false: that would leave nothing in it.
func (s *span) split(now int64) bool {
	from, to := max(s.From, listing.Oldest.Unix()), s.To
	if to == 0 {
		to = max(now, from) + 3600
	}
	if to-from <= narrowest {
		return false
	}
	s.To, s.offset = from+max((to-from)/2, narrowest), offset{}
	return true
}

// moveOn goes to the window behind the one that was read. It begins one second
// before the end of that, should dateTo be exclusive. It is open where one request
// can show where the next one begins, and else twice as wide.
func (s *span) moveOn(now int64, holes []hole) {
	width := s.To - max(s.From, listing.Oldest.Unix())
	s.offset = offset{}
	if s.From = s.To - 1; slices.ContainsFunc(holes, func(h hole) bool { return h.From == s.To }) {
		s.From = s.To
		s.leave(holes)
	}
	if s.To = s.End; s.Unordered {
		end := s.End
		if end == 0 {
			end = now
		}
		if to := s.From + max(2*width, narrowest); to < end {
			s.To = to
		}
	}
	s.avoid(holes)
}

// leave goes behind the holes that the window begins in. A hole that was made in
// this run is none to leave: the reading is behind the entry already.
func (s *span) leave(holes []hole) {
	for range holes {
		for _, h := range holes {
			if s.From >= h.From && s.From < h.To {
				s.From = h.To
			}
		}
	}
}

// avoid ends the window where the next hole begins.
func (s *span) avoid(holes []hole) {
	for _, h := range holes {
		if h.To > 0 && h.From > s.From && (s.To == 0 || h.From < s.To) {
			s.To = h.From
		}
	}
}

// date is a second for people.
func date(second int64) string {
	if second <= 0 {
		return "the beginning"
	}
	return time.Unix(second, 0).UTC().Format(time.RFC3339)
}
