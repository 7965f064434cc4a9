package poller_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"syncd/internal/poller"
	"syncd/internal/sources"
	"syncd/internal/state"
)

func TestParseSchedule(t *testing.T) {
	moscow, err := time.LoadLocation("Europe/Moscow")
	if err != nil {
		t.Skip(err)
	}
	for expr, want := range map[string]string{
		"@every 15s": "2026-02-02T10:30:15Z", "0 3 * * *": "2026-02-03T03:00:00Z", "*/10 * * * * *": "2026-02-02T10:30:10Z", "@daily": "2026-02-03T00:00:00Z",
	} {
		s, err := poller.ParseSchedule(expr)
		if err != nil {
			t.Errorf("%s: %v", expr, err)
			continue
		}
		if got := s.Next(time.Date(2026, 2, 2, 13, 30, 0, 0, moscow).UTC()).Format(time.RFC3339); got != want {
			t.Errorf("%s comes at %s, want %s", expr, got, want)
		}
	}
	for _, expr := range []string{"", "often", "61 * * * *", "0 0 30 2 *", "@every x"} {
		if _, err := poller.ParseSchedule(expr); err == nil || !strings.Contains(err.Error(), "schedule") {
			t.Errorf("%q: %v", expr, err)
		}
	}
}

// Every schedule is kept, from the first second on, and what comes is emitted once.
func TestSchedules(t *testing.T) {
	for _, test := range []struct {
		schedule string
		run      time.Duration
		want     int
	}{{"@every 5s", time.Minute, 12}, {"*/10 * * * * *", time.Minute, 7}, {"*/5 * * * *", time.Hour, 13}, {"@every 1h", 24 * time.Hour, 24}} {
		t.Run(test.schedule, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, f := newRig(t), newFake(t, "a")
				stop := r.start(stream("questions", f, test.schedule))
				time.Sleep(test.run - time.Millisecond)
				stop()
				times := f.requests()
				if n := len(times); n < test.want-1 || n > test.want+1 {
					t.Errorf("%d requests, want %d", n, test.want)
				}
				if times[0].Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) > time.Second {
					t.Errorf("the first came at %s", times[0])
				}
				r.wantEmitted("a")
			})
		})
	}
}

// A run that takes longer than its period is followed by the next at once, and
// never overlaps it.
func TestSlowRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a")
		f.took = 7 * time.Second
		stop := r.start(stream("questions", f, "@every 5s"))
		time.Sleep(time.Minute)
		stop()
		for i, at := range f.requests()[1:] {
			if d := at.Sub(f.requests()[i]); d != 7*time.Second {
				t.Errorf("%s between two runs of 7 s", d)
			}
		}
	})
}

// An idle stream writes nothing and logs nothing, for however long.
func TestIdleWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b", "c")
		f.page = func(_ sources.Query, p *sources.Page) {
			p.Note = "it is odd"
			p.Undecodable = []sources.Undecodable{{Raw: []byte(`1`), Reason: "no id"}, {Raw: []byte(`2`), Reason: "no id"}}
		}
		stop := r.start(stream("questions", f, "@every 5s"))
		time.Sleep(time.Minute)
		synctest.Wait()
		n, said := r.committed(), r.out.String()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if r.committed() != n {
			t.Errorf("%d commits in an idle day", r.committed()-n)
		}
		if r.out.String() != said {
			t.Errorf("logged: %s", r.out.String()[len(said):])
		}
		r.wantLogged("it is odd", 1)
		r.wantLogged("cannot be used", 2)
		stop()
	})
}

// A long walk without news saves its cursor now and then.
func TestLongWalkSavesCursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var ids []string
		for i := range 200 {
			ids = append(ids, fmt.Sprint("q", i))
		}
		f := newFake(t, ids...)
		r.once(t.Context(), stream("questions", f, "@every 5s"))
		n := r.committed()
		first := len(f.requests())
		f.page = func(q sources.Query, p *sources.Page) {
			if q.Cursor == nil {
				t.Error("the cursor is gone")
			}
		}
		const begin = `{"At":0,"Began":0}` // again from the first item
		f.given["news"+begin] = true
		if err := r.db.SetCursor(state.StreamID{Account: "shop-a", Stream: "questions"}, "news", []byte(begin)); err != nil {
			t.Fatal(err)
		}
		f.fail = func(n int) error {
			if n-first == 50 {
				return failing(sources.Rejected, sources.ScopeRequest, 400)
			}
			return nil
		}
		if left := r.once(t.Context(), stream("questions", f, "@every 5s")); len(left) != 1 {
			t.Fatal(left)
		}
		if got := r.committed() - n - 1; got != 3 { // after 20, 40, and when it ended
			t.Errorf("%d commits in 50 pages without news", got)
		}
		f.fail = nil
		if left := r.once(t.Context(), stream("questions", f, "@every 5s")); len(left) != 0 {
			t.Fatal(left)
		}
		if all := len(f.requests()) - first; all > 100+1 {
			t.Errorf("%d requests for 100 pages and one failure", all)
		}
	})
}

// What is old: contract §4, for each start, with and without a time of the item.
func TestStart(t *testing.T) {
	date := time.Date(1999, 12, 15, 0, 0, 0, 0, time.UTC)
	zero := time.Time{}
	for _, test := range []struct {
		name  string
		start *time.Time
		want  []string
	}{
		{"now", nil, []string{"none-later", "new"}},
		{"a date", &date, []string{"before backfill", "none-later", "new"}},
		{"beginning", &zero, []string{"old backfill", "none backfill", "before backfill", "none-later", "old-but-late", "new"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, f := newRig(t), newFake(t, "old", "none", "before")
				f.items[2].Created = time.Now().Add(-time.Hour)
				s := stream("questions", f, "@every 5s")
				s.Start = test.start
				stop := r.start(s)
				time.Sleep(time.Minute)
				stop()
				r.reopen()
				f.add("none-later", "old-but-late", "new")
				other := time.Now() // is too late: what is old was decided
				s.Start = &other
				stop = r.start(s)
				time.Sleep(time.Minute)
				stop()
				r.wantEmitted(test.want...)
			})
		})
	}
}

// behind is a marketplace whose clock is behind ours, or ours ahead.
type behind struct {
	*fake
	by time.Duration
}

func (b behind) Fetch(ctx context.Context, q sources.Query) (sources.Page, error) {
	page, err := b.fake.Fetch(ctx, q)
	page.Date = time.Now().Add(-b.by).Truncate(time.Second)
	return page, err
}

// Our clock is ahead at the first poll: what the marketplace then dates before our
// time is new all the same, also after a restart and when the first commits fail.
func TestStartByTheirClock(t *testing.T) {
	for _, by := range []time.Duration{0, 4 * time.Second, 10 * time.Second, 2 * time.Hour} {
		for _, fails := range []int{0, 2} {
			outage := time.Duration(fails) * 10 * time.Minute
			t.Run(fmt.Sprintf("%s, %d failures", by, fails), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					time.Sleep(500 * time.Millisecond)
					begin := time.Now()
					r, f := newRig(t), newFake(t, "old")
					r.fault = func(n int, commit func() error) error {
						if n >= 2 && n < 2+fails { // after the account and the stream
							return errors.New("disk full")
						}
						return commit()
					}
					s := stream("questions", f, "@every 5s")
					s.Source, s.Start = behind{f, by}, nil
					f.fail = func(int) error { // down at first: what comes meanwhile is new
						if time.Since(begin) < outage {
							return failing(sources.Temporary, sources.ScopeRequest, 503)
						}
						return nil
					}
					stop := r.start(s)
					time.Sleep(time.Minute)
					created := func(i int) {
						f.mu.Lock()
						f.items[i].Created = time.Now().Add(-by)
						f.mu.Unlock()
					}
					f.add("new-1")
					created(1)
					time.Sleep(time.Minute + outage)
					stop()
					r.reopen()
					f.add("new-2")
					created(2)
					stop = r.start(s)
					time.Sleep(time.Minute)
					stop()
					r.wantEmitted("new-1", "new-2")
				})
			})
		}
	}
}

// A staged walk is a first walk too: what comes after it is no history, and items
// without a time are news.
func TestStagedStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "none-1", "old-1", "old-2")
		f.staged = true
		s := stream("questions", f, "@every 5s")
		s.Start = nil
		stop := r.start(s)
		time.Sleep(time.Minute)
		r.wantEmitted()
		f.add("none-2", "new")
		time.Sleep(time.Minute)
		stop()
		r.wantEmitted("none-2", "new") // what has no time comes first
	})
}

// A state that cannot be written is loud, said once, and costs nothing but time.
func TestStateFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b", "c")
		begin := time.Now()
		r.fault = func(n int, commit func() error) error {
			if n > 2 && time.Since(begin) < time.Hour {
				return errBroken
			}
			return commit()
		}
		stop := r.start(stream("questions", f, "@every 5s"))
		time.Sleep(2 * time.Hour)
		stop()
		r.wantLogged("level=ERROR msg=\"the state file cannot be used", 1)
		r.wantLogged("polling again", 1)
		r.wantEmitted("a", "b", "c")
	})
}

// A state that can be written no more by this process ends Run with its error, and
// no request is sent whose answer could not be saved.
func TestBrokenState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f, g := newRig(t), newFake(t, "a"), newFake(t, "b")
		broken := false
		r.fault = func(_ int, commit func() error) error {
			if broken {
				return fmt.Errorf("commit: %w", state.ErrBroken)
			}
			return commit()
		}
		p := r.new(stream("questions", f, "@every 5s"), stream("chats", g, "@every 5s"))
		done := make(chan error, 1)
		go func() { done <- p.Run(t.Context()) }()
		time.Sleep(time.Minute)
		r.mu.Lock()
		broken = true
		r.mu.Unlock()
		f.add("c")
		time.Sleep(10 * time.Second)
		select {
		case err := <-done:
			if !errors.Is(err, state.ErrBroken) {
				t.Error(err)
			}
		default:
			t.Fatal("Run goes on")
		}
		n := len(f.requests()) + len(g.requests())
		time.Sleep(time.Hour)
		if got := len(f.requests()) + len(g.requests()); got != n {
			t.Errorf("%d requests after the end", got-n)
		}
		if left, err := r.new(stream("questions", f, "@every 5s")).Once(t.Context()); err != nil || len(left) != 1 || !errors.Is(left[0].Err, state.ErrBroken) {
			t.Errorf("%+v %v", left, err)
		}
		if got := len(f.requests()) + len(g.requests()); got != n+1 {
			t.Errorf("once sent %d requests", got-n)
		}
	})
}

// Contract §4: a token of another seller stops its account, all of it, before
// anything is spent; the others go on.
func TestSellerIsPinned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		first := newFake(t, "a")
		r.once(t.Context(), stream("questions", first, "@every 5s"))
		mine, others, elsewhere := newFake(t, "b"), newFake(t, "c"), newFake(t, "d")
		others.seller, elsewhere.seller = "seller-2", "seller-2"
		b := stream("questions", elsewhere, "@every 5s")
		b.ID.Account = "shop-b"
		stop := r.start(stream("chats", mine, "@every 5s"), stream("questions", others, "@every 5s"), b)
		time.Sleep(time.Minute)
		stop()
		if len(others.requests())+len(mine.requests()) > 0 {
			t.Error("something was spent")
		}
		if len(elsewhere.requests()) == 0 {
			t.Error("the other account was stopped too")
		}
		r.wantLogged("account stopped", 1)
		r.wantLogged("seller-1", 1)
		left := r.once(t.Context(), stream("questions", others, "@every 5s"))
		var other *state.OtherSellerError
		if len(left) != 1 || !errors.As(left[0].Err, &other) {
			t.Fatal(left)
		}
	})
}

func TestTwoAccountsOfOneSeller(t *testing.T) {
	r := newRig(t)
	a, b, c := stream("questions", newFake(t), "@every 5s"), stream("questions", newFake(t), "@every 5s"), stream("chats", newFake(t), "@every 5s")
	b.ID.Account, c.ID.Account = "shop-b", "shop-c"
	r.new(a, b, c)
	r.wantLogged("two accounts of one seller", 1)
	r.wantLogged("stream=questions account=shop-b other=shop-a", 1)
}

func TestNewRefusesSchedule(t *testing.T) {
	r := newRig(t)
	_, err := poller.New(poller.Config{DB: r.db, Metrics: poller.NewMetrics(r.registry()), Streams: []poller.Stream{stream("questions", newFake(t), "never")}})
	if err == nil || !strings.Contains(err.Error(), "shop-a/questions") {
		t.Fatal(err)
	}
}

// Shutdown finishes and commits what is in flight, and then asks for nothing more.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b", "c")
		f.took = 3 * time.Second
		stop := r.start(stream("questions", f, "@every 5s"))
		time.Sleep(2 * time.Second)
		begin := time.Now()
		stop()
		if d := time.Since(begin); d > 3*time.Second {
			t.Errorf("stopped after %s", d)
		}
		if len(f.requests()) != 1 {
			t.Errorf("%d requests", len(f.requests()))
		}
		r.wantEmitted("a", "b")
	})
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "old")
		f.fail = func(n int) error {
			if n == 0 {
				return failing(sources.Temporary, sources.ScopeRequest, 502)
			}
			return nil
		}
		s := stream("questions", f, "@every 5s")
		s.Start = nil
		time.Sleep(time.Second)
		r.once(t.Context(), s)
		want := `
# HELP syncd_items_total Items read, by what became of them.
# TYPE syncd_items_total counter
syncd_items_total{account="shop-a",action="adopted",stream="questions"} 0
syncd_items_total{account="shop-a",action="created",stream="questions"} 0
syncd_items_total{account="shop-a",action="held",stream="questions"} 0
syncd_items_total{account="shop-a",action="removed",stream="questions"} 0
syncd_items_total{account="shop-a",action="silent",stream="questions"} 2
syncd_items_total{account="shop-a",action="stale",stream="questions"} 0
syncd_items_total{account="shop-a",action="staged",stream="questions"} 0
syncd_items_total{account="shop-a",action="unchanged",stream="questions"} 0
syncd_items_total{account="shop-a",action="undecodable",stream="questions"} 0
syncd_items_total{account="shop-a",action="updated",stream="questions"} 0
# HELP syncd_poll_errors_total Polls that failed, by kind of failure.
# TYPE syncd_poll_errors_total counter
syncd_poll_errors_total{account="shop-a",reason="forbidden",stream="questions"} 0
syncd_poll_errors_total{account="shop-a",reason="other_seller",stream="questions"} 0
syncd_poll_errors_total{account="shop-a",reason="payment",stream="questions"} 0
syncd_poll_errors_total{account="shop-a",reason="rate_limited",stream="questions"} 0
syncd_poll_errors_total{account="shop-a",reason="rejected",stream="questions"} 0
syncd_poll_errors_total{account="shop-a",reason="temporary",stream="questions"} 1
syncd_poll_errors_total{account="shop-a",reason="unauthorized",stream="questions"} 0
syncd_poll_errors_total{account="shop-a",reason="unreadable",stream="questions"} 0
`
		if err := testutil.GatherAndCompare(r.reg, strings.NewReader(want), "syncd_items_total", "syncd_poll_errors_total"); err != nil {
			t.Error(err)
		}
		if problems, err := testutil.GatherAndLint(r.reg); err != nil || len(problems) > 0 {
			t.Error(problems, err)
		}
	})
}
