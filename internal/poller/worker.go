package poller

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/robfig/cron/v3"

	"syncd/internal/event"
	"syncd/internal/fingerprint"
	"syncd/internal/sources"
	"syncd/internal/state"
	"syncd/internal/trouble"
)

const (
	// keepEvery is after how many pages without a change the cursor is saved all
	// the same, so that a crash in a long walk does not begin it again.
	keepEvery = 20
	// keepAfter is after how long it is, where the budget is so small that a page
	// is worth more than a commit.
	keepAfter = 10 * time.Second
	// refusedFor is how long a refused token, scope or tariff is left alone.
	refusedFor = time.Hour
	// progressEvery is how often a long walk says that it is alive.
	progressEvery = 15 * time.Second
	// oddMost bounds how many different undecodable entries are reported: a page may
	// be full of them. All of them are kept and counted.
	oddMost = 10
	// largePage is from how many bytes on a page matters to the memory of the process.
	largePage = 2 << 20
)

// piece is how many staged or held items, or records, one transaction goes
// through: some 10 ms of the state's only writer. Tests lower it.
var piece = 500

// worker reads one stream.
type worker struct {
	Stream
	p        *Poller
	log      *slog.Logger
	schedule cron.Schedule
	phase    time.Duration // see phase
	settles  sources.Walk  // after whose runs held items are settled
	blank    state.Page    // what all pages of the stream have in common

	news       *lane
	background *lane
	follow     *follower // nil: it visits nothing

	// Of Run, guarded by Poller.changing.
	cancel   context.CancelFunc // ends the lanes; nil: they were not begun
	lanesEnd sync.WaitGroup

	resuming sync.Mutex // held while the streams' lanes wait for what a crash left undone
	resumed  bool       // guarded by resuming

	holds atomic.Bool // items may be held back: false only after a settlement that left none

	mu      sync.Mutex      // guards what follows, and what says so in walk; held over no I/O
	known   state.Stream    // without Walks and Backfill
	request *state.Backfill // open; nil: none
	from    time.Time       // Run: no sweep begins before it; zero otherwise
	opened  time.Time       // by this process
	next    time.Time       // News: when it is next due; zero: it runs
	odd     map[uint64]bool // undecodable entries, so that each is reported once and not with every poll; at most oddMost
	behind  behind
	pace    pace
	shown   *shown // of the run of News that a Sweep waits for; nil: there was none
}

// walk is one way in which the stream is read, and where that stands.
type walk struct {
	name  sources.Walk
	every time.Duration // Sweep, Full: see Stream.Sweep
	log   *slog.Logger

	// Of the lane's goroutine.
	trouble  trouble.Run
	rest     int         // pages that the others may read before its next run
	worked   int         // pages that were committed by this process
	noted    string      // Page.Note as it was told last
	partial  bool        // the last run did not show everything
	more     bool        // and the next one goes on there: nothing failed
	lostOdd  bool        // it was told that the state does not keep all odd entries
	parts    trouble.Run // Page.Failed
	lost     bool        // the last run had such a part
	again    error       // one of them failed for a reason that passes; nil: none did
	planTold string      // Page.Plan
	planAt   time.Time
	ahead    *fetch // the page after the last one, fetched before that was committed; nil: there is none

	// Guarded by lane.committing.
	cursor   sources.Cursor // may be ahead of the saved one by pages without a change
	moves    int            // how often somebody else has set the cursor
	unsaved  int            // pages that the cursor is ahead
	pending  int            // items of these pages that count for the settlement
	begun    bool           // the run going on has something saved, perhaps by an earlier process
	left     uint64         // items that an earlier process has read of it
	skipped  bool           // something was left out of it
	unstaged bool           // staged items may wait for CommitStaged
	ends     bool           // and are the last of their run
	piecing  bool           // CommitStaged was begun, and its end is not known of
	saved    bool           // the state has a cursor
	visit    sources.Visit  // Follow: the one that is going on; with a cursor no more than ID and Version; without an ID: none
	kept     time.Time      // News: when the last complete run began, as the state has it; zero: it has none

	// Guarded by worker.mu. The lane's goroutine writes; Skip and Backfill do too,
	// under lane.committing as well, and the end of the first walk sets began.
	run     *run      // that is going on in this process; nil: none
	began   time.Time // of the last complete run. Sweep, Full: durable, News: of this process
	done    time.Time
	pages   int             // of that run
	apart   []time.Duration // between the beginnings of the last complete runs
	retry   time.Time       // not before, after a failure
	failure *failure        // since the last page that worked; nil: none
	off     bool            // the source does not have it
	part    *failure        // a part of the last run that could not be read; nil: there was none
	plan    string          // Page.Plan
}

// run is one reading of a walk, as far as this process did it.
type run struct {
	since    time.Time // of the first page here
	stamp    uint64    // of the same
	whole    bool      // that was the first page of the run
	partial  bool      // it proves nothing about what it did not show
	empty    bool      // nothing of it could be read
	failed   bool      // some page had to be tried again
	pages    int
	items    int
	read     uint64 // items that count for the settlement, with those of earlier processes
	progress float64
	told     time.Duration       // how long it had taken when it was last told that it goes on
	kept     time.Time           // the cursor
	wrote    bool                // it found something
	seen     map[uint64]struct{} // Vanish: hashes of the ids
	shown    []uint64            // Lookup: the same; nil: nobody waits for them
	part     bool                // a part of it could not be read
	again    error               // and the last one of which that passes; nil: none
	wakes    map[string]bool     // streams to wake when the staged items are committed
}

// newWorker returns the worker of one of n streams.
func newWorker(p *Poller, s Stream, n int) (*worker, error) {
	schedule, err := ParseSchedule(s.Schedule)
	if err != nil {
		return nil, fmt.Errorf("stream %s: %w", s.ID, err)
	}
	w := &worker{Stream: s, p: p, schedule: schedule, phase: phase(s.ID, n, schedule), settles: sources.News, odd: make(map[uint64]bool),
		log:  p.log.With("account", s.ID.Account, "stream", s.ID.Stream),
		news: new(lane), background: new(lane)}
	w.holds.Store(true)
	w.blank = state.Page{
		Stream: s.ID, Marketplace: s.Marketplace, Rules: fingerprint.RulesOf(s.Ignore),
		Refingerprint: func(body json.RawMessage) (event.Fingerprint, error) { return fingerprint.Of(body, s.Ignore) },
		Grown:         func(old, new json.RawMessage) ([]string, bool, error) { return fingerprint.Grown(old, new, s.Ignore) },
	}
	w.news.walks = []*walk{{name: sources.News, log: w.log}}
	for _, k := range []walk{
		{name: sources.Sweep, every: s.Sweep.Every},
		{name: sources.Full, every: s.Sweep.Full},
		{name: sources.Backfill},
	} {
		if !slices.Contains(s.Walks, k.name) || k.every <= 0 && k.name != sources.Backfill {
			continue
		}
		if k.name == sources.Full {
			w.settles = sources.Full
		}
		w.background.walks = append(w.background.walks, &walk{name: k.name, every: k.every, log: w.log.With("walk", k.name)})
	}
	if slices.Contains(s.Walks, sources.Follow) {
		w.follow = &follower{delays: make(map[string]*delay), pending: make(map[string]state.Visit)}
		w.follow.walks = []*walk{{name: sources.Follow, log: w.log.With("walk", sources.Follow)}}
	}
	return w, nil
}

// walk returns one of the stream's walks and its lane; nil: it has it not.
func (w *worker) walk(name sources.Walk) (*lane, *walk) {
	for _, l := range w.lanes() {
		for _, k := range l.walks {
			if k.name == name {
				return l, k
			}
		}
	}
	return nil, nil
}

// lanes returns those that the stream has.
func (w *worker) lanes() []*lane {
	if w.follow == nil {
		return []*lane{w.news, w.background}
	}
	return []*lane{w.news, w.background, &w.follow.lane}
}

// walks returns all walks that the stream has.
func (w *worker) walks() (out []*walk) {
	for _, l := range w.lanes() {
		out = append(out, l.walks...)
	}
	return out
}

// open reads where the stream stands. Neither lane runs yet.
func (w *worker) open(firstPoll time.Time) error {
	known, err := w.p.db.OpenStream(w.ID, w.Start, firstPoll)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.opened, w.request = time.Now(), known.Backfill
	w.standLocked(known)
	for _, k := range w.walks() {
		s := known.Walks[string(k.name)]
		k.standAt(s)
		k.unstaged = true
		if k.name == sources.News {
			k.kept = s.Began
		} else {
			k.began, k.done = s.Began, s.Done
		}
	}
	return nil
}

func (w *worker) standLocked(known state.Stream) {
	known.Walks, known.Backfill = nil, nil
	w.known = known
}

// standAt makes the walk go on from where the state has it. The caller holds
// lane.committing, or no lane runs yet.
func (k *walk) standAt(s state.WalkState) {
	k.cursor, k.left = nil, s.Read
	if len(s.Cursor) > 0 {
		k.cursor = s.Cursor
	}
	k.unsaved, k.pending, k.begun, k.saved = 0, 0, s.Read > 0, k.cursor != nil
	k.visit = sources.Visit{}
	if k.cursor != nil {
		k.visit = sources.Visit{ID: s.Visiting.ID, Version: s.Visiting.Version}
	}
}

// scheduleFrom makes Run's sweeps begin at t or a little later: those that came
// due while syncd did not run must not all begin in the same second.
func (w *worker) scheduleFrom(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	over := spread(len(w.p.all()), time.Minute, cmp.Or(w.Sweep.Every, w.Sweep.Full))
	w.from = t.Add(share(w.ID.String(), over))
}

// standing is what is known of the stream now.
func (w *worker) standing() state.Stream {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known
}

// blockedFor is how long the stream's API group has still to be quiet.
func (w *worker) blockedFor() time.Duration {
	return time.Until(w.p.blockedUntil(w.ID.Account, w.Group))
}

// revive makes all lanes go on at once, whatever they were waiting for.
func (w *worker) revive() {
	w.mu.Lock()
	for _, k := range w.walks() {
		k.retry = time.Time{}
	}
	w.mu.Unlock()
	w.background.nudge()
	w.ask()
}

// ask makes the stream be polled at once, whatever it is waiting for: its news, and
// what is due to be visited.
func (w *worker) ask() {
	w.news.asked.Store(true)
	w.news.nudge()
	if w.follow != nil {
		w.follow.asked.Store(true)
		w.follow.nudge()
	}
}

func (w *worker) statePage(walk sources.Walk, stamp uint64, now time.Time) state.Page {
	p := w.blank
	p.Walk, p.Stamp, p.Now = string(walk), stamp, now
	return p
}
