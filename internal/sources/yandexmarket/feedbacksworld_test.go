package yandexmarket_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sandbox/kit"
	box "syncd/internal/sandbox/yandexmarket"
	"syncd/internal/sources"
	"syncd/internal/sources/apiclient"
	"syncd/internal/sources/sourcetest"
	"syncd/internal/sources/yandexmarket"
)

// listener polls one of the two streams in the simulated marketplace as the engine does,
// as far as it matters here: what is saved is saved page by page, and a crash loses what
// is not.
type listener struct {
	t        *testing.T
	r        *rand.Rand
	stream   string
	market   *box.Market
	business *box.Business
	cfg      yandexmarket.Config
	ledger   memory
	source   sources.Source
	start    time.Time
	crash    float64 // probability that a page is the last of its process

	cursors map[sources.Walk]sources.Cursor
	visits  visits
	visit   *sources.Visit
	read    map[string]map[string]time.Time // bodies of each item, and when they were read for the first time
	ends    []time.Time                     // of complete runs of News
	swept   time.Time
	whole   time.Time
	pages   map[sources.Walk]int
}

func (k *listener) restart() {
	k.cfg.Budgets = apiclient.NewBudgets(k.ledger, slog.New(slog.DiscardHandler))
	source, err := yandexmarket.New(k.cfg)
	if err != nil {
		k.t.Fatal(err)
	}
	k.source = source
}

// page reads a page of a walk and saves it. It returns false where the walk cannot go
// on now.
func (k *listener) page(walk sources.Walk) (done, ok bool) {
	q := sources.Query{Stream: k.stream, Walk: walk, Cursor: k.cursors[walk], Since: k.start, Overlap: 3 * hours24, Window: 60 * hours24,
		Every: 15 * time.Minute, Full: hours24, Now: time.Now(), Remembered: k.visits.remembered}
	if walk == sources.Follow {
		q.Visit = k.visit
	}
	p, err := k.source.Fetch(k.t.Context(), q)
	k.pages[walk]++
	if k.r.Float64() < k.crash {
		k.restart()
		return false, false
	}
	if err != nil {
		if e := sources.AsError(err); e.Kind == sources.Rejected || e.Kind == sources.RateLimited {
			k.t.Errorf("%s: %v %s", walk, err, e.Request)
		}
		return false, false
	}
	k.cursors[walk] = p.Cursor
	k.visits.found(k.stream, p.Found)
	for _, it := range p.Items {
		id := strings.Join(it.ID, "/")
		if k.read[id] == nil {
			k.read[id] = make(map[string]time.Time)
		}
		var body bytes.Buffer
		if err := json.Compact(&body, it.Body); err != nil {
			k.t.Fatal(err)
		}
		if k.read[id][body.String()].IsZero() {
			k.read[id][body.String()] = time.Now()
		}
	}
	if p.Done && walk == sources.Follow {
		k.visits.visited(k.stream, k.visit.Version, *p.Visited)
		k.cursors[walk], k.visit = nil, nil
	}
	return p.Done, true
}

// run reads until a run is complete or fails.
func (k *listener) run(walk sources.Walk) (complete bool) {
	for {
		if done, ok := k.page(walk); done || !ok {
			return done
		}
	}
}

// turn does all that is due.
func (k *listener) turn() {
	if k.run(sources.News) {
		k.ends = append(k.ends, time.Now())
	}
	if time.Since(k.swept) >= 15*time.Minute && k.run(sources.Sweep) {
		k.swept = time.Now()
	}
	if time.Since(k.whole) >= hours24 && k.run(sources.Full) {
		k.whole = time.Now()
	}
	for range 3 { // failures
		for {
			if k.visit == nil {
				due := k.visits.due(k.stream, time.Now())
				if len(due) == 0 {
					return
				}
				v := *k.visits[k.stream][due[0]]
				k.visit = &v
			}
			if _, ok := k.page(sources.Follow); !ok {
				break
			}
		}
	}
}

var forums = flag.Int("forums", 2, "how many worlds TestForumProperty goes through")

// TestForumProperty: whatever the order of the list, its dates, and its tokens mean, with
// late publication, edits, nested comments, tokens that die, faults, and crashes at any
// page: nothing that stayed is lost, and each state that stayed as long as sweeps and
// visits take was read.
func TestForumProperty(t *testing.T) {
	for seed := range uint64(*forums) {
		stream := []string{yandexmarket.GoodsFeedbacks, yandexmarket.GoodsQuestions}[seed%2]
		t.Run(fmt.Sprint(stream, " ", seed), func(t *testing.T) {
			synctest.Test(t, bubble(func(t *testing.T) { forumProperty(t, stream, seed) }))
		})
	}
}

func forumProperty(t *testing.T, stream string, seed uint64) {
	const period = 10 * time.Minute
	k := &listener{t: t, r: rand.New(rand.NewPCG(seed, 5)), stream: stream, ledger: make(memory), start: time.Now(), crash: .004, visits: make(visits),
		cursors: make(map[sources.Walk]sources.Cursor), read: make(map[string]map[string]time.Time), pages: make(map[sources.Walk]int)}
	coin := func() bool { return k.r.IntN(2) == 0 }
	quirks := box.Quirks{TokensCount: coin(), Overlap: coin(), EmptyLastPage: coin(), NoPagingAtEnd: coin(), TokensDieWithList: seed%5 == 0,
		Feedback:  box.FeedbackQuirks{NewestFirst: coin(), ByPublication: coin(), UnknownIs404: coin()},
		Questions: box.QuestionQuirks{DaysInUTC: coin(), ToExclusive: coin(), OldestFirst: coin(), UnknownIs404: coin()}}
	spec := box.WorldSpec{Journal: true, Span: 100 * hours24}
	if stream == yandexmarket.GoodsFeedbacks {
		spec.Feedback = box.FeedbackSpec{History: 300, Every: time.Hour, ChangeEvery: 20 * time.Minute}
	} else {
		spec.Questions = box.QuestionSpec{History: 200, Every: time.Hour, ChangeEvery: 20 * time.Minute, Late: .2, LateBy: 2 * hours24}
	}
	var err error
	if k.market, err = box.New(box.Config{Seed: seed, Quirks: quirks, Businesses: []box.BusinessSpec{{ID: business, World: spec}}}); err != nil {
		t.Fatal(err)
	}
	k.business = k.market.Businesses()[0]
	network := sourcetest.NewNetwork(t)
	network.Serve(t, k.market.Handler())
	k.cfg = config(network.Transport(t))
	k.cfg.Token, k.cfg.Streams = k.market.MintKey(box.KeySpec{}), []string{stream}
	k.restart()
	if err := k.market.Inject(box.Fault{Kind: "status_500", Rate: .01}, box.Fault{Kind: "truncated", Rate: .005}, box.Fault{Kind: "status_400", Variant: "token", Rate: .01},
		// Of visits it would make one in two hundred an interval late.
		box.Fault{Kind: "no_result", Path: fmt.Sprintf("/v2/businesses/%d/goods-feedback", business), Rate: .02},
		box.Fault{Kind: "no_result", Path: fmt.Sprintf("/v1/businesses/%d/goods-questions", business), Rate: .02}); err != nil {
		t.Fatal(err)
	}
	for time.Since(k.start) < 30*time.Hour {
		k.turn()
		time.Sleep(period)
	}
	k.verify(period)
	if n := k.market.Stats(); n.Violations > 0 || n.NotFound > 0 || n.Unauthorized > 0 {
		t.Errorf("the marketplace saw %+v", n)
	}
	t.Log(k.pages)
}

// verify compares what was read with what was shown.
func (k *listener) verify(period time.Duration) {
	parents := make(map[string]time.Time) // when they were created
	for _, f := range k.business.Feedbacks() {
		parents[strconv.FormatInt(f.ID, 10)] = f.Created
	}
	for _, q := range k.business.Questions() {
		parents[strconv.FormatInt(q.ID, 10)] = q.Created
	}
	end := time.Now()
	checked := make(map[kit.Kind]int)
	for _, s := range k.business.Journal() {
		until := s.To
		if until.IsZero() {
			until = end
		}
		var parent struct{ FeedbackID, QuestionID json.Number }
		_ = json.Unmarshal(s.JSON, &parent)
		child := s.Kind == box.KindFeedbackComment || s.Kind == box.KindAnswer
		of := s.ID
		if child {
			if of = parent.FeedbackID.String(); s.Kind == box.KindAnswer {
				of = parent.QuestionID.String()
			}
		}
		created, there := parents[of]
		if !there || s.From.Sub(created) > 58*hours24 || created.Before(k.start.Add(-58*hours24)) {
			continue // the parent was deleted, or is not looked at any more
		}
		most := hours24
		switch {
		case s.Kind == box.KindAnswer:
			most = max(until.Sub(created)/96, 15*time.Minute)
		case !child && !created.Before(k.start) && s.From.Sub(created) < 2*hours24:
			most = 0 // it is news
		}
		if most += 3 * period; until.Sub(s.From) < most {
			continue
		}
		id := "goods_" + string(s.Kind) + "/" + s.ID
		if id = strings.Replace(id, "goods_feedback_comment/"+of+"/", "goods_feedback_comment/", 1); s.Kind == box.KindAnswer {
			id = strings.Replace(id, "goods_answer/"+of+"/", "goods_answer/", 1)
		}
		checked[s.Kind]++
		if at := k.read[id][string(s.JSON)]; at.IsZero() || at.After(s.From.Add(most)) {
			k.t.Errorf("%s of a thing of %s, shown from %s until %s, was read at %s, and %d others: %s", id, created.Format(time.Stamp), s.From.Format(time.Stamp), until.Format(time.Stamp), at.Format(time.Stamp), len(k.read[id]), s.JSON)
		}
	}
	if len(checked) != 2 {
		k.t.Errorf("checked %v", checked)
	}
	k.t.Log(checked)
}
