package yandexmarket

import (
	"fmt"
	"time"
)

// Entity is whose requests are counted together: "businessId 12345" or "campaignId 12345", as the texts of 420 have it.
type Entity string

// BusinessEntity is that of methods whose path has a businessId, or no entity at all.
func BusinessEntity(id int64) Entity { return Entity(fmt.Sprintf("businessId %d", id)) }

// CampaignEntity is that of methods whose path has a campaignId.
func CampaignEntity(id int64) Entity { return Entity(fmt.Sprintf("campaignId %d", id)) }

// windows are the shape of the limits: how long a window is, and where it begins.
type windows struct {
	period  time.Duration
	offset  time.Duration
	rolling bool
}

func (q Quirks) windows() windows {
	w := windows{period: q.WindowPeriod, offset: q.WindowOffset, rolling: q.WindowRolling}
	if w.period == 0 {
		w.period = time.Hour
	}
	return w
}

// start is when the window began that a moment is in.
func (w windows) start(now time.Time) time.Time {
	if w.rolling {
		return now.Add(1 - w.period) // what is older than the period by nothing is over
	}
	return now.Add(-w.offset).Truncate(w.period).Add(w.offset)
}

// word is the period for it in the text of the 420.
func (w windows) word() string {
	switch w.period {
	case time.Hour:
		return "HOUR"
	case time.Minute:
		return "MINUTE"
	}
	return w.period.String()
}

// earlyGrace is how long after an answer requests may still be ones that had left before it arrived.
const earlyGrace = 200 * time.Millisecond

// spent is what was spent at one moment.
type spent struct {
	at          time.Time
	own, others int
}

// budget is what an entity may spend on one method. The [spending] it is in guards it.
type budget struct {
	// spent is what counts, oldest first: at most one entry a request of the current window, or period.
	spent       []spent
	own, others int // sums of spent
	// full is the start of the newest window of whose tokens the client has had all, when it is over.
	full time.Time
	// paid are the last of the client's requests that were paid for, at least as many as the limit; with a rolling period.
	paid []time.Time
	// gone is until when others take all that comes back.
	gone time.Time

	// told is the limit that the client was last told, before the one it was told until toldAt. A limit that is lowered
	// while the client spends is nothing it could know.
	told, toldBefore int
	toldAt           time.Time
	// refusedAt and notBefore are when the last 420 was sent and until when it told the client to wait.
	refusedAt, notBefore time.Time

	requests, refused, violations int64
	lowest                        int // -1: nothing was spent yet
	closest                       *time.Duration
}

// reading is what the headers say of a budget.
type reading struct {
	limit, remaining int
	until            time.Time
}

// forget drops what counts no more.
func (b *budget) forget(now time.Time, limit int, w windows) {
	from := w.start(now)
	n := 0
	for ; n < len(b.spent) && b.spent[n].at.Before(from); n++ {
	}
	if n == 0 {
		return
	}
	if last := b.spent[n-1].at; !w.rolling && b.own >= limit && !last.Before(w.start(from.Add(-1))) {
		b.full = from
	}
	for _, s := range b.spent[:n] {
		b.own -= s.own
		b.others -= s.others
	}
	b.spent = append(b.spent[:0], b.spent[n:]...)
}

func (b *budget) add(now time.Time, own, others int) {
	if last := len(b.spent) - 1; last >= 0 && b.spent[last].at.Equal(now) {
		b.spent[last].own += own
		b.spent[last].others += others
	} else {
		b.spent = append(b.spent, spent{now, own, others})
	}
	b.own += own
	b.others += others
}

// take spends one request. Without budget the violation says whose fault that is; it is "" when others have spent it, or
// the limit has come down, and the client could not know.
func (b *budget) take(now time.Time, limit int, w windows, consume bool) (ok bool, violation ViolationKind) {
	b.requests++
	b.forget(now, limit, w)
	if now.Before(b.gone) {
		b.add(now, 0, max(0, limit-b.own-b.others))
	}
	known := max(limit, b.told)
	if now.Sub(b.toldAt) <= earlyGrace {
		known = max(known, b.toldBefore)
	}
	if b.own+b.others < limit {
		b.note(now, limit, w)
		b.add(now, 1, 0)
		if left := limit - b.own; b.lowest < 0 || left < b.lowest {
			b.lowest = left
		}
		return true, ""
	}
	switch {
	case b.own >= known:
		violation = ViolationBudget
		b.lowest = 0
	case now.Sub(b.refusedAt) > earlyGrace && now.Before(b.notBefore):
		violation = ViolationEarly
	}
	b.refused++
	if violation != "" {
		b.violations++
	}
	if consume {
		b.add(now, 1, 0)
	}
	return false, violation
}

// note measures how near a request that is about to spend came to a violation: for how long its token had been there, where
// there was none just before.
func (b *budget) note(now time.Time, limit int, w windows) {
	var since time.Time
	if w.rolling {
		if n := len(b.paid); n >= limit {
			since = b.paid[n-limit].Add(w.period)
		}
		if b.paid = append(b.paid, now); len(b.paid) > 2*limit {
			b.paid = append(b.paid[:0], b.paid[len(b.paid)-limit:]...)
		}
	} else if start := w.start(now); b.full.Equal(start) {
		since = start
	}
	if since.IsZero() {
		return
	}
	if margin := now.Sub(since); b.closest == nil || margin < *b.closest {
		b.closest = &margin
	}
}

// until is when there will be budget again: the end of the window, or when the oldest request of the period is over.
func (b *budget) until(now time.Time, w windows) time.Time {
	until := w.start(now).Add(w.period)
	if w.rolling {
		until = now.Add(w.period)
		if len(b.spent) > 0 {
			until = b.spent[0].at.Add(w.period)
		}
	}
	if b.gone.After(until) {
		return b.gone
	}
	return until
}

// tell records what an answer says of the limit.
func (b *budget) tell(now time.Time, r reading) {
	if r.limit != b.told {
		b.told, b.toldBefore, b.toldAt = r.limit, b.told, now
	}
}
