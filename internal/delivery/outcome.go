package delivery

import (
	"log/slog"
	"slices"
	"time"

	"syncd/internal/sink"
	"syncd/internal/state"
)

// take notes what came of a request.
func (p *parallel) take(j *job) {
	p.flying--
	if j.parked.Seq != 0 { // it kept the slot of a fresh one, or those parked would take that of all retries
		p.held[fresh]--
	} else {
		p.held[j.class]--
	}
	if i := slices.Index(p.air, j); i >= 0 {
		p.air = slices.Delete(p.air, i, i+1)
	}
	if j.parked.Seq != 0 {
		j.head = j.parked
	}
	p.report.inFlight.Store(int64(p.flying))
	now := time.Now()
	if j.err == nil {
		p.took(j, now)
		p.recycle(j)
		return
	}
	e := sink.AsError(j.err)
	if p.landing && e.Status == 0 {
		// We gave up waiting, which says nothing: the next start sends a fresh event
		// again, and a head at the time that was recorded before it was sent.
		return
	}
	p.fails(j, e, now)
	p.failed(j, e, now)
	p.recycle(j)
}

// took notes an acknowledgement.
func (p *parallel) took(j *job, now time.Time) {
	p.works(now)
	for i := range j.events {
		if j.class == aside { // how long ago it was recorded says nothing about the sink
			p.metrics.acknowledged.Inc()
			p.report.lastAck.Store(now.UnixNano())
			continue
		}
		p.acknowledgedAt(&j.events[i], now)
	}
	if j.class != fresh {
		p.group.n++
		p.group.acked = append(p.group.acked, j.head)
		p.freeLater(j)
		return
	}
	p.forget(j)
	for i := range j.events {
		e := &j.events[i]
		p.done(e.Sequence)
		if p.back(e.PartitionKey) {
			p.advance(e.PartitionKey)
		}
	}
}

// forget has a saved batch that is not in the queue forgotten.
func (p *parallel) forget(j *job) {
	if !j.saved {
		return
	}
	p.group.unbatch = append(p.group.unbatch, j.events[0].Sequence)
	if len(p.members) > 0 {
		for i := range j.events {
			delete(p.members, j.events[i].Sequence)
		}
	}
}

// freeLater keeps the subjects of a request busy until its outcome is committed.
func (p *parallel) freeLater(j *job) {
	for i := range j.events {
		if key := j.events[i].PartitionKey; p.back(key) {
			p.group.freed = append(p.group.freed, key)
		}
	}
}

// verdict is what becomes of events that failed.
type verdict int

const (
	retry  verdict = iota // later, as they are
	split                 // the batch goes event by event
	giveUp                // dead letters
)

// failed notes what becomes of the events of a request that failed.
func (p *parallel) failed(j *job, e *sink.Error, now time.Time) {
	f := j.head
	if j.class == fresh {
		f = state.Failed{Attempts: 1, First: p.firstAt(j.sent)}
	}
	f.Last, f.Status, f.Error, f.Next = now, e.Status, e.Error(), now.Add(p.backoff(f.Attempts))
	what := p.judge(j, &f, e, now)
	if what == split {
		f.Next = now
	}
	if what == giveUp {
		p.metrics.deadLettered.Add(float64(len(j.events)))
		p.trouble.Add(p.log, slog.LevelError, "dead "+f.Reason, "event given up: `syncd deadletter list --sink "+p.Name+"` shows such events",
			"event", j.events[0].ID, "reason", f.Reason, "attempts", f.Attempts, "err", e)
	} else {
		p.metrics.failed.Add(float64(len(j.events)))
	}
	p.freeLater(j)
	if j.class != fresh {
		p.group.n++
		if what == giveUp {
			p.group.dead = append(p.group.dead, f)
			return
		}
		if p.group.tried = append(p.group.tried, f); what == split {
			p.group.unbatch = append(p.group.unbatch, f.Batch)
		}
		return
	}
	if what != giveUp {
		p.enqueue(j, f, what == retry)
		return
	}
	p.forget(j)
	for i := range j.events {
		f.Seq, f.Key = j.events[i].Sequence, j.events[i].PartitionKey
		p.done(f.Seq)
		p.group.dead = append(p.group.dead, f)
	}
}

// enqueue has the events of a fresh request join the queue with the next commit,
// all as f says, and returns the head that the request has become. Together they
// stay the batch that was saved; what goes alone keeps its id without that.
func (p *parallel) enqueue(j *job, f state.Failed, together bool) state.Failed {
	first := j.events[0].Sequence
	if together = together && len(j.events) > 1; !together {
		p.forget(j)
	}
	heads := len(p.group.failed)
	for i := range j.events {
		f.Seq, f.Key, f.Batch = j.events[i].Sequence, j.events[i].PartitionKey, 0
		if together && f.Seq == first {
			f.Batch = first
		}
		delete(p.members, f.Seq)
		p.done(f.Seq)
		p.group.failed = append(p.group.failed, f)
	}
	return p.group.failed[heads]
}

// firstAt is the time of an event's first attempt, from which on it can be too old;
// zero where the clock that says so cannot be believed.
func (p *parallel) firstAt(now time.Time) time.Time {
	if !p.trusted() {
		return time.Time{}
	}
	return now
}

// judge decides what becomes of events that failed. A batch is not to blame its
// events with what only one of them causes: it is taken apart when it is refused
// for good, or fails twice without looking like an outage: the endpoint has
// acknowledged others meanwhile, or hardly anything else has failed. Where several
// fail, it is perhaps for one event in each: so one of them is taken apart all the
// same, until something is acknowledged, and so are some that are probes, whose events
// are the next ones.
func (p *parallel) judge(j *job, f *state.Failed, e *sink.Error, now time.Time) verdict {
	batch := len(j.events) > 1
	switch {
	case e.Kind == sink.Gone:
		return retry
	case e.Kind == sink.Permanent && batch:
		return split
	case e.Kind == sink.Permanent && p.refused(f, j.last, now):
		f.Reason = state.ReasonRefused
		return giveUp
	case batch && f.Attempts > 1 && j.probe && (p.probes <= probesApart || p.probes%probesApart == 0):
		p.parts, p.probeAt = true, now
		return split
	case batch && f.Attempts > 1 && (!p.apart || len(p.failing) < downSubjects || laterMilli(p.lastAck, j.last)):
		p.apart, p.vain = true, 0 // what fails from here on is one event each
		return split
	case p.GiveUpAfter > 0 && !f.First.IsZero() && now.Sub(f.First) >= p.GiveUpAfter && p.trusted():
		f.Reason = state.ReasonGaveUp
		return giveUp
	}
	return retry
}
