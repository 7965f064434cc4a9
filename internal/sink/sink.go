// Package sink is where events go: a webhook, a file, standard output.
//
// A sink sends what it is handed and reports one error. It knows neither the
// state nor the marketplaces; it does not loop, retry, wait between attempts,
// remember positions or log: delivery does those once, for all sinks.
package sink

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"syncd/internal/event"
)

// Sink takes events in the order of the log.
//
// Deliver returns nil only when every event handed to it is safe with the
// receiver: acknowledged, or synced to disk. After an error any part of them
// may have arrived; delivery hands the same events over again, so a receiver
// can see an event twice and knows it by its id. Calls are serial unless the
// sink is Parallel. Deliver returns promptly when ctx ends. It must neither
// keep nor change the events after it returns.
//
// Close releases what the sink holds. No call is running or follows.
type Sink interface {
	Deliver(ctx context.Context, events []event.Logged) error
	Close() error
}

// Parallel is a sink that takes up to Parallel() calls at once. Each takes one
// event, or, where the sink was made for batches, several in their order.
// Delivery never has a partition key in two calls at once, keeps a durable
// retry queue for the sink, and goes past an event that fails.
//
// Redeliver is Deliver for events that stand outside the order of their
// subjects, and tells the receiver why it gets them.
type Parallel interface {
	Sink
	Parallel() int
	Redeliver(ctx context.Context, why Aside, events []event.Logged) error
}

// Aside says why an event stands outside the order of its subject.
type Aside int

// The reasons. The zero value is none: an event in its order.
const (
	Replayed          Aside = iota + 1 // the operator asked for kept events again
	RetriedDeadLetter                  // the operator retries what had been given up
)

// Resumer is a sink whose medium outlives the process, and which must know
// after a crash how much of it the state already counts.
//
// Resume is called before the first Deliver and again after each failed one, a
// commit that failed after it included. checkpoint is what Checkpoint returned
// when the position was last committed (nil: this sink was never used before),
// next yields the lines, without newline, that the log would hand over next; it
// may be ranged over more than once. When Resume returns nil, the medium ends
// exactly where the committed position says, and Deliver may go on once the new
// checkpoint is committed. The Report holds what was done also beside an error.
// Checkpoint is called after each Resume and each successful Deliver and is
// committed together with the position, so the two cannot part. It is a JSON
// value.
type Resumer interface {
	Sink
	Resume(ctx context.Context, checkpoint []byte, next iter.Seq2[[]byte, error]) (Report, error)
	Checkpoint() []byte
}

// Tender is a Resumer that has something to do between deliveries: rotate,
// reopen, compress, delete.
//
// Tend is called when all that was delivered is committed, and never beside
// another call: before each Deliver, at the time that the last Tend asked for,
// and after a reload. The Checkpoint is committed after it where it changed.
// After an error it is called again later, and nothing is delivered before it
// has succeeded.
type Tender interface {
	Resumer
	Tend(ctx context.Context) (Tended, error)
}

// Tended is what a Tender has to say after Tend.
type Tended struct {
	Room  int64     // most bytes of the next Deliver, newlines included, at least one event; 0: any number
	Next  time.Time // call Tend again then; zero: no need
	Notes []string  // for the operator, each worth a log line
	Busy  bool      // it works in the background: who would end now that all is delivered calls Tend at Next first
}

// Lazy is a Resumer whose Deliver may return before the lines are on the disk.
// Delivery commits a position only after a Sync that was begun after the
// Deliver. Sync is never called beside another call.
type Lazy interface {
	Resumer
	Sync(ctx context.Context) error
	// SyncEvery is how long a position may wait for its Sync. 0: Deliver's
	// return is enough, and nobody needs to call Sync.
	SyncEvery() time.Duration
}

// Report is what Resume did to bring the medium back in line, for the operator.
type Report struct {
	CutBytes   int64  // bytes of uncommitted lines cut off, to be written again
	OrphanPath string // where bytes that were not ours have been moved; empty: nothing was moved
	Note       string // anything else worth a log line; may be empty
}

// Kind says what delivery should make of a failure.
type Kind int

// The kinds of failure. Everything that is not one of the others is Temporary.
const (
	Temporary Kind = iota // try again later
	Permanent             // the receiver refuses this event: a 4xx other than 408, 409, 410, 425, 429
	Gone                  // 410: the receiver wants no more events
)

// Error is a failed delivery. It never holds a secret or a URL's query.
type Error struct {
	Kind       Kind
	Status     int           // HTTP status; 0 when there was no answer
	RetryAfter time.Duration // how long the receiver asks the whole endpoint to be left alone; 0: it does not
	Excerpt    string        // a printable piece of the answer
	Err        error
}

func (e *Error) Error() string {
	switch {
	case e.Err != nil:
		return e.Err.Error()
	case e.Excerpt != "":
		return fmt.Sprintf("answer %d: %s", e.Status, e.Excerpt)
	default:
		return fmt.Sprintf("answer %d", e.Status)
	}
}

func (e *Error) Unwrap() error { return e.Err }

// AsError returns err as an *Error, as a temporary one if it is none.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Err: err}
}
