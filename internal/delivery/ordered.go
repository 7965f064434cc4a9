package delivery

import (
	"bytes"
	"context"
	"iter"
	"log/slog"
	"time"

	"syncd/internal/grace"
	"syncd/internal/sink"
	"syncd/internal/state"
	"syncd/internal/trouble"
)

// A piece of the log that is handed over at once: one fsync and one commit.
const (
	pieceEvents = 512
	pieceBytes  = 4 << 20
)

// ordered serves a sink that is written in the order of the log. It has no retry
// queue: a failure stalls it, and nothing is lost.
type ordered struct {
	base
	resumer    sink.Resumer // nil: the sink has nothing to bring back in line
	checkpoint []byte       // as committed
	resumed    bool         // the medium ends where the position says
	trouble    trouble.Run
}

func newOrdered(b base) *ordered {
	o := &ordered{base: b}
	o.resumer, _ = b.Sink.Sink.(sink.Resumer)
	return o
}

func (o *ordered) run(ctx context.Context) {
	wake, stop := o.db.Watch()
	defer stop()
	for ctx.Err() == nil {
		n, err := o.step(ctx)
		switch {
		case err != nil:
			if !sleep(ctx, o.failed(err)) {
				return
			}
		case n == 0:
			select {
			case <-ctx.Done():
			case <-wake:
			}
		}
	}
}

func (o *ordered) drain(ctx context.Context) error {
	for {
		n, err := o.step(ctx)
		if err != nil {
			if ctx.Err() == nil {
				o.failed(err)
			}
			return err
		}
		if n == 0 {
			return nil
		}
	}
}

func (o *ordered) failed(err error) time.Duration {
	e := sink.AsError(err)
	o.metrics.events.WithLabelValues(o.Name, "failed").Inc()
	n := o.trouble.Add(o.log, slog.LevelError, e.Error(), "sink stalled, trying again", "err", e)
	return trouble.Backoff(n, time.Second, time.Minute)
}

// step hands over the next piece of the log and returns how many events it moved
// on; 0: there is nothing.
//
// A crash after Deliver and before its Settle leaves events with the receiver that
// the position does not count: Resume finds their lines and cuts them, so that
// they are written once. Where a sink cannot do that, they are repeated.
func (o *ordered) step(ctx context.Context) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, context.Cause(ctx)
	}
	if err := o.resume(ctx); err != nil {
		return 0, err
	}
	events, err := o.db.ReadEvents(o.position, pieceEvents, pieceBytes)
	if err != nil || len(events) == 0 {
		return 0, err
	}
	last, n := events[len(events)-1].Sequence, len(events)
	wanted := events[:0]
	for _, e := range events {
		if o.wants(&e) {
			wanted = append(wanted, e)
		}
	}
	if len(wanted) > 0 {
		late, cancel := grace.Context(ctx, o.grace)
		defer cancel()
		if err := o.Sink.Sink.Deliver(late, wanted); err != nil {
			o.resumed = false
			return 0, err
		}
	}
	if err := o.advance(last); err != nil {
		o.resumed = false
		return 0, err
	}
	o.metrics.events.WithLabelValues(o.Name, "skipped").Add(float64(n - len(wanted)))
	for i := range wanted {
		o.acknowledged(&wanted[i])
	}
	o.trouble.Worked(o.log, "sink works again")
	return n, nil
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

// resume brings the medium back to where the position says, at the start and
// after each failure, and saves what the sink wants to remember of it before the
// first line is written.
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
		if !bytes.Equal(o.resumer.Checkpoint(), o.checkpoint) {
			if err := o.advance(o.position); err != nil {
				return err
			}
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
