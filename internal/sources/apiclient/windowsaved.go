package apiclient

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"time"
)

// savedWindow is a window in the ledger. Its times are milliseconds from At on, which
// is wall clock: a clock that was set back makes none of them one to come.
type savedWindow struct {
	V       int        `json:"v"`
	Kind    string     `json:"kind"`             // "window"
	At      int64      `json:"at"`               // Unix milliseconds
	Calls   int        `json:"calls,omitempty"`  // the limit as the marketplace says
	Spent   [][3]int64 `json:"spent,omitempty"`  // from, by, calls
	Leased  int        `json:"leased,omitempty"` // calls that may be sent until this is saved again, or are on their way
	Tokens  float64    `json:"tokens,omitempty"`
	Caps    []savedCap `json:"caps,omitempty"`
	Closed  int64      `json:"closed,omitempty"`  // until then
	Refused int        `json:"refused,omitempty"` // in a row
}

type savedCap struct {
	Until int64 `json:"until,omitempty"` // Unix seconds, by the marketplace's clock
	Ends  int64 `json:"ends"`
	Left  int   `json:"left"`
}

// maxSlots bounds what can have been saved: a slot in each part of a period, and
// some for what may be on its way.
const maxSlots = 4 * slots

func (s *savedWindow) valid() bool {
	for i, x := range s.Spent {
		if x[0] > x[1] || x[2] < 0 || x[2] > maxCalls || i > 0 && x[0] < s.Spent[i-1][0] {
			return false
		}
	}
	return s.V == 1 && s.Kind == "window" && s.Calls >= 0 && s.Calls <= maxCalls && s.Leased >= 0 && s.Leased <= 2*maxCalls &&
		len(s.Spent) <= maxSlots && len(s.Caps) <= maxCaps
}

func newWindow(key Key, accounts []string, limit WindowLimit, share float64, ledger Ledger, log *slog.Logger) (*Window, error) {
	w := &Window{line: line{key: key}, period: limit.Period, ledger: ledger, log: log, accounts: accounts, inFlight: make(map[uint64]struct{})}
	raw, stale, err := ledger.Load(key.String())
	if err != nil {
		return nil, fmt.Errorf("load budget %s: %w", key, err)
	}
	var s savedWindow
	if raw != nil {
		if err := json.Unmarshal(raw, &s); err != nil || !s.valid() {
			return nil, fmt.Errorf("load budget %s: %q is not a saved window", key, raw)
		}
	}
	now := time.Now()
	w.queue.load(nil, now)
	w.kept, w.paced = raw != nil || stale, now
	w.heard = s.Calls > 0
	calls := limit.Calls
	if w.heard {
		calls = s.Calls
	}
	w.setLimitLocked(calls, share)
	w.tokens = w.burstLocked(now)
	if w.kept {
		w.resumeLocked(s, stale, now)
	}
	return w, nil
}

// resumeLocked goes on with a window that an earlier process had.
func (w *Window) resumeLocked(s savedWindow, stale bool, now time.Time) {
	// Saved times become distances from now, which has a monotonic reading: a
	// wall clock that jumps from here on changes nothing. Up to now it may have been set
	// back.
	since := max(now.Sub(time.UnixMilli(s.At)), 0)
	landing := now.Add(maxSend + maxWay)
	mine := func(ms int64, most time.Duration) time.Time {
		d := time.Duration(min(max(ms, -int64(maxPause/time.Millisecond)), int64(most/time.Millisecond))) * time.Millisecond
		return now.Add(d - min(since, 2*maxPause))
	}
	for _, x := range s.Spent {
		if x[2] > 0 {
			w.spent = append(w.spent, spent{mine(x[0], maxSend+maxWay), mine(x[1], maxSend+maxWay), int(x[2])})
		}
	}
	// To whom it lent a token may not have sent his request yet.
	lease := s.Leased
	w.tokens = s.Tokens + float64(w.usable)/w.keep.Seconds()*since.Seconds() - float64(lease)
	if stale { // all that any limit allows may have been sent a moment ago, and may be on its way
		lease, w.tokens = maxCalls, 0
	}
	w.recordLocked(landing, lease)
	w.found = lease > 0
	for _, c := range s.Caps {
		if ends := mine(c.Ends, 2*w.period+slack); ends.After(now) && !stale {
			until := time.Time{}
			if c.Until != 0 {
				until = time.Unix(c.Until, 0)
			}
			w.caps = append(w.caps, limitUntil{until, ends, min(c.Left, maxCalls) - lease})
		}
	}
	w.tokens = max(0, min(w.tokens, w.burstLocked(now)))
	if until := mine(s.Closed, 2*maxRetryAfter); s.Closed > 0 && until.After(now) {
		w.closed, w.paced, w.tokens, w.refused = until, until, 1, min(max(s.Refused, 0), 20)
		w.logCooling(w.log, "still cooling down: somebody else spends this seller's budget", w.accounts, now, until)
	}
}

// saveLocked makes durable what was spent, and that so many calls more may be.
func (w *Window) saveLocked(more int) error {
	now := time.Now()
	w.lookLocked(now)
	after := func(t time.Time) int64 { return t.Sub(now).Milliseconds() + 1 }
	s := savedWindow{V: 1, Kind: "window", At: now.UnixMilli(), Leased: len(w.inFlight) + more, Tokens: w.tokens}
	if w.heard {
		s.Calls = w.calls
	}
	for _, x := range w.spent {
		s.Spent = append(s.Spent, [3]int64{after(x.from), after(x.by), int64(x.n)})
	}
	for _, c := range w.caps {
		sc := savedCap{Ends: after(c.ends), Left: c.left}
		if !c.until.IsZero() {
			sc.Until = c.until.Unix()
		}
		s.Caps = append(s.Caps, sc)
	}
	if w.closed.After(now) {
		s.Closed, s.Refused = after(w.closed), w.refused
	}
	raw, err := json.Marshal(s)
	if err == nil {
		err = w.ledger.Save(w.key.String(), raw)
	}
	if err == nil {
		w.kept, w.found, w.unsaved, w.leased, w.owed = true, false, false, s.Leased, len(w.inFlight)
	}
	return err
}

// saveOrLogLocked saves what the next process should know; a failure costs it that,
// unless this one lives until the ledger works again.
func (w *Window) saveOrLogLocked(otherwise string) {
	// What the ledger has granted and nobody has used may be used after this as before,
	// but for what is too much by a limit that has come down.
	if err := w.saveLocked(min(max(w.leased-w.owed, 0), w.leaseLocked())); err != nil {
		w.unsaved = true
		w.log.Error("a budget could not be saved: "+otherwise, "budget", w.key.String(), "err", err)
	}
}

// saveAnew saves what the next process must know, by the wall clock of now.
func (w *Window) saveAnew() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.kept && !w.unsaved {
		return nil
	}
	return w.saveLocked(0)
}
