package delivery

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"log/slog"
	"math"
	"time"

	"syncd/internal/event"
	"syncd/internal/grace"
	"syncd/internal/sink"
	"syncd/internal/state"
	"syncd/internal/trouble"
)

const (
	// A piece of the log that is handed over at once: with most sinks one fsync and
	// one commit.
	pieceEvents = 1024
	pieceBytes  = 4 << 20
	// pace is how far apart pieces are that are not full: while events come page by
	// page, a few pages share the fsyncs of a piece, which polling waits for too.
	pace = 10 * time.Millisecond
	// lazyEvents bounds what a sink.Lazy has taken and not synced.
	lazyEvents = 1 << 14
)

// ordered serves a sink that is written in the order of the log. It has no retry
// queue: a failure stalls it, and nothing is lost.
type ordered struct {
	base
	resumer    sink.Resumer // nil: the sink has nothing to bring back in line
	tender     sink.Tender  // nil: it has nothing to do between deliveries
	lazy       sink.Lazy    // nil: what it has taken is safe
	checkpoint []byte       // as committed
	resumed    bool         // the medium ends where read says
	trouble    trouble.Run

	read     uint64      // delivered up to here; at the position, but for a lazy sink
	recorded []time.Time // of the events beyond the position that were delivered
	skipped  int         // events beyond the position that the sink does not want
	syncBy   time.Time   // when what is beyond the position must be settled; zero: there is nothing
	room     int64       // bytes that the sink takes before it is tended again
	full     bool        // the last piece was: there is more
	most     int         // events of the next piece: fewer after a failure, for what room there is on a disk
	tended   sink.Tended
}

func newOrdered(b base) *ordered {
	o := &ordered{base: b, room: math.MaxInt64, most: pieceEvents}
	o.resumer, _ = b.sink.(sink.Resumer)
	o.tender, _ = b.sink.(sink.Tender)
	if l, ok := b.sink.(sink.Lazy); ok && l.SyncEvery() > 0 {
		o.lazy = l
	}
	return o
}

func (o *ordered) run(ctx context.Context) {
	wake, stop := o.db.Watch()
	defer stop()
	defer o.land(ctx)
	for ctx.Err() == nil {
		begun := time.Now()
		more, err := o.step(ctx)
		switch {
		case err != nil:
			wait := o.failed(err)
			if o.resumer != nil {
				// At once: half a line of a full disk should not stay for as long as it is full. Where
				// this fails it is repeated, and told.
				_ = o.resume(ctx)
			}
			if !sleep(ctx, wait) {
				return
			}
		case !more:
			o.wait(ctx, wake)
		case !o.full && o.lazy == nil:
			sleep(ctx, time.Until(begun.Add(pace)))
		}
	}
}

// wait waits for something to do.
func (o *ordered) wait(ctx context.Context, wake <-chan struct{}) {
	var due <-chan time.Time
	if at := o.nextLook(); !at.IsZero() {
		t := time.NewTimer(time.Until(at))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
	case <-wake:
	case <-o.control.ring:
	case <-due:
	}
}

// nextLook is when step has something to do, also if no event comes; zero: never.
func (o *ordered) nextLook() time.Time {
	at := o.tended.Next
	if at.IsZero() || !o.syncBy.IsZero() && o.syncBy.Before(at) {
		at = o.syncBy
	}
	return at
}

// land settles what is not, at the end of a run. When it fails, the next process
// brings the medium back to the position.
func (o *ordered) land(ctx context.Context) {
	late, cancel := grace.Context(ctx, o.grace)
	defer cancel()
	if err := o.settle(late); err != nil {
		o.failed(err)
	}
}

func (o *ordered) drain(ctx context.Context) error {
	idle := false // all is delivered, and the sink alone has something to do
	for {
		if idle && ctx.Err() != nil {
			return nil // it goes on after its next start
		}
		more, err := o.step(ctx)
		if err == nil && !more {
			err = o.settle(ctx)
		}
		switch {
		case err != nil:
			if ctx.Err() == nil {
				o.failed(err)
			}
			return err
		case more:
		case !o.tended.Busy:
			return nil
		default:
			idle = true
			sleep(ctx, time.Until(o.tended.Next))
		}
	}
}

func (o *ordered) failed(err error) time.Duration {
	e := sink.AsError(err)
	o.resumed = false
	o.most = max(o.most/4, 1)
	o.metrics.failed.Inc()
	o.report.failed(e.Error(), time.Now())
	n := o.trouble.Add(o.log, slog.LevelError, e.Error(), "sink stalled, trying again", "err", e)
	return trouble.Backoff(n, time.Second, time.Minute)
}

// step does what is due and hands over the next piece of the log; false: there was
// none. After an error the sink has to be resumed.
//
// A crash after Deliver and before its Settle leaves events with the receiver that
// the position does not count: Resume finds their lines and cuts them, so that
// they are written once. Where a sink cannot do that, they are repeated.
func (o *ordered) step(ctx context.Context) (more bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, context.Cause(ctx)
	}
	if err := o.resume(ctx); err != nil {
		return false, err
	}
	late, cancel := grace.Context(ctx, o.grace)
	defer cancel()
	if err := o.tend(late); err != nil {
		return false, err
	}
	more, err = o.deliver(late)
	if err == nil && o.lazy == nil {
		err = o.settle(late)
	}
	if err == nil && o.syncBy.IsZero() { // what a lazy sink has not synced proves nothing
		o.trouble.Worked(o.log, "sink works again")
	}
	return more, err
}

// tend settles what is due to be settled, and tends the sink when all is.
func (o *ordered) tend(ctx context.Context) error {
	now := time.Now()
	reopen := o.control.reopen.Swap(false)
	if reopen || len(o.recorded) >= lazyEvents || reached(o.syncBy, now) || reached(o.tended.Next, now) {
		if err := o.settle(ctx); err != nil {
			return err
		}
	}
	if o.tender == nil || !o.syncBy.IsZero() {
		return nil
	}
	var err error
	o.tended, err = o.tender.Tend(ctx)
	for _, note := range o.tended.Notes { // also of one that failed half-way
		o.log.Warn("sink not quite in order", "note", note)
	}
	if err != nil {
		return err
	}
	o.room = o.tended.Room
	if o.room == 0 {
		o.room = math.MaxInt64
	}
	return o.saveCheckpoint()
}

// reached reports whether a time that is set has come.
func reached(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

// deliver hands over what is next in the log, as much as a piece holds and the
// sink has room for.
func (o *ordered) deliver(ctx context.Context) (more bool, err error) {
	events, err := o.db.ReadEvents(o.read, o.most, pieceBytes)
	if err != nil || len(events) == 0 {
		return false, err
	}
	size := 0
	for i := range events {
		size += len(events[i].JSON)
	}
	o.full = len(events) == o.most || size >= pieceBytes
	wanted, last, skipped, room := events[:0], o.read, 0, o.room
	for i := range events {
		if e := events[i]; !o.wants(&e) {
			skipped++
		} else if size := int64(len(e.JSON)) + 1; size <= room || len(wanted) == 0 && o.syncBy.IsZero() {
			wanted, room = append(wanted, e), room-size
		} else {
			break
		}
		last = events[i].Sequence
	}
	if last == o.read { // no room: it has to be tended first
		return true, o.settle(ctx)
	}
	if len(wanted) > 0 {
		switch err := o.sink.Deliver(ctx, wanted); {
		case errors.Is(err, sink.ErrTendFirst) && !o.syncBy.IsZero():
			return true, o.settle(ctx)
		case err != nil:
			return false, err
		}
	}
	if o.syncBy.IsZero() {
		o.syncBy = time.Now()
		if o.lazy != nil {
			o.syncBy = o.syncBy.Add(o.lazy.SyncEvery())
		}
	}
	for i := range wanted {
		o.recorded = append(o.recorded, wanted[i].Recorded)
	}
	o.read, o.room, o.skipped = last, room, o.skipped+skipped
	o.most = min(2*o.most, pieceEvents)
	return true, nil
}

// settle makes what was delivered safe, and moves the position there.
func (o *ordered) settle(ctx context.Context) error {
	if !o.resumed || o.syncBy.IsZero() {
		return nil
	}
	if o.lazy != nil {
		if err := o.lazy.Sync(ctx); err != nil {
			return err
		}
	}
	if err := o.advance(o.read); err != nil {
		return err
	}
	var e event.Logged
	now := time.Now()
	for _, e.Recorded = range o.recorded {
		o.acknowledgedAt(&e, now)
	}
	o.metrics.skipped.Add(float64(o.skipped))
	o.settled()
	return nil
}

// settled notes that nothing is beyond the position.
func (o *ordered) settled() {
	o.read, o.recorded, o.skipped, o.syncBy = o.position, o.recorded[:0], 0, time.Time{}
}

func (o *ordered) advance(position uint64) error {
	checkpoint := o.checkpoint
	if o.resumer != nil {
		checkpoint = o.resumer.Checkpoint()
	}
	if err := o.db.Settle(o.Name, time.Now(), state.Settlement{Position: position, Checkpoint: checkpoint}); err != nil {
		return err
	}
	o.position, o.checkpoint = position, checkpoint
	return nil
}

// saveCheckpoint saves what the sink wants to remember, where that has changed,
// before the next line is written.
func (o *ordered) saveCheckpoint() error {
	if bytes.Equal(o.resumer.Checkpoint(), o.checkpoint) {
		return nil
	}
	return o.advance(o.position)
}

// resume brings the medium back to where the position says, at the start and
// after each failure.
//
// The position is read anew: a commit that reported a failure may have taken
// effect, and to cut what it counts would lose it.
func (o *ordered) resume(ctx context.Context) error {
	if o.resumed {
		return nil
	}
	known, err := o.db.OpenSink(o.Name, o.Type, o.FromBeginning, time.Now())
	if err != nil {
		return err
	}
	o.position, o.checkpoint = known.Position, known.Checkpoint
	o.settled()
	if o.resumer != nil {
		report, err := o.resumer.Resume(ctx, o.checkpoint, o.lines())
		// Also of one that failed half-way. Where a full disk takes the beginning of
		// the same lines with each try, cutting them again is no news.
		odd := report.OrphanPath != "" || report.Note != ""
		if odd || report.CutBytes != 0 && o.trouble.Row() == 0 {
			level := slog.LevelInfo
			if odd {
				level = slog.LevelWarn
			}
			o.log.Log(ctx, level, "sink brought back in line with its position", "cut_bytes", report.CutBytes, "moved_to", report.OrphanPath, "note", report.Note)
		}
		if err != nil {
			return err
		}
		if err := o.saveCheckpoint(); err != nil {
			return err
		}
	}
	o.resumed = true
	return nil
}

// lines yields what the log would hand over next.
func (o *ordered) lines() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for e, err := range o.db.Events(o.position) {
			if err != nil {
				yield(nil, err)
				return
			}
			if o.wants(&e) && !yield(e.JSON, nil) {
				return
			}
		}
	}
}
