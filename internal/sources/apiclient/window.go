package apiclient

import (
	"context"
	"log/slog"
	"time"
)

// WindowLimit is a documented limit of so many calls in each period, of which nobody
// knows when it begins: by the clock, with the first call, or at every moment.
type WindowLimit struct {
	Calls  int
	Period time.Duration
}

// maxCalls is the most that a limit can be. More is nonsense, or no limit.
const maxCalls = 1_000_000

func (l WindowLimit) valid() bool { return l.Calls >= 1 && l.Calls <= maxCalls && l.Period > 0 }

// Window is the client's side of one of the marketplace's limits of calls in a period.
// In no period, wherever it begins, do more arrive than its usable number, and where
// the limit is above one call one of it is never used, whatever the network does:
//
//   - a request counts from its grant to its answer, and from there for a period: it
//     arrived before its answer. One without an answer counts from when it has
//     arrived at the latest;
//   - what an earlier process may have sent counts as sent by the latest moment at
//     which it can arrive;
//   - the marketplace's word replaces the limit; of what it says is left, only what
//     lowers counts, and until it says that the period ends: the rest was spent by
//     others.
//
// Beneath that the calls are spread: see paceLocked. Those who wait share them by
// their weights: see queue.
//
// All methods are safe for concurrent use.
type Window struct {
	line
	period time.Duration // as documented
	ledger Ledger
	log    *slog.Logger

	accounts []string // whose budget this is, for the log
	share    float64
	calls    int           // of one period, as documented or, once heard, as the marketplace says
	heard    bool          // the marketplace has said so
	saidBy   uint64        // the request whose answer did
	usable   int           // calls that may be made in a period
	keep     time.Duration // for how long a call counts

	spent    []spent // what has arrived, or will at the latest by a time to come; oldest first
	caps     []limitUntil
	until    time.Time           // the last end of a period to come that was said
	inFlight map[uint64]struct{} // numbers of the requests that have not ended yet
	sent     uint64

	tokens  float64   // that the pace has let come, at paced
	paced   time.Time // a time to come: at that time, and before it there are none
	closed  time.Time // the marketplace's word, after a 420
	refused int       // 420s in a row, those of one storm counted as one
	stormed uint64    // the last request sent before the latest of them

	leased int  // calls that the ledger counts beside those that it has the times of
	owed   int  // calls that it does not have the times of
	kept   bool // the ledger has the window
	found  bool // the ledger lacks what was found out when the process began
}

// spent are n calls that were recorded from one time on, and had all arrived by
// another.
type spent struct {
	from, by time.Time
	n        int
}

// limitUntil is what the marketplace said of a period.
type limitUntil struct {
	until time.Time // by its clock: what it calls the period
	ends  time.Time // by ours, at the latest
	left  int       // requests that may still be granted until then; perhaps below 0
}

const (
	// A period has so many slots: what is recorded within one of them is counted
	// together.
	slots = 120
	// maxCaps bounds what is remembered of different periods. A marketplace whose
	// windows follow the clock has one, or for a moment two.
	maxCaps = 4
)

// slack for a clock that is slower than the marketplace's, and the seconds to which
// its headers are cut.
const slack = 2 * time.Second

// periodsMost bounds how many periods one call can have to be spread over by a share.
const periodsMost = 4

// setLimitLocked sets what may be used.
func (w *Window) setLimitLocked(calls int, share float64) {
	w.calls, w.share = calls, share
	part := float64(calls) * share
	w.usable = max(1, min(calls-1, int(part)))
	// Of less than one call in a period one in several. Not in many: a limit that was
	// heard may be a slip, and the next answer, which would mend it, must come some day.
	w.keep = time.Duration(float64(w.period) / min(max(part, 1./periodsMost), 1))
	w.keep += w.keep/1000 + slack
}

// burstLocked is how many calls may be made at once at t: a first scan is quick, and
// where little is left that is spread.
func (w *Window) burstLocked(t time.Time) float64 {
	left := w.leftLocked(t)
	return float64(min(left+1, max(3, left/5)))
}

// change makes the window that of other accounts, and obey a new share.
func (w *Window) change(accounts []string, share float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.accounts = accounts
	if share != w.share {
		w.lookLocked(time.Now())
		w.setLimitLocked(w.calls, share)
		w.wakeLocked()
	}
}

// recordLocked counts n calls that have arrived by t.
//
// Times only go forward in the list: what arrives before something that may be on its
// way counts as arriving with it, at most a minute late.
func (w *Window) recordLocked(t time.Time, n int) {
	if n <= 0 {
		return
	}
	if i := len(w.spent) - 1; i >= 0 && t.Sub(w.spent[i].from) <= w.period/slots {
		w.spent[i].by, w.spent[i].n = later(w.spent[i].by, t), min(w.spent[i].n+n, maxCalls)
		return
	}
	w.spent = append(w.spent, spent{t, t, min(n, maxCalls)})
}

// heldLocked is how many calls count at t.
func (w *Window) heldLocked(t time.Time) int {
	n := len(w.inFlight)
	for _, s := range w.spent {
		if s.by.Add(w.keep).After(t) {
			n += s.n
		}
	}
	return n
}

// leftLocked is how many calls may be made at once at t, pace aside.
func (w *Window) leftLocked(t time.Time) int {
	left := w.usable - w.heldLocked(t)
	for _, c := range w.caps {
		if c.ends.After(t) {
			left = min(left, c.left)
		}
	}
	return max(left, 0)
}

// paceLocked is how many tokens come in a second from t on, when there are as many
// already, and until when that holds: as many as the limit lets come evenly, up to
// each moment at which it lets come more. So after a burst the rest of the period has
// no hole, and who uses all of his limit ends up at an even pace.
//
// A token that is about to come is none: up to just before the limit rises there may
// be less than one more than it leaves.
func (w *Window) paceLocked(t time.Time, tokens float64) (perSecond float64, until time.Time) {
	perSecond, until = float64(w.usable)/w.keep.Seconds(), t.Add(w.keep)
	bound := func(left int, at time.Time) {
		if most := max(0, (float64(max(left, 0)+1)-tokens)/at.Sub(t).Seconds()); most < perSecond {
			perSecond, until = most, at
		}
	}
	left := w.usable - w.heldLocked(t)
	for _, s := range w.spent {
		if at := s.by.Add(w.keep); at.After(t) {
			bound(left, at)
			left += s.n
		}
	}
	for _, c := range w.caps {
		if c.ends.After(t) {
			bound(c.left, c.ends)
		}
	}
	return perSecond, until
}

const hair = 1e-8 // of a token: what floats lose

// lookLocked lets the tokens come that have come by now, and forgets what does not
// count any more.
func (w *Window) lookLocked(now time.Time) {
	for w.paced.Before(now) {
		perSecond, until := w.paceLocked(w.paced, w.tokens)
		until = earlier(until, now)
		w.tokens += perSecond * until.Sub(w.paced).Seconds()
		w.paced = until
		w.tokens = min(w.tokens, w.burstLocked(until))
	}
	w.tokens = min(w.tokens, w.burstLocked(w.paced))
	for len(w.spent) > 0 && !w.spent[0].by.Add(w.keep).After(now) {
		w.spent = w.spent[1:]
	}
	for i := len(w.caps) - 1; i >= 0; i-- {
		if !w.caps[i].ends.After(now) {
			w.caps = append(w.caps[:i], w.caps[i+1:]...)
		}
	}
}

// waitLocked is how long the next token is away for who comes after ahead others;
// 0: it is there.
func (w *Window) waitLocked(now time.Time, ahead int) time.Duration {
	w.lookLocked(now)
	at, tokens, want := w.paced, w.tokens, float64(1+ahead)-hair
	for tokens < want {
		perSecond, until := w.paceLocked(at, tokens)
		if d := until.Sub(at).Seconds(); tokens+perSecond*d < want {
			at, tokens = until, tokens+perSecond*d
			continue
		}
		// Rounded up, or the wait ends a hair too early.
		at = at.Add(time.Duration((want-tokens)/perSecond*float64(time.Second)) + time.Microsecond)
		break
	}
	// The pace keeps to what is left, but for the hair, and is not what is relied on.
	for end := later(now, w.paced).Add(w.keep); at.Before(end) && w.leftLocked(at) == 0; {
		at = w.nextLocked(at)
	}
	return at.Sub(now)
}

// nextLocked is when after t something may be left again that is not now.
func (w *Window) nextLocked(t time.Time) time.Time {
	next := t.Add(w.keep)
	for _, s := range w.spent {
		if at := s.by.Add(w.keep); at.After(t) {
			next = earlier(next, at)
		}
	}
	for _, c := range w.caps {
		if c.ends.After(t) {
			next = earlier(next, c.ends)
		}
	}
	return next
}

// Acquire waits for a token and spends it. It is durable before Acquire returns that
// it may have been: a crash from here on costs a lease of tokens, never the budget.
// If the token comes only after ctx's deadline the error says so at once
// (sources.BudgetWait), and also when it turns out later; otherwise the only errors
// are ctx's and, as sources.Temporary, the ledger's.
func (w *Window) Acquire(ctx context.Context, f Flow) (*Grant, error) {
	start := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	who := w.queue.join(f, true, false, start)
	_, who.hurried = ctx.Deadline()
	defer w.leaveLocked(who)
	if w.found {
		// Or processes that always die before their first token would count the same
		// lease again and again.
		w.saveOrLogLocked("a restart might wait once more for what this process waits for")
	}
	w.wakeLocked() // those behind it have longer to wait
	now, err := w.awaitLocked(ctx, who, w.waitLocked)
	if err != nil {
		return nil, err
	}
	undo := w.queue.serve(who, now)
	if w.owed >= w.leased {
		if err := w.saveLocked(w.leaseLocked()); err != nil {
			undo()
			return nil, w.unsavedError(err)
		}
	}
	w.tokens--
	for i := range w.caps {
		w.caps[i].left--
	}
	w.sent++
	w.owed++
	w.inFlight[w.sent] = struct{}{}
	return &Grant{budget: w, number: w.sent, Waited: now.Sub(start)}, nil
}

// leaseLocked is how many calls are saved as spent at once, which a crash costs. What
// the limit really is must be known before that can be more than one.
func (w *Window) leaseLocked() int {
	if !w.heard {
		return 1
	}
	return max(1, w.calls/100)
}

// open reports whether what was granted before may leave now: a 420 has closed the
// window since, or others have left less than is granted, where it may not.
func (w *Window) open() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.lookLocked(now)
	for _, c := range w.caps {
		if c.left < 0 && c.ends.After(now) {
			return false
		}
	}
	return !w.closed.After(now)
}

// answered is Grant.Answered.
func (w *Window) answered(g *Grant, a Answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	w.lookLocked(now)
	delete(w.inFlight, g.number)
	others := w.othersLocked(g, now)
	switch {
	case a.Unsent:
		w.owed--
		if !w.paced.After(now) {
			w.tokens = min(w.tokens+1, w.burstLocked(now))
		}
		for i := range w.caps {
			w.caps[i].left++
		}
	case a.Lost:
		w.recordLocked(now.Add(maxWay), 1)
	default:
		w.recordLocked(now, 1)
		w.heardLocked(g, a, others, now)
	}
	w.wakeLocked()
}

// Usable is how many calls may be spent in the time that the limit is for, as last
// heard, and how far apart they are where they are spread over it.
func (w *Window) Usable() (calls int, pause time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.usable, w.keep / time.Duration(w.usable)
}

// status is what Snapshot tells of a window.
func (w *Window) status() BudgetStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	s := BudgetStatus{Window: WindowLimit{w.calls, w.period}, Pause: w.keep / time.Duration(w.usable), Usable: w.usable,
		Tokens: w.tokensLocked(now), Waiting: len(w.queue.waiters)}
	s.Next = now.Add(w.waitLocked(now, 0))
	if w.closed.After(now) {
		s.CoolingUntil = w.closed
	}
	s.Used = w.heldLocked(now)
	for _, c := range w.caps {
		if left := max(c.left, 0); left < w.usable-s.Used && (s.CapUntil.IsZero() || left < s.CapLeft) {
			s.CapLeft, s.CapUntil = left, c.ends
		}
	}
	return s
}

// level returns how many requests could be sent at once now.
func (w *Window) level() float64 { return w.glance(w.tokensLocked) }

func (w *Window) tokensLocked(now time.Time) float64 {
	w.lookLocked(now)
	if w.paced.After(now) {
		return 0
	}
	return min(w.tokens, float64(w.leftLocked(now)))
}

// next is when the next request may be sent.
func (w *Window) next() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	return now.Add(w.waitLocked(now, 0))
}
