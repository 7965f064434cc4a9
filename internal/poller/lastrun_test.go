package poller_test

import (
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sources"
)

// A source learns when the last complete run began: never later than it did, also
// after a kill, and exactly where the process before came to an orderly end. Gaps
// that are long are told.
func TestLastRun(t *testing.T) {
	const gap = 16 * day
	type world struct {
		r     *rig
		f     *fake
		start func() (stop func())
		kill  func(stop func())
	}
	refuse := func(w world, end func(stop func())) {
		w.f.set(func() { w.f.fail = func(int) error { return failing(sources.Unauthorized, sources.ScopeGroup, 401) } })
		end(w.start())
		w.f.set(func() { w.f.fail = nil })
	}
	wait := func(d time.Duration) func(world) { return func(world) { time.Sleep(d) } }
	for _, test := range []struct {
		name   string
		staged bool
		good   func(w world)
		bad    func(w world)
		off    time.Duration // by how much it may be told of too early a run
		told   int           // lines about a gap
	}{
		{"a restart", false, wait(0), wait(time.Hour), 0, 0},
		{"stopped", false, wait(0), wait(gap), 0, 1},
		{"stopped, staged", true, wait(0), wait(gap), 0, 1},
		{"token refused", false, wait(0), func(w world) {
			refuse(w, func(stop func()) { time.Sleep(gap); stop() })
		}, 0, 1},
		{"token refused, killed", false, wait(0), func(w world) {
			refuse(w, func(stop func()) { time.Sleep(gap); w.kill(stop) })
		}, 0, 1},
		{"switched off", false, wait(0), func(w world) {
			other := newFake(w.r.t, "x")
			stop := w.r.start(stream("chats", other, "@every 1h"))
			for _, id := range manyIDs(int(gap / day)) {
				time.Sleep(day)
				other.add(id)
			}
			stop()
		}, 0, 1},
		{"killed while it changed", false, func(w world) {
			stop := w.start()
			for _, id := range manyIDs(30) {
				time.Sleep(7 * time.Hour)
				w.f.add(id)
			}
			time.Sleep(time.Hour)
			w.kill(stop)
		}, wait(gap), day + 7*time.Hour, 1},
		{"killed each day, idle", false, func(w world) {
			for range 30 {
				stop := w.start()
				time.Sleep(day)
				w.kill(stop)
			}
		}, wait(gap), 2 * day, 1},
		{"killed after long idleness", false, func(w world) {
			stop := w.start()
			time.Sleep(20 * day)
			w.kill(stop)
		}, wait(time.Minute), 20 * day, 1},
		{"killed after long idleness, staged", true, func(w world) {
			stop := w.start()
			time.Sleep(20 * day)
			w.kill(stop)
		}, wait(time.Minute), 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, f := newRig(t), newFake(t, "a", "b", "c", "d", "e").mutable()
				r.large, f.staged = true, test.staged
				s := whole(f, "@every 1h")
				var truth, first, last time.Time // the last complete run; what the next process was told, and this one
				f.page = func(q sources.Query, p *sources.Page) {
					if last = q.LastRun; last.After(truth) {
						t.Errorf("told of a run at %s, and the last one was at %s", last, truth)
					}
					if first.IsZero() {
						first = last
					}
					if p.Done {
						truth = p.Began
					}
				}
				w := world{r: r, f: f, start: func() func() { return r.start(s) }, kill: func(stop func()) {
					r.mu.Lock()
					r.fault = func(int, func() error) error { return errBroken }
					r.mu.Unlock()
					stop()
					r.fault = nil
					r.reopen()
				}}
				stop := w.start()
				time.Sleep(3*day + 5*time.Minute)
				synctest.Wait()
				if !last.Equal(truth.Add(-time.Hour)) {
					t.Errorf("the process was told of a run at %s, and the one before the last was an hour before %s", last, truth)
				}
				stop()
				r.reopen()
				test.good(w)
				before := truth
				test.bad(w)
				r.reopen()
				f.set(func() { first = time.Time{} })
				stop = w.start()
				time.Sleep(time.Minute)
				stop()
				if first.IsZero() || before.Sub(first) > test.off || first.After(before) {
					t.Errorf("told of a run at %s, and the last one was at %s", first, before)
				}
				r.wantLogged("no complete reading is known of", test.told)
			})
		})
	}
}
