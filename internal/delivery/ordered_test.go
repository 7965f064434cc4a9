package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/delivery"
	"syncd/internal/event"
	"syncd/internal/sink"
)

// wantLines fails unless the medium holds the wanted events of the log, each once
// and in order.
func (r *rig) wantLines(m *medium, wanted func(seq uint64) bool) {
	r.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	var want []string
	for e, err := range r.db.Events(0) {
		if err != nil {
			r.t.Fatal(err)
		}
		if wanted == nil || wanted(e.Sequence) {
			want = append(want, string(e.JSON))
		}
	}
	if got, want := strings.Join(m.lines, "\n"), strings.Join(want, "\n"); got != want {
		r.t.Errorf("the medium holds\n%s\nwant\n%s", got, want)
	}
}

func TestOrderedWritesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := newRig(t), &medium{}
		r.log("a", "b", "a")
		stop := r.start(to("archive", &paper{r: r, medium: m}))
		settle()
		r.wantLines(m, nil)
		for i := range 3 { // woken by commits
			time.Sleep(time.Second)
			r.log("b", fmt.Sprint("c", i))
			settle()
			r.wantLines(m, nil)
		}
		stop()
		if r.backlog("archive") != 0 || r.position("archive") != 9 {
			t.Error(r.backlog("archive"), r.position("archive"))
		}
	})
}

// While events come one by one, those of some milliseconds share a piece, and with
// it the fsyncs; a backlog does not wait.
func TestOrderedPaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := newRig(t), &medium{}
		stop := r.start(to("archive", &paper{r: r, medium: m}))
		for range 100 {
			r.log("a")
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		stop()
		if m.calls > 15 {
			t.Errorf("100 events in 100 ms made %d pieces", m.calls)
		}
		for range 5000 {
			r.log("a")
		}
		stop = r.start(to("archive", &paper{r: r, medium: m}))
		begun := time.Now()
		for r.backlog("archive") > 0 {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(begun); took > 15*time.Millisecond {
			t.Errorf("a backlog of 5,000 took %v", took)
		}
		stop()
		r.wantLines(m, nil)
	})
}

// A failure stalls the sink; it goes on by itself, from the line where it was,
// and says so once.
func TestOrderedStallsAndResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := newRig(t), &medium{}
		full := true
		p := &paper{r: r, medium: m, fail: func(_ int, written *[]string, lines []string) error {
			if full {
				*written = append(*written, lines[0])
				return errors.New("disk full")
			}
			return nil
		}}
		r.log("a", "b", "c")
		stop := r.start(to("archive", p))
		time.Sleep(10 * time.Minute)
		settle()
		if r.backlog("archive") != 3 {
			t.Error(r.backlog("archive"))
		}
		if m.calls < 8 || m.calls > 25 {
			t.Errorf("%d tries in 10 minutes: want backoff up to a minute", m.calls)
		}
		m.mu.Lock()
		full = false
		m.mu.Unlock()
		time.Sleep(2 * time.Minute)
		stop()
		r.wantLines(m, nil)
		if n := strings.Count(r.out.String(), "sink stalled"); n != 1 {
			t.Errorf("stalled was said %d times", n)
		}
		if !strings.Contains(r.out.String(), "sink works again") {
			t.Error("the end was not said")
		}
	})
}

// A disk that has room for a few lines gets them, and while there is no more room, no
// piece of a line stays on it.
func TestOrderedUsesWhatRoomThereIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := newRig(t), &medium{}
		room := 100
		p := &paper{r: r, medium: m, fail: func(_ int, written *[]string, lines []string) error {
			if n := len(*written); n+len(lines) > room {
				*written = append(*written, lines[:room-n]...)
				return errors.New("no space left on device")
			}
			return nil
		}}
		for range 1000 {
			r.log("a")
		}
		stop := r.start(to("archive", p))
		for want := 100; want <= 300; want += 100 {
			time.Sleep(5 * time.Minute)
			settle()
			if got := 1000 - r.backlog("archive"); got < want-1 {
				t.Errorf("%d events are committed, and there is room for %d", got, want)
			}
			m.mu.Lock()
			if got := 1000 - r.backlog("archive"); len(m.lines) != got {
				t.Errorf("%d lines are on the disk, %d are committed", len(m.lines), got)
			}
			room += 100
			m.mu.Unlock()
		}
		stop()
	})
}

func TestOrderedSelects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := newRig(t), &medium{}
		fail := true
		p := &paper{r: r, medium: m, fail: func(_ int, written *[]string, lines []string) error {
			if fail {
				fail = false
				*written = append(*written, lines...) // all of it is there, and not acknowledged
				return errors.New("fsync failed")
			}
			return nil
		}}
		for range 300 {
			r.log("a", "x", "b", "x", "x")
		}
		stop := r.start(with(to("archive", p), func(s *delivery.Sink) {
			s.Wants = func(account, typ string) bool {
				return account == "shop-a" && typ == "wildberries.question.created"
			}
		}))
		time.Sleep(time.Minute)
		stop()
		r.wantLines(m, func(seq uint64) bool { return !strings.HasPrefix(r.key(seq), "shop-a/x") })
		if r.backlog("archive") != 0 {
			t.Error(r.backlog("archive"))
		}
	})
}

// G4 for files: for every commit, and each way in which it can fail or the
// process can die around it, each event is on the medium once and in order.
func TestOrderedCrashMatrix(t *testing.T) {
	for _, kind := range []string{"failed", "failed but took effect", "killed before", "killed after"} {
		for at := range 6 {
			t.Run(fmt.Sprintf("%s at commit %d", kind, at), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r, m := newRig(t), &medium{}
					r.check = true
					r.log("a", "b", "x")
					r.position("archive") // the sink is known
					r.mu.Lock()
					r.commits = 0
					r.fault = r.faultAt(kind, at)
					r.mu.Unlock()
					halves := func(call int, written *[]string, lines []string) error {
						if call == 1 {
							*written = append(*written, lines[:len(lines)/2]...)
							return errors.New("disk full")
						}
						return nil
					}
					begin := func() func() {
						return r.start(to("archive", &paper{r: r, medium: m, fail: halves}))
					}
					stop := begin()
					for i := range 4 {
						time.Sleep(time.Minute)
						if r.isKilled() {
							stop()
							r.restart()
							stop = begin()
						}
						for !r.tryLog("c", fmt.Sprint("d", i)) {
							if r.isKilled() {
								stop()
								r.restart()
								stop = begin()
							}
						}
					}
					time.Sleep(time.Minute)
					if r.isKilled() {
						stop()
						r.restart()
						stop = begin()
						time.Sleep(time.Minute)
					}
					stop()
					r.wantLines(m, nil)
					if r.backlog("archive") != 0 {
						t.Errorf("%d are left", r.backlog("archive"))
					}
				})
			})
		}
	}
}

// A commit that reported a failure and took effect counts the lines: to cut them
// and die before they are written again would lose them.
func TestOrderedCommitTookEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := newRig(t), &medium{}
		r.log("a", "b")
		r.position("archive")
		r.mu.Lock()
		r.commits, r.fault = 0, r.faultAt("failed but took effect", 1) // 0 saves the first checkpoint
		r.mu.Unlock()
		stop := r.start(to("archive", &paper{r: r, medium: m, fail: func(call int, _ *[]string, _ []string) error {
			if call == 1 {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.killLocked()
				return errKilled
			}
			return nil
		}}))
		time.Sleep(time.Minute)
		if !r.isKilled() {
			r.log("c")
			time.Sleep(time.Minute)
		}
		stop()
		r.restart()
		stop = r.start(to("archive", &paper{r: r, medium: m}))
		time.Sleep(time.Minute)
		stop()
		r.wantLines(m, nil)
	})
}

// faultAt breaks one commit.
func (r *rig) faultAt(kind string, at int) func(n int, commit func() error) error {
	return func(n int, commit func() error) error {
		if n != at {
			return commit()
		}
		switch kind {
		case "failed":
			return errBroken
		case "killed before":
			r.killLocked()
			return errKilled
		}
		if err := commit(); err != nil {
			return err
		}
		if kind == "killed after" {
			r.killLocked()
			return errKilled
		}
		return errBroken
	}
}

// tryLog is log where the commit may be the one that breaks: a page is read again
// until it is there. False: it has to be tried again.
func (r *rig) tryLog(subjects ...string) bool {
	r.t.Helper()
	p := pageOf(r.db, len(r.logged), r.large, subjects...)
	r.mu.Lock()
	for _, s := range subjects { // before a sink can see them
		r.logged = append(r.logged, "shop-a/"+s)
	}
	r.mu.Unlock()
	_, _ = r.db.CommitPage(p) // what it says may be wrong: that is the point
	last, err := r.db.LastSequence()
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if int(last) < len(r.logged) {
		r.logged = r.logged[:last]
		return false
	}
	return true
}

// orphans is a sink whose Resume moves something away and then fails.
type orphans struct{ tries int }

func (o *orphans) Deliver(context.Context, []event.Logged) error { return nil }
func (o *orphans) Close() error                                  { return nil }
func (o *orphans) Checkpoint() []byte                            { return nil }
func (o *orphans) Resume(context.Context, []byte, iter.Seq2[[]byte, error]) (sink.Report, error) {
	if o.tries++; o.tries == 1 {
		return sink.Report{OrphanPath: "events.ndjson.orphan-1"}, errors.New("fsync failed")
	}
	return sink.Report{}, nil
}

// What Resume did before it failed is reported too: somebody's lines were moved.
func TestOrderedReportsHalfAResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.log("a")
		stop := r.start(to("archive", &orphans{}))
		time.Sleep(time.Minute)
		stop()
		if !strings.Contains(r.out.String(), "moved_to=events.ndjson.orphan-1") {
			t.Errorf("not reported:\n%s", r.out.String())
		}
	})
}

func TestOrderedDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := newRig(t), &medium{}
		for range 700 {
			r.log("a", "b")
		}
		left, err := r.new(to("archive", &paper{r: r, medium: m})).Drain(t.Context())
		if err != nil || len(left) != 0 {
			t.Fatal(left, err)
		}
		r.wantLines(m, nil)
		r.log("a", "b")
		broken := &paper{r: r, medium: m, fail: func(int, *[]string, []string) error { return errBroken }}
		left, err = r.new(to("archive", broken)).Drain(t.Context())
		if err != nil || len(left) != 1 || left[0].Sink != "archive" || left[0].Events != 2 || !errors.Is(left[0].Err, errBroken) {
			t.Fatalf("%+v %v", left, err)
		}
	})
}
