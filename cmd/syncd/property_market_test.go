package main

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	market "syncd/internal/sandbox/yandexmarket"
	"syncd/internal/sources/yandexmarket"
	"syncd/internal/state"
)

// TestPropertyMarket is TestProperty for Yandex Market: the same program, lives and
// receiver, another marketplace.
//
//	go test -run TestPropertyMarket ./cmd/syncd                       some seeds
//	SYNCD_PROPERTY=300 go test -run TestPropertyMarket ./cmd/syncd    as many
//	go test -run TestPropertyMarket ./cmd/syncd -seed 17              one, with its log
func TestPropertyMarket(t *testing.T) {
	eachSeed(t, 3, func(t *testing.T, seed uint64, dir string) { newMarketSim(t, seed, dir).run() })
}

// marketPace is what a scenario's times hang on: how often it polls.
type marketPace struct {
	name     string
	schedule []time.Duration // one of them for each stream
	every    []time.Duration // sweep.every
	full     []time.Duration // sweep.full
	storm    time.Duration   // of faults and deaths
	slack    time.Duration   // what budget and backoff may add to any period
	mean     time.Duration   // between two things of one kind that happen in the world
	pauses   time.Duration   // that a dead process stays down, at most
	least    int             // the smallest limit of calls an hour
}

var marketPaces = []marketPace{
	{"quick", []time.Duration{2 * minute, 5 * minute}, []time.Duration{15 * minute, 30 * minute}, []time.Duration{hour, 90 * minute},
		hour, 6 * minute, 4 * minute, 2 * hour, 200},
	{"slow", []time.Duration{30 * minute, hour}, []time.Duration{2 * hour, 4 * hour}, []time.Duration{8 * hour, 12 * hour},
		2 * day, hour, hour, 2 * day, 30},
}

// settleMarket is how long it takes until nothing of a storm is left: windows that
// others have emptied, and stores that are looked for once an hour.
const settleMarket = 90 * minute

// marketPlan is how one stream of one account is polled.
type marketPlan struct {
	schedule, overlap   time.Duration // overlap: of the streams that have one
	every, full, window time.Duration
}

// marketAccount is one configured account.
type marketAccount struct {
	name     string
	business *market.Business
	key      string
	share    float64
	spelled  string // start, as configured
	start    time.Time
	fromNow  bool
	stores   []int64 // campaigns; empty: all
	streams  map[string]marketPlan
}

// marketSim is one run of the test for Yandex Market.
type marketSim struct {
	*rig
	pace     marketPace
	began    time.Time
	late     time.Duration // reviews and questions appear so late at most, and returns
	lateSaid time.Duration // and messages
	box      *market.Market
	accounts []marketAccount
	keys     map[string]*marketAccount
	quirk    market.Quirks
	limits   map[market.Method]int
	added    map[int64]time.Time // stores that were opened later
	off      map[string]bool     // streams that are switched off in this life, account/stream
	calming  bool
	yaml     string
	told     string // what is worth a line at the end

	answers sync.Mutex                     // guards the rest
	doubts  map[state.StreamID][]time.Time // when an answer showed less of a list than there is
	refused []spentWindow
}

// marketMethods are those that the streams call, but for the list of stores.
var marketMethods = []market.Method{market.MethodGetChats, market.MethodGetChat, market.MethodGetChatHistory, market.MethodGetGoodsFeedbacks,
	market.MethodGetGoodsFeedbackComments, market.MethodGetGoodsQuestions, market.MethodGetGoodsQuestionAnswers, market.MethodGetReturns}

func newMarketSim(t *testing.T, seed uint64, dir string) *marketSim {
	s := &marketSim{rig: newRig(t, seed, dir), keys: make(map[string]*marketAccount), limits: make(map[market.Method]int), added: make(map[int64]time.Time),
		off: make(map[string]bool), doubts: make(map[state.StreamID][]time.Time)}
	s.pace = marketPaces[seed%uint64(len(marketPaces))]
	s.pauses = s.pace.pauses
	s.began = time.Now()
	overlap := pick(s.r, []time.Duration{3 * hour, day, 3 * day})
	s.late, s.lateSaid = overlap*8/10, pick(s.r, []time.Duration{0, 30 * time.Second})
	for _, m := range marketMethods {
		if s.r.IntN(5) == 0 {
			s.limits[m] = s.pace.least << s.r.IntN(4)
		}
	}
	s.quirk = s.quirks()
	var businesses []market.BusinessSpec
	for range 1 + s.r.IntN(3)/2 {
		businesses = append(businesses, s.businessSpec())
	}
	var err error
	if s.box, err = market.New(market.Config{Seed: seed, Businesses: businesses, Quirks: s.quirk, Limits: s.limits}); err != nil {
		t.Fatal(err)
	}
	s.connect(s.box.Handler(), 90*time.Millisecond, readMarket)
	s.wire.answered, s.heard = s.answered, s.refusals
	s.bucketOf = func(r *http.Request) string {
		a := s.keys[r.Header.Get("Api-Key")]
		return fmt.Sprint(a.business.ID()) + " " + a.name
	}
	s.owner = func(r *http.Request) string { return s.keys[r.Header.Get("Api-Key")].name }
	s.plan(overlap)
	s.before = s.configure
	return s
}

// plan draws the accounts.
func (s *marketSim) plan(overlap time.Duration) {
	now := time.Now()
	for i, b := range s.box.Businesses() {
		for n := range 1 + s.r.IntN(3)/2 {
			a := &marketAccount{name: fmt.Sprintf("market-%d-%d", i, n), business: b, streams: make(map[string]marketPlan)}
			a.key, a.share = s.box.MintKey(market.KeySpec{Business: b.ID()}), pick(s.r, []float64{1, 0.9, 0.5})
			s.write(a.name+".key", a.key)
			a.spelled = "beginning"
			switch s.r.IntN(4) {
			case 0:
				a.spelled, a.fromNow = "now", true
			case 1:
				a.start = now.Add(-time.Duration(s.r.IntN(20*24)) * hour).Truncate(time.Second)
				a.spelled = a.start.UTC().Format(time.RFC3339)
			}
			if all := b.Stores(); s.r.IntN(4) == 0 {
				a.stores = []int64{pick(s.r, all).ID}
			}
			for _, m := range yandexmarket.Streams() {
				p := marketPlan{schedule: pick(s.r, s.pace.schedule), every: pick(s.r, s.pace.every), full: pick(s.r, s.pace.full), window: time.Duration(20+s.r.IntN(60)) * day}
				if m.Overlap > 0 {
					p.overlap = overlap
				}
				if n == 0 && s.r.IntN(6) > 0 || s.r.IntN(2) == 0 {
					a.streams[m.Name] = p
				}
			}
			if len(a.streams) == 0 {
				continue
			}
			s.accounts, s.names, s.keys[a.key] = append(s.accounts, *a), append(s.names, a.name), a
		}
	}
	if len(s.accounts) == 0 { // by chance: once more
		s.plan(overlap)
	}
}

// configure writes a configuration and reads it as the program does. While it storms,
// streams go off and on between two lives.
func (s *marketSim) configure() {
	clear(s.off)
	var b bytes.Buffer
	fmt.Fprintf(&b, "state: {path: syncd.db, keep_events: 1000d}\nserver: {listen: \"\"}\naccounts:\n")
	for _, a := range s.accounts {
		fmt.Fprintf(&b, "  - name: %s\n    marketplace: yandex_market\n    business_id: %d\n    token_file: %s.key\n    start: %s\n    budget_share: %v\n", a.name, a.business.ID(), a.name, a.spelled, a.share)
		if a.stores != nil {
			fmt.Fprintf(&b, "    campaigns: [%d]\n", a.stores[0])
		}
		fmt.Fprintf(&b, "    endpoints: {api: http://api.test}\n    streams:\n")
		toggles := !s.calming && s.lives > 1 && s.r.IntN(6) == 0
		for _, m := range yandexmarket.Streams() {
			p, on := a.streams[m.Name]
			if on && toggles && s.r.IntN(2) == 0 {
				on, s.off[a.name+"/"+m.Name] = false, true
			}
			if _, planned := a.streams[m.Name]; !planned {
				fmt.Fprintf(&b, "      %s: {enabled: false}\n", m.Name)
				continue
			}
			keys := []string{fmt.Sprintf("enabled: %v", on), fmt.Sprintf("schedule: \"@every %s\"", p.schedule)}
			if p.overlap > 0 {
				keys = append(keys, "overlap: "+p.overlap.String())
			}
			if m.Name != yandexmarket.ChatMessages {
				keys = append(keys, fmt.Sprintf("sweep: {every: %s, full: %s, window: %s}", p.every, p.full, p.window))
			}
			fmt.Fprintf(&b, "      %s: {%s}\n", m.Name, strings.Join(keys, ", "))
		}
	}
	fmt.Fprintf(&b, "sinks:\n  - {name: archive, type: file, path: events.ndjson, from: beginning}\n")
	s.yaml = b.String()
	s.load(s.yaml)
}

// run is the whole test: a storm, a calm, rest, and the look back.
func (s *marketSim) run() {
	s.up()
	s.storm(s.pace.storm, s)
	s.calm()
	s.stop() // a new life waits for nothing that went wrong in the last one
	s.up()
	full := s.longest()
	time.Sleep(settleMarket)
	calm := time.Now()
	s.changeUntil(calm.Add(full+full/8), s.pace.mean, s)
	for _, b := range s.box.Businesses() {
		s.lastWords(b)
		b.Rest()
	}
	rest := time.Now()
	time.Sleep(full + full/8 + s.pace.slack)
	s.look()
	s.check(calm, rest)
	s.stop()
	if s.t.Failed() {
		s.t.Logf("quirks: %+v\nlimits: %v\nconfiguration:\n%s", s.quirk, s.limits, s.yaml)
	}
	s.t.Logf("%s: %d accounts, %d requests, %d commits, %d lives, %s; %s", s.pace.name, len(s.accounts), s.wire.requests, s.commits.Load(), s.lives,
		time.Since(s.began).Round(time.Minute), s.told)
}

// calm ends all that goes wrong.
func (s *marketSim) calm() {
	s.calming = true
	s.box.ClearFaults()
	s.receiver.behave(0, 0)
	s.deadly = 0
	for _, b := range s.box.Businesses() {
		s.elsewhere(b, 0)
		for _, st := range b.Stores() {
			if err := b.SetAvailability(st.ID, market.Available); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// usable is how many calls an hour an account may make of a method, where the others
// of its business make as many.
func (s *marketSim) usable(a marketAccount, m market.Method) float64 {
	limit, n, share := s.limits[m], 0, a.share
	if limit == 0 {
		limit = map[market.Method]int{market.MethodGetGoodsQuestions: 1000, market.MethodGetGoodsQuestionAnswers: 1000, market.MethodGetChat: 1000}[m]
	}
	if limit == 0 {
		limit = 5000
	}
	for _, o := range s.accounts {
		if o.business == a.business {
			n, share = n+1, min(share, o.share) // of a seller's accounts the smallest counts
		}
	}
	return max(1, float64(limit)*share-1) / float64(n)
}

// stretch is by how much the visits of the children of so many parents come later than
// planned, at most.
func (s *marketSim) stretch(a marketAccount, m market.Method, parents int, p marketPlan) float64 {
	return max(1, float64(parents)*float64(hour)/float64(p.every)/(0.7*s.usable(a, m)))
}

// bound is how long any change of a kind may stay unseen in the calm.
func (s *marketSim) bound(a marketAccount, stream string, kind string) time.Duration {
	p := a.streams[stream]
	list := func(m market.Method, pages int) time.Duration { // of a reading that others share the budget with
		return time.Duration(4 * float64(pages) / s.usable(a, m) * float64(hour))
	}
	switch kind {
	case "chat":
		return 4*(p.schedule+list(market.MethodGetChats, 2+len(a.business.Chats())/20)) + s.pace.slack
	case "message":
		driver, ok := a.streams[yandexmarket.Chats]
		if !ok {
			driver = p
		}
		return 4*(driver.schedule+list(market.MethodGetChats, 2+len(a.business.Chats())/20)) + list(market.MethodGetChatHistory, 40) + s.pace.slack
	case "feedback":
		return p.full + p.full/5 + list(market.MethodGetGoodsFeedbacks, 12) + s.pace.slack
	case "question":
		return p.full + p.full/5 + list(market.MethodGetGoodsQuestions, 20) + s.pace.slack
	case "feedback_comment":
		return time.Duration(1.2*s.stretch(a, market.MethodGetGoodsFeedbackComments, len(a.business.Feedbacks()), p)*float64(p.full)) + s.pace.slack
	case "answer":
		return time.Duration(1.2*s.stretch(a, market.MethodGetGoodsQuestionAnswers, len(a.business.Questions()), p)*float64(p.full)) + s.pace.slack
	}
	return p.full + p.full/5 + list(market.MethodGetReturns, 20) + s.pace.slack
}

// longest is the longest bound that there is.
func (s *marketSim) longest() (d time.Duration) {
	for _, a := range s.accounts {
		for stream, kinds := range marketKinds {
			if _, on := a.streams[stream]; on {
				for _, kind := range kinds {
					d = max(d, s.bound(a, stream, string(kind)))
				}
			}
		}
	}
	return d
}
