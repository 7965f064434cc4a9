package wildberries_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"syncd/internal/sandbox"
	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/sourcetest"
	"syncd/internal/sources/wildberries"
)

// sandboxed is one account of the simulated marketplace, which is another reading
// of the documents than this package's.
type sandboxed struct {
	t       *testing.T
	sandbox *sandbox.Sandbox
	world   *sandbox.World
	source  *wildberries.Client
	bodies  map[string]json.RawMessage // the last version of each item, by id
	shown   map[string]int             // the run that has shown it last
	run     int
	cursors map[string]sources.Cursor
}

func inSandbox(t *testing.T, acc int, quirks sandbox.Quirks, spec sandbox.WorldSpec) *sandboxed {
	t.Helper()
	box, err := sandbox.New(sandbox.Config{Seed: 7, Sellers: []sandbox.Seller{{World: spec}}, Quirks: quirks})
	if err != nil {
		t.Fatal(err)
	}
	world := box.Worlds()[0]
	network := sourcetest.NewNetwork(t)
	network.Serve(t, box.Handler())
	cfg := wildberries.Config{
		Account: "shop", Tokens: make(map[string]string), Endpoints: make(map[string]string), BudgetShare: 1,
		Budgets: apiclient.NewBudgets(memory{}, slog.New(slog.DiscardHandler)), Metrics: apiclient.NewMetrics(prometheus.NewRegistry()),
		Transport: network.Transport(t), UserAgent: "syncd/test", Grace: 5 * time.Second,
	}
	for group := range wildberries.Groups() {
		cfg.Tokens[group], cfg.Endpoints[group] = box.MintToken(sandbox.TokenSpec{Seller: world.ID(), Acc: acc, ReadOnly: true}), "http://"+group+".test"
	}
	source, err := wildberries.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &sandboxed{t: t, sandbox: box, world: world, source: source, bodies: make(map[string]json.RawMessage), shown: make(map[string]int), cursors: make(map[string]sources.Cursor)}
}

// read makes one run of a stream, and returns its last page.
func (s *sandboxed) read(stream string) sources.Page {
	s.t.Helper()
	s.run++
	for {
		page, err := s.source.Fetch(s.t.Context(), sources.Query{Stream: stream, Walk: sources.News, Cursor: s.cursors[stream], Overlap: time.Minute, Now: time.Now()})
		if err != nil {
			s.t.Fatalf("%s: %v", stream, err)
		}
		for _, it := range page.Items {
			id := fmt.Sprint(it.ID)
			s.bodies[id], s.shown[id] = it.Body, s.run
		}
		if len(page.Undecodable) > 0 {
			s.t.Errorf("%s: undecodable: %s", stream, page.Undecodable[0].Raw)
		}
		if s.cursors[stream] = page.Cursor; page.Done {
			return page
		}
	}
}

// lawful fails the test if the marketplace had to refuse anything.
func (s *sandboxed) lawful() {
	s.t.Helper()
	if n := s.sandbox.Stats(); n.Violations > 0 || n.Pings > 0 || n.NotFound > 0 || n.Unauthorized > 0 || n.BearerPrefixes > 0 {
		s.t.Errorf("the marketplace saw %+v", n)
	}
}

// TestClaimsInTheSandbox: a world in which claims come, go and move, in every order
// of the lists. No claim stays unread for long, and they are known as they are.
func TestClaimsInTheSandbox(t *testing.T) {
	for order := sandbox.ClaimsNewestFirst; order <= sandbox.ClaimsShuffled; order++ {
		for _, limit := range []int{10, 200} {
			t.Run(fmt.Sprintf("order %d, pages of %d", order, limit), func(t *testing.T) {
				synctest.Test(t, bubble(func(t *testing.T) {
					s := inSandbox(t, sandbox.AccPersonal, sandbox.Quirks{ClaimOrder: order}, sandbox.WorldSpec{Claims: 60, ClaimEvery: 2 * time.Minute, ClaimChangeEvery: 30 * time.Second, StillClaimChanges: .3})
					s.source.SetLimits(limit, 500)
					for began := time.Now(); time.Since(began) < 40*time.Minute; time.Sleep(time.Minute) {
						s.read(wildberries.Claims)
					}
					last, known := s.run, 0
					for range 6 {
						s.read(wildberries.Claims)
					}
					for _, c := range s.world.Claims() {
						id := fmt.Sprint([]string{c.ID})
						if s.shown[id] <= last-2 && c.Created.Before(time.Now().Add(-10*time.Minute)) {
							t.Errorf("%s was not read in %d runs", c.ID, s.run-s.shown[id])
						}
						if bytes.Equal(s.bodies[id], c.JSON) {
							known++
						}
					}
					// One may have changed behind the last reading of it.
					if all := len(s.world.Claims()); known < all-8 {
						t.Errorf("%d of %d claims are known as they are", known, all)
					}
					s.lawful()
				}))
			})
		}
	}
}

// TestPinsInTheSandbox: what a complete run does not show is gone.
func TestPinsInTheSandbox(t *testing.T) {
	for state := sandbox.PinsAll; state <= sandbox.PinsRefused; state++ {
		synctest.Test(t, bubble(func(t *testing.T) {
			s := inSandbox(t, sandbox.AccPersonal, sandbox.Quirks{PinsWithoutState: state}, sandbox.WorldSpec{Feedbacks: 200, Pins: 60, FeedbackEvery: time.Minute, PinEvery: 2 * time.Minute, PinChangeEvery: 2 * time.Minute})
			s.source.SetLimits(200, 7)
			for range 60 {
				before := s.world.Pins()
				page := s.read(wildberries.FeedbackPins)
				after := make(map[int]bool)
				for _, p := range s.world.Pins() {
					after[p.ID] = true
				}
				for _, p := range before {
					if after[p.ID] && s.shown[fmt.Sprint([]string{fmt.Sprint(p.ID)})] != s.run {
						t.Errorf("pin %d exists, and run %d did not show it", p.ID, s.run)
					}
				}
				if page.Partial || page.Note != "" {
					t.Errorf("partial %v, note %q", page.Partial, page.Note)
				}
				time.Sleep(time.Minute)
			}
			s.lawful()
		}))
	}
}

// TestChatsInTheSandbox: the list as it is, and a first message that says that the
// list has something new.
func TestChatsInTheSandbox(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		s := inSandbox(t, sandbox.AccPersonal, sandbox.Quirks{}, sandbox.WorldSpec{Events: 500, EventEvery: time.Minute, UnlistedChats: -1, ReplySignEvery: time.Minute})
		for range 30 {
			s.read(wildberries.Chats)
			time.Sleep(10 * time.Minute)
		}
		page := s.read(wildberries.Chats)
		chats := s.world.Chats()
		if len(page.Items) != len(chats) || len(chats) == 0 {
			t.Fatalf("%d chats, %d exist", len(page.Items), len(chats))
		}
		for _, c := range chats {
			if !bytes.Equal(s.bodies[fmt.Sprint([]string{c.ID})], c.JSON) {
				t.Errorf("chat %s is not known as it is", c.ID)
			}
		}
		var last time.Time
		for i, it := range page.Items {
			if it.Changed.Before(last) && !it.Changed.IsZero() { // some have no message
				t.Errorf("chat %d moved before one in front of it", i)
			}
			if !it.Changed.IsZero() {
				last = it.Changed
			}
		}
		s.lawful()
	}))
}

// TestBaseTokenInTheSandbox: a day with a request an hour, the chats' list beside
// the events, and never one too many.
func TestBaseTokenInTheSandbox(t *testing.T) {
	synctest.Test(t, bubble(func(t *testing.T) {
		s := inSandbox(t, sandbox.AccBase, sandbox.Quirks{}, sandbox.WorldSpec{Events: 60, Claims: 20})
		for _, group := range []string{wildberries.GroupChat, wildberries.GroupFeedbacks, wildberries.GroupReturns} {
			if _, err := s.source.Probe(t.Context(), group); err != nil {
				t.Errorf("%s: %v", group, err)
			}
		}
		for range 3 {
			s.read(wildberries.ChatEvents)
			s.read(wildberries.Chats)
			s.read(wildberries.Claims)
		}
		s.lawful()
	}))
}
