package poller_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/event"
	"syncd/internal/poller"
	"syncd/internal/sources"
	"syncd/internal/state"
)

// life is what a stream goes through in the crash matrix: each step is prepared
// once, and then done until it works, by the same process or the next.
type life struct {
	name   string
	stream func(f *fake) poller.Stream
	steps  []lifeStep
	want   string // created, +updated, -removed
}

type lifeStep struct {
	name    string
	prepare func(f *fake)
	plant   func(db *state.DB) error // something into the state; may be nil
	do      func(ctx context.Context, p *poller.Poller) error
}

// reached makes all that is due, and wants it to work.
func reached(ctx context.Context, p *poller.Poller) error {
	left, err := p.Once(ctx)
	for _, l := range left {
		err = errors.Join(err, l.Err)
	}
	return err
}

// The steps of a life. Items of a first walk are news where they are younger than
// the account, and the list is in order of time.
var (
	firstWalk = lifeStep{"first walk", func(f *fake) {
		f.add("old-1", "old-2", "old-3", "a", "b", "c", "d", "e")
		f.mutable()
		f.change(`,"state":1`, "a", "b", "c", "d", "e")
		for i := range f.items[3:] {
			f.items[3+i].Created = time.Now().Add(time.Duration(i) * time.Second)
		}
		time.Sleep(time.Minute)
	}, nil, reached}
	news = lifeStep{"news", func(f *fake) {
		f.add("f", "g", "h")
		f.mutable()
		time.Sleep(time.Minute)
	}, nil, reached}
	sweepChange = lifeStep{"a change", func(f *fake) {
		f.change(`,"state":2`, "b", "d")
		time.Sleep(quarter + time.Minute)
	}, nil, reached}
	heldKeys = lifeStep{"keys that came", func(f *fake) {
		f.change(`,"state":1,"new":1`, "a", "c", "e")
		f.change(`,"new":1`, "f", "g")
		time.Sleep(25 * time.Hour)
	}, nil, reached}
	ask = lifeStep{"history asked for", nil, nil, func(_ context.Context, p *poller.Poller) error {
		_, err := p.Backfill("shop-a", "", time.Time{})
		return err
	}}
	history = lifeStep{"history", func(*fake) { time.Sleep(time.Minute) }, nil, reached}
	farther = lifeStep{"history from the middle, and from farther back", func(f *fake) {
		f.items = slices.Insert(f.items, 0, item("old-0"))
		f.items[0].Created = f.items[0].Created.Add(-time.Hour)
		f.items[0].Immutable = false
	}, nil, func(ctx context.Context, p *poller.Poller) error {
		if _, err := p.Backfill("shop-a", "", time.Now().Add(-time.Hour)); err != nil {
			return err
		}
		if _, err := p.Backfill("shop-a", "", time.Time{}); err != nil {
			return err
		}
		return reached(ctx, p)
	}}
	// A run of pages without a change is cut off by an orderly end, and goes on.
	cutOff = lifeStep{"cut off", func(f *fake) {
		time.Sleep(25 * time.Hour)
		f.took = time.Minute
	}, nil, func(ctx context.Context, p *poller.Poller) error {
		ctx, cancel := context.WithTimeout(ctx, 150*time.Second)
		defer cancel()
		_, err := p.Once(ctx)
		return err
	}}
	goesOn  = lifeStep{"goes on", func(f *fake) { f.took = 0 }, nil, reached}
	skipped = lifeStep{"skipped", func(f *fake) {
		f.add("bad", "i")
		f.mutable()
		time.Sleep(time.Minute)
		f.failAt = func(q sources.Query) error {
			var c fakeCursor
			_ = json.Unmarshal(q.Cursor, &c)
			bad := slices.IndexFunc(f.items, func(it sources.Item) bool { return it.ID[0] == "bad" })
			if q.Walk == sources.News && c.At <= bad && bad < c.At+f.size {
				return failing(sources.Rejected, sources.ScopeRequest, 400)
			}
			return nil
		}
	}, nil, func(ctx context.Context, p *poller.Poller) error {
		for range 5 {
			err := reached(ctx, p)
			if e, ok := errors.AsType[*sources.Error](err); !ok || e.Kind != sources.Rejected {
				return err
			}
			if _, err := p.SkipNews("shop-a", "questions"); err != nil {
				return err
			}
		}
		return errors.New("skipping leads nowhere")
	}}
	mended = lifeStep{"mended", func(f *fake) {
		f.failAt = nil
		time.Sleep(25 * time.Hour)
	}, nil, reached}
	gone = lifeStep{"missing", func(f *fake) {
		f.remove("b", "c", "f")
		time.Sleep(time.Hour)
	}, nil, reached}
	stillGone = lifeStep{"gone", func(*fake) { time.Sleep(time.Hour) }, nil, reached}
	back      = lifeStep{"back", func(f *fake) {
		f.items = slices.Insert(f.items, 1, item("c"))
		f.items[1].Immutable = false
		time.Sleep(25 * time.Hour) // keeps the end of the run, too
	}, nil, reached}
)

// The steps of a life with visits.
var (
	threads = lifeStep{"threads", func(f *fake) {
		f.add("a", "b")
		time.Sleep(time.Second)
		f.forum.answer("a", 7)
		f.forum.answer("b", 1)
		time.Sleep(time.Minute)
	}, nil, reached}
	moreAnswers = lifeStep{"more answers", func(f *fake) {
		f.add("c")
		f.forum.answer("c", 5)
		f.forum.answer("a", 3)
		time.Sleep(time.Minute)
	}, nil, reached}
	nothingNew = lifeStep{"nothing new", func(*fake) { time.Sleep(2 * time.Hour) }, nil, reached}
	clockAhead = lifeStep{"a clock that was ahead", func(*fake) { time.Sleep(time.Minute) }, plannedAhead, reached}
	midway     = lifeStep{"a visit that fails in its middle", func(f *fake) {
		f.forum.answer("b", 9)
		f.forum.answer("c", 1)
		time.Sleep(time.Minute)
		f.forum.follow = func(q sources.Query) error {
			if strings.Contains(string(q.Cursor), `"b"`) && strings.Contains(string(q.Cursor), `"From":5,"End":9`) {
				return failing(sources.Temporary, sources.ScopeRequest, 500)
			}
			return nil
		}
	}, nil, func(ctx context.Context, p *poller.Poller) error {
		err := reached(ctx, p)
		if _, ok := errors.AsType[*sources.Error](err); ok && !errors.Is(err, errBroken) {
			return nil
		}
		return cmp.Or(err, errors.New("it does not fail"))
	}}
	afterwards = lifeStep{"afterwards", func(f *fake) {
		f.forum.follow = nil
		time.Sleep(2 * time.Hour)
	}, nil, reached}
)

// plannedAhead is what a clock that was ahead has left behind.
func plannedAhead(db *state.DB) error {
	p := state.Page{Stream: questions, Marketplace: "wildberries", Walk: "follow", Now: time.Now().AddDate(1, 0, 0), Keep: true}
	for _, id := range []string{"a", "b", "c"} {
		v, _, err := db.Visit(questions, id)
		if err != nil {
			return err
		}
		v.Due = p.Now
		p.Visited = append(p.Visited, v)
	}
	_, err := db.CommitPage(p)
	return err
}

func lives() []life {
	dated := func(f *fake) poller.Stream { return swept("questions", f, "@every 15s", quarter, day) }
	return []life{
		{"dated", dated, []lifeStep{firstWalk, news, sweepChange, heldKeys, ask, history, farther, cutOff, goesOn, skipped, mended},
			"a,b,bad,c,d,e,f,g,h,i,old-0,old-1,old-2,old-3 +a,b,c,d,e,f,g"},
		{"staged", func(f *fake) poller.Stream { f.staged = true; return dated(f) },
			[]lifeStep{firstWalk, sweepChange, heldKeys, mended, ask, history}, "a,b,c,d,e,old-1,old-2,old-3 +a,b,c,d,e"},
		{"whole", func(f *fake) poller.Stream {
			s := whole(f, "@every 10m")
			s.Vanish = true
			return s
		}, []lifeStep{firstWalk, news, sweepChange, heldKeys, ask, history, cutOff, goesOn, gone, stillGone, back},
			"a,b,c,c,d,e,f,g,h,old-1,old-2,old-3 +a,b,c,d,e,f,g -b,c,f"},
		{"visits", func(f *fake) poller.Stream {
			f.whole = true
			s := forumStream(newForum(f), "@every 10m")
			s.Whole = true
			return s
		}, []lifeStep{threads, moreAnswers, nothingNew, clockAhead, midway, afterwards},
			"a,a-01,a-02,a-03,a-04,a-05,a-06,a-07,a-08,a-09,a-10,b,b-01,b-02,b-03,b-04,b-05,b-06,b-07,b-08,b-09,b-10,c,c-01,c-02,c-03,c-04,c-05,c-06 +"},
	}
}

// blow is a commit that fails.
type blow struct {
	at     int
	effect bool // it took effect all the same
	crash  bool // and the process dies with it
}

// outcome is what a life has come to.
type outcome struct {
	kinds   []string // of its commits, in order
	emitted []string
	walks   map[string]string // where each walk stands, without times
}

// live goes through a life with blows, and checks the state after each step and
// each blow.
func (l life) live(t *testing.T, blows ...blow) outcome {
	var out outcome
	synctest.Test(t, func(t *testing.T) {
		r, f := quickRig(t), newFake(t)
		f.size, f.shown = 2, make(map[string]bool)
		s := l.stream(f)
		if start := time.Now().Add(-time.Hour); !s.Whole {
			s.Start = &start
		}
		died := false
		ctx, cancel := context.WithCancel(t.Context())
		r.fault = func(n int, commit func() error) error {
			out.kinds = append(out.kinds, commitKind())
			if died {
				return errBroken // a dead process writes nothing
			}
			for _, b := range blows {
				if b.at != n {
					continue
				}
				if died = b.crash; died {
					cancel()
				}
				if b.effect {
					if err := commit(); err != nil {
						return err
					}
				}
				return errBroken
			}
			return commit()
		}
		p := r.new(s)
		for _, step := range l.steps {
			if step.prepare != nil {
				step.prepare(f)
			}
			if step.plant != nil {
				fault, n := r.fault, r.commits
				r.fault = nil
				if err := step.plant(r.db); err != nil {
					t.Fatal(err)
				}
				r.fault, r.commits = fault, n // it is no commit of the engine
			}
			for tries := 0; ; tries++ {
				err := step.do(ctx, p)
				r.checkState(f)
				if died {
					died = false
					ctx, cancel = context.WithCancel(t.Context())
					r.reopen()
					r.checkState(f)
					p = r.new(s)
					continue
				}
				if err == nil {
					break
				}
				if !errors.Is(err, errBroken) || tries > 2*len(blows) {
					t.Fatalf("%s: %v", step.name, err)
				}
			}
		}
		cancel()
		out.emitted = slices.Sorted(slices.Values(r.kinds()))
		known, err := r.db.OpenStream(questions, nil, time.Now())
		if err != nil || known.Backfill != nil || !known.Walked {
			t.Errorf("the stream stands at %+v: %v", known, err)
		}
		out.walks = make(map[string]string)
		for name, w := range known.Walks {
			var c fakeCursor
			if w.Cursor != nil {
				if err := json.Unmarshal(w.Cursor, &c); err != nil {
					t.Error(err)
				}
			}
			out.walks[name] = fmt.Sprint(c.At, c.Began == 0, w.Read)
		}
		for _, it := range f.items {
			if v, ok, err := r.db.Visit(questions, it.ID[0]); ok || err != nil {
				out.walks["visit "+it.ID[0]] = fmt.Sprint(string(v.Seen), err) // when it is due the process alone may have known
			}
		}
	})
	return out
}

// The crash matrix: for every commit that the engine makes and each way in which it
// fails, with a new process after it or without, and with another failure on the
// way back, everything comes out as if nothing had happened: each version of each
// item is emitted once, under the same id, and each walk is where it should be.
func TestCrashMatrix(t *testing.T) {
	poller.SetPiece(t, 3)
	reached := make(map[string]bool)
	for _, l := range lives() {
		t.Run(l.name, func(t *testing.T) {
			good := l.live(t)
			for _, k := range good.kinds {
				reached[k] = true
			}
			by := make(map[string][]string)
			for _, e := range good.emitted {
				by[strings.Fields(e)[0]] = append(by[strings.Fields(e)[0]], strings.Fields(e)[1])
			}
			got := strings.Join(by["created"], ",") + " +" + strings.Join(by["updated"], ",")
			if len(by["removed"]) > 0 {
				got += " -" + strings.Join(by["removed"], ",")
			}
			if got != l.want {
				t.Fatalf("without any failure %q was emitted, want %q", got, l.want)
			}
			for at := range good.kinds {
				name := fmt.Sprintf("%d %s", at, good.kinds[at])
				for _, blows := range [][]blow{
					{{at, false, false}}, {{at, true, false}}, {{at, false, true}}, {{at, true, true}},
					{{at, at%2 == 0, true}, {at + 1, at%4 < 2, true}}, {{at, at%2 == 0, false}, {at + 1, at%4 < 2, at%8 < 4}},
				} {
					got := l.live(t, blows...)
					if !slices.Equal(got.emitted, good.emitted) {
						t.Fatalf("%s: %+v: emitted %q\nwant %q", name, blows, got.emitted, good.emitted)
					}
					if !maps.Equal(got.walks, good.walks) {
						t.Fatalf("%s: %+v: walks at %v, want %v", name, blows, got.walks, good.walks)
					}
				}
			}
		})
	}
	for _, k := range commitKinds(t) {
		if !reached[k] {
			t.Errorf("no life of the matrix makes the commit %q: add a step that does", k)
		}
	}
	for k := range reached {
		if !slices.Contains(commitKinds(t), k) {
			t.Errorf("the commit %q is not in the source", k)
		}
	}
}

// checkState verifies what holds at every moment, whatever has failed: the file is
// consistent; each event is of something that was there; no version of an item
// comes twice or out of order, and none under another's id; no walk is behind
// items that are not in the file.
func (r *rig) checkState(f *fake) {
	r.t.Helper()
	if err := r.db.Check(); err != nil {
		r.t.Error(err)
	}
	ids := make(map[string]bool)
	versions := make(map[string]int) // of an item, so far
	emitted := make(map[string]bool)
	var last uint64
	for e, err := range r.db.Events(0) {
		if err != nil {
			r.t.Fatal(err)
		}
		if e.Sequence <= last {
			r.t.Errorf("sequence %d after %d", e.Sequence, last)
		}
		last = e.Sequence
		if ids[e.ID] {
			r.t.Errorf("event %s twice", e.ID)
		}
		ids[e.ID] = true
		if e.Type == event.SchemaChanged {
			continue
		}
		parts := strings.Split(e.ID, "/")
		if len(parts) == 4 {
			var n int
			if _, err := fmt.Sscanf(parts[3], "%d-", &n); err != nil || n <= versions[parts[2]] {
				r.t.Errorf("event %s after version %d: %v", e.ID, versions[parts[2]], err)
			}
			versions[parts[2]] = n
		}
		var line struct {
			Data struct{ Item json.RawMessage }
		}
		if err := json.Unmarshal(e.JSON, &line); err != nil {
			r.t.Fatal(err)
		}
		if id := parts[2]; !f.shown[id+string(line.Data.Item)] {
			r.t.Errorf("event %s shows what never was: %s", e.ID, line.Data.Item)
		}
		emitted[parts[2]] = true
	}
	if f.staged || last == 0 { // what is staged cannot be seen from here; without an event there may be no stream
		return
	}
	known, err := r.db.OpenStream(questions, nil, time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	var c fakeCursor
	if raw := known.Walks["news"].Cursor; raw != nil {
		if err := json.Unmarshal(raw, &c); err != nil {
			r.t.Fatal(err)
		}
	}
	for _, it := range f.items[:min(c.At, len(f.items))] {
		if id := it.ID[0]; !emitted[id] && !it.Created.Before(known.Start) && id != "bad" && !f.tardy[id] {
			r.t.Errorf("the cursor of news is behind %s, which was not emitted", id)
		}
	}
}
