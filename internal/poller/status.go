package poller

import (
	"slices"
	"strings"
	"time"

	"syncd/internal/sources"
	"syncd/internal/state"
)

// StreamStatus is what a stream is doing. Zero times are unknown, or never.
type StreamStatus struct {
	Stream      state.StreamID
	Marketplace string
	Group       string
	Schedule    string
	Stopped     error         // the account is not polled at all; nil: it is
	Walked      bool          // the first walk is complete
	Blocked     time.Time     // the API group refused the token: not before
	Behind      time.Duration // how far everything that was read is behind the present; 0: it is not
	BehindSince time.Time     // when this process first saw that
	Plan        string        // how often the budget allows to read it; empty: nothing to say
	Walks       []WalkStatus  // news, then what the stream has of sweep, full, backfill and follow
}

// WalkStatus is one way in which the stream is read.
type WalkStatus struct {
	Walk    sources.Walk
	Every   time.Duration // sweep, full: as configured
	Began   time.Time     // of the last complete run; news: of this process
	Last    time.Time     // when that was complete
	Next    time.Time     // when the next run is due, or the next try; past: as soon as the budget allows; zero: it runs, or is not due at all
	Period  time.Duration // how far apart the last complete runs really began, the middle one of five; 0: unknown
	Waiting time.Time     // for the budget, until then; zero: it does not, or that is unknown
	Running *RunStatus    // nil: it does not
	Failure *FailureStatus
	Part    *FailureStatus  // a part of the last run that could not be read; nil: there was none
	Request *state.Backfill // backfill: that is open; nil: none

	// Follow: how many visits are planned, how many of these are overdue, and how many
	// are put off after a failure. Some minutes old.
	Planned, Overdue, PutOff int
}

// RunStatus is a run that is going on, as far as this process has read it.
type RunStatus struct {
	Since    time.Time
	Requests int
	Items    int
	Progress float64 // up to 1; 0: unknown
}

// FailureStatus is a row of failures that has not ended.
type FailureStatus struct {
	Kind    sources.Kind // empty: the state file failed
	Text    string
	Request string // that failed; empty: unknown
	Since   time.Time
	Times   int
}

// Status returns what each stream is doing, in order of their names. It reads no
// state and waits for nothing.
func (p *Poller) Status() []StreamStatus {
	stopped := p.Stopped()
	workers := p.all()
	out := make([]StreamStatus, 0, len(workers))
	for _, w := range workers {
		s := w.status(time.Now())
		s.Stopped = stopped[w.ID.Account]
		out = append(out, s)
	}
	return out
}

func (w *worker) status(now time.Time) StreamStatus {
	out := StreamStatus{Stream: w.ID, Marketplace: w.Marketplace, Group: w.Group, Schedule: w.Schedule}
	if t := w.p.blockedUntil(w.ID.Account, w.Group); t.After(now) {
		out.Blocked = t
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	out.Walked, out.BehindSince = w.known.Walked, w.behind.since
	if !w.behind.since.IsZero() {
		out.Behind = now.Sub(w.behind.reached)
	}
	for _, k := range w.walks() {
		out.Walks = append(out.Walks, w.walkLocked(k, now))
		if k.plan != "" && !strings.Contains(out.Plan, k.plan) {
			out.Plan = strings.TrimPrefix(out.Plan+"; "+k.plan, "; ")
		}
	}
	return out
}

func (w *worker) walkLocked(k *walk, now time.Time) WalkStatus {
	out := WalkStatus{Walk: k.name, Every: k.every, Began: k.began, Last: k.done, Period: middle(k.apart)}
	if r := k.run; r != nil {
		out.Running = &RunStatus{Since: r.since, Requests: r.pages, Items: r.items, Progress: r.progress}
	}
	if f := k.failure; f != nil {
		out.Failure = f.status()
		if f.err.Until.After(now) {
			out.Waiting = f.err.Until
		}
	}
	if k.part != nil {
		out.Part = k.part.status()
	}
	if k.name == sources.Follow {
		out.Planned, out.Overdue, out.PutOff = w.follow.count.planned, w.follow.count.due, w.follow.delayed
	}
	switch {
	case k.name == sources.News:
		out.Next = w.next
	case k.name == sources.Follow:
		out.Next = w.follow.next
	case k.failure != nil:
		out.Next = k.retry
	case k.run == nil && k.name != sources.Backfill:
		out.Next, _ = w.dueLocked(k, now)
	}
	if k.name == sources.Backfill && w.request != nil {
		request := *w.request
		out.Request = &request
	}
	return out
}

func (f *failure) status() *FailureStatus {
	out := &FailureStatus{Text: strings.ToValidUTF8(f.err.Error(), "?"), Request: f.err.Request, Since: f.since, Times: f.times}
	if f.fetching {
		out.Kind = f.err.Kind
	} else {
		out.Text = f.err.Err.Error()
	}
	return out
}

func (w *worker) setNext(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next = t
}

// names lists what there is, for an error about something else.
func names(ids []string) string {
	slices.Sort(ids)
	return strings.Join(slices.Compact(ids), ", ")
}
