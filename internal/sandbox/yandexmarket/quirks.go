package yandexmarket

import (
	"fmt"
	"time"
)

// Quirks are the points where the documents are silent or contradict what was seen. The zero value is the reading that the
// documents make likeliest; a client has to be right under every one. See yandex-market.md §2, §3 and §9.
type Quirks struct {
	// WindowPeriod is how long the windows of the limits are. Default: an hour.
	WindowPeriod time.Duration
	// WindowOffset is how much after full periods of the clock windows begin. Default: with them.
	WindowOffset time.Duration
	// WindowRolling counts the requests of the last period instead of those of a fixed window.
	WindowRolling bool
	// RefusedPay makes requests that are refused for lack of budget spend it too.
	RefusedPay bool
	// RemainingLag is by how many requests X-RateLimit-Resource-Remaining is behind.
	RemainingLag int
	// NoLimitHeaders leaves the X-RateLimit headers out.
	NoLimitHeaders bool
	// ClockSkew is by how much the clock of the Date and X-RateLimit-Resource-Until headers is fast.
	ClockSkew time.Duration

	// Latency is how long a request is under way before it does its work, Transit how long the answer is after it: it is
	// that old when it arrives. The slot is taken all the time. Default: no time passes.
	Latency time.Duration
	Transit time.Duration

	// TokenLife is how long a page token is good. Default: for ever.
	TokenLife time.Duration
	// TokenUses is how often a page token can be used. Default: any number of times.
	TokenUses int
	// TokensDieWithList makes page tokens bad as soon as the list is another one.
	TokensDieWithList bool
	// TokensCount makes a page token say how many entries came before, so that entries are missed or come twice when the
	// list moves. Default: it says which entry was the last.
	TokensCount bool
	// NoPagingAtEnd leaves `paging` out of the last page. Default: it is there, and empty.
	NoPagingAtEnd bool
	// EmptyLastPage adds an empty page after the last one.
	EmptyLastPage bool
	// Overlap repeats the last entry of a page as the first one of the next ("API may return overlapping pages"), where a
	// page has two or more.
	Overlap bool

	Chats     ChatQuirks
	Feedback  FeedbackQuirks
	Questions QuestionQuirks
	Returns   ReturnQuirks
}

func (q Quirks) validate() error {
	for name, n := range map[string]int64{
		"window period": int64(q.WindowPeriod), "window offset": int64(q.WindowOffset), "remaining lag": int64(q.RemainingLag),
		"latency": int64(q.Latency), "transit": int64(q.Transit), "token life": int64(q.TokenLife), "token uses": int64(q.TokenUses),
	} {
		if n < 0 {
			return fmt.Errorf("%s is negative", name)
		}
	}
	for _, err := range []error{q.Chats.validate(), q.Feedback.validate(), q.Questions.validate(), q.Returns.validate()} {
		if err != nil {
			return err
		}
	}
	return nil
}
