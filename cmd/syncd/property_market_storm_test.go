package main

import (
	"fmt"
	"time"

	"syncd/internal/sandbox/kit"
	market "syncd/internal/sandbox/yandexmarket"
)

func (s *marketSim) businessSpec() market.BusinessSpec {
	mean := func() time.Duration { return s.pace.mean/2 + time.Duration(s.r.Int64N(int64(s.pace.mean))) }
	some := func(most int) int { return s.r.IntN(most) }
	coin := func() bool { return s.r.IntN(2) == 0 }
	share := func() float64 { return pick(s.r, []float64{0, 0.2}) }
	spec := market.BusinessSpec{World: market.WorldSpec{
		Journal: true, Span: time.Duration(5+some(100)) * day, Times: market.TimeForm(some(5)),
		Chats: market.ChatSpec{History: some(30), LongChat: pick(s.r, []int{0, 0, 130}), MessageEvery: mean() / 2, StatusEvery: 3 * mean(),
			VanishEvery: pick(s.r, []time.Duration{0, 5 * mean()}), VanishFor: 10 * mean(), Bursts: 0.3, LateMessages: share(), LateListings: share(),
			LateBy: s.lateSaid, DrawnMessageIDs: coin(), OrderIDs: coin()},
		Feedback: market.FeedbackSpec{History: some(30), Every: 2 * mean(), ChangeEvery: mean(), ModerateAfter: pick(s.r, []time.Duration{-1, 10 * minute, hour}),
			AnswerAfter: 5 * mean(), DeletedShown: coin()},
		Questions: market.QuestionSpec{History: some(30), Every: 2 * mean(), ChangeEvery: mean(), Late: share(), LateBy: s.late, AnswerAfter: 5 * mean(),
			DeletedShown: coin()},
		Returns: market.ReturnSpec{History: some(30), Every: 3 * mean(), ChangeEvery: mean(), StillChanges: share(), Late: share(), LateBy: s.late,
			Undated: share() / 2, Strange: share()},
	}}
	for range 1 + some(3) {
		st := market.StoreSpec{Placement: pick(s.r, []market.Placement{market.FBS, market.FBY, market.DBS, market.LAAS})}
		if len(spec.Stores) > 0 && some(5) == 0 {
			st.Availability = market.ManuallyDisabled
		}
		spec.Stores = append(spec.Stores, st)
	}
	return spec
}

func (s *marketSim) quirks() market.Quirks {
	coin := func() bool { return s.r.IntN(2) == 0 }
	rare := func() bool { return s.r.IntN(4) == 0 }
	times := func(d ...time.Duration) time.Duration { return pick(s.r, d) }
	q := market.Quirks{
		WindowOffset: time.Duration(s.r.IntN(2) * s.r.IntN(int(hour))), WindowRolling: rare(), RefusedPay: coin(), RemainingLag: pick(s.r, []int{0, 0, 1, 7}),
		NoLimitHeaders: s.r.IntN(6) == 0, ClockSkew: times(0, 0, 2*time.Second, -2*time.Second, 20*time.Second, -20*time.Second),
		Latency: times(0, 0, 50*time.Millisecond, time.Second), Transit: times(0, 0, 50*time.Millisecond),
		TokenUses: pick(s.r, []int{0, 0, 1, 2}), TokensDieWithList: rare(), TokensCount: coin(), NoPagingAtEnd: coin(), EmptyLastPage: coin(), Overlap: coin(),
		Chats:     market.ChatQuirks{Order: market.ChatOrder(s.r.IntN(5)), HistoryOrder: market.HistoryOrder(s.r.IntN(3)), FromExclusive: coin()},
		Feedback:  market.FeedbackQuirks{NewestFirst: coin(), ByPublication: coin(), UnknownIs404: coin()},
		Questions: market.QuestionQuirks{DaysInUTC: coin(), ToExclusive: coin(), OldestFirst: coin(), UnknownIs404: coin()},
		Returns: market.ReturnQuirks{Order: market.ReturnOrder(s.r.IntN(4)), DaysInUTC: coin(), FromExclusive: coin(), ToExclusive: coin(),
			OldDates: market.OldDates(s.r.IntN(3))},
	}
	q.Overlap = q.Overlap && !q.EmptyLastPage // together they make a list without an end
	if len(s.limits) == 0 {                   // where a page costs minutes no token must die in some
		q.TokenLife = times(0, time.Minute, 10*time.Second)
	}
	return q
}

// weather is what goes wrong on the network and at the marketplace from now on.
func (s *marketSim) weather() {
	s.box.ClearFaults()
	b := pick(s.r, s.box.Businesses())
	s.elsewhere(b, 0)
	business := fmt.Sprintf("businesses/%d/", b.ID())
	path := pick(s.r, []string{"", "", "/v2/" + business, "/v2/" + business + "chats", "/v2/" + business + "chats/", "/v2/" + business + "goods-feedback",
		"/v2/" + business + "goods-feedback/", "/v1/" + business, "/v1/" + business + "goods-questions/", "/v2/campaigns/", "/v2/campaigns"})
	inject := func(f market.Fault) {
		f.Path = path
		if err := s.box.Inject(f); err != nil {
			s.t.Fatal(err)
		}
	}
	some := pick(s.r, []float64{0.1, 0.5})
	few := 1 + s.r.IntN(3)
	switch s.r.IntN(11) {
	case 0, 1:
	case 2: // a network that breaks
		for _, k := range []kit.FaultKind{kit.FaultReset, kit.FaultLostAnswer, kit.FaultResetMidBody, kit.FaultTruncated, kit.FaultHang, market.FaultLate500} {
			inject(market.Fault{Kind: k, Rate: some / 3})
		}
	case 3: // a marketplace that breaks
		for _, k := range []kit.FaultKind{market.Fault500, market.Fault502, market.Fault503, market.Fault504, market.FaultOther200, market.FaultErrorIn200,
			kit.FaultContentType, kit.FaultGzip, kit.FaultBOM, market.Fault499, market.Fault423} {
			inject(market.Fault{Kind: k, Rate: some / 5})
		}
	case 4: // others spend the budget, now or for some time
		inject(market.Fault{Kind: market.Fault420, Variant: pick(s.r, []string{"resource", "bare"}), Count: few})
	case 5:
		inject(market.Fault{Kind: pick(s.r, []kit.FaultKind{market.Fault420, market.Fault429}), Rate: some / 2, Delay: time.Duration(s.r.IntN(600)) * time.Second})
	case 6: // others have requests in flight
		s.elsewhere(b, 1+s.r.IntN(4))
		inject(market.Fault{Kind: market.Fault420, Variant: "parallel", Rate: some / 4})
	case 7: // refused for some time
		inject(market.Fault{Kind: market.Fault401, Count: few})
	case 8:
		inject(market.Fault{Kind: market.Fault403, Variant: pick(s.r, []string{"deprecated", "denied", "scopes", "inactivity", "all_disabled"}), Count: few})
		inject(market.Fault{Kind: market.Fault403, Variant: "deprecated", Rate: some})
	case 9:
		inject(market.Fault{Kind: market.FaultSlow, Rate: some, Variant: pick(s.r, []string{"after", "before"}), Delay: time.Duration(s.r.IntN(19)) * time.Second})
		inject(market.Fault{Kind: kit.FaultSlowBody, Rate: some / 2, Delay: time.Duration(s.r.IntN(30)) * time.Second})
		inject(market.Fault{Kind: market.Fault400, Variant: "token", Rate: some / 4})
	case 10: // answers without a result, which is not required
		inject(market.Fault{Kind: market.FaultNoResult, Variant: pick(s.r, []string{"absent", "null", "empty"}), Rate: some / 4})
	}
	if s.r.IntN(8) == 0 {
		m := pick(s.r, marketMethods)
		if err := s.box.SpendElsewhere(m, s.entity(b, m), 1+s.r.IntN(5000)); err != nil {
			s.t.Fatal(err)
		}
	}
}

// entity is one that pays for a method.
func (s *marketSim) entity(b *market.Business, m market.Method) market.Entity {
	if m == market.MethodGetReturns {
		return market.CampaignEntity(pick(s.r, b.Stores()).ID)
	}
	return b.Entity()
}

// elsewhere lets other programs have n requests in flight.
func (s *marketSim) elsewhere(b *market.Business, n int) {
	if err := s.box.OccupyElsewhere(b.Entity(), n); err != nil {
		s.t.Fatal(err)
	}
}

// happen is something that somebody does on purpose at the marketplace, beside what its
// world does by itself.
func (s *marketSim) happen() {
	b := pick(s.r, s.box.Businesses())
	now := time.Now()
	bad := func(err error) {
		if err != nil {
			s.t.Fatal(err)
		}
	}
	tardy := func() time.Time {
		return now.Add(-time.Duration(s.r.Int64N(int64(s.late))) * time.Duration(s.r.IntN(2)))
	}
	text := func(of string) string { return fmt.Sprintf("%s %d", of, s.r.IntN(1000)) }
	switch s.r.IntN(14) {
	case 0, 1: // several messages within a second, some of them late
		chats := b.Chats()
		if len(chats) == 0 || s.r.IntN(4) == 0 {
			c, err := b.AddChat(market.ChatBy{Type: pick(s.r, []string{market.TypeChat, market.TypeArbitrage}), Context: pick(s.r, []string{market.ContextOrder, market.ContextReturn, market.ContextDirect})})
			bad(err)
			chats = []market.Chat{c}
		}
		in := pick(s.r, chats).ID
		for range 1 + s.r.IntN(5) {
			by := market.MessageBy{ChatID: in, Text: text("сообщение"), Sender: pick(s.r, []string{market.SenderCustomer, market.SenderPartner, market.SenderMarket, market.SenderSupport})}
			if s.lateSaid > 0 && s.r.IntN(4) == 0 {
				by.HistoryAfter = time.Duration(s.r.Int64N(int64(s.lateSaid)))
			}
			_, err := b.AddMessage(by)
			bad(err)
			time.Sleep(time.Duration(s.r.IntN(600)) * time.Millisecond)
		}
	case 2:
		if chats := b.Chats(); len(chats) > 0 {
			bad(b.SetChatStatus(pick(s.r, chats).ID, pick(s.r, []string{market.StatusWaitingForPartner, market.StatusFinished, market.StatusWaitingForBuyer})))
		}
	case 3:
		if chats := b.Chats(); len(chats) > 0 {
			id := pick(s.r, chats).ID
			bad(b.HideChat(id))
			_, err := b.AddMessage(market.MessageBy{ChatID: id, Text: text("напоследок")})
			bad(err)
			if s.r.IntN(2) == 0 {
				time.Sleep(time.Duration(s.r.Int64N(int64(s.pace.mean))))
				bad(b.ShowChat(id))
			}
		}
	case 4:
		for range 1 + s.r.IntN(6) {
			_, err := b.AddFeedback(market.NewFeedback{Created: tardy(), Text: text("отзыв"), Rating: 1 + s.r.IntN(5)})
			bad(err)
		}
	case 5:
		for range 1 + s.r.IntN(6) {
			_, err := b.AddQuestion(market.NewQuestion{Created: tardy(), Text: text("вопрос")})
			bad(err)
		}
	case 6, 7:
		if all := b.Feedbacks(); len(all) > 0 {
			id := pick(s.r, all).ID
			switch s.r.IntN(5) {
			case 0:
				bad(b.RewriteFeedback(id))
			case 1:
				bad(b.ReadFeedback(id))
			case 2:
				bad(b.DeleteFeedback(id))
			default:
				_, err := b.AddFeedbackComment(market.NewComment{To: id, Text: text("комментарий"), By: pick(s.r, []string{"USER", "BUSINESS"})})
				bad(err)
			}
		}
	case 8:
		if all := b.FeedbackComments(); len(all) > 0 {
			c := pick(s.r, all)
			switch s.r.IntN(4) {
			case 0:
				bad(b.EditFeedbackComment(c.ID, text("правка")))
			case 1:
				bad(b.DeleteFeedbackComment(c.ID))
			default: // nested: nothing of the review shows it
				_, err := b.AddFeedbackComment(market.NewComment{To: c.FeedbackID, Parent: c.ID, Text: text("ответ")})
				bad(err)
			}
		}
	case 9, 10:
		if all := b.Questions(); len(all) > 0 {
			id := pick(s.r, all).ID
			switch s.r.IntN(5) {
			case 0:
				bad(b.VoteQuestion(id))
			case 1:
				bad(b.DeleteQuestion(id))
			default:
				_, err := b.AddAnswer(market.NewComment{To: id, Text: text("ответ"), By: pick(s.r, []string{"USER", "BUSINESS", "VENDOR"})})
				bad(err)
			}
		}
	case 11:
		if all := b.Answers(); len(all) > 0 {
			id := pick(s.r, all).ID
			switch s.r.IntN(4) {
			case 0:
				bad(b.EditAnswer(id, text("правка")))
			case 1:
				bad(b.DeleteAnswer(id))
			default:
				_, err := b.AddAnswerComment(market.NewComment{To: id, Text: text("замечание")})
				bad(err)
			}
		}
	case 12:
		st := pick(s.r, b.Stores())
		r, err := b.AddReturn(market.NewReturn{CampaignID: st.ID, Unredeemed: s.r.IntN(3) == 0, Created: tardy()})
		bad(err)
		for range s.r.IntN(3) {
			bad(b.StepReturn(r.ID))
		}
	default:
		s.shops(b)
	}
}

// lastWords are messages of which nothing that comes later tells: one of the second in
// which the chat was read, one that its history does not show yet when the list does.
func (s *marketSim) lastWords(b *market.Business) {
	chats := b.Chats()
	for _, c := range chats[:min(len(chats), 6)] {
		by := market.MessageBy{ChatID: c.ID, Text: "и вот ещё"}
		if s.lateSaid > 0 && s.r.IntN(2) == 0 {
			by.HistoryAfter = s.lateSaid * 2 / 3
		}
		time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
		for range 2 {
			if _, err := b.AddMessage(by); err != nil {
				s.t.Fatal(err)
			}
			s.hurry()
			time.Sleep(400 * time.Millisecond) // in which it is read
			by.HistoryAfter = 0
		}
		time.Sleep(time.Duration(s.r.Int64N(int64(2 * time.Minute))))
	}
}

// hurry is an operator who asks for everything at once.
func (s *marketSim) hurry() {
	for _, name := range s.names {
		if _, err := s.proc.app.poller.PollNow(name, ""); err != nil {
			s.t.Error(err)
		}
	}
}

// shops is what becomes of stores and limits, in a storm alone.
func (s *marketSim) shops(b *market.Business) {
	var err error
	switch n := s.r.IntN(6); {
	case s.calming:
	case n == 0 && len(b.Stores()) < 5:
		var st market.Store
		if st, err = b.AddStore(market.StoreSpec{Placement: market.FBS}); err == nil {
			s.added[st.ID] = time.Now()
		}
	case n < 4:
		err = b.SetAvailability(pick(s.r, b.Stores()).ID, pick(s.r, []market.Availability{market.Available, market.Available, market.DisabledByInactivity, market.ManuallyDisabled}))
	default:
		m := pick(s.r, marketMethods)
		if s.limits[m] = s.pace.least << s.r.IntN(4); s.r.IntN(2) == 0 || s.quirk.TokenLife > 0 {
			delete(s.limits, m)
		}
		err = s.box.SetLimit(m, s.limits[m])
	}
	if err != nil {
		s.t.Fatal(err)
	}
}
