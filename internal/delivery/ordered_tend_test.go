package delivery_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"

	"syncd/internal/event"
	"syncd/internal/sink"
)

// clerk is a paper that is tended and lazy, and strict about both. It fails the
// test when it is tended while something is not committed, gets more than it has
// room for, gets something before its checkpoint is committed, or gets something although it has not been tended since a commit, and
// when a position is committed that was not synced.
type clerk struct {
	*paper
	room  int64         // what Tend says; of bytes
	every time.Duration // of SyncEvery; 0: not lazy
	next  time.Duration // what Tend says, from now; 0: nothing
	busy  int           // that many times Tend says so
	moved bool          // the next Deliver that can answers ErrTendFirst
	err   error         // of the next Tend

	failSync error // of every Sync

	last, synced uint64 // sequences
	left         int64  // room since the last Tend
	tends        int
	syncs        []time.Time
}

// tended is how often it was.
func (c *clerk) tended() int {
	c.medium.mu.Lock()
	defer c.medium.mu.Unlock()
	return c.tends
}

// syncedAt is when it was synced.
func (c *clerk) syncedAt() []time.Time {
	c.medium.mu.Lock()
	defer c.medium.mu.Unlock()
	return c.syncs
}

// Checkpoint changes with each Tend.
func (c *clerk) Checkpoint() []byte { return fmt.Appendf(nil, "[%d,%d]", c.lines, c.tends) }

func (c *clerk) Resume(ctx context.Context, checkpoint []byte, next iter.Seq2[[]byte, error]) (sink.Report, error) {
	if checkpoint != nil {
		lines, _, _ := bytes.Cut(checkpoint[1:], []byte(","))
		checkpoint = lines
	}
	c.last = min(c.last, c.r.position("archive")) // what is beyond it is cut
	return c.paper.Resume(ctx, checkpoint, next)
}

func (c *clerk) SyncEvery() time.Duration { return c.every }

func (c *clerk) Sync(context.Context) error {
	c.medium.mu.Lock()
	defer c.medium.mu.Unlock()
	if c.failSync != nil {
		c.syncs = append(c.syncs, time.Now())
		return c.failSync
	}
	c.synced = c.last
	c.syncs = append(c.syncs, time.Now())
	return nil
}

func (c *clerk) Tend(context.Context) (sink.Tended, error) {
	if at := c.r.position("archive"); c.last > 0 && at < c.last && !c.r.isKilled() {
		c.r.t.Errorf("tended at position %d, delivered up to %d", at, c.last)
	}
	c.medium.mu.Lock()
	c.tends++
	c.medium.mu.Unlock()
	if err := c.err; err != nil {
		c.err = nil
		return sink.Tended{Notes: []string{"half of it is done"}}, err
	}
	c.left = c.room
	t := sink.Tended{Room: c.room}
	if c.next > 0 {
		t.Next = time.Now().Add(c.next)
	}
	if c.busy > 0 {
		c.busy--
		t.Busy = true
	}
	return t, nil
}

func (c *clerk) Deliver(ctx context.Context, events []event.Logged) error {
	known, err := c.r.db.OpenSink("archive", "webhook", true, time.Now())
	if err != nil {
		return err
	}
	at := known.Position
	if at >= c.last && string(known.Checkpoint) != string(c.Checkpoint()) {
		c.r.t.Errorf("the checkpoint is %s, and %s is committed", c.Checkpoint(), known.Checkpoint)
	}
	if c.every > 0 && at >= c.last && c.last > c.synced {
		c.r.t.Errorf("the position is %d, delivered up to %d, synced up to %d", at, c.last, c.synced)
	}
	if c.moved && c.last > at {
		c.moved = false
		return fmt.Errorf("append: %w", sink.ErrTendFirst)
	}
	if c.tends == 0 {
		c.r.t.Error("Deliver before Tend")
	}
	for i, e := range events {
		size := int64(len(e.JSON)) + 1
		if c.room > 0 && size > c.left && (i > 0 || c.left < c.room) {
			c.r.t.Errorf("event %d is %d bytes, and there is room for %d", e.Sequence, size, c.left)
		}
		c.left -= size
	}
	if err := c.paper.Deliver(ctx, events); err != nil {
		return err
	}
	c.last = events[len(events)-1].Sequence
	return nil
}

var (
	_ sink.Tender = (*clerk)(nil)
	_ sink.Lazy   = (*clerk)(nil)
)

// A sink is tended before deliveries, gets what it has room for, and is tended at
// the time it asked for, and on a reload.
func TestOrderedTends(t *testing.T) {
	for _, every := range []time.Duration{0, time.Second} {
		for _, room := range []int64{0, 1, 700, 1 << 20} {
			synctest.Test(t, func(t *testing.T) {
				r, m := newRig(t), &medium{}
				for range 20 {
					r.log("a", "xx", "b", "c")
				}
				c := &clerk{paper: &paper{r: r, medium: m}, room: room, every: every, next: time.Hour}
				d, stop := r.startAs(wanting(to("archive", c)))
				time.Sleep(time.Minute)
				settle()
				r.wantLines(m, func(seq uint64) bool { return !strings.HasPrefix(r.key(seq), "shop-a/x") })
				if r.backlog("archive") != 0 {
					t.Errorf("room for %d: %d are left", room, r.backlog("archive"))
				}
				n := c.tended()
				time.Sleep(2 * time.Hour)
				settle()
				if c.tended() != n+2 {
					t.Errorf("an idle sink was tended %d times in 2 hours", c.tended()-n)
				}
				d.Reopen()
				settle()
				if c.tended() != n+3 {
					t.Error("a reload does not tend the sink")
				}
				stop()
			})
		}
	}
}

// A Tend that fails stalls the sink, says what it did, and is tried again.
func TestOrderedTendFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := newRig(t), &medium{}
		r.log("a", "b")
		c := &clerk{paper: &paper{r: r, medium: m}, err: errBroken}
		stop := r.start(to("archive", c))
		time.Sleep(time.Minute)
		settle()
		stop()
		r.wantLines(m, nil)
		for _, want := range []string{"half of it is done", "sink stalled", errBroken.Error()} {
			if !strings.Contains(r.out.String(), want) {
				t.Errorf("%q was not said:\n%s", want, r.out.String())
			}
		}
	})
}

// What a lazy sink has taken is synced and committed after SyncEvery, many
// deliveries with one Sync; before a reload is answered; and at the end.
func TestOrderedSyncsLazily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := newRig(t), &medium{}
		c := &clerk{paper: &paper{r: r, medium: m}, every: time.Second}
		d, stop := r.startAs(to("archive", c))
		settle()
		begun := time.Now()
		for range 9 {
			r.log("a", "b")
			time.Sleep(100 * time.Millisecond)
			settle()
			if r.position("archive") != 0 {
				t.Fatal("a position was committed before its time")
			}
		}
		r.wantLines(m, nil)
		time.Sleep(time.Second)
		settle()
		if r.position("archive") != 18 || len(c.syncedAt()) != 1 || !c.syncedAt()[0].Equal(begun.Add(time.Second)) {
			t.Errorf("position %d, synced at %v, begun at %v", r.position("archive"), c.syncedAt(), begun)
		}
		r.log("a")
		settle()
		d.Reopen()
		settle()
		if r.position("archive") != 19 || len(c.syncedAt()) != 2 {
			t.Error("a reload does not sync what is not")
		}
		r.log("a")
		settle()
		stop()
		if r.position("archive") != 20 || len(c.syncedAt()) != 3 {
			t.Error("the end does not sync what is not")
		}
		acks := r.counted("acknowledged")
		if acks != 20 {
			t.Errorf("%v of 20 events are counted as acknowledged", acks)
		}
	})
}

// What a lazy sink has taken and not synced is bounded, however long it may wait.
func TestOrderedLazyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := newRig(t), &medium{}
		for range 10 {
			r.log(slices.Repeat([]string{"a"}, 2000)...)
		}
		c := &clerk{paper: &paper{r: r, medium: m}, every: time.Hour}
		stop := r.start(to("archive", c))
		settle()
		if n := r.backlog("archive"); len(c.syncedAt()) != 1 || n > 10_000 {
			t.Errorf("after 20,000 events %d are not synced, with %d syncs", n, len(c.syncedAt()))
		}
		stop()
	})
}

// counted is how many events are counted with an outcome.
func (r *rig) counted(outcome string) (n float64) {
	r.t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == "syncd_sink_events_total" && l.GetValue() == outcome {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

// A lazy sink whose file was taken away gets no more before what it has is
// committed. That is no failure.
func TestOrderedTendFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := newRig(t), &medium{}
		c := &clerk{paper: &paper{r: r, medium: m}, every: time.Hour, moved: true}
		stop := r.start(to("archive", c))
		settle()
		for range 2 {
			r.log("a")
			settle()
		}
		if n := c.tended(); r.position("archive") != 1 || !(n > 1) || c.moved {
			t.Errorf("position %d, tended %d times", r.position("archive"), n)
		}
		r.wantLines(m, nil)
		stop()
		if out := r.out.String(); strings.Contains(out, "stalled") {
			t.Error(out)
		}
	})
}

// once waits for the work that a sink does in the background, and syncs.
func TestOrderedDrainWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := newRig(t), &medium{}
		r.log("a", "b")
		c := &clerk{paper: &paper{r: r, medium: m}, every: time.Hour, next: time.Second, busy: 5}
		if left, err := r.new(to("archive", c)).Drain(t.Context()); err != nil || len(left) != 0 {
			t.Fatal(left, err)
		}
		if c.busy != 0 || c.synced != 2 {
			t.Errorf("it was busy for another %d times, synced up to %d", c.busy, c.synced)
		}
	})
}

// A disk that takes lines and cannot sync them is tried less and less often.
func TestOrderedSyncFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := newRig(t), &medium{}
		c := &clerk{paper: &paper{r: r, medium: m}, every: time.Second, failSync: errors.New("input/output error")}
		stop := r.start(to("archive", c))
		r.log("a")
		time.Sleep(time.Hour)
		if n := len(c.syncedAt()); n > 150 {
			t.Errorf("%d tries in an hour", n)
		}
		stop()
		if n := strings.Count(r.out.String(), "sink stalled"); n != 1 {
			t.Errorf("it was said %d times", n)
		}
	})
}

// What a sink still does in the background is no failure of a drain that runs out of
// time: its next start does it.
func TestOrderedDrainLeavesBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := newRig(t), &medium{}
		r.log("a")
		c := &clerk{paper: &paper{r: r, medium: m}, busy: 1 << 30, next: time.Second}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if left, err := r.new(to("archive", c)).Drain(ctx); err != nil || len(left) > 0 {
			t.Errorf("%v, %v", left, err)
		}
	})
}

// A real file with rotation, compression and the sync modes by turns, and each
// commit in turn fails, or the process dies before or after it: each event is in one
// file, once.
func TestOrderedFileCrash(t *testing.T) {
	for i, kind := range []string{"failed", "failed but took effect", "killed before", "killed after"} {
		t.Run(kind, func(t *testing.T) {
			for at := range 24 {
				mode := []sink.SyncMode{sink.SyncCommit, sink.SyncInterval, sink.SyncNone}[(at+i)%3]
				synctest.Test(t, func(t *testing.T) {
					r, dir := newRig(t), t.TempDir()
					r.position("archive")
					r.mu.Lock()
					r.commits, r.fault = 0, r.faultAt(kind, at)
					r.mu.Unlock()
					begin := func() func() {
						archive := to("archive", nil)
						archive.Open = func() (sink.Sink, error) {
							return sink.NewFile(sink.FileConfig{Path: filepath.Join(dir, "events.ndjson"), Sync: mode,
								Rotate: sink.Rotate{Size: 1000, Every: time.Hour, Compress: at%2 == 0}})
						}
						return r.start(archive)
					}
					stop := begin()
					revive := func() {
						if r.isKilled() {
							stop()
							r.restart()
							stop = begin()
						}
					}
					for range 6 {
						for !r.tryLog("c", "d") {
							revive()
						}
						time.Sleep(2 * time.Second)
						settle()
						revive()
					}
					time.Sleep(2 * time.Hour) // the last file becomes too old
					revive()
					time.Sleep(2 * time.Hour)
					settle()
					stop()
					if r.backlog("archive") != 0 {
						t.Errorf("commit %d: %d are left", at, r.backlog("archive"))
					}
					wantFiles(t, r, dir)
				})
			}
		})
	}
}

// wantFiles fails unless the files hold the events of the log, each once, in the
// order of the files' names.
func wantFiles(t *testing.T, r *rig, dir string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "events-*"))
	if err != nil {
		t.Fatal(err)
	}
	var got, want strings.Builder
	for _, name := range append(names, filepath.Join(dir, "events.ndjson")) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".zst") {
			z, err := zstd.NewReader(nil)
			if err != nil {
				t.Fatal(err)
			}
			b, err = z.DecodeAll(b, nil)
			z.Close()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		got.Write(b)
	}
	for e, err := range r.db.Events(0) {
		if err != nil {
			t.Fatal(err)
		}
		want.Write(e.JSON)
		want.WriteByte('\n')
	}
	if len(names) < 3 || got.String() != want.String() {
		t.Errorf("the files %q hold\n%s\nwant\n%s\nit said:\n%s", names, got.String(), want.String(), r.out.String())
	}
}
