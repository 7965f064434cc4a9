package poller_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/poller"
	"syncd/internal/sources"
)

// A run of News whose order is known part by part commits each part in order when it
// is whole, and goes on; the run is complete, and its stream walked, with the last.
func TestOrderedParts(t *testing.T) {
	poller.SetPiece(t, 2)
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t)
		for i := range 8 { // each four are shown newest first
			f.add(string(rune('a' + i/4*4 + 3 - i%4)))
			f.items[i].Created = time.Now().Add(time.Duration(9-i%4) * time.Second)
			if i%4 < 2 {
				f.items[i].Created, f.items[i].Rank = time.Now().Add(time.Minute), uint64(10-i%4)
			}
		}
		f.staged, f.took = true, time.Minute
		f.page = func(q sources.Query, p *sources.Page) {
			p.Ordered = strings.Contains(string(p.Cursor), `"At":4`)
		}
		p, stop := r.run(stream("questions", f, "@every 1h"))
		time.Sleep(130 * time.Second)
		r.wantEmitted("a", "b", "c", "d")
		if s, _ := statusOf(p, "questions", sources.News); s.Walked {
			t.Error("walked with a part")
		}
		stop()
		r.reopen()
		known, err := r.db.OpenStream(questions, nil, time.Now())
		if err != nil || !strings.Contains(string(known.Walks["news"].Cursor), `"At":6`) {
			t.Errorf("the cursor is %s: %v", known.Walks["news"].Cursor, err)
		}
		p, stop = r.run(stream("questions", f, "@every 1h"))
		time.Sleep(3 * time.Minute)
		r.wantEmitted("a", "b", "c", "d", "e", "f", "g", "h")
		if s, _ := statusOf(p, "questions", sources.News); !s.Walked {
			t.Error("not walked")
		}
		stop()
	})
}

// lookedUp is a stream whose Sweep looks up what a run does not show.
func lookedUp(f *fake) poller.Stream {
	s := whole(f, "@every 10m")
	s.Walks = []sources.Walk{sources.News, sources.Sweep}
	s.Sweep = poller.Sweep{Every: quarter}
	s.Lookup = true
	return s
}

// missingOf makes a fake ask for what is missing with each page of a Sweep, n at a
// time, and returns what it was told with each; "nil": no run can tell.
func missingOf(f *fake, n int) func() [][]string {
	var told [][]string
	f.page = func(q sources.Query, p *sources.Page) {
		if q.Walk != sources.Sweep || !p.Done {
			if q.Missing != nil && q.Walk != sources.Sweep {
				f.t.Errorf("Missing of %s", q.Walk)
			}
			return
		}
		if q.Missing == nil {
			told = append(told, []string{"nil"})
			return
		}
		all := []string{}
		for after := ""; ; {
			items, next, err := q.Missing(after, n)
			if err != nil || len(items) > n {
				f.t.Error(len(items), err)
			}
			for _, it := range items {
				all = append(all, it.ID)
			}
			if after = next; after == "" {
				break
			}
		}
		told = append(told, all)
	}
	return func() [][]string {
		f.mu.Lock()
		defer f.mu.Unlock()
		return told
	}
}

// A Sweep is told what the last run of News did not show, in the order of time, and
// nothing of what came since.
func TestMissing(t *testing.T) {
	poller.SetPiece(t, 3)
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t)
		for _, id := range []string{"a", "b", "c", "d", "e", "f"} {
			f.add(id)
			time.Sleep(time.Second)
		}
		f.mutable()
		told := missingOf(f, 2)
		stop := r.start(lookedUp(f))
		time.Sleep(5 * time.Minute)
		f.remove("e", "b", "c")
		time.Sleep(3 * time.Hour)
		stop()
		if got := told(); len(got) < 7 || slices.ContainsFunc(got, func(ids []string) bool { return !slices.Equal(ids, []string{"b", "c", "e"}) }) {
			t.Errorf("told %q", got)
		}
		for i, at := range f.runs(sources.Sweep) {
			if ran := slices.MaxFunc(slices.DeleteFunc(f.runs(sources.News), func(t time.Time) bool { return t.After(at) }), time.Time.Compare); at.Sub(ran) > 10*time.Second {
				t.Errorf("sweep %d comes %s after a run of News", i, at.Sub(ran))
			}
		}
	})
}

// A run that was partial, had a page skipped or was begun by another process proves
// nothing, so there is nobody to look up.
func TestMissingNeedsProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b", "c")
		f.mutable()
		told := missingOf(f, 2)
		asks := f.page
		f.page = func(q sources.Query, p *sources.Page) {
			asks(q, p)
			if q.Walk == sources.News {
				p.Failed = failing(sources.Forbidden, sources.ScopeRequest, 403).(*sources.Error)
			}
		}
		stop := r.start(lookedUp(f))
		time.Sleep(5 * time.Minute)
		f.remove("b")
		time.Sleep(30 * time.Minute)
		stop()
		if got := told(); len(got) == 0 || slices.ContainsFunc(got, func(ids []string) bool { return !slices.Equal(ids, []string{"nil"}) }) {
			t.Errorf("told %q after runs that were partial", got)
		}
	})
}

// Whatever is missing, by chance and in pieces of any size, is handed out once.
func TestMissingOfMany(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		poller.SetPiece(t, 1+random.IntN(7))
		synctest.Test(t, func(t *testing.T) {
			r, f := quickRig(t), newFake(t)
			var want []string
			for i := range 20 {
				f.add(fmt.Sprintf("q%02d", i))
				time.Sleep(time.Second)
			}
			f.mutable()
			f.size = 100
			told := missingOf(f, 1+random.IntN(5))
			stop := r.start(lookedUp(f))
			time.Sleep(5 * time.Minute)
			for i := range 20 {
				if random.IntN(2) == 0 {
					want = append(want, fmt.Sprintf("q%02d", i))
				}
			}
			f.remove(want...)
			time.Sleep(25 * time.Minute)
			stop()
			if got := told(); len(got) == 0 || !slices.Equal(got[0], want) {
				t.Errorf("told %q, want %q", got, want)
			}
		})
	}
}

// A part of a run that cannot be read is no failure of the run: it is counted, shown
// and told once, until a run is complete without it.
func TestFailedPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b", "c")
		disabled := true
		f.page = func(q sources.Query, p *sources.Page) {
			if disabled && !p.Done {
				p.Failed = failing(sources.Forbidden, sources.ScopeRequest, 403).(*sources.Error)
			}
			p.Partial = p.Done && disabled
		}
		f.lap = 2
		s := stream("questions", f, "@every 10m")
		if left := r.once(t.Context(), s); len(left) > 0 {
			t.Errorf("once: %+v", left)
		}
		p, stop := r.run(s)
		time.Sleep(time.Hour)
		_, news := statusOf(p, "questions", sources.News)
		if news.Failure != nil || news.Part == nil || news.Part.Kind != sources.Forbidden || news.Part.Times < 6 || news.Period != 10*time.Minute {
			t.Errorf("%+v, part: %+v", news, news.Part)
		}
		r.wantLogged("a part of the stream cannot be read", 2) // by each process
		r.wantLogged("can be read again", 0)
		if n := r.metric(t, `syncd_poll_errors_total{account="shop-a",reason="forbidden",stream="questions"}`); int(n) != news.Part.Times {
			t.Errorf("%v failures are counted of %d", n, news.Part.Times)
		}
		f.set(func() { disabled = false })
		time.Sleep(time.Hour)
		if _, news := statusOf(p, "questions", sources.News); news.Part != nil {
			t.Errorf("%+v", news.Part)
		}
		r.wantLogged("can be read again", 1)
		stop()
	})
}

// A run of which nothing could be read is no success: who watches for the last one
// must see that it stands still.
func TestNothingRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b")
		down := true
		f.page = func(q sources.Query, p *sources.Page) {
			if down {
				p.Items, p.Failed = nil, failing(sources.Forbidden, sources.ScopeRequest, 403).(*sources.Error)
			}
		}
		_, stop := r.run(stream("questions", f, "@every 10m"))
		const series = `syncd_poll_last_success_timestamp_seconds{account="shop-a",stream="questions"}`
		time.Sleep(time.Hour)
		if at := r.metric(t, series); at != 0 {
			t.Errorf("a success at %v, where nothing could be read", at)
		}
		f.set(func() { down = false })
		time.Sleep(time.Hour)
		if at := r.metric(t, series); at == 0 {
			t.Error("no success, where everything can be read again")
		}
		stop()
	})
}

// What a budget comes to is shown, and told when it has changed, at most hourly.
func TestPlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a")
		plan := "50 requests a scan"
		f.page = func(q sources.Query, p *sources.Page) { p.Plan = plan }
		p, stop := r.run(stream("questions", f, "@every 1m"))
		time.Sleep(5 * time.Hour)
		r.wantLogged("50 requests a scan", 1)
		for i := range 120 {
			f.set(func() { plan = fmt.Sprint(51+i, " requests a scan") })
			time.Sleep(time.Minute)
		}
		r.wantLogged("how often the budget allows", 3)
		if s, _ := statusOf(p, "questions", sources.News); s.Plan != "170 requests a scan" {
			t.Errorf("plan %q", s.Plan)
		}
		stop()
	})
}

// metric returns the value of a series.
func (r *rig) metric(t *testing.T, series string) float64 {
	t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName() + "{"
			for i, l := range m.GetLabel() {
				if i > 0 {
					name += ","
				}
				name += fmt.Sprintf("%s=%q", l.GetName(), l.GetValue())
			}
			if name+"}" == series {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	t.Error(errors.New("there is no " + series))
	return 0
}
