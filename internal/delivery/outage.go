package delivery

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"syncd/internal/sink"
	"syncd/internal/state"
	"syncd/internal/trouble"
)

const (
	// downSubjects is how many different subjects have to fail in a row, with no
	// acknowledgement between them, before the endpoint counts as down, and
	// downRounds how often everything that may be in flight: neither a poison event
	// nor a receiver that fails now and then is an outage. That what has failed before
	// fails again says little beside traffic that comes now and then: it counts when
	// nothing was acknowledged for probeMax, or the events of a batch fail alone.
	downSubjects = 3
	downRounds   = 2
	// probeMax is how long a dead endpoint is left alone between two probes, where
	// retry.max is not shorter. The first one comes at once, and probesSoon at
	// retry.initial: they tell an endpoint that is down from one that only many
	// subjects are bad for.
	probeMax   = time.Minute
	probesSoon = 4
	// probesApart is how many probes that are batches are taken apart, and one in as many
	// afterwards: it may be that all batches hold something bad, and after an outage of
	// hours most should still be whole.
	probesApart = 8
	// recent is among how many events that came last a probe is chosen: of what comes
	// much, more are there.
	recent = 256
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
	down        bool
	failing     map[string]bool // subjects that failed since the last acknowledgement; at most downSubjects
	vain        int             // failures since then
	firsts      int             // of these, first attempts; 0: perhaps only what was bad before is bad still
	apart       bool            // a batch was taken apart since then
	parts       bool            // the last probe was: its events are in the queue
	since       time.Time       // nothing was acknowledged
	probeAt     time.Time       // while the endpoint is down: when to try one event
	probes      int             // that failed
	probed      string          // the queue key of the last probe
	lastAck     time.Time       // by this process; zero: none
	lastRefusal time.Time       // permanent, of an event that went alone
	lastFailure time.Time
	over        time.Time // when the end of an outage was told last; zero: never
	flaps       bool      // the endpoint fails and works by turns, whose ends are not told

	saving   bool        // the probe that was chosen is saved first
	hold     time.Time   // the receiver asked to be left alone until then
	gone     *state.Gone // it answered 410: nothing is sent
	resuming bool        // the operator says that it is back
}

func newOutage(b *base, now time.Time) outage {
	o := outage{failing: make(map[string]bool), since: now, gone: b.known.Gone, hold: b.known.Hold}
	if o.hold.After(now.Add(holdMax)) { // nobody can have asked for that: a clock was wrong
		o.hold = time.Time{}
	}
	return o
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
	p.down = true
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
// subject each time, an untried event first and then by turns with one of the queue:
// where many subjects are bad, all that is untried may be theirs, or all that is in
// the queue. Untried events go at once as long as only such have failed as had failed
// before.
//
// It does not wait for a head's own time: a few subjects at their longest wait
// would leave an endpoint that is up again alone for most of an hour.
func (p *parallel) probe(now time.Time) (*job, time.Time, error) {
	if p.flying > 0 || p.settling != nil || p.group.n > 0 {
		return nil, time.Time{}, nil
	}
	if len(p.prepared) > 0 && p.saving { // what was chosen is saved now
		return p.probeReady(now), time.Time{}, nil
	}
	untried := len(p.prepared)+len(p.ready) > 0
	if now.Before(p.probeAt) && !(untried && p.firsts == 0) {
		return nil, p.probeAt, nil
	}
	if untried && !p.parts && (p.probes < 2 || p.probes%2 == 1 || p.firsts == 0) {
		return p.probeReady(now), time.Time{}, nil
	}
	j, at, err := p.probeQueue(now)
	if j == nil && err == nil && at.IsZero() && untried && !p.saving { // it is empty
		j = p.probeReady(now)
	}
	return j, at, err
}

// probeReady takes an untried event, or a batch that is saved; nil: once it is.
func (p *parallel) probeReady(now time.Time) *job {
	if n := len(p.ready); n > 0 && len(p.prepared) == 0 {
		i := p.anyReady()
		chosen := p.ready[i]
		copy(p.ready[1:i+1], p.ready[:i])
		p.ready[0] = chosen
	}
	j := p.nextFresh(now)
	if p.saving = j == nil; p.saving {
		p.gather(1)
		return nil
	}
	j.probe, p.probed = true, j.events[0].PartitionKey
	return j
}

// anyReady chooses an event that is ready, of a subject with many events rather than
// of one with few: what comes steadily is found among many subjects that came once.
func (p *parallel) anyReady() int {
	for range 8 {
		n := p.entries[rand.N(len(p.entries))]
		if i := slices.IndexFunc(p.ready, func(r *entry) bool { return r.event.PartitionKey == n.event.PartitionKey }); i >= 0 {
			return i
		}
	}
	return rand.N(len(p.ready))
}

// probeQueue takes a head of the queue; nil: there is none, or once it is saved.
func (p *parallel) probeQueue(now time.Time) (*job, time.Time, error) {
	f, found, err := p.anyHead()
	if err != nil || !found {
		return nil, time.Time{}, err
	}
	p.probed, p.parts = f.QueueKey(), false
	j, err := p.load(f, classOf(&f), now)
	if err != nil {
		return nil, time.Time{}, err
	}
	if j == nil {
		p.probeAt = now.Add(min(p.RetryInitial, probeMax))
		return nil, p.probeAt, nil
	}
	if j.class == firstTry && p.BatchEvents > 1 && f.Batch == 0 {
		j.head = f
		p.save(j)
		p.saving = true
		return nil, time.Time{}, nil
	}
	j.probe = true
	return j, time.Time{}, nil
}

// anyHead chooses a head of the queue as anyReady does, another one than last time if
// there are others.
func (p *parallel) anyHead() (f state.Failed, found bool, err error) {
	for range 4 {
		f, found, err = p.db.HeadOfRecent(p.Name, rand.N(recent))
		if err != nil || !found {
			break
		}
		if f.QueueKey() != p.probed {
			return f, true, nil
		}
	}
	// Nothing but what the log is not kept for, or hardly any other subject.
	for _, after := range []string{p.probed, ""} {
		heads, err := p.db.Heads(p.Name, after, 1)
		if err != nil {
			return f, false, err
		}
		if len(heads) > 0 {
			return heads[0], true, nil
		}
	}
	return f, found, err
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
	p.since = now
	if len(p.failing) == 0 { // which is so where nothing has failed
		return
	}
	if p.down {
		p.report.set(func(s *Status) { s.DownSince = time.Time{} })
	}
	clear(p.failing)
	p.down, p.apart, p.parts, p.vain, p.firsts, p.probes = false, false, false, 0, 0, 0
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

const isDown = "the endpoint is down: trying one event at a time until it answers"

// fails notes what a failure says about the endpoint.
func (p *parallel) fails(j *job, e *sink.Error, now time.Time) {
	first := &j.events[0]
	p.report.failed(e.Error(), now)
	p.lastFailure = now
	level, sort, msg := slog.LevelWarn, fmt.Sprint(e.Kind, e.Status), "delivery failed, trying again"
	if p.goesDown(j, e, now) {
		level, sort, msg = slog.LevelError, "down", isDown
	}
	if p.flaps && now.Sub(p.lastAck) >= calm { // it does not work by turns any more
		p.flaps, p.trouble = false, trouble.Run{}
		if p.down {
			level, sort, msg = slog.LevelError, "down", isDown
		}
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
	p.vain++
	if len(p.failing) < downSubjects {
		p.failing[first.PartitionKey] = true
	}
	if j.head.Attempts <= 1 {
		p.firsts++
	}
	if p.down {
		if j.probe { // what was in flight when it went down says nothing new
			most := min(p.RetryMax, probeMax)
			p.probes++
			p.probeAt = now.Add(trouble.Backoff(max(p.probes-probesSoon, 1), min(p.RetryInitial, most), most))
		}
		return false
	}
	enough := downRounds * p.limit
	p.down = len(p.failing) >= downSubjects && (p.firsts >= enough || p.vain >= enough && (p.apart || now.Sub(p.since) >= probeMax))
	if !p.down {
		return false
	}
	p.probeAt = now
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
