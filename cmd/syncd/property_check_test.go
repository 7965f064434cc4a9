package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"syncd/internal/fingerprint"
	"syncd/internal/sandbox"
	"syncd/internal/state"
)

// streamKinds are what the journal calls the items of each stream.
var streamKinds = map[string]sandbox.Kind{"chat_events": sandbox.KindEvent, "chats": sandbox.KindChat, "questions": sandbox.KindQuestion,
	"feedbacks": sandbox.KindFeedback, "claims": sandbox.KindClaim, "feedback_pins": sandbox.KindPin}

// emitted is one event of the file.
type emitted struct {
	id, key  string // key: account/stream/item id
	partKey  string
	line     string
	removed  bool
	backfill bool
	n        int // of the version; 0: of an item that never changes
	fp       string
	item     json.RawMessage
	created  bool // says that it is new
	recorded time.Time
}

// check looks back: from calm on nothing went wrong any more.
func (s *sim) check(calm time.Time, probes []probe) {
	s.checkBudget()
	all := s.readFile()
	s.checkReceiver(all)
	byKey := make(map[string][]emitted)
	for _, e := range all {
		byKey[e.key] = append(byKey[e.key], e)
	}
	for _, p := range probes {
		if !slices.ContainsFunc(byKey[p.key], func(e emitted) bool { return e.recorded.After(p.at) && !e.recorded.After(p.at.Add(p.within)) }) {
			s.fail("G7", "%s: %s at %s, and within %s no event said so", p.key, p.what, stamp(p.at), p.within)
		}
	}
	for _, a := range s.accounts {
		journal := make(map[itemKey][]sandbox.Showing)
		for _, show := range a.world.Journal() {
			k := itemKey{a.world.ID(), show.Kind, show.ID}
			journal[k] = append(journal[k], show)
		}
		for stream, plan := range a.streams {
			prefix := a.name + "/" + stream + "/"
			for k, shows := range journal {
				if k.kind == streamKinds[stream] {
					s.checkItem(a, stream, plan, shows, byKey[prefix+k.id], calm)
				}
			}
			s.checkChatOrder(a, stream, journal, all)
		}
	}
	for key, events := range byKey {
		s.checkVersions(key, events)
	}
}

// checkBudget: G1, as the marketplace saw it.
func (s *sim) checkBudget() {
	stats := s.box.Stats()
	for _, v := range stats.Recent {
		if v.Kind == sandbox.ViolationBudget {
			s.fail("G1", "%+v", v)
		}
	}
	for _, early := range s.wire.early {
		s.fail("G1", "%s", early)
	}
	if stats.Pings > 0 || stats.NotFound > 0 || stats.Unauthorized > 0 || stats.BearerPrefixes > 0 {
		s.t.Errorf("the marketplace saw %+v", stats)
	}
}

// readFile: the file has each event once, in the order of their sequences.
func (s *rig) readFile() []emitted {
	raw, err := os.ReadFile(filepath.Join(s.dir, "events.ndjson"))
	if err != nil {
		s.t.Fatal(err)
	}
	if orphans, _ := filepath.Glob(filepath.Join(s.dir, "*orphan*")); len(orphans) > 0 {
		s.t.Errorf("syncd took its own lines for somebody else's: %v", orphans)
	}
	var out []emitted
	ids := make(map[string]bool)
	last := ""
	for text := range strings.Lines(string(raw)) {
		var e struct {
			ID, Type, Sequence, Subject, PartitionKey string
			RecordedTime                              time.Time
			Backfill                                  bool
			Data                                      struct{ Item, Previous json.RawMessage }
		}
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			s.t.Fatalf("%q is no event: %v", text, err)
		}
		if ids[e.ID] {
			s.fail("G4", "%s is in the file twice", e.ID)
		}
		if e.Sequence <= last {
			s.t.Errorf("%s: sequence %s behind %s", e.ID, e.Sequence, last)
		}
		ids[e.ID], last = true, e.Sequence
		if e.Data.Item == nil {
			continue // a change of the schema
		}
		line := strings.TrimSuffix(text, "\n")
		m := emitted{id: e.ID, key: e.ID, line: line, partKey: e.PartitionKey, removed: strings.HasSuffix(e.Type, ".removed"),
			created: strings.HasSuffix(e.Type, ".created"), backfill: e.Backfill, item: e.Data.Item, recorded: e.RecordedTime}
		if !strings.HasSuffix(e.Type, ".chat_event.created") && !strings.HasSuffix(e.Type, ".chat_message.created") {
			i := strings.LastIndex(e.ID, "/")
			m.key = e.ID[:i]
			n, fp, _ := strings.Cut(e.ID[i+1:], "-")
			m.fp = fp
			if m.n, err = strconv.Atoi(n); err != nil {
				s.fail("G4", "%s has no version", e.ID)
			}
		}
		out = append(out, m)
	}
	return out
}

// checkReceiver: G5 and G6, as the receiver saw them: all that is in the file
// arrived, and of one subject no event came before those ahead of it had been
// acknowledged.
func (s *rig) checkReceiver(all []emitted) {
	s.receiver.mu.Lock()
	defer s.receiver.mu.Unlock()
	for _, wrong := range s.receiver.wrong {
		s.fail("G5", "%s", wrong)
	}
	came, acked := make(map[string]int), make(map[string]int)
	lines := make(map[string]string)
	for i, c := range s.receiver.calls {
		if _, ok := came[c.id]; !ok {
			came[c.id] = i
		}
		if old, ok := lines[c.id]; ok && old != c.line {
			s.fail("G4", "%s came with two contents:\n%s\n%s", c.id, old, c.line)
		}
		lines[c.id] = c.line
		if _, ok := acked[c.id]; !ok && c.acked {
			acked[c.id] = i
		}
	}
	ahead := make(map[string]string)
	for _, e := range all {
		if lines[e.id] != e.line {
			s.t.Errorf("%s: the file has\n%s\nand the receiver was sent\n%s", e.id, e.line, lines[e.id])
		}
		at, ok := acked[e.id]
		if !ok {
			s.fail("G6", "the receiver never acknowledged %s", e.id)
			continue
		}
		if e.backfill {
			continue
		}
		if before, ok := ahead[e.partKey]; ok && acked[before] > came[e.id] {
			s.fail("G5", "%s came before %s was acknowledged", e.id, before)
		}
		ahead[e.partKey], _ = e.id, at
	}
}

// checkVersions: G4. The versions of an item count up, each is named by its
// content, and differs from the one before.
func (s *rig) checkVersions(key string, events []emitted) {
	for i, e := range events {
		if e.n == 0 {
			if len(events) > 1 {
				s.fail("G4", "%s was emitted %d times", key, len(events))
			}
			return
		}
		if fp := s.fingerprint(e.item); !e.removed && fp != e.fp {
			s.fail("G4", "%s: its item has the fingerprint %s", e.id, fp)
		}
		if i == 0 {
			continue
		}
		if before := events[i-1]; e.n != before.n+1 {
			s.fail("G4", "%s follows %s", e.id, before.id)
		} else if e.fp == before.fp && !e.removed && !before.removed {
			s.fail("G4", "%s: nothing has changed", e.id)
		}
	}
}

func (s *rig) fingerprint(item json.RawMessage) string {
	if fp, ok := s.prints[string(item)]; ok {
		return fp
	}
	f, err := fingerprint.Of(item, nil)
	if err != nil {
		s.t.Fatalf("%s: %v", item, err)
	}
	s.prints[string(item)] = f.String()
	return f.String()
}

// presence is an unbroken time in which an item was shown.
type presence struct {
	from, to time.Time
	states   []sandbox.Showing
}

// presences joins the states that follow one another without a gap.
func presences(shows []sandbox.Showing, now time.Time) []presence {
	var out []presence
	for _, show := range shows {
		if show.To.IsZero() {
			show.To = now
		}
		if n := len(out); n > 0 && out[n-1].to.Equal(show.From) {
			out[n-1].to, out[n-1].states = show.To, append(out[n-1].states, show)
			continue
		}
		out = append(out, presence{show.From, show.To, []sandbox.Showing{show}})
	}
	return out
}

// checkItem holds what came out of an item against what was shown of it.
func (s *sim) checkItem(a accountPlan, stream string, plan streamPlan, shows []sandbox.Showing, events []emitted, calm time.Time) {
	now := time.Now()
	kind, id := shows[0].Kind, shows[0].ID
	name := a.name + "/" + stream + "/" + id
	key := itemKey{a.world.ID(), kind, id}
	for _, e := range events {
		var compact bytes.Buffer
		if err := json.Compact(&compact, e.item); err != nil || !s.wire.wasShown(key, compact.Bytes()) {
			s.fail("G4", "%s holds what no answer has held: %s", e.id, e.item)
		}
	}
	s.checkPath(name, shows, events, now)

	runs := s.runs[state.StreamID{Account: a.name, Stream: stream}]
	all := presences(shows, now)
	created := s.createdOf(kind, shows[0].JSON)
	if len(runs) == 0 {
		s.t.Errorf("%s/%s: not one run was complete", a.name, stream)
		return
	}
	silent := s.silent(a, created, shows[0].From, runs[0])
	for _, p := range all {
		// G2. What appears later than the overlap reaches back is seen by the sweeps.
		late := plan.overlap > 0 && p.from.After(runs[0].began) && p.from.Sub(created) > plan.overlap*9/10
		complete := 0
		for _, r := range runs {
			if r.began.After(p.from) && r.done.Before(p.to) {
				complete++
			}
		}
		if complete >= 2 && !late && !silent && len(events) == 0 {
			s.fail("G2", "%s, created %s, was shown from %s until %s, in which %d runs were complete, and never emitted", name, stamp(created), stamp(p.from), stamp(p.to), complete)
		}
		// G7. In the calm, what lasts as long as it may take must have been seen.
		if kind == sandbox.KindEvent || plan.window > 0 && created.Before(now.Add(-plan.window)) {
			continue
		}
		for _, show := range p.states {
			from := show.From
			if from.Before(calm) {
				from = calm
			}
			to := show.To
			if to.IsZero() {
				to = now
			}
			fp := s.fingerprint(show.JSON)
			if to.Sub(from) < plan.bound || slices.ContainsFunc(events, func(e emitted) bool { return e.fp == fp && !e.removed }) {
				continue
			}
			if silent && (len(events) == 0 || show.From.Before(events[0].recorded)) {
				continue // recorded without a word, when it was first seen; nobody knows when
			}
			s.fail("G7", "%s was shown so from %s until %s, which is %s or longer, and that was never emitted: %s", name, stamp(show.From), stamp(to), plan.bound, show.JSON)
		}
	}
	last := all[len(all)-1]
	gone, stayed := now.Sub(last.to), now.Sub(last.states[len(last.states)-1].From)
	switch n := len(events); {
	case kind == sandbox.KindEvent || n == 0:
	case gone == 0 && stayed > plan.bound && (plan.window == 0 || created.After(now.Add(-plan.window))):
		if fp := s.fingerprint(last.states[len(last.states)-1].JSON); events[n-1].fp != fp || events[n-1].removed {
			s.fail("G7", "%s is not known as it is: last %s, and it is %s", name, events[n-1].id, fp)
		}
	case kind == sandbox.KindPin && gone > plan.bound && !events[n-1].removed:
		s.fail("G7", "%s has been gone for %s, and was not removed", name, gone)
	}
}

// silent says whether an item is old by `start`, or may be.
func (s *sim) silent(a accountPlan, created, appeared time.Time, first runSpan) bool {
	switch {
	case created.IsZero(): // of these, what the first whole scan shows
		return (a.fromNow || !a.start.IsZero()) && !appeared.After(first.done)
	case a.fromNow:
		return created.Before(first.began.Add(time.Second))
	}
	return created.Before(a.start)
}

// checkPath: G3. The versions of an item follow each other as its states did. Only
// what was overtaken on the wire may be behind, for as long as that takes.
func (s *rig) checkPath(name string, shows []sandbox.Showing, events []emitted, now time.Time) {
	var reached time.Time
	behind := time.Duration(-1)
	if s.wire.slow > 0 {
		behind = 2 * s.wire.most
	}
	for _, e := range events {
		if e.removed || e.n == 0 {
			continue
		}
		ok := false
		for _, show := range shows {
			to := show.To
			if to.IsZero() {
				to = now
			}
			if s.fingerprint(show.JSON) == e.fp && !to.Before(reached.Add(-behind)) && !show.From.After(e.recorded) {
				ok = true
				if show.From.After(reached) {
					reached = show.From
				}
				break
			}
		}
		if !ok {
			s.fail("G3", "%s goes back to a state before the version ahead of it", e.id)
		}
	}
}

// checkChatOrder: G5. Live events of one chat come in the order in which they
// happened, but for those that were shown late.
func (s *sim) checkChatOrder(a accountPlan, stream string, journal map[itemKey][]sandbox.Showing, all []emitted) {
	if stream != "chat_events" {
		return
	}
	prefix := a.name + "/chat_events/"
	newest := make(map[string]time.Time)
	for _, e := range all {
		rest, ours := strings.CutPrefix(e.key, prefix)
		shows := journal[itemKey{a.world.ID(), sandbox.KindEvent, rest}]
		if !ours || e.backfill || len(shows) == 0 {
			continue
		}
		at := s.createdOf(sandbox.KindEvent, e.item)
		late := shows[0].From.Sub(at) > time.Second
		if chat := e.partKey; at.Before(newest[chat]) && !late {
			s.fail("G5", "%s of %s comes behind one of %s of its chat", e.id, stamp(at), stamp(newest[chat]))
		} else if at.After(newest[chat]) {
			newest[chat] = at
		}
	}
}

// createdOf is an item's own time; zero: it has none.
func (s *sim) createdOf(kind sandbox.Kind, raw json.RawMessage) time.Time {
	var f struct {
		AddTimestamp int64     `json:"addTimestamp"`
		CreatedDate  time.Time `json:"createdDate"`
		DT           string    `json:"dt"`
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		s.t.Fatalf("%s: %v", raw, err)
	}
	switch kind {
	case sandbox.KindEvent:
		return time.UnixMilli(f.AddTimestamp)
	case sandbox.KindClaim:
		at, err := time.ParseInLocation("2006-01-02T15:04:05", f.DT, time.FixedZone("", 3*60*60))
		if err != nil {
			s.t.Fatal(err)
		}
		return at
	}
	return f.CreatedDate
}

func stamp(t time.Time) string { return t.UTC().Format("01-02T15:04:05.000") }
