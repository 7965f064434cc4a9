package apiclient

import "time"

// heardLocked takes in what the marketplace says with an answer: what its limit is,
// what is left of it, and that it refuses. others is what othersLocked says.
func (w *Window) heardLocked(g *Grant, a Answer, others int, now time.Time) {
	// Of answers that overtake one another the later request's tells, or the stricter.
	lowered := false
	if a.Limit > 0 && a.Limit <= maxCalls && (!w.heard || g.number > w.saidBy || a.Limit < w.calls) {
		lowered = !w.heard || a.Limit != w.calls
		w.heard, w.saidBy = true, g.number
		w.setLimitLocked(a.Limit, w.share)
	}
	if a.Remaining >= 0 {
		lowered = w.capLocked(a, others, now) || lowered
	}
	switch {
	case a.Throttled && !a.Parallel:
		lowered = w.closeLocked(g, a, now) || lowered
	case !a.Throttled && g.number > w.stormed:
		w.refused = 0
	}
	if lowered {
		w.saveOrLogLocked("a restart would not know what the marketplace has said")
	}
}

// leftUntil is how long the period goes on of which an answer speaks, as it says. Its
// Date is its clock, ours without. Where it does not say, or nothing that can be, that
// is to the next full period of that clock: hours, as far as is known.
func (w *Window) leftUntil(a Answer) (d time.Duration, said bool) {
	date := a.Date
	if date.IsZero() {
		date = time.Now().Round(0)
	}
	if d := a.Until.Sub(date); !a.Until.IsZero() && d > 0 {
		return min(d, 2*w.period), true
	}
	return date.Truncate(w.period).Add(w.period).Sub(date), false
}

// othersLocked counts the requests of ours that an answer to g does not have to know
// of: all that were sent later, earlier ones without an answer, and what is lost.
func (w *Window) othersLocked(g *Grant, now time.Time) int {
	n := int(w.sent - g.number)
	for number := range w.inFlight {
		if number < g.number {
			n++
		}
	}
	for _, s := range w.spent {
		if s.by.After(now) {
			n += s.n
		}
	}
	return n
}

// capLocked keeps to what is left of a period, less what others of ours may have used
// since, or may still. There is Remaining at most, since that may lag, and one is kept.
// It reports whether nothing is left, which was not so before.
func (w *Window) capLocked(a Answer, others int, now time.Time) bool {
	left := a.Remaining - min(1, w.calls-1) - others
	d, said := w.leftUntil(a)
	if !said && !a.Until.IsZero() && a.Until.Equal(w.until) {
		return false // its period was over when it left
	}
	if said {
		w.until = a.Until
	}
	c := limitUntil{until: a.Until, ends: now.Add(d + slack), left: left}
	before := w.leftLocked(now)
	rest := w.caps[:0]
	for _, o := range w.caps {
		if !c.until.IsZero() && o.until.Equal(c.until) { // Date is cut to the second
			c.ends, c.left = later(c.ends, o.ends), min(c.left, o.left)
		}
	}
	for _, o := range w.caps {
		if !o.ends.After(c.ends) && o.left >= c.left {
			continue
		}
		rest = append(rest, o)
		if !c.ends.After(o.ends) && c.left >= o.left {
			c.ends = time.Time{} // says nothing new
		}
	}
	w.caps = rest
	if c.ends.IsZero() {
		return false
	}
	w.caps = append(w.caps, c)
	if len(w.caps) > maxCaps { // the one that matters for the shortest time
		first := 0
		for i := range w.caps {
			if w.caps[i].ends.Before(w.caps[first].ends) {
				first = i
			}
		}
		w.caps = append(w.caps[:first], w.caps[first+1:]...)
	}
	return c.left <= 0 && before > 0
}

// closeLocked closes the window after a 420: somebody else spends this seller's
// budget. It reports whether that is longer than before.
func (w *Window) closeLocked(g *Grant, a Answer, now time.Time) bool {
	again := g.number <= w.stormed // it was on its way when an earlier 420 came
	if !again {
		w.refused++
		w.stormed = w.sent
	}
	rows := min(max(w.refused-1, 0), 8)
	retry, said := w.leftUntil(a)
	switch {
	case said:
	case a.RetryAfter > 0:
		retry = a.RetryAfter
	default:
		retry = min(retry, time.Minute<<rows)
	}
	// Who comes back to the second may be refused for ever: slack, more of it each
	// time in a row.
	more := retry/50 + slack
	until := now.Add(retry + min(more<<rows, max(10*time.Minute, more)))
	if !until.After(w.closed) {
		return false
	}
	w.closed, w.paced, w.tokens = until, until, 1
	if !again && w.refused == 1 { // the others are the same storm, or the next gust
		w.logCooling(w.log, "cooling down: somebody else spends this seller's budget", w.accounts, now, until)
	}
	return true
}
