package poller_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/sources"
)

func (r *rig) registry() *prometheus.Registry { return prometheus.NewPedanticRegistry() }

// A failure that passes is tried again with backoff, is said once however often it
// comes, and its end is said with a count.
func TestTemporaryFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a")
		begin := time.Now()
		f.fail = func(int) error {
			if time.Since(begin) < time.Hour {
				return failing(sources.Temporary, sources.ScopeRequest, 502)
			}
			return nil
		}
		stop := r.start(stream("questions", f, "@every 5s"))
		time.Sleep(time.Hour)
		if n := len(f.requests()); n < 15 || n > 40 {
			t.Errorf("%d requests in an hour of failures", n)
		}
		time.Sleep(6 * time.Minute)
		stop()
		r.wantLogged("poll failed, trying again", 1)
		r.wantLogged("polling again", 1)
		r.wantLogged("after_failures=", 1)
		r.wantEmitted("a")
	})
}

// Failures inside a long walk that goes on all the same do not add up: neither to
// a longer wait, nor to the end of Once.
func TestScatteredFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, strings.Fields(strings.Repeat("a b c d e f g h i j ", 1))...)
		for range 40 {
			f.add(time.Now().Format("q150405.000000000"), time.Now().Format("r150405.000000000"))
			time.Sleep(time.Second)
		}
		f.fail = func(n int) error {
			if n%2 == 0 {
				return failing(sources.Temporary, sources.ScopeRequest, 502)
			}
			return nil
		}
		begin := time.Now()
		if left := r.once(t.Context(), stream("questions", f, "@every 5s")); len(left) != 0 {
			t.Errorf("%+v", left)
		}
		if d := time.Since(begin); d > 2*time.Minute {
			t.Errorf("it took %s", d)
		}
		if n := len(r.emitted()); n != 90 {
			t.Errorf("%d events", n)
		}
	})
}

// A 401 stops the API group of the account, which is tried again hourly, and
// nothing else.
func TestUnauthorized(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		refused, same, chat, shopB := newFake(t, "a"), newFake(t, "b"), newFake(t, "c"), newFake(t, "d")
		refused.fail = func(int) error { return failing(sources.Unauthorized, sources.ScopeGroup, 401) }
		same.fail = refused.fail
		c, b := stream("chats", chat, "@every 5s"), stream("questions", shopB, "@every 5s")
		c.Group, b.ID.Account = "chat", "shop-b"
		shopB.seller = "seller-2"
		stop := r.start(stream("questions", refused, "@every 5s"), stream("feedbacks", same, "@every 5s"), c, b)
		time.Sleep(3*time.Hour + 2*time.Minute)
		stop()
		if n := len(refused.requests()) + len(same.requests()); n < 4 || n > 8 {
			t.Errorf("%d requests of the refused group in three hours", n)
		}
		if n := min(len(chat.requests()), len(shopB.requests())); n < 2000 {
			t.Errorf("%d requests of the others", n)
		}
		if n := strings.Count(r.out.String(), "refuses this token"); n < 1 || n > 2 {
			t.Errorf("said %d times", n)
		}
		r.wantLogged("look at the token", strings.Count(r.out.String(), "refuses this token"))
	})
}

// A 403 about a stream stops that stream alone.
func TestForbiddenStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		refused, same := newFake(t, "a"), newFake(t, "b")
		refused.fail = func(n int) error {
			if n < 2 {
				return failing(sources.Forbidden, sources.ScopeStream, 403)
			}
			return nil
		}
		stop := r.start(stream("questions", refused, "@every 5s"), stream("feedbacks", same, "@every 5s"))
		time.Sleep(90 * time.Minute)
		if n := len(refused.requests()); n != 2 {
			t.Errorf("%d requests", n)
		}
		if n := len(same.requests()); n < 1000 {
			t.Errorf("%d requests of the other stream", n)
		}
		time.Sleep(time.Hour)
		stop()
		r.wantLogged("refuses this token", 1)
		r.wantLogged("polling again", 1)
		if len(r.emitted()) != 2 {
			t.Error(r.emitted())
		}
	})
}

func TestRejectedAndRateLimited(t *testing.T) {
	for _, test := range []struct {
		kind     sources.Kind
		status   int
		most     int
		level    string
		expected int
	}{{sources.Rejected, 400, 12, "level=ERROR", 1}, {sources.RateLimited, 429, 3700, "level=ERROR", 0}} {
		t.Run(string(test.kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, f := newRig(t), newFake(t, "a")
				f.fail = func(int) error { return failing(test.kind, sources.ScopeRequest, test.status) }
				stop := r.start(stream("questions", f, "@every 5s"))
				time.Sleep(time.Hour)
				stop()
				if n := len(f.requests()); n > test.most || n < 5 {
					t.Errorf("%d requests in an hour", n)
				}
				r.wantLogged(test.level, test.expected)
			})
		})
	}
}

// Once goes up to what existed when it began, also where an earlier process left
// a run behind that knows nothing of it.
func TestOnceAfterALeftRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b", "c", "d", "e")
		end := 5 // a run shows what was there when it began
		f.page = func(q sources.Query, p *sources.Page) {
			if q.Cursor == nil {
				return
			}
			if p.Began.Before(q.Now.Add(-time.Hour)) && len(f.items) > end {
				var kept []sources.Item
				for _, it := range p.Items {
					if it.ID[0] != "late" {
						kept = append(kept, it)
					}
				}
				if len(kept) < len(p.Items) {
					p.Items, p.Done, p.Cursor = kept, true, []byte(`{"At":5,"Began":0}`)
				}
			}
		}
		f.fail = func(n int) error {
			if n == 1 {
				return failing(sources.Rejected, sources.ScopeRequest, 400)
			}
			return nil
		}
		if left := r.once(t.Context(), stream("questions", f, "@every 5s")); len(left) != 1 {
			t.Fatal(left)
		}
		r.reopen()
		time.Sleep(24 * time.Hour)
		f.add("late")
		if left := r.once(t.Context(), stream("questions", f, "@every 5s")); len(left) != 0 {
			t.Fatal(left)
		}
		got := strings.ReplaceAll(strings.Join(r.emitted(), " "), " backfill", "")
		if got != "a b c d e late" {
			t.Errorf("emitted %s", got)
		}
	})
}

// Once lists what it cannot bring up to date: a wait for the budget beyond its
// deadline at once, what does not pass at once, what passes after some tries.
func TestOnceLeft(t *testing.T) {
	for _, test := range []struct {
		kind     sources.Kind
		requests int
		within   time.Duration
	}{
		{sources.BudgetWait, 1, 0}, {sources.Unauthorized, 1, 0}, {sources.Forbidden, 1, 0}, {sources.Rejected, 1, 0},
		{sources.Temporary, 5, time.Minute}, {sources.RateLimited, 601, 10 * time.Minute},
	} {
		t.Run(string(test.kind), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, f, fine := newRig(t), newFake(t, "a"), newFake(t, "b")
				f.fail = func(int) error { return failing(test.kind, sources.ScopeGroup, 0) }
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				begin := time.Now()
				left := r.once(ctx, stream("questions", f, "@every 5s"), stream("chats", fine, "@every 5s"))
				if d := time.Since(begin); d > test.within {
					t.Errorf("it took %s", d)
				}
				var e *sources.Error
				if len(left) != 1 || left[0].Stream.Stream != "questions" || !errors.As(left[0].Err, &e) || e.Kind != test.kind {
					t.Errorf("%+v", left)
				}
				if n := len(f.requests()); n > test.requests || n < test.requests*9/10 {
					t.Errorf("%d requests, want %d", n, test.requests)
				}
				r.wantEmitted("b")
			})
		})
	}
}
