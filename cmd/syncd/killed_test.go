package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"syncd/internal/sandbox"
)

// tripwire stands in front of a server and says when it has been called so many
// times: what follows an answer, a commit or a delivery, takes some milliseconds, and
// a moment chosen by the clock alone would hardly ever fall into them.
type tripwire struct {
	url string

	mu     sync.Mutex
	after  int
	sprung chan struct{}
}

func newTripwire(t *testing.T, h http.Handler) *tripwire {
	w := &tripwire{}
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		h.ServeHTTP(rw, req)
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.after--; w.after == 0 {
			close(w.sprung)
		}
	}))
	t.Cleanup(s.Close)
	w.url = s.URL
	return w
}

// set returns a channel that is closed with the n-th answer from now.
func (w *tripwire) set(n int) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.after, w.sprung = n, make(chan struct{})
	return w.sprung
}

// killAfter kills a process at a random moment within a time after a tripwire; nil:
// after its start. False: it had ended by itself, which it may with exit code 0 only.
func (p *process) killAfter(sprung <-chan struct{}, random *rand.Rand, within time.Duration) bool {
	p.t.Helper()
	if sprung != nil {
		select {
		case <-sprung:
		case <-p.ended:
		case <-time.After(2 * time.Minute):
			p.t.Fatal("nothing happens within 2 minutes")
		}
	}
	time.Sleep(time.Duration(random.Int64N(int64(within))))
	if p.kill() {
		return true
	}
	p.exits(0)
	return false
}

// atWork is about how long bringing in or delivering a page takes. A cursor that is
// saved before its items is found in about three of four runs of these tests.
const atWork = 3 * time.Millisecond

func randomly(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// TestEndToEndKilled (G2 to G4): the program is killed with no chance to clean up,
// right after its start, while it brings in a page, and while it delivers, in a world
// that goes on; then one run finishes. Nothing is lost, and nothing is in the file
// twice. 100 kills: SYNCD_E2E=full.
func TestEndToEndKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	random := randomly(t)
	api, hook := newTripwire(t, w.sb.Handler()), newTripwire(t, w.receiver)
	raw, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	config := regexp.MustCompile(`endpoints: .*`).ReplaceAllString(string(raw),
		fmt.Sprintf("endpoints: {feedbacks: %[1]q, chat: %[1]q, returns: %[1]q}", api.url))
	write(t, w.config, strings.ReplaceAll(config, w.receiver.url, hook.url))
	world := w.sb.Worlds()[0]
	kills := 10
	if os.Getenv("SYNCD_E2E") == "full" {
		kills = 100
	}
	killed := 0
	for i := range kills {
		var sprung <-chan struct{}
		within := atWork
		switch i % 5 {
		case 0:
			within = time.Second
		case 1:
			sprung = hook.set(1 + random.IntN(40))
		default:
			sprung = api.set(1 + random.IntN(4))
		}
		if start(t, w.config, []string{"once", "run"}[random.IntN(2)]).killAfter(sprung, random, within) {
			killed++
		}
		for range 20 {
			world.AddEvent(sandbox.EventSpec{Text: "Уже отправили?"})
		}
		if _, err := world.AddQuestion(sandbox.QuestionSpec{}); err != nil {
			t.Fatal(err)
		}
	}
	if killed < kills/2 {
		t.Errorf("%d of %d runs were killed", killed, kills)
	}
	w.once(t)
	w.check(t)
}

// TestBackfillKilled (G2 to G4): history is read again by processes that are killed:
// the command, and `once` that goes on with what it was asked for.
func TestBackfillKilled(t *testing.T) {
	t.Parallel()
	s := newShop(t, sandbox.WorldSpec{Events: 400, Questions: 300, Feedbacks: 300, Claims: 40}, sandbox.TokenSpec{}, "")
	random := randomly(t)
	api := newTripwire(t, s.sb.Handler())
	raw, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.config, regexp.MustCompile(`endpoints: .*`).ReplaceAllString(string(raw),
		fmt.Sprintf("endpoints: {feedbacks: %[1]q, chat: %[1]q, returns: %[1]q}", api.url)))
	s.expect(t, 0, "", "once") // start: now keeps it all silent
	if n := s.delivered(); n != 0 {
		t.Fatalf("%d events", n)
	}
	ask := []string{"backfill", "--account", "shop-a", "--since", "2000-01-01T00:00:00Z"}
	kills := 6
	if os.Getenv("SYNCD_E2E") == "full" {
		kills = 40
	}
	for i := range kills {
		args := ask
		if i%2 == 1 {
			args = []string{"once"}
		}
		sprung := api.set(1 + random.IntN(4))
		start(t, s.config, args...).killAfter(sprung, random, atWork)
	}
	s.expect(t, 0, "", ask...)
	s.eachOnce(t)
}

// TestSkipKilled: `state skip` is killed, and the stream is read on.
func TestSkipKilled(t *testing.T) {
	t.Parallel()
	s := newShop(t, sandbox.WorldSpec{Events: 120}, sandbox.TokenSpec{}, `defaults: {wildberries: {start: beginning}}`)
	random := randomly(t)
	s.expect(t, 0, "", "once")
	for range 10 {
		start(t, s.config, "state", "skip", "--account", "shop-a", "--stream", "chat_events").killAfter(nil, random, 200*time.Millisecond)
	}
	s.sb.Worlds()[0].AddEvent(sandbox.EventSpec{Text: "Есть кто живой?"})
	s.expect(t, 0, "", "once")
	s.eachOnce(t)
}

// TestTwoOnOneFile: a second syncd on the same state file is refused and told which
// file it is, whether the first runs already or begins in the same moment.
func TestTwoOnOneFile(t *testing.T) {
	t.Parallel()
	s := newShop(t, sandbox.WorldSpec{Questions: 20}, sandbox.TokenSpec{}, "")
	path := filepath.Join(s.dir, "syncd.db")
	other := *s
	other.config = filepath.Join(s.dir, "other.yaml")
	raw, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	write(t, other.config, regexp.MustCompile(`listen: "[^"]*"`).ReplaceAllString(string(raw), `listen: ""`))
	first, second := start(t, s.config, "run"), start(t, other.config, "run")
	refused, runs := second, first
	select {
	case <-second.ended:
	case <-first.ended:
		refused, runs = first, second
	case <-time.After(2 * time.Minute):
		t.Fatal("both run")
	}
	for _, p := range []*process{refused, start(t, other.config, "run"), start(t, other.config, "once")} {
		p.exits(1)
		if out := p.logged(); strings.Count(out, "\n") != 1 || !strings.Contains(out, path) || !strings.Contains(out, "locked by another process") {
			t.Errorf("%s:\n%s", p.cmd.Args, out)
		}
	}
	runs.stop()
	s.noViolations(t)
}
