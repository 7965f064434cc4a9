package yandexmarket

import "time"

// Demo is the configuration behind `syncd demo`: a cabinet with three stores and some days of history, so lively that it
// gets a message about every 4 s, a feedback about every 15 s, a question about every 20 s and a return about every 40 s, and
// changes of all of them. Mint its key with [Market.MintKey]; the default of [KeySpec] is one that may read everything.
func Demo(seed uint64) Config {
	return Config{
		Seed: seed,
		Businesses: []BusinessSpec{{
			Name: "ООО «Северный дом»",
			Stores: []StoreSpec{
				{Domain: "Северный дом", Placement: FBS},
				{Domain: "Северный дом, склад Маркета", Placement: FBY},
				{Domain: "Северный дом с доставкой", Placement: DBS},
			},
			World: WorldSpec{
				Span: 3 * 24 * time.Hour,
				Chats: ChatSpec{
					History: 60, MessageEvery: 4 * time.Second, StatusEvery: 30 * time.Second,
					VanishEvery: 10 * time.Minute, VanishFor: 10 * time.Minute,
				},
				Feedback:  FeedbackSpec{History: 120, Every: 15 * time.Second, ChangeEvery: 30 * time.Second, AnswerAfter: time.Minute, ModerateAfter: 20 * time.Second},
				Questions: QuestionSpec{History: 80, Every: 20 * time.Second, ChangeEvery: time.Minute, AnswerAfter: time.Minute, ModerateAfter: 20 * time.Second},
				Returns:   ReturnSpec{History: 40, Every: 2 * time.Minute, ChangeEvery: time.Minute}, // of each of the three stores
			},
		}},
	}
}
