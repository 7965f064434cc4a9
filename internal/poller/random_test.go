package poller_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/poller"
	"syncd/internal/sources"
)

var randomLives = flag.Int("lives", 20, "how many random lives of a stream TestRandom goes through")

// random is a stream in a world where things happen by chance: items come, come
// late, change and go; requests fail in all ways; commits fail, with effect and
// without; processes die at any commit; operators ask.
type random struct {
	*rand.Rand
	t    *testing.T
	r    *rig
	f    *fake
	s    poller.Stream
	p    *poller.Poller
	stop func()

	vanish bool
	n      int            // items so far
	runs   map[string]int // how many whole runs of one process have shown an item
	last   time.Time      // of the process's last run that was counted

	// Guarded by rig.mu.
	dice  *rand.Rand // another: lanes take turns as they like
	trust bool       // commits work
	dead  bool       // and the process only has not noticed yet
	died  chan struct{}
}

// TestRandom: whatever happens, every item that stayed visible for two runs is
// emitted, and so is what has become of it; no version comes twice, and nothing
// that never was.
//
// A seed does not fix in which order two lanes commit, so a failure may need some
// tries to come again.
func TestRandom(t *testing.T) {
	poller.SetPiece(t, 3)
	seeds := []uint64{42, 84, 158, 232} // that once found something
	for i := range *randomLives {
		seeds = append(seeds, uint64(i)+1)
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { live(t, seed) })
		})
	}
}

func live(t *testing.T, seed uint64) {
	w := &random{Rand: rand.New(rand.NewPCG(seed, 1)), dice: rand.New(rand.NewPCG(seed, 2)), t: t, r: quickRig(t), f: newFake(t),
		runs: make(map[string]int), died: make(chan struct{}, 1)}
	f := w.f
	f.shown, f.tardy = make(map[string]bool), make(map[string]bool)
	f.size, f.late, f.lap = 1+w.IntN(5), w.IntN(3), 2
	f.took = time.Duration(w.IntN(3)) * time.Second
	w.s = swept("questions", f, "@every 10m", time.Hour, day)
	skips := true
	switch seed % 4 {
	case 1:
		f.staged = true
	case 2:
		w.s = whole(f, "@every 10m")
		w.vanish = w.IntN(2) == 0
		w.s.Vanish = w.vanish
	case 3: // nothing reads again what was skipped
		w.s.Walks, w.s.Sweep, skips = []sources.Walk{sources.News, sources.Backfill}, poller.Sweep{}, false
	}
	if w.IntN(2) == 0 {
		w.s.Start = nil
	}
	mutable := seed%4 != 3
	requests := rand.New(rand.NewPCG(seed, 3))
	f.failAt = func(sources.Query) error {
		kinds := []sources.Kind{sources.Temporary, sources.Unreadable, sources.RateLimited, sources.Unauthorized, sources.Forbidden, sources.Rejected}
		if requests.IntN(8) > 0 {
			return nil
		}
		scope := []sources.Scope{sources.ScopeRequest, sources.ScopeStream, sources.ScopeGroup}[requests.IntN(3)]
		return failing(kinds[requests.IntN(len(kinds))], scope, 500)
	}
	w.r.fault = w.fault
	w.add(1+w.IntN(6), mutable)
	for range 40 {
		w.begin()
		switch w.IntN(10) {
		case 0, 1:
			w.add(1+w.IntN(4), mutable)
		case 2, 3:
			if mutable {
				w.change()
			}
		case 4:
			w.remove()
		case 5:
			_, err := w.p.PollNow("shop-a", "")
			w.expect(err)
		case 6:
			_, err := w.p.Backfill("shop-a", "", time.Now().Add(-time.Duration(w.Int64N(int64(2*day)))))
			w.expect(err)
		case 7:
			if skips {
				_, err := w.p.Skip("shop-a", "questions")
				w.expect(err)
			}
		case 8:
			w.end()
			time.Sleep(time.Duration(w.Int64N(int64(3 * day))))
		}
		w.wait(time.Duration(w.Int64N(int64(time.Hour))))
	}
	// All is well again.
	w.begin()
	f.set(func() { f.failAt = nil })
	w.r.mu.Lock()
	w.trust = true
	w.r.mu.Unlock()
	w.wait(2 * time.Hour) // what was refused is tried again hourly
	w.begin()
	w.wait(3 * day)
	w.end()
	w.verify()
}

// fault is every commit's.
func (w *random) fault(_ int, commit func() error) error {
	if w.dead {
		return errBroken
	}
	if w.trust || w.dice.IntN(12) > 0 {
		return commit()
	}
	var err error
	if w.dice.IntN(2) == 0 {
		err = commit()
	}
	if w.dead = w.dice.IntN(2) == 0; w.dead {
		w.died <- struct{}{}
	}
	return errors.Join(errBroken, err)
}

// begin starts a process, if none runs.
func (w *random) begin() {
	for w.p == nil {
		p := w.r.new(w.s)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		if w.IntN(6) == 0 { // by cron
			_, err := p.Once(ctx)
			w.expect(err)
			cancel()
			w.bury()
			continue
		}
		go func() { done <- p.Run(ctx) }()
		synctest.Wait()
		w.p, w.last = p, time.Time{}
		w.stop = func() {
			cancel()
			w.expect(<-done)
		}
		select {
		case err := <-done: // it could not open its streams
			w.expect(err)
			done <- nil
			w.end()
		default:
		}
	}
}

// end ends the process, if one runs.
func (w *random) end() {
	if w.p != nil {
		w.stop()
		w.p = nil
	}
	w.bury()
}

// bury makes room for the next process.
func (w *random) bury() {
	w.r.reopen()
	select {
	case <-w.died:
	default:
	}
	w.dead = false
	w.r.checkState(w.f)
}

// wait lets the process work, or die.
func (w *random) wait(d time.Duration) {
	for end := time.Now().Add(d); w.p != nil; {
		select {
		case <-w.died:
			w.died <- struct{}{}
			w.end()
			return
		case <-time.After(min(time.Until(end), time.Minute)):
		}
		w.count()
		if !time.Now().Before(end) {
			return
		}
	}
}

// count notes what whole runs have shown.
func (w *random) count() {
	news := w.p.Status()[0].Walks[0]
	if news.Began.IsZero() || news.Began.Equal(w.last) {
		return
	}
	w.last = news.Began
	w.f.mu.Lock()
	defer w.f.mu.Unlock()
	for _, it := range w.f.items {
		if id := it.ID[0]; it.Changed.Before(news.Began) { // when it appeared, here
			w.runs[id]++
		}
	}
}

// expect wants an error to be none, the broken state's, or a refusal.
func (w *random) expect(err error) {
	_, refused := errors.AsType[*poller.RefusedError](err)
	if err != nil && !refused && !errors.Is(err, errBroken) && !errors.Is(err, context.Canceled) {
		w.t.Errorf("%v", err)
	}
}

// add makes items appear, at their time or late, which is among the newest.
func (w *random) add(n int, mutable bool) {
	w.f.set(func() {
		for range n {
			it := item(fmt.Sprintf("i%03d", w.n))
			w.n++
			it.Immutable, it.Changed = !mutable, time.Now()
			at := len(w.f.items)
			if mutable && at > 0 && w.IntN(4) == 0 {
				at--
				w.f.tardy[it.ID[0]] = true
			}
			if !w.f.whole && w.IntN(8) == 0 {
				it.Created = time.Time{}
			}
			w.f.items = slices.Insert(w.f.items, at, it)
		}
	})
}

// change gives an item another value, or keys that come and go.
func (w *random) change() {
	w.f.set(func() {
		if len(w.f.items) == 0 {
			return
		}
		it := &w.f.items[w.IntN(len(w.f.items))]
		members := fmt.Sprintf(`,"state":%d`, w.IntN(3))
		if w.IntN(2) == 0 {
			members += fmt.Sprintf(`,"key%d":1`, w.IntN(2))
		}
		it.Body = json.RawMessage(fmt.Sprintf(`{"id":%q%s}`, it.ID[0], members))
	})
}

// remove takes an item away that two runs have shown, and must have been emitted.
func (w *random) remove() {
	if !w.f.whole || w.s.Start == nil {
		return
	}
	w.f.mu.Lock()
	at := slices.IndexFunc(w.f.items, func(it sources.Item) bool { return w.runs[it.ID[0]] >= 2 })
	if at < 0 || w.f.busy[sources.News] {
		w.f.mu.Unlock()
		return
	}
	id := w.f.items[at].ID[0]
	w.f.items = slices.Delete(slices.Clone(w.f.items), at, at+1)
	w.f.mu.Unlock()
	if !slices.ContainsFunc(w.r.emitted(), func(e string) bool { return strings.HasPrefix(e, id+"/") }) {
		w.t.Errorf("two runs have shown %s, and it was not emitted", id)
	}
}

// verify looks at the end whether all that is there was emitted, as it is.
func (w *random) verify() {
	last := make(map[string]string) // version that was emitted last
	removed := make(map[string]bool)
	for e, err := range w.r.db.Events(0) {
		if err != nil {
			w.t.Fatal(err)
		}
		var line struct {
			Data struct{ Item json.RawMessage }
		}
		if err := json.Unmarshal(e.JSON, &line); err != nil {
			w.t.Fatal(err)
		}
		id := strings.Split(e.ID, "/")[2]
		last[id], removed[id] = string(line.Data.Item), strings.HasSuffix(e.Type, ".removed")
	}
	there := make(map[string]bool)
	old := time.Date(2000, 1, 1, 0, 0, 10, 0, time.UTC) // what was there at the start
	for _, it := range w.f.items {
		id := it.ID[0]
		there[id] = true
		if _, ok := last[id]; !ok && w.s.Start == nil && (it.Created.Before(old)) {
			continue
		}
		if last[id] != string(it.Body) || removed[id] {
			w.t.Errorf("%s is %s, and the last that was emitted is %s, removed: %t", id, it.Body, last[id], removed[id])
		}
	}
	for id := range maps.Keys(last) {
		if w.vanish && !there[id] && !removed[id] {
			w.t.Errorf("%s is gone, which was not emitted", id)
		}
		if !w.vanish && removed[id] {
			w.t.Errorf("%s was removed in a stream where nothing is", id)
		}
	}
	if w.t.Failed() {
		w.t.Logf("%s", w.r.out.String())
	}
}
