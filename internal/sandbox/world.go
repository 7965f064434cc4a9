package sandbox

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"syncd/internal/sandbox/kit"
)

// WorldSpec says what a seller's buyers write and how the marketplace shows it. Without any of the fields named …Every the
// world is at rest: after the epoch nothing happens in it by itself, except that late items of its history appear.
type WorldSpec struct {
	// Events, Questions and Feedbacks are the sizes of the history.
	Events    int
	Questions int
	Feedbacks int
	// Pins is how many of the feedbacks were pinned in the history.
	Pins int
	// Span is how far the history goes back from the epoch. Default: 30 days.
	Span time.Duration
	// FeedbackSpan is how far the feedbacks go back. Default: Span.
	FeedbackSpan time.Duration

	// EventEvery, QuestionEvery, FeedbackEvery and PinEvery are the mean times between new ones after the epoch. Default:
	// none come.
	EventEvery    time.Duration
	QuestionEvery time.Duration
	FeedbackEvery time.Duration
	PinEvery      time.Duration
	// FeedbackChangeEvery is the mean time between changes of feedbacks that are there, old ones too: supplements, edited
	// answers, returns, complaints, views, reviews that vanish and come back. Default: there are none, but some of the new
	// feedbacks are supplements in any case.
	FeedbackChangeEvery time.Duration
	// PinChangeEvery is the mean time between pins being taken off, by the seller (they vanish) or by the marketplace
	// (they are in the list of unpinned ones). Default: none are.
	PinChangeEvery time.Duration
	// Claims is how many claims of the history are in the lists at the epoch. A quarter as many again are older than the 14
	// days that the lists go back.
	Claims int
	// ClaimEvery is the mean time between new claims after the epoch, ClaimChangeEvery that between changes of those that
	// are shown: decided, reconsidered, put under review again, moved on in the warehouse. Default: none.
	ClaimEvery       time.Duration
	ClaimChangeEvery time.Duration
	// StillClaimChanges is the share of these changes that leave dt_update as it was. Default: none.
	StillClaimChanges float64
	// ClaimAgeByUpdate counts the 14 days from dt_update instead of dt: an old claim comes back when it changes.
	ClaimAgeByUpdate bool

	// NoPinPlan is a seller without subscription and tariff: nothing can be pinned through the API.
	NoPinPlan bool

	// AnswerShare is the share of questions and feedbacks that the seller answers (or, questions, rejects) some time; of
	// feedbacks without text and photo it is a quarter of that. Default: 0.85; negative: none.
	AnswerShare float64
	// AnswerAfter is the mean time until then. Default: 6 h.
	AnswerAfter time.Duration
	// ModerateAfter is the mean time until the answer to a feedback is shown or refused. Default: 10 min; negative: it is
	// shown at once.
	ModerateAfter time.Duration
	// AnsweredUnseen is the share of questions and feedbacks that are already answered when they first appear. Default: none.
	AnsweredUnseen float64

	// UnlistedChats is the share of chats that seller/chats never shows. Default: 0.04; negative: none.
	UnlistedChats float64
	// ChatsListedAfter is how long after its first event seller/chats shows a chat. Default: at once.
	ChatsListedAfter time.Duration
	// ReplySignEvery is the mean time between changes of some chat's replySign. Default: none change.
	ReplySignEvery time.Duration
	// ModerateFilesFor is how long a message's files cannot be downloaded yet. Default: they can at once.
	ModerateFilesFor time.Duration
	// RefusedFiles is the share of files that moderation then refuses. Default: none.
	RefusedFiles float64

	// LateEvents is the share of chat events that appear in the feed up to LateBy after their addTimestamp, behind the
	// cursor of who has read on. Default: none.
	LateEvents float64
	LateBy     time.Duration
	// LateQuestions and LateFeedbacks are the shares that the lists and counts show only up to IndexedLateBy after their
	// creation. Default: none.
	LateQuestions float64
	LateFeedbacks float64
	IndexedLateBy time.Duration

	// Journal keeps every state of every item for [World.Journal]. It grows with all that happens. Default: nothing is kept.
	Journal bool

	// PageTies makes every boundary between the history's pages of 50 events cut through so many events of one
	// millisecond. Default: 0; 2 or more otherwise.
	PageTies int
}

const (
	defaultSpan          = 30 * 24 * time.Hour
	defaultAnswerShare   = 0.85
	defaultAnswerAfter   = 6 * time.Hour
	defaultModerateAfter = 10 * time.Minute
	defaultUnlistedChats = 0.04
)

func (s WorldSpec) withDefaults() WorldSpec {
	if s.Span == 0 {
		s.Span = defaultSpan
	}
	if s.FeedbackSpan == 0 {
		s.FeedbackSpan = s.Span
	}
	if s.ModerateAfter == 0 {
		s.ModerateAfter = defaultModerateAfter
	}
	if s.UnlistedChats == 0 {
		s.UnlistedChats = defaultUnlistedChats
	}
	if s.AnswerShare == 0 {
		s.AnswerShare = defaultAnswerShare
	}
	if s.AnswerAfter == 0 {
		s.AnswerAfter = defaultAnswerAfter
	}
	return s
}

func (s WorldSpec) atRest() bool {
	for _, every := range []time.Duration{
		s.EventEvery, s.QuestionEvery, s.FeedbackEvery, s.FeedbackChangeEvery, s.PinEvery, s.PinChangeEvery,
		s.ClaimEvery, s.ClaimChangeEvery, s.ReplySignEvery,
	} {
		if every > 0 {
			return false
		}
	}
	return true
}

func (s WorldSpec) validate() error {
	var problems []error
	for name, n := range map[string]int{
		"events": s.Events, "questions": s.Questions, "feedbacks": s.Feedbacks, "pins": s.Pins, "claims": s.Claims, "page ties": s.PageTies,
	} {
		if n < 0 {
			problems = append(problems, fmt.Errorf("%s: %d is negative", name, n))
		}
	}
	for name, d := range map[string]time.Duration{
		"span": s.Span, "event every": s.EventEvery, "question every": s.QuestionEvery, "answer after": s.AnswerAfter,
		"late by": s.LateBy, "indexed late by": s.IndexedLateBy, "feedback span": s.FeedbackSpan,
		"feedback every": s.FeedbackEvery, "feedback change every": s.FeedbackChangeEvery,
		"pin every": s.PinEvery, "pin change every": s.PinChangeEvery,
		"chats listed after": s.ChatsListedAfter, "reply sign every": s.ReplySignEvery, "moderate files for": s.ModerateFilesFor,
		"claim every": s.ClaimEvery, "claim change every": s.ClaimChangeEvery,
	} {
		if d < 0 {
			problems = append(problems, fmt.Errorf("%s: %s is negative", name, d))
		}
	}
	for name, share := range map[string]float64{
		"answered unseen": s.AnsweredUnseen, "late events": s.LateEvents, "late questions": s.LateQuestions,
		"late feedbacks": s.LateFeedbacks, "still claim changes": s.StillClaimChanges, "refused files": s.RefusedFiles,
	} {
		if !(share >= 0 && share <= 1) {
			problems = append(problems, fmt.Errorf("%s: %v is no share from 0 to 1", name, share))
		}
	}
	if s.Pins > s.Feedbacks {
		problems = append(problems, fmt.Errorf("pins: %d of %d feedbacks", s.Pins, s.Feedbacks))
	}
	if !(s.UnlistedChats <= 1) {
		problems = append(problems, fmt.Errorf("unlisted chats: %v is above 1", s.UnlistedChats))
	}
	if !(s.AnswerShare <= 1) {
		problems = append(problems, fmt.Errorf("answer share: %v is above 1", s.AnswerShare))
	}
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(problems...)
}

// World is one seller's side of the marketplace. It moves when it is looked at: every access first lets happen, in the
// order of their times, all things that were due since the last one. Each kind of thing draws from its own generators at
// times that are drawn too, so what happens does not depend on who looks when.
type World struct {
	seller Seller
	spec   WorldSpec
	atRest bool

	mu         sync.Mutex // guards the rest
	time       kit.Timeline
	journal    *kit.Journal // nil: none is kept
	chat       *chatWorld
	questions  *questionWorld
	feedbacks  *feedbackWorld
	pins       *pinWorld
	claims     *claimWorld
	buckets    map[bucketKey]*bucket
	violations []Violation
}

func newWorld(seller Seller, seed uint64, epoch time.Time) *World {
	spec := seller.World.withDefaults()
	w := &World{
		seller:  seller,
		spec:    spec,
		atRest:  spec.atRest(),
		time:    kit.Timeline{Now: epoch.UnixNano()},
		buckets: make(map[bucketKey]*bucket),
	}
	if spec.Journal {
		w.journal = kit.NewJournal()
	}
	products := newProducts(kit.Stream(seed, "products "+seller.ID), seller.Name)
	w.chat = newChatWorld(w, seed, products)
	w.questions = newQuestionWorld(w, seed, products)
	w.feedbacks = newFeedbackWorld(w, seed, products)
	w.pins = newPinWorld(w, seed)
	w.claims = newClaimWorld(w, seed, products)
	w.time.Rhythm(&w.chat.grow, spec.EventEvery, w.chat.growOne)
	w.time.Rhythm(&w.questions.grow, spec.QuestionEvery, w.questions.growOne)
	w.time.Rhythm(&w.feedbacks.grow, spec.FeedbackEvery, w.feedbacks.growOne)
	w.time.Rhythm(&w.feedbacks.shift, spec.FeedbackChangeEvery, w.feedbacks.changeOne)
	w.time.Rhythm(&w.pins.grow, spec.PinEvery, w.pins.growOne)
	w.time.Rhythm(&w.pins.shift, spec.PinChangeEvery, w.pins.changeOne)
	w.time.Rhythm(&w.claims.grow, spec.ClaimEvery, w.claims.growOne)
	w.time.Rhythm(&w.claims.change, spec.ClaimChangeEvery, w.claims.changeOne)
	w.time.Rhythm(&w.chat.resign, spec.ReplySignEvery, w.chat.resignOne)
	return w
}

// ID is the seller's sid.
func (w *World) ID() string { return w.seller.ID }

// Name is the seller's name, as its products show it.
func (w *World) Name() string { return w.seller.Name }

// lock takes the world's mutex and lets happen what is due. The caller unlocks.
func (w *World) lock(now time.Time) {
	w.mu.Lock()
	w.time.Advance(now.UnixNano())
}
