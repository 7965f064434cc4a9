package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/config"
	"syncd/internal/sandbox"
	"syncd/internal/sources/sourcetest"
	"syncd/internal/state"
)

// The property test runs the daemon's own parts in one process with a simulated
// marketplace, in a bubble whose clock leaps: days pass in a second. The seed
// draws the world, the configuration, what goes wrong and when the process dies.
// Afterwards what came out is held against what the marketplace really showed.
//
//	go test -run TestProperty ./cmd/syncd                        some seeds
//	SYNCD_PROPERTY=300 go test -run TestProperty ./cmd/syncd     as many
//	go test -run TestProperty ./cmd/syncd -seed 17               one, with its log in /tmp or $TMPDIR
var propertySeed = flag.Uint64("seed", 0, "run the property tests with this seed alone, and keep its log")

func TestProperty(t *testing.T) {
	eachSeed(t, 3, func(t *testing.T, seed uint64, dir string) { newSim(t, seed, dir).run() })
}

// eachSeed runs a property test, each seed in a bubble of its own: n of them, or what
// the environment and the flag say.
func eachSeed(t *testing.T, n uint64, run func(t *testing.T, seed uint64, dir string)) {
	first := uint64(1)
	if text := os.Getenv("SYNCD_PROPERTY"); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if *propertySeed != 0 {
		first, n = *propertySeed, 1
	}
	for seed := first; seed < first+n; seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			dir := propertyDir(t) // outside the bubble: it is removed after it
			synctest.Test(t, func(t *testing.T) { run(t, seed, dir) })
			if t.Failed() {
				name, _, _ := strings.Cut(t.Name(), "/")
				t.Logf("again: go test -run %s$ ./cmd/syncd -seed %d", name, seed)
			}
		})
	}
}

// propertyDir is in memory where that is possible: a process that is killed loses
// nothing that the kernel has, so the disk's own time proves nothing.
func propertyDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "syncd-property-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// fail reports a broken guarantee. One cause mostly breaks many items: a few of
// each will do.
func (s *rig) fail(guarantee, format string, args ...any) {
	if s.failures[guarantee]++; s.failures[guarantee] > 5 {
		s.t.Fail()
		return
	}
	s.t.Errorf(guarantee+": "+format, args...)
}

// pace is what a scenario's times hang on: how much one request costs.
type pace struct {
	name     string
	acc      int
	schedule []time.Duration // one of them for each stream
	storm    time.Duration   // of faults and deaths
	settle   time.Duration   // that all it takes to see everything needs, beside sweep.full
	slack    time.Duration   // what budget and backoff may add to any period
	probe    time.Duration   // what they may where nothing else happens
	mean     time.Duration   // between two things of one kind that happen in the world
	overlap  []time.Duration
	every    []time.Duration // sweep.every
	full     []time.Duration // sweep.full
	pauses   time.Duration   // that a dead process stays down, at most
}

const (
	minute = time.Minute
	hour   = time.Hour
	day    = 24 * time.Hour
)

var paces = []pace{
	{"quick", sandbox.AccPersonal, []time.Duration{30 * time.Second, 2 * minute}, hour, 6 * minute, 3 * minute, minute, 4 * minute,
		[]time.Duration{10 * minute, hour}, []time.Duration{2 * minute, 5 * minute}, []time.Duration{10 * minute, 20 * minute}, 3 * hour},
	{"slow", sandbox.AccPersonal, []time.Duration{20 * minute, hour}, 2 * day, 2 * hour, hour, 5 * minute, 2 * hour,
		[]time.Duration{3 * hour, day}, []time.Duration{2 * hour, 4 * hour}, []time.Duration{8 * hour, 12 * hour}, 2 * day},
	{"base", sandbox.AccBase, []time.Duration{30 * time.Second, 10 * minute}, 5 * day, 3 * day, 3 * day, 60 * hour, 4 * hour,
		[]time.Duration{3 * hour, day}, []time.Duration{hour, 12 * hour}, []time.Duration{day, 2 * day}, 2 * day},
}

// streamPlan is how one stream of one account is polled.
type streamPlan struct {
	schedule, overlap          time.Duration
	every, full, window, bound time.Duration
}

// accountPlan is one configured account.
type accountPlan struct {
	name    string
	world   *sandbox.World
	start   time.Time // what is older is silent; zero: nothing is
	fromNow bool
	streams map[string]streamPlan
}

// rig is what the tests of all marketplaces run in: the lives of a daemon, the wire
// between them and the marketplace, and the receiver.
type rig struct {
	t        *testing.T
	seed     uint64
	dir      string
	r        *rand.Rand // the test's own goroutine's
	deadly   float64    // share of lives that end by themselves
	net      *sourcetest.Network
	wire     *wire
	receiver *endpoint
	cfg      *config.Config
	log      *slog.Logger
	names    []string                       // of accounts
	bucketOf func(req *http.Request) string // names the budget that a request spends; it begins with the seller
	owner    func(req *http.Request) string // the account, for the log
	pauses   time.Duration                  // that a dead process stays down, at most
	before   func()                         // called before each life begins
	// heard is called with every answer that reaches a process. Nil: nobody wants to know.
	heard    func(p *life, req *http.Request, resp *http.Response)
	commits  atomic.Int64
	lives    int
	failures map[string]int    // told of each guarantee
	prints   map[string]string // fingerprints of items

	mu     sync.Mutex
	proc   *life // nil: it is down
	runs   map[state.StreamID][]runSpan
	deaths []time.Time
}

// sim is one run of the test for Wildberries.
type sim struct {
	*rig
	pace     pace
	late     time.Duration
	box      *sandbox.Sandbox
	accounts []accountPlan
	buckets  map[string]string // of tokens: whose budget they spend
	owners   map[string]string // of tokens: the account, for the log
	quirk    sandbox.Quirks
	yaml     string
}

// runSpan is one complete run of the news.
type runSpan struct{ began, done time.Time }

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// newRig returns a rig without a marketplace.
func newRig(t *testing.T, seed uint64, dir string) *rig {
	sourcetest.SetClock()
	s := &rig{t: t, seed: seed, dir: dir, r: rand.New(rand.NewPCG(seed, 1)), runs: make(map[state.StreamID][]runSpan), failures: make(map[string]int), prints: make(map[string]string), before: func() {}}
	s.deadly = pick(s.r, []float64{0.3, 0.6, 0.9})
	s.log = slog.New(slog.DiscardHandler)
	if *propertySeed != 0 {
		f, err := os.CreateTemp("", fmt.Sprintf("syncd-property-%d-*.log", seed))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		t.Logf("log: %s", f.Name())
		s.log = slog.New(slog.NewTextHandler(f, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	s.receiver = &endpoint{r: rand.New(rand.NewPCG(seed, 3)), current: make(map[string]bool)}
	return s
}

// connect puts a wire between the rig and a marketplace.
func (s *rig) connect(handler http.Handler, most time.Duration, read func(r *http.Request, body []byte) []shownItem) {
	s.wire = newWire(handler, rand.New(rand.NewPCG(s.seed, 2)), pick(s.r, []float64{0, 0, 0.1, 0.5}), most, read)
	s.wire.came = s.look
	s.net = sourcetest.NewNetwork(s.t)
	s.net.Serve(s.t, s.wire)
}

// load reads a configuration as the program does.
func (s *rig) load(yaml string) {
	s.write("syncd.yaml", yaml)
	e := env{getenv: func(string) string { return "" }, stdout: io.Discard, stderr: io.Discard, configPath: filepath.Join(s.dir, "syncd.yaml")}
	var err error
	if s.cfg, err = e.loadConfig(); err != nil {
		s.t.Fatalf("%v\n%s", err, yaml)
	}
}

func newSim(t *testing.T, seed uint64, dir string) *sim {
	s := &sim{rig: newRig(t, seed, dir), buckets: make(map[string]string), owners: make(map[string]string)}
	s.pace = paces[seed%uint64(len(paces))]
	s.pauses = s.pace.pauses
	overlap := pick(s.r, s.pace.overlap)
	s.late = overlap * 8 / 10
	var sellers []sandbox.Seller
	for range 1 + s.r.IntN(2) {
		sellers = append(sellers, sandbox.Seller{World: s.worldSpec()})
	}
	s.quirk = s.quirks()
	var err error
	if s.box, err = sandbox.New(sandbox.Config{Seed: seed, Sellers: sellers, Quirks: s.quirk, ChatBuckets: sandbox.ChatBuckets(s.r.IntN(2))}); err != nil {
		t.Fatal(err)
	}
	s.connect(s.box.Handler(), 1500*time.Millisecond, entriesOf)
	s.bucketOf = func(req *http.Request) string { return s.buckets[req.Header.Get("Authorization")] + " " + req.URL.Host }
	s.owner = func(req *http.Request) string { return s.owners[req.Header.Get("Authorization")] }
	s.configure(overlap)
	return s
}

func (s *sim) worldSpec() sandbox.WorldSpec {
	mean := func() time.Duration { return s.pace.mean/2 + time.Duration(s.r.Int64N(int64(s.pace.mean))) }
	some := func(most int) int { return s.r.IntN(most) }
	spec := sandbox.WorldSpec{
		Journal: true, Events: some(120), Questions: some(90), Feedbacks: 10 + some(90), Claims: some(30), Pins: some(8),
		Span: time.Duration(3+some(30)) * day, EventEvery: mean() / 2, QuestionEvery: mean(), FeedbackEvery: mean(), FeedbackChangeEvery: mean(),
		ClaimEvery: 3 * mean(), ClaimChangeEvery: mean(), PinEvery: 4 * mean(), PinChangeEvery: 6 * mean(), ReplySignEvery: 5 * mean(),
		AnswerAfter: 5 * s.pace.mean, ModerateAfter: s.pace.mean, StillClaimChanges: 0.3, AnsweredUnseen: 0.1, PageTies: pick(s.r, []int{0, 2, 5}),
		ChatsListedAfter: pick(s.r, []time.Duration{0, hour}),
	}
	if s.r.IntN(2) == 0 {
		spec.LateEvents, spec.LateBy = 0.2, 40*time.Second
		spec.LateQuestions, spec.LateFeedbacks, spec.IndexedLateBy = 0.3, 0.3, s.late
	}
	return spec
}

func (s *sim) quirks() sandbox.Quirks {
	coin := func() bool { return s.r.IntN(2) == 0 }
	return sandbox.Quirks{
		PageSize: pick(s.r, []int{0, 10, 20}), InclusiveNext: coin(), EmptyNext: sandbox.EmptyNext(s.r.IntN(5)), EmptyTimesAbsent: coin(),
		FromExclusive: coin(), ToExclusive: coin(), WholeSeconds: coin(), OldUnanswered: sandbox.OldUnanswered(s.r.IntN(3)),
		FeedbackPageCut: pick(s.r, []int{0, 50, 60}), QuestionPageCut: pick(s.r, []int{0, 50, 60}), PhotoNoise: coin(),
		ChatsUnordered: coin(), ClaimOrder: sandbox.ClaimOrder(s.r.IntN(4)), RetryRoundsDown: coin(), ProblemsAsJSON: coin(), Denial: sandbox.Denial(s.r.IntN(3)),
	}
}

// configure writes a configuration and reads it as the program does.
func (s *sim) configure(overlap time.Duration) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "state: {path: syncd.db, keep_events: 1000d}\nserver: {listen: \"\"}\naccounts:\n")
	now := time.Now()
	for i, w := range s.box.Worlds() {
		accounts := 1 + s.r.IntN(2)
		for n := range accounts {
			a := accountPlan{name: fmt.Sprintf("shop-%d-%d", i, n), world: w, streams: make(map[string]streamPlan)}
			acc, share := s.pace.acc, pick(s.r, []float64{1, 0.9, 0.5})
			if acc == sandbox.AccBase {
				share = max(share, 0.9) // with half of it, all that two accounts want takes weeks
			}
			slack := time.Duration(accounts) * s.pace.slack // they share the budget
			if n > 0 && acc != sandbox.AccBase && s.r.IntN(3) == 0 {
				acc = sandbox.AccService // another class, with a budget of its own; beside Base a month of requests by the second
			}
			token := s.box.MintToken(sandbox.TokenSpec{Seller: w.ID(), Acc: acc, ReadOnly: true, Payload: map[string]any{"oid": n}, Expires: now.Add(1000 * day)})
			s.buckets[token] = w.ID() + " " + strconv.Itoa(acc)
			s.owners[token] = a.name
			s.write(a.name+".token", token)
			start := "beginning"
			switch s.r.IntN(4) {
			case 0:
				start, a.fromNow = "now", true
			case 1:
				a.start = now.Add(-time.Duration(s.r.IntN(10*24)) * hour).Truncate(time.Second)
				start = a.start.UTC().Format(time.RFC3339)
			}
			fmt.Fprintf(&b, "  - name: %s\n    marketplace: wildberries\n    token_file: %[1]s.token\n    start: %s\n    budget_share: %v\n", a.name, start, share)
			fmt.Fprintf(&b, "    endpoints: {feedbacks: http://feedbacks.test, chat: http://chat.test, returns: http://returns.test}\n    streams:\n")
			for _, m := range marketplaces[0].streams {
				p := streamPlan{schedule: pick(s.r, s.pace.schedule), overlap: m.Overlap}
				keys := []string{fmt.Sprintf("schedule: \"@every %s\"", p.schedule)}
				p.bound = 4*p.schedule + slack
				switch m.Name {
				case "questions", "feedbacks":
					p.overlap, p.every, p.full = overlap, pick(s.r, s.pace.every), pick(s.r, s.pace.full)
					p.window = time.Duration(5+s.r.IntN(60)) * day
					keys = append(keys, "overlap: "+p.overlap.String(), fmt.Sprintf("sweep: {every: %s, full: %s, window: %s}", p.every, p.full, p.window))
					p.bound = p.full + p.full/5 + slack
				}
				on := n == 0 || s.r.IntN(2) == 0
				keys = append(keys, fmt.Sprintf("enabled: %v", on))
				if on {
					a.streams[m.Name] = p
				}
				fmt.Fprintf(&b, "      %s: {%s}\n", m.Name, strings.Join(keys, ", "))
			}
			s.accounts, s.names = append(s.accounts, a), append(s.names, a.name)
		}
	}
	fmt.Fprintf(&b, "sinks:\n  - {name: archive, type: file, path: events.ndjson, from: beginning}\n")
	s.yaml = b.String()
	s.load(s.yaml)
}

func (s *rig) write(name, content string) {
	s.t.Helper()
	write(s.t, filepath.Join(s.dir, name), content)
}

func sellerOf(bucket string) string {
	seller, _, _ := strings.Cut(bucket, " ")
	return seller
}

// look notes which runs of the news are complete. There is a request between any
// two of a stream, and it is called with each.
func (s *rig) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return
	}
	for _, st := range s.proc.app.poller.Status() {
		news := st.Walks[0]
		done := s.runs[st.Stream]
		if !news.Last.IsZero() && (len(done) == 0 || news.Last.After(done[len(done)-1].done)) {
			s.runs[st.Stream] = append(done, runSpan{news.Began, news.Last})
		}
	}
}

// run is the whole test: a storm, a calm, rest, and the look back.
func (s *sim) run() {
	began := time.Now()
	s.storm(s.pace.storm, s)
	s.box.ClearFaults()
	s.receiver.behave(0, 0)
	s.deadly = 0
	s.stop() // a new life waits for nothing that went wrong in the last one
	s.up()
	var full time.Duration
	for _, a := range s.accounts {
		for _, p := range a.streams {
			full = max(full, p.bound)
		}
	}
	time.Sleep(s.pace.settle)
	calm := time.Now()
	s.changeUntil(calm.Add(full+full/4), s.pace.mean, s)
	for _, w := range s.box.Worlds() {
		w.Rest()
	}
	time.Sleep(s.pace.settle + full)
	probes := s.probes()
	time.Sleep(full)
	s.look()
	s.check(calm, probes)
	s.idle()
	s.stop()
	if s.t.Failed() {
		s.t.Logf("quirks: %#v\nconfiguration:\n%s", s.quirk, s.yaml)
	}
	s.t.Logf("%s: %d accounts, %d requests, %d commits, %d lives, %s", s.pace.name, len(s.accounts), s.wire.requests, s.commits.Load(), s.lives, time.Since(began))
}

// up begins a life, and another should that die at once.
func (s *rig) up() {
	for s.proc == nil {
		s.lives++
		s.before()
		if _, err := s.start(); err != nil && !errors.Is(err, errDead) && !errors.Is(err, errNoRoom) {
			s.t.Fatalf("the daemon does not start: %v", err)
		}
	}
}

// stop ends a life in order.
func (s *rig) stop() {
	if s.proc != nil {
		s.proc.cancel()
		s.proc.end(s.t)
	}
}
