// Package sandbox is a simulated Wildberries seller API: the marketplace behind `syncd demo`, `syncd sandbox` and the
// tests.
//
// It is a second, independent reading of the API and imports nothing of syncd's, so that a mistake in the client is not
// repeated here. Sources, in this order: shared/specs/wildberries/2026-07-23-ru/09-communications.yaml (the newest complete
// OpenAPI document; a test validates the answers against it), 2026-08-19-en/api-information.json (tokens, limits, errors),
// and shared/marketplaces/wildberries.md (gathered 2026-11-22: recorded answers and what other clients rely on). Where they
// are silent or disagree there is a switch in [Quirks] or [WorldSpec], and README.md says what was guessed.
//
// What it guarantees:
//
//   - A world is a function of seed, epoch and specification: the same three give the same items with the same ids at the
//     same moments, however often and whenever the world is looked at. It grows lazily from time.Now, without goroutines
//     or timers, and so works inside a testing/synctest bubble.
//   - Budgets are strict token buckets per seller, token type and group of methods; every request that finds none is
//     answered 429 and recorded ([Sandbox.Stats]).
//   - Everything is safe for concurrent use.
//
// What it does not do: TLS, several hosts (the paths of the three API hosts are distinct, one handler serves them all), and
// the endpoints that are not listed in README.md, which get the documented 404.
package sandbox
