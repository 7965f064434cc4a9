package poller

import (
	"time"

	"syncd/internal/sources"
)

// A source whose API shows no more than the last weeks has to know when it was
// read last, or it could not say that something may be lost (G2: reported, not
// skipped). But a run that finds nothing writes nothing, so the state cannot know
// of each. What it has is never later than the truth. It is written
//
//   - with the first walk, and wherever a staged run ends: for nothing;
//   - after a run that found something, and the first of a process: once a day;
//   - at an orderly end of the process, so that a restart, a stream that is switched
//     off, and a token that was refused for weeks and is replaced leave it exact.
//
// What remains is a process that is killed after days in which the stream had
// nothing new: its gap seems longer than it was. When the file was written last
// would say that some process lived, but not that it read this stream: the token
// may have been refused, or the stream switched off. A loss that goes unsaid is
// worse than a warning too many.

const (
	// away is from when on a gap between two processes is told at the start.
	away = 48 * time.Hour
	// partingFor bounds what an orderly end spends on the ends of runs: a commit for
	// each stream, and there may be thousands. What is left out only seems longer ago.
	partingFor = 2 * time.Second
)

// keepEnd makes durable when the last complete News run of a Whole stream began,
// where the state has that of one so much older. The caller holds
// lane.committing.
func (w *worker) keepEnd(k *walk, older time.Duration) error {
	w.mu.Lock()
	began := k.began
	w.mu.Unlock()
	if !w.Whole || began.Sub(k.kept) < older {
		return nil
	}
	p := w.statePage(k.name, 0, time.Now())
	p.Cursor, p.Began, p.Done = k.cursor, began, true
	if _, err := w.p.db.CommitPage(p); err != nil {
		return err
	}
	k.kept, k.unsaved, k.pending = began, 0, 0
	return nil
}

// part keeps the ends of runs at an orderly end. It is worth no error.
func (p *Poller) part(workers []*worker) {
	for begin := time.Now(); len(workers) > 0 && time.Since(begin) < partingFor; workers = workers[1:] {
		w := workers[0]
		w.news.committing.Lock()
		_ = w.keepEnd(w.news.walks[0], time.Hour)
		w.news.committing.Unlock()
	}
}

// tellAway tells the operator of a stream that was not read for long.
func (w *worker) tellAway(now time.Time) {
	_, k := w.walk(sources.News)
	if gone := now.Sub(k.kept); w.Whole && !k.kept.IsZero() && gone > away {
		w.log.Warn("no complete reading is known of for long: what came and went meanwhile was not seen",
			"since", k.kept.UTC().Format(time.RFC3339), "for", gone.Round(time.Minute))
	}
}
