package sandbox

import "time"

// Demo is the configuration behind `syncd demo`: two sellers with some days of history, and so lively that together they
// get a new chat event about every 2 s, a new question about every 5 s, and an answer now and then. Mint their tokens with
// [Sandbox.MintToken]; the default of [TokenSpec] is a Personal token for everything.
func Demo(seed uint64) Config {
	lively := WorldSpec{
		Events:        300,
		Questions:     120,
		Span:          3 * 24 * time.Hour,
		EventEvery:    4 * time.Second,
		QuestionEvery: 10 * time.Second,
		AnswerShare:   0.7,
		AnswerAfter:   30 * time.Second,
	}
	return Config{
		Seed: seed,
		Sellers: []Seller{
			{Name: "ИП Соколова М. А.", World: lively},
			{Name: "ООО «Северный дом»", World: lively},
		},
	}
}
