package poller_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/poller"
	"syncd/internal/sources"
	"syncd/internal/state"
)

// The operator's poll comes at once; many at once are one or two.
func TestPollNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f, g, other := newRig(t), newFake(t, "a"), newFake(t, "b"), newFake(t, "c")
		b := stream("questions", other, "@every 1h")
		b.ID.Account, other.seller = "shop-b", "seller-2"
		p, stop := r.run(stream("questions", f, "@every 1h"), stream("chats", g, "@every 1h"), b)
		time.Sleep(time.Minute)
		counts := func() []int { return []int{len(f.requests()), len(g.requests()), len(other.requests())} }
		ask := func(stream string, want ...string) {
			t.Helper()
			ids, err := p.PollNow("shop-a", stream)
			var got []string
			for _, id := range ids {
				got = append(got, id.String())
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%q %v", got, err)
			}
		}
		f.add("new")
		ask("questions", "shop-a/questions")
		synctest.Wait()
		if got := counts(); !slices.Equal(got, []int{2, 1, 1}) {
			t.Errorf("requests %v", got)
		}
		if got := slices.Sorted(slices.Values(r.emitted())); !slices.Equal(got, []string{"a", "b", "c", "new"}) {
			t.Errorf("emitted %q", got)
		}
		ask("", "shop-a/chats", "shop-a/questions")
		synctest.Wait()
		if got := counts(); !slices.Equal(got, []int{3, 2, 1}) {
			t.Errorf("requests %v", got)
		}
		f.set(func() { f.took = time.Minute })
		ask("questions", "shop-a/questions")
		time.Sleep(time.Second)
		for range 100 { // during a run: one more shows what came since it began
			ask("questions", "shop-a/questions")
		}
		time.Sleep(10 * time.Minute)
		if got := counts(); !slices.Equal(got, []int{5, 2, 1}) {
			t.Errorf("requests %v", got)
		}
		stop()
		for _, test := range []struct{ account, stream, want string }{
			{"shop-c", "", `no account "shop-c" is polled; there are: shop-a, shop-b`},
			{"shop-a", "claims", `account shop-a polls no stream "claims"; it polls: chats, questions`},
		} {
			_, err := p.PollNow(test.account, test.stream)
			if e, ok := errors.AsType[*poller.RefusedError](err); !ok || !e.Unknown || e.Error() != test.want {
				t.Errorf("%v", err)
			}
		}
	})
}

// An API group whose token was refused is tried once when the operator says so.
// Where that works, all of the group goes on; where it does not, it waits again.
func TestPollNowAfterRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f, g := newRig(t), newFake(t, "a"), newFake(t, "b")
		mended := false
		refuse := func(int) error {
			if mended {
				return nil
			}
			return failing(sources.Unauthorized, sources.ScopeGroup, 401)
		}
		f.fail, g.fail = refuse, refuse
		s := swept("questions", f, "@every 15s", quarter, day)
		p, stop := r.run(s, stream("feedbacks", g, "@every 15s"))
		time.Sleep(10 * time.Minute)
		before, others := len(f.requests()), len(g.requests())
		tries := func(asked int) int {
			for range asked {
				if _, err := p.PollNow("shop-a", "questions"); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(10 * time.Minute)
			n := len(f.requests()) - before
			before += n
			return n
		}
		if n := tries(1); n != 1 {
			t.Errorf("%d tries with a token that is still refused", n)
		}
		// Those that come after the first try has begun are answered by one more.
		f.set(func() { f.took = time.Second })
		if n := tries(3); n != 1 && n != 2 {
			t.Errorf("%d tries for three that came at once", n)
		}
		if n := len(g.requests()) - others; n != 0 {
			t.Errorf("%d tries of the other stream", n)
		}
		f.set(func() { g.set(func() { mended = true }) })
		if _, err := p.PollNow("shop-a", "questions"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		stop()
		if n := len(g.requests()) - others; n < 3 {
			t.Errorf("%d polls of the other stream in the minute after the token was mended", n)
		}
		if got := r.emitted(); len(got) != 2 {
			t.Errorf("emitted %q", got)
		}
	})
}

// A failing stream is tried at once, and a stopped account says why it is not.
func TestPollNowOfFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a")
		mended := false
		f.fail = func(int) error {
			if mended {
				return nil
			}
			return failing(sources.Rejected, sources.ScopeRequest, 400)
		}
		p, stop := r.run(stream("questions", f, "@every 15s"))
		time.Sleep(6 * time.Hour)
		f.set(func() { mended = true })
		if _, err := p.PollNow("shop-a", ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r.wantEmitted("a")
		stop()
		f.seller = "seller-2"
		var other *state.OtherSellerError
		if _, err := r.new(stream("questions", f, "@every 15s")).PollNow("shop-a", ""); !errors.As(err, &other) {
			t.Error(err)
		}
	})
}

// A new item that is news to another stream wakes it, at most once more while it
// runs; history and what was known do not.
func TestWakes(t *testing.T) {
	for _, staged := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r, f, chats, elsewhere := newRig(t), newFake(t, "old-1", "old-2"), newFake(t, "chat"), newFake(t, "chat")
			f.page = func(_ sources.Query, p *sources.Page) {
				for i := range p.Items {
					p.Items[i].Wakes = "chats"
				}
			}
			f.staged, r.large = staged, true
			time.Sleep(time.Second)
			s := stream("chat_events", f, "@every 5s")
			s.Start = nil
			b := stream("chats", elsewhere, "@every 10m")
			b.ID.Account, elsewhere.seller = "shop-b", "seller-2"
			stop := r.start(s, stream("chats", chats, "@every 10m"), b)
			time.Sleep(9 * time.Minute)
			if n := len(chats.requests()); n != 1 {
				t.Errorf("%d polls before anything was new", n)
			}
			chats.set(func() { chats.took = time.Minute })
			for _, id := range manyIDs(20) {
				f.add(id)
			}
			time.Sleep(30 * time.Second)
			f.add("later-1", "later-2")
			time.Sleep(6 * time.Minute)
			if n := len(chats.requests()); n < 3 || n > 4 { // at once, after that one, and by the schedule
				t.Errorf("staged=%t: %d polls after new items in two moments", staged, n)
			}
			if n := len(elsewhere.requests()); n != 2 {
				t.Errorf("%d polls of another account", n)
			}
			stop()
		})
	}
}

// An item does not wake a stream out of a failure.
func TestWakesNoFailingStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f, chats := newRig(t), newFake(t, "a"), newFake(t, "chat")
		f.page = func(_ sources.Query, p *sources.Page) {
			for i := range p.Items {
				p.Items[i].Wakes = "chats"
			}
		}
		chats.fail = func(int) error { return failing(sources.Forbidden, sources.ScopeStream, 403) }
		stop := r.start(stream("chat_events", f, "@every 5s"), stream("chats", chats, "@every 10m"))
		for _, id := range manyIDs(100) {
			time.Sleep(time.Minute)
			f.add(id)
		}
		stop()
		if n := len(chats.requests()); n != 2 {
			t.Errorf("%d requests in 100 minutes", n)
		}
	})
}

// Skip steps over a page that fails now, and over nothing else.
func TestSkip(t *testing.T) {
	for _, walk := range []sources.Walk{sources.News, sources.Full} {
		t.Run(string(walk), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, f := newRig(t), newFake(t, "a", "b", "bad", "c", "d")
				f.size = 1
				broken := false
				f.failAt = func(q sources.Query) error {
					if broken && q.Walk == walk && strings.HasPrefix(string(q.Cursor), `{"At":2,`) {
						return failing(sources.Unreadable, sources.ScopeRequest, 200)
					}
					return nil
				}
				broken = walk == sources.News
				s := swept("questions", f, "@every 15s", 0, day)
				p, stop := r.run(s)
				if walk == sources.Full {
					time.Sleep(time.Minute)
					f.mutable()
					f.change(`,"x":1`, "d")
					f.set(func() { broken = true })
					time.Sleep(day)
				}
				time.Sleep(time.Hour)
				r.wantLogged("syncd state skip --account shop-a --stream questions", 1)
				r.wantLogged("request=\"/x?skip=0\"", 2)
				if _, err := p.Skip("shop-a", ""); err == nil {
					t.Error("skipped any stream")
				}
				left, err := p.Skip("shop-a", "questions")
				if err != nil || left != "question bad" {
					t.Fatal(left, err)
				}
				synctest.Wait()
				time.Sleep(time.Minute)
				if walk == sources.News {
					r.wantEmitted("a", "b", "c", "d")
				}
				if n := len(f.runs(sources.Full)); walk == sources.Full && n != 1 {
					t.Errorf("%d full readings", n)
				}
				for _, st := range p.Status() {
					for _, w := range st.Walks {
						if w.Failure != nil {
							t.Errorf("%s still fails: %+v", w.Walk, w.Failure)
						}
					}
				}
				before := f.pages(walk)
				if _, err := p.Skip("shop-a", "questions"); err == nil || !strings.Contains(err.Error(), "not failing now") {
					t.Error(err)
				}
				stop()
				r.reopen()
				r.once(t.Context(), s)
				if walk == sources.Full && f.pages(walk) != before {
					t.Error("the skip was not durable")
				}
				r.wantLogged("skipped by the operator", 1)
			})
		})
	}
}

// Where it is not the page's fault, there is nothing to skip; nor is the operator
// told to.
func TestSkipNothing(t *testing.T) {
	for name, err := range map[string]error{
		"token":  failing(sources.Unauthorized, sources.ScopeGroup, 401),
		"stream": failing(sources.Temporary, sources.ScopeStream, 500),
		"budget": failing(sources.RateLimited, sources.ScopeRequest, 429),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, f := newRig(t), newFake(t, "a")
				f.fail = func(int) error { return err }
				p, stop := r.run(stream("questions", f, "@every 15s"))
				time.Sleep(3 * time.Hour)
				if left, err := p.Skip("shop-a", "questions"); err == nil || !strings.Contains(err.Error(), "nothing was skipped") {
					t.Error(left, err)
				}
				stop()
				r.wantLogged("state skip", 0)
			})
		})
	}
}

// A network that is down is not the page's fault either.
func TestNoHintWithoutAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a")
		f.fail = func(int) error { return failing(sources.Temporary, sources.ScopeRequest, 0) }
		stop := r.start(stream("questions", f, "@every 15s"))
		time.Sleep(3 * day)
		stop()
		r.wantLogged("state skip", 0)
		r.wantLogged("poll failed", 1)
	})
}

// The retry that is on its way when the operator skips: if it works all the same,
// nothing is left out; if it fails, that is not held against the page behind.
func TestSkipDuringRetry(t *testing.T) {
	for _, works := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r, f := newRig(t), newFake(t, "a", "bad", "b", "c")
			f.size = 1
			retrying := false
			bad := func(q sources.Query) bool { return strings.HasPrefix(string(q.Cursor), `{"At":1,`) }
			f.wait = func(q sources.Query) time.Duration {
				if bad(q) && retrying {
					return time.Minute
				}
				return 0
			}
			f.failAt = func(q sources.Query) error {
				if bad(q) && !(retrying && works) {
					return failing(sources.Unreadable, sources.ScopeRequest, 200)
				}
				return nil
			}
			p, stop := r.run(stream("questions", f, "@every 15s"))
			time.Sleep(time.Hour)
			f.set(func() { retrying = true })
			if _, err := p.PollNow("shop-a", "questions"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if left, err := p.Skip("shop-a", "questions"); err != nil || left != "question bad" {
				t.Error(left, err)
			}
			time.Sleep(10 * time.Minute)
			stop()
			want := []string{"a", "bad", "b", "c"}
			if !works {
				want = slices.Delete(want, 1, 2)
			}
			r.wantEmitted(want...)
		})
	}
}

// Without a daemon nobody remembers what fails: the next page of News is skipped.
func TestSkipNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "bad", "b")
		f.size = 1
		f.failAt = func(q sources.Query) error {
			if strings.HasPrefix(string(q.Cursor), `{"At":1,`) {
				return failing(sources.Rejected, sources.ScopeRequest, 400)
			}
			return nil
		}
		s := stream("questions", f, "@every 15s")
		if left := r.once(t.Context(), s); len(left) != 1 {
			t.Fatal(left)
		}
		r.reopen()
		if left, err := r.new(s).SkipNews("shop-a", "questions"); err != nil || left != "question bad" {
			t.Fatal(left, err)
		}
		r.reopen()
		if left := r.once(t.Context(), s); len(left) != 0 {
			t.Fatal(left)
		}
		r.wantEmitted("a", "b")
		f.items = nil
		if _, err := r.new(s).SkipNews("shop-a", "questions"); err == nil || !strings.Contains(err.Error(), "nothing to skip") {
			t.Error(err)
		}
	})
}
