package delivery

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"syncd/internal/sink"
	"syncd/internal/state"
	"syncd/internal/trouble"
)

const (
	// downSubjects is how many different subjects have to fail in a row, with no
	// acknowledgement between them, before the endpoint counts as down, and
	// downRounds how often everything that may be in flight: neither a poison event
	// nor a receiver that fails now and then is an outage.
	downSubjects = 3
	downRounds   = 2
	// probeMax is how long a dead endpoint is left alone between two probes, where
	// retry.max is not shorter.
	probeMax = time.Minute
	// holdMax is how long a receiver may ask to be left alone.
	holdMax = 24 * time.Hour
	// An endpoint that fails outageFailures times in a row less than calm after it had
	// done so before works by turns: its turns are one trouble, which is over when
	// nothing has failed for so long.
	outageFailures = 10 // of trouble.Run: it tells the end of as many at once
	calm           = 10 * time.Minute
)

// outage is what a parallel sink knows of its endpoint as a whole.
type outage struct {
	failing     map[string]bool // subjects that failed since the last acknowledgement; at most downSubjects
	vain        int             // failures since then
	untried     bool            // none of them was an event's first: perhaps only what was bad before is bad still
	probeAt     time.Time       // while the endpoint is down: when to try one event
	probes      int
	probed      string    // the queue key of the last probe
	lastAck     time.Time // by this process; zero: none
	lastRefusal time.Time // permanent, of an event that went alone
	lastFailure time.Time
	over        time.Time // when the end of an outage was told last; zero: never
	flaps       bool      // the endpoint fails and works by turns, whose ends are not told

	hold     time.Time   // the receiver asked to be left alone until then
	gone     *state.Gone // it answered 410: nothing is sent
	resuming bool        // the operator says that it is back
}

func newOutage(b *base, now time.Time) outage {
	o := outage{failing: make(map[string]bool), untried: true, gone: b.known.Gone, hold: b.known.Hold}
	if o.hold.After(now.Add(holdMax)) { // nobody can have asked for that: a clock was wrong
		o.hold = time.Time{}
	}
	return o
}

func (p *parallel) down() bool {
	return len(p.failing) >= downSubjects && p.vain >= downRounds*p.limit
}

// doubt begins as after an outage where an earlier process has left events that
// failed: or each of its restarts would send a dead endpoint the requests that show
// that it is. An event that was never tried is the first probe; those that were wait
// for their time, or a crash loop would be a hot one. The first acknowledgement ends
// it.
func (p *parallel) doubt(now time.Time) error {
	tried, err := p.db.Due(p.Name, state.Again, downSubjects, func(state.Failed) bool { return false })
	if err != nil || len(tried) < downSubjects {
		return err
	}
	if p.probeAt = now.Add(min(p.RetryMax, probeMax)); tried[0].Next.Before(p.probeAt) {
		p.probeAt = tried[0].Next
	}
	p.vain = downRounds * p.limit
	for _, name := range []string{"", " ", "  "} { // no subject is called that
		p.failing[name] = true
	}
	return nil
}

// resume goes on after a 410. The pause may be in a commit that is going on, so it
// is forgotten in the state once that is over.
func (p *parallel) resume() error {
	if !p.resuming || p.settling != nil {
		return nil
	}
	if p.gone != nil || !p.hold.IsZero() {
		if _, err := p.db.ResumeSink(p.Name); err != nil {
			return err
		}
		p.log.Info("sink goes on: it was resumed")
	}
	p.resuming, p.gone, p.group.gone, p.probeAt = false, nil, nil, time.Time{}
	p.hold, p.group.hold = time.Time{}, nil
	p.report.set(func(s *Status) { s.Gone, s.Hold = nil, time.Time{} })
	return nil
}

// probe chooses what to send to an endpoint that is down: nothing while anything
// is on its way or not committed, or before its time; then one request, of another
// subject each time, and untried events first, in no order: where it is one of many
// that the receiver chokes on, the others are soon found. They go at once as long as
// only events have failed that had failed before.
//
// It does not wait for a head's own time: a few subjects at their longest wait
// would leave an endpoint that is up again alone for most of an hour.
func (p *parallel) probe(now time.Time) (*job, time.Time, error) {
	if p.flying > 0 || p.settling != nil || p.group.n > 0 {
		return nil, time.Time{}, nil
	}
	some := len(p.prepared)+len(p.ready) > 0
	if now.Before(p.probeAt) && !(p.untried && some) {
		return nil, p.probeAt, nil
	}
	if some {
		if n := len(p.ready); n > 0 && len(p.prepared) == 0 {
			i := rand.N(n)
			chosen := p.ready[i]
			copy(p.ready[1:i+1], p.ready[:i])
			p.ready[0] = chosen
		}
		j := p.nextFresh(now)
		if j == nil {
			p.gather(1) // to be sent once it is saved
			return nil, time.Time{}, nil
		}
		j.probe = true
		return j, time.Time{}, nil
	}
	heads, err := p.db.Heads(p.Name, p.probed, 1)
	if err == nil && len(heads) == 0 && p.probed != "" {
		heads, err = p.db.Heads(p.Name, "", 1)
	}
	if err != nil || len(heads) == 0 {
		return nil, time.Time{}, err
	}
	f := heads[0]
	p.probed = f.QueueKey()
	j, err := p.load(f, classOf(&f), now)
	if err != nil {
		return nil, time.Time{}, err
	}
	if j == nil {
		p.probeAt = now.Add(min(p.RetryInitial, probeMax))
		return nil, p.probeAt, nil
	}
	if j.class == firstTry && p.BatchEvents > 1 && f.Batch == 0 { // to be sent once it is saved
		j.head = f
		p.save(j)
		return nil, time.Time{}, nil
	}
	j.probe = true
	return j, time.Time{}, nil
}

// classOf is the class of a head.
func classOf(f *state.Failed) class {
	switch {
	case f.Lane != state.Live:
		return aside
	case f.Attempts == 0:
		return firstTry
	}
	return again
}

// works notes an acknowledgement, which ends an outage.
func (p *parallel) works(now time.Time) {
	p.lastAck = now
	if !p.flaps {
		if p.trouble.Row() >= outageFailures {
			p.over = now
		}
		p.trouble.Worked(p.log, "sink works again")
	}
	if p.vain == 0 {
		return
	}
	if p.down() {
		p.report.set(func(s *Status) { s.DownSince = time.Time{} })
	}
	clear(p.failing)
	p.vain, p.probes, p.untried = 0, 0, true
}

// calmed tells the end of a trouble in which the endpoint worked by turns, and returns
// when it may be over; zero: it is, or it fails now.
func (p *parallel) calmed(now time.Time) time.Time {
	if !p.flaps || p.vain > 0 {
		return time.Time{}
	}
	if at := p.lastFailure.Add(calm); now.Before(at) {
		return at
	}
	p.flaps = false
	p.trouble.Worked(p.log, "sink works again")
	return time.Time{}
}

// fails notes what a failure says about the endpoint.
func (p *parallel) fails(j *job, e *sink.Error, now time.Time) {
	first := &j.events[0]
	p.report.failed(e.Error(), now)
	p.lastFailure = now
	level, sort, msg := slog.LevelWarn, fmt.Sprint(e.Kind, e.Status), "delivery failed, trying again"
	if p.goesDown(j, e, now) {
		level, sort, msg = slog.LevelError, "down", "the endpoint is down: trying one event at a time until it answers"
	}
	row := p.trouble.Add(p.log, level, sort, msg, "event", first.ID, "err", e)
	if row >= outageFailures && !p.flaps && !p.over.IsZero() && now.Sub(p.over) < calm {
		p.flaps = true
		p.log.Warn("the endpoint fails and works by turns: told again when nothing has failed for "+calm.String(), "err", e)
	}
	if until := now.Add(min(e.RetryAfter, holdMax)); e.RetryAfter > 0 && until.After(p.hold) {
		p.hold, p.group.hold = until, &until
		p.report.set(func(s *Status) { s.Hold = until })
	}
	if e.Kind == sink.Gone && p.gone == nil {
		p.gone = &state.Gone{At: now, Event: first.ID, Answer: e.Excerpt}
		p.group.gone = p.gone
		p.log.Error("sink is paused: its endpoint answered 410; `syncd sinks resume "+p.Name+"` goes on", "event", first.ID, "err", e)
		p.report.set(func(s *Status) { s.Gone = p.gone })
	}
}

// goesDown notes a failure against the endpoint, and reports whether it was the one
// too many.
func (p *parallel) goesDown(j *job, e *sink.Error, now time.Time) bool {
	if e.Kind == sink.Permanent && j.head.Lane == state.Retried {
		return false // that the receiver refuses this event is known
	}
	first := &j.events[0]
	wasDown := p.down()
	p.vain++
	if len(p.failing) < downSubjects {
		p.failing[first.PartitionKey] = true
	}
	if j.head.Attempts <= 1 {
		p.untried = false
	}
	if !p.down() || wasDown && !j.probe { // what was in flight when it went down says nothing new
		return false
	}
	p.probes++
	most := min(p.RetryMax, probeMax)
	p.probeAt = now.Add(trouble.Backoff(p.probes, min(p.RetryInitial, most), most))
	if p.probes > 1 {
		return false
	}
	if p.probed = first.PartitionKey; j.class != fresh {
		p.probed = j.head.QueueKey()
	}
	p.report.set(func(s *Status) { s.DownSince = now })
	return true
}

// refused counts a permanent answer to an event that went alone, and reports
// whether it was one too many.
//
// It counts if it is the event's first, or if the endpoint has acknowledged another
// event since the try before: an endpoint that refuses everything, for a wrong
// secret or route, says nothing about the event. Where the first refusal is to be
// the last, the endpoint must have acknowledged something since it last refused
// another event.
func (p *parallel) refused(f *state.Failed, last time.Time, now time.Time) bool {
	only := f.Attempts == 1
	before := p.lastRefusal
	p.lastRefusal = now
	if !only && !laterMilli(p.lastAck, last) {
		return false
	}
	f.Refused++
	if p.MaxRefusals == 0 || f.Refused < p.MaxRefusals {
		return false
	}
	return p.MaxRefusals > 1 || !only || laterMilli(p.lastAck, before)
}

// laterMilli reports whether a time is there and later, in the precision that the
// state keeps.
func laterMilli(t, than time.Time) bool {
	return !t.IsZero() && t.UnixMilli() > than.UnixMilli()
}
