package wildberries

import "syncd/internal/sources/listing"

const (
	// leastCap is the smallest number of items to which a server is thought to cut
	// pages without a word, and wholeForSeconds how long it is believed not to once
	// that has been found out.
	leastCap        = 50
	wholeForSeconds = 600
	// inOrder is how many steps upwards without one downwards prove that a page is
	// in order: by chance alone it is one page in 5,040.
	inOrder = 6
)

// habits are what has been found out about how the server pages a list, where no
// document says it. They outlive the runs.
type habits struct {
	Cap     int   `json:"cap,omitempty"`      // the server cuts pages to so many items, whatever is asked for
	Whole   int   `json:"whole,omitempty"`    // a page of so many was not cut,
	WholeAt int64 `json:"whole_at,omitempty"` // as was found out then
	Ordered bool  `json:"ordered,omitempty"`  // the last page that could prove an order had the one asked for
}

// full says whether there may be more behind a page. One with less than was asked
// for is the last one, unless the server cuts pages.
func (h *habits) full(p seen) bool {
	if p.got > h.Cap {
		h.Cap = 0 // more than it was thought to send
	}
	if p.got >= p.asked && p.got >= h.Whole {
		h.Whole, h.WholeAt = p.got, p.now
	}
	return p.got >= p.asked || h.Cap > 0 && p.got >= h.Cap
}

// suspicious says whether a page that is not full may have been cut. Whether it was
// shows in what follows it; settle takes that in. tight is a page of one second:
// were that many the most that the server sends, each later one would show the very
// same, however many came to be behind it.
func (h *habits) suspicious(p seen, tight bool) bool {
	return p.got >= leastCap && (p.got > h.Whole || tight && p.got == h.Whole || p.now >= h.WholeAt+wholeForSeconds)
}

func (h *habits) settle(suspect int, more bool, now int64) {
	if more {
		h.Cap = suspect
	} else {
		h.Whole, h.WholeAt = suspect, now
	}
}

// seen is what one page of a list showed. Times are Unix seconds.
type seen struct {
	asked, got     int   // entries, odd ones included
	oldest, newest int64 // 0: no item says when it was
	tail           int   // items of its last second and of the one before
	rises, falls   int   // steps up and down in time from one item to the next
	keys           []uint64
	now            int64
}

func look(l listing.Listing, asked int) seen {
	p := seen{asked: asked, got: l.N, keys: l.Keys, now: l.Now.Unix()}
	var last int64
	for _, item := range l.Items {
		if item.Created.IsZero() {
			continue
		}
		s := item.Created.Unix()
		switch {
		case last == 0:
			p.oldest, p.newest = s, s
		case s > last:
			p.rises++
		case s < last:
			p.falls++
		}
		last, p.oldest, p.newest = s, min(p.oldest, s), max(p.newest, s)
	}
	for _, item := range l.Items {
		if !item.Created.IsZero() && item.Created.Unix() >= p.newest-1 {
			p.tail++
		}
	}
	return p
}
