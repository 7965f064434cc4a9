package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"syncd/internal/sandbox/kit"
	market "syncd/internal/sandbox/yandexmarket"
	"syncd/internal/sources/yandexmarket"
	"syncd/internal/state"
)

// marketKinds are what the journal calls the items of each stream.
var marketKinds = map[string][]kit.Kind{
	yandexmarket.Chats: {market.KindChat}, yandexmarket.ChatMessages: {market.KindMessage},
	yandexmarket.GoodsFeedbacks: {market.KindFeedback, market.KindFeedbackComment},
	yandexmarket.GoodsQuestions: {market.KindQuestion, market.KindAnswer}, yandexmarket.Returns: {market.KindReturn},
}

// eventKinds are what the ids of events call those that have it in them.
var eventKinds = map[kit.Kind]string{market.KindFeedback: "goods_feedback/", market.KindFeedbackComment: "goods_feedback_comment/",
	market.KindQuestion: "goods_question/", market.KindAnswer: "goods_answer/"}

// proofs are the complete runs of a stream's news that have shown all.
func (s *marketSim) proofs(id state.StreamID) []runSpan {
	return slices.DeleteFunc(slices.Clone(s.runs[id]), func(r runSpan) bool {
		return slices.ContainsFunc(s.doubts[id], func(at time.Time) bool { return !at.Before(r.began) && !at.After(r.done) })
	})
}

// check looks back: from calm on nothing went wrong any more, and from rest on nothing
// happened.
func (s *marketSim) check(calm, rest time.Time) {
	s.checkBudget()
	all := s.readFile()
	s.checkReceiver(all)
	byKey := make(map[string][]emitted)
	for _, e := range all {
		byKey[e.key] = append(byKey[e.key], e)
	}
	tally := &marketTally{}
	for _, a := range s.accounts {
		journal := make(map[kit.Kind]map[string][]kit.Showing)
		for _, show := range a.business.Journal() {
			if journal[show.Kind] == nil {
				journal[show.Kind] = make(map[string][]kit.Showing)
			}
			journal[show.Kind][show.ID] = append(journal[show.Kind][show.ID], show)
		}
		for stream, plan := range a.streams {
			id := state.StreamID{Account: a.name, Stream: stream}
			c := &marketCheck{marketSim: s, a: a, stream: stream, plan: plan, journal: journal, calm: calm, rest: rest, runs: s.proofs(id), now: time.Now(), tally: tally}
			if len(s.runs[id]) == 0 {
				s.t.Errorf("%s/%s: not one run was complete", a.name, stream)
				continue
			}
			for _, kind := range marketKinds[stream] {
				c.kind, c.bound = kind, s.bound(a, stream, string(kind))
				for item, shows := range journal[kind] {
					c.item(item, shows, byKey[a.name+"/"+stream+"/"+eventKinds[kind]+item])
				}
			}
			if stream == yandexmarket.ChatMessages {
				c.order(all)
			}
		}
	}
	for key, events := range byKey {
		s.checkVersions(key, events)
		if e := events[0]; !s.known(e) {
			s.fail("G4", "%s: nothing like it was ever there", e.id)
		}
	}
	s.told = tally.String()
}

// known says whether an event is about something that the marketplace has shown.
func (s *marketSim) known(e emitted) bool {
	name, rest, _ := strings.Cut(e.key, "/")
	i := slices.IndexFunc(s.accounts, func(a marketAccount) bool { return a.name == name })
	stream, id, _ := strings.Cut(rest, "/")
	if i < 0 || marketKinds[stream] == nil {
		return false
	}
	var compact bytes.Buffer
	if json.Compact(&compact, e.item) != nil {
		return false
	}
	for _, kind := range marketKinds[stream] {
		if item, ok := strings.CutPrefix(id, eventKinds[kind]); ok {
			return s.wire.wasShown(itemKey{fmt.Sprint(s.accounts[i].business.ID()), kind, item}, compact.Bytes())
		}
	}
	return false
}

// checkBudget: G1, as the marketplace saw it.
func (s *marketSim) checkBudget() {
	stats := s.box.Stats()
	for _, v := range stats.Recent {
		if s.knew(v) {
			s.fail("G1", "%s of %s by %s at %s", v.Kind, v.Method, v.Entity, stamp(v.Time))
		}
	}
	if n := int(stats.Violations) - len(stats.Recent); n > 0 {
		s.fail("G1", "%d more violations", n)
	}
	for _, p := range stats.Parallel {
		if p.Most > 4 {
			s.fail("G1", "%s had %d requests in flight", p.Entity, p.Most)
		}
	}
	if stats.NotFound > 0 || stats.NotAllowed > 0 || stats.Unauthorized > 0 {
		s.t.Errorf("the marketplace saw %d paths that it does not have, %d wrong methods, %d requests without a key", stats.NotFound, stats.NotAllowed, stats.Unauthorized)
	}
}

// marketTally counts what was looked at, and how late it was.
type marketTally struct {
	items, silent, versions, messages int
	returns                           time.Duration // the latest of the calm
}

func (c *marketTally) String() string {
	return fmt.Sprintf("%d items, %d of them old, %d versions in the calm, returns up to %s late", c.items, c.silent, c.versions, c.returns.Round(time.Second))
}

// marketCheck holds what came out of one stream against what was shown.
type marketCheck struct {
	*marketSim
	a          marketAccount
	stream     string
	plan       marketPlan
	journal    map[kit.Kind]map[string][]kit.Showing
	calm, rest time.Time
	runs       []runSpan // complete ones that have shown all
	now        time.Time
	tally      *marketTally

	kind  kit.Kind
	bound time.Duration
}

// fields are those of an item that matter here.
type marketFields struct {
	CreatedAt, CreationDate, UpdatedAt, UpdateDate string
	MessageID                                      json.Number
	FeedbackID                                     json.Number
	QuestionID                                     json.Number
}

func fieldsOf(raw json.RawMessage) (f marketFields) {
	_ = json.Unmarshal(raw, &f)
	return f
}

func (f marketFields) created() time.Time {
	text := f.CreatedAt
	if text == "" {
		text = f.CreationDate
	}
	at, _ := time.Parse(time.RFC3339Nano, text)
	return at
}

// item holds an item against its events.
func (c *marketCheck) item(id string, shows []kit.Showing, events []emitted) {
	name := c.a.name + "/" + c.stream + "/" + string(c.kind) + " " + id
	f := fieldsOf(shows[0].JSON)
	created := f.created()
	all := presences(shows, c.now)
	silent := c.silent(id, f, created, shows[0].From)
	c.tally.items++
	if c.old(id, f, created) {
		c.tally.silent++
		for _, e := range events {
			if e.created && !e.backfill {
				c.fail("start", "%s, created %s, is no news, and %s says so", name, stamp(created), e.id)
			}
		}
	}
	if c.kind != market.KindChat { // GET chat shows what the list does not
		c.checkPath(name, shows, events, c.now)
	}
	if c.stream == yandexmarket.Returns && !c.reads(id) {
		if len(events) > 0 {
			c.t.Errorf("%s is of a store that is not configured", name)
		}
		return
	}
	for _, p := range all {
		c.presence(name, id, p, created, silent, events)
	}
	c.last(name, all[len(all)-1], silent, events)
}

// reads says whether the store of a return is one to read.
func (c *marketCheck) reads(id string) bool {
	campaign, _, _ := strings.Cut(id, "/")
	n, _ := strconv.ParseInt(campaign, 10, 64)
	return len(c.a.stores) == 0 || slices.Contains(c.a.stores, n)
}

// slip is by how much the clocks of the marketplace's machines and whole seconds may
// move what is old.
func (c *marketCheck) slip() time.Duration {
	return 2*time.Second + max(c.quirk.ClockSkew, -c.quirk.ClockSkew)
}

// old says whether an item is certainly no news.
func (c *marketCheck) old(id string, f marketFields, created time.Time) bool {
	start := c.a.start
	if c.a.fromNow {
		start = c.began
	}
	return !created.IsZero() && created.Before(start.Add(-c.slip()))
}

// silent says whether an item may be no news.
func (c *marketCheck) silent(id string, f marketFields, created, appeared time.Time) bool {
	if c.kind == market.KindReturn {
		campaign, _, _ := strings.Cut(id, "/")
		n, _ := strconv.ParseInt(campaign, 10, 64)
		if added, ok := c.added[n]; ok && (created.Before(c.calm) || created.Before(added)) {
			return true // the store was discovered after it
		}
	}
	switch {
	case c.a.spelled == "beginning":
		return false
	case created.IsZero(): // of these, what the first whole scan shows, or the first visit
		return appeared.Before(c.calm)
	case c.a.fromNow:
		return created.Before(c.firstRun().Add(c.slip()))
	}
	return created.Before(c.a.start.Add(c.slip()))
}

// firstRun is when the first complete run of any stream of the account began, which is
// not before the account's first poll.
func (c *marketCheck) firstRun() time.Time {
	first := c.now
	for id, runs := range c.rig.runs {
		if id.Account == c.a.name && len(runs) > 0 && runs[0].done.Before(first) {
			first = runs[0].done
		}
	}
	return first
}

// enough is how many complete runs show everything.
func (c *marketCheck) enough() int {
	switch {
	case c.kind == market.KindChat && c.quirk.Chats.Order == market.ChatsShuffled:
		return 30 // each misses a third
	case c.quirk.TokensCount:
		return 4 // what moves meanwhile moves others out of sight
	}
	return 2
}

// runsWithin counts the complete runs within a time.
func (c *marketCheck) runsWithin(from, to time.Time) (n int) {
	for _, r := range c.runs {
		if r.began.After(from) && r.done.Before(to) {
			n++
		}
	}
	return n
}

// presence: what was shown for long enough came out.
func (c *marketCheck) presence(name, id string, p presence, created time.Time, silent bool, events []emitted) {
	listed := c.kind == market.KindChat || c.kind == market.KindFeedback || c.kind == market.KindQuestion
	// What appears later than the overlap reaches back is seen by the sweeps.
	late := c.plan.overlap > 0 && p.from.Sub(created) > c.plan.overlap*9/10
	if runs := c.runsWithin(p.from, p.to); listed && !late && !silent && len(events) == 0 && runs >= c.enough() {
		c.fail("G2", "%s, created %s, was shown from %s until %s, in which %d runs were complete, and never emitted", name, stamp(created), stamp(p.from), stamp(p.to), runs)
	}
	if listed && !late && !silent && p.from.After(c.calm) {
		c.soon(name, p, events)
	}
	// In the calm, what lasts as long as it may take must have been seen.
	if c.kind == market.KindMessage || c.aged(id, p, created) {
		return
	}
	for _, show := range p.states {
		from, to := show.From, show.To
		if from.Before(c.calm) {
			from = c.calm
		}
		if to.IsZero() {
			to = c.now
		}
		if to.Sub(from) < c.bound || silent && (len(events) == 0 || show.From.Before(events[0].recorded)) {
			continue // or it was recorded without a word when it was first seen; nobody knows when
		}
		c.tally.versions++
		fp := c.fingerprint(show.JSON)
		i := slices.IndexFunc(events, func(e emitted) bool { return e.fp == fp })
		if i < 0 {
			c.fail("G7", "%s was shown so from %s until %s, which is %s or longer, and that was never emitted: %s", name, stamp(show.From), stamp(to), c.bound, show.JSON)
			continue
		}
		c.haste(name, show, events[i])
	}
}

// soon: no more than so many runs of the news are needed, whatever the sweeps show later.
func (c *marketCheck) soon(name string, p presence, events []emitted) {
	left := c.enough()
	for _, r := range c.runs {
		if !r.began.After(p.from) || !r.done.Before(p.to) {
			continue
		}
		if left--; left == 0 {
			if len(events) == 0 || events[0].recorded.After(r.done.Add(time.Second)) {
				c.fail("G2", "%s was shown from %s, and not emitted by %s, when %d runs were complete", name, stamp(p.from), stamp(r.done), c.enough())
			}
			return
		}
	}
}

// haste: a return is never more than 10 minutes late while budget remains.
func (c *marketCheck) haste(name string, show kit.Showing, e emitted) {
	f := fieldsOf(show.JSON)
	moved, err := time.Parse(time.RFC3339Nano, f.UpdateDate)
	if c.kind != market.KindReturn || !show.From.After(c.calm) || err != nil || show.From.Sub(moved) > hour || c.limits[market.MethodGetReturns] != 0 {
		return
	}
	late := e.recorded.Sub(show.From)
	if most := max(10*minute, c.plan.schedule+c.plan.schedule/2); late > most {
		c.fail("G7", "%s, shown from %s, was emitted %s later", name, stamp(show.From), late)
	} else if c.plan.schedule <= 5*minute {
		c.tally.returns = max(c.tally.returns, late)
	}
}

// aged says whether changes of an item are not looked for any more.
func (c *marketCheck) aged(id string, p presence, created time.Time) bool {
	edge := c.now.Add(-c.plan.window)
	switch c.kind {
	case market.KindChat:
		return false
	case market.KindFeedbackComment:
		return c.parent(market.KindFeedback, fieldsOf(p.states[0].JSON).FeedbackID).Before(edge)
	case market.KindAnswer:
		return c.parent(market.KindQuestion, fieldsOf(p.states[0].JSON).QuestionID).Before(edge)
	case market.KindReturn:
		return created.IsZero() || created.Before(edge) // by the update, which is later
	}
	return created.Before(edge)
}

// parent is when a review or a question was created.
func (c *marketCheck) parent(kind kit.Kind, id json.Number) time.Time {
	if shows := c.journal[kind][id.String()]; len(shows) > 0 {
		return fieldsOf(shows[0].JSON).created()
	}
	return time.Time{}
}

// last: at the end of the rest what is there is known as it is.
func (c *marketCheck) last(name string, p presence, silent bool, events []emitted) {
	if !p.to.Equal(c.now) {
		return
	}
	show := p.states[len(p.states)-1]
	created := fieldsOf(show.JSON).created()
	switch {
	case c.kind == market.KindMessage:
		if !silent && len(events) == 0 && c.reachable(p) {
			c.fail("G2", "%s, created %s, shown from %s, was never emitted", name, stamp(created), stamp(p.from))
		}
	case c.now.Sub(show.From) < c.bound || c.aged("", p, created):
	case len(events) == 0 && !silent:
		c.fail("G2", "%s, created %s, shown from %s, was never emitted", name, stamp(created), stamp(p.from))
	case len(events) > 0:
		if e, fp := events[len(events)-1], c.fingerprint(show.JSON); e.fp != fp {
			c.fail("G7", "%s is not known as it is: last %s, and since %s it is %s: %s", name, e.id, stamp(show.From), fp, show.JSON)
		}
	}
}

// reachable says whether the list has shown the chat of a message long enough since the
// message was there.
func (c *marketCheck) reachable(p presence) bool {
	chat, _, _ := strings.Cut(p.states[0].ID, "/")
	from := p.from.Add(c.lateSaid)
	if from.Before(c.calm) {
		from = c.calm
	}
	for _, in := range presences(c.journal[market.KindChat][chat], c.now) {
		since := in.from
		if since.Before(from) {
			since = from
		}
		if in.to.Sub(since) >= c.bound {
			return true
		}
	}
	return false
}

// order: G5. Live events of one chat come in the order in which they happened, but for
// those that were shown late.
func (c *marketCheck) order(all []emitted) {
	type seen struct {
		at time.Time
		id int64
	}
	newest := make(map[string]seen)
	count := make(map[string]int)
	for id := range c.journal[market.KindMessage] {
		chat, _, _ := strings.Cut(id, "/")
		count[chat]++
	}
	for _, e := range all {
		rest, ours := strings.CutPrefix(e.key, c.a.name+"/chat_messages/")
		shows := c.journal[market.KindMessage][rest]
		if !ours || e.backfill || len(shows) == 0 {
			continue
		}
		chat, _, _ := strings.Cut(rest, "/")
		f := fieldsOf(e.item)
		id, _ := f.MessageID.Int64()
		this := seen{f.created(), id}
		late := shows[0].From.Sub(this.at) > 1500*time.Millisecond && shows[0].From.After(c.began)
		// One that comes while a long chat is read in an order of its own may be missed.
		late = late || count[chat] > 90 && c.quirk.Chats.HistoryOrder == market.HistoryShuffled
		before, ok := newest[chat]
		switch {
		case late:
		case ok && this.at.Truncate(time.Second).Before(before.at.Truncate(time.Second)): // some times are cut to it
			c.fail("G5", "%s of %s comes behind one of %s of its chat", e.id, stamp(this.at), stamp(before.at))
		case !ok || this.at.After(before.at):
			newest[chat] = this
		}
		c.tally.messages++
	}
}
