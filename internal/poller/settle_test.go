package poller_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"syncd/internal/poller"
	"syncd/internal/sources"
)

// whole is a stream whose News shows everything each time, and nothing else.
func whole(f *fake, schedule string) poller.Stream {
	f.whole = true
	s := stream("questions", f, schedule)
	s.Walks, s.Whole = []sources.Walk{sources.News, sources.Backfill}, true
	return s
}

// tally counts the log by what happened: "created", "updated", "schema_changed".
func (r *rig) tally() map[string]int {
	out := make(map[string]int)
	for _, k := range r.kinds() {
		action, _, _ := strings.Cut(k, " ")
		out[action]++
	}
	return out
}

func (r *rig) wantTally(created, updated, changed int) {
	r.t.Helper()
	if got := r.tally(); got["created"] != created || got["updated"] != updated || got["schema_changed"] != changed {
		r.t.Errorf("emitted %v, want %d created, %d updated, %d schema_changed", got, created, updated, changed)
	}
}

// Contract §6: keys that come are held back, wherever they were read, until a
// reading of everything ends. Few of them are changes; many are the marketplace's.
func TestHeldItems(t *testing.T) {
	ids := manyIDs(600)
	for _, test := range []struct {
		name   string
		grown  int
		stream func(f *fake) poller.Stream
		before time.Duration // nothing is emitted yet
		after  time.Duration
	}{
		{"full, few", 90, func(f *fake) poller.Stream { return swept("questions", f, "@every 10m", time.Hour, day) }, 20 * time.Hour, 5 * time.Hour},
		{"full, many", 121, func(f *fake) poller.Stream { return swept("questions", f, "@every 10m", time.Hour, day) }, 20 * time.Hour, 5 * time.Hour},
		{"full, a hundred of more than five hundred", 120, func(f *fake) poller.Stream { return swept("questions", f, "@every 10m", time.Hour, day) }, 20 * time.Hour, 5 * time.Hour},
		{"whole, few", 90, func(f *fake) poller.Stream { return whole(f, "@every 10m") }, 0, 11 * time.Minute},
		{"whole, many", 130, func(f *fake) poller.Stream { return whole(f, "@every 10m") }, 0, 11 * time.Minute},
		{"news alone, few", 2, func(f *fake) poller.Stream { return stream("questions", f, "@every 10m") }, 0, 11 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, f := newRig(t), newFake(t, ids...).mutable()
				r.large, f.size = true, 300
				s := test.stream(f)
				stop := r.start(s)
				time.Sleep(time.Minute)
				f.change(`,"new":{"x":1}`, ids[600-test.grown:]...)
				time.Sleep(test.before)
				r.wantTally(600, 0, 0)
				time.Sleep(test.after)
				stop()
				adopted := test.grown > 120
				if adopted {
					r.wantTally(600, 0, 1)
				} else if test.name != "news alone, few" {
					r.wantTally(600, test.grown, 0)
				}
				if got := r.items("adopted"); adopted != (got == float64(test.grown)) {
					t.Errorf("%v adopted", got)
				}
				// That is how they are now.
				n := len(r.emitted())
				stop = r.start(s)
				time.Sleep(26 * time.Hour)
				stop()
				if got := len(r.emitted()); got != n {
					t.Errorf("%d more events", got-n)
				}
			})
		})
	}
}

func (r *rig) items(action string) float64 {
	r.t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != "syncd_items_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "action" && l.GetValue() == action {
					sum += m.GetCounter().GetValue()
				}
			}
		}
	}
	return sum
}

// A settlement that a crash cut short, at whichever commit, is finished with what
// it had decided, before anything else is read; and the reading after which it
// came is not made again.
func TestSettlementCrashes(t *testing.T) {
	poller.SetPiece(t, 60)
	ids := manyIDs(150) // three pieces
	for name, make := range map[string]func(f *fake) poller.Stream{
		"full":  func(f *fake) poller.Stream { return swept("questions", f, "@every 15s", 0, day) },
		"whole": func(f *fake) poller.Stream { return whole(f, "@every 10m") },
	} {
		for _, effect := range []bool{false, true} {
			crashed := true
			for at := 0; crashed; at++ {
				crashed = false
				t.Run(fmt.Sprintf("%s effect=%t at=%d", name, effect, at), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						r, f := newRig(t), newFake(t, ids...).mutable()
						r.large, f.size = true, 50
						s := make(f)
						r.once(t.Context(), s)
						f.change(`,"new":1`, ids...)
						time.Sleep(25 * time.Hour)
						first := r.committed()
						ctx, cancel := context.WithCancel(t.Context())
						defer cancel()
						r.fault = func(n int, commit func() error) error {
							if n-first != at {
								return commit()
							}
							crashed = true
							cancel()
							if effect {
								if err := commit(); err != nil {
									return err
								}
							}
							return errBroken
						}
						if _, err := r.new(s).Once(ctx); err != nil && !errors.Is(err, errBroken) {
							t.Fatal(err)
						}
						r.reopen()
						f.failAt = func(q sources.Query) error {
							if open, err := r.db.HasVerdict(questions); err != nil || open {
								t.Error("read before the settlement was finished", err)
							}
							return nil
						}
						if left := r.once(t.Context(), s); len(left) > 0 {
							t.Fatal(left)
						}
						// What a crash left held is settled with the next reading at the latest.
						time.Sleep(25 * time.Hour)
						if left := r.once(t.Context(), s); len(left) > 0 {
							t.Fatal(left)
						}
						r.wantTally(150, 0, 1)
						if n := f.pages(sources.Full); name == "full" && n > 3+2+3 { // with the page that was lost, the one that was fetched ahead of it
							t.Errorf("%d pages of two readings of three and a crash", n)
						}
					})
				})
			}
		}
	}
}

// Only what two whole runs in a row did not show is gone, and it comes back as
// new.
func TestVanish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b", "c", "d", "e").mutable()
		s := whole(f, "@every 10m")
		s.Vanish = true
		stop := r.start(s)
		time.Sleep(time.Minute)
		f.remove("b", "e")
		time.Sleep(10 * time.Minute)
		want := []string{"created a", "created b", "created c", "created d", "created e"}
		r.wantKinds(want...)
		f.mu.Lock()
		f.items = slices.Insert(f.items, 1, item("b")) // it was late
		f.items[1].Immutable = false
		f.mu.Unlock()
		time.Sleep(10 * time.Minute)
		want = append(want, "removed e")
		r.wantKinds(want...)
		f.remove("b")
		time.Sleep(10 * time.Minute)
		r.wantKinds(want...)
		time.Sleep(10 * time.Minute)
		want = append(want, "removed b")
		r.wantKinds(want...)
		f.add("e")
		f.mutable()
		time.Sleep(time.Hour)
		want = append(want, "created e")
		r.wantKinds(want...)
		n := r.committed()
		time.Sleep(day)
		if r.committed() != n {
			t.Errorf("%d commits in an idle day", r.committed()-n)
		}
		stop()
	})
}

// A run proves nothing about what it did not show where it is partial, has an
// entry that cannot be read, was continued from an earlier process, or had
// something skipped.
func TestVanishNeedsProof(t *testing.T) {
	for _, test := range []struct {
		name string
		page func(q sources.Query, p *sources.Page)
		want bool
	}{
		{"whole", func(sources.Query, *sources.Page) {}, true},
		{"partial", func(_ sources.Query, p *sources.Page) { p.Partial = p.Done }, false},
		{"odd", func(_ sources.Query, p *sources.Page) {
			p.Undecodable = []sources.Undecodable{{Raw: []byte(`{"id":null}`), Reason: "no id"}}
		}, false},
		{"odd body", func(_ sources.Query, p *sources.Page) { // of an item that is known by its id
			for i := range p.Items {
				if p.Items[i].ID[0] == "a" {
					p.Items[i].Body = []byte(`{`)
				}
			}
		}, true},
		{"says nothing of its beginning", func(_ sources.Query, p *sources.Page) { p.Began = time.Time{} }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, f := newRig(t), newFake(t, "a", "b", "c", "d", "e").mutable()
				s := whole(f, "@every 10m")
				s.Vanish = true
				r.once(t.Context(), s)
				f.page = test.page
				f.remove("c")
				stop := r.start(s)
				time.Sleep(day)
				stop()
				if got := r.tally()["removed"]; (got == 1) != test.want || got > 1 {
					t.Errorf("%d removed", got)
				}
			})
		})
	}
}

// Run by cron, each call being a process of its own, two whole calls are two runs;
// but what a process only finished that another had begun is none.
func TestVanishAcrossProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b", "c", "d", "e").mutable()
		s := whole(f, "@every 10m")
		s.Vanish = true
		r.once(t.Context(), s)
		f.took = time.Minute
		half := func() { // two pages of three
			ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
			defer cancel()
			if left := r.once(ctx, s); len(left) != 1 {
				t.Error(left)
			}
			r.reopen()
			time.Sleep(time.Hour)
		}
		rest := func() { // ends the other's run, and does not make its own
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			r.once(ctx, s)
			r.reopen()
			time.Sleep(time.Hour)
		}
		f.remove("a")
		f.add("f") // still three pages
		f.mutable()
		for range 3 {
			half()
			rest()
		}
		if n := r.tally()["removed"]; n != 0 {
			t.Errorf("%d removed after runs of which no process has seen all", n)
		}
		for i := range 2 {
			if n := r.tally()["removed"]; n != 0 {
				t.Errorf("%d removed after %d whole runs", n, i)
			}
			if left := r.once(t.Context(), s); len(left) != 0 {
				t.Fatal(left)
			}
			r.reopen()
		}
		if n := r.tally()["removed"]; n != 1 {
			t.Errorf("%d removed after two whole runs", n)
		}
	})
}

// A crash anywhere between the pages and the notes of what is gone removes
// nothing too early and nothing twice.
func TestVanishCrashes(t *testing.T) {
	poller.SetPiece(t, 50)
	ids := manyIDs(120) // three pieces
	for _, effect := range []bool{false, true} {
		crashed := true
		for at := 0; crashed; at++ {
			crashed = false
			t.Run(fmt.Sprintf("effect=%t at=%d", effect, at), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r, f := newRig(t), newFake(t, ids...).mutable()
					f.size = 100
					s := whole(f, "@every 10m")
					s.Vanish = true
					r.once(t.Context(), s)
					f.remove(ids[10:110]...)
					first := r.committed()
					r.fault = func(n int, commit func() error) error {
						if n-first != at {
							return commit()
						}
						crashed = true
						if effect {
							if err := commit(); err != nil {
								return err
							}
						}
						return errBroken
					}
					once := func() {
						if left := r.once(t.Context(), s); len(left) > 0 {
							t.Fatal(left)
						}
						r.reopen()
						time.Sleep(time.Hour)
					}
					once()
					if n := r.tally()["removed"]; n != 0 && !crashed { // else there was a second run
						t.Errorf("%d removed after one run", n)
					}
					once()
					once()
					if n := r.tally()["removed"]; n != 100 {
						t.Errorf("%d removed", n)
					}
				})
			})
		}
	}
}

// Entries that are no usable items are kept raw, counted, and reported once.
func TestQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, f := newRig(t), newFake(t, "a", "b").mutable()
		f.page = func(_ sources.Query, p *sources.Page) {
			p.Undecodable = []sources.Undecodable{{Raw: []byte(`{"id":null}`), Reason: "no id"}}
			for i := range p.Items {
				if p.Items[i].ID[0] == "b" {
					p.Items[i].Body = []byte(`{"id":`)
				}
			}
		}
		stop := r.start(stream("questions", f, "@every 15s"))
		time.Sleep(time.Hour)
		stop()
		r.wantKinds("created a")
		odd, err := r.db.Oddities(questions, 10)
		if err != nil || len(odd) != 2 {
			t.Fatalf("%+v %v", odd, err)
		}
		var raw []string
		for _, o := range odd {
			raw = append(raw, string(o.Raw))
		}
		slices.Sort(raw)
		if !slices.Equal(raw, []string{`{"id":`, `{"id":null}`}) {
			t.Errorf("kept %q", raw)
		}
		r.wantLogged("cannot be used", 2)
		if n := r.items("undecodable"); n < 400 {
			t.Errorf("%v counted in an hour", n)
		}
		if n := testutil.CollectAndCount(r.reg, "syncd_items_total"); n == 0 {
			t.Error("no metric")
		}
	})
}
