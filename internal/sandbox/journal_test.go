package sandbox_test

import (
	"bytes"
	"encoding/json"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"syncd/internal/sandbox"
)

// TestJournalIsWhatTheListsShow: at every moment the states that the journal has open are those that the lists show, also
// after changes on purpose, and those that follow one another do so without an overlap.
func TestJournalIsWhatTheListsShow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sb, err := sandbox.New(sandbox.Config{Seed: 5, Sellers: []sandbox.Seller{{World: sandbox.WorldSpec{
			Journal: true, Events: 60, Questions: 40, Feedbacks: 60, Pins: 10, Claims: 30, Span: 20 * 24 * time.Hour,
			EventEvery: time.Hour, QuestionEvery: time.Hour, FeedbackEvery: time.Hour, FeedbackChangeEvery: 20 * time.Minute, PinEvery: time.Hour,
			PinChangeEvery: time.Hour, ClaimEvery: 2 * time.Hour, ClaimChangeEvery: time.Hour, ReplySignEvery: time.Hour,
			LateQuestions: 0.3, LateFeedbacks: 0.3, LateEvents: 0.3, LateBy: time.Hour, IndexedLateBy: 5 * time.Hour, ChatsListedAfter: time.Hour,
		}}}})
		if err != nil {
			t.Fatal(err)
		}
		w := sb.Worlds()[0]
		hand := func(i int) {
			q, f, c := w.Questions(), w.Feedbacks(), w.Claims()
			must(t, w.Answer(q[i%len(q)].ID, "ответ "+strconv.Itoa(i)))
			must(t, w.Unanswer(q[(i+7)%len(q)].ID))
			must(t, w.EditFeedback(f[i%len(f)].ID, map[string]any{"matchingSize": i}))
			must(t, w.DeleteFeedback(f[(i+5)%len(f)].ID))
			must(t, w.TouchClaim(c[i%len(c)].ID, map[string]any{"price": i}))
			must(t, w.Resign(w.Chats()[0].ID))
		}
		left := 0
		for i := range 200 {
			time.Sleep(2*time.Hour + 7*time.Minute)
			if i == 150 {
				w.Rest()
			}
			if i < 150 && i%3 == 0 {
				hand(i)
			}
			left = compareJournal(t, w)
		}
		before := len(w.Journal())
		time.Sleep(30 * 24 * time.Hour)
		if n := len(w.Journal()); n != before {
			t.Errorf("%d states, %d when the world came to rest", n, before)
		}
		if compareJournal(t, w) <= left {
			t.Error("no claim has left by its age")
		}
	})
}

// compareJournal returns how many states are over.
func compareJournal(t *testing.T, w *sandbox.World) (over int) {
	t.Helper()
	type key struct {
		kind sandbox.Kind
		id   string
	}
	shown := make(map[key]json.RawMessage)
	for _, e := range w.Events() {
		shown[key{sandbox.KindEvent, e.ChatID + "/" + e.EventID}] = e.JSON
	}
	for _, c := range w.Chats() {
		shown[key{sandbox.KindChat, c.ID}] = c.JSON
	}
	for _, q := range w.Questions() {
		shown[key{sandbox.KindQuestion, q.ID}] = q.JSON
	}
	for _, f := range w.Feedbacks() {
		shown[key{sandbox.KindFeedback, f.ID}] = f.JSON
	}
	for _, c := range w.Claims() {
		shown[key{sandbox.KindClaim, c.ID}] = c.JSON
	}
	for _, p := range w.Pins() {
		shown[key{sandbox.KindPin, strconv.Itoa(p.ID)}] = p.JSON
	}
	last := make(map[key]sandbox.Showing)
	for _, s := range w.Journal() {
		k := key{s.Kind, s.ID}
		if before, ok := last[k]; ok && (before.To.IsZero() || s.From.Before(before.To)) {
			t.Errorf("%s %s: shown until %s, and then from %s", s.Kind, s.ID, before.To, s.From)
		}
		last[k] = s
		if !s.To.IsZero() {
			over++
			continue
		}
		if !bytes.Equal(shown[k], s.JSON) {
			t.Errorf("%s %s: the journal has %s, and the list shows %q", s.Kind, s.ID, s.JSON, shown[k])
		}
		delete(shown, k)
	}
	for k := range shown {
		t.Errorf("%s %s is shown, and the journal does not know", k.kind, k.id)
	}
	return over
}
