// Package yandexmarket is a simulated Yandex Market Partner API: chats, feedback, questions and returns, behind `syncd demo`,
// `syncd sandbox` and the tests.
//
// It is a second, independent reading of the API and imports nothing of syncd's but the sandbox's own kit, so that a mistake
// in the client is not repeated here. Sources, in this order: shared/specs/yandex-market/openapi.communication-returns.yaml
// (of 2026-07-17; a test validates the answers against it) and shared/marketplaces/yandex-market.md (gathered 2026-11-22).
// Where they are silent or disagree there is a switch in [Quirks] or [WorldSpec], and README.md says what was guessed.
//
// What it guarantees:
//
//   - A world is a function of seed, epoch and specification: the same three give the same items with the same ids at the
//     same moments, however often and whenever the world is looked at. It grows lazily from time.Now, without goroutines
//     or timers, and so works inside a testing/synctest bubble.
//   - The limits are strict: every request that finds no budget, or no slot among the parallel ones, is answered 420 and
//     recorded ([Market.Stats]).
//   - Everything is safe for concurrent use.
//
// What it does not do: TLS, OAuth, the push notifications, and the methods that are not listed in README.md, which get the
// documented 404.
package yandexmarket
