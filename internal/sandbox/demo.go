package sandbox

import "time"

// Demo is the configuration behind `syncd demo`: a seller with some days of history, and so lively that it gets a new chat
// event about every 4 s, a new question about every 10 s, an answer now and then, a new claim about every 40 s and a change
// of one about every 20 s, a new feedback about every 15 s and a change of one about every 20 s, and a new pin about every
// minute. Mint its tokens with [Sandbox.MintToken]; the default of [TokenSpec] is a
// Personal token for everything.
func Demo(seed uint64) Config {
	lively := WorldSpec{
		Events:        300,
		Questions:     120,
		Span:          3 * 24 * time.Hour,
		EventEvery:    4 * time.Second,
		QuestionEvery: 10 * time.Second,

		Claims:           40,
		ClaimEvery:       40 * time.Second,
		ClaimChangeEvery: 20 * time.Second,
		ReplySignEvery:   time.Minute,

		Feedbacks:           150,
		FeedbackEvery:       15 * time.Second,
		FeedbackChangeEvery: 20 * time.Second,
		ModerateAfter:       20 * time.Second,
		Pins:                12,
		PinEvery:            time.Minute,
		PinChangeEvery:      2 * time.Minute,

		AnswerShare: 0.7,
		AnswerAfter: 30 * time.Second,
	}
	return Config{
		Seed: seed,
		Sellers: []Seller{
			{Name: "ИП Соколова М. А.", World: lively},
		},
	}
}
