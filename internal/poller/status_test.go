package poller_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/poller"
	"syncd/internal/sources"
)

func statusOf(p *poller.Poller, stream string, walk sources.Walk) (poller.StreamStatus, poller.WalkStatus) {
	for _, s := range p.Status() {
		if s.Stream.Stream == stream {
			for _, w := range s.Walks {
				if w.Walk == walk {
					return s, w
				}
			}
			return s, poller.WalkStatus{}
		}
	}
	return poller.StreamStatus{}, poller.WalkStatus{}
}

// Status tells what each walk is doing, and waits for nothing meanwhile.
func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, manyIDs(10)...)
		s := swept("questions", f, "@every 15s", quarter, day)
		p := r.new(s)
		if st, _ := statusOf(p, "questions", sources.News); st.Walked || len(st.Walks) != 4 || st.Schedule != "@every 15s" || st.Group != "feedbacks" {
			t.Errorf("before Run: %+v", st)
		}
		p, stop := r.run(s)
		began := time.Now()
		time.Sleep(time.Hour)
		st, news := statusOf(p, "questions", sources.News)
		if !st.Walked || news.Period != 15*time.Second || news.Running != nil || news.Failure != nil || time.Since(news.Last) > 15*time.Second || time.Until(news.Next) > 15*time.Second {
			t.Errorf("news: %+v", news)
		}
		_, sweep := statusOf(p, "questions", sources.Sweep)
		if sweep.Period != quarter || sweep.Every != quarter || time.Since(sweep.Last) > quarter || time.Until(sweep.Next) > quarter || time.Until(sweep.Next) <= 0 {
			t.Errorf("sweep: %+v", sweep)
		}
		_, full := statusOf(p, "questions", sources.Full)
		if due := full.Next.Sub(began); due > day+time.Minute || due < day*9/10 {
			t.Errorf("full: due after %s: %+v", due, full)
		}
		if _, b := statusOf(p, "questions", sources.Backfill); b.Request != nil || b.Running != nil || !b.Next.IsZero() {
			t.Errorf("backfill: %+v", b)
		}
		f.set(func() { f.took = time.Minute })
		since := time.Now().Add(-2 * time.Hour).Truncate(time.Millisecond)
		if _, err := p.Backfill("shop-a", "", since); err != nil {
			t.Fatal(err)
		}
		time.Sleep(150 * time.Second)
		if _, b := statusOf(p, "questions", sources.Backfill); b.Request == nil || !b.Request.Since.Equal(since) || b.Running == nil || b.Running.Requests != 2 || b.Running.Items != 4 || b.Running.Progress != 0.4 {
			t.Errorf("backfill: %+v", b)
		}
		f.set(func() { f.took = 0 })
		time.Sleep(10 * time.Minute)
		until := time.Now().Add(time.Hour)
		f.set(func() {
			f.fail = func(int) error {
				err := failing(sources.RateLimited, sources.ScopeGroup, 429).(*sources.Error)
				err.Until = until
				return err
			}
		})
		time.Sleep(time.Minute)
		_, news = statusOf(p, "questions", sources.News)
		if news.Failure == nil || news.Failure.Kind != sources.RateLimited || news.Failure.Times < 10 || news.Failure.Request != "/x?skip=0" || !news.Waiting.Equal(until) {
			t.Errorf("failing news: %+v", news)
		}
		f.set(func() { f.fail = func(int) error { return failing(sources.Payment, sources.ScopeGroup, 402) } })
		time.Sleep(time.Minute)
		st, news = statusOf(p, "questions", sources.News)
		if st.Blocked.IsZero() || news.Failure.Kind != sources.Payment || !strings.Contains(news.Failure.Text, "GET /x: answer 402") || time.Until(news.Next) < 50*time.Minute {
			t.Errorf("blocked: %+v %+v", st, news.Failure)
		}
		stop()
		r.wantLogged("wants to be paid", 1)
		f.seller = "seller-2"
		p, stop = r.run(s)
		stop()
		if st, _ := statusOf(p, "questions", sources.News); st.Stopped == nil {
			t.Errorf("%+v", st)
		}
	})
}

// A state that fails is shown as such, and not as the marketplace's failure.
func TestStatusOfFailingState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a")
		r.fault = func(n int, commit func() error) error {
			if n > 1 {
				return errBroken
			}
			return commit()
		}
		p, stop := r.run(stream("questions", f, "@every 15s"))
		time.Sleep(time.Minute)
		if _, news := statusOf(p, "questions", sources.News); news.Failure == nil || news.Failure.Kind != "" || !strings.Contains(news.Failure.Text, "no space left") {
			t.Errorf("%+v", news.Failure)
		}
		if _, err := p.Skip("shop-a", "questions"); err == nil || !strings.Contains(err.Error(), "nothing was skipped") {
			t.Error(err)
		}
		stop()
	})
}

// A budget that stretches a stream is said once, with what the schedule really
// comes to, and again only when that has changed much.
func TestStretched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a")
		p, stop := r.run(stream("questions", f, "@every 15s"))
		time.Sleep(time.Hour)
		r.wantLogged("stretches", 0)
		f.set(func() { f.took = 29 * time.Second }) // less than twice
		time.Sleep(time.Hour)
		r.wantLogged("stretches", 0)
		f.set(func() { f.took = 5 * time.Minute })
		time.Sleep(6 * time.Hour)
		r.wantLogged("stretches", 1)
		r.wantLogged("schedule=\"@every 15s\" scheduled_period=15s real_period=5m0s", 1)
		if _, news := statusOf(p, "questions", sources.News); news.Period != 5*time.Minute {
			t.Errorf("%+v", news)
		}
		f.set(func() { f.took = 7 * time.Minute })
		time.Sleep(6 * time.Hour)
		r.wantLogged("stretches", 1)
		f.set(func() { f.took = time.Hour })
		time.Sleep(day)
		r.wantLogged("stretches", 2)
		f.set(func() { f.took = 0 })
		time.Sleep(day)
		r.wantLogged("stretches", 2)
		stop()
	})
}

// One slow run, an outage, and a long first walk are no stretched schedule.
func TestNotStretched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, manyIDs(100)...)
		f.set(func() { f.took = time.Minute })
		stop := r.start(stream("questions", f, "@every 15s"))
		time.Sleep(2 * time.Hour)
		f.set(func() { f.took = 0 })
		time.Sleep(time.Minute)
		begin := time.Now()
		f.set(func() {
			f.fail = func(int) error {
				if time.Since(begin) < 10*time.Hour {
					return failing(sources.Temporary, sources.ScopeRequest, 502)
				}
				return nil
			}
		})
		time.Sleep(11 * time.Hour)
		for range 10 {
			f.set(func() { f.took = 10 * time.Minute })
			time.Sleep(11 * time.Minute)
			f.set(func() { f.took = 0 })
			time.Sleep(10 * time.Minute)
		}
		stop()
		r.wantLogged("stretches", 1) // the end of the first walk
	})
}

// Contract G2: a backlog that the budget cannot clear is reported, hourly, with
// how far behind and since when; and that it was cleared.
func TestBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a")
		behind := time.Duration(0)
		f.page = func(_ sources.Query, p *sources.Page) {
			if behind > 0 {
				p.Done, p.Reached = false, time.Now().Add(-behind)
				p.Cursor = []byte(`{"At":0,"Began":1}`)
			}
		}
		f.set(func() { f.took = time.Minute })
		behind = day // the first walk reads history, which is no backlog
		p, stop := r.run(stream("questions", f, "@every 15s"))
		time.Sleep(5 * time.Hour)
		r.wantLogged("behind", 0)
		f.set(func() { behind = 0 })
		time.Sleep(time.Hour)
		f.set(func() { behind = 5 * time.Minute })
		time.Sleep(time.Hour)
		r.wantLogged("behind", 0)
		since := time.Now()
		for range 300 {
			time.Sleep(time.Minute)
			f.set(func() { behind += time.Minute })
		}
		r.wantLogged("level=WARN msg=\"the stream is behind and catching up; nothing is skipped\"", 1)
		r.wantLogged("level=WARN msg=\"items come faster than the request budget can read them; nothing is skipped\"", 4)
		st, _ := statusOf(p, "questions", sources.News)
		if st.Behind < 5*time.Hour || st.Behind > 6*time.Hour || st.BehindSince.Sub(since) > 10*time.Minute {
			t.Errorf("behind %s since %s", st.Behind, st.BehindSince)
		}
		f.set(func() { behind = 0 })
		time.Sleep(time.Hour)
		r.wantLogged("the stream has caught up", 1)
		if st, _ := statusOf(p, "questions", sources.News); st.Behind != 0 || !st.BehindSince.IsZero() {
			t.Errorf("behind %s since %s", st.Behind, st.BehindSince)
		}
		stop()
	})
}
