// Package sources holds the nouns of the way in: what a marketplace lists
// (Item), how it is read (Walk, Query, Page), where a reading continues
// (Cursor), and the Source interface that every marketplace implements.
//
// A source fetches one page and returns. It does not loop, wait for a schedule,
// retry, store, deduplicate or log: the engine in package poller does those
// once, for all sources. A source knows neither the state nor other sources.
package sources

import (
	"context"
	"encoding/json"
	"time"
)

// Cursor is where a walk continues. Only the source that made it understands
// it; everybody else stores it and hands it back. Nil: the walk has not begun.
type Cursor []byte

// Walk is one way of reading a stream. Each walk of a stream has a cursor of
// its own, and all are driven by the same page loop, so a stream can be read for
// news, swept for changes and read back in time side by side.
type Walk string

// The walks. A source refuses a walk that a stream does not have with
// ErrNoSuchWalk.
const (
	News     Walk = "news"     // what is new since the last run, and what came late inside the overlap
	Sweep    Walk = "sweep"    // changes that cheap means (counts, recent items) can tell
	Full     Walk = "full"     // a reading of the whole sweep window
	Backfill Walk = "backfill" // history, from Query.Since on
	Follow   Walk = "follow"   // what has to be visited one by one, since no list shows it: Query.Visit
)

// Visit is a thing of which a list shows that it exists, and perhaps that it has
// moved, and which has a list of its own that a stream reads: a chat and its
// messages, a question and its answers. Walks that read lists find it (Page.Found),
// the walk Follow visits it (Query.Visit, Page.Visited). In between it is in the
// state.
type Visit struct {
	// Stream is the one that makes the visit. Empty: the page's own.
	Stream string
	// ID names the thing, in the stream that visits it.
	ID string
	// Created is the thing's own time; zero where it has none. How often it is worth
	// a visit is a matter of its age.
	Created time.Time
	// Due: not before; zero: it is only remembered. Of two that are due the urgent one
	// goes first, then the one that is due longer.
	Due    time.Time
	Urgent bool
	// Found is what the list showed of it, Seen up to where it has been read. Both are
	// small, and understood by the source alone. Seen is nil until it was visited.
	Found, Seen json.RawMessage

	// History says that it was found by the first reading of its stream, or is older
	// than what counts as new there, and was not visited since: what the visit shows
	// is old too, where it has no time of its own. The engine sets it.
	History bool
	// Version counts how often it was found. The engine sets it.
	Version uint64
	// Forget, of Page.Visited: there is nothing to visit any more.
	Forget bool
}

// VisitCount is how many visits of a stream are planned to things of an age: above
// that of the entry before, and up to Age.
type VisitCount struct {
	Age time.Duration
	N   int
}

// Known is an item that is on record: its id as contract §6 spells it, and its last
// version; nil where the body is gone.
type Known struct {
	ID   string
	Body json.RawMessage
}

// Query asks for the next page of a walk.
type Query struct {
	Stream  string
	Walk    Walk
	Cursor  Cursor        // as the last page of this walk returned it
	Since   time.Time     // News, Backfill: the walk need not show items older than this; zero: as far back as the API goes
	Overlap time.Duration // News: how far back from the newest item a run begins. Sweep: what is younger is read by News anyway
	Window  time.Duration // Sweep, Full: how far back from now changes are looked for. News: the same
	Now     time.Time     // the engine's clock; a source trusts it only as far as the API's own Date agrees

	// LastRun, of News, is when the last complete run began that the engine knows of;
	// zero: of none. It is never later than the truth. It may be earlier by the life
	// of a process that was killed, where that saw no change; for streams that are not
	// Whole by all that went before this process.
	LastRun time.Time

	// Visit, of Follow with a nil Cursor, is what to visit. A run of Follow is one visit;
	// of one that takes several pages the source keeps what it needs in the cursor.
	Visit *Visit
	// Every and Full, of Follow, are how often a thing is visited that is young, and
	// one as old as Window: the stream's sweeps.
	Every, Full time.Duration
	// Remembered, if set, returns the visit of a stream that has an id, as it is saved.
	Remembered func(stream, id string) (v Visit, ok bool, err error)
	// Planned, if set, counts the visits of the stream that are due some day, by age.
	// It may be some minutes old.
	Planned func() ([]VisitCount, error)
	// Missing, of Sweep and of a stream with Lookup, returns up to n items on record
	// that the last complete run of News did not show, in the order of their times and
	// behind the one that was returned as next before (empty: from the first on); next
	// is empty behind the last. Nil: no run can tell.
	Missing func(after string, n int) (items []Known, next string, err error)

	// Sending, if set, is called just before the request leaves, when it has been paid
	// for: requests do not leave in the order in which they began to wait, and which
	// of two readings is the later one is decided by when they left.
	Sending func()

	// Large, if set, is called at most once, while the answer is read, when that turns
	// out to be larger than LargeAnswer. It waits for its turn, since the pages of many
	// streams at once would take memory without a bound, and fails when ctx ends.
	Large func(ctx context.Context) error
}

// LargeAnswer is from how many bytes on an answer has to wait for its turn in
// memory.
const LargeAnswer = 1 << 20

// Page is what one request gave.
type Page struct {
	Items  []Item
	Cursor Cursor // saved in the same transaction as Items, or with the walk's last page
	Done   bool   // the run has seen everything that there was; the next run begins from Cursor

	// Began is when the run that the page ends or continues began, by Query.Now of
	// its first page; zero: the run will show what is there at its end. A run that
	// an earlier process began does not show what appeared since.
	Began time.Time

	// Partial, on the last page of a run, says that the run did not show everything
	// that exists, so what it did not show may still be there.
	Partial bool

	// Date is the marketplace's clock when it answered; zero if it did not say.
	Date time.Time

	// Staged says that the order of the items is known only when the walk is
	// done: they are kept aside durably, and committed in order of their time
	// after the last page.
	Staged bool
	// Ordered, of a Staged page, says that the order of what was kept aside is known
	// with it, though the run goes on. On the last page of a run it goes without
	// saying.
	Ordered bool

	// Found are visits to make, or to remember, saved with the page. What was saved of
	// the same thing before keeps its Seen.
	Found []Visit
	// Visited, with the last page of a run of Follow, is the visit that it was: with
	// Seen, and with Due and Urgent of the next one, which hold unless it was found
	// again meanwhile.
	Visited *Visit

	// Failed is why a part of the run could not be read, where the run goes on without
	// it and the next one tries it again: a store that is disabled. The run is Partial.
	// On the last page of a run it says that nothing of it could be read.
	Failed *Error

	// Plan says in words, for people, how often the stream can be read by its budget:
	// "50 requests a scan of 5000 an hour: every 60s". Empty: nothing to say.
	Plan string

	// History says that the items belong to the first reading of the stream, which
	// goes on after runs that were complete in all else: what is older than the first
	// poll is no news. On the last page of a run that is Partial it says as well that
	// nothing failed, and that the next run goes on there.
	History bool

	// Undecodable are the entries that are no usable items, most for want of an id.
	// They are kept and reported in their raw form.
	Undecodable []Undecodable

	// Progress is the part of the run that has been read, above 0 and up to 1, as
	// far as the source can tell; 0: it cannot.
	Progress float64

	// Reached is up to when everything has been read, where a run goes from the
	// oldest item to the newest and has not reached the present, be it done or not:
	// a stream that stays behind gets more than its budget can read. Zero: it does
	// not go so, or is not behind.
	Reached time.Time

	// Note is a fact about the API's behaviour that the operator should know of;
	// empty almost always. It is logged when it changes.
	Note string
}

// Undecodable is an entry of a page that is no usable item.
type Undecodable struct {
	Raw    json.RawMessage
	Reason string
}

// Item is one thing that the marketplace lists, as one reading showed it.
type Item struct {
	// Kind is the middle of the event type: "question" gives
	// wildberries.question.created. A stream may have several kinds.
	Kind string
	// ID is unique in the stream: the parts of contract §6 as the marketplace
	// spells them, not yet percent-encoded.
	ID []string
	// Subject is what the item is about, in parts: {"chat", chatID}.
	Subject []string
	// Created is the item's own time by the marketplace's clock; zero where it
	// has none or an implausible one.
	Created time.Time
	// Changed is the item's own change time; zero where it has none.
	Changed time.Time
	// Rank orders items of the same Created, where both have to be put in order: see
	// Page.Staged.
	Rank uint64
	// Old says that the item is no news for a reason that only the source knows, such
	// as a store that was discovered after it: where nobody has seen it before it is
	// recorded silently.
	Old bool
	// Immutable items never change: they have one version, and no `updated`.
	Immutable bool
	// Wakes is another stream that is worth a poll when this item is new: the
	// list of chats for the first message of a chat. Empty: none.
	Wakes string
	// Body is the item as the marketplace sent it, without the white space
	// between tokens.
	Body json.RawMessage
}

// Source reads one account of one marketplace.
//
// Fetch sends at most one request (each attempt pays from the account's budget,
// so a source never tries again by itself) and returns its page. It waits for
// the budget as long as ctx lives; once the request is on its way it is allowed
// to finish for a short grace period after ctx ends, so that what was paid for
// can be committed. Fetch may be called concurrently for different walks. Its
// errors are *Error, or ctx's. The items of a page are in the order in which
// they happened.
//
// Seller is the marketplace's identity of the seller behind the account, known
// without a request.
type Source interface {
	Fetch(ctx context.Context, q Query) (Page, error)
	Seller() string
}

// Skipper is what a source can do about a page that fails for ever: an entry
// that the marketplace itself cannot send.
//
// Skip returns the cursor that steps over the least that can be stepped over of
// what q would ask for next, and says in words what that leaves out. It sends
// nothing. Its error says why there is nothing to step over.
type Skipper interface {
	Skip(q Query) (next Cursor, leftOut string, err error)
}

// Prober is a source that can try its token.
//
// Probe sends one cheap request, which is paid from the budget with that name, and
// tells what the marketplace said. Its errors are those of Fetch.
type Prober interface {
	Probe(ctx context.Context, budget string) (Report, error)
}

// Report is what a marketplace says about a token, in words for people. Both may be
// empty.
type Report struct {
	Scopes []string // that the token has
	Lines  []string // whatever else there is to know
}

// Stream describes one stream of a marketplace: contract §5.
type Stream struct {
	Name     string
	Group    string        // the API group whose token and budget it uses
	Kinds    []string      // of its items
	Actions  []string      // that its events can have
	Schedule string        // default
	Overlap  time.Duration // default; zero: the stream has none
	Walks    []Walk        // that it has
	Whole    bool          // each run of News reads all that the API shows, so it sees changes too
	Lookup   bool          // Whole, and an item that a run does not show is asked for by its id: Query.Missing
	Driver   string        // the stream whose News finds what this one visits; empty: its own
	Vanish   bool          // Whole, and an item that two runs in a row do not show is an event: `removed`
	Off      bool          // off unless the configuration says otherwise
}
